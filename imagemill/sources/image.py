"""An image as a source: there is nothing to fetch and nothing to build."""

from pathlib import Path

from imagemill.errors import UserError
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources.options import SourceOptions


class ImageSource:
    """`docker-image://REFERENCE`, as `docker buildx build --build-context` spells it."""

    def __init__(self, text: str, options: SourceOptions) -> None:
        self.image: ImageReference = ImageReference.parse(text.partition("://")[2])

    @property
    def place(self) -> str:
        return f"docker-image://{self.image.repository}"

    def pinned(self, progress: Progress) -> None:
        """See `Source.pinned`: its digest is looked for as that of every image."""

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """Raise `UserError`: who needs files has to look at `image` first."""
        raise UserError(
            f"The source {self.image} is an image, with no files to read",
            "name a folder or an archive",
        )
