"""The figures of the page of evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.experiments.evidence import WITHIN, Evidence, records_of
from resque.experiments.situations import EPOCHS, HELD, MEASURES, Measure, Situation
from resque.reporting.figures import COLOURS, MARKERS, blank_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_WIDTH = 4.5


def in_order(rows: DataFrame) -> list[str]:
    """Return the predictors in the order of their correlation within groups, largest first."""
    within = rows[(rows["scope"] == WITHIN) & (rows["statistic"] == "spearman")]
    within = within[within["value"].notna()]
    order = np.argsort(-within["value"].abs().to_numpy(), kind="stable")
    return [str(within["predictor"].iloc[place]) for place in order]


def place_of(
    order: Sequence[str], index: str, measure: Measure, cells: Mapping[Any, Mapping[str, Any]]
) -> str:
    """Return in a sentence which place the index has among predictors in the order of theirs."""
    best = cells[order[0], WITHIN, "spearman"]
    leader = f"`{order[0]}` ({best['kind']}) orders {measure.title} best, {interval_told(best)}"
    if index not in order:
        reason = cells.get((index, WITHIN, "spearman"), {}).get("reason") or "it is not known"
        return f"{leader}; {index} has no place: {reason}."
    own = cells[index, WITHIN, "spearman"]
    if order[0] == index:
        return (
            f"{index} orders {measure.title} best of {len(order)} predictors, {interval_told(own)}."
        )
    place = order.index(index) + 1
    return f"Of {len(order)} predictors {index} is number {place}, {interval_told(own)}; {leader}."


@style()
def scatter_figure(found: Evidence, situation: Situation, figures: Path) -> str:
    """Return the Markdown of a figure that is written now: the index against epochs."""
    points = situation.of(found.points)
    measure = EPOCHS
    if situation.index not in points:
        return f"{situation.index} is not among the predictors."
    points = points[points[situation.index].notna() & points[measure.column].notna()]
    if not len(points):
        return f"No update has both {situation.index} and {measure.title}."
    figure, panel = _figure(1.0)
    for place, (name, of) in enumerate(points.groupby("label:network")):
        reached = of["reached"].to_numpy(dtype=bool)
        for which, filled in ((reached, True), (~reached, False)):
            colour = COLOURS[place % len(COLOURS)]
            panel.plot(
                of[situation.index].to_numpy()[which],
                of[measure.column].to_numpy()[which],
                MARKERS[place % len(MARKERS)],
                color=colour,
                markerfacecolor=colour if filled else "none",
                markersize=5,
                alpha=0.8,
                label=str(name) if filled else None,
            )
    panel.set_yscale("log")
    panel.set_xlabel(situation.index)
    panel.set_ylabel(measure.axis(modelled=False))
    panel.set_title(f"{situation.name}: {len(points)} updates")
    panel.legend(fontsize="small", ncols=2)
    missed = int((~points["reached"].astype(bool)).sum())
    alt = (
        f"Epochs against {situation.index} of {len(points)} updates, a marker for each of "
        f"{points['label:network'].nunique()} networks; {missed} that missed their target are "
        "hollow."
    )
    return _saved(figure, figures / f"{situation.index}-epochs", alt)


@style()
def dots_figure(within: DataFrame, situation: Situation, found: Evidence, figures: Path) -> str:
    """Return the image of the index and the best other predictor for each measure."""
    drawn = []
    for measure in MEASURES:
        rows = within[within["measure"] == measure.title]
        own = records_of(rows[rows["predictor"] == situation.index])
        others = records_of(rows[rows["kind"] != "index"])
        best = max(others, key=lambda row: abs(row["value"]), default=None)
        drawn.append((marked_title(measure.title, found), own[0] if own else None, best))
    drawn = [row for row in drawn if row[1] or row[2]]
    figure, panel = _figure(0.25 + 0.11 * len(drawn))
    for place, (_, *pair) in enumerate(drawn):
        for row, offset, colour, marker in zip(pair, (-0.13, 0.13), COLOURS, MARKERS, strict=False):
            if row is None:
                continue
            at = place + offset
            panel.plot([row["lower"], row["upper"]], [at, at], color=colour, linewidth=1.5)
            panel.plot(row["value"], at, marker, color=colour, markersize=6)
            if row is pair[1]:
                panel.annotate(
                    row["predictor"], (row["value"], at), xytext=(0, -10),
                    textcoords="offset points", ha="center", fontsize=7,
                )  # fmt: skip
    panel.plot([], [], MARKERS[0], color=COLOURS[0], label=situation.index)
    panel.plot([], [], MARKERS[1], color=COLOURS[1], label="best other predictor")
    panel.axvline(HELD, color="#555555", linestyle=":", linewidth=1)
    panel.set_yticks(range(len(drawn)), [row[0] for row in drawn])
    panel.set_ylim(len(drawn) - 0.4, -0.6)
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("Spearman within groups, 90 % interval")
    figure.legend(fontsize="small", ncols=2, loc="outside upper center")
    ahead = sum(
        1 for _, own, best in drawn if own and (not best or abs(own["value"]) >= abs(best["value"]))
    )
    runs = max(row["runs"] for _, *pair in drawn for row in pair if row)
    alt = (
        f"Correlation of {situation.index} and of the best other predictor with {len(drawn)} "
        f"measures, up to {runs} runs each; the index is ahead in {ahead}. A dotted line marks "
        f"{HELD}."
    )
    return _saved(figure, figures / f"{situation.index}-measures", alt)


@style()
def bars_figure(rows: Sequence[Mapping[str, Any]], figures: Path) -> str:
    """Return the image of the errors in epochs (or what comes first) by what was left out."""
    measure = rows[0]["measure"]
    rows = [row for row in rows if row["measure"] == measure]
    sets = list(dict.fromkeys(row["predictors"] for row in rows))
    folds = list(dict.fromkeys((row["situation"], row["left_out"]) for row in rows))
    figure, panel = _figure(0.3 + 0.14 * len(folds))
    for at, name in enumerate(sets):
        known = [
            (100 * row["error"], folds.index((row["situation"], row["left_out"])))
            for row in rows
            if row["predictors"] == name and not math.isnan(row["error"])
        ]
        panel.plot(
            [error for error, _ in known],
            [place + 0.12 * (at - (len(sets) - 1) / 2) for _, place in known],
            MARKERS[at],
            color=COLOURS[at],
            label=name,
        )
    panel.set_yticks(range(len(folds)), [f"{left_out},\n{name}" for name, left_out in folds])
    panel.set_ylim(len(folds) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.set_xlabel(f"median error of {measure} in what was left out (%)")
    figure.legend(fontsize="small", ncols=2, loc="outside upper center")
    runs = sum(row["runs"] for row in rows if row["predictors"] == "constant")
    alt = (
        f"Median error of {measure} in {len(folds)} ways to leave a part out, {runs} forecasts in "
        f"all, for {len(sets)} sets of predictors; the table below has the numbers."
    )
    return _saved(figure, figures / "left-out", alt)


def _figure(height: float) -> tuple[Figure, Axes]:
    """Return a figure as wide as a phone, and its panel; the height is in widths."""
    figure = blank_figure(_WIDTH, _WIDTH * height)
    return figure, figure.subplots()


def _saved(figure: Figure, stem: Path, alt: str) -> str:
    for suffix in (".svg", ".png"):
        save_figure(figure, stem.with_suffix(suffix))
    return f"![{alt}]({stem.parent.name}/{stem.name}.svg)"


def marked_title(title: str, found: Evidence) -> str:
    """Return the title of a measure, marked where it was modelled."""
    return f"{title} (modelled)" if title in found.modelled else title


def interval_told(row: Mapping[str, Any]) -> str:
    """Return "value (lower to upper)", as much of it as is known."""
    if math.isnan(row["value"]):
        return "-"
    if math.isnan(row["lower"]):
        return two_digits(row["value"])
    return f"{two_digits(row['value'])} ({two_digits(row['lower'])} to {two_digits(row['upper'])})"


def two_digits(number: float) -> str:
    """Return a number with two decimals; "-" where it is none."""
    # A rounded zero has no sign.
    return f"{number:.2f}".replace("-0.00", "0.00") if math.isfinite(number) else "-"
