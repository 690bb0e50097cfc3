"""Certificates for the servers of the tests, which sign themselves."""

import datetime
import ipaddress
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DAY = datetime.timedelta(days=1)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a server."""
    return ec.generate_private_key(ec.SECP256R1())


def write_certificate(path: Path, key: ec.EllipticCurvePrivateKey, *hosts: str) -> None:
    """A certificate of the key for these names and addresses, good for a day, as PEM."""
    path.write_bytes(_certificate(key, hosts))


def write_with_key(path: Path, *hosts: str) -> None:
    """A new key and its certificate, in one PEM file."""
    key = new_key()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + _certificate(key, hosts))


def _certificate(key: ec.EllipticCurvePrivateKey, hosts: tuple[str, ...]) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    now = datetime.datetime.now(datetime.UTC)
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, now - DAY, now + DAY)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_named(host) for host in hosts]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _named(host: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)
