"""The forecast: what the next update will cost, before it is made, with intervals that hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from resque.errors import InputError
from resque.forecasting.corpus import corpus_updates
from resque.forecasting.experience import (
    CURVE_EPOCHS,
    FEW,
    Distribution,
    Experience,
    Learned,
    shipped_variances,
)
from resque.forecasting.forecast import UNITS, Estimate, Forecast, TrackRecord
from resque.forecasting.outcome import outcome_of
from resque.forecasting.predictors import (
    CHANGE,
    known_before,
    logit,
    share_of,
    trained_alike,
)
from resque.forecasting.preflight import Preflight
from resque.history.records import (
    JOULES_PER_KWH,
    Accuracy,
    Grid,
    Recipe,
    Target,
    checked_target,
)
from resque.measure.carbon import grid as grid_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        own = list(history) if history is not None else []
        variances = shipped_variances() if corpus is True else None
        if isinstance(corpus, bool):
            corpus = corpus_updates() if corpus else ()
        ids = {update.id for update in own}
        others = [update for update in corpus if update.id not in ids]
        self.experience = Experience(own, others, variances)

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
        if not isinstance(preflight, Preflight):
            raise InputError(
                "preflight must be a Preflight, which resque.preflight or resque.load_preflight "
                f"gives; got {type(preflight).__name__}."
            )
        checked_target(target)
        if not 0 < confidence_level < 1:
            raise InputError(
                f"confidence_level must be above 0 and below 1; got {confidence_level!r}."
            )
        for name, given in (
            ("seconds_per_step", seconds_per_step), ("joules_per_step", joules_per_step),
        ):  # fmt: skip
            if given is not None and not (math.isfinite(given) and given > 0):
                raise InputError(f"{name} must be above 0; got {given!r}.")
        costs = _Costs.of(preflight, seconds_per_step, joules_per_step)
        recipe = preflight.recipe if recipe is None else recipe
        found = _Asked(self.experience, preflight, target, recipe, confidence_level).forecast(
            costs, grid_of(grid)
        )
        if not from_scratch or recipe.start == "scratch":
            return found
        fresh = replace(recipe, start="scratch", frozen="none")
        return replace(
            found,
            from_scratch=_Asked(
                self.experience, preflight, target, fresh, confidence_level
            ).forecast(costs, grid_of(grid)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Costs:
    """What a step and a validation cost, and on which machine."""

    seconds_per_step: float | None
    seconds_per_validation: float
    joules_per_step: float | None
    joules_per_validation: float
    machine: str
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, preflight: Preflight, seconds_per_step: float | None, joules_per_step: float | None
    ) -> _Costs:
        """Return those of the pre-flight's probe, or those of another machine."""
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
            notes=tuple(notes),
        )


class _Asked:
    """One update that is asked for, and the distributions of what it may come to."""

    def __init__(
        self,
        experience: Experience,
        preflight: Preflight,
        target: Target,
        recipe: Recipe,
        confidence_level: float,
    ) -> None:
        self.experience, self.preflight = experience, preflight
        self.target, self.recipe, self.level = target, recipe, confidence_level
        self.known = known_before(preflight.to_dict(), recipe=recipe)
        self.row = experience.scale.rows([self.known])
        self.seen = experience.seen(self.known)
        self.unseen = tuple(
            name for name, updates in self.seen.items() if name != CHANGE and updates < FEW
        )

    def forecast(self, costs: _Costs, grid: Grid | None) -> Forecast:
        """Return the estimates of all measures."""
        epochs, reaches = self.epochs()
        found: dict[str, Distribution] = {"epochs": epochs}
        missing: dict[str, str] = {}
        for measure in ("gradient_norm", "parameter_change"):
            of = self.of(measure, self.target)
            if of is None:
                missing[measure] = "too few updates have it"
            else:
                found[measure] = of.through(np.exp)
        found["peak_accuracy"] = self._needed(self.of("peak_accuracy")).through(share_of)
        per_epoch = self.preflight.data.steps_per_epoch
        validations = epochs.values / self.recipe.validation_interval + 1
        for what, measure, step, validation in (
            ("seconds", "duration_s", costs.seconds_per_step, costs.seconds_per_validation),
            ("joules", "energy_kwh", costs.joules_per_step, costs.joules_per_validation),
        ):
            if step is None:
                missing[measure] = f"the pre-flight measured no {what} of a step"
                continue
            spent = epochs.values * per_epoch * step + validations * validation
            spent = spent / JOULES_PER_KWH if what == "joules" else spent
            found[measure] = self.experience.over_probe(what).times(
                Distribution(spent, epochs.weights)
            )
        if grid is None:
            missing["carbon_kg"] = "no grid was given"
        elif "energy_kwh" in missing:
            missing["carbon_kg"] = missing["energy_kwh"]
        else:
            found["carbon_kg"] = found["energy_kwh"].through(np.vectorize(grid.kg_of))
        told = {name: self.estimate(name, of) for name, of in found.items()}
        return Forecast(
            epochs=told["epochs"],
            duration_s=told.get("duration_s"),
            energy_kwh=told.get("energy_kwh"),
            carbon_kg=told.get("carbon_kg"),
            gradient_norm=told.get("gradient_norm"),
            parameter_change=told.get("parameter_change"),
            peak_accuracy=told["peak_accuracy"],
            reaches_target=reaches,
            missing=missing,
            target=self.target,
            recipe=self.recipe,
            confidence_level=self.level,
            grid=grid,
            own_updates=int(self.experience.own.sum()),
            corpus_updates=int((~self.experience.own).sum()),
            track_record=self.track_record(),
            notes=(*self.notes(), *costs.notes),
            machine=costs.machine,
            distributions=found,
            signature=self.preflight.signature,
        )

    def of(self, measure: str, target: Target | None = None) -> Distribution | None:
        """Return the distribution of a measure, on the scale of its regression."""
        learned = self.experience.learned(measure, target)
        if learned is None:
            return None
        errors = learned.errors(self.unseen)
        there = np.isfinite(errors)
        foretold = learned.regression.predict(self.row)
        return Distribution(
            foretold.mean[0] + foretold.sd[0] * errors[there],
            self.experience.weights(learned.places[there]),
        )

    def epochs(self) -> tuple[Distribution, float]:
        """Return the distribution of the epochs paid for, and the probability of the target."""
        if isinstance(self.target, Accuracy):
            return self._epochs_to(self.target)
        found = self._needed(self.of("epochs", self.target))
        reaches = found.share_below(math.log(self.recipe.max_epochs))
        # No plateau is shorter than the patience with which it is waited for.
        least = min(self.target.patience, self.recipe.max_epochs)
        epochs = np.clip(np.exp(found.values), least, self.recipe.max_epochs)
        return Distribution(epochs, found.weights), reaches

    def _epochs_to(self, target: Accuracy) -> tuple[Distribution, float]:
        """Return the same for an accuracy, from the learning curves that the update may have.

        Each known update gives one: what is foretold, and at each epoch the error that was made
        with that update, so that curves stay as smooth as they are.
        """
        epochs, learned = self._curves()
        columns = [np.full(len(learned[0].places), self._log_odds_before())]
        for each in learned:
            foretold = each.regression.predict(self.row)
            columns.append(foretold.mean[0] + foretold.sd[0] * each.errors(self.unseen))
        curves = np.column_stack(columns)
        there = np.isfinite(curves).all(axis=1)
        weights = self.experience.weights(learned[0].places)[there]
        spent, reach = _crossings(epochs, curves[there], logit(target.value))
        return Distribution(spent, weights), float(weights[reach].sum() / weights.sum())

    def _curves(self) -> tuple[Floats, list[Learned]]:
        """Return 0 and the epochs at which accuracy is foretold, and what is learned of each."""
        epochs = [epoch for epoch in CURVE_EPOCHS if epoch < self.recipe.max_epochs]
        # Beyond the last of them accuracy is taken to stay where it is.
        ends = [*epochs, min(self.recipe.max_epochs, CURVE_EPOCHS[-1])]
        learned = [self._needed(self.experience.learned(f"accuracy at {end:g}")) for end in ends]
        return np.array([0.0, *epochs, self.recipe.max_epochs]), learned

    def _log_odds_before(self) -> float:
        """Return the log odds of the accuracy before the first step: measured, or chance."""
        known = self.known.predictors
        if "error_before" in known:
            return -known["error_before"]
        return logit(math.exp(-known["classes"])) if "classes" in known else logit(0.0)

    def estimate(self, measure: str, distribution: Distribution) -> Estimate:
        """Return median and interval of the distribution of a measure."""
        tail = (1 - self.level) / 2
        bounds = [distribution.quantile(share) for share in (tail, 1 - tail)]
        if not all(map(math.isfinite, bounds)):
            weight = float(distribution.weights.sum())
            told = f"an interval of at most {1 - 2 / (weight + 1):.0%}" if weight > 1 else "none"
            raise InputError(
                f"A {self.level:.0%} interval of {measure} needs "
                f"{math.ceil((1 - tail) / tail - 1e-9)} updates that tell of it; there are "
                f"{len(distribution.values)}, which support {told}. Use the corpus as well, ask "
                "for a lower confidence level, or measure more updates."
            )
        return Estimate(
            median=distribution.median(), lower=bounds[0], upper=bounds[1], unit=UNITS[measure]
        )

    def track_record(self) -> TrackRecord:
        """Return how well the known updates are foretold in the same way."""
        if isinstance(self.target, Accuracy):
            foretold, true = self._foretold_crossings(self.target)
        else:
            epochs = self._needed(self.experience.learned("epochs", self.target))
            mean, _ = epochs.foretold(self.unseen)
            there = np.isfinite(mean) & ~epochs.censored
            foretold, true = np.exp(mean[there]), np.exp(epochs.y[there])
        peak = self._needed(self.experience.learned("peak_accuracy"))
        best, _ = peak.foretold(self.unseen)
        known = np.isfinite(best) & ~peak.censored
        missed = np.abs(share_of(best) - share_of(peak.y))[known]
        return TrackRecord(
            updates=len(true),
            unseen=self.unseen,
            epochs_error=float(np.median(np.abs(foretold / true - 1))) if len(true) else math.nan,
            accuracy_error=float(missed.mean()) if len(missed) else math.nan,
        )

    def _foretold_crossings(self, target: Accuracy) -> tuple[Floats, Floats]:
        """Return the epochs to an accuracy that are foretold of the known updates, and the true."""
        epochs, learned = self._curves()
        columns = [each.foretold(self.unseen)[0] for each in learned]
        curves = np.column_stack([columns[0], *columns])
        spent, _ = _crossings(epochs, np.nan_to_num(curves, nan=-math.inf), logit(target.value))
        outcomes = [outcome_of(self.experience.updates[at], target) for at in learned[0].places]
        usable = np.array([bool(o and o.reached and o.epochs > 0) for o in outcomes]) & np.isfinite(
            curves
        ).all(axis=1)
        true = np.array([o.epochs if o else math.nan for o in outcomes])
        return spent[usable], true[usable]

    def notes(self) -> tuple[str, ...]:
        """Return what is to be known before the forecast is relied on."""
        told = [
            f"Of this {name} {self.seen[name] or 'none'} of the known updates "
            f"{'is' if self.seen[name] < 2 else 'are'}: the intervals are those of a new one."
            for name in self.unseen
        ]
        beyond = self.experience.scale.outside(self.known)
        if beyond:
            told.append(
                f"Beyond all that the known updates show: {', '.join(beyond)}. The forecast "
                "extrapolates, and its intervals widen."
            )
        if self.preflight.probe is not None and not trained_alike(
            self.recipe, self.preflight.recipe
        ):
            told.append(
                "The probe tried another recipe: its losses and gradients are not used, and a "
                "step is taken to cost as much as there."
            )
        if isinstance(self.target, Accuracy):
            best = max((u.peak_accuracy or 0.0) for u in self.experience.updates)
            if self.target.value > best:
                told.append(
                    f"No known update has reached {self.target.value:g}; the best {best:g}."
                )
        return tuple(told)

    def _needed(self, found: _Found | None) -> _Found:
        if found is None:
            raise InputError(
                f"None of the {len(self.experience.updates)} known updates tells enough of this: "
                "fewer than two met their target. Measure more updates, or use the corpus."
            )
        return found


def _crossings(epochs: Floats, curves: Floats, wanted: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return after how many epochs learning curves reach a value, and which of them do.

    Those that do not are given all epochs.

    Args:
        epochs: (epochs,), from 0 to the last that is trained.
        curves: (curves, epochs); what has been reached once stays.
        wanted: the value.
    """
    curves = np.maximum.accumulate(curves, axis=1)
    reach = curves[:, -1] >= wanted
    after = np.argmax(curves >= wanted, axis=1)
    before = np.maximum(after - 1, 0)
    places = np.arange(len(curves))
    low, high = curves[places, before], curves[places, after]
    rise = np.where(after > before, high - low, 1.0)
    share = np.where(after > before, (wanted - low) / np.where(rise > 0, rise, 1.0), 0.0)
    crossed = epochs[before] + share * (epochs[after] - epochs[before])
    return np.where(reach, crossed, epochs[-1]), reach
