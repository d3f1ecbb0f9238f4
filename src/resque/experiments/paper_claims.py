"""What updates say of the paper's claims: correlations, ratios of costs, verdicts, sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.experiments.cells import Cell
from resque.experiments.correlation import (
    Floats,
    Interval,
    Resampled,
    bootstrap_interval,
    resampled_spearman_within,
)
from resque.experiments.situations import (
    CARBON,
    CLAIMED,
    ENERGY,
    LEAST_GROUPS,
    LEVEL,
    TIME,
    Measure,
    Verdict,
    censored_in,
    modelled_in,
    verdict_of,
    why_none,
)
from resque.forecasting.outcome import outcome_of
from resque.history.records import Accuracy
from resque.history.table import PREFLIGHT, SHARE_OF_PEAK, table_of
from resque.history.update import Update

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

# Rank correlation of fewer rows says nothing.
_LEAST_ROWS = 3
# Below it an interval from groups is too narrow (see `bootstrap_interval`), and the sentence
# says so.
_FEW_GROUPS = 10
# Updates of one network resemble each other, and so do those for one task or kind of shift.
_WAYS = (("label:network",), ("label:new", "label:shift"))
_STRATUM = ("label:network", "label:old")
_COMMON, _SCRATCH = "common_accuracy", "_scratch"
_IN_WORDS: Mapping[Verdict, str] = {
    "held": "held", "partly": "partly held", "not": "not held", "not tested": "not tested",
}  # fmt: skip
# A run from scratch and the retraining that it is compared with have these in common; what the
# network knew before is no part of it.
_LEARNT = (
    "label:network", "label:size", "label:new", "label:shift", "label:level", "label:examples",
    "label:seed",
)  # fmt: skip


PEAK = Measure("lost_accuracy", "1 - peak accuracy")
# Of training until an accuracy; see `pairs_of`.
COSTS = (Measure("epochs", "epochs"), TIME, ENERGY, CARBON)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One claim of the paper, and what the updates say of it.

    Attributes:
        measure: in words, with its unit.
        verdict: see `reproduce`.
        value: the correlation; or, of two costs, the mean ratio. None where undefined.
        lower: lower bound of its 90 % interval, likewise.
        upper: upper bound.
        updates: behind it; of two costs, pairs of updates.
        censored: of these, that did not meet their target.
        groups: that the interval is drawn from.
        modelled: whether it rests on modelled energy.
        sentence: all of it, in words.
    """

    measure: str
    verdict: Verdict
    value: float | None
    lower: float | None
    upper: float | None
    updates: int
    censored: int
    groups: int
    modelled: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the claim as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a table: the correlations of one network on one data set.

    Attributes:
        network: its name.
        data: that it knew.
        updates: behind the row.
        censored: of these.
        correlations: measure in words -> rank correlation with its interval.
    """

    network: str
    data: str
    updates: int
    censored: int
    correlations: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        told = {
            title: {name: _known(value) for name, value in asdict(interval).items()}
            for title, interval in self.correlations.items()
        }
        return asdict(self) | {"correlations": told}


def index_claims(
    table: DataFrame, index: str, measures: Sequence[Measure] = CLAIMED
) -> tuple[Claim, ...]:
    """Return whether an index goes together with each measure; see `reproduce`.

    Args:
        table: from `table_of`, of updates of cells.
        index: "RESQUE_dist" or "RESQUE_task".
        measures: to compare it with.
    """
    claims = []
    for measure in measures:
        rows = known_rows(table, measure, index)
        found, modelled = correlation(rows, index, measure), modelled_in(rows, measure) > 0
        few = found.groups < LEAST_GROUPS
        verdict = verdict_of(found.lower, testable=not (modelled or few))
        told = f"{index} and {measure.axis(modelled=modelled)}: {_IN_WORDS[verdict]}"
        if math.isnan(found.value):
            why = (
                why_none(table, measure, index) if rows.empty else "too few updates differ in both"
            )
        else:
            why = (
                f"rank correlation {found.value:.2f}, {_interval_in_words(found)}; "
                f"{_counted(rows, measure)}{_caution(found, modelled)}"
            )
        claims.append(_claim(f"{told} ({why}).", verdict, found, rows, measure, modelled))
    return tuple(claims)


def learnt(cell: Cell) -> tuple[str, ...]:
    """Return what a run from scratch shares with the retraining that it is compared with.

    Args:
        cell: either of the two.
    """
    labels = cell.labels()
    return tuple(labels[name.removeprefix("label:")] for name in _LEARNT)


def cost_claims(pairs: DataFrame) -> tuple[tuple[Claim, ...], str]:
    """Return whether retraining costs less than training from scratch, and the sum in words.

    Both are costs until the same accuracy; see `pairs_of` and `reproduce`.

    Args:
        pairs: from `pairs_of`.
    """
    claims = []
    for measure in COSTS:
        known = pairs[(pairs[f"{measure.column}_scratch"] > 0) & (pairs[measure.column] > 0)]
        ratio = np.asarray(known[measure.column] / known[f"{measure.column}_scratch"], float)
        found, modelled = _mean_ratio(ratio, _ways(known)), modelled_in(known, measure) > 0
        verdict: Verdict = "not tested"
        if not (modelled or math.isnan(found.upper) or found.groups < LEAST_GROUPS):
            verdict = "held" if found.upper < 1 else "partly" if found.value < 1 else "not"
        told = f"Retraining costs less, {measure.axis(modelled=modelled)}: {_IN_WORDS[verdict]}"
        if math.isnan(found.value):
            why = why_none(pairs, measure, "a run from scratch to compare it with")
        else:
            lost = [
                int((~known[side].astype(bool)).sum()) for side in ("reached", "reached_scratch")
            ]
            why = (
                f"{found.value:.2f} of training from scratch to the same accuracy, "
                f"{_interval_in_words(found)}; {len(known)} pairs, in which retraining was cut "
                f"off {lost[0]} times beyond it, from scratch {lost[1]} times"
                f"{_caution(found, modelled)}"
            )
        claims.append(_claim(f"{told} ({why}).", verdict, found, known, measure, modelled))
    if pairs.empty:
        return tuple(claims), summary(claims)
    means = [pairs[name].mean() for name in (_COMMON, "peak_accuracy", "peak_accuracy_scratch")]
    accuracies = (
        f" Costs are those until an accuracy of {means[0]:.2f} on average; in the end retrained "
        f"networks reached {means[1]:.2f}, those from scratch {means[2]:.2f}."
    )
    return tuple(claims), summary(claims) + accuracies


def _claim(
    sentence: str,
    verdict: Verdict,
    found: Interval,
    rows: DataFrame,
    measure: Measure,
    modelled: bool,
) -> Claim:
    return Claim(
        measure=measure.axis(modelled=modelled),
        verdict=verdict,
        value=_known(found.value),
        lower=_known(found.lower),
        upper=_known(found.upper),
        updates=len(rows),
        censored=_lost(rows, measure),
        groups=found.groups,
        modelled=modelled,
        sentence=sentence,
    )


def summary(claims: Sequence[Claim]) -> str:
    """Return how many claims held, in a sentence.

    Args:
        claims: of one figure.
    """
    tested = [claim for claim in claims if claim.verdict != "not tested"]
    counts = [
        f"{_IN_WORDS[verdict]} for {', '.join(same)}"
        for verdict in _IN_WORDS
        if (same := [claim.measure for claim in claims if claim.verdict == verdict])
    ]
    few = min((claim.groups for claim in tested), default=0)
    doubt = (
        f" The intervals rest on {few} groups, which makes them too narrow."
        if tested and few < _FEW_GROUPS
        else ""
    )
    return f"The claim is {'; '.join(counts)}.{doubt}"


def _interval_in_words(found: Interval) -> str:
    # Of two groups it may be a single point, which looks like certainty.
    if math.isnan(found.lower) or found.groups < LEAST_GROUPS:
        return "no interval"
    return f"{100 * LEVEL:g} % interval {found.lower:.2f} to {found.upper:.2f}"


def _counted(rows: DataFrame, measure: Measure) -> str:
    lost = _lost(rows, measure)
    how = "counted as such" if measure.cost else "as they ended"
    return f"{len(rows)} updates" + (f", {lost} of them censored and {how}" if lost else "")


def _lost(rows: DataFrame, measure: Measure) -> int:
    """Return how many updates ended before it was known what they come to."""
    missed = censored_in(rows, measure) if measure.cost else ~rows["reached"].astype(bool)
    return int(missed.sum())


def _caution(found: Interval, modelled: bool) -> str:
    groups = f", in {found.groups} groups" if found.groups else ""
    if found.groups < LEAST_GROUPS:
        groups += f", where {LEAST_GROUPS} are needed"
    return groups + ("; energy was modelled, which is no evidence for it" if modelled else "")


def known_rows(table: DataFrame, measure: Measure, index: str) -> DataFrame:
    """Return the rows that have both an index and a measure.

    Args:
        table: from `table_of`.
        measure: one of them.
        index: "RESQUE_dist" or "RESQUE_task".
    """
    numbers = table[[f"{PREFLIGHT}{index}", measure.column]].to_numpy(dtype=float)
    places = np.flatnonzero(np.isfinite(numbers).all(axis=1))
    return table.take(places).reset_index(drop=True)


def correlation(rows: DataFrame, index: str, measure: Measure) -> Interval:
    """Return the rank correlation within one network that knows one data set, averaged over these.

    Args:
        rows: from `known_rows`.
        index: "RESQUE_dist" or "RESQUE_task".
        measure: to compare it with.
    """
    statistic, ways = _within(rows, index, measure)
    several = _combinations(ways)
    if several > 1:
        return bootstrap_interval(statistic, ways[0], crossed=ways[1], level=LEVEL)
    return Interval(correlation_alone(rows, index, measure), math.nan, math.nan, several)


def correlation_alone(rows: DataFrame, index: str, measure: Measure) -> float:
    """Return the value of `correlation` without its interval, which takes far less time.

    Args:
        rows: see `correlation`.
        index: likewise.
        measure: likewise.
    """
    statistic, (networks, _) = _within(rows, index, measure)
    return float(statistic(np.ones((len(networks), 1)))[0]) if len(networks) else math.nan


def _within(
    rows: DataFrame, index: str, measure: Measure
) -> tuple[Resampled, tuple[NDArray[Any], NDArray[Any]]]:
    """Return the statistic of resamples of the rows of large enough strata, and their groups."""
    strata = _joined(rows, _STRATUM)
    names, sizes = np.unique(strata, return_counts=True)
    used = np.isin(strata, names[sizes >= _LEAST_ROWS])
    strata = strata[used]
    x, y = (np.asarray(rows[c], float)[used] for c in (f"{PREFLIGHT}{index}", measure.column))
    censored = censored_in(rows, measure)[used]
    return (
        lambda counts: resampled_spearman_within(x, y, strata, counts, censored),
        _ways(rows[used]),
    )


def _ways(rows: DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    return _joined(rows, _WAYS[0]), _joined(rows, _WAYS[1])


def _combinations(ways: tuple[NDArray[Any], NDArray[Any]]) -> int:
    return len(set(zip(*ways, strict=True)))


def _mean_ratio(ratio: Floats, ways: tuple[NDArray[Any], NDArray[Any]]) -> Interval:
    """Return the geometric mean of ratios."""
    logs, several = np.log(ratio), _combinations(ways)
    if several < 2:
        value = float(np.exp(logs.mean())) if len(logs) else math.nan
        return Interval(value, math.nan, math.nan, several)

    def mean(counts: Floats) -> Floats:
        found: Floats = np.exp(logs @ counts / counts.sum(axis=0))
        return found

    return bootstrap_interval(mean, ways[0], crossed=ways[1], level=LEVEL)


def pairs_of(updates: Sequence[Update]) -> DataFrame:
    """Return each retrained update beside the one from scratch, whose columns end in _scratch.

    The costs of both are those until the first validation after training began with the same
    accuracy: 99 % of the lower one of their peaks. Until its own plateau the one that gets
    further would pay for what the other never reaches. Energy and carbon are shared out by time.

    The trap: where training from scratch was cut off, the accuracy is as low as it got until
    then.

    Args:
        updates: of cells, with their curves; pairs without any are left out.
    """
    table = table_of(updates)
    table["place"] = range(len(table))
    scratch = table["label:start"] == "scratch"
    columns = [*_LEARNT, "place", "reached", "peak_accuracy", "energy_modelled"]
    pairs = table[~scratch].merge(
        table.loc[scratch, columns], on=list(_LEARNT), suffixes=("", _SCRATCH)
    )
    compared = [
        _compared(updates[one], updates[other])
        for one, other in zip(pairs["place"], pairs[f"place{_SCRATCH}"], strict=True)
    ]
    names = [_COMMON, *(f"{m.column}{side}" for side in ("", _SCRATCH) for m in COSTS)]
    for at, name in enumerate(names):
        pairs[name] = np.array([row[at] if row else math.nan for row in compared], float)
    either = [pairs[f"energy_modelled{side}"].eq(True) for side in ("", _SCRATCH)]
    pairs["energy_modelled"] = either[0] | either[1]
    return pairs[pairs[_COMMON].notna()].reset_index(drop=True)


def _compared(*updates: Update) -> tuple[float, ...] | None:
    """Return the common accuracy, and each cost of each update until it was there."""
    # An accuracy that was there before would be reached for nothing, which has no logarithm.
    trained = [replace(update, curve=update.curve[1:]) for update in updates]
    if not all(update.curve for update in trained):
        return None
    common = SHARE_OF_PEAK * min(max(p.accuracy for p in u.curve) for u in trained)
    if common <= 0:
        return None
    return common, *(cost for update in trained for cost in _costs(update, Accuracy(common)))


def _costs(update: Update, target: Accuracy) -> tuple[float, ...]:
    """Return each of `COSTS` of an update until a target; NaN where it is not known."""
    until = outcome_of(update, target)
    if until is None or until.seconds is None or not update.duration_s:
        return (math.nan if until is None else until.epochs, math.nan, math.nan, math.nan)
    share = until.seconds / update.duration_s
    whole = (math.nan if c is None else c for c in (update.energy_kwh, update.carbon_kg))
    return until.epochs, until.seconds, *(share * cost for cost in whole)


def rows_of(table: DataFrame, index: str) -> tuple[Row, ...]:
    """Return the rows of a table of correlations, one per network and data set that it knew.

    Args:
        table: from `table_of`, of updates of cells.
        index: "RESQUE_dist" or "RESQUE_task".
    """
    rows = []
    for (network, data), part in table.groupby(list(_STRATUM), sort=False):
        correlations = {}
        for measure in CLAIMED:
            known = known_rows(part, measure, index)
            if len(known):
                title = measure.axis(modelled=modelled_in(known, measure) > 0)
                correlations[title] = correlation(known, index, measure)
        rows.append(
            Row(
                network=str(network),
                data=str(data),
                updates=len(part),
                censored=int((~part["reached"].astype(bool)).sum()),
                correlations=correlations,
            )
        )
    return tuple(rows)


def _joined(rows: DataFrame, columns: Sequence[str]) -> NDArray[Any]:
    return np.array(["|".join(row) for row in rows[list(columns)].itertuples(index=False)], object)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
