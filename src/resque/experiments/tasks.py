"""What a network may know or be taught: data sets, parts of them, and several together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from resque.errors import InputError, nearest
from resque.experiments.datasets import DATASETS, ImageSet, dataset
from resque.experiments.text import tokens

_VEHICLES = ("airplane", "automobile", "ship", "truck")
_ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
# Each part is a data set, with some of its classes or all. "digits and traffic signs", to which
# vehicles come later, is the example that the paper's authors give.
PARTS: Mapping[str, tuple[tuple[str, tuple[str, ...] | None], ...]] = {
    "vehicles": (("cifar10", _VEHICLES),),
    "vehicles_animals": (("cifar10", (*_VEHICLES, *_ANIMALS)),),
    "digits_signs": (("mnist", None), ("gtsrb", None)),
    "digits_signs_vehicles": (("mnist", None), ("gtsrb", None), ("cifar10", _VEHICLES)),
    "digits_letters": (("mnist", None), ("emnist_letters", tuple("ABCDEFGHIJ"))),
    "digits_clothes": (("mnist", None), ("fashion_mnist", None)),
}
TASKS = (*DATASETS, *PARTS)


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """The examples of a task.

    Attributes:
        class_names: name of each label; where several data sets make a task, with theirs before.
        training: (inputs (examples, ...), labels (examples,) int64). Images are bytes
            (examples, 3, 32, 32), texts are tokens (examples, 40).
        test: likewise.
        is_text: whether the inputs are tokens.
    """

    class_names: tuple[str, ...]
    training: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    is_text: bool


@lru_cache(maxsize=8)
def task_data(name: str) -> TaskData:
    """Return the data of a task: a data set by its name, or parts of several.

    Args:
        name: one of `TASKS`.

    Raises:
        InputError: there is no such task, or its data are not there.
    """
    if name not in TASKS:
        raise InputError(f"There is no task {name!r}.{nearest(name, TASKS)}")
    if name not in PARTS:
        return _whole(name)
    names: list[str] = []
    sides: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {
        "training": ([], []),
        "test": ([], []),
    }
    for source, wanted in PARTS[name]:
        data = _whole(source)
        chosen = wanted or data.class_names
        places = [data.class_names.index(label) for label in chosen]
        number = np.full(len(data.class_names), -1)
        number[places] = np.arange(len(places)) + len(names)
        names += [f"{source}: {label}" for label in chosen]
        for side, (inputs, labels) in sides.items():
            x, y = getattr(data, side)
            kept = np.isin(y, places)
            inputs.append(x[kept])
            labels.append(number[y[kept]])
    joined = {
        side: (np.concatenate(inputs), np.concatenate(labels))
        for side, (inputs, labels) in sides.items()
    }
    return TaskData(tuple(names), joined["training"], joined["test"], is_text=False)


def classes_of(name: str) -> frozenset[str]:
    """Return the classes of a task, each with the name of its data set before it, without reading.

    Classes of a whole data set are told by "data set: *".

    Args:
        name: one of `TASKS`.

    Example:
        >>> classes_of("digits_signs") < classes_of("digits_signs_vehicles")
        True
    """
    return frozenset(
        f"{source}: {label}"
        for source, wanted in PARTS.get(name, ((name, None),))
        for label in wanted or ("*",)
    )


def sources_of(name: str) -> frozenset[str]:
    """Return the data sets that a task is made of.

    Args:
        name: one of `TASKS`.

    Example:
        >>> sorted(sources_of("digits_signs"))
        ['gtsrb', 'mnist']
    """
    return frozenset(source for source, _ in PARTS.get(name, ((name, None),)))


def _whole(name: str) -> TaskData:
    data = dataset(name)
    if isinstance(data, ImageSet):
        inputs = data.images, data.test_images
    else:
        inputs = tokens(data.texts), tokens(data.test_texts)
    return TaskData(
        data.class_names,
        (inputs[0], data.labels),
        (inputs[1], data.test_labels),
        is_text=not isinstance(data, ImageSet),
    )
