"""The servers and stores of each cloud, for all tests of contracts."""

from aws_fixtures import *  # noqa: F403
from azure_fixtures import *  # noqa: F403
from gcp_fixtures import *  # noqa: F403
