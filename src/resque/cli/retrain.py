"""`resque retrain`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli import options
from resque.errors import InputError

if TYPE_CHECKING:
    from resque.forecasting.preflight import Preflight
    from resque.history.update import Update
    from resque.index.profile import ClassProfile

_COST = "Cost"


def retrain(
    training: Annotated[
        Path, typer.Argument(help="Training data: a folder of images by class, or a .npz.")
    ],
    validation: Annotated[Path, typer.Argument(help="Validation data, likewise; other examples.")],
    model: options.Model = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    accuracy: options.TargetAccuracy = None,
    patience: options.Patience = None,
    min_delta: options.MinDelta = 0.001,
    start: options.Start = "weights",
    optimiser: options.Optimiser = "adam",
    learning_rate: options.LearningRate = 1e-3,
    schedule: options.Schedule = "constant",
    weight_decay: options.WeightDecay = 0.0,
    momentum: options.Momentum = 0.9,
    augmentation: options.Augmentation = "none",
    freeze_body: options.FreezeBody = False,
    max_epochs: options.MaxEpochs = 50.0,
    validation_interval: options.ValidationInterval = 1.0,
    batch_size: options.BatchSize = 32,
    autocast: options.Autocast = None,
    seed: options.RecipeSeed = 0,
    meter: options.MeterName = "codecarbon",
    calibration: options.CalibrationFile = None,
    grid: options.GridName = None,
    pue: options.Pue = 1.0,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Profile of the old data: the update records RESQUE_dist to the new ones.",
            rich_help_panel=_COST,
        ),
    ] = None,
    preflight: Annotated[
        Path | None,
        typer.Option(
            help="Saved pre-flight of this update, recorded with it, to learn forecasts from.",
            rich_help_panel=_COST,
        ),
    ] = None,
    history: options.HistoryUrl = options.HISTORY,
    label: options.Labels = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the best weights here (.safetensors)."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Leave the state here each epoch, and go on from it if it is there."),
    ] = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    split: options.Split = None,
    split_validation: options.SplitValidation = None,
    classes: options.Classes = None,
    skip_unreadable: options.SkipUnreadable = False,
    workers: options.Workers = 0,
    as_json: options.AsJson = False,
) -> None:
    """Retrain a model on new data until a target is met; measure it and add it to the history.

    Example: resque retrain new/ held-out/ --model timm:resnet18 --weights mine.pt --accuracy 0.92
    """  # fmt: skip
    from resque.files import checked_output, existing

    for path in (training, validation, before, preflight):
        if path is not None:
            existing(path)
    for written in (output, checkpoint):
        if written is not None:
            checked_output(written)
            options.not_an_input(written, training, validation, weights, before, preflight)
    if model is None:
        raise InputError("Which model is retrained? Name it with --model.")
    target = options.target(accuracy, patience, min_delta)
    recipe = options.recipe(
        start=start, optimiser=optimiser, learning_rate=learning_rate, schedule=schedule,
        weight_decay=weight_decay, momentum=momentum, batch_size=batch_size,
        augmentation=augmentation, freeze_body=freeze_body, seed=seed, max_epochs=max_epochs,
        autocast=autocast, validation_interval=validation_interval,
    )  # fmt: skip
    labels = options.label_pairs(label)
    choice = options.ModelChoice(
        model=model, weights=weights, layer=None, pooling="auto", device=device, seed=seed,
        autocast=autocast, image_size=image_size, mean=mean, std=std, channels=channels,
    )  # fmt: skip
    from resque.forecasting.preflight import load_preflight
    from resque.history.store import History
    from resque.index.profile import load_profile, profile
    from resque.index.shift import shift_index
    from resque.measure.batches import data_at
    from resque.measure.energy import open_meter
    from resque.measure.retrain import retrain as retrained
    from resque.reporting.terminal import update_view
    from resque.representation.models import untrained_like

    store = History(history)
    store.check_writable()
    old = None if before is None else load_profile(before)
    known = None if preflight is None else load_preflight(preflight)
    costed = options.costed(grid, pue)
    with options.results_only(), open_meter(meter, calibration=calibration) as opened:
        loaded, prepare = choice.load()
        assert loaded is not None  # noqa: S101  # narrows the type: a model was named
        data = data_at(
            training,
            validation,
            preprocessing=prepare,
            splits=(split, split_validation or split),
            class_names=options.names(classes),
            batch_size=batch_size,
            workers=workers,
            skip_unreadable=skip_unreadable,
        )
        index = None if known is None else _index_in(known, data.training, training)
        if old is not None:
            new = profile(
                loaded.model,
                data.training,
                class_names=data.class_names,
                model_name=loaded.name,
                preprocessing=data.preprocessing,
                **_read_as(old),
            )
            index = shift_index(old, new).to_dict()
        with _resumable(checkpoint):
            result = retrained(
                loaded.model,
                data.training,
                data.validation,
                target=target,
                recipe=recipe,
                meter=opened,
                grid=costed,
                checkpoint=checkpoint,
                untrained=untrained_like(model, seed) if start == "scratch" else None,
                class_names=data.class_names,
                model_name=loaded.name,
                preprocessing=data.preprocessing,
                index=index,
                preflight=None if known is None else known.to_dict(),
                labels=labels,
                workers=workers,
            )
    # The result comes first: should the history or the weights fail, it is not lost.
    options.print_result(result.update, update_view, as_json=as_json)
    try:
        store.add(result.update)
    except InputError as error:
        raise InputError(f"{error} {_rescued(result.update)}") from error
    finally:
        if output is not None:
            result.save_weights(output)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    typer.echo(f"update {result.update.id[:8]} added to {store.url}", err=True)


def _index_in(known: Preflight, data: Any, path: Path) -> Mapping[str, Any] | None:
    """Return the index in a pre-flight, which must be of as many examples: it is learned from."""
    examples = len(data[0]) if isinstance(data, tuple) else len(data)
    if known.data.training_examples != examples:
        raise InputError(
            f"That pre-flight is of {known.data.training_examples} training examples, and "
            f"{str(path)!r} holds {examples}; give the one of this update, or none."
        )
    return known.shift


def _read_as(old: ClassProfile) -> dict[str, Any]:
    """Return how the new data are read so that they can be compared with a profile of old ones."""
    signature = old.signature
    if signature is None:
        return {}
    return {
        "layer": signature.layer,
        "pooling": signature.pooling,
        "groups": signature.groups,
    }


def _rescued(update: Update) -> str:
    """Write an update that no history took, and return where it is, in words."""
    from resque.files import written_whole

    path = Path(f"resque-update-{update.id[:8]}.jsonl")
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(update.to_dict()) + "\n", encoding="utf-8")
    return f"The update is in {str(path)!r}: `resque history import` adds it."


@contextmanager
def _resumable(checkpoint: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if checkpoint is None:
            raise options.Resumable(
                "nothing was written; with --checkpoint FILE the same command could go on"
            ) from interrupt
        if not checkpoint.exists():
            raise
        raise options.Resumable(
            f"the same command goes on from the last whole epoch, in {str(checkpoint)!r}"
        ) from interrupt
