"""The backtest: what is not to be known is not known, and the scores are what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from resque.errors import InputError
from resque.forecasting.backtest import OURS, Backtest, Foretold, backtest, score_of
from resque.forecasting.baselines import BASELINES, Baseline
from resque.forecasting.predictors import SHIFT, Known
from resque.history.records import Accuracy
from resque.history.update import Update
from simulated import TARGET, curve_of, simulated

FEW = BASELINES[:1]


def foretold_by(found: Backtest, method: str = OURS) -> dict[str, Foretold]:
    return {row.update: row for row in found.foretold if row.method == method}


def longer(update: Update, factor: float = 3.0) -> Update:
    """The same update, had it taken longer; it keeps its place in time and all that was known."""
    return replace(update, epochs=factor * update.epochs)


def test_in_order_of_time_nothing_later_is_known() -> None:
    updates = sorted(simulated(16, networks=2), key=lambda update: update.started)
    changed = [*updates[:12], *(longer(update) for update in updates[12:])]
    found, other = (
        foretold_by(backtest(of, hold_out="time", baselines=FEW)) for of in (updates, changed)
    )
    for update in updates[2:12]:
        assert found[update.id].epochs == other[update.id].epochs
    last, told = updates[-1], [*other.values()][-1]
    assert found[last.id].epochs != told.epochs


@pytest.mark.parametrize("hold_out", ["network", "change"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_of_what_is_held_out_is_known(hold_out: Any, place: int) -> None:
    """Were one network's (or shift's) updates three times as long, its forecasts were the same."""
    updates = simulated(30, networks=3)
    of = {"network": lambda u: u.signature.model, "change": lambda u: u.labels["shift"]}[hold_out]
    name = sorted({of(update) for update in updates})[place]
    changed = [longer(update) if of(update) == name else update for update in updates]
    found, other = (
        [*foretold_by(backtest(each, hold_out=hold_out, baselines=FEW)).values()]
        for each in (updates, changed)
    )
    same = [one for one, two in zip(found, other, strict=True) if one.epochs == two.epochs]
    held = [one for one in found if one.group == name]
    assert len(held) == sum(of(update) == name for update in updates)
    assert all(one in same for one in held)
    assert len(same) < len(found)


def test_an_update_is_foretold_without_itself() -> None:
    updates = simulated(14, networks=2)
    first = sorted(updates, key=lambda update: update.started)[0]
    changed = [longer(update) if update is first else update for update in updates]
    found = [
        next(iter(foretold_by(backtest(of, hold_out="update", baselines=FEW)).values()))
        for of in (updates, changed)
    ]
    assert found[0].epochs == found[1].epochs
    assert found[1].true_epochs == pytest.approx(3 * found[0].true_epochs)


def test_others_are_always_known() -> None:
    """Without others the first own update cannot be foretold; with them it can."""
    own, others = simulated(6, seed=1), simulated(40, seed=2)
    alone = backtest(own, hold_out="time", baselines=())
    helped = backtest(own, others=others, hold_out="time", baselines=())
    assert len(alone.foretold) < 6
    assert len(helped.foretold) == 6
    assert len(backtest(own, others=others, from_update=4, baselines=()).foretold) == 2


def test_the_forecast_beats_what_does_not_know_the_law() -> None:
    """x explains most of the epochs; the constant cannot know it, a line on x does."""
    found = backtest(simulated(90, noise=0.1, slope=1.0, networks=3), hold_out="change")
    scores = {score.method: score.values for score in found.scores}
    assert scores[OURS]["epochs_error"][0] < 0.2
    assert scores[OURS]["pinball"][0] < 0.6 * scores["mean of the history"]["pinball"][0]
    assert scores[OURS]["pinball"][0] < 1.1 * scores["best single rival"]["pinball"][0]
    assert scores[OURS]["rank_correlation"][0] > 0.9
    assert scores[OURS]["epochs_coverage"][0] > 0.8
    assert found.scores[0].method == OURS
    json.dumps(found.to_dict())


def test_the_verdict_is_that_of_the_resamples() -> None:
    """Lower losses in every group are better, higher ones worse, and mixed ones neither."""

    def found(*losses: tuple[float, float]) -> Backtest:
        rows = tuple(
            row_of(update=f"u{at}", group=f"g{at}", method=method, pinball=loss)
            for method, of in zip((OURS, "last update"), zip(*losses, strict=True), strict=True)
            for at, loss in enumerate(of)
        )
        scores = tuple(
            score_of([row for row in rows if row.method == method])
            for method in (OURS, "last update")
        )
        return Backtest(hold_out="change", target=TARGET, foretold=rows, scores=scores)

    better = [(0.1, 0.2 + at / 100) for at in range(8)]
    assert found(*better).verdict == (
        "The forecast is better than last update, the best of the others: pinball loss 0.100 "
        "against 0.235."
    )
    worse = [(theirs, ours) for ours, theirs in better]
    assert found(*worse).verdict.startswith("The forecast is worse than last update: pinball loss")
    mixed = [*better[:4], *worse[:4]]
    assert "cannot be told from last update" in found(*mixed).verdict
    few = found(*better[:4]).verdict
    assert "it takes 5 groups to be left out to tell, and there are 4: pinball loss" in few
    alone = found(*better)
    assert replace(alone, scores=alone.scores[:1]).verdict == ""


def test_an_accuracy_as_the_target() -> None:
    updates = [
        replace(u, curve=curve_of(u.peak_accuracy or 0.5, 2.0, 20.0), epochs=20.0)
        for u in simulated(50, networks=2)
    ]
    found = backtest(updates, hold_out="change", target=Accuracy(0.8), baselines=FEW)
    ours, mean = found.scores
    assert 0.2 < np.mean([row.reached for row in found.foretold]) < 0.95
    assert ours.values["brier"][0] < 0.7 * mean.values["brier"][0]


# --- scores ------------------------------------------------------------------------------------


def row_of(**changes: Any) -> Foretold:
    row = Foretold(
        update="u", target=TARGET, group="g", method="m", epochs=(10.0, 5.0, 20.0),
        accuracy=(0.8, 0.7, 0.9), reaches=0.75, true_epochs=8.0, true_accuracy=0.85,
        reached=True, pinball=0.1,
    )  # fmt: skip
    return replace(row, **changes)


def test_scores_by_hand() -> None:
    rows = [
        row_of(),
        row_of(group="h", true_epochs=40.0, true_accuracy=0.6, reached=False, pinball=0.3),
        row_of(group="h", true_epochs=5.0, epochs=(5.0, 5.0, 5.0)),
    ]
    found = score_of(rows)
    value = {name: of[0] for name, of in found.values.items()}
    assert (found.updates, found.groups) == (3, 2)
    assert value["epochs_error"] == pytest.approx(0.25)  # of 0.25, 0.75 and 0
    assert value["epochs_coverage"] == pytest.approx(2 / 3)
    assert value["epochs_width"] == pytest.approx(2 * math.log(4) / 3)
    assert value["pinball"] == pytest.approx(0.5 / 3)
    assert value["accuracy_error"] == pytest.approx((0.05 + 0.2 + 0.05) / 3)
    assert value["accuracy_coverage"] == pytest.approx(2 / 3)
    assert value["brier"] == pytest.approx((0.0625 + 0.5625 + 0.0625) / 3)
    for name, (middle, lower, upper) in found.values.items():
        assert name == "rank_correlation" or lower <= middle <= upper


def test_one_group_has_no_interval() -> None:
    assert math.isnan(score_of([row_of(), row_of()]).values["pinball"][1])


# --- baselines ---------------------------------------------------------------------------------


def known_of_drop(drop: float | None, **more: float) -> Known:
    predictors = more if drop is None else {"accuracy_drop": drop, **more}
    return Known(predictors=predictors, does_not_apply=frozenset(), groups={})


def of_drop(known: Known) -> float | None:
    return known.predictors.get("accuracy_drop")


LINE = Baseline("line", {"accuracy_drop": of_drop})
NONE = np.zeros(12, dtype=bool)


def test_a_line_is_a_line() -> None:
    known = [known_of_drop(drop) for drop in range(12)]
    y = np.array([3.0 + 2.0 * drop for drop in range(12)])
    assert LINE.foretold(known, y, NONE, NONE, known_of_drop(20.0)).values == pytest.approx(43.0)


def test_the_errors_of_a_line_are_those_without_each_point() -> None:
    """Naively: a line through the others for each point."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    found = LINE.foretold([known_of_drop(v) for v in x], y, NONE, NONE, known_of_drop(0.3))
    slope, intercept = np.polyfit(x, y, 1)
    naive = []
    for at in range(12):
        own = np.polyfit(np.delete(x, at), np.delete(y, at), 1)
        naive.append(y[at] - np.polyval(own, x[at]))
    assert found.values == pytest.approx(intercept + slope * 0.3 + np.array(naive))


def test_updates_of_another_kind_have_a_line_of_their_own() -> None:
    tasks = [Known(predictors={}, does_not_apply=frozenset(SHIFT), groups={}) for _ in range(6)]
    shifts = [known_of_drop(drop) for drop in range(6)]
    y = np.array([100.0] * 6 + [float(drop) for drop in range(6)])
    found = LINE.foretold([*tasks, *shifts], y, NONE, NONE, known_of_drop(2.0))
    assert found.median() == pytest.approx(2.0)


def test_without_its_predictor_it_is_the_mean() -> None:
    known = [known_of_drop(None)] * 12
    found = LINE.foretold(known, np.arange(12.0), NONE, NONE, known_of_drop(None))
    assert found.values.mean() == pytest.approx(5.5)


def test_the_last_update() -> None:
    known = [known_of_drop(None)] * 12
    found = Baseline("last", last=True).foretold(known, np.arange(12.0), NONE, NONE, known[0])
    assert found.values == pytest.approx(12.0)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "options", "told"),
    [
        ([], {}, "There are no updates to foretell"),
        (simulated(1), {}, r"needs 2 updates or more .*; got 1"),
        (simulated(5), {"hold_out": "netwrok"}, r"got 'netwrok'.*network"),
        (simulated(5, networks=1), {"hold_out": "network"}, "With network held out .*; got 5"),
        (simulated(5), {"target": 0.9}, "Accuracy or a Plateau; got 0.9"),
    ],
)
def test_what_cannot_be_tested(updates: list[Update], options: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        backtest(updates, **options)
