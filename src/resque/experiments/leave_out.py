"""How well a few quantities order the costs of what they were not fitted on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError
from resque.experiments.correlation import Floats, spearman
from resque.experiments.situations import (
    CLAIMED,
    GROUP_UPDATES,
    LEAST_RUNS,
    NOISE_LEVEL,
    SITUATIONS,
    Measure,
    censored_in,
)
from resque.experiments.tasks import sources_of
from resque.forecasting.preflight import CONTROLS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

MOST_CHOSEN = 5
# A further quantity must take this share off the error.
_GAIN = 0.01


def forward_selection(
    x: Floats, y: Floats, groups: NDArray[Any], *, most: int = MOST_CHOSEN
) -> tuple[int, ...]:
    """Return the places of the predictors chosen one after the other, at most so many.

    Each is the one that makes the mean absolute error of a ridge regression least, over up to
    five folds that keep groups whole; none is taken that does not take 1 % off it.

    Args:
        x: (rows, predictors), NaN where missing: the median of a fold's training rows is taken.
        y: (rows,).
        groups: (rows,), two or more different ones.
        most: predictors.

    Raises:
        InputError: there are fewer than two groups.
    """
    from sklearn.model_selection import GroupKFold

    several = len(np.unique(groups))
    if several < 2:
        raise InputError(
            f"Forward selection needs two groups or more to leave one out; got {several}."
        )
    folds = []
    for train, test in GroupKFold(min(5, several)).split(x, y, groups):
        folds.append((*_prepared(x[train], x[test]), y[train], y[test]))

    def error(places: tuple[int, ...]) -> float:
        misses = [
            np.abs(_fitted(train[:, places], known, test[:, places]) - wanted)
            for train, test, known, wanted in folds
        ]
        return float(np.concatenate(misses).mean())

    chosen: tuple[int, ...] = ()
    least = error(())
    while len(chosen) < min(most, x.shape[1]):
        errors = {
            place: error((*chosen, place)) for place in range(x.shape[1]) if place not in chosen
        }
        best = min(errors, key=errors.__getitem__)
        if not errors[best] < least * (1 - _GAIN):
            break
        chosen, least = (*chosen, best), errors[best]
    return chosen


def _prepared(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Return both with missing values replaced and every column standardised, from `train`."""
    medians = np.zeros(train.shape[1])
    known = np.isfinite(train).any(axis=0)
    medians[known] = np.nanmedian(train[:, known], axis=0)
    train, test = (np.where(np.isfinite(part), part, medians) for part in (train, test))
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 1e-12 * np.maximum(np.abs(mean), 1), sd, 1)
    return (train - mean) / sd, (test - mean) / sd


def _fitted(train: Floats, y: Floats, test: Floats) -> Floats:
    """Return the predictions for `test` of a ridge regression on standardised predictors.

    Hoerl and Kennard, Technometrics 12, 1970, with a penalty of 1 and none on the intercept.
    Without any predictor it is the median of y.
    """
    if not train.shape[1]:
        return np.full(len(test), np.median(y))
    penalised = train.T @ train + np.eye(train.shape[1])
    predicted: Floats = y.mean() + test @ np.linalg.solve(penalised, train.T @ (y - y.mean()))
    return predicted


def leave_out_errors(
    made: DataFrame, values: DataFrame, logged: Sequence[str]
) -> tuple[DataFrame, DataFrame]:
    """Return errors in what was left out, and how often each quantity was chosen."""
    import pandas as pd

    usable = values.drop(columns=NOISE_LEVEL)
    usable = usable.assign(**{name: np.log(usable[name]) for name in logged})
    errors, chosen = [], []
    for situation in SITUATIONS:
        rows = situation.of(made)
        of_them = usable.loc[rows.index].dropna(axis=1, how="all")
        for what, column in situation.left_out.items():
            for measure in CLAIMED:
                known = rows[measure.column].notna().to_numpy(dtype=bool)
                keys = {
                    "situation": situation.name,
                    "left_out": what,
                    "measure": measure.title,
                }
                told, picks = _folds(rows[known], of_them[known], measure, column, situation.index)
                errors += [keys | row for row in told]
                chosen += [keys | row for row in picks]
    return pd.DataFrame(errors), pd.DataFrame(chosen)


def _folds(
    rows: DataFrame, values: DataFrame, measure: Measure, column: str, index: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    names = rows[column].to_numpy(dtype=str)
    x, y = values.to_numpy(), np.log(rows[measure.column].to_numpy())
    censored = censored_in(rows, measure)
    place = {name: at for at, name in enumerate(values)}
    sets: dict[str, tuple[int, ...]] = {
        "constant": (),
        "index alone": tuple(place[n] for n in (index,) if n in place),
        "accuracy drop alone": tuple(place[n] for n in ("accuracy_drop",) if n in place),
        "controls alone": tuple(place[n] for n in CONTROLS if n in place),
    }
    predicted = {name: np.full(len(y), np.nan) for name in (*sets, "chosen quantities")}
    picks: Counter[str] = Counter()
    # Without a kind of shift there is none to leave out.
    groups = [n for n in np.unique(names[names != ""]) if (names == n).sum() >= GROUP_UPDATES]
    fits = 0
    for group in groups:
        test = names == group
        # A task that is left out is left out under its other names too.
        kin = [n for n in np.unique(names) if column == "label:new" and _share_data(n, group)]
        rest = ~np.isin(names, [group, *kin])
        if rest.sum() < LEAST_RUNS or len(np.unique(names[rest])) < 2:
            continue
        fits += 1
        chosen = forward_selection(x[rest], y[rest], names[rest])
        picks.update(values.columns[at] for at in chosen)
        train, held = _prepared(x[rest], x[test])
        for name, places in (sets | {"chosen quantities": chosen}).items():
            if places or name in ("constant", "chosen quantities"):
                predicted[name][test] = _fitted(train[:, places], y[rest], held[:, places])
    if not fits:
        reason = (
            f"fewer than three groups, none of {GROUP_UPDATES} updates or more, or fewer than "
            f"{LEAST_RUNS} updates beside it"
        )
        nothing = {"error": math.nan, "rank_correlation": math.nan, "runs": 0, "groups": 0}
        return [{"predictors": name, "reason": reason} | nothing for name in predicted], []
    told = [
        {"predictors": name, "reason": ""} | _misses(values_of, y, censored, names, groups)
        for name, values_of in predicted.items()
    ]
    return told, [
        {"quantity": name, "times": times, "fits": fits} for name, times in picks.most_common()
    ]


def _share_data(one: str, other: str) -> bool:
    return bool(sources_of(one) & sources_of(other))


def _misses(
    predicted: Floats,
    y: Floats,
    censored: NDArray[np.bool_],
    names: NDArray[Any],
    groups: list[str],
) -> dict[str, Any]:
    made = np.isfinite(predicted)
    exact = made & ~censored
    error = np.abs(np.expm1(predicted[exact] - y[exact]))
    total = weight = 0.0
    for group in groups:
        of = made & (names == group)
        order = spearman(predicted[of], y[of], censored[of]) if of.any() else math.nan
        if not math.isnan(order):
            pairs = of.sum() * (of.sum() - 1) / 2
            total, weight = total + pairs * order, weight + pairs
    return {
        "error": float(np.median(error)) if len(error) else math.nan,
        "rank_correlation": total / weight if weight else math.nan,
        "runs": int(made.sum()),
        "groups": sum(bool((made & (names == group)).any()) for group in groups),
    }
