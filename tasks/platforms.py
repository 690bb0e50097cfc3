"""The parts of a build for several platforms: a build for each of them, with an id of its own."""

import hashlib
import time

from imagemill.messages import Build


def part_id(build: Build, platform: str) -> str:
    """Return the id of the part for a platform: the same one each time."""
    return hashlib.sha256(f"{build.id} {platform}".encode()).hexdigest()[:32]


def part(build: Build, platform: str, image: str) -> Build:
    """Return the build of the image for one platform, which is hashed already."""
    alone = {"platform": platform, "tags": ()}
    return Build(
        id=part_id(build, platform),
        part_of=build.id,
        request=build.request.model_copy(update=alone),
        started=time.time(),
        tenant=build.tenant,
        traceparent=build.traceparent,
        deadline=build.deadline,
        config=build.config,
        source=build.source,
        source_hash=build.platforms[platform],
        bases=build.bases,
        image=image,
    )
