"""What the evidence is looked for in: sorts of updates, measures, predictors, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from resque.experiments.cells import TARGET
from resque.experiments.correlation import Floats
from resque.forecasting.preflight import CONTROLS, PROBED, SHIFT_INDEX, TASK_INDEX, ZERO_SHOT
from resque.history.table import PREFLIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

LEVEL = 0.9
HELD, PARTLY = 0.5, 0.0
# Fewer updates in a group do not order anything; fewer runs or groups make no interval.
GROUP_UPDATES, LEAST_RUNS, LEAST_GROUPS = 4, 20, 5
# 95th over 5th percentile beyond which a positive predictor is used as its logarithm.
_HEAVY_TAILED = 10
NOISE_LEVEL = "noise level"
Verdict: TypeAlias = Literal["held", "partly", "not", "not tested"]
DATA = ("label:network", "label:old", "label:new")


@dataclass(frozen=True, slots=True)
class Measure:
    """What an update came to, as a column of a table and as an axis.

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
    cost: bool = False
    metered: bool = False

    def axis(self, *, modelled: bool) -> str:
        """Return the words beside an axis.

        Args:
            modelled: whether energy was; without a meter of energy it says nothing.

        Example:
            >>> Measure("energy_kwh", "energy", "kWh", metered=True).axis(modelled=True)
            'energy (kWh, modelled)'
        """
        modelled = modelled and self.metered
        told = [part for part in (self.unit, "modelled" if modelled else "") if part]
        return f"{self.title} ({', '.join(told)})" if told else self.title


EPOCHS = Measure("epochs_to_peak_share", "epochs to 99 % of the peak", cost=True)
TIME = Measure("duration_s", "time", "s", cost=True)
ENERGY = Measure("energy_kwh", "energy", "kWh", cost=True, metered=True)
CARBON = Measure("carbon_kg", "carbon", "kg CO2e", cost=True, metered=True)
PEAK_ACCURACY = Measure("peak_accuracy", "peak accuracy")
# The five of the paper, and time, which stands for energy where that is modelled.
CLAIMED = (
    EPOCHS,
    Measure("gradient_norm", "gradient norm"),
    Measure("parameter_change", "parameter change"),
    TIME,
    ENERGY,
    CARBON,
)
MEASURES = (*CLAIMED, PEAK_ACCURACY)


@dataclass(frozen=True, slots=True)
class Situation:
    """Updates of one sort, which are looked at by themselves.

    Attributes:
        name: in words.
        kinds: of cells (`Cell.kind`).
        scratch: whether training starts from scratch.
        index: the index that is made for it.
        given: what a partial correlation holds constant.
        left_out: what is left out in turn: name -> column.
    """

    name: str
    kinds: tuple[str, ...]
    scratch: bool
    index: str
    given: tuple[str, ...]
    left_out: Mapping[str, str]

    def of(self, made: DataFrame) -> DataFrame:
        """Return the rows of this sort."""
        scratch = made["label:start"] == "scratch"
        return made[made["label:kind"].isin(self.kinds) & (scratch == self.scratch)]


GIVEN_SHIFT = ("accuracy_drop", "classes", "training_examples", "parameters")
GIVEN_TASK = ("classes", "examples_per_class", "parameters")
_TASK_KINDS = ("task", "extension")
SITUATIONS = (
    Situation(
        "shifts", ("shift",), False, "RESQUE_dist", GIVEN_SHIFT,
        {"network": "label:network", "kind of shift": "label:shift"},
    ),
    Situation(
        "new tasks", _TASK_KINDS, False, "RESQUE_task", GIVEN_TASK,
        {"network": "label:network", "task": "label:new"},
    ),
    Situation("shifts, from scratch", ("shift",), True, "RESQUE_dist", GIVEN_SHIFT, {}),
    Situation("new tasks, from scratch", _TASK_KINDS, True, "RESQUE_task", GIVEN_TASK, {}),
)  # fmt: skip


def censored_in(rows: DataFrame, measure: Measure) -> NDArray[np.bool_]:
    """Return of which updates it is known only that they would have had more of a measure (rows,).

    Those that missed their target, with one exception: epochs to 99 % of the peak are known where
    accuracy had not risen beyond it for as long as the target's patience when the update ended.

    Args:
        rows: from `table_of`.
        measure: the measure.
    """
    missed: NDArray[np.bool_] = ~rows["reached"].to_numpy(dtype=bool) & measure.cost
    if measure is EPOCHS:
        since = (rows["epochs"] - rows[measure.column]).to_numpy(dtype=float)
        missed &= ~(since >= TARGET.patience)
    return missed


def modelled_in(rows: DataFrame, measure: Measure) -> int:
    """Return how many updates have a measure from a model, and not from a meter, of energy.

    Args:
        rows: from `table_of`.
        measure: the measure.
    """
    flags = rows.loc[rows[measure.column].notna(), "energy_modelled"]
    return sum(flag is True for flag in flags.astype(object)) if measure.metered else 0


def why_none(rows: DataFrame, measure: Measure, other: str) -> str:
    """Return why no update has both a measure and something else, in words.

    Args:
        rows: from `table_of`; none of them has both.
        measure: the measure.
        other: the name of what else.
    """
    if not len(rows):
        return "there are no such updates"
    if measure.metered and rows[ENERGY.column].isna().all():
        return "no energy was metered"
    if rows[measure.column].isna().all():
        return "no grid was given" if measure is CARBON else f"no {measure.title} was recorded"
    return f"no update with a known {measure.title} has {other}"


def verdict_of(lower: float, *, testable: bool = True) -> Verdict:
    """Return what the lower bound of the 90 % interval of a correlation says of a claim.

    Args:
        lower: NaN where there is none.
        testable: false where groups are too few, or energy was modelled.

    Example:
        >>> verdict_of(0.5), verdict_of(0.1), verdict_of(0.0), verdict_of(0.9, testable=False)
        ('held', 'partly', 'not', 'not tested')
    """
    if math.isnan(lower) or not testable:
        return "not tested"
    if lower >= HELD:
        return "held"
    return "partly" if lower > PARTLY else "not"


def kind_of(predictor: str) -> str:
    """Return what sort of predictor a name is: index, zero-shot, control, probe or rival.

    Args:
        predictor: name in the values of a pre-flight, or "noise level".

    Example:
        >>> kind_of("RESQUE_dist"), kind_of("flops"), kind_of("mmd")
        ('index', 'control', 'rival')
    """
    kinds = {
        "index": (*SHIFT_INDEX, *TASK_INDEX),
        "zero-shot": ZERO_SHOT,
        "control": (*CONTROLS, NOISE_LEVEL),
        "probe": PROBED,
    }
    return next((kind for kind, names in kinds.items() if predictor in names), "rival")


def predictors_of(made: DataFrame) -> DataFrame:
    """Return the values of all pre-flights and the noise level (updates, predictors).

    Args:
        made: from `table_of`.
    """
    import pandas as pd

    values = pd.DataFrame(index=made.index)
    for column in made.columns:
        if column.startswith(PREFLIGHT):
            numbers = pd.to_numeric(made[column], errors="coerce").astype(float)
            values[column.removeprefix(PREFLIGHT)] = numbers.where(np.isfinite(numbers))
    strength = pd.to_numeric(made["label:strength"], errors="coerce").astype(float)
    values[NOISE_LEVEL] = strength.where(made["label:shift"] != "")
    return values


def heavy_tailed(values: Floats) -> bool:
    """Return whether a predictor is used as its logarithm: positive, over more than a decade.

    Args:
        values: (updates,), NaN where missing.

    Example:
        >>> heavy_tailed(np.geomspace(1, 1000, 20)), heavy_tailed(np.linspace(1, 9, 20))
        (True, False)
    """
    known = values[np.isfinite(values)]
    if not len(known) or not (known > 0).all():
        return False
    low, high = np.quantile(known, [0.05, 0.95])
    return bool(high > _HEAVY_TAILED * low)


def column_names(values: DataFrame) -> list[str]:
    """Return the names of the columns of a table."""
    return [str(name) for name in values]
