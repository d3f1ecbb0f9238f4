"""Filters: which updates of a history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import TypedDict, get_args

import sqlalchemy as sa

from resque.errors import InputError, nearest
from resque.history.records import Start
from resque.history.schema import LABELS, SUMMARIES, utc
from resque.history.update import Ended


class Filters(TypedDict, total=False):
    """Which updates of a history; those that meet all that is given.

    Attributes:
        model: name of the model in the signature.
        weights: their digest in the signature; None for updates without one.
        start: "weights", "head", "scratch", or None for updates that did not say.
        target_kind: "accuracy" or "plateau".
        ended: "target", "plateau", "max_epochs", "diverged" or "interrupted".
        reached: True for updates that met their target, False for censored ones.
        since: updates that started then or later: a date, a date and time, or either in
            ISO 8601; in UTC where no other zone is said.
        until: updates that started then or earlier; a date without a time is that whole day.
        meter: name and version of the meter; None for updates that were not metered.
        components: what the energy is made of, such as "cpu model, gpu counter"; likewise.
        calibration: name of the calibration; None for energy that is not calibrated.
        hardware: name of the device.
        labels: the user's own words; an update has all of these.
    """

    model: str
    weights: str | None
    start: str | None
    target_kind: str
    ended: str
    reached: bool
    since: str | date | datetime
    until: str | date | datetime
    meter: str | None
    components: str | None
    calibration: str | None
    hardware: str
    labels: Mapping[str, str]


_EXACT = ("model", "weights", "start", "target_kind", "ended", "meter", "components",
          "calibration", "hardware")  # fmt: skip
_NULLABLE = ("weights", "start", "meter", "components", "calibration")
_CHOICES = {
    "start": get_args(Start),
    "target_kind": ("accuracy", "plateau"),
    "ended": get_args(Ended),
}


def conditions_of(filters: Filters) -> list[sa.ColumnElement[bool]]:
    """Return the filters as conditions on `SUMMARIES`, all of which are to be met.

    Raises:
        InputError: a filter is unknown, or its value is none that it can have.
    """
    found: list[sa.ColumnElement[bool]] = []
    for name, value in filters.items():
        if name in _EXACT:
            found.append(_exact(name, value))
        elif name == "reached":
            if not isinstance(value, bool):
                raise InputError(f"reached must be True or False; got {value!r}.")
            found.append(SUMMARIES.c.reached.is_(value))
        elif name == "since":
            found.append(SUMMARIES.c.started >= _moment(name, value, time.min))
        elif name == "until":
            found.append(SUMMARIES.c.started <= _moment(name, value, time.max))
        elif name == "labels":
            found += _label_conditions(value)
        else:
            known = [*Filters.__annotations__]
            raise InputError(
                f"Updates cannot be filtered by {name!r}; expected {', '.join(known)}."
                f"{nearest(name, known)}"
            )
    return found


def _exact(name: str, value: object) -> sa.ColumnElement[bool]:
    column = SUMMARIES.c[name]
    if value is None and name in _NULLABLE:
        return column.is_(None)
    if not isinstance(value, str):
        kind = "a text or None" if name in _NULLABLE else "a text"
        raise InputError(f"{name} must be {kind}; got {value!r}.")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InputError(
            f"{name} must be one of {', '.join(_CHOICES[name])}; got {value!r}."
            f"{nearest(value, _CHOICES[name])}"
        )
    return column == value


def _label_conditions(labels: object) -> Iterator[sa.ColumnElement[bool]]:
    if not isinstance(labels, Mapping):
        raise InputError(
            f"labels must be names and values, such as {{'shift': 'blur'}}; got {labels!r}."
        )
    for key, value in labels.items():
        yield SUMMARIES.c.id.in_(
            sa.select(LABELS.c.update_id).where(LABELS.c.key == key, LABELS.c.value == str(value))
        )


def _moment(name: str, value: object, time_of_day: time) -> str:
    try:
        given = _date(value) if isinstance(value, str) else value
        if isinstance(given, datetime):
            return utc(given)
        if isinstance(given, date):
            return utc(datetime.combine(given, time_of_day, UTC))
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f"{name} must be a date such as 2026-03-31 or 2026-03-31T18:00; got {value!r}."
    )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text)
