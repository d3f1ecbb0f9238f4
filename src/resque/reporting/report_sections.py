"""What a report says of each object: sentences, numbers, tables and figures, in sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from resque.errors import InputError
from resque.forecasting.forecast import chance
from resque.reporting.report_figures import (
    MOST_CLASSES,
    class_figure,
    forecast_figure,
    history_figure,
    option_figure,
)
from resque.reporting.report_tables import (
    COSTS,
    MEASURES,
    Table,
    carbon_table,
    change_table,
    class_table,
    curve_table,
    energy_table,
    forecast_table,
    index_of,
    known_table,
    level,
    measure_table,
    mixture_table,
    option_table,
    percent,
    readable,
    schedule_table,
    score_table,
    shortened,
    signature_table,
    told,
    update_table,
    weights_of_index,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resque.decision.comparison import Comparison
    from resque.decision.plan import Plan
    from resque.forecasting.backtest import Backtest
    from resque.forecasting.forecast import Forecast
    from resque.forecasting.preflight import Preflight
    from resque.history.update import Update
    from resque.index.shift import ShiftIndex
    from resque.index.task import TaskIndex
    from resque.representation.signature import Signature

# Of the test that nothing moved: above it, movement cannot be told from chance.
_CHANCE = 0.05
# The newest; more marks than these would hide each other and fill the file.
_MOST_MARKS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure of a report.

    Attributes:
        name: of its file, and its id on the page.
        title: what it shows.
        description: what is to be seen in it, for those who do not see it.
        draw: returns it; to be called within `report_figures.drawing`.
        table: the same numbers.
    """

    name: str
    title: str
    description: str
    draw: Callable[[], Figure]
    table: Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A section of a report.

    Attributes:
        id: its anchor.
        title: its heading.
        sentences: what is said first, a paragraph each.
        drawings: figures, each with its table.
        tables: without a figure.
        points: (what, why) of a list.
        warnings: what to know before relying on it.
        code: a command to be copied.
    """

    id: str
    title: str
    sentences: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    points: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that is shown large.

    Attributes:
        label: what it is.
        value: in words, with its unit.
        detail: floor, interval or whatever it must not be read without.
    """

    label: str
    value: str
    detail: str


# --- RESQUE_dist -------------------------------------------------------------------------------


def shift_reading(shift: Mapping[str, Any]) -> str:
    """Return in a clause whether the classes have moved.

    Args:
        shift: the index, as its `to_dict` gives it.
    """
    number = f"RESQUE_dist {shift['value']:.4f}, and {shift['floor']:.4f} without any shift"
    if shift["debiased"] is None:
        return f"the data are too few to tell whether the classes have moved ({number})"
    if shift["p_value"] is None:
        return f"the debiased index is {shift['debiased']:.4f}, without a test ({number})"
    if shift["p_value"] > _CHANCE:
        return (
            f"no movement of the classes can be told from chance (p = {shift['p_value']:.2g}; "
            f"{number})"
        )
    interval = f"{level(shift['confidence_level'])} interval {_bounds(shift)}"
    return f"the classes have moved by {shift['debiased']:.4f} ({interval}; {number})"


def shift_facts(shift: Mapping[str, Any]) -> list[Fact]:
    """Return the index, its debiased value and what became of the accuracy."""
    facts = [Fact("RESQUE_dist", f"{shift['value']:.4f}", f"floor {shift['floor']:.4f}")]
    if shift["debiased"] is None:
        facts.append(Fact("debiased", "unresolved", "too little data"))
    else:
        bounds = _bounds(shift)
        interval = f"{level(shift['confidence_level'])} interval {bounds}"
        detail = interval if bounds else "no interval: too few groups"
        facts.append(Fact("debiased", f"{shift['debiased']:.4f}", detail))
    before, after = shift["accuracy_before"], shift["accuracy_after"]
    if after is not None:
        was = "unknown on the old data" if before is None else f"{before:.4f} on the old data"
        facts.append(Fact("accuracy on the new data", f"{after:.4f}", was))
    return facts


def shift_section(shift: Mapping[str, Any], examples: Mapping[str, tuple[int, int]]) -> Section:
    """Return the index with floor, interval, test and the part of each class."""
    shares = list(shift["contributions"].items())
    of_all = f"{shift['examples_before']:,} old and {shift['examples_after']:,} new examples"
    sentences = [f"{sentence(shift_reading(shift))} It compares {of_all} in {len(shares)} classes."]
    if shift["value"] > 0:
        largest = ", ".join(f"{name} ({percent(share)})" for name, share in shares[:3])
        sentences.append(f"The largest parts of the index are those of the classes {largest}.")
    left = len(shares) - MOST_CLASSES
    among = f"the {MOST_CLASSES} largest of {len(shares)}" if left > 0 else f"{len(shares)}"
    name, value = max(shift["per_class"].items(), key=lambda item: item[1])
    drawing = Drawing(
        name="classes",
        title=f"Shift of each class ({among})",
        description=(
            f"Raw value, floor and debiased value of each class. The largest is {name} with "
            f"{value:.4f}."
        ),
        draw=lambda: class_figure(shift),
        table=class_table(shift, examples),
    )
    return Section(
        id="shift",
        title="How far the data have moved",
        sentences=tuple(sentences),
        drawings=(drawing,),
    )


def _bounds(shift: Mapping[str, Any]) -> str:
    if shift["lower"] is None or shift["upper"] is None:
        return ""
    return f"{shift['lower']:.4f} to {shift['upper']:.4f}"


# --- RESQUE_task -------------------------------------------------------------------------------


def task_reading(task: Mapping[str, Any]) -> str:
    """Return in a clause how well the model separates the classes of a task."""
    return (
        f"RESQUE_task is {task['value']:.4f} (0: the model separates the {task['classes']} classes "
        f"of the task already; about 1: it knows nothing of them)"
    )


def task_section(task: Mapping[str, Any]) -> Section:
    """Return the index of a task and which classes are mixed up."""
    sentences = (
        sentence(task_reading(task)),
        (
            f"The nearest class mean is right for {percent(task['nearest_class_mean_accuracy'])} "
            f"of {task['examples']:,} examples; {task['iterations']} iterations of k-means "
            "followed."
        ),
    )
    return Section(
        id="task",
        title="How well the model separates the classes",
        sentences=sentences,
        tables=(mixture_table(task),) if task["mixtures"] else (),
    )


# --- forecast ----------------------------------------------------------------------------------


def forecast_reading(forecast: Forecast, *, short: bool = False) -> str:
    """Return in a clause what an update would cost.

    Args:
        forecast: of the update.
        short: tell, beside the epochs, of energy or else of time alone.
    """
    known = [name for name in COSTS[1:-1] if getattr(forecast, name) is not None]
    if short:
        known = sorted(known, key=("energy_kwh", "duration_s", "carbon_kg").index)[:1]
    costs = [_of(name, forecast) for name in ("epochs", *known)]
    what = f"{', '.join(costs[:-1])} and {costs[-1]}" if len(costs) > 1 else costs[0]
    return (
        f"an update until {forecast.target} would take {what}, and meets its target with "
        f"{chance(forecast.reaches_target)} probability"
    )


def forecast_facts(forecast: Forecast) -> list[Fact]:
    """Return cost, probability and accuracy of a forecast."""
    interval = f"{level(forecast.confidence_level)} interval"
    facts = []
    for name in (*COSTS[:-1], "peak_accuracy"):
        estimate = getattr(forecast, name)
        if estimate is not None:
            median, _, bounds = told(name, estimate).partition(" (")
            facts.append(Fact(MEASURES[name], median, f"{interval} {bounds.rstrip(')')}"))
    likely = chance(forecast.reaches_target)
    return [*facts, Fact("meets its target", likely, f"{forecast.target}")]


def forecast_section(forecast: Forecast) -> Section:
    """Return the forecast with its intervals, its track record and what to know of it."""
    fresh = forecast.from_scratch
    sentences = [sentence(forecast_reading(forecast))]
    if fresh is not None:
        sentences.append(
            f"From scratch it would take {_of('epochs', fresh)}, and meet the target with "
            f"{chance(fresh.reaches_target)} probability."
        )
    sentences.append(
        f"Known were {forecast.own_updates} own updates and {forecast.corpus_updates} of the "
        f"corpus. {sentence(str(forecast.track_record))}"
    )
    if forecast.duration_s is not None:
        sentences.append(
            f"Time and energy are those of {forecast.machine}, training for "
            f"{forecast.recipe.max_epochs:g} epochs at most."
        )
    if forecast.grid is not None:
        sentences.append(f"Carbon is on {forecast.grid}.")
    table = forecast_table(forecast)
    drawing = Drawing(
        name="forecast",
        title="Medians and intervals of the forecast",
        description=" ".join(
            f"{row[0].shown}: {row[1].shown}." for row in table.rows if row[1].value is not None
        ),
        draw=lambda: forecast_figure(forecast),
        table=table,
    )
    own = {*forecast.notes}
    beside = fresh.notes if fresh is not None else ()
    return Section(
        id="forecast",
        title="What the update would cost",
        sentences=tuple(sentences),
        drawings=(drawing,),
        points=tuple((f"No {MEASURES[name]}", why) for name, why in forecast.missing.items()),
        warnings=(*forecast.notes, *(f"From scratch: {n}" for n in beside if n not in own)),
    )


def _of(measure: str, forecast: Forecast) -> str:
    return told(measure, getattr(forecast, measure))


# --- options -----------------------------------------------------------------------------------


def answered(comparison: Comparison) -> str:
    """Return the answer of a comparison as a sentence; the name at its start stays as it is."""
    if comparison.recommended is None:
        return sentence(comparison.answer)
    return f"{comparison.answer}."


def option_section(comparison: Comparison) -> Section:
    """Return the options side by side, and what would change the answer."""
    differing = [change for change in comparison.changes if change.differs]
    sentences = [answered(comparison)]
    if comparison.changes:
        sentences.append(
            "The answer would be another one "
            + "; ".join(str(change) for change in differing)
            + "."
            if differing
            else "Nothing else that was tried gives another answer."
        )
    table = option_table(comparison)
    drawing = Drawing(
        name="options",
        title="Cost and peak accuracy of the options",
        description=" ".join(
            f"{one.name}: peak accuracy {told('peak_accuracy', one.peak_accuracy)}, reaches the "
            f"target with {chance(one.reaches_target)}."
            for one in comparison.options
        ),
        draw=lambda: option_figure(comparison),
        table=table,
    )
    return Section(
        id="options",
        title="The options side by side",
        sentences=tuple(sentences),
        drawings=(drawing,),
        tables=(change_table(comparison),) if comparison.changes else (),
        points=tuple((f"{name} left out", why) for name, why in comparison.failures.items()),
    )


def option_facts(comparison: Comparison, measure: str, word: str) -> list[Fact]:
    """Return what the answer of a comparison comes to.

    Args:
        comparison: of the options.
        measure: by which they are compared.
        word: for it.
    """
    best = comparison.option(comparison.best)
    interval = f"{level(comparison.confidence_level)} interval"
    label = "recommended" if comparison.recommended else "nearest, none is sure enough"
    facts = [Fact(label, best.name, best.kind)]
    for name, what in ((measure, word), ("peak_accuracy", "peak accuracy")):
        estimate = best.peak_accuracy if name == "peak_accuracy" else best.costs[name]
        if estimate is not None:
            median, _, bounds = told(name, estimate).partition(" (")
            facts.append(Fact(what, median, f"{interval} {bounds.rstrip(')')}"))
    likely = chance(best.reaches_target)
    return [*facts, Fact("reaches the target", likely, str(comparison.target))]


def plan_section(plan: Plan) -> Section:
    """Return when to update, and what each schedule comes to."""
    return Section(
        id="plan",
        title="A plan of updates",
        sentences=(sentence(plan.expectation()), sentence(plan.advice())),
        tables=(schedule_table(plan),),
        warnings=plan.notes,
    )


# --- measured updates --------------------------------------------------------------------------


def history_section(updates: Sequence[Update]) -> Section:
    """Return what updates cost, measured, against the index that was known before."""
    indexed = [update for update in updates if index_of(update) is not None]
    reached = sum(update.reached for update in updates)
    days = sorted({update.started[:10] for update in updates})
    between = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    sentences = [
        (
            f"{_many(len(updates), 'update')} from {between}; {reached} met their target, and "
            "those that did not (censored) would have taken longer."
        )
    ]
    warnings = []
    weights = {weights_of_index(update) for update in indexed}
    if len(weights) > 1:
        warnings.append(
            f"The indices are of {len(weights)} different sets of weights. An index is comparable "
            "with another one of the same weights and layer only."
        )
    table = update_table(updates)
    drawings, tables = [], [table]
    if indexed:
        tables = []
        drawings.append(
            Drawing(
                name="history",
                title="Index before the update and its measured cost",
                description=(
                    f"{_many(len(indexed), 'update')} with an index from "
                    f"{min(map(_index, indexed)):.4f} to {max(map(_index, indexed)):.4f}, which "
                    f"took {readable(min(u.epochs for u in indexed))} to "
                    f"{readable(max(u.epochs for u in indexed))} epochs."
                ),
                draw=lambda: history_figure(indexed[-_MOST_MARKS:]),
                table=table,
            )
        )
    if len(indexed) > _MOST_MARKS:
        sentences.append(f"The figure shows the newest {_MOST_MARKS:,} of them.")
    if len(indexed) < len(updates):
        sentences.append(
            f"{_many(len(updates) - len(indexed), 'update')} kept no RESQUE_dist, and a figure "
            "cannot show them."
        )
    return Section(
        id="history",
        title="Index and measured cost of past updates",
        sentences=tuple(sentences),
        drawings=tuple(drawings),
        tables=tuple(tables),
        warnings=tuple(warnings),
    )


def history_reading(updates: Sequence[Update]) -> str:
    """Return in a clause what past updates took."""
    epochs = [update.epochs for update in updates]
    reached = sum(update.reached for update in updates)
    return (
        f"{_many(len(updates), 'measured update')} took {readable(median(epochs))} epochs in the "
        f"median ({readable(min(epochs))} to {readable(max(epochs))}), and {reached} met their "
        "target"
    )


def energy_section(updates: Sequence[Update]) -> Section:
    """Return the energy and the carbon of updates, and who says so."""
    known = [update for update in updates if update.energy_kwh]
    sentences, warnings = [], []
    if known:
        modelled = [u for u in known if u.energy is not None and u.energy.modelled]
        sentences.append(
            f"Energy is known of {len(known)} of {_many(len(updates), 'update')}. A counter is "
            "read from hardware; a model is computed from load and time; a constant is a fixed "
            "power times time."
        )
        if modelled:
            warnings.append(
                f"The energy of {len(modelled)} of these is modelled, in whole or in part: little "
                "more than a clock."
            )
    else:
        sentences.append("No energy is known of any update.")
    without: dict[str, int] = {}
    for update in updates:
        if update.why_no_carbon is not None:
            without[update.why_no_carbon] = without.get(update.why_no_carbon, 0) + 1
    carbon = carbon_table(updates)
    return Section(
        id="energy",
        title="Energy and carbon, and where the numbers are from",
        sentences=tuple(sentences),
        tables=(*((energy_table(known),) if known else ()), *((carbon,) if carbon.rows else ())),
        points=tuple(
            (f"No carbon of {_many(count, 'update')}", why) for why, count in without.items()
        ),
        warnings=tuple(warnings),
    )


def update_section(update: Update) -> Section:
    """Return one update: its measures, its validations and its energy."""
    ended = update.ended.replace("_", " ")
    result = f"It ended by {ended}" + ("." if update.reached else ", and is censored.")
    energy = energy_table([update])
    return Section(
        id="update",
        title=f"Update {update.id[:8]} of {update.signature.model}",
        sentences=(f"The target was {update.target}. {result}",),
        tables=(
            measure_table(update),
            *((curve_table(update),) if update.curve else ()),
            *((energy,) if energy.rows else ()),
        ),
        warnings=update.notes,
    )


def backtest_section(backtest: Backtest) -> Section:
    """Return how well updates were foretold, beside simpler methods."""
    return Section(
        id="backtest",
        title="How good the forecasts have been",
        sentences=(
            (
                f"{_many(backtest.scores[0].updates, 'update')} foretold without themselves, "
                f"{backtest.hold_out} held out."
            ),
        ),
        tables=(score_table(backtest),),
    )


# --- what is not known, and what was -----------------------------------------------------------


def limit_section(
    shift: Mapping[str, Any] | None,
    task: Mapping[str, Any] | None,
    *,
    history: bool,
    foretold: bool,
) -> Section:
    """Return what the indices of a report cannot see, and why.

    Args:
        shift: RESQUE_dist, as its `to_dict` gives it.
        task: RESQUE_task, likewise.
        history: whether past indices are shown.
        foretold: whether anything is forecast.
    """
    points: list[tuple[str, str]] = []
    warnings: list[str] = []
    if shift is not None:
        points += _limits_of(shift)
        warnings += shift["warnings"]
    if shift is not None or history:
        points += [
            (
                "Other proportions of classes",
                (
                    "Every class counts the same, a tenth of the data or nine tenths. Compare the "
                    "examples of each class."
                ),
            ),
            (
                "Changes that keep the mean of a class",
                (
                    "More spread, or two halves that move apart: the mean stays, and so does the "
                    "index. Opposite movements within a class cancel."
                ),
            ),
            ("A common rescaling", "Twice the length is the same direction."),
            (
                "What labels mean",
                (
                    "The same pictures under other names, or noisy labels, move the mean as new "
                    "pictures would. The index cannot tell which it was."
                ),
            ),
            (
                "Which shift it is, and whether it does harm",
                (
                    "A large one may leave the accuracy as it is, a small one may not. Look at the "
                    "accuracy as well."
                ),
            ),
        ]
    if task is not None:
        points.append(
            (
                "Another task",
                (
                    "RESQUE_task falls with imbalance and depends on the scale of each value; it "
                    "is comparable for the same classes only."
                ),
            )
        )
        warnings += task["warnings"]
    if foretold:
        points.append(
            (
                "An update like no other",
                (
                    "Intervals hold for updates like the known ones. Another kind of task, recipe "
                    "or change may lie outside them more often."
                ),
            )
        )
    return Section(
        id="limits",
        title="What the index cannot see",
        points=tuple(points),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _limits_of(shift: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what this very index does not know."""
    points = []
    if shift["unresolved"]:
        points.append(
            (
                f"{_many(len(shift['unresolved']), 'class', 'classes')} unresolved",
                f"Too few examples for a debiased value: {shortened(shift['unresolved'])}.",
            )
        )
    for side, missing in (("old", shift["missing_after"]), ("new", shift["missing_before"])):
        if missing:
            points.append(
                (
                    f"Classes of the {side} data alone",
                    f"They are left out; there is nothing to compare: {shortened(missing)}.",
                )
            )
    if shift["lower"] is None:
        points.append(
            ("How sure it is", "There are too few groups of examples for an interval or a test.")
        )
    elif shift["p_value"] is not None and shift["p_value"] > _CHANCE:
        points.append(
            (
                "A smaller movement",
                (
                    f"With these examples the index reads {shift['floor']:.4f} where nothing has "
                    "moved; more examples lower that floor."
                ),
            )
        )
    if shift["labels"] == "predicted":
        points.append(("True classes", _of_predicted(shift["label_cost"] or {})))
    return points


def _of_predicted(cost: Mapping[str, Any]) -> str:
    told = "The classes are those that the model predicts, on both sides."
    if cost.get("accuracy_before") is not None:
        told += f" On the old data {percent(cost['accuracy_before'])} of them are right."
    if cost.get("offset") is not None:
        told += f" They lie {cost['offset']:.4f} from the true ones there."
    return told


def known_section(preflight: Preflight) -> Section:
    """Return all that a pre-flight knows."""
    looked = ", ".join(f"{n:,} of {of:,} ({side})" for side, (n, of) in preflight.sample.items())
    tried = "" if preflight.probe is None else f" {sentence(str(preflight.probe).splitlines()[0])}"
    return Section(
        id="preflight",
        title="What was known before training",
        sentences=(
            (
                f"{looked} examples were looked at in {sum(preflight.seconds.values()):.2f} s on "
                f"{preflight.hardware.name}.{tried}"
            ),
        ),
        tables=(known_table(preflight),),
        warnings=preflight.notes,
    )


def origin_section(signatures: Mapping[str, Signature], command: str) -> Section:
    """Return what reproduces the numbers, and the command that remakes the report."""
    return Section(
        id="origin",
        title="How to make this again",
        sentences=("This command makes the report anew:",) if command else (),
        tables=(signature_table(signatures),) if signatures else (),
        code=command,
    )


def readable_shift(given: ShiftIndex | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an index as plain types, as far as a report reads it.

    Raises:
        InputError: it comes from a saved pre-flight, and is incomplete.
    """
    found = given if isinstance(given, Mapping) else given.to_dict()
    return _complete(found, "RESQUE_dist", (
        "value", "floor", "debiased", "lower", "upper", "confidence_level", "p_value",
        "examples_before", "examples_after", "per_class", "per_class_floor", "per_class_debiased",
        "contributions", "missing_before", "missing_after", "unresolved", "labels", "label_cost",
        "accuracy_before", "accuracy_after", "warnings", "signature",
    ))  # fmt: skip


def readable_task(given: TaskIndex | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an index of a task likewise."""
    found = given if isinstance(given, Mapping) else given.to_dict()
    return _complete(found, "RESQUE_task", (
        "value", "nearest_class_mean_accuracy", "iterations", "mixtures", "classes", "examples",
        "warnings", "signature",
    ))  # fmt: skip


def _complete(found: Mapping[str, Any], name: str, fields: Iterable[str]) -> Mapping[str, Any]:
    missing = [field for field in fields if field not in found]
    if missing:
        raise InputError(
            f"The {name} of this pre-flight is incomplete, without {missing[0]!r}. Make the "
            "pre-flight anew."
        )
    return found


def sentence(clause: str) -> str:
    """Return a clause with a capital letter and a full stop."""
    # A name such as RESQUE_dist has its capitals where it wants them.
    start = clause if clause.startswith("RESQUE") else clause[:1].upper() + clause[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."


def _many(n: int, one: str, more: str = "") -> str:
    return f"{n:,} {one if n == 1 else more or f'{one}s'}"


def _index(update: Update) -> float:
    found = index_of(update)
    assert found is not None  # noqa: S101  # asked of those with an index only
    return found
