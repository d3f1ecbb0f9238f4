"""Peak memory of a profile over streamed representations, in processes of its own.

As a script, one such process: prints its peak in bytes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu",)
TITLE = "Peak memory of a profile"
SIZES, QUICK_SIZES = (100_000, 1_000_000), (10_000, 100_000)
WIDTH, CLASSES, BATCH_SIZE = 512, 100, 1000
GROWTH, ABOVE_TORCH = 10, 250  # %, MB

ABOUT = f"""\
The largest resident memory of a fresh process that profiles a stream of representations of
{WIDTH} values in {CLASSES} classes, made in batches of {BATCH_SIZE} and forgotten
(`resque.profile(None, batches)`), and of one that imports torch and does nothing. Medians of the
processes of each kind. No model is called.
"""
COLUMNS = ("what", "processes", "model calls", "peak", "reached")


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001  # of no matter here
    """Return one cell for torch alone, one per number of representations, and one for growth."""
    few, many = QUICK_SIZES if quick else SIZES
    peaks: dict[int, list[int]] = {0: [], few: [], many: []}
    for _ in range(1 if quick else 3):
        for n, found in peaks.items():
            command = [sys.executable, __file__, "--examples", str(n)]
            found.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    torch_alone, peak_few, peak_many = (statistics.median(found) for found in peaks.values())
    cells: list[dict[str, Any]] = [{"what": "`import torch`", "peaks": peaks[0]}]
    cells += [
        {
            "what": f"a profile of {n:,}",
            "peaks": peaks[n],
            "reached": (peak - torch_alone) / 1e6,
            "at_most": ABOVE_TORCH,
            "unit": "MB",
        }
        for n, peak in ((few, peak_few), (many, peak_many))
    ]
    growth = {
        "what": f"a profile of {many:,}, against one of {few:,}",
        "peaks": [],
        "reached": 100 * abs(peak_many / peak_few - 1),
        "at_most": GROWTH,
        "unit": "%",
    }
    return [*cells, growth]


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    peaks = cell["peaks"]
    reached = {
        None: "",
        "MB": "{:.0f} MB above `import torch`",
        "%": "{:.1f} % difference",
    }[cell.get("unit")]
    return [
        cell["what"],
        str(len(peaks)) if peaks else "",
        "0",
        f"{statistics.median(peaks) / 1e6:.0f} MB" if peaks else "",
        reached.format(cell.get("reached")),
    ]


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands ru_maxrss down from the process that starts a program, and that one is
        # large here; VmHWM begins anew with the program.
        for text in status.read_text(encoding="ascii").splitlines():
            if text.startswith("VmHWM:"):
                return int(text.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _stream(examples: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    for _ in range(examples // BATCH_SIZE):
        labels = torch.randint(CLASSES, (BATCH_SIZE,), generator=generator)
        yield torch.rand(BATCH_SIZE, WIDTH, generator=generator), labels


def main() -> None:
    """Profile so many representations, none for 0, and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, required=True)
    examples = parser.parse_args().examples
    import torch  # noqa: F401  # its memory is the measure of the rest

    if examples:
        import resque

        found = resque.profile(None, _stream(examples), progress=False)
        assert found.examples == examples
    print(peak_bytes())


if __name__ == "__main__":
    main()
