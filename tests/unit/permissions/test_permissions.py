"""What has to be granted for a config: the least, in each cloud's words, and as a person gets to
see it.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from imagemill.builders.kaniko.permissions import PERMISSIONS
from imagemill.cli.commands import cli
from imagemill.config import LaunchConfig, load
from imagemill.permissions import Party, Permissions, Use, permissions

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/model"
ARN = "arn:aws:ecr:eu-central-1:123456789012:repository/team/model"


PUSH_ACTIONS = (
    "BatchCheckLayerAvailability",
    "InitiateLayerUpload",
    "UploadLayerPart",
    "CompleteLayerUpload",
    "PutImage",
)


def config(
    destination: str | None = ECR, *, args: tuple[str, ...] = (), **builder: Any
) -> LaunchConfig:
    """A config of AWS that builds with docker, unless it is said otherwise."""
    if args:
        container = {"spec": {"template": {"spec": {"containers": [{"args": list(args)}]}}}}
        builder["kaniko_config"] = container
    section = {"type": "docker", "destination": destination, **builder}
    region = {"type": "aws", "region": "eu-central-1"}
    return LaunchConfig.model_validate({"environment": region, "builder": section})


def kaniko(
    destination: str = ECR, *, store: str = "s3://bucket/contexts", **builder: Any
) -> LaunchConfig:
    return config(destination, **{"type": "kaniko", "build_context_store": store, **builder})


def granted(
    found: Permissions, party: Party = Party.WORKER, *, optional: bool = False
) -> set[tuple[str, str]]:
    """Actions and resources that a party is granted."""
    own = [grant for grants in found.grants.values() for grant in grants if grant.party is party]
    return {
        (action, grant.resource)
        for grant in own
        if bool(grant.only) is optional
        for action in grant.actions
    }


def data(found: Permissions, cloud: str, party: Party = Party.WORKER) -> Any:
    (policy,) = [
        policy for policy in found.policies() if (policy.cloud, policy.party) == (cloud, party)
    ]
    return policy.data


def statements(found: Permissions, *, optional: bool = False) -> dict[str, Any]:
    """The worker's statements by their names: of the least policy, or of all that are for one use
    each.
    """
    made = data(found, "aws")
    documents = made["optional"].values() if optional else [made["policy"]]
    return {
        statement["Sid"]: statement for document in documents for statement in document["Statement"]
    }


def output(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli, ["permissions", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


# --- What a person sees ---


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_the_output_is_the_golden_one(path: Path) -> None:
    assert output("--config", ROOT / "configs" / f"{path.stem}.yaml") == path.read_text(
        encoding="utf-8"
    )


def test_there_is_a_golden_output_for_each_cloud() -> None:
    assert {path.stem.partition("-")[0] for path in GOLDEN.glob("*.txt")} >= {
        "aws",
        "gcp",
        "azure",
        "coreweave",
    }


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_json_has_the_policies_by_cloud_and_party_and_the_notes(path: Path) -> None:
    found = permissions(load(path).config)
    expected: dict[str, Any] = {"notes": list(found.notes)}
    for policy in found.policies():
        expected.setdefault(policy.cloud, {})[policy.party.value] = policy.data
    assert json.loads(output("--config", path, "--json")) == expected


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """The title and the text of all blocks for a config."""
    for policy in permissions(load(path).config).policies():
        yield from ((block.title, block.text) for block in policy.blocks)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_block_is_what_it_is_called(path: Path) -> None:
    for title, text in blocks(path):
        if title.startswith("IAM policy"):
            assert json.loads(text)["Version"] == "2012-10-17"
        elif title.startswith(("custom role", "Role")):
            assert {"title", "kind"} & yaml.safe_load(text).keys()
        else:
            assert title.startswith(("command", "role assignments"))
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def add_programs(folder: Path) -> None:
    """The clouds' commands, which print what they get."""
    for program in ("gcloud", "az", "kubectl"):
        prints = f'#!/bin/sh\ncase "$*" in *show*) echo /the/id;; *) printf "%s|" {program} "$@"; echo;; esac\n'
        (folder / program).write_text(prints)
        (folder / program).chmod(0o755)


def run(script: str, programs: Path) -> list[str]:
    """What the shell calls in a script, where the only programs are those in a folder
    (`add_programs`).
    """
    command = ["/bin/bash", "-eu"]
    done = subprocess.run(
        command,
        input=script,
        text=True,
        check=True,
        capture_output=True,
        env={"PATH": str(programs)},
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_shell_calls_what_the_json_says(path: Path, tmp_path: Path) -> None:
    add_programs(tmp_path)
    for policy in permissions(load(path).config).policies():
        if policy.cloud == "aws":
            continue
        optional = policy.data["optional"].values() if policy.cloud != "kubernetes" else ()
        scripts = [
            block.text
            for block in policy.blocks
            if block.title.startswith(("command", "role assignments"))
        ]
        for script, commands in zip(scripts, [policy.data["commands"], *optional], strict=True):
            variables = [
                line for line in script.splitlines() if line.startswith(("WORKER=", "BUILD_POD="))
            ]
            called = run(script, tmp_path)
            assert called == run("\n".join([*variables, *commands]), tmp_path)
            assert len(called) == len(commands)
            assert all("$" not in line and "\\" not in line for line in called)


# --- The least ---


def test_the_worker_that_pushes_to_ecr_may_do_what_the_guide_of_the_agent_grants() -> None:
    push = {
        "InitiateLayerUpload",
        "UploadLayerPart",
        "CompleteLayerUpload",
        "BatchCheckLayerAvailability",
        "PutImage",
    }
    found = permissions(config())
    expected = {
        (f"ecr:{action}", ARN)
        for action in push | {"DescribeImages", "DescribeRepositories", "CreateRepository"}
    }
    assert granted(found) == expected | {("ecr:GetAuthorizationToken", "*")}
    assert set(found.grants) == {"aws"}
    assert found.notes == ()


def test_the_least_policy_has_nothing_that_a_build_can_do_without() -> None:
    found = permissions(config())
    assert statements(found).keys() == {"FindImages", "MakeRepository", "Login", "PushImages"}
    assert statements(found, optional=True).keys() == {"AddTags", "Graft"}
    assert statements(found, optional=True)["AddTags"]["Action"] == "ecr:BatchGetImage"
    least, graft, tags = (block for policy in found.policies() for block in policy.blocks)
    assert (least.title, graft.title, tags.title) == (
        "IAM policy",
        "IAM policy, only for changes of code without a builder (builder.graft)",
        "IAM policy, only for builds that ask for further tags (--tag)",
    )
    assert "BatchGetImage" in tags.text
    assert "BatchGetImage" not in least.text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_deleting_an_image_is_granted_nowhere(path: Path) -> None:
    found = permissions(load(path).config)
    actions = {
        action for grants in found.grants.values() for grant in grants for action in grant.actions
    }
    assert not {action for action in actions if "delete" in action.lower()} - {
        "s3:DeleteObject",
        "storage.objects.delete",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete",
        "delete",  # a Job, and the Secrets of a build
    }


def test_further_tags_are_apart_on_google_cloud_and_on_azure() -> None:
    google = permissions(load(ROOT / "configs/gcp-kaniko.yaml").config)
    added, graft = data(google, "gcp")["optional"].values()
    upload = "artifactregistry.repositories.uploadArtifacts"
    assert (
        upload not in data(google, "gcp")["roles"]["imagemillWorkerImages"]["includedPermissions"]
    )
    assert added == [
        f"gcloud iam roles update imagemillWorkerImages --project=example-project --add-permissions={upload}"
    ]
    assert graft == added
    azure = data(permissions(load(ROOT / "configs/azure-kaniko.yaml").config), "azure")
    assert not any("AcrPush" in command for command in azure["commands"])
    assert any("AcrPush" in command for (command,) in azure["optional"].values())


def test_sids_are_letters_and_digits_and_each_is_there_once() -> None:
    made = data(permissions(kaniko(args=("--cache",))), "aws")
    for document in [made["policy"], *made["optional"].values()]:
        sids = [statement["Sid"] for statement in document["Statement"]]
        assert all(sid.isalnum() for sid in sids)
        assert len(sids) == len(set(sids))


def test_the_bucket_is_listed_and_objects_are_those_below_the_path() -> None:
    found = statements(permissions(config(build_context_store="s3://bucket/a/path")))
    assert found["KeepContextsBucket"]["Action"] == "s3:ListBucket"
    assert found["KeepContextsBucket"]["Resource"] == "arn:aws:s3:::bucket"
    assert found["KeepContexts"]["Action"] == ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    assert found["KeepContexts"]["Resource"] == "arn:aws:s3:::bucket/a/path/*"


@pytest.mark.parametrize(
    ("region", "domain", "partition"),
    [
        ("cn-north-1", "amazonaws.com.cn", "aws-cn"),
        ("us-gov-west-1", "amazonaws.com", "aws-us-gov"),
        ("eu-central-1", "amazonaws.com", "aws"),
    ],
)
def test_arns_are_of_the_regions_partition(region: str, domain: str, partition: str) -> None:
    made = LaunchConfig.model_validate(
        {
            "environment": {"type": "aws", "region": region},
            "builder": {
                "type": "docker",
                "destination": f"123456789012.dkr.ecr.{region}.{domain}/r",
                "build-context-store": "s3://bucket",
            },
        }
    )
    arns = {resource for _, resource in granted(permissions(made))} - {"*"}
    assert arns == {
        f"arn:{partition}:s3:::bucket",
        f"arn:{partition}:s3:::bucket/*",
        f"arn:{partition}:ecr:{region}:123456789012:repository/r",
    }


def test_the_registry_of_another_cloud_than_the_environments_is_granted_in_that_cloud() -> None:
    found = permissions(config("europe-docker.pkg.dev/a-project/models/training"))
    resource = "projects/a-project/locations/europe/repositories/models"
    assert granted(found) == {
        ("artifactregistry.repositories.downloadArtifacts", resource),
        ("artifactregistry.repositories.uploadArtifacts", resource),
    }


def test_a_project_of_a_domain_is_named_as_google_names_it() -> None:
    found = permissions(config("europe-docker.pkg.dev/example.com/a-project/models/training"))
    assert {resource for _, resource in granted(found)} == {
        "projects/example.com:a-project/locations/europe/repositories/models"
    }


def test_where_nothing_is_built_images_are_only_looked_for() -> None:
    found = permissions(config(type="noop", build_context_store="s3://bucket"))
    assert granted(found) == {("ecr:DescribeImages", ARN)}


def test_a_registry_without_a_cloud_is_a_note_and_so_is_a_folder() -> None:
    found = permissions(
        config("registry.example.com/r", build_context_store="file:///srv/contexts")
    )
    assert found.grants == {}
    assert found.notes == (
        "registry.example.com/r: give the worker credentials that may pull and push, in docker's config.json",
        "file:///srv/contexts: let the user that the worker runs as read and write this folder",
    )


def test_without_a_destination_it_is_said_that_nothing_is_known() -> None:
    (note,) = permissions(config(None)).notes
    assert "no destination" in note


def test_who_needs_nothing_is_told_so() -> None:
    assert permissions(load(ROOT / "configs/docker-local.yaml").config).notes
    empty = CliRunner().invoke(cli, ["permissions", "--json"], env={"HOME": "/nonexistent"})
    assert json.loads(empty.stdout)["notes"]


# --- Kaniko: two parties ---


def test_a_pod_with_a_service_account_pushes_and_the_worker_does_not() -> None:
    pod = {"spec": {"template": {"spec": {"serviceAccountName": "imagemill-build"}}}}
    found = permissions(kaniko(kaniko_config=pod))
    worker, build_pod = granted(found), granted(found, Party.BUILD_POD)
    assert ("ecr:PutImage", ARN) in build_pod - worker
    assert ("ecr:GetAuthorizationToken", "*") in build_pod - worker
    assert ("ecr:DescribeImages", ARN) in worker - build_pod
    assert ("s3:GetObject", "arn:aws:s3:::bucket/contexts/*") in worker - build_pod
    assert ("s3:PutObject", "arn:aws:s3:::bucket/contexts/*") in worker - build_pod
    assert {"ecr:BatchGetImage", "ecr:PutImage"} <= {
        action for action, _ in granted(found, optional=True)
    }
    assert found.notes == ()


def test_a_pod_without_credentials_pushes_with_the_workers() -> None:
    found = permissions(kaniko())
    assert ("ecr:PutImage", ARN) in granted(found)
    assert granted(found, Party.BUILD_POD) == set()
    assert "push with short-lived credentials of the worker" in found.notes[-1]


def test_a_push_role_is_assumed_by_the_worker_and_pushes() -> None:
    role = "arn:aws:iam::123456789012:role/imagemill/push"
    found = permissions(kaniko(push_role=role))
    assert granted(found, Party.PUSH_ROLE) == {
        ("ecr:GetAuthorizationToken", "*"),
        *((f"ecr:{action}", ARN) for action in PUSH_ACTIONS),
    }
    assert statements(found)["AssumeRole"] == {
        "Sid": "AssumeRole",
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Resource": role,
    }
    assert granted(permissions(kaniko())) == granted(found) - {("sts:AssumeRole", role)}
    (note,) = found.notes
    assert "trust policy" in note
    elsewhere = permissions(kaniko("registry.example.com/team/model", push_role=role))
    assert "sts:AssumeRole" not in {action for action, _ in granted(elsewhere)}
    assert granted(elsewhere, Party.PUSH_ROLE) == set()


def test_a_pod_reads_contexts_where_the_config_says_so() -> None:
    found = permissions(kaniko(context_access="identity"))
    assert granted(found, Party.BUILD_POD) == {("s3:GetObject", "arn:aws:s3:::bucket/contexts/*")}


@pytest.mark.parametrize(
    ("store", "role"),
    [
        ("gs://bucket/contexts", "roles/iam.serviceAccountTokenCreator"),
        ("https://account.blob.core.windows.net/contexts", "Storage Blob Delegator"),
    ],
)
def test_what_signing_needs_is_said(store: str, role: str) -> None:
    found = permissions(kaniko(store=store, context_access="signed"))
    assert any(role in note for note in found.notes)


def verbs(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Verb, resource and group of all rules of a Role."""
    return {
        (verb, *rule["resources"], *rule["apiGroups"]) for rule in rules for verb in rule["verbs"]
    }


def test_the_role_in_the_cluster_is_the_workers_and_all_that_is_ever_asked_for() -> None:
    found = permissions(kaniko())
    made = data(found, "kubernetes")
    (only, events), *others = made["optional"].items()
    assert verbs(made["role"]["rules"]) == {
        (each.verb, each.resource, each.group) for each in PERMISSIONS
    }
    assert verbs(events) == {
        (each.verb, each.resource, each.group) for each in PERMISSIONS if not each.needed
    }
    assert others == []
    (role,) = [policy.blocks[0].text for policy in found.policies() if policy.cloud == "kubernetes"]
    assert [line for line in role.splitlines() if "#" in line] == [
        f'- {{apiGroups: [""], resources: [events], verbs: [list, watch]}}  # only {only}'
    ]
    assert [policy.party for policy in found.policies() if policy.cloud == "kubernetes"] == [
        Party.WORKER
    ]
    assert "kubernetes" not in permissions(config()).grants


CACHE = f"{ARN}/cache"


@pytest.mark.parametrize("args", [("--cache",), ("--cache=true",), ("--cache=false", "--cache=1")])
def test_with_the_layer_cache_on_more_is_granted_and_marked(args: tuple[str, ...]) -> None:
    found = permissions(kaniko(args=args))
    without = permissions(kaniko())
    assert granted(found) == granted(without)
    more = granted(found, optional=True) - granted(without, optional=True)
    assert {
        ("ecr:BatchGetImage", CACHE),
        ("ecr:GetDownloadUrlForLayer", CACHE),
        ("ecr:PutImage", CACHE),
    } <= more
    assert {resource for _, resource in more} == {CACHE}
    assert statements(found, optional=True)["CacheLayers"]["Resource"] == CACHE
    assert "CacheLayers" not in statements(found)
    assert (
        found.notes[-1]
        == f"ECR makes no repository for cached layers by itself: make {ECR}/cache once"
    )


@pytest.mark.parametrize(
    "args", [(), ("--cache=false",), ("--cache", "--cache=false"), ("--cache-ttl=1h",)]
)
def test_with_the_layer_cache_off_nothing_is_said_of_it(args: tuple[str, ...]) -> None:
    assert permissions(kaniko(args=args)) == permissions(kaniko())


@pytest.mark.parametrize("make", [config, kaniko])
def test_the_layer_cache_of_a_config_is_granted_like_what_is_pushed(
    make: Callable[..., LaunchConfig],
) -> None:
    found, without = permissions(make(layer_cache=f"{ECR}/cache")), permissions(make())
    assert granted(found) - granted(without) == {
        ("ecr:DescribeRepositories", CACHE),
        ("ecr:CreateRepository", CACHE),
    }
    cached = statements(found, optional=True)["CacheLayers"]
    pull = {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    assert set(cached["Action"]) == pull | {f"ecr:{action}" for action in PUSH_ACTIONS}
    assert cached["Resource"] == CACHE
    assert found.notes == without.notes


def test_the_layer_cache_in_another_registry_is_made_by_its_owner() -> None:
    other = "123456789012.dkr.ecr.us-east-1.amazonaws.com/cache"
    found, without = permissions(kaniko(layer_cache=other)), permissions(kaniko())
    assert granted(found) == granted(without)
    assert [note for note in found.notes if note not in without.notes] == [
        f"ECR makes no repository for cached layers by itself: make {other} once"
    ]


def test_a_push_role_keeps_layers_as_well() -> None:
    role = "arn:aws:iam::123456789012:role/imagemill/push"
    found = permissions(kaniko(push_role=role, layer_cache=f"{ECR}/cache"))
    assert ("ecr:PutImage", CACHE) in granted(found, Party.PUSH_ROLE, optional=True)


def test_who_makes_layers_of_code_reads_and_pushes_the_image_also_where_pods_push() -> None:
    pod = {"spec": {"template": {"spec": {"serviceAccountName": "imagemill-build"}}}}
    made = statements(permissions(kaniko(kaniko_config=pod)), optional=True)
    pull = {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    assert set(made["Graft"]["Action"]) == pull | {f"ecr:{action}" for action in PUSH_ACTIONS}
    assert made["Graft"]["Resource"] == ARN
    assert "Graft" not in statements(
        permissions(kaniko(kaniko_config=pod, graft=False)), optional=True
    )
    (note,) = permissions(
        config(
            "registry.example.com/r",
            type="kaniko",
            secret_name="s",
            secret_key=".dockerconfigjson",
            build_context_store="s3://bucket",
        )
    ).notes[:1]
    assert note == (
        "registry.example.com/r: give the worker credentials that may pull, and push for changes of"
        " code without a builder (builder.graft), in docker's config.json"
    )


def test_layers_may_be_kept_in_a_repository_of_another_cloud() -> None:
    found = permissions(
        kaniko(args=("--cache", "--cache-repo=us-docker.pkg.dev/a-project/layers/all"))
    )
    (policy,) = [policy for policy in found.policies() if policy.cloud == "gcp"]
    assert policy.party is Party.WORKER
    assert policy.data["commands"] == []
    (create, bind) = policy.data["optional"][
        "for a cache of layers (builder.layer-cache, Kaniko's --cache)"
    ]
    assert create.startswith(
        "gcloud iam roles create imagemillWorkerImages --project=a-project --title='Imagemill "
    )
    assert (
        "--permissions=artifactregistry.repositories.downloadArtifacts,artifactregistry." in create
    )
    assert bind.startswith(
        "gcloud artifacts repositories add-iam-policy-binding layers --project=a-project "
    )
    assert [block.title for block in policy.blocks] == [
        "commands, only for a cache of layers (builder.layer-cache, Kaniko's --cache)"
    ]
    subprocess.run(["bash", "-n"], input=policy.blocks[0].text, text=True, check=True)


def test_layers_may_be_kept_in_a_folder_of_the_pod() -> None:
    assert permissions(kaniko(args=("--cache", "--cache-repo=oci:/layers"))) == permissions(
        kaniko()
    )


def test_the_account_key_that_kaniko_reads_blob_storage_with_is_no_role() -> None:
    found = permissions(load(ROOT / "configs/azure-kaniko.yaml").config)
    assert granted(found, Party.BUILD_POD) == {
        ("Microsoft.ContainerRegistry/registries/pull/read", "registries/exampleregistry"),
        ("Microsoft.ContainerRegistry/registries/push/write", "registries/exampleregistry"),
    }
    assert "AZURE_STORAGE_ACCESS_KEY" in found.notes[0]


# --- What grants an action ---


@pytest.mark.parametrize(
    ("name", "refused", "use", "line"),
    [
        (
            "aws-docker",
            "s3:PutObject",
            Use.KEEP_CONTEXTS,
            '{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::example-imagemill/contexts/*"}',
        ),
        (
            "aws-docker",
            "403 User: arn:aws:iam::1:user/a is not authorized to perform: ecr:InitiateLayerUpload on resource: …",
            Use.PUSH_IMAGES,
            '{"Effect": "Allow", "Action": "ecr:InitiateLayerUpload", '
            '"Resource": "arn:aws:ecr:us-east-1:123456789012:repository/imagemill"}',
        ),
        (
            "gcp-kaniko",
            "storage.objects.create",
            Use.KEEP_CONTEXTS,
            "gcloud iam roles update imagemillWorkerContexts --project=example-project"
            " --add-permissions=storage.objects.create\n"
            "gcloud storage buckets add-iam-policy-binding gs://example-imagemill"
            ' --member="serviceAccount:$WORKER" --role=projects/example-project/roles/imagemillWorkerContexts',
        ),
        (
            "azure-docker",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
            Use.KEEP_CONTEXTS,
            'az role assignment create --assignee "$WORKER" --role "Storage Blob Data Contributor" --scope "$(az'
            " storage account show --name examplestorage --query id --output tsv)"
            '/blobServices/default/containers/imagemill"',
        ),
        (
            "aws-kaniko",
            "batch/jobs: watch",
            Use.RUN_JOBS,
            "- {apiGroups: [batch], resources: [jobs], verbs: [watch]}",
        ),
    ],
)
def test_the_line_that_grants_a_refused_action(
    name: str, refused: str, use: Use, line: str
) -> None:
    found = permissions(load(ROOT / "configs" / f"{name}.yaml").config)
    assert next(found.lines(refused, (use,))) == line


def test_where_no_action_is_named_all_that_is_needed_is_granted() -> None:
    lines = list(permissions(config()).lines("denied", (Use.PUSH_IMAGES,)))
    assert [json.loads(line)["Resource"] for line in lines] == ["*", ARN]
    assert len(json.loads(lines[1])["Action"]) == 5


def test_an_action_is_not_found_in_a_longer_name() -> None:
    found = permissions(config(build_context_store="s3://bucket"))
    assert len(list(found.lines("s3:GetObjectTagging", (Use.KEEP_CONTEXTS,)))) == 2


@pytest.mark.parametrize(
    ("who", "member"),
    [
        (
            "builder@a-project.iam.gserviceaccount.com",
            "serviceAccount:builder@a-project.iam.gserviceaccount.com",
        ),
        ("somebody@example.com", "user:somebody@example.com"),
        ("o'neil@example.com", "user:o'neil@example.com"),
        ("a federated identity", "serviceAccount:$WORKER"),
        ("", "serviceAccount:$WORKER"),
    ],
)
def test_the_line_names_who_is_known(who: str, member: str, tmp_path: Path) -> None:
    found = permissions(load(ROOT / "configs/gcp-docker.yaml").config)
    add_programs(tmp_path)
    update, bind = run(
        "WORKER='$WORKER'\n" + next(found.lines("", (Use.FIND_IMAGES,), {"gcp": who})), tmp_path
    )
    assert update.startswith("gcloud|iam|roles|update|imagemillWorkerImages|--project=")
    assert f"|--member={member}|" in bind


@pytest.mark.parametrize("name", ["azure-docker", "azure-kaniko", "gcp-docker", "gcp-kaniko"])
def test_every_line_is_a_command_that_can_be_run(name: str, tmp_path: Path) -> None:
    add_programs(tmp_path)
    found = permissions(load(ROOT / "configs" / f"{name}.yaml").config)
    for line in found.lines("", [use for use in Use if use not in (Use.RUN_JOBS, Use.READ_EVENTS)]):
        assert all(
            call.startswith(("az|role", "gcloud|"))
            for call in run(f"WORKER=a-worker\n{line}", tmp_path)
        )
        assert "a-worker" in run(f"WORKER=a-worker\n{line}", tmp_path)[-1]


@pytest.mark.parametrize(
    ("host", "name"),
    [("contoso.azurecr.io", "contoso"), ("contoso-abc123def.azurecr.io", "contoso")],
)
def test_a_registry_of_azure_goes_by_its_name_without_the_label_of_its_domain(
    host: str, name: str
) -> None:
    (line, *_) = permissions(config(f"{host}/team/model")).lines("", (Use.FIND_IMAGES,))
    assert f"az acr show --name {name} --query id" in line
