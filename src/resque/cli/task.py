"""`resque task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from resque.cli import options


def task(
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled data of the new task: a folder of images by class, a .npz of images, "
            "or a .npz table of representations."
        ),
    ],
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    pooling: options.Pooling = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    extending: Annotated[
        Path | None,
        typer.Option(help="Data of the old task, where the new classes come on top of it."),
    ] = None,
    start: Annotated[
        str, typer.Option(help="Where k-means starts: class_means or k-means++.")
    ] = "class_means",
    variants: Annotated[
        bool, typer.Option("--variants", help="Also give the four published variants.")
    ] = False,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    split: options.Split = None,
    classes: options.Classes = None,
    skip_unreadable: options.SkipUnreadable = False,
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 64,
    autocast: options.Autocast = None,
    as_json: options.AsJson = False,
) -> None:
    """How badly a model separates the classes of a new task: RESQUE_task, 0 to about 1.

    Example: resque task new/ --model timm:resnet18 --weights mine.pt
    """
    from resque.files import existing
    from resque.index.task import Start, checked_start, task_at
    from resque.reporting.terminal import task_view

    for path in (data, extending or data):
        existing(path)
    checked_start(start)

    choice = options.ModelChoice(
        model=model, weights=weights, layer=layer, pooling=pooling, device=device, seed=seed,
        autocast=autocast, image_size=image_size, mean=mean, std=std, channels=channels,
    )  # fmt: skip
    with options.results_only():
        loaded, prepare = choice.load()
        found = task_at(
            data,
            loaded,
            extending=extending,
            prepare=prepare,
            split=split,
            class_names=options.names(classes),
            skip_unreadable=skip_unreadable,
            workers=workers,
            batch_size=batch_size,
            start=cast("Start", start),
            seed=seed,
            variants=variants,
            **choice.reading(),
        )
    options.print_result(found, task_view, as_json=as_json)
