"""What a name, a label and the like may look like, in the words of
k8s.io/apimachinery/pkg/util/validation.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
Each function returns what is wrong with the text, and nothing if it is well-formed.
"""

import re

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"


def dns_label(text: str) -> list[str]:
    """RFC 1123 label: names of containers, volumes and namespaces."""
    fault = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
    )
    return _length(text, 63) + _matches(text, _LABEL, fault)


def dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: names of most objects."""
    pattern = rf"{_LABEL}(\.{_LABEL})*"
    fault = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        f"'{pattern.replace(chr(92) + '.', chr(92) * 2 + '.')}')"
    )
    return _length(text, 253) + _matches(text, pattern, fault)


def label_value(text: str) -> list[str]:
    """A label's value: at most 63 characters, or empty."""
    pattern = f"({_QUALIFIED})?"
    fault = (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
        f"validation is '{pattern}')"
    )
    return _length(text, 63) + _matches(text, pattern, fault)


def qualified_name(text: str) -> list[str]:
    """A label's or annotation's key: a name, maybe after a DNS subdomain and a slash."""
    prefix, slash, name = text.rpartition("/")
    faults = [f"prefix part {fault}" for fault in dns_subdomain(prefix)] if slash else []
    fault = (
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
        "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        f"'{_QUALIFIED}')"
    )
    return faults + [
        f"name part {found}" for found in _length(name, 63) + _matches(name, _QUALIFIED, fault)
    ]


def config_key(text: str) -> list[str]:
    """A key of a Secret or ConfigMap."""
    fault = (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
        f"  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
    )
    return _length(text, 253) + _matches(text, _CONFIG_KEY, fault)


def environment_variable(text: str) -> list[str]:
    """An environment variable's name: any printable ASCII but `=`."""
    fault = "a valid environment variable name must consist only of printable ASCII characters other than '='"
    return _matches(text, "[ -<>-~]+", fault)


def _length(text: str, most: int) -> list[str]:
    # The qualified name of a Kubernetes object is counted in bytes.
    return [f"must be no more than {most} bytes"] if len(text.encode()) > most else []


def _matches(text: str, pattern: str, fault: str) -> list[str]:
    return [] if re.fullmatch(pattern, text) else [fault]
