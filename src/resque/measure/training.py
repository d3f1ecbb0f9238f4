"""One model in training: its steps and its validations, and nothing about when they happen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from resque.errors import InputError
from resque.history.records import Recipe
from resque.measure.augmentation import augmented
from resque.measure.starting import scores_of
from resque.representation.labels import checked_labels
from resque.representation.stream import arguments_of, device_of, moved, why_not_called


class Training:
    """A model, its optimiser and its schedule.

    Args:
        model: trained in place, on the device where it is.
        recipe: see `Recipe`.
        total_steps: length of the schedule.
        head: name of the final classifier, the only part trained where the recipe freezes the
            body.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, total_steps: int, head: str | None = None
    ) -> None:
        self.model, self.recipe, self.total_steps = model, recipe, total_steps
        self.device = device_of(model)
        self.head = model.get_submodule(head) if head is not None else None
        if self.head is not None:
            model.requires_grad_(False)
            self.head.requires_grad_(True)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError(
                "The model has no parameter that is trained: each has requires_grad=False."
            )
        self.optimiser = _optimiser(self.parameters, recipe)
        self.autocast = getattr(torch, recipe.autocast) if recipe.autocast else None
        scaled = self.autocast is torch.float16 and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.channels_last = self.device.type == "cuda"
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        self.steps = 0
        self.outputs = 0

    def loss_of(self, inputs: Any, labels: Any) -> Tensor:
        """Return the loss of one training batch, with the gradients of the parameters filled in."""
        if isinstance(inputs, Tensor):
            inputs = moved(inputs, self.device)
            inputs = augmented(inputs, self.recipe.augmentation)
        scores = self._scores(inputs)
        loss = functional.cross_entropy(scores.float(), _checked(labels, scores))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimiser)
        return loss.detach()

    def step(self) -> None:
        """Take one step with the gradients that are there."""
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.steps += 1

    @torch.no_grad()
    def validate(self, batches: Iterable[tuple[Any, Any]]) -> tuple[float, float]:
        """Return (accuracy, mean cross-entropy in nats) on labelled batches, in eval mode.

        Raises:
            InputError: a batch has no labels, or a label that the model has no output for.
        """
        self.model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        loss, n = torch.zeros((), dtype=wide, device=self.device), 0
        for inputs, labels in batches:
            scores = self._scores(inputs)
            targets = _checked(labels, scores)
            self.outputs = scores.shape[1]
            correct += (scores.argmax(1) == targets).sum()
            loss += functional.cross_entropy(scores.float(), targets, reduction="sum")
            n += len(targets)
        self.train()
        return correct.item() / n, loss.item() / n

    def train(self) -> None:
        """Put the model in training mode; a frozen body stays in eval mode, statistics and all."""
        if self.head is None:
            self.model.train()
        else:
            self.model.eval()
            self.head.train()

    def _scores(self, inputs: Any) -> Tensor:
        positional, named = arguments_of(self.model, inputs)
        positional = [self._placed(value) for value in positional]
        named = {key: self._placed(value) for key, value in named.items()}
        with self._precision():
            if self.steps:
                return scores_of(self.model(*positional, **named))
            try:
                return scores_of(self.model(*positional, **named))
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(why_not_called(self.model, positional, named, error)) from error

    def _placed(self, value: Any) -> Any:
        value = moved(value, self.device)
        if self.channels_last and isinstance(value, Tensor) and value.ndim == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    @contextmanager
    def _precision(self) -> Iterator[None]:
        if self.autocast is None:
            yield
            return
        with torch.autocast(self.device.type, self.autocast):
            yield

    def _schedule(self) -> float:
        """Return the share of the learning rate at this step."""
        done = min(self.steps / self.total_steps, 1.0)
        if self.recipe.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        return 1 - done if self.recipe.schedule == "linear" else 1.0


def _optimiser(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)


def _checked(labels: Any, scores: Tensor) -> Tensor:
    """Return labels as a tensor beside the scores (examples, classes), or say what is wrong."""
    if labels is None:
        raise InputError("The data have no labels; an update needs them.")
    # A tensor on the GPU was checked before it went there, and is not waited for again.
    if isinstance(labels, Tensor) and labels.device.type == "cuda":
        return labels
    checked = checked_labels(labels, len(scores))
    if len(checked) and int(checked.max()) >= scores.shape[1]:
        raise InputError(
            f"Label {int(checked.max())} has no output: the model has {scores.shape[1]}, for "
            f"labels 0 to {scores.shape[1] - 1}. For other classes give it a fresh classifier, "
            "Recipe(start='head')."
        )
    return checked.to(scores.device, non_blocking=True)
