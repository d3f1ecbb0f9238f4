"""The demonstration: both indices on scikit-learn's handwritten digits, with a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from resque.experiments.shifts import gaussian_blur, gaussian_noise, salt_and_pepper
from resque.index.profile import profile
from resque.index.shift import ShiftIndex, shift_index
from resque.index.task import TaskIndex, task_index

SEED = 0
EPOCHS = 20
# Strengths chosen so that each kind goes from hardly visible to hardly legible at 8 x 8 pixels.
LEVELS = {
    "gaussian noise": (0.0, 0.1, 0.2, 0.4, 0.8),
    "salt and pepper": (0.0, 0.05, 0.1, 0.2, 0.4),
    "gaussian blur": (0.0, 0.4, 0.6, 0.8, 1.2),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsShift:
    """One shift of the digits.

    Attributes:
        kind: of shift.
        level: its strength: standard deviation (noise; blur in pixels) or share of pixels.
        index: RESQUE_dist between the old digits and the shifted new ones.
        accuracy: of the network on the shifted digits, before any retraining.
    """

    kind: str
    level: float
    index: ShiftIndex
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsDemo:
    """What the demonstration found.

    Attributes:
        accuracy: of the network that knows all digits, on unshifted digits it has not seen.
        shifts: by kind and level.
        task: RESQUE_task of a network that knows 0 to 4, for the digits 5 to 9.
        task_known: the same network's RESQUE_task for the digits it knows, for comparison.
    """

    accuracy: float
    shifts: tuple[DigitsShift, ...]
    task: TaskIndex
    task_known: TaskIndex

    def curves(self) -> dict[str, tuple[list[float], list[ShiftIndex]]]:
        """Return kind of shift -> (levels, indices)."""
        found: dict[str, tuple[list[float], list[ShiftIndex]]] = {}
        for shift in self.shifts:
            levels, indices = found.setdefault(shift.kind, ([], []))
            levels.append(shift.level)
            indices.append(shift.index)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the results as plain JSON types."""
        return {
            "accuracy": self.accuracy,
            "shifts": [
                {
                    "kind": shift.kind,
                    "level": shift.level,
                    "accuracy": shift.accuracy,
                    **shift.index.to_dict(),
                }
                for shift in self.shifts
            ],
            "task": self.task.to_dict(),
            "task_known": self.task_known.to_dict(),
        }


def digits_demo(
    report: Callable[[str], None] = lambda _: None,
    *,
    epochs: int = EPOCHS,
    levels: Mapping[str, Sequence[float]] = LEVELS,
) -> DigitsDemo:
    """Return both indices on the digits; the same numbers on every run of one machine.

    Two small networks are trained: one on half of all digits, whose shift to the other half
    under noise and blur is measured, and one on the digits 0 to 4, for which 5 to 9 are a new
    task.

    Args:
        report: called with a sentence before each step.
        epochs: of both trainings.
        levels: kind of shift -> strengths; the kinds are those of `LEVELS`. The first strength
            of the first kind must be 0.

    Example:
        >>> demo = digits_demo(epochs=1, levels={"gaussian blur": (0.0, 1.0)})
        >>> demo.shifts[0].index.value < demo.shifts[1].index.value
        True
    """
    images, labels = _digits()
    order = np.random.default_rng(SEED).permutation(len(images))
    old, new = order[: len(order) // 2], order[len(order) // 2 :]
    with _one_thread():
        report("training a small network on one half of the digits")
        model = _trained(images[old], labels[old], classes=10, epochs=epochs)
        before = profile(model, (images[old], labels[old]), ids=old, preprocessing="bytes / 16")
        shifts = []
        for kind, strengths in levels.items():
            report(f"the other half with {kind}")
            for level in strengths:
                shifted = _shifted(images[new], kind, level)
                after = profile(model, (shifted, labels[new]), ids=new, preprocessing="bytes / 16")
                outputs = after.outputs
                accuracy = outputs.accuracy if outputs else None
                shifts.append(
                    DigitsShift(
                        kind=kind,
                        level=level,
                        index=shift_index(before, after),
                        accuracy=float("nan") if accuracy is None else accuracy,
                    )
                )
        report("training a network that knows 0 to 4 only")
        known = labels < 5
        small = _trained(images[known], labels[known], classes=5, epochs=epochs)
        task = task_index(small, (images[~known], labels[~known]))
        task_known = task_index(small, (images[known], labels[known]))
    return DigitsDemo(
        accuracy=shifts[0].accuracy, shifts=tuple(shifts), task=task, task_known=task_known
    )


def _digits() -> tuple[Tensor, Tensor]:
    """Return images (1797, 1, 8, 8) in [0, 1] and labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    return images, torch.tensor(digits.target, dtype=torch.int64)


def _trained(images: Tensor, labels: Tensor, *, classes: int, epochs: int) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, classes),
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for chosen in torch.split(torch.randperm(len(images)), 32):
                optimiser.zero_grad()
                loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
                torch.autograd.backward(loss)
                optimiser.step()
    return model.eval()


def _shifted(images: Tensor, kind: str, level: float) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    makers: Mapping[str, Callable[[], Tensor]] = {
        "gaussian noise": lambda: gaussian_noise(images, level, generator=generator),
        "salt and pepper": lambda: salt_and_pepper(images, level, generator=generator),
        "gaussian blur": lambda: gaussian_blur(images, level),
    }
    return makers[kind]()


@contextmanager
def _one_thread() -> Iterator[None]:
    # One thread adds up in one order, so that the numbers do not depend on the cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
