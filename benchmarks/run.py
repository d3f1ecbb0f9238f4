"""Measures what docs/benchmarks.md claims, prints the tables, and writes them.

    python benchmarks/run.py                     all of it, about 12 minutes on 2 cores
    python benchmarks/run.py --quick             smaller inputs, 1.5 minutes; writes nothing
    python benchmarks/run.py --only task         one benchmark; the others stay as they were
    python benchmarks/run.py --render            docs/benchmarks.md from the stored results

RESQUE_DATA names the folder of cifar10.npz; what needs it is left out, and said so, without it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import compare_models
import forward_pass
import history_store
import peak_memory
import predicted_labels
import probe_and_run
import recorder
import report
import rivals
import speedup
import startup
import task
import training_loop
from inputs import AbsentError
from measurement import markdown_table, signature

BENCHMARKS = {
    module.__name__: module
    for module in (
        forward_pass,
        speedup,
        peak_memory,
        task,
        startup,
        predicted_labels,
        training_loop,
        recorder,
        probe_and_run,
        rivals,
        history_store,
        compare_models,
        report,
    )
}
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Written by `make bench` (`python benchmarks/run.py`), which measures all of it anew; not by hand.
Ratios are medians over pairs of runs that take turns in one process, with the least and the
greatest pair in brackets; the data behind the tables are in benchmarks/results.
"""

QUICK = "A quick run: the inputs are smaller than those that the bounds are stated for."


def main() -> int:
    """Measure, print and write; return 0 also where a bound is missed, which the table says."""
    options = _options()
    if options.render:
        PAGE.write_text(page(_stored()), encoding="utf-8")
        return 0
    measured = []
    if options.quick:
        print(f"{QUICK}\n")
    for device in map(torch.device, options.device):
        for name, module in BENCHMARKS.items():
            if device.type not in module.DEVICES or name not in options.only:
                continue
            start = time.perf_counter()
            _say(f"{name} on {device.type} ...")
            try:
                cells = module.measure(device, quick=options.quick)
            except AbsentError as error:
                _say(f"{name} not measured: {error}")
                continue
            _say(f"{name} took {time.perf_counter() - start:.0f} s")
            result = {
                "benchmark": name,
                "command": "python benchmarks/run.py",
                "signature": signature(device),
                "cells": cells,
            }
            print(f"\n{section(result)}", flush=True)
            measured.append(result)
            if not options.quick:
                # At once: what comes after it may fail.
                RESULTS.mkdir(exist_ok=True)
                path = RESULTS / f"{name}-{result['signature']['device']}.json"
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{_summary(measured)}")
    if options.quick:
        _say("nothing was written")
        return 0
    PAGE.write_text(page(_stored()), encoding="utf-8")
    _say(f"written: {PAGE} and {RESULTS}")
    return 0


def page(results: list[dict[str, Any]]) -> str:
    """Return the page of all results, those of one machine together."""
    machines: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        machines.setdefault(_machine(result["signature"]), []).append(result)
    parts = [HEAD, _summary(results) + "\n"]
    for machine, its_results in machines.items():
        parts += [f"## {its_results[0]['signature']['hardware']}\n", machine + "\n"]
        parts += [section(result) for result in its_results]
    return "\n".join(parts)


def section(result: dict[str, Any]) -> str:
    """Return the heading, the text and the table of one result."""
    module = BENCHMARKS[result["benchmark"]]
    cells = result["cells"]
    bounded = any(_bound(cell) for cell in cells)
    columns = (*module.COLUMNS, *(("bound", "verdict") if bounded else ()))
    lines = [
        [*module.line(cell), *((_bound(cell), _verdict(cell)) if bounded else ())] for cell in cells
    ]
    return f"### {module.TITLE}\n\n{module.ABOUT}\n{markdown_table(columns, lines)}\n"


def _machine(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    gpu = f"CUDA {found['cuda']}, beside {found['processor']}, " if "cuda" in found else ""
    where = f"threads: {found['threads']}, {found['system']}, Python {found['python']}"
    return f"{gpu}{where}, {versions}."


def _bound(cell: dict[str, Any]) -> str:
    for key, words in (("at_most", "at most"), ("at_least", "at least")):
        if cell.get(key) is not None:
            return f"{words} {cell[key]:g} {cell.get('unit', '')}".strip()
    return ""


def _verdict(cell: dict[str, Any]) -> str:
    if not _bound(cell):
        return "reported"
    return "met" if _met(cell) else "**missed**"


def _met(cell: dict[str, Any]) -> bool:
    if cell.get("at_most") is not None:
        return bool(cell["reached"] <= cell["at_most"])
    return bool(cell["reached"] >= cell["at_least"])


def _summary(results: list[dict[str, Any]]) -> str:
    bounded = [(r, cell) for r in results for cell in r["cells"] if _bound(cell)]
    missed = [(r, cell) for r, cell in bounded if not _met(cell)]
    lines = [f"Bounds met: {len(bounded) - len(missed)} of {len(bounded)}."]
    if missed:
        lines.append("")
    for result, cell in missed:
        title = BENCHMARKS[result["benchmark"]].TITLE
        where = f"{cell['what']}, on {result['signature']['device']}"
        reached = f"{cell['reached']:.3g} {cell.get('unit', '')}".strip()
        lines.append(f"- **missed**: {title} ({where}): {reached}; the bound is {_bound(cell)}")
    return "\n".join(lines)


def _stored() -> list[dict[str, Any]]:
    order = list(BENCHMARKS)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    return sorted(
        results, key=lambda r: (r["signature"]["device"] != "cpu", order.index(r["benchmark"]))
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller inputs; writes nothing")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument(
        "--device",
        action="append",
        choices=("cpu", "cuda"),
        help="by default the CPU, and a GPU where there is one",
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    options.only = options.only or list(BENCHMARKS)
    options.device = options.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
