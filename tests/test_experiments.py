"""Images shifted by a known amount, and the demonstration on digits."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import ndimage, stats
from torch import Tensor

import resque
from resque.experiments import digits
from resque.experiments.digits import LEVELS, DigitsDemo, digits_demo
from resque.experiments.shifts import gaussian_blur, gaussian_noise, salt_and_pepper
from resque.reporting.terminal import demo_view

# Sums of at most 400 products in double precision, in another order.
ROUNDING = 1e-12
# Whatever the size of the corpus, it supports such an interval.
LEVEL = 0.5


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(shape, generator=seeded(9), dtype=dtype)


def grey(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


NOISES: list[Callable[..., Tensor]] = [gaussian_noise, salt_and_pepper]


# --- what all shifts have in common ------------------------------------------------------------


@pytest.mark.parametrize(
    "shift",
    [
        lambda x: gaussian_noise(x, 0.0, generator=seeded()),
        lambda x: salt_and_pepper(x, 0.0, generator=seeded()),
        lambda x: gaussian_blur(x, 0.0),
    ],
    ids=["noise", "salt and pepper", "blur"],
)
def test_strength_zero_changes_nothing(shift: Callable[[Tensor], Tensor]) -> None:
    """At strength 0 every shift gives the images back, in a tensor of its own."""
    x = images(2, 3, 8, 8)
    shifted = shift(x)
    assert torch.equal(x, shifted)
    assert x.data_ptr() != shifted.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shift",
    [
        lambda x: gaussian_noise(x, 0.5, generator=seeded()),
        lambda x: salt_and_pepper(x, 0.5, generator=seeded()),
        lambda x: gaussian_blur(x, 0.8),
    ],
    ids=["noise", "salt and pepper", "blur"],
)
def test_shift_keeps_shape_type_and_its_argument(
    shift: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """The result has shape and type of the images, values in [0, 1], and the images stay."""
    x = images(2, 3, 8, 12, dtype=dtype)
    kept = x.clone()
    shifted = shift(x)
    assert (shifted.shape, shifted.dtype) == (x.shape, dtype)
    assert torch.equal(kept, x)
    assert not torch.equal(shifted, x)
    # The kernel of a blur adds up to 1 but for rounding.
    slack = 4 * torch.finfo(dtype).eps
    assert bool(((shifted >= -slack) & (shifted <= 1 + slack)).all())


@pytest.mark.parametrize("noise", NOISES)
def test_noise_comes_from_the_generator_alone(noise: Callable[..., Tensor]) -> None:
    """The same seed gives the same images; the global random state is not touched."""
    x = images(2, 1, 8, 8)
    before = torch.get_rng_state()
    first, again, other = (noise(x, 0.3, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    generator = seeded(1)
    assert not torch.equal(noise(x, 0.3, generator=generator), noise(x, 0.3, generator=generator))


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (
            lambda x: gaussian_noise(x, -0.1, generator=seeded()),
            "sigma must be 0 or more; got -0.1",
        ),
        (lambda x: gaussian_blur(x, -2), "sigma must be 0 or more; got -2"),
        (lambda x: salt_and_pepper(x, 1.5, generator=seeded()), "share must be 0 to 1; got 1.5"),
        (lambda x: salt_and_pepper(x, -0.5, generator=seeded()), "share must be 0 to 1; got -0.5"),
        (lambda x: gaussian_noise(x, math.nan, generator=seeded()), "sigma must be .* got nan"),
        (lambda x: gaussian_blur(x, math.nan), "sigma must be .* got nan"),
        (lambda x: gaussian_blur(x, math.inf), "sigma must be .* got inf"),
    ],
)
def test_strength_out_of_range(shift: Callable[[Tensor], Tensor], message: str) -> None:
    """A strength that cannot be is refused with its value."""
    with pytest.raises(resque.InputError, match=message):
        shift(images(1, 1, 4, 4))


# --- gaussian noise ----------------------------------------------------------------------------


def test_gaussian_noise_has_the_deviation_asked_for() -> None:
    """Far from 0 and 1, what is added is normal with mean 0 and the given deviation."""
    sigma = 0.05
    x = grey(0.5, 4, 3, 100, 100)
    added = (gaussian_noise(x, sigma, generator=seeded()) - x).flatten().numpy() / sigma
    # 120,000 values: the seed is one of which the test at 1 in 1,000 finds nothing.
    assert stats.kstest(added, "norm").pvalue > 1e-3


def test_gaussian_noise_is_clipped_not_wrapped() -> None:
    """Half the pixels of a black image stay black, and those of a white one white."""
    for value in (0.0, 1.0):
        noisy = gaussian_noise(grey(value, 1, 1, 200, 200), 0.3, generator=seeded())
        share = float((noisy == value).double().mean())
        # Binomial with 40,000 draws: five standard deviations are 0.0125.
        assert share == pytest.approx(0.5, abs=0.0125)
        assert bool(((noisy >= 0) & (noisy <= 1)).all())


# --- salt and pepper ---------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_salt_and_pepper_replaces_the_share_asked_for(share: float) -> None:
    """Half the share becomes black, half white, and all other pixels stay."""
    noisy = salt_and_pepper(grey(0.5, 1, 1, 200, 200), share, generator=seeded())
    found = [float((noisy == value).double().mean()) for value in (0.0, 1.0, 0.5)]
    # Binomial with 40,000 draws: five standard deviations are at most 0.0125.
    assert found == pytest.approx([share / 2, share / 2, 1 - share], abs=0.0125)
    assert sum(found) == 1.0


def test_salt_and_pepper_hits_all_channels_of_a_pixel() -> None:
    """A pixel is black or white in every channel, or in none; images have their own pixels."""
    noisy = salt_and_pepper(grey(0.5, 2, 3, 50, 50), 0.4, generator=seeded())
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert torch.equal(noisy[:, 0], noisy[:, 2])
    assert not torch.equal(noisy[0], noisy[1])


# --- gaussian blur -----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_gaussian_blur_is_that_of_scipy(sigma: float) -> None:
    """The blur equals SciPy's with mirrored borders and the same reach."""
    x = images(2, 3, 20, 16)
    expected = ndimage.gaussian_filter(
        x.numpy(), sigma, mode="mirror", radius=math.ceil(3 * sigma), axes=(2, 3)
    )
    np.testing.assert_allclose(gaussian_blur(x, sigma).numpy(), expected, rtol=0, atol=ROUNDING)


def test_gaussian_blur_of_a_small_image_reaches_its_width() -> None:
    """The kernel never reaches beyond the image less one pixel, which mirrors cannot."""
    x = images(1, 2, 5, 9)
    expected = ndimage.gaussian_filter(x.numpy(), 3.0, mode="mirror", radius=4, axes=(2, 3))
    np.testing.assert_allclose(gaussian_blur(x, 3.0).numpy(), expected, rtol=0, atol=ROUNDING)


def test_gaussian_blur_keeps_constant_images() -> None:
    """An image of one value has nothing to blur."""
    for value in (0.0, 0.3, 1.0):
        x = grey(value, 1, 3, 9, 9)
        torch.testing.assert_close(gaussian_blur(x, 1.5), x, rtol=0, atol=ROUNDING)


def test_gaussian_blur_of_a_point_is_the_kernel() -> None:
    """A white pixel becomes a normalised gaussian, symmetric in both directions."""
    x = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    x[0, 0, 7, 7] = 1
    blurred = gaussian_blur(x, 1.0)[0, 0]
    at = torch.arange(-3, 4, dtype=torch.float64)
    kernel = torch.exp(-(at**2) / 2) / torch.exp(-(at**2) / 2).sum()
    torch.testing.assert_close(
        blurred[4:11, 4:11], torch.outer(kernel, kernel), rtol=0, atol=ROUNDING
    )
    assert float(blurred.sum()) == pytest.approx(1.0, abs=ROUNDING)


def test_gaussian_blur_treats_channels_alone() -> None:
    """A channel's blur does not depend on the other channels."""
    x = images(1, 3, 8, 8)
    each = torch.cat([gaussian_blur(x[:, [channel]], 0.7) for channel in range(3)], dim=1)
    torch.testing.assert_close(gaussian_blur(x, 0.7), each, rtol=0, atol=ROUNDING)


# --- the demonstration -------------------------------------------------------------------------


@pytest.fixture
def short_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates that give up after four epochs: a network of one epoch takes all of its sixty."""
    for name in ("RETRAINING", "SCRATCH"):
        monkeypatch.setattr(digits, name, replace(getattr(digits, name), max_epochs=4))


@pytest.fixture(scope="module")
def demo() -> DigitsDemo:
    """The demonstration: both networks trained, all shifts measured, three updates made."""
    updates = (("gaussian noise", 0.1), ("gaussian noise", 0.2), ("gaussian blur", 0.8))
    return digits_demo(updates=updates, meter="none", confidence_level=LEVEL)


def test_demo_measures_every_kind_at_every_level(demo: DigitsDemo) -> None:
    """There is one index per kind and level, between two halves of all the digits."""
    assert {kind: tuple(levels) for kind, (levels, _) in demo.curves().items()} == LEVELS
    for shift in demo.shifts:
        assert len(shift.index.classes) == 10
        assert (shift.index.examples_before, shift.index.examples_after) == (898, 899)
        assert shift.index.warnings == ()


def test_demo_network_knows_the_digits(demo: DigitsDemo) -> None:
    """The network was trained well enough for its representations to mean something."""
    assert demo.accuracy > 0.9
    assert demo.shifts[0].accuracy == demo.accuracy


def test_demo_index_grows_with_the_strength(demo: DigitsDemo) -> None:
    """Raw and debiased value rise with the level of each kind, while the accuracy falls."""
    for kind in LEVELS:
        rows = [shift for shift in demo.shifts if shift.kind == kind]
        for weaker, stronger in pairwise(rows):
            assert weaker.index.value < stronger.index.value
            assert (weaker.index.debiased or 0) < (stronger.index.debiased or 0)
            assert weaker.accuracy > stronger.accuracy


def test_demo_without_a_shift_shows_none(demo: DigitsDemo) -> None:
    """At level 0 the interval contains 0, the raw value is near its floor, and p is large."""
    for shift in demo.shifts:
        if shift.level == 0:
            assert shift.index.lower == 0
            assert shift.index.value == pytest.approx(shift.index.floor, rel=0.25)
            assert (shift.index.p_value or 0) > 0.1
        elif shift.level == LEVELS[shift.kind][-1]:
            assert (shift.index.lower or 0) > 0
            # With 16 groups no pattern of signs can be rarer.
            assert shift.index.p_value == 2**-15


def test_demo_new_digits_are_harder_than_known_ones(demo: DigitsDemo) -> None:
    """RESQUE_task of the digits that a network never saw is above that of those it knows."""
    assert demo.task_known.value < 0.2 < 0.4 < demo.task.value
    assert set(demo.task_known.class_counts) == set("01234")
    assert set(demo.task.class_counts) == set("56789")
    assert demo.task.examples + demo.task_known.examples == 1797


def test_demo_signs_its_numbers(demo: DigitsDemo) -> None:
    """All shifts have one signature, but for nothing, and both tasks those of one network."""
    assert len({str(shift.index.signature) for shift in demo.shifts}) == 1
    assert demo.task.signature.weights == demo.task_known.signature.weights
    assert demo.task.signature.weights != demo.shifts[0].index.signature.weights


def test_demo_is_plain_json(demo: DigitsDemo) -> None:
    """The numbers survive JSON, which knows no NaN."""
    found = json.loads(json.dumps(demo.to_dict(), allow_nan=False))
    assert [(one["kind"], one["level"], one["value"]) for one in found["shifts"]] == [
        (one.kind, one.level, one.index.value) for one in demo.shifts
    ]
    assert found["task"]["value"] == demo.task.value


@pytest.mark.usefixtures("short_updates")
def test_demo_gives_the_same_numbers_again() -> None:
    """Neither the random state nor the number of threads changes a digit of the result."""
    levels = {kind: (0.0, strengths[2]) for kind, strengths in LEVELS.items()}
    threads = torch.get_num_threads()
    found = []
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            torch.set_num_threads(seed)
            state = torch.get_rng_state()
            updates = (("gaussian noise", 0.2),)
            run = digits_demo(
                epochs=1, levels=levels, updates=updates, meter="none", confidence_level=LEVEL
            )
            found.append(without_costs(run.to_dict()))
            assert torch.equal(state, torch.get_rng_state())
            assert torch.get_num_threads() == seed
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def without_costs(found: Any) -> Any:
    """The same results without what differs from run to run: seconds, what they say, and dates."""
    if isinstance(found, list):
        return [without_costs(one) for one in found]
    if not isinstance(found, dict):
        return found
    timed = {"id", "started", "duration_s", "seconds", "joules", "energy", "energy_kwh",
             "training_energy", "validation_energy", "hardware", "seconds_per_step",
             "seconds_per_validation", "answer", "cheaper", "ties", "on_front",
             "changes"}  # fmt: skip
    return {key: without_costs(value) for key, value in found.items() if key not in timed}


@pytest.mark.usefixtures("short_updates")
def test_demo_reports_its_steps() -> None:
    """Before each step a sentence says what is being done."""
    said: list[str] = []
    levels = {"gaussian noise": (0.0,)}
    digits_demo(
        said.append, epochs=1, levels=levels, updates=[("gaussian blur", 0.1)], meter="none",
        confidence_level=LEVEL,
    )  # fmt: skip
    assert len(said) == 5
    assert "gaussian noise" in said[1]
    assert "gaussian blur 0.1" in said[2]
    assert "forecasting" in said[3]


def test_demo_updates_meet_their_target(demo: DigitsDemo) -> None:
    """Each update ends at the target, and its index is that of its shift."""
    assert [(u.kind, u.level) for u in demo.updates] == [
        ("gaussian noise", 0.1), ("gaussian noise", 0.2), ("gaussian blur", 0.8),
    ]  # fmt: skip
    of_shift = {(shift.kind, shift.level): shift.index.value for shift in demo.shifts}
    for one in demo.updates:
        assert of_shift[one.kind, one.level] == one.index.value
        for update in (one.retrained, one.scratch):
            assert update.reached
            assert update.peak_accuracy >= 0.85
            assert {"shift": one.kind, "level": f"{one.level:g}"} == dict(update.labels)
            assert update.index is not None
            assert one.index.value == update.index["value"]


def test_demo_forecasts_the_last_update_from_those_before(demo: DigitsDemo) -> None:
    """The forecast knows the others, in both ways, and not the one that it is of."""
    assert demo.forecast is not None
    assert (demo.forecast.own_updates, demo.forecast.confidence_level) == (4, LEVEL)
    assert demo.forecast.corpus_updates > 0
    assert demo.forecast.target == demo.updates[-1].retrained.target
    for one in demo.updates:
        assert one.retrained.preflight is not None
        assert one.retrained.preflight["data"]["training_examples"] == 600
        assert one.retrained.preflight["values"]["RESQUE_dist"] > 0
        assert one.scratch.preflight is None
    known = demo.updates[-1].retrained.preflight
    assert known is not None
    assert known["signature"] == demo.forecast.signature.to_dict()


def test_demo_shows_the_truth_beside_the_forecast(demo: DigitsDemo) -> None:
    """Each measure has a row; accuracy at the target is less than the update could come to."""
    out = io.StringIO()
    Console(file=out, width=1000).print(demo_view(demo))
    text = out.getvalue().partition("forecast before it was made:")[2]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    taken = demo.updates[-1].retrained
    assert lines[1] == "measure median 50% interval it took unit"
    assert lines[2].startswith("epochs ")
    assert lines[2].endswith(f" {taken.epochs:.3g} epochs")
    assert lines[3].startswith("time ")
    (accuracy,) = (line for line in lines if line.startswith("peak accuracy "))
    assert accuracy.endswith(f" at least {taken.peak_accuracy:.3g}")
    assert "it was met. Known before: 4 updates above" in text


def test_demo_retraining_costs_less_than_training_from_scratch(demo: DigitsDemo) -> None:
    """The weights know most of what the shifted digits need; the larger shift costs more."""
    for one in demo.updates:
        assert one.retrained.epochs < one.scratch.epochs
        assert one.scratch.recipe.start == "scratch"
    small, large = demo.updates[:2]
    assert small.index.value < large.index.value
    assert small.retrained.epochs <= large.retrained.epochs
