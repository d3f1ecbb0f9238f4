"""Figures of a report, and how they are put into a page whose colours they take over."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from resque.decision.comparison import MEASURES as COMPARED_BY
from resque.history.records import Accuracy
from resque.reporting.figures import COLOURS, blank_figure, style
from resque.reporting.report_tables import MEASURES, index_of, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from resque.decision.comparison import Comparison
    from resque.forecasting.forecast import Estimate, Forecast
    from resque.history.update import Update

MOST_CLASSES = 12
SCRATCH = "from scratch"
# Two thirds of a page; on a phone it is scrolled within its own frame.
_WIDTH = 5.4
_LONGEST_LABEL = 22
_INK, _MUTED, _RULE = "#1f2328", "#59636e", "#d1d9e0"
# What a colour of a figure is called in the style sheet of the page.
_VARIABLES = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    COLOURS[0].lower(): "var(--first)",
    COLOURS[1].lower(): "var(--second)",
}
_DRAWN: Any = {
    "font.size": 10, "axes.labelsize": 10, "xtick.labelsize": 10, "ytick.labelsize": 10,
    "legend.fontsize": 10, "legend.frameon": False, "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED,
    "xtick.labelcolor": _INK, "ytick.labelcolor": _INK, "grid.color": _RULE, "grid.alpha": 1.0,
    "grid.linewidth": 0.6, "axes.linewidth": 0.8, "figure.facecolor": "white",
    # A class may be called "$x$", which is a name and no formula.
    "text.parse_math": False,
    # Text stays text: small, and in the letters of the page.
    "svg.fonttype": "none",
}  # fmt: skip
_STARTS: Mapping[str | None, tuple[str, str]] = {
    "weights": ("o", "from its weights"),
    "head": ("s", "with a fresh head"),
    "scratch": ("^", SCRATCH),
    None: ("D", "start not known"),
}
_MEASURED = ("epochs", "duration_s", "energy_kwh")
_FORETOLD = ("epochs", "duration_s", "energy_kwh", "carbon_kg", "peak_accuracy")


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw and save what is drawn within in the style of reports.

    Args:
        name: of the figure, from which the names inside an SVG are made.
    """
    from matplotlib import rc_context

    with style(), rc_context({**_DRAWN, "svg.hashsalt": name}):
        yield


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an SVG element for an HTML page, in the colours of its style sheet.

    Its ids begin with the name, so that several figures of one page do not clash.

    Args:
        figure: drawn within `drawing`.
        name: letters, digits and hyphens; unique on the page.
        description: what is to be seen in it, for those who do not see it.
    """
    out = io.StringIO()
    with drawing(name), warnings.catch_warnings():
        # Letters that the measuring font lacks are drawn by the reader's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        unsigned = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=unsigned)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style inside an SVG element would hold for the whole page.
    unneeded = r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>"
    svg = re.sub(unneeded, "", svg, flags=re.DOTALL)
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening is not None  # noqa: S101  # matplotlib writes both
    assert box is not None  # noqa: S101
    svg = svg[opening.end() :].replace("xlink:href", "href")
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def own_id(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in referred else ""

    # Only inside tags: what stands between them may be the name of a class.
    def in_tag(match: re.Match[str]) -> str:
        tag = re.sub(r' id="([^"]*)"', own_id, match[0])
        tag = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", tag)
        return re.sub(r"#[0-9a-f]{6}", lambda colour: _VARIABLES.get(colour[0], colour[0]), tag)

    svg = re.sub(r"\s*\n\s*", "\n", re.sub(r"<[^>]*>", in_tag, svg)).strip()
    return f'<svg {box[0]} role="img" aria-label="{escape(description)}">{svg}'


def class_figure(shift: Mapping[str, Any]) -> Figure:
    """Return the shift of the classes with the largest shares: raw, debiased, and its floor.

    Args:
        shift: the index, as its `to_dict` gives it.
    """
    names = list(shift["contributions"])[:MOST_CLASSES]
    places = range(len(names))
    figure = blank_figure(_WIDTH, 1.15 + 0.27 * len(names))
    axes = figure.subplots()
    values = [shift["per_class"][name] for name in names]
    axes.hlines(places, 0, values, color=_RULE, linewidth=2, zorder=1)
    axes.plot(
        [shift["per_class_floor"][name] for name in names], places, "|", color=_MUTED,
        markersize=11, markeredgewidth=2, label="floor",
    )  # fmt: skip
    axes.plot(values, places, "o", color=COLOURS[0], label="raw value")
    known = [
        (shift["per_class_debiased"][name], place)
        for place, name in enumerate(names)
        if shift["per_class_debiased"][name] is not None
    ]
    if known:
        axes.plot(
            *zip(*known, strict=True), "D", color=COLOURS[1], markersize=5, label="debiased",
            markerfacecolor="none",
        )  # fmt: skip
    _rows(axes, names)
    axes.set_xlim(left=0)
    axes.set_xlabel("RESQUE_dist of the class (units of π)")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def forecast_figure(forecast: Forecast) -> Figure:
    """Return the medians and intervals of a forecast, and of the same from scratch."""
    ways = [("this update", forecast)]
    if forecast.from_scratch is not None:
        ways.append((SCRATCH, forecast.from_scratch))
    shown = [name for name in _FORETOLD if getattr(forecast, name) is not None]
    figure = blank_figure(_WIDTH, len(shown) * (0.78 + 0.2 * len(ways)))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, measure in zip(panels, shown, strict=True):
        estimates = [(label, getattr(way, measure)) for label, way in ways]
        _intervals(axes, measure, estimates)
        if measure == "peak_accuracy" and isinstance(forecast.target, Accuracy):
            _target(axes, forecast.target)
    return figure


def option_figure(comparison: Comparison) -> Figure:
    """Return cost and peak accuracy of options, the recommended one filled."""
    measure = COMPARED_BY[comparison.by][0]
    names = [one.name for one in comparison.options]
    figure = blank_figure(_WIDTH, 2 * (0.78 + 0.24 * len(names)))
    above, below = figure.subplots(2, 1)
    filled = {comparison.best} if comparison.recommended else set()
    for axes, of in ((above, measure), (below, "peak_accuracy")):
        estimates = [
            (one.name, one.peak_accuracy if of == "peak_accuracy" else one.costs[of])
            for one in comparison.options
        ]
        _intervals(axes, of, estimates, filled=filled)
    _target(below, comparison.target)
    return figure


def history_figure(updates: Sequence[Update]) -> Figure:
    """Return what updates cost, measured, against the index that was known before.

    Args:
        updates: with an index; see `index_of`.
    """
    shown = [name for name in _MEASURED if any(getattr(u, name) is not None for u in updates)]
    figure = blank_figure(_WIDTH, 0.6 + 1.6 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axes, measure in zip(panels, shown, strict=True):
        known = [u for u in updates if getattr(u, measure) is not None]
        unit, size = scale_of(measure, max(getattr(u, measure) for u in known))
        for start, reached in dict.fromkeys((u.start, u.reached) for u in known):
            some = [u for u in known if (u.start, u.reached) == (start, reached)]
            axes.plot(
                [index_of(u) for u in some], [getattr(u, measure) / size for u in some],
                _STARTS[start][0], color=_colour(start),
                markerfacecolor=None if reached else "none", clip_on=False,
            )  # fmt: skip
        axes.set_ylabel(_axis_label(measure, unit))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    panels[-1].set_xlabel("RESQUE_dist before the update (units of π)")
    _history_legend(figure, updates)
    return figure


def _history_legend(figure: Figure, updates: Sequence[Update]) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, colour: str, label: str, face: str | None = None) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label
        )

    found = {update.start for update in updates}
    marks = [
        mark(marker, _colour(start), label)
        for start, (marker, label) in _STARTS.items()
        if start in found
    ]
    if not all(update.reached for update in updates):
        marks.append(mark("o", _MUTED, "hollow: censored", "none"))
    figure.legend(handles=marks, loc="outside upper center", ncols=min(len(marks), 3))


def _colour(start: str | None) -> str:
    return COLOURS[1 if start == "scratch" else 0]


def _intervals(
    axes: Axes,
    measure: str,
    estimates: Sequence[tuple[str, Estimate | None]],
    *,
    filled: set[str] | None = None,
) -> None:
    """Draw a row with median and interval for each estimate, the first on top."""
    known = [(place, label, of) for place, (label, of) in enumerate(estimates) if of is not None]
    unit, size = scale_of(measure, max(of.median for *_, of in known))
    if measure == "money":
        unit = known[0][2].unit
    for place, label, of in known:
        full = filled is None or label in filled
        colour = _MUTED if not full else COLOURS[1 if label == SCRATCH else 0]
        axes.hlines(place, of.lower / size, of.upper / size, color=colour, linewidth=2)
        axes.plot(
            of.median / size, place, "o", color=colour, markersize=7, clip_on=False,
            markerfacecolor=None if full else "none",
        )  # fmt: skip
    _rows(axes, [label for label, _ in estimates])
    if measure != "peak_accuracy":
        axes.set_xlim(left=0)
    # Small sums of money have long numbers.
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(_axis_label(measure, unit))


def _axis_label(measure: str, unit: str) -> str:
    word = MEASURES[measure]
    return word if unit in ("", word) else f"{word} ({unit})"


def _target(axes: Axes, target: Accuracy) -> None:
    axes.axvline(target.value, color=_INK, linestyle="--", linewidth=1.0)
    axes.set_xlabel(f"{axes.get_xlabel()} (dashed: target {target.value:g})")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _short(name: str) -> str:
    """Return a name that fits beside an axis, without signs that no XML may hold."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return plain if len(plain) <= _LONGEST_LABEL else f"{plain[: _LONGEST_LABEL - 1]}…"
