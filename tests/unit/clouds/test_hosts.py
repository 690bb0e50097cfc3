"""Hosts of the clouds' services, as their owners document them."""

import pytest

from imagemill.clouds.hosts import ECR, ecr_host, partition_of
from imagemill.errors import UserError
from imagemill.reference import ImageReference
from imagemill.registries import HOSTS

ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    ("host", "region", "fips", "partition"),
    [
        ("dkr.ecr.us-east-1.amazonaws.com", "us-east-1", False, "aws"),
        ("dkr.ecr-fips.us-east-1.amazonaws.com", "us-east-1", True, "aws"),
        ("dkr-ecr.us-east-1.on.aws", "us-east-1", False, "aws"),
        ("dkr-ecr-fips.us-east-1.on.aws", "us-east-1", True, "aws"),
        ("dkr.ecr.us-gov-west-1.amazonaws.com", "us-gov-west-1", False, "aws-us-gov"),
        ("dkr-ecr-fips.us-gov-west-1.on.aws", "us-gov-west-1", True, "aws-us-gov"),
        ("dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1", False, "aws-cn"),
        ("dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1", False, "aws-cn"),
        ("dkr.ecr.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", False, "aws-iso"),
        ("dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1", False, "aws-iso-b"),
        ("dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1", False, "aws-iso-e"),
        ("dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1", False, "aws-iso-f"),
        ("dkr.ecr.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", False, "aws-eusc"),
    ],
)
def test_hosts_of_ecr(host: str, region: str, fips: bool, partition: str) -> None:
    found = ECR.fullmatch(f"{ACCOUNT}.{host}")
    assert found is not None
    assert (found["account"], found["region"], bool(found["fips"])) == (ACCOUNT, region, fips)
    assert partition_of(region).name == partition
    assert next(name for hosts, name in HOSTS if hosts.fullmatch(f"{ACCOUNT}.{host}")) == "ecr"


@pytest.mark.parametrize(
    "host",
    [
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.evil.example",
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.example",
        f"{ACCOUNT}.dkr-ecr.us-east-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.us-east-1.on.aws",
        f"{ACCOUNT}.ecr.us-east-1.amazonaws.com",
        "dkr.ecr.us-east-1.amazonaws.com",
        "public.ecr.aws",
    ],
)
def test_other_hosts_are_not_ecrs(host: str) -> None:
    assert ECR.fullmatch(host) is None


@pytest.mark.parametrize(
    ("arn", "spelling"),
    [
        (
            f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/team/models",
            f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/models",
        ),
        (
            f"arn:aws-cn:ecr:cn-north-1:{ACCOUNT}:repository/models",
            f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn/models",
        ),
        (
            f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/models:v1",
            f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/models",
        ),
        (
            f"arn:aws-iso:ecr:us-iso-east-1:{ACCOUNT}:repository/models",
            f"{ACCOUNT}.dkr.ecr.us-iso-east-1.c2s.ic.gov/models",
        ),
    ],
)
def test_arn_is_answered_with_the_right_spelling(arn: str, spelling: str) -> None:
    for parse in (ImageReference.parse, ImageReference.parse_destination):
        with pytest.raises(UserError, match="is an ARN") as raised:
            parse(arn)
        assert raised.value.hint == f"write {spelling}"


def test_host_of_an_account() -> None:
    assert ecr_host(ACCOUNT, "us-gov-east-1") == f"{ACCOUNT}.dkr.ecr.us-gov-east-1.amazonaws.com"
