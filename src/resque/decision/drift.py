"""How data drift away from a model, and what accuracy that costs: two laws fitted to few points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError
from resque.forecasting.regression import Floats

if TYPE_CHECKING:
    from numpy.random import Generator

    from resque.forecasting.experience import Experience
    from resque.history.update import Update

DAYS_PER_YEAR = 365.25
# Two degrees of freedom: with one, nine of ten rates lie within 6 standard errors, and with two
# within 3.
FEWEST_INCREMENTS = 3
# A level, a steepness, and two degrees of freedom.
FEWEST_ACCURACIES = 4
# Below this index a ratio of accuracy to index is mostly noise.
_LEAST_INDEX = 0.02
_FEWEST_UPDATES = 5
# A loss in proportion to the index, and one that grows faster the farther the data have moved.
_POWERS = (1.0, 2.0)
_SECONDS_PER_YEAR = DAYS_PER_YEAR * 86400


@dataclass(frozen=True, slots=True)
class _Law:
    """A trend: in the time since the data were those of the model, to a power.

    Attributes:
        power: 1 for a steady growth, 2 for one that is faster and faster.
        rate: growth is rate x ((age + h)^power - age^power) over the next h years.
        error: standard error of the rate, in units of the spread.
        spread: standard deviation of the growth of one year about the trend.
        age: years since the data were those of the model; of no account where the power is 1.
        weight: how probable the law is.
    """

    power: float
    rate: float
    error: float
    spread: float
    age: float = 0.0
    weight: float = 1.0

    @classmethod
    def of(cls, years: Floats, grown: Floats, power: float, age: float) -> _Law:
        """Return the law of increments by generalised least squares.

        Args:
            years: that each lasted (n,).
            grown: increments (n,), each with a variance in proportion to its years.
            power: of the law.
            age: years at the beginning of the first.
        """
        ages = age + np.concatenate([[0.0], np.cumsum(years)])
        shape = np.diff(ages**power)
        known = float((shape**2 / years).sum())
        rate = float((shape * grown / years).sum()) / known
        variance = float(((grown - rate * shape) ** 2 / years).sum()) / (len(grown) - 1)
        return cls(power, rate, 1 / math.sqrt(known), math.sqrt(variance), float(ages[-1]))

    def grown(self, years: Any) -> Any:
        """Return the growth over years to come, of a rate of 1."""
        return (self.age + years) ** self.power - self.age**self.power


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How fast the index grows, and how unsteadily: a random walk with a trend.

    Over h years the index grows by per_year x h, give or take spread x sqrt(h). Estimated from n
    increments over T years, the rate is known to spread / sqrt(T) with n - 1 degrees of freedom.
    Where it is known when the data were still those of the model, the index may also grow as the
    square of the time since: both laws are kept, each with a weight by how well it fits.
    A trap: it is the drift of the past. A new sensor or a new season is not in it.

    Attributes:
        per_year: growth of the debiased RESQUE_dist in a year.
        spread: standard deviation of the growth of one year about its trend.
        increments: from how many both were estimated; None where they are given, and sure.
        years: how long those lasted; None likewise.
        laws: that were fitted; none where the drift is given.

    Raises:
        InputError: a number is impossible.

    Example:
        >>> Drift(per_year=0.1, spread=0.02).growth(1, 2, 0.5, np.random.default_rng(0)).shape
        (1, 3)
    """

    per_year: float
    spread: float = 0.0
    increments: int | None = None
    years: float | None = None
    laws: tuple[_Law, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.per_year):
            raise InputError(f"per_year must be a finite number; got {self.per_year!r}.")
        if not (math.isfinite(self.spread) and self.spread >= 0):
            raise InputError(f"spread must be 0 or more; got {self.spread!r}.")
        if self.increments is self.years is None:
            return
        if self.increments is None or self.years is None or self.increments < 2 or self.years <= 0:
            raise InputError(
                "A drift is estimated from 2 or more increments over years above 0, or given "
                f"without both; got increments={self.increments!r} and years={self.years!r}."
            )

    @classmethod
    def of_course(
        cls, years: Sequence[float], indices: Sequence[float], *, age: float | None = None
    ) -> Drift:
        """Return the drift that a course of the index shows.

        Args:
            years: when it was measured (n + 1,), rising.
            indices: debiased RESQUE_dist against one and the same old data (n + 1,).
            age: years at the first of them since the data were those of the model; None where it
                is not known, and the growth is then taken to be steady.

        Raises:
            InputError: there are fewer than three increments, or the years do not rise.

        Example:
            >>> drift = Drift.of_course([0, 1, 2, 3], [0.0, 0.1, 0.2, 0.3])
            >>> round(drift.per_year, 6), round(drift.spread, 6)
            (0.1, 0.0)
        """
        lasted = np.diff(years)
        if len(years) != len(indices) or not (lasted > 0).all():
            raise InputError(
                f"A course has an index for each of its years, which rise; got {len(indices)} "
                f"indices at {list(years)!r}."
            )
        return cls._of_increments(lasted, np.diff(indices), age)

    @classmethod
    def of_updates(cls, updates: Iterable[Update], *, model: str | None = None) -> Drift:
        """Return the drift that recorded updates show: what each found since the one before it.

        A trap: it holds where each update went into use and the next one started from it. Updates
        that were tried side by side are no course.

        Args:
            updates: with their `index`, in any order.
            model: name of the model in their signatures; None for all.

        Raises:
            InputError: there are too few with an index, or two started at the same time.
        """
        known = [update for update in updates if model is None or update.signature.model == model]
        found = sorted(
            (datetime.fromisoformat(update.started).timestamp(), float(debiased))
            for update in known
            if update.index is not None
            and update.index.get("index") == "RESQUE_dist"
            and (debiased := update.index.get("debiased")) is not None
        )
        if len(found) <= FEWEST_INCREMENTS:
            of = "" if model is None else f" of {model!r}"
            raise InputError(
                f"A drift needs {FEWEST_INCREMENTS + 1} updates{of} with a RESQUE_dist in the "
                f"history; got {len(known)} updates, {len(found)} of them with one. Give profiles "
                f"of {FEWEST_INCREMENTS} or more later dates, or record updates with their index "
                "(resque.retrain(..., index=shift.to_dict()))."
            )
        years = np.diff([at for at, _ in found]) / _SECONDS_PER_YEAR
        if not (years > 0).all():
            at = datetime.fromtimestamp(found[int(np.argmin(years))][0]).isoformat()
            raise InputError(
                f"Two updates started at the same time, {at}; updates that ran side by side are no "
                "course of drift. Give only those that went into use."
            )
        # The index of an update is what the data have moved since the update before it.
        return cls._of_increments(years, np.array([index for _, index in found[1:]]))

    @classmethod
    def _of_increments(cls, years: Floats, grown: Floats, age: float | None = None) -> Drift:
        n = len(grown)
        if n < FEWEST_INCREMENTS:
            raise InputError(
                f"A drift is estimated from {FEWEST_INCREMENTS} or more increments of the index; "
                f"got {n}. Give profiles of more dates, or a Drift(per_year=..., spread=...)."
            )
        powers = _POWERS if age is not None else _POWERS[:1]
        laws = [_Law.of(years, grown, power, age or 0.0) for power in powers]
        # A law without any error, as of numbers made up, has all the weight.
        squares = np.array([law.spread**2 for law in laws]) + 1e-12
        weights = (squares / squares.min()) ** (-(n - 1) / 2)
        weights /= weights.sum()
        return cls(
            per_year=laws[0].rate,
            spread=laws[0].spread,
            increments=n,
            years=float(years.sum()),
            laws=tuple(replace(law, weight=float(w)) for law, w in zip(laws, weights, strict=True)),
        )

    @property
    def accelerates(self) -> float:
        """How probable it is that the index grows faster and faster."""
        return math.fsum(law.weight for law in self.laws if law.power > 1)

    def expected(self, years: float) -> float:
        """Return the growth that is expected over years to come; none where the index fell.

        Args:
            years: from now on.
        """
        return math.fsum(
            law.weight * max(0.0, law.rate) * law.grown(years) for law in self._all_laws()
        )

    def _all_laws(self) -> tuple[_Law, ...]:
        """Return the laws that were fitted, or the steady one that was given."""
        error = 0.0 if self.years is None else 1 / math.sqrt(self.years)
        return self.laws or (_Law(1.0, self.per_year, error, self.spread),)

    def growth(self, paths: int, looks: int, years: float, rng: Generator) -> Floats:
        """Return how far the data may have moved at each look to come (paths, looks + 1).

        The first look is now, at 0. A rate below zero is drawn as zero: data that come back by
        themselves are nothing to plan with.

        Args:
            paths: courses to draw.
            looks: to come.
            years: between two of them.
            rng: source of the numbers.
        """
        laws = self._all_laws()
        of = rng.choice(len(laws), size=paths, p=[law.weight for law in laws])
        widened: Floats = np.ones(paths)
        if self.increments is not None:
            freedom = self.increments - 1
            widened = np.sqrt(freedom / rng.chisquare(freedom, paths))
        normal, walk = rng.normal(size=paths), rng.normal(size=(paths, looks))
        steps = np.empty((paths, looks))
        for place, law in enumerate(laws):
            here = of == place
            spread = law.spread * widened[here]
            rate = np.maximum(law.rate + spread * law.error * normal[here], 0.0)
            shape = np.diff(law.grown(years * np.arange(looks + 1)))
            steps[here] = rate[:, None] * shape + (spread * math.sqrt(years))[:, None] * walk[here]
        grown: Floats = np.concatenate([np.zeros((paths, 1)), np.cumsum(steps, axis=1)], axis=1)
        return grown

    def __str__(self) -> str:
        known = "as given" if self.increments is None else f"from {self.increments} increments"
        known += f"; faster and faster with {self.accelerates:.0%}" if self.accelerates else ""
        return f"drift {self.per_year:.3g} a year, spread {self.spread:.3g} ({known})"


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves of accuracy: level - steepness x index ^ power, and straight on beyond a reach.

    Attributes:
        level: accuracy where nothing has moved (paths,).
        steepness: (paths,), 0 or more.
        power: (paths,).
        reach: index beyond which they go straight, as they are there or as `beyond` says,
            whichever is steeper.
        beyond: accuracy lost per index (paths,), or one number.
    """

    level: Floats
    steepness: Floats
    power: Floats
    reach: float = 1.0
    beyond: Floats | float = 0.0

    def lost(self, index: Floats) -> Floats:
        """Return the accuracy that is lost at an index, on each curve.

        Args:
            index: (paths,) or (paths, looks).
        """
        across = (slice(None),) + (None,) * (index.ndim - 1)
        beyond = np.broadcast_to(self.beyond, self.level.shape)[across]
        return _lost(index, self.steepness[across], self.power[across], self.reach, beyond)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Least squares of accuracy on the power of an index."""

    power: float
    level: float
    steepness: float
    root: Floats
    squares: float

    @classmethod
    def of(cls, indices: Floats, accuracies: Floats, power: float) -> _Fit:
        design = np.stack([np.ones(len(indices)), -(indices**power)], axis=1)
        found = np.linalg.lstsq(design, accuracies, rcond=None)[0]
        if found[1] < 0:
            # Accuracy is never expected to come from drift.
            found = np.array([accuracies.mean(), 0.0])
        left = accuracies - design @ found
        root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
        return cls(power, float(found[0]), float(found[1]), root, float(left @ left))


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyCurve:
    """Accuracy as a function of the index: level - steepness x index ^ power.

    A curve through few points says little of indices beyond them, and accuracy often falls ever
    faster there; from the greatest index that was measured it goes straight, at least as steep as
    known updates were.

    Attributes:
        level: accuracy where nothing has moved.
        steepness: 0 or more.
        power: 1, or 2 for a loss that grows faster and faster.
        spread: standard deviation of measured accuracies about the curve; None where the
            steepness is that of known updates.
        points: measured accuracies that it was fitted to.
        updates: known updates that gave the steepness, or that beyond the points; 0 without any.
        reach: greatest index of the points; 1 where known updates say nothing of what is beyond.
        beyond: accuracy lost per index there.
        fits: of each power, with its weight.
        slopes: (steepness, level, weight) of each known update; level only where it gave that.

    Example:
        >>> curve = AccuracyCurve.fitted([0.0, 0.1, 0.2, 0.3], [0.9, 0.85, 0.8, 0.75])
        >>> round(float(curve.lost(0.4)), 6), curve.power
        (0.2, 1.0)
    """

    level: float
    steepness: float
    power: float
    spread: float | None
    points: int
    updates: int = 0
    reach: float = 1.0
    beyond: float = 0.0
    fits: tuple[tuple[_Fit, float], ...] = ()
    slopes: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def fitted(
        cls,
        indices: Sequence[float],
        accuracies: Sequence[float],
        experience: Experience | None = None,
    ) -> AccuracyCurve:
        """Return the curve through measured accuracies.

        Both powers are kept, with a weight of squares^(-(n - 2) / 2) each: how well they fit.

        Args:
            indices: debiased (n,), not all the same.
            accuracies: of the model's own output on the same data (n,).
            experience: known updates, which say how steep it is beyond; None for none.

        Raises:
            InputError: there are fewer than four, or the index does not vary.
        """
        x, y = np.asarray(indices, float), np.asarray(accuracies, float)
        if len(x) < FEWEST_ACCURACIES or np.ptp(x) == 0:
            raise InputError(
                f"A loss of accuracy is fitted to {FEWEST_ACCURACIES} or more labelled data sets "
                f"of different index; got {len(x)} with {len(np.unique(x))} different ones. Label "
                "more of the profiled data, or use known updates."
            )
        fits = [_Fit.of(x, y, power) for power in _POWERS]
        # A fit without any error, as of numbers made up, has all the weight.
        squares = np.array([fit.squares for fit in fits]) + 1e-12
        weights = (squares / squares.min()) ** (-(len(x) - 2) / 2)
        weights /= weights.sum()
        best = fits[int(np.argmax(weights))]
        slopes, counts = (np.empty(0), np.empty(0)) if experience is None else _slopes(experience)
        known = len(slopes) >= _FEWEST_UPDATES
        return cls(
            level=best.level,
            steepness=best.steepness,
            power=best.power,
            spread=math.sqrt(best.squares / (len(x) - 2)),
            points=len(x),
            updates=len(slopes) if known else 0,
            reach=float(x.max()) if known else 1.0,
            beyond=_median(slopes, counts) if known else 0.0,
            fits=tuple(zip(fits, map(float, weights), strict=True)),
            slopes=_rows(slopes, np.full(len(slopes), best.level), counts) if known else (),
        )

    @classmethod
    def of_updates(
        cls, experience: Experience, indices: Sequence[float], accuracies: Sequence[float]
    ) -> AccuracyCurve:
        """Return a curve as steep as known updates were: accuracy dropped per index.

        Args:
            experience: the known updates.
            indices: of the labelled data (n,), one or more.
            accuracies: on them (n,); they give the level.

        Raises:
            InputError: fewer than five known updates have both an index and a drop.
        """
        slopes, shares = _slopes(experience)
        if len(slopes) < _FEWEST_UPDATES:
            raise InputError(
                "What drift costs in accuracy is not known: it takes "
                f"{FEWEST_ACCURACIES} labelled profiles of different index after the first, or "
                f"{_FEWEST_UPDATES} known updates with an index of {_LEAST_INDEX:g} or more and a "
                f"drop of accuracy; got {len(indices)} and {len(slopes)}. Label more of the "
                "profiled data, or use the corpus."
            )
        x, y = np.asarray(indices, float), np.asarray(accuracies, float)
        levels = np.minimum(1.0, (y[:, None] + slopes * x[:, None]).mean(axis=0))
        middle = int(np.argmin(np.abs(slopes - _median(slopes, shares))))
        return cls(
            level=float(levels[middle]),
            steepness=float(slopes[middle]),
            power=1.0,
            spread=None,
            points=len(x),
            updates=len(slopes),
            slopes=_rows(slopes, levels, shares),
        )

    def lost(self, index: Floats | float) -> Floats:
        """Return the accuracy that is expected to be lost at an index.

        Args:
            index: debiased, one or (paths,).
        """
        index = np.maximum(index, 0.0)
        return _lost(index, self.steepness, self.power, self.reach, self.beyond)

    def drawn(self, paths: int, rng: Generator) -> Curves:
        """Return curves as uncertain as so few points leave them.

        Args:
            paths: how many.
            rng: source of the numbers.
        """
        beyond: Floats = np.zeros(paths)
        if self.slopes:
            slopes, levels, weights = map(np.array, zip(*self.slopes, strict=True))
            chosen = rng.choice(len(slopes), size=paths, p=weights)
            if not self.fits:
                return Curves(levels[chosen], slopes[chosen], np.ones(paths))
            beyond = slopes[chosen]
        of = rng.choice(len(self.fits), size=paths, p=[weight for _, weight in self.fits])
        level, steepness, power = (np.empty(paths) for _ in range(3))
        normal, freedom = rng.normal(size=(paths, 2)), self.points - 2
        widened = 1 / np.sqrt(rng.chisquare(freedom, paths))
        for place, (fit, _) in enumerate(self.fits):
            here = of == place
            error = math.sqrt(fit.squares) * widened[here, None] * (normal[here] @ fit.root.T)
            level[here] = fit.level + error[:, 0]
            steepness[here] = np.maximum(0.0, fit.steepness + error[:, 1])
            power[here] = fit.power
        return Curves(np.clip(level, 0.0, 1.0), steepness, power, self.reach, beyond)


def _lost(index: Any, steepness: Any, power: Any, reach: float, beyond: Any) -> Floats:
    there = np.maximum(steepness * power * reach ** (power - 1), beyond)
    inside, outside = np.minimum(index, reach), np.maximum(index - reach, 0.0)
    lost: Floats = steepness * inside**power + there * outside
    return lost


def _rows(*columns: Floats) -> tuple[tuple[float, float, float], ...]:
    return tuple(zip(*(column.tolist() for column in columns), strict=True))


def _slopes(experience: Experience) -> tuple[Floats, Floats]:
    """Return of known updates the accuracy lost per index, and the share of each (updates,)."""
    slopes, places = [], []
    for place, update in enumerate(experience.updates):
        values = (update.preflight or {}).get("values", {})
        index, drop = values.get("RESQUE_dist_debiased"), values.get("accuracy_drop")
        if index is not None and drop is not None and index >= _LEAST_INDEX:
            slopes.append(max(0.0, drop / index))
            places.append(place)
    weights = experience.weights(np.array(places, dtype=np.int64))
    return np.array(slopes), weights / weights.sum() if places else weights


def _median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
