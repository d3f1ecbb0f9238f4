"""What the experiments are made of: shifts, networks, splits, data sets."""

from __future__ import annotations

import builtins
import csv
import gzip
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import resque
from resque import InputError, MissingExtraError
from resque.experiments.datasets import DATASETS, ImageSet, TextSet, dataset
from resque.experiments.networks import NETWORKS, network
from resque.experiments.shifts import (
    SHIFTS,
    brightness,
    contrast,
    gaussian_noise,
    impulse_noise,
    published_gaussian_noise,
    salt_and_pepper,
    shot_noise,
)
from resque.experiments.splits import published_split
from resque.representation.sampling import stratified_sample


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(shape, generator=seeded(9), dtype=dtype)


def grey(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


# --- shifts: what all have in common -----------------------------------------------------------


def test_the_table_names_each_shift_once() -> None:
    """Keys are names, and the five levels go from weak to strong."""
    expected = {
        "gaussian_noise", "shot_noise", "impulse_noise", "salt_and_pepper", "gaussian_blur",
        "contrast", "brightness", "published_gaussian_noise",
    }  # fmt: skip
    assert expected == set(SHIFTS)
    for name, shift in SHIFTS.items():
        assert name == shift.name
        assert len(shift.levels) == 5
        assert all(0 < weaker < stronger for weaker, stronger in pairwise(shift.levels))


@pytest.mark.parametrize("name", SHIFTS)
def test_level_zero_leaves_the_images(name: str) -> None:
    """In a tensor of their own; bytes divided by 255 survive the published cut to bytes too."""
    x = torch.arange(256).reshape(1, 1, 16, 16).expand(2, 3, 16, 16) / 255
    shifted = SHIFTS[name].apply(x, 0.0, seed=0)
    assert torch.equal(x, shifted)
    assert x.data_ptr() != shifted.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SHIFTS)
def test_shift_keeps_shape_dtype_range_and_argument(name: str, dtype: torch.dtype) -> None:
    """The result has shape and dtype of the images and values in [0, 1]; the images stay."""
    x = images(4, 3, 16, 12, dtype=dtype)
    kept = x.clone()
    shifted = SHIFTS[name].apply(x, SHIFTS[name].levels[2], seed=3)
    assert (shifted.shape, shifted.dtype) == (x.shape, dtype)
    assert torch.equal(kept, x)
    assert not torch.equal(shifted, x)
    # The kernel of a blur adds up to 1 but for rounding.
    slack = 4 * torch.finfo(dtype).eps
    assert bool(((shifted >= -slack) & (shifted <= 1 + slack)).all())


@pytest.mark.parametrize("name", SHIFTS)
def test_a_higher_level_moves_images_further(name: str) -> None:
    """The mean absolute change of random images grows from level to level."""
    x = images(16, 3, 32, 32)
    shift = SHIFTS[name]
    moved = [float((shift.apply(x, level, seed=0) - x).abs().mean()) for level in shift.levels]
    assert all(weaker < stronger for weaker, stronger in pairwise(moved))


@pytest.mark.parametrize("name", SHIFTS)
def test_noise_comes_from_the_seed_alone(name: str) -> None:
    """The same seed gives the same images; the global random state is not touched."""
    x = images(2, 3, 8, 8)
    shift = SHIFTS[name]
    before = torch.get_rng_state()
    first, again, other = (shift.apply(x, shift.levels[3], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    is_noise = name not in ("gaussian_blur", "contrast", "brightness")
    assert is_noise == (not torch.equal(first, other))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            r"floats in \[0, 1\]; got \(2, 3, 8, 8\) uint8. Divide bytes by 255",
        ),
        (torch.zeros(3, 8, 8), r"got \(3, 8, 8\) float32"),
        (torch.full((1, 1, 2, 2), 255.0), r"values in \[0, 1\]; got 255 to 255"),
        (torch.full((1, 1, 2, 2), -0.5), r"values in \[0, 1\]; got -0.5 to -0.5. Shift them bef"),
        (torch.full((1, 1, 2, 2), math.nan), r"values in \[0, 1\]; got nan to nan"),
    ],
)
def test_images_that_are_none_are_refused(given: Tensor, message: str) -> None:
    """Bytes and normalised images would come out as nonsense without an error."""
    with pytest.raises(InputError, match=message):
        SHIFTS["contrast"].apply(given, 0.5, seed=0)


def test_no_images_give_no_images() -> None:
    """An empty batch has no lowest value to be checked."""
    assert SHIFTS["brightness"].apply(torch.zeros(0, 3, 8, 8), 0.1, seed=0).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (lambda x: shot_noise(x, -0.1, generator=seeded()), "0, or 0.0001 to 100; got -0.1"),
        (lambda x: shot_noise(x, 1e-9, generator=seeded()), "0, or 0.0001 to 100; got 1e-09"),
        (lambda x: shot_noise(x, math.nan, generator=seeded()), "0, or 0.0001 to 100; got nan"),
        (lambda x: impulse_noise(x, 1.5, generator=seeded()), "share must be 0 to 1; got 1.5"),
        (lambda x: impulse_noise(x, math.nan, generator=seeded()), "share must be .* got nan"),
        (lambda x: contrast(x, -0.2), "share must be 0 to 1; got -0.2"),
        (lambda x: contrast(x, math.nan), "share must be 0 to 1; got nan"),
        (lambda x: brightness(x, 1.2), "amount must be -1 to 1; got 1.2"),
        (lambda x: brightness(x, math.nan), "amount must be -1 to 1; got nan"),
        (
            lambda x: published_gaussian_noise(x, -0.1, generator=seeded()),
            "sigma must be 0 or more; got -0.1",
        ),
        (
            lambda x: published_gaussian_noise(x, math.inf, generator=seeded()),
            "sigma must be 0 or more; got inf",
        ),
    ],
)
def test_strength_out_of_range(shift: Callable[[Tensor], Tensor], message: str) -> None:
    """A strength that cannot be is refused with its value."""
    with pytest.raises(InputError, match=message):
        shift(images(1, 1, 4, 4))


# --- shot noise --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.25, 0.5])
def test_shot_noise_has_the_moments_of_counted_photons(value: float) -> None:
    """Mean x and variance 2 x sigma^2, which is sigma^2 at grey 0.5."""
    sigma, n = 0.05, 120_000
    noisy = shot_noise(grey(value, 1, 3, 200, 200), sigma, generator=seeded()).flatten()
    expected = sigma * math.sqrt(2 * value)
    # Five standard errors; of the deviation sd / sqrt(2 n), as for a normal: the counts are 50
    # and 100, whose excess kurtosis 1 / count adds 1 % to it.
    assert float(noisy.mean()) == pytest.approx(value, abs=5 * expected / math.sqrt(n))
    assert float(noisy.std()) == pytest.approx(expected, rel=5 * 1.01 / math.sqrt(2 * n))


def test_shot_noise_is_poisson() -> None:
    """The counts at grey 0.5 are those of scipy's Poisson distribution."""
    sigma = 0.2  # k = 12.5 photons for white, of which 12 are the most below the clip
    noisy = shot_noise(grey(0.5, 1, 1, 200, 200), sigma, generator=seeded())
    counts = (noisy * 12.5).round().flatten().long()
    below = counts[noisy.flatten() < 1]
    assert torch.allclose(noisy[noisy < 1], below.double() / 12.5, atol=1e-6)
    observed = np.bincount(below.numpy(), minlength=13)
    observed = np.append(observed, len(counts) - len(below))
    expected = stats.poisson.pmf(np.arange(13), 6.25)
    expected = np.append(expected, stats.poisson.sf(12, 6.25)) * len(counts)
    # The seed is one of which the test at 1 in 1,000 finds nothing.
    assert stats.chisquare(observed, expected).pvalue > 1e-3


# --- impulse noise -----------------------------------------------------------------------------


def test_impulse_noise_replaces_the_share_of_values_half_by_black() -> None:
    """Binomial with 120,000 draws: five standard deviations are 0.0043 at a half of 0.1."""
    noisy = impulse_noise(grey(0.5, 1, 3, 200, 200), 0.2, generator=seeded())
    for extreme in (0.0, 1.0):
        tolerance = 5 * math.sqrt(0.1 * 0.9 / noisy.numel())
        assert float((noisy == extreme).double().mean()) == pytest.approx(0.1, abs=tolerance)


def test_impulse_noise_hits_channels_alone_and_salt_and_pepper_alike() -> None:
    """A pixel keeps all of three channels with probability 0.8^3, against 0.8."""
    x = grey(0.5, 1, 3, 200, 200)
    for noise, expected in ((impulse_noise, 0.8**3), (salt_and_pepper, 0.8)):
        kept = (noise(x, 0.2, generator=seeded()) == x).all(1).double().mean()
        tolerance = 5 * math.sqrt(expected * (1 - expected) / 40_000)
        assert float(kept) == pytest.approx(expected, abs=tolerance)


def test_impulse_noise_of_one_channel_is_salt_and_pepper() -> None:
    """With one channel there is nothing to tell the two apart."""
    x = images(2, 1, 8, 8)
    impulse, salt = (
        noise(x, 0.3, generator=seeded()) for noise in (impulse_noise, salt_and_pepper)
    )
    assert torch.equal(impulse, salt)


# --- the published noise -----------------------------------------------------------------------


def test_published_noise_wraps_as_integers_do() -> None:
    """Each value, one after the other: times 255, cut towards zero, modulo 256."""
    x = images(1, 3, 16, 16)
    drawn = torch.randn(x.shape, generator=seeded())
    noisy = published_gaussian_noise(x, 0.5, generator=seeded())
    unclipped = (x + 0.5 * drawn).flatten().tolist()
    expected = [int(np.float32(value) * np.float32(255)) % 256 / 255 for value in unclipped]
    assert min(unclipped) < -0.1
    assert max(unclipped) > 1.1
    assert noisy.flatten().tolist() == pytest.approx(expected, abs=1e-7)


def test_published_noise_is_that_of_the_conversion_to_an_image() -> None:
    """torchvision's own conversion of the unclipped sum gives the same bytes.

    What it does with a negative float is the compiler's choice: on processors that do not wrap,
    the published scripts gave other images than on those of their authors.
    """
    transforms = pytest.importorskip("torchvision.transforms")
    if torch.tensor([-0.1]).mul(255).byte().item() != 231:
        pytest.skip("this processor does not wrap negative floats")
    x = images(3, 16, 16)
    noisy = published_gaussian_noise(x[None], 0.5, generator=seeded())[0]
    drawn = torch.randn((1, *x.shape), generator=seeded())[0]
    published = np.asarray(transforms.ToPILImage()(x + 0.5 * drawn)).transpose(2, 0, 1)
    assert np.array_equal(published, (noisy * 255).round().byte().numpy())


def test_published_noise_turns_white_black_and_the_clipped_one_does_not() -> None:
    """Half of the white pixels are pushed over 255; with a deviation of 5 % those become black."""
    white = grey(1.0, 1, 1, 200, 200)
    black = published_gaussian_noise(white, 0.05, generator=seeded()) < 0.5
    # A sum of 1 to 256 / 255 cuts to 255: P(z > 1 / (255 * 0.05)). Five standard deviations.
    expected = stats.norm.sf(1 / (255 * 0.05))
    assert float(black.double().mean()) == pytest.approx(expected, abs=5 * 0.5 / 200)
    assert bool((gaussian_noise(white, 0.05, generator=seeded()) > 0.5).all())


# --- contrast and brightness -------------------------------------------------------------------


def test_contrast_keeps_means_and_scales_deviations() -> None:
    """Per image and channel; a flat image is what nothing is left of."""
    x = images(3, 3, 8, 8, dtype=torch.float64)
    less = contrast(x, 0.3)
    assert torch.allclose(less.mean((2, 3)), x.mean((2, 3)), atol=1e-12)
    assert torch.allclose(less.std((2, 3)), 0.7 * x.std((2, 3)), atol=1e-12)
    flat = contrast(x, 1.0)
    assert torch.equal(flat, x.mean((2, 3), keepdim=True).expand_as(x))


def test_losses_of_contrast_multiply() -> None:
    """Half of the contrast lost twice is three quarters lost."""
    x = images(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(contrast(contrast(x, 0.5), 0.5), contrast(x, 0.75), atol=1e-12)


def test_contrast_agrees_with_torchvision_on_grey_images() -> None:
    """Its factor is what is left of the contrast, about the mean of the grey image."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    x = images(2, 1, 8, 8)
    expected = functional.adjust_contrast(x, 0.4)
    assert torch.allclose(contrast(x, 0.6), expected, atol=1e-6)


@pytest.mark.parametrize("amount", [-0.4, 0.4])
def test_brightness_is_added_and_clipped(amount: float) -> None:
    """Numpy's sum and clip."""
    x = images(2, 3, 8, 8)
    expected = np.clip(x.numpy() + np.float32(amount), 0, 1)
    assert np.allclose(brightness(x, amount).numpy(), expected, atol=1e-7)


# --- networks ----------------------------------------------------------------------------------


@pytest.fixture
def _vision() -> None:
    pytest.importorskip("torchvision", reason="the extra vision is not installed")
    pytest.importorskip("timm", reason="the extra vision is not installed")


def multiply_adds(model: torch.nn.Module, *shape: int) -> int:
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_networks_suit_a_cpu(name: str) -> None:
    """The multiply-adds and weights that the docstring states; none drops out."""
    model = network(name, 10, size="narrow")
    least, most = (2e6, 3e6) if name == "mobilenet_v2" else (8e6, 20e6)
    assert least <= multiply_adds(model, 3, 32, 32) <= most
    assert 30e3 <= weights(model) <= 400e3
    dropped = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert not any(dropped)


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", NETWORKS)
def test_full_network_has_the_layers_of_the_narrow_one(name: str) -> None:
    """The same kinds of layers in the same order; DenseNet's and nobody else's are fewer."""
    layers = {}
    for size in ("full", "narrow"):
        with torch.device("meta"):
            model = network(name, 10, size=size).eval()  # type: ignore[arg-type]
            assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        layers[size] = [type(module) for module in model.modules()]
    full, narrow = layers["full"], layers["narrow"]
    assert (full == narrow) == (name != "densenet")
    assert set(full) == set(narrow)


# Weights of the models as the libraries build them, without the classifier; what was changed
# for small images is the first convolution alone.
LIBRARY: dict[str, Callable[[Any], torch.nn.Module]] = {
    "resnet18": lambda models: models.resnet18(num_classes=10),
    "densenet": lambda models: models.densenet121(num_classes=10),
    "mobilenet_v2": lambda models: models.mobilenet_v2(num_classes=10),
    "googlenet": lambda models: models.googlenet(
        num_classes=10, aux_logits=False, init_weights=False
    ),
}
STEM = {
    "resnet18": 3 * 64 * (9 - 49),
    "densenet": 3 * 64 * (9 - 49),
    "mobilenet_v2": 0,
    "googlenet": 3 * 64 * (9 - 49),
}


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", LIBRARY)
def test_full_network_is_the_library_s_but_for_its_stem(name: str) -> None:
    """As many weights, but for a first convolution of 3 x 3."""
    from torchvision import models

    with torch.device("meta"):
        library, own = LIBRARY[name](models), network(name, 10)
    assert weights(library) + STEM[name] == weights(own)


@pytest.mark.usefixtures("_vision")
def test_resnet_is_the_library_s_weight_by_weight() -> None:
    """With the library's weights and stem the outputs are the library's."""
    from torchvision.models import resnet18

    library = resnet18(num_classes=10).eval()
    library.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    library.maxpool = torch.nn.Identity()  # type: ignore[assignment]
    own = network("resnet18", 10).eval()
    own.load_state_dict(library.state_dict())
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(library(x), own(x), atol=1e-5)


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_from_the_seed_alone(name: str) -> None:
    """The same seed, the same weights; the caller's random state is left."""
    before = torch.get_rng_state()
    first, again, other = (
        torch.nn.utils.parameters_to_vector(network(name, 3, size="narrow", seed=seed).parameters())
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", NETWORKS)
def test_other_images(name: str) -> None:
    """One channel, 48 px, seven classes."""
    model = network(name, 7, size="narrow", image_size=48, channels=1).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("name", NETWORKS)
def test_profile_reads_what_goes_into_the_final_classifier(name: str) -> None:
    """The default tap is the input of the last linear layer, and as wide."""
    model = network(name, 4, size="narrow")
    last_name, last = [
        (key, module)
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ][-1]
    found = resque.profile(
        model.eval(), (images(8, 3, 32, 32), np.arange(8) % 4), preprocessing="none"
    )
    assert found.signature is not None
    assert found.by_label is not None
    assert found.signature.layer == f"input:{last_name}"
    assert found.by_label.sums.shape[2] == last.in_features
    assert last.out_features == 4


@pytest.mark.usefixtures("_vision")
@pytest.mark.parametrize("start", ["head", "scratch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_retrained(name: str, start: Any) -> None:
    """An epoch on 64 images runs from a fresh head and from scratch."""
    model = network(name, 4, size="narrow")
    x, labels = images(80, 3, 32, 32), np.arange(80) % 4
    done = resque.retrain(
        model,
        (x[:64], labels[:64]),
        (x[64:], labels[64:]),
        target=resque.Accuracy(1.0),
        recipe=resque.Recipe(start=start, max_epochs=1),
        meter="none",
        progress=False,
    )
    assert done.update.epochs == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network("resnet81", 10), "no network 'resnet81'. Did you mean 'resnet18'"),
        (lambda: network("x", 10), "no network 'x'. Expected one of vgg16, resnet18,"),
        (lambda: network("vit", 10, size="small"), "'full' or 'narrow'; got 'small'"),  # type: ignore[arg-type]
        (lambda: network("vit", 1), "at least two classes; got 1"),
        (lambda: network("vit", 10, channels=0), "channels must be 1 or more; got 0"),
        (lambda: network("vit", 10, image_size=28), "at least 32; got 28. Pad or resize"),
        (lambda: network("vit", 10, image_size=34), "multiple of 4 and at least 32; got 34"),
    ],
)
def test_network_that_cannot_be(call: Callable[[], object], message: str) -> None:
    """What is wrong, with the value, and what to do."""
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("name", "package"), [("vgg16", "torchvision"), ("vit", "timm")])
def test_missing_library_names_the_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torchvision or timm the message says what to install."""
    imported = builtins.__import__

    def without(module: str, *more: Any, **named: Any) -> Any:
        if module.partition(".")[0] == package:
            raise ModuleNotFoundError(module)
        return imported(module, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*resque\[vision\]"):
        network(name, 10)


# --- splits ------------------------------------------------------------------------------------


def test_published_split_has_the_published_shares_in_every_class() -> None:
    """70 % old, 50 % new, 20 % in both, and everything is somewhere."""
    labels = np.repeat([3, 5, 8], [100, 40, 20])
    old, new = published_split(labels, seed=1)
    both = np.intersect1d(old, new)
    for label, n in ((3, 100), (5, 40), (8, 20)):
        shares = [int((labels[part] == label).sum()) / n for part in (old, new, both)]
        assert shares == pytest.approx([0.7, 0.5, 0.2])
    assert np.array_equal(np.union1d(old, new), np.arange(160))
    for part in (old, new):
        assert np.array_equal(part, np.unique(part))


@pytest.mark.parametrize("n", range(4, 60))
def test_published_split_is_right_to_one_example(n: int) -> None:
    """A small class has all three parts; of two cuts, each is off by half an example at most."""
    old, new = published_split(np.zeros(n, dtype=np.int64), seed=0)
    both = len(np.intersect1d(old, new))
    parts = (len(old) - both, len(new) - both, both)
    for part, share, off in zip(parts, (0.5, 0.3, 0.2), (0.5, 1.0, 0.5), strict=True):
        assert part >= 1
        assert abs(part - share * n) <= off + 1e-9


def test_published_split_is_drawn_and_does_not_depend_on_the_class_names() -> None:
    """Other seeds draw other examples; renaming classes in their order changes nothing."""
    labels = np.arange(200) % 4
    first, again, other, renamed = (
        published_split(named, seed=seed)[0]
        for named, seed in ((labels, 1), (labels, 1), (labels, 2), (labels * 10 + 7, 1))
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first, renamed)
    assert not np.array_equal(first, other)


def naive_sample_sizes(counts: list[int], n: int) -> list[int]:
    """One to each class, then one by one to the class with the highest count / (2 taken + 1)."""
    taken = [1] * len(counts)
    while sum(taken) < n:
        priority = [count / (2 * t + 1) for count, t in zip(counts, taken, strict=True)]
        taken[priority.index(max(priority))] += 1
    return taken


def test_stratified_sample_is_that_of_the_slow_method() -> None:
    """As Sainte-Laguë hands out seats; 4 gives one of each class and 559 everything."""
    # Each is divisible by another power of 2, and seats by none: no two of them tie.
    counts = [400, 132, 26, 1]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), counts))
    for n in range(4, 560):
        chosen = stratified_sample(labels, n, seed=3)
        assert naive_sample_sizes(counts, n) == np.bincount(labels[chosen], minlength=4).tolist()
        assert np.array_equal(chosen, np.unique(chosen))


def test_stratified_sample_agrees_with_scikit_learn() -> None:
    """To one example per class, where no class is rare."""
    labels = np.repeat(np.arange(5), [500, 300, 120, 50, 30])
    splitter = StratifiedShuffleSplit(n_splits=1, train_size=200, random_state=0)
    theirs, _ = next(splitter.split(labels[:, None], labels))
    ours = stratified_sample(labels, 200, seed=0)
    assert np.abs(np.bincount(labels[ours]) - np.bincount(labels[theirs])).max() <= 1


def test_stratified_samples_are_nested_and_drawn() -> None:
    """A larger sample of one seed contains the smaller; another seed draws others."""
    labels = np.arange(300) % 7
    samples = [stratified_sample(labels, n, seed=4) for n in (7, 50, 200)]
    for smaller, larger in pairwise(samples):
        assert set(smaller) < set(larger)
    assert not np.array_equal(samples[1], stratified_sample(labels, 50, seed=5))


def test_stratified_sample_takes_every_example_as_often() -> None:
    """Over 2,000 seeds each of 20 examples of a class is among the 5 taken in a quarter of them."""
    labels = np.repeat([0, 1], 20)
    taken = sum(
        np.bincount(stratified_sample(labels, 10, seed=seed), minlength=40) for seed in range(2000)
    )
    # Binomial: the standard deviation is sqrt(2000 / 4 * 3 / 4) = 19.4; five of them.
    assert np.abs(np.asarray(taken) - 500).max() <= 97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: published_split(np.array([0] * 9 + [7] * 3), seed=0),
            "at least 4 examples .* class 7 has 3",
        ),
        (
            lambda: published_split(np.zeros((4, 2), dtype=int), seed=0),
            r"one integer per example; got an array of shape \(4, 2\) int64",
        ),
        (lambda: published_split(np.zeros(4), seed=0), r"shape \(4,\) float64"),
        (lambda: stratified_sample(np.array([], dtype=int), 0, seed=0), r"shape \(0,\) int64"),
        (lambda: stratified_sample(np.arange(3), 2, seed=0), r"n must be 3 .* to 3 \(all\); got 2"),
        (lambda: stratified_sample(np.arange(3), 4, seed=0), r"n must be 3 .* to 3 \(all\); got 4"),
    ],
)
def test_split_that_cannot_be(call: Callable[[], object], message: str) -> None:
    """What is wrong, with the value."""
    with pytest.raises(InputError, match=message):
        call()


# --- data sets ---------------------------------------------------------------------------------

CLASSES = {
    "fashion_mnist": 10, "mnist": 10, "emnist_letters": 26, "cifar10": 10, "gtsrb": 43,
    "cifar100_coarse_mini": 20, "tiny_imagenet_food": 16, "ag_news": 4, "trec": 6,
}  # fmt: skip


def test_every_data_set_is_listed() -> None:
    """The names are those of the experiments."""
    assert tuple(CLASSES) == DATASETS


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("ag_news", "trec")])
def test_real_images(name: str, real_data: Path) -> None:
    """Bytes (examples, 3, 32, 32), every class in both parts."""
    found = dataset(name, real_data)
    assert isinstance(found, ImageSet)
    assert len(found.class_names) == CLASSES[name]
    for x, labels in ((found.images, found.labels), (found.test_images, found.test_labels)):
        assert (x.shape, x.dtype) == ((len(labels), 3, 32, 32), np.uint8)
        assert labels.dtype == np.int64
        assert np.array_equal(np.unique(labels), np.arange(CLASSES[name]))


@pytest.mark.parametrize("name", ["ag_news", "trec"])
def test_real_texts(name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that are not empty, every class in both parts; the folder is that of RESQUE_DATA."""
    monkeypatch.setenv("RESQUE_DATA", str(real_data))
    found = dataset(name)
    assert isinstance(found, TextSet)
    assert len(found.class_names) == CLASSES[name]
    for texts, labels in ((found.texts, found.labels), (found.test_texts, found.test_labels)):
        assert all(isinstance(text, str) and text.strip() for text in texts)
        assert len(texts) == len(labels)
        assert np.array_equal(np.unique(labels), np.arange(CLASSES[name]))


def written_images(folder: Path, **changed: Any) -> Path:
    """A folder with an mnist.npz of four images of 28 px, with parts of it changed."""
    parts: dict[str, Any] = {
        "x_train": np.arange(3 * 28 * 28).reshape(3, 28, 28, 1).astype(np.uint8),
        "y_train": np.array([0, 1, 1]),
        "x_test": np.full((1, 28, 28, 1), 255, dtype=np.uint8),
        "y_test": np.array([1]),
        "class_names": np.array(["zero", "one"]),
    }
    parts |= changed
    np.savez(folder / "mnist.npz", **{k: v for k, v in parts.items() if v is not None})
    return folder


def test_grey_images_are_padded_and_repeated(tmp_path: Path) -> None:
    """28 x 28 in one channel lie amid 32 x 32 black pixels in three."""
    found = dataset("mnist", written_images(tmp_path))
    assert isinstance(found, ImageSet)
    given = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
    for channel in range(3):
        assert np.array_equal(found.images[:, channel, 2:30, 2:30], given)
    assert found.test_images.sum() == 3 * 28 * 28 * 255
    assert ("zero", "one") == found.class_names
    assert [0, 1, 1] == found.labels.tolist()


def test_channels_come_first(tmp_path: Path) -> None:
    """The files have them last."""
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    found = dataset("mnist", written_images(tmp_path, x_train=x))
    assert isinstance(found, ImageSet)
    assert np.array_equal(found.images[:, 1], x[..., 1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": None}, "x_test"),
        ({"y_train": np.array([0, 1])}, r"3 examples have labels of shape \(2,\)"),
        ({"y_train": np.array([0, 1, 2])}, "labels are 0 to 2 of 2"),
        ({"y_train": np.array([0, -1, 0])}, "labels are -1 to 0 of 2"),
        ({"y_train": np.array([0.0, 1.0, 0.5])}, "labels are 0.0 to 1.0 of 2"),
        ({"x_train": np.zeros((3, 28, 28), dtype=np.uint8)}, r"images are \(3, 28, 28\) uint8"),
        ({"x_train": np.zeros((3, 28, 28, 1))}, r"\(3, 28, 28, 1\) float64"),
        ({"x_train": np.zeros((3, 64, 28, 1), dtype=np.uint8)}, "64 x 28, larger than 32 x 32"),
        ({"class_names": np.array([object()])}, "Object arrays cannot be loaded"),
    ],
)
def test_file_that_holds_something_else(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """What is wrong, and what was expected; pickled objects are not loaded."""
    with pytest.raises(InputError, match=message) as raised:
        dataset("mnist", written_images(tmp_path, **changed))
    assert "expected x_train" in str(raised.value)
    assert "RESQUE_DATA" in str(raised.value)


@pytest.mark.parametrize(("name", "file"), [("mnist", "mnist.npz"), ("trec", "text_trec.csv.gz")])
def test_damaged_file(name: str, file: str, tmp_path: Path) -> None:
    """Bytes that are no archive."""
    (tmp_path / file).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=f"{file}' cannot be read .*; expected"):
        dataset(name, tmp_path)


def written_texts(folder: Path, header: str = "text,label,label_name,split") -> Path:
    rows = [
        ["Who,\r\nme?", 1, "human", "train"],
        ["NA", 0, "other", "train"],
        ["x", 1, "human", "test"],
    ]
    with gzip.open(folder / "text_trec.csv.gz", "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return folder


def test_texts_are_read_as_they_are(tmp_path: Path) -> None:
    """A comma, the end of a line and the word NA stay what they are."""
    found = dataset("trec", written_texts(tmp_path))
    assert isinstance(found, TextSet)
    assert ("Who,\r\nme?", "NA") == found.texts
    assert [1, 0] == found.labels.tolist()
    assert ("x",) == found.test_texts
    assert ("other", "human") == found.class_names


def test_texts_of_another_table(tmp_path: Path) -> None:
    """The columns that were expected are named."""
    with pytest.raises(InputError, match="columns text, label, label_name, split"):
        dataset("trec", written_texts(tmp_path, "sentence,label,label_name,split"))


def test_data_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, folder and file: each message says what to do."""
    monkeypatch.delenv("RESQUE_DATA", raising=False)
    with pytest.raises(InputError, match=r"no data set 'cifar_10'\. Did you mean 'cifar10'"):
        dataset("cifar_10")
    with pytest.raises(InputError, match="Set the environment variable RESQUE_DATA"):
        dataset("mnist")
    with pytest.raises(InputError, match=r"no file .*mnist.npz'. Point RESQUE_DATA at"):
        dataset("mnist", tmp_path)
    monkeypatch.setenv("RESQUE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        InputError, match=r"nowhere' is not there; expected the folder .* Point RESQUE_DATA at"
    ):
        dataset("mnist")
