"""What the README promises of `make demo`; the script checks what it shows, and ends with an error
if it is not so.
"""

import os
import subprocess
import sys
from pathlib import Path

import servers

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_a_build_then_none_then_another(
    tmp_path: Path, engine: str, docker_cli: str
) -> None:
    path = [str(Path(sys.executable).parent), str(Path(docker_cli).parent), os.environ["PATH"]]
    with servers.docker_registry(tmp_path / "registry") as registry:
        environment = {
            "PATH": os.pathsep.join(path),
            "HOME": str(tmp_path),
            "DOCKER_HOST": engine,
            "REGISTRY": registry,
        }
        command = [sys.executable, str(ROOT / "scripts/demo")]
        # What is shown of a build that runs goes to standard error, where its output is piped.
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    first, second = done.stdout.split("2. The same source again")
    assert "BUILDING" in first
    assert "BUILDING" not in second.split("3. One file changes")[0]
