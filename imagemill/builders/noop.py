"""The builder where none is set and no engine was found, or building is turned off: images that
exist are used.
"""

from imagemill.errors import UserError
from imagemill.ports import BuildInputs, Over, Progress, Registry, StoredContext


class RefusingBuilder:
    """Refuses every build."""

    def __init__(self, *_: object) -> None:
        """Needs nothing of its worker, nor of the config."""

    def build(
        self, inputs: BuildInputs, context: StoredContext, registry: Registry, progress: Progress
    ) -> str:
        """Never builds: a `UserError` says how building is turned on."""
        # Both readers are meant: the section that we are made of is the same for them.
        raise UserError(
            f"{inputs.image} does not exist, and nothing can build it: builder.type is noop, or it is not set and no"
            " Docker engine was found",
            "if builder.type is not set, start a Docker engine, or set DOCKER_HOST to one; if it is noop, set"
            " builder.type to docker or kaniko in the launch config",
        )

    def discard(self, build: str) -> None:
        """See `Builder.discard`: nothing ever runs."""

    def tidy(self, over: Over) -> None:
        """See `Builder.tidy`: nothing is ever left."""
