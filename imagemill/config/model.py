"""The launch config as a typed model: every key, its default and its constraints, in this one
place.

The keys are those of the W&B Launch agent's config file,
https://docs.wandb.ai/guides/launch/setup-agent-advanced. The model travels in the build's message,
so it is frozen, goes through JSON unchanged and holds no credentials.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    model_validator,
)

from imagemill.clouds.hosts import AZURE_BLOB, ECR_PUBLIC, ecr_host
from imagemill.config.faults import Fault, fault_error, mismatch
from imagemill.config.kaniko_job import executor_of, job_faults
from imagemill.config.policy import Policy
from imagemill.config.section import Section as Section
from imagemill.config.section import whole_number
from imagemill.errors import UserError
from imagemill.grammar import SECRET_ID
from imagemill.reference import DOCKER_HUB, ImageReference

_WITHIN = r"(/[^?#\x00-\x1f]*)?"
_STORES = re.compile(
    rf"s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]{_WITHIN}"
    rf"|gs://[a-z0-9][a-z0-9._-]{{1,220}}[a-z0-9]{_WITHIN}"
    rf"|https://{AZURE_BLOB.pattern}/[a-z0-9](-?[a-z0-9]){{2,62}}{_WITHIN}"
    r"|file:///[^/?#\x00-\x1f][^?#\x00-\x1f]*",
    re.ASCII,
)
_STORE_FORMS = "s3://BUCKET/PATH, gs://BUCKET/PATH, https://ACCOUNT.blob.core.windows.net/CONTAINER or file:///PATH"
_OF_DOMAIN = re.compile(
    r"(?:https?://)?((?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)/[a-z0-9.-]+\.[a-z]+):([a-z][^:@]*/.*)"
)
"""https://cloud.google.com/artifact-registry/docs/docker/names#domain."""
_REPOSITORY = "an image repository without a tag, REGISTRY/REPOSITORY"
_DESTINATION = "the image repository to push to, REGISTRY/REPOSITORY; the tag is the source hash"


def _text(pattern: str, expected: str) -> AfterValidator:
    """Text that matches the pattern; `expected` says in words what that is."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise mismatch(value, expected)
        return value

    return AfterValidator(check)


def _reference(parse: Callable[[str], ImageReference], expected: str) -> AfterValidator:
    """Text that `parse` takes, in full."""

    def check(value: str) -> str:
        try:
            reference = parse(value)
        except UserError as error:
            if set("?=") & set(value):  # parts of a signed URL, which the message would repeat
                raise mismatch(value, expected, error.hint) from None
            raise fault_error(
                Fault((), f"{error.message}, expected {expected}", error.hint)
            ) from None
        return str(reference)

    return AfterValidator(check)


def _context_store(uri: str) -> str:
    """Return the URI without a slash at its end."""
    if not _STORES.fullmatch(uri) or ".." in uri.split("/"):
        raise mismatch(uri, _STORE_FORMS)
    return uri.rstrip("/")


def _destination(text: str) -> ImageReference:
    """Refuse also what parses, but names no repository that could ever be pushed to."""
    if of_domain := _OF_DOMAIN.fullmatch(text):
        raise UserError(
            f"{text!r} has a project of a domain, which an image's name has with '/'",
            f"write {of_domain[1]}/{of_domain[2]}",
        )
    reference = ImageReference.parse_destination(text)
    host, path = reference.registry, reference.path
    if host == DOCKER_HUB and re.fullmatch(r"library/(localhost|.*\..*)", path):
        raise UserError(f"{text!r} is a registry without a repository")
    if ecr := re.fullmatch(r"(\d{12})\.ecr\.(.+)\.amazonaws\.com(\.cn)?", host):
        hint = f"write {ecr_host(ecr[1], ecr[2])}/{path}"
        raise UserError(
            f"{host!r} is no registry: the dkr in an ECR registry's name is missing", hint
        )
    if ECR_PUBLIC.fullmatch(host) and "/" not in path:
        raise UserError(f"{text!r} has no alias of a public registry", f"write {host}/ALIAS/{path}")
    if host.endswith("-docker.pkg.dev") and path.count("/") < 2 + ("." in path.split("/")[0]):
        raise UserError(
            f"{text!r} has no image name",
            f"write {reference}/IMAGE: {host}/PROJECT/REPOSITORY/IMAGE",
        )
    return reference


def _kaniko_config(job: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if faults := tuple(job_faults(job)):
        raise fault_error(*faults)
    return job


Region = Annotated[str, _text(r"[a-z]+(-[a-z0-9]+)*", "the name of a region, such as us-east-1")]
Project = Annotated[str, _text(r"[a-z][a-z0-9.:-]{4,}[a-z0-9]", "the id of a Google Cloud project")]
Destination = Annotated[str, _reference(_destination, _REPOSITORY)]
Image = Annotated[str, _reference(ImageReference.parse, "an image")]
ContextStoreUri = Annotated[str, AfterValidator(_context_store)]
JobName = Annotated[
    str,
    # 63 characters are a Kubernetes name's limit, of which two "-", 12 digits of the source hash
    # and 7 of the image's take 21.
    _text(
        r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?",
        "up to 42 lower-case letters, digits and '-' (a Kubernetes name)",
    ),
]
SecretName = Annotated[
    str, _text(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "the name of a Kubernetes Secret")
]
SecretKey = Annotated[
    str, _text(r"[\w.-]{1,253}", "a key of a Kubernetes Secret: letters, digits, '-', '_' and '.'")
]
PackageOrigin = Annotated[
    str,
    _text(
        r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9._~/%+-]*", "an index, https://HOST/PATH/simple"
    ),
]
SshId = Annotated[str, _text(SECRET_ID.pattern.pattern, SECRET_ID.article)]
KanikoConfig = Annotated[dict[str, JsonValue], AfterValidator(_kaniko_config)]
ClaimName = Annotated[
    str,
    _text(
        r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "the name of a Kubernetes PersistentVolumeClaim"
    ),
]
RoleArn = Annotated[
    str,
    _text(
        r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}",
        "the ARN of an IAM role, arn:aws:iam::ACCOUNT:role/NAME",
    ),
]
Memory = Annotated[
    str, _text(r"[1-9][0-9]{0,11}(Ki|Mi|Gi|Ti|k|M|G|T)?", "an amount of memory, such as 16Gi")
]
Seconds = Annotated[int, whole_number(9, "a number of seconds, without a unit")]


class LocalEnvironment(Section):
    """No cloud: only credentials that are on the worker."""

    type: Literal["local"] = "local"

    @property
    def region(self) -> None:
        """None is needed."""


class AwsEnvironment(Section):
    """Amazon Web Services, with boto3's default credential chain."""

    type: Literal["aws"] = "aws"
    region: Region = Field(description="the AWS region, such as us-east-1")


class GcpEnvironment(Section):
    """Google Cloud, with the credentials of `google.auth.default()`."""

    type: Literal["gcp"] = "gcp"
    region: Region = Field(description="the Google Cloud region, such as us-central1")
    project: Project = Field(description="the id of the Google Cloud project")


class AzureEnvironment(Section):
    """Microsoft Azure, with `DefaultAzureCredential()`."""

    type: Literal["azure"] = "azure"

    @property
    def region(self) -> None:
        """None is needed."""


class _Builder(Section):
    """What every builder may be told, if only to find out whether the image is there already."""

    destination: Destination | None = Field(None, description=_DESTINATION)
    build_context_store: ContextStoreUri | None = Field(
        None, description=f"the store for packed build contexts: {_STORE_FORMS}"
    )
    platform: Literal["linux/amd64", "linux/arm64"] | None = Field(
        None, description="the target platform; absent: the builder's own"
    )
    cache_mounts: bool | None = Field(
        None,
        description="false: generated Dockerfiles mount no caches, which builds for one destination share",
    )
    package_index: PackageOrigin | None = Field(
        None,
        description="the Python package index that generated Dockerfiles ask in place of PyPI,"
        " https://HOST/PATH",
    )
    graft: bool | None = Field(
        None,
        description="false: the builder builds also where code alone has changed",
    )
    base_digests: bool | None = Field(
        default=None,
        description="false: the names of base images count alone, and not their digests as well",
    )
    layer_cache: Destination | None = Field(
        None,
        description="a repository in which the layers of all builds are kept, for whatever builds next",
    )
    ssh_agent: SshId | None = Field(
        None,
        description="the id by which builds may use the SSH agent of the worker; absent: none may",
    )
    uv_image: str | None = Field(
        None,
        min_length=1,
        description="where generated Dockerfiles take uv from: an image that has it, pip, or base: the base image",
    )


class AutoBuilder(_Builder):
    """Not said: docker on a worker whose docker CLI reaches an engine, else noop. See
    `LaunchConfig.with_builder`.
    """

    type: Literal["auto"] = "auto"


class DockerBuilder(_Builder):
    """`docker build` on the worker. A context store is needed if the source is on another node than
    the engine.
    """

    type: Literal["docker"] = "docker"


class NoopBuilder(_Builder):
    """Building is turned off: only images that exist already are passed on."""

    type: Literal["noop"] = "noop"


class KanikoBuilder(_Builder):
    """A Kubernetes Job that runs Kaniko, https://github.com/osscontainertools/kaniko."""

    type: Literal["kaniko"] = "kaniko"
    destination: Destination = Field(description=_DESTINATION)
    build_context_store: ContextStoreUri = Field(
        description=f"the store from which the Job reads the packed build context: {_STORE_FORMS}"
    )
    build_job_name: JobName = Field(
        "imagemill-build", description="prefix of the Kubernetes Job's name"
    )
    # Not in the repr: its environment variables are what people put secrets into.
    kaniko_config: KanikoConfig = Field(
        {}, repr=False, description="a Kubernetes Job, laid over the one of Imagemill"
    )
    # Google archived its own executor in June 2025; this is the maintained fork.
    kaniko_image: Image = Field(
        "ghcr.io/osscontainertools/kaniko:v1.28.3", description="the Kaniko executor's image"
    )
    kaniko_features: Literal["recommended", "none"] = Field(
        "recommended",
        description="whether the executor's switches are on that make its images as BuildKit's and its caches right",
    )
    secret_name: SecretName | None = Field(
        None,
        description="a Kubernetes Secret with cloud credentials or a docker config.json for the build pod",
    )
    secret_key: SecretKey | None = Field(None, description="the key in that Secret")
    context_access: Literal["signed", "identity"] | None = Field(
        None,
        description="how the Job reads its context: by a signed URL that is good for it alone, or"
        " with what the pod has, an identity or a key; absent: signed in s3:// and gs://",
    )
    push_role: RoleArn | None = Field(
        None,
        description="an IAM role that workers assume for the push of each build to ECR, narrowed to"
        " its repository",
    )
    context_volume_claim: ClaimName | None = Field(
        None,
        description="the PersistentVolumeClaim whose top folder is the context store's, file:///PATH, on the workers",
    )
    scheduling_timeout: Seconds = Field(
        300, description="seconds for which a build pod may wait for a node"
    )
    memory_ceiling: Memory = Field(
        "16Gi",
        description="the most memory that a build is given when it is tried again after it ran out of memory",
    )
    failed_job_retention: Seconds = Field(
        3600, description="seconds for which a failed Job is kept in the cluster; 60 at least"
    )

    @property
    def is_signed(self) -> bool:
        """Whether the Job is to read its context by a signed URL.

        Not where nobody has asked for it and the config leads the pod to another address of S3: the
        URL is of the worker's.
        """
        scheme = self.build_context_store.partition(":")[0]
        given = {variable["name"] for variable in executor_of(self.kaniko_config).get("env") or ()}
        by_default = scheme == "gs" or (scheme == "s3" and "S3_ENDPOINT" not in given)
        asked = self.context_access or ("signed" if by_default else "identity")
        return asked == "signed" and scheme != "file"

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        """Build pods cannot see a folder of the workers, unless it is a volume of theirs too."""
        if self.build_context_store.startswith("file:") and self.context_volume_claim is None:
            raise fault_error(
                Fault(
                    ("build_context_store",),
                    f"found {self.build_context_store}, a folder of the workers, which build pods"
                    " cannot reach",
                    "give builder.context-volume-claim, a PersistentVolumeClaim of that folder, or"
                    " use an object store",
                )
            )
        return self

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        for absent, given in (("secret_key", "secret_name"), ("secret_name", "secret_key")):
            if getattr(self, absent) is None and getattr(self, given) is not None:
                other = given.replace("_", "-")
                raise fault_error(
                    Fault((absent,), f"found nothing, expected a value, since {other} is given")
                )
        return self


def type_or(default: str) -> BeforeValidator:
    """Return the validator that gives a section without a `type` the default one."""

    def check(value: object) -> object:
        if isinstance(value, Mapping) and value.get("type") in (None, ""):
            return {**value, "type": default}
        return value

    return BeforeValidator(check)


Environment = LocalEnvironment | AwsEnvironment | GcpEnvironment | AzureEnvironment
Builder = AutoBuilder | DockerBuilder | KanikoBuilder | NoopBuilder


class LaunchConfig(Section):
    """What a build needs to know of the place that it runs in: the cloud, the builder, the
    registry.

    `LaunchConfig.model_validate(config.model_dump(mode="json", exclude_none=True))` equals
    `config`.
    """

    environment: Annotated[Environment, Field(discriminator="type"), type_or("local")] = Field(
        LocalEnvironment(), description="whose default credential chain is used"
    )
    builder: Annotated[Builder, Field(discriminator="type"), type_or("auto")] = Field(
        AutoBuilder(), description="what builds, where it pushes, and where contexts are kept"
    )
    policy: Policy | None = Field(
        None,
        description="who may have what built from what, and where to; absent: anybody anything",
    )

    def with_builder(self, builder_type: str) -> Self:
        """Return a copy with this builder, for `auto` once it is known whether a docker CLI reaches
        an engine.
        """
        cls = DockerBuilder if builder_type == "docker" else NoopBuilder
        builder = cls.model_validate(
            {key: getattr(self.builder, key) for key in _Builder.model_fields}
        )
        return self.model_copy(update={"builder": builder})
