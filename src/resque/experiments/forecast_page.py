"""The page that says how good forecasts are: tables, figures and sentences, all from numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resque.experiments.forecast_evaluation import (
    ACCURACIES,
    OWN_UPDATES,
    PLATEAU,
    SITUATIONS,
    Evaluated,
    calibration,
    evaluated,
    expenses,
    noise_between_seeds,
    time_oracle,
)
from resque.files import written_whole
from resque.forecasting.backtest import LEVEL, OURS, Score
from resque.reporting.figures import COLOURS, blank_figure, checked_figure, save_figure, style

if TYPE_CHECKING:
    from collections.abc import Callable

    from resque.history.update import Update

PAGE = "forecast.md"
_COLUMNS = (
    ("epochs_error", "error of the epochs", "percent"),
    ("epochs_coverage", "coverage", "percent"),
    ("epochs_width", "width", "ratio"),
    ("pinball", "pinball loss", "number"),
    ("rank_correlation", "rank correlation", "number"),
    ("accuracy_error", "error of the accuracy", "number"),
    ("accuracy_coverage", "its coverage", "percent"),
)
_ACCURACY_AIM, _COVERAGE_AIM, _WIDTH_AIM, _FAIR_COVERAGE = 0.05, 0.85, 1.25, 0.87
_SEEDS_AIM = 1.25


def forecast_page(
    updates: Sequence[Update],
    folder: Path | str,
    *,
    asked: Sequence[Update] | None = None,
    workers: int = 1,
    each: Callable[[str], None] = lambda _: None,
) -> Path:
    """Return the path of the page on forecasts, written with its figures to a folder.

    Args:
        updates: of the corpus that are known.
        folder: that is there; the page is forecast.md in it, the figures lie in forecast/.
        asked: updates that were set aside in advance, to be foretold from the others; None while
            they are not to be looked at.
        workers: processes that share the work.
        each: called with a word on what is being done.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the page or a figure cannot be written.
    """
    page = Path(folder) / PAGE
    checked_figure(page.with_suffix(".svg"))
    figures = page.with_suffix("")
    figures.mkdir(exist_ok=True)
    blocks = list(_introduction(updates, asked))
    found = evaluated(updates, workers=workers, each=each)
    blocks += _of_aims(found, updates)
    for one in found:
        blocks += _of_situation(one)
    blocks += _of_probabilities(found, figures)
    if asked:
        each("what was set aside")
        blocks += _of_set_aside(updates, asked, each)
    blocks += _of_expense(updates)
    blocks += _of_reading()
    with written_whole(page) as temporary:
        temporary.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return page


def _introduction(updates: Sequence[Update], asked: Sequence[Update] | None) -> Iterator[str]:
    yield "# How good forecasts are"
    aside = (
        f"{len(asked)} more were set aside before the first run and are foretold at the end."
        if asked
        else "Those that were set aside before the first run are not looked at here."
    )
    yield (
        f"From {len(updates)} updates of the [corpus](corpus.md), each foretold without itself and "
        f"without all that is said to be new. {aside} The target is a {PLATEAU}. This page is made "
        "by `python benchmarks/forecast.py`, its sentences from the numbers. A number stands with "
        "its 90 % interval over resamples of what was left out, each as a whole."
    )


def _of_aims(found: Sequence[Evaluated], updates: Sequence[Update]) -> Iterator[str]:
    noise, pairs = noise_between_seeds(updates)
    yield "## What was aimed at"
    rows = []
    for one in found:
        if not one.scores:
            rows.append(f"| {one.situation.name} | - | - | - | - | too few updates |")
            continue
        ours = one.scores[0]
        # A returning user may be as good as the last run of the same update with another seed.
        aim = one.situation.aim
        if one.situation.hold_out == "time" and not math.isnan(noise):
            aim = max(aim, _SEEDS_AIM * noise)
        verdicts = [
            _met("epochs", ours.values["epochs_error"][0] <= aim),
            _met("accuracy", ours.values["accuracy_error"][0] <= _ACCURACY_AIM),
            _met("coverage", _covers(ours)),
            _met("width", _narrow(one.scores)),
            _met("pinball", _least(one.scores, "pinball")),
            _met("Brier", bool(one.reaching) and _least(one.reaching, "brier")),
        ]
        rows.append(
            f"| {one.situation.name} | {ours.updates} | {_told(ours, 'epochs_error', 'percent')} "
            f"| {aim:.0%} | {_told(ours, 'accuracy_error', 'number')} | {', '.join(verdicts)} |"
        )
    yield "\n".join(
        [
            "| foretold for | updates | error of the epochs | aim | error of the accuracy | met |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    yield (
        "*epochs*: the median error is at most the aim. *accuracy*: the mean absolute error of the "
        f"peak accuracy is at most {_ACCURACY_AIM}. *coverage*: at least {_COVERAGE_AIM:.0%} of "
        "the 90 % intervals hold the truth, and 90 % lies within the interval of that share. "
        f"*width*: at most {_WIDTH_AIM} of the narrowest method that covers {_FAIR_COVERAGE:.0%}. "
        "*pinball*, *Brier*: lower than that of every other method. What was missed is struck "
        "through."
    )
    yield (
        f"The same update with another seed takes {noise:.0%} more or fewer epochs, in the median "
        f"of {pairs} pairs: nobody who does not know the seed can be expected to do better."
        if pairs
        else "No update was made twice, so that the noise between seeds is not known."
    )


def _met(word: str, met: bool) -> str:
    return word if met else f"~~{word}~~"


def _covers(score: Score) -> bool:
    found = [score.values[name] for name in ("epochs_coverage", "accuracy_coverage")]
    return all(value >= _COVERAGE_AIM and low <= LEVEL <= high for value, low, high in found)


def _narrow(scores: Sequence[Score]) -> bool:
    fair = [
        score.values["epochs_width"][0]
        for score in scores[1:]
        if score.values["epochs_coverage"][0] >= _FAIR_COVERAGE
    ]
    return not fair or scores[0].values["epochs_width"][0] <= _WIDTH_AIM * min(fair)


def _least(scores: Sequence[Score], name: str) -> bool:
    return all(scores[0].values[name][0] < score.values[name][0] for score in scores[1:])


def _of_situation(one: Evaluated) -> Iterator[str]:
    yield f"## {one.situation.name[0].upper()}{one.situation.name[1:]}"
    if not one.scores:
        yield "Too few updates for this."
        return
    yield _how(one)
    yield _table(one.scores, _COLUMNS)
    better = [s.method for s in one.scores[1:] if _beats(s, one.scores[0], "pinball")]
    yield (
        f"Better than the forecast by the pinball loss: {', '.join(better)}."
        if better
        else "No other method has a lower pinball loss."
    )


def _how(one: Evaluated) -> str:
    ours = one.scores[0]
    if one.situation.hold_out == "time":
        return (
            f"{ours.groups} users with one network each, whose updates come in the order in which "
            f"they were started; each is foretold from those before it and from the corpus without "
            f"that network, from update {OWN_UPDATES + 1} on: {ours.updates} forecasts."
        )
    what = {"change": "kind of change", "data": "data set", "network": "network"}
    return (
        f"{ours.updates} updates, each foretold without all that share its "
        f"{what[one.situation.hold_out]}, {ours.groups} in turn."
    )


def _beats(other: Score, ours: Score, name: str) -> bool:
    return other.values[name][0] <= ours.values[name][0]


def _table(scores: Sequence[Score], columns: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        f"| method | {' | '.join(title for _, title, _ in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for score in scores:
        cells = [_told(score, name, how) for name, _, how in columns]
        name = f"**{score.method}**" if score.method == OURS else score.method
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(score: Score, name: str, how: str) -> str:
    value, lower, upper = score.values[name]
    if math.isnan(value):
        return "-"
    if how == "percent":
        told = [f"{100 * number:.0f}" for number in (value, lower, upper)]
        return f"{told[0]} %" + ("" if math.isnan(lower) else f" ({told[1]} to {told[2]})")
    if how == "ratio":
        value, lower, upper = (math.exp(number) for number in (value, lower, upper))
    digits = 2 if how == "ratio" or value >= 0.1 else 3
    told = [f"{number:.{digits}f}" for number in (value, lower, upper)]
    return told[0] + ("" if math.isnan(lower) else f" ({told[1]} to {told[2]})")


def _of_probabilities(found: Sequence[Evaluated], figures: Path) -> Iterator[str]:
    yield "## Whether a target is reached"
    several = ", ".join(f"{target.value:g}" for target in ACCURACIES)
    yield (
        f"With the accuracies {several} as targets, where the update does not begin above them: "
        "the Brier score of the probability that the update reaches it before its recipe gives up, "
        "and how well the epochs are foretold that are paid for. Those are all that the recipe "
        "allows where the target is not reached: an update that ended on a plateau below it is "
        "taken to stay there. Their median error says little, because most are of that kind."
    )
    for one in found:
        if not one.reaching:
            continue
        ours = one.reaching[0]
        yield f"### {one.situation.name[0].upper()}{one.situation.name[1:]}"
        yield f"{ours.updates} pairs of an update and a target."
        yield _table(
            one.reaching,
            (
                ("brier", "Brier score", "number"),
                ("pinball", "pinball loss", "number"),
                ("epochs_coverage", "coverage", "percent"),
                ("epochs_width", "width", "ratio"),
                ("rank_correlation", "rank correlation", "number"),
            ),
        )
    yield _calibration_figure(found, figures)


@style()
def _calibration_figure(found: Sequence[Evaluated], figures: Path) -> str:
    figure = blank_figure(4.5, 3.6)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for place, one in enumerate(found):
        points = calibration([row for row in one.foretold if row.target != PLATEAU])
        panel.plot(
            [point.foretold for point in points],
            [point.came for point in points],
            "o-",
            color=COLOURS[place % len(COLOURS)],
            markersize=4,
            linewidth=1,
            label=one.situation.name,
        )
    panel.set_xlabel("probability foretold")
    panel.set_ylabel("share that reached the target")
    panel.legend(fontsize="small")
    path = figures / "calibration.svg"
    save_figure(figure, path)
    return (
        f"![Share of targets that were reached by the probability foretold](forecast/{path.name})\n"
        "\nIn ten bins of the probability; on the line it says what comes."
    )


def _of_set_aside(
    updates: Sequence[Update], asked: Sequence[Update], each: Callable[[str], None]
) -> Iterator[str]:
    yield "## What was set aside"
    yield (
        "All updates of one network, of one data set and of one kind of shift were named "
        "before the first run, and were opened once, after all choices had been made. One "
        "choice was changed after that, for reasons that lay elsewhere: the peak accuracy is "
        "read off the learning curves, and the epochs allowed are no predictor any more "
        "([decision 13](decisions/0013-how-a-forecast-is-made.md)). The numbers here are "
        "those after the change, and so no longer of updates that nobody had looked at (those "
        "are in decision 13). Each is foretold from the rest of the corpus, which has none of "
        "them."
    )
    by_name = {situation.name: situation for situation in SITUATIONS}
    for word, title, name in (
        ("network", "The network set aside", "a network never seen"),
        ("network", "The same, of a user who returns", "a returning user"),
        ("data", "The data set aside", "a data set never seen"),
        ("shift", "The kind of shift set aside", "a kind of shift never seen"),
    ):
        of = [update for update in asked if update.labels["held_out"] == word]
        (one,) = evaluated(updates, asked=of, situations=[by_name[name]], each=each)
        if one.scores:
            yield f"### {title}: {one.scores[0].updates} updates"
            yield _table(one.scores, _COLUMNS)


def _of_expense(updates: Sequence[Update]) -> Iterator[str]:
    yield "## What a forecast costs"
    rows = expenses(updates)
    yield (
        "Seconds of the pre-flight and of the forecast from it, over those of the update; median. "
        "The updates of the corpus are small, which makes this share large: a pre-flight looks at "
        "some hundred examples and tries 25 steps whatever the update is."
    )
    yield "\n".join(
        [
            "| updates of | updates | forecast / update | with a saved profile of the old data |",
            "|---|---|---|---|",
            *(
                f"| {row.name} | {row.updates} | {_percent(row.share)} "
                f"| {_percent(row.with_profile)} |"
                for row in rows
            ),
        ]
    )
    error, several = time_oracle(updates)
    yield (
        f"An oracle that knows the epochs, and multiplies them by what the probe measured, misses "
        f"the seconds of {several} updates by {error:.0%} in the median. No forecast of seconds or "
        "energy can be better than that but by chance."
    )


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}".replace("%", " %")


def _of_reading() -> Iterator[str]:
    yield "## How to read the tables"
    yield (
        "*Error of the epochs*: median of |forecast / truth - 1| of the epochs that are paid for. "
        "*Coverage*: share of the 90 % intervals that hold the truth. *Width*: upper over lower "
        "bound, geometric mean. *Pinball loss*: mean over the quantiles 5, 50 and 95 %, of the "
        "logarithm of the epochs. *Error of the accuracy*: mean absolute error of the peak "
        "accuracy. The other methods are straight lines on one predictor, a line of its own for "
        "each place where training starts, with and without old data to compare with; "
        "*best single rival* takes the predictor that did best on the known updates."
    )
