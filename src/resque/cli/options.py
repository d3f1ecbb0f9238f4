"""Options that several commands share, and what they mean to the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resque.decision.option import Prices
    from resque.decision.options_file import OptionsFile
    from resque.history.records import Grid, Recipe, Target
    from resque.history.store import History
    from resque.representation.models import LoadedModel


def whole_number(least: int) -> Callable[[str], int]:
    """Return what turns an option's text into a whole number that is not too small."""

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise typer.BadParameter(
                f"expected a whole number of {least} or more; got {str(text)!r}."
            )
        return number

    return parsed


class Resumable(Exception):  # noqa: N818  # the user's wish, no error
    """The user interrupted a command that can go on later; the message says how."""


def number(text: str) -> float:
    """Return the number that an option's text says."""
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected a number; got {text!r}.") from error


_MODEL, _IMAGES, _PASS = "Model", "Images", "Pass"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="timm:NAME, torchvision:NAME or package.module:factory.",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A file (.safetensors, or a state dict of torch.save), 'cached' or 'random'.",
        rich_help_panel=_MODEL,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Layer to read: NAME, input:NAME or output. [default: input of the classifier]",
        rich_help_panel=_MODEL,
    ),
]
Pooling = Annotated[
    str,
    typer.Option(help="auto, mean, class_token, flatten or none.", rich_help_panel=_MODEL),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_MODEL)]
Seed = Annotated[
    int,
    typer.Option(
        help="Seed of random weights and of k-means++.",
        parser=whole_number(0),
        metavar="INTEGER",
        rich_help_panel=_MODEL,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Resize images to N or HEIGHTxWIDTH pixels, without a crop.",
        rich_help_panel=_IMAGES,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of each channel, in [0, 1]: 0.5 or 0.4,0.5,0.6.", rich_help_panel=_IMAGES
    ),
]
Std = Annotated[
    str | None,
    typer.Option(help="Standard deviation of each channel, likewise.", rich_help_panel=_IMAGES),
]
Channels = Annotated[
    int | None,
    typer.Option(
        help="Convert images to 1 (grey) or 3 (colour) channels.", rich_help_panel=_IMAGES
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="Which split of a .npz: train, test, ...", rich_help_panel=_IMAGES),
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Names of the classes, a,b,c, in the order of the labels and of the model's outputs.",
        rich_help_panel=_IMAGES,
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out images that cannot be read, and count them.",
        rich_help_panel=_IMAGES,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        help="Processes that read the images of a folder.",
        parser=whole_number(0),
        metavar="INTEGER",
        rich_help_panel=_PASS,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        help="Examples per batch.",
        parser=whole_number(1),
        metavar="INTEGER",
        rich_help_panel=_PASS,
    ),
]
Autocast = Annotated[
    str | None,
    typer.Option(help="bfloat16 or float16: run the model under autocast.", rich_help_panel=_PASS),
]
Groups = Annotated[
    int,
    typer.Option(
        help="Groups for the interval and the test, 3 to 64.",
        parser=whole_number(0),
        metavar="INTEGER",
        rich_help_panel=_PASS,
    ),
]
_TARGET, _RECIPE = "Target", "Recipe"
TargetAccuracy = Annotated[
    float | None,
    typer.Option(
        "--accuracy",
        help="Train until this validation accuracy, 0 to 1.",
        parser=number,
        metavar="NUMBER",
        rich_help_panel=_TARGET,
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        help="Or until it has not risen for so many epochs. [default: 5]",
        parser=number,
        metavar="EPOCHS",
        rich_help_panel=_TARGET,
    ),
]
MinDelta = Annotated[
    float,
    typer.Option(
        help="Least rise that counts as one.",
        parser=number,
        metavar="NUMBER",
        rich_help_panel=_TARGET,
    ),
]
Start = Annotated[
    str,
    typer.Option(
        help="weights, head (a fresh classifier) or scratch (fresh weights).",
        rich_help_panel=_RECIPE,
    ),
]
Optimiser = Annotated[
    str, typer.Option(help="adam, adamw or sgd (with momentum).", rich_help_panel=_RECIPE)
]
LearningRate = Annotated[
    float,
    typer.Option(help="At the start.", parser=number, metavar="NUMBER", rich_help_panel=_RECIPE),
]
Schedule = Annotated[str, typer.Option(help="constant, cosine or linear.", rich_help_panel=_RECIPE)]
WeightDecay = Annotated[
    float,
    typer.Option(
        help="Of the optimiser.", parser=number, metavar="NUMBER", rich_help_panel=_RECIPE
    ),
]
Momentum = Annotated[
    float, typer.Option(help="Of sgd.", parser=number, metavar="NUMBER", rich_help_panel=_RECIPE)
]
Augmentation = Annotated[
    str, typer.Option(help="none, flip, flip_crop or published.", rich_help_panel=_RECIPE)
]
FreezeBody = Annotated[
    bool,
    typer.Option("--freeze-body", help="Train the final classifier only.", rich_help_panel=_RECIPE),
]
MaxEpochs = Annotated[
    float,
    typer.Option(
        help="Give up after these.", parser=number, metavar="EPOCHS", rich_help_panel=_RECIPE
    ),
]
ValidationInterval = Annotated[
    float,
    typer.Option(
        help="Epochs between validations.",
        parser=number,
        metavar="EPOCHS",
        rich_help_panel=_RECIPE,
    ),
]
RecipeSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        help="Of fresh weights, the order of the data and augmentation.",
        parser=whole_number(0),
        metavar="INTEGER",
        rich_help_panel=_RECIPE,
    ),
]
SplitValidation = Annotated[
    str | None,
    typer.Option(help="Split of the validation data, if another.", rich_help_panel=_IMAGES),
]
HISTORY = "sqlite:///resque.db"
HistoryUrl = Annotated[
    str,
    typer.Option(
        "--history", envvar="RESQUE_HISTORY", help="Where updates are kept: an SQLAlchemy URL."
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="KEY=VALUE, to find the update by; may be repeated."),
]
_COST = "Cost"
MeterName = Annotated[
    str,
    typer.Option("--meter", help="codecarbon, zeus or none.", rich_help_panel=_COST),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", help="Calibration of the meter.", rich_help_panel=_COST),
]
GridName = Annotated[
    str | None,
    typer.Option(
        "--grid",
        help="Country (FRA) or grams of CO2e per kWh. [default: none, and no carbon]",
        rich_help_panel=_COST,
    ),
]
Pue = Annotated[
    float,
    typer.Option(
        help="Energy bought per energy used in the data centre.",
        parser=number,
        metavar="NUMBER",
        rich_help_panel=_COST,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """A model as the command line names it; `load` builds it once."""

    model: str | None
    weights: str | None
    layer: str | None
    pooling: str
    device: str
    seed: int
    autocast: str | None
    image_size: str | None
    mean: str | None
    std: str | None
    channels: int | None

    def load(self) -> tuple[LoadedModel | None, Callable[[Any], Any] | None]:
        """Return the model and what prepares its images; None each where no model was named."""
        if self.model is None:
            unused = [
                name
                for name, given in (("--weights", self.weights), ("--layer", self.layer))
                if given is not None
            ]
            if unused:
                raise InputError(f"{unused[0]} says something of a model; name it with --model.")
            return None, None
        find_own_modules()
        from resque.representation.models import load_model
        from resque.representation.preprocessing import chosen_preprocessing

        loaded = load_model(self.model, weights=self.weights, device=self.device, seed=self.seed)
        prepare = chosen_preprocessing(
            loaded.preprocessing,
            image_size=_size(self.image_size),
            mean=_numbers("--mean", self.mean),
            std=_numbers("--std", self.std),
            channels=self.channels,
        )
        return loaded, prepare

    def reading(self) -> dict[str, Any]:
        """Return the options of the pass that say how the model is read."""
        return {"layer": self.layer, "pooling": self.pooling, "autocast": _dtype(self.autocast)}


def find_own_modules() -> None:
    """Let modules in the current folder be imported, as those beside a script are."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a list such as a,b,c."""
    return None if text is None else tuple(name.strip() for name in text.split(","))


def costed(text: str | None, pue: float = 1.0) -> Grid | None:
    """Return the grid that --grid and --pue name."""
    if text is None and pue != 1:
        raise InputError("--pue says something of a grid; name it with --grid.")
    from resque.measure.carbon import grid

    return grid(text, pue=pue)


def target(accuracy: float | None, patience: float | None, min_delta: float) -> Target:
    """Return the target that --accuracy, or --patience and --min-delta, name."""
    from resque.history.records import Accuracy, Plateau

    if accuracy is None:
        return Plateau(5.0 if patience is None else patience, min_delta)
    if patience is not None:
        raise InputError("--accuracy and --patience are two targets; give one of them.")
    return Accuracy(accuracy)


def recipe(*, freeze_body: bool, **told: Any) -> Recipe:
    """Return the recipe that options name; those that are no field of it otherwise are named."""
    from resque.history.records import Recipe

    return Recipe(frozen="body" if freeze_body else "none", **told)


def asked(told: OptionsFile, *, grid: str | None, pue: float, **given: Any) -> dict[str, Any]:
    """Return what is asked: what the command line says, else the file."""
    from resque.history.records import Accuracy

    accuracy = told.accuracy if given["accuracy"] is None else given["accuracy"]
    if accuracy is None:
        raise InputError(
            f"Which accuracy is to be reached? Say accuracy = 0.9 in {told.path.name}, or "
            "--accuracy."
        )
    on = told.grid
    if grid is not None or on is None:
        on = costed(grid, pue)
    elif pue != 1:
        on = costed(str(on.code or on.grams_per_kwh), pue)
    level = given["confidence_level"]
    level = told.confidence_level if level is None else level
    by = told.by if given["by"] is None else given["by"]
    return {
        "target": Accuracy(accuracy),
        "by": "kwh" if by is None else by,
        "grid": on,
        "prices": _prices_of(
            told,
            per_kwh=given["per_kwh"], per_hour=given["per_hour"], currency=given["currency"],
        ),
        "confidence_level": 0.9 if level is None else level,
    }  # fmt: skip


def _prices_of(told: OptionsFile, **given: Any) -> Prices | None:
    """Return the prices of the file, with those that the command line names in their place."""
    from resque.decision.option import Prices

    named = {name: value for name, value in given.items() if value not in (None, "")}
    if not named:
        return told.prices
    if told.prices is not None:
        return replace(told.prices, **named)
    if named.keys() == {"currency"}:
        raise InputError("--currency is that of prices; give --price-per-kwh or --price-per-hour.")
    return Prices(**named)


def own_history(url: str) -> History | None:
    """Return the user's history; None, and a word on stderr, where there is none yet."""
    from resque.history.store import History

    store = History(url)
    if store.exists:
        return store
    typer.echo(f"no own updates: there is no history at {store.url} yet", err=True)
    return None


def label_pairs(labels: list[str] | None) -> dict[str, str]:
    """Return the labels in texts such as shift=blur."""
    pairs: dict[str, str] = {}
    for text in labels or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise InputError(f"--label must be KEY=VALUE, such as shift=blur; got {text!r}.")
        if pairs.setdefault(key, value) != value:
            raise InputError(
                f"--label gives {key!r} twice, {pairs[key]!r} and {value!r}; an update has one."
            )
    return pairs


@contextmanager
def results_only() -> Iterator[None]:
    """Keep what a user's model or module prints off stdout, which is for results."""
    with redirect_stdout(sys.stderr):
        yield


def not_an_input(output: Path, *inputs: Path | str | None) -> None:
    """Raise InputError if a file to be written is one of those that are read."""
    for given in inputs:
        there = given is not None and Path(given).exists() and output.exists()
        if there and output.samefile(str(given)):
            raise InputError(f"{str(output)!r} is read by this command; write to another file.")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Give what to call when one of several steps is done; shown on stderr, to a terminal only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def say_step(step: str) -> None:
    """Say on stderr what is being done, if somebody is looking."""
    if sys.stderr.isatty():
        typer.echo(f"... {step}", err=True)


def print_result(result: Any, view: Callable[[Any], RenderableType], *, as_json: bool) -> None:
    """Print a result to stdout, as JSON or as its view."""
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False))
        return
    from resque.reporting.terminal import show

    show(view(result))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--image-size must be N or HEIGHTxWIDTH, such as 224; got {text!r}.")
    height, width = int(parts[0]), int(parts[-1])
    return height, width


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{option} must be numbers such as 0.5 or 0.4,0.5,0.6; got {text!r}."
        ) from error


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    if name not in ("bfloat16", "float16"):
        raise InputError(f"--autocast must be bfloat16 or float16; got {name!r}.")
    import torch

    return getattr(torch, name)
