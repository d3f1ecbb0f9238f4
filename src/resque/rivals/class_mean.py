"""The nearest class mean as a classifier of a new task."""

from __future__ import annotations

import numpy as np

from resque.rivals.inputs import checked_task

_BLOCK = 1024


def nearest_class_mean_error(representations: np.ndarray, labels: np.ndarray) -> float:
    """Return the leave-one-out error of the nearest class mean, 0 to 1.

    Share of examples that are as near to the mean of another class as to that of their own
    without them, which is n / (n - 1) times as far as the mean with them, n examples being in the
    class. Mensink et al., TPAMI 35 (2013). An example alone in its class is an error. Follows the
    large classes where they are unbalanced, and the values of largest variance.

    Args:
        representations: (n, values).
        labels: (n,), 0 to C - 1.

    Raises:
        InputError: they are no task.

    Example:
        >>> nearest_class_mean_error(np.array([[0.0], [1.0], [9.0], [3.0]]), np.array([0, 0, 1, 1]))
        0.25
    """
    values, numbers = checked_task(representations, labels)
    means = class_means(values, numbers)
    # From the middle, because what all have in common would drown their differences in rounding.
    middle = means.mean(axis=0)
    means -= middle
    norms = (means**2).sum(axis=1)
    counts = np.bincount(numbers).astype(np.float64)
    with np.errstate(divide="ignore"):
        farther = (counts / (counts - 1)) ** 2
    wrong = 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64) - middle
        its = numbers[start : start + _BLOCK]
        distances = (block**2).sum(axis=1)[:, None] + norms - 2 * block @ means.T
        rows = np.arange(len(block))
        alone = np.isinf(farther[its])
        own = np.where(alone, np.inf, distances[rows, its] * np.where(alone, 1.0, farther[its]))
        distances[rows, its] = np.inf
        wrong += int((distances.min(axis=1) <= own).sum())
    return wrong / len(values)


def class_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean (classes, values) of each class in float64.

    Args:
        values: (n, values).
        labels: (n,), 0 to C - 1.

    Example:
        >>> class_means(np.array([[0.0], [4.0], [1.0]]), np.array([0, 0, 1])).tolist()
        [[2.0], [1.0]]
    """
    classes = range(int(labels.max()) + 1)
    return np.stack([values[labels == c].mean(axis=0, dtype=np.float64) for c in classes])
