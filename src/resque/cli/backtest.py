"""`resque backtest`."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from resque.cli import options
from resque.errors import InputError


def backtest(
    hold_out: Annotated[
        str,
        typer.Option(
            help="What is not known of an update when it is foretold: time (all later ones), "
            "update (itself), change, network, data or recipe (all alike in it)."
        ),
    ] = "time",
    accuracy: options.TargetAccuracy = None,
    patience: options.Patience = None,
    min_delta: options.MinDelta = 0.001,
    history: options.HistoryUrl = options.HISTORY,
    no_corpus: Annotated[
        bool, typer.Option("--no-corpus", help="Know nothing but the history.")
    ] = False,
    label: options.Labels = None,
    as_json: options.AsJson = False,
) -> None:
    """How well the updates of a history would have been foretold, and how well simpler rules do.

    Each is foretold without itself, and compared with what it came to. The target is that of the
    first update unless one is given.

    Example: resque backtest --hold-out time --history sqlite:///resque.db
    """  # fmt: skip
    from resque.forecasting.backtest import HoldOut
    from resque.forecasting.backtest import backtest as tested
    from resque.forecasting.corpus import corpus_updates
    from resque.history.store import History
    from resque.reporting.terminal import backtest_view

    given = accuracy is not None or patience is not None
    target = options.target(accuracy, patience, min_delta) if given else None
    store = History(history)
    if not store.exists:
        raise InputError(
            f"There is no history at {history!r}. `resque retrain` makes one, and --history says "
            "where it is."
        )
    updates = list(store.updates(labels=options.label_pairs(label)))
    with options.progress("updates", len(updates)) as advance:
        found = tested(
            updates,
            others=() if no_corpus else corpus_updates(),
            hold_out=cast("HoldOut", hold_out),
            target=target,
            each=lambda _: advance(),
        )
    options.print_result(found, backtest_view, as_json=as_json)
