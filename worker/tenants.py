"""The queues of tenants: of their own for requests, where the policy says so, and where builds wait,
so that one tenant's thousand builds do not hold up another's one.

Who serves a queue serves those of the tenants, too, whatever it was told. The tenants are those of
the workers' own config when the worker begins.
"""

from collections.abc import Iterator, Mapping
from logging import getLogger

from imagemill.config.policy import TenantRules
from imagemill.errors import ImagemillError
from imagemill.messages import BuildRequest
from imagemill.names import BEGIN, BUILDERS, LIGHT, build_queue, tenant_queue
from tasks.settings import Setup
from tasks.workspace import policies_for

log = getLogger(__name__)

_NO_REQUEST = BuildRequest(source="/")


def tenants_of(setup: Setup) -> Mapping[str, TenantRules]:
    """Return the tenants of the workers' own config; a config that is wrong fails builds, and no
    worker.
    """
    try:
        return {
            name: rules
            for policy in policies_for(setup, _NO_REQUEST)
            if policy and policy.tenants
            for name, rules in policy.tenants.items()
        }
    except (ImagemillError, OSError) as error:
        log.error("The launch config cannot be read, so tenants have no queues: %s", error)
        return {}


def entries(tenants: Mapping[str, TenantRules]) -> Iterator[str]:
    """Yield the queues through which tenants' requests come."""
    for name, rules in tenants.items():
        if rules.own_queue:
            yield tenant_queue(LIGHT, name)


def steps(tenants: Mapping[str, TenantRules]) -> Iterator[tuple[str, str]]:
    """Yield the tenants' queues of steps, each with the queue whose workers serve it."""
    for name in tenants:
        yield tenant_queue(BEGIN, name), LIGHT
        for builder in BUILDERS:
            yield tenant_queue(build_queue(builder), name), build_queue(builder)
