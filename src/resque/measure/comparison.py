"""Every meter that works here, side by side on one load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from resque.errors import ResqueError
from resque.history.records import EnergyReading
from resque.measure.backend import Gauge
from resque.measure.energy import Meter, open_meter

_COMPARED = ("codecarbon", "zeus")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterOnLoad:
    """What one meter said of the load.

    Attributes:
        name: name and version.
        reading: of the whole load; None where the meter could not be opened.
        gauges: the parts of the machine that it knows.
        missing: what would give a better reading, or why it could not be opened.
    """

    name: str
    reading: EnergyReading | None
    gauges: tuple[Gauge, ...]
    missing: tuple[str, ...]

    @property
    def watts(self) -> float | None:
        """Mean power of all that counts; None where the energy is not known."""
        if self.reading is None or self.reading.joules is None:
            return None
        return self.reading.joules / self.reading.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        reading = self.reading
        joules = {part.name: part.joules for part in reading.components} if reading else {}
        return {
            "meter": self.name,
            "joules": reading.joules if reading else None,
            "watts": self.watts,
            "seconds": reading.seconds if reading else None,
            "relative_error": reading.relative_error if reading else None,
            "modelled": reading.modelled if reading else None,
            "other_load": reading.other_load if reading else None,
            "components": [asdict(g) | {"joules": joules.get(g.name)} for g in self.gauges],
            "missing": list(self.missing),
        }


def meters_on_load(
    seconds: float = 5.0, *, load: Callable[[float], None] | None = None
) -> list[MeterOnLoad]:
    """Return what each meter says of one load that keeps this machine busy.

    Args:
        seconds: length of the load.
        load: keeps the machine busy for so many seconds; by default products of matrices, on a
            GPU too where there is one.
    """
    found: dict[str, MeterOnLoad] = {}
    with contextlib.ExitStack() as open_meters:
        meters: dict[str, Meter] = {}
        for name in _COMPARED:
            try:
                meters[name] = open_meters.enter_context(open_meter(name))
            except ResqueError as error:
                found[name] = MeterOnLoad(name=name, reading=None, gauges=(), missing=(str(error),))
        windows = {name: meter.start_window("load") for name, meter in meters.items()}
        (load or _matrix_products)(seconds)
        for name, window in windows.items():
            found[name] = MeterOnLoad(
                name=meters[name].name,
                reading=window.stop(),
                gauges=meters[name].describe(),
                missing=tuple(meters[name].missing),
            )
    return [found[name] for name in _COMPARED]


def _matrix_products(seconds: float) -> None:
    import torch

    devices = ["cpu", *(f"cuda:{place}" for place in range(torch.cuda.device_count()))]
    matrices = [torch.ones(512, 512, device=device) for device in devices]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for matrix in matrices:
            torch.mm(matrix, matrix)
        for device in devices[1:]:
            torch.cuda.synchronize(device)
