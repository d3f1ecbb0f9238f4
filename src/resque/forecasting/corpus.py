"""The corpus: measured updates that come with the package, for whoever has no history yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.errors import InputError, in_words
from resque.history.records import fields_of
from resque.history.table import table_of
from resque.history.update import Point, Update

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "corpus.parquet"
DIGITS = 6
RECORD = "record"


def corpus_updates(path: Path | str | None = None, *, held_out: bool = False) -> tuple[Update, ...]:
    """Return the updates of the corpus, without those that were set aside in advance.

    Each has its pre-flight, its curve, and the labels that say which cell of the design it is;
    see docs/corpus.md for how they were made and what is not among them.

    Args:
        path: of a Parquet file that `write_corpus` wrote; None for that of the package.
        held_out: also those that were set aside. Looked at before the choices are made that they
            are to test, they test nothing.

    Raises:
        InputError: the file is not there, or is no corpus.

    Example:
        >>> {update.start for update in corpus_updates()} <= {"weights", "head", "scratch"}
        True
    """
    found = _of_package() if path is None else _read(Path(path))
    return tuple(u for u in found if held_out or not u.labels.get("held_out"))


def corpus_table(path: Path | str | None = None, *, held_out: bool = False) -> DataFrame:
    """Return the corpus as a table; see `resque.history.table.table_of` for its columns.

    Args:
        path: as for `corpus_updates`.
        held_out: likewise.

    Raises:
        InputError: likewise.
    """
    return table_of(corpus_updates(path, held_out=held_out))


def rounded(update: Update) -> Update:
    """Return an update whose curve, pre-flight and changes per tensor have six digits.

    Digits beyond those are noise, do not compress, and would be most of the file. It is another
    update, with an id of its own.

    Args:
        update: left as it was.
    """
    return replace(
        update,
        curve=tuple(Point(**_short(fields_of(point))) for point in update.curve),
        preflight=_short(update.preflight),
        parameter_change_per_tensor=_short(dict(update.parameter_change_per_tensor)),
    )


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _short(part) for key, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list) else value


def write_corpus(updates: Sequence[Update], path: Path | str) -> None:
    """Write updates as one Parquet file: the columns of their table, and each record whole.

    Args:
        updates: in the order in which they are to be read.
        path: file to write.

    Raises:
        InputError: there are none, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from resque.files import written_whole

    if not updates:
        raise InputError("There are no updates to write.")
    table = table_of(updates)
    table[RECORD] = [json.dumps(update.to_dict(), sort_keys=True) for update in updates]
    with written_whole(path) as temporary:
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False),
            temporary,
            compression="zstd",
            compression_level=19,
            row_group_size=len(table),
        )


@lru_cache(maxsize=1)
def _of_package() -> tuple[Update, ...]:
    with as_file(files("resque.forecasting") / FILE) as path:
        return _read(path)


def _read(path: Path) -> tuple[Update, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records: list[Any] = pq.read_table(path, columns=[RECORD])[RECORD].to_pylist()
        return tuple(Update.from_dict(json.loads(record)) for record in records)
    except (OSError, KeyError, pa.ArrowException, json.JSONDecodeError) as error:
        raise InputError(
            f"{str(path)!r} is no corpus: {in_words(error)}. Give a file that write_corpus wrote."
        ) from error
