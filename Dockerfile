# One image for all parts of the service: workers of each pool, beat and Flower. The command tells which.

# docker-ce-cli is not in Debian, and Debian's docker.io would bring the whole engine: the CLI's own image has it.
FROM docker:28.5.2-cli AS docker

FROM python:3.12-slim-bookworm AS packages
WORKDIR /src
RUN python -m venv /opt/imagemill
ENV PATH=/opt/imagemill/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE ./
COPY imagemill ./imagemill
COPY tasks ./tasks
COPY worker ./worker
RUN pip install ".[all,monitoring,otel]"

FROM python:3.12-slim-bookworm
# What git sources are read with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/*
COPY --from=docker /usr/local/bin/docker /usr/local/bin/docker
COPY --from=docker /usr/local/libexec/docker/cli-plugins/docker-buildx /usr/local/libexec/docker/cli-plugins/docker-buildx
COPY --from=packages /opt/imagemill /opt/imagemill
# For `celery -A worker.app`, as beat, Flower and health checks are started: here the wheel's code is found by all.
RUN ln -s /opt/imagemill/lib/python3.12/site-packages/imagemill/service /opt/imagemill/service
COPY configs /opt/imagemill/configs
ENV PATH=/opt/imagemill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/imagemill/service \
    IMAGEMILL_CONFIG_DIR=/opt/imagemill/configs \
    IMAGEMILL_STATE_DIR=/var/lib/imagemill
RUN useradd --uid 1000 --no-log-init --create-home imagemill \
    && install --directory --owner imagemill --group imagemill /var/lib/imagemill
USER imagemill
CMD ["imagemill", "worker"]
