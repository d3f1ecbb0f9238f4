"""`resque compare`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli import options
from resque.errors import InputError, in_words

if TYPE_CHECKING:
    from resque.decision.candidate import Candidate
    from resque.decision.options_file import OptionsFile

_NOTHING_REACHES, _SOME_FAILED = 1, 2
_MONEY = "Money"


def _price(what: str) -> Any:
    return typer.Option(help=what, parser=options.number, metavar="NUMBER", rich_help_panel=_MONEY)


def compare(
    file: Annotated[Path, typer.Argument(metavar="OPTIONS.toml", help="What could be done.")],
    accuracy: Annotated[
        float | None,
        typer.Option(
            help="To be reached, 0 to 1, if not as in the file.",
            parser=options.number,
            metavar="NUMBER",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="What is to be cheap: kwh, kg, hours or money. [default: kwh]"),
    ] = None,
    confidence_level: Annotated[
        float | None,
        typer.Option(
            help="Of the intervals, and with which the target is to be reached. [default: 0.9]",
            parser=options.number,
            metavar="NUMBER",
        ),
    ] = None,
    history: options.HistoryUrl = options.HISTORY,
    corpus: Annotated[
        bool,
        typer.Option(
            "--corpus/--no-corpus", help="Use the measured updates that come with the package."
        ),
    ] = True,
    meter: options.MeterName = "codecarbon",
    calibration: options.CalibrationFile = None,
    grid: options.GridName = None,
    pue: options.Pue = 1.0,
    price_per_kwh: Annotated[float | None, _price("Of a kilowatt-hour.")] = None,
    price_per_hour: Annotated[float | None, _price("Of an hour of the machine.")] = None,
    currency: Annotated[str, typer.Option(help="Of the prices.", rich_help_panel=_MONEY)] = "",
    preflights: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which what was looked at is kept, so that it is not looked at again. "
            "[default: OPTIONS.preflights]",
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Options side by side, and the cheapest that reaches the target.

    Exit status 1 if none does, 2 if an option could not be looked at.

    Example: resque compare options.toml --accuracy 0.9 --by hours
    """
    from resque.decision.options_file import read_options

    told = read_options(file)
    asked = options.asked(
        told, accuracy=accuracy, by=by, confidence_level=confidence_level, grid=grid, pue=pue,
        per_kwh=price_per_kwh, per_hour=price_per_hour, currency=currency,
    )  # fmt: skip
    from resque.decision.compare import Asked, decide
    from resque.forecasting.forecaster import Forecaster
    from resque.reporting.comparison_terminal import comparison_view

    Asked.of(**asked)
    # Read before the passes over the data: an empty one is known at once.
    forecaster = Forecaster(options.own_history(history), corpus=corpus)
    folder = told.folder if preflights is None else preflights
    with _resumable(folder):
        looked, failures = _looked_at(told, folder, meter, calibration)
    found = decide(looked, forecaster=forecaster, failures=failures, **asked)
    options.print_result(found, comparison_view, as_json=as_json)
    for name, why in found.failures.items():
        typer.echo(f"resque: the option {name!r} could not be compared: {why}", err=True)
    if found.failures:
        raise typer.Exit(_SOME_FAILED)
    if found.recommended is None:
        raise typer.Exit(_NOTHING_REACHES)


def _looked_at(
    told: OptionsFile, folder: Path, meter: str, calibration: Path | None
) -> tuple[list[Candidate], dict[str, str]]:
    """Return what can be known of each option, and why it cannot of the others."""
    from resque.files import checked_folder
    from resque.measure.energy import Meter, open_meter

    checked_folder(folder)
    options.find_own_modules()
    found: list[Candidate] = []
    failures: dict[str, str] = {}
    opened: list[Meter] = []
    with (
        options.results_only(),
        ExitStack() as stack,
        options.progress("options looked at", len(told.options)) as advance,
    ):

        def meter_once() -> Meter:
            if not opened:
                opened.append(stack.enter_context(open_meter(meter, calibration=calibration)))
            return opened[0]

        for option in told.options:
            options.say_step(f"looking at {option.name}")
            try:
                found.append(option.looked_at(folder, meter_once, meter, calibration=calibration))
            except InputError as error:
                failures[option.name] = str(error)
            except Exception as error:  # noqa: BLE001  # a user's model can fail in any way
                failures[option.name] = in_words(error)
            advance()
    return found, failures


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise options.Resumable(
            f"what was looked at is in {str(folder)!r}; the same command goes on from there"
        ) from interrupt
