"""`python -m imagemill.cli`."""

from imagemill.cli.main import main

main()
