"""The warning about a registry that lies elsewhere: it names both regions, and where the
destination stands.
"""

from pathlib import Path

import pytest

from imagemill.config import load

ECR = "123456789012.dkr.ecr.{}.amazonaws.com/r"
GAR = "{}-docker.pkg.dev/a-project/r/i"


def warnings(folder: Path, environment: str, builder: str) -> tuple[str, ...]:
    path = folder / "launch.yaml"
    path.write_text(f"environment: {{{environment}}}\nbuilder:\n  type: docker\n  {builder}\n")
    return tuple(warning.removeprefix(f"{path}:") for warning in load(path).warnings)


AWS = "type: aws, region: eu-central-1"
GCP = "type: gcp, project: a-project, region: {}"


@pytest.mark.parametrize(
    ("environment", "destination", "there", "here"),
    [
        (AWS, ECR.format("us-east-1"), "us-east-1", "eu-central-1"),
        (AWS, "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/r", "us-east-1", "eu-central-1"),
        (AWS, "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/r", "cn-north-1", "eu-central-1"),
        (GCP.format("europe-west1"), GAR.format("us-central1"), "us-central1", "europe-west1"),
        (GCP.format("europe-west1"), GAR.format("europe-west4"), "europe-west4", "europe-west1"),
        (GCP.format("europe-west1"), GAR.format("us"), "us", "europe-west1"),
        (GCP.format("northamerica-northeast1"), GAR.format("us"), "us", "northamerica-northeast1"),
        (GCP.format("australia-southeast1"), GAR.format("asia"), "asia", "australia-southeast1"),
    ],
)
def test_a_registry_in_another_region_is_a_warning_with_both(
    tmp_path: Path, environment: str, destination: str, there: str, here: str
) -> None:
    (warning,) = warnings(tmp_path, environment, f"destination: {destination}")
    assert warning.startswith(
        f"4: builder.destination: the registry is in {there}, and environment.region is {here}:"
    )


@pytest.mark.parametrize(
    ("environment", "destination"),
    [
        (AWS, ECR.format("eu-central-1")),
        (AWS, "registry.example.com/r"),
        (AWS, GAR.format("us-central1")),
        (GCP.format("us-central1"), GAR.format("us-central1")),
        (GCP.format("us-central1"), GAR.format("us")),
        (GCP.format("europe-west1"), GAR.format("europe")),
        (GCP.format("asia-east1"), GAR.format("asia")),
        (GCP.format("us-central1"), ECR.format("eu-central-1")),
        ("type: azure", "name.azurecr.io/r"),
        ("type: local", ECR.format("eu-central-1")),
    ],
)
def test_a_registry_in_the_same_region_or_of_none_is_no_warning(
    tmp_path: Path, environment: str, destination: str
) -> None:
    assert warnings(tmp_path, environment, f"destination: {destination}") == ()


def test_the_warning_stands_where_the_destination_was_taken_from(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, AWS, f"uri: {ECR.format('us-east-1')}")
    assert warning.startswith("4: builder.uri: ")


def test_without_a_destination_there_is_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, AWS, "platform: linux/amd64") == ()
