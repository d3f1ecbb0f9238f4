"""RESQUE_dist: closed forms, slow oracles, invariances, independent code, laws and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.spatial import distance
from scipy.special import softmax
from scipy.stats import ortho_group, permutation_test
from torch import nn

import resque
from reference import (
    Grouped,
    debiased_cosine,
    floor,
    floor_of_sizes,
    group,
    jackknife_bounds,
    published_angles,
    published_index,
    sign_test,
    spread_and_directions,
)
from resque.index.shift import EXACT_GROUPS, _sign_patterns, angle

laws = settings(deadline=None, max_examples=60)

Data = tuple[np.ndarray, np.ndarray, np.ndarray]  # representations, labels, ids
GROUPS = 8


def profile_of(data: Data, groups: int = GROUPS, **options: Any) -> resque.ClassProfile:
    values, labels, ids = data
    return resque.profile(None, (values, labels), ids=ids, groups=groups, **options)


def shift_of(before: Data, after: Data, **options: Any) -> resque.ShiftIndex:
    return resque.shift_index(profile_of(before), profile_of(after), **options)


def moved(rng: np.random.Generator, by: float) -> tuple[Data, Data]:
    """Return two samples of 3 classes of unequal sizes, whose means are `by` apart per value.

    Two thirds of the new examples are old ones, with noise on top; the others are new.
    """
    means = rng.normal(0, 1, (3, 5)) + 1
    labels = np.repeat([0, 1, 2], [15, 21, 27])
    before = means[labels] + rng.normal(size=(63, 5))
    noisy = 0.7 * (before - means[labels]) + 0.7 * rng.normal(size=(63, 5))
    after = (means + by * rng.normal(size=(3, 5)))[labels] + noisy
    ids = np.arange(63)
    later = np.where(ids % 3 == 0, ids + 1000, ids)
    return (before, labels, ids), (after[4:], labels[4:], later[4:])


@pytest.fixture
def sides(rng: np.random.Generator) -> tuple[Data, Data]:
    """Two samples that have moved so far that no cosine exceeds 1; see `moved`."""
    return moved(rng, 1.0)


def by_class(before: Data, after: Data) -> dict[str, tuple[Grouped, Grouped]]:
    """Return class name -> (old, new), each as representations and their groups."""

    def of(data: Data, label: int) -> Grouped:
        values, labels, ids = data
        mine = labels == label
        return values[mine], [group(int(one), GROUPS) for one in ids[mine]]

    return {str(k): (of(before, k), of(after, k)) for k in np.unique(before[1])}


# --- the angle, equation (2) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [
        ([1, 0], [1, 0], 0),
        ([2, 0], [0.1, 0.1], 1 / 4),
        ([1, 0, 0], [0, 0, 5], 1 / 2),
        ([1, 0], [-1, math.sqrt(3)], 2 / 3),
        ([1, 2, 3], [-2, -4, -6], 1),
    ],
)
def test_angles_by_hand(u: list[float], v: list[float], expected: float) -> None:
    """Angles that everyone knows, in units of pi, whatever the lengths."""
    # A few roundings of numbers near 1; the unit vectors of [1, 2, 3] and its multiple may differ
    # by one of them.
    assert expected == pytest.approx(float(angle(np.array(u), np.array(v))), abs=1e-15)


@laws
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(2, 40))
def test_angles_against_scipy(seed: int, width: int) -> None:
    """The angle is the arccos of SciPy's cosine, and SciPy's angle between subspaces."""
    u, v = np.random.default_rng(seed).normal(size=(2, width))
    found = float(angle(u, v)) * math.pi
    # 1e-7: arccos turns a rounding of its argument near 1 into its root.
    assert math.acos(np.clip(1 - distance.cosine(u, v), -1, 1)) == pytest.approx(found, abs=1e-7)
    # Lines instead of vectors: the angle or its supplement.
    acute = float(subspace_angles(u[:, None], v[:, None])[0])
    assert acute == pytest.approx(min(found, math.pi - found), abs=1e-12)


@pytest.mark.parametrize("radians", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1])
def test_small_angles_keep_their_digits(rng: np.random.Generator, radians: float) -> None:
    """The index of a turn by 1e-7 rad is right to 1e-8 of itself, where arccos reads nonsense."""
    start, away = np.linalg.qr(rng.normal(size=(768, 2)))[0].T
    turned = math.cos(radians) * start + math.sin(radians) * away
    labels = np.zeros(1, int)
    before = resque.profile(None, (100 * start[None], labels))
    after = resque.profile(None, (3 * turned[None], labels))
    found = resque.shift_index(before, after).value * math.pi
    # The vectors themselves are rounded: each value by 1e-16 of at most 0.2, independently.
    assert radians == pytest.approx(found, rel=1e-8)


def test_small_angles_of_float32(rng: np.random.Generator) -> None:
    """Of float32 representations, the angle is the exact one between what float32 can hold."""
    u = rng.normal(size=768).astype(np.float32)
    v = (u + 1e-6 * rng.normal(size=768)).astype(np.float32)
    found = resque.shift_index(
        *(resque.profile(None, (w[None], np.zeros(1, int))) for w in (u, v))
    ).value
    # Twice the arcsine of half a chord, with 11 bits more than float64 has.
    wide = [w.astype(np.longdouble) for w in (u, v)]
    a, b = (w / np.sqrt((w**2).sum()) for w in wide)
    expected = float(2 * np.arcsin(np.sqrt(((a - b) ** 2).sum()) / 2)) / math.pi
    assert 1e-8 < expected < 1e-6
    assert expected == pytest.approx(found, rel=1e-8)
    assert isinstance(found, float)


# --- the value, equation (3) --------------------------------------------------------------------


def test_the_value_by_hand() -> None:
    """Sums at 0, 1/4, 1/2 and 1 of pi make a mean of 7/16."""
    before = np.array([[1.0, 0], [2, 0], [1, 1], [0, 3], [0, 1], [4, 4]])
    after = np.array([[7.0, 0], [5, 5], [1, -1], [-2, -2]])
    shift = resque.shift_index(
        resque.profile(None, (before, np.array([0, 1, 2, 1, 0, 3])), class_names="wxyz"),
        resque.profile(None, (after, np.array([0, 1, 2, 3])), class_names="wxyz"),
    )
    expected = {
        "w": math.atan2(1, 1) / math.pi,
        "x": (math.atan2(3, 2) - math.atan2(1, 1)) / math.pi,
        "y": 1 / 2,
        "z": 1.0,
    }
    assert expected == pytest.approx(shift.per_class, rel=1e-14)
    assert sum(expected.values()) / 4 == pytest.approx(shift.value, rel=1e-14)


def test_the_value_is_the_published_one(sides: tuple[Data, Data]) -> None:
    """One scan per class and side, with arccos, gives the same angle per class and mean."""
    before, after = sides
    shift = shift_of(before, after)
    angles = published_angles(before[:2], after[:2])
    # 1e-9: the angles are of order 0.1, where arccos loses one digit of sixteen.
    assert {str(k): value for k, value in angles.items()} == pytest.approx(
        shift.per_class, rel=1e-9
    )
    assert published_index(before[:2], after[:2]) == pytest.approx(shift.value, rel=1e-9)


def test_the_value_against_scipy(sides: tuple[Data, Data]) -> None:
    """SciPy's cosine distance of the class means gives the same index."""
    before, after = sides
    angles = [
        math.acos(
            1 - distance.cosine(*(data[0][data[1] == label].mean(0) for data in (before, after)))
        )
        / math.pi
        for label in range(3)
    ]
    assert np.mean(angles) == pytest.approx(shift_of(before, after).value, rel=1e-9)


@laws
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 60), spread=st.floats(0, 10))
def test_a_result_is_always_in_order(seed: int, n: int, spread: float) -> None:
    """Every number is where it must be: indices in [0, 1], bounds round the debiased value."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(2, 4))
    labels = np.arange(2 * n) % 2

    def drawn() -> Data:
        return means[labels] + spread * rng.normal(size=(2 * n, 4)), labels, np.arange(2 * n)

    shift = shift_of(drawn(), drawn())
    for one in (shift, *shift.classes.values()):
        assert 0 <= one.value <= 1
        assert 0 <= one.floor <= 0.5
        assert one.debiased is None or 0 <= one.debiased <= 1
    assert (shift.debiased is None) == (len(shift.unresolved) == 2)
    if shift.lower is not None:
        assert 0 <= shift.lower <= shift.debiased <= shift.upper <= 1
        # 2^(1 - groups) is the share of the observed pattern alone.
        assert 2 ** (1 - GROUPS) <= shift.p_value <= 1
    assert sum(shift.contributions.values()) == pytest.approx(1 if shift.value else 0)
    json.dumps(shift.to_dict())
    assert "RESQUE_dist" in str(shift)


# --- the floor, equation (4) --------------------------------------------------------------------


def test_the_floor_by_hand() -> None:
    """Two examples mu +- e of one group: |mu|^2 reads |mu|^2 - |e|^2 and the trace 2 |e|^2."""
    mu, e, f = np.array([3.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 2.0])
    labels, scene = np.zeros(2, int), ["one scene"] * 2
    before = resque.profile(None, (np.stack([mu + e, mu - e]), labels), ids=scene)
    after = resque.profile(None, (np.stack([mu + f, mu - f]), labels), ids=scene)
    r, s = 2 * 1 / (9 - 1) / 2, 2 * 4 / (9 - 4) / 2
    shift = resque.shift_index(before, after)
    expected = math.acos(1 / math.sqrt((1 + r) * (1 + s))) / math.pi
    assert expected == pytest.approx(shift.floor, rel=1e-12)
    # One example on both sides: k / (n n') of the trace is in both means.
    shared = 1 * math.sqrt(2 * r * 2 * s) / 4
    expected = math.acos((1 + shared) / math.sqrt((1 + r) * (1 + s))) / math.pi
    again = resque.shift_index(before, after, common={"0": 1})
    assert expected == pytest.approx(again.floor, rel=1e-12)


@pytest.mark.parametrize("common", [{}, {"0": 6, "2": 17}])
def test_the_floor_against_the_slow_one(sides: tuple[Data, Data], common: dict[str, int]) -> None:
    """Loops over pairs of examples and explicit scatter matrices give the same floors."""
    shift = shift_of(*sides, common=common)
    expected = {name: floor(*pair, common.get(name, 0)) for name, pair in by_class(*sides).items()}
    found = {name: one.floor for name, one in shift.classes.items()}
    assert expected == pytest.approx(found, rel=1e-9)
    assert np.mean(list(expected.values())) == pytest.approx(shift.floor, rel=1e-9)


def test_equal_examples_leave_no_floor(sides: tuple[Data, Data]) -> None:
    """Where all examples are on both sides, no shift reads 0, and so says the floor."""
    before, _ = sides
    shift = shift_of(before, before, common={"0": 15, "1": 21, "2": 27})
    # The root of a rounding of 1 - c.
    assert shift.floor == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("common", "message"),
    [
        ({"0": 12}, "common says 12 shared examples of class '0'; there are 15 and 11"),
        ({"0": -1}, "got -1 for class '0'"),
        ({"zero": 1}, "common names the class 'zero'"),
    ],
)
def test_a_common_that_cannot_be(
    sides: tuple[Data, Data], common: dict[str, int], message: str
) -> None:
    """More shared examples than there are, fewer than none, or of an unknown class: refused."""
    with pytest.raises(resque.InputError, match=message):
        shift_of(*sides, common=common)


# --- the debiased value and its interval, equations (6) and (7) ---------------------------------


def without_noise(turn: float, n: int = 200) -> tuple[Data, Data]:
    """Return two sides whose examples all equal their class mean, turned by `turn` of pi."""
    labels, ids = np.arange(n) % 2, np.arange(n)
    means = np.array([[2.0, 0, 0], [0, 0, 3.0]])
    c, s = math.cos(math.pi * turn), math.sin(math.pi * turn)
    turned = means @ np.array([[c, s, 0], [0, 1, 0], [0, -s, c]])
    return (means[labels], labels, ids), (turned[labels], labels, ids)


def test_without_noise_everything_is_exact() -> None:
    """Examples that equal their class mean have no floor, and an interval of no width."""
    shift = shift_of(*without_noise(0.125))
    assert shift.value == pytest.approx(0.125, rel=1e-12)
    assert shift.debiased == pytest.approx(0.125, rel=1e-9)
    assert shift.lower == pytest.approx(0.125, rel=1e-6)
    assert shift.upper == pytest.approx(0.125, rel=1e-6)
    # The root of a rounding.
    assert shift.floor == pytest.approx(0, abs=1e-7)


def test_the_debiased_value_against_pairs_of_examples(sides: tuple[Data, Data]) -> None:
    """A double loop over examples of different groups gives the same cosines."""
    shift = shift_of(*sides)
    cosines = {name: debiased_cosine(*pair) for name, pair in by_class(*sides).items()}
    found = {name: math.cos(math.pi * one.debiased) for name, one in shift.classes.items()}
    assert cosines == pytest.approx(found, rel=1e-10)
    assert np.mean(list(cosines.values())) == pytest.approx(
        math.cos(math.pi * shift.debiased), rel=1e-10
    )


@pytest.mark.parametrize("confidence_level", [0.5, 0.9, 0.99])
def test_the_interval_against_a_recomputed_jackknife(
    sides: tuple[Data, Data], confidence_level: float
) -> None:
    """Dropping each group by looking at the other examples anew gives the same bounds."""
    shift = shift_of(*sides, confidence_level=confidence_level)
    low, high = jackknife_bounds(list(by_class(*sides).values()), range(GROUPS), confidence_level)
    assert low == pytest.approx(math.cos(math.pi * shift.upper), rel=1e-9)
    assert min(high, 1) == pytest.approx(math.cos(math.pi * shift.lower), rel=1e-9)
    assert confidence_level == shift.confidence_level


def test_a_wider_interval_at_a_higher_level(sides: tuple[Data, Data]) -> None:
    """More confidence takes more room."""
    narrow, wide = (shift_of(*sides, confidence_level=level) for level in (0.5, 0.9))
    assert wide.lower < narrow.lower < narrow.debiased == wide.debiased
    assert narrow.debiased < narrow.upper < wide.upper


@pytest.mark.parametrize("level", [0, 1, 90, -0.1, math.nan])
def test_a_confidence_level_that_is_none(sides: tuple[Data, Data], level: float) -> None:
    """A level must lie between 0 and 1; the message has the one given."""
    with pytest.raises(resque.InputError, match=f"above 0 and below 1; got {level}"):
        shift_of(*sides, confidence_level=level)


def test_shared_examples_are_recognised_by_their_ids(rng: np.random.Generator) -> None:
    """An example on both sides meets itself only where its ids differ; then it hides the shift."""
    n = 400
    noise, labels = rng.normal(size=(n, 20)), np.zeros(n, int)
    before = noise + np.eye(20)[0]
    after = (
        noise + math.cos(0.2 * math.pi) * np.eye(20)[0] + math.sin(0.2 * math.pi) * np.eye(20)[1]
    )
    same = shift_of((before, labels, np.arange(n)), (after, labels, np.arange(n)))
    other = shift_of((before, labels, np.arange(n)), (after, labels, np.arange(n) + n))
    # The error of a mean cosine is tr(Sigma) / (n |mu|^2) = 0.05 at most, 0.02 of pi here.
    assert same.debiased == pytest.approx(0.2, abs=0.02)
    assert other.debiased < 0.185


# --- the test, equation (8) ---------------------------------------------------------------------


@pytest.mark.parametrize("by", [0.15, 0.3])
def test_the_p_value_against_all_patterns(rng: np.random.Generator, by: float) -> None:
    """Trying every pattern of signs, one after the other, gives the same p-value."""
    sides = moved(rng, by)
    expected = sign_test(list(by_class(*sides).values()), range(GROUPS))
    assert expected == shift_of(*sides).p_value
    # Neither the least nor the most that p can be, so that a mistake shows.
    assert 2**-7 < expected < 1


def test_the_p_value_against_scipy(rng: np.random.Generator) -> None:
    """In two dimensions the differences across the mean are numbers; SciPy flips their signs."""
    n = 60
    before = rng.normal((3, 1), size=(n, 2))
    after = rng.normal((3, 1.1), size=(n, 2))
    labels, ids = np.zeros(n, int), np.arange(n)
    shift = shift_of((before, labels, ids), (after, labels, ids))
    ((a, members), (b, _)) = by_class((before, labels, ids), (after, labels, ids))["0"]
    lengths = [math.sqrt(_square(side, members)) for side in (a, b)]
    middle = a.mean(0) / lengths[0] + b.mean(0) / lengths[1]
    across = np.array([-middle[1], middle[0]])
    of_groups = [
        (np.array(members) == g).sum()
        * ((a / lengths[0] - b / lengths[1])[np.array(members) == g].mean(0) @ across)
        for g in range(GROUPS)
    ]
    found = permutation_test(
        (of_groups,),
        lambda d, axis: d.sum(axis) ** 2 - (d**2).sum(axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert found.pvalue == pytest.approx(shift.p_value, abs=1e-12)
    assert 2**-7 < shift.p_value < 0.5


def _square(values: np.ndarray, members: Any) -> float:
    """Return the mean inner product of examples of different groups, by matrices."""
    apart = np.not_equal.outer(members, members)
    return float((values @ values.T)[apart].mean())


def test_a_shift_without_noise_has_the_least_p_value() -> None:
    """Where every group moves the same way, only the observed pattern is as extreme."""
    assert shift_of(*without_noise(0.125)).p_value == 2 ** (1 - GROUPS)
    before, after = (profile_of(side, groups=16) for side in without_noise(0.125))
    assert resque.shift_index(before, after).p_value == 2**-15


def test_all_patterns_of_signs_are_tried() -> None:
    """Up to 16 groups every pattern occurs once, the first one flips nothing."""
    for m in (2, 5, EXACT_GROUPS):
        patterns = _sign_patterns(m)
        assert (2 ** (m - 1), m) == patterns.shape
        assert (patterns[0] == 1).all()
        assert (np.abs(patterns) == 1).all()
        assert len(np.unique(patterns, axis=0)) == 2 ** (m - 1)
    sampled = _sign_patterns(40)
    assert sampled.shape == (2**15, 40)
    assert (sampled[0] == 1).all()


def test_the_same_data_on_both_sides(sides: tuple[Data, Data]) -> None:
    """Nothing has moved: the value is 0, the debiased value is 0, and p is 1."""
    before, _ = sides
    shift = shift_of(before, before)
    assert shift.value == 0
    # The root of a rounding of 1 - cos.
    assert shift.debiased == pytest.approx(0, abs=1e-7)
    assert shift.lower == pytest.approx(0, abs=1e-7)
    assert shift.p_value == 1
    assert set(shift.contributions.values()) == {0}


def test_a_pure_rescaling_is_no_shift(sides: tuple[Data, Data]) -> None:
    """All activations of one side times 3.7 leave the value at 0 and p at 1."""
    values, labels, ids = sides[0]
    shift = shift_of((values, labels, ids), (3.7 * values, labels, ids))
    # Differences of unit vectors that are equal up to a rounding.
    assert shift.value == pytest.approx(0, abs=1e-15)
    assert shift.debiased == pytest.approx(0, abs=1e-7)
    assert shift.p_value > 0.5


def test_the_p_value_is_the_same_every_time(rng: np.random.Generator) -> None:
    """With more than 16 groups the patterns are drawn with a fixed seed, stated in the result."""
    labels, ids = np.arange(300) % 2, np.arange(300)
    old = rng.normal(size=(300, 6)) + 1, labels, ids
    new = rng.normal(size=(300, 6)) + 1.05, labels, ids
    before, after = profile_of(old, groups=40), profile_of(new, groups=40)
    global_state = np.random.get_state()  # noqa: NPY002  # the global one must stay untouched
    first, second = resque.shift_index(before, after), resque.shift_index(before, after)
    np.testing.assert_equal(np.random.get_state(), global_state)  # noqa: NPY002
    assert first.p_value == second.p_value
    assert 0.001 < first.p_value < 1
    assert first.signature.seed == 0
    assert "seed:0" in str(first)
    few = resque.shift_index(profile_of(old, groups=16), profile_of(new, groups=16))
    assert few.signature.seed is None


@pytest.mark.parametrize(("groups", "given"), [(5, False), (6, True)])
def test_too_few_groups_for_an_interval(sides: tuple[Data, Data], groups: int, given: bool) -> None:
    """Below six groups, with which p could not fall to 5 %, there is no interval and no test."""
    before, after = (profile_of(side, groups=groups) for side in sides)
    shift = resque.shift_index(before, after)
    assert shift.debiased is not None
    assert given == (shift.lower is not None)
    assert given == (shift.upper is not None)
    assert given == (shift.p_value is not None)
    assert given != any("Only 5 groups" in text for text in shift.warnings)
    assert given != ("no interval" in str(shift))


def test_only_groups_on_both_sides_count(rng: np.random.Generator) -> None:
    """Groups that one side has nobody in are no replicates of a comparison."""
    ids = np.arange(400)
    few = ids[np.isin([group(int(one), GROUPS) for one in ids], [0, 3, 5, 6])]
    values, labels = rng.normal(size=(400, 3)) + 2, np.zeros(400, int)
    shift = shift_of((values, labels, ids), (values[few], labels[few], few))
    assert shift.lower is None
    assert shift.p_value is None
    assert any("Only 4 groups" in text for text in shift.warnings)


# --- invariances --------------------------------------------------------------------------------


def assert_same_numbers(expected: resque.ShiftIndex, actual: resque.ShiftIndex) -> None:
    """All numbers agree to rounding: sums of 63 examples, and roots of differences of order 1."""
    for name in ("value", "floor", "debiased", "lower", "upper"):
        assert getattr(expected, name) == pytest.approx(getattr(actual, name), rel=1e-9), name
    assert expected.p_value == actual.p_value
    assert sorted(expected.per_class.values()) == pytest.approx(
        sorted(actual.per_class.values()), rel=1e-9
    )


def transformed(data: Data, change: Callable[[np.ndarray], np.ndarray]) -> Data:
    return change(data[0]), data[1], data[2]


def test_a_common_rotation_changes_nothing(sides: tuple[Data, Data]) -> None:
    """The index sees angles between means, and a rotation of all representations keeps them."""
    rotation = ortho_group(5, seed=3).rvs()
    turned = [transformed(side, lambda z: z @ rotation) for side in sides]
    assert_same_numbers(shift_of(*sides), shift_of(*turned))


@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e6])
def test_a_common_scale_changes_nothing(sides: tuple[Data, Data], scale: float) -> None:
    """Units do not matter."""
    scaled = [transformed(side, lambda z: scale * z) for side in sides]
    assert_same_numbers(shift_of(*sides), shift_of(*scaled))


def test_a_scale_of_one_side_changes_nothing(sides: tuple[Data, Data]) -> None:
    """Neither value, floor, interval nor test sees a rescaling of all activations of one side."""
    before, after = sides
    assert_same_numbers(
        shift_of(before, after), shift_of(before, transformed(after, lambda z: 0.01 * z))
    )


def test_the_order_of_examples_changes_nothing(
    sides: tuple[Data, Data], rng: np.random.Generator
) -> None:
    """With ids, the data may come in any order, another one on each side."""
    shuffled = []
    for values, labels, ids in sides:
        order = rng.permutation(len(ids))
        shuffled.append((values[order], labels[order], ids[order]))
    assert_same_numbers(shift_of(*sides), shift_of(*shuffled))


def test_the_order_and_names_of_classes_change_nothing(sides: tuple[Data, Data]) -> None:
    """Classes renumbered and renamed give the same numbers under the new names."""
    plain = shift_of(*sides)
    new_number = np.array([2, 0, 1])
    names = ["one", "two", "zero"]  # of the labels 0, 1, 2 after renumbering
    renamed = [(values, new_number[labels], ids) for values, labels, ids in sides]
    profiles = [profile_of(side, class_names=names) for side in renamed]
    found = resque.shift_index(*profiles)
    assert_same_numbers(plain, found)
    assert {
        "zero": plain.per_class["0"],
        "one": plain.per_class["1"],
        "two": plain.per_class["2"],
    } == pytest.approx(found.per_class, rel=1e-12)


def test_sides_may_number_their_classes_differently(sides: tuple[Data, Data]) -> None:
    """Classes match by name, not by number."""
    before, (values, labels, ids) = sides
    new_number = np.array([2, 0, 1])
    found = resque.shift_index(
        profile_of(before, class_names=["a", "b", "c"]),
        profile_of((values, new_number[labels], ids), class_names=["b", "c", "a"]),
    )
    assert_same_numbers(shift_of(*sides), found)


def test_exchanged_sides_give_the_same_index(sides: tuple[Data, Data]) -> None:
    """An angle has no direction: before and after may change places."""
    assert_same_numbers(shift_of(*sides), shift_of(*reversed(sides)))


def test_a_sum_of_parts_gives_the_index_of_the_whole(sides: tuple[Data, Data]) -> None:
    """Profiles of parts, added, are as good as the profile of everything."""
    before, after = sides
    parts = [
        profile_of(tuple(array[part] for array in before))
        for part in np.split(np.arange(63), [1, 20, 20 + 17])
    ]
    assert_same_numbers(shift_of(before, after), resque.shift_index(sum(parts), profile_of(after)))


def test_float32_is_computed_in_float64(sides: tuple[Data, Data]) -> None:
    """float32 representations give the index of the same numbers in float64."""
    narrow = [transformed(side, lambda z: z.astype(np.float32)) for side in sides]
    wide = [transformed(side, lambda z: z.astype(np.float64)) for side in narrow]
    # Every sum is of the same doubles, so the results are equal, not only close.
    expected, found = shift_of(*wide), shift_of(*narrow)
    assert expected.value == found.value
    assert expected.debiased == found.debiased
    assert expected.floor == found.floor
    assert found.signature.dtype == "float32"


# --- classes ------------------------------------------------------------------------------------


def test_missing_classes_are_reported(sides: tuple[Data, Data]) -> None:
    """Classes of one side only are left out of every number, named, and warned of."""
    before, (values, labels, ids) = sides
    kept = labels != 1
    new = np.where(labels == 0, 7, labels)  # class 7 is new, class 0 is gone
    found = shift_of(before, (values[kept], new[kept], ids[kept]))
    assert found.missing_before == ("7",)
    assert found.missing_after == ("0", "1")
    assert list(found.classes) == ["2"]
    assert shift_of(*sides).per_class["2"] == pytest.approx(found.value, rel=1e-12)
    assert found.examples_before == 27
    assert found.examples_after == (labels == 2).sum()
    assert found.signature.class_names == ("2",)
    text = "\n".join(found.warnings)
    assert "1 classes are on the new side only and not in the index: '7'" in text
    assert "2 classes are on the old side only and not in the index: '0', '1'" in text


def test_a_named_class_without_examples_is_missing(sides: tuple[Data, Data]) -> None:
    """A name without examples does not make a class."""
    before, (values, labels, ids) = sides
    kept = labels != 1
    found = resque.shift_index(
        profile_of(before, class_names=["a", "b", "c"]),
        profile_of((values[kept], labels[kept], ids[kept]), class_names=["a", "b", "c"]),
    )
    assert found.missing_after == ("b",)
    assert list(found.classes) == ["a", "c"]


def test_no_class_in_common(sides: tuple[Data, Data]) -> None:
    """The message lists what each side has."""
    before, (values, labels, ids) = sides
    with pytest.raises(
        resque.InputError,
        match="no class in common: '0', '1', '2' before, '10', '11', '12' after",
    ):
        shift_of(before, (values, labels + 10, ids))


def test_many_missing_classes_are_listed_briefly(rng: np.random.Generator) -> None:
    """Of hundreds of classes five are named, and the rest counted."""
    before = resque.profile(None, (rng.normal(size=(300, 2)), np.arange(300)))
    after = resque.profile(None, (rng.normal(size=(2, 2)), np.array([0, 1])))
    text = "\n".join(resque.shift_index(before, after).warnings)
    assert "298 classes are on the old side only" in text
    assert "'6' and 293 more" in text


def test_one_class_is_a_single_angle(sides: tuple[Data, Data]) -> None:
    """With one class there is an index, and a warning with its name."""
    one = [tuple(array[data[1] == 2] for array in data) for data in sides]
    shift = shift_of(*one)
    assert list(shift.per_class) == ["2"]
    assert shift.value == shift.per_class["2"]
    assert any("One class only, '2'" in text for text in shift.warnings)


def test_one_example_in_a_class(sides: tuple[Data, Data]) -> None:
    """It has a direction, so a value, but nothing that would tell noise: unresolved, floor 0.5."""
    before, (values, labels, ids) = sides
    kept = (labels != 0) | (ids == ids[labels == 0][0])
    shift = shift_of(before, (values[kept], labels[kept], ids[kept]))
    assert shift.classes["0"].examples_after == 1
    assert shift.unresolved == ("0",)
    assert shift.classes["0"].debiased is None
    assert shift.classes["0"].floor == 0.5
    assert published_angles(before[:2], (values[kept], labels[kept]))[0] == pytest.approx(
        shift.per_class["0"], rel=1e-9
    )
    rest = [shift.classes[name] for name in "12"]
    expected = math.acos(np.mean([math.cos(math.pi * one.debiased) for one in rest])) / math.pi
    assert expected == pytest.approx(shift.debiased, rel=1e-9)
    assert any("1 of 3 classes have too few examples" in text for text in shift.warnings)


def test_no_class_resolved(rng: np.random.Generator) -> None:
    """Noise without a mean gives a value and no debiased one; that is said, not hidden."""
    # Examples x and -x in different groups: their inner products, and so |mu|^2, are negative.
    values = np.concatenate([z := rng.normal(size=(20, 3)), -z]) + 1e-6
    shift = shift_of(
        (values, np.zeros(40, int), np.arange(40)), (values + 1, np.zeros(40, int), np.arange(40))
    )
    assert shift.unresolved == ("0",)
    assert shift.debiased is None
    assert shift.lower is None
    assert shift.upper is None
    assert shift.p_value is None
    assert 0 <= shift.value <= 1
    assert "unresolved" in str(shift)
    assert json.loads(json.dumps(shift.to_dict()))["debiased"] is None


def test_a_class_that_needs_all_its_groups_is_unresolved() -> None:
    """Where leaving out one group leaves nothing to multiply, there is too little data."""
    ids = [0, 1]
    assert group(0, GROUPS) != group(1, GROUPS)
    values = np.array([[1.0, 0.1], [1.0, -0.1]])
    shift = shift_of(
        (values, np.zeros(2, int), np.array(ids)), (values, np.zeros(2, int), np.array(ids))
    )
    assert shift.unresolved == ("0",)


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_class_that_sums_to_zero(sides: tuple[Data, Data], side: str) -> None:
    """The zero vector has no direction; class and side are named."""
    dead = list(sides)
    place = ["old", "new"].index(side)
    values, labels, ids = sides[place]
    dead[place] = (np.where(labels[:, None] == 1, 0.0, values), labels, ids)
    with pytest.raises(resque.InputError, match=f"class '1' on the {side} side .* zero vector"):
        shift_of(*dead)


# --- predicted labels ---------------------------------------------------------------------------


@pytest.fixture
def nearest_centre(labelled: Any) -> tuple[nn.Module, np.ndarray]:
    """A model whose class scores order the classes by distance to their centres (3, 6)."""
    inputs, labels = labelled
    centres = np.stack([inputs[labels == k].mean(0) for k in range(3)]).astype(np.float64)
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(centres))
        model[1].bias.copy_(torch.tensor(-(centres**2).sum(1) / 2))
    return model, centres


def predicted(inputs: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return distance.cdist(inputs, centres).argmin(1)


def test_predicted_labels_are_used_on_both_sides(
    labelled: Any, nearest_centre: tuple[nn.Module, np.ndarray], rng: np.random.Generator
) -> None:
    """labels="predicted" is the index of the predictions, and says what that costs."""
    model, centres = nearest_centre
    inputs, labels = labelled[0].astype(np.float64), labelled[1]
    after = inputs + rng.normal(0, 2, inputs.shape)
    found = resque.shift_index(
        resque.profile(model, (inputs, labels)),
        resque.profile(model, after),
        labels="predicted",
    )
    by_prediction = [resque.profile(None, (z, predicted(z, centres))) for z in (inputs, after)]
    assert_same_numbers(resque.shift_index(*by_prediction), found)
    assert found.labels == "predicted"
    offset = published_index((inputs, labels), (inputs, predicted(inputs, centres)))
    right = float((predicted(inputs, centres) == labels).mean())
    assert offset > 0
    assert right < 1
    scores = after @ centres.T - (centres**2).sum(1) / 2
    cost = found.label_cost
    # arccos of a small angle: the offset of well separated classes is of order 1e-3.
    assert offset == pytest.approx(cost.offset, rel=1e-6)
    assert right == cost.accuracy_before
    assert softmax(scores, axis=1).max(1).mean() == pytest.approx(cost.confidence_after, rel=1e-9)
    text = "\n".join(found.warnings)
    assert "predicted labels" in text
    assert f"{right:.1%}" in text
    assert f"{cost.offset:.4f}" in text
    assert f"{cost.confidence_after:.1%}" in text
    told = json.loads(json.dumps(found.to_dict()))
    assert told["labels"] == "predicted"
    assert told["label_cost"] == dataclasses.asdict(cost)


def test_true_labels_cost_nothing(sides: tuple[Data, Data]) -> None:
    """With true labels there is no label cost."""
    shift = shift_of(*sides)
    assert shift.labels == "true"
    assert shift.label_cost is None
    assert shift.to_dict()["label_cost"] is None


def test_what_predictions_cost_is_unknown_without_old_labels(
    labelled: Any, nearest_centre: tuple[nn.Module, np.ndarray]
) -> None:
    """Where the old data have no labels either, nothing is claimed about the predictions."""
    part = resque.profile(nearest_centre[0], labelled[0].astype(np.float64))
    found = resque.shift_index(part, part, labels="predicted")
    assert found.label_cost.offset is None
    assert found.label_cost.accuracy_before is None
    assert found.label_cost.confidence_after == part.outputs.mean_confidence
    assert any("not known, for lack of labels" in text for text in found.warnings)


@pytest.mark.parametrize("side", ["old", "new"])
def test_unlabelled_data_with_true_labels(
    labelled: Any, nearest_centre: tuple[nn.Module, np.ndarray], side: str
) -> None:
    """Labels are never guessed: the message says which side has none and what to do."""
    inputs, labels = labelled[0].astype(np.float64), labelled[1]
    both = {
        "old": resque.profile(nearest_centre[0], (inputs, labels)),
        "new": resque.profile(nearest_centre[0], (inputs, labels)),
    }
    both[side] = resque.profile(nearest_centre[0], inputs)
    with pytest.raises(resque.InputError, match=f"The {side} data have no labels.*'predicted'"):
        resque.shift_index(both["old"], both["new"])


def test_predicted_labels_need_predictions(sides: tuple[Data, Data]) -> None:
    """Without a model there is nothing to predict with."""
    with pytest.raises(resque.InputError, match="profile of the old data has no predictions"):
        shift_of(*sides, labels="predicted")


def test_labels_of_a_third_kind(sides: tuple[Data, Data]) -> None:
    """The message has what was given."""
    with pytest.raises(resque.InputError, match="'true' or 'predicted'; got 'soft'"):
        shift_of(*sides, labels="soft")


# --- comparability ------------------------------------------------------------------------------


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def images(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (60, 1, 8, 8) and labels (60,) of 3 classes."""
    return rng.normal(size=(60, 1, 8, 8)).astype(np.float32), np.arange(60) % 3


@pytest.mark.parametrize(
    ("seed", "options", "words"),
    [
        (1, {}, r"weights \([0-9a-f]{16} and [0-9a-f]{16}\)"),
        (0, {"layer": "1"}, r"layer \(0 and 1\)"),
        (0, {"pooling": "flatten"}, r"pooling \(mean and flatten\); width \(4 and 144\)"),
        (0, {"preprocessing": "cropped"}, r"preprocessing \(as is and cropped\)"),
    ],
)
def test_profiles_of_different_making_are_not_compared(
    images: tuple[np.ndarray, np.ndarray], seed: int, options: dict[str, Any], words: str
) -> None:
    """Other weights under one name, another layer, pooling or preprocessing: said and refused."""
    standard = {"layer": "0", "preprocessing": "as is", "model_name": "small"}
    before = resque.profile(small_model(), images, **standard)
    after = resque.profile(small_model(seed), images, **{**standard, **options})
    with pytest.raises(resque.NotComparableError, match=words):
        resque.shift_index(before, after)


def test_representations_of_different_widths_are_not_compared(sides: tuple[Data, Data]) -> None:
    """Vectors of 5 and of 4 values have no angle."""
    before, after = sides
    with pytest.raises(resque.NotComparableError, match=r"width \(5 and 4\)"):
        shift_of(before, transformed(after, lambda z: z[:, :4]))


def test_different_numbers_of_groups_are_not_compared(sides: tuple[Data, Data]) -> None:
    """Groups pair off, so there must be as many on each side."""
    with pytest.raises(resque.NotComparableError, match="8 and 16 groups"):
        resque.shift_index(profile_of(sides[0]), profile_of(sides[1], groups=16))


def test_an_empty_profile_is_not_compared(sides: tuple[Data, Data]) -> None:
    """The neutral element of addition is no data set."""
    nothing = resque.ClassProfile.empty()
    for pair in ((nothing, profile_of(sides[0])), (profile_of(sides[0]), nothing)):
        with pytest.raises(resque.InputError, match="empty profile"):
            resque.shift_index(*pair)


def test_preprocessing_stated_on_one_side_only(sides: tuple[Data, Data]) -> None:
    """What is not stated is not a difference, but it is said."""
    shift = resque.shift_index(profile_of(sides[0], preprocessing="cropped"), profile_of(sides[1]))
    assert any("does not state its preprocessing" in text for text in shift.warnings)
    assert shift.signature.preprocessing == "cropped"
    unstated = shift_of(*sides)
    assert not any("preprocessing" in text for text in unstated.warnings)


def test_notes_of_the_profiles_become_warnings(
    sides: tuple[Data, Data], images: tuple[np.ndarray, np.ndarray]
) -> None:
    """What a profile has to say about its data is said again by every index made of it."""
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*map(torch.tensor, images)), shuffle=True
    )
    part = resque.profile(small_model(), loader)
    assert part.notes[0] in resque.shift_index(part, part).warnings


def test_indices_are_ordered_by_value(sides: tuple[Data, Data]) -> None:
    """Comparable indices compare as their values do."""
    before, (values, labels, ids) = sides
    near = shift_of(before, before)
    far = shift_of(before, (values + 1, labels, ids))
    assert near < far
    assert far > near
    assert not far < near
    assert [near, far] == sorted([far, near])


def test_indices_that_are_not_comparable_are_not_ordered(
    sides: tuple[Data, Data],
    labelled: Any,
    nearest_centre: tuple[nn.Module, np.ndarray],
) -> None:
    """Of different widths, weights or kinds of labels none is the smaller; nor of no index."""
    one = shift_of(*sides)
    part = resque.profile(nearest_centre[0], (labelled[0].astype(np.float64), labelled[1]))
    true, guessed = (resque.shift_index(part, part, labels=kind) for kind in ("true", "predicted"))
    with pytest.raises(resque.NotComparableError, match=r"width \(5 and 6\)"):
        one < true  # noqa: B015  # the comparison itself raises
    with pytest.raises(resque.NotComparableError, match=r"true labels.*predicted"):
        true < guessed  # noqa: B015
    with pytest.raises(TypeError, match="float"):
        one < 0.3  # noqa: B015


# --- the result ---------------------------------------------------------------------------------


def test_the_result_is_plain_json(sides: tuple[Data, Data]) -> None:
    """The dict has every promised key, in types that JSON knows, and the object's numbers."""
    shift = shift_of(*sides)
    told = json.loads(json.dumps(shift.to_dict(), allow_nan=False))
    promised = {
        "index", "value", "floor", "debiased", "lower", "upper", "confidence_level", "p_value",
        "classes", "examples_before", "examples_after", "per_class", "warnings", "signature",
    }  # fmt: skip
    assert promised <= told.keys()
    assert told["index"] == "RESQUE_dist"
    assert told["classes"] == 3
    assert told["examples_before"] == 63
    assert told["examples_after"] == 59
    assert told["per_class"] == shift.per_class
    for name in ("value", "floor", "debiased", "lower", "upper", "confidence_level", "p_value"):
        assert getattr(shift, name) == told[name]
    assert told["signature"]["index"] == "RESQUE_dist"
    assert told["signature"]["examples"] == [63, 59]


def test_the_result_prints_value_interval_and_signature(sides: tuple[Data, Data]) -> None:
    """No number without its interval and its signature."""
    shift = shift_of(*sides)
    text = str(shift)
    for number in (shift.value, shift.floor, shift.debiased, shift.lower, shift.upper):
        assert f"{number:.4f}" in text
    assert "90%" in text
    assert str(shift.signature) in text
    assert "classes:3|examples:63/59" in text


def test_the_largest_contributions_come_first(sides: tuple[Data, Data]) -> None:
    """Shares are of the classes' raw values, add up to 1, and come in falling order."""
    shift = shift_of(*sides)
    total = sum(shift.per_class.values())
    expected = sorted(shift.per_class, key=lambda name: -shift.per_class[name])
    assert expected == list(shift.contributions)
    for name, share in shift.contributions.items():
        assert shift.per_class[name] / total == pytest.approx(share)


# --- examples needed, equation (9) --------------------------------------------------------------


def test_examples_needed_by_hand() -> None:
    """With equal sides of ratio r, cos(pi x) = 1 / (1 + r / n) is solved by hand."""
    mu, e = np.array([3.0, 0, 0]), np.array([0, 1.0, 0])
    data = np.stack([mu + e, mu - e]), np.zeros(2, int)
    part = resque.profile(None, data, ids=["one scene"] * 2)
    r = 2 * 1 / (9 - 1)
    for wanted in (0.3, 0.05, 0.01, 0.0013):
        expected = math.ceil(r / (1 / math.cos(math.pi * wanted) - 1))
        assert {"0": expected} == resque.examples_needed(part, wanted)


@pytest.mark.parametrize("wanted", [0.2, 0.05, 0.01, 0.002])
def test_examples_needed_is_the_smallest_number(sides: tuple[Data, Data], wanted: float) -> None:
    """The floor at the answer is at most what was wanted, and at one example less above it."""
    before, _ = sides
    needed = resque.examples_needed(profile_of(before), wanted)
    assert set(needed) == {"0", "1", "2"}
    for name, (side, _) in by_class(before, before).items():
        told, n = spread_and_directions(side), needed[name]
        assert floor_of_sizes(told, told, (n, n)) <= wanted
        assert n == 1 or wanted < floor_of_sizes(told, told, (n - 1, n - 1))


def test_examples_needed_keeps_its_promise(rng: np.random.Generator) -> None:
    """Data of the size that was asked for have about the floor that was wanted."""
    means = rng.normal(size=(3, 30)) / math.sqrt(30)

    def drawn(n: int) -> resque.ClassProfile:
        labels = np.arange(3 * n) % 3
        return resque.profile(None, (means[labels] + rng.normal(size=(3 * n, 30)) / 5, labels))

    wanted = 0.02
    n = max(resque.examples_needed(drawn(100), wanted).values())
    assert n > 100
    found = resque.shift_index(drawn(n), drawn(n))
    # The largest of three classes' numbers, from estimates that are good to some percent.
    assert 0.8 * wanted < found.floor < 1.05 * wanted


def test_examples_needed_where_one_is_enough() -> None:
    """Examples without noise need no company."""
    before, _ = without_noise(0.1)
    assert resque.examples_needed(profile_of(before), 0.001) == {"0": 1, "1": 1}


def test_examples_needed_of_unresolved_and_absent_classes() -> None:
    """A class that is not resolved gets None; one without examples is not in the answer."""
    values = np.array([[1.0, 0], [-1.0, 0.1], [3.0, 1], [3.0, 1.1]])
    part = resque.profile(None, (values, np.array([0, 0, 2, 2])), class_names=["a", "b", "c"])
    needed = resque.examples_needed(part, 0.01)
    assert needed.keys() == {"a", "c"}
    assert needed["a"] is None
    assert needed["c"] >= 1


@pytest.mark.parametrize("wanted", [0, 0.5, -0.1, 2, math.nan])
def test_examples_needed_for_a_floor_that_cannot_be(
    sides: tuple[Data, Data], wanted: float
) -> None:
    """A floor lies between 0 and 0.5; the message has the one given."""
    with pytest.raises(resque.InputError, match=f"above 0 and below 0.5; got {wanted}"):
        resque.examples_needed(profile_of(sides[0]), wanted)


def test_examples_needed_of_nothing() -> None:
    """An empty profile says nothing about any data."""
    with pytest.raises(resque.InputError, match="empty"):
        resque.examples_needed(resque.ClassProfile.empty(), 0.01)


def test_the_models_accuracy_stands_beside_the_index(mlp: torch.nn.Module) -> None:
    """It comes from the same pass, and falls where labels no longer fit."""
    inputs = np.random.default_rng(3).normal(size=(90, 6)).astype(np.float32)
    with torch.no_grad():
        labels = mlp(torch.from_numpy(inputs)).argmax(1).numpy()
    names = ["a", "b", "c"]
    before = resque.profile(mlp, (inputs, labels), class_names=names)
    after = resque.profile(mlp, (inputs, (labels + 1) % 3), class_names=names)
    shift = resque.shift_index(before, after)
    assert (1.0, 0.0) == (shift.accuracy_before, shift.accuracy_after)
    assert "1.0000 on the old data, 0.0000 on the new" in str(shift)
    assert (1.0, 0.0) == (shift.to_dict()["accuracy_before"], shift.to_dict()["accuracy_after"])


def test_only_profiles_are_compared() -> None:
    """The name of a file is no profile; what reads one is named."""
    with pytest.raises(resque.InputError, match=r"got a str.*load_profile"):
        resque.shift_index("a.safetensors", "b.safetensors")  # type: ignore[arg-type]
