"""The barest training loop: steps and validations, and nothing measured."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from resque import Recipe
from resque.measure.batches import TrainingData


def trained(
    model: nn.Module,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    recipe: Recipe,
    epochs: int,
    *,
    fused: bool,
) -> tuple[nn.Module, list[float]]:
    """Return a trained copy of a model and its validation accuracies, one before training.

    Args:
        model: left as it was.
        training: inputs and labels, on the model's device.
        validation: likewise.
        recipe: learning rate, batch size and seed; the batches are those that `retrain` draws.
        epochs: how long.
        fused: whether Adam is torch's fused one, as in `retrain`, or the one it gives by default.
    """
    model = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, fused=fused)
    batches = TrainingData.of(training, validation, recipe)
    autocast = getattr(torch, recipe.autocast) if recipe.autocast else None
    device = training[0].device.type

    @torch.no_grad()
    def accuracy() -> float:
        model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for inputs, labels in batches.validated():
            with torch.autocast(device, autocast, enabled=autocast is not None):
                correct += (model(inputs).argmax(1) == labels).sum()
        model.train()
        return correct.item() / len(validation[1])

    accuracies = [accuracy()]
    for epoch in range(epochs):
        for inputs, labels in batches.epoch(recipe.seed, epoch):
            with torch.autocast(device, autocast, enabled=autocast is not None):
                scores = model(inputs)
            loss = functional.cross_entropy(scores.float(), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        accuracies.append(accuracy())
    return model, accuracies
