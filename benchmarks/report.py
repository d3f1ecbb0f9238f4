"""The report: seconds to make it, and how large it is."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.experiments.digits import digits_demo
from resque.reporting.html import Report, report

# The factory of updates is that of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from updates import update_of

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu",)
TITLE = "Report"
UPDATES, QUICK_UPDATES = 200, 50
AT_MOST_S, AT_MOST_MB = 3.0, 2.0

ABOUT = f"""\
A report of all that a small run on the digits finds, and the same with a history of {UPDATES}
updates: seconds from the objects to the file, after what it needs has been imported, and megabytes
(1e6 bytes) of the file. The first report of a process, which is the one that users wait for, is a
row of its own; the others are medians.
"""
COLUMNS = ("what", "runs", "found")


def measure(
    device: torch.device,  # noqa: ARG001  # of no matter here
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """Return a cell for the seconds and one for the size of each report."""
    import jinja2  # noqa: F401  # imports are counted apart
    import matplotlib.backends.backend_svg  # noqa: F401

    small = _of_digits()
    number = QUICK_UPDATES if quick else UPDATES
    large = replace(small, updates=tuple(_update(place) for place in range(number)))
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        first = _seconds(small, path)
        cells.append(_cell("the first one of a process", [first], "s", AT_MOST_S))
        for what, made in (("of the demonstration", small), (f"with {number} updates", large)):
            runs = [_seconds(made, path) for _ in range(3 if quick else 7)]
            size = path.stat().st_size / 1e6
            cells.append(_cell(what, runs, "s", AT_MOST_S))
            cells.append(_cell(f"{what}: size", [size], "MB", AT_MOST_MB))
    return cells


def line(cell: dict[str, Any]) -> list[str]:
    """Return the columns of one cell."""
    return [cell["what"], str(cell["runs"]), f"{cell['reached']:.3g} {cell['unit']}"]


def _cell(what: str, runs: list[float], unit: str, at_most: float) -> dict[str, Any]:
    reached = statistics.median(runs)
    return {"what": what, "runs": len(runs), "unit": unit, "reached": reached, "at_most": at_most}


def _of_digits() -> Report:
    demo = digits_demo(
        epochs=2, levels={"gaussian noise": (0.0,)}, meter="none", confidence_level=0.5,
        updates=(("gaussian noise", 0.1), ("gaussian blur", 0.6)),
    )  # fmt: skip
    return report(
        shift=demo.updates[-1].index,
        task=demo.task,
        preflight=demo.preflight,
        forecast=demo.forecast,
        comparison=demo.comparison,
        history=[u for row in demo.updates for u in (row.retrained, row.scratch)],
        command="resque demo",
    )


def _update(number: int) -> Any:
    kept = {"index": "RESQUE_dist", "value": 0.001 * number, "debiased": 0.001 * number}
    return update_of(number=number, index=kept, epochs=1.0 + number % 17)


def _seconds(made: Report, path: Path) -> float:
    start = time.perf_counter()
    made.save(path)
    return time.perf_counter() - start
