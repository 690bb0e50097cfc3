"""Breaks a whole service of real servers on purpose, and checks what became of every build.

`history` holds what was seen of a run and says what is wrong with it; `site` is the service, with
one of `builders`, or `cluster` for Kaniko; `faults` are what is done to it; `matrix` does each of
them at each point of each step, `storm` many at random under load; `page` writes down what came of
it. `python -m chaos --help` runs them. See docs/chaos.md.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What plays the servers' parts lies with the tests.
sys.path.append(str(ROOT / "tests"))
