"""What goes wrong while a model trains: interruptions, bad targets and data, losses, disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from resque import Accuracy, InputError, Plateau, Recipe
from resque.errors import ResqueWarning
from resque.history.update import Update
from resque.measure.backend import Gauge
from resque.measure.energy import Meter
from resque.measure.retrain import Retrained, retrain

LONG = Plateau(1000)
RECIPE = Recipe(batch_size=8, max_epochs=4, validation_interval=0.5, learning_rate=0.01, seed=5)


def data_of(seed: int, n: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0.2).long() + (x[:, 1] > 0.3).long()


TRAINING, VALIDATION = data_of(1, 48), data_of(2, 30)


class Interrupted(nn.Sequential):
    """A small network that sends a signal to its own process at one of its training steps."""

    def __init__(self, at_step: int = 0, sent: int = signal.SIGINT) -> None:
        torch.manual_seed(3)
        super().__init__(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )
        self.at_step, self.sent, self.calls = at_step, sent, 0

    def forward(self, x: Tensor) -> Tensor:
        stepping = torch.is_grad_enabled()
        self.calls += stepping
        if stepping and self.calls == self.at_step:
            os.kill(os.getpid(), self.sent)
        return super().forward(x)


class ConstantPower:
    """A counter of 20 W, by the clock."""

    name = "constant power"
    missing: tuple[str, ...] = ()
    longest_gap_s: float | None = None
    gauges = (Gauge(name="cpu", source="counter", relative_error=0.05, why="a test"),)

    def read(self) -> Mapping[str, float]:
        return {"cpu": 20 * time.perf_counter()}

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in the background."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


def trained(model: nn.Module | None = None, **options: Any) -> Retrained:
    chosen: dict[str, Any] = {
        "training": TRAINING,
        "validation": VALIDATION,
        "target": LONG,
        "recipe": RECIPE,
        "meter": "none",
        "model_name": "small",
    } | options
    return retrain(model or Interrupted(), **chosen)


def assert_same(expected: Retrained, actual: Retrained) -> None:
    """Weights and measures bit for bit; all but the clock and what it says of interruptions."""

    def measures(update: Update) -> dict[str, Any]:
        curve = tuple(replace(point, seconds=None, joules=None) for point in update.curve)
        return replace(
            update, started="", duration_s=0.0, energy=None, training_energy=None,
            validation_energy=None, interruptions=0, curve=curve,
        ).to_dict()  # fmt: skip

    assert measures(expected.update) == measures(actual.update)
    for name, tensor in expected.weights.items():
        assert torch.equal(tensor, actual.weights[name]), name


# ---- interruptions -----------------------------------------------------------------------------


LOADERS = {
    "arrays": lambda: TRAINING,
    "loader with a generator": lambda: DataLoader(
        TensorDataset(*TRAINING), batch_size=8, shuffle=True, generator=torch.Generator()
    ),
    "loader": lambda: DataLoader(TensorDataset(*TRAINING), batch_size=8, shuffle=True),
}


@pytest.mark.parametrize("form", LOADERS)
@pytest.mark.parametrize("at_step", [1, 9, 24])
def test_ctrl_c_in_an_epoch_loses_no_more_than_the_epoch(
    form: str, at_step: int, tmp_path: Path
) -> None:
    """At the first step, in the middle of the second epoch, and at the very last step."""
    file, training = tmp_path / "state.pt", LOADERS[form]
    with pytest.raises(KeyboardInterrupt):
        trained(Interrupted(at_step), training=training(), checkpoint=file)
    resumed = trained(training=training(), checkpoint=file)
    assert_same(trained(training=training()), resumed)
    assert 1 == resumed.update.interruptions
    assert [file] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, start="scratch", schedule="cosine", optimiser="sgd"),
        replace(RECIPE, start="head", frozen="body"),
        replace(RECIPE, autocast="bfloat16", optimiser="adamw", max_epochs=3.3),
    ],
)
def test_every_recipe_goes_on_as_if_nothing_had_been(recipe: Recipe, tmp_path: Path) -> None:
    """Schedules, momenta, fresh parts and frozen ones included; twice interrupted."""
    file = tmp_path / "state.pt"
    expected = trained(recipe=recipe)
    torch.manual_seed(1)
    for at_step in (8, 9):
        with pytest.raises(KeyboardInterrupt):
            trained(Interrupted(at_step), recipe=recipe, checkpoint=file)
    resumed = trained(recipe=recipe, checkpoint=file)
    assert_same(expected, resumed)
    assert 2 == resumed.update.interruptions


def test_kill_9_in_an_epoch_loses_no_more_than_the_epoch(tmp_path: Path) -> None:
    """Another process, killed without a chance to say goodbye."""
    file = tmp_path / "state.pt"
    script = f"""
        import sys, signal, torch
        torch.set_num_threads(1)
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_retrain_accidents import Interrupted, trained
        trained(Interrupted(15, signal.SIGKILL), checkpoint={str(file)!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False
    )
    assert -signal.SIGKILL == done.returncode, done.stderr.decode()
    resumed = trained(checkpoint=file)
    assert_same(trained(), resumed)
    assert 1 == resumed.update.interruptions


def test_the_energy_of_a_resumed_update_is_marked_and_leaves_out_the_time_between(
    tmp_path: Path,
) -> None:
    """20 W for as long as it trained, and not for the half second in which it did not."""
    file = tmp_path / "state.pt"
    with Meter(ConstantPower()) as meter:
        with pytest.raises(KeyboardInterrupt):
            trained(Interrupted(9), checkpoint=file, meter=meter)
        time.sleep(0.5)
        update = trained(checkpoint=file, meter=meter).update
        whole = trained(meter=meter).update
    assert update.energy is not None
    assert update.energy.resumed
    assert update.training_energy is not None
    assert update.training_energy.resumed
    assert update.energy.joules == pytest.approx(20 * update.duration_s, rel=0.02)
    assert update.duration_s < 0.5
    assert whole.energy is not None
    assert not whole.energy.resumed


def test_an_update_that_had_ended_is_only_read_again(tmp_path: Path) -> None:
    """The same update, by its id, without a step."""
    file = tmp_path / "state.pt"
    first = trained(checkpoint=file)
    model = Interrupted()
    again = trained(model, checkpoint=file)
    assert first.update == again.update
    assert first.update.id == again.update.id
    assert 0 == again.update.interruptions
    assert_same(first, again)


def test_an_update_that_cost_nothing_or_diverged_is_read_again_too(tmp_path: Path) -> None:
    """Whatever ended it."""
    for name, options in {
        "reached": {"target": Accuracy(0.01)},
        "diverged": {"recipe": replace(RECIPE, optimiser="sgd", learning_rate=1e38)},
    }.items():
        file = tmp_path / f"{name}.pt"
        ids = {trained(checkpoint=file, **options).update.id for _ in range(2)}
        assert 1 == len(ids)


def test_the_number_of_classes_survives_an_interruption(tmp_path: Path) -> None:
    """Where only the model's outputs tell it."""

    def loader() -> DataLoader[Any]:
        return DataLoader(list(zip(*TRAINING, strict=True)), batch_size=8)  # type: ignore[arg-type]

    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(Interrupted(9), training=loader(), checkpoint=file)
    resumed = trained(training=loader(), checkpoint=file)
    assert 3 == resumed.update.data.classes
    assert_same(trained(training=loader()), resumed)


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(RECIPE, learning_rate=0.02)},
        {"recipe": replace(RECIPE, seed=6)},
        {"target": Accuracy(0.99)},
        {"model": nn.Linear(6, 3)},
        {"training": data_of(4, 48)},
        {"validation": data_of(4, 30)},
    ],
    ids=["rate", "seed", "target", "model", "training", "validation"],
)
def test_a_checkpoint_of_another_update_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    """It would go on with what was never asked for."""
    file = tmp_path / "state.pt"
    trained(checkpoint=file, recipe=RECIPE)
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"state\.pt' is of another update"):
        trained(checkpoint=file, **other)
    assert before == file.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "flipped"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    """With what to do; it is not overwritten."""
    file = tmp_path / "state.pt"
    trained(checkpoint=file)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data/0")]
        middle = whole.index(archive.read(name)) + 100
    damaged = {
        "cut": whole[: len(whole) // 2],
        "garbage": b"something else",
        "empty": b"",
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }[damage]
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"state\.pt' cannot be read .* Delete it to start anew"):
        trained(checkpoint=file)
    assert damaged == file.read_bytes()


@pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, [1, 2], {"format": "other/1"}])
def test_a_file_of_something_else_is_no_checkpoint(content: Any, tmp_path: Path) -> None:
    """Weights under the same name, for instance."""
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt' is no checkpoint of resque"):
        trained(checkpoint=tmp_path / "state.pt")


class Runs:
    """What a pickle could run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickled object is refused, not made."""
    monkeypatch.chdir(tmp_path)
    torch.save({"format": Runs()}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="cannot be read"):
        trained(checkpoint=tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


# ---- disks -------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    save, writes = torch.save, []

    def refuse(*args: Any) -> None:
        writes.append(args)
        if len(writes) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args)

    monkeypatch.setattr(torch, "save", refuse)


def test_a_full_disk_at_the_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any training is lost."""
    full_disk(monkeypatch, after=0)
    with pytest.raises(InputError, match=r"state\.pt' could not be written: No space left"):
        trained(checkpoint=tmp_path / "state.pt")
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_later_is_a_warning_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is the same, the note says so, and the last whole checkpoint stays."""
    expected = trained()
    full_disk(monkeypatch, after=2)
    with pytest.warns(ResqueWarning, match="No checkpoint since epoch 1: .*No space left") as seen:
        result = trained(checkpoint=tmp_path / "state.pt")
    assert 1 == len(seen)
    assert expected.update.gradient_norm == result.update.gradient_norm
    assert result.update.notes[-1].endswith("Training went on.")
    monkeypatch.undo()
    resumed = trained(checkpoint=tmp_path / "state.pt")
    assert_same(expected, resumed)


def test_a_folder_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the model is touched, where that can be known."""
    with pytest.raises(InputError, match="There is no folder"):
        trained(checkpoint=tmp_path / "nowhere" / "state.pt")
    with pytest.raises(InputError, match="is a folder"):
        trained(checkpoint=tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="could not be written: Read-only file system"):
        trained(checkpoint=tmp_path / "state.pt")


# ---- targets -----------------------------------------------------------------------------------


def test_a_target_that_is_met_already_costs_nothing() -> None:
    """Zero epochs, said so, and the weights as they were."""
    model = Interrupted()
    result = trained(model, target=Accuracy(0.05), meter=Meter(ConstantPower()))
    update = result.update
    assert (True, "target", 0.0, 0) == (update.reached, update.ended, update.epochs, update.steps)
    assert (0.0, None) == (update.parameter_change, update.gradient_norm)
    (note,) = [note for note in update.notes if "already reaches" in note]
    assert f"already reaches {update.accuracy_before:.4f}" in note
    assert "(accuracy 0.05) cost nothing: zero epochs" in note
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, result.weights[name])


def test_a_target_out_of_reach_is_censored() -> None:
    """Recorded as such, never dropped."""
    update = trained(target=Accuracy(1.0), recipe=replace(RECIPE, learning_rate=1e-9)).update
    assert (False, "max_epochs", 4.0) == (update.reached, update.ended, update.epochs)
    assert "accuracy 1: censored (max epochs)" in str(update)


def test_a_target_above_one_is_refused_with_what_was_meant() -> None:
    """92 is 92 %."""
    with pytest.raises(InputError, match=r"at most 1; got 92\. For 92 % say 0\.92"):
        trained(target=Accuracy(92))


# ---- losses ------------------------------------------------------------------------------------


class Spoils(nn.Linear):
    """Gives NaN from one of its training steps on."""

    def __init__(self, at_step: int) -> None:
        torch.manual_seed(3)
        super().__init__(6, 3)
        self.at_step, self.calls = at_step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        spoilt = self.training and self.calls >= self.at_step
        return super().forward(x) * (torch.nan if spoilt else 1.0)


def test_a_loss_that_becomes_nan_ends_the_update_and_keeps_the_best_weights() -> None:
    """Recorded as diverged, with all before it; the weights are those of the best validation."""
    result = trained(Spoils(at_step=11))
    update = result.update
    assert (False, "diverged") == (update.reached, update.ended)
    assert 3 + 1 == len(update.curve)
    assert 11 == update.steps
    assert any("The loss was no number after 11 steps" in note for note in update.notes)
    assert all(tensor.isfinite().all() for tensor in result.weights.values())
    assert Update.from_dict(update.to_dict()) == update
    with torch.no_grad():
        best = nn.functional.linear(
            VALIDATION[0], result.weights["weight"], result.weights["bias"]
        ).argmax(1)
    right = (best == VALIDATION[1]).float().mean().item()
    assert right == pytest.approx(update.peak_accuracy)


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.0])
def test_weights_that_become_nan_are_no_result(interval: float) -> None:
    """A step too far, seen by the next loss or by the next validation, whichever comes first."""
    recipe = replace(
        RECIPE, optimiser="sgd", learning_rate=1e38, batch_size=8, validation_interval=interval
    )
    result = trained(recipe=recipe)
    assert "diverged" == result.update.ended
    assert all(tensor.isfinite().all() for tensor in result.weights.values())
    assert Update.from_dict(result.update.to_dict()) == result.update


def test_a_loss_that_is_nan_before_training_is_an_error() -> None:
    """The data or the weights are broken, and no training mends that."""
    broken = VALIDATION[0].clone()
    broken[4, 2] = torch.nan
    with pytest.raises(InputError, match="loss on the validation data is nan before any training"):
        trained(validation=(broken, VALIDATION[1]))


# ---- models and data that do not fit -----------------------------------------------------------


def test_validation_data_with_unseen_classes_are_refused() -> None:
    """Nothing could learn them."""
    x, y = VALIDATION
    with pytest.raises(InputError, match=r"have 1 class that the training data lack: 3\."):
        trained(validation=(x, y.where(y < 2, 3)))


def test_shared_examples_are_told_in_the_update() -> None:
    """The note travels with the numbers that it makes doubtful."""
    update = trained(validation=TRAINING).update
    assert update.notes[0].startswith("48 of the validation examples are training examples too")
    assert "warning: 48 of the validation examples" in str(update)


def test_labels_beyond_the_outputs_are_refused_before_training() -> None:
    """Even where the validation data have none of them."""
    x, y = TRAINING
    model = Interrupted()
    with pytest.raises(InputError, match=r"Label 7 has no output: the model has 3.*--start head"):
        trained(model, training=(x, torch.cat([y[:-1], torch.tensor([7])])))
    assert 0 == model.calls


def test_names_and_outputs_that_differ_in_number_are_refused() -> None:
    """Which output is which class would be a guess."""
    names = ("ant", "bee", "cat", "dog")
    with pytest.raises(InputError, match="has 3 outputs and the data have 4 classes, 'ant' to"):
        trained(class_names=names)
    assert 4 == trained(class_names=names, recipe=replace(RECIPE, start="head")).update.data.classes


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Identity(), "no parameter that is trained"),
        (nn.Linear(6, 3).requires_grad_(False), "each has requires_grad=False"),
        (nn.Unflatten(1, (2, 3)), "no parameter that is trained"),
        (nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, (2, 3))), "The model returned a Tensor"),
        (nn.Linear(7, 3), r"could not be run on a batch of \(30, 6\)"),
        ("resnet18", "must be a torch.nn.Module; got str"),
    ],
)
def test_models_that_cannot_be_trained_say_why(model: Any, message: str) -> None:
    """No parameters, none that is free, no scores, other inputs, or no model at all."""
    with pytest.raises(InputError, match=message):
        trained(model)


class Late(Dataset[Any]):
    """A data set that goes wrong after a while."""

    def __init__(self, labels: list[Any], width: int) -> None:
        self.labels_, self.width = labels, width

    def __len__(self) -> int:
        return len(self.labels_)

    def __getitem__(self, place: int) -> Any:
        label = self.labels_[place]
        x = torch.zeros(self.width if place >= 16 else 6)
        return x if label is None else (x, label)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Late([0] * 16 + [9] * 8, 6), "Label 9 has no output: the model has 3"),
        (Late([0] * 24, 5), r"could not be run on a batch of \(8, 5\)"),
        (Late([None] * 24, 6), "The data have no labels"),
        (Late([0.5] * 24, 6), "Labels must be integers; got float64"),
    ],
)
def test_data_that_go_wrong_in_a_later_batch_say_so(dataset: Late, message: str) -> None:
    """Not as a traceback from inside torch."""
    with pytest.raises(InputError, match=message):
        trained(nn.Linear(6, 3), training=DataLoader(dataset, batch_size=8))


def test_a_fresh_head_needs_the_number_of_classes() -> None:
    """A data set that does not tell its labels is not read for them."""
    with pytest.raises(InputError, match=r"not known before the first epoch; give class_names"):
        trained(
            training=DataLoader(Late([0] * 24, 6), batch_size=8),
            recipe=replace(RECIPE, start="head"),
        )


def test_a_model_that_cannot_be_copied_is_told() -> None:
    """One that keeps a tensor with a history, for instance."""
    model = nn.Linear(6, 3)
    model.kept = model(TRAINING[0])  # type: ignore[assignment]
    with pytest.raises(InputError, match="The model cannot be copied"):
        trained(model)
