"""What the static rivals take on top of a profile."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

import resque
from inputs import MEAN, STD, cifar10, efficientnet_lite0, pixels_of
from resque.rivals.observations import observe
from resque.rivals.table import shift_rivals, task_rivals

DEVICES = ("cpu", "cuda")
TITLE = "Rivals, on top of a profile"
PIXELS, IMAGES = 112, 5000
BOUND = 0.5
ROUNDS = 3

ABOUT = f"""\
{IMAGES:,} images of CIFAR-10 at {PIXELS} px through EfficientNet-Lite0 with its real weights, and
as many with gaussian noise of 0.1 of the range. "More than the profile" is what a pass that keeps
everything for the rivals takes beyond `resque.profile` of the same images. All seconds are also
given as a share of the bare forward pass of the new images. The passes take turns, three times,
and the quickest of each counts; the bound is on all of it together. The rival on the last map looks
at 2,000 images at most.
"""
COLUMNS = ("what", "seconds", "share of a forward pass")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per rival, and one for all of them together."""
    n = IMAGES // (10 if quick else 1)
    images, labels, _ = cifar10("train")
    model = efficientnet_lite0().to(device).eval()
    clean = _batches(images[:n], labels[:n], device, noise=0.0)
    noisy = _batches(images[:n], labels[:n], device, noise=0.1)

    def bare(batches: list[Any] = noisy) -> None:
        with torch.no_grad():
            for given, _ in batches:
                model(given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def profile(batches: list[Any] = noisy) -> None:
        resque.profile(model, batches, progress=False)

    sides: list[Any] = []

    def seen(batches: list[Any], *, new: bool) -> None:
        sides.append(observe(model, batches, maps=new, layers=True, progress=False))

    bare(noisy[:2])
    profile(noisy[:2])
    passes: list[tuple[float, float, float, float]] = []
    for _ in range(1 if quick else ROUNDS):
        sides.clear()
        # In turn, so that what else the machine does falls on all of them.
        passes.append(
            (
                _seconds(bare),
                _seconds(profile),
                _seconds(lambda: seen(clean, new=False)),
                _seconds(lambda: seen(noisy, new=True)),
            )
        )
    # The quickest of each: what disturbs a pass makes it slower, never faster.
    forward, alone, old, new = np.min(passes, axis=0).tolist()
    before, after = sides
    found = {**shift_rivals(before, after), **task_rivals(after)}
    parts = {
        "the pass over the new images, more than the profile": max(new - alone, 0.0),
        "the pass over the old images, more than the profile": max(old - alone, 0.0),
    }
    parts |= {f"`{name}`": measured.seconds for name, measured in found.items()}
    total = sum(parts.values())
    cells = [
        {"what": what, "seconds": seconds, "share": seconds / forward}
        for what, seconds in sorted(parts.items(), key=lambda part: -part[1])
    ]
    everything = {
        "what": f"all of it, beside a forward pass of {forward:.1f} s",
        "seconds": total,
        "share": total / forward,
        "at_most": BOUND,
        "reached": total / forward,
    }
    return [everything, *cells]


def _batches(
    images: np.ndarray, labels: np.ndarray, device: torch.device, *, noise: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for start in range(0, len(images), 64):
        pixels = pixels_of(images[start : start + 64])
        pixels = (pixels + noise * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
        large = torch.nn.functional.interpolate((pixels - MEAN) / STD, PIXELS)
        of_batch = torch.as_tensor(labels[start : start + 64], dtype=torch.int64)
        found.append((large.to(device), of_batch))
    return found


def _seconds(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    return [cell["what"], f"{cell['seconds']:.2f}", f"{cell['share']:.3f}"]
