"""A plan on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from resque.decision.plan import Plan
    from resque.decision.schedules import Schedule
    from resque.forecasting.forecast import Estimate

_MOST_ROWS = 14
_COSTS = {
    "energy_kwh": "kWh a year", "carbon_kg": "kg CO2e a year", "duration_s": "hours a year",
    "epochs": "epochs a year",
}  # fmt: skip
_SECONDS_PER_HOUR = 3600.0


def plan_view(plan: Plan) -> RenderableType:
    """Return a plan as three tables: without updates, schedules, and waiting.

    Schedules that cost more than another and keep the accuracy no more surely are left out, but
    for never, every alarm and the one that is recommended.
    """
    interval = f"{100 * plan.confidence_level:g}% interval"
    every = max(1, len(plan.course) // _MOST_ROWS + (len(plan.course) % _MOST_ROWS > 0))
    course = _table(
        ("date", "index", interval, "accuracy", interval, "below the floor by then"),
        (
            (
                look.date.isoformat(),
                *_told(look.index, ".3f"),
                *_told(look.accuracy, ".3f"),
                f"{look.below:.0%}",
            )
            for look in plan.course[::every]
        ),
    )
    scale = _SECONDS_PER_HOUR if plan.cost_measure == "duration_s" else 1.0
    limits = () if plan.budget is None else tuple(plan.schedules[0].in_budget)
    schedules = _table(
        (
            "schedule", "updates a year", interval, _COSTS[plan.cost_measure], interval,
            "looks kept", "keeps", "always", *limits,
        ),
        (
            (
                f"{schedule.name} *" if schedule.name == plan.recommended else schedule.name,
                *_told(schedule.updates, ".2g"),
                *_told(schedule.cost[plan.cost_measure], ".3g", scale),
                f"{schedule.share_kept:.0%}",
                f"{schedule.keeps:.0%}",
                f"{schedule.always:.0%}",
                *(f"{schedule.in_budget[limit]:.0%}" for limit in limits),
            )
            for schedule in _worth_showing(plan)
        ),
    )  # fmt: skip
    in_all = _COSTS[plan.cost_measure].removesuffix(" a year")
    delays = _table(
        ("first update in days", in_all, interval, "days below", interval, "keeps"),
        (
            (
                f"{delay.days:g}",
                *_told(delay.cost, ".3g", scale),
                *_told(delay.days_below, ".3g"),
                f"{delay.keeps:.0%}",
            )
            for delay in plan.delays
        ),
    )
    of = f"an accuracy of {plan.accuracy_floor:g} or more at {plan.share:.0%} of the looks"
    lines = [
        plan.advice(),
        f"keeps: the probability of {of}",
        *(f"warning: {note}" for note in plan.notes),
        str(plan.signature),
    ]
    return Group(
        Text(plan.title()),
        Text(f"{plan.drift}; {plan.expectation()}"),
        Text(),
        course,
        Text(),
        Text(f"Schedules, each until {plan.target}:"),
        schedules,
        Text(),
        Text(f"Updates now or later, then {plan.nearest}:"),
        delays,
        Text(),
        *map(Text, lines),
    )


def _worth_showing(plan: Plan) -> list[Schedule]:
    shown, surest = [], -1.0
    for schedule in plan.schedules:
        named = schedule.rule.kind in ("never", "alarm") or schedule.name == plan.nearest
        if named or schedule.keeps > surest:
            shown.append(schedule)
        surest = max(surest, schedule.keeps)
    return shown


def _told(estimate: Estimate, form: str, scale: float = 1.0) -> tuple[str, str]:
    median, lower, upper = (
        f"{value / scale:{form}}" for value in (estimate.median, estimate.lower, estimate.upper)
    )
    return median, f"{lower} to {upper}"


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
