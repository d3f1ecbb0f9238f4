"""Gradient norm, parameter change, and when an update has converged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resque.history.records import Accuracy, Target


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the global L2 norm of the gradients as a scalar tensor; 0 where there are none.

    method.md, equation 13. The result stays on the device of the gradients, so that a GPU need
    not be waited for.

    Args:
        parameters: those without a gradient are left out.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> (weight * torch.tensor([3.0, 4.0])).sum().backward()
        >>> gradient_norm([weight])
        tensor(5.)
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    if all(g.device.type == "cuda" and g.dtype is torch.float32 for g in gradients):
        # A few kernels for all tensors; on a GPU a kernel for each is what takes the time.
        return torch.nn.utils.get_total_norm(gradients)
    norms = [_norm(g) for g in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return total


def _norm(gradient: Tensor) -> Tensor:
    # BLAS reads the memory of the gradients, which a CPU waits for, quicker than vector_norm does.
    if gradient.dtype is torch.float32 and gradient.is_contiguous():
        flat = gradient.view(-1)
        return torch.dot(flat, flat).sqrt()
    # In half precision a norm would be rounded to three digits.
    half = gradient.dtype in (torch.float16, torch.bfloat16)
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float32 if half else None)
    return norm


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterChange:
    """How far parameters have moved.

    Attributes:
        value: root mean square of the change over all values of all tensors. Equation 12.
        published: mean over tensors of the root mean square change of each, so that a bias of
            ten values weighs as much as a matrix of a million, as in the published scripts.
        per_tensor: root mean square change of each tensor, |dW|_2 / sqrt(number of values).
    """

    value: float
    published: float
    per_tensor: Mapping[str, float]


def parameter_change(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> ParameterChange | None:
    """Return how far parameters have moved from one state to another; None without parameters.

    method.md, equation 12.

    Args:
        before: name -> values.
        after: the same names and shapes.

    Example:
        >>> change = parameter_change({"w": torch.zeros(4)}, {"w": torch.full((4,), 0.5)})
        >>> change.value, change.per_tensor
        (0.5, {'w': 0.5})
    """
    if not before:
        return None
    # Sums of squares in one transfer: a GPU would be waited for once per tensor otherwise.
    squares = torch.stack(
        [
            (after[name].detach().float() - old.float()).square().sum(dtype=torch.float32)
            for name, old in before.items()
        ]
    ).tolist()
    sizes = [old.numel() for old in before.values()]
    per_tensor = {
        name: math.sqrt(square / size) if size else 0.0
        for name, square, size in zip(before, squares, sizes, strict=True)
    }
    return ParameterChange(
        value=math.sqrt(math.fsum(squares) / sum(sizes)) if sum(sizes) else 0.0,
        published=math.fsum(per_tensor.values()) / len(per_tensor),
        per_tensor=per_tensor,
    )


# Accuracies that are equal on paper differ in their last digits, and 90 of 100 in float32, as
# metrics of many frameworks are, is below 0.9.
_SAME = 1e-6


class Convergence:
    """Says when a series of validations has met its target. method.md, equation 11.

    An accuracy is met at the first validation that shows it. A plateau is met when accuracy has
    not risen by more than `min_delta` above its best for `patience` epochs.

    Args:
        target: what is to be met.

    Example:
        >>> from resque.history.records import Plateau
        >>> run = Convergence(Plateau(patience=1, min_delta=0.01))
        >>> [run.met_by(epoch, accuracy) for epoch, accuracy in enumerate([0.5, 0.7, 0.705])]
        [False, False, True]
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._best = -math.inf
        self._best_epoch = 0.0

    def met_by(self, epoch: float, accuracy: float) -> bool:
        """Add the accuracy found after so many epochs and return whether the target is met."""
        if isinstance(self.target, Accuracy):
            return accuracy >= self.target.value - _SAME
        if accuracy > self._best + self.target.min_delta + _SAME:
            self._best, self._best_epoch = accuracy, epoch
            return False
        return epoch - self._best_epoch >= self.target.patience - 1e-9
