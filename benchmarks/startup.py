"""How long `import resque` and `resque --help` take, and whether they load torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu",)
TITLE = "Start-up"
# Seconds of the whole process, the interpreter's own start included.
BOUNDS: dict[str, float | None] = {
    "python -c pass": None,
    'python -c "import resque"': 0.15,
    "resque --help": 0.5,
}
# Packages that take long to load, none of which the command line's help may need.
HEAVY = ("torch", "numpy", "scipy", "sklearn", "timm")

ABOUT = """\
Seconds of whole processes, from the start of the interpreter to its end, started in turn; the
first round, which reads from the disk, is left out. Which heavy packages a command loads is
looked up in a process of its own, and neither of the two may load torch. No model is called.
"""
COLUMNS = ("command", "runs", "model calls", "heavy packages loaded", "median (least to greatest)")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001  # of no matter here
    """Return one cell per command."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import resque"': [sys.executable, "-c", "import resque"],
        "resque --help": [str(Path(sys.executable).with_name("resque")), "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(6 if quick else 16):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            taken[name].append(time.perf_counter() - start)
    loaded = {
        "python -c pass": _loaded("pass"),
        'python -c "import resque"': _loaded("import resque"),
        "resque --help": _loaded("from resque.cli import main; main(['--help'])"),
    }
    assert not any("torch" in found for found in loaded.values()), loaded
    return [
        {
            "what": name,
            "seconds": seconds[1:],
            "loaded": loaded[name],
            "at_most": BOUNDS[name],
            "unit": "s",
            "reached": statistics.median(seconds[1:]),
        }
        for name, seconds in taken.items()
    ]


def _loaded(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(*(n for n in {HEAVY} if n in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout
    return found.splitlines()[-1].split()


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    seconds = cell["seconds"]
    median = statistics.median(seconds)
    return [
        f"`{cell['what']}`",
        str(len(seconds)),
        "0",
        ", ".join(cell["loaded"]) or "none",
        f"{median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})",
    ]
