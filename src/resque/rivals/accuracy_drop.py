"""How much of its accuracy a model loses on new data."""

from __future__ import annotations

from resque.index.sums import OutputStatistics
from resque.rivals.inputs import check_outputs


def accuracy_drop(before: OutputStatistics, after: OutputStatistics) -> float | None:
    """Return accuracy on the old data minus that on the new, -1 to 1; None without labels.

    Accuracy cannot fall below chance, so among strong shifts it says nothing more; the loss
    does. The old data should be held out: on training images accuracy flatters.

    Args:
        before: what the outputs say on the old data.
        after: likewise on the new data.

    Raises:
        InputError: a side counts no examples.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> one, histogram = np.ones(1), np.zeros((2, 1000), np.int64)
        >>> old = OutputStatistics(True, 8 * one, 6 * one, one, one, one, histogram)
        >>> accuracy_drop(old, replace(old, correct=2 * one))
        0.5
    """
    check_outputs(before, after)
    if before.accuracy is None or after.accuracy is None:
        return None
    return before.accuracy - after.accuracy
