"""What users train on: its forms, its order, its sizes, and what is wrong with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from resque import InputError, Recipe
from resque.measure.batches import TrainingData

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(40) % 3
OTHER = X + 10, Y


class Pairs(Dataset[Any]):
    """A data set of the user's own."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.targets = inputs, labels.tolist()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.inputs[place], self.targets[place]


class Folder(Pairs):
    """A data set of files, as torchvision's ImageFolder is one."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(torch.randn(len(names), 6), torch.arange(len(names)) % 3)
        self.samples = list(zip(names, self.targets, strict=True))


def data_of(training: Any, validation: Any = OTHER, **options: Any) -> TrainingData:
    return TrainingData.of(training, validation, Recipe(batch_size=8), **options)


FORMS = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "list of two": [X, Y],
    "TensorDataset": TensorDataset(X, Y),
    "Dataset": Pairs(X, Y),
    "Subset": Subset(Pairs(torch.cat([X, X]), torch.cat([Y, Y])), range(40, 80)),
    "DataLoader": DataLoader(Pairs(X, Y), batch_size=8, shuffle=True),
    "DataLoader of dicts": DataLoader(
        [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)],  # type: ignore[arg-type]
        batch_size=8,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_each_example_once_in_an_epoch(form: str) -> None:
    """Whatever the order, inputs stay with their labels, and sizes are those of the data."""
    data = data_of(FORMS[form])
    assert (40, 40, 8, 5) == (
        data.sizes.training_examples,
        data.sizes.validation_examples,
        data.sizes.batch_size,
        data.sizes.steps_per_epoch,
    )
    with data.undisturbed():
        batches = list(data.epoch(seed=0, number=0))
    rows = torch.cat([i["x"] if isinstance(i, dict) else i for i, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    order = [int((X == row).all(1).nonzero()[0]) for row in rows]
    assert list(range(40)) == sorted(order)
    assert torch.equal(Y[order], labels)


@pytest.mark.parametrize("form", ["tensors", "Dataset", "DataLoader"])
def test_seed_and_epoch_decide_the_order(form: str) -> None:
    """Same seed and epoch, same order; another seed or epoch, another order."""
    data = data_of(FORMS[form])

    def order(seed: int, number: int) -> list[int]:
        torch.rand(3)  # what happened before has no say
        return torch.cat([inputs for inputs, _ in data.epoch(seed, number)])[:, 0].tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


@pytest.mark.parametrize("where", ["loader", "sampler", "batch_sampler"])
def test_generators_of_the_users_own_are_seeded_and_put_back(where: str) -> None:
    """Wherever a loader keeps its generator: a resumed run must find the order of its epoch."""
    own = torch.Generator().manual_seed(5)
    dataset = Pairs(X, Y)
    sampler = RandomSampler(dataset, generator=own)
    loader: DataLoader[Any]
    if where == "loader":
        loader = DataLoader(dataset, batch_size=8, shuffle=True, generator=own)
    elif where == "sampler":
        loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    else:
        loader = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 8, drop_last=False))
    data, before = data_of(loader), own.get_state()
    with data.undisturbed():
        epochs = [torch.cat([i for i, _ in data.epoch(0, 3)]) for _ in range(2)]
    assert torch.equal(*epochs)
    assert torch.equal(before, own.get_state())


def test_an_epoch_seeds_what_transforms_draw_from() -> None:
    """numpy's and Python's global generators, as well as torch's."""
    data = data_of((X, Y))
    drawn = []
    for _ in range(2):
        next(data.epoch(0, 0))
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_a_last_batch_of_one_is_left_out_of_training_only() -> None:
    """Batch normalisation has no variance of one example; validation needs none."""
    odd = X[:33], Y[:33]
    for form in (odd, Pairs(*odd)):
        data = data_of(form, odd)
        assert (32, 33, 4) == (
            data.sizes.training_examples,
            data.sizes.validation_examples,
            data.sizes.steps_per_epoch,
        )
        assert {8} == {len(labels) for _, labels in data.epoch(0, 0)}
        assert 33 == sum(len(labels) for _, labels in data.validated())
    assert 1 == data_of((X[:1], Y[:1]), (X[:1], Y[:1])).sizes.training_examples


def test_samplers_and_batch_samplers_decide_the_sizes() -> None:
    """A subset by sampler counts as the subset, and batches of their own have their mean size."""
    half = DataLoader(Pairs(X, Y), batch_size=8, sampler=SubsetRandomSampler(range(20)))
    assert (20, 3) == (
        data_of(half).sizes.training_examples,
        data_of(half).sizes.steps_per_epoch,
    )
    batched = DataLoader(
        Pairs(X, Y), batch_sampler=BatchSampler(SequentialSampler(X), 10, drop_last=False)
    )
    assert (40, 10, 4) == (
        data_of(batched).sizes.training_examples,
        data_of(batched).sizes.batch_size,
        data_of(batched).sizes.steps_per_epoch,
    )
    dropped = DataLoader(Pairs(X[:39], Y[:39]), batch_size=8, drop_last=True)
    assert 32 == data_of(dropped).sizes.training_examples


def shared(training: Any, validation: Any) -> int:
    notes = data_of(training, validation).notes
    return int(notes[0].split()[0]) if notes else 0


def loader_of(dataset: Any, places: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=8, sampler=SubsetRandomSampler(places))


ONE = Pairs(X, Y)
SIDES = {
    "same arrays": ((X, Y), (X, Y), 40),
    "some rows": ((X, Y), (torch.cat([X[30:], X[:7] + 9]), torch.cat([Y[30:], Y[:7]])), 10),
    "no rows": ((X, Y), OTHER, 0),
    "same object": (ONE, ONE, 40),
    "overlapping subsets": (Subset(ONE, range(30)), Subset(ONE, range(25, 40)), 5),
    "split": (Subset(ONE, range(30)), Subset(ONE, range(30, 40)), 0),
    "subset of the whole": (ONE, Subset(ONE, range(30, 40)), 10),
    "loaders of one data set, split by samplers": (
        loader_of(ONE, range(30)),
        loader_of(ONE, range(30, 40)),
        0,
    ),
    "loaders of one data set, overlapping": (
        loader_of(ONE, range(30)),
        loader_of(ONE, range(28, 40)),
        2,
    ),
    "subsets of equal copies": (
        Subset(TensorDataset(X, Y), range(30)),
        Subset(TensorDataset(X.clone(), Y), range(24, 40)),
        6,
    ),
    "files": (Folder(["a", "b", "c", "d"]), Folder(["x", "d", "b"]), 2),
    "other files": (Folder(["a", "b", "c"]), Folder(["x", "y", "z"]), 0),
}


@pytest.mark.parametrize("sides", SIDES)
def test_validation_examples_that_are_trained_on_are_counted_and_told(sides: str) -> None:
    """However the same example comes to both sides; a clean split is not accused."""
    training, validation, expected = SIDES[sides]
    assert expected == shared(training, validation)


def test_a_list_of_examples_in_a_loader_is_no_pair_of_arrays() -> None:
    """Not even one of two examples, whose first one is no array of inputs."""
    two = [(X[0], 1), (X[1], 0)]
    data = data_of(DataLoader(two, batch_size=2), DataLoader(two, batch_size=2))  # type: ignore[arg-type]
    assert (2, 2) == (data.sizes.training_examples, data.sizes.validation_examples)
    assert (None, None) == data.labels
    assert data.notes[0].startswith("2 of the validation examples")


def test_the_warning_says_how_many_and_what_follows() -> None:
    """The number, and that accuracy then says little."""
    (note,) = data_of((X, Y), (X[:4], Y[:4])).notes
    assert note.startswith("4 of the validation examples are training examples too")


def test_unseen_classes_are_named() -> None:
    """By number and, where there are names, by name."""
    with pytest.raises(InputError, match=r"have 1 class that the training data lack: 5\."):
        data_of((X, Y), (X, Y.where(Y != 2, 5)))
    with pytest.raises(InputError, match="have 1 class that the training data lack: 'dog'"):
        data_of((X, Y % 2), (X + 1, Y), class_names=("cat", "cow", "dog"))


def test_a_label_without_a_name_is_told() -> None:
    """Two names are not enough for three classes."""
    with pytest.raises(InputError, match="Label 2 of example 2 has no name: there are 2"):
        data_of((X, Y), class_names=("cat", "cow"))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (DataLoader(Stream(), batch_size=8), "The training loader has no length"),
        (DataLoader(Pairs(X[:3], Y[:3]), batch_size=8, drop_last=True), "or no batches"),
        ((X[:0], Y[:0]), "The training data hold no examples"),
        (TensorDataset(X[:0], Y[:0]), "The training data hold no examples"),
        (Pairs(X[:0], Y[:0]), "The training data hold no examples"),
        ((X, None), "The training data have no labels"),
        (TensorDataset(X), r"must be a pair \(inputs, labels\); got 1 entries"),
        ([(x, y) for x, y in zip(X, Y, strict=True)], "got 40 entries.*give a DataLoader"),
        (iter([(X, Y)]), "got a list_iterator"),
        ("a/folder", "got a str"),
        ((X, Y.float()), "Labels must be integers; got float32"),
        ((X, Y - 1), "Labels must be 0 or more; got -1 for example 0"),
        ((X, Y[:7]), "7 labels for 40 examples"),
        ((X, torch.nn.functional.one_hot(Y)), r"got shape \(40, 3\)"),
    ],
)
def test_data_that_cannot_be_trained_on_say_why(training: Any, message: str) -> None:
    """What came, and what is wanted."""
    with pytest.raises(InputError, match=message):
        data_of(training)


def test_the_digest_tells_data_apart() -> None:
    """A checkpoint must not go on with other data of the same sizes."""
    same = data_of((X, Y)).digest()
    assert same == data_of((X.clone(), Y.clone())).digest()
    assert same != data_of((X + 1e-3, Y)).digest()
    assert same != data_of((X, Y.roll(1))).digest()
    assert same != data_of((X, Y), (X + 11, Y)).digest()
    assert data_of(Pairs(X, Y)).digest() != data_of(Pairs(X, Y.roll(1))).digest()
