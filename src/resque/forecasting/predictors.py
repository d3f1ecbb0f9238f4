"""What is known of an update before it is made, as numbers that a regression can use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.forecasting.regression import Floats, Rows
from resque.history.records import Recipe, fields_of

if TYPE_CHECKING:
    from resque.history.update import Update

NETWORK, DATA, RECIPE, CHANGE = "network", "data", "recipe", "change"
# Shares of examples are counted in hundreds, so that 0 and 1 are not infinitely far away.
_LEAST_SHARE = 1 / 600
_LEAST_LOSS = 1e-3
_STEEP = 1e-12


def logit(share: float, least: float = _LEAST_SHARE) -> float:
    """Return the log odds of a share, which is kept a little away from 0 and 1.

    Args:
        share: 0 to 1.
        least: how far away.

    Example:
        >>> logit(0.5), round(logit(0.0), 3), round(logit(1.0), 3)
        (0.0, -6.395, 6.395)
    """
    kept = min(max(share, least), 1 - least)
    return math.log(kept / (1 - kept))


def share_of(log_odds: Floats) -> Floats:
    """Return the shares whose log odds are given: the inverse of `logit`."""
    shares: Floats = 1 / (1 + np.exp(-log_odds))
    return shares


def _log(value: float) -> float:
    return math.log(max(value, _STEEP))


def _log_loss(value: float) -> float:
    return math.log(max(value, 0.0) + _LEAST_LOSS)


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))


def _same(value: float) -> float:
    return value


_Scales = Mapping[str, Callable[[float], float]]
SIZES: _Scales = {
    "classes": _log, "training_examples": _log, "steps_per_epoch": _log, "parameters": _log,
    "flops": _log,
}  # fmt: skip
# Of a model that keeps its classifier.
ZERO_SHOT: _Scales = {"error_before": logit, "loss_before": _log_loss}
# Of new data against old ones.
SHIFT: _Scales = {
    "RESQUE_dist_debiased": _root, "accuracy_drop": _same, "loss_rise": _same,
    "confidence_drop": _same, "atc": _same, "global_angle": _root, "mmd": _root,
    "frechet": _log_loss, "sliced_wasserstein": _same,
}  # fmt: skip
TASK: _Scales = {
    "RESQUE_task": _same, "nearest_class_mean": logit, "knn": logit, "knn_pixels": logit,
    "ridge": logit, "ridge_flattened": logit, "leep": _same, "logme": _same, "h_score": _same,
}  # fmt: skip
PROBE: _Scales = {
    "probe_loss_first": _log_loss, "probe_loss_last": _log_loss, "probe_loss_fall": _same,
    "probe_gradient_norm_first": _log, "probe_gradient_norm": _log, "probe_parameter_change": _log,
}  # fmt: skip
_LAST_LOSSES = 5
_SCALES: _Scales = {**SIZES, **ZERO_SHOT, **SHIFT, **TASK, **PROBE}
# What of a recipe says nothing of its first steps; a loader's batches are no part of it.
_ENDS = ("max_epochs", "validation_interval", "seed", "batch_size")
# Sorts of predictors, whose effects are of one size.
SORTS: Mapping[str, tuple[str, ...]] = {
    "sizes": tuple(SIZES),
    "zero-shot": tuple(ZERO_SHOT),
    "shift": tuple(SHIFT),
    "task": tuple(TASK),
    "probe": tuple(PROBE),
    "how": (
        # Not how long it may last: that is where a learning curve is read off.
        "learning_rate", "batch_size", "weight_decay", "head", "scratch", "frozen", "sgd",
        "schedule", "augmentation",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of one update before it is made.

    Attributes:
        predictors: name -> value on the scale on which it is used; what is not known is not
            among them.
        does_not_apply: names of those that cannot be had for such an update, such as the error
            of a classifier that is fresh.
        groups: name of a grouping -> the group of the update.
        accuracy_before: on the validation data before the first step; None where it is not known.
        validation_examples: of these data; None likewise.
    """

    predictors: Mapping[str, float]
    does_not_apply: frozenset[str]
    groups: Mapping[str, str]
    accuracy_before: float | None = None
    validation_examples: int | None = None


def known_before(
    preflight: Mapping[str, Any], *, recipe: Recipe | None = None, change: str | None = None
) -> Known:
    """Return what a pre-flight tells of its update.

    Args:
        preflight: as `Preflight.to_dict` gives it.
        recipe: with which the update would be made, if another than that of the pre-flight; what
            the probe saw says nothing of it then.
        change: the kind of change, such as "gaussian noise", if it is known.
    """
    own = Recipe(**preflight["recipe"])
    recipe = own if recipe is None else recipe
    values = {name: value for name, value in preflight["values"].items() if value is not None}
    if not trained_alike(recipe, own):
        values = {name: value for name, value in values.items() if name not in PROBE}
    elif preflight["probe"] is not None:
        values |= _losses(preflight["probe"]["losses"])
    signature, data = preflight["signature"], preflight["data"]
    data_kind = _data_kind(data["class_names"] or signature["class_names"], signature)
    # Pre-flights of the time before it was looked at do not have it.
    tried = preflight["probe"] or {}
    known = _known(
        values,
        # A loader brings its own batches.
        replace(recipe, batch_size=data["batch_size"]),
        data_kind,
        model=signature["model"],
        # Rivals may be there where the index could not be computed.
        against_old=preflight["shift"] is not None or values.keys() & SHIFT.keys() != set(),
        change=change,
    )
    accuracy = tried.get("accuracy_before") if recipe.start == own.start else None
    validated = data["validation_examples"] if tried.get("seconds_per_validation") else None
    return replace(known, accuracy_before=accuracy, validation_examples=validated)


def trained_alike(one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes begin alike, so that the first steps of one tell of the other.

    Args:
        one: a recipe.
        other: another, which may end later, validate more often or draw other numbers.
    """
    return all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in fields(Recipe)
        if field.name not in _ENDS
    )


def known_of(update: Update) -> Known:
    """Return what was known of a recorded update before it was made.

    From its pre-flight; without one, from what the update itself says of the time before it.

    Args:
        update: of a history.
    """
    change = _change_of(update)
    if update.preflight is not None:
        known = known_before(update.preflight, recipe=update.recipe, change=change)
        # A probe that validated saw it, though those of an older version did not tell.
        same = update.recipe is None or update.recipe.start == update.preflight["recipe"]["start"]
        seen = known.validation_examples is not None and same
        return replace(known, accuracy_before=update.accuracy_before) if seen else known
    values: dict[str, float | None] = {
        "classes": update.data.classes,
        "training_examples": update.data.training_examples,
        "steps_per_epoch": update.data.steps_per_epoch,
        "parameters": update.parameters,
    }
    recipe = update.recipe
    if recipe is not None and recipe.start == "weights":
        accuracy = update.accuracy_before
        values |= {
            "error_before": None if accuracy is None else 1 - accuracy,
            "loss_before": update.loss_before,
        }
    if update.index is not None and update.index.get("index") == "RESQUE_dist":
        values["RESQUE_dist_debiased"] = update.index.get("debiased")
    known = _known(
        {name: value for name, value in values.items() if value is not None},
        recipe,
        _data_kind(update.data.class_names, update.signature.to_dict()),
        model=update.signature.model,
        # Whether there were old data is as little known as what they would have said.
        against_old=True,
        change=change,
    )
    return replace(known, accuracy_before=update.accuracy_before)


def _change_of(update: Update) -> str:
    """Return what an update's labels call the change of its data; its own where they do not."""
    labels = update.labels
    if labels.get("shift"):
        return labels["shift"]
    return f"{labels['old']} > {labels['new']}" if {"old", "new"} <= labels.keys() else update.id


def _losses(losses: Sequence[float]) -> dict[str, float]:
    last = float(np.mean(losses[-_LAST_LOSSES:]))
    return {
        "probe_loss_last": last,
        "probe_loss_fall": math.log((losses[0] + _LEAST_LOSS) / (last + _LEAST_LOSS)),
    }


def _known(
    values: Mapping[str, float],
    recipe: Recipe | None,
    data: str,
    *,
    model: str | None,
    against_old: bool,
    change: str | None,
) -> Known:
    predictors = {
        name: scale(float(values[name]))
        for name, scale in _SCALES.items()
        if name in values and math.isfinite(values[name])
    }
    none: set[str] = set()
    if recipe is not None and recipe.start != "weights":
        none |= ZERO_SHOT.keys()
    if not against_old:
        none |= SHIFT.keys()
    predictors |= {} if recipe is None else _of_recipe(recipe)
    return Known(
        predictors={name: value for name, value in predictors.items() if name not in none},
        does_not_apply=frozenset(none),
        groups={
            NETWORK: model or "",
            DATA: data,
            RECIPE: "" if recipe is None else _recipe_name(recipe),
            CHANGE: change or "",
        },
    )


def _of_recipe(recipe: Recipe) -> dict[str, float]:
    return {
        "learning_rate": _log(recipe.learning_rate),
        "batch_size": _log(recipe.batch_size),
        "weight_decay": _root(recipe.weight_decay),
        "head": float(recipe.start == "head"),
        "scratch": float(recipe.start == "scratch"),
        "frozen": float(recipe.frozen != "none"),
        "sgd": float(recipe.optimiser == "sgd"),
        "schedule": float(recipe.schedule != "constant"),
        "augmentation": float(recipe.augmentation != "none"),
    }


def _data_kind(class_names: Sequence[str], signature: Mapping[str, Any]) -> str:
    """Return what stands for data of one kind: the names of their classes.

    Names that are bare numbers do not tell data apart; those are told apart by how they were
    prepared as well, which the command line and a script may describe differently.
    """
    told = sorted(class_names)
    if all(name.isdecimal() for name in told):
        told.append(str(signature["preprocessing"]))
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def _recipe_name(recipe: Recipe) -> str:
    told = fields_of(recipe)
    return " ".join(
        f"{told[name]}"
        for name in ("start", "frozen", "optimiser", "learning_rate", "schedule", "augmentation")
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """How predictors are standardised, and which of each sort there are.

    Attributes:
        names: sort -> names of the predictors that vary.
        seen: name -> mean, standard deviation, least and greatest value.
        constant: name -> value, of the predictors that do not vary.
    """

    names: Mapping[str, tuple[str, ...]]
    seen: Mapping[str, tuple[float, float, float, float]]
    constant: Mapping[str, float]

    @classmethod
    def of(cls, known: Sequence[Known]) -> Scale:
        """Return the scale of what is known of several updates."""
        seen: dict[str, tuple[float, float, float, float]] = {}
        constant: dict[str, float] = {}
        for name in chain(*SORTS.values()):
            values = np.array([k.predictors[name] for k in known if name in k.predictors])
            if len(values) > 1 and np.ptp(values) > 1e-9 * (1 + abs(values[0])):
                seen[name] = (
                    float(values.mean()), float(values.std()),
                    float(values.min()), float(values.max()),
                )  # fmt: skip
            elif len(values):
                constant[name] = float(values[0])
        names = {sort: tuple(n for n in of if n in seen) for sort, of in SORTS.items()}
        return cls(names, seen, constant)

    def rows(self, known: Sequence[Known]) -> Rows:
        """Return what is known of updates as rows of a regression.

        What is not known is put at the mean, and its share is uncertainty; what does not apply is
        no ignorance.
        """
        predictors = {sort: np.zeros((len(known), len(of))) for sort, of in self.names.items()}
        unknown = {sort: np.zeros(len(known)) for sort in self.names}
        for sort, names in self.names.items():
            for at, name in enumerate(names):
                mean, sd, *_ = self.seen[name]
                for row, k in enumerate(known):
                    if name in k.predictors:
                        predictors[sort][row, at] = (k.predictors[name] - mean) / sd
                    elif name not in k.does_not_apply:
                        unknown[sort][row] += 1 / len(names)
            # What another value of a constant would do has never been seen.
            for name in SORTS[sort]:
                for row, k in enumerate(known):
                    unknown[sort][row] += self._differs(k, name) / max(1, len(names))
        groupings = (NETWORK, DATA, RECIPE, CHANGE)
        groups = {name: np.array([k.groups[name] for k in known]) for name in groupings}
        return Rows(predictors, unknown, groups)

    def outside(self, known: Known) -> tuple[str, ...]:
        """Return the names of the predictors that lie beyond all that has been seen."""
        beyond = []
        for name, (_, _, least, greatest) in self.seen.items():
            value, slack = known.predictors.get(name), 0.05 * (greatest - least)
            if value is not None and not least - slack <= value <= greatest + slack:
                beyond.append(name)
        return (*beyond, *(name for name in self.constant if self._differs(known, name)))

    def _differs(self, known: Known, name: str) -> bool:
        value, constant = known.predictors.get(name), self.constant.get(name)
        if value is None or constant is None:
            return False
        return abs(value - constant) > 1e-6 * (1 + abs(constant))
