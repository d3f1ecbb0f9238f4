"""Options side by side: one pre-flight each, and the cheapest that reaches the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from scipy.stats import beta

from resque.decision.candidate import Candidate, candidate
from resque.decision.choice import Choice, Priced, choice_of, free
from resque.decision.comparison import MEASURES, Change, Compared, Comparison
from resque.decision.option import By, FromScratch, Keep, Option, Prices, Retrain
from resque.errors import InputError, in_words, nearest
from resque.forecasting.experience import Distribution
from resque.forecasting.forecast import UNITS, Estimate, Forecast
from resque.forecasting.forecaster import Forecaster, estimate_of
from resque.forecasting.preflight import Preflight
from resque.history.records import Accuracy, Grid, Recipe
from resque.index.shift import checked_level
from resque.measure.carbon import grid as grid_of
from resque.measure.energy import open_meter

if TYPE_CHECKING:
    from resque.history.store import History
    from resque.history.update import Update
    from resque.measure.energy import Meter

_COSTS = ("epochs", "duration_s", "energy_kwh", "carbon_kg", "money")
# How far and how finely other targets are asked for.
# A share of right examples that is the target is at it.
_SAME = 1e-9
_TARGET_STEP, _TARGET_STEPS = 0.01, 15
_MORE_DATA = 2


def compare(
    options: Sequence[Option],
    training: Any = None,
    validation: Any = None,
    *,
    target: Accuracy,
    by: By = "kwh",
    before: Any = None,
    recipe: Recipe | None = None,
    history: History | Iterable[Update] | None = None,
    corpus: bool = True,
    grid: float | str | Grid | None = None,
    prices: Prices | None = None,
    confidence_level: float = 0.9,
    meter: Meter | str = "codecarbon",
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    each: Callable[[str], None] = lambda _: None,
    progress: bool = True,
) -> Comparison:
    """Return options side by side, and the cheapest that reaches a target with a probability.

    Each option that trains has one pre-flight: a pass over the data, and a few training steps on
    a copy of its model. An option that cannot be looked at is told of, and the others compared.

    Args:
        options: `Keep`, `Retrain` and `FromScratch`, with names of their own.
        training: the new data to train on, as for `resque.retrain`.
        validation: likewise; a kept model is judged on them.
        target: the accuracy to be reached.
        by: what is to be cheap: "kwh" (energy), "kg" (carbon), "hours" or "money".
        before: the old data, or their profile; a profile is of one model.
        recipe: of the options that have none of their own.
        history: own updates, see `resque.forecast`.
        corpus: likewise.
        grid: likewise; "kg" needs one.
        prices: what training costs; "money" needs them.
        confidence_level: of the intervals, and the probability with which the target is to be
            reached, above 0 and below 1.
        meter: see `open_meter`; one for all options.
        class_names: see `resque.profile`.
        workers: processes that load a Dataset.
        each: called with the name of each option before it is looked at.
        progress: show a progress bar on stderr where that is a terminal.

    Raises:
        InputError: an argument is impossible, or no option could be compared; with the reasons.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> data, model = (x, (x[:, 0] > 0).long()), torch.nn.Linear(4, 2)
        >>> found = resque.compare(
        ...     [resque.Keep(model), resque.Retrain(model, recipe=resque.Recipe(max_epochs=20))],
        ...     data, target=resque.Accuracy(0.9), by="hours", meter="none", confidence_level=0.8,
        ... )
        >>> [option.name for option in found.options]
        ['keep', 'retrain']
    """
    asked = Asked.of(
        target=target, by=by, confidence_level=confidence_level, grid=grid, prices=prices
    )
    options = _checked_options(options)
    # Read before the passes over the data: an empty one is known at once.
    forecaster = Forecaster(history, corpus=corpus)
    looked: list[Candidate] = []
    failures: dict[str, str] = {}
    with open_meter(meter) as opened:
        for option in options:
            each(option.name)
            try:
                looked.append(
                    candidate(
                        option, training, validation, before=before, recipe=recipe,
                        meter=opened, class_names=class_names, workers=workers, progress=progress,
                    )
                )  # fmt: skip
            except InputError as error:
                failures[option.name] = str(error)
            except Exception as error:  # noqa: BLE001  # a user's model can fail in any way
                failures[option.name] = in_words(error)
    return _decided(looked, forecaster, asked, failures)


def decide(
    candidates: Sequence[Candidate],
    *,
    target: Accuracy,
    by: By = "kwh",
    forecaster: Forecaster | None = None,
    grid: float | str | Grid | None = None,
    prices: Prices | None = None,
    confidence_level: float = 0.9,
    failures: Mapping[str, str] | None = None,
    changes: bool = True,
) -> Comparison:
    """Return the comparison of options that have been looked at.

    Args:
        candidates: from `candidate` or `load_candidate`.
        target: see `compare`.
        by: likewise.
        forecaster: that foretells them; by default one that knows the corpus alone.
        grid: see `compare`.
        prices: likewise.
        confidence_level: likewise.
        failures: name -> why an option could not be looked at.
        changes: whether it is asked what would change the answer, which takes most of the time.

    Raises:
        InputError: see `compare`.

    Example:
        >>> kept = Candidate(name="keep", kind="keep", correct=98, examples=100)
        >>> decide([kept], target=Accuracy(0.99)).recommended is None
        True
    """
    asked = Asked.of(
        target=target, by=by, confidence_level=confidence_level, grid=grid, prices=prices
    )
    failed = dict(failures or {})
    _check_names([*(one.name for one in candidates), *failed])
    return _decided(candidates, forecaster or Forecaster(), asked, failed, changes=changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is asked of options; see `compare`.

    Attributes:
        target: the accuracy to be reached.
        by: what is to be cheap.
        confidence_level: of the intervals, and the probability of the target.
        grid: of the energy; None where none is known.
        prices: of training; likewise.
    """

    target: Accuracy
    by: By
    confidence_level: float
    grid: Grid | None
    prices: Prices | None

    @classmethod
    def of(
        cls,
        *,
        target: Any,
        by: Any,
        confidence_level: float,
        grid: float | str | Grid | None,
        prices: Prices | None,
    ) -> Asked:
        """Return what is asked.

        Args:
            target: see `compare`.
            by: likewise.
            confidence_level: likewise.
            grid: likewise.
            prices: likewise.

        Raises:
            InputError: it is impossible.
        """
        if not isinstance(target, Accuracy):
            raise InputError(
                "Options are compared by the accuracy that they reach: target must be a "
                f"resque.Accuracy; got {target!r}."
            )
        if by not in get_args(By):
            raise InputError(
                f"by must be one of {', '.join(get_args(By))}; got {by!r}."
                f"{nearest(str(by), get_args(By))}"
            )
        checked_level(confidence_level)
        found = grid_of(grid)
        if by == "kg" and found is None:
            raise InputError("Carbon (by='kg') needs the grid of the energy; give grid=.")
        if prices is not None and not isinstance(prices, Prices):
            raise InputError(
                f"prices must be resque.Prices, such as Prices(per_hour=2.5); got {prices!r}."
            )
        if by == "money" and prices is None:
            raise InputError(
                "Money (by='money') needs prices=resque.Prices(per_kwh=..., per_hour=...), or "
                "[prices] in an options file."
            )
        return cls(
            target=target, by=by, confidence_level=confidence_level, grid=found, prices=prices
        )


def _checked_options(options: Any) -> tuple[Option, ...]:
    """Return the options, or raise InputError for what would fail after long work."""
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise InputError(
            "options must be a list, such as [resque.Keep(model), resque.Retrain(model)]; got "
            f"{type(options).__name__}."
        )
    several = tuple(options)
    for option in several:
        if not isinstance(option, Keep | Retrain | FromScratch):
            raise InputError(
                "An option is a resque.Keep, Retrain or FromScratch; got "
                f"{type(option).__name__}. Say what is to be done with it: resque.Keep(model)."
            )
        if not isinstance(option.name, str):
            raise InputError(f"The name of an option must be a text; got {option.name!r}.")
        if isinstance(option, Keep):
            continue
        grid_of(option.grid)
        for name in ("seconds_per_step", "joules_per_step"):
            given = getattr(option, name)
            if given is not None and not (math.isfinite(given) and given > 0):
                raise InputError(f"{name} of {option.name!r} must be above 0; got {given!r}.")
    _check_names([option.name for option in several])
    return several


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise InputError("There is nothing to compare; give options, such as resque.Keep(model).")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"Two options are called {twice[0]!r}; give each a name of its own (name=...)."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """One option and what is foretold of it.

    Attributes:
        candidate: the option.
        forecast: of it; None for a kept model.
        known: measure -> distribution.
        costs: measure -> estimate; None where there is none.
        missing: measure -> why there is none.
        reaches: probability of the target.
        peak_accuracy: at best.
    """

    candidate: Candidate
    forecast: Forecast | None
    known: Mapping[str, Distribution]
    costs: Mapping[str, Estimate | None]
    missing: Mapping[str, str]
    reaches: float
    peak_accuracy: Estimate

    def priced(self, by: By) -> Priced | None:
        """Return what matters of it for a choice; None where its cost is not known."""
        cost = self.known.get(MEASURES[by][0])
        if cost is None:
            return None
        return Priced(
            name=self.candidate.name,
            cost=cost,
            reaches=self.reaches,
            accuracy=self.peak_accuracy.median,
        )


def _decided(
    candidates: Sequence[Candidate],
    forecaster: Forecaster,
    asked: Asked,
    failures: dict[str, str],
    *,
    changes: bool = True,
) -> Comparison:
    told = []
    for one in candidates:
        try:
            told.append(_told(one, forecaster, asked))
        except InputError as error:
            failures[one.name] = str(error)
    measure, word = MEASURES[asked.by]
    for unknown in [one for one in told if one.priced(asked.by) is None]:
        why = unknown.missing.get(measure, "nothing tells of it")
        failures[unknown.candidate.name] = f"its {word} is not known: {why}"
        told.remove(unknown)
    if not told:
        # Data that cannot be used are no news of the second option.
        shared = len(failures) > 1 and len(set(failures.values())) == 1
        told_once = {"each of them": next(iter(failures.values()))} if shared else failures
        reasons = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in told_once.items())
        raise InputError(f"None of the options could be compared. {reasons}.")
    choice = _choice(told, asked)
    return Comparison(
        recommended=choice.recommended,
        best=choice.best,
        ties=choice.ties,
        options=tuple(_compared(one, choice) for one in told),
        failures=failures,
        changes=tuple(_changes(told, choice, forecaster, asked)) if changes else (),
        target=asked.target,
        by=asked.by,
        confidence_level=asked.confidence_level,
        currency=asked.prices.currency if asked.prices else "",
        prices=asked.prices,
    )


def _choice(told: Sequence[_Told], asked: Asked) -> Choice:
    return choice_of([p for one in told if (p := one.priced(asked.by))], asked.confidence_level)


def _told(one: Candidate, forecaster: Forecaster, asked: Asked) -> _Told:
    """Return what is foretold of an option."""
    units: dict[str, str] = {**UNITS, "money": asked.prices.currency if asked.prices else ""}
    missing = {} if asked.prices else {"money": "no prices were given"}
    if one.preflight is None:
        reaches, accuracy = _of_kept(one, asked)
        missing |= {} if asked.grid else {"carbon_kg": "no grid was given"}
        nothing = {
            name: Estimate(median=0.0, lower=0.0, upper=0.0, unit=units[name]) for name in _COSTS
        }
        return _Told(
            candidate=one,
            forecast=None,
            known={name: free() for name in _COSTS if name not in missing},
            costs={name: None if name in missing else of for name, of in nothing.items()},
            missing=missing,
            reaches=reaches,
            peak_accuracy=accuracy,
        )
    forecast = forecaster.forecast(
        one.preflight,
        target=asked.target,
        grid=asked.grid if one.grid is None else one.grid,
        confidence_level=asked.confidence_level,
        from_scratch=False,
        seconds_per_step=one.seconds_per_step,
        joules_per_step=one.joules_per_step,
    )
    known = dict(forecast.distributions)
    missing = {**forecast.missing, **missing}
    costs = {name: of for name, of in forecast.estimates().items() if name in _COSTS}
    costs["money"] = None
    if asked.prices is not None:
        money = asked.prices.of(known)
        if money is None:
            of = "energy_kwh" if asked.prices.per_kwh and "energy_kwh" in missing else "duration_s"
            missing["money"] = missing[of]
        else:
            known["money"] = money
            costs["money"] = estimate_of(
                money, asked.confidence_level, measure="money", unit=units["money"]
            )
    return _Told(
        candidate=one,
        forecast=forecast,
        known=known,
        costs=costs,
        missing=missing,
        reaches=forecast.reaches_target,
        peak_accuracy=forecast.peak_accuracy,
    )


def _of_kept(one: Candidate, asked: Asked) -> tuple[float, Estimate]:
    """Return the probability that a kept model is at the target, and its accuracy.

    On the validation data of the other options that is seen, as it would be of an update; what
    other data say of it is a sample (Jeffreys prior: Brown, Cai and DasGupta, "Interval Estimation
    for a Binomial Proportion", 2001).
    """
    known = beta(one.correct + 0.5, one.examples - one.correct + 0.5)
    tail = (1 - asked.confidence_level) / 2
    median, lower, upper = (float(known.ppf(share)) for share in (0.5, tail, 1 - tail))
    reaches = float(known.sf(asked.target.value))
    if one.validated:
        reaches = float(one.correct >= asked.target.value * one.examples - _SAME)
    return reaches, Estimate(median=median, lower=lower, upper=upper, unit="")


def _compared(one: _Told, choice: Choice) -> Compared:
    name = one.candidate.name
    return Compared(
        name=name,
        kind=one.candidate.kind,
        signature=one.forecast.signature if one.forecast else one.candidate.signature,
        costs=one.costs,
        missing=one.missing,
        peak_accuracy=one.peak_accuracy,
        reaches_target=one.reaches,
        on_front=name in choice.front,
        cheaper=choice.cheaper.get(name),
        forecast=one.forecast,
    )


# --- what would change the answer --------------------------------------------------------------


def _changes(
    told: Sequence[_Told], choice: Choice, forecaster: Forecaster, asked: Asked
) -> Iterator[Change]:
    yield from _by_other_measures(told, choice, asked)
    yield from _on_another_grid(told, choice, asked)
    candidates = [one.candidate for one in told]
    yield from _with_other_targets(candidates, choice, forecaster, asked)
    yield from _with_more_data(candidates, choice, forecaster, asked)


def _by_other_measures(told: Sequence[_Told], choice: Choice, asked: Asked) -> Iterator[Change]:
    if choice.recommended is None:
        return
    for by, (_, word) in MEASURES.items():
        if by != asked.by and all(one.priced(by) for one in told):
            found = _choice(told, replace(asked, by=by)).recommended
            yield Change(
                kind="measure",
                what=f"{word} in place of {MEASURES[asked.by][1]}",
                recommended=found,
                differs=found != choice.recommended,
            )


def _on_another_grid(told: Sequence[_Told], choice: Choice, asked: Asked) -> Iterator[Change]:
    """Yield how clean the grid of an option must be for it to have the least carbon."""
    if asked.by != "kg" or choice.recommended is None:
        return
    least = next(p for one in told if (p := one.priced("kg")) and p.name == choice.recommended)
    for one in told:
        priced, energy = one.priced("kg"), one.known.get("energy_kwh")
        if priced is None or energy is None or one.forecast is None or priced.name == least.name:
            continue
        kwh = energy.median()
        if one.reaches >= asked.confidence_level and kwh > 0 and least.cost.median() > 0:
            pue = one.forecast.grid.pue if one.forecast.grid else 1.0
            grams = 1000 * least.cost.median() / (kwh * pue)
            yield Change(
                kind="grid",
                what=f"a grid of less than {grams:.3g} g CO2e/kWh for {priced.name} alone",
                recommended=priced.name,
                differs=True,
            )


def _with_other_targets(
    candidates: Sequence[Candidate], choice: Choice, forecaster: Forecaster, asked: Asked
) -> Iterator[Change]:
    """Yield the next lower and the next higher target that has another answer."""
    # Where nothing reaches the target, nothing reaches a higher one.
    for sign in (-1,) if choice.recommended is None else (-1, 1):
        for step in range(1, _TARGET_STEPS + 1):
            value = round(asked.target.value + sign * step * _TARGET_STEP, 6)
            if not 0 < value < 1:
                break
            found = _recommended(candidates, forecaster, replace(asked, target=Accuracy(value)))
            if found != choice.recommended:
                yield Change(
                    kind="target",
                    what=f"a target of {value:g}"
                    if choice.recommended is not None
                    else f"the highest target within reach, {value:g}",
                    recommended=found,
                    differs=True,
                )
                break


def _with_more_data(
    candidates: Sequence[Candidate], choice: Choice, forecaster: Forecaster, asked: Asked
) -> Iterator[Change]:
    larger = [
        one if one.preflight is None else replace(one, preflight=with_more(one.preflight))
        for one in candidates
    ]
    found = _recommended(larger, forecaster, asked)
    yield Change(
        kind="data",
        what=f"{_MORE_DATA} times as much training data",
        recommended=found,
        differs=found != choice.recommended,
    )


def _recommended(
    candidates: Sequence[Candidate], forecaster: Forecaster, asked: Asked
) -> str | None:
    priced = []
    for one in candidates:
        try:
            found = _priced(one, forecaster, asked)
        except InputError:
            # Too few updates tell of it: nobody can recommend it then.
            continue
        priced += [found] if found else []
    return choice_of(priced, asked.confidence_level).recommended if priced else None


def _priced(one: Candidate, forecaster: Forecaster, asked: Asked) -> Priced | None:
    """Return what matters of an option for a choice; None where its cost is not known."""
    if one.preflight is None:
        return _told(one, forecaster, asked).priced(asked.by)
    expected = forecaster.expected(
        one.preflight,
        target=asked.target,
        grid=asked.grid if one.grid is None else one.grid,
        seconds_per_step=one.seconds_per_step,
        joules_per_step=one.joules_per_step,
    )
    known = expected.distributions
    cost = (
        asked.prices.of(known)
        if asked.by == "money" and asked.prices
        else known.get(MEASURES[asked.by][0])
    )
    if cost is None:
        return None
    # What a forecast would refuse to tell is no reason to choose.
    for measure, of in (("cost", cost), ("peak_accuracy", known["peak_accuracy"])):
        estimate_of(of, asked.confidence_level, measure=measure, unit="")
    return Priced(
        name=one.name,
        cost=cost,
        reaches=expected.reaches_target,
        accuracy=known["peak_accuracy"].median(),
    )


def with_more(known: Preflight, times: int = _MORE_DATA) -> Preflight:
    """Return the pre-flight of an update on more data of the same kind.

    All that a pass and the probe saw is taken to stay as it is.

    Args:
        known: of an update.
        times: as many training examples.
    """
    examples = known.data.training_examples * times
    steps = math.ceil(examples / known.data.batch_size)
    values = dict(known.values)
    for name, value in (
        ("training_examples", float(examples)), ("steps_per_epoch", float(steps)),
        ("examples_per_class", times * (values.get("examples_per_class") or np.nan)),
    ):  # fmt: skip
        if values.get(name) is not None:
            values[name] = value
    data = replace(known.data, training_examples=examples, steps_per_epoch=steps)
    return replace(known, values=values, data=data)
