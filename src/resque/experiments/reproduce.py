"""The paper's figures and tables, each made anew from updates that are run and recorded here.

Sangarya and Kim, "RESQUE: Quantifying Estimator to Task and Distribution Shift for Sustainable
Model Reusability", arXiv:2412.15511. What is different here: validation data decide when training
ends, images are clipped after noise, and data sets are subsets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Literal

from resque.errors import InputError, missing_extra, nearest
from resque.experiments.cells import Cell, settings_of
from resque.experiments.correlation import Interval
from resque.experiments.designs import corpus_design
from resque.experiments.networks import Size
from resque.experiments.paper_claims import (
    PEAK,
    Claim,
    Row,
    cost_claims,
    index_claims,
    learnt,
    pairs_of,
    rows_of,
    summary,
)
from resque.experiments.paper_figures import bars, intervals, saved, scatter
from resque.experiments.runs import done, run
from resque.experiments.situations import CLAIMED, LEVEL
from resque.experiments.tasks import task_data
from resque.files import written_whole
from resque.history.records import Grid
from resque.history.store import History
from resque.history.table import table_of
from resque.history.update import Update
from resque.measure.energy import Meter

HISTORY, BASES, PAGE = "history.db", "bases", "reproduction.md"
PRESET = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """How large a reproduction is.

    Attributes:
        networks: that are updated for shifted images, a ViT among them.
        task_networks: that are updated for new tasks; all of `networks` where there are none.
        size: of the networks.
        device: to train on.
        data: sets whose images are shifted.
        shifts: kinds of noise.
        levels: of each.
        scratch_shifts: those under which the update is made from scratch too.
        scratch_levels: and at which levels.
        tasks: what a network knows, and what it is to know.
        scratch_tasks: what is learnt from scratch too.
        examples: of the new data, to train on.
        shift_recipe: of an update for shifted images.
        task_recipe: of one for a new task.
        scratch_recipe: of one from scratch.
        seeds: of the updates for tasks.
    """

    networks: tuple[str, ...]
    task_networks: tuple[str, ...] = ()
    size: Size = "narrow"
    device: str = "cpu"
    data: tuple[str, ...]
    shifts: tuple[str, ...] = ("gaussian_noise", "salt_and_pepper", "gaussian_blur")
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    scratch_shifts: tuple[str, ...] = ("gaussian_noise", "salt_and_pepper", "gaussian_blur")
    scratch_levels: tuple[int, ...]
    tasks: tuple[tuple[str, str], ...]
    scratch_tasks: tuple[str, ...]
    examples: int
    shift_recipe: str
    task_recipe: str
    scratch_recipe: str
    seeds: tuple[int, ...] = (0,)


def _every_task(olds: Sequence[str], news: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((old, new) for old, new in product(olds, news) if old != new)


_TARGETS = (
    "mnist", "emnist_letters", "fashion_mnist", "gtsrb", "cifar10", "cifar100_coarse_mini",
)  # fmt: skip
# What the corpus holds out (see `designs`) is left out here as well: it is looked at once.
PRESETS: Mapping[str, Preset] = {
    # The fewest updates that every figure can be drawn from, of networks that know one data set:
    # most of the time goes into what the ViT knows, which serves the comparison under noise.
    "smoke": Preset(
        networks=("vgg16", "vit"),
        task_networks=("vgg16",),
        data=("mnist",),
        shifts=("gaussian_noise",),
        levels=(1, 3, 5),
        scratch_shifts=("gaussian_noise",),
        scratch_levels=(5,),
        tasks=_every_task(("mnist",), ("fashion_mnist", "vehicles", "emnist_letters")),
        scratch_tasks=("fashion_mnist",),
        examples=96,
        shift_recipe="fast",
        task_recipe="fast",
        scratch_recipe="scratch",
    ),
    "cpu": Preset(
        networks=("vgg16", "vit"),
        data=("fashion_mnist", "cifar10"),
        scratch_levels=(4,),
        tasks=_every_task(("fashion_mnist", "cifar10"), _TARGETS),
        scratch_tasks=_TARGETS,
        examples=300,
        shift_recipe="gentle",
        task_recipe="fast",
        scratch_recipe="scratch",
    ),
    "gpu": Preset(
        networks=("vgg16", "resnet18", "googlenet", "mobilenet_v2", "vit"),
        size="full",
        device="cuda",
        data=("cifar10", "cifar100_coarse_mini"),
        scratch_levels=(1, 3, 5),
        tasks=_every_task(("cifar10", "fashion_mnist"), _TARGETS),
        scratch_tasks=_TARGETS,
        examples=4000,
        shift_recipe="published",
        task_recipe="published",
        scratch_recipe="published",
        seeds=(0, 1),
    ),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One figure or table of the paper.

    Attributes:
        title: of the figure.
        about: "noise" or "tasks".
        shows: "costs" (retraining against from scratch), "measures" or "table" (the index
            against each measure), or "accuracy" (the index against the peak accuracy).
    """

    title: str
    about: Literal["noise", "tasks"]
    shows: Literal["costs", "measures", "table", "accuracy"]

    @property
    def index(self) -> str:
        """The index that it is about."""
        return "RESQUE_dist" if self.about == "noise" else "RESQUE_task"


PARTS: Mapping[str, Part] = {
    "scratch-noise": Part("Retraining and training from scratch under noise", "noise", "costs"),
    "measures-noise": Part("RESQUE_dist and what an update under noise costs", "noise", "measures"),
    "scratch-tasks": Part("Retraining and training from scratch for new tasks", "tasks", "costs"),
    "measures-tasks": Part("RESQUE_task and what a new task costs", "tasks", "measures"),
    "accuracy-tasks": Part("RESQUE_task and the accuracy reached", "tasks", "accuracy"),
    "table-noise": Part("RESQUE_dist and each measure, by network and data", "noise", "table"),
    "table-tasks": Part("RESQUE_task and each measure, by network and data", "tasks", "table"),
}
ALL, CORPUS = "all", "corpus"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One figure or table, reproduced.

    Attributes:
        name: one of `PARTS`.
        title: of the figure.
        sentence: how many claims held.
        claims: one per measure.
        rows: of the table; empty for a figure.
        files: that were written.
    """

    name: str
    title: str
    sentence: str
    claims: tuple[Claim, ...]
    rows: tuple[Row, ...]
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return {
            "name": self.name,
            "title": self.title,
            "sentence": self.sentence,
            "claims": [claim.to_dict() for claim in self.claims],
            "rows": [row.to_dict() for row in self.rows],
            "files": list(self.files),
        }

    def __str__(self) -> str:
        return "\n".join([f"{self.title}: {self.sentence}", *(c.sentence for c in self.claims)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """What `reproduce` returns.

    Attributes:
        preset: its name.
        results: one per figure or table that was asked for.
        updates: behind them.
        made: of these, that were made now.
        folder: where the files are.
    """

    preset: str
    results: tuple[Result, ...]
    updates: int
    made: int
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """Return the reproduction as plain JSON types."""
        return {
            "preset": self.preset,
            "folder": self.folder,
            "updates": self.updates,
            "made": self.made,
            "results": [result.to_dict() for result in self.results],
        }

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.results))


# --- which updates -----------------------------------------------------------------------------


def cells_of(name: str, preset: str) -> tuple[Cell, ...]:
    """Return the updates behind a figure or table; several share most of theirs.

    Args:
        name: one of `PARTS`, or "all".
        preset: one of `PRESETS`.

    Raises:
        InputError: there is no such figure or preset.

    Example:
        >>> len(cells_of("measures-noise", "smoke")), len(cells_of("all", "smoke"))
        (6, 12)
    """
    if name == ALL:
        return tuple(dict.fromkeys(cell for part in PARTS for cell in cells_of(part, preset)))
    part, wanted = PARTS[one_of(name, (*PARTS, ALL), "figure or table")], preset_named(preset)
    cells = list(_under_noise(wanted) if part.about == "noise" else _new_tasks(wanted))
    if part.shows != "costs":
        return tuple(cells)
    retrained = [cell for cell in cells if _is_compared(cell, wanted)]
    scratch: dict[tuple[str, ...], Cell] = {}
    for cell in retrained:
        fresh = replace(cell, start="scratch", recipe=wanted.scratch_recipe)
        scratch.setdefault(learnt(cell), fresh)
    return (*retrained, *scratch.values())


def preset_named(name: str) -> Preset:
    """Return a preset.

    Args:
        name: one of `PRESETS`.

    Raises:
        InputError: there is none of this name.
    """
    return PRESETS[one_of(name, PRESETS, "preset")]


def one_of(name: str, names: Iterable[str], what: str) -> str:
    """Return a name that is one of the names of something.

    Args:
        name: to look for.
        names: all there are.
        what: they are names of.

    Raises:
        InputError: it is none of them; with the nearest ones.
    """
    if name not in names:
        raise InputError(
            f"There is no {what} {name!r}; expected {', '.join(names)}.{nearest(name, names)}"
        )
    return name


def _under_noise(preset: Preset) -> Iterator[Cell]:
    combinations = product(preset.networks, preset.data, preset.shifts, preset.levels)
    for network, data, shift, level in combinations:
        yield Cell(
            network=network, size=preset.size, old=data, new=data, shift=shift, level=level,
            recipe=preset.shift_recipe, examples=preset.examples,
        )  # fmt: skip


def _new_tasks(preset: Preset) -> Iterator[Cell]:
    networks = preset.task_networks or preset.networks
    for network, (old, new), seed in product(networks, preset.tasks, preset.seeds):
        yield Cell(
            network=network, size=preset.size, old=old, new=new, start="head",
            recipe=preset.task_recipe, examples=preset.examples, seed=seed,
        )  # fmt: skip


def _is_compared(cell: Cell, preset: Preset) -> bool:
    if cell.shift:
        return cell.shift in preset.scratch_shifts and cell.level in preset.scratch_levels
    return cell.new in preset.scratch_tasks


# --- the reproduction --------------------------------------------------------------------------


def reproduce(
    name: str,
    *,
    preset: str = PRESET,
    folder: Path | str = "resque-reproduction",
    meter: Meter | str = "codecarbon",
    grid: Grid | None = None,
    progress: bool = True,
) -> Reproduction:
    """Run the updates behind a figure or table that are not there yet, draw it and judge it.

    In the folder: `history.db`, every update (a `History`); `bases`, the networks that are
    updated; for each figure or table NAME.svg, NAME.png and NAME.csv, the data behind it with
    one row per update; `reproduction.md`, all that the history has the updates for. Updates are
    made one at a time, since a meter reads the whole machine; what the history has is not made
    again.

    A claim that the index and a measure go together is *held* when the lower bound of the 90 %
    interval of their rank correlation is at least 0.5, *partly* when it is above 0, else *not*.
    The correlation is that within one network that knows one data set, averaged over these; the
    interval draws groups of updates that differ in level and seed alone. A claim that retraining
    costs less to the same accuracy, 99 % of the lower of both peaks, is *held* when the whole
    interval of the mean ratio, retrained over from scratch, is below 1, *partly* when the mean
    is, else *not*. Where energy was modelled, or there is no
    number, a claim is *not tested*.

    The trap: with the few updates of "smoke" a verdict says nothing but that all of it works.

    Args:
        name: one of `PARTS`, or "all".
        preset: "smoke" (minutes), "cpu" (two hours on two cores) or "gpu".
        folder: where all of it goes; made if it is not there.
        meter: see `open_meter`.
        grid: what a kilowatt-hour costs in carbon; with another one than before, all updates
            are costed again.
        progress: show a progress bar on stderr where that is a terminal.

    Raises:
        InputError: there is no such figure or preset, the folder is a file, the data sets are
            not there, or the preset needs a GPU and there is none.
        MissingExtraError: a library of the networks or of the figures is not installed.
    """
    cells, device = cells_of(name, preset), preset_named(preset).device
    folder, history = _prepared(folder)
    made = _made(cells, history, folder, meter=meter, grid=grid, device=device, progress=progress)
    recorded = _recorded(history, grid)
    wanted = [name] if name != ALL else list(PARTS)
    results = [
        _result(part, [recorded[cell.key] for cell in needed], folder)
        for part in PARTS
        if (needed := cells_of(part, preset)) and all(cell.key in recorded for cell in needed)
    ]
    _write_page(folder / PAGE, preset, results)
    return Reproduction(
        preset=preset,
        results=tuple(result for result in results if result.name in wanted),
        updates=len(cells),
        made=made,
        folder=str(folder),
    )


def make_corpus(
    folder: Path | str = "resque-reproduction",
    *,
    workers: int = 1,
    meter: Meter | str = "none",
    grid: Grid | None = None,
    progress: bool = True,
) -> tuple[int, int]:
    """Run the updates of the corpus that are not there yet.

    Args:
        folder: see `reproduce`.
        workers: updates made at the same time; with more than one, energy is not metered.
        meter: see `open_meter`.
        grid: what a kilowatt-hour costs in carbon.
        progress: show a progress bar on stderr where that is a terminal.

    Returns:
        How many updates the corpus has, and how many of them were made now.

    Raises:
        InputError: the folder is a file, the data sets are not there, or several workers were
            asked to meter.
        MissingExtraError: a library of the networks is not installed.
    """
    folder, history = _prepared(folder)
    cells = corpus_design()
    made = _made(cells, history, folder, workers=workers, meter=meter, grid=grid, progress=progress)
    return len(cells), made


def _prepared(folder: Path | str) -> tuple[Path, History]:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{str(folder)!r} is a file; expected a folder for the updates and figures. Name "
            "another one."
        )
    for package, extra in (("matplotlib", "report"), ("timm", "vision"), ("torchvision", "vision")):
        if find_spec(package) is None:
            raise missing_extra(package, extra)
    return folder, History(f"sqlite:///{folder / HISTORY}")


def _made(
    cells: Sequence[Cell],
    history: History,
    folder: Path,
    *,
    workers: int = 1,
    meter: Meter | str,
    grid: Grid | None,
    device: str = "cpu",
    progress: bool,
) -> int:
    there = done(history) if history.exists else set()
    missing = [cell for cell in cells if (cell.key, settings_of(cell)) not in there]
    # Hours later would be late to hear that a file is not there.
    for task in dict.fromkeys(task for cell in missing for task in (cell.old, cell.new)):
        task_data(task)
    if missing and device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "This preset trains on a CUDA device, and torch finds none. Use preset 'cpu' "
                "(--preset cpu), or run it on another machine."
            )
    folder.mkdir(parents=True, exist_ok=True)
    return run(
        cells, history, folder / BASES, workers=workers, meter=meter, grid=grid, device=device,
        progress=progress,
    )  # fmt: skip


def _recorded(history: History, grid: Grid | None) -> dict[str, Update]:
    """Return the updates of a history by their cell, costed for one grid."""
    found: dict[str, Update] = {}
    for update in history:
        # One that was made with other settings is another one.
        if "cell" in update.labels and update.labels["settings"] == settings_of(Cell.of(update)):
            costed = update if grid is None else replace(update, grid=grid)
            found.setdefault(update.labels["cell"], costed)
    grids = {str(update.grid) for update in found.values() if update.grid is not None}
    if len(grids) > 1:
        raise InputError(
            f"The updates in {history.url} were costed for different grids: "
            f"{'; '.join(sorted(grids))}. Say for which one to cost all of them (--grid)."
        )
    return found


def _result(name: str, updates: Sequence[Update], folder: Path) -> Result:
    part, table = PARTS[name], table_of(updates)
    table[PEAK.column] = 1 - table["peak_accuracy"].astype(float)
    with written_whole(folder / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    rows: tuple[Row, ...] = ()
    if part.shows == "costs":
        pairs = pairs_of(updates)
        claims, sentence = cost_claims(pairs)
        by = ("label:network", "label:shift") if part.about == "noise" else ("label:new",)
        figure = bars(pairs, by, title=part.title)
    else:
        measures = (PEAK,) if part.shows == "accuracy" else CLAIMED
        claims = index_claims(table, part.index, measures)
        sentence = summary(claims)
        if part.shows == "table":
            rows = rows_of(table, part.index)
            figure = intervals(rows, title=part.title)
        else:
            figure = scatter(table, part.index, measures, title=part.title)
    figures = saved(figure, folder, name)
    return Result(
        name=name, title=part.title, sentence=sentence, claims=claims, rows=rows,
        files=(*figures, f"{name}.csv"),
    )  # fmt: skip


# --- the page ----------------------------------------------------------------------------------

_LEGEND = f"""\
Made by `resque reproduce` from the updates in `{HISTORY}`. That the index and a measure go
together is *held* when the lower bound of the {100 * LEVEL:g} % interval of their rank correlation
is at least 0.5, *partly held* when it is above 0, else *not held*. That retraining costs less than
training from scratch is *held* when the whole interval of the mean ratio, of costs to the same
accuracy, is below 1, *partly held* when the mean is, else *not held*. Modelled energy tests
nothing; time stands for it.
"""


def _write_page(path: Path, preset: str, results: Sequence[Result]) -> None:
    parts = [f"# Reproduction, preset {preset}\n", _LEGEND]
    for result in results:
        parts.append(f"## {result.title}\n\n{result.sentence}\n")
        parts.append(f"![{result.title}]({result.name}.png)\n")
        parts.append("\n".join(f"- {claim.sentence}" for claim in result.claims) + "\n")
        if result.rows:
            parts.append(_as_markdown(result.rows))
        links = ", ".join(f"[{name}]({name})" for name in result.files)
        parts.append(f"Files: {links}\n")
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def _as_markdown(rows: Sequence[Row]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row.correlations))
    lines = [
        f"| network | data | n | censored | {' | '.join(titles)} |",
        "|---" * (4 + len(titles)) + "|",
    ]
    for row in rows:
        cells = [_in_cell(row.correlations.get(title)) for title in titles]
        lines.append(
            f"| {row.network} | {row.data} | {row.updates} | {row.censored} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _in_cell(found: Interval | None) -> str:
    if found is None or math.isnan(found.value):
        return "none"
    if math.isnan(found.lower):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.lower:.2f} to {found.upper:.2f})"
