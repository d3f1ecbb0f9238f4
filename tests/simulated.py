"""Histories made by a known law, for tests of what is learned from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from resque.forecasting.preflight import FORMAT, Preflight
from resque.history.records import DataSizes, Plateau, Recipe, Target, fields_of
from resque.history.update import Point, Update
from updates import SIGNATURE, update_of

TARGET = Plateau(patience=3, min_delta=0.002)
INTERVAL = 0.5


def preflight_of(
    x: float,
    z: float = 0.0,
    *,
    network: str = "resnet18",
    recipe: Recipe | None = None,
    seconds_per_step: float | None = 0.1,
    joules_per_step: float | None = None,
    data: str = "cats",
    examples: int = 640,
) -> Preflight:
    """A pre-flight in which two predictors say something: the ridge probe's error, and the drop.

    Args:
        x: log odds of the error of the ridge probe.
        z: drop of the accuracy.
        network: name of the model.
        recipe: of the update.
        seconds_per_step: of the probe; None for no probe.
        joules_per_step: likewise; None for no meter.
        data: first class of two.
        examples: of the training data.
    """
    recipe = recipe or Recipe(max_epochs=30, validation_interval=INTERVAL)
    hardware = update_of().hardware
    names = (data, "others")
    sizes = DataSizes(
        training_examples=examples, validation_examples=300, batch_size=32,
        steps_per_epoch=math.ceil(examples / 32), classes=2, class_names=names,
    )  # fmt: skip
    values = {
        "ridge": 1 / (1 + math.exp(-x)),
        "accuracy_drop": z,
        "classes": 2.0,
        "training_examples": float(examples),
        "steps_per_epoch": float(sizes.steps_per_epoch),
        "error_before": 0.5,
        "loss_before": 0.7,
    }
    probe = None
    if seconds_per_step is not None:
        spread = {
            "median": seconds_per_step,
            "least": seconds_per_step,
            "greatest": seconds_per_step,
        }
        joules = joules_per_step and {
            "median": joules_per_step, "least": joules_per_step, "greatest": joules_per_step,
        }  # fmt: skip
        components: list[dict[str, Any]] = []
        probe = {
            "steps": 20,
            "warmup": 5,
            "seconds_per_step": spread,
            "joules_per_step": joules,
            "seconds_per_validation": spread,
            "joules_per_validation": joules,
            "modelled": False,
            "energy": {"components": components, "seconds": 2.0, "meter": "replay 1"},
            "losses": [0.7] * 25,
            "loss_slope": 0.0,
            "gradient_norm_first": 1.0,
            "gradient_norm": 1.0,
            "parameter_change": 1e-3,
            "recipe": fields_of(recipe),
            "data": fields_of(sizes),
            "hardware": fields_of(hardware),
        }
    return Preflight.from_dict(
        {
            "format": FORMAT,
            "values": values,
            "missing": {},
            "seconds": {"pass": 1.0},
            "shift": {"index": "RESQUE_dist"},
            "task": None,
            "probe": probe,
            "recipe": fields_of(recipe),
            "data": fields_of(sizes),
            "sample": {"training": [640, 640]},
            "hardware": fields_of(hardware),
            "signature": replace(SIGNATURE, model=network, class_names=names).to_dict(),
            "notes": [],
        }
    )


def curve_of(peak: float, pace: float, last: float, *, start: float = 0.5) -> tuple[Point, ...]:
    """A learning curve that goes from `start` to `peak` as 1 - exp(-epoch / pace)."""
    epochs = np.arange(0.0, last + INTERVAL / 2, INTERVAL)
    accuracies = peak - (peak - start) * np.exp(-epochs / pace)
    return tuple(
        Point(
            epoch=float(epoch), steps=round(20 * epoch), accuracy=float(accuracy),
            gradient_norm=2.0 if epoch else None, parameter_change=1e-3 * float(epoch),
            seconds=1.0 if epoch else None,
        )
        for epoch, accuracy in zip(epochs, accuracies, strict=True)
    )  # fmt: skip


def plateau_of(peak: float, last: float, patience: float) -> tuple[Point, ...]:
    """A learning curve that rises to `peak` in a straight line, and stays there for the patience.

    Args:
        peak: best accuracy.
        last: epoch at which the plateau is met, a multiple of `INTERVAL`.
        patience: epochs without a rise.
    """
    risen = last - patience
    curve = curve_of(peak, 1.0, last)
    return tuple(
        replace(
            point, accuracy=0.5 + (peak - 0.5) * (min(1.0, point.epoch / risen) if risen else 1)
        )
        for point in curve
    )


def simulated(
    n: int,
    *,
    seed: int = 0,
    noise: float = 0.2,
    slope: float = 0.5,
    level: float = 1.2,
    networks: int = 5,
    network_sd: float = 0.3,
    most_epochs: float = 200.0,
    target: Target = TARGET,
    labelled: bool = True,
    **of_preflight: Any,
) -> list[Update]:
    """Updates whose log epochs before the wait are level + slope x + a network's effect + noise.

    Args:
        n: updates.
        seed: of all that is drawn.
        noise: standard deviation of that logarithm.
        slope: of x, the log odds of the ridge probe's error, which is drawn from a normal.
        level: its mean.
        networks: how many there are.
        network_sd: standard deviation of their effects.
        most_epochs: after which an update gives up, and is censored.
        target: of all of them.
        labelled: whether kinds of shift are named, ten of them.
        of_preflight: see `preflight_of`.
    """
    rng = np.random.default_rng(seed)
    effects = network_sd * rng.normal(size=networks)
    made = []
    for at in range(n):
        x, network = rng.normal(), int(rng.integers(networks))
        # The plateau is waited for, whatever came before.
        before = math.exp(level + slope * x + effects[network] + noise * rng.normal())
        epochs = TARGET.patience + before
        peak = 1 / (1 + math.exp(-(1.5 - 0.5 * x + 0.1 * rng.normal())))
        reached = epochs <= most_epochs
        paid = epochs if reached else most_epochs
        recipe = Recipe(max_epochs=most_epochs, validation_interval=INTERVAL)
        known = preflight_of(x, network=f"network {network}", recipe=recipe, **of_preflight)
        made.append(
            update_of(
                started=f"2026-01-01T00:00:{at % 60:02d}.{at:06d}+00:00",
                model=f"network {network}",
                target=target,
                ended="plateau" if reached else "max_epochs",
                recipe=recipe,
                data=known.data,
                epochs=paid,
                steps=max(1, round(20 * paid)),
                duration_s=2.0 * paid,
                accuracy_before=0.5,
                peak_accuracy=peak,
                preflight=known.to_dict(),
                labels={"shift": f"shift {at % 10}"} if labelled else {},
                curve=(),
            )
        )
    return made
