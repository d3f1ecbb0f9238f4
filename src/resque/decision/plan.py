"""A year of updates: how long a model lasts, and the cheapest schedule that keeps its accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from resque.decision.drift import (
    DAYS_PER_YEAR,
    FEWEST_ACCURACIES,
    FEWEST_INCREMENTS,
    AccuracyCurve,
    Drift,
)
from resque.decision.schedules import (
    ALARM,
    COSTS,
    LIMITS,
    SAME,
    Courses,
    Delay,
    Judging,
    Schedule,
    UpdateCosts,
    nearest_schedule,
    over_courses,
    rules_of,
)
from resque.errors import InputError
from resque.forecasting.budget import Budget
from resque.forecasting.forecast import Estimate
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.preflight import Preflight
from resque.forecasting.regression import Floats
from resque.history.records import Accuracy, Plateau, Target, fields_of, target_to_dict
from resque.index.profile import ClassProfile
from resque.index.shift import Labels, ShiftIndex, checked_level, shift_index
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

if TYPE_CHECKING:
    from resque.history.records import Grid
    from resque.history.store import History
    from resque.history.update import Update

FORMAT = "resque.Plan/1"
_FEWEST_PATHS = 100
# Of a drift: with so many, what it will be like later is not seen.
_FEW_INCREMENTS = 6
# Looks before the first update that are compared.
_DELAYS = (0, 1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What is expected of the model as it is, at one date.

    Attributes:
        date: of the look.
        index: debiased RESQUE_dist against what the model knows.
        accuracy: of the model without any update.
        below: probability that it has fallen below the floor by then.
    """

    date: date
    index: Estimate
    accuracy: Estimate
    below: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """When the accuracy falls below its floor, if nothing is done.

    Attributes:
        median: date; None where that is after the horizon.
        lower: lower bound of its interval; None likewise.
        upper: upper bound.
        within: probability that it happens within the horizon.
    """

    median: date | None
    lower: date | None
    upper: date | None
    within: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """When to update a model, and what that costs; made by `plan`.

    Attributes:
        start: the day of the last profile, from which the plan counts.
        index: of that profile against what the model knows, as `ShiftIndex.to_dict` gives it.
        drift: how the index grows.
        curve: what that costs in accuracy.
        crossing: when the accuracy falls below the floor without any update.
        course: index and accuracy without any update, look by look; the first is today.
        schedules: what each rule comes to, the cheapest first.
        recommended: name of the cheapest that does what is asked; None where none does.
        nearest: name of that which comes nearest; that one where one does it.
        delays: what waiting with the first update costs, under the nearest schedule.
        cost_measure: by which schedules are compared.
        accuracy_floor: as asked.
        share: of looks at which the accuracy must be at or above it.
        budget: of a year; None for no limit.
        target: what ends an update.
        horizon_days: length of the plan.
        period_days: from one look to the next.
        confidence_level: of the intervals, and the probability with which all must hold.
        paths: courses that were drawn.
        seed: of them.
        notes: what to know before relying on it.
        signature: of the last index.

    Example:
        >>> from datetime import date
        >>> import torch, resque
        >>> x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        >>> model = torch.nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[4.0, 0, 0, 0], [-4.0, 0, 0, 0]]))
        >>> y = (x[:, 0] < 0).long()
        >>> moved = [(date(2026, month, 1), resque.profile(model, (
        ...     x + torch.tensor([0.1, 0.2, 0, 0]) * month, y))) for month in range(1, 6)]
        >>> ahead = resque.preflight(model, (x, y), meter="none")
        >>> found = plan(moved, accuracy_floor=0.8, update=ahead, confidence_level=0.8, paths=200)
        >>> found.nearest in [schedule.name for schedule in found.schedules]
        True
    """

    start: date
    index: Mapping[str, Any]
    drift: Drift
    curve: AccuracyCurve
    crossing: Crossing
    course: tuple[Look, ...]
    schedules: tuple[Schedule, ...]
    recommended: str | None
    nearest: str
    delays: tuple[Delay, ...]
    cost_measure: str
    accuracy_floor: float
    share: float
    budget: Budget | None
    target: Target
    horizon_days: float
    period_days: float
    confidence_level: float
    paths: int
    seed: int
    notes: tuple[str, ...]
    signature: Signature

    _repr_html_ = shown_in_notebook

    def schedule(self, name: str) -> Schedule:
        """Return a schedule by its name.

        Raises:
            InputError: there is none of that name.
        """
        for found in self.schedules:
            if found.name == name:
                return found
        raise InputError(
            f"The plan has no schedule {name!r}; it has "
            f"{', '.join(repr(found.name) for found in self.schedules)}."
        )

    def due(
        self, look: int, shift: ShiftIndex, accuracy: float, *, name: str | None = None
    ) -> bool:
        """Return whether an update is to be made at a look, by what has then been measured.

        Args:
            look: periods since the day of the plan.
            shift: of the data of that look against those of the last update.
            accuracy: of the model in use where nothing has moved: that of its last update, or
                `curve.level` before there is one.
            name: of a schedule; by default the nearest.

        Raises:
            InputError: there is no such schedule, or the index is unresolved.
        """
        rule = self.schedule(self.nearest if name is None else name).rule
        if shift.debiased is None:
            raise InputError("The index of this look is unresolved; profile more data.")
        ahead = shift.debiased + self.drift.expected(self.period_days / DAYS_PER_YEAR)
        spare = accuracy - float(self.curve.lost(ahead)) - self.accuracy_floor
        alarm = shift.p_value is not None and shift.p_value < ALARM
        return bool(rule.due(look, alarm=alarm, spare=spare))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types."""
        crossing = self.crossing

        def told(day: date | None) -> str | None:
            return None if day is None else day.isoformat()

        return {
            "format": FORMAT,
            "start": self.start.isoformat(),
            "index": dict(self.index),
            "drift": {
                name: value for name, value in fields_of(self.drift).items() if name != "laws"
            }
            | {"accelerates": self.drift.accelerates},
            "curve": {
                name: getattr(self.curve, name)
                for name in (
                    "level",
                    "steepness",
                    "power",
                    "spread",
                    "points",
                    "updates",
                    "reach",
                    "beyond",
                )
            },
            "crossing": {
                "median": told(crossing.median),
                "lower": told(crossing.lower),
                "upper": told(crossing.upper),
                "within": crossing.within,
            },
            "course": [
                {
                    "date": look.date.isoformat(),
                    "index": fields_of(look.index),
                    "accuracy": fields_of(look.accuracy),
                    "below": look.below,
                }
                for look in self.course
            ],
            "schedules": [schedule.to_dict() for schedule in self.schedules],
            "recommended": self.recommended,
            "nearest": self.nearest,
            "delays": [
                fields_of(delay)
                | {"cost": fields_of(delay.cost), "days_below": fields_of(delay.days_below)}
                for delay in self.delays
            ],
            "cost_measure": self.cost_measure,
            "accuracy_floor": self.accuracy_floor,
            "share": self.share,
            "budget": self.budget and fields_of(self.budget),
            "target": target_to_dict(self.target),
            "horizon_days": self.horizon_days,
            "period_days": self.period_days,
            "confidence_level": self.confidence_level,
            "paths": self.paths,
            "seed": self.seed,
            "notes": list(self.notes),
            "signature": self.signature.to_dict(),
        }

    def __str__(self) -> str:
        lines = [
            self.title(),
            f"{self.drift}; today the index is {self.course[0].index.median:.3g}",
            self.expectation(),
            self.advice(),
            *(f"warning: {note}" for note in self.notes),
        ]
        return "\n".join([*lines, str(self.signature)])

    def title(self) -> str:
        """Return in words what is planned."""
        return (
            f"plan of {self.horizon_days:g} days from {self.start}, a look every "
            f"{self.period_days:g} days"
        )

    def expectation(self) -> str:
        """Return in a sentence when the accuracy falls below its floor."""
        crossing, level = self.crossing, f"{self.confidence_level:.0%}"
        within = f"with {crossing.within:.0%} probability within the horizon"
        if crossing.within == 0:
            return f"the accuracy stays at or above {self.accuracy_floor:g} within the horizon"
        if crossing.median is None:
            return f"the accuracy falls below {self.accuracy_floor:g} {within}"
        if crossing.upper == self.start:
            return f"the accuracy is below {self.accuracy_floor:g} already"
        end = "after the horizon" if crossing.upper is None else f"{crossing.upper}"
        return (
            f"the accuracy falls below {self.accuracy_floor:g} about {crossing.median} ({level} "
            f"interval {crossing.lower} to {end}), {within}"
        )

    def advice(self) -> str:
        """Return in a sentence which schedule to follow."""
        found = self.schedule(self.nearest)
        cost = found.cost[self.cost_measure]
        if self.recommended is not None:
            return f"cheapest that does it: {found.name}: {found.updates} updates and {cost} a year"
        limits = "" if self.budget is None else " within the budget"
        return (
            f"no schedule keeps the accuracy at or above {self.accuracy_floor:g} at "
            f"{self.share:.0%} of the looks{limits} with {self.confidence_level:.0%} probability; "
            f"nearest comes {found.name}: {found.sure:.0%}"
        )


def plan(
    series: Sequence[tuple[date | None, ClassProfile]],
    *,
    accuracy_floor: float,
    update: Preflight,
    target: Target | None = None,
    history: History | Iterable[Update] | None = None,
    corpus: bool = True,
    forecaster: Forecaster | None = None,
    drift: Drift | None = None,
    budget: Budget | None = None,
    grid: float | str | Grid | None = None,
    horizon_days: float = 365.0,
    period_days: float | None = None,
    share: float = 0.9,
    confidence_level: float = 0.9,
    labels: Labels = "true",
    paths: int = 1000,
    seed: int = 0,
) -> Plan:
    """Return when to update a model, and what that costs, over the time to come.

    Courses of the index are drawn as uncertain as the series leaves them; each costs accuracy
    by a curve fitted to the labelled profiles; an update sets the index back to zero, costs what
    the forecaster says at the index reached, and gives the accuracy that it says. All rules are
    played on the same courses. docs/plan.md has the equations.

    Not for changes that come at once: a plan goes on as the data did.

    Args:
        series: (date, profile), dates rising: first what the model was trained on, whose date
            may be None, then data that arrived later, all profiled with that model. Their outputs
            give the accuracy; that of the first is not used, because a model knows its training
            data by heart.
        accuracy_floor: which the accuracy must not fall below, 0 to 1.
        update: pre-flight of an update with data of these days: its recipe, its sizes, and what a
            step costs.
        target: what ends an update; by default `Plateau(5)`.
        history: own updates; see `resque.forecast`.
        corpus: likewise.
        forecaster: to be used in place of `history` and `corpus`.
        drift: how the index grows, where that is known otherwise; the series then may be short.
        budget: of a year; `max_energy_kwh`, `max_carbon_kg`, `max_hours`, `max_epochs`.
        grid: see `resque.forecast`.
        horizon_days: length of the plan.
        period_days: from one look at the data to the next; by default as the series was.
        share: of looks at which the accuracy must be at or above the floor.
        confidence_level: of all intervals, and the probability with which it must hold.
        labels: see `shift_index`.
        paths: courses to draw.
        seed: of them.

    Raises:
        NotComparableError: the profiles are of different models.
        InputError: the series is out of order or too short, an argument is impossible, or there
            are too few labels or updates; the message says what is needed.

    Example:
        >>> import torch, resque
        >>> y = torch.arange(400) % 2
        >>> noise = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        >>> x, model = 2 * torch.eye(4)[y] + noise, torch.nn.Linear(4, 2)
        >>> today = x + torch.tensor([0.0, 0.0, 0.5, 0.0])
        >>> sides = resque.profile(model, (x, y)), resque.profile(model, (today, y))
        >>> series = [(date(2026, 1, 1), sides[0]), (date(2026, 2, 1), sides[1])]
        >>> ahead = resque.preflight(model, (today, y), meter="none")
        >>> found = plan(
        ...     series, accuracy_floor=0.1, update=ahead, confidence_level=0.5, paths=100,
        ...     drift=Drift(per_year=0.1, spread=0.02),
        ... )
        >>> found.period_days, len(found.course)
        (31.0, 12)
    """
    _check(accuracy_floor, update, target, budget, horizon_days, share, paths, seed)
    checked_level(confidence_level)
    if forecaster is not None and history is not None:
        raise InputError("A forecaster has its history already; give forecaster= or history=.")
    target = Plateau(5.0) if target is None else target
    dates, profiles = _checked_series(series, drift)
    shifts = [shift_index(profiles[0], profile, labels=labels) for profile in profiles[1:]]
    indices = _debiased(shifts, dates)
    if drift is None:
        drift = _drift_of(dates, indices)
    if period_days is None:
        period_days = _period_of(dates)
    looks = _looks_of(horizon_days, period_days)
    if forecaster is None:
        forecaster = Forecaster(history, corpus=corpus)
    curve, notes = _curve_of(profiles, indices, forecaster)
    notes = [
        *_notes_of(drift, curve, indices, horizon_days),
        *notes,
        *_of_another(update, shifts[-1]),
        *_of_alarms(shifts[-1]),
    ]
    rng = np.random.default_rng(seed)
    years = period_days / DAYS_PER_YEAR
    course = indices[-1] + drift.growth(paths, looks, years, rng)
    course = np.maximum(course, 0.0)
    curves = curve.drawn(paths, rng)
    # A straight line goes below chance, and no classifier does that is not perverse.
    chance = 1 / max(len(profiles[0].class_names), 1)
    accuracies = np.clip(curves.level[:, None] - curves.lost(course), chance, 1.0)
    start = dates[-1]
    assert start is not None  # noqa: S101  # narrows the type: only the first date may be None
    farthest = min(max(float(np.quantile(course[:, -1], 0.95)), indices[-1], 1e-3), 1.0)
    outputs = profiles[0].outputs
    costs = UpdateCosts.of(
        forecaster, update, target, grid, curve,
        None if outputs is None else outputs.accuracy, farthest, confidence_level,
        rng.uniform(size=(2, paths)),
    )  # fmt: skip
    notes += costs.notes
    if budget is not None:
        _require_costs(budget, costs)
    courses = Courses(
        index=course, curves=curves, curve=curve, costs=costs, floor=accuracy_floor,
        ahead=drift.expected(years), noise=_noise_of(shifts[-1]),
        seen=rng.normal(size=(paths, looks)),
    )  # fmt: skip
    judging = Judging(
        budget=budget, years=looks * years, period_days=period_days, share=share,
        level=confidence_level,
    )  # fmt: skip
    measure = _cost_measure(budget, costs)
    schedules = sorted(
        (judging.schedule(rule, courses.played(rule)) for rule in rules_of(looks)),
        key=lambda schedule: schedule.mean_cost[measure],
    )
    best, does = nearest_schedule(schedules, confidence_level)
    return Plan(
        start=start,
        index=shifts[-1].to_dict(),
        drift=drift,
        curve=curve,
        crossing=crossing_of(accuracies, accuracy_floor, start, period_days, confidence_level),
        course=_course(course, accuracies, accuracy_floor, start, period_days, confidence_level),
        schedules=tuple(schedules),
        recommended=best.name if does else None,
        nearest=best.name,
        delays=tuple(
            judging.delay(delay, courses.played(best.rule, wait=delay), measure)
            for delay in _DELAYS
            if delay < looks
        ),
        cost_measure=measure,
        accuracy_floor=accuracy_floor,
        share=share,
        budget=budget,
        target=target,
        horizon_days=horizon_days,
        period_days=period_days,
        confidence_level=confidence_level,
        paths=paths,
        seed=seed,
        notes=tuple(dict.fromkeys(notes)),
        signature=shifts[-1].signature,
    )


def crossing_of(
    accuracies: Floats, floor: float, start: date, period_days: float, level: float
) -> Crossing:
    """Return when accuracies fall below a floor, straight from look to look.

    Args:
        accuracies: without any update (paths, looks + 1), the first today.
        floor: of them.
        start: today.
        period_days: from one look to the next.
        level: confidence level of the interval.
    """
    below = accuracies < floor - SAME
    ever = below.any(axis=1)
    look = below.argmax(axis=1)
    paths = np.arange(len(accuracies))
    after, before = accuracies[paths, look], accuracies[paths, np.maximum(look - 1, 0)]
    fell = before - after
    part = np.divide(before - floor, fell, out=np.zeros(len(fell)), where=fell > 0)
    days = np.where(ever, np.maximum(look - 1 + part, 0) * period_days, np.inf)
    tail = (1 - level) / 2
    lower, median, upper = (
        # Without interpolation: what never falls is at infinity.
        float(np.quantile(days, at, method="inverted_cdf"))
        for at in (tail, 0.5, 1 - tail)
    )

    def day(of: float) -> date | None:
        return start + timedelta(days=round(of)) if math.isfinite(of) else None

    return Crossing(
        median=day(median), lower=day(lower), upper=day(upper), within=float(ever.mean())
    )


def _course(
    course: Floats, accuracies: Floats, floor: float, start: date, period_days: float, level: float
) -> tuple[Look, ...]:
    below = np.logical_or.accumulate(accuracies < floor - SAME, axis=1).mean(axis=0)
    return tuple(
        Look(
            date=start + timedelta(days=look * period_days),
            index=over_courses(course[:, look], level, ""),
            accuracy=over_courses(accuracies[:, look], level, ""),
            below=float(below[look]),
        )
        for look in range(course.shape[1])
    )


def _noise_of(shift: ShiftIndex) -> float:
    """Return the standard error of an index, on the scale of the cosine; 0 without an interval."""
    if shift.upper is None or shift.debiased is None:
        return 0.0
    reach = math.cos(math.pi * shift.debiased) - math.cos(math.pi * shift.upper)
    return float(reach / norm.ppf((1 + shift.confidence_level) / 2))


def _cost_measure(budget: Budget | None, costs: UpdateCosts) -> str:
    for limit, (measure, _) in LIMITS.items():
        if getattr(budget, limit, None) is not None:
            return measure
    return next(measure for measure in COSTS if measure in costs.tables)


def _require_costs(budget: Budget, costs: UpdateCosts) -> None:
    for limit, (measure, _) in LIMITS.items():
        if getattr(budget, limit) is not None and measure not in costs.tables:
            raise InputError(
                f"{limit} cannot be planned for without {measure}: {costs.missing[measure]}."
            )


def _drift_of(dates: Sequence[date | None], indices: Sequence[float]) -> Drift:
    at = [*([] if dates[0] is None else [(dates[0], 0.0)])]
    at += [(day, index) for day, index in zip(dates[1:], indices, strict=True) if day is not None]
    first = at[0][0]
    return Drift.of_course(
        [(day - first).days / DAYS_PER_YEAR for day, _ in at],
        [index for _, index in at],
        # The first profile is of the data that the model was trained on.
        age=None if dates[0] is None else 0.0,
    )


def _curve_of(
    profiles: Sequence[ClassProfile], indices: Sequence[float], forecaster: Forecaster
) -> tuple[AccuracyCurve, list[str]]:
    measured = [
        (index, profile.outputs.accuracy)
        for index, profile in zip(indices, profiles[1:], strict=True)
        if profile.outputs is not None and profile.outputs.accuracy is not None
    ]
    notes = []
    if not measured:
        first = profiles[0].outputs
        if first is None or first.accuracy is None:
            raise InputError(
                "No profile tells of an accuracy: the data have no labels, or the model no output "
                "for their classes. Profile labelled data through the whole model, with "
                "class_names in the order of its outputs."
            )
        notes.append(
            "No later profile has labels: the accuracy is that on the data that the model was "
            "trained on, and new data may read lower without any drift."
        )
        measured = [(0.0, first.accuracy)]
    x, y = [index for index, _ in measured], [float(accuracy) for _, accuracy in measured]
    if len(set(x)) > 1 and len(x) >= FEWEST_ACCURACIES:
        return AccuracyCurve.fitted(x, y, forecaster.experience), notes
    curve = AccuracyCurve.of_updates(forecaster.experience, x, y)
    notes.append(
        f"What drift costs in accuracy is that of {curve.updates} known updates: a curve of the "
        f"model's own needs {FEWEST_ACCURACIES} labelled profiles after the first, and there are "
        f"{len(x)}."
    )
    return curve, notes


def _notes_of(
    drift: Drift, curve: AccuracyCurve, indices: Sequence[float], horizon_days: float
) -> list[str]:
    notes = []
    if drift.per_year < 0:
        notes.append(f"The index fell, by {-drift.per_year:.3g} a year; the plan takes it to stay.")
    expected = indices[-1] + drift.expected(horizon_days / DAYS_PER_YEAR)
    if expected > 2 * max(indices) and expected > max(indices) + 0.01:
        by = f"falls as with {curve.updates} known updates" if curve.updates else "is extrapolated"
        notes.append(
            f"Without an update the index is expected to reach {expected:.3g}, and the series "
            f"shows no more than {max(indices):.3g}: beyond that the accuracy {by}."
        )
    if drift.increments is not None and drift.increments <= _FEW_INCREMENTS:
        # docs/plan.md, "Checked on drifts that were replayed".
        notes.append(
            f"{drift.increments} increments tell little of what is to come: of 18 replays, plans "
            "that were asked for 80 % probability kept what was asked in 11. Make the plan anew "
            "with each profile, and update at alarms as well."
        )
    if horizon_days < DAYS_PER_YEAR - 1:
        notes.append(f"Costs of a year are those of {horizon_days:g} days, as if they went on so.")
    return notes


def _of_another(update: Preflight, shift: ShiftIndex) -> list[str]:
    mine, theirs = update.signature.model, shift.signature.model
    # A model may go by two names; the same weights are the same model.
    weights = update.signature.weights
    if mine == theirs or (weights is not None and weights == shift.signature.weights):
        return []
    told = f"The pre-flight is of {mine!r}, and the profiles are of {theirs!r}"
    return [f"{told}: costs are those of the former."]


def _of_alarms(shift: ShiftIndex) -> list[str]:
    if shift.upper is not None and shift.p_value is not None:
        return []
    note = (
        "The index has no interval or no test: what updates at every alarm come to is that of an "
        "index without noise, and none would be told of when it is time. Profile with more groups "
        "or more data."
    )
    return [note]


def _period_of(dates: Sequence[date | None]) -> float:
    known = [day for day in dates if day is not None]
    if len(known) < 2:
        raise InputError(
            "From one date no period between looks can be told; give period_days, or the dates of "
            "more profiles."
        )
    return float(np.median([(b - a).days for a, b in pairwise(known)]))


def _looks_of(horizon_days: float, period_days: float) -> int:
    if not (math.isfinite(period_days) and period_days > 0):
        raise InputError(f"period_days must be above 0; got {period_days!r}.")
    looks = math.floor(horizon_days / period_days + 1e-9)
    if looks < 1:
        raise InputError(
            f"A horizon of {horizon_days:g} days has no look in it, with one every "
            f"{period_days:g} days. Give a longer horizon_days, or a shorter period_days."
        )
    return looks


def _debiased(shifts: Sequence[ShiftIndex], dates: Sequence[date | None]) -> list[float]:
    for shift, day in zip(shifts, dates[1:], strict=True):
        if shift.debiased is None:
            raise InputError(
                f"The profile of {day} has too few examples for a debiased index, and a raw one "
                "grows with the sample. Profile more data of that time, or leave it out."
            )
    return [float(shift.debiased or 0.0) for shift in shifts]


def _checked_series(
    series: Any, drift: Drift | None
) -> tuple[list[date | None], list[ClassProfile]]:
    if drift is not None and not isinstance(drift, Drift):
        raise InputError(
            f"drift must be a Drift, such as Drift(per_year=0.1, spread=0.02); got {drift!r}."
        )
    pairs = list(series) if isinstance(series, Sequence) and not isinstance(series, str) else None
    if pairs is None or any(not isinstance(p, tuple | list) or len(p) != 2 for p in pairs):
        raise InputError(
            "series must be pairs (date, profile), the first of what the model knows; got "
            f"{type(series).__name__}."
        )
    if not pairs:
        raise InputError(
            "series is empty; give the profile of the data that the model was trained on, and "
            "those of data that arrived later."
        )
    dates: list[date | None] = []
    for place, (given, profile) in enumerate(pairs):
        day = given.date() if isinstance(given, datetime) else given
        if not isinstance(day, date) and not (day is None and place == 0):
            raise InputError(
                f"A profile's time must be a datetime.date; got {day!r} at place {place}. Only the "
                "first may be None."
            )
        if not isinstance(profile, ClassProfile):
            raise InputError(
                f"series holds profiles, which resque.profile makes; got a "
                f"{type(profile).__name__} at place {place}."
            )
        earlier = dates[-1] if dates else None
        if day is not None and earlier is not None and day <= earlier:
            raise InputError(
                f"The series is out of order: {day} comes after {earlier}. Give the profiles by "
                "rising date, one of each date."
            )
        dates.append(day)
    needed = 1 if drift is not None else FEWEST_INCREMENTS + (dates[0] is None)
    if len(dates) - 1 < needed:
        undated = ", and one more where the first has no date" if drift is None else ""
        raise InputError(
            f"A plan needs {1 if drift is not None else FEWEST_INCREMENTS} or more profiles after "
            f"the first{undated}; got {len(dates) - 1}. Profile data of more dates"
            f"{'' if drift is not None else ', or say how fast they drift: drift=Drift(...)'}."
        )
    return dates, [profile for _, profile in pairs]


def _check(
    floor: Any,
    update: Any,
    target: Any,
    budget: Any,
    horizon_days: Any,
    share: Any,
    paths: Any,
    seed: Any,
) -> None:
    if not 0 < floor < 1:
        raise InputError(f"accuracy_floor must be above 0 and below 1; got {floor!r}.")
    if not isinstance(update, Preflight):
        raise InputError(
            "update must be a Preflight, which resque.preflight or resque.load_preflight gives; "
            f"got {type(update).__name__}."
        )
    if isinstance(target, Accuracy) and target.value < floor:
        raise InputError(
            f"Updates that end at an accuracy of {target.value:g} cannot keep a floor of {floor:g}."
            " Give a target above it, or Plateau()."
        )
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a Budget, such as Budget(max_hours=10); got {budget!r}.")
    if budget is not None and budget.min_accuracy is not None:
        raise InputError(
            f"The accuracy of a plan is its accuracy_floor, {floor:g}; the budget also has "
            f"min_accuracy={budget.min_accuracy:g}. Leave that out."
        )
    if not (math.isfinite(horizon_days) and horizon_days > 0):
        raise InputError(f"horizon_days must be above 0; got {horizon_days!r}.")
    if not 0 < share <= 1:
        raise InputError(f"share must be above 0 and at most 1; got {share!r}.")
    if not isinstance(paths, int) or paths < _FEWEST_PATHS:
        raise InputError(f"paths must be {_FEWEST_PATHS} or more; got {paths!r}.")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number of 0 or more; got {seed!r}.")
