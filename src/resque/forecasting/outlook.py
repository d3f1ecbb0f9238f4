"""Outlook: what one update that is not yet made may come to, as far as is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from resque.errors import InputError
from resque.forecasting.experience import (
    FEW,
    Distribution,
    Experience,
    Learned,
    scaled,
    unscaled,
)
from resque.forecasting.forecast import TrackRecord
from resque.forecasting.outcome import outcome_of
from resque.forecasting.predictors import CHANGE, ZERO_SHOT, Known, logit, share_of
from resque.history.records import Accuracy, Recipe, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resque.forecasting.regression import Floats

# Of a target: nearer to 1 than this it is as good as 1.
_LEAST_MISS = 1e-4
_Found = TypeVar("_Found", Learned, Distribution)


class Outlook:
    """The distributions of the measures of one update, by what is known before.

    Args:
        experience: of updates that have been made.
        known: of the update.
        target: what ends it.
        recipe: how it is trained.
    """

    def __init__(
        self, experience: Experience, known: Known, target: Target, recipe: Recipe
    ) -> None:
        self.experience, self.known = experience, known
        self.target, self.recipe = target, recipe
        self.row = experience.scale.rows([known])
        self.seen = experience.seen(known)
        self.unseen = tuple(
            name for name, updates in self.seen.items() if name != CHANGE and updates < FEW
        )

    def of(self, measure: str, target: Target | None = None) -> Distribution | None:
        """Return the distribution of a measure, on the scale of its regression."""
        learned = self.experience.learned(measure, target)
        if learned is None:
            return None
        errors, rows, counts = learned.all_errors(self.unseen)
        foretold = learned.regression.predict(self.row)
        weights = self.experience.weights(learned.places[rows])
        return Distribution(
            foretold.mean[0] + foretold.sd[0] * errors, counts * weights, len(set(rows.tolist()))
        )

    def epochs(self) -> tuple[Distribution, float]:
        """Return the distribution of the epochs paid for, and the probability of the target."""
        if isinstance(self.target, Accuracy):
            return self._epochs_to(self.target)
        found = self.needed(self.of("epochs", self.target))
        most = self.recipe.max_epochs
        reaches = found.share_below(float(scaled(np.array(most), self.target)))
        # No plateau is shorter than its patience.
        reaches = reaches if most >= self.target.patience else 0.0
        # An update ends with a validation.
        interval = self.recipe.validation_interval
        epochs = np.round(unscaled(found.values, self.target) / interval) * interval
        soonest = math.ceil(self.target.patience / interval - 1e-9) * interval
        epochs = np.maximum(epochs, soonest)
        return Distribution(np.minimum(epochs, most), found.weights, found.updates), reaches

    def _epochs_to(self, target: Accuracy) -> tuple[Distribution, float]:
        """Return the same for an accuracy, from the learning curves it may have. Equation 17.

        Each known update gives one: what is foretold, and at each epoch the error that was made
        with that update, so that curves stay as smooth as they are.
        """
        epochs, learned = self._curves()
        columns = []
        for each in learned:
            foretold = each.regression.predict(self.row)
            columns.append(foretold.mean[0] + foretold.sd[0] * each.errors(self.unseen))
        curves = np.column_stack(columns)
        there = np.isfinite(curves).all(axis=1)
        weights = self.experience.weights(learned[0].places)[there]
        # Known accuracies are kept a little below 1; a target beyond is not met by them.
        crossed, reach = _crossings(epochs, curves[there], logit(target.value, _LEAST_MISS))
        # It is seen at the validation after.
        interval = self.recipe.validation_interval
        validations = np.ceil(crossed / interval - 1e-9) + 0.0
        most = self.recipe.max_epochs
        # Beyond the longest curve known accuracy is taken to stay where it is.
        spent = np.where(reach, np.minimum(validations * interval, most), most)
        if self._begins_below(target):
            spent = np.maximum(spent, min(interval, most))
        return Distribution(spent, weights), float(weights[reach].sum() / weights.sum())

    def _begins_below(self, target: Accuracy) -> bool:
        """Return whether the model is known to be below a target before the first step."""
        error = self.known.predictors.get("error_before")
        # A fresh classifier knows nothing.
        return self.recipe.start != "weights" or (
            error is not None and error > ZERO_SHOT["error_before"](1 - target.value)
        )

    def _curves(self) -> tuple[Floats, list[Learned]]:
        """Return the epochs at which accuracy is foretold, and what is learned of each."""
        last = min(self.recipe.max_epochs, self.experience.longest)
        if not last:
            raise InputError(
                f"None of the {len(self.experience.updates)} known updates has a learning curve "
                "(curve), which an accuracy is forecast from. Measure updates with one, use the "
                "corpus, or ask for a plateau."
            )
        epochs = [0.0, *(2.0**k for k in range(-1, 30) if 2.0**k < last), last]
        learned = [self.needed(self.experience.learned(f"accuracy at {e:g}")) for e in epochs]
        return np.array(epochs), learned

    def track_record(self) -> TrackRecord:
        """Return how well the known updates are foretold in the same way."""
        if isinstance(self.target, Accuracy):
            foretold, true = self._foretold_crossings(self.target)
        else:
            epochs = self.needed(self.experience.learned("epochs", self.target))
            mean, _ = epochs.foretold(self.unseen)
            there = np.isfinite(mean) & ~epochs.censored
            foretold = unscaled(mean[there], self.target)
            true = unscaled(epochs.y[there], self.target)
        peak = self.needed(self.experience.learned("peak_accuracy"))
        best, _ = peak.foretold(self.unseen)
        known = np.isfinite(best) & ~peak.censored
        missed = np.abs(share_of(best) - share_of(peak.y))[known]
        return TrackRecord(
            updates=len(true),
            unseen=peak.checkable(self.unseen),
            epochs_error=float(np.median(np.abs(foretold / true - 1))) if len(true) else None,
            accuracy_error=float(missed.mean()) if len(missed) else None,
        )

    def _foretold_crossings(self, target: Accuracy) -> tuple[Floats, Floats]:
        """Return the epochs to an accuracy that are foretold of the known updates, and the true."""
        epochs, learned = self._curves()
        updates = [self.experience.updates[at] for at in learned[0].places]
        curves = np.column_stack([each.foretold(self.unseen)[0] for each in learned])
        wanted = logit(target.value, _LEAST_MISS)
        crossed, _ = _crossings(epochs, np.nan_to_num(curves, nan=-math.inf), wanted)
        foretold, true = [], []
        for update, curve, epoch in zip(updates, curves, crossed, strict=True):
            outcome = outcome_of(update, target)
            if outcome is None or not (outcome.reached and np.isfinite(curve).all()):
                continue
            if 0 < outcome.epochs <= self.recipe.max_epochs:
                interval = (update.recipe or self.recipe).validation_interval
                foretold.append(max(1, math.ceil(epoch / interval - 1e-9)) * interval)
                true.append(outcome.epochs)
        return np.array(foretold), np.array(true)

    def needed(self, found: _Found | None) -> _Found:
        """Return what was found, or raise InputError where nothing was."""
        if found is None:
            raise InputError(
                f"None of the {len(self.experience.updates)} known updates tells enough of this: "
                "fewer than two met their target. Measure more updates, or use the corpus."
            )
        return found


def _crossings(epochs: Floats, curves: Floats, wanted: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return after how many epochs learning curves reach a value, and which of them do.

    Those that do not are given all epochs.

    Args:
        epochs: (epochs,), from 0 to the last that is trained.
        curves: (curves, epochs); what has been reached once stays.
        wanted: the value.
    """
    curves = np.maximum.accumulate(curves, axis=1)
    reach = curves[:, -1] >= wanted
    after = np.argmax(curves >= wanted, axis=1)
    before = np.maximum(after - 1, 0)
    places = np.arange(len(curves))
    low, high = curves[places, before], curves[places, after]
    rise = np.where(after > before, high - low, 1.0)
    share = np.where(after > before, (wanted - low) / np.where(rise > 0, rise, 1.0), 0.0)
    crossed = epochs[before] + share * (epochs[after] - epochs[before])
    return np.where(reach, crossed, epochs[-1]), reach
