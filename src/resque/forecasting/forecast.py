"""What a forecast says: each measure of an update not yet made, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resque.history.records import (
    JOULES_PER_KWH,
    Grid,
    Recipe,
    Target,
    fields_of,
    target_to_dict,
)
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

if TYPE_CHECKING:
    # Terminal views need what a forecast is, and neither numpy nor torch.
    from resque.forecasting.experience import Distribution

FORMAT = "resque.Forecast/1"
UNITS: Mapping[str, str] = {
    "epochs": "epochs", "duration_s": "s", "energy_kwh": "kWh", "carbon_kg": "kg CO2e",
    "gradient_norm": "", "parameter_change": "", "peak_accuracy": "",
}  # fmt: skip
# In words, with which the unit stands that is read with ease.
WORDS: Mapping[str, str] = {
    "epochs": "epochs", "duration_s": "time", "energy_kwh": "energy", "carbon_kg": "carbon",
    "gradient_norm": "gradient norm", "parameter_change": "parameter change",
    "peak_accuracy": "peak accuracy",
}  # fmt: skip
# Unit -> units in which its numbers are read with ease: name, size, and from which number on.
_READABLE: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "s": (("h", 3600.0, 7200.0), ("min", 60.0, 120.0), ("s", 1.0, 0.0)),
    "kWh": (("kWh", 1.0, 0.1), ("Wh", 1e-3, 1e-4), ("J", 1 / JOULES_PER_KWH, 0.0)),
    "kg CO2e": (("kg CO2e", 1.0, 0.1), ("g CO2e", 1e-3, 1e-4), ("mg CO2e", 1e-6, 0.0)),
}


def readable_unit(unit: str, typical: float) -> tuple[str, float]:
    """Return the unit in which a quantity is read with ease, and its size in the quantity's own.

    Args:
        unit: the quantity's own, as in `UNITS`.
        typical: value in it.

    Example:
        >>> readable_unit("s", 9000.0), readable_unit("kWh", 0.42), readable_unit("epochs", 5.0)
        (('h', 3600.0), ('kWh', 1.0), ('epochs', 1.0))
    """
    if typical == 0:
        return unit, 1.0
    for name, size, least in _READABLE.get(unit, ()):
        if typical >= least:
            return name, size
    return unit, 1.0


def chance(probability: float) -> str:
    """Return a probability in per cent, rounded down: 89.6 % are not yet the 90 % asked for.

    Example:
        >>> chance(0.896), chance(0.9), chance(0.999), chance(1.0), chance(0.002)
        ('89%', '90%', '>99%', '100%', '<1%')
    """
    if 0 < probability < 0.01:
        return "<1%"
    # What is a whole per cent but for the last digit is one.
    return ">99%" if 0.99 < probability < 1 else f"{math.floor(100 * probability + 1e-9)}%"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measure of an update not yet made.

    Attributes:
        median: half of such updates come to less.
        lower: lower bound of the interval.
        upper: upper bound.
        unit: of all three; "" for pure numbers.

    Example:
        >>> str(Estimate(median=6.0, lower=4.0, upper=9.0, unit="epochs"))
        '6 epochs (4 to 9)'
    """

    median: float
    lower: float
    upper: float
    unit: str

    def __str__(self) -> str:
        unit, size = readable_unit(self.unit, self.median)
        median, lower, upper = (v / size for v in (self.median, self.lower, self.upper))
        return f"{median:.3g}{unit and ' ' + unit} ({lower:.3g} to {upper:.3g})"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackRecord:
    """How well updates that are known already would have been foretold in the same way.

    Attributes:
        updates: how many were left out in turn and foretold.
        unseen: what was left out with each, such as "network": what the history has not seen of
            the update to come either.
        epochs_error: median of |forecast / truth - 1| of the epochs; None without any.
        accuracy_error: mean absolute error of the peak accuracy; likewise.

    Example:
        >>> record = TrackRecord(updates=9, unseen=(), epochs_error=0.2, accuracy_error=None)
        >>> print(record)
        9 known updates foretold in the same way: epochs wrong by 20% (median)
    """

    updates: int
    unseen: tuple[str, ...]
    epochs_error: float | None
    accuracy_error: float | None

    def __str__(self) -> str:
        if self.epochs_error is None:
            return "no track record: no known update met such a target"
        without = f", without their {', '.join(self.unseen)}" if self.unseen else ""
        told = (
            f"{self.updates} known updates foretold in the same way{without}: epochs wrong by "
            f"{self.epochs_error:.0%} (median)"
        )
        if self.accuracy_error is None:
            return told
        return f"{told}, peak accuracy by {self.accuracy_error:.3f} (mean)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The measures of an update not yet made.

    Attributes:
        epochs: trained until the target is met, or the recipe gives up.
        duration_s: seconds of training and validation on the machine of the pre-flight.
        energy_kwh: likewise, as the meter of the pre-flight would read it.
        carbon_kg: of that energy on `grid`.
        gradient_norm: mean over all batches.
        parameter_change: root mean square.
        peak_accuracy: best validation accuracy.
        reaches_target: probability that the target is met before the recipe gives up.
        missing: measure -> why there is no estimate of it.
        target: what ends the update.
        recipe: how it would be trained.
        confidence_level: of the intervals.
        grid: None where none was given.
        own_updates: of the user's history that the forecast rests on.
        corpus_updates: of the corpus.
        track_record: how well such forecasts have done.
        notes: what to know before relying on it.
        machine: on which the pre-flight timed its steps.
        signature: of the pass over the new data.
        from_scratch: the same update from fresh weights; None where it was not asked for.
        distributions: what the intervals are read from: measure -> distribution.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> data, model = (x, (x[:, 0] > 0).long()), torch.nn.Linear(4, 2)
        >>> known = resque.preflight(model, data, meter="none")
        >>> found = resque.forecast(known, target=resque.Plateau())
        >>> found.carbon_kg, found.missing["carbon_kg"]
        (None, 'no grid was given')
    """

    epochs: Estimate
    duration_s: Estimate | None
    energy_kwh: Estimate | None
    carbon_kg: Estimate | None
    gradient_norm: Estimate | None
    parameter_change: Estimate | None
    peak_accuracy: Estimate
    reaches_target: float
    missing: Mapping[str, str]
    target: Target
    recipe: Recipe
    confidence_level: float
    grid: Grid | None
    own_updates: int
    corpus_updates: int
    track_record: TrackRecord
    notes: tuple[str, ...]
    machine: str
    signature: Signature
    from_scratch: Forecast | None = None
    distributions: Mapping[str, Distribution] = field(
        default_factory=dict, compare=False, repr=False
    )

    _repr_html_ = shown_in_notebook

    def estimates(self) -> dict[str, Estimate | None]:
        """Return the estimate of each measure by name."""
        return {name: getattr(self, name) for name in UNITS}

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain JSON types."""
        told = {name: e and fields_of(e) for name, e in self.estimates().items()}
        return {
            "format": FORMAT,
            **told,
            "reaches_target": self.reaches_target,
            "missing": dict(self.missing),
            "target": target_to_dict(self.target),
            "recipe": fields_of(self.recipe),
            "confidence_level": self.confidence_level,
            "grid": self.grid and fields_of(self.grid),
            "own_updates": self.own_updates,
            "corpus_updates": self.corpus_updates,
            "track_record": fields_of(self.track_record),
            "notes": list(self.notes),
            "machine": self.machine,
            "from_scratch": self.from_scratch and self.from_scratch.to_dict(),
            "signature": self.signature.to_dict(),
        }

    def __str__(self) -> str:
        scratch = " from scratch" if self.recipe.start == "scratch" else ""
        level = f"{self.confidence_level:.0%} intervals"
        lines = [f"forecast of an update{scratch} to {self.target}, {level}"]
        for name, estimate in self.estimates().items():
            told = f"none: {self.missing.get(name)}" if estimate is None else str(estimate)
            lines.append(f"{WORDS[name]} {told}")
        lines.append(f"reaches the target with {chance(self.reaches_target)} probability")
        lines.append(f"from {self.own_updates} own updates and {self.corpus_updates} of the corpus")
        lines.append(str(self.track_record))
        lines += [f"warning: {note}" for note in self.notes]
        return "\n".join(lines)
