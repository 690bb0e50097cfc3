"""Whether a Job is one, before it is sent: all that is wrong with it, in the launch config's own
words.

What a Job may have is known from the models of Kubernetes' own client, which are made from the
API's description. The API server has the last word: it also knows which values go together.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from kubernetes.client import models
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from imagemill.builders.kaniko.job import Circumstances, job_for, reserved_faults
from imagemill.builders.kaniko.overlay import Document, with_quantities_as_text
from imagemill.config.faults import FREE, Fault, KeyPath, dotted, shown
from imagemill.config.model import KanikoBuilder
from imagemill.errors import ConfigError
from imagemill.ports import BuildInputs

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a number without quotes",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}
_PARTS = (
    models.V1JobSpec,
    models.V1ObjectMeta,
    models.V1PodTemplateSpec,
    models.V1PodSpec,
    models.V1Container,
    models.V1Volume,
    models.V1VolumeMount,
    models.V1ResourceRequirements,
    models.V1SecurityContext,
    models.V1Toleration,
)
_PLACES = (
    ("spec.template.spec", models.V1PodSpec),
    ("spec", models.V1JobSpec),
    ("spec.template.spec.containers[0]", models.V1Container),
)
"""Where a key may have been meant to be, the likeliest first."""

_KEYS = sorted({key for part in _PARTS for key in part.attribute_map.values()})


def valid_job(
    section: KanikoBuilder,
    inputs: BuildInputs,
    context_uri: str,
    circumstances: Circumstances | None = None,
) -> Document:
    """Return the Job of `job_for`, of which the API's description holds; `ConfigError` says what in
    the config is wrong.
    """
    _refuse(faults(section))
    job = job_for(section, inputs, context_uri, circumstances)
    _refuse(_faults(job))
    return job


def faults(section: KanikoBuilder) -> Iterator[Fault]:
    """Yield all that is wrong with `kaniko-config`, whatever is built: paths begin at it."""
    # The part by itself, which may leave out what the whole needs.
    yield from _faults(with_quantities_as_text(section.kaniko_config), partial=True)
    yield from reserved_faults(section.kaniko_config)


def _refuse(faults: Iterator[Fault]) -> None:
    found = list(faults)
    if not found:
        return
    lines = [f"{_place(fault.path)}: {fault.message}" for fault in found]
    hints = dict.fromkeys(fault.hint for fault in found if fault.hint)
    raise ConfigError("\n".join(lines), "; ".join(hints))


def _place(path: KeyPath) -> str:
    """Return the path in the launch config, with Kubernetes' keys as they are."""
    whole = (*FREE, *path)
    return dotted(
        whole, {whole[:end]: str(whole[end - 1]) for end in range(len(FREE) + 1, len(whole) + 1)}
    )


def _faults(job: Document, *, partial: bool = False) -> Iterator[Fault]:
    """All that is wrong; of a part of a Job nothing that it is without, be it absent or null."""
    try:
        model = models.V1Job.model_validate(job)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if not partial or (details["type"] != "missing" and details["input"] is not None):
                yield _fault(details)
        return
    # The models also take Python's own spelling of a key (node_selector), which the API does not.
    for path in _left_out(job, model.model_dump(by_alias=True, exclude_unset=True)):
        yield _unknown(path)


def _fault(error: ErrorDetails) -> Fault:
    path: KeyPath = error["loc"]
    if error["type"] == "missing":
        return Fault(path, "found nothing, expected a value")
    if error["type"] == "extra_forbidden":
        return _unknown(path)
    expected = _EXPECTED.get(error["type"], f"another value: {error['msg']}")
    hint = (
        "put it in quotes"
        if expected == "text" and isinstance(error["input"], bool | int | float)
        else ""
    )
    return Fault(path, f"found {shown(error['input'])}, expected {expected}", hint)


def _unknown(path: KeyPath) -> Fault:
    key = str(path[-1])
    near = get_close_matches(_camel_case(key), _KEYS, n=1)
    elsewhere = f"{key} belongs to another part of a Job" if key in _KEYS else ""
    place = next((where for where, part in _PLACES if key in part.attribute_map.values()), "")
    if elsewhere and place:
        elsewhere = f"{key} belongs below {dotted(FREE)}.{place}"
    hint = elsewhere or (f"did you mean {near[0]}?" if near else "")
    return Fault(path, "found a key that is unknown here, expected one of Kubernetes'", hint)


def _camel_case(key: str) -> str:
    first, *others = key.replace("-", "_").split("_")
    return first + "".join(map(str.capitalize, others))


def _left_out(given: Any, taken: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Keys that are in one and not in the other."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            if key in taken:
                yield from _left_out(value, taken[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(given, list) and isinstance(taken, list):
        for index, (item, same) in enumerate(zip(given, taken, strict=True)):
            yield from _left_out(item, same, (*path, index))
