"""`resque history`: list, show, export and import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resque.cli import options
from resque.errors import InputError

if TYPE_CHECKING:
    from resque.history.filters import Filters
    from resque.history.store import History

_BAD_LINES = 1
_FILTERS = "Which updates"

app = typer.Typer(
    name="history",
    help="The updates measured so far.\n\nExample: resque history list --reached",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str | None, typer.Option(help="Name of the model.", rich_help_panel=_FILTERS)]
Reached = Annotated[
    bool | None,
    typer.Option(
        "--reached/--censored",
        help="Those that met their target, or those that did not.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="Started then or later, UTC.", rich_help_panel=_FILTERS),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="Started then or earlier, UTC.", rich_help_panel=_FILTERS),
]


@app.command("list")
def list_updates(
    model: Model = None,
    label: options.Labels = None,
    reached: Reached = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.")] = 20,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Cost the carbon for this grid: a country's three letters, or grams per kWh."
        ),
    ] = None,
    pue: options.Pue = 1.0,
    history: options.HistoryUrl = options.HISTORY,
    as_json: options.AsJson = False,
) -> None:
    """List updates, newest first.

    Example: resque history list --label shift=blur --reached
    """
    chosen = _filters(model, label, reached, since, until)
    elsewhere = options.costed(grid, pue)
    with _opened(history) as opened:
        found = opened.summaries(limit=limit, **chosen)
        total = opened.count(**chosen) if len(found) == limit else len(found)
    if elsewhere is not None:
        found = [summary.on_grid(elsewhere) for summary in found]
    if as_json:
        rows = [summary.to_dict() for summary in found]
        typer.echo(json.dumps(rows, indent=2, allow_nan=False))
        return
    from resque.reporting.terminal import history_view, show

    show(history_view(found, total, str(elsewhere or "")))


@app.command("show")
def show_update(
    update: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the first digits.")],
    history: options.HistoryUrl = options.HISTORY,
    as_json: options.AsJson = False,
) -> None:
    """Show one update, with its curve.

    Example: resque history show 3f2a
    """
    from resque.reporting.terminal import update_view

    with _opened(history) as opened:
        found = opened.get(update)
    options.print_result(found, update_view, as_json=as_json)


@app.command("export")
def export_updates(
    file: Annotated[str, typer.Argument(metavar="FILE", help="To write; - for stdout.")],
    model: Model = None,
    label: options.Labels = None,
    reached: Reached = None,
    since: Since = None,
    until: Until = None,
    history: options.HistoryUrl = options.HISTORY,
) -> None:
    """Write updates to a file, as JSON Lines, oldest first.

    Example: resque history export updates.jsonl
    """
    chosen = _filters(model, label, reached, since, until)
    with _opened(history) as opened:
        if file == "-":
            opened.export(sys.stdout, **chosen)
            return
        written = opened.export(file, progress=True, **chosen)
    typer.echo(f"{written} updates written to {file}")


@app.command("import")
def import_updates(
    file: Annotated[Path, typer.Argument(help="A file that `resque history export` wrote.")],
    history: options.HistoryUrl = options.HISTORY,
) -> None:
    """Add the updates of a file; those that are there already stay as they are.

    Exit status 1 if a line was bad: it is named, and all others are added.

    Example: resque history import updates.jsonl
    """
    from resque.history.store import History

    with History(history) as opened:
        done = opened.import_from(file, progress=True)
    typer.echo(str(done))
    for number, reason in done.bad:
        typer.echo(f"resque: {file}, line {number}: {reason}", err=True)
    if done.bad:
        raise typer.Exit(_BAD_LINES)


def _opened(url: str) -> History:
    from resque.history.store import History

    history = History(url)
    if not history.exists:
        # Looking at a history makes none, least of all where its name was misspelt.
        raise InputError(
            f"There is no history at {history.url}. Measure an update, or import some; or name "
            "another one with --history or RESQUE_HISTORY."
        )
    return history


def _filters(
    model: str | None,
    labels: list[str] | None,
    reached: bool | None,
    since: str | None,
    until: str | None,
) -> Filters:
    pairs = options.label_pairs(labels)
    found: Filters = {}
    if model is not None:
        found["model"] = model
    if pairs:
        found["labels"] = pairs
    if reached is not None:
        found["reached"] = reached
    if since is not None:
        found["since"] = since
    if until is not None:
        found["until"] = until
    return found
