"""`resque doctor`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from resque.cli import options
from resque.errors import InputError


def doctor(
    seconds: Annotated[
        float,
        typer.Option(
            help="Length of the load that the meters are compared on.",
            parser=options.number,
            metavar="NUMBER",
        ),
    ] = 5.0,
    no_meters: Annotated[
        bool, typer.Option("--no-meters", help="Leave the energy meters alone.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the versions and devices found here, and what each energy meter says of one load.

    Example: resque doctor --seconds 2
    """
    from resque.measure.carbon import countries, table_source
    from resque.measure.comparison import meters_on_load
    from resque.measure.machine import environment
    from resque.reporting.terminal import environment_view, meters_view, show

    if not 0 < seconds <= 600:
        raise InputError(f"--seconds must be above 0 and at most 600; got {seconds:g}.")
    found: dict[str, Any] = environment()
    meters = [] if no_meters else meters_on_load(seconds)
    if as_json:
        found["meters"] = [meter.to_dict() for meter in meters]
        found["grid"] = {
            "default": None,
            "source": table_source(),
            "countries": len(countries()),
        }
        typer.echo(json.dumps(found, indent=2))
        return
    show(environment_view(found))
    if meters:
        show(meters_view(meters))
