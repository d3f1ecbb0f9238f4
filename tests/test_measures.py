"""Gradient norm, parameter change and convergence: closed forms, published variants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from resque import Accuracy, Plateau
from resque.measure.measures import Convergence, gradient_norm, parameter_change


def test_sgd_on_a_quadratic_gives_the_norms_and_changes_of_its_closed_form() -> None:
    """On L = a/2 |w|^2 each step of SGD multiplies w by 1 - rate a."""
    a, rate, start = 3.0, 0.1, torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    optimiser = torch.optim.SGD([weight], lr=rate)
    for step in range(6):
        optimiser.zero_grad()
        (a / 2 * weight.square().sum()).backward()
        shrunk = (1 - rate * a) ** step
        assert gradient_norm([weight]).item() == pytest.approx(
            a * shrunk * start.norm().item(), rel=1e-12
        )
        change = parameter_change({"w": start}, {"w": weight})
        expected = (1 - shrunk) * start.norm().item() / math.sqrt(3)
        assert change is not None
        assert change.value == pytest.approx(expected, rel=1e-6)  # summed in float32
        optimiser.step()


def test_the_change_of_the_model_weighs_values_and_the_published_one_tensors() -> None:
    """A matrix of 100 values that moves by 1 and a bias of 2 that moves by 3."""
    before = {"matrix": torch.zeros(10, 10), "bias": torch.ones(2)}
    after = {"matrix": torch.ones(10, 10), "bias": torch.full((2,), 4.0)}
    change = parameter_change(before, after)
    assert change is not None
    assert {"matrix": 1.0, "bias": 3.0} == change.per_tensor
    assert change.published == 2.0
    assert change.value == pytest.approx(math.sqrt((100 * 1 + 2 * 9) / 102))


def test_the_norm_is_that_of_all_gradients_written_one_after_the_other(
    rng: np.random.Generator,
) -> None:
    """numpy's norm of the concatenation is the oracle; a parameter without gradient is no part."""
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (7,), (2, 2, 2))]
    for parameter in parameters[:2]:
        parameter.grad = torch.tensor(rng.normal(size=parameter.shape), dtype=torch.float32)
    whole = np.concatenate([p.grad.numpy().ravel() for p in parameters[:2]])  # type: ignore[union-attr]
    assert gradient_norm(parameters).item() == pytest.approx(np.linalg.norm(whole), rel=1e-6)


def test_the_change_does_not_depend_on_how_values_are_cut_into_tensors(
    rng: np.random.Generator,
) -> None:
    """One tensor of 12 values or three of them: the same number for the model."""
    old, new = (torch.tensor(rng.normal(size=12), dtype=torch.float32) for _ in range(2))
    cut = [slice(0, 3), slice(3, 4), slice(4, 12)]
    whole = parameter_change({"w": old}, {"w": new})
    parts = parameter_change({str(c): old[c] for c in cut}, {str(c): new[c].clone() for c in cut})
    assert whole is not None
    assert parts is not None
    assert parts.value == pytest.approx(whole.value, rel=1e-6)
    assert parts.published != pytest.approx(parts.value, rel=1e-3)


def test_nothing_to_measure_is_no_error() -> None:
    """No gradients give 0, no parameters None, and empty tensors count for nothing."""
    assert gradient_norm([nn.Parameter(torch.ones(2))]).item() == 0.0
    assert parameter_change({}, {}) is None
    empty = parameter_change({"w": torch.zeros(0)}, {"w": torch.zeros(0)})
    assert empty is not None
    assert (0.0, 0.0) == (empty.value, empty.published)


def test_half_precision_is_squared_in_single() -> None:
    """300 squared is beyond float16, a change of it is not."""
    change = parameter_change(
        {"w": torch.zeros(2, dtype=torch.float16)}, {"w": torch.full((2,), 300.0).half()}
    )
    assert change is not None
    assert change.value == 300.0


def met(target: Accuracy | Plateau, every: float, accuracies: list[float]) -> list[bool]:
    run = Convergence(target)
    return [run.met_by(place * every, accuracy) for place, accuracy in enumerate(accuracies)]


def test_an_accuracy_is_met_when_first_seen_and_by_equality() -> None:
    """0.9 meets 0.9; what is below does not."""
    assert [False, True, False] == met(Accuracy(0.9), 0.5, [0.8999, 0.9, 0.7])


def test_an_accuracy_in_single_precision_meets_its_target() -> None:
    """90 of 100 in float32, as metrics of many frameworks are, is 0.9."""
    accuracy = float((torch.arange(100) < 90).float().mean())
    assert accuracy < 0.9
    assert [True] == met(Accuracy(0.9), 1.0, [accuracy])
    rises = [float(torch.tensor(rise / 10)) for rise in (5, 6, 6, 6)]
    assert [False, False, False, True] == met(Plateau(2, 0.0), 1.0, rises)


def test_patience_counts_epochs_and_not_validations() -> None:
    """Two epochs without a rise are eight validations at four in each epoch."""
    flat = [0.5] * 9
    assert [False] * 8 + [True] == met(Plateau(2, 0.0), 0.25, flat)
    assert [False] * 2 + [True] == met(Plateau(2, 0.0), 1.0, flat[:3])


def test_patience_survives_the_rounding_of_fractions() -> None:
    """Ten tenths of an epoch do not add up to 1 exactly."""
    run = Convergence(Plateau(1, 0.0))
    epochs = np.cumsum([0.1] * 10)
    assert epochs[-1] != 1.0
    found = [run.met_by(float(epoch), 0.5) for epoch in (0.0, *epochs)]
    assert [False] * 10 + [True] == found


def test_a_rise_counts_when_it_is_above_min_delta_over_the_best() -> None:
    """A fall and a return to the old best is no rise; neither is a rise by exactly min_delta."""
    accuracies = [0.5, 0.51, 0.3, 0.51, 0.52]
    assert [False, False, True, True, False] == met(Plateau(2, 0.01), 1.0, accuracies)
    assert [False] * 5 == met(Plateau(4, 0.01), 1.0, [*accuracies[:4], 0.53])


def test_a_rise_of_exactly_min_delta_is_none_despite_rounding() -> None:
    """0.7 + 0.1 is 0.7999999999999999 in floating point, and 0.8 no rise above it."""
    assert 0.7 + 0.1 < 0.8
    assert [False, True] == met(Plateau(1, 0.1), 1.0, [0.7, 0.8])
