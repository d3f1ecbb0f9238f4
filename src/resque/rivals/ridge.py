"""A linear classifier of a new task, with each example left out once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resque.errors import InputError
from resque.rivals.gram import spectrum
from resque.rivals.inputs import checked_task

PENALTIES = tuple(10.0**power for power in range(-6, 4))


def ridge_error(
    features: np.ndarray, labels: np.ndarray, *, penalties: Sequence[float] = PENALTIES
) -> float:
    """Return the leave-one-out error of a ridge classifier, 0 to 1.

    Ridge regression on the labels as 0 and 1, one column per class, with an intercept that is
    not penalised; the class of the highest prediction wins. With H the hat matrix, the intercept
    and so a leverage of 1/n included, leaving example i out moves its residual e_i to exactly
    e_i / (1 - h_ii): Allen's PRESS, Technometrics 16 (1974). The penalty is the one of the
    smallest leave-one-out squared error.

    All values share one scale: penalties are in units of the mean squared distance of an example
    from the mean. Dividing each value by its own deviation would blow up those that hardly vary.
    Choosing among ten penalties by the same examples flatters a little. Features that say nothing
    read above chance, up to 1 where classes are balanced, because an example left out leaves its
    class the rarest. The eigenvectors of the smaller of D x D and n x n are the cost; where both
    are many thousands, give a sample.

    Args:
        features: (n, D), pooled or flattened.
        labels: (n,), 0 to C - 1.
        penalties: to choose among, each above 0.

    Raises:
        InputError: they are no task, or a penalty is not above 0.

    Example:
        >>> labels = np.arange(60) % 3
        >>> noise = np.random.default_rng(0).normal(0, 0.1, (60, 3))
        >>> ridge_error(np.eye(3)[labels] + noise, labels)
        0.0
    """
    values, numbers = checked_task(features, labels)
    grid = np.asarray(penalties, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or not (grid > 0).all():
        raise InputError(f"penalties must be one or more numbers above 0; got {penalties!r}.")
    n = len(values)
    spread, scores = spectrum(values, centred=True)
    # Features that are all the same have no scale, and any will do: they predict nothing.
    scale = spread.sum() / n or 1.0
    shrunk = 1.0 / (spread[:, None] + grid * scale)
    truth = np.eye(int(numbers.max()) + 1)[numbers]
    mean = truth.mean(axis=0)
    projected = scores.T @ (truth - mean)
    free = 1.0 - 1.0 / n - scores**2 @ shrunk
    least, error = np.inf, 1.0
    for place in range(len(grid)):
        fitted = mean + scores @ (shrunk[:, place, None] * projected)
        residuals = (truth - fitted) / free[:, place, None]
        loss = float((residuals**2).sum())
        if loss < least:
            least = loss
            error = float(((truth - residuals).argmax(axis=1) != numbers).mean())
    return error
