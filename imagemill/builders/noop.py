"""The builder where building is turned off: images that exist are used, and none is made."""

from imagemill.errors import UserError
from imagemill.ports import BuildInputs, Progress, Registry, StoredContext


class NoopBuilder:
    """Refuses every build."""

    def __init__(self, *_: object) -> None:
        """Needs nothing of its worker, nor of the config."""

    def build(self, inputs: BuildInputs, context: StoredContext, registry: Registry, progress: Progress) -> str:
        """Never builds: a `UserError` says how building is turned on."""
        raise UserError(
            f"{inputs.image} does not exist, and building is turned off (builder.type: noop)",
            "set builder.type to docker or kaniko in the launch config, or name an image that exists; where the type"
            " is not set, docker is used if a docker CLI on the worker reaches an engine",
        )
