"""Columns and labels to filter by, filled from the records.

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
    "labels": sa.Text,
}
_ROWS_AT_ONCE = 500


def upgrade() -> None:
    """Add the columns and the table of labels, and fill them."""
    for name, kind in _COLUMNS.items():
        op.add_column("updates", sa.Column(name, kind))
    op.create_table(
        "update_labels",
        sa.Column("update_id", sa.String(32), sa.ForeignKey("updates.id"), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )
    _fill(op.get_bind())
    op.create_index("update_labels_by_value", "update_labels", ["key", "value", "update_id"])
    op.create_index("updates_by_model", "updates", ["model", "started", "id"])
    op.create_index("updates_by_weights", "updates", ["weights"])


def _fill(connection: sa.Connection) -> None:
    updates = sa.table(
        "updates",
        sa.column("id"),
        sa.column("record"),
        *(sa.column(name, kind) for name, kind in _COLUMNS.items()),
    )
    labels = sa.table("update_labels", *map(sa.column, ("update_id", "key", "value")))
    fill = (
        updates.update()
        .where(updates.c.id == sa.bindparam("of"))
        .values({name: sa.bindparam(name) for name in _COLUMNS})
    )
    page = sa.select(updates.c.id, updates.c.record).order_by(updates.c.id).limit(_ROWS_AT_ONCE)
    last = ""
    while rows := connection.execute(page.where(updates.c.id > last)).all():
        last = rows[-1].id
        found = {row.id: _columns(row.record) for row in rows}
        connection.execute(fill, [{"of": of, **columns} for of, columns in found.items()])
        pairs = [
            {"update_id": of, "key": key, "value": str(value)}
            for of, columns in found.items()
            for key, value in json.loads(columns["labels"]).items()
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
