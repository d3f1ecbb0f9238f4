"""The rule of a choice, on costs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import lognorm

from resque.decision.choice import Priced, choice_of, free, probability_below, together
from resque.decision.option import Prices
from resque.errors import InputError
from resque.forecasting.experience import Distribution

FEW = st.lists(
    st.tuples(st.integers(0, 5).map(float), st.integers(1, 4).map(float)), min_size=1, max_size=8
)


def of(*values: float, weights: list[float] | None = None) -> Distribution:
    return Distribution(np.array(values), np.array(weights or [1.0] * len(values)))


def priced(name: str, *cost: float, reaches: float = 0.95, accuracy: float = 0.9) -> Priced:
    return Priced(name=name, cost=of(*cost), reaches=reaches, accuracy=accuracy)


@given(FEW, FEW)
def test_the_probability_of_being_below_is_that_of_all_pairs(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    """Slow oracle: every pair, with its weight; one of two equal numbers is not below."""
    first, second = (Distribution(*map(np.array, zip(*each, strict=True))) for each in (one, other))
    total = won = equal = 0.0
    for value, weight in one:
        for rival, of_rival in other:
            total += weight * of_rival
            won += weight * of_rival * (value < rival)
            equal += weight * of_rival * (value == rival)
    assert probability_below(first, second) == pytest.approx(won / total)
    both = probability_below(first, second) + probability_below(second, first)
    assert both == pytest.approx(1 - equal / total)


def test_nothing_costs_less_than_nothing() -> None:
    """A training that may take no epoch ties with keeping a model, and is never cheaper."""
    options = [
        Priced(name="keep", cost=free(), reaches=1.0, accuracy=0.9),
        priced("retrain", 0, 0, 1),
    ]
    found = choice_of(options, 0.9)
    assert (found.recommended, found.ties) == ("keep", ("retrain",))
    assert found.cheaper == {"retrain": 0.0}


def test_what_rises_together_adds_up_quantile_by_quantile() -> None:
    """Closed form: x of a log-normal and 3 x of the same are 4 x together."""
    shares = (np.arange(2000) + 0.5) / 2000
    x = lognorm(0.5).ppf(shares)
    rng = np.random.default_rng(0)
    found = together(of(*x), of(*rng.permutation(3 * x)))
    for share in (0.05, 0.5, 0.95):
        assert np.quantile(found.values, share) == pytest.approx(
            4 * lognorm(0.5).ppf(share), rel=0.02
        )


def test_together_counts_for_as_many_as_the_scarcer() -> None:
    """Otherwise few energies would support an interval that they do not."""
    found = together(of(*range(5)), of(*range(50)))
    assert found.weights.sum() == pytest.approx(5)
    assert found.updates == 5


def test_the_cheapest_that_reaches_the_target_is_recommended() -> None:
    options = [
        priced("cheap but unable", 1, 2, 3, reaches=0.2),
        priced("dear", 50, 60, 70),
        priced("right", 10, 11, 12),
    ]
    found = choice_of(options, 0.9)
    assert (found.recommended, found.best, found.ties) == ("right", "right", ())
    assert found.cheaper == {"cheap but unable": 1.0, "dear": 0.0}
    assert choice_of(options, 0.1).recommended == "cheap but unable"


def test_costs_that_overlap_tie() -> None:
    """A tie is one of the options that reach the target, and cheaper in more than a tail."""
    options = [
        priced("one", *range(1, 101)),
        priced("alike", *range(3, 103)),
        priced("far", *range(95, 195)),
        priced("unable", *range(1, 101), reaches=0.5),
    ]
    found = choice_of(options, 0.9)
    # "far" is below "one" in 5 + 4 + 3 + 2 + 1 of 10,000 pairs.
    assert found.cheaper["far"] == pytest.approx(0.0015)
    assert (found.recommended, found.ties) == ("one", ("alike",))


def test_of_equal_medians_the_surer_is_taken() -> None:
    options = [priced("sure", 1, 2, 3, reaches=0.93), priced("surer", 1, 2, 3, reaches=0.99)]
    assert choice_of(options, 0.9).recommended == "surer"


def test_what_is_free_is_cheaper_than_what_is_most_likely_free() -> None:
    """The model may be at the target already, so that training ends at once; or it may not."""
    options = [
        priced("retrain", 0, 0, 0, 5, 5, reaches=0.99),
        Priced(name="keep", cost=free(), reaches=0.92, accuracy=0.85),
    ]
    found = choice_of(options, 0.9)
    assert (found.recommended, found.ties) == ("keep", ("retrain",))


def test_where_none_reaches_it_the_likeliest_is_the_best() -> None:
    options = [
        priced("free", 0, reaches=0.0, accuracy=0.5),
        priced("likely", 9, reaches=0.6, accuracy=0.8),
        priced("as likely, and better", 10, reaches=0.595, accuracy=0.85),
    ]
    found = choice_of(options, 0.9)
    assert found.recommended is None
    # 0.005 less likely, and cheaper by the median.
    assert (found.best, found.ties) == ("as likely, and better", ("likely",))


def test_where_all_are_hopeless_the_best_accuracy_is_the_best() -> None:
    options = [
        priced("keep", 0, reaches=0.0, accuracy=0.5),
        priced("head", 5, reaches=0.0, accuracy=0.7),
        priced("dearer head", 6, reaches=0.0, accuracy=0.7),
    ]
    assert choice_of(options, 0.9).best == "head"


def test_the_front_holds_what_nothing_beats() -> None:
    """Slow reading: an option is off the front if another is no worse in both, better in one."""
    options = [
        priced("a", 1, accuracy=0.5),
        priced("b", 2, accuracy=0.9),
        priced("c", 3, accuracy=0.9),
        priced("d", 2, accuracy=0.8),
        priced("e", 9, accuracy=0.95),
        priced("e again", 9, accuracy=0.95),
    ]
    assert choice_of(options, 0.9).front == {"a", "b", "e", "e again"}


def test_a_kept_model_costs_nothing() -> None:
    assert free().median() == 0
    assert choice_of(
        [Priced(name="keep", cost=free(), reaches=1.0, accuracy=0.9), priced("retrain", 1, 2)], 0.9
    ).cheaper == {"retrain": 0.0}


def test_no_option_is_no_choice() -> None:
    with pytest.raises(InputError, match="There is no option left to choose from"):
        choice_of([], 0.9)


def test_money_is_hours_and_energy() -> None:
    """Closed form: 2 h at 3, and 0.5 kWh at 4; one of them alone where the other is free."""
    known = {"duration_s": of(7200.0), "energy_kwh": of(0.5)}
    both = Prices(per_kwh=4.0, per_hour=3.0).of(known)
    assert both is not None
    assert both.median() == pytest.approx(8.0)
    hours = Prices(per_hour=3.0).of({"duration_s": of(7200.0)})
    assert hours is not None
    assert hours.median() == pytest.approx(6.0)
    assert Prices(per_kwh=4.0).of({"duration_s": of(7200.0)}) is None


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({}, "Prices need one above 0"),
        ({"per_kwh": -1.0}, "per_kwh must be a price of 0 or more; got -1.0"),
        ({"per_hour": float("nan")}, "per_hour must be a price of 0 or more; got nan"),
        ({"per_hour": "3"}, "per_hour must be a price of 0 or more; got '3'"),
        ({"per_kwh": True}, "per_kwh must be a price of 0 or more; got True"),
        ({"per_kwh": 1.0, "currency": 3}, "currency must be a text such as 'EUR'; got 3"),
    ],
)
def test_bad_prices(prices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prices(**prices)
