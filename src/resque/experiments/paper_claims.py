"""What updates say of the paper's claims: correlations, ratios of costs, verdicts, sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from resque.experiments.situations import LEAST_GROUPS, LEVEL, Verdict, verdict_of
from resque.history.table import PREFLIGHT

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
_IN_WORDS: Mapping[Verdict, str] = {
    "held": "held", "partly": "partly held", "not": "not held", "not tested": "not tested",
}  # fmt: skip
# A run from scratch and the retraining that it is compared with have these in common; what the
# network knew before is no part of it.
_LEARNT = (
    "label:network", "label:size", "label:new", "label:shift", "label:level", "label:examples",
    "label:seed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measure:
    """What an update came to, as an axis.

    Attributes:
        column: of the table (see `table_of`).
        title: in words.
        unit: "" for a number without one.
        cost: whether an update that missed its target would have had more of it.
        metered: whether it comes from a meter of energy.
    """

    column: str
    title: str
    unit: str = ""
    cost: bool = True
    metered: bool = False

    def axis(self, *, modelled: bool) -> str:
        """Return the words beside an axis."""
        modelled = modelled and self.metered
        told = [part for part in (self.unit, "modelled" if modelled else "") if part]
        return f"{self.title} ({', '.join(told)})" if told else self.title


_SECONDS = Measure("duration_s", "time", "s")
_ENERGY = Measure("energy_kwh", "energy", "kWh", metered=True)
_CARBON = Measure("carbon_kg", "carbon", "kg CO2e", metered=True)
# The five of the paper, and seconds, which stand for energy where that is modelled.
MEASURES = (
    Measure("epochs_to_peak_share", "epochs to 99 % of the peak"),
    Measure("gradient_norm", "gradient norm", cost=False),
    Measure("parameter_change", "parameter change", cost=False),
    _SECONDS,
    _ENERGY,
    _CARBON,
)
COSTS = (Measure("epochs", "epochs"), _SECONDS, _ENERGY, _CARBON)
PEAK = Measure("lost_accuracy", "1 - peak accuracy", cost=False)


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
    table: DataFrame, index: str, measures: Sequence[Measure] = MEASURES
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
        found, modelled = correlation(rows, index, measure), is_modelled(rows, measure)
        few = found.groups < LEAST_GROUPS
        verdict: Verdict = "not tested" if modelled or few else verdict_of(found.lower)
        told = f"{index} and {measure.axis(modelled=modelled)}: {_IN_WORDS[verdict]}"
        if math.isnan(found.value):
            why = _why_no_number(table, measure) if rows.empty else "too few updates differ in both"
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


def cost_claims(table: DataFrame) -> tuple[tuple[Claim, ...], str]:
    """Return whether retraining costs less than training from scratch, and the sum in words.

    See `reproduce`. Where retraining was censored, its ratio is too small by an unknown amount:
    it counts as no saving, 1, unless it is more already. Where training from scratch was, the
    ratio is too large, which errs on the safe side.

    Args:
        table: from `table_of`, of updates of cells, with those from scratch.
    """
    pairs = pairs_of(table)
    claims = []
    for measure in COSTS:
        known = pairs[(pairs[f"{measure.column}_scratch"] > 0) & (pairs[measure.column] > 0)]
        ratio = np.asarray(known[measure.column] / known[f"{measure.column}_scratch"], float)
        ratio = np.where(known["reached"], ratio, np.maximum(ratio, 1))
        found, modelled = _mean_ratio(ratio, _ways(known)), is_modelled(known, measure)
        verdict: Verdict = "not tested"
        if not (modelled or math.isnan(found.upper) or found.groups < LEAST_GROUPS):
            verdict = "held" if found.upper < 1 else "partly" if found.value < 1 else "not"
        told = f"Retraining costs less, {measure.axis(modelled=modelled)}: {_IN_WORDS[verdict]}"
        if math.isnan(found.value):
            why = _why_no_number(table, measure)
        else:
            lost = [
                int((~known[side].astype(bool)).sum()) for side in ("reached", "reached_scratch")
            ]
            why = (
                f"{found.value:.2f} of training from scratch, {_interval_in_words(found)}; "
                f"{len(known)} pairs, retraining censored in {lost[0]}, from scratch in {lost[1]}"
                f"{_caution(found, modelled)}"
            )
        claims.append(_claim(f"{told} ({why}).", verdict, found, known, measure, modelled))
    means = [pairs[f"peak_accuracy{side}"].mean() for side in ("", "_scratch")]
    accuracies = (
        f" Retrained networks reached an accuracy of {means[0]:.2f} on average, those from "
        f"scratch {means[1]:.2f}."
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
        censored=int((~rows["reached"].astype(bool)).sum()),
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
    if math.isnan(found.lower):
        return "no interval"
    return f"{100 * LEVEL:g} % interval {found.lower:.2f} to {found.upper:.2f}"


def _counted(rows: DataFrame, measure: Measure) -> str:
    lost = int((~rows["reached"].astype(bool)).sum())
    how = "counted as such" if measure.cost else "as they ended"
    return f"{len(rows)} updates" + (f", {lost} of them censored and {how}" if lost else "")


def _caution(found: Interval, modelled: bool) -> str:
    groups = f", in {found.groups} groups" if found.groups else ""
    if found.groups < LEAST_GROUPS:
        groups += f", where {LEAST_GROUPS} are needed"
    return groups + ("; energy was modelled, which is no evidence for it" if modelled else "")


def _why_no_number(table: DataFrame, measure: Measure) -> str:
    if measure.metered and table["energy_kwh"].isna().all():
        return "no energy was metered"
    if measure is _CARBON:
        return "no grid was given"
    return "no update has both numbers"


def is_modelled(rows: DataFrame, measure: Measure) -> bool:
    """Return whether a measure rests on energy of which any was modelled.

    Args:
        rows: of a table.
        measure: of them.
    """
    return measure.metered and any(flag is True for flag in rows["energy_modelled"])


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
    censored = ~np.asarray(rows["reached"], bool)[used] & measure.cost
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


def pairs_of(table: DataFrame) -> DataFrame:
    """Return each retrained update beside the one from scratch, whose columns end in _scratch.

    Args:
        table: from `table_of`, of updates of cells.
    """
    scratch = table["label:start"] == "scratch"
    columns = [*_LEARNT, "reached", "peak_accuracy", *(measure.column for measure in COSTS)]
    return table[~scratch].merge(
        table.loc[scratch, columns], on=list(_LEARNT), suffixes=("", "_scratch")
    )


def rows_of(table: DataFrame, index: str) -> tuple[Row, ...]:
    """Return the rows of a table of correlations, one per network and data set that it knew.

    Args:
        table: from `table_of`, of updates of cells.
        index: "RESQUE_dist" or "RESQUE_task".
    """
    rows = []
    for (network, data), part in table.groupby(list(_STRATUM), sort=False):
        correlations = {}
        for measure in MEASURES:
            known = known_rows(part, measure, index)
            if len(known):
                title = measure.axis(modelled=is_modelled(known, measure))
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
