"""What is known of one option before any choice: its pre-flight, or how well the model does now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch.utils.data import DataLoader, Dataset

from resque.decision.option import FromScratch, Keep, Kind, Option, recipe_of
from resque.errors import InputError
from resque.files import existing, written_whole
from resque.forecasting.preflight import Preflight, preflight
from resque.history.records import Grid, Recipe
from resque.index.profile import profile
from resque.measure.batches import TrainingData, labels_of
from resque.representation.signature import Signature
from resque.representation.sources import as_source
from resque.representation.stream import device_of, same_random_state
from resque.rivals.observations import observe

if TYPE_CHECKING:
    from torch import nn

    from resque.measure.energy import Meter

FORMAT = "resque.Candidate/2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What is known of an option before any choice.

    Attributes:
        name: of the option.
        kind: "keep", "retrain" or "from scratch".
        correct: of a kept model, new examples that it classifies correctly already.
        examples: of those that it was asked.
        validated: whether those are the validation data on which the other options are judged.
        preflight: of an option that trains.
        signature: of the pass of a kept model; None where it is not known.
        grid: see `Retrain`.
        seconds_per_step: likewise.
        joules_per_step: likewise.

    Example:
        >>> kept = Candidate(name="keep", kind="keep", correct=90, examples=100)
        >>> Candidate.from_dict(kept.to_dict()) == kept
        True
    """

    name: str
    kind: Kind
    correct: int = 0
    examples: int = 0
    validated: bool = False
    preflight: Preflight | None = None
    signature: Signature | None = None
    grid: float | str | Grid | None = None
    seconds_per_step: float | None = None
    joules_per_step: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what was looked up of the option as plain JSON types."""
        return {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "correct": self.correct,
            "examples": self.examples,
            "validated": self.validated,
            "preflight": self.preflight and self.preflight.to_dict(),
            "signature": self.signature and self.signature.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """Return the candidate that `to_dict` wrote.

        Raises:
            InputError: it is none, or is incomplete.
        """
        found = dict(values) if isinstance(values, Mapping) else {}
        if found.pop("format", None) != FORMAT or found.get("kind") not in get_args(Kind):
            raise InputError(f"This is no option that was looked at; expected format {FORMAT!r}.")
        try:
            known, signature = found.pop("preflight"), found.pop("signature", None)
            return cls(
                preflight=known and Preflight.from_dict(known),
                signature=signature and Signature.from_dict(signature),
                **found,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"This option is incomplete: {error}. Look at it anew.") from error

    def save(self, path: Path | str) -> None:
        """Write what was looked up of the option as a JSON file, whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def load_candidate(path: Path | str) -> Candidate:
    """Return the candidate in a file that `Candidate.save` wrote.

    Args:
        path: a JSON file.

    Raises:
        InputError: there is none, or it holds none.
    """
    path = existing(path)
    try:
        return Candidate.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{str(path)!r} holds no option: {error}. Delete it.") from error
    except InputError as error:
        raise InputError(f"{str(path)!r} holds no option: {error} Delete it.") from error


def candidate(
    option: Option,
    training: Any = None,
    validation: Any = None,
    *,
    before: Any = None,
    recipe: Recipe | None = None,
    meter: Meter | str = "codecarbon",
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Candidate:
    """Return what can be known of an option before any choice; the long part of a comparison.

    Args:
        option: to look at.
        training: see `resque.compare`.
        validation: likewise.
        before: likewise.
        recipe: likewise.
        meter: likewise.
        class_names: likewise.
        workers: likewise.
        progress: likewise.

    Raises:
        InputError: see `resque.preflight`; or the model to keep does not know the classes.
        NotComparableError: see `resque.preflight`.

    Example:
        >>> import torch
        >>> data = torch.randn(40, 4), torch.arange(40) % 2
        >>> candidate(Keep(torch.nn.Linear(4, 2)), data).examples
        40
    """
    names = list(class_names) if class_names is not None else None
    if isinstance(option, Keep):
        data = option.data
        data = data if data is not None else validation if validation is not None else training
        kept = _kept(option, data, names, progress)
        shared = option.data is None and validation is not None
        return replace(kept, validated=shared or option.validated)
    data = option.training if option.training is not None else training
    if data is None:
        raise InputError(f"The option {option.name!r} has no data to train on; give training=.")
    known = preflight(
        option.model,
        data,
        validation=option.validation if option.validation is not None else validation,
        before=option.before if option.before is not None else before,
        recipe=recipe_of(option, recipe),
        meter=meter,
        untrained=option.untrained,
        layer=option.layer,
        pooling=option.pooling,
        class_names=names,
        model_name=option.model_name,
        preprocessing=option.preprocessing,
        workers=workers,
        progress=progress,
    )
    return Candidate(
        name=option.name,
        kind="from scratch" if isinstance(option, FromScratch) else "retrain",
        preflight=known,
        grid=option.grid,
        seconds_per_step=option.seconds_per_step,
        joules_per_step=option.joules_per_step,
    )


def _kept(option: Keep, data: Any, names: list[str] | None, progress: bool) -> Candidate:
    """Return how many new examples a model classifies correctly as it is."""
    if data is None:
        raise InputError(f"The option {option.name!r} has no data to be tried on; give data=.")
    names = _numbers_of_outputs(option.model, data) if names is None else names
    made = profile(
        option.model,
        data,
        class_names=names,
        layer=option.layer,
        pooling=option.pooling,
        model_name=option.model_name,
        preprocessing=option.preprocessing,
        progress=progress,
    )
    outputs = made.outputs
    if outputs is None or not outputs.labelled:
        raise InputError(
            f"The option {option.name!r} cannot be judged: the data have no labels, or the model "
            "has not one output for each of their classes. Name one class for each output in "
            "their order (class_names=, classes in a file), give data=, labelled, or leave the "
            "option out."
        )
    return Candidate(
        name=option.name,
        kind="keep",
        correct=int(outputs.correct.sum()),
        examples=int(outputs.counts.sum()),
        signature=made.signature,
    )


def _numbers_of_outputs(model: nn.Module, data: Any) -> list[str] | None:
    """Return "0", "1", ... for the outputs of a model; None where labels are known beforehand.

    A label that is a bare number means the output of that number, as in cross-entropy and in
    `preflight`. Labels that are known beforehand name themselves (docs/decisions/0006).
    """
    if not isinstance(data, Dataset | DataLoader) or labels_of(data) is not None:
        return None
    if as_source(data).class_names is not None:
        return None
    with same_random_state(device_of(model)):
        known = TrainingData.of(data, data, Recipe())
        with known.undisturbed():
            one = [(known.first_inputs(1), torch.zeros(1, dtype=torch.int64))]
    scores = observe(model, one, maps=False, progress=False).probabilities
    return None if scores is None else list(map(str, range(scores.shape[1])))
