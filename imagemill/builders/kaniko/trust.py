"""Whom the executor trusts besides the authorities of its image: those that the worker trusts.

They are in a Secret of the Job's own, since that is what a worker may make. Go reads each folder of
SSL_CERT_DIR, so that those of the operator count for every connection of the executor's: registries,
servers of tokens, context stores. Those of docker's certs.d count for their registry alone.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from imagemill import authorities
from imagemill.builders.kaniko.pod_additions import FOLDER, Equipment, secret_volume, variable
from imagemill.environment import variable as own_variable
from imagemill.errors import OperatorError
from imagemill.place import machine
from imagemill.registries.oci import endpoint

OPERATORS = "authorities.pem"
"""The file with the authorities of IMAGEMILL_AUTHORITIES."""

_IMAGES = f"{FOLDER}/ssl/certs"
_ALL, _OF_REGISTRIES = f"{FOLDER}/authorities", f"{FOLDER}/certs.d"


def certificates(registries: Iterable[str]) -> dict[str, bytes]:
    """Return what the worker trusts, by files: the operator's authorities, and under a registry's
    host what docker's certs.d has for it.
    """
    try:
        named = own_variable(authorities.SETTING)
        found = {OPERATORS: Path(named).read_bytes()} if named else {}
        for host in map(endpoint, registries):
            if files := authorities.certificates(host).authorities:
                found[host] = b"\n".join(file.read_bytes() for file in files)
    except OSError as error:
        raise OperatorError(
            f"The certificates in {error.filename} cannot be read: {error.strerror}",
            f"let {machine()} read them: they are for build pods as well",
        ) from None
    return found


def secret_data(found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files under keys that a Secret may have."""
    return {_key(name): content for name, content in found.items()}


def certificates_equipment(secret: str, names: Iterable[str]) -> Equipment:
    """Return what has the executor trust the files of these names in the Secret."""
    equipment, hosts = Equipment(), [name for name in names if name != OPERATORS]
    if OPERATORS in names:
        equipment += secret_volume("imagemill-authorities", _ALL, secret, {OPERATORS: OPERATORS})
        equipment += variable("SSL_CERT_DIR", f"{_IMAGES}:{_ALL}")
    if hosts:
        files = {_key(host): _key(host) for host in hosts}
        flags = tuple(
            f"--registry-certificate={host}={_OF_REGISTRIES}/{_key(host)}" for host in hosts
        )
        equipment += Equipment(arguments=flags)
        equipment += secret_volume("imagemill-certs-d", _OF_REGISTRIES, secret, files)
    return equipment


def _key(name: str) -> str:
    return name.replace(":", "_")
