"""What reproduces a number, and what it may be compared with."""

from __future__ import annotations

import copy
import dataclasses
import json
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import resque
from resque import NotComparableError, Signature
from resque.representation.signature import hardware_name, installed_version

FIELDS: dict[str, Any] = {
    "model": "resnet18",
    "weights": "0123456789abcdef",
    "layer": "input:fc",
    "pooling": "none",
    "preprocessing": "size 32x32",
    "width": 512,
    "class_names": ("ant", "bee"),
    "examples": (10, 20),
    "dtype": "float32",
    "groups": 16,
    "hardware": "a processor",
    "version": "1.2.3",
}
SIGNATURE = Signature(**FIELDS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", "fedcba9876543210"),
        ("layer", "layer4"),
        ("pooling", "mean"),
        ("width", 256),
        ("preprocessing", "size 64x64"),
    ],
)
def test_what_makes_numbers_incomparable_is_named(name: str, value: Any) -> None:
    """Both values are in the message, in either order."""
    other = dataclasses.replace(SIGNATURE, **{name: value})
    assert SIGNATURE.differences(other) == [f"{name} ({FIELDS[name]} and {value})"]
    for one, two in ((SIGNATURE, other), (other, SIGNATURE)):
        with pytest.raises(NotComparableError, match=rf"differ in {name} \(.*\)\. Make both"):
            one.require_comparable(two)


def test_all_differences_are_named_at_once() -> None:
    """Nobody has to mend them one by one."""
    other = dataclasses.replace(SIGNATURE, layer="layer4", width=256)
    assert SIGNATURE.differences(other) == [
        "layer (input:fc and layer4)",
        "width (512 and 256)",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", "RESQUE_dist"),
        ("model", "another name"),
        ("class_names", ("bee", "cat")),
        ("examples", (1, 2)),
        ("dtype", "bfloat16"),
        ("groups", None),
        ("seed", 3),
        ("hardware", "a graphics card"),
        ("version", "9.9.9"),
        ("preprocessing", None),
    ],
)
def test_what_does_not_make_numbers_incomparable(name: str, value: Any) -> None:
    """The name of a model decides nothing, and what nobody stated is no difference."""
    other = dataclasses.replace(SIGNATURE, **{name: value})
    assert other != SIGNATURE
    SIGNATURE.require_comparable(other)
    other.require_comparable(SIGNATURE)


def test_every_field_is_known_to_one_of_the_tests_above() -> None:
    """A new field must be put on one side or the other."""
    known = {*FIELDS, "index", "seed"}
    assert {field.name for field in dataclasses.fields(Signature)} == known


@pytest.mark.parametrize("index", [None, "RESQUE_task"])
def test_a_signature_survives_json(index: str | None) -> None:
    """Names and numbers of examples are tuples again."""
    signature = dataclasses.replace(SIGNATURE, index=index, seed=7, weights=None)
    text = json.dumps(signature.to_dict())
    assert signature == Signature.from_dict(json.loads(text))


def test_a_foreign_signature_is_refused() -> None:
    """A field too many or too few; whoever reads a file turns this into a message."""
    with pytest.raises(TypeError):
        Signature.from_dict({**SIGNATURE.to_dict(), "colour": "red"})
    with pytest.raises((TypeError, KeyError)):
        Signature.from_dict({key: FIELDS[key] for key in FIELDS if key != "width"})


def test_reading_a_signature_leaves_the_dictionary_alone() -> None:
    """What was read from a file can be read again."""
    values = SIGNATURE.to_dict()
    Signature.from_dict(values)
    assert values == SIGNATURE.to_dict()


def test_a_signature_cannot_be_changed() -> None:
    """It belongs to its number."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SIGNATURE.layer = "layer4"  # type: ignore[misc]


def test_a_signature_prints_on_one_line() -> None:
    """What is None is left out, except preprocessing, which was not stated."""
    assert str(SIGNATURE) == (
        "model:resnet18|weights:0123456789abcdef|layer:input:fc|pooling:none|"
        "preprocessing:size 32x32|width:512|classes:2|examples:10/20|dtype:float32|groups:16|"
        "hardware:a processor|resque:1.2.3"
    )
    bare = dataclasses.replace(
        SIGNATURE, index="RESQUE_task", weights=None, preprocessing=None, groups=None, seed=0
    )
    assert str(bare) == (
        "index:RESQUE_task|model:resnet18|layer:input:fc|pooling:none|"
        "preprocessing:not stated|width:512|classes:2|examples:10/20|dtype:float32|seed:0|"
        "hardware:a processor|resque:1.2.3"
    )


def test_a_pass_signs_what_it_did(mlp: nn.Module) -> None:
    """Every field has the value of this very pass."""
    data = torch.randn(10, 6), np.arange(10) % 2
    found = resque.profile(
        mlp, data, class_names=["a", "b"], preprocessing="centred", groups=8
    ).signature
    assert found is not None
    assert found.weights is not None
    expected = Signature(
        model="Sequential",
        weights=found.weights,
        layer="input:2",
        pooling="none",
        preprocessing="centred",
        width=8,
        class_names=("a", "b"),
        examples=(10,),
        dtype="float32",
        groups=8,
        hardware=hardware_name(torch.device("cpu")),
        version=version("resque"),
    )
    assert expected == found
    named = resque.profile(mlp, data, model_name="my model", layer="0", pooling="flatten").signature
    assert named is not None
    assert (named.model, named.layer, named.pooling) == ("my model", "0", "flatten")


def test_given_representations_are_signed_as_such() -> None:
    """There are no weights and no layer to name."""
    found = resque.profile(None, (np.ones((4, 5)), [0, 0, 1, 1])).signature
    assert found is not None
    assert (found.model, found.weights) == ("representations", None)
    assert (found.layer, found.pooling) == ("given", "given")
    assert (found.width, found.dtype, found.preprocessing) == (5, "float64", None)


def test_models_are_named_as_their_libraries_name_them() -> None:
    """timm by architecture, transformers by where they came from, all others by class."""
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16,
    )  # fmt: skip
    nameless = transformers.ViTForImageClassification(config)
    named = transformers.ViTForImageClassification(copy.deepcopy(config))
    named.config._name_or_path = "google/a-vit/"
    images = torch.randn(2, 3, 32, 32), np.arange(2)
    for model, expected in (
        (timm.create_model("resnet18", pretrained=False), "resnet18"),
        (nameless, "ViTForImageClassification"),
        (named, "a-vit"),
    ):
        signature = resque.profile(model, images).signature
        assert signature is not None
        assert expected == signature.model


def test_the_version_is_that_of_the_package() -> None:
    """As the installer knows it."""
    assert version("resque") == installed_version() == resque.__version__


def test_the_processor_has_a_name() -> None:
    """One that people know it by, on one line."""
    name = hardware_name(torch.device("cpu"))
    assert name.strip() == name
    assert name
    assert "\n" not in name
    assert hardware_name(torch.device("mps")) == "mps"
