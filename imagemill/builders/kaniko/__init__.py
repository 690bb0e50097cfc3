"""Builds with Kaniko, as Kubernetes Jobs: no privileged container, and no Docker engine."""
