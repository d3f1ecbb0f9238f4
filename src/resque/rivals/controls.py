"""What a network costs whatever the data: operations and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resque.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def flops(model: nn.Module, inputs: Any) -> int:
    """Return the floating point operations of one forward pass, per example.

    Those of matrix products, convolutions and attention, a multiply-add being two; activations,
    normalisation and pooling count as nothing. They depend on the size of the inputs, padding
    included. A training step takes about three times as many. The model is left as it was.

    Args:
        model: the model, in any mode.
        inputs: inputs of one batch without labels: a tensor, a tuple of them, or a dict with
            the names of forward's arguments.

    Raises:
        InputError: there is no example, or the model cannot be run on the inputs.

    Example:
        >>> import torch
        >>> flops(torch.nn.Linear(10, 5), torch.zeros(4, 10))
        100
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from resque.representation.stream import (
        arguments_of,
        device_of,
        moved,
        same_random_state,
        undisturbed,
        unwrapped,
        why_not_called,
    )

    inner = unwrapped(model) or model
    device = device_of(inner)
    positional, named = arguments_of(inner, inputs)
    positional = [moved(value, device) for value in positional]
    named = {key: moved(value, device) for key, value in named.items()}
    first = next(iter([*positional, *named.values()]), None)
    examples = len(first) if first is not None and first.ndim else 0
    if examples == 0:
        raise InputError("The inputs hold no example; expected a batch with at least one.")
    fused = torch.backends.mha.get_fastpath_enabled()
    # torch counts nothing of its fused transformer layers, and of fused attention not all kinds.
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with (
            same_random_state(device),
            undisturbed(inner),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            counter,
        ):
            inner(*positional, **named)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
        raise InputError(why_not_called(inner, positional, named, error)) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return round(counter.get_total_flops() / examples)


def parameters(model: nn.Module) -> int:
    """Return the number of values in all parameters, frozen ones too, shared ones once.

    Args:
        model: the model.

    Example:
        >>> import torch
        >>> parameters(torch.nn.Linear(10, 5))
        55
    """
    return sum(parameter.numel() for parameter in model.parameters())
