"""The errors and the warning of this package, and the words they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ResqueError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ResqueError, ValueError):
    """What was given cannot be used; the message says what was expected, what came, what to do."""


class NotComparableError(InputError):
    """Two profiles or indices were made in ways that make their numbers incomparable."""


class MissingExtraError(ResqueError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class ResqueWarning(UserWarning):
    """Something the user should know although a result can be given."""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Return the error for an optional package that is not installed."""
    return MissingExtraError(
        f"This needs the package {package!r}, which is not installed: "
        f"pip install 'resque[{extra}]'."
    )


def nearest(name: str, names: Iterable[str], *, limit: int = 3) -> str:
    """Return the known names closest to a misspelt one, ready to end a message."""
    close = difflib.get_close_matches(name, list(names), n=limit, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def in_words(error: BaseException) -> str:
    """Return the kind of a foreign error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".strip().rstrip(":").splitlines()[0]
