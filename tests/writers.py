"""Processes that write updates into one history, and what kills them.

As a script, one such process: URL, the file of acknowledgements, its first number, how many, and
the pause after each in seconds.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from resque.history.store import History
from updates import update_of


@dataclass(frozen=True)
class Writing:
    """What processes that were killed now and then left in a history.

    Attributes:
        acknowledged: updates whose `add` had returned, by the writers' own books.
        kept: updates in the history, each whole.
        missing: those acknowledged and not kept.
        twice: rows too many.
        torn: rows whose record or labels are not whole, and faults that SQLite finds.
        kills: processes that were killed while they were writing.
        seconds: from the first acknowledgement to the last.
    """

    acknowledged: int
    kept: int
    missing: int
    twice: int
    torn: int
    kills: int
    seconds: float


def write_and_kill(
    folder: Path, *, writers: int, each: int, kills: int, pause_s: float = 0.0, seed: int = 0
) -> Writing:
    """Let processes write `each` updates; kill a random one now and then, and start it anew.

    A pause after each update leaves time to kill them also where the disk is fast.
    """
    rng = random.Random(seed)
    url = f"sqlite:///{folder / 'resque.db'}"
    books = [folder / f"acknowledged-{n}" for n in range(writers)]

    sizes = [0] * writers

    def started(n: int) -> subprocess.Popen[bytes]:
        sizes[n] = _size(books[n])
        words = (__file__, url, str(books[n]), str(n * each), str(each), str(pause_s))
        return subprocess.Popen([sys.executable, *words])

    processes = [started(n) for n in range(writers)]
    killed = 0
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(rng.uniform(0, 0.1))
            # Only those that have written since they were started; a start is no accident.
            busy = [
                n
                for n, process in enumerate(processes)
                if process.poll() is None and _size(books[n]) > sizes[n]
            ]
            if killed < kills and busy:
                n = rng.choice(busy)
                processes[n].kill()
                killed += processes[n].wait() < 0
                processes[n] = started(n)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [0] * writers == [process.returncode for process in processes]
    return _found(url, books, killed)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _found(url: str, books: list[Path], kills: int) -> Writing:
    lines = [line.split() for book in books for line in book.read_text().splitlines()]
    acknowledged = {int(number) for number, _ in lines}
    times = [float(moment) for _, moment in lines]
    expected = {update_of(number=number).id for number in acknowledged}
    history = History(url)
    with warnings.catch_warnings(record=True) as unreadable:
        warnings.simplefilter("always")
        whole = [update.id for update in history]
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        faults = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
        rows = connection.scalar(sa.text("SELECT count(*) FROM updates"))
        labels = connection.scalar(sa.text("SELECT count(*) FROM update_labels"))
    engine.dispose()
    assert rows is not None
    assert labels is not None
    return Writing(
        acknowledged=len(acknowledged),
        kept=len(set(whole)),
        missing=len(expected - set(whole)),
        twice=len(whole) - len(set(whole)),
        # Each update has one label.
        torn=len(unreadable) + (list(faults) != ["ok"]) + abs(rows - labels),
        kills=kills,
        seconds=max(times) - min(times),
    )


def _write(url: str, book: Path, first: int, count: int, pause_s: float) -> None:
    done = [int(line.split()[0]) for line in book.read_text().splitlines()] if book.exists() else []
    history = History(url)
    with book.open("ab", buffering=0) as acknowledged:
        for number in range(max(done, default=first - 1) + 1, first + count):
            history.add(update_of(number=number))
            # One write to the kernel: what was written so outlives the process.
            os.write(acknowledged.fileno(), b"%d %f\n" % (number, time.time()))
            time.sleep(pause_s)


if __name__ == "__main__":
    _write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
