"""How choices are held against the oracle's, on questions made by hand and on the corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resque.experiments import decision_evaluation, decision_page
from resque.experiments.decision_evaluation import (
    Forecasts,
    Played,
    Question,
    questions_of,
    ruled,
    simple_rules,
)
from resque.forecasting.corpus import corpus_updates
from resque.history.update import Update
from simulated import curve_of, preflight_of
from updates import update_of

RECIPE = replace(preflight_of(0.0).recipe, max_epochs=20.0)


def trained(network: str, *, peak: float, start: str = "weights", **labels: str) -> Update:
    """An update of 10 epochs, 5 s each, that rises to a peak."""
    told = {"new": "cats", "shift": "fog", "level": "1", "examples": "300", "seed": "0",
            "kind": "shift", "network": network, "cell": f"{network} {start}"} | labels  # fmt: skip
    return update_of(
        recipe=replace(RECIPE, start=start), epochs=10.0, duration_s=50.0, accuracy_before=0.5,
        peak_accuracy=peak, curve=curve_of(peak, 2.0, 10.0), labels=told, ended="plateau",
        preflight=preflight_of(0.0, network=network).to_dict(),
    )  # fmt: skip


def only(*updates: Update, target: float) -> Question:
    (found,) = questions_of(updates, [target])
    return found


UPDATES = (
    trained("vgg16", peak=0.95),
    trained("vit", peak=0.7),
    trained("vit", peak=0.9, start="scratch"),
)


def test_what_options_came_to() -> None:
    """Closed form: 0.95 - 0.45 exp(-e / 2) is at 0.8 at e = 2.2, so at the validation at 2.5."""
    question = only(*UPDATES, target=0.8)
    options = {option.name: option for option in question.options}
    assert list(options) == [
        "vgg16 weights",
        "keep vgg16",
        "vit weights",
        "keep vit",
        "vit scratch",
    ]
    assert options["vgg16 weights"].seconds == pytest.approx(2.5 * 5)
    assert options["vgg16 weights"].reached
    # It gives up after the recipe's 20 epochs, though it stopped on a plateau after 10.
    assert options["vit weights"].seconds == pytest.approx(20 * 5)
    assert not options["vit weights"].reached
    # 0.9 - 0.4 exp(-e / 2) is at 0.8 at e = 2.8, so at 3.
    assert question.scratch_s == pytest.approx(3 * 5)
    assert question.cost(options["vit weights"]) == pytest.approx(100 + 15)
    assert question.cost(options["keep vit"]) == pytest.approx(15)
    assert question.cheapest.name == "vgg16 weights"


def test_a_network_that_is_good_enough_is_kept() -> None:
    assert only(*UPDATES, target=0.5).cheapest.name == "keep vgg16"
    # Kept at 0.5 and then trained from scratch it would cost as much as what is trained here.
    question = only(*UPDATES, target=0.6)
    options = {option.name: option for option in question.options}
    assert question.cost(options["keep vgg16"]) == question.cost(options["vgg16 weights"])
    assert question.cheapest.name == "vgg16 weights"


def test_no_question_without_a_choice() -> None:
    assert not list(questions_of(UPDATES[:1], [0.8]))
    assert not list(questions_of(UPDATES, [0.99]))
    apart = (UPDATES[0], trained("vit", peak=0.9, level="2"), UPDATES[2])
    (question,) = questions_of(apart, [0.8])
    assert all(option.update.labels["level"] == "1" for option in question.options)


def test_scores() -> None:
    """The oracle is at 1; a rule that pays ten times as much in one of two questions is not."""
    questions = [
        replace(only(*UPDATES, target=0.8), change="fog"),
        replace(only(*UPDATES, target=0.85), change="rain"),
    ]
    cheap = [question.cost(question.cheapest) for question in questions]

    def dear(question: Question) -> Played:
        if question is questions[0]:
            return question.cheapest
        return max(question.options, key=question.cost)

    most = max(questions[1].cost(option) for option in questions[1].options)
    oracle, other = ruled(questions, {"oracle": lambda q: q.cheapest, "dear": dear}, kind="shift")
    assert (oracle.ratio[0], oracle.oracles, oracle.reached) == (1.0, 1.0, 1.0)
    assert other.ratio[0] == pytest.approx((cheap[0] + most) / sum(cheap))
    assert (other.oracles, other.reached, other.questions) == (0.5, 0.5, 2)
    assert other.ratio[1] <= other.ratio[0] <= other.ratio[2]
    assert ruled(questions, simple_rules(), kind="task") == ()


def test_simple_rules() -> None:
    """None of them trains from scratch."""
    small = trained("vit", peak=0.9)
    assert small.preflight is not None
    values = {**small.preflight["values"], "parameters": 10.0, "logme": 5.0}
    small = replace(small, preflight={**small.preflight, "values": values})
    large = {**small.preflight, "values": {**values, "parameters": 20.0, "logme": 1.0}}
    question = only(
        replace(UPDATES[0], preflight=large), small,
        replace(UPDATES[2], preflight={**small.preflight, "values": {**values, "parameters": 1.0}}),
        target=0.8,
    )  # fmt: skip
    chosen = {
        name: option and option.name for name, rule in simple_rules().items()
        for option in [rule(question)]
    }  # fmt: skip
    assert chosen == {
        "always retrain the same network": "vgg16 weights",
        "always the smallest network": "vit weights",
        "smallest accuracy drop": "vgg16 weights",
        "LogME's choice": "vgg16 weights",
        "always keep the network": "keep vgg16",
    }


def test_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says where nothing had to be trained, and which simple rule costs less, if one does."""

    class Dear:
        def __init__(self, updates: Any) -> None:
            assert updates is UPDATES

        def rule(self, level: float) -> Any:
            return lambda question: max(question.options, key=question.cost)

    monkeypatch.setattr(decision_page, "Forecasts", Dear)
    text = decision_page.decision_page(UPDATES, tmp_path).read_text()
    assert "5 questions. In 1 of them a network is at the target as it is" in text
    assert "asked in the other 4." in text
    assert "a question has 5 to 5." in text
    assert "cost, is missed: " in text
    assert "The rule always retrain the same network costs less." in text
    assert "The corpus asks no such question." in text
    monkeypatch.setattr(Dear, "rule", lambda *_: lambda question: question.cheapest)
    text = decision_page.decision_page(UPDATES, tmp_path).read_text()
    assert "cost, is met: 1.00 with the default of 90 %." in text


def test_what_is_asked_for_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No update for new data of the kind that is asked for is in what the forecast rests on."""
    updates = corpus_updates()
    questions = list(questions_of(updates, [0.7]))
    of_shift = next(question for question in questions if question.kind == "shift")
    of_task = next(question for question in questions if question.kind == "task")
    forecasts = Forecasts(updates)
    seen: list[Any] = []
    whole = decision_evaluation.decide

    def spied(*words: Any, **options: Any) -> Any:
        seen.append(options["forecaster"].experience.updates)
        return whole(*words, **options)

    monkeypatch.setattr(decision_evaluation, "decide", spied)
    for question, label in ((of_shift, "shift"), (of_task, "new")):
        chosen = forecasts.rule(0.9)(question)
        assert chosen in question.options
        known = seen.pop()
        assert known
        assert question.change not in {update.labels[label] for update in known}
