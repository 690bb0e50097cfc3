"""The clouds' default credential chains, a module each: what a cloud's store and its registry
share.

Each says who we are there, and translates the errors of its SDK once, at the edge.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Whom a cloud takes us for."""

    name: str
    """The cloud's own name for it: an ARN, a service account's address, an object's id."""
    source: str
    """Where in the default credential chain the credentials were found."""
