"""The tables of evidence: what foretells the cost of updates, and how well, from measured ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError
from resque.experiments.correlation import (
    Floats,
    Interval,
    Resampled,
    bootstrap_interval,
    resampled_kendall,
    resampled_kendall_within,
    resampled_log_pearson,
    resampled_partial_spearman,
    resampled_spearman,
    resampled_spearman_within,
    seed_noise,
    spearman,
)
from resque.experiments.leave_out import leave_out_errors
from resque.experiments.situations import (
    DATA,
    GROUP_UPDATES,
    LEAST_GROUPS,
    LEAST_RUNS,
    LEVEL,
    MEASURES,
    NOISE_LEVEL,
    SITUATIONS,
    Measure,
    Situation,
    censored_in,
    column_names,
    heavy_tailed,
    kind_of,
    predictors_of,
    verdict_of,
)
from resque.history.table import PREFLIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

# A grouping is taken when groups that are large enough hold this share of the updates.
_COVERED = 2 / 3
_CELL = (*DATA, "label:start", "label:recipe", "label:examples", "label:shift", "label:kind",
         "label:held_out", "label:strength", "label:cell")  # fmt: skip
_GROUPINGS = (
    (*DATA, "label:start", "label:recipe", "label:examples"),
    (*DATA, "label:start", "label:recipe"),
    ("label:network", "label:start", "label:recipe", "label:examples"),
    ("label:network", "label:start", "label:recipe"),
    ("label:start", "label:recipe"),
)
_INTENSITY_GROUPINGS = (
    (*DATA, "label:start", "label:recipe", "label:shift"),
    ("label:network", "label:start", "label:recipe", "label:shift"),
    ("label:start", "label:recipe", "label:shift"),
)
_COLUMNS = (
    "situation", "measure", "predictor", "kind", "scope", "statistic", "value", "lower", "upper",
    "runs", "censored", "groups", "grouping", "reason",
)  # fmt: skip
WITHIN, POOLED, PARTIAL, INTENSITY = "within", "pooled", "partial", "one kind of shift"
_CLAIMED = MEASURES[:6]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """The tables of evidence; made by `evidence`, written by `write`.

    Attributes:
        correlations: one row per situation, measure, predictor, scope (within groups, pooled,
            partial, within one kind of shift) and statistic: value, lower, upper, runs, censored,
            groups, grouping, and the reason where there is no value.
        best_rivals: how often the best rival, chosen on other groups, beats the index.
        left_out: error and rank correlation in what was left out, per set of predictors.
        chosen: how often each quantity was chosen, and in how many fits.
        noise: what seeds alone change.
        claims: one row per claim of the paper's abstract.
        points: what the figures show of each update.
        logged: predictors that are used as their logarithms.
        replaced: measure -> how many zeros were replaced by half of the least value above 0.
        modelled: measures that were modelled, and not metered, in some run.
        updates: that were looked at.
        held_out: that were set aside and not looked at.
    """

    correlations: DataFrame
    best_rivals: DataFrame
    left_out: DataFrame
    chosen: DataFrame
    noise: DataFrame
    claims: DataFrame
    points: DataFrame
    logged: tuple[str, ...]
    replaced: Mapping[str, int]
    modelled: tuple[str, ...]
    updates: int
    held_out: int


def evidence(table: DataFrame, *, resamples: int = 1000, seed: int = 0) -> Evidence:
    """Return the tables of evidence of the updates that are not held out.

    Within groups: Spearman's correlation (Kendall's beside it) in each group of updates that
    share network, data, recipe and examples, averaged over groups of 4 updates or more with
    their pairs as weights; where such groups hold less than two thirds of the updates, the next
    coarser grouping is taken, and the table says which. Pooled: over all updates. Partial: ranks,
    given accuracy drop, classes and parameters (for tasks classes, examples per class and
    parameters). Intervals are of 90 %, over resamples that draw networks, and
    new data, each as a whole.

    Epochs, seconds, energy and carbon of an update that missed its target are censored: it would
    have had more. The regressions, a plain yardstick, take them as they are to train on and
    leave them out of the error.

    Args:
        table: from `table_of`, of updates with the labels of a `Cell` and a pre-flight.
        resamples: of each interval.
        seed: of the resamples.

    Raises:
        InputError: a column is missing, or no update is left.
    """
    import pandas as pd

    made = _checked(table)
    made, replaced = _above_zero(made)
    values = predictors_of(made)
    logged = tuple(
        name
        for name in column_names(values)
        if name != NOISE_LEVEL and heavy_tailed(values[name].to_numpy())
    )
    correlations = _correlations(made, values, logged, resamples=resamples, seed=seed)
    left_out, chosen = leave_out_errors(made, values, logged)
    labels = [
        "label:network", "label:shift", "label:kind", "label:start", "reached", "probe_steps",
        "steps_per_epoch",
    ]  # fmt: skip
    points = made[[*labels, *(m.column for m in MEASURES)]].copy()
    for name in {situation.index for situation in SITUATIONS} & set(column_names(values)):
        points[name] = values[name]
    return Evidence(
        correlations=correlations,
        best_rivals=_best_rivals(made, values),
        left_out=left_out,
        chosen=chosen,
        noise=pd.DataFrame(_noise(made)),
        claims=_claims(correlations, made),
        points=points,
        logged=logged,
        replaced=replaced,
        modelled=tuple(m.title for m in MEASURES if _modelled(made, m).any()),
        updates=len(made),
        held_out=len(table) - len(made),
    )


def claims(table: DataFrame, *, resamples: int = 1000, seed: int = 0) -> DataFrame:
    """Return one row per claim of the abstract of arXiv:2412.15511, with its verdict.

    The claim: the index correlates with epochs, gradient norm, parameter change, energy and
    carbon, for new tasks, multiple kinds of noise, and varying intensities. *held* when the
    lower bound of the 90 % interval of Spearman's correlation within groups is at least 0.5,
    *partly* when it is above 0, else *not*; *not tested*, with the reason, where runs are too
    few or energy was modelled. Seconds stand beside energy.

    Args:
        table: see `evidence`.
        resamples: of each interval.
        seed: of the resamples.

    Raises:
        InputError: a column is missing, or no update is left.
    """
    made, _ = _above_zero(_checked(table))
    values = predictors_of(made)
    indices = [name for name in values if name in {s.index for s in SITUATIONS}]
    found = _correlations(made, values[indices], (), resamples=resamples, seed=seed)
    return _claims(found, made)


def _checked(table: DataFrame) -> DataFrame:
    """Return the updates that are not held out."""
    wanted = (
        *_CELL,
        "reached",
        "epochs",
        "probe_steps",
        "steps_per_epoch",
        "energy_modelled",
        *(m.column for m in MEASURES),
    )
    missing = [name for name in wanted if name not in table.columns]
    if missing or not any(name.startswith(PREFLIGHT) for name in table.columns):
        raise InputError(
            "Evidence needs a table of updates with the labels of their cells and with "
            f"pre-flights; missing: {', '.join(missing) or PREFLIGHT + '...'}. Make the updates "
            "with `resque.experiments.runs.run` and the table with `table_of`."
        )
    unlabelled = int(table["label:cell"].isna().sum())
    if unlabelled:
        raise InputError(
            f"{unlabelled} of {len(table)} updates have no cell, so that what they share is not "
            "known. Leave them out."
        )
    made = table[table["label:held_out"] == ""].reset_index(drop=True)
    # Strings of pandas' own are slow to take out, and these are taken out a thousand times.
    made = made.astype(dict.fromkeys(_CELL, object))
    if not len(made):
        raise InputError(f"No update is left: all {len(table)} are held out.")
    return made


def _above_zero(made: DataFrame) -> tuple[DataFrame, dict[str, int]]:
    """Return measures as numbers with zeros replaced, since a logarithm has none, and how many."""
    import pandas as pd

    made, replaced = made.copy(), {}
    for measure in MEASURES:
        numbers = pd.to_numeric(made[measure.column], errors="coerce").astype(float)
        zeros = numbers <= 0
        if zeros.any() and (numbers > 0).any():
            replaced[measure.title] = int(zeros.sum())
            numbers = numbers.mask(zeros, numbers[numbers > 0].min() / 2)
        made[measure.column] = numbers.where(numbers > 0)
    return made, replaced


def _joined(rows: DataFrame, columns: Sequence[str]) -> NDArray[Any]:
    parts = [rows[column].to_numpy(dtype=object) for column in columns]
    return np.array(["|".join(map(str, row)) for row in zip(*parts, strict=True)], dtype=str)


def _large_enough(names: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows are in a group of enough updates (rows,)."""
    _, member, sizes = np.unique(names, return_inverse=True, return_counts=True)
    enough: NDArray[np.bool_] = (sizes >= GROUP_UPDATES)[member]
    return enough


def _grouping(rows: DataFrame, groupings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the finest grouping whose large enough groups hold most updates; else the last."""
    for grouping in groupings:
        if _large_enough(_joined(rows, grouping)).sum() >= _COVERED * len(rows):
            return grouping
    return groupings[-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A predictor and a measure of the updates that have both."""

    rows: DataFrame
    x: Floats
    y: Floats
    censored: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: DataFrame, predictor: Series, measure: Measure) -> _Pair:
        x, y = predictor.loc[rows.index].to_numpy(), rows[measure.column].to_numpy()
        censored = censored_in(rows, measure)
        return cls(rows[list(_CELL)], x, y, censored).only(np.isfinite(x) & np.isfinite(y))

    def only(self, used: NDArray[np.bool_]) -> _Pair:
        return _Pair(self.rows[used], self.x[used], self.y[used], self.censored[used])

    @property
    def clusters(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Network and new data of each row, both of which are drawn as a whole."""
        return _joined(self.rows, ("label:network",)), _joined(self.rows, ("label:new",))

    def told(
        self, scope: str, statistic: str, of: Resampled, draw: Mapping[str, Any], reason: str = ""
    ) -> dict[str, Any]:
        """Return a row of the table, with the reason where there is no value."""
        networks, data = self.clusters
        several = len(np.unique(_joined(self.rows, DATA)))
        if not reason and len(self.x) < LEAST_RUNS:
            reason = f"{len(self.x)} runs; {LEAST_RUNS} are needed"
        if not reason and several < LEAST_GROUPS:
            reason = f"{several} networks x data; {LEAST_GROUPS} are needed"
        interval = Interval(math.nan, math.nan, math.nan, several)
        if not reason:
            interval = bootstrap_interval(of, networks, crossed=data, **draw)
            if math.isnan(interval.value):
                reason = "the predictor or the measure does not vary"
        return {
            "scope": scope,
            "statistic": statistic,
            "value": interval.value,
            "lower": interval.lower,
            "upper": interval.upper,
            "runs": len(self.x),
            "censored": int(self.censored.sum()),
            "groups": several,
            "grouping": "",
            "reason": reason,
        }


def _correlations(
    made: DataFrame, values: DataFrame, logged: Sequence[str], *, resamples: int, seed: int
) -> DataFrame:
    import pandas as pd

    draw = {"level": LEVEL, "n": resamples, "seed": seed}
    found: list[dict[str, Any]] = []
    for situation in SITUATIONS:
        rows = situation.of(made)
        for measure in MEASURES:
            for name in column_names(values):
                pair = _Pair.of(rows, values[name], measure)
                if not len(pair.x):
                    continue
                told = [*_intensities(pair, situation, draw)]
                # The unit of the strength is another for each kind of shift.
                if name != NOISE_LEVEL:
                    told += _in_groups(pair, WITHIN, _GROUPINGS, draw)
                    told += _pooled(pair, name in logged, draw)
                    told.append(_partial(pair, situation, name, values, draw))
                keys = {
                    "situation": situation.name,
                    "measure": measure.title,
                    "predictor": name,
                    "kind": kind_of(name),
                }
                found += [keys | row for row in told]
    return pd.DataFrame(found, columns=_COLUMNS)


def _in_groups(
    pair: _Pair, scope: str, groupings: Sequence[tuple[str, ...]], draw: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    grouping = _grouping(pair.rows, groupings)
    names = _joined(pair.rows, grouping)
    used = _large_enough(names)
    part, names = pair.only(used), names[used]
    groups = len(np.unique(names))
    reason = "" if groups else f"no group has {GROUP_UPDATES} updates or more"
    words = ", ".join(column.removeprefix("label:") for column in grouping)
    of: dict[str, Resampled] = {
        "spearman": lambda c: resampled_spearman_within(part.x, part.y, names, c, part.censored),
        "kendall": lambda c: resampled_kendall_within(part.x, part.y, names, c, part.censored),
    }
    for statistic, resampled in of.items():
        told = part.told(scope, statistic, resampled, draw, reason)
        yield told | {"groups": groups, "grouping": words}


def _intensities(
    pair: _Pair, situation: Situation, draw: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
    if situation.name != "shifts":
        return ()
    shifted = pair.only((pair.rows["label:shift"] != "").to_numpy(dtype=bool))
    return _in_groups(shifted, INTENSITY, _INTENSITY_GROUPINGS, draw) if len(shifted.x) else ()


def _pooled(pair: _Pair, logged: bool, draw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    x = np.log(pair.x) if logged else pair.x
    of: dict[str, Resampled] = {
        "spearman": lambda c: resampled_spearman(pair.x, pair.y, c, pair.censored),
        "kendall": lambda c: resampled_kendall(pair.x, pair.y, c, pair.censored),
        "log_pearson": lambda c: resampled_log_pearson(x, pair.y, c, pair.censored),
    }
    for statistic, resampled in of.items():
        yield pair.told(POOLED, statistic, resampled, draw)


def _partial(
    pair: _Pair, situation: Situation, name: str, values: DataFrame, draw: Mapping[str, Any]
) -> dict[str, Any]:
    names = [given for given in situation.given if given in values]
    given = values.loc[pair.rows.index, names].to_numpy()
    used = np.isfinite(given).all(axis=1)
    part, given = pair.only(used), given[used]
    return part.told(
        PARTIAL,
        "spearman",
        lambda counts: resampled_partial_spearman(part.x, part.y, given, counts, part.censored),
        draw,
        "it is one of those held constant" if name in names else "",
    )


def _best_rivals(made: DataFrame, values: DataFrame) -> DataFrame:
    """Return how often the best rival of the other groups beats the index in a group."""
    import pandas as pd

    found = []
    for situation in SITUATIONS:
        rows = situation.of(made)
        for measure in MEASURES:
            if situation.index not in values or not len(rows):
                continue
            index = _Pair.of(rows, values[situation.index], measure)
            rows_known = rows.loc[index.rows.index]
            if not len(rows_known):
                continue
            grouping = _grouping(rows_known, _GROUPINGS)
            names = _joined(rows_known, grouping)
            groups = np.unique(names[_large_enough(names)])
            by_name = {
                name: _by_group(_Pair.of(rows_known, values[name], measure), grouping, groups)
                for name in column_names(values)
                if name == situation.index or kind_of(name) in ("rival", "zero-shot")
            }
            runs = np.array([(names == group).sum() for group in groups])
            # More cost with a higher index, and less accuracy.
            sign = -1 if measure.column == "peak_accuracy" else 1
            found.append(
                {"situation": situation.name, "measure": measure.title}
                | _contest(by_name, situation.index, runs, sign)
            )
    return pd.DataFrame(found)


def _by_group(pair: _Pair, grouping: Sequence[str], groups: NDArray[Any]) -> Floats:
    """Return Spearman's correlation in each group (groups,); NaN where it is undefined."""
    names = _joined(pair.rows, grouping)
    found = np.full(len(groups), np.nan)
    for place, group in enumerate(groups):
        of = names == group
        if of.sum() >= GROUP_UPDATES:
            found[place] = spearman(pair.x[of], pair.y[of], pair.censored[of])
    return found


def _contest(
    by_name: Mapping[str, Floats], index: str, runs: NDArray[Any], sign: int
) -> dict[str, Any]:
    """Return how often the best rival beats the index, whose correlation should have a sign."""
    rivals = [name for name in by_name if name != index]
    correlations = np.array([by_name[name] for name in rivals]).reshape(len(rivals), len(runs))
    weights = np.where(np.isfinite(correlations), runs * (runs - 1) / 2, 0)
    sums = weights * np.nan_to_num(correlations)
    wins, picks = [], []
    for group in range(len(runs)):
        others = np.arange(len(runs)) != group
        # A rival that this group does not know cannot be used in it.
        weight = np.where(np.isfinite(correlations[:, group]), weights[:, others].sum(axis=1), 0)
        means = sums[:, others].sum(axis=1) / np.where(weight > 0, weight, np.inf)
        own = sign * by_name[index][group]
        if not means.any() or math.isnan(own):
            continue
        best = int(np.abs(means).argmax())
        # What a rival says is known from the other groups, its direction too.
        rival = math.copysign(1, means[best]) * correlations[best, group]
        picks.append(rivals[best])
        # A tie is half a win.
        wins.append(0.5 if math.isclose(rival, own, abs_tol=1e-9) else float(rival > own))
    reason = "" if wins else f"no group of {GROUP_UPDATES} updates has the index and a rival"
    return {
        "index": index,
        "rival": Counter(picks).most_common(1)[0][0] if picks else "",
        "share": float(np.mean(wins)) if wins else math.nan,
        "groups": len(wins),
        "runs": int(runs.sum()),
        "reason": reason,
    }


def _noise(made: DataFrame) -> Iterator[dict[str, Any]]:
    cells = made["label:cell"].str.rpartition("|")[0].to_numpy(dtype=str)
    for situation in SITUATIONS:
        of = made.index.isin(situation.of(made).index)
        for measure in MEASURES:
            used = of & made[measure.column].notna().to_numpy(dtype=bool)
            if measure.cost:
                used &= made["reached"].to_numpy(dtype=bool)
            keys = {"situation": situation.name, "measure": measure.title}
            try:
                found = seed_noise(made.loc[used, measure.column].to_numpy(), cells[used])
            except InputError:
                yield keys | {"reason": "fewer than two cells with two seeds"}
                continue
            yield keys | {
                "intraclass": found.intraclass,
                "ceiling": found.ceiling,
                "share": found.share,
                "median_difference": found.median_difference,
                "cells": found.cells,
                "runs": found.runs,
                "reason": "",
            }


_CLAIMS = (
    ("new tasks", "new tasks", "RESQUE_task", WITHIN),
    ("multiple kinds of noise", "shifts", "RESQUE_dist", WITHIN),
    ("varying intensities of noise", "shifts", "RESQUE_dist", INTENSITY),
)


def _claims(correlations: DataFrame, made: DataFrame) -> DataFrame:
    import pandas as pd

    by_key = {
        (row["situation"], row["measure"], row["predictor"], row["scope"]): row
        for row in records_of(correlations)
        if row["statistic"] == "spearman"
    }
    found = []
    for under, name, index, scope in _CLAIMS:
        situation = next(s for s in SITUATIONS if s.name == name)
        rows = situation.of(made)
        for measure in _CLAIMED:
            key = (name, measure.title, index, scope)
            row = by_key.get(key)
            reason = str(row["reason"]) if row else _why_none(rows, measure, index)
            modelled = _modelled(rows, measure)
            if modelled.any() and not reason:
                reason = f"energy was modelled in {modelled.sum()} of {len(modelled)} runs"
            numbers = {part: row[part] if row else math.nan for part in ("value", "lower", "upper")}
            found.append(
                {"claim": f"{index} and {measure.title}, {under}", "index": index, "under": under,
                 "measure": measure.title}
                | numbers
                | {part: int(row[part]) if row else 0 for part in ("runs", "groups")}
                | {"verdict": "not tested" if reason else verdict_of(numbers["lower"]),
                   "reason": reason}
            )  # fmt: skip
    return pd.DataFrame(found)


def _modelled(rows: DataFrame, measure: Measure) -> NDArray[np.bool_]:
    """Return, for each update with a value, whether a model and not a meter gave it."""
    known = rows[measure.column].notna()
    if measure.column not in ("energy_kwh", "carbon_kg"):
        return np.zeros(int(known.sum()), dtype=bool)
    modelled: NDArray[np.bool_] = rows.loc[known, "energy_modelled"].to_numpy(dtype=bool)
    return modelled


def _why_none(rows: DataFrame, measure: Measure, index: str) -> str:
    if not len(rows):
        return "there are no such updates"
    if rows[measure.column].isna().all():
        return f"no {measure.title} was recorded"
    return f"no update with a known {measure.title} has {index}"


def records_of(table: DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, each as column -> value."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
