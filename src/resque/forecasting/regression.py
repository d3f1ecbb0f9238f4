"""Regression with partial pooling: predictors, and effects that the updates of a group share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize
from scipy.special import log_ndtr

from resque.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Places: TypeAlias = "NDArray[np.intp]"

NOISE = "noise"
# Prior variance of the mean, in units of the variance of what is predicted: next to unknown.
_CONSTANT = 9.0
# Of a variance before any row is seen, and of its logarithm: few rows say little of it, and it
# would run off to nothing or to infinity.
_PRIOR_VARIANCE, _PRIOR_SD = 0.2, 1.5
_BOUNDS = (1e-4, 30.0)
# Expectation propagation; it settles in about ten.
_SWEEPS, _DAMPING, _SETTLED = 100, 0.7, 1e-6
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of updates before they are made, as a regression takes it.

    Attributes:
        predictors: name of a sort of predictors -> (rows, predictors), standardised; no NaN.
        unknown: likewise -> (rows,), share of them that is not known; they could be anything,
            which is uncertainty of that row.
        groups: name of a grouping -> labels (rows,); rows with the same label share an effect.
    """

    predictors: Mapping[str, Floats]
    unknown: Mapping[str, Floats]
    groups: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.groups.values())))

    def __getitem__(self, places: Any) -> Rows:
        return Rows(
            {sort: of[places] for sort, of in self.predictors.items()},
            {sort: of[places] for sort, of in self.unknown.items()},
            {name: of[places] for name, of in self.groups.items()},
        )


def covariances(one: Rows, other: Rows) -> dict[str, Floats]:
    """Return what two sets of rows have in common by each part: name -> (rows, other rows).

    One part for each sort of predictors, x x' / predictors, so that effects are shrunk as in a
    ridge regression; "smooth", a Gaussian of the distance by all of them, for what is not linear;
    then one for each grouping, 1 where both rows are of one group.

    Args:
        one: rows.
        other: rows with the same predictors and groupings.

    Example:
        >>> labels = {"network": np.array(["a", "b"])}
        >>> rows = Rows({"sizes": np.array([[1.0], [-1.0]])}, {"sizes": np.zeros(2)}, labels)
        >>> covariances(rows, rows)["network"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    parts: dict[str, Floats] = {}
    distance: Floats = np.zeros((len(one), len(other)))
    several = 0
    for sort, x in one.predictors.items():
        if not x.shape[1]:
            continue
        z = other.predictors[sort]
        inner = x @ z.T
        parts[sort] = inner / x.shape[1]
        distance += (x**2).sum(1)[:, None] + (z**2).sum(1)[None, :] - 2 * inner
        several += x.shape[1]
    parts["smooth"] = np.exp(-np.maximum(distance, 0) / (2 * max(several, 1)))
    for name, labels in one.groups.items():
        parts[name] = of_one_group(labels, other.groups[name]).astype(float)
    return parts


def of_one_group(labels: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have the same label (rows, other rows).

    Args:
        labels: of rows (rows,).
        others: of other rows (other rows,).
    """
    # Numbers compare far faster than words.
    _, numbers = np.unique(np.concatenate([labels, others]), return_inverse=True)
    same: NDArray[np.bool_] = numbers[: len(labels), None] == numbers[None, len(labels) :]
    return same


def _within(rows: Rows) -> dict[str, Floats]:
    """Return what rows have in common among themselves; what is unknown is each one's own."""
    parts = covariances(rows, rows)
    for sort, share in rows.unknown.items():
        # Of a sort that has never varied no effect is known; it is taken to be one that is smooth.
        name = sort if sort in parts else "smooth"
        parts[name] = parts[name] + np.diag(share)
    return parts


@dataclass(frozen=True, slots=True)
class Predicted:
    """A normal distribution for each row.

    Attributes:
        mean: (rows,).
        sd: (rows,) of a new observation, its noise in it.
    """

    mean: Floats
    sd: Floats


class PooledRegression:
    """A Gaussian process whose variance is a sum of parts, and whose rows may be censored.

    y = mean + linear in each sort of predictors + smooth + one effect per group of each grouping
    + noise, all normal (method.md, equation 15); the variances of the parts are those that make
    the rows most probable (maximum a posteriori). An effect that few rows tell of stays near that
    of the others: partial pooling, as in a multilevel model (Gelman and Hill 2006, chapter 12);
    as a Gaussian process, Rasmussen and Williams 2006, chapters 2 and 5. A censored row says that
    y is at least so much; its likelihood is a probit's, approximated by expectation propagation
    (Minka 2001; Rasmussen and Williams, 3.6).

    Args:
        rows: what is known of each row.
        y: (rows,); of a censored row, its lower bound.
        censored: (rows,) of bool; None for none.
        variances: part -> variance in units of that of y, from a fit before; fitted where
            one is missing.

    Raises:
        InputError: all rows are censored, or fewer than two are there.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(40, 1))
        >>> labels = {"network": np.repeat(["a", "b"], 20)}
        >>> rows = Rows({"shift": x}, {"shift": np.zeros(40)}, labels)
        >>> fitted = PooledRegression(rows, 2 * x[:, 0] + 0.1 * rng.normal(size=40))
        >>> bool(abs(fitted.predict(rows[:1]).mean[0] - 2 * x[0, 0]) < 0.2)
        True
    """

    def __init__(
        self,
        rows: Rows,
        y: Floats,
        censored: NDArray[np.bool_] | None = None,
        *,
        variances: Mapping[str, float] | None = None,
    ) -> None:
        exact = np.ones(len(y), dtype=bool) if censored is None else ~censored
        if len(y) < 2 or not exact.any():
            raise InputError(
                f"A regression needs two updates or more that met their target; got {len(y)}, of "
                f"which {int(exact.sum())} did."
            )
        self.rows, self.exact = rows, exact
        self._centre = float(np.mean(y[exact]))
        # With a single exact row, or equal ones, there is no scale to be had from them.
        self._scale = float(np.std(y[exact])) or float(np.std(y)) or 1.0
        self._y = (y - self._centre) / self._scale
        parts = _within(rows)
        # Those of other parts than there are say nothing.
        known = variances is not None and {*parts, NOISE} <= variances.keys()
        self.variances = dict(variances or {}) if known else self._fit(parts)
        self._prior = _summed(parts, self.variances)
        self._pseudo, self._extra = self._sites(self._prior, self.variances[NOISE])
        self._factor = cho_factor(self._noisy(), lower=True)
        self._weights = cho_solve(self._factor, self._pseudo)

    def predict(self, rows: Rows) -> Predicted:
        """Return the distribution of a new observation of each row.

        Args:
            rows: with the predictors and groupings of those that were fitted.
        """
        parts = covariances(rows, self.rows)
        known: Floats = np.full((len(rows), len(self.rows)), _CONSTANT)
        for name, part in parts.items():
            known += self.variances[name] * part
        own = _within(rows)
        prior = _CONSTANT + sum(self.variances[name] * np.diag(of) for name, of in own.items())
        explained = np.einsum("ij,ji->i", known, cho_solve(self._factor, known.T))
        return self._in_units(known @ self._weights, prior - explained + self.variances[NOISE])

    def leave_out(self, left_out: NDArray[np.bool_]) -> Predicted:
        """Return the distribution of each row as foretold without some of the others.

        With the variances of all of them; the rest follows without fitting again (Rasmussen and
        Williams 2006, 5.4.2, for blocks). NaN where nothing would be left.

        Args:
            left_out: (rows, rows) of bool: which rows are unknown when a row is foretold.
        """
        several = len(self.rows)
        covariance = self._noisy()
        inverse = _inverse(self._factor)
        mean, variance = np.full(several, np.nan), np.full(several, np.nan)
        for block, members in _alike(left_out | np.eye(several, dtype=bool)):
            if len(block) == several:
                continue
            if 2 * len(block) > several:
                # The rest is the smaller matrix: what it says of the rows, from nothing.
                rest = np.setdiff1d(np.arange(several), block, assume_unique=True)
                factor = cho_factor(covariance[np.ix_(rest, rest)], lower=True)
                across = covariance[np.ix_(rest, members)]
                solved = cho_solve(factor, across)
                mean[members] = solved.T @ self._pseudo[rest]
                explained = (across * solved).sum(axis=0)
                variance[members] = covariance[members, members] - explained
            else:
                at = np.searchsorted(block, members)
                unknown = np.eye(len(block))[:, at]
                columns = np.linalg.solve(inverse[np.ix_(block, block)], unknown)
                mean[members] = self._pseudo[members] - columns.T @ self._weights[block]
                variance[members] = columns[at, np.arange(len(at))]
            variance[members] -= self._extra[members]
        return self._in_units(mean, variance)

    def _in_units(self, mean: Floats, variance: Floats) -> Predicted:
        sd = np.sqrt(np.maximum(variance, self.variances[NOISE]))
        return Predicted(self._centre + self._scale * mean, self._scale * sd)

    def _noisy(self) -> Floats:
        """Return the covariance of what was observed (rows, rows)."""
        covariance = self._prior.copy()
        covariance[np.diag_indices(len(covariance))] += self.variances[NOISE] + self._extra
        return covariance

    def _fit(self, named: Mapping[str, Floats]) -> dict[str, float]:
        names = [*named, NOISE]
        logs = np.full(len(names), math.log(_PRIOR_VARIANCE))
        parts = np.array([part.ravel() for part in named.values()])
        # The rows that are censored count as what the variances of the round before make of them.
        pseudo, extra = self._y, np.zeros(len(self.rows))

        def improbability(logs: Floats) -> tuple[float, Floats]:
            covariance = (np.exp(logs[:-1]) @ parts + _CONSTANT).reshape(len(pseudo), -1)
            covariance[np.diag_indices(len(covariance))] += np.exp(logs[-1]) + extra
            factor = cho_factor(covariance, lower=True)
            inverse = _inverse(factor)
            weights = inverse @ pseudo
            surplus = inverse - np.outer(weights, weights)
            from_prior = (logs - math.log(_PRIOR_VARIANCE)) / _PRIOR_SD
            value = pseudo @ weights / 2 + np.log(np.diag(factor[0])).sum()
            slopes = np.append(parts @ surplus.ravel(), np.trace(surplus)) * np.exp(logs) / 2
            return float(value + from_prior @ from_prior / 2), slopes + from_prior / _PRIOR_SD

        for _ in range(1 if self.exact.all() else _ROUNDS):
            found = minimize(
                improbability, logs, jac=True, method="L-BFGS-B",
                bounds=[(math.log(_BOUNDS[0]), math.log(_BOUNDS[1]))] * len(names),
            )  # fmt: skip
            logs = found.x
            variances = dict(zip(names, np.exp(logs).tolist(), strict=True))
            pseudo, extra = self._sites(_summed(named, variances), variances[NOISE])
        return variances

    def _sites(self, covariance: Floats, noise: float) -> tuple[Floats, Floats]:
        """Return as what exact rows the censored ones count: y (rows,), and the noise of each."""
        pseudo, extra = self._y.copy(), np.zeros(len(self.rows))
        if self.exact.all():
            return pseudo, extra
        exact, rest = np.flatnonzero(self.exact), np.flatnonzero(~self.exact)
        # What the exact rows say of the others, which is all that is needed of them.
        known = covariance[np.ix_(exact, exact)] + noise * np.eye(len(exact))
        across = covariance[np.ix_(exact, rest)]
        solved = cho_solve(cho_factor(known, lower=True), across)
        mean = solved.T @ self._y[exact]
        prior = covariance[np.ix_(rest, rest)] - across.T @ solved
        # Sites in natural parameters: exp(shift f - precision f^2 / 2).
        precision, shift = np.full(len(rest), 1e-3), 1e-3 * self._y[rest]
        for _ in range(_SWEEPS):
            gain = np.linalg.solve(prior + np.diag(1 / precision), prior).T
            middle = mean + gain @ (shift / precision - mean)
            spread = np.diag(prior - gain @ prior)
            cavity = np.maximum(1 / spread - precision, 1e-9)
            centre = (middle / spread - shift) / cavity
            width = np.sqrt(1 / cavity + noise)
            z = (centre - self._y[rest]) / width
            hazard = np.exp(-(z**2) / 2 - math.log(2 * math.pi) / 2 - log_ndtr(z))
            tilted_mean = centre + hazard / (cavity * width)
            tilted = 1 / cavity - hazard * (z + hazard) / (cavity * width) ** 2
            wanted = np.maximum(1 / tilted - cavity, 1e-9)
            moved = float(np.abs(wanted - precision).max())
            step = tilted_mean / tilted - centre * cavity
            precision = (1 - _DAMPING) * precision + _DAMPING * wanted
            shift = (1 - _DAMPING) * shift + _DAMPING * step
            if moved < _SETTLED:
                break
        pseudo[rest], extra[rest] = shift / precision, 1 / precision - noise
        return pseudo, extra


def _summed(parts: Mapping[str, Floats], variances: Mapping[str, float]) -> Floats:
    """Return the covariance of what is observed, without its noise (rows, rows)."""
    total: Floats = np.full(next(iter(parts.values())).shape, _CONSTANT)
    for name, part in parts.items():
        total += variances[name] * part
    return total


def _inverse(factor: tuple[Floats, bool]) -> Floats:
    """Return the inverse of a matrix from its lower Cholesky factor."""
    # A third of the work of solving for each column of the identity.
    lower, _ = dpotri(factor[0], lower=1)
    inverse: Floats = np.tril(lower) + np.tril(lower, -1).T
    return inverse


def _alike(left_out: NDArray[np.bool_]) -> list[tuple[Places, Places]]:
    """Return each set of rows that is left out for some row, and the rows it is left out for."""
    sets: dict[bytes, list[int]] = {}
    for place, of in enumerate(left_out):
        sets.setdefault(of.tobytes(), []).append(place)
    return [(np.flatnonzero(left_out[of[0]]), np.array(of)) for of in sets.values()]
