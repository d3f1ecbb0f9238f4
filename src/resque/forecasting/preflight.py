"""Everything that can be known about an update before it is made, in one object."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from resque.errors import InputError, NotComparableError
from resque.files import checked_output, existing, written_whole
from resque.history.records import DataSizes, Hardware, Recipe, fields_of
from resque.index.profile import GROUPS, ClassProfile
from resque.index.shift import ShiftIndex, shift_index
from resque.index.sums import OutputStatistics
from resque.index.task import TaskIndex, task_index
from resque.measure.batches import TrainingData, labels_of, places_of
from resque.measure.machine import hardware_of
from resque.measure.probe import FEWEST_STEPS, Probe, probe
from resque.measure.retrain import started
from resque.notebook import shown_in_notebook
from resque.representation.sampling import stratified_sample
from resque.representation.signature import Signature
from resque.representation.sources import as_source
from resque.representation.stream import Stream, device_of, same_random_state
from resque.rivals.controls import flops, parameters
from resque.rivals.observations import Observations, observe
from resque.rivals.table import (
    OF_EXAMPLES,
    OF_OUTPUTS,
    sampled_places,
    shift_rivals,
    task_rivals,
)

if TYPE_CHECKING:
    from resque.measure.energy import Meter

FORMAT = "resque.Preflight/1"
MOST_EXAMPLES = 2000

SHIFT_INDEX = ("RESQUE_dist", "RESQUE_dist_floor", "RESQUE_dist_debiased")
TASK_INDEX = ("RESQUE_task",)
ZERO_SHOT = ("error_before", "loss_before")
CONTROLS = (
    "classes", "training_examples", "examples_per_class", "steps_per_epoch", "parameters", "flops",
)  # fmt: skip
PROBED = (
    "probe_loss_first", "probe_loss_slope", "probe_gradient_norm_first", "probe_gradient_norm",
    "probe_parameter_change",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """All that is known about an update before it is made; made by `preflight`, saved as JSON.

    Attributes:
        values: name -> number, None where it could not be had. Index, rivals, zero-shot
            results, controls and what the probe saw; all but the controls and the slope of the
            probe's loss are oriented so that higher means more cost.
        missing: name -> why there is no number.
        seconds: what was done -> how long it took.
        shift: the shift index as its `to_dict` gives it; None without old data.
        task: the task index likewise.
        probe: a few training steps; None where none were asked for.
        recipe: how the update is to be trained.
        data: sizes of the data of the update, not of the sample.
        sample: side -> (examples looked at, examples there are).
        hardware: the machine.
        signature: of the pass over the new data.
        notes: what to know before quoting the numbers.

    Example:
        >>> import torch
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> found = preflight(torch.nn.Linear(4, 2), (x + 1, y), before=(x, y), meter="none")
        >>> Preflight.from_dict(found.to_dict()) == found
        True
    """

    values: Mapping[str, float | None]
    missing: Mapping[str, str]
    seconds: Mapping[str, float]
    shift: Mapping[str, Any] | None
    task: Mapping[str, Any] | None
    probe: Probe | None
    recipe: Recipe
    data: DataSizes
    sample: Mapping[str, tuple[int, int]]
    hardware: Hardware
    signature: Signature
    notes: tuple[str, ...] = field(default=())

    _repr_html_ = shown_in_notebook

    def to_dict(self) -> dict[str, Any]:
        """Return the pre-flight as plain JSON types."""
        return {
            "format": FORMAT,
            "values": dict(self.values),
            "missing": dict(self.missing),
            "seconds": dict(self.seconds),
            "shift": self.shift,
            "task": self.task,
            "probe": self.probe and self.probe.to_dict(),
            "recipe": fields_of(self.recipe),
            "data": fields_of(self.data),
            "sample": {side: list(sizes) for side, sizes in self.sample.items()},
            "hardware": fields_of(self.hardware),
            "signature": self.signature.to_dict(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preflight:
        """Return the pre-flight that `to_dict` wrote.

        Raises:
            InputError: it is none, was written by a newer version, or is incomplete.
        """
        given = values.get("format") if isinstance(values, Mapping) else None
        if given != FORMAT:
            raise InputError(
                f"This is no pre-flight that this version reads: its format is {given!r}, "
                f"expected {FORMAT!r}. Make it anew, or upgrade resque."
            )
        found = {key: value for key, value in values.items() if key != "format"}
        try:
            found["probe"] = found["probe"] and Probe.from_dict(found["probe"])
            found["recipe"] = Recipe(**found["recipe"])
            found["data"] = DataSizes(
                **(found["data"] | {"class_names": tuple(found["data"]["class_names"])})
            )
            found["hardware"] = Hardware(**found["hardware"])
            found["signature"] = Signature.from_dict(found["signature"])
            found["sample"] = {side: tuple(sizes) for side, sizes in found["sample"].items()}
            found["notes"] = tuple(found["notes"])
            if not found["values"]:
                raise KeyError("values")
            return cls(**found)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"This pre-flight is incomplete: {error}. Make it anew.") from error

    def save(self, path: Path | str) -> None:
        """Write the pre-flight as a JSON file, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        checked_output(path)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        looked = ", ".join(f"{n} of {of} ({side})" for side, (n, of) in self.sample.items())
        lines = [f"pre-flight of {looked} examples, {sum(self.seconds.values()):.2f} s"]
        for name, value in self.values.items():
            told = f"none: {self.missing[name]}" if value is None else f"{value:.4g}"
            lines.append(f"{name} {told}")
        if self.probe is not None:
            lines.append(str(self.probe))
        lines += [f"warning: {note}" for note in self.notes]
        return "\n".join([*lines, str(self.signature)])


def load_preflight(path: Path | str) -> Preflight:
    """Return the pre-flight in a file that `Preflight.save` wrote.

    Args:
        path: a JSON file.

    Raises:
        InputError: there is none, or it is no pre-flight.

    Example:
        >>> import tempfile, torch
        >>> data = torch.randn(64, 4), torch.arange(64) % 2
        >>> known = preflight(torch.nn.Linear(4, 2), data, meter="none")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     known.save(f"{folder}/known.json")
        ...     load_preflight(f"{folder}/known.json") == known
        True
    """
    path = existing(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected a saved pre-flight (.json).")
    try:
        return Preflight.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{str(path)!r} is no saved pre-flight: it is not JSON. `resque forecast "
            "--save-preflight` and Preflight.save write one."
        ) from error


def preflight(
    model: nn.Module,
    training: Any,
    *,
    before: ClassProfile | Any = None,
    validation: Any = None,
    recipe: Recipe | None = None,
    meter: Meter | str = "codecarbon",
    most_examples: int = MOST_EXAMPLES,
    probe_steps: int = 20,
    untrained: Callable[[], nn.Module] | None = None,
    layer: str | None = None,
    pooling: str = "auto",
    class_names: Sequence[str] | None = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    before_ids: Sequence[Any] | np.ndarray | None = None,
    batch_size: int = 64,
    model_name: str | None = None,
    preprocessing: str | None = None,
    workers: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> Preflight:
    """Return all that can be known about an update before it is made.

    One pass of the model over the new data, one over the old ones unless their profile is
    there, and a few training steps on a copy. The model is left as it was. Data larger than
    `most_examples` are looked at through a sample, in which each class has its share.

    Args:
        model: as for `retrain`.
        training: the data to train on, likewise.
        before: the old data, or their `ClassProfile`, from which the rivals that need single
            examples cannot be computed, and whose number of groups is taken over; None for a
            task that is new altogether.
        validation: as for `retrain`, for the probe to time; None times no validation.
        recipe: likewise.
        meter: see `open_meter`.
        most_examples: examples of each side to look at.
        probe_steps: training steps to time, after 5 of warm-up; 0 for none. What steps did
            (losses and their slope, gradient norms, the change of the parameters) is told of the
            warm-up and these together, 25 by default; what they cost, of the timed ones alone.
            Steps that are added because a meter needs longer count for their cost only.
        untrained: as for `retrain`.
        layer: see `resque.profile`.
        pooling: likewise.
        class_names: likewise.
        ids: one per example of the new data; the same id marks the same example (or scene, or
            patient) on both sides, see `resque.profile`. By default its place.
        before_ids: likewise of the old data.
        batch_size: examples per batch of the passes.
        model_name: see `resque.profile`.
        preprocessing: likewise.
        workers: processes that load a Dataset.
        seed: of the samples.
        progress: show a progress bar on stderr where that is a terminal.

    Raises:
        InputError: model or data cannot be used; the message says which of them. An input that
            is not finite is told by its id.
        NotComparableError: the profile of the old data is of another model.

    Example:
        >>> import torch
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> found = preflight(torch.nn.Linear(4, 2), (x + 1, y), before=(x, y), meter="none")
        >>> found.values["RESQUE_dist"] > 0, found.missing["ridge_flattened"][:22]
        (True, 'the model gives no map')
    """
    recipe = recipe or Recipe()
    _check_options(model, recipe, most_examples, probe_steps)
    of_old = _signature(before, before_ids)
    known = _Known()
    samples: dict[str, Sample] = {}
    for side, given in (("training", training), ("old", before)):
        if given is not None and not isinstance(given, ClassProfile):
            with _said_of(side):
                samples[side] = Sample.of(given, most_examples, seed=seed)
    data, first = _training_data(model, training, validation, recipe, class_names, workers)

    def seen(side: str, names: Sequence[str] | None, own_ids: Any) -> Observations:
        sample = samples[side]
        with known.timed(f"pass over the {side} data"), _said_of(side, sample, model):
            return observe(
                model,
                sample.data,
                maps=side == "training",
                layers="old" in samples,
                sampled=sample.sampled_places(),
                layer=layer,
                pooling=pooling,
                class_names=names,
                ids=sample.ids(own_ids),
                groups=(of_old and of_old.groups) or GROUPS,
                batch_size=batch_size,
                model_name=model_name,
                preprocessing=preprocessing,
                progress=progress,
            )

    def both(names: Sequence[str] | None) -> tuple[Observations, Observations | None]:
        after = seen("training", names, ids)
        return after, seen("old", names, before_ids) if "old" in samples else None

    names, labels = class_names, labels_of(training)
    of_outputs = names is None and recipe.start == "weights"
    try:
        if of_outputs:
            # A label that is a bare number means the output of that number, as in cross-entropy;
            # also of classes that have no example among the new data.
            names = _names_of_outputs(model, first, layer, pooling)
            if names is not None and labels is not None and int(labels.max()) >= len(names):
                names = None
        after, old = both(names)
    except InputError:
        if not of_outputs:
            raise
        # A label beyond the outputs says that they stand for other classes.
        names = None
        after, old = both(names)
    if after.labels is None:
        raise InputError("The training data have no labels; an update needs them.")
    shift = None
    if before is None:
        reason = "there are no old data to compare with"
        known.none((*SHIFT_INDEX, *OF_OUTPUTS, "global_angle", *OF_EXAMPLES), reason)
    else:
        shift = _shift(old or before, after, known)
    task = _task(after, known)
    _zero_shot(after.profile.outputs, recipe.start, known)
    # Those with examples: labels 3 and 7 are two, whatever the model's outputs are.
    classes = len(np.unique(after.labels))
    with known.timed("controls"), same_random_state(device_of(model)), data.undisturbed():
        data.sizes = replace(data.sizes, classes=data.sizes.classes or classes)
        # That which will be trained: with a fresh classifier where the recipe asks for one.
        student, _ = started(model, recipe, data, untrained)
        known.values |= _controls(student, first, data.sizes, classes)
    tried = None
    if probe_steps:
        with known.timed("probe"):
            tried = probe(
                model, training, validation, recipe=recipe, steps=probe_steps, meter=meter,
                untrained=untrained, class_names=names, workers=workers,
            )  # fmt: skip
    _probed(tried, known)
    of_samples = chain(*(sample.notes for sample in samples.values()))
    told = [result.warnings for result in (shift, task) if result is not None]
    return Preflight(
        values=known.values,
        missing=known.missing,
        seconds=known.seconds,
        shift=None if shift is None else shift.to_dict(),
        task=None if task is None else task.to_dict(),
        probe=tried,
        recipe=recipe,
        data=data.sizes,
        sample={side: (sample.examples, sample.of_all) for side, sample in samples.items()},
        hardware=hardware_of(device_of(model)),
        signature=after.profile.signature,  # type: ignore[arg-type]  # of a profile with examples
        notes=tuple(dict.fromkeys([*of_samples, *after.profile.notes, *chain(*told)])),
    )


_SIDES = {
    "training": "new data (training)", "old": "old data (before)", "validation": "validation data",
}  # fmt: skip


def _check_options(model: Any, recipe: Any, most_examples: int, probe_steps: int) -> None:
    if most_examples < 1:
        raise InputError(f"most_examples must be 1 or more; got {most_examples}.")
    if probe_steps != 0 and probe_steps < FEWEST_STEPS:
        raise InputError(f"probe_steps must be 0, or {FEWEST_STEPS} or more; got {probe_steps}.")
    if not isinstance(model, nn.Module):
        raise InputError(f"The model must be a torch.nn.Module; got {type(model).__name__}.")
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe must be a resque.Recipe; got {type(recipe).__name__}.")


def _signature(before: Any, before_ids: Any) -> Signature | None:
    """Return the signature of the profile of the old data; None if it is no profile."""
    profile = before if isinstance(before, ClassProfile) else None
    if before_ids is not None and (before is None or profile is not None):
        told = "None" if profile is None else "a profile, which has taken them in"
        raise InputError(f"before_ids are those of old data, and before is {told}. Leave them out.")
    if profile is None:
        return None
    if profile.signature is None:
        raise InputError("before is an empty profile; profile the old data with resque.profile.")
    return profile.signature


def _training_data(
    model: nn.Module,
    training: Any,
    validation: Any,
    recipe: Recipe,
    class_names: Sequence[str] | None,
    workers: int,
) -> tuple[TrainingData, Any]:
    """Return the data of the update, and the inputs of one validation example.

    The model has run on an example of each of them.
    """
    sides = [("training", training)]
    if validation is not None:
        sides.append(("validation", validation))
    # The first time without the validation data, so that an error says which it is of.
    for side, validated in sides:
        with _said_of(side), same_random_state(device_of(model)):
            data = TrainingData.of(
                training, validated, recipe, class_names=class_names, workers=workers
            )
            with data.undisturbed():
                first = data.first_inputs(1)
                flops(model, first)
    return data, first


def _controls(
    student: nn.Module, inputs: Any, sizes: DataSizes, classes: int
) -> dict[str, float | None]:
    return {
        "classes": float(classes),
        "training_examples": float(sizes.training_examples),
        "examples_per_class": sizes.training_examples / classes,
        "steps_per_epoch": float(sizes.steps_per_epoch),
        "parameters": float(parameters(student)),
        "flops": float(flops(student, inputs)),
    }


def _probed(tried: Probe | None, known: _Known) -> None:
    if tried is None:
        known.none(PROBED, "no probe was asked for")
        return
    known.add("probe_loss_first", tried.losses[0])
    known.add("probe_loss_slope", tried.loss_slope)
    known.add("probe_gradient_norm_first", tried.gradient_norm_first)
    known.add("probe_gradient_norm", tried.gradient_norm)
    known.add("probe_parameter_change", tried.parameter_change)


@contextmanager
def _said_of(
    side: str, sample: Sample | None = None, model: nn.Module | None = None
) -> Iterator[None]:
    """Let an error say which data it is of, and whether the model's own weights are to blame."""
    try:
        yield
    except InputError as error:
        some = "a sample of " if sample is not None and sample.examples < sample.of_all else ""
        weights = "" if model is None else _not_finite_in(model)
        raise InputError(f"On {some}the {_SIDES[side]}: {error}{weights}") from error


def _not_finite_in(model: nn.Module) -> str:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f" The model's own {name!r} contains NaN or infinity."
    return ""


def _names_of_outputs(
    model: nn.Module, inputs: Any, layer: str | None, pooling: str
) -> tuple[str, ...] | None:
    one = as_source([(inputs, torch.zeros(1, dtype=torch.int64))])
    (batch,) = Stream(model, one, layer=layer, pooling=pooling)
    return None if batch.logits is None else tuple(map(str, range(batch.logits.shape[1])))


def _shift(
    old: ClassProfile | Observations, after: Observations, known: _Known
) -> ShiftIndex | None:
    found = None
    profile = old if isinstance(old, ClassProfile) else old.profile
    try:
        if profile.by_label is None:
            raise InputError(
                "The old data (before) have no labels; give labelled data, or a profile of such."
            )
        with known.timed("RESQUE_dist"):
            found = shift_index(profile, after.profile)
    except NotComparableError:
        raise
    except InputError as error:
        known.none(SHIFT_INDEX, str(error))
    else:
        known.values["RESQUE_dist"] = found.value
        known.values["RESQUE_dist_floor"] = found.floor
        known.add("RESQUE_dist_debiased", found.debiased, why_none="no class is resolved")
    for name, measured in shift_rivals(old, after).items():
        known.add(name, measured.value, measured.seconds, measured.why_none)
    return found


def _task(after: Observations, known: _Known) -> TaskIndex | None:
    found = None
    try:
        with known.timed("RESQUE_task"):
            found = task_index(
                None,
                (after.representations, after.labels),
                class_names=after.profile.class_names,
                progress=False,
            )
    except InputError as error:
        known.none(TASK_INDEX, str(error))
    else:
        known.values["RESQUE_task"] = found.value
        of_pass = after.profile.signature
        assert of_pass is not None  # noqa: S101  # narrows the type: the pass saw examples
        found = replace(found, signature=replace(of_pass, index="RESQUE_task", groups=None))
    for name, measured in task_rivals(after).items():
        known.add(name, measured.value, measured.seconds, measured.why_none)
    return found


def _zero_shot(told: OutputStatistics | None, start: str, known: _Known) -> None:
    if start != "weights":
        known.none(
            ZERO_SHOT, f"an update with start={start!r} begins with a classifier that knows nothing"
        )
    elif told is None or told.accuracy is None:
        known.none(ZERO_SHOT, "the model has no output for these classes")
    else:
        known.add("error_before", 1 - told.accuracy)
        known.add("loss_before", told.mean_loss)


class _Known:
    """Values, their seconds, and why there are none."""

    def __init__(self) -> None:
        self.values: dict[str, float | None] = {}
        self.missing: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def add(
        self,
        name: str,
        value: float | None,
        seconds: float | None = None,
        why_none: str | None = None,
    ) -> None:
        if value is not None and not math.isfinite(value):
            value, why_none = None, f"it is {value}"
        self.values[name] = value
        if value is None:
            self.missing[name] = why_none or "it could not be computed"
        if seconds is not None:
            self.seconds[name] = seconds

    def none(self, names: Sequence[str], why: str) -> None:
        for name in names:
            self.add(name, None, why_none=why)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


# An IterableDataset may have a length, and its examples no places all the same.
_WITHOUT_PLACES = (IterableDataset, Mapping, str, bytes)


@dataclass(frozen=True, slots=True)
class Sample:
    """Some examples of a data set, each class with its share.

    Attributes:
        data: as `resque.profile` takes them.
        places: of the examples in the whole (examples,); None where they are not known.
        examples: how many were drawn.
        of_all: from how many.
        notes: what to know about it.
    """

    data: Any
    places: np.ndarray | None
    examples: int
    of_all: int
    notes: tuple[str, ...] = ()

    def ids(self, given: Sequence[Any] | np.ndarray | None) -> Any:
        """Return the ids of the drawn examples, from those of all that were given, or places."""
        if given is None:
            return self.places
        if len(given) != self.of_all:
            raise InputError(
                f"There are {len(given)} ids and {self.of_all} examples; expected one id per "
                "example, in the order of the data."
            )
        return given if self.places is None else np.asarray(given)[self.places]

    def sampled_places(self) -> np.ndarray:
        """Return the places in the sample of those whose last map and layers are looked at."""
        labels = None
        # Labels that only the batches tell, or that are no integers there, are no reason to stop.
        with suppress(InputError):
            labels = labels_of(self.data)
        return sampled_places(None if labels is None else labels.numpy(), self.examples)

    @classmethod
    def of(cls, data: Any, most: int, *, seed: int) -> Sample:
        """Return at most so many examples of arrays, a Dataset or a DataLoader.

        Where labels are not known without loading the examples, all have the same chance.

        Raises:
            InputError: the data are none of these, do not know how many examples they have, have
                none, or have more classes than that.
        """
        if isinstance(data, tuple | list) and len(data) != 2:
            raise InputError(
                f"Data must be a pair (inputs, labels), a Dataset or a DataLoader; got a "
                f"{type(data).__name__} of {len(data)}."
            )
        if isinstance(data, tuple | list) and data[1] is None:
            data = data[0]
        whole: Any = data.dataset if isinstance(data, DataLoader) else data
        if isinstance(whole, _WITHOUT_PLACES) or not hasattr(whole, "__len__"):
            of = f" of {type(whole).__name__}" if whole is not data else ""
            raise InputError(
                "A pre-flight needs data that know how many examples they have: a pair (inputs, "
                f"labels), a Dataset or a DataLoader of one; got {type(data).__name__}{of}."
            )
        if isinstance(data, DataLoader) and (drawn := places_of(data)) is not None:
            # What its sampler leaves out is no part of the data.
            whole = Subset(whole, drawn.tolist())
        n = len(data[0]) if isinstance(data, tuple | list) else len(whole)
        if not n:
            raise InputError("The data hold no examples; expected one or more.")
        if n <= most and not isinstance(data, DataLoader):
            return cls(data, None, n, n)
        labels = labels_of(whole)
        notes: tuple[str, ...] = ()
        if labels is None:
            places = np.sort(np.random.default_rng(seed).permutation(n)[:most])
            if n > most:
                note = (
                    f"The pre-flight looked at {most} of {n} examples drawn alike from all: their "
                    "labels are not known without loading them."
                )
                notes = (note,)
        else:
            classes = len(torch.unique(labels))
            if most < classes:
                raise InputError(
                    f"most_examples must be {classes} or more, one for each class; got {most}."
                )
            places = stratified_sample(labels.numpy(), min(most, n), seed=seed)
        if isinstance(data, tuple | list):
            parts = tuple(
                part[places] if hasattr(part, "shape") else [part[place] for place in places]
                for part in data
            )
            return cls(parts, places, len(places), n, notes)
        part: Any = Subset(whole, places.tolist())
        if isinstance(data, DataLoader):
            part = DataLoader(
                part, batch_size=data.batch_size or 64, collate_fn=data.collate_fn,
                num_workers=data.num_workers,
            )  # fmt: skip
        return cls(part, places, len(places), n, notes)
