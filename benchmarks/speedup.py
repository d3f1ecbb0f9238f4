"""How much faster the index is than by the published procedure, for the same number."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor, nn
from torch.utils.data import Dataset

import resque
from inputs import MEAN, SEED, STD, AbsentError, cifar10, efficientnet_lite0, random_model
from measurement import paired, ratio_cell
from published import class_sum, published_index

DEVICES = ("cpu", "cuda")
TITLE = "RESQUE_dist, against the published procedure"
NOISE = 0.1  # standard deviation, in values of [0, 1]
BATCH_SIZE = 64
# Batches and single images add up in different orders, in float32.
TOLERANCE = 1e-5

# Layer: the last convolution, which the published scripts read.
MODELS: dict[str, tuple[int, str, Callable[[int], nn.Module]]] = {
    "MobileNetV2 x0.5": (32, "conv_head", partial(random_model, "mobilenetv2_050")),
    "ResNet-18": (32, "layer4.1.conv2", partial(random_model, "resnet18")),
    "EfficientNet-Lite0": (112, "_conv_head", lambda _: efficientnet_lite0()),
}
# Model, classes, at least so many times faster (None: reported), pairs.
CELLS: tuple[tuple[str, int, float | None, int], ...] = (
    ("MobileNetV2 x0.5", 10, 10, 3),
    ("MobileNetV2 x0.5", 100, 25, 2),
    ("ResNet-18", 10, 4, 2),
    ("EfficientNet-Lite0", 10, None, 1),
)

ABOUT = f"""\
Seconds of the published procedure, divided by ours (two profiles and `shift_index`), for the
same number: both agree to {TOLERANCE:g}, which is checked. Published: for every class and side, the
data set is read through its transforms to find the examples of the class, and each of them is
forwarded alone (benchmarks/published.py). Both sides read the same torch data set: PIL images of
CIFAR-10's test images and torchvision's transforms; the old side is clean, the new one has
gaussian noise of {NOISE} of the range. 100 classes are CIFAR-10's 10, each cut into 10 by place,
which leaves the images as they are. MobileNetV2 and ResNet-18 have random weights,
EfficientNet-Lite0 its real ones; the layer is the last convolution. Ours takes batches of
{BATCH_SIZE}.
"""
COLUMNS = (
    "model",
    "classes",
    "images, per side",
    "images prepared: published / ours",
    "model calls: published / ours",
    "seconds: published / ours",
    "value",
    "ratio",
)


class _Images(Dataset[tuple[Tensor, int]]):
    """PIL images, prepared whenever they are asked for; counts how often."""

    def __init__(self, images: Sequence[Image], labels: np.ndarray, prepare: Any) -> None:
        self.images, self.labels, self.prepare = images, labels, prepare
        self.asked = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        self.asked += 1
        return self.prepare(self.images[place]), int(self.labels[place])

    def first(self, n: int) -> _Images:
        """Return the first n images, for a warm-up."""
        return _Images(self.images[:n], self.labels[:n], self.prepare)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per model and number of classes."""
    # TF32 rounds so much that a batch and its images alone would give different numbers.
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        return [_cell(*options, device, quick) for options in CELLS]
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def _cell(
    name: str, classes: int, bound: float | None, pairs: int, device: torch.device, quick: bool
) -> dict[str, Any]:
    pixels, layer, build = MODELS[name]
    before, after = sides = _sides(classes, pixels, 200 if quick else 2000)
    model = build(classes).to(device)
    values: dict[str, float] = {}
    asked: dict[str, int] = {}

    def counting(key: str, index: Callable[[], float]) -> None:
        start = sum(side.asked for side in sides)
        values[key] = index()
        asked[key] = sum(side.asked for side in sides) - start

    def published() -> float:
        return published_index(model, layer, before, after, classes)

    def ours(sides: Sequence[_Images] = sides) -> float:
        profiles = [
            resque.profile(
                model,
                side,
                layer=layer,
                pooling="mean",
                class_names=tuple(map(str, range(classes))),
                batch_size=BATCH_SIZE,
                progress=False,
            )
            for side in sides
        ]
        return resque.shift_index(*profiles).value

    ours([side.first(2 * BATCH_SIZE) for side in sides])
    class_sum(model, layer, before.first(8), label=int(before.labels[0]))
    timing = paired(
        lambda: counting("published", published),
        lambda: counting("ours", ours),
        pairs=1 if quick else pairs,
        model=model,
        device=device,
    )
    difference = abs(values["published"] - values["ours"])
    assert difference <= TOLERANCE, f"{name}, {classes} classes: {values}"
    return {
        "what": f"{name}, {pixels} px, {classes} classes",
        "model": f"{name}, {pixels} px",
        "classes": classes,
        "images": len(before),
        "asked": asked,
        "values": values,
        "timing": timing,
        "at_least": bound,
        "reached": timing["ratio"]["median"],
    }


def _sides(classes: int, pixels: int, n: int) -> tuple[_Images, _Images]:
    try:
        from torchvision import transforms
    except ModuleNotFoundError as error:
        raise AbsentError("the package 'torchvision' is not installed") from error
    images, coarse, _ = (part[:n] for part in cifar10("test"))
    prepare = transforms.Compose(
        [
            *([transforms.Resize(pixels)] if pixels != images.shape[1] else []),
            transforms.ToTensor(),
            transforms.Normalize([MEAN] * 3, [STD] * 3),
        ]
    )
    labels = coarse
    if classes > 10:
        # The place within its class cuts each class into equal parts.
        place = np.array([(coarse[:i] == label).sum() for i, label in enumerate(coarse)])
        parts = classes // 10
        labels = coarse * parts + place % parts
    noise = np.random.default_rng(SEED).normal(0, 255 * NOISE, images.shape)
    noisy = (images + noise).round().clip(0, 255).astype(np.uint8)
    clean_side, noisy_side = (
        _Images([fromarray(image) for image in side], labels, prepare) for side in (images, noisy)
    )
    return clean_side, noisy_side


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    timing = cell["timing"]
    published_s, ours_s = map(statistics.median, (timing["first_s"], timing["second_s"]))
    apart = abs(cell["values"]["published"] - cell["values"]["ours"])
    return [
        cell["model"],
        str(cell["classes"]),
        f"{cell['images']:,}",
        f"{cell['asked']['published']:,} / {cell['asked']['ours']:,}",
        "{:,} / {:,}".format(*timing["calls"]),
        f"{published_s:.1f} / {ours_s:.2f}",
        f"{cell['values']['ours']:.4f}, apart by {apart:.0e}",
        ratio_cell(timing),
    ]
