"""Writes docs/choices.md: how good the choices of a comparison are on the corpus.

python benchmarks/decisions.py
"""

from __future__ import annotations

import time
from pathlib import Path

from resque.experiments.decision_page import decision_page
from resque.forecasting.corpus import corpus_updates

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the page."""
    start = time.perf_counter()
    page = decision_page(corpus_updates(), ROOT / "docs", each=lambda word: print(word, flush=True))
    print(f"{page.relative_to(ROOT)} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
