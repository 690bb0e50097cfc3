"""Archives and buckets as sources: how they are named, downloaded and unpacked."""
