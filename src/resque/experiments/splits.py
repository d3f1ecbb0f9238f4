"""Which examples are old, which are new, and which are taken: indices, by class."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError

# Per cent; the other 20 are in both.
_OLD_ONLY, _NEW_ONLY = 50, 30


def published_split(labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of old and new examples: 70 % and 50 % of all, 20 % in both.

    The examples of each class are cut, in an order that is drawn, into parts of 50, 30 and 20 %;
    the first and third are old, the second and third new, as in the published scripts (Sangarya
    and Kim, arXiv:2412.15511). Shares are rounded per class.

    The trap: what is in both has been trained on before it is shifted. The index is made for
    that (method.md, equation 6), but accuracy on the new examples before retraining looks too
    good by it.

    Args:
        labels: (examples,) integers.
        seed: of the order.

    Returns:
        Old (examples,) and new (examples,), each in ascending order.

    Raises:
        InputError: `labels` is not one integer per example, or a class has fewer than 4.

    Example:
        >>> old, new = published_split(np.repeat([0, 1], 50), seed=0)
        >>> len(old), len(new), len(np.intersect1d(old, new))
        (70, 50, 20)
    """
    labels, classes, counts = _checked(labels)
    rarest = counts.argmin()
    if counts[rarest] < 4:
        raise InputError(
            "Each class needs at least 4 examples to be cut into 50, 30 and 20 %; class "
            f"{classes[rarest]} has {counts[rarest]}. Leave it out."
        )
    rng = np.random.default_rng(seed)
    old, new = [], []
    for label, n in zip(classes, counts, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        # Integers, so that no share such as 0.7 n falls below a half by rounding.
        cuts = [_rounded(n, _OLD_ONLY), _rounded(n, _OLD_ONLY + _NEW_ONLY)]
        first, second, third = np.split(members, cuts)
        old += [first, third]
        new += [second, third]
    return np.sort(np.concatenate(old)), np.sort(np.concatenate(new))


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
    labels, classes, counts = _checked(labels)
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


def _rounded(n: int, percent: int) -> int:
    return (2 * n * percent + 100) // 200


def _checked(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels, the classes among them, and how often each occurs."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            "Expected labels as one integer per example; got an array of shape "
            f"{labels.shape} {labels.dtype}."
        )
    classes, counts = np.unique(labels, return_counts=True)
    return labels, classes, counts
