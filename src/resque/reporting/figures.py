"""Figures, drawn with matplotlib in one style, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.errors import InputError, missing_extra
from resque.files import checked_output, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resque.index.shift import ShiftIndex

# Okabe and Ito, "Color Universal Design", 2008; each line has its own marker as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "*")
FORMATS = (".png", ".svg", ".pdf")
_STYLE: Any = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "legend.fontsize": 9, "legend.title_fontsize": 10,
    "figure.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "hatch.linewidth": 0.7,
    # No random names inside.
    "svg.hashsalt": "resque",
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Draw and save the figures made within, or by a function so decorated, in this style."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def blank_figure(width: float, height: float) -> Figure:
    """Return an empty figure that needs no screen.

    Args:
        width: in inches.
        height: likewise.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@style()
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, the same file for the same numbers.

    Args:
        figure: from `blank_figure`.
        path: file to write; its suffix (.png, .svg, .pdf) says the format.
    """
    undated = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=200, metadata=undated[path.suffix])


def save_shift_curves(
    path: Path | str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[ShiftIndex]]],
    *,
    title: str,
    x_label: str,
) -> None:
    """Write a figure of RESQUE_dist against the strength of several kinds of shift.

    Each panel shows one kind: the raw value, its floor, and the debiased value with its
    interval.

    Args:
        path: file to write; its suffix (.png, .svg, .pdf) says the format.
        curves: kind of shift -> (strengths, indices).
        title: of the figure.
        x_label: of the strengths, with their unit.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    checked_figure(path)
    save_figure(_shift_curves(curves, title, x_label), Path(path))


@style()
def _shift_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[ShiftIndex]]], title: str, x_label: str
) -> Figure:
    figure = blank_figure(4 * len(curves), 3.4)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, (kind, (strengths, shifts)) in zip(panels, curves.items(), strict=True):
        panel.plot(strengths, [s.value for s in shifts], "o-", color=COLOURS[0], label="raw value")
        panel.plot(strengths, [s.floor for s in shifts], "s:", color="#555555", label="floor")
        known = [
            (x, s.debiased, s.lower, s.upper)
            for x, s in zip(strengths, shifts, strict=True)
            if s.debiased is not None and s.lower is not None and s.upper is not None
        ]
        if known:
            x, y, lower, upper = map(list, zip(*known, strict=True))
            panel.plot(x, y, "^--", color=COLOURS[1], label="debiased")
            panel.fill_between(
                x, lower, upper, color=COLOURS[1], alpha=0.2, label=f"{_level(shifts)} interval"
            )
        panel.set_title(kind)
        panel.set_xlabel(x_label)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("RESQUE_dist (units of π)")
    panels[0].legend()
    figure.suptitle(title)
    return figure


def checked_figure(path: Path | str) -> None:
    """Raise, before long work begins, if a figure could not be drawn to this path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the path is no file that can be written, or its suffix is no known format.
    """
    if find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "report")
    checked_output(path)
    if Path(path).suffix not in FORMATS:
        raise InputError(
            f"The end of a figure's name says its format, {', '.join(FORMATS)}; got {str(path)!r}."
        )


def _level(shifts: Sequence[ShiftIndex]) -> str:
    return f"{shifts[0].confidence_level:.0%}"
