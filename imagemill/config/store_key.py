"""The key of a Blob store: the only credentials by which Kaniko reads it, and where a config has
it.
"""

from imagemill.config.kaniko_job import executor_of
from imagemill.config.model import KanikoBuilder

ACCOUNT_KEY = "AZURE_STORAGE_ACCESS_KEY"
"""The only credentials for Blob Storage that Kaniko knows: a variable."""

AGENTS_SECRET, AGENTS_KEY = "azure-storage-access-key", "password"
"""The Secret, and its key, from which the W&B agent's build pods take it; its chart makes it."""

DOCKER_KEYS = frozenset({".dockerconfigjson", ".dockerconfig", "config.json"})
"""The keys of a Secret that holds logins of registries."""


def takes_agents_key(section: KanikoBuilder) -> bool:
    """Return whether the pod takes the key from the agent's Secret: its store is Blob Storage, and
    the config gives it no other.
    """
    if not section.build_context_store.startswith("https://") or section.is_signed:
        return False
    if section.secret_name is not None and section.secret_key not in DOCKER_KEYS:
        return False
    container = executor_of(section.kaniko_config)
    names = {variable["name"] for variable in container.get("env") or ()}
    return not container.get("envFrom") and ACCOUNT_KEY not in names
