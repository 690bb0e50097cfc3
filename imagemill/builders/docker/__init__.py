"""The builder that uses a Docker engine through the docker command."""
