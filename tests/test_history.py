"""The history: nothing is lost, nothing is twice, and every accident says what to do."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import IntegrityError

from resque import InputError, NotComparableError, ResqueWarning
from resque.cli import main
from resque.history import schema
from resque.history.records import Grid, Plateau, Recipe
from resque.history.store import History, ImportResult, UpdateSummary
from resque.history.update import Update
from updates import reading_of, update_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the history of a test is."""
    return tmp_path / "resque.db"


@pytest.fixture
def history(file: Path) -> History:
    """A history without updates."""
    return History(f"sqlite:///{file}", timeout_s=0.05)


@contextmanager
def sqlite(file: Path) -> Iterator[sqlite3.Connection]:
    """The file behind the history's back; what is done is written at the end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


def on_day(day: int, **changes: Any) -> Update:
    """An update that started on a day of March 2026."""
    return update_of(started=f"2026-03-{day:02}T12:00:00+00:00", **changes)


# --- what is kept --------------------------------------------------------------------------------


def test_an_update_comes_back_as_it_was(history: History) -> None:
    """Every field of it, in this object and in another one of the same file."""
    update = update_of()
    assert history.add(update)
    assert update == history.get(update.id)
    assert [update] == list(history)
    assert update == History(history.url).get(update.id)


def test_the_same_update_twice_is_one_update(history: History) -> None:
    """The second time says that it was not new."""
    assert [True, False, True] == [history.add(update_of(number=n)) for n in (0, 0, 1)]
    assert len(history) == 2


def test_an_update_is_found_by_the_beginning_of_its_id(history: History) -> None:
    """In either case of its letters; a beginning that none or several have is refused."""
    updates = {update.id: update for update in (update_of(number=n) for n in range(17))}
    for update in updates.values():
        history.add(update)
    for update_id, update in updates.items():
        assert update == history.get(update_id[:12].upper())
    # Of 17 updates two share their first digit.
    firsts = [update_id[0] for update_id in updates]
    shared = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(InputError, match=rf"More than one update begins with '{shared}': {shared}"):
        history.get(shared)
    absent = "0123456789abcdef" * 2
    with pytest.raises(InputError, match=rf"No update .* begins with '{absent}'"):
        history.get(absent)


@pytest.mark.parametrize("given", ["", "xyz", "%", None, 7])
def test_what_is_no_id_is_refused(history: History, given: Any) -> None:
    """With what was given."""
    with pytest.raises(InputError, match=re.escape(f"first of them; got {given!r}")):
        history.get(given)


def test_updates_are_in_the_history_or_not(history: History) -> None:
    """An update, its whole id, and nothing else."""
    inside, outside = update_of(number=0), update_of(number=1)
    history.add(inside)
    assert inside in history
    assert inside.id in history
    assert outside not in history
    assert inside.id[:8] not in history
    assert None not in history


def test_iteration_goes_from_old_to_new_whatever_the_order_of_adding(history: History) -> None:
    """Also across time zones, whose texts sort otherwise."""
    # 23:30 in New York is later than 3:00 the next morning in Paris.
    paris = update_of(started="2026-03-31T03:00:00+02:00")
    new_york = update_of(started="2026-03-30T23:30:00-04:00")
    for update in (new_york, paris):
        history.add(update)
    assert [paris, new_york] == list(history)
    assert [new_york.id, paris.id] == [summary.id for summary in history.summaries()]


def test_pages_leave_nothing_out(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of updates is to the size of a page, many of one moment included."""
    monkeypatch.setattr("resque.history.store._ROWS_AT_ONCE", 3)
    for n in range(7):
        assert n == len(list(history))
        history.add(update_of(number=n))
    assert {update_of(number=n).id for n in range(7)} == {update.id for update in history}


def test_writing_while_reading_does_not_wait(history: History) -> None:
    """A loop over the updates holds no lock while its body works."""
    for n in range(3):
        history.add(on_day(1 + n))
    for update in history:
        history.add(dataclasses.replace(update, notes=("seen",)))
    assert len(history) == 6


@pytest.mark.parametrize(
    ("update", "received"),
    [
        ({"id": 1}, "got dict"),
        (None, "got NoneType"),
        (type("Result", (), {"update": None})(), "got Result. Its `.update` is one."),
    ],
)
def test_only_updates_are_added(history: History, update: Any, received: str) -> None:
    """Anything else is named."""
    with pytest.raises(InputError, match=re.escape(f"Expected an Update to add; {received}")):
        history.add(update)


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"loss_before": math.nan}, "'resnet18', started '2026-03-31T18:00:00+00:00'"),
        ({"gradient_norm": math.inf}, "Out of range float values"),
        ({"labels": {"data": Path("x")}}, "Object of type PosixPath"),
        ({"started": "yesterday"}, "started 'yesterday'"),
    ],
)
def test_what_cannot_be_written_as_json_is_not_kept(
    history: History, changes: dict[str, Any], received: str
) -> None:
    """Nor is an update without a date; nothing of it is written."""
    with pytest.raises(InputError, match="cannot be kept: ") as caught:
        history.add(update_of(**changes))
    assert received in str(caught.value)
    assert len(history) == 0


# --- filters -------------------------------------------------------------------------------------


@pytest.fixture
def varied(history: History) -> History:
    """Four updates, of the first four days of March, each with a number of steps of its own."""
    history.add(on_day(1, steps=1))
    history.add(
        on_day(
            2,
            steps=2,
            model="vit",
            ended="max_epochs",
            recipe=None,
            energy=None,
            labels={"shift": "noise", "level": "3"},
        )
    )
    history.add(
        on_day(
            3,
            steps=3,
            target=Plateau(),
            ended="plateau",
            recipe=Recipe(start="scratch"),
            energy=reading_of(source="model", calibration="wall"),
            labels={"shift": "blur", "level": "3"},
        )
    )
    history.add(on_day(4, steps=4, energy=reading_of(meter="zeus 1", name="gpu"), labels={}))
    return history


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"model": "vit"}, [2]),
        ({"weights": "0123456789abcdef"}, [1, 2, 3, 4]),
        ({"weights": None}, []),
        ({"start": "scratch"}, [3]),
        ({"start": None}, [2]),
        ({"target_kind": "accuracy"}, [1, 2, 4]),
        ({"ended": "max_epochs"}, [2]),
        ({"reached": True}, [1, 3, 4]),
        ({"reached": False}, [2]),
        ({"since": "2026-03-03"}, [3, 4]),
        ({"until": "2026-03-02"}, [1, 2]),
        ({"since": date(2026, 3, 2), "until": "2026-03-03"}, [2, 3]),
        ({"since": "2026-03-02T12:00", "until": "2026-03-02T12:00:00Z"}, [2]),
        ({"since": datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC)}, [3, 4]),
        ({"until": datetime(2026, 3, 2, 13, tzinfo=timezone(timedelta(hours=1)))}, [1, 2]),
        ({"meter": "zeus 1"}, [4]),
        ({"meter": None}, [2]),
        ({"components": "cpu model"}, [3]),
        ({"calibration": "wall"}, [3]),
        ({"calibration": None}, [1, 2, 4]),
        ({"hardware": "a processor"}, [1, 2, 3, 4]),
        ({"labels": {"shift": "blur"}}, [1, 3]),
        ({"labels": {"shift": "blur", "level": "3"}}, [3]),
        ({"labels": {"level": 3}}, [2, 3]),
        ({"labels": {}}, [1, 2, 3, 4]),
        ({"labels": {"shift": "blur' OR '1'='1"}}, []),
        ({"model": "resnet18", "reached": True, "until": "2026-03-03"}, [1, 3]),
    ],
    ids=str,
)
def test_filters(varied: History, filters: Any, expected: list[int]) -> None:
    """Each finds its updates, in every method that takes filters."""
    assert expected == [update.steps for update in varied.updates(**filters)]
    assert len(expected) == varied.count(**filters)
    assert {"steps": expected} == varied.measures("steps", **filters)
    ids = [update.id for update in varied.updates(**filters)]
    assert ids == [s.id for s in varied.summaries(newest_first=False, **filters)]
    text = io.StringIO()
    assert len(expected) == varied.export(text, **filters)
    assert expected == [json.loads(line)["steps"] for line in text.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("filters", "received"),
    [
        ({"modle": "vit"}, "by 'modle'; expected model, weights,.*Did you mean 'model'"),
        ({"since": "last week"}, "since must be a date .* got 'last week'"),
        ({"until": 2026}, "until must be a date .* got 2026"),
        ({"until": "2026-02-30"}, "got '2026-02-30'"),
        ({"since": None}, "got None"),
        ({"reached": "yes"}, "reached must be True or False; got 'yes'"),
        ({"start": "head-first"}, "start must be one of weights, head, scratch; got 'head-first'"),
        ({"ended": "diverge"}, "got 'diverge'. Did you mean 'diverged'"),
        ({"model": None}, "model must be a text; got None"),
        ({"meter": 3}, "meter must be a text or None; got 3"),
        ({"labels": "shift=blur"}, "labels must be names and values.* got 'shift=blur'"),
    ],
    ids=str,
)
def test_a_filter_that_is_none_is_refused(varied: History, filters: Any, received: str) -> None:
    """At the call, not at the first update."""
    for method in (varied.updates, varied.count, varied.summaries):
        with pytest.raises(InputError, match=received):
            method(**filters)


# --- summaries and measures ----------------------------------------------------------------------


def test_a_summary_says_what_the_update_says(history: History) -> None:
    """Each of its fields, from the columns alone."""
    update = update_of(energy=reading_of(source="model", calibration="wall"))
    history.add(update)
    expected = UpdateSummary(
        id=update.id,
        started="2026-03-31T18:00:00.000000+00:00",
        model="resnet18",
        weights="0123456789abcdef",
        start="weights",
        target="accuracy 0.92",
        ended="target",
        reached=True,
        epochs=1.0,
        duration_s=60.0,
        energy_kwh=0.002,
        energy_modelled=True,
        carbon_kg=0.002 * 56 / 1000,
        meter="replay 1",
        calibration="wall",
        hardware="a processor",
        labels={"shift": "blur"},
    )
    assert [expected] == history.summaries()
    assert json.loads(json.dumps(expected.to_dict())) == expected.to_dict()
    elsewhere = expected.on_grid(Grid(grams_per_kwh=500.0, name="there", pue=1.5))
    assert elsewhere.carbon_kg == pytest.approx(0.002 * 1.5 * 0.5)
    # A history in which every record is nonsense still gives the same list.
    with sqlite(Path(history.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE updates SET record = 'nonsense'")
    assert [expected] == history.summaries()


def test_summaries_are_limited_from_the_side_they_begin(varied: History) -> None:
    """The newest two, or the oldest two."""
    days = [summary.started[8:10] for summary in varied.summaries(limit=2)]
    assert ["04", "03"] == days
    days = [s.started[8:10] for s in varied.summaries(limit=2, newest_first=False)]
    assert ["01", "02"] == days


@pytest.mark.parametrize("limit", [0, -1, 2.5])
def test_a_limit_is_a_whole_number_above_zero(history: History, limit: Any) -> None:
    """Otherwise it is named."""
    with pytest.raises(InputError, match=re.escape(f"1 or more; got {limit!r}")):
        history.summaries(limit=limit)


def test_measures_are_columns_over_the_updates(varied: History) -> None:
    """In the order of their start; None where an update has none."""
    found = varied.measures(("energy_kwh", "steps"), mixed_meters=True)
    assert {"energy_kwh": [0.002, None, 0.002, 0.002], "steps": [1, 2, 3, 4]} == found
    assert list(found) == ["energy_kwh", "steps"]
    assert varied.measures(()) == {}


def test_every_measure_is_that_of_the_update(history: History) -> None:
    """Numbers that no rounding keeps come back as they were."""
    update = update_of(epochs=0.1 + 0.2, loss_before=1 / 3)
    history.add(update)
    expected = {name: [getattr(update, name)] for name in schema.MEASURES}
    assert expected == history.measures(schema.MEASURES)


def test_energies_of_different_meters_are_not_put_side_by_side(varied: History) -> None:
    """The refusal names them in the words of the filters, and how to go on."""
    with pytest.raises(NotComparableError) as caught:
        varied.measures(("epochs", "energy_kwh"))
    assert str(caught.value) == (
        "energy_kwh of these updates cannot be compared: they were not measured alike: "
        "meter='replay 1', components='cpu counter', calibration=None (1 update, counted); "
        "meter='replay 1', components='cpu model', calibration='wall' (1 update, modelled); "
        "meter='zeus 1', components='gpu counter', calibration=None (1 update, counted). Choose "
        "some of them with meter= and components= and calibration=, or take them as they are "
        "with mixed_meters=True."
    )


@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        ({"meter": "a 1"}, {"meter": "b 1"}, "meter='a 1' .*meter='b 1'"),
        ({"source": "counter"}, {"source": "model"}, "components='cpu counter'.*'cpu model'"),
        ({"name": "cpu"}, {"name": "gpu"}, "components='cpu counter'.*'gpu counter'"),
        ({"calibration": "x"}, {"calibration": None}, "calibration=None.*calibration='x'"),
    ],
)
def test_one_difference_is_enough(history: History, one: Any, other: Any, differing: str) -> None:
    """Of the meter, of what it read, or of the calibration; for carbon as for energy."""
    history.add(update_of(energy=reading_of(**one)))
    history.add(update_of(energy=reading_of(**other)))
    for name in ("energy_kwh", "carbon_kg"):
        with pytest.raises(NotComparableError, match=f"{name} of these.*{differing}"):
            history.measures((name,))
        assert len(history.measures((name,), mixed_meters=True)[name]) == 2
    assert history.measures("epochs") == {"epochs": [1.0, 1.0]}


def test_updates_without_energy_are_compared_with_nothing(history: History) -> None:
    """Neither one that was not metered, nor one whose meter gave no number, stands in the way."""
    for number, energy in enumerate((None, reading_of(None, meter="other 2"), reading_of())):
        history.add(on_day(1 + number, energy=energy))
    assert {"energy_kwh": [None, None, 0.002]} == history.measures("energy_kwh")


def test_an_unknown_measure_is_refused(history: History) -> None:
    """With the nearest ones that there are."""
    with pytest.raises(InputError, match=r"'energy' is no measure.*Did you mean 'energy_kwh'"):
        history.measures(("epochs", "energy"))


# --- export and import ---------------------------------------------------------------------------


def test_export_and_import_lose_nothing(varied: History, tmp_path: Path) -> None:
    """Exported, imported into an empty history and exported again, the bytes are the same."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert varied.export(first) == 4
    other = History(f"sqlite:///{tmp_path / 'other.db'}")
    assert other.import_from(first) == ImportResult(added=4, already_there=0)
    assert other.export(second) == 4
    assert first.read_bytes() == second.read_bytes()
    assert list(varied) == list(other)
    assert varied.summaries() == other.summaries()
    assert other.import_from(first) == ImportResult(added=0, already_there=4)
    assert b"NaN" not in first.read_bytes()


def test_a_bad_line_is_named_and_nothing_else_is_lost(varied: History, tmp_path: Path) -> None:
    """Cut off, no JSON, no UTF-8, no update, changed by hand, of a newer version, or no number."""
    path = tmp_path / "updates.jsonl"
    varied.export(path)
    good = path.read_bytes().splitlines()
    bad = [
        (good[0][:100], "This is no JSON"),
        (b"steps: 3", "This is no JSON"),
        (b"\xff\xfe\xff", "This is no JSON"),
        (b"[]", "This is no update: it has no 'format'"),
        (good[0].replace(b'"steps": 1', b'"steps": 9'), "its numbers are not those"),
        (good[0].replace(b'"format": 1', b'"format": 99'), "has the format 99"),
        (good[0].replace(b'"epochs": 1.0', b'"epochs": NaN'), "holds NaN, which is no number"),
        (b"[" * 100_000, "This is no JSON"),
    ]
    lines = [good[0], *(line for line, _ in bad), b"", *good]
    path.write_bytes(b"\n".join(lines))
    other = History(f"sqlite:///{tmp_path / 'other.db'}")
    done = other.import_from(path)
    assert (done.added, done.already_there) == (4, 1)
    assert list(varied) == list(other)
    assert list(range(2, 2 + len(bad))) == [number for number, _ in done.bad]
    for (_, expected), (_, reason) in zip(bad, done.bad, strict=True):
        assert expected in reason
    assert str(done) == "4 added, 1 already there, 8 not readable"


def test_importing_needs_a_file(history: History, tmp_path: Path) -> None:
    """Which is named where it is not there, or is a folder."""
    with pytest.raises(InputError, match=r"nothing at '.*absent\.jsonl'"):
        history.import_from(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match=rf"'{tmp_path}' could not be read: IsADirectoryError"):
        history.import_from(tmp_path)


def test_import_in_several_transactions(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count is right where updates come again in the same and in another transaction."""
    lines = [json.dumps(update_of(number=n).to_dict()) for n in (0, 1, 1, 2, 0, 3)]
    path = tmp_path / "updates.jsonl"
    path.write_text("\n".join(lines))
    monkeypatch.setattr("resque.history.store._ROWS_AT_ONCE", 2)
    assert history.import_from(path) == ImportResult(added=4, already_there=2)
    assert len(history) == 4


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_export_is_whole_or_not_there(varied: History, tmp_path: Path) -> None:
    """On a disk that is full the old file stays, and nothing of the new one is left."""
    path = tmp_path / "out" / "updates.jsonl"
    path.parent.mkdir()
    path.write_text("old")
    with (
        largest_file(2000),
        pytest.raises(InputError, match=r"updates\.jsonl' could not be written: .+"),
    ):
        varied.export(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_export_to_a_full_stream_says_so(varied: History) -> None:
    """And not that all was written."""
    with (
        Path("/dev/full").open("w", encoding="utf-8") as stream,
        pytest.raises(InputError, match=r"could not be written: No space left.*make room"),
    ):
        varied.export(stream)


# --- the schema ----------------------------------------------------------------------------------


def old_history(file: Path, updates: list[Update]) -> None:
    """A history as its first version left it, with the id, the start and the record of updates."""
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        schema.lift(connection, "0001")
        for update in updates:
            values = schema.rows_of(update).update
            connection.execute(
                sa.text("INSERT INTO updates VALUES (:id, :started, :record)"), values
            )
    engine.dispose()


def test_an_old_history_is_lifted(varied: History, file: Path, tmp_path: Path) -> None:
    """Everything is there, and the columns are those that adding the updates anew fills."""
    old = tmp_path / "old.db"
    old_history(old, list(varied))
    lifted = History(f"sqlite:///{old}")
    assert list(varied) == list(lifted)

    def tables(path: Path) -> list[Any]:
        with sqlite(path) as connection:
            found = []
            for table in ("updates", "update_summaries", "update_labels", "resque_schema"):
                rows = connection.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in rows.description]
                every = sorted(rows.fetchall(), key=repr)
                found.append([dict(zip(columns, row, strict=True)) for row in every])
        return found

    assert tables(file) == tables(old)
    assert tables(old)[-1] == [{"version_num": "0002"}]
    assert lifted.count(labels={"shift": "blur"}) == 2


def test_many_updates_are_lifted(tmp_path: Path) -> None:
    """More than fit in one page."""
    updates = [update_of(number=n) for n in range(1001)]
    old_history(tmp_path / "old.db", updates)
    lifted = History(f"sqlite:///{tmp_path / 'old.db'}")
    assert lifted.count(model="resnet18", labels={"shift": "blur"}) == 1001


def test_a_record_that_cannot_be_read_does_not_stop_the_lifting(tmp_path: Path) -> None:
    """It is kept as it is, and named."""
    file = tmp_path / "old.db"
    old_history(file, [update_of(number=0), update_of(number=1)])
    with sqlite(file) as connection:
        connection.execute("UPDATE updates SET record = '{' WHERE id = ?", [update_of(number=0).id])
    lifted = History(f"sqlite:///{file}")
    assert len(lifted) == 2
    assert {None, "resnet18"} == {summary.model for summary in lifted.summaries()}
    with pytest.warns(ResqueWarning, match=f"Update {update_of(number=0).id[:8]} cannot be read"):
        assert [update_of(number=1)] == list(lifted)


def test_a_lifting_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old history is as it was, byte for byte, and is lifted the next time."""
    file = tmp_path / "old.db"
    old_history(file, [update_of()])
    before = file.read_bytes()

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    stamp = MigrationContext.stamp
    monkeypatch.setattr(MigrationContext, "stamp", fails)
    history = History(f"sqlite:///{file}")
    with pytest.raises(KeyboardInterrupt):
        len(history)
    assert before == file.read_bytes()
    monkeypatch.setattr(MigrationContext, "stamp", stamp)
    assert list(history) == [update_of()]


def test_a_newer_history_is_refused_and_not_touched(history: History, file: Path) -> None:
    """With the name of its schema."""
    history.add(update_of())
    with sqlite(file) as connection:
        connection.execute("UPDATE resque_schema SET version_num = '0042'")
    before = file.read_bytes()
    newer = History(history.url)
    for use in (lambda: len(newer), lambda: newer.add(update_of(number=1))):
        with pytest.raises(InputError, match=r"schema '0042', made by a newer.*up to '0002'"):
            use()
    assert before == file.read_bytes()


def test_the_schema_is_the_one_that_the_migrations_make(history: History, file: Path) -> None:
    """The tables in the code are those in a new database, and the last revision is alembic's."""
    len(history)
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": schema.VERSION_TABLE, "compare_type": True},
        )
        assert compare_metadata(context, schema.UPDATES.metadata) == []
    engine.dispose()
    scripts = ScriptDirectory(str(Path(schema.__file__).with_name("migrations")))
    found = [script.revision for script in scripts.walk_revisions()][::-1]
    assert schema.REVISIONS == tuple(found)


def test_tables_of_another_program_are_left_alone(file: Path) -> None:
    """A database that has its own `updates` is refused, and one with other tables shared."""
    with sqlite(file) as connection:
        connection.execute("CREATE TABLE updates (x)")
        connection.execute("CREATE TABLE alembic_version (version_num)")
    before = file.read_bytes()
    with pytest.raises(InputError, match="table updates already exists"):
        len(History(f"sqlite:///{file}"))
    assert before == file.read_bytes()
    with sqlite(file) as connection:
        connection.execute("DROP TABLE updates")
    assert History(f"sqlite:///{file}").add(update_of())


def test_another_process_lifted_it_first(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was old at the first look may not be at the second, and is then left alone."""
    history.add(update_of())
    look, looks = schema._checked_revision, []

    def late(connection: sa.Connection, database: Any) -> str | None:
        looks.append(look(connection, database))
        return "0001" if len(looks) == 1 else looks[-1]

    monkeypatch.setattr(schema, "_checked_revision", late)
    assert list(History(history.url)) == [update_of()]
    assert looks == ["0002", "0002"]


# --- accidents -----------------------------------------------------------------------------------


def test_a_locked_history(history: History, file: Path) -> None:
    """Is waited for, and then named with the time; what is there can be read all the while."""
    history.add(update_of())
    with sqlite(file) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match=r"resque\.db is locked: .* more than 0\.05 s"):
            history.add(update_of(number=1))
        assert len(history) == 1
        other.execute("ROLLBACK")
    assert history.add(update_of(number=1))


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may write to; those of pytest are for one user alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)
        Path(name).chmod(0o700)


def test_a_read_only_file(open_folder: Path) -> None:
    """Can be read and not written."""
    file = open_folder / "resque.db"
    history = History(f"sqlite:///{file}")
    history.add(update_of())
    file.chmod(0o444)
    with ordinary_user():
        assert list(history) == [update_of()]
        with pytest.raises(InputError, match=r"resque\.db cannot be written: .* is read-only"):
            history.add(update_of(number=1))


def test_a_read_only_folder(open_folder: Path) -> None:
    """Likewise; the journal cannot be written beside the file."""
    file = open_folder / "resque.db"
    history = History(f"sqlite:///{file}")
    history.add(update_of())
    file.chmod(0o666)
    open_folder.chmod(0o555)
    with ordinary_user():
        assert list(history) == [update_of()]
        with pytest.raises(InputError, match=r"resque\.db cannot be "):
            history.add(update_of(number=1))
        with pytest.raises(InputError, match=r"new\.db cannot be opened .*check the path"):
            History(f"sqlite:///{open_folder / 'new.db'}").add(update_of())


def test_an_old_history_that_is_read_only(open_folder: Path) -> None:
    """Cannot be lifted, and says so."""
    file = open_folder / "old.db"
    old_history(file, [update_of()])
    file.chmod(0o444)
    with ordinary_user(), pytest.raises(InputError, match=r"old\.db cannot be written"):
        len(History(f"sqlite:///{file}"))


def test_a_history_opened_read_only_by_its_url(history: History, file: Path) -> None:
    """SQLite's own URL reads, and does not write."""
    history.add(update_of())
    reading = History(f"sqlite:///file:{file}?mode=ro&uri=true")
    assert reading.exists
    assert list(reading) == [update_of()]
    with pytest.raises(InputError, match="cannot be written"):
        reading.add(update_of(number=1))


def test_a_file_that_is_no_database(file: Path) -> None:
    """Is named, and left as it is."""
    file.write_text("id,steps\n" * 100)
    with pytest.raises(InputError, match=r"resque\.db is no SQLite database"):
        len(History(f"sqlite:///{file}"))
    assert file.read_text() == "id,steps\n" * 100


def test_a_torn_page(history: History, file: Path) -> None:
    """Is not taken for an empty history, nor for the updates that were there."""
    for n in range(50):
        history.add(update_of(number=n))
    pages = bytearray(file.read_bytes())
    for page in range(3, len(pages) // 4096):
        pages[4096 * page : 4096 * page + 2048] = bytes(2048)
    file.write_bytes(pages)
    with pytest.raises(InputError, match=r"resque\.db is damaged .*malformed.*recover"):
        list(history)


def test_a_file_that_was_cut_off(history: History, file: Path) -> None:
    """Likewise."""
    for n in range(50):
        history.add(update_of(number=n))
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(InputError, match=r"resque\.db is damaged"):
        list(history)


def test_a_full_disk(history: History) -> None:
    """The update that does not fit is refused; those that were there stay, and room mends it."""
    history.add(update_of())
    engine = history._database.engine

    def full(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite makes that the present size

    sa.event.listen(engine, "connect", full)
    # What fills the pages there are is still taken; a note of two pages is not.
    large = update_of(notes=("x" * 10_000,))
    with pytest.raises(InputError, match=r"could not be written: the disk is full.*make room"):
        history.add(large)
    assert list(history) == [update_of()]
    sa.event.remove(engine, "connect", full)
    assert history.add(large)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    history = History(f"sqlite:///{tmp_path}/absent/resque.db")
    assert not history.exists
    with pytest.raises(InputError, match=r"no folder '.*/absent' to keep 'resque\.db' in"):
        history.add(update_of())


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    """Is no history."""
    with pytest.raises(InputError, match=rf"{tmp_path} cannot be opened"):
        len(History(f"sqlite:///{tmp_path}"))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('"format": 99', "has the format 99; this version reads up to 1"),
        ('"format": 1, "epochs": NaN', "holds NaN"),
        ("{", "This is no JSON"),
        ('"format": 1, "steps": 9', "its numbers are not those that were written"),
    ],
)
def test_one_record_that_cannot_be_read(
    history: History, file: Path, record: str, reason: str
) -> None:
    """It is named, also when it is asked for; all others are usable."""
    bad, good = on_day(1), on_day(2)
    for update in (bad, good):
        history.add(update)
    whole = json.dumps(bad.to_dict())
    if record != "{":
        whole = json.dumps({k: v for k, v in bad.to_dict().items() if f'"{k}"' not in record})
        record = f"{whole[:-1]}, {record}}}"
    with sqlite(file) as connection:
        connection.execute("UPDATE updates SET record = ? WHERE id = ?", [record, bad.id])
    with pytest.warns(ResqueWarning, match=f"Update {bad.id[:8]} cannot be read: .*{reason}"):
        assert list(history) == [good]
    with pytest.raises(InputError, match=f"Update {bad.id[:8]} cannot be read: .*{reason}"):
        history.get(bad.id)
    assert len(history.summaries()) == 2


def test_a_record_in_the_wrong_place(history: History, file: Path) -> None:
    """A record that is whole, but another update's, is not passed off as this one."""
    one, other = update_of(number=1), update_of(number=2)
    history.add(one)
    with sqlite(file) as connection:
        text = json.dumps(other.to_dict())
        connection.execute("UPDATE updates SET record = ?", [text])
    with pytest.raises(InputError, match=f"that of another update, {other.id[:8]}"):
        history.get(one.id)


def test_a_race_on_a_server_is_tried_again(history: History) -> None:
    """Where another process added the same update between look and insert, a second look sees it.

    SQLite lets that not happen, so the server's answer is made up.
    """
    history.add(update_of(number=0))
    clashes = []

    def clash(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO updates") and not clashes:
            clashes.append(statement)
            raise IntegrityError(statement, None, Exception("duplicate key"))

    sa.event.listen(history._database.engine, "before_cursor_execute", clash)
    assert history.add(update_of(number=1))
    assert len(clashes) == 1
    assert len(history) == 2


# --- the URL -------------------------------------------------------------------------------------

PASSWORD = "correct+horse/battery@staple"
WRITTEN = "correct+horse%2Fbattery%40staple"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("runs.db", "got 'runs.db'. For that file say 'sqlite:///runs.db'."),
        (
            Path("/data/runs.db"),
            "got '/data/runs.db'. For that file say 'sqlite:////data/runs.db'.",
        ),
        ("", "such as 'sqlite:///resque.db'; got ''"),
        (None, "got None"),
        ("sqlite://runs.db", "before a relative path: 'sqlite:///runs.db', and four"),
        ("elephantsql://here/db", "No driver is known for 'elephantsql'; expected one of sqlite,"),
        ("postgres://here/db", "known for 'postgres'; expected .* Did you mean 'postgresql'"),
        ("postgresql+nothing://here/db", "No driver is known for 'postgresql+nothing'"),
        ("sqlite:///x.db?timeout=soon", "'sqlite' URL cannot be used"),
    ],
)
def test_a_url_that_is_none(url: Any, message: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(InputError) as caught:
        History(url)
    assert re.search(message.replace("+", r"\+"), str(caught.value))


@pytest.mark.parametrize(
    ("driver", "package"),
    [
        ("postgresql+psycopg", "psycopg"),
        ("postgresql+psycopg2", "psycopg2-binary"),
        ("mysql", "mysqlclient"),
    ],
)
def test_a_driver_that_is_not_installed(
    driver: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package to install is named as its index calls it."""
    for module in ("psycopg", "psycopg2", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"installed: pip install {package}\.$"):
        History(f"{driver}://here/db")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{WRITTEN}@here:port/db",
        f"nothing://me:{WRITTEN}@here/db",
        f"postgresql+psycopg://me:{WRITTEN}@here/db",
        f"sqlite://me:{WRITTEN}@here/db",
        f"me:{WRITTEN}@here/db",
        f"postgresql:me:{WRITTEN}@here",
    ],
)
def test_a_password_is_in_no_message(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with the URL, the traceback of the error included."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError) as caught:
        History(url)
    assert_secret("".join(traceback.format_exception(caught.value)))


def assert_secret(text: str) -> None:
    """No part of the password is in a text."""
    assert text
    for part in (PASSWORD, WRITTEN, "horse", "battery", "staple"):
        assert part not in text


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, file: Path) -> Iterator[str]:
    """The URL of a server, with a password, whose driver answers everything with all it knows."""

    def refuse(*_: Any, **given: Any) -> None:
        raise sqlite3.OperationalError(f"no route to {given} ({WRITTEN})")

    dialect = type("Talkative", (SQLiteDialect_pysqlite,), {"supports_statement_cache": True})
    dialect.create_connect_args = lambda _, url: ([], url.translate_connect_args() | url.query)
    dialect.connect = refuse
    registry.impls["talkative"] = lambda: dialect
    yield f"talkative://me:{WRITTEN}@here:1/db?key=hunter2"
    del registry.impls["talkative"]


def test_a_password_is_not_printed(server: str) -> None:
    """Neither by the history, nor by an error of the driver that has it in its own words."""
    history = History(server)
    expected = "talkative://me:***@here:1/db"
    assert repr(history) == f"History('{expected}')"
    assert history.url == expected
    with pytest.raises(InputError) as caught:
        history.add(update_of())
    text = "".join(traceback.format_exception(caught.value))
    assert f"The history {expected} failed: no route to" in text
    assert "hunter2" not in text
    assert_secret(text)


def test_the_command_line_does_not_print_a_password(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it came from the environment."""
    monkeypatch.setenv("RESQUE_HISTORY", server)
    assert main(["history", "list"]) == 2
    assert main(["history", "list", "--help"]) == 0
    printed = "".join(capsys.readouterr())
    assert "***@here" in printed
    assert "hunter2" not in printed
    assert_secret(printed)


@pytest.mark.parametrize("timeout_s", [-1, math.nan, "60", None])
def test_a_timeout_is_a_number(timeout_s: Any) -> None:
    """Of 0 or more seconds."""
    with pytest.raises(InputError, match=re.escape(f"0 seconds or more; got {timeout_s!r}")):
        History("sqlite://", timeout_s=timeout_s)


# --- threads, processes, places ------------------------------------------------------------------


def test_nothing_is_made_before_first_use(history: History, file: Path) -> None:
    """A history that is only named leaves no file."""
    assert not history.exists
    assert list(file.parent.iterdir()) == []
    assert len(history) == 0
    assert history.exists


def test_a_history_stays_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the process has gone to another folder."""
    monkeypatch.chdir(tmp_path)
    history = History("sqlite:///runs.db")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    history.add(update_of())
    assert (tmp_path / "runs.db").exists()
    assert list((tmp_path / "other").iterdir()) == []
    assert repr(history) == f"History('sqlite:///{tmp_path}/runs.db')"


def test_a_history_in_memory() -> None:
    """Keeps its updates until it is closed."""
    with History("sqlite://") as history:
        assert history.exists
        history.add(update_of())
        assert list(history) == [update_of()]
    assert len(history) == 0


def test_threads_share_a_history(history: History) -> None:
    """Each update of each thread is there once, though all add some of the same ones."""
    patient = History(history.url)
    errors: list[BaseException] = []

    def adding(first: int) -> None:
        try:
            for n in range(first, first + 10):
                patient.add(update_of(number=n))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=adding, args=(5 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(patient) == 25


def test_a_history_can_be_pickled(history: History) -> None:
    """With its timeout; where it is unpickled it is opened anew."""
    history.add(update_of())
    copy = pickle.loads(pickle.dumps(history))
    assert list(copy) == [update_of()]
    assert repr(history) == repr(copy)
    assert copy._database.timeout_s == 0.05


def test_a_fork_writes_to_the_same_history(history: History) -> None:
    """The child's update is there, and the parent's history works on."""
    history.add(update_of(number=0))
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        os._exit(0 if history.add(update_of(number=1)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert history.add(update_of(number=2))
    assert len(history) == 3


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def named(varied: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """The four updates, in the history that the environment names."""
    monkeypatch.setenv("RESQUE_HISTORY", varied.url)
    return varied


def printed(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What `resque history` prints to stdout, or to stderr where it fails."""
    assert main(["history", *words]) == status
    out, err = capsys.readouterr()
    return err if status == 2 else out


def test_an_update_that_cost_nothing_is_comparable_with_all(history: History) -> None:
    """Zero epochs were measured by no meter, and hide no other energies."""
    free = update_of(number=1, steps=0, epochs=0.0, energy=None, duration_s=0.0)
    history.add(free)
    history.add(update_of(number=2))
    assert [0.0, 0.002] == history.measures("energy_kwh")["energy_kwh"]


def test_carbon_of_different_grids_is_not_compared(history: History) -> None:
    """Unless it is costed for one grid."""
    for number, grams in enumerate((56.0, 660.0)):
        history.add(update_of(number=number, grid=Grid(grams_per_kwh=grams, name="test")))
    with pytest.raises(NotComparableError, match=r"different grids \(56, 660 g CO2e per kWh"):
        history.measures("carbon_kg")
    one = Grid(grams_per_kwh=100.0, name="one", pue=1.5)
    assert [pytest.approx(0.002 * 0.15)] * 2 == history.measures("carbon_kg", grid=one)["carbon_kg"]


def test_an_update_costed_anew_is_the_same_update(history: History) -> None:
    """The grid is no part of what was measured."""
    update = update_of()
    elsewhere = update.on_grid(Grid(grams_per_kwh=660.0, name="elsewhere"))
    assert update.id == elsewhere.id
    assert [True, False] == [history.add(update), history.add(elsewhere)]
    assert update == history.get(update.id)


@pytest.mark.parametrize(
    ("field", "value"),
    [("labels", []), ("labels", {"a": 1}), ("epochs", "three"), ("epochs", None), ("steps", 1.5),
     ("ended", "bored"), ("started", 5), ("versions", "all")],
)  # fmt: skip
def test_a_line_with_a_wrong_type_is_named_and_alone_left_out(
    history: History, tmp_path: Path, field: str, value: Any
) -> None:
    """Wherever the line stands, all others are added."""
    good = [update_of(number=number).to_dict() for number in range(3)]
    bad = good[1] | {field: value}
    path = tmp_path / "updates.jsonl"
    path.write_text("\n".join(map(json.dumps, (good[0], bad, good[2]))))
    done = history.import_from(path)
    assert (2, 0) == (done.added, done.already_there)
    assert [2] == [number for number, _ in done.bad]
    assert "damaged" in done.bad[0][1]


def test_whether_it_can_be_written_is_known_without_writing(tmp_path: Path) -> None:
    """A new history is made by its first update, not by the look; bad places are refused."""
    fresh = History(f"sqlite:///{tmp_path}/new.db")
    fresh.check_writable()
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(InputError, match="There is no folder"):
        History(f"sqlite:///{tmp_path}/nowhere/new.db").check_writable()
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"other\.db"):
        History(f"sqlite:///{tmp_path}/other.db").check_writable()


def test_list(named: History, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per update, newest first, with its measures; modelled energy is marked."""
    lines = printed(capsys, "list").splitlines()
    headings = "id started (UTC) model labels target ended epochs s kWh kg CO2e"
    assert lines[0].split() == headings.split()
    ids = [update.id[:8] for update in named.updates()]
    assert ids[::-1] == [line[:8] for line in lines[1:5]]
    assert "2026-03-03 12:00  resnet18  shift=blur level=3" in lines[2]
    assert "plateau (patience 5, min_delta 0.001)" in lines[2]
    assert lines[2].split()[-4:] == ["1", "60", "0.002*", "0.000112*"]
    assert lines[3].split()[-5:] == ["censored", "(max", "epochs)", "1", "60"]
    assert lines[5:] == ["* modelled from load and time, not read from a counter"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model", "vit"), [2]),
        (("--label", "shift=blur"), [3, 1]),
        (("--label", "shift=blur", "--label", "level=3"), [3]),
        (("--reached",), [4, 3, 1]),
        (("--censored",), [2]),
        (("--since", "2026-03-02", "--until", "2026-03-03"), [3, 2]),
        (("--limit", "1"), [4]),
    ],
    ids=str,
)
def test_list_filters(
    named: History, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[int]
) -> None:
    """Each option leaves the updates that it says, for people and for programs."""
    steps = {update.id: update.steps for update in named}
    found = json.loads(printed(capsys, "list", "--json", *words))
    assert expected == [steps[row["id"]] for row in found]
    lines = printed(capsys, "list", *words).splitlines()
    short = {update_id[:8]: n for update_id, n in steps.items()}
    assert expected == [short[line[:8]] for line in lines if line[:8] in short]


def test_list_says_how_many_it_left_out(named: History, capsys: pytest.CaptureFixture[str]) -> None:
    """And how to see them."""
    assert printed(capsys, "list", "--limit", "3").endswith(
        "the newest 3 of 4; --limit shows more\n"
    )
    assert "--limit shows" not in printed(capsys, "list", "--limit", "4")
    assert printed(capsys, "list", "--model", "none") == "no updates\n"


def test_list_on_another_grid(named: History, capsys: pytest.CaptureFixture[str]) -> None:
    """The carbon is costed again, and the grid is named."""
    rows = json.loads(printed(capsys, "list", "--grid", "500", "--json"))
    kilograms = [row["carbon_kg"] for row in rows]
    assert [0.001, 0.001, None, 0.001] == [k and round(k, 9) for k in kilograms]
    assert "carbon on 500 g CO2e/kWh" in printed(capsys, "list", "--grid", "500")
    assert "XXQ" in printed(capsys, "list", "--grid", "XXQ", status=2)


def test_show(named: History, capsys: pytest.CaptureFixture[str]) -> None:
    """What the update says of itself, and its curve."""
    update = next(named.updates())
    text = printed(capsys, "show", update.id[:10])
    assert text.startswith(f"id {update.id}, started {update.started}\n{update}\n")
    assert text.splitlines()[-1].split() == [
        "1",
        "0.9300",
        "0.3",
        "0.4",
        "1.25",
        "0.001",
        "60",
        "7200",
    ]
    assert update.to_dict() == json.loads(printed(capsys, "show", update.id, "--json"))


def test_export_and_import(
    named: History, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same bytes in a file and on stdout; imported, all updates are there."""
    path = tmp_path / "out.jsonl"
    assert printed(capsys, "export", str(path)) == f"4 updates written to {path}\n"
    assert printed(capsys, "export", "-") == path.read_text()
    assert len(printed(capsys, "export", "-", "--censored").splitlines()) == 1
    other = f"sqlite:///{tmp_path / 'other.db'}"
    words = ("import", str(path), "--history", other)
    assert printed(capsys, *words) == "4 added, 0 already there\n"
    assert printed(capsys, *words) == "0 added, 4 already there\n"
    assert list(named) == list(History(other))


def test_import_names_bad_lines(
    named: History, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """On stderr, with exit status 1; the others are added."""
    path = tmp_path / "updates.jsonl"
    path.write_text(f"nonsense\n{json.dumps(update_of(number=7).to_dict())}\n")
    assert main(["history", "import", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == "1 added, 0 already there, 1 not readable\n"
    assert err.startswith(f"resque: {path}, line 1: This is no JSON")
    assert len(named) == 5


@pytest.mark.parametrize(
    ("words", "received"),
    [
        (
            ("list", "--label", "shift"),
            "--label must be KEY=VALUE, such as shift=blur; got 'shift'",
        ),
        (("list", "--label", "a=1", "--label", "a=2"), "gives 'a' twice, '1' and '2'"),
        (("list", "--since", "lately"), "since must be a date such as"),
        (("list", "--limit", "0"), "limit must be a whole number of 1 or more; got 0"),
        (("show", "zz"), "got 'zz'"),
        (("import", "absent.jsonl"), "nothing at 'absent.jsonl'"),
        (("export", "absent/out.jsonl"), "no folder 'absent'"),
        (("list", "--history", "runs.db"), "say 'sqlite:///runs.db'"),
    ],
    ids=str,
)
def test_bad_input(
    named: History, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], received: str
) -> None:
    """One line of cause and cure, and exit status 2."""
    text = printed(capsys, *words, status=2)
    assert received in text
    assert text.startswith("resque: error: ")
    assert text.count("\n") == 1


@pytest.mark.parametrize("words", [("list",), ("show", "ab"), ("export", "-")], ids=str)
def test_looking_at_a_history_makes_none(
    file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """A misspelt name is an error, not an empty history."""
    text = printed(capsys, *words, "--history", f"sqlite:///{file}", status=2)
    assert f"There is no history at sqlite:///{file}" in text
    assert not file.exists()


def test_list_loads_nothing_heavy(named: History) -> None:
    """Neither torch nor alembic, which take longer than the list."""
    code = (
        "import sys; from resque.cli import main; assert main(['history', 'list']) == 0; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "sqlalchemy" in loaded
    assert not loaded & {"torch", "alembic", "numpy", "scipy", "sklearn", "codecarbon"}
