"""The page of the decisions: what the chosen options cost, over the cheapest in hindsight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resque.experiments.decision_evaluation import (
    ACCURACIES,
    LEVELS,
    Forecasts,
    Question,
    Ruled,
    questions_of,
    ruled,
    simple_rules,
)
from resque.files import written_whole

if TYPE_CHECKING:
    from resque.history.update import Update

PAGE = "choices.md"
AIM = 1.10
_KINDS = {"shift": "The data have shifted", "task": "The task is new"}


def decision_page(
    updates: Sequence[Update], folder: Path, *, each: Callable[[str], None] = lambda _: None
) -> Path:
    """Write the page, and return its path.

    Args:
        updates: of the corpus.
        folder: of the documentation.
        each: called with a word on what is being done.
    """
    questions = sorted(questions_of(updates), key=lambda q: (q.kind, q.change))
    forecasts = Forecasts(updates)
    parts = [_head(updates, questions)]
    for kind, heading in _KINDS.items():
        found: list[Ruled] = []
        for level in LEVELS:
            each(f"{kind}, {level:.0%}")
            found += ruled(questions, {f"forecast, {level:.0%}": forecasts.rule(level)}, kind=kind)
        found += ruled(questions, simple_rules(), kind=kind)
        parts.append(_section(heading, found, [q for q in questions if q.kind == kind]))
    parts.append(_tail(questions))
    path = folder / PAGE
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return path


def _head(updates: Sequence[Update], questions: Sequence[Question]) -> str:
    accuracies = ", ".join(f"{value:g}" for value in ACCURACIES)
    return f"""# How good the choices are

Made by `python benchmarks/decisions.py` from {len(updates)} updates of [the corpus](corpus.md).

A question is one set of new data and an accuracy to be reached on them ({accuracies}).
Its options are the updates that the corpus has for these data, of several networks, recipes and
starts, and keeping each of the networks as it is. There are {len(questions)} questions in which at
least one of two or more trainings gets there. Every option is forecast with all updates unknown
that are for new data of this kind; the option of [`resque compare`](compare.md) is then held
against the cheapest in hindsight, the oracle's. The cost is seconds, because the energy of these
updates was not metered. A missed target costs what training from scratch took on top.
"""


def _section(heading: str, found: Sequence[Ruled], questions: Sequence[Question]) -> str:
    if not found:
        return f"## {heading}\n\nThe corpus asks no such question.\n"
    cheapest = [question.cheapest for question in questions]
    kept = sum(option.kept and option.reached for option in cheapest)
    asked = f"{len(questions)} questions."
    if kept:
        asked = (
            f"{len(questions)} questions. In {kept} of them a network is at the target as it is: "
            "to keep it costs nothing, nor does training it until it is there, for no epoch. Which "
            f"training is the cheapest is asked in the other {len(questions) - kept}."
        )
    lines = [
        f"## {heading}",
        "",
        asked,
        "Total seconds over the oracle's, with a 90 % bootstrap interval over kinds of new data:",
        "",
        "| rule | questions | cost / oracle's | oracle's choice | target met | excess by misses |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        ratio, lower, upper = one.ratio
        between = f" ({lower:.2f} to {upper:.2f})" if math.isfinite(lower) else ""
        lines.append(
            f"| {one.rule} | {one.questions} | {ratio:.2f}{between} | {one.oracles:.0%} | "
            f"{one.reached:.0%} | {'-' if math.isnan(one.lost) else f'{one.lost:.0%}'} |"
        )
    misses = "*Excess by misses*: share of what is paid beyond the oracle's for missed targets."
    return "\n".join([*lines, "", misses, "", _verdict(found), ""])


def _verdict(found: Sequence[Ruled]) -> str:
    """Return whether the aim is met, in words."""
    ours, *_ = found
    others = [one for one in found if not one.rule.startswith("forecast")]
    met = ours.ratio[0] <= AIM
    best = min(others, key=lambda one: one.ratio[0])
    first = (
        f"The aim, at most {AIM:.2f} times the oracle's cost, is {'met' if met else 'missed'}: "
        f"{ours.ratio[0]:.2f} with the default of 90 %."
    )
    if ours.ratio[0] < best.ratio[0]:
        return f"{first} Every simple rule costs more; the best of them is {best.rule}."
    how = "less" if best.ratio[0] < ours.ratio[0] else "as little"
    return f"{first} The rule {best.rule} costs {how}."


def _tail(questions: Sequence[Question]) -> str:
    sizes = [len(question.options) for question in questions]
    return f"""## What this does not show

- The options are those that a fractional design happened to make, not those that a user would
  choose among; a question has {min(sizes)} to {max(sizes)}.
- Networks are narrow, data sets small, and an update takes minutes at most.
- Seconds were read while two updates ran at a time.
- The variances of the forecast's regressions were fitted on all updates, those asked for among
  them; all else of a question is unknown when its options are forecast.
"""
