"""The switches of the executor that a build has on: what makes its images as BuildKit makes them,
and its caches right and quick.

They are its own (v1.28.3, most of them the default from v1.29 on), each described under its name in
https://github.com/osscontainertools/kaniko#feature-flags. `builder.kaniko-features: none` leaves
them all alone, and a variable in `kaniko-config` replaces a single one. An executor that does not
know one ignores it.
"""

from collections.abc import Mapping
from types import MappingProxyType

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        # As BuildKit makes images.
        "FF_KANIKO_COPY_AS_ROOT": "what COPY brings is root's also after USER, as the Dockerfile reference says",
        "FF_KANIKO_CHOWN_ON_IMPLICIT_DIRS": "the parents that WORKDIR makes belong to USER, too",
        "FF_KANIKO_COPY_CHMOD_ON_IMPLICIT_DIRS": "COPY --chmod is for the parents that it makes, too",
        "FF_KANIKO_EXPAND_HEREDOC": "variables in heredocs of COPY and ADD are expanded",
        "FF_KANIKO_RUN_HONOR_GROUP": "RUN has the group of USER user:group",
        "FF_KANIKO_UNTAR_SKIP_ROOT": "ADD of an archive leaves the folder's own mode and owner alone",
        # Right caches.
        "FF_KANIKO_SKIP_WRITE_WHITEOUTS": "a cached layer's whiteouts delete nothing in a later build",
        "FF_KANIKO_RESOLVE_CACHE_KEY": "a layer's key has the variables that its instruction uses",
        "FF_KANIKO_ROLLING_CACHE_KEY": "different sequences of instructions never share a key",
        "FF_KANIKO_HASH_DIR_FRAMING": "different folders never share a key",
        # Quick builds.
        "FF_KANIKO_INFER_CROSS_STAGE_CACHE_KEY": "a COPY --from can be found in the cache without its stage",
        "FF_KANIKO_SKIP_CACHED_STAGES": "stages whose results are all cached are not built",
        "FF_KANIKO_SHARED_BASE_CACHE": "a base image of several stages is downloaded once",
        "FF_KANIKO_CROSS_REPO_MOUNT": "layers that the registry has in another repository are not uploaded",
        "FF_KANIKO_PRECOMPILE_DOCKERIGNORE": "patterns are compiled once, not for each file",
        "FF_KANIKO_SKIP_RELABEL_RECOMPRESS": "a cached layer is not compressed again for its media type",
        # The same login on each version: from v1.29 on, entries of `auths` for a part of a host count.
        "FF_KANIKO_PATH_SCOPED_REGISTRY_AUTH": "a login for a part of a registry is used for that part",
    }
)
"""Variables that are "true" in each build pod, and why."""
