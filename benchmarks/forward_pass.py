"""What a profile takes on top of the bare forward passes over the same batches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

import resque
from inputs import SEED, efficientnet_lite0, random_model
from measurement import paired, ratio_cell

DEVICES = ("cpu", "cuda")
TITLE = "A profile, against the bare forward pass"
BOUND = 1.05
CLASSES = tuple(map(str, range(10)))
# Side of the images in pixels, how to build the model, images on a CPU: seconds of work for each.
MODELS: dict[str, tuple[int, Callable[[], nn.Module], int]] = {
    "EfficientNet-Lite0": (112, efficientnet_lite0, 512),
    "ResNet-18": (32, partial(random_model, "resnet18", len(CLASSES)), 4096),
}
# A GPU is given batches that fill it, and as many images as CIFAR-10 has for training.
GPU_IMAGES = 50_176
BATCH_SIZES = {"cpu": 64, "cuda": 1024}
DISTINCT_BATCHES = 4

ABOUT = """\
Seconds of `resque.profile(model, batches)`, divided by the seconds of calling the same model on
the same batches in eval mode and without gradients. The batches are tensors that already lie on
the model's device, so that neither side loads or moves anything. Pixels are random: these layers
take as long for any other. EfficientNet-Lite0 has its real weights, ResNet-18 random ones. The
data have ten classes; where the model has ten outputs, the profile also keeps the sums by
prediction, accuracy, loss and confidence. "Once per pass" is what a profile takes beyond the
forward pass whatever the number of images, mostly for the SHA-256 of the weights; the ratio
includes it, and falls with more images.
"""
COLUMNS = (
    "model",
    "images",
    "sums",
    "model calls: profile / bare",
    "seconds: profile / bare",
    "once per pass",
    "ratio",
)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per model."""
    return [_cell(name, device, quick) for name in MODELS]


def _cell(name: str, device: torch.device, quick: bool) -> dict[str, Any]:
    pixels, build, images = MODELS[name]
    size = BATCH_SIZES[device.type]
    images = (GPU_IMAGES if device.type == "cuda" else images) // (4 if quick else 1)
    model = build().to(device)
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.arange(size) % len(CLASSES)
    kept = [
        (torch.randn(size, 3, pixels, pixels, generator=generator).to(device), labels)
        for _ in range(DISTINCT_BATCHES)
    ]
    batches = list(islice(cycle(kept), images // size))

    def profile(batches: list[tuple[Tensor, Tensor]] = batches) -> resque.ClassProfile:
        return resque.profile(model, batches, class_names=CLASSES, progress=False)

    def bare(batches: list[tuple[Tensor, Tensor]] = batches) -> None:
        with torch.no_grad():
            for given, _ in batches:
                model(given)

    profile(batches[:2])
    bare(batches[:2])
    # Two images make the forward pass short, so that what is left is there once per pass.
    two = [(kept[0][0][:2], labels[:2])]
    once = paired(lambda: profile(two), lambda: bare(two), pairs=9, device=device)
    timing = paired(profile, bare, pairs=2 if quick else 15, model=model, device=device)
    return {
        "what": f"{name}, {pixels} px",
        "images": len(batches) * size,
        "batch_size": size,
        "by_prediction": profile(two).by_prediction is not None,
        "once_s": statistics.median(
            a - b for a, b in zip(once["first_s"], once["second_s"], strict=True)
        ),
        "timing": timing,
        "at_most": BOUND,
        "reached": timing["ratio"]["median"],
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    timing = cell["timing"]
    profile_s, bare_s = map(statistics.median, (timing["first_s"], timing["second_s"]))
    return [
        cell["what"],
        f"{cell['images']:,} in batches of {cell['batch_size']}",
        "by label and by prediction" if cell["by_prediction"] else "by label",
        "{} / {}".format(*timing["calls"]),
        f"{profile_s:.2f} / {bare_s:.2f}",
        f"{cell['once_s'] * 1e3:.0f} ms",
        ratio_cell(timing),
    ]
