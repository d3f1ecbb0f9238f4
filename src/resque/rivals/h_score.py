"""How much of the variance of representations is between the classes of a new task."""

from __future__ import annotations

import numpy as np

from resque.rivals.gram import spectrum_against
from resque.rivals.inputs import checked_task

# Below this share of the largest variance a direction is rounding.
_SMALLEST = 1e-12
_BLOCK = 1024


def h_score(representations: np.ndarray, labels: np.ndarray) -> float:
    """Return minus the shrunk H-score over C - 1, about -1 to 0.

    tr(S_a^-1 (1 - a) B), with B the covariance of the class means and S_a = (1 - a) S + a m I the
    covariance after Ledoit and Wolf (m its mean variance). Ibrahim et al., arXiv:2110.06893; the
    H-score of Bao et al., arXiv:2212.10082. Without the shrinkage it nears C - 1 for any data as
    soon as values outnumber examples; over C - 1 so that tasks can be compared.

    Args:
        representations: (n, D).
        labels: (n,), 0 to C - 1.

    Raises:
        InputError: they are no task.

    Example:
        >>> labels = np.arange(60) % 3
        >>> noise = np.random.default_rng(0).normal(0, 0.01, (60, 3))
        >>> round(h_score(np.eye(3)[labels] + noise, labels), 2)
        -0.97
    """
    values, numbers = checked_task(representations, labels)
    n, width = values.shape
    truth = np.eye(int(numbers.max()) + 1)[numbers]
    spread, sums = spectrum_against(values, truth, centred=True)
    variances = spread / n
    shrinkage, mean_variance = _ledoit_wolf(variances, _squared_norms(values), width)
    kept = variances > _SMALLEST * variances[-1]
    # n_c |mean of class c|^2 / n = |sum of class c|^2 / (n_c n), direction by direction.
    between = (sums[kept] ** 2 / truth.sum(axis=0)).sum(axis=1) / n
    shrunk = (1 - shrinkage) * variances[kept] + shrinkage * mean_variance
    return -float(((1 - shrinkage) * between / shrunk).sum() / (truth.shape[1] - 1))


def _squared_norms(values: np.ndarray) -> np.ndarray:
    """Return the squared distance (n,) of each example from the mean."""
    mean = values.mean(axis=0, dtype=np.float64)
    blocks = (values[start : start + _BLOCK] - mean for start in range(0, len(values), _BLOCK))
    return np.concatenate([np.einsum("ij,ij->i", away, away) for away in blocks])


def _ledoit_wolf(variances: np.ndarray, norms: np.ndarray, width: int) -> tuple[float, float]:
    """Return shrinkage and mean variance, from eigenvalues and squared norms of the examples.

    Ledoit and Wolf, JMVA 88 (2004); the same numbers as from the D x D covariance, without it.
    """
    mean = float(variances.sum() / width)
    squares = float((variances**2).sum())
    apart = squares - width * mean**2
    noise = float((norms**2).mean() - squares) / len(norms)
    return (min(noise, apart) / apart if min(noise, apart) > 0 else 0.0), mean
