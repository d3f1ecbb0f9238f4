"""`resque doctor`."""

from __future__ import annotations

import json

import typer

from resque.cli import options


def doctor(as_json: options.AsJson = False) -> None:
    """Show the versions and devices found here.

    Example: resque doctor --json
    """
    from resque.reporting.terminal import environment, environment_view, show

    found = environment()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show(environment_view(found))
