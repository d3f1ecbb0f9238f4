"""The design of the corpus, the runner of cells, and the file that the corpus is kept in."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import resque
from resque.experiments import cells as cells_module
from resque.experiments import runs
from resque.experiments.cells import RECIPES, Cell, settings_of, update_of
from resque.experiments.data_card import data_card
from resque.experiments.designs import (
    DATA,
    HELD_DATA,
    HELD_NETWORK,
    HELD_SEEDS,
    HELD_SHIFT,
    LEVELS,
    NETWORKS,
    SHIFTS,
    TASKS,
    corpus_design,
    digest,
)
from resque.experiments.runs import done, run
from resque.experiments.shifts import SHIFTS as KINDS
from resque.experiments.tasks import TASKS as NAMES
from resque.experiments.tasks import classes_of, task_data
from resque.forecasting.corpus import corpus_table, corpus_updates, rounded, write_corpus
from resque.history.table import epochs_to_share, table_of
from updates import update_of as update_with

CELLS = corpus_design()


def numbered(number: int) -> resque.Update:
    """An update that no other number has."""
    return update_with(epochs=float(number), labels={"number": str(number)})


# ---- the design ---------------------------------------------------------------------------------


def test_the_design_is_the_one_that_was_committed_before_the_first_run() -> None:
    """Changing it would make the corpus one of another design."""
    assert digest(CELLS) == "2cb8bf4f724aea85"


def test_no_cell_is_there_twice() -> None:
    assert len({cell.key for cell in CELLS}) == len(CELLS) == 653


def test_every_cell_can_be_made() -> None:
    for cell in CELLS:
        assert {cell.old, cell.new} <= {*NAMES}
        assert cell.shift in {"", *KINDS}
        assert (cell.level > 0) == bool(cell.shift)
        assert cell.recipe in RECIPES
        # A network whose classes are others starts with a fresh head, or from scratch.
        assert (cell.start == "weights") <= (cell.old == cell.new)
        assert cell.shift == "" or cell.kind == "shift"


def test_all_shifts_come_at_all_levels() -> None:
    seen = Counter((cell.shift, cell.level) for cell in CELLS if cell.shift)
    assert set(seen) == set(product((*SHIFTS, HELD_SHIFT), LEVELS))
    assert min(seen.values()) >= 7


def test_there_are_tasks_that_extend_what_is_known() -> None:
    kinds = Counter(cell.kind for cell in CELLS)
    assert len(TASKS) >= 12
    assert kinds["extension"] >= 5
    digits_signs = Cell(
        network="vit", old="digits_signs", new="digits_signs_vehicles", start="head"
    )
    assert digits_signs.kind == "extension"


def test_what_is_set_aside_is_set_aside_everywhere_and_has_three_seeds() -> None:
    seeds: dict[Cell, list[int]] = {}
    for cell in CELLS:
        aside = (
            cell.network == HELD_NETWORK
            or HELD_DATA in (cell.old, cell.new)
            or cell.shift == HELD_SHIFT
        )
        assert aside == bool(cell.held_out), cell.key
        if aside:
            seeds.setdefault(replace(cell, seed=0), []).append(cell.seed)
    assert {tuple(sorted(found)) for found in seeds.values()} == {HELD_SEEDS}
    assert {cell.held_out for cell in seeds} == {"network", "data", "shift"}


def test_networks_and_data_are_drawn_evenly() -> None:
    """Of shifts with one seed, each combination comes as often as any other, give or take one."""
    shifts = [
        cell
        for cell in CELLS
        if cell.shift and not cell.held_out and cell.seed == 0 and cell.start == "weights"
    ]
    seen = Counter((cell.network, cell.old, cell.recipe, cell.examples) for cell in shifts)
    assert len(seen) == len(NETWORKS) * len(DATA) * 2 * 2
    assert max(seen.values()) - min(seen.values()) <= 1


def test_a_cell_is_found_again_in_the_labels_of_its_update() -> None:
    for cell in CELLS[:50]:
        assert Cell.of(replace(numbered(1), labels=cell.labels())) == cell


# ---- running them -------------------------------------------------------------------------------


class Maker:
    """Stands for the training: counts what it is asked for, and stops when it is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.made: list[str] = []
        self.stop_after = stop_after

    def __call__(self, cell: Cell, folder: Path, **options: Any) -> resque.Update:
        if self.stop_after is not None and len(self.made) == self.stop_after:
            raise KeyboardInterrupt
        self.made.append(cell.key)
        return replace(numbered(len(self.made)), labels=cell.labels())


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after three of five, the run goes on with the fourth."""
    with resque.History(f"sqlite:///{tmp_path}/runs.db") as history:
        first = Maker(stop_after=3)
        monkeypatch.setattr(runs, "update_of", first)
        with pytest.raises(KeyboardInterrupt):
            run(CELLS[:5], history, tmp_path / "bases")
        assert done(history) == {(cell.key, settings_of(cell)) for cell in CELLS[:3]}
        second = Maker()
        monkeypatch.setattr(runs, "update_of", second)
        assert run(CELLS[:5], history, tmp_path / "bases") == 2
        assert second.made == [cell.key for cell in CELLS[3:5]]
        assert run(CELLS[:5], history, tmp_path / "bases") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be 1 or more; got 0"),
        ({"workers": 2, "meter": "codecarbon"}, "2 updates would share it"),
    ],
)
def test_workers_that_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    history = resque.History(f"sqlite:///{tmp_path}/runs.db")
    with pytest.raises(resque.InputError, match=message):
        run(CELLS[:1], history, tmp_path, **options)


SMALL = Cell(
    network="vit", old="mnist", new="mnist", shift="gaussian_blur", level=2, examples=60,
    recipe="fast",
)  # fmt: skip


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of seconds: what is tested is how cells are put together."""
    from resque.experiments import cells

    short = {name: replace(recipe, max_epochs=1) for name, recipe in RECIPES.items()}
    monkeypatch.setattr(cells, "RECIPES", short)
    monkeypatch.setattr(cells, "_BASE_EXAMPLES", 100)
    monkeypatch.setattr(cells, "_BASES", {"vit": short["fast"]})
    monkeypatch.setattr(cells, "VALIDATION_EXAMPLES", 40)
    monkeypatch.setattr(cells, "PREFLIGHT_EXAMPLES", 60)


@pytest.mark.usefixtures("_small", "real_data")
def test_an_update_of_a_shift_is_the_same_twice_and_has_its_preflight(tmp_path: Path) -> None:
    one, other = (update_of(SMALL, tmp_path) for _ in range(2))
    assert [point.accuracy for point in one.curve] == [point.accuracy for point in other.curve]
    assert one.preflight is not None
    assert other.preflight is not None
    assert one.preflight["values"] == other.preflight["values"]
    assert one.preflight["values"]["RESQUE_dist"] > 0
    assert "mixtures" not in one.preflight["task"]
    assert one.labels["cell"] == SMALL.key
    assert one.labels["strength"] == f"{KINDS['gaussian_blur'].levels[1]:g}"
    assert (one.data.training_examples, one.data.validation_examples) == (60, 40)
    (weights,) = tmp_path.iterdir()
    assert weights.name.startswith("vit_narrow_mnist_")
    assert 0 <= float(one.labels["test_accuracy"]) <= 1
    weights.write_bytes(b"torn")
    with pytest.raises(resque.InputError, match=r"mnist_\w+.safetensors' cannot be read .* Delete"):
        update_of(SMALL, tmp_path)


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("size", ["narrow", "full"])
@pytest.mark.parametrize("name", ["mnist", "cifar100_coarse_mini", "gtsrb", "digits_signs"])
def test_no_example_serves_twice(name: str, size: Any) -> None:
    """What a network is trained on is neither old nor new data of the pre-flight."""
    data = task_data(name)
    cell = Cell(network="vgg16", size=size, old=name, new=name)
    kept, of_base = cells_module._kept_places(data), cells_module._base_places(cell, data)
    assert not set(kept) & set(of_base)
    assert len(kept) >= 200
    parts = [set(part) for part in cells_module._test_places(data)]
    assert min(map(len, parts)) >= 100
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_an_update_with_other_settings_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resque.History(f"sqlite:///{tmp_path}/runs.db") as history:
        monkeypatch.setattr(runs, "update_of", Maker())
        assert run([SMALL], history, tmp_path / "bases") == 1
        assert run([SMALL], history, tmp_path / "bases") == 0
        slower = {name: replace(recipe, learning_rate=1e-5) for name, recipe in RECIPES.items()}
        monkeypatch.setattr(cells_module, "RECIPES", slower)
        assert run([SMALL], history, tmp_path / "bases") == 1


def test_one_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are made, and the failed one is named at the end, and tried again."""
    made = Maker()

    def fails_at_the_second(cell: Cell, folder: Path, **options: Any) -> resque.Update:
        if cell == CELLS[1]:
            raise resque.InputError("The loss became nan.")
        return made(cell, folder, **options)

    monkeypatch.setattr(runs, "update_of", fails_at_the_second)
    with resque.History(f"sqlite:///{tmp_path}/runs.db") as history:
        with pytest.raises(resque.InputError, match=r"1 of 3 updates .* The loss became nan"):
            run(CELLS[:3], history, tmp_path / "bases")
        assert made.made == [CELLS[0].key, CELLS[2].key]
        monkeypatch.setattr(runs, "update_of", made)
        assert run(CELLS[:3], history, tmp_path / "bases") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet"}, "no network 'resnet'. Did you mean 'resnet18'"),
        ({"new": "mnits"}, "no new 'mnits'. Did you mean 'mnist'"),
        ({"shift": "contrast"}, "level of 'contrast' must be 1 to 5; got 0"),
        ({"level": 2}, "level of 'no shift' must be 0 to 0; got 2"),
        ({"recipe": "quick"}, "no recipe 'quick'"),
    ],
)
def test_a_cell_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(resque.InputError, match=message):
        Cell(**({"network": "vit", "old": "mnist", "new": "mnist"} | options))


@pytest.mark.usefixtures("_small", "real_data")
@pytest.mark.parametrize("start", ["head", "scratch"])
def test_an_update_for_a_task(start: Any, tmp_path: Path) -> None:
    cell = Cell(network="vit", old="mnist", new="vehicles", start=start, examples=40)
    update = update_of(cell, tmp_path)
    assert update.data.class_names[0] == "cifar10: airplane"
    assert update.start == start
    assert update.preflight is not None
    assert update.preflight["values"]["RESQUE_dist"] is None
    assert update.preflight["values"]["classes"] == 4


@pytest.mark.usefixtures("real_data")
def test_a_task_of_parts_has_the_classes_of_all_of_them() -> None:
    data = task_data("digits_signs_vehicles")
    assert len(data.class_names) == 10 + 43 + 4
    assert len(classes_of("digits_signs_vehicles")) == 6
    for inputs, labels in (data.training, data.test):
        assert len(inputs) == len(labels)
        assert set(labels.tolist()) == set(range(57))
    inputs, labels = data.test
    ship = data.class_names.index("cifar10: ship")
    whole = task_data("cifar10")
    ships = whole.test[0][whole.test[1] == whole.class_names.index("ship")]
    assert (inputs[labels == ship] == ships).all()


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(resque.InputError, match="'digits_signs'"):
        task_data("digit_signs")


# ---- the file -----------------------------------------------------------------------------------


def test_the_corpus_comes_back_as_it_was(tmp_path: Path) -> None:
    updates = tuple(numbered(number) for number in range(5))
    write_corpus(updates, tmp_path / "corpus.parquet")
    assert corpus_updates(tmp_path / "corpus.parquet") == updates
    table = corpus_table(tmp_path / "corpus.parquet")
    assert table.epochs.tolist() == [update.epochs for update in updates]


def test_what_was_set_aside_is_given_to_those_who_ask(tmp_path: Path) -> None:
    aside = replace(numbered(2), labels={"held_out": "shift"})
    write_corpus((numbered(1), aside), tmp_path / "corpus.parquet")
    assert corpus_updates(tmp_path / "corpus.parquet") == (numbered(1),)
    assert len(corpus_table(tmp_path / "corpus.parquet")) == 1
    assert aside in corpus_updates(tmp_path / "corpus.parquet", held_out=True)


def test_six_digits_are_kept_of_what_is_long() -> None:
    """The measures themselves stay as they are; what is rounded stays so."""
    long = replace(
        numbered(1), preflight={"values": {"mmd": 1 / 3, "knn": None}, "notes": ["none"]}
    )
    short = rounded(long)
    assert short.preflight == {"values": {"mmd": 0.333333, "knn": None}, "notes": ["none"]}
    assert short.curve[1].validation_loss == 0.3
    assert short.duration_s == long.duration_s
    assert short.id != long.id
    assert rounded(short) == short
    assert resque.Update.from_dict(short.to_dict()) == short


def test_others_can_read_its_columns_without_us(tmp_path: Path) -> None:
    import pandas as pd

    write_corpus((numbered(3),), tmp_path / "corpus.parquet")
    table = pd.read_parquet(tmp_path / "corpus.parquet")
    assert table.epochs[0] == numbered(3).epochs


def test_a_file_that_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "corpus.parquet").write_bytes(b"no parquet")
    for name in ("corpus.parquet", "missing.parquet"):
        with pytest.raises(resque.InputError, match=f"{name}' is no corpus"):
            corpus_updates(tmp_path / name)


def test_nothing_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(resque.InputError, match="no updates to write"):
        write_corpus((), tmp_path / "corpus.parquet")


def test_the_epochs_to_a_share_of_the_peak() -> None:
    update = replace(
        numbered(1),
        peak_accuracy=0.8,
        curve=tuple(
            resque.Point(epoch=epoch, steps=10 * epoch, accuracy=accuracy)
            for epoch, accuracy in enumerate((0.1, 0.75, 0.79, 0.793, 0.8, 0.77))
        ),
    )
    assert epochs_to_share(update) == 3  # the first with 0.792 or more
    assert epochs_to_share(update, 1.0) == 4
    assert epochs_to_share(replace(update, curve=())) is None
    assert table_of([update]).epochs_to_peak_share[0] == 3


def test_the_card_counts_what_is_there() -> None:
    cells = (SMALL, replace(SMALL, seed=1), replace(SMALL, shift="contrast", held_out="shift"))
    card = data_card([replace(numbered(k), labels=c.labels()) for k, c in enumerate(cells)])
    assert "\n3 measured updates come with the package" in card
    assert "**653 have not been run yet**" in card  # none of these is of the design
    assert "| vit narrow | 3 |" in card
    assert "| gaussian_blur 2 | 2 |" in card
    assert "| shift | 1 |" in card
    assert "| fast | 0.001 | 20 epochs | 0.5 epochs |" in card
    assert "| gentle |" not in card
    design = [replace(numbered(k), labels=c.labels()) for k, c in enumerate(CELLS)]
    assert "all of them are here" in data_card(design)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("evidence.md", "What {} measured updates say"),
        ("forecast.md", "From {} updates of the"),
        ("choices.md", "from {} updates of"),
    ],
)
def test_pages_are_made_from_the_corpus_that_is_shipped(page: str, words: str) -> None:
    """A larger corpus makes each of them anew."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    assert words.format(len(corpus_updates())) in text
