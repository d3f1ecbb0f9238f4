"""`resque report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from resque.cli import options
from resque.errors import InputError

if TYPE_CHECKING:
    from resque.decision.comparison import Comparison
    from resque.forecasting.forecaster import Forecaster
    from resque.history.records import Grid
    from resque.history.store import History
    from resque.index.shift import ShiftIndex
    from resque.reporting.html import FigureFormat, TableFormat

_WHAT, _FORECAST, _OUTPUT = "What is told", "Forecast", "Output"


def report(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The page to write (.html).", rich_help_panel=_OUTPUT),
    ] = Path("report.html"),
    before: Annotated[
        Path | None,
        typer.Option(help="Saved profile of the data that the model knows.", rich_help_panel=_WHAT),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(help="Saved profile of the new data.", rich_help_panel=_WHAT),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="true, or predicted: the model's own predictions, on both sides.",
            rich_help_panel=_WHAT,
        ),
    ] = "true",
    preflight: Annotated[
        Path | None,
        typer.Option(help="A saved pre-flight: its index, and a forecast.", rich_help_panel=_WHAT),
    ] = None,
    compared: Annotated[
        Path | None,
        typer.Option(
            "--options",
            help="An options file that `resque compare` has looked at.",
            metavar="OPTIONS.toml",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    preflights: Annotated[
        Path | None,
        typer.Option(
            help="Folder of what it looked at. [default: OPTIONS.preflights]",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    meter: Annotated[
        str,
        typer.Option("--meter", help="With which it looked at the options.", rich_help_panel=_WHAT),
    ] = "codecarbon",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Likewise, and its calibration.", rich_help_panel=_WHAT),
    ] = None,
    history: options.HistoryUrl = options.HISTORY,
    label: options.Labels = None,
    title: Annotated[str | None, typer.Option(help="Of the page.", rich_help_panel=_OUTPUT)] = None,
    accuracy: options.TargetAccuracy = None,
    patience: options.Patience = None,
    min_delta: options.MinDelta = 0.001,
    by: Annotated[
        str | None,
        typer.Option(
            help="What an option is to spare: kwh, kg, hours or money. [default: kwh]",
            show_default=False,
            rich_help_panel=_FORECAST,
        ),
    ] = None,
    confidence_level: Annotated[
        float | None,
        typer.Option(
            help="Of all intervals, 0 to 1. [default: 0.9]",
            parser=options.number,
            metavar="NUMBER",
            show_default=False,
            rich_help_panel=_FORECAST,
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch/--no-from-scratch",
            help="Forecast the same from fresh weights, too.",
            rich_help_panel=_FORECAST,
        ),
    ] = True,
    corpus: Annotated[
        bool,
        typer.Option(
            "--corpus/--no-corpus",
            help="Use the measured updates that come with the package.",
            rich_help_panel=_FORECAST,
        ),
    ] = True,
    grid: options.GridName = None,
    pue: options.Pue = 1.0,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder to write the figures to, as well.", rich_help_panel=_OUTPUT),
    ] = None,
    figure_format: Annotated[
        str, typer.Option(help="svg, png or pdf.", rich_help_panel=_OUTPUT)
    ] = "svg",
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder to write the tables to, as well.", rich_help_panel=_OUTPUT),
    ] = None,
    table_format: Annotated[
        str, typer.Option(help="csv or md (Markdown).", rich_help_panel=_OUTPUT)
    ] = "csv",
) -> None:
    """One page for those who decide: index, forecast, options, and what updates have cost.

    It is told what is asked for, and what the history holds. One HTML file, without scripts.

    Example: resque report --preflight known.json --accuracy 0.9 --grid FRA -o report.html
    """
    from resque.files import checked_folder
    from resque.index.shift import checked_level
    from resque.reporting import html

    html.checked_page(output)
    html.checked_format(figure_format, html.FigureFormat)
    html.checked_format(table_format, html.TableFormat)
    for folder in (figures, tables):
        if folder is not None:
            checked_folder(folder)
    for read in (before, after, preflight, compared):
        options.not_an_input(output, read)
    if (before is None) != (after is None):
        raise InputError("A shift has two sides; give --before and --after.")
    if preflight is None and compared is None:
        _nothing_foretold({"--accuracy": accuracy, "--patience": patience, "--grid": grid,
                           "--by": by})  # fmt: skip
    target = options.target(accuracy, patience, min_delta)
    costed = options.costed(grid, pue)
    level = checked_level(0.9 if confidence_level is None else confidence_level)
    own = _own(history, context)
    updates = [] if own is None else list(own.updates(labels=options.label_pairs(label)))
    if before is None and preflight is None and compared is None and not updates:
        raise InputError(
            "What is reported? Give two profiles (--before, --after), a pre-flight (--preflight), "
            "an options file (--options), or a history that has such updates (--history, --label)."
        )
    shift = None if before is None else _shift(before, cast("Path", after), labels, level)
    known, forecast, comparison = None, None, None
    if preflight is not None or compared is not None:
        from resque.forecasting.forecaster import Forecaster
        from resque.forecasting.preflight import load_preflight

        known = None if preflight is None else load_preflight(preflight)
        forecaster = Forecaster(own, corpus=corpus)
        if known is not None:
            forecast = forecaster.forecast(
                known,
                target=target,
                grid=costed,
                confidence_level=level,
                from_scratch=from_scratch,
            )
        if compared is not None:
            comparison = _comparison(
                compared, preflights, forecaster, meter=meter, calibration=calibration,
                accuracy=accuracy, by=by,
                confidence_level=confidence_level, grid=costed,
            )  # fmt: skip
    made = html.report(
        title=html.TITLE if title is None else title,
        shift=shift,
        preflight=known,
        forecast=forecast,
        comparison=comparison,
        history=updates,
        command=_command(context),
    )
    if figures is not None:
        made.save_figures(figures, cast("FigureFormat", figure_format))
    if tables is not None:
        made.save_tables(tables, cast("TableFormat", table_format))
    made.save(output)
    typer.echo(f"report written to {output.resolve()}")


def _nothing_foretold(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{name} says something of a forecast; name a pre-flight (--preflight) or options "
                "(--options)."
            )


def _own(url: str, context: typer.Context) -> History | None:
    """Return the user's history; None where none was named and there is none yet."""
    source = context.get_parameter_source("history")
    if source is None or source.name == "DEFAULT":
        return options.own_history(url)
    from resque.history.store import History

    store = History(url)
    if not store.exists:
        raise InputError(
            f"There is no history at {_printable(url)!r}. `resque retrain` makes one, and "
            "--history says where it is."
        )
    return store


def _shift(before: Path, after: Path, labels: str, confidence_level: float) -> ShiftIndex:
    from resque.index.profile import load_profile
    from resque.index.shift import Labels, checked_label_kind, shift_index

    checked_label_kind(labels)
    return shift_index(
        load_profile(before),
        load_profile(after),
        labels=cast("Labels", labels),
        confidence_level=confidence_level,
    )


def _comparison(
    path: Path,
    folder: Path | None,
    forecaster: Forecaster,
    *,
    meter: str,
    calibration: Path | None,
    accuracy: float | None,
    by: str | None,
    confidence_level: float | None,
    grid: Grid | None,
) -> Comparison:
    """Return the comparison of the options that were looked at, and which were not."""
    from resque.decision.compare import decide
    from resque.decision.options_file import read_options

    told = read_options(path)
    asked = options.asked(
        told, accuracy=accuracy, by=by, confidence_level=confidence_level, grid=None, pue=1.0,
        per_kwh=None, per_hour=None, currency="",
    )  # fmt: skip
    if grid is not None:
        asked["grid"] = grid
    looked, failures = [], {}
    for option in told.options:
        try:
            found = option.looked_up(folder or told.folder, meter, calibration=calibration)
        except InputError as error:
            failures[option.name] = str(error)
            continue
        if found is None:
            failures[option.name] = (
                f"it was not looked at with {meter}; run `resque compare {path}`"
            )
        else:
            looked.append(found)
    return decide(looked, forecaster=forecaster, failures=failures, **asked)


def _command(context: typer.Context) -> str:
    """Return the command line that makes this report anew."""
    words = ["resque", "report"]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            continue
        value = context.params[parameter.name or ""]
        if isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [
                parameter.opts[0],
                _printable(one) if parameter.name == "history" else str(one),
            ]
    return shlex.join(words)


def _printable(url: str) -> str:
    """Return the URL of a history as it may be passed on: that of a server without its password."""
    if url.startswith("sqlite:"):
        return url
    from resque.history.store import History

    return History(url).url
