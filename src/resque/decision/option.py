"""What can be done about new data: keep the model, retrain one, or train one from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resque.decision.choice import together
from resque.errors import InputError
from resque.forecasting.experience import Distribution
from resque.history.records import Grid, Recipe

if TYPE_CHECKING:
    from torch import nn

    from resque.index.profile import ClassProfile

Kind = Literal["keep", "retrain", "from scratch"]
By = Literal["kwh", "kg", "hours", "money"]
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """Go on with a model as it is, which costs nothing.

    Attributes:
        model: trained on the classes of the new data.
        name: of the option.
        data: labelled new data as this model takes them, on which its accuracy is measured; None
            for those of the comparison.
        validated: whether `data` are the validation data of the comparison.
        layer: see `resque.profile`; its signature says it, and a model in which no classifier is
            found needs it.
        pooling: likewise.
        model_name: see `resque.profile`.
        preprocessing: likewise.

    Example:
        >>> import torch
        >>> Keep(torch.nn.Linear(4, 2)).name
        'keep'
    """

    kind: ClassVar[Kind] = "keep"
    model: nn.Module
    name: str = "keep"
    _: KW_ONLY
    data: Any = None
    validated: bool = False
    layer: str | None = None
    pooling: str = "auto"
    model_name: str | None = None
    preprocessing: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """An option that trains; its attributes are told of `Retrain`."""

    model: nn.Module
    name: str
    _: KW_ONLY
    recipe: Recipe | None = None
    untrained: Callable[[], nn.Module] | None = None
    training: Any = None
    validation: Any = None
    before: ClassProfile | Any = None
    layer: str | None = None
    pooling: str = "auto"
    model_name: str | None = None
    preprocessing: str | None = None
    grid: float | str | Grid | None = None
    seconds_per_step: float | None = None
    joules_per_step: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Retrain(_Trained):
    """Train a model on from its weights: all of it, or its classifier alone.

    Attributes:
        model: as for `resque.retrain`.
        name: of the option.
        recipe: how it would be trained, such as `Recipe(frozen="body")`; None for that of the
            comparison.
        untrained: see `resque.retrain`.
        training: the new data as this model takes them; None for those of the comparison.
        validation: likewise.
        before: the old data, or their profile by this model; likewise.
        layer: see `resque.profile`.
        pooling: likewise.
        model_name: see `resque.profile`; known updates of the same name tell most.
        preprocessing: see `resque.profile`.
        grid: where this option would be trained, if it is not the grid of the comparison.
        seconds_per_step: of a training step there, if it is another machine than this.
        joules_per_step: likewise.

    Example:
        >>> import torch
        >>> Retrain(torch.nn.Linear(4, 2), "head", recipe=Recipe(frozen="body")).name
        'head'
    """

    kind: ClassVar[Kind] = "retrain"
    name: str = "retrain"


@dataclass(frozen=True, slots=True, eq=False)
class FromScratch(_Trained):
    """Train a model from fresh weights; its attributes are those of `Retrain`, but for these.

    Attributes:
        model: a trained one of this architecture: how it sees the new data is what is known of
            them before. A model with random weights can be given, and tells less.
        name: of the option.
        recipe: see `Retrain`; it starts from scratch whatever it says.

    Example:
        >>> import torch
        >>> FromScratch(torch.nn.Linear(4, 2)).name
        'from scratch'
    """

    kind: ClassVar[Kind] = "from scratch"
    name: str = "from scratch"


Option = Keep | Retrain | FromScratch


def recipe_of(option: Retrain | FromScratch, common: Recipe | None) -> Recipe:
    """Return how an option would be trained.

    Args:
        option: whose own recipe is taken, if it has one.
        common: that of the comparison.
    """
    recipe = option.recipe or common or Recipe()
    if isinstance(option, FromScratch):
        return replace(recipe, start="scratch", frozen="none")
    if recipe.start == "scratch":
        raise InputError(
            f"The option {option.name!r} is a Retrain whose recipe starts from scratch; make it a "
            "FromScratch."
        )
    return recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What training costs in money.

    Attributes:
        per_kwh: price of a kilowatt-hour that the machine uses; where the data centre's own is
            billed, that times its PUE.
        per_hour: price of an hour of the machine.
        currency: of both.

    Raises:
        InputError: a price is no number or negative, both are 0, or the currency is no text.

    Example:
        >>> Prices(per_kwh=0.3, currency="EUR").per_hour
        0.0
    """

    per_kwh: float = 0.0
    per_hour: float = 0.0
    currency: str = ""

    def __post_init__(self) -> None:
        for name in ("per_kwh", "per_hour"):
            price = getattr(self, name)
            known = isinstance(price, int | float) and not isinstance(price, bool)
            if not known or not math.isfinite(price) or price < 0:
                raise InputError(f"{name} must be a price of 0 or more; got {price!r}.")
        if self.per_kwh == self.per_hour == 0:
            raise InputError("Prices need one above 0: per_kwh, per_hour or both.")
        if not isinstance(self.currency, str):
            raise InputError(f"currency must be a text such as 'EUR'; got {self.currency!r}.")

    def of(self, known: Mapping[str, Distribution]) -> Distribution | None:
        """Return what an update may cost in money; None where its energy or time is not known.

        Args:
            known: measure -> distribution, as a forecast has them.
        """
        parts = []
        for measure, price in (
            ("energy_kwh", self.per_kwh), ("duration_s", self.per_hour / _SECONDS_PER_HOUR),
        ):  # fmt: skip
            if price and measure not in known:
                return None
            if price:
                of = known[measure]
                parts.append(Distribution(of.values * price, of.weights, of.updates))
        return parts[0] if len(parts) == 1 else together(*parts)
