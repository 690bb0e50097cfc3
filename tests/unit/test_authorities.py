"""Whom servers have to be vouched for by: the operator's file reaches all that connects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.session import Session

from certificates import write_with_key
from imagemill import authorities
from imagemill.errors import OperatorError

NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's file, in an environment that names it and no other."""
    write_with_key(tmp_path / "own.pem", "127.0.0.1")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGEMILL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("IMAGEMILL_AUTHORITIES", str(tmp_path / "own.pem"))
    return tmp_path / "own.pem"


def installed() -> list[str]:
    """The variables after an installation, and nothing of it left behind."""
    before = dict(os.environ)
    try:
        authorities.install()
        assert Session().get_config_variable("ca_bundle") == os.environ["AWS_CA_BUNDLE"]
        return [os.environ[name] for name in NAMES if name in os.environ]
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_operators_file_is_trusted_besides_the_systems(own: Path) -> None:
    (made,) = set(found := installed())
    assert len(found) == len(NAMES) - 1
    content = Path(made).read_bytes()
    assert own.read_bytes() in content
    system = authorities._system_file()
    assert system is None or system.read_bytes() in content


def test_whoever_is_started_by_us_has_the_same_file(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", installed()[0])
    assert set(installed()) == {os.environ["SSL_CERT_FILE"]}


def test_what_is_set_already_stays(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_AUTHORITIES")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    monkeypatch.setenv("GIT_SSL_CAINFO", "/other")
    assert installed() == [str(own), str(own), str(own), "/other"]


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_file_that_cannot_be_used_is_told(own: Path, content: str | None) -> None:
    own.unlink()
    if content:
        own.write_text(content)
    with pytest.raises(OperatorError, match=f"The authorities in {own} cannot be used"):
        authorities.install()


def test_command_line_says_so_in_a_line(own: Path) -> None:
    own.write_text("")
    command = [sys.executable, "-m", "imagemill", "hash", "."]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 3
    assert "The authorities in" in said.stderr
    assert "Traceback" not in said.stderr
