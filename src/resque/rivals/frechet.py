"""Frechet distance between old and new representations."""

from __future__ import annotations

import numpy as np

from resque.rivals.gram import principal_directions
from resque.rivals.inputs import checked_sides

_DIRECTIONS = 64


def frechet(before: np.ndarray, after: np.ndarray) -> float:
    """Return the squared Frechet distance of gaussians, in units of the old total variance.

    (|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))) / tr S1 in the at most 64 principal directions
    of the old data. The form behind FID, Heusel et al., arXiv:1706.08500. The trace of the root
    is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric: the
    root of S1 S2 itself comes out complex.

    Biased upwards: k directions of equal variance read about (k + 5)/4 (1/n + 1/m) where nothing
    moved, more where n is not far above k, so compare shifts of the same sizes. The directions
    also fit the old data better than any others where values outnumber examples. What moves
    outside of them is not seen. One outlier can carry it.

    Args:
        before: old representations (n, values).
        after: new representations (m, values).

    Raises:
        InputError: the sides cannot be compared.

    Example:
        >>> old = np.random.default_rng(0).normal(size=(500, 4))
        >>> round(frechet(old, old), 9), round(frechet(old, 3 * old - 2 * old.mean(0)), 9)
        (0.0, 4.0)
    """
    old, new = checked_sides(before, after)
    values, directions = principal_directions(old, _DIRECTIONS)
    variances = values / (len(old) - 1)
    moved = (new - old.mean(axis=0, dtype=np.float64)) @ directions
    moved_to = moved.mean(axis=0)
    away = moved - moved_to
    covariance = away.T @ away / (len(new) - 1)
    root = np.sqrt(variances)
    product = np.linalg.eigvalsh(root[:, None] * covariance * root)
    shared = np.sqrt(np.maximum(product, 0.0)).sum()
    distance = (moved_to**2).sum() + variances.sum() + np.trace(covariance) - 2 * shared
    return float(max(distance, 0.0) / variances.sum())
