"""Records the update that a Lightning Trainer makes."""

# ruff: noqa: ARG002  # hooks are given more than they need

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resque.errors import InputError, missing_extra
from resque.history.records import DataSizes, Grid, Recipe, Target, checked_target
from resque.history.store import History
from resque.history.update import Update
from resque.integrations.recorded import RecordedTraining, metric_of
from resque.measure.recorder import recording, sizes_of

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise missing_extra("lightning", "lightning") from error

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from resque.measure.energy import Meter

_CURE = (
    "In validation_step, self.log('val_accuracy', accuracy), or name the metric that is the "
    "accuracy: UpdateCallback(monitor=...)."
)


class UpdateCallback(Callback):
    """Records the update that `Trainer.fit` makes, with one line added to the user's code.

    A step is a step of the optimiser, so several batches where gradients are accumulated. What
    the model could do before is recorded if Lightning's sanity check goes through all validation
    data: `Trainer(num_sanity_val_steps=-1)`. Not for training on several devices at once.

    Args:
        target: what is to end the update; by default a plateau.
        monitor: the logged metric that is the accuracy on the validation data.
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
        InputError: in training: the metric is not logged, the sizes of the data cannot be told,
            or there are several devices.

    Example:
        >>> from resque import Accuracy
        >>> callback = UpdateCallback(Accuracy(0.9), monitor="val_acc", meter="none")
        >>> callback.update  # before Trainer(callbacks=[callback]).fit(...)
        Traceback (most recent call last):
        ...
        resque.errors.InputError: Nothing was recorded yet: train with this callback first.
    """

    def __init__(
        self,
        target: Target | None = None,
        *,
        monitor: str = "val_accuracy",
        monitor_loss: str | None = None,
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
        self._before: tuple[float, float | None] | None = None
        self._loss: Tensor | None = None

    @property
    def update(self) -> Update:
        """The update, once training has ended, also by an error.

        Raises:
            InputError: it has not begun or not ended.
        """
        return self._training.update

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what a training before has left; called by Lightning, as all that follow."""
        self._before = self._loss = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the recording."""
        recorder = self._training.begins(pl_module, _sizes_of(trainer, self._class_names))
        if trainer.global_step:
            recorder.notes.append(
                f"Training went on from step {trainer.global_step} of a checkpoint; what came "
                "before is not in this record."
            )
        if self._before is not None:
            self._record(trainer, *self._before)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Take the loss of a batch; Lightning has divided it by the batches of a step."""
        loss = loss.detach()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            # Multiplied by the scale already, which is asked for in a way that waits for no GPU.
            loss = loss / scaler.scale(torch.ones_like(loss))
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Record a step: the gradients are unscaled here, and not yet clipped."""
        loss, self._loss = self._loss, None
        if self._training.step(loss) and self.stop:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the energy of validation apart."""
        self._training.validation_begins()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a validation; keep that of the sanity check if it saw all the data."""
        if not trainer.sanity_checking:
            if trainer.state.fn == "fit":
                self._record(trainer, *self._found(trainer))
            return
        pairs = zip(trainer.num_sanity_val_batches, trainer.num_val_batches, strict=True)
        if all(checked >= batches for checked, batches in pairs):
            self._before = self._found(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the recording."""
        self._training.ends()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the recording as interrupted."""
        self._training.interrupted()

    def _found(self, trainer: Trainer) -> tuple[float, float | None]:
        metrics = trainer.callback_metrics
        accuracy = metric_of(metrics, self.monitor, _CURE)
        if self.monitor_loss is None:
            return accuracy, None
        return accuracy, metric_of(metrics, self.monitor_loss, "See monitor_loss.")

    def _record(self, trainer: Trainer, accuracy: float, loss: float | None) -> None:
        if self._training.validation(accuracy, loss) and self.stop:
            trainer.should_stop = True


def _sizes_of(trainer: Trainer, class_names: tuple[str, ...]) -> DataSizes:
    """Return the sizes of the data that a trainer goes through, its limits minded."""
    if trainer.world_size > 1:
        raise InputError(
            f"An update on several devices cannot be recorded yet; got {trainer.world_size}. Use "
            "Trainer(devices=1)."
        )
    if not math.isfinite(trainer.num_training_batches):
        raise InputError(
            "The training loader has no length, so an epoch cannot be told; give "
            "Trainer(limit_train_batches=...) a number of batches."
        )
    loader, batches = trainer.train_dataloader, int(trainer.num_training_batches)
    sizes = sizes_of(loader, None, class_names)
    loaders = trainer.val_dataloaders or []
    loaders = loaders if isinstance(loaders, list) else [loaders]
    validated = sum(
        min(len(each.dataset), int(n) * (each.batch_size or len(each.dataset)))
        for each, n in zip(loaders, trainer.num_val_batches, strict=False)
    )
    return replace(
        sizes,
        training_examples=min(sizes.training_examples, batches * sizes.batch_size),
        validation_examples=validated,
        batch_size=sizes.batch_size * trainer.accumulate_grad_batches,
        steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches),
    )
