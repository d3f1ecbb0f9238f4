"""What a meter needs of whatever reads the energy: gauges that count joules up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from resque.history.records import EnergySource

# Error bands, as shares. GPU: power is sampled in 25 % of the time only on A100 and H100, and the
# energy counter inherits it (Yang, Adamek and Armour, SC 2024, arXiv 2312.02741): 5 to 10 % over
# seconds. CPU: RAPL follows reference meters within a few per cent on Intel since Haswell, less
# well on AMD, where it is itself computed from events; the worse of both is taken.
COUNTER_ERROR = 0.10
# On the RAPL profiles of four processors that codecarbon ships (data/hardware/cpu_load_profiling),
# its law of load is 51 % wrong on average, and laws fitted to three are 32 to 62 % wrong on the
# fourth.
MODEL_ERROR = 0.5
# A fixed power per memory module knows neither the modules nor what they do.
CONSTANT_ERROR = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauge:
    """One part of the machine whose energy a meter knows.

    Attributes:
        name: "cpu", "gpu", "ram", "dram" or "wall".
        source: "counter", "model" or "constant"; see `Component`.
        relative_error: error band, as a share.
        why: how the joules come about, in words.
        counted: whether they are part of the total.
        wraps_at_j: joules at which the count starts again from 0; None if it never does.
        step_s: seconds that the count may stand still although energy flows.
    """

    name: str
    source: EnergySource
    relative_error: float
    why: str
    counted: bool = True
    wraps_at_j: float | None = None
    step_s: float = 0.0


class Backend(Protocol):
    """Something that counts joules.

    Attributes:
        name: name and version.
        gauges: the parts of the machine that it knows.
        missing: sentences that say what would give a better reading here.
        longest_gap_s: seconds after which it must be read again lest a count be lost; None
            where it may wait.
    """

    name: str
    gauges: tuple[Gauge, ...]
    missing: tuple[str, ...]
    longest_gap_s: float | None

    def read(self) -> Mapping[str, float]:
        """Return the joules so far, by gauge; one that cannot be read now is left out."""
        ...

    def close(self) -> None:
        """Let go of the hardware."""
        ...


class NoBackend:
    """Knows no part of the machine: a meter on it gives seconds only."""

    name = "none"
    gauges: tuple[Gauge, ...] = ()
    missing: tuple[str, ...] = ()
    longest_gap_s: float | None = None

    def read(self) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""
