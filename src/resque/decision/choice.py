"""The rule of a choice: the cheapest option that reaches the target, and what ties with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resque.errors import InputError
from resque.forecasting.experience import Distribution
from resque.forecasting.regression import Floats

# Probabilities of the target nearer to each other than this are one; and nearer than the second,
# one option is about as likely to reach it as another: forecasts know no better.
_ALIKE, _ABOUT_ALIKE = 0.01, 0.1
# Quantiles of which a sum is made.
_STEPS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Priced:
    """What matters of an option for a choice.

    Attributes:
        name: of the option.
        cost: what it may come to, in whatever all options are compared by.
        reaches: probability of the target.
        accuracy: at best, median.
    """

    name: str
    cost: Distribution
    reaches: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What a rule says of several options.

    Attributes:
        recommended: the cheapest that reaches the target with the asked probability; None where
            none does.
        best: the recommended one; without any, the likeliest to reach the target.
        ties: other options that do, and of which it cannot be told that they cost more; where
            none does, those about as likely to as the best one, and cheaper by the median.
        cheaper: name -> probability that the option costs less than the best one.
        front: options to which none is both cheaper and better.
    """

    recommended: str | None
    best: str
    ties: tuple[str, ...]
    cheaper: dict[str, float]
    front: frozenset[str]


def free() -> Distribution:
    """Return the cost of an option that costs nothing."""
    return Distribution(np.zeros(1), np.ones(1))


def choice_of(priced: Sequence[Priced], probability: float) -> Choice:
    """Return the cheapest option that reaches the target, by median cost. method.md, equation 19.

    Of equal medians the least mean is taken, and of these the option that is surest.

    An option ties with it that reaches the target as surely and would cost no more in more than
    one tail of an interval of that level. Costs are taken to be independent, though forecasts for
    the same data err together: more ties are told than there are.

    Args:
        priced: the options.
        probability: with which the target is to be reached, above 0 and below 1.

    Raises:
        InputError: there is no option.

    Example:
        >>> costs = {"small": [1.0, 2.0], "large": [7.0, 9.0]}
        >>> options = [
        ...     Priced(name=n, cost=Distribution(np.array(c), np.ones(2)), reaches=r, accuracy=r)
        ...     for (n, c), r in zip(costs.items(), (0.5, 0.95))
        ... ]
        >>> choice_of(options, 0.9).recommended, choice_of(options, 0.4).recommended
        ('large', 'small')
    """
    if not priced:
        raise InputError("There is no option left to choose from.")
    medians = {one.name: one.cost.median() for one in priced}
    able = [one for one in priced if one.reaches >= probability]
    if able:
        # A training that most likely takes no epoch is dearer than one that is not needed.
        best = min(able, key=lambda one: (medians[one.name], _mean(one.cost), -one.reaches))
    else:
        most = max(one.reaches for one in priced)
        alike = [one for one in priced if one.reaches >= most - _ALIKE]
        best = max(alike, key=lambda one: (one.accuracy, -medians[one.name]))
    cheaper = {
        one.name: probability_below(one.cost, best.cost) for one in priced if one is not best
    }
    tail = (1 - probability) / 2
    ties = [
        one.name
        for one in able
        if one is not best and probability_below(best.cost, one.cost) < 1 - tail
    ]
    if not able:
        ties = [
            one.name
            for one in priced
            if one.reaches >= best.reaches - _ABOUT_ALIKE and medians[one.name] < medians[best.name]
        ]
    return Choice(
        recommended=best.name if able else None,
        best=best.name,
        ties=tuple(ties),
        cheaper=cheaper,
        front=_front(priced, medians),
    )


def probability_below(one: Distribution, other: Distribution) -> float:
    """Return the probability that one number is below another.

    Args:
        one: independent of the other.
        other: likewise.
    """
    order = np.argsort(other.values, kind="stable")
    values, shares = other.values[order], other.weights[order] / other.weights.sum()
    # Weight of the other at or above each place.
    above = np.concatenate([np.cumsum(shares[::-1])[::-1], [0.0]])
    won = above[np.searchsorted(values, one.values, side="right")]
    return float((won * one.weights).sum() / one.weights.sum())


def together(one: Distribution, other: Distribution) -> Distribution:
    """Return the distribution of the sum of two numbers that rise and fall together.

    As the money for the hours and for the energy of one update does: both are its epochs, times
    what a step costs.

    Args:
        one: of a number.
        other: of another.
    """
    shares = (np.arange(_STEPS) + 0.5) / _STEPS
    total = quantiles(one, shares) + quantiles(other, shares)
    count = min(one.weights.sum(), other.weights.sum())
    updates = min(d.updates or len(d.values) for d in (one, other))
    return Distribution(total, np.full(_STEPS, count / _STEPS), updates)


def _mean(cost: Distribution) -> float:
    return float(np.average(cost.values, weights=cost.weights))


def quantiles(distribution: Distribution, shares: Floats) -> Floats:
    """Return what a number stays at or below with these shares (shares,), as it was drawn.

    Unlike `Distribution.quantile` these leave no room for an update to come.

    Args:
        distribution: of the number.
        shares: above 0 and below 1.
    """
    order = np.argsort(distribution.values)
    reached = np.cumsum(distribution.weights[order])
    places = np.searchsorted(reached, shares * reached[-1])
    found: Floats = distribution.values[order][np.minimum(places, len(order) - 1)]
    return found


def _front(priced: Sequence[Priced], medians: dict[str, float]) -> frozenset[str]:
    """Return the names of the options that no other one beats in cost without losing accuracy."""

    def beaten(one: Priced) -> bool:
        return any(
            medians[other.name] <= medians[one.name]
            and other.accuracy >= one.accuracy
            and (medians[other.name], -other.accuracy) != (medians[one.name], -one.accuracy)
            for other in priced
        )

    return frozenset(one.name for one in priced if not beaten(one))
