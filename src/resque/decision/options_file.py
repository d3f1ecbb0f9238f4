"""An options file: what is compared, as TOML, and the folder of what was looked at."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from resque.decision.candidate import FORMAT, Candidate, candidate, load_candidate
from resque.decision.option import FromScratch, Keep, Kind, Option, Prices, Retrain
from resque.errors import InputError, nearest
from resque.files import existing
from resque.forecasting.files import UpdateFiles
from resque.history.records import Grid, Recipe, fields_of
from resque.index.shift import checked_level
from resque.measure.carbon import grid as grid_of
from resque.representation.models import load_model, untrained_like
from resque.representation.preprocessing import chosen_preprocessing
from resque.representation.signature import hardware_name, installed_version

if TYPE_CHECKING:
    from resque.measure.energy import Meter

_NUMBER = (int, float)
# Key -> what TOML calls its value, and its types.
_Keys = Mapping[str, tuple[str, tuple[type, ...]]]
_TEXT, _WHOLE, _REAL = ("a text", (str,)), ("a whole number", (int,)), ("a number", _NUMBER)
_TEXT_OR_NUMBER = ("a text or a number", (str, int, float))
_NUMBERS = ("a number or a list of numbers", (int, float, list))
_TABLE = ("a table", (dict,))
# How the images of one model are prepared, and where it runs; said once for all, or of one option.
_READING: _Keys = {
    "image_size": ("a whole number or [height, width]", (int, list)),
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "channels": _WHOLE,
    "device": _TEXT,
}
_OF_FILE: _Keys = {
    "training": _TEXT,
    "validation": _TEXT,
    "before": _TEXT,
    "split": _TEXT,
    "split_validation": _TEXT,
    "split_before": _TEXT,
    "classes": ("a list of texts", (list,)),
    "workers": _WHOLE,
    "skip_unreadable": ("true or false", (bool,)),
    "accuracy": _REAL,
    "by": _TEXT,
    "grid": _TEXT_OR_NUMBER,
    "pue": _REAL,
    "confidence_level": _REAL,
    "recipe": _TABLE,
    "prices": _TABLE,
    "option": ("one table [[option]] for each option", (list,)),
    **_READING,
}
_OF_OPTION: _Keys = {
    "name": _TEXT,
    "do": _TEXT,
    "model": _TEXT,
    "weights": _TEXT,
    "layer": _TEXT,
    "pooling": _TEXT,
    "before": _TEXT,
    "grid": _TEXT_OR_NUMBER,
    "pue": _REAL,
    "seconds_per_step": _REAL,
    "joules_per_step": _REAL,
    "recipe": _TABLE,
    **_READING,
}
_WORDS_FOR_WEIGHTS = ("cached", "random")
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedOption:
    """An option as a file names it; nothing has been loaded yet.

    Attributes:
        name: of the option.
        kind: what is done.
        model: see `load_model`.
        weights: likewise.
        recipe: how it would be trained.
        files: its data.
        device: where it runs.
        layer: see `resque.profile`.
        pooling: likewise.
        reading: what its images are prepared with in place of the model's own.
        grid: see `Retrain`.
        seconds_per_step: likewise.
        joules_per_step: likewise.
    """

    name: str
    kind: Kind
    model: str
    weights: str | None
    recipe: Recipe
    files: UpdateFiles
    device: str
    layer: str | None
    pooling: str
    reading: Mapping[str, Any]
    grid: Grid | None
    seconds_per_step: float | None
    joules_per_step: float | None

    def looked_at(
        self,
        folder: Path,
        meter: Callable[[], Meter],
        meter_name: str,
        *,
        calibration: Path | None = None,
    ) -> Candidate:
        """Return what can be known of the option; looked up once, and kept in a folder.

        What was kept is taken if the option, its files, the meter with its calibration, the
        machine and the version of resque are what they were.

        Args:
            folder: made where it is missing.
            meter: opens the meter, when it is needed.
            meter_name: its name.
            calibration: file of the calibration of the meter; None for none.

        Raises:
            InputError: model or data cannot be used.
        """
        found = self.looked_up(folder, meter_name, calibration=calibration)
        if found is not None:
            return found
        option, names = self._loaded()
        found = candidate(option, meter=meter(), workers=self.files.workers, class_names=names)
        folder.mkdir(exist_ok=True)
        found.save(self._path(folder, meter_name, calibration))
        return self._placed(found)

    def looked_up(
        self, folder: Path, meter_name: str, *, calibration: Path | None = None
    ) -> Candidate | None:
        """Return what was found out about the option; None if it was not looked at.

        Args:
            folder: see `looked_at`.
            meter_name: likewise.
            calibration: likewise.

        Raises:
            InputError: the file in which it was kept is damaged.
        """
        path = self._path(folder, meter_name, calibration)
        return self._placed(load_candidate(path)) if path.exists() else None

    def _path(self, folder: Path, meter_name: str, calibration: Path | None) -> Path:
        return folder / f"{self._file_name}-{self._digest(meter_name, calibration)}.json"

    def _placed(self, found: Candidate) -> Candidate:
        """Return what is known of the option, with where it would be trained."""
        if self.kind == "keep":
            return found
        return replace(
            found, grid=self.grid, seconds_per_step=self.seconds_per_step,
            joules_per_step=self.joules_per_step,
        )  # fmt: skip

    @property
    def _file_name(self) -> str:
        plain = re.sub(r"[^A-Za-z0-9]+", "-", self.name)[:_LONGEST_NAME]
        return plain.strip("-").lower() or "option"

    def _digest(self, meter_name: str, calibration: Path | None) -> str:
        """Return what stands for all that decides what is known of the option."""
        weights = None if self.weights in (None, *_WORDS_FOR_WEIGHTS) else Path(str(self.weights))
        told = {
            "kind": self.kind,
            "name": self.name,
            "model": self.model,
            "weights": self.weights if weights is None else _state_of(weights),
            "recipe": fields_of(self.recipe),
            "files": [_state_of(path) for path in self.files.paths],
            "reading": {key: str(value) for key, value in self.reading.items()},
            "calibration": calibration and _state_of(calibration),
            "made": [FORMAT, installed_version(), *_processors()],
            "rest": [
                self.device, self.layer, self.pooling, meter_name, self.files.split,
                self.files.split_validation, self.files.split_before, self.files.class_names,
                self.files.skip_unreadable,
            ],
        }  # fmt: skip
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def _loaded(self) -> tuple[Option, Sequence[str] | None]:
        """Return the option with its model and data, and the names of their classes."""
        # An option is looked at with data of its own: models differ in how they take images.
        loaded = load_model(
            self.model, weights=self.weights, device=self.device, seed=self.recipe.seed
        )
        prepare = chosen_preprocessing(loaded.preprocessing, **self.reading)
        # Whether a model is kept does not hang on the old data.
        files = replace(self.files, before=None) if self.kind == "keep" else self.files
        data = files.read(
            prepare, batch_size=self.recipe.batch_size, layer=self.layer, pooling=self.pooling
        )
        how: dict[str, Any] = {
            "layer": data.layer,
            "pooling": data.pooling,
            "model_name": loaded.name,
            "preprocessing": data.preprocessing,
        }
        if self.kind == "keep":
            held = data.validation if data.validation is not None else data.training
            kept = Keep(
                loaded.model, self.name, data=held, validated=data.validation is not None, **how
            )
            return kept, data.class_names
        told = how | {
            "recipe": self.recipe,
            "training": data.training,
            "validation": data.validation,
            "before": data.before,
        }
        if self.kind == "retrain":
            return Retrain(loaded.model, self.name, **told), data.class_names
        untrained = untrained_like(self.model, self.recipe.seed)
        fresh = FromScratch(loaded.model, self.name, untrained=untrained, **told)
        return fresh, data.class_names


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionsFile:
    """What an options file says.

    Attributes:
        path: of the file.
        options: in its order.
        accuracy: to be reached; None where the file does not say.
        by: see `resque.compare`; likewise.
        grid: likewise.
        confidence_level: likewise.
        prices: likewise.
    """

    path: Path
    options: tuple[NamedOption, ...]
    accuracy: float | None
    by: str | None
    grid: Grid | None
    confidence_level: float | None
    prices: Prices | None

    @property
    def folder(self) -> Path:
        """Where what was looked at is kept, unless another folder is named."""
        return self.path.with_suffix(".preflights")


def read_options(path: Path | str) -> OptionsFile:
    """Return what an options file says; docs/compare.md tells of its keys.

    Paths in it are relative to its own folder.

    Args:
        path: of a TOML file.

    Raises:
        InputError: there is no such file, it is no TOML, a key is unknown or of another type, a
            number is impossible, or two options have one name; with the nearest names that are
            known.
    """
    path = existing(path)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{str(path)!r} is no TOML file: {error}.") from error
    _check_keys(told, _OF_FILE, f"{path.name}")
    folder = path.parent
    if "training" not in told:
        raise InputError(f"{path.name} names no training data: training = 'new/'.")
    files = UpdateFiles(
        training=folder / told["training"],
        validation=folder / told["validation"] if "validation" in told else None,
        before=folder / told["before"] if "before" in told else None,
        class_names=_texts(told.get("classes"), path),
        **{key: told[key] for key in _OF_FILES if key in told},
    )
    files.check()
    common = {key: told[key] for key in _READING if key in told}
    recipe = _recipe(told.get("recipe", {}), Recipe(), f"[recipe] of {path.name}")
    given = told.get("option", [])
    if not given or not all(isinstance(each, dict) for each in given):
        raise InputError(f"{path.name} has no options; write one table [[option]] for each.")
    options = tuple(
        _option(each, place, path, files, common, recipe) for place, each in enumerate(given, 1)
    )
    names = [option.name for option in options]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"Two options of {path.name} are called {name!r}; give each a name of its own."
            )
    return OptionsFile(
        path=path,
        options=options,
        accuracy=told.get("accuracy"),
        by=told.get("by"),
        grid=_grid(told, path.name),
        confidence_level=(
            checked_level(told["confidence_level"]) if "confidence_level" in told else None
        ),
        prices=_prices(told["prices"], path) if "prices" in told else None,
    )


_OF_FILES = ("split", "split_validation", "split_before", "workers", "skip_unreadable")


def _option(
    told: Mapping[str, Any],
    place: int,
    path: Path,
    files: UpdateFiles,
    common: Mapping[str, Any],
    recipe: Recipe,
) -> NamedOption:
    name = told.get("name")
    where = f"option {place if name is None else repr(name)} of {path.name}"
    _check_keys(told, _OF_OPTION, where)
    for key in ("name", "do", "model"):
        if not told.get(key):
            raise InputError(f"The {where} has no {key!r}; it needs a name, do and a model.")
    kind = told["do"]
    if kind not in get_args(Kind):
        raise InputError(
            f"do of the {where} must be one of {', '.join(get_args(Kind))}; got {kind!r}."
            f"{nearest(kind, get_args(Kind))}"
        )
    own = _recipe(told.get("recipe", {}), recipe, where)
    if kind == "from scratch":
        own = replace(own, start="scratch", frozen="none")
    elif own.start == "scratch":
        raise InputError(f"The {where} starts from scratch; say do = 'from scratch'.")
    weights = told.get("weights")
    if weights is not None and weights not in _WORDS_FOR_WEIGHTS:
        weights = str(path.parent / weights)
    if "before" in told:
        files = replace(files, before=path.parent / told["before"])
        files.check()
    reading = {**common, **{key: told[key] for key in _READING if key in told}}
    device = reading.pop("device", "auto")
    for key in ("seconds_per_step", "joules_per_step"):
        if key in told and not (math.isfinite(told[key]) and told[key] > 0):
            raise InputError(f"{key} of {where} must be above 0; got {told[key]!r}.")
    return NamedOption(
        name=told["name"],
        kind=kind,
        model=told["model"],
        weights=weights,
        recipe=own,
        files=files,
        device=device,
        layer=told.get("layer"),
        pooling=told.get("pooling", "auto"),
        reading={key: _read(key, value, where) for key, value in reading.items()},
        grid=_grid(told, where),
        seconds_per_step=told.get("seconds_per_step"),
        joules_per_step=told.get("joules_per_step"),
    )


def _check_keys(told: Mapping[str, Any], known: _Keys, where: str) -> None:
    """Raise InputError where a key is unknown, or its value of another type."""
    for key, value in told.items():
        if key not in known:
            raise InputError(
                f"{where} has an unknown key {key!r}.{nearest(key, known)} Known are "
                f"{', '.join(known)}."
            )
        word, types = known[key]
        # For Python true is a number.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise InputError(f"{key} of {where} must be {word}; got {value!r}.")


def _recipe(told: Mapping[str, Any], common: Recipe, where: str) -> Recipe:
    known = [field.name for field in fields(Recipe)]
    for key in told:
        if key not in known:
            raise InputError(
                f"The recipe of {where} has an unknown key {key!r}.{nearest(key, known)}"
            )
    try:
        return replace(common, **told)
    except (InputError, TypeError) as error:
        raise InputError(f"The recipe of {where}: {error}") from error


def _prices(told: Mapping[str, Any], path: Path) -> Prices:
    known = [field.name for field in fields(Prices)]
    for key in told:
        if key not in known:
            raise InputError(
                f"[prices] of {path.name} has an unknown key {key!r}.{nearest(key, known)} Known "
                f"are {', '.join(known)}."
            )
    return Prices(**told)


def _grid(told: Mapping[str, Any], where: str) -> Grid | None:
    if "grid" in told:
        return grid_of(told["grid"], pue=told.get("pue", 1.0))
    if "pue" in told:
        raise InputError(f"pue of {where} says something of a grid; name that, too: grid = 'FRA'.")
    return None


def _texts(told: Any, path: Path) -> tuple[str, ...] | None:
    if told is None:
        return None
    if not all(isinstance(name, str) for name in told):
        raise InputError(f"classes of {path.name} must be a list of texts; got {told!r}.")
    return tuple(told)


def _read(key: str, value: Any, where: str) -> Any:
    """Return how images are prepared, as `chosen_preprocessing` takes it."""
    many = list(value) if isinstance(value, list) else [value]
    # For Python true is a number.
    numbers = all(isinstance(one, _NUMBER) and not isinstance(one, bool) for one in many)
    if not (many and numbers):
        raise InputError(f"{key} of {where} must be made of numbers; got {value!r}.")
    if key == "image_size":
        if len(many) > 2 or not all(isinstance(one, int) and one > 0 for one in many):
            raise InputError(
                f"image_size of {where} must be one or two whole numbers above 0; got {value!r}."
            )
        return many[0], many[-1]
    return value if key == "channels" else tuple(float(number) for number in many)


def _processors() -> list[str]:
    """Return the names of what a model could run on here."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [hardware_name(torch.device(device)) for device in devices]


def _state_of(path: Path) -> list[Any]:
    """Return what tells whether a file, or the files of a folder, have changed."""
    if not path.exists():
        return [str(path)]
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [
        str(path.resolve()),
        len(files),
        sum(size for size, _ in states),
        max((time for _, time in states), default=0),
    ]
