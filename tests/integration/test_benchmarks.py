"""The benchmarks run: small sizes, no bounds, and what they start ends with them."""

import os
import subprocess

import pytest

from benchmarks.run import HERE, MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_smoke_run_ends_well(engine: str, module: str) -> None:
    command = ["make", "--no-print-directory", "bench", "SMOKE=1", f"ONLY={module}"]
    environment = {**os.environ, "DOCKER_HOST": engine}  # which they would start for themselves
    done = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
