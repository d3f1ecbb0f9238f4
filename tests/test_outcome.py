"""What an update would have come to with another target."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import resque
from resque.forecasting.outcome import outcome_of
from updates import update_of

CURVE = tuple(
    resque.Point(epoch=0.5 * k, steps=8 * k, accuracy=accuracy, seconds=2.0 if k else None)
    for k, accuracy in enumerate((0.2, 0.5, 0.7, 0.69, 0.8, 0.8, 0.8))
)
UPDATE = replace(update_of(), curve=CURVE)


@pytest.mark.parametrize(
    ("accuracy", "epochs", "seconds"), [(0.2, 0.0, 0.0), (0.6, 1.0, 4.0), (0.75, 2.0, 8.0)]
)
def test_the_first_validation_that_meets_an_accuracy(
    accuracy: float, epochs: float, seconds: float
) -> None:
    found = outcome_of(UPDATE, resque.Accuracy(accuracy))
    assert found is not None
    assert (True, epochs, seconds) == (found.reached, found.epochs, found.seconds)
    assert found.steps == 16 * epochs


def test_an_accuracy_that_was_never_met_is_censored_at_the_end() -> None:
    found = outcome_of(UPDATE, resque.Accuracy(0.9))
    assert found is not None
    assert (False, 3.0, 0.8) == (found.reached, found.epochs, found.accuracy)


@pytest.mark.parametrize(("patience", "epochs"), [(0.5, 1.5), (1.0, 3.0)])
def test_a_shorter_plateau(patience: float, epochs: float) -> None:
    """0.69 after 0.7 is half an epoch without a rise; the whole epoch comes at the end."""
    found = outcome_of(UPDATE, resque.Plateau(patience))
    assert found is not None
    assert (True, epochs) == (found.reached, found.epochs)


def test_seconds_that_are_not_known_stay_unknown() -> None:
    curve = (*CURVE[:2], replace(CURVE[2], seconds=None), *CURVE[3:])
    known = outcome_of(replace(UPDATE, curve=curve), resque.Accuracy(0.5))
    unknown = outcome_of(replace(UPDATE, curve=curve), resque.Accuracy(0.8))
    assert known is not None
    assert unknown is not None
    assert (2.0, None) == (known.seconds, unknown.seconds)


def test_without_a_curve_there_is_nothing_to_read() -> None:
    assert outcome_of(replace(UPDATE, curve=()), resque.Accuracy(0.5)) is None


def test_a_number_is_no_target() -> None:
    with pytest.raises(resque.InputError, match=r"say Accuracy\(0.5\)"):
        outcome_of(UPDATE, 0.5)  # type: ignore[arg-type]


def test_it_is_what_training_to_that_target_gives() -> None:
    """Read off the curve of a longer training, or trained to it: the same epochs."""
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    data = x, (x[:, 0] + x[:, 1] > 0).long()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    recipe = resque.Recipe(max_epochs=12, validation_interval=0.5, learning_rate=0.01)
    targets = resque.Accuracy(0.9), resque.Plateau(1.0)
    longest, *made = (
        resque.retrain(model, data, data, target=target, recipe=recipe, meter="none").update
        for target in (resque.Accuracy(1.0), *targets)
    )
    for target, update in zip(targets, made, strict=True):
        found = outcome_of(longest, target)
        assert found is not None
        assert (update.reached, update.epochs) == (found.reached, found.epochs)
        assert found.seconds is not None
