"""The launch config: its model, and how it is found and read. The only place that knows its keys.

model             the config as a frozen, typed model, with all defaults
policy            its section of what may be built
section           what all its sections share
loading           which file, what it says, what is wrong with it and where
yaml_document     YAML with line numbers
registry_section  the agent's older `registry` section
legacy            older and foreign keys brought into the model's form
kaniko_job        what `kaniko-config` must look like
kaniko_inputs     what `kaniko-config` says of the image itself
store_key         the key of a Blob store
regions           where a cloud's registry lies
faults, explain   what is wrong, in words

Model and loading are imported when they are first used: a client needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagemill.config.loading import Loaded, advice, describe, find, load, load_found
    from imagemill.config.model import (
        AutoBuilder,
        AwsEnvironment,
        AzureEnvironment,
        Builder,
        DockerBuilder,
        Environment,
        GcpEnvironment,
        KanikoBuilder,
        LaunchConfig,
        LocalEnvironment,
        NoopBuilder,
    )

__all__ = [
    "AutoBuilder",
    "AwsEnvironment",
    "AzureEnvironment",
    "Builder",
    "DockerBuilder",
    "Environment",
    "GcpEnvironment",
    "KanikoBuilder",
    "LaunchConfig",
    "Loaded",
    "LocalEnvironment",
    "NoopBuilder",
    "advice",
    "describe",
    "find",
    "load",
    "load_found",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        model = import_module(f"{__name__}.model")
        found = getattr(model, name, None)
        return found or getattr(import_module(f"{__name__}.loading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
