"""The eigenvalues and principal scores that several rivals are made of."""

from __future__ import annotations

import numpy as np
import scipy.linalg

_BLOCK = 2048
# Below this share of the largest eigenvalue a direction is rounding.
_SMALLEST = 1e-12


def spectrum(features: np.ndarray, *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (r,) of F'F, smallest first, and scores FV (n, r), r = min(n, D).

    From the smaller of F'F and FF', added up in float64 over blocks, so that features of many
    values are never copied whole. Squaring halves the digits: eigenvalues below 1e-16 of the
    largest are rounding, so divide by none without adding something to it.

    Args:
        features: F (n, D).
        centred: whether to subtract the mean of each value first.

    Example:
        >>> values, scores = spectrum(np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), centred=False)
        >>> values.round(9).tolist(), np.abs(scores).round(9).tolist()
        ([9.0, 16.0], [[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    """
    values, vectors, whole = _decomposed(features, centred=centred)
    return values, vectors if whole is None else whole @ vectors


def principal_directions(features: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues (r,) of F'F, F centred, smallest first, and V (D, r).

    Args:
        features: F (n, D).
        largest: how many at most; those that are rounding are left out.

    Example:
        >>> values, directions = principal_directions(np.array([[3.0, 1.0], [-3.0, 1.0]]), 2)
        >>> values.tolist(), np.abs(directions).round(9).tolist()
        ([18.0], [[1.0], [0.0]])
    """
    values, vectors, whole = _decomposed(features, centred=True, largest=largest)
    kept = values > _SMALLEST * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    if whole is None:
        mean = features.mean(axis=0, dtype=np.float64)
        vectors = (features - mean).T @ (vectors / values)
    return values, vectors


def spectrum_against(
    features: np.ndarray, targets: np.ndarray, *, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (r,) of F'F, smallest first, and (FV)'Y (r, C).

    Quicker than `spectrum` where n > D, because the scores FV (n, r) are not made.

    Args:
        features: F (n, D).
        targets: Y (n, C).
        centred: see `spectrum`.

    Example:
        >>> rows, targets = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), np.ones((3, 1))
        >>> np.abs(spectrum_against(rows, targets, centred=False)[1]).round(9).tolist()
        [[3.0], [4.0]]
    """
    values, vectors, whole = _decomposed(features, centred=centred)
    return values, vectors.T @ (targets if whole is None else whole.T @ targets)


def _decomposed(
    features: np.ndarray, *, centred: bool, largest: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return eigenvalues, V, and F in float64 and centred; where n <= D eigenvalues, FV, None."""
    n, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64) if centred else np.zeros(width)
    if n <= width:
        gram = np.zeros((n, n))
        for start in range(0, width, _BLOCK):
            place = slice(start, start + _BLOCK)
            block = features[:, place].astype(np.float64) - mean[place]
            gram += block @ block.T
        values, vectors = _eigh(gram, largest)
        values = np.maximum(values, 0.0)
        return values, vectors * np.sqrt(values), None
    whole = features.astype(np.float64) - mean
    values, vectors = _eigh(whole.T @ whole, largest)
    return np.maximum(values, 0.0), vectors, whole


def _eigh(matrix: np.ndarray, largest: int | None) -> tuple[np.ndarray, np.ndarray]:
    if largest is None or largest >= len(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return values, vectors
    wanted = len(matrix) - largest, len(matrix) - 1
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=wanted, overwrite_a=True)
    return values, vectors
