"""STS and ECR as far as sessions of a role log in with them, and what they were asked."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import urllib3

from imagemill.clouds import aws
from web import Request, Response, Web, serve


@contextmanager
def ecr_sessions(environment: pytest.MonkeyPatch, moto: str) -> Iterator[Web]:
    """STS is moto's, which keeps no session's policy: what it is asked is seen here. ECR's login has
    the key that asked for it as its password.
    """

    def answer(request: Request) -> Response:
        authorization = request.headers["authorization"]
        if b"Action=AssumeRole" in request.body:
            headers = {
                "Authorization": authorization,
                "Content-Type": request.headers["content-type"],
            }
            found = urllib3.request("POST", moto, headers=headers, body=request.body)
            return Response(found.status, {"Content-Type": "text/xml"}, found.data)
        key = authorization.partition("Credential=")[2].partition("/")[0]
        token = base64.b64encode(f"AWS:{key}".encode()).decode()
        data = {"authorizationToken": token, "expiresAt": time.time() + 12 * 60 * 60}
        return Response(body=json.dumps({"authorizationData": [data]}).encode())

    with serve(answer) as web:
        for service in ("ECR", "STS"):
            environment.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://{web.address}")
        aws.forget()
        yield web
