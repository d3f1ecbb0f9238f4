"""Every rival that the data at hand allow, each with its value and its own seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resque.errors import InputError
from resque.index.profile import ClassProfile
from resque.index.sums import OutputStatistics
from resque.representation.sampling import stratified_sample
from resque.rivals.accuracy_drop import accuracy_drop
from resque.rivals.arm import arm
from resque.rivals.atc import atc
from resque.rivals.class_mean import nearest_class_mean_error
from resque.rivals.confidence_drop import confidence_drop
from resque.rivals.frechet import frechet
from resque.rivals.global_angle import global_angle
from resque.rivals.h_score import h_score
from resque.rivals.knn import knn_error
from resque.rivals.leep import leep
from resque.rivals.logme import logme
from resque.rivals.loss_rise import loss_rise
from resque.rivals.mmd import mmd
from resque.rivals.observations import Observations
from resque.rivals.ridge import ridge_error
from resque.rivals.sliced_wasserstein import sliced_wasserstein


@dataclass(frozen=True, slots=True)
class Measured:
    """One rival's value.

    Attributes:
        value: higher means more cost; None where it could not be computed.
        seconds: that it took, beyond the passes over the data.
        why_none: why there is no value; None where there is one.
    """

    value: float | None
    seconds: float
    why_none: str | None = None


# From two profiles.
OF_OUTPUTS: Mapping[str, Callable[[OutputStatistics, OutputStatistics], float | None]] = {
    "accuracy_drop": accuracy_drop,
    "loss_rise": loss_rise,
    "confidence_drop": confidence_drop,
    "atc": atc,
}
# From the examples of both sides.
OF_EXAMPLES: Mapping[str, Callable[[Observations, Observations], float]] = {
    "mmd": lambda before, after: mmd(before.representations, after.representations),
    "frechet": lambda before, after: frechet(before.representations, after.representations),
    "sliced_wasserstein": lambda before, after: sliced_wasserstein(
        before.representations, after.representations
    ),
    "arm": lambda before, after: arm(_layers(before), _layers(after)),
    "arm_published": lambda before, after: arm(_layers(before), _layers(after), published=True),
}
_NEIGHBOURS = 5


def _knn(values: np.ndarray, labels: np.ndarray) -> float:
    if len(labels) <= _NEIGHBOURS:
        raise InputError(
            f"It looks at the {_NEIGHBOURS} nearest other examples of each, and there are "
            f"{len(labels)} examples in all."
        )
    return knn_error(values, labels, _NEIGHBOURS)


# From one array of the new data (representations, pixels, maps, probabilities) and its labels.
OF_TASK: Mapping[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "nearest_class_mean": ("representations", nearest_class_mean_error),
    "knn": ("representations", _knn),
    "knn_pixels": ("pixels", _knn),
    "ridge": ("representations", ridge_error),
    "ridge_flattened": ("maps", ridge_error),
    "logme": ("representations", logme),
    "h_score": ("representations", h_score),
    "leep": ("probabilities", leep),
}
# Of what is kept of every layer and of the last map, tens of thousands of values per example are
# usual, and the classifier on the last map takes time with the square of the examples as well.
MOST_SAMPLED = 1000
# More where there are many classes: an example that is alone in its class can only be an error.
_OF_EACH_CLASS = 2
MOST_SAMPLED_OF_MANY_CLASSES = 2000
_NOT_SEEN = {
    "pixels": "the inputs are no images or vectors of numbers",
    "maps": "the model gives no map or tokens of one size, batch first, before its pooling",
    "probabilities": "the model gives no class scores",
}


def _layers(seen: Observations) -> Mapping[str, np.ndarray]:
    """Return the outputs of all layers, of as many examples at most as are looked at."""
    kept = seen.sampled if seen.sampled is not None else np.arange(len(seen.representations))
    chosen = sampled_places(None if seen.labels is None else seen.labels[kept], len(kept))
    if len(chosen) == len(kept):
        return seen.layers
    return {
        # A layer whose rows are no examples stays whole.
        name: values[chosen] if len(values) == len(kept) else values
        for name, values in seen.layers.items()
    }


def shift_rivals(before: Observations | ClassProfile, after: Observations) -> dict[str, Measured]:
    """Return every rival for a shift, by name.

    Those on all layers look at `sampled_places` of each side, `mmd` at 1,000 examples at most.

    Args:
        before: the old data, or their profile, from which fewer rivals can be computed.
        after: the new data.

    Raises:
        InputError: they are something else.
        NotComparableError: they are of different models, weights or layers.

    Example:
        >>> import torch
        >>> from resque.rivals.observations import observe
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> x, y = torch.randn(40, 4), torch.arange(40) % 2
        >>> sides = [observe(model, data, layers=True) for data in ((x, y), (x + 1, y))]
        >>> found = shift_rivals(*sides)
        >>> found["mmd"].value > 0, sorted(found)[:3]
        (True, ['accuracy_drop', 'arm', 'arm_published'])
    """
    if not isinstance(before, Observations | ClassProfile) or not isinstance(after, Observations):
        raise InputError(
            "Rivals for a shift need the old data as `observe` or `resque.profile` saw them and "
            f"the new ones as `observe` saw them; got {type(before).__name__} and "
            f"{type(after).__name__}."
        )
    whole = isinstance(before, Observations)
    profile = before.profile if isinstance(before, Observations) else before
    if profile.signature and after.profile.signature:
        profile.signature.require_comparable(after.profile.signature)
    told = profile.outputs, after.profile.outputs
    sums = [part.by_label or part.by_prediction for part in (profile, after.profile)]
    unlabelled = [
        side for side, part in zip(("old", "new"), told, strict=True) if part and not part.labelled
    ]
    no_labels = f"the {' and the '.join(unlabelled)} data have no labels"
    no_output = None if all(told) else "the model has no output for these classes"
    no_sums = None if all(sums) else "one profile is empty"
    no_data = None if whole else "it needs the old data themselves, and there is only their profile"
    return {
        **{
            name: _measured(of, *told, why_none=no_output, no_labels=no_labels)
            for name, of in OF_OUTPUTS.items()
        },
        "global_angle": _measured(global_angle, *sums, why_none=no_sums),
        **{
            name: _measured(of, before, after, why_none=no_data) for name, of in OF_EXAMPLES.items()
        },
    }


def task_rivals(seen: Observations) -> dict[str, Measured]:
    """Return every rival for a task, by name.

    That on the last map looks at `sampled_places`.

    Args:
        seen: labelled data of the task.

    Raises:
        InputError: it is something else.

    Example:
        >>> import torch
        >>> from resque.rivals.observations import observe
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> data = torch.randn(40, 4), torch.arange(40) % 2
        >>> 0 <= task_rivals(observe(model, data))["knn"].value <= 1
        True
    """
    if not isinstance(seen, Observations):
        raise InputError(
            f"Rivals for a task need the data as `observe` saw them; got {type(seen).__name__}."
        )
    labels = seen.labels
    if labels is None or len(np.unique(labels)) < 2:
        why = "a task needs at least two classes with examples, and the data have one"
        none = Measured(None, 0.0, "the data have no labels" if labels is None else why)
        return dict.fromkeys(OF_TASK, none)
    found = {}
    for name, (part, of) in OF_TASK.items():
        values = getattr(seen, part)
        why_none = _NOT_SEEN.get(part) if values is None else None
        own = labels
        if part == "maps" and values is not None:
            own = labels if seen.sampled is None else labels[seen.sampled]
            chosen = sampled_places(own, len(own))
            values, own = values[chosen], own[chosen]
        # Numbers of the classes that have examples.
        numbers = np.unique(own, return_inverse=True)[1].astype(np.int64)
        found[name] = _measured(of, values, numbers, why_none=why_none)
    return found


def sampled_places(labels: np.ndarray | None, examples: int) -> np.ndarray:
    """Return the places of the examples whose last map and layers are looked at.

    1,000 at most; of more than 500 classes two for each, up to 2,000. Each class has its share,
    as long as there are not more classes than that.

    Args:
        labels: (examples,) of all; None where they are not known.
        examples: how many there are.

    Example:
        >>> labels = np.repeat([0, 1], [9000, 1000])
        >>> np.bincount(labels[sampled_places(labels, 10000)])
        array([900, 100])
    """
    if examples <= MOST_SAMPLED:
        return np.arange(examples)
    if labels is None:
        labels = np.zeros(examples, np.int64)
    classes = len(np.unique(labels))
    most = max(MOST_SAMPLED, min(_OF_EACH_CLASS * classes, MOST_SAMPLED_OF_MANY_CLASSES))
    if classes > most:
        labels = np.zeros(examples, np.int64)
    return stratified_sample(labels, min(most, examples), seed=0)


def _measured(
    of: Callable[..., float | None],
    *given: Any,
    why_none: str | None = None,
    no_labels: str | None = None,
) -> Measured:
    if why_none is not None:
        return Measured(None, 0.0, why_none)
    start = time.perf_counter()
    try:
        found = of(*given)
    except InputError as error:
        # One that these data do not allow, say for want of neighbours, takes no other with it.
        return Measured(None, time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    if found is None:
        return Measured(None, seconds, no_labels)
    return Measured(float(found), seconds)
