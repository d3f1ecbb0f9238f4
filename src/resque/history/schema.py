"""The tables of a history, what of an update stands in which column, and how old ones are lifted.

`UPDATES` has the record: the update, whole, as JSON. The other tables are copies of what is in it,
there to find updates and to list them. They are apart because a record is some thousand times as
long as a number, and whoever looks at a column has to pass by all that stands before it.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resque.errors import InputError
from resque.history.database import Database
from resque.history.records import Accuracy, EnergyReading
from resque.history.update import Update

# In order; a database that says another one was written by a newer version.
REVISIONS = ("0001", "0002")
# Not alembic's own name: the database may belong to a program that uses alembic too.
VERSION_TABLE = "resque_schema"

# Measures of an update, in the order of `Update`.
MEASURES = (
    "epochs",
    "steps",
    "examples_seen",
    "duration_s",
    "accuracy_before",
    "loss_before",
    "peak_accuracy",
    "peak_epoch",
    "gradient_norm",
    "gradient_norm_last_batch",
    "parameter_change",
    "parameter_change_published",
    "energy_kwh",
    "carbon_kg",
)
_COUNTS = ("steps", "examples_seen")

_metadata = sa.MetaData()

UPDATES = sa.Table(
    "updates",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("started", sa.String(32), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

SUMMARIES = sa.Table(
    "update_summaries",
    _metadata,
    sa.Column("id", sa.String(32), sa.ForeignKey("updates.id"), primary_key=True),
    sa.Column("started", sa.String(32), nullable=False),
    sa.Column("model", sa.String(255)),
    sa.Column("weights", sa.String(64)),
    sa.Column("start", sa.String(32)),
    sa.Column("target_kind", sa.String(32)),
    sa.Column("target", sa.String(255)),
    sa.Column("ended", sa.String(32)),
    sa.Column("reached", sa.Boolean),
    *(sa.Column(name, sa.BigInteger if name in _COUNTS else sa.Double) for name in MEASURES),
    sa.Column("energy_modelled", sa.Boolean),
    sa.Column("meter", sa.String(255)),
    sa.Column("components", sa.String(255)),
    sa.Column("calibration", sa.String(255)),
    sa.Column("hardware", sa.String(255)),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Index("update_summaries_by_time", "started", "id"),
    sa.Index("update_summaries_by_model", "model", "started", "id"),
    sa.Index("update_summaries_by_weights", "weights"),
)

LABELS = sa.Table(
    "update_labels",
    _metadata,
    sa.Column("update_id", sa.String(32), sa.ForeignKey("updates.id"), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
    sa.Index("update_labels_by_value", "key", "value", "update_id"),
)

_lifting = threading.Lock()


def utc(moment: datetime) -> str:
    """Return a moment in UTC, in the one form whose order as text is the order in time."""
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of an update: that in `UPDATES`, that in `SUMMARIES`, and those in `LABELS`."""

    update: dict[str, Any]
    summary: dict[str, Any]
    labels: list[dict[str, str]]


def rows_of(update: Update) -> Rows:
    """Return the rows of an update in all tables.

    Raises:
        InputError: it cannot be written as JSON, or did not start at a date.
    """
    try:
        whole = update.to_dict()
        record = json.dumps(whole, allow_nan=False)
        started = utc(datetime.fromisoformat(update.started))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"This update of {update.signature.model!r}, started {update.started!r}, cannot be "
            f"kept: {error}. Measures are plain, finite numbers, and None where they are not "
            "known; the start is a date and time in ISO 8601."
        ) from error
    key = {"id": whole["id"], "started": started}
    summary = {
        "model": update.signature.model,
        "weights": update.signature.weights,
        "start": update.start,
        "target_kind": "accuracy" if isinstance(update.target, Accuracy) else "plateau",
        "target": str(update.target),
        "ended": update.ended,
        "reached": update.reached,
        **{name: getattr(update, name) for name in MEASURES},
        "energy_modelled": update.energy.modelled if update.energy else None,
        "meter": update.energy.meter if update.energy else None,
        "components": components_of(update.energy) if update.energy else None,
        "calibration": update.energy.calibration if update.energy else None,
        "hardware": update.hardware.name,
        "labels": json.dumps(dict(update.labels)),
    }
    labels = [
        {"update_id": whole["id"], "key": str(name), "value": str(value)}
        for name, value in update.labels.items()
    ]
    return Rows(key | {"record": record}, key | summary, labels)


def components_of(reading: EnergyReading) -> str:
    """Return what the total of a reading is made of, such as "cpu model, gpu counter"."""
    return ", ".join(sorted(f"{c.name} {c.source}" for c in reading.components if c.counted))


def make_current(database: Database) -> None:
    """Create the tables of a history, or lift those of an older version; whole or not at all.

    Raises:
        InputError: the history is of a newer version, or cannot be read or written.
    """
    with database.transaction() as connection:
        revision = _checked_revision(connection, database)
    if revision == REVISIONS[-1]:
        return
    # Alembic keeps the migration under way in one place per process.
    with _lifting, database.transaction(writes=True) as connection:
        # Another process may have been faster.
        if _checked_revision(connection, database) != REVISIONS[-1]:
            lift(connection, REVISIONS[-1])


def lift(connection: sa.Connection, revision: str) -> None:
    """Bring the tables to a revision, within the caller's transaction."""
    # Loading alembic takes longer than listing a history.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).with_name("migrations")))
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    steps = [*scripts.iterate_revisions(revision, context.get_current_revision() or "base")]
    with Operations.context(context):
        for step in reversed(steps):
            step.module.upgrade()
    context.stamp(scripts, revision)


def _checked_revision(connection: sa.Connection, database: Database) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  # a constant
    if found not in (None, *REVISIONS):
        raise InputError(
            f"The history {database} has the schema {found!r}, made by a newer version of resque; "
            f"this one knows schemas up to {REVISIONS[-1]!r}. Upgrade resque to use it; nothing "
            "was changed."
        )
    return found
