"""A strict Kubernetes API server for tests: the API's semantics from Kubernetes' reference, and a
cluster to play.

There is no kubelet, no scheduler and, unless it is asked for, no Job controller behind it: what
they would do, a test does (`KubernetesServer.start_pod`, `finish` …). It knows nothing of what uses
it.
"""

from kubernetes_server.server import KubernetesServer

__all__ = ["KubernetesServer"]
