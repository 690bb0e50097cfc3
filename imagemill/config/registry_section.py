"""The `registry` section, the W&B agent's older way to say `builder.destination`."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from imagemill.clouds.hosts import ecr_host
from imagemill.config.faults import mismatch
from imagemill.config.model import Builder, Environment, Project, Region, Section, type_or


def _account(value: str) -> str:
    if not (len(value) == 12 and value.isascii() and value.isdigit()):
        raise mismatch(value, "the 12 digits of an AWS account")
    return value


class _Registry(Section):
    """The `registry` section, where `uri` is what `builder.destination` is today."""

    uri: str | None = Field(None, description="an image repository, REGISTRY/REPOSITORY")

    @property
    def missing(self) -> str:
        """What has to be there, in words."""
        return "uri"

    def spelt_out(self) -> str | None:
        """Return the repository by its parts, if they are all there."""
        return None


class AnyRegistry(_Registry):
    """A registry of no stated type."""

    type: Literal["any"] = "any"


class EcrSection(_Registry):
    """Amazon Elastic Container Registry."""

    type: Literal["ecr"] = "ecr"
    account_id: Annotated[str, AfterValidator(_account)] | None = Field(
        None, description="the 12 digits of the account"
    )
    region: Region | None = Field(None, description="the AWS region; absent: environment.region")
    repository: str | None = Field(None, description="the repository's name")

    @property
    def missing(self) -> str:
        return "uri, or account-id, region and repository"

    def spelt_out(self) -> str | None:
        if not (self.account_id and self.region and self.repository):
            return None
        return f"{ecr_host(self.account_id, self.region)}/{self.repository}"


class GcrRegistry(_Registry):
    """Google Artifact Registry."""

    type: Literal["gcr"] = "gcr"
    region: Region | None = Field(
        None, description="the Google Cloud region; absent: environment.region"
    )
    project: Project | None = Field(
        None, description="the Google Cloud project; absent: environment.project"
    )
    repository: str | None = Field(None, description="the repository's name")
    image_name: str | None = Field(None, description="the image's name within the repository")

    @property
    def missing(self) -> str:
        return "uri, or region, project, repository and image-name"

    def spelt_out(self) -> str | None:
        if not (self.region and self.project and self.repository and self.image_name):
            return None
        project = self.project.replace(":", "/")  # of one that is of a domain, example.com:name
        return f"{self.region}-docker.pkg.dev/{project}/{self.repository}/{self.image_name}"


class AcrRegistry(_Registry):
    """Azure Container Registry."""

    type: Literal["acr"] = "acr"


Registry = AnyRegistry | EcrSection | GcrRegistry | AcrRegistry


class RegistrySection(Section):
    """A document's `registry` section alone."""

    registry: Annotated[Registry, Field(discriminator="type"), type_or("any")]


VARIANTS: Mapping[str, tuple[type[Section], ...]] = {
    "environment": get_args(Environment),
    "builder": get_args(Builder),
    "registry": get_args(Registry),
}
"""The sections, and what each may be."""
