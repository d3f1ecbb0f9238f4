"""`resque compare`: options from a file, what is kept, exit statuses, bad input."""

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
from torch import nn

import resque
from resque.cli import main
from resque.decision import candidate, options_file
from resque.decision.candidate import load_candidate
from resque.decision.options_file import read_options
from test_cli_forecast import images, network, updates

Compare = Callable[..., tuple[int, str, str]]

HEAD = """
training = "new.npz"
validation = "held-out.npz"
classes = ["apple", "leaf", "sky"]
image_size = 8
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
accuracy = 0.7
by = "hours"
confidence_level = 0.5
"""
KEEP = """
[[option]]
name = "keep it"
do = "keep"
model = "zoo:network"
"""
RETRAIN = """
[[option]]
name = "retrain"
do = "retrain"
model = "zoo:network"
recipe = { max_epochs = 7 }
"""
HEAD_ONLY = """
[[option]]
name = "head"
do = "retrain"
model = "zoo:network"
[option.recipe]
frozen = "body"
"""
SCRATCH = """
[[option]]
name = "from scratch"
do = "from scratch"
model = "zoo:network"
"""
OWN = ("--no-corpus", "--history", "sqlite:///own.db", "--meter", "none")


def broken() -> nn.Module:
    raise RuntimeError("no such weights")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory with data, own updates, and a module of factories."""
    module = ModuleType("zoo")
    module.network, module.broken = network, broken
    monkeypatch.setitem(sys.modules, "zoo", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("RESQUE_HISTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("old", "new", "held-out")):
        pixels, labels = images(seed)
        np.savez(f"{name}.npz", x=pixels, y=labels)
    with resque.History("sqlite:///own.db") as history:
        for update in updates():
            history.add(update)
    return tmp_path


def write(*parts: str, name: str = "options.toml") -> str:
    Path(name).write_text("".join(parts))
    return name


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    """Run the command; its exit status, stdout and stderr."""

    def run(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["compare", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_options_side_by_side(compare: Compare) -> None:
    file = write(HEAD, 'before = "old.npz"\n', KEEP, RETRAIN, HEAD_ONLY, SCRATCH)
    status, out, err = compare(file, *OWN, "--json")
    assert status in (0, 1), err
    found = json.loads(out)
    assert [one["name"] for one in found["options"]] == [
        "keep it",
        "retrain",
        "head",
        "from scratch",
    ]
    assert (found["by"], found["target"]["value"]) == ("hours", 0.7)
    recipes = [one["forecast"]["recipe"] for one in found["options"][1:]]
    assert [recipe["max_epochs"] for recipe in recipes] == [7, 50, 50]
    assert [recipe["frozen"] for recipe in recipes] == ["none", "body", "none"]
    assert [recipe["start"] for recipe in recipes] == ["weights", "weights", "scratch"]
    kept = sorted(path.name.rsplit("-", 1)[0] for path in Path("options.preflights").iterdir())
    assert kept == ["from-scratch", "head", "keep-it", "retrain"]
    known = [load_candidate(path) for path in Path("options.preflights").iterdir()]
    one = next(each for each in known if each.name == "retrain")
    assert one.preflight is not None
    assert one.preflight.signature.class_names == ("apple", "leaf", "sky")
    assert one.preflight.values["RESQUE_dist"] is not None


def test_what_was_looked_at_is_not_looked_at_again(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when something else is asked; but when an option, or the data, have changed."""
    looked: list[str] = []
    whole = candidate.preflight

    def counted(*words: Any, **options: Any) -> Any:
        looked.append("preflight")
        return whole(*words, **options)

    monkeypatch.setattr(candidate, "preflight", counted)
    file = write(HEAD, KEEP, RETRAIN)
    first = compare(file, *OWN)
    assert looked == ["preflight"]
    assert compare(file, *OWN) == first
    compare(file, *OWN, "--accuracy", "0.5", "--grid", "FRA", "--by", "hours")
    assert looked == ["preflight"]
    write(HEAD, KEEP, RETRAIN.replace("7", "8"))
    compare(file, *OWN)
    assert looked == ["preflight"] * 2
    pixels, labels = images(5)
    np.savez("new.npz", x=np.concatenate([pixels, pixels]), y=np.concatenate([labels, labels]))
    compare(file, *OWN)
    assert looked == ["preflight"] * 3
    # Seconds of another machine, and what another version made of the data, are none of ours.
    monkeypatch.setattr(options_file, "hardware_name", lambda device: f"another {device}")
    compare(file, *OWN)
    assert looked == ["preflight"] * 4
    monkeypatch.setattr(options_file, "installed_version", lambda: "0")
    compare(file, *OWN)
    assert looked == ["preflight"] * 5


def test_a_calibration_is_part_of_what_was_looked_at(compare: Compare) -> None:
    """Joules that were read without it are not taken for calibrated ones."""
    file = write(HEAD, KEEP)
    assert compare(file, *OWN)[0] in (0, 1)
    status, _, err = compare(file, *OWN, "--calibration", "wall.json")
    assert status == 2
    assert "There is nothing at 'wall.json'" in err


def test_interrupted_and_resumed(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second option is interrupted; the first is not looked at again."""
    whole = candidate.preflight
    looked: list[str | None] = []

    def interrupted(*words: Any, **options: Any) -> Any:
        looked.append(options["recipe"].frozen)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return whole(*words, **options)

    monkeypatch.setattr(candidate, "preflight", interrupted)
    file = write(HEAD, RETRAIN, HEAD_ONLY)
    status, out, err = compare(file, *OWN)
    assert (status, out) == (130, "")
    assert "interrupted; what was looked at is in 'options.preflights'" in err
    status, _, _ = compare(file, *OWN)
    assert status in (0, 1)
    assert looked == ["none", "body", "body"]


def test_a_kept_model_needs_no_old_data(compare: Compare) -> None:
    """Nor do they stop it where they cannot be used."""
    np.savez("old.npz", x=images(0)[0])
    words = (*OWN, "--accuracy", "0.01", "--json")
    status, out, err = compare(write(HEAD, 'before = "old.npz"\n', KEEP, RETRAIN), *words)
    assert status == 2, err
    assert json.loads(out)["recommended"] == "keep it"
    assert list(json.loads(out)["failures"]) == ["retrain"]


def test_the_exit_status_says_whether_any_reaches_it(compare: Compare) -> None:
    file = write(HEAD, KEEP, RETRAIN)
    reached, out, _ = compare(file, *OWN, "--accuracy", "0.01")
    assert reached == 0
    assert out.startswith("keep it: it costs nothing and is at ")
    missed, out, err = compare(file, *OWN, "--accuracy", "0.999")
    assert missed == 1, err
    assert out.startswith("no option reaches 0.999 with 50% probability; the best that can be had")


def test_a_model_that_fails_to_load(compare: Compare) -> None:
    """The others still answer; the exit status says so."""
    bad = RETRAIN.replace("zoo:network", "zoo:broken").replace('retrain"\ndo', 'bad"\ndo')
    status, out, err = compare(write(HEAD, KEEP, bad), *OWN, "--accuracy", "0.01")
    assert status == 2
    assert out.startswith("keep it: it costs nothing")
    assert "the option 'bad' could not be compared: " in err
    assert "no such weights" in err
    assert "Traceback" not in err


def test_nothing_is_written_but_what_was_said(compare: Compare, folder: Path) -> None:
    file = write(HEAD, KEEP)
    compare(file, *OWN, "--preflights", "elsewhere")
    assert not Path("options.preflights").exists()
    assert len(list(Path("elsewhere").iterdir())) == 1
    assert not Path("resque.db").exists()


def test_paths_are_those_beside_the_file(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also weights; the two words that are no file stay as they are."""
    torch.save(network().state_dict(), "mine.pt")
    file = Path(write(HEAD, KEEP, 'weights = "mine.pt"\n')).resolve()
    away = file.parent / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    status, _, err = compare(file, *OWN[:1], "--history", f"sqlite:///{file.parent}/own.db",
                             "--meter", "none", "--accuracy", "0.01")  # fmt: skip
    assert status == 0, err
    told = read_options(write(*_absolute(file.parent), KEEP, 'weights = "random"\n'))
    assert told.options[0].weights == "random"


def _absolute(folder: Path) -> list[str]:
    return [HEAD.replace("new.npz", f"{folder}/new.npz").replace("held-out", f"{folder}/held-out")]


def test_money_and_a_grid_of_its_own(compare: Compare) -> None:
    file = write(
        HEAD, RETRAIN, 'grid = "SWE"\nseconds_per_step = 2.0\njoules_per_step = 100\n',
        "[prices]\nper_hour = 3.0\ncurrency = 'EUR'\n",
    )  # fmt: skip
    status, out, err = compare(file, *OWN, "--by", "money", "--grid", "FRA", "--json")
    assert status in (0, 1), err
    (one,) = json.loads(out)["options"]
    assert one["money"]["unit"] == "EUR"
    assert one["money"]["median"] == pytest.approx(3 * one["duration_s"]["median"] / 3600, rel=0.05)
    assert one["forecast"]["grid"]["code"] == "SWE"


def test_the_command_line_replaces_what_it_names(compare: Compare) -> None:
    """One price and the PUE; the other price, the currency and the grid stay those of the file."""
    file = write(
        HEAD, 'grid = "FRA"\n', RETRAIN,
        "[prices]\nper_hour = 3.0\nper_kwh = 0.0\ncurrency = 'EUR'\n",
    )  # fmt: skip
    (told,) = json.loads(compare(file, *OWN, "--json")[1])["options"]
    asked = ("--price-per-hour", "6", "--pue", "1.5", "--json")
    (one,) = json.loads(compare(file, *OWN, *asked)[1])["options"]
    assert one["money"]["median"] == pytest.approx(2 * told["money"]["median"])
    assert (told["money"]["unit"], one["money"]["unit"]) == ("EUR", "EUR")
    grids = [each["forecast"]["grid"] for each in (told, one)]
    assert [(grid["code"], grid["pue"]) for grid in grids] == [("FRA", 1.0), ("FRA", 1.5)]


def test_the_file_of_the_documentation_is_understood() -> None:
    """All its keys are known, once there are such data."""
    page = (Path(__file__).parents[1] / "docs" / "compare.md").read_text()
    shown = page.partition("```toml\n")[2].partition("```")[0]
    for name in ("new", "held-out", "old"):
        Path(name).mkdir()
    told = read_options(write(shown))
    assert [one.kind for one in told.options] == ["keep", "retrain", "retrain", "from scratch"]
    assert [one.recipe.learning_rate for one in told.options] == [1e-4, 1e-2, 1e-4, 1e-4]
    assert told.options[3].joules_per_step == 12
    assert (told.accuracy, told.by, told.prices) == (
        0.9, "kwh", resque.Prices(per_kwh=0.3, per_hour=2.5, currency="EUR"),
    )  # fmt: skip


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "words", "message"),
    [
        ((HEAD, "lerning = 1\n", KEEP), (), "options.toml has an unknown key 'lerning'."),
        ((HEAD, "trainin = 'x'\n", KEEP), (), "unknown key 'trainin'. Did you mean 'training'"),
        ((HEAD, KEEP, "modl = 'x'\n"), (),
         "option 'keep it' of options.toml has an unknown key 'modl'. Did you mean 'model'"),
        ((HEAD, KEEP, KEEP), (), "Two options of options.toml are called 'keep it'"),
        ((HEAD,), (), "options.toml has no options"),
        ((HEAD, KEEP.replace('"keep"', '"kep"')), (), "from scratch; got 'kep'. Did you mean"),
        ((HEAD, KEEP.replace('model = "zoo:network"', "")), (), "has no 'model'"),
        ((HEAD.replace("accuracy = 0.7", "accuracy = 'high'"), KEEP), (),
         "accuracy of options.toml must be a number; got 'high'"),
        ((HEAD.replace("accuracy = 0.7", "accuracy = true"), KEEP), (),
         "accuracy of options.toml must be a number; got True"),
        ((HEAD.replace("accuracy = 0.7", ""), KEEP), (), "Which accuracy is to be reached?"),
        ((HEAD.replace("new.npz", "nwe.npz"), KEEP), (),
         "There is nothing at 'nwe.npz'. Did you mean 'new.npz'"),
        ((HEAD.replace('training = "new.npz"', ""), KEEP), (), "names no training data"),
        ((HEAD, RETRAIN.replace("max_epochs", "max_epoch")), (),
         "unknown key 'max_epoch'. Did you mean 'max_epochs'"),
        ((HEAD, RETRAIN.replace("7", "-7")), (), "max_epochs must be a number above 0; got -7"),
        ((HEAD, RETRAIN.replace("max_epochs = 7", "start = 'scratch'")), (),
         "say do = 'from scratch'"),
        ((HEAD, KEEP, "[prices]\nper_kw = 1\n"), (),
         "unknown key 'per_kw'. Did you mean 'per_kwh'"),
        ((HEAD.replace('by = "hours"', 'by = "time"'), KEEP), (),
         "by must be one of kwh, kg, hours, money; got 'time'"),
        ((HEAD, KEEP), ("--by", "kg"), "needs the grid of the energy"),
        ((HEAD, KEEP), ("--by", "money"), "needs prices"),
        ((HEAD, KEEP), ("--accuracy", "1.5"), "1.5"),
        ((HEAD, KEEP), ("--price-per-hour", "-1"), "per_hour must be a price of 0 or more; got -1"),
        ((HEAD, KEEP), ("--preflights", "new.npz"), "'new.npz' is a file; expected a folder"),
        ((HEAD.replace("std = [0.5, 0.5, 0.5]", "std = ['a']"), KEEP), (),
         "std of option 'keep it' of options.toml must be made of numbers; got ['a']"),
        ((HEAD.replace("image_size = 8", "image_size = []"), KEEP), (),
         "image_size of option 'keep it' of options.toml must be made of numbers; got []"),
        ((HEAD.replace("image_size = 8", "image_size = [8.5]"), KEEP), (),
         "must be one or two whole numbers above 0; got [8.5]"),
        ((HEAD.replace("image_size = 8", "image_size = [true]"), KEEP), (),
         "must be made of numbers; got [True]"),
        ((HEAD.replace("confidence_level = 0.5", "confidence_level = 0"), KEEP), (),
         "confidence_level must be above 0 and below 1; got 0"),
        ((HEAD, "pue = 1.5\n", KEEP), (), "pue of options.toml says something of a grid"),
        ((HEAD, 'grid = "FRA"\n', KEEP, "pue = 1.5\n"), (),
         "pue of option 'keep it' of options.toml says something of a grid"),
        ((HEAD, RETRAIN, "seconds_per_step = -1\n"), (),
         "seconds_per_step of option 'retrain' of options.toml must be above 0; got -1"),
        ((HEAD, KEEP), ("--pue", "1.5"), "--pue says something of a grid"),
        ((HEAD, KEEP), ("--currency", "EUR"), "--currency is that of prices"),
        (("training = ",), (), "is no TOML file"),
    ],
)  # fmt: skip
def test_bad_input(
    compare: Compare, parts: tuple[str, ...], words: tuple[str, ...], message: str
) -> None:
    status, out, err = compare(write(*parts), *OWN, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("options.preflights").exists()


def test_no_such_file(compare: Compare) -> None:
    status, _, err = compare("optoins.toml", *OWN)
    assert status == 2
    assert "There is nothing at 'optoins.toml'" in err


def test_an_empty_history(compare: Compare) -> None:
    with resque.History("sqlite:///empty.db") as history:
        assert len(history) == 0
    words = ("--no-corpus", "--history", "sqlite:///empty.db", "--meter", "none")
    status, out, err = compare(write(HEAD, KEEP), *words)
    assert (status, out) == (2, "")
    assert "the history is empty, and the corpus is not used" in err
