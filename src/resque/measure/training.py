"""One model in training: its steps and its validations, and nothing about when they happen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from resque.errors import InputError
from resque.history.records import Recipe
from resque.measure.augmentation import augmented
from resque.measure.measures import gradient_norm
from resque.measure.starting import scores_of
from resque.representation.labels import checked_labels
from resque.representation.stream import arguments_of, device_of, moved, why_not_called


def most_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Return the steps after which an update that has not met its target is censored."""
    # 0.7 epochs of 10 steps are 7.000000000000001 in floating point.
    return max(math.ceil(recipe.max_epochs * steps_per_epoch - 1e-9), 1)


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

    def backward(self, inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Return (loss, global gradient norm) of one training batch, the gradients filled in."""
        if isinstance(inputs, np.ndarray):
            inputs = torch.as_tensor(inputs)
        if isinstance(inputs, Tensor):
            inputs = augmented(moved(inputs, self.device), self.recipe.augmentation)
        elif self.recipe.augmentation != "none":
            raise InputError(
                f"augmentation={self.recipe.augmentation!r} needs batches whose inputs are one "
                f"tensor of images; got a {type(inputs).__name__}. Use augmentation='none', and "
                "augment in the data set."
            )
        scores = self._scores(inputs)
        loss = functional.cross_entropy(scores.float(), _checked(labels, scores))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        norm = gradient_norm(self.parameters)
        return loss.detach(), norm / self.scaler.scale(torch.ones_like(norm))

    def step(self) -> None:
        """Take one step with the gradients that are there."""
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
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
            targets = _checked(labels, scores, wait=not self.steps)
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
            try:
                return scores_of(self.model(*positional, **named))
            except InputError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
                if "more than 1 value per channel" in str(error):
                    raise InputError(
                        "A training batch holds a single example, and batch normalisation needs "
                        "two. Give a loader with drop_last=True, or another batch size."
                    ) from error
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
    # One pass over the parameters instead of a dozen: benchmarks/training_loop.py has both.
    fused = all(
        p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for p in parameters
    )
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=fused
        )
    adam = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return adam(parameters, lr=rate, weight_decay=decay, fused=fused)


def _checked(labels: Any, scores: Tensor, *, wait: bool = False) -> Tensor:
    """Return labels as a tensor beside the scores (examples, classes), or say what is wrong.

    Labels on a GPU are looked at only where it may be waited for.
    """
    if labels is None:
        raise InputError("The data have no labels; an update needs them.")
    if isinstance(labels, Tensor) and labels.device.type == "cuda" and not wait:
        return labels
    checked = checked_labels(labels, len(scores))
    require_outputs(checked, scores.shape[1])
    return checked.to(scores.device, non_blocking=True)


def require_outputs(labels: Tensor, outputs: int) -> None:
    """Raise InputError if a label (examples,) is beyond the outputs of the model."""
    most = int(labels.max()) if len(labels) else -1
    if most >= outputs:
        raise InputError(
            f"Label {most} has no output: the model has {outputs}, for labels 0 to "
            f"{outputs - 1}. For other classes give it a fresh classifier, Recipe(start='head') "
            "(--start head)."
        )
