"""The meter on replayed counters and on the real codecarbon: windows, sources, side effects."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from resque.errors import InputError, MissingExtraError, ResqueWarning
from resque.history.records import Component, EnergyReading
from resque.measure import calibration as calibrations
from resque.measure import codecarbon_backend, energy, machine
from resque.measure.backend import Gauge
from resque.measure.calibration import Calibration, calibrate
from resque.measure.comparison import meters_on_load
from resque.measure.energy import Meter, open_meter
from resque.measure.machine import CpuTimes, hardware_of, other_load
from resque.measure.replay import replay_meter


def watched(trace: Any, **options: Any) -> EnergyReading:
    """The reading of one window over the first two rows of a trace."""
    with replay_meter(trace, **options) as meter, meter.window("all") as window:
        pass
    return window.reading


class Counters:
    """A backend that says what it is told to."""

    name = "scripted 1.0"
    missing = ("a better sensor",)
    longest_gap_s: float | None = None

    def __init__(self, *gauges: Gauge) -> None:
        self.gauges = gauges
        self.joules: dict[str, float] = {}
        self.reads = 0
        self.closed = 0

    def read(self) -> Mapping[str, float]:
        self.reads += 1
        return {**self.joules}

    def close(self) -> None:
        self.closed += 1


CPU = Gauge(name="cpu", source="counter", relative_error=0.1, why="scripted")


# --- windows -----------------------------------------------------------------------------------


def test_a_window_is_the_difference_of_two_totals() -> None:
    """Joules and seconds are those between the two readings, whatever was before."""
    reading = watched([(10.0, {"cpu": 700.0}), (14.5, {"cpu": 760.0})])
    assert (60.0, 4.5) == (reading.joules, reading.seconds)


def test_wrap_around_is_undone() -> None:
    """A counter that starts again at 100 J and reads 95, 15, 90, 20 rose by 20, 75 and 30."""
    trace = [(float(t), {"cpu": j}) for t, j in enumerate((95.0, 15.0, 90.0, 20.0))]
    with replay_meter(trace, wraps_at_j={"cpu": 100.0}) as meter:
        outer = meter.start_window("outer")
        inner = meter.start_window("inner")
        assert 75.0 == inner.stop().joules
        assert 125.0 == outer.stop().joules


def test_a_counter_that_stands_still_gives_none_and_loses_nothing() -> None:
    """What a short window held is in the window around it; it is never reported as zero."""
    trace = [(0.0, {"cpu": 5.0}), (1.0, {"cpu": 5.0}), (2.0, {"cpu": 5.0}), (3.0, {"cpu": 9.0})]
    with (
        replay_meter(trace) as meter,
        meter.window("outer") as outer,
        meter.window("still") as still,
    ):
        pass
    assert still.joules is None
    assert [None] == [part.joules for part in still.components]
    assert (1.0, 4.0) == (still.seconds, outer.joules)


def test_a_window_below_the_step_of_a_counter_is_unknown() -> None:
    """A counter that moves every 0.1 s says nothing of 50 ms, although it may have moved."""
    trace = [(0.0, {"gpu": 0.0}), (0.05, {"gpu": 30.0}), (0.2, {"gpu": 60.0})]
    assert watched(trace, step_s=0.1).joules is None
    assert 30.0 == watched(trace[1:], step_s=0.1).joules


def test_windows_nest_and_overlap() -> None:
    """Windows that start and end in any order each have their own joules."""
    trace = [(float(t), {"cpu": 10.0 * t * t}) for t in range(6)]
    with replay_meter(trace) as meter:
        first, second = meter.start_window("a"), meter.start_window("b")
        third = meter.start_window("c")
        readings = {"a": first.stop(), "c": third.stop(), "b": second.stop()}
    assert {"a": 90.0, "b": 240.0, "c": 120.0} == {k: r.joules for k, r in readings.items()}
    assert {"a": 3.0, "b": 4.0, "c": 2.0} == {k: r.seconds for k, r in readings.items()}


def test_windows_in_a_row_add_up_to_the_one_around_them() -> None:
    """No joule falls between two windows of one clock, and none is counted twice."""
    now = [0.0]
    trace = [(t / 10, {"cpu": 0.7 * t**1.5}) for t in range(101)]
    with replay_meter(trace, clock=lambda: now[0]) as meter, meter.window("all") as outer:
        parts = []
        for step in range(10):
            with meter.window(f"{step}") as window:
                now[0] += 1.0
            parts.append(window.joules)
    assert outer.joules == pytest.approx(sum(parts), rel=1e-12)
    assert outer.joules == pytest.approx(700.0, rel=1e-12)


def test_an_exception_inside_ends_the_window() -> None:
    """The window of an epoch that failed is there all the same."""
    with replay_meter([(0.0, {"cpu": 1.0}), (1.0, {"cpu": 3.0})]) as meter:
        window = meter.window("fails")
        with pytest.raises(RuntimeError, match="inside"), window:
            raise RuntimeError("inside")
    assert 2.0 == window.joules


def test_a_window_that_has_not_ended_says_so() -> None:
    """Reading too early is an error that names the window."""
    with replay_meter([(0.0, {"cpu": 1.0})]) as meter:
        window = meter.window("epoch 3")
        with pytest.raises(InputError, match="window 'epoch 3' has not started"):
            window.stop()
        window.start()
        for early in ("joules", "seconds", "reading", "components"):
            with pytest.raises(InputError, match="window 'epoch 3' has not ended"):
                getattr(window, early)
        with pytest.raises(InputError, match="window 'epoch 3' has started already"):
            window.start()


def test_stopping_twice_changes_nothing() -> None:
    """The first end counts."""
    trace = [(float(t), {"cpu": float(t)}) for t in range(4)]
    with replay_meter(trace) as meter:
        window = meter.start_window("once")
        assert window.stop() is window.stop()
    assert (1.0, 1.0) == (window.joules, window.seconds)


def test_a_clock_of_the_day_that_jumps_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the clock back an hour leaves the length of a window alone."""
    with open_meter("none") as meter, meter.window("jump") as window:
        monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= window.seconds < 60


def test_a_reset_counter_gives_none_not_a_negative_number() -> None:
    """A driver that was reloaded loses joules; windows across it do not know theirs."""
    trace = [(float(t), {"gpu": j}) for t, j in enumerate((50.0, 80.0, 3.0, 7.0, 9.0))]
    with replay_meter(trace) as meter:
        across, before = meter.start_window("across"), meter.start_window("before")
        lost = before.stop().joules
        after = meter.start_window("after")
        assert 2.0 == after.stop().joules
        assert (None, None) == (lost, across.stop().joules)


def test_a_part_that_cannot_be_read_is_unknown_and_the_rest_is_not() -> None:
    """A part that one reading leaves out is unknown in every window across it."""
    trace = [(0.0, {"cpu": 1.0, "gpu": 1.0}), (1.0, {"cpu": 3.0}), (2.0, {"cpu": 4.0, "gpu": 9.0}),
             (3.0, {"cpu": 8.0, "gpu": 12.0})]  # fmt: skip
    with replay_meter(trace) as meter:
        across = meter.start_window("across")
        meter.start_window("unread")
        after = meter.start_window("after")
        readings = {"after": after.stop(), "across": across.stop()}
    parts = {name: {p.name: p.joules for p in r.components} for name, r in readings.items()}
    expected = {"after": {"cpu": 4.0, "gpu": 3.0}, "across": {"cpu": 7.0, "gpu": None}}
    assert expected == parts
    assert (7.0, None) == (readings["after"].joules, readings["across"].joules)


def test_no_reading_is_ever_zero() -> None:
    """Over every pair of rows of a trace with pauses, joules are above 0 or unknown."""
    counts = [0.0, 0.0, 2.0, 2.0, 2.0, 7.0, 7.0]
    for first in range(len(counts)):
        for last in range(first, len(counts)):
            trace = [(float(t), {"cpu": counts[t]}) for t in (first, last)]
            joules = watched(trace).joules
            assert joules is None or joules > 0


def test_a_meter_of_another_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters do not survive a fork."""
    with replay_meter([(0.0, {"cpu": 1.0})]) as meter:
        here = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        with pytest.raises(InputError, match="opened by another process"):
            meter.start_window("child")


def test_a_closed_meter_says_so() -> None:
    """Closing twice is fine, measuring after it is not; the backend is closed once."""
    backend = Counters(CPU)
    meter = Meter(backend)
    meter.close()
    meter.close()
    assert 1 == backend.closed
    with pytest.raises(InputError, match=r"meter 'scripted 1\.0' is closed"):
        meter.start_window("late")


def test_a_backend_that_must_be_read_often_is() -> None:
    """A counter that wraps is read in the background, and its thread ends with the meter."""
    backend = Counters(
        Gauge(name="cpu", source="counter", relative_error=0.1, why="", wraps_at_j=9.0)
    )
    backend.longest_gap_s = 0.001
    backend.joules = {"cpu": 1.0}
    before = threading.active_count()
    with Meter(backend) as meter:
        assert before + 1 == threading.active_count()
        window = meter.start_window("long")
        for value in (8.0, 4.0, 2.0):
            backend.joules = {"cpu": value}
            seen, limit = backend.reads, time.monotonic() + 10
            while backend.reads < seen + 2 and time.monotonic() < limit:
                time.sleep(0.001)
        assert 19.0 == window.stop().joules
    assert before == threading.active_count()


# --- what the total is made of -----------------------------------------------------------------


PARTS = [(0.0, {"cpu": 0.0, "ram": 0.0}), (1.0, {"cpu": 10.0, "ram": 20.0})]
SOURCES: Any = {"cpu": "model", "ram": "constant"}


@pytest.mark.parametrize(("include", "expected"), [(False, 10.0), (True, 30.0)])
def test_constants_count_only_when_asked(include: bool, expected: float) -> None:
    """The energy of memory is shown apart unless it is asked into the total."""
    reading = watched(PARTS, sources=SOURCES, include_constants=include)
    assert expected == reading.joules
    assert {"cpu": True, "ram": include} == {c.name: c.counted for c in reading.components}
    assert 20.0 == next(c.joules for c in reading.components if c.name == "ram")


@pytest.mark.parametrize(("source", "modelled"), [("model", True), ("counter", False)])
def test_a_meter_says_whether_it_models(source: Any, modelled: bool) -> None:
    """Modelled is a total in which something counts that no counter gave."""
    meter = replay_meter(PARTS, sources={"cpu": source, "ram": "constant"})
    assert (modelled, modelled) == (meter.modelled, watched(PARTS, sources={"cpu": source,
                                    "ram": "constant"}).modelled)  # fmt: skip


def test_a_meter_describes_its_parts() -> None:
    """Each part has its source, its band and how it comes about, and what is missing is said."""
    meter = Meter(Counters(CPU))
    (part,) = meter.describe()
    assert CPU == part
    assert ["a better sensor"] == meter.missing
    assert "<Meter scripted 1.0>" == repr(meter)
    meter.close()


def test_without_a_meter_there_are_seconds_only() -> None:
    """The meter "none" knows time, and nothing that it could be wrong about."""
    with open_meter("none") as meter, meter.window("nothing") as window:
        pass
    assert (None, (), "none", False) == (
        window.joules, window.components, window.reading.meter, meter.modelled
    )  # fmt: skip


def test_unknown_meters_are_named() -> None:
    """A misspelt name comes back with the nearest one."""
    with pytest.raises(InputError, match=r"There is no meter 'codecarbn'; .*mean 'codecarbon'"):
        open_meter("codecarbn")


def test_an_open_meter_is_returned_as_it_is() -> None:
    """Options belong where the meter is opened."""
    with open_meter("none") as meter:
        assert open_meter(meter) is meter
        with pytest.raises(InputError, match="meter 'none' is open already"):
            open_meter(meter, include_constants=True)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ([], "has no rows"),
        ([(0.0, {}), (2.0, {}), (1.5, {})], "goes back at row 2: from 2 s to 1.5 s"),
        ([(0.0, {"cpu": float("nan")})], "Row 0 of the trace is not finite"),
        ([(0.0, {"cpu": 120.0})], "Row 0 of the trace says 120 J of 'cpu'.* at 100 J"),
    ],
)
def test_traces_that_cannot_be(trace: Any, message: str) -> None:
    """A trace is checked before it is played, and the row is named."""
    with pytest.raises(InputError, match=message):
        replay_meter(trace, wraps_at_j={"cpu": 100.0})


def test_gpus_in_use_are_waited_for_and_others_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends of a window, the devices that hold memory are synchronised."""
    waited: list[int] = []
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 3,
        memory_reserved=lambda place: 100 * (place == 1),
        synchronize=waited.append,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    with replay_meter([(0.0, {"cpu": 1.0})]) as meter, meter.window("gpu"):
        assert [1] == waited
    assert [1, 1] == waited
    monkeypatch.delitem(sys.modules, "torch")
    energy._synchronise()
    assert "torch" not in sys.modules


# --- the load of others ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "expected"),
    [((40.0, 30.0, 10.0), 0.5), ((40.0, 10.0, 20.0), 0.0), ((40.0, 60.0, 0.0), 1.0),
     ((0.0, 0.0, 0.0), None)],
)  # fmt: skip
def test_other_load_by_hand(after: tuple[float, float, float], expected: float | None) -> None:
    """Busy seconds of the machine without our own, as a share of its cores, within 0 and 1."""
    before = CpuTimes(capacity_s=100.0, busy_s=50.0, own_s=20.0)
    later = before + CpuTimes(*after)
    assert expected == other_load(later - before)


def test_children_that_have_ended_are_still_ours() -> None:
    """The CPU time of a child counts as our own while it runs and after it has ended."""
    import subprocess

    before = machine.cpu_times().own_s
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    running = machine.cpu_times().own_s
    child.communicate(b"\n")
    ended = machine.cpu_times().own_s
    assert running >= before + 0.28  # ticks of 10 ms, of user and of system time
    assert ended >= running - 0.02


def test_a_window_knows_the_load_of_others() -> None:
    """The share reaches the reading; a window that no tick fell into knows none."""
    times = iter([CpuTimes(0.0, 0.0, 0.0), CpuTimes(100.0, 60.0, 20.0)])
    now = iter([0.0, 50.0])
    backend = Counters(CPU)
    meter = Meter(backend, clock=lambda: next(now), load=lambda: next(times))
    with meter.window("shared") as window:
        pass
    assert 0.4 == window.reading.other_load
    meter.close()


def test_hardware_is_that_of_this_machine() -> None:
    """Cores are those this process may use; a virtual machine is known as one, or unknown."""
    found = hardware_of(torch.device("cpu"))
    assert torch.get_num_threads() == found.threads
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_gb == pytest.approx(psutil.virtual_memory().total / 1e9, abs=0.1)
    assert found.virtual in (True, False, None)
    assert found.name == found.processor


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flags : fpu hypervisor sse\n", True), ("flags : fpu sse\n", False),
     ("Features : fp asimd\n", None), (None, None)],
)  # fmt: skip
def test_a_virtual_machine_is_known_by_its_processor(
    text: str | None, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bit that x86 sets for a guest; elsewhere nobody can tell."""
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert expected is machine.is_virtual.__wrapped__()


# --- calibration -------------------------------------------------------------------------------


RUNS = [(100.0, 10.0), (300.0, 10.0), (500.0, 20.0), (90.0, 30.0), (700.0, 15.0), (50.0, 5.0)]


def reading(joules: float | None, seconds: float = 1.0, **changes: Any) -> EnergyReading:
    """A reading of the meter "replay" with one counter."""
    cpu = Component(name="cpu", joules=joules, source=changes.pop("source", "counter"),
                    relative_error=0.1)  # fmt: skip
    return EnergyReading(components=(cpu,), seconds=seconds, **{"meter": "replay"} | changes)


def found(scale: float = 1.25, idle_w: float = 40.0, **options: Any) -> Calibration:
    """The calibration of readings whose wall joules follow that law exactly."""
    wall = [scale * joules + idle_w * seconds for joules, seconds in RUNS]
    return calibrate([reading(*run) for run in RUNS], wall, **options)


@pytest.mark.parametrize(("scale", "idle_w"), [(1.25, 40.0), (0.8, 0.0), (0.0, 60.0)])
def test_a_known_law_is_found(scale: float, idle_w: float) -> None:
    """Exact data give back their scale and idle power, and a band of 0."""
    made = found(scale, idle_w)
    assert (scale, idle_w) == pytest.approx((made.scale, made.idle_w), rel=1e-9, abs=1e-9)
    assert made.relative_error == pytest.approx(0.0, abs=1e-9)
    assert 6 == made.readings


def test_both_terms_stay_at_zero_or_above() -> None:
    """A wall meter that loses joules over time gives an idle power of 0, not a negative one."""
    wall = [2.0 * joules - 3.0 * seconds for joules, seconds in RUNS]
    made = calibrate([reading(*run) for run in RUNS], wall)
    assert 0.0 == made.idle_w
    assert made.scale > 0


def test_the_band_is_that_of_readings_left_out() -> None:
    """One wall number 30 % off shows in the band, which is the worst of so few left out."""
    wall = [2.0 * joules + 10.0 * seconds for joules, seconds in RUNS]
    wall[2] *= 1.3
    kept = [place for place in range(len(RUNS)) if place != 2]
    without = calibrate([reading(*RUNS[place]) for place in kept], [wall[place] for place in kept])
    predicted = without.scale * RUNS[2][0] + without.idle_w * RUNS[2][1]
    made = calibrate([reading(*run) for run in RUNS], wall)
    assert made.relative_error >= abs(predicted / wall[2] - 1) - 1e-9
    assert made.relative_error < 0.5


def test_a_calibrated_reading_is_of_the_wall() -> None:
    """One component, which names its calibration, in place of all."""
    made = found()
    wall = made.apply(reading(200.0, 4.0, other_load=0.3))
    assert wall.joules == pytest.approx(1.25 * 200 + 40 * 4, rel=1e-9)
    assert (made.id, "wall", "counter", 0.3) == (
        wall.calibration, wall.components[0].name, wall.components[0].source, wall.other_load
    )  # fmt: skip
    assert made.apply(reading(None, 4.0)).joules is None


def test_a_calibrated_model_stays_modelled() -> None:
    """A correction makes no counter of a model."""
    readings = [reading(*run, source="model") for run in RUNS]
    made = calibrate(readings, [joules + 5 * seconds for joules, seconds in RUNS])
    assert made.apply(readings[0]).modelled


@pytest.mark.parametrize(
    ("readings", "wall", "message"),
    [
        ([reading(1.0)] * 4, [1.0] * 4, "at least 5 readings; got 4"),
        ([reading(1.0)] * 5, [1.0] * 4, "got 5 readings and 4 wall joules"),
        ([reading(1.0)] * 4 + [reading(1.0, meter="zeus 1")], [1.0] * 5, "Reading 4 is of zeus 1"),
        ([reading(1.0)] * 4 + [reading(None)], [1.0] * 5, "Reading 4 has no joules: .* 1 s"),
        ([reading(1.0)] * 5, [1.0, 1.0, 0.0, 1.0, 1.0], "above 0; got 0.0 for reading 2"),
        ([reading(1.0)] * 5, [1.0, float("nan"), 1.0, 1.0, 1.0], "got nan for reading 1"),
        ([reading(1.0)] * 4 + [reading(1.0, calibration="wall-1")], [1.0] * 5,
         "Reading 4 was calibrated already, with 'wall-1'"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated(readings: Any, wall: Any, message: str) -> None:
    """Too few readings, of different meters, or numbers that mean nothing are refused."""
    with pytest.raises(InputError, match=message):
        calibrate(readings, wall)


def test_a_calibration_is_of_its_meter_and_applied_once() -> None:
    """Readings of another meter, or of other parts, or corrected already are refused."""
    made = found()
    with pytest.raises(
        InputError, match=r"is of replay \(cpu\); it says nothing of zeus 1 \(cpu\)"
    ):
        made.apply(reading(1.0, meter="zeus 1"))
    with pytest.raises(InputError, match="was calibrated already, with 'wall-"):
        made.apply(made.apply(reading(1.0)))
    with pytest.raises(InputError, match=r"says nothing of replay \(cpu, gpu\)"):
        replay_meter([(0.0, {"cpu": 0.0, "gpu": 0.0})], calibration=made)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    """What was saved is what is read, with the same id."""
    made = found(name="plug")
    made.save(tmp_path / "plug.json")
    read = Calibration.load(tmp_path / "plug.json")
    assert made == read
    assert read.id.startswith("plug-")
    assert str(read).startswith(f"{made.id}: 1.25 x joules + 40 W x seconds")


def test_a_changed_calibration_is_noticed(tmp_path: Path) -> None:
    """A number edited by hand no longer has the id it was written with."""
    path = tmp_path / "plug.json"
    found().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"idle_w": 99.0}))
    with pytest.raises(InputError, match="was changed since it was written: it says 'wall-"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as a calibration .JSONDecodeError"), ("[1]", "is no calibration"),
     ('{"format": "resque-calibration"}', "cannot be read as a calibration .KeyError: 'name'")],
)  # fmt: skip
def test_a_file_that_is_no_calibration(text: str, message: str, tmp_path: Path) -> None:
    """It is named, with what is wrong."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Calibration.load(tmp_path / "x.json")


def test_a_calibration_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt on one processor says nothing of another."""
    made = found()
    monkeypatch.setattr(calibrations, "_processor", lambda: "Other CPU")
    with pytest.raises(InputError, match="this machine has 'Other CPU'"):
        open_meter("none", calibration=made)


def test_a_meter_applies_its_calibration_to_every_window(tmp_path: Path) -> None:
    """The windows of a meter that was opened with one are of the wall."""
    made = found()
    trace = [(0.0, {"cpu": 0.0}), (2.0, {"cpu": 100.0})]
    wall = watched(trace, calibration=made)
    assert wall.joules == pytest.approx(1.25 * 100 + 40 * 2, rel=1e-9)
    assert made.id == wall.calibration


# --- the real codecarbon -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def meter() -> Iterator[Meter]:
    """One meter for this file: opening one takes up to two seconds."""
    with open_meter("codecarbon") as opened:
        yield opened


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


def test_codecarbon_measures_windows_that_add_up(meter: Meter) -> None:
    """Three windows in a row hold what the one around them holds, but for the time between."""
    parts = []
    with meter.window("all") as outer:
        for _ in range(3):
            with meter.window("part") as window:
                busy(0.2)
            parts.append(window)
    assert outer.joules is not None
    assert outer.joules > 0
    between = 1 - sum(part.seconds for part in parts) / outer.seconds
    assert outer.joules == pytest.approx(sum(p.joules or 0 for p in parts), rel=between + 0.05)
    assert outer.reading.other_load is not None
    assert meter.name.startswith("codecarbon 3.")
    assert meter.name == outer.reading.meter


def test_a_window_too_short_for_codecarbon_is_unknown(meter: Meter) -> None:
    """A window of no length knows no joules."""
    with meter.window("short") as window:
        pass
    assert window.joules is None
    assert window.seconds < 0.1


def test_memory_is_a_constant_and_is_not_counted(meter: Meter) -> None:
    """Where codecarbon guesses the power of memory, it stands apart with its band."""
    parts = {part.name: part for part in meter.describe()}
    assert ("constant", 1.0, False) == (
        parts["ram"].source, parts["ram"].relative_error, parts["ram"].counted
    )  # fmt: skip
    assert parts["cpu"].counted


def test_reading_codecarbon_often_costs_no_memory(meter: Meter) -> None:
    """The list of tasks that codecarbon keeps does not grow with the readings."""
    backend: Any = meter._backend
    for _ in range(20):
        backend._read_at = 0.0
        backend.read()
    assert 1 == len(backend._tracker._tasks)


def test_a_guest_is_not_billed_for_the_whole_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest's maximum is by its own threads; a real machine's is looked up."""
    cpu = pytest.importorskip("codecarbon.core.cpu")
    monkeypatch.setattr(cpu, "is_rapl_available", lambda: False)
    monkeypatch.setattr(codecarbon_backend, "is_virtual", lambda: True)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 6)
    assert 24 == codecarbon_backend._power_of_guest()
    monkeypatch.setattr(codecarbon_backend, "is_virtual", lambda: False)
    assert codecarbon_backend._power_of_guest() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "is absent here"),
        ([""], "is empty, as in most containers"),
        (["intel-rapl:0"], "only root may read it"),
    ],
)
def test_three_ways_to_miss_rapl(
    make: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent, empty and for root alone are three different things to do something about."""
    folder = tmp_path / "powercap"
    for zone in make:
        (folder / zone).mkdir(parents=True, exist_ok=True)
        if zone:
            (folder / zone / "energy_uj").write_text("1")
    monkeypatch.setattr(codecarbon_backend, "_POWERCAP", folder)
    monkeypatch.setattr(sys, "platform", "linux")
    # The tests may be run by root, who may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert message in codecarbon_backend._missing_cpu()


def gpu_part(counter: bool) -> Any:
    device = SimpleNamespace(gpu_index=0, _gpu_name="H200", _has_counter=counter, handle=None)
    return SimpleNamespace(_get_gpu_ids=lambda: [0], devices=SimpleNamespace(devices=[device]))


@pytest.mark.parametrize(
    ("counter", "partitioned", "visible", "source", "reason"),
    [
        (True, False, "0", "counter", ""),
        (False, False, "0", "model", "gives no count of energy"),
        (True, True, "0", None, "partitioned"),
        (True, False, "", None, ""),
    ],
)
def test_what_counts_as_a_gpu(
    counter: bool,
    partitioned: bool,
    visible: str,
    source: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The energy of a GPU is counted, modelled or, for a partition or a hidden one, nobody's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(codecarbon_backend, "_is_partitioned", lambda device: partitioned)
    gauge, said = codecarbon_backend._gpu(gpu_part(counter))
    assert source == (gauge and gauge.source)
    assert reason in (said or "")


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything that a meter could leave behind."""
    loggers = {
        name: (tuple(logger.handlers), logger.level, logger.propagate, logger.disabled,
               tuple(logger.filters))
        for name in (None, "codecarbon")
        for logger in [logging.getLogger(name)]
    }  # fmt: skip
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    files = sorted(str(path) for path in folder.rglob("*"))
    return {"loggers": loggers, "signals": signals, "files": files, "environ": dict(os.environ)}


@pytest.mark.parametrize("config", ["[codecarbon]\nforce_ram_power = 9999\npue = 7\n", "garbage"])
def test_a_meter_leaves_no_trace_and_heeds_no_configuration(
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    meter: Meter,
) -> None:
    """No file, thread, handler, logger or socket, whatever codecarbon's configuration says."""
    home, cwd, temporary = (tmp_path / name for name in ("home", "cwd", "temporary"))
    for folder in (home, cwd, temporary):
        folder.mkdir()
    for folder in (home, cwd):
        (folder / ".codecarbon.config").write_text(config)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "12345")
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv")
    monkeypatch.setenv("CODECARBON_LOG_LEVEL", "debug")
    logging.getLogger("codecarbon").addHandler(handler := logging.StreamHandler())
    logging.getLogger("codecarbon").setLevel(logging.DEBUG)

    def refused(*args: Any, **options: Any) -> Any:
        raise AssertionError("a socket was asked for")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refused)
    before, threads = snapshot(tmp_path), threading.active_count()
    with open_meter("codecarbon") as opened:
        assert {"force_ram_power": None, "pue": 1.0, "output_methods": []}.items() <= (
            opened._backend._tracker._conf.items()  # type: ignore[attr-defined]
        )
        assert meter.describe() == opened.describe()
        assert before["loggers"] == snapshot(tmp_path)["loggers"]
        with opened.window("quiet") as window:
            busy(1.2)  # longer than a second: codecarbon's own thread ran
    assert window.joules
    assert before == snapshot(tmp_path)
    limit = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < limit:
        time.sleep(0.01)
    assert threads == threading.active_count()
    logging.getLogger("codecarbon").removeHandler(handler)
    logging.getLogger("codecarbon").setLevel(logging.NOTSET)
    assert ("", "") == tuple(capfd.readouterr())


def test_a_codecarbon_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that its constructor would swallow is passed on."""
    tracker = pytest.importorskip("codecarbon.emissions_tracker")

    def broken() -> None:
        raise OSError("no table here")

    monkeypatch.setattr(tracker, "DataSource", broken)
    with pytest.raises(
        InputError, match=r"codecarbon 3.* could not start \(OSError: no table here"
    ):
        open_meter("codecarbon")


# --- zeus --------------------------------------------------------------------------------------


class FakeMonitor:
    """Zeus' monitor as its source documents it, with counters that a test sets."""

    counts: dict[str, dict[int, float] | None]

    def __init__(self) -> None:
        self.open: dict[str, Any] = {}

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        assert key not in self.open
        self.open[key] = {name: part and {**part} for name, part in self.counts.items()}

    def end_window(self, key: str, sync_execution: bool = True) -> SimpleNamespace:
        start = self.open.pop(key)
        parts = {
            name: part and {place: value - start[name][place] for place, value in part.items()}
            for name, part in self.counts.items()
        }
        return SimpleNamespace(**parts, total_energy=sum((parts["gpu_energy"] or {}).values()))


@pytest.fixture
def zeus(monkeypatch: pytest.MonkeyPatch) -> type[FakeMonitor]:
    """A package of zeus' names."""
    module = SimpleNamespace(__version__="0.16.0", __spec__=object())
    monkeypatch.setitem(sys.modules, "zeus", module)
    monkeypatch.setitem(sys.modules, "zeus.monitor", SimpleNamespace(ZeusMonitor=FakeMonitor))
    FakeMonitor.counts = {"gpu_energy": {0: 5.0, 1: 7.0}, "cpu_energy": {0: 100.0},
                          "dram_energy": None}  # fmt: skip
    return FakeMonitor


def test_zeus_counts_each_part_by_itself(zeus: type[FakeMonitor]) -> None:
    """GPUs are summed, the processor stands beside them, and memory without a counter is absent."""
    with open_meter("zeus") as meter:
        window = meter.start_window("epoch")
        time.sleep(0.12)
        zeus.counts = {"gpu_energy": {0: 15.0, 1: 27.0}, "cpu_energy": {0: 104.0},
                       "dram_energy": None}  # fmt: skip
        found = window.stop()
    assert {"gpu": 30.0, "cpu": 4.0} == {part.name: part.joules for part in found.components}
    assert (34.0, "zeus 0.16.0", False, []) == (
        found.joules, found.meter, found.modelled, meter.missing
    )  # fmt: skip


def test_zeus_without_any_counter_is_refused(zeus: type[FakeMonitor]) -> None:
    """Zeus itself would say 0 J."""
    zeus.counts = {"gpu_energy": {}, "cpu_energy": None, "dram_energy": None}
    with pytest.raises(InputError, match="zeus finds no GPU and no RAPL"):
        open_meter("zeus")


def test_zeus_that_cannot_start_says_why(
    zeus: type[FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its errors come back as one of ours, with their first line."""

    def denied(self: FakeMonitor) -> None:
        raise RuntimeError("root privilege is required")

    monkeypatch.setattr(zeus, "__init__", denied)
    with pytest.raises(InputError, match=r"RuntimeError: root privilege is required"):
        open_meter("zeus")


def test_zeus_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names what installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"'zeus', which is not installed: .*resque\[zeus\]"
    ):
        open_meter("zeus")


# --- side by side ------------------------------------------------------------------------------


def test_meters_are_compared_on_one_load(
    zeus: type[FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each meter that opens has its reading; one that does not says why."""
    zeus.counts = {"gpu_energy": {}, "cpu_energy": None, "dram_energy": None}
    loads: list[float] = []

    def load(seconds: float) -> None:
        loads.append(seconds)
        busy(seconds)

    codecarbon, other = meters_on_load(0.3, load=load)
    assert [0.3] == loads
    assert codecarbon.reading is not None
    assert codecarbon.watts == pytest.approx(
        codecarbon.reading.joules / codecarbon.reading.seconds  # type: ignore[operator]
    )
    assert (None, None) == (other.reading, other.watts)
    assert "zeus finds no GPU" in other.missing[0]
    plain = json.loads(json.dumps([codecarbon.to_dict(), other.to_dict()]))
    assert {"cpu", "ram"} <= {part["name"] for part in plain[0]["components"]}
    assert plain[1]["joules"] is None


def test_a_calibration_from_one_load_warns() -> None:
    """At constant power the two terms cannot be told apart."""
    readings = [
        EnergyReading(
            components=(
                Component(name="cpu", joules=8.0 * s, source="counter", relative_error=0.1),
            ),
            seconds=float(s),
            meter="test 1",
        )
        for s in range(10, 70, 10)
    ]
    with pytest.warns(ResqueWarning, match="nearly the same power, 8 to 8 W"):
        calibrate(readings, [20.0 * reading.seconds for reading in readings])
