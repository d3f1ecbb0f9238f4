"""Rivals of the index: closed forms, slow oracles, invariances, other libraries, orientation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_iris
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import nn

from resque import InputError, profile
from resque.index.sums import ClassSums, OutputStatistics
from resque.rivals import knn
from resque.rivals.accuracy_drop import accuracy_drop
from resque.rivals.arm import arm
from resque.rivals.atc import atc
from resque.rivals.class_mean import nearest_class_mean_error
from resque.rivals.confidence_drop import confidence_drop
from resque.rivals.controls import flops, parameters
from resque.rivals.frechet import frechet
from resque.rivals.global_angle import global_angle
from resque.rivals.gram import spectrum, spectrum_against
from resque.rivals.h_score import h_score
from resque.rivals.knn import knn_error
from resque.rivals.leep import leep
from resque.rivals.logme import logme
from resque.rivals.loss_rise import loss_rise
from resque.rivals.mmd import mmd
from resque.rivals.ridge import ridge_error
from resque.rivals.sliced_wasserstein import sliced_wasserstein
from resque.rivals.transport import wasserstein_1

Task = tuple[np.ndarray, np.ndarray]


def layers(before: np.ndarray, after: np.ndarray, **options: Any) -> float:
    """ARM of one layer."""
    return arm({"layer": before}, {"layer": after}, **options)


SHIFTS: dict[str, Callable[..., float]] = {
    "mmd": mmd,
    "frechet": frechet,
    "sliced_wasserstein": sliced_wasserstein,
    "arm": layers,
}
TASKS: dict[str, Callable[..., float]] = {
    "nearest_class_mean": nearest_class_mean_error,
    "knn": knn_error,
    "ridge": ridge_error,
    "logme": logme,
    "h_score": h_score,
}


def task(rng: np.random.Generator, n: int = 60, width: int = 5, apart: float = 1.0) -> Task:
    """Three classes of unequal size, each about its own centre."""
    labels = np.sort(rng.permutation(np.arange(n) % 7 % 3))
    centres = rng.normal(0, apart, (3, width))
    return centres[labels] + rng.normal(1, 1, (n, width)), labels


def outputs(probabilities: np.ndarray, labels: np.ndarray | None) -> OutputStatistics:
    """What a model that gives these probabilities says, through the pass that users make."""
    scores = torch.tensor(np.log(probabilities))
    data = scores if labels is None else (scores, labels)
    names = [str(c) for c in range(probabilities.shape[1])]
    model = nn.Sequential(nn.Identity(), nn.Linear(len(names), len(names), dtype=torch.float64))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(len(names)))
        model[1].bias.zero_()
    found = profile(model, data, class_names=names, progress=False).outputs
    assert found is not None
    return found


# --- All of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIFTS)
def test_more_shift_reads_higher(name: str, rng: np.random.Generator) -> None:
    """Old data against themselves, a little noise, and a lot of it."""
    old, new = rng.normal(size=(2, 300, 8))
    found = [SHIFTS[name](old, new * (1 + amount) + amount) for amount in (0.0, 0.5, 1.5)]
    assert sorted(found) == found
    assert found[2] > 2 * found[1] > 4 * found[0]


@pytest.mark.parametrize("name", TASKS)
def test_classes_further_apart_read_lower(name: str, rng: np.random.Generator) -> None:
    """The same noise about centres that lie together, apart, and far apart."""
    labels, noise = np.arange(150) % 3, rng.normal(size=(150, 6))
    found = [TASKS[name](noise + apart * np.eye(3, 6)[labels], labels) for apart in (0, 2, 6)]
    assert found[0] > found[1] > found[2]


def test_worse_outputs_read_higher(rng: np.random.Generator) -> None:
    """A model that loses its certainty, and with it its accuracy."""
    labels, noise = np.arange(600) % 3, rng.normal(size=(600, 3))
    sides = [
        outputs(special.softmax(noise + sure * np.eye(3)[labels], axis=1), labels)
        for sure in (4, 2, 1)
    ]
    for rival in (accuracy_drop, loss_rise, confidence_drop, atc):
        found = [rival(sides[0], side) for side in sides]
        assert found[0] < found[1] < found[2], rival.__name__  # type: ignore[operator]


@pytest.mark.parametrize("name", SHIFTS)
def test_order_of_examples_and_values_does_not_matter_to_a_shift(
    name: str, rng: np.random.Generator
) -> None:
    """Sliced Wasserstein gives each value its own random weights, so there they stay in place."""
    old, new = rng.normal(size=(40, 6)), rng.normal(1, 2, size=(50, 6))
    values = np.arange(6) if name == "sliced_wasserstein" else rng.permutation(6)
    moved = SHIFTS[name](rng.permutation(old)[:, values], rng.permutation(new)[:, values])
    assert SHIFTS[name](old, new) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize("name", SHIFTS)
def test_scale_and_origin_do_not_matter_to_a_shift(name: str, rng: np.random.Generator) -> None:
    """All distances are in units of the old side, also far from the origin in float32."""
    old, new = rng.normal(size=(40, 6)), rng.normal(1, 2, size=(50, 6))
    expected = SHIFTS[name](old, new)
    assert SHIFTS[name](7 * old + 3, 7 * new + 3) == pytest.approx(expected, rel=1e-9)
    far = [(side + 100).astype(np.float32) for side in (old, new)]
    assert SHIFTS[name](*far) == pytest.approx(expected, rel=1e-4)
    # Nothing is squared before the mean is gone: 1e12 would leave four digits.
    assert SHIFTS[name](old + 1e6, new + 1e6) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", TASKS)
def test_order_of_examples_classes_and_values_does_not_matter_to_a_task(
    name: str, rng: np.random.Generator
) -> None:
    """Rotations matter as little as orders: all of them work with inner products."""
    values, labels = task(rng)
    order, rotation = rng.permutation(60), stats.ortho_group.rvs(5, random_state=rng)
    moved = TASKS[name]((values @ rotation)[order], np.array([2, 0, 1])[labels][order])
    assert TASKS[name](values, labels) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize("name", ["nearest_class_mean", "knn", "ridge", "h_score"])
def test_scale_does_not_matter_to_a_task(name: str, rng: np.random.Generator) -> None:
    """LogME is left out: its published epsilons have the scale of the weights."""
    values, labels = task(rng)
    assert TASKS[name](values, labels) == pytest.approx(TASKS[name](300 * values, labels), rel=1e-9)


@pytest.mark.parametrize("name", TASKS)
def test_what_came_is_left_as_it_was(name: str, rng: np.random.Generator) -> None:
    """One rival must not spoil the next."""
    values, labels = task(rng)
    kept = values.copy(), labels.copy()
    TASKS[name](values, labels)
    assert np.array_equal(kept[0], values)
    assert np.array_equal(kept[1], labels)


def spoilt(values: np.ndarray, place: int) -> np.ndarray:
    values[place, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, y: (v[0], y), r"\(examples, values\).* got shape \(5,\)"),
        (lambda v, y: (v[:0], y[:0]), r"got shape \(0, 5\)"),
        (lambda v, y: (v.astype(complex), y), "must be real numbers; got complex128"),
        (lambda v, y: (spoilt(v, 7), y), "of example 7 contain NaN or infinity"),
        (lambda v, y: (v, y[:-1]), r"one integer per example, \(60,\); got int64 of shape \(59,\)"),
        (lambda v, y: (v, y.astype(float)), r"got float64 of shape \(60,\)"),
        (lambda v, y: (v, 0 * y + 4), "at least two classes; all labels are 4"),
        (lambda v, y: (v, 2 * y), "each at least once; got 3 different ones from 0 to 4"),
        (lambda v, y: (v, y - 1), "got 3 different ones from -1 to 1"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_told(
    change: Callable[[Any, Any], Task], message: str, rng: np.random.Generator
) -> None:
    """By every rival for tasks, with what came."""
    for rival in (*TASKS.values(), leep):
        with pytest.raises(InputError, match=message):
            rival(*change(*task(rng)))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.eye(3), np.ones(3), r"new .* must be \(examples, values\).* got shape \(3,\)"),
        (np.eye(3), np.eye(2), "have 3 before and 2 after"),
        (np.eye(3), np.ones((1, 3)), "at least two examples; .* have 3 before and 1 after"),
        (np.ones((4, 3)), np.eye(3), "All 4 old examples have the same"),
        (np.diag([1, np.inf, 1]), np.eye(3), "old .* of example 1 contain NaN or infinity"),
    ],
)
def test_sides_that_do_not_fit_are_told(
    before: np.ndarray, after: np.ndarray, message: str
) -> None:
    """By every rival for shifts, with what came."""
    for rival in SHIFTS.values():
        with pytest.raises(InputError, match=message):
            rival(before, after)


# --- What the outputs say ------------------------------------------------------------------------


def test_drops_and_rises_are_those_of_the_examples(rng: np.random.Generator) -> None:
    """Written naively from the probabilities; without labels only confidence is left."""
    labels = np.arange(90) % 3
    p, q = (special.softmax(rng.normal(0, s, (90, 3)), axis=1) for s in (3, 1))
    old, new, bare = outputs(p, labels), outputs(q, labels), outputs(q, None)
    rows = np.arange(90)
    right = [(side.argmax(1) == labels).mean() for side in (p, q)]
    loss = [-np.log(side[rows, labels]).mean() for side in (p, q)]
    assert accuracy_drop(old, new) == pytest.approx(right[0] - right[1], abs=1e-12)
    assert loss_rise(old, new) == pytest.approx(loss[1] - loss[0], rel=1e-9)
    expected = p.max(1).mean() - q.max(1).mean()
    assert confidence_drop(old, new) == pytest.approx(expected, rel=1e-9)
    assert confidence_drop(old, bare) == pytest.approx(expected, rel=1e-9)
    for rival in (accuracy_drop, loss_rise):
        assert rival(old, bare) is None
        assert rival(bare, old) is None
    assert atc(old, bare) == atc(old, new)
    assert atc(bare, old) is None


def test_atc_is_within_a_bin_of_sorting_the_scores(rng: np.random.Generator) -> None:
    """The definition on single scores; one bin in a thousand holds some of 4,000 examples."""
    labels = np.arange(4000) % 3
    sides = [
        special.softmax(sure * np.eye(3)[labels] + rng.normal(0, 1.5, (4000, 3)), axis=1)
        for sure in (3, 2)
    ]
    scores = [np.sort(side.max(1)) for side in sides]
    errors = int((sides[0].argmax(1) != labels).sum())
    expected = (scores[1] < scores[0][errors]).mean()
    old, new = (outputs(side, labels) for side in sides)
    fullest = max(side.histogram.sum(0).max() for side in (old, new)) / 4000
    assert atc(old, new) == pytest.approx(expected, abs=2 * fullest)
    assert fullest < 0.05
    assert atc(old, old) == pytest.approx(errors / 4000, abs=1e-12)


def histogram(wrong: dict[int, int], correct: dict[int, int]) -> OutputStatistics:
    bins, zeros = np.zeros((2, 1000), np.int64), np.zeros(1)
    for row, counts in enumerate((wrong, correct)):
        for place, count in counts.items():
            bins[row, place] = count
    return OutputStatistics(True, zeros, zeros, zeros, zeros, zeros, bins)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # 10 errors: 5 below, and 5 of the 95 that tie in the last bin.
        (histogram({400: 5, 999: 5}, {999: 90}), histogram({}, {0: 2, 999: 19}), (2 + 1) / 21),
        # No error: what is less sure than every old example is one all the same.
        (histogram({}, {800: 10}), histogram({}, {100: 1, 799: 2, 800: 1}), 3 / 4),
        # Nothing but errors.
        (histogram({300: 10}, {}), histogram({}, {999: 4}), 1.0),
        # A gap between the scores: the largest threshold that fits.
        (histogram({100: 5}, {900: 5}), histogram({}, {500: 1, 950: 1}), 1 / 2),
    ],
)
def test_atc_at_ties_gaps_and_ends(
    old: OutputStatistics, new: OutputStatistics, expected: float
) -> None:
    """By hand from the histograms."""
    assert atc(old, new) == pytest.approx(expected, rel=1e-12)


def test_outputs_of_nothing_are_told() -> None:
    """The side is named."""
    full = outputs(np.full((2, 2), 0.5), np.array([0, 1]))
    empty = replace(full, counts=0 * full.counts, histogram=0 * full.histogram)
    for rival in (accuracy_drop, loss_rise, confidence_drop):
        with pytest.raises(InputError, match="on the new data count no examples"):
            rival(full, empty)
        with pytest.raises(InputError, match="on the old data count no examples"):
            rival(empty, full)
    with pytest.raises(InputError, match="confidence on the old data is empty"):
        atc(empty, full)


# --- Shifts --------------------------------------------------------------------------------------


def sums(values: np.ndarray, labels: np.ndarray) -> ClassSums:
    found = profile(None, (values, labels), progress=False).by_label
    assert found is not None
    return found


def test_global_angle_is_that_of_the_means_whatever_the_classes(rng: np.random.Generator) -> None:
    """A turn of the mean by a known angle in the plane; labels change nothing."""
    old = rng.normal(size=(50, 2))
    old += [5, 0] - old.mean(0)
    turn = np.array([[math.cos(0.3), math.sin(0.3)], [-math.sin(0.3), math.cos(0.3)]])
    labels = np.arange(50) % 2
    found = global_angle(sums(old, labels), sums(old @ turn, rng.permutation(labels)))
    assert found == pytest.approx(0.3 / math.pi, rel=1e-9)
    sides = [sums(side, labels) for side in (old, rng.normal(1, 1, (50, 2)))]
    cosine = 1 - pdist([side.sums.sum((0, 1)) for side in sides], "cosine")[0]
    assert global_angle(*sides) == pytest.approx(math.acos(cosine) / math.pi, rel=1e-9)


def test_a_mean_without_direction_is_told() -> None:
    """And so is a difference in width."""
    one = ClassSums(np.ones((1, 1), np.int64), np.ones((1, 1, 3)), np.ones((1, 1)))
    with pytest.raises(InputError, match="mean representation of the new data is zero"):
        global_angle(one, replace(one, sums=0 * one.sums))
    with pytest.raises(InputError, match="got 3 before and 2 after"):
        global_angle(one, replace(one, sums=one.sums[..., :2]))


def test_mmd_is_the_sum_over_pairs(rng: np.random.Generator) -> None:
    """Loops over pairs with scipy's distances, which never meet themselves."""
    old, new = rng.normal(size=(15, 3)), rng.normal(0.5, 2, size=(20, 3))
    width = np.median(pdist(old))

    def kernel(distance: np.ndarray) -> np.ndarray:
        return np.exp(-((distance / width) ** 2))

    expected = kernel(pdist(old)).mean() + kernel(pdist(new)).mean()
    expected -= 2 * kernel(cdist(old, new)).mean()
    assert mmd(old, new) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_gaussians_has_its_closed_form() -> None:
    """Width w, N(0, I) against N(d, I): E k = (1 + 4/w^2)^(-D/2) exp(-|d|^2 / (w^2 + 4))."""
    rng = np.random.default_rng(1)
    width, apart, found = 3, 1.0, []
    old_width = []
    for _ in range(40):
        old, new = rng.normal(size=(2, 100, width))
        found.append(mmd(old, new + apart))
        old_width.append(np.median(pdist(old)) ** 2)
    w2 = float(np.mean(old_width))
    same = (1 + 4 / w2) ** (-width / 2)
    expected = 2 * same * (1 - math.exp(-(width * apart**2) / (w2 + 4)))
    # Four standard errors of the mean of 40; the width varies by a few per cent around its mean.
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(40))


def test_mmd_draws_its_examples_by_the_seed(rng: np.random.Generator) -> None:
    """The same seed the same number; and no more than asked for of either side."""
    old, new = rng.normal(size=(2, 50, 3))
    drawn = mmd(old, new, max_examples=10, seed=3)
    assert drawn == mmd(old, new, max_examples=10, seed=3)
    assert drawn != mmd(old, new, max_examples=10, seed=4)
    with pytest.raises(InputError, match="max_examples must be 2 or more; got 1"):
        mmd(old, new, max_examples=1)


def test_mmd_without_a_median_is_told() -> None:
    """Twins only: most pairs are at distance 0."""
    old = np.eye(2)[[0] * 9 + [1]] + 0.1
    with pytest.raises(InputError, match="half of the pairs of 10 old examples"):
        mmd(old, np.eye(2))


def of_moments(rng: np.random.Generator, n: int, mean: Any, covariance: Any) -> np.ndarray:
    """Data with exactly this mean and this covariance."""
    white = rng.normal(size=(n, len(mean)))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return np.asarray(mean + white @ np.linalg.cholesky(covariance).T)


def test_frechet_of_gaussians_has_its_closed_form(rng: np.random.Generator) -> None:
    """Diagonal covariances: the sum of (sigma - sigma')^2; and the matrix root of scipy."""
    old = of_moments(rng, 60, np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    new = of_moments(rng, 80, np.array([1.0, 0, 2]), np.diag([4.0, 4.0, 1.0]))
    assert frechet(old, new) == pytest.approx((5 + (1 + 0 + 4)) / 14, rel=1e-9)
    draws = rng.normal(size=(2, 4, 4))
    first, second = (draw @ draw.T + np.eye(4) for draw in draws)
    expected = np.trace(first + second - 2 * sqrtm(first @ second).real) / np.trace(first)
    found = frechet(of_moments(rng, 60, np.zeros(4), first), of_moments(rng, 9, [0.0] * 4, second))
    assert found == pytest.approx(expected, rel=1e-7)


def test_frechet_looks_at_the_largest_directions_of_the_old_side(rng: np.random.Generator) -> None:
    """Of 70 values six hardly vary; a shift of them is not seen, a shift of others is."""
    scale = np.where(np.arange(70) < 64, 1.0, 1e-4)
    old = of_moments(rng, 200, np.zeros(70), np.diag(scale**2))
    assert frechet(old, old + 5 * (scale < 1)) == pytest.approx(0, abs=1e-9)
    assert frechet(old, old + 1.0 * (scale == 1)) == pytest.approx(1.0, rel=1e-6)


def test_frechet_where_values_outnumber_examples(rng: np.random.Generator) -> None:
    """More values than examples, and fewer examples than directions: a translation is seen."""
    old = rng.normal(size=(30, 100))
    span = old - old.mean(0)
    step = span[0] * 3
    variance = (span**2).sum() / 29
    assert frechet(old, old + step) == pytest.approx((step**2).sum() / variance, rel=1e-9)


def test_frechet_reads_what_its_docstring_says_where_nothing_moved() -> None:
    """(k + 5)/4 (1/n + 1/m) for k directions; 2 % for higher orders, and four standard errors."""
    rng = np.random.default_rng(2)
    k, n, m = 8, 400, 600
    found = [frechet(rng.normal(size=(n, k)), rng.normal(size=(m, k))) for _ in range(100)]
    expected = (k + 5) / 4 * (1 / n + 1 / m)
    error = 4 * np.std(found) / math.sqrt(len(found)) + 0.02 * expected
    assert np.mean(found) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 45), (7, 13), (40, 5)])
def test_transport_is_that_of_scipy(n: int, m: int, rng: np.random.Generator) -> None:
    """Unit by unit, with ties, for sizes that divide each other and sizes that do not."""
    old, new = rng.normal(size=(n, 6)).round(1), rng.normal(1, 2, (m, 6)).round(1)
    expected = [stats.wasserstein_distance(*pair) for pair in zip(old.T, new.T, strict=True)]
    assert wasserstein_1(old, new) == pytest.approx(np.array(expected), rel=1e-12)


def test_sliced_wasserstein_of_one_value_is_that_of_scipy(rng: np.random.Generator) -> None:
    """In units of the old standard deviation; there is one direction, and its opposite."""
    old, new = rng.normal(2, 3, (40, 1)), rng.normal(3, 1, (25, 1))
    expected = stats.wasserstein_distance(old[:, 0], new[:, 0]) / old.std()
    assert sliced_wasserstein(old, new) == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein_of_a_translation_is_its_length(rng: np.random.Generator) -> None:
    """|t| sqrt(D) E|u_1| for a direction u on the sphere, within four standard errors."""
    width, directions = 12, 4000
    old = rng.normal(size=(30, width))
    old = (old - old.mean(0)) / old.std(0)
    shift = rng.normal(size=width)
    mean = math.gamma(width / 2) / (math.sqrt(math.pi) * math.gamma((width + 1) / 2))
    deviation = math.sqrt(1 / width - mean**2)
    length = math.sqrt(width) * np.linalg.norm(shift)
    found = sliced_wasserstein(old, old + shift, projections=directions)
    error = 4 * length * deviation / math.sqrt(directions)
    assert found == pytest.approx(length * mean, abs=error)


def test_sliced_wasserstein_refuses_few_directions() -> None:
    """With what came."""
    with pytest.raises(InputError, match="projections must be 200 or more; got 50"):
        sliced_wasserstein(np.eye(2), np.eye(2), projections=50)


def test_arm_is_the_mean_over_units_then_layers(rng: np.random.Generator) -> None:
    """Loops over layers and units with scipy's distance; layers count alike whatever their size."""
    old = {name: rng.normal(2, 5, (20, units)) for name, units in (("a", 3), ("b", 7))}
    new = {name: rng.normal(1, 2, (30, units)) for name, units in (("b", 7), ("a", 3))}
    expected = 0.0
    for name, values in old.items():
        pairs = zip(values.T, new[name].T, strict=True)
        units = [stats.wasserstein_distance(x, y) / x.std() for x, y in pairs]
        expected += sum(units) / len(units) / 2
    assert arm(old, new) == pytest.approx(expected, rel=1e-9)


def test_arm_of_a_translation_is_the_translation(rng: np.random.Generator) -> None:
    """In units of the old deviation; a unit that was dead has 1 % of the others' for its own."""
    old = rng.normal(size=(50, 4))
    old = (old - old.mean(0)) / old.std(0)
    assert layers(old, old + np.array([0, 1, 2, 5])) == pytest.approx(2, rel=1e-9)
    old[:, 3] = 0.1
    dead = 0.5 / (0.01 * math.sqrt(3 / 4))
    assert layers(old, old + np.array([0, 0, 0, 0.5])) == pytest.approx(dead / 4, rel=1e-9)


def test_published_arm_compares_heights_of_histograms(rng: np.random.Generator) -> None:
    """numpy's histogram unit by unit; and its quirk: moved or stretched activations read 0."""
    sides = []
    old, new = rng.normal(size=(200, 5)), rng.exponential(size=(150, 5))
    new[:, 2] = 3.0
    for side in (old, new):
        units = [np.histogram(unit, 16)[0] / len(unit) for unit in side.T]
        sides.append(np.mean(units, axis=0))
    expected = stats.wasserstein_distance(*sides)
    assert expected > 0.001
    assert layers(old, new, published=True, bins=16) == pytest.approx(expected, rel=1e-9)
    # Powers of two, so that rounding moves no example over the edge of its bin.
    assert layers(old, 4 * old, published=True) == 0.0
    assert layers(old, 4 * old) > 1


def test_layers_that_do_not_fit_are_told(rng: np.random.Generator) -> None:
    """By name."""
    old = rng.normal(size=(5, 2))
    with pytest.raises(InputError, match=r"got 2 before and 1 after, not on both: \['b'\]"):
        arm({"a": old, "b": old}, {"a": old})
    with pytest.raises(InputError, match="got 0 layers before and 0 after"):
        arm({}, {})
    with pytest.raises(InputError, match="activations of 'a' have 2 before and 1 after"):
        arm({"a": old}, {"a": old[:, :1]})
    with pytest.raises(InputError, match="bins must be 2 or more; got 1"):
        layers(old, old, published=True, bins=1)


# --- Tasks ---------------------------------------------------------------------------------------


def left_out(values: np.ndarray, labels: np.ndarray, model: Any) -> np.ndarray:
    """Predictions (n,) of a model of scikit-learn, each fitted without its example."""
    found = []
    for i in range(len(values)):
        rest = np.arange(len(values)) != i
        found.append(model.fit(values[rest], labels[rest]).predict(values[i : i + 1])[0])
    return np.array(found)


def test_nearest_class_mean_error_is_that_of_leaving_out(rng: np.random.Generator) -> None:
    """scikit-learn's nearest centroid, fitted sixty times; far from the origin as well."""
    values, labels = task(rng, width=20, apart=0.3)
    expected = (left_out(values, labels, NearestCentroid()) != labels).mean()
    with_it = (NearestCentroid().fit(values, labels).predict(values) != labels).mean()
    assert with_it < expected < 0.9
    assert nearest_class_mean_error(values, labels) == expected
    assert nearest_class_mean_error(values + 1e5, labels) == expected


def test_an_example_alone_in_its_class_is_an_error() -> None:
    """Without it the class has no mean, and it has no neighbour."""
    values = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1], [5.0, 5.0]])
    labels = np.array([0, 0, 1, 1, 2])
    assert nearest_class_mean_error(values, labels) == 1 / 5
    assert knn_error(values, labels, k=1) == 1 / 3
    assert ridge_error(values, labels) >= 1 / 5


@pytest.mark.parametrize("k", [1, 2, 4, 5, 59])
def test_knn_error_is_that_of_a_loop(k: int, rng: np.random.Generator) -> None:
    """Example by example, votes counted by hand, ties to the class that is met first."""
    values, labels = task(rng, apart=0.5)
    wrong = np.zeros(60)
    for i in range(60):
        distances = cdist(values[i : i + 1], values, "cosine")[0]
        distances[i] = np.inf
        votes = labels[np.argsort(distances)[:k]].tolist()
        chosen = max(dict.fromkeys(votes), key=votes.count)
        wrong[i] = chosen != labels[i]
    expected = np.mean([wrong[labels == c].mean() for c in range(3)])
    assert knn_error(values, labels, k=k) == pytest.approx(expected, rel=1e-12)


def test_knn_error_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    """Two classes and odd k, so that no vote is a tie; more examples than one block holds."""
    labels = np.arange(1500) % 2
    values = (rng.normal(size=(1500, 8)) + 0.5 * labels[:, None]).astype(np.float32)
    model = KNeighborsClassifier(6, metric="cosine").fit(values, labels)
    # The first of the six is the example itself.
    others = labels[model.kneighbors(return_distance=True)[1][:, :5]]
    wrong = (others.mean(axis=1) > 0.5) != labels
    assert knn_error(values, labels) == pytest.approx(wrong.mean(), rel=1e-12)


def test_neighbours_that_hardly_differ_in_direction_are_told_apart(
    rng: np.random.Generator,
) -> None:
    """Far from zero all cosines are 1 but for 1e-7, which float32 does not tell apart."""
    labels = np.repeat(np.arange(6), 60)
    values = 2.0 * rng.normal(size=(6, 64))[labels] + rng.normal(size=(360, 64))
    assert knn_error(values, labels) < 0.05
    assert knn_error(values + 1e4, labels) < 0.05


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_neighbours_are_the_same_whatever_the_blocks(
    far: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where float32 does not tell them apart and they lie in other blocks; against a loop."""
    monkeypatch.setattr(knn, "_BLOCK", 7)
    labels = np.arange(41) % 3
    values = rng.normal(size=(41, 6)) + labels[:, None] + far
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for k in (1, 4, 40):
        wrong = np.zeros(3)
        for i, row in enumerate(unit):
            cosines = unit @ row
            cosines[i] = -np.inf
            votes = labels[np.argsort(-cosines)[:k]]
            counts = np.bincount(votes, minlength=3)
            best = next(vote for vote in votes if counts[vote] == counts.max())
            wrong[labels[i]] += best != labels[i]
        expected = (wrong / np.bincount(labels)).mean()
        assert knn_error(values, labels, k=k) == pytest.approx(expected, rel=1e-12)


def test_knn_refuses_neighbours_that_are_not_there() -> None:
    """With how many there are."""
    for k in (0, 4):
        with pytest.raises(InputError, match=f"k must be 1 to 3 for 4 examples; got {k}"):
            knn_error(np.eye(4), np.array([0, 0, 1, 1]), k=k)


@pytest.mark.parametrize("width", [5, 80])
@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_ridge_error_is_that_of_leaving_out(
    width: int, penalty: float, rng: np.random.Generator
) -> None:
    """scikit-learn's ridge with an intercept, refitted, below and above as many values."""
    values, labels = task(rng, width=width, apart=1 / math.sqrt(width))
    scale = ((values - values.mean(0)) ** 2).sum(1).mean()
    truth = np.eye(3)[labels]
    found = left_out(values, truth, Ridge(penalty * scale))
    expected = (found.argmax(1) != labels).mean()
    assert 0.05 < expected < 0.9
    assert ridge_error(values, labels, penalties=[penalty]) == expected


def test_ridge_chooses_the_penalty_of_least_squared_error(rng: np.random.Generator) -> None:
    """By refits at each; the choice is neither end of the grid, and of several errors the right."""
    values, labels = task(rng, n=40, width=60, apart=0.4)
    scale = ((values - values.mean(0)) ** 2).sum(1).mean()
    truth, grid = np.eye(3)[labels], [1e-6, 1e-2, 1.0, 1e3]
    left = [left_out(values, truth, Ridge(p * scale)) for p in grid]
    best = int(np.argmin([((found - truth) ** 2).sum() for found in left]))
    assert best in (1, 2)
    assert ridge_error(values, labels, penalties=grid) == (left[best].argmax(1) != labels).mean()


def test_ridge_of_features_that_say_nothing_is_the_largest_class() -> None:
    """Without an example of the larger class it is the larger class still."""
    assert ridge_error(np.full((5, 3), 0.1), np.array([0, 0, 0, 0, 1])) == 1 / 5


@pytest.mark.parametrize("penalties", [[], [0.0], [1.0, -1.0], [[1.0]]])
def test_ridge_refuses_penalties(penalties: Any) -> None:
    """With what came."""
    with pytest.raises(InputError, match="above 0; got \\["):
        ridge_error(np.eye(4), np.array([0, 0, 1, 1]), penalties=penalties)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (9, 5000)])
def test_spectrum_is_that_of_the_singular_values(
    shape: tuple[int, int], centred: bool, rng: np.random.Generator
) -> None:
    """numpy's, up to signs; scores give back all inner products."""
    values = rng.normal(1, 1, shape)
    expected = values - values.mean(0) if centred else values
    found, scores = spectrum(values, centred=centred)
    singular = np.sort(np.linalg.svd(expected, compute_uv=False) ** 2)
    assert found == pytest.approx(singular, abs=1e-9 * singular[-1])
    assert scores @ scores.T == pytest.approx(expected @ expected.T, abs=1e-9 * singular[-1])
    targets = rng.normal(size=(shape[0], 3))
    same, along = spectrum_against(values, targets, centred=centred)
    assert same == pytest.approx(found, abs=1e-12 * singular[-1])
    assert along.T @ along == pytest.approx(targets.T @ scores @ scores.T @ targets, rel=1e-6)


def test_logme_meets_its_published_golden_value() -> None:
    """Iris, three classes: the number of transformer-ranker's tests, with their own tolerance.

    Their iris is in float32, as is one of their constants; both count from the seventh digit on.
    """
    values, labels = load_iris(return_X_y=True)
    assert logme(values, labels) == pytest.approx(0.16006022033609904, rel=1e-6)


@pytest.mark.parametrize("width", [4, 60])
def test_logme_is_the_published_iteration_with_whole_matrices(
    width: int, rng: np.random.Generator
) -> None:
    """Posterior mean and determinant of A = alpha + beta F'F, solved at each step."""
    values, labels = task(rng, n=40, width=width)
    gram, found = values.T @ values, []
    for c in range(3):
        y = (labels == c).astype(float)
        alpha = beta = 1.0
        for _ in range(11):
            ratio = alpha / beta
            inverse = np.linalg.inv(alpha * np.eye(width) + beta * gram)
            mean = beta * inverse @ values.T @ y
            gamma = beta * np.trace(inverse @ gram)
            residual = ((y - values @ mean) ** 2).sum()
            alpha = gamma / (mean @ mean + 1e-5)
            beta = (40 - gamma) / (residual + 1e-5)
            if abs(alpha / beta - ratio) <= 1e-3 * ratio:
                break
        determinant = np.linalg.slogdet(alpha * np.eye(width) + beta * gram)[1]
        evidence = width * math.log(alpha) + 40 * math.log(beta / 2 / math.pi) - determinant
        found.append((evidence - beta * residual - alpha * mean @ mean) / 80)
    assert logme(values, labels) == pytest.approx(-np.mean(found), rel=1e-9)


@pytest.mark.parametrize("width", [4, 60])
def test_logme_is_the_largest_evidence(width: int, rng: np.random.Generator) -> None:
    """scipy maximises log N(y; 0, I / beta + FF' / alpha) by itself, above n values too.

    The maximum is flat: a ratio that is off by the tolerance of 1e-3 changes it by 1e-6 or so;
    the published epsilons by a little more.
    """
    values, labels = task(rng, n=40, width=width, apart=1.0)
    found = []
    for c in range(3):
        y = (labels == c).astype(float)

        def minus(logs: np.ndarray, y: np.ndarray = y) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(40) / beta + values @ values.T / alpha
            return float(-stats.multivariate_normal(np.zeros(40), covariance).logpdf(y)) / 40

        found.append(optimize.minimize(minus, np.zeros(2), method="Nelder-Mead").fun)
    assert logme(values, labels) == pytest.approx(np.mean(found), abs=1e-3)


def test_logme_of_nothing_is_told() -> None:
    """A dead layer."""
    with pytest.raises(InputError, match="All representations are zero"):
        logme(np.zeros((4, 2)), np.array([0, 0, 1, 1]))


@pytest.mark.parametrize("width", [5, 90])
def test_h_score_is_that_of_the_covariances(width: int, rng: np.random.Generator) -> None:
    """The definition with D x D matrices and scikit-learn's Ledoit-Wolf."""
    values, labels = task(rng, width=width)
    shrunk, shrinkage = ledoit_wolf(values)
    means = np.stack([values[labels == c].mean(0) for c in range(3)])[labels] - values.mean(0)
    between = means.T @ means / len(values)
    expected = np.trace(np.linalg.pinv(shrunk) @ between) * (1 - shrinkage) / 2
    assert 0.01 < shrinkage < 0.9
    assert h_score(values, labels) == pytest.approx(-expected, rel=1e-9)


def test_h_score_of_two_points_is_full_and_of_one_is_none() -> None:
    """Nothing to shrink, and a covariance of rank one; or of rank none."""
    labels = np.array([0, 0, 1, 1])
    assert h_score(np.eye(3)[labels], labels) == pytest.approx(-1, rel=1e-9)
    assert h_score(np.full((4, 3), 0.1), labels) == 0


def test_leep_is_that_of_loops(rng: np.random.Generator) -> None:
    """Empirical joint, conditional and likelihood one by one; one old class is never given."""
    labels = np.arange(40) % 7 % 3
    p = rng.dirichlet([0.3] * 4, size=40)
    p = np.insert(p, 2, 0.0, axis=1)
    total = 0.0
    for i in range(40):
        likelihood = 0.0
        for z in (0, 1, 3, 4):
            share = sum(p[j, z] for j in range(40) if labels[j] == labels[i]) / p[:, z].sum()
            likelihood += share * p[i, z]
        total += math.log(likelihood) / 40
    entropy = stats.entropy(np.bincount(labels))
    found = leep(p, labels)
    assert found == pytest.approx(-(total + entropy), rel=1e-9)
    order = rng.permutation(40)
    moved = leep(p[order][:, ::-1], np.array([1, 2, 0])[labels][order])
    assert found == pytest.approx(moved, rel=1e-9)


def test_leep_is_between_all_and_nothing() -> None:
    """An output that is the class: minus the entropy; one that is always the same: 0."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    entropy = stats.entropy([3, 2, 1])
    assert leep(np.eye(3)[labels], labels) == pytest.approx(-entropy, rel=1e-12)
    assert leep(np.full((6, 4), 0.25), labels) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([3.0, -1.0], "example 1 has minimum -1 and sum 2"),
        ([0.5, 0.25], "minimum 0.25 and sum 0.75"),
    ],
)
def test_leep_refuses_scores(row: list[float], message: str) -> None:
    """With the row, and what to do."""
    with pytest.raises(InputError, match=f"{message}. Apply softmax"):
        leep(np.array([[0.5, 0.5], row]), np.array([0, 1]))


# --- Controls ------------------------------------------------------------------------------------


class Two(nn.Module):
    """A model of two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.first(a) + self.second(b)


def test_flops_are_counted_per_example_whatever_the_inputs() -> None:
    """Two for each multiply-add, by hand; tensor, tuple and dict; any batch."""
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten())
    for n in (1, 5):
        assert flops(convolution, torch.zeros(n, 3, 6, 6)) == 2 * 36 * 8 * 27
        a, b = torch.zeros(n, 3), torch.zeros(n, 5)
        assert flops(Two(), (a, b)) == flops(Two(), {"b": b, "a": a}) == 2 * (12 + 20)


def test_flops_of_a_transformer_are_not_lost_in_fused_layers() -> None:
    """Projections, attention and feed-forward by hand; in eval mode torch fuses the layer."""
    tokens, width, inner = 7, 8, 16
    layer = nn.TransformerEncoderLayer(width, 2, inner, batch_first=True).eval()
    products = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * inner
    assert flops(layer, torch.zeros(3, tokens, width)) == 2 * products


def test_flops_leave_the_model_and_random_state_as_they_were() -> None:
    """Modes, running means, gradients, and the switch of torch's fused layers."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random, fused = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    assert flops(model, torch.randn(3, 4, generator=torch.Generator())) == 32
    assert [True, True, False, True] == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert fused == torch.backends.mha.get_fastpath_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flops_that_cannot_be_counted_are_told() -> None:
    """No example, or a model that does not take them."""
    with pytest.raises(InputError, match="inputs hold no example"):
        flops(nn.Linear(3, 4), torch.zeros(0, 3))
    with pytest.raises(InputError, match=r"could not be run on a batch of \(2, 5\)"):
        flops(nn.Linear(3, 4), torch.zeros(2, 5))


def test_parameters_are_counted_once_and_frozen_ones_too() -> None:
    """A layer of 12 + 4, and a second one that shares its weight."""
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
    model[1].weight = model[0].weight
    model.requires_grad_(False)
    assert parameters(model) == 12 + 4 + 4
