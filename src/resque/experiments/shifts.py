"""Images shifted by a known amount: gaussian noise, salt and pepper, gaussian blur."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from resque.errors import InputError


def gaussian_noise(images: Tensor, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Return images with gaussian noise added, clipped to [0, 1].

    The published scripts do not clip, and their pixels wrap round at 8 bits; this does not
    reproduce that.

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        sigma: standard deviation of the noise; 0 or more.
        generator: source of the noise, on the device of the images.

    Raises:
        InputError: `sigma` is negative.

    Example:
        >>> noisy = gaussian_noise(torch.zeros(1, 1, 2, 2), 0.1, generator=torch.Generator())
        >>> bool((noisy >= 0).all())
        True
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"sigma must be 0 or more; got {sigma}.")
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (images + sigma * noise).clamp(0, 1)


def salt_and_pepper(images: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """Return images of which a share of the pixels, all channels alike, are black or white.

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        share: expected share of the pixels that are replaced, half by 0 and half by 1.
        generator: source of the noise, on the device of the images.

    Raises:
        InputError: `share` is not in [0, 1].

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> torch.equal(salt_and_pepper(grey, 0.0, generator=torch.Generator()), grey)
        True
    """
    if not 0 <= share <= 1:
        raise InputError(f"share must be 0 to 1; got {share}.")
    n, _, height, width = images.shape
    drawn = torch.rand((n, 1, height, width), generator=generator, device=images.device)
    pepper = torch.where(drawn < share / 2, torch.zeros_like(images), images)
    return torch.where(drawn > 1 - share / 2, torch.ones_like(images), pepper)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a gaussian, with reflected borders.

    Args:
        images: (batch, channels, height, width).
        sigma: standard deviation in pixels; 0 leaves the images as they are. The kernel
            reaches 3 sigma, or the width of the image less one pixel.

    Raises:
        InputError: `sigma` is negative.

    Example:
        >>> ones = torch.ones(1, 1, 8, 8)
        >>> torch.allclose(gaussian_blur(ones, 1.0), ones)
        True
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"sigma must be 0 or more; got {sigma}.")
    reach = min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1)
    if reach == 0:
        return images.clone()
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    for axis in (2, 3):
        shape = [channels, 1, 1, 1]
        shape[axis] = len(kernel)
        padding = [0, 0, reach, reach] if axis == 2 else [reach, reach, 0, 0]
        images = functional.conv2d(
            functional.pad(images, padding, mode="reflect"),
            kernel.reshape(1, 1, *([-1, 1] if axis == 2 else [1, -1])).expand(shape),
            groups=channels,
        )
    return images
