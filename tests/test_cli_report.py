"""`resque report`: what it is made of, the command that remakes it, bad input."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resque
from resque.cli import main
from resque.decision import options_file
from resque.decision.candidate import Candidate
from resque.decision.options_file import NamedOption
from resque.errors import InputError
from resque.forecasting.preflight import Preflight
from updates import update_of

# Whatever the size of the corpus, it supports such an interval.
HALF = ("--confidence-level", "0.5")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def known() -> Preflight:
    """A pre-flight with an index, and no meter."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 4, generator=generator), torch.arange(96) % 2
    torch.manual_seed(0)
    return resque.preflight(
        torch.nn.Linear(4, 2), (x + 1, y), before=(x, y), meter="none", progress=False
    )


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, and no history that is named elsewhere."""
    monkeypatch.delenv("RESQUE_HISTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `resque report`; its exit status, stdout and stderr."""

    def ran(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["report", *map(str, words)])
        return status, *capsys.readouterr()

    return ran


@pytest.fixture
def profiles() -> tuple[str, str]:
    """Saved profiles of two data sets that differ."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    names = ("before.safetensors", "after.safetensors")
    for moved, name in enumerate(names):
        values = rng.normal(1, 0.3, (200, 8)) + moved * np.eye(2).repeat(4, axis=1)[labels]
        resque.profile(None, (values, labels), ids=np.arange(200) + 1000 * moved).save(name)
    return names


@pytest.fixture
def history() -> str:
    """A history of two updates that differ in a label."""
    url = "sqlite:///own.db"
    with resque.History(url) as store:
        for number, kind in enumerate(("blur", "noise")):
            store.add(update_of(number=number, labels={"shift": kind}))
    return url


def sections(path: str = "report.html") -> list[str]:
    return re.findall(r'<section id="(\w+)"', Path(path).read_text(encoding="utf-8"))


def command(path: str = "report.html") -> list[str]:
    page = Path(path).read_text(encoding="utf-8")
    (found,) = re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    return shlex.split(unescape(found))


def test_two_profiles_give_the_index(run: Run, profiles: tuple[str, str]) -> None:
    """With the part of each class, and nothing of what was not asked for."""
    status, out, _ = run("--before", profiles[0], "--after", profiles[1], "-o", "a.html")
    assert status == 0
    assert out == f"report written to {Path('a.html').resolve()}\n"
    assert sections("a.html") == ["shift", "limits", "origin"]
    shift = resque.shift_index(*(resque.load_profile(name) for name in profiles))
    assert f"{shift.value:.4f}" in Path("a.html").read_text(encoding="utf-8")


def test_a_preflight_gives_index_and_forecast(run: Run, known: Preflight) -> None:
    """The forecast is that of the library for the same question."""
    known.save("known.json")
    status, _, err = run("--preflight", "known.json", "--accuracy", 0.7, *HALF, "--tables", "t")
    assert status == 0, err
    assert sections() == ["shift", "task", "forecast", "limits", "preflight", "origin"]
    told = resque.forecast(known, target=resque.Accuracy(0.7), confidence_level=0.5)
    with Path("t/forecast.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    assert float(rows["epochs"]["update"]) == told.epochs.median
    assert told.from_scratch is not None
    assert float(rows["epochs"]["from_scratch"]) == told.from_scratch.epochs.median


def test_a_history_gives_what_updates_took(run: Run, history: str) -> None:
    """All of them, or those with a label."""
    assert run("--history", history, "--tables", "all")[0] == 0
    assert sections() == ["history", "energy", "limits", "origin"]
    assert run("--history", history, "--label", "shift=blur", "--tables", "some")[0] == 0
    counts = [Path(folder, "updates.csv").read_text().count("\n") - 1 for folder in ("all", "some")]
    assert counts == [2, 1]


def test_the_default_history_is_told_of_where_there_is_one(
    run: Run, profiles: tuple[str, str]
) -> None:
    with resque.History("sqlite:///resque.db") as store:
        store.add(update_of())
    assert run("--before", profiles[0], "--after", profiles[1])[0] == 0
    assert sections() == ["shift", "history", "energy", "limits", "origin"]


def test_figures_and_tables_are_written_on_request(run: Run, profiles: tuple[str, str]) -> None:
    """In the formats asked for, and not otherwise."""
    sides = ("--before", profiles[0], "--after", profiles[1])
    assert run(*sides)[0] == 0
    assert not [path for path in Path().iterdir() if path.is_dir()]
    status, *_ = run(
        *sides, "--figures", "f", "--figure-format", "png", "--tables", "t", "--table-format", "md"
    )
    assert status == 0
    assert [path.name for path in Path("f").iterdir()] == ["classes.png"]
    assert sorted(path.name for path in Path("t").iterdir()) == ["classes.md", "signature.md"]


def test_the_command_in_the_report_remakes_it(run: Run, known: Preflight, history: str) -> None:
    """The same bytes, also for names with spaces and options that are switches."""
    known.save("what we know.json")
    words = (
        "--preflight", "what we know.json", "--history", history, "--patience", 2, "--grid", 50,
        "--no-from-scratch", *HALF, "--title", "It's ours", "--label", "shift=blur",
        "-o", "a b.html",
    )  # fmt: skip
    assert run(*words)[0] == 0
    told = command("a b.html")
    assert told[:2] == ["resque", "report"]
    assert "--no-from-scratch" in told
    first = Path("a b.html").read_bytes()
    Path("a b.html").unlink()
    assert run(*told[2:])[0] == 0
    assert Path("a b.html").read_bytes() == first


def test_the_history_of_the_environment_is_in_the_command(
    run: Run, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESQUE_HISTORY", history)
    assert run()[0] == 0
    assert command() == ["resque", "report", "--history", history]


def test_the_command_tells_no_password(
    run: Run, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is passed on: of a server's URL only what is fit to be printed is in it."""
    store = resque.History(history)

    class Server:
        """A history on a server, which is not at hand here."""

        url, exists = "postgresql://me:***@host/db", True

        def __init__(self, url: str) -> None:
            assert "secret" in url

        updates = store.updates

    monkeypatch.setattr("resque.history.store.History", Server)
    assert run("--history", "postgresql://me:secret@host/db")[0] == 0
    assert command() == ["resque", "report", "--history", Server.url]
    assert "secret" not in Path("report.html").read_text(encoding="utf-8")


# --- options ----------------------------------------------------------------------------------

OPTIONS = """\
training = "new.npz"
classes = ["a", "b"]
accuracy = 0.55
by = "hours"
confidence_level = 0.5

[[option]]
name = "keep"
do = "keep"
model = "zoo:network"

[[option]]
name = "all of it"
do = "retrain"
model = "zoo:network"

[[option]]
name = "forgotten"
do = "retrain"
model = "zoo:network"
"""


@pytest.fixture
def looked_at(known: Preflight, monkeypatch: pytest.MonkeyPatch) -> None:
    """An options file, of which two options have been looked at without a meter."""
    np.savez("new.npz", representations=np.ones((4, 2)), labels=np.array([0, 1, 0, 1]))
    Path("options.toml").write_text(OPTIONS, encoding="utf-8")
    kept = {
        "keep": Candidate(name="keep", kind="keep", correct=60, examples=96),
        "all of it": Candidate(name="all of it", kind="retrain", preflight=known),
    }
    Path("options.preflights").mkdir()
    for option in options_file.read_options("options.toml").options:
        if option.name in kept:
            name = f"{option._file_name}-{option._digest('none', None)}.json"
            kept[option.name].save(Path("options.preflights") / name)
    # A model that is looked at is loaded first, and there is no such module.
    monkeypatch.setattr(NamedOption, "_loaded", lambda self: (None, None))


def test_options_that_were_looked_at_stand_side_by_side(run: Run, looked_at: None) -> None:
    """To the target of the file; one that was not looked at is told of, with what to do."""
    status, _, err = run("--options", "options.toml", "--meter", "none", "--tables", "t")
    assert status == 0, err
    assert sections() == ["options", "limits", "origin"]
    with Path("t/options.csv").open(newline="", encoding="utf-8") as file:
        assert [row["option"] for row in csv.DictReader(file)] == ["keep", "all of it"]
    page = unescape(Path("report.html").read_text(encoding="utf-8"))
    assert "forgotten left out" in page
    assert "it was not looked at with none; run `resque compare options.toml`" in page
    assert "accuracy 0.55" in page


def test_the_command_line_says_otherwise_than_the_file(run: Run, looked_at: None) -> None:
    status, _, err = run("--options", "options.toml", "--meter", "none", "--accuracy", 0.6)
    assert status == 0, err
    assert "accuracy 0.6" in Path("report.html").read_text(encoding="utf-8")


def test_options_that_nobody_looked_at_are_refused(run: Run, looked_at: None) -> None:
    """With the meter by which they were asked for."""
    status, _, err = run("--options", "options.toml", "--meter", "zeus")
    assert status == 2
    assert "None of the options could be compared" in err
    assert "not looked at with zeus" in err
    assert not Path("report.html").exists()


def test_options_need_a_target(run: Run, looked_at: None) -> None:
    Path("options.toml").write_text(OPTIONS.replace("accuracy = 0.55\n", ""), encoding="utf-8")
    status, _, err = run("--options", "options.toml")
    assert (status, "Which accuracy is to be reached?" in err) == (2, True)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "What is reported? Give two profiles"),
        (("--before", "before.safetensors"), "A shift has two sides"),
        (("--after", "after.safetensors"), "A shift has two sides"),
        (("--before", "befor.safetensors", "--after", "after.safetensors"),
         "There is nothing at 'befor.safetensors'. Did you mean 'before.safetensors'"),
        (("--before", "before.safetensors", "--after", "known.json"), "is no profile"),
        (("--before", "before.safetensors", "--after", "after.safetensors", "--labels", "some"),
         "labels must be 'true' or 'predicted'; got 'some'"),
        (("--preflight", "after.safetensors"), "'after.safetensors' is no saved pre-flight"),
        (("--preflight", "known.json", "--accuracy", "80"), "got 80.0. For 80 % say 0.8"),
        (("--preflight", "known.json", "--accuracy", "0.8", "--patience", "2"), "two targets"),
        (("--preflight", "known.json", "--grid", "FRAA"), "FRAA"),
        (("--preflight", "known.json", "--confidence-level", "90"),
         "confidence_level must be above 0 and below 1; got 90.0"),
        (("--options", "option.toml"), "There is nothing at 'option.toml'"),
        (("--history", "sqlite:///none.db"), "There is no history at 'sqlite:///none.db'"),
        (("--history", "sqlite:///own.db", "--label", "shift=fog"), "a history that has such"),
        (("--history", "sqlite:///own.db", "--label", "fog"), "got 'fog'"),
        (("--history", "sqlite:///own.db", "--accuracy", "0.9"), "--accuracy says something of a"),
        (("--history", "sqlite:///own.db", "--grid", "FRA"), "--grid says something of a forecast"),
        (("--history", "sqlite:///own.db", "-o", "report.pdf"), "ends in .html; got 'report.pdf'"),
        (("--history", "sqlite:///own.db", "-o", "no/report.html"), "There is no folder 'no'"),
        (("--history", "sqlite:///own.db", "--figures", "known.json"), "'known.json' is a file"),
        (("--history", "sqlite:///own.db", "--tables", "no/tables"), "There is no folder 'no'"),
        (("--history", "sqlite:///own.db", "--figure-format", "gif"), "svg, png, pdf; got 'gif'"),
        (("--history", "sqlite:///own.db", "--table-format", "xls"), "csv, md; got 'xls'"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_a_line(
    words: tuple[str, ...],
    message: str,
    run: Run,
    profiles: tuple[str, str],
    known: Preflight,
    history: str,
) -> None:
    """With exit status 2, and nothing written."""
    known.save("known.json")
    there = sorted(Path().iterdir())
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert there == sorted(Path().iterdir())


def test_a_report_does_not_take_the_place_of_what_it_reads(run: Run, known: Preflight) -> None:
    known.save("known.html")
    status, _, err = run("--preflight", "known.html", "-o", "known.html")
    assert (status, "is read by this command" in err) == (2, True)
    assert resque.load_preflight("known.html") == known


def test_what_fails_late_leaves_the_old_report(
    run: Run, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("report.html").write_text("old")

    def failing(*_: Any) -> str:
        raise InputError("no room")

    monkeypatch.setattr("resque.reporting.html.Report.to_html", failing)
    status, _, err = run("--history", history)
    assert (status, err) == (2, "resque: error: no room\n")
    assert Path("report.html").read_text() == "old"
