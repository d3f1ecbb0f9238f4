"""Zeus as a counter of joules: GPUs by NVML, processor and memory by RAPL, and nothing modelled."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from typing import Any

from resque.errors import InputError, in_words, missing_extra
from resque.measure.backend import COUNTER_ERROR, Gauge

_WHY = {
    "gpu": "NVML's count of the energy of the visible GPUs",
    "cpu": "RAPL's count of the energy of the processor packages",
    "dram": "RAPL's count of the energy of the memory",
}
# Zeus documents about 100 ms between updates of NVML's counter, and warns below.
_STEP_S = 0.1
_WINDOW = "resque"


class ZeusBackend:
    """Joules counted by zeus, whose windows are chained so that nothing falls between them.

    Raises:
        MissingExtraError: zeus is not installed.
        InputError: zeus cannot start, or finds no counter here.
    """

    longest_gap_s: float | None = None  # zeus watches for wrap-around itself

    def __init__(self) -> None:
        if importlib.util.find_spec("zeus") is None:
            raise missing_extra("zeus", "zeus")
        import zeus
        from zeus.monitor import ZeusMonitor

        self.name = f"zeus {zeus.__version__}"
        self._joules: dict[str, float] = {}
        self._read_at = -math.inf
        try:
            self._monitor = ZeusMonitor()
            # The meter synchronises for every backend alike.
            self._monitor.begin_window(_WINDOW, sync_execution=False)
            found = self._ended()
        # Whatever zeus and the drivers below it raise.
        except Exception as error:
            raise InputError(
                f"zeus could not start ({in_words(error)}); `resque doctor` shows the meters that "
                "work here."
            ) from error
        if not found:
            # Zeus itself would say 0 J.
            raise InputError(
                "zeus finds no GPU and no RAPL that this user may read, so it knows no energy "
                'here; use open_meter("codecarbon").'
            )
        self._joules = dict.fromkeys(found, 0.0)
        self.gauges = tuple(
            Gauge(
                name=name,
                source="counter",
                relative_error=COUNTER_ERROR,
                why=_WHY[name],
                step_s=_STEP_S,
            )
            for name in found
        )
        no_cpu = (
            "zeus may not read the processor's counter here, and has no model of it: only the GPU "
            "is counted."
        )
        self.missing: tuple[str, ...] = () if "cpu" in found else (no_cpu,)

    def read(self) -> Mapping[str, float]:
        """Return the joules so far; the parts that zeus gave no number for are left out."""
        # Read more often, the counter would not have moved and zeus would warn of it.
        if time.perf_counter() - self._read_at < _STEP_S / 2:
            return self._joules
        known = self._ended()
        for name, joules in known.items():
            self._joules[name] += joules
        return {name: self._joules[name] for name in known}

    def close(self) -> None:
        """End the window that is open."""
        self._monitor.end_window(_WINDOW, sync_execution=False)

    def _ended(self) -> dict[str, float]:
        measured: Any = self._monitor.end_window(_WINDOW, sync_execution=False)
        self._monitor.begin_window(_WINDOW, sync_execution=False)
        self._read_at = time.perf_counter()
        # total_energy is of the GPUs alone, 0 where there are none; so each part by itself.
        parts = {
            "gpu": measured.gpu_energy or None,
            "cpu": measured.cpu_energy,
            "dram": measured.dram_energy,
        }
        return {name: sum(part.values()) for name, part in parts.items() if part is not None}
