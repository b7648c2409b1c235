"""`python -m publisher` is the command `publish`."""

from publisher.cli.main import main

main()
