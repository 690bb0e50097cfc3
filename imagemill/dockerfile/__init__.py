"""Dockerfiles: their syntax, the base images they name, and the generated ones."""
