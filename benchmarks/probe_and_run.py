"""Whether a probe foretells what a step of the real run takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import resque
from inputs import MEAN, SEED, STD, cifar10, pixels_of, random_model

DEVICES = ("cpu", "cuda")
TITLE = "A step in the probe, against a step of the real run"

ABOUT = """\
Seconds and joules of a training step as `resque.probe` finds them in a few seconds, divided by
those of a `resque.retrain` right after it: the energy of its training windows by its steps.
CIFAR-10 at 32 px, batch 32. The bound on both is the error that the meter states of itself. Where
the energy is modelled from load and time, both sides share the model, and its error is not seen.
"""
COLUMNS = (
    "model",
    "meter",
    "timed steps / real steps",
    "ms per step: probe / run",
    "J per step: probe / run",
    "seconds",
    "joules",
    "worse of both",
)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per model."""
    images, labels, _ = cifar10("train")
    many = 8000 if device.type == "cuda" else 1600
    many //= 4 if quick else 1
    x = ((pixels_of(images[:many]) - MEAN) / STD).to(device)
    y = torch.as_tensor(labels[:many], dtype=torch.int64).to(device)
    split = many * 4 // 5
    data = (x[:split], y[:split]), (x[split:], y[split:])
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 10))
    models = {"ResNet-18": random_model("resnet18", 10), "MLP of 1.6 million weights": mlp}
    return [_cell(name, model.to(device), data) for name, model in models.items()]


def _cell(what: str, model: nn.Module, data: Any) -> dict[str, Any]:
    # Long enough for the energy of training to be told apart from that of validation.
    epochs = 2 if what == "ResNet-18" else 40
    recipe = resque.Recipe(max_epochs=epochs, seed=SEED)
    with resque.open_meter("codecarbon") as meter:
        probe = resque.probe(model, *data, recipe=recipe, meter=meter)
        update = resque.retrain(
            model, *data, target=resque.Accuracy(1.0), recipe=recipe, meter=meter, progress=False
        ).update
    training = update.training_energy
    assert training is not None
    seconds = probe.seconds_per_step.median, training.seconds / update.steps
    joules = (
        probe.joules_per_step.median if probe.joules_per_step else None,
        training.joules / update.steps if training.joules is not None else None,
    )
    off = [a / b for a, b in (seconds, joules) if a is not None and b is not None]
    return {
        "what": what,
        "meter": training.meter,
        "modelled": training.modelled,
        "steps": [probe.steps, update.steps],
        "seconds": seconds,
        "joules": joules,
        "at_most": 1 + (training.relative_error or 0.0),
        "reached": max(max(ratio, 1 / ratio) for ratio in off),
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    (probe_s, run_s), (probe_j, run_j) = cell["seconds"], cell["joules"]
    known = probe_j is not None and run_j is not None
    return [
        f"{cell['what']}, 32 px",
        cell["meter"] + (", modelled" if cell["modelled"] else ""),
        "{} / {}".format(*cell["steps"]),
        f"{probe_s * 1e3:.3g} / {run_s * 1e3:.3g}",
        f"{probe_j:.3g} / {run_j:.3g}" if known else "unknown",
        f"{probe_s / run_s:.3f}",
        f"{probe_j / run_j:.3f}" if known else "unknown",
        f"{cell['reached']:.3f}",
    ]
