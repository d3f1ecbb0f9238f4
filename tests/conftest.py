"""What many tests share: seeds, small models, and where the real data are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

# One thread: the models are tiny, and sums then have one order on every machine.
torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed; any seed must do, this one makes failures repeat."""
    return np.random.default_rng(20241217)


@pytest.fixture(autouse=True)
def _seeded_torch() -> None:
    torch.manual_seed(20241217)


@pytest.fixture
def mlp() -> nn.Module:
    """A classifier of 6 values into 3 classes; its representations have 8 values."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def labelled(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (240, 6) in float32 with 3 separated classes, and their labels (240,)."""
    labels = np.arange(240) % 3
    centres = rng.normal(0, 2, (3, 6))
    return (centres[labels] + rng.normal(size=(240, 6))).astype(np.float32), labels


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that ask for it skip where there is none."""
    folder = os.environ.get("RESQUE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data sets are not here: point RESQUE_DATA at their folder")
    return Path(folder)
