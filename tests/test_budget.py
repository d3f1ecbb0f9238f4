"""A budget: what it says of a forecast, and which budgets there cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest

import resque
from forecasts import VALUES, forecast_of
from resque.forecasting.budget import Budget
from resque.forecasting.experience import Distribution


@pytest.mark.parametrize(
    ("limit", "value", "kept"),
    [
        ({"max_epochs": 7}, "max_epochs", 7),
        ({"max_hours": 0.75}, "max_hours", 7),  # 2700 s: the seventh is 2520 s, the eighth 2880 s
        ({"max_energy_kwh": 0.35}, "max_energy_kwh", 3),
        ({"max_carbon_kg": 1.0}, "max_carbon_kg", 10),
        ({"max_carbon_kg": 0.001}, "max_carbon_kg", 0),
        ({"min_accuracy": 0.845}, "min_accuracy", 6),
    ],
)
def test_the_probability_is_the_share_of_outcomes(
    limit: dict[str, float], value: str, kept: int
) -> None:
    """Counted by hand of ten, and the update to come, beyond it; hours are 3600 seconds."""
    judged = Budget(**limit).judged(forecast_of())
    assert judged.probabilities[value] == pytest.approx(kept / 11)
    assert judged.holds == (kept == 10)
    assert len(judged.reasons) == (not judged.holds)


def test_what_just_keeps_a_limit_keeps_it() -> None:
    """A limit is the most that may be spent, and an accuracy the least that is asked."""
    values = VALUES | {"epochs": [5.0] * 19, "peak_accuracy": [0.9] * 19}
    judged = Budget(max_epochs=5, min_accuracy=0.9).judged(forecast_of(values))
    assert dict(judged.probabilities) == {"max_epochs": 0.95, "min_accuracy": 0.95}
    assert judged.holds


def test_a_wider_limit_is_kept_no_less_often() -> None:
    """More epochs, and less accuracy, are easier."""
    limits = np.linspace(0.5, 11, 40)
    kept = [
        Budget(max_epochs=limit).judged(forecast_of()).probabilities["max_epochs"]
        for limit in limits
    ]
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (0.0, 10 / 11)
    asked = np.linspace(0.79, 0.91, 40)
    reached = [
        Budget(min_accuracy=least)
        .judged(forecast_of(target=resque.Plateau()))
        .probabilities["min_accuracy"]
        for least in asked
    ]
    assert reached == sorted(reached, reverse=True)
    assert (reached[0], reached[-1]) == (10 / 11, 0.0)


def test_weights_count() -> None:
    """An outcome that counts for 18 updates of 19 and the one to come is nine tenths."""
    known = {"epochs": Distribution(np.array([3.0, 30.0]), np.array([18.0, 1.0]))}
    judged = Budget(max_epochs=10).judged(forecast_of(distributions=known), confidence_level=0.9)
    assert judged.probabilities["max_epochs"] == pytest.approx(0.9)


def test_the_level_decides() -> None:
    """Seven of ten and the one to come are enough at 63 %, not at 65 %."""
    budget = Budget(max_epochs=7)
    assert budget.judged(forecast_of(), confidence_level=0.63).holds
    judged = budget.judged(forecast_of(), confidence_level=0.65)
    assert not judged.holds
    assert judged.confidence_level == 0.65


def test_every_limit_has_its_reason_with_its_unit() -> None:
    """One sentence for each that is not kept, and none for the others."""
    budget = Budget(
        max_epochs=100, max_hours=0.5, max_energy_kwh=0.45, max_carbon_kg=0.035, min_accuracy=0.89
    )
    judged = budget.judged(forecast_of())
    assert not judged.holds
    kept = "{} with {} probability, not 90%: the forecast is {}."
    assert list(judged.reasons) == [
        kept.format("0.5 hours are kept", "45%", "0.5 hours (0.1 to 1)"),
        kept.format("0.45 kWh are kept", "36%", "0.5 kWh (0.1 to 1)"),
        kept.format("0.035 kg CO2e are kept", "27%", "0.05 kg CO2e (0.01 to 0.1)"),
        kept.format("An accuracy of 0.89 is reached", "18%", "0.85 (0.81 to 0.9)"),
    ]


def test_the_judgement_is_plain_json() -> None:
    judged = Budget(max_epochs=3).judged(forecast_of())
    found = json.loads(json.dumps(judged.to_dict(), allow_nan=False))
    assert found["holds"] is False
    assert found["probabilities"] == {"max_epochs": pytest.approx(3 / 11)}
    assert found["reasons"] == list(judged.reasons)
    assert found["confidence_level"] == 0.9


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, "A budget needs a limit, such as max_energy_kwh=0.5."),
        ({"max_hours": 0.0}, "max_hours must be above 0; got 0.0."),
        ({"max_energy_kwh": -1.5}, "max_energy_kwh must be above 0; got -1.5."),
        ({"max_carbon_kg": float("inf")}, "max_carbon_kg must be above 0; got inf."),
        ({"max_epochs": float("nan")}, "max_epochs must be above 0; got nan."),
        ({"min_accuracy": 92.0}, "min_accuracy must be below 1; got 92.0. For 92 % give 0.92."),
        ({"min_accuracy": 1.0}, "min_accuracy must be below 1; got 1.0."),
    ],
)
def test_impossible_budgets(limits: dict[str, float], expected: str) -> None:
    with pytest.raises(resque.InputError) as error:
        Budget(**limits)
    assert expected == str(error.value)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0])
def test_impossible_levels(level: float) -> None:
    with pytest.raises(resque.InputError) as error:
        Budget(max_epochs=3).judged(forecast_of(), confidence_level=level)
    hint = " For 90 % say 0.9." if level > 1 else ""
    told = f"confidence_level must be above 0 and below 1; got {level!r}.{hint}"
    assert told == str(error.value)


def test_more_accuracy_than_the_target_is_a_conflict() -> None:
    """What is paid until 0.9 says nothing of what 0.95 would cost."""
    with pytest.raises(resque.InputError) as error:
        Budget(min_accuracy=0.95).judged(forecast_of())
    assert str(error.value) == (
        "The update ends at an accuracy of 0.9, and the budget asks for 0.95. Forecast it with "
        "that as its target."
    )


def test_what_was_not_forecast_cannot_be_judged() -> None:
    """The message says why there is no estimate; no limit passes unseen."""
    without = {name: of for name, of in VALUES.items() if name != "energy_kwh"}
    with pytest.raises(resque.InputError) as error:
        Budget(max_epochs=100, max_energy_kwh=1.0).judged(forecast_of(without))
    expected = "max_energy_kwh cannot be judged without energy_kwh: the pre-flight measured none."
    assert expected == str(error.value)
