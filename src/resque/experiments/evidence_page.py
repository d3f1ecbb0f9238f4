"""The page of evidence: its sentences, tables and figures, all made from the numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.experiments.evidence import (
    INTENSITY,
    PARTIAL,
    POOLED,
    WITHIN,
    Evidence,
    evidence,
    records_of,
)
from resque.experiments.evidence_figures import (
    bars_figure,
    dots_figure,
    in_order,
    interval_told,
    marked_title,
    place_of,
    scatter_figure,
    two_digits,
)
from resque.experiments.leave_out import MOST_CHOSEN
from resque.experiments.situations import (
    GIVEN_SHIFT,
    GIVEN_TASK,
    GROUP_UPDATES,
    HELD,
    LEAST_GROUPS,
    LEAST_RUNS,
    MEASURES,
    NOISE_LEVEL,
    SITUATIONS,
    Measure,
    Situation,
)
from resque.files import written_whole
from resque.reporting.figures import checked_figure

if TYPE_CHECKING:
    from pandas import DataFrame

# Rows of a table on the page; the index has one more where it is not among them.
_SHOWN = 6


def evidence_page(table: DataFrame, folder: Path | str, *, resamples: int = 1000) -> Path:
    """Return the path of the page of evidence, written with its figures to a folder.

    Args:
        table: see `evidence`.
        folder: that is there; the page is evidence.md in it, the figures lie in evidence/.
        resamples: of each interval.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the table cannot be used, or the page cannot be written.
    """
    checked_figure(Path(folder) / "evidence.svg")
    return write(evidence(table, resamples=resamples), folder)


def write(found: Evidence, folder: Path | str) -> Path:
    """Return the path of the page of these tables, written with its figures to a folder.

    Every sentence of the page that says what was found is made from the numbers.

    Args:
        found: the tables.
        folder: that is there; the page is evidence.md in it, the figures lie in evidence/.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the page or a figure cannot be written.
    """
    page = Path(folder) / "evidence.md"
    checked_figure(page.with_suffix(".svg"))
    figures = page.with_suffix("")
    figures.mkdir(exist_ok=True)
    blocks = [
        *_introduction(found),
        *_of_claims(found),
        *_of_situations(found, figures),
        *_of_rivals(found),
        *_of_left_out(found, figures),
        *_of_noise(found),
        *_of_method(found),
    ]
    with written_whole(page) as temporary:
        temporary.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return page


def _introduction(found: Evidence) -> Iterator[str]:
    yield "# Evidence"
    yield (
        f"What {found.updates} measured updates say of what foretells their cost. "
        f"{found.held_out} more were set aside before the first run and are not looked at here. "
        "This page is made from the updates by `resque.experiments.evidence`, its sentences from "
        "the numbers. A correlation stands with its 90 % interval over resamples that draw "
        "networks, and new data, each as a whole; - stands where there is none."
    )


def _of_claims(found: Evidence) -> Iterator[str]:
    counts = Counter(found.claims["verdict"])
    told = [f"{counts[verdict]} {verdict}" for verdict in ("held", "partly", "not", "not tested")]
    yield "## The claims of the paper"
    yield (
        "The abstract of [RESQUE](https://arxiv.org/abs/2412.15511) says that the index correlates "
        "with the measures below. A claim is *held* when the lower bound of the 90 % interval of "
        "Spearman's correlation within groups is at least 0.5, *partly* when it is above 0, else "
        f"*not*. Of {len(found.claims)} rows, time beside energy among them: {', '.join(told)}."
    )
    rows = records_of(found.claims)
    yield "\n".join(
        f"- {_verdicts([row for row in rows if row['under'] == under])}"
        for under in dict.fromkeys(row["under"] for row in rows)
    )
    yield _markdown(
        ("claim", "correlation", "runs", "groups", "verdict", "because"),
        [
            (row["claim"], interval_told(row), row["runs"], row["groups"], f"*{row['verdict']}*",
             row["reason"] or _BECAUSE[row["verdict"]])
            for row in rows
        ],
    )  # fmt: skip


_BECAUSE = {
    "held": f"the lower bound is at least {HELD}",
    "partly": f"the lower bound is above 0, and below {HELD}",
    "not": "the lower bound is not above 0",
}


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentence of the claims about one index under one circumstance."""
    of: dict[str, list[str]] = {}
    for row in rows:
        of.setdefault(row["verdict"], []).append(
            row["measure"]
            if row["verdict"] == "not tested"
            else f"{row['measure']} ({two_digits(row['value'])})"
        )
    told = [
        f"*{verdict}* for {', '.join(of[verdict])}"
        for verdict in ("held", "partly", "not", "not tested")
        if verdict in of
    ]
    return f"{rows[0]['index']}, {rows[0]['under']}: {'; '.join(told)}."


def _of_situations(found: Evidence, figures: Path) -> Iterator[str]:
    for situation in SITUATIONS:
        rows = found.correlations[found.correlations["situation"] == situation.name]
        yield f"## {situation.name[0].upper()}{situation.name[1:]}"
        if not len(rows):
            yield "There are no such updates."
            continue
        within = rows[(rows["scope"] == WITHIN) & (rows["statistic"] == "spearman")]
        known = within[within["value"].notna()]
        if not len(known):
            reasons = Counter(within["reason"])
            yield f"Nothing can be said within groups: {reasons.most_common(1)[0][0]}."
        else:
            if not situation.scratch:
                yield scatter_figure(found, situation, figures)
                yield dots_figure(known, situation, found, figures)
            groupings = Counter(known["grouping"]).most_common(1)[0][0]
            shown = (
                ""
                if situation.scratch
                else " Predictors are in the order of the size of their correlation within "
                f"groups; the best {_SHOWN} are shown, and the index always."
            )
            yield f"Groups share {groupings}.{shown}"
        for measure in MEASURES:
            of_measure = rows[rows["measure"] == measure.title]
            if not situation.scratch and len(of_measure):
                title = marked_title(measure.title, found)
                yield f"### {title[0].upper()}{title[1:]}: {situation.name}"
                yield from _ranking(of_measure, situation.index, measure)
        if situation.scratch:
            yield _short(rows, (situation.index,), (WITHIN, POOLED), found)
        yield from _of_intensities(rows, situation, found)


def _ranking(rows: DataFrame, index: str, measure: Measure) -> Iterator[str]:
    """Give the sentence and the table of one measure."""
    cells = {(row["predictor"], row["scope"], row["statistic"]): row for row in records_of(rows)}
    order = in_order(rows)
    if not order:
        reason = Counter(rows.loc[rows["reason"] != "", "reason"]).most_common(1)
        yield f"Nothing can be said: {reason[0][0] if reason else 'no predictor is known'}."
        return
    yield place_of(order, index, measure, cells)
    shown = order[:_SHOWN] + [index] * (index in order[_SHOWN:])
    columns = (
        (WITHIN, "spearman"), (WITHIN, "kendall"), (POOLED, "spearman"), (PARTIAL, "spearman"),
        (POOLED, "log_pearson"),
    )  # fmt: skip
    table = []
    for name in shown:
        told = [cells.get((name, *column)) for column in columns]
        first = cells[name, WITHIN, "spearman"]
        emphasis = f"**{name}**" if name == index else name
        numbers = (interval_told(row) if row else "-" for row in told)
        table.append(
            (order.index(name) + 1, emphasis, first["kind"], *numbers, first["runs"],
             first["censored"])
        )  # fmt: skip
    yield _markdown(
        ("place", "predictor", "kind", "within groups", "the same, Kendall", "pooled", "partial",
         "pooled, Pearson with the log", "runs", "censored"),
        table,
    )  # fmt: skip


def _of_intensities(rows: DataFrame, situation: Situation, found: Evidence) -> Iterator[str]:
    known = rows[(rows["scope"] == INTENSITY) & rows["value"].notna()]
    if not len(known):
        return
    grouping = Counter(known["grouping"]).most_common(1)[0][0]
    yield f"### One kind of shift at a time: {situation.name}"
    yield (
        f"Groups share {grouping}, of one run of each cell: what is left is the intensity of the "
        "shift."
    )
    yield _short(rows, (situation.index, NOISE_LEVEL), (INTENSITY,), found)


def _short(rows: DataFrame, shown: Sequence[str], scopes: Sequence[str], found: Evidence) -> str:
    """Return a row for each measure: some predictors, and the best of all."""
    table = []
    for measure in MEASURES:
        for scope in scopes:
            known = {
                row["predictor"]: row
                for row in records_of(rows[rows["value"].notna()])
                if (row["measure"], row["scope"], row["statistic"])
                == (measure.title, scope, "spearman")
            }
            if known:
                best = max(known.values(), key=lambda row: abs(row["value"]))
                numbers = (interval_told(known[name]) if name in known else "-" for name in shown)
                table.append(
                    (marked_title(measure.title, found), scope, *numbers, best["predictor"],
                     interval_told(best), best["runs"])
                )  # fmt: skip
    if not table:
        return "No correlation can be computed."
    return _markdown(
        ("measure", "scope", *shown, "best predictor", "its correlation", "runs"), table
    )


def _of_rivals(found: Evidence) -> Iterator[str]:
    yield "## How often a rival beats the index"
    yield (
        "In each group the rival (zero-shot results among them) with the largest correlation in "
        "the *other* groups, in the direction that it has there, meets the index; a tie is half a "
        "win."
    )
    rows = records_of(found.best_rivals)
    known = [row for row in rows if not row["reason"]]
    if known:
        lost = [row for row in known if row["share"] > 1 / 2]
        yield (
            f"The rival is ahead in more than half of the groups in {len(lost)} of {len(known)} "
            "rows" + (f": {', '.join(_told_of(row) for row in lost)}." if lost else ".")
        )
        yield _markdown(
            ("situation", "measure", "index", "rival most often chosen", "rival ahead in",
             "groups", "runs"),
            [
                (row["situation"], marked_title(row["measure"], found), row["index"], row["rival"],
                 _percent(row["share"]), row["groups"], row["runs"])
                for row in known
            ],
        )  # fmt: skip
    yield from _left_aside(rows, ("situation", "measure"))


def _told_of(row: Mapping[str, Any]) -> str:
    return f"{row['measure']} of {row['situation']} ({_percent(row['share'])})"


def _of_left_out(found: Evidence, figures: Path) -> Iterator[str]:
    yield "## What is left out"
    yield (
        "One network, one kind of shift or one task is left out at a time, and a ridge regression "
        "on the logarithm of the measure is fitted to the rest: to the index, the accuracy drop or "
        f"the controls alone, and to at most {MOST_CHOSEN} quantities of the pre-flight, chosen "
        "one after the other within the rest. The error is the median of |forecast - measured| / "
        "measured; the rank correlation is that in each part left out, averaged with its pairs as "
        "weights. This is a yardstick, not the forecaster."
    )
    rows = records_of(found.left_out)
    known = [row for row in rows if not row["reason"]]
    if known:
        yield bars_figure(known, figures)
        keys = ("situation", "left_out", "measure")
        by_key: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
        for row in known:
            by_key.setdefault(tuple(row[key] for key in keys), {})[row["predictors"]] = row
        picks: dict[tuple[str, ...], list[Mapping[str, Any]]] = {key: [] for key in by_key}
        for row in records_of(found.chosen):
            picks[tuple(row[key] for key in keys)].append(row)
        yield "\n".join(f"- {told}" for told in _compared(by_key, picks))
        sets = list(by_key[next(iter(by_key))])
        yield "Error, and rank correlation in brackets:"
        yield _markdown(
            ("situation", "left out", "measure", *sets, "chosen most often", "runs", "parts"),
            [
                (*key[:2], marked_title(key[2], found), *(_error_of(row[name]) for name in sets),
                 _picked(picks[key]), row["constant"]["runs"], row["constant"]["groups"])
                for key, row in by_key.items()
            ],
        )  # fmt: skip
    yield from _left_aside(rows, ("situation", "left_out", "measure"))


def _error_of(row: Mapping[str, Any]) -> str:
    if not row["runs"]:
        return "-"
    return f"{_percent(row['error'])} ({two_digits(row['rank_correlation'])})"


def _picked(rows: Sequence[Mapping[str, Any]]) -> str:
    told = [f"{row['quantity']} ({row['times']} of {row['fits']})" for row in rows[:3]]
    return ", ".join(told) or "nothing"


def _compared(
    by_key: Mapping[tuple[str, ...], Mapping[str, Mapping[str, Any]]],
    picks: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]],
) -> Iterator[str]:
    """Give a sentence for each way to leave a part out, over all measures."""
    for situation in SITUATIONS:
        for what in situation.left_out:
            keys = [key for key in by_key if key[:2] == (situation.name, what)]
            if not keys:
                continue
            less = {
                name: sum(
                    by_key[key]["chosen quantities"]["error"] < by_key[key][name]["error"]
                    for key in keys
                )
                for name in ("constant", "index alone", "controls alone")
            }
            index = sum(
                row["times"]
                for key in keys
                for row in picks[key]
                if row["quantity"] == situation.index
            )
            fits = sum(picks[key][0]["fits"] for key in keys if picks[key])
            told = ", ".join(f"than {name} in {n}" for name, n in less.items())
            yield (
                f"{situation.name[0].upper()}{situation.name[1:]}, one {what} left out: of "
                f"{len(keys)} measures the chosen quantities err less {told}; "
                f"{situation.index} is among them in {index} of {fits} fits."
            )


def _of_noise(found: Evidence) -> Iterator[str]:
    yield "## Noise between seeds"
    yield (
        "Runs that differ in nothing but the seed differ all the same, and no predictor that does "
        "not see the seed can foretell that. A ceiling is the largest correlation with the "
        "logarithm of the measure that one can have: that within groups over the same groups as "
        "the correlations within groups, that pooled over all runs. Ranks in small groups stay "
        "somewhat below. The share is the spread between seeds over that between cells; the "
        "difference is the median between two seeds; cells and runs are those with several seeds. "
        "Censored runs are left out."
    )
    rows = records_of(found.noise)
    known = [row for row in rows if not row["reason"]]
    if known:
        yield _markdown(
            ("situation", "measure", "scope", "ceiling", "intraclass correlation", "share",
             "difference", "cells", "runs"),
            [
                (row["situation"], marked_title(row["measure"], found), row["scope"],
                 two_digits(row["ceiling"]), two_digits(row["intraclass"]),
                 _percent(row["share"]), _percent(row["median_difference"]), int(row["cells"]),
                 int(row["runs"]))
                for row in known
            ],
        )  # fmt: skip
    yield from _left_aside(rows, ("situation", "measure", "scope"))


def _of_method(found: Evidence) -> Iterator[str]:
    yield "## How it was computed"
    missed = int((~found.points["reached"].to_numpy(dtype=bool)).sum())
    zeros = ", ".join(f"{n} of {name}" for name, n in found.replaced.items())
    yield (
        f"- {missed} updates missed their target. Their epochs, time, energy and carbon are "
        "censored: Spearman's correlation takes their expected ranks, Kendall's the pairs whose "
        "order is known, Pearson's the likelihood. The regressions train on them as they are, and "
        "no error is taken of them.\n"
        "- Epochs are those to the first validation with 99 % of the update's own peak accuracy; "
        "they are known, and not censored, where accuracy had not risen since for as long as a "
        "plateau takes. Accuracy is that on 300 validation images, the peak their greatest.\n"
        f"- The probe takes the first steps of the update itself, {_share_of_probe(found)} of "
        "those to 99 % of the peak in the middle: where that is much, it measures rather than "
        "foretells.\n"
        f"- Partial correlations of ranks hold constant, for shifts, {', '.join(GIVEN_SHIFT)}; "
        f"for tasks, {', '.join(GIVEN_TASK)}.\n"
        "- What is held constant in a group is held so by least squares on the ranks in it, one "
        "indicator for each level; Kendall's correlation takes the pairs that share the level. "
        f"Groups with fewer than {GROUP_UPDATES - 1} degrees of freedom ({GROUP_UPDATES} updates, "
        "and one more for each further level) are left out; a correlation needs "
        f"{LEAST_RUNS} runs and {LEAST_GROUPS} networks x data.\n"
        "- Used as logarithms in Pearson's correlation and in regressions: "
        f"{', '.join(found.logged) or 'none'}.\n"
        f"- Zeros replaced by half of the least value above 0: {zeros or 'none'}.\n"
        "- Time depends on the machine and on what else ran on it; it stands beside energy and "
        "does not replace it."
    )


def _share_of_probe(found: Evidence) -> str:
    points = found.points
    steps = points["epochs_to_peak_share"] * points["steps_per_epoch"]
    share = (points["probe_steps"] / steps.where(steps > 0)).dropna()
    return _whole_percent(float(share.median())) if len(share) else "an unknown part"


def _left_aside(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Iterator[str]:
    """Give a line for each reason why something has no numbers."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            by_reason.setdefault(row["reason"], []).append(", ".join(row[key] for key in keys))
    if by_reason:
        yield "\n".join(
            f"- Left aside, because {reason}: {'; '.join(dict.fromkeys(of))}."
            for reason, of in by_reason.items()
        )


def _markdown(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 and math.isfinite(share) else _whole_percent(share)


def _whole_percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "-"
