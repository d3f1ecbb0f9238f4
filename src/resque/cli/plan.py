"""`resque plan`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from resque.cli import options
from resque.errors import InputError

if TYPE_CHECKING:
    from resque.decision.drift import Drift
    from resque.forecasting.budget import Budget
    from resque.index.profile import ClassProfile
    from resque.index.shift import Labels

_NONE_DOES_IT = 1
_BUDGET, _DRIFT = "Budget of a year", "Drift"


def _number(what: str, panel: str | None = None) -> Any:
    return typer.Option(help=what, parser=options.number, metavar="NUMBER", rich_help_panel=panel)


def plan(
    profiles: Annotated[
        list[str],
        typer.Argument(
            metavar="BEFORE DATE=FILE...",
            help="Saved profiles: of the data that the model knows, then 2026-01-31=january."
            "safetensors and so on, by rising date. The first may have a date, too.",
            show_default=False,
        ),
    ],
    preflight: Annotated[
        Path,
        typer.Option(
            help="A saved pre-flight of an update (resque forecast --save-preflight).",
            show_default=False,
        ),
    ],
    accuracy_floor: Annotated[float, _number("Which the accuracy must not fall below, 0 to 1.")],
    accuracy: options.TargetAccuracy = None,
    patience: options.Patience = None,
    min_delta: options.MinDelta = 0.001,
    max_energy_kwh: Annotated[float | None, _number("Most kWh a year.", _BUDGET)] = None,
    max_carbon_kg: Annotated[
        float | None, _number("Most kg CO2e a year; needs --grid.", _BUDGET)
    ] = None,
    max_hours: Annotated[float | None, _number("Most hours a year.", _BUDGET)] = None,
    horizon: Annotated[float, _number("Days to plan for.")] = 365.0,
    period: Annotated[
        float | None, _number("Days between looks. [default: as the profiles were]")
    ] = None,
    share: Annotated[
        float, _number("Of the looks at which the accuracy must be at or above the floor.")
    ] = 0.9,
    confidence_level: Annotated[
        float, _number("Of the intervals, and with which a schedule must do it, 0 to 1.")
    ] = 0.9,
    drift_per_year: Annotated[
        float | None, _number("Growth of the index in a year, where it is known.", _DRIFT)
    ] = None,
    drift_spread: Annotated[
        float, _number("Standard deviation of that growth, with --drift-per-year.", _DRIFT)
    ] = 0.0,
    drift_from_history: Annotated[
        bool,
        typer.Option(
            "--drift-from-history",
            help="Take the drift from the indices of the recorded updates.",
            rich_help_panel=_DRIFT,
        ),
    ] = False,
    labels: Annotated[str, typer.Option(help="true, or predicted for unlabelled data.")] = "true",
    history: options.HistoryUrl = options.HISTORY,
    corpus: Annotated[
        bool,
        typer.Option(
            "--corpus/--no-corpus", help="Use the measured updates that come with the package."
        ),
    ] = True,
    grid: options.GridName = None,
    pue: options.Pue = 1.0,
    seed: Annotated[
        int,
        typer.Option(
            help="Of the courses that are drawn.",
            parser=options.whole_number(0),
            metavar="INTEGER",
        ),
    ] = 0,
    as_json: options.AsJson = False,
) -> None:
    """When to update a model over a year, and what that costs: the cheapest schedule.

    Exit status 1 where no schedule keeps the accuracy within the budget.

    Example: resque plan before.safetensors 2026-01-31=jan.safetensors 2026-02-28=feb.safetensors
    2026-03-31=mar.safetensors 2026-04-30=apr.safetensors --preflight known.json
    --accuracy-floor 0.85
    """
    target = options.target(accuracy, patience, min_delta)
    budget = _budget(
        max_energy_kwh=max_energy_kwh, max_carbon_kg=max_carbon_kg, max_hours=max_hours
    )
    if max_carbon_kg is not None and grid is None:
        raise InputError("--max-carbon-kg needs the grid of the energy; name it with --grid.")
    if drift_spread and drift_per_year is None:
        raise InputError("--drift-spread is that of --drift-per-year; give both.")
    if drift_per_year is not None and drift_from_history:
        raise InputError("--drift-per-year and --drift-from-history are two drifts; give one.")
    costed = options.costed(grid, pue)
    series = [_profile(word, place) for place, word in enumerate(profiles)]
    from resque.decision.drift import Drift
    from resque.decision.plan import plan as planned
    from resque.forecasting.preflight import load_preflight
    from resque.reporting.plan_terminal import plan_view

    known = load_preflight(preflight)
    own = list(options.own_history(history) or ())
    drift: Drift | None = None
    if drift_per_year is not None:
        drift = Drift(per_year=drift_per_year, spread=drift_spread)
    elif drift_from_history:
        signature = series[0][1].signature
        drift = Drift.of_updates(own, model=None if signature is None else signature.model)
    found = planned(
        series,
        accuracy_floor=accuracy_floor,
        update=known,
        target=target,
        history=own,
        corpus=corpus,
        drift=drift,
        budget=budget,
        grid=costed,
        horizon_days=horizon,
        period_days=period,
        share=share,
        confidence_level=confidence_level,
        labels=cast("Labels", labels),
        seed=seed,
    )
    options.print_result(found, plan_view, as_json=as_json)
    if found.recommended is None:
        typer.echo(f"resque: {found.advice()}", err=True)
        raise typer.Exit(_NONE_DOES_IT)


def _profile(word: str, place: int) -> tuple[date | None, ClassProfile]:
    """Return the date and the profile in a word such as 2026-01-31=january.safetensors."""
    from resque.index.profile import load_profile

    day, equals, path = word.partition("=")
    try:
        return date.fromisoformat(day), load_profile(path) if equals else load_profile(word)
    except InputError:
        raise
    except ValueError as error:
        if place == 0 and (not equals or Path(word).exists()):
            return None, load_profile(word)
        if place == 0:
            raise InputError(
                "The first profile is FILE or DATE=FILE, such as 2026-01-31=january.safetensors; "
                f"got {word!r}."
            ) from error
        raise InputError(
            f"Later profiles are DATE=FILE, such as 2026-01-31=january.safetensors; got {word!r}."
        ) from error


def _budget(**limits: float | None) -> Budget | None:
    from resque.forecasting.budget import Budget

    return Budget(**limits) if any(limit is not None for limit in limits.values()) else None
