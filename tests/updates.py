"""Updates made by hand, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from resque.history.records import (
    Accuracy,
    Component,
    DataSizes,
    EnergyReading,
    Grid,
    Hardware,
    Recipe,
)
from resque.history.update import Point, Update
from resque.representation.signature import Signature

SIGNATURE = Signature(
    model="resnet18",
    weights="0123456789abcdef",
    layer="input:fc",
    pooling="mean",
    preprocessing="none",
    width=512,
    class_names=("cat", "dog"),
    examples=(1000,),
    dtype="float32",
    groups=None,
    hardware="a processor",
    version="0.1.0",
)
CURVE = (
    Point(epoch=0.0, steps=0, accuracy=0.5, validation_loss=0.7),
    Point(
        epoch=1.0,
        steps=32,
        accuracy=0.93,
        validation_loss=0.1 + 0.2,  # 0.30000000000000004: a number that no rounding keeps
        training_loss=0.4,
        gradient_norm=1.25,
        gradient_norm_last_batch=1.5,
        parameter_change=1e-3,
        parameter_change_since_last=1e-3,
        parameter_change_published=2e-3,
        parameter_change_published_since_last=2e-3,
        seconds=60.0,
        joules=7200.0,
    ),
)


def reading_of(
    joules: float | None = 7200.0,
    *,
    source: str = "counter",
    meter: str = "replay 1",
    calibration: str | None = None,
    name: str = "cpu",
) -> EnergyReading:
    """A reading of one component, 60 s long."""
    component = Component(name=name, joules=joules, source=source, relative_error=0.05)  # type: ignore[arg-type]
    return EnergyReading(
        components=(component,), seconds=60.0, meter=meter, calibration=calibration
    )


def update_of(**changes: Any) -> Update:
    """An update that reached its target after one epoch and 0.002 kWh, with fields replaced.

    Two fields may be given by what they are made of: `model`, the name in the signature, and
    `number`, that of the step the update ended at, which makes updates differ.
    """
    model, number = changes.pop("model", SIGNATURE.model), changes.pop("number", None)
    if number is not None:
        changes = {"steps": 32 + number} | changes
    whole = Update(
        started="2026-03-31T18:00:00+00:00",
        signature=replace(SIGNATURE, model=model),
        target=Accuracy(0.92),
        ended="target",
        recipe=Recipe(),
        data=DataSizes(
            training_examples=1000,
            validation_examples=100,
            batch_size=32,
            steps_per_epoch=32,
            classes=2,
            class_names=("cat", "dog"),
        ),
        hardware=Hardware(
            device="cpu", name="a processor", processor="a processor", cores=2, threads=2
        ),
        epochs=1.0,
        steps=32,
        examples_seen=1000,
        duration_s=60.0,
        accuracy_before=0.5,
        loss_before=0.7,
        peak_accuracy=0.93,
        peak_epoch=1.0,
        gradient_norm=1.25,
        gradient_norm_last_batch=1.5,
        parameter_change=1e-3,
        parameter_change_published=2e-3,
        parameter_change_per_tensor={"fc.weight": 1e-3},
        energy=reading_of(),
        grid=Grid(grams_per_kwh=56.0, name="France", code="FRA", year=2023, source="a table"),
        versions={"resque": "0.1.0"},
        labels={"shift": "blur"},
        curve=CURVE,
    )
    return replace(whole, **changes)
