"""Records the update that a Hugging Face Trainer makes."""

# ruff: noqa: ARG002  # hooks are given more than they need

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resque.errors import InputError, ResqueWarning, missing_extra
from resque.history.records import DataSizes, Grid, Recipe, Target, checked_target
from resque.history.store import History
from resque.history.update import Update
from resque.integrations.recorded import RecordedTraining, metric_of
from resque.measure.recorder import recording, sizes_of

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise missing_extra("transformers", "trainer") from error

if TYPE_CHECKING:
    from resque.measure.energy import Meter

_CURE = (
    "Give Trainer(compute_metrics=...) a function that returns {'accuracy': ...}, or name the "
    "metric that is the accuracy: UpdateCallback(monitor=...)."
)


class UpdateCallback(TrainerCallback):
    """Records the update that `Trainer.train` makes, with one line added to the user's code.

    A step is a step of the optimiser, so several batches where gradients are accumulated. What
    the model could do before is recorded with `TrainingArguments(eval_on_start=True)`. The loss
    of the training is that of the model's own output. Not for training on several processes at
    once. A training that raises tells no callback: call `interrupt` then.

    Args:
        target: what is to end the update; by default a plateau.
        monitor: the metric that is the accuracy on the validation data.
        monitor_loss: the one that is the mean cross-entropy on them.
        stop: stop the training when the target is met or the loss is no number; otherwise it
            goes on, and the update ends there all the same.
        history: where to add the update when training ends: a `History` or its URL.
        recipe: how the model is trained, for the record.
        meter: see `resque.open_meter`.
        grid: see `resque.grid`.
        class_names: names of the classes, in the order of the model's outputs.
        model_name: name of the model in the signature.
        preprocessing: what was done to the inputs, for the signature.
        concurrency: updates that run on this machine at the same time, this one included.
        index: the index before training, as its `to_dict` gives it.
        preflight: all that was known before training, likewise.
        labels: words to find the update by, such as {"shift": "blur"}.

    Raises:
        InputError: in training: the metric is missing, the sizes of the data cannot be told, or
            there are several processes.

    Example:
        >>> from resque import Accuracy
        >>> callback = UpdateCallback(Accuracy(0.9), meter="none")
        >>> callback.update  # before Trainer(..., callbacks=[callback]).train()
        Traceback (most recent call last):
        ...
        resque.errors.InputError: Nothing was recorded yet: train with this callback first.
    """

    def __init__(
        self,
        target: Target | None = None,
        *,
        monitor: str = "eval_accuracy",
        monitor_loss: str | None = "eval_loss",
        stop: bool = True,
        history: History | str | None = None,
        recipe: Recipe | None = None,
        meter: Meter | str = "codecarbon",
        grid: float | str | Grid | None = None,
        class_names: tuple[str, ...] = (),
        model_name: str | None = None,
        preprocessing: str | None = None,
        concurrency: int = 1,
        index: Mapping[str, Any] | None = None,
        preflight: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.monitor, self.monitor_loss, self.stop = monitor, monitor_loss, stop
        self._class_names = class_names
        self._without: Mapping[str, Any] | None = None  # metrics of a set without the monitor
        self._monitored = False
        if target is not None:
            checked_target(target)
        self._training = RecordedTraining(
            partial(
                recording,
                target=target,
                recipe=recipe,
                meter=meter,
                grid=grid,
                model_name=model_name,
                preprocessing=preprocessing,
                concurrency=concurrency,
                index=index,
                preflight=preflight,
                labels=labels,
            ),
            history,
        )
        self._watched: _Watched | None = None

    @property
    def update(self) -> Update:
        """The update, once training has ended.

        Raises:
            InputError: it has not begun or not ended.
        """
        return self._training.update

    def interrupt(self) -> None:
        """End the record of a training that has raised; `update` then says so."""
        self._training.interrupted()
        self._unwatch()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Open the recording; called by the Trainer, as all that follow."""
        self.interrupt()
        model = given["model"]
        recorder = self._training.begins(
            model, _sizes_of(args, given["train_dataloader"], self._class_names)
        )
        classes = getattr(getattr(model, "config", None), "num_labels", None)
        if isinstance(classes, int):
            recorder.has_classes(classes)
        if "codecarbon" in (args.report_to or ()) and recorder.meter.name != "none":
            warnings.warn(
                "The Trainer runs a codecarbon of its own beside this meter, as report_to names "
                "it: it writes emissions.csv, asks the network where it is, and its own work is "
                "in this record. Leave 'codecarbon' out of TrainingArguments(report_to=...).",
                ResqueWarning,
                stacklevel=2,
            )
        if state.global_step:
            recorder.notes.append(
                f"Training went on from step {state.global_step} of a checkpoint; what came "
                "before is not in this record."
            )
        self._watched = _Watched(model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Record a step."""
        if self._watched is None:
            return
        loss, norm = self._watched.taken(getattr(given.get("optimizer"), "scaler", None))
        if self._training.step(loss, norm) and self.stop:
            control.should_training_stop = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Tell the energy of validation apart, where it follows."""
        # The Trainer's own callback, which comes first, has decided by now.
        if control.should_evaluate:
            self._training.validation_begins()

    on_epoch_end = on_step_end

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Record a validation."""
        recorder = self._training.recorder
        # The Trainer evaluates outside of training, too.
        if self._watched is None or recorder is None:
            return
        metrics = given["metrics"]
        if self.monitor not in metrics and _of_one_of_several(metrics):
            self._without = metrics
            return
        self._monitored = True
        accuracy = metric_of(metrics, self.monitor, _CURE)
        loss = None if self.monitor_loss is None else metrics.get(self.monitor_loss)
        examples = len(given["eval_dataloader"].dataset)
        recorder.data = replace(recorder.data, validation_examples=examples)
        if self._training.validation(accuracy, loss) and self.stop:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Close the recording."""
        self._unwatch()
        if self._without is not None and not self._monitored:
            metric_of(self._without, self.monitor, _CURE)
        self._training.ends()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._watched.stop()
            self._watched = None


def _of_one_of_several(metrics: Mapping[str, Any]) -> bool:
    """Whether metrics are of one of several sets of validation data, which have names."""
    return "eval_loss" not in metrics and any(re.fullmatch("eval_.+_loss", key) for key in metrics)


class _Watched:
    """Loss and gradient norm of each step, which the Trainer shows to no callback.

    It clips gradients before it calls anyone, so their norms are taken as they arrive, and the
    loss is read from the model's output.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms: dict[nn.Parameter, Tensor] = {}
        self._loss: Tensor | None = None
        self._batches = 0
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._gradient)  # type: ignore[no-untyped-call]
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
        self._handles.append(model.register_forward_hook(self._output, with_kwargs=True))

    def taken(self, scaler: Any) -> tuple[Tensor | None, Tensor]:
        """Return (loss, gradient norm) of the step that ends here, and begin the next."""
        loss = self._loss
        if loss is not None and self._batches:
            loss = loss / self._batches
        self._loss, self._batches = None, 0
        norms, self._norms = [*self._norms.values()], {}
        if not norms:
            return loss, torch.zeros(())
        norm = torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
        return loss, norm if scaler is None else norm / scaler.scale(torch.ones_like(norm))

    def stop(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _gradient(self, parameter: nn.Parameter) -> None:
        # Of what has been accumulated so far: the last batch of a step has the last word.
        assert parameter.grad is not None  # noqa: S101  # narrows the type
        self._norms[parameter] = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)

    def _output(self, model: nn.Module, inputs: Any, named: Mapping[str, Any], output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if not model.training or loss is None:
            return
        loss = loss.detach().mean()
        # A model that is told the number of items divides by those of the whole step, so that the
        # losses of its batches add up; otherwise the Trainer divides by the number of batches.
        if named.get("num_items_in_batch") is None:
            self._batches += 1
        self._loss = loss if self._loss is None else self._loss + loss


def _sizes_of(args: TrainingArguments, loader: Any, class_names: tuple[str, ...]) -> DataSizes:
    """Return the sizes of the training data; those of the validation data are not known yet."""
    if args.world_size > 1:
        raise InputError(
            f"An update on several processes cannot be recorded yet; got {args.world_size}. Start "
            "one."
        )
    sizes = sizes_of(loader, None, class_names)
    accumulated = args.gradient_accumulation_steps
    return replace(
        sizes,
        batch_size=sizes.batch_size * accumulated,
        steps_per_epoch=math.ceil(sizes.steps_per_epoch / accumulated),
    )
