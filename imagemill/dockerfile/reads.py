"""What a Dockerfile reads of its build context, as far as that decides what belongs to the context.

BuildKit's own git contexts leave `.git` out, and so does a source here, unless its Dockerfile
reads it: its bytes change with every commit and `git gc`, while the image stays the same.
"""

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from imagemill.dockerfile.syntax import Instruction, instructions
from imagemill.encoding import json_value
from imagemill.patterns import Linear

_FLAGS = re.compile(r"(?:\s*--\S+)*")
_BIND = re.compile(r"--mount=(\S+)")
_SOURCE = re.compile(r"(?:^|,)(?:source|src)=([^,]*)")
_PATH = re.compile(r"(?<![\w.-])\.git(?![\w.-])")
_REMOVED = re.compile(r"\brm\s[^&|;\n]*")
_ASKED = Linear(
    r"\bgit\s+(?:-[Cc]\s*\S+\s+)*(?:archive|branch|describe|diff|for-each-ref|lfs|log|ls-files"
    r"|name-rev|rev-list|rev-parse|show|shortlog|status|submodule|symbolic-ref|tag)\b"
)
_CLONED = Linear(r"\bgit\s+(?:-[Cc]\s*\S+\s+)*(?:clone|init)\b")
_VERSIONED = re.compile(
    r"setuptools[_-]scm|hatch-vcs|versioningit|dynamic-versioning|versioneer|vcs-versioning"
)
_PRETENDED = re.compile(r"PRETEND_VERSION")


def reads_git(dockerfile: str, project: str = "") -> bool:
    """Return whether a build by the Dockerfile needs `.git` of its context: it copies it, or runs
    git on it, or `project`, the text of what describes the project, has its version made of it.
    """
    found = list(instructions(dockerfile))
    runs = [each.text for each in found if each.keyword == "RUN"]
    if any(_names_git(path) for each in found for path in sources(each)):
        return True
    if any(_PATH.search(_REMOVED.sub("", run)) for run in runs):
        return True
    # What git is asked for after a clone is asked of the clone.
    if not any(map(_CLONED.search, runs)) and any(map(_ASKED.search, runs)):
        return True
    return bool(_VERSIONED.search(project)) and not _PRETENDED.search(dockerfile)


def sources(instruction: Instruction) -> Iterator[str]:
    """Yield the paths and patterns that an instruction reads of the context, as they are written;
    `.` is all of it.
    """
    text = instruction.rest
    if instruction.keyword == "RUN":
        for mount in _BIND.findall(text):
            if "type=cache" not in mount and "type=secret" not in mount and "from=" not in mount:
                yield from _SOURCE.findall(mount)
        return
    flags = match[0] if (match := _FLAGS.match(text)) else ""
    if instruction.keyword not in ("COPY", "ADD") or "--from=" in flags:
        return
    yield from _words(text[len(flags) :].strip())[:-1]


def _words(text: str) -> list[str]:
    if text.startswith("["):
        try:
            words = json_value(text)
        except ValueError:
            return text.split()
        return [word for word in words if isinstance(word, str)]
    return text.split()


def _names_git(path: str) -> bool:
    names = posixpath.normpath(path.strip("\"'")).strip("/").split("/")
    return any(name.startswith(".g") and fnmatchcase(".git", name) for name in names)
