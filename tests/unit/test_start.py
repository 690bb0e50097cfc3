"""A quick start: what is not imported, and what still is there for whoever needs it."""

import subprocess
import sys

PROGRAM = """
from imagemill import start
start.quickly()
start.with_celery()
from imagemill.client import Client
client = Client("redis://localhost:1/0")
client.app.backend, client.app.amqp
import sys
print(sorted({"yaml", "opentelemetry.sdk", "opentelemetry.trace", "asyncio"} & sys.modules.keys()))
import yaml
from importlib import metadata
print(yaml.safe_load("a"), bool(metadata.entry_points(group="console_scripts")))
print(metadata.version("redis") == __import__("redis").__version__)
"""


def test_a_client_of_a_command_looks_for_nothing_that_it_does_not_need() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    # asyncio is redis-py's own: it shows that the modules are looked for by their right names.
    assert done.stdout == "['asyncio']\na True\nTrue\n"


def test_an_interrupt_while_the_command_is_imported_is_its_exit_code() -> None:
    interrupting = """
import sys
from imagemill import __main__
class Interrupting:
    def find_spec(self, name, *rest):
        if name == "imagemill.cli.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", interrupting], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
