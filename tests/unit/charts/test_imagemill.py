"""The Helm chart: what it renders is valid for each Kubernetes of these years, meets Pod Security's
level "restricted", and grants what `imagemill permissions` says and no more.
"""

import json
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError
from kubernetes.client import ApiClient, CoreV1Api

import chart_readme
from clusters import connected
from imagemill.builders.kaniko.permissions import PERMISSIONS
from imagemill.config import KanikoBuilder, load
from imagemill.signing import Keys
from kubernetes_server import KubernetesServer
from unit.charts.random_values import Values

Object = dict[str, Any]

IMAGE = {"repository": "registry.example.com/imagemill"}
FOLDER = Path(__file__).parents[3] / "charts/imagemill"
EXAMPLES = sorted((FOLDER / "examples").glob("*.yaml"))
SCHEMA = json.loads((FOLDER / "values.schema.json").read_text())
VERSIONS = [
    f"1.{minor}" for minor in range(30, int(kubernetes_validate.latest_version().split(".")[1]) + 1)
]
OTHERS = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""Kinds that are not Kubernetes' own."""


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """Else a megabyte of JSON is parsed for each object."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("schema_contents", "all_versions"):
            read = lru_cache(getattr(kubernetes_validate.utils, name))
            patch.setattr(kubernetes_validate.utils, name, read)
        yield


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    with Chart.load(FOLDER) as loaded:
        yield loaded


def example(name: str) -> Object:
    values: Object = yaml.safe_load((FOLDER / "examples" / f"{name}.yaml").read_text())
    return values


def rendered(
    chart: Chart, values: Object | None = None, release: str = "mill", namespace: str = "ns"
) -> list[Object]:
    given = values or {}
    given = given | {"image": IMAGE | given.get("image", {})}
    files = chart.render(given, name=release, namespace=namespace)
    texts = (text for path, text in files.items() if path.endswith(".yaml"))
    return [made for text in texts for made in json.loads(as_json(text)) if made]


@cache
def as_json(text: str) -> str:
    """Return the YAML documents of the text, which most values leave as it is."""
    return json.dumps(list(yaml.load_all(text, yaml.CSafeLoader)))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [made for made in objects if made["kind"] in kinds]


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pods that the objects make, by the components' names."""
    made = [_pod(one["spec"]) for one in of_kind(objects, "Deployment", "StatefulSet")]
    made += of_kind(objects, "Pod")
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in made}


def _pod(workload: Object) -> Object:
    """With the claims that a StatefulSet's controller makes for it."""
    pod: Object = workload["template"]
    claims = [
        {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}}
        for claim in workload.get("volumeClaimTemplates", ())
        for name in (claim["metadata"]["name"],)
    ]
    spec = pod["spec"] | {"volumes": [*pod["spec"].get("volumes", ()), *claims]}
    return pod | {"spec": spec}


def check(objects: list[Object], *versions: str) -> None:
    """Validate each object strictly for these versions, and see that no two share a name."""
    for made in objects:
        if made["kind"] not in OTHERS:
            for version in versions:
                validate(json.dumps(made, sort_keys=True), version)
    names = [
        (made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"])
        for made in objects
    ]
    assert len(set(names)) == len(names)


@cache
def validate(made: str, version: str) -> None:
    """Validate an object that was valid before without looking again."""
    kubernetes_validate.validate(json.loads(made), version, strict=True)


# what is rendered is valid


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_valid_for_each_kubernetes(chart: Chart, path: Path) -> None:
    values = example(path.stem)
    assert lint(FOLDER, values)["errors"] == []
    check(rendered(chart, values), *VERSIONS)


def test_what_random_values_make_is_valid(chart: Chart) -> None:
    made = 0
    for seed in range(1000):
        values = Values(SCHEMA, seed).make()
        try:
            chart.validate_schema(values)
        except HelmError:
            continue  # two values that do not go together, which the schema refuses
        check(rendered(chart, values), VERSIONS[seed % len(VERSIONS)])
        made += 1
        if made == 200:
            return
    pytest.fail(f"only {made} of the values were allowed")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_api_server_takes_what_is_rendered(chart: Chart, path: Path, tmp_path: Path) -> None:
    objects = rendered(chart, example(path.stem), namespace="builds")
    with KubernetesServer(tmp_path) as server, connected(server.kubeconfig) as api:
        create(api, of_kind(objects, "ServiceAccount"), server)
        create(api, of_kind(objects, "ConfigMap", "Secret"), server)
        for component, pod in pods(objects).items():
            alone = {"kind": "Pod", "apiVersion": "v1", "spec": pod["spec"]}
            create(api, [{**alone, "metadata": {**pod["metadata"], "name": component}}], server)


def create(api: ApiClient, objects: list[Object], server: KubernetesServer) -> None:
    core: Any = CoreV1Api(api)
    plurals = {"ConfigMap": "config_map", "Pod": "pod", "Secret": "secret"}
    for made in objects:
        namespace = made["metadata"].get("namespace", server.namespace)
        if namespace != server.namespace:
            server.create_namespace(namespace)
        kind = plurals.get(made["kind"], "service_account")
        create_one = getattr(core, f"create_namespaced_{kind}")
        create_one(namespace, made, field_validation="Strict")


def test_two_releases_share_a_namespace(chart: Chart) -> None:
    values = example("everything")
    one, two = (rendered(chart, values, release) for release in ("one", "two"))
    check([*one, *two], VERSIONS[-1])
    selectors = [
        {
            json.dumps(made["spec"]["selector"], sort_keys=True)
            for made in of_kind(each, "Deployment", "StatefulSet")
        }
        for each in (one, two)
    ]
    assert selectors[0].isdisjoint(selectors[1])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_namespace_is_written_down_but_those_of_the_values(chart: Chart, path: Path) -> None:
    values = example(path.stem)
    named = {
        made["metadata"].get("namespace", "here") for made in rendered(chart, values, "r", "here")
    }
    assert named == {"here", values.get("builds", {}).get("namespace", "here")}


# what it means


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_services_pods_meet_the_level_restricted(chart: Chart, path: Path) -> None:
    for pod in pods(rendered(chart, example(path.stem))).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            if container["name"] == "engine":
                continue  # an option, and the one exception
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True


def test_the_role_is_what_imagemill_permissions_prints(chart: Chart) -> None:
    (role,) = of_kind(rendered(chart), "Role")
    granted = {
        (verb, resource, group)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }
    assert granted == {(each.verb, each.resource, each.group) for each in PERMISSIONS}


def test_only_the_kaniko_pool_has_a_token_for_the_cluster(chart: Chart) -> None:
    made = pods(rendered(chart, example("everything")))
    made.pop("doctor")
    with_token = [name for name, pod in made.items() if pod["spec"]["automountServiceAccountToken"]]
    assert with_token == ["kaniko"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_configs_are_launch_configs(chart: Chart, path: Path, tmp_path: Path) -> None:
    for made in of_kind(rendered(chart, example(path.stem)), "ConfigMap"):
        for name, text in made["data"].items():
            if name.endswith(".yaml"):
                (tmp_path / name).write_text(text)
                load(tmp_path / name)


def test_values_of_the_builder_are_put_into_the_config(chart: Chart, tmp_path: Path) -> None:
    def builder(values: Object) -> KanikoBuilder:
        maps = of_kind(rendered(chart, values), "ConfigMap")
        (made,) = (made for made in maps if "launch-config.yaml" in made["data"])
        (tmp_path / "c.yaml").write_text(made["data"]["launch-config.yaml"])
        found = load(tmp_path / "c.yaml").config.builder
        assert isinstance(found, KanikoBuilder)
        return found

    eks = builder(example("eks"))
    pod = eks.kaniko_config["spec"]["template"]["spec"]  # type: ignore[index, call-overload]
    assert pod == {"serviceAccountName": "mill-imagemill-build"}
    own = builder(example("own-registry"))
    assert own.build_context_store == "file:///contexts"
    assert own.context_volume_claim == "imagemill-contexts"
    assert builder(example("aks")).secret_name == "mill-imagemill-azure-storage"
    assert builder(example("wandb-chart")).secret_name == "registry-login"


def test_values_of_the_wandb_chart_are_read(chart: Chart) -> None:
    objects = rendered(chart, example("wandb-chart"))
    secrets = {made["metadata"]["name"]: made["stringData"] for made in of_kind(objects, "Secret")}
    assert secrets["mill-imagemill-sources"] == {
        "github.com": "user:token",
        "gitlab.example.com": "oauth2:other",
    }
    light = pods(objects)["light"]
    assert light["metadata"]["labels"]["team"] == "research"
    assert light["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    (container,) = light["spec"]["containers"]
    assert not container["image"].startswith("wandb/")
    assert {"name": "HTTP_PROXY_NOTE", "value": "none"} in container["env"]
    assert secrets["mill-imagemill-environment"] == {"GIT_TOKEN_NOTE": "hidden"}


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_budget_needs_two_replicas(chart: Chart, replicas: int) -> None:
    values = {"pools": {name: {"replicas": replicas} for name in ("light", "kaniko")}}
    assert len(of_kind(rendered(chart, values), "PodDisruptionBudget")) == (
        2 if replicas > 1 else 0
    )


def test_what_cannot_work_is_refused(chart: Chart) -> None:
    wrong: list[Object] = [
        {"image": {"repository": ""}},
        {"pools": {"docker": {"enabled": True}}},
        {"redis": {"enabled": False}},
        {"agentConfigs": {}},
        {"keda": {"enabled": True}, "broker": {"existingSecret": "queues"}},
    ]
    for values in wrong:
        with pytest.raises(HelmError):
            rendered(chart, values)


def test_all_workers_of_a_release_have_one_key_for_messages(chart: Chart, tmp_path: Path) -> None:
    objects = rendered(chart, {"pools": {"docker": {"enabled": True, "host": "tcp://e:1"}}})
    secrets = {made["metadata"]["name"]: made["stringData"] for made in of_kind(objects, "Secret")}
    (tmp_path / "keys").write_text(secrets["mill-imagemill-signing"]["keys"])
    assert Keys.read(tmp_path / "keys").keys
    for pool in ("light", "kaniko", "docker"):
        spec = pods(objects)[pool]["spec"]
        mounted = {volume["name"]: volume for volume in spec["volumes"]}
        assert mounted["signing"]["secret"]["secretName"] == "mill-imagemill-signing"
        where = {"name": "IMAGEMILL_SIGNING_KEYS", "value": "/etc/imagemill/signing/keys"}
        assert where in spec["containers"][0]["env"]


def test_flower_is_never_open(chart: Chart) -> None:
    objects = rendered(chart, {"flower": {"enabled": True}})
    (container,) = pods(objects)["flower"]["spec"]["containers"]
    (source,) = container["envFrom"]
    assert source == {"secretRef": {"name": "mill-imagemill-flower"}}
    secrets = {made["metadata"]["name"]: made["stringData"] for made in of_kind(objects, "Secret")}
    user, _, password = secrets["mill-imagemill-flower"]["FLOWER_BASIC_AUTH"].partition(":")
    assert user
    assert len(password) >= 24
    workers = [pods(objects)[pool]["spec"]["containers"][0]["env"] for pool in ("light", "kaniko")]
    answers = {"name": "IMAGEMILL_REMOTE_CONTROL", "value": "questions"}
    assert all(answers in environment for environment in workers)
    assert answers not in pods(rendered(chart, {}))["light"]["spec"]["containers"][0]["env"]


@pytest.mark.parametrize(
    ("pool", "kind"),
    [("light", "StatefulSet"), ("kaniko", "StatefulSet"), ("docker", "Deployment")],
)
def test_a_worker_that_is_made_anew_has_its_name_again(chart: Chart, pool: str, kind: str) -> None:
    objects = rendered(chart, example("everything"))
    made = [each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(pool)]
    assert len(made) == 1
    scaled = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "ScaledObject")}
    name = f"mill-imagemill-{pool}"
    assert scaled[name]["scaleTargetRef"] == {"kind": kind, "name": name}


RABBIT = {"broker": "amqp"}
REDIS = {"redisAddress": "redis.example.com:6380", "redisTLS": True}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"address": "mill-imagemill-redis:6379"}),
        (
            {"broker": {"existingSecret": "queues"}, "keda": REDIS},
            {"address": "redis.example.com:6380", "enableTLS": "true"},
        ),
        ({"broker": {"existingSecret": "queues"}, "keda": RABBIT}, {"queueName": "imagemill"}),
        (
            {"broker": {"url": "rediss://:word@r:6380/0"}, "redis": {"enabled": False}},
            {"address": "r:6380", "enableTLS": "true"},
        ),
        (
            {
                "broker": {"url": "amqp://r//", "backendUrl": "redis://r:6379"},
                "redis": {"enabled": False},
            },
            {"queueName": "imagemill"},
        ),
    ],
)
def test_pools_are_scaled_by_whatever_broker_there_is(
    chart: Chart, values: Object, expected: Object
) -> None:
    keda = {"enabled": True} | values.get("keda", {})
    objects = rendered(chart, values | {"keda": keda})
    (light,) = [
        each
        for each in of_kind(objects, "ScaledObject")
        if each["metadata"]["name"].endswith("light")
    ]
    told = [trigger["metadata"] for trigger in light["spec"]["triggers"]]
    assert expected.items() <= told[0].items()
    queues = {each.get("queueName") or each["listName"] for each in told}
    # Builds wait in the one, steps of builds that have begun in the other.
    assert {"imagemill", "imagemill.steps"} <= queues
    (login,) = of_kind(objects, "TriggerAuthentication")
    (from_secret,) = login["spec"]["secretTargetRef"]
    for made in of_kind(objects, "Secret"):
        if made["metadata"]["name"] == from_secret["name"]:
            assert made["stringData"][from_secret["key"]]


def test_beat_and_flower_trust_the_authority_of_their_broker(chart: Chart) -> None:
    made = pods(rendered(chart, example("everything")))
    for name in ("beat", "flower", "light", "kaniko", "docker"):
        container = made[name]["spec"]["containers"][0]
        trusted = [each for each in container["env"] if each["name"] == "SSL_CERT_FILE"]
        assert trusted == [{"name": "SSL_CERT_FILE", "value": "/etc/imagemill/authorities/ca.crt"}]
        assert "authorities" in {mount["name"] for mount in container["volumeMounts"]}


def test_its_redis_takes_a_secret_that_is_there(chart: Chart) -> None:
    objects = rendered(chart, {"redis": {"existingSecret": "mine"}})
    assert "mill-imagemill-broker" not in {
        each["metadata"]["name"] for each in of_kind(objects, "Secret")
    }
    made = pods(objects)
    (config, *_) = made["redis"]["spec"]["volumes"]
    assert config["secret"]["secretName"] == "mine"
    broker = made["light"]["spec"]["containers"][0]["env"][0]
    assert broker["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "broker"}


def test_metadata_services_are_out_of_reach_on_both_kinds_of_networks(chart: Chart) -> None:
    objects = rendered(chart, {"networkPolicy": {"enabled": True}})
    (policy,) = [
        each
        for each in of_kind(objects, "NetworkPolicy")
        if each["metadata"]["name"].endswith("builds")
    ]
    blocks = [to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule.get("to", ())]
    assert blocks == [
        {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]},
        {"cidr": "::/0", "except": ["fd00:ec2::254/128"]},
    ]


# its documentation


def test_the_readme_is_made_from_the_values() -> None:
    assert (FOLDER / "README.md").read_text() == chart_readme.readme()


def test_each_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    assert set(values) == set(SCHEMA["properties"]) - {"global"}


def test_workload_identity_reaches_the_pods_and_accounts(chart: Chart) -> None:
    for name, key in (
        ("eks", "eks.amazonaws.com/role-arn"),
        ("gke", "iam.gke.io/gcp-service-account"),
        ("aks", "azure.workload.identity/client-id"),
    ):
        accounts = of_kind(rendered(chart, example(name)), "ServiceAccount")
        assert [key in made["metadata"]["annotations"] for made in accounts] == [True, True]


@pytest.mark.parametrize("text", [False, True])
def test_pools_grow_with_the_queues_of_tenants_too(chart: Chart, text: bool) -> None:
    config = {"builder": {"type": "kaniko"}, "policy": {"tenants": {"team-a": {}}}}
    values = {"agentConfig": json.dumps(config) if text else config, "keda": {"enabled": True}}
    found = {
        trigger["metadata"]["listName"]
        for made in of_kind(rendered(chart, values), "ScaledObject")
        for trigger in made["spec"]["triggers"]
    }
    assert found >= {
        "imagemill",
        "imagemill.kaniko",
        "imagemill.begin.tenant.team-a",
        "imagemill.kaniko.tenant.team-a",
    }
