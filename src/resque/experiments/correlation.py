"""Rank and log correlations of measures that may be censored, with intervals over groups.

Every statistic has two forms: of the rows as they are, and `resampled_...`, of many resamples at
once, each given by how often it drew each row. The second is what makes a bootstrap cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resque.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
# From how often each row was drawn (rows, resamples) to one number for each resample.
Resampled: TypeAlias = Callable[[Floats], Floats]

# Below this variance of what was standardised before, all values are the same but for rounding.
_NO_VARIANCE = 1e-12
# The expectation step shrinks the error by about the censored share, so this is far more than
# it takes at a half.
_MOST_STEPS, _STEP = 1000, 1e-8


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with a bootstrap interval.

    Attributes:
        value: of all rows; NaN where it is undefined.
        lower: lower bound; NaN where it is undefined for more than half of the resamples.
        upper: upper bound, likewise.
        groups: that were drawn from; of two ways, combinations of both.
    """

    value: float
    lower: float
    upper: float
    groups: int


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """How much of a measure a change of nothing but the seed moves.

    Attributes:
        intraclass: variance of the log measure between cells as a share of that between and
            within them; 1 where seeds change nothing. Below 0 it is written as 0.
        ceiling: its root, the largest correlation with the log measure that a predictor can have
            which does not see the seed (Spearman, Am. J. Psychol. 15, 1904).
        share: standard deviation between seeds over that between cells; infinite where the cells
            do not differ.
        median_difference: median over pairs of seeds of |a - b| / ((a + b) / 2).
        cells: with two seeds or more.
        runs: in these cells.
    """

    intraclass: float
    ceiling: float
    share: float
    median_difference: float
    cells: int
    runs: int


def spearman(x: ArrayLike, y: ArrayLike, censored: ArrayLike | None = None) -> float:
    """Return Spearman's rank correlation, from -1 to 1; NaN where a side is constant.

    A censored y is known to be more than what was seen. It gets its expected rank under the
    Kaplan-Meier estimate S of all y: with F = 1 - S, an observed y has the score
    (F(y-) + F(y)) / 2, its mid-rank where nothing is censored, and one censored at c has
    (1 + F(c)) / 2, the mean score of what lies beyond; the result is Pearson's correlation of
    these scores with the mid-ranks of x. They are the probability-scale residuals of Shepherd,
    Li and Liu, Can. J. Stat. 44, 2016, up to a linear map.

    The trap: the expected rank does not look at x, so where much is censored the result is
    drawn towards 0 (0.79 reads 0.75 at 30 % censored and 0.70 at 50 %, from normal values); and
    what ends a run must not depend on x.

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        censored: (rows,) true where y was not seen to its end; None where all were.

    Raises:
        InputError: the arrays are not of one length, or hold what is not finite.

    Example:
        >>> round(spearman([1, 2, 3, 4], [1, 4, 9, 16]), 6)
        1.0
    """
    checked = _checked(x, y, censored)
    return float(_resampled_spearman(*checked, _once(checked[0]))[0])


def resampled_spearman(
    x: ArrayLike, y: ArrayLike, counts: Floats, censored: ArrayLike | None = None
) -> Floats:
    """Return `spearman` of each resample (resamples,).

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        counts: (rows, resamples), how often each row was drawn.
        censored: see `spearman`.

    Example:
        >>> resampled_spearman([1, 2, 3], [3, 1, 2], np.array([[1.0, 0], [1, 2], [1, 1]])).round(2)
        array([-0.5,  1. ])
    """
    return _resampled_spearman(*_checked(x, y, censored), counts)


def _resampled_spearman(
    x: Floats, y: Floats, censored: NDArray[np.bool_], counts: Floats
) -> Floats:
    seen = np.zeros(len(x), dtype=bool)
    return _pearson(_scores(x, seen, counts), _scores(y, censored, counts), counts)


def resampled_spearman_within(
    x: ArrayLike,
    y: ArrayLike,
    strata: ArrayLike,
    counts: Floats,
    censored: ArrayLike | None = None,
    given: ArrayLike | None = None,
) -> Floats:
    """Return the average over strata of `spearman`, with pairs as weights, of each resample.

    Ranks are those in the whole stratum and are taken once: ranked anew, the few different rows
    that a resample has of a small stratum pull the correlation towards 0 (of normal values with
    correlation 0.95 Spearman's is 0.89 in samples of 7 and 0.84 in samples of 3), and the
    interval with it. Strata in which a side is constant do not count.

    Where something is held constant, what is correlated is what is left of the ranks after least
    squares, within the stratum, on indicators of its levels: a partial correlation that does not
    take the levels to lie on a line. The n (n - 1) / 2 pairs of n rows become n f / 2, with f the
    degrees of freedom that are left. It asks less of the rows than strata that share all of it,
    of which most would be too small.

    The trap: effects of two columns held constant are taken to add up. Where they do not, give
    their combinations as one column.

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        strata: (rows,) the stratum of each row.
        counts: (rows, resamples), how often each row was drawn; of ones, the average itself.
        censored: see `spearman`.
        given: (rows, columns) the levels that are held constant; None for nothing.

    Raises:
        InputError: the arrays are not of one length, or hold what is not finite.

    Example:
        >>> x, y, strata = [1, 2, 3, 1, 2, 3], [1, 2, 3, 30, 20, 10], [0, 0, 0, 1, 1, 1]
        >>> abs(resampled_spearman_within(x, y, strata, np.ones((6, 1))).round(6))
        array([0.])
    """
    x, y, lost = _checked(x, y, censored)
    scores = np.zeros((2, len(x)))
    for of, held in _strata_with_held(strata, given, len(x)):
        sides = [
            _standardised(_left(held, _scores(side[of], lost[of] & is_y, _once(of))[:, 0]))
            for side, is_y in ((x, False), (y, True))
        ]
        # The squares of a standardised side add up to n.
        if all(side.any() for side in sides):
            scores[:, of] = math.sqrt((len(of) - held.shape[1]) / 2) * np.stack(sides)
    one, two = scores
    return _ratio((one * two) @ counts, np.sqrt((one**2 @ counts) * (two**2 @ counts)))


def degrees_of_freedom(strata: ArrayLike, given: ArrayLike | None = None) -> NDArray[np.intp]:
    """Return how many degrees of freedom the stratum of each row has left (rows,).

    Its rows less one, and less one for each further level that is held constant.

    Args:
        strata: (rows,) the stratum of each row.
        given: (rows, columns) the levels that are held constant; None for nothing.

    Raises:
        InputError: the arrays are not of one length.

    Example:
        >>> degrees_of_freedom([0, 0, 0, 0, 1], [["a"], ["a"], ["b"], ["b"], ["a"]])
        array([2, 2, 2, 2, 0])
    """
    found = np.zeros(len(np.asarray(strata)), dtype=np.intp)
    for of, held in _strata_with_held(strata, given, len(found)):
        found[of] = len(of) - held.shape[1]
    return found


def _strata_with_held(
    strata: ArrayLike, given: ArrayLike | None, rows: int
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Give, per stratum, its rows and an orthonormal basis of what is held constant in it."""
    _, member = np.unique(_strata(strata, rows), return_inverse=True)
    columns = np.empty((rows, 0)) if given is None else np.asarray(given)
    if columns.ndim != 2 or len(columns) != rows:
        raise InputError(
            f"Expected the levels held constant with shape ({rows}, columns); got shape "
            f"{columns.shape}."
        )
    levels = [np.unique(column, return_inverse=True)[1] for column in columns.T]
    for stratum in range(member.max(initial=-1) + 1):
        of = np.flatnonzero(member == stratum)
        # The constant is always held, and all but one level of each column beside it.
        indicators = [np.ones((len(of), 1))]
        indicators += [level[of, None] == np.unique(level[of])[1:] for level in levels]
        basis, sizes, _ = np.linalg.svd(np.hstack(indicators), full_matrices=False)
        yield of, basis[:, sizes > 1e-9 * sizes[0]]


def _left(held: Floats, values: Floats) -> Floats:
    """Return what is left of values (rows, ...) after least squares on an orthonormal basis."""
    left = values - held @ (held.T @ values)
    # What is left of values that the basis gives is rounding.
    return np.where(np.abs(left) > 1e-12 * np.abs(values).max(initial=0), left, 0)


def kendall(x: ArrayLike, y: ArrayLike, censored: ArrayLike | None = None) -> float:
    """Return Kendall's tau-b over the pairs whose order is known; NaN where there is none.

    Of two y the order is known when the smaller was observed; a censored one exceeds an observed
    one equal to it. As in Harrell's concordance (JAMA 247, 1982) the other pairs do not count:
    tau = (concordant - discordant) / sqrt(A B), with A the known pairs that are not tied in x,
    and B those not tied in y. Without censoring it is tau-b.

    The trap: pairs of two long runs are the ones that are lost, so that under heavy censoring
    this is the tau of short runs against all others.

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        censored: (rows,) true where y was not seen to its end; None where all were.

    Raises:
        InputError: the arrays are not of one length, or hold what is not finite.

    Example:
        >>> round(kendall([1, 2, 3], [1, 5, 5], [False, False, True]), 6)
        1.0
    """
    checked = _checked(x, y, censored)
    return float(_resampled_kendall(*checked, _once(checked[0]))[0])


def resampled_kendall(
    x: ArrayLike, y: ArrayLike, counts: Floats, censored: ArrayLike | None = None
) -> Floats:
    """Return `kendall` of each resample (resamples,).

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        counts: (rows, resamples), how often each row was drawn.
        censored: see `spearman`.
    """
    return _resampled_kendall(*_checked(x, y, censored), counts)


def resampled_kendall_within(
    x: ArrayLike,
    y: ArrayLike,
    strata: ArrayLike,
    counts: Floats,
    censored: ArrayLike | None = None,
) -> Floats:
    """Return `kendall` over the pairs within strata, of each resample (resamples,).

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        strata: (rows,) the stratum of each row.
        counts: (rows, resamples), how often each row was drawn; of ones, the value itself.
        censored: see `spearman`.

    Raises:
        InputError: the arrays are not of one length, or hold what is not finite.
    """
    x, y, lost = _checked(x, y, censored)
    return _resampled_kendall(x, y, lost, counts, _strata(strata, len(x)))


def _strata(strata: ArrayLike, rows: int) -> NDArray[Any]:
    names = np.asarray(strata)
    if names.shape != (rows,):
        raise InputError(
            f"Expected the stratum of each of {rows} rows; got an array of shape {names.shape}."
        )
    return names


def _resampled_kendall(
    x: Floats,
    y: Floats,
    censored: NDArray[np.bool_],
    counts: Floats,
    strata: NDArray[Any] | None = None,
) -> Floats:
    # less[i, j]: y_i is known to be less than y_j.
    smaller, same = y[:, None] < y, y[:, None] == y
    less = ~censored[:, None] & (smaller | (same & censored))
    known = less | less.T | (same & ~censored[:, None] & ~censored)
    if strata is not None:
        together = strata[:, None] == strata
        less, known = less & together, known & together
    untied = known & (x[:, None] != x)
    signs = np.sign(x - x[:, None]) * (less.astype(float) - less.T)

    def pairs(of: NDArray[Any]) -> Floats:
        found: Floats = ((of.astype(float) @ counts) * counts).sum(axis=0)
        return found

    scale = pairs(untied) * pairs(less | less.T)
    return _ratio(pairs(signs), np.sqrt(scale))


def log_pearson(x: ArrayLike, y: ArrayLike, censored: ArrayLike | None = None) -> float:
    """Return Pearson's correlation of x with the logarithm of y; NaN where a side is constant.

    Where y is censored, log y = a + b x + s e with e standard normal is fitted by maximum
    likelihood (Tobin, Econometrica 26, 1958; here by expectation and maximisation, Aitkin,
    Technometrics 23, 1981), and the result is b sd(x) / sqrt(b^2 var(x) + s^2). Without censoring
    this is Pearson's correlation.

    The trap: it rests on a straight line and on normal residuals; with much censored the line
    is carried on to where nothing was seen.

    Args:
        x: (rows,) of a predictor, itself transformed where that makes the line straighter.
        y: (rows,) of a measure, above 0.
        censored: (rows,) true where y was not seen to its end; None where all were.

    Raises:
        InputError: the arrays are not of one length, hold what is not finite, or a y is not
            above 0.

    Example:
        >>> round(log_pearson([1, 2, 3], [10, 100, 1000]), 6)
        1.0
    """
    x, y, lost = _checked_logs(x, y, censored)
    return float(_resampled_line(x, y, lost, _once(x))[0])


def resampled_log_pearson(
    x: ArrayLike, y: ArrayLike, counts: Floats, censored: ArrayLike | None = None
) -> Floats:
    """Return `log_pearson` of each resample (resamples,).

    NaN where fewer than three of the rows drawn were observed to their end.

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure, above 0.
        counts: (rows, resamples), how often each row was drawn.
        censored: see `log_pearson`.
    """
    return _resampled_line(*_checked_logs(x, y, censored), counts)


def _checked_logs(
    x: ArrayLike, y: ArrayLike, censored: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    checked, measured, lost = _checked(x, y, censored)
    if not (measured > 0).all():
        raise InputError(
            f"A logarithm needs values above 0; got {measured.min():g}. Use a rank correlation."
        )
    return checked, np.log(measured), lost


def _resampled_line(x: Floats, y: Floats, censored: NDArray[np.bool_], counts: Floats) -> Floats:
    x, y = _standardised(x), _standardised(y)
    if not censored.any():
        return _pearson(x[:, None], y[:, None], counts)
    seen, lost = counts[~censored], counts[censored]
    total, observed = _drawn(counts), (seen > 0).sum(axis=0)
    mean_x = x @ counts / total
    variance_x = x**2 @ counts / total - mean_x**2
    x_lost, limits = x[censored][:, None], y[censored][:, None]
    sums_seen = [of[~censored] @ seen for of in (y, x * y, y**2)]

    def line(
        expected: Floats, variance: Floats, lost: Floats, at: NDArray[np.intp]
    ) -> tuple[Floats, Floats, Floats]:
        """Return intercept, slope and residual variance where the lost y are as expected."""
        more = (expected, x_lost * expected, expected**2 + variance)
        sum_y, sum_xy, sum_yy = (
            (sums[at] + (lost * part).sum(axis=0)) / total[at]
            for sums, part in zip(sums_seen, more, strict=True)
        )
        slope = _ratio(sum_xy - mean_x[at] * sum_y, variance_x[at])
        residual = sum_yy - sum_y**2 - slope**2 * variance_x[at]
        return sum_y - slope * mean_x[at], slope, np.maximum(residual, _NO_VARIANCE)

    found = np.full(counts.shape[1], np.nan)
    # Two points lie on a line of any slope.
    going = np.flatnonzero((observed >= 3) & (variance_x > _NO_VARIANCE))
    weights = lost[:, going]
    a, b, variance = line(limits, np.zeros_like(limits), weights, going)
    for _ in range(_MOST_STEPS):
        if not len(going):
            break
        mean, sd = a + b * x_lost, np.sqrt(variance)
        z = (limits - mean) / sd
        hazard = _hazard(z)
        a, b, variance = line(
            mean + sd * hazard, variance * (1 + z * hazard - hazard**2), weights, going
        )
        before = found[going]
        explained = b * np.sqrt(variance_x[going])
        found[going] = explained / np.sqrt(explained**2 + variance)
        open_ = ~(np.abs(found[going] - before) < _STEP)
        going, weights, a, b, variance = (
            going[open_], weights[:, open_], a[open_], b[open_], variance[open_]
        )  # fmt: skip
    return found


def _hazard(z: Floats) -> Floats:
    from scipy.special import log_ndtr

    # Density over upper tail; both underflow where their ratio is still about z.
    found: Floats = np.exp(-(z**2) / 2 - math.log(2 * math.pi) / 2 - log_ndtr(-z))
    return found


def partial_spearman(
    x: ArrayLike, y: ArrayLike, given: ArrayLike, censored: ArrayLike | None = None
) -> float:
    """Return Spearman's correlation of x and y with the covariates held constant.

    All sides are replaced by their ranks (y as in `spearman`); with r their correlations and C
    the covariates, the result is s_xy / sqrt(s_xx s_yy), s_ab = r_ab - r_aC r_CC^+ r_Cb: Pearson's
    correlation of what is left of the ranks of x and y after least squares on those of C.

    The trap: a covariate counts only as far as its ranks are related to those of x and y in a
    straight line.

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        given: (rows, covariates).
        censored: see `spearman`.

    Returns:
        The correlation; NaN where x or y is constant, or nothing of it is left.

    Raises:
        InputError: the arrays are not of one length, or hold what is not finite.

    Example:
        >>> given = np.array([[1], [2], [3], [4], [5], [6]])
        >>> round(partial_spearman([2, 1, 4, 3, 6, 5], [2, 1, 4, 3, 6, 5], given), 6)
        1.0
    """
    x, y, lost, given = _checked_given(x, y, given, censored)
    return float(_resampled_partial(x, y, lost, given, _once(x))[0])


def resampled_partial_spearman(
    x: ArrayLike,
    y: ArrayLike,
    given: ArrayLike,
    counts: Floats,
    censored: ArrayLike | None = None,
) -> Floats:
    """Return `partial_spearman` of each resample (resamples,).

    Args:
        x: (rows,) of a predictor.
        y: (rows,) of a measure.
        given: (rows, covariates).
        counts: (rows, resamples), how often each row was drawn.
        censored: see `spearman`.
    """
    return _resampled_partial(*_checked_given(x, y, given, censored), counts)


def _checked_given(
    x: ArrayLike, y: ArrayLike, given: ArrayLike, censored: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.bool_], Floats]:
    x, y, lost = _checked(x, y, censored)
    held = np.asarray(given, dtype=np.float64)
    if held.ndim != 2 or len(held) != len(x) or not np.isfinite(held).all():
        raise InputError(
            f"Expected covariates as finite numbers of shape ({len(x)}, covariates); got shape "
            f"{held.shape}. Leave out rows in which one is missing."
        )
    return x, y, lost, held


def _resampled_partial(
    x: Floats, y: Floats, censored: NDArray[np.bool_], given: Floats, counts: Floats
) -> Floats:
    seen = np.zeros(len(x), dtype=bool)
    sides = [_scores(x, seen, counts), _scores(y, censored, counts)]
    sides += [_scores(column, seen, counts) for column in given.T]
    total = _drawn(counts)
    stacked = np.stack(sides)
    stacked -= ((stacked * counts).sum(axis=1) / total)[:, None]
    # (resamples, sides, sides)
    covariance = np.empty((counts.shape[1], len(sides), len(sides)))
    for one, other in combinations_with_replacement(range(len(sides)), 2):
        product = np.einsum("nb,nb,nb->b", stacked[one], stacked[other], counts) / total
        covariance[:, one, other] = covariance[:, other, one] = product
    sd = np.sqrt(np.einsum("baa->ba", covariance))
    # A constant covariate holds nothing constant.
    scale = np.where(sd > math.sqrt(_NO_VARIANCE), sd, np.inf)
    r = covariance / (scale[:, :, None] * scale[:, None, :])
    cross = r[:, :2, 2:]
    left = r[:, :2, :2] - cross @ np.linalg.pinv(r[:, 2:, 2:], rcond=1e-9) @ cross.swapaxes(1, 2)
    own = np.clip(left[:, [0, 1], [0, 1]], 0, None)
    # What is left of a rank that the covariates give is rounding.
    scale = np.where((own > 1e-9).all(axis=1), np.sqrt(own.prod(axis=1)), 0)
    return _ratio(left[:, 0, 1], scale)


def bootstrap_interval(
    statistic: Resampled,
    groups: ArrayLike,
    *,
    crossed: ArrayLike | None = None,
    level: float = 0.9,
    seed: int = 0,
    n: int = 1000,
) -> Interval:
    """Return a statistic with its percentile interval over resamples of whole groups.

    Rows of one group (one network on one data set, say) resemble each other, so that drawing
    rows would make the interval too narrow; groups are drawn with replacement, as many as there
    are (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, 3.8). Where rows
    resemble each other in two ways (updates of one network, and updates for one task), both are
    drawn, and a row counts as often as its two groups together (Owen, "The pigeonhole bootstrap",
    Ann. Appl. Stat. 1, 2007); drawing one of them alone, or their combinations, would again be too
    narrow.

    The trap: with fewer than about ten groups the interval is too narrow all the same.

    Args:
        statistic: gives a number for each resample (resamples,) from how often each row was
            drawn (rows, resamples); `resampled_spearman`, say.
        groups: (rows,) the group of each row.
        crossed: (rows,) a second group of each row; None where there is one way only.
        level: share of the resamples between the bounds.
        seed: of the resamples.
        n: resamples.

    Raises:
        InputError: there are fewer than two groups, no resample, or the level is not between 0
            and 1.

    Example:
        >>> x = np.arange(12.0)
        >>> found = bootstrap_interval(
        ...     lambda counts: resampled_spearman(x, x**2, counts), groups=x // 3
        ... )
        >>> round(found.lower, 6), found.groups
        (1.0, 4)
    """
    ways = [np.unique(np.asarray(way), return_inverse=True)[1] for way in (groups, crossed)
            if way is not None]  # fmt: skip
    several = len(np.unique(np.stack(ways), axis=1).T)
    if several < 2 or n < 1 or not 0 < level < 1:
        raise InputError(
            "A bootstrap over groups needs two groups or more, one resample or more and a level "
            f"between 0 and 1; got {several}, {n} and {level}."
        )
    rng = np.random.default_rng(seed)
    counts = np.ones((len(ways[0]), n + 1))  # all rows once are the first column
    for member in ways:
        levels = int(member.max()) + 1
        drawn = rng.multinomial(levels, np.full(levels, 1 / levels), size=n)
        counts[:, 1:] *= drawn.T[member]
    # Where both ways are drawn, a resample may hold no row at all.
    some = counts.sum(axis=0) > 0
    found = np.full(n + 1, math.nan)
    found[some] = statistic(counts[:, some])
    defined = found[1:][np.isfinite(found[1:])]
    lower = upper = math.nan
    if 2 * len(defined) >= n:
        lower, upper = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(float(found[0]), lower, upper, several)


def seed_noise(
    y: ArrayLike,
    cells: ArrayLike,
    strata: ArrayLike | None = None,
    given: ArrayLike | None = None,
) -> SeedNoise:
    """Return how much a measure differs between runs that differ in nothing but the seed.

    Variance components of log y by Henderson's method of fitting constants (Biometrics 9, 1953):
    the variance between seeds is that within cells; that between cells is what the squares left
    by strata and levels held constant have beyond it. Without these, and with two seeds or more
    in each cell, it is the one-way analysis of variance for unequal numbers of seeds (Donner,
    Int. Stat. Rev. 54, 1986). A cell with one run says nothing of seeds, and tells how cells
    differ as well as any other.

    The trap: the ceiling is that of a correlation over the same rows in the same strata. Cells of
    one stratum differ less than all do, so that the ceiling within strata is the lower one.

    Args:
        y: (rows,) of a measure, above 0, none censored.
        cells: (rows,) the cell of each run, all of it but the seed.
        strata: (rows,) the stratum of each run, the same for all runs of a cell; None for one.
        given: (rows, columns) the levels held constant in each; see `resampled_spearman_within`.

    Raises:
        InputError: the arrays are not of one length, a y is not above 0, or fewer than two cells
            have two runs.

    Example:
        >>> round(seed_noise([1, 1, 10, 10], ["a", "a", "b", "b"]).ceiling, 6)
        1.0
    """
    names = np.asarray(cells)
    _, logs, _ = _checked_logs(np.zeros(len(names)), y, None)
    _, member, runs = np.unique(names, return_inverse=True, return_counts=True)
    several = int((runs > 1).sum())
    if several < 2:
        raise InputError(
            "The noise between seeds needs two cells or more with two runs or more each; got "
            f"{several}. Run cells again with other seeds."
        )
    means = np.bincount(member, logs) / runs
    within = ((logs - means[member]) ** 2).sum() / (len(logs) - len(runs))
    strata = np.zeros(len(logs)) if strata is None else strata
    squares, freedom, of_each = 0.0, 0, 0.0
    for of, held in _strata_with_held(strata, given, len(logs)):
        indicators = (member[of, None] == np.unique(member[of])).astype(float)
        squares += (_left(held, logs[of]) ** 2).sum()
        freedom += len(of) - held.shape[1]
        of_each += (_left(held, indicators) ** 2).sum()
    between = max((squares - freedom * within) / of_each, 0.0) if of_each else 0.0
    intraclass = between / (between + within) if between else 0.0
    first, second = np.nonzero(np.triu(member[:, None] == member, 1))
    # |a - b| / ((a + b) / 2) from logarithms.
    differences = 2 * np.tanh(np.abs(logs[first] - logs[second]) / 2)
    return SeedNoise(
        intraclass=float(intraclass),
        ceiling=math.sqrt(intraclass),
        share=math.sqrt(within / between) if between else math.inf,
        median_difference=float(np.median(differences)),
        cells=several,
        runs=int(runs[runs > 1].sum()),
    )


def _checked(
    x: ArrayLike, y: ArrayLike, censored: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    lost = np.zeros(one.shape, bool) if censored is None else np.asarray(censored, dtype=bool)
    if one.ndim != 1 or not one.shape == two.shape == lost.shape:
        raise InputError(
            "Expected x, y and censored as arrays of one length; got shapes "
            f"{one.shape}, {two.shape} and {lost.shape}."
        )
    for name, values in (("x", one), ("y", two)):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"{name} must be finite; got {values[place]} in row {place}. Leave such rows out."
            )
    return one, two, lost


def _drawn(counts: Floats) -> Floats:
    # A resample without any row gives NaN through its variance of 0, not by dividing by 0.
    drawn: Floats = np.maximum(counts.sum(axis=0), 1)
    return drawn


def _once(x: NDArray[Any]) -> Floats:
    return np.ones((len(x), 1))


def _scores(values: Floats, censored: NDArray[np.bool_], counts: Floats) -> Floats:
    """Return the expected place of each value in the distribution of each resample, 0 to 1."""
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    ended = np.add.reduceat((counts * ~censored[:, None])[order], starts)
    at_risk = np.add.reduceat(counts[order], starts)[::-1].cumsum(axis=0)[::-1]
    survival = np.cumprod(1 - ended / np.where(at_risk > 0, at_risk, 1), axis=0)
    before = np.vstack([np.ones((1, counts.shape[1])), survival[:-1]])
    # Beyond c, the mean of the score is halfway between F(c) and 1, whatever the distribution.
    return np.where(censored[:, None], 1 - survival[level] / 2, 1 - (before + survival)[level] / 2)


def _pearson(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Return Pearson's correlation of each resample; x and y (rows, resamples or 1)."""
    total = _drawn(counts)
    x = x - (x * counts).sum(axis=0) / total
    y = y - (y * counts).sum(axis=0) / total
    xx, yy, xy = ((a * b * counts).sum(axis=0) / total for a, b in ((x, x), (y, y), (x, y)))
    return _ratio(xy, np.where(np.minimum(xx, yy) > _NO_VARIANCE, np.sqrt(xx * yy), 0))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole; NaN where the whole is 0."""
    ratio: Floats = np.full(np.shape(part), np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)


def _standardised(values: Floats) -> Floats:
    sd = values.std()
    # Rounding of large equal values must not be blown up into differences.
    if sd <= 1e-12 * np.abs(values).max(initial=0):
        return np.zeros_like(values)
    standardised: Floats = (values - values.mean()) / sd
    return standardised
