"""The records that an update is made of: target, recipe, data, hardware, energy and grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from resque.errors import InputError, nearest

JOULES_PER_KWH = 3.6e6

EnergySource = Literal["counter", "model", "constant"]
Start = Literal["weights", "head", "scratch"]
Optimiser = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "linear"]
Augmentation = Literal["none", "flip", "flip_crop", "published"]
Frozen = Literal["none", "body"]
Autocast = Literal["bfloat16", "float16"]


# --- what ends an update -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A target: train until this accuracy is reached on the validation data.

    Attributes:
        value: accuracy, above 0 and at most 1.

    Raises:
        InputError: the value is not such a number.

    Example:
        >>> str(Accuracy(0.92))
        'accuracy 0.92'
    """

    value: float

    def __post_init__(self) -> None:
        if not _is_number(self.value) or not 0 < self.value <= 1:
            hint = (
                f" For {self.value:g} % say {self.value / 100:g}."
                if _is_number(self.value) and 1 < self.value <= 100
                else ""
            )
            raise InputError(
                f"A target accuracy must be above 0 and at most 1; got {self.value!r}.{hint}"
            )

    def __str__(self) -> str:
        return f"accuracy {self.value:g}"


@dataclass(frozen=True, slots=True)
class Plateau:
    """A target: train until validation accuracy stops rising (early stopping).

    Attributes:
        patience: epochs without a rise after which training ends.
        min_delta: least rise in accuracy that counts as one.

    Raises:
        InputError: the patience is not above 0, or `min_delta` not in [0, 1).

    Example:
        >>> str(Plateau(patience=3))
        'plateau (patience 3, min_delta 0.001)'
    """

    patience: float = 5.0
    min_delta: float = 0.001

    def __post_init__(self) -> None:
        if not _is_number(self.patience) or self.patience <= 0:
            raise InputError(f"patience must be above 0 epochs; got {self.patience!r}.")
        if not _is_number(self.min_delta) or not 0 <= self.min_delta < 1:
            raise InputError(f"min_delta must be 0 or more and below 1; got {self.min_delta!r}.")

    def __str__(self) -> str:
        return f"plateau (patience {self.patience:g}, min_delta {self.min_delta:g})"


Target = Accuracy | Plateau


def checked_target(target: Any) -> Target:
    """Return a target, or raise InputError where something else was given for one."""
    if isinstance(target, Accuracy | Plateau):
        return target
    hint = (
        f" For an accuracy of {target} say Accuracy({target})."
        if _is_number(target) and 0 < target <= 1
        else ""
    )
    raise InputError(f"target must be an Accuracy or a Plateau; got {target!r}.{hint}")


def target_to_dict(target: Target) -> dict[str, Any]:
    """Return a target as plain JSON types."""
    if isinstance(target, Accuracy):
        return {"kind": "accuracy", "value": target.value}
    return {"kind": "plateau", "patience": target.patience, "min_delta": target.min_delta}


def target_from_dict(values: dict[str, Any]) -> Target:
    """Return the target that `target_to_dict` wrote.

    Raises:
        TypeError: its fields are not those of its kind.
    """
    rest = {key: value for key, value in values.items() if key != "kind"}
    return Accuracy(**rest) if values["kind"] == "accuracy" else Plateau(**rest)


# --- how an update is done ---------------------------------------------------------------------


_CHOICES: dict[str, tuple[str, ...]] = {
    "start": get_args(Start),
    "optimiser": get_args(Optimiser),
    "schedule": get_args(Schedule),
    "augmentation": get_args(Augmentation),
    "frozen": get_args(Frozen),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How an update is trained.

    Attributes:
        start: where training starts: "weights", the model as it is; "head", the same with a
            fresh final classifier; "scratch", fresh weights throughout.
        optimiser: "adam", "adamw" or "sgd".
        learning_rate: at the start of the schedule.
        schedule: "constant", or "cosine" or "linear" down to 0 over `max_epochs`.
        weight_decay: of the optimiser.
        momentum: of "sgd".
        batch_size: examples per step; a DataLoader brings its own.
        augmentation: of images (channels, height, width): "none"; "flip", left to right;
            "flip_crop", and a shift by up to an eighth of the side; "published", flip, rotation
            and affine change as in the paper's scripts (needs torchvision).
        frozen: "none", or "body": only the final classifier is trained.
        seed: of the fresh weights, the order of the data, the augmentation and dropout.
        max_epochs: after these, an update that has not met its target is censored.
        validation_interval: epochs between validations; 0.25 for four in each epoch.
        autocast: "bfloat16" or "float16" to train under autocast; None for full precision.
        clip_norm: gradients are scaled down to this norm; None for no clipping.

    Raises:
        InputError: a value is none of these.

    Example:
        >>> Recipe(learning_rate=1e-4, max_epochs=20).optimiser
        'adam'
    """

    start: Start = "weights"
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    momentum: float = 0.9
    batch_size: int = 32
    augmentation: Augmentation = "none"
    frozen: Frozen = "none"
    seed: int = 0
    max_epochs: float = 50.0
    validation_interval: float = 1.0
    autocast: Autocast | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            given = getattr(self, name)
            if given not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; got {given!r}."
                    f"{nearest(str(given), allowed)}"
                )
        if self.autocast not in (None, *get_args(Autocast)):
            raise InputError(f"autocast must be bfloat16 or float16; got {self.autocast!r}.")
        for name in ("learning_rate", "max_epochs", "validation_interval"):
            _require(name, getattr(self, name), above=0)
        for name in ("weight_decay", "momentum"):
            _require(name, getattr(self, name), least=0)
        if self.clip_norm is not None:
            _require("clip_norm", self.clip_norm, above=0)
        for name, least in (("batch_size", 1), ("seed", 0)):
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or given < least:
                raise InputError(
                    f"{name} must be a whole number of {least} or more; got {given!r}."
                )
        if self.frozen == "body" and self.start == "scratch":
            raise InputError(
                "frozen='body' with start='scratch' would train a classifier on a network that "
                "knows nothing; use start='head', or freeze nothing."
            )


# --- on what -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSizes:
    """The size of the data of an update.

    Attributes:
        training_examples: examples trained on in one epoch.
        validation_examples: examples of the validation data.
        batch_size: examples per step.
        steps_per_epoch: steps of one epoch.
        classes: classes in the training data.
        class_names: their names, in the order of the model's outputs.

    Example:
        >>> sizes = DataSizes(
        ...     training_examples=600, validation_examples=100, batch_size=32, steps_per_epoch=19,
        ...     classes=10,
        ... )
        >>> sizes.steps_per_epoch
        19
    """

    training_examples: int
    validation_examples: int
    batch_size: int
    steps_per_epoch: int
    classes: int
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """The machine that an update ran on.

    Attributes:
        device: kind of torch device, such as "cpu" or "cuda".
        name: the device as its maker calls it.
        processor: the CPU likewise.
        cores: logical cores that this process may use.
        threads: threads of torch.
        memory_gb: of the machine, in 1e9 bytes.
        virtual: whether the machine is a virtual one; None where that cannot be told.

    Example:
        >>> Hardware(device="cpu", name="a CPU", processor="a CPU", cores=8, threads=4).threads
        4
    """

    device: str
    name: str
    processor: str
    cores: int
    threads: int
    memory_gb: float | None = None
    virtual: bool | None = None


# --- energy ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """The energy of one part of the machine in a window.

    Attributes:
        name: "cpu", "gpu", "ram", "dram" or "wall".
        joules: None where the window was too short for the counter to move.
        source: "counter", read from hardware; "model", computed from load and time; "constant",
            a fixed power times time.
        relative_error: error band, as a share of `joules`.
        counted: whether it is part of the total. Constants are not unless asked for.

    Example:
        >>> Component(name="gpu", joules=900.0, source="counter", relative_error=0.1).counted
        True
    """

    name: str
    joules: float | None
    source: EnergySource
    relative_error: float
    counted: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyReading:
    """The energy of a window of time, and where each joule comes from.

    Attributes:
        components: one entry per part of the machine that the meter knows.
        seconds: length of the window, on a monotonic clock.
        meter: name and version of the meter.
        other_load: share of the machine's cores, 0 to 1, that other processes kept busy: a
            meter of the whole machine bills their energy too. None where it is not known.
        calibration: name of the calibration that was applied; None without.
        resumed: whether the window spans an interruption; the time between is not in it.

    Example:
        >>> cpu = Component(name="cpu", joules=7200.0, source="counter", relative_error=0.05)
        >>> EnergyReading(components=(cpu,), seconds=60.0, meter="replay").kwh
        0.002
    """

    components: tuple[Component, ...]
    seconds: float
    meter: str
    other_load: float | None = None
    calibration: str | None = None
    resumed: bool = False

    @property
    def joules(self) -> float | None:
        """Sum of the components that count; None where one of them, or all, are unknown."""
        counted = [c.joules for c in self.components if c.counted]
        known = [joules for joules in counted if joules is not None]
        return math.fsum(known) if known and len(known) == len(counted) else None

    @property
    def kwh(self) -> float | None:
        """The same in kilowatt-hours."""
        return None if self.joules is None else self.joules / JOULES_PER_KWH

    @property
    def modelled(self) -> bool:
        """Whether any joule in the total comes from a model or a constant, not from a counter."""
        return any(c.counted and c.source != "counter" for c in self.components)

    @property
    def relative_error(self) -> float | None:
        """Error band of the total as a share, all components wrong to the same side."""
        if not self.joules:
            return None
        counted = [c for c in self.components if c.counted]
        return math.fsum(c.relative_error * (c.joules or 0) for c in counted) / self.joules


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How much carbon a kilowatt-hour costs, and who says so.

    Attributes:
        grams_per_kwh: grams of CO2 equivalent per kilowatt-hour.
        name: of the country or whatever the number stands for.
        code: ISO 3166-1 alpha-3 code of the country; None where a number was given.
        year: of the number; None where it is not known.
        source: where the number is from.
        pue: power usage effectiveness of the data centre: energy bought per energy used.

    Example:
        >>> str(Grid(grams_per_kwh=30.0, name="our own turbine", pue=1.2))
        '30 g CO2e/kWh (our own turbine, given), PUE 1.2'
    """

    grams_per_kwh: float
    name: str
    code: str | None = None
    year: int | None = None
    source: str = "given"
    pue: float = 1.0

    def kg_of(self, kwh: float) -> float:
        """Return the kilograms of CO2 equivalent of kilowatt-hours. method.md, equation 14."""
        return kwh * self.pue * self.grams_per_kwh / 1000

    def __str__(self) -> str:
        parts = [f"{self.grams_per_kwh:g} g CO2e/kWh ({self.name}"]
        parts += [f", {self.year}"] if self.year else []
        parts += [f", {self.source})"]
        return "".join(parts) + (f", PUE {self.pue:g}" if self.pue != 1 else "")


def fields_of(record: Any) -> dict[str, Any]:
    """Return the fields of a flat record as plain JSON types."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in fields(record)
        for value in [getattr(record, field.name)]
    }


def reading_to_dict(reading: EnergyReading) -> dict[str, Any]:
    """Return a reading as plain JSON types."""
    return fields_of(reading) | {"components": [fields_of(c) for c in reading.components]}


def reading_from_dict(values: dict[str, Any]) -> EnergyReading:
    """Return the reading that `reading_to_dict` wrote."""
    components = tuple(Component(**each) for each in values["components"])
    return EnergyReading(**(values | {"components": components}))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(name: str, value: Any, *, above: float | None = None, least: float = 0.0) -> None:
    if not _is_number(value) or (value <= above if above is not None else value < least):
        bound = f"above {above:g}" if above is not None else f"{least:g} or more"
        raise InputError(f"{name} must be a number {bound}; got {value!r}.")
