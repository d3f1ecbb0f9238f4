"""The paper's figures: the index against measures, retraining against training from scratch.

Four inches wide at nine points, the width of a phone and of a column in print. Colours are those
that colour-blind readers tell apart, and each has its own marker or hatching.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.experiments.correlation import Floats
from resque.experiments.paper_claims import COSTS, Row, correlation_alone, known_rows
from resque.experiments.situations import HELD, LEVEL, Measure, modelled_in
from resque.history.table import PREFLIGHT
from resque.reporting.figures import COLOURS, MARKERS, blank_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_WIDTH = 4.0
_HOLLOW = "hollow: cut off, target not reached"


def _figure(height: float, note: str) -> Figure:
    figure = blank_figure(_WIDTH, height)
    figure.supxlabel("\n".join(wrap(note, 52)), fontsize=9)
    return figure


def saved(figure: Figure, folder: Path, name: str) -> tuple[str, str]:
    """Write a figure as SVG and as PNG, and return the names of the files.

    Args:
        figure: one of those below.
        folder: to write to.
        name: of the files, without suffix.
    """
    files = f"{name}.svg", f"{name}.png"
    for file in files:
        save_figure(figure, folder / file)
    return files


@style()
def scatter(table: DataFrame, index: str, measures: Sequence[Measure], *, title: str) -> Figure:
    """Return a figure of an index against each measure, one panel below the other.

    Args:
        table: from `table_of`, of updates of cells.
        index: "RESQUE_dist" or "RESQUE_task".
        measures: those without numbers get no panel.
        title: of the figure.
    """
    shown = [measure for measure in measures if len(known_rows(table, measure, index))]
    figure = _figure(
        1.7 * len(shown) + 1,
        f"numbers: rank correlation; {_HOLLOW}",
    )  # fmt: skip
    figure.suptitle(_in_lines(title))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, measure in zip(panels, shown, strict=True):
        rows = known_rows(table, measure, index)
        for place, (network, own) in enumerate(rows.groupby("label:network", sort=False)):
            found = correlation_alone(own, index, measure)
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            for reached, side in own.groupby("reached"):
                panel.plot(
                    side[f"{PREFLIGHT}{index}"], side[measure.column], marker,
                    color=colour, markerfacecolor=colour if reached else "none", markersize=5,
                )  # fmt: skip
            told = "-" if math.isnan(found) else f"{found:.2f}"
            panel.plot([], [], marker, color=colour, label=f"{network} {told}")
        _scaled(panel, np.asarray(rows[measure.column], float))
        panel.set_ylabel("\n".join(wrap(measure.axis(modelled=modelled_in(rows, measure) > 0), 18)))
        panel.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handletextpad=0.1,
            borderaxespad=0.2, labelspacing=0.2,
        )  # fmt: skip
    panels[-1].set_xlabel(f"{index} before the update")
    return figure


def _scaled(panel: Any, values: Floats) -> None:
    """Draw values over more than a decade and a half on a logarithmic axis."""
    if values.min() > 0 and values.max() > 30 * values.min():
        panel.set_yscale("log")
    else:
        panel.locator_params(axis="y", nbins=4)


@style()
def bars(pairs: DataFrame, columns: Sequence[str], *, title: str) -> Figure:
    """Return a figure of the costs of retraining and of training from scratch, side by side.

    Args:
        pairs: from `pairs_of`.
        columns: each of their combinations gets its bars.
        title: of the figure.
    """
    by = list(columns)
    shown = [m for m in COSTS if pairs[[m.column, f"{m.column}_scratch"]].notna().all(axis=1).any()]
    names = list(dict.fromkeys(pairs[by].itertuples(index=False, name=None)))
    across = min(2, len(shown))
    down = math.ceil(len(shown) / across)
    figure = _figure(
        down * (0.42 * len(names) + 0.7) + 1.1,
        f"until the same accuracy; bars: means; dots: updates; {_HOLLOW}",
    )  # fmt: skip
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    sides = (
        ("", "retrained", -0.2, COLOURS[0], ""),
        ("_scratch", "scratch", 0.2, COLOURS[4], "///"),
    )
    for panel, measure in zip(panels, shown, strict=False):
        for suffix, label, offset, colour, hatch in sides:
            for place, name in enumerate(names):
                own = pairs[(pairs[by] == list(name)).all(axis=1)]
                values = np.asarray(own[f"{measure.column}{suffix}"], float)
                panel.barh(
                    place + offset, np.nanmean(values), 0.36, color=colour, hatch=hatch,
                    edgecolor="white", label=label if place == 0 else None,
                )  # fmt: skip
                reached = np.asarray(own[f"reached{suffix}"], bool)
                for of, face in ((reached, "black"), (~reached, "white")):
                    panel.plot(
                        values[of], np.full(of.sum(), place + offset), "o", markersize=3,
                        markeredgecolor="black", markerfacecolor=face, markeredgewidth=0.8,
                    )  # fmt: skip
        modelled = modelled_in(pairs, measure) > 0
        panel.set_xlabel("\n".join(wrap(measure.axis(modelled=modelled), 20)))
        panel.locator_params(axis="x", nbins=3)
        panel.set_yticks(range(len(names)), ["\n".join(_spaced(name)) for name in names])
        panel.grid(visible=False, axis="y")
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    for empty in panels[len(shown) :]:
        empty.set_visible(False)
    # A title of the figure would lie where its legend does.
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2,
        frameon=False, title=_in_lines(title),
    )  # fmt: skip
    return figure


@style()
def intervals(rows: Sequence[Row], *, title: str) -> Figure:
    """Return a figure of the correlations of a table with their intervals.

    Args:
        rows: of the table.
        title: of the figure.
    """
    shown = list(dict.fromkeys(measured for row in rows for measured in row.correlations))
    down = math.ceil(len(shown) / 2)
    figure = _figure(
        down * (0.36 * len(rows) + 0.8) + 1,
        f"rank correlation with the index and its {100 * LEVEL:g} % interval; dotted: {HELD}",
    )  # fmt: skip
    figure.suptitle(_in_lines(title))
    panels = figure.subplots(down, 2, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, measured in zip(panels, shown, strict=False):
        for place, row in enumerate(rows):
            found = row.correlations.get(measured)
            if found is None or math.isnan(found.value):
                continue
            if not math.isnan(found.lower):
                panel.plot([found.lower, found.upper], [place, place], color=COLOURS[0])
            panel.plot(found.value, place, "o", color=COLOURS[0], markersize=5)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.axvline(HELD, color="black", linewidth=0.8, linestyle=":")
        panel.set_title("\n".join(wrap(measured, 20)))
        panel.set_xlim(-1.05, 1.05)
        panel.set_xticks([-1, 0, 1])
        panel.set_yticks(
            range(len(rows)), ["\n".join(_spaced((row.network, row.data))) for row in rows]
        )
        panel.set_ylim(len(rows) - 0.5, -0.5)
    for empty in panels[len(shown) :]:
        empty.set_visible(False)
    return figure


def _in_lines(title: str) -> str:
    return "\n".join(wrap(title, 44))


def _spaced(names: Iterable[str]) -> Iterator[str]:
    return (name.replace("_", " ") for name in names)
