"""What `task_index` takes on top of the k-means inside it."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn

import resque
from inputs import SEED, cifar10, efficientnet_lite0, features, random_model
from measurement import paired, ratio_cell
from resque.index.task import MOST_ITERATIONS, TOLERANCE

DEVICES = ("cpu",)
TITLE = "RESQUE_task, against scikit-learn's k-means alone"
BOUND = 1.1

ABOUT = """\
Seconds of `resque.task_index(None, (representations, labels))`, divided by those of
`sklearn.cluster.KMeans(...).fit(representations)` from the same class means, which the latter is
given, with `n_init=1` and the same tolerance. Ours also reads the arrays, looks for values that are
not finite, computes the class means, the nearest-class-mean accuracy, the adjusted Rand index and
the mixtures. The fewer iterations the k-means needs, the more these weigh: the last line, of
classes far apart, is the hardest case. No model is called while the clock runs.
"""
COLUMNS = (
    "representations",
    "examples x values",
    "classes",
    "iterations",
    "model calls",
    "seconds: ours / k-means",
    "RESQUE_task",
    "ratio",
)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001  # scikit-learn runs on the CPU
    """Return one cell per table of representations."""
    few, many = (500, 2000) if quick else (2000, 8000)
    test, test_labels, _ = cifar10("test")
    train, train_labels, _ = cifar10("train")
    rng = np.random.default_rng(SEED)
    places = np.arange(many) % 10
    # Ten times as far apart as their own spread.
    apart = 10 * rng.normal(size=(10, 512))[places] + rng.normal(size=(many, 512))
    lite0 = features(efficientnet_lite0(nn.Identity()), test[:few], 112)
    resnet = features(random_model("resnet18", 0), train[:many], 32)
    pairs = 5 if quick else 61
    return [
        _cell("CIFAR-10, EfficientNet-Lite0 at 112 px", lite0, test_labels[:few], pairs),
        _cell("CIFAR-10, ResNet-18 of random weights", resnet, train_labels[:many], pairs),
        _cell("ten gaussians far apart", apart.astype(np.float32), places, pairs),
    ]


def _cell(what: str, values: np.ndarray, labels: np.ndarray, pairs: int) -> dict[str, Any]:
    names = np.unique(labels)
    means = np.stack([values[labels == name].mean(0) for name in names])

    def ours() -> resque.TaskIndex:
        return resque.task_index(None, (values, labels), progress=False)

    def alone() -> KMeans:
        kmeans = KMeans(len(names), init=means, n_init=1, max_iter=MOST_ITERATIONS, tol=TOLERANCE)
        return kmeans.fit(values)

    index, kmeans = ours(), alone()
    assert index.iterations == kmeans.n_iter_, "the two did different work"
    timing = paired(ours, alone, pairs=pairs)
    return {
        "what": what,
        "shape": list(values.shape),
        "classes": len(names),
        "iterations": index.iterations,
        "value": index.value,
        "timing": timing,
        "at_most": BOUND,
        "reached": timing["ratio"]["median"],
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    timing = cell["timing"]
    ours_s, alone_s = map(statistics.median, (timing["first_s"], timing["second_s"]))
    return [
        cell["what"],
        "{:,} x {:,}".format(*cell["shape"]),
        str(cell["classes"]),
        str(cell["iterations"]),
        "0",
        f"{ours_s:.3f} / {alone_s:.3f}",
        f"{cell['value']:.4f}",
        ratio_cell(timing),
    ]
