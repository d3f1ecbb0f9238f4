"""A gate: whether a forecast stays within a budget, for whoever must decide without looking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from resque.errors import InputError
from resque.forecasting.forecast import Forecast, chance
from resque.history.records import Accuracy, fields_of
from resque.index.shift import checked_level

_SECONDS_PER_HOUR = 3600.0
# Limit -> measure, and what one unit of the limit is in units of the measure.
_LIMITS: Mapping[str, tuple[str, float, str]] = {
    "max_epochs": ("epochs", 1.0, "epochs"),
    "max_hours": ("duration_s", _SECONDS_PER_HOUR, "hours"),
    "max_energy_kwh": ("energy_kwh", 1.0, "kWh"),
    "max_carbon_kg": ("carbon_kg", 1.0, "kg CO2e"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What a budget says of a forecast.

    Attributes:
        holds: whether every limit is kept with the asked probability.
        probabilities: limit -> probability that it is kept; the least one that so many known
            updates support.
        reasons: one sentence for each limit that is not.
        confidence_level: the asked probability.
    """

    holds: bool
    probabilities: Mapping[str, float]
    reasons: tuple[str, ...]
    confidence_level: float

    def to_dict(self) -> dict[str, Any]:
        """Return the judgement as plain JSON types."""
        return fields_of(self) | {"probabilities": dict(self.probabilities)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What an update may cost at most, and what it must come to at least; None for no limit.

    Attributes:
        max_epochs: trained.
        max_hours: of training and validation.
        max_energy_kwh: likewise.
        max_carbon_kg: of that energy.
        min_accuracy: of the peak accuracy.

    Raises:
        InputError: a limit is impossible, or there is none.

    Example:
        >>> Budget(max_energy_kwh=0.5).max_hours is None
        True
    """

    max_epochs: float | None = None
    max_hours: float | None = None
    max_energy_kwh: float | None = None
    max_carbon_kg: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if not given:
            raise InputError("A budget needs a limit, such as max_energy_kwh=0.5.")
        for name, value in given.items():
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"{name} must be above 0; got {value!r}.")
        if self.min_accuracy is not None and self.min_accuracy >= 1:
            hint = f" For {self.min_accuracy:g} % give {self.min_accuracy / 100:g}."
            raise InputError(
                f"min_accuracy must be below 1; got {self.min_accuracy!r}."
                + (hint if 1 < self.min_accuracy < 100 else "")
            )

    def judged(self, forecast: Forecast, *, confidence_level: float = 0.9) -> Judged:
        """Return whether a forecast keeps all limits with a probability.

        Args:
            forecast: of the update.
            confidence_level: that probability, above 0 and below 1.

        Raises:
            InputError: the forecast has no estimate of what is limited, or the update ends
                below the accuracy that is asked for.
        """
        checked_level(confidence_level)
        probabilities: dict[str, float] = {}
        reasons = []
        for name, (measure, unit, word) in _LIMITS.items():
            limit = getattr(self, name)
            if limit is None:
                continue
            known = _distribution(forecast, measure, name)
            probabilities[name] = known.surely_below(limit * unit)
            if probabilities[name] < confidence_level:
                told = forecast.estimates()[measure]
                assert told is not None  # noqa: S101  # narrows the type: it has a distribution
                median, *bounds = (v / unit for v in (told.median, told.lower, told.upper))
                reasons.append(
                    f"{limit:g} {word} are kept with {chance(probabilities[name])} probability, "
                    f"not {confidence_level:.0%}: the forecast is {median:.3g} {word} "
                    f"({bounds[0]:.3g} to {bounds[1]:.3g})."
                )
        if self.min_accuracy is not None:
            target = forecast.target
            if isinstance(target, Accuracy) and self.min_accuracy > target.value:
                raise InputError(
                    f"The update ends at an accuracy of {target.value:g}, and the budget asks for "
                    f"{self.min_accuracy:g}. Forecast it with that as its target."
                )
            known = _distribution(forecast, "peak_accuracy", "min_accuracy")
            # An accuracy that is just reached is reached.
            reached = known.through(np.negative).surely_below(1e-9 - self.min_accuracy)
            probabilities["min_accuracy"] = reached
            if reached < confidence_level:
                reasons.append(
                    f"An accuracy of {self.min_accuracy:g} is reached with {chance(reached)} "
                    f"probability, not {confidence_level:.0%}: the forecast is "
                    f"{forecast.peak_accuracy}."
                )
        return Judged(
            holds=not reasons,
            probabilities=probabilities,
            reasons=tuple(reasons),
            confidence_level=confidence_level,
        )


def _distribution(forecast: Forecast, measure: str, limit: str) -> Any:
    if measure not in forecast.distributions:
        reason = forecast.missing.get(measure, "the forecast has none")
        raise InputError(f"{limit} cannot be judged without {measure}: {reason}.")
    return forecast.distributions[measure]
