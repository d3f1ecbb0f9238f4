"""Where models come from, and weights that are named, never fetched and never unpickled."""

from __future__ import annotations

import copy
import importlib
import pickle
import random
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import resque
from resque import InputError
from resque.representation.models import fit_weights, load_model, load_weights
from resque.representation.preprocessing import Preprocessing

IMAGES = (2, 3, 32, 32)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection fails loudly in every test of this file."""

    def refuse(*args: Any) -> None:
        raise AssertionError(f"a connection was opened: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The weights that happen to be on this machine have no say."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def assert_same_weights(expected: nn.Module, actual: nn.Module) -> None:
    one, other = expected.state_dict(), actual.state_dict()
    assert {*one} == {*other}
    for name in one:
        assert torch.equal(one[name], other[name]), name


def same_weights(expected: nn.Module, actual: nn.Module) -> bool:
    one, other = expected.state_dict(), actual.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_connection_would_be_noticed() -> None:
    """The guard above can fail."""
    with pytest.raises(AssertionError, match="a connection was opened"):
        socket.create_connection(("127.0.0.1", 9))


# ---- what a model is called --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name", "size"),
    [
        ("timm:resnet18", "resnet18", 224),
        ("timm:test_vit", "test_vit", 160),
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k", 224),
        ("torchvision:resnet18", "resnet18", 224),
        ("torchvision:googlenet", "googlenet", 224),
    ],
)
def test_models_of_the_libraries_come_in_eval_mode_with_their_preprocessing(
    spec: str, name: str, size: int
) -> None:
    """Ready to be run on images."""
    loaded = load_model(spec, weights="random")
    assert name == loaded.name
    assert not any(module.training for module in loaded.model.modules())
    assert isinstance(loaded.preprocessing, Preprocessing)
    assert (size, size) == loaded.preprocessing.image_size


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet18", "expected timm:NAME, torchvision:NAME or package.module:factory"),
        ("timm:", "is not understood"),
        (":resnet18", "is not understood"),
        ("", "is not understood"),
        ("timm:resnet81", r"timm has no model 'resnet81'\. Did you mean 'resnet18'"),
        ("timm:resnet18.a1_in1kk", r"resnet18\.a1_in1kk.*Did you mean 'resnet18\.a1_in1k'"),
        ("torchvision:resnet81", r"torchvision has no classifier 'resnet81'\. Did you mean 'resn"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier 'fcn_resnet50'"),
        ("no_such_module:make", "'no_such_module' of 'no_such_module:make' cannot be imported"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(spec: str, expected: str) -> None:
    """Before anything is built."""
    with pytest.raises(InputError, match=expected):
        load_model(spec, weights="random")


@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:resnet18"])
def test_weights_are_never_random_in_silence(spec: str) -> None:
    """The three possibilities are named."""
    with pytest.raises(InputError, match="--weights FILE, --weights cached or --weights random"):
        load_model(spec)


# ---- random weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_random_weights_come_from_the_seed_alone(spec: str) -> None:
    """The same seed gives the same weights whatever was drawn before, and draws nothing itself."""
    first = load_model(spec, weights="random", seed=5).model
    torch.rand(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    again = load_model(spec, weights="random", seed=5).model
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert_same_weights(first, again)
    assert not same_weights(first, load_model(spec, weights="random", seed=6).model)


# ---- weight files ------------------------------------------------------------------------------


@pytest.fixture
def trained() -> nn.Module:
    """A small network of timm's with other weights than a seed would give, for 10 classes."""
    timm = pytest.importorskip("timm")
    model: nn.Module = timm.create_model("test_resnet", pretrained=False, num_classes=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


def write(state: Any, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", lambda state: state),
        ("w.pth", lambda state: state),
        ("w.pt", lambda state: state),
        ("w.bin", lambda state: state),
        ("w.pth", lambda state: {"state_dict": state, "epoch": 3, "name": "a run"}),
        ("w.pth", lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}}),
        ("w.pth", lambda state: {"model": state}),
        ("w.pth", lambda state: {f"module.{key}": value for key, value in state.items()}),
        ("w.pth", lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}),
        ("w.pth", lambda state: {f"_orig_mod.module.{k}": value for k, value in state.items()}),
        ("w.pth", lambda state: {f"module._orig_mod.{k}": value for k, value in state.items()}),
        ("w.safetensors", lambda state: {f"module.{key}": value for key, value in state.items()}),
        ("w.pth", lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}),
    ],
    ids=[
        "safetensors",
        "pth",
        "pt",
        "bin",
        "state_dict",
        "model_state_dict",
        "model",
        "data parallel",
        "compiled",
        "compiled of parallel",
        "parallel of compiled",
        "safetensors of parallel",
        "checkpoint of parallel",
    ],
)
def test_weights_are_read_from_files_as_people_have_them(
    trained: nn.Module, tmp_path: Path, name: str, wrap: Any
) -> None:
    """The number of classes is that of the weights: a head for 10 is loaded into a head for 10."""
    file = write(wrap(trained.state_dict()), tmp_path / name)
    loaded = load_model("timm:test_resnet", weights=file)
    assert_same_weights(trained, loaded.model)
    images = torch.randn(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images), trained(images), rtol=0, atol=0)
    assert tuple(loaded.model(images).shape) == (2, 10)


def test_half_precision_weights_are_loaded_into_a_float32_model(
    trained: nn.Module, tmp_path: Path
) -> None:
    """What the file rounded stays rounded; the model's type stays its own."""
    half = copy.deepcopy(trained).half()
    file = write(half.state_dict(), tmp_path / "w.safetensors")
    model = load_model("timm:test_resnet", weights=file).model
    assert torch.float32 is next(model.parameters()).dtype
    assert_same_weights(half.float(), model)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:vit_tiny_patch16_224", {}),
        ("timm:deit_tiny_distilled_patch16_224", {}),
        ("timm:convnext_atto", {}),
        ("torchvision:mobilenet_v3_small", {}),
        ("torchvision:googlenet", {"init_weights": False}),
        ("torchvision:squeezenet1_1", {}),
    ],
)
def test_a_head_for_other_classes_fits_every_kind_of_model(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Linear or convolutional, one head or two, auxiliary heads or none."""
    origin, _, architecture = name.partition(":")
    library = pytest.importorskip("timm" if origin == "timm" else "torchvision.models")
    if origin == "timm":
        model = library.create_model(architecture, pretrained=False, num_classes=10)
    else:
        model = library.get_model(architecture, weights=None, num_classes=10, **options)
    file = write(model.state_dict(), tmp_path / "w.pth")
    assert_same_weights(model, load_model(name, weights=file).model)


def test_weights_that_do_not_fit_are_named(trained: nn.Module, tmp_path: Path) -> None:
    """Missing keys, left over keys and other shapes, the first few of each."""
    state = trained.state_dict()
    first, second, third = list(state)[:3]
    del state[first]
    state[second] = torch.zeros(1, 2)
    state["extra.weight"] = torch.zeros(1)
    file = write(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        load_model("timm:test_resnet", weights=file)
    message = str(caught.value)
    assert f"1 keys are missing ({first})" in message
    assert "1 keys are left over (extra.weight)" in message
    assert f"1 shapes differ ({second} is (1, 2), the model needs " in message
    assert third not in message


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Many keys are counted, three of them named."""
    file = write(nn.Linear(3, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"\d+ keys are missing \(.*, and \d+ more\)"):
        load_model("timm:test_resnet", weights=file)


def test_weights_that_do_not_fit_leave_the_model_alone() -> None:
    """All or nothing."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    kept = copy.deepcopy(model)
    with pytest.raises(InputError, match="do not fit"):
        fit_weights(
            model, {**model.state_dict(), "0.weight": torch.zeros(2, 3), "2.bias": Tensor()}
        )
    assert_same_weights(kept, model)


def test_a_file_that_is_not_there_gets_the_nearest(trained: nn.Module, tmp_path: Path) -> None:
    """Of the same folder, or none."""
    write(trained.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"no weight file .*wieghts\.pth'\. Did .*weights\.pth'"):
        load_weights(tmp_path / "wieghts.pth")
    with pytest.raises(InputError, match="Expected a file, 'cached' or 'random'"):
        load_model("timm:test_resnet", weights="cashed")
    with pytest.raises(InputError, match="no weight file"):
        load_weights(tmp_path / "nowhere" / "w.pth")


class Bomb:
    """What runs code when it is unpickled: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    """Otherwise the next test would show nothing."""
    torch.save({"weight": Bomb(tmp_path / "marker")}, tmp_path / "w.pth")
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_bomb_is_refused_and_never_goes_off(tmp_path: Path, kind: str, name: str) -> None:
    """Whatever the file is called and however it was written."""
    marker, path = tmp_path / "marker", tmp_path / name
    content = {"fc.weight": torch.zeros(2), "bomb": Bomb(marker)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError) as caught:
        load_model("timm:test_resnet", weights=str(path))
    assert str(path) in str(caught.value)
    assert not marker.exists()
    if name != "w.safetensors":
        assert "nothing was executed" in str(caught.value)
        assert "torch.save(model.state_dict(), FILE)" in str(caught.value)


def test_a_whole_pickled_model_is_refused(trained: nn.Module, tmp_path: Path) -> None:
    """Its classes would have to be imported by name."""
    torch.save(trained, tmp_path / "w.pth")
    with pytest.raises(InputError, match="pickled objects other than tensors"):
        load_weights(tmp_path / "w.pth")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    """It carries code."""
    with warnings.catch_warnings():
        # torch.jit is on its way out; files made with it are still about.
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)).save(tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt"):
            load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (torch.zeros(3), "holds a Tensor; expected the state dict"),
        ([torch.zeros(3)], "holds a list; expected the state dict"),
        ({}, "holds a dict; expected the state dict"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is no tensor"),
        ({"state_dict": {"a": {"b": torch.zeros(1)}}}, "'a' is no tensor"),
    ],
)
def test_a_file_of_something_else_says_what_it_holds(
    tmp_path: Path, content: Any, expected: str
) -> None:
    """A state dict is one tensor per name."""
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=expected):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "old.pth", "w.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused_wherever_it_is_damaged(name: str, tmp_path: Path) -> None:
    """Cut off or altered at 200 places each: weights or an InputError, nothing else."""
    state, path = nn.Linear(3, 2).state_dict(), tmp_path / name
    if name == "old.pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        write(state, path)
    whole = path.read_bytes()
    # Any seed must do; this one makes a failure repeat.
    draw = random.Random(7)
    messages = []
    for place in range(400):
        content = bytearray(whole)
        if place % 2:
            del content[draw.randrange(len(content)) :]
        else:
            for _ in range(draw.choice([1, 3, 20])):
                content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_weights(path)
        except InputError as error:
            messages.append(str(error))
    assert all(name in message for message in messages)
    # Most of those that were cut off; the last bytes of an archive are padding that nobody reads.
    assert len(messages) > 150


# ---- cached weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("timm:resnet18", r"of timm:resnet18 are on this machine.*Fetch timm/resnet18\.a1_in1k"),
        ("timm:test_resnet", "of timm:test_resnet are on this machine"),
        ("torchvision:resnet18", r"looked for .*resnet18-\w+\.pth.*Give --weights FILE"),
    ],
)
def test_weights_that_are_not_cached_are_not_fetched(spec: str, expected: str) -> None:
    """The message says where they would be, or what to fetch; no connection is opened."""
    with pytest.raises(InputError, match=expected):
        load_model(spec, weights="cached")


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_cached_torchvision_weights_give_torchvisions_own_model(name: str, tmp_path: Path) -> None:
    """The same outputs as torchvision's own loading of the same file, for the same image."""
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False} if name == "googlenet" else {}
    published = models.get_model_weights(name).DEFAULT
    model = models.get_model(name, weights=None, **options)
    # Statistics of a batch, so that the output of random weights depends on the image at all.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 64, 64))
    file = tmp_path / "torch" / "hub" / "checkpoints" / published.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    theirs = models.get_model(name, weights=published).eval()
    ours = load_model(f"torchvision:{name}", weights="cached").model
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert theirs(images).std(0).mean() > 0.01
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_cached_timm_weights_are_found_in_the_hubs_cache(tmp_path: Path) -> None:
    """Where huggingface_hub keeps what was fetched before."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", pretrained=False)
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    assert_same_weights(model, load_model("timm:resnet18", weights="cached").model)


# ---- factories ---------------------------------------------------------------------------------

FACTORIES = """
import torch
from torch import nn


def model():
    return nn.Linear(4, 2)


def pair():
    return nn.Linear(4, 2), prepare


def prepare(image):
    return torch.zeros(4)


def unprepared():
    return nn.Linear(4, 2), None


class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)


def training():
    return nn.Sequential(nn.Linear(4, 2), nn.Dropout()).train()


def nothing():
    return None


def wrong_pair():
    return nn.Linear(4, 2), 5


def three():
    return nn.Linear(4, 2), prepare, 5


def takes(width):
    return nn.Linear(width, 2)


def fails():
    raise FileNotFoundError("weights.pth")


value = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of factories in the current folder."""
    name = f"factories_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    return name


@pytest.mark.parametrize("factory", ["model", "pair", "unprepared", "Net", "training"])
def test_a_factory_returns_a_module_or_a_pair(module: str, factory: str) -> None:
    """With or without preprocessing; a class of a module will do."""
    loaded = load_model(f"{module}:{factory}")
    assert factory == loaded.name
    assert not any(part.training for part in loaded.model.modules())
    if factory == "pair":
        assert callable(loaded.preprocessing)
        assert loaded.preprocessing(None).tolist() == [0.0] * 4
    else:
        assert loaded.preprocessing is None


def test_a_factory_without_weights_of_its_own_is_seeded(module: str) -> None:
    """The same seed, the same model; torch's generator is left alone."""
    before = torch.get_rng_state()
    first = load_model(f"{module}:model", seed=3).model
    assert_same_weights(first, load_model(f"{module}:model", seed=3).model)
    assert not same_weights(first, load_model(f"{module}:model", seed=4).model)
    assert torch.equal(before, torch.get_rng_state())


def test_a_factory_takes_weights_from_a_file(module: str, tmp_path: Path) -> None:
    """All of them must fit."""
    trained = nn.Linear(4, 2)
    file = write(trained.state_dict(), tmp_path / "w.safetensors")
    assert_same_weights(trained, load_model(f"{module}:model", weights=file).model)
    file = write(nn.Linear(4, 3).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"2 shapes differ \(weight is \(3, 4\), the model needs"):
        load_model(f"{module}:model", weights=file)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("nothing", r"returned a NoneType; expected a torch\.nn\.Module"),
        ("wrong_pair", "returned a tuple; expected"),
        ("three", "returned a tuple; expected"),
        ("value", "is a int; expected a function"),
        ("modle", r"has no function 'modle'\. Did you mean 'model'"),
        ("takes", "takes.*argument"),
        ("fails", r"FileNotFoundError.*weights\.pth|weights\.pth.*FileNotFoundError"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused(module: str, factory: str, expected: str) -> None:
    """The message says what it is or what it did."""
    with pytest.raises(InputError, match=expected):
        load_model(f"{module}:{factory}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def model(:", "SyntaxError|invalid syntax"),
        ("raise RuntimeError('not today')", "not today"),
    ],
    ids=["missing package", "syntax error", "error"],
)
def test_a_module_that_cannot_be_imported_is_refused(
    module: str, tmp_path: Path, content: str, expected: str
) -> None:
    """With the reason that Python gives."""
    (tmp_path / f"{module}.py").write_text(content)
    with pytest.raises(InputError, match=expected):
        load_model(f"{module}:model")


def test_a_relative_module_is_refused(module: str) -> None:
    """There is no package that it could be relative to."""
    with pytest.raises(InputError, match=f"{module}:model"):
        load_model(f".{module}:model")


def test_cached_is_not_for_factories(module: str) -> None:
    """They bring their weights or take a file."""
    with pytest.raises(InputError, match="--weights cached is for timm and torchvision"):
        load_model(f"{module}:model", weights="cached")


# ---- devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["quantum", "cuda:99", "hpu", "cpu:x", ""])
def test_a_device_that_is_not_here_is_refused(module: str, device: str) -> None:
    """By its name."""
    with pytest.raises(InputError, match=f"device '{device}' cannot be used here"):
        load_model(f"{module}:model", device=device)


def test_auto_is_the_graphics_card_where_there_is_one(module: str) -> None:
    """Else the processor."""
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(f"{module}:model", device="auto").model
    assert {expected} == {parameter.device.type for parameter in model.parameters()}


# ---- all the way -------------------------------------------------------------------------------


def test_a_loaded_model_can_be_profiled_with_its_own_preprocessing(
    trained: nn.Module, tmp_path: Path
) -> None:
    """The digest is that of the trained weights, however they were stored."""
    file = write(trained.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model("timm:test_resnet", weights=file)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
    assert loaded.preprocessing is not None
    images = torch.stack([loaded.preprocessing(image) for image in pixels])
    data = images, torch.arange(6) % 2
    expected, actual = resque.profile(trained, data), resque.profile(loaded.model, data)
    assert expected.signature is not None
    assert actual.signature is not None
    assert expected.signature.weights == actual.signature.weights
    np.testing.assert_array_equal(expected.by_label.sums, actual.by_label.sums)
