"""ARM: how far the activations of all layers have moved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_sides
from resque.rivals.transport import deviations, wasserstein_1

# Examples at a time, so that what is made of them stays where it is quick to reach.
_BLOCK = 256


def arm(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    *,
    published: bool = False,
    bins: int = 32,
) -> float:
    """Return the mean over layers of the Wasserstein distance of their activations, 0 or more.

    Sangarya et al., arXiv:2405.09600. Here: per unit the 1-Wasserstein distance of old and new
    activations over the unit's standard deviation on the old side (at least 1 % of the quadratic
    mean of those of the layer), so that layers count alike; the mean over units, then over layers.

    `published` follows the authors' scripts: one histogram per unit over the range that the unit
    has on that side, averaged over units, and the Wasserstein distance between the two sets of
    bin *heights*. Any translation or rescaling of all activations then gives 0, and so does any
    permutation of bins. How many bins was not published; theirs elsewhere are 16, 32 or 64.

    Args:
        before: layer -> activations on the old data (n, units).
        after: the same layers -> activations on the new data (m, units).
        published: the distance of the published scripts.
        bins: of their histograms.

    Raises:
        InputError: the layers differ or cannot be compared.

    Example:
        >>> old = {"conv": np.array([[-1.0], [1.0]])}
        >>> new = {"conv": old["conv"] + 3}
        >>> arm(old, new), arm(old, new, published=True)
        (3.0, 0.0)
    """
    if not before or not after:
        raise InputError(
            f"ARM needs the outputs of one layer or more on both sides; got {len(before)} layers "
            f"before and {len(after)} after. `observe(..., layers=True)` keeps those of "
            "convolutions and linear layers."
        )
    if before.keys() != after.keys():
        different = sorted(before.keys() ^ after.keys())
        raise InputError(
            f"Both sides must have the same layers; got {len(before)} before and {len(after)} "
            f"after, not on both: {different[:5]}."
        )
    if bins < 2:
        raise InputError(f"bins must be 2 or more; got {bins}.")
    distances = []
    for layer, values in before.items():
        old, new = checked_sides(values, after[layer], f"activations of {layer!r}")
        if published:
            heights = (_heights(side, bins)[:, None] for side in (old, new))
            distances.append(wasserstein_1(*heights)[0])
        else:
            distances.append((wasserstein_1(old, new) / deviations(old)).mean())
    return float(np.mean(distances))


def _heights(values: np.ndarray, bins: int) -> np.ndarray:
    """Return heights (bins,) of the units' normalised histograms, averaged over units."""
    low, width = values.min(axis=0).astype(np.float64), np.ptp(values.astype(np.float64), axis=0)
    # As numpy does for a constant: a range of 1 about it.
    low, width = np.where(width > 0, low, low - 0.5), np.where(width > 0, width, 1.0)
    counts = np.zeros(bins)
    for start in range(0, len(values), _BLOCK):
        places = values[start : start + _BLOCK].astype(np.float64)
        places -= low
        places *= bins / width
        whole = np.minimum(places.astype(np.int64), bins - 1)
        counts += np.bincount(whole.ravel(), minlength=bins)
    return np.asarray(counts / values.size)
