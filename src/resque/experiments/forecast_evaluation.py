"""How good the forecaster is on the corpus, in every way of not having seen an update."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from typing import TypeAlias

import numpy as np

from resque.experiments.cells import TARGET
from resque.forecasting.backtest import OURS, Foretold, HoldOut, Score, foretold, score_of
from resque.forecasting.baselines import BASELINES, Method
from resque.forecasting.experience import Experience, shipped_variances
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.preflight import Preflight
from resque.history.records import Accuracy, Plateau, Target
from resque.history.update import Update

# With which a user without a wish of their own trains; every update of the corpus tells of it.
PLATEAU = Plateau(patience=TARGET.patience, min_delta=TARGET.min_delta)
ACCURACIES = tuple(Accuracy(value) for value in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95))
# Of a returning user, this many come first.
OWN_UPDATES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """A way of not having seen an update, and what the forecast of one should come to.

    Attributes:
        name: in words.
        hold_out: see `resque.forecasting.backtest`.
        kinds: of the updates that are foretold.
        aim: for the median error of the epochs.
    """

    name: str
    hold_out: HoldOut
    kinds: tuple[str, ...] = ("shift", "task", "extension")
    aim: float


SITUATIONS = (
    Situation(name="a returning user", hold_out="time", aim=0.15),
    Situation(name="a kind of shift never seen", hold_out="change", kinds=("shift",), aim=0.25),
    Situation(name="a task never seen", hold_out="data", kinds=("task", "extension"), aim=0.25),
    Situation(name="a network never seen", hold_out="network", aim=0.35),
    Situation(name="a data set never seen", hold_out="data", aim=0.35),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What came of one situation.

    Attributes:
        situation: which.
        scores: of the forecast and of every other method, with a plateau as the target.
        reaching: likewise, with accuracies as targets: whether they are reached.
        foretold: the rows of both.
    """

    situation: Situation
    scores: tuple[Score, ...]
    reaching: tuple[Score, ...]
    foretold: tuple[Foretold, ...]


def evaluated(
    updates: Sequence[Update],
    *,
    asked: Sequence[Update] | None = None,
    situations: Sequence[Situation] = SITUATIONS,
    methods: Sequence[Method] = BASELINES,
    workers: int = 1,
    each: Callable[[str], None] = lambda _: None,
) -> tuple[Evaluated, ...]:
    """Return how well updates are foretold in each situation.

    Args:
        updates: of the corpus.
        asked: those to be foretold, which may be others than those that are known; None for all.
        situations: those to be looked at.
        methods: what the forecast is compared with.
        workers: processes that share the work.
        each: called with a word on what has been done.
    """
    rows: dict[HoldOut, list[Foretold]] = {}
    for (hold_out, user), found_of in _done(updates, asked, situations, methods, workers):
        rows.setdefault(hold_out, []).extend(found_of)
        each(f"{hold_out}{f', {user}' if user else ''}: {len(found_of)} forecasts")
    kinds = {update.id: update.labels["kind"] for update in (*updates, *(asked or ()))}
    found = []
    for situation in situations:
        of = tuple(
            r for r in rows.get(situation.hold_out, ()) if kinds[r.update] in situation.kinds
        )
        found.append(
            Evaluated(
                situation=situation,
                scores=_scores([row for row in of if row.target == PLATEAU]),
                reaching=_scores([row for row in of if row.target != PLATEAU]),
                foretold=of,
            )
        )
    return tuple(found)


# A way to hold out, and the network of the user whose updates are foretold, "" for all.
_Job: TypeAlias = tuple["HoldOut", str]


def _done(
    updates: Sequence[Update],
    asked: Sequence[Update] | None,
    situations: Sequence[Situation],
    methods: Sequence[Method],
    workers: int,
) -> Iterator[tuple[_Job, list[Foretold]]]:
    """Yield what comes of each part of the work, in one order however many share it."""
    jobs = dict.fromkeys(
        (situation.hold_out, user)
        for situation in situations
        for user in (_users(updates if asked is None else asked, situation.hold_out))
    )
    made = partial(_rows, updates, asked, methods)
    if workers == 1:
        yield from ((job, made(job)) for job in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from zip(jobs, pool.map(made, jobs), strict=True)


def _users(wanted: Sequence[Update], hold_out: HoldOut) -> list[str]:
    # Users have one network each.
    return sorted({update.labels["network"] for update in wanted}) if hold_out == "time" else [""]


def _rows(
    updates: Sequence[Update],
    asked: Sequence[Update] | None,
    methods: Sequence[Method],
    job: _Job,
) -> list[Foretold]:
    targets: list[Target] = [PLATEAU, *ACCURACIES]
    hold_out, user = job
    if hold_out == "time":
        # The rest of the corpus, without the user's network, is what everybody has.
        wanted = updates if asked is None else asked
        own = sorted((u for u in wanted if u.labels["network"] == user), key=lambda u: u.started)
        others = [u for u in updates if u.labels["network"] != user]
        rows = foretold(
            own, others=others, hold_out="time", targets=targets, methods=methods,
            from_update=OWN_UPDATES,
        )  # fmt: skip
        return [replace(row, group=user) for row in rows]
    if asked is None:
        return list(foretold(updates, hold_out=hold_out, targets=targets, methods=methods))
    # What was set aside is foretold from the rest alone, and drawn with its other seeds.
    cells = {update.id: update.labels["cell"].rpartition("|")[0] for update in asked}
    rows = foretold(asked, others=updates, hold_out="all", targets=targets, methods=methods)
    return [replace(row, group=cells[row.update]) for row in rows]


def _scores(rows: Sequence[Foretold]) -> tuple[Score, ...]:
    methods = dict.fromkeys(row.method for row in rows)
    return tuple(score_of([r for r in rows if r.method == name]) for name in methods)


def noise_between_seeds(updates: Sequence[Update]) -> tuple[float, int]:
    """Return by how much an update misses its repetition with another seed, and in how many pairs.

    The median of |one / other - 1| of the epochs, both ways: what a forecast would come to that
    says what the same update came to the last time.

    Args:
        updates: of the corpus.
    """
    cells: dict[str, list[float]] = {}
    for update in updates:
        cells.setdefault(update.labels["cell"].rpartition("|")[0], []).append(update.epochs)
    pairs = [pair for of in cells.values() for pair in combinations(of, 2)]
    errors = [abs(one / other - 1) for a, b in pairs for one, other in ((a, b), (b, a))]
    return (float(np.median(errors)) if errors else math.nan), len(pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """Of updates whose target was foretold with about the same probability, how many met it.

    Attributes:
        foretold: mean of the probabilities.
        came: share that met it.
        updates: how many there are.
    """

    foretold: float
    came: float
    updates: int


def calibration(rows: Sequence[Foretold], bins: int = 10) -> tuple[Calibrated, ...]:
    """Return how often targets were met, by the probability that the forecast gave them.

    Args:
        rows: of any methods; those of the forecast are taken.
        bins: of equal width.
    """
    ours = [row for row in rows if row.method == OURS]
    places = [min(int(row.reaches * bins), bins - 1) for row in ours]
    found = []
    for at in range(bins):
        of = [row for row, place in zip(ours, places, strict=True) if place == at]
        if of:
            found.append(
                Calibrated(
                    foretold=float(np.mean([row.reaches for row in of])),
                    came=float(np.mean([row.reached for row in of])),
                    updates=len(of),
                )
            )
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expense:
    """What a forecast took over what the update took that it foretells.

    Attributes:
        name: which updates.
        updates: how many.
        share: median of the share; NaN without any.
        with_profile: the same where the old data need not be looked at again.
    """

    name: str
    updates: int
    share: float
    with_profile: float


def expenses(updates: Sequence[Update]) -> tuple[Expense, ...]:
    """Return how dear forecasts are, by the length of the updates.

    The pre-flight of each update has its own seconds; a forecast from one is timed here once, on
    the machine that this runs on, from the records of the known updates to its end.

    Args:
        updates: of the corpus.
    """
    shares: list[tuple[float, float, float]] = []
    records = [json.dumps(update.to_dict()) for update in updates]
    seconds = math.nan
    for update in updates:
        if update.preflight is None:
            continue
        known = Preflight.from_dict(update.preflight)
        if math.isnan(seconds):
            start = time.perf_counter()
            read = [Update.from_dict(json.loads(record)) for record in records]
            forecaster = Forecaster.of(Experience((), read, shipped_variances()))
            forecaster.forecast(known, target=PLATEAU)
            seconds = time.perf_counter() - start
        looked: Mapping[str, float] = known.seconds
        total = math.fsum(looked.values()) + seconds
        saved = looked.get("pass over the old data", 0.0)
        shares.append(
            (update.epochs, total / update.duration_s, (total - saved) / update.duration_s)
        )
    found = []
    for name, least, most in (
        ("30 epochs or more", 30.0, math.inf),
        ("15 to 30 epochs", 15.0, 30.0),
        ("fewer than 15 epochs", 0.0, 15.0),
    ):
        of = [(share, saved) for epochs, share, saved in shares if least <= epochs < most]
        found.append(
            Expense(
                name=name,
                updates=len(of),
                share=float(np.median([share for share, _ in of])) if of else math.nan,
                with_profile=float(np.median([saved for _, saved in of])) if of else math.nan,
            )
        )
    return tuple(found)


def time_oracle(updates: Sequence[Update]) -> tuple[float, int]:
    """Return the error of "a measured epoch x the true number of epochs", and of how many updates.

    No forecast can beat it fairly, because it knows the epochs: median of |foretold / true - 1|
    of the seconds, from the probe's step and validation.

    Args:
        updates: of the corpus.
    """
    ratios = Experience((), updates).over_probe("seconds").values
    return float(np.median(np.abs(1 / ratios - 1))), len(ratios)
