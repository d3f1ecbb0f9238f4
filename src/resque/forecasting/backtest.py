"""How good the forecaster has been, on updates that it had not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy.stats import rankdata

from resque.errors import InputError, nearest
from resque.forecasting.baselines import BASELINES, Method
from resque.forecasting.experience import Distribution, Experience, reading_of, scaled, unscaled
from resque.forecasting.outcome import outcome_of
from resque.forecasting.outlook import Outlook
from resque.forecasting.predictors import CHANGE, known_of, logit, share_of
from resque.history.records import Accuracy, Recipe, Target, checked_target, fields_of
from resque.notebook import shown_in_notebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resque.forecasting.regression import Floats
    from resque.history.update import Update

HoldOut = Literal["time", "update", "change", "network", "data", "recipe", "all"]
OURS = "forecast"
LEVEL = 0.9
_TAIL = (1 - LEVEL) / 2
_RESAMPLES = 500
# Experiences whose sizes differ by less than this share have the same variances.
_ALIKE = 0.9
_FEWEST_KNOWN = 2
# Resamples of fewer groups find a difference far too often.
_FEWEST_GROUPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """One update, what was foretold of it without it, and what it came to.

    Attributes:
        update: its id.
        target: at which it is read.
        group: what was left out with it.
        method: "forecast", or the name of a baseline.
        epochs: paid for, (median, lower, upper).
        accuracy: at best, likewise.
        reaches: probability of the target.
        true_epochs: paid for.
        true_accuracy: at best.
        reached: whether the target was met.
        pinball: loss of the three quantiles of the logarithm of the epochs.
    """

    update: str
    target: Target
    group: str
    method: str
    epochs: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    reaches: float
    true_epochs: float
    true_accuracy: float
    reached: bool
    pinball: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How well one method did; each number with its 90 % bootstrap interval over groups.

    Attributes:
        method: "forecast", or the name of a baseline.
        updates: that were foretold.
        groups: that were left out.
        values: name -> (value, lower, upper): "epochs_error", median of |forecast / truth - 1|;
            "epochs_coverage" of the 90 % intervals; "epochs_width", mean ratio of the upper to
            the lower bound, as a logarithm; "pinball", mean loss of the 5 %, 50 % and 95 %
            quantiles of the logarithm of the epochs; "rank_correlation" (Spearman);
            "accuracy_error", mean absolute; "accuracy_coverage"; "brier" of the probability of
            the target.
    """

    method: str
    updates: int
    groups: int
    values: Mapping[str, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the score as plain JSON types."""
        return fields_of(self) | {"values": {k: list(v) for k, v in self.values.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Backtest:
    """What a forecaster and simpler methods foretold of updates that they had not seen.

    Attributes:
        hold_out: what was left out in turn.
        target: at which the updates were read.
        foretold: one row for each update and method.
        scores: one for each method, the forecast first.
    """

    hold_out: HoldOut
    target: Target
    foretold: tuple[Foretold, ...]
    scores: tuple[Score, ...]

    _repr_html_ = shown_in_notebook

    @property
    def verdict(self) -> str:
        """Whether the forecast did better than the best of the other methods, in a sentence.

        By the pinball loss: whether the 90 % interval of the difference, over resamples of what was
        left out, has zero in it. Five groups or more are needed.
        """
        others = self.scores[1:]
        if not others:
            return ""
        best = min(others, key=lambda score: score.values["pinball"][0])
        losses = [score.values["pinball"][0] for score in (self.scores[0], best)]
        told = f"pinball loss {losses[0]:.3f} against {losses[1]:.3f}"
        groups = self.scores[0].groups
        if groups < _FEWEST_GROUPS:
            return (
                f"Whether the forecast is better than {best.method}, the best of the others, it "
                f"takes {_FEWEST_GROUPS} groups to be left out to tell, and there are {groups}: "
                f"{told}."
            )
        differences = _differences(
            [row for row in self.foretold if row.method == OURS],
            [row for row in self.foretold if row.method == best.method],
        )
        lower, upper = np.quantile(differences, [_TAIL, 1 - _TAIL])
        if upper < 0:
            return f"The forecast is better than {best.method}, the best of the others: {told}."
        if lower > 0:
            return f"The forecast is worse than {best.method}: {told}."
        return f"The forecast cannot be told from {best.method}, the best of the others: {told}."

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON types."""
        return {
            "hold_out": self.hold_out,
            "target": str(self.target),
            "verdict": self.verdict,
            "scores": [score.to_dict() for score in self.scores],
        }


def backtest(
    updates: Iterable[Update],
    *,
    others: Sequence[Update] = (),
    hold_out: HoldOut = "time",
    target: Target | None = None,
    baselines: Sequence[Method] = BASELINES,
    from_update: int = 0,
    each: Callable[[str], None] = lambda _: None,
) -> Backtest:
    """Return how well updates would have been foretold without them.

    Args:
        updates: to be foretold, in any order.
        others: updates that are always known, such as the corpus.
        hold_out: what is unknown when an update is foretold: "time", all that came later;
            "update", itself; "change", "network", "data" or "recipe", all updates of the same;
            "all", all but the others.
        target: at which updates are read; by default that of the first update.
        baselines: what the forecast is compared with.
        from_update: with "time", how many come first that are not foretold.
        each: called with the group of each update when it has been dealt with.

    Raises:
        InputError: there is no such way to hold out, or too few updates.

    Example:
        >>> from resque.forecasting.corpus import corpus_updates
        >>> known = [u for u in corpus_updates() if u.labels["new"] == "cifar10"][:60]
        >>> found = backtest(known, hold_out="network", baselines=())
        >>> found.scores[0].method
        'forecast'
    """
    if hold_out not in get_args(HoldOut):
        raise InputError(
            f"hold_out must be one of {', '.join(get_args(HoldOut))}; got {hold_out!r}."
            f"{nearest(str(hold_out), get_args(HoldOut))}"
        )
    ordered = sorted(updates, key=lambda update: update.started)
    if not ordered:
        raise InputError("There are no updates to foretell.")
    target = ordered[0].target if target is None else checked_target(target)
    rows = tuple(
        foretold(
            ordered, others=others, hold_out=hold_out, targets=[target], methods=baselines,
            from_update=from_update, each=each,
        )
    )  # fmt: skip
    if not rows:
        raise InputError(
            f"With {hold_out} held out there is nothing to foretell from: a backtest needs "
            f"{_FEWEST_KNOWN} updates or more that met {target} and are not alike in it; got "
            f"{len(ordered)}."
        )
    methods = dict.fromkeys(row.method for row in rows)
    return Backtest(
        hold_out=hold_out,
        target=target,
        foretold=rows,
        scores=tuple(score_of([r for r in rows if r.method == method]) for method in methods),
    )


def foretold(
    updates: Sequence[Update],
    *,
    others: Sequence[Update] = (),
    hold_out: HoldOut,
    targets: Sequence[Target],
    methods: Sequence[Method] = BASELINES,
    from_update: int = 0,
    each: Callable[[str], None] = lambda _: None,
) -> Iterator[Foretold]:
    """Yield what is foretold of updates without them, by the forecaster and by other methods.

    Updates that met a target before the first step are not foretold at it.

    Args:
        updates: in the order of time.
        others: see `backtest`.
        hold_out: likewise.
        targets: at which the updates are read.
        methods: beside the forecaster.
        from_update: see `backtest`.
        each: likewise.
    """
    memory = _Memory()
    for group, past, asked in _folds(updates, others, hold_out, from_update):
        experience = memory.experience(past, later=hold_out == "time")
        for target in targets:
            yield from _at_target(group, experience, asked, target, methods)
        memory.keep(experience)
        for _ in asked:
            each(group)


@dataclass(frozen=True, slots=True)
class _Past:
    """What is known when some updates are foretold: own updates, and others."""

    own: Sequence[Update]
    others: Sequence[Update]


class _Memory:
    """Variances of regressions that were fitted on earlier updates only.

    In order of time, what was known a little while ago is known still, and one more update hardly
    changes the variances, which take far longer than all the rest. With anything else held out
    they would tell of what is to be unknown.
    """

    def __init__(self) -> None:
        self._size = 0
        self._variances: dict[str, Mapping[str, float]] = {}

    def experience(self, past: _Past, *, later: bool) -> Experience:
        """Return the experience of what is known.

        Args:
            past: what that is.
            later: whether it is what was known before, and more.
        """
        size = len(past.own) + len(past.others)
        if not later or not self._size <= size <= self._size / _ALIKE:
            self._size, self._variances = size, {}
        return Experience(past.own, past.others, self._variances)

    def keep(self, experience: Experience) -> None:
        """Keep the variances of an experience that has been used."""
        self._variances |= experience.fitted_variances()


def _folds(
    updates: Sequence[Update], others: Sequence[Update], hold_out: HoldOut, from_update: int
) -> Iterator[tuple[str, _Past, Sequence[Update]]]:
    """Yield the name of each fold, what is known in it, and what is to be foretold."""
    if hold_out == "all":
        yield "all", _Past((), others), updates
        return
    if hold_out in ("time", "update"):
        for place, update in enumerate(updates):
            later = () if hold_out == "time" else updates[place + 1 :]
            known = [*updates[:place], *later]
            if place >= from_update and len(known) + len(others) >= _FEWEST_KNOWN:
                yield update.id[:8], _Past(known, others), [update]
        return
    names = [known_of(update).groups[hold_out] for update in updates]
    of_others = [known_of(update).groups[hold_out] for update in others]
    for name in dict.fromkeys(names):
        known = [u for u, own in zip(updates, names, strict=True) if own != name]
        rest = [u for u, own in zip(others, of_others, strict=True) if own != name]
        if len(known) + len(rest) >= _FEWEST_KNOWN:
            asked = [u for u, own in zip(updates, names, strict=True) if own == name]
            yield name, _Past(known, rest), asked


def _at_target(
    group: str,
    experience: Experience,
    asked: Sequence[Update],
    target: Target,
    methods: Sequence[Method],
) -> Iterator[Foretold]:
    read, peak = reading_of("epochs", target), reading_of("peak_accuracy", None)
    asked = [u for u in asked if read(u) and peak(u) and _tells(u, target)]
    order = np.argsort(experience.own, kind="stable")
    of = [(at, experience.updates[at]) for at in order]
    past = [(at, u, e, p) for at, u in of if (e := read(u)) and (p := peak(u))]
    if not asked or sum(not epochs[1] for *_, epochs, _ in past) < _FEWEST_KNOWN:
        return
    known = [experience.known[at] for at, *_ in past]
    own_updates = experience.own[[at for at, *_ in past]]
    paid = scaled(np.array([_paid(update, target)[0] for _, update, _, _ in past]), target)
    paid_censored = np.array([epochs[1] for *_, epochs, _ in past])
    best = np.array([peaks[0] for *_, peaks in past])
    best_censored = np.array([peaks[1] for *_, peaks in past])
    for update in asked:
        # It is the digest of the whole record, and takes a while.
        identity = update.id
        recipe = update.recipe or Recipe()
        own = known_of(update)
        # Nobody knows what kind of change it will be said to have been.
        own = replace(own, groups={**own.groups, CHANGE: ""})
        outlook = Outlook(experience, own, target, recipe)
        epochs, reaches = outlook.epochs()
        peaks = outlook.peak()
        # An update that did not begin at its target has it after one validation at the soonest.
        soonest = recipe.validation_interval
        yield _row(
            OURS, identity, group, update, target, _logarithms(epochs, soonest), reaches, peaks
        )
        for method in methods:
            told = method.foretold(known, paid, paid_censored, own_updates, own)
            peaks = method.foretold(known, best, best_censored, own_updates, own)
            most = float(scaled(np.array(recipe.max_epochs), target))
            reaches = told.share_below(most - 1e-9)
            if isinstance(target, Accuracy):
                reaches = 1 - peaks.share_below(logit(target.value) - 1e-9)
            epochs = Distribution(unscaled(np.minimum(told.values, most), target), told.weights)
            yield _row(
                method.name,
                identity,
                group,
                update,
                target,
                _logarithms(epochs, soonest),
                reaches,
                peaks,
            )


def _logarithms(epochs: Distribution, soonest: float) -> Distribution:
    return epochs.through(lambda values: np.log(np.maximum(values, soonest)))


def _tells(update: Update, target: Target) -> bool:
    """Return whether it is known what an update would have cost with a target."""
    outcome = outcome_of(update, target)
    reached = update.reached and update.target == target if outcome is None else outcome.reached
    return reached or update.ended in ("plateau", "max_epochs")


def _paid(update: Update, target: Target) -> tuple[float, bool]:
    """Return the epochs that an update would have cost with a target, and whether it met it.

    An accuracy that is not reached is waited for until the recipe gives up, though the update may
    have ended on a plateau before.
    """
    outcome = outcome_of(update, target)
    if outcome is None:
        return update.epochs, update.reached
    if isinstance(target, Accuracy) and not outcome.reached and update.recipe is not None:
        return update.recipe.max_epochs, False
    return outcome.epochs, outcome.reached


def _row(
    method: str,
    identity: str,
    group: str,
    update: Update,
    target: Target,
    epochs: Distribution,
    reaches: float,
    peak: Distribution,
) -> Foretold:
    """Return a row from distributions of the logarithm of the epochs and of the log odds."""
    true, reached = _paid(update, target)
    quantiles = _three(epochs)
    errors = [math.log(true) - quantile for quantile in quantiles]
    shares = (0.5, _TAIL, 1 - _TAIL)
    pinball = [max(share * e, (share - 1) * e) for share, e in zip(shares, errors, strict=True)]
    accuracy = share_of(np.array(_three(peak)))
    return Foretold(
        update=identity,
        target=target,
        group=group,
        method=method,
        epochs=tuple(np.exp(quantiles).tolist()),
        accuracy=tuple(accuracy.tolist()),
        reaches=reaches,
        true_epochs=true,
        true_accuracy=update.peak_accuracy or 0.0,
        reached=reached,
        pinball=float(np.mean(pinball)),
    )


def _three(distribution: Distribution) -> list[float]:
    """Return median, lower and upper bound; the extremes where there are too few values."""
    bounds = [distribution.quantile(_TAIL), distribution.quantile(1 - _TAIL)]
    extremes = distribution.values.min(), distribution.values.max()
    return [
        distribution.median(),
        *(e if math.isnan(b) else b for b, e in zip(bounds, extremes, strict=True)),
    ]


def score_of(rows: Sequence[Foretold]) -> Score:
    """Return how well one method did.

    Args:
        rows: of one method.
    """
    table = _Table.of(rows)
    resampled = [table.scores(places) for places in _resamples(rows)]
    values = {}
    for name, value in table.scores(np.arange(len(rows))).items():
        of = [s[name] for s in resampled if not math.isnan(s[name])]
        lower, upper = np.quantile(of, [_TAIL, 1 - _TAIL]) if of else (math.nan, math.nan)
        values[name] = (value, float(lower), float(upper))
    return Score(
        method=rows[0].method,
        updates=len(rows),
        groups=len({row.group for row in rows}),
        values=values,
    )


def _resamples(rows: Sequence[Foretold]) -> list[NDArray[np.intp]]:
    """Return resamples of rows, by groups, each as a whole; none of a single group."""
    names = np.array([row.group for row in rows])
    groups = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    rng = np.random.default_rng(0)
    return [
        np.concatenate([groups[at] for at in rng.integers(0, len(groups), len(groups))])
        for _ in range(_RESAMPLES if len(groups) > 1 else 0)
    ]


def _differences(ours: Sequence[Foretold], others: Sequence[Foretold]) -> Floats:
    """Return by how much the mean loss of one method is above another's, in resamples."""
    # Both have the same updates in the same order.
    by = np.array([one.pinball - other.pinball for one, other in zip(ours, others, strict=True)])
    return np.array([by[places].mean() for places in _resamples(ours)])


@dataclass(frozen=True, slots=True)
class _Table:
    """What is scored of each row.

    Attributes:
        means: name -> (rows,), of which the mean is the score.
        errors: of the epochs (rows,).
        ranks: of the epochs foretold and of the true ones (2, rows), among all rows.
    """

    means: Mapping[str, Floats]
    errors: Floats
    ranks: Floats

    @classmethod
    def of(cls, rows: Sequence[Foretold]) -> _Table:
        epochs = np.array([row.epochs for row in rows])
        accuracy = np.array([row.accuracy for row in rows])
        true = np.array([row.true_epochs for row in rows])
        best = np.array([row.true_accuracy for row in rows])
        reached = np.array([row.reached for row in rows])
        # Epochs and accuracies are counts over counts; the last digit decides nothing.
        within = (epochs[:, 1] <= true * (1 + 1e-6)) & (true <= epochs[:, 2] * (1 + 1e-6))
        at_best = (accuracy[:, 1] <= best + 1e-6) & (best <= accuracy[:, 2] + 1e-6)
        return cls(
            means={
                "epochs_coverage": within.astype(float),
                "epochs_width": np.log(epochs[:, 2] / epochs[:, 1]),
                "pinball": np.array([row.pinball for row in rows]),
                "accuracy_error": np.abs(accuracy[:, 0] - best),
                "accuracy_coverage": at_best.astype(float),
                "brier": (np.array([row.reaches for row in rows]) - reached) ** 2,
            },
            errors=np.abs(epochs[:, 0] / true - 1),
            ranks=np.array([rankdata(epochs[:, 0]), rankdata(true)]),
        )

    def scores(self, places: Any) -> dict[str, float]:
        return {
            "epochs_error": float(np.median(self.errors[places])),
            "rank_correlation": _correlation(self.ranks[:, places]),
            **{name: float(of[places].mean()) for name, of in self.means.items()},
        }


def _correlation(both: Floats) -> float:
    away = both - both.mean(axis=1, keepdims=True)
    squares = (away**2).sum(axis=1).prod()
    return float((away[0] * away[1]).sum() / math.sqrt(squares)) if squares > 0 else math.nan
