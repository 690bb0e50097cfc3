#!/usr/bin/env python3
"""Makes docs/live-view.svg from a real run of `imagemill build` on a terminal: `make picture`.

Wants what `scripts/services run engine registry` gives. The screen is read by a terminal emulator
while the image is built, and drawn as it is then.
"""

import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

import servers

PICTURE = Path(__file__).parents[1] / "docs/live-view.svg"
WIDTH, HEIGHT = 92, 24

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
COPY weights.bin check.sh /
RUN /bin/busybox sh check.sh
"""

CHECK = """\
for sum in md5sum sha1sum sha256sum; do
  /bin/busybox $sum weights.bin | /bin/busybox cut -c 1-32
  echo "weights.bin has been read by $sum"
  /bin/busybox sleep 1
done
"""


def main() -> None:
    """Build, look at the screen in the middle, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "model")
        source.mkdir()
        (source / "Dockerfile").write_text(DOCKERFILE)
        (source / "check.sh").write_text(CHECK)
        (source / "weights.bin").write_bytes(os.urandom(64_000_000))
        shutil.copy(servers.busybox(), source / "busybox")
        command = f"imagemill build model -d {os.environ['REGISTRY']}/team/model -t v1"
        screen = watched(command, Path(folder), "by sha256sum")
    PICTURE.write_text(drawn(command, screen))


def watched(command: str, folder: Path, word: str) -> pyte.Screen:
    """Return the screen as it is once the word is on it; the command runs to its end."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment.pop("IMAGEMILL_BROKER", None)
    process = subprocess.Popen(
        command.split(), cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    while word not in "\n".join(screen.display):
        stream.feed(os.read(ours, 1 << 16))
    end = time.monotonic() + 0.5  # for the lines that come with it
    while time.monotonic() < end:
        stream.feed(os.read(ours, 1 << 16))
    seen = [dict(screen.buffer[line]) for line in range(HEIGHT)]
    kept = pyte.Screen(WIDTH, HEIGHT)
    for line, cells in enumerate(seen):
        kept.buffer[line].update(cells)
    while True:
        try:
            if not os.read(ours, 1 << 16):
                break
        except OSError:  # Linux's word for the end
            break
    if process.wait():
        sys.exit(f"{command} ended with {process.returncode}")
    return kept


def drawn(command: str, screen: pyte.Screen) -> str:
    """Return the screen as SVG, below the command."""
    lines = [line_of(screen, number) for number in range(HEIGHT)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        shown = re.sub(r"localhost:\d+", "registry.example.com", command)
        console.print(Text(f"$ {shown}"))
        for line in lines:
            console.print(line)
        return console.export_svg(title="imagemill build", unique_id="imagemill")


def line_of(screen: pyte.Screen, number: int) -> Text:
    """Return a line of the screen, with its styles."""
    text = Text(no_wrap=True)
    for column in range(WIDTH):
        cell = screen.buffer[number][column]
        style = " ".join(
            filter(None, ("bold" * cell.bold, "italic" * cell.italics, colour(cell.fg)))
        )
        text.append(cell.data, style)
    text.rstrip()
    return text


def colour(name: str) -> str:
    """Return a colour as rich calls it."""
    if name == "default":
        return ""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))


if __name__ == "__main__":
    main()
