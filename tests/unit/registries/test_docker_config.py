"""Docker's config.json, with credential helpers that are real programs."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagemill.errors import OperatorError
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries import docker_config
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig

HUB = "https://index.docker.io/v1/"
PASSWORD = "open:sesame"
USER = Credentials("user", PASSWORD)


def of(host: str, path: str = "team/model") -> ImageReference:
    return ImageReference(host, path)


def encoded(username: str = "user", password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DockerConfig]:
    """Writes a config.json of these keys."""

    def write(**keys: Any) -> DockerConfig:
        (tmp_path / "config.json").write_text(json.dumps(keys))
        return DockerConfig(tmp_path)

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Installs a credential helper that is this shell script; returns the file with what it was
    asked.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, script: str) -> Path:
        asked = tmp_path / f"{name}.asked"
        program = programs / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\necho "$1 $(cat)" >> {asked}\n{script}\n')
        program.chmod(0o755)
        return asked

    return install


def prints(username: str, secret: str) -> str:
    """A script that answers with these."""
    return f"""echo '{json.dumps({"ServerURL": "x", "Username": username, "Secret": secret})}'"""


def not_found() -> str:
    return "echo 'credentials not found in native keychain'; exit 1"


class TestFile:
    @pytest.mark.parametrize(
        "key",
        [
            "host.io:5000",
            "https://host.io:5000",
            "http://host.io:5000/",
            "https://host.io:5000/v2/",
        ],
    )
    def test_entry_is_found_however_its_key_is_written(
        self, config: Callable[..., DockerConfig], key: str
    ) -> None:
        found = (
            config(auths={"other.io": encoded("other"), key: encoded()})
            .login(of("host.io:5000"))
            .credentials
        )
        assert found == USER

    def test_entry_of_the_host_itself_comes_before_urls(
        self, config: Callable[..., DockerConfig]
    ) -> None:
        auths = {"https://host.io/v1/": encoded("old"), "host.io": encoded("new")}
        found = config(auths=auths).login(of("host.io")).credentials
        assert found == Credentials("new", PASSWORD)

    @pytest.mark.parametrize(
        "key", [HUB, "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"]
    )
    def test_docker_hub_has_many_names(self, config: Callable[..., DockerConfig], key: str) -> None:
        assert config(auths={key: encoded()}).login(of("docker.io")).credentials == USER

    @pytest.mark.parametrize(
        "host", ["host.io", "host.io:5001", "host.i", "xhost.io:5000", "docker.io"]
    )
    def test_other_hosts_have_no_credentials(
        self, config: Callable[..., DockerConfig], host: str
    ) -> None:
        assert config(auths={"host.io:5000": encoded()}).login(of(host)).credentials is None

    def test_identity_token(self, config: Callable[..., DockerConfig]) -> None:
        auths = {
            "a.io": {**encoded("user", ""), "identitytoken": "token"},
            "b.io": {"identitytoken": "token"},
        }
        assert config(auths=auths).login(of("a.io")).credentials == Credentials("user", "", "token")
        assert config(auths=auths).login(of("b.io")).credentials == Credentials("", "", "token")

    def test_user_and_password_in_clear(self, config: Callable[..., DockerConfig]) -> None:
        assert (
            config(auths={"a.io": {"username": "user", "password": PASSWORD}})
            .login(of("a.io"))
            .credentials
            == USER
        )

    @pytest.mark.parametrize(
        "keys",
        [
            {},
            {"auths": {}},
            {"auths": None, "credHelpers": None, "credsStore": None},
            {"auths": {"a.io": {}}},
            {"auths": {"a.io": None, "b.io": encoded()}},
            {"auths": {"a.io": {"auth": None, "username": None}}},
            {"auths": {"b.io": {"auth": "!"}, "c.io": 1}},
        ],
    )
    def test_nothing_in_it_is_no_credentials(
        self, config: Callable[..., DockerConfig], keys: dict[str, Any]
    ) -> None:
        assert config(**keys).login(of("a.io")).credentials is None

    @pytest.mark.parametrize("text", ["", " \n", "null"])
    def test_empty_file_is_no_credentials(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert DockerConfig(tmp_path).login(of("a.io")) == Login(None)
        assert DockerConfig(tmp_path).private_copy("a.io", None)["cliPluginsExtraDirs"]

    def test_line_ends_in_base64_are_passed_over(self, config: Callable[..., DockerConfig]) -> None:
        auth = base64.encodebytes(f"_json_key:{'x' * 200}".encode()).decode()
        found = config(auths={"a.io": {"auth": auth.replace("\n", "\r\n")}}).login(of("a.io"))
        assert found.credentials == Credentials("_json_key", "x" * 200)

    def test_token_for_the_registry_itself(self, config: Callable[..., DockerConfig]) -> None:
        found = config(auths={"a.io": {"registrytoken": "token"}}).login(of("a.io"))
        assert found.credentials == Credentials("", "", registry_token="token")

    def test_no_file_is_no_credentials(self, tmp_path: Path) -> None:
        assert DockerConfig(tmp_path / "missing").login(of("a.io")).credentials is None

    def test_file_is_read_each_time(self, config: Callable[..., DockerConfig]) -> None:
        found = config(auths={"a.io": encoded("first")})
        assert found.login(of("a.io")).credentials == Credentials("first", PASSWORD)
        config(auths={"a.io": encoded("second")})
        assert found.login(of("a.io")).credentials == Credentials("second", PASSWORD)

    @pytest.mark.parametrize(
        "text", ["{", "\udcff", f'{{"auths": {{"a.io": {{"auth": "{PASSWORD}"}}}}']
    )
    def test_file_that_is_not_json_is_an_error_that_names_it(
        self, tmp_path: Path, text: str
    ) -> None:
        (tmp_path / "config.json").write_text(text, errors="surrogateescape")
        with pytest.raises(
            OperatorError, match=r"config\.json cannot be read: it is not JSON"
        ) as raised:
            DockerConfig(tmp_path).login(of("a.io"))
        assert PASSWORD not in str(raised.value)

    def test_file_that_cannot_be_read_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").mkdir()
        with pytest.raises(OperatorError, match=r"config\.json cannot be read: Is a directory"):
            DockerConfig(tmp_path).login(of("a.io"))

    @pytest.mark.parametrize(
        ("keys", "where"),
        [
            ({"auths": [PASSWORD]}, "auths: "),
            ({"auths": {"a.io": PASSWORD}}, "auths.a.io: "),
            ({"auths": {"a.io": {"auth": [PASSWORD]}}}, "auths.a.io.auth: "),
            ({"credHelpers": {"a.io": 1}}, "credHelpers.a.io: "),
            ({"auths": {"a.io": {"auth": f"{PASSWORD}!"}}}, "auths.a.io.auth is not base64"),
            ({"auths": {"a.io": {"auth": "////"}}}, "auths.a.io.auth is not base64"),
            ({"auths": {"a.io": encoded("", PASSWORD)}}, "auths.a.io.auth is not base64"),
        ],
    )
    def test_wrong_entry_is_an_error_that_names_it_and_tells_no_secret(
        self, config: Callable[..., DockerConfig], keys: dict[str, Any], where: str
    ) -> None:
        with pytest.raises(OperatorError) as raised:
            config(**keys).login(of("a.io"))
        assert where in raised.value.message
        assert raised.value.hint
        assert PASSWORD not in f"{raised.value} {raised.value.__context__!r}"


class TestHelpers:
    def test_helper_of_the_host_is_asked_with_the_host(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        asked = helper("one", prints("user", PASSWORD))
        helper("common", prints("wrong", "wrong"))
        found = (
            config(credHelpers={"a.io:5000": "one"}, credsStore="common")
            .login(of("a.io:5000"))
            .credentials
        )
        assert found == USER
        assert asked.read_text() == "get a.io:5000\n"

    def test_common_store_is_asked_for_all_other_hosts(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        helper("one", prints("wrong", "wrong"))
        helper("common", prints("user", PASSWORD))
        assert config(credHelpers={"b.io": "one"}, credsStore="common").login(of("a.io")) == Login(
            USER
        )

    @pytest.mark.parametrize("key", [HUB, "docker.io", "index.docker.io"])
    def test_docker_hub_is_asked_for_by_its_url(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path], key: str
    ) -> None:
        asked = helper("one", prints("user", PASSWORD))
        assert config(credHelpers={key: "one"}).login(of("docker.io")).credentials == USER
        assert asked.read_text() == f"get {HUB}\n"

    def test_identity_token_of_a_helper(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        helper("one", prints("<token>", "token"))
        assert config(credsStore="one").login(of("a.io")).credentials == Credentials(
            "", "", "token"
        )

    @pytest.mark.parametrize("script", [not_found(), prints("", "")])
    def test_helper_that_has_nothing_leaves_it_to_the_file(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path], script: str
    ) -> None:
        helper("one", script)
        assert config(credsStore="one").login(of("a.io")).credentials is None
        assert config(credsStore="one", auths={"a.io": encoded()}).login(of("a.io")) == Login(USER)

    def test_empty_helper_is_the_file(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        asked = helper("one", prints("wrong", "wrong"))
        found = (
            config(credsStore="one", credHelpers={"a.io": ""}, auths={"a.io": encoded()})
            .login(of("a.io"))
            .credentials
        )
        assert found == USER
        assert not asked.exists()

    @pytest.mark.parametrize(
        ("script", "fault"),
        [
            (f"echo '{PASSWORD}'; exit 1", "failed for a.io: exit code 1"),
            (f"echo '{PASSWORD}' >&2; exit 3", "failed for a.io: exit code 3"),
            ("", "gave no valid answer"),
            (f"echo {PASSWORD}", "gave no valid answer"),
            (f"""echo '{{"Username": "{PASSWORD}"}}'""", "gave no valid answer"),
            ("exec sleep 60", "gave no answer for a.io in 0 s"),
            (None, "cannot be run: No such file or directory"),
        ],
    )
    def test_helper_that_cannot_be_asked_is_passed_over_and_told(
        self,
        config: Callable[..., DockerConfig],
        helper: Callable[[str, str], Path],
        monkeypatch: pytest.MonkeyPatch,
        script: str | None,
        fault: str,
    ) -> None:
        if script and "sleep" in script:
            monkeypatch.setattr(docker_config, "HELPER_TIMEOUT", 0.2)
        if script is not None:
            helper("one", script)
        told = f"The credential helper docker-credential-one {fault}"
        assert config(credsStore="one").login(of("a.io")) == Login(None, told)
        found = config(credsStore="one", auths={"a.io": encoded()}).login(of("a.io"))
        assert found == Login(USER, told)
        assert PASSWORD not in told


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "user"),
        [
            ("team-a/model", "a"),
            ("team-a/deep/model", "deep"),
            ("team-a/deeper/model", "a"),
            ("team-a", "a"),
            ("team-ab/model", "host"),
            ("team-c/model", "c"),
            ("other", "host"),
        ],
    )
    def test_longest_entry_that_is_the_repository_or_above_it_wins(
        self, config: Callable[..., DockerConfig], path: str, user: str
    ) -> None:
        auths = {
            "a.io": encoded("host"),
            "a.io/team-a": encoded("a"),
            "a.io/team-a/deep/": encoded("deep"),
            "https://a.io/team-c": encoded("c"),
            "b.io/other": encoded("b"),
        }
        found = config(auths=auths).login(of("a.io", path)).credentials
        assert found == Credentials(user, PASSWORD)

    def test_entry_of_another_folder_is_not_sent(self, config: Callable[..., DockerConfig]) -> None:
        made = config(auths={"a.io/team-a": encoded("a")})
        assert made.login(of("a.io", "team-b/model")) == Login(None)

    def test_helper_is_asked_for_the_folder_that_has_an_entry(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        asked = helper("one", prints("user", PASSWORD))
        made = config(credsStore="one", auths={"a.io/team-a": {}})
        assert made.login(of("a.io", "team-a/model")).credentials == USER
        assert asked.read_text() == "get a.io/team-a\n"


class TestPrivateCopy:
    def test_it_has_the_login_of_the_destination_and_of_the_images_that_are_named(
        self, config: Callable[..., DockerConfig], helper: Callable[[str, str], Path]
    ) -> None:
        helper("one", prints("robot", "b"))
        helper("common", "echo 'credentials not found in native keychain'; exit 1")
        own = config(
            auths={"a.io": encoded(), "d.io": encoded("not", "asked for")},
            credHelpers={"b.io": "one", "e.io": "one"},
            credsStore="common",
            proxies={"default": {"httpProxy": "http://proxy"}},
            currentContext="elsewhere",
            HttpHeaders={"X-Header": "x"},
        )
        others = [of("a.io"), of("b.io"), of("c.io"), of("f.io")]
        copy = own.private_copy("c.io", Credentials("me", "my:secret"), others)
        assert copy == {
            "auths": {
                "a.io": encoded(),
                "b.io": encoded("robot", "b"),
                "c.io": encoded("me", "my:secret"),
            },
            "proxies": {"default": {"httpProxy": "http://proxy"}},
            "cliPluginsExtraDirs": [str(own.folder / "cli-plugins")],
        }

    def test_what_was_put_in_is_what_is_found(self, config: Callable[..., DockerConfig]) -> None:
        for host in ("a.io:5000", "docker.io"):
            for credentials in (
                USER,
                Credentials("", "", "token"),
                Credentials("user", "", "token"),
            ):
                copy = config(auths={host: encoded("old")}, credsStore="absent").private_copy(
                    host, credentials
                )
                assert config(**copy).login(of(host)).credentials == credentials

    def test_without_credentials_it_has_none(self, config: Callable[..., DockerConfig]) -> None:
        own = config(auths={"a.io": encoded()}, cliPluginsExtraDirs=["/plugins"])
        copy = own.private_copy("a.io", None)
        assert copy["auths"] == {}
        assert copy["cliPluginsExtraDirs"][0] == "/plugins"

    def test_a_helper_sees_nothing_of_ours(
        self,
        config: Callable[..., DockerConfig],
        helper: Callable[[str, str], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("IMAGEMILL_BROKER", "redis://:secret@host")
        monkeypatch.setenv("AWS_PROFILE", "its-own")
        helper(
            "one",
            r"""printf '{"Username": "%s", "Secret": "%s"}' "$AWS_PROFILE" "${IMAGEMILL_BROKER-none}" """,
        )
        found = config(credHelpers={"a.io": "one"}).login(of("a.io")).credentials
        assert found == Credentials("its-own", "none")

    def test_without_a_file_it_has_the_credentials_alone(self, tmp_path: Path) -> None:
        copy = DockerConfig(tmp_path / "missing").private_copy("a.io", USER)
        assert copy["auths"] == {"a.io": encoded()}
