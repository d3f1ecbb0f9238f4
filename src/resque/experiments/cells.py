"""One cell of an experiment: what a network knows, what it is to know, and the update of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resque.experiments.networks import network
from resque.experiments.shifts import SHIFTS
from resque.experiments.splits import published_split
from resque.experiments.tasks import TaskData, classes_of, task_data
from resque.experiments.text import sentence_network
from resque.forecasting.preflight import preflight
from resque.history.records import Accuracy, Grid, Plateau, Recipe, Start
from resque.history.update import Update
from resque.measure.energy import Meter
from resque.measure.retrain import retrain
from resque.representation.sampling import stratified_sample

HeldOut = Literal["", "network", "data", "shift"]

TARGET = Plateau(patience=5, min_delta=0.002)
# The first epochs may teach nothing that shows, batch normalisation's running means being late.
TARGET_FROM_SCRATCH = Plateau(patience=10, min_delta=0.002)
VALIDATION_EXAMPLES = 300
PREFLIGHT_EXAMPLES = 600
RECIPES: Mapping[str, Recipe] = {
    "gentle": Recipe(learning_rate=1e-4, max_epochs=30, validation_interval=0.5),
    "fast": Recipe(learning_rate=1e-3, max_epochs=20, validation_interval=0.5),
    "scratch": Recipe(learning_rate=1e-3, max_epochs=30, validation_interval=0.5),
    "head only": Recipe(learning_rate=1e-2, max_epochs=20, validation_interval=0.5, frozen="body"),
    "fine-tuned": Recipe(learning_rate=1e-4, max_epochs=8, validation_interval=0.25),
    # As in the published scripts, but for what ends it; for networks of full size on a GPU.
    "published": Recipe(weight_decay=1e-5, max_epochs=250, augmentation="published"),
}
# What the network that is updated was trained with, on so many examples.
_BASE_EXAMPLES = 2000
_BASE = Recipe(learning_rate=1e-3, schedule="cosine", max_epochs=8)
# Without convolutions it takes longer to learn from so few images.
_BASE_OF_VIT = replace(_BASE, max_epochs=20)
_BASE_OF_TEXT = replace(RECIPES["head only"], start="head", max_epochs=6)
# On all old data.
_BASE_OF_FULL_SIZE = replace(RECIPES["published"], schedule="cosine", max_epochs=60)
_BASES = {"vit": _BASE_OF_VIT, "minilm": _BASE_OF_TEXT}
_SPLIT_SEED = 0
_OF_EACH_CLASS = (
    "per_class", "per_class_floor", "per_class_debiased", "contributions", "mixtures",
    "class_counts",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One update to be made, and everything that decides it.

    Attributes:
        network: one of `NETWORKS`, or "minilm" for text.
        size: of the network, "narrow" or "full".
        old: the task that the network knows; one of `TASKS`.
        new: the task that it is to know.
        shift: kind of shift of the new images; "" for none.
        level: place in the levels of the shift, 1 to 5; 0 for none.
        start: where training starts.
        recipe: name in `RECIPES`.
        examples: of the new data, to train on.
        seed: of the sample, the shift and the training.
        held_out: why the cell was set aside in advance: its network, its data, its shift; ""
            for the others.

    Example:
        >>> Cell(network="vit", old="mnist", new="mnist", shift="contrast", level=2).key
        'vit narrow|mnist>mnist|contrast 2|weights fast|400|0'
    """

    network: str
    size: Literal["full", "narrow"] = "narrow"
    old: str
    new: str
    shift: str = ""
    level: int = 0
    start: Start = "weights"
    recipe: str = "fast"
    examples: int = 400
    seed: int = 0
    held_out: HeldOut = ""

    @property
    def key(self) -> str:
        """The cell in one line, by which its update is found again."""
        shift = f"{self.shift} {self.level}" if self.shift else "no shift"
        return (
            f"{self.network} {self.size}|{self.old}>{self.new}|{shift}|"
            f"{self.start} {self.recipe}|{self.examples}|{self.seed}"
        )

    @property
    def kind(self) -> str:
        """What is new: "shift" (the same classes), "extension" (more of them), or "task"."""
        if self.old == self.new:
            return "shift"
        return "extension" if classes_of(self.old) < classes_of(self.new) else "task"

    @property
    def strength(self) -> float:
        """Strength of the shift in its own unit; 0 for none."""
        return SHIFTS[self.shift].levels[self.level - 1] if self.shift else 0.0

    @property
    def base_name(self) -> str:
        """Name of the network that is updated."""
        return f"{self.network} {self.size} {self.old}"

    def labels(self) -> dict[str, str]:
        """Return the cell as labels of its update."""
        told = {name: str(value) for name, value in asdict(self).items()}
        return told | {"cell": self.key, "kind": self.kind, "strength": f"{self.strength:g}"}

    @classmethod
    def of(cls, update: Update) -> Cell:
        """Return the cell that an update was made of."""
        values: dict[str, Any] = {field.name: update.labels[field.name] for field in fields(cls)}
        values |= {name: int(values[name]) for name in ("level", "examples", "seed")}
        return cls(**values)


def update_of(
    cell: Cell,
    folder: Path,
    *,
    meter: Meter | str = "none",
    grid: Grid | None = None,
    concurrency: int = 1,
    device: str = "cpu",
) -> Update:
    """Return the measured update of a cell, its pre-flight in it.

    Old data are 70 % of the training data and new ones 50 %, as published (`published_split`);
    validation is on the test data, shifted likewise.

    Args:
        cell: what to do.
        folder: of the weights of the networks that are updated; what is not there is trained.
        meter: see `open_meter`.
        grid: what a kilowatt-hour costs in carbon.
        concurrency: updates that run on this machine at the same time.
        device: to train on.

    Raises:
        InputError: the data are not there.
        MissingExtraError: a library of the networks is not installed.
    """
    old, new = task_data(cell.old), task_data(cell.new)
    model = base(cell, folder, device=device)
    shift = cell.kind == "shift"
    _, new_places = published_split(new.training[1], seed=_SPLIT_SEED)
    chosen = _drawn(new.training[1], cell.examples, cell.seed, new_places)
    held = _drawn(new.test[1], VALIDATION_EXAMPLES, _SPLIT_SEED)
    training = _inputs(new, new.training, chosen, cell, seed=2 * cell.seed), new.training[1][chosen]
    validation = _inputs(new, new.test, held, cell, seed=2 * cell.seed + 1), new.test[1][held]
    before = None
    if shift:
        # Not those that the network was trained on: its accuracy on them says nothing.
        unseen = np.setdiff1d(_old_places(old), _base_places(old))
        kept = _drawn(old.training[1], PREFLIGHT_EXAMPLES, _SPLIT_SEED, unseen)
        before = _inputs(old, old.training, kept), old.training[1][kept]
    recipe = replace(RECIPES[cell.recipe], start=cell.start, seed=cell.seed)
    options: dict[str, Any] = {
        "recipe": recipe,
        "class_names": new.class_names,
        "preprocessing": "tokens of MiniLM" if new.is_text else "2 x (bytes / 255) - 1",
        "model_name": f"{cell.network} {cell.size}",
        "untrained": lambda: _untrained(cell, len(new.class_names), seed=recipe.seed),
        "meter": meter,
        "progress": False,
    }
    known = preflight(
        model,
        training,
        before=before,
        validation=validation,
        most_examples=PREFLIGHT_EXAMPLES,
        **options,
    )
    return retrain(
        model,
        training,
        validation,
        target=TARGET_FROM_SCRATCH if cell.start == "scratch" else TARGET,
        grid=grid,
        concurrency=concurrency,
        preflight=_short(known.to_dict()),
        labels=cell.labels(),
        **options,
    ).update


def _short(known: dict[str, Any]) -> dict[str, Any]:
    """Return a pre-flight without what says something of each class: it is most of its size."""
    for index in ("shift", "task"):
        if known[index] is not None:
            known[index] = {
                key: value for key, value in known[index].items() if key not in _OF_EACH_CLASS
            }
    return known


def base(cell: Cell, folder: Path, *, device: str = "cpu") -> nn.Module:
    """Return the network of a cell as it is before the update, trained on the old data.

    Args:
        cell: which network, and what it knows.
        folder: its weights are looked for there, and left there.
        device: to train on.
    """
    from safetensors.torch import load_file

    old = task_data(cell.old)
    classes = len(old.class_names)
    model = _untrained(cell, classes, seed=_SPLIT_SEED).to(device)
    path = folder / f"{cell.base_name.replace(' ', '_')}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path, device=device))
        return model.eval()
    labels = old.training[1]
    is_full = cell.size == "full" and not old.is_text
    examples = len(labels) if is_full else _BASE_EXAMPLES
    chosen = _drawn(labels, examples, _SPLIT_SEED, _old_places(old))
    held = _drawn(old.test[1], VALIDATION_EXAMPLES, _SPLIT_SEED)
    result = retrain(
        model,
        (_inputs(old, old.training, chosen), labels[chosen]),
        (_inputs(old, old.test, held), old.test[1][held]),
        target=Accuracy(1.0),
        recipe=_BASE_OF_FULL_SIZE if is_full else _BASES.get(cell.network, _BASE),
        class_names=old.class_names,
        meter="none",
        progress=False,
    )
    result.save_weights(path)
    return result.model


def _untrained(cell: Cell, classes: int, *, seed: int) -> nn.Module:
    if cell.network == "minilm":
        return sentence_network(classes, seed=seed)
    return network(cell.network, classes, size=cell.size, seed=seed)


def _old_places(data: TaskData) -> np.ndarray:
    return published_split(data.training[1], seed=_SPLIT_SEED)[0]


def _base_places(data: TaskData) -> np.ndarray:
    return _drawn(data.training[1], _BASE_EXAMPLES, _SPLIT_SEED, _old_places(data))


def _drawn(labels: np.ndarray, n: int, seed: int, places: np.ndarray | None = None) -> np.ndarray:
    """Return the places of n examples, or of all where there are fewer, each class with its share.

    Args:
        labels: (examples,) of all.
        n: how many.
        seed: which.
        places: those to draw from; None for all.
    """
    places = np.arange(len(labels)) if places is None else places
    chosen = stratified_sample(labels[places], min(n, len(places)), seed=seed)
    return np.asarray(places[chosen])


def _inputs(
    data: TaskData,
    side: tuple[np.ndarray, np.ndarray],
    places: np.ndarray,
    cell: Cell | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Return the chosen inputs as the network takes them, shifted as the cell says."""
    chosen = torch.from_numpy(side[0][places])
    if data.is_text:
        return chosen
    images = chosen.float() / 255
    if cell is not None and cell.shift:
        images = SHIFTS[cell.shift].apply(images, cell.strength, seed=seed)
    return 2 * images - 1
