"""Outlook: what one update that is not yet made may come to, as far as is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.special import ndtri

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
# Examples that are taken to be there where their number is not known.
_FEW_EXAMPLES = 300
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
        """Return the same for an accuracy, from the learning curves it may have. Equation 17."""
        curves = self._needed_curves()
        # Known accuracies are kept a little below 1; a target beyond is not met by them.
        crossed, reach = curves.crossings(logit(target.value, _LEAST_MISS))
        # It is seen at the validation after.
        interval = self.recipe.validation_interval
        validations = np.ceil(crossed / interval - 1e-9) + 0.0
        most = self.recipe.max_epochs
        # Beyond the longest curve known accuracy is taken to stay where it is.
        spent = np.where(reach, np.minimum(validations * interval, most), most)
        if self._begins_below(target):
            spent = np.maximum(spent, min(interval, most))
        reached = float(curves.weights[reach].sum() / curves.weights.sum())
        return Distribution(spent, curves.weights), reached

    def peak(self) -> Distribution:
        """Return the distribution of the best accuracy until the recipe gives up, as log odds.

        It is where the learning curves end that the probability of a target is read off.
        """
        if self._peak_of_curves:
            curves = self._needed_curves()
            return Distribution(curves.values[:, -1], curves.weights)
        best = self.needed(self.of("peak_accuracy"))
        return best.through(lambda values: np.maximum(values, self._floor()))

    @property
    def checkable(self) -> tuple[str, ...]:
        """Of what is new in the update, how much it matters can be seen: names of groupings."""
        return self.needed(self._of_the_end()).checkable(self.unseen)

    def _begins_below(self, target: Accuracy) -> bool:
        """Return whether the model is known to be below a target before the first step."""
        if self.known.accuracy_before is not None:
            return self.known.accuracy_before < target.value
        error = self.known.predictors.get("error_before")
        # A fresh classifier knows nothing.
        return self.recipe.start != "weights" or (
            error is not None and error > ZERO_SHOT["error_before"](1 - target.value)
        )

    @cached_property
    def _curves(self) -> _Curves | None:
        """The learning curves that the update may have; None where no known update has one.

        Each known update gives one: what is foretold, and at each epoch the error that was made
        with that update, so that curves stay as smooth as they are.
        """
        if not self.experience.longest:
            return None
        epochs, learned = self._at_epochs()
        columns = []
        for each in learned:
            foretold = each.regression.predict(self.row)
            columns.append(foretold.mean[0] + foretold.sd[0] * each.errors(self.unseen))
        values = np.column_stack(columns)
        if self.known.accuracy_before is not None:
            # Before the first step nothing has to be foretold.
            values[:, 0] = self._floor()
        values = np.maximum(values, self._floor())
        there = np.isfinite(values).all(axis=1)
        weights = self.experience.weights(learned[0].places)[there]
        return _Curves.of(epochs, values[there], weights, self.recipe.max_epochs)

    def _needed_curves(self) -> _Curves:
        if self._curves is None:
            raise InputError(
                f"None of the {len(self.experience.updates)} known updates has a learning curve "
                "(curve), which an accuracy is forecast from. Measure updates with one, use the "
                "corpus, or ask for a plateau."
            )
        return self._curves

    def _at_epochs(self) -> tuple[Floats, list[Learned]]:
        """Return the epochs at which accuracy is foretold, and what is learned of each.

        The same epochs whatever the recipe allows: with more of them no target is less likely.
        """
        longest = self.experience.longest
        epochs = [0.0, *(2.0**k for k in range(-1, 30) if 2.0**k < longest), longest]
        learned = [self.needed(self.experience.learned(f"accuracy at {e:g}")) for e in epochs]
        return np.array(epochs), learned

    @property
    def _peak_of_curves(self) -> bool:
        """Whether the peak is that of learning curves: those must be known of half the updates."""
        curved = sum(bool(update.curve) for update in self.experience.updates)
        most = 2 * curved >= len(self.experience.updates)
        return curved > 0 and (most or isinstance(self.target, Accuracy))

    def _of_the_end(self) -> Learned | None:
        if not self._peak_of_curves:
            return self.experience.learned("peak_accuracy")
        return self._at_epochs()[1][-1]

    def _floor(self) -> float:
        """Return the log odds below which no accuracy is foretold; minus infinity where none is.

        A model can go back to what it can do already. Where that was seen on another sample of the
        data than it will be seen on, the other may make the worse of it.
        """
        before = self.known.accuracy_before
        if before is not None:
            floor = logit(before, _LEAST_MISS)
            if isinstance(self.target, Accuracy) and before < self.target.value:
                # However near to 1 both are.
                wanted = logit(self.target.value, _LEAST_MISS)
                floor = min(floor, math.nextafter(wanted, -math.inf))
            return floor
        error = self.known.predictors.get("error_before")
        classes = math.exp(self.known.predictors.get("classes", math.inf))
        if self.recipe.start == "weights" and error is not None:
            share = float(share_of(np.array(-error)))
        elif math.isfinite(classes):
            # No classifier is trained to do worse than by chance.
            share = 1 / classes
        else:
            return -math.inf
        seen = math.exp(self.known.predictors.get("training_examples", math.log(_FEW_EXAMPLES)))
        differ = share * (1 - share) * (1 / seen + 1 / (self.known.validation_examples or seen))
        return logit(share - float(ndtri(0.95)) * math.sqrt(differ))

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
        peak = self.needed(self._of_the_end())
        best, _ = peak.foretold(self.unseen)
        known = np.isfinite(best) & ~peak.censored
        missed = np.abs(share_of(best) - share_of(peak.y))[known]
        return TrackRecord(
            updates=len(true),
            unseen=self.checkable,
            epochs_error=float(np.median(np.abs(foretold / true - 1))) if len(true) else None,
            accuracy_error=float(missed.mean()) if len(missed) else None,
        )

    def _foretold_crossings(self, target: Accuracy) -> tuple[Floats, Floats]:
        """Return the epochs to an accuracy that are foretold of the known updates, and the true."""
        epochs, learned = self._at_epochs()
        updates = [self.experience.updates[at] for at in learned[0].places]
        values = np.column_stack([each.foretold(self.unseen)[0] for each in learned])
        there = np.asarray(np.isfinite(values).all(axis=1))
        curves = _Curves.of(
            epochs, values[there], np.ones(int(there.sum())), self.recipe.max_epochs
        )
        crossed, _ = curves.crossings(logit(target.value, _LEAST_MISS))
        foretold, true = [], []
        known = [update for update, here in zip(updates, there, strict=True) if here]
        for update, epoch in zip(known, crossed, strict=True):
            outcome = outcome_of(update, target)
            if outcome is None or not outcome.reached:
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


@dataclass(frozen=True, slots=True)
class _Curves:
    """Learning curves: the best accuracy, as log odds, after some epochs.

    Attributes:
        epochs: (epochs,), from 0 to the last that is trained.
        values: (curves, epochs); they never fall.
        weights: (curves,); how many updates each counts for.
    """

    epochs: Floats
    values: Floats
    weights: Floats

    @classmethod
    def of(cls, epochs: Floats, values: Floats, weights: Floats, most: float) -> _Curves:
        """Return curves through accuracies, as far as they are trained.

        An accuracy counts from when no later one is lower: the last, which has the most to say of
        the peak, stays as it was foretold. The best so far would be too high, by the luck of the
        best of many; so this is a little too low before the end (docs/decisions/0013).

        Args:
            epochs: (epochs,), from 0.
            values: (curves, epochs).
            weights: (curves,).
            most: epochs that are trained; beyond the last one accuracy is not known to rise.
        """
        values = np.minimum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
        if most < epochs[-1]:
            after = int(np.searchsorted(epochs, most))
            share = (most - epochs[after - 1]) / (epochs[after] - epochs[after - 1])
            last = (1 - share) * values[:, after - 1] + share * values[:, after]
            values = np.column_stack([values[:, :after], last])
            epochs = np.append(epochs[:after], most)
        return cls(epochs, values, weights)

    def crossings(self, wanted: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Return after how many epochs curves reach a value, and which of them do.

        Those that do not are given all epochs.

        Args:
            wanted: the value.
        """
        epochs, curves = self.epochs, self.values
        reach = curves[:, -1] >= wanted
        after = np.argmax(curves >= wanted, axis=1)
        before = np.maximum(after - 1, 0)
        places = np.arange(len(curves))
        low, high = curves[places, before], curves[places, after]
        rise = np.where(after > before, high - low, 1.0)
        share = np.where(after > before, (wanted - low) / np.where(rise > 0, rise, 1.0), 0.0)
        crossed = epochs[before] + share * (epochs[after] - epochs[before])
        return np.where(reach, crossed, epochs[-1]), reach
