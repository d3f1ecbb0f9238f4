"""Where training starts: with the weights as they are, a fresh classifier, or fresh weights."""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resque.errors import InputError
from resque.measure.batches import seeded
from resque.representation.stream import (
    arguments_of,
    device_of,
    moved,
    same_random_state,
    undisturbed,
    why_not_called,
)
from resque.representation.tap import Tap, logits_of, pooled

# Weights and biases of a final classifier and of two auxiliary ones.
_CLASSIFIER_TENSORS = 6


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
        seeded(seed)
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

    A model of timm, torchvision or transformers, or a part that is one, gets the weights of
    another one that its library builds. Elsewhere every module draws its weights anew by its own
    `reset_parameters`, PyTorch's convention, and the model by its own `init_weights` or
    `_init_weights`. What a constructor of your own does beyond that is not known here: give
    `untrained` then.

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
        seeded(seed)
        if untrained is not None:
            return untrained().to(device)
        fresh = copied(model)
        with torch.no_grad():
            # What is still NaN in the end was reached by nothing.
            for parameter in fresh.parameters():
                parameter.fill_(torch.nan)
            _reset(fresh)
            _build_again(fresh)
    left = [name for name, parameter in fresh.named_parameters() if parameter.isnan().any()]
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
    positional = [moved(value, device) for value in positional]
    named = {key: moved(value, device) for key, value in named.items()}
    with same_random_state(device), undisturbed(model), torch.no_grad():
        tap = Tap(model)
        with tap:
            try:
                output = model(*positional, **named)
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
                raise InputError(why_not_called(model, positional, named, error)) from error
            if isinstance(output, Tensor) and (output.ndim > 2 or _is_rectified(output)):
                return "output", pooled(output, mask=named.get("attention_mask")).shape[1]
            try:
                _, representations = tap.read(output, named.get("attention_mask"))
            except InputError as error:
                raise InputError(
                    "The final classifier was not found, so it cannot be replaced or trained "
                    f"alone. Put one on the model yourself, such as nn.Sequential(model, "
                    f"nn.Linear({_width(output)}, classes)), and use start='weights' and "
                    "frozen='none'."
                ) from error
    return tap.layer.removeprefix("input:"), representations.shape[1]


def _is_rectified(output: Tensor) -> bool:
    """Whether vectors (batch, values) come out of a ReLU: features, and no scores of classes."""
    clipped = bool((output >= 0).all()) and bool((output == 0).any())
    # Probabilities can be 0 too.
    return clipped and not torch.allclose(output.sum(1), torch.ones_like(output[:, 0]), atol=1e-2)


def _width(output: Any) -> str:
    scores = logits_of(output)
    return "width" if scores is None else str(scores.shape[1])


def _reset(model: nn.Module) -> None:
    """Draw weights by the methods that modules have for it."""
    # Parts first, as when they are built: what a whole draws for its parts then stays.
    for module in reversed([*model.modules()]):
        reset = getattr(module, "reset_parameters", None) or getattr(
            module, "_reset_parameters", None
        )
        if callable(reset):
            reset()
    for name in ("_init_weights", "init_weights"):
        own = getattr(model, name, None)
        if not callable(own):
            continue
        needed = [
            p
            for p in inspect.signature(own).parameters.values()
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        if not needed:
            own()
        elif len(needed) == 1:
            model.apply(own)


def _build_again(model: nn.Module) -> None:
    """Copy the weights of new models that the libraries build into parts of the same kind."""
    done: set[int] = set()
    for module in model.modules():
        if id(module) in done:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about how they draw
            built = _another(module)
        if built is None:
            continue
        done |= {id(part) for part in module.modules()}
        drawn = built.state_dict()
        for name, tensor in module.state_dict().items():
            if name in drawn and drawn[name].shape == tensor.shape:
                tensor.copy_(drawn[name])


def _another(module: nn.Module) -> nn.Module | None:
    """Return a new model of the same kind from the library that a model is of, or None."""
    transformers = sys.modules.get("transformers")
    try:
        if transformers is not None and isinstance(module, transformers.PreTrainedModel):
            built: nn.Module = type(module)(copy.deepcopy(module.config))
            return built
        if type(module).__module__.startswith("timm."):
            return _another_of_timm(module)
        if type(module).__module__.startswith("torchvision.models."):
            return _another_of_torchvision(module)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        pass  # built in a way of its own: its modules' own methods have to do
    return None


def _another_of_timm(module: Any) -> nn.Module | None:
    import timm

    architecture = (getattr(module, "pretrained_cfg", None) or {}).get("architecture")
    if not architecture:
        return None
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    chosen = {"num_classes": module.num_classes}
    if first is not None:
        chosen["in_chans"] = first.in_channels
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size is not None:
        chosen["img_size"] = size
    built: nn.Module = timm.create_model(architecture, **chosen)
    return built


def _another_of_torchvision(module: nn.Module) -> nn.Module | None:
    """Return a new model of the builder whose weights have the same names and shapes.

    The classifier and those beside it may differ, where a user has put in new ones.
    """
    from torchvision import models

    own = {name: parameter.shape for name, parameter in module.named_parameters()}
    for builder in map(models.get_model_builder, models.list_models()):
        if inspect.signature(builder).return_annotation is not type(module):
            continue
        classes = [*own.values()][-1][0]
        with torch.device("meta"):
            shapes = {n: p.shape for n, p in builder(num_classes=classes).named_parameters()}
        same = sum(shapes.get(name) == shape for name, shape in own.items())
        if own.keys() <= shapes.keys() and same >= len(own) - _CLASSIFIER_TENSORS:
            built: nn.Module = builder(num_classes=classes)
            return built
    return None


class _WithHead(nn.Module):
    """An encoder, and a linear layer on its pooled output."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        if named:  # any key is an argument of this forward, but not of the body's
            inputs, named = arguments_of(self.body, named)  # type: ignore[assignment]
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
