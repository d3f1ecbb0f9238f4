"""What users have, as batches: loaders, data sets, arrays, archives and folders of images."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
)

from resque.errors import InputError, in_words, nearest
from resque.files import existing
from resque.representation.labels import checked_labels

if TYPE_CHECKING:
    from resque.representation.models import LoadedModel
    from resque.representation.preprocessing import Preprocessing

IMAGE_SUFFIXES = frozenset(
    ".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()  # noqa: SIM905  # reads better
)


@dataclass(frozen=True, slots=True)
class IdentifiedBatch:
    """A batch that says itself which examples it holds, because some may have been left out."""

    inputs: torch.Tensor
    labels: torch.Tensor | None
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Batches, and what is known about them before the pass.

    Attributes:
        batches: (inputs, labels) pairs, dicts, or inputs alone.
        class_names: name of each label; None where names are the labels seen in the pass.
        examples: number of examples; None where only the pass will tell.
        ids: one integer or string per example, in order; None for the place in the pass.
        preprocessing: what was done to the images, for the signature; None if unknown.
        shares_memory: whether the batches lie in the user's own arrays, so that a model which
            writes to its input must be given copies.
        notes: sentences that every result from this source carries as warnings.
        notes_after: gives further such sentences once the pass is over, from the number of
            examples seen.
    """

    batches: Iterable[Any]
    class_names: tuple[str, ...] | None = None
    examples: int | None = None
    ids: Sequence[Any] | np.ndarray | None = None
    preprocessing: str | None = None
    shares_memory: bool = False
    notes: tuple[str, ...] = ()
    notes_after: Callable[[int], tuple[str, ...]] = field(default=lambda seen: ())  # noqa: ARG005

    def ids_of(self, start: int, n: int) -> np.ndarray:
        """Return the ids (n,) of the examples from place `start` on."""
        if self.ids is None:
            return np.arange(start, start + n)
        if start + n > len(self.ids):
            raise InputError(
                f"There are {len(self.ids)} ids and more examples than that; expected one id "
                "per example, in the order of the data."
            )
        return np.asarray(self.ids[start : start + n])


def as_source(
    data: Any,
    *,
    class_names: Sequence[str] | None = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    batch_size: int = 64,
) -> Source:
    """Return the batches of whatever a user calls data.

    Args:
        data: a DataLoader or any other iterable of batches; a torch Dataset; a pair
            (inputs, labels) of arrays or tensors; one array or tensor of unlabelled inputs; or
            a Source.
        class_names: name of each label 0, 1, ...; by default those the data set brings along.
        ids: one integer or string per example, in order: the same id marks the same example
            (or the same scene, track or patient) on both sides of a comparison.
        batch_size: size of the batches made from data sets and arrays.

    Raises:
        InputError: `data` is none of these, or names or ids are unusable.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more; got {batch_size}.")
    names = _checked_names(class_names)
    if ids is not None:
        ids = _checked_ids(ids)
    if isinstance(data, Source):
        return replace(
            data,
            class_names=names or data.class_names,
            ids=data.ids if ids is None else ids,
        )
    if isinstance(data, str | bytes | Path | dict):
        raise InputError(
            f"Data must be a DataLoader, a Dataset or a pair of arrays; got a "
            f"{type(data).__name__}. For a file or a folder use resque.representation.sources."
            "source_at(path), or the command line."
        )
    if isinstance(data, np.ndarray | torch.Tensor):
        data = (data,)
    if isinstance(data, tuple):
        arrays = _pair(data)
        labels = arrays[1].detach().cpu().numpy() if len(arrays) == 2 else None
        return Source(
            batches=_Slices(arrays, batch_size),
            class_names=names or (None if labels is None else _names_of_labels(labels)),
            examples=len(arrays[0]),
            ids=ids,
            shares_memory=True,
        )
    if isinstance(data, DataLoader):
        names = names or _names_of(data.dataset)
        return Source(
            batches=data,
            class_names=names,
            examples=_length(data.sampler),
            ids=ids,
            notes=() if ids is not None else _order_note(data),
        )
    if isinstance(data, Dataset):
        loader: DataLoader[Any] = DataLoader(data, batch_size=batch_size)
        return Source(
            batches=loader,
            class_names=names or _names_of(data),
            examples=_length(data),
            ids=ids,
        )
    if isinstance(data, Iterable):
        return Source(batches=data, class_names=names, ids=ids)
    raise InputError(
        f"Data must be a DataLoader, a Dataset or a pair of arrays; got {type(data).__name__}."
    )


def source_at(
    path: Path | str,
    *,
    preprocessing: Preprocessing | Callable[[Any], torch.Tensor] | None = None,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int = 0,
    skip_unreadable: bool = False,
    unlabelled: bool = False,
) -> Source:
    """Return the batches of a file or folder.

    Args:
        path: a folder with one subfolder of images per class; a `.npz` of images
            (`x_train`, `y_train`, ... or `x`, `y`; images (N, height, width[, channels]) of
            bytes); or a `.npz` table of representations (`representations` (N, values) and
            `labels` (N,)). A `.npz` may also hold `class_names` and `ids`.
        preprocessing: image to tensor; needed for images.
        split: which split of a `.npz` that has several, such as "train" or "test".
        class_names: name of each label of a `.npz`; classes to expect in a folder.
        batch_size: examples per batch.
        workers: processes that read and prepare the images of a folder; 0 for this one.
        skip_unreadable: leave out images that cannot be read, and count them, instead of
            stopping at the first one.
        unlabelled: also take a folder of images without subfolders, as data without labels.

    Raises:
        InputError: nothing there, or nothing in there that can be used.
    """
    path = existing(path)
    names = _checked_names(class_names)
    loader: DataLoader[Any]
    if path.is_dir():
        folder = _ImageFolder(path, _required(preprocessing, path), names, unlabelled)
        loader = DataLoader(folder, batch_size=batch_size, num_workers=workers, collate_fn=_as_list)
        return Source(
            batches=_ReadableBatches(loader, skip_unreadable),
            class_names=folder.class_names,
            examples=len(folder),
            preprocessing=_described(preprocessing),
            notes=folder.notes,
            notes_after=folder.unreadable_note,
        )
    if path.suffix == ".safetensors":
        raise InputError(
            f"{str(path)!r} is a profile or weights; expected the data themselves: a folder of "
            "images by class, a .npz of images, or a .npz table of representations."
        )
    if path.suffix != ".npz":
        raise InputError(
            f"{str(path)!r} is no folder and no .npz file; expected a folder of images by class, "
            "a .npz of images, a .npz table of representations, or a profile (.safetensors)."
        )
    return _npz_source(path, preprocessing, split, names, batch_size)


def classes_at(path: Path) -> tuple[str, ...]:
    """Return the classes that a folder's subfolders name, in their order; () elsewhere."""
    if not path.is_dir():
        return ()
    # Names that begin with a dot are of tools (.git, .ipynb_checkpoints), not of classes.
    return tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != "."))


def model_for(path: Path | str, loaded: LoadedModel | None) -> LoadedModel | None:
    """Return the model that what lies at a path needs; None for a table of representations.

    Raises:
        InputError: there are images and no model.
    """
    path = existing(path)
    if is_table(path):
        return None
    if loaded is None and (path.is_dir() or path.suffix == ".npz"):
        if path.suffix == ".npz":
            with _opened(path) as archive:
                _wanted(archive.files, path, None, any_split=True)
        raise InputError(
            f"{str(path)!r} holds no representations; name the model that gives them (--model)."
        )
    return loaded


def is_table(path: Path | str) -> bool:
    """Return whether a path is a `.npz` table of representations."""
    path = Path(path)
    if path.suffix != ".npz" or not path.is_file():
        return False
    with _opened(path) as archive:
        return "representations" in archive.files


def trainable(source: Source, most_bytes: float) -> Any:
    """Return the examples of a source as training wants them: in any order, many times over.

    Args:
        source: labelled images or representations, from `source_at`.
        most_bytes: data that take less memory than this once they are prepared are read now, and
            given as a pair (inputs (examples, ...), labels (examples,)); larger ones as a Dataset
            that reads each example again whenever it is wanted.

    Raises:
        InputError: the data have no labels or no examples, or an image cannot be read.
    """
    inputs, labels = [], []
    for batch in source.batches:
        if isinstance(batch, IdentifiedBatch):
            images, numbers = batch.inputs, batch.labels
        else:
            images, numbers = batch if len(batch) == 2 else (batch[0], None)
        if numbers is None:
            raise InputError("The data have no labels; an update needs them.")
        if (source.examples or 0) * images[0].nbytes > most_bytes:
            loader: Any = getattr(source.batches, "loader", source.batches)
            return _Examples(loader.dataset)
        inputs.append(images)
        labels.append(torch.as_tensor(numbers))
    if not inputs:
        raise InputError("The data hold no examples.")
    return torch.cat(inputs), torch.cat(labels)


class _Examples(Dataset[tuple[torch.Tensor, int]]):
    """(image, label) of a data set that tells ids and what is unreadable, too."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        files = getattr(dataset, "files", None)
        if files is not None:
            self.samples = [(str(file), label) for file, label in files]
            self.targets = [label for _, label in files]
        else:
            self.targets = dataset.labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        item = self.dataset[place]
        if isinstance(item, InputError):
            raise item
        if isinstance(item, _Unreadable):
            raise InputError(
                f"The image {item.file!r} cannot be read ({item.reason}). Mend or remove it."
            )
        return item[0], item[1]


class _Slices:
    """Batches cut out of arrays, where a loader would pick up every example by itself."""

    def __init__(self, arrays: tuple[torch.Tensor, ...], batch_size: int) -> None:
        self.arrays, self.batch_size = arrays, batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(self.arrays[0]), self.batch_size):
            yield tuple(array[start : start + self.batch_size] for array in self.arrays)


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """Images (N, height, width[, channels]) of bytes in memory, prepared one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, prepare: Any) -> None:
        self.images, self.labels, self.prepare = images, labels, prepare

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Any:
        from PIL.Image import fromarray

        pixels = self.images[place]
        grey = pixels.ndim == 3 and pixels.shape[-1] == 1
        made = _prepared(
            self.prepare, fromarray(pixels[..., 0] if grey else pixels), f"image {place}"
        )
        if isinstance(made, InputError):
            raise made
        return (made,) if self.labels is None else (made, int(self.labels[place]))


class _ImageFolder(Dataset[Any]):
    """One subfolder of images per class; subfolders in the order of their names.

    The id of an image is its path inside the folder, so that an image and its shifted copy in
    another folder are known to belong together.
    """

    def __init__(
        self,
        path: Path,
        prepare: Any,
        class_names: tuple[str, ...] | None,
        unlabelled: bool,
    ) -> None:
        self.path, self.prepare = path, prepare
        self.files: list[tuple[Path, int | None]] = []
        self.notes: tuple[str, ...] = ()
        self.class_names = class_names
        found = classes_at(path)
        flat = [] if found else _images_in(path)
        if flat and unlabelled:
            self.files = [(file, None) for file in flat]
            return
        if not found:
            what = "has no subfolders" if any(path.iterdir()) else "is empty"
            hint = (
                " Images without labels can be compared with `resque shift --labels predicted`."
                if flat
                else ""
            )
            raise InputError(
                f"The folder {str(path)!r} {what}; expected one subfolder of images per class."
                f"{hint}"
            )
        if class_names is None and len(found) == 1:
            raise InputError(
                f"The folder {str(path)!r} has one subfolder only, {found[0]!r}; expected one per "
                "class, at least two. Did you mean a folder inside it? To look at one class of "
                "several, name them all (--classes)."
            )
        unknown = [name for name in found if class_names and name not in class_names]
        if unknown:
            raise InputError(
                f"The folder {str(path)!r} has the subfolder {unknown[0]!r}, which is none of "
                f"the classes {', '.join(class_names or ())}."
                f"{nearest(unknown[0], class_names or ())}"
            )
        self.class_names = class_names or found
        empty = []
        for name in found:
            files = _images_in(path / name)
            if not files:
                empty.append(name)
            self.files += [(file, self.class_names.index(name)) for file in files]
        if not self.files:
            raise InputError(
                f"The subfolders of {str(path)!r} hold no images; expected files that end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}."
            )
        self.notes = tuple(f"The subfolder {name!r} holds no images." for name in empty)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(
        self, place: int
    ) -> tuple[torch.Tensor, int | None, str] | _Unreadable | InputError:
        from PIL import Image

        file, label = self.files[place]
        try:
            with Image.open(file) as image:
                image.load()
                pixels = image.copy()
        # PIL's readers raise whatever the broken bytes lead them to.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return _Unreadable(str(file), type(error).__name__)
        made = _prepared(self.prepare, pixels, str(file))
        if isinstance(made, InputError):
            return made
        return made, label, file.relative_to(self.path).as_posix()

    def unreadable_note(self, seen: int) -> tuple[str, ...]:
        left_out = len(self.files) - seen
        if not left_out:
            return ()
        return (f"{left_out} of {len(self.files)} images could not be read and were left out.",)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    # Handed on, as other errors are here: an exception raised in a worker process arrives as a
    # traceback in the message.
    file: str
    reason: str


class _ReadableBatches:
    """The batches of an image folder, without or stopped by what could not be read."""

    def __init__(self, loader: DataLoader[Any], skip_unreadable: bool) -> None:
        self.loader, self.skip_unreadable = loader, skip_unreadable

    def __iter__(self) -> Iterator[IdentifiedBatch]:
        for items in self.loader:
            for item in items:
                if isinstance(item, InputError):
                    raise item
            bad = [item for item in items if isinstance(item, _Unreadable)]
            if bad and not self.skip_unreadable:
                raise InputError(
                    f"The image {bad[0].file!r} cannot be read ({bad[0].reason}). Mend or remove "
                    "it, or leave such images out with skip_unreadable (--skip-unreadable)."
                )
            good = [item for item in items if not isinstance(item, _Unreadable)]
            if good:
                images, labels, ids = zip(*good, strict=True)
                told = None if None in labels else torch.tensor(labels)
                yield IdentifiedBatch(_stacked(images), told, ids)


def _prepared(prepare: Any, image: Any, name: str) -> torch.Tensor | InputError:
    """Return what a preprocessing makes of an image, or the error that names the image."""
    try:
        tensor = prepare(image)
    except InputError as error:
        return InputError(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001  # a user's function can fail in any way
        return InputError(
            f"The preprocessing failed on {name} ({in_words(error)}). Convert the images first, or "
            "mend the function that the factory brings."
        )
    if not isinstance(tensor, torch.Tensor):
        return InputError(
            f"The preprocessing gave a {type(tensor).__name__} for {name}; expected a tensor."
        )
    return tensor


def _described(prepare: Any) -> str | None:
    """Return what a preprocessing says of itself; None where that would not outlive the process."""
    if isinstance(prepare, FunctionType):
        local = "<" in prepare.__qualname__  # a lambda or a closure may be anything
        return None if local else f"{prepare.__module__}.{prepare.__qualname__}"
    told = " ".join(str(prepare).split())
    return None if re.search(r" at 0x[0-9a-f]+", told) else told


def _images_in(path: Path) -> list[Path]:
    return sorted(
        file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )


def _as_list(items: list[Any]) -> list[Any]:
    return items


def _stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"Images of different shapes in one batch: {', '.join(map(str, sorted(shapes)))}. "
            "Give them one size (--image-size) and one number of channels (--channels)."
        )
    return torch.stack(list(images))


def _npz_source(
    path: Path,
    preprocessing: Any,
    split: str | None,
    names: tuple[str, ...] | None,
    batch_size: int,
) -> Source:
    with _opened(path) as archive:
        wanted = _wanted(archive.files, path, split)
        arrays = {key: _array(archive, name, path) for key, name in wanted.items()}
        if names is None and "class_names" in archive.files:
            names = _checked_names([str(name) for name in _array(archive, "class_names", path)])
    ids = _checked_ids(arrays["ids"]) if "ids" in arrays else None
    labels = arrays.get("labels")
    if "representations" in arrays:
        pair = (arrays["representations"], labels) if labels is not None else (
            arrays["representations"],
        )  # fmt: skip
        try:
            return as_source(pair, class_names=names, ids=ids, batch_size=4096)
        except InputError as error:
            raise InputError(f"{str(path)!r}: {error}") from error
    images = arrays["images"]
    if images.ndim not in (3, 4) or images.dtype != np.uint8:
        raise InputError(
            f"The images in {str(path)!r} have shape {images.shape} and type {images.dtype}; "
            "expected bytes (uint8) of shape (N, height, width) or (N, height, width, channels)."
        )
    if labels is not None:
        labels = checked_labels(labels, len(images)).numpy()
    dataset = _Images(images, labels, _required(preprocessing, path))
    return Source(
        batches=DataLoader(dataset, batch_size=batch_size),
        class_names=names or (None if labels is None else _names_of_labels(labels)),
        examples=len(images),
        ids=ids,
        preprocessing=_described(preprocessing),
    )


def _wanted(
    files: list[str], path: Path, split: str | None, *, any_split: bool = False
) -> dict[str, str]:
    """Return what to read under which name: representations or images, labels, ids."""
    if "representations" in files:
        wanted = {"representations": "representations", "labels": "labels", "ids": "ids"}
        return {key: wanted[key] for key in wanted if wanted[key] in files}
    splits = sorted(
        name.removeprefix("x").removeprefix("_")
        for name in files
        if name == "x" or name.startswith("x_")
    )
    if not splits:
        raise InputError(
            f"{str(path)!r} holds {', '.join(map(repr, files)) or 'nothing'}; expected images "
            "('x_train' and 'y_train', or 'x' and 'y') or a table ('representations' and "
            "'labels')."
        )
    named = [name for name in splits if name]
    if split is None and len(splits) > 1 and not any_split:
        raise InputError(
            f"{str(path)!r} has the splits {', '.join(named)}; say which one (--split {named[0]})."
        )
    if split is not None and split not in splits:
        raise InputError(
            f"{str(path)!r} has no split {split!r}; it has {', '.join(named) or 'one only'}."
            f"{nearest(split, named)}"
        )
    chosen = splits[0] if split is None else split
    suffix = f"_{chosen}" if chosen else ""
    wanted = {"images": f"x{suffix}", "labels": f"y{suffix}", "ids": f"ids{suffix}"}
    return {key: name for key, name in wanted.items() if name in files}


def _opened(path: Path) -> Any:
    # Anything else under this name would be taken by numpy for a bare array or for a pickle.
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{str(path)!r} is no readable .npz file, or it is cut off. Write it with numpy.savez."
        )
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{str(path)!r} is no readable .npz file ({error}). Write it anew with numpy.savez."
        ) from error


def _array(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise InputError(
                f"{name!r} in {str(path)!r} holds pickled Python objects, which can run code and "
                "are never read. Save it as a plain numeric or text array."
            ) from error
        raise InputError(f"{name!r} in {str(path)!r} is damaged ({error}).") from error


def _required(preprocessing: Any, path: Path) -> Any:
    if preprocessing is None:
        raise InputError(
            f"{str(path)!r} holds images, and how to prepare them is not known; give a model "
            "that brings its preprocessing, or name it (--image-size, "
            "--mean, --std; in an options file image_size, mean, std)."
        )
    return preprocessing


def _tensor(array: Any) -> torch.Tensor:
    if not isinstance(array, torch.Tensor):
        array = np.asarray(array)
        if array.dtype.kind not in "biufc":
            raise InputError(
                f"An array of {array.dtype} cannot be used; expected numbers, one row per example."
            )
        # Arrays that may not be written to, or run backwards, cannot be shared with torch.
        shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        array = torch.from_numpy(array if shared else array.copy())
    tensor: torch.Tensor = array
    if tensor.ndim == 0:
        raise InputError("Data must have one row per example; got a single number.")
    return tensor


def _pair(data: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    if len(data) not in (1, 2):
        raise InputError(
            f"Data given as a tuple must be (inputs, labels); got {len(data)} entries."
        )
    inputs = _tensor(data[0])
    if len(data) == 1 or data[1] is None:
        return (inputs,)
    return inputs, checked_labels(data[1], len(inputs))


def _names_of_labels(labels: np.ndarray) -> tuple[str, ...] | None:
    """Return "0", "1", ... where the labels are exactly 0 to C - 1, else None."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
        return None
    seen = np.unique(labels)
    if seen[0] != 0 or seen[-1] != len(seen) - 1:
        return None
    return tuple(map(str, seen))


def _names_of(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names that a data set brings along, or that its labels make plain."""
    names = getattr(dataset, "classes", None)
    if names is None:
        feature = (getattr(dataset, "features", None) or {}).get("label")
        names = getattr(feature, "names", None)
    if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
        return _checked_names(names)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return _names_of_labels(dataset.tensors[1].detach().cpu().numpy())
    inner = getattr(dataset, "dataset", None)  # torch.utils.data.Subset
    return _names_of(inner) if inner is not None and hasattr(dataset, "indices") else None


def _length(sized: Any) -> int | None:
    if isinstance(sized, IterableDataset):
        return None
    try:
        return len(sized)
    except TypeError:
        return None


def _order_note(loader: DataLoader[Any]) -> tuple[str, ...]:
    if isinstance(loader.dataset, IterableDataset):
        return ()
    batches = loader.batch_sampler
    order = batches.sampler if type(batches) is BatchSampler else batches or loader.sampler
    if isinstance(order, SequentialSampler):
        return ()
    note = (
        "The loader shuffles, so places in it do not say which example is which: an example that "
        "both sides share is not recognised. Give ids, or a loader with shuffle=False."
    )
    return (note,)


def _checked_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    checked = tuple(str(name).strip() for name in names)
    if not checked or not all(checked):
        raise InputError(
            f"class_names (--classes) must be one name per label; got {', '.join(checked)!r}."
        )
    twice = sorted(name for name, count in Counter(checked).items() if count > 1)
    if twice:
        raise InputError(f"Class names must differ; {twice[0]!r} is there more than once.")
    return checked


def _checked_ids(ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.asarray(ids)
    if array.dtype.kind == "S":  # the same text must fall into the same group, as bytes or not
        array = np.char.decode(array, "utf-8")
    elif array.dtype.kind in "OT" and all(isinstance(key, str) for key in array.flat):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise InputError(
            f"ids must be one integer or string per example; got shape {array.shape} of "
            f"{array.dtype}."
        )
    return array
