"""Update: one measured retraining, with everything that is needed to compare it with another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from resque.errors import InputError
from resque.history.records import (
    DataSizes,
    EnergyReading,
    Grid,
    Hardware,
    Recipe,
    Target,
    fields_of,
    reading_from_dict,
    reading_to_dict,
    target_from_dict,
    target_to_dict,
)
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

# Of the record as JSON; a newer one is refused.
FORMAT = 1

Ended = Literal["target", "plateau", "max_epochs", "diverged", "interrupted"]
_NUMBERS = (
    "epochs", "duration_s", "accuracy_before", "loss_before", "peak_accuracy", "peak_epoch",
    "gradient_norm", "gradient_norm_last_batch", "parameter_change", "parameter_change_published",
)  # fmt: skip
_COUNTS = ("steps", "examples_seen", "concurrency", "interruptions")
_READINGS = ("energy", "training_energy", "validation_energy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What one validation during an update found, and what the epoch part before it did.

    All but the accuracy and the loss of the validation data are None at epoch 0.

    Attributes:
        epoch: epochs trained so far, in fractions.
        steps: optimiser steps so far.
        accuracy: on the validation data, 0 to 1.
        validation_loss: mean cross-entropy on them, in nats; None where it was not given.
        training_loss: mean over the steps since the last validation.
        gradient_norm: mean over those steps of the global L2 norm of the gradient, before any
            clipping.
        gradient_norm_last_batch: of the last step alone, as the published scripts take it.
        parameter_change: root mean square over all trained parameters of the change since the
            start. method.md, equation 12.
        parameter_change_since_last: the same since the last validation.
        parameter_change_published: mean over tensors of their root mean square changes since
            the start, each tensor counting alike.
        parameter_change_published_since_last: the same since the last validation.
        seconds: training and validation since the last point.
        joules: likewise; None where the window was too short for the meter, or without one.

    Example:
        >>> Point(epoch=0.5, steps=16, accuracy=0.81).accuracy
        0.81
    """

    epoch: float
    steps: int
    accuracy: float
    validation_loss: float | None = None
    training_loss: float | None = None
    gradient_norm: float | None = None
    gradient_norm_last_batch: float | None = None
    parameter_change: float | None = None
    parameter_change_since_last: float | None = None
    parameter_change_published: float | None = None
    parameter_change_published_since_last: float | None = None
    seconds: float | None = None
    joules: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One retraining of one model on one data set, measured.

    `epochs`, `duration_s` and the energy are those at which the update ended. Where `reached` is
    False the update is censored: its target would have cost more than that.

    Attributes:
        started: when, in UTC, as ISO 8601.
        signature: of the model before training: name, digest of the weights, preprocessing,
            precision, hardware and version.
        target: what was to end it.
        ended: "target" or "plateau", as asked for; "max_epochs", "diverged" (the loss was no
            number any more) or "interrupted".
        recipe: how it was trained; None where it was a loop of the user's own that did not say.
        data: sizes and classes of the data.
        hardware: the machine.
        epochs: epochs trained when it ended, in fractions. method.md, equation 11.
        steps: optimiser steps.
        examples_seen: training examples, each time counted.
        duration_s: seconds of training and validation.
        accuracy_before: accuracy on the validation data before any training.
        loss_before: mean cross-entropy likewise.
        peak_accuracy: greatest accuracy at any validation, that before training included.
        peak_epoch: when it was seen first.
        gradient_norm: mean over all steps with a finite gradient of its global L2 norm; None
            without steps. Equation 13.
        gradient_norm_last_batch: mean over validations of the norm of the last step before
            them, the published variant.
        parameter_change: root mean square over all trained parameters of their change.
            Equation 12.
        parameter_change_published: mean over tensors of the root mean square change of each.
        parameters: values in all parameters of the model; None where nobody counted.
        trained_parameters: values in those that were trained.
        parameter_change_per_tensor: that of each tensor, by name.
        energy: of training and validation; None where nothing was metered.
        training_energy: the part of training; None where it was not told apart.
        validation_energy: the part of validation.
        grid: what a kilowatt-hour costs in carbon; None where nobody said.
        concurrency: updates that ran on the machine at the same time, this one included; the
            energy of one of several cannot be told apart.
        interruptions: how often the update was interrupted and resumed.
        index: the index before training, as `to_dict` gives it, if it was computed.
        preflight: all that was known before training, likewise.
        versions: of Python, torch and resque.
        labels: words of the user's own, such as {"shift": "blur"}, to find it again.
        notes: what to know before quoting the numbers.
        curve: one point per validation; the first is that before training.

    Example:
        >>> import torch
        >>> import resque
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> data = x, (x[:, 0] > 0).long()
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> result = resque.retrain(model, data, data, target=resque.Accuracy(0.9), meter="none")
        >>> Update.from_dict(result.update.to_dict()) == result.update
        True
    """

    started: str
    signature: Signature
    target: Target
    ended: Ended
    recipe: Recipe | None
    data: DataSizes
    hardware: Hardware
    epochs: float
    steps: int
    examples_seen: int
    duration_s: float
    accuracy_before: float | None
    loss_before: float | None
    peak_accuracy: float | None
    peak_epoch: float | None
    gradient_norm: float | None
    gradient_norm_last_batch: float | None
    parameter_change: float | None
    parameter_change_published: float | None
    parameters: int | None = None
    trained_parameters: int | None = None
    parameter_change_per_tensor: Mapping[str, float] = field(default_factory=dict)
    energy: EnergyReading | None = None
    training_energy: EnergyReading | None = None
    validation_energy: EnergyReading | None = None
    grid: Grid | None = None
    concurrency: int = 1
    interruptions: int = 0
    index: Mapping[str, Any] | None = None
    preflight: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    curve: tuple[Point, ...] = ()

    _repr_html_ = shown_in_notebook

    @property
    def id(self) -> str:
        """32 hex digits of what the update says: the same update has the same id everywhere.

        The grid is no part of it: an update costed for another grid is the same update.
        """
        return _digest(self._content())

    @property
    def start(self) -> str | None:
        """Where training started: "weights", "head", "scratch", or None where nobody said."""
        return self.recipe.start if self.recipe else None

    @property
    def reached(self) -> bool:
        """Whether the target was met; an update that is not `reached` is censored."""
        return self.ended in ("target", "plateau")

    @property
    def energy_kwh(self) -> float | None:
        """Energy of training and validation in kWh; None where it is not known, 0 without steps."""
        if self.steps == 0:
            return 0.0
        alone = self.concurrency == 1
        return self.energy.kwh if self.energy is not None and alone else None

    @property
    def carbon_kg(self) -> float | None:
        """Kilograms of CO2 equivalent on `grid`; None without energy or grid. Equation 14."""
        if self.energy_kwh is None or self.grid is None:
            return None
        return self.grid.kg_of(self.energy_kwh)

    @property
    def why_no_carbon(self) -> str | None:
        """Why `carbon_kg` is None, in words; None where it is a number."""
        if self.grid is None:
            return "no grid was given"
        if self.energy_kwh is not None:
            return None
        if self.energy is None:
            return "no meter was used"
        if self.concurrency > 1:
            return f"{self.concurrency} updates shared the machine, and the meter reads all of it"
        return "the meter gave no energy"

    def on_grid(self, grid: Grid | None) -> Update:
        """Return the same update, costed for another grid; see `resque.grid`.

        It keeps its id: a history that has the update already stays with the grid that it has.
        """
        if grid is not None and not isinstance(grid, Grid):
            raise InputError(f"Expected a Grid; got {grid!r}. Make one: resque.grid({grid!r}).")
        return replace(self, grid=grid)

    def to_dict(self) -> dict[str, Any]:
        """Return the update as plain JSON types, with its id and the measures that follow."""
        return {
            "id": self.id,
            **self._content(),
            "reached": self.reached,
            "energy_kwh": self.energy_kwh,
            "energy_modelled": self.energy.modelled if self.energy is not None else None,
            "carbon_kg": self.carbon_kg,
            "why_no_carbon": self.why_no_carbon,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Update:
        """Return the update that `to_dict` wrote.

        Raises:
            InputError: it was written by a newer version, is incomplete, or its numbers are not
                those that were written.
        """
        if not isinstance(values, Mapping) or "format" not in values:
            raise InputError("This is no update: it has no 'format'.")
        if values["format"] not in range(1, FORMAT + 1):
            raise InputError(
                f"This update has the format {values['format']!r}; this version reads up to "
                f"{FORMAT}. Upgrade resque to read it."
            )
        given = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        try:
            recipe, grid = values["recipe"], values["grid"]
            read = cls(
                **given
                | {
                    "signature": Signature.from_dict(values["signature"]),
                    "target": target_from_dict(values["target"]),
                    "recipe": recipe and Recipe(**recipe),
                    "data": DataSizes(
                        **values["data"] | {"class_names": tuple(values["data"]["class_names"])}
                    ),
                    "hardware": Hardware(**values["hardware"]),
                    "grid": grid and Grid(**grid),
                    "notes": tuple(values["notes"]),
                    "curve": tuple(Point(**point) for point in values["curve"]),
                }
                | {name: values[name] and reading_from_dict(values[name]) for name in _READINGS}
            )
            _require_types(read)
            # Of what was written, which is the same and is there already.
            written = {"format", *(f.name for f in fields(cls))}
            same = values["id"] == _digest({key: values[key] for key in written})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"This update is damaged ({type(error).__name__}: {error})."
            ) from error
        if not same:
            raise InputError("This update is damaged: its numbers are not those that were written.")
        return read

    def __str__(self) -> str:
        lines = [
            f"update {self.id[:8]} of {self.signature.model}, {self.target}: "
            + ("reached" if self.reached else f"censored ({self.ended.replace('_', ' ')})")
        ]
        lines.append(
            f"epochs {self.epochs:.4g} ({self.steps} steps), {self.duration_s:.4g} s"
            + (
                f", accuracy {self.accuracy_before:.4f} before, {self.peak_accuracy:.4f} at best"
                if self.accuracy_before is not None and self.peak_accuracy is not None
                else ""
            )
        )
        if self.gradient_norm is not None and self.parameter_change is not None:
            lines.append(
                f"gradient norm {self.gradient_norm:.4g}, "
                f"parameter change {self.parameter_change:.4g}"
            )
        if self.energy is not None and self.energy.kwh is not None and self.energy_kwh is not None:
            modelled = " modelled" if self.energy.modelled else ""
            lines.append(
                f"energy {self.energy_kwh:.4g} kWh{modelled} "
                f"(±{self.energy.relative_error or 0:.0%}; {self.energy.meter})"
            )
        if self.carbon_kg is not None:
            modelled = " modelled" if self.energy is not None and self.energy.modelled else ""
            lines.append(f"carbon {self.carbon_kg:.4g} kg CO2e{modelled} on {self.grid}")
        else:
            lines.append(f"no carbon: {self.why_no_carbon}")
        if self.interruptions:
            lines.append(f"interrupted and resumed: {self.interruptions}")
        lines += [f"warning: {note}" for note in self.notes]
        return "\n".join([*lines, str(self.signature)])

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {"format": FORMAT} | fields_of(self)
        content["signature"] = self.signature.to_dict()
        content["target"] = target_to_dict(self.target)
        for name in ("recipe", "data", "hardware", "grid"):
            record = getattr(self, name)
            content[name] = record and fields_of(record)
        for name in _READINGS:
            reading = getattr(self, name)
            content[name] = reading and reading_to_dict(reading)
        for name in ("parameter_change_per_tensor", "versions", "labels"):
            content[name] = dict(getattr(self, name))
        content["curve"] = [fields_of(point) for point in self.curve]
        return content


def _digest(content: Mapping[str, Any]) -> str:
    said = {key: value for key, value in content.items() if key != "grid"}
    text = json.dumps(said, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _require_types(update: Update) -> None:
    """Raise TypeError where a field of a record that was read is not what it should be."""
    needed = ("epochs", "duration_s")
    for name in _NUMBERS:
        value = getattr(update, name)
        if not (value is None and name not in needed) and not _is_number(value, int | float):
            raise TypeError(f"{name} is no number: {value!r}")
    for name in _COUNTS:
        if not _is_number(getattr(update, name), int):
            raise TypeError(f"{name} is no whole number: {getattr(update, name)!r}")
    if update.ended not in get_args(Ended):
        raise TypeError(f"ended is {update.ended!r}")
    for name in ("labels", "versions", "parameter_change_per_tensor"):
        if not isinstance(getattr(update, name), Mapping):
            raise TypeError(f"{name} is no object: {getattr(update, name)!r}")
    for key, value in update.labels.items():
        if not isinstance(value, str):
            raise TypeError(f"the label {key!r} is no text: {value!r}")
    if not isinstance(update.started, str):
        raise TypeError(f"started is no text: {update.started!r}")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
