"""The machine that a measurement ran on: its parts, and how busy others kept it."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from resque.history.records import Hardware

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "resque",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "codecarbon",
    "sqlalchemy",
    "torchvision",
    "timm",
    "transformers",
    "lightning",
    "zeus",
    "matplotlib",
)
_CPUINFO = Path("/proc/cpuinfo")
# CPU times are counted in ticks of 10 ms: below this a share of them is noise.
_SHORTEST_S = 0.1


def hardware_of(device: torch.device) -> Hardware:
    """Return what is known of this machine and of one torch device in it.

    Args:
        device: the device that the model is on.

    Example:
        >>> import torch
        >>> hardware_of(torch.device("cpu")).device
        'cpu'
    """
    import torch

    from resque.representation.signature import hardware_name

    return Hardware(
        device=device.type,
        name=hardware_name(device),
        processor=hardware_name(torch.device("cpu")),
        cores=_usable_cores(),
        threads=torch.get_num_threads(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        virtual=is_virtual(),
    )


@cache
def is_virtual() -> bool | None:
    """Return whether this is a virtual machine; None where that cannot be told."""
    if not _CPUINFO.is_file():
        return None
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        # Of x86 only: CPUID sets the bit for a guest, and other processors have no such line.
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return None


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
        "virtual": is_virtual(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "devices": devices,
        "figures": importlib.util.find_spec("matplotlib") is not None,
    }


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU time since some moment, at one moment.

    Attributes:
        capacity_s: of all logical cores, busy or not.
        busy_s: of those, the seconds in which a core was busy.
        own_s: of those, the seconds of this process and its children.
    """

    capacity_s: float
    busy_s: float
    own_s: float

    def __sub__(self, earlier: CpuTimes) -> CpuTimes:
        return CpuTimes(
            self.capacity_s - earlier.capacity_s,
            self.busy_s - earlier.busy_s,
            self.own_s - earlier.own_s,
        )

    def __add__(self, other: CpuTimes) -> CpuTimes:
        return CpuTimes(
            self.capacity_s + other.capacity_s,
            self.busy_s + other.busy_s,
            self.own_s + other.own_s,
        )


def cpu_times() -> CpuTimes:
    """Return the CPU seconds used so far by this machine and by this process."""
    machine = psutil.cpu_times()
    # Linux counts the time of guests a second time, within user and nice.
    guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
    capacity = sum(machine) - guests
    return CpuTimes(
        capacity_s=capacity,
        busy_s=capacity - machine.idle - getattr(machine, "iowait", 0.0),
        own_s=_own_cpu_seconds(),
    )


def other_load(used: CpuTimes) -> float | None:
    """Return the share of all cores, 0 to 1, that other processes kept busy.

    Args:
        used: the difference of `cpu_times` at two moments, or a sum of such differences.

    Returns:
        None where the time between is too short to tell.
    """
    if used.capacity_s < _SHORTEST_S * (psutil.cpu_count() or 1):
        return None
    return min(max((used.busy_s - used.own_s) / used.capacity_s, 0.0), 1.0)


def _own_cpu_seconds() -> float:
    process = psutil.Process()
    seconds = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            # Children that have ended live on in the times of their parent, who waited for them:
            # the sum goes on without a step.
            seconds += sum(one.cpu_times()[:4])
        except psutil.Error:
            continue
    return seconds


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
