"""Images shifted by a known amount: noise of five kinds, blur, contrast and brightness."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from resque.errors import InputError


def gaussian_noise(images: Tensor, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Return images with gaussian noise added, clipped to [0, 1].

    The published scripts do not clip, and their pixels wrap round at 8 bits; that is
    `published_gaussian_noise`.

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
    return (images + _gaussian(images, sigma, generator)).clamp(0, 1)


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
    n, _, height, width = images.shape
    return _black_or_white(images, share, (n, 1, height, width), generator)


def impulse_noise(images: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """Return images of which a share of the values, each channel on its own, are 0 or 1.

    A pixel of three channels is hit in 1 - (1 - share)^3 of the cases and turns to a colour;
    in `salt_and_pepper` all its channels turn alike. With one channel the two are the same.

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        share: expected share of the values that are replaced, half by 0 and half by 1.
        generator: source of the noise, on the device of the images.

    Raises:
        InputError: `share` is not in [0, 1].

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> hit = impulse_noise(grey, 1.0, generator=torch.Generator())
        >>> sorted(set(hit.flatten().tolist()))
        [0.0, 1.0]
    """
    return _black_or_white(images, share, tuple(images.shape), generator)


def shot_noise(images: Tensor, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Return images as counted photons show them: Poisson noise, clipped to [0, 1].

    A value x becomes Poisson(k x) / k, of mean x and standard deviation sqrt(x / k), with
    k = 1 / (2 sigma^2) photons for white: `sigma` is the standard deviation at grey 0.5, so that
    one number means about as much here as in `gaussian_noise`. Black stays black. Hendrycks and
    Dietterich, arXiv:1903.12261, name the strength by k.

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        sigma: standard deviation at grey 0.5; 0, or 0.0001 to 100.
        generator: source of the noise, on the device of the images.

    Raises:
        InputError: `sigma` is out of range.

    Example:
        >>> black = torch.zeros(1, 1, 2, 2)
        >>> torch.equal(shot_noise(black, 0.1, generator=torch.Generator()), black)
        True
    """
    # Outside of this range the counts leave what single precision holds.
    if not (sigma == 0 or 1e-4 <= sigma <= 100):
        raise InputError(f"sigma must be 0, or 0.0001 to 100; got {sigma}.")
    if sigma == 0:
        return images.clone()
    photons = 0.5 / sigma**2
    counted = torch.poisson(images.float() * photons, generator=generator)
    return (counted / photons).clamp(0, 1).to(images.dtype)


def published_gaussian_noise(images: Tensor, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Return images with the gaussian noise of the published scripts, wrapped round at 8 bits.

    They add noise, do not clip, and turn the sum into bytes, where -1 becomes 255 and 256
    becomes 0: dark and bright pixels flip, and on images with much black or white this is
    speckle rather than gaussian noise. To reproduce the paper only; otherwise `gaussian_noise`.
    Sangarya and Kim, arXiv:2412.15511 (their scripts call sigma a variance).

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        sigma: standard deviation of the noise before the wrap; 0 cuts to 8 bits alone.
        generator: source of the noise, on the device of the images.

    Raises:
        InputError: `sigma` is negative.

    Example:
        >>> white = torch.ones(1, 1, 100, 100)
        >>> noisy = published_gaussian_noise(white, 0.01, generator=torch.Generator())
        >>> bool(((noisy > 0.9) | (noisy < 0.1)).all())
        True
    """
    noisy = images + _gaussian(images, sigma, generator)
    # Conversion of a negative float to a byte is undefined in C and differs between processors.
    # Half precision does not hold 255 steps between 0 and 1.
    cut = (noisy.to(torch.promote_types(noisy.dtype, torch.float32)) * 255).trunc().to(torch.int64)
    return (cut.remainder(256) / 255).to(images.dtype)


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


def contrast(images: Tensor, share: float) -> Tensor:
    """Return images moved towards their own mean, per image and channel, within [0, 1].

    The means stay as they are, so that an image keeps its colour. arXiv:1903.12261.

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        share: of the contrast that is lost; 0 leaves the images as they are, 1 makes them flat.

    Raises:
        InputError: `share` is not in [0, 1].

    Example:
        >>> contrast(torch.tensor([[[[0.0, 1.0]]]]), 0.5).tolist()
        [[[[0.25, 0.75]]]]
    """
    if not 0 <= share <= 1:
        raise InputError(f"share must be 0 to 1; got {share}.")
    means = images.mean((2, 3), keepdim=True).expand_as(images)
    return torch.lerp(images, means, share).clamp(0, 1)


def brightness(images: Tensor, amount: float) -> Tensor:
    """Return images with an amount added to every value, clipped to [0, 1].

    Args:
        images: (batch, channels, height, width), values in [0, 1].
        amount: -1 to 1; below 0 the images get darker.

    Raises:
        InputError: `amount` is not in [-1, 1].

    Example:
        >>> brightness(torch.tensor([[[[0.25, 0.75]]]]), 0.5).tolist()
        [[[[0.75, 1.0]]]]
    """
    if not -1 <= amount <= 1:
        raise InputError(f"amount must be -1 to 1; got {amount}.")
    return (images + amount).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """One kind of shift and how strong it can be.

    Attributes:
        name: of the kind.
        unit: of a level, in words.
        levels: five strengths, from hardly visible to strong on images of 32 x 32 px.
        shifted: returns images at a level, given a source of noise.
    """

    name: str
    unit: str
    levels: tuple[float, ...]
    shifted: Callable[[Tensor, float, torch.Generator], Tensor]

    def apply(self, images: Tensor, level: float, *, seed: int) -> Tensor:
        """Return the images shifted; at level 0 as they are, in a tensor of their own.

        The noise depends on the seed, the shape of the whole batch, its dtype and the kind of
        device: shift a data set at once, and not batch by batch with one seed, which would give
        every batch the same noise.

        Args:
            images: (batch, channels, height, width), floats in [0, 1].
            level: strength, in `unit`.
            seed: of the noise.

        Raises:
            InputError: the images are no such images, or the level is out of range.

        Example:
            >>> SHIFTS["contrast"].apply(torch.tensor([[[[0.0, 1.0]]]]), 1.0, seed=0).tolist()
            [[[[0.5, 0.5]]]]
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise InputError(
                "Expected images (batch, channels, height, width) of floats in [0, 1]; got "
                f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}. Divide bytes "
                "by 255."
            )
        if images.numel():
            low, high = (float(value) for value in images.aminmax())
            if not 0 <= low <= high <= 1:
                raise InputError(
                    f"Expected images with values in [0, 1]; got {low:g} to {high:g}. Shift them "
                    "before they are normalised."
                )
        generator = torch.Generator(images.device).manual_seed(seed)
        return self.shifted(images, level, generator)


_DEVIATION = "standard deviation, white is 1"
_KINDS = (
    Shift(
        name="gaussian_noise",
        unit=_DEVIATION,
        levels=(0.02, 0.05, 0.1, 0.2, 0.4),
        shifted=lambda images, level, generator: gaussian_noise(images, level, generator=generator),
    ),
    Shift(
        name="shot_noise",
        unit="standard deviation at grey 0.5, white is 1",
        levels=(0.02, 0.05, 0.1, 0.2, 0.4),
        shifted=lambda images, level, generator: shot_noise(images, level, generator=generator),
    ),
    Shift(
        name="impulse_noise",
        unit="share of values",
        levels=(0.005, 0.02, 0.05, 0.1, 0.25),
        shifted=lambda images, level, generator: impulse_noise(images, level, generator=generator),
    ),
    Shift(
        name="salt_and_pepper",
        unit="share of pixels",
        levels=(0.005, 0.02, 0.05, 0.1, 0.25),
        shifted=lambda images, level, generator: salt_and_pepper(
            images, level, generator=generator
        ),
    ),
    Shift(
        name="gaussian_blur",
        unit="standard deviation in pixels",
        levels=(0.4, 0.6, 0.9, 1.3, 2.0),
        shifted=lambda images, level, _: gaussian_blur(images, level),
    ),
    Shift(
        name="contrast",
        unit="share of the contrast that is lost",
        levels=(0.15, 0.3, 0.5, 0.7, 0.9),
        shifted=lambda images, level, _: contrast(images, level),
    ),
    Shift(
        name="brightness",
        unit="amount added, white is 1",
        levels=(0.05, 0.1, 0.2, 0.3, 0.5),
        shifted=lambda images, level, _: brightness(images, level),
    ),
    Shift(
        name="published_gaussian_noise",
        unit=f"{_DEVIATION}, before the wrap",
        # The one level that the published code names is 0.05.
        levels=(0.01, 0.02, 0.05, 0.1, 0.2),
        shifted=lambda images, level, generator: published_gaussian_noise(
            images, level, generator=generator
        ),
    ),
)
SHIFTS: Mapping[str, Shift] = MappingProxyType({kind.name: kind for kind in _KINDS})


def _gaussian(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    if not 0 <= sigma < math.inf:
        raise InputError(f"sigma must be 0 or more; got {sigma}.")
    drawn = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return sigma * drawn


def _black_or_white(
    images: Tensor, share: float, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    if not 0 <= share <= 1:
        raise InputError(f"share must be 0 to 1; got {share}.")
    drawn = torch.rand(shape, generator=generator, device=images.device)
    pepper = torch.where(drawn < share / 2, torch.zeros_like(images), images)
    return torch.where(drawn > 1 - share / 2, torch.ones_like(images), pepper)
