"""The nearest neighbours as a classifier of a new task."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_task

_BLOCK = 1024
# In float32, which takes half the time, cosines nearer to each other than this are not in order.
_ALIKE = 1e-6


def knn_error(representations: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Return the leave-one-out error of the k nearest neighbours' vote, mean over classes, 0 to 1.

    Cosine distance; of classes with equally many votes that of the nearest neighbour wins. The
    simplest rival on record, and better than 23 others: arXiv:2503.18528. Copies of an example,
    augmented ones too, find each other and make the error too small. Examples without a
    direction, all zero, are at distance 1 from everything. Holds one copy of them in float32.

    Args:
        representations: (n, values), or raw pixels.
        labels: (n,), 0 to C - 1.
        k: neighbours that vote, 1 to n - 1.

    Raises:
        InputError: they are no task, or k is out of range.

    Example:
        >>> points = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> knn_error(points, np.array([0, 0, 1, 1]), k=1)
        0.0
    """
    values, numbers = checked_task(representations, labels)
    if not 1 <= k < len(values):
        raise InputError(f"k must be 1 to {len(values) - 1} for {len(values)} examples; got {k}.")
    starts = range(0, len(values), _BLOCK)
    directions = np.concatenate(
        [_directions(values[i : i + _BLOCK]).astype(np.float32) for i in starts]
    )
    # Of those that vote and of the one that is next, which tells whether their order is sure.
    best = np.full((len(values), k + 1), -np.inf, np.float32)
    places = np.zeros((len(values), k + 1), np.int64)
    for start in starts:
        # Each pair once: the cosines of some rows with others are those of the others with them.
        for other in range(start, len(values), _BLOCK):
            mine, theirs = (slice(i, i + _BLOCK) for i in (start, other))
            cosines = directions[mine] @ directions[theirs].T
            if start == other:
                np.fill_diagonal(cosines, -np.inf)
            else:
                _merge(best[theirs], places[theirs], cosines.T, start)
            _merge(best[mine], places[mine], cosines, other)
    # The example itself, at minus infinity, is the last of all.
    apart = np.where(np.isfinite(best[:, 1:]), best[:, :-1] - best[:, 1:], np.inf).min(axis=1)
    alike = np.flatnonzero(apart < _ALIKE)
    for start in range(0, len(alike), _BLOCK):
        rows = alike[start : start + _BLOCK]
        exact = _directions(values[rows])
        sure = np.full((len(rows), k + 1), -np.inf)
        of_sure = np.zeros((len(rows), k + 1), np.int64)
        for other in starts:
            cosines = exact @ _directions(values[other : other + _BLOCK]).T
            inside = (rows >= other) & (rows < other + _BLOCK)
            cosines[np.flatnonzero(inside), rows[inside] - other] = -np.inf
            _merge(sure, of_sure, cosines, other)
        places[rows] = of_sure
    votes = numbers[places[:, :k]]
    # How many of the k agree with each of them; argmax takes the nearest of the largest.
    agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    chosen = votes[np.arange(len(votes)), agreeing.argmax(axis=1)]
    return float(np.mean(np.bincount(numbers, weights=chosen != numbers) / np.bincount(numbers)))


def _merge(best: np.ndarray, places: np.ndarray, cosines: np.ndarray, start: int) -> None:
    """Put those of some cosines (rows, others) among the largest so far (rows, k + 1), in place.

    The others are the examples from `start` on.
    """
    kept = min(best.shape[1], cosines.shape[1])
    nearest = np.argpartition(-cosines, kept - 1, axis=1)[:, :kept]
    found = np.concatenate([best, np.take_along_axis(cosines, nearest, axis=1)], axis=1)
    whose = np.concatenate([places, nearest + start], axis=1)
    order = np.argsort(-found, axis=1, kind="stable")[:, : best.shape[1]]
    best[:] = np.take_along_axis(found, order, axis=1)
    places[:] = np.take_along_axis(whose, order, axis=1)


def _directions(values: np.ndarray) -> np.ndarray:
    """Return the rows at length 1 in float64; zero where they are zero."""
    wide = values.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide
