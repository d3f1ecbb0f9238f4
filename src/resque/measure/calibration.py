"""From the joules of a meter to those of the wall: an affine correction, learnt and kept."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from resque.errors import InputError, ResqueWarning, in_words
from resque.files import existing, written_whole
from resque.history.records import Component, EnergyReading, EnergySource
from resque.measure.backend import Gauge

_FEWEST = 5
# Greatest over least power of readings from which two terms can be told apart.
_LEAST_SPREAD = 1.05
_FORMAT = "resque-calibration"


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How the energy at the wall follows from what a meter says: `scale` * joules + `idle_w` * s.

    Attributes:
        name: what its maker calls it.
        scale: joules at the wall per joule of the meter.
        idle_w: watts at the wall that the meter never sees.
        relative_error: error band of a calibrated reading, as a share: nine of ten readings that
            were left out of the fit are within it.
        readings: how many readings it was fitted to.
        meter: name and version of the meter.
        components: the parts of the machine that counted.
        source: "counter" if all of them were counters, "model" otherwise.
        processor: of the machine, as its maker calls it.

    Example:
        >>> from resque.measure.replay import replay_meter
        >>> trace = [(float(t), {"cpu": 50.0 * t * t}) for t in range(12)]
        >>> with replay_meter(trace) as meter:
        ...     readings = [meter.start_window(str(n)).stop() for n in range(6)]
        >>> at_the_wall = [1.2 * reading.joules + 30 * reading.seconds for reading in readings]
        >>> found = calibrate(readings, at_the_wall)
        >>> round(found.scale, 2), round(found.idle_w, 1)
        (1.2, 30.0)
    """

    name: str
    scale: float
    idle_w: float
    relative_error: float
    readings: int
    meter: str
    components: tuple[str, ...]
    source: EnergySource
    processor: str

    @property
    def id(self) -> str:
        """Its name and eight hex digits of its content, which readings carry."""
        content = json.dumps(asdict(self), sort_keys=True)
        return f"{self.name}-{hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"

    def apply(self, reading: EnergyReading) -> EnergyReading:
        """Return the reading at the wall, with the one component "wall".

        Args:
            reading: of the meter that was calibrated.

        Returns:
            Joules are None where those of `reading` are.

        Raises:
            InputError: the reading is of another meter, counts other parts of the machine, or is
                calibrated already.
        """
        if reading.calibration is not None:
            raise InputError(
                f"This reading was calibrated already, with {reading.calibration!r}; a second "
                "correction would correct it twice."
            )
        self._check(reading.meter, _counted(reading))
        joules = reading.joules
        wall = Component(
            name="wall",
            joules=None if joules is None else self.scale * joules + self.idle_w * reading.seconds,
            source=self.source,
            relative_error=self.relative_error,
        )
        return EnergyReading(
            components=(wall,),
            seconds=reading.seconds,
            meter=reading.meter,
            other_load=reading.other_load,
            calibration=self.id,
            resumed=reading.resumed,
        )

    def check(self, meter: str, gauges: Sequence[Gauge]) -> None:
        """Raise InputError if this is not the calibration of such a meter."""
        self._check(meter, tuple(gauge.name for gauge in gauges if gauge.counted))

    def check_machine(self) -> None:
        """Raise InputError if this is the calibration of another machine."""
        here = _processor()
        if self.processor != here:
            raise InputError(
                f"The calibration {self.id!r} was made on {self.processor!r} and this machine has "
                f"{here!r}; calibrate here, or open the meter without it."
            )

    def save(self, path: Path | str) -> None:
        """Write the calibration to a JSON file, whole or not at all.

        Args:
            path: where to.

        Raises:
            InputError: the file cannot be written.
        """
        content = {"format": _FORMAT, "id": self.id, **asdict(self)}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Return the calibration in a file.

        Args:
            path: where `save` wrote it.

        Raises:
            InputError: there is no file, it is no calibration, or it was changed since.
        """
        path = existing(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or values.get("format") != _FORMAT:
                raise InputError(f"{str(path)!r} is no calibration; `Calibration.save` writes one.")
            known = {field.name: values[field.name] for field in fields(cls)}
            read = cls(**known | {"components": tuple(values["components"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{str(path)!r} cannot be read as a calibration ({in_words(error)}); calibrate "
                "again."
            ) from error
        if read.id != values.get("id"):
            raise InputError(
                f"{str(path)!r} was changed since it was written: it says {values.get('id')!r} "
                f"and holds {read.id!r}; calibrate again."
            )
        return read

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.scale:.4g} x joules + {self.idle_w:.4g} W x seconds "
            f"(±{self.relative_error:.1%}, {self.readings} readings of {self.meter})"
        )

    def _check(self, meter: str, components: tuple[str, ...]) -> None:
        if (self.meter, self.components) != (meter, components):
            raise InputError(
                f"The calibration {self.id!r} is of {self.meter} ({', '.join(self.components)}); "
                f"it says nothing of {meter} ({', '.join(components) or 'no components'})."
            )


def calibrate(
    readings: Sequence[EnergyReading], wall_joules: Sequence[float], *, name: str | None = None
) -> Calibration:
    """Return the correction from a meter's joules to those of a wall meter, both 0 or more.

    Take readings of different lengths and loads, or the two terms cannot be told apart.

    Args:
        readings: of one meter, at least 5.
        wall_joules: what a meter at the wall says of the same windows, in joules.
        name: of the calibration; "wall" by default.

    Raises:
        InputError: fewer than 5 readings, of different meters, calibrated already or without
            joules; or wall joules that are not as many, or not above 0.

    Example:
        >>> from resque.history.records import Component, EnergyReading
        >>> def reading(joules, seconds):
        ...     cpu = Component(name="cpu", joules=joules, source="counter", relative_error=0.1)
        ...     return EnergyReading(components=(cpu,), seconds=seconds, meter="replay")
        >>> runs = [(100.0, 10.0), (300.0, 10.0), (500.0, 20.0), (90.0, 30.0), (700.0, 15.0)]
        >>> wall = [1.5 * joules + 20 * seconds for joules, seconds in runs]
        >>> found = calibrate([reading(*run) for run in runs], wall)
        >>> round(found.scale, 6), round(found.idle_w, 6)
        (1.5, 20.0)
    """
    readings = list(readings)
    if len(readings) != len(wall_joules):
        raise InputError(
            f"Expected the wall joules of each reading; got {len(readings)} readings and "
            f"{len(wall_joules)} wall joules."
        )
    if len(readings) < _FEWEST:
        raise InputError(
            f"A calibration needs at least {_FEWEST} readings; got {len(readings)}. With fewer it "
            "would do more harm than good: measure more windows."
        )
    first = readings[0]
    metered = []
    for place, (reading, wall) in enumerate(zip(readings, wall_joules, strict=True)):
        if reading.calibration is not None:
            raise InputError(
                f"Reading {place} was calibrated already, with {reading.calibration!r}; take "
                "readings of a meter that was opened without a calibration."
            )
        if (reading.meter, _counted(reading)) != (first.meter, _counted(first)):
            raise InputError(
                f"Reading {place} is of {reading.meter} ({', '.join(_counted(reading))}) and the "
                f"first of {first.meter} ({', '.join(_counted(first))}); calibrate one meter at a "
                "time."
            )
        if reading.joules is None:
            raise InputError(
                f"Reading {place} has no joules: its window of {reading.seconds:.3g} s was too "
                "short, or the meter knows none. Leave it out or measure longer."
            )
        if not math.isfinite(wall) or wall <= 0:
            raise InputError(f"Wall joules must be above 0; got {wall!r} for reading {place}.")
        metered.append((reading.joules, reading.seconds))
    terms, wall_j = np.array(metered), np.array(wall_joules, dtype=np.float64)
    power = terms[:, 0] / terms[:, 1]
    if power.max() < _LEAST_SPREAD * power.min():
        warnings.warn(
            f"All readings are of nearly the same power, {power.min():.3g} to {power.max():.3g} W, "
            "so that what grows with the load and what does not cannot be told apart. The "
            "calibration holds at that power only; take readings at several loads.",
            ResqueWarning,
            stacklevel=2,
        )
    scale, idle_w = _fitted(terms, wall_j)
    left_out = [
        abs(terms[place] @ _fitted(np.delete(terms, place, 0), np.delete(wall_j, place)) / wall - 1)
        for place, wall in enumerate(wall_j)
    ]
    return Calibration(
        name=name or "wall",
        scale=float(scale),
        idle_w=float(idle_w),
        relative_error=float(np.quantile(left_out, 0.9, method="higher")),
        readings=len(readings),
        meter=first.meter,
        components=_counted(first),
        source="model" if any(reading.modelled for reading in readings) else "counter",
        processor=_processor(),
    )


def _fitted(terms: np.ndarray, wall_j: np.ndarray) -> np.ndarray:
    """Return scale and idle watts, 0 or more, with the least squares of relative errors."""
    from scipy.optimize import nnls

    found, _ = nnls(terms / wall_j[:, None], np.ones(len(wall_j)))
    return np.asarray(found, dtype=np.float64)


def _counted(reading: EnergyReading) -> tuple[str, ...]:
    return tuple(component.name for component in reading.components if component.counted)


def _processor() -> str:
    import torch

    from resque.representation.signature import hardware_name

    return hardware_name(torch.device("cpu"))
