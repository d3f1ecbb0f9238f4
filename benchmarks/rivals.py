"""What the static rivals take on top of a profile."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

import resque
from inputs import MEAN, STD, cifar10, efficientnet_lite0, pixels_of
from resque.rivals.observations import Observations, observe
from resque.rivals.table import sampled_places, shift_rivals, task_rivals

DEVICES = ("cpu", "cuda")
TITLE = "Rivals, on top of a profile"
PIXELS, IMAGES = 112, 5000
BOUND = 0.5
BATCH, PART = 64, 8  # images in a batch, batches in a part
ROUNDS = 3

ABOUT = f"""\
{IMAGES:,} images of CIFAR-10 at {PIXELS} px through EfficientNet-Lite0 with its real weights, and
as many with gaussian noise of 0.1 of the range. "More than the profile" is what a pass that keeps
what the rivals need takes beyond `resque.profile` of the same images, as `resque.preflight` makes
it with `most_examples=5000`. All seconds are also given as a share of the bare forward pass of the
new images. The passes take turns over {BATCH * PART} images at a time, each part a pass of its own;
the medians of their differences count, with their quartiles in brackets. The bound is on all of it
together. The rivals on the last map and on all layers, and `mmd`, look at 1,000 images of each side
at most.
"""
COLUMNS = ("what", "seconds", "share of a forward pass")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per rival, and one for all of them together."""
    n = IMAGES // (10 if quick else 1)
    images, labels, _ = cifar10("train")
    model = efficientnet_lite0().to(device).eval()
    clean = _batches(images[:n], labels[:n], device, noise=0.0)
    noisy = _batches(images[:n], labels[:n], device, noise=0.1)
    sampled = sampled_places(labels[:n], n)

    def seen(batches: list[Any], *, new: bool, places: np.ndarray = sampled) -> Observations:
        return observe(model, batches, maps=new, layers=True, sampled=places, progress=False)

    def bare(batches: list[Any]) -> None:
        with torch.no_grad():
            for given, _ in batches:
                model(given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds: list[list[float]] = []
    bare(noisy[:2])
    for turn, start in enumerate([*range(0, len(noisy), PART)] * (1 if quick else ROUNDS)):
        old, new = clean[start : start + PART], noisy[start : start + PART]
        places = sampled[np.isin(sampled // BATCH, range(start, start + PART))] - start * BATCH
        actions: list[Callable[[], object]] = [
            partial(bare, new),
            partial(resque.profile, model, new, progress=False),
            partial(seen, old, new=False, places=places),
            partial(seen, new, new=True, places=places),
        ]
        row = [0.0] * len(actions)
        # There and back, and another one first: none always follows the same.
        order = [(turn // 2 + place) % len(actions) for place in range(len(actions))]
        for which in order if turn % 2 == 0 else order[::-1]:
            row[which] = _seconds(actions[which]) / len(new)
        seconds.append(row)
    bare_s, profile_s, old_s, new_s = np.array(seconds).T * len(noisy)
    forward = float(np.median(bare_s))
    before, after = seen(clean, new=False), seen(noisy, new=True)
    found = {**shift_rivals(before, after), **task_rivals(after)}
    more = {
        f"the pass over the {side} images, more than the profile": np.quantile(
            seconds_of - profile_s, (0.5, 0.25, 0.75)
        ).tolist()
        for side, seconds_of in (("old", old_s), ("new", new_s))
    }
    parts = {what: [of.seconds] for what, of in ((f"`{name}`", of) for name, of in found.items())}
    parts |= more
    total = sum(seconds_of[0] for seconds_of in parts.values())
    cells = [
        {"what": what, "seconds": median, "quartiles": quartiles, "share": median / forward}
        for what, (median, *quartiles) in sorted(parts.items(), key=lambda part: -part[1][0])
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
    for start in range(0, len(images), BATCH):
        pixels = pixels_of(images[start : start + BATCH])
        pixels = (pixels + noise * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
        large = torch.nn.functional.interpolate((pixels - MEAN) / STD, PIXELS)
        of_batch = torch.as_tensor(labels[start : start + BATCH], dtype=torch.int64)
        found.append((large.to(device), of_batch))
    return found


def _seconds(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    seconds = f"{cell['seconds']:.2f}"
    if cell.get("quartiles"):
        seconds += " ({:.2f} to {:.2f})".format(*cell["quartiles"])
    return [cell["what"], seconds, f"{cell['share']:.3f}"]
