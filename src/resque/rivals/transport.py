"""One-dimensional optimal transport, of many values at once."""

from __future__ import annotations

import numpy as np

# A value that hardly varies on the old side would outweigh all others if it were divided by its
# own deviation; below this share of the typical one it is divided by that share instead.
_SMALLEST = 0.01


def wasserstein_1(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the 1-Wasserstein distance (values,) of each value between two samples.

    Exact for any sizes: the integral of |F^-1 - G^-1| over the levels at which either empirical
    quantile function steps.

    Args:
        before: (n, values).
        after: (m, values).

    Example:
        >>> wasserstein_1(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0], [4.0]])).round(9)
        array([2.5])
    """
    # Sorting rows that lie together in memory is many times faster than sorting columns.
    old, new = (np.array(side.T, order="C") for side in (before, after))
    old.sort(axis=1)
    new.sort(axis=1)
    n, m = old.shape[1], new.shape[1]
    if n == m:
        # Every example meets one other: a third of the time of what follows.
        return np.array(
            [
                np.abs(np.subtract(*sides, dtype=np.float64)).mean()
                for sides in zip(old, new, strict=True)
            ]
        )
    # Levels in units of 1 / (n m), so that those that both sides share are equal.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    shares = np.diff(ends, prepend=0) / (n * m)
    apart = np.subtract(old[:, (ends - 1) // m], new[:, (ends - 1) // n], dtype=np.float64)
    return np.asarray(np.abs(apart, out=apart) @ shares)


def deviations(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation (values,) to divide by, at least 1 % of their quadratic mean.

    Args:
        values: (n, values), not all constant.

    Example:
        >>> deviations(np.array([[0.0, 5.0], [2.0, 5.0]])).round(4).tolist()
        [1.0, 0.0071]
    """
    own = values.std(axis=0, dtype=np.float64)
    return np.asarray(np.maximum(own, _SMALLEST * np.sqrt((own**2).mean())))
