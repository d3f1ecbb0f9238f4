"""How much of its confidence a model loses on new data."""

from __future__ import annotations

from resque.index.sums import OutputStatistics
from resque.rivals.inputs import check_outputs


def confidence_drop(before: OutputStatistics, after: OutputStatistics) -> float:
    """Return mean highest probability on the old data minus that on the new, -1 to 1.

    The difference of confidences (DoC) of Guillory et al., arXiv:2107.03315. It needs no labels.
    It is below 0 where the model is surer of the new data, wrongly so perhaps; it equals the
    loss of accuracy only if the model is calibrated, and on held-out old data.

    Args:
        before: what the outputs say on the old data.
        after: likewise on the new data.

    Raises:
        InputError: a side counts no examples.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> one, histogram = np.ones(1), np.zeros((2, 1000), np.int64)
        >>> old = OutputStatistics(False, 8 * one, one, one, 6 * one, one, histogram)
        >>> confidence_drop(old, replace(old, confidence=4 * one))
        0.25
    """
    check_outputs(before, after)
    return before.mean_confidence - after.mean_confidence
