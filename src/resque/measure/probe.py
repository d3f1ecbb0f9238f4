"""A few timed and metered training steps on a copy of the model: what a step costs here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resque.errors import InputError
from resque.history.records import (
    DataSizes,
    EnergyReading,
    Hardware,
    Recipe,
    fields_of,
    reading_from_dict,
    reading_to_dict,
)
from resque.measure.batches import TrainingData
from resque.measure.energy import open_meter
from resque.measure.machine import hardware_of
from resque.measure.measures import parameter_change
from resque.measure.retrain import started
from resque.measure.training import Training, most_steps
from resque.representation.stream import device_of, same_random_state

if TYPE_CHECKING:
    from resque.measure.energy import Meter

FEWEST_STEPS = 5
# Long enough for each block to be several times the step of any counter; where the asked-for
# steps are over sooner, more are timed, up to a limit.
_LEAST_SECONDS = 2.0
_MOST_STEPS = 2000
_SPREADS = (
    "seconds_per_step", "joules_per_step", "seconds_per_validation", "joules_per_validation",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A number measured several times.

    Attributes:
        median: of the measurements.
        least: of them.
        greatest: of them.
    """

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, measured: list[float]) -> Spread:
        """Return the spread of at least one measurement."""
        return cls(median=statistics.median(measured), least=min(measured), greatest=max(measured))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a few training steps cost on this machine, and what they did.

    Attributes:
        steps: timed steps; those of the warm-up are not among them. More than asked for where
            these were too short for a meter.
        warmup: steps before, which paid for caches, compilation and clocks.
        seconds_per_step: over blocks of steps.
        joules_per_step: likewise; None where the blocks were too short for the meter.
        seconds_per_validation: of one pass over the validation data.
        joules_per_validation: likewise.
        modelled: whether the joules are of a model and not of a counter: little but a clock.
        energy: the reading of all timed steps.
        losses: training loss of each step asked for, warm-up included, in order.
        loss_slope: change of the training loss per step, by least squares over `losses`.
        gradient_norm_first: of the very first step.
        gradient_norm: mean over the same steps as `losses`.
        parameter_change: root mean square change of all trained parameters by these steps.
        recipe: with which the steps were made.
        data: sizes of the data.
        hardware: the machine.
        accuracy_before: on the validation data, before the first step; None without them.

    Example:
        >>> data = torch.randn(64, 4), torch.arange(64) % 2
        >>> found = probe(nn.Linear(4, 2), data, steps=10, meter="none")
        >>> found.steps >= 10, len(found.losses), found.joules_per_step
        (True, 15, None)
    """

    steps: int
    warmup: int
    seconds_per_step: Spread
    joules_per_step: Spread | None
    seconds_per_validation: Spread | None
    joules_per_validation: Spread | None
    modelled: bool
    energy: EnergyReading
    losses: tuple[float, ...]
    loss_slope: float
    gradient_norm_first: float
    gradient_norm: float
    parameter_change: float
    recipe: Recipe
    data: DataSizes
    hardware: Hardware
    accuracy_before: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the probe as plain JSON types."""
        found = fields_of(self)
        for name in (*_SPREADS, "recipe", "data", "hardware"):
            record = getattr(self, name)
            found[name] = record and fields_of(record)
        found["energy"] = reading_to_dict(self.energy)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Probe:
        """Return the probe that `to_dict` wrote.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is missing or unknown.
        """
        found = dict(values)
        for name in _SPREADS:
            found[name] = found[name] and Spread(**found[name])
        data = dict(found["data"])
        data["class_names"] = tuple(data["class_names"])
        found["data"] = DataSizes(**data)
        found["recipe"] = Recipe(**found["recipe"])
        found["hardware"] = Hardware(**found["hardware"])
        found["energy"] = reading_from_dict(found["energy"])
        found["losses"] = tuple(found["losses"])
        return cls(**found)

    def __str__(self) -> str:
        def told(spread: Spread | None, unit: str) -> str:
            if spread is None:
                return f"no {unit}: too short for the meter, or no meter"
            modelled = " modelled" if self.modelled and unit == "J" else ""
            reach = f"{spread.least:.4g} to {spread.greatest:.4g}"
            return f"{spread.median:.4g} {unit}{modelled} ({reach})"

        per_step = told(self.seconds_per_step, "s"), told(self.joules_per_step, "J")
        lines = [f"a step: {', '.join(per_step)}"]
        if self.seconds_per_validation is not None:
            lines.append(
                f"a validation: {told(self.seconds_per_validation, 's')}, "
                f"{told(self.joules_per_validation, 'J')}"
            )
        lines.append(
            f"loss {self.losses[0]:.4g} to {self.losses[-1]:.4g} in {len(self.losses)} steps, "
            f"gradient norm {self.gradient_norm_first:.4g} at first"
        )
        return "\n".join([*lines, f"{self.energy.meter} on {self.hardware.name}"])


def probe(
    model: nn.Module,
    training: Any,
    validation: Any = None,
    *,
    recipe: Recipe | None = None,
    steps: int = 20,
    warmup: int = 5,
    meter: Meter | str = "codecarbon",
    untrained: Callable[[], nn.Module] | None = None,
    class_names: Sequence[str] | None = None,
    workers: int = 0,
) -> Probe:
    """Return what a training step and a validation cost here, from a few of them on a copy.

    The steps are those that `retrain` would begin with: same data order, same start. The first
    ones, which pay for caches and clocks, are never timed. The model, its optimiser, the order
    of the user's data and the random states are left as they were.

    Args:
        model: as for `retrain`.
        training: likewise.
        validation: likewise; None times no validation.
        recipe: likewise.
        steps: steps to time, at least 5; for a meter, more where these take less than 2 s.
        warmup: steps before, at least 1.
        meter: see `open_meter`.
        untrained: as for `retrain`.
        class_names: likewise.
        workers: likewise.

    Raises:
        InputError: model or data cannot be used, or too few steps are asked for.

    Example:
        >>> data = torch.randn(64, 4), torch.arange(64) % 2
        >>> probe(nn.Linear(4, 2), data, data, meter="none").seconds_per_validation.median > 0
        True
    """
    if steps < FEWEST_STEPS or warmup < 1:
        raise InputError(
            f"A probe needs at least {FEWEST_STEPS} steps and 1 of warm-up; got {steps} and "
            f"{warmup}."
        )
    recipe = recipe or Recipe()
    data = TrainingData.of(
        training,
        training if validation is None else validation,
        recipe,
        class_names=class_names,
        workers=workers,
    )
    device = device_of(model)
    opened = open_meter(meter)
    try:
        with same_random_state(device), data.undisturbed():
            student, head = started(model, recipe, data, untrained)
            data.to(device)
            run = Training(student, recipe, most_steps(recipe, data.sizes.steps_per_epoch), head)
            run.train()
            return _probed(run, data, opened, steps, warmup, validated=validation is not None)
    finally:
        if opened is not meter:
            opened.close()


def _probed(
    run: Training, data: TrainingData, meter: Meter, steps: int, warmup: int, *, validated: bool
) -> Probe:
    trained = {n: p for n, p in run.model.named_parameters() if p.requires_grad}
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    batches = _endless(data, run.recipe.seed)
    losses: list[Tensor] = []
    norms: list[Tensor] = []

    def step() -> None:
        loss, norm = run.backward(*next(batches))
        losses.append(loss)
        norms.append(norm)
        run.step()

    # Its first pass warms the validation up; the timed ones come after the steps.
    accuracy_before = run.validate(data.validated())[0] if validated else None
    for _ in range(warmup // 2):
        step()
    # The first steps are slow, and would foretell too few.
    with meter.window("warm-up") as window:
        for _ in range(warmup - warmup // 2):
            step()
    each = window.seconds / (warmup - warmup // 2)
    wanted = math.ceil(_LEAST_SECONDS / max(each, 1e-9)) if meter.describe() else 0
    timed = max(steps, min(wanted, _MOST_STEPS))
    sizes = [len(block) for block in torch.arange(timed).tensor_split(FEWEST_STEPS)]
    readings = []
    change = None
    with meter.window("probe") as whole:
        for size in sizes:
            with meter.window("steps") as window:
                for _ in range(size):
                    step()
                    if len(losses) == warmup + steps:
                        change = parameter_change(start, trained)
            readings.append(window.reading)
    validations = []
    if validated:
        for _ in range(2):
            with meter.window("validation") as window:
                run.validate(data.validated())
            validations.append(window.reading)
    values = [loss.item() for loss in losses[: warmup + steps]]
    if not all(map(math.isfinite, values)):
        raise InputError(
            f"The training loss became {values[-1]} within {warmup + steps} steps, so that there "
            "is nothing to foretell from them. Lower the learning rate "
            f"({run.recipe.learning_rate:g})."
        )
    norms = norms[: warmup + steps]
    reading = whole.reading
    blocks = _per([r.joules for r in readings], sizes)
    return Probe(
        steps=sum(sizes),
        warmup=warmup,
        seconds_per_step=Spread.of([r.seconds / n for r, n in zip(readings, sizes, strict=True)]),
        # Where a block is too short for the meter, all of them together may be long enough.
        joules_per_step=blocks or _per([reading.joules], [sum(sizes)]),
        seconds_per_validation=Spread.of([r.seconds for r in validations]) if validated else None,
        joules_per_validation=_per([r.joules for r in validations], [1, 1]) if validated else None,
        modelled=reading.modelled,
        energy=reading,
        losses=tuple(values),
        loss_slope=statistics.linear_regression(range(len(values)), values).slope,
        gradient_norm_first=norms[0].item(),
        gradient_norm=statistics.fmean(norm.item() for norm in norms),
        parameter_change=change.value if change else 0.0,
        recipe=run.recipe,
        data=data.sizes,
        hardware=hardware_of(run.device),
        accuracy_before=accuracy_before,
    )


def _per(joules: list[float | None], counts: list[int]) -> Spread | None:
    known = [j / n for j, n in zip(joules, counts, strict=True) if j is not None]
    return Spread.of(known) if len(known) == len(counts) else None


def _endless(data: TrainingData, seed: int) -> Iterator[tuple[Any, Any]]:
    epoch = 0
    while True:
        yield from data.epoch(seed, epoch)
        epoch += 1
