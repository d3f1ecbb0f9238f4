"""Fills an `Update` while a loop trains: our own, the user's, or another framework's."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resque.errors import InputError
from resque.history.records import (
    DataSizes,
    EnergyReading,
    Grid,
    Plateau,
    Recipe,
    Target,
    checked_target,
)
from resque.history.update import Ended, Point, Update
from resque.measure.batches import labels_of
from resque.measure.carbon import grid as grid_of
from resque.measure.energy import open_meter
from resque.measure.machine import hardware_of
from resque.measure.measures import (
    Convergence,
    ParameterChange,
    gradient_norm,
    parameter_change,
)
from resque.representation.signature import Signature, hardware_name, installed_version
from resque.representation.stream import device_of, name_of_model, unwrapped
from resque.representation.tap import weights_digest

if TYPE_CHECKING:
    from resque.measure.energy import Meter, Window

# The loss is looked at this often on a GPU, where each look waits for all that is queued.
_STEPS_BETWEEN_LOOKS = 20
# Other work that keeps more of the machine busy than this is worth a note.
_NOTABLE_LOAD = 0.1


class Diverged(Exception):  # noqa: N818  # no error of the user's: it ends an update
    """The loss is no number any more."""


@dataclass(slots=True)
class _Mean:
    """The mean of numbers that come one by one."""

    total: float = 0.0
    count: int = 0

    def add(self, number: float) -> None:
        self.total += number
        self.count += 1

    @property
    def value(self) -> float | None:
        return _finite(self.total / self.count) if self.count else None

    @property
    def parts(self) -> tuple[float, int]:
        return self.total, self.count


class Recorder:
    """Measures an update while a loop trains; made by `recording`.

    Call `step` once per optimiser step, when the gradients are there and not yet cleared, and
    `validation` once per validation. The update is there when the `with` block has ended. Once
    it has ended, by its target or otherwise, further calls change nothing: its measures are those
    of that moment, even where the loop trains on.

    Attributes:
        points: one per validation so far.
        steps: optimiser steps so far.
        ended: why the update has ended; None while it goes on.

    Example:
        >>> loader = torch.utils.data.DataLoader([(torch.ones(2), 0), (torch.zeros(2), 1)])
        >>> model = nn.Linear(2, 2)
        >>> with recording(model, loader, loader, meter="none") as recorder:
        ...     nn.functional.cross_entropy(model(torch.ones(1, 2)), torch.tensor([0])).backward()
        ...     recorder.step()
        >>> recorder.update.epochs, recorder.update.ended
        (0.5, 'max_epochs')
    """

    points: list[Point]
    steps: int
    ended: Ended | None

    def __init__(
        self,
        model: nn.Module,
        *,
        target: Target,
        data: DataSizes,
        recipe: Recipe | None,
        meter: Meter,
        grid: Grid | None,
        model_name: str | None = None,
        preprocessing: str | None = None,
        concurrency: int = 1,
        index: Mapping[str, Any] | None = None,
        preflight: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        checked_target(target)
        inner = unwrapped(model)
        assert inner is not None  # noqa: S101  # narrows the type: a module was given
        self.model, self.target, self.data, self.recipe = inner, target, data, recipe
        self.meter, self.grid, self.concurrency = meter, grid, concurrency
        self.points, self.steps, self.ended = [], 0, None
        self.notes: list[str] = []
        self.interruptions = 0
        self._index, self._preflight = _as_plain("index", index), _as_plain("preflight", preflight)
        self._labels = {str(key): str(value) for key, value in (labels or {}).items()}
        self._convergence = Convergence(target)
        self._device = device_of(inner)
        self._trained = {n: p for n, p in inner.named_parameters() if p.requires_grad}
        if not self._trained:
            raise InputError(
                "The model has no parameter that is trained: each has requires_grad=False."
            )
        self._start = self._copied()
        self._last = self._start
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._model_name, self._preprocessing = model_name or name_of_model(inner), preprocessing
        self._weights = weights_digest(dict(inner.named_modules()))
        self._examples = 0
        # Norms and losses of steps that were not looked at yet: a GPU is not waited for each step.
        self._unseen: list[tuple[Tensor, Tensor | None]] = []
        self._norms = _Mean()
        self._norms_at_point, self._losses_at_point = _Mean(), _Mean()
        self._norm_last: float | None = None
        self._outputs = 0
        self._steps_at_point = 0
        self._change: ParameterChange | None = None
        self._windows: dict[str, Window] = {}  # each adds up what it is opened for
        self._open_windows: dict[str, None] = {}
        self._told_apart = True
        self._begin()

    # --- what a loop calls -----------------------------------------------------------------

    def step(
        self, loss: Any = None, *, examples: int | None = None, norm: Tensor | None = None
    ) -> None:
        """Record one optimiser step: call it between `backward()` and `zero_grad()`.

        Args:
            loss: of the step, a number or a scalar tensor.
            examples: examples in the step; by default the batch size, and in the last step of
                an epoch what is left.
            norm: global L2 norm of the gradient, for a loop that has clipped it already; by
                default it is taken from the gradients.

        Raises:
            Diverged: the loss is not finite.
        """
        if self.ended is not None:
            return
        if norm is None:
            norm = self._norm_of_step()
        self._examples += self._examples_of_step() if examples is None else examples
        self.steps += 1
        given = None if loss is None else torch.as_tensor(loss).detach()
        self._unseen.append((norm.detach(), given))
        on_cpu = self._device.type == "cpu"
        if on_cpu or self.steps % _STEPS_BETWEEN_LOOKS == 0:
            self._look()

    def validation_begins(self) -> None:
        """Say that validation begins here, so that its energy is told apart from training's."""
        if self.ended is not None or "validation" in self._open_windows:
            return
        self._close("training")
        self._open("validation")

    def validation(
        self, accuracy: float, loss: float | None = None, *, epoch: float | None = None
    ) -> bool:
        """Record the result of one validation and return whether the target is met.

        A call before the first step records what the model could do before training.

        Args:
            accuracy: on the validation data, 0 to 1.
            loss: mean cross-entropy on them.
            epoch: epochs trained so far; by default steps / steps per epoch.

        Raises:
            InputError: the accuracy is none.
            Diverged: the training loss or a parameter is not finite.
        """
        if self.ended is not None:
            return self.ended in ("target", "plateau")
        accuracy = float(accuracy)
        if not 0 <= accuracy <= 1:
            raise InputError(f"An accuracy must be 0 to 1; got {accuracy:g}.")
        self._look()
        trained = self.steps - self._steps_at_point
        if self.steps == 0:
            # What is known before training is no cost of it.
            self._forget(*self._windows)
            self._begin()
        elif "validation" in self._open_windows:
            self._close("validation")
        else:
            self._told_apart = False
            self._close("training")
        if epoch is None:
            epoch = self.steps / self.data.steps_per_epoch
        self.points.append(self._point(accuracy, loss, float(epoch), trained))
        self._norms_at_point, self._losses_at_point = _Mean(), _Mean()
        self._steps_at_point = self.steps
        if self._change is not None and not math.isfinite(self._change.value):
            self.end("diverged")
            raise Diverged
        if self._convergence.met_by(float(epoch), accuracy):
            self.end("plateau" if isinstance(self.target, Plateau) else "target")
            return True
        if self.steps:
            self._forget("point")
            self._open("training")
            self._open("point")
        return False

    def has_classes(self, outputs: int) -> None:
        """Take the model's outputs for the number of classes where the data did not tell it."""
        self._outputs = outputs
        if not self.data.classes:
            self.data = replace(self.data, classes=outputs)

    # --- the end ---------------------------------------------------------------------------

    def end(self, ended: Ended) -> None:
        """Say why the update has ended, if it has not ended before."""
        self._close_all()
        if self.ended is None:
            self.ended = ended if self._see() else "diverged"
            if not self._at_point():
                self._change = parameter_change(self._start, self._trained)

    @property
    def update(self) -> Update:
        """The update, once it has ended.

        Raises:
            InputError: it has not ended.
        """
        if self.ended is None:
            raise InputError("The update has not ended: it is there after the `with` block.")
        first = self.points[0] if self.points and self.points[0].steps == 0 else None
        best = max(self.points, key=lambda point: point.accuracy, default=None)
        norms = [p.gradient_norm_last_batch for p in self.points]
        last_norms = [norm for norm in norms if norm is not None]
        whole = self._reading("update")
        energy = whole if whole.components and self.steps else None
        change = self._change
        epochs = self.steps / self.data.steps_per_epoch
        return Update(
            started=self._started,
            signature=self._signature(),
            target=self.target,
            ended=self.ended,
            recipe=self.recipe,
            data=self.data,
            hardware=hardware_of(self._device),
            parameters=sum(p.numel() for p in self.model.parameters()),
            trained_parameters=sum(p.numel() for p in self._trained.values()),
            epochs=self.points[-1].epoch if self.points and self._at_point() else epochs,
            steps=self.steps,
            examples_seen=self._examples,
            duration_s=whole.seconds if self.steps else 0.0,
            accuracy_before=first.accuracy if first else None,
            loss_before=first.validation_loss if first else None,
            peak_accuracy=best.accuracy if best else None,
            peak_epoch=best.epoch if best else None,
            gradient_norm=self._norms.value,
            gradient_norm_last_batch=math.fsum(last_norms) / len(last_norms)
            if last_norms
            else None,
            parameter_change=_finite(change.value) if change else 0.0,
            parameter_change_published=_finite(change.published) if change else 0.0,
            parameter_change_per_tensor={
                name: value for name, value in change.per_tensor.items() if math.isfinite(value)
            }
            if change
            else {},
            energy=energy,
            training_energy=self._part("training"),
            validation_energy=self._part("validation"),
            grid=self.grid,
            concurrency=self.concurrency,
            interruptions=self.interruptions,
            index=self._index,
            preflight=self._preflight,
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "resque": installed_version(),
            },
            labels=self._labels,
            notes=(*self.notes, *self._notes(energy)),
            curve=tuple(self.points),
        )

    # --- interruption ----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that a later run needs to go on, as tensors and plain types."""
        for name in self._close_all():
            self._open(name)
        self._look()
        return {
            "points": [_plain(p) for p in self.points],
            "steps": self.steps,
            "ended": self.ended,
            "started": self._started,
            "examples": self._examples,
            "notes": list(self.notes),
            "interruptions": self.interruptions,
            "norms": self._norms.parts,
            "norms_at_point": self._norms_at_point.parts,
            "losses_at_point": self._losses_at_point.parts,
            "norm_last": self._norm_last,
            "steps_at_point": self._steps_at_point,
            "told_apart": self._told_apart,
            "last": {name: t.cpu().clone() for name, t in self._last.items()},
            "windows": {name: window.counted() for name, window in self._windows.items()},
            "metered_by": self._metered_by(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; the weights are the caller's to put back.

        Raises:
            InputError: it was metered in another way, or on another machine.
        """
        was, now = state["metered_by"], self._metered_by()
        if was != now:
            raise InputError(
                f"The update was begun with {_told(was)}; this is {_told(now)}, and their energies "
                "cannot be added. Go on with the former, or delete the checkpoint to start anew."
            )
        self._forget(*self._windows)
        for name, counted in state["windows"].items():
            self._windows[name] = self.meter.window(name, counted)
        self.points = []
        for values in state["points"]:
            point = Point(**values)
            self.points.append(point)
            self._convergence.met_by(point.epoch, point.accuracy)
        self.steps, self.ended = state["steps"], state["ended"]
        self._started, self._examples = state["started"], state["examples"]
        self.notes = list(state["notes"])
        # A run that had ended is only read again.
        self.interruptions = state["interruptions"] + (self.ended is None)
        self._norms = _Mean(*state["norms"])
        self._norms_at_point = _Mean(*state["norms_at_point"])
        self._losses_at_point = _Mean(*state["losses_at_point"])
        self._norm_last = state["norm_last"]
        self._steps_at_point, self._told_apart = state["steps_at_point"], state["told_apart"]
        self._last = {name: t.to(self._device) for name, t in state["last"].items()}
        if self.points and self.steps:
            self._change = parameter_change(self._start, self._trained)
        if self.ended is None:
            self._begin()

    # --- inside ----------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        if name not in self._windows:
            self._windows[name] = self.meter.window(name)
        self._windows[name].start()
        self._open_windows[name] = None

    def _close(self, name: str) -> None:
        if name in self._open_windows:
            self._windows[name].stop()
            del self._open_windows[name]

    def _close_all(self) -> list[str]:
        """Close what is open and return the names."""
        names = list(self._open_windows)
        for name in names:
            self._close(name)
        return names

    def _forget(self, *names: str) -> None:
        for name in names:
            self._close(name)
            self._windows.pop(name, None)

    def _reading(self, name: str) -> EnergyReading:
        """Return what a window read; it must have been open."""
        return replace(self._windows[name].reading, resumed=self.interruptions > 0)

    def _part(self, name: str) -> EnergyReading | None:
        there = self._told_apart and self.steps and name in self._windows
        return self._reading(name) if there else None

    def _metered_by(self) -> dict[str, Any]:
        gauges = [[g.name, g.source, g.counted] for g in self.meter.describe()]
        return {
            "meter": self.meter.name,
            "calibration": self.meter.calibration,
            "gauges": gauges,
            "hardware": hardware_name(self._device),
        }

    def _begin(self) -> None:
        # One window round everything: the parts may be too short for the meter, it is not.
        for name in ("update", "point", "training"):
            self._open(name)

    def _at_point(self) -> bool:
        return self._steps_at_point == self.steps

    def _point(self, accuracy: float, loss: float | None, epoch: float, trained: int) -> Point:
        common: dict[str, Any] = {"epoch": epoch, "steps": self.steps, "accuracy": accuracy}
        if loss is not None:
            common["validation_loss"] = _finite(float(loss))
        if not trained:
            return Point(**common)
        self._change = parameter_change(self._start, self._trained)
        since_last = parameter_change(self._last, self._trained)
        if self._last is self._start:
            self._last = self._copied()
        else:
            for name, parameter in self._trained.items():
                self._last[name].copy_(parameter.detach())
        assert self._change is not None and since_last is not None  # noqa: S101, PT018  # narrows
        self._close("point")
        reading = self._reading("point")
        return Point(
            **common,
            training_loss=self._losses_at_point.value,
            gradient_norm=self._norms_at_point.value,
            gradient_norm_last_batch=self._norm_last,
            parameter_change=_finite(self._change.value),
            parameter_change_since_last=_finite(since_last.value),
            parameter_change_published=_finite(self._change.published),
            parameter_change_published_since_last=_finite(since_last.published),
            seconds=reading.seconds,
            joules=reading.joules if self.concurrency == 1 else None,
        )

    def _examples_of_step(self) -> int:
        data = self.data
        left = data.training_examples - data.batch_size * (data.steps_per_epoch - 1)
        last = (self.steps + 1) % data.steps_per_epoch == 0
        return left if last and 0 < left < data.batch_size else data.batch_size

    def _norm_of_step(self) -> Tensor:
        # Whether it is all zeros is asked later, when its norm is looked at: a GPU would be waited
        # for here.
        if all(parameter.grad is None for parameter in self._trained.values()):
            self._told_of_no_gradient()
            return torch.tensor(math.nan)
        return gradient_norm(self._trained.values())

    def _told_of_no_gradient(self) -> None:
        note = (
            "A step was recorded without a gradient, or with one of zeros: call recorder.step "
            "between backward() and zero_grad()."
        )
        self.notes += [] if note in self.notes else [note]

    def _look(self) -> None:
        if not self._see():
            self.end("diverged")
            raise Diverged

    def _see(self) -> bool:
        """Add up what has not been looked at, and return whether all losses are finite."""
        unseen, self._unseen = self._unseen, []
        norms = _numbers([norm for norm, _ in unseen])
        losses = _numbers([loss for _, loss in unseen if loss is not None])
        for norm in norms:
            if norm == 0:
                self._told_of_no_gradient()
            self._norm_last = _finite(norm)
            # A gradient scaler skips the steps whose gradient overflowed, the first ones as a rule.
            if math.isfinite(norm):
                self._norms.add(norm)
                self._norms_at_point.add(norm)
        for loss in losses:
            self._losses_at_point.add(loss)
        return all(map(math.isfinite, losses))

    def _copied(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._trained.items()}

    def _signature(self) -> Signature:
        dtype = str(next(iter(self._trained.values())).dtype).removeprefix("torch.")
        autocast = self.recipe.autocast if self.recipe else None
        return Signature(
            model=self._model_name,
            weights=self._weights,
            layer="output",
            pooling="none",
            preprocessing=self._preprocessing,
            width=self._outputs or self.data.classes,
            class_names=self.data.class_names or tuple(map(str, range(self.data.classes))),
            examples=(self.data.training_examples, self.data.validation_examples),
            dtype=dtype + (f" (autocast {autocast})" if autocast else ""),
            groups=None,
            seed=self.recipe.seed if self.recipe else None,
            hardware=hardware_name(self._device),
            version=installed_version(),
        )

    def _notes(self, energy: EnergyReading | None) -> Iterator[str]:
        if self.ended == "diverged":
            yield (
                f"The loss was no number after {self.steps} steps, and the update ended there. "
                "Try a lower learning rate."
            )
        if self.ended in ("target", "plateau") and self.steps == 0:
            yield (
                f"The model already reaches {self.points[0].accuracy:.4f} on the validation data, "
                f"so the target ({self.target}) cost nothing: zero epochs."
            )
        if self.steps and not any(point.steps for point in self.points):
            yield (
                f"No validation was recorded while it trained, so whether it met its target "
                f"({self.target}) is not known."
            )
        if self.meter.failure is not None:
            yield f"The meter failed on the way ({self.meter.failure}); its joules are not known."
        if energy is None:
            return
        if energy.modelled and energy.joules is not None:
            yield (
                "The energy is modelled: no counter was there for all of it, so it is little more "
                f"than a clock (±{energy.relative_error or 0:.0%}). `resque doctor` says what is "
                "missing."
            )
        if energy.other_load is not None and energy.other_load > _NOTABLE_LOAD:
            yield (
                f"Other work kept {energy.other_load:.0%} of the machine busy meanwhile; a meter "
                "of the whole machine bills it too."
            )


@contextmanager
def recording(
    model: nn.Module,
    training: Any = None,
    validation: Any = None,
    *,
    target: Target | None = None,
    data: DataSizes | None = None,
    recipe: Recipe | None = None,
    meter: Meter | str = "codecarbon",
    grid: float | str | Grid | None = None,
    class_names: Sequence[str] = (),
    model_name: str | None = None,
    preprocessing: str | None = None,
    concurrency: int = 1,
    index: Mapping[str, Any] | None = None,
    preflight: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Iterator[Recorder]:
    """Give a recorder that measures the update which the block trains, in the user's own loop.

    The loop calls `recorder.step(loss)` between `backward()` and `zero_grad()`, and
    `recorder.validation(accuracy, loss)` after each validation, which returns whether the target
    is met; once before the first step, too, to record what the model could do before. Afterwards
    `recorder.update` is the `Update`. Gradients that a GradScaler has scaled must be unscaled
    first; where they are clipped, give `step` the norm before, which `clip_grad_norm_` returns.
    A loss that is no number ends the block, and the update as diverged.

    Args:
        model: the model that is trained; one parameter or more with requires_grad.
        training: the DataLoader of the training data, for their sizes.
        validation: that of the validation data, likewise.
        target: what is to end the update; by default a plateau. The loop decides whether it
            stops there.
        data: the sizes, where there are no loaders.
        recipe: how the model is trained, for the record.
        meter: see `open_meter`.
        grid: see `grid`.
        class_names: names of the classes, in the order of the model's outputs.
        model_name: name of the model in the signature.
        preprocessing: what was done to the inputs, for the signature.
        concurrency: updates that run on this machine at the same time, this one included.
        index: the index before training, as its `to_dict` gives it.
        preflight: all that was known before training, likewise.
        labels: words to find the update by, such as {"shift": "blur"}.

    Raises:
        InputError: the sizes cannot be told, or a value is unusable.

    Example:
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> loader = torch.utils.data.DataLoader(list(zip(x, y)), batch_size=16)
        >>> model = nn.Linear(2, 2)
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> with recording(model, loader, loader, target=Plateau(patience=2), meter="none") as rec:
        ...     for _ in range(20):
        ...         for inputs, labels in loader:
        ...             optimiser.zero_grad()
        ...             loss = nn.functional.cross_entropy(model(inputs), labels)
        ...             loss.backward()
        ...             rec.step(loss)
        ...             optimiser.step()
        ...         if rec.validation((model(x).argmax(1) == y).float().mean()):
        ...             break
        >>> rec.update.reached
        True
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"The model must be a torch.nn.Module; got {type(model).__name__}.")
    if target is not None:
        checked_target(target)
    if concurrency < 1:
        raise InputError(f"concurrency counts this update too, so 1 or more; got {concurrency}.")
    sizes = data or sizes_of(training, validation, tuple(class_names))
    opened = open_meter(meter)
    try:
        recorder = Recorder(
            model,
            target=target or Plateau(),
            data=sizes,
            recipe=recipe,
            meter=opened,
            grid=grid_of(grid),
            model_name=model_name,
            preprocessing=preprocessing,
            concurrency=concurrency,
            index=index,
            preflight=preflight,
            labels=labels,
        )
        try:
            yield recorder
        except Diverged:
            pass
        except BaseException:
            recorder.end("interrupted")
            raise
        recorder.end("max_epochs")
    finally:
        if opened is not meter:
            opened.close()


def sizes_of(training: Any, validation: Any, class_names: tuple[str, ...] = ()) -> DataSizes:
    """Return the sizes of two loaders.

    Raises:
        InputError: a loader does not say how long it is.
    """
    try:
        steps = len(training)
        # A sampler may draw fewer examples than there are, or more.
        drawn = len(getattr(training, "sampler", training.dataset))
        batch_size = training.batch_size or math.ceil(drawn / max(steps, 1))
        validated = len(validation.dataset) if validation is not None else 0
        # A list of two examples looks like (inputs, labels).
        labels = labels_of(training) if isinstance(training.dataset, Dataset) else None
    except (TypeError, AttributeError) as error:
        raise InputError(
            "The sizes of the data cannot be told; give the training and the validation loader, "
            f"or data=resque.DataSizes(...). Got {type(training).__name__} and "
            f"{type(validation).__name__}."
        ) from error
    if not steps:
        raise InputError("The training loader has no batches.")
    names = class_names or tuple(map(str, getattr(training.dataset, "classes", ())))
    return DataSizes(
        training_examples=min(drawn, steps * batch_size),
        validation_examples=validated,
        batch_size=batch_size,
        steps_per_epoch=steps,
        classes=len(names) if names or labels is None else int(labels.max()) + 1,
        class_names=names,
    )


def _as_plain(name: str, given: Any) -> dict[str, Any] | None:
    """Return a result as plain JSON types, or say before the training that it is none."""
    if given is None:
        return None
    found = given.to_dict() if hasattr(given, "to_dict") else given
    try:
        plain: Any = json.loads(json.dumps(found, allow_nan=False))
        if isinstance(plain, dict):
            return plain
        reason = f"it is a {type(given).__name__}"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise InputError(f"{name} must be what `to_dict` of a result gives ({reason}).")


def _told(metered_by: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{name} by {source}" for name, source, _ in metered_by["gauges"])
    calibration = f", calibrated by {c}" if (c := metered_by["calibration"]) else ""
    return (
        f"{metered_by['meter']} ({parts or 'no energy'}{calibration}) on {metered_by['hardware']}"
    )


def _numbers(scalars: list[Tensor]) -> list[float]:
    """Return scalar tensors as numbers, in one transfer where there are several on a GPU."""
    if len(scalars) < 2:
        return [scalar.item() for scalar in scalars]
    device = scalars[0].device
    numbers: list[float] = torch.stack([scalar.float().to(device) for scalar in scalars]).tolist()
    return numbers


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(point: Point) -> dict[str, Any]:
    return {name: getattr(point, name) for name in Point.__slots__}
