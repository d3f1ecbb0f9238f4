"""What one pass leaves behind: its sums, its laws of addition, its file, its refusals."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import pickle
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.special import log_softmax, softmax
from scipy.stats import chi2, entropy
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import resque
from reference import group
from resque.index import accumulation
from resque.index.profile import ClassProfile
from resque.index.sums import CONFIDENCE_BINS, groups_of
from strategies import Labelled, cuts, labelled_representations

# Small, because every example of the property tests runs real passes.
laws = settings(deadline=None, max_examples=60)

PER_CLASS_COUNTS = ("counts", "correct")
PER_CLASS_SUMS = ("loss", "confidence", "entropy")


def assert_same_profile(expected: ClassProfile, actual: ClassProfile, *, rounding: float) -> None:
    """Counts must be equal; sums may differ by `rounding` times the magnitude of what they add."""
    assert expected.class_names == actual.class_names
    assert expected.signature == actual.signature
    assert expected.notes == actual.notes
    for part, counts, sums in (
        ("by_label", ("counts",), ("sums", "squares")),
        ("by_prediction", ("counts",), ("sums", "squares")),
        ("outputs", (*PER_CLASS_COUNTS, "histogram"), PER_CLASS_SUMS),
    ):
        mine, theirs = getattr(expected, part), getattr(actual, part)
        assert (mine is None) == (theirs is None), part
        if mine is None:
            continue
        for name in counts:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), part)
        for name in sums:
            want, got = getattr(mine, name), getattr(theirs, name)
            assert got.dtype == np.float64
            # Sums of representations cancel, so their size says nothing of what was added: sum |z|
            # is at most sqrt(n sum z^2), by Cauchy and Schwarz. The others add what is above 0.
            added = (
                math.sqrt(expected.examples * mine.squares.sum())
                if name == "sums"
                else float(want.sum())
            )
            np.testing.assert_allclose(got, want, rtol=0, atol=rounding * added)
    if expected.outputs is not None and actual.outputs is not None:
        assert expected.outputs.labelled == actual.outputs.labelled


# Two sums of 24 doubles differ by at most 2 * 24 * 2^-53 = 5e-15 of the sum of their magnitudes.
# The class scores of an example round differently in batches of different sizes, which adds a few
# more; a defect would show in the first digits.
ROUNDING = 1e-12


# --- one pass -----------------------------------------------------------------------------------


def test_counts_sums_and_squares_by_hand() -> None:
    """Each example adds itself to the cell of its class and of its id's group."""
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0], [0.5, 0.25]])
    labels = np.array([0, 1, 0, 0])
    ids = ["a", "b", "c", "a"]
    found = resque.profile(None, (values, labels), ids=ids, groups=4).by_label
    counts, sums, squares = np.zeros((2, 4), int), np.zeros((2, 4, 2)), np.zeros((2, 4))
    for value, label, one in zip(values, labels, ids, strict=True):
        counts[label, group(one, 4)] += 1
        sums[label, group(one, 4)] += value
        squares[label, group(one, 4)] += (value**2).sum()
    np.testing.assert_array_equal(counts, found.counts)
    np.testing.assert_allclose(found.sums, sums, rtol=1e-15)
    np.testing.assert_allclose(found.squares, squares, rtol=1e-15)
    assert squares.sum() == pytest.approx(5 + 25 + 61 + 0.3125)


def test_float32_is_summed_in_float64() -> None:
    """A million-fold range of float32 values loses nothing to a float32 sum."""
    values = np.array([[1e8], [1.0], [1.0], [1.0]], np.float32)
    found = resque.profile(None, (values, np.zeros(4, int)))
    assert found.by_label.sums.dtype == np.float64
    assert found.by_label.sums.sum() == 1e8 + 3
    assert found.signature.dtype == "float32"


def test_places_are_the_default_ids(rng: np.random.Generator) -> None:
    """Without ids an example's id is its place in the data, whatever the batches."""
    values, labels = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    named = resque.profile(None, (values, labels), ids=np.arange(50))
    for batch_size in (1, 7, 64):
        placed = resque.profile(None, (values, labels), batch_size=batch_size)
        assert_same_profile(named, placed, rounding=ROUNDING)


def test_classes_come_in_natural_order() -> None:
    """Classes that only their labels name come as 2, 10 and not as 10, 2."""
    found = resque.profile(None, (np.eye(3), np.array([10, 2, 7])))
    assert found.class_names == ("2", "7", "10")
    assert found.counts == {"2": 1, "7": 1, "10": 1}
    # The row of class "10" is the one of the example that has it.
    np.testing.assert_array_equal([1, 0, 0], found.by_label.sums[2].sum(0))


def test_given_names_keep_their_order() -> None:
    """Names given for the labels stay in the order given, also where a class has no example."""
    found = resque.profile(None, (np.eye(2), np.array([2, 0])), class_names=["cat", "bee", "ant"])
    assert found.class_names == ("cat", "bee", "ant")
    assert found.counts == {"cat": 1, "bee": 0, "ant": 1}


def test_profile_prints_what_it_is_and_where_it_comes_from(mlp: nn.Module, labelled: Any) -> None:
    """The text has the examples, the accuracy and the signature; the dict is plain JSON."""
    found = resque.profile(mlp, labelled, model_name="small", preprocessing="none")
    text = str(found)
    assert "240 examples in 3 classes" in text
    assert f"accuracy {found.outputs.accuracy:.4f}" in text
    assert "model:small" in text
    told = json.loads(json.dumps(found.to_dict()))
    assert told["examples"] == 240
    assert told["class_counts"] == {"0": 80, "1": 80, "2": 80}
    assert told["outputs"]["accuracy"] == found.outputs.accuracy
    assert told["signature"]["preprocessing"] == "none"


# --- groups -------------------------------------------------------------------------------------


def test_integer_ids_are_hashed_by_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 0 and 1234567 are known; the hash is theirs."""
    # From the reference implementation by S. Vigna, https://prng.di.unimi.it/splitmix64.c
    known = {0: 0xE220A8397B1DCDAF, 1234567: 6457827717110365317}
    for example, output in known.items():
        for groups in (2, 16, 64, 63):
            assert [output % groups] == groups_of(np.array([example]), groups).tolist()


@laws
@given(
    ids=st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1),
    ),
    groups=st.integers(2, 64),
)
def test_groups_match_plain_integers(ids: list[Any], groups: int) -> None:
    """Wrapped 64-bit arithmetic gives what unbounded integers modulo 2^64 give."""
    assert [group(one, groups) for one in ids] == groups_of(np.array(ids), groups).tolist()


@pytest.mark.parametrize("ids", [np.arange(16000), [f"image{i:05d}.png" for i in range(16000)]])
def test_groups_are_even(ids: Any) -> None:
    """Consecutive ids fall into all groups alike, by a chi-square test."""
    counts = np.bincount(groups_of(np.asarray(ids), 16), minlength=16)
    # The ids are fixed, so this either holds for ever or never; 0.1 % is no close call.
    assert ((counts - 1000) ** 2 / 1000).sum() < chi2(15).isf(0.001)


def test_the_same_id_falls_into_the_same_group_of_both_sides() -> None:
    """A group depends on the id alone: not on the place, the label, or the other ids."""
    one = resque.profile(None, (np.eye(3), np.array([0, 1, 1])), ids=["x", "y", "z"])
    two = resque.profile(None, (np.eye(3), np.array([1, 1, 0])), ids=["z", "w", "x"])
    assert one.by_label.counts[0].argmax() == two.by_label.counts[0].argmax() == group("x", 16)
    assert one.by_label.counts[1, group("z", 16)] >= 1
    assert two.by_label.counts[1, group("z", 16)] >= 1


# --- the laws of addition -----------------------------------------------------------------------


def scoring_model(width: int, classes: int) -> nn.Module:
    """A classifier of generated values; in float64, whose rounding hardly depends on the batch."""
    generator = torch.Generator().manual_seed(7)
    model = nn.Sequential(nn.Identity(), nn.Linear(width, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Small, so that the probabilities of values up to 1e6 are not all 0 or 1.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1e-3)
    return model


def profile_of(data: Labelled, places: np.ndarray | None = None, kind: str = "plain") -> Any:
    """Return the profile of some of the examples; of none, the empty one.

    Args:
        data: the data set.
        places: which of its examples; None for all.
        kind: "plain", "named" with names for all labels, "scored" also with a model, "unlabelled"
            with the model's predictions alone.
    """
    if places is None:
        places = np.arange(len(data))
    if not len(places):
        return ClassProfile.empty()
    values = data.representations[places].astype(np.float64)
    names = None if kind == "plain" else ["d", "c", "b", "a"]
    scored = kind in ("scored", "unlabelled")
    return resque.profile(
        scoring_model(values.shape[1], 4) if scored else None,
        (values,) if kind == "unlabelled" else (values, data.labels[places]),
        class_names=names,
        ids=data.ids[places],
        groups=5,
    )


KINDS = ["plain", "named", "scored", "unlabelled"]


@pytest.mark.parametrize("kind", KINDS)
@laws
@given(source=st.data(), data=labelled_representations())
def test_a_profile_does_not_depend_on_how_the_data_are_cut(
    kind: str, source: st.DataObject, data: Labelled
) -> None:
    """Parts of any size, empty and one-row ones too, in any order, add up to the whole."""
    parts = [profile_of(data, places, kind) for places in source.draw(cuts(len(data)))]
    assert_same_profile(profile_of(data, kind=kind), sum(parts), rounding=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
@laws
@given(source=st.data(), data=labelled_representations())
def test_addition_is_commutative_and_associative(
    kind: str, source: st.DataObject, data: Labelled
) -> None:
    """a + b is b + a exactly, and (a + b) + c is a + (b + c) to rounding."""
    places = [*source.draw(cuts(len(data))), *[np.arange(0)] * 3]
    a, b, c = (profile_of(data, part, kind) for part in places[:3])
    if len(places[0]) or len(places[1]):
        assert_same_profile(a + b, b + a, rounding=0)
    if any(map(len, places[:3])):
        assert_same_profile((a + b) + c, a + (b + c), rounding=ROUNDING)


@laws
@given(data=labelled_representations(), kind=st.sampled_from(KINDS))
def test_the_empty_profile_is_neutral(data: Labelled, kind: str) -> None:
    """Adding the empty profile on either side changes nothing, and two of it stay empty."""
    whole = profile_of(data, kind=kind)
    assert_same_profile(whole, ClassProfile.empty() + whole, rounding=0)
    assert_same_profile(whole, whole + ClassProfile.empty(), rounding=0)
    nothing = ClassProfile.empty() + ClassProfile.empty()
    assert nothing.examples == 0
    assert nothing.counts == {}
    assert nothing.signature is None


@laws
@given(source=st.data(), data=labelled_representations(), kind=st.sampled_from(KINDS))
def test_addition_leaves_its_arguments_alone(
    source: st.DataObject, data: Labelled, kind: str
) -> None:
    """After a sum both summands are what they were, and can be summed again."""
    places = [part for part in source.draw(cuts(len(data))) if len(part)]
    parts = [profile_of(data, part, kind) for part in places]
    kept = copy.deepcopy(parts)
    first, again = sum(parts), sum(parts)
    for part, was in zip(parts, kept, strict=True):
        assert_same_profile(was, part, rounding=0)
    assert_same_profile(first, again, rounding=0)


def test_a_sum_shares_no_array_with_its_parts(labelled: Any) -> None:
    """Writing into the arrays of a sum reaches none of its parts."""
    part = resque.profile(None, labelled)
    total = part + part
    total.by_label.sums[:] = 0
    assert part.by_label.sums.any()


def test_classes_of_some_parts_only() -> None:
    """A sum has the classes of all its parts, in natural order, each with its own examples."""
    values = np.arange(12.0).reshape(6, 2)
    one = resque.profile(None, (values[:2], np.array([10, 2])), ids=[0, 1])
    two = resque.profile(None, (values[2:], np.array([7, 7, 2, 11])), ids=[2, 3, 4, 5])
    total = one + two
    assert total.class_names == ("2", "7", "10", "11")
    assert total.counts == {"2": 2, "7": 2, "10": 1, "11": 1}
    np.testing.assert_array_equal(
        [values[[1, 4]].sum(0), values[[2, 3]].sum(0), values[0], values[5]],
        total.by_label.sums.sum(1),
    )


def test_the_same_classes_in_another_order(mlp: nn.Module, labelled: Any) -> None:
    """Parts that number the same classes differently add up by name, their outputs too."""
    inputs, labels = labelled
    one = resque.profile(mlp, (inputs, labels), class_names=["a", "b", "c"])
    # The head of this model is that of the other one, with its rows in the order of these names.
    turned = copy.deepcopy(mlp)
    with torch.no_grad():
        for parameter in turned[2].parameters():
            parameter.copy_(parameter[[2, 0, 1]])
    new_number = np.array([1, 2, 0])
    two = resque.profile(turned, (inputs, new_number[labels]), class_names=["c", "a", "b"])
    total = one + two
    assert total.class_names == ("a", "b", "c")
    for part in ("by_label", "by_prediction"):
        np.testing.assert_array_equal(2 * getattr(one, part).counts, getattr(total, part).counts)
    np.testing.assert_allclose(total.by_label.sums, 2 * one.by_label.sums, rtol=1e-12)
    np.testing.assert_array_equal(2 * one.outputs.correct, total.outputs.correct)
    np.testing.assert_allclose(total.outputs.loss, 2 * one.outputs.loss, rtol=1e-5)  # float32


def test_outputs_survive_only_where_all_parts_have_them(mlp: nn.Module, labelled: Any) -> None:
    """What the model's output says of a part is not passed off as said of the whole."""
    inputs, labels = labelled
    three = resque.profile(mlp, (inputs, labels))
    two = resque.profile(mlp, (inputs, labels % 2))  # three scores for two classes say nothing
    assert two.outputs is None
    total = three + two
    assert total.outputs is None
    assert total.by_prediction is None
    assert total.counts == {"0": 240, "1": 160, "2": 80}


def test_a_sum_states_only_what_all_parts_state(mlp: nn.Module, labelled: Any) -> None:
    """Examples add up; names, notes and unknown preprocessing are carried along."""
    inputs, labels = labelled
    shuffled = DataLoader(TensorDataset(torch.tensor(inputs), torch.tensor(labels)), shuffle=True)
    one = resque.profile(mlp, (inputs, labels), model_name="one", preprocessing="centred")
    two = resque.profile(mlp, shuffled, model_name="two")
    total = one + two
    assert total.examples == 480
    assert total.signature.model == "one; two"
    assert total.signature.preprocessing is None
    assert total.notes == two.notes
    assert "shuffles" in total.notes[0]


def test_only_profiles_can_be_added(labelled: Any) -> None:
    """Anything but a profile, or sum()'s 0, is refused as Python refuses it."""
    part = resque.profile(None, labelled)
    with pytest.raises(TypeError, match="int"):
        part + 3
    with pytest.raises(TypeError, match="str"):
        "3" + part


def changed(part: ClassProfile, **fields: Any) -> ClassProfile:
    return dataclasses.replace(part, signature=dataclasses.replace(part.signature, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": "ffff"}, "weights .* and ffff"),
        ({"layer": "2"}, "layer .* and 2"),
        ({"pooling": "flatten"}, "pooling .* and flatten"),
        ({"width": 99}, r"width \(8 and 99\)"),
        ({"preprocessing": "cropped"}, r"preprocessing \(as is and cropped\)"),
        ({"groups": 4}, "16 and 4 groups"),
    ],
)
def test_profiles_of_different_making_do_not_add_up(
    mlp: nn.Module, labelled: Any, fields: dict[str, Any], words: str
) -> None:
    """A sum over different weights, layers, poolings, widths, images or groups is refused."""
    part = resque.profile(mlp, labelled, preprocessing="as is")
    with pytest.raises(resque.NotComparableError, match=words):
        part + changed(part, **fields)


def test_labelled_and_unlabelled_do_not_add_up(mlp: nn.Module, labelled: Any) -> None:
    """A sum of labelled and unlabelled data would be neither, and is refused."""
    inputs, labels = labelled
    one = resque.profile(mlp, (inputs, labels))
    other = resque.profile(mlp, inputs)
    with pytest.raises(resque.NotComparableError, match="labelled"):
        one + other


# --- what the model's own output says -----------------------------------------------------------


@pytest.fixture
def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Class scores (200, 4) and labels (200,) that agree more often than by chance."""
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(0, 2, (200, 4))
    logits[np.arange(200), labels] += 1.5
    return logits, labels


def outputs_of(given_scores: np.ndarray, labels: np.ndarray | None, **options: Any) -> Any:
    """Return the statistics of a model whose output is its input."""
    data = (given_scores,) if labels is None else (given_scores, labels)
    return resque.profile(nn.Sequential(nn.Identity()), data, layer="0", **options).outputs


def assert_tells(told: Any, logits: np.ndarray, labels: np.ndarray) -> None:
    """Compare with SciPy and scikit-learn, and with a loop over examples."""
    probabilities = softmax(logits, axis=1)
    predicted = probabilities.argmax(1)
    assert told.labelled
    assert accuracy_score(labels, predicted) == told.accuracy
    assert log_loss(labels, probabilities) == pytest.approx(told.mean_loss, rel=1e-12)
    assert probabilities.max(1).mean() == pytest.approx(told.mean_confidence, rel=1e-12)
    assert entropy(probabilities, axis=1).mean() == pytest.approx(told.mean_entropy, rel=1e-12)
    histogram = Counter()
    per_class = {name: np.zeros(4) for name in (*PER_CLASS_COUNTS, *PER_CLASS_SUMS)}
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        right = row.index(confidence) == label
        histogram[int(right), min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1
        per_class["counts"][label] += 1
        per_class["correct"][label] += right
        per_class["loss"][label] -= math.log(row[label])
        per_class["confidence"][label] += confidence
        per_class["entropy"][label] -= sum(p * math.log(p) for p in row)
    assert dict(histogram) == {
        (int(right), int(place)): told.histogram[right, place]
        for right, place in zip(*told.histogram.nonzero(), strict=True)
    }
    for name, expected in per_class.items():
        np.testing.assert_allclose(getattr(told, name), expected, rtol=1e-12)


def test_outputs_against_scipy_and_scikit_learn(scores: tuple[np.ndarray, np.ndarray]) -> None:
    """Accuracy, loss, confidence, entropy and histogram are those of independent code."""
    assert_tells(outputs_of(*scores), *scores)


def test_probabilities_and_log_probabilities_say_what_logits_say(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    """A model that ends in a softmax or a log-softmax is read as what it is."""
    logits, labels = scores
    assert_tells(outputs_of(softmax(logits, axis=1), labels), logits, labels)
    assert_tells(outputs_of(log_softmax(logits, axis=1), labels), logits, labels)


def test_certain_probabilities_give_finite_numbers() -> None:
    """Probabilities of exactly 0 and 1 have no entropy, and a mistake costs a finite loss."""
    told = outputs_of(np.eye(3), np.array([0, 1, 0]), class_names=["a", "b", "c"])
    assert told.mean_entropy == pytest.approx(0, abs=1e-12)
    assert told.mean_confidence == pytest.approx(1)
    assert told.accuracy == pytest.approx(2 / 3)
    # -log(1e-300): the least probability that a loss is computed from.
    assert told.loss.tolist() == pytest.approx([300 * math.log(10), 0, 0], abs=1e-12)
    assert told.histogram[1, -1] == 2
    assert told.histogram[0, -1] == 1


def test_large_logits_overflow_nothing() -> None:
    """Logits of 1e4 have an ordinary loss: their difference."""
    told = outputs_of(np.array([[1e4, 0.0], [1e4, 0.0]]), np.array([0, 1]))
    assert told.loss.tolist() == [0.0, 1e4]
    assert told.mean_entropy == 0


def test_outputs_without_labels(scores: tuple[np.ndarray, np.ndarray]) -> None:
    """Without labels accuracy and loss are unknown, and classes are the predicted ones."""
    logits, _ = scores
    told = outputs_of(logits, None)
    predicted = logits.argmax(1)
    assert not told.labelled
    assert told.accuracy is None
    assert told.mean_loss is None
    assert told.counts.tolist() == np.bincount(predicted, minlength=4).tolist()
    assert told.histogram[0].sum() == 200
    assert told.histogram[1].sum() == 0
    assert softmax(logits, axis=1).max(1).mean() == pytest.approx(told.mean_confidence)


def test_by_prediction_is_by_label_of_the_predictions(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    """The sums by prediction are those that the predictions give as labels."""
    logits, labels = scores
    found = resque.profile(nn.Sequential(nn.Identity()), (logits, labels), layer="0")
    expected = resque.profile(None, (logits, logits.argmax(1))).by_label
    np.testing.assert_array_equal(expected.counts, found.by_prediction.counts)
    np.testing.assert_allclose(found.by_prediction.sums, expected.sums, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.by_prediction.squares, expected.squares, rtol=1e-13)


def test_a_head_for_other_classes_says_nothing(scores: tuple[np.ndarray, np.ndarray]) -> None:
    """Scores for more classes than the data have, or for classes of other names, are not read."""
    logits, labels = scores
    assert outputs_of(logits, labels % 3) is None
    model = nn.Sequential(nn.Identity())
    model.config = SimpleNamespace(id2label={0: "cat", 1: "dog", 2: "elk", 3: "fox"})
    assert resque.profile(model, (logits, labels), layer="0").outputs is None
    named = resque.profile(
        model, (logits, labels), layer="0", class_names=["cat", "dog", "elk", "fox"]
    )
    assert named.outputs is not None
    model.config = SimpleNamespace(id2label={k: f"LABEL_{k}" for k in range(4)})
    assert resque.profile(model, (logits, labels), layer="0").outputs is not None


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 65])
def test_groups_out_of_range(labelled: Any, groups: int) -> None:
    """Fewer than 2 or more than 64 groups are refused, with the number given."""
    with pytest.raises(resque.InputError, match=f"3 to 64; got {groups}"):
        resque.profile(None, labelled, groups=groups)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_its_example(labelled: Any, bad: float) -> None:
    """The message counts from the start of the data, not of the batch."""
    inputs, labels = labelled
    inputs[137, 2] = bad
    with pytest.raises(resque.InputError, match="example 137 contains NaN or infinity"):
        resque.profile(None, (inputs, labels), batch_size=50)


def test_an_output_that_is_not_finite_names_its_example(labelled: Any) -> None:
    """A finite representation with an infinite class score is refused too."""
    inputs, labels = labelled
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].bias[0] = torch.inf
    with pytest.raises(resque.InputError, match="example 0 contains NaN or infinity"):
        resque.profile(model, (inputs, labels))


def test_squares_beyond_float64_are_refused() -> None:
    """A value whose square overflows is no number to compute with."""
    with pytest.raises(resque.InputError, match="example 1 contains"):
        resque.profile(None, (np.array([[1.0], [1e200]]), np.array([0, 1])))


def test_a_label_without_a_name(labelled: Any) -> None:
    """A label beyond the class names is named with its example."""
    inputs, labels = labelled
    labels = labels.copy()
    labels[101] = 7
    with pytest.raises(resque.InputError, match=r"Label 7 of example 101 .* 3 class names"):
        resque.profile(None, (inputs, labels), class_names=["a", "b", "c"], batch_size=20)


def test_no_labels_and_no_predictions(labelled: Any) -> None:
    """Unlabelled representations belong to no class."""
    inputs, _ = labelled
    with pytest.raises(resque.InputError, match=r"no labels.*no class scores"):
        resque.profile(None, inputs)


def test_no_labels_and_a_head_for_other_classes(mlp: nn.Module, labelled: Any) -> None:
    """Three scores cannot stand in for the labels of two named classes."""
    inputs, _ = labelled
    with pytest.raises(resque.InputError, match=r"3 scores for 2 classes \(yes, no"):
        resque.profile(mlp, inputs, class_names=["yes", "no"])


def test_labels_in_some_batches_only(mlp: nn.Module) -> None:
    """Data must have labels throughout or not at all; the message names where that changes."""
    inputs, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    with pytest.raises(resque.InputError, match="starts at example 4 has no labels"):
        resque.profile(mlp, [(inputs, labels), (inputs,)])
    with pytest.raises(resque.InputError, match="starts at example 4 has labels"):
        resque.profile(mlp, [(inputs,), (inputs, labels)])


def test_a_large_profile_says_so_before_it_is_allocated() -> None:
    """102 GB are announced; warnings are errors here, so nothing tries to allocate them."""
    values, names = np.zeros((1, 100_000), np.float32), [str(k) for k in range(2000)]
    with pytest.raises(
        resque.ResqueWarning,
        match=r"102400 MB: 2000 classes x 64 groups x 100000 .*groups=32",
    ):
        resque.profile(None, (values, np.array([0])), class_names=names, groups=64)


def test_a_profile_that_grows_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that turn up on the way are counted too."""
    monkeypatch.setattr(accumulation, "LARGE_BYTES", 6 * 16 * 4 * 8)
    seen_later = [(np.ones((1, 4)), np.array([label])) for label in range(5)]
    resque.profile(None, seen_later[:2])
    with pytest.warns(resque.ResqueWarning, match="8 classes x 16 groups x 4 values"):
        resque.profile(None, seen_later)


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, mlp: nn.Module, labelled: Any) -> tuple[Path, ClassProfile]:
    """A profile with all its parts, and the file it was written to, alone in its folder."""
    whole = resque.profile(mlp, labelled, preprocessing="as is", class_names=["é", "b", "a"])
    path = tmp_path / "before.safetensors"
    whole.save(path)
    return path, whole


def test_a_saved_profile_comes_back_whole(saved: tuple[Path, ClassProfile]) -> None:
    """Every array, name and note and the signature survive the file, bit by bit."""
    path, whole = saved
    assert_same_profile(whole, resque.load_profile(path), rounding=0)
    assert [path] == list(path.parent.iterdir())


@laws
@given(data=labelled_representations(), kind=st.sampled_from(KINDS))
def test_any_profile_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, data: Labelled, kind: str
) -> None:
    """With or without labels and outputs, what is loaded is what was saved."""
    whole = profile_of(data, kind=kind)
    path = tmp_path_factory.mktemp("profiles") / "any.safetensors"
    whole.save(path)
    assert_same_profile(whole, resque.load_profile(path), rounding=0)


def test_a_loaded_profile_adds_up(saved: tuple[Path, ClassProfile]) -> None:
    """A profile from a file is as good a summand as one from a pass."""
    path, whole = saved
    assert_same_profile(whole + whole, resque.load_profile(path) + whole, rounding=0)


def test_saving_replaces_an_older_file(saved: tuple[Path, ClassProfile]) -> None:
    """The newer profile takes the place of the older one, and nothing else is left."""
    path, whole = saved
    (whole + whole).save(path)
    assert resque.load_profile(path).examples == 480
    assert [path] == list(path.parent.iterdir())


def test_an_empty_profile_is_not_saved(tmp_path: Path) -> None:
    """There is nothing to write, and so no file."""
    with pytest.raises(resque.InputError, match="empty profile"):
        ClassProfile.empty().save(tmp_path / "empty.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path: Path) -> None:
    """A path with nothing there, or a folder, is named."""
    with pytest.raises(resque.InputError, match=r"nothing at '.*nowhere\.safetensors'"):
        resque.load_profile(tmp_path / "nowhere.safetensors")
    with pytest.raises(resque.InputError, match="is a folder; expected a profile"):
        resque.load_profile(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_profile_is_refused(saved: tuple[Path, ClassProfile], kept: float) -> None:
    """Wherever the file ends too early, it is called damaged, by name."""
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(resque.InputError, match=r"before\.safetensors' is damaged \(.+\)"):
        resque.load_profile(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    """A text, a safetensors file of a model, and a profile of a later version are no profiles."""
    path = tmp_path / "other.safetensors"
    path.write_text("What a day for a profile!", encoding="utf-8")
    with pytest.raises(resque.InputError, match=r"other\.safetensors' is damaged"):
        resque.load_profile(path)
    for metadata, told in (
        (None, "None"),
        ({"format": "resque.ClassProfile/99"}, "'resque.ClassProfile/99'"),
    ):
        save_file({"weight": np.ones(3)}, path, metadata)
        with pytest.raises(resque.InputError, match=f"its format is {told}") as refusal:
            resque.load_profile(path)
        # The file is whole; it is only something else.
        assert "damaged" not in str(refusal.value)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    """A file that would run code when unpickled is damaged, and its code has not run."""
    path, trace = tmp_path / "before.safetensors", tmp_path / "trace"
    path.write_bytes(pickle.dumps(_Bomb(trace)))
    with pytest.raises(resque.InputError, match="damaged"):
        resque.load_profile(path)
    assert not trace.exists()


def rewritten(path: Path, tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write the file anew with some tensors and some metadata replaced, or dropped for None."""
    with safe_open(path, framework="numpy") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        texts = dict(file.metadata())
    kept = {name: value for name, value in {**kept, **tensors}.items() if value is not None}
    texts = {name: value for name, value in {**texts, **metadata}.items() if value is not None}
    save_file(kept, path, texts)


TENSORS = {
    "by_label.counts": (3, 16),
    "by_label.sums": (3, 16, 8),
    "by_label.squares": (3, 16),
    "by_prediction.counts": (3, 16),
    "by_prediction.sums": (3, 16, 8),
    "by_prediction.squares": (3, 16),
    "outputs.counts": (3,),
    "outputs.correct": (3,),
    "outputs.loss": (3,),
    "outputs.confidence": (3,),
    "outputs.entropy": (3,),
    "outputs.histogram": (2, 1000),
}


@pytest.mark.parametrize("name", TENSORS)
def test_arrays_of_the_wrong_shape_are_refused(saved: tuple[Path, ClassProfile], name: str) -> None:
    """An array that does not fit the signature is damage, found when the file is read."""
    path, _ = saved
    shape = TENSORS[name]
    integer = name.endswith(("counts", "correct", "histogram"))
    wrong = np.ones((shape[0] + 1, *shape[1:]), np.int64 if integer else np.float64)
    rewritten(path, {name: wrong}, {})
    with pytest.raises(resque.InputError, match=rf"damaged .*{name}"):
        resque.load_profile(path)


@pytest.mark.parametrize("name", [name for name in TENSORS if not name.endswith(".counts")])
def test_a_missing_array_is_refused(saved: tuple[Path, ClassProfile], name: str) -> None:
    """A profile without one of its arrays is damage, with the array's name."""
    path, _ = saved
    rewritten(path, {name: None}, {})
    with pytest.raises(resque.InputError, match=rf"damaged .*{name}"):
        resque.load_profile(path)


@pytest.mark.parametrize("name", ["by_label.sums", "by_prediction.squares", "outputs.loss"])
def test_arrays_that_are_not_finite_are_refused(
    saved: tuple[Path, ClassProfile], name: str
) -> None:
    """No pass leaves NaN behind, so a file that has one is damaged."""
    path, _ = saved
    rewritten(path, {name: np.full(TENSORS[name], np.nan)}, {})
    with pytest.raises(resque.InputError, match=rf"damaged .*{name}"):
        resque.load_profile(path)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("signature", None),
        ("signature", "{"),
        ("signature", "[]"),
        ("signature", '"text"'),
        ("signature", "null"),
        ("signature", '{"model": "m", "surplus": 1}'),
        ("notes", None),
        ("notes", "5"),
        ("notes", "["),
        ("labelled", None),
        ("labelled", "yes"),
    ],
)
def test_damaged_metadata_are_refused(
    saved: tuple[Path, ClassProfile], key: str, text: str | None
) -> None:
    """A signature or note that cannot be read is damage, not a traceback."""
    path, _ = saved
    rewritten(path, {}, {key: text})
    with pytest.raises(resque.InputError, match=r"before\.safetensors' is damaged \(.+\)"):
        resque.load_profile(path)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write files of at most so many bytes: what a full disk is to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(saved: tuple[Path, ClassProfile]) -> None:
    """Where the new profile does not fit, the old one stays and no part of the new is left."""
    path, whole = saved
    old = path.read_bytes()
    with (
        largest_file(len(old) // 2),
        pytest.raises(resque.InputError, match=r"before\.safetensors' could not be written: .+"),
    ):
        (whole + whole).save(path)
    assert old == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


def test_an_interruption_leaves_the_old_file(
    saved: tuple[Path, ClassProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of writing goes through, and leaves nothing half-written."""
    path, whole = saved
    old = path.read_bytes()

    def interrupted(_: Any, temporary: Path, *__: Any) -> None:
        Path(temporary).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole.save(path)
    assert old == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


def test_a_folder_that_does_not_exist(saved: tuple[Path, ClassProfile]) -> None:
    """The message names the file that could not be written and why; no folder is made."""
    path, whole = saved
    lost = path.parent / "lost" / "after.safetensors"
    with pytest.raises(
        resque.InputError, match=r"no folder '.*lost' to write 'after\.safetensors' to"
    ):
        whole.save(lost)
    assert not lost.parent.exists()


def test_a_folder_in_the_place_of_the_file(saved: tuple[Path, ClassProfile]) -> None:
    """A folder is not replaced by a file."""
    path, whole = saved
    with pytest.raises(resque.InputError, match="is a folder"):
        whole.save(path.parent)
    assert [path] == list(path.parent.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_to_write(saved: tuple[Path, ClassProfile]) -> None:
    """A folder that may not be written to is named with the reason."""
    path, whole = saved
    path.parent.chmod(0o500)
    try:
        with pytest.raises(resque.InputError, match="could not be written: Permission denied"):
            whole.save(path)
    finally:
        path.parent.chmod(0o700)
