"""Compares the statistics that the forecast could rest on, on the corpus without what is set aside.

    pip install lifelines                # in an environment of its own: it wants an older pandas
    python benchmarks/candidates.py          prints one table for each way of holding out

docs/decisions/0013 says which was taken. Each candidate is given the same predictors, and
foretells the same updates from the same others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from copy import copy
from itertools import chain
from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.model_selection import KFold

from resque.experiments.forecast_evaluation import PLATEAU
from resque.forecasting.backtest import foretold, score_of
from resque.forecasting.baselines import BASELINES
from resque.forecasting.corpus import corpus_updates
from resque.forecasting.experience import Distribution
from resque.forecasting.predictors import SORTS, Known

NAMES = tuple(chain(*SORTS.values()))
LEVELS = np.linspace(0.02, 0.98, 49)


class Candidate:
    """A method that is fitted once for each set of known updates."""

    name = ""

    def __init__(self) -> None:
        # Epochs and accuracy are asked for in turn, of the same updates.
        self._fitted: dict[tuple[int, bytes], Any] = {}

    def foretold(
        self,
        known: Sequence[Known],
        y: np.ndarray,
        censored: np.ndarray,
        own: np.ndarray,
        asked: Known,
    ) -> Distribution:
        """See `resque.forecasting.baselines.Method`."""
        of = id(known), y.tobytes()
        if of not in self._fitted:
            fitted = copy(self)
            fitted.x = table(known)
            fitted.fit(filled(fitted.x, fitted.x), y, censored)
            self._fitted = dict([*self._fitted.items(), (of, fitted)][-2:])
        fitted = self._fitted[of]
        values = fitted.values(filled(table([asked]), fitted.x))
        return Distribution(values, np.ones(len(values)))

    def fit(self, x: np.ndarray, y: np.ndarray, censored: np.ndarray) -> None:
        """Learn from rows."""
        raise NotImplementedError

    def values(self, x: np.ndarray) -> np.ndarray:
        """Equally likely values of one row."""
        raise NotImplementedError


def table(known: Sequence[Known]) -> np.ndarray:
    return np.array([[k.predictors.get(name, np.nan) for name in NAMES] for k in known])


def filled(x: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Standardised by the past, its mean where a value is missing, and a column for whole sorts."""
    with np.errstate(all="ignore"):
        mean = np.array([np.nanmean(c) if np.isfinite(c).any() else 0.0 for c in past.T])
        sd = np.array([np.nanstd(c) if np.isfinite(c).any() else 0.0 for c in past.T])
    there = np.isfinite(x)
    z = np.where(there, x - mean, 0.0) / np.where(sd > 1e-9, sd, 1.0)
    flags = [~there[:, NAMES.index(name)] for name in ("error_before", "accuracy_drop")]
    return np.column_stack([z, *flags])


class QuantileBoosting(Candidate):
    """Gradient-boosted quantiles, widened until they hold what they were not fitted on.

    Romano et al., Conformalized quantile regression, NeurIPS 2019, with cross-validation.
    """

    name = "conformalised quantile boosting"
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)

    def fit(self, x: np.ndarray, y: np.ndarray, censored: np.ndarray) -> None:
        def models(rows: Any) -> list[Any]:
            return [
                HistGradientBoostingRegressor(
                    loss="quantile", quantile=share, max_iter=80, learning_rate=0.08,
                    max_leaf_nodes=8, min_samples_leaf=8, random_state=0,
                ).fit(x[rows], y[rows])
                for share in self.shares
            ]  # fmt: skip

        outside = []
        for train, test in KFold(5, shuffle=True, random_state=0).split(x):
            told = np.array([model.predict(x[test]) for model in models(train)])
            outside.append(np.maximum(told[0] - y[test], y[test] - told[-1]))
        missed = np.concatenate(outside)
        share = min(1.0, 0.9 * (1 + 1 / len(missed)))
        self.widened = np.quantile(missed, share, method="higher")
        self.models = models(slice(None))

    def values(self, x: np.ndarray) -> np.ndarray:
        told = np.sort([model.predict(x)[0] for model in self.models])
        told[0], told[-1] = told[0] - self.widened, told[-1] + self.widened
        return np.interp(LEVELS, self.shares, np.sort(told))


class Forest(Candidate):
    """Quantile regression forest (Meinshausen 2006): the known updates in the same leaves."""

    name = "quantile regression forest"

    def fit(self, x: np.ndarray, y: np.ndarray, censored: np.ndarray) -> None:
        self.forest = RandomForestRegressor(
            300, min_samples_leaf=5, max_features=0.4, random_state=0
        )
        self.forest.fit(x, y)
        self.leaves, self.y = self.forest.apply(x), y

    def values(self, x: np.ndarray) -> np.ndarray:
        same = self.leaves == self.forest.apply(x)
        weights = (same / same.sum(axis=0)).mean(axis=1)
        order = np.argsort(self.y)
        return np.interp(LEVELS, np.cumsum(weights[order]), self.y[order])


class Survival(Candidate):
    """Log-normal accelerated failure times with a ridge penalty (lifelines), censoring minded."""

    name = "log-normal survival regression"

    def fit(self, x: np.ndarray, y: np.ndarray, censored: np.ndarray) -> None:
        import pandas as pd
        from lifelines import LogNormalAFTFitter

        varies = x.std(axis=0) > 1e-9
        frame = pd.DataFrame(x[:, varies]).add_prefix("x")
        frame["y"], frame["there"] = np.exp(y), ~censored
        self.varies, self.columns = varies, frame.columns[:-2]
        self.model = LogNormalAFTFitter(penalizer=0.05, l1_ratio=0.0)
        self.model.fit(frame, "y", "there")

    def values(self, x: np.ndarray) -> np.ndarray:
        import pandas as pd

        row = pd.DataFrame(x[:, self.varies], columns=self.columns)
        # Of a log-normal time two quantiles tell all of it.
        low, high = (float(np.squeeze(self.model.predict_percentile(row, p=p))) for p in (0.9, 0.1))
        middle, sd = np.log(low * high) / 2, np.log(high / low) / (2 * ndtri(0.9))
        return middle + sd * ndtri(LEVELS)


class PlainProcess(Candidate):
    """scikit-learn's Gaussian process: linear and smooth, without groups and censoring."""

    name = "plain Gaussian process"

    def fit(self, x: np.ndarray, y: np.ndarray, censored: np.ndarray) -> None:
        several = np.sqrt(x.shape[1])
        kernel = (
            ConstantKernel(0.3) * DotProduct(1.0)
            + ConstantKernel(0.3) * RBF(1.0, (0.3, 10.0))
            + WhiteKernel(0.3)
        )
        self.several = several
        self.model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        self.model.fit(x / several, y)

    def values(self, x: np.ndarray) -> np.ndarray:
        mean, sd = self.model.predict(x / self.several, return_std=True)
        return mean[0] + sd[0] * ndtri(LEVELS)


CANDIDATES = (QuantileBoosting, Forest, Survival, PlainProcess)
COLUMNS = (
    "epochs_error", "epochs_coverage", "epochs_width", "pinball", "rank_correlation",
    "accuracy_error", "accuracy_coverage", "brier",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--corpus", help="another Parquet file than that of the package")
    parser.add_argument(
        "--hold-out", nargs="+", default=["change", "network", "data"], help="what is left out"
    )
    given = parser.parse_args()
    updates = sorted(corpus_updates(given.corpus), key=lambda update: update.started)
    rival = next(method for method in BASELINES if method.name == "best single rival")
    for hold_out in given.hold_out:
        start = time.perf_counter()
        methods = [*(candidate() for candidate in CANDIDATES), rival]
        rows = list(foretold(updates, hold_out=hold_out, targets=[PLATEAU], methods=methods))
        names = dict.fromkeys(row.method for row in rows)
        scores = [score_of([row for row in rows if row.method == name]) for name in names]
        print(
            f"\n### {hold_out} left out: {scores[0].updates} updates, {scores[0].groups} in turn\n"
        )
        print(f"| method | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        for score in scores:
            cells = [f"{score.values[name][0]:.3f}" for name in COLUMNS]
            print(f"| {score.method} | {' | '.join(cells)} |", flush=True)
        print(f"\n{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
