"""Forecasts made by hand, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import resque
from resque.forecasting.experience import Distribution
from resque.forecasting.forecast import UNITS, Estimate, Forecast, TrackRecord
from updates import SIGNATURE

# Ten equally likely outcomes: at most so many of them lie within a limit.
TEN = np.arange(1.0, 11.0)
VALUES = {
    "epochs": TEN,
    "duration_s": 360.0 * TEN,
    "energy_kwh": 0.1 * TEN,
    "carbon_kg": 0.01 * TEN,
    "peak_accuracy": 0.8 + 0.01 * TEN,
}


def forecast_of(values: dict[str, Any] | None = None, **changes: Any) -> Forecast:
    """A forecast whose measures may come to the given values, all alike."""
    known = {
        name: Distribution(np.asarray(of, dtype=float), np.ones(len(of)))
        for name, of in (VALUES if values is None else values).items()
    }
    told = {
        name: Estimate(
            median=of.median(), lower=of.values.min(), upper=of.values.max(), unit=UNITS[name]
        )
        for name, of in known.items()
    }
    whole = Forecast(
        **(dict.fromkeys(UNITS) | told),
        reaches_target=0.9,
        missing={name: "the pre-flight measured none" for name in UNITS if name not in told},
        target=resque.Accuracy(0.9),
        recipe=resque.Recipe(),
        confidence_level=0.9,
        grid=None,
        own_updates=10,
        corpus_updates=0,
        track_record=TrackRecord(updates=9, unseen=(), epochs_error=0.2, accuracy_error=0.03),
        notes=(),
        machine="a processor",
        distributions=known,
        signature=SIGNATURE,
    )
    return replace(whole, **changes)
