"""The command line: one file per command, which parses, calls the library and prints.

Results go to stdout, progress and warnings to stderr. Exit status: 0; 2 for bad input, with one
line of cause and cure; 130 when interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from resque.cli.demo import demo
from resque.cli.doctor import doctor
from resque.cli.profile import profile
from resque.cli.shift import shift
from resque.cli.task import task
from resque.errors import ResqueError, ResqueWarning

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    name="resque",
    help="What a model update would cost, before anything is retrained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (profile, shift, task, doctor, demo):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: the words after `resque`; by default those of this process.
    """
    # No command may reach a network; libraries that would ask a model hub are told so.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResqueWarning)
        warnings.showwarning = _show_warning
        try:
            app(args=None if arguments is None else list(arguments), prog_name="resque")
        except SystemExit as end:
            return _status(end.code)
        except KeyboardInterrupt:
            _say("interrupted; nothing was written")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of stdout has gone, as `head` does; that is its right.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ResqueError, OSError) as error:
            _say(f"error: {error}")
            return BAD_INPUT
    return 0


def run() -> None:
    """Run the command line of this process and leave with its exit status."""
    raise SystemExit(main())


def _status(code: object) -> int:
    if code is None:
        return 0
    return code if isinstance(code, int) else 1


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **_: Any) -> None:
    if issubclass(category, ResqueWarning):
        _say(f"warning: {message}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, where[0], where[1]))


def _say(text: str) -> None:
    sys.stderr.write(f"resque: {text}\n")
