"""The arguments of Kaniko's executor, and how two lists of them become one.

Which flags are taken many times, each time adding to what was given before, is in the executor's
source: those whose type is a list or a map,
https://github.com/osscontainertools/kaniko/blob/v1.28.3/cmd/executor/cmd/root.go.
"""

from collections.abc import Iterable, Iterator

REPEATABLE = frozenset(
    {
        "annotation",
        "build-arg",
        "credential-helpers",
        "destination",
        "git",
        "ignore-path",
        "insecure-registry",
        "label",
        "registry-certificate",
        "registry-client-cert",
        "registry-map",
        "registry-mirror",
        "secret",
        "skip-tls-verify-registry",
    }
)
"""Flags that add up. Of two values for the same key (a build argument, a label) Kaniko takes the
later one.
"""

RESERVED = {
    "bucket": "the context comes from builder.build-context-store",
    "context": "the context comes from builder.build-context-store",
    "context-sub-path": "the packed context has a layout of its own",
    "digest-file": "the digest of the image is read from where Imagemill has it written",
    "dockerfile": "the Dockerfile is named in the request",
    "no-push": "an image that is not pushed is lost with its pod",
}
"""Flags that nobody else may give, and why: with another value a build would be of something else,
or fail late.
"""

CONTEXT_URL = "IMAGEMILL_CONTEXT_URL"
"""The variable that the flag `--context` refers to where its value is a secret."""

RESERVED_VARIABLES = {
    "KANIKO_NO_PUSH": RESERVED["no-push"],
    CONTEXT_URL: RESERVED["context"],
}
"""Variables that become a flag among the `RESERVED` ones, and why nobody else may give them.

It reads KANIKO_DIR, KANIKO_REGISTRY_MAP and KANIKO_REGISTRY_MIRROR too, whose flags anybody may
give.
"""

KEEPING = "push-ignore-immutable-tag-errors"
"""With it, the executor ends well where the registry keeps another image of that tag, with a digest
that is nowhere.
"""

LOW_MEMORY = ("--compressed-caching=false", "--snapshot-mode=redo")
"""What makes Kaniko need less memory: layers are not compressed in it, files are not read to find
what changed.
"""


def flag(argument: str) -> str:
    """Return the name of an argument's flag: `cache` of `--cache`, `--cache=` and `--cache=true`."""
    return argument.removeprefix("--").partition("=")[0]


def merge(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Return the arguments of both: a flag in `second` replaces the one in `first`, unless it is
    `REPEATABLE`.

    Order is kept, nothing is given twice, and of a flag that is twice in one list the last one
    counts, as for Kaniko.
    """
    result: dict[str, str] = {}
    for argument in (*first, *second):
        name = flag(argument)
        key = argument if name in REPEATABLE else name
        result.pop(key, None)
        result[key] = argument
    return list(result.values())


def without_keeping(given: Iterable[str]) -> list[str]:
    """Return what turns `KEEPING` off, where it is given: such a tag is kept by us, with its own
    digest.
    """
    return [f"--{KEEPING}=false"] if any(flag(argument) == KEEPING for argument in given) else []


def reserved(arguments: Iterable[object]) -> Iterator[tuple[int, str]]:
    """Yield the flags among the arguments that are `RESERVED`: their indices and names."""
    for index, argument in enumerate(arguments):
        if isinstance(argument, str) and flag(argument) in RESERVED:
            yield index, flag(argument)
