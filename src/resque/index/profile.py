"""What one pass over a data set leaves behind, per class and group; it adds up."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError, NotComparableError, ResqueWarning
from resque.files import checked_output, existing, written_whole
from resque.representation.signature import Signature

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resque.representation.models import LoadedModel
    from resque.representation.stream import Batch, Stream

FORMAT = "resque.ClassProfile/1"
GROUPS = 16
CONFIDENCE_BINS = 1000
LARGE_BYTES = 256e6
_FEWEST_GROUPS, _MOST_GROUPS = 2, 64


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Counts, sums and squared norms of representations, per class and group.

    Attributes:
        counts: examples, (classes, groups) int64.
        sums: sums of representations, (classes, groups, values) float64.
        squares: sums of squared norms of representations, (classes, groups) float64.
    """

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    def __add__(self, other: ClassSums) -> ClassSums:
        return ClassSums(
            self.counts + other.counts, self.sums + other.sums, self.squares + other.squares
        )

    def rows(self, places: Sequence[int], n: int) -> ClassSums:
        """Return the same sums with class i at row places[i] of n rows."""
        return ClassSums(*(_spread(getattr(self, key), places, n) for key in _SUMS))


@dataclass(frozen=True, slots=True, eq=False)
class OutputStatistics:
    """What the model's own class scores say about the data.

    Per class of the label, or of the prediction where the data have no labels.

    Attributes:
        labelled: whether the data had labels; without them `correct` and `loss` are zero.
        counts: examples, (classes,) int64.
        correct: examples whose highest score is at their label, (classes,) int64.
        loss: sums of cross-entropy in nats, (classes,) float64.
        confidence: sums of the highest probability, (classes,) float64.
        entropy: sums of the entropy of the probabilities in nats, (classes,) float64.
        histogram: examples per bin of confidence, 1000 equal bins on [0, 1], (2, bins) int64:
            first the wrong ones (all, where the data had no labels), then the correct ones.
    """

    labelled: bool
    counts: np.ndarray
    correct: np.ndarray
    loss: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    histogram: np.ndarray

    @property
    def accuracy(self) -> float | None:
        """Share of examples whose highest score is at their label; None without labels."""
        return float(self.correct.sum() / self.counts.sum()) if self.labelled else None

    @property
    def mean_loss(self) -> float | None:
        """Mean cross-entropy in nats; None without labels."""
        return float(self.loss.sum() / self.counts.sum()) if self.labelled else None

    @property
    def mean_confidence(self) -> float:
        """Mean of the highest probability."""
        return float(self.confidence.sum() / self.counts.sum())

    @property
    def mean_entropy(self) -> float:
        """Mean entropy of the probabilities in nats."""
        return float(self.entropy.sum() / self.counts.sum())

    def __add__(self, other: OutputStatistics) -> OutputStatistics:
        return OutputStatistics(
            self.labelled,
            self.counts + other.counts,
            self.correct + other.correct,
            self.loss + other.loss,
            self.confidence + other.confidence,
            self.entropy + other.entropy,
            self.histogram + other.histogram,
        )

    def rows(self, places: Sequence[int], n: int) -> OutputStatistics:
        """Return the same statistics with class i at row places[i] of n rows."""
        moved: dict[str, Any] = {key: _spread(getattr(self, key), places, n) for key in _PER_CLASS}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, eq=False)
class ClassProfile:
    """All that the index needs from a data set; made by `profile`, added with `+`, saved whole.

    Addition is associative and commutative, `ClassProfile.empty()` is its neutral element, and
    it leaves its arguments alone. With ids given, the profile of a data set does not depend on
    how or in what order the data were cut: counts are equal, sums agree to rounding.

    Attributes:
        class_names: the classes in the order that was given, else in natural order of their
            names; a sum of profiles with different classes has them in natural order.
        by_label: sums by label; None where the data have none.
        by_prediction: sums by the model's own prediction; None where the model has no output
            for these classes.
        outputs: what the model's own class scores say; None where it has none for these classes.
        signature: what reproduces the profile; None for the empty profile.
        notes: sentences that every result from this profile carries as warnings.

    Example:
        >>> part = profile(None, (np.eye(4), np.array([0, 0, 1, 1])))
        >>> (part + part).counts
        {'0': 4, '1': 4}
    """

    class_names: tuple[str, ...]
    by_label: ClassSums | None
    by_prediction: ClassSums | None
    outputs: OutputStatistics | None
    signature: Signature | None
    notes: tuple[str, ...] = ()

    @classmethod
    def empty(cls) -> ClassProfile:
        """Return the neutral element of addition.

        Example:
            >>> import numpy as np
            >>> part = profile(None, (np.eye(4), np.array([0, 0, 1, 1])))
            >>> (ClassProfile.empty() + part).examples
            4
        """
        return cls((), None, None, None, None)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return self.signature.examples[0] if self.signature else 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples per class, by label, else by prediction."""
        sums = self.by_label or self.by_prediction
        if sums is None:
            return {}
        return dict(zip(self.class_names, map(int, sums.counts.sum(1)), strict=True))

    def __add__(self, other: object) -> ClassProfile:
        if not isinstance(other, ClassProfile):
            return NotImplemented
        if other.signature is None:
            return self
        if self.signature is None:
            return other
        signature = _signature_of_sum(self.signature, other.signature)
        if (self.by_label is None) != (other.by_label is None):
            raise NotComparableError(
                "One of these profiles is of labelled data and the other is not; they cannot be "
                "added. Profile all parts with labels, or all without."
            )
        names = signature.class_names

        def placed(part: ClassProfile, sums: Any) -> Any:
            return sums.rows([names.index(name) for name in part.class_names], len(names))

        def added(mine: Any, theirs: Any) -> Any:
            if mine is None or theirs is None:
                return None
            return placed(self, mine) + placed(other, theirs)

        return ClassProfile(
            class_names=names,
            by_label=added(self.by_label, other.by_label),
            by_prediction=added(self.by_prediction, other.by_prediction),
            outputs=added(self.outputs, other.outputs),
            signature=signature,
            notes=tuple(sorted({*self.notes, *other.notes})),
        )

    def __radd__(self, other: object) -> ClassProfile:
        # sum() starts from 0.
        return self if other == 0 else NotImplemented

    def save(self, path: Path | str) -> None:
        """Write the profile as a safetensors file with its signature, whole or not at all.

        Args:
            path: file to write; one that exists is replaced.

        Raises:
            InputError: the profile is empty, or the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        if self.signature is None:
            raise InputError("An empty profile has nothing to save.")
        checked_output(path)
        checked_suffix(path)
        tensors = {
            f"{part}.{name}": np.ascontiguousarray(getattr(value, name))
            for part in _PARTS
            if (value := getattr(self, part)) is not None
            for name in _ARRAYS[part]
        }
        metadata = {
            "format": FORMAT,
            "signature": json.dumps(self.signature.to_dict()),
            "notes": json.dumps(self.notes),
            "labelled": json.dumps(self.outputs is not None and self.outputs.labelled),
        }
        with written_whole(path) as temporary:
            try:
                save_file(tensors, temporary, metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error

    def __str__(self) -> str:
        lines = [f"profile of {self.examples} examples in {len(self.class_names)} classes"]
        if self.outputs is not None:
            told = [f"mean confidence {self.outputs.mean_confidence:.4f}"]
            if self.outputs.accuracy is not None:
                told.insert(0, f"accuracy {self.outputs.accuracy:.4f}")
            lines.append(f"the model's own output: {', '.join(told)}")
        lines += [f"warning: {note}" for note in self.notes]
        return "\n".join([*lines, str(self.signature)])

    def to_dict(self) -> dict[str, Any]:
        """Return counts, what the outputs say, and the signature, as plain JSON types."""
        told = self.outputs
        return {
            "examples": self.examples,
            "classes": len(self.class_names),
            "per_class": self.counts,
            "labelled": self.by_label is not None,
            "outputs": told
            and {
                "accuracy": told.accuracy,
                "mean_loss": told.mean_loss,
                "mean_confidence": told.mean_confidence,
                "mean_entropy": told.mean_entropy,
            },
            "warnings": list(self.notes),
            "signature": self.signature and self.signature.to_dict(),
        }


_PARTS = ("by_label", "by_prediction", "outputs")
_SUMS = ("counts", "sums", "squares")
_PER_CLASS = ("counts", "correct", "loss", "confidence", "entropy")
_ARRAYS = {
    "by_label": _SUMS,
    "by_prediction": _SUMS,
    "outputs": (*_PER_CLASS, "histogram"),
}


def profile(
    model: nn.Module | None,
    data: Any,
    *,
    layer: str | None = None,
    pooling: str = "auto",
    class_names: Sequence[str] | None = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    groups: int = GROUPS,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
    model_name: str | None = None,
    preprocessing: str | None = None,
    progress: bool = True,
) -> ClassProfile:
    """Return what one pass of a model over data leaves behind, per class and group.

    The model runs where it is, in eval mode and without gradients, and is left as it was. The
    profile is all that `shift_index` needs: the data need not be kept. Memory is that of the
    sums, classes x groups x values in float64, whatever the number of examples; twice that
    where the model has an output for the same classes. Not for multi-label data, regression
    or detection. method.md, section 2.

    Args:
        model: a trained classifier or encoder; None where `data` are representations.
        data: a DataLoader or another iterable of batches, a Dataset, or a pair of arrays
            (inputs (examples, ...), labels (examples,)). A batch is (inputs, labels), a dict
            with the labels under "labels", "label", "targets", "target" or "y", or inputs alone.
            From a plain iterable of batches the model's own output is kept only with
            `class_names`.
        layer: dotted name of the layer to read, "input:NAME" for what goes into it, "output"
            for what the model returns. None reads the input of the final classifier.
        pooling: "auto", "mean" over space or tokens, "class_token", "flatten" or "none".
        class_names: name of each label 0, 1, ...; classes of two data sets match by name.
        ids: one integer or string per example, in order. The same id marks the same example
            (or scene, track, patient) on both sides of a comparison. By default its place.
        groups: number of groups, 2 to 64, into which the ids are hashed, for the interval and
            the test of `shift_index`.
        batch_size: size of the batches made from data sets and arrays.
        autocast: torch.bfloat16 or torch.float16 to run the model under autocast.
        model_name: name of the model in the signature.
        preprocessing: what was done to the images, for the signature.
        progress: show a progress bar on stderr where that is a terminal.

    Returns:
        The profile.

    Raises:
        InputError: the data, the layer or the labels cannot be used; the message says which.

    Example:
        >>> import torch
        >>> from torch.nn import Linear, ReLU, Sequential
        >>> model = Sequential(Linear(4, 8), ReLU(), Linear(8, 2))
        >>> data = torch.randn(20, 4), torch.arange(20) % 2
        >>> profile(model, data).counts
        {'0': 10, '1': 10}
    """
    from resque.representation.sources import as_source
    from resque.representation.stream import Stream

    checked_groups(groups)
    source = as_source(data, class_names=class_names, ids=ids, batch_size=batch_size)
    stream = Stream(
        model,
        source,
        layer=layer,
        pooling=pooling,
        autocast=autocast,
        model_name=model_name,
        preprocessing=preprocessing,
        progress=progress,
    )
    pass_ = _Pass(source.class_names, groups, stream)
    for batch in stream:
        pass_.add(batch)
    return pass_.profile((*source.notes, *source.notes_after(stream.examples)))


def load_profile(path: Path | str) -> ClassProfile:
    """Return the profile in a file that `ClassProfile.save` wrote; runs no code from it.

    Args:
        path: a safetensors file.

    Raises:
        InputError: there is no such file, it is damaged, or it is no profile; with the reason.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "before.safetensors"
        >>> profile(None, (np.eye(4), np.array([0, 0, 1, 1]))).save(file)
        >>> load_profile(file).counts
        {'0': 2, '1': 2}
    """
    from safetensors import SafetensorError, safe_open

    path = existing(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected a profile (.safetensors).")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{str(path)!r} is no profile of this version: its format is "
                    f"{metadata.get('format')!r}, expected {FORMAT!r}. Make one with `resque "
                    "profile`."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return _profile_of(tensors, metadata)
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The profile {str(path)!r} is damaged ({error}). Make it anew with `resque profile`."
        ) from error


def profile_at(
    path: Path | str,
    loaded: LoadedModel | None = None,
    *,
    like: ClassProfile | None = None,
    prepare: Callable[[Any], Tensor] | None = None,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    skip_unreadable: bool = False,
    unlabelled: bool = False,
    batch_size: int = 64,
    layer: str | None = None,
    pooling: str = "auto",
    autocast: torch.dtype | None = None,
    groups: int = GROUPS,
) -> ClassProfile:
    """Return the profile of whatever lies at a path: a profile, a table, or images and a model.

    Args:
        path: a saved profile (`.safetensors`), or what `source_at` takes.
        loaded: the model, for images.
        like: the profile of the other side. Its number of groups is taken over, and so are its
            classes for a folder of some of them, so that the model's outputs keep their meaning.
        prepare: image to tensor.
        split: see `source_at`.
        class_names: see `source_at`.
        workers: see `source_at`.
        skip_unreadable: see `source_at`.
        unlabelled: see `source_at`.
        batch_size: examples per batch.
        layer: see `profile`; like `pooling` and `autocast` it means nothing for a table.
        pooling: see `profile`.
        autocast: see `profile`.
        groups: see `profile`.

    Raises:
        InputError: there is nothing there that can be profiled, or images came without a model.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_profile(path)
    from resque.representation.sources import classes_at, model_for, source_at

    if class_names is None and like is not None:
        found = classes_at(path)
        if path.is_dir() and set(found) <= set(like.class_names):
            class_names = like.class_names
    if like is not None and like.signature is not None:
        groups = like.signature.groups or groups
    needed = model_for(path, loaded)
    source = source_at(
        path,
        preprocessing=prepare,
        split=split,
        class_names=class_names,
        batch_size=batch_size,
        workers=workers,
        skip_unreadable=skip_unreadable,
        unlabelled=unlabelled,
    )
    if needed is None:
        return profile(None, source, groups=groups)
    return profile(
        needed.model,
        source,
        layer=layer,
        pooling=pooling,
        autocast=autocast,
        groups=groups,
        model_name=needed.name,
    )


def checked_groups(groups: int) -> None:
    """Raise InputError unless this can be a number of groups."""
    if not _FEWEST_GROUPS <= groups <= _MOST_GROUPS:
        raise InputError(f"groups must be {_FEWEST_GROUPS} to {_MOST_GROUPS}; got {groups}.")


def checked_suffix(path: Path | str) -> None:
    """Raise InputError unless a file's name says that it holds a profile."""
    if Path(path).suffix != ".safetensors":
        raise InputError(
            f"A profile is known by the end of its name, .safetensors; got {str(path)!r}."
        )


def groups_of(ids: np.ndarray, groups: int) -> np.ndarray:
    """Return the group (n,) of each example, from a hash of its id.

    The hash is the finaliser of SplitMix64 for integers and BLAKE2b for strings: the same on
    every machine and for both sides of a comparison. method.md, equation 5.

    Args:
        ids: (n,) integers or strings.
        groups: number of groups.

    Example:
        >>> groups_of(np.arange(4), 16).tolist() == groups_of(np.arange(4), 16).tolist()
        True
    """
    if ids.dtype.kind in "US":
        hashed = np.array(
            [
                int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "little")
                for key in ids
            ],
            dtype=np.uint64,
        )
    else:
        hashed = ids.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashed ^= hashed >> np.uint64(31)
    return (hashed % np.uint64(groups)).astype(np.int64)


def natural_order(name: str) -> tuple[int, int, str]:
    """Return a sorting key that puts "2" before "10" and numbers before words."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


class _Pass:
    """The running sums of one pass, on the model's device."""

    def __init__(self, class_names: tuple[str, ...] | None, groups: int, stream: Stream) -> None:
        self.names = class_names
        self.groups = groups
        self.stream = stream
        self.seen: dict[int, int] = {}  # label -> row, where no names were given
        self.labelled: bool | None = None
        self.scored = False
        self.probabilities = False
        self.by_label: _Sums | None = None
        self.by_prediction: _Sums | None = None
        self.outputs: dict[str, Tensor] = {}
        self.unchecked: list[tuple[int, np.ndarray, Tensor]] = []

    def add(self, batch: Batch) -> None:
        import torch

        if self.labelled is None:
            self._begin(batch)
        if (batch.labels is not None) != self.labelled:
            raise InputError(
                f"The batch that starts at example {batch.start} "
                f"{'has no labels' if self.labelled else 'has labels'}, unlike those before it."
            )
        # Apple's GPUs have no float64.
        at_home = batch.representations.device.type == "mps"
        values = batch.representations.cpu() if at_home else batch.representations
        values = values.double()
        squares = values.square().sum(1)
        logits = self._scores(batch)
        finite = torch.isfinite(squares)
        if logits is not None:
            finite &= torch.isfinite(logits).all(1).to(finite.device)
        self._check_finite(batch, finite)
        group = torch.from_numpy(groups_of(batch.ids, self.groups)).to(values.device)
        rows = None
        if batch.labels is not None and self.by_label is not None:
            rows = self._rows(batch.labels, batch.start).to(values.device)
            self.by_label.add(rows, group, values, squares, self._classes())
        if logits is not None:
            predicted = self._add_outputs(logits.to(values.device), rows)
            if self.by_prediction is not None:
                self.by_prediction.add(predicted, group, values, squares, self._classes())

    def profile(self, notes: tuple[str, ...]) -> ClassProfile:
        self._settle()
        names = self.names or tuple(str(label) for label in self.seen)
        order = list(range(len(names)))
        if self.names is None:
            order.sort(key=lambda row: natural_order(names[row]))
        ordered = tuple(names[row] for row in order)
        outputs = None
        if self.outputs:
            arrays = {key: value.cpu().numpy() for key, value in self.outputs.items()}
            arrays["histogram"] = arrays["histogram"].reshape(2, CONFIDENCE_BINS)
            outputs = OutputStatistics(labelled=bool(self.labelled), **arrays)
        return ClassProfile(
            class_names=ordered,
            by_label=self.by_label.sums(order) if self.by_label else None,
            by_prediction=self.by_prediction.sums(order) if self.by_prediction else None,
            outputs=outputs,
            signature=self.stream.signature(ordered, self.groups),
            notes=notes,
        )

    def _begin(self, batch: Batch) -> None:
        """Decide, from the first batch, what can be accumulated."""
        import torch

        self.labelled = batch.labels is not None
        width = batch.representations.shape[1]
        device = batch.representations.device
        if device.type == "mps":
            device = torch.device("cpu")
        scores = batch.logits
        if not self.labelled and self.names is None and scores is not None:
            # A label that is a bare number means the output of that number, as in cross-entropy.
            self.names = tuple(map(str, range(scores.shape[1])))
        self.scored = (
            scores is not None
            and self.names is not None
            and scores.shape[1] == len(self.names)
            and not _named_otherwise(self.stream.model, self.names)
        )
        if not self.labelled and not self.scored:
            raise InputError(
                "The data have no labels, and the model's output cannot stand in for them: "
                + (
                    "it gives no class scores."
                    if scores is None or self.names is None
                    else f"it gives {scores.shape[1]} scores for {len(self.names)} classes "
                    f"({', '.join(self.names[:5])}, ...), or names other classes."
                )
                + " Give labels, or the model with its head and class_names in its order."
            )
        sides = self.labelled + self.scored
        _warn_of_size(sides, self._classes(), self.groups, width)
        if self.labelled:
            self.by_label = _Sums(self._classes(), self.groups, width, device)
        if self.scored and scores is not None:
            self.probabilities = _are_probabilities(scores)
            self.by_prediction = _Sums(self._classes(), self.groups, width, device)
            n = scores.shape[1]
            counts = dict.fromkeys(("counts", "correct"), torch.int64)
            self.outputs = {
                key: torch.zeros(n, dtype=counts.get(key, torch.float64), device=device)
                for key in _PER_CLASS
            }
            self.outputs["histogram"] = torch.zeros(
                2 * CONFIDENCE_BINS, dtype=torch.int64, device=device
            )

    def _classes(self) -> int:
        return len(self.names) if self.names is not None else max(1, len(self.seen))

    def _scores(self, batch: Batch) -> Tensor | None:
        return batch.logits if self.scored else None

    def _rows(self, labels: Tensor, start: int) -> Tensor:
        """Return the row (batch,) of each label."""
        import torch

        from resque.representation.labels import named_or_raise

        if self.names is not None:
            named_or_raise(labels, self.names, start)
            return labels
        for label in torch.unique(labels).tolist():
            self.seen.setdefault(label, len(self.seen))
        return torch.tensor([self.seen[label] for label in labels.tolist()], dtype=torch.int64)

    def _add_outputs(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Add what the class scores (batch, classes) say; return the predictions (batch,)."""
        import torch

        scores = logits.double()
        logs = scores.clamp_min(1e-300).log() if self.probabilities else scores.log_softmax(1)
        probabilities = logs.exp()
        confidence, predicted = probabilities.max(1)
        told = self.outputs
        where = predicted if rows is None else rows
        right = torch.zeros_like(predicted) if rows is None else (predicted == rows).long()
        told["counts"].index_add_(0, where, torch.ones_like(where))
        told["correct"].index_add_(0, where, right)
        if rows is not None:
            told["loss"].index_add_(0, rows, -logs.gather(1, rows[:, None])[:, 0])
        told["confidence"].index_add_(0, where, confidence)
        entropy = -torch.where(probabilities > 0, probabilities * logs, 0.0).sum(1)
        told["entropy"].index_add_(0, where, entropy)
        bins = (confidence * CONFIDENCE_BINS).long().clamp_(0, CONFIDENCE_BINS - 1)
        told["histogram"].index_add_(0, right * CONFIDENCE_BINS + bins, torch.ones_like(bins))
        return predicted

    def _check_finite(self, batch: Batch, finite: Tensor) -> None:
        # Looking at a value on a GPU waits for it, so that is done now and then only.
        self.unchecked.append((batch.start, batch.ids, finite))
        if finite.device.type == "cpu" or len(self.unchecked) >= 16:
            self._settle()

    def _settle(self) -> None:
        from resque.representation.stream import not_finite

        for start, ids, finite in self.unchecked:
            if not bool(finite.all()):
                place = int((~finite).nonzero()[0])
                raise not_finite(start + place, ids[place])
        self.unchecked.clear()


class _Sums:
    """Running counts, sums and squared norms (classes, groups, ...) that grow with the classes."""

    def __init__(self, classes: int, groups: int, width: int, device: torch.device) -> None:
        import torch

        self.groups, self.width = groups, width
        rows = classes * groups
        self.counts = torch.zeros(rows, dtype=torch.int64, device=device)
        self.values = torch.zeros(rows, width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(rows, dtype=torch.float64, device=device)

    def add(
        self, rows: Tensor, group: Tensor, values: Tensor, squares: Tensor, classes: int
    ) -> None:
        import torch

        if classes * self.groups > len(self.counts):
            self._grow(classes)
        cell = rows * self.groups + group
        self.counts.index_add_(0, cell, torch.ones_like(cell))
        self.values.index_add_(0, cell, values)
        self.squares.index_add_(0, cell, squares)

    def sums(self, order: list[int]) -> ClassSums:
        n, keep = len(order), order == list(range(len(order)))

        def shaped(tensor: Tensor, *shape: int) -> np.ndarray:
            array: np.ndarray = (
                tensor[: n * self.groups].reshape(n, self.groups, *shape).cpu().numpy()
            )
            return array if keep else array[order]

        return ClassSums(shaped(self.counts), shaped(self.values, self.width), shaped(self.squares))

    def _grow(self, classes: int) -> None:
        room = max(classes, 2 * len(self.counts) // self.groups)
        _warn_of_size(1, room, self.groups, self.width)
        for name in ("counts", "values", "squares"):
            old = getattr(self, name)
            new = old.new_zeros((room * self.groups, *old.shape[1:]))
            new[: len(old)] = old
            setattr(self, name, new)


def _warn_of_size(sides: int, classes: int, groups: int, width: int) -> None:
    size = sides * classes * groups * width * 8
    if size > LARGE_BYTES:
        twice = " x 2 (by label and by prediction)" if sides == 2 else ""
        warnings.warn(
            f"The profile takes {size / 1e6:.0f} MB: {classes} classes x {groups} groups x "
            f"{width} values x 8 bytes{twice}. groups={max(2, groups // 2)} halves it.",
            ResqueWarning,
            stacklevel=2,
        )


def _are_probabilities(scores: Tensor) -> bool:
    import torch

    values = scores.double()
    ones = torch.ones(len(values), dtype=values.dtype, device=values.device)
    return bool((values >= 0).all()) and torch.allclose(values.sum(1), ones, atol=1e-3)


def _named_otherwise(model: nn.Module | None, names: Iterable[str]) -> bool:
    """Whether a model's configuration names its outputs, and not as the data name their classes."""
    own = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(own, Mapping) or not own:
        return False
    labels = [str(own[key]) for key in sorted(own, key=int)]
    generic = all(label == f"LABEL_{place}" for place, label in enumerate(labels))
    return not generic and labels != list(names)


def _signature_of_sum(mine: Signature, theirs: Signature) -> Signature:
    mine.require_comparable(theirs)
    if mine.groups != theirs.groups:
        raise NotComparableError(
            f"These profiles have {mine.groups} and {theirs.groups} groups and cannot be added. "
            "Make both with the same number of groups."
        )

    def both(a: str, b: str) -> str:
        return "; ".join(sorted({*a.split("; "), *b.split("; ")}))

    names = mine.class_names
    if names != theirs.class_names:
        names = tuple(sorted({*names, *theirs.class_names}, key=natural_order))
    stated = mine.preprocessing is not None and theirs.preprocessing is not None
    return replace(
        mine,
        model=both(mine.model, theirs.model),
        preprocessing=mine.preprocessing if stated else None,
        class_names=names,
        examples=(mine.examples[0] + theirs.examples[0],),
        dtype=both(mine.dtype, theirs.dtype),
        hardware=both(mine.hardware, theirs.hardware),
        version=both(mine.version, theirs.version),
    )


def _spread(array: np.ndarray, places: Sequence[int], n: int) -> np.ndarray:
    if list(places) == list(range(n)):
        return array
    spread = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    spread[list(places)] = array
    return spread


def _profile_of(tensors: dict[str, np.ndarray], metadata: Mapping[str, str]) -> ClassProfile:
    signature = Signature.from_dict(json.loads(metadata["signature"]))
    labelled = json.loads(metadata["labelled"])
    classes = (len(signature.class_names),)
    cells = (*classes, signature.groups)
    shapes = {
        "by_label": (cells, (*cells, signature.width), cells),
        "by_prediction": (cells, (*cells, signature.width), cells),
        "outputs": (*(classes for _ in _PER_CLASS), (2, CONFIDENCE_BINS)),
    }
    read: dict[str, Any] = dict.fromkeys(_PARTS)
    for part in _PARTS:
        if f"{part}.counts" not in tensors:
            continue
        arrays = {}
        for key, shape in zip(_ARRAYS[part], shapes[part], strict=True):
            array = tensors[f"{part}.{key}"]
            if array.shape != shape or not np.isfinite(array).all():
                raise TypeError(
                    f"{part}.{key} has shape {array.shape} or values that are not finite; "
                    f"expected {shape}"
                )
            arrays[key] = array
        read[part] = (
            OutputStatistics(labelled=labelled, **arrays)
            if part == "outputs"
            else ClassSums(**arrays)
        )
    if read["by_label"] is None and read["by_prediction"] is None:
        raise KeyError("by_label.counts")
    return ClassProfile(
        class_names=signature.class_names,
        **read,
        signature=signature,
        notes=tuple(json.loads(metadata["notes"])),
    )
