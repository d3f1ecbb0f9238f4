"""A training loop that can be read from top to bottom, and returns an `Update`."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from resque.errors import InputError, ResqueWarning
from resque.files import checked_output, written_whole
from resque.history.records import (
    Grid,
    Recipe,
    Target,
    checked_target,
    fields_of,
    target_to_dict,
)
from resque.history.update import Update
from resque.measure.batches import TrainingData
from resque.measure.checkpoint import load_checkpoint, save_checkpoint
from resque.measure.recorder import Diverged, Recorder, recording
from resque.measure.starting import (
    copied,
    final_classifier,
    with_fresh_head,
    with_fresh_weights,
)
from resque.measure.training import Training, most_steps, require_outputs
from resque.representation.stream import device_of, name_of_model, same_random_state, unwrapped
from resque.representation.tap import weights_digest

if TYPE_CHECKING:
    from resque.measure.energy import Meter


# A room further up; what it writes begins with this.
_FORMAT = "resque.Preflight/"


class _Preflight(Protocol):
    """A `resque.Preflight`."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Retrained:
    """What `retrain` returns.

    Attributes:
        update: the measured update.
        model: a copy of the model with the best weights, in eval mode.

    Example:
        >>> import torch
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> data = x, (x[:, 0] > 0).long()
        >>> from resque import Plateau
        >>> result = retrain(nn.Linear(2, 2), data, data, target=Plateau(1), meter="none")
        >>> sorted(result.weights)
        ['bias', 'weight']
    """

    update: Update
    model: nn.Module

    @property
    def weights(self) -> dict[str, Tensor]:
        """The best weights: those of the validation with the greatest accuracy, the first such."""
        return dict(self.model.state_dict())

    def save_weights(self, path: Path | str) -> None:
        """Write the best weights as a safetensors file, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors.torch import save_file

        checked_output(path)
        # Tied weights share memory, which the format has no word for.
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.weights.items()}
        with written_whole(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)


def retrain(
    model: nn.Module,
    training: Any,
    validation: Any,
    *,
    target: Target,
    recipe: Recipe | None = None,
    meter: Meter | str = "codecarbon",
    grid: float | str | Grid | None = None,
    checkpoint: Path | str | None = None,
    untrained: Callable[[], nn.Module] | None = None,
    class_names: Sequence[str] | None = None,
    model_name: str | None = None,
    preprocessing: str | None = None,
    concurrency: int = 1,
    index: Mapping[str, Any] | None = None,
    preflight: Mapping[str, Any] | _Preflight | None = None,
    labels: Mapping[str, str] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Retrained:
    """Train a copy of a model on new data until a target is met, and return what it cost.

    The model runs where it is; it and the random states are left as they were. Validation comes
    before the first step, then once every `recipe.validation_interval` epochs. The best weights
    are kept. An update that does not meet its target within `recipe.max_epochs` is censored and
    recorded as such. method.md, section 4; Sangarya and Kim, arXiv:2412.15511.

    Args:
        model: a classifier; with `Recipe(start="head")` any model, with "scratch" one whose
            weights are drawn anew.
        training: a pair of arrays (inputs (examples, ...), labels (examples,)), a Dataset, or a
            DataLoader, which keeps its own batches and order.
        validation: likewise; other examples than those of the training data.
        target: `Accuracy(0.92)` or `Plateau(patience=5)`.
        recipe: how to train; by default `Recipe()`.
        meter: "codecarbon", "zeus", "none", or a meter; see `open_meter`.
        grid: grams of CO2e per kWh, or a country such as "FRA"; None gives no carbon.
        checkpoint: file in which each epoch leaves its state. A run that finds one there goes on
            from it, with the same result as without the interruption; delete it afterwards.
        untrained: makes an untrained model, for "scratch" where weights cannot be drawn anew.
        class_names: name of each label 0, 1, ...
        model_name: name of the model in the signature.
        preprocessing: what was done to the inputs, for the signature.
        concurrency: updates that run on this machine at the same time, this one included; with
            more than one, energy and carbon are None.
        index: an index computed before, as its `to_dict` gives it, for the record.
        preflight: all that was known before, what `resque.preflight` returned or its `to_dict`,
            for the record.
        labels: words to find the update by, such as {"shift": "blur"}.
        workers: processes that load a Dataset.
        progress: show a progress bar on stderr where that is a terminal.

    Returns:
        The update and the best weights.

    Raises:
        InputError: model, data, checkpoint or pre-flight cannot be used; the message says which.

    Example:
        >>> import torch
        >>> from resque import Accuracy
        >>> x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
        >>> data = x, (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> result = retrain(model, data, data, target=Accuracy(0.95), meter="none")
        >>> result.update.reached, result.update.carbon_kg
        (True, None)
    """
    recipe = recipe or Recipe()
    checked_target(target)
    if not isinstance(model, nn.Module):
        raise InputError(f"The model must be a torch.nn.Module; got {type(model).__name__}.")
    preflight = _checked_preflight(preflight)
    if checkpoint is not None:
        checked_output(checkpoint)
    data = TrainingData.of(training, validation, recipe, class_names=class_names, workers=workers)
    # A loader brings its own batches, and the record is of what was done.
    recipe = replace(recipe, batch_size=data.sizes.batch_size)
    device = device_of(model)
    with same_random_state(device), data.undisturbed():
        student, head = started(model, recipe, data, untrained)
        data.to(device)
        flags = [parameter.requires_grad for parameter in student.parameters()]
        run = Training(student, recipe, most_steps(recipe, data.sizes.steps_per_epoch), head)
        with recording(
            student,
            target=target,
            data=data.sizes,
            recipe=recipe,
            meter=meter,
            grid=grid,
            model_name=model_name or name_of_model(unwrapped(model)),
            preprocessing=preprocessing,
            concurrency=concurrency,
            index=index,
            preflight=preflight,
            labels=labels,
        ) as recorder:
            recorder.notes += data.notes
            loop = _Loop(run, data, recorder, checkpoint)
            with _progress_bar(recipe.max_epochs, progress) as show:
                loop.train(show)
    student.load_state_dict(loop.best)
    student.zero_grad(set_to_none=True)
    for parameter, flag in zip(student.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    return Retrained(update=recorder.update, model=student.eval())


def _checked_preflight(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    found = given.to_dict() if hasattr(given, "to_dict") else given
    written_as = found.get("format") if isinstance(found, Mapping) else None
    if not str(written_as).startswith(_FORMAT):
        told = f" with format {written_as!r}" if isinstance(given, Mapping) else ""
        raise InputError(
            "preflight must be what resque.preflight returned, or its to_dict(); got a "
            f"{type(given).__name__}{told}."
        )
    return dict(found)


def started(
    model: nn.Module,
    recipe: Recipe,
    data: TrainingData,
    untrained: Callable[[], nn.Module] | None = None,
) -> tuple[nn.Module, str | None]:
    """Return a copy of the model as the recipe starts it, and its classifier if only that trains.

    Raises:
        InputError: the classifier cannot be found or replaced, or weights cannot be drawn anew.
    """
    inner = unwrapped(model)
    assert inner is not None  # noqa: S101  # narrows the type: a module was given
    classes = data.sizes.classes
    if recipe.start == "scratch":
        student = with_fresh_weights(inner, seed=recipe.seed, untrained=untrained)
    elif recipe.start == "head":
        if not classes:
            raise InputError(
                "The number of classes is not known before the first epoch; give class_names, "
                "such as ['0', '1', '2'] (--classes)."
            )
        student = with_fresh_head(inner, classes, data.first_inputs(), seed=recipe.seed)
    else:
        student = copied(inner)
    if recipe.frozen == "none":
        return student, None
    head, _ = final_classifier(student, data.first_inputs())
    if head == "output":
        raise InputError(
            "frozen='body' needs a final classifier, and this model has none; use start='head'."
        )
    return student, head


class _Loop:
    """The training itself: epochs, validations at their intervals, a checkpoint per epoch."""

    def __init__(
        self,
        run: Training,
        data: TrainingData,
        recorder: Recorder,
        checkpoint: Path | str | None,
    ) -> None:
        self.run, self.data, self.recorder = run, data, recorder
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.best: dict[str, Tensor] = {}
        self.best_accuracy = -math.inf
        self.epoch = 0
        self.between = run.recipe.validation_interval * data.sizes.steps_per_epoch
        self.digest = self._digest() if self.checkpoint else ""
        self.unwritable = False

    def train(self, show: Callable[[float, float], None]) -> None:
        """Train until the recorder says that the update has ended."""
        state = load_checkpoint(self.checkpoint, self.digest) if self.checkpoint else None
        if state is not None:
            self._resume(state)
        else:
            # Users' transforms of validation data may be random too.
            self.data.seed(self.run.recipe.seed, 0)
            self._validate()
            self._require_classes()
            self.recorder.has_classes(self.run.outputs)
            self._save()
        try:
            self._train(show)
        except Diverged:
            self._save()
            raise

    def _train(self, show: Callable[[float, float], None]) -> None:
        while self.recorder.ended is None and self.run.steps < self.run.total_steps:
            for inputs, labels in self.data.epoch(self.run.recipe.seed, self.epoch):
                loss, norm = self.run.backward(inputs, labels)
                self.recorder.step(loss, examples=len(labels), norm=norm)
                self.run.step()
                over = self.run.steps == self.run.total_steps
                if over or self._validation_is_due():
                    self._validate()
                show(self.run.steps / self.data.sizes.steps_per_epoch, self.best_accuracy)
                if over or self.recorder.ended is not None:
                    break
            self.epoch += 1
            if self.recorder.ended is None and self.run.steps >= self.run.total_steps:
                self.recorder.end("max_epochs")
            self._save()

    def _validate(self) -> None:
        self.recorder.validation_begins()
        accuracy, loss = self.run.validate(self.data.validated())
        if not math.isfinite(loss):
            if not self.run.steps:
                raise InputError(
                    f"The loss on the validation data is {loss} before any training: the data or "
                    "the weights hold NaN or infinity."
                )
            self.recorder.end("diverged")
            raise Diverged
        self.recorder.validation(accuracy, loss)
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self._keep_best()

    def _keep_best(self) -> None:
        state = self.run.model.state_dict()
        if not self.best:
            self.best = {name: tensor.detach().clone() for name, tensor in state.items()}
            return
        for name, tensor in state.items():
            self.best[name].copy_(tensor)

    def _validation_is_due(self) -> bool:
        """Whether this step is the nearest one to a whole number of intervals."""
        steps = self.run.steps
        return steps == max(round(max(round(steps / self.between), 1) * self.between), 1)

    def _require_classes(self) -> None:
        names, outputs = self.data.class_names, self.run.outputs
        for labels in self.data.labels:
            if labels is not None:
                require_outputs(labels, outputs)
        # Bare numbers say only that others were not seen.
        bare = names == tuple(map(str, range(len(names or ()))))
        if names and bare and len(names) < outputs:
            self.recorder.notes.append(
                f"The model has {outputs} outputs and the labels are 0 to {len(names) - 1}: they "
                f"are taken for its first {len(names)} outputs."
            )
        if names and not bare and len(names) != outputs:
            raise InputError(
                f"The model has {outputs} outputs and the data have {len(names)} classes, "
                f"{names[0]!r} to {names[-1]!r}: which output is which class is not known. Give it "
                "a fresh classifier, Recipe(start='head') (--start head), or name the class of "
                "each output (class_names, --classes)."
            )

    def _save(self) -> None:
        if self.checkpoint is None or self.unwritable:
            return
        state = {
            "model": self.run.model.state_dict(),
            "best": self.best,
            "best_accuracy": self.best_accuracy,
            "optimiser": self.run.optimiser.state_dict(),
            "scaler": self.run.scaler.state_dict(),
            "steps": self.run.steps,
            "epoch": self.epoch,
            "outputs": self.run.outputs,
            "recorder": self.recorder.state(),
        }
        try:
            save_checkpoint(self.checkpoint, self.digest, state)
        except InputError as error:
            if not self.epoch:
                raise
            # Hours of training are worth more than their checkpoint.
            self.unwritable = True
            note = f"No checkpoint since epoch {self.epoch - 1}: {error} Training went on."
            self.recorder.notes.append(note)
            warnings.warn(note, ResqueWarning, stacklevel=2)

    def _resume(self, state: dict[str, Any]) -> None:
        self.run.model.load_state_dict(state["model"])
        self.run.optimiser.load_state_dict(state["optimiser"])
        self.run.scaler.load_state_dict(state["scaler"])
        self.run.steps, self.epoch = state["steps"], state["epoch"]
        self.run.outputs = state["outputs"]
        self.run.train()
        self.best_accuracy = state["best_accuracy"]
        self.best = {name: t.to(self.run.device) for name, t in state["best"].items()}
        self.recorder.resume(state["recorder"])
        self.recorder.has_classes(state["outputs"])

    def _digest(self) -> str:
        content = {
            "weights": weights_digest(dict(self.run.model.named_modules())),
            "recipe": fields_of(self.run.recipe),
            "target": target_to_dict(self.recorder.target),
            "data": self.data.digest(),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@contextmanager
def _progress_bar(epochs: float, wanted: bool) -> Iterator[Callable[[float, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (wanted and console.is_terminal and sys.stderr.isatty()):
        yield lambda *_: None
        return
    columns = (
        TextColumn("epoch {task.completed:.2f} of at most {task.total:g}"),
        BarColumn(),
        TextColumn("best accuracy {task.fields[accuracy]:.4f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("epochs", total=epochs, accuracy=0.0)
        yield lambda epoch, accuracy: progress.update(task, completed=epoch, accuracy=accuracy)
