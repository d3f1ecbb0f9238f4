"""A report: one HTML file that needs neither network nor script, its figures and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from resque.decision.comparison import MEASURES as COMPARED_BY
from resque.decision.comparison import Comparison
from resque.decision.plan import Plan
from resque.errors import InputError, missing_extra, nearest
from resque.files import checked_folder, checked_output, written_whole
from resque.forecasting.backtest import Backtest
from resque.forecasting.forecast import Forecast
from resque.forecasting.preflight import Preflight
from resque.history.store import History
from resque.history.update import Update
from resque.index.shift import ShiftIndex
from resque.index.task import TaskIndex
from resque.reporting.figures import save_figure
from resque.reporting.report_figures import drawing, inline_svg
from resque.reporting.report_sections import (
    Drawing,
    Fact,
    Section,
    answered,
    backtest_section,
    energy_section,
    forecast_facts,
    forecast_reading,
    forecast_section,
    history_reading,
    history_section,
    known_section,
    limit_section,
    option_facts,
    option_section,
    origin_section,
    plan_section,
    readable_shift,
    readable_task,
    sentence,
    shift_facts,
    shift_reading,
    shift_section,
    task_reading,
    task_section,
    update_section,
)
from resque.reporting.report_tables import Table
from resque.representation.signature import Signature, installed_version

if TYPE_CHECKING:
    from jinja2 import Environment

FigureFormat = Literal["svg", "png", "pdf"]
TableFormat = Literal["csv", "md"]
TITLE = "What an update would cost"
# Longer tables are folded; of still longer ones the page shows the beginning.
_OPEN_ROWS, _MOST_ROWS = 12, 500
_MOST_ROWS_IN_NOTEBOOK = 20
_KINDS: Mapping[str, type] = {
    "shift": ShiftIndex, "task": TaskIndex, "preflight": Preflight, "forecast": Forecast,
    "comparison": Comparison, "plan": Plan,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What is told to those who decide; the same objects give the same bytes.

    Attributes:
        title: of the page.
        shift: how far the data have moved; None takes that of the pre-flight.
        task: how well the model separates the classes of a task; likewise.
        preflight: all that was known before an update.
        forecast: what it would cost.
        comparison: options side by side.
        plan: a plan of updates.
        updates: measured ones, in the order in which they started.
        command: that makes the report anew; "" where there is none.

    Raises:
        InputError: there is nothing to report, or something else was given for one of these.

    Example:
        >>> import numpy as np, resque
        >>> data = np.random.default_rng(0).normal(1, 1, (200, 8)), np.arange(200) % 2
        >>> side = resque.profile(None, data)
        >>> Report(shift=resque.shift_index(side, side)).title
        'What an update would cost'
    """

    title: str = TITLE
    shift: ShiftIndex | None = None
    task: TaskIndex | None = None
    preflight: Preflight | None = None
    forecast: Forecast | None = None
    comparison: Comparison | None = None
    plan: Plan | None = None
    updates: tuple[Update, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise InputError(f"{name} must be a {kind.__name__}; got {_told(given)}.")
        for update in self.updates:
            if not isinstance(update, Update):
                raise InputError(f"The updates of a report are Updates; got {_told(update)}.")
        if not self.updates and all(getattr(self, name) is None for name in _KINDS):
            raise InputError(
                "There is nothing to report; give one at least of "
                f"{', '.join(_KINDS)} or updates that were measured."
            )

    def sections(self) -> tuple[Section, ...]:
        """Return what is told, in order; each section only where there is something to say."""
        shift, task = self._shift(), self._task()
        found: list[Section] = []
        if shift is not None:
            found.append(shift_section(shift, self._examples()))
        if task is not None:
            found.append(task_section(task))
        if self.forecast is not None:
            found.append(forecast_section(self.forecast))
        if self.comparison is not None:
            found.append(option_section(self.comparison))
        if self.plan is not None:
            found.append(plan_section(self.plan))
        if self.updates:
            found += [history_section(self.updates), energy_section(self.updates)]
        limits = limit_section(
            shift,
            task,
            history=bool(self.updates),
            foretold=any((self.forecast, self.comparison, self.plan)),
        )
        if limits.points:
            found.append(limits)
        if self.preflight is not None:
            found.append(known_section(self.preflight))
        signatures = self._signatures()
        if signatures or self.command:
            found.append(origin_section(signatures, self.command))
        return tuple(found)

    def answer(self) -> str:
        """Return what matters most, in one sentence."""
        if self.comparison is not None:
            return answered(self.comparison)
        if self.plan is not None:
            return sentence(self.plan.advice())
        shift, task = self._shift(), self._task()
        clauses = []
        if shift is not None:
            clauses.append(shift_reading(shift))
        elif task is not None:
            clauses.append(task_reading(task))
        if self.forecast is not None:
            clauses.append(forecast_reading(self.forecast, short=True))
        if not clauses and self.updates:
            clauses.append(history_reading(self.updates))
        return sentence("; ".join(clauses))

    def facts(self) -> tuple[Fact, ...]:
        """Return the numbers that are shown large, none without what it must be read with."""
        shift = self._shift()
        found = []
        if self.comparison is not None:
            found += option_facts(self.comparison, *COMPARED_BY[self.comparison.by])
        elif shift is not None:
            found += shift_facts(shift)
        if self.forecast is not None and self.comparison is None:
            found += forecast_facts(self.forecast)
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Return all tables, those of the figures among them."""
        return tuple(
            table
            for section in self.sections()
            for table in (*(of.table for of in section.drawings), *section.tables)
        )

    def to_html(self) -> str:
        """Return the page.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed.
            InputError: the index of the pre-flight is incomplete.
        """
        environment = _environment()
        sections = self.sections()
        drawn = {of.name: _svg(of) for section in sections for of in section.drawings}
        page = environment.get_template("report.html.jinja").render(
            title=self.title,
            answer=self.answer(),
            facts=self.facts(),
            sections=sections,
            drawn=drawn,
            version=installed_version(),
            open_rows=_OPEN_ROWS,
            most_rows=_MOST_ROWS,
        )
        return page + "\n"

    def save(self, path: Path | str) -> None:
        """Write the page to a file, whole or not at all.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed.
            InputError: the file cannot be written, or its name does not end in .html.
        """
        checked_page(path)
        page = self.to_html()
        with written_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def save_figures(self, folder: Path | str, format: FigureFormat = "svg") -> tuple[Path, ...]:  # noqa: A002  # what everybody calls it
        """Return the files of the figures, after they have been written.

        Args:
            folder: is made if it is not there.
            format: "svg", "png" or "pdf".

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: there is no such format, or the folder cannot be written to.
        """
        checked_format(format, FigureFormat)
        _require("matplotlib")
        home = _made(folder)
        paths = []
        for section in self.sections():
            for of in section.drawings:
                path = home / f"{of.name}.{format}"
                with drawing(of.name):
                    save_figure(of.draw(), path)
                paths.append(path)
        return tuple(paths)

    def save_tables(self, folder: Path | str, format: TableFormat = "csv") -> tuple[Path, ...]:  # noqa: A002
        """Return the files of the tables, after they have been written.

        Args:
            folder: is made if it is not there.
            format: "csv", unrounded and for programs, or "md", as on the page.

        Raises:
            InputError: there is no such format, or the folder cannot be written to.
        """
        checked_format(format, TableFormat)
        home = _made(folder)
        paths = []
        for table in self.tables():
            path = home / f"{table.name}.{format}"
            with written_whole(path) as temporary:
                written = table.to_csv() if format == "csv" else table.to_markdown()
                # Not the line ends of the system: the same table is the same file everywhere.
                temporary.write_text(written, encoding="utf-8", newline="")
            paths.append(path)
        return tuple(paths)

    def _shift(self) -> Mapping[str, Any] | None:
        found = self.shift if self.preflight is None else self.shift or self.preflight.shift
        return readable_shift(found) if found is not None else None

    def _task(self) -> Mapping[str, Any] | None:
        found = self.task if self.preflight is None else self.task or self.preflight.task
        return readable_task(found) if found is not None else None

    def _examples(self) -> dict[str, tuple[int, int]]:
        if self.shift is None:
            return {}
        return {
            name: (of.examples_before, of.examples_after) for name, of in self.shift.classes.items()
        }

    def _signatures(self) -> dict[str, Signature]:
        """Return what the numbers are of -> signature, equal ones once."""
        of: dict[str, Signature] = {}
        for name, found in (("RESQUE_dist", self._shift()), ("RESQUE_task", self._task())):
            if found is not None:
                of[name] = Signature.from_dict(found["signature"])
        for field in fields(self):
            signature = getattr(getattr(self, field.name), "signature", None)
            if signature is not None and signature not in of.values():
                of[field.name] = signature
        return of


def report(
    *,
    title: str = TITLE,
    shift: ShiftIndex | None = None,
    task: TaskIndex | None = None,
    preflight: Preflight | None = None,
    forecast: Forecast | None = None,
    comparison: Comparison | None = None,
    plan: Plan | None = None,
    history: History | Iterable[Update] | None = None,
    command: str = "",
) -> Report:
    """Return a report of what is given, to be saved as one HTML file, as figures and as tables.

    Args:
        title: of the page.
        shift: from `resque.shift_index`; by default that of the pre-flight.
        task: from `resque.task_index`; likewise.
        preflight: from `resque.preflight`.
        forecast: from `resque.forecast`.
        comparison: from `resque.compare`.
        plan: from `resque.plan`.
        history: measured updates.
        command: that makes the report anew, to be shown in it.

    Raises:
        InputError: there is nothing to report, or something else was given for one of these.
        MissingExtraError: jinja2 or matplotlib is not installed.

    Example:
        >>> import numpy as np, resque
        >>> data = np.random.default_rng(0).normal(1, 1, (200, 8)), np.arange(200) % 2
        >>> side = resque.profile(None, data)
        >>> page = report(shift=resque.shift_index(side, side)).to_html()
        >>> page[:15], "<script" in page
        ('<!DOCTYPE html>', False)
    """
    _require("jinja2")
    _require("matplotlib")
    updates = history.updates() if isinstance(history, History) else history or ()
    made = Report(
        title=title, shift=shift, task=task, preflight=preflight, forecast=forecast,
        comparison=comparison, plan=plan, updates=tuple(updates), command=command,
    )  # fmt: skip
    ordered = sorted(made.updates, key=lambda update: (update.started, update.id))
    return replace(made, updates=tuple(ordered))


def notebook_view(shown: object) -> str:
    """Return an object as HTML for a notebook: its answer in a sentence, and its tables.

    Args:
        shown: an index, a pre-flight, a forecast, an update, a comparison, a plan or a backtest.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: it is none of these.

    Example:
        >>> import numpy as np, resque
        >>> task = resque.task_index(None, (np.eye(3).repeat(20, axis=0), np.arange(60) // 20))
        >>> "RESQUE_task is 0.0000" in notebook_view(task)
        True
    """
    view = next((view for kind, view in _VIEWS.items() if isinstance(shown, kind)), None)
    if view is None:
        raise InputError(
            f"A notebook shows {', '.join(kind.__name__ for kind in _VIEWS)}; got {_told(shown)}."
        )
    template = _environment().get_template("notebook.html.jinja")
    answer, section = view(shown)
    return template.render(
        answer=answer,
        sections=(section,),
        signature=str(getattr(shown, "signature", "")),
        most_rows=_MOST_ROWS_IN_NOTEBOOK,
    )


def checked_page(path: Path | str) -> None:
    """Raise, before long work begins, if a report could not be written to this path.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
        InputError: the path is no file that can be written, or its name does not end in .html.
    """
    _require("jinja2")
    _require("matplotlib")
    checked_output(path)
    if Path(path).suffix != ".html":
        raise InputError(f"The name of a report ends in .html; got {str(path)!r}.")


def checked_format(format: str, formats: Any) -> None:  # noqa: A002
    """Raise InputError unless figures or tables can be written in a format.

    Args:
        format: of the files.
        formats: `FigureFormat` or `TableFormat`.
    """
    allowed = get_args(formats)
    if format not in allowed:
        raise InputError(
            f"format must be one of {', '.join(allowed)}; got {format!r}."
            f"{nearest(str(format), allowed)}"
        )


def _shift_view(shift: ShiftIndex) -> tuple[str, Section]:
    examples = {name: (of.examples_before, of.examples_after) for name, of in shift.classes.items()}
    found = shift_section(readable_shift(shift), examples)
    return found.sentences[0], _warned(found, shift.warnings)


def _task_view(task: TaskIndex) -> tuple[str, Section]:
    found = task_section(readable_task(task))
    return found.sentences[0], _warned(found, task.warnings)


def _warned(section: Section, warnings: tuple[str, ...]) -> Section:
    return Section(id=section.id, title=section.title, drawings=section.drawings,
                   tables=section.tables, warnings=warnings)  # fmt: skip


def _plain(view: Callable[[Any], Section]) -> Callable[[Any], tuple[str, Section]]:
    def shown(of: Any) -> tuple[str, Section]:
        section = view(of)
        return " ".join(section.sentences), section

    return shown


_VIEWS: Mapping[type, Callable[[Any], tuple[str, Section]]] = {
    ShiftIndex: _shift_view,
    TaskIndex: _task_view,
    Preflight: _plain(known_section),
    Forecast: _plain(forecast_section),
    Update: _plain(update_section),
    Comparison: _plain(option_section),
    Backtest: _plain(backtest_section),
    Plan: _plain(plan_section),
}


def _svg(of: Drawing) -> Any:
    from markupsafe import Markup

    _require("matplotlib")
    with drawing(of.name):
        figure = of.draw()
    # Safe: its words are escaped by matplotlib and by `inline_svg`.
    return Markup(inline_svg(figure, of.name, of.description))  # noqa: S704


@cache
def _environment() -> Environment:
    _require("jinja2")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names of models, classes and labels are whatever a user wrote: all of it is escaped.
    return Environment(
        loader=PackageLoader("resque.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _made(folder: Path | str) -> Path:
    """Return a folder that is there now."""
    checked_folder(folder)
    home = Path(folder)
    home.mkdir(exist_ok=True)
    return home


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise missing_extra(package, "report")


def _told(given: object) -> str:
    return f"{type(given).__name__} {str(given).partition(chr(10))[0][:60]!r}"
