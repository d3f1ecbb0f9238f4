"""What users have, as batches: loaders, data sets, arrays, archives and folders of images."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
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

import resque
from resque import ClassProfile, InputError
from resque.representation.preprocessing import Preprocessing
from resque.representation.sources import Source, as_source, is_table, source_at

PREPARE = Preprocessing(image_size=(4, 4))


@pytest.fixture
def data(labelled: tuple[np.ndarray, np.ndarray]) -> TensorDataset:
    """The shared inputs (240, 6) in 3 classes, as a data set."""
    return TensorDataset(torch.from_numpy(labelled[0]), torch.from_numpy(labelled[1]))


def assert_same_profile(expected: ClassProfile, actual: ClassProfile) -> None:
    """Counts are equal, sums to rounding: float64 sums of other batches differ in the last bits."""
    assert expected.class_names == actual.class_names
    assert expected.counts == actual.counts
    for name in ("counts", "sums", "squares"):
        np.testing.assert_allclose(
            getattr(actual.by_label, name), getattr(expected.by_label, name), rtol=1e-5, atol=1e-4
        )


# ---- loaders, data sets, arrays ----------------------------------------------------------------


class Stored(Dataset[Any]):
    """A data set of one's own, with whatever attributes are given."""

    def __init__(self, data: TensorDataset, **attributes: Any) -> None:
        self.data = data
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        inputs, label = self.data[place]
        return inputs, int(label)


class Streamed(IterableDataset[Any]):
    """The same, known only by going through it."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        yield from self.data


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: DataLoader(d, batch_size=50),
        lambda d: d,
        Stored,
        Streamed,
        lambda d: DataLoader(Streamed(d), batch_size=7),
        lambda d: d.tensors,
        lambda d: tuple(tensor.numpy() for tensor in d.tensors),
        lambda d: (d.tensors[0].numpy(), d.tensors[1].tolist()),
        lambda d: (d.tensors[0].numpy()[::-1], d.tensors[1].numpy()[::-1]),
        lambda d: list(DataLoader(d, batch_size=50)),
        lambda d: (batch for batch in DataLoader(d, batch_size=50)),
        lambda d: as_source(d.tensors),
        lambda d: DataLoader(d, batch_size=32, num_workers=2),
    ],
    ids=[
        "loader",
        "data set",
        "own data set",
        "iterable data set",
        "loader of an iterable data set",
        "tensors",
        "arrays",
        "array and list",
        "reversed arrays",
        "list of batches",
        "generator",
        "source",
        "loader with workers",
    ],
)
def test_data_may_be(mlp: nn.Module, data: TensorDataset, wrap: Callable[[Any], Any]) -> None:
    """All of these hold the same examples, so they have the same profile."""
    # One id for all, as the reversed arrays have their examples at other places.
    ids = np.zeros(240, int)
    expected = resque.profile(mlp, data.tensors, ids=ids)
    assert_same_profile(expected, resque.profile(mlp, wrap(data), ids=ids))


def test_arrays_that_cannot_be_written_to_give_no_warning(
    mlp: nn.Module, data: TensorDataset, recwarn: pytest.WarningsRecorder
) -> None:
    """Memory-mapped files are such; nothing here writes."""
    inputs, labels = (tensor.numpy().copy() for tensor in data.tensors)
    inputs.flags.writeable = labels.flags.writeable = False
    resque.profile(mlp, (inputs, labels))
    assert not recwarn.list


def test_the_number_of_examples_is_known_where_it_can_be(data: TensorDataset) -> None:
    """An iterable has none before the pass."""
    assert as_source(data).examples == 240
    assert as_source(DataLoader(data, batch_size=50)).examples == 240
    assert as_source(Subset(data, range(10))).examples == 10
    assert as_source(Streamed(data)).examples is None
    assert as_source(iter([])).examples is None


def test_the_batch_size_is_that_asked_for(data: TensorDataset) -> None:
    """Only a loader keeps its own."""
    assert [len(batch[0]) for batch in as_source(data, batch_size=100).batches] == [100, 100, 40]
    loader = DataLoader(data, batch_size=120)
    assert [len(batch[0]) for batch in as_source(loader, batch_size=7).batches] == [120, 120]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("images/", r"got a str\..*source_at\(path\)"),
        (Path("images"), r"got a \w*Path\."),
        ({"x": np.zeros(3)}, r"got a dict\."),
        (3, "got int"),
        (None, "got NoneType"),
        ((np.zeros((3, 2)),) * 3, r"must be \(inputs, labels\); got 3 entries"),
        (np.array([object()]), "array of object"),
        (np.array(["a", "b"]), "expected numbers"),
        ((np.zeros((3, 2)), np.zeros(2, int)), "2 labels for 3 examples"),
        ((np.zeros((3, 2)), ["cat", "dog", "cat"]), "got text such as 'cat'"),
        ((np.zeros((3, 2)), np.array([None, 1, 2])), "got objects such as a NoneType"),
        ((np.zeros((3, 2)), 1), "labels"),
        (np.array(1.0), "one row per example"),
    ],
    ids=[
        "text",
        "path",
        "dict",
        "number",
        "nothing",
        "three arrays",
        "objects",
        "array of text",
        "too few labels",
        "text labels",
        "object labels",
        "one number for labels",
        "no axis",
    ],
)
def test_anything_else_is_refused(wrong: Any, expected: str) -> None:
    """The message says what came and what is expected."""
    with pytest.raises(InputError, match=expected):
        as_source(wrong)


# ---- names of classes --------------------------------------------------------------------------


def test_class_names_come_from_the_data_set(data: TensorDataset) -> None:
    """From .classes as torchvision has it, or from the features of a Hugging Face data set."""
    names = ["ant", "bee", "cat"]
    feature = SimpleNamespace(names=names)
    for dataset in (
        Stored(data, classes=names),
        Stored(data, classes=tuple(names)),
        Stored(data, features={"label": feature}),
        Subset(Stored(data, classes=names), range(10)),
        Subset(Subset(Stored(data, classes=names), range(10)), range(5)),
    ):
        assert as_source(dataset).class_names == tuple(names)
        assert as_source(DataLoader(dataset)).class_names == tuple(names)
        assert as_source(dataset, class_names=["x", "y", "z"]).class_names == ("x", "y", "z")


def test_torchvisions_data_sets_bring_their_names() -> None:
    """FakeData has none, so the labels seen are the names."""
    datasets = pytest.importorskip("torchvision.datasets")
    transforms = pytest.importorskip("torchvision.transforms")
    fake = datasets.FakeData(30, (1, 6, 1), 3, transform=transforms.ToTensor())
    assert as_source(fake).class_names is None
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    assert set(resque.profile(model, fake).class_names) <= {"0", "1", "2"}
    fake.classes = ["ant", "bee", "cat"]
    assert resque.profile(model, fake).class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "features",
    [torch.zeros(240, 6), np.zeros((240, 6)), ["a", "b"], {"label": None}, {}, None],
    ids=["tensor", "array", "list", "dict", "empty", "none"],
)
def test_other_attributes_called_features_or_classes_are_no_names(
    mlp: nn.Module, data: TensorDataset, features: Any
) -> None:
    """Many data sets keep their inputs under that word."""
    dataset = Stored(data, features=features, classes=3)
    assert as_source(dataset).class_names is None
    assert resque.profile(mlp, dataset).counts == {"0": 80, "1": 80, "2": 80}


def test_labels_that_are_numbered_through_name_themselves(data: TensorDataset) -> None:
    """0 to C - 1 in arrays are the model's own outputs; labels with a gap are not."""
    inputs, labels = data.tensors
    assert as_source((inputs, labels)).class_names == ("0", "1", "2")
    assert as_source((inputs, labels + 1)).class_names is None
    assert as_source((inputs, labels * 2)).class_names is None
    assert as_source(inputs).class_names is None


def test_class_names_must_differ_and_be_there(data: TensorDataset) -> None:
    """One name per label."""
    with pytest.raises(InputError, match="'a' is there more than once"):
        as_source(data, class_names=["a", "b", "a"])
    with pytest.raises(InputError, match="one name per label; got ''"):
        as_source(data, class_names=[])


def test_names_that_are_too_few_are_noticed(mlp: nn.Module, data: TensorDataset) -> None:
    """The label and its example are named."""
    with pytest.raises(InputError, match="Label 2 of example 2 has no name: there are 2"):
        resque.profile(mlp, data, class_names=["a", "b"])


# ---- ids ---------------------------------------------------------------------------------------


def test_ids_go_with_their_examples() -> None:
    """In order; by default the place in the pass."""
    assert Source(batches=[]).ids_of(3, 2).tolist() == [3, 4]
    source = as_source(np.zeros((4, 2)), ids=["d", "c", "b", "a"])
    assert source.ids_of(1, 2).tolist() == ["c", "b"]
    replaced = as_source(source, ids=np.arange(4) * 10)
    assert replaced.ids_of(2, 2).tolist() == [20, 30]
    assert as_source(source).ids_of(0, 1).tolist() == ["d"]


@pytest.mark.parametrize("n", [239, 241])
def test_there_must_be_one_id_per_example(mlp: nn.Module, data: TensorDataset, n: int) -> None:
    """Too few or too many are not of these data."""
    for kind in (data, DataLoader(data), iter(DataLoader(data, batch_size=50))):
        with pytest.raises(InputError, match=f"{n} ids"):
            resque.profile(mlp, kind, ids=np.arange(n))


@pytest.mark.parametrize("ids", [np.arange(4.0), np.zeros((4, 1), int), [None] * 4])
def test_ids_are_integers_or_strings(ids: Any) -> None:
    """Floats may be equal by rounding, and objects have no lasting hash."""
    with pytest.raises(InputError, match="one integer or string per example"):
        as_source(np.zeros((4, 2)), ids=ids)


@pytest.mark.parametrize(
    "shuffled",
    [
        lambda d: DataLoader(d, batch_size=8, shuffle=True),
        lambda d: DataLoader(d, batch_size=8, sampler=SubsetRandomSampler(range(100))),
        lambda d: DataLoader(d, batch_sampler=BatchSampler(RandomSampler(d), 8, False)),
        lambda d: DataLoader(d, batch_size=None, shuffle=True),
    ],
    ids=["shuffle", "sampler", "batch sampler", "no batching"],
)
def test_a_loader_that_shuffles_is_noted(
    data: TensorDataset, shuffled: Callable[[Any], DataLoader[Any]]
) -> None:
    """Its places say nothing, unless ids are given."""
    loader = shuffled(data)
    assert "The loader shuffles" in as_source(loader).notes[0]
    assert as_source(loader, ids=np.arange(240)).notes == ()


@pytest.mark.parametrize(
    "ordered",
    [
        lambda d: DataLoader(d, batch_size=8),
        lambda d: DataLoader(d, batch_sampler=BatchSampler(SequentialSampler(d), 8, False)),
        lambda d: DataLoader(d, batch_size=None),
        lambda d: DataLoader(Streamed(d), batch_size=8),
    ],
    ids=["loader", "batch sampler", "no batching", "iterable"],
)
def test_a_loader_in_order_is_not_noted(
    data: TensorDataset, ordered: Callable[[Any], DataLoader[Any]]
) -> None:
    """There is nothing to say about it."""
    assert as_source(ordered(data)).notes == ()


def test_the_note_reaches_the_result(mlp: nn.Module, data: TensorDataset) -> None:
    """It is a warning of every index from this profile."""
    shuffled = resque.profile(mlp, DataLoader(data, batch_size=8, shuffle=True))
    assert "The loader shuffles" in shuffled.notes[0]
    found = resque.shift_index(shuffled, resque.profile(mlp, data))
    assert any("The loader shuffles" in text for text in found.warnings)


# ---- archives of images ------------------------------------------------------------------------


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    """Twelve colour images (12, 5, 6, 3) of bytes."""
    return rng.integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path: Path, images: np.ndarray) -> Path:
    """Images in two splits, with names and, in one of them, ids."""
    path = tmp_path / "images.npz"
    np.savez(
        path,
        x_train=images[:8],
        y_train=np.arange(8) % 2,
        x_test=images[8:],
        y_test=np.arange(4) % 2,
        ids_test=np.array(["a", "b", "c", "d"]),
        class_names=np.array(["cat", "dog"]),
    )
    return path


def test_a_split_of_an_archive_gives_prepared_images(archive: Path, images: np.ndarray) -> None:
    """Images, labels, names, ids and what was done to the images."""
    source = source_at(archive, preprocessing=PREPARE, split="test", batch_size=3)
    (first, one), (second, two) = source.batches
    expected = torch.stack([PREPARE(image) for image in images[8:]])
    torch.testing.assert_close(torch.cat([first, second]), expected, rtol=0, atol=0)
    assert torch.cat([one, two]).tolist() == [0, 1, 0, 1]
    assert source.class_names == ("cat", "dog")
    assert source.ids_of(0, 4).tolist() == ["a", "b", "c", "d"]
    assert source.examples == 4
    assert source.preprocessing == str(PREPARE)
    assert source_at(archive, preprocessing=PREPARE, split="train").examples == 8
    named = source_at(archive, preprocessing=PREPARE, split="test", class_names=["x", "y"])
    assert named.class_names == ("x", "y")


def test_the_split_must_be_named_where_there_are_several(archive: Path) -> None:
    """The splits are listed, and a misspelt one gets the nearest."""
    with pytest.raises(InputError, match=r"has the splits test, train; say which one \(--split"):
        source_at(archive, preprocessing=PREPARE)
    with pytest.raises(InputError, match=r"no split 'tets'; it has test, train.*mean 'test'"):
        source_at(archive, preprocessing=PREPARE, split="tets")


def test_the_only_split_needs_no_name(tmp_path: Path, images: np.ndarray) -> None:
    """Whether it has one or not; labels may be missing, and grey images may lack an axis."""
    for key, suffix in (("x", ""), ("x_all", "_all")):
        np.savez(tmp_path / "one.npz", **{key: images[..., 0], f"y{suffix}": np.arange(12) % 3})
        source = source_at(tmp_path / "one.npz", preprocessing=PREPARE)
        ((batch, labels),) = source.batches
        assert tuple(batch.shape) == (12, 1, 4, 4)
        assert labels.tolist() == [0, 1, 2] * 4
        assert source.class_names == ("0", "1", "2")
    np.savez(tmp_path / "bare.npz", x=images)
    source = source_at(tmp_path / "bare.npz", preprocessing=PREPARE)
    ((batch,),) = source.batches
    assert tuple(batch.shape) == (12, 3, 4, 4)
    assert source.class_names is None
    with pytest.raises(InputError, match="no split 'train'; it has one only"):
        source_at(tmp_path / "bare.npz", preprocessing=PREPARE, split="train")


def test_images_need_to_be_prepared(archive: Path) -> None:
    """Nobody guesses how; the options that say it are named."""
    with pytest.raises(InputError, match=r"how to prepare them is not known.*--image-size"):
        source_at(archive, split="test")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 5, 5), np.float32), np.zeros((4, 25), np.uint8), np.zeros((4, 5, 5), np.uint16)],
    ids=["floats", "vectors", "16 bits"],
)
def test_images_in_an_archive_are_bytes(tmp_path: Path, wrong: np.ndarray) -> None:
    """Shape and type are named."""
    np.savez(tmp_path / "x.npz", x=wrong, y=np.arange(4))
    with pytest.raises(InputError, match=rf"type {wrong.dtype}; expected bytes \(uint8\)"):
        source_at(tmp_path / "x.npz", preprocessing=PREPARE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([0.0, 0.5, 1.5, 1.0]), "integers; got float64"),
        (np.eye(4, dtype=int), "Multi-label"),
        (np.array(["a", "b", "a", "b"]), "integers; got text"),
        (np.array([0, 1, 1]), "3 labels for 4 examples"),
        (np.array([0, 1, -1, 1]), "got -1 for example 2"),
        (np.array([True, False, True, True]), "integers; got bool"),
        (np.array(1), "[Ll]abels"),
    ],
    ids=["floats", "one-hot", "text", "too few", "negative", "bool", "a scalar"],
)
@pytest.mark.parametrize("kind", ["images", "table"])
def test_labels_in_an_archive_are_class_numbers(
    tmp_path: Path, kind: str, labels: np.ndarray, expected: str
) -> None:
    """The same labels are refused in an archive as in a loader; none is rounded."""
    if kind == "images":
        np.savez(tmp_path / "x.npz", x=np.zeros((4, 5, 5), np.uint8), y=labels)
        model: nn.Module | None = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    else:
        np.savez(tmp_path / "x.npz", representations=np.ones((4, 5)), labels=labels)
        model = None
    with pytest.raises(InputError, match=expected):
        resque.profile(model, source_at(tmp_path / "x.npz", preprocessing=PREPARE))


class Bomb:
    """What runs code when it is unpickled: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    """Otherwise the next test would show nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("key", ["x", "y", "class_names", "representations", "labels"])
def test_pickled_objects_in_an_archive_are_refused(tmp_path: Path, key: str) -> None:
    """Reading them could run code; none is run."""
    marker = tmp_path / "marker"
    bomb = np.array([Bomb(marker)] * 4)
    arrays: dict[str, Any] = {"x": np.zeros((4, 5, 5), np.uint8), "y": np.arange(4)}
    if key in ("representations", "labels"):
        arrays = {"representations": np.ones((4, 5)), "labels": np.arange(4)}
    np.savez(tmp_path / "x.npz", allow_pickle=True, **{**arrays, key: bomb})
    with pytest.raises(InputError, match=rf"'{key}' in .* pickled Python objects.* never read"):
        source_at(tmp_path / "x.npz", preprocessing=PREPARE)
    assert not marker.exists()


@pytest.fixture
def damaged(tmp_path: Path, images: np.ndarray) -> dict[str, Path]:
    """Files called .npz that are none, or not any more."""
    good = io.BytesIO()
    np.savez_compressed(good, x=images, y=np.arange(12) % 2)
    content = good.getvalue()
    middle = content.index(b"x.npy") + 60
    contents = {
        "empty": b"",
        "text": b"x,y\n1,2\n",
        "cut off": content[: len(content) // 2],
        "altered": content[:middle] + b"\xff" * 8 + content[middle + 8 :],
        "pickle": pickle.dumps({"x": 1}),
    }
    array = io.BytesIO()
    np.save(array, images)
    contents["one array"] = array.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", "no array")
        archive.writestr("representations.npy", "no array")
    contents["archive of text"] = packed.getvalue()
    for name, data in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
    return {name: tmp_path / f"{name}.npz" for name in contents}


@pytest.mark.parametrize(
    "kind", ["empty", "text", "cut off", "altered", "pickle", "one array", "archive of text"]
)
def test_a_damaged_archive_is_refused(damaged: dict[str, Path], kind: str) -> None:
    """With its name, and without a word of Python."""
    with pytest.raises(InputError, match=rf"{kind}\.npz"):
        source_at(damaged[kind], preprocessing=PREPARE)


def test_an_archive_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    """And what was expected."""
    np.savez(tmp_path / "x.npz", data=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(InputError, match=r"holds 'data', 'labels'; expected images.*'x_train'"):
        source_at(tmp_path / "x.npz", preprocessing=PREPARE)
    np.savez(tmp_path / "none.npz")
    with pytest.raises(InputError, match="holds nothing"):
        source_at(tmp_path / "none.npz", preprocessing=PREPARE)


# ---- tables of representations -----------------------------------------------------------------


def test_a_table_of_representations_needs_no_model(
    tmp_path: Path, labelled: tuple[np.ndarray, np.ndarray]
) -> None:
    """Its profile is that of the arrays; labels, ids and names are read where they are."""
    values, labels = labelled
    path = tmp_path / "table.npz"
    ids = np.array([f"image {k}" for k in range(240)])
    names = np.array(["ant", "bee", "cat"])
    np.savez(path, representations=values, labels=labels, ids=ids, class_names=names)
    assert is_table(path)
    expected = resque.profile(None, (values, labels), ids=ids, class_names=list(names))
    found = resque.profile(None, source_at(path))
    assert_same_profile(expected, found)
    assert expected.signature == found.signature
    np.savez(path, representations=values)
    assert source_at(path).class_names is None
    (batch,) = source_at(path).batches
    assert len(batch) == 1


def test_only_a_table_is_one(tmp_path: Path, archive: Path) -> None:
    """Not images, not a folder, not what is not there."""
    assert not is_table(archive)
    assert not is_table(tmp_path)
    assert not is_table(tmp_path / "nothing.npz")


def test_a_table_of_text_is_refused(tmp_path: Path) -> None:
    """Representations are numbers."""
    np.savez(tmp_path / "x.npz", representations=np.array([["a", "b"]] * 4), labels=np.arange(4))
    with pytest.raises(InputError, match="numbers"):
        source_at(tmp_path / "x.npz")


# ---- folders of images -------------------------------------------------------------------------


def pictures(folder: Path, colours: dict[str, Any], mode: str = "RGB") -> Path:
    """A folder of images of one colour each, by their paths inside it."""
    for name, colour in colours.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (6, 5), colour).save(file)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, of which one is nested, with images of several kinds and a text file."""
    colours = {
        "bee/2.png": (200, 0, 0),
        "bee/1.PNG": (100, 0, 0),
        "ant/b/2.bmp": (0, 200, 0),
        "ant/a/1.png": (0, 100, 0),
        "cat/1.gif": (0, 0, 100),
        "cat/2.jpg": (0, 0, 200),
    }
    pictures(tmp_path / "images", colours)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "README.md").write_text("no class")
    return tmp_path / "images"


def test_a_folder_gives_its_images_in_the_order_of_names(folder: Path) -> None:
    """Classes are the subfolders by name; an image's id is its path inside the folder."""
    source = source_at(folder, preprocessing=PREPARE, batch_size=4)
    assert source.class_names == ("ant", "bee", "cat")
    assert source.examples == 6
    batches = list(source.batches)
    assert [len(batch.inputs) for batch in batches] == [4, 2]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    ids = [name for batch in batches for name in batch.ids]
    assert ids == [
        "ant/a/1.png",
        "ant/b/2.bmp",
        "bee/1.PNG",
        "bee/2.png",
        "cat/1.gif",
        "cat/2.jpg",
    ]
    brightest = torch.cat([batch.inputs for batch in batches]).amax((2, 3)).argmax(1)
    assert brightest.tolist() == [1, 1, 0, 0, 2, 2]
    # JPEG and the palette of a GIF move a colour by a few steps of 255.
    levels = torch.cat([batch.inputs for batch in batches]).amax((1, 2, 3)) * 255
    torch.testing.assert_close(
        levels, torch.tensor([100.0, 200, 100, 200, 100, 200]), rtol=0, atol=4
    )


def test_a_profile_of_a_folder_matches_examples_by_their_paths(folder: Path) -> None:
    """The ids of the files decide the groups, not their places."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    source = source_at(folder, preprocessing=PREPARE, batch_size=4)
    (loaded,) = source_at(folder, preprocessing=PREPARE).batches
    found = resque.profile(model, source)
    arrays = (loaded.inputs, loaded.labels)
    names = ["ant", "bee", "cat"]
    assert_same_profile(
        resque.profile(model, arrays, ids=list(loaded.ids), class_names=names), found
    )
    by_place = resque.profile(model, arrays, class_names=names)
    assert by_place.by_label.counts.tolist() != found.by_label.counts.tolist()


def test_workers_give_the_same_batches(folder: Path) -> None:
    """Two processes read and prepare the images, in the same order."""
    alone = list(source_at(folder, preprocessing=PREPARE, batch_size=2).batches)
    together = list(source_at(folder, preprocessing=PREPARE, batch_size=2, workers=2).batches)
    assert [batch.ids for batch in alone] == [batch.ids for batch in together]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
        torch.testing.assert_close(one.labels, other.labels, rtol=0, atol=0)


def test_expected_classes_keep_their_order(folder: Path) -> None:
    """A model's outputs have one; a class without a subfolder is allowed, an unknown one not."""
    names = ["cat", "ant", "bee", "dog"]
    source = source_at(folder, preprocessing=PREPARE, class_names=names)
    (batch,) = source.batches
    assert source.class_names == tuple(names)
    assert batch.labels.tolist() == [1, 1, 2, 2, 0, 0]
    with pytest.raises(InputError, match=r"subfolder 'cat', which is none of.*Did you mean 'cats'"):
        source_at(folder, preprocessing=PREPARE, class_names=["ant", "bee", "cats"])


@pytest.fixture
def broken(folder: Path) -> Path:
    """The same folder with two files that are no images, and one that ends too soon."""
    (folder / "ant" / "a" / "0.png").write_text("no image")
    (folder / "cat" / "9.jpg").write_bytes(b"")
    whole = (folder / "bee" / "2.png").read_bytes()
    (folder / "bee" / "2.png").write_bytes(whole[:40])
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named(broken: Path, workers: int) -> None:
    """The first of them stops the pass, from a worker as well, and the option is named."""
    source = source_at(broken, preprocessing=PREPARE, workers=workers, batch_size=2)
    with pytest.raises(InputError, match=r"ant/a/0\.png' cannot be read.*--skip-unreadable") as e:
        list(source.batches)
    assert "Traceback" not in str(e.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_unreadable_images_can_be_left_out_and_are_counted(
    broken: Path, workers: int, batch_size: int
) -> None:
    """The others keep their ids, and the profile says how many are missing."""
    source = source_at(
        broken,
        preprocessing=PREPARE,
        workers=workers,
        batch_size=batch_size,
        skip_unreadable=True,
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    found = resque.profile(model, source)
    assert found.counts == {"ant": 2, "bee": 1, "cat": 2}
    assert found.notes == ("3 of 8 images could not be read and were left out.",)
    ids = [name for batch in source.batches for name in batch.ids]
    assert ids == ["ant/a/1.png", "ant/b/2.bmp", "bee/1.PNG", "cat/1.gif", "cat/2.jpg"]


def test_a_folder_without_any_readable_image_has_no_examples(tmp_path: Path) -> None:
    """Leaving all out leaves nothing."""
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_text("no image")
    source = source_at(tmp_path, preprocessing=PREPARE, skip_unreadable=True)
    with pytest.raises(InputError, match="hold no examples"):
        resque.profile(nn.Linear(4, 2), source, layer="output")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """What was expected is said."""
    with pytest.raises(InputError, match="is empty; expected one subfolder of images per class"):
        source_at(tmp_path, preprocessing=PREPARE)


def test_a_folder_without_subfolders_is_refused(tmp_path: Path) -> None:
    """Unless images without labels are what is wanted."""
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"has no subfolders; expected one subfolder[^.]*\.$"):
        source_at(tmp_path, preprocessing=PREPARE)
    pictures(tmp_path, {"1.png": (0, 0, 0)})
    with pytest.raises(InputError, match=r"has no subfolders.*--labels predicted"):
        source_at(tmp_path, preprocessing=PREPARE)
    (tmp_path / "1.png").unlink()
    with pytest.raises(InputError, match="has no subfolders"):
        source_at(tmp_path, preprocessing=PREPARE, unlabelled=True)


def test_a_flat_folder_is_data_without_labels(tmp_path: Path) -> None:
    """Where that is asked for."""
    pictures(tmp_path, {"2.png": (0, 0, 200), "1.png": (0, 0, 100)})
    source = source_at(tmp_path, preprocessing=PREPARE, unlabelled=True, class_names=["a", "b"])
    (batch,) = source.batches
    assert batch.labels is None
    assert batch.ids == ("1.png", "2.png")
    assert source.class_names == ("a", "b")


def test_asking_for_no_labels_keeps_those_of_subfolders(folder: Path) -> None:
    """Labels that are there do no harm."""
    (batch,) = source_at(folder, preprocessing=PREPARE, unlabelled=True).batches
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_folder_with_one_class_is_refused(tmp_path: Path) -> None:
    """It is most often the folder above the right one; named classes allow it."""
    pictures(tmp_path, {"train/ant.png": (0, 0, 0)})
    with pytest.raises(InputError, match=r"one subfolder only, 'train'.*inside it\?.*--classes"):
        source_at(tmp_path, preprocessing=PREPARE)
    source = source_at(tmp_path, preprocessing=PREPARE, class_names=["test", "train"])
    (batch,) = source.batches
    assert batch.labels.tolist() == [1]


def test_subfolders_without_images_are_noted_or_refused(tmp_path: Path) -> None:
    """One of several is a warning; all of them are an error."""
    (tmp_path / "ant").mkdir()
    (tmp_path / "bee").mkdir()
    (tmp_path / "bee" / "list.csv").write_text("no image")
    with pytest.raises(InputError, match=r"hold no images; expected files that end in .*\.png"):
        source_at(tmp_path, preprocessing=PREPARE)
    pictures(tmp_path, {"bee/1.png": (0, 0, 0)})
    source = source_at(tmp_path, preprocessing=PREPARE)
    assert source.notes == ("The subfolder 'ant' holds no images.",)
    assert source.class_names == ("ant", "bee")


def test_hidden_folders_are_no_classes(folder: Path) -> None:
    """Notebooks and file managers put their own beside the classes."""
    pictures(folder, {".ipynb_checkpoints/1.png": (0, 0, 0)})
    source = source_at(folder, preprocessing=PREPARE)
    assert source.class_names == ("ant", "bee", "cat")


def test_a_grey_image_among_coloured_ones_says_how_to_mend_it(folder: Path) -> None:
    """Whether preprocessing or the batch notices, --channels is named."""
    pictures(folder, {"ant/grey.png": 90}, mode="L")
    with pytest.raises(InputError, match=r"different shapes in one batch.*--channels"):
        list(source_at(folder, preprocessing=PREPARE).batches)
    colour = Preprocessing(image_size=(4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)
    for workers in (0, 2):
        source = source_at(folder, preprocessing=colour, workers=workers)
        with pytest.raises(InputError, match=r"grey\.png.*has 1 channels.*--channels 3") as caught:
            list(source.batches)
        assert "Traceback" not in str(caught.value)
    both = Preprocessing(image_size=(4, 4), channels=3)
    (batch,) = source_at(folder, preprocessing=both).batches
    assert tuple(batch.inputs.shape) == (7, 3, 4, 4)


def test_images_of_different_sizes_say_how_to_mend_it(folder: Path) -> None:
    """Without a size they cannot be one batch."""
    Image.new("RGB", (9, 9)).save(folder / "ant" / "large.png")
    with pytest.raises(InputError, match=r"\(3, 5, 6\), \(3, 9, 9\)\. .*--image-size"):
        list(source_at(folder, preprocessing=Preprocessing()).batches)


def test_a_folder_of_images_needs_to_be_told_how_to_prepare_them(folder: Path) -> None:
    """As for an archive."""
    with pytest.raises(InputError, match="how to prepare them is not known"):
        source_at(folder)


# ---- paths -------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_gets_the_nearest(folder: Path, archive: Path) -> None:
    """A misspelt name in a folder that exists, or nothing at all to go by."""
    with pytest.raises(InputError, match=r"nothing at .*imags'\. Did you mean .*images'"):
        source_at(folder.parent / "imags", preprocessing=PREPARE)
    with pytest.raises(InputError, match=r"nothing at .*nowhere.deep'\.$"):
        source_at(folder.parent / "nowhere" / "deep", preprocessing=PREPARE)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """With the kinds that are understood."""
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"is no folder and no \.npz file; expected a folder"):
        source_at(tmp_path / "data.csv", preprocessing=PREPARE)
