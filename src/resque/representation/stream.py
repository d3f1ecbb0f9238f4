"""Batches in; representations, labels and class scores out, in one pass over the data."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque.errors import InputError, in_words
from resque.representation.labels import checked_labels
from resque.representation.signature import Signature, hardware_name, installed_version
from resque.representation.sources import IdentifiedBatch, Source
from resque.representation.tap import Tap, logits_of

LABEL_KEYS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of data gave.

    Attributes:
        raw: output of the tapped layer before pooling, (batch, ...).
        representations: (batch, values), on the model's device.
        labels: (batch,) int64 on the CPU; None where the data have none.
        logits: class scores (batch, classes); None where the model gives none.
        ids: (batch,) integers or strings that say which example is which.
        start: place of the first example of the batch in the pass.
    """

    raw: Tensor
    representations: Tensor
    labels: Tensor | None
    logits: Tensor | None
    ids: np.ndarray
    start: int


class Stream:
    """One pass of a model over a source; iterate over it once, then ask for the signature.

    The model runs in eval mode, without gradients, where it already is; afterwards it is as it
    was: training modes, gradient flags, buffers, hooks, and the random state of torch, numpy
    and Python.

    Args:
        model: the model; None where the source gives representations.
        source: see `sources.as_source`.
        layer: see `Tap`.
        pooling: see `tap.pooled`.
        autocast: torch.bfloat16 or torch.float16 to run the model under autocast; None not to.
        model_name: name for people; by default the model's own.
        preprocessing: what was done to the images, for the signature.
        progress: show a progress bar on stderr, if that is a terminal.

    Raises:
        InputError: the data or the model cannot be used; raised while iterating.
    """

    def __init__(
        self,
        model: nn.Module | None,
        source: Source,
        *,
        layer: str | None = None,
        pooling: str = "auto",
        autocast: torch.dtype | None = None,
        model_name: str | None = None,
        preprocessing: str | None = None,
        progress: bool = False,
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise InputError(
                f"The model must be a torch.nn.Module; got {type(model).__name__}. For "
                "representations that are already there, pass model=None."
            )
        if model is None and (layer is not None or pooling != "auto"):
            raise InputError(
                "layer and pooling need a model; without one the data are the representations."
            )
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise InputError(
                f"autocast must be torch.bfloat16 or torch.float16, or None; got {autocast!r}."
            )
        self.model = unwrapped(model)
        for name, tensor in _values_of(self.model):
            if tensor.is_meta:
                raise InputError(
                    f"{name} is on the meta device and has no values; load the weights first."
                )
        self.source = source
        self.autocast = autocast
        self.progress = progress
        self.examples = 0
        self._model_name = model_name or name_of_model(self.model)
        self._preprocessing = preprocessing or source.preprocessing
        self._tap = Tap(self.model, layer, pooling) if self.model is not None else None
        self._device = device_of(self.model)
        self._width = 0
        self._dtype = ""
        self._unread: dict[str, None] = {}

    def __iter__(self) -> Iterator[Batch]:
        with ExitStack() as stack:
            stack.enter_context(same_random_state(self._device))
            stack.enter_context(torch.no_grad())
            if self.model is not None and self._tap is not None:
                stack.enter_context(undisturbed(self.model))
                stack.enter_context(_layers_called_one_by_one())
                stack.enter_context(self._tap)
            advance = stack.enter_context(_progress_bar(self.source.examples, self.progress))
            # Any exception also closes the loader, so that its workers do not outlive the pass.
            for data in self.source.batches:
                batch = self._batch(data)
                self.examples += len(batch.representations)
                yield batch
                advance(len(batch.representations))
        if self.examples == 0:
            raise InputError(
                "The data hold no examples; expected at least one batch with one example."
            )
        ids = self.source.ids
        if ids is not None and len(ids) != self.examples:
            raise InputError(
                f"There are {len(ids)} ids and {self.examples} examples; expected one id per "
                "example, in the order of the data."
            )

    def signature(self, class_names: tuple[str, ...], groups: int | None) -> Signature:
        """Return the signature of the pass that has just ended."""
        dtype = self._dtype
        if self.autocast is not None:
            dtype += f" (autocast {str(self.autocast).removeprefix('torch.')})"
        return Signature(
            model=self._model_name,
            weights=self._tap.weights_digest() if self._tap else None,
            layer=self._tap.layer if self._tap else "given",
            pooling=self._tap.pooling_done if self._tap else "given",
            preprocessing=self._preprocessing,
            width=self._width,
            class_names=class_names,
            examples=(self.examples,),
            dtype=dtype,
            groups=groups,
            hardware=hardware_name(self._device),
            version=installed_version(),
        )

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the data, once the pass has ended."""
        notes = (*self.source.notes, *self.source.notes_after(self.examples))
        if not self._unread:
            return notes
        return (
            *notes,
            (
                f"The batches have {', '.join(map(repr, self._unread))}, which nothing read: the "
                "model's forward does not take it, and labels are looked for under "
                f"{', '.join(LABEL_KEYS)}."
            ),
        )

    def _batch(self, data: Any) -> Batch:
        ids = np.asarray(data.ids) if isinstance(data, IdentifiedBatch) else None
        inputs, labels = split_batch(data)
        if self.model is None or self._tap is None:
            raw = _as_tensor(inputs)
            if raw.ndim != 2:
                raise InputError(
                    f"Representations must be (examples, values); got shape {tuple(raw.shape)}. "
                    "Give a model as well if these are its inputs."
                )
            representations, logits = raw, None
        else:
            positional, named = arguments_of(self.model, inputs)
            if labels is None and isinstance(inputs, Mapping) and named:
                self._unread |= dict.fromkeys(key for key in inputs if key not in named)
            if self.source.shares_memory:
                positional = [value.clone() for value in positional]
            positional = [moved(value, self._device) for value in positional]
            named = {key: moved(value, self._device) for key, value in named.items()}
            output = self._call(positional, named)
            mask = named.get("attention_mask")
            raw, representations = self._tap.read(output, mask)
            logits = logits_of(output)
            if logits is not None and len(logits) != len(representations):
                raise InputError(
                    f"The layer {self._tap.layer!r} gives {len(representations)} rows for "
                    f"{len(logits)} examples; it works on parts of them, or on several "
                    "together. Choose a layer that gives one row per example."
                )
        n = len(representations)
        checked = None if labels is None else checked_labels(labels, n, self.examples)
        self._check_width(representations)
        return Batch(
            raw=raw,
            representations=representations,
            labels=checked,
            logits=logits,
            ids=ids if ids is not None else self.source.ids_of(self.examples, n),
            start=self.examples,
        )

    def _call(self, positional: list[Any], named: dict[str, Any]) -> Any:
        model = self.model
        assert model is not None  # noqa: S101  # narrows the type; _batch has checked it
        try:
            if self.autocast is None:
                return model(*positional, **named)
            with torch.autocast(self._device.type, self.autocast):
                return model(*positional, **named)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            IndexError,
            KeyError,
            AssertionError,
            NotImplementedError,
        ) as error:
            raise InputError(why_not_called(model, positional, named, error)) from error

    def _check_width(self, representations: Tensor) -> None:
        width = representations.shape[1]
        if width == 0:
            raise InputError("The representations have no values: their width is 0.")
        if not representations.is_floating_point():
            raise InputError(
                f"Representations must be floating point; got {representations.dtype}."
            )
        if self._width not in (0, width):
            raise InputError(
                f"Representations have {width} values in the batch that starts at example "
                f"{self.examples}, and {self._width} before it; all must have the same width. "
                "With flattened maps or tokens, give all inputs the same size or use "
                "pooling='mean'."
            )
        self._width = width
        self._dtype = str(representations.dtype).removeprefix("torch.")


def not_finite(example: int, name: Any = None) -> InputError:
    """Return the error for a representation that is not finite.

    Args:
        example: place of the example in the pass.
        name: its id, told if it is a text, such as the name of a file.
    """
    told = f"{example} ({str(name)!r})" if isinstance(name, str) else str(example)
    return InputError(
        f"The representation or the output of example {told} contains NaN or infinity. Look at "
        "that example and at the model's precision (float16 overflows at 65504; try bfloat16)."
    )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; afterwards its modes and buffers are as they were."""
    modes = {module: module.training for module in model.modules()}
    # Some models write to their buffers in eval mode too, or make new ones.
    buffers = [
        (module, [(k, b, None if b is None else b.clone()) for k, b in module._buffers.items()])
        for module in model.modules()
    ]
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for module, own in buffers:
            module._buffers.clear()
            for key, buffer, value in own:
                # Writing counts as a change to autograd, so only what differs is put back.
                if buffer is not None and value is not None and not torch.equal(buffer, value):
                    buffer.copy_(value)
                module._buffers[key] = buffer
        for parameter, requires_grad in flags.items():
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


@contextmanager
def _layers_called_one_by_one() -> Iterator[None]:
    # torch's fused transformer layer passes its parts by and packs tokens into another layout
    # when it sees no hooks, so that a later batch would read differently from the first.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def same_random_state(device: torch.device) -> Iterator[None]:
    """Put the random states of Python, numpy and torch back afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one
    try:
        # Seeding torch seeds every GPU that is in use, not only the model's.
        in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpus = list(range(torch.cuda.device_count())) if in_use else []
        gpus = gpus or ([device.index or 0] if device.type == "cuda" else [])
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def _progress_bar(total: int | None, wanted: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    # rich takes FORCE_COLOR for a terminal; a log file wants no moving bar all the same.
    if not (wanted and console.is_terminal and sys.stderr.isatty()):
        yield lambda _: None
        return
    columns = (
        TextColumn("examples"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("examples", total=total)
        yield lambda n: progress.advance(task, n)


def split_batch(data: Any) -> tuple[Any, Any]:
    """Return (inputs, labels) of one batch; labels None where it has none."""
    if isinstance(data, IdentifiedBatch):
        return data.inputs, data.labels
    if isinstance(data, Mapping):
        found = [key for key in LABEL_KEYS if key in data]
        inputs = {key: value for key, value in data.items() if key not in found}
        return inputs, data[found[0]] if found else None
    if isinstance(data, tuple | list):
        if len(data) == 2:
            return data[0], data[1]
        if len(data) == 1:
            return data[0], None
        raise InputError(
            f"A batch must be (inputs, labels), a dict with the labels under one of "
            f"{', '.join(LABEL_KEYS)}, or inputs alone; got a {type(data).__name__} of "
            f"{len(data)}. Several inputs go into a tuple: ((first, second), labels)."
        )
    return data, None


def arguments_of(model: nn.Module, inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments that a batch of inputs is to a model.

    Raises:
        InputError: none of the batch's keys is an argument of the model's forward.
    """
    if isinstance(inputs, tuple | list):
        return [_as_tensor(value) for value in inputs], {}
    if not isinstance(inputs, Mapping):
        return [_as_tensor(inputs)], {}
    parameters = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = {
        key: _as_tensor(value)
        for key, value in inputs.items()
        if (open_ended or key in parameters) and not _is_text(value)
    }
    if accepted:
        return [], accepted
    if len(inputs) == 1:
        return [_as_tensor(next(iter(inputs.values())))], {}
    raise InputError(
        f"The batch has the keys {', '.join(map(repr, inputs))}; the model's forward takes "
        f"{', '.join(map(repr, parameters))}. Rename the keys to what forward takes."
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str)
    )


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A batch holds a {type(value).__name__} where a tensor or an array was expected; "
            "tokenise text and convert images first."
        ) from error


def moved(value: Any, device: torch.device) -> Any:
    """Return a tensor on a device, anything else as it is."""
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def why_not_called(
    model: nn.Module, positional: list[Any], named: dict[str, Any], error: Exception
) -> str:
    """Return the message for a model that could not be called with its inputs."""
    shapes = [str(tuple(v.shape)) for v in positional if isinstance(v, Tensor)]
    shapes += [f"{k}={tuple(v.shape)}" for k, v in named.items() if isinstance(v, Tensor)]
    reason = in_words(error)
    hint = "Check that the batches are what the model was trained on."
    if "out of memory" in reason:
        hint = "Give smaller batches (batch_size, --batch-size)."
    elif "expected input" in reason and "channels" in reason:
        hint = (
            "The images and the model differ in the number of channels; convert the images (on "
            "the command line --channels 3, or --channels 1 for a model of grey images)."
        )
    elif isinstance(error, TypeError) and "argument" in reason:
        takes = ", ".join(inspect.signature(model.forward).parameters)
        hint = (
            f"forward takes ({takes}). Give several inputs as ((first, second), labels), or as "
            "dicts with the names of forward's arguments."
        )
    elif "dtype" in reason or "type" in reason:
        hint = "Convert the inputs to the type of the model's weights, mostly float32."
    return f"The model could not be run on a batch of {', '.join(shapes)}: {reason}. {hint}"


def unwrapped(model: nn.Module | None) -> nn.Module | None:
    """Return the module inside the wrappers of torch.compile and data parallelism."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _values_of(model: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    if model is not None:
        yield from model.named_parameters()
        yield from model.named_buffers()


def device_of(model: nn.Module | None) -> torch.device:
    """Return where a model is; the CPU for None and for a model without values."""
    for _, tensor in _values_of(model):
        return tensor.device
    return torch.device("cpu")


def name_of_model(model: nn.Module | None) -> str:
    """Return what a model calls itself, or its class; "representations" for None."""
    if model is None:
        return "representations"
    for holder, key in (("pretrained_cfg", "architecture"), ("config", "_name_or_path")):
        value = getattr(model, holder, None)
        name = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        if isinstance(name, str) and name:
            return name.rstrip("/").rpartition("/")[2]
    return type(model).__name__
