"""The training loop: as a plain one does, the same each time, and nothing of the user's touched."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from resque import Accuracy, InputError, Plateau, Recipe
from resque.history.update import Update
from resque.measure.batches import TrainingData
from resque.measure.measures import parameter_change
from resque.measure.retrain import Retrained, retrain
from resque.measure.training import Training

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0.2).long() + (X[:, 1] > 0.3).long()
V = torch.randn(60, 6, generator=torch.Generator().manual_seed(2))
VY = (V[:, 0] > 0.2).long() + (V[:, 1] > 0.3).long()
TRAINING, VALIDATION = (X, Y), (V, VY)
LONG = Plateau(1000)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    )


def trained(
    model: nn.Module, recipe: Recipe, *, data: Any = TRAINING, target: Any = LONG, **options: Any
) -> Retrained:
    return retrain(
        model, data, VALIDATION, target=target, recipe=recipe, meter="none", progress=False,
        **options,
    )  # fmt: skip


def assert_same_update(expected: Update, actual: Update) -> None:
    """All but the clock, which no seed decides."""

    def timeless(update: Update) -> Update:
        curve = tuple(replace(point, seconds=None, joules=None) for point in update.curve)
        return replace(
            update,
            started="",
            duration_s=0.0,
            energy=None,
            training_energy=None,
            validation_energy=None,
            curve=curve,
        )

    assert timeless(expected).to_dict() == timeless(actual).to_dict()


def assert_same_weights(expected: nn.Module, actual: nn.Module) -> None:
    one, other = expected.state_dict(), actual.state_dict()
    assert [*one] == [*other]
    for name in one:
        assert torch.equal(one[name], other[name]), name


# ---- the same each time ------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["weights", "head", "scratch"])
def test_the_same_seed_gives_the_same_result_bit_for_bit(start: Any) -> None:
    """Whatever was drawn in between; another seed gives another result."""
    model, recipe = network(), Recipe(start=start, batch_size=16, max_epochs=3, seed=7)
    first = trained(model, recipe)
    torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
    second = trained(model, recipe)
    assert_same_update(first.update, second.update)
    assert_same_weights(first.model, second.model)
    other = trained(model, replace(recipe, seed=8))
    assert other.update.gradient_norm != first.update.gradient_norm


def test_the_users_things_are_left_as_they_were() -> None:
    """Model, gradients, modes, flags, random states and the generator of the loader."""
    model = network().eval()
    model[1].train()  # type: ignore[index]
    model[0].bias.requires_grad_(False)  # type: ignore[index]
    model(X).sum().backward()
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True, generator=generator)

    def states() -> list[Any]:
        return [
            [tensor.tolist() for tensor in model.state_dict().values()],
            [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            [p.requires_grad for p in model.parameters()],
            [part.training for part in model.modules()],
            generator.get_state().tolist(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
            random.getstate(),
        ]

    before = states()
    for start in ("weights", "head", "scratch"):
        trained(model, Recipe(start=start, max_epochs=2), data=loader)  # type: ignore[arg-type]
        assert before == states()


def test_the_result_is_ready_to_use() -> None:
    """In eval mode, with the flags it came with, no gradients, and weights that can be saved."""
    model = network()
    model[0].bias.requires_grad_(False)  # type: ignore[index]
    result = trained(model, Recipe(max_epochs=1, frozen="body"))
    assert not any(part.training for part in result.model.modules())
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in result.model.parameters()
    ]
    assert all(p.grad is None for p in result.model.parameters())


def test_saved_weights_are_the_best_ones(tmp_path: Path) -> None:
    """As safetensors, loadable into the model of the user."""
    result = trained(network(), Recipe(max_epochs=2))
    result.save_weights(tmp_path / "best.safetensors")
    fresh = network()
    fresh.load_state_dict(load_file(tmp_path / "best.safetensors"))
    assert_same_weights(result.model, fresh)


# ---- the same as a loop by hand ----------------------------------------------------------------


RECIPES = {
    "adam": Recipe(learning_rate=0.01, weight_decay=0.01),
    "adamw": Recipe(optimiser="adamw", learning_rate=0.01, weight_decay=0.1),
    "sgd": Recipe(optimiser="sgd", learning_rate=0.1, momentum=0.8, weight_decay=0.01),
    "cosine": Recipe(optimiser="sgd", learning_rate=0.1, schedule="cosine"),
    "linear": Recipe(optimiser="sgd", learning_rate=0.1, schedule="linear"),
    "clipping": Recipe(learning_rate=0.01, clip_norm=0.2),
    "bfloat16": Recipe(learning_rate=0.01, autocast="bfloat16"),
}


def by_hand(model: nn.Module, recipe: Recipe, data: Any) -> tuple[nn.Module, list[float]]:
    """Train as torch's tutorials do, with the same batches, and return the losses too.

    The optimisers are torch's fused ones, as in `retrain`: the others round otherwise, which
    Adam makes visible where clipped gradients are as small as its epsilon.
    """
    model = copy.deepcopy(model)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimiser: torch.optim.Optimizer = {
        "adam": lambda p: torch.optim.Adam(p, rate, weight_decay=decay, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, rate, weight_decay=decay, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, rate, recipe.momentum, weight_decay=decay, fused=True),
    }[recipe.optimiser](model.parameters())
    batches = TrainingData.of(data, VALIDATION, recipe)
    total = round(recipe.max_epochs * batches.sizes.steps_per_epoch)
    schedule: Any = None
    if recipe.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    if recipe.schedule == "linear":
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total)
    losses = []
    model.train()
    for epoch in range(round(recipe.max_epochs)):
        for inputs, labels in batches.epoch(recipe.seed, epoch):
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast is not None):
                scores = model(inputs)
            loss = nn.functional.cross_entropy(scores.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("loader", [False, True])
def test_it_trains_as_a_plain_loop_does(name: str, loader: bool) -> None:
    """The same losses, weights and change of them, with dropout and batch normalisation."""
    recipe = replace(RECIPES[name], batch_size=16, max_epochs=2)
    data: Any = TRAINING
    if loader:
        data = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
    model = network()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    expected, losses = by_hand(model, recipe, data)
    change = parameter_change(start, dict(expected.named_parameters()))
    assert change is not None
    update = trained(model, recipe, data=data).update
    assert 12 == len(losses) == update.steps
    for place, point in enumerate(update.curve[1:]):
        mean = np.mean(losses[6 * place : 6 * place + 6])
        assert point.training_loss == pytest.approx(mean, rel=1e-6)
    assert update.parameter_change == pytest.approx(change.value, rel=1e-5)
    expected.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bool(recipe.autocast)):
        right = (expected(V).argmax(1) == VY).float().mean().item()
    assert update.curve[-1].accuracy == pytest.approx(right, abs=1e-6)


def test_the_norm_is_that_before_clipping() -> None:
    """Otherwise a clipped training would report its own limit."""
    free, clipped = (
        trained(network_of_seed(), Recipe(max_epochs=0.1, batch_size=48, clip_norm=limit)).update
        for limit in (None, 1e-3)
    )
    assert free.gradient_norm == clipped.gradient_norm
    assert clipped.gradient_norm is not None
    assert clipped.gradient_norm > 0.1


def network_of_seed() -> nn.Module:
    torch.manual_seed(11)
    return network()


def test_the_best_weights_are_those_of_the_best_validation() -> None:
    """A learning rate far too high spoils what the first epochs had learned."""
    recipe = Recipe(optimiser="sgd", learning_rate=3.0, batch_size=16, max_epochs=8)
    result = trained(network(), recipe)
    assert result.update.curve[-1].accuracy < result.update.peak_accuracy  # type: ignore[operator]
    with torch.no_grad():
        right = (result.model(V).argmax(1) == VY).float().mean().item()
    assert right == pytest.approx(result.update.peak_accuracy)


# ---- what users have ---------------------------------------------------------------------------


class Dicts(Dataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"input": X[place], "label": Y[place], "text": "a word"}


FORMS = {
    "arrays": (X.numpy(), Y.numpy()),
    "TensorDataset": TensorDataset(X, Y),
    "Dataset of dicts": Dicts(),
    "Subset": Subset(TensorDataset(torch.cat([X, X]), torch.cat([Y, Y])), range(96)),
    "DataLoader": DataLoader(TensorDataset(X, Y), batch_size=96),
    "DataLoader of lists": DataLoader(TensorDataset(X, Y), batch_size=96, collate_fn=lambda batch: (
        np.stack([x.numpy() for x, _ in batch]), [int(y) for _, y in batch])),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_trains_alike(form: str) -> None:
    """In one batch per epoch there is no order, and the results differ by rounding at most."""
    model = nn.Linear(6, 3)
    recipe = Recipe(batch_size=96, max_epochs=3, learning_rate=0.05)
    expected = trained(model, recipe).update
    found = trained(model, recipe, data=FORMS[form], class_names=("0", "1", "2")).update
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert found.parameter_change == pytest.approx(expected.parameter_change, rel=1e-4)
    assert (3, 288) == (found.steps, found.examples_seen)


def test_batches_of_the_transformers_world_train() -> None:
    """Dicts of token ids, masks and labels, and a key that no model reads."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        num_labels=2,
    )
    ids = torch.randint(1, 20, (40, 6))
    rows = [
        {
            "input_ids": row,
            "attention_mask": torch.ones(6, dtype=torch.long),
            "labels": int(row[0] > 9),
            "idx": place,
        }
        for place, row in enumerate(ids)
    ]
    loader = DataLoader(rows, batch_size=8, shuffle=True)  # type: ignore[arg-type]
    recipe = Recipe(max_epochs=4, learning_rate=3e-3)
    for kind in ("BertForSequenceClassification", "BertModel"):
        model = getattr(transformers, kind)(config)
        started = replace(recipe, start="head" if kind == "BertModel" else "weights")
        result = retrain(
            model, loader, loader, target=LONG, recipe=started, meter="none",
            class_names=("low", "high"),
        )  # fmt: skip
        losses = [point.training_loss for point in result.update.curve[1:]]
        assert losses[-1] < losses[0]  # type: ignore[operator]
        assert 20 == result.update.steps


class TwoOutputs(nn.Module):
    """A main and an auxiliary head in training mode, as GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return (self.main(x), self.auxiliary(x)) if self.training else self.main(x)


def test_auxiliary_outputs_are_no_part_of_the_loss() -> None:
    """The main head learns; the other stays as it was."""
    model = TwoOutputs()
    result = trained(model, Recipe(max_epochs=2))
    assert torch.equal(model.auxiliary.weight, result.model.auxiliary.weight)  # type: ignore[union-attr]
    assert not torch.equal(model.main.weight, result.model.main.weight)  # type: ignore[union-attr]


# ---- when it ends ------------------------------------------------------------------------------


def test_four_validations_in_each_epoch() -> None:
    """Also where a quarter of an epoch is no whole number of steps: 10 steps, 2.5 each."""
    recipe = Recipe(batch_size=10, max_epochs=2, validation_interval=0.25)
    update = trained(network(), recipe, data=(X[:95], Y[:95])).update
    assert [0, 2, 5, 8, 10, 12, 15, 18, 20] == [point.steps for point in update.curve]
    assert [point.steps / 10 for point in update.curve] == [point.epoch for point in update.curve]


def test_an_interval_may_span_epochs_and_the_end_is_always_validated() -> None:
    """Every one and a half epochs of 6 steps, and at the last step."""
    recipe = Recipe(batch_size=16, max_epochs=3.5, validation_interval=1.5)
    update = trained(network(), recipe).update
    assert [0, 9, 18, 21] == [point.steps for point in update.curve]
    assert (3.5, "max_epochs", False) == (update.epochs, update.ended, update.reached)


def test_an_interval_below_a_step_validates_after_each() -> None:
    """More often than that there is nothing new to see."""
    recipe = Recipe(batch_size=48, max_epochs=2, validation_interval=0.01)
    assert [0, 1, 2, 3, 4] == [p.steps for p in trained(network(), recipe).update.curve]


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(0.7, 10, 7), (0.25, 16, 2), (1.1, 10, 11)])
def test_fractions_of_epochs_are_whole_steps(epochs: float, batch: int, steps: int) -> None:
    """0.7 x 10 is 7.000000000000001 in floating point, and still 7 steps."""
    n = 95 if batch == 10 else 96
    update = trained(
        network(), Recipe(max_epochs=epochs, batch_size=batch), data=(X[:n], Y[:n])
    ).update
    assert steps == update.steps


def test_a_target_is_met_in_the_middle_of_an_epoch() -> None:
    """Epochs are then no whole number, and training stops there."""
    recipe = Recipe(batch_size=8, learning_rate=0.02, max_epochs=20, validation_interval=0.25)
    update = trained(network_of_seed(), recipe, target=Accuracy(0.75)).update
    assert update.reached
    assert update.epochs == update.steps / 12 == update.curve[-1].epoch
    assert update.epochs % 1 != 0
    assert all(point.accuracy < 0.75 for point in update.curve[:-1])
    assert update.curve[-1].accuracy >= 0.75


def test_a_plateau_ends_a_patience_after_its_best() -> None:
    """With nothing to learn, that is after the patience itself."""
    recipe = Recipe(learning_rate=1e-12, batch_size=16, validation_interval=0.5)
    update = trained(network(), recipe, target=Plateau(1.5)).update
    assert ("plateau", 1.5) == (update.ended, update.epochs)


# ---- what is trained ---------------------------------------------------------------------------


def test_a_frozen_body_stays_as_it_is() -> None:
    """Its weights and its batch statistics; only the classifier's change is counted."""
    model = network()
    result = trained(model, Recipe(frozen="body", max_epochs=2, batch_size=16))
    before, after = model.state_dict(), result.model.state_dict()
    assert ["4.weight", "4.bias"] == [n for n in before if not torch.equal(before[n], after[n])]
    assert {"4.weight", "4.bias"} == {*result.update.parameter_change_per_tensor}
    assert 16 * 3 + 3 == result.update.trained_parameters


def test_a_frozen_body_with_a_fresh_head_trains_the_head_alone() -> None:
    """The usual first step of transfer learning, on an encoder without a head too."""
    encoder = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.ReLU())
    result = trained(encoder, Recipe(start="head", frozen="body", max_epochs=1))
    assert {"head.weight", "head.bias"} == {*result.update.parameter_change_per_tensor}
    assert torch.equal(encoder[1].weight, result.weights["body.1.weight"])


def test_what_the_user_has_frozen_stays_frozen() -> None:
    """Some layers by hand, without a word in the recipe."""
    model = network()
    model[0].requires_grad_(False)  # type: ignore[index]
    result = trained(model, Recipe(max_epochs=1))
    assert torch.equal(model[0].weight, result.model[0].weight)  # type: ignore[index]
    assert "0.weight" not in result.update.parameter_change_per_tensor


def test_from_scratch_stands_beside_retraining() -> None:
    """The same call: a model that knows the task starts well, fresh weights do not."""
    recipe = Recipe(learning_rate=0.02, max_epochs=30, batch_size=16)
    known = trained(network_of_seed(), recipe, target=Accuracy(0.85))
    again, scratch = (
        trained(known.model, replace(recipe, start=start, seed=3), target=Accuracy(0.85)).update
        for start in ("weights", "scratch")
    )
    assert again.reached
    assert scratch.reached
    assert again.epochs == 0 < scratch.epochs
    assert ("weights", "scratch") == (again.start, scratch.start)
    assert scratch.accuracy_before < again.accuracy_before  # type: ignore[operator]


def test_a_left_over_example_does_not_break_batch_normalisation() -> None:
    """97 examples in batches of 16 leave one."""
    data = torch.cat([X, X[:1] + 1]), torch.cat([Y, Y[:1]])
    for form in (data, TensorDataset(*data)):
        assert 6 == trained(network(), Recipe(batch_size=16, max_epochs=1), data=form).update.steps


def test_a_loader_that_leaves_one_example_says_what_to_do() -> None:
    """Its batches are the user's own, so they are not changed behind their back."""
    loader = DataLoader(TensorDataset(X[:49], Y[:49]), batch_size=16)
    with pytest.raises(InputError, match=r"holds a single example.*drop_last=True"):
        trained(network(), Recipe(max_epochs=1), data=loader)


# ---- augmentation ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flip", "flip_crop", "published"])
def test_augmentation_is_drawn_from_the_seed_and_for_training_only(how: Any) -> None:
    """Two runs draw the same; validation sees the images as they are."""
    if how == "published":
        pytest.importorskip("torchvision")
    images = torch.rand(24, 3, 8, 8)
    labels = torch.arange(24) % 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    recipe = Recipe(augmentation=how, max_epochs=1, batch_size=8)
    runs = [
        retrain(model, (images, labels), (images.flip(0), labels), target=LONG, recipe=recipe,
                meter="none").update
        for recipe in (recipe, recipe, replace(recipe, augmentation="none"))
    ]  # fmt: skip
    assert_same_update(runs[0], runs[1])
    assert runs[0].gradient_norm != runs[2].gradient_norm
    assert runs[0].loss_before == runs[2].loss_before


def test_augmentation_of_what_is_no_image_is_refused() -> None:
    """Vectors, and dicts whose images are not looked for."""
    with pytest.raises(InputError, match=r"the inputs have shape \(32, 6\)"):
        trained(network(), Recipe(augmentation="flip"))
    with pytest.raises(InputError, match=r"augmentation='flip' needs .* got a dict"):
        trained(
            nn.Linear(6, 3), Recipe(augmentation="flip"), data=Dicts(), class_names=("0", "1", "2")
        )


# ---- odds and ends -----------------------------------------------------------------------------


def test_random_transforms_of_validation_data_are_seeded_too() -> None:
    """From the very first validation on."""

    class Noisy(Dataset[Any]):
        targets = VY.tolist()

        def __len__(self) -> int:
            return len(V)

        def __getitem__(self, place: int) -> Any:
            return V[place] + torch.randn(6), self.targets[place]

    model = network()
    losses = []
    for _ in range(2):
        torch.rand(1)
        result = retrain(
            model, TRAINING, Noisy(), target=LONG, recipe=Recipe(max_epochs=2), meter="none"
        )
        losses.append([point.validation_loss for point in result.update.curve])
    assert losses[0] == losses[1]


def test_the_model_is_validated_in_eval_mode_and_trained_in_training_mode() -> None:
    """Also after validations in the middle of an epoch."""
    modes = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    trained(Watched(6, 3), Recipe(batch_size=48, max_epochs=1, validation_interval=0.5))
    off, on = (False, False), (True, True)
    assert [off, on, off, on, off] == modes


def test_compiled_and_wrapped_models_are_trained_inside() -> None:
    """The wrappers' names for weights do not leak into the result."""
    model = network()
    result = trained(nn.DataParallel(model), Recipe(max_epochs=1))
    assert [*model.state_dict()] == [*result.weights]
    assert "Sequential" == result.update.signature.model


def test_the_steps_are_counted_where_scores_are_not_asked_for_twice() -> None:
    """One call of the model per step, and one per batch of validation."""
    calls: list[int] = []

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    trained(Counted(6, 3), Recipe(batch_size=32, max_epochs=2))
    assert [60, 32, 32, 32, 60, 32, 32, 32, 60] == calls


def test_a_model_can_be_trained_on_without_retrain() -> None:
    """`Training` alone: a step lowers the loss of the batch that it was made with."""
    run = Training(nn.Linear(6, 3), Recipe(optimiser="sgd", learning_rate=0.1), 10)
    losses: Iterator[float] = ((run.backward(X, Y)[0].item(), run.step())[0] for _ in range(3))
    first, second, third = losses
    assert first > second > third


def test_the_record_has_the_batch_size_of_the_loader() -> None:
    """What was done counts, not what the recipe would have done."""
    loader = DataLoader(TensorDataset(torch.randn(40, 2), torch.arange(40) % 2), batch_size=10)
    update = retrain(
        nn.Linear(2, 2), loader, loader, target=Accuracy(1.0),
        recipe=Recipe(batch_size=4, max_epochs=1), meter="none",
    ).update  # fmt: skip
    assert (4, 10) == (update.steps, update.recipe.batch_size)


def test_more_outputs_than_classes_are_noted() -> None:
    """Labels 0 and 1 of a model with 1,000 outputs may be a mistake, and are told of."""
    data = torch.randn(40, 2), torch.arange(40) % 2
    update = retrain(
        nn.Linear(2, 1000), data, data, target=Accuracy(1.0),
        recipe=Recipe(max_epochs=1), meter="none",
    ).update  # fmt: skip
    told = "The model has 1000 outputs and the labels are 0 to 1"
    assert any(note.startswith(told) for note in update.notes)
    assert (1000, 2) == (update.signature.width, update.data.classes)


def test_a_target_that_is_none_is_refused_before_the_model_runs() -> None:
    """A bare number is the first thing that a newcomer types."""
    data = torch.randn(40, 2), torch.arange(40) % 2
    with pytest.raises(InputError, match=r"For an accuracy of 0\.9 say Accuracy\(0\.9\)"):
        retrain(nn.Linear(2, 2), data, data, target=0.9)
