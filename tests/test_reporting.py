"""Tables on a terminal, figures, and what is said of the machine."""

from __future__ import annotations

import io
import json
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console, RenderableType
from rich.text import Text

import resque
from resque.history.records import Component, EnergyReading
from resque.measure import machine
from resque.measure.backend import Gauge
from resque.measure.comparison import MeterOnLoad
from resque.reporting import terminal
from resque.reporting.figures import save_shift_curves
from updates import update_of

WIDTH = 8


def drawn(
    classes: int, per_class: int, move: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Representations of classes with means of their own, moved by a growing amount each."""
    means = np.random.default_rng(1).normal(1, 1, (classes, WIDTH))
    steps = np.random.default_rng(2).normal(size=(classes, WIDTH)) * np.arange(classes)[:, None]
    labels = np.repeat(np.arange(classes), per_class)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(len(labels), WIDTH))
    return (means + move * steps)[labels] + noise, labels


def shift_of(classes: int, per_class: int = 20, move: float = 0.1, **options: Any) -> Any:
    """The shift between two samples of such classes."""
    before = resque.profile(None, drawn(classes, per_class), **options)
    after = resque.profile(None, drawn(classes, per_class, move, seed=3), **options)
    return resque.shift_index(before, after)


def rendered(view: RenderableType, width: int = 200) -> str:
    """The characters of a view, without colours."""
    out = io.StringIO()
    Console(file=out, width=width).print(view)
    return out.getvalue()


def rows(text: str, first: str) -> list[list[str]]:
    """The words of each line below the heading that begins with a word."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.split()[:1] == [first])
    return [line.split() for line in lines[start + 1 :] if line.strip()]


# --- views of the indices ----------------------------------------------------------------------


def test_shift_view_has_a_row_per_class() -> None:
    """Each class has its examples, raw value, floor, debiased value and share, largest first."""
    shift = shift_of(4)
    table = rows(rendered(terminal.shift_view(shift)), "class")
    expected = [
        [name, "20", "20", f"{one.value:.4f}", f"{one.floor:.4f}", f"{one.debiased:.4f}",
         f"{share:.0%}"]
        for name, share in shift.contributions.items()
        for one in [shift.classes[name]]
    ]  # fmt: skip
    assert expected == table
    shares = list(shift.contributions.values())
    assert sorted(shares, reverse=True) == shares
    assert pytest.approx(1) == sum(shares)


def test_shift_view_begins_with_the_summary() -> None:
    """What `str()` says of a shift stands above the table, warnings and signature included."""
    shift = shift_of(2, per_class=1)
    assert shift.warnings
    # Wide enough for the signature, which a narrow console would wrap.
    assert rendered(terminal.shift_view(shift), width=1000).startswith(str(shift))


def test_shift_view_counts_the_classes_it_leaves_out() -> None:
    """Twenty classes are shown; the others are counted."""
    table = rows(rendered(terminal.shift_view(shift_of(23))), "class")
    assert len(table) == 20 + 1
    assert table[-1][:3] == ["and", "3", "more"]
    assert len(rows(rendered(terminal.shift_view(shift_of(20))), "class")) == 20


def test_shift_view_of_classes_that_are_not_resolved() -> None:
    """A class without a debiased value says so in its place."""
    labels = np.array([0] * 20 + [1])
    representations = drawn(2, 20)[0][:21]
    side = resque.profile(None, (representations, labels))
    table = rows(rendered(terminal.shift_view(resque.shift_index(side, side))), "class")
    assert {row[0]: row[5] == "unresolved" for row in table} == {"0": False, "1": True}


@pytest.mark.parametrize("name", ["[bold]cat", "cat [/wild]", "cat [red]", ":cat:"])
def test_views_print_class_names_as_they_are(name: str) -> None:
    """Brackets and colons in a class name are no markup."""
    names = (name, "dog")
    table = rendered(terminal.shift_view(shift_of(2, class_names=names))).partition("\nclass ")[2]
    assert name in table
    data = np.ones((8, 2)) + 0.01 * np.arange(16).reshape(8, 2) % 7, np.arange(8) % 2
    view = rendered(terminal.task_view(resque.task_index(None, data, class_names=names)))
    assert name in view.partition("\nclass ")[2]


def test_task_view_tells_which_classes_are_mixed_up() -> None:
    """The ten largest mixtures of classes are shown with their shares."""
    rng = np.random.default_rng(4)
    task = resque.task_index(None, (rng.normal(size=(120, 3)), np.arange(120) % 6))
    assert len(task.mixtures) > 10
    text = rendered(terminal.task_view(task), width=1000)
    assert text.startswith(str(task))
    expected = [[m.class_name, m.mixed_with, f"{m.share:.0%}"] for m in task.mixtures[:10]]
    assert expected == rows(text, "class")


def test_task_view_of_separated_classes_has_no_table() -> None:
    """Where no classes are mixed up there is the summary alone."""
    labels = np.arange(30) % 3
    task = resque.task_index(None, (np.eye(3)[labels] + 0.001 * labels[:, None], labels))
    assert rendered(terminal.task_view(task), width=1000) == f"{task}\n"


def test_demo_view_shows_every_shift_and_both_tasks() -> None:
    """The tables of the demonstration have one line per shift, and both networks' tasks."""
    index = shift_of(3)
    task = resque.task_index(None, drawn(2, 10))
    demo = SimpleNamespace(
        forecast=None,
        comparison=None,
        shifts=[SimpleNamespace(kind="blur", level=x, index=index, accuracy=0.5) for x in (0, 0.4)],
        updates=[
            SimpleNamespace(
                kind="noise",
                level=0.2,
                index=index,
                retrained=update_of(epochs=1.5),
                scratch=update_of(epochs=24.25, ended="max_epochs"),
            )
        ],
        task=task,
        task_known=task,
    )
    text = rendered(terminal.demo_view(demo), width=1000)
    blurs = [line.split() for line in text.splitlines() if line.startswith("blur ")]
    numbers = (index.value, index.floor, index.debiased, index.lower, index.upper)
    value, floor, debiased, lower, upper = (f"{number:.4f}" for number in numbers)
    p_value = f"{index.p_value:.1g}"
    expected = ["blur", "0.4", value, floor, debiased, lower, "to", upper, p_value, "0.500"]
    assert len(blurs) == 2
    assert expected == blurs[1]
    assert str(index.signature) in text
    assert str(task.signature) in text
    retrained, scratch = (
        next(line for line in text.splitlines() if way in line)
        for way in ("retrained", "from scratch")
    )
    assert ["noise", "0.2", value, "retrained", "1.5"] == retrained.split()[:5]
    assert ["from", "scratch", "24.2"] == scratch.split()[:3]
    assert scratch.endswith("not reached")


# --- on a terminal and elsewhere ---------------------------------------------------------------


def test_long_lines_are_whole_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a file or a pipe, a line of any length is one line, and a table is not squeezed."""
    monkeypatch.setenv("COLUMNS", "30")
    long = "x" * 3000
    terminal.show(Text(long))
    assert capsys.readouterr().out == f"{long}\n"
    name = "a class with a name that is far longer than thirty characters"
    terminal.show(terminal.shift_view(shift_of(2, class_names=(name, "b"))))
    table = capsys.readouterr().out.partition("\nclass ")[2].splitlines()
    assert sum(line.startswith(name) for line in table) == 1
    assert len(table) == 3


def test_no_colours_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Into a file or a pipe go characters alone."""
    terminal.show(Text("3 classes", style="bold red"))
    assert capsys.readouterr().out == "3 classes\n"


# --- figures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curves() -> dict[str, tuple[list[float], list[Any]]]:
    """Two kinds of shift at three strengths; the second has no interval."""
    strengths = [0.0, 0.1, 0.2]
    few = {"groups": 3}
    return {
        "noise": (strengths, [shift_of(3, move=x) for x in strengths]),
        "blur": (strengths, [shift_of(3, move=x, **few) for x in strengths]),
    }


def save(path: Path, curves: Any) -> bytes:
    save_shift_curves(path, curves, title="How far the data moved", x_label="strength (pixels)")
    return path.read_bytes()


def test_figure_in_three_formats(tmp_path: Path, curves: Any) -> None:
    """PNG, SVG and PDF are written whole, with every word of the figure, and nothing beside."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png, svg, pdf = (
            save(tmp_path / f"figure.{kind}", curves) for kind in ("png", "svg", "pdf")
        )
    with Image.open(io.BytesIO(png)) as image:
        image.load()  # fails where bytes are missing
        assert image.format == "PNG"
        assert image.width > 600
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for words in ("noise", "blur", "RESQUE_dist", "How far the data moved", "strength (pixels)",
                  "raw value", "floor", "debiased", "90% interval"):  # fmt: skip
        # As matplotlib draws letters as paths, it names each text in a comment.
        assert f"<!-- {words}".encode() in svg
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"figure.png", "figure.svg", "figure.pdf"}


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_same_numbers_give_the_same_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curves: Any, kind: str
) -> None:
    """No date and nothing random is inside, so that a figure can be kept under version control."""
    found = []
    for day, name in ((0, "monday"), (86400, "tuesday")):
        # What matplotlib takes for the date of a figure, in place of the clock.
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(day))
        found.append(save(tmp_path / f"{name}.{kind}", curves))
    assert found[0] == found[1]


def test_other_numbers_give_another_figure(tmp_path: Path, curves: Any) -> None:
    """The comparison above would see a change of one point."""
    strengths, shifts = curves["noise"]
    other = {"noise": (strengths, [shifts[0], shifts[2], shifts[2]]), "blur": curves["blur"]}
    assert save(tmp_path / "a.png", curves) != save(tmp_path / "b.png", other)


@pytest.mark.parametrize("name", ["figure.bmp", "figure.jpg", "figure.docx", "figure"])
def test_figure_of_another_kind_is_refused(tmp_path: Path, curves: Any, name: str) -> None:
    """A suffix that is none of the three is refused, with the three, and leaves nothing."""
    with pytest.raises(resque.InputError, match=r"\.png.*\.svg.*\.pdf") as error:
        save(tmp_path / name, curves)
    assert name in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_figure_that_fails_half_way_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curves: Any
) -> None:
    """A disk that fills up while a figure is drawn leaves what was there before."""

    def save_half(_: Any, path: Path, **__: Any) -> None:
        path.write_bytes(b"half a figure")
        raise OSError(28, "No space left on device")

    path = tmp_path / "figure.png"
    path.write_bytes(b"an older figure")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_half)
    with pytest.raises(resque.InputError, match=r"figure\.png' could not be written: No space"):
        save(path, curves)
    assert path.read_bytes() == b"an older figure"
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_figure_without_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curves: Any
) -> None:
    """Without matplotlib the error says how to install it, and no file is begun."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(resque.MissingExtraError, match=r"pip install 'resque\[report\]'"):
        save(tmp_path / "figure.png", curves)
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path, curves: Any) -> None:
    """A user's own figures, backend and settings are not touched."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = mpl.rcParams.copy(), plt.get_fignums()
    save(tmp_path / "figure.png", curves)
    assert before == (mpl.rcParams.copy(), plt.get_fignums())


# --- what this machine has ---------------------------------------------------------------------


def test_environment_gives_installed_versions() -> None:
    """Versions are those of the installed packages, as plain JSON."""
    found = machine.environment()
    assert json.loads(json.dumps(found)) == found
    for package in ("resque", "torch", "numpy"):
        assert version(package) == found["versions"][package]
    assert set(machine.PACKAGES) | {"python"} == set(found["versions"])
    assert torch.get_num_threads() == found["torch_threads"]


def test_environment_without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is said not to be."""

    def only_ours(package: str) -> str:
        if package in ("timm", "transformers"):
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(machine, "version", only_ours)
    found = machine.environment()
    assert found["versions"]["timm"] is None
    lines = [line.split() for line in rendered(terminal.environment_view(found)).splitlines()]
    assert ["timm", "not", "installed"] in lines
    assert ["torch", version("torch")] in lines


def test_environment_names_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs are listed with their names and memory, after the processor."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    memory = SimpleNamespace(total_memory=80_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    found = machine.environment()
    assert [one["device"] for one in found["devices"]] == ["cpu", "cuda:0", "cuda:1"]
    lines = [line.split() for line in rendered(terminal.environment_view(found)).splitlines()]
    assert ["cuda:1", "GPU", "1", "80", "GB"] in lines


def test_meters_are_shown_side_by_side() -> None:
    """Each part has a line with joules, watts, source and band; what is missing stands below."""
    parts = (
        Component(name="cpu", joules=50.0, source="model", relative_error=0.5),
        Component(name="gpu", joules=None, source="counter", relative_error=0.1),
        Component(name="ram", joules=100.0, source="constant", relative_error=1.0, counted=False),
    )
    gauges = tuple(
        Gauge(name=p.name, source=p.source, relative_error=p.relative_error, why=f"why {p.name}")
        for p in parts
    )
    reading = EnergyReading(components=parts, seconds=4.0, meter="one 1.0", other_load=0.25)
    view = terminal.meters_view(
        [
            MeterOnLoad(name="one 1.0", reading=reading, gauges=gauges, missing=("no [RAPL]",)),
            MeterOnLoad(name="two", reading=None, gauges=(), missing=("not installed",)),
        ]
    )
    text = rendered(view)
    assert [
        ["one", "1.0", "cpu", "50", "12.5", "model", "±50%", "why", "cpu"],
        ["one", "1.0", "gpu", "unknown", "unknown", "counter", "±10%", "why", "gpu"],
        ["one", "1.0", "ram", "100", "25", "constant", "±100%", "why", "ram;", "not", "counted"],
        ["two", "not", "available"],
    ] == rows(text, "meter")[:4]
    assert "one 1.0: no [RAPL]" in text
    assert "two: not installed" in text
    assert "other processes kept 25% of the cores busy" in text
