"""What a recorded update would have cost with another target, read off its curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resque.history.records import Target, checked_target
from resque.history.update import Update
from resque.measure.measures import Convergence


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an update came to by the first validation that met a target.

    Attributes:
        reached: whether the target was met; if not, everything else is what the update came to
            without meeting it, and its cost is censored.
        epochs: trained until then.
        steps: likewise.
        seconds: likewise; None where the curve does not tell.
        accuracy: at that validation.
        gradient_norm: mean over all steps until then; None where the curve does not tell.
        parameter_change: since the start, likewise.

    Example:
        >>> Outcome(reached=True, epochs=2.5, steps=80, seconds=9.0, accuracy=0.91).epochs
        2.5
    """

    reached: bool
    epochs: float
    steps: int
    seconds: float | None
    accuracy: float
    gradient_norm: float | None = None
    parameter_change: float | None = None


def outcome_of(update: Update, target: Target) -> Outcome | None:
    """Return what an update would have come to if it had ended at another target.

    One update then says something of many targets: of every accuracy on its curve, and of every
    plateau shorter than its own. Without a curve there is nothing to be read, and None comes back.
    It is exact where the recipe's schedule does not depend on the target, which it never does.

    Args:
        update: with its curve.
        target: an accuracy or a plateau.

    Raises:
        InputError: the target is none.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> data = x, (x[:, 0] > 0).long()
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> made = resque.retrain(model, data, data, target=resque.Plateau(3), meter="none")
        >>> outcome_of(made.update, resque.Accuracy(0.7)).epochs <= made.update.epochs
        True
    """
    convergence = Convergence(checked_target(target))
    if not update.curve:
        return None
    seconds = norms = 0.0
    steps = 0
    for point in update.curve:
        # Before the first step there is no time to be told; NaN, once there, stays.
        seconds += (math.nan if point.seconds is None else point.seconds) if point.steps else 0.0
        # Each point has the mean of the steps since the one before.
        norm = math.nan if point.gradient_norm is None else point.gradient_norm
        norms += norm * (point.steps - steps) if point.steps > steps else 0.0
        steps = point.steps
        reached = convergence.met_by(point.epoch, point.accuracy)
        if reached:
            break
    return Outcome(
        reached=reached,
        epochs=point.epoch,
        steps=point.steps,
        seconds=None if math.isnan(seconds) else seconds,
        accuracy=point.accuracy,
        gradient_norm=norms / steps if steps and not math.isnan(norms) else None,
        parameter_change=point.parameter_change,
    )
