"""`resque reproduce`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options
from resque.errors import InputError


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="scratch-noise, measures-noise, scratch-tasks, measures-tasks, accuracy-tasks, "
            "table-noise, table-tasks, all; or corpus, the updates behind the forecasts."
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            help="smoke (minutes), cpu (hours) or gpu. [default: cpu]",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the updates, the figures and the page."),
    ] = Path("resque-reproduction"),
    meter: Annotated[
        str | None,
        typer.Option(
            help="codecarbon, zeus or none. [default: codecarbon; none with several workers]"
        ),
    ] = None,
    grid: options.GridName = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Updates of the corpus at the same time; their energy is not metered.",
            parser=options.whole_number(1),
            metavar="INTEGER",
        ),
    ] = 1,
    as_json: options.AsJson = False,
) -> None:
    """A figure or table of the RESQUE paper, made anew from updates that are run here.

    The data sets are in the folder that RESQUE_DATA names. What has been run is kept and not run
    again, so that an interrupted command goes on where it was.

    Example: resque reproduce measures-noise --preset smoke
    """
    costed = options.costed(grid)
    meter = meter or ("codecarbon" if workers == 1 else "none")
    from resque.experiments.reproduce import (
        ALL,
        CORPUS,
        HISTORY,
        PARTS,
        PRESET,
        make_corpus,
        one_of,
    )
    from resque.experiments.reproduce import reproduce as reproduced

    one_of(name, (*PARTS, ALL, CORPUS), "figure, table or corpus")
    if name == CORPUS:
        if preset is not None:
            raise InputError("The corpus has one design; leave --preset away.")
        with _resumable(output / HISTORY), options.results_only():
            updates, made = make_corpus(output, workers=workers, meter=meter, grid=costed)
        _print_corpus(updates, made, output / HISTORY, as_json=as_json)
        return
    if workers > 1:
        raise InputError(
            "--workers is for the corpus; the updates of a figure are made one at a time, since a "
            "meter reads the whole machine."
        )
    with _resumable(output / HISTORY), options.results_only():
        found = reproduced(
            name, preset=PRESET if preset is None else preset, folder=output, meter=meter,
            grid=costed,
        )  # fmt: skip
    typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else str(found))
    typer.echo(f"{found.updates} updates, {found.made} made now, in {output.resolve()}", err=True)


def _print_corpus(updates: int, made: int, history: Path, *, as_json: bool) -> None:
    if as_json:
        told = {"updates": updates, "made": made, "history": str(history)}
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"{updates} updates of the corpus, {made} made now, in {history}")


@contextmanager
def _resumable(history: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise options.Resumable(
            f"the same command goes on behind the last finished update, in {str(history)!r}"
        ) from interrupt
