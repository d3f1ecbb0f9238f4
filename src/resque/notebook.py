"""How results show themselves in a notebook."""

from __future__ import annotations

from html import escape
from importlib import import_module

from resque.errors import MissingExtraError


def shown_in_notebook(shown: object) -> str:
    """Return an object as HTML: its tables, or its words where the extra `report` is missing.

    A class takes it as its `_repr_html_`, which notebooks call.

    Args:
        shown: see `resque.reporting.html.notebook_view`.

    Example:
        >>> import numpy as np, resque
        >>> task = resque.task_index(None, (np.eye(3).repeat(20, axis=0), np.arange(60) // 20))
        >>> shown_in_notebook(task).count("<p")
        2
    """
    # By name and when it is called: a result lies in a room above reporting, which it must not
    # import, and is used without it most of the time.
    reporting = import_module("resque.reporting.html")
    try:
        return str(reporting.notebook_view(shown))
    except MissingExtraError:
        return f"<pre>{escape(str(shown))}</pre>"
