"""RESQUE_task: how badly a model's representations separate the classes of a new task."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from resque.errors import InputError, NotComparableError
from resque.index.sums import natural_order
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resque.representation.models import LoadedModel

Start = Literal["class_means", "k-means++"]

# Fixed, because the labels of a k-means depend on them. method.md, section 3.
TOLERANCE = 1e-4
MOST_ITERATIONS = 300
_BLOCK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """One class that ends up in the cluster of another.

    Attributes:
        class_name: the class.
        mixed_with: the class whose cluster its examples are in.
        share: share of the class's examples in that cluster.
    """

    class_name: str
    mixed_with: str
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskIndex:
    """RESQUE_task of a model for a task, with what is needed to read it.

    Attributes:
        value: 1 minus the adjusted Rand index of classes and clusters; 0 where they agree,
            about 1 where they have nothing in common (it can slightly exceed 1).
            method.md, equation 10.
        start: where the k-means starts: "class_means" or "k-means++".
        nearest_class_mean_accuracy: share of examples whose nearest class mean is their own:
            the first assignment of a k-means from the class means. On the data themselves, so
            it flatters where values outnumber examples.
        first_assignment_value: RESQUE_task of that first assignment; what `value` differs from
            it, the further iterations have done.
        iterations: iterations that the k-means took.
        empty_clusters: clusters without an example, at the first assignment or at the end, by
            the name of the class whose mean they started from.
        mixtures: which classes are mixed up with which, largest share first.
        known_classes: classes of the task that the model knew already, where it extends an old
            task.
        examples: number of examples.
        class_counts: class name -> number of examples.
        variants: value of each published variant, by "pooled" or "flattened" and start; None
            unless they were asked for.
        warnings: what to know before quoting the number.
        signature: what reproduces it and what it may be compared with.

    Example:
        >>> task = task_index(None, (np.eye(3).repeat(20, axis=0), np.arange(60) // 20))
        >>> task.value, task.class_counts, task.empty_clusters
        (0.0, {'0': 20, '1': 20, '2': 20}, ())
    """

    value: float
    start: Start
    nearest_class_mean_accuracy: float
    first_assignment_value: float
    iterations: int
    empty_clusters: tuple[str, ...]
    mixtures: tuple[Mixture, ...]
    known_classes: tuple[str, ...]
    examples: int
    class_counts: Mapping[str, int]
    variants: Mapping[str, float] | None
    warnings: tuple[str, ...]
    signature: Signature

    _repr_html_ = shown_in_notebook

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, TaskIndex):
            return NotImplemented
        self.signature.require_comparable(other.signature)
        if self.class_counts.keys() != other.class_counts.keys():
            raise NotComparableError(
                "These are indices of different tasks: their classes differ, and so they cannot be "
                "compared."
            )
        if self.start != other.start:
            raise NotComparableError(
                f"One k-means started at {self.start}, the other at {other.start}; their indices "
                "cannot be compared."
            )
        return self.value < other.value

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return {
            "index": "RESQUE_task",
            "value": self.value,
            "start": self.start,
            "nearest_class_mean_accuracy": self.nearest_class_mean_accuracy,
            "first_assignment_value": self.first_assignment_value,
            "iterations": self.iterations,
            "empty_clusters": list(self.empty_clusters),
            "mixtures": [
                {"class": m.class_name, "mixed_with": m.mixed_with, "share": m.share}
                for m in self.mixtures
            ],
            "known_classes": list(self.known_classes),
            "classes": len(self.class_counts),
            "examples": self.examples,
            "class_counts": dict(self.class_counts),
            "variants": dict(self.variants) if self.variants is not None else None,
            "warnings": list(self.warnings),
            "signature": self.signature.to_dict(),
        }

    def __str__(self) -> str:
        lines = [
            (
                f"RESQUE_task {self.value:.4f} ({len(self.class_counts)} classes, "
                f"{self.examples} examples, started at {self.start.replace('_', ' ')})"
            ),
            (
                f"nearest class mean: accuracy {self.nearest_class_mean_accuracy:.4f}, index "
                f"{self.first_assignment_value:.4f}; {self.iterations} iterations made it "
                f"{self.value:.4f}"
            ),
        ]
        if self.variants is not None:
            lines.append("variants: " + ", ".join(f"{k} {v:.4f}" for k, v in self.variants.items()))
        if self.mixtures:
            told = [f"{m.class_name} with {m.mixed_with} {m.share:.0%}" for m in self.mixtures[:3]]
            lines.append("most mixed up: " + ", ".join(told))
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join([*lines, str(self.signature)])


def task_index(
    model: nn.Module | None,
    data: Any,
    *,
    extending: Any = None,
    layer: str | None = None,
    pooling: str = "auto",
    start: Start = "class_means",
    seed: int = 0,
    variants: bool = False,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
    model_name: str | None = None,
    preprocessing: str | None = None,
    progress: bool = True,
) -> TaskIndex:
    """Return RESQUE_task: how badly a model separates the classes of a task, 0 to about 1.

    The representations are clustered by k-means with one cluster per class, and the index is
    1 minus the adjusted Rand index of classes and clusters. All representations are held in
    memory, examples x values. Not comparable between tasks with different classes; it falls
    with class imbalance and depends on the scale of each value. method.md, section 3; Sangarya
    and Kim, arXiv:2412.15511.

    Args:
        model: the trained model, with any head; None where `data` are representations.
        data: labelled data of the new task; see `resque.profile`.
        extending: labelled data of the old task, where the new classes come on top of the old
            ones; classes of the same name are one class.
        layer: see `resque.profile`.
        pooling: see `resque.profile`.
        start: "class_means", or "k-means++" with the given seed.
        seed: seed of k-means++.
        variants: also compute the four published variants, pooled or flattened from either
            start; they need a layer that gives maps or tokens to differ.
        class_names: name of each label 0, 1, ...
        batch_size: size of the batches made from data sets and arrays.
        autocast: torch.bfloat16 or torch.float16 to run the model under autocast.
        model_name: name of the model in the signature.
        preprocessing: what was done to the images, for the signature.
        progress: show a progress bar on stderr where that is a terminal.

    Returns:
        The index with the nearest-class-mean accuracy, the mixtures and the signature.

    Raises:
        InputError: fewer than two classes, no labels, a value that is not finite, or data or a
            layer that cannot be used.

    Example:
        >>> labels = np.arange(60) % 3
        >>> data = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.1, (60, 3)), labels
        >>> task_index(None, data).value
        0.0
    """
    from resque.representation.sources import as_source

    checked_start(start)
    options = {
        "layer": layer,
        "pooling": pooling,
        "autocast": autocast,
        "model_name": model_name,
        "preprocessing": preprocessing,
        "progress": progress,
    }
    parts = []
    for given, names in ((extending, None), (data, class_names)):
        if given is not None:
            # Representations are all held in memory anyway: one batch, and no copy.
            size = batch_size if model is not None else sys.maxsize
            source = as_source(given, class_names=names, batch_size=size)
            parts.append(_collected(model, source, variants, options))
    new = parts[-1]
    if len(parts) == 2:
        parts[0].signature.require_comparable(new.signature)
    names = tuple(sorted({n for part in parts for n in part.present}, key=natural_order))
    if len(names) < 2:
        raise InputError(
            f"A task needs at least two classes with examples; got {len(names)}"
            f"{f', {names[0]!r}' if names else ''}."
        )
    labels = np.concatenate([_renumbered(part, names) for part in parts])
    values = new.values if len(parts) == 1 else np.concatenate([part.values for part in parts])
    clustering = _Clustering(values, labels, len(names), start, seed)
    counts = np.bincount(labels, minlength=len(names))
    found = None
    notes = [note for part in parts for note in part.notes]
    if variants:
        flat = np.concatenate([part.flattened for part in parts])
        found = _variants(values, flat, labels, len(names), seed, clustering, start)
        if flat.shape[1] == values.shape[1]:
            notes.append(
                "This layer gives vectors, so the flattened variants equal the pooled ones; name "
                "a layer that gives maps, such as the last convolution."
            )
    return TaskIndex(
        value=clustering.value,
        start=start,
        nearest_class_mean_accuracy=float((clustering.first == labels).mean()),
        first_assignment_value=_one_minus_ari(labels, clustering.first),
        iterations=clustering.iterations,
        empty_clusters=tuple(names[k] for k in clustering.empty),
        mixtures=_mixtures(labels, clustering, names),
        known_classes=parts[0].present if len(parts) == 2 else (),
        examples=len(labels),
        class_counts=dict(zip(names, map(int, counts), strict=True)),
        variants=found,
        warnings=(*dict.fromkeys(notes), *_warnings(clustering, counts, names)),
        signature=replace(
            new.signature,
            index="RESQUE_task",
            class_names=names,
            examples=(len(labels),),
            groups=None,
            seed=seed if start == "k-means++" or variants else None,
        ),
    )


def checked_start(start: str) -> None:
    """Raise InputError unless a k-means can start there."""
    if start not in get_args(Start):
        raise InputError(f"start must be one of {', '.join(get_args(Start))}; got {start!r}.")


def task_at(
    path: Path | str,
    loaded: LoadedModel | None = None,
    *,
    extending: Path | str | None = None,
    prepare: Callable[[Any], Tensor] | None = None,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    skip_unreadable: bool = False,
    batch_size: int = 64,
    layer: str | None = None,
    pooling: str = "auto",
    autocast: torch.dtype | None = None,
    start: Start = "class_means",
    seed: int = 0,
    variants: bool = False,
) -> TaskIndex:
    """Return RESQUE_task of whatever lies at a path: a table, or images and a model.

    Args:
        path: see `resque.representation.sources.source_at`.
        loaded: the model, for images.
        extending: data of the old task, likewise.
        prepare: image to tensor.
        split: see `source_at`; of the new and of the old data.
        class_names: see `source_at`; of the new data.
        workers: see `source_at`.
        skip_unreadable: see `source_at`.
        batch_size: examples per batch.
        layer: see `task_index`; like `pooling` and `autocast` it means nothing for a table.
        pooling: see `task_index`.
        autocast: see `task_index`.
        start: see `task_index`.
        seed: see `task_index`.
        variants: see `task_index`.

    Raises:
        InputError: there is nothing there that can be used, or images came without a model.
    """
    from resque.representation.sources import model_for, source_at

    def source(place: Path | str, names: Sequence[str] | None) -> Any:
        return source_at(
            place,
            preprocessing=prepare,
            split=split,
            class_names=names,
            batch_size=batch_size,
            workers=workers,
            skip_unreadable=skip_unreadable,
        )

    needed = model_for(path, loaded)
    old = None if extending is None else source(extending, None)
    new = source(path, class_names)
    if needed is None:
        return task_index(None, new, extending=old, start=start, seed=seed, variants=variants)
    return task_index(
        needed.model,
        new,
        extending=old,
        layer=layer,
        pooling=pooling,
        autocast=autocast,
        start=start,
        seed=seed,
        variants=variants,
        model_name=needed.name,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Representations of one data set, kept whole."""

    values: np.ndarray  # (examples, values)
    flattened: np.ndarray
    labels: np.ndarray  # (examples,), places in `names`
    names: tuple[str, ...]
    notes: tuple[str, ...]
    signature: Signature

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that have examples."""
        return tuple(self.names[k] for k in np.unique(self.labels))


def _collected(
    model: nn.Module | None, source: Any, flatten: bool, options: Mapping[str, Any]
) -> _Part:
    import torch

    from resque.representation.labels import named_or_raise
    from resque.representation.stream import Stream, not_finite

    stream = Stream(model, source, **options)
    values, flattened, labels = [], [], []
    for batch in stream:
        if batch.labels is None:
            raise InputError("The data have no labels; RESQUE_task needs them.")
        # numpy has no bfloat16, and k-means in half precision would not be one.
        wide = torch.promote_types(batch.representations.dtype, torch.float32)
        array = batch.representations.to("cpu", wide).numpy()
        # One sum tells in most cases; it may also overflow, so each example is looked at then.
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = not np.isfinite(array.sum())
        bad = ~np.isfinite(array).all(axis=1) if suspect else np.zeros(1, dtype=bool)
        if bad.any():
            raise not_finite(batch.start + int(bad.argmax()), batch.ids[bad.argmax()])
        values.append(array)
        labels.append(batch.labels.numpy())
        if flatten:
            flattened.append(batch.raw.flatten(1).to("cpu", wide).numpy())
    numbers = np.concatenate(labels)
    names = source.class_names
    if names is None:
        seen, numbers = np.unique(numbers, return_inverse=True)
        names = tuple(map(str, seen.tolist()))
    else:
        named_or_raise(torch.from_numpy(numbers), names)
    together = values[0] if len(values) == 1 else np.concatenate(values)
    return _Part(
        values=together,
        flattened=np.concatenate(flattened) if flatten else together,
        labels=numbers,
        names=names,
        notes=stream.notes(),
        signature=stream.signature(names, None),
    )


class _Clustering:
    """One k-means, its first assignment, and the index it gives."""

    def __init__(
        self, values: np.ndarray, labels: np.ndarray, n: int, start: Start, seed: int
    ) -> None:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        means = _class_means(values, labels, n)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            kmeans = KMeans(
                n,
                init=means if start == "class_means" else "k-means++",
                n_init=1,
                max_iter=MOST_ITERATIONS,
                tol=TOLERANCE,
                random_state=seed,
            ).fit(values)
        # After the k-means: threads that a matrix product leaves waiting would be in its way.
        self.first = _nearest(values, means)
        self.too_few_points = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        self.clusters: np.ndarray = kmeans.labels_
        self.iterations = int(kmeans.n_iter_)
        self.start = start
        self.value = _one_minus_ari(labels, self.clusters)
        occupied = np.bincount(self.clusters, minlength=n) > 0
        if start == "class_means":
            # scikit-learn moves a cluster that empties to the farthest example, so emptiness
            # shows at the first assignment more often than at the end.
            occupied &= np.bincount(self.first, minlength=n) > 0
        self.empty = np.flatnonzero(~occupied).tolist()


def _class_means(values: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Return the mean (classes, values) of each class, in the precision of the values."""
    from scipy.sparse import csr_matrix

    # Small blocks in the precision of the values, added up in float64: no copy of the values, and
    # the rounding of a mean stays that of a few hundred additions, one unit in its last place.
    sums = np.zeros((n, values.shape[1]))
    for start in range(0, len(values), _BLOCK):
        of_block = labels[start : start + _BLOCK]
        places = np.arange(len(of_block))
        ones = np.ones(len(of_block), values.dtype)
        members = csr_matrix((ones, (of_block, places)), (n, len(of_block)))
        sums += members @ values[start : start + _BLOCK]
    counts = np.bincount(labels, minlength=n)[:, None]
    return np.asarray((sums / counts).astype(values.dtype))


def _nearest(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the place (examples,) of the mean nearest to each example."""
    # |z - m|^2 without the |z|^2 that all means share; and from the middle of the means, because
    # what all have in common would drown their differences in rounding.
    middle = means.mean(0, dtype=np.float64)
    apart = means - middle
    norms = ((apart**2).sum(1) + 2 * apart @ middle).astype(values.dtype)
    twice = (2 * apart.T).astype(values.dtype)
    starts = range(0, len(values), _BLOCK)
    return np.concatenate([(norms - values[i : i + _BLOCK] @ twice).argmin(1) for i in starts])


def _one_minus_ari(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return 1 minus the adjusted Rand index, from the class x cluster table. Equation 10."""
    n, m = int(labels.max()) + 1, int(clusters.max()) + 1
    table = np.bincount(labels * m + clusters, minlength=n * m).reshape(n, m)

    def pairs(counts: np.ndarray) -> int:
        return int((counts * (counts - 1) // 2).sum())

    both, classes, together = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = classes * together / pairs(table.sum(keepdims=True))
    most = (classes + together) / 2
    return 0.0 if most == expected else 1.0 - (both - expected) / (most - expected)


def _variants(
    values: np.ndarray,
    flattened: np.ndarray,
    labels: np.ndarray,
    n: int,
    seed: int,
    done: _Clustering,
    start: Start,
) -> dict[str, float]:
    found = {}
    for kind, array in (("pooled", values), ("flattened", flattened)):
        for begin in get_args(Start):
            same = array is values and begin == start
            clustering = done if same else _Clustering(array, labels, n, begin, seed)
            found[f"{kind}, {begin}"] = clustering.value
    return found


def _mixtures(
    labels: np.ndarray, clustering: _Clustering, names: Sequence[str]
) -> tuple[Mixture, ...]:
    n = len(names)
    table = np.zeros((n, n), dtype=np.int64)
    np.add.at(table, (labels, clustering.clusters), 1)
    # A cluster that started at a class mean belongs to that class, any other to its majority.
    owner = np.arange(n) if clustering.start == "class_means" else table.argmax(0)
    shared = np.zeros((n, n))
    np.add.at(shared.T, owner, table.T.astype(float))
    shared /= np.maximum(table.sum(1, keepdims=True), 1)
    np.fill_diagonal(shared, 0.0)
    order = np.argsort(-shared, axis=None, kind="stable")
    return tuple(
        Mixture(class_name=names[i], mixed_with=names[j], share=float(shared[i, j]))
        for i, j in (divmod(int(place), n) for place in order)
        if shared[i, j] > 0
    )


def _renumbered(part: _Part, names: Sequence[str]) -> np.ndarray:
    place = {name: k for k, name in enumerate(names)}
    table = np.array([place.get(name, -1) for name in part.names])
    return np.asarray(table[part.labels])


def _warnings(clustering: _Clustering, counts: np.ndarray, names: Sequence[str]) -> list[str]:
    found = []
    if clustering.empty:
        empty = ", ".join(repr(names[k]) for k in clustering.empty[:5])
        found.append(
            f"{len(clustering.empty)} clusters have no examples ({empty}): no example is nearest "
            "to the mean they started from."
        )
    if clustering.too_few_points:
        found.append("There are fewer distinct representations than classes.")
    if clustering.iterations >= MOST_ITERATIONS:
        found.append(f"The k-means had not settled after {MOST_ITERATIONS} iterations.")
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if single:
        found.append(
            f"{len(single)} classes have one example only, which is its own mean: "
            f"{', '.join(map(repr, single[:5]))}."
        )
    if counts.max() > 10 * counts.min():
        found.append(
            f"Classes are unbalanced ({int(counts.min())} to {int(counts.max())} examples); the "
            "adjusted Rand index then follows the large ones."
        )
    return found
