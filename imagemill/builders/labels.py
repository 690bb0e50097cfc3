"""The labels that every image gets, so that it says where it comes from.

The names are the OCI's: https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md.
`created` is left out, since with it no build would give the same image twice.
"""

from collections.abc import Mapping

REVISION = "org.opencontainers.image.revision"
SOURCE = "org.opencontainers.image.source"
SOURCE_HASH = "dev.imagemill.source-hash"


def labels(
    source_hash: str, revision: str | None, source_url: str | None, extra: Mapping[str, str]
) -> dict[str, str]:
    """All labels of an image; those that the request asks for, `extra`, win over ours, save the
    source hash.
    """
    known = {REVISION: revision, SOURCE: source_url}
    return {
        **{name: value for name, value in known.items() if value},
        **extra,
        SOURCE_HASH: source_hash,
    }
