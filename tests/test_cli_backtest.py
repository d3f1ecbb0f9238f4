"""`resque backtest`: its table, its JSON, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import resque
from resque.cli import main
from simulated import simulated

WORDS = ("backtest", "--no-corpus", "--history", "sqlite:///own.db")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with resque.History("sqlite:///own.db") as history:
        for update in simulated(14, networks=2):
            history.add(update)


@pytest.mark.usefixtures("own")
def test_a_table_with_the_forecast_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--hold-out", "network"]) == 0
    out = capsys.readouterr().out
    assert "14 updates foretold to plateau (patience 3, min_delta 0.002), network held out" in out
    lines = [line for line in out.splitlines() if line.startswith(("forecast ", "mean of the"))]
    assert [line.split("  ")[0] for line in lines] == ["forecast", "mean of the history"]
    assert out.splitlines()[-1].startswith("Whether the forecast is better than ")


@pytest.mark.usefixtures("own")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hold_out"] == "time"
    assert found["scores"][0]["method"] == "forecast"
    value, lower, upper = found["scores"][0]["values"]["epochs_error"]
    assert lower <= value <= upper
    assert found["verdict"].startswith("The forecast ")


@pytest.mark.usefixtures("own")
def test_only_updates_with_a_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--label", "shift=shift 3"]) == 2
    assert "got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--history", "sqlite:///none.db"), "There is no history at 'sqlite:///none.db'."),
        (("--hold-out", "netwrok"), "got 'netwrok'. Did you mean 'network'?"),
        (("--accuracy", "0.9", "--patience", "3"), "two targets"),
        (("--accuracy", "90"), "got 90"),
    ],
)
@pytest.mark.usefixtures("own")
def test_bad_input(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
