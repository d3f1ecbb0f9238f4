"""RESQUE_dist without its classes."""

from __future__ import annotations

from resque.errors import InputError
from resque.index.shift import angle
from resque.index.sums import ClassSums


def global_angle(before: ClassSums, after: ClassSums) -> float:
    """Return the angle between the mean representations of both sides, in units of pi, 0 to 1.

    No classes: what they add to the index is its difference from this. It needs no labels. A
    change of class proportions moves it, which the index does not see; and a mean that all
    examples share hides small shifts. method.md, equation 2.

    Args:
        before: sums of the old data.
        after: sums of the new data, of the same layer.

    Raises:
        InputError: the sides differ in width, or a mean is zero and so has no direction.

    Example:
        >>> import numpy as np
        >>> counts, squares = np.ones((1, 1), np.int64), np.ones((1, 1))
        >>> old, new = (ClassSums(counts, v.reshape(1, 1, 2), squares) for v in np.eye(2))
        >>> global_angle(old, new)
        0.5
    """
    old, new = (side.sums.sum(axis=(0, 1)) for side in (before, after))
    if old.shape != new.shape:
        raise InputError(
            f"Both sides must have the same values per example; got {len(old)} before and "
            f"{len(new)} after. Use the same model and layer for both."
        )
    for name, total in (("old", old), ("new", new)):
        if not total.any():
            raise InputError(f"The mean representation of the {name} data is zero: no direction.")
    return float(angle(old, new))
