"""What is kept of the output of `docker build`, in the words of old and new BuildKits."""

import pytest

from imagemill.builders.docker.progress import BuildLog, ClassicLog, clean
from imagemill.builders.docker.push import PushLog

OLD = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:ba4f7856048d88f706fa28cebf18b4afc457e7f235b98fe58d6d3ecb5addaed8
#1 transferring dockerfile: 128B done
#1 DONE 0.0s

#2 [internal] load .dockerignore
#2 transferring context: 2B done
#2 DONE 0.0s

#5 [internal] load build context
#5 transferring context: 1.98MB 0.0s done
#5 DONE 0.0s

#3 [1/2] COPY busybox /bin/busybox
#3 sha256:455234a20ecc71bbe83e97eb76561f4f63e16e2548d086547008405afb2715ac
#3 CACHED

#4 [2/2] RUN make
#4 sha256:078aca23d05e5071f05a386e7bc12ecd158352d2863bcb867b2fadb7e7dc13b7
#4 0.202 hello
#4 0.310 #9 ERROR: not BuildKit's own
#4 ERROR: executor failed running [/bin/sh -c make]: exit code: 3
------
 > [2/2] RUN make:
------
executor failed running [/bin/sh -c make]: exit code: 3
"""

NEW = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 128B done
#1 DONE 0.0s

#4 [2/2] RUN make
#4 0.202 hello
#4 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 3
------
 > [2/2] RUN make:
0.202 hello
------
Dockerfile:3
--------------------
   1 |     FROM scratch
   2 |     COPY busybox /bin/busybox
   3 | >>> RUN make
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 3

View build details: docker-desktop://dashboard/build/default/default/abc
"""


def read(text: str, log_type: type[BuildLog] = BuildLog) -> tuple[BuildLog, list[str]]:
    lines: list[str] = []
    log = log_type(lines.append)
    for line in text.split("\n"):
        log.read(line)
    return log, lines


def test_steps_and_their_output_are_logged_without_numbers_times_and_noise() -> None:
    _, lines = read(OLD)
    assert lines == [
        "[internal] load build context",
        "transferring context: 1.98MB 0.0s done",
        "[1/2] COPY busybox /bin/busybox",
        "CACHED",
        "[2/2] RUN make",
        "hello",
        "#9 ERROR: not BuildKit's own",
        "ERROR: executor failed running [/bin/sh -c make]: exit code: 3",
        "executor failed running [/bin/sh -c make]: exit code: 3",
    ]


@pytest.mark.parametrize("text", [OLD, NEW])
def test_the_step_that_failed_is_known(text: str) -> None:
    log, _ = read(text)
    assert log.step == "[2/2] RUN make"
    assert log.fault.endswith("exit code: 3")
    assert log.error.endswith("exit code: 3")
    assert log.output[0] == "hello"


def test_the_line_that_a_new_buildkit_names_is_known_and_the_excerpt_is_logged() -> None:
    log, lines = read(NEW)
    assert log.source_line == 3
    assert "   3 | >>> RUN make" in lines
    assert lines.count("hello") == 1


def test_an_instruction_that_prints_like_buildkit_does_not_deceive() -> None:
    log, _ = read(
        "#4 [1/1] RUN x\n#4 0.1 Dockerfile:7\n#4 0.2 ERROR: no space left on device\n#4 0.3 ------\nfailed"
    )
    assert (log.source_line, log.fault, log.error) == (None, "", "failed")


def test_of_several_steps_that_fail_the_first_is_the_reason() -> None:
    log, _ = read(
        "#4 [a 1/1] RUN x\n#5 [b 1/1] RUN y\n#5 ERROR: the reason\n#4 ERROR: context canceled"
    )
    assert (log.step, log.fault) == ("[b 1/1] RUN y", "the reason")


def test_the_output_that_is_kept_is_bounded() -> None:
    log = BuildLog(lambda _: None)
    log.read("#4 [1/1] RUN yes")
    for number in range(10_000):
        log.read(f"#4 0.1 {number}")
    assert list(log.output) == [str(number) for number in range(9970, 10_000)]


def test_the_classic_builder_is_read_too() -> None:
    text = "Step 1/2 : FROM scratch\n ---> \nStep 2/2 : RUN x\n ---> Running in e49\nERROR: mine\n"
    text += "The command 'x' returned a non-zero code: 3"
    log, lines = read(text, ClassicLog)
    assert log.step == "Step 2/2 : RUN x"
    assert log.error == "The command 'x' returned a non-zero code: 3"
    assert " ---> Running in e49" not in lines


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("10%\r50%\r100%\r", "100%"),
        ("plain\r", "plain"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07bare", "red and bare"),
        ("\x1b[2K\x1b[1Gdone", "done"),
        ("", ""),
    ],
)
def test_lines_are_as_a_terminal_would_show_them(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def told(*lines: str) -> list[str]:
    """What is said of amounts while the lines are read."""
    amounts: list[str] = []
    log = BuildLog(lambda line: None, amounts.append)
    for line in lines:
        log.read(line)
    return amounts


def test_what_is_sent_and_pulled_is_told() -> None:
    one, other = "1" * 64, "2" * 64
    assert told(
        "#2 [internal] load .dockerignore",
        "#2 transferring context: 2B done",
        "#3 [internal] load build context",
        "#3 transferring context: 35.65MB 5.1s",
        f"#4 sha256:{one} 1.05MB / 3.05MB 0.2s",
        f"#4 sha256:{other} 0B / 10MB 0.2s",
        f"#4 sha256:{one} 3.05MB / 3.05MB 0.4s done",
    ) == [
        "35.65MB sent to the engine, 7.0 MB/s",
        "1.1 MB of 3.0 MB pulled, 5.2 MB/s",
        "1.1 MB of 13 MB pulled, 5.2 MB/s",
        "3.0 MB of 13 MB pulled, 7.6 MB/s",
    ]


def test_of_a_bar_the_last_state_is_told() -> None:
    amounts: list[str] = []
    BuildLog(lambda line: None, amounts.append).read_unfinished(
        "#5 0.216  10%|#         |\r 20%|##        |"
    )
    assert amounts == ["20%|##        |"]


@pytest.mark.parametrize("line", ["#5 9.9 100%|####|", "#5 DONE 9.9s", "#5 ERROR: gone"])
def test_of_a_step_that_goes_on_or_ends_no_amount_stays(line: str) -> None:
    amounts: list[str] = []
    log = BuildLog(lambda line: None, amounts.append)
    log.read_unfinished("#5 0.2 10%|#|\r 20%|##|")
    log.read("#6 0.3 of another step")
    log.read("#6 DONE 0.4s")
    assert amounts == ["20%|##|"]
    log.read(line)
    log.read(line)
    assert amounts == ["20%|##|", ""]


def test_what_was_sent_is_no_amount_of_what_comes_after_it() -> None:
    sent = "#3 transferring context: 35.65MB 5.1s"
    assert told("#3 [internal] load build context", sent, "#3 DONE 5.2s")[1:] == [""]


def test_a_bar_of_the_classic_builder_ends_with_its_line() -> None:
    amounts: list[str] = []
    log = ClassicLog(lambda line: None, amounts.append)
    log.read_unfinished(" 10%\r 20%")
    log.read(" 10%\r 20%\r 100%")
    assert amounts == ["20%", ""]


def test_pushed_layers_are_counted() -> None:
    amounts: list[str] = []
    log = PushLog(lambda line: None, amounts.append)
    for line in (
        "aaaaaaaaaaaa: Preparing",
        "bbbbbbbbbbbb: Preparing",
        "aaaaaaaaaaaa: Layer already exists",
        "bbbbbbbbbbbb: Pushed",
    ):
        log.read(line)
    assert amounts == [
        "0 of 1 layers pushed",
        "0 of 2 layers pushed",
        "1 of 2 layers pushed",
        "2 of 2 layers pushed",
    ]


def test_bytes_that_are_pushed_are_told_with_their_rate_and_not_logged() -> None:
    amounts: list[str] = []
    lines: list[str] = []
    seconds = iter(range(10, 30))
    log = PushLog(lines.append, amounts.append, lambda: next(seconds))
    for line in (
        "aaaaaaaaaaaa: Preparing",
        "\x1b[1A\x1b[2K",
        "aaaaaaaaaaaa: Pushing [=>          ]  2MB/40MB",
        "\x1b[1B\x1b[1A\x1b[2K",
        "aaaaaaaaaaaa: Pushing [=====>      ]  12.5MB/40MB",
        "aaaaaaaaaaaa: Pushing  41MB",
        "\x1b[1Baaaaaaaaaaaa: Pushed ",
    ):
        log.read(line)
    assert amounts[1:] == [
        "2.0 MB of 40 MB pushed, 2.0 MB/s, 0 of 1 layers",
        "12 MB of 40 MB pushed, 4.2 MB/s, 0 of 1 layers",
        "41 MB of 41 MB pushed, 8.2 MB/s, 0 of 1 layers",
        "41 MB of 41 MB pushed, 5.9 MB/s, 1 of 1 layers",
    ]
    assert lines == ["aaaaaaaaaaaa: Pushed"]
