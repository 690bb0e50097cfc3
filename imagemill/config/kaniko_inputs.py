"""What `kaniko-config` says of the image itself: such arguments and variables of the executor are
inputs of the image, as those of the request are, and so are in its source hash.

All flags count but those that are known to leave the image as it is: a flag that nobody here knows
makes an image of its own, rather than be left out of its name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from imagemill.config.kaniko_job import executor_of
from imagemill.config.model import Builder, KanikoBuilder

HARMLESS = frozenset(
    {
        "cache",
        "cache-copy-layers",
        "cache-dir",
        "cache-repo",
        "cache-run-layers",
        "cache-ttl",
        "cleanup",
        "compressed-caching",
        "credential-helpers",
        "destination",
        "image-download-retry",
        "image-fs-extract-retry",
        "image-name-tag-with-digest-file",
        "image-name-with-digest-file",
        "insecure",
        "insecure-pull",
        "insecure-registry",
        "kaniko-dir",
        "log-format",
        "log-timestamp",
        "no-push-cache",
        "oci-layout-path",
        "pre-cleanup",
        "preserve-context",
        "push-ignore-immutable-tag-errors",
        "push-retry",
        "registry-certificate",
        "registry-client-cert",
        "registry-map",
        "registry-mirror",
        "skip-default-registry-fallback",
        "skip-push-permission-check",
        "skip-tls-verify",
        "skip-tls-verify-pull",
        "skip-tls-verify-registry",
        "skip-unused-stages",
        "snapshot-mode",
        "tar-path",
        "verbosity",
    }
)
"""Flags of the executor that are about how an image is made, fetched or pushed, not what is in it:
https://github.com/osscontainertools/kaniko/blob/v1.28.3/cmd/executor/cmd/root.go."""

FEATURES = "FF_KANIKO_"
"""What the names of variables begin with that change how the executor builds."""


@dataclass(frozen=True)
class KanikoInputs:
    """The inputs of an image that a config has for all its builds."""

    target: str | None = None
    platform: str | None = None
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    """All other flags, and the variables of features, by their names: their values, one a line."""


def kaniko_inputs(builder: Builder) -> KanikoInputs:
    """Return what the builder's `kaniko-config` gives; nothing for other builders."""
    if not isinstance(builder, KanikoBuilder):
        return KanikoInputs()
    container = executor_of(builder.kaniko_config)
    variables = {
        variable["name"]: variable.get("value", json.dumps(variable.get("valueFrom")))
        for variable in container.get("env") or ()
    }
    single: dict[str, str] = {}
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    options: dict[str, list[str]] = {}
    if builder.kaniko_features != "recommended":
        options["kaniko-features"] = [builder.kaniko_features]
    for flag, value in _flags(container):
        name, equals, given = value.partition("=")
        if flag == "build-arg":
            # Of a bare name the executor takes the value from its environment.
            build_args[name] = given if equals else variables.get(name, "")
        elif flag == "label":
            labels[name] = given
        elif flag in ("target", "custom-platform", "customPlatform"):
            single[flag.lower().replace("-", "")] = value
        elif flag not in HARMLESS:
            options.setdefault(f"--{flag}", []).append(value)
    features = {name: value for name, value in variables.items() if name.startswith(FEATURES)}
    joined = {name: "\n".join(values) for name, values in options.items()}
    return KanikoInputs(
        single.get("target"),
        single.get("customplatform"),
        build_args,
        labels,
        joined | features,
    )


def _flags(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the flags in their order, and their values; one without a value is on."""
    for argument in container.get("args") or ():
        flag, equals, value = argument.removeprefix("--").partition("=")
        yield flag, value if equals else "true"
