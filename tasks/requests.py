"""Requests from outside, as the arguments of the two tasks that others call."""

from celery.app.task import Context

from imagemill.errors import PermissionDenied
from imagemill.messages import BuildRequest
from imagemill.names import LIGHT, tenant_queue
from imagemill.tenants import Tenants
from tasks.settings import served_tenants, setup


def parsed_request(
    task: Context,
    request: object,
    tenant: str | None,
    issued: str | None,
    signature: str | None,
) -> tuple[BuildRequest, str | None]:
    """Return the request of a task, and whose it is: the tenant's whose queue it came through, or
    who has signed it. `UserError` says what is wrong with it.

    `PermissionDenied` if it is said to be a tenant's, and is not.
    """
    owner = _owner(task)
    if owner is not None and tenant not in (None, owner):
        raise PermissionDenied(
            f"A request of {tenant} came through the queue of the tenant {owner}",
            "each tenant has a queue of its own; the queue imagemill is for signed requests",
        )
    if owner is None and (tenant is not None or signature is not None):
        keys = setup().tenant_keys_dir
        request = Tenants(keys).checked(str(task.id), request, tenant, issued, signature)
    return BuildRequest.parse(request), owner or tenant


def _owner(task: Context) -> str | None:
    """Return the tenant through whose own queue the task came, as the broker, or the transport that
    took it, says.
    """
    came = (task.delivery_info or {}).get("routing_key")
    return next(
        (
            str(name)
            for name, rules in served_tenants().items()
            if rules.own_queue and came == tenant_queue(LIGHT, str(name))
        ),
        None,
    )
