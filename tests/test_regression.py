"""The regression with partial pooling: against sklearn, refits, integrals, and known laws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from resque.errors import InputError
from resque.forecasting.regression import NOISE, PooledRegression, Rows, covariances

VARIANCES = {"linear": 0.8, "smooth": 0.3, "network": 0.4, NOISE: 0.1}


def rows_of(x: Any, network: Any = None, unknown: Any = None) -> Rows:
    x = np.asarray(x, dtype=float)
    network = ["one"] * len(x) if network is None else network
    unknown = np.zeros(len(x)) if unknown is None else np.asarray(unknown)
    return Rows({"linear": x}, {"linear": unknown}, {"network": np.asarray(network)})


def drawn(n: int, *, seed: int = 0, groups: int = 6, sd: float = 0.3) -> tuple[Rows, np.ndarray]:
    """Rows of a known law: two slopes, an effect per group, noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    group = rng.integers(0, groups, n)
    y = x @ [1.0, -0.5, 0.0] + 0.7 * rng.normal(size=groups)[group] + sd * rng.normal(size=n)
    return rows_of(x, group.astype(str)), y


def test_it_is_the_gaussian_process_of_sklearn() -> None:
    """The same covariance, put together from sklearn's kernels, with the groups as columns."""
    rows, y = drawn(40)
    names = np.unique(rows.groups["network"])
    one_hot = (rows.groups["network"][:, None] == names).astype(float)
    found = PooledRegression(rows, y, variances=VARIANCES).predict(rows[:7])
    # sklearn's kernels take all columns: x / sqrt(3) is followed by the groups, in three copies of
    # the data that differ in what is scaled away.
    scale = 1e-6
    standard = (y - y.mean()) / y.std()

    def gram(kernel: Any, columns: np.ndarray) -> np.ndarray:
        return np.asarray(kernel(columns))

    x = rows.predictors["linear"] / math.sqrt(3)
    covariance = (
        9.0
        + VARIANCES["linear"] * gram(DotProduct(sigma_0=scale), x)
        + VARIANCES["smooth"] * gram(RBF(1.0), x)
        + VARIANCES["network"] * gram(DotProduct(sigma_0=scale), one_hot)
    )
    noisy = covariance + VARIANCES[NOISE] * np.eye(len(y))
    mean = covariance[:7] @ np.linalg.solve(noisy, standard)
    left = covariance[:7, :7] - covariance[:7] @ np.linalg.solve(noisy, covariance[:, :7])
    assert found.mean == pytest.approx(y.mean() + y.std() * mean, abs=1e-6)
    assert found.sd == pytest.approx(y.std() * np.sqrt(np.diag(left) + VARIANCES[NOISE]), abs=1e-6)


def test_without_groups_it_is_sklearns_regressor() -> None:
    rows, y = drawn(30, groups=1)
    kernel = (
        ConstantKernel(9.0 + VARIANCES["network"])
        + ConstantKernel(VARIANCES["linear"]) * DotProduct(sigma_0=1e-9)
        + ConstantKernel(VARIANCES["smooth"]) * RBF(1.0)
        + WhiteKernel(VARIANCES[NOISE])
    )
    x = rows.predictors["linear"] / math.sqrt(3)
    theirs = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0)
    mean, sd = theirs.fit(x, (y - y.mean()) / y.std()).predict(x[:5] + 0.1, return_std=True)
    shifted = replace(rows[:5], predictors={"linear": (x[:5] + 0.1) * math.sqrt(3)})
    ours = PooledRegression(rows, y, variances=VARIANCES).predict(shifted)
    assert ours.mean == pytest.approx(y.mean() + y.std() * mean, abs=1e-6)
    assert ours.sd == pytest.approx(y.std() * sd, abs=1e-6)


@pytest.mark.parametrize("groups", [2, 8])
def test_rows_left_out_are_foretold_as_by_a_regression_without_them(groups: int) -> None:
    """Naively: one regression for each group, on the other rows, in the units of all."""
    rows, y = drawn(24, groups=groups)
    labels = rows.groups["network"]
    found = PooledRegression(rows, y, variances=VARIANCES).leave_out(
        labels[:, None] == labels[None, :]
    )
    standard = (y - y.mean()) / y.std()
    parts = covariances(rows, rows)
    covariance = 9.0 + sum(VARIANCES[name] * part for name, part in parts.items())
    for label in np.unique(labels):
        out = labels == label
        known = covariance[np.ix_(~out, ~out)] + VARIANCES[NOISE] * np.eye(int((~out).sum()))
        across = covariance[np.ix_(out, ~out)]
        mean = across @ np.linalg.solve(known, standard[~out])
        left = covariance[np.ix_(out, out)] - across @ np.linalg.solve(known, across.T)
        assert found.mean[out] == pytest.approx(y.mean() + y.std() * mean, abs=1e-8)
        assert found.sd[out] == pytest.approx(
            y.std() * np.sqrt(np.diag(left) + VARIANCES[NOISE]), abs=1e-8
        )


def test_nothing_is_foretold_of_what_leaves_nothing() -> None:
    rows, y = drawn(10, groups=1)
    found = PooledRegression(rows, y, variances=VARIANCES).leave_out(np.ones((10, 10), bool))
    assert np.isnan(found.mean).all()
    assert np.isnan(found.sd).all()


def test_a_censored_row_counts_as_the_integral_says() -> None:
    """With one censored row the posterior of any other is a one-dimensional integral."""
    rows = rows_of([[0.0], [0.5], [1.0]])
    y = np.array([0.0, 0.3, 1.0])
    found = PooledRegression(rows, y, np.array([False, False, True]), variances=VARIANCES)
    exact = PooledRegression(rows[:2], y[:2], variances=VARIANCES)
    # In the units of the first two rows; what the third is foretold to be without its bound.
    centre, scale = y[:2].mean(), y[:2].std()
    parts = covariances(rows, rows)
    covariance = 9.0 + sum(VARIANCES[name] * part for name, part in parts.items())
    noisy = covariance[:2, :2] + VARIANCES[NOISE] * np.eye(2)
    weights = np.linalg.solve(noisy, covariance[:2, 2])
    mean = float(weights @ ((y[:2] - centre) / scale))
    sd = math.sqrt(covariance[2, 2] - covariance[2, :2] @ weights)
    bound = (y[2] - centre) / scale

    def density(f: float) -> float:
        beyond = norm.sf(bound, loc=f, scale=math.sqrt(VARIANCES[NOISE]))
        return float(norm.pdf(f, mean, sd) * beyond)

    mass = quad(density, mean - 12 * sd, mean + 12 * sd, limit=200)[0]
    first = quad(lambda f: f * density(f), mean - 12 * sd, mean + 12 * sd, limit=200)[0] / mass
    assert exact.predict(rows[2:]).mean[0] < found.predict(rows[2:]).mean[0]
    assert found.predict(rows[2:]).mean[0] == pytest.approx(centre + scale * first, rel=1e-3)


def test_ignoring_that_rows_are_censored_is_biased_and_minding_it_is_not() -> None:
    """A third of the rows is cut off at a bound; the truth beyond it is known here.

    The standard error of the mean over about 100 rows is below 0.05, and what is left of the
    bias of the noise's tail below 0.1; ignoring the bound misses by more than half of a unit.
    """
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 2))
    truth = x @ [1.0, 0.5]
    y = truth + 0.3 * rng.normal(size=300)
    cut = y > 0.5
    seen = np.minimum(y, 0.5)
    rows = rows_of(x)
    minded = PooledRegression(rows, seen, cut).predict(rows).mean - truth
    ignored = PooledRegression(rows, seen).predict(rows).mean - truth
    assert cut.sum() > 80
    assert abs(minded[cut].mean()) < 0.1
    assert ignored[cut].mean() < -0.4


def test_units_decide_nothing() -> None:
    rows, y = drawn(40)
    one = PooledRegression(rows, y)
    other = PooledRegression(rows, 100 + 7 * y)
    assert other.predict(rows).mean == pytest.approx(100 + 7 * one.predict(rows).mean, rel=1e-4)
    assert other.predict(rows).sd == pytest.approx(7 * one.predict(rows).sd, rel=1e-3)


def test_the_order_of_the_rows_decides_nothing() -> None:
    rows, y = drawn(40)
    order = np.random.default_rng(1).permutation(40)
    one = PooledRegression(rows, y).predict(rows[:5]).mean
    assert PooledRegression(rows[order], y[order]).predict(rows[:5]).mean == pytest.approx(
        one, rel=1e-4, abs=1e-4
    )


def test_a_group_with_few_rows_stays_near_the_others() -> None:
    """Partial pooling: the same surprise moves the effect of a group more the more rows tell it."""
    rng = np.random.default_rng(0)
    rest = np.repeat([f"g{k}" for k in range(8)], 12)
    effects = rng.normal(size=8).repeat(12) * 0.5

    def foretold(rows_of_new: int) -> float:
        names = np.concatenate([rest, ["new"] * rows_of_new])
        y = np.concatenate([effects + 0.5 * rng.normal(size=96), np.full(rows_of_new, 3.0)])
        rows = rows_of(np.zeros((len(y), 1)), names)
        variances = {"linear": 0.1, "smooth": 0.1, "network": 0.3, NOISE: 0.5}
        return float(PooledRegression(rows, y, variances=variances).predict(rows[-1:]).mean[0])

    one, few, many = foretold(1), foretold(4), foretold(40)
    assert 0.3 < one < few < many
    assert many == pytest.approx(3.0, abs=0.3)


def test_intervals_of_known_and_of_new_groups_cover() -> None:
    """90 % of 200 rows each; five binomial standard errors are 0.106. New groups vary more."""
    rng = np.random.default_rng(5)
    effects = rng.normal(size=60)
    x = rng.normal(size=(900, 2))
    group = rng.integers(0, 30, 900)
    group[500:700] = rng.integers(30, 60, 200)
    y = x @ [1.0, -0.5] + effects[group] + 0.5 * rng.normal(size=900)
    rows = rows_of(x, group.astype(str))
    fitted = PooledRegression(rows[:300], y[:300])
    for part in (slice(500, 700), slice(700, 900)):
        found = fitted.predict(rows[part])
        covered = np.abs(y[part] - found.mean) < 1.645 * found.sd
        assert covered.mean() == pytest.approx(0.9, abs=0.11)
    known, new = fitted.predict(rows[700:900]), fitted.predict(rows[500:700])
    assert new.sd.mean() > 1.5 * known.sd.mean()


def test_what_is_not_known_could_be_anything() -> None:
    rows, y = drawn(60)
    fitted = PooledRegression(rows, y, variances=VARIANCES)
    blind = replace(rows[:1], unknown={"linear": np.ones(1)})
    assert fitted.predict(blind).sd[0] > 1.3 * fitted.predict(rows[:1]).sd[0]
    assert fitted.predict(blind).mean == pytest.approx(fitted.predict(rows[:1]).mean)


def test_far_from_all_rows_the_interval_is_wider() -> None:
    rows, y = drawn(60)
    fitted = PooledRegression(rows, y)
    sd = [fitted.predict(rows_of([[far, 0.0, 0.0]], ["0"])).sd[0] for far in (0.0, 4.0, 8.0)]
    assert sd[0] < sd[1] < sd[2]


def test_constant_predictors_and_equal_outcomes_are_no_trouble() -> None:
    rows = rows_of(np.zeros((5, 2)))
    found = PooledRegression(rows, np.full(5, 2.0)).predict(rows[:1])
    assert found.mean[0] == pytest.approx(2.0)
    assert math.isfinite(found.sd[0])


@pytest.mark.parametrize(
    ("y", "censored", "told"),
    [
        ([1.0], [False], "got 1, of which 1 did"),
        ([1.0, 2.0, 3.0], [True, True, True], "got 3, of which 0 did"),
    ],
)
def test_too_little_to_learn_from(y: list[float], censored: list[bool], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PooledRegression(rows_of(np.zeros((len(y), 1))), np.array(y), np.array(censored))
