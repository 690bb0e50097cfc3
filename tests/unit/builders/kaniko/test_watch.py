"""What the builder makes of watches, logs and refusals, without a cluster."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import BaseHTTPResponse

from imagemill.builders.kaniko.api import EVENTS, JOBS, PODS, SERVICE_ACCOUNT, connect, shared
from imagemill.builders.kaniko.api_errors import ApiRequest, refusal
from imagemill.builders.kaniko.logs import LogPosition
from imagemill.builders.kaniko.watch import Feed, lines
from imagemill.errors import OperatorError, PermissionDenied, ServiceUnreachable, UserError

Object = dict[str, Any]
NAME = "imagemill-build-0123456789abcdef0123"


def job(uid: str = "job-1", name: str = NAME) -> Object:
    return {"metadata": {"name": name, "uid": uid, "managedFields": [{"manager": "somebody"}]}}


def pod(uid: str, owner: str = "job-1", created: str = "2026-01-01T00:00:00Z") -> Object:
    owners = [{"kind": "Job", "name": NAME, "uid": owner}]
    return {
        "metadata": {
            "name": f"{NAME}-{uid}",
            "uid": uid,
            "ownerReferences": owners,
            "creationTimestamp": created,
        }
    }


def event(uid: str, about: str, kind: str = "Pod", name: str = f"{NAME}-abcde") -> Object:
    return {
        "metadata": {"uid": uid},
        "involvedObject": {"kind": kind, "name": name, "uid": about},
        "message": uid,
    }


# feeds


def test_a_feed_tells_of_its_own_job_only() -> None:
    feed = Feed(NAME)
    assert feed.concerns(JOBS, job())
    assert not feed.concerns(JOBS, job(name=f"{NAME}-2"))
    assert feed.concerns(PODS, pod("a"))
    assert feed.concerns(EVENTS, event("e", "a"))
    assert feed.concerns(EVENTS, event("e", "job-1", "Job", NAME))
    assert not feed.concerns(EVENTS, event("e", "a", "Pod", "another-pod-abcde"))


def test_the_pod_of_a_job_with_the_longest_name_is_known_by_what_is_left_of_it() -> None:
    name = "n" * 63
    assert Feed(name).concerns(EVENTS, event("e", "a", "Pod", f"{'n' * 58}abcde"))


def test_what_is_seen_belongs_to_one_job_of_the_name() -> None:
    feed = Feed(NAME)
    feed.put(JOBS, job("old"), gone=True)
    feed.put(PODS, pod("a", "old"))
    feed.put(JOBS, job("new"))
    feed.put(PODS, pod("c", "new", "2026-01-01T00:00:02Z"))
    feed.put(PODS, pod("b", "new", "2026-01-01T00:00:01Z"))
    feed.put(EVENTS, event("e1", "a"))
    feed.put(EVENTS, event("e2", "b"))
    sight = feed.see("new")
    assert sight.job is not None
    assert [each["metadata"]["uid"] for each in sight.pods] == ["b", "c"]
    assert [each["message"] for each in sight.events] == ["e2"]
    assert feed.see("old").gone


def test_the_last_state_of_a_pod_that_is_gone_is_kept() -> None:
    feed = Feed(NAME)
    feed.put(JOBS, job())
    feed.put(PODS, pod("a") | {"status": {"phase": "Failed"}}, gone=True)
    assert feed.see("job-1").pods[0]["status"] == {"phase": "Failed"}


@pytest.mark.parametrize(("behind", "seen"), [("9", "10"), ("11", "11"), ("opaque", "opaque")])
def test_a_watch_that_is_behind_takes_nothing_back(behind: str, seen: str) -> None:
    feed = Feed(NAME)
    for resource, item in ((JOBS, job()), (PODS, pod("a"))):
        for version in ("10", behind):
            feed.put(resource, item | {"metadata": item["metadata"] | {"resourceVersion": version}})
    sight = feed.see("job-1")
    assert sight.job is not None
    assert [each["metadata"]["resourceVersion"] for each in (sight.job, *sight.pods)] == [
        seen,
        seen,
    ]


def test_who_changed_which_field_is_not_kept() -> None:
    feed = Feed(NAME)
    feed.put(JOBS, job())
    kept = feed.see("job-1").job
    assert kept is not None
    assert "managedFields" not in kept["metadata"]


def test_events_are_bounded_and_the_latest_is_last() -> None:
    feed = Feed(NAME)
    for number in range(200):
        feed.put(EVENTS, event(str(number), "job-1"))
    feed.put(EVENTS, event("150", "job-1"))
    seen = [each["message"] for each in feed.see("job-1").events]
    assert len(seen) == 50
    assert seen[-2:] == ["199", "150"]


def test_a_job_that_a_new_list_lacks_is_to_be_looked_for() -> None:
    feed = Feed(NAME)
    feed.put(JOBS, job())
    feed.listed(JOBS, [job()])
    assert not feed.take_stale()
    feed.listed(JOBS, [])
    assert feed.take_stale()
    assert not feed.take_stale()


def test_news_end_a_wait_once() -> None:
    feed = Feed(NAME)
    feed.put(JOBS, job())
    assert feed.wait(0)
    assert not feed.wait(0)
    feed.wake()
    assert feed.wait(0)


# places in logs


def stamped(moments: list[int]) -> list[bytes]:
    """Lines with times that many nanoseconds after a full second; equal moments make equal
    times.
    """
    lines = []
    for number, moment in enumerate(moments):
        second, nanosecond = divmod(moment, 10**9)
        lines.append(b"2026-01-01T00:00:%02d.%09dZ line %d" % (second, nanosecond, number))
    return lines


def since_of(place: LogPosition, lines: list[bytes]) -> list[bytes]:
    """What a kubelet sends from there on: all lines that are not older."""
    return [line for line in lines if line[:19].decode() + "Z" >= place.since]


@given(
    moments=st.lists(
        st.integers(0, 5 * 10**9) | st.sampled_from([0, 10**9, 10**9 + 1]), max_size=40
    ).map(sorted),
    breaks=st.lists(st.integers(0, 40), max_size=5),
)
def test_a_log_that_is_read_in_pieces_has_each_line_once(
    moments: list[int], breaks: list[int]
) -> None:
    lines, place, read = stamped(moments), LogPosition(), []
    for end in [*sorted(breaks), len(lines)]:
        place.resume()
        for line in since_of(place, lines[:end]):
            if (text := place.text(line)) is not None:
                read.append(text)
    assert read == [line.partition(b" ")[2].decode() for line in lines]


def test_equal_lines_with_equal_times_are_all_kept() -> None:
    place, line = LogPosition(), b"2026-01-01T00:00:00.5Z same"
    place.resume()
    assert [place.text(line), place.text(line)] == ["same", "same"]
    place.resume()
    assert [place.text(line), place.text(line), place.text(line)] == [None, None, "same"]


def test_lines_of_two_streams_that_are_a_little_out_of_order_are_all_kept() -> None:
    early, late = b"2026-01-01T00:00:00.999999999Z early", b"2026-01-01T00:00:01.000000001Z late"
    place = LogPosition()
    place.resume()
    assert place.text(late) == "late"
    place.resume()
    assert place.since == "2026-01-01T00:00:00Z"
    assert [place.text(late), place.text(early)] == [None, "early"]


def test_a_line_is_shown_without_its_time_and_broken_text_does_no_harm() -> None:
    place = LogPosition()
    assert place.text(b"2026-01-01T00:00:00.5+02:00 caf\xe9 \r") == "caf\ufffd "
    assert place.since == "2025-12-31T21:59:59Z"
    assert place.text(b"no time") == "no time"


def test_of_a_line_without_an_end_only_the_beginning_is_kept() -> None:
    chunks = [b"short\n", *[b"x" * 100] * 50, b"\nafter\n"]
    stream = cast("BaseHTTPResponse", SimpleNamespace(stream=lambda: iter(chunks)))
    short, long, after = lines(stream, longest=150)
    assert (short, after) == (b"short", b"after")
    assert long[:150] == b"x" * 150
    assert len(long) <= 250


# connections


KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://elsewhere.example.com:6443"}}]
users: [{name: u, user: {token: t0ken}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: team}}]
current-context: x
"""


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What a pod finds of its service account."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("t0ken")
    (folder / "namespace").write_text("builds\n")
    authority = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
    (folder / "ca.crt").write_text(authority)
    return folder


def test_in_a_cluster_its_service_account_comes_before_a_kubeconfig(
    tmp_path: Path, account: Path
) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    environment = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    cluster = connect(environment | inside, account)
    assert (cluster.host, cluster.namespace) == ("10.0.0.1:443", "builds")
    without_token = connect(environment | inside, tmp_path / "none")
    assert (without_token.host, without_token.namespace) == ("elsewhere.example.com:6443", "team")
    outside = connect(environment, account)
    assert outside.host == "elsewhere.example.com:6443"


def test_the_kubeconfig_of_the_home_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text(KUBECONFIG.replace(", namespace: team", ""))
    assert connect({"HOME": str(tmp_path)}, tmp_path / "none").namespace == "default"


def test_one_cluster_serves_all_builds_until_the_kubeconfig_changes(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    environment = {"KUBECONFIG": str(path)}
    first = connect(environment, tmp_path)
    assert connect(environment, tmp_path) is first
    path.write_text(KUBECONFIG.replace("team", "another"))
    assert connect(environment, tmp_path).namespace == "another"


def test_what_is_shared_is_made_once_whoever_asks_at_the_same_time() -> None:
    made: list[int] = []

    @shared
    def make(number: int) -> list[int]:
        made.append(number)
        threading.Event().wait(0.1)  # as long as reading a kubeconfig may take
        return made

    with ThreadPoolExecutor(4) as pool:
        assert [one is made for one in pool.map(make, [7] * 4)] == [True] * 4
    assert made == [7]


def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(
        KUBECONFIG.replace("current-context: x", "current-context: y")
    )
    with pytest.raises(OperatorError) as caught:
        connect({"KUBECONFIG": str(tmp_path / "kubeconfig")}, tmp_path)
    assert str(tmp_path / "kubeconfig") in caught.value.message


def test_pods_find_their_service_account_where_kubernetes_puts_it() -> None:
    assert str(SERVICE_ACCOUNT) == "/var/run/secrets/kubernetes.io/serviceaccount"


# refusals

QUESTION = ApiRequest("k8s.example.com", "create", "jobs.batch", "builds", "the-job")


def test_an_answer_of_a_proxy_is_a_service_unreachable() -> None:
    error = refusal(502, b"<html>Bad Gateway</html>", QUESTION)
    assert type(error) is ServiceUnreachable
    assert "HTTP 502" in error.message


def test_a_cluster_wide_refusal_names_what_was_refused() -> None:
    body = (
        b'{"kind":"Status","reason":"Forbidden","message":"jobs.batch is forbidden: User'
        b' \\"system:serviceaccount:a:b\\" cannot create resource \\"jobs\\" in API group \\"batch\\" in the'
        b' namespace \\"builds\\""}'
    )
    error = refusal(403, body, QUESTION)
    assert isinstance(error, PermissionDenied)
    assert (error.action, error.resource) == ("create", "jobs.batch")
    assert "system:serviceaccount:a:b" in error.hint


def test_each_invalid_field_is_named() -> None:
    body = (
        b'{"kind":"Status","reason":"Invalid","message":"x","details":{"causes":['
        b'{"field":"spec.a","message":"Required value"},{"field":"spec.b","message":"Invalid value: 1"}]}}'
    )
    error = refusal(422, body, QUESTION)
    assert type(error) is UserError
    assert "spec.a: Required value; spec.b: Invalid value: 1" in error.message
