"""Builds by a real Kaniko in pods on real nodes: what the API server of the tests cannot show.

Only `make test-cluster` runs it, where IMAGEMILL_TEST_KANIKO_IMAGE is set; README.md says what it
needs. The packed context is in a ConfigMap in the place of the volume claim: pods find it at the
same path, and no storage is needed.
"""

import base64
import gzip
import io
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api_player import kubeconfig_of
from builds import Watched, packed, until
from clusters import Cluster, fresh_namespace, real_cluster
from imagemill.builders import Workplace
from imagemill.builders.kaniko import failures
from imagemill.builders.kaniko.builder import KanikoJobBuilder
from imagemill.builders.kaniko.overlay import lay
from imagemill.config.model import KanikoBuilder as Section
from imagemill.context.handover import Packed
from imagemill.errors import OperatorError, PermissionDenied, TransientError, UserError
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from kaniko_builds import Logins, container

Object = dict[str, Any]

IMAGE, REGISTRY = "IMAGEMILL_TEST_KANIKO_IMAGE", "IMAGEMILL_TEST_REGISTRY"
CONTEXTS = "file:///contexts"
HELLO = "FROM scratch\nCOPY . /\nLABEL made.by=kaniko\n"

__test__ = IMAGE in os.environ and real_cluster() is not None


@dataclass
class Place:
    """Where the builds are: a namespace of its own, and a registry that its pods reach."""

    cluster: Cluster
    registry: str
    kubeconfig: Path

    def build(
        self, context: bytes, progress: Watched, config: Object | None = None, **settings: Any
    ) -> str:
        """Build a packed context; returns the digest."""
        source_hash = uuid.uuid4().hex * 2
        name = f"{source_hash}.tar.gz"
        made = {
            "metadata": {"generateName": "context-"},
            "binaryData": {name: base64.b64encode(context).decode()},
        }
        stored = self.cluster.core.create_namespaced_config_map(self.cluster.namespace, made)
        given: Object = {
            "destination": self.destination,
            "build_context_store": CONTEXTS,
            "context_volume_claim": "none",
            "kaniko_image": os.environ[IMAGE],
            "kaniko_config": lay(_from_config_map(stored.metadata.name), config or {}),
        }
        builder = KanikoJobBuilder(self._workplace, Section.model_validate(given | settings))
        image = ImageReference.parse(f"{self.destination}:{source_hash}")
        inputs = BuildInputs(image, source_hash=source_hash, build_id=uuid.uuid4().hex)
        return builder.build(
            inputs, Packed(io.BytesIO, f"{CONTEXTS}/{name}"), self.open_registry, progress
        )

    @property
    def destination(self) -> str:
        return f"{self.registry}/{self.cluster.namespace}"

    @property
    def open_registry(self) -> OciRegistry:
        return OciRegistry(Logins(), frozenset({self.registry}))

    @property
    def _workplace(self) -> Workplace:
        return Workplace(
            scratch=self.kubeconfig.parent,
            docker_config=DockerConfig(self.kubeconfig.parent / "nothing"),
            insecure_registries=frozenset({self.registry}),
            environment={"KUBECONFIG": str(self.kubeconfig)},
        )

    def jobs(self) -> list[str]:
        """The names of the Jobs that there are."""
        return [
            job.metadata.name
            for job in self.cluster.batch.list_namespaced_job(self.cluster.namespace).items
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    kubeconfig = real_cluster()
    assert kubeconfig is not None
    assert REGISTRY in os.environ, f"{REGISTRY} is to name a registry; see tests/cluster/README.md"
    with fresh_namespace(kubeconfig) as cluster:
        yield Place(
            cluster, os.environ[REGISTRY], kubeconfig_of(cluster, tmp_path / "kubeconfig.yaml")
        )


def context(dockerfile: str = HELLO, **files: bytes) -> bytes:
    """A packed context, as small as can be: a ConfigMap holds 1 MiB."""
    with packed(dockerfile, files).open() as stream:
        return gzip.compress(gzip.decompress(stream.read()), 9)


def _from_config_map(name: str) -> Object:
    """The part of a Job that has the contexts' volume hold this ConfigMap."""
    volume = {"name": "imagemill-context", "configMap": {"name": name}}
    return {"spec": {"template": {"spec": {"volumes": [volume]}}}}


def test_a_real_kaniko_builds_and_pushes_the_image_whose_digest_it_reports(place: Place) -> None:
    progress = Watched()
    digest = place.build(context(greeting=b"hello"), progress)
    image = ImageReference.parse(f"{place.destination}@{digest}")
    assert place.open_registry.digest(image) == digest
    assert any("Pushing image to" in line for line in progress.lines), progress.lines
    assert until(lambda: place.jobs() == [], 60)


def test_the_dockerfiles_failure_is_told_in_kanikos_words(place: Place) -> None:
    with pytest.raises(UserError) as caught:
        place.build(context("FROM scratch\nCOPY absent /\n"), Watched())
    assert "absent" in caught.value.message


def test_an_executor_that_does_not_exist_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "PULLING", 5.0)  # where the nodes have no network either
    given = ImageReference.parse(os.environ[IMAGE])
    absent = f"{given.registry}/{given.path}:imagemill-no-such-tag"
    with pytest.raises((OperatorError, PermissionDenied, TransientError)) as caught:
        place.build(context(), Watched(), kaniko_image=absent)
    assert "cannot be pulled" in caught.value.message
    assert "imagemill-no-such-tag" in caught.value.message


def test_a_node_selector_that_no_node_has_is_told_in_the_schedulers_words(place: Place) -> None:
    impossible = {
        "spec": {"template": {"spec": {"nodeSelector": {"imagemill.example.com/no-such": "node"}}}}
    }
    with pytest.raises(OperatorError) as caught:
        place.build(context(), Watched(), impossible, scheduling_timeout=5)
    assert "No node can run the build's pod" in caught.value.message
    assert "nodes are available" in caught.value.message
    assert until(lambda: place.jobs() == [], 60)


def test_a_secret_that_does_not_exist_is_named(place: Place) -> None:
    with pytest.raises(OperatorError) as caught:
        place.build(context(), Watched(), secret_name="no-such-secret", secret_key="config.json")
    assert "The Secret no-such-secret that the build needs does not exist" in caught.value.message
    assert until(lambda: place.jobs() == [], 60)


def test_a_build_that_needs_more_memory_than_its_limit_is_tried_with_more_and_then_told(
    place: Place,
) -> None:
    """Kaniko unpacks the context into a folder in memory, which counts as its own."""
    hungry = container(
        resources={"limits": {"memory": "64Mi"}},
        volumeMounts=[{"name": "unpacked", "mountPath": "/kaniko/buildcontext"}],
    )
    hungry["spec"]["template"]["spec"]["volumes"] = [
        {"name": "unpacked", "emptyDir": {"medium": "Memory"}}
    ]
    progress = Watched()
    with pytest.raises(OperatorError) as caught:
        place.build(context(zeros=bytes(256 << 20)), progress, hungry)
    assert "(OOMKilled)" in caught.value.message
    assert "128Mi" in caught.value.message
    assert any("64Mi" in warning for warning in progress.warnings)
    assert any(name.endswith("-2") for name in place.jobs())
