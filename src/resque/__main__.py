"""`python -m resque` is `resque`."""

from resque.cli import run

run()
