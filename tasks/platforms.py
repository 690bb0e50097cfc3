"""The parts of a build for several platforms: a build for each of them, with an id of its own."""

import hashlib
import time

from imagemill.messages import Build


def parts(build: Build) -> dict[str, str]:
    """Return the ids of the parts by their platforms: the same ones each time."""
    return {
        platform: hashlib.sha256(f"{build.id} {platform}".encode()).hexdigest()[:32]
        for platform in build.platforms
    }


def part(build: Build, platform: str, image: str) -> Build:
    """Return the build of the image for one platform, which is hashed already."""
    alone = {"platform": platform, "tags": ()}
    return Build(
        id=parts(build)[platform],
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
