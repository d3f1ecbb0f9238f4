"""The recorder of a loop: what it measures, against closed forms, and how an update ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import resque
from resque.errors import InputError
from resque.history.records import Accuracy, DataSizes, Grid, Plateau, Recipe
from resque.history.update import Update
from resque.measure.backend import Gauge
from resque.measure.energy import Meter
from resque.measure.measures import gradient_norm
from resque.measure.recorder import Recorder, recording, sizes_of
from resque.measure.replay import replay_meter
from resque.representation.tap import weights_digest

# 100 examples in batches of 32: three whole ones and one of 4.
SIZES = DataSizes(
    training_examples=100, validation_examples=20, batch_size=32, steps_per_epoch=4, classes=2
)
RATE = 0.25
KEPT = 1 - RATE


class Bowl(nn.Module):
    """Parameters whose loss is half their squared length, so that the gradient is themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Parameter(torch.full((4,), 2.0))
        self.short = nn.Parameter(torch.tensor([3.0]))

    def forward(self) -> Tensor:
        return (self.long.square().sum() + self.short.square().sum()) / 2


START_NORM = 5.0  # sqrt(4 * 2^2 + 3^2)


@pytest.fixture
def bowl() -> Bowl:
    return Bowl()


def stepped(model: Bowl, recorder: Recorder, steps: int, *, rate: float = RATE) -> None:
    """Take steps of plain gradient descent: each leaves 1 - rate of every parameter."""
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = model()
        loss.backward()
        recorder.step(loss)
        optimiser.step()


def recorded(model: nn.Module, **options: Any) -> Any:
    return recording(model, **{"data": SIZES, "meter": "none"} | options)


# --- measures against closed forms --------------------------------------------------------------


def test_gradient_norm_of_a_bowl(bowl: Bowl) -> None:
    """Step t has the norm 5 * 0.75^t: a geometric series, and its last term per validation."""
    with recorded(bowl) as recorder:
        for _ in range(2):
            stepped(bowl, recorder, 4)
            recorder.validation(0.5)
    update = recorder.update
    assert START_NORM * (1 - KEPT**8) / (8 * RATE) == pytest.approx(update.gradient_norm)
    last = [START_NORM * KEPT**3, START_NORM * KEPT**7]
    assert sum(last) / 2 == pytest.approx(update.gradient_norm_last_batch)
    assert last == pytest.approx([point.gradient_norm_last_batch for point in update.curve])
    means = [START_NORM * (1 - KEPT**4) / (4 * RATE) * KEPT**start for start in (0, 4)]
    assert means == pytest.approx([point.gradient_norm for point in update.curve])


def test_parameter_change_of_a_bowl(bowl: Bowl) -> None:
    """Everything has moved by 1 - 0.75^8 of itself; a tensor of one value counts as much."""
    with recorded(bowl) as recorder:
        for _ in range(2):
            stepped(bowl, recorder, 4)
            recorder.validation(0.5)
    update, moved = recorder.update, 1 - KEPT**8
    assert START_NORM * moved / math.sqrt(5) == pytest.approx(update.parameter_change)
    assert (2 + 3) / 2 * moved == pytest.approx(update.parameter_change_published)
    assert {"long": 2 * moved, "short": 3 * moved} == pytest.approx(
        update.parameter_change_per_tensor
    )
    last = update.curve[-1]
    since_last = KEPT**4 - KEPT**8
    assert START_NORM * since_last / math.sqrt(5) == pytest.approx(last.parameter_change_since_last)
    assert 2.5 * since_last == pytest.approx(last.parameter_change_published_since_last)
    assert update.parameter_change == last.parameter_change


def test_training_loss_of_a_bowl(bowl: Bowl) -> None:
    """The loss of step t is 12.5 * 0.75^(2t); a point has the mean since the one before."""
    with recorded(bowl) as recorder:
        stepped(bowl, recorder, 2)
        recorder.validation(0.5)
        stepped(bowl, recorder, 2)
        recorder.validation(0.5, 0.25)
    means = [12.5 * (KEPT ** (2 * t) + KEPT ** (2 * t + 2)) / 2 for t in (0, 2)]
    assert means == pytest.approx([point.training_loss for point in recorder.points])
    assert [None, 0.25] == [point.validation_loss for point in recorder.points]


def test_a_real_loop_agrees_with_torch(mlp: nn.Module, labelled: Any) -> None:
    """Norm and change are those of torch's own clipping and of a subtraction at the end."""
    inputs, labels = map(torch.as_tensor, labelled)
    before = nn.utils.parameters_to_vector(mlp.parameters()).detach().clone()
    optimiser, norms = torch.optim.Adam(mlp.parameters(), 0.01), []
    with recorded(mlp) as recorder:
        for batch in torch.arange(240).split(32):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(mlp(inputs[batch]), labels[batch])
            loss.backward()
            recorder.step(loss)
            norms.append(nn.utils.clip_grad_norm_(mlp.parameters(), math.inf).item())
            optimiser.step()
    after = nn.utils.parameters_to_vector(mlp.parameters()).detach()
    assert sum(norms) / 8 == pytest.approx(recorder.update.gradient_norm)
    expected = (after - before).square().mean().sqrt().item()
    assert expected == pytest.approx(recorder.update.parameter_change)


def test_frozen_parameters_do_not_count(bowl: Bowl) -> None:
    """Norm and change are those of what is trained."""
    bowl.short.requires_grad_(False)
    with recorded(bowl) as recorder:
        stepped(bowl, recorder, 1)
    update = recorder.update
    assert (5, 4) == (update.parameters, update.trained_parameters)
    assert pytest.approx(4.0) == update.gradient_norm
    assert pytest.approx(2 * RATE) == update.parameter_change


def test_a_norm_from_before_clipping_is_taken(bowl: Bowl) -> None:
    """A loop that clips gives the norm that clipping returned."""
    with recorded(bowl) as recorder:
        bowl().backward()
        norm = nn.utils.clip_grad_norm_(bowl.parameters(), 1.0)
        recorder.step(norm=norm)
        recorder.step()
    assert (START_NORM + 1) / 2 == pytest.approx(recorder.update.gradient_norm, rel=1e-5)


def test_overflowed_gradients_are_left_out(bowl: Bowl) -> None:
    """A gradient scaler skips those steps; the mean is that of the others."""
    with recorded(bowl) as recorder:
        for norm in (math.inf, 2.0, math.nan, 4.0):
            recorder.step(norm=torch.tensor(norm))
        recorder.validation(0.5)
    assert 3.0 == recorder.update.gradient_norm
    assert 3.0 == recorder.points[0].gradient_norm
    assert 4 == recorder.update.steps


def test_a_loop_that_tells_no_loss(bowl: Bowl) -> None:
    """Its points have none, not 0."""
    with recorded(bowl) as recorder:
        recorder.step()
        recorder.validation(0.5)
    assert recorder.points[0].training_loss is None


# --- epochs, steps, examples --------------------------------------------------------------------


def test_epochs_are_counted_in_fractions(bowl: Bowl) -> None:
    """Six steps of four are one epoch and a half, and 168 of 100 examples an epoch."""
    with recorded(bowl) as recorder:
        recorder.validation(0.1)
        for _ in range(3):
            stepped(bowl, recorder, 2)
            recorder.validation(0.5)
    assert [0.0, 0.5, 1.0, 1.5] == [point.epoch for point in recorder.points]
    assert [0, 2, 4, 6] == [point.steps for point in recorder.points]
    update = recorder.update
    assert (1.5, 6, 100 + 64) == (update.epochs, update.steps, update.examples_seen)


def test_a_loop_may_count_examples_and_epochs_itself(bowl: Bowl) -> None:
    """What it says is taken."""
    with recorded(bowl) as recorder:
        recorder.step(examples=7)
        recorder.step(examples=8)
        recorder.validation(0.5, epoch=0.125)
    assert (0.125, 15) == (recorder.update.epochs, recorder.update.examples_seen)


def test_steps_after_the_last_validation_count(bowl: Bowl) -> None:
    """Where a loop ends between validations, epochs and parameter change are those of its end."""
    with recorded(bowl) as recorder:
        stepped(bowl, recorder, 1)
        recorder.validation(0.5)
        stepped(bowl, recorder, 1)
    update = recorder.update
    assert (0.5, "max_epochs", False) == (update.epochs, update.ended, update.reached)
    assert START_NORM * (1 - KEPT**2) / math.sqrt(5) == pytest.approx(update.parameter_change)


def test_a_loop_without_validation(bowl: Bowl) -> None:
    """There is no accuracy then, but all other measures are there."""
    with recorded(bowl) as recorder:
        stepped(bowl, recorder, 4)
    update = recorder.update
    assert update.accuracy_before is None
    assert update.peak_accuracy is None
    assert update.gradient_norm_last_batch is None
    assert START_NORM * (1 - KEPT**4) / math.sqrt(5) == pytest.approx(update.parameter_change)


def test_a_loop_without_steps(bowl: Bowl) -> None:
    """Nothing was trained, and nothing has changed."""
    with recorded(bowl) as recorder:
        pass
    update = recorder.update
    assert (0, 0.0, None, 0.0) == (
        update.steps, update.epochs, update.gradient_norm, update.parameter_change,
    )  # fmt: skip


# --- how an update ends -------------------------------------------------------------------------


def validated(model: Bowl, recorder: Recorder, accuracies: list[float]) -> list[bool]:
    """Validate twice an epoch and return what each validation said."""
    said = []
    for accuracy in accuracies:
        stepped(model, recorder, 2)
        said.append(recorder.validation(accuracy))
    return said


def test_an_accuracy_is_met_in_fractions_of_an_epoch(bowl: Bowl) -> None:
    """At the first validation that shows it; the peak is the greatest until then."""
    with recorded(bowl, target=Accuracy(0.8)) as recorder:
        recorder.validation(0.3, 1.5)
        assert [False, False, True] == validated(bowl, recorder, [0.7, 0.6, 0.8])
    update = recorder.update
    assert (1.5, "target", True) == (update.epochs, update.ended, update.reached)
    assert (0.3, 1.5) == (update.accuracy_before, update.loss_before)
    assert (0.8, 1.5) == (update.peak_accuracy, update.peak_epoch)


def test_a_plateau_is_met_after_its_patience(bowl: Bowl) -> None:
    """One epoch without a rise of more than min_delta, counted from the last such rise."""
    with recorded(bowl, target=Plateau(patience=1, min_delta=0.05)) as recorder:
        assert [False] * 3 + [True] == validated(bowl, recorder, [0.5, 0.6, 0.64, 0.65])
    update = recorder.update
    assert (2.0, "plateau", True) == (update.epochs, update.ended, update.reached)
    assert (0.65, 2.0) == (update.peak_accuracy, update.peak_epoch)


def test_a_target_met_before_training_costs_nothing(bowl: Bowl) -> None:
    """Zero epochs, said so."""
    with recorded(bowl, target=Accuracy(0.8)) as recorder:
        assert recorder.validation(0.9)
    update = recorder.update
    assert (0.0, 0, True, 0.0) == (
        update.epochs, update.steps, update.reached, update.parameter_change,
    )  # fmt: skip
    assert any("already reaches 0.9000" in note and "zero epochs" in note for note in update.notes)


def test_what_comes_after_the_end_changes_nothing(bowl: Bowl) -> None:
    """A loop may train on when its target is met; the update is that of the moment."""
    meter, _ = watt_meter()
    with recorded(bowl, target=Accuracy(0.8), meter=meter) as recorder:
        stepped(bowl, recorder, 2)
        recorder.validation(0.8)
        before = recorder.update
        stepped(bowl, recorder, 2)
        recorder.validation_begins()
        assert recorder.validation(0.1)
        recorder.step(torch.tensor(math.nan))
    assert before == recorder.update


def test_a_loss_that_is_no_number_ends_the_block(bowl: Bowl) -> None:
    """Without an exception, with a note, and with the measures until then."""
    reached = []
    with recorded(bowl, target=Accuracy(0.8)) as recorder:
        stepped(bowl, recorder, 2)
        recorder.validation(0.5)
        stepped(bowl, recorder, 1)
        recorder.step(bowl() * math.nan)
        reached.append("behind the loss")
    assert [] == reached
    update = recorder.update
    assert ("diverged", False, 4) == (update.ended, update.reached, update.steps)
    assert any(note.startswith("The loss was no number after 4 steps") for note in update.notes)
    # The weights still were numbers then: the fourth step was not taken.
    assert START_NORM * (1 - KEPT**3) / math.sqrt(5) == pytest.approx(update.parameter_change)
    assert update == Update.from_dict(update.to_dict())


def test_weights_that_are_no_numbers_end_the_block(bowl: Bowl) -> None:
    """Also where every loss until then was finite; no NaN gets into the record."""
    with recorded(bowl) as recorder:
        stepped(bowl, recorder, 1, rate=math.inf)
        recorder.validation(0.5, math.nan)
        pytest.fail("the block went on")
    update = recorder.update
    assert ("diverged", None, {}) == (
        update.ended, update.parameter_change, update.parameter_change_per_tensor,
    )  # fmt: skip
    assert [None] == [point.validation_loss for point in update.curve]
    assert update == Update.from_dict(update.to_dict())


def test_an_exception_goes_through(bowl: Bowl) -> None:
    """The update is there all the same, as interrupted."""
    record = recorded(bowl)
    recorder = record.__enter__()
    stepped(bowl, recorder, 3)
    assert not record.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    update = recorder.update
    assert ("interrupted", False, 0.75) == (update.ended, update.reached, update.epochs)
    assert START_NORM * (1 - KEPT**3) / math.sqrt(5) == pytest.approx(update.parameter_change)


def test_a_meter_of_the_recorder_is_closed_and_one_of_the_user_is_not(bowl: Bowl) -> None:
    """Whoever opens a meter closes it."""
    meter, _ = watt_meter()
    with recorded(bowl, meter=meter):
        pass
    with meter.window("still open"):
        pass
    with recorded(bowl) as recorder:
        pass
    with pytest.raises(InputError, match="'none' is closed"):
        recorder.meter.start_window("closed")


# --- energy -------------------------------------------------------------------------------------


def watt_meter(step_s: float = 0.0) -> tuple[Meter, Callable[[float], None]]:
    """A meter of 100 W in steps of a quarter of a second, and what lets time go by."""
    now = [0.0]
    trace = [(tick / 4, {"cpu": 25.0 * tick}) for tick in range(1000)]

    def passes(seconds: float) -> None:
        now[0] += seconds

    return replay_meter(trace, step_s=step_s, clock=lambda: now[0]), passes


def test_energy_of_training_and_validation(bowl: Bowl) -> None:
    """8 s of training and 3 s of validation at 100 W; what went before costs nothing."""
    meter, passes = watt_meter()
    with recorded(bowl, meter=meter, grid=Grid(grams_per_kwh=360.0, name="test")) as recorder:
        passes(5)
        recorder.validation_begins()
        passes(1)
        recorder.validation(0.1)
        for _ in range(2):
            passes(4)
            stepped(bowl, recorder, 1)
            recorder.validation_begins()
            recorder.validation_begins()  # once more is as good as once
            passes(1.5)
            recorder.validation(0.5)
    update = recorder.update
    assert update.energy is not None
    assert update.training_energy is not None
    assert update.validation_energy is not None
    assert (1100.0, 800.0, 300.0) == (
        update.energy.joules, update.training_energy.joules, update.validation_energy.joules,
    )  # fmt: skip
    assert 11.0 == update.duration_s
    assert pytest.approx(1100 / 3.6e6 * 0.36) == update.carbon_kg
    assert [None, (5.5, 550.0), (5.5, 550.0)] == [
        point.seconds and (point.seconds, point.joules) for point in update.curve
    ]


def test_validation_that_is_not_announced_is_not_told_apart(bowl: Bowl) -> None:
    """Its energy is in the total all the same."""
    meter, passes = watt_meter()
    with recorded(bowl, meter=meter) as recorder:
        stepped(bowl, recorder, 1)
        passes(4)
        recorder.validation(0.5)
    update = recorder.update
    assert update.energy is not None
    assert 400.0 == update.energy.joules
    assert update.training_energy is None
    assert update.validation_energy is None


@pytest.mark.parametrize(("step_s", "expected"), [(1.0, 200.0), (2.0, None)])
def test_validations_add_up(bowl: Bowl, step_s: float, expected: float | None) -> None:
    """Two of a second each are 200 J, if the counter moves in a second; else unknown, never 0."""
    meter, passes = watt_meter(step_s=step_s)
    with recorded(bowl, meter=meter) as recorder:
        for _ in range(2):
            stepped(bowl, recorder, 1)
            passes(4)
            recorder.validation_begins()
            passes(1)
            recorder.validation(0.5)
    update = recorder.update
    assert update.energy is not None
    assert update.validation_energy is not None
    assert (1000.0, expected) == (update.energy.joules, update.validation_energy.joules)


def test_the_end_stops_the_meter(bowl: Bowl) -> None:
    """What a loop does after its target is met is not billed."""
    meter, passes = watt_meter()
    with recorded(bowl, meter=meter, target=Accuracy(0.5)) as recorder:
        stepped(bowl, recorder, 1)
        passes(4)
        recorder.validation(0.5)
        passes(100)
    assert recorder.update.energy is not None
    assert (4.0, 400.0) == (recorder.update.duration_s, recorder.update.energy.joules)


# --- interruption -------------------------------------------------------------------------------


def test_a_resumed_recorder_goes_on(bowl: Bowl) -> None:
    """All measures are those of a run in one go; the interruption is counted."""
    with recorded(bowl) as recorder:
        recorder.validation(0.1)
        stepped(bowl, recorder, 3)
        recorder.validation(0.5)
        stepped(bowl, recorder, 1)
        state, weights = recorder.state(), {k: v.clone() for k, v in bowl.state_dict().items()}
        stepped(bowl, recorder, 2)
        recorder.validation(0.6)
    whole = recorder.update
    again = Bowl()
    with recorded(again) as recorder:
        again.load_state_dict(weights)
        recorder.resume(state)
        stepped(again, recorder, 2)
        recorder.validation(0.6)
    update = recorder.update
    assert 1 == update.interruptions
    same = [
        "started", "epochs", "steps", "examples_seen", "gradient_norm", "gradient_norm_last_batch",
        "parameter_change", "parameter_change_published", "parameter_change_per_tensor",
        "accuracy_before", "peak_accuracy", "signature",
    ]  # fmt: skip
    for name in same:
        assert getattr(whole, name) == getattr(update, name), name
    for expected, actual in zip(whole.curve, update.curve, strict=True):
        assert replace(expected, seconds=None) == replace(actual, seconds=None)


def test_an_update_killed_in_its_first_moment_keeps_its_energy(bowl: Bowl) -> None:
    """A checkpoint of no time at all holds no joules yet, and spoils none of those that follow."""
    meter, passes = watt_meter(step_s=0.5)
    with recorded(bowl, meter=meter) as recorder:
        recorder.validation(0.1)
        state = json.loads(json.dumps(recorder.state() | {"last": {}}))
    state["last"] = {name: p.detach().clone() for name, p in bowl.named_parameters()}
    meter, passes = watt_meter(step_s=0.5)
    with recorded(bowl, meter=meter) as recorder:
        passes(3)  # of set-up, before the training goes on
        recorder.resume(state)
        stepped(bowl, recorder, 1)
        passes(4)
        recorder.validation_begins()
        passes(1)
        recorder.validation(0.5)
    update = recorder.update
    assert update.energy is not None
    assert update.training_energy is not None
    assert (5.0, 500.0, True) == (update.duration_s, update.energy.joules, update.energy.resumed)
    assert 400.0 == update.training_energy.joules
    assert (5.0, 500.0) == (update.curve[-1].seconds, update.curve[-1].joules)


def test_an_update_goes_on_with_the_meter_that_it_was_begun_with(bowl: Bowl) -> None:
    """Joules of a counter and of none are not added; the message names both."""
    meter, _ = watt_meter()
    with recorded(bowl, meter=meter) as recorder:
        recorder.validation(0.1)
        state = recorder.state()
    message = r"begun with replay.* \(cpu by counter\) on .*; this is none \(no energy\)"
    with pytest.raises(InputError, match=message), recorded(bowl) as recorder:
        recorder.resume(state)


class Broken:
    """A driver that fails after the first few readings."""

    name, missing, longest_gap_s = "broken 1", (), None
    gauges = (Gauge(name="cpu", source="counter", relative_error=0.05, why="a test"),)

    def __init__(self, good: int) -> None:
        self.good = good

    def read(self) -> dict[str, float]:
        self.good -= 1
        if self.good < 0:
            raise OSError("the driver has gone")
        return {"cpu": 100.0 - self.good}

    def close(self) -> None:
        pass


def test_a_meter_that_fails_ends_no_training(bowl: Bowl) -> None:
    """Its joules are unknown, the update says why, and all else is there."""
    with recorded(bowl, meter=Meter(Broken(6))) as recorder:
        recorder.validation(0.1)
        stepped(bowl, recorder, 2)
        recorder.validation(0.5)
    update = recorder.update
    assert 2 == update.steps
    assert update.energy_kwh is None
    assert "The meter failed on the way (OSError: the driver has gone)" in update.notes[0]


def test_concurrent_updates_have_no_joules_anywhere(bowl: Bowl) -> None:
    """What a meter of the machine reads belongs to all of them; the reading itself is kept."""
    meter, passes = watt_meter()
    with recorded(bowl, meter=meter, concurrency=2) as recorder:
        stepped(bowl, recorder, 1)
        passes(4)
        recorder.validation(0.5)
    update = recorder.update
    assert update.energy is not None
    assert (None, None, 400.0) == (
        update.energy_kwh, update.curve[0].joules, update.energy.joules,
    )  # fmt: skip


def test_a_result_is_taken_for_its_plain_form(bowl: Bowl) -> None:
    """An index may be given as it is; what is no result is refused before the training."""
    table = torch.eye(4).repeat(4, 1).numpy(), torch.arange(16).numpy() % 2
    side = resque.profile(None, table)
    index = resque.shift_index(side, side)
    with recorded(bowl, index=index, labels={"run": 3}) as recorder:
        stepped(bowl, recorder, 1)
    assert recorder.update.index == json.loads(json.dumps(index.to_dict()))
    assert {"run": "3"} == recorder.update.labels
    assert Update.from_dict(recorder.update.to_dict()) == recorder.update
    with pytest.raises(InputError, match="index must be what `to_dict` of a result gives"):
        recorded(bowl, index=object()).__enter__()


@pytest.mark.parametrize("unscaled", [False, True])
def test_norms_of_a_loop_that_unscales_are_those_of_the_gradients(
    bowl: Bowl, unscaled: bool
) -> None:
    """The norm is that of the gradients which are there when the step is recorded."""
    norms = []
    with recorded(bowl) as recorder:
        for _ in range(5):
            bowl.zero_grad()
            (bowl() * (1024 if unscaled else 1)).backward()
            if unscaled:
                for parameter in bowl.parameters():
                    parameter.grad /= 1024
            norms.append(gradient_norm(bowl.parameters()).item())
            recorder.step()
            with torch.no_grad():
                for parameter in bowl.parameters():
                    parameter.sub_(0.1 * parameter.grad)
    assert recorder.update.gradient_norm == pytest.approx(sum(norms) / 5, rel=1e-6)


def test_a_state_between_epochs_leaves_the_energy_known(bowl: Bowl) -> None:
    """A checkpoint right after a validation is no window too short for the meter."""
    meter, passes = watt_meter(step_s=1.0)
    with recorded(bowl, meter=meter) as recorder:
        for _ in range(2):
            stepped(bowl, recorder, 1)
            passes(4)
            recorder.validation_begins()
            passes(2)
            recorder.validation(0.5)
            recorder.state()
    update = recorder.update
    assert update.training_energy is not None
    assert 800.0 == update.training_energy.joules


# --- the record ---------------------------------------------------------------------------------


def test_the_signature_is_that_before_training(bowl: Bowl) -> None:
    """Weights as they were, sizes of both data sets, and the words of the user."""
    digest = weights_digest(dict(bowl.named_modules()))
    with recorded(
        bowl,
        recipe=Recipe(seed=7, autocast="bfloat16"),
        model_name="bowl 5",
        preprocessing="none at all",
        concurrency=2,
        index={"value": 0.1},
        preflight={"loss": 1.0},
        labels={"shift": "blur"},
    ) as recorder:
        stepped(bowl, recorder, 4)
    update, signature = recorder.update, recorder.update.signature
    assert digest == signature.weights
    assert digest != weights_digest(dict(bowl.named_modules()))
    assert ("bowl 5", "none at all", (100, 20), 2, 7, "float32 (autocast bfloat16)") == (
        signature.model, signature.preprocessing, signature.examples, signature.width,
        signature.seed, signature.dtype,
    )  # fmt: skip
    assert (2, {"value": 0.1}, {"loss": 1.0}, {"shift": "blur"}) == (
        update.concurrency, update.index, update.preflight, update.labels,
    )  # fmt: skip


def test_classes_that_the_data_did_not_tell(bowl: Bowl) -> None:
    """The model's outputs stand in for them, and only then; the width is that of the outputs."""
    for told, expected in ((0, 3), (2, 2)):
        with recorded(bowl, data=replace(SIZES, classes=told)) as recorder:
            recorder.has_classes(3)
        update = recorder.update
        assert (expected, 3) == (update.data.classes, update.signature.width)


def loader(n: int = 10, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(n, 2), torch.arange(n) % 3), **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 4}, (10, 4, 3)),
        ({"batch_size": 4, "drop_last": True}, (8, 4, 2)),
        ({"batch_size": 4, "sampler": RandomSampler(range(10), num_samples=6)}, (6, 4, 2)),
        ({"batch_sampler": BatchSampler(range(10), 4, drop_last=False)}, (10, 4, 3)),
    ],
)
def test_sizes_of_a_loader(options: dict[str, Any], expected: tuple[int, int, int]) -> None:
    """Examples, batch size and steps of one epoch are what the loader will draw."""
    sizes = sizes_of(loader(**options), loader(7))
    assert expected == (sizes.training_examples, sizes.batch_size, sizes.steps_per_epoch)
    assert (7, 3, ()) == (sizes.validation_examples, sizes.classes, sizes.class_names)


def test_class_names_are_taken_from_where_they_are() -> None:
    """From the user, or from a data set that knows them."""
    sizes = sizes_of(loader(), None, ("a", "b", "c", "d"))
    assert (4, ("a", "b", "c", "d"), 0) == (
        sizes.classes, sizes.class_names, sizes.validation_examples,
    )  # fmt: skip
    unknown = DataLoader([(torch.zeros(2), 0), (torch.zeros(2), 1)])  # type: ignore[arg-type]
    assert (2, 0) == (sizes_of(unknown, None).training_examples, sizes_of(unknown, None).classes)
    known = loader()
    known.dataset.classes = ["x", "y", "z"]  # type: ignore[attr-defined]
    assert ("x", "y", "z") == sizes_of(known, None).class_names


# --- bad input ----------------------------------------------------------------------------------


def test_a_loader_without_a_length() -> None:
    """An epoch cannot be told; the message says what to give instead."""
    with pytest.raises(InputError, match=r"DataSizes\(\.\.\.\)\. Got generator and NoneType"):
        sizes_of((batch for batch in ()), None)
    with pytest.raises(InputError, match="no batches"):
        sizes_of(loader(3, batch_size=4, drop_last=True), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "1 or more; got 0"),
        ({"meter": "codecarbn"}, "no meter 'codecarbn'.*codecarbon"),
        ({"grid": -1.0}, "-1"),
    ],
)
def test_unusable_options(bowl: Bowl, options: dict[str, Any], message: str) -> None:
    """They are refused before anything is trained, with the value received."""
    with pytest.raises(InputError, match=message), recorded(bowl, **options):
        pytest.fail("the block was entered")


def test_models_that_cannot_be_recorded(bowl: Bowl) -> None:
    """No module, or one in which nothing is trained."""
    with pytest.raises(InputError, match=r"torch\.nn\.Module; got str"), recorded("resnet18"):
        pytest.fail("the block was entered")
    bowl.requires_grad_(False)
    with pytest.raises(InputError, match="each has requires_grad=False"), recorded(bowl):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("accuracy", [-0.1, 1.5, 92, math.nan])
def test_accuracies_that_are_none(bowl: Bowl, accuracy: float) -> None:
    """A percentage or NaN is refused with its value."""
    with (
        pytest.raises(InputError, match=f"must be 0 to 1; got {accuracy:g}"),
        recorded(bowl) as recorder,
    ):
        recorder.validation(accuracy)


def test_no_update_before_the_end(bowl: Bowl) -> None:
    """It is there after the block."""
    with recorded(bowl) as recorder, pytest.raises(InputError, match="has not ended"):
        recorder.update  # noqa: B018
    assert 0 == recorder.update.steps


@pytest.mark.parametrize("target", [0.9, "0.9", 90])
def test_a_target_is_no_number(bowl: Bowl, target: Any) -> None:
    """It is refused before any training, with what to say instead."""
    with pytest.raises(InputError, match="target must be an Accuracy or a Plateau; got ") as error:
        recording(bowl, data=SIZES, target=target, meter="none").__enter__()
    assert ("For an accuracy of 0.9 say Accuracy(0.9)." in str(error.value)) == (target == 0.9)


def test_steps_without_gradients_have_no_norm(bowl: Bowl) -> None:
    """A call before `backward`, or after `zero_grad`, is told of and reads no zero."""
    with recorded(bowl) as recorder:
        recorder.step()
        bowl().backward()
        recorder.step()
        bowl.zero_grad()
        recorder.step()
    update = recorder.update
    assert 3 == update.steps
    assert START_NORM == update.gradient_norm
    assert "call recorder.step between backward() and zero_grad()" in update.notes[0]
    assert 1 == sum("without a gradient" in note for note in update.notes)


def test_gradients_of_zeros_are_told_of(bowl: Bowl) -> None:
    """They count as what they are, and may be those that `zero_grad` has left."""
    with recorded(bowl) as recorder:
        bowl().backward()
        bowl.zero_grad(set_to_none=False)
        recorder.step()
    assert 0.0 == recorder.update.gradient_norm
    assert "or with one of zeros" in recorder.update.notes[0]


def test_an_update_without_a_validation_says_so(bowl: Bowl) -> None:
    """Whether it met its target was never looked at."""
    with recorded(bowl) as recorder:
        recorder.validation(0.1)
        stepped(bowl, recorder, 2)
    assert "No validation was recorded while it trained" in recorder.update.notes[0]
