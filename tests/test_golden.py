"""Parity with the authors' published scripts, on scikit-learn's digits; see golden/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import resque
from reference import published_angles, published_index, spatial_mean

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "reference_indices.json").read_text(encoding="utf-8")
)
NOISES = [0.0, 0.1, 0.3, 1.0]

# The scripts sum in float32 and use arccos; double precision moves their mean by at most 6e-7,
# and a single class by up to 5e-6 where its angle is small.
MEAN_TOLERANCE, CLASS_TOLERANCE = 1e-6, 1e-5
# The same examples in the same clusters give the same table, so only its arithmetic rounds.
SAME_CLUSTERS = 1e-9
# k-means++ draws from the library's own generator, which may change with its version.
OTHER_START = 0.05


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits as images (1, 8, 8) of float32 in [0, 1], and their labels."""
    data = load_digits()
    return (data.images / 16).astype(np.float32)[:, None], data.target


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """One seeded convolution, whose raw output is read, before a head that does not matter."""
    rng = np.random.default_rng(7)
    weight, bias = rng.normal(0, 0.3, (24, 1, 3, 3)), rng.normal(0, 0.1, 24)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 24, 3)
            self.head = nn.Linear(24, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    model = Network()
    with torch.no_grad():
        model.conv.weight.copy_(torch.tensor(weight.astype(np.float32)))
        model.conv.bias.copy_(torch.tensor(bias.astype(np.float32)))
    return model


def noisy(images: np.ndarray, noise: float) -> np.ndarray:
    if noise == 0:
        return images
    return images + np.random.default_rng(3).normal(0, noise, images.shape).astype(np.float32)


@pytest.mark.parametrize("noise", NOISES)
def test_shift_index_gives_the_published_numbers(
    digits: tuple[np.ndarray, np.ndarray], network: nn.Module, noise: float
) -> None:
    """RESQUE_dist of two overlapping parts of the digits is what the published script prints."""
    images, labels = digits
    before = resque.profile(network, (images[:1200], labels[:1200]), layer="conv")
    after = resque.profile(network, (noisy(images[600:], noise), labels[600:]), layer="conv")
    shift = resque.shift_index(before, after)
    golden = GOLDEN[f"dist_gauss_{noise}"]
    assert golden["mean"] == pytest.approx(shift.value, abs=MEAN_TOLERANCE, rel=0)
    assert golden["per_class"] == pytest.approx(
        [shift.per_class[str(digit)] for digit in range(10)], abs=CLASS_TOLERANCE, rel=0
    )


def test_the_slow_scan_gives_the_published_numbers(
    digits: tuple[np.ndarray, np.ndarray], network: nn.Module
) -> None:
    """The oracle of the other tests is the published procedure: it meets the same numbers."""
    images, labels = digits
    with torch.no_grad():
        sides = [
            (spatial_mean(network.conv(torch.tensor(part)).numpy()), its_labels)
            for part, its_labels in (
                (images[:1200], labels[:1200]),
                (noisy(images[600:], 1.0), labels[600:]),
            )
        ]
    golden = GOLDEN["dist_gauss_1.0"]
    assert golden["mean"] == pytest.approx(published_index(*sides), abs=MEAN_TOLERANCE, rel=0)
    assert golden["per_class"] == pytest.approx(
        list(published_angles(*sides).values()), abs=CLASS_TOLERANCE, rel=0
    )


@pytest.mark.parametrize(("pooling", "key"), [("flatten", "full"), ("mean", "avg")])
@pytest.mark.parametrize(
    ("start", "suffix", "tolerance"),
    [("class_means", "centroids", SAME_CLUSTERS), ("k-means++", "kpp", OTHER_START)],
)
def test_task_index_gives_the_published_numbers(
    digits: tuple[np.ndarray, np.ndarray],
    network: nn.Module,
    pooling: str,
    key: str,
    start: str,
    suffix: str,
    tolerance: float,
) -> None:
    """RESQUE_task of all digits is what the published script prints, in each of its variants."""
    task = resque.task_index(network, digits, layer="conv", pooling=pooling, start=start)
    assert GOLDEN[f"task_{key}_{suffix}"] == pytest.approx(task.value, abs=tolerance, rel=0)


def test_all_published_variants_come_from_one_pass(
    digits: tuple[np.ndarray, np.ndarray], network: nn.Module
) -> None:
    """With variants=True one call gives the four numbers that the published script writes."""
    task = resque.task_index(network, digits, layer="conv", variants=True)
    tolerances = {"centroids": SAME_CLUSTERS, "kpp": OTHER_START}
    names = {
        "pooled, class_means": "avg_centroids",
        "pooled, k-means++": "avg_kpp",
        "flattened, class_means": "full_centroids",
        "flattened, k-means++": "full_kpp",
    }
    assert names.keys() == task.variants.keys()
    for variant, name in names.items():
        assert GOLDEN[f"task_{name}"] == pytest.approx(
            task.variants[variant], abs=tolerances[name.split("_")[1]], rel=0
        )


def test_task_index_of_raw_pixels(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Without a model the representations are what is given: here the 64 pixels."""
    images, labels = digits
    task = resque.task_index(None, (images.reshape(len(images), -1), labels))
    assert GOLDEN["task_pixels_centroids"] == pytest.approx(task.value, abs=SAME_CLUSTERS, rel=0)
