"""Sliced Wasserstein distance between old and new representations."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_sides
from resque.rivals.transport import deviations, wasserstein_1

_FEWEST = 200


def sliced_wasserstein(
    before: np.ndarray, after: np.ndarray, *, projections: int = 256, seed: int = 0
) -> float:
    """Return sqrt(D) times the mean 1-Wasserstein distance over random directions, 0 or more.

    Each value is divided by its standard deviation on the old side (by at least 1 % of their
    quadratic mean). Rabin et al., SSVM 2011; Bonneel et al., JMIV 51 (2015). The distance is W1
    and not W2: it grows in proportion to a translation all the same, and a few outliers do not
    carry it. sqrt(D), because a random direction sees 1/sqrt(D) of a translation.

    Not 0 where nothing moved, but of the order of sqrt(D (1/n + 1/m)): compare shifts with the
    same sizes.

    Args:
        before: old representations (n, D).
        after: new representations (m, D).
        projections: number of directions, 200 or more; fixed by D and the seed.
        seed: of the directions.

    Raises:
        InputError: the sides cannot be compared, or there are too few directions.

    Example:
        >>> old = np.array([[-1.0], [1.0]])
        >>> sliced_wasserstein(old, old + 3)
        3.0
    """
    old, new = checked_sides(before, after)
    if projections < _FEWEST:
        raise InputError(f"projections must be {_FEWEST} or more; got {projections}.")
    width = old.shape[1]
    directions = np.random.default_rng(seed).normal(size=(width, projections))
    directions /= np.linalg.norm(directions, axis=0)
    # Dividing the directions divides the values; and from the old mean, for the digits.
    directions /= deviations(old)[:, None]
    mean = old.mean(axis=0, dtype=np.float64)
    distances = wasserstein_1((old - mean) @ directions, (new - mean) @ directions)
    return float(np.sqrt(width) * distances.mean())
