"""The command line: one file per command, which parses, calls the library and prints.

Results go to stdout, progress and warnings to stderr. Exit status: 0; 1 where a gate says no; 2 for
bad input, with one line of cause and cure; 130 when interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

import resque
from resque.cli import options
from resque.cli.backtest import backtest
from resque.cli.compare import compare
from resque.cli.demo import demo
from resque.cli.doctor import doctor
from resque.cli.forecast import forecast
from resque.cli.history import app as history_app
from resque.cli.plan import plan
from resque.cli.profile import profile
from resque.cli.report import report
from resque.cli.reproduce import reproduce
from resque.cli.retrain import retrain
from resque.cli.shift import shift
from resque.cli.task import task
from resque.errors import ResqueError, ResqueWarning

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    name="resque",
    help="What updating a trained model would cost, and the cheapest option that does the job.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(resque.__version__)
        raise typer.Exit


commands = (
    profile, shift, task, forecast, compare, plan, backtest, retrain, report, reproduce, doctor,
    demo,
)  # fmt: skip
for command in commands:
    app.command()(command)
app.add_typer(history_app, name="history")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: the words after `resque`; by default those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResqueWarning)
        warnings.showwarning = _show_warning
        try:
            status = app(args=words, prog_name="resque", standalone_mode=False)
            # What is still held back would otherwise fail where nobody can catch it.
            sys.stdout.flush()
        except SystemExit as leaving:
            # Typer leaves when the reader of stdout has gone, as `head` does; that is its right.
            return 0 if isinstance(leaving.__context__, BrokenPipeError) else BAD_INPUT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except options.Resumable as interrupted:
            _say(f"interrupted; {interrupted}")
            return INTERRUPTED
        except (ResqueError, OSError) as error:
            _say(f"error: {error}")
            return BAD_INPUT
        except TyperException as error:
            said = " ".join(error.format_message().split())
            _say(f"error: {said}{'' if said[-1:] in '.?' else '.'}{_hint(error)}")
            return BAD_INPUT
    if status == INTERRUPTED:
        _say("interrupted; nothing was written")
    return status if isinstance(status, int) else 0


def run() -> None:
    """Run the command line of this process and leave with its exit status."""
    # No command may reach a network; libraries that would ask a model hub are told so.
    os.environ["HF_HUB_OFFLINE"] = "1"
    raise SystemExit(main())


def _hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" See `{context.command_path} --help`." if context is not None else ""


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **_: Any) -> None:
    if issubclass(category, ResqueWarning):
        _say(f"warning: {message}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, where[0], where[1]))


def _say(text: str) -> None:
    sys.stderr.write(f"resque: {text}\n")
