"""What a comparison says: the options side by side, the answer, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resque.decision.option import By, Kind, Prices
from resque.errors import InputError
from resque.forecasting.forecast import Estimate, Forecast, chance
from resque.history.records import Accuracy, fields_of, target_to_dict
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

FORMAT = "resque.Comparison/1"
# What options are compared by -> measure, and the word for it.
MEASURES: Mapping[By, tuple[str, str]] = {
    "kwh": ("energy_kwh", "energy"),
    "kg": ("carbon_kg", "carbon"),
    "hours": ("duration_s", "time"),
    "money": ("money", "money"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One option of a comparison.

    Attributes:
        name: of the option.
        kind: "keep", "retrain" or "from scratch".
        signature: of the pass over the new data; None where it is not known.
        costs: measure ("epochs", "duration_s", "energy_kwh", "carbon_kg", "money") -> what it
            would come to; None where that is not known.
        missing: measure -> why it is not known.
        peak_accuracy: best accuracy that is forecast; of a kept model, the one it has, with the
            interval that so few examples allow.
        reaches_target: probability of the target.
        on_front: no other option is both cheaper and better, by the medians.
        cheaper: probability that it costs less than the best option; None of that itself.
        forecast: behind these; None for a kept model.

    Example:
        >>> from resque.decision.compare import decide
        >>> from resque.decision.candidate import Candidate
        >>> kept = Candidate(name="keep", kind="keep", correct=98, examples=100)
        >>> row = decide([kept], target=Accuracy(0.9)).options[0]
        >>> row.costs["energy_kwh"].median, round(row.reaches_target, 2)
        (0.0, 1.0)
    """

    name: str
    kind: Kind
    signature: Signature | None
    costs: Mapping[str, Estimate | None]
    missing: Mapping[str, str]
    peak_accuracy: Estimate
    reaches_target: float
    on_front: bool
    cheaper: float | None
    forecast: Forecast | None

    @property
    def model(self) -> str | None:
        """Name of the model in the signature."""
        return self.signature.model if self.signature else None

    def to_dict(self) -> dict[str, Any]:
        """Return the option as plain JSON types."""
        return {
            "name": self.name,
            "kind": self.kind,
            "model": self.model,
            "signature": self.signature and self.signature.to_dict(),
            **{name: e and fields_of(e) for name, e in self.costs.items()},
            "peak_accuracy": fields_of(self.peak_accuracy),
            "reaches_target": self.reaches_target,
            "missing": dict(self.missing),
            "on_front": self.on_front,
            "cheaper": self.cheaper,
            "forecast": self.forecast and self.forecast.to_dict(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Something else that might have been asked, and what the answer would be then.

    Attributes:
        kind: "measure", "target", "grid" or "data".
        what: the change, in words.
        recommended: name of the option; None where none would reach the target.
        differs: whether that is another answer.

    Example:
        >>> str(Change(kind="target", what="a target of 0.8", recommended="keep", differs=True))
        'with a target of 0.8: keep'
    """

    kind: Literal["measure", "target", "grid", "data"]
    what: str
    recommended: str | None
    differs: bool

    def __str__(self) -> str:
        return f"with {self.what}: {self.recommended or 'no option is likely enough to reach it'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Options side by side, the cheapest that reaches the target, and what would change that.

    Attributes:
        recommended: name of the cheapest option that reaches the target with the asked
            probability; None where none does.
        best: the same; where none does, the best that can be had: the likeliest to reach it.
        ties: other options that do, whose costs cannot be told from it; where none does, those
            about as likely to reach it as the best one, and cheaper.
        options: those that could be looked at, in the order given.
        failures: name -> why it could not be looked at, or forecast.
        changes: what would change the answer.
        target: to be reached.
        by: what is cheap: "kwh", "kg", "hours" or "money".
        confidence_level: of the intervals, and the asked probability.
        currency: of the money.
        prices: what that was reckoned with; None without any.

    Example:
        >>> from resque.decision.compare import decide
        >>> from resque.decision.candidate import Candidate
        >>> kept = Candidate(name="keep", kind="keep", correct=98, examples=100)
        >>> decide([kept], target=Accuracy(0.9)).answer[:51]
        'keep: it costs nothing and is at 0.978 (0.946 to 0.'
    """

    recommended: str | None
    best: str
    ties: tuple[str, ...]
    options: tuple[Compared, ...]
    failures: Mapping[str, str]
    changes: tuple[Change, ...]
    target: Accuracy
    by: By
    confidence_level: float
    currency: str = ""
    prices: Prices | None = None

    _repr_html_ = shown_in_notebook

    def option(self, name: str) -> Compared:
        """Return the option of a name.

        Raises:
            InputError: there is none of that name; with those that there are.
        """
        for found in self.options:
            if found.name == name:
                return found
        raise InputError(
            f"The comparison has no option {name!r}; it has "
            f"{', '.join(repr(found.name) for found in self.options)}."
        )

    @property
    def answer(self) -> str:
        """The answer in one sentence."""
        best = self.option(self.best)
        measure, word = MEASURES[self.by]
        likely = chance(best.reaches_target)
        if best.kind == "keep":
            how = f"it costs nothing and is at {best.peak_accuracy}"
        else:
            cost = best.costs[measure]
            how = f"it takes {cost} of {word}" if self.by != "money" else f"it costs {cost}"
        if self.recommended is None:
            told = (
                f"no option reaches {self.target.value:g} with {self.confidence_level:.0%} "
                f"probability; the best that can be had is {best.name}: {how}, and reaches it "
                f"with {likely}"
            )
            alike = [self.option(name) for name in self.ties]
            others = (f"{one.name} ({chance(one.reaches_target)})" for one in alike)
            return f"{told}; about as likely, and cheaper: {', '.join(others)}" if alike else told
        if best.kind == "keep":
            how += f", which is the asked {self.target.value:g} with {likely} probability"
        else:
            how += f", and reaches {self.target.value:g} with {likely} probability"
        told = f"{best.name}: {how}"
        if not self.ties:
            return told
        return f"{told}; it cannot be told from {' or '.join(self.ties)} in {word}"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON types."""
        return {
            "format": FORMAT,
            "answer": self.answer,
            "recommended": self.recommended,
            "best": self.best,
            "ties": list(self.ties),
            "options": [one.to_dict() for one in self.options],
            "failures": dict(self.failures),
            "changes": [fields_of(one) for one in self.changes],
            "target": target_to_dict(self.target),
            "by": self.by,
            "confidence_level": self.confidence_level,
            "currency": self.currency,
            "prices": self.prices and fields_of(self.prices),
        }

    def __str__(self) -> str:
        measure, _ = MEASURES[self.by]
        lines = [self.answer]
        for one in self.options:
            cost = one.costs[measure]
            told = f"unknown: {one.missing.get(measure)}" if cost is None else str(cost)
            lines.append(
                f"{one.name}: {told}, accuracy {one.peak_accuracy}, "
                f"reaches the target with {chance(one.reaches_target)}"
            )
        lines += [f"{name}: failed: {why}" for name, why in self.failures.items()]
        return "\n".join([*lines, *(str(change) for change in self.changes if change.differs)])
