"""Plans replayed: a network that drifts for a year, retrained as each schedule says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from resque.decision.plan import Plan, plan
from resque.decision.schedules import Rule
from resque.experiments.shifts import SHIFTS
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.preflight import preflight
from resque.history.records import Plateau, Recipe
from resque.index.profile import ClassProfile, profile
from resque.index.shift import shift_index
from resque.measure.retrain import Retrained, retrain

if TYPE_CHECKING:
    from resque.history.update import Update

# Kind of shift -> its level after the last period, at which the network as it is fails.
DRIFTS = {"gaussian_blur": 1.2, "contrast": 0.8, "gaussian_noise": 0.28}
# Updates that were recorded before, of other kinds.
RECORDED = (
    ("salt_and_pepper", 0.05), ("salt_and_pepper", 0.1), ("brightness", 0.2), ("brightness", 0.35),
    ("shot_noise", 0.25), ("shot_noise", 0.35),
)  # fmt: skip
PERIODS, KNOWN = 12, 4
PERIOD_DAYS = 30
FLOOR, SHARE, LEVEL = 0.85, 0.85, 0.8
RECIPE = Recipe(learning_rate=1e-3, max_epochs=10)
TARGET = Plateau(patience=2, min_delta=0.005)
_START = date(2026, 1, 1)
_OLD, _TRAINED, _VALIDATED = 700, 500, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """What a schedule came to when its updates were really made.

    Attributes:
        name: of the schedule.
        periods: at whose end the network was updated.
        accuracies: of the network in use, on the data of each period after the plan.
        epochs: of all updates.
    """

    name: str
    periods: tuple[int, ...]
    accuracies: tuple[float, ...]
    epochs: float

    @property
    def share(self) -> float:
        """Share of the periods with an accuracy at or above the floor."""
        return sum(accuracy >= FLOOR for accuracy in self.accuracies) / len(self.accuracies)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One drift with one seed: the plan, and what each schedule came to.

    Attributes:
        kind: of shift.
        seed: of the network, of the data, and of how evenly they drift.
        plan: made after the first periods.
        chosen: what the schedule that it names came to.
        alarms: updates at every alarm.
        never: no update.
        calendars: of every length, each from the day of the plan and after one length.
        hindsight: the cheapest calendar of any length and beginning that keeps as many periods
            as is asked; None where none does.
    """

    kind: str
    seed: int
    plan: Plan
    chosen: Played
    alarms: Played
    never: Played
    calendars: tuple[Played, ...]
    hindsight: Played | None

    @property
    def crossed(self) -> date | None:
        """Day of the first period in which the network without updates was below the floor."""
        for at, accuracy in enumerate(self.never.accuracies, start=KNOWN + 1):
            if accuracy < FLOOR:
                return _day(at)
        return None

    def equal(self, played: Played) -> Played | None:
        """Return the cheapest calendar, or none, that kept as many periods as another schedule."""
        kept = [one for one in (self.never, *self.calendars) if one.share >= played.share - 1e-9]
        return min(kept, key=lambda one: one.epochs, default=None)


def replays(
    kinds: Sequence[str] = tuple(DRIFTS),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    recorded: Sequence[tuple[str, float]] = RECORDED,
    corpus: bool = True,
    each: Callable[[Replayed], None] = lambda _: None,
) -> list[Replayed]:
    """Return the replay of each kind of drift with each seed.

    In each of twelve periods digits arrive whose shift is stronger than before. After the fourth
    a plan is made from the profiles so far; then every schedule is played: the network in use
    reads the digits of a period, and at its end is retrained on others of the same period, or
    is not. What was trained once is not trained again for another schedule.

    Args:
        kinds: of shift, from `DRIFTS`.
        seeds: one network each.
        recorded: shifts and levels of the updates in the history of each network.
        corpus: whether the forecaster knows the corpus, too.
        each: called with each replay when it is done.
    """
    found = []
    threads = torch.get_num_threads()
    # One thread adds up in one order, so that the numbers do not depend on the cores.
    torch.set_num_threads(1)
    try:
        for seed in seeds:
            digits = _Digits(seed)
            forecaster = Forecaster(digits.updates(recorded), corpus=corpus)
            for kind in kinds:
                found.append(_Replay(digits, kind).replayed(forecaster))
                each(found[-1])
    finally:
        torch.set_num_threads(threads)
    return found


class _Digits:
    """Digits that the network knows, others that arrive, and the network."""

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.seed = seed
        self.images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
        self.labels = torch.tensor(digits.target, dtype=torch.int64)
        order = np.random.default_rng(seed).permutation(len(self.labels))
        ends = np.cumsum([_OLD, _TRAINED, _VALIDATED])
        self.old, self.training, self.validation, self.served = np.split(order, ends)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            fresh = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(256, 32),
                nn.ReLU(),
                nn.Linear(32, 10),
            )
        self.model = retrain(
            fresh,
            self.of(self.old),
            self.of(self.validation),
            target=Plateau(patience=3, min_delta=0.002),
            recipe=Recipe(learning_rate=3e-3, max_epochs=20, seed=seed),
            meter="none",
            progress=False,
        ).model
        self.known = self.profiled(self.model, self.old)

    def of(
        self, places: np.ndarray, kind: str | None = None, level: float = 0.0, draw: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return images and labels, shifted; `draw` is the seed of the noise."""
        images = self.images[places]
        if kind is not None:
            images = SHIFTS[kind].apply(images, level, seed=1000 * self.seed + draw)
        return images, self.labels[places]

    def profiled(
        self, model: nn.Module, places: np.ndarray, *shift: str | float | int
    ) -> ClassProfile:
        return profile(
            model,
            self.of(places, *shift),  # type: ignore[arg-type]
            ids=places,
            model_name="small network",
            preprocessing="bytes / 16",
            progress=False,
        )

    def updates(self, recorded: Sequence[tuple[str, float]]) -> list[Update]:
        """Return updates of the network for shifts that have nothing to do with the drift."""
        made = []
        for draw, (kind, level) in enumerate(recorded):
            sides = (
                self.of(self.training, kind, level, draw),
                self.of(self.validation, kind, level, 100 + draw),
            )
            ahead = preflight(
                self.model, sides[0], before=self.known, validation=sides[1], recipe=RECIPE,
                meter="none", ids=self.training, model_name="small network",
                preprocessing="bytes / 16", progress=False,
            )  # fmt: skip
            made.append(
                retrain(
                    self.model, *sides, target=TARGET, recipe=RECIPE, meter="none",
                    model_name="small network", preprocessing="bytes / 16", preflight=ahead,
                    labels={"shift": kind, "level": f"{level:g}"}, progress=False,
                ).update
            )  # fmt: skip
        return made


@dataclass(slots=True)
class _State:
    """A network in use, and the profile of what it knows."""

    model: nn.Module
    known: ClassProfile
    accuracy: float | None
    epochs: float = 0.0
    profiles: dict[int, ClassProfile] = field(default_factory=dict)


class _Replay:
    """One drift of the digits; every update that was made is kept."""

    def __init__(self, digits: _Digits, kind: str) -> None:
        self.digits, self.kind = digits, kind
        # Data drift unevenly: some periods by a third of what others do.
        steps = np.random.default_rng([digits.seed, 1]).uniform(0.5, 1.5, PERIODS)
        self.levels = [0.0, *(DRIFTS[kind] * np.cumsum(steps) / steps.sum())]
        self.states: dict[tuple[int, ...], _State] = {(): _State(digits.model, digits.known, None)}

    def replayed(self, forecaster: Forecaster) -> Replayed:
        found = self._planned(forecaster)
        looks = PERIODS - KNOWN
        calendars = [
            self._calendar(Rule(kind="calendar", every=every, first=first))
            for every in range(1, looks + 1)
            for first in range(every + 1)
            if first < looks
        ]
        keeping = [played for played in calendars if played.share >= SHARE]
        never = self._followed(found, "never")
        if never.share >= SHARE:
            keeping.append(never)
        ordinary = {
            Rule(kind="calendar", every=every, first=first).told(PERIOD_DAYS)
            for every in range(1, looks + 1)
            for first in (0, every)
        }
        return Replayed(
            kind=self.kind,
            seed=self.digits.seed,
            plan=found,
            chosen=self._followed(found, found.nearest),
            alarms=self._followed(found, "at every alarm"),
            never=never,
            calendars=tuple(played for played in calendars if played.name in ordinary),
            hindsight=min(keeping, key=lambda played: played.epochs, default=None),
        )

    def _planned(self, forecaster: Forecaster) -> Plan:
        digits = self.digits
        series: list[tuple[date | None, ClassProfile]] = [(_day(0), digits.known)]
        series += [(_day(at), self._profile((), at)) for at in range(1, KNOWN + 1)]
        training, validation = self._data(KNOWN)
        ahead = preflight(
            digits.model, training, before=digits.known, validation=validation, recipe=RECIPE,
            meter="none", ids=digits.training, model_name="small network",
            preprocessing="bytes / 16", progress=False,
        )  # fmt: skip
        return plan(
            series, accuracy_floor=FLOOR, update=ahead, target=TARGET, forecaster=forecaster,
            horizon_days=(PERIODS - KNOWN) * PERIOD_DAYS, period_days=PERIOD_DAYS, share=SHARE,
            confidence_level=LEVEL, seed=digits.seed,
        )  # fmt: skip

    def _data(self, period: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        level, digits = self.levels[period], self.digits
        return (
            digits.of(digits.training, self.kind, level, 200 + period),
            digits.of(digits.validation, self.kind, level, 300 + period),
        )

    def _profile(self, made: tuple[int, ...], period: int) -> ClassProfile:
        """Return the profile of what a network is shown in a period."""
        state, digits = self._state(made), self.digits
        if period not in state.profiles:
            state.profiles[period] = digits.profiled(
                state.model, digits.served, self.kind, self.levels[period], 400 + period
            )
        return state.profiles[period]

    def _state(self, made: tuple[int, ...]) -> _State:
        """Return the network after updates at the ends of these periods."""
        if made not in self.states:
            before, digits = self._state(made[:-1]), self.digits
            found: Retrained = retrain(
                before.model, *self._data(made[-1]), target=TARGET, recipe=RECIPE, meter="none",
                progress=False,
            )  # fmt: skip
            update = found.update
            known = digits.profiled(
                found.model, digits.training, self.kind, self.levels[made[-1]], 200 + made[-1]
            )
            self.states[made] = _State(
                found.model,
                known,
                update.peak_accuracy,
                before.epochs + update.epochs,
            )
        return self.states[made]

    def _calendar(self, rule: Rule) -> Played:
        return self._played(
            rule.told(PERIOD_DAYS), lambda look, _: bool(rule.due(look, alarm=False, spare=0.0))
        )

    def _followed(self, found: Plan, name: str) -> Played:
        def due(look: int, made: tuple[int, ...]) -> bool:
            state = self._state(made)
            shift = shift_index(state.known, self._profile(made, KNOWN + look))
            accuracy = found.curve.level if state.accuracy is None else state.accuracy
            return found.due(look, shift, accuracy, name=name)

        return self._played(name, due)

    def _played(self, name: str, due: Callable[[int, tuple[int, ...]], bool]) -> Played:
        made: tuple[int, ...] = ()
        accuracies = []
        for look in range(PERIODS - KNOWN):
            if due(look, made):
                made = (*made, KNOWN + look)
            outputs = self._profile(made, KNOWN + look + 1).outputs
            accuracy = None if outputs is None else outputs.accuracy
            accuracies.append(float("nan") if accuracy is None else accuracy)
        state = self._state(made)
        return Played(
            name=name,
            periods=made,
            accuracies=tuple(accuracies),
            epochs=state.epochs,
        )


def _day(period: int) -> date:
    return _START + timedelta(days=PERIOD_DAYS * period)


def totals(found: Sequence[Replayed]) -> Iterator[str]:
    """Yield the lines of a Markdown table of what each way came to over all replays.

    Args:
        found: the replays.
    """
    ways: dict[str, Callable[[Replayed], Played | None]] = {
        "the plan's schedule": lambda one: one.chosen,
        "cheapest calendar that kept as much, in hindsight": lambda one: one.equal(one.chosen),
        "at every alarm": lambda one: one.alarms,
        "cheapest calendar that kept as much as the alarms, in hindsight": (
            lambda one: one.equal(one.alarms)
        ),
        "every period": lambda one: _of_length(one, 1),
        "every 2 periods": lambda one: _of_length(one, 2),
        "every 3 periods": lambda one: _of_length(one, 3),
        "every 4 periods": lambda one: _of_length(one, 4),
        "never": lambda one: one.never,
        "cheapest calendar of any beginning that kept what was asked, in hindsight": (
            lambda one: one.hindsight
        ),
    }
    # Not seconds: they are those of a machine that may do other things meanwhile.
    asked = f"replays that kept {SHARE:.0%} of the periods"
    yield f"| way | {asked} | periods kept | updates | epochs |"
    yield "|---|---|---|---|---|"
    for name, played in ways.items():
        there = [came for one in found if (came := played(one)) is not None]
        some = "" if len(there) == len(found) else f" (there in {len(there)})"
        good = sum(one.share >= SHARE for one in there)
        kept = f"{np.mean([one.share for one in there]):.0%}" if there else "none"
        yield (
            f"| {name}{some} | {good} of {len(found)} | {kept} | "
            f"{sum(len(one.periods) for one in there)} | {sum(one.epochs for one in there):g} |"
        )


def table(found: Sequence[Replayed]) -> Iterator[str]:
    """Yield the lines of a Markdown table with a row for each replay.

    Args:
        found: the replays.
    """
    yield (
        "| drift, seed | below the floor: forecast (80 %) / was | the plan's schedule | epochs | "
        "cheapest calendar that kept as much | every period | at every alarm | never | hindsight |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in found:
        crossing = one.plan.crossing
        told = f"{_told(crossing.median)} ({_told(crossing.lower)} to {_told(crossing.upper)})"
        advised = "" if one.plan.recommended else " (nearest)"
        cells = (one.chosen, one.equal(one.chosen), _of_length(one, 1), one.alarms, one.never,
                 one.hindsight)  # fmt: skip
        costs = " | ".join("none" if played is None else _cost(played) for played in cells)
        yield (
            f"| {one.kind.replace('_', ' ')}, {one.seed} | {told} / {_told(one.crossed)} | "
            f"{one.chosen.name}{advised} | {costs} |"
        )


def _of_length(one: Replayed, periods: int) -> Played:
    """Return the calendar of so many periods that begins after one length."""
    name = Rule(kind="calendar", every=periods, first=periods).told(PERIOD_DAYS)
    return next(played for played in one.calendars if played.name == name)


def _told(day: date | None) -> str:
    return "later" if day is None else f"{(day - _START).days / PERIOD_DAYS:.1f}"


def _cost(played: Played) -> str:
    return f"{played.epochs:g} ({played.share:.0%})"
