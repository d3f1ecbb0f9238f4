"""Schedules of updates: rules, played on courses of drift, and what each of them comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from resque.decision.choice import quantiles
from resque.decision.drift import AccuracyCurve, Curves
from resque.forecasting.budget import Budget
from resque.forecasting.forecast import UNITS, Estimate
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.predictors import SHIFT
from resque.forecasting.preflight import Preflight
from resque.forecasting.regression import Floats
from resque.history.records import Accuracy, Target, fields_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Costs, the one that is compared first; and limit of a budget -> cost, units of it in one.
COSTS = ("energy_kwh", "carbon_kg", "duration_s", "epochs")
LIMITS: Mapping[str, tuple[str, float]] = {
    "max_energy_kwh": ("energy_kwh", 1.0),
    "max_carbon_kg": ("carbon_kg", 1.0),
    "max_hours": ("duration_s", 3600.0),
    "max_epochs": ("epochs", 1.0),
}
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1)
# An alarm is an index that is significant at this level: its point of a normal, one-sided.
ALARM = 0.05
_ALARM_AT = float(norm.ppf(1 - ALARM))
# Between the indices at which an update is forecast its cost is interpolated.
_INDICES = 6
_LONGEST_CALENDAR = 12
# An accuracy that equals the floor is at it.
SAME = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """When an update is made.

    Attributes:
        kind: "never"; "calendar", every so many looks; "alarm", whenever the test of the index
            says that something moved; "forecast", when the accuracy forecast for the next look,
            less a margin, is below the floor.
        every: looks from one update of a calendar to the next; 0 otherwise.
        first: look of its first update, 0 for now.
        margin: of accuracy, for "forecast".

    Example:
        >>> rule = Rule(kind="calendar", every=3, first=3)
        >>> [look for look in range(8) if rule.due(look, alarm=False, spare=1.0)]
        [3, 6]
    """

    kind: str
    every: int = 0
    first: int = 0
    margin: float = 0.0

    def due(self, look: int, *, alarm: Any, spare: Any) -> Any:
        """Return whether an update is to be made at a look.

        Args:
            look: how many there were before; 0 is the day of the plan.
            alarm: whether the index is significant; (paths,) or one.
            spare: accuracy forecast for the next look, less the floor; likewise.
        """
        if self.kind == "calendar":
            now = look >= self.first and (look - self.first) % self.every == 0
            return np.full_like(spare, now, dtype=bool)
        if self.kind == "alarm":
            return alarm
        if self.kind == "forecast":
            return spare < self.margin
        return np.zeros_like(spare, dtype=bool)

    def told(self, period_days: float) -> str:
        """Return the rule in words.

        Args:
            period_days: from one look to the next.
        """
        if self.kind == "calendar":
            begun = f"first in {self.first * period_days:g}" if self.first else "from today"
            return f"every {self.every * period_days:g} days, {begun}"
        if self.kind == "alarm":
            return "at every alarm"
        if self.kind == "forecast":
            return f"forecast below floor + {self.margin:g}"
        return "never"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A rule, and what following it comes to.

    Attributes:
        name: of the rule, in words.
        rule: when an update is made.
        updates: a year.
        cost: measure -> what they cost a year.
        mean_cost: measure -> mean of that cost, by which schedules are compared.
        share_kept: share of looks at which the accuracy is at or above the floor, on average.
        keeps: probability that it is for the asked share of looks.
        always: probability that it is for all of them.
        in_budget: limit -> probability that a year of it stays within.
    """

    name: str
    rule: Rule
    updates: Estimate
    cost: Mapping[str, Estimate]
    mean_cost: Mapping[str, float]
    share_kept: float
    keeps: float
    always: float
    in_budget: Mapping[str, float]

    @property
    def sure(self) -> float:
        """Probability of the least probable thing that is asked of it."""
        return min([self.keeps, *self.in_budget.values()])

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as plain JSON types."""
        return fields_of(self) | {
            "rule": fields_of(self.rule),
            "updates": fields_of(self.updates),
            "cost": {name: fields_of(of) for name, of in self.cost.items()},
            "mean_cost": dict(self.mean_cost),
            "in_budget": dict(self.in_budget),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Delay:
    """What comes of it when the first update is made so much later.

    Attributes:
        days: from today to the first update, whatever the rule says; the rule goes on from it.
        cost: within the horizon, in the measure by which schedules are compared.
        days_below: within the horizon on which the accuracy is below the floor.
        keeps: probability of the asked share of looks at or above the floor.
    """

    days: float
    cost: Estimate
    days_below: Estimate
    keeps: float


@dataclass(frozen=True, slots=True)
class UpdateCosts:
    """What an update costs and reaches, by the index at which it is made, on each course.

    A course keeps its quantile: a forecaster that is wrong about one update is as wrong about the
    next one.

    Attributes:
        step: between the indices at which updates were forecast.
        tables: cost or "accuracy" -> its value (indices, paths).
        missing: cost -> why there is none.
        notes: of the forecasts.
    """

    step: float
    tables: Mapping[str, Floats]
    missing: Mapping[str, str]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        forecaster: Forecaster,
        update: Preflight,
        target: Target,
        grid: Any,
        curve: AccuracyCurve,
        known: float | None,
        farthest: float,
        level: float,
        shares: Floats,
    ) -> UpdateCosts:
        """Return the forecasts of updates made at indices from 0 on.

        Args:
            forecaster: of them.
            update: pre-flight of an update made today.
            target: what ends an update.
            grid: see `resque.forecast`.
            curve: what an index costs in accuracy.
            known: accuracy on the data that the model knows; None where it was not measured.
            farthest: index; what lies beyond is taken to cost as much as there.
            level: confidence level that the known updates must support.
            shares: quantile of the costs and of the accuracy on each course (2, paths).
        """
        step = farthest / (_INDICES - 1)
        found = [
            forecaster.forecast(
                _at(update, index, curve, known), target=target, grid=grid,
                confidence_level=level, from_scratch=False,
            )
            for index in step * np.arange(_INDICES)
        ]  # fmt: skip
        tables = {
            name: np.stack([quantiles(told.distributions[name], shares[0]) for told in found])
            for name in COSTS
            if name in found[0].distributions
        }
        tables["accuracy"] = np.stack(
            [quantiles(told.distributions["peak_accuracy"], shares[1]) for told in found]
        )
        if isinstance(target, Accuracy):
            tables["accuracy"] = np.minimum(tables["accuracy"], target.value)
        notes = [f"forecast of an update: {note}" for told in found for note in told.notes]
        return cls(step, tables, found[0].missing, tuple(dict.fromkeys(notes)))

    def at(self, measure: str, index: Floats) -> Floats:
        """Return a measure of an update made at an index (paths,), straight between forecasts.

        Args:
            measure: a cost, or "accuracy".
            index: debiased (paths,).
        """
        table = self.tables[measure]
        place = np.minimum(index / self.step, _INDICES - 1)
        low = np.minimum(place.astype(np.int64), _INDICES - 2)
        paths = np.arange(len(index))
        part = place - low
        found: Floats = (1 - part) * table[low, paths] + part * table[low + 1, paths]
        return found


@dataclass(frozen=True, slots=True)
class Played:
    """What a rule came to on each course.

    Attributes:
        updates: how many (paths,).
        cost: measure -> of all of them (paths,).
        above: whether the accuracy was at or above the floor (paths, looks).
    """

    updates: Floats
    cost: Mapping[str, Floats]
    above: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Courses:
    """Courses on which rules are played, the same for all of them.

    Attributes:
        index: against what the model knows today, if it stays as it is (paths, looks + 1).
        curves: what an index costs in accuracy, on each course.
        curve: the same as the rules take it to be.
        costs: of updates.
        floor: of the accuracy.
        ahead: growth of the index until the next look that the rules expect.
        noise: standard error of an index that is measured, on the scale of the cosine.
        seen: that noise in units of its standard error (paths, looks).
    """

    index: Floats
    curves: Curves
    curve: AccuracyCurve
    costs: UpdateCosts
    floor: float
    ahead: float
    noise: float
    seen: Floats

    def played(self, rule: Rule, *, wait: int | None = None) -> Played:
        """Return what comes of a rule.

        At each look the data of the period before it have been served by the model in use; then
        the rule decides, and an update learns those data.

        Args:
            rule: to follow.
            wait: looks before the first update, which is then made in any case; None to leave
                that to the rule.
        """
        paths, looks = len(self.index), self.index.shape[1] - 1
        since = np.zeros(paths)
        level = self.curves.level
        # Before the first update the accuracy at index 0 is known from the fitted curve alone.
        told = np.full(paths, self.curve.level)
        updates = np.zeros(paths)
        cost = {name: np.zeros(paths) for name in self.costs.tables if name != "accuracy"}
        above = np.empty((paths, looks), bool)
        for look in range(looks):
            index = np.maximum(self.index[:, look] - since, 0.0)
            if wait is not None and look <= wait:
                due = np.full(paths, look == wait)
            else:
                due = rule.due(look, **self._measured(index, look, told))
            if due.any():
                updates += due
                for name in cost:
                    cost[name] += np.where(due, self.costs.at(name, index), 0.0)
                level = np.where(due, self.costs.at("accuracy", index), level)
                told = np.where(due, level, told)
                since = np.where(due, self.index[:, look], since)
            moved = np.maximum(self.index[:, look + 1] - since, 0.0)
            above[:, look] = level - self.curves.lost(moved) >= self.floor - SAME
        return Played(updates, cost, above)

    def _measured(self, index: Floats, look: int, told: Floats) -> dict[str, Any]:
        # Noise is symmetric in the cosine, not in the angle, which is never below zero.
        cosine = np.cos(np.pi * np.minimum(index, 1.0)) + self.noise * self.seen[:, look]
        seen = np.arccos(np.clip(cosine, -1.0, 1.0)) / np.pi
        foretold = told - self.curve.lost(seen + self.ahead)
        return {"alarm": 1 - cosine > _ALARM_AT * self.noise, "spare": foretold - self.floor}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judging:
    """What is asked of a schedule, and how it is told.

    Attributes:
        budget: of a year; None for no limit.
        years: that were played.
        period_days: from one look to the next.
        share: of looks at which the accuracy must be at or above the floor.
        level: confidence level of intervals.
    """

    budget: Budget | None
    years: float
    period_days: float
    share: float
    level: float

    def schedule(self, rule: Rule, played: Played) -> Schedule:
        """Return a rule with what it came to."""
        a_year = {name: spent / self.years for name, spent in played.cost.items()}
        shares = played.above.mean(axis=1)
        return Schedule(
            name=rule.told(self.period_days),
            rule=rule,
            updates=over_courses(played.updates / self.years, self.level, ""),
            cost={name: over_courses(of, self.level, UNITS[name]) for name, of in a_year.items()},
            mean_cost={name: float(of.mean()) for name, of in a_year.items()},
            share_kept=float(shares.mean()),
            keeps=float((shares >= self.share - SAME).mean()),
            always=float(played.above.all(axis=1).mean()),
            in_budget={
                limit: float((a_year[name] <= most * unit).mean())
                for limit, (name, unit) in LIMITS.items()
                if (most := getattr(self.budget, limit, None)) is not None
            },
        )

    def delay(self, wait: int, played: Played, measure: str) -> Delay:
        """Return what came of so many looks before the first update.

        Args:
            wait: looks.
            played: of a rule with that wait.
            measure: of the cost.
        """
        below = (~played.above).sum(axis=1) * self.period_days
        shares = played.above.mean(axis=1)
        return Delay(
            days=wait * self.period_days,
            cost=over_courses(played.cost[measure], self.level, UNITS[measure]),
            days_below=over_courses(below, self.level, "days"),
            keeps=float((shares >= self.share - SAME).mean()),
        )


def rules_of(looks: int) -> list[Rule]:
    """Return the rules that are compared over so many looks."""
    lengths = {*range(1, min(looks, _LONGEST_CALENDAR) + 1), *(looks // part for part in (1, 2, 3))}
    lengths -= {0}
    calendars = [
        Rule(kind="calendar", every=every, first=first)
        for every in sorted(lengths)
        # A calendar that begins after the horizon is that of never.
        for first in (0, every)
        if first < looks
    ]
    forecasts = [Rule(kind="forecast", margin=margin) for margin in MARGINS]
    return [Rule(kind="never"), *calendars, Rule(kind="alarm"), *forecasts]


def nearest_schedule(schedules: Sequence[Schedule], level: float) -> tuple[Schedule, bool]:
    """Return the first schedule that is sure enough, else the surest, and whether one is.

    Args:
        schedules: the cheapest first.
        level: probability with which all that is asked must hold.
    """
    does = [schedule for schedule in schedules if schedule.sure >= level - SAME]
    if does:
        return does[0], True
    return max(schedules, key=lambda schedule: schedule.sure), False


def over_courses(values: Floats, level: float, unit: str) -> Estimate:
    """Return median and interval of what courses came to (paths,)."""
    tail = (1 - level) / 2
    lower, median, upper = np.quantile(values, [tail, 0.5, 1 - tail])
    return Estimate(median=float(median), lower=float(lower), upper=float(upper), unit=unit)


def _at(update: Preflight, index: float, curve: AccuracyCurve, known: float | None) -> Preflight:
    """Return a pre-flight as it would be at an index, without what is not known of it there."""
    accuracy = min(max(curve.level - float(curve.lost(index)), 0.0), 1.0)
    values = {
        **update.values,
        **{name: None for name in (*SHIFT, "loss_before") if name in update.values},
        "RESQUE_dist_debiased": float(index),
        "accuracy_drop": (curve.level if known is None else known) - accuracy,
    }
    if update.values.get("error_before") is not None:
        values["error_before"] = 1 - accuracy
    # What the probe saw of today's data holds for no others.
    probe = update.probe and replace(update.probe, accuracy_before=None)
    return replace(update, values=values, probe=probe)
