"""Paired timings, counted model calls, where they were measured, and how a bound is stated."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from resque.representation.signature import hardware_name

# All that the measured code runs on; a new version of any of them can move a number.
PACKAGES = ("resque", "torch", "numpy", "scikit-learn", "timm", "torchvision")


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    model: nn.Module | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Return the seconds of two ways of doing one thing, timed in turn: A, B, B, A, A, B, ...

    What slows the machine for a while slows both sides of a pair, and their ratio stays. The order
    alternates, so that what one side leaves behind (caches, threads that still wait for work) does
    not always meet the other.

    Args:
        first: one way, whose seconds are divided by those of the other; the caller warms up.
        second: the other way.
        pairs: how often both are run.
        model: whose calls are counted in each run.
        device: where the work is done; it is waited for.

    Returns:
        The seconds of all runs, the median, least and greatest ratio of a pair, the median ratio
        of CPU seconds, in which other programs do not show, and the number of calls of the model
        in one run of each.
    """
    sides: tuple[list[float], list[float]] = ([], [])
    busy: tuple[list[float], list[float]] = ([], [])
    calls: tuple[set[int], set[int]] = (set(), set())
    actions = ((0, first), (1, second))
    for pair in range(pairs):
        for side, action in actions if pair % 2 == 0 else actions[::-1]:
            with counted_calls(model) as count:
                start = time.process_time()
                sides[side].append(_seconds(action, device))
                busy[side].append(time.process_time() - start)
            calls[side].add(count[0])
    assert all(len(counts) == 1 for counts in calls), f"the model calls vary: {calls}"
    ratios = [a / b for a, b in zip(*sides, strict=True)]
    return {
        "first_s": sides[0],
        "second_s": sides[1],
        "cpu_ratio": statistics.median(a / b for a, b in zip(*busy, strict=True)),
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "pairs": pairs,
        "calls": [counts.pop() for counts in calls],
    }


def _seconds(action: Callable[[], object], device: torch.device | None) -> float:
    def wait() -> None:
        # A GPU works on after the call that gave it the work has returned.
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


@contextmanager
def counted_calls(model: nn.Module | None) -> Iterator[list[int]]:
    """Give a list whose one number is how often the model has been called since; 0 for None."""
    calls = [0]
    if model is None:
        yield calls
        return

    def count(*_: object) -> None:
        calls[0] += 1

    handle = model.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def signature(device: torch.device) -> dict[str, Any]:
    """Return where a number was measured: hardware, threads and versions, and no date."""
    found = {
        "device": device.type,
        "hardware": hardware_name(device),
        "processor": hardware_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    return found | ({"cuda": torch.version.cuda} if device.type == "cuda" else {})


def seconds_cell(seconds: Sequence[float]) -> str:
    """Return the median of some seconds, as a cell."""
    return f"{statistics.median(seconds):.3g} s"


def ratio_cell(timing: dict[str, Any]) -> str:
    """Return "median (least to greatest, n pairs)" of what `paired` found, as a cell."""
    ratio, pairs = timing["ratio"], timing["pairs"]
    if pairs == 1:
        return f"{ratio['median']:.4g} (1 pair)"
    return f"{ratio['median']:.4g} ({ratio['min']:.4g} to {ratio['max']:.4g}, {pairs} pairs)"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
