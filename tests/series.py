"""Series of profiles whose index and accuracy are known exactly, for tests of a plan."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch

import resque
from resque.index.profile import ClassProfile

START = date(2026, 1, 1)
PERIOD = 30


def profile_of(
    index: float, accuracy: float | None = 0.9, *, model: torch.nn.Module | None = None
) -> ClassProfile:
    """A profile without any noise, so that its debiased index against index 0 is exact."""
    labels = np.arange(160) % 2
    turned = np.pi * index
    means = np.zeros((2, 4), np.float32)
    means[0, :2] = means[1, 2:] = math.cos(turned), math.sin(turned)
    if model is None:
        model = torch.nn.Linear(4, 2)
    found = resque.profile(
        model,
        (torch.from_numpy(means[labels]), torch.from_numpy(labels)),
        class_names=("a", "b"),
        progress=False,
    )
    assert found.outputs is not None
    if accuracy is None:
        outputs = replace(found.outputs, labelled=False)
    else:
        outputs = replace(found.outputs, correct=found.outputs.counts * accuracy)
    return replace(found, outputs=outputs)


def series_of(
    indices: list[float], accuracies: list[float | None]
) -> list[tuple[date | None, ClassProfile]]:
    """Profiles of one model, one every 30 days from the start of the year."""
    return [
        (START + timedelta(days=PERIOD * at), profile_of(index, accuracy))
        for at, (index, accuracy) in enumerate(zip(indices, accuracies, strict=True))
    ]


def steady(per_period: float, lost: float, n: int = 5) -> list[tuple[date | None, ClassProfile]]:
    """A series whose index and accuracy change by the same each period, from 0 and 0.95."""
    return series_of(
        [per_period * at for at in range(n + 1)], [0.95 - lost * at for at in range(n + 1)]
    )
