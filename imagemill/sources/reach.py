"""Where servers may be that sources name, or that their servers lead to."""

from imagemill.addresses import Reach, Resolve, networks, system_addresses
from imagemill.sources.options import SourceOptions


def reach(
    options: SourceOptions, named: str | None = None, resolve: Resolve = system_addresses
) -> Reach:
    """Return it for a worker with these options; the server `named`, `HOST:PORT`, may be
    anywhere.
    """
    return Reach(
        frozenset({named} if named else ()),
        networks(options.networks),
        plain=options.insecure_hosts,
        to_allow="add its network to IMAGEMILL_SOURCE_NETWORKS",
        plain_setting="IMAGEMILL_SOURCE_INSECURE_HOSTS",
        resolve=resolve,
    )
