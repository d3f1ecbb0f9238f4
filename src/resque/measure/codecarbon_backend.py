"""codecarbon as a counter of joules: offline, silent, and deaf to its configuration files."""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from resque.errors import InputError, in_words
from resque.history.records import JOULES_PER_KWH
from resque.measure.backend import CONSTANT_ERROR, COUNTER_ERROR, MODEL_ERROR, Gauge
from resque.measure.machine import is_virtual

_POWERCAP = Path("/sys/class/powercap")
# Load is counted in ticks of 10 ms, and NVML's energy counter moves about every 100 ms.
_STEP_S = 0.1
# The law of load is not linear: read more often than this, it would be fed single ticks.
_FRESH_S = 0.05
# RAPL wraps after 262 kJ on most processors, twenty minutes under load, and codecarbon undoes one
# wrap between two readings.
_LONGEST_GAP_S = 60.0
# What codecarbon takes for a processor that it does not know.
_WATTS_PER_THREAD = 4
_TASK = "resque"
# One logger for the whole process, which each of our calls silences and gives back.
_LOGGER_LOCK = threading.RLock()


class CodecarbonBackend:
    """Joules counted by codecarbon 3.

    Raises:
        InputError: codecarbon cannot start.
    """

    def __init__(self) -> None:
        self.name = f"codecarbon {version('codecarbon')}"
        # Some of its ways to read a processor keep a log file in the working directory.
        self._folder = tempfile.TemporaryDirectory(prefix="resque-")
        self._read_at = -math.inf
        try:
            with _silenced():
                self._tracker = _started_tracker(self._folder.name)
                self.gauges, self.missing = _gauges(self._tracker)
        # Whatever codecarbon and the drivers below it raise.
        except Exception as error:
            self._folder.cleanup()
            raise InputError(
                f"{self.name} could not start ({in_words(error)}); open_meter('none') measures "
                "time alone."
            ) from error
        self._joules = {gauge.name: 0.0 for gauge in self.gauges}
        counters = {gauge.name for gauge in self.gauges if gauge.source == "counter"}
        self.longest_gap_s = _LONGEST_GAP_S if "cpu" in counters else None

    def read(self) -> Mapping[str, float]:
        """Return the joules so far."""
        if time.perf_counter() - self._read_at < _FRESH_S:
            return self._joules
        with _silenced():
            task = self._tracker.stop_task()
            # It keeps every task for a report that nobody will ask for: 2 kB each.
            self._tracker._tasks.clear()
            self._tracker.start_task(_TASK)
        for name in self._joules:
            self._joules[name] += getattr(task, f"{name}_energy") * JOULES_PER_KWH
        self._read_at = time.perf_counter()
        return self._joules

    def close(self) -> None:
        """Stop codecarbon's thread."""
        with _silenced():
            timer = self._tracker._scheduler_monitor_power._timer
            self._tracker.stop()
        if timer is not None:
            timer.join(timeout=1)
        self._folder.cleanup()


def _started_tracker(folder: str) -> Any:
    """Return a tracker with a task running, which paid its cold start of about 1.5 s."""
    emissions_tracker: Any = import_module("codecarbon.emissions_tracker")
    kind = emissions_tracker.OfflineEmissionsTracker
    # Its files in the home and working directory and CODECARBON_ variables cannot be switched
    # off, and a file it cannot parse would stop it.
    configured = emissions_tracker.get_hierarchical_config
    emissions_tracker.get_hierarchical_config = dict
    try:
        tracker = kind.__new__(kind)
        # The constructor swallows every exception and leaves half a tracker; unwrapped it raises.
        inspect.unwrap(kind.__init__)(
            tracker,
            output_methods=[],
            output_dir=folder,
            allow_multiple_runs=True,  # otherwise a lock file for the whole machine
            force_carbon_intensity_g_co2e_kwh=0,  # carbon is not asked of it
            force_cpu_power=_power_of_guest(),
            log_level="critical",
        )
    finally:
        emissions_tracker.get_hierarchical_config = configured
    monitor = tracker._scheduler_monitor_power
    monitor.function = partial(_in_silence, monitor.function)
    tracker.start_task(_TASK)
    return tracker


def _power_of_guest() -> int | None:
    """Return watts for a guest without a counter; None where codecarbon should look them up.

    A guest sees the name of the whole processor and has a slice of it: the power of 64 cores
    would be billed to two.
    """
    from codecarbon.core.cpu import is_rapl_available

    if not is_virtual() or is_rapl_available():
        return None
    return _WATTS_PER_THREAD * (psutil.cpu_count() or 1)


def _gauges(tracker: Any) -> tuple[tuple[Gauge, ...], tuple[str, ...]]:
    gauges, missing = [], []
    for part in tracker._hardware:
        kind = type(part).__name__
        name = kind.lower() if kind in ("CPU", "GPU", "RAM") else part.chip_part.lower()
        if kind == "CPU" and part._mode in ("cpu_load", "constant"):
            gauges.append(_modelled("cpu", f"at most {part._tdp:g} W, by the load of the machine"))
            missing.append(_missing_cpu())
        elif kind == "RAM":
            why = "5 W for each memory module it guesses"
            gauges.append(
                Gauge(name="ram", source="constant", relative_error=CONSTANT_ERROR, why=why)
            )
        elif kind == "GPU":
            gauge, reason = _gpu(part)
            gauges += [gauge] if gauge else []
            missing += [reason] if reason else []
        else:
            mode = getattr(part, "_mode", kind).replace("_", " ")
            gauges.append(_counter(name, f"the machine's own count ({mode})"))
    return tuple(gauges), tuple(missing)


def _gpu(part: Any) -> tuple[Gauge | None, str | None]:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None, None
    chosen = set(part._get_gpu_ids())
    devices = [device for device in part.devices.devices if device.gpu_index in chosen]
    if any(map(_is_partitioned, devices)):
        return None, (
            "The GPU is partitioned (MIG), and its counter is of all partitions together: only a "
            "whole GPU has an energy of its own."
        )
    if not devices:
        return None, None
    names = ", ".join(sorted({device._gpu_name for device in devices}))
    if all(device._has_counter for device in devices):
        return _counter("gpu", f"the driver's count of the energy of {names}"), None
    return _modelled("gpu", f"the power of {names}, sampled every second"), (
        f"The driver of {names} gives no count of energy; GPUs since Volta have one."
    )


def _is_partitioned(device: Any) -> bool:
    try:
        nvml: Any = import_module("pynvml")
        return bool(nvml.nvmlDeviceGetMigMode(device.handle)[0])
    # GPUs that know no partitions raise, and those of other makers have no such library.
    except Exception:  # noqa: BLE001
        return False


def _counter(name: str, why: str) -> Gauge:
    return Gauge(name=name, source="counter", relative_error=COUNTER_ERROR, why=why, step_s=_STEP_S)


def _modelled(name: str, why: str) -> Gauge:
    return Gauge(name=name, source="model", relative_error=MODEL_ERROR, why=why, step_s=_STEP_S)


def _missing_cpu() -> str:
    """Return why the processor's counter is not read here, in words."""
    if not sys.platform.startswith("linux"):
        return (
            "The processor's energy counter could not be read; on macOS powermetrics, on Windows "
            "11 the Energy Meter Interface would give it."
        )
    if not _POWERCAP.is_dir():
        return (
            f"RAPL, the processor's energy counter, is absent here (no {_POWERCAP}), as on nearly "
            "every virtual machine: only real hardware, or a host that passes it on, has one."
        )
    counts = [zone / "energy_uj" for zone in _POWERCAP.iterdir() if (zone / "energy_uj").exists()]
    if not counts:
        return (
            f"{_POWERCAP} is empty, as in most containers: let the host mount it, for example "
            f"with `docker run -v {_POWERCAP}:{_POWERCAP}:ro`."
        )
    if not any(os.access(count, os.R_OK) for count in counts):
        return (
            "RAPL, the processor's energy counter, is here but only root may read it: "
            f"`sudo chmod a+r {_POWERCAP}/*/energy_uj` allows it until the next start."
        )
    return "RAPL, the processor's energy counter, is here but codecarbon cannot use its zones."


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep codecarbon quiet, and give its logger back as it was found."""
    logger = logging.getLogger("codecarbon")
    with _LOGGER_LOCK:
        found = logger.handlers, logger.level, logger.propagate, logger.disabled
        logger.disabled = True
        try:
            yield
        finally:
            logger.handlers, level, logger.propagate, logger.disabled = found
            if logger.level != level:
                logger.setLevel(level)


def _in_silence(function: Callable[[], None]) -> None:
    with _silenced():
        function()
