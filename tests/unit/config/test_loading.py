"""The launch config: what it means, what is refused and in which words, and which file is read."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from imagemill.config import (
    AutoBuilder,
    AwsEnvironment,
    AzureEnvironment,
    Builder,
    DockerBuilder,
    Environment,
    GcpEnvironment,
    KanikoBuilder,
    LaunchConfig,
    Loaded,
    LocalEnvironment,
    NoopBuilder,
    describe,
    find,
    load,
    load_found,
)
from imagemill.config.explain import KNOWN
from imagemill.config.loading import MAX_BYTES
from imagemill.config.yaml_document import MAX_VALUES
from imagemill.errors import ConfigError, UserError
from imagemill.reference import ImageReference

Load = Callable[[str], Loaded]
Refuse = Callable[[str], tuple[list[str], str]]

KANIKO = """\
builder:
  type: kaniko
  destination: registry.example.com/team/images
  build-context-store: s3://example/contexts
"""
STORES = "s3://BUCKET/PATH, gs://BUCKET/PATH, https://ACCOUNT.blob.core.windows.net/CONTAINER or file:///PATH"
REPOSITORY = "an image repository without a tag, REGISTRY/REPOSITORY"
KANIKO_CONTAINER = KANIKO + "  kaniko-config:\n    spec: {template: {spec: {containers: [%s]}}}\n"
CONTAINER_KEY = "builder.kaniko-config.spec.template.spec.containers[0]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "launch.yaml"


@pytest.fixture
def load_text(file: Path) -> Load:
    def load_it(text: str) -> Loaded:
        file.write_text(text, encoding="utf-8")
        return load(file)

    return load_it


@pytest.fixture
def refuse(file: Path, load_text: Load) -> Refuse:
    """The lines of the error's message, from the line number on, and its hint."""

    def refuse_it(text: str) -> tuple[list[str], str]:
        with pytest.raises(ConfigError) as error:
            load_text(text)
        lines = error.value.message.split("\n")
        assert all(line.startswith(f"{file}:") for line in lines)
        return [line.removeprefix(f"{file}:") for line in lines], error.value.hint

    return refuse_it


# What it means


def test_nothing_said_is_a_local_environment_and_a_builder_to_be_found_out() -> None:
    config = LaunchConfig()

    assert config.model_dump(mode="json", exclude_none=True) == {
        "environment": {"type": "local"},
        "builder": {"type": "auto"},
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "---\n...\n", "~\n", "\ufeff"])
def test_empty_file_is_all_defaults_with_a_warning(load_text: Load, file: Path, text: str) -> None:
    loaded = load_text(text)

    assert loaded.config == LaunchConfig()
    assert loaded.warnings == (f"{file}: the file is empty, so all is left to the defaults",)


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("environment:\n", LocalEnvironment()),
        ("environment: {}\n", LocalEnvironment()),
        ("environment: {type: local}\n", LocalEnvironment()),
        ("environment: {type: }\n", LocalEnvironment()),
        ("environment: {type: aws, region: us-east-1}\n", AwsEnvironment(region="us-east-1")),
        ("environment: {type: gcp, region: us-central1, project: my-project}\n",
         GcpEnvironment(region="us-central1", project="my-project")),
        ("environment: {type: azure}\n", AzureEnvironment()),
    ],
)  # fmt: skip
def test_environment(load_text: Load, text: str, environment: Environment) -> None:
    assert load_text(text).config.environment == environment


@pytest.mark.parametrize(
    ("text", "builder"),
    [
        ("builder:\n", AutoBuilder()),
        ("builder: {type: auto}\n", AutoBuilder()),
        ("builder: {destination: a.example/b}\n", AutoBuilder(destination="a.example/b")),
        ("builder: {type: docker}\n", DockerBuilder()),
        ("builder: {type: noop, destination: a.example/b}\n", NoopBuilder(destination="a.example/b")),
        (KANIKO, KanikoBuilder(destination="registry.example.com/team/images",
                               build_context_store="s3://example/contexts")),
    ],
)  # fmt: skip
def test_builder(load_text: Load, text: str, builder: Builder) -> None:
    assert load_text(text).config.builder == builder


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("destination", "registry.example.com/a", "registry.example.com/a"),
        ("destination", "https://registry.example.com/a", "registry.example.com/a"),
        ("destination", "localhost:5000/a/b", "localhost:5000/a/b"),
        ("destination", "'[::1]:5000/a'", "[::1]:5000/a"),
        ("destination", "team/a", "docker.io/team/a"),
        ("destination", "europe-docker.pkg.dev/p/r/image", "europe-docker.pkg.dev/p/r/image"),
        ("build-context-store", "s3://bucket", "s3://bucket"),
        ("build-context-store", "s3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b"),
        ("build-context-store", "gs://my_bucket/a b", "gs://my_bucket/a b"),
        ("build-context-store", "https://account1.blob.core.windows.net/con-tainer/",
         "https://account1.blob.core.windows.net/con-tainer"),
        ("build-job-name", "a", "a"),
        ("build-job-name", "a" * 42, "a" * 42),
        ("kaniko-image", "registry.example.com:5000/kaniko:v1", "registry.example.com:5000/kaniko:v1"),
        ("platform", "linux/amd64", "linux/amd64"),
        ("platform", "linux/arm64", "linux/arm64"),
    ],
)  # fmt: skip
def test_value_of_the_builder(load_text: Load, key: str, written: str, meant: str) -> None:
    lines = [line for line in KANIKO.splitlines() if not line.strip().startswith(f"{key}:")]

    loaded = load_text("\n".join([*lines, f"  {key}: {written}"]))

    assert getattr(loaded.config.builder, key.replace("-", "_")) == meant
    assert loaded.warnings == ()


def test_defaults_of_kaniko(load_text: Load) -> None:
    builder = load_text(KANIKO).config.builder

    assert isinstance(builder, KanikoBuilder)
    assert builder.build_job_name == "imagemill-build"
    assert builder.kaniko_image == "ghcr.io/osscontainertools/kaniko:v1.28.3"
    assert builder.kaniko_config == {}
    assert (builder.secret_name, builder.secret_key, builder.platform) == (None, None, None)


def test_secret_by_name_and_key(load_text: Load) -> None:
    builder = load_text(
        KANIKO + "  secret-name: registry-login\n  secret_key: .dockerconfigjson\n"
    ).config.builder

    assert isinstance(builder, KanikoBuilder)
    assert (builder.secret_name, builder.secret_key) == ("registry-login", ".dockerconfigjson")


def test_kaniko_config_is_taken_as_kubernetes_would(load_text: Load) -> None:
    text = """\
  kaniko-config:
    apiVersion: batch/v1
    kind: Job
    spec:
      active-Deadline_seconds: 600
      backoffLimit: null
      template:
        metadata: {annotations: {a-b_c/d: 'yes', on: 2024-01-01}}
        spec:
          volumes: [{name: v, secret: {defaultMode: 0644}}]
          hostNetwork: yes
          containers:
            - {args: [--cache=false, --verbosity=debug, --no-push], env: [{name: A, value: '1'}, {name: B}]}
            - {args: [serve, -p, 1:30]}
            - {resources: {limits: {cpu: 1.5}}}
"""
    builder = load_text(KANIKO + text).config.builder

    assert isinstance(builder, KanikoBuilder)
    assert builder.kaniko_config == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "active-Deadline_seconds": 600,
            "backoffLimit": None,
            "template": {
                "metadata": {"annotations": {"a-b_c/d": "yes", "on": "2024-01-01"}},
                "spec": {
                    "volumes": [{"name": "v", "secret": {"defaultMode": 0o644}}],
                    "hostNetwork": True,
                    "containers": [
                        {
                            "args": ["--cache=false", "--verbosity=debug", "--no-push"],
                            "env": [{"name": "A", "value": "1"}, {"name": "B"}],
                        },
                        {"args": ["serve", "-p", "1:30"]},
                        {"resources": {"limits": {"cpu": 1.5}}},
                    ],
                },
            },
        },
    }


@pytest.mark.parametrize(
    "text", ["spec:", "spec: {template: }", "spec: {template: {spec: {containers: }}}"]
)
def test_part_of_kaniko_config_without_a_value_is_as_good_as_absent(
    load_text: Load, text: str
) -> None:
    load_text(KANIKO + f"  kaniko-config: {{{text}}}\n")


@pytest.mark.parametrize("value", ["", "''"])
def test_section_without_values_is_as_good_as_absent(load_text: Load, value: str) -> None:
    loaded = load_text(
        f"environment: {{type: {value}, region: {value}}}\nbuilder: {{type: {value}}}\n"
    )
    assert (loaded.config, loaded.warnings) == (LaunchConfig(), ())


def test_hyphens_and_underscores_are_the_same_in_keys(load_text: Load) -> None:
    text = (
        KANIKO
        + "  build-job-name: a\n  kaniko-image: a/b:c\n  secret-name: a\n  secret-key: b\n  kaniko-config: {}\n"
    )
    keys = (
        "build-context-store",
        "build-job-name",
        "kaniko-image",
        "secret-name",
        "secret-key",
        "kaniko-config",
    )
    underscored = text
    for key in keys:
        underscored = underscored.replace(key, key.replace("-", "_"))

    assert "-" not in "".join(line.partition(":")[0] for line in underscored.splitlines())
    assert load_text(underscored).config == load_text(text).config
    assert LaunchConfig.model_validate(yaml.safe_load(underscored)) == LaunchConfig.model_validate(
        yaml.safe_load(text)
    )


def test_values_are_text_as_written_and_not_what_yaml_makes_of_them(load_text: Load) -> None:
    text = """\
environment: {type: aws, region: no}
registry: {type: ecr, account-id: 012345670123, repository: 2024-01-01}
builder: {type: kaniko, build-context-store: s3://bucket, build-job-name: 1e3, secret-name: on, secret-key: 0x1F}
"""
    config = load_text(text).config

    assert isinstance(config.builder, KanikoBuilder)
    assert config.builder.destination == "012345670123.dkr.ecr.no.amazonaws.com/2024-01-01"
    assert config.builder.build_job_name == "1e3"
    assert (config.builder.secret_name, config.builder.secret_key) == ("on", "0x1F")


def test_anchors_and_merges(load_text: Load) -> None:
    text = """\
queues: &shared {destination: a.example/b, platform: linux/arm64, type: noop}
entity: &more {platform: linux/amd64, build-context-store: s3://bucket}
builder:
  <<: [*more, *shared]
  type: docker
"""
    assert load_text(text).config.builder == DockerBuilder(
        destination="a.example/b", platform="linux/amd64", build_context_store="s3://bucket"
    )


# Older and foreign keys


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("builder: {uri: https://a.example/b}\n", "a.example/b"),
        ("builder: {uri: a.example/b, destination: https://a.example/b}\n", "a.example/b"),
    ],
)
def test_uri_is_another_spelling_of_the_destination(
    load_text: Load, text: str, destination: str
) -> None:
    loaded = load_text(text)

    assert loaded.config.builder == AutoBuilder(destination=destination)
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("registry: {uri: https://a.example/b}", "a.example/b"),
        ("registry: {type: acr, uri: https://name.azurecr.io/b}", "name.azurecr.io/b"),
        ("registry: {type: gcr, uri: eu-docker.pkg.dev/p/r/i}", "eu-docker.pkg.dev/p/r/i"),
        ('registry: {type: gcr, region: eu, project: "example.com:my-project", repository: r, image-name: i}',
         "eu-docker.pkg.dev/example.com/my-project/r/i"),
        ("registry: {type: gcr, region: eu, project: my-project, repository: r, image-name: i}",
         "eu-docker.pkg.dev/my-project/r/i"),
        ("registry: {type: gcr, repository: r, image_name: i}\n"
         "environment: {type: gcp, region: eu, project: my-project}", "eu-docker.pkg.dev/my-project/r/i"),
        ("registry: {type: ecr, uri: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/r}",
         "123456789012.dkr.ecr.eu-west-1.amazonaws.com/r"),
        ("registry: {type: ecr, account-id: 123456789012, region: eu-west-1, repository: r/s}",
         "123456789012.dkr.ecr.eu-west-1.amazonaws.com/r/s"),
        ("registry: {type: ecr, account_id: 123456789012, region: cn-north-1, repository: r}",
         "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/r"),
        ("registry: {type: ecr, account-id: 123456789012, repository: r}\n"
         "environment: {type: aws, region: eu-west-1}", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/r"),
        ("registry: {uri: a.example/b}\nbuilder:\n", "a.example/b"),
        ("registry: {type: ecr, repository: r}\nbuilder: {destination: a.example/b}", "a.example/b"),
    ],
)  # fmt: skip
def test_registry_section_becomes_the_destination(
    load_text: Load, file: Path, text: str, destination: str
) -> None:
    loaded = load_text(text)

    assert loaded.config.builder.destination == destination
    assert [warning.partition(";")[0] for warning in loaded.warnings if "registry" in warning] == [
        f"{file}:1: registry: an older way to say builder.destination"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("builder:\n  destination: a.example/b\n  uri: a.example/c\n",
         '3: builder.uri: found "a.example/c", expected the same as builder.destination, "a.example/b"'),
        ("builder: {destination: a.example/b}\nregistry:\n  uri: a.example/c\n",
         '3: registry.uri: found "a.example/c", expected the same as builder.destination, "a.example/b"'),
        ("registry: {type: ecr, uri: a.example/b,\n  account-id: 123456789012, region: eu-west-1, repository: r}\n",
         '1: registry: found "123456789012.dkr.ecr.eu-west-1.amazonaws.com/r", '
         'expected the same as registry.uri, "a.example/b"'),
    ],
)  # fmt: skip
def test_two_destinations_that_differ_are_refused(refuse: Refuse, text: str, fault: str) -> None:
    assert refuse(text) == ([fault], "give one of them only")


def test_keys_of_the_agent_are_named_once(load_text: Load, file: Path) -> None:
    text = "max-jobs: -1\nqueues: [default, {a: b}]\nentity: team\nsecure_mode: yes\nverbosity:\n"

    assert load_text(text).warnings == (
        f"{file}:3: entity: the W&B agent's own keys are not used here: entity, max_jobs, queues, secure_mode",
    )


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "environment:\n  region: eu-west-1\n",
            "2: environment.region: not used with environment.type local",
        ),
        (
            "environment:\n  type: azure\n  project: p\n",
            "3: environment.project: not used with environment.type azure",
        ),
        (
            "builder:\n  type: docker\n  kaniko-image: '?'\n",
            "3: builder.kaniko-image: not used with builder.type docker",
        ),
        (
            "builder:\n  type: noop\n  secret_name: a\n",
            "3: builder.secret_name: not used with builder.type noop",
        ),
        (
            KANIKO + "  kaniko-config: {metadata: {name: a}}\n",
            "5: builder.kaniko-config.metadata.name: not used: a Job's name says what it builds: its"
            " beginning is builder.build-job-name",
        ),
        (
            KANIKO + "  kaniko-config: {spec: {ttlSecondsAfterFinished: 5}}\n",
            "5: builder.kaniko-config.spec.ttlSecondsAfterFinished: not used: a Job is kept for 60 s"
            " at least, since Imagemill learns from it how the build ended",
        ),
        (
            KANIKO_CONTAINER % "{terminationMessagePath: /a}",
            f"6: {CONTAINER_KEY}.terminationMessagePath: not used: terminationMessagePath is"
            " /dev/termination-log, since Imagemill learns from it how the build ended",
        ),
    ],
)
def test_key_of_another_type_is_left_out_with_a_warning(
    load_text: Load, file: Path, text: str, warning: str
) -> None:
    warnings = [each for each in load_text(text).warnings if "region of this S3" not in each]
    assert warnings == [f"{file}:{warning}"]


# What is refused, and in which words


@pytest.mark.parametrize(
    ("text", "fault", "hint"),
    [
        # required
        ("environment:\n  type: aws\n",
         "1: environment.region: found nothing, expected the AWS region, such as us-east-1", "add environment.region"),
        ("environment:\n  type: gcp\n  region: eu\n",
         "1: environment.project: found nothing, expected the id of the Google Cloud project",
         "add environment.project"),
        ("builder:\n  type: kaniko\n  destination: a.example/b\n",
         "1: builder.build-context-store: found nothing, expected the store from which the Job reads the packed build "
         f"context: {STORES}", "add builder.build-context-store"),
        ("builder:\n  type: kaniko\n  build-context-store: s3://bucket\n",
         "1: builder.destination: found nothing, expected the image repository to push to, REGISTRY/REPOSITORY; "
         "the tag is the source hash", "add builder.destination"),
        (KANIKO + "  secret-name: a\n",
         "1: builder.secret-key: found nothing, expected a value, since secret-name is given", ""),
        (KANIKO + "  secret-key: a\n",
         "1: builder.secret-name: found nothing, expected a value, since secret-key is given", ""),
        ("registry:\n  type: acr\n", "1: registry: found no image repository, expected uri", ""),
        ("registry:\n  type: ecr\n  region: eu-west-1\n",
         "1: registry: found no image repository, expected uri, or account-id, region and repository", ""),
        ("registry:\n  type: gcr\n  region: eu\n",
         "1: registry: found no image repository, expected uri, or region, project, repository and image-name", ""),
        # types
        ("environment:\n  type: amazon\n",
         '2: environment.type: found "amazon", expected local, aws, gcp or azure', ""),
        ("builder:\n  type: <kaniko|docker>\n",
         '2: builder.type: found "<kaniko|docker>", expected auto, docker, kaniko or noop', ""),
        ("builder:\n  type: [docker]\n", "2: builder.type: found a list, expected auto, docker, kaniko or noop", ""),
        ("registry:\n  type: quay\n", '2: registry.type: found "quay", expected any, ecr, gcr or acr', ""),
        # kinds of values
        ("\nbuilder: docker\n", '2: builder: found "docker", expected a mapping', ""),
        ("\nenvironment: [aws]\n", "2: environment: found a list, expected a mapping", ""),
        ("registry: ecr\n", '1: registry: found "ecr", expected a mapping', ""),
        ("environment:\n  type: aws\n  region: [a]\n",
         "3: environment.region: found a list, expected the AWS region, such as us-east-1", ""),
        (KANIKO + "  kaniko-config: Job\n", '5: builder.kaniko-config: found "Job", expected a mapping', ""),
        # single values
        ("environment:\n  type: aws\n  region: <aws-region>\n",
         '3: environment.region: found "<aws-region>", expected the name of a region, such as us-east-1', ""),
        ("environment:\n  type: gcp\n  region: eu\n  project: My Project\n",
         '4: environment.project: found "My Project", expected the id of a Google Cloud project', ""),
        ("builder:\n  platform: linux/arm/v7\n",
         '2: builder.platform: found "linux/arm/v7", expected linux/amd64 or linux/arm64', ""),
        (KANIKO + "  build-job-name: Build\n",
         "5: builder.build-job-name: found \"Build\", expected up to 42 lower-case letters, digits and '-' "
         "(a Kubernetes name)", ""),
        (KANIKO + f"  build-job-name: {'a' * 43}\n",
         f"5: builder.build-job-name: found \"{'a' * 43}\", expected up to 42 lower-case letters, digits and '-' "
         "(a Kubernetes name)", ""),
        (KANIKO + "  secret-name: A_B\n  secret-key: a\n",
         '5: builder.secret-name: found "A_B", expected the name of a Kubernetes Secret', ""),
        (KANIKO + "  secret-name: a\n  secret-key: a/b\n",
         "6: builder.secret-key: found \"a/b\", expected a key of a Kubernetes Secret: letters, digits, '-', '_' and "
         "'.'", ""),
        ("registry:\n  type: ecr\n  account-id: 1234\n",
         '3: registry.account-id: found "1234", expected the 12 digits of an AWS account', ""),
        # destinations that parse but name nothing
        ("builder:\n  destination: registry.example.com\n",
         f"2: builder.destination: 'registry.example.com' is a registry without a repository, expected {REPOSITORY}",
         ""),
        ("builder:\n  destination: 123456789012.ecr.eu-west-1.amazonaws.com/a\n",
         "2: builder.destination: '123456789012.ecr.eu-west-1.amazonaws.com' is no registry: the dkr in an ECR "
         f"registry's name is missing, expected {REPOSITORY}",
         "write 123456789012.dkr.ecr.eu-west-1.amazonaws.com/a"),
        ("builder:\n  destination: eu-docker.pkg.dev/p/r\n",
         f"2: builder.destination: 'eu-docker.pkg.dev/p/r' has no image name, expected {REPOSITORY}",
         "write eu-docker.pkg.dev/p/r/IMAGE: eu-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE"),
        ("builder:\n  destination: eu-docker.pkg.dev/example.com:p/r/i\n",
         "2: builder.destination: 'eu-docker.pkg.dev/example.com:p/r/i' has a project of a domain, which an image's "
         f"name has with '/', expected {REPOSITORY}",
         "write eu-docker.pkg.dev/example.com/p/r/i"),
        ("builder:\n  destination: https://gcr.io/example.com:p/i\n",
         "2: builder.destination: 'https://gcr.io/example.com:p/i' has a project of a domain, which an image's "
         f"name has with '/', expected {REPOSITORY}",
         "write gcr.io/example.com/p/i"),
        ("builder:\n  destination: public.ecr.aws/models\n",
         f"2: builder.destination: 'public.ecr.aws/models' has no alias of a public registry, expected {REPOSITORY}",
         "write public.ecr.aws/ALIAS/models"),
    ],
)  # fmt: skip
def test_refused(refuse: Refuse, text: str, fault: str, hint: str) -> None:
    assert refuse(text) == ([fault], hint)


@pytest.mark.parametrize(
    ("text", "key", "destination"),
    [
        ("builder:\n  destination: a.example/b:latest\n", "2: builder.destination", "a.example/b:latest"),
        (f"builder:\n  destination: a.example/b@sha256:{'0' * 64}\n", "2: builder.destination",
         f"a.example/b@sha256:{'0' * 64}"),
        ("builder:\n  uri: a.example/B\n", "2: builder.uri", "a.example/B"),
        ("registry:\n  uri: http://a.example/b\n", "2: registry.uri", "http://a.example/b"),
        ("registry: {type: ecr, region: eu-west-1,\n  account-id: 123456789012, repository: a:b}\n", "1: registry",
         "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:b"),
    ],
)  # fmt: skip
def test_destination_is_refused_in_the_words_of_the_reference(
    refuse: Refuse, text: str, key: str, destination: str
) -> None:
    with pytest.raises(UserError) as error:
        ImageReference.parse_destination(destination)

    assert refuse(text) == (
        [f"{key}: {error.value.message}, expected {REPOSITORY}"],
        error.value.hint,
    )


def test_kaniko_image_is_refused_in_the_words_of_the_reference(refuse: Refuse) -> None:
    with pytest.raises(UserError) as error:
        ImageReference.parse("a//b")

    assert refuse(KANIKO + "  kaniko-image: a//b\n") == (
        [f"5: builder.kaniko-image: {error.value.message}, expected an image"],
        error.value.hint,
    )


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("s3://b", '"s3://b"'),
        ("s3://Bucket/a", '"s3://Bucket/a"'),
        ("S3://bucket", '"S3://bucket"'),
        ("s3://bucket/../other", '"s3://bucket/../other"'),
        ("s3:/bucket", '"s3:/bucket"'),
        ("gs://", '"gs://"'),
        (
            "http://account.blob.core.windows.net/container",
            '"http://account.blob.core.windows.net/container"',
        ),
        ("https://account.blob.core.windows.net", '"https://account.blob.core.windows.net"'),
        (
            "https://account.blob.core.windows.net/a--b",
            '"https://account.blob.core.windows.net/a--b"',
        ),
        ("https://example.com/container", '"https://example.com/container"'),
        ("file://srv/contexts", '"file://srv/contexts"'),
        ("file:///", '"file:///"'),
        ("file:////", '"file:////"'),
        ("/srv/contexts", '"/srv/contexts"'),
        ("https://account.blob.core.windows.net/con?sig=hunter2", "a value that is not shown here"),
        ("s3://key:hunter2@bucket/path", "a value that is not shown here"),
        ("s3://bucket/" + "a" * 80 + "#", "a value that is not shown here"),
    ],
)
def test_context_store_of_another_form_is_refused(refuse: Refuse, uri: str, found: str) -> None:
    text = f"builder:\n  build-context-store: '{uri}'\n"

    assert refuse(text) == (
        [f"2: builder.build-context-store: found {found}, expected {STORES}"],
        "",
    )


@pytest.mark.parametrize(
    ("text", "fault", "hint"),
    [
        ("\nbuider: {}\n", "2: buider", "did you mean builder?"),
        ("enviroment: {}\n", "1: enviroment", "did you mean environment?"),
        ("max_job: 1\n", "1: max_job", "did you mean max-jobs?"),
        ("destination: a.example/b\n", "1: destination", "did you mean builder.destination?"),
        ("builder:\n  destinaton: a\n", "2: builder.destinaton", "did you mean builder.destination?"),
        ("builder:\n  build-context: a\n", "2: builder.build-context", "did you mean builder.build-context-store?"),
        ("builder:\n  kaniko_img: a\n", "2: builder.kaniko_img", "did you mean builder.kaniko-image?"),
        ("builder:\n  secret: a\n", "2: builder.secret", "did you mean builder.secret-key or builder.secret-name?"),
        ("builder:\n  region: a\n", "2: builder.region", "did you mean environment.region?"),
        ("environment:\n  platform: a\n", "2: environment.platform", "did you mean builder.platform?"),
        ("environment:\n  type: aws\n  region: eu\n  regions: eu\n", "4: environment.regions",
         "did you mean environment.region?"),
        ("registry:\n  uri: a.example/b\n  repo: a\n", "3: registry.repo", "did you mean registry.repository?"),
        ("environment:\n  xyz: a\n", "2: environment.xyz", "known keys of environment: project, region, type"),
        ("xyz: a\n", "1: xyz",
         "known keys: environment, builder, registry, policy, entity, max-jobs, max-schedulers, queues, secure-mode, "
         "stopped-run-timeout, verbosity"),
    ],
)  # fmt: skip
def test_unknown_key_is_refused_with_the_nearest_known_one(
    refuse: Refuse, text: str, fault: str, hint: str
) -> None:
    assert refuse(text) == ([f"{fault}: found an unknown key, expected a known one"], hint)


@pytest.mark.parametrize("section", ["environment", "builder", "registry"])
def test_every_key_is_found_again_with_a_letter_too_many(refuse: Refuse, section: str) -> None:
    for key in KNOWN[section]:
        _, hint = refuse(f"{section}:\n  {key}x: a\n")
        assert hint.startswith(f"did you mean {section}.{key.replace('_', '-')}?")


@pytest.mark.parametrize(
    ("container", "fault", "hint"),
    [
        ("{args: [cache=false]}",
         "args[0]: found an argument without two hyphens in front, expected --key=value or a bare --flag",
         "begin it with --"),
        ("{args: [--cache=true, -cache=false]}",
         "args[1]: found an argument without two hyphens in front, expected --key=value or a bare --flag",
         "begin it with --"),
        ("{args: [--cache, 'true']}", "args[1]: found another form, expected --key=value or a bare --flag",
         "a flag and its value are one argument, joined by '='"),
        ("{args: [--cache true]}", "args[0]: found another form, expected --key=value or a bare --flag",
         "a flag and its value are one argument, joined by '='"),
        ("{args: [--cache: true]}", "args[0]: found a mapping, expected --key=value or a bare --flag",
         "put it in quotes"),
        ("{args: [yes]}", "args[0]: found a boolean, expected --key=value or a bare --flag", "put it in quotes"),
        ("{args: [~]}", "args[0]: found nothing, expected --key=value or a bare --flag", "put it in quotes"),
        ("{args: --cache}", 'args: found "--cache", expected a list', ""),
        ("{env: [{name: A, value: yes}]}", "env[0].value: found a boolean, expected text", "put it in quotes"),
        ("{env: [{name: A, value: '1'}, {name: B, value: 017}]}", "env[1].value: found a number, expected text",
         "put it in quotes"),
        ("{env: [{value: a}]}", "env[0].name: found nothing, expected text", ""),
        ("{env: [{name: on}]}", "env[0].name: found a boolean, expected text", "put it in quotes"),
        ("{env: [A=b]}", "env[0]: found a value that is not shown here, expected a mapping", ""),
        ("{env: {A: b}}", "env: found a mapping, expected a list", ""),
    ],
)  # fmt: skip
def test_container_that_kaniko_could_not_use_is_refused(
    refuse: Refuse, container: str, fault: str, hint: str
) -> None:
    assert refuse(KANIKO_CONTAINER % container) == ([f"6: {CONTAINER_KEY}.{fault}"], hint)


@pytest.mark.parametrize(
    ("job", "fault"),
    [
        ("{kind: Pod}", '.kind: found "Pod", expected Job'),
        ("{apiVersion: v1}", '.apiVersion: found "v1", expected batch/v1'),
        ("{spec: []}", ".spec: found a list, expected a mapping"),
        ("{spec: {template: a}}", '.spec.template: found "a", expected a mapping'),
        ("{spec: {template: {spec: {containers: {args: []}}}}}",
         ".spec.template.spec.containers: found a mapping, expected a list"),
        ("{spec: {template: {spec: {containers: [kaniko]}}}}",
         '.spec.template.spec.containers[0]: found "kaniko", expected a mapping'),
        ("{spec: {template: {spec: {containers: [{}, {args: [1]}]}}}}",
         ".spec.template.spec.containers[1].args[0]: found a number, expected text"),
        ("{a-b_c: 1, a_b_c: .inf}", ".a_b_c: found a number that JSON does not have, expected another"),
        ("{a: !!int ''}", ".a: found no number or boolean, expected one"),
        ("{a: !!bool perhaps}", ".a: found no number or boolean, expected one"),
        (f"{{a: {'9' * 5000}}}", ".a: found no number or boolean, expected one"),
        ("{a: !!binary aGk=}",
         ".a: found a tag (!), expected plain YAML, where text that begins with ! is in quotes"),
        ("{a: !!set {b, c}}",
         ".a: found a tag (!), expected plain YAML, where text that begins with ! is in quotes"),
        (r'{"\ud800": a}', ".?: found a key that is not text, expected text"),
        (r'{a: "\ud800"}', ".a: found half a UTF-16 character, expected text"),
        ("{a: {b: 1, b: 2}}", ".a.b: found twice, in line 5 and line 5, expected once"),
    ],
)  # fmt: skip
def test_job_that_kubernetes_could_not_use_is_refused(refuse: Refuse, job: str, fault: str) -> None:
    faults, _ = refuse(KANIKO + f"  kaniko-config: {job}\n")

    assert faults == [f"5: builder.kaniko-config{fault}"]


def test_all_faults_are_listed_by_line_and_what_only_follows_from_them_is_not(
    refuse: Refuse,
) -> None:
    text = """\
buidler: {}
environment:
  type: aws
builder:
  type: kaniko
  platform: windows
  build-context-store: /tmp
  kaniko-config:
    kind: Pod
    spec: !job {template: {spec: {containers: [{args: [a, b]}]}}}
registry:
  type: ecr
  repositry: a
"""
    faults, hint = refuse(text)

    assert [fault.partition(": found")[0] for fault in faults] == [
        "1: buidler",
        "2: environment.region",
        "6: builder.platform",
        "7: builder.build-context-store",
        "9: builder.kaniko-config.kind",
        "10: builder.kaniko-config.spec",
        f"10: {CONTAINER_KEY}.args[0]",
        f"10: {CONTAINER_KEY}.args[1]",
        "13: registry.repositry",
    ]
    assert hint == (
        "line 1: did you mean builder?; line 2: add environment.region; "
        "line 10: a flag and its value are one argument, joined by '='; line 13: did you mean registry.repository?"
    )


def test_consequences_of_one_fault_do_not_hide_another(refuse: Refuse) -> None:
    faults, hint = refuse(
        "builder: {type: kaniko, build-context-store: s3://bucket}\nqueue: []\nentity: a\nentity: a\n"
    )

    assert [fault.partition(": found")[0] for fault in faults] == [
        "1: builder.destination",
        "2: queue",
        "4: entity",
    ]
    assert hint == "line 1: add builder.destination; line 2: did you mean queues?"


def test_destinations_that_are_no_text_are_refused(refuse: Refuse) -> None:
    faults, _ = refuse("builder:\n  destination: [a]\n  uri: a.example/b\n")

    assert faults == [
        "2: builder.destination: found a list, expected the image repository to push to, REGISTRY/REPOSITORY; "
        "the tag is the source hash",
        '3: builder.uri: found "a.example/b", expected the same as builder.destination, a list',
    ]


# Documents


@pytest.mark.parametrize(
    ("text", "fault", "hint"),
    [
        ("builder: {}\nqueues: []\nbuilder: {}\n",
         "3: builder: found twice, in line 1 and line 3, expected once", ""),
        (KANIKO + "  build_context_store: s3://bucket\n",
         "5: builder.build_context_store: found twice, in line 4 and line 5, expected once", ""),
        ("a: 1\n---\nb: 2\n",
         "2: not valid YAML: expected a single document in the stream but found another document",
         "a launch config is one document: remove the line with ---"),
        ("\n- a\n", "2: found a list, expected a mapping with keys such as builder", ""),
        ("builder\n", "1: found text, expected a mapping with keys such as builder", ""),
        ("builder:\n\ttype: docker\n",
         "2: not valid YAML: while scanning for the next token found character '\\t' that cannot start any token",
         "indent with spaces, not with tabs"),
        ("builder:\n  type: [docker\n", "3: not valid YAML: while parsing a flow sequence expected ',' or ']', but got "
         "'<stream end>'", "values with : # [ { * & ! % @ in them may need quotes"),
        ("entity: *hunter2\n", "1: not valid YAML: found undefined alias",
         "values with : # [ { * & ! % @ in them may need quotes"),
        ("entity: !hunter2 a\n",
         "1: entity: found a tag (!), expected plain YAML, where text that begins with ! is in quotes", ""),
        ("? [a]\n: b\n", "1: ?: found a key that is not text, expected text", ""),
        ("builder:\n  ? \n  : b\n", "2: builder.?: found a key that is not text, expected text", ""),
        ("builder:\n  <<: docker\n", '1: builder: found "docker" to merge, expected a mapping', ""),
        ("a: b\nc: \x00\n", "2: there is a NUL character in it, as in UTF-16 without a mark", "save the file as UTF-8"),
        ('"a\\e[31m": b\n', "1: a\\x1b[31m…: found an unknown key, expected a known one",
         "known keys: environment, builder, registry, policy, entity, max-jobs, max-schedulers, queues, secure-mode, "
         "stopped-run-timeout, verbosity"),
    ],
)  # fmt: skip
def test_document_that_is_none_is_refused(refuse: Refuse, text: str, fault: str, hint: str) -> None:
    assert refuse(text) == ([fault], hint)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\na: &a [*a]\n", 2),
        ("a: &a {b: *a}\n", 1),
        ("a: &a\n  <<: *a\n", 1),
        (f"a:\n  {'[' * 10_000}", 2),
        (f"{'{a: ' * 1_000}", 1),
    ],
)
def test_endless_nesting_is_refused(refuse: Refuse, text: str, line: int) -> None:
    assert refuse(text) == ([f"{line}: nested more than 64 levels deep"], "")


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}", "{{a: 1, b: [{}]}}"])
def test_expansion_of_aliases_is_bounded(refuse: Refuse, form: str) -> None:
    levels = ["a0: &a0 {x: y}"]
    levels += [f"a{n}: &a{n} " + form.format(", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 12)]

    faults, hint = refuse("\n".join(levels))

    assert [fault.partition(": ")[2] for fault in faults] == [
        f"found more than {MAX_VALUES} values"
    ]
    assert hint == "aliases count as what they repeat"


def test_file_in_utf16_is_read_by_its_mark(file: Path) -> None:
    file.write_bytes("builder:\r\n  type: noop\r\n".encode("utf-16"))
    assert load(file).config.builder.type == "noop"


def test_file_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(b"entity: a\nqueues: [\xe9]\n")

    with pytest.raises(ConfigError) as error:
        load(file)

    assert error.value.message == f"{file}:2: this is not UTF-8"
    assert error.value.hint == "save the file as UTF-8"


def test_file_that_is_too_large_is_refused(file: Path) -> None:
    file.write_bytes(b"#" * MAX_BYTES)
    load(file)
    file.write_bytes(b"#" * (MAX_BYTES + 1))

    with pytest.raises(ConfigError) as error:
        load(file)

    assert error.value.message == f"{file}:1: found more than 256 KiB, expected a launch config"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.yaml", "No such file or directory"),
        (".", "Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path / name)

    assert error.value.message == f"{tmp_path / name}: the config file cannot be read: {reason}"


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        "builder: {destination: 'https://user:hunter2@a.example/b'}\n",
        "builder: {destination: 'a.example/b?token=hunter2'}\n",
        "builder: {destination: a.example/b, uri: 'user:hunter2@a.example/b'}\n",
        "builder: {build-context-store: 'https://a.blob.core.windows.net/con?sig=hunter2'}\n",
        "environment: {type: aws, region: 'key=hunter2'}\n",
        "entity: !hunter2\n",
        "entity: *hunter2\n",
        "entity: [&hunter2 a, &hunter2 b, c\n",
        KANIKO_CONTAINER
        % "{args: ['--build-arg TOKEN=hunter2', 'build-arg=TOKEN=hunter2', hunter2]}",
        KANIKO_CONTAINER % "{env: [{name: TOKEN, value: [hunter2]}, TOKEN=hunter2]}",
        KANIKO_CONTAINER % "{env: [{name: TOKEN, value: !hunter2 }]}",
    ],
)
def test_error_never_repeats_what_may_be_a_secret(load_text: Load, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_text(text)

    assert "hunter2" not in repr(error.value)


def test_variable_that_seems_to_hold_a_secret_earns_a_warning_without_its_value(
    load_text: Load, file: Path
) -> None:
    variables = "{name: MODE, value: a}, {name: AWS_SECRET_ACCESS_KEY, value: hunter2}, {name: TOKEN, valueFrom: {}}"
    loaded = load_text(KANIKO_CONTAINER % f"{{env: [{variables}]}}")

    assert loaded.warnings == (
        f"{file}:6: {CONTAINER_KEY}.env[1]: AWS_SECRET_ACCESS_KEY seems to hold a secret, which all can "
        "read who can read the config or its Jobs; take it from a Kubernetes Secret (valueFrom.secretKeyRef)",
    )
    assert "hunter2" not in repr(loaded)


def test_validation_error_does_not_hold_what_was_given() -> None:
    with pytest.raises(ValidationError) as error:
        LaunchConfig.model_validate({"builder": {"type": "docker", "token": "hunter2"}})

    assert "hunter2" not in str(error.value)


def test_description_has_all_values_but_those_that_may_be_secret(
    load_text: Load, file: Path
) -> None:
    container = "{args: [--cache=true, --build-arg=A=hunter2, --build-arg=B], env: [{name: A, value: hunter2}]}"
    loaded = load_text("entity: a\n" + KANIKO_CONTAINER % container)

    assert describe(loaded) == {
        "file": str(file),
        "config": {
            "environment": {"type": "local"},
            "builder": {
                "type": "kaniko",
                "destination": "registry.example.com/team/images",
                "build-context-store": "s3://example/contexts",
                "build-job-name": "imagemill-build",
                "kaniko-image": "ghcr.io/osscontainertools/kaniko:v1.28.3",
                "kaniko-features": "recommended",
                "kaniko-config": {
                    "spec": {
                        "template": {
                            "spec": {
                                "containers": [
                                    {
                                        "args": [
                                            "--cache=true",
                                            "--build-arg=A=(not shown)",
                                            "--build-arg=B",
                                        ],
                                        "env": [{"name": "A", "value": "(not shown)"}],
                                    }
                                ]
                            }
                        }
                    }
                },
                "scheduling-timeout": 300,
                "memory-ceiling": "16Gi",
                "failed-job-retention": 3600,
            },
        },
        "warnings": [f"{file}:1: entity: the W&B agent's own keys are not used here: entity"],
    }


def test_description_of_the_defaults() -> None:
    described = describe(Loaded(LaunchConfig()))

    assert described == {
        "file": None,
        "config": {"environment": {"type": "local"}, "builder": {"type": "auto"}},
        "warnings": [],
    }


# The message


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        LaunchConfig().builder.type = "docker"  # type: ignore[misc]


def test_unknown_keys_are_refused_but_ignored_in_a_message() -> None:
    data = {
        "later": 1,
        "environment": {"type": "azure", "later": 1},
        "builder": {"type": "kaniko", "destination": "a.example/b", "build_context_store": "s3://bucket",
                    "later": 1, "kaniko_config": {"kept": {"kept": None}}},
    }  # fmt: skip
    with pytest.raises(ValidationError):
        LaunchConfig.model_validate(data)

    config = LaunchConfig.model_validate(data, extra="ignore")

    assert isinstance(config.environment, AzureEnvironment)
    assert isinstance(config.builder, KanikoBuilder)
    assert config.builder.kaniko_config == {"kept": {"kept": None}}


@pytest.mark.parametrize("data", [[], "docker", None, {"builder": []}, {"environment": 1}])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(ValidationError):
        LaunchConfig.model_validate(data)


def test_both_spellings_of_a_key_are_refused() -> None:
    with pytest.raises(ValidationError, match="both spellings"):
        LaunchConfig.model_validate(
            {"builder": {"type": "docker", "build-context-store": "a", "build_context_store": "b"}}
        )


@pytest.mark.parametrize("type_", ["docker", "noop"])
def test_builder_is_replaced_by_one_that_keeps_what_was_said(type_: Any) -> None:
    given = {
        "destination": "a.example/b",
        "build_context_store": "s3://bucket",
        "platform": "linux/arm64",
    }
    config = LaunchConfig.model_validate({"environment": {"type": "azure"}, "builder": given})

    decided = config.with_builder(type_)

    assert decided == LaunchConfig.model_validate(
        {"environment": {"type": "azure"}, "builder": {"type": type_, **given}}
    )
    assert isinstance(config.builder, AutoBuilder)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", fullmatch=True)
PATHS = st.from_regex(r"(/[a-z0-9]{1,8}){1,3}", fullmatch=True)
REPOSITORIES = st.one_of(
    PATHS.map("registry.example.com:5000{}".format),
    PATHS.map("localhost{}".format),
    PATHS.map("https://a.example{}".format),
)
STORE_URIS = st.one_of(
    PATHS.map("s3://bucket{}".format),
    PATHS.map("gs://bucket{}/".format),
    PATHS.map("file://{}".format),
    st.just("https://account.blob.core.windows.net/container"),
)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
JOBS = st.dictionaries(
    st.text().filter(lambda key: key not in ("apiVersion", "kind", "spec")), JSON, max_size=3
)
ENVIRONMENTS = st.one_of(
    st.just(LocalEnvironment()),
    st.just(AzureEnvironment()),
    st.builds(AwsEnvironment, region=st.sampled_from(["eu-west-1", "us-gov-east-1"])),
    st.builds(GcpEnvironment, region=st.just("europe-west1"), project=st.just("example-project")),
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "destination": st.none() | REPOSITORIES,
    "build_context_store": st.none() | STORE_URIS,
    "platform": st.sampled_from([None, "linux/amd64", "linux/arm64"]),
}
SECRETS = st.sampled_from([{}, {"secret_name": "cloud", "secret_key": "key.json"}])
KANIKO_BUILDERS = st.builds(
    lambda secret, **keys: KanikoBuilder(**keys, **secret),
    secret=SECRETS,
    **SHARED | {"destination": REPOSITORIES, "build_context_store": STORE_URIS},
    context_volume_claim=st.just("contexts"),
    build_job_name=NAMES,
    kaniko_image=NAMES.map("registry.example.com/{}:v1".format),
    kaniko_config=JOBS,
)
BUILDERS = st.one_of(
    *(st.builds(cls, **SHARED) for cls in (AutoBuilder, DockerBuilder, NoopBuilder)),
    KANIKO_BUILDERS,
)
CONFIGS = st.builds(LaunchConfig, environment=ENVIRONMENTS, builder=BUILDERS)


@settings(deadline=None)
@given(CONFIGS)
def test_config_goes_through_json_unchanged(config: LaunchConfig) -> None:
    data = json.loads(json.dumps(config.model_dump(mode="json", exclude_none=True)))

    assert LaunchConfig.model_validate(data) == config
    assert LaunchConfig.model_validate({**data, "later": 1}, extra="ignore") == config


@settings(deadline=None)
@given(CONFIGS)
def test_config_goes_through_a_file_unchanged(
    tmp_path_factory: pytest.TempPathFactory, config: LaunchConfig
) -> None:
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(
        yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8"
    )

    assert load(file).config == config


@settings(deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["kaniko", "ecr", "s3://bucket"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*chain(*KNOWN.values()), "spec", "template", "containers", "args", "env", "a"]), inner),
    max_leaves=20,
))  # fmt: skip
def test_whatever_the_file_says_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: JsonValue
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")

    assert outcome(file).startswith(f"{file}:")


@settings(deadline=None)
@given(st.text(alphabet="ab:-?[]{}&*!|>'\"%@#, \n\t<0.~=\x00\x7f\x85\U0001f600", max_size=60))
def test_whatever_the_text_is_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "text.yaml"
    file.write_text(text, encoding="utf-8")

    assert outcome(file).startswith(f"{file}:")


def outcome(file: Path) -> str:
    """Loaded and described, or refused; anything else that is raised is a defect."""
    try:
        return f"{describe(load(file))['file']}: loaded"
    except ConfigError as error:
        return error.message


# Which file is read


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A file in each place where a config may be, for `find`."""
    places = {
        "explicit": tmp_path / "explicit.yaml",
        "folder": tmp_path / "configs",
        "environment_file": tmp_path / "environment.yaml",
        "home": tmp_path / "home",
    }
    agent = places["home"] / ".config" / "wandb" / "launch-config.yaml"
    for file in (
        places["explicit"],
        places["environment_file"],
        agent,
        places["folder"] / "production.yaml",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("builder: {type: docker}\n")
    (places["folder"] / "staging.yaml").write_text("builder: {type: noop}\n")
    return places


NOWHERE: dict[str, Any] = {"explicit": None, "name": None, "folder": None, "environment_file": None}


def test_first_match_wins(places: dict[str, Path]) -> None:
    agent = places["home"] / ".config" / "wandb" / "launch-config.yaml"
    all_places: dict[str, Any] = {**places, "name": "production"}

    assert find(**all_places) == places["explicit"]
    assert find(**{**all_places, "explicit": None}) == places["folder"] / "production.yaml"
    assert find(**{**all_places, "explicit": None, "name": None}) == places["environment_file"]
    assert find(**{**NOWHERE, "folder": places["folder"], "home": places["home"]}) == agent
    agent.unlink()
    assert find(**{**NOWHERE, "folder": places["folder"], "home": places["home"]}) is None


def test_what_was_found_is_loaded(places: dict[str, Path]) -> None:
    loaded = load_found(
        **{**NOWHERE, "name": "staging", "folder": places["folder"], "home": places["home"]}
    )

    assert loaded == Loaded(LaunchConfig(builder=NoopBuilder()), places["folder"] / "staging.yaml")


def test_nothing_found_is_all_defaults(tmp_path: Path) -> None:
    assert load_found(**NOWHERE, home=tmp_path) == Loaded(LaunchConfig(), None, ())


def test_name_that_is_not_there_is_an_error_with_the_names_that_are(
    places: dict[str, Path],
) -> None:
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "name": "producton", "folder": places["folder"], "home": places["home"]})

    assert error.value.message == f"There is no config producton in {places['folder']}"
    assert error.value.hint == "did you mean production? there are: production, staging"


def test_name_in_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "name": "a", "folder": tmp_path / "absent", "home": tmp_path})

    assert error.value.message == f"There is no config a in {tmp_path / 'absent'}"
    assert error.value.hint == f"there is no .yaml file in {tmp_path / 'absent'}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../explicit",
        "/etc/passwd",
        "a/b",
        "..",
        ".hidden",
        "a\nb",
        "production\n",
        "a\x00",
        "-a",
        "é",
        " ",
    ],
)
def test_name_is_never_a_path(places: dict[str, Path], name: str) -> None:
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "name": name, "folder": places["folder"], "home": places["home"]})

    assert error.value.message == "The name of a config that the request gives is none"
    assert error.value.hint == (
        "a name is letters, digits, '_', '.' and '-'; NAME.yaml is looked for in the workers' config folder"
    )


def test_name_without_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "name": "production", "home": tmp_path})

    assert (
        error.value.message
        == "The request names the config production, but the workers have no config folder"
    )
    assert error.value.hint == "set IMAGEMILL_CONFIG_DIR on the workers, or leave the name out"


def test_explicit_file_that_is_not_there_is_an_error(places: dict[str, Path]) -> None:
    absent = places["folder"] / "stagin.yaml"
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "explicit": absent, "home": places["home"]})

    assert error.value.message == f"There is no config file {absent}"
    assert error.value.hint == "did you mean staging? there are: production, staging"


def test_file_of_the_environment_that_is_not_there_is_an_error(places: dict[str, Path]) -> None:
    absent = places["explicit"] / "below-a-file.yaml"
    with pytest.raises(ConfigError) as error:
        find(**{**NOWHERE, "environment_file": absent, "home": places["home"]})

    assert error.value.message == f"There is no config file {absent}, which IMAGEMILL_CONFIG names"


def test_link_as_in_a_mounted_configmap_is_followed(
    places: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "..data"
    data.mkdir()
    (data / "linked.yaml").write_text("builder: {type: noop}\n")
    (places["folder"] / "linked.yaml").symlink_to(data / "linked.yaml")

    loaded = load_found(
        **{**NOWHERE, "name": "linked", "folder": places["folder"], "home": places["home"]}
    )

    assert loaded.config.builder.type == "noop"


def test_link_to_nothing_is_an_error_and_not_an_absent_file(places: dict[str, Path]) -> None:
    agent = places["home"] / ".config" / "wandb" / "launch-config.yaml"
    agent.unlink()
    agent.symlink_to(places["home"] / "absent")

    with pytest.raises(ConfigError) as error:
        find(**NOWHERE, home=places["home"])

    assert error.value.message == f"{agent}: the config file is a link to nothing"


def test_home_that_cannot_be_searched_is_an_error_and_not_an_absent_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    with pytest.raises(ConfigError) as error:
        find(**NOWHERE, home=loop)

    assert error.value.message.endswith(
        "the config file cannot be read: Too many levels of symbolic links"
    )
