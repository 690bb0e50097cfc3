"""What a layer holds, and what layers add up to."""

import gzip
import hashlib
import io
import sys
import tarfile
from collections.abc import Callable
from typing import cast

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.layers import FileView, Layer, Node, read_layer, resolved
from imagemill.ports import Quiet

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FOLDER = Node("dir", 0o755, 0, 0)
FILE = Node("file", 0o644, 0, 0)


def tar(*members: tarfile.TarInfo, content: bytes = b"abc") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid = kind, target, 0o640, 5, 6
    return info


def buffered(content: bytes) -> io.BufferedReader:
    return cast("io.BufferedReader", io.BufferedReader(io.BytesIO(content)))


def read(
    content: bytes, *, packed: Callable[[bytes], bytes] = gzip.compress, contents: bool = True
) -> Layer:
    stream = buffered(packed(content))
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return read_layer(stream, diff_id, contents, Quiet())


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd.compress])
def test_a_layer_is_its_entries_and_what_it_takes_away(
    packed: Callable[[bytes], bytes],
) -> None:
    attributes = member("x/attributes")
    attributes.pax_headers = {"SCHILY.xattr.user.a": "b"}
    content = tar(
        member("./x/", tarfile.DIRTYPE),
        member("x/file"),
        member("x/link", tarfile.SYMTYPE, "../a"),
        member("x/again", tarfile.LNKTYPE, "x/file"),
        member("x/pipe", tarfile.FIFOTYPE),
        member("x/.wh.gone"),
        member("y/.wh..wh..opq"),
        attributes,
    )
    layer = read(content, packed=packed)
    digest = hashlib.sha256(b"abc").hexdigest()
    assert layer.entries == {
        "x": Node("dir", 0o640, 5, 6),
        "x/file": Node("file", 0o640, 5, 6, "", 3, digest),
        "x/link": Node("link", 0o777, 5, 6, "../a"),
        "x/again": Node("hard", 0o640, 5, 6, "x/file"),
        "x/pipe": Node("other", 0o640, 5, 6, extra=True),
        "x/attributes": Node("file", 0o640, 5, 6, "", 3, digest, extra=True),
    }
    assert layer.removed == ("x/gone",)
    assert layer.emptied == ("y",)
    assert Layer.load(layer.dump()) == layer


def test_digests_are_taken_where_they_are_wanted() -> None:
    layer = read(tar(member("a")), contents=False)
    assert layer.entries["a"].sha256 == ""
    assert not layer.has_contents


@pytest.mark.parametrize("packed", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_a_layer_that_is_another_or_is_damaged_is_refused(
    cut: float, packed: Callable[[bytes], bytes]
) -> None:
    content = tar(member("a"), content=bytes(20_000))
    damaged = packed(content)
    stream = buffered(damaged[: int(len(damaged) * cut)])
    with pytest.raises(Refusal):
        read_layer(stream, f"sha256:{hashlib.sha256(content).hexdigest()}", True, Quiet())
    stream = buffered(content)
    with pytest.raises(Refusal):
        read_layer(stream, f"sha256:{'0' * 64}", True, Quiet())


def test_a_path_that_leads_out_is_refused() -> None:
    with pytest.raises(Refusal):
        read(tar(member("a/../../b")))


def test_an_unknown_version_is_read_again() -> None:
    assert Layer.load(b"0" + Layer().dump()[1:]) is None


def test_layers_cover_one_another() -> None:
    view = FileView()
    view.apply(Layer({"a": FOLDER, "a/b": FILE, "c": FOLDER, "c/d": FOLDER, "c/d/e": FILE}))
    view.apply(Layer({"a/new": FILE, "name": Node("hard", 0, 0, 0, "a/new")}, emptied=("a",)))
    view.apply(Layer({"c/d": FILE, "x/y": FILE}, removed=("nothing", "name")))
    assert view.nodes == {
        "a": FOLDER,
        "a/new": FILE,
        "c": FOLDER,
        "c/d": FILE,
        "x": Node("dir", -1, -1, -1),
        "x/y": FILE,
    }


def test_what_a_layer_puts_below_a_link_is_refused() -> None:
    # Some unpackers follow it, and some put a folder in its place.
    view = FileView()
    view.apply(Layer({"lib": Node("link", 0o777, 0, 0, "usr/lib")}))
    with pytest.raises(Refusal):
        view.apply(Layer({"lib/a": FILE}))


def test_links_are_followed_within_the_root() -> None:
    def link(target: str) -> Node:
        return Node("link", 0o777, 0, 0, target)

    nodes = {"a": link("/x/y"), "x/y/b": link("../../z"), "up": link("../../..//q"), "r": link("r")}
    assert resolved(nodes, "/a/b/c") == "z/c"
    assert resolved(nodes, "up/s") == "q/s"
    assert resolved(nodes, "/not//there/.") == "not/there"
    with pytest.raises(Refusal):
        resolved(nodes, "r")
