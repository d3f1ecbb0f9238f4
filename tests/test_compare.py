"""Options side by side: costs, the answer, what would change it, and what cannot be compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import binom
from torch import nn
from torch.utils.data import DataLoader, Dataset

import resque
from resque.decision.candidate import Candidate, candidate, load_candidate
from resque.decision.compare import decide, with_more
from resque.decision.comparison import Comparison
from resque.errors import InputError
from resque.forecasting.forecaster import Forecaster
from resque.history.records import Accuracy, Plateau, Recipe
from resque.reporting.comparison_terminal import comparison_view
from simulated import curve_of, preflight_of, simulated

TARGET = Accuracy(0.8)
RECIPE = Recipe(max_epochs=40, validation_interval=0.5)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    """Knows updates that rise to 1 / (1 + exp(0.5 x - 1.5)), with a pace of 2 epochs."""
    rng = np.random.default_rng(0)
    updates = []
    for update in simulated(80, networks=1, network_sd=0.0):
        curve = curve_of(update.peak_accuracy or 0.0, 2.0 * math.exp(0.05 * rng.normal()), 20.0)
        updates.append(replace(update, curve=curve, epochs=20.0, ended="plateau"))
    return Forecaster(updates, corpus=False)


def retrained(name: str, x: float = -2.0, **changes: Any) -> Candidate:
    """An option whose pre-flight says x, and what a step costs."""
    places = {k: changes.pop(k) for k in ("grid", "seconds_per_step", "joules_per_step")
              if k in changes and name.startswith("elsewhere")}  # fmt: skip
    known = preflight_of(x, network="network 0", recipe=RECIPE, **changes)
    return Candidate(name=name, kind="retrain", preflight=known, **places)


def kept(correct: int, examples: int = 100) -> Candidate:
    return Candidate(name="keep", kind="keep", correct=correct, examples=examples)


def compared(forecaster: Forecaster, *candidates: Candidate, **options: Any) -> Comparison:
    return decide(
        candidates, forecaster=forecaster,
        **{"target": TARGET, "by": "hours", "confidence_level": 0.8} | options,
    )  # fmt: skip


def test_costs_are_those_of_the_forecast(forecaster: Forecaster) -> None:
    option = retrained("retrain", joules_per_step=30.0)
    found = compared(forecaster, option, grid=500.0).option("retrain")
    assert option.preflight is not None
    told = forecaster.forecast(
        option.preflight, target=TARGET, grid=500.0, confidence_level=0.8, from_scratch=False
    )
    for measure in ("epochs", "duration_s", "energy_kwh", "carbon_kg"):
        assert found.costs[measure] == getattr(told, measure)
    assert found.peak_accuracy == told.peak_accuracy
    assert found.reaches_target == told.reaches_target
    assert (found.costs["money"], found.missing["money"]) == (None, "no prices were given")


def test_the_cheapest_that_reaches_the_target(forecaster: Forecaster) -> None:
    """Both reach it in as many epochs; a step of one takes ten times as long as the other's."""
    slow = retrained("slow", seconds_per_step=1.0)
    found = compared(forecaster, slow, retrained("quick"), retrained("hopeless", 4.0), kept(60))
    assert (found.recommended, found.best, found.ties) == ("quick", "quick", ())
    assert found.option("hopeless").reaches_target < 0.2
    assert found.option("keep").reaches_target < 0.01
    assert found.answer.startswith("quick: it takes ")
    assert [one.name for one in found.options] == ["slow", "quick", "hopeless", "keep"]


def test_a_warning_names_its_options_unless_it_is_of_all(forecaster: Forecaster) -> None:
    """A network that nobody has seen is that of one option only."""
    new = retrained("new one")
    assert new.preflight is not None
    signature = replace(new.preflight.signature, model="network never seen")
    new = replace(new, preflight=replace(new.preflight, signature=signature))
    found = compared(forecaster, retrained("old one"), new, kept(60))
    notes = {one.name: one.forecast.notes for one in found.options if one.forecast}
    only = set(notes["new one"]) - set(notes["old one"])
    assert any("Known updates of this network (network never seen): 0" in note for note in only)
    console = Console(width=10_000, record=True, file=StringIO())
    console.print(comparison_view(found))
    lines = console.export_text().splitlines()
    for note in only:
        assert f"warning, new one: {note}" in lines
    for note in set(notes["new one"]) & set(notes["old one"]):
        assert f"warning: {note}" in lines


def test_options_alike_tie(forecaster: Forecaster) -> None:
    found = compared(forecaster, retrained("one"), retrained("other"))
    assert (found.recommended, found.ties) == ("one", ("other",))
    assert found.answer.endswith("; it cannot be told from other in time")


def test_a_model_that_is_good_enough_is_kept(forecaster: Forecaster) -> None:
    found = compared(forecaster, retrained("retrain"), kept(95))
    assert found.recommended == "keep"
    assert found.answer.startswith("keep: it costs nothing and is at 0.948 (0.915 to 0.97")
    costs = [cost for cost in found.option("keep").costs.values() if cost]
    assert [cost.unit for cost in costs] == ["epochs", "s", "kWh"]
    assert all((cost.median, cost.lower, cost.upper) == (0.0, 0.0, 0.0) for cost in costs)


def test_kept_models_tie(forecaster: Forecaster) -> None:
    """Both cost nothing; the surer one is named first, and the answer names the other."""
    found = compared(forecaster, replace(kept(94), name="old"), replace(kept(95), name="new"))
    assert (found.recommended, found.ties) == ("new", ("old",))
    assert found.answer.endswith("% probability; it cannot be told from old in time")


def test_few_examples_do_not_prove_a_kept_model_good(forecaster: Forecaster) -> None:
    """9 of 10 are 0.9, and may well be a model of 0.8."""
    assert compared(forecaster, kept(9, 10)).recommended is None
    assert compared(forecaster, kept(900, 1000)).recommended == "keep"


@pytest.mark.parametrize(("right", "answer"), [(243, "keep"), (240, "keep"), (237, "retrain")])
def test_on_the_same_validation_data_all_options_are_judged_alike(
    forecaster: Forecaster, right: int, answer: str
) -> None:
    """Of 300 examples 240 are the target: a model that shows them is kept, and not trained for 0.

    How far so few of them tell of others is in the interval of its accuracy.
    """
    option = retrained("retrain")
    assert option.preflight is not None
    probe = option.preflight.probe
    assert probe is not None
    known = replace(option.preflight, probe=replace(probe, accuracy_before=right / 300))
    as_it_is = replace(kept(right, 300), validated=True)
    found = compared(forecaster, as_it_is, replace(option, preflight=known))
    assert found.recommended == answer
    epochs = found.option("retrain").costs["epochs"]
    assert epochs is not None
    assert found.option("keep").reaches_target == float(right >= 240)
    assert (epochs.upper == 0) is (right >= 240)
    assert found.option("keep").peak_accuracy.lower < 0.8
    # A higher target is never the likelier one.
    chances = [
        compared(forecaster, replace(option, preflight=known), target=Accuracy(value))
        .option("retrain")
        .reaches_target
        for value in (0.7, 0.78, 0.79, 0.8, 0.81, 0.82, 0.85)
    ]
    assert chances == sorted(chances, reverse=True)


def test_the_interval_of_a_kept_model_covers(forecaster: Forecaster) -> None:
    """Jeffreys intervals cover a share of 0.87 about as often as they say; exact sum over all."""
    share, n = 0.87, 50
    covered = 0.0
    for correct in range(n + 1):
        accuracy = compared(forecaster, kept(correct, n)).option("keep").peak_accuracy
        if accuracy.lower <= share <= accuracy.upper:
            covered += binom(n, share).pmf(correct)
    # Discrete counts swing about the level; Brown, Cai and DasGupta show up to 0.05 at n = 50.
    assert covered == pytest.approx(0.8, abs=0.06)


def test_nothing_reaches_it(forecaster: Forecaster) -> None:
    found = compared(forecaster, retrained("hopeless", 4.0), retrained("less so", 0.5), kept(30))
    assert found.recommended is None
    assert found.best == "less so"
    assert found.answer.startswith("no option reaches 0.8 with 80% probability; the best that ")
    assert found.option("hopeless").cheaper is not None


def test_money(forecaster: Forecaster) -> None:
    prices = resque.Prices(per_kwh=10.0, per_hour=2.0, currency="EUR")
    found = compared(
        forecaster, retrained("a", joules_per_step=3e4), kept(0), by="money", prices=prices
    )
    costs = found.option("a").costs
    hours, energy, money = costs["duration_s"], costs["energy_kwh"], costs["money"]
    assert hours is not None
    assert energy is not None
    assert money is not None
    assert money.median == pytest.approx(2.0 * hours.median / 3600 + 10.0 * energy.median, rel=0.05)
    assert (money.unit, found.currency) == ("EUR", "EUR")
    assert found.to_dict()["prices"] == {"per_kwh": 10.0, "per_hour": 2.0, "currency": "EUR"}


# --- what would change the answer --------------------------------------------------------------


def changes(found: Comparison, kind: str) -> list[tuple[str, str | None]]:
    return [(change.what, change.recommended) for change in found.changes if change.kind == kind]


def test_another_measure(forecaster: Forecaster) -> None:
    """One is quick and hungry, the other slow and frugal."""
    hungry = retrained("hungry", seconds_per_step=0.1, joules_per_step=1e4)
    frugal = retrained("frugal", seconds_per_step=1.0, joules_per_step=1e2)
    found = compared(forecaster, hungry, frugal)
    assert found.recommended == "hungry"
    assert ("energy in place of time", "frugal") in changes(found, "measure")
    assert compared(forecaster, hungry, frugal, by="kwh").recommended == "frugal"


def test_a_lower_and_a_higher_target(forecaster: Forecaster) -> None:
    """Kept at 0.75 of many examples; retraining peaks at 0.92."""
    found = compared(forecaster, retrained("retrain"), kept(7500, 10000))
    lower, higher = changes(found, "target")
    assert lower == ("a target of 0.74", "keep")
    assert higher[1] is None
    target = float(higher[0].removeprefix("a target of "))
    assert (
        compared(forecaster, retrained("retrain"), kept(0), target=Accuracy(target)).recommended
        is None
    )
    assert (
        compared(
            forecaster, retrained("retrain"), kept(0), target=Accuracy(target - 0.01)
        ).recommended
        == "retrain"
    )


def test_another_grid(forecaster: Forecaster) -> None:
    """A clean grid for the hungry one: it wins below the break-even, and not above."""
    home = retrained("home", joules_per_step=10.0)
    away = retrained("elsewhere", joules_per_step=20.0)
    found = compared(forecaster, home, away, by="kg", grid=400.0)
    ((what, name),) = changes(found, "grid")
    assert name == "elsewhere"
    grams = float(what.split()[5])
    assert grams == pytest.approx(200.0, rel=0.02)
    for share, best in ((0.95, "elsewhere"), (1.05, "home")):
        moved = replace(away, grid=grams * share)
        assert compared(forecaster, home, moved, by="kg", grid=400.0).recommended == best


def test_more_data_are_more_steps() -> None:
    known = preflight_of(0.0, examples=650)
    more = with_more(known, 3)
    assert more.data.training_examples == 1950
    assert more.data.steps_per_epoch == math.ceil(1950 / 32)
    assert more.values["training_examples"] == 1950
    assert more.values["steps_per_epoch"] == math.ceil(1950 / 32)
    assert more.values["ridge"] == known.values["ridge"]


# --- from models and data ----------------------------------------------------------------------


def problem(seed: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(120) % 3
    inputs = torch.randn(120, 6, generator=generator)
    inputs[:, :3] += 2 * torch.eye(3)[labels]
    return inputs + shift, labels


def network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_models_are_compared(forecaster: Forecaster) -> None:
    model = network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[str] = []
    found = resque.compare(
        [
            resque.Keep(model),
            resque.Retrain(model, recipe=RECIPE),
            resque.Retrain(model, "head", recipe=replace(RECIPE, frozen="body")),
            resque.FromScratch(model, recipe=replace(RECIPE, frozen="body")),
        ],
        problem(1, 0.5), problem(2, 0.5), before=problem(0), target=TARGET, by="hours",
        history=forecaster.experience.updates, corpus=False, meter="none", confidence_level=0.8,
        each=seen.append, progress=False,
    )  # fmt: skip
    assert seen == ["keep", "retrain", "head", "from scratch"]
    assert not found.failures
    assert [one.kind for one in found.options] == ["keep", "retrain", "retrain", "from scratch"]
    recipes = [one.forecast.recipe for one in found.options if one.forecast]
    assert [(r.start, r.frozen) for r in recipes] == [
        ("weights", "none"), ("weights", "body"), ("scratch", "none"),
    ]  # fmt: skip
    with torch.no_grad():
        inputs, labels = problem(2, 0.5)
        correct = int((model(inputs).argmax(1) == labels).sum())
    kept_one = candidate(resque.Keep(model), problem(1, 0.5), problem(2, 0.5), progress=False)
    assert (kept_one.correct, kept_one.examples) == (correct, 120)
    assert Candidate.from_dict(kept_one.to_dict()) == kept_one
    signatures = [one.signature for one in found.options]
    assert all(one is not None and one.weights == signatures[1].weights for one in signatures)
    assert signatures[0] == kept_one.signature
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_twice(forecaster: Forecaster) -> None:
    """All but what a clock read is the same."""
    told = [
        resque.compare(
            [resque.Keep(network()), resque.Retrain(network(), recipe=RECIPE)],
            problem(1), target=TARGET, by="hours", history=forecaster.experience.updates,
            corpus=False, meter="none", confidence_level=0.8, progress=False,
        ).options[1].costs["epochs"]
        for _ in range(2)
    ]  # fmt: skip
    assert told[0] == told[1]


def test_a_model_that_fails_does_not_stop_the_others(forecaster: Forecaster) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of order")

    found = resque.compare(
        [resque.Keep(network()), resque.Retrain(Broken(), "broken")], problem(1), target=TARGET,
        by="hours", history=forecaster.experience.updates, corpus=False, meter="none",
        confidence_level=0.8, progress=False,
    )  # fmt: skip
    assert [one.name for one in found.options] == ["keep"]
    assert "out of order" in found.failures["broken"]
    assert "broken: failed: " in str(found)


def test_a_candidate_is_saved_and_read(tmp_path: Any) -> None:
    option = retrained("retrain")
    option.save(tmp_path / "one.json")
    assert load_candidate(tmp_path / "one.json") == option
    (tmp_path / "two.json").write_text("{}")
    with pytest.raises(InputError, match=r"two.json' holds no option: .* Delete it\."):
        load_candidate(tmp_path / "two.json")


class Numbered(Dataset[tuple[torch.Tensor, int]]):
    """Examples whose labels are not known before they are loaded."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        inputs, labels = problem(1)
        return inputs[place], int(labels[place])


def test_a_kept_model_takes_what_a_preflight_takes() -> None:
    """A Dataset without names of classes: a label is the output of that number."""
    pair = candidate(resque.Keep(network()), problem(1), progress=False)
    for data in (Numbered(), DataLoader(Numbered(), batch_size=16)):
        assert candidate(resque.Keep(network()), data, progress=False) == pair


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (resque.Keep(nn.Linear(6, 3)), "options must be a list, .*; got Keep"),
        ([nn.Linear(6, 3)], "An option is a resque.Keep, Retrain or FromScratch; got Linear"),
        ([resque.Keep(nn.Linear(6, 3), 3)], "The name of an option must be a text; got 3"),
        ([resque.Retrain(nn.Linear(6, 3), grid="FRB")], "There is no grid 'FRB'"),
        ([resque.Retrain(nn.Linear(6, 3), seconds_per_step=0)],
         "seconds_per_step of 'retrain' must be above 0; got 0"),
    ],
)  # fmt: skip
def test_impossible_options(options: Any, message: str) -> None:
    """They are told before any model is looked at."""
    seen: list[str] = []
    with pytest.raises(InputError, match=message):
        resque.compare(options, problem(1), target=TARGET, meter="none", each=seen.append)
    assert not seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": Plateau()}, r"target must be a resque.Accuracy; got Plateau\("),
        ({"by": "kW"}, "by must be one of kwh, kg, hours, money; got 'kW'"),
        ({"by": "kg"}, r"Carbon \(by='kg'\) needs the grid"),
        ({"by": "money"}, r"Money \(by='money'\) needs prices"),
        ({"prices": {"per_kwh": 1.0}}, r"prices must be resque.Prices, .*; got {'per_kwh': 1.0}"),
        ({"confidence_level": 1.0}, "got 1.0"),
        ({"by": "kwh"}, "retrain: its energy is not known: the pre-flight measured no joules"),
    ],
)
def test_impossible_questions(
    forecaster: Forecaster, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compared(forecaster, retrained("retrain"), **options)


def test_an_option_without_its_cost_is_not_compared(forecaster: Forecaster) -> None:
    found = compared(forecaster, retrained("unmetered"), kept(99), by="kwh")
    assert found.recommended == "keep"
    assert found.failures["unmetered"].startswith("its energy is not known: ")


def test_names_are_told_apart(forecaster: Forecaster) -> None:
    with pytest.raises(InputError, match="Two options are called 'retrain'"):
        compared(forecaster, retrained("retrain"), retrained("retrain"))
    with pytest.raises(InputError, match="There is nothing to compare"):
        compared(forecaster)
    with pytest.raises(InputError, match="no option 'keeep'; it has 'keep'"):
        compared(forecaster, kept(90)).option("keeep")


def test_an_empty_history() -> None:
    with pytest.raises(InputError, match="no update"):
        resque.compare(
            [resque.Keep(network())], problem(0), target=TARGET, history=[], corpus=False
        )


def test_a_retraining_from_scratch_is_none(forecaster: Forecaster) -> None:
    found = resque.compare(
        [
            resque.Keep(network()),
            resque.Retrain(network(), recipe=Recipe(start="scratch")),
        ],
        problem(0), target=TARGET, by="hours", history=forecaster.experience.updates,
        corpus=False, meter="none", confidence_level=0.8, progress=False,
    )  # fmt: skip
    assert "make it a FromScratch" in found.failures["retrain"]


def test_a_model_to_keep_must_know_the_classes() -> None:
    with pytest.raises(InputError, match="'keep' cannot be judged"):
        candidate(resque.Keep(nn.Linear(6, 2)), problem(0), progress=False)
    with pytest.raises(InputError, match="'keep' cannot be judged"):
        candidate(resque.Keep(network()), problem(0)[0], progress=False)


def test_a_model_to_keep_may_need_its_layer_named() -> None:
    """As for one to retrain; the signature says which, and how the data were prepared."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(6, 8)
            self.head = nn.Parameter(torch.randn(8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).relu() @ self.head

    with pytest.raises(InputError, match="Name the layer"):
        candidate(resque.Keep(Functional()), problem(0), progress=False)
    option = resque.Keep(Functional(), layer="body", preprocessing="as they are")
    found = candidate(option, problem(0), progress=False)
    assert found.examples == 120
    assert found.signature is not None
    assert found.signature.layer == "body"
    assert found.signature.preprocessing == "as they are"
