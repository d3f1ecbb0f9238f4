"""The pre-flight: what is in it, where it comes from, what it leaves alone, and bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

import resque
from resque.forecasting import preflight as preflight_module
from resque.forecasting.preflight import MOST_EXAMPLES, Preflight, Sample, load_preflight, preflight
from resque.index.accumulation import Accumulation
from resque.measure.batches import labels_of
from resque.rivals import table
from resque.rivals.observations import observe
from resque.rivals.table import (
    OF_EXAMPLES,
    OF_OUTPUTS,
    OF_TASK,
    sampled_places,
    shift_rivals,
    task_rivals,
)

CLASSES = 3


def images(n: int, seed: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Images of three classes, each with its own bright corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    pixels = torch.randn(n, 1, 8, 8, generator=generator)
    for c in range(CLASSES):
        pixels[labels == c, :, 2 * c : 2 * c + 3, :3] += 2
    return pixels + shift, labels


def network(outputs: int = CLASSES) -> nn.Module:
    """Convolutions, so that there is a map, and batch normalisation, so that there are buffers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    )


OLD, NEW = images(90, 1), images(120, 2, shift=0.5)


@pytest.fixture(scope="module")
def found() -> Preflight:
    return preflight(network(), NEW, before=OLD, validation=images(30, 3), meter="none")


# ---- what is in it ------------------------------------------------------------------------------


def test_every_value_is_a_number_or_says_why_not(found: Preflight) -> None:
    for name, value in found.values.items():
        assert (value is None) == (name in found.missing), name
        assert value is None or np.isfinite(value), name
    assert found.missing == {}


def test_the_index_is_that_of_the_two_profiles(found: Preflight) -> None:
    """One pass serves the index and the rivals; it gives what the separate calls give."""
    model = network()
    sides = [resque.profile(model, side) for side in (OLD, NEW)]
    shift = resque.shift_index(*sides)
    assert found.values["RESQUE_dist"] == pytest.approx(shift.value, abs=1e-12)
    assert found.values["RESQUE_dist_floor"] == pytest.approx(shift.floor, abs=1e-12)
    assert found.values["RESQUE_dist_debiased"] == pytest.approx(shift.debiased, abs=1e-12)
    assert found.values["RESQUE_task"] == pytest.approx(resque.task_index(model, NEW).value)
    outputs = [side.outputs for side in sides]
    assert found.values["error_before"] == pytest.approx(1 - outputs[1].accuracy)  # type: ignore[union-attr,operator]
    assert found.values["accuracy_drop"] == pytest.approx(
        outputs[0].accuracy - outputs[1].accuracy  # type: ignore[union-attr,operator]
    )


def test_the_rivals_are_all_there(found: Preflight) -> None:
    assert {*OF_OUTPUTS, *OF_EXAMPLES, *OF_TASK, "global_angle"} <= found.values.keys()
    assert {*OF_OUTPUTS, *OF_EXAMPLES, *OF_TASK, "global_angle"} <= found.seconds.keys()


def test_the_controls_count(found: Preflight) -> None:
    values = found.values
    assert (values["classes"], values["training_examples"]) == (3, 120)
    assert (values["examples_per_class"], values["steps_per_epoch"]) == (40, 4)
    assert values["parameters"] == sum(p.numel() for p in network().parameters())
    # Multiply and add count as two: 9 x 1 x 6 at 64 places, 9 x 6 x 8 at 16, and 8 x 3.
    assert values["flops"] == 2 * (54 * 64 + 432 * 16 + 24)


def test_the_probe_is_that_of_the_same_recipe(found: Preflight) -> None:
    alone = resque.probe(network(), NEW, images(30, 3), meter="none")
    assert found.probe is not None
    assert found.probe.losses == alone.losses
    assert found.values["probe_loss_first"] == alone.losses[0]
    assert found.values["probe_loss_slope"] == alone.loss_slope
    assert found.values["probe_parameter_change"] == alone.parameter_change


def test_worse_data_cost_more(found: Preflight) -> None:
    worse = preflight(network(), images(120, 2, shift=2.0), before=OLD, meter="none", probe_steps=0)
    for name in ("RESQUE_dist", "global_angle", "mmd", "frechet", "sliced_wasserstein", "arm"):
        assert worse.values[name] > found.values[name], name  # type: ignore[operator]


def test_the_last_map_is_what_pooling_reads() -> None:
    seen = observe(network(), NEW)
    assert seen.maps is not None
    pooled = seen.maps.reshape(120, 8, 16).mean(2)
    np.testing.assert_allclose(pooled, seen.representations, atol=1e-6)


def test_layers_are_those_with_weights() -> None:
    seen = observe(network(), NEW, layers=True)
    assert {name: part.shape for name, part in seen.layers.items()} == {
        "0": (120, 6),
        "4": (120, 8),
        "8": (120, 3),
    }


def test_pixels_are_averaged_down_to_32() -> None:
    wide = torch.rand(6, 3, 64, 48)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    seen = observe(model, (wide, torch.arange(6) % 2))
    assert seen.pixels is not None
    expected = nn.functional.adaptive_avg_pool2d(wide, (32, 32)).flatten(1)
    np.testing.assert_allclose(seen.pixels, expected, atol=1e-6)


def test_labels_that_are_no_counting_numbers_are_numbered() -> None:
    """Labels 7 and 3 are classes "3" and "7": places 0 and 1."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 9))
    seen = observe(model, (torch.randn(8, 4), torch.tensor([7, 3] * 4)))
    assert seen.profile.class_names == ("3", "7")
    assert seen.labels is not None
    assert seen.labels.tolist() == [1, 0] * 4


# ---- where it comes from ------------------------------------------------------------------------


def test_from_a_profile_what_needs_examples_is_missing_and_says_so(found: Preflight) -> None:
    profiled = preflight(
        network(), NEW, before=resque.profile(network(), OLD), meter="none", probe_steps=0
    )
    assert set(OF_EXAMPLES) == {n for n, why in profiled.missing.items() if "old data" in why}
    for name in ("RESQUE_dist", "global_angle", *OF_OUTPUTS):
        assert profiled.values[name] == pytest.approx(found.values[name], abs=1e-12)
    assert profiled.missing["probe_loss_first"] == "no probe was asked for"


def test_a_new_task_has_no_shift() -> None:
    recipe = resque.Recipe(start="head")
    task = preflight(network(5), NEW, recipe=recipe, meter="none")
    assert task.values["RESQUE_dist"] is None
    assert task.missing["RESQUE_dist"] == "there are no old data to compare with"
    assert task.missing["error_before"].endswith("begins with a classifier that knows nothing")
    assert task.values["leep"] is not None  # of the old head's five outputs
    assert task.values["accuracy_drop"] is None
    assert task.missing["accuracy_drop"] == task.missing["mmd"] == task.missing["RESQUE_dist"]


def test_the_network_that_will_be_trained_is_counted() -> None:
    """With its fresh classifier of three outputs, not the old one of five."""
    task = preflight(network(5), NEW, recipe=resque.Recipe(start="head"), meter="none")
    wanted = sum(p.numel() for p in network(CLASSES).parameters())
    assert task.values["parameters"] == wanted
    assert task.values["flops"] == 2 * (54 * 64 + 432 * 16 + 24)


def test_classes_are_those_with_examples() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
    found = preflight(model, (torch.randn(40, 4), torch.tensor([3, 7] * 20)), meter="none")
    assert (found.values["classes"], found.values["examples_per_class"]) == (2, 20)


def test_labels_that_are_not_known_in_advance_are_the_outputs_of_their_numbers() -> None:
    """A data set of one's own gives what the same arrays give."""
    own, pair = Counted(60), Counted(60).data
    found, known = (
        preflight(network(), data, before=OLD, meter="none", probe_steps=0) for data in (own, pair)
    )
    for name in ("error_before", "loss_before", "accuracy_drop", "confidence_drop", "atc"):
        assert found.values[name] == pytest.approx(known.values[name], rel=1e-5), name


def test_one_class_has_a_shift_and_is_no_task() -> None:
    one = NEW[0][NEW[1] == 1], NEW[1][NEW[1] == 1]
    found = preflight(network(), one, before=OLD, meter="none", probe_steps=0)
    assert found.values["RESQUE_dist"] is not None
    assert found.task is None
    assert "at least two classes" in found.missing["RESQUE_task"]
    assert "at least two classes" in found.missing["knn"]


def test_warnings_of_the_indices_are_notes() -> None:
    """A class of one example leaves its debiased value unresolved; who prints it is told."""
    few = torch.cat([torch.nonzero(NEW[1] != 0)[:, 0], torch.nonzero(NEW[1] == 0)[:1, 0]])
    found = preflight(network(), (NEW[0][few], NEW[1][few]), before=OLD, meter="none")
    assert any("one example only" in note for note in found.notes)
    assert found.notes[0] in str(found)


def test_ids_say_which_example_is_which() -> None:
    """The same example on both sides is in the same group, wherever it stands."""
    places = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    mixed = OLD[0][places] + 0.1, OLD[1][places]
    model = network()
    found = preflight(
        model, mixed, before=OLD, ids=places.tolist(), before_ids=range(90), meter="none",
        probe_steps=0,
    )  # fmt: skip
    sides = (
        resque.profile(model, OLD, ids=range(90)),
        resque.profile(model, mixed, ids=places.tolist()),
    )
    expected = resque.shift_index(*sides)
    assert found.shift is not None
    assert found.shift["p_value"] == expected.p_value
    assert found.values["RESQUE_dist_debiased"] == pytest.approx(expected.debiased)
    with pytest.raises(resque.InputError, match="There are 3 ids and 90 examples"):
        preflight(model, mixed, ids=[1, 2, 3], meter="none", probe_steps=0)


def test_what_a_sampler_leaves_out_is_no_part_of_the_data() -> None:
    sampler = SubsetRandomSampler(range(0, 120, 2))
    loader = DataLoader(TensorDataset(*NEW), batch_size=16, sampler=sampler)
    found = preflight(network(), loader, meter="none", probe_steps=0)
    assert found.sample == {"training": (60, 60)}
    assert found.values["training_examples"] == 60


class Counted(Dataset[Any]):
    """A data set without labels to be had but by loading."""

    def __init__(self, n: int) -> None:
        self.data = images(n, 5)

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.data[0][place], int(self.data[1][place])


@pytest.mark.parametrize("form", ["pair", "data set", "loader", "unknown labels"])
def test_a_sample_of_every_form_of_data(form: str) -> None:
    """90 of 120, each class with its share where labels are known."""
    data: Any = {
        "pair": NEW,
        "data set": TensorDataset(*NEW),
        "loader": DataLoader(TensorDataset(*NEW), batch_size=16, shuffle=True),
        "unknown labels": Counted(120),
    }[form]
    found = preflight(network(), data, most_examples=90, meter="none", probe_steps=0)
    assert found.sample == {"training": (90, 120)}
    assert found.signature.examples == (90,)
    assert found.values["training_examples"] == 120
    assert any("drawn alike" in note for note in found.notes) == (form == "unknown labels")
    if form != "unknown labels":
        assert found.task is not None
        assert set(found.task["class_counts"].values()) == {30}


def test_a_loader_that_shuffles_is_read_by_place() -> None:
    """The whole of it, in the order of its data set: the same numbers as of the pair."""
    loader = DataLoader(TensorDataset(*NEW), batch_size=16, shuffle=True)
    pair, loaded = (
        preflight(network(), data, before=OLD, meter="none", probe_steps=0)
        for data in (NEW, loader)
    )
    batches = pair.values["steps_per_epoch"], loaded.values["steps_per_epoch"]
    assert batches == (4, 8)
    assert loaded.missing == pair.missing
    for name in pair.values.keys() - pair.missing.keys() - {"steps_per_epoch"}:
        # Sums in float32 over other batches.
        assert loaded.values[name] == pytest.approx(pair.values[name], rel=1e-5, abs=1e-7), name


def test_the_sample_is_drawn_by_its_seed() -> None:
    one, same, other = (
        Sample.of(NEW, 30, seed=seed).places.tolist()  # type: ignore[union-attr]
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_small_data_are_looked_at_whole() -> None:
    assert Sample.of(NEW, MOST_EXAMPLES, seed=0).data is NEW


# ---- what it leaves alone -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pair", "loader", "unknown labels"])
def test_the_model_and_the_random_states_stay_as_they_were(form: str) -> None:
    model = network().train()
    generator = torch.Generator().manual_seed(3)
    data: Any = {
        "pair": NEW,
        "loader": DataLoader(TensorDataset(*NEW), batch_size=16, shuffle=True, generator=generator),
        "unknown labels": Counted(60),
    }[form]
    drawn = generator.get_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    preflight(model, data, before=OLD, meter="none")
    assert torch.equal(generator.get_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_same_twice() -> None:
    one, other = (preflight(network(), NEW, before=OLD, meter="none") for _ in range(2))
    assert one.values == other.values


# ---- to and from a file -------------------------------------------------------------------------


def test_there_and_back(found: Preflight, tmp_path: Path) -> None:
    found.save(tmp_path / "found.json")
    assert load_preflight(tmp_path / "found.json") == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no saved pre-flight"),
        ("[]", r"its format is None, expected 'resque.Preflight/1'"),
        ('{"format": "resque.Preflight/2"}', r"its format is 'resque.Preflight/2'"),
        ('{"format": "resque.Preflight/1"}', r"incomplete: 'probe'"),
    ],
)
def test_a_file_that_is_none(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(resque.InputError, match=message):
        load_preflight(path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda record: record.pop("signature"), "signature"),
        (lambda record: record["values"].clear(), "values"),
    ],
)
def test_one_without_its_signature_or_its_values(
    damage: Any, told: str, found: Preflight, tmp_path: Path
) -> None:
    record = json.loads(json.dumps(found.to_dict()))
    damage(record)
    (tmp_path / "found.json").write_text(json.dumps(record))
    with pytest.raises(resque.InputError, match=f"incomplete: '{told}'"):
        load_preflight(tmp_path / "found.json")
    with pytest.raises(resque.InputError, match="is a folder; expected a saved pre-flight"):
        load_preflight(tmp_path)


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most_examples": 0}, r"most_examples must be 1 or more; got 0"),
        ({"most_examples": 2}, r"most_examples must be 3 or more, one for each class; got 2"),
        ({"probe_steps": -1}, r"probe_steps must be 0, or 5 or more; got -1"),
        ({"probe_steps": 3}, r"probe_steps must be 0, or 5 or more; got 3"),
    ],
)
def test_numbers_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(resque.InputError, match=message):
        preflight(network(), NEW, meter="none", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([NEW, NEW, NEW], r"a list of 3"),
        (7, r"how many examples they have.*got int"),
        (iter([NEW]), r"got .*iterator"),
    ],
)
def test_data_that_are_none(data: Any, message: str) -> None:
    for given in ({"before": data}, {}):
        with pytest.raises(resque.InputError, match=message if given else "."):
            preflight(network(), NEW if given else data, meter="none", probe_steps=0, **given)


def test_a_model_that_is_none() -> None:
    with pytest.raises(resque.InputError, match=r"torch\.nn\.Module; got NoneType"):
        preflight(None, NEW, meter="none")  # type: ignore[arg-type]


def test_the_profile_of_another_model_is_refused() -> None:
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    with pytest.raises(resque.NotComparableError, match="weights"):
        preflight(network(), NEW, before=resque.profile(other, OLD), meter="none", probe_steps=0)


def test_a_rival_that_these_data_do_not_allow_takes_no_other_with_it() -> None:
    """Five neighbours of four examples are none; a dead layer has no deviation to divide by."""
    model = network()
    with torch.no_grad():
        model[4].weight.zero_()  # type: ignore[union-attr,operator]
        model[4].bias.zero_()  # type: ignore[union-attr,operator]
    few = tuple(part[:6] for part in NEW)
    small = task_rivals(observe(network(), tuple(part[:4] for part in NEW)))
    assert small["knn"].value is None
    told = "It looks at the 5 nearest other examples of each, and there are 4 examples in all."
    assert small["knn"].why_none == told
    dead = shift_rivals(*(observe(model, side, layers=True) for side in (few, few)))
    assert dead["arm"].value is None
    assert "the same activations of '4'" in (dead["arm"].why_none or "")
    assert dead["accuracy_drop"].value == 0


def broken(data: tuple[Tensor, Tensor], place: int) -> tuple[Tensor, Tensor]:
    """The same data with one example that is not finite."""
    pixels = data[0].clone()
    pixels[place, 0, 3, 3] = float("nan")
    return pixels, data[1]


class Unsized(Dataset[Any]):
    """A data set that does not know how many examples it has."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return NEW[0][place], int(NEW[1][place])


class Streamed(IterableDataset[Any]):
    """A data set with a length whose examples have no places."""

    def __len__(self) -> int:
        return len(NEW[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*NEW, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": broken(NEW, 37)}, r"On the new data \(training\): The input of example 37 "),
        ({"training": broken(NEW, 100)}, r"new data \(training\): The input of example 100 "),
        ({"before": broken(OLD, 11)}, r"On the old data \(before\): The input of example 11 "),
        (
            {"training": broken(NEW, 37), "most_examples": 90},
            r"On a sample of the new data \(training\): The input of the example with id 37 ",
        ),
        ({"training": broken(NEW, 0), "ids": ["a", *"b" * 119]}, r"the example with id a contains"),
        ({"training": (NEW[0], NEW[1].float())}, r"On the new data \(training\): Labels must be"),
        ({"before": (OLD[0], OLD[1].float())}, r"On the old data \(before\): Labels must be"),
        ({"before": (OLD[0].flatten(1), OLD[1])}, r"On the old data \(before\): The model could"),
        ({"validation": (OLD[0].flatten(1), OLD[1])}, r"On the validation data: The model could"),
        ({"validation": (OLD[0], OLD[1] + 9)}, r"On the validation data: .*the training data lack"),
        ({"training": (NEW[0][:0], NEW[1][:0])}, r"On the new data .* hold no examples"),
        ({"before": DataLoader(TensorDataset(OLD[0][:0], OLD[1][:0]))}, r"old data .* no examples"),
        ({"training": Unsized()}, r"new data \(training\): .*got Unsized"),
        ({"before": DataLoader(Unsized(), sampler=range(3))}, r"old .*got DataLoader of Unsized"),
        ({"before": Streamed(), "most_examples": 30}, r"old data \(before\): .*got Streamed"),
        ({"training": "folder"}, r"new data \(training\): .*got str"),
        ({"class_names": ["a", "b"]}, r"new data \(training\): Label 2 of example 2 has no name"),
        ({"recipe": "fast"}, r"recipe must be a resque.Recipe; got str"),
        ({"before": resque.ClassProfile.empty()}, r"before is an empty profile"),
        ({"before": None, "before_ids": range(90)}, r"before_ids .* before is None"),
    ],
)
def test_an_error_says_which_data_it_is_of(options: dict[str, Any], message: str) -> None:
    given = {"training": NEW, "before": OLD, "meter": "none", "probe_steps": 0} | options
    with pytest.raises(resque.InputError, match=message):
        preflight(network(), given.pop("training"), **given)


def test_an_input_is_told_by_its_id_long_after_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU nothing is looked at until many batches later; of two the first is told."""
    put_off = []
    monkeypatch.setattr(
        Accumulation, "_check_finite", lambda self, batch, finite: self.unchecked.append(
            (batch.start, batch.ids, finite)
        ) or put_off.append(batch.start),
    )  # fmt: skip
    ids = np.arange(1000, 1120)
    with pytest.raises(resque.InputError, match="The input of the example with id 1037 contains"):
        observe(network(), broken(broken(NEW, 77), 37), ids=ids, batch_size=8)
    assert len(put_off) == 15


def test_an_input_that_is_not_finite_is_found_whichever_it_is() -> None:
    """Also the second one; and one that is very large is finite."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor, extra: Tensor, scale: float = 1.0) -> Tensor:
            logits: Tensor = self.head(self.body(ids.float() + extra) * scale)
            return logits

    extra = torch.randn(40, 4)
    ids, labels = torch.arange(160).reshape(40, 4), torch.arange(40) % 2

    def batches(extra: Tensor) -> list[Any]:
        return [({"ids": ids[i : i + 8], "extra": extra[i : i + 8]}, labels[i : i + 8])
                for i in range(0, 40, 8)]  # fmt: skip

    for bad in (float("nan"), float("inf"), float("-inf")):
        wrong = extra.clone()
        wrong[17, 2] = bad
        with pytest.raises(resque.InputError, match="The input of example 17 contains"):
            observe(Two(), batches(wrong))
    wrong[17, :] = 3e38
    model = Two()
    nn.init.constant_(model.body.weight, 10.0)
    with pytest.raises(resque.InputError, match="The representation or the output of example 17"):
        observe(model, batches(wrong))


def test_what_a_model_does_to_its_input_is_not_blamed_on_it() -> None:
    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rest = network()

        def forward(self, pixels: Tensor) -> Tensor:
            found: Tensor = self.rest(pixels.sub_(pixels.mean()).div_(0.0))
            return found

    with pytest.raises(resque.InputError, match="The representation or the output of example 0"):
        observe(Dividing(), NEW)


def test_ids_beside_a_profile_are_refused() -> None:
    profiled = resque.profile(network(), OLD)
    with pytest.raises(
        resque.InputError, match=r"before_ids .* a profile, which has taken them in"
    ):
        preflight(network(), NEW, before=profiled, before_ids=range(90), meter="none")


def test_weights_that_are_not_finite_are_named() -> None:
    model = network()
    model[4].bias.data[0] = float("inf")  # type: ignore[union-attr,index]
    with pytest.raises(resque.InputError, match=r"The model's own '4.bias' contains NaN or inf"):
        preflight(model, NEW, meter="none", probe_steps=0)


def test_old_data_without_labels_have_no_shift_index() -> None:
    """What is missing says so in words of this function; what needs no labels is there."""
    for before in (OLD[0], (OLD[0], None), resque.profile(network(), OLD[0])):
        found = preflight(network(), NEW, before=before, meter="none", probe_steps=0)
        assert found.missing["RESQUE_dist"].startswith("The old data (before) have no labels; ")
        assert found.missing["accuracy_drop"] == "the old data have no labels"
        assert found.values["confidence_drop"] is not None


def test_a_profile_with_other_groups_is_compared() -> None:
    profiled = resque.profile(network(), OLD, groups=8)
    found = preflight(network(), NEW, before=profiled, meter="none", probe_steps=0)
    assert found.signature.groups == 8
    expected = resque.shift_index(profiled, resque.profile(network(), NEW, groups=8))
    assert found.values["RESQUE_dist"] == pytest.approx(expected.value, abs=1e-12)


def test_labels_beyond_the_outputs_are_other_classes() -> None:
    """Of a data set that has to be loaded for its labels, as of the same arrays."""
    own, pair = (
        preflight(network(2), data, before=OLD, meter="none", probe_steps=0)
        for data in (Counted(60), Counted(60).data)
    )
    assert own.missing == pair.missing
    assert own.missing["error_before"] == "the model has no output for these classes"
    assert own.values["RESQUE_dist"] == pytest.approx(pair.values["RESQUE_dist"], rel=1e-5)


def test_maps_and_layers_of_no_more_examples_are_kept_than_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same values as from all of them, and memory that ends at so many examples."""
    monkeypatch.setattr(table, "MOST_SAMPLED", 50)
    labels = NEW[1].numpy()
    places = sampled_places(labels, len(labels))
    assert sorted(np.bincount(labels[places]).tolist()) == [16, 17, 17]
    some, more, whole = (
        observe(network(), NEW, layers=True, sampled=kept, batch_size=16)
        for kept in (places, np.arange(120), None)
    )
    assert some.maps is not None
    assert whole.maps is not None
    np.testing.assert_array_equal(some.maps, whole.maps[places])
    assert some.layers.keys() == whole.layers.keys() != set()
    for name, values in whole.layers.items():
        np.testing.assert_allclose(some.layers[name], values[places], rtol=1e-6)
    old = observe(network(), OLD, layers=True, batch_size=16)
    for name in ("arm", "arm_published", "ridge_flattened"):
        values = [
            {**shift_rivals(old, after), **task_rivals(after)}[name].value
            for after in (some, more, whole)
        ]
        assert values == pytest.approx([values[0]] * 3, rel=1e-6)
    seen: list[tuple[Any, ...]] = []
    of_shift = preflight_module.shift_rivals
    monkeypatch.setattr(
        preflight_module, "shift_rivals", lambda *sides: seen.append(sides) or of_shift(*sides)
    )
    for data in (NEW, Counted(120)):
        preflight(network(), data, before=OLD, meter="none", probe_steps=0)
    kept = [len(values) for sides in seen for side in sides for values in side.layers.values()]
    assert set(kept) == {50}
    assert [len(after.maps) for _, after in seen] == [50, 50]


def test_each_of_many_classes_has_two_maps() -> None:
    """One alone in its class is an error whatever the map, so that the rival would always be 1."""
    for classes, expected in ((1000, 2), (700, 2), (400, 2)):
        places = sampled_places(np.arange(4000) % classes, 4000)
        assert np.bincount(places % classes).min() == expected
        assert len(places) == max(1000, 2 * classes)
    assert len(sampled_places(np.arange(1500) % 1000, 1500)) == 1500


def test_more_classes_than_are_sampled_are_drawn_alike() -> None:
    places = sampled_places(np.arange(2500), 2500)
    assert len(places) == len(set(places.tolist())) == 2000
    assert places.tolist() == sorted(places.tolist())


def test_old_labels_that_are_no_integers_do_not_stop_the_sampling() -> None:
    """The batches tell labels of their own."""
    data = Counted(40)
    data.labels = ["cat", "dog"] * 20  # type: ignore[attr-defined]
    for of in (data, DataLoader(data)):
        with pytest.raises(resque.InputError, match="got text"):
            labels_of(of)
    found = preflight(network(), NEW, before=data, meter="none", probe_steps=0)
    assert found.values["arm"] is not None


@pytest.mark.parametrize("places", [[3, 1], [1, 1], [-1, 4], [0.5, 1.0]])
def test_places_out_of_order_are_refused(places: list[Any]) -> None:
    with pytest.raises(resque.InputError, match="sampled must be places in the data"):
        observe(network(), NEW, sampled=places)  # type: ignore[arg-type]
    with pytest.raises(resque.InputError, match="has the place 500, and there are 120 examples"):
        observe(network(), NEW, sampled=np.array([3, 500]))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_new_data_without_a_known_class_are_judged_by_the_outputs_all_the_same(
    missing: int,
) -> None:
    """Labels are outputs whatever holds them, and whether or not all of them occur."""
    left = NEW[1] != missing
    some = NEW[0][left], NEW[1][left]
    options: dict[str, Any] = {"before": OLD, "meter": "none", "probe_steps": 0}
    found = preflight(network(), some, **options)
    named = preflight(network(), some, class_names=["0", "1", "2"], **options)
    for name in ("accuracy_drop", "loss_rise", "atc", "error_before", "loss_before", "arm"):
        assert found.values[name] == named.values[name]
        assert found.values[name] is not None
    beyond = preflight(network(), (some[0], some[1] + 3), **options)
    assert beyond.missing["error_before"] == "the model has no output for these classes"


def test_tokens_that_come_first_are_not_taken_for_examples() -> None:
    """PyTorch's transformers have them first by default; as many tokens as examples say nothing."""

    class Reader(nn.Module):
        def __init__(self, *, batch_first: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = batch_first
            self.embed = nn.Linear(1, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=batch_first)
            self.head = nn.Linear(8, 3)

        def forward(self, pixels: Tensor) -> Tensor:
            tokens = self.embed(pixels.flatten(1)[:, :16, None])
            found = self.layer(tokens if self.first else tokens.transpose(0, 1))
            logits: Tensor = self.head(found.mean(1 if self.first else 0))
            return logits

    sides = {}
    for batch_first in (True, False):
        model = Reader(batch_first=batch_first)
        sides[batch_first] = observe(model, NEW, layers=True, batch_size=16)
    np.testing.assert_allclose(
        sides[True].representations, sides[False].representations, rtol=1e-4, atol=1e-5
    )
    assert sides[True].maps is not None
    assert sides[True].maps.shape == (120, 16 * 8)
    assert sides[False].maps is None
    assert set(sides[False].layers) == {"head"}
    reason = task_rivals(sides[False])["ridge_flattened"].why_none
    assert reason == "the model gives no map or tokens of one size, batch first, before its pooling"


def test_rivals_compare_one_model_and_say_what_they_need() -> None:
    seen = observe(network(), NEW)
    torch.manual_seed(9)
    other = observe(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3)), NEW)
    with pytest.raises(resque.NotComparableError, match="weights"):
        shift_rivals(other, seen)
    with pytest.raises(resque.InputError, match="as `observe` saw them; got Observations and Cla"):
        shift_rivals(seen, seen.profile)  # type: ignore[arg-type]
    with pytest.raises(resque.InputError, match="as `observe` saw them; got ClassProfile"):
        task_rivals(seen.profile)  # type: ignore[arg-type]
    reason = shift_rivals(seen, seen)["arm"].why_none
    assert reason is not None
    assert "`observe(..., layers=True)` keeps those" in reason


def test_a_layer_is_seen_before_an_activation_writes_into_its_output() -> None:
    torch.manual_seed(0)
    first = nn.Linear(4, 6)
    model = nn.Sequential(first, nn.ReLU(inplace=True), nn.Linear(6, 2))
    given = torch.randn(40, 4)
    seen = observe(model, (given, torch.arange(40) % 2), layers=True)
    expected = first(given).detach().numpy()
    assert expected.min() < 0
    np.testing.assert_allclose(seen.layers["0"], expected, rtol=1e-5)


def test_a_layer_whose_rows_are_no_examples_is_kept_whole() -> None:
    """Which of its rows are whose is not known, so all of them are kept and compared."""

    class InParts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of_half = torch.nn.Linear(2, 3)
            self.head = torch.nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.of_half(x.reshape(-1, 2)).reshape(-1, 6))
            return found

    data = torch.randn(40, 4), torch.arange(40) % 2
    # None of the last batch.
    seen = observe(InParts(), data, layers=True, sampled=np.arange(0, 32, 4), batch_size=16)
    assert {name: values.shape for name, values in seen.layers.items()} == {
        "of_half": (80, 3),
        "head": (8, 2),
    }


# ---- in the record of an update -----------------------------------------------------------------


def test_an_update_takes_a_preflight_or_its_dict(found: Preflight) -> None:
    plain = json.loads(json.dumps(found.to_dict()))
    short = found.to_dict() | {"shift": None}
    for given, kept in ((found, plain), (found.to_dict(), plain), (short, plain | {"shift": None})):
        update = resque.retrain(
            network(), NEW, NEW, target=resque.Accuracy(0.01), meter="none", preflight=given
        ).update
        assert update.preflight == kept


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"values": {"mmd": 1.0}}, "got a dict with format None"),
        ({"format": "resque.ClassProfile/1"}, "got a dict with format 'resque.ClassProfile/1'"),
        (resque.Recipe(), "got a Recipe"),
        (resque.profile(None, (torch.eye(4), torch.tensor([0, 0, 1, 1]))), "got a ClassProfile"),
        (["values"], "got a list"),
    ],
)
def test_another_thing_is_no_preflight(given: Any, told: str) -> None:
    with pytest.raises(resque.InputError, match=f"resque.preflight returned.*{re.escape(told)}"):
        resque.retrain(
            network(), NEW, NEW, target=resque.Accuracy(0.01), meter="none", preflight=given
        )
