"""Reproductions: which updates, what they say, what is drawn, and that nothing is run twice."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resque
from resque import InputError, MissingExtraError, Update
from resque.cli import main
from resque.experiments import reproduce as module
from resque.experiments import runs
from resque.experiments.cells import Cell
from resque.experiments.designs import HELD_DATA, HELD_NETWORK, HELD_SHIFT
from resque.experiments.paper_claims import (
    PEAK,
    cost_claims,
    index_claims,
    learnt,
    pairs_of,
    rows_of,
    summary,
)
from resque.experiments.reproduce import PARTS, PRESETS, cells_of, reproduce
from resque.experiments.situations import CLAIMED
from resque.history.records import Grid
from resque.history.table import table_of
from resque.history.update import Point
from updates import reading_of
from updates import update_of as update_by_hand

pytest.importorskip("matplotlib", reason="figures need matplotlib")

Law = Callable[[Cell], Mapping[str, Any]]
GRID = Grid(grams_per_kwh=50.0, name="a turbine")


def index_of(cell: Cell) -> float:
    """A number that rises with the level, or differs between tasks, and with the network."""
    if cell.shift:
        return 0.05 * cell.level + 0.01 * len(cell.shift) + 0.002 * len(cell.network)
    return (sum(map(ord, cell.new)) % 97) / 100


def rising(cell: Cell) -> dict[str, Any]:
    """Everything costs more where the index is larger, and from scratch twice as much."""
    cost = (1 + 10 * index_of(cell)) * (2 if cell.start == "scratch" else 1)
    return {"epochs": cost, "peak_accuracy": 1 - index_of(cell)}


def falling(cell: Cell) -> dict[str, Any]:
    """The other way round: less where the index is larger, and half from scratch."""
    cost = 1 / (1 + 10 * index_of(cell)) / (2 if cell.start == "scratch" else 1)
    return {"epochs": cost, "peak_accuracy": index_of(cell)}


def doubtful(cell: Cell) -> dict[str, Any]:
    """For one kind of noise in three, and for one network in three from scratch, all is other."""
    found = rising(cell)
    if cell.shift == "gaussian_blur" and cell.start != "scratch":
        found["epochs"] = 3 + (7 * cell.level % 5) / 10
    if cell.start == "scratch" and cell.network == "vit":
        found["epochs"] /= 6
    return found


def made_of(
    cell: Cell, law: Law = rising, *, ended: str = "plateau", source: str | None = "counter"
) -> Update:
    """The update of a cell by a law, without training."""
    found = dict(law(cell))
    epochs, peak = float(found.pop("epochs")), float(found.pop("peak_accuracy"))
    index = "RESQUE_dist" if cell.kind == "shift" else "RESQUE_task"
    return update_by_hand(
        ended=ended,
        epochs=epochs,
        duration_s=10 * epochs,
        gradient_norm=epochs / 3,
        parameter_change=epochs / 100,
        peak_accuracy=peak,
        energy=None if source is None else reading_of(7e4 * epochs, source=source),
        grid=None,
        labels=cell.labels(),
        preflight={"values": {index: index_of(cell)}},
        recipe=resque.Recipe(start=cell.start),
        curve=(
            Point(epoch=0.0, steps=0, accuracy=0.0),
            Point(epoch=epochs, steps=9, accuracy=peak, seconds=10 * epochs),
        ),
    )


@pytest.fixture
def three_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset with a third network; the one for a CPU has two."""
    three = replace(PRESETS["cpu"], networks=("vgg16", "resnet18", "vit"))
    monkeypatch.setitem(PRESETS, "cpu", three)  # type: ignore[arg-type]


def table_by(law: Law, name: str, preset: str = "cpu", **options: Any) -> Any:
    """The table of a figure whose updates follow a law."""
    table = table_of([made_of(cell, law, **options) for cell in cells_of(name, preset)])
    table[PEAK.column] = 1 - table["peak_accuracy"]
    return table


def pairs_by(law: Law, name: str, **options: Any) -> Any:
    """The pairs of a figure of costs whose updates follow a law."""
    return pairs_of([made_of(cell, law, **options) for cell in cells_of(name, "cpu")])


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Updates are made by `rising` instead of trained; the keys of those made, in order."""
    made: list[str] = []

    def fake(cell: Cell, folder: Path, *, grid: Grid | None = None, **_: Any) -> Update:
        made.append(cell.key)
        return replace(made_of(cell), grid=grid)

    monkeypatch.setattr(runs, "update_of", fake)
    monkeypatch.setattr(module, "task_data", lambda name: None)
    return made


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not saved, which is what takes long."""
    monkeypatch.setattr(module, "saved", lambda figure, folder, name: ())


# --- which updates -----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_cells_of_a_preset_are_told_apart_and_shared(preset: str) -> None:
    """No two cells have one key, and those that two figures need are the same cell."""
    cells = cells_of("all", preset)
    assert len({cell.key for cell in cells}) == len(cells)
    assert set(cells) == {cell for part in PARTS for cell in cells_of(part, preset)}
    assert cells_of("measures-noise", preset) == cells_of("table-noise", preset)
    assert set(cells_of("accuracy-tasks", preset)) == set(cells_of("measures-tasks", preset))
    retrained = {cell for cell in cells_of("scratch-noise", preset) if cell.start != "scratch"}
    assert retrained < set(cells_of("measures-noise", preset))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", PARTS)
def test_every_preset_has_what_every_figure_shows(name: str, preset: str) -> None:
    """Costs have both ways for every network; correlations three updates or more in each group."""
    cells, chosen = cells_of(name, preset), PRESETS[preset]
    networks = set(chosen.networks)
    assert {"vit"} < networks
    if "noise" not in name and chosen.task_networks:
        networks = set(chosen.task_networks)
    assert {cell.network for cell in cells} == networks
    kinds = {cell.kind for cell in cells}
    assert kinds == ({"shift"} if "noise" in name else kinds - {"shift"})
    if name.startswith("scratch"):
        sides = [
            {learnt(cell) for cell in cells if (cell.start == "scratch") is scratch}
            for scratch in (True, False)
        ]
        assert sides[0] == sides[1]
    else:
        assert "scratch" not in {cell.start for cell in cells}
        groups = [(cell.network, cell.old) for cell in cells]
        assert min(groups.count(group) for group in set(groups)) >= 3


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_corpus_holds_out_is_not_looked_at(preset: str) -> None:
    """Neither the network, nor the data, nor the shift."""
    for cell in cells_of("all", preset):
        assert HELD_NETWORK != cell.network
        assert HELD_DATA not in (cell.old, cell.new)
        assert HELD_SHIFT != cell.shift


def test_presets_are_as_large_as_their_names_say() -> None:
    """The smallest trains two networks on three batches, the largest those of full size."""
    smoke, cpu, gpu = (cells_of("all", preset) for preset in ("smoke", "cpu", "gpu"))
    assert len(smoke) <= 12 < len(cpu) < len(gpu)
    assert {cell.base_name for cell in smoke} == {"vgg16 narrow mnist", "vit narrow mnist"}
    assert {96} == {cell.examples for cell in smoke}
    assert {"narrow"} == {cell.size for cell in cpu}
    assert {("full", "published")} == {(cell.size, cell.recipe) for cell in gpu}
    assert ["cpu", "cpu", "cuda"] == [PRESETS[name].device for name in ("smoke", "cpu", "gpu")]


# --- what they say -----------------------------------------------------------------------------


@pytest.mark.usefixtures("three_networks")
@pytest.mark.parametrize(
    ("law", "verdict"), [(rising, "held"), (doubtful, "partly"), (falling, "not")]
)
def test_verdicts_on_the_index(law: Law, verdict: str) -> None:
    """Epochs that rise, that rise but for one kind of noise, and that fall with the index."""
    claims = index_claims(table_by(law, "measures-noise"), "RESQUE_dist")
    assert [measure.column for measure in CLAIMED] == [
        "epochs_to_peak_share", "gradient_norm", "parameter_change", "duration_s", "energy_kwh",
        "carbon_kg",
    ]  # fmt: skip
    assert [verdict] * 5 + ["not tested"] == [claim.verdict for claim in claims]
    for claim in claims[:5]:
        assert claim.lower is not None
        assert verdict == ("held" if claim.lower >= 0.5 else "partly" if claim.lower > 0 else "not")
    words = {"held": "held", "partly": "partly held", "not": "not held"}[verdict]
    assert f"RESQUE_dist and epochs to 99 % of the peak: {words} (rank " in claims[0].sentence
    assert "; 90 updates, in 18 groups)." in claims[0].sentence
    assert claims[5].sentence == "RESQUE_dist and carbon (kg CO2e): not tested (no grid was given)."


@pytest.mark.usefixtures("three_networks")
@pytest.mark.parametrize(
    ("law", "verdict"), [(rising, "held"), (doubtful, "partly"), (falling, "not")]
)
def test_verdicts_on_costs(law: Law, verdict: str) -> None:
    """Half the cost of training from scratch, half but for one network, and twice."""
    claims, sentence = cost_claims(pairs_by(law, "scratch-noise"))
    assert [verdict] * 3 + ["not tested"] == [claim.verdict for claim in claims]
    if verdict != "partly":
        ratio = 0.5 if verdict == "held" else 2.0
        assert [ratio] * 3 == pytest.approx([claim.value for claim in claims[:3]])
    assert {18} == {claim.updates for claim in claims[:3]}
    assert re.search(r"until an accuracy of 0\.\d\d on average; in the end retrained", sentence)


def test_the_ratio_is_the_geometric_mean_over_pairs() -> None:
    """Against a loop over pairs found by hand; a run from scratch serves several old tasks."""
    law = lambda cell: {"epochs": 1 + len(cell.key) % 7, "peak_accuracy": 0.5}  # noqa: E731
    cells = cells_of("scratch-tasks", "cpu")
    scratch = {learnt(cell): law(cell)["epochs"] for cell in cells if cell.start == "scratch"}
    kept = [cell for cell in cells if cell.start != "scratch"]
    logs = [math.log(law(cell)["epochs"] / scratch[learnt(cell)]) for cell in kept]
    claim = cost_claims(pairs_by(law, "scratch-tasks"))[0][0]
    assert len(kept) == claim.updates > len(scratch)
    assert math.exp(sum(logs) / len(logs)) == pytest.approx(claim.value)


def test_modelled_energy_is_marked_and_no_evidence() -> None:
    """Its numbers are there, its verdict is not; seconds are tested."""
    table = table_by(rising, "measures-noise", source="model")
    *_, seconds, energy, carbon = index_claims(table, "RESQUE_dist")
    assert ("held", False) == (seconds.verdict, seconds.modelled)
    assert ("not tested", True) == (energy.verdict, energy.modelled)
    assert energy.value == pytest.approx(1.0)
    assert energy.measure == "energy (kWh, modelled)"
    assert "modelled, which is no evidence" in energy.sentence
    assert "no grid" in carbon.sentence
    costs, _ = cost_claims(pairs_by(rising, "scratch-noise", source="model"))
    assert ["held", "held", "not tested", "not tested"] == [claim.verdict for claim in costs]
    (row, *_) = rows_of(table, "RESQUE_dist")
    assert "energy (kWh, modelled)" in row.correlations


def test_without_a_meter_the_sentence_says_so() -> None:
    """No energy, no carbon, and why."""
    claims = index_claims(table_by(rising, "measures-noise", source=None), "RESQUE_dist")
    for claim in claims[4:]:
        assert ("not tested", None) == (claim.verdict, claim.value)
        assert "(no energy was metered)" in claim.sentence


@pytest.mark.usefixtures("three_networks")
def test_censored_updates_count_as_more_and_are_counted() -> None:
    """Cut off at 3 epochs where the index is large; others took longer, and they would have."""

    def cut(cell: Cell) -> dict[str, Any]:
        return rising(cell) | {"epochs": 3.0 if cell.level > 3 else rising(cell)["epochs"]}

    cells = cells_of("measures-noise", "cpu")
    made = [made_of(c, cut, ended="max_epochs" if c.level > 3 else "plateau") for c in cells]
    naive = [made_of(c, cut) for c in cells]
    found, ignored = (index_claims(table_of(m), "RESQUE_dist")[0] for m in (made, naive))
    assert found.value is not None
    assert ignored.value is not None
    assert found.value > ignored.value + 0.5
    assert (36, 0) == (found.censored, ignored.censored)
    assert "90 updates, 36 of them censored and counted as such" in found.sentence


def test_costs_are_those_to_the_same_accuracy() -> None:
    """By curves written out: 0.8 and 0.9 at the end, so that both are asked for 0.99 * 0.8.

    Retraining is there after 2 of its 8 epochs, and at the start, which costs it the first
    validation; from scratch it takes all 4. Of 8e-3 kWh in 80 s, those of 20 s are a quarter.
    """
    fresh, kept = (
        next(c for c in cells_of("scratch-noise", "smoke") if (c.start == "scratch") is scratch)
        for scratch in (True, False)
    )

    def with_curve(cell: Cell, *accuracies: float, ended: str = "plateau") -> Update:
        curve = tuple(
            Point(epoch=2.0 * k, steps=10 * k, accuracy=accuracy, seconds=20.0 if k else None)
            for k, accuracy in enumerate(accuracies)
        )
        last = curve[-1].epoch
        whole = made_of(cell, lambda _: {"epochs": last, "peak_accuracy": max(accuracies)})
        energy = reading_of(3.6e6 * 1e-3 * last)
        return replace(whole, curve=curve, duration_s=10 * last, energy=energy, ended=ended)  # type: ignore[arg-type]

    scratch = with_curve(fresh, 0.1, 0.5, 0.8)
    for start, later in ((0.3, 0.795), (0.85, 0.795), (0.3, 0.9)):
        pairs = pairs_of([with_curve(kept, start, later, 0.82, 0.9, 0.9), scratch])
        (pair,) = pairs.to_dict("records")
        assert pair["common_accuracy"] == pytest.approx(0.99 * 0.8)
        assert (pair["epochs"], pair["epochs_scratch"]) == (2.0, 4.0)
        assert (pair["duration_s"], pair["duration_s_scratch"]) == (20.0, 40.0)
        assert pair["energy_kwh"] == pytest.approx(8e-3 / 4)
        assert pair["energy_kwh_scratch"] == pytest.approx(4e-3)
        assert math.isnan(pair["carbon_kg"])
    # To its own plateau it would take twice as long as from scratch; to the same accuracy, half.
    (claim, *_), _ = cost_claims(pairs)
    assert claim.value == pytest.approx(0.5)
    # Cut off below: it is the one from scratch that is asked for less.
    pairs = pairs_of([with_curve(kept, 0.3, 0.4, ended="max_epochs"), scratch])
    assert pairs["common_accuracy"].tolist() == pytest.approx([0.99 * 0.4])
    (claim, *_), _ = cost_claims(pairs)
    assert "1 pairs, in which retraining was cut off 1 times beyond it" in claim.sentence
    assert pairs_of([replace(with_curve(kept, 0.3), curve=()), scratch]).empty


@pytest.mark.usefixtures("three_networks")
def test_correlations_are_within_networks_and_data() -> None:
    """A network that is slower throughout, with a larger index, makes no correlation."""
    rng = np.random.default_rng(3)
    noise = {cell.key: rng.uniform() for cell in cells_of("measures-noise", "cpu")}

    def confounded(cell: Cell) -> dict[str, Any]:
        return {"epochs": 100.0 * len(cell.network) + noise[cell.key], "peak_accuracy": 0.5}

    table = table_by(confounded, "measures-noise")
    table["preflight:RESQUE_dist"] += 10 * table["label:network"].str.len()
    value = index_claims(table, "RESQUE_dist")[0].value
    # Six groups of 15: the mean of their correlations has a standard deviation of 0.11.
    assert value is not None
    assert abs(value) < 0.33
    pooled = table[["preflight:RESQUE_dist", "epochs_to_peak_share"]].corr("spearman").iloc[0, 1]
    assert pooled > 0.8


def test_few_groups_are_said_to_be_few() -> None:
    """The smallest preset has two, which test nothing; six test, and are said to be few."""
    smoke = index_claims(table_by(rising, "measures-noise", "smoke"), "RESQUE_dist")
    assert {claim.verdict for claim in smoke} == {"not tested"}
    assert "in 2 groups, where 5 are needed" in smoke[0].sentence
    whole = table_by(rising, "measures-noise")
    told = summary(index_claims(whole, "RESQUE_dist"))
    assert "too narrow" not in told
    group = whole[["label:network", "label:old", "label:shift"]].agg("|".join, axis=1)
    six = whole[group.isin(sorted(set(group))[:6])]
    told = summary(index_claims(six, "RESQUE_dist"))
    assert "The claim is held for epochs to 99 % of the peak, gradient norm, " in told
    assert "The intervals rest on 6 groups, which makes them too narrow." in told


def test_an_index_that_does_not_differ_tests_nothing() -> None:
    """A constant has no correlation; nothing is printed as NaN."""
    table = table_by(rising, "measures-noise")
    table["preflight:RESQUE_dist"] = 0.1
    for claim in index_claims(table, "RESQUE_dist"):
        assert ("not tested", None) == (claim.verdict, claim.value)
        assert "nan" not in claim.sentence.lower()


def test_updates_without_a_number_are_left_out() -> None:
    """One without an index is not behind the claim, and not counted."""
    table = table_by(rising, "measures-tasks")
    table.loc[3, "preflight:RESQUE_task"] = np.nan
    claims = index_claims(table, "RESQUE_task", (*CLAIMED, PEAK))
    assert {len(table) - 1} == {claim.updates for claim in claims if claim.value is not None}
    assert "held" == claims[-1].verdict


# --- the reproduction --------------------------------------------------------------------------


def run_smoke(name: str, folder: Path, **options: Any) -> module.Reproduction:
    return reproduce(
        name, preset="smoke", folder=folder, **({"meter": "none", "progress": False} | options)
    )


def test_a_reproduction_writes_every_figure_and_a_page(maker: list[str], tmp_path: Path) -> None:
    """SVG, PNG, the data with one row per update, and all sentences on one page."""
    found = run_smoke("all", tmp_path, grid=GRID)
    assert [cell.key for cell in cells_of("all", "smoke")] == maker
    assert (len(maker), len(maker)) == (found.updates, found.made)
    page = (tmp_path / "reproduction.md").read_text(encoding="utf-8")
    for result in found.results:
        for file in result.files:
            assert (tmp_path / file).stat().st_size > 1000
        lines = (tmp_path / f"{result.name}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + len(cells_of(result.name, "smoke"))
        assert result.sentence in page
        assert all(claim.sentence in page for claim in result.claims)
        assert f"({result.name}.png)" in page
    assert list(PARTS) == [result.name for result in found.results]
    assert "| vgg16 | mnist | 3 | 0 |" in page
    assert "nan" not in page.lower()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["made"] == len(maker)


def test_figures_are_the_same_for_the_same_updates(
    maker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No date and no random name is in them."""
    monkeypatch.setattr(module, "PARTS", {"accuracy-tasks": PARTS["accuracy-tasks"]})
    run_smoke("accuracy-tasks", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("accuracy-tasks.*")}
    run_smoke("accuracy-tasks", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("accuracy-tasks.*")} == before
    assert {".svg", ".png", ".csv"} == {Path(name).suffix for name in before}


def test_finished_updates_are_not_made_again(
    undrawn: None, maker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run goes on behind its last finished update; a second one makes nothing."""
    whole = runs.update_of

    def killed(cell: Cell, folder: Path, **options: Any) -> Update:
        if len(maker) == 4:
            raise KeyboardInterrupt
        return whole(cell, folder, **options)

    monkeypatch.setattr(runs, "update_of", killed)
    with pytest.raises(KeyboardInterrupt):
        run_smoke("measures-noise", tmp_path)
    monkeypatch.setattr(runs, "update_of", whole)
    assert run_smoke("measures-noise", tmp_path).made == 2
    assert [cell.key for cell in cells_of("measures-noise", "smoke")] == maker
    monkeypatch.setattr(module, "task_data", lambda name: pytest.fail("no data are needed"))
    assert run_smoke("table-noise", tmp_path).made == 0
    assert "## RESQUE_dist and each measure" in (tmp_path / "reproduction.md").read_text("utf-8")


def test_updates_of_another_preset_are_ignored(
    undrawn: None, maker: list[str], tmp_path: Path
) -> None:
    """They stay in the history, and no figure of this preset rests on them."""
    with resque.History(f"sqlite:///{tmp_path / 'history.db'}") as history:
        for cell in cells_of("measures-noise", "cpu")[:4]:
            history.add(made_of(cell, falling))
        history.add(update_by_hand())
    (result,) = run_smoke("measures-noise", tmp_path).results
    assert {6} == {claim.updates for claim in result.claims[:4]}
    # Those of the other preset fall; were they counted, the correlation would.
    assert result.claims[0].value == pytest.approx(1.0)
    with resque.History(f"sqlite:///{tmp_path / 'history.db'}") as history:
        assert len(history) == 11


def test_a_grid_costs_what_was_run_without_one(
    undrawn: None, maker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All updates are costed again, and two grids are not mixed."""
    monkeypatch.setattr(module, "PARTS", {"measures-noise": PARTS["measures-noise"]})
    tasks = [replace(cell, start="head", new="gtsrb") for cell in cells_of("all", "smoke")]
    (result,) = run_smoke("measures-noise", tmp_path).results
    assert (None, 0) == (result.claims[-1].value, result.claims[-1].updates)
    (result,) = run_smoke("measures-noise", tmp_path, grid=GRID).results
    assert result.claims[-1].value == pytest.approx(1.0)
    assert 6 == result.claims[-1].updates
    with resque.History(f"sqlite:///{tmp_path / 'history.db'}") as history:
        for cell, grams in zip(tasks, (1.0, 2.0), strict=False):
            history.add(replace(made_of(cell), grid=Grid(grams_per_kwh=grams, name="given")))
    with pytest.raises(InputError, match=r"1 g CO2e/kWh .*; 2 g CO2e/kWh .*--grid"):
        run_smoke("measures-noise", tmp_path)
    assert run_smoke("measures-noise", tmp_path, grid=GRID).made == 0


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `resque reproduce` in an empty folder; its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["reproduce", *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


SMOKE = ("--preset", "smoke", "--meter", "none")


def test_the_command_prints_sentences(
    undrawn: None, maker: list[str], command: Any, tmp_path: Path
) -> None:
    """The sentences on stdout, where the files are on stderr, and everything as JSON."""
    status, out, err = command("scratch-noise", *SMOKE, "--grid", "FRA")
    assert status == 0
    told = "Retraining costs less, epochs: not tested (0.50 of training from scratch to the same"
    assert f"{told} accuracy, no interval; " in out
    assert f"4 updates, 4 made now, in {tmp_path / 'resque-reproduction'}" in err
    status, out, err = command("scratch-noise", *SMOKE, "--grid", "FRA", "--json")
    found = json.loads(out)
    assert (0, 4, 0) == (status, found["updates"], found["made"])
    assert "not tested" == found["results"][0]["claims"][0]["verdict"]
    assert found["results"][0]["claims"][0]["value"] == pytest.approx(0.5)
    assert found["results"][0]["claims"][0]["value"] == pytest.approx(0.5)


def test_ctrl_c_says_how_to_go_on(
    maker: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 130, and the finished updates are there."""
    whole = runs.update_of

    def killed(cell: Cell, folder: Path, **options: Any) -> Update:
        if len(maker) == 3:
            raise KeyboardInterrupt
        return whole(cell, folder, **options)

    monkeypatch.setattr(runs, "update_of", killed)
    status, out, err = command("measures-noise", *SMOKE)
    assert (130, "") == (status, out)
    assert "interrupted; the same command goes on" in err
    assert "'resque-reproduction/history.db'" in err
    with resque.History("sqlite:///resque-reproduction/history.db") as history:
        assert len(history) == 3


def test_the_corpus_is_run_and_counted(
    maker: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No figure; a second run makes nothing."""
    cells = cells_of("all", "smoke")[:3]
    monkeypatch.setattr(module, "corpus_design", lambda: cells)
    status, out, _ = command("corpus", "--meter", "none")
    assert status == 0
    assert out.startswith("3 updates of the corpus, 3 made now, in ")
    status, out, _ = command("corpus", "--meter", "none", "--json")
    assert (0, 3, 0) == (status, json.loads(out)["updates"], json.loads(out)["made"])
    assert not list(Path("resque-reproduction").glob("*.svg"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("measures-nois",),
            "no figure, table or .* 'measures-nois'; .*Did you mean 'measures-noi",
        ),
        (("corpsu",), "no .*corpus 'corpsu'; expected scratch-.*, corpus. Did you mean 'corpus'?"),
        (("corpsu", "--workers", "2"), "Did you mean 'corpus'?"),
        (("all", "--preset", "smok"), "no preset 'smok'; expected smoke, cpu, gpu. Did you mean"),
        (("all", "--output", "file"), "'file' is a file; expected a folder"),
        (("all", "--workers", "2"), "--workers is for the corpus; .* one at a time"),
        (("corpus", "--preset", "cpu"), "corpus has one design; leave --preset away"),
        (("corpus", "--workers", "2", "--meter", "codecarbon"), "2 updates would share it"),
        (("all", *SMOKE[:2], "--meter", "watts"), "no meter 'watts'"),
        (("all", "--grid", "Atlantis"), "'Atlantis'"),
        (("all", "--workers", "0"), "whole number of 1 or more; got '0'"),
    ],
)
def test_bad_input_is_one_line(
    words: Iterable[str], said: str, maker: list[str], command: Any, tmp_path: Path
) -> None:
    """Exit status 2, what came, and what to do."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    status, out, err = command(*words)
    assert (2, "") == (status, out)
    assert re.search(said, err), err
    assert 1 == len(err.strip().splitlines())
    assert [] == maker


def test_data_that_are_not_there_are_named_at_once(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained."""
    from resque.experiments.tasks import task_data

    task_data.cache_clear()
    monkeypatch.delenv("RESQUE_DATA", raising=False)
    status, _, err = command("all", *SMOKE)
    assert 2 == status
    assert "RESQUE_DATA" in err


@pytest.mark.parametrize(("package", "extra"), [("matplotlib", "report"), ("timm", "vision")])
def test_a_missing_extra_is_named(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is trained, and no folder is left behind."""
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*resque\[{extra}\]"):
        run_smoke("all", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_largest_preset_needs_a_gpu(
    maker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused where there is none, and not run on the CPU for days."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"CUDA device, and torch finds none.*--preset cpu"):
        reproduce("all", preset="gpu", folder=tmp_path, meter="none")
    assert [] == maker


@pytest.mark.slow
def test_the_smallest_preset_runs(real_data: Path, tmp_path: Path) -> None:
    """All figures from updates that are really trained, and nothing is trained twice."""
    pytest.importorskip("timm", reason="the ViT needs timm")
    pytest.importorskip("torchvision", reason="VGG16 needs torchvision")
    found = run_smoke("all", tmp_path)
    assert found.made == found.updates == len(cells_of("all", "smoke"))
    assert list(PARTS) == [result.name for result in found.results]
    assert all((tmp_path / file).is_file() for result in found.results for file in result.files)
    assert run_smoke("all", tmp_path).made == 0
