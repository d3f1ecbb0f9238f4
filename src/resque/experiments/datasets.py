"""The data sets of the experiments, read from the folder that RESQUE_DATA names."""

from __future__ import annotations

import csv
import gzip
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resque.errors import InputError, in_words, nearest

# Name -> file.
_FILES = {
    "fashion_mnist": "fashion_mnist.npz",
    "mnist": "mnist.npz",
    "emnist_letters": "emnist_letters.npz",
    "cifar10": "cifar10.npz",
    "gtsrb": "gtsrb.npz",
    "cifar100_coarse_mini": "cifar100_coarse_mini.npz",
    "tiny_imagenet_food": "tiny_imagenet_food.npz",
    "ag_news": "text_ag_news.csv.gz",
    "trec": "text_trec.csv.gz",
}
DATASETS = tuple(_FILES)
_SIDE = 32
_COLUMNS = ("text", "label", "label_name", "split")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSet:
    """Images and their labels.

    Attributes:
        name: of the data set.
        images: to train on, (examples, 3, 32, 32) uint8.
        labels: (examples,) int64.
        test_images: (test examples, 3, 32, 32) uint8.
        test_labels: (test examples,) int64.
        class_names: of the labels 0, 1, ...
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextSet:
    """Texts and their labels.

    Attributes:
        name: of the data set.
        texts: to train on, one str per example.
        labels: (examples,) int64.
        test_texts: one str per test example.
        test_labels: (test examples,) int64.
        class_names: of the labels 0, 1, ...
    """

    name: str
    texts: tuple[str, ...]
    labels: np.ndarray
    test_texts: tuple[str, ...]
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def dataset(name: str, folder: Path | str | None = None) -> ImageSet | TextSet:
    """Return one of the data sets: images (examples, 3, 32, 32) uint8, or texts.

    Each is a subset of the published one, in an order drawn once. Grey images of 28 x 28 are
    padded with black to 32 x 32 and repeated in three channels, so that one network reads them
    all. Divide by 255 before a shift of `resque.experiments.shifts`.

    Traps: GTSRB's training images are tracks of 30 frames of one sign, and which image is of
    which track is not known here. Validation images drawn from the training ones would be near
    copies of them: draw them from the test images. AG News was drawn from its test file alone,
    TREC's classes are far from equal in number, and CIFAR-100 has its 20 coarse classes, its
    training and test images mixed and parted anew.

    Args:
        name: one of `DATASETS`.
        folder: with the files; by default the one that the environment variable RESQUE_DATA
            names.

    Raises:
        InputError: there is no such data set, folder or file, or the file holds something else.

    Example:
        >>> DATASETS[:2]
        ('fashion_mnist', 'mnist')
    """
    if name not in _FILES:
        raise InputError(
            f"There is no data set {name!r}.{nearest(name, DATASETS)} Expected one of "
            f"{', '.join(DATASETS)}."
        )
    path = _folder(folder) / _FILES[name]
    if not path.is_file():
        raise InputError(
            f"There is no file {str(path)!r}. Point RESQUE_DATA at the folder that has "
            f"{_FILES[name]!r}."
        )
    try:
        return _image_set(name, path) if path.suffix == ".npz" else _text_set(name, path)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        expected = (
            "x_train (examples, height, width, 1 or 3) uint8, y_train, x_test, y_test and "
            "class_names"
            if path.suffix == ".npz"
            else f"a gzipped table with the columns {', '.join(_COLUMNS)}"
        )
        raise InputError(
            f"{str(path)!r} cannot be read ({in_words(error)}); expected {expected}. Fetch the "
            "file anew, or point RESQUE_DATA at another folder."
        ) from error


def _folder(given: Path | str | None) -> Path:
    folder = given or os.environ.get("RESQUE_DATA")
    if not folder:
        raise InputError(
            "The data sets of the experiments do not come with this package. Set the environment "
            "variable RESQUE_DATA to the folder that has them. What is asked for needs some of "
            f"{', '.join(_FILES.values())}."
        )
    if not Path(folder).is_dir():
        raise InputError(
            f"{str(folder)!r} is {'a file' if Path(folder).exists() else 'not there'}; expected "
            "the folder of the data sets. Point RESQUE_DATA at it."
        )
    return Path(folder)


def _image_set(name: str, path: Path) -> ImageSet:
    with np.load(path, allow_pickle=False) as file:
        class_names = tuple(str(name) for name in file["class_names"])
        images, test_images = (_in_three_channels(file[key]) for key in ("x_train", "x_test"))
        labels, test_labels = (
            _checked_labels(file[f"y_{part}"], len(chosen), class_names)
            for part, chosen in (("train", images), ("test", test_images))
        )
    return ImageSet(
        name=name,
        images=images,
        labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=class_names,
    )


def _in_three_channels(images: np.ndarray) -> np.ndarray:
    """Return images (examples, 3, 32, 32) of (examples, height, width, 1 or 3)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"images are {images.shape} {images.dtype}")
    height, width = images.shape[1:3]
    if height > _SIDE or width > _SIDE:
        raise ValueError(f"images are {height} x {width}, larger than {_SIDE} x {_SIDE}")
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    padded = np.zeros((len(images), 3, _SIDE, _SIDE), dtype=np.uint8)
    padded[:, :, top : top + height, left : left + width] = images.transpose(0, 3, 1, 2)
    return padded


def _text_set(name: str, path: Path) -> TextSet:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    names = {int(row["label"]): row["label_name"] for row in rows}
    class_names = tuple(names[label] for label in range(len(names)))
    texts, labels = {}, {}
    for part in ("train", "test"):
        chosen = [row for row in rows if row["split"] == part]
        texts[part] = tuple(row["text"] for row in chosen)
        labels[part] = _checked_labels(
            np.array([int(row["label"]) for row in chosen]), len(chosen), class_names
        )
    return TextSet(
        name=name,
        texts=texts["train"],
        labels=labels["train"],
        test_texts=texts["test"],
        test_labels=labels["test"],
        class_names=class_names,
    )


def _checked_labels(labels: np.ndarray, examples: int, class_names: tuple[str, ...]) -> np.ndarray:
    if labels.shape != (examples,) or not examples:
        raise ValueError(f"{examples} examples have labels of shape {labels.shape}")
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"labels are {labels.min()} to {labels.max()} of {len(class_names)}")
    return labels.astype(np.int64)
