"""Real trainings with other frameworks' trainers: their updates are those of a plain loop."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from resque.errors import InputError, MissingExtraError, ResqueWarning
from resque.history.records import Accuracy, Plateau
from resque.history.store import History
from resque.history.update import Point, Update
from resque.measure.recorder import recording
from resque.measure.replay import replay_meter

pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

import lightning.pytorch as pl
import transformers

from resque.integrations import lightning as on_lightning
from resque.integrations import transformers as on_transformers

NEVER = Plateau(patience=100)
MEASURES = (
    "target", "ended", "reached", "epochs", "steps", "examples_seen", "accuracy_before",
    "peak_accuracy", "peak_epoch", "data",
)  # fmt: skip
ROUNDED = (
    "loss_before", "gradient_norm", "gradient_norm_last_batch", "parameter_change",
    "parameter_change_published",
)  # fmt: skip


def assert_same_update(expected: Update, actual: Update) -> None:
    """Compare measure for measure: counts and accuracies exactly, the others to rounding."""
    for name in MEASURES:
        assert getattr(expected, name) == getattr(actual, name), name
    for name in ROUNDED:
        assert_near(getattr(expected, name), getattr(actual, name), name)
    assert len(expected.curve) == len(actual.curve)
    for one, other in zip(expected.curve, actual.curve, strict=True):
        for name in set(Point.__slots__) - {"seconds", "joules"}:
            assert_near(getattr(one, name), getattr(other, name), name)
    changes = sorted(expected.parameter_change_per_tensor.values())
    assert pytest.approx(changes, rel=1e-5) == sorted(actual.parameter_change_per_tensor.values())


def assert_near(expected: float | None, actual: float | None, name: str) -> None:
    near = None if expected is None else pytest.approx(expected, rel=1e-5)
    assert near == actual, name


def plain(
    model: nn.Module,
    training: DataLoader[Any],
    validated: Callable[[], tuple[float, float]],
    losses_of: Callable[[list[Any]], Iterable[Tensor]],
    *,
    epochs: int,
    accumulate: int,
    clip_norm: float,
    rate: float,
    **options: Any,
) -> Update:
    """Train in a plain loop; `losses_of` gives the losses of a step's batches, which add up."""
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    with recording(model, meter="none", **options) as recorder:
        over = recorder.validation(*validated())
        for _ in range(0 if over else epochs):
            batches = list(training)
            for start in range(0, len(batches), accumulate):
                optimiser.zero_grad()
                total = torch.zeros(())
                for loss in losses_of(batches[start : start + accumulate]):
                    loss.backward()
                    total += loss.detach()
                recorder.step(total)
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
                optimiser.step()
            if recorder.validation(*validated()):
                break
    return recorder.update


# --- Lightning ----------------------------------------------------------------------------------


class Blobs:
    """A classifier as a user of Lightning writes it."""

    def __init__(self, *, loss: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.factor = loss

    def training_step(self, batch: Any, _: int) -> Tensor:
        inputs, labels = batch
        return self.factor * nn.functional.cross_entropy(self.model(inputs), labels)

    def validation_step(self, batch: Any, _: int) -> None:
        inputs, labels = batch
        scores = self.model(inputs)
        accuracy = (scores.argmax(1) == labels).float().mean()
        self.log("val_accuracy", accuracy)
        self.log("val_loss", nn.functional.cross_entropy(scores, labels))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Classifier(Blobs, pl.LightningModule):
    pass


@pytest.fixture
def loaders(labelled: Any) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training data of 180 examples in batches of 16, and validation data of 60 in two."""
    inputs, labels = map(torch.as_tensor, labelled)
    return (
        DataLoader(TensorDataset(inputs[:180], labels[:180]), batch_size=16),
        DataLoader(TensorDataset(inputs[180:], labels[180:]), batch_size=30),
    )


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run each test in an empty folder, which no training may leave a file in."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert [] == list(folder.iterdir())


def trainer_of(callback: Any, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "accelerator": "cpu",
            "callbacks": [callback],
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "gradient_clip_val": 0.5,
            "logger": False,
            "max_epochs": 3,
            "num_sanity_val_steps": -1,
        }
        | options
    )


def plain_lightning(
    training: DataLoader[Any], validation: DataLoader[Any], accumulate: int, **options: Any
) -> Update:
    model = Classifier()
    inputs, labels = validation.dataset.tensors  # type: ignore[attr-defined]

    def validated() -> tuple[float, float]:
        with torch.no_grad():
            scores = model.model(inputs)
        loss = nn.functional.cross_entropy(scores, labels).item()
        return (scores.argmax(1) == labels).float().mean().item(), loss

    return plain(
        model,
        training,
        validated,
        # Lightning divides by the number asked for, also in a last step that has fewer.
        lambda batches: (model.training_step(batch, 0) / accumulate for batch in batches),
        epochs=3,
        accumulate=accumulate,
        clip_norm=0.5,
        rate=0.1,
        **options,
    )


@pytest.mark.parametrize(("accumulate", "target"), [(1, NEVER), (5, NEVER), (1, Accuracy(0.9))])
def test_lightning_agrees_with_a_plain_loop(loaders: Any, accumulate: int, target: Any) -> None:
    """Steps, epochs, gradient norm, parameter change and accuracies, each as of a plain loop."""
    callback = on_lightning.UpdateCallback(target, monitor_loss="val_loss", meter="none")
    trainer = trainer_of(callback, accumulate_grad_batches=accumulate)
    trainer.fit(Classifier(), *loaders)
    data = replace(
        callback.update.data, batch_size=16 * accumulate, steps_per_epoch=math.ceil(12 / accumulate)
    )
    assert (180, 60, 3) == (data.training_examples, data.validation_examples, data.classes)
    expected = plain_lightning(*loaders, accumulate, target=target, data=data)
    assert_same_update(expected, callback.update)
    assert isinstance(target, Accuracy) == callback.update.reached
    assert "Classifier" == callback.update.signature.model
    # The optimiser took the steps that were recorded: where the target is met it stops.
    assert trainer.global_step == callback.update.steps


def test_scaled_losses_and_gradients_are_unscaled_in_lightning(loaders: Any) -> None:
    """In half precision they are 1024 times as large, and are recorded as they would be."""
    updates = []
    for plugins in ([], [half_precision()]):
        callback = on_lightning.UpdateCallback(NEVER, meter="none")
        trainer_of(callback, max_epochs=1, plugins=plugins).fit(Classifier(), *loaders)
        updates.append(callback.update)
    whole, half = updates
    # bfloat16 keeps 8 bits.
    assert pytest.approx(whole.gradient_norm, rel=0.02) == half.gradient_norm
    assert pytest.approx(whole.curve[1].training_loss, rel=0.02) == half.curve[1].training_loss


def half_precision() -> Any:
    plugin = pl.plugins.MixedPrecision("bf16-mixed", "cpu")
    # Lightning gives a scaler to float16 alone, which processors do not train in.
    plugin.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return plugin


def test_lightning_trains_on_where_asked(loaders: Any) -> None:
    """The update ends at its target, the training at its own end."""
    callback = on_lightning.UpdateCallback(Accuracy(0.9), stop=False, meter="none")
    trainer = trainer_of(callback)
    trainer.fit(Classifier(), *loaders)
    assert 36 == trainer.global_step
    assert (True, 12) == (callback.update.reached, callback.update.steps)


def test_lightning_stops_before_training_where_the_target_is_met(loaders: Any) -> None:
    """Zero steps, also by the trainer's count."""
    callback = on_lightning.UpdateCallback(Accuracy(0.1), meter="none")
    trainer = trainer_of(callback)
    trainer.fit(Classifier(), *loaders)
    assert (0, 0, True) == (trainer.global_step, callback.update.steps, callback.update.reached)


def test_a_sanity_check_of_some_batches_is_no_accuracy(loaders: Any) -> None:
    """One batch of two is not what the model could do before."""
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    trainer_of(callback, num_sanity_val_steps=1, max_epochs=1).fit(Classifier(), *loaders)
    assert callback.update.accuracy_before is None
    assert [1.0] == [point.epoch for point in callback.update.curve]


def test_lightning_validates_within_an_epoch(loaders: Any) -> None:
    """The limits and intervals of the trainer are those of the record."""
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    trainer = trainer_of(
        callback,
        val_check_interval=0.5,
        limit_train_batches=4,
        limit_val_batches=1,
        max_epochs=2,
    )
    trainer.fit(Classifier(), *loaders)
    update = callback.update
    assert [0.0, 0.5, 1.0, 1.5, 2.0] == [point.epoch for point in update.curve]
    assert (64, 30, 128) == (
        update.data.training_examples, update.data.validation_examples, update.examples_seen,
    )  # fmt: skip


def test_lightning_tells_the_energy_of_validation_apart(loaders: Any) -> None:
    """36 batches of 1 s and six of half a second, at 100 W; the sanity check costs nothing."""
    now = [0.0]
    trace = [(tick / 4, {"cpu": 25.0 * tick}) for tick in range(1000)]

    class Slow(Classifier):
        def training_step(self, batch: Any, _: int) -> Tensor:
            now[0] += 1
            return super().training_step(batch, _)

        def validation_step(self, batch: Any, _: int) -> None:
            now[0] += 0.5
            super().validation_step(batch, _)

    callback = on_lightning.UpdateCallback(NEVER, meter=replay_meter(trace, clock=lambda: now[0]))
    trainer_of(callback).fit(Slow(), *loaders)
    update = callback.update
    assert update.energy is not None
    assert update.training_energy is not None
    assert update.validation_energy is not None
    assert (3900.0, 3600.0, 300.0) == (
        update.energy.joules, update.training_energy.joules, update.validation_energy.joules,
    )  # fmt: skip


def test_a_loss_that_is_no_number_stops_lightning(loaders: Any) -> None:
    """Training ends without an exception, and the update says why."""
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    trainer = trainer_of(callback)
    trainer.fit(Classifier(loss=math.nan), *loaders)
    assert ("diverged", 1) == (callback.update.ended, callback.update.steps)
    assert 1 == trainer.global_step


def test_an_exception_in_lightning_leaves_an_interrupted_update(
    loaders: Any, tmp_path: Path
) -> None:
    """It goes through, and the history does not get what was not finished."""

    class Fails(Classifier):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                raise RuntimeError("the third batch")

    history = History(f"sqlite:///{tmp_path}/updates.db")
    callback = on_lightning.UpdateCallback(NEVER, meter="none", history=history)
    with pytest.raises(RuntimeError, match="the third batch"):
        trainer_of(callback).fit(Fails(), *loaders)
    assert ("interrupted", 3) == (callback.update.ended, callback.update.steps)
    assert 0 == len(history)


def test_lightning_adds_the_update_to_a_history(loaders: Any, tmp_path: Path) -> None:
    """By its URL, with the words of the user."""
    url = f"sqlite:///{tmp_path}/updates.db"
    callback = on_lightning.UpdateCallback(
        NEVER, meter="none", history=url, labels={"shift": "none"}, class_names=("a", "b", "c")
    )
    trainer_of(callback, max_epochs=1).fit(Classifier(), *loaders)
    assert [callback.update] == list(History(url).updates(labels={"shift": "none"}))
    assert ("a", "b", "c") == callback.update.data.class_names


def test_one_callback_records_one_training_after_the_other(loaders: Any) -> None:
    """The second update knows nothing of the first."""
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    updates = []
    for _ in range(2):
        trainer_of(callback, max_epochs=1).fit(Classifier(), *loaders)
        updates.append(callback.update)
    assert_same_update(*updates)


def test_validating_and_testing_alone_records_nothing(loaders: Any) -> None:
    """Only training makes an update."""
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    trainer = trainer_of(callback, max_epochs=1)
    trainer.fit(Classifier(), *loaders)
    before = callback.update
    trainer.validate(Classifier(), loaders[1], verbose=False)
    assert before == callback.update


def test_a_checkpoint_that_is_gone_on_from_is_noted(loaders: Any, tmp_path: Path) -> None:
    """What came before it is not in the record."""
    model = Classifier()
    first = trainer_of(on_lightning.UpdateCallback(NEVER, meter="none"), max_epochs=1)
    first.fit(model, *loaders)
    first.save_checkpoint(tmp_path / "last.ckpt")
    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    trainer_of(callback, max_epochs=2).fit(
        model, *loaders, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert 12 == callback.update.steps
    assert any("from step 12 of a checkpoint" in note for note in callback.update.notes)


def test_a_metric_that_lightning_does_not_log(loaders: Any) -> None:
    """The message names what it does log, and the cure."""
    callback = on_lightning.UpdateCallback(NEVER, monitor="val_acc", meter="none")
    with pytest.raises(
        InputError, match=r"Expected 'val_acc'.*found 'val_accuracy', 'val_loss'.*monitor="
    ):
        trainer_of(callback).fit(Classifier(), *loaders)


def test_lightning_with_endless_data(loaders: Any) -> None:
    """An epoch cannot be told."""

    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            while True:
                yield torch.zeros(6), torch.tensor(0)

    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    endless = DataLoader(Endless(), batch_size=4)
    with pytest.raises(InputError, match="no length, so an epoch"):
        trainer_of(callback, max_steps=2).fit(Classifier(), endless, loaders[1])


def test_the_other_name_of_lightning(loaders: Any) -> None:
    """The callback serves a trainer of the package pytorch_lightning as well."""
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")

    class Other(Blobs, other.LightningModule):  # type: ignore[misc,name-defined]
        pass

    callback = on_lightning.UpdateCallback(NEVER, meter="none")
    other.Trainer(
        accelerator="cpu", callbacks=[callback], enable_checkpointing=False, logger=False,
        enable_model_summary=False, enable_progress_bar=False, max_epochs=1,
    ).fit(Other(), *loaders)  # fmt: skip
    assert 12 == callback.update.steps


# --- Hugging Face -------------------------------------------------------------------------------


class Sentences(Dataset[dict[str, Tensor]]):
    """Made-up sentences of 10 words, in which the class decides where most words come from."""

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n) % 2
        words = torch.randint(1, 25, (n, 10), generator=generator)
        self.words = words + 24 * self.labels[:, None] * (
            torch.rand(n, 10, generator=generator) < 0.5
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"input_ids": self.words[place], "labels": self.labels[place]}


TRAINING, VALIDATION = Sentences(90, 0), Sentences(40, 1)


def reader(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **options,
    )
    return transformers.BertForSequenceClassification(config)


class InOrder(transformers.Trainer):
    """A Trainer that does not shuffle, so that a plain loop sees the same batches."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset or self.train_dataset)


def accuracy_of(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def trainer_for(
    callback: Any, tmp_path: Path, model: nn.Module | None = None, **options: Any
) -> transformers.Trainer:
    model = model or reader()
    arguments = {
        "output_dir": str(tmp_path / "output"),
        "disable_tqdm": True,
        "eval_on_start": True,
        "eval_strategy": "epoch",
        "max_grad_norm": 0.03,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
    }
    optimiser = torch.optim.SGD(model.parameters(), 1.0, momentum=0.9)
    metrics = options.pop("compute_metrics", accuracy_of)
    return InOrder(
        model,
        transformers.TrainingArguments(**arguments | options),
        train_dataset=TRAINING,
        eval_dataset=VALIDATION,
        compute_metrics=metrics,
        callbacks=[callback],
        optimizers=(optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)),
    )


class Counter(nn.Module):
    """A model that divides its loss by the items of the whole step, as it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.EmbeddingBag(50, 2)

    def forward(
        self, input_ids: Tensor, labels: Tensor, num_items_in_batch: Any = None, **_: Any
    ) -> dict[str, Tensor]:
        logits = self.scores(input_ids)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        items = len(labels) if num_items_in_batch is None else num_items_in_batch
        return {"loss": loss / items, "logits": logits}


@pytest.mark.parametrize(
    ("make", "accumulate", "target"),
    [
        (reader, 1, NEVER),
        (reader, 5, NEVER),
        (reader, 1, Accuracy(0.6)),
        (Counter, 5, NEVER),
    ],
)
def test_the_trainer_agrees_with_a_plain_loop(
    tmp_path: Path, make: Callable[[], nn.Module], accumulate: int, target: Any
) -> None:
    """Its gradients are clipped before any callback sees them; the norms are those before."""
    callback = on_transformers.UpdateCallback(target, meter="none", class_names=("a", "b"))
    trainer = trainer_for(callback, tmp_path, make(), gradient_accumulation_steps=accumulate)
    # BERT takes the number of items and does not divide by it: no loop would do that.
    trainer.model_accepts_loss_kwargs = make is Counter
    trainer.train()
    model = make()
    data = replace(
        callback.update.data, batch_size=8 * accumulate, steps_per_epoch=math.ceil(12 / accumulate)
    )
    assert (90, 40, 2) == (data.training_examples, data.validation_examples, data.classes)

    def validated() -> tuple[float, float]:
        model.eval()
        with torch.no_grad():
            output = model(input_ids=VALIDATION.words, labels=VALIDATION.labels)
        model.train()
        right = (output["logits"].argmax(1) == VALIDATION.labels).numpy().mean()
        return float(right), output["loss"].item()

    def losses_of(batches: list[Any]) -> Iterable[Tensor]:
        examples = sum(len(batch["labels"]) for batch in batches)
        for batch in batches:
            share = len(batch["labels"]) / examples if make is Counter else 1 / len(batches)
            yield model(**batch)["loss"] * share

    expected = plain(
        model,
        DataLoader(TRAINING, batch_size=8),
        validated,
        losses_of,
        epochs=3,
        accumulate=accumulate,
        clip_norm=0.03,
        rate=1.0,
        target=target,
        data=data,
    )
    assert_same_update(expected, callback.update)
    assert callback.update.gradient_norm is not None
    assert callback.update.gradient_norm > 0.03
    assert trainer.state.global_step == callback.update.steps
    assert isinstance(target, Accuracy) == callback.update.reached
    assert type(model).__name__ == callback.update.signature.model
    # Nothing is left on the user's model.
    assert not trainer.model._forward_hooks
    assert not any(p._post_accumulate_grad_hooks for p in trainer.model.parameters())


def test_scaled_gradients_are_unscaled_in_the_trainer() -> None:
    """The hooks see them scaled; the norm of a step is that of the last state of each gradient."""
    layer = nn.Linear(2, 1, bias=False)
    watched = on_transformers._Watched(layer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(2):
        scaler.scale(layer(torch.tensor([3.0, 4.0])).sum()).backward()
    loss, norm = watched.taken(scaler)
    assert (None, 10.0) == (loss, norm.item())
    assert 0.0 == watched.taken(scaler)[1].item()


def test_the_trainer_trains_on_where_asked(tmp_path: Path) -> None:
    """The update ends at its target, the training at its own end."""
    callback = on_transformers.UpdateCallback(Accuracy(0.1), stop=False, meter="none")
    trainer = trainer_for(callback, tmp_path, num_train_epochs=1)
    trainer.train()
    assert (12, 0, True) == (
        trainer.state.global_step, callback.update.steps, callback.update.reached,
    )  # fmt: skip


def test_the_trainer_validates_within_an_epoch(tmp_path: Path) -> None:
    """Without eval_on_start nobody knows the accuracy before."""
    callback = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer_for(
        callback,
        tmp_path,
        eval_on_start=False,
        eval_strategy="steps",
        eval_steps=6,
        num_train_epochs=1,
    ).train()
    update = callback.update
    assert update.accuracy_before is None
    assert [0.5, 1.0] == [point.epoch for point in update.curve]
    assert 90 == update.examples_seen


def test_the_trainer_tells_the_energy_of_validation_apart(tmp_path: Path) -> None:
    """24 batches of 1 s and ten of half a second, at 100 W; what went before costs nothing."""
    now = [0.0]
    trace = [(tick / 4, {"cpu": 25.0 * tick}) for tick in range(1000)]

    class Slow(Counter):
        def forward(self, input_ids: Tensor, labels: Tensor, **named: Any) -> dict[str, Tensor]:
            now[0] += 1 if self.training else 0.5
            return super().forward(input_ids, labels, **named)

    callback = on_transformers.UpdateCallback(
        NEVER, meter=replay_meter(trace, clock=lambda: now[0])
    )
    trainer_for(callback, tmp_path, Slow(), num_train_epochs=2).train()
    update = callback.update
    assert update.energy is not None
    assert update.training_energy is not None
    assert update.validation_energy is not None
    # 40 examples in batches of 8.
    assert (2900.0, 2400.0, 500.0) == (
        update.energy.joules, update.training_energy.joules, update.validation_energy.joules,
    )  # fmt: skip


def test_a_loss_that_is_no_number_stops_the_trainer(tmp_path: Path) -> None:
    """Although the Trainer itself hides such losses from its log."""
    model = reader()
    with torch.no_grad():
        model.classifier.weight.fill_(math.nan)
    callback = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer = trainer_for(callback, tmp_path, model)
    trainer.train()
    assert ("diverged", 1) == (callback.update.ended, trainer.state.global_step)


def test_an_exception_in_the_trainer_is_for_the_user_to_tell(tmp_path: Path) -> None:
    """No hook hears of it; `interrupt` ends the record and takes the hooks off the model."""

    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise RuntimeError("the third step")

    callback = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer = trainer_for(callback, tmp_path)
    trainer.add_callback(Fails)
    with pytest.raises(RuntimeError, match="the third step"):
        trainer.train()
    with pytest.raises(InputError, match="has not ended"):
        callback.update  # noqa: B018
    callback.interrupt()
    assert ("interrupted", 3) == (callback.update.ended, callback.update.steps)
    assert not trainer.model._forward_hooks


def test_the_trainer_adds_the_update_to_a_history(tmp_path: Path) -> None:
    """Once, however often it evaluates afterwards."""
    history = History(f"sqlite:///{tmp_path}/updates.db")
    callback = on_transformers.UpdateCallback(NEVER, meter="none", history=history)
    trainer = trainer_for(callback, tmp_path, num_train_epochs=1)
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert [callback.update] == list(history)
    assert 2 == len(callback.update.curve)


def test_a_trainer_without_accuracy(tmp_path: Path) -> None:
    """The message says what to give it."""
    callback = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer = trainer_for(callback, tmp_path, compute_metrics=None)
    with pytest.raises(InputError, match=r"Expected 'eval_accuracy'.*compute_metrics"):
        trainer.train()


def test_a_second_meter_in_the_trainer_is_warned_of(tmp_path: Path) -> None:
    """The Trainer's own codecarbon is named; with meter="none" there is nothing to disturb."""
    meter = replay_meter([(0.0, {"cpu": 0.0})])
    for given, warned in ((meter, True), ("none", False)):
        callback = on_transformers.UpdateCallback(NEVER, meter=given)
        trainer = trainer_for(callback, tmp_path, num_train_epochs=1)
        # Said after the Trainer was made, lest codecarbon start here.
        trainer.args.report_to = ["codecarbon"]
        if warned:
            with pytest.warns(ResqueWarning, match=r"emissions\.csv.*report_to"):
                trainer.train()
        else:
            trainer.train()


def test_a_checkpoint_that_the_trainer_goes_on_from_is_noted(tmp_path: Path) -> None:
    """What came before it is not in the record."""
    first = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer_for(first, tmp_path, num_train_epochs=1, save_strategy="epoch").train()
    callback = on_transformers.UpdateCallback(NEVER, meter="none")
    trainer_for(callback, tmp_path, num_train_epochs=2).train(resume_from_checkpoint=True)
    assert 12 == callback.update.steps
    assert any("from step 12 of a checkpoint" in note for note in callback.update.notes)


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [on_lightning, on_transformers])
def test_several_devices_are_refused(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their number."""

    class Several:
        world_size = 4

    with pytest.raises(InputError, match="yet; got 4"):
        module._sizes_of(*([Several()] if module is on_lightning else [Several(), None]), ())


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("lightning", "lightning.pytorch", "lightning"), ("transformers", "transformers", "trainer")],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import of the callback says what to install."""
    monkeypatch.delitem(sys.modules, f"resque.integrations.{module}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{module}.*resque\[{extra}\]"):
        importlib.import_module(f"resque.integrations.{module}")
