"""`resque demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Figure to write (.png, .svg, .pdf).")
    ] = Path("resque-demo.png"),
    grid: options.GridName = None,
    as_json: options.AsJson = False,
) -> None:
    """Both indices on real handwritten digits, what updates cost, and a forecast of one of them.

    The network is trained here, on two cores in less than two minutes; nothing is downloaded.

    Example: resque demo -o demo.svg --grid FRA
    """
    from resque.reporting.figures import checked_figure, save_shift_curves

    checked_figure(output)
    from resque.experiments.digits import digits_demo
    from resque.reporting.terminal import demo_view

    found = digits_demo(options.say_step, grid=options.costed(grid))
    options.print_result(found, demo_view, as_json=as_json)
    save_shift_curves(
        output,
        found.curves(),
        title="How far three kinds of shift move handwritten digits",
        x_label="strength",
    )
    typer.echo(f"figure written to {output.resolve()}", err=as_json)
