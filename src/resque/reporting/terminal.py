"""Results on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from resque.forecasting.forecast import WORDS, chance, readable_unit
from resque.reporting.comparison_terminal import comparison_view

if TYPE_CHECKING:
    from resque.forecasting.backtest import Backtest
    from resque.forecasting.budget import Judged
    from resque.forecasting.forecast import Estimate, Forecast
    from resque.history.store import UpdateSummary
    from resque.history.update import Update
    from resque.index.shift import ShiftIndex
    from resque.index.task import TaskIndex
    from resque.measure.comparison import MeterOnLoad

_MOST_ROWS = 20
# Those of which twice as much is twice the cost.
_COSTS = ("epochs", "duration_s", "energy_kwh", "carbon_kg")


def show(what: RenderableType) -> None:
    """Print something to stdout, as wide as the terminal and never cut off elsewhere."""
    console = Console()
    if not console.is_terminal:
        # Into a file or a pipe whole lines go, however long.
        console = Console(width=10_000, highlight=False)
    console.print(what, soft_wrap=True)


def shift_view(shift: ShiftIndex) -> RenderableType:
    """Return the summary of a shift and a table of its classes, largest share first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "before", "after", "value", "floor", "debiased", "share"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    shares = shift.contributions
    for name in list(shares)[:_MOST_ROWS]:
        row = shift.classes[name]
        table.add_row(
            Text(name),
            str(row.examples_before),
            str(row.examples_after),
            f"{row.value:.4f}",
            f"{row.floor:.4f}",
            "unresolved" if row.debiased is None else f"{row.debiased:.4f}",
            f"{shares[name]:.0%}",
        )
    parts: list[RenderableType] = [Text(str(shift)), Text(), table]
    if len(shares) > _MOST_ROWS:
        parts.append(Text(f"and {len(shares) - _MOST_ROWS} more classes (--json gives all)"))
    return Group(*parts)


def task_view(task: TaskIndex) -> RenderableType:
    """Return the summary of a task and a table of the classes most mixed up."""
    if not task.mixtures:
        return Text(str(task))
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "in the cluster of", "share of the class"):
        table.add_column(heading, justify="right" if heading.startswith("share") else "left")
    for mixture in task.mixtures[:10]:
        table.add_row(Text(mixture.class_name), Text(mixture.mixed_with), f"{mixture.share:.0%}")
    return Group(Text(str(task)), Text(), table)


def demo_view(demo: Any) -> RenderableType:
    """Return the tables of the demonstration on digits (see `experiments.digits`)."""
    shifts = Table(box=None, pad_edge=False)
    for heading in ("shift", "strength", "RESQUE_dist", "floor", "debiased", "90% interval", "p",
                    "accuracy"):  # fmt: skip
        shifts.add_column(heading, justify="left" if heading == "shift" else "right")
    for row in demo.shifts:
        index = row.index
        shifts.add_row(
            row.kind,
            f"{row.level:g}",
            f"{index.value:.4f}",
            f"{index.floor:.4f}",
            f"{index.debiased:.4f}",
            f"{index.lower:.4f} to {index.upper:.4f}",
            f"{index.p_value:.1g}",
            f"{row.accuracy:.3f}",
        )
    updates = Table(box=None, pad_edge=False)
    for heading in ("shift", "strength", "RESQUE_dist", "update", "epochs", "accuracy",
                    "gradient norm", "parameter change", "seconds", "joules", ""):  # fmt: skip
        left = heading in ("shift", "update", "")
        updates.add_column(heading, justify="left" if left else "right")
    for row in demo.updates:
        for way, update in (("retrained", row.retrained), ("from scratch", row.scratch)):
            first = way == "retrained"
            updates.add_row(
                row.kind if first else "",
                f"{row.level:g}" if first else "",
                f"{row.index.value:.4f}" if first else "",
                way,
                f"{update.epochs:.3g}",
                f"{update.peak_accuracy:.3f}",
                f"{update.gradient_norm:.3g}" if update.gradient_norm is not None else "",
                f"{update.parameter_change:.2g}",
                f"{update.duration_s:.2g}",
                _of_or_none(None if update.energy_kwh is None else update.energy_kwh * 3.6e6),
                "" if update.reached else "not reached",
            )
    measured: list[RenderableType] = []
    if demo.updates:
        readings = [row.scratch.energy for row in demo.updates if row.scratch.energy]
        meter = readings[0].meter if readings else "none"
        modelled = any(reading.modelled for reading in readings)
        kind = ", modelled: little more than a clock" if modelled else ""
        measured = [
            Text(f"The network updated until it reads new digits with {update.target}:"),
            updates,
            Text(f"  energy by {meter}{kind}"),
            Text(
                f"  carbon: {_carbon([u for r in demo.updates for u in (r.retrained, r.scratch)])}"
            ),
            Text(),
        ]
    if demo.forecast is not None:
        measured += _forecast_and_truth(demo.forecast, demo.updates[-1])
    if demo.comparison is not None:
        measured += [
            Text(
                "What could be done at that time, to reach "
                f"{demo.comparison.target.value:g} in the least time:"
            ),
            comparison_view(demo.comparison, warnings=False),
            Text(_taken(demo.updates[-1])),
            Text(),
        ]
    task, known = demo.task, demo.task_known
    return Group(
        Text("A network that knows all ten digits, on digits it has not seen, shifted:"),
        shifts,
        Text(),
        *measured,
        Text("A network that knows 0 to 4, before it is taught anything else:"),
        Text(f"  RESQUE_task of the digits 0 to 4, which it knows  {known.value:.4f}"),
        Text(f"  RESQUE_task of the digits 5 to 9, a new task      {task.value:.4f}"),
        Text(),
        Text(str(demo.shifts[0].index.signature)),
        Text(str(task.signature)),
    )


def _forecast_and_truth(forecast: Forecast, row: Any) -> list[RenderableType]:
    """Return a forecast of a retraining of the demonstration, beside what it then took."""
    truth = row.retrained
    rows = []
    for name, estimate in forecast.estimates().items():
        taken = getattr(truth, name)
        if estimate is None or taken is None:
            continue
        # What ended when it was good enough might have become better, and what was given up
        # would have taken longer.
        bound = truth.reached if name == "peak_accuracy" else not truth.reached
        more = "at least " if bound and name in ("peak_accuracy", *_COSTS) else ""
        unit, scale = readable_unit(estimate.unit, estimate.median)
        told = _median_and_interval(estimate, scale)
        rows.append((WORDS[name], *told, f"{more}{taken / scale:.3g}", unit))
    interval = f"{100 * forecast.confidence_level:g}% interval"
    met = "was met" if truth.reached else "was not met"
    return [
        Text(f"The last retraining ({row.kind} {row.level:g}), forecast before it was made:"),
        _table(("measure", "median", interval, "it took", "unit"), rows, words=1),
        Text(
            f"  target met with {chance(forecast.reaches_target)} probability; it {met}. Known "
            f"before: {forecast.own_updates} updates above, {forecast.corpus_updates} of the corpus"
        ),
        Text(),
    ]


def _taken(row: Any) -> str:
    """Return what the trainings of the last update of the demonstration took."""
    told = [
        f"{way} {update.duration_s:.2g} s" + ("" if update.reached else ", without reaching it")
        for way, update in (("retrain", row.retrained), ("from scratch", row.scratch))
    ]
    return f"  It then took: {'; '.join(told)}"


def update_view(update: Update) -> RenderableType:
    """Return the summary of an update and a table of its validations."""
    points = update.curve
    # The first and the last ones tell most where there are many.
    half = _MOST_ROWS // 2
    shown = points if len(points) <= _MOST_ROWS else (*points[:half], *points[-half:])
    headings = ("epoch", "accuracy", "validation loss", "training loss", "gradient norm",
                "parameter change", "s",
                "J modelled" if update.energy and update.energy.modelled else "J")  # fmt: skip
    rows = (
        (
            _number(point.epoch),
            f"{point.accuracy:.4f}",
            _number(point.validation_loss),
            _number(point.training_loss),
            _number(point.gradient_norm),
            _number(point.parameter_change),
            _number(point.seconds),
            _number(point.joules),
        )
        for point in shown
    )
    table = _table(headings, rows, words=0)
    head = Text(f"id {update.id}, started {update.started}")
    parts: list[RenderableType] = [head, Text(str(update)), Text(), table]
    if len(points) > len(shown):
        parts.append(Text(f"{len(points) - len(shown)} validations between (--json gives all)"))
    return Group(*parts)


def backtest_view(backtest: Backtest) -> RenderableType:
    """Return how well updates were foretold, a row for each method, the forecast first."""
    table = Table(box=None, pad_edge=False)
    headings = (
        "method", "updates", "epochs wrong by", "coverage", "upper / lower", "pinball loss",
        "accuracy wrong by", "Brier score",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for score in backtest.scores:
        value = {name: of[0] for name, of in score.values.items()}
        lower, upper = score.values["epochs_error"][1:]
        wrong = f"{value['epochs_error']:.0%}"
        wrong += "" if math.isnan(lower) else f" ({lower:.0%} to {upper:.0%})"
        table.add_row(
            Text(score.method, style="bold" if score is backtest.scores[0] else ""),
            str(score.updates),
            wrong,
            f"{value['epochs_coverage']:.0%}",
            f"{math.exp(value['epochs_width']):.2f}",
            f"{value['pinball']:.3f}",
            f"{value['accuracy_error']:.3f}",
            f"{value['brier']:.3f}",
        )
    title = (
        f"{backtest.scores[0].updates} updates foretold to {backtest.target}, "
        f"{backtest.hold_out} held out; median error of the epochs, 90 % intervals"
    )
    verdict = backtest.verdict
    return Group(Text(title), Text(), table, *([Text(), Text(verdict)] if verdict else []))


def forecast_view(forecast: Forecast, judged: Judged | None = None) -> RenderableType:
    """Return a table of the measures of an update not yet made, and what to know of them.

    Args:
        forecast: of the update, with or without the same from fresh weights.
        judged: what a budget says of it; None for no budget.
    """
    fresh = forecast.from_scratch
    interval = f"{100 * forecast.confidence_level:g}% interval"
    headings = ["measure", "median", interval, "unit"]
    rows = []
    others = {} if fresh is None else fresh.estimates()
    if fresh is not None:
        headings += ["from scratch", interval, "times as much"]
    for name, estimate in forecast.estimates().items():
        if estimate is None:
            continue
        unit, scale = readable_unit(estimate.unit, estimate.median)
        row = [WORDS[name], *_median_and_interval(estimate, scale), unit]
        if fresh is not None:
            other = others[name]
            told = ("", "") if other is None else _median_and_interval(other, scale)
            row += [*told, _times(name, estimate, other)]
        rows.append(tuple(row))
    heading = f"an update until {forecast.target}, trained for {forecast.recipe.max_epochs:g} "
    lines = [
        *(f"no {WORDS[name]}: {why}" for name, why in forecast.missing.items()),
        "",
        _probability_of_target(forecast),
        f"from {forecast.own_updates} own updates and {forecast.corpus_updates} of the corpus",
        str(forecast.track_record),
    ]
    if forecast.duration_s is not None:
        what = "time is that" if forecast.energy_kwh is None else "time and energy are those"
        lines.append(f"{what} of {forecast.machine}")
    if forecast.grid is not None:
        lines.append(f"carbon on {forecast.grid}")
    if judged is not None:
        lines.append(_judgement(judged))
    lines += [f"warning: {note}" for note in forecast.notes]
    own = {*forecast.notes}
    lines += [f"warning, from scratch: {n}" for n in (fresh.notes if fresh else ()) if n not in own]
    return Group(
        Text(f"{heading}epochs at most"),
        Text(),
        _table(tuple(headings), rows, words=1),
        *map(Text, [*lines, str(forecast.signature)]),
    )


def _median_and_interval(estimate: Estimate, scale: float) -> tuple[str, str]:
    median, lower, upper = (
        f"{value / scale:.3g}" if value < 1000 * scale else f"{value / scale:.0f}"
        for value in (estimate.median, estimate.lower, estimate.upper)
    )
    return median, f"{lower} to {upper}"


def _times(name: str, estimate: Estimate, other: Estimate | None) -> str:
    if name not in _COSTS or other is None or estimate.median <= 0:
        return ""
    return f"{other.median / estimate.median:.2g}"


def _probability_of_target(forecast: Forecast) -> str:
    told = f"its target is met with {chance(forecast.reaches_target)} probability"
    if forecast.from_scratch is not None:
        told += f", from scratch with {chance(forecast.from_scratch.reaches_target)}"
    return told


def _judgement(judged: Judged) -> str:
    level = f"{100 * judged.confidence_level:g}%"
    kept = ", ".join(f"{name} {chance(share)}" for name, share in judged.probabilities.items())
    if judged.holds:
        return f"the budget holds, each limit with {level} probability or more: {kept}"
    return f"the budget does not hold with {level} probability: {kept}"


def _carbon(updates: Sequence[Update]) -> str:
    known = [update.carbon_kg for update in updates if update.carbon_kg is not None]
    if not known:
        return f"none, because {updates[-1].why_no_carbon}"
    of = "all" if len(known) == len(updates) else f"{len(known)} of {len(updates)}"
    return f"{sum(known):.3g} kg CO2e for {of} updates together, on {updates[-1].grid}"


def history_view(found: Sequence[UpdateSummary], total: int, grid: str) -> RenderableType:
    """Return a table of updates, with what to know of its marks.

    Args:
        found: the updates to show.
        total: how many there are.
        grid: for which carbon was costed, in words; "" for that of each update.
    """
    if not found:
        return Text("no updates")
    rows = (
        (
            one.id[:8],
            one.started[:16].replace("T", " "),
            one.model or "",
            " ".join(f"{key}={value}" for key, value in one.labels.items()),
            one.target or "",
            _ending(one),
            _number(one.epochs),
            _number(one.duration_s),
            _number(one.energy_kwh) + ("*" if one.energy_modelled and one.energy_kwh else ""),
            _number(one.carbon_kg) + ("*" if one.energy_modelled and one.carbon_kg else ""),
        )
        for one in found
    )
    headings = ("id", "started (UTC)", "model", "labels", "target", "ended", "epochs", "s", "kWh",
                "kg CO2e")  # fmt: skip
    notes = []
    if any(one.energy_modelled and one.energy_kwh for one in found):
        notes.append("* modelled from load and time, not read from a counter")
    if grid:
        notes.append(f"carbon on {grid}")
    if total > len(found):
        notes.append(f"the newest {len(found)} of {total}; --limit shows more")
    return Group(_table(headings, rows, words=6), *map(Text, notes))


def environment_view(found: dict[str, Any]) -> RenderableType:
    """Return what `measure.machine.environment` found, as two tables."""
    versions = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found["versions"].items():
        versions.add_row(name, value or "not installed")
    devices = Table(box=None, pad_edge=False, show_header=False)
    for device in found["devices"]:
        memory = f"{device['memory_gb']} GB" if "memory_gb" in device else ""
        devices.add_row(device["device"], device["name"], memory)
    heading = f"{found['platform']}, {found['cores']} cores, {found['torch_threads']} torch threads"
    return Group(Text(heading), Text(), versions, Text(), devices)


def meters_view(meters: Sequence[MeterOnLoad]) -> RenderableType:
    """Return what the meters said of one load, and what would give a better reading."""
    table = Table(box=None, pad_edge=False)
    for heading in ("meter", "part", "joules", "watts", "source", "error", "how"):
        table.add_column(heading, justify="right" if heading in ("joules", "watts") else "left")
    notes = []
    for meter in meters:
        notes += [Text(f"{meter.name}: {sentence}") for sentence in meter.missing]
        reading = meter.reading
        if reading is None:
            table.add_row(meter.name, "", "", "", "not available", "", "")
            continue
        for part, gauge in zip(reading.components, meter.gauges, strict=True):
            table.add_row(
                meter.name,
                part.name,
                _of_or_none(part.joules),
                _of_or_none(part.joules, reading.seconds),
                part.source,
                f"±{part.relative_error:.0%}",
                Text(gauge.why if part.counted else f"{gauge.why}; not counted"),
            )
        if reading.other_load is not None:
            notes.append(
                Text(
                    f"{meter.name}: other processes kept {reading.other_load:.0%} of the cores "
                    "busy meanwhile, and a meter of the whole machine bills them too."
                )
            )
    return Group(Text(), table, Text(), *notes)


def _of_or_none(joules: float | None, seconds: float = 1.0) -> str:
    return "unknown" if joules is None else f"{joules / seconds:.4g}"


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, words: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < words else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _ending(one: UpdateSummary) -> str:
    if one.reached is None:
        return "not readable"
    return "reached" if one.reached else f"censored ({(one.ended or '').replace('_', ' ')})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
