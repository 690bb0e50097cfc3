"""Breaks a whole service of real servers on purpose, and checks what became of every build.

`history` holds what was seen of a run and says what is wrong with it; `site` is the service; `faults`
are what is done to it; `matrix` does each of them at each point of each step, `storm` many at
random under load. `python -m chaos --help` runs them. See docs/chaos.md.
"""
