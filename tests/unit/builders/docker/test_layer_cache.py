"""Where layers are taken from and left: what an engine is told."""

from imagemill.builders.docker.layer_cache import LayerCache
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

INPUTS = BuildInputs(
    ImageReference.parse("a.io/app:1"),
    cache_from=("a.io/old:1", "a.io/cache:k"),
    cache_to="a.io/new:1",
    layer_cache=ImageReference.parse("a.io/cache:k"),
)
FROM = ("--cache-from=a.io/old:1", "--cache-from=a.io/cache:k")
TO = "--cache-to=type=registry,mode=max,ignore-error=true,ref="


def test_engine_that_exports_layers_does_so_while_it_builds() -> None:
    told = LayerCache.of(INPUTS, exports=True)
    assert told == LayerCache((*FROM, f"{TO}a.io/new:1", f"{TO}a.io/cache:k"), ())


def test_another_engine_has_images_to_push() -> None:
    told = LayerCache.of(INPUTS, exports=False)
    assert told.arguments == FROM
    assert list(map(str, told.images)) == ["a.io/new:1", "a.io/cache:k"]


def test_nothing_is_taken_where_no_cache_is_wanted_but_left_all_the_same() -> None:
    told = LayerCache.of(BuildInputs(**{**vars(INPUTS), "no_cache": True}), exports=True)
    assert told.arguments == (f"{TO}a.io/new:1", f"{TO}a.io/cache:k")


def test_without_a_place_nothing_is_said() -> None:
    assert LayerCache.of(BuildInputs(INPUTS.image), exports=True) == LayerCache()
