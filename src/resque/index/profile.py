"""What one pass over a data set leaves behind, per class and group; it adds up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError, NotComparableError
from resque.files import checked_output, existing, written_whole
from resque.index.sums import (
    CONFIDENCE_BINS,
    PER_CLASS,
    SUMS,
    ClassSums,
    OutputStatistics,
    natural_order,
)
from resque.representation.signature import Signature

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resque.representation.models import LoadedModel
    from resque.representation.stream import Batch, Stream

FORMAT = "resque.ClassProfile/1"
GROUPS = 16
# Without one group, two must be left to multiply.
_FEWEST_GROUPS, _MOST_GROUPS = 3, 64


@dataclass(frozen=True, slots=True, eq=False)
class ClassProfile:
    """All that the index needs from a data set; made by `profile`, added with `+`, saved whole.

    Addition is associative and commutative, `ClassProfile.empty()` is its neutral element, and
    it leaves its arguments alone. With ids and class_names given, the profile of a data set does
    not depend on how or in what order the data were cut: counts are equal, sums agree to rounding.

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

        notes = {*self.notes, *other.notes}
        if (self.by_prediction is None) != (other.by_prediction is None):
            notes.add(
                "One part has no predictions, so the sum has none; give class_names to every part."
            )
        return ClassProfile(
            class_names=names,
            by_label=added(self.by_label, other.by_label),
            by_prediction=added(self.by_prediction, other.by_prediction),
            outputs=added(self.outputs, other.outputs),
            signature=signature,
            notes=tuple(sorted(notes)),
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
            "sha256": _digest(tensors),
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
            "class_counts": self.counts,
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
_ARRAYS = {
    "by_label": SUMS,
    "by_prediction": SUMS,
    "outputs": (*PER_CLASS, "histogram"),
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
        groups: number of groups, 3 to 64, into which the ids are hashed, for the interval and
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
    return profile_of(stream, groups)


def profile_of(
    stream: Stream, groups: int, each: Callable[[Batch], None] = lambda _: None
) -> ClassProfile:
    """Return the profile of a pass that is made now, showing each batch to somebody else too.

    Args:
        stream: the pass, not yet begun.
        groups: see `profile`.
        each: called with every batch once it has been added.

    Raises:
        InputError: see `profile`.
    """
    from resque.index.accumulation import Accumulation

    accumulation = Accumulation(stream.model, stream.source.class_names, groups)
    for batch in stream:
        accumulation.add(batch)
        each(batch)
    names, by_label, by_prediction, outputs = accumulation.parts()
    return ClassProfile(
        class_names=names,
        by_label=by_label,
        by_prediction=by_prediction,
        outputs=outputs,
        signature=stream.signature(names, groups),
        notes=stream.notes(),
    )


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
    if path.suffix != ".safetensors":
        raise InputError(
            f"{str(path)!r} is no profile (.safetensors); make one with `resque profile "
            f"{path} -o before.safetensors`."
        )
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
        read = _profile_of(tensors, metadata)
        if _digest(tensors) != metadata["sha256"]:
            raise ValueError("its numbers are not those that were written")
        return read
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


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _profile_of(tensors: dict[str, np.ndarray], metadata: Mapping[str, str]) -> ClassProfile:
    signature = Signature.from_dict(json.loads(metadata["signature"]))
    labelled = json.loads(metadata["labelled"])
    classes = (len(signature.class_names),)
    cells = (*classes, signature.groups)
    shapes = {
        "by_label": (cells, (*cells, signature.width), cells),
        "by_prediction": (cells, (*cells, signature.width), cells),
        "outputs": (*(classes for _ in PER_CLASS), (2, CONFIDENCE_BINS)),
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
