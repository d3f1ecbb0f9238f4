"""The probe: what it leaves alone, and what it says of a training step."""

from __future__ import annotations

import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import resque
from resque import InputError, Plateau, Recipe
from resque.measure import probe as module
from resque.measure.backend import Gauge
from resque.measure.energy import Meter
from resque.measure.measures import gradient_norm, parameter_change
from resque.measure.probe import Spread, probe
from resque.measure.retrain import retrain

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


class ConstantPower:
    """A counter of 20 W, by the clock: the joules of any window are known."""

    name = "constant power"
    missing: tuple[str, ...] = ()
    longest_gap_s: float | None = None
    gauges = (Gauge(name="cpu", source="counter", relative_error=0.05, why="a test"),)

    def read(self) -> Mapping[str, float]:
        return {"cpu": 20 * time.perf_counter()}

    def close(self) -> None:
        pass


class Slow(nn.Module):
    """A classifier whose calls take 5 ms, and its first ones far longer."""

    def __init__(self, first_s: float = 0.0, n_first: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.first_s, self.n_first, self.calls = first_s, n_first, 0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.first_s if self.calls < self.n_first else 0.005)
        self.calls += 1
        return self.layer(x)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not go on for two seconds."""
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.05)


@pytest.mark.usefixtures("_short")
def test_nothing_of_the_users_is_touched() -> None:
    """Model, mode, flags, optimiser, order of the data and random states: as they were."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).eval()
    model[0].bias.requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters())
    model(X).sum().backward()
    optimiser.step()
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, generator=generator)
    states: Callable[[], list[Any]] = lambda: [  # noqa: E731
        copy.deepcopy(model.state_dict()),
        copy.deepcopy(optimiser.state_dict()),
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
        [p.requires_grad for p in model.parameters()],
        [part.training for part in model.modules()],
        generator.get_state(),
        torch.get_rng_state(),
        np.random.get_state()[1],  # noqa: NPY002
        random.getstate(),
    ]
    before = states()
    probe(model, loader, loader, meter="none")
    torch.testing.assert_close(states()[:3], before[:3], rtol=0, atol=0)
    assert before[3:5] == states()[3:5]
    for expected, actual in zip(before[5:8], states()[5:8], strict=True):
        assert (np.asarray(expected) == np.asarray(actual)).all()
    assert before[8] == states()[8]


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("start", ["weights", "head", "scratch"])
def test_its_first_steps_are_those_of_the_training_to_come(start: Any) -> None:
    """One epoch of 8 steps of `retrain` has the same mean loss and gradient norm, dropout too."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 2))
    recipe = Recipe(start=start, batch_size=8, max_epochs=1, seed=4)
    found = probe(model, (X, Y), recipe=recipe, steps=7, warmup=1, meter="none")
    update = retrain(
        model, (X, Y), (X + 1e-3, Y), target=Plateau(9), recipe=recipe, meter="none"
    ).update
    last = update.curve[-1]
    assert statistics.fmean(found.losses) == pytest.approx(last.training_loss, rel=1e-12)
    assert found.gradient_norm == pytest.approx(update.gradient_norm, rel=1e-12)
    assert found.parameter_change == update.parameter_change


@pytest.mark.usefixtures("_short")
def test_its_losses_are_those_of_a_loop_by_hand() -> None:
    """Plain SGD on the whole data, where there is no order."""
    model = nn.Linear(6, 2)
    recipe = Recipe(optimiser="sgd", momentum=0, learning_rate=0.3, batch_size=64)
    found = probe(model, (X, Y), recipe=recipe, steps=5, warmup=2, meter="none")
    by_hand = copy.deepcopy(model)
    start = {name: p.detach().clone() for name, p in by_hand.named_parameters()}
    losses, norms = [], []
    for _ in range(7):
        by_hand.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(X), Y)
        loss.backward()
        losses.append(loss.item())
        norms.append(gradient_norm(by_hand.parameters()).item())
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter.sub_(0.3 * parameter.grad)
    assert found.losses == pytest.approx(losses, rel=1e-5)  # another order of sums
    assert found.gradient_norm_first == pytest.approx(norms[0], rel=1e-5)
    assert found.gradient_norm == pytest.approx(statistics.fmean(norms), rel=1e-5)
    assert found.loss_slope == pytest.approx(np.polyfit(range(7), losses, 1)[0], rel=1e-4)
    change = parameter_change(start, dict(by_hand.named_parameters()))
    assert change is not None
    assert found.parameter_change == pytest.approx(change.value, rel=1e-4)


def test_seconds_and_joules_are_those_of_the_clock_and_the_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step sleeps 5 ms and a validation of two batches twice that, at 20 W."""
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.2)
    with Meter(ConstantPower()) as meter:
        found = probe(
            Slow(), (X, Y), (X.repeat(5, 1), Y.repeat(5)), steps=10, warmup=1, meter=meter
        )
        assert 0 <= meter.start_window("still open").stop().seconds
    assert found.steps >= 10
    assert found.joules_per_step is not None
    assert found.seconds_per_validation is not None
    assert found.joules_per_validation is not None
    # A busy machine can only make a step longer.
    assert 0.005 <= found.seconds_per_step.least
    assert found.seconds_per_step.median < 0.03
    assert 0.01 <= found.seconds_per_validation.least
    per = found.seconds_per_step, found.joules_per_step
    assert per[1].median == pytest.approx(20 * per[0].median, rel=0.02)
    for spread in (*per, found.seconds_per_validation, found.joules_per_validation):
        assert spread.least <= spread.median <= spread.greatest
    assert found.energy.joules == pytest.approx(20 * found.energy.seconds, rel=0.02)
    assert not found.modelled


@pytest.mark.usefixtures("_short")
def test_the_warm_up_is_not_timed() -> None:
    """Three first steps of 1 s leave no trace in steps of 5 ms, nor does a busy machine."""
    found = probe(Slow(first_s=1.0, n_first=3), (X, Y), steps=5, warmup=3, meter="none")
    assert found.seconds_per_step.greatest < 0.9
    assert 3 == found.warmup
    assert 8 == len(found.losses)


def test_slow_first_steps_do_not_make_the_probe_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough steps for the seconds wanted are timed, judged by the later steps of the warm-up."""
    # By the mean of the whole warm-up four steps would do; by its later half some 150, and still
    # more than ten if a busy machine makes a step take 50 ms.
    monkeypatch.setattr(module, "_LEAST_SECONDS", 1.0)
    with Meter(ConstantPower()) as meter:
        found = probe(Slow(first_s=0.5, n_first=2), (X, Y), steps=5, warmup=4, meter=meter)
    assert found.energy.seconds > 0.1
    assert found.steps > 10


def test_the_accuracy_before_is_that_of_the_update_to_come() -> None:
    """Of the untouched model, whatever the steps of the probe do; nothing without data for it."""
    torch.manual_seed(0)
    model, recipe = nn.Linear(6, 2), Recipe(learning_rate=0.5, max_epochs=1)
    found = probe(model, (X, Y), (X[:40], Y[:40]), recipe=recipe, meter="none")
    right = (model(X[:40]).argmax(1) == Y[:40]).float().mean().item()
    assert found.accuracy_before == pytest.approx(right)
    made = retrain(
        model, (X, Y), (X[:40], Y[:40]), recipe=recipe, target=Plateau(1), meter="none"
    ).update
    assert found.accuracy_before == made.accuracy_before
    assert probe(model, (X, Y), recipe=recipe, meter="none").accuracy_before is None


def test_without_a_meter_no_more_steps_are_made_than_asked_for() -> None:
    """Only a counter needs seconds; the clock does not."""
    assert probe(nn.Linear(6, 2), (X, Y), steps=7, meter="none").steps == 7


@pytest.mark.usefixtures("_short")
def test_the_probe_is_told_in_words_and_as_json() -> None:
    """Without a meter there are no joules, and that is said."""
    found = probe(nn.Linear(6, 2), (X, Y), (X, Y), meter="none")
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["joules_per_step"] is None
    assert told["seconds_per_step"]["median"] == found.seconds_per_step.median
    assert "no J: too short for the meter, or no meter" in str(found)
    assert found.joules_per_validation is None


@pytest.mark.parametrize(("steps", "warmup"), [(4, 5), (20, 0)])
def test_too_few_steps_are_refused(steps: int, warmup: int) -> None:
    """Blocks need steps, and the first step is never timed."""
    with pytest.raises(InputError, match=f"got {steps} and {warmup}"):
        probe(nn.Linear(6, 2), (X, Y), steps=steps, warmup=warmup, meter="none")


@pytest.mark.usefixtures("_short")
def test_a_loss_that_is_no_number_is_an_error() -> None:
    """Nothing can be foretold from it, and the learning rate is named."""
    recipe = Recipe(optimiser="sgd", learning_rate=1e38)
    with pytest.raises(InputError, match=r"became nan within 25 steps.*\(1e\+38\)"):
        probe(nn.Linear(6, 2), (X, Y), recipe=recipe, meter="none")


def test_a_spread_by_hand() -> None:
    """The median of an even number lies between the two in the middle."""
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert (2.5, 1.0, 10.0) == (spread.median, spread.least, spread.greatest)


def test_it_is_public() -> None:
    """`resque.probe` is the function."""
    assert resque.probe is probe
