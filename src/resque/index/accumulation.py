"""The running sums of one pass over the data, on the model's device."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resque.errors import InputError, ResqueWarning
from resque.index.sums import (
    CONFIDENCE_BINS,
    PER_CLASS,
    ClassSums,
    OutputStatistics,
    groups_of,
    natural_order,
)
from resque.representation.labels import named_or_raise
from resque.representation.stream import Batch, not_finite

if TYPE_CHECKING:
    import numpy as np

LARGE_BYTES = 256e6


class Accumulation:
    """What a pass adds up, batch by batch.

    Args:
        model: the model of the pass, whose configuration may name its outputs.
        class_names: name of each label; None where names are the labels that are seen.
        groups: number of groups.
    """

    def __init__(
        self, model: nn.Module | None, class_names: tuple[str, ...] | None, groups: int
    ) -> None:
        self.names = class_names
        self.groups = groups
        self.model = model
        self.seen: dict[int, int] = {}  # label -> row, where no names were given
        self.labelled: bool | None = None
        self.scored = False
        self.probabilities = False
        self.by_label: _Sums | None = None
        self.by_prediction: _Sums | None = None
        self.outputs: dict[str, Tensor] = {}
        self.unchecked: list[tuple[int, np.ndarray, Tensor]] = []

    def add(self, batch: Batch) -> None:
        """Add one batch.

        Raises:
            InputError: a label without a name, a value that is not finite, or nothing to go by.
        """
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
        group = torch.from_numpy(groups_of(batch.ids, self.groups))
        group = group.to(values.device, non_blocking=True)
        rows = None
        if batch.labels is not None and self.by_label is not None:
            rows = self._rows(batch.labels, batch.start).to(values.device, non_blocking=True)
            self.by_label.add(rows, group, values, squares, self._classes())
        if logits is not None:
            predicted = self._add_outputs(logits.to(values.device), rows)
            if self.by_prediction is not None:
                self.by_prediction.add(predicted, group, values, squares, self._classes())

    def parts(
        self,
    ) -> tuple[tuple[str, ...], ClassSums | None, ClassSums | None, OutputStatistics | None]:
        """Return class names, sums by label and by prediction, and what the outputs say."""
        self._settle()
        names = self.names or tuple(str(label) for label in self.seen)
        order = list(range(len(names)))
        if self.names is None:
            order.sort(key=lambda row: natural_order(names[row]))
        outputs = None
        if self.outputs:
            arrays = {key: value.cpu().numpy() for key, value in self.outputs.items()}
            arrays["histogram"] = arrays["histogram"].reshape(2, CONFIDENCE_BINS)
            outputs = OutputStatistics(labelled=bool(self.labelled), **arrays)
        return (
            tuple(names[row] for row in order),
            self.by_label.sums(order) if self.by_label else None,
            self.by_prediction.sums(order) if self.by_prediction else None,
            outputs,
        )

    def _begin(self, batch: Batch) -> None:
        """Decide, from the first batch, what can be accumulated."""
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
            and not _named_otherwise(self.model, self.names)
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
                for key in PER_CLASS
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
        if self.names is not None:
            named_or_raise(labels, self.names, start)
            return labels
        for label in torch.unique(labels).tolist():
            self.seen.setdefault(label, len(self.seen))
        return torch.tensor([self.seen[label] for label in labels.tolist()], dtype=torch.int64)

    def _add_outputs(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Add what the class scores (batch, classes) say; return the predictions (batch,)."""
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
        for start, ids, finite in self.unchecked:
            if not bool(finite.all()):
                place = int((~finite).nonzero()[0])
                raise not_finite(start + place, ids[place])
        self.unchecked.clear()


class _Sums:
    """Running counts, sums and squared norms (classes, groups, ...) that grow with the classes."""

    def __init__(self, classes: int, groups: int, width: int, device: torch.device) -> None:
        self.groups, self.width = groups, width
        rows = classes * groups
        self.counts = torch.zeros(rows, dtype=torch.int64, device=device)
        self.values = torch.zeros(rows, width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(rows, dtype=torch.float64, device=device)

    def add(
        self, rows: Tensor, group: Tensor, values: Tensor, squares: Tensor, classes: int
    ) -> None:
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
            f"{width} values x 8 bytes{twice}. groups={max(3, groups // 2)} takes less.",
            ResqueWarning,
            stacklevel=2,
        )


def _are_probabilities(scores: Tensor) -> bool:
    values = scores.double()
    ones = torch.ones(len(values), dtype=values.dtype, device=values.device)
    atol = max(1e-3, 4 * torch.finfo(scores.dtype).eps)
    return bool((values >= 0).all()) and torch.allclose(values.sum(1), ones, atol=atol, rtol=0)


def _named_otherwise(model: nn.Module | None, names: Iterable[str]) -> bool:
    """Whether a model's configuration names its outputs, and not as the data name their classes."""
    own = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(own, Mapping) or not own:
        return False
    labels = [str(own[key]) for key in sorted(own, key=int)]
    generic = all(label == f"LABEL_{place}" for place, label in enumerate(labels))
    return not generic and labels != list(names)
