"""The meter: joules by part of the machine, and seconds, of windows that nest and overlap."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from resque.errors import InputError, in_words, nearest
from resque.history.records import Component, EnergyReading
from resque.measure.backend import Backend, Gauge, NoBackend
from resque.measure.calibration import Calibration
from resque.measure.machine import CpuTimes, cpu_times, other_load

METERS = ("codecarbon", "zeus", "none")
# Finding the children of a process looks at every process there is, 1 ms for each 100.
_LOAD_FRESH_S = 0.05
# Share of a window's seconds that may lie in stretches too short for a gauge.
_MOST_SHORT = 0.05


def open_meter(
    name: str | Meter = "codecarbon",
    *,
    include_constants: bool = False,
    calibration: Calibration | Path | str | None = None,
) -> Meter:
    """Return an open meter of this machine's energy, in joules.

    Opening takes up to two seconds, so that the first window does not. No file is written, no
    network is asked, and signal handlers and loggers stay as they are.

    Args:
        name: "codecarbon"; "zeus", which reads hardware counters only (extra `zeus`); "none",
            for seconds alone; or an open meter, which is returned as it is.
        include_constants: count parts whose energy is a fixed power times time, such as memory.
        calibration: what `calibrate` found on this machine, or the file it was saved to; every
            reading is then of the wall.

    Raises:
        InputError: there is no such meter, it cannot be opened, or the calibration is of another
            meter or machine.
        MissingExtraError: the package it needs is not installed.

    Example:
        >>> with open_meter("none") as meter, meter.window("nothing") as window:
        ...     pass
        >>> window.joules is None, window.seconds < 1
        (True, True)
    """
    if isinstance(name, Meter):
        if calibration is not None or include_constants:
            raise InputError(
                f"The meter {name.name!r} is open already; give include_constants and "
                "calibration where it is opened."
            )
        return name
    if isinstance(calibration, str | Path):
        calibration = Calibration.load(calibration)
    backend = _backend(name)
    try:
        if calibration is not None:
            calibration.check_machine()
        return Meter(backend, include_constants=include_constants, calibration=calibration)
    except InputError:
        backend.close()
        raise


def _backend(name: str) -> Backend:
    if name == "codecarbon":
        from resque.measure.codecarbon_backend import CodecarbonBackend

        return CodecarbonBackend()
    if name == "zeus":
        from resque.measure.zeus_backend import ZeusBackend

        return ZeusBackend()
    if name == "none":
        return NoBackend()
    raise InputError(
        f"There is no meter {name!r}; expected {', '.join(METERS)}.{nearest(str(name), METERS)}"
    )


@dataclass(frozen=True, slots=True)
class _Moment:
    """The totals of a meter at one moment; `breaks` counts the losses of each gauge so far."""

    seconds: float
    joules: dict[str, float]
    breaks: dict[str, int]
    cpu: CpuTimes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """What was counted between two moments, or between several such pairs."""

    seconds: float = 0.0
    joules: Mapping[str, float] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()  # gauges that lost count on the way
    short: Mapping[str, float] = field(default_factory=dict)  # seconds too short for each gauge
    cpu: CpuTimes | None = None

    @classmethod
    def between(cls, start: _Moment, end: _Moment, gauges: Sequence[Gauge]) -> _Span:
        seconds = end.seconds - start.seconds
        return cls(
            seconds=seconds,
            joules={name: end.joules[name] - start.joules[name] for name in end.joules},
            broken=frozenset(n for n in end.breaks if end.breaks[n] != start.breaks[n]),
            short={g.name: seconds if seconds < g.step_s else 0.0 for g in gauges},
            cpu=end.cpu - start.cpu if start.cpu and end.cpu else None,
        )

    def __add__(self, other: _Span) -> _Span:
        return _Span(
            seconds=self.seconds + other.seconds,
            joules={n: self.joules.get(n, 0.0) + joules for n, joules in other.joules.items()},
            broken=self.broken | other.broken,
            short={n: self.short.get(n, 0.0) + seconds for n, seconds in other.short.items()},
            cpu=self.cpu + other.cpu if self.cpu and other.cpu else self.cpu or other.cpu,
        )


class Meter:
    """Counts joules up, and gives the difference between two moments as a window.

    Windows are differences of two totals, so they nest and overlap freely, and what a window too
    short for a counter held is still in the window around it.

    Attributes:
        name: name and version.
        missing: sentences that say what would give a better reading on this machine.
        failure: why the last reading that failed did so; None where none has. The joules of
            windows with such a moment are not known.

    Args:
        backend: what counts the joules.
        include_constants: count parts whose energy is a fixed power times time.
        calibration: applied to every reading.
        clock: seconds, never going back.
        load: CPU times so far; None to leave the load of others unknown.

    Raises:
        InputError: the calibration is of another meter.

    Example:
        >>> from resque.measure.replay import replay_meter
        >>> trace = [(0.0, {"cpu": 0.0}), (2.0, {"cpu": 50.0})]
        >>> with replay_meter(trace) as meter, meter.window("epoch 1") as window:
        ...     pass
        >>> window.joules, window.seconds
        (50.0, 2.0)
    """

    name: str
    missing: list[str]
    failure: str | None

    def __init__(
        self,
        backend: Backend,
        *,
        include_constants: bool = False,
        calibration: Calibration | None = None,
        clock: Callable[[], float] = time.perf_counter,
        load: Callable[[], CpuTimes] | None = cpu_times,
    ) -> None:
        self.name = backend.name
        self.missing = list(backend.missing)
        self.failure = None
        self._gauges = tuple(
            replace(
                gauge, counted=gauge.counted and (gauge.source != "constant" or include_constants)
            )
            for gauge in backend.gauges
        )
        self._calibration = calibration
        if calibration is not None:
            calibration.check(self.name, self._gauges)
        self._backend, self._clock, self._load = backend, clock, load
        self._joules = {gauge.name: 0.0 for gauge in self._gauges}
        self._breaks = {gauge.name: 0 for gauge in self._gauges}
        self._last: dict[str, float] = {}
        self._cpu: tuple[float, CpuTimes] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._process = os.getpid()
        self._keeper: threading.Thread | None = None
        if backend.longest_gap_s is not None:
            self._keeper = threading.Thread(
                target=self._keep_reading, args=(backend.longest_gap_s,), daemon=True
            )
            self._keeper.start()

    @property
    def modelled(self) -> bool:
        """Whether something in the total is no reading of a counter but a model or a constant."""
        return any(gauge.counted and gauge.source != "counter" for gauge in self._gauges)

    @property
    def calibration(self) -> str | None:
        """Id of the calibration that is applied to every reading; None without one."""
        return None if self._calibration is None else self._calibration.id

    def describe(self) -> tuple[Gauge, ...]:
        """Return the parts of the machine that this meter knows, and how."""
        return self._gauges

    def window(self, name: str, counted: Mapping[str, Any] | None = None) -> Window:
        """Return a window to enter with `with`: it starts there, and ends where that ends.

        Args:
            name: what goes on in it, for messages.
            counted: what `Window.counted` told of a window of an earlier process, which this
                one goes on with.
        """
        window = Window(self, name)
        if counted is not None:
            window.go_on(counted)
        return window

    def start_window(self, name: str) -> Window:
        """Return a window that has started; `stop` ends it.

        Args:
            name: what goes on in it, for messages.

        Raises:
            InputError: the meter is closed, or was opened by another process.
        """
        return Window(self, name).start()

    def close(self) -> None:
        """Let go of the hardware; windows that have ended stay readable."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join()
        with self._lock:
            self._backend.close()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Meter {self.name}{', modelled' if self.modelled else ''}>"

    def _now(self) -> _Moment:
        if self._closed.is_set():
            raise InputError(f"The meter {self.name!r} is closed; open another one.")
        if os.getpid() != self._process:
            raise InputError(
                f"The meter {self.name!r} was opened by another process, and counters do not "
                "survive a fork; open one in this process."
            )
        _synchronise()
        with self._lock:
            self._count()
            # The clock last, at both ends: seconds and joules then span the same interval.
            seconds = self._clock()
            return _Moment(seconds, {**self._joules}, {**self._breaks}, self._cpu_times(seconds))

    def _cpu_times(self, now: float) -> CpuTimes | None:
        if self._load is None:
            return None
        if self._cpu is None or now - self._cpu[0] >= _LOAD_FRESH_S:
            self._cpu = now, self._load()
        return self._cpu[1]

    def _count(self) -> None:
        try:
            read = self._backend.read()
        # Drivers fail in many ways; a training is worth more than its joules.
        except Exception as error:  # noqa: BLE001
            self.failure = in_words(error)
            read = {}
        for gauge in self._gauges:
            value, last = read.get(gauge.name, math.nan), self._last.pop(gauge.name, None)
            if not math.isfinite(value):
                self._breaks[gauge.name] += 1
                continue
            self._last[gauge.name] = value
            risen = 0.0 if last is None else value - last
            if risen < 0 and gauge.wraps_at_j is not None:
                risen %= gauge.wraps_at_j
            if risen < 0:
                # Reset, as by a driver that was reloaded: what was lost on the way is not known.
                self._breaks[gauge.name] += 1
                continue
            self._joules[gauge.name] += risen

    def _keep_reading(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            with self._lock:
                self._count()

    def _reading(self, span: _Span) -> EnergyReading:
        components = []
        for gauge in self._gauges:
            joules = span.joules[gauge.name]
            whole = gauge.name not in span.broken
            # Joules of a stretch shorter than the gauge's step may have been counted outside it:
            # where such stretches are more than a small part of the whole, they are not known.
            long = span.seconds >= gauge.step_s
            long = long and span.short[gauge.name] <= _MOST_SHORT * span.seconds
            known = whole and joules > 0 and long
            components.append(
                Component(
                    name=gauge.name,
                    joules=joules if known else None,
                    source=gauge.source,
                    relative_error=gauge.relative_error,
                    counted=gauge.counted,
                )
            )
        reading = EnergyReading(
            components=tuple(components),
            seconds=span.seconds,
            meter=self.name,
            other_load=None if span.cpu is None else other_load(span.cpu),
        )
        return reading if self._calibration is None else self._calibration.apply(reading)


class Window:
    """A stretch of time and its energy; `Meter.window` makes it.

    A window that has ended may be started again: it adds up. Stretches that are each too short
    for a counter stay unknown also together, because what they used may have been counted in the
    stretches between them; a window round all of them knows.

    Args:
        meter: what reads it.
        name: what goes on in it, for messages.

    Example:
        >>> with open_meter("none") as meter:
        ...     window = meter.window("validation")
        ...     for _ in range(3):
        ...         with window:
        ...             pass
        >>> window.reading.seconds > 0
        True
    """

    def __init__(self, meter: Meter, name: str) -> None:
        self.name = name
        self._meter = meter
        self._start: _Moment | None = None
        self._span = _Span()
        self._reading: EnergyReading | None = None

    @property
    def reading(self) -> EnergyReading:
        """What was measured.

        Raises:
            InputError: the window has not ended.
        """
        if self._reading is None:
            raise InputError(
                f"The window {self.name!r} has not ended; read it after its `with` block, or "
                "after stop()."
            )
        return self._reading

    @property
    def joules(self) -> float | None:
        """Joules of all that counts; None where one part is not known, as in a short window."""
        return self.reading.joules

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return self.reading.seconds

    @property
    def components(self) -> tuple[Component, ...]:
        """Joules by part of the machine, and how each is known."""
        return self.reading.components

    def start(self) -> Window:
        """Start the window and return it.

        Raises:
            InputError: it has started and not ended, or the meter is closed.
        """
        if self._start is not None:
            raise InputError(
                f"The window {self.name!r} has started already; end it before it starts again."
            )
        self._start = self._meter._now()
        return self

    def stop(self) -> EnergyReading:
        """End the window and return what was measured; a second call changes nothing.

        Raises:
            InputError: the window has not started, or the meter was closed meanwhile.
        """
        if self._start is not None:
            end = self._meter._now()
            self._span += _Span.between(self._start, end, self._meter.describe())
            self._start = None
            self._reading = self._meter._reading(self._span)
        if self._reading is None:
            raise InputError(f"The window {self.name!r} has not started; enter it with `with`.")
        return self._reading

    def counted(self) -> dict[str, Any]:
        """Return what was counted so far, as plain types, for `Meter.window` to go on with."""
        span = self._span
        return {
            "seconds": span.seconds,
            "joules": dict(span.joules),
            "broken": sorted(span.broken),
            "short": dict(span.short),
            "cpu": None if span.cpu is None else list(astuple(span.cpu)),
        }

    def go_on(self, counted: Mapping[str, Any]) -> None:
        """Begin with what another window has counted."""
        self._span = _Span(
            seconds=counted["seconds"],
            joules=counted["joules"],
            broken=frozenset(counted["broken"]),
            short=counted["short"],
            cpu=None if counted["cpu"] is None else CpuTimes(*counted["cpu"]),
        )
        self._reading = self._meter._reading(self._span)

    def __enter__(self) -> Window:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _synchronise() -> None:
    """Wait for what is queued on GPUs, or its energy would fall into the next window."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return
    for place in range(cuda.device_count()):
        # Asking a device that is not in use to wait would set up a context on it.
        if cuda.memory_reserved(place):
            cuda.synchronize(place)
