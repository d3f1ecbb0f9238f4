"""A meter that plays back recorded counters, for tests and simulations."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence

from resque.errors import InputError
from resque.history.records import EnergySource
from resque.measure.backend import CONSTANT_ERROR, COUNTER_ERROR, MODEL_ERROR, Gauge
from resque.measure.calibration import Calibration
from resque.measure.energy import Meter

Trace = Sequence[tuple[float, Mapping[str, float]]]

_ERRORS: dict[EnergySource, float] = {
    "counter": COUNTER_ERROR,
    "model": MODEL_ERROR,
    "constant": CONSTANT_ERROR,
}


def replay_meter(
    trace: Trace,
    *,
    wraps_at_j: Mapping[str, float] | None = None,
    sources: Mapping[str, EnergySource] | None = None,
    step_s: float = 0.0,
    clock: Callable[[], float] | None = None,
    include_constants: bool = False,
    calibration: Calibration | None = None,
) -> Meter:
    """Return a meter, in joules, whose counters say what a trace says.

    Args:
        trace: rows of (seconds, {component: joules so far}); the seconds never go back. A
            component that a row leaves out could not be read then.
        wraps_at_j: joules at which the counter of a component starts again from 0.
        sources: "counter", "model" or "constant" for each component; "counter" by default.
        step_s: windows shorter than this know no joules.
        clock: gives the time in the trace's seconds, and each counter says what the last row
            before that time says. By default each reading takes the next row, and the last one
            stays.
        include_constants: count components whose source is "constant".
        calibration: applied to every reading.

    Raises:
        InputError: there is no row, the clock of a row goes back, or a number is not finite.

    Example:
        >>> meter = replay_meter([(0.0, {"cpu": 90.0}), (1.0, {"cpu": 10.0})],
        ...                      wraps_at_j={"cpu": 100.0})
        >>> with meter.window("one second") as window:
        ...     pass
        >>> window.joules
        20.0
    """
    backend = _Replay(trace, wraps_at_j or {}, sources or {}, step_s, clock)
    return Meter(
        backend,
        include_constants=include_constants,
        calibration=calibration,
        clock=clock or backend.seconds,
        load=None,
    )


class _Replay:
    name = "replay"
    missing: tuple[str, ...] = ()
    longest_gap_s: float | None = None

    def __init__(
        self,
        trace: Trace,
        wraps_at_j: Mapping[str, float],
        sources: Mapping[str, EnergySource],
        step_s: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self._times, self._rows = _checked(trace, wraps_at_j)
        self._place, self._clock = -1, clock
        self.gauges = tuple(
            Gauge(
                name=name,
                source=source,
                relative_error=_ERRORS[source],
                why="played back from a trace",
                wraps_at_j=wraps_at_j.get(name),
                step_s=step_s,
            )
            for name in dict.fromkeys(name for row in self._rows for name in row)
            for source in [sources.get(name, "counter")]
        )

    def seconds(self) -> float:
        return self._times[max(self._place, 0)]

    def read(self) -> Mapping[str, float]:
        if self._clock is None:
            self._place = min(self._place + 1, len(self._rows) - 1)
        else:
            self._place = max(bisect.bisect_right(self._times, self._clock()) - 1, 0)
        return self._rows[self._place]

    def close(self) -> None:
        pass


def _checked(
    trace: Trace, wraps_at_j: Mapping[str, float]
) -> tuple[list[float], list[Mapping[str, float]]]:
    times: list[float] = []
    for place, (seconds, row) in enumerate(trace):
        if not math.isfinite(seconds) or not all(map(math.isfinite, row.values())):
            raise InputError(f"Row {place} of the trace is not finite: {seconds!r}, {dict(row)!r}.")
        if times and seconds < times[-1]:
            raise InputError(
                f"The clock of the trace goes back at row {place}: from {times[-1]:g} s to "
                f"{seconds:g} s."
            )
        for name, wraps in wraps_at_j.items():
            if not 0 <= row.get(name, 0.0) < wraps:
                raise InputError(
                    f"Row {place} of the trace says {row[name]:g} J of {name!r}, whose counter "
                    f"starts again at {wraps:g} J."
                )
        times.append(seconds)
    if not times:
        raise InputError("The trace has no rows; expected (seconds, {component: joules}) pairs.")
    return times, [row for _, row in trace]
