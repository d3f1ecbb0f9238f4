"""The command line on small inputs: the numbers of the library, and what is printed where."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import resque
from resque.cli import main, run
from resque.experiments import digits

COMMANDS = (
    "profile", "shift", "task", "forecast", "compare", "plan", "retrain", "history", "report",
    "reproduce", "doctor", "demo",
)  # fmt: skip
# What other programs may rely on, for every release.
SHIFT_KEYS = {
    "index", "value", "floor", "debiased", "lower", "upper", "confidence_level", "p_value",
    "classes", "examples_before", "examples_after", "per_class", "warnings", "signature",
}  # fmt: skip
TASK_KEYS = {
    "index", "value", "nearest_class_mean_accuracy", "iterations", "classes", "examples",
    "warnings", "signature",
}  # fmt: skip
# In the order of the colour channels that tell them apart, which is also that of their names.
CLASSES = ("apple", "leaf", "sky")
# The network works in float32, the tables in float64; angles of 0.01 keep six digits.
SINGLE_PRECISION = 1e-6


class MeanColour(nn.Sequential):
    """A network whose representation is the mean colour, and whose answer is the strongest one."""

    def __init__(self) -> None:
        head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(head.weight)
        super().__init__(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


@dataclass(frozen=True)
class Pictures:
    """Images (examples, 8, 8, 3) of bytes, and their labels (examples,)."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The representations that `MeanColour` gives, and the labels."""
        return self.images.mean((1, 2)) / 255, self.labels

    def saved(self, folder: Path, names: Sequence[str] | None = CLASSES, mode: str = "RGB") -> Path:
        """Write one image per file, into a subfolder per class if classes have names."""
        for place, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            home = folder / names[label] if names else folder
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert(mode).save(home / f"{place:03}.png")
        return folder

    def ids(self, names: Sequence[str]) -> list[str]:
        """The id that each image has in such a folder: its path in there."""
        return [f"{names[label]}/{place:03}.png" for place, label in enumerate(self.labels)]


def pictures(seed: int, tint: Sequence[int] = (0, 0, 0), per_class: int = 12) -> Pictures:
    """Noisy images, each strongest in the channel of its class, all of them tinted."""
    rng = np.random.default_rng(seed)
    labels = np.arange(3 * per_class) // per_class
    colours = 50 + 120 * np.eye(3)[labels] + tint
    images = colours[:, None, None] + rng.integers(-40, 41, (len(labels), 8, 8, 3))
    return Pictures(images.clip(0, 255).astype(np.uint8), labels)


@pytest.fixture
def old() -> Pictures:
    return pictures(seed=1)


@pytest.fixture
def new() -> Pictures:
    return pictures(seed=2, tint=(40, 0, 0))


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A module of factories that the command line can name, as if it lay in the current folder."""
    module = ModuleType("zoo")
    module.network = MeanColour
    monkeypatch.setitem(sys.modules, "zoo", module)
    # Loading a factory adds the current folder to the path of the process.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture
def folders(tmp_path: Path, old: Pictures, new: Pictures) -> tuple[Path, Path]:
    """The old and the new images, each in a folder by class."""
    return old.saved(tmp_path / "old"), new.saved(tmp_path / "new")


@pytest.fixture
def tables(tmp_path: Path, old: Pictures, new: Pictures) -> tuple[Path, Path]:
    """The same as tables of representations."""
    return (
        saved_table(tmp_path / "old.npz", *old.table),
        saved_table(tmp_path / "new.npz", *new.table),
    )


def saved_table(
    path: Path, representations: np.ndarray, labels: np.ndarray | None, **more: Any
) -> Path:
    arrays = {"representations": representations} | more
    np.savez(path, **arrays if labels is None else arrays | {"labels": labels})
    return path


MODEL = ("--model", "zoo:network", "--image-size", "8")


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must succeed in silence but for its result, and return that."""

    def run_quietly(*arguments: object) -> str:
        status = main([str(word) for word in arguments])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        return captured.out

    return run_quietly


@pytest.fixture
def answer(printed: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Run such a command with --json and return what its output means."""

    def run_for_json(*arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(printed(*arguments, "--json"))
        return found

    return run_for_json


Answer = Callable[..., dict[str, Any]]
Printed = Callable[..., str]


def assert_same_index(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """The two results agree, but for the rounding of float32, in every number of the index."""
    for key in ("value", "floor", "debiased", "lower", "upper", "p_value", "per_class"):
        assert expected[key] == pytest.approx(actual[key], abs=SINGLE_PRECISION, rel=1e-4)


# --- shift -------------------------------------------------------------------------------------


def test_shift_of_folders_gives_the_numbers_of_the_library(
    answer: Answer, folders: tuple[Path, Path], old: Pictures, new: Pictures
) -> None:
    """`resque shift` of two folders and a model gives what the library says of their means."""
    found = answer("shift", *folders, *MODEL)
    sides = [
        resque.profile(None, one.table, class_names=CLASSES, ids=one.ids(CLASSES))
        for one in (old, new)
    ]
    assert_same_index(resque.shift_index(*sides).to_dict(), found)
    assert set() == SHIFT_KEYS - set(found)
    assert found["index"] == "RESQUE_dist"
    assert (found["classes"], found["examples_before"], found["examples_after"]) == (3, 36, 36)
    assert set(CLASSES) == set(found["per_class"])
    assert found["warnings"] == []


def test_shift_signature_says_how_the_numbers_came_about(
    answer: Answer, folders: tuple[Path, Path]
) -> None:
    """The signature of a result names index, model, layer, preprocessing, classes and sizes."""
    signature = answer("shift", *folders, *MODEL, "--mean", "0.5", "--groups", "8")["signature"]
    expected = {
        "index": "RESQUE_dist",
        "model": "network",
        "layer": "input:3",
        "preprocessing": "size 8x8 (bilinear), mean 0.5, std 1",
        "width": 3,
        "class_names": list(CLASSES),
        "examples": [36, 36],
        "groups": 8,
        "version": version("resque"),
    }
    assert expected == {key: signature[key] for key in expected}
    assert len("0123456789abcdef") == len(signature["weights"])


def test_shift_of_tables_needs_no_model(
    answer: Answer, tables: tuple[Path, Path], old: Pictures, new: Pictures
) -> None:
    """Tables of representations are compared as they are, with labels as names."""
    found = answer("shift", *tables)
    expected = resque.shift_index(
        resque.profile(None, old.table), resque.profile(None, new.table)
    ).to_dict()
    assert expected == found


def test_table_may_bring_names_and_ids(answer: Answer, tmp_path: Path, old: Pictures) -> None:
    """The class names and ids that lie in a table are used as if they had been given."""
    representations, labels = old.table
    ids = np.array([f"scene {place // 2}" for place in range(len(labels))])
    path = saved_table(tmp_path / "t.npz", *old.table, class_names=np.array(CLASSES), ids=ids)
    expected = resque.profile(None, (representations, labels), class_names=CLASSES, ids=ids)
    assert main(["profile", str(path), "-o", "t.safetensors"]) == 0
    saved = resque.load_profile("t.safetensors")
    assert saved.class_names == CLASSES
    assert expected.by_label is not None
    assert saved.by_label is not None
    assert expected.by_label.counts.tolist() == saved.by_label.counts.tolist()


def test_profiles_first_and_shift_afterwards_is_the_same(
    answer: Answer, printed: Printed, folders: tuple[Path, Path]
) -> None:
    """A shift of data, of a profile and data, and of two profiles give one result."""
    expected = answer("shift", *folders, *MODEL)
    for side, name in zip(folders, ("b.safetensors", "a.safetensors"), strict=True):
        printed("profile", side, *MODEL, "-o", name)
    assert expected == answer("shift", "b.safetensors", folders[1], *MODEL)
    assert expected == answer("shift", folders[0], "a.safetensors", *MODEL)
    assert expected == answer("shift", "b.safetensors", "a.safetensors")


def test_order_of_the_classes_does_not_matter(
    answer: Answer, printed: Printed, tables: tuple[Path, Path], new: Pictures, tmp_path: Path
) -> None:
    """Profiles whose classes were named in different orders are matched by name."""
    names = ",".join(CLASSES)
    expected = answer("shift", *tables, "--classes", names)
    representations, labels = new.table
    saved_table(tmp_path / "turned.npz", representations, 2 - labels)
    printed("profile", tables[0], "--classes", names, "-o", "b.safetensors")
    printed("profile", "turned.npz", "--classes", "sky,leaf,apple", "-o", "a.safetensors")
    assert_same_index(expected, answer("shift", "b.safetensors", "a.safetensors"))


def test_new_data_take_over_the_groups_of_a_profile(
    answer: Answer, printed: Printed, tables: tuple[Path, Path]
) -> None:
    """Against a profile of 8 groups, new data are grouped into 8 as well."""
    printed("profile", tables[0], "--groups", "8", "-o", "b.safetensors")
    assert answer("shift", "b.safetensors", tables[1])["signature"]["groups"] == 8


def test_new_folder_may_lack_classes_of_the_old(
    answer: Answer, folders: tuple[Path, Path], old: Pictures
) -> None:
    """A class without a subfolder on the new side is reported, and the others are compared."""
    for file in (folders[1] / "leaf").iterdir():
        file.unlink()
    (folders[1] / "leaf").rmdir()
    found = answer("shift", *folders, *MODEL)
    assert found["missing_after"] == ["leaf"]
    assert {"apple", "sky"} == set(found["per_class"])
    assert any("'leaf'" in text for text in found["warnings"])


def test_confidence_level_sets_the_interval(answer: Answer, tables: tuple[Path, Path]) -> None:
    """A higher level gives a wider interval around the same value."""
    narrow, wide = (answer("shift", *tables, "--confidence-level", x) for x in (0.5, 0.99))
    assert (narrow["confidence_level"], wide["confidence_level"]) == (0.5, 0.99)
    assert wide["lower"] < narrow["lower"] < narrow["upper"] < wide["upper"]
    assert narrow["debiased"] == wide["debiased"]


# --- shift without labels ----------------------------------------------------------------------


def test_predicted_labels_equal_true_ones_of_a_model_that_is_right(
    answer: Answer, folders: tuple[Path, Path]
) -> None:
    """Where every prediction is right, predicted labels give the same index, at no cost."""
    expected = answer("shift", *folders, *MODEL)
    found = answer("shift", *folders, *MODEL, "--labels", "predicted")
    assert_same_index(expected, found)
    assert found["labels"] == "predicted"
    assert (found["label_cost"]["offset"], found["label_cost"]["accuracy_before"]) == (0.0, 1.0)
    assert any("predicted labels" in text for text in found["warnings"])


def test_flat_folder_without_labels_is_new_data(
    answer: Answer, folders: tuple[Path, Path], new: Pictures, tmp_path: Path
) -> None:
    """Unlabelled images in one folder can be compared by the model's own predictions."""
    flat = new.saved(tmp_path / "flat", names=None)
    expected = answer("shift", *folders, *MODEL)
    found = answer("shift", folders[0], flat, *MODEL, "--labels", "predicted")
    # Names of files in a flat folder differ, and with them the groups; the raw value has none.
    assert expected["per_class"] == pytest.approx(found["per_class"], abs=SINGLE_PRECISION)
    assert found["examples_after"] == 36
    assert found["label_cost"]["accuracy_before"] == 1.0


def test_both_sides_may_lack_labels(
    answer: Answer, old: Pictures, new: Pictures, tmp_path: Path
) -> None:
    """Without labels on either side the model's outputs are the classes, by number."""
    sides = [one.saved(tmp_path / name, names=None) for one, name in ((old, "o"), (new, "n"))]
    found = answer("shift", *sides, *MODEL, "--labels", "predicted")
    assert {"0", "1", "2"} == set(found["per_class"])
    assert found["label_cost"]["offset"] is None


def test_class_that_is_never_predicted_is_reported(answer: Answer, tmp_path: Path) -> None:
    """A class that the model predicts on neither side is not dropped in silence."""
    reddish = [pictures(seed, tint=(0, 0, -130)) for seed in (1, 2)]  # no sky is blue
    sides = [one.saved(tmp_path / str(k)) for k, one in enumerate(reddish)]
    found = answer("shift", *sides, *MODEL, "--labels", "predicted")
    assert "sky" not in found["per_class"]
    assert any("'sky'" in text for text in found["warnings"])


# --- images in an archive ----------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, old: Pictures, new: Pictures) -> Path:
    """Both sets of images as the splits of one `.npz`."""
    path = tmp_path / "images.npz"
    np.savez(
        path,
        x_train=old.images,
        y_train=old.labels,
        x_test=new.images,
        y_test=new.labels,
        class_names=np.array(CLASSES),
    )
    return path


def test_splits_of_an_archive_are_two_sides(
    answer: Answer, archive: Path, old: Pictures, new: Pictures
) -> None:
    """--split and --split-after compare two splits of one file."""
    found = answer("shift", archive, archive, *MODEL, "--split", "train", "--split-after", "test")
    sides = [resque.profile(None, one.table, class_names=CLASSES) for one in (old, new)]
    assert_same_index(resque.shift_index(*sides).to_dict(), found)


def test_one_split_serves_both_sides(answer: Answer, archive: Path) -> None:
    """--split alone chooses the split of both sides."""
    assert answer("shift", archive, archive, *MODEL, "--split", "test")["value"] == 0.0


def test_archive_of_one_set_needs_no_split(
    answer: Answer, tmp_path: Path, old: Pictures, new: Pictures
) -> None:
    """Images and labels under `x` and `y` are read without --split, named by --classes."""
    for name, one in (("old.npz", old), ("new.npz", new)):
        np.savez(tmp_path / name, x=one.images, y=one.labels)
    found = answer("shift", "old.npz", "new.npz", *MODEL, "--classes", ", ".join(CLASSES))
    assert set(CLASSES) == set(found["per_class"])


def test_channels_turn_grey_images_into_colour(
    answer: Answer, tmp_path: Path, old: Pictures, new: Pictures
) -> None:
    """With --channels 3, grey images go through a colour model, all channels alike."""
    sides = [one.saved(tmp_path / name, mode="L") for one, name in ((old, "old"), (new, "new"))]
    found = answer("shift", *sides, *MODEL, "--channels", "3")
    # Equal channels have one direction whatever their brightness: nothing can move.
    assert pytest.approx(found["value"], abs=SINGLE_PRECISION) == 0.0
    assert "3 channels" in found["signature"]["preprocessing"]


def test_channels_turn_colour_images_into_grey(
    answer: Answer, zoo: ModuleType, folders: tuple[Path, Path]
) -> None:
    """With --channels 1, colour images go through a grey model."""

    def grey() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    zoo.grey = grey
    found = answer("shift", *folders, "--model", "zoo:grey", "--image-size", "8", "--channels", "1")
    assert found["signature"]["width"] == 64


def test_images_are_resized_and_normalised_as_told(
    answer: Answer, printed: Printed, folders: tuple[Path, Path], old: Pictures
) -> None:
    """--image-size HEIGHTxWIDTH, --mean and --std reach the model."""
    printed(
        "profile", folders[0], "--model", "zoo:network", "--image-size", "4x6",
        "--mean", "0.1,0.2,0.3", "--std", "0.5,0.4,0.3", "-o", "p.safetensors",
    )  # fmt: skip
    saved = resque.load_profile("p.safetensors")
    assert saved.by_label is not None
    assert saved.signature is not None
    assert "size 4x6 (bilinear)" in (saved.signature.preprocessing or "")
    means = old.images[old.labels == 1].mean((0, 1, 2)) / 255
    expected = (means - [0.1, 0.2, 0.3]) / [0.5, 0.4, 0.3]
    # The resize averages pixels, so the mean colour moves by the rounding to bytes only.
    actual = saved.by_label.sums[1].sum(0) / 12
    assert expected == pytest.approx(actual, abs=0.02)


def test_unreadable_images_are_counted(
    answer: Answer, folders: tuple[Path, Path], new: Pictures
) -> None:
    """--skip-unreadable leaves broken images out and says how many of how many."""
    (folders[1] / "leaf" / "012.png").write_bytes(b"not an image")
    (folders[1] / "sky" / "024.png").write_bytes(b"")
    found = answer("shift", *folders, *MODEL, "--skip-unreadable")
    assert found["examples_after"] == 34
    assert any("2 of 36 images" in text for text in found["warnings"])


def test_worker_processes_read_the_same_images(answer: Answer, folders: tuple[Path, Path]) -> None:
    """--workers and --batch-size change the speed, not the numbers."""
    expected = answer("shift", *folders, *MODEL)
    found = answer("shift", *folders, *MODEL, "--workers", "1", "--batch-size", "7")
    assert_same_index(expected, found)


# --- profile -----------------------------------------------------------------------------------


def test_profile_as_json_tells_counts_and_outputs(
    answer: Answer, folders: tuple[Path, Path]
) -> None:
    """`resque profile --json` gives examples per class and what the model says of them."""
    found = answer("profile", folders[0], *MODEL, "-o", "before.safetensors")
    assert found["examples"] == 36
    assert dict.fromkeys(CLASSES, 12) == found["class_counts"]
    assert found["labelled"] is True
    assert found["outputs"]["accuracy"] == 1.0
    assert found == resque.load_profile("before.safetensors").to_dict()


def test_profile_says_where_it_went(printed: Printed, folders: tuple[Path, Path]) -> None:
    """Without --json the summary ends with the name of the file."""
    lines = printed("profile", folders[0], *MODEL, "-o", "before.safetensors").splitlines()
    assert lines[0] == "profile of 36 examples in 3 classes"
    assert lines[-1] == "written to before.safetensors"


def test_profile_replaces_an_older_one_with_ordinary_permissions(
    printed: Printed, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """A profile that exists is replaced, and can be read by whoever may read other new files."""
    other = tmp_path / "other"
    other.touch()
    for side in folders:
        printed("profile", side, *MODEL, "-o", "p.safetensors")
    assert other.stat().st_mode == (tmp_path / "p.safetensors").stat().st_mode
    assert {"new", "old", "other", "p.safetensors"} == {path.name for path in tmp_path.iterdir()}
    assert "new" in {path.name for path in tmp_path.iterdir()}


# --- task --------------------------------------------------------------------------------------


def test_task_of_separated_classes_is_zero(answer: Answer, folders: tuple[Path, Path]) -> None:
    """`resque task` of images gives the promised keys, and 0 where the classes are apart."""
    found = answer("task", folders[0], *MODEL)
    assert set() == TASK_KEYS - set(found)
    assert found["index"] == "RESQUE_task"
    assert (found["value"], found["nearest_class_mean_accuracy"]) == (0.0, 1.0)
    assert (found["classes"], found["examples"]) == (3, 36)


def test_task_of_a_table_gives_the_numbers_of_the_library(answer: Answer, tmp_path: Path) -> None:
    """A table of representations needs no model."""
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    data = np.eye(3)[labels] + rng.normal(0, 0.5, (90, 3)), labels
    found = answer("task", saved_table(tmp_path / "t.npz", *data))
    assert resque.task_index(None, data).to_dict() == found
    assert 0 < found["value"] < 1


def test_task_may_extend_an_old_one(
    answer: Answer, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """--extending adds the new classes to the old ones; classes of one name are one class."""
    plums = pictures(seed=3).saved(tmp_path / "plums", names=("apple", "leaf", "plum"))
    found = answer("task", plums, *MODEL, "--extending", folders[0])
    assert sorted(CLASSES) == found["known_classes"]
    assert found["class_counts"] == {"apple": 24, "leaf": 24, "plum": 12, "sky": 12}
    assert {"plum", "sky"} == {found["mixtures"][0][key] for key in ("class", "mixed_with")}
    assert found["value"] > 0.1  # plums are as blue as the sky


def test_task_gives_the_published_variants(answer: Answer, folders: tuple[Path, Path]) -> None:
    """--variants adds four numbers, of which one is the value itself."""
    found = answer("task", folders[0], *MODEL, "--layer", "0", "--variants")
    kinds = {f"{a}, {b}" for a in ("pooled", "flattened") for b in ("class_means", "k-means++")}
    assert kinds == set(found["variants"])
    assert found["value"] == found["variants"]["pooled, class_means"]
    assert answer("task", folders[0], *MODEL)["variants"] is None


def test_task_may_start_elsewhere(answer: Answer, tables: tuple[Path, Path]) -> None:
    """--start and --seed reach the k-means, and the signature says so."""
    found = answer("task", tables[0], "--start", "k-means++", "--seed", "5")
    assert (found["start"], found["signature"]["seed"]) == ("k-means++", 5)


# --- what goes where ---------------------------------------------------------------------------


def test_factory_that_prints_does_not_spoil_the_result(
    capsys: pytest.CaptureFixture[str], zoo: ModuleType, folders: tuple[Path, Path]
) -> None:
    """What a user's factory prints goes to stderr, so that stdout is the result alone."""

    def chatty() -> nn.Module:
        print("loading weights ...")
        return MeanColour()

    zoo.chatty = chatty
    options = ("--model", "zoo:chatty", "--image-size", "8", "--json")
    assert main(["shift", *map(str, folders), *options]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) >= SHIFT_KEYS
    assert captured.err == "loading weights ...\n"


HOME_MADE = """
from torch import nn
{when_imported}

class Network(nn.Sequential):
    def forward(self, x):
        {when_run}
        return super().forward(x)

def network():
    return Network(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
"""


@pytest.mark.parametrize("moment", ["when_imported", "when_run"])
def test_user_module_that_prints_does_not_spoil_the_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, folders: tuple[Path, Path], moment: str
) -> None:
    """Nor does a user's module that prints while it is imported, or while the model runs."""
    moments = {"when_imported": "pass", "when_run": "pass"} | {moment: "print('hello')"}
    (tmp_path / f"chatty_{moment}.py").write_text(HOME_MADE.format(**moments), encoding="utf-8")
    options = ("--model", f"chatty_{moment}:network", "--image-size", "8", "--json")
    assert main(["shift", *map(str, folders), *options]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) >= SHIFT_KEYS
    assert {"hello"} == set(captured.err.splitlines())


def test_warnings_go_to_stderr(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tables: tuple[Path, Path],
) -> None:
    """A warning of the library is one line on stderr, and stdout stays the result."""
    monkeypatch.setattr("resque.index.accumulation.LARGE_BYTES", 100)
    assert main(["shift", *map(str, tables), "--json"]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) >= SHIFT_KEYS
    lines = captured.err.splitlines()
    # Each side warns, before it allocates.
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("resque: warning: The profile takes ")
        assert "3 classes x 16 groups x 3 values" in line


def test_progress_goes_to_stderr(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folders: tuple[Path, Path],
) -> None:
    """On a terminal the progress bar is on stderr, and stdout stays the result."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes both streams for terminals
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["shift", *map(str, folders), *MODEL, "--json"]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) >= SHIFT_KEYS
    assert "36/36" in captured.err


def test_table_of_many_classes_shows_the_largest_shares(printed: Printed, tmp_path: Path) -> None:
    """Of 25 classes the 20 with the largest shares are shown, and the others are counted."""
    rng = np.random.default_rng(4)
    labels = np.arange(250) % 25
    means = rng.normal(size=(25, 8))
    moved = means + 0.05 * np.arange(25)[:, None] * rng.normal(size=(25, 8))
    for name, centres in (("b.npz", means), ("a.npz", moved)):
        values = centres[labels] + 0.05 * rng.normal(size=(250, 8))
        saved_table(tmp_path / name, values, labels)
    out = printed("shift", "b.npz", "a.npz")
    rows = [line.split() for line in out.partition("\nclass ")[2].splitlines()[1:]]
    assert len(rows) == 20 + 1
    assert rows[-1][:4] == ["and", "5", "more", "classes"]
    shares = [int(row[-1].rstrip("%")) for row in rows[:-1]]
    assert sorted(shares, reverse=True) == shares
    assert out.startswith("RESQUE_dist ")


def test_class_names_may_hold_brackets(printed: Printed, tables: tuple[Path, Path]) -> None:
    """A class whose name looks like a markup tag is printed as it is."""
    names = "[bold]apple,leaf [/small],:sky:"
    out = printed("shift", *tables, "--classes", names)
    table = out.partition("\nclass ")[2]
    for name in names.split(","):
        assert name in table


def test_result_on_no_terminal_is_not_cut_nor_coloured(
    printed: Printed, monkeypatch: pytest.MonkeyPatch, tables: tuple[Path, Path]
) -> None:
    """Into a pipe the signature is one line, whatever the width, without escape codes."""
    monkeypatch.setenv("COLUMNS", "40")
    out = printed("shift", *tables)
    signatures = [line for line in out.splitlines() if line.startswith("index:RESQUE_dist|")]
    assert len(signatures) == 1
    assert signatures[0].endswith(f"|resque:{version('resque')}")
    assert "\x1b" not in out


# --- models ------------------------------------------------------------------------------------


def test_factory_may_bring_its_preprocessing(
    answer: Answer, zoo: ModuleType, folders: tuple[Path, Path]
) -> None:
    """A factory that returns a pair needs no options for the images."""

    def prepare(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    zoo.pair = lambda: (MeanColour(), prepare)
    expected = answer("shift", *folders, *MODEL)
    assert_same_index(expected, answer("shift", *folders, "--model", "zoo:pair"))


def test_weights_of_a_file_are_used(
    answer: Answer, zoo: ModuleType, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """--weights loads a checkpoint into what the factory built; its digest is signed."""
    zoo.blank = lambda: nn.Sequential(
        nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 3)
    )
    options = ("--model", "zoo:blank", "--image-size", "8")
    other = zoo.blank()
    torch.save({"state_dict": other.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    plain = answer("shift", *folders, *options)
    found = answer("shift", *folders, *options, "--weights", "w.pt")
    assert plain["signature"]["weights"] != found["signature"]["weights"]
    assert plain["value"] != found["value"]


def test_random_weights_have_a_seed(
    answer: Answer, zoo: ModuleType, folders: tuple[Path, Path]
) -> None:
    """--seed decides what a factory draws, so that the same numbers come again."""
    zoo.drawn = lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 3)
    )
    options = ("--model", "zoo:drawn", "--image-size", "8")
    values = [answer("shift", *folders, *options, "--seed", seed)["value"] for seed in (1, 1, 2)]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_factory_is_found_in_the_current_folder(
    answer: Answer, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """A module next to the data can be named without installing it."""
    text = HOME_MADE.format(when_imported="pass", when_run="pass")
    (tmp_path / "home_made.py").write_text(text, encoding="utf-8")
    found = answer("shift", *folders, "--model", "home_made:network", "--image-size", "8")
    assert found["signature"]["model"] == "network"


def test_autocast_is_signed(answer: Answer, folders: tuple[Path, Path]) -> None:
    """--autocast runs the model in lower precision and says so."""
    dtype = answer("shift", *folders, *MODEL, "--autocast", "bfloat16")["signature"]["dtype"]
    assert "autocast bfloat16" in dtype


@pytest.mark.parametrize("layer", ["1", "input:1", "output"])
def test_layer_and_pooling_are_signed(
    answer: Answer, folders: tuple[Path, Path], layer: str
) -> None:
    """--layer chooses what is read, and --pooling what is done with it."""
    pooling = "flatten" if layer == "input:1" else "mean"
    found = answer("shift", *folders, *MODEL, "--layer", layer, "--pooling", pooling)
    assert layer == found["signature"]["layer"]
    assert (3 * 8 * 8 if pooling == "flatten" else 3) == found["signature"]["width"]


# --- doctor ------------------------------------------------------------------------------------


def test_doctor_tells_versions_and_devices(answer: Answer, printed: Printed) -> None:
    """`resque doctor` names what is installed, as JSON and as a table."""
    found = answer("doctor", "--no-meters")
    assert version("torch") == found["versions"]["torch"]
    assert version("resque") == found["versions"]["resque"]
    assert found["devices"][0]["device"] == "cpu"
    assert found["meters"] == []
    assert found["grid"]["default"] is None
    assert found["grid"]["countries"] > 200
    lines = [line.split() for line in printed("doctor", "--no-meters").splitlines()]
    assert ["torch", version("torch")] in lines


def test_doctor_compares_the_meters_on_a_load(answer: Answer, printed: Printed) -> None:
    """Each meter says joules, watts, source and band, or why it is not available."""
    codecarbon, zeus = answer("doctor", "--seconds", "0.3")["meters"]
    assert f"codecarbon {version('codecarbon')}" == codecarbon["meter"]
    assert codecarbon["watts"] == pytest.approx(codecarbon["joules"] / codecarbon["seconds"])
    assert {"cpu", "ram"} <= {part["name"] for part in codecarbon["components"]}
    assert zeus["meter"].startswith("zeus")
    assert zeus["joules"] is not None or zeus["missing"]
    text = printed("doctor", "--seconds", "0.3")
    assert f"codecarbon {version('codecarbon')}" in text
    assert "not counted" in text


@pytest.mark.parametrize("seconds", ["0", "-1", "1000", "nan"])
def test_doctor_refuses_impossible_loads(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A load has a length, and not an hour."""
    assert main(["doctor", "--seconds", seconds]) == 2
    expected = f"resque: error: --seconds must be above 0 and at most 600; got {seconds}.\n"
    assert expected == capsys.readouterr().err


# --- demo --------------------------------------------------------------------------------------


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration with one epoch and two levels of one kind; the whole takes a minute."""
    for name in ("RETRAINING", "SCRATCH"):
        monkeypatch.setattr(digits, name, replace(getattr(digits, name), max_epochs=4))
    short = partial(
        digits.digits_demo,
        epochs=1,
        levels={"gaussian noise": (0.0, 0.4)},
        updates=[("gaussian noise", 0.2)],
        meter="none",
        confidence_level=0.5,
    )
    monkeypatch.setattr(digits, "digits_demo", short)


@pytest.mark.usefixtures("short_demo")
def test_demo_walks_the_whole_way(printed: Printed, tmp_path: Path) -> None:
    """Index, updates, forecast, comparison, report; it says where that and a figure went."""
    out = printed("demo", "-o", "digits.html", "--figure", "digits.png", "--grid", "FRA")
    assert "gaussian noise" in out
    assert "RESQUE_task of the digits 5 to 9" in out
    assert "The last retraining (gaussian noise 0.2), forecast before it was made:" in out
    assert "What could be done at that time, to reach 0.85 in the least time:" in out
    assert "It then took: retrain " in out
    assert f"figure written to {tmp_path / 'digits.png'}" == out.splitlines()[-2]
    assert f"report written to {tmp_path / 'digits.html'}" == out.splitlines()[-1]
    with Image.open(tmp_path / "digits.png") as figure:
        assert figure.format == "PNG"
    page = (tmp_path / "digits.html").read_text()
    assert "resque demo --grid FRA" in page
    for option in ("keep", "retrain", "from scratch"):
        assert f">{option}<" in page


@pytest.mark.usefixtures("short_demo")
def test_demo_as_json_is_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With --json the numbers are on stdout, and the place of the report on stderr."""
    assert main(["demo", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    told = {"accuracy", "shifts", "updates", "forecast", "comparison", "task", "task_known"}
    assert told == set(found)
    assert [one["kind"] for one in found["shifts"]] == ["gaussian noise"] * 2
    assert set(found["shifts"][0]) >= SHIFT_KEYS
    assert set(found["task"]) >= TASK_KEYS
    assert [one["name"] for one in found["comparison"]["options"]] == [
        "keep", "retrain", "from scratch",
    ]  # fmt: skip
    assert f"report written to {tmp_path / 'resque-demo.html'}\n" == captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resque-demo.html"]


# --- help, start, end --------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_an_example(printed: Printed, command: str, flag: str) -> None:
    """The help of each command shows how to call it."""
    assert f"Example: resque {command}" in " ".join(printed(command, flag).split())


def test_examples_in_the_help_are_understood(
    capsys: pytest.CaptureFixture[str], printed: Printed
) -> None:
    """The example of each command has no word that the command does not know."""
    for command in COMMANDS:
        text = " ".join(printed(command, "--help").split())
        example = text.partition("Example: resque ")[2].partition(" ╭")[0].split()
        assert command == example[0]
        # Help wins over all else once the words before it are understood.
        assert main([*example, "--help"]) == 0, capsys.readouterr().err
        capsys.readouterr()


def test_help_lists_every_command(printed: Printed) -> None:
    """`resque --help` names the commands; so does `resque` alone."""
    text = printed("--help")
    for command in COMMANDS:
        assert f" {command} " in text


def test_run_leaves_with_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed command ends the process with the status that `main` returns."""
    for words, status in ((["--help"], 0), (["shift", "a.npz", "b.npz"], 2)):
        monkeypatch.setattr(sys, "argv", ["resque", *words])
        with pytest.raises(SystemExit) as end:
            run()
        assert status == end.value.code
    assert "a.npz" in capsys.readouterr().err


@pytest.fixture
def fresh_python(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Run code in a new interpreter and return the lines it printed."""

    def run_code(code: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run_code


def test_import_and_help_are_quick_and_load_no_torch(
    fresh_python: Callable[[str], list[str]],
) -> None:
    """Neither `import resque` nor `resque --help` loads torch or numpy, or takes long."""
    started = time.perf_counter()
    lines = fresh_python(
        "import sys, resque\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
        "from resque.cli import main\n"
        "assert main(['shift', '--help']) == 0\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    assert (lines[0], lines[-1]) == ("False False", "False False")
    # Loading torch alone takes seconds on a busy machine; the benchmarks hold the strict bounds.
    assert time.perf_counter() - started < 5


def test_shift_of_two_profiles_loads_no_torch(
    fresh_python: Callable[[str], list[str]], printed: Printed, tables: tuple[Path, Path]
) -> None:
    """Profiles are compared without torch, as on a machine that has none."""
    for side, name in zip(tables, ("b.safetensors", "a.safetensors"), strict=True):
        printed("profile", side, "-o", name)
    lines = fresh_python(
        "import sys\n"
        "from resque.cli import main\n"
        "assert main(['shift', 'b.safetensors', 'a.safetensors', '--json']) == 0\n"
        "print('torch' in sys.modules)\n"
    )
    assert lines[-1] == "False"
    assert set(json.loads("\n".join(lines[:-1]))) >= SHIFT_KEYS


def test_reader_of_the_output_may_leave_early(
    printed: Printed, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    """A closed pipe, as `| head` leaves it, is no error and shows no traceback."""
    for side, name in zip(tables, ("b.safetensors", "a.safetensors"), strict=True):
        printed("profile", side, "-o", name)
    code = "from resque.cli import run; run()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "shift", "b.safetensors", "a.safetensors"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")
