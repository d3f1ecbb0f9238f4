"""Files that are there, and files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resque.errors import InputError, nearest


def existing(path: Path | str) -> Path:
    """Return a path at which there is something.

    Raises:
        InputError: there is nothing; with the nearest names that are there.
    """
    path = Path(path)
    if path.exists():
        return path
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"There is nothing at {str(path)!r}.{nearest(path.name, siblings)}")


def checked_output(path: Path | str) -> None:
    """Raise InputError if a file cannot be written for a plain reason, before long work begins."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected the name of a file to write.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {str(path.parent)!r} to write {path.name!r} to.")


def checked_folder(path: Path | str) -> None:
    """Raise InputError if a folder of this name can neither be used nor be made."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{str(path)!r} is a file; expected a folder, or a name for a new one.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {str(path.parent)!r} to make {path.name!r} in.")


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when all went well.

    An existing file stays as it was, and no half-written one is left behind, whatever happens.

    Raises:
        InputError: the file cannot be written, and why.
    """
    path = Path(path)
    checked_output(path)
    # Not tempfile's: its files are for the owner alone, and mending that touches the umask.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        yield temporary
        temporary.chmod(mode)  # some writers make a file of their own, for the owner alone
        temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(
        f"{str(path)!r} could not be written: {reason}. Nothing was left behind; choose another "
        "place or make room."
    )
