"""`python -m imagemill.cli`."""

from imagemill.cli.commands import main

main()
