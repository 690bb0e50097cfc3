"""Hashing and packing a build context: against sha256 itself, and against `tar | pigz -1`.

The two sides of a ratio take turns, and each counts with its quickest turn: what else the machine
does only ever adds time. Both read from the page cache and write to `/dev/null`, so that it is not
the disk that is measured.
"""

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import sized
from imagemill import context
from imagemill.objects import store_for
from imagemill.ports import Quiet

ROUNDS = sized(5, 1)
FILES, BYTES = sized(20_000, 200), sized(500_000_000, 1_000_000)
LARGE_FILES, LARGE_BYTES = sized(4_000, 100), sized(2_000_000_000, 1_000_000)

MIB = 1 << 20


def measure() -> Iterator[tuple[str, float]]:
    """`hash_vs_sha256` and `pack_vs_tar_pigz`: ratios of times; `pack_rss_mb`: MiB."""
    with tempfile.TemporaryDirectory() as folder:
        source = generate(Path(folder) / "source", FILES, BYTES)
        yield "hash_vs_sha256", hash_vs_sha256(source)
        yield "pack_vs_tar_pigz", pack_vs_tar_pigz(source)
    with tempfile.TemporaryDirectory() as folder:
        source = generate(Path(folder) / "source", LARGE_FILES, LARGE_BYTES)
        yield "pack_rss_mb", pack_rss_mb(source, Path(folder) / "contexts")


def hash_vs_sha256(source: Path) -> float:
    """Time from a folder to its source hash ÷ time of the digests of its files, which are in memory
    already.
    """
    contents = [path.read_bytes() for path in source.rglob("*") if path.is_file()]

    def digests() -> None:
        for content in contents:
            hashlib.sha256(content).digest()

    return ratio(lambda: context.source_hash(context.manifest(source, None, Quiet())), digests)


def pack_vs_tar_pigz(source: Path) -> float:
    """Time to pack, which includes to hash ÷ time of `tar cf - . | pigz -1`."""

    def pack() -> None:
        with Path("/dev/null").open("wb") as out:
            context.pack(source, None, out, Quiet())

    def tar_pigz() -> None:
        subprocess.run(["sh", "-c", "tar cf - . | pigz -1 > /dev/null"], cwd=source, check=True)

    return ratio(pack, tar_pigz)


def ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """The quickest turn of the one ÷ that of the other."""
    turns = [(seconds(one), seconds(other)) for _ in range(ROUNDS)]
    return min(turn[0] for turn in turns) / min(turn[1] for turn in turns)


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def pack_rss_mb(source: Path, contexts: Path) -> float:
    """The most memory that a process of its own has had, in MiB, after it has packed `source` into
    a file store.
    """
    command = [sys.executable, "-m", "benchmarks.context", str(source), contexts.as_uri()]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def store(source: Path, uri: str) -> float:
    """Pack and store, and return this process's peak memory in MiB.

    `ru_maxrss` would not do: it begins with the memory of the process that started this one.
    """
    with store_for(uri).create("context.tar.gz") as out:
        context.pack(source, None, out, Quiet())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def generate(source: Path, files: int, size: int) -> Path:
    """A project with that many files and about as many bytes: a few large and many small ones, most
    of them text.
    """
    chance = random.Random(files)
    words = [
        bytes(chance.choices(b"etaoinshrdlucmfwypvbgkjqxz_", k=chance.randrange(2, 11)))
        for _ in range(5_000)
    ]
    text, noise = b" ".join(chance.choices(words, k=800_000)), chance.randbytes(4 * MIB)
    weights = [chance.lognormvariate(0, 1.2) for _ in range(files)]
    total = sum(weights)
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for number, weight in enumerate(weights):
        folder = source / f"package{number % 40:02}" / f"module{number // 40 % 25:02}"
        folder.mkdir(parents=True, exist_ok=True)
        pool = noise if number % 5 == 0 else text
        left = int(weight / total * size)
        with (folder / f"file{number:05}").open("wb") as file:
            while left > 0:
                start = chance.randrange(len(pool) - MIB)
                left -= file.write(pool[start : start + min(left, MIB)])
    return source


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(store(Path(sys.argv[1]), sys.argv[2]))
    else:
        for key, value in measure():
            print(f"{key} {value:.2f}")
