"""The failure model: one tree, divided by who can act on a failure.

    ImagemillError
    ├── UserError               whoever asked for the build can mend it; never retried
    │   └── ConfigError         … in the launch config: file, line and key are named
    ├── OperatorError           whoever runs the workers can mend it; never retried
    │   ├── NotInstalled        … by installing the package that is missing
    │   └── PermissionDenied    … by granting what was refused
    ├── TransientError          time can mend it; retried, with back-off
    │   └── ServiceUnreachable  broker, result backend, registry, engine or store does not answer
    └── BuildCancelled          somebody asked for it

Every error has a `message` (what happened, and where) and a `hint` (what to do next). Both travel
through Celery's JSON results, so an error is made of positional text arguments only, and neither
ever holds a secret.
"""

import sys
from typing import NoReturn, Self

_LONGEST = 8192
"""Characters of a message: what somebody wrote may be repeated in it, however long that is."""


def _told(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class ImagemillError(Exception):
    """Base of all expected failures.

    `message` says what happened and where, in one sentence or a few lines; `hint` says what to do
    about it.
    """

    field = ""
    """The field of the request that the hint is about, if it is about one: whoever knows the fields
    by other names can say so.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = _told(message), _told(hint)
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def about(self, field: str) -> Self:
        """Return the error itself, whose hint is about this field of the request."""
        self.field = field
        return self

    def hint_also(self, more: str) -> None:
        """Have the hint say this, too."""
        self.hint = f"{self.hint}; {more}" if self.hint else more
        self.args = (self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    @property
    def lines(self) -> str:
        """The error for people, where there are no colours."""
        return (
            f"error: {self.message}\nhint: {self.hint}" if self.hint else f"error: {self.message}"
        )

    @property
    def kind(self) -> str:
        """The class's name: what reports and JSON call the kind of the error."""
        return type(self).__name__


class UserError(ImagemillError):
    """The request, the source or the config is wrong: whoever asked for the build can mend it."""


class ConfigError(UserError):
    """The launch config is wrong; the message names file, line and key."""


class OperatorError(ImagemillError):
    """The service is set up wrongly or out of room: whoever runs the workers can mend it."""


class NotInstalled(OperatorError):
    """A package is not there that what was asked for needs; the hint installs it."""


class PermissionDenied(OperatorError):
    """An authority refused an action; the message names the action and the resource.

    `action` and `resource` are what the authority itself calls them (`s3:PutObject`, an ARN), where
    it has such names: `imagemill doctor` prints the line of policy that grants them.
    """

    def __init__(self, message: str, hint: str = "", action: str = "", resource: str = "") -> None:
        super().__init__(message, hint)
        self.action = action
        self.resource = resource


class TransientError(ImagemillError):
    """A failure that time can mend.

    `retry_after` is the number of seconds that the other side asked us to wait (HTTP Retry-After),
    if it did. `exhausted` says that it has been tried often enough below already, so that the step
    does not try it again; `refused` that there is nobody at the address at all.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        retry_after: float | None = None,
        *,
        exhausted: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.exhausted = exhausted
        self.refused = refused


class ServiceUnreachable(TransientError):
    """A server that we need does not answer."""


class BuildCancelled(ImagemillError):
    """Somebody cancelled the build."""


def end_process(error: ImagemillError) -> NoReturn:
    """End a process that was started wrongly: says why, with the exit code of wrong usage."""
    print(error.lines, file=sys.stderr, flush=True)
    sys.exit(2)
