"""Amazon Web Services: IAM policies for S3 and ECR.

Actions: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html and
…/list_amazonelasticcontainerregistry.html.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from imagemill.clouds.ecr import LOGIN, PULL, PUSH, repository_arn
from imagemill.clouds.hosts import ECR_PUBLIC, partition_of
from imagemill.config import LaunchConfig
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import Block, Grant, PolicyDocument, identifier, least, optional

_REPOSITORY = {
    # Not a manifest HEAD, which would need ecr:BatchGetImage.
    Use.FIND_IMAGES: ("ecr:DescribeImages",),
    Use.MAKE_REPOSITORY: ("ecr:DescribeRepositories", "ecr:CreateRepository"),
    Use.PUSH_IMAGES: PUSH,
    # The manifest that gets another tag has to be read for that.
    Use.ADD_TAGS: ("ecr:BatchGetImage", "ecr:PutImage"),
    Use.GRAFT: (*PULL, *PUSH),
    Use.CACHE_LAYERS: (*PULL, *PUSH),
}
_BY_LOGIN = (Use.PUSH_IMAGES, Use.GRAFT, Use.CACHE_LAYERS)
"""What is done by the registry's own API, with a token; the rest is asked of ECR's."""
_PUBLIC_PUSH = tuple(action.replace("ecr:", "ecr-public:") for action in PUSH)
_PUBLIC_REPOSITORY = {
    Use.MAKE_REPOSITORY: ("ecr-public:CreateRepository",),
    Use.PUSH_IMAGES: _PUBLIC_PUSH,
    Use.ADD_TAGS: ("ecr-public:PutImage",),
    Use.GRAFT: _PUBLIC_PUSH,
    Use.CACHE_LAYERS: _PUBLIC_PUSH,
}
_PUBLIC_LOGIN = ("ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken")
"""https://docs.aws.amazon.com/AmazonECR/latest/public/public-repository-policies.html."""
_BUCKET = {
    # Without it S3 answers 403 instead of 404 for an object that is not there. It is not narrowed
    # to a prefix, since reading an object has none.
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    Use.KEEP_CONTEXTS: ("s3:ListBucket",),
}
_OBJECTS = {
    Use.KEEP_CONTEXTS: ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
    Use.READ_CONTEXTS: ("s3:GetObject",),
}


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """Return what has to be granted on S3 buckets and ECR repositories."""
    return tuple(
        grant for need in needs for grant in _grants(need, config.environment.region or "")
    )


def _grants(need: Need, region: str) -> Iterator[Grant]:
    if need.where.startswith("s3://"):
        parts = urlsplit(need.where)
        bucket = f"arn:{partition_of(region).name}:s3:::{parts.netloc}"
        if need.use in _BUCKET:
            yield Grant(need, _BUCKET[need.use], bucket)
        yield Grant(need, _OBJECTS[need.use], f"{bucket}{parts.path}/*")
    elif need.use is Use.ASSUME_ROLE:
        yield Grant(need, ("sts:AssumeRole",), need.where)
    elif need.repository and (repository := repository_arn(need.repository)):
        if need.use in _BY_LOGIN:
            yield Grant(need, (LOGIN,), "*")
        yield Grant(need, _REPOSITORY[need.use], repository)
    elif need.repository and ECR_PUBLIC.fullmatch(need.repository.registry):
        if need.use in _BY_LOGIN:
            yield Grant(need, _PUBLIC_LOGIN, "*")
        # Its alias says nothing of the account. Anybody may read.
        name = need.repository.path.partition("/")[2]
        if actions := _PUBLIC_REPOSITORY.get(need.use):
            yield Grant(need, actions, f"arn:aws:ecr-public::*:repository/{name}")


def policy(party: Party, grants: Sequence[Grant]) -> PolicyDocument:
    """Return an IAM policy with a statement for each use, which its Sid names, and a policy more
    for each optional use.
    """
    needed = _document(least(grants))
    more = {only: _document(own) for only, own in optional(grants).items()}
    blocks = [Block("IAM policy", json.dumps(needed, indent=2))] if needed["Statement"] else []
    blocks += [
        Block(f"IAM policy, only {only}", json.dumps(document, indent=2))
        for only, document in more.items()
    ]
    return PolicyDocument("aws", party, tuple(blocks), {"policy": needed, "optional": more})


def _document(grants: Sequence[Grant]) -> dict[str, Any]:
    statements = [
        _statement(sid, grant.actions, grant.resource) for sid, grant in _with_sids(grants)
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _with_sids(grants: Sequence[Grant]) -> Iterator[tuple[str, Grant]]:
    """Yield the grants with names for their statements: letters and digits, each once in a policy."""
    seen: set[str] = set()
    for grant in grants:
        kind = (
            "Login"
            if grant.actions == (LOGIN,)
            else "Bucket"
            if "s3:ListBucket" in grant.actions
            else ""
        )
        if kind == "Login" and "Login" in seen:
            continue
        sid = kind if kind == "Login" else identifier(grant.use) + kind
        seen.add(sid)
        yield sid, grant


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """Return a statement that grants these actions alone."""
    return json.dumps(_statement(None, actions, grant.resource))


def _statement(sid: str | None, actions: Sequence[str], resource: str) -> dict[str, Any]:
    name = {"Sid": sid} if sid else {}
    action = list(actions) if len(actions) > 1 else actions[0]
    return {**name, "Effect": "Allow", "Action": action, "Resource": resource}
