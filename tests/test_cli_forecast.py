"""`resque forecast`: from data, profiles and saved pre-flights; its view, its gate, bad input."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import resque
from forecasts import VALUES, forecast_of
from resque.cli import main
from resque.forecasting.preflight import Preflight
from resque.history.records import DataSizes, Grid
from resque.history.update import Point, Update
from resque.reporting.terminal import forecast_view
from resque.representation import models
from updates import update_of

CLASSES = ("apple", "leaf", "sky")
SIZE = ("--image-size", "8", "--mean", "0.5", "--std", "0.5")
MODEL = ("--model", "zoo:network", *SIZE, "--meter", "none")
# Whatever the size of the corpus, it supports such an interval.
HALF = ("--confidence-level", "0.5")
OWN = ("--no-corpus", "--history", "sqlite:///own.db", *HALF, "--accuracy", "0.7")

Forecast = Callable[..., tuple[int, str, str]]


def network() -> nn.Module:
    """A network that has learnt nothing, always the same one."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (36, 8, 8, 3) of bytes, each strongest in the channel of its class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(36) % 3
    pixels = 50 + 20 * seed + 120 * np.eye(3)[labels][:, None, None]
    return (pixels + rng.integers(-40, 41, (36, 8, 8, 3))).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def known() -> Preflight:
    """A pre-flight with a timed validation, and no meter."""
    sides = []
    for seed in range(3):
        pixels, labels = images(seed)
        inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        sides.append((inputs, torch.from_numpy(labels)))
    return resque.preflight(
        network(), sides[1], before=sides[0], validation=sides[2], meter="none", progress=False,
        class_names=CLASSES,
    )  # fmt: skip


def updates(n: int = 24) -> list[Update]:
    """Updates to a plateau, after one to four epochs, of networks and data of several sizes."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(n):
        epochs = 1 + number % 4
        examples = int(rng.integers(30, 90))
        rise = rng.uniform(0.2, 0.4)
        curve = tuple(
            Point(
                epoch=float(epoch), steps=4 * epoch, accuracy=0.55 + rise * epoch / epochs,
                validation_loss=1.0, gradient_norm=1.0 + rng.uniform() if epoch else None,
                parameter_change=1e-3 * epoch if epoch else None, seconds=1.0 if epoch else None,
            )
            for epoch in range(epochs + 1)
        )  # fmt: skip
        made.append(
            update_of(
                number=number, curve=curve, epochs=float(epochs), duration_s=float(epochs),
                target=resque.Plateau(1), ended="plateau",
                accuracy_before=0.55, peak_accuracy=0.55 + rise,
                recipe=resque.Recipe(), parameters=int(rng.integers(500, 900)),
                data=DataSizes(
                    training_examples=examples, validation_examples=36, batch_size=32,
                    steps_per_epoch=2, classes=2 + number % 3, class_names=CLASSES[: 2 + number % 3]
                ),
            )
        )  # fmt: skip
    return made


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
def folders() -> tuple[str, str, str]:
    """Images by class: those that the model knows, those to train on, those to validate with."""
    names = ("old", "new", "held-out")
    for seed, name in enumerate(names):
        for place, (pixels, label) in enumerate(zip(*images(seed), strict=True)):
            home = Path(name) / CLASSES[label]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(home / f"{place:02}.png")
    return names


@pytest.fixture
def saved(known: Preflight) -> Preflight:
    """The pre-flight in known.json, and own updates in own.db."""
    known.save("known.json")
    with resque.History("sqlite:///own.db") as history:
        for update in updates():
            history.add(update)
    return known


@pytest.fixture
def forecast(capsys: pytest.CaptureFixture[str]) -> Forecast:
    """Run the command; its exit status, stdout and stderr."""

    def run(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["forecast", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# --- from data, from a profile, from a pre-flight ------------------------------------------------


def test_from_data(forecast: Forecast, folders: tuple[str, str, str]) -> None:
    """The forecast is that of the library for the pre-flight that was saved beside it."""
    old, new, held_out = folders
    words = (new, held_out, "--before", old, *MODEL, "--save-preflight", "known.json")
    status, out, err = forecast(*words, *HALF, "--accuracy", "0.8", "--max-epochs", "7", "--json")
    assert status == 0
    assert err == f"no own updates: there is no history at sqlite:///{Path.cwd()}/resque.db yet\n"
    assert not Path("resque.db").exists()
    known = resque.load_preflight("known.json")
    assert known.data.training_examples == 36
    assert known.signature.class_names == CLASSES
    assert known.signature.preprocessing == "size 8x8 (bilinear), mean 0.5, std 0.5"
    assert known.probe is not None
    assert known.probe.seconds_per_validation is not None
    assert known.values["mmd"] is not None
    expected = resque.forecast(known, target=resque.Accuracy(0.8), confidence_level=0.5)
    found = json.loads(out)
    assert found["recipe"]["max_epochs"] == 7
    assert found == json.loads(json.dumps(expected.to_dict() | {"budget": None}))


def test_from_a_profile_of_the_old_data(
    forecast: Forecast, folders: tuple[str, str, str], known: Preflight
) -> None:
    """The old data need not be there; the model is read as it was for the profile."""
    old, new, _ = folders
    words = ("--model", "zoo:network", *SIZE, "--layer", "1", "--pooling", "mean")
    assert main(["profile", old, *words, "--groups", "8", "-o", "old.safetensors"]) == 0
    words = (new, "--before", "old.safetensors", *MODEL, "--save-preflight", "known.json")
    status, out, err = forecast(*words, *HALF)
    assert status == 0, err
    found = resque.load_preflight("known.json")
    assert (found.signature.layer, found.signature.pooling) == ("1", "mean")
    assert found.values["RESQUE_dist"] is not None
    assert found.values["mmd"] is None
    assert found.values["accuracy_drop"] == pytest.approx(known.values["accuracy_drop"], abs=0.03)
    assert "warning: Validation is not in the time and energy: the pre-flight had none." in out


def test_from_a_saved_preflight(
    forecast: Forecast, saved: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither data nor model are loaded, and the numbers are those of the library."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(models, "load_model", load)
    words = ("--preflight", "known.json", *OWN, "--json")
    status, out, err = forecast(*words, "--grid", "FRA", "--pue", "1.2", "--joules-per-step", "30")
    assert (status, err) == (0, "")
    expected = resque.forecast(
        saved, target=resque.Accuracy(0.7), history=resque.History("sqlite:///own.db"),
        corpus=False, confidence_level=0.5,
        grid=resque.grid("FRA", pue=1.2), joules_per_step=30.0,
    )  # fmt: skip
    found = json.loads(out)
    assert found == json.loads(json.dumps(expected.to_dict() | {"budget": None}))
    assert (found["own_updates"], found["corpus_updates"]) == (24, 0)
    carbon, energy = found["carbon_kg"], found["energy_kwh"]
    assert carbon["median"] == pytest.approx(energy["median"] * 1.2 * 56.039 / 1000, rel=1e-3)
    assert {carbon["unit"], energy["unit"]} == {"kg CO2e", "kWh"}


def test_another_recipe_than_that_of_the_preflight(forecast: Forecast, saved: Preflight) -> None:
    """What is given on the command line replaces what the pre-flight says, and nothing else."""
    words = ("--preflight", "known.json", *OWN, "--json", "--no-from-scratch")
    assert json.loads(forecast(*words)[1])["recipe"] == saved.to_dict()["recipe"]
    found = json.loads(forecast(*words, "--learning-rate", "0.01", "--freeze-body")[1])
    changed = {"learning_rate": 0.01, "frozen": "body"}
    assert found["recipe"] == saved.to_dict()["recipe"] | changed
    assert found["from_scratch"] is None
    assert any("another recipe" in note for note in found["notes"])


def test_own_updates_count(forecast: Forecast, saved: Preflight) -> None:
    """Those in the history are used beside the corpus, unless that is not wanted."""
    words = ("--preflight", "known.json", *HALF, "--history", "sqlite:///own.db", "--json")
    status, out, err = forecast(*words)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["own_updates"] == 24
    assert found["corpus_updates"] == len(resque.Forecaster().experience.updates)


def test_another_machine(forecast: Forecast, saved: Preflight) -> None:
    """Twice the seconds of a step are twice the time, and no joules but those that are given."""
    assert saved.probe is not None
    step = saved.probe.seconds_per_step.median
    words = ("--preflight", "known.json", *OWN, "--json", "--no-from-scratch")
    here = json.loads(forecast(*words)[1])
    there = json.loads(forecast(*words, "--seconds-per-step", 2 * step)[1])
    assert there["duration_s"]["median"] == pytest.approx(2 * here["duration_s"]["median"])
    assert there["machine"].startswith("another machine than")
    assert there["energy_kwh"] is None


def test_a_preflight_of_another_machine_is_told(forecast: Forecast, saved: Preflight) -> None:
    """Time and energy are not those of this one, unless they were given."""
    other = replace(saved.hardware, name="a fast one", processor="a fast one")
    replace(saved, hardware=other).save("known.json")
    words = ("--preflight", "known.json", *OWN)
    status, out, err = forecast(*words)
    assert status == 0
    expected = "resque: warning: The pre-flight was made on a fast one (a fast one), and this "
    assert err.startswith(expected)
    assert (
        f"is {saved.hardware.name} ({saved.hardware.processor}): time and energy are those" in err
    )
    assert "give --seconds-per-step and --joules-per-step" in err
    assert "time is that of a fast one" in out
    assert forecast(*words, "--seconds-per-step", "0.1")[2] == ""


# --- the gate ------------------------------------------------------------------------------------


def test_a_budget_that_holds(forecast: Forecast, saved: Preflight) -> None:
    words = ("--preflight", "known.json", *OWN, "--max-hours", "1000")
    status, out, err = forecast(*words)
    assert (status, err) == (0, "")
    # All known updates keep it; the one to come might not.
    assert re.search(
        "the budget holds, each limit with 50% probability or more: max_hours 9[0-9]%", out
    )
    budget = json.loads(forecast(*words, "--json")[1])["budget"]
    assert budget == {
        "holds": True,
        "probabilities": {"max_hours": pytest.approx(24 / 25)},
        "reasons": [],
        "confidence_level": 0.5,
    }


def test_a_budget_that_does_not(forecast: Forecast, saved: Preflight) -> None:
    """Exit status 1, the forecast on stdout, and a line on stderr for each limit not kept."""
    limits = ("--max-hours", "1e-9", "--max-energy-kwh", "1e-12", "--min-accuracy", "0.001")
    words = ("--preflight", "known.json", *OWN, "--joules-per-step", "30", *limits)
    status, out, err = forecast(*words)
    assert status == 1
    assert "the budget does not hold with 50% probability: max_hours 0%, max_energy_kwh 0%" in out
    first, second = err.splitlines()
    assert first.startswith("resque: 1e-09 hours are kept with 0% probability, not 50%: the fore")
    assert second.startswith("resque: 1e-12 kWh are kept with 0% probability, not 50%: the foreca")
    status, out, err = forecast(*words, "--json")
    found = json.loads(out)
    assert status == 1
    assert found["epochs"]["unit"] == "epochs"
    assert found["budget"]["holds"] is False
    assert [f"resque: {reason}" for reason in found["budget"]["reasons"]] == err.splitlines()


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("new",), "TRAINING is of a pre-flight that is still to be made, and --preflight names"),
        (("new", "held-out"), "TRAINING is of a pre-flight"),
        (("--model", "zoo:network"), "--model is of a pre-flight that is still to be made"),
        (("--before", "old"), "--before is of a pre-flight"),
        (("--batch-size", "32"), "--batch-size is of a pre-flight"),
        (("--meter", "none"), "--meter is of a pre-flight"),
        (("--save-preflight", "a.json"), "--save-preflight is of a pre-flight"),
        (("--accuracy", "0.9", "--patience", "3"), "--accuracy and --patience are two targets"),
        (("--accuracy", "92"), "at most 1; got 92.0. For 92 % say 0.92."),
        (("--start", "sratch"), "got 'sratch'. Did you mean 'scratch'?"),
        (("--max-carbon-kg", "1"), "--max-carbon-kg needs the grid of the energy; name it with"),
        (("--grid", "FR"), "FRA"),
        (("--pue", "1.2"), "--pue says something of a grid; name it with --grid."),
        (("--max-hours", "0"), "max_hours must be above 0; got 0.0."),
        (("--min-accuracy", "92"), "min_accuracy must be below 1; got 92.0."),
        (("--max-energy-kwh", "much"), "expected a number; got 'much'."),
        (("--confidence-level", "90"), "confidence_level must be above 0 and below 1; got 90.0."),
        (("--seconds-per-step", "-1"), "'--seconds-per-step': expected a number above 0; got '-1'"),
        (("--joules-per-step", "inf"), "'--joules-per-step': expected a number above 0; got 'inf'"),
        (("--history", "runs.db"), "sqlite:///runs.db"),
        (
            ("--max-energy-kwh", "1"),
            "without energy_kwh: the pre-flight measured no joules of a step.",
        ),
    ],
)
def test_bad_options(
    forecast: Forecast, saved: Preflight, words: tuple[str, ...], expected: str
) -> None:
    """One line of cause and cure, exit status 2, and no forecast."""
    status, out, err = forecast("--preflight", "known.json", *OWN, *words)
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "What is forecast? Give the data to train on, or a saved pre-flight (--preflight)."),
        (("new",), "Which model would be retrained? Name it with --model."),
        (("gone", *MODEL), "There is nothing at 'gone'."),
        (("new", "gone", *MODEL), "There is nothing at 'gone'."),
        (("new", "--before", "gone", *MODEL), "There is nothing at 'gone'."),
        (("new", *MODEL, "--save-preflight", "no/a.json"), "There is no folder 'no'"),
        (("new", *MODEL, "--save-preflight", "w.json", "--weights", "w.json"),
         "'w.json' is read by this command; write to another file."),
        (("--preflight", "gone.json"), "There is nothing at 'gone.json'."),
        (("--preflight", "text.json"), "'text.json' is no saved pre-flight: "),
        (("--preflight", "w.json"), "its format is None, expected 'resque.Preflight/1'"),
        (("new", *MODEL, "--no-corpus"), "the history is empty, and the corpus is not used."),
    ],
)  # fmt: skip
def test_bad_data(forecast: Forecast, words: tuple[str, ...], expected: str) -> None:
    """Known before any pass over the data."""
    Path("new").mkdir()
    Path("text.json").write_text("no JSON")
    Path("w.json").write_text("{}")
    status, out, err = forecast(*words)
    assert (status, out) == (2, "")
    assert expected in err
    assert "error: " in err.splitlines()[-1]


def test_too_few_updates(forecast: Forecast, saved: Preflight) -> None:
    """A level that the known updates do not support is refused, with what it would take."""
    words = ("--preflight", "known.json", *OWN, "--confidence-level", "0.99")
    status, out, err = forecast(*words)
    assert (status, out) == (2, "")
    assert "A 99% interval of epochs needs 199 updates that tell of it; there are 24" in err


# --- the view ------------------------------------------------------------------------------------


def shown(forecast: Any, judged: Any = None) -> str:
    out = io.StringIO()
    Console(file=out, width=1000).print(forecast_view(forecast, judged))
    return out.getvalue()


def test_view_has_median_interval_and_unit() -> None:
    """Each measure in a unit that is read with ease; what is missing says why."""
    text = shown(forecast_of(grid=Grid(grams_per_kwh=56.0, name="France")))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "an update until accuracy 0.9, trained for 50 epochs at most"
    assert "measure median 90% interval unit" in lines
    assert "epochs 5 1 to 10 epochs" in lines
    assert "time 30 6 to 60 min" in lines
    assert "energy 0.5 0.1 to 1 kWh" in lines
    assert "carbon 50 10 to 100 g CO2e" in lines
    assert "peak accuracy 0.85 0.81 to 0.9" in lines
    assert "no gradient norm: the pre-flight measured none" in lines
    assert "its target is met with 90% probability" in lines
    assert "from 10 own updates and 0 of the corpus" in lines
    assert any(line.startswith("9 known updates foretold") for line in lines)
    assert "time and energy are those of a processor" in lines
    assert any(line.startswith("carbon on 56 g CO2e/kWh") for line in lines)
    assert lines[-1].startswith("model:resnet18|weights:0123456789abcdef|layer:input:fc")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.05, "time 0.25 0.05 to 0.5 s"),
        (20.0, "time 100 20 to 200 s"),
        (24.0, "time 2 0.4 to 4 min"),
        (1440.0, "time 2 0.4 to 4 h"),
        (720000.0, "time 1000 200 to 2000 h"),
    ],
)
def test_view_tells_time_in_seconds_minutes_or_hours(seconds: float, expected: str) -> None:
    """One unit for a row, by its median; no powers of ten for what is large."""
    values = VALUES | {"duration_s": seconds * np.arange(1.0, 11.0)}
    lines = [" ".join(line.split()) for line in shown(forecast_of(values)).splitlines()]
    assert expected in lines


def test_view_has_from_scratch_beside_it() -> None:
    """In the same units, with how many times as much it costs, and its own warnings."""
    scratch = forecast_of(
        VALUES | {"epochs": 7 * VALUES["epochs"], "duration_s": 3.5 * VALUES["duration_s"]},
        reaches_target=0.4,
        notes=("both", "another recipe"),
    )
    text = shown(forecast_of(from_scratch=scratch, notes=("both",)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    heading = "measure median 90% interval unit from scratch 90% interval times as much"
    assert heading in lines
    assert "epochs 5 1 to 10 epochs 35 7 to 70 7" in lines
    assert "time 30 6 to 60 min 105 21 to 210 3.5" in lines
    # Twice the accuracy is not twice the cost.
    assert "peak accuracy 0.85 0.81 to 0.9 0.85 0.81 to 0.9" in lines
    assert "its target is met with 90% probability, from scratch with 40%" in lines
    assert lines.count("warning: both") == 1
    assert "warning, from scratch: another recipe" in lines
    assert "warning, from scratch: both" not in lines


def test_view_of_an_update_that_costs_nothing() -> None:
    """No number is so many times zero."""
    free = forecast_of(VALUES | {"epochs": [0.0] * 10}, from_scratch=forecast_of())
    lines = [" ".join(line.split()) for line in shown(free).splitlines()]
    assert "epochs 0 0 to 0 epochs 5 1 to 10" in lines


# --- what was known is kept with the update ------------------------------------------------------


def test_retrain_records_the_preflight(
    folders: tuple[str, str, str], forecast: Forecast, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forecast's pre-flight goes into the history with the update, and so into the next one."""
    old, new, held_out = folders
    words = (new, held_out, "--before", old, *MODEL, "--save-preflight", "known.json")
    assert forecast(*words, *HALF)[0] == 0
    words = (new, held_out, *MODEL, "--patience", "1", "--preflight", "known.json", "--json")
    assert main(["retrain", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    known = resque.load_preflight("known.json")
    assert found["preflight"] == json.loads(json.dumps(known.to_dict()))
    assert found["index"] == json.loads(json.dumps(known.shift))
    assert found["data"]["training_examples"] == found["data"]["validation_examples"] == 36
    assert found["parameters"] == known.values["parameters"]
    again = json.loads(forecast("--preflight", "known.json", *HALF, "--json")[1])
    assert again["own_updates"] == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone.json", "There is nothing at 'gone.json'."),
        ("other.json", "This is no pre-flight that this version reads: its format is None"),
        ("fewer.json", "That pre-flight is of 30 training examples, and 'new' holds 36; give the"),
    ],
)
def test_retrain_refuses_another_preflight(
    folders: tuple[str, str, str],
    known: Preflight,
    capsys: pytest.CaptureFixture[str],
    name: str,
    expected: str,
) -> None:
    """Nothing is trained or recorded with what was known of something else."""
    Path("other.json").write_text("{}")
    replace(known, data=replace(known.data, training_examples=30)).save("fewer.json")
    assert main(["retrain", "new", "held-out", *MODEL, "--preflight", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert not Path("resque.db").exists()
