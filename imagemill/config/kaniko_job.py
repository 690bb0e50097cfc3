"""What `kaniko-config` must look like for it to be laid over the Job that runs Kaniko.

It is a free Kubernetes Job,
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/, and the API server
has the last word on it. What is checked here are the path to the executor's arguments and
variables, which Imagemill merges by name, and what YAML turns into something else than it looks
like (`value: yes`, `value: 1`).
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from imagemill.config.faults import FREE, Fault, KeyPath, shown

Check = Callable[[Any], Iterator[Fault]]
"""All that is wrong with a value; the faults' paths begin at it."""

_POD = ("spec", "template", "spec")
_ARGUMENT = re.compile(r"--[a-z][a-z0-9-]*(=.*)?", re.ASCII | re.DOTALL)
_WITHOUT_HYPHENS = re.compile(r"-?[a-z][a-z0-9-]*=.*", re.ASCII | re.DOTALL)
_SECRET_NAME = re.compile(
    r"SECRET|PASSW|TOKEN|CREDENTIAL|ACCESS_?KEY|API_?KEY|PRIVATE", re.IGNORECASE
)


def _mapping(checks: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    """Yield a mapping with these keys, where they are given, and any others."""

    def check(value: Any) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield Fault((), f"found {shown(value)}, expected a mapping")
            return
        for key, check_item in checks.items():
            if value.get(key) is not None:
                yield from (fault.below((key,)) for fault in check_item(value[key]))
            elif key in required:
                yield Fault((key,), "found nothing, expected text")

    return check


def _list(check_first: Check, check_others: Check | None = None) -> Check:
    def check(value: Any) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield Fault((), f"found {shown(value)}, expected a list")
            return
        for index, item in enumerate(value):
            check_item = check_others if check_others and index else check_first
            yield from (fault.below((index,)) for fault in check_item(item))

    return check


def _exactly(expected: str) -> Check:
    def check(value: Any) -> Iterator[Fault]:
        if value != expected:
            yield Fault((), f"found {shown(value)}, expected {expected}")

    return check


def _text(value: Any) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault((), f"found {shown(value)}, expected text", "put it in quotes")


def _argument(argument: Any) -> Iterator[Fault]:
    """Never repeats the argument: a `--build-arg` may hold anything."""
    expected = "expected --key=value or a bare --flag"
    if not isinstance(argument, str):
        yield Fault((), f"found {shown(argument)}, {expected}", "put it in quotes")
    elif _WITHOUT_HYPHENS.fullmatch(argument):
        yield Fault(
            (), f"found an argument without two hyphens in front, {expected}", "begin it with --"
        )
    elif not _ARGUMENT.fullmatch(argument):
        yield Fault(
            (),
            f"found another form, {expected}",
            "a flag and its value are one argument, joined by '='",
        )


_ENV = _list(_mapping({"name": _text, "value": _text}, required=("name",)))
_EXECUTOR = _mapping({"args": _list(_argument), "env": _ENV})
_SIDECAR = _mapping({"args": _list(_text), "env": _ENV})
_POD_SPEC = _mapping({"containers": _list(_EXECUTOR, _SIDECAR)})
_JOB_SPEC = _mapping({"template": _mapping({"spec": _POD_SPEC})})

job_faults = _mapping(
    {"apiVersion": _exactly("batch/v1"), "kind": _exactly("Job"), "spec": _JOB_SPEC}
)
"""All that is wrong with the document; paths begin at it."""


def literal_secrets(job: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield the variables that seem to hold a secret in plain text: paths from the top of the
    config, and names.

    For a document without faults.
    """
    pod = job
    for key in _POD:
        pod = pod.get(key) or {}
    for index, container in enumerate(pod.get("containers") or ()):
        for number, variable in enumerate(container.get("env") or ()):
            if variable.get("value") and _SECRET_NAME.search(variable["name"]):
                yield (*FREE, *_POD, "containers", index, "env", number), variable["name"]


def without_secrets(value: Any) -> Any:
    """Return a copy of any part of the Job to show people: no variable's value, no build argument's
    value.
    """
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, str) and value.startswith("--build-arg="):
        name, equals, _ = value.removeprefix("--build-arg=").partition("=")
        return f"--build-arg={name}{equals and '=(not shown)'}"
    if not isinstance(value, dict):
        return value
    hidden = {"value": "(not shown)"} if {"name", "value"} <= value.keys() else {}
    return {key: without_secrets(item) for key, item in value.items()} | hidden


def executor_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return the container of a document without faults that runs Kaniko; empty if it has none."""
    for key in _POD:
        job = job.get(key) or {}
    containers = job.get("containers") or [{}]
    return containers[0] or {}


LEAST_RETENTION = 60
"""Seconds for which a Job that has ended stays, so that a worker sees how."""

TERMINATION_LOG = "/dev/termination-log"
"""The file whose content becomes the message of the container's end: the image's digest."""

TERMINATION_POLICY = "FallbackToLogsOnError"
"""Where there is no digest, the end of the log is kept with the pod, in case that the log itself is
lost.
"""

_AGAIN = "since Imagemill tries a build again by itself"
_NAMED = "a Job's name says what it builds: its beginning is builder.build-job-name"
_ENDED = "since Imagemill learns from it how the build ended"
_OVERRULED: dict[KeyPath, tuple[Any, str]] = {
    ("spec", "backoffLimit"): (0, _AGAIN),
    ("spec", "completions"): (1, _AGAIN),
    ("spec", "parallelism"): (1, _AGAIN),
    (*_POD, "restartPolicy"): ("Never", _AGAIN),
    ("metadata", "name"): (None, _NAMED),
    ("metadata", "generateName"): (None, _NAMED),
    (*_POD, "containers", 0, "terminationMessagePath"): (TERMINATION_LOG, _ENDED),
    (*_POD, "containers", 0, "terminationMessagePolicy"): (TERMINATION_POLICY, _ENDED),
}
"""What a Job of ours has, whatever the document says, and why."""


def overruled(job: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield what the document says and a Job of ours has otherwise: paths from the top of the
    config, and what it has.
    """
    for path, (ours, why) in _OVERRULED.items():
        value: Any = job
        for key in path:
            if isinstance(value, list):
                value = value[0] if value else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        if value not in (None, ours):
            yield (*FREE, *path), why if ours is None else f"{path[-1]} is {ours}, {why}"
    kept = (job.get("spec") or {}).get("ttlSecondsAfterFinished")
    if isinstance(kept, int) and kept < LEAST_RETENTION:
        why = f"a Job is kept for {LEAST_RETENTION} s at least, {_ENDED}"
        yield (*FREE, "spec", "ttlSecondsAfterFinished"), why
