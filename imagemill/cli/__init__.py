"""The command line: `imagemill`.

commands            all commands, how they end, what they say when they fail
options             what several commands take
docker_habits       what docker's users type, and what it means here
build               the command `build`
service_commands    `list`, `status`, `wait`, `logs`, `cancel`
local               `hash`, `config check`
dead, dockerfile, doctor, kaniko, permissions, plan, why, worker
                    the commands of these names
requests            a build request from what was given on the command line
sources             sources as they are read here
git_info            what git knows of a source
upload              a source that is here, brought to a service elsewhere
services            the service that builds: one behind a broker
local_service       … or an embedded one
follow              waits for a build while showing it, and cancels it on Ctrl-C
interrupts          Ctrl-C, so that it is never lost
progress, live      a build while it runs: as plain lines or not at all, and on a terminal
render              reports, states, configs
render_findings     what the doctor finds
render_differences  what differs between two images
terminal            other people's text, and errors

Celery, pydantic and rich take a while to import, so commands import what they need when they are
called.
"""

from imagemill.cli.commands import cli, main

__all__ = ["cli", "main"]
