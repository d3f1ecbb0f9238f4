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
    degrees_of_freedom,
    resampled_kendall,
    resampled_kendall_within,
    resampled_log_pearson,
    resampled_partial_spearman,
    resampled_spearman,
    resampled_spearman_within,
    seed_noise,
)
from resque.experiments.leave_out import leave_out_errors
from resque.experiments.situations import (
    CLAIMED,
    DATA,
    GROUP_UPDATES,
    LEAST_GROUPS,
    LEAST_RUNS,
    LEVEL,
    MEASURES,
    NOISE_LEVEL,
    PEAK_ACCURACY,
    SITUATIONS,
    Measure,
    Situation,
    censored_in,
    column_names,
    heavy_tailed,
    kind_of,
    modelled_in,
    predictors_of,
    verdict_of,
    why_none,
)
from resque.history.table import PREFLIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

# A grouping is taken when groups that are large enough hold this share of the updates.
_COVERED = 2 / 3
_CELL = (*DATA, "label:start", "label:recipe", "label:examples", "label:shift", "label:kind",
         "label:held_out", "label:strength", "label:cell")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Grouping:
    """How updates are grouped: ranks are compared within a group, some things held constant.

    Attributes:
        shared: columns that are the same in a group.
        held: what is held constant in it, each the combinations of some columns.
    """

    shared: tuple[str, ...]
    held: tuple[tuple[str, ...], ...]

    def names(self, rows: DataFrame) -> NDArray[Any]:
        """Return the group of each row (rows,)."""
        return _joined(rows, self.shared)

    def levels(self, rows: DataFrame) -> NDArray[Any]:
        """Return what is held constant (rows, columns)."""
        return np.column_stack([_joined(rows, columns) for columns in self.held])

    def large_enough(self, rows: DataFrame) -> NDArray[np.bool_]:
        """Return which rows are in a group that orders enough of its updates (rows,)."""
        left = degrees_of_freedom(self.names(rows), self.levels(rows))
        enough: NDArray[np.bool_] = left >= GROUP_UPDATES - 1
        return enough

    def __str__(self) -> str:
        held = [" x ".join(map(_in_words, columns)) for columns in self.held]
        return f"{', '.join(map(_in_words, self.shared))}; held constant: {', '.join(held)}"


# The number of examples decides how many steps an epoch has. It is held constant in a group, and
# not shared by it: most groups that share network, data, recipe and examples have two or three
# updates in the design, and would be too small.
_GROUPINGS = (
    _Grouping((*DATA, "label:start", "label:recipe"), (("label:examples",),)),
    _Grouping(("label:network", "label:start", "label:recipe"), (("label:examples",),)),
    _Grouping(("label:start", "label:recipe"), (("label:network",), ("label:examples",))),
)
# No two cells of the design differ in nothing but the intensity. Network and kind of shift are
# held constant together: what is particular to one network under one kind of shift shows in the
# index and in the costs, and is no matter of intensity.
_INTENSITY_GROUPINGS = (
    _Grouping(
        ("label:old", "label:new", "label:start"),
        (("label:network", "label:shift"), ("label:recipe",), ("label:examples",)),
    ),
)
_NO_GROUP = f"no group has {GROUP_UPDATES - 1} degrees of freedom or more"
_COLUMNS = (
    "situation", "measure", "predictor", "kind", "scope", "statistic", "value", "lower", "upper",
    "runs", "censored", "groups", "grouping", "reason",
)  # fmt: skip
WITHIN, POOLED, PARTIAL, INTENSITY = "within", "pooled", "partial", "one kind of shift"


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
        noise: what seeds alone change, within groups and pooled.
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

    Within groups: Spearman's correlation (Kendall's beside it) among updates that share network,
    data and recipe, with the number of training examples held constant (see
    `resampled_spearman_within`; Kendall's takes the pairs that share it), averaged over groups
    with 3 degrees of freedom or more, their pairs as weights; where such groups hold less than
    two thirds of the updates, the next coarser grouping is taken, and the table says which.
    Within one kind of shift: the same over groups that share the data set, with network x kind of
    shift, recipe and examples held constant, of one run of each cell, so that what is left is the
    intensity. Pooled: over all updates. Partial: ranks, given accuracy drop, classes and
    parameters (for tasks classes, examples per class and parameters). Intervals are of 90 %, over
    resamples that draw networks, and new data, each as a whole.

    What seeds alone change bounds a correlation: the ceiling stands for both, within groups and
    pooled, over the same rows in the same groups, but for those that are censored.

    A claim of the abstract of arXiv:2412.15511, that the index correlates with epochs, gradient
    norm, parameter change, energy and carbon, for new tasks, multiple kinds of noise, and varying
    intensities, is *held* when the lower bound of the interval of Spearman's correlation within
    groups is at least 0.5, *partly* when it is above 0, else *not*; *not tested*, with the reason,
    where runs are too few or energy was modelled. Time stands beside energy.

    Epochs, time, energy and carbon of an update that missed its target are censored: it would
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
        modelled=tuple(m.title for m in MEASURES if modelled_in(made, m)),
        updates=len(made),
        held_out=len(table) - len(made),
    )


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


def _in_words(column: str) -> str:
    return column.removeprefix("label:")


def _without_seed(rows: DataFrame) -> NDArray[Any]:
    """Return the cell of each row, all of it but the seed (rows,)."""
    return np.array([key.rpartition("|")[0] for key in rows["label:cell"]], dtype=str)


def _grouping(
    rows: DataFrame, groupings: Sequence[_Grouping]
) -> tuple[_Grouping, NDArray[np.bool_]]:
    """Return the finest grouping whose large enough groups hold most updates, and which rows.

    Where there is none, it is the last.
    """
    for grouping in groupings:
        enough = grouping.large_enough(rows)
        if enough.sum() >= _COVERED * len(rows):
            break
    return grouping, enough


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
    pair: _Pair,
    scope: str,
    groupings: Sequence[_Grouping],
    draw: Mapping[str, Any],
    statistics: Sequence[str] = ("spearman", "kendall"),
) -> Iterator[dict[str, Any]]:
    grouping, enough = _grouping(pair.rows, groupings)
    part = pair.only(enough)
    names, held = grouping.names(part.rows), grouping.levels(part.rows)
    groups = len(np.unique(names))
    alike = np.array(["|".join(row) for row in np.column_stack([names, held])], dtype=str)
    of: dict[str, Resampled] = {
        "spearman": lambda c: resampled_spearman_within(
            part.x, part.y, names, c, part.censored, held
        ),
        "kendall": lambda c: resampled_kendall_within(part.x, part.y, alike, c, part.censored),
    }
    for statistic in statistics:
        told = part.told(scope, statistic, of[statistic], draw, "" if groups else _NO_GROUP)
        yield told | {"groups": groups, "grouping": str(grouping)}


def _intensities(
    pair: _Pair, situation: Situation, draw: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
    if situation.name != "shifts":
        return ()
    shifted = pair.only((pair.rows["label:shift"] != "").to_numpy(dtype=bool))
    # Runs of one cell differ in no intensity.
    _, first = np.unique(_without_seed(shifted.rows), return_index=True)
    one = shifted.only(np.isin(np.arange(len(shifted.x)), first))
    # Kendall's takes pairs that have all alike but the intensity, of which there are none.
    return _in_groups(one, INTENSITY, _INTENSITY_GROUPINGS, draw, ("spearman",))


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
            grouping, enough = _grouping(rows_known, _GROUPINGS)
            names = grouping.names(rows_known)
            groups = np.unique(names[enough])
            by_name = {
                name: _by_group(_Pair.of(rows_known, values[name], measure), grouping, groups)
                for name in column_names(values)
                if name == situation.index or kind_of(name) in ("rival", "zero-shot")
            }
            runs = np.array([(names == group).sum() for group in groups])
            # More cost with a higher index, and less accuracy.
            sign = -1 if measure is PEAK_ACCURACY else 1
            found.append(
                {"situation": situation.name, "measure": measure.title}
                | _contest(by_name, situation.index, runs, sign)
            )
    return pd.DataFrame(found)


def _by_group(pair: _Pair, grouping: _Grouping, groups: NDArray[Any]) -> Floats:
    """Return Spearman's correlation in each group (groups,); NaN where it is undefined."""
    names, held = grouping.names(pair.rows), grouping.levels(pair.rows)
    enough = grouping.large_enough(pair.rows)
    found = np.full(len(groups), np.nan)
    for place, group in enumerate(groups):
        of = enough & (names == group)
        found[place] = resampled_spearman_within(
            pair.x[of], pair.y[of], names[of], np.ones((of.sum(), 1)), pair.censored[of], held[of]
        )[0]
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
    reason = "" if wins else "no group that is large enough has the index and a rival"
    return {
        "index": index,
        "rival": Counter(picks).most_common(1)[0][0] if picks else "",
        "share": float(np.mean(wins)) if wins else math.nan,
        "groups": len(wins),
        "runs": int(runs.sum()),
        "reason": reason,
    }


def _noise(made: DataFrame) -> Iterator[dict[str, Any]]:
    for situation in SITUATIONS:
        of = situation.of(made)
        for measure in MEASURES:
            rows = of[of[measure.column].notna() & ~censored_in(of, measure)]
            grouping, enough = _grouping(rows, _GROUPINGS)
            grouped = rows[enough]
            for scope, used, strata in (
                (WITHIN, grouped, (grouping.names(grouped), grouping.levels(grouped))),
                (POOLED, rows, ()),
            ):
                keys = {"situation": situation.name, "measure": measure.title, "scope": scope}
                y, cells = used[measure.column].to_numpy(), _without_seed(used)
                try:
                    found = seed_noise(y, cells, *strata)
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
        for measure in CLAIMED:
            key = (name, measure.title, index, scope)
            row = by_key.get(key)
            reason = str(row["reason"]) if row else why_none(rows, measure, index)
            modelled = modelled_in(rows, measure)
            if modelled and not reason:
                known = int(rows[measure.column].notna().sum())
                reason = f"energy was modelled in {modelled} of {known} runs"
            numbers = {part: row[part] if row else math.nan for part in ("value", "lower", "upper")}
            found.append(
                {"claim": f"{index} and {measure.title}, {under}", "index": index, "under": under,
                 "measure": measure.title}
                | numbers
                | {part: int(row[part]) if row else 0 for part in ("runs", "groups")}
                | {"verdict": verdict_of(numbers["lower"], testable=not reason),
                   "reason": reason}
            )  # fmt: skip
    return pd.DataFrame(found)


def records_of(table: DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, each as column -> value."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
