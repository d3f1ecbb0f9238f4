"""Tables of summaries and labels to filter by, filled from the records.

Nothing is imported from the package: a migration must do the same for ever, whatever becomes of
`resque.history.schema`.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS: dict[str, Any] = {
    "model": sa.String(255),
    "weights": sa.String(64),
    "start": sa.String(32),
    "target_kind": sa.String(32),
    "target": sa.String(255),
    "ended": sa.String(32),
    "reached": sa.Boolean,
    "epochs": sa.Double,
    "steps": sa.BigInteger,
    "examples_seen": sa.BigInteger,
    "duration_s": sa.Double,
    "accuracy_before": sa.Double,
    "loss_before": sa.Double,
    "peak_accuracy": sa.Double,
    "peak_epoch": sa.Double,
    "gradient_norm": sa.Double,
    "gradient_norm_last_batch": sa.Double,
    "parameter_change": sa.Double,
    "parameter_change_published": sa.Double,
    "energy_kwh": sa.Double,
    "carbon_kg": sa.Double,
    "energy_modelled": sa.Boolean,
    "meter": sa.String(255),
    "components": sa.String(255),
    "calibration": sa.String(255),
    "hardware": sa.String(255),
}
_ROWS_AT_ONCE = 500


def upgrade() -> None:
    """Create the tables and fill them."""
    summaries = op.create_table(
        "update_summaries",
        sa.Column("id", sa.String(32), sa.ForeignKey("updates.id"), primary_key=True),
        sa.Column("started", sa.String(32), nullable=False),
        *(sa.Column(name, kind) for name, kind in _COLUMNS.items()),
        sa.Column("labels", sa.Text, nullable=False),
    )
    labels = op.create_table(
        "update_labels",
        sa.Column("update_id", sa.String(32), sa.ForeignKey("updates.id"), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )
    _fill(op.get_bind(), summaries, labels)
    for table, name, columns in (
        ("update_summaries", "by_time", ["started", "id"]),
        ("update_summaries", "by_model", ["model", "started", "id"]),
        ("update_summaries", "by_weights", ["weights"]),
        ("update_labels", "by_value", ["key", "value", "update_id"]),
    ):
        op.create_index(f"{table}_{name}", table, columns)


def _fill(connection: sa.Connection, summaries: sa.Table, labels: sa.Table) -> None:
    updates = sa.table("updates", *map(sa.column, ("id", "started", "record")))
    page = sa.select(updates).order_by(updates.c.id).limit(_ROWS_AT_ONCE)
    last = ""
    while rows := connection.execute(page.where(updates.c.id > last)).all():
        last = rows[-1].id
        found = [{"id": row.id, "started": row.started, **_columns(row.record)} for row in rows]
        connection.execute(summaries.insert(), found)
        pairs = [
            {"update_id": one["id"], "key": key, "value": str(value)}
            for one in found
            for key, value in json.loads(one["labels"]).items()
        ]
        if pairs:
            connection.execute(labels.insert(), pairs)


def _columns(record: str) -> dict[str, Any]:
    nothing = dict.fromkeys(_COLUMNS) | {"labels": "{}"}
    try:
        update = json.loads(record)
        signature, target, energy = update["signature"], update["target"], update["energy"] or {}
        counted = [c for c in energy.get("components", ()) if c["counted"]]
        return {name: update.get(name) for name in _COLUMNS} | {
            "model": signature["model"],
            "weights": signature["weights"],
            "start": update["recipe"] and update["recipe"]["start"],
            "target_kind": target["kind"],
            "target": f"accuracy {target['value']:g}"
            if target["kind"] == "accuracy"
            else f"plateau (patience {target['patience']:g}, min_delta {target['min_delta']:g})",
            "meter": energy.get("meter"),
            "components": ", ".join(sorted(f"{c['name']} {c['source']}" for c in counted))
            if energy
            else None,
            "calibration": energy.get("calibration"),
            "hardware": update["hardware"]["name"],
            "labels": json.dumps(update["labels"]),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # A record that cannot be read is kept, and named when somebody asks for it.
        return nothing
