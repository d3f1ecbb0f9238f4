"""The history: writers that are killed, and a list of 100,000 updates."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.history.store import History

# The factory of updates and the killed writers are those of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from updates import update_of
from writers import write_and_kill

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu",)
TITLE = "History"
WRITERS, EACH, KILLS = 8, 500, 20
UPDATES, QUICK_UPDATES = 100_000, 5_000
LIST = ["history", "list", "--label", "shift=blur"]
AT_MOST_S = 1.0
KINDS = ("blur", "noise", "contrast", "none")

ABOUT = f"""\
Processes that write {EACH} updates each into one SQLite file, while a random one of them is killed
(SIGKILL) {KILLS} times and started anew; an update is acknowledged when `add` has returned. Then
a history in which every fourth update has the label `shift=blur`: seconds of the whole command
`resque {" ".join(LIST)}`, the interpreter's start included, and of opening the history and
filtering it in a process that has loaded what it needs; the first run of each is left out. No
model is called.
"""
COLUMNS = ("what", "runs", "model calls", "found")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001  # of no matter here
    """Return one cell for the writers, one for the command and one for the filter alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [_writers(folder, quick=quick), *_lists(folder, quick=quick)]


def _writers(folder: Path, *, quick: bool) -> dict[str, Any]:
    writers, each, kills = (4, 50, 3) if quick else (WRITERS, EACH, KILLS)
    found = write_and_kill(folder, writers=writers, each=each, kills=kills)
    assert found.kills == kills, found
    assert found.acknowledged == found.kept == writers * each, found
    return {
        "what": f"{writers} writers of {each} updates, {kills} kills: lost, twice or torn",
        "runs": 1,
        "said": f"{found.acknowledged} acknowledged, {found.kept} there; {found.missing} lost, "
        f"{found.twice} twice, {found.torn} torn; {found.kept / found.seconds:.0f} writes/s",
        "unit": "updates",
        "reached": found.missing + found.twice + found.torn,
        "at_most": 0,
    }


def _lists(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    updates = QUICK_UPDATES if quick else UPDATES
    url = f"sqlite:///{folder / 'many.db'}"
    with History(url) as history:
        fill(history, updates)
    command = [str(Path(sys.executable).with_name("resque")), *LIST, "--history", url]
    whole, filtered = [], []
    for _ in range(6 if quick else 11):
        start = time.perf_counter()
        said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        whole.append(time.perf_counter() - start)
        assert said.count("shift=blur") == 20, said
        start = time.perf_counter()
        with History(url) as history:
            rows = history.summaries(limit=20, labels={"shift": "blur"})
            assert history.count(labels={"shift": "blur"}) == updates // len(KINDS)
        filtered.append(time.perf_counter() - start)
        assert len(rows) == 20
    return [
        _cell(f"`resque {' '.join(LIST)}`, {updates:,} updates", whole[1:], AT_MOST_S),
        _cell(f"open and filter, {updates:,} updates", filtered[1:], None),
    ]


def fill(history: History, updates: int) -> None:
    """Add updates that differ, by way of an import: one transaction for many."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as lines:
        for number in range(updates):
            update = update_of(
                number=number,
                started=f"2026-01-{1 + number % 28:02}T{number // 28 % 24:02}:00:00+00:00",
                labels={"shift": KINDS[number % len(KINDS)], "level": str(number % 5)},
            )
            lines.write(f"{json.dumps(update.to_dict())}\n")
        lines.flush()
        history.import_from(lines.name)


def _cell(what: str, seconds: list[float], at_most: float | None) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "what": what,
        "runs": len(seconds),
        "said": f"{median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})",
        "seconds": seconds,
        "unit": "s",
        "reached": median,
        "at_most": at_most,
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    return [cell["what"], str(cell["runs"]), "0", cell["said"]]
