"""History: past updates in an SQL database, in which nothing is lost and nothing is twice."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, Unpack

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from resque.errors import InputError, NotComparableError, ResqueWarning, in_words, nearest
from resque.files import checked_output, existing, written_whole
from resque.history.database import Database
from resque.history.filters import Filters, conditions_of
from resque.history.records import Grid
from resque.history.schema import (
    LABELS,
    MEASURES,
    SUMMARIES,
    UPDATES,
    Rows,
    make_current,
    rows_of,
)
from resque.history.update import Update

_METERED = ("energy_kwh", "carbon_kg")
_METERS = ("meter", "components", "calibration")
_ROWS_AT_ONCE = 500
# Of the id of an update, where it is named in a sentence.
_SHORT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSummary:
    """What a list of updates says of one of them; see `Update` for the fields.

    All but the id, the start and the labels are None also where the record could not be read
    when the history was lifted from an older version.

    Attributes:
        id: of the update.
        started: when, in UTC, as ISO 8601.
        model: name of the model.
        weights: digest of its weights.
        start: where training started.
        target: in words, such as "accuracy 0.92".
        ended: by what.
        reached: whether the target was met.
        epochs: epochs trained when it ended.
        duration_s: seconds of training and validation.
        energy_kwh: of training and validation.
        energy_modelled: whether any of it comes from a model or a constant.
        carbon_kg: on the update's own grid.
        meter: name and version of the meter.
        calibration: name of the calibration.
        hardware: name of the device.
        labels: words of the user's own.
    """

    id: str
    started: str
    model: str | None
    weights: str | None
    start: str | None
    target: str | None
    ended: str | None
    reached: bool | None
    epochs: float | None
    duration_s: float | None
    energy_kwh: float | None
    energy_modelled: bool | None
    carbon_kg: float | None
    meter: str | None
    calibration: str | None
    hardware: str | None
    labels: Mapping[str, str]

    def on_grid(self, grid: Grid) -> UpdateSummary:
        """Return the same summary with the carbon of another grid."""
        kwh = self.energy_kwh
        return replace(self, carbon_kg=None if kwh is None else grid.kg_of(kwh))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return asdict(self) | {"labels": dict(self.labels)}


_SUMMARY = tuple(SUMMARIES.c[name] for name in UpdateSummary.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of the lines of an imported file.

    Attributes:
        added: updates that are new in the history.
        already_there: updates that it had.
        bad: number, from 1, and reason of each line that could not be read.
    """

    added: int
    already_there: int
    bad: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        said = f"{self.added} added, {self.already_there} already there"
        return f"{said}, {len(self.bad)} not readable" if self.bad else said


class History:
    """A store of updates.

    Every write is one transaction: an update that `add` has acknowledged stays, also through a
    power cut, and no other program ever sees half of one. The same update added twice, by whatever
    process, is one update. The database is created on first use.

    A history may be used in threads, after a fork and, pickled, in other processes; one in memory
    ("sqlite://") only in its own thread. It is no place for what changes: an update is never
    edited, nor removed.

    Args:
        url: of the database, as SQLAlchemy takes it: "sqlite:///FILE", or a server's.
        timeout_s: seconds to wait for another program that is writing; SQLite only.

    Raises:
        InputError: the URL is none, or needs a driver that is not installed. All methods raise it
            where the database cannot be used, and say why, without the URL's password.

    Example:
        >>> import resque
        >>> with resque.History("sqlite://") as history:
        ...     len(history)
        0
    """

    def __init__(self, url: str = "sqlite:///resque.db", *, timeout_s: float = 60.0) -> None:
        if not isinstance(timeout_s, int | float) or not timeout_s >= 0:
            raise InputError(f"timeout_s must be 0 seconds or more; got {timeout_s!r}.")
        self._database = Database(url, timeout_s=timeout_s)
        self._current = False

    @property
    def url(self) -> str:
        """The URL of the database, fit to be printed: without password and options."""
        return str(self._database)

    @property
    def exists(self) -> bool:
        """Whether there is such a file; True for a database that is none."""
        file = self._database.file
        return file is None or file.exists()

    # --- writing ---------------------------------------------------------------------------------

    def add(self, update: Update) -> bool:
        """Return whether an update was new, after it has been written.

        Args:
            update: a finished update.

        Raises:
            InputError: it is no update, or cannot be written.
        """
        return self._insert([rows_of(_checked(update))]) == 1

    def check_writable(self) -> None:
        """Raise InputError unless an update could be added now; nothing is written.

        Raises:
            InputError: there is no such folder or server, it may not be written to, or is damaged.
        """
        file = self._database.file
        if file is None or file.exists():
            with self._transaction(writes=True):
                return
        checked_output(file)
        if not os.access(file.parent, os.W_OK):
            raise InputError(
                f"No history can be made in {str(file.parent)!r}: this user may not write there. "
                "Name another one."
            )

    def import_from(self, path: Path | str, *, progress: bool = False) -> ImportResult:
        """Return how many updates of a JSON Lines file were new, and which lines are bad.

        A bad line is left out and named; all others are added.

        Args:
            path: a file that `export` wrote.
            progress: show a progress bar on stderr, if that is a terminal.

        Raises:
            InputError: there is no such file, or the history cannot be written; importing the
                same file again goes on where that left off.
        """
        path = existing(path)
        added = read = 0
        bad: list[tuple[int, str]] = []
        rows: list[Rows] = []
        try:
            with path.open("rb") as lines, _bar(path.stat().st_size, progress) as advance:
                for number, line in enumerate(lines, 1):
                    advance(len(line))
                    if not line.strip():
                        continue
                    try:
                        rows.append(rows_of(_read(line)))
                    except InputError as error:
                        bad.append((number, str(error)))
                        continue
                    read += 1
                    if len(rows) == _ROWS_AT_ONCE:
                        added += self._insert(rows)
                        rows = []
        except OSError as error:
            raise InputError(f"{str(path)!r} could not be read: {in_words(error)}.") from error
        added += self._insert(rows)
        return ImportResult(added, read - added, tuple(bad))

    def _insert(self, rows: Sequence[Rows]) -> int:
        try:
            return self._insert_new(rows)
        except IntegrityError:
            # On a server, another process added one of them after we had looked; the second look
            # sees it. SQLite's transactions that write come one after the other.
            return self._insert_new(rows)

    def _insert_new(self, rows: Sequence[Rows]) -> int:
        given = {row.update["id"]: row for row in rows}
        known = sa.select(UPDATES.c.id).where(UPDATES.c.id.in_([*given]))
        with self._transaction(writes=True) as connection:
            there = set(connection.scalars(known))
            new = [row for update_id, row in given.items() if update_id not in there]
            for table, values in (
                (UPDATES, [row.update for row in new]),
                (SUMMARIES, [row.summary for row in new]),
                (LABELS, [label for row in new for label in row.labels]),
            ):
                if values:
                    connection.execute(table.insert(), values)
        return len(new)

    # --- reading ---------------------------------------------------------------------------------

    def get(self, update_id: str) -> Update:
        """Return one update.

        Args:
            update_id: its id, or the beginning of it that no other one has.

        Raises:
            InputError: no update, or more than one, begins so; or its record cannot be read.
        """
        prefix = update_id.lower() if isinstance(update_id, str) else ""
        if not prefix or prefix.strip("0123456789abcdef"):
            raise InputError(
                f"An update is named by the hex digits of its id, or the first of them; got "
                f"{update_id!r}."
            )
        # A range, not LIKE: it uses the index in every database. "g" comes after all hex digits.
        query = (
            sa.select(UPDATES.c.id, UPDATES.c.record)
            .where(UPDATES.c.id >= prefix, UPDATES.c.id < f"{prefix}g")
            .order_by(UPDATES.c.id)
            .limit(4)
        )
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise InputError(
                f"No update in {self.url} has an id that begins with {update_id!r}; "
                "`resque history list` shows those there are."
            )
        if len(rows) > 1:
            ids = ", ".join(row.id for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
            raise InputError(
                f"More than one update begins with {update_id!r}: {ids}. Give more digits."
            )
        return _read_row(rows[0].id, rows[0].record)

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, update: object) -> bool:
        update_id = update.id if isinstance(update, Update) else update
        if not isinstance(update_id, str):
            return False
        with self._transaction() as connection:
            known = sa.select(UPDATES.c.id).where(UPDATES.c.id == update_id)
            return connection.scalar(known) is not None

    def __iter__(self) -> Iterator[Update]:
        return self.updates()

    def count(self, **filters: Unpack[Filters]) -> int:
        """Return how many updates there are.

        Args:
            **filters: which ones; see `Filters`.

        Raises:
            InputError: a filter is none of these.
        """
        query = sa.select(sa.func.count()).select_from(SUMMARIES).where(*conditions_of(filters))
        with self._transaction() as connection:
            return connection.scalar(query) or 0

    def updates(self, **filters: Unpack[Filters]) -> Iterator[Update]:
        """Yield updates, oldest first, some at a time: a history may be larger than memory.

        A record that cannot be read, because it is damaged or a newer version wrote it, is left
        out with a warning that names it.

        Args:
            **filters: which ones; see `Filters`.

        Raises:
            InputError: a filter is none of these.
        """
        rows = self._records(filters)
        return (update for row in rows if (update := _read_or_warn(*row)) is not None)

    def summaries(
        self,
        *,
        limit: int | None = None,
        newest_first: bool = True,
        **filters: Unpack[Filters],
    ) -> list[UpdateSummary]:
        """Return what a list says of updates, without reading their records.

        Args:
            limit: at most so many; None for all.
            newest_first: the order.
            **filters: which ones; see `Filters`.

        Raises:
            InputError: a filter is none of these, or the limit is no whole number above 0.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise InputError(f"limit must be a whole number of 1 or more; got {limit!r}.")
        order = [SUMMARIES.c.started, SUMMARIES.c.id]
        query = (
            sa.select(*_SUMMARY)
            .where(*conditions_of(filters))
            .order_by(*([column.desc() for column in order] if newest_first else order))
            .limit(limit)
        )
        with self._transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return [UpdateSummary(**{**row, "labels": json.loads(row["labels"])}) for row in rows]

    def measures(
        self,
        names: Iterable[str],
        *,
        mixed_meters: bool = False,
        grid: Grid | None = None,
        **filters: Unpack[Filters],
    ) -> dict[str, list[float | None]]:
        """Return measures of updates, one list per name, oldest update first; to compare them.

        Energies, and the carbon that follows from them, are comparable only if one kind of meter
        measured them all, and carbon only on one grid. Updates without such a number have None
        and are compared with nothing.

        Args:
            names: such as "epochs" or "energy_kwh": the fields of `Update` that are one number.
            mixed_meters: give energies of different meters side by side all the same.
            grid: cost the carbon of all of them for this grid; see `resque.grid`.
            **filters: which updates; see `Filters`.

        Raises:
            InputError: a name or a filter is none of these.
            NotComparableError: energy or carbon is asked for, and the updates were measured by
                different meters, with different calibrations, or on different components; or
                carbon is, on different grids.
        """
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in MEASURES:
                raise InputError(
                    f"{name!r} is no measure of an update; expected {', '.join(MEASURES)}."
                    f"{nearest(str(name), MEASURES)}"
                )
        conditions = conditions_of(filters)
        columns = [SUMMARIES.c[name] for name in names]
        query = sa.select(*columns).where(*conditions).order_by(SUMMARIES.c.started, SUMMARIES.c.id)
        metered = [name for name in names if name in _METERED]
        with self._transaction() as connection:
            if metered and not mixed_meters:
                _require_one_meter(connection, conditions, metered)
            rows = connection.execute(query).all() if names else []
            if "carbon_kg" in names:
                kwh = query.with_only_columns(SUMMARIES.c.energy_kwh, SUMMARIES.c.carbon_kg)
                carbon = _on_one_grid(connection.execute(kwh).all(), grid)
        found = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        return found | {"carbon_kg": carbon} if "carbon_kg" in names else found

    def export(
        self,
        to: Path | str | TextIO,
        *,
        progress: bool = False,
        **filters: Unpack[Filters],
    ) -> int:
        """Return how many updates were written as JSON Lines, oldest first, one line each.

        A file is written whole or not at all. Importing it into an empty history and exporting
        that gives the same bytes.

        Args:
            to: path of the file, or an open text stream.
            progress: show a progress bar on stderr, if that is a terminal.
            **filters: which updates; see `Filters`.

        Raises:
            InputError: a filter is none of these, or the file cannot be written.
        """
        total = self.count(**filters)
        with _bar(total, progress) as advance:
            if isinstance(to, Path | str | os.PathLike):
                with (
                    written_whole(to) as temporary,
                    temporary.open("w", encoding="utf-8", newline="\n") as lines,
                ):
                    return self._write(lines, filters, advance)
            try:
                written = self._write(to, filters, advance)
                to.flush()
            except BrokenPipeError:
                raise  # the reader has seen enough, as `head` has
            except OSError as error:
                raise InputError(
                    f"The updates could not be written: {error.strerror or error}. What was "
                    "written before is incomplete; make room, or choose another place."
                ) from error
            return written

    def _write(self, lines: TextIO, filters: Filters, advance: Callable[[int], None]) -> int:
        written = 0
        for _, record in self._records(filters):
            lines.write(f"{record}\n")
            written += 1
            advance(1)
        return written

    def _records(self, filters: Filters) -> Iterator[tuple[str, str]]:
        # Here and not in the generator: a wrong filter is an error at the call.
        query = (
            sa.select(SUMMARIES.c.id, SUMMARIES.c.started, UPDATES.c.record)
            .join(UPDATES, UPDATES.c.id == SUMMARIES.c.id)
            .where(*conditions_of(filters))
            .order_by(SUMMARIES.c.started, SUMMARIES.c.id)
            .limit(_ROWS_AT_ONCE)
        )

        # Page after page, not one long read: that would keep all writers waiting for as long as
        # the caller takes, the caller's own `add` among them.
        def pages() -> Iterator[tuple[str, str]]:
            after: sa.ColumnElement[bool] = sa.true()
            while True:
                with self._transaction() as connection:
                    rows = connection.execute(query.where(after)).all()
                for row in rows:
                    yield row.id, row.record
                if len(rows) < _ROWS_AT_ONCE:
                    return
                last = sa.tuple_(sa.literal(rows[-1].started), sa.literal(rows[-1].id))
                after = sa.tuple_(SUMMARIES.c.started, SUMMARIES.c.id) > last

        return pages()

    # --- the database ----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the database; a history in memory is gone then."""
        self._database.engine.dispose()
        self._current = False

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"History({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._database.secret_url, "timeout_s": self._database.timeout_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._database = Database(**state)
        self._current = False

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        if not self._current:
            make_current(self._database)
            self._current = True
        with self._database.transaction(writes=writes) as connection:
            yield connection


# --- records -------------------------------------------------------------------------------------


def _checked(update: Any) -> Update:
    if isinstance(update, Update):
        return update
    hint = " Its `.update` is one." if hasattr(update, "update") else ""
    raise InputError(f"Expected an Update to add; got {type(update).__name__}.{hint}")


def _read(record: str | bytes) -> Update:
    try:
        values = json.loads(record, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"This is no JSON ({error}).") from error
    return Update.from_dict(values)


def _no_number(name: str) -> float:
    raise InputError(f"This update holds {name}, which is no number.")


def _read_row(update_id: str, record: str) -> Update:
    try:
        update = _read(record)
    except InputError as error:
        raise InputError(f"Update {update_id[:_SHORT]} cannot be read: {error}") from error
    if update.id != update_id:
        raise InputError(
            f"Update {update_id[:_SHORT]} cannot be read: its record is that of another update, "
            f"{update.id[:_SHORT]}."
        )
    return update


def _read_or_warn(update_id: str, record: str) -> Update | None:
    try:
        return _read_row(update_id, record)
    except InputError as error:
        warnings.warn(f"{error} It is left out.", ResqueWarning, stacklevel=3)
        return None


def _require_one_meter(
    connection: sa.Connection, conditions: list[sa.ColumnElement[bool]], measures: list[str]
) -> None:
    columns = [SUMMARIES.c[name] for name in _METERS]
    query = (
        sa.select(*columns, SUMMARIES.c.energy_modelled, sa.func.count().label("updates"))
        # An update that cost nothing was measured by nobody, and is comparable with all.
        .where(
            *conditions,
            SUMMARIES.c.meter.is_not(None),
            sa.or_(*(SUMMARIES.c[name].is_not(None) for name in measures)),
        )
        .group_by(*columns, SUMMARIES.c.energy_modelled)
        .order_by(*columns)
    )
    found = connection.execute(query).mappings().all()
    if len(found) < 2:
        return
    differing = [name for name in _METERS if len({row[name] for row in found}) > 1]
    ways = "; ".join(
        ", ".join(f"{name}={row[name]!r}" for name in differing)
        + f" ({row['updates']} {'update' if row['updates'] == 1 else 'updates'}"
        + (", modelled)" if row["energy_modelled"] else ", counted)")
        for row in found
    )
    raise NotComparableError(
        f"{' and '.join(measures)} of these updates cannot be compared: they were not measured "
        f"alike: {ways}. Choose some of them with {' and '.join(f'{n}=' for n in differing)}, "
        "or take them as they are with mixed_meters=True."
    )


def _on_one_grid(rows: Sequence[Sequence[float | None]], grid: Grid | None) -> list[float | None]:
    """Return the carbon of (kWh, kg) of several updates, on the grid given or on their own."""
    if grid is not None:
        return [None if kwh is None else grid.kg_of(kwh) for kwh, _ in rows]
    # Kilograms per kWh are the grid and the PUE together; twelve digits outlive the division.
    factors = {float(f"{kg / kwh:.12g}") for kwh, kg in rows if kwh and kg is not None}
    if len(factors) > 1:
        told = ", ".join(f"{1000 * factor:.4g}" for factor in sorted(factors))
        raise NotComparableError(
            "carbon_kg of these updates cannot be compared: they were costed for different grids "
            f"({told} g CO2e per kWh, PUE included). Cost them for one: "
            "grid=resque.grid('FRA')."
        )
    return [kg for _, kg in rows]


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    if not (wanted and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)
