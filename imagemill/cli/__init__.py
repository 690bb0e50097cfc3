"""The command line: `imagemill`.

commands     all commands, how they end, what they say when they fail
options      what several commands take
build        build
builds       status, wait, logs, cancel
local        hash, config check
why          why
doctor       doctor
services     the service that builds: one behind a broker, or an embedded one
requests     a build request from what was given on the command line
checkout     what git knows of a source
following    waits for a build while showing it, and cancels it on Ctrl-C
interrupts   Ctrl-C, so that it is never lost
views        a build while it runs: live, as plain lines, or not at all
showing      reports, states, configs
findings     what the doctor finds
differing    what differs between two images
terminal     other people's text, and errors

Celery, pydantic and rich take a while to import, so commands import what they need when they are
called.
"""

from imagemill.cli.commands import cli, main

__all__ = ["cli", "main"]
