"""`resque forecast`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli import options
from resque.errors import InputError, ResqueWarning

if TYPE_CHECKING:
    from resque.forecasting.budget import Budget
    from resque.forecasting.files import UpdateFiles
    from resque.forecasting.preflight import Preflight
    from resque.history.records import Recipe

_UNLIKELY = 1
_BUDGET, _MACHINE = "Budget", "Another machine"
# What a saved pre-flight may be forecast with; all else that is made of data is in it already.
_RECIPE = (
    "start", "optimiser", "learning_rate", "schedule", "weight_decay", "momentum", "augmentation",
    "freeze_body", "max_epochs", "validation_interval", "autocast", "seed",
)  # fmt: skip
_IN_PREFLIGHT = (
    "training", "validation", "before", "model", "weights", "layer", "pooling", "device",
    "batch_size", "meter", "calibration", "image_size", "mean", "std", "channels", "split",
    "split_validation", "split_before", "classes", "skip_unreadable", "workers", "save_preflight",
)  # fmt: skip


def _above_zero(text: str) -> float:
    value = options.number(text)
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"expected a number above 0; got {text!r}.")
    return value


def _limit(what: str) -> Any:
    return typer.Option(help=what, parser=options.number, metavar="NUMBER", rich_help_panel=_BUDGET)


def forecast(
    context: typer.Context,
    training: Annotated[
        Path | None,
        typer.Argument(help="Data to train on: a folder of images by class, or a .npz."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Argument(help="Validation data, likewise; without them no validation is timed."),
    ] = None,
    preflight: Annotated[
        Path | None,
        typer.Option(help="A saved pre-flight, in place of data and model.", show_default=False),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(help="The old data, or their saved profile (.safetensors)."),
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    pooling: options.Pooling = "auto",
    device: options.Device = "auto",
    accuracy: options.TargetAccuracy = None,
    patience: options.Patience = None,
    min_delta: options.MinDelta = 0.001,
    max_energy_kwh: Annotated[float | None, _limit("Most kWh of training and validation.")] = None,
    max_carbon_kg: Annotated[float | None, _limit("Most kg CO2e; needs --grid.")] = None,
    max_hours: Annotated[float | None, _limit("Most hours of training and validation.")] = None,
    min_accuracy: Annotated[float | None, _limit("Least peak accuracy, 0 to 1.")] = None,
    confidence_level: Annotated[
        float,
        typer.Option(
            help="Of the intervals, and with which a budget must hold, 0 to 1.",
            parser=options.number,
            metavar="NUMBER",
        ),
    ] = 0.9,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch/--no-from-scratch", help="Forecast the same from fresh weights, too."
        ),
    ] = True,
    history: options.HistoryUrl = options.HISTORY,
    corpus: Annotated[
        bool,
        typer.Option(
            "--corpus/--no-corpus", help="Use the measured updates that come with the package."
        ),
    ] = True,
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
    seconds_per_step: Annotated[
        float | None,
        typer.Option(
            help="Of a training step there.",
            parser=_above_zero,
            metavar="SECONDS",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    joules_per_step: Annotated[
        float | None,
        typer.Option(
            help="Likewise.", parser=_above_zero, metavar="JOULES", rich_help_panel=_MACHINE
        ),
    ] = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    split: options.Split = None,
    split_validation: options.SplitValidation = None,
    split_before: Annotated[
        str | None,
        typer.Option(help="Split of the old data, if another.", rich_help_panel="Images"),
    ] = None,
    classes: options.Classes = None,
    skip_unreadable: options.SkipUnreadable = False,
    workers: options.Workers = 0,
    save_preflight: Annotated[
        Path | None,
        typer.Option(
            help="Write what was known of the update here (.json), to forecast it elsewhere."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """What an update would cost, before it is made: epochs, time, energy, carbon, accuracy.

    With a limit, exit status 1 if the update is unlikely to keep it.

    Example: resque forecast new/ held-out/ --before old/ --model timm:resnet18 --weights mine.pt
    """
    from resque.index.shift import checked_level

    checked_level(confidence_level)
    target = options.target(accuracy, patience, min_delta)
    budget = _budget(
        max_energy_kwh=max_energy_kwh, max_carbon_kg=max_carbon_kg, max_hours=max_hours,
        min_accuracy=min_accuracy,
    )  # fmt: skip
    if max_carbon_kg is not None and grid is None:
        raise InputError("--max-carbon-kg needs the grid of the energy; name it with --grid.")
    costed = options.costed(grid, pue)
    recipe = options.recipe(
        start=start, optimiser=optimiser, learning_rate=learning_rate, schedule=schedule,
        weight_decay=weight_decay, momentum=momentum, batch_size=batch_size,
        augmentation=augmentation, freeze_body=freeze_body, seed=seed, max_epochs=max_epochs,
        autocast=autocast, validation_interval=validation_interval,
    )  # fmt: skip
    look: Callable[[], Preflight]
    if preflight is not None:
        saved = _saved(preflight, context)
        recipe = _as_asked(saved.recipe, recipe, context)
        if seconds_per_step is None:
            _warn_of_another_machine(saved)
        look = partial(replace, saved)
    else:
        files = _files(
            training, validation, before, split=split, split_validation=split_validation,
            split_before=split_before, class_names=options.names(classes), workers=workers,
            skip_unreadable=skip_unreadable,
        )  # fmt: skip
        _check(model, files, save_preflight, weights)
        choice = options.ModelChoice(
            model=model, weights=weights, layer=layer, pooling=pooling, device=device, seed=seed,
            autocast=autocast, image_size=image_size, mean=mean, std=std, channels=channels,
        )  # fmt: skip
        look = partial(
            _preflight, choice, files, recipe, meter=meter, calibration=calibration,
            save_preflight=save_preflight,
        )  # fmt: skip
    from resque.forecasting.forecaster import Forecaster
    from resque.reporting.terminal import forecast_view, show

    # Read before the passes over the data: an empty one is known at once.
    forecaster = Forecaster(options.own_history(history), corpus=corpus)
    found = forecaster.forecast(
        look(),
        target=target,
        recipe=recipe,
        grid=costed,
        confidence_level=confidence_level,
        from_scratch=from_scratch,
        seconds_per_step=seconds_per_step,
        joules_per_step=joules_per_step,
    )
    judged = budget.judged(found, confidence_level=confidence_level) if budget else None
    if as_json:
        told = found.to_dict() | {"budget": judged and judged.to_dict()}
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        show(forecast_view(found, judged))
    if judged is not None and not judged.holds:
        for reason in judged.reasons:
            typer.echo(f"resque: {reason}", err=True)
        raise typer.Exit(_UNLIKELY)


def _files(
    training: Path | None, validation: Path | None, before: Path | None, **told: Any
) -> UpdateFiles:
    """Return the files that a pre-flight is made of."""
    from resque.forecasting.files import UpdateFiles

    if training is None:
        raise InputError(
            "What is forecast? Give the data to train on, or a saved pre-flight (--preflight)."
        )
    return UpdateFiles(training=training, validation=validation, before=before, **told)


def _check(
    model: str | None, files: UpdateFiles, save_preflight: Path | None, weights: str | None
) -> None:
    """Raise InputError unless all is there that a pre-flight is made of."""
    from resque.files import checked_output

    if model is None:
        raise InputError("Which model would be retrained? Name it with --model.")
    files.check()
    if save_preflight is not None:
        checked_output(save_preflight)
        options.not_an_input(save_preflight, *files.paths, weights)


def _preflight(
    choice: options.ModelChoice,
    files: UpdateFiles,
    recipe: Recipe,
    *,
    meter: str,
    calibration: Path | None,
    save_preflight: Path | None,
) -> Preflight:
    """Return what is known of the update, after it has been written where that was asked."""
    from resque.forecasting.preflight import preflight
    from resque.measure.energy import open_meter
    from resque.representation.models import untrained_like

    with options.results_only(), open_meter(meter, calibration=calibration) as opened:
        loaded, prepare = choice.load()
        assert loaded is not None  # noqa: S101  # narrows the type: a model was named
        data = files.read(
            prepare, batch_size=recipe.batch_size, layer=choice.layer, pooling=choice.pooling
        )
        untrained = untrained_like(choice.model or "", recipe.seed)
        known = preflight(
            loaded.model,
            data.training,
            before=data.before,
            validation=data.validation,
            recipe=recipe,
            meter=opened,
            untrained=untrained if recipe.start == "scratch" else None,
            layer=data.layer,
            pooling=data.pooling,
            class_names=data.class_names,
            model_name=loaded.name,
            preprocessing=data.preprocessing,
            workers=files.workers,
        )
    if save_preflight is not None:
        known.save(save_preflight)
    return known


def _budget(**limits: float | None) -> Budget | None:
    from resque.forecasting.budget import Budget

    return Budget(**limits) if any(limit is not None for limit in limits.values()) else None


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Return which parameters were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]


def _saved(path: Path, context: typer.Context) -> Preflight:
    """Return a saved pre-flight, if nothing was given that it has already."""
    from resque.forecasting.preflight import load_preflight

    told = {parameter.name: parameter for parameter in context.command.params}
    for name in _given(context, _IN_PREFLIGHT):
        parameter = told[name]
        data = parameter.param_type_name == "argument"
        raise InputError(
            f"{name.upper() if data else parameter.opts[0]} is of a pre-flight that is still to be "
            f"made, and --preflight names one that is; give one of them."
        )
    return load_preflight(path)


def _as_asked(recipe: Recipe, asked: Recipe, context: typer.Context) -> Recipe:
    """Return the recipe of a pre-flight, with what the command line asks for instead."""
    given = _given(context, _RECIPE)
    names = ["frozen" if name == "freeze_body" else name for name in given]
    return replace(recipe, **{name: getattr(asked, name) for name in names})


def _warn_of_another_machine(known: Preflight) -> None:
    """Warn where time and energy are those of a machine that is not this one."""
    if known.probe is None:
        return
    import torch

    from resque.measure.machine import hardware_of

    device = torch.device(known.hardware.device)
    there = device.type != "cuda" or torch.cuda.is_available()
    here = hardware_of(device if there else torch.device("cpu"))
    if there and (here.name, here.processor) == (known.hardware.name, known.hardware.processor):
        return
    warnings.warn(
        f"The pre-flight was made on {known.hardware.name} ({known.hardware.processor}), and this "
        f"machine is {here.name} ({here.processor}): time and energy are those of the former. For "
        "this one make the pre-flight here, or give --seconds-per-step and --joules-per-step.",
        ResqueWarning,
        stacklevel=2,
    )
