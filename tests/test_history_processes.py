"""Several processes and one history: nothing acknowledged is lost, nothing is twice or torn."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from resque.history import schema
from resque.history.store import History
from updates import update_of
from writers import Writing, write_and_kill

# A fresh process each, which all wait for one moment and then open the same history.
_OPEN = """
import sys, time
from resque.history.store import History
time.sleep(max(0, float(sys.argv[2]) - time.time()))
print(len(History(sys.argv[1])))
"""


def assert_nothing_lost(found: Writing, *, updates: int, kills: int) -> None:
    """All that was to be written is there, once and whole, and so many processes were killed."""
    assert (updates, updates) == (found.acknowledged, found.kept)
    assert (0, 0, 0) == (found.missing, found.twice, found.torn)
    assert kills == found.kills


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """Three writers of 60 updates, two of them killed on the way."""
    found = write_and_kill(tmp_path, writers=3, each=60, kills=2, pause_s=0.01)
    assert_nothing_lost(found, updates=180, kills=2)


@pytest.mark.slow
def test_many_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """Eight writers of 500 updates, one of which is killed 20 times."""
    found = write_and_kill(tmp_path, writers=8, each=500, kills=20, pause_s=0.002)
    assert_nothing_lost(found, updates=4000, kills=20)


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_processes_that_open_a_history_at_once(tmp_path: Path, old: bool) -> None:
    """One of them creates it, or lifts it; the others wait, and all see the same."""
    file = tmp_path / "resque.db"
    expected = 300 if old else 0
    if old:
        engine = sa.create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            schema.lift(connection, "0001")
            for number in range(expected):
                row = schema.rows_of(update_of(number=number)).update
                insert = sa.text("INSERT INTO updates VALUES (:id, :started, :record)")
                connection.execute(insert, row)
        engine.dispose()
    words = [sys.executable, "-c", _OPEN, f"sqlite:///{file}", str(time.time() + 3)]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [f"{expected}\n"] * 4 == printed
    assert History(f"sqlite:///{file}").count(model="resnet18") == expected
