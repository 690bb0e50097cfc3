"""What has to be seen to for a config besides policies, since no cloud's policy can say it."""

from collections.abc import Collection, Iterator, Sequence

from imagemill.clouds.hosts import ECR
from imagemill.config import KanikoBuilder, LaunchConfig
from imagemill.permissions.needs import (
    OPTIONAL,
    Need,
    Party,
    Use,
    is_made,
    pushing_party,
    takes_push_role,
)
from imagemill.permissions.policy import words

_OF_IMAGES = (Use.FIND_IMAGES, Use.PUSH_IMAGES, Use.CACHE_LAYERS)


def notes(config: LaunchConfig, needs: Sequence[Need], granted: Collection[Need]) -> Iterator[str]:
    """Yield a sentence for each; `granted` are the needs that policies are about."""
    yield from _by_hand([need for need in needs if need not in granted])
    store = config.builder.build_context_store or ""
    if store.startswith("s3://") and config.environment.type != "aws":
        yield f"{store}: where this is another store than Amazon's, grant the same there, in its own way"
    if not config.builder.destination:
        yield "The config names no destination, so nothing is said of a registry: set builder.destination"
    if isinstance(config.builder, KanikoBuilder) and config.builder.is_signed:
        yield from _to_sign(store)
    if takes_push_role(config):
        yield (
            "The push role's trust policy has to let the worker's identity do sts:AssumeRole. Grant it"
            " ecr:BatchGetImage and ecr:GetDownloadUrlForLayer, too, on base images in the same registry"
        )
    elif isinstance(config.builder, KanikoBuilder) and pushing_party(config) is Party.WORKER:
        yield (
            "Build pods push with short-lived credentials of the worker, since the config gives them none of their own"
            " (serviceAccountName in kaniko-config, or secret-name)"
        )
    for need in needs:
        if (
            need.use is Use.CACHE_LAYERS
            and need.repository
            and ECR.fullmatch(need.repository.registry)
            and not is_made(need.where, config.builder)
        ):
            yield f"ECR makes no repository for cached layers by itself: make {need.where} once"


def _to_sign(store: str) -> Iterator[str]:
    """Say what signing URLs of contexts needs beyond reading them."""
    if store.startswith("gs://"):
        yield (
            f"{store}: workers without a key at hand (Workload Identity, a machine's account) sign URLs by"
            " roles/iam.serviceAccountTokenCreator, granted to their service account on itself; else"
            " build pods read contexts with an identity of their own (builder.context-access: identity)"
        )
    if store.startswith("https://"):
        yield (
            f"{store}: workers sign URLs by the role Storage Blob Delegator on the storage account,"
            " since the key is the account's"
        )


def _by_hand(needs: Sequence[Need]) -> Iterator[str]:
    pushes = {
        (need.party, need.where)
        for need in needs
        if need.use in (Use.PUSH_IMAGES, Use.CACHE_LAYERS)
    }
    for party, repository in dict.fromkeys(
        (need.party, need.where) for need in needs if need.use in _OF_IMAGES
    ):
        may = "pull and push" if (party, repository) in pushes else "pull"
        graft = Need(party, Use.GRAFT, repository)
        more = f", and push {OPTIONAL[Use.GRAFT]}" if may == "pull" and graft in needs else ""
        yield f"{repository}: give the {words(party)} credentials that may {may}{more}, in docker's config.json"
    for need in needs:
        if need.where.startswith("file://"):
            may = "read and write" if need.use is Use.KEEP_CONTEXTS else "read"
            yield f"{need.where}: let the user that the {words(need.party)} runs as {may} this folder"
        elif need.use is Use.READ_CONTEXTS:
            yield (
                f"{need.where}: Kaniko reads Blob Storage with the account's key alone, whoever it is: give the build"
                " pod AZURE_STORAGE_ACCESS_KEY from a Secret (env in kaniko-config)"
            )
