"""The plan: the law of drift, what it costs in accuracy, schedules against an oracle, bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import resque
from forecasts import forecast_of
from resque.decision import plan as plan_module
from resque.decision.drift import AccuracyCurve, Curves, Drift
from resque.decision.plan import Plan, crossing_of, plan
from resque.decision.schedules import Courses, Judging, Rule, UpdateCosts, rules_of
from resque.errors import InputError, NotComparableError
from resque.experiments.drift_replay import Played, Replayed, replays, table, totals
from resque.forecasting.forecaster import Forecaster
from resque.index.profile import ClassProfile
from series import PERIOD, START, profile_of, series_of, steady
from simulated import TARGET, preflight_of, simulated
from updates import update_of

UPDATE = preflight_of(-2.0, joules_per_step=10.0)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    """Knows sixty updates, whose accuracy ends between 0.8 and 0.97 for such a pre-flight."""
    return Forecaster(simulated(60), corpus=False)


@pytest.fixture(scope="module")
def drifting() -> list[tuple[date | None, ClassProfile]]:
    """Loses 0.02 of accuracy a period, so that 0.8 is reached 75 days after its last profile."""
    return steady(0.02, 0.02)


def planned(series: Any, forecaster: Forecaster, **changes: Any) -> Plan:
    """A plan with few courses."""
    asked: dict[str, Any] = {
        "accuracy_floor": 0.8, "update": UPDATE, "target": TARGET, "forecaster": forecaster,
        "paths": 200, "confidence_level": 0.8,
    }  # fmt: skip
    return plan(series, **(asked | changes))


# --- how the index grows -------------------------------------------------------------------------


def test_a_steady_drift_is_exact() -> None:
    """A straight line has no spread, and all that is drawn of it lies on the line."""
    drift = Drift.of_course([0.0, 0.5, 0.7, 1.5], [0.03, 0.08, 0.10, 0.18])
    assert drift.per_year == pytest.approx(0.1)
    assert drift.spread == pytest.approx(0.0, abs=1e-9)
    grown = drift.growth(3, 4, 0.25, np.random.default_rng(0))
    assert grown == pytest.approx(np.tile([0.0, 0.025, 0.05, 0.075, 0.1], (3, 1)), abs=1e-6)


def test_drift_against_a_loop(rng: np.random.Generator) -> None:
    """Rate and spread are those of increments, each with a variance in proportion to its time."""
    years = np.cumsum(rng.uniform(0.1, 0.4, 7))
    indices = np.cumsum(rng.normal(0.05, 0.03, 7))
    drift = Drift.of_course(years.tolist(), indices.tolist())
    grown, lasted = 0.0, 0.0
    for at in range(1, 7):
        grown += indices[at] - indices[at - 1]
        lasted += years[at] - years[at - 1]
    rate, variance = grown / lasted, 0.0
    for at in range(1, 7):
        time = years[at] - years[at - 1]
        variance += (indices[at] - indices[at - 1] - rate * time) ** 2 / time / 5
    assert drift.per_year == pytest.approx(rate)
    assert drift.spread == pytest.approx(math.sqrt(variance))
    assert (drift.increments, drift.years) == (6, pytest.approx(lasted))


def test_drift_scales_with_index_and_time(rng: np.random.Generator) -> None:
    """Twice the index is twice the drift; in twice the time it is half, and spread falls less."""
    years, indices = np.arange(6.0), np.cumsum(rng.normal(0.05, 0.03, 6))
    drift = Drift.of_course(list(years), list(indices))
    twice = Drift.of_course(list(years), list(2 * indices))
    slower = Drift.of_course(list(2 * years), list(indices))
    assert (twice.per_year, twice.spread) == pytest.approx((2 * drift.per_year, 2 * drift.spread))
    assert slower.per_year == pytest.approx(drift.per_year / 2)
    assert slower.spread == pytest.approx(drift.spread / math.sqrt(2))


def test_growth_is_the_predictive_t_distribution() -> None:
    """Over h years: rate h +- t spread sqrt(h + h^2 / T), with n - 1 degrees of freedom."""
    increments = np.array([0.9, 1.2, 1.0, 0.8, 1.1])
    drift = Drift.of_course(range(6), [0.0, *np.cumsum(increments)])
    assert drift.spread == pytest.approx(increments.std(ddof=1))
    n, years = 40_000, 2.0
    grown = drift.growth(n, 4, years / 4, np.random.default_rng(1))[:, -1]
    law = stats.t(4, drift.per_year * years, drift.spread * math.sqrt(years + years**2 / 5))
    for share in (0.05, 0.5, 0.95):
        # The share of draws below a quantile has a standard error of sqrt(p (1 - p) / n).
        reach = 4 * math.sqrt(share * (1 - share) / n)
        assert (grown <= law.ppf(share)).mean() == pytest.approx(share, abs=reach)


def test_a_drift_that_is_given_with_its_increments_is_as_uncertain_as_one_that_is_fitted() -> None:
    """The same four numbers draw the same courses, wherever they come from."""
    fitted = Drift.of_course(range(6), [0.0, 0.9, 2.1, 3.1, 3.9, 5.0])
    given = Drift(per_year=fitted.per_year, spread=fitted.spread, increments=5, years=fitted.years)
    one, other = (d.growth(50, 4, 0.5, np.random.default_rng(0)) for d in (fitted, given))
    assert one == pytest.approx(other)


def test_a_drift_that_is_faster_and_faster_is_found() -> None:
    """A square of the time since the data were the model's goes on as one."""
    years = [0.0, 0.1, 0.2, 0.3, 0.4]
    square = Drift.of_course(years, [0.5 * year**2 for year in years], age=0.0)
    assert square.accelerates == pytest.approx(1.0, abs=1e-6)
    assert square.expected(0.4) == pytest.approx(0.5 * (0.8**2 - 0.4**2))
    grown = square.growth(3, 4, 0.1, np.random.default_rng(0))
    law = [0.5 * ((0.4 + at / 10) ** 2 - 0.4**2) for at in range(5)]
    assert grown == pytest.approx(np.tile(law, (3, 1)), abs=1e-6)
    line = Drift.of_course(years, [0.1 * year for year in years], age=0.0)
    assert line.accelerates == pytest.approx(0.0, abs=1e-6)
    assert line.expected(0.4) == pytest.approx(0.04)
    # When the data were still those of the model has to be known.
    assert Drift.of_course(years, [0.5 * year**2 for year in years]).accelerates == 0.0


def test_of_two_laws_each_course_has_one(rng: np.random.Generator) -> None:
    """As often as it is probable: 4,000 courses, and a binomial's four standard errors, 0.03."""
    course = [0.0, 0.010, 0.024, 0.041, 0.060]
    drift = Drift.of_course([0.0, 1.0, 2.0, 3.0, 4.0], course, age=0.0)
    assert 0.2 < drift.accelerates < 0.8
    grown = drift.growth(4000, 8, 1.0, rng)[:, -1]
    steady, faster = drift.laws
    apart = (steady.rate * 8 + faster.rate * (12**2 - 4**2)) / 2
    assert (grown > apart).mean() == pytest.approx(drift.accelerates, abs=0.08)


def test_data_do_not_come_back() -> None:
    """A rate below zero is taken to be zero."""
    grown = Drift(per_year=-1.0).growth(2, 3, 1.0, np.random.default_rng(0))
    assert not grown.any()


def indexed(day: int, debiased: float | None, **changes: Any) -> Any:
    """An update of a day of the year with its index."""
    started = datetime(2026, 1, 1).astimezone() + timedelta(days=day)
    index = {"index": "RESQUE_dist", "debiased": debiased}
    return update_of(started=started.isoformat(), index=index, number=day, **changes)


def test_drift_of_recorded_updates() -> None:
    """The index of an update is what came since the one before it; the first one has none."""
    updates = [indexed(day, 0.05) for day in (0, 73, 146, 219)]
    others = [update_of(index=None), indexed(100, None), indexed(9, 0.5, model="another")]
    drift = Drift.of_updates([*reversed(updates), *others], model="resnet18")
    assert drift.increments == 3
    assert drift.per_year == pytest.approx(0.05 * 365.25 / 73, rel=1e-3)


def test_too_few_updates_for_a_drift() -> None:
    with pytest.raises(InputError, match=r"needs 4 updates of 'vit' with a RESQUE_dist .* got 0"):
        Drift.of_updates([], model="vit")
    with pytest.raises(InputError, match=r"got 2 updates, 1 of them with one. Give profiles"):
        Drift.of_updates([indexed(1, 0.1), update_of(index=None)])
    with pytest.raises(InputError, match=r"started at the same time, 2026-01-06T.* side by side"):
        Drift.of_updates([indexed(day, 0.1 + day / 1e3) for day in (1, 3, 5)] + [indexed(5, 0.3)])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Drift(per_year=math.inf), "per_year must be a finite number; got inf"),
        (lambda: Drift(per_year=0.1, spread=-2.0), "spread must be 0 or more; got -2.0"),
        (lambda: Drift.of_course([0, 1, 2], [0, 0, 0]), "3 or more increments .* got 2"),
        (lambda: Drift.of_course([0, 2, 1, 3], [0] * 4), r"got 4 indices at \[0, 2, 1, 3\]"),
        (lambda: Drift.of_course([0, 1, 2, 3], [0] * 3), "got 3 indices at"),
        (lambda: Drift(per_year=0.1, increments=1, years=1.0), "got increments=1 and years=1.0"),
        (lambda: Drift(per_year=0.1, increments=4), "got increments=4 and years=None"),
        (
            lambda: AccuracyCurve.fitted([0.1, 0.2, 0.3], [0.9, 0.8, 0.7]),
            "4 or more labelled data sets of different index; got 3 with 3 different",
        ),
        (lambda: AccuracyCurve.fitted([0.1] * 5, [0.9] * 5), "got 5 with 1 different"),
    ],
)
def test_laws_refuse(make: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        make()


# --- what it costs in accuracy -------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_an_exact_curve_is_found(power: float) -> None:
    """Points on a curve of either power give that curve, and hardly another one is drawn."""
    x = np.array([0.05, 0.1, 0.2, 0.3, 0.35])
    curve = AccuracyCurve.fitted(list(x), list(0.93 - 0.8 * x**power))
    assert (curve.level, curve.steepness, curve.power) == pytest.approx((0.93, 0.8, power))
    drawn = curve.drawn(50, np.random.default_rng(0))
    assert drawn.lost(np.full(50, 0.5)) == pytest.approx(np.full(50, 0.8 * 0.5**power))


def test_curve_against_polyfit_and_its_order(rng: np.random.Generator) -> None:
    """The level and the steepness are those of least squares, in whatever order points come."""
    x = rng.uniform(0.0, 0.3, 12)
    y = 0.9 - 0.7 * x + rng.normal(0, 0.01, 12)
    curve = AccuracyCurve.fitted(list(x), list(y))
    slope, level = np.polyfit(x**curve.power, y, 1)
    left = y - np.polyval([slope, level], x**curve.power)
    assert (curve.level, curve.steepness) == pytest.approx((level, -slope))
    assert curve.spread == pytest.approx(math.sqrt(left @ left / 10))
    order = rng.permutation(12)
    again = AccuracyCurve.fitted(list(x[order]), list(y[order]))
    assert again.steepness == pytest.approx(curve.steepness)


def test_draws_of_a_curve_against_scipy(rng: np.random.Generator) -> None:
    """The steepness of the straight draws has the t distribution of a regression."""
    x = np.linspace(0.05, 0.4, 6)
    y = 0.95 - 0.6 * x + rng.normal(0, 0.01, 6)
    known = stats.linregress(x, y)
    drawn = AccuracyCurve.fitted(list(x), list(y)).drawn(40_000, np.random.default_rng(2))
    straight = drawn.steepness[drawn.power == 1.0]
    law = stats.t(4, -known.slope, known.stderr)
    for share in (0.1, 0.5, 0.9):
        reach = 4 * math.sqrt(share * (1 - share) / len(straight))
        assert (straight <= law.ppf(share)).mean() == pytest.approx(share, abs=reach)


def test_weights_of_powers() -> None:
    """Each power is drawn as often as squares^(-(n - 2) / 2) says."""
    x = np.array([0.05, 0.1, 0.15, 0.2, 0.25])
    y = 0.9 - 0.5 * x + np.array([0.02, -0.02, 0.01, -0.02, 0.01])
    squares = []
    for power in (1, 2):
        left = np.polyfit(x**power, y, 1, full=True)[1]
        squares.append(float(left[0]))
    weights = np.array(squares) ** -1.5
    drawn = AccuracyCurve.fitted(list(x), list(y)).drawn(20_000, np.random.default_rng(0))
    straight = weights[0] / weights.sum()
    reach = 4 * math.sqrt(straight * (1 - straight) / 20_000)
    assert (drawn.power == 1).mean() == pytest.approx(straight, abs=reach)


def test_accuracy_does_not_come_from_drift() -> None:
    """Where it rose with the index, it is taken to stay."""
    curve = AccuracyCurve.fitted([0.1, 0.2, 0.3, 0.4], [0.8, 0.82, 0.85, 0.83])
    assert curve.steepness == 0.0
    assert curve.lost(0.3) == 0.0
    assert (curve.drawn(500, np.random.default_rng(0)).steepness >= 0).all()


def dropped(index: float, drop: float, number: int) -> Any:
    """An update before which the accuracy had dropped at an index."""
    known = preflight_of(0.0, drop).to_dict()
    known["values"]["RESQUE_dist_debiased"] = index
    return update_of(preflight=known, number=number, model=f"network {number}")


def test_steepness_of_known_updates() -> None:
    """Without enough labels it is the drop of known updates per index; the labels give the level.

    Those whose index is too small to divide by do not count.
    """
    updates = [dropped(0.1, 0.1 * slope, slope) for slope in range(1, 6)] + [dropped(1e-3, 0.5, 9)]
    known = Forecaster(updates, corpus=False).experience
    curve = AccuracyCurve.of_updates(known, [0.05], [0.8])
    assert (curve.steepness, curve.updates, curve.points) == (pytest.approx(3.0), 5, 1)
    assert curve.level == pytest.approx(0.95)
    drawn = curve.drawn(1000, np.random.default_rng(0))
    assert sorted(set(drawn.steepness.round(6))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    # More than 1 no accuracy can be.
    assert drawn.level.max() == 1.0
    with pytest.raises(InputError, match=r"index of 0.02 or more and a drop .*; got 1 and 4"):
        AccuracyCurve.of_updates(Forecaster(updates[1:], corpus=False).experience, [0.05], [0.8])


def test_beyond_the_points_known_updates_say_how_steep_it_is() -> None:
    """It goes straight on from the last point, as known updates did or as the curve, if steeper."""
    x = np.array([0.05, 0.1, 0.15, 0.2])
    y = 0.95 - 0.5 * x
    assert AccuracyCurve.fitted(list(x), list(y)).lost(0.4) == pytest.approx(0.2)
    updates = [dropped(0.1, 0.1 * slope, slope) for slope in range(1, 6)]
    known = Forecaster(updates, corpus=False).experience
    curve = AccuracyCurve.fitted(list(x), list(y), known)
    assert (curve.reach, curve.beyond, curve.updates) == (0.2, pytest.approx(3.0), 5)
    # 0.1 until there, and then 3 for each of 0.2.
    assert curve.lost(np.array([0.1, 0.2, 0.4])) == pytest.approx([0.05, 0.1, 0.7])
    drawn = curve.drawn(1000, np.random.default_rng(0)).lost(np.full((1000, 1), 0.4))
    assert sorted(set(drawn.ravel().round(4))) == pytest.approx(
        [0.1 + 0.2 * n for n in range(1, 6)]
    )
    gentle = Forecaster([dropped(0.1, 0.01, n) for n in range(5)], corpus=False).experience
    assert AccuracyCurve.fitted(list(x), list(y), gentle).lost(0.4) == pytest.approx(0.2)
    # A parabola goes on as steep as it was at its last point.
    bent = AccuracyCurve.fitted(list(x), list(0.95 - 2 * x**2), gentle)
    assert bent.lost(0.4) == pytest.approx(2 * 0.2**2 + 4 * 0.2 * 0.2)


# --- when the floor is crossed -------------------------------------------------------------------


def test_the_crossing_of_a_steady_drift_is_exact(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    """0.85 today, less 0.02 every 30 days: 0.8 is passed after 75 days."""
    found = planned(drifting, forecaster)
    day = START + timedelta(days=5 * PERIOD + 75)
    crossing = found.crossing
    assert found.start == START + timedelta(days=5 * PERIOD)
    assert {crossing.median, crossing.lower, crossing.upper} == {day}
    assert crossing.within == 1.0
    assert [look.below for look in found.course[:5]] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert found.course[2].accuracy.median == pytest.approx(0.81)
    assert found.course[2].index.median == pytest.approx(0.14, abs=1e-5)
    assert f"falls below 0.8 about {day} (80% interval {day} to {day})" in str(found)


def test_no_accuracy_is_planned_to_be_below_chance(forecaster: Forecaster) -> None:
    """0.45 today, less 0.1 a period: the line is below zero after five, and chance is not."""
    series = steady(0.02, 0.1)
    found = planned(series, forecaster, accuracy_floor=0.4)
    chance = 1 / len(series[0][1].class_names)
    assert found.course[-1].accuracy.median == pytest.approx(chance)


def test_crossings_by_hand() -> None:
    """Between looks it goes straight; today is today; what never falls is after the horizon."""
    courses = np.array([[0.9, 0.8, 0.6], [0.9, 0.9, 0.9], [0.6, 0.6, 0.6]])
    for row, expected in zip(courses, (date(2026, 1, 16), None, START), strict=True):
        found = crossing_of(row[None], 0.7, START, 10.0, 0.8)
        assert (found.lower, found.median, found.upper) == (expected,) * 3
    together = crossing_of(courses, 0.7, START, 10.0, 0.9)
    assert (together.lower, together.median, together.upper) == (START, date(2026, 1, 16), None)
    assert together.within == pytest.approx(2 / 3)


def test_the_interval_of_the_crossing_covers() -> None:
    """Of 200 courses drawn by a known law, an 80 % interval holds as many crossings as it says.

    Three standard errors of a binomial with 200 draws at 0.8 are 17. A rate drawn below zero
    counts as zero, which can only lower the lower bound of a date.
    """
    rng = np.random.default_rng(3)
    steepness, level, held = 1.0, 0.95, 0
    for _ in range(200):
        steps = 0.01 + 0.005 * rng.normal(size=6 + 120)
        course = np.concatenate([[0.0], np.cumsum(steps)])
        drift = Drift.of_course(range(7), course[:7].tolist())
        floor = level - steepness * (course[6] + 0.1)
        ahead = course[6] + drift.growth(400, 120, 1.0, rng)
        told = crossing_of(level - steepness * ahead, floor, START, 100.0, 0.8)
        truth = crossing_of(level - steepness * course[None, 6:], floor, START, 100.0, 0.8).median
        assert truth is not None
        assert told.lower is not None
        held += told.lower <= truth and (told.upper is None or truth <= told.upper)
    assert abs(held - 160) <= 17


# --- schedules -----------------------------------------------------------------------------------


def courses_of(rng: np.random.Generator, paths: int, looks: int) -> Courses:
    """Courses with everything at random but the sizes."""
    index = 0.05 + np.cumsum(rng.uniform(-0.01, 0.04, (paths, looks + 1)), axis=1)
    costs = UpdateCosts(
        step=0.05,
        tables={
            "epochs": np.sort(rng.uniform(1, 9, (6, paths)), axis=0),
            "accuracy": rng.uniform(0.85, 0.95, (6, paths)),
        },
        missing={},
        notes=(),
    )
    curve = AccuracyCurve(level=0.92, steepness=0.8, power=1.0, spread=0.0, points=5)
    curves = Curves(
        rng.uniform(0.88, 0.95, paths), rng.uniform(0.5, 1.0, paths), rng.choice([1.0, 2.0], paths)
    )
    return Courses(
        index=index, curves=curves, curve=curve, costs=costs, floor=0.85, ahead=0.02, noise=1e-3,
        seen=rng.normal(size=(paths, looks)),
    )  # fmt: skip


def played_slowly(courses: Courses, rule: Rule, wait: int | None, path: int) -> tuple[Any, ...]:
    """One course of one rule, written out from docs/plan.md."""
    since, level, told = 0.0, courses.curves.level[path], courses.curve.level
    steepness, power = courses.curves.steepness[path], courses.curves.power[path]
    updates, cost, above = 0, 0.0, []
    for look in range(courses.seen.shape[1]):
        index = max(courses.index[path, look] - since, 0.0)
        cosine = math.cos(math.pi * index) + courses.noise * courses.seen[path, look]
        seen = math.acos(min(cosine, 1.0)) / math.pi
        foretold = told - courses.curve.lost(seen + courses.ahead)
        due = {
            "never": False,
            "calendar": look >= rule.first and (look - rule.first) % max(1, rule.every) == 0,
            "alarm": 1 - cosine > stats.norm.ppf(0.95) * courses.noise,
            "forecast": foretold < courses.floor + rule.margin,
        }[rule.kind]
        if wait is not None and look <= wait:
            due = look == wait
        if due:
            places = courses.costs.step * np.arange(6)
            updates += 1
            cost += np.interp(index, places, courses.costs.tables["epochs"][:, path])
            level = told = np.interp(index, places, courses.costs.tables["accuracy"][:, path])
            since = courses.index[path, look]
        moved = max(courses.index[path, look + 1] - since, 0.0)
        above.append(level - steepness * moved**power >= courses.floor)
    return updates, cost, above


@pytest.mark.parametrize("wait", [None, 0, 3])
def test_schedules_against_a_loop(rng: np.random.Generator, wait: int | None) -> None:
    """Each rule comes to what a loop over its looks, one course at a time, comes to."""
    courses = courses_of(rng, 5, 8)
    for rule in rules_of(8):
        found = courses.played(rule, wait=wait)
        for path in range(5):
            updates, cost, above = played_slowly(courses, rule, wait, path)
            assert found.updates[path] == updates, rule
            assert found.cost["epochs"][path] == pytest.approx(cost), rule
            assert found.above[path].tolist() == above, rule


def test_what_a_schedule_comes_to(rng: np.random.Generator) -> None:
    """Costs are those of a year, and shares are counted over looks and over courses."""
    courses = courses_of(rng, 400, 8)
    rule = Rule(kind="forecast", margin=0.01)
    played = courses.played(rule)
    budget = resque.Budget(max_epochs=float(np.median(played.cost["epochs"])) / 2)
    judging = Judging(budget=budget, years=2.0, period_days=91.0, share=0.75, level=0.8)
    found = judging.schedule(rule, played)
    assert found.updates.median == np.median(played.updates) / 2
    assert found.cost["epochs"].upper == np.quantile(played.cost["epochs"] / 2, 0.9)
    assert found.mean_cost["epochs"] == pytest.approx(played.cost["epochs"].mean() / 2)
    kept = played.above.sum(axis=1)
    assert found.share_kept == pytest.approx(kept.mean() / 8)
    assert (found.keeps, found.always) == ((kept >= 6).mean(), (kept == 8).mean())
    assert found.in_budget == {"max_epochs": 0.5}
    assert found.sure == min(0.5, found.keeps)
    delay = judging.delay(2, courses.played(rule, wait=2), "epochs")
    assert delay.days == 182.0
    assert delay.days_below.lower >= 0
    assert found.name == "forecast below floor + 0.01"


def test_calendars_are_of_all_lengths() -> None:
    """Two of each, one that begins today; that which would begin after the horizon is never."""
    named = [rule.told(30) for rule in rules_of(2)]
    assert named[:4] == [
        "never", "every 30 days, from today", "every 30 days, first in 30",
        "every 60 days, from today",
    ]  # fmt: skip
    lengths = {rule.every for rule in rules_of(52) if rule.kind == "calendar"}
    assert lengths == {*range(1, 13), 17, 26, 52}


# --- the plan ------------------------------------------------------------------------------------


def test_more_drift_takes_more_updates(forecaster: Forecaster) -> None:
    """And no drift takes none."""
    taken = []
    for per_period in (0.0, 0.01, 0.03):
        series = series_of([0.02 * at for at in range(6)], [0.95 - 0.02 * at for at in range(6)])
        drift = Drift(per_year=per_period * 365.25 / PERIOD)
        found = planned(series, forecaster, drift=drift, share=0.8)
        taken.append(found.schedule(found.nearest).updates.median)
        assert found.recommended is not None
    assert taken[0] == 0 < taken[1] < taken[2]


def test_a_higher_floor_costs_no_less(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    costs = []
    for floor in (0.6, 0.7, 0.75, 0.8):
        found = planned(drifting, forecaster, accuracy_floor=floor)
        assert found.recommended is not None
        costs.append(found.schedule(found.recommended).mean_cost["energy_kwh"])
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_budgets(drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster) -> None:
    """One that holds changes nothing; one that does not leaves the nearest, and says so."""
    free = planned(drifting, forecaster)
    held = planned(drifting, forecaster, budget=resque.Budget(max_energy_kwh=10.0))
    assert held.recommended == free.recommended is not None
    assert set(held.schedule(held.nearest).in_budget.values()) == {1.0}
    short = planned(drifting, forecaster, budget=resque.Budget(max_hours=1e-6))
    assert short.recommended is None
    assert short.cost_measure == "duration_s"
    assert "no schedule keeps the accuracy at or above 0.8 at 90% of the looks within" in str(short)
    assert f"nearest comes {short.nearest}: " in short.advice()


def test_waiting(drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster) -> None:
    """The later the first update, the longer the accuracy is below its floor."""
    delays = planned(drifting, forecaster).delays
    assert [delay.days for delay in delays] == [0, 30, 60, 120, 240]
    below = [delay.days_below.median for delay in delays]
    assert below == sorted(below)
    assert below[0] < below[-1]


def test_a_seed_seeds_everything(forecaster: Forecaster) -> None:
    """Same seed, same plan; another one, another; and no global state is touched."""
    series = series_of([0.0, 0.02, 0.05, 0.06, 0.1], [0.95, 0.93, 0.92, 0.9, 0.86])
    state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    one, same, other = (planned(series, forecaster, seed=seed) for seed in (0, 0, 1))
    assert one.to_dict() == same.to_dict()
    assert one.course[-1].index.lower != other.course[-1].index.lower
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]  # noqa: NPY002


def test_as_json(drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster) -> None:
    """It is plain, without infinity, and has its format and signature."""
    found = planned(drifting, forecaster, budget=resque.Budget(max_hours=9.0), accuracy_floor=0.2)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["format"] == "resque.Plan/1"
    assert told["crossing"]["upper"] is None
    assert told["budget"]["max_hours"] == 9.0
    assert told["signature"] == found.signature.to_dict()
    assert {schedule["name"] for schedule in told["schedules"]} >= {"never", "at every alarm"}
    assert str(found).endswith(str(found.signature))


def test_the_day_of_an_update(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    """By what is measured at a look, each rule says whether it is due."""
    found = planned(drifting, forecaster)
    shift = resque.shift_index(drifting[0][1], drifting[5][1])
    assert shift.debiased == pytest.approx(0.1, abs=1e-6)
    named = "forecast below floor + 0.02"
    # 0.02 of accuracy per 0.02 of index, and 0.02 more of index until the next look.
    for accuracy, due in ((0.941, False), (0.939, True)):
        assert found.due(1, shift, accuracy, name=named) is due
    assert found.due(2, shift, 0.9, name="every 60 days, from today")
    assert not found.due(3, shift, 0.9, name="every 60 days, from today")
    assert not found.due(1, shift, 0.1, name="never")
    for p_value, due in ((0.04, True), (0.06, False), (None, False)):
        assert found.due(1, replace(shift, p_value=p_value), 0.9, name="at every alarm") is due
    with pytest.raises(InputError, match="no schedule 'now and then'; it has 'never'"):
        found.due(1, shift, 0.9, name="now and then")
    with pytest.raises(InputError, match="unresolved"):
        found.due(1, replace(shift, debiased=None), 0.9)


def test_without_labels_the_known_updates_say_it() -> None:
    """Of too few labelled profiles the level is used, and of none that of the old data."""
    known = Forecaster([*simulated(40), *(dropped(0.1, 0.1, n) for n in range(5))], corpus=False)
    indices = [0.0, 0.02, 0.04, 0.06]
    found = planned(series_of(indices, [0.95, None, 0.92, None]), known)
    assert found.curve.level == pytest.approx(0.96, abs=1e-6)
    assert any("that of 5 known updates" in note and "there are 1" in note for note in found.notes)
    found = planned(series_of(indices, [0.95, None, None, None]), known)
    assert found.curve.level == pytest.approx(0.95)
    assert any("No later profile has labels" in note for note in found.notes)
    with pytest.raises(InputError, match="No profile tells of an accuracy"):
        planned(series_of(indices, [None] * 4), known)


def test_what_a_plan_warns_of(forecaster: Forecaster) -> None:
    series = series_of([0.0, 0.03, 0.02, 0.01, 0.01, -0.01], [0.95, 0.9, 0.9, 0.91, 0.92, 0.93])
    dated = [(None, series[0][1]), *series[1:]]
    notes = planned(dated, forecaster, horizon_days=90.0).notes
    assert any(note.startswith("The index fell, by 0.0609 a year") for note in notes)
    assert any(note.startswith("Costs of a year are those of 90 days") for note in notes)
    assert any("of 'resnet18', and the profiles are of 'Linear'" in note for note in notes)
    few = "increments tell little of what is to come"
    assert any(few in note for note in notes)
    given = planned(dated, forecaster, drift=Drift(per_year=0.1)).notes
    assert not any(few in note for note in given)
    notes = planned(steady(0.02, 0.02), forecaster).notes
    assert any(
        "expected to reach 0.343, and the series shows no more than 0.1:" in n for n in notes
    )


def test_alarms_without_a_test_are_told_of(
    drifting: list[tuple[date | None, ClassProfile]],
    forecaster: Forecaster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would be played as if there were no noise, and never be due."""
    told = "what updates at every alarm come to is that of an index without noise"
    assert not any(told in note for note in planned(drifting, forecaster).notes)
    whole = plan_module.shift_index

    def few_groups(*sides: Any, **options: Any) -> Any:
        return replace(whole(*sides, **options), lower=None, upper=None, p_value=None)

    monkeypatch.setattr(plan_module, "shift_index", few_groups)
    assert any(told in note for note in planned(drifting, forecaster).notes)


def test_the_first_date_may_be_unknown(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    """Then the drift is that between the others."""
    undated = [(None, drifting[0][1]), *drifting[1:]]
    assert planned(undated, forecaster).drift.increments == 4
    assert planned(drifting, forecaster).drift.increments == 5
    with pytest.raises(InputError, match="and one more where the first has no date; got 3"):
        planned(undated[:4], forecaster)


class Told:
    """Says the same of every update, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def forecast(self, known: Any, **of: Any) -> Any:
        """One of ten equally likely outcomes."""
        self.asked.append((known, of))
        return forecast_of(notes=("a note",))


def test_updates_are_forecast_at_indices() -> None:
    """What is known at an index is put in; what is not, is not; and quantiles are read off."""
    known = replace(UPDATE, values={**UPDATE.values, "mmd": 0.3, "ridge": 0.2})
    curve = AccuracyCurve(level=0.95, steepness=0.5, power=1.0, spread=0.0, points=5)
    told, target = Told(), resque.Accuracy(0.85)
    quantiles = np.array([[0.05, 0.55, 0.95], [0.05, 0.35, 0.95]])
    costs = UpdateCosts.of(told, known, target, "FRA", curve, 0.97, 0.4, 0.8, quantiles)  # type: ignore[arg-type]
    asked = [dict(preflight.values) for preflight, _ in told.asked]
    assert [one["RESQUE_dist_debiased"] for one in asked] == pytest.approx(
        [0, 0.08, 0.16, 0.24, 0.32, 0.4]
    )
    assert asked[-1]["accuracy_drop"] == pytest.approx(0.97 - 0.75)
    assert asked[-1]["error_before"] == pytest.approx(0.25)
    assert (asked[-1]["mmd"], asked[-1]["loss_before"], asked[-1]["ridge"]) == (None, None, 0.2)
    assert told.asked[0][1] == {
        "target": target, "grid": "FRA", "confidence_level": 0.8, "from_scratch": False,
    }  # fmt: skip
    index = np.array([0.1, 0.2, 9.0])
    assert costs.at("energy_kwh", index) == pytest.approx([0.1, 0.6, 1.0])
    # An update ends when its target is met.
    assert costs.at("accuracy", index) == pytest.approx([0.81, 0.84, 0.85])
    assert costs.notes == ("forecast of an update: a note",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accuracy_floor": 85}, "accuracy_floor must be above 0 and below 1; got 85"),
        ({"update": {}}, "update must be a Preflight, .* got dict"),
        ({"target": resque.Accuracy(0.7)}, "end at an accuracy of 0.7 cannot keep a floor of 0.8"),
        ({"budget": 3.0}, r"Budget\(max_hours=10\); got 3.0"),
        ({"budget": resque.Budget(min_accuracy=0.9)}, "floor, 0.8; .* min_accuracy=0.9. Leave"),
        ({"horizon_days": -5}, "horizon_days must be above 0; got -5"),
        ({"horizon_days": 10}, "A horizon of 10 days has no look in it, with one every 30 days"),
        ({"period_days": 0}, "period_days must be above 0; got 0"),
        ({"share": 1.5}, "share must be above 0 and at most 1; got 1.5"),
        ({"paths": 10}, "paths must be 100 or more; got 10"),
        ({"history": []}, "A forecaster has its history already; give forecaster= or history="),
        ({"seed": -1}, "seed must be a whole number of 0 or more; got -1"),
        ({"confidence_level": 90}, "confidence_level must be above 0 and below 1; got 90"),
        ({"drift": 0.1}, r"Drift\(per_year=0.1, spread=0.02\); got 0.1"),
        ({"labels": "none"}, "labels must be 'true' or 'predicted'; got 'none'"),
        (
            {"budget": resque.Budget(max_carbon_kg=1.0)},
            "max_carbon_kg cannot be planned for without carbon_kg: no grid was given",
        ),
    ],
)  # fmt: skip
def test_impossible_arguments(
    drifting: list[tuple[date | None, ClassProfile]],
    forecaster: Forecaster,
    changes: dict[str, Any],
    expected: str,
) -> None:
    with pytest.raises(InputError, match=expected):
        planned(drifting, forecaster, **changes)


def test_a_budget_of_zero() -> None:
    with pytest.raises(InputError, match=r"max_energy_kwh must be above 0; got 0\.0"):
        resque.Budget(max_energy_kwh=0.0)


def test_impossible_series(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    first, second, third = drifting[:3]
    swapped = [first, third, second, *drifting[3:]]
    day = profile_of(0.1)
    other = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    for series, expected in (
        ([], "series is empty"),
        ("before.safetensors", "pairs .* got str"),
        ([first, second[1]], "pairs .* got list"),
        (swapped, "out of order: 2026-01-31 comes after 2026-03-02. Give the profiles by rising"),
        ([first, first], "out of order: 2026-01-01 comes after 2026-01-01"),
        ([first, (None, day)], "must be a datetime.date; got None at place 1"),
        ([first, ("2026-01-31", day)], "must be a datetime.date; got '2026-01-31' at place 1"),
        ([first, (second[0], "b.safetensors")], "holds profiles, .* got a str at place 1"),
        (drifting[:3], "3 or more profiles after the first, .*; got 2. Profile data of more"),
    ):
        with pytest.raises(InputError, match=expected):
            planned(series, forecaster)
    with pytest.raises(InputError, match="1 or more profiles after the first; got 0"):
        planned(drifting[:1], forecaster, drift=Drift(per_year=0.1))
    with pytest.raises(InputError, match="no period between looks can be told"):
        planned([(None, first[1]), second], forecaster, drift=Drift(per_year=0.1))
    with pytest.raises(NotComparableError):
        planned(
            [first, second, (third[0], profile_of(0.1, model=other)), *drifting[3:]], forecaster
        )


# --- the replay ----------------------------------------------------------------------------------


def played_of(name: str, accuracies: list[float], epochs: float) -> Played:
    """A schedule that made one update for each two epochs."""
    made = tuple(range(4, 4 + int(epochs / 2)))
    return Played(name=name, periods=made, accuracies=tuple(accuracies), epochs=epochs)


def test_replays_are_compared_at_equal_accuracy(
    drifting: list[tuple[date | None, ClassProfile]], forecaster: Forecaster
) -> None:
    """The cheapest calendar that kept as much, the day of the crossing, and what they come to."""
    good, fair, bad = [0.85] * 8, [0.9] * 7 + [0.84], [0.9] * 3 + [0.8] * 5
    calendars = tuple(
        played_of(f"every {30 * n} days, first in {30 * n}", of, epochs)
        for n, of, epochs in ((1, good, 16.0), (2, good, 8.0), (3, fair, 6.0), (4, bad, 4.0))
    )
    one = Replayed(
        kind="gaussian_blur", seed=7, plan=planned(drifting, forecaster),
        chosen=played_of("forecast below floor + 0", fair, 4.0),
        alarms=played_of("at every alarm", good, 10.0), never=played_of("never", bad, 0.0),
        calendars=calendars, hindsight=None,
    )  # fmt: skip
    assert one.chosen.share == 7 / 8
    assert one.equal(one.chosen) is calendars[2]
    assert one.equal(one.alarms) is calendars[1]
    assert one.equal(one.never) is one.never
    # Below from the fourth period after the fourth on.
    assert one.crossed == START + timedelta(days=8 * PERIOD)
    assert replace(one, never=one.alarms).crossed is None
    lines = list(totals([one, one]))
    assert "| the plan's schedule | 2 of 2 | 88% | 4 | 8 |" in lines
    assert "| at every alarm | 2 of 2 | 100% | 10 | 20 |" in lines
    assert "| never | 0 of 2 | 38% | 0 | 0 |" in lines
    assert lines[-1].endswith("in hindsight (there in 0) | 0 of 2 | none | 0 | 0 |")
    row = list(table([one]))[-1]
    assert row.startswith("| gaussian blur, 7 | 7.5 (7.5 to 7.5) / 8.0 | ")
    assert row.endswith("| 4 (88%) | 6 (88%) | 16 (100%) | 10 (100%) | 0 (38%) | none |")


@pytest.mark.slow
def test_a_replay() -> None:
    """Every update is made once, and is in the cost of all schedules that share it."""
    (one,) = replays(("contrast",), (0,))
    assert one.plan.start == START + timedelta(days=4 * PERIOD)
    assert one.never.epochs == 0 < one.chosen.epochs
    assert one.never.share < one.chosen.share
    together = {played.periods: played for played in (one.chosen, one.alarms, *one.calendars)}
    for played in one.calendars:
        assert together[played.periods].epochs == played.epochs
    today = next(played for played in one.calendars if played.periods == (4,))
    later = next(played for played in one.calendars if played.periods[:1] == (4,) != played.periods)
    assert today.epochs < later.epochs
    assert today.accuracies[0] == later.accuracies[0]
