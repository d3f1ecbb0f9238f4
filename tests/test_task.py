"""RESQUE_task: closed forms, slow oracles, invariances, independent code, and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from scipy.stats import ortho_group
from sklearn.metrics.cluster import pair_confusion_matrix
from sklearn.neighbors import NearestCentroid
from torch import nn

import resque
from reference import adjusted_rand_index, lloyd

Data = tuple[np.ndarray, np.ndarray]


def classes(
    rng: np.random.Generator,
    spread: float,
    counts: tuple[int, ...] = (20, 25, 30, 35),
    width: int = 6,
) -> Data:
    """Return representations and labels of classes whose examples lie round their centres."""
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = rng.normal(0, 3, (len(counts), width))
    return centres[labels] + spread * rng.normal(size=(len(labels), width)), labels


@pytest.fixture
def mixed(rng: np.random.Generator) -> Data:
    """Four classes that overlap, so that the k-means takes some iterations."""
    return classes(rng, 3.0)


# --- the value, equation (10) -------------------------------------------------------------------


def test_separated_classes_have_index_zero(rng: np.random.Generator) -> None:
    """Where every class is a cluster of its own, nothing has to be learned."""
    task = resque.task_index(None, classes(rng, 0.01))
    assert task.value == 0
    assert task.nearest_class_mean_accuracy == 1
    assert task.first_assignment_value == 0
    assert task.mixtures == ()
    assert task.empty_clusters == ()
    assert task.warnings == ()


def test_the_value_by_hand() -> None:
    """Classes {0, 10} and {1, 11} on a line fall into the clusters {0, 1} and {10, 11}.

    No pair that shares a class shares a cluster: 0 pairs where 2 x 2 / 6 are expected and 2 are
    the most, so the adjusted Rand index is (0 - 2/3) / (2 - 2/3) = -1/2.
    """
    task = resque.task_index(
        None, (np.array([[0.0], [10.0], [1.0], [11.0]]), np.array([0, 0, 1, 1]))
    )
    assert task.value == pytest.approx(1.5)
    assert task.first_assignment_value == pytest.approx(1.5)
    # The class means are 5 and 6: 0 and 11 are nearest to their own, 10 and 1 to the other.
    assert task.nearest_class_mean_accuracy == 0.5
    assert [(m.class_name, m.mixed_with, m.share) for m in task.mixtures] == [
        ("0", "1", 0.5),
        ("1", "0", 0.5),
    ]


@pytest.mark.parametrize("spread", [1.0, 2.0, 3.0, 5.0])
def test_the_value_against_a_slow_k_means(rng: np.random.Generator, spread: float) -> None:
    """Lloyd's iterations from the class means, one example at a time, find the same clusters."""
    values, labels = classes(rng, spread)
    first, clusters = lloyd(values, labels.tolist())
    task = resque.task_index(None, (values, labels))
    assert 1 - adjusted_rand_index(labels, clusters) == pytest.approx(task.value, abs=1e-12)
    assert 1 - adjusted_rand_index(labels, first) == pytest.approx(
        task.first_assignment_value, abs=1e-12
    )
    assert (np.array(first) == labels).mean() == task.nearest_class_mean_accuracy


def test_the_value_against_scipy(mixed: Data) -> None:
    """SciPy's k-means and a count of pairs, neither of which the package uses, give the value."""
    values, labels = mixed
    means = np.stack([values[labels == k].mean(0) for k in range(4)])
    # Iterations enough to settle; SciPy has no rule to stop.
    _, clusters = kmeans2(values, means, iter=100, minit="matrix")
    (neither, only_second), (only_first, both) = pair_confusion_matrix(labels, clusters)
    expected = (
        (both + only_first) * (both + only_second) / (both + only_first + only_second + neither)
    )
    most = both + (only_first + only_second) / 2
    task = resque.task_index(None, mixed)
    assert 1 - (both - expected) / (most - expected) == pytest.approx(task.value, abs=1e-12)
    assert 0.1 < task.value < 0.95
    assert task.iterations > 2


def test_the_nearest_class_mean_against_scikit_learn(mixed: Data) -> None:
    """The accuracy is that of scikit-learn's nearest centroid on its own training data."""
    expected = NearestCentroid().fit(*mixed).score(*mixed)
    task = resque.task_index(None, mixed)
    assert expected == task.nearest_class_mean_accuracy
    assert 0.3 < expected < 0.95


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 10))
def test_a_result_is_always_in_order(seed: int, spread: float) -> None:
    """Every number is where it must be, and shares never exceed a class."""
    data = classes(np.random.default_rng(seed), spread, (3, 9, 5))
    task = resque.task_index(None, data)
    # The adjusted Rand index is at least -1/2.
    assert 0 <= task.value <= 1.5
    assert 0 <= task.nearest_class_mean_accuracy <= 1
    assert 1 <= task.iterations <= 300
    assert task.examples == sum(task.class_counts.values()) == 17
    for name in task.class_counts:
        assert sum(m.share for m in task.mixtures if m.class_name == name) <= 1 + 1e-12
    json.dumps(task.to_dict())
    assert "RESQUE_task" in str(task)


# --- invariances --------------------------------------------------------------------------------


def assert_same_numbers(expected: resque.TaskIndex, actual: resque.TaskIndex) -> None:
    """The same examples are in the same clusters, so nothing but the last digit may differ."""
    for name in ("value", "first_assignment_value", "nearest_class_mean_accuracy"):
        assert getattr(expected, name) == pytest.approx(getattr(actual, name), abs=1e-12), name
    assert sorted(m.share for m in expected.mixtures) == pytest.approx(
        sorted(m.share for m in actual.mixtures)
    )


def test_a_rotation_changes_nothing(mixed: Data) -> None:
    """A k-means sees distances only."""
    values, labels = mixed
    turned = values @ ortho_group(6, seed=3).rvs(), labels
    assert_same_numbers(resque.task_index(None, mixed), resque.task_index(None, turned))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_common_scale_changes_nothing(mixed: Data, scale: float) -> None:
    """Units do not matter, so long as all values have the same."""
    scaled = scale * mixed[0], mixed[1]
    assert_same_numbers(resque.task_index(None, mixed), resque.task_index(None, scaled))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_common_offset_changes_nothing(rng: np.random.Generator, dtype: type) -> None:
    """What all examples share keeps their distances, also where it is large against them."""
    values, labels = classes(rng, 0.1)
    # Centres are about 1 apart and examples 0.01 from them. Near 1000, float32 has steps of 6e-5,
    # which tell all that; but the square of such a vector, 6e6, has steps of 0.5.
    task = resque.task_index(None, ((values / 10 + 1000).astype(dtype), labels))
    assert task.value == 0
    assert task.nearest_class_mean_accuracy == 1
    assert task.first_assignment_value == 0


def test_the_order_of_examples_changes_nothing(mixed: Data, rng: np.random.Generator) -> None:
    """The start does not depend on the order, and so neither does the end."""
    order = rng.permutation(len(mixed[1]))
    shuffled = mixed[0][order], mixed[1][order]
    assert_same_numbers(resque.task_index(None, mixed), resque.task_index(None, shuffled))


def test_the_names_of_classes_change_nothing(mixed: Data) -> None:
    """Renumbered and renamed classes give the same numbers under the new names."""
    values, labels = mixed
    plain = resque.task_index(None, mixed)
    new_number = np.array([3, 0, 2, 1])
    renamed = resque.task_index(
        None, (values, new_number[labels]), class_names=["one", "three", "two", "zero"]
    )
    assert_same_numbers(plain, renamed)
    assert renamed.class_counts == {"one": 25, "three": 35, "two": 30, "zero": 20}
    names = dict(zip("0123", ("zero", "one", "two", "three"), strict=True))
    expected = {(names[m.class_name], names[m.mixed_with]): m.share for m in plain.mixtures}
    assert expected == {(m.class_name, m.mixed_with): m.share for m in renamed.mixtures}


def test_batches_change_nothing(mixed: Data) -> None:
    """How the data are cut into batches leaves every number as it is."""
    plain = resque.task_index(None, mixed)
    cut = resque.task_index(None, mixed, batch_size=7)
    assert plain.to_dict() == cut.to_dict()


# --- starts and variants ------------------------------------------------------------------------


def test_k_means_plus_plus_repeats_by_its_seed(rng: np.random.Generator) -> None:
    """The same seed gives the same number, another one another, and no global state moves."""
    data = classes(rng, 6.0, (12,) * 10)
    global_state = np.random.get_state()  # noqa: NPY002  # the global one must stay untouched
    values = [
        [resque.task_index(None, data, start="k-means++", seed=seed).value for seed in range(6)]
        for _ in range(2)
    ]
    np.testing.assert_equal(np.random.get_state(), global_state)  # noqa: NPY002
    assert values[0] == values[1]
    assert len(set(values[0])) > 1


def test_the_seed_is_stated_where_it_matters(mixed: Data) -> None:
    """A start at the class means needs no seed, and so none is in the signature."""
    assert resque.task_index(None, mixed, seed=5).signature.seed is None
    started = resque.task_index(None, mixed, seed=5, start="k-means++")
    assert started.signature.seed == 5
    assert started.start == "k-means++"
    assert resque.task_index(None, mixed, seed=5, variants=True).signature.seed == 5


def test_the_nearest_class_mean_does_not_depend_on_the_start(mixed: Data) -> None:
    """It is a statement about the classes, whatever the k-means starts from."""
    means, other = (resque.task_index(None, mixed, start=s) for s in ("class_means", "k-means++"))
    assert means.nearest_class_mean_accuracy == other.nearest_class_mean_accuracy
    assert means.first_assignment_value == other.first_assignment_value


def test_clusters_of_k_means_plus_plus_belong_to_their_majority(rng: np.random.Generator) -> None:
    """Clusters that start anywhere are called by the class most of their examples have."""
    task = resque.task_index(None, classes(rng, 0.01), start="k-means++", seed=1)
    assert task.value == 0
    assert task.mixtures == ()


def test_an_unknown_start(mixed: Data) -> None:
    """The message has the starts there are and the one given."""
    with pytest.raises(resque.InputError, match=r"class_means, k-means\+\+; got 'random'"):
        resque.task_index(None, mixed, start="random")


@pytest.fixture
def images(rng: np.random.Generator) -> Data:
    """Images (90, 1, 6, 6) of three classes: bright in one place each."""
    labels = np.arange(90) % 3
    pictures = rng.normal(size=(90, 1, 6, 6)).astype(np.float32)
    pictures[np.arange(90), 0, 2 * labels, 2 * labels] += 2
    return pictures, labels


@pytest.fixture
def network() -> nn.Module:
    """A small network with a map in its first layer and a head for other classes."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )


def test_variants_are_what_single_calls_give(images: Data, network: nn.Module) -> None:
    """Each of the four variants is the index with that pooling and that start."""
    task = resque.task_index(network, images, layer="0", variants=True, seed=3)
    for name, pooling in (("pooled", "mean"), ("flattened", "flatten")):
        for start in ("class_means", "k-means++"):
            single = resque.task_index(
                network, images, layer="0", pooling=pooling, start=start, seed=3
            )
            assert single.value == task.variants[f"{name}, {start}"]
    assert task.value == task.variants["pooled, class_means"]
    assert task.variants["pooled, class_means"] != task.variants["flattened, class_means"]
    assert not any("flattened" in text for text in task.warnings)
    assert f"flattened, class_means {task.variants['flattened, class_means']:.4f}" in str(task)


def test_variants_of_vectors_say_that_they_are_two(mixed: Data) -> None:
    """Where the layer gives vectors there is nothing to flatten, and a warning says so."""
    task = resque.task_index(None, mixed, variants=True)
    assert task.variants["pooled, class_means"] == task.variants["flattened, class_means"]
    assert any("flattened variants equal the pooled ones" in text for text in task.warnings)
    assert resque.task_index(None, mixed).variants is None


def test_the_head_of_the_model_does_not_matter(images: Data, network: nn.Module) -> None:
    """A model with any head will do: ten scores, three classes."""
    task = resque.task_index(network, images)
    with torch.no_grad():
        features = network[:4](torch.tensor(images[0])).numpy()
    assert resque.task_index(None, (features, images[1])).value == task.value
    assert task.signature.layer == "input:4"
    assert task.signature.class_names == ("0", "1", "2")
    assert task.signature.groups is None


# --- extending an old task ----------------------------------------------------------------------


def test_a_task_that_extends_an_old_one(mixed: Data) -> None:
    """New classes on top of old ones are one task, which knows what it knew already."""
    values, labels = mixed
    old = labels < 2
    task = resque.task_index(
        None, (values[~old], labels[~old]), extending=(values[old], labels[old])
    )
    assert_same_numbers(resque.task_index(None, mixed), task)
    assert task.known_classes == ("0", "1")
    assert task.class_counts == {"0": 20, "1": 25, "2": 30, "3": 35}
    assert task.signature.examples == (110,)
    assert task.signature.class_names == ("0", "1", "2", "3")
    assert resque.task_index(None, mixed).known_classes == ()


def test_classes_of_one_name_are_one_class(mixed: Data) -> None:
    """Old and new examples of a class of the same name are counted together."""
    values, labels = mixed
    first = np.arange(len(labels)) % 2 == 0
    task = resque.task_index(
        None, (values[first], labels[first]), extending=(values[~first], labels[~first])
    )
    assert_same_numbers(resque.task_index(None, mixed), task)
    assert task.known_classes == ("0", "1", "2", "3")


def test_a_single_new_class_may_extend_an_old_task(mixed: Data) -> None:
    """One class alone is no task, but it is one on top of others."""
    values, labels = mixed
    new = labels == 3
    task = resque.task_index(
        None, (values[new], labels[new]), extending=(values[~new], labels[~new])
    )
    assert_same_numbers(resque.task_index(None, mixed), task)


def test_old_and_new_data_of_different_widths(mixed: Data) -> None:
    """Representations that do not belong together are not clustered together."""
    values, labels = mixed
    with pytest.raises(resque.NotComparableError, match=r"width \(5 and 6\)"):
        resque.task_index(None, mixed, extending=(values[:, :5], labels))


# --- clusters and mixtures ----------------------------------------------------------------------


def test_empty_clusters_are_reported() -> None:
    """A class whose mean lies where it has no example gets no example: named and warned of."""
    values = np.array([[-10.0], [10.0], [-10.1], [-9.9], [9.9], [10.1]])
    task = resque.task_index(
        None, (values, np.array([0, 0, 1, 1, 2, 2])), class_names=["both", "left", "right"]
    )
    assert task.empty_clusters == ("both",)
    assert any("1 clusters have no examples ('both')" in text for text in task.warnings)
    assert task.to_dict()["empty_clusters"] == ["both"]


def test_fewer_representations_than_classes() -> None:
    """Equal representations of different classes make a warning, not a crash."""
    values = np.repeat([[1.0, 2.0], [3.0, 4.0]], 6, axis=0)
    task = resque.task_index(None, (values, np.arange(12) % 3))
    assert any("fewer distinct representations than classes" in text for text in task.warnings)
    assert task.empty_clusters
    assert 0.5 < task.value <= 1.5


def test_mixtures_are_shares_of_the_class(mixed: Data) -> None:
    """They are the off-diagonal of the class x cluster table, over the class's examples."""
    values, labels = mixed
    _, clusters = lloyd(values, labels.tolist())
    expected = {}
    for label in range(4):
        members = [cluster for cluster, own in zip(clusters, labels, strict=True) if own == label]
        for cluster in set(members) - {label}:
            expected[str(label), str(cluster)] = members.count(cluster) / len(members)
    task = resque.task_index(None, mixed)
    assert expected == {(m.class_name, m.mixed_with): m.share for m in task.mixtures}
    shares = [m.share for m in task.mixtures]
    assert shares == sorted(shares, reverse=True)
    largest = task.mixtures[0]
    assert f"{largest.class_name} with {largest.mixed_with} {largest.share:.0%}" in str(task)


def test_unbalanced_classes_and_single_examples_are_warned_of(rng: np.random.Generator) -> None:
    """What makes the index hard to read is said with the numbers."""
    task = resque.task_index(None, classes(rng, 1.0, (40, 1, 30)))
    text = "\n".join(task.warnings)
    assert "1 classes have one example only" in text
    assert "'1'" in text
    assert "unbalanced (1 to 40 examples)" in text


# --- refusals -----------------------------------------------------------------------------------


def test_one_class_is_no_task(mixed: Data) -> None:
    """There is nothing to tell apart; the class is named."""
    with pytest.raises(resque.InputError, match="at least two classes with examples; got 1, '7'"):
        resque.task_index(None, (mixed[0], np.full(110, 7)))


def test_data_without_labels(mixed: Data) -> None:
    """Clusters are compared with classes, so classes there must be."""
    with pytest.raises(resque.InputError, match="no labels; RESQUE_task needs them"):
        resque.task_index(None, mixed[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_example(mixed: Data, bad: float) -> None:
    """The message counts from the start of the data, not of the batch."""
    values = mixed[0].copy()
    values[77, 3] = bad
    with pytest.raises(resque.InputError, match="example 77 contains NaN or infinity"):
        resque.task_index(None, (values, mixed[1]), batch_size=50)


def test_a_label_without_a_name(mixed: Data) -> None:
    """A label beyond the class names is named with its example."""
    place = int((mixed[1] == 3).argmax())
    with pytest.raises(
        resque.InputError, match=f"Label 3 of example {place} has no name: there are 3 class names"
    ):
        resque.task_index(None, mixed, class_names=["a", "b", "c"])


# --- the result ---------------------------------------------------------------------------------


def test_the_result_is_plain_json(mixed: Data) -> None:
    """The dict has every promised key, in types that JSON knows, and the object's numbers."""
    task = resque.task_index(None, mixed)
    told = json.loads(json.dumps(task.to_dict(), allow_nan=False))
    promised = {
        "index", "value", "nearest_class_mean_accuracy", "iterations", "classes", "examples",
        "warnings", "signature",
    }  # fmt: skip
    assert promised <= told.keys()
    assert told["index"] == "RESQUE_task"
    assert told["classes"] == 4
    assert told["examples"] == 110
    for name in ("value", "nearest_class_mean_accuracy", "first_assignment_value", "iterations"):
        assert getattr(task, name) == told[name]
    assert told["signature"]["index"] == "RESQUE_task"
    assert [m["share"] for m in told["mixtures"]] == [m.share for m in task.mixtures]


def test_the_result_prints_value_and_signature(mixed: Data) -> None:
    """No number without what it is and where it comes from."""
    task = resque.task_index(None, mixed)
    text = str(task)
    for number in (task.value, task.nearest_class_mean_accuracy, task.first_assignment_value):
        assert f"{number:.4f}" in text
    assert f"{task.iterations} iterations" in text
    assert str(task.signature) in text


def test_indices_are_ordered_by_value(rng: np.random.Generator) -> None:
    """Comparable indices compare as their values do; others are refused."""
    easy, hard = (resque.task_index(None, classes(rng, spread)) for spread in (0.1, 5.0))
    assert easy < hard
    assert not hard < easy
    narrow = resque.task_index(None, classes(rng, 1.0, width=5))
    with pytest.raises(resque.NotComparableError, match=r"width \(6 and 5\)"):
        easy < narrow  # noqa: B015  # the comparison itself raises
    with pytest.raises(TypeError, match="float"):
        easy < 0.3  # noqa: B015


def test_indices_of_different_starts_are_not_ordered(mixed: Data) -> None:
    """A k-means that starts elsewhere measures something else."""
    means, other = (resque.task_index(None, mixed, start=s) for s in ("class_means", "k-means++"))
    with pytest.raises(resque.NotComparableError, match=r"class_means, the other at k-means\+\+"):
        means < other  # noqa: B015  # the comparison itself raises


def test_float32_gives_the_index_of_the_same_numbers(mixed: Data) -> None:
    """What float32 can hold is clustered alike in both precisions, and the value is a float."""
    narrow = mixed[0].astype(np.float32), mixed[1]
    wide = narrow[0].astype(np.float64), mixed[1]
    # Two classes' distances to an example would have to agree to seven digits to make a difference.
    found = resque.task_index(None, narrow)
    assert resque.task_index(None, wide).value == pytest.approx(found.value, abs=1e-12)
    assert isinstance(found.value, float)
    assert found.signature.dtype == "float32"


def test_an_empty_task(rng: np.random.Generator) -> None:
    """No examples, no index."""
    with pytest.raises(resque.InputError, match="no examples"):
        resque.task_index(None, (np.zeros((0, 3)), np.zeros(0, int)))


def test_the_model_is_named_in_the_signature(images: Data, network: nn.Module) -> None:
    """The options of the signature arrive there."""
    options: dict[str, Any] = {"model_name": "small", "preprocessing": "none", "pooling": "flatten"}
    task = resque.task_index(network, images, layer="0", **options)
    assert task.signature.model == "small"
    assert task.signature.preprocessing == "none"
    assert task.signature.pooling == "flatten"
    assert task.signature.width == 4 * 4 * 4
