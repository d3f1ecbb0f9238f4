"""`resque plan`: from saved profiles and a pre-flight; its view, its exit status, bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import resque
from resque.cli import main
from resque.index.profile import ClassProfile
from series import START, steady
from simulated import TARGET, preflight_of, simulated
from updates import update_of

Run = Callable[..., tuple[int, str, str]]
OWN = (
    "--preflight", "known.json", "--accuracy-floor", "0.8", "--no-corpus",
    "--history", "sqlite:///own.db", "--patience", "3", "--min-delta", "0.002",
    "--confidence-level", "0.8",
)  # fmt: skip


@pytest.fixture(scope="module")
def series() -> list[tuple[date | None, ClassProfile]]:
    """Loses 0.02 of accuracy a period, from 0.95."""
    return steady(0.02, 0.02)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of 40 updates."""
    path = tmp_path_factory.mktemp("history") / "own.db"
    with resque.History(f"sqlite:///{path}") as history:
        for update in simulated(40):
            history.add(update)
    return path


@pytest.fixture
def words(
    series: list[tuple[date | None, ClassProfile]],
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The profiles, a pre-flight and a history in a folder, and what names the profiles."""
    monkeypatch.delenv("RESQUE_HISTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("own.db").symlink_to(own)
    preflight_of(-2.0, joules_per_step=10.0).save("known.json")
    named = []
    for day, profile in series:
        profile.save(f"{day}.safetensors")
        named.append(f"{day}={day}.safetensors")
    return named


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; its exit status, stdout and stderr."""

    def ran(*given: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["plan", *map(str, given)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return ran


def test_as_the_library_says_it(
    run: Run, words: list[str], series: list[tuple[date | None, ClassProfile]]
) -> None:
    """The JSON is that of the library, for the same profiles, budget, grid and seed."""
    status, out, err = run(
        *words, *OWN, "--json", "--grid", "FRA", "--pue", "1.2", "--max-carbon-kg", "1",
        "--horizon", "180", "--period", "20", "--share", "0.7", "--seed", "3",
    )  # fmt: skip
    assert (status, err) == (0, "")
    expected = resque.plan(
        series, accuracy_floor=0.8, update=resque.load_preflight("known.json"), target=TARGET,
        history=simulated(40), corpus=False, budget=resque.Budget(max_carbon_kg=1.0),
        grid=resque.grid("FRA", pue=1.2), horizon_days=180.0, period_days=20.0, share=0.7,
        confidence_level=0.8, seed=3,
    )  # fmt: skip
    found = json.loads(out)
    assert found["cost_measure"] == "carbon_kg"
    told = json.loads(json.dumps(expected.to_dict()))
    # A history gives its updates in an order of its own.
    assert found["crossing"] == told["crossing"]
    assert found["course"] == told["course"]
    assert [one["name"] for one in found["schedules"]] == [one.name for one in expected.schedules]
    assert found["schedules"][-1]["mean_cost"] == pytest.approx(told["schedules"][-1]["mean_cost"])


def test_on_a_terminal(run: Run, words: list[str]) -> None:
    """Three tables, the advice and what to know; the schedules that nobody would take are out."""
    status, out, err = run(*words, *OWN)
    assert (status, err) == (0, "")
    assert out.startswith("plan of 365 days from 2026-05-31, a look every 30 days\n")
    assert "the accuracy falls below 0.8 about 2026-08-14" in out
    assert re.search(r"^date +index +80% interval +accuracy", out, re.M)
    assert re.search(r"^2026-08-29 +0\.160 .* 100%$", out, re.M)
    assert re.search(r"^never +0 .* 0%$", out, re.M)
    assert re.search(r"^at every alarm +12 ", out, re.M)
    assert re.search(r"^.* \* +[0-9.]+ ", out, re.M)
    assert "every 330 days, first in 330" not in out
    assert "kWh a year" in out
    assert re.search("^cheapest that does it: ", out, re.M)
    assert re.search("^keeps: the probability of an accuracy of 0.8 or more at 90% of", out, re.M)
    assert "index:RESQUE_dist|" in out


def test_hours(run: Run, words: list[str]) -> None:
    """Of a budget of hours the table is one of hours, with how surely it holds."""
    status, out, _ = run(*words, *OWN, "--max-hours", "5")
    assert status == 0
    assert re.search(r"hours a year .* always +max_hours$", out, re.M)


def test_no_schedule_does_it(run: Run, words: list[str]) -> None:
    """Exit status 1, the plan on stdout, and on stderr which schedule comes nearest."""
    status, out, err = run(*words, *OWN, "--max-energy-kwh", "1e-9")
    assert status == 1
    assert err.startswith("resque: no schedule keeps the accuracy at or above 0.8 at 90% of the")
    assert err.removeprefix("resque: ").strip() in out


def test_the_first_without_a_date(run: Run, words: list[str]) -> None:
    first = words[0].partition("=")[2]
    status, out, _ = run(first, *words[1:], *OWN, "--json")
    assert status == 0
    assert json.loads(out)["drift"]["increments"] == 4


def test_the_first_with_no_date_that_there_is(run: Run, words: list[str]) -> None:
    status, _, err = run(f"2026-13-01={START}.safetensors", *words[1:], *OWN)
    assert status == 2
    assert "The first profile is FILE or DATE=FILE, such as 2026-01-31=january.safe" in err
    assert f"got '2026-13-01={START}.safetensors'." in err


def test_a_drift_that_is_known(run: Run, words: list[str]) -> None:
    """Two profiles are enough, and the accuracy curve is that of known updates or fitted ones."""
    given = ("--drift-per-year", "0.1", "--drift-spread", "0.01", "--json")
    status, out, err = run(*words, *OWN, *given)
    assert status == 0, err
    drift = json.loads(out)["drift"]
    given_as_it_is = {"increments": None, "years": None, "accelerates": 0.0}
    assert drift == {"per_year": 0.1, "spread": 0.01, **given_as_it_is}


def test_a_drift_of_the_history(run: Run, words: list[str]) -> None:
    """It is that of the updates of the model in the profiles; without any it is refused."""
    status, _, err = run(*words, *OWN, "--drift-from-history")
    assert status == 2
    assert "needs 4 updates of 'Linear' with a RESQUE_dist in the history; got 0 updates" in err
    with resque.History("sqlite:///drift.db") as history:
        for month in range(1, 6):
            history.add(
                update_of(
                    started=f"2026-0{month}-01T00:00:00+00:00", model="Linear", number=month,
                    index={"index": "RESQUE_dist", "debiased": 0.01},
                )
            )  # fmt: skip
        for update in simulated(40):
            history.add(update)
    words = [*words, *OWN, "--history", "sqlite:///drift.db", "--drift-from-history", "--json"]
    status, out, err = run(*words)
    assert status in (0, 1), err
    assert json.loads(out)["drift"]["per_year"] == pytest.approx(0.04 * 365.25 / 120)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--max-energy-kwh", "0"), "max_energy_kwh must be above 0; got 0.0."),
        (("--max-carbon-kg", "1"), "--max-carbon-kg needs the grid of the energy"),
        (("--drift-spread", "1"), "--drift-spread is that of --drift-per-year; give both."),
        (("--drift-per-year", "1", "--drift-from-history"), "are two drifts; give one."),
        (("--pue", "1.2"), "--pue says something of a grid"),
        (("--accuracy-floor", "85"), "accuracy_floor must be above 0 and below 1; got 85.0."),
        (("--horizon", "5"), "A horizon of 5 days has no look in it, with one every 30 days."),
        (("--labels", "none"), "labels must be 'true' or 'predicted'; got 'none'."),
        (("--seed", "-1"), "expected a whole number of 0 or more; got '-1'."),
        (("--preflight", "nothing.json"), "There is nothing at 'nothing.json'."),
        (("june.safetensors",), "Later profiles are DATE=FILE, such as 2026-01-31=january.safe"),
        (("2026-13-01=a.safetensors",), "got '2026-13-01=a.safetensors'."),
        (("2027-01-01=june.safetensors",), "There is nothing at 'june.safetensors'."),
        ((f"{START}={START}.safetensors",), f"out of order: {START} comes after 2026-05-31."),
    ],
)
def test_bad_input(run: Run, words: list[str], given: tuple[str, ...], expected: str) -> None:
    status, out, err = run(*words, *OWN, *given)
    assert (status, out) == (2, "")
    assert expected in err


def test_an_empty_history(run: Run, words: list[str]) -> None:
    """There is nothing to forecast from, and nothing is made where it would be."""
    words = [*words, *OWN, "--history", "sqlite:///none.db"]
    status, _, err = run(*words)
    assert status == 2
    assert "no own updates: there is no history at sqlite:///none.db yet" in err.replace(
        f"{Path.cwd()}/", ""
    )
    assert "the history is empty, and the corpus is not used" in err
    assert not Path("none.db").exists()
