"""Training and validation data as batches: in a seeded order, in memory where they can be."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
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

from resque.errors import InputError
from resque.history.records import DataSizes, Recipe
from resque.representation.labels import checked_labels, named_or_raise
from resque.representation.sources import as_source, source_at, trainable
from resque.representation.stream import split_batch

# Validation needs no memory for gradients, so its batches are larger; results do not depend on it.
_VALIDATION_BATCH = 256
# Comparing every example of larger data would take longer than it is worth.
_MOST_BYTES_COMPARED = 2**30


@dataclass(slots=True, eq=False)
class TrainingData:
    """Training and validation data of one update.

    Attributes:
        training: what `epoch` draws from.
        validation: what `validated` goes through.
        sizes: how much of it there is; `classes` counts those of the training data.
        class_names: name of each label; None where nobody said.
        labels: labels of the training and of the validation data, where they are known before
            the first epoch.
        notes: what to know before quoting a number.
    """

    training: Tensors | DataLoader[Any]
    validation: Tensors | DataLoader[Any]
    sizes: DataSizes
    class_names: tuple[str, ...] | None
    labels: tuple[Tensor | None, Tensor | None]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        training: Any,
        validation: Any,
        recipe: Recipe,
        *,
        class_names: Sequence[str] | None = None,
        workers: int = 0,
    ) -> TrainingData:
        """Return the data in whatever form a user has them.

        Args:
            training: a pair of arrays (inputs (examples, ...), labels (examples,)), a Dataset
                with a length, or a DataLoader, which keeps its own batches and order.
            validation: likewise.
            recipe: its batch size, for data without batches of their own.
            class_names: name of each label.
            workers: processes that load a Dataset.

        Raises:
            InputError: the data are none of these, are empty, have no labels, or the validation
                data have classes that the training data lack.
        """
        names = as_source(training, class_names=class_names).class_names
        shuffled = _batches(training, recipe.batch_size, "training", workers)
        in_order = _batches(
            validation, max(recipe.batch_size, _VALIDATION_BATCH), "validation", workers
        )
        known = labels_of(training), labels_of(validation)
        if _places(validation) is not None:
            _require_seen(*known, names)
        for labels in known:
            if labels is not None and names is not None:
                named_or_raise(labels, names)
        examples = _examples(shuffled)
        # A loader with batches of its own making has no one size of them.
        batch_size = shuffled.batch_size or math.ceil(examples / len(shuffled))
        most = None if known[0] is None else int(known[0].max()) + 1
        sizes = DataSizes(
            training_examples=examples,
            validation_examples=_examples(in_order),
            batch_size=batch_size,
            steps_per_epoch=len(shuffled),
            classes=len(names) if names else (most or 0),
            class_names=names or (),
        )
        return cls(
            training=shuffled,
            validation=in_order,
            sizes=sizes,
            class_names=names,
            labels=known,
            notes=tuple(_shared_note(training, validation)),
        )

    def to(self, device: torch.device) -> None:
        """Keep the data on a GPU where they fit into a quarter of its free memory."""
        if device.type != "cuda":
            return
        free, _ = torch.cuda.mem_get_info(device)
        parts = [part for part in (self.training, self.validation) if isinstance(part, Tensors)]
        if sum(part.inputs.nbytes for part in parts) < free / 4:
            for part in parts:
                part.inputs, part.labels = part.inputs.to(device), part.labels.to(device)

    def seed(self, seed: int, number: int) -> int:
        """Seed what an epoch draws from, and return with which number.

        That is the global random states, for augmentation, dropout and users' transforms, and
        the generators of loaders; put them back afterwards.
        """
        drawn = seeded(seed, number)
        for generator in self._generators():
            generator.manual_seed(drawn)
        return drawn

    def epoch(self, seed: int, number: int) -> Iterator[tuple[Any, Any]]:
        """Give (inputs, labels) of one epoch, in an order that the seed and its number decide."""
        drawn = self.seed(seed, number)
        if isinstance(self.training, Tensors):
            yield from self.training.shuffled(torch.Generator().manual_seed(drawn))
            return
        for batch in self.training:
            yield split_batch(batch)

    def validated(self) -> Iterator[tuple[Any, Any]]:
        """Give (inputs, labels) of the validation data."""
        if isinstance(self.validation, Tensors):
            yield from self.validation
            return
        for batch in self.validation:
            yield split_batch(batch)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put the generators of the user's own loaders back as they were."""
        generators = self._generators()
        states = [generator.get_state() for generator in generators]
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def first_inputs(self, n: int = 2) -> Any:
        """Return the inputs of the first few validation examples, as one batch."""
        inputs, _ = next(self.validated())
        if isinstance(inputs, Mapping):
            return {key: value[:n] for key, value in inputs.items()}
        return [value[:n] for value in inputs] if isinstance(inputs, tuple | list) else inputs[:n]

    def digest(self) -> str:
        """Return 32 hex digits of the sizes, the labels and the inputs, as far as they are known.

        Very large inputs count with evenly spaced examples of them.
        """
        digest = hashlib.blake2b(repr(self.sizes).encode(), digest_size=16)
        for side, labels in zip((self.training, self.validation), self.labels, strict=True):
            if labels is not None:
                digest.update(labels.numpy().tobytes())
            if isinstance(side, Tensors):
                some = side.inputs[:: 1 + side.inputs.nbytes // _MOST_BYTES_COMPARED]
                some = some.detach().cpu().contiguous().reshape(-1)
                digest.update(some.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _generators(self) -> list[torch.Generator]:
        """Return the generators that the user's own loaders draw from."""
        found = {}
        for side in (self.training, self.validation):
            batches = getattr(side, "batch_sampler", None)
            samplers = getattr(side, "sampler", None), getattr(batches, "sampler", None)
            for holder in (side, batches, *samplers):
                generator = getattr(holder, "generator", None)
                if isinstance(generator, torch.Generator):
                    found[id(generator)] = generator
        return [*found.values()]


def seeded(seed: int, number: int = 0) -> int:
    """Seed the global random states of torch, numpy and Python, and return with which number."""
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    torch.manual_seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002  # the global one, which users' transforms draw from
    random.seed(drawn)
    return drawn


class Tensors:
    """Inputs (examples, ...) and labels (examples,) in memory, as batches."""

    def __init__(self, inputs: Tensor, labels: Tensor, batch_size: int, *, whole: bool) -> None:
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size
        # A last batch of one example has no variance, which batch normalisation needs.
        lone = not whole and len(inputs) > batch_size and len(inputs) % batch_size == 1
        self.examples = len(inputs) - lone

    def __len__(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.examples, self.batch_size):
            end = start + self.batch_size
            yield self.inputs[start:end], self.labels[start:end]

    def shuffled(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of one epoch, in a random order."""
        order = torch.randperm(len(self.inputs), generator=generator)[: self.examples]
        for chosen in torch.split(order.to(self.inputs.device), self.batch_size):
            yield self.inputs[chosen], self.labels[chosen]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileData:
    """Training and validation data from files, as `retrain` takes them.

    Attributes:
        training: a pair (inputs, labels) in memory, or a Dataset that reads the files again.
        validation: likewise.
        class_names: name of each label.
        preprocessing: what was done to the images, in words.
    """

    training: Any
    validation: Any
    class_names: tuple[str, ...] | None
    preprocessing: str | None


def data_at(
    training: Path | str,
    validation: Path | str,
    *,
    preprocessing: Any,
    splits: tuple[str | None, str | None] = (None, None),
    class_names: Sequence[str] | None = None,
    batch_size: int = 32,
    workers: int = 0,
    skip_unreadable: bool = False,
) -> FileData:
    """Return what lies at two paths, ready to train on.

    Images are read and prepared once and kept in memory where both sets together take less than
    a quarter of what is free there.

    Args:
        training: see `resque.representation.sources.source_at`.
        validation: likewise; its classes are matched to those of the training data by name.
        preprocessing: image to tensor.
        splits: of a `.npz`, for training and validation.
        class_names: name of each label.
        batch_size: images read at a time.
        workers: processes that read images.
        skip_unreadable: leave out images that cannot be read; only for data that fit in memory.

    Raises:
        InputError: nothing there that can be trained on, or the classes differ.
    """
    names = tuple(class_names) if class_names is not None else None
    sides = []
    for path, split in zip((training, validation), splits, strict=True):
        source = source_at(
            path,
            preprocessing=preprocessing,
            split=split,
            class_names=names,
            batch_size=batch_size,
            workers=workers,
            skip_unreadable=skip_unreadable,
        )
        names = names or source.class_names
        sides.append((source, trainable(source, psutil.virtual_memory().available / 8)))
    return FileData(
        training=sides[0][1],
        validation=sides[1][1],
        class_names=names,
        preprocessing=sides[0][0].preprocessing,
    )


def labels_of(data: Any) -> Tensor | None:
    """Return the labels (examples,) of data, where they are there without loading the inputs.

    A loader whose sampler does not say what it draws counts with its whole data set.
    """
    if isinstance(data, DataLoader):
        drawn, labels = places_of(data), _labels_in(data.dataset)
        return labels if labels is None or drawn is None else labels[torch.as_tensor(drawn)]
    if isinstance(data, tuple | list):
        return checked_labels(data[1], len(data[0]))
    return _labels_in(data)


def _labels_in(dataset: Any) -> Tensor | None:
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return checked_labels(dataset.tensors[1], len(dataset))
    if isinstance(dataset, Subset):
        inner = _labels_in(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    for name in ("targets", "labels"):
        found = getattr(dataset, name, None)
        if isinstance(found, list | tuple | np.ndarray | Tensor) and len(found) == len(dataset):
            return checked_labels(found, len(dataset))
    return None


def _batches(data: Any, batch_size: int, side: str, workers: int) -> Tensors | DataLoader[Any]:
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset) or not len(data):
            raise InputError(
                f"The {side} loader has no length, or no batches; an epoch cannot be told. Give a "
                "Dataset that knows how many examples it has."
            )
        return data
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise InputError(
                f"The {side} data must be a pair (inputs, labels); got {len(data)} entries. For "
                "examples or batches in a list, give a DataLoader."
            )
        if data[1] is None:
            raise InputError(f"The {side} data have no labels; give (inputs, labels).")
        source = as_source((data[0], data[1]))
        inputs, labels = source.batches.arrays  # type: ignore[attr-defined]  # of a pair
        if not len(inputs):
            raise InputError(f"The {side} data hold no examples.")
        return Tensors(inputs, labels, batch_size, whole=side == "validation")
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        n = len(data)  # type: ignore[arg-type]  # map-style data sets have a length
        if not n:
            raise InputError(f"The {side} data hold no examples.")
        training = side == "training"
        return DataLoader(
            data,
            batch_size=batch_size,
            shuffle=training,
            generator=torch.Generator() if training else None,
            drop_last=training and n > batch_size and n % batch_size == 1,
            # Not persistent: workers that stay are seeded once, and a resumed run draws otherwise.
            num_workers=workers,
        )
    raise InputError(
        f"The {side} data must be a pair of arrays (inputs, labels), a Dataset with a length, or a "
        f"DataLoader; got a {type(data).__name__}."
    )


def _examples(batches: Tensors | DataLoader[Any]) -> int:
    if isinstance(batches, Tensors):
        return batches.examples
    drawn = places_of(batches)
    known = type(batches.batch_sampler) is BatchSampler  # it then draws from the sampler
    n = len(drawn) if drawn is not None else len(batches.sampler if known else batches.dataset)  # type: ignore[arg-type]
    if batches.drop_last and batches.batch_size:
        return n - n % batches.batch_size
    return n


def _require_seen(
    training: Tensor | None, validation: Tensor | None, names: tuple[str, ...] | None
) -> None:
    if training is None or validation is None:
        return
    unseen = sorted({*validation.tolist()} - {*training.tolist()})
    if unseen:
        told = [
            repr(names[label]) if names and label < len(names) else str(label)
            for label in unseen[:5]
        ]
        raise InputError(
            f"The validation data have {len(unseen)} class{'es' * (len(unseen) > 1)} that the "
            "training data lack: "
            f"{', '.join(told)}. Nothing could learn them; leave them out, or add examples."
        )


def _shared_note(training: Any, validation: Any) -> Iterator[str]:
    shared = _shared_examples(training, validation)
    if shared:
        yield (
            f"{shared} of the validation examples are training examples too, so that accuracy on "
            "them says little about new data. Split the data anew."
        )


def _shared_examples(training: Any, validation: Any) -> int:
    """Return how many validation examples are training examples, as far as can be seen."""
    sides = _places(training), _places(validation)
    if sides[0] is None or sides[1] is None:
        return 0
    a, seen = sides[0]
    b, validated = sides[1]
    if a is b:
        return int(np.isin(validated, seen).sum())
    files = _files(a), _files(b)
    if files[0] and files[1]:
        known = {files[0][place] for place in seen}
        return sum(files[1][place] in known for place in validated)
    rows = _rows(a), _rows(b)
    if rows[0] is None or rows[1] is None:
        return 0
    if rows[0].nbytes + rows[1].nbytes > _MOST_BYTES_COMPARED:
        return 0
    digests = {_digest(rows[0][place]) for place in seen}
    return sum(_digest(rows[1][place]) in digests for place in validated)


def _places(data: Any) -> tuple[Any, np.ndarray] | None:
    """Return where the examples of data lie: in what, and at which places; None if unknown.

    In what is an array of inputs, where they come as one, and a data set elsewhere.
    """
    if isinstance(data, DataLoader):
        drawn = places_of(data)
        if drawn is None:
            return None
        whole, places = _bottom(data.dataset)
        return whole, places[drawn]
    if isinstance(data, tuple | list):
        return data[0], np.arange(len(data[0]))
    return _bottom(data)


def _bottom(dataset: Any) -> tuple[Any, np.ndarray]:
    if isinstance(dataset, Subset):
        whole, places = _bottom(dataset.dataset)
        return whole, places[np.asarray(dataset.indices, int)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[0], np.arange(len(dataset))
    return dataset, np.arange(len(dataset))


def places_of(loader: DataLoader[Any]) -> np.ndarray | None:
    """Return the places in its data set that a loader draws from; None if it does not say.

    Args:
        loader: whose sampler is asked.
    """
    if type(loader.batch_sampler) is not BatchSampler:
        return None
    if isinstance(loader.sampler, SubsetRandomSampler):
        return np.asarray(loader.sampler.indices, int)
    if isinstance(loader.sampler, SequentialSampler | RandomSampler):
        return np.arange(len(loader.dataset))  # type: ignore[arg-type]  # checked by `_batches`
    return None


def _rows(inputs: Any) -> np.ndarray | None:
    if isinstance(inputs, Tensor):
        # numpy has no bfloat16; what is equal stays so.
        inputs = inputs.detach().cpu()
        inputs = (inputs.float() if inputs.dtype is torch.bfloat16 else inputs).numpy()
    return np.asarray(inputs) if isinstance(inputs, np.ndarray) else None


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def _files(data: Any) -> list[str]:
    """Return the files that a folder data set of torchvision, or one like it, reads."""
    samples = getattr(data, "samples", None)
    if not isinstance(samples, list) or not samples or not isinstance(samples[0], tuple):
        return []
    return [str(sample[0]) for sample in samples]
