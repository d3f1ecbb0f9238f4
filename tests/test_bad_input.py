"""What users get wrong: one line of cause and cure, no traceback, and nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import resque
from resque.cli import main

CLASSES = ("apple", "leaf", "sky")
MODEL = ("--model", "zoo:network", "--image-size", "8")


class Network(nn.Module):
    """A small colour model; its calls are counted, so that tests see whether any data were run."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.hidden = nn.Linear(3, 4)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Any:
        Network.calls += 1
        return self.head(self.hidden(self.pool(images)))


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A module of factories that the command line can name, as if it lay in the current folder."""
    module = ModuleType("zoo")
    module.network = Network
    monkeypatch.setitem(sys.modules, "zoo", module)
    # Loading a factory adds the current folder to the path of the process.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(Network, "calls", 0)
    monkeypatch.chdir(tmp_path)
    return module


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused, check how, and return the line that says why."""

    def run(*arguments: object) -> str:
        before = contents(tmp_path)
        capsys.readouterr()  # what earlier commands of the test have said
        status = main([str(word) for word in arguments])
        captured = capsys.readouterr()
        assert (status, captured.out) == (2, "")
        assert "Traceback" not in captured.err
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("resque: error: ")
        # Neither a new file nor a change in an old one.
        assert before == contents(tmp_path)
        return lines[0].removeprefix("resque: error: ")

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six images in each of three classes."""
    return image_folder(tmp_path / "images")


def image_folder(path: Path, mode: str = "RGB", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for place, name in enumerate(CLASSES):
        (path / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 60, (8, 8, 3)) + 120 * np.eye(3, dtype=int)[place]
            image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
            image.save(path / name / f"{number}.png")
    return path


def table(name: str, labels: Any = None, *, examples: int = 60, width: int = 4, **more: Any) -> str:
    """Write a table of representations around one mean per class, and return its name."""
    rng = np.random.default_rng(7)
    classes = np.arange(examples) % 3
    arrays = {
        "representations": np.eye(3, width)[classes] + 1 + 0.1 * rng.normal(size=(examples, width)),
        "labels": classes if labels is None else labels,
    }
    np.savez(name, **arrays | more)
    return name


def profiled(name: str, *arguments: object) -> str:
    """Save a profile and return its name."""
    assert main(["profile", *map(str, arguments), "-o", name]) == 0
    return name


# --- too little --------------------------------------------------------------------------------


def test_no_examples(refused: Refused) -> None:
    """A table without rows is said to be empty."""
    table("empty.npz", examples=0)
    table("full.npz")
    for words in (("task", "empty.npz"), ("shift", "full.npz", "empty.npz")):
        assert "hold no examples; expected at least one batch" in refused(*words)
    with pytest.raises(resque.InputError, match="hold no examples"):
        resque.profile(Network(), [])


def test_one_class_is_no_task(refused: Refused) -> None:
    """A task of one class is refused, with the name of that class."""
    table("one.npz", np.full(60, 2))
    message = refused("task", "one.npz")
    assert "at least two classes" in message
    assert "got 1, '2'" in message


def test_one_class_makes_a_shift_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A shift of one class is a single angle, and warns of it."""
    table("one.npz", np.full(60, 2))
    assert main(["shift", "one.npz", "one.npz"]) == 0
    assert "warning: One class only, '2': the index is a single angle." in capsys.readouterr().out


def test_one_example_in_a_class_is_unresolved(capsys: pytest.CaptureFixture[str]) -> None:
    """A class with one example has a raw value, and no debiased one."""
    labels = np.arange(60) % 3
    labels[labels == 2] = 0
    labels[59] = 2
    table("few.npz", labels)
    assert main(["shift", "few.npz", "few.npz"]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 classes have too few examples for a debiased value" in out
    assert "'2'" in out
    assert "unresolved" in out
    assert main(["task", "few.npz"]) == 0
    assert "1 classes have one example only, which is its own mean: '2'" in capsys.readouterr().out


def test_class_on_one_side_only_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Classes that only one side has are named, with their side."""
    table("old.npz", np.arange(60) % 3)
    table("new.npz", np.arange(60) % 3 + 1)
    assert main(["shift", "old.npz", "new.npz"]) == 0
    out = capsys.readouterr().out
    assert "1 classes are on the new side only and not in the index: '3'" in out
    assert "1 classes are on the old side only and not in the index: '0'" in out


def test_no_class_in_common(refused: Refused) -> None:
    """Sides without a common class are refused, with the classes of each."""
    table("old.npz", np.arange(60) % 2)
    table("new.npz", np.arange(60) % 2 + 5)
    message = refused("shift", "old.npz", "new.npz")
    assert "no class in common: '0', '1' before, '5', '6' after" in message
    assert "match by name" in message


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_found(refused: Refused, value: float) -> None:
    """NaN or infinity names the example, whichever batch it is in."""
    representations = np.ones((5000, 2))
    representations[4321, 1] = value
    table("bad.npz", np.arange(5000) % 3, representations=representations)
    table("good.npz", width=2)
    for words in (("shift", "good.npz", "bad.npz"), ("task", "bad.npz")):
        message = refused(*words)
        assert "example 4321 contains NaN or infinity" in message


def test_image_that_gives_no_finite_value_is_named(
    refused: Refused, zoo: ModuleType, images: Path
) -> None:
    """In a folder, the example with NaN or infinity is called by its file."""

    class Dividing(Network):
        def forward(self, images: Tensor) -> Any:
            return super().forward(images / images.amax((1, 2, 3), keepdim=True))

    zoo.dividing = Dividing
    Image.new("RGB", (8, 8)).save(images / "leaf" / "3.png")  # black: 0 / 0
    options = ("--model", "zoo:dividing", "--image-size", "8", "-o", "p.safetensors")
    message = refused("profile", images, *options)
    assert "NaN or infinity" in message
    assert "leaf/3.png" in message


def test_zero_vector_has_no_direction(refused: Refused) -> None:
    """A class whose representations add up to zero is named, with its side."""
    dead = np.ones((60, 4))
    dead[np.arange(60) % 3 == 1] = 0
    table("old.npz")
    table("dead.npz", representations=dead)
    message = refused("shift", "old.npz", "dead.npz")
    assert "class '1' on the new side add up to the zero vector" in message
    assert "class '1' on the old side" in refused("shift", "dead.npz", "old.npz")


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(60) % 3 + 0.5, ["must be integers", "float64", "0.5", ".long()"]),
        (np.array(["cat", "dog", "cow"] * 20), ["must be integers", "'cat'", "numpy.unique"]),
        (np.arange(60) % 3 - 1, ["must be 0 or more", "-1", "example 0"]),
        (np.arange(59) % 3, ["59 labels for 60 examples", "as many labels as examples"]),
        (np.arange(61) % 3, ["61 labels for 60 examples", "as many labels as examples"]),
        (np.eye(3, dtype=int)[np.arange(60) % 3], ["(60, 3)", "Multi-label", "argmax"]),
        (np.arange(60) % 2 == 0, ["must be integers", "bool"]),
        (np.arange(60) % 3 + 1j, ["must be integers", "complex"]),
        (np.array(3), ["one integer per example"]),
    ],
    ids=["floats", "strings", "negative", "too few", "too many", "multi-label", "truth", "complex",
         "a number"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["profile", "task"])
def test_labels_that_are_no_class_numbers(
    refused: Refused, labels: np.ndarray, words: list[str], command: str
) -> None:
    """Labels that cannot be class numbers are shown, with what to do."""
    table("t.npz", labels)
    message = refused(command, "t.npz", *(("-o", "p.safetensors") if command == "profile" else ()))
    for word in words:
        assert word in message


def test_label_without_a_name(refused: Refused) -> None:
    """A label beyond the class names is shown with its example."""
    labels = np.arange(60) % 3
    labels[17] = 3
    table("t.npz", labels, class_names=np.array(CLASSES))
    message = refused("profile", "t.npz", "-o", "p.safetensors")
    assert "Label 3 of example 17 has no name: there are 3 class names" in message
    assert "Label 3 of example 17 has no name" in refused("task", "t.npz")


def test_labels_of_a_batch_are_checked_as_well() -> None:
    """A loader's labels are checked where they come up, with the place in the pass."""
    batches = [(torch.ones(4, 6), torch.arange(4)), (torch.ones(4, 6), torch.tensor([0, 1, -7, 1]))]
    with pytest.raises(resque.InputError, match="got -7 for example 6"):
        resque.profile(None, batches)
    with pytest.raises(resque.InputError, match="3 labels for 4 examples in the batch that starts"):
        resque.profile(None, [(torch.ones(4, 6), torch.arange(3))])


def test_data_without_labels(refused: Refused, tmp_path: Path, images: Path) -> None:
    """Data without labels are told what else can be done with them."""
    for file in sorted(images.rglob("*.png")):
        file.rename(images / f"{file.parent.name}-{file.name}")
    for name in CLASSES:
        (images / name).rmdir()
    labelled = image_folder(tmp_path / "labelled")
    assert "--labels predicted" in refused("shift", labelled, images, *MODEL)
    np.savez("bare.npz", representations=np.ones((5, 2)))
    assert "The data have no labels; RESQUE_task needs them." in refused("task", "bare.npz")
    assert "The data have no labels" in refused("profile", "bare.npz", "-o", "p.safetensors")


def test_new_archive_without_labels(refused: Refused, images: Path) -> None:
    """Unlabelled images against labelled ones name --labels predicted, and the side."""
    np.savez("bare.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    message = refused("shift", images, "bare.npz", *MODEL, "--classes", ",".join(CLASSES))
    assert "The new data have no labels" in message
    assert "--labels predicted" in message


def test_predicted_labels_of_tables_do_not_exist(refused: Refused) -> None:
    """Representations alone hold no predictions."""
    table("t.npz")
    message = refused("shift", "t.npz", "t.npz", "--labels", "predicted")
    assert "has no predictions" in message


# --- two sides that do not fit -----------------------------------------------------------------


def test_widths_that_differ(refused: Refused) -> None:
    """Representations of different widths are not compared, and both widths are given."""
    table("old.npz")
    table("new.npz", width=5)
    message = refused("shift", "old.npz", "new.npz")
    assert "width (4 and 5)" in message
    assert "width (4 and 5)" in refused("task", "new.npz", "--extending", "old.npz")


def test_widths_that_differ_within_a_pass() -> None:
    """A batch of another width than those before it is named by its first example."""
    batches = [(torch.ones(4, width), torch.arange(4)) for width in (6, 6, 7)]
    with pytest.raises(resque.InputError, match="at example 8, and 6 before it"):
        resque.profile(None, batches)


def test_profiles_of_different_layers(refused: Refused, images: Path) -> None:
    """Profiles of two layers of equal width are not compared; both layers are named."""
    profiled("a.safetensors", images, *MODEL, "--layer", "hidden")
    profiled("b.safetensors", images, *MODEL, "--layer", "input:head")
    message = refused("shift", "a.safetensors", "b.safetensors")
    assert "layer (hidden and input:head)" in message


def test_profiles_of_different_weights_under_one_name(refused: Refused, images: Path) -> None:
    """Two trainings of one architecture are not compared, though their names are equal."""
    for seed in (1, 2):
        profiled(f"{seed}.safetensors", images, *MODEL, "--seed", seed)
    one, two = (resque.load_profile(f"{seed}.safetensors").signature for seed in (1, 2))
    assert one is not None
    assert two is not None
    assert one.model == two.model
    message = refused("shift", "1.safetensors", "2.safetensors")
    assert f"weights ({one.weights} and {two.weights})" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mean", "0.5"), "preprocessing (size 8x8 (bilinear), mean 0, std 1 and size 8x8"),
        (("--groups", "8"), "16 and 8 groups"),
        (("--layer", "pool.0", "--pooling", "flatten"), "pooling (none and flatten)"),
    ],
)
def test_profiles_made_in_different_ways(
    refused: Refused, images: Path, options: tuple[str, ...], words: str
) -> None:
    """Whatever else differs between two profiles is named, with both values."""
    profiled("a.safetensors", images, *MODEL)
    profiled("b.safetensors", images, *MODEL, *options)
    assert words in refused("shift", "a.safetensors", "b.safetensors")


def test_table_against_a_profile_of_a_model(refused: Refused, images: Path) -> None:
    """Given representations are not compared with those of a layer."""
    profiled("p.safetensors", images, *MODEL)
    table("t.npz")
    assert "layer (input:head and given)" in refused("shift", "p.safetensors", "t.npz")


# --- layers and models -------------------------------------------------------------------------


def test_layer_that_does_not_exist(refused: Refused, images: Path) -> None:
    """A misspelt layer gets the nearest names and some that exist."""
    message = refused("task", images, *MODEL, "--layer", "hiden")
    assert "no layer 'hiden'" in message
    assert "Did you mean 'hidden'?" in message
    assert "'head'" in message


def test_layer_that_is_never_called(refused: Refused, images: Path) -> None:
    """A layer that the model does not use is refused, with some that it does."""
    message = refused("task", images, *MODEL, "--layer", "unused")
    assert "'unused' is never called" in message
    assert "'head', 'hidden'" in message


def test_layer_that_is_called_twice(refused: Refused, zoo: ModuleType, images: Path) -> None:
    """A layer that gives several outputs in one run is refused, with how many."""

    class Twice(Network):
        def forward(self, images: Tensor) -> Any:
            return self.head(self.unused(self.unused(self.hidden(self.pool(images)))))

    zoo.twice = Twice
    options = ("--model", "zoo:twice", "--image-size", "8")
    message = refused("task", images, *options, "--layer", "unused")
    assert "'unused' is called 2 times in one run" in message
    assert "'head', 'hidden'" in message


def test_layer_that_returns_a_tuple(refused: Refused, zoo: ModuleType, images: Path) -> None:
    """A layer that gives several tensors is refused, with what it gave."""

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.memory = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Any:
            return self.head(self.memory(self.pool(images)[:, None])[0][:, 0])

    zoo.remembering = Memory
    options = ("--model", "zoo:remembering", "--image-size", "8")
    message = refused("task", images, *options, "--layer", "memory")
    assert "'memory' gives a tuple of (Tensor, tuple), not one tensor" in message


def test_model_that_returns_a_dict(refused: Refused, zoo: ModuleType, images: Path) -> None:
    """A model without one tensor of scores names its keys and the layers to choose from."""

    class Named(Network):
        def forward(self, images: Tensor) -> Any:
            return {"scores": super().forward(images), "mask": images}

    zoo.named = Named
    message = refused("task", images, "--model", "zoo:named", "--image-size", "8")
    assert "returned a dict with the keys 'scores', 'mask'" in message
    assert "name the layer" in message
    assert "'head', 'hidden'" in message


def test_model_that_needs_two_inputs(refused: Refused, zoo: ModuleType, images: Path) -> None:
    """A model that needs more than the images says what it takes."""

    class Pair(Network):
        def forward(self, images: Tensor, masks: Tensor) -> Any:  # type: ignore[override]
            return super().forward(images * masks)

    zoo.pair = Pair
    message = refused("task", images, "--model", "zoo:pair", "--image-size", "8")
    assert "'masks'" in message
    assert "forward takes (images, masks)" in message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("network", ["'network' is not understood", "package.module:factory"]),
        ("zoo:", ["'zoo:' is not understood"]),
        ("zoo:netwrok", ["'zoo' has no function 'netwrok'", "Did you mean 'network'?"]),
        ("zooo:network", ["module 'zooo'", "cannot be imported", "current folder"]),
        ("zoo:number", ["'zoo:number'", "int", "expected a function"]),
        ("zoo:text", ["'zoo:text' returned", "str", "expected a torch.nn.Module"]),
        ("timm:resnet81", ["timm has no model 'resnet81'", "'resnet18'"]),
        ("torchvision:resnet81", ["torchvision has no classifier 'resnet81'", "'resnet18'"]),
    ],
)
def test_model_that_does_not_exist(
    refused: Refused, zoo: ModuleType, images: Path, spec: str, words: list[str]
) -> None:
    """A model that cannot be found is answered with what was looked for, and the nearest names."""
    if spec.startswith(("timm", "torchvision")):
        pytest.importorskip(spec.partition(":")[0], reason="needs the extra resque[vision]")
    zoo.number = 3
    zoo.text = lambda: "not a model"
    weights = ("--weights", "random") if spec.startswith("t") else ()
    message = refused("task", images, "--model", spec, *weights)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("lacking", "import surely_not_installed\n", "No module named 'surely_not_installed'"),
        ("misspelt", "def factory(:\n", "SyntaxError"),
        ("failing", "raise RuntimeError('no licence')\n", "no licence"),
        ("demanding", "def factory(size):\n    pass\n", "argument: 'size'"),
        ("refusing", "def factory():\n    raise RuntimeError('no licence')\n", "no licence"),
    ],
)
def test_factory_that_fails(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    images: Path,
    name: str,
    text: str,
    words: str,
) -> None:
    """A factory that cannot be imported or called is named, with its own reason."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the cache is Python's, not ours
    Path(f"{name}_zoo.py").write_text(text, encoding="utf-8")
    message = refused("task", images, "--model", f"{name}_zoo:factory", "--image-size", "8")
    assert words in message
    assert f"{name}_zoo:factory" in message


def test_images_without_a_model(refused: Refused, images: Path) -> None:
    """Images ask for a model, and a model's options without one are refused."""
    assert "--model" in refused("task", images)
    assert "--weights says something of a model" in refused("task", images, "--weights", "w.pt")
    assert "--layer says something of a model" in refused("task", images, "--layer", "head")


def test_images_without_preprocessing(refused: Refused, images: Path) -> None:
    """How to prepare images is never guessed."""
    message = refused("task", images, "--model", "zoo:network")
    assert str(images) in message
    assert "--image-size, --mean, --std" in message


# --- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:resnet18"])
def test_weights_are_never_random_in_silence(refused: Refused, images: Path, spec: str) -> None:
    """A model of a zoo without --weights is asked which."""
    message = refused("task", images, "--model", spec)
    assert spec in message
    assert "--weights FILE, --weights cached or --weights random" in message


def test_weights_that_do_not_exist(refused: Refused, images: Path, tmp_path: Path) -> None:
    """A misspelt weight file gets the nearest name."""
    torch.save(Network().state_dict(), tmp_path / "best.pt")
    message = refused("task", images, *MODEL, "--weights", "bets.pt")
    assert "no weight file 'bets.pt'" in message
    assert "Did you mean 'best.pt'?" in message


def test_weights_that_are_a_folder(refused: Refused, images: Path) -> None:
    """A folder in place of the weights is called a folder."""
    assert "'images' is a folder" in refused("task", images, *MODEL, "--weights", "images")


def test_weights_that_are_not_cached(refused: Refused, images: Path) -> None:
    """A factory has no cache."""
    assert "'zoo:network'" in refused("task", images, *MODEL, "--weights", "cached")


def test_weights_that_do_not_fit(refused: Refused, images: Path, tmp_path: Path) -> None:
    """Keys that are missing, left over or of another shape are named."""
    state = Network().state_dict()
    del state["hidden.bias"]
    state["extra.weight"] = torch.ones(1)
    state["head.weight"] = torch.ones(10, 4)
    torch.save(state, tmp_path / "w.pt")
    message = refused("task", images, *MODEL, "--weights", "w.pt")
    assert "1 keys are missing (hidden.bias)" in message
    assert "1 keys are left over (extra.weight)" in message
    assert "head.weight is (10, 4), the model needs (3, 4)" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pt", b""),
        ("text.pt", b"hello, these are no weights\n"),
        ("half.pt", None),
        ("half.safetensors", None),
        ("text.safetensors", b"hello, these are no weights\n"),
    ],
)
def test_weights_that_are_damaged(
    refused: Refused, images: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A weight file that is empty, cut off or something else is named, with a reason in words."""
    if content is None:
        from safetensors.torch import save_file

        save = save_file if name.endswith("safetensors") else torch.save
        save(Network().state_dict(), name)
        content = (tmp_path / name).read_bytes()
        content = content[: len(content) // 2]
    (tmp_path / name).write_bytes(content)
    message = refused("task", images, *MODEL, "--weights", name)
    assert f"'{name}'" in message
    reason = message.partition("(")[2].partition(")")[0]
    assert any(letter.isalpha() for letter in reason), message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(1)], "a list"),
        ({"epoch": 3, "weights": torch.ones(1)}, "'epoch'"),
        ({}, "expected the state dict"),
    ],
    ids=["list", "checkpoint", "empty"],
)
def test_weights_that_are_no_state_dict(
    refused: Refused, images: Path, tmp_path: Path, content: Any, words: str
) -> None:
    """A checkpoint whose weights cannot be told apart says what was found instead."""
    torch.save(content, tmp_path / "w.pt")
    message = refused("task", images, *MODEL, "--weights", "w.pt")
    assert "'w.pt'" in message
    assert words in message


def test_whole_model_is_refused(refused: Refused, images: Path, tmp_path: Path) -> None:
    """A pickled model is refused, with how to save the weights alone."""
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    message = refused("task", images, *MODEL, "--weights", "model.pt")
    assert "torch.save(model.state_dict(), FILE)" in message


# --- files that could run code -----------------------------------------------------------------


class Bomb:
    """A pickle that writes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path.cwd() / "exploded",)


def archived(name: str, content: bytes) -> None:
    """Write a file that looks like one of today's torch.save, around any pickle."""
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def test_bomb_goes_off_where_it_is_unpickled(tmp_path: Path) -> None:
    """The tests below would see a pickle that was executed."""
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("make", ["pickle", "archive", "checkpoint"])
def test_weights_that_are_a_bomb(
    refused: Refused, images: Path, tmp_path: Path, suffix: str, make: str
) -> None:
    """A checkpoint that would run code is refused and never executed."""
    name = f"bomb{suffix}"
    if make == "pickle":
        Path(name).write_bytes(pickle.dumps(Bomb(), protocol=2))
    elif make == "archive":
        archived(name, pickle.dumps(Bomb(), protocol=2))
    else:
        torch.save({"state_dict": Network().state_dict(), "hook": Bomb()}, name)
    message = refused("task", images, *MODEL, "--weights", name)
    assert f"'{name}'" in message
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("key", ["representations", "labels", "class_names", "ids", "x", "y"])
def test_archive_with_pickled_objects(refused: Refused, tmp_path: Path, key: str) -> None:
    """Python objects in a `.npz` are named, refused and never read."""
    arrays: dict[str, Any] = {"representations": np.ones((3, 2)), "labels": np.arange(3)}
    if key in "xy":
        arrays = {"x": np.zeros((3, 8, 8, 3), np.uint8), "y": np.arange(3)}
    np.savez("bomb.npz", **arrays | {key: np.array([Bomb(), Bomb(), Bomb()])})
    message = refused("profile", "bomb.npz", *MODEL, "-o", "p.safetensors")
    assert f"'{key}' in 'bomb.npz' holds pickled Python objects" in message
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["bomb.npz", "bomb.safetensors"])
def test_data_that_are_a_bomb(refused: Refused, tmp_path: Path, name: str) -> None:
    """A bare pickle under the name of a table or a profile is refused and never executed."""
    Path(name).write_bytes(pickle.dumps(Bomb()))
    table("t.npz")
    for sides in (("t.npz", name), (name, "t.npz")):
        message = refused("shift", *sides)
        assert f"'{name}'" in message
        assert "allow_pickle" not in message  # nobody is to try it in another way
    assert not (tmp_path / "exploded").exists()


# --- damaged and foreign files -----------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 4, 0.1, 0.5, 0.99])
def test_truncated_profile(refused: Refused, tmp_path: Path, kept: float) -> None:
    """A profile that was cut off anywhere is named as damaged."""
    table("t.npz")
    path = tmp_path / profiled("p.safetensors", "t.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    message = refused("shift", "p.safetensors", "t.npz")
    assert "'p.safetensors' is damaged" in message
    assert "`resque profile`" in message


def test_weights_in_place_of_a_profile(refused: Refused) -> None:
    """A safetensors file of something else is no profile."""
    from safetensors.torch import save_file

    save_file(Network().state_dict(), "w.safetensors")
    table("t.npz")
    message = refused("shift", "w.safetensors", "t.npz")
    assert message.startswith("'w.safetensors' is no profile")
    assert "damaged" not in message


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_truncated_table(refused: Refused, tmp_path: Path, kept: float) -> None:
    """A `.npz` that was cut off is named as unreadable."""
    path = tmp_path / table("t.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    message = refused("task", "t.npz")
    assert "'t.npz' is no readable .npz file" in message


def test_something_else_under_the_name_of_a_table(refused: Refused, tmp_path: Path) -> None:
    """Text, or a bare array of numpy.save, is no `.npz` whatever its name."""
    (tmp_path / "text.npz").write_text("representations, labels\n", encoding="utf-8")
    np.save(tmp_path / "array.npy", np.ones((3, 2)))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("text.npz", "array.npz"):
        message = refused("task", name)
        assert f"'{name}' is no readable .npz file" in message
        assert "numpy.savez" in message
        assert "pickle" not in message


def test_table_with_a_damaged_array(refused: Refused, tmp_path: Path) -> None:
    """A `.npz` whose bytes have changed names the array."""
    path = tmp_path / table("t.npz")
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF  # inside the first array, whose checksum then fails
    path.write_bytes(content)
    message = refused("task", "t.npz")
    assert "'representations' in 't.npz' is damaged" in message


@pytest.mark.parametrize("options", [(), MODEL], ids=["no model", "model"])
def test_archive_of_something_else(refused: Refused, options: tuple[str, ...]) -> None:
    """A `.npz` with other arrays is answered with those and with what was expected."""
    np.savez("t.npz", features=np.ones((3, 2)), targets=np.arange(3))
    message = refused("task", "t.npz", *options)
    assert "'features', 'targets'" in message
    assert "'representations' and 'labels'" in message


def test_archive_of_images_that_are_no_bytes(refused: Refused) -> None:
    """Images that are not bytes of a known shape are refused, with type and shape."""
    np.savez("t.npz", x=np.zeros((3, 8, 8, 3)), y=np.arange(3))
    message = refused("task", "t.npz", *MODEL)
    assert "shape (3, 8, 8, 3) and type float64; expected bytes (uint8)" in message
    np.savez("t.npz", x=np.zeros((3, 64), np.uint8), y=np.arange(3))
    assert "shape (3, 64)" in refused("task", "t.npz", *MODEL)


def test_archive_with_splits_that_were_not_named(refused: Refused) -> None:
    """An archive of several splits asks which; a misspelt one gets the nearest name."""
    images, labels = np.zeros((3, 8, 8, 3), np.uint8), np.arange(3)
    np.savez("t.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert "has the splits test, train; say which one (--split" in refused("task", "t.npz", *MODEL)
    message = refused("task", "t.npz", *MODEL, "--split", "trian")
    assert "no split 'trian'; it has test, train. Did you mean 'train'?" in message


def test_model_in_place_of_data(refused: Refused, images: Path, tmp_path: Path) -> None:
    """A checkpoint given as data is answered with what data can be."""
    torch.save(Network().state_dict(), tmp_path / "w.pt")
    message = refused("shift", images, "w.pt", *MODEL)
    assert "'w.pt' is no folder and no .npz file" in message
    assert "a folder of images by class" in message


def test_profile_in_place_of_a_task(refused: Refused, images: Path) -> None:
    """A profile given to `resque task` is told that a task needs the data themselves."""
    profiled("p.safetensors", images, *MODEL)
    message = refused("task", "p.safetensors", *MODEL)
    assert "'p.safetensors'" in message
    assert "a profile (.safetensors)" not in message  # this is what was given


# --- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut off"])
def test_unreadable_image_is_named(refused: Refused, images: Path, content: bytes | None) -> None:
    """An image that cannot be read is named, with the option that leaves it out."""
    file = images / "leaf" / "4.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = refused("task", images, *MODEL)
    assert f"'{file}' cannot be read" in message
    assert "--skip-unreadable" in message


def test_unreadable_images_are_counted(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    """With --skip-unreadable they are left out and counted."""
    for name in ("leaf/4.png", "sky/0.png"):
        (images / name).write_bytes(b"no image")
    assert main(["task", str(images), *MODEL, "--skip-unreadable"]) == 0
    out = capsys.readouterr().out
    assert "2 of 18 images could not be read and were left out" in out
    assert "16 examples" in out


def test_all_images_unreadable(refused: Refused, images: Path) -> None:
    """When nothing is left, that is an error with --skip-unreadable too."""
    for file in images.rglob("*.png"):
        file.write_bytes(b"no image")
    assert "no examples" in refused("task", images, *MODEL, "--skip-unreadable")


def test_grey_images_for_a_colour_model(refused: Refused, zoo: ModuleType, tmp_path: Path) -> None:
    """Grey images and a colour model are answered with the option that fits them."""
    zoo.colour = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                       nn.Linear(4, 3))  # fmt: skip
    grey = image_folder(tmp_path / "grey", mode="L")
    message = refused("task", grey, "--model", "zoo:colour", "--image-size", "8")
    assert "--channels 3" in message
    message = refused(
        "task", grey, "--model", "zoo:colour", "--mean", "0.4,0.5,0.6", "--std", "1,1,1"
    )
    assert "The image has 1 channels, mean and std have 3 values" in message
    assert "--channels 3" in message
    assert "apple/0.png" in message


def test_images_of_different_sizes(refused: Refused, images: Path) -> None:
    """Images that do not stack name the option that gives them one size."""
    Image.new("RGB", (9, 7)).save(images / "sky" / "5.png")
    message = refused("task", images, "--model", "zoo:network", "--mean", "0.5")
    assert "(3, 7, 9), (3, 8, 8)" in message
    assert "--image-size" in message


# --- folders -----------------------------------------------------------------------------------


def test_empty_folder(refused: Refused, tmp_path: Path) -> None:
    """An empty folder is called empty."""
    (tmp_path / "empty").mkdir()
    message = refused("task", "empty", *MODEL)
    assert "'empty' is empty; expected one subfolder of images per class" in message


def test_folder_of_empty_classes(refused: Refused, tmp_path: Path) -> None:
    """Subfolders without images say which suffixes images have."""
    for name in CLASSES:
        (tmp_path / "hollow" / name).mkdir(parents=True)
    message = refused("task", "hollow", *MODEL)
    assert "subfolders of 'hollow' hold no images" in message
    assert ".png" in message


def test_folder_with_one_class(refused: Refused, images: Path, tmp_path: Path) -> None:
    """A folder around the wanted one is recognised."""
    (tmp_path / "outer").mkdir()
    images.rename(tmp_path / "outer" / "images")
    message = refused("task", "outer", *MODEL)
    assert "one subfolder only, 'images'" in message
    assert "Did you mean a folder inside it?" in message


def test_folder_without_classes(refused: Refused, images: Path) -> None:
    """A folder of bare images is no labelled data."""
    assert "has no subfolders" in refused("task", images / "sky", *MODEL)


def test_classes_that_the_folder_does_not_have(refused: Refused, images: Path) -> None:
    """A subfolder that --classes leaves out is named, with the nearest of those given."""
    message = refused("task", images, *MODEL, "--classes", "apple,leave,sky")
    assert "subfolder 'leaf', which is none of the classes apple, leave, sky" in message
    assert "Did you mean 'leave'?" in message


@pytest.mark.parametrize(
    ("classes", "words"), [("a,b,a", "'a' is there more than once"), ("", "--classes")]
)
def test_class_names_that_cannot_be(
    refused: Refused, images: Path, classes: str, words: str
) -> None:
    """Names that are doubled or missing are refused as such."""
    assert words in refused("task", images, *MODEL, "--classes", classes)


def test_misspelt_path(refused: Refused, images: Path) -> None:
    """A path that does not exist gets the nearest that does."""
    message = refused("task", "imagse", *MODEL)
    assert "nothing at 'imagse'" in message
    assert "Did you mean 'images'?" in message
    table("table.npz")
    assert "Did you mean 'table.npz'?" in refused("task", "tabel.npz")
    profiled("before.safetensors", "table.npz")
    message = refused("shift", "befor.safetensors", "table.npz")
    assert "'befor.safetensors'" in message
    assert "Did you mean 'before.safetensors'?" in message


def test_misspelt_path_of_the_second_side(refused: Refused, images: Path) -> None:
    """It is found before the first side is run, which may take hours."""
    assert "nothing at 'imagse'" in refused("shift", images, "imagse", *MODEL)
    assert Network.calls == 0


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--image-size", "big"), ["--image-size", "N or HEIGHTxWIDTH", "'big'"]),
        (("--image-size", "8x8x3"), ["--image-size", "'8x8x3'"]),
        (("--image-size", "0"), ["1 pixel or more", "0"]),
        (("--image-size", "-8"), ["--image-size", "'-8'"]),
        (("--mean", "red"), ["--mean", "0.5 or 0.4,0.5,0.6", "'red'"]),
        (("--mean", "0.5,0.5"), ["0.5"]),
        (("--mean", "0.4,0.5,0.6", "--std", "1,1"), ["mean and std", "0.4", "1.0"]),
        (("--mean", "nan"), ["mean", "nan"]),
        (("--std", "0"), ["std must be above 0", "0.0"]),
        (("--std", "nan"), ["std", "nan"]),
        (("--channels", "2"), ["channels must be 1 or 3", "2"]),
        (("--autocast", "fp16"), ["--autocast must be bfloat16 or float16", "'fp16'"]),
        (("--device", "gpu"), ["device 'gpu'", "resque doctor"]),
        (("--pooling", "average"), ["pooling", "'average'", "class_token"]),
        (("--groups", "1"), ["groups must be 3 to 64", "1"]),
        (("--groups", "65"), ["groups must be 3 to 64", "65"]),
        (("--groups", "many"), ["--groups", "'many'"]),
        (("--batch-size", "0"), ["--batch-size", "0"]),
        (("--workers", "-1"), ["--workers", "-1"]),
        (("--confidence-level", "90"), ["confidence", "above 0 and below 1", "For 90 % say 0.9"]),
        (("--confidence-level", "0"), ["confidence", "above 0 and below 1", "0"]),
        (("--confidence-level", "high"), ["--confidence-level", "'high'"]),
        (("--labels", "none"), ["labels must be 'true' or 'predicted'", "'none'"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_option_that_cannot_be_used(
    refused: Refused, images: Path, options: tuple[str, ...], words: list[str]
) -> None:
    """A bad option shows what it may be and what came, before any data are run."""
    message = refused("shift", images, images, *MODEL, *options)
    for word in words:
        assert word in message
    assert Network.calls == 0


def test_start_that_does_not_exist(refused: Refused, images: Path) -> None:
    """A bad --start of `resque task` likewise."""
    message = refused("task", images, *MODEL, "--start", "random")
    assert "class_means, k-means++; got 'random'" in message
    assert Network.calls == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shift", "a", "b", "--modle", "x"), ["--modle", "--model"]),
        (("shfit", "a", "b"), ["shfit", "shift"]),
        (("shift", "a"), ["after"]),
        (("shift", "a", "b", "c"), ["c"]),
        (("profile", "a"), ["--output"]),
        (("shift", "a", "b", "--model"), ["--model"]),
    ],
    ids=" ".join,
)
def test_command_line_that_cannot_be_parsed(
    refused: Refused, arguments: tuple[str, ...], words: list[str]
) -> None:
    """Misspelt, missing and surplus words get one line like every other error."""
    message = refused(*arguments)
    for word in words:
        assert word in message


# --- output ------------------------------------------------------------------------------------


def test_output_that_is_a_folder(refused: Refused, images: Path) -> None:
    """A folder in place of the output is called one, before any data are run."""
    message = refused("profile", images, *MODEL, "-o", "images")
    assert "'images' is a folder; expected the name of a file to write" in message
    assert Network.calls == 0


def test_output_folder_that_does_not_exist(refused: Refused, images: Path) -> None:
    """A missing output folder is found before any data are run."""
    message = refused("profile", images, *MODEL, "-o", "nowhere/p.safetensors")
    assert "no folder 'nowhere' to write 'p.safetensors' to" in message
    assert Network.calls == 0


def test_output_that_would_not_be_read_again(refused: Refused, images: Path) -> None:
    """A profile under a name that `resque shift` takes for something else is refused."""
    message = refused("profile", images, *MODEL, "-o", "before.pt")
    assert "'before.pt'" in message
    assert ".safetensors" in message


@pytest.mark.parametrize("role", ["weights", "data"])
def test_output_that_would_replace_an_input(
    refused: Refused, images: Path, tmp_path: Path, role: str
) -> None:
    """The data and the weights are never overwritten by the profile made of them."""
    from safetensors.torch import save_file

    save_file(Network().state_dict(), "mine.safetensors")
    table("mine.npz")
    arguments = {
        "weights": (images, *MODEL, "--weights", "mine.safetensors", "-o", "mine.safetensors"),
        "data": ("mine.npz", "-o", "mine.npz"),
    }
    assert "'mine." in refused("profile", *arguments[role])


def test_output_where_nothing_may_be_written(
    refused: Refused, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission, the reason and the place are given."""

    def no_permission(path: Any, *rest: Any, **more: Any) -> Any:
        if "locked.safetensors" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest, **more)

    real = os.open  # which the tests may be allowed everything by, as root is
    monkeypatch.setattr(os, "open", no_permission)
    message = refused("profile", images, *MODEL, "-o", "locked.safetensors")
    assert "'locked.safetensors' could not be written: Permission denied" in message


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs the files of Linux processes")
def test_output_where_even_root_may_not_write(refused: Refused, images: Path) -> None:
    """A file system that takes no files is refused likewise."""
    message = refused("profile", images, *MODEL, "-o", "/proc/self/p.safetensors")
    assert "'/proc/self/p.safetensors' could not be written" in message


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file above a size, as a disk that fills up would."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it, so that writing fails with an error.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


@pytest.mark.parametrize("existing", [False, True])
def test_disk_that_fills_up(refused: Refused, images: Path, tmp_path: Path, existing: bool) -> None:
    """A write that fails half-way leaves nothing, or the older file as it was."""
    if existing:
        (tmp_path / "p.safetensors").write_bytes(b"an older profile")
    with largest_file(2048):
        message = refused("profile", images, *MODEL, "-o", "p.safetensors")
    assert "'p.safetensors' could not be written: " in message
    assert "make room" in message


def test_disk_that_is_full(refused: Refused, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own words for a full disk reach the user."""

    def save_half(tensors: Any, path: Path, metadata: Any) -> None:
        # On the disk of the output, so that the move at the end cannot fail half-way.
        assert path.resolve().parent == Path.cwd()
        path.write_bytes(b"half a profile")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("safetensors.numpy.save_file", save_half)
    message = refused("profile", images, *MODEL, "-o", "p.safetensors")
    assert f"'p.safetensors' could not be written: {os.strerror(errno.ENOSPC)}" in message


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nowhere/demo.png", ["no folder 'nowhere'"]),
        (".", ["'.' is a folder"]),
        ("demo.docx", ["'demo.docx'", ".png, .svg, .pdf"]),
        ("demo", ["'demo'", ".png, .svg, .pdf"]),
    ],
)
def test_figure_that_cannot_be_written(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, output: str, words: list[str]
) -> None:
    """A place or a kind of figure that cannot be is found before the demonstration is run."""
    monkeypatch.setattr("resque.experiments.digits.digits_demo", not_to_be_run)
    message = refused("demo", "--figure", output)
    for word in words:
        assert word in message


def test_demo_without_matplotlib(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that draws figures is named before the demonstration is run."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    monkeypatch.setattr("resque.experiments.digits.digits_demo", not_to_be_run)
    assert "pip install 'resque[report]'" in refused("demo")


def not_to_be_run(*_: Any) -> Any:
    pytest.fail("the demonstration was run first")


# --- Ctrl-C ------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["loading", "running", "writing"])
def test_interrupt_ends_in_silence_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    zoo: ModuleType,
    images: Path,
    tmp_path: Path,
    moment: str,
) -> None:
    """Ctrl-C ends with status 130, one line and no file, whenever it comes."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    class Interrupted(Network):
        def forward(self, images: Tensor) -> Any:
            return interrupted() if Network.calls else super().forward(images)

    def save_half(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half a profile")
        raise KeyboardInterrupt

    if moment == "writing":
        monkeypatch.setattr("safetensors.numpy.save_file", save_half)
    zoo.stopped = {"loading": interrupted, "running": Interrupted, "writing": Network}[moment]
    before = contents(tmp_path)
    options = ("--model", "zoo:stopped", "--image-size", "8", "--batch-size", "6")
    status = main(["profile", str(images), *options, "-o", "p.safetensors"])
    captured = capsys.readouterr()
    assert (status, captured.out) == (130, "")
    assert captured.err == "resque: interrupted; nothing was written\n"
    assert before == contents(tmp_path)


SLEEPER = """
import time
from pathlib import Path
from torch import nn

class Sleeper(nn.Sequential):
    def forward(self, images):
        Path("started").touch()
        time.sleep(60)

def network():
    return Sleeper(nn.Flatten(), nn.Linear(192, 3))
"""


# A test run in the background of a shell would hand on that it ignores the signal.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from resque.cli import run
run()
"""


def test_interrupt_from_the_keyboard(images: Path, tmp_path: Path) -> None:
    """The signal of a real Ctrl-C ends the process at once, with nothing left behind."""
    (tmp_path / "sleeper.py").write_text(SLEEPER, encoding="utf-8")
    words = ("profile", "images", "--model", "sleeper:network", "--image-size", "8")
    with subprocess.Popen(
        [sys.executable, "-Bc", INTERRUPTIBLE, *words, "-o", "p.safetensors"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not (tmp_path / "started").exists():
                assert process.poll() is None, process.communicate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.05)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in said
    assert {"images", "sleeper.py", "started"} == {path.name for path in tmp_path.iterdir()}
