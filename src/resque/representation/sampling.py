"""Some examples of a labelled data set, each class with its share."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError


def stratified_sample(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Return the indices of n examples, drawn with the classes in proportion.

    Sainte-Laguë's method: of a class of m examples the first is due at once, so that no class is
    lost, and the j-th at (2 j - 1) / m; the n that are due first are taken. Samples of one seed
    are nested: a larger one contains the smaller.

    Args:
        labels: (examples,) integers.
        n: how many are drawn: the number of classes, up to all.
        seed: of the draw.

    Returns:
        (n,) indices in ascending order.

    Raises:
        InputError: `labels` is not one integer per example, or `n` is out of range.

    Example:
        >>> labels = np.repeat([0, 1, 2], [80, 19, 1])
        >>> np.bincount(labels[stratified_sample(labels, 10, seed=0)]).tolist()
        [7, 2, 1]
    """
    labels, classes, counts = counted(labels)
    if not len(classes) <= n <= len(labels):
        raise InputError(
            f"n must be {len(classes)} (one example of each class) to {len(labels)} (all); got {n}."
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    due = np.empty(len(labels))
    for label, m in zip(classes, counts, strict=True):
        due[labels[order] == label] = [0.0, *((2 * np.arange(1, m) + 1) / m)]
    # Stable: which of equal classes comes first is drawn with the order.
    return np.sort(order[np.argsort(due, kind="stable")[:n]])


def counted(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (examples,), the classes among them, and how often each occurs.

    Raises:
        InputError: they are not one integer per example.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            "Expected labels as one integer per example; got an array of shape "
            f"{labels.shape} {labels.dtype}."
        )
    classes, counts = np.unique(labels, return_counts=True)
    return labels, classes, counts
