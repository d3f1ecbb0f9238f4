"""What the recorder and the meter take of an epoch of 200 steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import resque
from inputs import SEED, random_model
from measurement import paired, ratio_cell

DEVICES = ("cpu", "cuda")
TITLE = "Recorder and meter round an epoch of 200 steps"
BOUND = 1.01
STEPS = 200

ABOUT = """\
Seconds of a plain loop of 200 steps inside `resque.recording(...)`, one `recorder.step(loss)` each
and one `recorder.validation(...)` at the end, with the codecarbon meter open, divided by those of
the same loop without it. ResNet-18 at 32 px, batch 32, Adam, random pixels. "In the recorder" is
the time inside its calls, the 200 gradient norms included, as a share of the epoch; the bound is
held to what follows from it, because the difference of two noisy epochs would hide it.
"""
COLUMNS = ("loop", "steps", "seconds: with / without", "ratio", "in the recorder")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell."""
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(32, 3, 32, 32, generator=generator).to(device)
    y = (torch.arange(32) % 10).to(device)
    sizes = resque.DataSizes(
        training_examples=32 * STEPS, validation_examples=32, batch_size=32,
        steps_per_epoch=STEPS, classes=10,
    )  # fmt: skip
    steps = STEPS // 4 if quick else STEPS
    model = random_model("resnet18", 10).to(device).train()
    optimiser = torch.optim.Adam(model.parameters())
    shares: list[float] = []

    def epoch(recorder: resque.Recorder | None = None) -> None:
        for _ in range(steps):
            _step(model, optimiser, x, y, recorder)

    with resque.open_meter("codecarbon") as meter:

        def recorded() -> None:
            with (
                resque.recording(
                    model, target=resque.Plateau(), data=sizes, meter=meter
                ) as recorder,
                _timed(recorder) as inside,
            ):
                recorder.validation(0.1)
                epoch(recorder)
                recorder.validation(0.2)
            shares.append(sum(inside) / recorder.update.duration_s)

        for _ in range(5):
            _step(model, optimiser, x, y, None)
        timing = paired(recorded, epoch, pairs=2, device=device)
    share = statistics.median(shares)
    return [
        {
            "what": "ResNet-18, 32 px",
            "steps": steps,
            "timing": timing,
            "share": share,
            "at_most": BOUND,
            "reached": 1 / (1 - share),
        }
    ]  # fmt: skip


def _step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    recorder: resque.Recorder | None,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    if recorder is not None:
        recorder.step(loss)
    optimiser.step()


@contextmanager
def _timed(recorder: resque.Recorder) -> Iterator[list[float]]:
    """Give a list of the seconds that each call of the recorder takes."""
    inside: list[float] = []
    for name in ("step", "validation"):
        call = getattr(recorder, name)

        def timed(*given: Any, call: Any = call) -> Any:
            start = time.perf_counter()
            result = call(*given)
            inside.append(time.perf_counter() - start)
            return result

        setattr(recorder, name, timed)
    yield inside


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    timing = cell["timing"]
    with_s, without_s = map(statistics.median, (timing["first_s"], timing["second_s"]))
    return [
        cell["what"],
        str(cell["steps"]),
        f"{with_s:.2f} / {without_s:.2f}",
        ratio_cell(timing),
        f"{cell['share']:.2%}",
    ]
