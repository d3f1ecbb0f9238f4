"""How good decisions are on the corpus: what the choices cost, over the cheapest in hindsight.

A question is one set of new data, and an accuracy to be reached on them; its options are the
updates of the corpus that were made for them, of several networks, recipes and starts, and keeping
each of the networks. Each is foretold without any update for new data of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resque.decision.candidate import Candidate
from resque.decision.compare import decide
from resque.experiments.cells import VALIDATION_EXAMPLES
from resque.forecasting.experience import Experience, shipped_variances
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.outcome import outcome_of
from resque.forecasting.preflight import Preflight
from resque.history.records import Accuracy

if TYPE_CHECKING:
    from resque.history.update import Update

ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9)
# With which the asked accuracy is to be reached.
LEVELS = (0.9, 0.5)
_RESAMPLES = 1000
# Of the rule that always retrains the same: the first of these that there is.
_SAME = ("resnet18", "mobilenet_v2", "vgg16", "vit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """One option of a question, and what it came to.

    Attributes:
        name: of the option.
        update: that it is; of a kept network, the one that its network's accuracy is read of.
        kept: whether the network would be kept as it is.
        seconds: paid, until the target or until the recipe gives up.
        reached: whether the target was met.
    """

    name: str
    update: Update
    kept: bool
    seconds: float
    reached: bool

    @property
    def retrained(self) -> bool:
        """Whether it trains a network on that knows something."""
        return not self.kept and self.update.start != "scratch"

    @property
    def value(self) -> Mapping[str, float | None]:
        """What its pre-flight knew."""
        known = self.update.preflight
        return known["values"] if known else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """New data, an accuracy to be reached on them, and the options that were tried.

    Attributes:
        change: the kind of new data, all of which is unknown when the options are foretold.
        kind: "shift" or "task".
        name: the new data.
        target: the accuracy.
        options: what there was to choose from.
        scratch_s: price of a missed target: training from scratch.
    """

    change: str
    kind: str
    name: str
    target: float
    options: tuple[Played, ...]
    scratch_s: float

    def cost(self, option: Played) -> float:
        """Return the seconds of an option, with the price of a missed target."""
        return option.seconds + (0.0 if option.reached else self.scratch_s)

    @property
    def cheapest(self) -> Played:
        """The option that the oracle takes."""
        # Of what costs the same, that which meets the target. A network that is at its target
        # already is trained for no epoch; to keep it is the same.
        return min(
            self.options,
            key=lambda option: (self.cost(option), not option.reached, not option.kept),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruled:
    """How one rule did.

    Attributes:
        rule: its name.
        kind: of the questions.
        questions: that it could answer.
        ratio: total seconds of its choices over those of the oracle, with its 90 % bootstrap
            interval over kinds of new data.
        oracles: share of the questions in which its choice was as cheap as the oracle's.
        reached: share in which its choice met the target.
        lost: share of what it paid beyond the oracle's that is the price of missed targets; NaN
            where it paid no more.
    """

    rule: str
    kind: str
    questions: int
    ratio: tuple[float, float, float]
    oracles: float
    reached: float
    lost: float


Rule = Callable[[Question], Played | None]


def questions_of(
    updates: Sequence[Update], accuracies: Sequence[float] = ACCURACIES
) -> Iterator[Question]:
    """Yield the questions that a corpus answers: two networks or more, of which one reaches it.

    Args:
        updates: of the corpus.
        accuracies: to be reached.
    """
    groups: dict[tuple[str, ...], list[Update]] = {}
    for update in updates:
        told = update.labels
        key = tuple(told[name] for name in ("new", "shift", "level", "examples", "seed"))
        groups.setdefault(("shift" if told["kind"] == "shift" else "task", *key), []).append(update)
    for (kind, *data), of in groups.items():
        if len(of) < 2:
            continue
        for target in accuracies:
            options = tuple(_options(of, Accuracy(target)))
            trained = [option for option in options if not option.kept]
            if len(trained) >= 2 and any(option.reached for option in trained):
                yield Question(
                    change=data[1] if kind == "shift" else data[0],
                    kind=kind,
                    name=" ".join(word for word in data if word),
                    target=target,
                    options=options,
                    scratch_s=_price(updates, of[0], Accuracy(target)),
                )


def _options(of: Sequence[Update], target: Accuracy) -> Iterator[Played]:
    kept: set[str] = set()
    for update in of:
        paid = _paid(update, target)
        if paid is not None:
            yield Played(
                name=update.labels["cell"], update=update, kept=False, seconds=paid[0],
                reached=paid[1],
            )  # fmt: skip
        network = update.labels["network"]
        # A fresh classifier says nothing of the network as it is.
        if update.start == "weights" and update.labels["kind"] == "shift" and network not in kept:
            kept.add(network)
            accuracy = update.accuracy_before or 0.0
            yield Played(
                name=f"keep {network}", update=update, kept=True, seconds=0.0,
                reached=accuracy >= target.value,
            )  # fmt: skip


def _paid(update: Update, target: Accuracy) -> tuple[float, bool] | None:
    """Return the seconds until the target or until the recipe gives up, and whether it was met.

    None where an update tells nothing of it.
    """
    outcome = outcome_of(update, target)
    if outcome is None or update.recipe is None or update.preflight is None:
        return None
    a_epoch = update.duration_s / update.epochs
    if outcome.reached:
        return outcome.epochs * a_epoch, True
    return update.recipe.max_epochs * a_epoch, False


def _price(updates: Sequence[Update], like: Update, target: Accuracy) -> float:
    """Return what training from scratch took: median of the updates for data most like these."""
    scratch = [u for u in updates if u.start == "scratch"]
    for same in (("new", "shift", "examples"), ("new", "examples"), ("examples",), ()):
        alike = [u for u in scratch if all(u.labels[k] == like.labels[k] for k in same)]
        paid = [p[0] for u in alike if (p := _paid(u, target))]
        if paid:
            return float(np.median(paid))
    raise ValueError("no update of the corpus was trained from scratch")


# --- rules -------------------------------------------------------------------------------------


def simple_rules() -> dict[str, Rule]:
    """Return the rules that people go by, by name; none of them trains from scratch."""

    def least(name: str) -> Rule:
        def rule(question: Question) -> Played | None:
            known = [
                (value, option)
                for option in question.options
                if option.retrained and (value := option.value.get(name)) is not None
            ]
            return min(known, key=lambda pair: pair[0])[1] if known else None

        return rule

    def same(question: Question) -> Played | None:
        for network in _SAME:
            for option in question.options:
                if option.retrained and option.update.labels["network"] == network:
                    return option
        return None

    def keep(question: Question) -> Played | None:
        return next((option for option in question.options if option.kept), None)

    return {
        "always retrain the same network": same,
        "always the smallest network": least("parameters"),
        "smallest accuracy drop": least("accuracy_drop"),
        "LogME's choice": least("logme"),
        "always keep the network": keep,
    }


class Forecasts:
    """The choice of a comparison, with every update for such new data unknown.

    Args:
        updates: of the corpus.
    """

    def __init__(self, updates: Sequence[Update]) -> None:
        self.updates = updates
        self._forecasters: dict[tuple[str, str], Forecaster] = {}

    def rule(self, level: float) -> Rule:
        """Return the rule that reaches targets with a probability."""

        def rule(question: Question) -> Played | None:
            found = decide(
                [_candidate(option) for option in question.options],
                target=Accuracy(question.target), by="hours", confidence_level=level,
                forecaster=self._without(question), changes=False,
            )  # fmt: skip
            return next(option for option in question.options if option.name == found.best)

        return rule

    def _without(self, question: Question) -> Forecaster:
        key = (question.kind, question.change)
        if key not in self._forecasters:
            which = "shift" if question.kind == "shift" else "new"
            known = [u for u in self.updates if u.labels[which] != question.change]
            # Their sizes hardly change when a part is left out, and fitting takes most of the time.
            experience = Experience((), known, shipped_variances())
            self._forecasters = {key: Forecaster.of(experience)}
        return self._forecasters[key]


def _candidate(option: Played) -> Candidate:
    known = Preflight.from_dict(option.update.preflight or {})
    if not option.kept:
        scratch = option.update.start == "scratch"
        kind = "from scratch" if scratch else "retrain"
        return Candidate(name=option.name, kind=kind, preflight=known)  # type: ignore[arg-type]
    error = known.values["error_before"]
    # What the sample of the pre-flight says; the truth is read of other examples.
    examples = min(known.sample["training"][0], VALIDATION_EXAMPLES)
    correct = round((1 - (1.0 if error is None else error)) * examples)
    return Candidate(name=option.name, kind="keep", correct=correct, examples=examples)


# --- scores ------------------------------------------------------------------------------------


def ruled(
    questions: Sequence[Question], rules: Mapping[str, Rule], *, kind: str
) -> tuple[Ruled, ...]:
    """Return how rules did on the questions of a kind.

    Args:
        questions: of several kinds.
        rules: by name.
        kind: "shift" or "task".
    """
    asked = [question for question in questions if question.kind == kind]
    return tuple(found for name, rule in rules.items() if (found := _ruled(asked, name, rule)))


def _ruled(asked: Sequence[Question], name: str, rule: Rule) -> Ruled | None:
    rows, beyond = [], []
    for question in asked:
        chosen = rule(question)
        if chosen is not None:
            cheapest = question.cost(question.cheapest)
            rows.append((question.change, question.cost(chosen), cheapest, float(chosen.reached)))
            beyond.append((question.cost(chosen) - cheapest, chosen.reached))
    if not rows:
        return None
    changes = np.array([row[0] for row in rows])
    paid = np.array([row[1:] for row in rows], dtype=float)
    own, best, reached = paid.T
    groups = [np.flatnonzero(changes == change) for change in dict.fromkeys(changes.tolist())]
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(_RESAMPLES if len(groups) > 1 else 0):
        places = np.concatenate([groups[at] for at in rng.integers(0, len(groups), len(groups))])
        # Where all could be kept, there is nothing to be lost by a factor.
        if best[places].sum() > 0:
            ratios.append(own[places].sum() / best[places].sum())
    lower, upper = np.quantile(ratios, [0.05, 0.95]) if ratios else (np.nan, np.nan)
    return Ruled(
        rule=name,
        kind=asked[0].kind,
        questions=len(rows),
        ratio=(float(own.sum() / best.sum()), float(lower), float(upper)),
        oracles=float(np.mean(own <= best * (1 + 1e-9))),
        reached=float(reached.mean()),
        lost=_share_lost(beyond),
    )


def _share_lost(beyond: Sequence[tuple[float, bool]]) -> float:
    more = sum(seconds for seconds, _ in beyond)
    missed = sum(seconds for seconds, reached in beyond if not reached)
    return missed / more if more > 0 else np.nan
