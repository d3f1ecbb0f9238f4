"""Where training starts: with the weights as they are, a fresh classifier, or fresh weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resque.errors import InputError
from resque.representation.stream import (
    arguments_of,
    device_of,
    moved,
    same_random_state,
    undisturbed,
)
from resque.representation.tap import Tap, logits_of, pooled


def with_fresh_head(model: nn.Module, classes: int, inputs: Any, *, seed: int = 0) -> nn.Module:
    """Return a copy of a model whose final classifier is new, for another number of classes.

    A model of timm is asked to do it itself. Elsewhere the final linear layer, or convolution of
    size 1, is found as the index finds it and replaced; a model without one, such as an encoder,
    gets a linear layer on its pooled output.

    Args:
        model: left as it was.
        classes: outputs of the new classifier.
        inputs: one batch of inputs, which the model is called with once to find the classifier.
        seed: of the new weights.

    Raises:
        InputError: fewer than two classes, or the classifier cannot be found.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> with_fresh_head(model, 5, torch.zeros(1, 4))(torch.zeros(2, 4)).shape
        torch.Size([2, 5])
    """
    if classes < 2:
        raise InputError(f"A classifier needs at least two classes; got {classes}.")
    fresh, device = copied(model), device_of(model)
    with same_random_state(device):
        torch.manual_seed(seed)
        reset = getattr(fresh, "reset_classifier", None)
        if callable(reset) and callable(getattr(fresh, "get_classifier", None)):
            reset(classes)
            return fresh.to(device)
        layer, width = final_classifier(fresh, inputs)
        if layer == "output":
            return _WithHead(fresh, nn.Linear(width, classes)).to(device)
        old = fresh.get_submodule(layer)
        new: nn.Module
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(old.in_channels, classes, 1, bias=old.bias is not None)
        elif isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        else:
            raise InputError(
                f"The final classifier {layer!r} is a {type(old).__name__}; a fresh one can be "
                "made for a Linear or a Conv2d of size 1. Replace it yourself and use "
                "start='weights'."
            )
        parent, _, name = layer.rpartition(".")
        reference = next(old.parameters())
        setattr(fresh.get_submodule(parent), name, new.to(reference.device, reference.dtype))
    holders: tuple[Any, ...] = (fresh, getattr(fresh, "config", None))
    for holder in holders:
        if isinstance(getattr(holder, "num_labels", None), int):
            holder.num_labels = classes
    return fresh


def with_fresh_weights(
    model: nn.Module, *, seed: int = 0, untrained: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return a copy of a model with new random weights, as if it had never been trained.

    Every module draws its weights anew by its own `reset_parameters`, PyTorch's convention, and
    the model by its own `init_weights` where it has one (timm, transformers).

    Args:
        model: left as it was.
        seed: of the new weights.
        untrained: makes an untrained model of the same kind; for models with weights that no
            such method reaches.

    Raises:
        InputError: some weights have no such method, by name.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> bool((with_fresh_weights(model, seed=1).weight == model.weight).any())
        False
    """
    device = device_of(model)
    with same_random_state(device):
        torch.manual_seed(seed)
        if untrained is not None:
            return untrained().to(device)
        fresh = copied(model)
        reached: set[int] = set()
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(reset):
                reset()
                reached |= {id(parameter) for parameter in module.parameters()}
        before = {name: parameter.detach().clone() for name, parameter in fresh.named_parameters()}
        own = getattr(fresh, "init_weights", None)
        if callable(own):
            own()
    left = [
        name
        for name, parameter in fresh.named_parameters()
        if id(parameter) not in reached and torch.equal(parameter, before[name])
    ]
    if left:
        raise InputError(
            f"The weights {', '.join(map(repr, left[:3]))}{' and more' if len(left) > 3 else ''} "
            "have no reset_parameters and would stay trained. Give untrained=, a function that "
            "makes an untrained model of this kind."
        )
    return fresh


def final_classifier(model: nn.Module, inputs: Any) -> tuple[str, int]:
    """Return the name of the final classifier and how many values go into it.

    The name is "output" for a model without one.

    Args:
        model: called once with `inputs`, and left as it was.
        inputs: one batch.

    Raises:
        InputError: there is none to be found; the layers to choose from are listed.
    """
    device = device_of(model)
    positional, named = arguments_of(model, inputs)
    with same_random_state(device), undisturbed(model), torch.no_grad():
        tap = Tap(model)
        with tap:
            output = model(
                *(moved(value, device) for value in positional),
                **{key: moved(value, device) for key, value in named.items()},
            )
            _, representations = tap.read(output, named.get("attention_mask"))
    return tap.layer.removeprefix("input:"), representations.shape[1]


class _WithHead(nn.Module):
    """An encoder, and a linear layer on its pooled output."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        output = self.body(*inputs, **named)
        hidden = output if isinstance(output, Tensor) else output.last_hidden_state
        scores: Tensor = self.head(pooled(hidden, mask=named.get("attention_mask")))
        return scores


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Raises:
        InputError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"The model cannot be copied ({error}); training would change it. Detach the tensors "
            "that it keeps, or build it anew."
        ) from error


def scores_of(output: Any) -> Tensor:
    """Return the class scores (batch, classes) in what a model returned while it trains.

    Raises:
        InputError: it returned no such thing.
    """
    # Models with auxiliary heads return a tuple in training mode; the main head comes first.
    if isinstance(output, tuple) and not hasattr(output, "logits") and output:
        output = output[0]
    scores = logits_of(output)
    if scores is None:
        raise InputError(
            f"The model returned a {type(output).__name__}; training needs one row of class scores "
            "per example, a tensor (batch, classes) or an output with 'logits'."
        )
    return scores
