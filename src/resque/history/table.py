"""Updates as a table: one row per update, for plots, correlations and fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from resque.history.update import Update

if TYPE_CHECKING:
    from pandas import DataFrame

# Of an update's own accuracies, that at which it is said to be there: beyond it, noise decides.
SHARE_OF_PEAK = 0.99

MEASURES = (
    "epochs", "epochs_to_peak_share", "steps", "duration_s", "energy_kwh", "carbon_kg",
    "gradient_norm", "gradient_norm_last_batch", "parameter_change", "parameter_change_published",
    "peak_accuracy", "peak_epoch", "accuracy_before", "loss_before",
)  # fmt: skip
PREFLIGHT = "preflight:"


def table_of(updates: Iterable[Update]) -> DataFrame:
    """Return a table (updates, columns) of measures, labels and pre-flight values.

    Columns are the measures in their units, "epochs_to_peak_share" (epochs at the first
    validation with 99 % of the update's own peak accuracy), `reached`, `start`, the sizes of the
    data, `probe_steps` (those of the pre-flight, warm-up included), "label:NAME" for each label,
    and "preflight:NAME" for each value of the pre-flight. What is not known is NaN, or None in
    columns of text.

    Args:
        updates: from a `History`, say.

    Example:
        >>> import torch, resque
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> data = x, (x[:, 0] > 0).long()
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> made = resque.retrain(model, data, data, target=resque.Accuracy(0.9), meter="none")
        >>> table_of([made.update]).start.tolist()
        ['weights']
    """
    import pandas as pd

    return pd.DataFrame([_row(update) for update in updates])


def epochs_to_share(update: Update, share: float = SHARE_OF_PEAK) -> float | None:
    """Return the epochs at the first validation with a share of an update's peak accuracy.

    Args:
        update: with its curve; None comes back without one.
        share: of the peak accuracy, 0 to 1.
    """
    if not update.curve or update.peak_accuracy is None:
        return None
    # The peak and the curve may have been rounded to other digits.
    enough = share * update.peak_accuracy - 1e-6
    return next((point.epoch for point in update.curve if point.accuracy >= enough), None)


def _row(update: Update) -> dict[str, Any]:
    row: dict[str, Any] = {"id": update.id, "model": update.signature.model, "start": update.start}
    row |= {name: getattr(update, name) for name in MEASURES if name != "epochs_to_peak_share"}
    row["epochs_to_peak_share"] = epochs_to_share(update)
    row |= {
        "reached": update.reached,
        "ended": update.ended,
        "training_examples": update.data.training_examples,
        "steps_per_epoch": update.data.steps_per_epoch,
        "classes": update.data.classes,
        "parameters": update.parameters,
        "concurrency": update.concurrency,
        "energy_modelled": update.energy.modelled if update.energy is not None else None,
    }
    row |= {f"label:{name}": value for name, value in update.labels.items()}
    known = update.preflight or {}
    values, probe = known.get("values", {}), known.get("probe") or {}
    row["probe_steps"] = len(probe["losses"]) if "losses" in probe else None
    return row | {f"{PREFLIGHT}{name}": value for name, value in values.items()}
