"""A few cells of the matrix and a short storm, by seed; `make chaos` runs all of it."""

from collections.abc import Iterator

import pytest

from chaos import matrix, storm
from chaos.site import Site, site

SHARES = {("docker", "redis"): (0.034, 7), ("kaniko", "rabbitmq"): (0.018, 3)}
"""Of the matrix of a builder on a broker: how much, and by which seed."""


@pytest.fixture(scope="module", params=SHARES, ids="-".join)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    builder, broker = request.param
    with site(tmp_path_factory.mktemp("chaos"), builder=builder, broker=broker) as made:
        made.start()
        yield made


def test_a_share_of_the_matrix_breaks_no_promise(
    running: Site, request: pytest.FixtureRequest
) -> None:
    builder, broker = request.node.callspec.params["running"]
    share, seed = SHARES[builder, broker]
    chosen = matrix.batches(builder, broker, share=share, seed=seed)
    assert [each for each in matrix.run(running, chosen) if each.wrong] == []


def test_a_storm_loses_no_build(running: Site) -> None:
    assert storm.run(running, storm.Storm(seconds=10, rate=3, seed=3)) == []
