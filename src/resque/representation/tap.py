"""Which layer of a model is read, and how its output becomes one vector per example."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from resque.errors import InputError, nearest

Pooling = Literal["auto", "mean", "class_token", "flatten", "none"]

Layout = Literal["channels_first", "channels_last", "tokens"]

# Layers that put channels before space or time, whatever the rest of the model does.
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.GroupNorm,
)


def pooled(
    raw: Tensor,
    pooling: Pooling = "auto",
    *,
    mask: Tensor | None = None,
    layout: Layout | None = None,
) -> Tensor:
    """Return one vector per example from the raw output of a layer.

    method.md, equation 1. The pooling is part of the definition of an index: numbers from
    different poolings are not comparable.

    Args:
        raw: output of the layer: (batch, values), (batch, tokens, values), or a map
            (batch, channels, height, width) with any number of spatial axes.
        pooling: "auto" and "mean" average over space or tokens and leave vectors alone;
            "class_token" takes the first token; "flatten" keeps every value, as one published
            variant does; "none" insists that the layer already gives vectors.
        mask: (batch, tokens), nonzero where a token is real; padding is left out of the mean.
        layout: which axis of `raw` holds the channels; None reads three axes as
            (batch, tokens, values) and four or more as (batch, channels, ...).

    Returns:
        Representations (batch, values).

    Raises:
        InputError: `raw` has no batch axis, or the pooling does not fit its shape.

    Example:
        >>> import torch
        >>> pooled(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """
    if raw.ndim < 2:
        raise InputError(
            f"The layer gave shape {tuple(raw.shape)}; expected a batch of vectors, tokens or "
            "maps. Choose a layer before the batch is reduced."
        )
    if pooling == "flatten":
        return raw.flatten(1)
    if pooling == "none":
        if raw.ndim != 2:
            raise InputError(
                f"pooling='none' needs a layer that gives (batch, values); it gave "
                f"{tuple(raw.shape)}. Use pooling='mean' or 'flatten'."
            )
        return raw
    if pooling == "class_token":
        if raw.ndim != 3:
            raise InputError(
                f"pooling='class_token' needs tokens (batch, tokens, values); the layer gave "
                f"{tuple(raw.shape)}. Use pooling='mean'."
            )
        return raw[:, 0]
    if raw.ndim == 2:
        return raw
    if layout is None:
        layout = "tokens" if raw.ndim == 3 else "channels_first"
    if layout == "channels_first":
        return raw.flatten(2).mean(2)
    tokens = raw.flatten(1, -2)
    if mask is None or layout == "channels_last":
        return tokens.mean(1)
    if mask.shape != tokens.shape[:2]:
        raise InputError(
            f"The attention mask has shape {tuple(mask.shape)}, the layer gave "
            f"{tuple(raw.shape)}; they must agree in batch and tokens. Use pooling='class_token', "
            "or choose a layer with one vector per token of the mask."
        )
    weight = mask.to(tokens.device, tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)


class Tap:
    """Reads one layer of a model while the model runs, and knows what that layer depends on.

    Used as a context manager around the model's calls; it leaves no hook behind. The first
    call also finds the default layer and the order in which modules run: that costs hooks,
    no second call.

    Args:
        model: the model, in eval mode.
        layer: dotted name of a module, whose output is read; "input:NAME" for what goes into
            it; "output" for what the model itself returns. None finds the final classifier
            and reads its input.
        pooling: see `pooled`.

    Raises:
        InputError: no module of that name (the nearest names are given).
    """

    def __init__(self, model: nn.Module, layer: str | None = None, pooling: str = "auto") -> None:
        if pooling not in get_args(Pooling):
            raise InputError(
                f"pooling={pooling!r} is unknown; expected one of {', '.join(get_args(Pooling))}."
            )
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError(
                "A TorchScript module has no layers that can be read; give the nn.Module that it "
                "was made from."
            )
        self.model = model
        self.pooling = cast("Pooling", pooling)
        self.pooling_done = self.pooling
        self._modules = dict(model.named_modules())
        self._names = {id(module): name for name, module in self._modules.items()}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._captured: list[Any] = []
        self._called: list[str] = []  # in the first run of the model, in order
        self._called_before_tap: list[str] | None = None
        self._last_weighted: list[tuple[str, Any]] = []  # at most one: the last layer with weights
        self._outputs: dict[str, Any] = {}  # of what may be the classifier, in the first run
        self._ran = False
        self._layer = self._requested(layer)

    @property
    def layer(self) -> str:
        """Name of the layer that is read: "NAME", "input:NAME" or "output".

        Raises:
            RuntimeError: the default layer is not known before the model has run once.
        """
        if self._layer is None:
            raise RuntimeError("The default layer is found by the first call of the model.")
        return self._layer

    def __enter__(self) -> Tap:
        for name, module in self._modules.items():
            self._handles.append(
                module.register_forward_pre_hook(self._before_call(name), with_kwargs=True)
            )
            if self._layer is None and _outputs_of(module) is not None:
                self._handles.append(module.register_forward_hook(self._after_call(name)))
        self._hook_target()
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_hooks()

    def read(self, output: Any, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (raw, representations) of the call of the model that just ended.

        Args:
            output: what the model returned.
            mask: attention mask (batch, tokens) of the batch, if it had one.

        Raises:
            InputError: the layer was not called, was called more than once, or gave no tensor;
                or there is no final classifier to be found.
        """
        if not self._ran:
            if self._layer is None:
                self._layer = self._find_default(output)
                calls = self._called.count(self._layer.removeprefix("input:"))
                self._captured = [given for _, given in self._last_weighted] * calls
            self._finish_discovery()
        raw = (
            self._output_tensor(output)
            if self._layer == "output"
            else self._only_tensor(self._captured)
        )
        self._captured.clear()
        self._last_weighted.clear()
        if self.pooling in ("auto", "mean"):
            # What was done counts, not what was asked for: a mean over nothing is none.
            self.pooling_done = "none" if raw.ndim == 2 else "mean"
        return raw, pooled(raw, self.pooling, mask=mask, layout=self._layout(raw))

    def weights_digest(self) -> str:
        """Return 16 hex digits of the SHA-256 of all that the layer depends on.

        Parameters and buffers of modules that run only after the layer are left out, so a
        fresh head leaves the digest alone. Counters of batches seen are left out too: they
        change nothing in eval mode.
        """
        return weights_digest(
            {n: module for n, module in self._modules.items() if self._runs_before_tap(n)}
        )

    def _requested(self, layer: str | None) -> str | None:
        if layer is None:
            return self._classifier_by_convention()
        name = layer.removeprefix("input:")
        if layer in self._modules and layer:
            return layer
        if layer == "output" or (layer.startswith("input:") and name in self._modules and name):
            return layer
        raise InputError(
            f"The model has no layer {name!r}.{nearest(name, self._modules)} "
            f"It has {len(self._modules) - 1} layers; the last ones are "
            f"{_listed([key for key in self._modules if key][-8:])}."
        )

    def _classifier_by_convention(self) -> str | None:
        """Return the tap that timm's own interface names, or None where there is none."""
        get_classifier = getattr(self.model, "get_classifier", None)
        if not callable(get_classifier):
            return None
        try:
            classifier = get_classifier()
        except TypeError:  # a method of the user's own that happens to have timm's name
            return None
        # Distilled transformers have two heads; the first reads the class token.
        if isinstance(classifier, tuple | list):
            classifier = classifier[0]
        if isinstance(classifier, nn.Linear | nn.Conv2d):
            name = self._names.get(id(classifier))
            return f"input:{name}" if name else None
        if getattr(self.model, "num_classes", None) == 0:
            return "output"
        return None

    def _find_default(self, output: Any) -> str:
        if _field(output, "logits") is None and _field(output, "last_hidden_state") is not None:
            return "output"
        logits = output if isinstance(output, Tensor) else _field(output, "logits")
        if logits is None:
            raise InputError(
                f"The model returned {_described(output)}, not one tensor of class scores; name "
                f"the layer to read. {self._choices()}"
            )
        if self._last_weighted and isinstance(logits, Tensor):
            name, _ = self._last_weighted[0]
            if logits.ndim == 2 and logits.shape[1] == _outputs_of(self._modules[name]):
                given = self._outputs.get(name)
                twice = self._called.count(name) > 1  # which is refused with its own message
                if twice or (isinstance(given, Tensor) and _same_ranking(given, logits)):
                    return f"input:{name}"
        raise InputError(
            "No final classifier was found: the last layer with weights that ran does not give "
            f"the model's output of shape {_described(logits)}. Name the layer. {self._choices()}"
        )

    def _finish_discovery(self) -> None:
        if self._called_before_tap is None:
            target = self.layer.removeprefix("input:")
            # The default classifier was found after the fact: all that ran before it counts.
            self._called_before_tap = (
                self._called[: self._called.index(target)]
                if self._layer != "output" and target in self._called
                else list(self._called)
            )
        self._ran = True
        self._outputs.clear()
        self._remove_hooks()
        self._hook_target()

    def _runs_before_tap(self, name: str) -> bool:
        before = cast("list[str]", self._called_before_tap)
        while True:
            if name in before:
                return True
            if name in self._called or not name:
                return False
            # Weights that a parent uses without calling the child (attention projections).
            name = name.rpartition(".")[0]

    def _before_call(self, name: str) -> Any:
        module = self._modules[name]
        # The weights of a parametrised layer (weight norm) belong to a module inside it.
        weighted = "parametrizations" not in name.split(".") and (
            hasattr(module, "parametrizations") or any(True for _ in module.parameters(False))
        )

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._called.append(name)
            if weighted and self._layer is None:
                given = args[0] if args else next(iter(kwargs.values()), None)
                self._last_weighted[:] = [(name, given)]

        return hook

    def _after_call(self, name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], result: Any) -> None:
            self._outputs.clear()
            self._outputs[name] = result

        return hook

    def _hook_target(self) -> None:
        if self._layer is None or self._layer == "output":
            return
        target = self._modules[self._layer.removeprefix("input:")]

        def note_order(called: list[str]) -> None:
            if self._called_before_tap is None:
                self._called_before_tap = called

        if self._layer.startswith("input:"):

            def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                # The hook that notes the order ran first and has already noted this layer.
                note_order(self._called[:-1])
                self._captured.append(_kept(args[0] if args else next(iter(kwargs.values()), None)))

            self._handles.append(target.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(_: nn.Module, __: tuple[Any, ...], result: Any) -> None:
                note_order(list(self._called))
                self._captured.append(_kept(result))

            self._handles.append(target.register_forward_hook(after))

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _only_tensor(self, captured: list[Any]) -> Tensor:
        if not captured:
            raise InputError(
                f"The layer {self.layer!r} is never called when the model runs. {self._choices()}"
            )
        if len(captured) > 1:
            count = len(captured)
            self._captured.clear()
            raise InputError(
                f"The layer {self.layer!r} is called {count} times in one run of the model, so "
                f"it gives {count} outputs. Choose a layer that is called once. {self._choices()}"
            )
        if not isinstance(captured[0], Tensor):
            raise InputError(
                f"The layer {self.layer!r} gives {_described(captured[0])}, not one tensor. "
                f"{self._choices()}"
            )
        return captured[0]

    def _output_tensor(self, output: Any) -> Tensor:
        hidden = _field(output, "last_hidden_state")
        found = output if isinstance(output, Tensor) else hidden
        if not isinstance(found, Tensor):
            raise InputError(
                f"The model returned {_described(output)}, not one tensor. {self._choices()}"
            )
        return found

    def _layout(self, raw: Tensor) -> Layout | None:
        module = self._modules.get(self.layer.removeprefix("input:"))
        if self._layer != "output" and isinstance(module, _CHANNELS_FIRST):
            return "channels_first"
        if raw.ndim == 3:
            return "tokens"
        # Subclasses of LayerNorm exist that normalise maps (channels first), so no isinstance.
        if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
            return "channels_last"
        # Swin's maps are (batch, height, width, channels); timm says so, torchvision does not.
        says_so = getattr(self.model, "output_fmt", None) == "NHWC"
        known = type(self.model).__module__ == "torchvision.models.swin_transformer"
        return "channels_last" if says_so or known else None

    def _choices(self) -> str:
        leaves = [name for name in self._modules if name and not [*self._modules[name].children()]]
        once = [name for name in self._called if name in leaves and self._called.count(name) == 1]
        return f"Layers to choose from, last ones first: {_listed((once or leaves)[:-13:-1])}."


def weights_digest(modules: Mapping[str, nn.Module]) -> str:
    """Return 16 hex digits of the SHA-256 of the own parameters and buffers of named modules."""
    digest = hashlib.sha256()
    for name, module in modules.items():
        own = [*module.named_parameters("", recurse=False), *module.named_buffers("", False)]
        for key, tensor in sorted(own, key=lambda item: item[0]):
            if key == "num_batches_tracked":
                continue
            digest.update(f"{name}.{key}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            data = tensor.detach().cpu().contiguous().reshape(-1)
            if data.numel():
                digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _kept(value: Any) -> Any:
    """Return a copy of a tensor that a later layer may write to, as ReLU(inplace=True) does."""
    return value.clone() if isinstance(value, Tensor) else value


def _outputs_of(module: nn.Module) -> int | None:
    """Return how many classes a classifier tells apart; None if it can be no classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        return module.out_channels
    return None


def _same_ranking(given: Tensor, scores: Tensor) -> bool:
    """Whether a layer's output orders the classes as the model's scores (batch, classes) do.

    Softmax, scaling and averaging over space keep that order; a sum of two heads does not.
    """
    finite = torch.isfinite(scores).all(1)  # the others are refused later, by their place
    given, scores = given[finite], scores[finite]
    if given.ndim == 4:  # a convolution of size 1, averaged after it or after a ReLU
        candidates = [given.mean((2, 3)), given.relu().mean((2, 3))]
    elif given.ndim == 3:  # one row of scores per token, of which the model picks one
        return bool((given == scores[:, None]).all(-1).any(1).all())
    else:
        candidates = [given]
    for candidate in candidates:
        if candidate.shape == scores.shape:
            ordered = scores.gather(1, candidate.argsort(1)).float()
            slack = 1e-5 * scores.float().abs().amax(1, keepdim=True)
            if bool((ordered.diff(dim=1) >= -slack).all()):
                return True
    return False


def _field(output: Any, name: str) -> Any:
    if isinstance(output, Mapping):
        return output.get(name)
    return getattr(output, name, None)


def logits_of(output: Any) -> Tensor | None:
    """Return the class scores (batch, classes) in what a model returned, or None."""
    found = output if isinstance(output, Tensor) else _field(output, "logits")
    return found if isinstance(found, Tensor) and found.ndim == 2 else None


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {_listed(list(map(str, value)))}"
    if isinstance(value, tuple | list):
        inside = ", ".join(type(item).__name__ for item in value)
        return f"a {type(value).__name__} of ({inside})"
    return f"a {type(value).__name__}"


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) if names else "none"
