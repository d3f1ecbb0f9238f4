"""How well the old head's outputs foretell the classes of a new task."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.class_mean import class_means
from resque.rivals.inputs import checked_task


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return minus (LEEP + entropy of the labels) in nats; 0 where the outputs say nothing.

    LEEP is the mean of log sum_z P(y_i | z) p_iz, p_iz being the probability that the old head
    gives to old class z for example i, and P(y | z) the share of new class y in the total of z.
    Nguyen et al., arXiv:2002.12462. The entropy of the labels makes tasks comparable; what is
    left is minus the information of the outputs about the class, so it is at most 0.

    On the examples that P(y | z) was made from, and so too good where old classes are many and
    examples few. Without meaning for a model that was not trained as a classifier.

    Args:
        probabilities: of the old classes (n, old classes); each row sums to 1.
        labels: (n,), 0 to C - 1.

    Raises:
        InputError: they are no task, or the rows are no probabilities.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> round(leep(np.eye(3)[labels], labels), 9), leep(np.full((4, 2), 0.5), labels)
        (-0.693147181, 0.0)
    """
    values, numbers = checked_task(probabilities, labels)
    p = values.astype(np.float64)
    sums = p.sum(axis=1)
    bad = (p < 0).any(axis=1) | (np.abs(sums - 1) > 1e-3)
    if bad.any():
        place = int(bad.argmax())
        raise InputError(
            "Each row must be probabilities of the old classes, 0 or more and with sum 1; that of "
            f"example {place} has minimum {p[place].min():.4g} and sum {sums[place]:.4g}. Apply "
            "softmax to class scores."
        )
    shares = np.bincount(numbers) / len(numbers)
    joint = class_means(p, numbers) * shares[:, None]
    totals = joint.sum(axis=0)
    # An old class that is never given any probability is 0/0, and nothing is asked of it.
    given = np.divide(joint, totals, out=np.zeros_like(joint), where=totals > 0)
    likelihood = (given[numbers] * p).sum(axis=1)
    entropy = -(shares * np.log(shares)).sum()
    return float(-np.log(likelihood).mean() - entropy)
