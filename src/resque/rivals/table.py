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
    "arm": lambda before, after: arm(before.layers, after.layers),
    "arm_published": lambda before, after: arm(before.layers, after.layers, published=True),
}
# From one array of the new data (representations, pixels, maps, probabilities) and its labels.
OF_TASK: Mapping[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "nearest_class_mean": ("representations", nearest_class_mean_error),
    "knn": ("representations", knn_error),
    "knn_pixels": ("pixels", knn_error),
    "ridge": ("representations", ridge_error),
    "ridge_flattened": ("maps", ridge_error),
    "logme": ("representations", logme),
    "h_score": ("representations", h_score),
    "leep": ("probabilities", leep),
}
# The classifier on the last map takes time in proportion to the square of the examples times the
# values of a map, and tens of thousands of those are usual.
MOST_MAPS = 2000
_NOT_SEEN = {
    "pixels": "the inputs are no images or vectors of numbers",
    "maps": "the model gives no map or tokens of one size before its pooling",
    "probabilities": "the model gives no class scores",
}


def shift_rivals(before: Observations | ClassProfile, after: Observations) -> dict[str, Measured]:
    """Return every rival for a shift, by name.

    Args:
        before: the old data, or their profile, from which fewer rivals can be computed.
        after: the new data.

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
    whole = isinstance(before, Observations)
    profile = before.profile if isinstance(before, Observations) else before
    told = profile.outputs, after.profile.outputs
    sums = [part.by_label or part.by_prediction for part in (profile, after.profile)]
    no_output = None if all(told) else "the model has no output for these classes"
    no_sums = None if all(sums) else "one profile is by label, the other by prediction"
    no_data = None if whole else "it needs the old data themselves, and there is only their profile"
    return {
        **{name: _measured(of, *told, why_none=no_output) for name, of in OF_OUTPUTS.items()},
        "global_angle": _measured(global_angle, *sums, why_none=no_sums),
        **{
            name: _measured(of, before, after, why_none=no_data) for name, of in OF_EXAMPLES.items()
        },
    }


def task_rivals(seen: Observations) -> dict[str, Measured]:
    """Return every rival for a task, by name.

    That on the last map looks at 2,000 examples at most.

    Args:
        seen: labelled data of the task.

    Example:
        >>> import torch
        >>> from resque.rivals.observations import observe
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> data = torch.randn(40, 4), torch.arange(40) % 2
        >>> 0 <= task_rivals(observe(model, data))["knn"].value <= 1
        True
    """
    found = {}
    labels = seen.labels
    for name, (part, of) in OF_TASK.items():
        values = getattr(seen, part)
        why_none = _NOT_SEEN.get(part) if values is None else None
        if labels is None:
            found[name] = Measured(None, 0.0, "the data have no labels")
            continue
        # Numbers of the classes that have examples.
        numbers = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        if part == "maps" and values is not None and len(values) > MOST_MAPS:
            chosen = stratified_sample(numbers, MOST_MAPS, seed=0)
            values, numbers = values[chosen], numbers[chosen]
        found[name] = _measured(of, values, numbers, why_none=why_none)
    return found


def _measured(
    of: Callable[..., float | None], *given: Any, why_none: str | None = None
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
        return Measured(None, seconds, "one side has no labels")
    return Measured(float(found), seconds)
