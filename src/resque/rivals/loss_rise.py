"""How much a model's loss rises on new data."""

from __future__ import annotations

from resque.index.sums import OutputStatistics
from resque.rivals.inputs import check_outputs


def loss_rise(before: OutputStatistics, after: OutputStatistics) -> float | None:
    """Return mean cross-entropy on the new data minus that on the old, nats; None without labels.

    A few confident errors can make most of it, and it depends on the calibration of the model.

    Args:
        before: what the outputs say on the old data.
        after: likewise on the new data.

    Raises:
        InputError: a side counts no examples.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> one, histogram = np.ones(1), np.zeros((2, 1000), np.int64)
        >>> old = OutputStatistics(True, 8 * one, 6 * one, 4 * one, one, one, histogram)
        >>> loss_rise(old, replace(old, loss=12 * one))
        1.0
    """
    check_outputs(before, after)
    if before.mean_loss is None or after.mean_loss is None:
        return None
    return after.mean_loss - before.mean_loss
