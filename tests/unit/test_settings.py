"""What the environment says: read once, for workers and for the command line."""

from pathlib import Path

import pytest

import settings_page
from imagemill.errors import OperatorError
from imagemill.settings import NodeSettings, doubts, read, variables_of
from imagemill.sources.options import VARIABLES as SOURCE_VARIABLES
from worker.settings import Settings

BROKER = {"IMAGEMILL_BROKER": "redis://:hunter2@localhost:6379/0"}


def fault(**variables: str) -> str:
    with pytest.raises(OperatorError) as raised:
        read(Settings, BROKER | variables)
    assert "hunter2" not in str(raised.value)
    return raised.value.message


@pytest.mark.parametrize("text", ["a:5000,b", "a:5000, b", " a:5000 b ", ",a:5000,,b,"])
def test_hosts_are_read_alike_by_workers_and_command_line(text: str) -> None:
    variables = BROKER | {"IMAGEMILL_INSECURE_REGISTRIES": text}
    assert read(Settings, variables).insecure_registries == {"a:5000", "b"}
    assert read(NodeSettings, variables).insecure_registries == {"a:5000", "b"}


@pytest.mark.parametrize(
    ("text", "size"), [("10GiB", 10 << 30), ("10 GiB", 10 << 30), ("1000", 1000), ("2MB", 2000000)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    variables = {"IMAGEMILL_SOURCE_CACHE_BYTES": text, "IMAGEMILL_SOURCE_MAX_BYTES": text}
    settings = read(Settings, BROKER | variables)
    assert settings.source_cache_bytes == size
    assert settings.sources.max_bytes == size


def test_dockers_own_variables_hold_where_ours_are_not_set() -> None:
    variables = {"DOCKER_HOST": "unix:///a", "DOCKER_CONFIG": "/a"}
    settings = read(NodeSettings, variables)
    assert (settings.docker_host, settings.docker_config) == ("unix:///a", Path("/a"))
    ours = {"IMAGEMILL_DOCKER_HOST": "unix:///b", "IMAGEMILL_DOCKER_CONFIG": "/b"}
    settings = read(NodeSettings, variables | ours)
    assert (settings.docker_host, settings.docker_config) == ("unix:///b", Path("/b"))


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    settings = read(NodeSettings, {"IMAGEMILL_CONFIG": "", "DOCKER_HOST": ""})
    assert (settings.config, settings.docker_host) == (None, None)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("IMAGEMILL_LOG_LEVEL", "verbose", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("IMAGEMILL_LOG_FORMAT", "yaml", "'text' or 'json'"),
        ("IMAGEMILL_HASH_TIMEOUT", "soon", "number"),
        ("IMAGEMILL_HASH_TIMEOUT", "-1", "greater than 0"),
        ("IMAGEMILL_BUILD_TIMEOUT", "inf", "finite"),
        ("IMAGEMILL_WEBHOOK_NETWORKS", "home", "IPv4 or IPv6"),
        ("IMAGEMILL_MAX_RETRIES", "1.5", "integer"),
        ("IMAGEMILL_SOURCE_CACHE_BYTES", "10 apples", "byte"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable(
    variable: str, value: str, said: str
) -> None:
    message = fault(**{variable: value})
    assert message.startswith(variable)
    assert value in message
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["host.example.com/path", "ftp://host.example.com", "https://"])
def test_a_webhook_is_an_address_of_the_web(value: str) -> None:
    message = fault(IMAGEMILL_WEBHOOKS=f"https://a.example.com/x,{value}")
    assert message.startswith("IMAGEMILL_WEBHOOKS: expected addresses such as https://")


def test_each_wrong_value_has_a_line() -> None:
    lines = fault(IMAGEMILL_LOG_LEVEL="loud", IMAGEMILL_MAX_RETRIES="x").splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "IMAGEMILL_LOG_LEVEL",
        "IMAGEMILL_MAX_RETRIES",
    ]


@pytest.mark.parametrize("value", ["debug", "Debug", "DEBUG"])
def test_a_level_is_read_in_any_case(value: str) -> None:
    assert read(Settings, BROKER | {"IMAGEMILL_LOG_LEVEL": value}).log_level == "DEBUG"


def test_a_variable_that_nothing_reads_is_told_with_the_nearest(tmp_path: Path) -> None:
    variables = BROKER | {
        "IMAGEMILL_BUILD_TIMOUT": "60",
        "IMAGEMILL_SOURCE_ROOT": str(tmp_path),
        "IMAGEMILL_ZEBRA": "1",
        "IMAGEMILL_RUN_DIR": ".run",
        "OTHERS": "1",
    }
    assert list(doubts(Settings, read(Settings, variables))) == [
        "Nothing reads the variable IMAGEMILL_BUILD_TIMOUT: did you mean IMAGEMILL_BUILD_TIMEOUT?",
        "Nothing reads the variable IMAGEMILL_SOURCE_ROOT: did you mean IMAGEMILL_SOURCE_ROOTS?",
        "Nothing reads the variable IMAGEMILL_ZEBRA",
    ]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    variables = BROKER | {
        "IMAGEMILL_CONFIG": "/no-such.yaml",
        "IMAGEMILL_SOURCE_ROOTS": f"{tmp_path}:src",
        "IMAGEMILL_GIT_KNOWN_HOSTS": f"{tmp_path}/hosts",
        "IMAGEMILL_STATE_DIR": f"{tmp_path}/made-when-needed",
    }
    assert list(doubts(Settings, read(Settings, variables))) == [
        "IMAGEMILL_CONFIG: there is no /no-such.yaml",
        f"IMAGEMILL_GIT_KNOWN_HOSTS: there is no {tmp_path}/hosts",
        "IMAGEMILL_SOURCE_ROOTS: src is no absolute path",
    ]


def test_each_setting_has_a_variable_and_says_what_it_is() -> None:
    fields = Settings.model_fields
    assert all(fields[name].description for name in fields)
    assert set(variables_of(Settings).values()) == set(fields) - {"sources", "environment"}
    assert all(name.startswith("IMAGEMILL_") for name in SOURCE_VARIABLES)


def test_the_page_of_the_settings_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "run make schemas"
    assert all(f"| `{name}` |" in settings_page.page() for name in SOURCE_VARIABLES)
