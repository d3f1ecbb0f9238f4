"""RESQUE_dist the way it was published, written from docs/method.md: slow, and obviously right.

For every class and side the whole data set is read through its transforms to find the examples
of the class, and then each of them goes through the model alone.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Protocol

import torch
from torch import Tensor, nn


class Images(Sized, Protocol):
    """A torch data set of (image, label) pairs."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]: ...


def published_index(
    model: nn.Module,
    layer: str,
    before: Images,
    after: Images,
    classes: int,
) -> float:
    """Return RESQUE_dist: the mean over classes of the angle between both sides, in units of pi.

    Args:
        model: the model, in eval mode.
        layer: name of a layer that gives maps.
        before: (image, label) pairs of the old data.
        after: likewise of the new data.
        classes: number of classes; labels are 0 to classes - 1.
    """
    angles = []
    for label in range(classes):
        old = class_sum(model, layer, before, label)
        new = class_sum(model, layer, after, label)
        cosine = float((old / old.norm()) @ (new / new.norm()))
        angles.append(math.acos(min(1.0, max(-1.0, cosine))) / math.pi)
    return sum(angles) / classes


@torch.no_grad()
def class_sum(model: nn.Module, layer: str, data: Images, label: int) -> Tensor:
    """Return the sum of the spatial means of the layer's maps over one class, in float64."""
    device = next(model.parameters()).device
    scanned = (data[place] for place in range(len(data)))
    images = [image for image, its_label in scanned if its_label == label]
    total = torch.zeros((), dtype=torch.float64, device=device)

    def add(_: nn.Module, __: tuple[Tensor, ...], maps: Tensor) -> None:
        nonlocal total
        total = total + maps.mean((2, 3))[0].double()

    handle = model.get_submodule(layer).register_forward_hook(add)
    try:
        for image in images:
            model(image[None].to(device))
    finally:
        handle.remove()
    return total
