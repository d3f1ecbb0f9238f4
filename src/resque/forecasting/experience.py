"""Experience: measured updates, and what is learned from them about updates to come."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri

from resque.errors import InputError
from resque.forecasting.outcome import Outcome, outcome_of
from resque.forecasting.predictors import CHANGE, Known, Scale, known_of, logit
from resque.forecasting.regression import Floats, Places, PooledRegression, of_one_group
from resque.history.records import Plateau, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resque.history.update import Update

VARIANCES = "variances.json"
# A group of fewer updates is as good as new when it is asked how well such forecasts did.
FEW = 10
# Where a censored update came to, no further than so many standard deviations beyond its bound.
_BEYOND = 3.0
# And at these shares of what lies there.
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Updates to learn from.
_FEWEST = 2
# Where on a learning curve its variances are fitted.
_CURVE = "accuracy at 4"
# Regressions on what updates came to at one target or another; each takes some megabytes.
_REMEMBERED = 24

# The value of an update on the scale of a regression, and whether it is a lower bound.
Reading: TypeAlias = tuple[float, bool] | None


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a number may come to.

    Attributes:
        values: (values,).
        weights: (values,); how many updates each counts for.
        updates: from how many it is drawn, whatever they count for; None for one per value.
    """

    values: Floats
    weights: Floats
    updates: int | None = None

    def quantile(self, share: float) -> float:
        """Return the value that such a share of updates to come stays at or below. Equation 16.

        The update to come counts as one more, at the far end, so that few values make wide
        intervals: weighted conformal prediction, Tibshirani et al., arXiv:1904.06019. NaN where
        the values are too few for such a share.

        Args:
            share: above 0 and below 1.
        """
        upper = share >= 0.5
        order = np.argsort(self.values if upper else -self.values)
        reached = np.cumsum(self.weights[order])
        wanted = (share if upper else 1 - share) * (reached[-1] + 1)
        place = int(np.searchsorted(reached, wanted - 1e-9))
        return float(self.values[order][place]) if place < len(order) else math.nan

    def median(self) -> float:
        """Return the least value with half of the weight at or below it."""
        order = np.argsort(self.values)
        reached = np.cumsum(self.weights[order])
        return float(self.values[order][np.searchsorted(reached, reached[-1] / 2)])

    def through(self, function: Callable[[Floats], Floats]) -> Distribution:
        """Return the distribution of a rising function of the number.

        Args:
            function: of (values,).
        """
        return Distribution(function(self.values), self.weights, self.updates)

    def times(self, other: Distribution) -> Distribution:
        """Return the distribution of the product with an independent number.

        It counts for as many updates as the other does.

        Args:
            other: distribution of that number.
        """
        shares = self.weights / self.weights.sum()
        return Distribution(
            np.outer(self.values, other.values).ravel(),
            np.outer(shares, other.weights).ravel(),
            other.updates or len(other.values),
        )

    def surely_below(self, bound: float) -> float:
        """Return the least probability of an update to come to be at or below a bound.

        The update to come counts as one more, beyond the bound; see `quantile`.

        Args:
            bound: in the unit of the number.
        """
        return float(self.weights[self.values <= bound].sum() / (self.weights.sum() + 1))

    def share_below(self, bound: float) -> float:
        """Return the share of the weight at or below a bound."""
        return float(self.weights[self.values <= bound].sum() / self.weights.sum())


@dataclass(frozen=True, slots=True)
class Learned:
    """One measure of the updates that have it, and the regression on what was known of them.

    Attributes:
        places: of these updates among all (rows,).
        y: what they came to, on the scale of the regression (rows,).
        censored: of which that is a lower bound (rows,).
        regression: fitted on them.
        memory: groupings that are new -> what has been foretold without their like.
    """

    places: Places
    y: Floats
    censored: NDArray[np.bool_]
    regression: PooledRegression
    memory: dict[tuple[str, ...], tuple[Floats, Floats]] = field(default_factory=dict)

    def checkable(self, unseen: Sequence[str]) -> tuple[str, ...]:
        """Return of what is new in an update to come how much it matters can be seen.

        Of groupings of which most rows would have nothing left to be foretold from it cannot.

        Args:
            unseen: names of groupings.
        """
        return self._left_out(unseen)[1]

    def foretold(self, unseen: Sequence[str]) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each row as foretold without its like (rows,).

        Without those of the same kind of change, because that of an update to come is new more
        often than not, and without those that share a group that is new in the update to come.

        Args:
            unseen: names of groupings.
        """
        key = tuple(unseen)
        if key not in self.memory:
            found = self.regression.leave_out(self._left_out(unseen)[0])
            self.memory[key] = found.mean, found.sd
        return self.memory[key]

    def _left_out(self, unseen: Sequence[str]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
        left_out = np.eye(len(self.y), dtype=bool)
        names = []
        for name in (CHANGE, *unseen):
            labels = self.regression.rows.groups[name]
            more = left_out | of_one_group(labels, labels)
            if np.mean(more.all(axis=1)) < 0.5:
                left_out = more
                names.append(name)
        return left_out, tuple(name for name in names if name != CHANGE)

    def errors(self, unseen: Sequence[str], share: float = 0.5) -> Floats:
        """Return by how many standard deviations each row was missed (rows,); NaN for none.

        The r of method.md, equation 16.

        A censored row lies beyond its bound, as a normal distribution cut off there does.

        Args:
            unseen: names of groupings.
            share: of what lies beyond a bound, where a censored row is put.
        """
        mean, sd = self.foretold(unseen)
        errors: Floats = (self.y - mean) / sd
        below = ndtr(errors)
        beyond = np.minimum(ndtri(below + share * (1 - below)), errors + _BEYOND)
        return np.where(self.censored, beyond, errors)

    def all_errors(self, unseen: Sequence[str]) -> tuple[Floats, Places, Floats]:
        """Return errors, the rows that they are of, and for how much of its row each counts.

        An exact row has one; a censored one several, spread over what lies beyond its bound.

        Args:
            unseen: names of groupings.
        """
        exact = np.flatnonzero(~self.censored)
        rest = np.flatnonzero(self.censored)
        errors = [self.errors(unseen)[exact]]
        errors += [self.errors(unseen, share)[rest] for share in _SHARES]
        rows = np.concatenate([exact, *([rest] * len(_SHARES))])
        counts = np.concatenate(
            [np.ones(len(exact)), np.full(len(rows) - len(exact), 1 / len(_SHARES))]
        )
        found = np.concatenate(errors)
        there = np.isfinite(found)
        return found[there], rows[there], counts[there]


class Experience:
    """Updates as rows of regressions, which are fitted when they are asked for.

    Args:
        own: the user's own updates.
        others: those of the corpus.
        variances: measure -> variances of the regression; what is not there is fitted.

    Raises:
        InputError: there is no update at all.
    """

    def __init__(
        self,
        own: Sequence[Update],
        others: Sequence[Update],
        variances: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.updates = (*own, *others)
        if not self.updates:
            raise InputError(
                "There are no updates to forecast from: the history is empty, and the corpus is "
                "not used. Use the corpus, or add updates: `resque retrain` and History.add do."
            )
        self.own = np.arange(len(self.updates)) < len(own)
        self.known = tuple(known_of(update) for update in self.updates)
        self.scale = Scale.of(self.known)
        self.rows = self.scale.rows(self.known)
        # Beyond its last epoch no learning curve is known.
        self.longest = max((u.curve[-1].epoch for u in self.updates if u.curve), default=0.0)
        self._variances = dict(variances or {})
        self._fits: dict[tuple[str, Target | None], Mapping[str, float]] = {}
        self._learned: dict[tuple[str, Target | None], Learned | None] = {}

    def learned(self, measure: str, target: Target | None = None) -> Learned | None:
        """Return what the updates say of a measure; None where none of them has it.

        Args:
            measure: see `reading_of`.
            target: what the updates are read at.
        """
        key = measure, target
        if key not in self._learned:
            found = self._fitted(measure, target)
            # Learning curves serve every target; of other targets few are asked for again.
            of_targets = [each for each in self._learned if each[1] is not None]
            if target is not None and len(of_targets) >= _REMEMBERED:
                self._learned.pop(of_targets[0], None)
            self._learned[key] = found
            return found
        return self._learned[key]

    def fitted_variances(self) -> dict[str, Mapping[str, float]]:
        """Return the variances of all regressions that have been asked for: measure -> part."""
        return {
            _kind(measure): learned.regression.variances
            for (measure, _), learned in self._learned.items()
            if learned is not None
        }

    def weights(self, places: Places) -> Floats:
        """Return how many updates each counts for in an interval: an own one for one.

        The corpus gives way as own updates come: to that of one all of it, over their number.
        """
        return np.where(self.own[places], 1.0, 1.0 / (1 + self.own.sum()))

    def over_probe(self, what: str, meter: str | None = None) -> Distribution:
        """Return what updates took over what their probes foretold; 1 where none tells.

        Args:
            what: "seconds" or "joules"; where an update has no joules, its seconds stand for them.
            meter: whose joules these are; those of another meter say nothing of it.
        """
        read = [
            (place, found)
            for place, update in enumerate(self.updates)
            # Own updates that shared the machine took longer than their probes, which did not.
            if (update.concurrency == 1 or not self.own[place])
            and (found := _over_probe(update, what, meter)) is not None
        ]
        if not read:
            return Distribution(np.ones(1), np.ones(1))
        places = np.array([place for place, _ in read])
        return Distribution(np.array([ratio for _, ratio in read]), self.weights(places))

    def seen(self, known: Known) -> dict[str, int]:
        """Return how many updates share each group of another: grouping -> updates."""
        return {
            name: int((labels == known.groups[name]).sum())
            for name, labels in self.rows.groups.items()
        }

    def _fitted(self, measure: str, target: Target | None) -> Learned | None:
        read = reading_of(measure, target)
        found = [(place, *got) for place, u in enumerate(self.updates) if (got := read(u))]
        exact = sum(not censored for _, _, censored in found)
        if measure == "epochs" and exact < _FEWEST:
            return None
        if len(found) < _FEWEST:
            return None
        if exact < _FEWEST:
            # All ended because they were good enough: what they came to is all that they tell.
            found = [(place, value, False) for place, value, _ in found]
        places = np.array([place for place, _, _ in found])
        y = np.array([value for _, value, _ in found])
        censored = np.array([bound for _, _, bound in found])
        kind = _kind(measure), target
        if kind[0] == _kind(_CURVE) and measure != _CURVE and kind[0] not in self._variances:
            # Learning curves have the same variances at all their epochs: those of the middle.
            self.learned(_CURVE)
        variances = self._variances.get(kind[0], self._fits.get(kind))
        regression = PooledRegression(self.rows[places], y, censored, variances=variances)
        self._fits.setdefault(kind, regression.variances)
        return Learned(places, y, censored, regression)


def _kind(measure: str) -> str:
    return measure.partition(" at ")[0]


def reading_of(measure: str, target: Target | None) -> Callable[[Update], Reading]:
    """Return what reads a measure off an update, on the scale of its regression.

    Args:
        measure: "epochs" until a target, `scaled`; "gradient_norm" and "parameter_change" until
            then, as logarithms; "peak_accuracy" and "accuracy at E", the best until epoch E, as
            log odds.
        target: for the first three.
    """
    if measure.startswith("accuracy at "):
        epoch = float(measure.removeprefix("accuracy at "))
        return lambda update: _best_until(update, epoch)
    if measure == "peak_accuracy":
        return _peak
    if target is None:
        raise ValueError(f"{measure} is read at a target")
    return lambda update: _at_target(update, measure, target)


def scaled(epochs: Floats, target: Target) -> Floats:
    """Return epochs on the scale of their regression: the logarithm of 1 + those before the wait.

    A plateau is met once its patience is over, and varies by what comes before.

    Args:
        epochs: trained until the target.
        target: that target.
    """
    waited = target.patience if isinstance(target, Plateau) else 0.0
    return np.log1p(np.maximum(epochs - waited, 0.0))


def unscaled(values: Floats, target: Target) -> Floats:
    """Return the epochs of which `scaled` gives these values.

    Args:
        values: on the scale of the regression.
        target: what ends the updates.
    """
    waited = target.patience if isinstance(target, Plateau) else 0.0
    return np.maximum(np.expm1(values), 0.0) + waited


def _at_target(update: Update, measure: str, target: Target) -> Reading:
    outcome = outcome_of(update, target)
    if outcome is None:
        # Without a curve an update tells of its own target only.
        if update.target != target:
            return None
        outcome = Outcome(
            reached=update.reached, epochs=update.epochs, steps=update.steps,
            seconds=update.duration_s, accuracy=update.peak_accuracy or math.nan,
            gradient_norm=update.gradient_norm, parameter_change=update.parameter_change,
        )  # fmt: skip
    value: float | None = getattr(outcome, measure)
    # An update that met its target before the first step cost nothing, and teaches nothing.
    if value is None or not value > 0 or not math.isfinite(value):
        return None
    if measure == "epochs":
        return float(scaled(np.array(value), target)), not outcome.reached
    # The norm after its end may be larger or smaller; the change of one that was given up is what
    # such an update comes to, and of one that ended sooner for another reason it is too little.
    given_up = update.ended in ("plateau", "max_epochs")
    return math.log(value), measure == "parameter_change" and not (outcome.reached or given_up)


def _peak(update: Update) -> Reading:
    if update.peak_accuracy is None:
        return None
    # It ended because it was good enough, and might have become better.
    return logit(update.peak_accuracy), update.ended == "target"


def _best_until(update: Update, epoch: float) -> Reading:
    if not update.curve:
        return None
    after = bisect_right(update.curve, epoch, key=lambda point: point.epoch)
    best = max(point.accuracy for point in update.curve[: max(after, 1)])
    value = logit(best)
    if 0 < after < len(update.curve):
        last, following = update.curve[after - 1], update.curve[after]
        share = (epoch - last.epoch) / (following.epoch - last.epoch)
        value += share * (logit(max(best, following.accuracy)) - value)
    # Beyond its end accuracy is taken to stay where it was, unless it ended for another reason than
    # that its epochs were over: nearly so, and what "at least so much" says of an epoch later is a
    # leap to what other updates came to.
    over = update.ended in ("plateau", "max_epochs")
    return value, epoch > update.curve[-1].epoch and not over


def _over_probe(update: Update, what: str, meter: str | None) -> float | None:
    tried = (update.preflight or {}).get("probe")
    if tried is None or not update.steps or not update.curve:
        return None
    if what == "joules":
        same = (
            update.energy is not None and update.energy.meter == tried["energy"]["meter"] == meter
        )
        ratio = None
        if same and update.energy is not None and update.concurrency == 1:
            ratio = _ratio(update, update.energy.joules, tried, "joules")
        return _over_probe(update, "seconds", None) if ratio is None else ratio
    return _ratio(update, update.duration_s, tried, "seconds")


def _ratio(
    update: Update, spent: float | None, tried: Mapping[str, Any], what: str
) -> float | None:
    step, validation = tried[f"{what}_per_step"], tried[f"{what}_per_validation"]
    if spent is None or step is None or validation is None:
        return None
    foretold = update.steps * step["median"] + len(update.curve) * validation["median"]
    return float(spent / foretold) if spent > 0 and foretold > 0 else None


@cache
def shipped_variances() -> Mapping[str, Mapping[str, float]]:
    """Return the variances that were fitted to the corpus: measure -> part -> variance."""
    text = (files("resque.forecasting") / VARIANCES).read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(text)
    return found
