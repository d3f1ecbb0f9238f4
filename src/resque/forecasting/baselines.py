"""Simple ways to foretell an update, which a forecast has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from resque.forecasting.experience import Distribution
from resque.forecasting.predictors import PROBE, SHIFT, TASK, ZERO_SHOT, Known

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resque.forecasting.regression import Floats

# One predictor of an update; None where it has none.
Predictor: TypeAlias = Callable[[Known], float | None]
_FEWEST = 5


class Method(Protocol):
    """A way to foretell one number of an update from those of updates that were made."""

    @property
    def name(self) -> str:
        """In words."""

    def foretold(
        self,
        known: Sequence[Known],
        y: Floats,
        censored: NDArray[np.bool_],
        own: NDArray[np.bool_],
        asked: Known,
    ) -> Distribution:
        """Return the distribution of what an update comes to.

        Args:
            known: of the updates that were made: those of others, then the user's in order of time.
            y: what they came to (updates,).
            censored: where that is a lower bound (updates,).
            own: which are the user's own (updates,).
            asked: of the update.
        """


@dataclass(frozen=True, slots=True)
class Baseline:
    """A straight line through the past on one predictor, or a constant without one.

    One line for each place where training starts and for data with and without old ones to
    compare with, because such updates have little in common. Its interval comes from its errors
    with each update left out in turn.

    Attributes:
        name: in words.
        predictors: the one, or those of which the best on the past is taken; none for a constant.
        last: whether the constant is the last update instead of the mean.

    Example:
        >>> known = [Known(predictors={}, does_not_apply=frozenset(), groups={})] * 30
        >>> y, exact = np.arange(30.0), np.zeros(30, dtype=bool)
        >>> round(Baseline("mean").foretold(known, y, exact, ~exact, known[0]).median())
        14
    """

    name: str
    predictors: Mapping[str, Predictor] | None = None
    last: bool = False

    def foretold(
        self,
        known: Sequence[Known],
        y: Floats,
        censored: NDArray[np.bool_],  # noqa: ARG002  # of the protocol
        own: NDArray[np.bool_],
        asked: Known,
    ) -> Distribution:
        """Return the distribution of what an update comes to; see `Method`.

        Censored updates count as if they had ended there, as they do where nobody minds. A constant
        is that of the user's own updates as soon as there are five.
        """
        if not self.predictors and own.sum() >= _FEWEST:
            known, y = [k for k, mine in zip(known, own, strict=True) if mine], y[own]
        kind = _kind(asked)
        alike = np.array([_kind(k) == kind for k in known])
        if alike.sum() < _FEWEST:
            alike = np.ones(len(known), dtype=bool)
        known, y = [k for k, same in zip(known, alike, strict=True) if same], y[alike]
        if self.last:
            return Distribution(y[-1] + np.diff(y), np.ones(len(y) - 1))
        best: tuple[float, float, Floats] | None = None
        for predictor in (self.predictors or {}).values():
            at = predictor(asked)
            x = np.array([math.nan if (v := predictor(k)) is None else v for k in known])
            there = np.isfinite(x)
            if at is None or there.sum() < _FEWEST or np.ptp(x[there]) < 1e-12:
                continue
            foretold, errors = _line(x[there], y[there], at)
            error = float(np.median(np.abs(errors)))
            if best is None or error < best[0]:
                best = error, foretold, errors
        if best is None:
            # The mean of the others misses by so much: n / (n - 1) of the deviation from all.
            errors = (y - y.mean()) * len(y) / max(1, len(y) - 1)
            best = 0.0, float(y.mean()), errors
        return Distribution(best[1] + best[2], np.ones(len(best[2])))


def _kind(known: Known) -> tuple[bool, ...]:
    start = [bool(known.predictors.get(name)) for name in ("head", "scratch")]
    return (*start, SHIFT.keys() <= known.does_not_apply)


def _line(x: Floats, y: Floats, at: float) -> tuple[float, Floats]:
    """Return what a least-squares line says at a place, and its errors with each point left out."""
    design = np.column_stack([np.ones(len(x)), (x - x.mean()) / x.std()])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    errors: Floats = (y - design @ solution) / np.maximum(1 - leverage, 1e-6)
    return float(solution @ [1.0, (at - x.mean()) / x.std()]), errors


def _of(name: str) -> Predictor:
    # Unlike a lambda it can be handed to another process.
    return partial(_read, name)


def _read(name: str, known: Known) -> float | None:
    return known.predictors.get(name)


def _index(known: Known) -> float | None:
    """The index that is made for such an update."""
    shift = known.predictors.get("RESQUE_dist_debiased")
    return known.predictors.get("RESQUE_task") if shift is None else shift


def _time_constant(known: Known) -> float | None:
    """Logarithm of the steps that gradient descent at its first speed needs to lose all loss.

    Loss falls by learning rate times squared gradient norm a step as long as the network is
    as good as linear: the first term of Zancato et al., NeurIPS 2020, arXiv:2010.02923, which
    follows all directions of the gradients' kernel. In epochs.
    """
    found = [
        known.predictors.get(name)
        for name in (
            "probe_loss_first", "probe_gradient_norm_first", "learning_rate", "steps_per_epoch",
        )
    ]  # fmt: skip
    if any(value is None for value in found):
        return None
    loss, norm, rate, steps = (value for value in found if value is not None)
    return loss - 2 * norm - rate - steps


RIVALS = (*ZERO_SHOT, *SHIFT, *TASK, *PROBE)
BASELINES = (
    Baseline("mean of the history"),
    Baseline("last update", last=True),
    Baseline("accuracy drop alone", {"accuracy_drop": _of("accuracy_drop")}),
    Baseline("index alone", {"index": _index}),
    Baseline("best single rival", {name: _of(name) for name in RIVALS}),
    Baseline("slope of the probe's loss", {"probe_loss_fall": _of("probe_loss_fall")}),
    Baseline("first-order training time", {"time constant": _time_constant}),
)
