"""Writes docs/forecast.md: how good forecasts are on the corpus that comes with the package.

python benchmarks/forecast.py               without what was set aside in advance
python benchmarks/forecast.py --set-aside   that as well: once, after all choices are made
python benchmarks/forecast.py --variances   first fits the variances that the package ships
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from resque.experiments.forecast_evaluation import PLATEAU
from resque.experiments.forecast_page import forecast_page
from resque.forecasting.corpus import corpus_updates
from resque.forecasting.experience import VARIANCES, Experience

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Fit the variances, if asked to, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--set-aside", action="store_true", help="what was set aside as well")
    parser.add_argument("--variances", action="store_true", help="fit the package's variances")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the work")
    given = parser.parse_args()
    updates = corpus_updates()
    if given.variances:
        path = ROOT / "src" / "resque" / "forecasting" / VARIANCES
        path.write_text(json.dumps(_variances(updates), indent=1, sort_keys=True) + "\n", "utf-8")
    asked = None
    if given.set_aside:
        asked = [u for u in corpus_updates(held_out=True) if u.labels.get("held_out")]
    start = time.perf_counter()
    page = forecast_page(
        updates,
        ROOT / "docs",
        asked=asked,
        workers=given.workers,
        each=lambda word: print(word, flush=True),
    )
    print(f"{page.relative_to(ROOT)} in {time.perf_counter() - start:.0f} s")


def _variances(updates: tuple) -> dict[str, dict[str, float]]:  # type: ignore[type-arg]
    experience = Experience(updates, ())
    for measure in ("epochs", "gradient_norm", "parameter_change"):
        experience.learned(measure, PLATEAU)
    experience.learned("accuracy at 4")
    return {
        measure: {part: float(f"{value:.4g}") for part, value in of.items()}
        for measure, of in experience.fitted_variances().items()
    }


if __name__ == "__main__":
    main()
