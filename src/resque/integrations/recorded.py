"""What the callbacks of all frameworks share: an update that is recorded hook by hook."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TYPE_CHECKING, Any

from resque.errors import InputError, ResqueWarning
from resque.history.records import DataSizes
from resque.history.store import History
from resque.history.update import Update
from resque.measure.recorder import Diverged, Recorder

if TYPE_CHECKING:
    from torch import Tensor, nn


class RecordedTraining:
    """An update that a framework's trainer makes, opened by one hook and closed by another.

    Args:
        record: `resque.recording` with all its arguments but the model and the data.
        history: where finished updates go: a `History`, its URL, or None.
    """

    def __init__(
        self,
        record: Callable[..., AbstractContextManager[Recorder]],
        history: History | str | None,
    ) -> None:
        self.recorder: Recorder | None = None
        self._record, self._history = record, history
        self._open = ExitStack()

    @property
    def update(self) -> Update:
        """The update, once it has ended.

        Raises:
            InputError: no training has begun, or it has not ended.
        """
        if self.recorder is None:
            raise InputError("Nothing was recorded yet: train with this callback first.")
        return self.recorder.update

    def begins(self, model: nn.Module, data: DataSizes) -> Recorder:
        """Return the recorder of a training that begins; one still open counts as interrupted."""
        self.interrupted()
        # A URL that leads nowhere is better known before the training than after.
        if isinstance(self._history, str):
            self._history = History(self._history)
        if isinstance(self._history, History):
            self._history.check_writable()
        self.recorder = self._open.enter_context(self._record(model, data=data))
        return self.recorder

    def step(self, loss: Tensor | None, norm: Tensor | None = None) -> bool:
        """Record an optimiser step and return whether the update ends with it, diverged."""
        if self.recorder is None:
            return False
        with suppress(Diverged):
            self.recorder.step(loss, norm=norm)
        return self.recorder.ended == "diverged"

    def validation_begins(self) -> None:
        """Say that what follows is validation."""
        if self.recorder is not None:
            self.recorder.validation_begins()

    def validation(self, accuracy: float, loss: float | None) -> bool:
        """Record a validation and return whether the update ends with it."""
        if self.recorder is None:
            return False
        with suppress(Diverged):
            self.recorder.validation(accuracy, loss)
        return self.recorder.ended is not None

    def ends(self) -> None:
        """Close the recording and add the update to the history."""
        self._open.close()
        if not isinstance(self._history, History):
            return
        try:
            self._history.add(self.update)
        except InputError as error:
            # What the trainer still has to do, saving the model for one, is not to be lost.
            warnings.warn(
                f"The update was not added to the history: {error} It is in the callback's "
                "`update`.",
                ResqueWarning,
                stacklevel=2,
            )

    def interrupted(self) -> None:
        """Close the recording of a training that an error has ended; no history gets it."""
        if self.recorder is not None:
            self.recorder.end("interrupted")
        self._open.close()


def metric_of(metrics: Mapping[str, Any], name: str, cure: str) -> float:
    """Return one of the metrics that a trainer has computed in validation.

    Args:
        metrics: name -> value.
        name: of the one.
        cure: what to do where it is missing.

    Raises:
        InputError: it is missing.

    Example:
        >>> metric_of({"val_accuracy": 0.5}, "val_accuracy", "Log it.")
        0.5
    """
    if name not in metrics:
        found = ", ".join(map(repr, metrics)) or "no metric at all"
        raise InputError(f"Expected {name!r} after validation; found {found}. {cure}")
    return float(metrics[name])
