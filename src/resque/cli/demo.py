"""`resque demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The report to write (.html).")
    ] = Path("resque-demo.html"),
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the index against the strength of shifts, too (.png, .svg, .pdf)."),
    ] = None,
    grid: options.GridName = None,
    as_json: options.AsJson = False,
) -> None:
    """The whole way on real handwritten digits: index, updates, forecast, comparison, report.

    The network is trained here, on two cores in less than two minutes; nothing is downloaded.

    Example: resque demo -o demo.html --grid FRA
    """
    from resque.reporting.figures import checked_figure, save_shift_curves
    from resque.reporting.html import checked_page, report

    checked_page(output)
    if figure is not None:
        checked_figure(figure)
    from resque.experiments.digits import digits_demo
    from resque.reporting.terminal import demo_view

    found = digits_demo(options.say_step, grid=options.costed(grid))
    options.print_result(found, demo_view, as_json=as_json)
    report(
        title="Digits that have shifted: the demonstration of resque",
        shift=found.updates[-1].index if found.updates else found.shifts[-1].index,
        task=found.task,
        preflight=found.preflight,
        forecast=found.forecast,
        comparison=found.comparison,
        history=found.measured(),
        command="resque demo" if grid is None else f"resque demo --grid {shlex.quote(grid)}",
    ).save(output)
    if figure is not None:
        save_shift_curves(
            figure,
            found.curves(),
            title="How far three kinds of shift move handwritten digits",
            x_label="strength",
        )
        typer.echo(f"figure written to {figure.resolve()}", err=as_json)
    typer.echo(f"report written to {output.resolve()}", err=as_json)
