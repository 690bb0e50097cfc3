"""The operator's credentials for the hosts of sources: a file per host, or the same in the worker's
environment.
"""

from imagemill.files.own import own_file
from imagemill.sources.options import SourceOptions


def file_name(address: str) -> str:
    """Return what the file for `HOST` or `HOST:PORT` is called: `HOST_PORT`, since names in a
    Secret have no colon.
    """
    return address.translate({ord("["): None, ord("]"): None, ord(":"): "_"})


def token_line(address: str, options: SourceOptions) -> str:
    """`TOKEN` or `USER:TOKEN` for `HOST` or `HOST:PORT`, empty if there is none. A file comes
    before the environment.

    `OperatorError` if the file cannot be read.
    """
    if options.anonymous:
        return ""
    name = file_name(address)
    content = own_file(options.credentials / name) if options.credentials else None
    text = options.tokens.get(name, "") if content is None else content.decode(errors="replace")
    return text.partition("\n")[0].strip()
