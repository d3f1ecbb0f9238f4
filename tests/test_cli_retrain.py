"""`resque retrain` on small images: what is trained, printed, kept, and refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import resque
from resque.cli import main
from resque.measure.retrain import _Loop

CLASSES = ("apple", "leaf", "sky")
HISTORY = "sqlite:///resque.db"
QUICK = ("--meter", "none", "--learning-rate", "0.05", "--max-epochs", "20")
SIZE = ("--image-size", "8", "--mean", "0.5", "--std", "0.5")

Retrain = Callable[..., tuple[int, str, str]]


def network() -> nn.Module:
    """A network that has learnt nothing, always the same one."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A module with the network's factory, and an empty working directory."""
    module = ModuleType("zoo")
    module.network = network
    monkeypatch.setitem(sys.modules, "zoo", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("RESQUE_HISTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Images by class, each strongest in the channel of its class: to train on, to validate."""
    for seed, name in enumerate(("new", "held-out")):
        rng = np.random.default_rng(seed)
        for place in range(36):
            label = place % 3
            pixels = 50 + 120 * np.eye(3)[label] + rng.integers(-40, 41, (8, 8, 3))
            home = tmp_path / name / CLASSES[label]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / f"{place:02}.png")
    return "new", "held-out"


@pytest.fixture
def retrain(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> Retrain:
    """Run the command on the folders; its exit status, stdout and stderr."""

    def run(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["retrain", *folders, "--model", "zoo:network", *SIZE, *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_an_update_is_measured_printed_and_kept(retrain: Retrain) -> None:
    """The update on stdout is the one in the history; the best weights are in the file."""
    words = (*QUICK, "--accuracy", "0.9", "--grid", "FRA", "--label", "shift=none", "--json")
    status, out, err = retrain(*words, "-o", "w.safetensors")
    assert status == 0
    found = json.loads(out)
    assert found["reached"]
    assert found["peak_accuracy"] >= 0.9
    assert found["labels"] == {"shift": "none"}
    assert found["signature"]["class_names"] == list(CLASSES)
    assert found["signature"]["preprocessing"] == "size 8x8 (bilinear), mean 0.5, std 0.5"
    assert found["data"]["training_examples"] == found["data"]["validation_examples"] == 36
    assert f"update {found['id'][:8]} added to sqlite:///" in err
    with resque.History(HISTORY) as history:
        assert history.get(found["id"]).to_dict() == found
    assert set(load_file("w.safetensors")) == set(network().state_dict())


def test_the_same_as_the_library(retrain: Retrain, tmp_path: Path) -> None:
    """The command's recipe and data give the measures that the library gives for them."""
    out = retrain(*QUICK, "--patience", "2", "--validation-interval", "0.5", "--json")[1]
    found = json.loads(out)
    sides = []
    for name in ("new", "held-out"):
        images, labels = [], []
        for label, home in enumerate(CLASSES):
            for file in sorted((tmp_path / name / home).iterdir()):
                pixels = torch.from_numpy(np.array(Image.open(file)))
                images.append((pixels.permute(2, 0, 1).float() / 255 - 0.5) / 0.5)
                labels.append(label)
        sides.append((torch.stack(images), torch.tensor(labels)))
    recipe = resque.Recipe(learning_rate=0.05, max_epochs=20, validation_interval=0.5)
    update = resque.retrain(
        network(), *sides, target=resque.Plateau(2), recipe=recipe, meter="none"
    ).update
    for name in ("epochs", "steps", "accuracy_before", "peak_accuracy", "ended"):
        assert getattr(update, name) == found[name], name
    # Resizing images to the size they have may round each pixel once more.
    assert update.gradient_norm == pytest.approx(found["gradient_norm"], rel=1e-4)


def test_an_update_that_misses_its_target_is_no_error(retrain: Retrain) -> None:
    """It is censored, said to be so, and kept."""
    words = ("--meter", "none", "--learning-rate", "1e-6", "--max-epochs", "1")
    status, out, _ = retrain(*words, "--accuracy", "1.0")
    assert status == 0
    assert "censored (max epochs)" in out
    with resque.History(HISTORY) as history:
        assert [update.reached for update in history] == [False]


def test_a_fresh_classifier_and_fresh_weights(retrain: Retrain) -> None:
    """Where training starts is in the record."""
    for start in ("head", "scratch"):
        status, out, _ = retrain(*QUICK, "--accuracy", "0.6", "--start", start, "--json")
        assert status == 0
        assert json.loads(out)["recipe"]["start"] == start


def test_the_index_before_training_is_recorded(retrain: Retrain, folders: tuple[str, str]) -> None:
    """With the profile of the old data the update holds RESQUE_dist to the new ones."""
    words = ["--model", "zoo:network", *SIZE]
    assert main(["profile", folders[1], *words, "-o", "before.safetensors"]) == 0
    found = json.loads(
        retrain(*QUICK, "--accuracy", "0.6", "--before", "before.safetensors", "--json")[1]
    )
    assert found["index"]["index"] == "RESQUE_dist"
    assert 0 < found["index"]["value"] < 1
    assert found["index"]["signature"]["model"] == "network"


def test_an_interrupted_update_goes_on(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C says how to go on; the same command does, and ends as if nothing had been."""
    words = (*QUICK, "--patience", "3", "--json")
    whole = json.loads(retrain(*words, "--history", "sqlite:///other.db")[1])
    validate, calls = _Loop._validate, []

    def interrupted(loop: _Loop) -> None:
        calls.append(loop)
        if len(calls) == 4:
            raise KeyboardInterrupt
        validate(loop)

    with monkeypatch.context() as patch:
        patch.setattr(_Loop, "_validate", interrupted)
        status, out, err = retrain(*words, "--checkpoint", "run.ckpt")
    assert (status, out) == (130, "")
    assert err.endswith(
        "resque: interrupted; the same command goes on from the last whole epoch, in 'run.ckpt'\n"
    )
    status, out, _ = retrain(*words, "--checkpoint", "run.ckpt")
    resumed = json.loads(out)
    assert status == 0
    assert resumed["interruptions"] == 1
    for name in ("epochs", "steps", "peak_accuracy", "gradient_norm", "parameter_change"):
        assert whole[name] == resumed[name], name
    assert not Path("run.ckpt").exists()


def test_a_history_that_cannot_be_written_is_known_before_training(retrain: Retrain) -> None:
    """No time is spent on an update that would have no place."""
    Path("resque.db").write_bytes(b"no database at all" * 100)
    status, out, err = retrain(*QUICK, "--accuracy", "0.6", "--json")
    assert (status, out) == (2, "")
    assert "resque.db" in err


def test_a_history_that_fails_at_the_end_loses_nothing(
    retrain: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update is in a file that can be imported, and so are the weights."""

    def full(history: resque.History, update: resque.Update) -> bool:
        raise resque.InputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(resque.History, "add", full)
        status, out, err = retrain(*QUICK, "--accuracy", "0.6", "--json", "-o", "w.safetensors")
    found = json.loads(out)
    rescued = f"resque-update-{found['id'][:8]}.jsonl"
    assert status == 2
    assert f"The disk is full. The update is in {rescued!r}: `resque history import`" in err
    assert Path("w.safetensors").exists()
    assert main(["history", "import", rescued]) == 0
    with resque.History(HISTORY) as history:
        assert history.get(found["id"]).to_dict() == found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--accuracy", "92"), "at most 1; got 92.0. For 92 % say 0.92."),
        (("--accuracy", "0.9", "--patience", "3"), "--accuracy and --patience are two targets"),
        (("--start", "sratch"), "got 'sratch'. Did you mean 'scratch'?"),
        (("--optimiser", "lion"), "optimiser must be one of adam, adamw, sgd; got 'lion'."),
        (("--grid", "FR"), "FRA"),
        (("--meter", "codecarbn"), "Did you mean 'codecarbon'?"),
        (("--label", "blur"), "--label must be KEY=VALUE, such as shift=blur; got 'blur'."),
        (("--history", "runs.db"), "sqlite:///runs.db"),
        (("-o", "nowhere/w.safetensors"), "There is no folder 'nowhere'"),
        (("--before", "gone.safetensors"), "There is nothing at 'gone.safetensors'."),
        (("--max-epochs", "0"), "max_epochs must be a number above 0; got 0.0."),
        (("--before", "new.npz"), "'new.npz' is no profile (.safetensors); make one with"),
        (("--pue", "1.2"), "--pue says something of a grid; name it with --grid."),
    ],
)
def test_bad_options_are_met_at_the_door(
    retrain: Retrain, words: tuple[str, ...], expected: str
) -> None:
    """One line of cause and cure, exit status 2, and nothing trained or written."""
    np.savez("new.npz", representations=np.eye(3), labels=np.arange(3))
    status, out, err = retrain(*words)
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert not Path("resque.db").exists()


def test_a_model_must_be_named(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no default model to retrain."""
    assert main(["retrain", *folders]) == 2
    expected = "resque: error: Which model is retrained? Name it with --model.\n"
    assert expected == capsys.readouterr().err


def test_other_classes_than_outputs(retrain: Retrain, tmp_path: Path) -> None:
    """A folder with a class that the model has no output for asks for a fresh classifier."""
    for side in ("new", "held-out"):
        (tmp_path / side / "apple").rename(tmp_path / side / "pear")
        (tmp_path / side / "zebra").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / side / "zebra" / "0.png")
    status, _, err = retrain(*QUICK)
    assert status == 2
    assert "--start head" in err
    assert retrain(*QUICK, "--start", "head", "--accuracy", "0.5")[0] == 0


def test_an_interrupted_update_without_a_checkpoint(
    retrain: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told how the next one could go on."""

    def interrupted(loop: _Loop) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Loop, "_validate", interrupted)
    status, out, err = retrain(*QUICK)
    assert (status, out) == (130, "")
    expected = "nothing was written; with --checkpoint FILE the same command could go on\n"
    assert err.endswith(f"resque: interrupted; {expected}")


def test_momentum_is_an_option(retrain: Retrain) -> None:
    """The optimiser's momentum is chosen and recorded."""
    words = (*QUICK, "--optimiser", "sgd", "--momentum", "0.5", "--accuracy", "0.5", "--json")
    assert json.loads(retrain(*words)[1])["recipe"]["momentum"] == 0.5
