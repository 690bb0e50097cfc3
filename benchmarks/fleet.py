"""Many projects with one lock file, built at the same time: how often what comes before their code is
made.
"""

import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import servers
from benchmarks.figures import sized
from benchmarks.service import service, subfolder

PROJECTS = sized(50, 4)

_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY lock.txt /
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox sleep 2 && /bin/busybox dd if=/dev/urandom of=/made bs=1M count=8"]
COPY . /app/
"""


def measure() -> Iterator[tuple[str, float]]:
    """`fleet_dependency_builds`, builds that needed a builder; and seconds until all are done."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        lock, projects = uuid.uuid4().hex, []
        for number in range(PROJECTS):
            project = subfolder(Path(folder), f"project{number}")
            (project / "busybox").write_bytes(servers.busybox().read_bytes())
            (project / "busybox").chmod(0o755)
            (project / "Dockerfile").write_text(_DOCKERFILE)
            (project / "lock.txt").write_text(lock)
            (project / "code.py").write_text(f"print({number})\n")
            projects.append(project)
        begun = time.monotonic()
        submitted = [
            running.client.submit(
                source=str(project), destination=f"{running.registry}/fleet/{project.name}"
            )
            for project in projects
        ]
        reports = [running.client.wait(build, timeout=900) for build in submitted]
        made = [report for report in reports if not report.raise_for_status().grafted]
        yield "fleet_dependency_builds", float(len(made))
        yield "fleet_seconds", time.monotonic() - begun


if __name__ == "__main__":
    print(dict(measure()))
