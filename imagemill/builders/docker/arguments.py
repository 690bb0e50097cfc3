"""The arguments of `docker build` for what a builder is asked to make, with no value of a build
argument among them.
"""

import csv
import io
import re
from collections.abc import Container
from pathlib import Path

from imagemill.errors import OperatorError, UserError
from imagemill.place import machine
from imagemill.ports import BuildInputs

_TAKEN = re.compile(
    r"(?!.*(?:TOKEN|SECRET|PASSWORD|_KEY|_KEY_ID)$)(?:"  # these name who one is, and nothing to run or to read
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LC_.*|TMPDIR|TZ.*|ENV|IFS|CDPATH|.*_PROXY|BASH.*"
    r"|(?:DOCKER|BUILDKIT|BUILDX|COMPOSE|OTEL|GRPC|SSL|XDG|DBUS|SSH|GIT|GPG|GNUPGHOME|PASSWORD_STORE).*"  # docker's
    r"|GODEBUG|GOGC|GOMAXPROCS|GOMEMLIMIT|GOTRACEBACK|GOCOVERDIR"  # Go's: https://pkg.go.dev/runtime
    r"|(?:LD|DYLD|MALLOC|GLIBC|GCONV|RES|NIS|RESOLV)_.*|GETCONF_DIR|HOSTALIASES|LOCALDOMAIN|LOCPATH|NLSPATH"  # ld.so(8)
    r"|(?:PYTHON|PERL|RUBY|NODE|JAVA|JDK|_JAVA|AWS|AZURE|CLOUDSDK|GOOGLE|ECS|MSI).*"  # credential helpers'
    r")",
    re.IGNORECASE,
)


def build_arguments(inputs: BuildInputs, taken: Container[str]) -> tuple[list[str], dict[str, str]]:
    """`--build-arg` for each build argument, and the variables that docker reads their values from.

    Everybody on the machine may read a process's arguments, hence the detour. A few values go the
    open way: those whose names are `taken` by the environment already, or from which docker or what
    it calls would take orders: a request must not get a worker to load a library by naming an
    argument LD_PRELOAD.
    """
    arguments, variables = [], {}
    for name, value in inputs.build_args.items():
        if not name or "=" in name or "\0" in name + value:
            raise UserError(
                f"{name!r} cannot be the name of a build argument", "use letters, digits and '_'"
            )
        if name in taken or _TAKEN.fullmatch(name):
            arguments.append(f"--build-arg={name}={value}")
        else:
            arguments.append(f"--build-arg={name}")
            variables[name] = value
    return arguments, variables


def other_arguments(inputs: BuildInputs) -> list[str]:
    """Return the arguments for labels, target, platform, caches, secrets and SSH keys."""
    arguments = [_label(name, value) for name, value in inputs.labels.items()]
    arguments += [f"--target={inputs.target}"] if inputs.target else []
    arguments += [f"--platform={inputs.platform}"] if inputs.platform else []
    arguments += ["--no-cache"] * inputs.no_cache + ["--pull"] * inputs.pull
    arguments += [_secret(name, path) for name, path in inputs.secrets.items()]
    return arguments + [
        f"--ssh={name}={path}" if path else f"--ssh={name}" for name, path in inputs.ssh.items()
    ]


def _label(name: str, value: str) -> str:
    if not name or "=" in name or any(map(str.isspace, name)) or "\0" in name + value:
        raise UserError(
            f"{name!r} cannot be the name of a label", "use letters, digits, '.', '-' and '_'"
        )
    return f"--label={name}={value}"


def _secret(name: str, path: Path) -> str:
    if not path.is_file():
        raise OperatorError(
            f"{machine().capitalize()} has no file for the build secret {name!r}",
            f"put its value there, readable for {machine()}",
        )
    line = io.StringIO()  # docker reads it as a line of CSV, so that a path may have a comma
    csv.writer(line, lineterminator="").writerow([f"id={name}", f"src={path}"])
    return f"--secret={line.getvalue()}"
