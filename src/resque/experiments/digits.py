"""The demonstration on handwritten digits: both indices, updates, a forecast, a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from resque.decision.candidate import Candidate, candidate
from resque.decision.compare import decide
from resque.decision.comparison import Comparison
from resque.decision.option import FromScratch, Keep
from resque.experiments.shifts import gaussian_blur, gaussian_noise, salt_and_pepper
from resque.forecasting.forecast import Forecast
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.preflight import Preflight, preflight
from resque.history.records import Accuracy, Grid, Recipe
from resque.history.update import Update
from resque.index.profile import profile
from resque.index.shift import ShiftIndex, shift_index
from resque.index.task import TaskIndex, task_index
from resque.measure.energy import Meter, open_meter
from resque.measure.retrain import retrain

SEED = 0
EPOCHS = 20
# Strengths chosen so that each kind goes from hardly visible to hardly legible at 8 x 8 pixels.
LEVELS = {
    "gaussian noise": (0.0, 0.1, 0.2, 0.4, 0.8),
    "salt and pepper": (0.0, 0.05, 0.1, 0.2, 0.4),
    "gaussian blur": (0.0, 0.4, 0.6, 0.8, 1.2),
}
# Shifts after which the network is updated; the last update is forecast from those before it.
# Under the strongest noise the target is out of reach.
UPDATES = (
    ("gaussian noise", 0.1),
    ("gaussian noise", 0.2),
    ("gaussian noise", 0.4),
    ("salt and pepper", 0.05),
    ("salt and pepper", 0.1),
    ("gaussian blur", 0.6),
    ("gaussian blur", 0.8),
)
TARGET = Accuracy(0.85)
# A gentle rate for weights that know something; from scratch, the rate that they were found with.
RETRAINING = Recipe(learning_rate=3e-4, max_epochs=60, validation_interval=0.25)
SCRATCH = Recipe(start="scratch", learning_rate=3e-3, max_epochs=60, validation_interval=0.25)
# The few updates here support no wider one as long as the corpus is small.
CONFIDENCE_LEVEL = 0.8
# Of the new half: the rest validates.
_TRAINED_ON = 600


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
class DigitsUpdate:
    """The network updated for one shift of the digits, in two ways.

    Attributes:
        kind: of shift.
        level: its strength.
        index: RESQUE_dist between the old digits and the shifted new ones, before any training.
        retrained: the update that starts from the network's weights.
        scratch: the one that starts from fresh weights.
    """

    kind: str
    level: float
    index: ShiftIndex
    retrained: Update
    scratch: Update


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsDemo:
    """What the demonstration found.

    Attributes:
        accuracy: of the network that knows all digits, on unshifted digits it has not seen.
        shifts: by kind and level.
        updates: measured retrainings after some of the shifts.
        preflight: of the last retraining; None without updates.
        forecast: of the last retraining, from the corpus and the updates before it, as it was
            told before that was made; likewise.
        comparison: of what could be done at that time: keep, retrain, train from scratch;
            likewise.
        task: RESQUE_task of a network that knows 0 to 4, for the digits 5 to 9.
        task_known: the same network's RESQUE_task for the digits it knows, for comparison.
    """

    accuracy: float
    shifts: tuple[DigitsShift, ...]
    updates: tuple[DigitsUpdate, ...]
    preflight: Preflight | None
    forecast: Forecast | None
    comparison: Comparison | None
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

    def measured(self) -> list[Update]:
        """Return the updates in the order in which they were made."""
        return [update for row in self.updates for update in (row.retrained, row.scratch)]

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
            "updates": [
                {
                    "kind": update.kind,
                    "level": update.level,
                    "index": update.index.to_dict(),
                    "retrained": update.retrained.to_dict(),
                    "scratch": update.scratch.to_dict(),
                }
                for update in self.updates
            ],
            "forecast": self.forecast and self.forecast.to_dict(),
            "comparison": self.comparison and self.comparison.to_dict(),
            "task": self.task.to_dict(),
            "task_known": self.task_known.to_dict(),
        }


def digits_demo(
    report: Callable[[str], None] = lambda _: None,
    *,
    epochs: int = EPOCHS,
    levels: Mapping[str, Sequence[float]] = LEVELS,
    updates: Sequence[tuple[str, float]] = UPDATES,
    meter: Meter | str = "codecarbon",
    grid: Grid | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> DigitsDemo:
    """Return both indices on the digits, what updates cost, and what was told of the last of them.

    Two small networks are trained: one on half of all digits, whose shift to the other half
    under noise and blur is measured, and one on the digits 0 to 4, for which 5 to 9 are a new
    task. All numbers but seconds and energy are the same on every run of one machine.

    Args:
        report: called with a sentence before each step.
        epochs: of both trainings.
        levels: kind of shift -> strengths; the kinds are those of `LEVELS`. The first strength
            of the first kind must be 0.
        updates: kinds and strengths of the shifts after which the network is updated.
        meter: see `open_meter`.
        grid: what a kilowatt-hour costs in carbon.
        confidence_level: of the intervals of the forecast and the comparison.

    Example:
        >>> demo = digits_demo(epochs=1, levels={"gaussian blur": (0.0, 1.0)}, updates=())
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
        measured: list[DigitsUpdate] = []
        last, told, compared = None, None, None
        with open_meter(meter) if updates else nullcontext() as opened:
            for kind, level in updates:
                report(f"updating the network for {kind} {level:g}")
                shifted = _shifted(images[new], kind, level)
                after = profile(model, (shifted, labels[new]), ids=new, preprocessing="bytes / 16")
                index = shift_index(before, after)
                sides = [(shifted[:_TRAINED_ON], labels[new[:_TRAINED_ON]]),
                         (shifted[_TRAINED_ON:], labels[new[_TRAINED_ON:]])]  # fmt: skip
                common: dict[str, Any] = {
                    "before": (images[old], labels[old]),
                    "meter": opened or "none",
                    "progress": False,
                }
                named: dict[str, Any] = {
                    "model_name": "small network",
                    "preprocessing": "bytes / 16",
                }
                ahead = preflight(
                    model,
                    sides[0],
                    validation=sides[1],
                    recipe=RETRAINING,
                    ids=new[:_TRAINED_ON],
                    before_ids=old,
                    **common,
                    **named,
                )
                if len(measured) == len(updates) - 1:
                    report("forecasting and comparing what could be done, before it is done")
                    made = [u for one in measured for u in (one.retrained, one.scratch)]
                    forecaster = Forecaster(made)
                    last = ahead
                    told = forecaster.forecast(
                        ahead,
                        target=TARGET,
                        grid=grid,
                        confidence_level=confidence_level,
                        from_scratch=False,
                    )
                    scratch_option = FromScratch(model, recipe=SCRATCH, **named)
                    compared = decide(
                        [
                            candidate(Keep(model), *sides, progress=False),
                            Candidate(name="retrain", kind="retrain", preflight=ahead),
                            candidate(scratch_option, *sides, **common),
                        ],
                        target=TARGET,
                        by="hours",
                        forecaster=forecaster,
                        grid=grid,
                        confidence_level=confidence_level,
                    )
                retrained, scratch = (
                    retrain(
                        model,
                        *sides,
                        target=TARGET,
                        recipe=recipe,
                        meter=opened or "none",
                        grid=grid,
                        model_name="small network",
                        preprocessing="bytes / 16",
                        index=index.to_dict(),
                        preflight=ahead.to_dict() if recipe is RETRAINING else None,
                        labels={"shift": kind, "level": f"{level:g}"},
                        progress=False,
                    ).update
                    for recipe in (RETRAINING, SCRATCH)
                )
                measured.append(
                    DigitsUpdate(
                        kind=kind, level=level, index=index, retrained=retrained, scratch=scratch
                    )
                )
        report("training a network that knows 0 to 4 only")
        known = labels < 5
        small = _trained(images[known], labels[known], classes=5, epochs=epochs)
        task = task_index(small, (images[~known], labels[~known]))
        task_known = task_index(small, (images[known], labels[known]))
    return DigitsDemo(
        accuracy=shifts[0].accuracy,
        shifts=tuple(shifts),
        updates=tuple(measured),
        preflight=last,
        forecast=told,
        comparison=compared,
        task=task,
        task_known=task_known,
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
