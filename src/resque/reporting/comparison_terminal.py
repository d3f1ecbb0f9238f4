"""A comparison of options, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from resque.forecasting.forecast import chance

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resque.decision.comparison import Compared, Comparison

_WORDS = {
    "epochs": "epochs", "duration_s": "time", "energy_kwh": "energy", "carbon_kg": "carbon",
    "money": "money",
}  # fmt: skip


def comparison_view(found: Comparison, *, warnings: bool = True) -> RenderableType:
    """Return the answer, the options side by side, and what would change it.

    Args:
        found: from `resque.compare`.
        warnings: whether what to know of the forecasts is said.
    """
    measures = [m for m in _WORDS if any(one.costs[m] is not None for one in found.options)]
    table = Table(box=None, pad_edge=False)
    table.add_column("option")
    for measure in measures:
        table.add_column(_WORDS[measure], justify="right")
    for heading in ("accuracy", "reaches it", "cheaper"):
        table.add_column(heading, justify="right")
    for one in found.options:
        style = "bold" if one.name == found.best else ""
        cells = [_cost(one, measure) for measure in measures]
        accuracy = one.peak_accuracy
        table.add_row(
            Text(_marked(found, one), style=style),
            *cells,
            f"{accuracy.median:.3f} ({accuracy.lower:.3f} to {accuracy.upper:.3f})",
            chance(one.reaches_target),
            "" if one.cheaper is None else chance(one.cheaper),
        )
    level = f"{100 * found.confidence_level:g}%"
    lines = [
        "",
        f"medians and {level} intervals; cheaper: how likely it costs less than {found.best}",
    ]
    if any(one.on_front for one in found.options):
        lines.append("*: no other option is both cheaper and better")
    differing = [change for change in found.changes if change.differs]
    alike = [change for change in found.changes if not change.differs]
    lines += [f"another answer {change}" for change in differing]
    if alike:
        lines.append(f"the same answer with {', or '.join(change.what for change in alike)}")
    lines += [f"not compared, {name}: {why}" for name, why in found.failures.items()]
    lines += _warnings(found) if warnings else []
    # Long names of options must not break the answer.
    return Group(Text(found.answer, style="bold"), Text(), table, *map(Text, lines))


def _warnings(found: Comparison) -> list[str]:
    """Return what to know of the forecasts; what is not said of all of them, with whose it is."""
    forecast = [one for one in found.options if one.forecast]
    told: dict[str, list[str]] = {}
    for one in forecast:
        for note in one.forecast.notes if one.forecast else ():
            told.setdefault(note, []).append(one.name)
    return [
        f"warning: {note}"
        if len(names) == len(forecast)
        else f"warning, {', '.join(names)}: {note}"
        for note, names in told.items()
    ]


def _marked(found: Comparison, one: Compared) -> str:
    mark = "*" if one.on_front else ""
    return f"{one.name}{mark}" + (" (ties)" if one.name in found.ties else "")


def _cost(one: Compared, measure: str) -> str:
    cost = one.costs[measure]
    if cost is None:
        return "unknown"
    return "0" if cost.upper == 0 else str(cost)
