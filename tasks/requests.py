"""Requests from outside, as the arguments of the two tasks that others call."""

from imagemill.messages import BuildRequest
from imagemill.tenants import Tenants
from tasks.settings import setup


def parsed_request(
    task: str, request: object, tenant: str | None, issued: str | None, signature: str | None
) -> BuildRequest:
    """Return the request of the task with this id; `UserError` says what is wrong with it.

    `PermissionDenied` if it is said to be a tenant's, and the tenant has not signed it.
    """
    if tenant is not None or signature is not None:
        keys = setup().tenant_keys_dir
        request = Tenants(keys).checked(task, request, tenant, issued, signature)
    return BuildRequest.parse(request)
