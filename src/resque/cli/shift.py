"""`resque shift`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from resque.cli import options

_SIDE = "A profile (.safetensors), a .npz table of representations, a folder of images by class, or a .npz of images."  # noqa: E501


def shift(
    before: Annotated[Path, typer.Argument(help=f"The data that the model knows. {_SIDE}")],
    after: Annotated[Path, typer.Argument(help="The new data, likewise.")],
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    pooling: options.Pooling = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    labels: Annotated[
        str,
        typer.Option(help="true, or predicted: the model's own predictions, on both sides."),
    ] = "true",
    confidence_level: Annotated[
        float,
        typer.Option(help="Of the interval, 0 to 1.", parser=options.number, metavar="NUMBER"),
    ] = 0.9,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    split: options.Split = None,
    split_after: Annotated[
        str | None,
        typer.Option(help="Split of the new data, if another.", rich_help_panel="Images"),
    ] = None,
    classes: options.Classes = None,
    skip_unreadable: options.SkipUnreadable = False,
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 64,
    autocast: options.Autocast = None,
    groups: options.Groups = 16,
    as_json: options.AsJson = False,
) -> None:
    """How far the same classes have moved in other data: RESQUE_dist, 0 to 1.

    Example: resque shift old/ new/ --model timm:resnet18 --weights mine.pt
    """
    from resque.files import existing
    from resque.index.profile import ClassProfile, checked_groups, profile_at
    from resque.index.shift import Labels, checked_label_kind, checked_level, shift_index
    from resque.reporting.terminal import shift_view

    for path in (before, after):
        existing(path)
    checked_level(confidence_level)
    checked_label_kind(labels)
    checked_groups(groups)

    choice = options.ModelChoice(
        model=model, weights=weights, layer=layer, pooling=pooling, device=device, seed=seed,
        autocast=autocast, image_size=image_size, mean=mean, std=std, channels=channels,
    )  # fmt: skip

    def side(path: Path, which: str | None, like: ClassProfile | None) -> ClassProfile:
        return profile_at(
            path,
            loaded,
            like=like,
            prepare=prepare,
            split=which,
            class_names=options.names(classes),
            skip_unreadable=skip_unreadable,
            unlabelled=labels == "predicted",
            workers=workers,
            batch_size=batch_size,
            groups=groups,
            **choice.reading(),
        )

    with options.results_only():
        loaded, prepare = choice.load()
        old = side(before, split, None)
        new = side(after, split_after or split, old)
    found = shift_index(old, new, labels=cast("Labels", labels), confidence_level=confidence_level)
    options.print_result(found, shift_view, as_json=as_json)
