"""What a label may be: one integer per example, 0 or more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.errors import InputError


def checked_labels(labels: Any, n: int, start: int | None = None) -> Tensor:
    """Return labels (examples,) as int64 on the CPU, or raise an error that says what came.

    Args:
        labels: one integer per example, as a tensor, an array or a list.
        n: number of examples.
        start: place of the first of them in the data, where they are one batch of many.

    Raises:
        InputError: text, floats, booleans, more than one value per example, a negative label,
            or another number of labels than of examples.

    Example:
        >>> checked_labels([0, 2, 1], 3)
        tensor([0, 2, 1])
    """
    checked = labels.detach().cpu() if isinstance(labels, Tensor) else _as_tensor(labels)
    if checked.ndim != 1:
        column = checked.ndim == 2 and checked.shape[1] == 1
        cure = (
            "take the only column, labels[:, 0]"
            if column
            else ("one-hot labels become integers with labels.argmax(1)")
        )
        raise InputError(
            f"Labels must be one integer per example, shape ({n},); got shape "
            f"{tuple(checked.shape)}. Multi-label, regression and detection targets are not "
            f"supported; {cure}."
        )
    if n == len(checked) == 0:  # an empty list has no type of its own
        return torch.empty(0, dtype=torch.int64)
    if checked.is_floating_point() or checked.is_complex() or checked.dtype is torch.bool:
        raise InputError(
            f"Labels must be integers; got {str(checked.dtype).removeprefix('torch.')} such as "
            f"{checked[0].item()}. Use labels.long() if these are "
            "class numbers; regression targets are not supported."
        )
    if len(checked) != n:
        where = f" in the batch that starts at example {start}" if start is not None else ""
        raise InputError(
            f"{len(checked)} labels for {n} examples{where}; expected as many labels as examples."
        )
    checked = checked.to(torch.int64)
    if n and int(checked.min()) < 0:
        place = int((checked < 0).nonzero()[0])
        example = (start or 0) + place
        raise InputError(
            f"Labels must be 0 or more; got {int(checked[place])} for example {example}. "
            "Leave out examples that are to be ignored."
        )
    return checked


def named_or_raise(labels: Tensor, names: tuple[str, ...], start: int = 0) -> None:
    """Raise InputError, naming the example, if a label (examples,) has no name."""
    if len(labels) and int(labels.max()) >= len(names):
        place = int((labels >= len(names)).nonzero()[0])
        raise InputError(
            f"Label {int(labels[place])} of example {start + place} has no name: there are "
            f"{len(names)} class names, for labels 0 to {len(names) - 1}."
        )


def _as_tensor(labels: Any) -> Tensor:
    try:
        array = np.asarray(labels)
    except ValueError as error:  # lists of different lengths
        raise _not_numbers(labels) from error
    if array.dtype.kind in "US":
        example = str(array.flat[0]) if array.size else ""
        raise InputError(
            f"Labels must be integers; got text such as {example!r}. Number the classes: "
            "names, labels = numpy.unique(texts, return_inverse=True), and pass "
            "class_names=names."
        )
    if array.dtype.kind not in "biufc":
        raise _not_numbers(labels)
    return torch.from_numpy(np.array(array))  # a copy: some arrays cannot be shared


def _not_numbers(labels: Any) -> InputError:
    try:
        example = type(labels[0]).__name__
    except (TypeError, IndexError, KeyError):
        example = type(labels).__name__
    return InputError(
        f"Labels must be one integer per example; got objects such as a {example}. Multi-label, "
        "regression and detection targets are not supported."
    )
