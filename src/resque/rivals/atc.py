"""The error on new data, estimated without their labels."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.index.sums import OutputStatistics


def atc(before: OutputStatistics, after: OutputStatistics) -> float | None:
    """Return the estimated error on the new data, 0 to 1; None where the old have no labels.

    Average thresholded confidence (ATC) of Garg et al., arXiv:2201.04234, with the highest
    probability as the score: the threshold t leaves as many old examples below it as the model
    gets wrong, and the estimate is the share of new examples below t.

    Confidences are known to 1/1000 only; examples within one bin count as spread evenly over it,
    which also splits the ties of a model that is sure of everything. Where a gap between scores
    leaves t open it is the largest, so that a model without an error is not free of them on data
    it is less sure of. The old data must be held out: on training images there are too few errors.

    Args:
        before: what the outputs say on the old data.
        after: likewise on the new data; labels are not used.

    Raises:
        InputError: a histogram of confidence is empty.

    Example:
        >>> zeros = np.zeros(1)
        >>> histogram = np.zeros((2, 1000), np.int64)
        >>> histogram[0, 400], histogram[1, 900] = 25, 75
        >>> old = OutputStatistics(True, zeros, zeros, zeros, zeros, zeros, histogram)
        >>> atc(old, old)
        0.25
    """
    old, new = before.histogram.sum(axis=0), after.histogram.sum(axis=0)
    for name, histogram in (("old", old), ("new", new)):
        if histogram.sum() == 0:
            raise InputError(
                f"The histogram of confidence on the {name} data is empty; give a profile made "
                "with the model and its head."
            )
    if not before.labelled:
        return None
    errors = int(before.histogram[0].sum())
    below = np.concatenate([[0], np.cumsum(old)])
    edge = int(np.searchsorted(below, errors, side="right")) - 1
    if edge == len(old):
        return 1.0
    share = (errors - below[edge]) / old[edge]
    return float((new[:edge].sum() + share * new[edge]) / new.sum())
