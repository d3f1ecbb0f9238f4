"""Plays plans against calendars and drift alarms on digits that drift; see docs/plan.md.

python benchmarks/plan.py           the tables, on stdout
python benchmarks/plan.py --write   puts them into docs/plan.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from resque.experiments.drift_replay import Replayed, replays, table, totals

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plan.md"
BEGIN, END = "<!-- benchmarks/plan.py -->", "<!-- end -->"


def main() -> None:
    """Replay all drifts, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--write", action="store_true", help="put the tables into docs/plan.md")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8], help="one network each"
    )
    given = parser.parse_args()
    start = time.perf_counter()
    found = replays(seeds=given.seeds, each=_said)
    tables = "\n".join([*totals(found), "", *table(found)])
    print(f"{tables}\n{len(found)} replays in {time.perf_counter() - start:.0f} s")
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}", "utf-8")


def _said(one: Replayed) -> None:
    print(
        f"{one.kind} {one.seed}: {one.chosen.name}, {one.chosen.share:.0%} kept, "
        f"{one.chosen.epochs:g} epochs",
        flush=True,
    )


if __name__ == "__main__":
    main()
