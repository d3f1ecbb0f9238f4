"""Correlations under censoring, intervals over groups, and the tables of evidence made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from sklearn.linear_model import LinearRegression, Ridge

from resque import InputError, MissingExtraError
from resque.experiments import evidence as evidence_module
from resque.experiments import leave_out
from resque.experiments.cells import Cell
from resque.experiments.correlation import (
    bootstrap_interval,
    degrees_of_freedom,
    kendall,
    log_pearson,
    partial_spearman,
    resampled_kendall,
    resampled_kendall_within,
    resampled_log_pearson,
    resampled_partial_spearman,
    resampled_spearman,
    resampled_spearman_within,
    seed_noise,
    spearman,
)
from resque.experiments.designs import corpus_design
from resque.experiments.evidence import Evidence, evidence
from resque.experiments.evidence_page import evidence_page, write
from resque.experiments.leave_out import forward_selection
from resque.experiments.situations import (
    EPOCHS,
    MEASURES,
    PEAK_ACCURACY,
    SITUATIONS,
    TIME,
    censored_in,
    heavy_tailed,
    verdict_of,
)

ONES = (spearman, kendall, log_pearson)
MANY = (resampled_spearman, resampled_kendall, resampled_log_pearson)


def tied(rng: np.random.Generator, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with ties on both sides, and a third of the larger ones censored."""
    x = rng.integers(0, 9, n).astype(float)
    y = np.exp(0.2 * x + rng.integers(0, 6, n) / 2)
    return x, y, (y > np.median(y)) & (rng.random(n) < 2 / 3)


# --- correlations ---------------------------------------------------------------------------------


def test_without_censoring_all_three_are_those_of_scipy(rng: np.random.Generator) -> None:
    """With ties on both sides, and for two rows as for many."""
    for n in (2, 5, 60):
        x, y, _ = tied(rng, n)
        x[0], y[0] = 20, 1e-3
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-12)
        assert log_pearson(x, y) == pytest.approx(stats.pearsonr(x, np.log(y))[0], abs=1e-12)
        nothing = np.zeros(n, dtype=bool)
        assert log_pearson(x, y, nothing) == log_pearson(x, y)


def test_a_censored_rank_is_the_mean_rank_of_what_lies_beyond(rng: np.random.Generator) -> None:
    """The oracle hands the mass of each censored value on to those on its right (Efron)."""
    x, y, censored = tied(rng)
    order = np.lexsort((censored, y))
    mass = np.full(len(y), 1 / len(y))
    for place, row in enumerate(order):
        right = order[place + 1 :]
        beyond = right[(y[right] > y[row]) | censored[right]]
        if censored[row] and len(beyond) and not censored[beyond].all():
            mass[beyond] += mass[row] / len(beyond)
            mass[row] = 0
    # What censored values keep at the end lies beyond everything that was observed.
    jumps = {value: mass[(y == value) & ~censored].sum() for value in np.unique(y[~censored])}
    left = 1 - sum(jumps.values())
    middles = {v: sum(m for u, m in jumps.items() if u < v) + jumps[v] / 2 for v in jumps}

    def score(value: float, lost: bool) -> float:
        if not lost:
            return middles[value]
        beyond = [v for v in jumps if v > value]
        total = sum(jumps[v] for v in beyond) + left
        return (sum(jumps[v] * middles[v] for v in beyond) + left * (1 - left / 2)) / total

    scores = [score(*row) for row in zip(y, censored, strict=True)]
    expected = np.corrcoef(stats.rankdata(x), scores)[0, 1]
    assert spearman(x, y, censored) == pytest.approx(expected, abs=1e-12)


def test_kendall_counts_the_pairs_whose_order_is_known(rng: np.random.Generator) -> None:
    """Pair by pair."""
    x, y, censored = tied(rng)
    signs, not_tied_x, not_tied_y = 0, 0, 0
    for i, j in combinations(range(len(x)), 2):
        if y[i] == y[j] and not (censored[i] or censored[j]):
            not_tied_x += x[i] != x[j]
            continue
        low, high = sorted((i, j), key=lambda row: (y[row], censored[row]))
        if censored[low]:
            continue
        signs += np.sign(x[high] - x[low])
        not_tied_x += x[i] != x[j]
        not_tied_y += 1
    expected = signs / math.sqrt(not_tied_x * not_tied_y)
    assert kendall(x, y, censored) == pytest.approx(expected, abs=1e-12)


def test_log_pearson_is_where_the_likelihood_is_greatest(rng: np.random.Generator) -> None:
    """Written out, and found by a general optimiser."""
    x, y, censored = tied(rng)

    def loss(parameters: np.ndarray) -> float:
        a, b, log_s = parameters
        z = (np.log(y) - a - b * x) / math.exp(log_s)
        seen = stats.norm.logpdf(z) - log_s
        return -float(np.where(censored, stats.norm.logsf(z), seen).sum())

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    found = optimize.minimize(loss, [0, 0.1, 0], method="Nelder-Mead", options=options).x
    explained, s = found[1] * x.std(), math.exp(found[2])
    expected = explained / math.hypot(explained, s)
    assert log_pearson(x, y, censored) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("statistic", ONES)
def test_no_correlation_depends_on_units(
    statistic: Callable[..., float], rng: np.random.Generator
) -> None:
    """Those of ranks do not depend on a monotone transformation either, none on the order."""
    x, y, censored = tied(rng)
    expected = statistic(x, y, censored)
    assert statistic(1000 * x - 5, 3600 * y, censored) == pytest.approx(expected, abs=1e-6)
    assert statistic(-x, y, censored) == pytest.approx(-expected, abs=1e-6)
    order = rng.permutation(len(x))
    assert statistic(x[order], y[order], censored[order]) == pytest.approx(expected, abs=1e-6)
    if statistic is not log_pearson:
        assert statistic(np.exp(x), y**3, censored) == pytest.approx(expected, abs=1e-12)


def test_resamples_are_rows_repeated(rng: np.random.Generator) -> None:
    """Each way to draw rows gives what the rows themselves give."""
    x, y, censored = tied(rng, 25)
    given = rng.normal(size=(25, 2))
    counts = rng.multinomial(25, [1 / 25] * 25, size=4).T.astype(float)
    for place in range(4):
        rows = np.repeat(np.arange(25), counts[:, place].astype(int))
        for one, many in zip(ONES, MANY, strict=True):
            expected = one(x[rows], y[rows], censored[rows])
            assert many(x, y, counts, censored)[place] == pytest.approx(expected, abs=1e-6)
        expected = partial_spearman(x[rows], y[rows], given[rows], censored[rows])
        found = resampled_partial_spearman(x, y, given, counts, censored)[place]
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [(spearman, 6 / math.pi * math.asin(0.4)), (kendall, 2 / math.pi * math.asin(0.8)),
     (log_pearson, 0.8)],
)  # fmt: skip
def test_censoring_is_not_ignored(
    statistic: Callable[..., float], truth: float, rng: np.random.Generator
) -> None:
    """Normal values with correlation 0.8, 30 % of the logs cut at random: less bias than without.

    The mean of 40 estimates from 300 rows has a standard error of about 0.004. The likelihood is
    unbiased; the others say in their docstrings how far they are off.
    """
    found = []
    for _ in range(40):
        x = rng.normal(size=300)
        y, limit = 0.8 * x + 0.6 * rng.normal(size=300), rng.normal(0.74, 1, 300)
        seen = np.exp(np.minimum(y, limit))
        found.append([statistic(x, seen, y > limit), statistic(x, seen)])
    censored, ignored = np.mean(found, axis=0)
    assert abs(censored - truth) < {spearman: 0.06, kendall: 0.07, log_pearson: 0.015}[statistic]
    assert truth - ignored > 0.1
    assert abs(censored - truth) < (truth - ignored) / 2


def test_a_constant_has_no_correlation() -> None:
    """Neither has what is censored altogether, but an all-equal float is not noise."""
    for statistic in ONES:
        assert math.isnan(statistic([0.1 + 0.2] * 5, [1, 2, 3, 4, 5]))
        assert math.isnan(statistic([1, 2, 3], [4, 5, 6], [True] * 3))
        assert math.isnan(statistic([1], [1]))


def test_partial_correlation_is_that_of_the_residuals_of_ranks(rng: np.random.Generator) -> None:
    """Least squares on the covariates' ranks; for one covariate the textbook formula."""
    x, y, _ = tied(rng)
    given = np.column_stack([x + rng.normal(size=40), rng.integers(0, 3, 40)])
    ranks = np.column_stack([np.ones(40), *(stats.rankdata(column) for column in given.T)])
    left = [
        side - ranks @ np.linalg.lstsq(ranks, side, rcond=None)[0]
        for side in (stats.rankdata(x), stats.rankdata(y))
    ]
    expected = np.corrcoef(*left)[0, 1]
    assert partial_spearman(x, y, given) == pytest.approx(expected, abs=1e-12)
    xy, xz, yz = spearman(x, y), spearman(x, given[:, 0]), spearman(y, given[:, 0])
    textbook = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_spearman(x, y, given[:, :1]) == pytest.approx(textbook, abs=1e-12)
    twice = np.column_stack([given, given[:, :1], np.ones(40)])
    assert partial_spearman(x, y, twice) == pytest.approx(expected, abs=1e-9)


def test_partial_correlation_sees_through_a_common_cause(rng: np.random.Generator) -> None:
    """x and y have nothing in common but z; 2000 rows have a standard error of 0.022."""
    z = rng.normal(size=2000)
    x, y = z + rng.normal(size=2000), np.exp(z + rng.normal(size=2000))
    assert spearman(x, y) > 0.4
    # Ranks are not quite linear in each other, which leaves 0.02 here.
    assert abs(partial_spearman(x, y, z[:, None])) < 0.09
    assert math.isnan(partial_spearman(z, y, z[:, None]))


def test_within_strata_is_the_average_with_pairs_as_weights(rng: np.random.Generator) -> None:
    """Rows of one stratum drawn together: each stratum counts as often as it is drawn."""
    x, y, censored = tied(rng, 40)
    strata = np.repeat([0, 1, 2, 3], [5, 8, 12, 15])
    x[strata == 1] = 2.0
    drawn = np.array([[1, 2], [1, 1], [1, 0], [1, 3]])
    weights = np.array([10, 0, 66, 105])
    each = np.array([spearman(*(v[strata == g] for v in (x, y, censored))) for g in range(4)])
    weighted = np.nan_to_num(each)[:, None] * weights[:, None] * drawn
    expected = weighted.sum(axis=0) / (weights[:, None] * drawn).sum(axis=0)
    found = resampled_spearman_within(x, y, strata, drawn[strata].astype(float), censored)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    ones = np.ones((40, 1))
    alone = strata == 3
    found = resampled_kendall_within(x[alone], y[alone], strata[alone], ones[alone])
    assert found[0] == pytest.approx(kendall(x[alone], y[alone]), abs=1e-12)
    shifted = x + 100 * strata
    np.testing.assert_allclose(
        resampled_kendall_within(shifted, y, strata, ones, censored),
        resampled_kendall_within(x, y, strata, ones, censored),
    )


def test_levels_held_constant_leave_the_residuals_of_ranks(rng: np.random.Generator) -> None:
    """Stratum by stratum least squares on indicators, by another library; weights by freedom."""
    x, y, _ = tied(rng, 40)
    strata = np.repeat([0, 1, 2], [9, 13, 18])
    given = np.column_stack([rng.integers(0, 2, 40), rng.integers(0, 3, 40)])
    total = weight = 0.0
    for stratum in range(3):
        of = strata == stratum
        indicators = pd.get_dummies(pd.DataFrame(given[of].astype(str)), dtype=float).to_numpy()
        sides = [stats.rankdata(side[of]) for side in (x, y)]
        left = [
            side - LinearRegression().fit(indicators, side).predict(indicators) for side in sides
        ]
        freedom = of.sum() - np.linalg.matrix_rank(np.column_stack([np.ones(of.sum()), indicators]))
        assert (degrees_of_freedom(strata, given)[of] == freedom).all()
        total += of.sum() * freedom * np.corrcoef(*left)[0, 1]
        weight += of.sum() * freedom
    ones = np.ones((40, 1))
    found = resampled_spearman_within(x, y, strata, ones, given=given)
    assert found[0] == pytest.approx(total / weight, abs=1e-12)
    nothing = resampled_spearman_within(x, y, strata, ones)
    same = resampled_spearman_within(x, y, strata, ones, given=np.zeros((40, 2)))
    assert same[0] == pytest.approx(nothing[0], abs=1e-12)
    alone = resampled_spearman_within(x, y, strata, ones, given=np.arange(40)[:, None])
    assert math.isnan(alone[0])


def test_what_is_held_constant_makes_no_correlation(rng: np.random.Generator) -> None:
    """Three times the examples, half the epochs, another index: nothing within 60 groups of 8.

    360 degrees of freedom have a standard error of 0.053, of which three. Ignored, the number of
    examples makes the correlation: -0.6.
    """
    strata, examples = np.repeat(np.arange(60), 8), np.tile([300, 900], 240)
    x = rng.normal(size=480) + 3 * (examples == 900)
    y = np.exp(rng.normal(size=480) - 3 * (examples == 900))
    ones = np.ones((480, 1))
    assert resampled_spearman_within(x, y, strata, ones)[0] < -0.5
    found = resampled_spearman_within(x, y, strata, ones, given=examples[:, None])
    assert abs(found[0]) < 0.16


def test_ranks_within_strata_are_not_pulled_to_zero_by_drawing_again(
    rng: np.random.Generator,
) -> None:
    """Many small strata that cut across the groups: the interval lies around the value."""
    strata, groups = np.repeat(np.arange(30), 6), np.tile(np.arange(30), 6)
    x = rng.normal(size=180)
    y = np.exp(x + 0.33 * rng.normal(size=180))
    found = bootstrap_interval(
        lambda counts: resampled_spearman_within(x, y, strata, counts), groups, n=300
    )
    assert 0.3 < (found.value - found.lower) / (found.upper - found.lower) < 0.7


# --- intervals and noise --------------------------------------------------------------------------


def test_the_interval_covers_what_groups_vary_by(rng: np.random.Generator) -> None:
    """Means of 30 groups of 5 rows that share most of their deviation: 0 in about 90 % of cases.

    120 repetitions at 0.9 have a standard deviation of 0.027, percentiles of 30 groups cover
    about 0.88: three deviations below that are 0.80. Drawing rows, as if they were groups of
    their own, covers about a half.
    """
    covered = {"groups": 0, "rows": 0}
    groups = np.repeat(np.arange(30), 5)
    for repetition in range(120):
        y = rng.normal(size=30)[groups] + 0.3 * rng.normal(size=150)
        for name, drawn in (("groups", groups), ("rows", np.arange(150))):
            found = bootstrap_interval(
                lambda counts, y=y: y @ counts / counts.sum(axis=0), drawn, seed=repetition, n=200
            )
            covered[name] += found.lower <= 0 <= found.upper
    assert 0.80 <= covered["groups"] / 120 <= 0.97
    assert covered["rows"] / 120 < 0.75


def test_the_interval_is_the_same_for_the_same_seed(rng: np.random.Generator) -> None:
    """And one row at a time gives what all resamples at once give."""
    x, y, _ = tied(rng)
    groups = np.arange(40) // 4

    def at_once(counts: np.ndarray) -> np.ndarray:
        return resampled_spearman(x, y, counts)

    one = bootstrap_interval(at_once, groups, n=50, seed=3)
    assert one == bootstrap_interval(at_once, groups, n=50, seed=3)
    assert one != bootstrap_interval(at_once, groups, n=50, seed=4)

    def one_by_one(counts: np.ndarray) -> np.ndarray:
        draws = (np.repeat(np.arange(40), drawn) for drawn in counts.T.astype(int))
        return np.array([spearman(x[rows], y[rows]) for rows in draws])

    slow = bootstrap_interval(one_by_one, groups, n=50, seed=3)
    assert (slow.lower, slow.upper) == pytest.approx((one.lower, one.upper), abs=1e-12)
    assert one.groups == 10
    assert one.value == pytest.approx(spearman(x, y), abs=1e-12)


def test_an_interval_that_is_mostly_undefined_is_none() -> None:
    """All but one group are constant: most resamples lack it less often than not."""
    x = np.zeros(40)
    x[:2] = 0, 1
    found = bootstrap_interval(
        lambda counts: np.where(counts[0] > 1, 1.0, np.nan), np.arange(40) // 2, n=100
    )
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)


def test_noise_between_seeds_is_that_of_the_law(rng: np.random.Generator) -> None:
    """Variance 1 between and 0.25 within 300 cells: 0.8, standard error about 0.015."""
    cells = np.repeat(np.arange(300), 3)
    logs = rng.normal(size=300)[cells] + 0.5 * rng.normal(size=900)
    found = seed_noise(np.exp([*logs, 0.0]), [*map(str, cells), "alone"])
    assert found.intraclass == pytest.approx(0.8, abs=0.05)
    assert found.ceiling == pytest.approx(math.sqrt(found.intraclass))
    assert found.share == pytest.approx(0.5, abs=0.07)
    # Differences of logs are normal with deviation 0.5 sqrt(2); the median of their size is
    # 0.674 of that, in the scale of 2 tanh(d / 2).
    assert found.median_difference == pytest.approx(2 * math.tanh(0.2385), abs=0.03)
    assert (found.cells, found.runs) == (300, 900)


def test_noise_between_seeds_in_closed_form() -> None:
    """Logs (0, 2) and (4, 6): within 2, between (16 - 2) / 2 = 7; all alike: nothing but noise."""
    found = seed_noise(np.exp([0, 2, 4, 6]), ["a", "a", "b", "b"])
    assert found.intraclass == pytest.approx(7 / 9)
    assert found.share == pytest.approx(math.sqrt(2 / 7))
    alike = seed_noise([1, 2, 1, 2], ["a", "a", "b", "b"])
    assert (alike.intraclass, alike.ceiling, alike.share) == (0.0, 0.0, math.inf)
    assert alike.median_difference == pytest.approx(1 / 1.5)


def test_the_ceiling_within_strata_is_the_lower_one(rng: np.random.Generator) -> None:
    """Variance 4 between strata, 1 between the cells of one, and 0.25 between seeds.

    Of all: 5.02 / 5.27, levels included. Within 200 strata, with the levels held constant: 0.8,
    standard error about 0.015, although only every other cell was run twice.
    """
    cells = np.concatenate([np.arange(1200), np.arange(0, 1200, 2)])
    strata, level = cells // 6, cells // 3 % 2
    logs = 2 * rng.normal(size=200)[strata] + 0.3 * level + rng.normal(size=1200)[cells]
    y = np.exp(logs + 0.5 * rng.normal(size=1800))
    pooled = seed_noise(y, cells)
    within = seed_noise(y, cells, strata, level[:, None])
    assert pooled.intraclass == pytest.approx(5.02 / 5.27, abs=0.02)
    assert within.intraclass == pytest.approx(0.8, abs=0.05)
    assert (within.cells, within.runs) == (pooled.cells, pooled.runs) == (600, 1200)
    # In one stratum with two seeds in each cell: the analysis of variance of scipy.
    twice = np.isin(cells, cells[1200:][:40])
    several = [np.log(y[twice & (cells == cell)]) for cell in np.unique(cells[twice])]
    f = stats.f_oneway(*several).statistic
    found = seed_noise(y[twice], cells[twice])
    assert found.intraclass == pytest.approx((f - 1) / (f + 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spearman([1, 2], [1, 2, 3]), r"one length; got shapes \(2,\), \(3,\) and \(2,\)"),
        (lambda: spearman([1, 2], [1, 2], [True]), r"got shapes \(2,\), \(2,\) and \(1,\)"),
        (lambda: kendall([1, math.nan], [1, 2]), "x must be finite; got nan in row 1"),
        (lambda: kendall([1, 2], [math.inf, 2]), "y must be finite; got inf in row 0"),
        (lambda: log_pearson([1, 2], [0, 2]), "values above 0; got 0. Use a rank"),
        (lambda: partial_spearman([1, 2], [1, 2], [1, 2]), r"\(2, covariates\); got shape \(2,\)"),
        (
            lambda: resampled_kendall_within([1, 2], [1, 2], [1], np.ones((2, 1))),
            r"stratum of each of 2 rows; got an array of shape \(1,\)",
        ),
        (
            lambda: degrees_of_freedom([1, 1], [1, 2]),
            r"levels held constant with shape \(2, columns\); got shape \(2,\)",
        ),
        (lambda: bootstrap_interval(lambda c: c[0], [1, 1]), "got 1, 1000 and 0.9"),
        (lambda: bootstrap_interval(lambda c: c[0], [1, 2], n=0), "got 2, 0 and 0.9"),
        (lambda: bootstrap_interval(lambda c: c[0], [1, 2], level=90), "got 2, 1000 and 90"),
        (lambda: seed_noise([1, 2, 3], ["a", "a", "b"]), "two cells or more .* got 1"),
        (lambda: forward_selection(np.ones((3, 1)), np.ones(3), np.ones(3)), "out; got 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_said(call: Callable[[], Any], message: str) -> None:
    """With the value received."""
    with pytest.raises(InputError, match=message):
        call()


# --- tables ---------------------------------------------------------------------------------------

_TASKS = (("mnist", "cifar10"), ("cifar10", "mnist"), ("mnist", "gtsrb"), ("gtsrb", "mnist"))
_NETWORKS = ("vit", "vgg16", "resnet18")


def cells() -> list[Cell]:
    """A small design: 90 shifts, three of them again, 48 tasks, 5 from scratch, 6 held out."""
    shifts = [
        Cell(network=network, old=data, new=data, shift=shift, level=level)
        for network in _NETWORKS
        for data in ("mnist", "cifar10")
        for shift in ("gaussian_noise", "brightness", "gaussian_blur")
        for level in range(1, 6)
    ]
    again = [
        Cell(network="vit", old="mnist", new="mnist", shift="brightness", level=level, seed=1)
        for level in (1, 3, 5)
    ]
    tasks = [
        Cell(network=network, old=old, new=new, start="head", examples=examples, seed=seed)
        for network in _NETWORKS
        for old, new in _TASKS
        for examples in (300, 900)
        for seed in (0, 1)
    ]
    scratch = [
        Cell(network="vit", old="mnist", new="mnist", shift="brightness", level=level,
             start="scratch", recipe="scratch")
        for level in range(1, 6)
    ]  # fmt: skip
    held = [
        Cell(network="densenet", old="mnist", new="mnist", shift="brightness", level=1 + seed % 5,
             seed=seed, held_out="network")
        for seed in range(6)
    ]  # fmt: skip
    return [*shifts, *again, *tasks, *scratch, *held]


def simulated(seed: int = 1, *, modelled: bool = True) -> pd.DataFrame:
    """Updates with a known law: how hard they are decides the cost, and predictors see it.

    In order of how well: the probe, the rival "knn", the index, "logme" not at all.
    """
    rng = np.random.default_rng(seed)
    networks = {name: rng.normal() for name in (*_NETWORKS, "densenet")}
    ease = {"mnist": -0.5, "cifar10": 0.6, "gtsrb": 0.2}
    rows = []
    for place, cell in enumerate(cells()):
        shift = cell.kind == "shift"
        hard = cell.level / 2.5 if shift else 2 * ease[cell.new] + rng.normal()
        log_epochs = 1 + hard / 2 + 0.4 * networks[cell.network] + 0.1 * rng.normal()
        epochs = min(math.exp(log_epochs), 20)
        row: dict[str, Any] = {
            "id": str(place),
            "epochs_to_peak_share": epochs,
            "epochs": epochs + 5 if epochs < 20 else epochs,
            "reached": epochs < 20,
            "steps_per_epoch": 10,
            "probe_steps": 25,
            "gradient_norm": math.exp(hard + 0.5 * rng.normal()),
            "parameter_change": math.exp(rng.normal()),
            "duration_s": epochs * math.exp(networks[cell.network]),
            "energy_kwh": 1e-5 * epochs * math.exp(networks[cell.network]),
            "carbon_kg": None,
            "peak_accuracy": 1 / (1 + math.exp(hard - 2)),
            "energy_modelled": modelled,
        }
        values = {
            "RESQUE_dist": hard + 0.5 * rng.normal() if shift else None,
            "RESQUE_task": hard + 0.8 * rng.normal(),
            "accuracy_drop": hard + rng.normal() if shift else None,
            "knn": hard + 0.2 * rng.normal(),
            "logme": rng.normal(),
            "classes": 43.0 if cell.new == "gtsrb" else 10.0,
            "examples_per_class": cell.examples / 10,
            "training_examples": float(cell.examples),
            "parameters": math.exp(12 + 3 * networks[cell.network]),
            "probe_gradient_norm": math.exp(3 * log_epochs + 0.2 * rng.normal()),
        }
        rows.append(
            row
            | {f"label:{name}": value for name, value in cell.labels().items()}
            | {f"preflight:{name}": value for name, value in values.items()}
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def found() -> Evidence:
    return evidence(simulated(), resamples=60)


def claims(table: pd.DataFrame, resamples: int = 10) -> pd.DataFrame:
    """The claims alone, of the indices alone, which takes less time."""
    others = re.compile("preflight:(?!RESQUE)")
    return evidence(table[[c for c in table if not others.match(c)]], resamples=resamples).claims


def row_of(table: pd.DataFrame, **keys: str) -> dict[str, Any]:
    """The only row with these values."""
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0].to_dict()


def within(found: Evidence, situation: str, measure: str, predictor: str) -> dict[str, Any]:
    return row_of(
        found.correlations, situation=situation, measure=measure, predictor=predictor,
        scope="within", statistic="spearman",
    )  # fmt: skip


def test_correlations_are_those_of_the_law(found: Evidence) -> None:
    """The probe before the rival before the index before noise, each with its runs."""
    values = [
        within(found, "shifts", EPOCHS.title, name)["value"]
        for name in ("probe_gradient_norm", "knn", "RESQUE_dist", "logme")
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95
    # 93 rows in 6 groups: a standard error of 1 / sqrt(87) = 0.11, of which three.
    assert abs(values[3]) < 0.33
    row = within(found, "shifts", EPOCHS.title, "RESQUE_dist")
    assert (row["runs"], row["groups"], row["reason"]) == (93, 6, "")
    assert row["lower"] <= row["value"] <= row["upper"]
    assert row["grouping"] == "network, old, new, start, recipe; held constant: examples"
    assert within(found, "shifts", "peak accuracy", "RESQUE_dist")["value"] < -0.5


def test_the_value_within_groups_is_that_of_a_loop(found: Evidence) -> None:
    """Group by group, from the table itself."""
    table = simulated()
    rows = table[(table["label:kind"] == "shift") & (table["label:start"] == "weights")]
    rows = rows[rows["label:held_out"] == ""]
    total = weight = 0.0
    for _, of in rows.groupby(["label:network", "label:old"]):
        pairs = len(of) * (len(of) - 1) / 2
        total += pairs * spearman(of["preflight:knn"], of["duration_s"], ~of["reached"])
        weight += pairs
    assert within(found, "shifts", "time", "knn")["value"] == pytest.approx(total / weight)


def test_the_number_of_examples_and_the_data_make_no_correlation() -> None:
    """Both decide index and costs, which have nothing else in common: nothing within groups.

    The corpus's own design, whose groups are small. About 200 degrees of freedom within groups and
    90 within kinds of shift: standard errors of 0.07 and 0.11, of which three.
    """
    rng = np.random.default_rng(4)
    data = {"mnist": 0.0, "fashion_mnist": 1.0, "emnist_letters": 2.0, "cifar10": 3.0, "gtsrb": 4.0}
    rows = []
    for place, cell in enumerate(corpus_design()):
        if cell.kind != "shift" or cell.start == "scratch" or cell.network == "minilm":
            continue
        common = data.get(cell.new, 0.0) + 2 * (cell.examples == 900)
        row = dict.fromkeys((m.column for m in MEASURES), 1.0) | {
            "id": str(place), "reached": True, "epochs": 1.0, "steps_per_epoch": 10,
            "probe_steps": 25, "energy_modelled": None,
            "epochs_to_peak_share": math.exp(common + 0.5 * rng.normal()),
            "preflight:RESQUE_dist": common + 0.5 * rng.normal(),
        }  # fmt: skip
        rows.append(row | {f"label:{name}": value for name, value in cell.labels().items()})
    correlations = evidence(pd.DataFrame(rows), resamples=5).correlations
    of = correlations[
        (correlations["measure"] == EPOCHS.title) & (correlations["predictor"] == "RESQUE_dist")
    ]
    value = {
        scope: row_of(of, scope=scope, statistic="spearman")["value"]
        for scope in ("within", "pooled", "one kind of shift")
    }
    assert value["pooled"] > 0.8
    assert abs(value["within"]) < 0.21
    assert abs(value["one kind of shift"]) < 0.33


def test_each_ceiling_is_over_the_rows_of_its_correlation(found: Evidence) -> None:
    """Tasks have two seeds each; those within groups vary less, and the ceiling is lower."""
    rows = {
        scope: row_of(found.noise, situation="new tasks", measure="time", scope=scope)
        for scope in ("within", "pooled")
    }
    # 48 tasks in 24 cells, all of them in groups; those that were censored are left out.
    assert rows["within"]["cells"] == rows["pooled"]["cells"] <= 24
    assert rows["within"]["ceiling"] < rows["pooled"]["ceiling"]
    few = row_of(found.noise, situation="shifts, from scratch", measure="time", scope="within")
    assert few["reason"] == "fewer than two cells with two seeds"


def test_held_out_updates_are_not_looked_at(found: Evidence) -> None:
    """Whatever they are, nothing changes but how many there are."""
    table = simulated()
    held = table["label:held_out"] != ""
    assert (found.updates, found.held_out) == ((~held).sum(), 6)
    table.loc[held, ["epochs_to_peak_share", "preflight:RESQUE_dist"]] = 1e9
    pd.testing.assert_frame_equal(claims(table, 60), claims(simulated(), 60))


def test_groups_that_are_too_small_are_left_out_with_the_reason(found: Evidence) -> None:
    """Five runs from scratch on one network and one data set make no interval."""
    row = within(found, "shifts, from scratch", EPOCHS.title, "RESQUE_dist")
    assert row["reason"] == "5 runs; 20 are needed"
    assert math.isnan(row["value"])
    rows = claims(simulated()[:3])
    reasons = rows[rows["under"] == "multiple kinds of noise"]["reason"]
    assert {"no group has 3 degrees of freedom or more", "no grid was given"} == set(reasons)
    assert {"there are no such updates"} == set(rows[rows["under"] == "new tasks"]["reason"])
    one = simulated()
    one = one[one["label:network"] == "vit"]
    row = row_of(claims(one), under="new tasks", measure=EPOCHS.title)
    assert (row["reason"], row["verdict"]) == ("16 runs; 20 are needed", "not tested")


def test_what_does_not_vary_has_no_value(found: Evidence) -> None:
    """Parameters are the same in all of a group; what is held constant has no partial."""
    row = within(found, "shifts", EPOCHS.title, "parameters")
    assert row["reason"] == "the predictor or the measure does not vary"
    partial = row_of(
        found.correlations, situation="shifts", measure=EPOCHS.title, predictor="accuracy_drop",
        scope="partial",
    )  # fmt: skip
    assert partial["reason"] == "it is one of those held constant"


def test_the_noise_level_is_compared_within_one_kind_of_shift_only(found: Evidence) -> None:
    """Its unit differs between kinds; here it decides, so it is better than the index."""
    rows = found.correlations[found.correlations["predictor"] == "noise level"]
    assert {"one kind of shift"} == set(rows["scope"])
    of_both = [
        row_of(
            found.correlations, situation="shifts", measure=EPOCHS.title, predictor=name,
            scope="one kind of shift", statistic="spearman",
        )
        for name in ("noise level", "RESQUE_dist")
    ]  # fmt: skip
    # Brightness is stronger with every level, as the other two are.
    assert of_both[0]["value"] > of_both[1]["value"] > 0.5
    words = "old, new, start; held constant: network x shift, recipe, examples"
    assert of_both[0]["grouping"] == words
    # Three of 93 are runs of one cell with another seed.
    assert (of_both[0]["runs"], of_both[0]["groups"]) == (90, 2)


@pytest.mark.parametrize(
    ("lower", "verdict"),
    [(0.5, "held"), (0.4999, "partly"), (1e-9, "partly"), (0.0, "not"), (-0.2, "not"),
     (math.nan, "not tested")],
)  # fmt: skip
def test_verdicts_follow_the_lower_bound(lower: float, verdict: str) -> None:
    """At least 0.5, above 0, or neither; and none where the number is no test."""
    assert verdict == verdict_of(lower)
    assert verdict_of(lower, testable=False) == "not tested"


def test_claims_carry_their_verdicts(found: Evidence) -> None:
    """Held where the law holds, not where there is none, and modelled energy is no evidence."""
    assert len(found.claims) == 18
    under = "multiple kinds of noise"
    held = row_of(found.claims, under=under, measure=EPOCHS.title)
    assert (held["verdict"], held["reason"], held["runs"]) == ("held", "", 93)
    assert row_of(found.claims, under=under, measure="parameter change")["verdict"] != "held"
    energy = row_of(found.claims, under=under, measure="energy")
    assert energy["verdict"] == "not tested"
    assert energy["reason"] == "energy was modelled in 93 of 93 runs"
    carbon = row_of(found.claims, under=under, measure="carbon")
    assert carbon["reason"] == "no grid was given"
    metered = claims(simulated(modelled=False), 60)
    assert row_of(metered, under=under, measure="energy")["verdict"] == "held"


def test_a_rival_that_sees_more_beats_the_index(found: Evidence) -> None:
    """In nearly all groups, and by its name; the probe is no rival."""
    row = row_of(found.best_rivals, situation="shifts", measure=EPOCHS.title)
    assert (row["rival"], row["groups"], row["runs"]) == ("knn", 6, 93)
    assert row["share"] > 0.7


def test_forward_selection_finds_what_matters(rng: np.random.Generator) -> None:
    """Two of twelve, with missing values; noise on its own gives nothing."""
    x = rng.normal(size=(150, 12))
    y = 2 * x[:, 7] - x[:, 2] + 0.2 * rng.normal(size=150)
    x[rng.random(x.shape) < 0.02] = np.nan
    groups = np.arange(150) % 6
    assert forward_selection(x, y, groups)[:2] == (7, 2)
    assert forward_selection(x, y, groups, most=1) == (7,)
    assert len(forward_selection(x, rng.normal(size=150), groups)) <= 2
    assert forward_selection(np.full((150, 1), np.nan), y, groups) == ()


def test_the_regression_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    """On standardised predictors, with a penalty of 1."""
    train, test = leave_out._prepared(rng.normal(2, 3, (30, 4)), rng.normal(2, 3, (5, 4)))
    y = rng.normal(size=30)
    expected = Ridge(alpha=1.0).fit(train, y).predict(test)
    np.testing.assert_allclose(leave_out._fitted(train, y, test), expected)


def test_missing_values_become_the_median_of_the_training_rows() -> None:
    """And nothing of what is forecast is used; a column that is always missing is constant."""
    train = np.array([[1, np.nan], [2, np.nan], [9, np.nan], [np.nan, np.nan]])
    one, _ = leave_out._prepared(train, np.array([[1e6, 3.0]]))
    other, test = leave_out._prepared(train, np.array([[np.nan, 3.0]]))
    np.testing.assert_array_equal(one, other)
    assert one[3, 0] == one[1, 0] == test[0, 0]
    assert not one[:, 1].any()


def test_chosen_quantities_forecast_what_was_left_out(found: Evidence) -> None:
    """The probe is chosen in every fit and errs far less than a constant; the index in between."""
    for left_out in ("network", "kind of shift"):
        rows = found.left_out[found.left_out["left_out"] == left_out]
        errors = {
            name: row_of(rows, situation="shifts", measure=EPOCHS.title, predictors=name)
            for name in ("chosen quantities", "index alone", "constant")
        }
        values = [row["error"] for row in errors.values()]
        assert values == sorted(values)
        assert values[0] < 0.2
        assert errors["chosen quantities"]["rank_correlation"] > 0.9
        assert math.isnan(errors["constant"]["rank_correlation"])
        assert errors["constant"]["groups"] == 3
        picks = row_of(
            found.chosen, situation="shifts", left_out=left_out, measure=EPOCHS.title,
            quantity="probe_gradient_norm",
        )  # fmt: skip
        assert picks["times"] == picks["fits"] == 3
    drop = row_of(
        found.left_out, situation="new tasks", left_out="task", measure=EPOCHS.title,
        predictors="accuracy drop alone",
    )  # fmt: skip
    assert drop["runs"] == 0


def test_heavy_tails_are_positive_and_span_a_decade(found: Evidence) -> None:
    """The probe is one here; what may be negative or missing throughout is not."""
    assert "probe_gradient_norm" in found.logged
    assert "logme" not in found.logged
    assert not heavy_tailed(np.array([0.0, 1.0, 1000.0]))
    assert not heavy_tailed(np.array([np.nan]))


def test_zeros_are_replaced_and_counted() -> None:
    """A run that was there at once took 0 epochs, which has no logarithm."""
    table = simulated()
    table.loc[:1, "epochs_to_peak_share"] = 0.0
    made, replaced = evidence_module._above_zero(table)
    assert replaced == {EPOCHS.title: 2}
    least = table["epochs_to_peak_share"][2:].min()
    assert made["epochs_to_peak_share"][:2].tolist() == [least / 2] * 2


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda t: t.drop(columns="label:shift"), "missing: label:shift. Make the updates"),
        (lambda t: t.filter(regex="^(?!preflight)"), r"missing: preflight:\.\.\."),
        (lambda t: t.assign(**{"label:held_out": "data"}), "No update is left: all 152 are held"),
        (
            lambda t: t.assign(**{"label:cell": [None, *t["label:cell"][1:]]}),
            "1 of 152 updates have no cell",
        ),
    ],
)
def test_a_table_that_is_no_evidence_is_refused(
    broken: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    """With what is missing."""
    with pytest.raises(InputError, match=message):
        evidence(broken(simulated()), resamples=5)


# --- page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(found: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    return write(found, tmp_path_factory.mktemp("docs"))


def sections(text: str) -> Sequence[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_the_page_has_every_section_and_no_nan(page: Path) -> None:
    """Nothing is printed that is no number, and every table has rows of one width."""
    text = page.read_text(encoding="utf-8")
    names = [f"{s.name[0].upper()}{s.name[1:]}" for s in SITUATIONS]
    expected = [
        "The claims of the paper", *names, "How often a rival beats the index",
        "What is left out", "Noise between seeds", "How it was computed",
    ]  # fmt: skip
    assert expected == sections(text)
    assert not re.search(r"\b(nan|inf|None|NaN)\b", text)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        lines = table.strip().splitlines()
        assert len(lines) > 2
        assert len({line.count("|") for line in lines}) == 1


def test_the_page_says_what_the_numbers_say(page: Path, found: Evidence) -> None:
    """Verdicts, places and reasons are those of the tables."""
    text = page.read_text(encoding="utf-8")
    assert f"What {found.updates} measured updates say" in text
    row = row_of(found.claims, under="multiple kinds of noise", measure=EPOCHS.title)
    assert f"*held* for {EPOCHS.title} ({row['value']:.2f})" in text
    assert "energy was modelled in 93 of 93 runs" in text
    assert "### Energy (modelled): shifts" in text
    assert re.search(
        r"RESQUE_dist is number \d, .*; `probe_gradient_norm` \(probe\) orders epochs to 99 % of",
        text,
    )
    assert "Nothing can be said within groups: 5 runs; 20 are needed." in text


def test_another_world_makes_another_page(tmp_path: Path) -> None:
    """Where the index orders the costs the wrong way round, the page says so."""
    pytest.importorskip("matplotlib")
    table = simulated()
    columns = [name for name in table if name.startswith("preflight:")]
    table = table.drop(columns=set(columns) - {"preflight:RESQUE_dist", "preflight:logme"})
    table["preflight:RESQUE_dist"] = -table["epochs_to_peak_share"]
    text = evidence_page(table, tmp_path, resamples=20).read_text(encoding="utf-8")
    assert "*not* for" in text
    assert f"RESQUE_dist orders {EPOCHS.title} best of 2 predictors, -" in text


def test_figures_are_named_by_the_page_and_the_same_for_the_same_numbers(
    page: Path, found: Evidence, tmp_path: Path
) -> None:
    """Each image is there, has an alternative text with its runs, and no date inside."""
    images = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(images) == 5
    again = write(found, tmp_path)
    for alt, path in images:
        assert re.search(r"\d", alt)
        assert (page.parent / path).with_suffix(".png").exists()
        assert (page.parent / path).read_bytes() == (again.parent / path).read_bytes()


def test_a_page_needs_its_folder_and_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are said before any work."""
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        evidence_page(simulated(), tmp_path / "nowhere")
    monkeypatch.setattr("resque.reporting.figures.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        evidence_page(simulated(), tmp_path)


def test_measures_are_those_of_the_table() -> None:
    """Each column is one that `table_of` writes."""
    from resque.history import table

    assert {measure.column for measure in MEASURES} <= set(table.MEASURES)


def test_a_rival_wins_by_what_the_other_groups_know() -> None:
    """Its direction and its choice come from them; what this group does not know is not chosen."""
    runs = np.full(4, 10)
    index = np.full(4, 0.3)

    def share(**rivals: list[float]) -> tuple[float, int]:
        named = {name: np.array(values) for name, values in rivals.items()}
        found = evidence_module._contest({"index": index} | named, "index", runs, 1)
        return found["share"], found["groups"]

    assert share(steady=[0.5, 0.5, 0.5, 0.5]) == (1.0, 4)
    # Where it turns round it loses, however strong it is.
    assert share(turning=[0.5, 0.5, 0.5, -0.9]) == (0.75, 4)
    assert share(opposite=[-0.5, -0.5, -0.5, -0.5]) == (1.0, 4)
    assert share(seldom=[0.9, 0.9, math.nan, math.nan], always=[0.1] * 4) == (0.5, 4)
    wrong = evidence_module._contest({"index": -index, "rival": index}, "index", runs, 1)
    assert wrong["share"] == 1.0


def test_a_task_is_left_out_under_its_other_names_too() -> None:
    """All of CIFAR-10 is "vehicles_animals" as well: it would be learnt from itself."""
    assert leave_out._share_data("cifar10", "vehicles_animals")
    assert leave_out._share_data("digits_letters", "digits_clothes")
    assert not leave_out._share_data("mnist", "gtsrb")


def test_crossed_groups_are_drawn_together() -> None:
    """The standard error of a mean under crossed effects; drawing one way alone is too narrow."""
    rng = np.random.default_rng(1)
    rows, columns = np.indices((12, 15)).reshape(2, -1)
    y = rng.normal(size=12)[rows] + rng.normal(size=15)[columns]

    def mean(counts: np.ndarray) -> np.ndarray:
        return np.asarray(y @ counts / counts.sum(axis=0))

    def width(*ways: np.ndarray) -> float:
        crossed = ways[1] if len(ways) > 1 else None
        found = bootstrap_interval(mean, ways[0], crossed=crossed, n=4000)
        return found.upper - found.lower

    by_row = y.reshape(12, 15).mean(1)
    by_column = y.reshape(12, 15).mean(0)
    # A mean of independent row and column means; 1.645 standard errors to either side, and 6 %
    # for 4000 resamples of a distribution that is not quite normal.
    error = math.hypot(by_row.std() / math.sqrt(12), by_column.std() / math.sqrt(15))
    assert width(rows, columns) == pytest.approx(2 * 1.645 * error, rel=0.06)
    combined = rows * 15 + columns
    assert width(combined) < 0.5 * width(rows, columns)
    assert bootstrap_interval(mean, rows, crossed=columns, n=2).groups == 180


def test_a_resample_without_a_row_is_left_out() -> None:
    """Two rows on a diagonal: a quarter of the draws hold neither."""
    x = np.array([1.0, 2.0])

    def mean(counts: np.ndarray) -> np.ndarray:
        assert (counts.sum(axis=0) > 0).all()
        return np.asarray(x @ counts / counts.sum(axis=0))

    found = bootstrap_interval(mean, [0, 1], crossed=[0, 1], n=200)
    assert (1.5, 1.0, 2.0) == (found.value, found.lower, found.upper)


def test_epochs_that_had_passed_before_the_end_are_known() -> None:
    """Cut off at 30 epochs: 99 % of the peak after 12 is what it took, after 26 it is not."""
    rows = pd.DataFrame(
        {
            "reached": [True, False, False],
            "epochs": [17.0, 30.0, 30.0],
            "epochs_to_peak_share": [12.0, 12.0, 26.0],
        }
    )
    assert [False, False, True] == censored_in(rows, EPOCHS).tolist()
    assert [False, True, True] == censored_in(rows, TIME).tolist()
    assert not censored_in(rows, PEAK_ACCURACY).any()
