"""What predicted labels cost in accuracy of the index, where the true ones are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import resque
from inputs import SEED, cifar10, efficientnet_lite0, features, pixels_of, prepared
from measurement import counted_calls
from resque.experiments.shifts import gaussian_noise

DEVICES = ("cpu",)
TITLE = "Predicted labels, against true ones"
PIXELS = 64
LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)

ABOUT = f"""\
RESQUE_dist between clean and noised images of CIFAR-10 (gaussian noise; the level is its standard
deviation, for pixels in [0, 1]), by true and by predicted labels: debiased values with their 90 %
intervals. The model is EfficientNet-Lite0 with its real weights at {PIXELS} px and a linear head
for the ten classes, fitted on images of neither side. "Offset" is what `label_cost` reports from
the old side, where labels are known: the index between the old data by label and by prediction.
The last column is what predicted labels really cost at this level. There is no bound.
"""
COLUMNS = (
    "level",
    "model calls, new side",
    "images: old / new",
    "accuracy: old / new",
    "mean confidence on the new",
    "debiased, true labels",
    "debiased, predicted labels",
    "offset",
    "predicted less true",
)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001  # the index is the same on any
    """Return one cell per level of noise."""
    fitted, old, new = (500, 500, 500) if quick else (4000, 2000, 2000)
    train, train_labels, names = cifar10("train")
    test, test_labels, _ = cifar10("test")
    model = _model(train[:fitted], train_labels[:fitted])
    known = slice(fitted, fitted + old)
    before, _ = _profile(model, train[known], train_labels[known], names, level=0.0, first_id=0)
    cells = []
    for level in LEVELS:
        after, calls = _profile(
            model, test[:new], test_labels[:new], names, level=level, first_id=old
        )
        true = resque.shift_index(before, after)
        predicted = resque.shift_index(before, after, labels="predicted")
        cost = predicted.label_cost
        assert cost is not None
        assert after.outputs is not None
        cells.append(
            {
                "level": level,
                "calls": calls,
                "images": [before.examples, after.examples],
                "accuracy_before": cost.accuracy_before,
                "accuracy_after": after.outputs.accuracy,
                "confidence_after": cost.confidence_after,
                "true": [true.debiased, true.lower, true.upper],
                "predicted": [predicted.debiased, predicted.lower, predicted.upper],
                "offset": cost.offset,
            }
        )
    return cells


def _model(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Return EfficientNet-Lite0 with a linear head for these classes."""
    values = features(efficientnet_lite0(nn.Identity()), images, PIXELS)
    fit = LogisticRegression(C=0.01, max_iter=1000).fit(values, labels)
    head = nn.Linear(*fit.coef_.shape[::-1])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fit.coef_))
        head.bias.copy_(torch.from_numpy(fit.intercept_))
    return efficientnet_lite0(head)


def _profile(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    *,
    level: float,
    first_id: int,
) -> tuple[resque.ClassProfile, int]:
    """Return the profile of noised images, and how often it called the model."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(SEED)
        pairs = zip(pixels_of(images).split(64), torch.from_numpy(labels).split(64), strict=True)
        for part, its_labels in pairs:
            yield prepared(gaussian_noise(part, level, generator=generator), PIXELS), its_labels

    # Ids of their own: no image of one side is an image of the other.
    ids = np.arange(first_id, first_id + len(images))
    with counted_calls(model) as count:
        found = resque.profile(model, batches(), class_names=names, ids=ids, progress=False)
    return found, count[0]


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    true, predicted = (
        "unresolved" if value is None else f"{value:.4f} ({lower:.4f} to {upper:.4f})"
        for value, lower, upper in (cell["true"], cell["predicted"])
    )
    both = cell["predicted"][0] is not None and cell["true"][0] is not None
    return [
        f"{cell['level']:g}",
        str(cell["calls"]),
        "{:,} / {:,}".format(*cell["images"]),
        f"{cell['accuracy_before']:.1%} / {cell['accuracy_after']:.1%}",
        f"{cell['confidence_after']:.1%}",
        true,
        predicted,
        f"{cell['offset']:.4f}",
        f"{cell['predicted'][0] - cell['true'][0]:+.4f}" if both else "",
    ]
