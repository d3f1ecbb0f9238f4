"""How far data have moved from what a trained model knows, before anything is retrained.

`import resque` loads neither torch nor anything else that is heavy: each public name is
imported from its room of the house when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resque.errors import (
        InputError,
        MissingExtraError,
        NotComparableError,
        ResqueError,
        ResqueWarning,
    )
    from resque.index.profile import ClassProfile, load_profile, profile
    from resque.index.shift import ShiftIndex, examples_needed, shift_index
    from resque.index.task import TaskIndex, task_index
    from resque.representation.signature import Signature

    __version__: str

_ROOMS = {
    "ClassProfile": "resque.index.profile",
    "InputError": "resque.errors",
    "MissingExtraError": "resque.errors",
    "NotComparableError": "resque.errors",
    "ResqueError": "resque.errors",
    "ResqueWarning": "resque.errors",
    "ShiftIndex": "resque.index.shift",
    "Signature": "resque.representation.signature",
    "TaskIndex": "resque.index.task",
    "examples_needed": "resque.index.shift",
    "load_profile": "resque.index.profile",
    "profile": "resque.index.profile",
    "shift_index": "resque.index.shift",
    "task_index": "resque.index.task",
}

__all__ = [
    "ClassProfile",
    "InputError",
    "MissingExtraError",
    "NotComparableError",
    "ResqueError",
    "ResqueWarning",
    "ShiftIndex",
    "Signature",
    "TaskIndex",
    "examples_needed",
    "load_profile",
    "profile",
    "shift_index",
    "task_index",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from resque.representation.signature import installed_version

        return installed_version()
    if name not in _ROOMS:
        raise AttributeError(f"module 'resque' has no attribute {name!r}")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
