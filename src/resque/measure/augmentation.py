"""Random changes to training images, one draw per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from resque.errors import InputError, missing_extra
from resque.history.records import Augmentation


def augmented(images: Tensor, how: Augmentation) -> Tensor:
    """Return images (batch, channels, height, width), each changed at random.

    Args:
        images: any float values; left as they were.
        how: see `Recipe`.

    Raises:
        InputError: the inputs are no images.
        MissingExtraError: "published" needs torchvision.

    Example:
        >>> augmented(torch.zeros(4, 3, 8, 8), "flip_crop").shape
        torch.Size([4, 3, 8, 8])
    """
    if how == "none":
        return images
    if images.ndim != 4:
        raise InputError(
            f"augmentation={how!r} is for images (batch, channels, height, width); the inputs "
            f"have shape {tuple(images.shape)}. Use augmentation='none'."
        )
    if how == "published":
        change = _published()
        return torch.stack([change(image) for image in images])
    flipped = torch.rand(len(images), device=images.device) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    return images if how == "flip" else _shifted(images)


def _shifted(images: Tensor) -> Tensor:
    """Return each image moved by up to an eighth of its sides, the border mirrored."""
    n, _, height, width = images.shape
    most = max(height // 8, 1), max(width // 8, 1)
    padded = torch.nn.functional.pad(images, (most[1], most[1], most[0], most[0]), "reflect")
    rows, columns = (
        torch.randint(0, 2 * reach + 1, (n, 1), device=images.device)
        + torch.arange(side, device=images.device)
        for reach, side in zip(most, (height, width), strict=True)
    )
    examples = torch.arange(n, device=images.device)
    picked = padded.permute(0, 2, 3, 1)[
        examples[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2)


def _published() -> Callable[[Tensor], Tensor]:
    """Return the geometric transforms of the paper's scripts.

    Their colour jitter is left out: its strength is not published, and it is defined for pixels
    in [0, 1], which prepared images are not.
    """
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise missing_extra("torchvision", "vision") from error
    change: Callable[[Tensor], Tensor] = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(25),
            v2.RandomAffine(20, shear=20, scale=(0.8, 1.2)),
        ]
    )
    return change
