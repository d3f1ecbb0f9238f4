"""One cell of an experiment: what a network knows, what it is to know, and the update of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resque.errors import InputError, in_words, nearest
from resque.experiments.networks import NETWORKS, network
from resque.experiments.shifts import SHIFTS
from resque.experiments.splits import published_split
from resque.experiments.tasks import TASKS, TaskData, classes_of, task_data
from resque.experiments.text import sentence_network
from resque.forecasting.preflight import preflight
from resque.history.records import (
    Accuracy,
    Grid,
    Plateau,
    Recipe,
    Start,
    fields_of,
    target_to_dict,
)
from resque.history.update import Update
from resque.measure.energy import Meter
from resque.measure.retrain import retrain
from resque.representation.sampling import stratified_sample

HeldOut = Literal["", "network", "data", "shift"]

TARGET = Plateau(patience=5, min_delta=0.002)
# The first epochs may teach nothing that shows, batch normalisation's running means being late.
TARGET_FROM_SCRATCH = Plateau(patience=10, min_delta=0.002)
# Of the test data: to validate the update; to choose the best weights of the network before it; and
# to test the update's own best weights, which are best on the first by choice.
VALIDATION_EXAMPLES, BASE_VALIDATION_EXAMPLES, TEST_EXAMPLES = 300, 200, 500
# Old examples that the network was not trained on, to compare the new ones with.
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

    def __post_init__(self) -> None:
        known: dict[str, tuple[str, ...]] = {
            "network": (*NETWORKS, "minilm"),
            "old": TASKS,
            "new": TASKS,
            "shift": ("", *SHIFTS),
            "recipe": tuple(RECIPES),
        }
        for name, allowed in known.items():
            given = getattr(self, name)
            if given not in allowed:
                raise InputError(f"A cell has no {name} {given!r}.{nearest(given, allowed)}")
        levels = range(1, len(SHIFTS[self.shift].levels) + 1) if self.shift else range(1)
        if self.level not in levels:
            raise InputError(
                f"The level of {self.shift or 'no shift'!r} must be {levels[0]} to {levels[-1]}; "
                f"got {self.level}."
            )

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
        return told | {
            "cell": self.key,
            "kind": self.kind,
            "strength": f"{self.strength:g}",
            "settings": settings_of(self),
        }

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

    Old data are 70 % of the training data and new ones 50 %, as published (`published_split`), less
    those that the network was trained on already. Validation is on test data, shifted likewise;
    the best weights are then tested once on others (label "test_accuracy").

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
    of_base = _base_places(cell, old)
    pool = published_split(new.training[1], seed=_SPLIT_SEED)[1]
    # What the network was trained on is not new to it.
    pool = np.setdiff1d(pool, of_base) if shift else pool
    chosen = _drawn(new.training[1], cell.examples, cell.seed, pool)
    held, _, tested = _test_places(new)
    training = _inputs(new, new.training, chosen, cell, seed=3 * cell.seed), new.training[1][chosen]
    validation = _inputs(new, new.test, held, cell, seed=3 * cell.seed + 1), new.test[1][held]
    before, kept = None, None
    if shift:
        # As many as on the other side: several rivals are biased by the number of examples.
        kept = _drawn(old.training[1], len(chosen), _SPLIT_SEED, _kept_places(old))
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
        ids=chosen,
        before_ids=kept,
        validation=validation,
        most_examples=PREFLIGHT_EXAMPLES,
        **options,
    )
    result = retrain(
        model,
        training,
        validation,
        target=_target(cell),
        grid=grid,
        concurrency=concurrency,
        preflight=_short(known.to_dict()),
        labels=cell.labels(),
        **options,
    )
    test = _inputs(new, new.test, tested, cell, seed=3 * cell.seed + 2), new.test[1][tested]
    accuracy = _accuracy(result.model, *test)
    return replace(result.update, labels=cell.labels() | {"test_accuracy": f"{accuracy:.6g}"})


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    old = task_data(cell.old)
    model = _untrained(cell, len(old.class_names), seed=_SPLIT_SEED).to(device)
    path = (
        folder / f"{cell.base_name.replace(' ', '_')}_{_digest(_base_settings(cell))}.safetensors"
    )
    if path.exists():
        try:
            model.load_state_dict(load_file(path, device=device))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{str(path)!r} cannot be read ({in_words(error)}). Delete it; it is made anew."
            ) from error
        return model.eval()
    labels = old.training[1]
    chosen = _base_places(cell, old)
    _, held, _ = _test_places(old)
    result = retrain(
        model,
        (_inputs(old, old.training, chosen), labels[chosen]),
        (_inputs(old, old.test, held), old.test[1][held]),
        target=Accuracy(1.0),
        recipe=_base_recipe(cell),
        class_names=old.class_names,
        meter="none",
        progress=False,
    )
    result.save_weights(path)
    return result.model


def settings_of(cell: Cell) -> str:
    """Return 8 hex digits that stand for all that decides an update beside its cell."""
    return _digest(
        {
            "base": _base_settings(cell),
            "recipe": fields_of(RECIPES[cell.recipe]),
            "target": target_to_dict(_target(cell)),
            "examples": [VALIDATION_EXAMPLES, TEST_EXAMPLES, PREFLIGHT_EXAMPLES],
            "strength": cell.strength,
        }
    )


def _target(cell: Cell) -> Plateau:
    return TARGET_FROM_SCRATCH if cell.start == "scratch" else TARGET


def _base_settings(cell: Cell) -> dict[str, Any]:
    return {
        "recipe": fields_of(_base_recipe(cell)),
        "examples": [_BASE_EXAMPLES, BASE_VALIDATION_EXAMPLES, PREFLIGHT_EXAMPLES],
        "whole": _knows_all(cell),
    }


def _base_recipe(cell: Cell) -> Recipe:
    return _BASE_OF_FULL_SIZE if _knows_all(cell) else _BASES.get(cell.network, _BASE)


def _knows_all(cell: Cell) -> bool:
    return cell.size == "full" and cell.network != "minilm"


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@torch.no_grad()
def _accuracy(model: nn.Module, inputs: Tensor, labels: np.ndarray) -> float:
    device = next(model.parameters()).device
    parts = torch.split(inputs, 256)
    scores = torch.cat([model(part.to(device)).cpu() for part in parts])
    return float((scores.argmax(1).numpy() == labels).mean())


def _untrained(cell: Cell, classes: int, *, seed: int) -> nn.Module:
    if cell.network == "minilm":
        return sentence_network(classes, seed=seed)
    return network(cell.network, classes, size=cell.size, seed=seed)


def _kept_places(data: TaskData) -> np.ndarray:
    """Return the places of old examples that no network is trained on before an update."""
    old = published_split(data.training[1], seed=_SPLIT_SEED)[0]
    return _drawn(data.training[1], min(PREFLIGHT_EXAMPLES, len(old) // 4), _SPLIT_SEED, old)


def _base_places(cell: Cell, data: TaskData) -> np.ndarray:
    """Return the places of the old examples that a cell's network is trained on before."""
    old = published_split(data.training[1], seed=_SPLIT_SEED)[0]
    left = np.setdiff1d(old, _kept_places(data))
    examples = len(left) if _knows_all(cell) else _BASE_EXAMPLES
    return _drawn(data.training[1], examples, _SPLIT_SEED, left)


def _test_places(data: TaskData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three parts of the test data that share no example; see `VALIDATION_EXAMPLES`."""
    labels = data.test[1]
    parts = []
    left = np.arange(len(labels))
    for examples, share in (
        (VALIDATION_EXAMPLES, 2), (BASE_VALIDATION_EXAMPLES, 4), (TEST_EXAMPLES, 1),
    ):  # fmt: skip
        parts.append(_drawn(labels, min(examples, len(labels) // share), _SPLIT_SEED, left))
        left = np.setdiff1d(left, parts[-1])
    return parts[0], parts[1], parts[2]


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
