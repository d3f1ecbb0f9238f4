"""Tables of a report: the same cells as HTML, Markdown for people, and CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resque.forecasting.forecast import UNITS, Estimate, chance, readable_unit
from resque.history.records import JOULES_PER_KWH

if TYPE_CHECKING:
    from resque.decision.comparison import Comparison
    from resque.decision.plan import Plan
    from resque.forecasting.backtest import Backtest
    from resque.forecasting.forecast import Forecast
    from resque.forecasting.preflight import Preflight
    from resque.history.update import Update
    from resque.representation.signature import Signature

MEASURES: Mapping[str, str] = {
    "epochs": "epochs", "duration_s": "time", "energy_kwh": "energy", "carbon_kg": "carbon",
    "money": "money", "gradient_norm": "gradient norm", "parameter_change": "parameter change",
    "peak_accuracy": "peak accuracy",
}  # fmt: skip
COSTS = ("epochs", "duration_s", "energy_kwh", "carbon_kg", "money")
NOT_KNOWN = "not known"
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        value: for programs, unrounded and in the measure's own unit; an `Estimate` is three
            columns of a CSV file.
        shown: for people.
    """

    value: str | float | bool | Estimate | None
    shown: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of a report.

    Attributes:
        name: of its file, and its id on the page.
        caption: what it shows.
        headings: of the columns, in words.
        columns: their names for programs, with units.
        rows: a cell for each column.
        words: how many columns, from the left, are words and not numbers.

    Example:
        >>> table = Table(
        ...     name="t", caption="T", headings=("part", "energy"), columns=("part", "energy_kwh"),
        ...     rows=((text("cpu"), quantity("energy_kwh", 0.25)),),
        ... )
        >>> table.to_csv().splitlines()
        ['part,energy_kwh', 'cpu,0.25']
        >>> print(table.to_markdown().splitlines()[-1])
        | cpu | 0.25 kWh |
    """

    name: str
    caption: str
    headings: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1

    def to_csv(self) -> str:
        """Return the values as CSV, unrounded, with a line of headings; unknown ones are empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        wide = [
            any(isinstance(row[place].value, Estimate) for row in self.rows)
            for place in range(len(self.columns))
        ]
        writer.writerow(
            name
            for column, three in zip(self.columns, wide, strict=True)
            for name in ((column, f"{column}_lower", f"{column}_upper") if three else (column,))
        )
        for row in self.rows:
            writer.writerow(
                value
                for cell, three in zip(row, wide, strict=True)
                for value in (_three(cell.value) if three else (cell.value,))
            )
        return out.getvalue()

    def to_markdown(self) -> str:
        """Return the caption and the table as Markdown, rounded as on the page."""
        marks = ["---" if place < self.words else "---:" for place in range(len(self.headings))]
        lines = [[*self.headings], marks, *([cell.shown for cell in row] for row in self.rows)]
        shown = ["| " + " | ".join(map(_markdown, line)) + " |" for line in lines]
        return "\n".join([_markdown(self.caption), "", *shown]) + "\n"


def text(value: str) -> Cell:
    """Return a cell of words."""
    return Cell(value, value)


def count(value: int | None) -> Cell:
    """Return a cell of a whole number."""
    return Cell(value, NOT_KNOWN if value is None else f"{value:,}")


def index(value: float | None, none: str = NOT_KNOWN) -> Cell:
    """Return a cell of an index or an accuracy, with four decimals."""
    return Cell(value, none if value is None else f"{value:.4f}")


def share(value: float | None) -> Cell:
    """Return a cell of a share, in per cent."""
    return Cell(value, NOT_KNOWN if value is None else percent(value))


def number(value: float | None, none: str = NOT_KNOWN) -> Cell:
    """Return a cell of any other number, with three digits."""
    return Cell(value, none if value is None else readable(value))


def quantity(measure: str, value: float | None, none: str = NOT_KNOWN) -> Cell:
    """Return a cell of a measure, in the unit in which its value is read with ease."""
    if value is None:
        return Cell(None, none)
    unit, size = scale_of(measure, value)
    return Cell(value, f"{readable(value / size)} {unit}".rstrip())


def estimated(measure: str, estimate: Estimate | None, none: str = NOT_KNOWN) -> Cell:
    """Return a cell of an estimate: median, bounds and unit."""
    return Cell(estimate, none if estimate is None else told(measure, estimate))


def told(measure: str, estimate: Estimate, *, unit: bool = True) -> str:
    """Return an estimate in words: the median and, in brackets, its interval.

    Args:
        measure: of which it is one.
        estimate: in the measure's own unit.
        unit: say it.
    """
    name, size = scale_of(measure, estimate.median)
    name = estimate.unit if measure == "money" else name
    median, lower, upper = (
        readable(value / size) for value in (estimate.median, estimate.lower, estimate.upper)
    )
    return f"{median}{f' {name}' if unit and name else ''} ({lower} to {upper})"


def scale_of(measure: str, typical: float) -> tuple[str, float]:
    """Return the unit in which a measure is read with ease, and its size in the measure's own.

    Args:
        measure: its name, such as "duration_s".
        typical: value of it.

    Example:
        >>> scale_of("duration_s", 7200.0), scale_of("epochs", 5.0)
        (('h', 3600.0), ('epochs', 1.0))
    """
    return readable_unit(UNITS.get(measure, ""), typical)


def readable(value: float) -> str:
    """Return a number with three digits, or all those before the point."""
    if math.isfinite(value) and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shortened(names: Sequence[str]) -> str:
    """Return a list of names, the first ten where there are many."""
    left = len(names) - _MOST_NAMES
    return f"{', '.join(names[:_MOST_NAMES])}{f' and {left:,} more' if left > 0 else ''}"


def level(value: float) -> str:
    """Return a confidence level in per cent, with all its digits.

    Example:
        >>> level(0.9), level(0.995)
        ('90%', '99.5%')
    """
    return f"{100 * value:g}%"


def percent(value: float) -> str:
    """Return a share in per cent, never rounded to certainty.

    Example:
        >>> percent(0.5), percent(0.999), percent(1.0)
        ('50%', '>99%', '100%')
    """
    if 0 < value < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= value < 1 else f"{value:.0%}"


# --- the tables of each object -----------------------------------------------------------------


def class_table(shift: Mapping[str, Any], examples: Mapping[str, tuple[int, int]]) -> Table:
    """Return the shift of each class, the largest share first.

    Args:
        shift: the index, as its `to_dict` gives it.
        examples: class -> examples on the old and the new side; may be empty.
    """
    sides = ("examples before", "examples after") if examples else ()
    rows = []
    for name, of in shift["contributions"].items():
        rows.append(
            (
                text(name),
                *map(count, examples.get(name, ())),
                index(shift["per_class"][name]),
                index(shift["per_class_floor"][name]),
                index(shift["per_class_debiased"][name], "unresolved"),
                share(of),
            )
        )
    return Table(
        name="classes",
        caption="RESQUE_dist of each class, in units of π, and its share in the index",
        headings=("class", *sides, "value", "floor", "debiased", "share"),
        columns=("class", *(side.replace(" ", "_") for side in sides), "value", "floor",
                 "debiased", "share"),
        rows=tuple(rows),
    )  # fmt: skip


def mixture_table(task: Mapping[str, Any]) -> Table:
    """Return which classes of a task are mixed up with which."""
    return Table(
        name="mixtures",
        caption="Classes whose examples lie in the cluster of another class",
        headings=("class", "in the cluster of", "share of the class"),
        columns=("class", "mixed_with", "share"),
        rows=tuple(
            (text(m["class"]), text(m["mixed_with"]), share(m["share"])) for m in task["mixtures"]
        ),
        words=2,
    )


def forecast_table(forecast: Forecast) -> Table:
    """Return each measure of an update not yet made, beside the same from scratch."""
    fresh = forecast.from_scratch
    others = {} if fresh is None else fresh.estimates()
    rows = []
    for measure, estimate in forecast.estimates().items():
        other = others.get(measure)
        row = [
            Cell(measure, MEASURES[measure]),
            estimated(measure, estimate, "no forecast"),
        ]
        if fresh is not None:
            times = _times(estimate, other) if measure in COSTS else None
            row += [estimated(measure, other, "no forecast"), Cell(times, _shown_times(times))]
        rows.append(tuple(row))
    beside = ("from scratch", "times as much") if fresh is not None else ()
    return Table(
        name="forecast",
        caption=f"Median and {level(forecast.confidence_level)} interval of each measure",
        headings=("measure", "this update", *beside),
        columns=("measure", "update", *(("from_scratch", "times") if beside else ())),
        rows=tuple(rows),
    )


def option_table(comparison: Comparison) -> Table:
    """Return the options of a comparison side by side."""
    known = [
        name for name in COSTS if any(one.costs.get(name) is not None for one in comparison.options)
    ]
    rows = []
    for one in comparison.options:
        costs = (estimated(name, one.costs.get(name)) for name in known)
        rows.append(
            (
                text(one.name),
                text(one.kind),
                text(one.model or "as it is"),
                Cell(one.reaches_target, chance(one.reaches_target)),
                estimated("peak_accuracy", one.peak_accuracy),
                *costs,
                Cell(one.cheaper, "" if one.cheaper is None else chance(one.cheaper)),
            )
        )
    return Table(
        name="options",
        caption=f"Options: medians and {level(comparison.confidence_level)} intervals",
        headings=("option", "kind", "model", "reaches the target", "peak accuracy",
                  *(MEASURES[name] for name in known), f"cheaper than {comparison.best}"),
        columns=("option", "kind", "model", "reaches_target", "peak_accuracy", *known, "cheaper"),
        rows=tuple(rows),
        words=3,
    )  # fmt: skip


def change_table(comparison: Comparison) -> Table:
    """Return what else might have been asked of the options, and what the answer would be."""
    return Table(
        name="changes",
        caption="What the answer would be otherwise",
        headings=("with", "answer", "another answer"),
        columns=("change", "recommended", "differs"),
        rows=tuple(
            (
                text(one.what),
                Cell(one.recommended, one.recommended or "no option is likely enough to reach it"),
                Cell(one.differs, "yes" if one.differs else "no"),
            )
            for one in comparison.changes
        ),
        words=3,
    )


def schedule_table(plan: Plan) -> Table:
    """Return the schedules of a plan and what following each comes to in a year."""
    known = [name for name in COSTS if any(name in one.cost for one in plan.schedules)]
    return Table(
        name="schedules",
        caption=f"Schedules: medians and {level(plan.confidence_level)} intervals of a year",
        headings=("schedule", "does what is asked", "updates", *(MEASURES[name] for name in known)),
        columns=("schedule", "sure", "updates", *known),
        rows=tuple(
            (
                text(one.name),
                share(one.sure),
                estimated("updates", one.updates),
                *(estimated(name, one.cost.get(name)) for name in known),
            )
            for one in plan.schedules
        ),
    )


def update_table(updates: Sequence[Update]) -> Table:
    """Return what each update of a history came to."""
    return Table(
        name="updates",
        caption="Updates, and what was known and measured of each",
        headings=("update", "started (UTC)", "start", "labels", "ended", "RESQUE_dist", "epochs",
                  "time", "energy", "carbon", "accuracy before", "peak accuracy"),
        columns=("id", "started", "start", "labels", "ended", "RESQUE_dist", "epochs",
                 "duration_s", "energy_kwh", "carbon_kg", "accuracy_before", "peak_accuracy"),
        rows=tuple(_update_row(update) for update in updates),
        words=5,
    )  # fmt: skip


def measure_table(update: Update) -> Table:
    """Return what one update came to, a row for each measure."""
    measures = {
        "epochs": update.epochs,
        "duration_s": update.duration_s,
        "energy_kwh": update.energy_kwh,
        "carbon_kg": update.carbon_kg,
        "gradient_norm": update.gradient_norm,
        "parameter_change": update.parameter_change,
        "accuracy_before": update.accuracy_before,
        "peak_accuracy": update.peak_accuracy,
    }
    none = {"carbon_kg": f"not known: {update.why_no_carbon}"}
    return Table(
        name="measures",
        caption="What the update came to",
        headings=("measure", "value"),
        columns=("measure", "value"),
        rows=tuple(
            (
                Cell(name, MEASURES.get(name, name.replace("_", " "))),
                quantity(name, value, none.get(name, NOT_KNOWN)),
            )
            for name, value in measures.items()
        ),
    )


def curve_table(update: Update) -> Table:
    """Return each validation of an update."""
    return Table(
        name="curve",
        caption="Validations during the update",
        headings=("epoch", "accuracy", "validation loss", "training loss", "gradient norm",
                  "parameter change", "seconds", "joules"),
        columns=("epoch", "accuracy", "validation_loss", "training_loss", "gradient_norm",
                 "parameter_change", "seconds", "joules"),
        rows=tuple(
            (
                number(point.epoch),
                index(point.accuracy),
                *(
                    number(value, "")
                    for value in (
                        point.validation_loss, point.training_loss, point.gradient_norm,
                        point.parameter_change, point.seconds, point.joules,
                    )
                ),
            )
            for point in update.curve
        ),
        words=0,
    )  # fmt: skip


def energy_table(updates: Iterable[Update]) -> Table:
    """Return the energy of updates by part of the machine, and where each number is from.

    Only updates whose energy is known, and theirs alone, are added up.
    """
    parts: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    total = 0.0
    for update in updates:
        # Without steps there is nothing to be told apart, whatever the meter said.
        if update.energy is None or not update.energy_kwh:
            continue
        total += update.energy.joules or 0.0
        for part in update.energy.components:
            key: tuple[str, ...] = (
                update.energy.meter, update.energy.calibration or "none", part.name, part.source,
                "yes" if part.counted else "no",
            )  # fmt: skip
            parts.setdefault(key, []).append((part.joules or 0.0, part.relative_error))
    rows = []
    for key, found in parts.items():
        joules = math.fsum(of for of, _ in found)
        band = math.fsum(of * error for of, error in found) / joules if joules else None
        counted = joules / total if key[-1] == "yes" and total else None
        rows.append(
            (
                *map(text, key),
                count(len(found)),
                quantity("energy_kwh", joules / JOULES_PER_KWH),
                Cell(counted, "" if counted is None else percent(counted)),
                Cell(band, NOT_KNOWN if band is None else f"±{band:.0%}"),
            )
        )
    return Table(
        name="energy",
        caption="Energy of the updates by part of the machine, and where each number is from",
        headings=("meter", "calibration", "part", "source", "counted", "updates", "energy",
                  "share of the total", "error"),
        columns=("meter", "calibration", "part", "source", "counted", "updates", "energy_kwh",
                 "share", "relative_error"),
        rows=tuple(rows),
        words=5,
    )  # fmt: skip


def carbon_table(updates: Iterable[Update]) -> Table:
    """Return the carbon of updates by grid, and where the grid's number is from."""
    grids: dict[Any, list[Update]] = {}
    for update in updates:
        if update.carbon_kg is not None:
            grids.setdefault(update.grid, []).append(update)
    return Table(
        name="carbon",
        caption="Carbon of the updates by grid, and where the grid's number is from",
        headings=("grid", "source", "year", "g CO2e per kWh", "PUE", "updates", "energy", "carbon"),
        columns=("grid", "source", "year", "grams_per_kwh", "pue", "updates", "energy_kwh",
                 "carbon_kg"),
        rows=tuple(
            (
                text(grid.name),
                text(grid.source),
                Cell(grid.year, NOT_KNOWN if grid.year is None else str(grid.year)),
                number(grid.grams_per_kwh),
                number(grid.pue),
                count(len(found)),
                quantity("energy_kwh", math.fsum(u.energy_kwh or 0.0 for u in found)),
                quantity("carbon_kg", math.fsum(u.carbon_kg or 0.0 for u in found)),
            )
            for grid, found in grids.items()
        ),
        words=2,
    )  # fmt: skip


def known_table(preflight: Preflight) -> Table:
    """Return all that a pre-flight knows, and why what it does not know is missing."""
    return Table(
        name="preflight",
        caption="What was known before training",
        headings=("number", "value"),
        columns=("name", "value"),
        rows=tuple(
            (text(name), number(value, f"none: {preflight.missing.get(name, 'no reason kept')}"))
            for name, value in preflight.values.items()
        ),
    )


def score_table(backtest: Backtest) -> Table:
    """Return how well each method of a backtest did, the forecast first."""
    shown = {
        "epochs_error": ("epochs wrong by", share),
        "epochs_coverage": ("coverage", share),
        "epochs_width": ("log of upper / lower", number),
        "pinball": ("pinball loss", number),
        "accuracy_error": ("accuracy wrong by", number),
        "brier": ("Brier score", number),
    }
    return Table(
        name="scores",
        caption=f"Updates foretold to {backtest.target}, {backtest.hold_out} held out",
        headings=("method", "updates", *(heading for heading, _ in shown.values())),
        columns=("method", "updates", *shown),
        rows=tuple(
            (
                text(score.method),
                count(score.updates),
                *(cell(score.values[name][0]) for name, (_, cell) in shown.items()),
            )
            for score in backtest.scores
        ),
    )


def signature_table(signatures: Mapping[str, Signature]) -> Table:
    """Return what reproduces the numbers, a column for each signature.

    Args:
        signatures: what it is of -> signature.
    """
    fields = next(iter(signatures.values())).to_dict()
    return Table(
        name="signature",
        caption="What reproduces the numbers, and what they may be compared with",
        headings=("field", *signatures),
        columns=("field", *signatures),
        rows=tuple(
            (
                text(field),
                *(_field(getattr(signature, field)) for signature in signatures.values()),
            )
            for field in fields
        ),
        words=1 + len(signatures),
    )


def index_of(update: Update) -> float | None:
    """Return the RESQUE_dist that an update kept, debiased where it is resolved."""
    # A history takes what a user calls an index: only numbers are believed.
    kept = _kept_index(update)
    for found in (kept.get("debiased"), kept.get("value")):
        if isinstance(found, int | float) and math.isfinite(found):
            return float(found)
    return None


def weights_of_index(update: Update) -> str | None:
    """Return the digest of the weights of which the kept index is; None where it is not said."""
    signature = _kept_index(update).get("signature")
    weights = signature.get("weights") if isinstance(signature, Mapping) else None
    return None if weights is None else str(weights)


def _kept_index(update: Update) -> Mapping[str, Any]:
    for kept in (update.index, (update.preflight or {}).get("shift")):
        if isinstance(kept, Mapping) and kept.get("index") == "RESQUE_dist":
            return kept
    return {}


def _update_row(update: Update) -> tuple[Cell, ...]:
    ended = update.ended.replace("_", " ")
    return (
        Cell(update.id, update.id[:8]),
        Cell(update.started, update.started[:16].replace("T", " ")),
        Cell(update.start, update.start or NOT_KNOWN),
        text(" ".join(f"{key}={value}" for key, value in update.labels.items())),
        Cell(update.ended, ended if update.reached else f"{ended} (censored)"),
        index(index_of(update)),
        number(update.epochs),
        quantity("duration_s", update.duration_s),
        quantity("energy_kwh", update.energy_kwh),
        quantity("carbon_kg", update.carbon_kg),
        index(update.accuracy_before),
        index(update.peak_accuracy),
    )


def _field(value: Any) -> Cell:
    if isinstance(value, tuple):
        names = [str(one) for one in value]
        return Cell(", ".join(names), shortened(names))
    return Cell(value, "none" if value is None else str(value))


def _times(estimate: Estimate | None, other: Estimate | None) -> float | None:
    if estimate is None or other is None or estimate.median <= 0:
        return None
    return other.median / estimate.median


def _shown_times(times: float | None) -> str:
    return "" if times is None else f"{times:.2g}"


def _three(value: Any) -> tuple[Any, Any, Any]:
    if value is None:
        return None, None, None
    return value.median, value.lower, value.upper


def _markdown(shown: str) -> str:
    """Return words that are no markup: neither a new cell or line, nor HTML."""
    flat = " ".join(shown.split())
    for sign in ("\\", "|", "`", "*", "_", "[", "]"):
        flat = flat.replace(sign, f"\\{sign}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
