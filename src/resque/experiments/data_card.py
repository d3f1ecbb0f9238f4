"""The data card of the corpus: how it was made, on what, and what is not in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from resque.experiments.cells import RECIPES, TARGET, TARGET_FROM_SCRATCH, Cell
from resque.experiments.designs import (
    HELD_DATA,
    HELD_NETWORK,
    HELD_SHIFT,
    SEED,
    corpus_design,
    digest,
)
from resque.history.update import Update

_COUNTED: Sequence[tuple[str, Callable[[Cell], str]]] = (
    ("kind", lambda cell: cell.kind),
    ("start", lambda cell: cell.start),
    ("network", lambda cell: f"{cell.network} {cell.size}"),
    ("new data", lambda cell: cell.new),
    ("shift", lambda cell: f"{cell.shift} {cell.level}" if cell.shift else "none"),
    ("recipe", lambda cell: cell.recipe),
    ("examples asked for", lambda cell: str(cell.examples)),
    ("set aside", lambda cell: cell.held_out or "no"),
)
_CARD = """\
# The corpus

Written by `make corpus`; not by hand.

{updates} measured updates come with the package in one Parquet file:
`resque.forecasting.corpus.corpus_updates()` gives them as updates, `corpus_table()` as a table, and
any reader of Parquet its columns. A user without a history starts from them.

## How it was made

From a design of {cells} cells, drawn with the seed {seed} and committed before the first run (its
digest is `{digest}`). They are run in a random order; {missing}. `resque reproduce corpus`
makes it anew.

Each update starts from a network that was trained on 2,000 examples of the old data (70 % of the
training data; new data come from 50 %, 20 % being in both, as the paper publishes), and is
validated on 300 test examples, shifted like the new data. It ends when the accuracy on them has
stopped rising ({target}; from scratch
{target_from_scratch}), or after the epochs of its recipe, and
then it is censored: {ended}.

| recipe | learning rate | at most | validation every |
|---|---|---|---|
{recipes}

All with Adam and batches of 32. The record of each holds its curve, its five measures, and the
[pre-flight](preflight.md) made before it.

## On what

{machines}

An update took {median:.0f} s in the middle, {least:.0f} to {greatest:.0f} s in all, {hours:.1f}
hours together.

| | updates |
|---|---|
{counts}

## Set aside

Every cell of {held_network}, of {held_data} and of {held_shift} was set aside before the first run,
each with three seeds (`held_out` in its labels). The tables of the evidence leave them out: they
are for the one test of the forecast after its choices are made.

## What is not in it

- Large networks, large images and large data: narrow networks, 32 pixels, at most 900 examples.
  The networks that are updated know 2,000 examples, so that their accuracy is far from what full
  training gives.
- Energy: several updates ran at the same time, and a meter reads the whole machine. Seconds are
  there; they are those of a machine that did other things too, which epochs and steps do not feel.
- Other optimisers than Adam, learning-rate schedules, augmentation, mixed precision, GPUs.
- Shifts that happen by themselves: all are made from clean images. Labels that are wrong, classes
  whose shares change, text that drifts.
- The images and texts themselves, and the weights.
"""


def data_card(updates: Sequence[Update]) -> str:
    """Return the data card of a corpus as Markdown; every number in it is counted from the updates.

    Args:
        updates: of the corpus, at least one.
    """
    design = corpus_design()
    cells = [Cell.of(update) for update in updates]
    missing = len({cell.key for cell in design} - {cell.key for cell in cells})
    seconds = np.array([update.duration_s for update in updates])
    ended = Counter(update.ended for update in updates)
    machines = Counter(_machine(update) for update in updates)
    return _CARD.format(
        updates=len(updates),
        cells=len(design),
        seed=SEED,
        digest=digest(design),
        missing=f"**{missing} have not been run yet**" if missing else "all of them are here",
        target=TARGET,
        target_from_scratch=TARGET_FROM_SCRATCH,
        ended=", ".join(f"{n} ended by {how}" for how, n in ended.most_common()),
        recipes="\n".join(
            f"| {name} | {recipe.learning_rate:g} | {recipe.max_epochs:g} epochs | "
            f"{recipe.validation_interval:g} epochs |"
            for name, recipe in RECIPES.items()
            if name in {cell.recipe for cell in cells}
        ),
        machines="\n".join(f"- {n} updates: {name}" for name, n in machines.most_common()),
        median=np.median(seconds),
        least=seconds.min(),
        greatest=seconds.max(),
        hours=seconds.sum() / 3600,
        counts="\n".join(_counts(cells)),
        held_network=HELD_NETWORK,
        held_data=HELD_DATA,
        held_shift=HELD_SHIFT,
    )


def _machine(update: Update) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(update.versions.items()))
    threads = f"{update.hardware.threads} thread{'s' * (update.hardware.threads > 1)}"
    return f"{update.hardware.name}, {threads}, {update.concurrency} at a time, {versions}"


def _counts(cells: Sequence[Cell]) -> list[str]:
    lines = []
    for title, of in _COUNTED:
        lines.append(f"| **{title}** | |")
        counts = Counter(of(cell) for cell in cells)
        lines += [f"| {name} | {counts[name]} |" for name in sorted(counts)]
    return lines
