"""The files that an update is made of, read as one model takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from resque.files import existing
from resque.index.profile import load_profile
from resque.representation.sources import Source, source_at, trainable

if TYPE_CHECKING:
    from resque.index.profile import ClassProfile
    from resque.representation.preprocessing import Preprocessing

# Of the free memory, what one data set may take; all of them lie beside the model and its training.
_SHARE_OF_MEMORY = 1 / 12
_PROFILE = ".safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateData:
    """The data of an update, as one model takes them.

    Attributes:
        training: a pair (inputs, labels), or a Dataset where that would not fit into memory.
        validation: likewise; None without.
        before: the old data likewise, or their profile; None without.
        class_names: in the order of the labels.
        preprocessing: what was done to the inputs.
        layer: at which the old data were read; None where that is free.
        pooling: likewise.
    """

    training: Any
    validation: Any
    before: ClassProfile | Any
    class_names: Sequence[str] | None
    preprocessing: str | None
    layer: str | None
    pooling: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateFiles:
    """Where the data of an update are.

    Attributes:
        training: a folder of images by class, or a .npz; see `source_at`.
        validation: likewise; None without.
        before: the old data likewise, or their profile (.safetensors); None without.
        split: of a .npz of training data that has several.
        split_validation: likewise; None for the same.
        split_before: likewise.
        class_names: see `source_at`.
        workers: likewise.
        skip_unreadable: likewise.
    """

    training: Path
    validation: Path | None = None
    before: Path | None = None
    split: str | None = None
    split_validation: str | None = None
    split_before: str | None = None
    class_names: tuple[str, ...] | None = None
    workers: int = 0
    skip_unreadable: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is read."""
        given = (self.training, self.validation, self.before)
        return tuple(path for path in given if path is not None)

    def check(self) -> None:
        """Raise InputError unless there is something at each path, before long work begins."""
        for path in self.paths:
            existing(path)
        if self.before is not None and self.before.suffix == _PROFILE:
            load_profile(self.before)

    def read(
        self,
        prepare: Preprocessing | Callable[[Any], Any] | None,
        *,
        batch_size: int,
        layer: str | None = None,
        pooling: str = "auto",
    ) -> UpdateData:
        """Return the data as one model takes them.

        Args:
            prepare: image to tensor.
            batch_size: examples per batch.
            layer: at which the model is to be read; None for that of the profile of the old
                data: only what was read alike can be compared.
            pooling: likewise.

        Raises:
            InputError: nothing there, or nothing in there that can be used.
        """

        def read(path: Path, split: str | None, names: Sequence[str] | None) -> tuple[Source, Any]:
            source = source_at(
                path, preprocessing=prepare, split=split, class_names=names,
                batch_size=batch_size, workers=self.workers, skip_unreadable=self.skip_unreadable,
            )  # fmt: skip
            return source, trainable(source, psutil.virtual_memory().available * _SHARE_OF_MEMORY)

        before: Any = None
        profiled = self.before is not None and self.before.suffix == _PROFILE
        if self.before is not None and profiled:
            before = load_profile(self.before)
            if before.signature is not None and layer is None:
                layer, pooling = before.signature.layer, before.signature.pooling
        source, training = read(self.training, self.split, self.class_names)
        names = self.class_names or source.class_names
        validation = None
        if self.validation is not None:
            validation = read(self.validation, self.split_validation or self.split, names)[1]
        if self.before is not None and not profiled:
            before = read(self.before, self.split_before or self.split, names)[1]
        return UpdateData(
            training=training,
            validation=validation,
            before=before,
            class_names=names,
            preprocessing=source.preprocessing,
            layer=layer,
            pooling=pooling,
        )
