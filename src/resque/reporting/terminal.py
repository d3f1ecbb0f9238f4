"""Results on a terminal, and what this machine has."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from resque.index.shift import ShiftIndex
    from resque.index.task import TaskIndex

_MOST_ROWS = 20
PACKAGES = (
    "resque",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "torchvision",
    "timm",
    "transformers",
    "matplotlib",
)


def show(what: RenderableType) -> None:
    """Print something to stdout, as wide as the terminal and never cut off elsewhere."""
    console = Console()
    if not console.is_terminal:
        # Into a file or a pipe whole lines go, however long.
        console = Console(width=10_000, highlight=False)
    console.print(what, soft_wrap=True)


def shift_view(shift: ShiftIndex) -> RenderableType:
    """Return the summary of a shift and a table of its classes, largest share first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "before", "after", "value", "floor", "debiased", "share"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    shares = shift.contributions
    for name in list(shares)[:_MOST_ROWS]:
        row = shift.classes[name]
        table.add_row(
            Text(name),
            str(row.examples_before),
            str(row.examples_after),
            f"{row.value:.4f}",
            f"{row.floor:.4f}",
            "unresolved" if row.debiased is None else f"{row.debiased:.4f}",
            f"{shares[name]:.0%}",
        )
    parts: list[RenderableType] = [Text(str(shift)), Text(), table]
    if len(shares) > _MOST_ROWS:
        parts.append(Text(f"and {len(shares) - _MOST_ROWS} more classes (--json gives all)"))
    return Group(*parts)


def task_view(task: TaskIndex) -> RenderableType:
    """Return the summary of a task and a table of the classes most mixed up."""
    if not task.mixtures:
        return Text(str(task))
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "in the cluster of", "share of the class"):
        table.add_column(heading, justify="right" if heading.startswith("share") else "left")
    for mixture in task.mixtures[:10]:
        table.add_row(Text(mixture.class_name), Text(mixture.mixed_with), f"{mixture.share:.0%}")
    return Group(Text(str(task)), Text(), table)


def demo_view(demo: Any) -> RenderableType:
    """Return the tables of the demonstration on digits (see `experiments.digits`)."""
    shifts = Table(box=None, pad_edge=False)
    for heading in ("shift", "strength", "RESQUE_dist", "floor", "debiased", "90% interval", "p",
                    "accuracy"):  # fmt: skip
        shifts.add_column(heading, justify="left" if heading == "shift" else "right")
    for row in demo.shifts:
        index = row.index
        shifts.add_row(
            row.kind,
            f"{row.level:g}",
            f"{index.value:.4f}",
            f"{index.floor:.4f}",
            f"{index.debiased:.4f}",
            f"{index.lower:.4f} to {index.upper:.4f}",
            f"{index.p_value:.1g}",
            f"{row.accuracy:.3f}",
        )
    task, known = demo.task, demo.task_known
    return Group(
        Text("A network that knows all ten digits, on digits it has not seen, shifted:"),
        shifts,
        Text(),
        Text("A network that knows 0 to 4, before it is taught anything else:"),
        Text(f"  RESQUE_task of the digits 0 to 4, which it knows  {known.value:.4f}"),
        Text(f"  RESQUE_task of the digits 5 to 9, a new task      {task.value:.4f}"),
        Text(),
        Text(str(demo.shifts[0].index.signature)),
        Text(str(task.signature)),
    )


def environment() -> dict[str, Any]:
    """Return the versions and devices found here, without asking any network."""
    import torch

    from resque.representation.signature import hardware_name

    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    devices = [{"device": "cpu", "name": hardware_name(torch.device("cpu"))}]
    for place in range(torch.cuda.device_count()):
        device = torch.device("cuda", place)
        memory = torch.cuda.get_device_properties(device).total_memory
        devices.append(
            {
                "device": f"cuda:{place}",
                "name": hardware_name(device),
                "memory_gb": f"{memory / 1e9:.0f}",
            }
        )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU"})
    return {
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "devices": devices,
        "figures": importlib.util.find_spec("matplotlib") is not None,
    }


def environment_view(found: dict[str, Any]) -> RenderableType:
    """Return what `environment` found, as two tables."""
    versions = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found["versions"].items():
        versions.add_row(name, value or "not installed")
    devices = Table(box=None, pad_edge=False, show_header=False)
    for device in found["devices"]:
        memory = f"{device['memory_gb']} GB" if "memory_gb" in device else ""
        devices.add_row(device["device"], device["name"], memory)
    heading = f"{found['platform']}, {found['cores']} cores, {found['torch_threads']} torch threads"
    return Group(Text(heading), Text(), versions, Text(), devices)
