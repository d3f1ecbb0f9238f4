"""`python -m resque` is `resque`."""

from resque.cli import run

if __name__ == "__main__":
    run()
