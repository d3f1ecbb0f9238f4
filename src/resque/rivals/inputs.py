"""Checks at the door of the rivals: arrays of representations, labels, what outputs say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resque.errors import InputError
from resque.index.sums import OutputStatistics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def checked_values(values: ArrayLike, what: str) -> np.ndarray:
    """Return values (examples, values) as an array of real, finite numbers.

    Args:
        values: what came.
        what: its name in a message.

    Raises:
        InputError: it is no such array.

    Example:
        >>> checked_values([[1, 2]], "representations").shape
        (1, 2)
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"The {what} must be (examples, values), with at least one of each; got shape "
            f"{array.shape}. Flatten maps and images first."
        )
    if array.dtype.kind not in "fiub":
        raise InputError(f"The {what} must be real numbers; got {array.dtype}.")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(
            f"The {what} of example {int(finite.argmin())} contain NaN or infinity. Look at that "
            "example and at the model's precision."
        )
    return array


def checked_task(values: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return values (examples, values) and labels (examples,) int64 of a task.

    Args:
        values: what came.
        labels: 0 to C - 1, each at least once.

    Raises:
        InputError: they do not fit together, or are no task.

    Example:
        >>> checked_task([[1.0], [2.0]], [0, 1])[1].dtype
        dtype('int64')
    """
    array, numbers = checked_values(values, "representations"), np.asarray(labels)
    if numbers.shape != (len(array),) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"Labels must be one integer per example, ({len(array)},); got {numbers.dtype} of "
            f"shape {numbers.shape}."
        )
    seen = np.unique(numbers)
    if len(seen) < 2:
        raise InputError(f"A task needs at least two classes; all labels are {seen[0]}.")
    if seen[0] != 0 or seen[-1] != len(seen) - 1:
        raise InputError(
            f"Labels must be 0 to C - 1, each at least once; got {len(seen)} different ones from "
            f"{seen[0]} to {seen[-1]}. np.unique(labels, return_inverse=True)[1] numbers them so."
        )
    return array, numbers.astype(np.int64)


def checked_sides(
    before: ArrayLike, after: ArrayLike, what: str = "representations"
) -> tuple[np.ndarray, np.ndarray]:
    """Return old values (n, values) and new values (m, values) of a shift.

    Args:
        before: what came for the old data.
        after: what came for the new data.
        what: their name in a message.

    Raises:
        InputError: they do not fit together, a side has fewer than two examples, or all old
            examples are the same, so that there is nothing to measure a distance by.

    Example:
        >>> [side.shape for side in checked_sides(np.eye(2), np.ones((3, 2)))]
        [(2, 2), (3, 2)]
    """
    old, new = checked_values(before, f"old {what}"), checked_values(after, f"new {what}")
    if old.shape[1] != new.shape[1]:
        raise InputError(
            f"Both sides must have the same values per example; the {what} have {old.shape[1]} "
            f"before and {new.shape[1]} after. Use the same model and layer for both."
        )
    if min(len(old), len(new)) < 2:
        raise InputError(
            f"Each side needs at least two examples; the {what} have {len(old)} before and "
            f"{len(new)} after."
        )
    if (old == old[0]).all():
        raise InputError(
            f"All {len(old)} old examples have the same {what}, so there is no scale to measure a "
            "shift by. Choose a layer that responds to the data."
        )
    return old, new


def check_outputs(before: OutputStatistics, after: OutputStatistics) -> None:
    """Raise InputError unless both sides say something about at least one example."""
    for name, side in (("old", before), ("new", after)):
        if side.counts.sum() == 0:
            raise InputError(
                f"The outputs on the {name} data count no examples; give a profile of data that "
                "have some of the compared classes."
            )
