"""Maximum mean discrepancy between old and new representations."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_sides


def mmd(before: np.ndarray, after: np.ndarray, *, max_examples: int = 1000, seed: int = 0) -> float:
    """Return the unbiased squared maximum mean discrepancy; 0 on average where nothing moved.

    Mean of k(x, x') over pairs of old examples, plus that over pairs of new ones, minus twice
    that over mixed pairs, with k = exp(-|x - x'|^2 / w^2) and w the median distance of the old
    examples. Gretton et al., JMLR 13 (2012), arXiv:0805.2368.

    The width comes from the old side alone, so that shifts from the same old data share one
    scale; with a width from both, as in many tools, a strong shift widens its own kernel. Bounded
    by 2, so it flattens at strong shifts; unbiased, so it can fall below 0. Old and new examples
    are taken for independent: the same images on both sides bias it downwards.

    Args:
        before: old representations (n, values).
        after: new representations (m, values).
        max_examples: at most so many of each side, drawn without replacement.
        seed: of that draw.

    Raises:
        InputError: the sides cannot be compared, or most old examples are the same.

    Example:
        >>> draw = np.random.default_rng(0).normal
        >>> mmd(draw(size=(200, 4)), draw(size=(200, 4)) + 5) > 0.5
        True
    """
    old, new = checked_sides(before, after)
    if max_examples < 2:
        raise InputError(f"max_examples must be 2 or more; got {max_examples}.")
    rng = np.random.default_rng(seed)
    x, y = (
        side[rng.permutation(len(side))[:max_examples]].astype(np.float64) for side in (old, new)
    )
    # From the old mean, because what all examples share would drown their distances in rounding.
    middle = x.mean(axis=0)
    x, y = x - middle, y - middle
    within = _squared_distances(x, x)
    width = float(np.median(within[np.triu_indices(len(x), 1)]))
    # Twins are at a distance of rounding, not of exactly 0.
    if width <= 1e-12 * within.max():
        raise InputError(
            f"More than half of the pairs of {len(x)} old examples have the same representation, "
            "so their median distance is 0. Choose a layer that tells examples apart."
        )

    def among(distances: np.ndarray) -> float:
        kernel = np.exp(-distances / width)
        n = len(kernel)
        return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))

    mixed = float(np.exp(-_squared_distances(x, y) / width).mean())
    return among(within) + among(_squared_distances(y, y)) - 2 * mixed


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return squared distances (n, m); the median of squares is the square of the median."""
    norms = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    return np.asarray(np.maximum(norms - 2 * x @ y.T, 0.0))
