"""Write the README of the Helm chart from its values: the comments that begin with `# --` say what
each is for. `python scripts/chart_readme.py`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent.parent / "charts/imagemill"

HEAD = """# The Helm chart

Imagemill in a Kubernetes cluster: workers for the light steps, for builds with Kaniko and, if wished, with Docker;
beat, Redis, Flower. [docs/kubernetes.md](../../docs/kubernetes.md) leads from nothing to a built image.

    helm install imagemill charts/imagemill --namespace imagemill --create-namespace \\
        --values charts/imagemill/examples/eks.yaml
    helm test imagemill --namespace imagemill --logs

| example | for |
| --- | --- |
{examples}

The values of the W&B Launch agent's chart are read as they are; those that have no meaning here are ignored. All values
are checked against [values.schema.json](values.schema.json) at installation.

The table is made from the comments in [values.yaml](values.yaml) by `python scripts/chart_readme.py`.

## Values

| value | default | meaning |
| --- | --- | --- |
"""


def rows(
    node: yaml.MappingNode, lines: list[str], path: str = ""
) -> Iterator[tuple[str, Any, str]]:
    """Yield each value that a comment explains: its path, its default, and the comment."""
    for key, value in node.value:
        name = f"{path}{key.value}"
        if text := comment(lines, key.start_mark.line):
            yield name, yaml.safe_load(yaml.serialize(value)), text
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from rows(value, lines, f"{name}.")
        else:
            raise ValueError(f"{name} has no comment")


def comment(lines: list[str], line: int) -> str:
    """Return what stands right above a line, from `# --` on; empty if nothing does."""
    found: list[str] = []
    while line and (told := re.match(r"\s*# ?(?P<rest>.*)", lines[line - 1])):
        line -= 1
        found.insert(0, told["rest"])
        if told["rest"].startswith("-- "):
            return " ".join(found).removeprefix("-- ")
    return ""


def readme() -> str:
    """Return the README's text."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    top = yaml.compose(text)
    assert isinstance(top, yaml.MappingNode)
    table = [
        f"| `{name}` | `{json.dumps(default)}` | {told} |"
        for name, default, told in rows(top, text.splitlines())
    ]
    return HEAD.format(examples="\n".join(examples())) + "\n".join(table) + "\n"


def examples() -> Iterator[str]:
    """Yield a row for each example: its file, and the sentence that it begins with."""
    for path in sorted((CHART / "examples").glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line.removeprefix("# ") for line in lines[: _head(lines)]]
        yield f"| [{path.name}](examples/{path.name}) | {' '.join(head)} |"


def _head(lines: list[str]) -> int:
    """How many lines of comments come first."""
    return next(number for number, line in enumerate(lines) if not line.startswith("#"))


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
