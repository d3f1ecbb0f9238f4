"""Running cells: those that a history does not have yet, one at a time or several."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from resque.errors import InputError, MissingExtraError, ResqueError
from resque.experiments.cells import Cell, settings_of, update_of
from resque.history.records import Grid
from resque.history.store import History
from resque.history.update import Update
from resque.measure.energy import Meter, open_meter


def run(
    cells: Sequence[Cell],
    history: History,
    folder: Path | str,
    *,
    workers: int = 1,
    meter: Meter | str = "none",
    grid: Grid | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> int:
    """Make the updates of cells that a history lacks, and return how many were made.

    Each goes into the history when it is done, so that an interruption loses those under way
    and nothing else.

    Args:
        cells: what to do, in this order.
        history: where the updates go, and where those already made are found.
        folder: for the weights of the networks that are updated.
        workers: updates made at the same time, each with its share of the cores. With more than
            one, energy is not metered, because a meter reads the whole machine.
        meter: see `open_meter`.
        grid: what a kilowatt-hour costs in carbon.
        device: to train on.
        progress: show a progress bar on stderr where that is a terminal.

    Raises:
        InputError: the data are not there, or several workers were asked to meter.
    """
    if workers < 1:
        raise InputError(f"workers must be 1 or more; got {workers}.")
    if workers > 1 and meter != "none":
        raise InputError(
            f"A meter reads the whole machine, and {workers} updates would share it. Use one "
            "worker, or meter='none'."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    history.check_writable()
    there = done(history)
    missing = [cell for cell in cells if (cell.key, settings_of(cell)) not in there]
    failed: dict[str, str] = {}
    with _progress_bar(len(cells), len(cells) - len(missing), progress) as show:
        made = (
            _in_turn(missing, folder, meter, grid, device)
            if workers == 1
            else _at_once(missing, folder, grid, device, workers)
        )
        for cell, update in made:
            if isinstance(update, ResqueError):
                failed[cell.key] = str(update)
            else:
                history.add(update)
            show(cell.key)
    if failed:
        told = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
        raise InputError(
            f"{len(failed)} of {len(missing)} updates could not be made, the others are in the "
            f"history. {told}"
        )
    return len(missing)


def done(history: History) -> set[tuple[str, str]]:
    """Return the key of each cell whose update a history has, and the settings it was made with.

    An update made with other settings is another one, and is made again.
    """
    return {
        (s.labels["cell"], s.labels.get("settings", ""))
        for s in history.summaries()
        if "cell" in s.labels
    }


def _made(cell: Cell, folder: Path, **options: Any) -> Update | ResqueError:
    """Return the update of a cell, or what was in its way: one that fails stops no other."""
    try:
        return update_of(cell, folder, **options)
    except MissingExtraError:
        raise
    except ResqueError as error:
        return error


def _in_turn(
    cells: Sequence[Cell], folder: Path, meter: Meter | str, grid: Grid | None, device: str
) -> Iterator[tuple[Cell, Update | ResqueError]]:
    opened = open_meter(meter) if isinstance(meter, str) else nullcontext(meter)
    with opened as one:
        for cell in cells:
            yield cell, _made(cell, folder, meter=one, grid=grid, device=device)


def _at_once(
    cells: Sequence[Cell], folder: Path, grid: Grid | None, device: str, workers: int
) -> Iterator[tuple[Cell, Update | ResqueError]]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Not forked: torch's threads do not survive that.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_use_threads, initargs=(threads,)
    )
    waiting = iter(cells)
    running: dict[Future[Update | ResqueError], Cell] = {}

    def start() -> None:
        cell = next(waiting, None)
        if cell is not None:
            running[
                pool.submit(_made, cell, folder, grid=grid, concurrency=workers, device=device)
            ] = cell

    try:
        for _ in range(workers):
            start()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                yield cell, future.result()
                start()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


@contextmanager
def _progress_bar(total: int, made: int, wanted: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not (wanted and console.is_terminal and sys.stderr.isatty()):
        yield lambda _: None
        return
    columns = (
        TextColumn("updates"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("updates", total=total, completed=made, last="")
        yield lambda key: bar.update(task, advance=1, last=key)
