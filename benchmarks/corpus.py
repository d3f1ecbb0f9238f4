"""Makes the corpus that comes with the package, its data card, and the page of evidence.

    python benchmarks/corpus.py            what is missing is run (hours), then all is written
    python benchmarks/corpus.py --write    only written, from what has been run
    python benchmarks/corpus.py --anew     nothing is taken over from the package

RESQUE_DATA names the folder of the data sets. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from resque.experiments.cells import Cell, settings_of
from resque.experiments.data_card import data_card
from resque.experiments.designs import corpus_design
from resque.experiments.evidence_page import evidence_page
from resque.experiments.reproduce import HISTORY, make_corpus
from resque.experiments.runs import done
from resque.forecasting.corpus import FILE, corpus_table, corpus_updates, rounded, write_corpus
from resque.history.store import History

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "src" / "resque" / "forecasting" / FILE
RUNS = ROOT / "runs"


def main() -> None:
    """Run what is missing, and write the file and the pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--write", action="store_true", help="run nothing")
    parser.add_argument("--anew", action="store_true", help="take nothing over from the package")
    parser.add_argument("--workers", type=int, default=2, help="updates at the same time")
    given = parser.parse_args()
    RUNS.mkdir(exist_ok=True)
    with History(f"sqlite:///{RUNS / HISTORY}") as history:
        if CORPUS.exists() and not given.anew:
            there = done(history)
            for update in corpus_updates(CORPUS, held_out=True):
                if (update.labels["cell"], update.labels["settings"]) not in there:
                    history.add(update)
        if not given.write:
            make_corpus(RUNS, workers=given.workers)
        design = enumerate(corpus_design())
        place = {(cell.key, settings_of(cell)): at for at, cell in design}
        # One each, in the order of the design, whatever was run when.
        found = {
            place[key]: u
            for u in history
            if (key := (Cell.of(u).key, u.labels["settings"])) in place
        }
    write_corpus([rounded(found[at]) for at in sorted(found)], CORPUS)
    updates = corpus_updates(CORPUS, held_out=True)
    (ROOT / "docs" / "corpus.md").write_text(data_card(updates), encoding="utf-8")
    evidence_page(corpus_table(CORPUS, held_out=True), ROOT / "docs")
    print(f"{len(updates)} updates in {CORPUS}, {CORPUS.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
