"""Archives that nobody vouches for: what is unpacked, what is refused, and that nothing is written
elsewhere.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hardship
from imagemill.errors import BuildCancelled, OperatorError, UserError
from imagemill.ports import Quiet
from imagemill.sources.archive import Limits, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
MODES = ["w", "w:gz", "w:zst"]

SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00size"
"""A frame of Zstandard that holds no data, as pzstd writes it."""


def member(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    mode: int = 0o644,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(content)
    return info, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.DIRTYPE)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.LNKTYPE, target=target)


def tar(
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    mode: str = "w",
    format: int = tarfile.GNU_FORMAT,
) -> bytes:
    out = io.BytesIO()
    python_mode = mode.removesuffix(":zst")  # which tarfile knows from Python 3.14 on
    with tarfile.open(fileobj=out, mode=python_mode, format=format) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue() if mode == python_mode else zstd.compress(out.getvalue())


def zip_entry(name: str, kind: int = stat.S_IFREG, mode: int = 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.filename = name  # as it is: ZipInfo would mend it
    info.create_system, info.external_attr = 3, (kind | mode) << 16
    return info


def zipped(
    entries: Iterable[tuple[zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info, content in entries:
            archive.writestr(info, content, compression)
    return out.getvalue()


class Place:
    """A folder to unpack in, with an archive and something to be left alone beside it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.out = top / "work" / "out"
        self.out.mkdir(parents=True)
        (top / "outside").write_text("untouched")
        (top / "empty").mkdir()

    def unpack(self, data: bytes, limits: Limits | None = None) -> Path:
        (self.top / "archive").write_bytes(data)
        unpack(self.top / "archive", self.out, Quiet(), limits or Limits())
        return self.out

    def refuses(self, data: bytes, limits: Limits | None = None) -> UserError:
        """What is said to the archive, which has to be refused, and must not have touched what is
        outside.
        """
        with pytest.raises(UserError) as raised:
            self.unpack(data, limits)
        assert sorted(path.name for path in self.top.iterdir()) == [
            "archive",
            "empty",
            "outside",
            "work",
        ]
        assert list((self.top / "work").iterdir()) == [self.out]
        assert list((self.top / "empty").iterdir()) == []
        assert (self.top / "outside").read_text() == "untouched"
        return raised.value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", MODES)
def test_tar_is_unpacked(place: Place, mode: str, format: int) -> None:
    long = "d" * 90 + "/" + "n" * 60
    out = place.unpack(
        tar(
            [
                folder("./"),
                folder("./a"),
                member("./a/b", b"content"),
                member("run", b"#!/bin/sh", mode=0o700),
                link("a/link", "../run"),
                link("absolute", "/bin/sh"),
                hard_link("again", "a/b"),
                member(long, b"long"),
                member("deep/without/folders", b""),
            ],
            mode,
            format,
        )
    )
    assert (out / "a/b").read_bytes() == (out / "again").read_bytes() == b"content"
    assert (out / "run").stat().st_mode & 0o777 == 0o755
    assert (out / "a/b").stat().st_mode & 0o777 == 0o644
    assert str((out / "a/link").readlink()) == "../run"
    assert str((out / "absolute").readlink()) == "/bin/sh"
    assert (out / long).read_bytes() == b"long"
    assert (out / "deep/without/folders").read_bytes() == b""


def test_zip_is_unpacked(place: Place) -> None:
    out = place.unpack(
        zipped(
            [
                (zip_entry("a/", stat.S_IFDIR, 0o755), b""),
                (zip_entry("a/b"), b"content" * 1000),
                (zip_entry("run", mode=0o755), b"#!/bin/sh"),
                (zip_entry("a/link", stat.S_IFLNK), b"../run"),
                (zip_entry("deep/without/folders"), b""),
                (zip_entry("é"), b""),
            ]
        )
    )
    assert (out / "a/b").read_bytes() == b"content" * 1000
    assert (out / "run").stat().st_mode & 0o777 == 0o755
    assert str((out / "a/link").readlink()) == "../run"
    assert names(out) == [
        "a",
        "a/b",
        "a/link",
        "deep",
        "deep/without",
        "deep/without/folders",
        "run",
        "é",
    ]


def test_zip_from_a_system_without_modes_is_unpacked(place: Place) -> None:
    info = zip_entry("a", stat.S_IFLNK, 0o777)
    info.create_system = 0
    assert place.unpack(zipped([(info, b"content")])).joinpath("a").read_bytes() == b"content"


def test_zstandard_in_several_frames_is_unpacked(place: Place) -> None:
    data = tar([member("a", os.urandom(MIB)), member("b", b"last")])
    halves = zstd.compress(data[:700_000]), SKIPPED, zstd.compress(data[700_000:])
    assert (place.unpack(SKIPPED + b"".join(halves)) / "b").read_bytes() == b"last"


def test_zstandard_that_wants_much_memory_is_refused(place: Place) -> None:
    options = {
        int(zstd.CompressionParameter.window_log): 28,
        int(zstd.CompressionParameter.content_size_flag): 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(tar([member("a", b"content")])) + compressor.flush()
    message = place.refuses(data).message
    assert message.endswith(
        "Unable to decompress Zstandard data: Frame requires too much memory for decoding"
    )


def test_zstandard_that_was_changed_is_refused(place: Place) -> None:
    options = {int(zstd.CompressionParameter.checksum_flag): 1}
    data = bytearray(zstd.compress(tar([member("a", os.urandom(MIB))]), options=options))
    data[MIB // 2] ^= 1
    assert "is damaged" in place.refuses(bytes(data)).message


def test_archive_is_named_as_it_is_called(place: Place) -> None:
    (place.top / "archive").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"^The archive s3://bucket/key is damaged, or is no \.tar"):
        unpack(place.top / "archive", place.out, Quiet(), called="s3://bucket/key")


def test_names_that_are_not_utf8_are_kept(place: Place) -> None:
    assert os.listdir(os.fsencode(place.unpack(tar([member("\udcff")])))) == [b"\xff"]  # noqa: PTH208


def test_empty_archives_are_empty_folders(place: Place) -> None:
    for data in (tar([]), tar([], "w:gz"), tar([], "w:zst"), zipped([])):
        assert names(place.unpack(data)) == []


def test_later_member_replaces_an_earlier_one(place: Place) -> None:
    out = place.unpack(
        tar([member("a", b"1"), member("a", b"2"), link("b", "a"), member("b", b"3")])
    )
    assert (out / "a").read_bytes() == b"2"
    assert (out / "b").read_bytes() == b"3"
    assert not (out / "b").is_symlink()


def test_link_that_leads_out_is_kept_as_it_is(place: Place) -> None:
    out = place.unpack(tar([folder("a"), link("a/link", "../../outside"), link("b", "..")]))
    assert (out / "a" / "link").readlink() == Path("../../outside")
    assert (out / "b").readlink() == Path("..")


UNSAFE_TARS = {
    "a name that leads out": [member("../outside")],
    "a name that leads out from within": [member("a/../../outside")],
    "a name that is only dots": [member("..")],
    "a folder that leads out": [folder("../new")],
    "an absolute name": [member("/tmp/absolute")],
    "an absolute folder": [folder("/tmp/absolute")],
    "a device": [member("null", kind=tarfile.CHRTYPE)],
    "a block device": [member("disk", kind=tarfile.BLKTYPE)],
    "a FIFO": [member("pipe", kind=tarfile.FIFOTYPE)],
    "an unknown type": [member("strange", kind=b"Z")],
    "a link out of an absolute name": [link("/link", "outside")],
    "a link to nothing": [link("a", "")],
    "a link with too long a target": [link("a", "n" * 5000)],
    "a member below a link": [link("a", "b"), folder("b"), member("a/c")],
    "a member below an absolute link": [link("a", "/"), member("a/tmp/absolute")],
    "a folder below an absolute link": [link("a", "/tmp"), folder("a/new")],
    "a folder over a link": [link("a", "/tmp"), folder("a")],
    "a member below two links": [link("a", "."), link("a/b", ".."), member("a/b/outside")],
    "a member below a file": [member("a"), member("a/b")],
    "a file over a folder": [folder("a"), member("a")],
    "a link over a folder": [folder("a"), link("a", "b")],
    "a hard link that leads out": [hard_link("a", "../../outside")],
    "a hard link to an absolute path": [hard_link("a", "/etc/passwd")],
    "a hard link to nothing": [hard_link("a", "b")],
    "a hard link to a folder": [folder("b"), hard_link("a", "b")],
    "a hard link to a link": [link("b", "/etc/passwd"), hard_link("a", "b")],
    "a hard link through a link": [link("b", "/etc"), hard_link("a", "b/passwd")],
    "a hard link out by a link": [hard_link("x/a", "../../outside")],
    "a name that is too long": [member("n" * 300)],
    "a path that is too long": [member("n/" * 3000)],
    "folders nested too deeply": [member("n/" * 300 + "n")],
    "no name at all": [member("")],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("members", UNSAFE_TARS.values(), ids=UNSAFE_TARS.keys())
def test_tar_that_is_not_safe_is_refused(
    place: Place, members: list[tuple[tarfile.TarInfo, bytes]], mode: str
) -> None:
    error = place.refuses(tar(members, mode))
    assert error.message.startswith(f"The archive {place.top}/archive is not safe to unpack: ")
    assert error.hint == "make it from within the folder, as tar -C FOLDER -czf ARCHIVE . does"


def test_sparse_file_is_refused(place: Place) -> None:
    """Its map of holes comes from the archive too, and Python's reader believes it."""
    error = place.refuses(tar([member("sparse", kind=tarfile.GNUTYPE_SPARSE)]))
    assert error.message.endswith("is not safe to unpack: 'sparse' is a sparse file")


def test_pax_header_may_not_smuggle_a_name(place: Place) -> None:
    for fields in ({"path": "../outside"}, {"path": "/etc/absolute"}, {"path": "a\0b"}):
        info, content = member("harmless", b"content")
        info.pax_headers = fields
        assert (
            "not safe" in place.refuses(tar([(info, content)], format=tarfile.PAX_FORMAT)).message
        )


UNSAFE_ZIPS = {
    "a name that leads out": [(zip_entry("../outside"), b"")],
    "a folder that leads out": [(zip_entry("../new/", stat.S_IFDIR), b"")],
    "an absolute name": [(zip_entry("/tmp/absolute"), b"")],
    "a device": [(zip_entry("null", stat.S_IFCHR), b"")],
    "a FIFO": [(zip_entry("pipe", stat.S_IFIFO), b"")],
    "a member below a link": [
        (zip_entry("a", stat.S_IFLNK), b"/tmp"),
        (zip_entry("a/absolute"), b""),
    ],
    "a member below a file": [(zip_entry("a"), b""), (zip_entry("a/b"), b"")],
}


@pytest.mark.parametrize("entries", UNSAFE_ZIPS.values(), ids=UNSAFE_ZIPS.keys())
def test_zip_that_is_not_safe_is_refused(
    place: Place, entries: list[tuple[zipfile.ZipInfo, bytes]]
) -> None:
    assert place.refuses(zipped(entries)).message.startswith(
        f"The archive {place.top}/archive is not safe to unpack: "
    )


TIGHT = Limits(size=3 * MIB, members=10, ratio=20, dense=MIB)


def lying_zip(content: bytes, claimed: int) -> bytes:
    """An archive whose headers say that its file, `a`, has `claimed` bytes."""
    data = bytearray(zipped([(zip_entry("a"), content)]))
    struct.pack_into("<L", data, 22, claimed)
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, claimed)
    return bytes(data)


BOMBS: dict[str, tuple[bytes, str]] = {
    "a tar.gz of zeros": (
        tar([member("a", bytes(2 * MIB))], "w:gz"),
        "unpacks to more than 20 times its own size",
    ),
    "a gzip of zeros after the end": (
        gzip.compress(tar([member("a")]) + bytes(2 * MIB)),
        "unpacks to more than 20 times its own size",
    ),
    "a tar.zst of zeros": (
        tar([member("a", bytes(2 * MIB))], "w:zst"),
        "unpacks to more than 20 times its own size",
    ),
    "a frame of zeros after the end": (
        tar([member("a")], "w:zst") + zstd.compress(bytes(2 * MIB)),
        "unpacks to more than 20 times its own size",
    ),
    "a zip of zeros": (
        zipped([(zip_entry("a"), bytes(2 * MIB))]),
        "unpacks to more than 20 times its own size",
    ),
    "many small files of zeros": (
        zipped([(zip_entry(str(i)), bytes(MIB // 4)) for i in range(9)]),
        "unpacks to more than 20 times its own size",
    ),
    "much of it": (
        tar([member("a", os.urandom(4 * MIB))], "w:gz"),
        "unpacks to more than 3,145,728 bytes",
    ),
    "much of it in a plain tar": (
        tar([member("a", bytes(4 * MIB))]),
        "unpacks to more than 3,145,728 bytes",
    ),
    "much of it in a zip": (
        zipped([(zip_entry("a"), os.urandom(4 * MIB))], zipfile.ZIP_STORED),
        "unpacks to more than 3,145,728 bytes",
    ),
    "many members": (tar([member(str(i)) for i in range(11)]), "has more than 10 members"),
    "many members of a zip": (
        zipped([(zip_entry(str(i)), b"") for i in range(11)]),
        "has more than 10 members",
    ),
    "one member many times": (tar([member("a")] * 11), "has more than 10 members"),
    "hard links to a large file": (
        tar([member("a", os.urandom(MIB)), *(hard_link(str(i), "a") for i in range(4))]),
        "unpacks to more than 3,145,728 bytes",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BOMBS.values(), ids=BOMBS.keys())
def test_bomb_is_refused_before_it_fills_the_disk(place: Place, data: bytes, reason: str) -> None:
    error = place.refuses(data, TIGHT)
    assert error.message == f"The archive {place.top}/archive {reason}"
    assert error.hint == "leave out what the build does not need"
    assert sum(path.stat().st_blocks * 512 for path in place.out.rglob("*")) <= TIGHT.size + MIB


def test_limits_are_not_passed_by_what_reaches_them(place: Place) -> None:
    place.unpack(
        tar([member("a", os.urandom(2 * MIB)), *(member(str(i)) for i in range(9))], "w:gz"), TIGHT
    )


@pytest.mark.parametrize("claimed", [0, 1000, MIB - 1])
def test_zip_that_lies_about_its_sizes_is_refused(place: Place, claimed: int) -> None:
    assert "damaged" in place.refuses(lying_zip(os.urandom(MIB), claimed), TIGHT).message


def test_zip_that_claims_more_than_it_has_gives_what_it_has(place: Place) -> None:
    content = os.urandom(MIB)
    assert (place.unpack(lying_zip(content, 1 << 31), TIGHT) / "a").read_bytes() == content


def test_header_that_wants_much_memory_is_refused(place: Place) -> None:
    for kind in (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    ):
        data = tar([member("a", bytes(2 * MIB), kind=kind)], "w:gz")
        assert place.refuses(data).message.endswith(": a header is too large")


GOOD = [member("a", b"content" * 200), member("b", os.urandom(3000)), link("c", "a")]


@pytest.mark.parametrize("mode", MODES)
def test_tar_that_is_cut_off_anywhere_is_refused(tmp_path: Path, mode: str) -> None:
    data = tar(GOOD, mode)
    needed = 1536 + 512 + 3072 + 512 + 512 + 512 if mode == "w" else len(data)
    for number, end in enumerate([*range(0, needed, 97), 512, 1024, 2048, 2560, needed - 1]):
        (tmp_path / str(number)).mkdir()
        error = Place(tmp_path / str(number)).refuses(data[:end])
        assert error.message.startswith(
            f"The archive {tmp_path}/{number}/archive is damaged, or is no .tar, "
        )
        assert error.hint == "make it anew"


def test_zip_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = zipped([(zip_entry("a"), b"content" * 200), (zip_entry("b"), os.urandom(3000))])
    for number, end in enumerate(range(0, len(data), 97)):
        (tmp_path / str(number)).mkdir()
        assert "damaged" in Place(tmp_path / str(number)).refuses(data[:end]).message


@pytest.mark.parametrize("at", [2_000, 1_600, 600, 3])
def test_tar_with_a_header_that_cannot_be_read_is_not_taken_for_its_end(
    place: Place, at: int
) -> None:
    data = bytearray(tar([member("a", b"x"), member("b", b"x"), member("c", b"x")]))
    data[at // 512 // 2 * 1024 + 3] ^= 0xFF
    assert "damaged" in place.refuses(bytes(data)).message


def test_zip_with_a_password_is_refused(place: Place) -> None:
    data = bytearray(zipped([(zip_entry("a"), b"content")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    error = place.refuses(bytes(data))
    assert error.message == "'a' in the archive is encrypted"
    assert error.hint == "make the archive without a password"


def test_zip_with_an_unknown_compression_is_refused(place: Place) -> None:
    data = bytearray(zipped([(zip_entry("a"), b"content")]))
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 99
    assert "compression" in place.refuses(bytes(data)).message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
        SKIPPED,
        b"BZh91AY",
        b"x" * 10_000,
    ],
)
def test_what_is_no_archive_is_refused(place: Place, data: bytes) -> None:
    assert place.refuses(data).message.startswith(
        f"The archive {place.top}/archive is damaged, or is no .tar, "
    )


def test_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tar([member("a", os.urandom(MIB))]))
    with hardship.small_disk(tmp_path / "disk") as disk, pytest.raises(OperatorError) as raised:
        unpack(tmp_path / "archive", disk, Quiet())
    assert raised.value.message.startswith(f"There is no room left in {tmp_path}/disk: ")


def test_unpacking_asks_whether_to_go_on(place: Place) -> None:
    class Stopped(Quiet):
        def check(self) -> None:
            raise BuildCancelled("stop")

    for data in (tar([member("a")]), zipped([(zip_entry("a"), b"x")])):
        (place.top / "archive").write_bytes(data)
        with pytest.raises(BuildCancelled):
            unpack(place.top / "archive", place.out, Stopped())


PARTS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=4).map(
    "/".join
)
MEMBERS = st.lists(
    st.one_of(
        st.builds(member, PARTS, st.just(b"content")),
        st.builds(folder, PARTS),
        st.builds(link, PARTS, PARTS | st.sampled_from(["/", "/tmp"])),
        st.builds(hard_link, PARTS, PARTS),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(MEMBERS)
def test_no_tar_writes_outside_its_folder(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with hardship.public_folder() as top:
        place = Place(top)
        try:
            place.unpack(tar(members))
        except UserError:
            place.refuses(tar(members))
        assert {path.resolve().is_relative_to(place.out) for path in files_in(place.out)} <= {True}
        assert (top / "outside").read_text() == "untouched"
        assert names(top / "empty") == []


def files_in(top: Path) -> list[Path]:
    """Files that are none by way of a link."""
    return [
        Path(parent) / name
        for parent, _, names in os.walk(top)
        for name in names
        if not (Path(parent) / name).is_symlink()
    ]


@pytest.mark.parametrize("kind", ["bz2", "xz"])
def test_tar_with_other_compressions_is_read(place: Place, kind: str) -> None:
    compress = bz2.compress if kind == "bz2" else lzma.compress
    content = tar([member("a", b"1" * 100_000), folder("b"), member("b/c", b"2")])
    middle = len(content) // 2
    parts = compress(content[:middle]), compress(content[middle:])
    for packed in (compress(content), b"".join(parts), (b"\0" * 8).join((*parts, b""))):
        out = place.unpack(packed)
        assert (out / "a").stat().st_size == 100_000
        assert (out / "b/c").read_bytes() == b"2"
    assert "is damaged" in place.refuses(compress(content)[:-20]).message
    damaged = bytearray(compress(content))
    damaged[len(damaged) // 2] ^= 0xFF
    assert "is damaged" in place.refuses(bytes(damaged)).message


def test_zip_whose_members_are_elsewhere_is_damaged(place: Place) -> None:
    content = zipped([(zip_entry("a"), b"x")])
    end = content.rindex(b"PK\5\6") + 16  # the offset of the directory: later than it is
    assert "is damaged" in place.refuses(content[:end] + b"\xff" + content[end + 1 :]).message


def test_zip_with_a_name_that_is_not_in_its_encoding_is_damaged(place: Place) -> None:
    content = zipped([(zip_entry("\u00e4"), b"x")])  # first in the member's own header
    assert "is damaged" in place.refuses(content.replace(b"\xc3", b"\xff", 1)).message


def test_xz_may_not_take_any_memory(place: Place) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    packed = lzma.compress(tar([member("a")]), filters=filters)
    assert "Memory usage limit" in place.refuses(packed).message


def test_zip_of_old_programs_has_the_names_that_were_meant(place: Place) -> None:
    windows = zip_entry("folder\\file.txt")
    windows.create_system = 0
    packed = zipped([(windows, b"1"), (zip_entry("cafXX.txt"), b"2"), (zip_entry("a\\b"), b"3")])
    # In UTF-8, without the flag that says so, as Info-ZIP and macOS leave it out.
    out = place.unpack(packed.replace(b"cafXX.txt", "caf\xe9.txt".encode()))
    assert (out / "folder/file.txt").read_bytes() == b"1"
    assert (out / "caf\xe9.txt").read_bytes() == b"2"
    assert (out / "a\\b").read_bytes() == b"3"  # of Unix, where it is a name


def test_zip_with_a_name_in_a_code_page_has_that_of_its_system(place: Place) -> None:
    windows = zip_entry("caf_.txt")
    windows.create_system = 11
    packed = zipped([(windows, b"1"), (zip_entry("naiv_.txt"), b"2")])
    packed = packed.replace(b"caf_.txt", b"caf\x82.txt").replace(b"naiv_.txt", b"naiv\xe9.txt")
    out = place.unpack(packed)
    assert sorted(os.listdir(os.fsencode(out))) == ["caf\xe9.txt".encode(), b"naiv\xe9.txt"]  # noqa: PTH208


def test_zip_has_the_names_that_are_given_in_unicode_if_they_are_of_these_members(
    place: Place,
) -> None:
    def named(written: bytes, crc: int) -> zipfile.ZipInfo:
        info = zip_entry("X" * len(written))
        field = struct.pack("<BL", 1, crc) + "\u8868.txt".encode()
        info.extra = (
            struct.pack("<HHI", 0x9999, 4, 0) + struct.pack("<HH", 0x7075, len(field)) + field
        )
        return info

    ours, renamed = b"\x95\x5c.txt", b"renamed.txt"  # the former in code page 932
    packed = zipped([(named(ours, zlib.crc32(ours)), b"1"), (named(renamed, 1), b"2")])
    out = place.unpack(packed.replace(b"X" * 11, renamed).replace(b"X" * 6, ours))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "\u8868.txt": b"1",
        "renamed.txt": b"2",
    }


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!\x1a\x07", "RAR"), (b"]\0\0", "LZMA")],
)
def test_format_that_is_not_read_is_named(place: Place, start: bytes, name: str) -> None:
    message = place.refuses(start + bytes(1000)).message
    assert f"is packed by {name}, which is not read: those that are, are .tar, " in message
