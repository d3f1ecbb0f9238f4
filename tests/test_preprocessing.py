"""From an image to the tensor that a model expects, as the model's own library does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resque import InputError
from resque.representation.models import load_model
from resque.representation.preprocessing import (
    Preprocessing,
    chosen_preprocessing,
    preprocessing_of_timm,
)

# Both sides do the same float32 arithmetic; this leaves room for one rounding.
TOLERANCE = 1e-6

# Width, height: square, landscape, portrait, odd, smaller than the model's, much larger.
SIZES = [(64, 64), (300, 200), (97, 161), (31, 30), (640, 360)]


def picture(rng: np.random.Generator, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    width, height = size
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def assert_same_tensor(expected: torch.Tensor, actual: torch.Tensor) -> None:
    assert expected.dtype == actual.dtype
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


# ---- the same as timm and torchvision ----------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv2_050",
        "densenet121",
        "vgg11",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "efficientnet_b0",
        "swin_tiny_patch4_window7_224",
        "inception_v4",
    ],
)
def test_timms_evaluation_transform_is_reproduced(
    name: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Resize, crop, scale and normalisation as timm.data.create_transform makes them."""
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg(name).to_dict()
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    image = picture(rng, size)
    assert_same_tensor(theirs(image), preprocessing_of_timm(config)(image))


@pytest.mark.parametrize(
    "name",
    [
        "coat_lite_medium_384.in1k",  # squashed to a square
        "deepseek_vit_412m.deepseek_v4_flash_vision_exp",  # framed by a border
        "vit_base_patch16_sapiens2.fb",  # taller than wide
    ],
)
def test_timms_rarer_ways_of_cropping_are_left_to_the_user(name: str) -> None:
    """Another image than the model was made for would give another number in silence."""
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg(name)
    if config is None:
        pytest.skip(f"this version of timm has no {name}")
    assert preprocessing_of_timm(config.to_dict()) is None


def test_every_preprocessing_that_timm_asks_for_is_reproduced_or_left_to_the_user(
    rng: np.random.Generator,
) -> None:
    """All models that timm has weights for, each way of preparing an image once."""
    timm = pytest.importorskip("timm")
    image = picture(rng, (97, 61))
    seen, reproduced = set(), 0
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        resolved = timm.data.resolve_data_config(pretrained_cfg=config)
        way = repr(sorted(resolved.items()))
        # Large images take long to resize, and are prepared by the same lines.
        if way in seen or max(resolved["input_size"]) > 300:
            continue
        seen.add(way)
        ours = preprocessing_of_timm(config)
        if ours is not None:
            assert_same_tensor(timm.data.create_transform(**resolved)(image), ours(image))
            reproduced += 1
    assert reproduced > 50


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "googlenet", "efficientnet_b0", "regnet_y_400mf"]
)
def test_torchvisions_presets_are_reproduced(
    name: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """The transforms that come with the published weights."""
    models = pytest.importorskip("torchvision.models")
    theirs = models.get_model_weights(name).DEFAULT.transforms()
    ours = load_model(f"torchvision:{name}", weights="random").preprocessing
    assert isinstance(ours, Preprocessing)
    image = picture(rng, size)
    assert_same_tensor(theirs(image), ours(image))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", SIZES)
def test_resizing_is_that_of_torchvision(
    interpolation: Any, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """With and without a crop, for every interpolation."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = picture(rng, size)
    how = transforms.InterpolationMode(interpolation)
    exact = transforms.Compose([transforms.Resize((28, 36), how), transforms.ToTensor()])
    ours = Preprocessing(image_size=(28, 36), interpolation=interpolation)
    assert_same_tensor(exact(image), ours(image))
    cropped = transforms.Compose(
        [transforms.Resize(32, how), transforms.CenterCrop((27, 30)), transforms.ToTensor()]
    )
    ours = Preprocessing(image_size=(27, 30), resize_to=32, interpolation=interpolation)
    assert_same_tensor(cropped(image), ours(image))


# ---- values and channels -----------------------------------------------------------------------


def test_bytes_become_values_from_0_to_1_and_are_normalised() -> None:
    """Value over 255, minus the mean, over the standard deviation; per channel."""
    pixels = np.array([[[0, 51, 255], [255, 102, 0]]], np.uint8)
    plain = Preprocessing()(pixels)
    assert plain.dtype is torch.float32
    expected = torch.tensor([[[0, 1.0]], [[0.2, 0.4]], [[1.0, 0]]])
    torch.testing.assert_close(plain, expected, rtol=0, atol=TOLERANCE)
    scaled = Preprocessing(mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))(pixels)
    expected = torch.tensor([[[-1.0, 1]], [[0, 2.0]], [[0.5, 0]]])
    torch.testing.assert_close(scaled, expected, rtol=0, atol=TOLERANCE)


def test_one_mean_serves_all_channels() -> None:
    """As many as the image has."""
    pixels = np.full((2, 2, 3), 51, np.uint8)
    found = Preprocessing(mean=(0.2,), std=(0.1,))(pixels)
    torch.testing.assert_close(found, torch.zeros(3, 2, 2), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_an_array_may_have_an_axis_of_one_channel_or_none(shape: tuple[int, ...]) -> None:
    """Both are grey."""
    pixels = np.arange(20, dtype=np.uint8).reshape(shape)
    expected = torch.arange(20.0).reshape(1, 5, 4) / 255
    torch.testing.assert_close(Preprocessing()(pixels), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("YCbCr", 3)],
)
def test_every_mode_of_an_image_has_one_or_three_channels(
    mode: str, channels: int, rng: np.random.Generator
) -> None:
    """Grey stays grey, palettes and alpha become colour; the values are PIL's."""
    image = picture(rng, (6, 5), "L" if mode == "LA" else "RGB").convert(mode)
    found = Preprocessing()(image)
    assert tuple(found.shape) == (channels, 5, 6)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    assert_same_tensor(torch.from_numpy(expected.reshape(5, 6, channels)).permute(2, 0, 1), found)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_are_asked_for_are_made(
    mode: str, channels: Any, rng: np.random.Generator
) -> None:
    """Grey repeated, colour weighed as PIL does."""
    image = picture(rng, (6, 5), "L" if mode == "LA" else "RGB").convert(mode)
    found = Preprocessing(channels=channels)(image)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    assert_same_tensor(torch.from_numpy(expected.reshape(5, 6, channels)).permute(2, 0, 1), found)


GRADIENT = np.linspace(0, 65535, 20).astype(np.uint16).reshape(4, 5)


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(GRADIENT), Image.fromarray(GRADIENT.astype(np.int32)), GRADIENT],
    ids=["16 bits", "32 bits", "array"],
)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_images_of_more_than_8_bits_are_refused(image: Any, channels: Any) -> None:
    """PIL's own conversion would make every value above 255 white."""
    with pytest.raises(InputError, match=r"more than 8 bits per value|must be bytes"):
        Preprocessing(channels=channels)(image)


@pytest.mark.parametrize(
    "image",
    [np.linspace(0, 1, 20).reshape(4, 5), np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)],
    ids=["float64", "float32"],
)
def test_images_of_floating_point_are_refused(image: np.ndarray) -> None:
    """Values from 0 to 1 read as bytes would all be black."""
    with pytest.raises(InputError, match=rf"must be bytes.*got an array of {image.dtype}"):
        Preprocessing()(image)


def test_a_grey_image_for_a_colour_model_says_how_to_mend_it() -> None:
    """And a colour image for a grey model likewise."""
    grey, colour = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"has 1 channels, mean and std have 3.*--channels 3"):
        Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)(grey)
    two = Preprocessing(mean=(0.5,) * 2, std=(0.5,) * 2)
    with pytest.raises(InputError, match="has 3 channels, mean and std have 2"):
        two(colour)


def test_the_image_is_left_alone(rng: np.random.Generator) -> None:
    """Neither its pixels nor its mode change, and the tensor is one of its own."""
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    kept = pixels.copy()
    Preprocessing()(pixels).zero_()
    np.testing.assert_array_equal(pixels, kept)
    image = picture(rng, (6, 5), "P")
    Preprocessing(image_size=(3, 3), channels=1)(image)
    assert (image.mode, image.size) == ("P", (6, 5))


# ---- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": (0, 4)}, r"image_size must be 1 pixel or more; got \(0, 4\)"),
        ({"std": (0.0,)}, r"std must be above 0; got \(0\.0,\)"),
        ({"std": (-1.0,)}, r"std must be above 0; got \(-1\.0,\)"),
        ({"mean": (0.1, 0.2)}, r"as many values as each other; got \(0\.1, 0\.2\) and \(1\.0,\)"),
        ({"std": (float("nan"),)}, "std must be"),
        ({"mean": (float("inf"),)}, r"mean must be finite; got \(inf,\)"),
        ({"channels": 2}, "channels must be 1 or 3; got 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], expected: str) -> None:
    """With the value that was given."""
    with pytest.raises(InputError, match=expected):
        Preprocessing(**options)


def test_it_prints_all_that_changes_the_numbers() -> None:
    """Two that differ in anything print differently, because signatures compare the text."""
    assert str(Preprocessing()) == "size as is (bilinear), mean 0, std 1"
    whole = {
        "image_size": (224, 192),
        "resize_to": 256,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "channels": 3,
        "interpolation": "bicubic",
    }
    assert str(Preprocessing(**whole)) == (
        "size 224x192, cropped from 256 (bicubic), 3 channels, mean 0.485,0.456,0.406, "
        "std 0.229,0.224,0.225"
    )
    others = {
        "image_size": (192, 224),
        "resize_to": None,
        "mean": (0.485, 0.456, 0.407),
        "std": (0.229, 0.224, 0.226),
        "channels": None,
        "interpolation": "bilinear",
    }
    assert {*others} == {*whole}
    texts = {str(Preprocessing(**{**whole, key: value})) for key, value in others.items()}
    assert len(texts - {str(Preprocessing(**whole))}) == len(others)


def test_means_that_differ_in_a_later_digit_print_differently() -> None:
    """0.48145466 and 0.48145500 are two ways of preparing an image."""
    one, two = (Preprocessing(mean=(m,) * 3, std=(1,) * 3) for m in (0.48145466, 0.481455))
    assert str(one) != str(two)


def test_named_options_take_the_place_of_the_models_own() -> None:
    """A size replaces the crop as well; what is not named stays."""
    brought = Preprocessing(
        image_size=(224, 224),
        resize_to=256,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        interpolation="bicubic",
    )
    assert chosen_preprocessing(brought) is brought
    assert chosen_preprocessing(brought, image_size=(64, 32)) == Preprocessing(
        image_size=(64, 32), mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="bicubic"
    )
    assert chosen_preprocessing(brought, channels=3, mean=(0.1,) * 3) == Preprocessing(
        image_size=(224, 224),
        resize_to=256,
        mean=(0.1,) * 3,
        std=(0.2,) * 3,
        channels=3,
        interpolation="bicubic",
    )


def test_named_options_alone_make_a_preprocessing() -> None:
    """Where the model brings none; nothing named, nothing made."""
    assert chosen_preprocessing(None) is None
    assert chosen_preprocessing(None, image_size=(8, 8), std=(0.5,), mean=(0.1,)) == Preprocessing(
        image_size=(8, 8), mean=(0.1,), std=(0.5,)
    )


def test_a_function_cannot_be_changed_by_options() -> None:
    """It is used as it is, or changed where it is made."""

    def prepare(_: Any) -> torch.Tensor:
        return torch.zeros(3)

    assert chosen_preprocessing(prepare) is prepare
    with pytest.raises(InputError, match="a function, which image_size, resize_to cannot change"):
        chosen_preprocessing(prepare, image_size=(8, 8))
    with pytest.raises(InputError, match="a function, which std, channels cannot change"):
        chosen_preprocessing(prepare, std=(1.0,), channels=3)
