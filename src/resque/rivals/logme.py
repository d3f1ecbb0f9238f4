"""Evidence of a linear model of the labels of a new task."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.gram import spectrum_against
from resque.rivals.inputs import checked_task

# Those of the published code, without which its numbers are not met.
_EPSILON = 1e-5
_TOLERANCE = 1e-3
_MOST_ITERATIONS = 11


def logme(representations: np.ndarray, labels: np.ndarray) -> float:
    """Return minus LogME, the log evidence per example of a linear model, mean over classes.

    You et al., arXiv:2102.11005, with the fixed point of arXiv:2110.10545. For each class, 1 for
    its examples and 0 for others are a linear function of the representation plus noise, with
    gaussian weights; evidence is maximised over the precisions of weights and noise.

    It ranks models on one data set. Rare classes are easy, so it is **not comparable between
    tasks** with other classes or sizes. Where values outnumber examples the published code of
    the fixed point leaves directions out of a determinant; here they are in it.

    Args:
        representations: (n, D); not centred, so a shift of all values changes the number.
        labels: (n,), 0 to C - 1.

    Raises:
        InputError: they are no task, or all representations are zero.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> round(logme(*load_iris(return_X_y=True)), 6)
        0.16006
    """
    values, numbers = checked_task(representations, labels)
    if not values.any():
        raise InputError("All representations are zero. Choose a layer that responds to the data.")
    truth = np.eye(int(numbers.max()) + 1)[numbers]
    spread, along = spectrum_against(values, truth, centred=False)
    projected = along**2
    found = [
        _evidence(spread, projected[:, c], count, len(values))
        for c, count in enumerate(truth.sum(axis=0))
    ]
    return -float(np.mean(found))


def _evidence(spread: np.ndarray, projected: np.ndarray, total: float, n: int) -> float:
    """Return the log evidence per example of one class.

    `spread` holds s^2 and `projected` (s u'y)^2 for the singular values s and left singular
    vectors u of the representations; `total` is |y|^2. Nothing is divided by an s.
    """
    ratio = 1.0
    for _ in range(_MOST_ITERATIONS):
        before = ratio
        gamma = (spread / (spread + ratio)).sum()
        weights = (projected / (spread + ratio) ** 2).sum()
        explained = (projected * (2 * ratio + spread) / (spread + ratio) ** 2).sum()
        residual = max(total - explained, 0.0)
        alpha = gamma / (weights + _EPSILON)
        beta = (n - gamma) / (residual + _EPSILON)
        ratio = alpha / beta
        if abs(ratio - before) <= _TOLERANCE * before:
            break
    determinant = np.log1p(spread / ratio).sum()
    fit = beta * residual + alpha * weights
    return float((n * np.log(beta / (2 * np.pi)) - determinant - fit) / (2 * n))
