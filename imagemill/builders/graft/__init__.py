"""Makes an image of code alone, without a builder: an earlier image with its last layers made anew.

Where all that has changed since an image was built are files which only the last local COPY and ADD
of its final stage read, the new image is the old one with those layers packed by us. Nothing is
taken on trust: the same rules, applied to the *old* context, must give the very layers that the
builder made. Whatever is not understood, not known or not reproduced is a `Refusal`, and the
builder builds. See docs/adr/0016-a-change-of-code-needs-no-builder.md.
"""

__all__ = ["FORMAT", "Refusal"]

FORMAT = 3
"""Part of every key under which an earlier image is found. Raise it when the rules change."""


class Refusal(Exception):  # noqa: N818 - it says no, and nothing has gone wrong
    """Why the builder has to build; `reason` is a sentence for the build's report, in which bytes
    that are not UTF-8 are spelt out.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason.encode(errors="backslashreplace").decode()
        super().__init__(self.reason)
