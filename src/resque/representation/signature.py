"""What reproduces a number, and what it may be compared with."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.errors import NotComparableError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Everything that reproduces a number and says what it may be compared with.

    Printed beside every number and stored in every file. Two numbers are comparable when
    `weights`, `layer`, `pooling`, `preprocessing` and `width` agree; the name of the model is
    for people and decides nothing, because two trainings of one architecture share it.

    Attributes:
        index: "RESQUE_dist", "RESQUE_task" or None for a profile.
        model: name of the model, or "representations" where the user gave those.
        weights: first 16 hex digits of the SHA-256 of the parameters and buffers that the
            tapped layer depends on; None where representations were given.
        layer: the tapped layer; "input:NAME" is what goes into the layer NAME.
        pooling: how the layer's output became a vector.
        preprocessing: what was done to the images; None where the user did not say.
        width: number of values per representation.
        class_names: names of the classes.
        examples: number of examples, one entry per side.
        dtype: precision of the representations, and of autocast where it was on.
        groups: number of groups of a profile; None for a task.
        seed: seed of whatever was random; None where nothing was.
        hardware: the device that computed the representations.
        version: version of resque.

    Example:
        >>> import numpy as np
        >>> from resque import profile
        >>> one, other = (profile(None, (np.ones((4, n)), np.arange(4) % 2)) for n in (3, 5))
        >>> one.signature.differences(other.signature)
        ['width (3 and 5)']
    """

    index: str | None = None
    model: str
    weights: str | None
    layer: str
    pooling: str
    preprocessing: str | None
    width: int
    class_names: tuple[str, ...]
    examples: tuple[int, ...]
    dtype: str
    groups: int | None
    seed: int | None = None
    hardware: str
    version: str

    def differences(self, other: Signature) -> list[str]:
        """Return, in words, what makes the numbers behind two signatures incomparable."""
        found = []
        for name in ("weights", "layer", "pooling", "width"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name} ({mine} and {theirs})")
        # Unstated preprocessing is no evidence of a difference; the index warns of it instead.
        if None not in (self.preprocessing, other.preprocessing) and (
            self.preprocessing != other.preprocessing
        ):
            found.append(f"preprocessing ({self.preprocessing} and {other.preprocessing})")
        return found

    def require_comparable(self, other: Signature) -> None:
        """Raise NotComparableError, saying what differs, unless two numbers are comparable.

        Raises:
            NotComparableError: weights, layer, pooling, preprocessing or width differ.
        """
        found = self.differences(other)
        if found:
            raise NotComparableError(
                "These cannot be compared: they differ in "
                + "; ".join(found)
                + ". Make both with the same model, weights, layer, pooling and preprocessing."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Signature:
        """Return the signature that `to_dict` wrote.

        Raises:
            TypeError: a field is missing or unknown.
        """
        values = dict(values)
        for name in ("class_names", "examples"):
            values[name] = tuple(values[name])
        return cls(**values)

    def __str__(self) -> str:
        parts = {
            "index": self.index,
            "model": self.model,
            "weights": self.weights,
            "layer": self.layer,
            "pooling": self.pooling,
            "preprocessing": self.preprocessing or "not stated",
            "width": self.width,
            "classes": len(self.class_names),
            "examples": "/".join(map(str, self.examples)),
            "dtype": self.dtype,
            "groups": self.groups,
            "seed": self.seed,
            "hardware": self.hardware,
            "resque": self.version,
        }
        return "|".join(f"{name}:{value}" for name, value in parts.items() if value is not None)


@cache
def installed_version() -> str:
    """Return the version of the installed package."""
    return version("resque")


def hardware_name(device: torch.device) -> str:
    """Return the name of the processor behind a torch device, as its maker calls it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return _processor_name() if device.type == "cpu" else device.type


@cache
def _processor_name() -> str:
    # platform.processor() is empty on most Linux systems; the kernel knows the name.
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
