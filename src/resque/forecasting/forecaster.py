"""The forecast: what the next update will cost, before it is made, with intervals that hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from resque.errors import InputError
from resque.forecasting.corpus import corpus_updates
from resque.forecasting.experience import (
    FEW,
    Distribution,
    Experience,
    Learned,
    shipped_variances,
)
from resque.forecasting.forecast import UNITS, Estimate, Forecast
from resque.forecasting.outlook import Outlook
from resque.forecasting.predictors import (
    NETWORK,
    known_before,
    share_of,
    trained_alike,
)
from resque.forecasting.preflight import Preflight
from resque.history.records import (
    JOULES_PER_KWH,
    Accuracy,
    Grid,
    Plateau,
    Recipe,
    Target,
    checked_target,
)
from resque.index.shift import checked_level
from resque.measure.carbon import grid as grid_of

if TYPE_CHECKING:
    from resque.forecasting.regression import Floats
    from resque.history.store import History
    from resque.history.update import Update

_Found = TypeVar("_Found", Learned, Distribution)


def forecast(
    preflight: Preflight,
    *,
    target: Target,
    history: History | Iterable[Update] | None = None,
    corpus: bool = True,
    recipe: Recipe | None = None,
    grid: float | str | Grid | None = None,
    confidence_level: float = 0.9,
    from_scratch: bool = True,
    seconds_per_step: float | None = None,
    joules_per_step: float | None = None,
) -> Forecast:
    """Return what the update of a pre-flight would cost, each measure with its interval.

    Time and energy are the epochs of the forecast, times what the probe of the pre-flight measured
    for a step and a validation on its machine. docs/forecast.md says how good such forecasts are.

    Args:
        preflight: of the update.
        target: what ends it: `Accuracy(0.92)` or `Plateau(patience=5)`.
        history: own updates, which count more the more there are; None for none.
        corpus: whether the corpus of the package is used as well.
        recipe: how the update would be trained, if not as in the pre-flight.
        grid: grams of CO2e per kWh, or a country such as "FRA"; None gives no carbon.
        confidence_level: of the intervals, above 0 and below 1.
        from_scratch: whether the same update from fresh weights is foretold as well.
        seconds_per_step: of another machine than that of the pre-flight, in its place.
        joules_per_step: likewise.

    Raises:
        InputError: an argument is impossible, or there are too few updates for such intervals;
            the message says how many are needed.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> data, model = (x, (x[:, 0] > 0).long()), torch.nn.Linear(4, 2)
        >>> known = resque.preflight(model, data, meter="none")
        >>> found = resque.forecast(known, target=resque.Accuracy(0.9))
        >>> found.epochs.lower <= found.epochs.median <= found.epochs.upper
        True
    """
    return Forecaster(history, corpus=corpus).forecast(
        preflight,
        target=target,
        recipe=recipe,
        grid=grid,
        confidence_level=confidence_level,
        from_scratch=from_scratch,
        seconds_per_step=seconds_per_step,
        joules_per_step=joules_per_step,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What an update may come to, as far as a choice between updates needs it.

    Attributes:
        distributions: measure -> distribution; of what it costs, and of the peak accuracy.
        reaches_target: probability that the target is met before the recipe gives up.
        missing: measure -> why nothing is known of it.
    """

    distributions: Mapping[str, Distribution]
    reaches_target: float
    missing: Mapping[str, str]


class Forecaster:
    """Foretells updates from those of a history, and from the corpus as long as that is short.

    Each measure has a `PooledRegression` on what was known before. The interval of a forecast
    comes from the errors that the same regression makes with updates left out in turn, together
    with all that shares with them what is new in the update to come.

    Args:
        history: own updates; None for none.
        corpus: whether the corpus of the package is used as well, or the updates to be used in
            its place.

    Raises:
        InputError: there is no update at all.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> data, model = (x, (x[:, 0] > 0).long()), torch.nn.Linear(4, 2)
        >>> known = resque.preflight(model, data, meter="none")
        >>> Forecaster().forecast(known, target=resque.Plateau()).epochs.unit
        'epochs'
    """

    def __init__(
        self,
        history: History | Iterable[Update] | None = None,
        *,
        corpus: bool | Iterable[Update] = True,
    ) -> None:
        if isinstance(history, str | Path):
            raise InputError(
                f"history must be a History or updates; got {str(history)!r}. Open it: "
                "resque.History(url)."
            )
        own = list(history) if history is not None else []
        if corpus is True and not own:
            self.experience = _of_the_package()
            return
        variances = shipped_variances() if corpus is True else None
        if isinstance(corpus, bool):
            corpus = corpus_updates() if corpus else ()
        ids, starts = {u.id for u in own}, {u.started for u in own}
        # An id is the digest of a whole record, which takes a while for all of the corpus.
        others = [u for u in corpus if u.started not in starts or u.id not in ids]
        self.experience = Experience(own, others, variances)

    @classmethod
    def of(cls, experience: Experience) -> Forecaster:
        """Return the forecaster that has an experience.

        Args:
            experience: of updates that were made.
        """
        made = cls.__new__(cls)
        made.experience = experience
        return made

    def forecast(
        self,
        preflight: Preflight,
        *,
        target: Target,
        recipe: Recipe | None = None,
        grid: float | str | Grid | None = None,
        confidence_level: float = 0.9,
        from_scratch: bool = True,
        seconds_per_step: float | None = None,
        joules_per_step: float | None = None,
    ) -> Forecast:
        """Return what the update of a pre-flight would cost; see `resque.forecast`."""
        checked_level(confidence_level)
        asked = self._asked(preflight, target, recipe)
        costs = _Costs.of(preflight, seconds_per_step, joules_per_step)
        grid = grid_of(grid)
        found = asked.forecast(costs, grid, confidence_level)
        if not from_scratch or asked.outlook.recipe.start == "scratch":
            return found
        fresh = replace(asked.outlook.recipe, start="scratch", frozen="none")
        scratch = self._asked(preflight, target, fresh)
        return replace(found, from_scratch=scratch.forecast(costs, grid, confidence_level))

    def expected(
        self,
        preflight: Preflight,
        *,
        target: Target,
        grid: float | str | Grid | None = None,
        seconds_per_step: float | None = None,
        joules_per_step: float | None = None,
    ) -> Expected:
        """Return what the update of a pre-flight may cost and reach: much faster than a forecast.

        For many targets: what accuracy is reached when is learned once for all of them.

        Args:
            preflight: see `resque.forecast`.
            target: likewise.
            grid: likewise.
            seconds_per_step: likewise.
            joules_per_step: likewise.

        Raises:
            InputError: an argument is impossible, or too few updates tell of it.
        """
        asked = self._asked(preflight, target, None)
        costs = _Costs.of(preflight, seconds_per_step, joules_per_step)
        return asked.expected(costs, grid_of(grid))

    def _asked(self, preflight: Preflight, target: Target, recipe: Recipe | None) -> _Asked:
        if not isinstance(preflight, Preflight):
            raise InputError(
                "preflight must be a Preflight, which resque.preflight or resque.load_preflight "
                f"gives; got {type(preflight).__name__}."
            )
        checked_target(target)
        recipe = preflight.recipe if recipe is None else recipe
        if recipe.batch_size != preflight.recipe.batch_size:
            raise InputError(
                f"The pre-flight was made with batches of {preflight.recipe.batch_size}; got "
                f"batch_size={recipe.batch_size}, of which it cannot tell. Make another."
            )
        known = known_before(preflight.to_dict(), recipe=recipe)
        return _Asked(Outlook(self.experience, known, target, recipe), preflight)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Costs:
    """What a step and a validation cost, and on which machine."""

    seconds_per_step: float | None
    seconds_per_validation: float
    joules_per_step: float | None
    joules_per_validation: float
    machine: str
    meter: str | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, preflight: Preflight, seconds_per_step: float | None, joules_per_step: float | None
    ) -> _Costs:
        """Return those of the pre-flight's probe, or those of another machine."""
        for name, given in (
            ("seconds_per_step", seconds_per_step), ("joules_per_step", joules_per_step),
        ):  # fmt: skip
            if given is not None and not (math.isfinite(given) and given > 0):
                raise InputError(f"{name} must be above 0; got {given!r}.")
        tried = preflight.probe
        seconds = None if tried is None else tried.seconds_per_step.median
        joules = tried.joules_per_step.median if tried and tried.joules_per_step else None
        in_validation = (
            tried.seconds_per_validation.median if tried and tried.seconds_per_validation else 0.0
        )
        joules_in_validation = (
            tried.joules_per_validation.median if tried and tried.joules_per_validation else 0.0
        )
        notes = []
        machine = preflight.hardware.name
        if seconds_per_step is not None:
            machine = f"another machine than {machine}, as given"
            in_validation *= seconds_per_step / seconds if seconds else 0.0
            # Joules of one machine are none of another's.
            seconds, joules, joules_in_validation = seconds_per_step, None, 0.0
        if joules_per_step is not None:
            if seconds is None:
                raise InputError("joules_per_step needs seconds_per_step, or a probe.")
            joules = joules_per_step
            joules_in_validation = joules_per_step / seconds * in_validation
        if seconds is not None and not in_validation:
            notes.append("Validation is not in the time and energy: the pre-flight had none.")
        if joules is not None and joules_per_step is None and tried and tried.modelled:
            notes.append(f"The energy is modelled, by {tried.energy.meter}, not counted.")
        return cls(
            seconds_per_step=seconds,
            seconds_per_validation=in_validation,
            joules_per_step=joules,
            joules_per_validation=joules_in_validation,
            machine=machine,
            meter=tried.energy.meter if tried else None,
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """An update that is asked for, and how it is to be told."""

    outlook: Outlook
    preflight: Preflight

    def expected(self, costs: _Costs, grid: Grid | None) -> Expected:
        """Return what it may cost, by equation 18, and reach."""
        epochs, reaches = self.outlook.epochs()
        found: dict[str, Distribution] = {"epochs": epochs}
        missing: dict[str, str] = {}
        found["peak_accuracy"] = self.outlook.peak().through(share_of)
        per_epoch = self.preflight.data.steps_per_epoch
        validations = epochs.values / self.outlook.recipe.validation_interval + 1
        for what, measure, step, validation in (
            ("seconds", "duration_s", costs.seconds_per_step, costs.seconds_per_validation),
            ("joules", "energy_kwh", costs.joules_per_step, costs.joules_per_validation),
        ):
            if step is None:
                missing[measure] = f"the pre-flight measured no {what} of a step"
                continue
            spent = epochs.values * per_epoch * step + validations * validation
            spent = spent / JOULES_PER_KWH if what == "joules" else spent
            found[measure] = self.outlook.experience.over_probe(what, costs.meter).times(
                Distribution(spent, epochs.weights, epochs.updates)
            )
        if grid is None:
            missing["carbon_kg"] = "no grid was given"
        elif "energy_kwh" in missing:
            missing["carbon_kg"] = missing["energy_kwh"]
        else:
            found["carbon_kg"] = found["energy_kwh"].through(np.vectorize(grid.kg_of))
        return Expected(distributions=found, reaches_target=reaches, missing=missing)

    def forecast(self, costs: _Costs, grid: Grid | None, level: float) -> Forecast:
        """Return the estimates of all measures."""
        expected = self.expected(costs, grid)
        found, missing = dict(expected.distributions), dict(expected.missing)
        told = {
            name: estimate_of(of, level, measure=name, unit=UNITS[name])
            for name, of in expected.distributions.items()
        }
        for measure in ("gradient_norm", "parameter_change"):
            of = self.outlook.of(measure, self.outlook.target)
            try:
                # The rest can be told without them.
                told[measure] = estimate_of(
                    self.outlook.needed(of).through(np.exp), level, measure=measure, unit=""
                )
            except InputError as error:
                missing[measure] = str(error)
            else:
                found[measure] = self.outlook.needed(of).through(np.exp)
        return Forecast(
            epochs=told["epochs"],
            duration_s=told.get("duration_s"),
            energy_kwh=told.get("energy_kwh"),
            carbon_kg=told.get("carbon_kg"),
            gradient_norm=told.get("gradient_norm"),
            parameter_change=told.get("parameter_change"),
            peak_accuracy=told["peak_accuracy"],
            reaches_target=expected.reaches_target,
            missing=missing,
            target=self.outlook.target,
            recipe=self.outlook.recipe,
            confidence_level=level,
            grid=grid,
            own_updates=int(self.outlook.experience.own.sum()),
            corpus_updates=int((~self.outlook.experience.own).sum()),
            track_record=self.outlook.track_record(),
            notes=(*self._says_nothing(told["epochs"], level), *self.notes(), *costs.notes),
            machine=costs.machine,
            distributions=found,
            signature=self.preflight.signature,
        )

    def _says_nothing(self, epochs: Estimate, level: float) -> tuple[str, ...]:
        recipe, target = self.outlook.recipe, self.outlook.target
        interval = recipe.validation_interval
        waited = target.patience if isinstance(target, Plateau) else interval
        soonest = math.ceil(waited / interval - 1e-9) * interval
        if epochs.lower > soonest or not epochs.lower < epochs.upper == recipe.max_epochs:
            return ()
        told = (
            f"The {level:.0%} interval of the epochs is all that the recipe allows: at this level "
            "nothing is known of them. Updates of your own narrow it, or a lower confidence level."
        )
        return (told,)

    def _named(self, grouping: str) -> str:
        # The same network may go by two names, one in a script and one on the command line.
        model = self.outlook.known.groups[NETWORK]
        return f"{grouping} ({model})" if grouping == NETWORK and model else grouping

    def notes(self) -> tuple[str, ...]:
        """Return what is to be known before the forecast is relied on."""
        checked = self.outlook.checkable
        told = [
            f"Known updates of this {self._named(name)}: {self.outlook.seen[name]}, fewer than "
            f"{FEW}. "
            + (
                f"How far forecasts miss is taken from updates foretold without their {name}."
                if name in checked
                else f"How much another {name} may differ they do not show, nor do the intervals."
            )
            for name in self.outlook.unseen
        ]
        beyond = self.outlook.experience.scale.outside(self.outlook.known)
        if beyond:
            told.append(
                f"Beyond all that the known updates show: {', '.join(beyond)}. The forecast "
                "extrapolates, and its intervals widen."
            )
        experience = self.outlook.experience
        own = [u for u, mine in zip(experience.updates, experience.own, strict=True) if mine]
        blind = sum(update.preflight is None for update in own)
        if blind:
            told.append(
                f"Own updates without a pre-flight: {blind} of {len(own)}. Little was known of "
                "them before, so they tell little; give the next one its pre-flight."
            )
        if self.preflight.probe is not None and not trained_alike(
            self.outlook.recipe, self.preflight.recipe
        ):
            told.append(
                "The probe tried another recipe: its losses and gradients are not used, and a "
                "step is taken to cost as much as there."
            )
        longest = experience.longest
        if 0 < longest < self.outlook.recipe.max_epochs:
            told.append(
                f"No known update was trained for more than {longest:g} epochs; beyond them "
                "accuracy is taken to stay where it is."
            )
        if self.outlook.recipe.schedule != "constant":
            told.append(
                f"The {self.outlook.recipe.schedule} schedule ends with max_epochs, "
                f"{self.outlook.recipe.max_epochs:g}: known updates of another schedule or length "
                "say little of when accuracy rises."
            )
        shorter = max((u.curve[-1].epoch for u in own if u.curve), default=0.0)
        if 0 < shorter < min(self.outlook.recipe.max_epochs, longest):
            told.append(
                f"No own update was trained for more than {shorter:g} epochs; beyond them "
                "theirs are taken to stay where they were."
            )
        curveless = sum(not update.curve for update in own)
        if curveless:
            told.append(
                f"Own updates without a learning curve: {curveless} of {len(own)}. They tell "
                "nothing of when an accuracy is reached."
            )
        if isinstance(self.outlook.target, Accuracy):
            best = max((u.peak_accuracy or 0.0) for u in self.outlook.experience.updates)
            if self.outlook.target.value > best:
                told.append(
                    f"No known update has reached {self.outlook.target.value:g}; the best {best:g}."
                )
        return tuple(told)


@cache
def _of_the_package() -> Experience:
    """Return what the corpus alone teaches: the same for everybody, and learned once."""
    return Experience((), corpus_updates(), shipped_variances())


def estimate_of(distribution: Distribution, level: float, *, measure: str, unit: str) -> Estimate:
    """Return median and interval of the distribution of a measure.

    Args:
        distribution: of it.
        level: of the interval, above 0 and below 1.
        measure: its name, for the error.
        unit: of the estimate.

    Raises:
        InputError: too few updates tell of it for such an interval.
    """
    tail = (1 - level) / 2
    several = distribution.updates or len(distribution.values)
    # Where all of them would support the level, that own ones weigh more must not forbid it.
    for weights in (distribution.weights, _counted(distribution.weights, several)):
        known = Distribution(distribution.values, weights)
        bounds = [known.quantile(share) for share in (tail, 1 - tail)]
        if all(map(math.isfinite, bounds)):
            break
    else:
        raise InputError(
            f"A {level:.0%} interval of {measure} needs "
            f"{math.ceil((1 - tail) / tail - 1e-9)} updates that tell of it; there are "
            f"{several}. Use the corpus as well, ask for a lower confidence level, or measure "
            "more updates."
        )
    return Estimate(median=distribution.median(), lower=bounds[0], upper=bounds[1], unit=unit)


def _counted(weights: Floats, several: int) -> Floats:
    """Return weights of which all together count for so many updates."""
    counted: Floats = weights * (several / weights.sum())
    return counted
