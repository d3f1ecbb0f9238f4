"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resque.errors import InputError


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when all went well.

    An existing file stays as it was, and no half-written one is left behind, whatever happens.

    Raises:
        InputError: the file cannot be written, and why.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected the name of a file to write.")
    try:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
    except OSError as error:
        raise _not_written(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files for the owner alone; this one is as open as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
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
