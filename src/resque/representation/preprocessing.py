"""From an image to the tensor that a model expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from resque.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What is done to one image, in this order: channels, resize, crop, scale, normalise.

    Attributes:
        image_size: (height, width) in pixels of what the model gets; None keeps the image's.
        resize_to: pixels of the shorter side before `image_size` is cropped from the centre;
            None resizes to `image_size` exactly, without a crop.
        mean: per channel, subtracted from values in [0, 1]; one number serves all channels.
        std: per channel, divided by.
        channels: 1 or 3, to which images are converted; None keeps what the image has.
        interpolation: of the resize; by PIL, with antialiasing.

    Example:
        >>> import numpy as np
        >>> prepare = Preprocessing(image_size=(8, 8), mean=(0.5,), std=(0.5,))
        >>> prepare(np.zeros((16, 16), np.uint8)).shape
        torch.Size([1, 8, 8])
    """

    image_size: tuple[int, int] | None = None
    resize_to: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Literal[1, 3] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.image_size is not None and min(self.image_size) < 1:
            raise InputError(f"image_size must be 1 pixel or more; got {self.image_size}.")
        if not all(0 < value < math.inf for value in self.std):
            raise InputError(f"std must be above 0; got {self.std}.")
        if not all(math.isfinite(value) for value in self.mean):
            raise InputError(f"mean must be finite; got {self.mean}.")
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std need as many values as each other; got {self.mean} and {self.std}."
            )
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels must be 1 or 3; got {self.channels}.")

    def __call__(self, image: Image | np.ndarray) -> torch.Tensor:
        """Return the image as a tensor (channels, height, width) of float32.

        Args:
            image: a PIL image, or bytes (height, width[, channels]).
        """
        from PIL.Image import fromarray

        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise InputError(
                    f"An image must be bytes (uint8, 0 to 255); got an array of {image.dtype}."
                )
            image = fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
        if image.mode.startswith(("I", "F")):
            raise InputError(
                f"An image has more than 8 bits per value (mode {image.mode!r}), and how to bring "
                "it to 8 bits is not known; convert it first."
            )
        if self.channels is not None:
            image = image.convert("L" if self.channels == 1 else "RGB")
        elif image.mode not in ("L", "RGB"):
            # Palettes, alpha and 1-bit images have no pixels to average.
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        image = self._resized(image)
        pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        n = pixels.shape[2]
        if len(self.mean) not in (1, n):
            raise InputError(
                f"The image has {n} channels, mean and std have {len(self.mean)} values. Convert "
                f"the images with channels={len(self.mean)} (--channels {len(self.mean)}), or "
                "name mean and std for the channels they have."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (tensor - mean) / std

    def _resized(self, image: Image) -> Image:
        from PIL.Image import Resampling

        if self.image_size is None:
            return image
        height, width = self.image_size
        how = Resampling[self.interpolation.upper()]
        if self.resize_to is None:
            return image if image.size == (width, height) else image.resize((width, height), how)
        # The rounding is torchvision's, so that numbers agree with transforms made there.
        shorter, longer = sorted(image.size)
        other = int(self.resize_to * longer / shorter)
        portrait = image.width <= image.height
        size = (self.resize_to, other) if portrait else (other, self.resize_to)
        if image.size != size:
            image = image.resize(size, how)
        left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
        return image.crop((left, top, left + width, top + height))

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_size)) if self.image_size else "as is"
        crop = f", cropped from {self.resize_to}" if self.resize_to else ""
        channels = f", {self.channels} channels" if self.channels else ""
        return (
            f"size {size}{crop} ({self.interpolation}){channels}, mean {_short(self.mean)}, "
            f"std {_short(self.std)}"
        )


def _short(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.10g}" for value in values)


def chosen_preprocessing(
    brought: Preprocessing | Callable[[Any], torch.Tensor] | None,
    *,
    image_size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: int | None = None,
) -> Preprocessing | Callable[[Any], torch.Tensor] | None:
    """Return a model's own preprocessing with whatever the user named in its place.

    Args:
        brought: what the model brings along; None where it brings nothing.
        image_size: resize to exactly this (height, width), without the model's crop.
        mean: see `Preprocessing`.
        std: see `Preprocessing`.
        channels: see `Preprocessing`.

    Returns:
        The preprocessing; None where nothing was brought and nothing named.

    Raises:
        InputError: the model brings a function of its own, which cannot be changed by options.
    """
    named: dict[str, Any] = {}
    if image_size is not None:
        named |= {"image_size": image_size, "resize_to": None}
    given = {"mean": mean, "std": std, "channels": channels}
    named |= {key: value for key, value in given.items() if value is not None}
    if not named:
        return brought
    if brought is None:
        return Preprocessing(**named)
    if isinstance(brought, Preprocessing):
        return replace(brought, **named)
    raise InputError(
        f"The model brings its own preprocessing, a {type(brought).__name__}, which "
        f"{', '.join(named)} cannot change; change it in the factory."
    )


def preprocessing_of_timm(config: Mapping[str, Any]) -> Preprocessing | None:
    """Return the evaluation preprocessing that a timm model's configuration asks for.

    Args:
        config: the model's `pretrained_cfg`.

    Returns:
        The preprocessing; None for the few models that do not crop a square from the centre,
        whose preprocessing the user names.
    """
    _, height, width = config.get("input_size", (3, 224, 224))
    if height != width or config.get("crop_mode") not in (None, "", "center"):
        return None
    crop = float(config.get("crop_pct") or 1.0)
    interpolation = str(config.get("interpolation", "bicubic"))
    return Preprocessing(
        image_size=(height, width),
        resize_to=int(min(height, width) / crop),
        mean=tuple(config.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(config.get("std", (0.229, 0.224, 0.225))),
        interpolation=interpolation if interpolation in ("bilinear", "lanczos") else "bicubic",  # type: ignore[arg-type]
    )
