"""A few cells of the matrix and a short storm, by seed; `make chaos` runs all of it."""

from pathlib import Path

import pytest

import servers
from chaos import matrix, storm
from chaos.history import violations
from chaos.site import site
from service import start_worker


# Of servers that break in the midst of a greeting libraries leave a socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("builder", "broker", "share", "seed"),
    [("docker", "redis", 0.011, 7), ("kaniko", "rabbitmq", 0.009, 3)],
)
def test_a_share_of_the_matrix_and_a_storm_break_no_promise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    builder: str,
    broker: str,
    share: float,
    seed: int,
) -> None:
    monkeypatch.setattr(servers, "start_worker", start_worker)  # it is started dozens of times
    with site(tmp_path, builder=builder, broker=broker) as running:
        running.start()
        some = matrix.batches(builder, broker, share=share, seed=seed)
        outcomes = list(matrix.run(running, some))
        storm.run(running, storm.Storm(seconds=8, rate=3, seed=3))
    assert [each for each in outcomes if each.wrong] == []
    assert violations(running.history) == []
