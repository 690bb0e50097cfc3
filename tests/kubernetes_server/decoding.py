"""JSON into an object of the API: types are checked, fields that the API does not have are dropped
and named.

The schema is that of the official client's models, which are generated from Kubernetes' OpenAPI
document.
https://kubernetes.io/docs/reference/using-api/api-concepts/#setting-the-field-validation-level
"""

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Any

from kubernetes import client

from kubernetes_server import status
from kubernetes_server.resources import Resource
from kubernetes_server.status import Object

QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_QUANTITY_MAPS = {"allocatable", "capacity", "hard", "limits", "overhead", "requests", "used"}
_QUANTITY_FIELDS = {"divisor", "sizeLimit"}
_SCALARS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
}
_GO_TYPES = {
    "int": "int32",
    "str": "string",
    "float": "float64",
    "bytearray": "string",
    "bytes": "string",
}
_GENERIC = re.compile(r"(list|dict)[\[(](?:str, ?)?(.*)[\])]", re.IGNORECASE)


class _WithDuplicates(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    duplicates: tuple[str, ...] = ()


def parse(body: bytes) -> Any:
    """The JSON value in a request's body; 400 if it is none."""
    try:
        return json.loads(body, object_pairs_hook=_remembering_duplicates)
    except ValueError as error:
        raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def decode(value: Any, resource: Resource) -> tuple[Object, list[str]]:
    """The object without its unknown fields, and what strict decoding finds fault with; 400 if a
    type is wrong.
    """
    return decode_as(value, resource.model, resource.api_version, resource.kind)


def decode_as(value: Any, model: str, api_version: str, kind: str) -> tuple[Object, list[str]]:
    """`decode` for what is no resource of its own, such as DeleteOptions."""
    subject = f'{kind} in version "{api_version.rpartition("/")[2]}" cannot be handled as a {kind}'
    if not isinstance(value, dict):
        raise status.bad_request(
            f"{subject}: json: cannot unmarshal {_json_type(value)} into Go value of type {kind}"
        )
    _check_type_meta(value, api_version, kind)
    decoder = _Decoder(subject)
    decoded = decoder.object(value, model, "")
    return decoded | {"kind": kind, "apiVersion": api_version}, decoder.faults


def strict_error(resource: Resource, faults: list[str]) -> status.ApiError:
    """The answer to faults under `fieldValidation=Strict`."""
    subject = (
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
    )
    return status.bad_request(f"{subject}: strict decoding error: {', '.join(faults)}")


def _check_type_meta(value: Object, api_version: str, kind: str) -> None:
    if (given := value.get("apiVersion") or api_version) != api_version:
        expected = f"does not match the expected API version ({api_version})"
        raise status.bad_request(f"the API version in the data ({given}) {expected}")
    if (given := value.get("kind") or kind) != kind:
        raise status.bad_request(
            f'{given} in version "{api_version.rpartition("/")[2]}" cannot be handled as a {kind}'
        )


class _Decoder:
    """Walks one object along the models; gathers the faults of strict decoding, raises on wrong
    types.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.faults: list[str] = []

    def object(self, value: Object, model: str, path: str) -> Object:
        described: Any = getattr(client.models, model)
        types = {
            described.attribute_map[name]: type_ for name, type_ in described.openapi_types.items()
        }
        self._note_duplicates(value, path)
        decoded: Object = {}
        for key, item in value.items():
            if key not in types:
                self.faults.append(f'unknown field "{_join(path, key)}"')
            elif item is not None:
                decoded[key] = self.value(
                    item, types[key], _join(path, key), f"{model.removeprefix('V1')}.{key}"
                )
        return decoded

    def value(self, value: Any, type_: str, path: str, go_field: str) -> Any:
        if generic := _GENERIC.fullmatch(type_):
            return self._collection(value, generic[1].lower(), generic[2], path, go_field)
        if hasattr(client.models, type_):
            if not isinstance(value, dict):
                raise self._wrong_type(value, type_, go_field)
            return self.object(value, type_, path)
        if path.rpartition(".")[2] in _QUANTITY_FIELDS:
            return self._quantity(value)
        return self._scalar(value, type_, go_field)

    def _collection(
        self, value: Any, container: str, item_type: str, path: str, go_field: str
    ) -> Any:
        if container == "list":
            if not isinstance(value, list):
                raise self._wrong_type(value, f"[]{item_type}", go_field)
            return [
                self.value(item, item_type, f"{path}[{index}]", go_field)
                for index, item in enumerate(value)
            ]
        if not isinstance(value, dict):
            raise self._wrong_type(value, f"map[string]{item_type}", go_field)
        self._note_duplicates(value, path)
        if path.rpartition(".")[2] in _QUANTITY_MAPS:
            return {key: self._quantity(item) for key, item in value.items()}
        # Go reads null as a map's zero value: empty text.
        return {
            key: "" if item is None else self.value(item, item_type, _join(path, key), go_field)
            for key, item in value.items()
        }

    def _scalar(self, value: Any, type_: str, go_field: str) -> Any:
        if type_ in ("bytearray", "bytes"):
            return self._base64(value, go_field)
        if type_ in ("datetime", "datetime.datetime"):
            return self._time(value, go_field)
        allowed = _SCALARS.get(type_)
        if allowed and (
            not isinstance(value, allowed) or (isinstance(value, bool) and type_ != "bool")
        ):
            raise self._wrong_type(value, type_, go_field)
        return value

    def _quantity(self, value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        if isinstance(value, bool) or not QUANTITY.fullmatch(text):
            pattern = "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            raise status.bad_request(
                f"{self.subject}: quantities must match the regular expression {pattern}"
            )
        return text

    def _base64(self, value: Any, go_field: str) -> str:
        if not isinstance(value, str):
            raise self._wrong_type(value, "bytes", go_field)
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise status.bad_request(
                f"{self.subject}: illegal base64 data at input byte 0"
            ) from error
        return value

    def _time(self, value: Any, go_field: str) -> str:
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError) as error:
            why = f'parsing time {json.dumps(value)} as "2006-01-02T15:04:05Z07:00": cannot parse'
            raise status.bad_request(f"{self.subject}: {why} ({go_field})") from error
        return str(value)

    def _note_duplicates(self, value: Object, path: str) -> None:
        if isinstance(value, _WithDuplicates):
            self.faults += [f'duplicate field "{_join(path, key)}"' for key in value.duplicates]

    def _wrong_type(self, value: Any, type_: str, go_field: str) -> status.ApiError:
        wanted = _GO_TYPES.get(type_, type_.replace("V1", "v1.", 1))
        why = f"json: cannot unmarshal {_json_type(value)} into Go struct field {go_field} of type {wanted}"
        return status.bad_request(f"{self.subject}: {why}")


def _remembering_duplicates(pairs: list[tuple[str, Any]]) -> _WithDuplicates:
    found = _WithDuplicates(pairs)
    keys = [key for key, _ in pairs]
    found.duplicates = tuple(sorted({key for key in keys if keys.count(key) > 1}))
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "bool"}
    return next((name for type_, name in names.items() if isinstance(value, type_)), "number")
