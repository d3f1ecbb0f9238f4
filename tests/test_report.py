"""The report: what it tells of each object, as a page, as figures and as tables."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import resque
from forecasts import forecast_of
from resque.decision.comparison import Change, Compared, Comparison
from resque.decision.plan import Plan, plan
from resque.errors import InputError, MissingExtraError
from resque.forecasting.backtest import Backtest, Foretold, Score
from resque.forecasting.forecast import UNITS, Estimate, Forecast
from resque.forecasting.forecaster import Forecaster
from resque.forecasting.preflight import Preflight
from resque.history.records import Component, EnergyReading, Grid
from resque.history.update import Update
from resque.index.shift import ShiftIndex
from resque.index.task import TaskIndex
from resque.notebook import shown_in_notebook
from resque.reporting import html, report_figures, report_sections, report_tables
from resque.reporting.html import Report, notebook_view, report
from series import steady
from simulated import TARGET, preflight_of, simulated
from updates import SIGNATURE, reading_of, update_of

HOSTILE = "<script>alert('x')</script>\"&--><b>"
VOID = {"meta", "link", "br", "path", "use", "rect"}
ANY = Estimate(median=1.0, lower=0.5, upper=2.0, unit="")


# --- objects to be told of ---------------------------------------------------------------------


def shift_of(
    names: tuple[str, ...] = ("ant", "bee", "cow", "dog"), *, move: float = 0.3, per_class: int = 40
) -> ShiftIndex:
    """The shift between two samples of classes, each of which moves more than the last."""
    rng = np.random.default_rng(5)
    means = rng.normal(1, 1, (len(names), 8))
    steps = rng.normal(size=(len(names), 8)) * np.arange(len(names))[:, None]
    labels = np.arange(len(names) * per_class) % len(names)
    sides = [
        resque.profile(
            None, ((means + by * steps)[labels] + 0.3 * rng.normal(size=(len(labels), 8)), labels),
            class_names=names, ids=np.arange(len(labels)) + 10_000 * place,
        )
        for place, by in enumerate((0.0, move))
    ]  # fmt: skip
    return resque.shift_index(*sides)


def comparison_of(**changes: Any) -> Comparison:
    """Three options, of which the second is the cheapest that reaches the target."""

    def option(name: str, kwh: float, reaches: float, cheaper: float | None) -> Compared:
        cost = Estimate(median=kwh, lower=0.5 * kwh, upper=2 * kwh, unit="kWh")
        return Compared(
            name=name, kind="retrain" if kwh else "keep",
            signature=replace(SIGNATURE, model="m") if kwh else None,
            costs={"epochs": replace(cost, unit="epochs"), "duration_s": None, "energy_kwh": cost,
                   "carbon_kg": None, "money": None},
            missing={"carbon_kg": "no grid was given"},
            peak_accuracy=Estimate(median=0.9, lower=0.85, upper=0.95, unit=""),
            reaches_target=reaches, on_front=True, cheaper=cheaper, forecast=None,
        )  # fmt: skip

    whole = Comparison(
        recommended="head", best="head", ties=(),
        options=(option("keep", 0.0, 0.1, 1.0), option("head", 0.2, 0.95, None),
                 option("all", 2.0, 0.99, 0.03)),
        failures={"broken": "no such weights"},
        changes=(Change(kind="target", what="a target of 0.95", recommended="all", differs=True),),
        target=resque.Accuracy(0.9), by="kwh", confidence_level=0.9,
    )  # fmt: skip
    return replace(whole, **changes)


def backtest_of() -> Backtest:
    row = Foretold(
        update="u", target=resque.Accuracy(0.9), group="g", method="forecast",
        epochs=(1.0, 1.0, 1.0), accuracy=(0.9, 0.9, 0.9), reaches=0.9, true_epochs=1.0,
        true_accuracy=0.9, reached=True, pinball=0.1,
    )  # fmt: skip
    names = ("epochs_error", "epochs_coverage", "epochs_width", "pinball", "accuracy_error",
             "brier")  # fmt: skip
    values = {name: (0.1 + 0.01 * place, 0.0, 1.0) for place, name in enumerate(names)}
    return Backtest(
        hold_out="time", target=resque.Accuracy(0.9), foretold=(row,),
        scores=(Score(method="forecast", updates=7, groups=7, values=values),),
    )  # fmt: skip


def updates_of(n: int = 6) -> list[Update]:
    """Updates with an index, some from scratch, some censored, with energy of two parts."""
    parts = (
        Component(name="cpu", joules=3600.0, source="model", relative_error=0.5),
        Component(name="gpu", joules=7200.0, source="counter", relative_error=0.05),
        Component(name="ram", joules=100.0, source="constant", relative_error=1.0, counted=False),
    )
    reading = EnergyReading(components=parts, seconds=60.0, meter="replay 1")
    return [
        update_of(
            number=number,
            started=f"2026-01-{number % 28 + 1:02}T0{number % 10}:00:00+00:00",
            index={"index": "RESQUE_dist", "value": 0.1 * number, "debiased": 0.09 * number},
            recipe=resque.Recipe(start="scratch" if number % 3 == 0 else "weights"),
            ended="max_epochs" if number == 1 else "target",
            epochs=1.0 + number,
            energy=reading,
        )
        for number in range(n)
    ]


@pytest.fixture(scope="module")
def shift() -> ShiftIndex:
    return shift_of()


@pytest.fixture(scope="module")
def task() -> TaskIndex:
    rng = np.random.default_rng(0)
    return resque.task_index(None, (rng.normal(size=(90, 4)), np.arange(90) % 3))


@pytest.fixture(scope="module")
def known() -> Preflight:
    """A pre-flight with an index of the shift and of the task."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 4, generator=generator), torch.arange(96) % 2
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    return resque.preflight(
        model, (x + 1, y), before=(x, y), meter="none", model_name="small", progress=False
    )


@pytest.fixture(scope="module")
def whole(shift: ShiftIndex, task: TaskIndex, known: Preflight) -> Report:
    """A report of nearly everything."""
    return report(
        title="All of it", shift=shift, task=task, preflight=known, comparison=comparison_of(),
        forecast=forecast_of(from_scratch=forecast_of(reaches_target=0.5), notes=("beware",)),
        history=updates_of(), command="resque report -o all.html",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(whole: Report) -> str:
    return whole.to_html()


# --- a reader of pages -------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page; it complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.captions: list[bool] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len({name for name, _ in attrs}), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.captions.append(False)
        if tag == "caption":
            self.captions[-1] = True
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert tag == self.open.pop(), f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def section_ids(page: str) -> list[str | None]:
    return [one.get("id") for one in Page(page).all("section")]


# --- the page ----------------------------------------------------------------------------------


def test_page_is_well_formed(page: str) -> None:
    """Tags match, ids are unique, every link of the page leads to a place on it."""
    assert page.startswith("<!DOCTYPE html>\n<html lang=")
    read = Page(page)
    ids = [of["id"] for _, of in read.elements if "id" in of]
    assert len(ids) == len(set(ids))
    links = [one["href"] or "" for one in read.all("a", "use")]
    assert {link[1:] for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)
    clips = set(re.findall(r"url\(#([^)]*)\)", page))
    assert clips
    assert clips <= set(ids)


def test_page_can_be_read_aloud(page: str) -> None:
    """Headings are in order, tables have captions and scopes, figures words, frames names."""
    read = Page(page)
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert read.captions
    assert all(read.captions)
    assert {"col", "row"} == {one.get("scope") for one in read.all("th")}
    drawings = read.all("svg")
    assert len(drawings) == 4
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings)
    frames = [one for one in read.all("div") if one.get("role") == "region"]
    names = [one["aria-label"] for one in frames]
    assert len(names) == len(set(names))
    assert all(one["tabindex"] == "0" for one in frames)


def test_page_needs_nothing_but_itself(page: str) -> None:
    """No script, no address of anything elsewhere, and a policy that would forbid both."""
    read = Page(page)
    assert [] == read.all("script", "img", "iframe", "object", "form", "input", "button")
    assert not re.search(r"\bon\w+=|javascript:|@import|https?://", page)
    (policy,) = (o for o in read.all("meta") if o.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none';")
    assert [{"rel": "icon", "href": "data:,"}] == read.all("link")


def test_page_has_a_section_for_each_object_and_no_other(
    shift: ShiftIndex, task: TaskIndex, known: Preflight
) -> None:
    """And what cannot be seen, and how to make it again."""
    bare = replace(known, shift=None, task=None)
    told: list[tuple[dict[str, Any], list[str]]] = [
        ({"shift": shift}, ["shift", "limits", "origin"]),
        ({"task": task}, ["task", "limits", "origin"]),
        ({"preflight": known}, ["shift", "task", "limits", "preflight", "origin"]),
        ({"preflight": bare}, ["preflight", "origin"]),
        ({"forecast": forecast_of()}, ["forecast", "limits", "origin"]),
        ({"comparison": comparison_of()}, ["options", "limits", "origin"]),
        ({"history": updates_of(2)}, ["history", "energy", "limits", "origin"]),
    ]
    for given, expected in told:
        made = report(**given, command="resque report")
        assert expected == section_ids(made.to_html()), given
        assert expected == [link[1:] for link in nav(made.to_html())]


def nav(page: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)">', page[page.index("<nav") : page.index("</nav>")])


def test_the_origin_is_told_where_there_is_one() -> None:
    """A comparison has no signature, and a report from Python may have no command."""
    assert "origin" not in section_ids(report(comparison=comparison_of()).to_html())
    text = Page(
        report(forecast=forecast_of(), command="resque report -o 'a b.html'").to_html()
    ).text
    assert "resque report -o 'a b.html'" in text
    assert SIGNATURE.weights in text


def test_the_answer_is_one_sentence(shift: ShiftIndex, task: TaskIndex) -> None:
    """What is most decided comes first: options, else index and forecast, else the past."""
    assert (
        "head: it takes 0.2 kWh (0.1 to 0.4) of energy, and reaches 0.9 with 95% probability."
        == report(shift=shift, comparison=comparison_of()).answer()
    )
    assert (
        f"The classes have moved by {shift.debiased:.4f} (90% interval {shift.lower:.4f} to "
        f"{shift.upper:.4f}; RESQUE_dist {shift.value:.4f}, and {shift.floor:.4f} without any "
        "shift); an update until accuracy 0.9 would take 5 epochs (1 to 10) and 0.5 kWh (0.1 to "
        "1), and meets its target with 90% probability."
        == report(shift=shift, task=task, forecast=forecast_of()).answer()
    )
    assert report(task=task).answer().startswith(f"RESQUE_task is {task.value:.4f} (0: the model")
    assert (
        "6 measured updates took 3.5 epochs in the median (1 to 6), and 5 met their target."
        == report(history=updates_of()).answer()
    )


def test_no_movement_and_too_little_data_are_said_to_be_so() -> None:
    """An index above its floor is no movement yet."""
    unmoved = shift_of(move=0.0)
    assert unmoved.p_value is not None
    assert unmoved.p_value > 0.05
    expected = f"No movement of the classes can be told from chance (p = {unmoved.p_value:.2g}; "
    assert report(shift=unmoved).answer().startswith(expected)
    few = replace(unmoved, debiased=None, lower=None, upper=None, p_value=None)
    assert report(shift=few).answer().startswith("The data are too few to tell whether the classes")
    untested = replace(unmoved, lower=None, upper=None, p_value=None)
    assert ", without a test (RESQUE_dist" in report(shift=untested).answer()
    assert "no interval: too few groups" in Page(report(shift=untested).to_html()).text


def test_every_number_on_top_has_its_interval(whole: Report, shift: ShiftIndex) -> None:
    """A forecast without one is no forecast."""
    facts = {fact.label: (fact.value, fact.detail) for fact in whole.facts()}
    assert {
        "recommended": ("head", "retrain"),
        "energy": ("0.2 kWh", "90% interval 0.1 to 0.4"),
        "peak accuracy": ("0.9", "90% interval 0.85 to 0.95"),
        "reaches the target": ("95%", "accuracy 0.9"),
    } == facts
    facts = {
        f.label: (f.value, f.detail) for f in report(shift=shift, forecast=forecast_of()).facts()
    }
    assert facts["RESQUE_dist"] == (f"{shift.value:.4f}", f"floor {shift.floor:.4f}")
    assert facts["time"] == ("30 min", "90% interval 6 to 60")
    assert facts["meets its target"] == ("90%", "accuracy 0.9")


def test_notes_reasons_and_failures_are_told(whole: Report, page: str) -> None:
    """Whatever the objects say of their own trustworthiness is on the page."""
    text = Page(page).text
    assert whole.forecast is not None
    for words in ("beware", str(whole.forecast.track_record), "the pre-flight measured none",
                  "broken left out", "no such weights", "with a target of 0.95: all",
                  "Known were 10 own updates and 0 of the corpus"):  # fmt: skip
        assert words in text, words
    for warning in whole.shift.warnings if whole.shift else ():
        assert warning in text


def test_the_same_objects_give_the_same_bytes(whole: Report, page: str, tmp_path: Path) -> None:
    """There is no date of today and no random name in it, nor in its figures and tables."""
    assert page == whole.to_html()
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        whole.save_figures(folder, "pdf")
        whole.save_tables(folder)
    assert [path.name for path in one.iterdir()] == [path.name for path in other.iterdir()]
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_whatever_users_wrote_stays_words(known: Preflight) -> None:
    """Names of classes, models, options and labels, titles, commands and notes are no markup."""
    names = (HOSTILE, "$\\frac{$", "a\x01b", "名前")
    hostile = replace(SIGNATURE, model=HOSTILE)
    made = report(
        title=HOSTILE,
        shift=replace(shift_of(names), warnings=(HOSTILE,)),
        preflight=replace(known, notes=(HOSTILE,), missing=dict.fromkeys(known.missing, HOSTILE)),
        forecast=forecast_of(notes=(HOSTILE,), machine=HOSTILE, signature=hostile),
        comparison=comparison_of(
            options=(replace(comparison_of().options[0], name=HOSTILE, signature=hostile),),
            best=HOSTILE, recommended=HOSTILE, failures={HOSTILE: HOSTILE},
        ),
        history=[replace(u, labels={HOSTILE: HOSTILE}) for u in updates_of(2)],
        command=HOSTILE,
    )  # fmt: skip
    page = made.to_html()
    read = Page(page)
    assert [] == read.all("script", "b")
    assert "<script" not in page
    assert read.text.count("<script>alert('x')</script>\"&--><b>") > 10
    assert f"<title>{HOSTILE}</title>" == unescape(re.findall(r"<title>.*</title>", page)[0])
    # In a figure names are cut short.
    assert "&lt;script&gt;alert" in page[page.index("<svg") : page.index("</svg>")]
    assert "名前" in page


def test_long_tables_are_folded_and_cut(shift: ShiftIndex) -> None:
    """The page stays small; the tables that are saved have all rows."""
    made = report(history=updates_of(520))
    page = made.to_html()
    assert "The first 500 of 520 rows" in Page(page).text
    assert len(page) < 2_000_000
    assert re.search(r"<details>\s*<summary>Index before the update", page)
    assert 521 == table_of(made, "updates").to_csv().count("\n")
    assert re.search(
        r"<details open>\s*<summary>Shift of each class", report(shift=shift).to_html()
    )


# --- what the index cannot see -----------------------------------------------------------------


def limits_of(made: Report) -> str:
    (found,) = (section for section in made.sections() if section.id == "limits")
    return " | ".join([*(f"{what}: {why}" for what, why in found.points), *found.warnings])


def test_limits_are_those_of_what_is_told(shift: ShiftIndex, task: TaskIndex) -> None:
    """Of RESQUE_dist, of RESQUE_task, and of a forecast, each where there is one."""
    assert "A common rescaling" in limits_of(report(shift=shift))
    assert "A common rescaling" in limits_of(report(history=updates_of(1)))
    of_task = limits_of(report(task=task))
    assert "RESQUE_task falls with imbalance" in of_task
    assert "rescaling" not in of_task
    assert "An update like no other" in limits_of(report(forecast=forecast_of()))


def test_limits_name_what_this_index_does_not_know(shift: ShiftIndex) -> None:
    """Unresolved and missing classes, predicted labels, too few groups, its own warnings."""
    names = tuple(f"c{place}" for place in range(12))
    cost = resque.index.shift.LabelCost(offset=0.01, accuracy_before=0.9, confidence_after=None)
    made = report(
        shift=replace(
            shift, unresolved=names, missing_before=("new",), missing_after=("old",), lower=None,
            upper=None, labels="predicted", label_cost=cost, warnings=("mind the gap",),
        )
    )  # fmt: skip
    told = limits_of(made)
    for words in (
        (
            "12 classes unresolved: Too few examples for a debiased value: c0, c1, c2, c3, c4, c5, "
            "c6, c7, c8, c9 and 2 more."
        ),
        "Classes of the old data alone: They are left out; there is nothing to compare: old.",
        "Classes of the new data alone: They are left out; there is nothing to compare: new.",
        "too few groups of examples for an interval or a test",
        "On the old data 90% of them are right. They lie 0.0100 from the true ones there.",
        "mind the gap",
    ):
        assert words in told, words
    resolved = limits_of(report(shift=shift))
    for words in ("unresolved", "alone", "too few groups", "model predicts"):
        assert words not in resolved


def test_an_index_that_is_not_significant_tells_its_floor() -> None:
    unmoved = shift_of(move=0.0)
    assert f"the index reads {unmoved.floor:.4f} where nothing" in limits_of(report(shift=unmoved))


# --- tables ------------------------------------------------------------------------------------


def table_of(made: Report, name: str) -> report_tables.Table:
    (found,) = (table for table in made.tables() if table.name == name)
    return found


def rows_of(made: Report, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table_of(made, name).to_csv())))


def test_class_table_has_the_numbers_of_the_index(shift: ShiftIndex) -> None:
    """Unrounded, the largest share first."""
    rows = rows_of(report(shift=shift), "classes")
    assert list(shift.contributions) == [row["class"] for row in rows]
    for row in rows:
        one = shift.classes[row["class"]]
        assert (one.value, one.floor, one.debiased, shift.contributions[row["class"]]) == tuple(
            float(row[name]) for name in ("value", "floor", "debiased", "share")
        )
        sides = one.examples_before, one.examples_after
        assert sides == (int(row["examples_before"]), int(row["examples_after"]))


def test_class_table_of_a_preflight_has_no_examples(known: Preflight) -> None:
    """It does not keep them by class; the numbers are those of the index it keeps."""
    rows = rows_of(report(preflight=known), "classes")
    assert known.shift is not None
    assert {row["class"]: float(row["value"]) for row in rows} == known.shift["per_class"]
    assert "examples_before" not in rows[0]


def test_forecast_table_has_the_numbers_of_the_forecast() -> None:
    """Medians and bounds in the measure's own unit, beside those from scratch."""
    fresh = forecast_of({"epochs": [20.0, 30.0, 40.0], "peak_accuracy": [0.5]})
    told = forecast_of(from_scratch=fresh)
    rows = {row["measure"]: row for row in rows_of(report(forecast=told), "forecast")}
    assert list(UNITS) == list(rows)
    for name, estimate in told.estimates().items():
        row = rows[name]
        if estimate is None:
            assert row["update"] == row["update_lower"] == row["update_upper"] == ""
            continue
        expected = (estimate.median, estimate.lower, estimate.upper)
        assert expected == tuple(float(row[f"update{end}"]) for end in ("", "_lower", "_upper"))
    assert float(rows["epochs"]["from_scratch"]) == fresh.epochs.median
    assert float(rows["epochs"]["times"]) == fresh.epochs.median / told.epochs.median
    assert rows["energy_kwh"]["times"] == ""
    assert rows["peak_accuracy"]["times"] == ""


def test_option_table_has_the_numbers_of_the_comparison() -> None:
    """With those costs that are known of any option."""
    made = comparison_of()
    rows = rows_of(report(comparison=made), "options")
    assert "carbon_kg" not in rows[0]
    for row, one in zip(rows, made.options, strict=True):
        assert (row["option"], row["kind"], row["model"]) == (
            one.name, one.kind, one.model or "as it is",
        )  # fmt: skip
        cost = one.costs["energy_kwh"]
        assert cost is not None
        assert (cost.median, cost.lower, cost.upper) == tuple(
            float(row[f"energy_kwh{end}"]) for end in ("", "_lower", "_upper")
        )
        assert float(row["reaches_target"]) == one.reaches_target
        assert row["cheaper"] == ("" if one.cheaper is None else str(one.cheaper))
    assert rows_of(report(comparison=made), "changes") == [
        {"change": "a target of 0.95", "recommended": "all", "differs": "True"}
    ]


def test_update_table_has_the_numbers_of_the_updates_in_order() -> None:
    """Oldest first, whatever order they came in."""
    updates = updates_of()
    rows = rows_of(report(history=reversed(updates)), "updates")
    for row, one in zip(rows, updates, strict=True):
        assert (row["id"], row["start"], row["ended"]) == (one.id, one.start, one.ended)
        assert one.index is not None
        assert float(row["RESQUE_dist"]) == one.index["debiased"]
        for name in ("epochs", "duration_s", "energy_kwh", "carbon_kg", "peak_accuracy"):
            assert float(row[name]) == getattr(one, name), name


def test_energy_is_added_up_by_part_with_its_source() -> None:
    """Three updates of 3600 J by a model (50 %) and 7200 J by a counter (5 %), and one of 1 J."""
    same = updates_of(3)
    other = update_of(number=9, energy=reading_of(1.0, calibration="lab", name="wall"))
    rows = rows_of(report(history=[*same, other]), "energy")
    found = {row["part"]: row for row in rows}
    total = 3 * (3600 + 7200) + 1
    for part, source, joules, band, counted in (
        ("cpu", "model", 3 * 3600, 0.5, "yes"), ("gpu", "counter", 3 * 7200, 0.05, "yes"),
        ("ram", "constant", 300, 1.0, "no"), ("wall", "counter", 1, 0.05, "yes"),
    ):  # fmt: skip
        row = found[part]
        assert (row["source"], row["counted"]) == (source, counted)
        assert float(row["energy_kwh"]) == pytest.approx(joules / 3.6e6, rel=1e-12)
        assert float(row["relative_error"]) == pytest.approx(band, rel=1e-12)
        share = "" if counted == "no" else pytest.approx(joules / total, rel=1e-12)
        assert (row["share"] and float(row["share"])) == share
    assert [found[part]["calibration"] for part in ("cpu", "wall")] == ["none", "lab"]


def test_energy_that_cannot_be_told_apart_is_left_out() -> None:
    """Of an update beside another one the meter reads both; it says so instead of carbon."""
    beside = update_of(number=1, concurrency=2)
    made = report(history=[update_of(), beside, update_of(number=2, energy=None)])
    (row,) = rows_of(made, "energy")
    assert (row["updates"], float(row["energy_kwh"])) == ("1", pytest.approx(0.002))
    (section,) = (one for one in made.sections() if one.id == "energy")
    assert set(section.points) == {
        ("No carbon of 1 update", beside.why_no_carbon),
        ("No carbon of 1 update", "no meter was used"),
    }
    assert section.warnings == ()
    none = report(history=[update_of(energy=None)])
    assert "No energy is known of any update." in Page(none.to_html()).text
    assert "energy" not in [table.name for table in none.tables()]


def test_modelled_energy_is_said_to_be_so() -> None:
    (section,) = (s for s in report(history=updates_of(2)).sections() if s.id == "energy")
    assert "The energy of 2 of these is modelled" in section.warnings[0]


def test_carbon_is_told_for_each_grid_with_its_source() -> None:
    """The grid's number, where it is from, and what the updates on it came to."""
    turbine = Grid(grams_per_kwh=30.0, name="our turbine", pue=1.2)
    rows = rows_of(report(history=[update_of(), update_of(number=1, grid=turbine)]), "carbon")
    found = {row["grid"]: (row["source"], row["year"], float(row["carbon_kg"])) for row in rows}
    assert found == {
        "France": ("a table", "2023", pytest.approx(0.002 * 56 / 1000)),
        "our turbine": ("given", "", pytest.approx(0.002 * 1.2 * 30 / 1000)),
    }


def test_preflight_table_has_all_values_and_reasons(known: Preflight) -> None:
    made = report(preflight=known)
    rows = rows_of(made, "preflight")
    assert {row["name"]: row["value"] for row in rows} == {
        name: "" if value is None else str(value) for name, value in known.values.items()
    }
    text = Page(made.to_html()).text
    assert known.missing
    for reason in known.missing.values():
        assert f"none: {reason}" in text


def test_markdown_has_the_cells_of_the_page(whole: Report) -> None:
    """A line for each row, a cell for each column."""
    for table in whole.tables():
        lines = table.to_markdown().splitlines()
        assert len(lines) == 4 + len(table.rows)
        for line, row in zip(lines[4:], table.rows, strict=True):
            plain = unescape(re.sub(r"\\(.)", r"\1", line))
            assert plain == "| " + " | ".join(" ".join(c.shown.split()) for c in row) + " |"


def test_markdown_takes_words_for_words() -> None:
    """A name with a bar or a line break is still one cell."""
    text = report_tables.text("a|b\n*c* <i>_d_`[e](f)\\")
    table = report_tables.Table(
        name="t", caption="c", headings=("h",), columns=("h",), rows=((text,),)
    )
    expected = r"| a\|b \*c\* &lt;i&gt;\_d\_\`\[e\](f)\\ |"
    assert expected == table.to_markdown().splitlines()[-1]


def test_csv_reads_back_what_names_hold() -> None:
    """Commas, quotes and line breaks in a name."""
    names = ("a,b", 'c"d', "e\nf", "g")
    rows = rows_of(report(shift=shift_of(names)), "classes")
    assert set(names) == {row["class"] for row in rows}


def test_tables_are_saved(whole: Report, tmp_path: Path) -> None:
    """One file for each table, named after it, in either format."""
    for ending, written in (("csv", "to_csv"), ("md", "to_markdown")):
        paths = whole.save_tables(tmp_path / ending, ending)  # type: ignore[arg-type]
        assert [f"{table.name}.{ending}" for table in whole.tables()] == [p.name for p in paths]
        for path, table in zip(paths, whole.tables(), strict=True):
            assert path.read_bytes().decode() == getattr(table, written)()


@pytest.mark.parametrize(
    ("measure", "value", "shown"),
    [
        ("duration_s", 59.0, "59 s"),
        ("duration_s", 90.0, "90 s"),
        ("duration_s", 150.0, "2.5 min"),
        ("duration_s", 9000.0, "2.5 h"),
        ("energy_kwh", 2.0, "2 kWh"),
        ("energy_kwh", 0.25, "0.25 kWh"),
        ("energy_kwh", 0.025, "25 Wh"),
        ("energy_kwh", 1e-5, "36 J"),
        ("carbon_kg", 1234.5, "1,234 kg CO2e"),
        ("carbon_kg", 0.05, "50 g CO2e"),
        ("carbon_kg", 5e-6, "5 mg CO2e"),
        ("energy_kwh", 0.0, "0 kWh"),
        ("epochs", 5.25, "5.25 epochs"),
        ("gradient_norm", 0.00012345, "0.000123"),
        ("epochs", None, "not known"),
    ],
)
def test_quantities_have_a_unit_that_is_read_with_ease(
    measure: str, value: float | None, shown: str
) -> None:
    assert report_tables.quantity(measure, value) == report_tables.Cell(value, shown)


def test_money_keeps_its_currency() -> None:
    """The unit of money is that of the prices."""
    cost = Estimate(median=1234.5, lower=1.0, upper=2000.0, unit="EUR")
    assert report_tables.told("money", cost) == "1,234 EUR (1 to 2,000)"


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"index": "RESQUE_dist", "value": 0.2, "debiased": 0.1}, 0.1),
        ({"index": "RESQUE_dist", "value": 0.2, "debiased": None}, 0.2),
        ({"index": "RESQUE_dist", "value": "0.2"}, None),
        ({"index": "RESQUE_dist", "value": float("nan")}, None),
        ({"index": "RESQUE_task", "value": 0.2}, None),
        ({}, None),
        (None, None),
    ],
)
def test_only_numbers_of_this_index_are_plotted(kept: Any, expected: float | None) -> None:
    """A history takes whatever a user calls an index; a pre-flight's is taken without one."""
    assert expected == report_tables.index_of(update_of(index=kept))
    if kept:
        assert expected == report_tables.index_of(update_of(index=None, preflight={"shift": kept}))


# --- figures -----------------------------------------------------------------------------------


def drawings_of(made: Report) -> dict[str, report_sections.Drawing]:
    return {of.name: of for section in made.sections() for of in section.drawings}


def test_figures_are_saved_in_each_format(shift: ShiftIndex, tmp_path: Path) -> None:
    """One file for each figure, named after it, that is what its name says."""
    made = report(shift=shift, comparison=comparison_of())
    begins = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for ending, begin in begins.items():
        paths = made.save_figures(tmp_path / "figures", ending)  # type: ignore[arg-type]
        assert [f"classes.{ending}", f"options.{ending}"] == [path.name for path in paths]
        assert all(path.read_bytes().startswith(begin) for path in paths)


def test_figures_take_the_colours_of_the_page(page: str) -> None:
    """None of them is left that would not change in the dark, and no style but on elements."""
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert set() == {*re.findall(r"#[0-9a-f]{6}", drawn)}
    assert {"currentColor", "var(--first)", "var(--second)", "var(--muted)", "var(--rule)"} <= {
        *re.findall(r"currentColor|var\(--\w+\)", drawn)
    }
    assert "<style" not in drawn
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_class_figure_shows_the_largest_shares() -> None:
    """The first twelve, with value, floor and debiased value at the class's place."""
    shift = shift_of(tuple(f"class {place}" for place in range(14)))
    told = shift.to_dict()
    with report_figures.drawing("classes"):
        (axes,) = report_figures.class_figure(told).axes
    names = list(shift.contributions)[:12]
    assert names == [label.get_text() for label in axes.get_yticklabels()]
    floor, value, debiased = (line.get_xdata() for line in axes.lines)
    assert [shift.classes[name].value for name in names] == list(value)
    assert [shift.classes[name].floor for name in names] == list(floor)
    assert [shift.classes[name].debiased for name in names] == list(debiased)
    assert "the 12 largest of 14" in drawings_of(report(shift=shift))["classes"].title


def test_forecast_figure_shows_median_and_interval_of_both_ways() -> None:
    """A panel for each measure that is known, in one unit for both ways."""
    told = forecast_of(from_scratch=forecast_of({"epochs": [20.0, 30.0], "peak_accuracy": [0.5]}))
    with report_figures.drawing("forecast"):
        panels = report_figures.forecast_figure(told).axes
    labels = [axes.get_xlabel() for axes in panels]
    assert ["epochs", "time (min)", "energy (kWh)", "carbon (g CO2e)",
            "peak accuracy (dashed: target 0.9)"] == labels  # fmt: skip
    epochs, time = panels[:2]
    assert [[told.epochs.median], [20.0]] == [list(line.get_xdata()) for line in epochs.lines]
    (lower, _), (upper, _) = epochs.collections[1].get_segments()[0]
    assert (20.0, 30.0) == (lower, upper)
    assert told.duration_s is not None
    assert [[told.duration_s.median / 60]] == [list(line.get_xdata()) for line in time.lines]


def test_option_figure_fills_the_recommended_one() -> None:
    """And none where none reaches the target."""
    for recommended, filled in (("head", ["head"]), (None, [])):
        made = comparison_of(recommended=recommended)
        with report_figures.drawing("options"):
            cost, _ = report_figures.option_figure(made).axes
        full = [
            one.name
            for one, line in zip(made.options, cost.lines, strict=True)
            if line.get_markerfacecolor() != "none"
        ]
        assert filled == full
        assert [0.0, 0.2, 2.0] == [line.get_xdata()[0] for line in cost.lines]


def test_history_figure_shows_index_and_cost_of_each_update() -> None:
    """Hollow where censored, with a mark of its own for each way to start."""
    updates = updates_of()
    with report_figures.drawing("history"):
        epochs, seconds, energy = report_figures.history_figure(updates).axes
    found = {
        (x, y, line.get_marker(), line.get_markerfacecolor() == "none")
        for line in epochs.lines
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    marks = {"weights": "o", "scratch": "^"}
    assert {(u.index["debiased"], u.epochs, marks[u.start], not u.reached) for u in updates
            if u.index and u.start} == found  # fmt: skip
    assert "energy (Wh)" == energy.get_ylabel()
    assert "time (s)" == seconds.get_ylabel()


def test_history_without_an_index_has_no_figure() -> None:
    made = report(history=[update_of()])
    assert {} == drawings_of(made)
    assert "1 update kept no RESQUE_dist" in Page(made.to_html()).text


def test_indices_of_several_weights_are_said_to_be_so() -> None:
    """A scatter of them invites a comparison that is none."""

    def of(weights: str, number: int) -> Update:
        kept = {"index": "RESQUE_dist", "value": 0.1, "signature": {"weights": weights}}
        return update_of(number=number, index=kept)

    words = "The indices are of 2 different sets of weights."
    assert words in Page(report(history=[of("a", 1), of("b", 2)]).to_html()).text
    assert words not in Page(report(history=[of("a", 1), of("a", 2)]).to_html()).text


def test_figures_draw_the_newest_marks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_sections, "_MOST_MARKS", 4)
    made = report(history=updates_of(6))
    assert "The figure shows the newest 4 of them." in Page(made.to_html()).text
    with report_figures.drawing("history"):
        axes = drawings_of(made)["history"].draw().axes[0]
    assert 4 == sum(len(line.get_xdata()) for line in axes.lines)


# --- a plan ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned() -> Plan:
    """A plan with few courses."""
    return plan(
        steady(0.02, 0.02), accuracy_floor=0.8, update=preflight_of(-2.0, joules_per_step=10.0),
        target=TARGET, forecaster=Forecaster(simulated(60), corpus=False), paths=100,
        confidence_level=0.8,
    )  # fmt: skip


def test_a_plan_has_its_schedules_and_its_advice(planned: Plan) -> None:
    """What is expected, what to do, and what each schedule comes to in a year."""
    made = report(plan=planned)
    assert [section.id for section in made.sections()] == ["plan", "limits", "origin"]
    assert made.answer()[1:] == f"{planned.advice()}."[1:]
    text = Page(made.to_html()).text
    for words in (planned.expectation()[1:], planned.advice()[1:], *planned.notes):
        assert " ".join(words.split()) in text
    rows = rows_of(made, "schedules")
    for row, one in zip(rows, planned.schedules, strict=True):
        assert (row["schedule"], float(row["sure"])) == (one.name, one.sure)
        assert float(row["updates"]) == one.updates.median
        assert float(row["epochs_upper"]) == one.cost["epochs"].upper


# --- bad input ---------------------------------------------------------------------------------


def test_an_empty_report_is_refused() -> None:
    with pytest.raises(InputError, match="There is nothing to report; give one at least of shift,"):
        report()
    with pytest.raises(InputError, match="nothing to report"):
        report(history=[])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shift": 0.3}, r"shift must be a ShiftIndex; got float '0.3'"),
        ({"forecast": {"epochs": 1}}, r"forecast must be a Forecast; got dict"),
        ({"history": ["first"]}, r"The updates of a report are Updates; got str 'first'"),
    ],
)
def test_what_is_no_result_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        report(**given)


def test_an_incomplete_preflight_is_refused(known: Preflight, tmp_path: Path) -> None:
    """A page that is there stays as it was."""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert known.shift is not None
    made = report(preflight=replace(known, shift={"index": "RESQUE_dist", "value": 0.1}))
    with pytest.raises(InputError, match=r"RESQUE_dist of this pre-flight .*, without 'floor'"):
        made.save(path)
    assert ["report.html"] == [one.name for one in tmp_path.iterdir()]
    assert "old" == path.read_text()


def test_bad_places_are_refused(shift: ShiftIndex, tmp_path: Path) -> None:
    """Before anything is made, with the name that was given."""
    made = report(shift=shift)
    (tmp_path / "file").write_text("")
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: made.save(tmp_path / "a.htm"), r"ends in \.html; got '.*a\.htm'"),
        (lambda: made.save(tmp_path / "no" / "a.html"), "There is no folder"),
        (lambda: made.save(tmp_path), "is a folder"),
        (lambda: made.save_figures(tmp_path / "file"), "is a file; expected a folder"),
        (lambda: made.save_tables(tmp_path / "no" / "tables"), "There is no folder"),
        (lambda: made.save_figures(tmp_path, "gif"), r"one of svg, png, pdf; got 'gif'"),  # type: ignore[arg-type]
        (lambda: made.save_tables(tmp_path, "cvs"), r"got 'cvs'\. Did you mean 'csv'"),  # type: ignore[arg-type]
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
    assert ["file"] == [one.name for one in tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, shift: ShiftIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'resque\[report\]'"):
        report(shift=shift)


# --- notebooks ---------------------------------------------------------------------------------


def test_a_notebook_shows_each_result(shift: ShiftIndex, task: TaskIndex, known: Preflight) -> None:
    """Its answer and its tables, in well-formed HTML without script or links."""
    shown = {
        f"{shift.value:.4f}": shift,
        f"RESQUE_task is {task.value:.4f}": task,
        "What was known before training": known,
        "5 epochs (1 to 10)": forecast_of(),
        "What the update came to": updates_of(1)[0],
        "head: it takes 0.2 kWh": comparison_of(),
        "7 updates foretold without themselves": backtest_of(),
    }
    for words, result in shown.items():
        fragment = shown_in_notebook(result)
        read = Page(fragment)
        assert words in read.text, words
        assert read.captions
        assert all(read.captions)
        assert [] == read.all("script", "a")
        # Other cells show other results on the same page.
        assert not [of for _, of in read.elements if "id" in of]
        # Nothing but itself is styled.
        rules = re.findall(r"^([^{\n]+)\{", fragment, re.MULTILINE)
        assert all(part.strip().startswith(".resque-shown") for r in rules for part in r.split(","))


@pytest.mark.parametrize(
    "kind", [ShiftIndex, TaskIndex, Preflight, Forecast, Update, Comparison, Backtest, Plan]
)
def test_each_result_knows_how_to_show_itself(kind: type) -> None:
    """Notebooks call this method; every class that has it can be shown."""
    assert kind._repr_html_ is shown_in_notebook  # type: ignore[attr-defined]
    assert kind in html._VIEWS


def test_a_result_shows_itself(shift: ShiftIndex, planned: Plan) -> None:
    """By the method, as a notebook calls it."""
    assert shift._repr_html_() == notebook_view(shift)
    assert planned.schedules[0].name in Page(planned._repr_html_()).text


def test_a_notebook_shows_the_signature_and_the_warnings(shift: ShiftIndex) -> None:
    text = Page(notebook_view(replace(shift, warnings=("beware",)))).text
    assert str(shift.signature) in text
    assert "beware" in text


def test_a_notebook_takes_words_for_words() -> None:
    fragment = shown_in_notebook(forecast_of(notes=(HOSTILE,), machine=HOSTILE))
    assert "<script" not in fragment
    assert HOSTILE in Page(fragment).text


def test_without_the_extra_a_notebook_shows_plain_words(
    shift: ShiftIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escaped, as everything."""
    html._environment.cache_clear()
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    hostile = replace(shift, warnings=(HOSTILE,))
    shown = shown_in_notebook(hostile)
    html._environment.cache_clear()
    assert "<script" not in shown
    assert f"<pre>{hostile}</pre>" == unescape(shown)


def test_a_notebook_shows_results_only() -> None:
    with pytest.raises(InputError, match=r"A notebook shows ShiftIndex, .*; got int '3'"):
        notebook_view(3)
