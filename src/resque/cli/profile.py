"""`resque profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options


def profile(
    data: Annotated[
        Path,
        typer.Argument(help="A folder of images by class, a .npz of images, or a .npz table."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")],
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    pooling: options.Pooling = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    split: options.Split = None,
    classes: options.Classes = None,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled",
            help="Take a folder of images without subfolders, for labels predicted later.",
            rich_help_panel="Images",
        ),
    ] = False,
    skip_unreadable: options.SkipUnreadable = False,
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 64,
    autocast: options.Autocast = None,
    groups: options.Groups = 16,
    as_json: options.AsJson = False,
) -> None:
    """Keep what the index needs from a data set, so that the data need not be kept.

    Example: resque profile old/ --model timm:resnet18 --weights mine.pt -o before.safetensors
    """
    from rich.text import Text

    from resque.files import checked_output
    from resque.index.profile import checked_groups, checked_suffix, profile_at

    checked_output(output)
    checked_suffix(output)
    checked_groups(groups)
    options.not_an_input(output, data, weights)
    choice = options.ModelChoice(
        model=model, weights=weights, layer=layer, pooling=pooling, device=device, seed=seed,
        autocast=autocast, image_size=image_size, mean=mean, std=std, channels=channels,
    )  # fmt: skip
    with options.results_only():
        loaded, prepare = choice.load()
        made = profile_at(
            data,
            loaded,
            prepare=prepare,
            split=split,
            class_names=options.names(classes),
            unlabelled=unlabelled,
            skip_unreadable=skip_unreadable,
            workers=workers,
            batch_size=batch_size,
            groups=groups,
            **choice.reading(),
        )
    made.save(output)
    options.print_result(made, lambda one: Text(f"{one}\nwritten to {output}"), as_json=as_json)
