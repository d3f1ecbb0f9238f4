"""The forecast, on histories whose law is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import resque
from resque.errors import InputError
from resque.forecasting import experience as experience_module
from resque.forecasting.experience import Distribution, Experience
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.predictors import DATA, known_before
from resque.history.records import Accuracy, Plateau, Recipe
from simulated import TARGET, curve_of, plateau_of, preflight_of, simulated
from updates import reading_of

RECIPE = Recipe(max_epochs=200, validation_interval=0.5)


def asked(x: float, **options: Any) -> resque.Preflight:
    return preflight_of(x, recipe=RECIPE, **{"network": "network 0"} | options)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(simulated(120), corpus=False)


def test_the_median_follows_the_law(forecaster: Forecaster) -> None:
    """Epochs are 3, the patience, and exp(1.2 + 0.5 x + effect)."""
    medians = [
        forecaster.forecast(asked(x), target=TARGET, from_scratch=False).epochs.median - 3
        for x in (0.5, 1.5, 2.5)
    ]
    assert medians[1] / medians[0] == pytest.approx(math.exp(0.5), rel=0.25)
    assert medians[2] / medians[1] == pytest.approx(math.exp(0.5), rel=0.25)


def test_intervals_cover() -> None:
    """Of 150 new updates of one law, 90 % within three binomial standard errors, 0.073."""
    updates = simulated(300, noise=0.3)
    forecaster = Forecaster(updates[:150], corpus=False)
    covered = []
    for update in updates[150:]:
        known = resque.Preflight.from_dict(update.preflight)  # type: ignore[arg-type]
        epochs = forecaster.forecast(known, target=TARGET, from_scratch=False).epochs
        # A forecast is a whole number of validations, every half epoch.
        covered.append(epochs.lower - 0.25 <= update.epochs <= epochs.upper + 0.25)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.073)


def test_updates_without_a_preflight_are_said_to_tell_little(forecaster: Forecaster) -> None:
    """With how many they are; nothing is said where each has its own."""
    told = "Own updates without a pre-flight"
    found = forecaster.forecast(asked(1.0), target=TARGET, from_scratch=False)
    assert not any(note.startswith(told) for note in found.notes)
    updates = [replace(u, preflight=None) if at < 7 else u for at, u in enumerate(simulated(60))]
    found = Forecaster(updates, corpus=False).forecast(asked(1.0), target=TARGET)
    assert any(note.startswith(f"{told}: 7 of 60.") for note in found.notes)


def test_what_few_updates_tell_of_is_missing_and_the_rest_is_told() -> None:
    """Of 40 updates 8 have a gradient norm; a 90 % interval of it needs 19."""
    updates = [replace(u, gradient_norm=None) if at >= 8 else u
               for at, u in enumerate(simulated(40))]  # fmt: skip
    found = Forecaster(updates, corpus=False).forecast(asked(1.0), target=TARGET)
    assert found.gradient_norm is None
    assert "needs 19 updates that tell of it; there are 8" in found.missing["gradient_norm"]
    assert found.epochs.lower < found.epochs.upper


def test_what_is_expected_is_what_is_forecast(forecaster: Forecaster) -> None:
    known = asked(1.0, joules_per_step=3.0)
    expected = forecaster.expected(known, target=TARGET, grid=100.0)
    told = forecaster.forecast(known, target=TARGET, grid=100.0)
    assert expected.reaches_target == told.reaches_target
    for measure, of in expected.distributions.items():
        assert of.median() == told.estimates()[measure].median
    assert expected.distributions.keys() == {
        "epochs", "peak_accuracy", "duration_s", "energy_kwh", "carbon_kg",
    }  # fmt: skip


def test_no_plateau_ends_before_its_patience(forecaster: Forecaster) -> None:
    """With a validation every second epoch, a patience of three is over after four epochs."""
    recipe = replace(RECIPE, validation_interval=2.0)
    expected = forecaster.expected(
        preflight_of(-6.0, network="network 0", recipe=recipe), target=TARGET
    )
    assert expected.distributions["epochs"].values.min() == 4.0


def test_the_answer_does_not_hang_on_what_was_asked_before() -> None:
    """Each target has variances of its own where none are shipped."""
    updates = [
        replace(u, curve=plateau_of(u.peak_accuracy or 0.0, round(2 * u.epochs) / 2, 3.0))
        for u in simulated(40)
    ]
    asked_before = Forecaster(updates, corpus=False)
    for target in (Plateau(patience=1), Accuracy(0.7)):
        asked_before.forecast(asked(1.0), target=target, confidence_level=0.5)
    anew = Forecaster(updates, corpus=False)
    for target in (TARGET, Accuracy(0.75)):
        one, other = (f.forecast(asked(1.0), target=target) for f in (asked_before, anew))
        assert one == other


def test_few_regressions_are_remembered() -> None:
    """Whoever asks for many targets does not fill the memory; the curves stay."""
    experience = Experience([replace(u, curve=curve_of(0.8, 2.0, 20.0)) for u in simulated(20)], ())
    curve = experience.learned("accuracy at 4")
    for patience in range(40):
        experience.learned("epochs", Plateau(patience=1 + patience / 8))
    assert len(experience._learned) <= 1 + experience_module._REMEMBERED
    assert experience.learned("accuracy at 4") is curve


def test_an_accuracy_needs_learning_curves() -> None:
    """The message names what is missing, which more updates of the same sort would not bring."""
    with pytest.raises(InputError, match=r"None of the 40 known updates has a learning curve"):
        Forecaster(simulated(40), corpus=False).forecast(asked(1.0), target=Accuracy(0.8))


def test_own_updates_take_over_from_others() -> None:
    """The user's updates take twice as long as those of the others; their network is new."""
    others = simulated(150, level=2.0, seed=1)
    own = [
        replace(u, signature=replace(u.signature, model="mine"))
        for u in simulated(40, level=2.0 + math.log(2), networks=1, network_sd=0.0, seed=2)
    ]
    own = [replace(u, preflight=_of_network(u.preflight, "mine")) for u in own]
    found = [
        Forecaster(own[:n], corpus=others)
        .forecast(asked(0.0, network="mine"), target=TARGET, from_scratch=False)
        .epochs
        for n in (0, 3, 10, 40)
    ]
    medians = [epochs.median for epochs in found]
    # The truth is 3 + 2 exp(2) = 17.8; without own updates it is that of the others, 10.4.
    assert medians[0] == pytest.approx(10.4, rel=0.25)
    assert medians[0] < medians[1]
    assert medians[2] == pytest.approx(17.8, rel=0.2)
    assert medians[3] == pytest.approx(17.8, rel=0.1)
    widths = [math.log(epochs.upper / epochs.lower) for epochs in found]
    assert widths[3] < widths[0]


def _of_network(preflight: Any, network: str) -> dict[str, Any]:
    return preflight | {"signature": preflight["signature"] | {"model": network}}


def test_censored_updates_inform_as_censored() -> None:
    """Updates that gave up after 6.5 epochs say that it takes longer, and not that it takes 6.5."""
    whole = simulated(150, level=1.2, noise=0.2)
    cut = simulated(150, level=1.2, noise=0.2, most_epochs=6.5)
    assert 30 < sum(not update.reached for update in cut) < 100
    wanted = asked(1.5)
    truth = Forecaster(whole, corpus=False).forecast(wanted, target=TARGET, from_scratch=False)
    minded = Forecaster(cut, corpus=False).forecast(wanted, target=TARGET, from_scratch=False)
    naive = [replace(u, ended="plateau") for u in cut]
    ignored = Forecaster(naive, corpus=False).forecast(wanted, target=TARGET, from_scratch=False)
    assert minded.epochs.median == pytest.approx(truth.epochs.median, rel=0.3)
    assert ignored.epochs.median < 0.75 * truth.epochs.median


def test_a_censored_update_is_spread_over_what_lies_beyond_its_bound() -> None:
    """Its median alone would leave the upper bounds of intervals too low."""
    cut = simulated(60, noise=0.2, most_epochs=6.5)
    learned = Experience(cut, ()).learned("epochs", TARGET)
    assert learned is not None
    errors, rows, counts = learned.all_errors(())
    mean, sd = learned.foretold(())
    for row in np.flatnonzero(learned.censored):
        of = errors[rows == row]
        assert len(of) == 5
        assert counts[rows == row].sum() == pytest.approx(1.0)
        assert (of > (learned.y[row] - mean[row]) / sd[row]).all()
        assert np.ptp(of) > 0.1


def test_outside_of_what_was_seen_it_says_so_and_widens(forecaster: Forecaster) -> None:
    inside = forecaster.forecast(asked(0.0), target=TARGET, from_scratch=False)
    outside = forecaster.forecast(asked(6.0), target=TARGET, from_scratch=False)
    assert not any("Beyond" in note for note in inside.notes)
    assert any("Beyond all that the known updates show: ridge" in n for n in outside.notes)
    assert _width(outside) > _width(inside)


def _width(forecast: resque.Forecast) -> float:
    assert forecast.epochs is not None
    return math.log(forecast.epochs.upper / forecast.epochs.lower)


def test_a_new_network_makes_it_wider_and_is_told(forecaster: Forecaster) -> None:
    known = forecaster.forecast(asked(1.0), target=TARGET, from_scratch=False)
    new = forecaster.forecast(asked(1.0, network="other"), target=TARGET, from_scratch=False)
    assert new.track_record.unseen == ("network",)
    assert known.track_record.unseen == ()
    assert any(note.startswith("Known updates of this network (other): 0") for note in new.notes)
    assert _width(new) > _width(known)


@pytest.mark.parametrize(("level", "needed"), [(0.9, 19), (0.5, 3), (0.99, 199)])
def test_too_few_updates_are_refused_with_the_number_needed(level: float, needed: int) -> None:
    few = simulated(needed - 1, networks=1)
    with pytest.raises(InputError, match=rf"needs {needed} updates .*there are {needed - 1}\."):
        Forecaster(few, corpus=False).forecast(
            asked(0.0), target=TARGET, confidence_level=level, from_scratch=False
        )
    enough = simulated(needed, networks=1)
    found = Forecaster(enough, corpus=False).forecast(
        asked(0.0), target=TARGET, confidence_level=level, from_scratch=False
    )
    assert found.confidence_level == level


def test_time_and_energy_are_those_of_the_probe() -> None:
    """20 steps an epoch at 0.1 s and 3 J, and a validation like a step every half epoch."""
    updates = simulated(60)
    known = asked(1.5, joules_per_step=3.0)
    found = Forecaster(updates, corpus=False).forecast(
        known, target=TARGET, grid=500, from_scratch=False
    )
    epochs = found.distributions["epochs"].median()
    # The updates took 2 s an epoch, and their probes foretold 20 x 0.1 s, with no validation.
    assert found.duration_s is not None
    assert found.energy_kwh is not None
    assert found.carbon_kg is not None
    seconds = epochs * 20 * 0.1 + (2 * epochs + 1) * 0.1
    assert found.duration_s.median == pytest.approx(seconds, rel=0.02)
    assert found.energy_kwh.median == pytest.approx(seconds * 30 / 3.6e6, rel=0.02)
    assert found.carbon_kg.median == pytest.approx(0.5 * found.energy_kwh.median)
    assert found.carbon_kg.upper == pytest.approx(0.5 * found.energy_kwh.upper)


def test_another_machine_by_its_seconds_and_joules(forecaster: Forecaster) -> None:
    known = asked(1.0, joules_per_step=3.0)
    here = forecaster.forecast(known, target=TARGET, from_scratch=False)
    there = forecaster.forecast(known, target=TARGET, seconds_per_step=0.01, from_scratch=False)
    assert here.duration_s is not None
    assert there.duration_s is not None
    assert there.duration_s.median == pytest.approx(here.duration_s.median / 10)
    # Never another machine's joules.
    assert here.energy_kwh is not None
    assert there.energy_kwh is None
    assert there.missing["energy_kwh"] == "the pre-flight measured no joules of a step"
    assert "another machine" in there.machine
    both = forecaster.forecast(
        known, target=TARGET, seconds_per_step=0.01, joules_per_step=3.0, from_scratch=False
    )
    assert both.energy_kwh is not None
    assert both.energy_kwh.median == pytest.approx(here.energy_kwh.median)


def test_without_a_probe_there_is_no_time(forecaster: Forecaster) -> None:
    found = forecaster.forecast(
        asked(1.0, seconds_per_step=None), target=TARGET, grid="FRA", from_scratch=False
    )
    assert found.duration_s is None
    assert found.energy_kwh is None
    assert found.carbon_kg is None
    assert set(found.missing) >= {"duration_s", "energy_kwh", "carbon_kg"}


def test_an_accuracy_is_read_from_learning_curves() -> None:
    """Curves rise to a peak that x decides with a pace of 2 epochs; noise is small."""
    rng = np.random.default_rng(0)
    updates = []
    for update in simulated(80, networks=1, network_sd=0.0):
        peak = update.peak_accuracy or 0.0
        curve = curve_of(peak, 2.0 * math.exp(0.05 * rng.normal()), 20.0)
        updates.append(replace(update, curve=curve, epochs=20.0, ended="plateau"))
    forecaster = Forecaster(updates, corpus=False)
    found = forecaster.forecast(asked(-2.0), target=Accuracy(0.8), from_scratch=False)
    # The peak is 1 / (1 + exp(-2.5)) = 0.924; 0.8 is reached when exp(-e / 2) = 0.124 / 0.424.
    # That is 2.46; the first validation after it is at 2.5.
    assert found.epochs.median == pytest.approx(2.5, abs=0.5)
    assert found.reaches_target > 0.95
    hopeless = forecaster.forecast(asked(2.0), target=Accuracy(0.9), from_scratch=False)
    # The peak is 1 / (1 + exp(-0.5)) = 0.62.
    assert hopeless.reaches_target < 0.05
    assert hopeless.epochs.median == RECIPE.max_epochs


def test_what_is_below_its_target_takes_a_validation_at_least() -> None:
    """Half are right before the first step: 0.5 may be met already, 0.55 takes training."""
    updates = [
        replace(u, curve=curve_of(0.9, 1.0, 20.0), epochs=20.0, ended="plateau")
        for u in simulated(60, networks=1)
    ]
    forecaster = Forecaster(updates, corpus=False)
    known = asked(0.0)
    least = {
        value: forecaster.forecast(known, target=Accuracy(value), from_scratch=False).epochs.lower
        for value in (0.5, 0.55)
    }
    assert least == {0.5: 0.0, 0.55: RECIPE.validation_interval}
    fresh = replace(RECIPE, start="head")
    found = forecaster.forecast(known, target=Accuracy(0.5), recipe=fresh, from_scratch=False)
    assert found.epochs.lower == RECIPE.validation_interval


def test_probabilities_of_the_target_are_calibrated_at_the_cap() -> None:
    """With a cap at the median of the law, half of the updates reach their target."""
    updates = simulated(200, noise=0.3, networks=1, network_sd=0.0, level=2.0)
    forecaster = Forecaster(updates, corpus=False)
    recipe = replace(RECIPE, max_epochs=3 + math.exp(2.0))
    found = forecaster.forecast(asked(0.0), target=TARGET, recipe=recipe, from_scratch=False)
    assert found.reaches_target == pytest.approx(0.5, abs=0.2)
    assert found.epochs.upper == recipe.max_epochs


@pytest.fixture(scope="module")
def with_curves() -> Forecaster:
    return Forecaster(
        [
            replace(u, curve=curve_of(u.peak_accuracy or 0.5, 1.0 + at % 7, 25.0))
            for at, u in enumerate(simulated(60))
        ],
        corpus=False,
    )


def test_the_peak_and_the_probability_of_a_target_are_of_the_same_curves(
    with_curves: Forecaster,
) -> None:
    """The probability of an accuracy is the share of peaks that are as high, whatever is asked."""
    known = asked(1.0)
    told = with_curves.expected(known, target=TARGET).distributions["peak_accuracy"]
    chances = []
    for value in (0.55, 0.7, 0.75, 0.8, 0.9):
        found = with_curves.expected(known, target=Accuracy(value))
        peak = found.distributions["peak_accuracy"]
        assert (peak.values == told.values).all()
        assert found.reaches_target == pytest.approx(1 - peak.share_below(value))
        chances.append(found.reaches_target)
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > chances[-1]


def test_with_more_epochs_no_target_is_less_likely(with_curves: Forecaster) -> None:
    """Nor is the peak lower, whether or not the epochs are those of a known update."""
    chances, peaks = [], []
    for epochs in (0.5, 1, 2.5, 3, 7, 8, 20, 25, 60):
        recipe = replace(RECIPE, max_epochs=epochs)
        found = with_curves.expected(
            preflight_of(1.0, network="network 0", recipe=recipe), target=Accuracy(0.72)
        )
        chances.append(found.reaches_target)
        peaks.append(found.distributions["peak_accuracy"].median())
    assert chances == sorted(chances)
    assert peaks == sorted(peaks)
    assert chances[0] < 0.2 < chances[-1]
    assert chances[-2] == chances[-1]


def test_a_few_long_updates_do_not_tell_of_all_the_others() -> None:
    """Two of 60 went on for 400 epochs; the others ended at 25, and are as they were."""
    ended = [replace(u, curve=curve_of(0.73, 4.0, 25.0), ended="max_epochs") for u in simulated(60)]
    long = [replace(u, curve=curve_of(0.85, 60.0, 400.0)) if at < 2 else u
            for at, u in enumerate(ended)]  # fmt: skip
    recipe = replace(RECIPE, max_epochs=25)
    known = preflight_of(1.0, network="network 0", recipe=recipe)
    one, other = (
        Forecaster(updates, corpus=False).forecast(known, target=TARGET, from_scratch=False)
        for updates in (ended, long)
    )
    assert one.peak_accuracy.median == pytest.approx(0.73, abs=0.01)
    assert other.peak_accuracy.median == pytest.approx(one.peak_accuracy.median, abs=0.02)
    assert other.peak_accuracy.upper < 0.8


@pytest.mark.parametrize("ended", ["max_epochs", "plateau"])
def test_an_epoch_more_than_all_updates_had_is_no_leap(ended: Any) -> None:
    """Where they ended at 20 and below the target, the 21st brings nobody to it."""
    updates = [replace(u, curve=curve_of(0.7, 4.0, 20.0), ended=ended) for u in simulated(40)]
    others = [replace(u, curve=curve_of(0.9, 4.0, 60.0)) for u in simulated(40, seed=5)]
    forecaster = Forecaster(updates, corpus=others)
    peaks = []
    for epochs in (20, 21, 40):
        known = preflight_of(1.0, network="network 0", recipe=replace(RECIPE, max_epochs=epochs))
        told = forecaster.forecast(known, target=Accuracy(0.8), from_scratch=False)
        peaks.append(told.peak_accuracy.median)
        short = "No own update was trained for more than 20 epochs"
        assert any(note.startswith(short) for note in told.notes) is (epochs > 20)
    assert peaks[1] == pytest.approx(peaks[0], abs=0.01)
    assert peaks[2] == pytest.approx(peaks[0], abs=0.05)


def test_nothing_is_foretold_to_be_worse_than_chance(with_curves: Forecaster) -> None:
    """Of two classes a half, less what 300 examples may make of it."""
    fresh = replace(RECIPE, start="scratch")
    hard = preflight_of(9.0, network="never seen", recipe=fresh)
    peak = with_curves.expected(hard, target=TARGET).distributions["peak_accuracy"]
    assert peak.values.min() == pytest.approx(
        0.5 - 1.645 * math.sqrt(0.25 * (1 / 640 + 1 / 300)), abs=1e-3
    )


def test_an_address_is_no_history() -> None:
    with pytest.raises(InputError, match=r"history must be a History or updates; got 'sqlite:"):
        Forecaster("sqlite:///own.db")  # type: ignore[arg-type]


@pytest.mark.parametrize("curved", [0, 1, 5, 40])
def test_updates_without_a_curve_tell_of_the_peak(curved: int) -> None:
    """Whatever few of them have one; of an accuracy only those with a curve tell."""
    updates = [replace(u, curve=curve_of(u.peak_accuracy or 0.5, 2.0, 25.0)) if at < curved else u
               for at, u in enumerate(simulated(40))]  # fmt: skip
    found = Forecaster(updates, corpus=False).forecast(asked(1.0), target=TARGET)
    assert found.peak_accuracy.median == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.03)
    told = f"Own updates without a learning curve: {40 - curved} of 40."
    assert any(note.startswith(told) for note in found.notes) is (curved < 40)


def test_a_schedule_that_ends_with_the_epochs_is_told(with_curves: Forecaster) -> None:
    for schedule, told in (("constant", False), ("cosine", True)):
        recipe = replace(RECIPE, schedule=schedule)  # type: ignore[arg-type]
        found = with_curves.forecast(asked(1.0), target=TARGET, recipe=recipe, from_scratch=False)
        assert any("schedule ends with max_epochs" in note for note in found.notes) is told


def test_near_one_a_target_that_is_above_is_not_met(with_curves: Forecaster) -> None:
    """9,999 of 10,000 are not all of them, though both are as good as 1 as log odds."""
    known = asked(1.0)
    assert known.probe is not None
    seen = replace(known, probe=replace(known.probe, accuracy_before=0.9999))
    assert with_curves.expected(seen, target=Accuracy(1.0)).reaches_target == 0.0
    assert with_curves.expected(seen, target=Accuracy(0.9999)).reaches_target == 1.0


def test_no_peak_is_below_what_the_model_does_already(with_curves: Forecaster) -> None:
    """But for what another sample of the data may make of it: 300 examples in place of 640."""
    known = asked(1.0)
    able = replace(known, values={**known.values, "error_before": 0.1})
    found = with_curves.expected(able, target=TARGET).distributions["peak_accuracy"]
    differ = math.sqrt(0.09 * (1 / 640 + 1 / 300))
    assert found.values.min() == pytest.approx(0.9 - 1.645 * differ, abs=1e-4)
    fresh = replace(RECIPE, start="head")
    free = with_curves.expected(replace(able, recipe=fresh), target=TARGET)
    # That of a fresh one is that of chance.
    assert free.distributions["peak_accuracy"].values.min() < 0.8


def test_what_a_validation_saw_before_the_first_step_is_not_foretold(
    with_curves: Forecaster,
) -> None:
    """At 0.63 of the validation data 0.63 is met without a step, and 0.64 is not."""
    known = asked(1.0)
    assert known.probe is not None
    seen = replace(known, probe=replace(known.probe, accuracy_before=0.63))
    met = with_curves.expected(seen, target=Accuracy(0.63))
    assert met.reaches_target == 1.0
    assert met.distributions["epochs"].values.max() == 0.0
    more = with_curves.expected(seen, target=Accuracy(0.64))
    assert more.reaches_target > 0.9
    assert more.distributions["epochs"].values.min() >= RECIPE.validation_interval
    able = replace(known, probe=replace(known.probe, accuracy_before=0.95))
    best = with_curves.expected(able, target=TARGET).distributions["peak_accuracy"]
    assert best.values.min() == pytest.approx(0.95)
    # Of a fresh classifier it says nothing: that is another one at its start.
    fresh = replace(RECIPE, start="head")
    free = with_curves.forecast(able, target=TARGET, recipe=fresh, from_scratch=False)
    assert free.peak_accuracy.lower < 0.95


def test_an_interval_that_says_nothing_says_so(with_curves: Forecaster) -> None:
    """All that the recipe allows; what is narrower says nothing of that kind."""
    told = "is all that the recipe allows"
    recipe = replace(RECIPE, max_epochs=4.0)
    known = preflight_of(1.0, network="network 0", recipe=recipe)
    noise = Forecaster(
        [
            replace(u, curve=curve_of(0.95 if at % 2 else 0.55, 0.1, 25.0))
            for at, u in enumerate(simulated(60))
        ],
        corpus=False,
    )
    found = noise.forecast(known, target=Accuracy(0.8))
    assert (found.epochs.lower, found.epochs.upper) == (0.5, 4.0)
    assert told in found.notes[0]
    for recipe, target in (
        (RECIPE, TARGET),
        # One epoch is all there is, and sure.
        (replace(RECIPE, max_epochs=0.5), Accuracy(0.8)),
        (replace(RECIPE, max_epochs=3), TARGET),
    ):
        sure = with_curves.forecast(asked(1.0), recipe=recipe, target=target)
        assert not any(told in note for note in sure.notes)
    shortest = replace(RECIPE, max_epochs=8)
    wide = Forecaster(simulated(40, noise=4.0), corpus=False)
    found = wide.forecast(asked(1.0), recipe=shortest, target=TARGET)
    assert (found.epochs.lower, found.epochs.upper) == (TARGET.patience, 8.0)
    assert told in found.notes[0]


def test_from_scratch_is_told_beside_it(forecaster: Forecaster) -> None:
    found = forecaster.forecast(asked(1.0), target=TARGET, confidence_level=0.5)
    assert found.from_scratch is not None
    assert found.from_scratch.recipe.start == "scratch"
    assert found.from_scratch.from_scratch is None
    assert any("another recipe" in note for note in found.from_scratch.notes)
    fresh = asked(1.0)
    fresh = replace(fresh, recipe=replace(fresh.recipe, start="scratch"))
    assert forecaster.forecast(fresh, target=TARGET, confidence_level=0.5).from_scratch is None


def test_it_is_json_and_words(forecaster: Forecaster) -> None:
    found = forecaster.forecast(asked(1.0), target=TARGET, grid="FRA", from_scratch=False)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"median", "lower", "upper", "unit"} == set(told["epochs"])
    assert told["epochs"]["unit"] == "epochs"
    assert told["duration_s"]["unit"] == "s"
    assert 0 <= told["reaches_target"] <= 1
    assert told["signature"]["weights"] == "0123456789abcdef"
    assert "90% intervals" in str(found)
    assert str(found.track_record) in str(found)


def test_the_same_history_gives_the_same_forecast() -> None:
    one, other = (
        Forecaster(simulated(40), corpus=False).forecast(asked(0.5), target=TARGET).to_dict()
        for _ in range(2)
    )
    assert one == other


def test_an_update_that_is_in_the_corpus_too_counts_once() -> None:
    updates = simulated(30)
    assert len(Experience(updates[:10], updates[10:]).updates) == 30
    assert len(Forecaster(updates[:10], corpus=updates).experience.updates) == 30


def test_epochs_end_with_a_validation(forecaster: Forecaster) -> None:
    updates = [replace(u, curve=curve_of(0.9, 2.0, 20.0)) for u in simulated(40)]
    for target in (TARGET, Accuracy(0.8)):
        found = Forecaster(updates, corpus=False).forecast(
            asked(0.0), target=target, recipe=replace(RECIPE, validation_interval=1.0)
        )
        told = (found.epochs.lower, found.epochs.median, found.epochs.upper)
        assert all(epochs == int(epochs) for epochs in told)


def test_updates_that_ended_at_their_accuracy_tell_of_it() -> None:
    """All of them reached 0.8 and stopped: of more they know nothing, of 0.8 they do."""
    updates = []
    for update in simulated(40, networks=1):
        pace = 2.0 * math.exp(0.3 * math.log(update.epochs))
        curve = curve_of(0.95, pace, 40.0)
        end = next(at for at, point in enumerate(curve) if point.accuracy >= 0.8)
        updates.append(
            replace(
                update, curve=curve[: end + 1], target=Accuracy(0.8), ended="target",
                epochs=curve[end].epoch, peak_accuracy=curve[end].accuracy,
            )
        )  # fmt: skip
    forecaster = Forecaster(updates, corpus=False)
    found = forecaster.forecast(asked(0.0), target=Accuracy(0.8), from_scratch=False)
    assert found.reaches_target > 0.9
    assert found.epochs.median == pytest.approx(np.median([u.epochs for u in updates]), rel=0.3)


def test_without_a_track_record_it_says_so() -> None:
    updates = [replace(u, curve=curve_of(0.7, 2.0, 20.0)) for u in simulated(40)]
    found = Forecaster(updates, corpus=False).forecast(
        asked(0.0), target=Accuracy(0.99), from_scratch=False
    )
    assert found.track_record.updates == 0
    assert found.track_record.epochs_error is None
    assert "no known update met such a target" in str(found.track_record)
    json.dumps(found.to_dict(), allow_nan=False)


def test_own_updates_never_forbid_a_level_that_all_of_them_support() -> None:
    """They weigh more than others; 60 updates support 95 %, whoever's they are."""
    others = simulated(60, seed=1)
    for several in (0, 3, 10, 20):
        own = simulated(several, seed=2)
        found = Forecaster(own, corpus=others).forecast(
            asked(0.0), target=TARGET, confidence_level=0.95, from_scratch=False
        )
        assert math.isfinite(found.epochs.upper)


def test_an_accuracy_that_comes_late_is_foretold() -> None:
    """All reach 0.9 at epoch 66 of 200: 0.95 - 0.45 exp(-e / 30)."""
    updates = [
        replace(u, curve=curve_of(0.95, 30.0, 100.0), ended="max_epochs", peak_accuracy=0.94)
        for u in simulated(40, networks=1)
    ]
    found = Forecaster(updates, corpus=False).forecast(
        asked(0.0), target=Accuracy(0.9), from_scratch=False
    )
    assert found.reaches_target > 0.9
    # Between 64 and 100 epochs the curve is taken to be straight.
    assert found.epochs.median == pytest.approx(66, rel=0.1)
    assert any("for more than 100 epochs" in note for note in found.notes)


def test_more_than_can_be_told_apart_from_all_is_not_reached() -> None:
    """The best accuracy known is that of 999 of 1,000; the target is beyond."""
    updates = [
        replace(u, curve=curve_of(0.999, 1.0, 40.0), peak_accuracy=0.999) for u in simulated(40)
    ]
    found = Forecaster(updates, corpus=False).forecast(
        asked(0.0), target=Accuracy(0.9999), from_scratch=False
    )
    assert found.reaches_target < 0.05


def test_updates_that_nobody_looked_at_before_inform_by_what_they_say_themselves() -> None:
    """Without a pre-flight, and without a recipe: their network's effect is still learned."""
    updates = simulated(40, networks=1)
    bare = [replace(u, preflight=None, recipe=None, curve=()) for u in updates[:20]]
    known = Forecaster([*bare, *updates[20:]], corpus=False)
    found = known.forecast(asked(0.0), target=TARGET, from_scratch=False)
    assert found.epochs.median == pytest.approx(3 + math.exp(1.2), rel=0.5)
    unknown = known.experience.rows.unknown
    assert (unknown["task"][:20] > unknown["task"][20:]).all()


def test_a_plateau_is_not_met_before_its_patience(forecaster: Forecaster) -> None:
    # So easy an update that some of what may come lies below the patience.
    short = replace(RECIPE, max_epochs=2.0)
    found = forecaster.forecast(asked(-8.0), target=TARGET, recipe=short, from_scratch=False)
    assert found.reaches_target == 0.0
    assert found.epochs.upper == 2.0


def test_joules_of_another_meter_say_nothing() -> None:
    """Own updates took twice the joules that their probes foretold, by a meter of their own."""
    updates = []
    for update in simulated(30, networks=1, joules_per_step=3.0):
        curve = curve_of(0.9, 2.0, 20.0)
        foretold = update.steps * 3.0 + len(curve) * 3.0
        energy = reading_of(2 * foretold, meter="replay 1")
        updates.append(replace(update, curve=curve, energy=energy, duration_s=foretold / 30))
    experience = Experience(updates, ())
    assert experience.over_probe("joules", "replay 1").median() == pytest.approx(2.0)
    assert experience.over_probe("joules", "another 1").median() == pytest.approx(1.0)
    assert experience.over_probe("seconds").median() == pytest.approx(1.0)


def test_updates_that_shared_the_machine_say_nothing_of_time() -> None:
    updates = [
        replace(u, curve=curve_of(0.9, 2.0, 20.0), duration_s=1000.0, concurrency=4)
        for u in simulated(30)
    ]
    assert Experience(updates, ()).over_probe("seconds").values.tolist() == [1.0]


def test_another_constant_is_outside_too(forecaster: Forecaster) -> None:
    """All known updates have 640 examples."""
    found = forecaster.forecast(asked(0.0, examples=64_000), target=TARGET, from_scratch=False)
    assert any("training_examples" in n for n in found.notes if n.startswith("Beyond"))
    usual = forecaster.forecast(asked(0.0), target=TARGET, from_scratch=False)
    assert _width(found) > _width(usual)


def test_another_batch_size_is_refused(forecaster: Forecaster) -> None:
    with pytest.raises(InputError, match="batches of 32; got batch_size=512"):
        forecaster.forecast(asked(0.0), target=TARGET, recipe=replace(RECIPE, batch_size=512))


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "alike"), [(("cats", "dogs"), True), (("0", "1"), False), (("0", "dogs"), True)]
)
def test_data_are_alike_by_the_names_of_their_classes(
    names: tuple[str, ...], *, alike: bool
) -> None:
    """Bare numbers name nothing: then what prepares the data tells them apart as well."""
    groups = set()
    for preprocessing in ("bytes / 255", "(bytes / 255 - 0.5) / 0.5"):
        told = preflight_of(1.0).to_dict()
        told["data"]["class_names"] = told["signature"]["class_names"] = names
        told["signature"]["preprocessing"] = preprocessing
        groups.add(known_before(told).groups[DATA])
    assert (len(groups) == 1) is alike


def test_no_update_at_all() -> None:
    with pytest.raises(InputError, match="the history is empty, and the corpus is not used"):
        Forecaster([], corpus=False)


def test_a_history_of_one_update() -> None:
    one = Forecaster(simulated(1), corpus=False)
    with pytest.raises(InputError, match="None of the 1 known updates tells enough"):
        one.forecast(asked(0.0), target=TARGET)


def test_all_censored() -> None:
    updates = simulated(40, level=4.0, most_epochs=4.0)
    assert not any(update.reached for update in updates)
    with pytest.raises(InputError, match="None of the 40 known updates tells enough"):
        Forecaster(updates, corpus=False).forecast(asked(0.0), target=TARGET)


def test_predictors_that_are_all_the_same() -> None:
    one = simulated(1)[0]
    same = [
        replace(update, preflight=one.preflight, signature=one.signature)
        for update in simulated(40, slope=0.0, networks=1)
    ]
    found = Forecaster(same, corpus=False).forecast(asked(0.0), target=TARGET, from_scratch=False)
    assert found.epochs.median == pytest.approx(3 + math.exp(1.2), rel=0.25)


def test_a_target_above_anything_seen(forecaster: Forecaster) -> None:
    updates = [replace(u, curve=curve_of(u.peak_accuracy or 0.5, 2.0, 20.0)) for u in simulated(40)]
    best = max(u.peak_accuracy or 0.0 for u in updates)
    found = Forecaster(updates, corpus=False).forecast(
        asked(0.0), target=Accuracy(0.999), from_scratch=False
    )
    assert f"No known update has reached 0.999; the best {best:g}." in found.notes
    assert found.reaches_target < 0.1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target": 0.9}, r"Accuracy or a Plateau; got 0\.9"),
        ({"confidence_level": 1.0}, r"above 0 and below 1; got 1\.0"),
        ({"confidence_level": -0.1}, r"above 0 and below 1; got -0\.1"),
        ({"seconds_per_step": 0.0}, r"seconds_per_step must be above 0; got 0\.0"),
        ({"joules_per_step": math.nan}, "joules_per_step must be above 0; got nan"),
        ({"grid": "FRX"}, "FRX"),
        ({"preflight": {"values": {}}}, "must be a Preflight, .*got dict"),
    ],
)
def test_impossible_arguments(forecaster: Forecaster, options: dict[str, Any], told: str) -> None:
    given = {"preflight": asked(0.0), "target": TARGET} | options
    with pytest.raises(InputError, match=told):
        forecaster.forecast(given.pop("preflight"), **given)


def test_joules_of_a_machine_whose_seconds_nobody_knows(forecaster: Forecaster) -> None:
    with pytest.raises(InputError, match="joules_per_step needs seconds_per_step, or a probe"):
        forecaster.forecast(asked(0.0, seconds_per_step=None), target=TARGET, joules_per_step=3.0)


# --- distributions -----------------------------------------------------------------------------


def test_quantiles_count_the_update_to_come() -> None:
    """Of 19 values the greatest is the 95 % bound; of 18 there is none."""
    nineteen = Distribution(np.arange(19.0), np.ones(19))
    assert (nineteen.quantile(0.05), nineteen.quantile(0.95)) == (0.0, 18.0)
    eighteen = Distribution(np.arange(18.0), np.ones(18))
    assert math.isnan(eighteen.quantile(0.05))
    assert math.isnan(eighteen.quantile(0.95))


def test_quantiles_cover_new_values_of_the_same_kind() -> None:
    """Exchangeable values: at least 90 % of 4,000, less four binomial standard errors, 0.019."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(4000):
        *past, new = rng.normal(size=31)
        known = Distribution(np.array(past), np.ones(30))
        hits += known.quantile(0.05) <= new <= known.quantile(0.95)
    assert hits / 4000 >= 0.9 - 0.019


def test_weights_are_how_often_a_value_counts() -> None:
    values = np.array([1.0, 2.0, 3.0])
    weighted = Distribution(values, np.array([20.0, 30.0, 10.0]))
    repeated = Distribution(np.repeat(values, [20, 30, 10]), np.ones(60))
    for share in (0.05, 0.3, 0.6, 0.95):
        assert weighted.quantile(share) == repeated.quantile(share)
    assert weighted.median() == repeated.median() == 2.0
    assert weighted.share_below(2.0) == pytest.approx(50 / 60)


def test_a_product_with_an_independent_number() -> None:
    ones = Distribution(np.array([1.0, 2.0]), np.ones(2))
    found = ones.times(Distribution(np.array([10.0]), np.array([7.0])))
    assert sorted(found.values) == [10.0, 20.0]
    assert found.weights.sum() == pytest.approx(7.0)


def test_a_target_of_a_plateau_is_never_met_before_its_patience(forecaster: Forecaster) -> None:
    found = forecaster.forecast(asked(-5.0), target=Plateau(3, 0.002), from_scratch=False)
    assert found.epochs.lower >= 3.0
