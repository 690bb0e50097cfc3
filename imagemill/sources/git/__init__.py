"""Commits of git repositories as sources: how they are named, fetched and checked out."""
