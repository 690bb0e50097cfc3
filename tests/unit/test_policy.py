"""What a policy allows, and in which words it says no."""

from typing import Any

import pytest

from imagemill.config.policy import Policy, allows
from imagemill.errors import PermissionDenied
from imagemill.messages import BuildRequest
from imagemill.policy import Permit
from imagemill.reference import ImageReference


def permit(tenant: str | None = None, **rules: Any) -> Permit:
    return Permit.of([Policy.model_validate(rules)], tenant)


def limited(rule: str, *patterns: str) -> Permit:
    rules: dict[str, Any] = {rule: patterns}
    return permit(**rules)


def asked(**fields: Any) -> BuildRequest:
    return BuildRequest.parse({"source": "/src", **fields})


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a.io/x", "a.io/x", True),
        ("a.io/x", "a.io/xy", False),
        ("a.io/x", "aXio/x", False),
        ("a.io/*", "a.io/x", True),
        ("a.io/*", "a.io/x/y", False),
        ("a.io/**", "a.io/x/y", True),
        ("a.io/**", "b.io/a.io/x", False),
        ("v*", "v1", True),
        ("v*", "v1\n", True),
        ("*", "", True),
        ("[ab]", "a", False),
        ("(a|b)+", "(a|b)+", True),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:
    assert allows((pattern,), text) is fits


def test_no_list_allows_all_and_an_empty_one_nothing() -> None:
    assert allows(None, "x")
    assert not allows((), "x")


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("tags", {"tags": ["v1", "latest"]}),
        ("secrets", {"secrets": ["npm", "x"]}),
        ("ssh", {"ssh": ["default"]}),
        ("build_args", {"build_args": {"A": "1"}}),
        ("configs", {"config": "other"}),
        ("platforms", {"platform": "linux/arm64"}),
    ],
)
def test_what_a_request_asks_for(rule: str, fields: dict[str, Any]) -> None:
    named = rule.replace("_", "-")
    with pytest.raises(
        PermissionDenied, match=rf"The rule policy\.{named} of the launch config does not"
    ):
        limited(rule, "v*", "npm").check_request(asked(**fields))
    limited(rule, "**").check_request(asked(**fields))
    limited(rule).check_request(asked())
    permit().check_request(asked(**fields))


def test_time() -> None:
    with pytest.raises(PermissionDenied, match=r"policy.max-seconds .* does not allow 61 seconds"):
        permit(max_seconds="60").check_request(asked(timeout=61))
    permit(max_seconds="60").check_request(asked(timeout=60))


@pytest.mark.parametrize("text", ["docker.io/team/x", "team/x"])
def test_a_destination_is_named_in_full_or_as_docker_does(text: str) -> None:
    for pattern in ("docker.io/team/*", "team/*"):
        permit(destinations=pattern).check_destination(ImageReference.parse(text))
    with pytest.raises(PermissionDenied, match="it allows other/x; have the operator add to it"):
        permit(destinations="other/x").check_destination(ImageReference.parse(text))


def test_a_short_name_is_of_no_other_registry() -> None:
    with pytest.raises(PermissionDenied):
        permit(destinations="team/*").check_destination(ImageReference.parse("a.io/team/x"))


def test_sources() -> None:
    mine = permit(sources=["git+https://github.com/acme/*", "/src/**"])
    for place in ("git+https://github.com/acme/x.git", "git+https://github.com/acme/x", "/src/a"):
        mine.check_source(place)
    for place in (
        "git+https://github.com/other/x",
        "/srcs/a",
        "git+https://evil/github.com/acme/x",
    ):
        with pytest.raises(PermissionDenied, match=r"policy\.sources"):
            mine.check_source(place)


def test_base_images() -> None:
    mine = permit(base_images=["python", "python:3.*", "a.io/base/**"])
    mine.check_dockerfile("FROM python:3.12\nFROM a.io/base/x:1\nFROM scratch", {})
    for line in ("FROM ubuntu", "FROM $X", "# syntax=evil/x\nFROM python", "FROM evil/python"):
        with pytest.raises(PermissionDenied, match=r"policy\.base-images"):
            mine.check_dockerfile(line, {})
    permit().check_dockerfile("FROM anything", {})


def test_beside_a_digest_no_rule_goes_by_the_tag() -> None:
    line = f"FROM python:3.12@sha256:{'0' * 64}"
    for rules in (["python"], ["python@sha256:*"], ["docker.io/library/**"]):
        permit(base_images=rules).check_dockerfile(line, {})
    for rules in (["python:3.*"], ["python:*"]):
        with pytest.raises(PermissionDenied, match=r"policy\.base-images"):
            permit(base_images=rules).check_dockerfile(line, {})


def test_a_tenant_has_its_own_rules_beside_those_of_all() -> None:
    rules = {
        "tags": ["v*", "latest"],
        "max_seconds": 100,
        "tenants": {"team-a": {"tags": ["v*"], "max_seconds": 200}, "team-b": {}},
    }
    permit("team-b", **rules).check_request(asked(tags=["latest"]))
    assert permit("team-a", **rules).least("max_seconds") == 100
    with pytest.raises(PermissionDenied, match=r"The rule policy\.tenants\.team-a\.tags of"):
        permit("team-a", **rules).check_request(asked(tags=["latest"]))


@pytest.mark.parametrize("tenant", [None, "team-c"])
def test_where_there_are_tenants_nobody_else_is_served(tenant: str | None) -> None:
    with pytest.raises(PermissionDenied, match="is not served here: the policy has tenants"):
        permit(tenant, tenants={"team-a": {}})


def test_two_policies_hold_together() -> None:
    policies = [Policy(tags=("v*",)), None, Policy(tags=("*1",))]
    both = Permit.of(policies, None)
    both.check_request(asked(tags=["v1"]))
    for tag in ("v2", "x1"):
        with pytest.raises(PermissionDenied):
            both.check_request(asked(tags=[tag]))


def test_caches_are_those_of_repositories_that_one_may_push_to() -> None:
    allowed = limited("destinations", "a.io/team-a/**")
    allowed.check_request(asked(cache_from=["a.io/team-a/x:1"], cache_to="a.io/team-a/cache"))
    for fields in ({"cache_from": ["a.io/team-b/x:1"]}, {"cache_to": "a.io/team-b/x"}):
        with pytest.raises(
            PermissionDenied, match=r"policy\.destinations .* not allow a\.io/team-b"
        ):
            allowed.check_request(asked(**fields))
