"""The pass: batches of every kind, the model left as it was, and what is refused."""

from __future__ import annotations

import io
import random
import re
import sys
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import resque
from resque import InputError
from resque.representation.sources import as_source
from resque.representation.stream import Batch, Stream

# Cutting a batch differently may round differently in the last bits of float32.
RTOL, ATOL = 1e-5, 1e-6


def stream_of(model: nn.Module | None, data: Any, **options: Any) -> list[Batch]:
    return list(Stream(model, as_source(data), **options))


def error_of(model: nn.Module | None, data: Any, **options: Any) -> str:
    """The message of the InputError that a pass must raise."""
    with pytest.raises(InputError) as caught:
        stream_of(model, data, **options)
    return str(caught.value)


def batches_of(inputs: Tensor, labels: Any, size: int = 4) -> list[tuple[Tensor, Any]]:
    return [(inputs[k : k + size], labels[k : k + size]) for k in range(0, len(inputs), size)]


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(12, 6)


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(12) % 3


def body(mlp: nn.Module, inputs: Tensor) -> Tensor:
    """What goes into the last layer of the shared classifier."""
    return torch.relu(mlp[0](inputs)).detach()


# ---- the model is left as it was -------------------------------------------------------------


class Meddler(nn.Module):
    """A model that does in eval mode, too, all that a model should not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last_mean", torch.zeros(6))
        self.register_buffer("spread", torch.zeros(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last_mean = x.mean(0)
        noise = torch.rand(1).item() + np.random.rand() + random.random()  # noqa: NPY002
        return self.head(self.body(x)) + 0 * noise


@pytest.fixture
def meddler() -> nn.Module:
    """In mixed modes, with a frozen layer, a gradient here and none there, and a hook."""
    model = Meddler().train()
    model.body[1].eval()
    model.body[0].weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.head.register_forward_hook(lambda *_: None)
    model.body.register_forward_pre_hook(lambda *_: None)
    model.register_full_backward_hook(lambda *_: None)
    return model


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a pass must not change, by value where values can change in place."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        state[f"{name} training"] = module.training
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            state[f"{name} {kind}"] = tuple(getattr(module, kind).values())
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        state[f"{name} flag"] = parameter.requires_grad
        state[f"{name} grad"] = grad if grad is None else (id(grad), grad.tolist())
        state[f"{name} value"] = (id(parameter), parameter.tolist())
    for name, module in model.named_modules():
        for key, buffer in module._buffers.items():
            kept = buffer if buffer is None else (id(buffer), buffer.tolist())
            state[f"{name}.{key} buffer"] = kept
    state["names"] = sorted(model.state_dict())
    state["torch"] = torch.get_rng_state().tolist()
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    state["numpy"] = (kind, words.tolist(), *rest)
    state["python"] = random.getstate()
    state["gradients"] = torch.is_grad_enabled()
    state["inference"] = torch.is_inference_mode_enabled()
    state["autocast"] = torch.is_autocast_enabled("cpu")
    return state


def assert_same_state(before: dict[str, Any], model: nn.Module) -> None:
    after = state_of(model)
    assert {*before} == {*after}
    changed = [key for key in before if before[key] != after[key]]
    assert not changed


def test_the_meddler_does_change_when_it_runs_by_itself(meddler: nn.Module) -> None:
    """Otherwise the tests below would show nothing."""
    before = state_of(meddler)
    meddler.eval()
    meddler(torch.randn(4, 6))
    after = state_of(meddler)
    changed = {key for key in before if before[key] != after[key]}
    assert {
        " training",
        ".calls buffer",
        ".last_mean buffer",
        "torch",
        "numpy",
        "python",
    } <= changed


def test_a_pass_leaves_the_model_as_it_was(
    meddler: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """Modes of every module, flags, gradients, buffers, hooks and the random state."""
    before = state_of(meddler)
    stream_of(meddler, batches_of(inputs, labels))
    assert_same_state(before, meddler)


def test_a_shuffling_loader_does_not_touch_the_random_state(
    meddler: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """It draws its seed from torch's generator, which is put back."""
    before = state_of(meddler)
    stream_of(meddler, DataLoader(TensorDataset(inputs, labels), batch_size=4, shuffle=True))
    assert_same_state(before, meddler)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt], ids=["failing data", "Ctrl-C"])
def test_a_pass_that_ends_early_leaves_the_model_as_it_was(
    meddler: nn.Module, inputs: Tensor, labels: Tensor, error: type[BaseException]
) -> None:
    """Whatever the data raise, in the first batch or in the middle, gets out unchanged."""
    before = state_of(meddler)
    for good in (0, 2):

        def data(good: int = good) -> Iterator[tuple[Tensor, Tensor]]:
            yield from batches_of(inputs, labels)[:good]
            raise error("stop")

        with pytest.raises(error, match="stop"):
            resque.profile(meddler, data())
        assert_same_state(before, meddler)


def test_a_model_that_fails_is_left_as_it_was(
    meddler: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """A batch of the wrong width in the middle ends the pass."""
    data = [*batches_of(inputs, labels), (torch.randn(4, 5), labels[:4])]
    before = state_of(meddler)
    assert "could not be run" in error_of(meddler, data)
    assert_same_state(before, meddler)


@pytest.mark.parametrize("batches", [1, 2])
def test_a_consumer_that_fails_leaves_the_model_as_it_was(
    meddler: nn.Module, inputs: Tensor, labels: Tensor, batches: int
) -> None:
    """An error of the profile itself, here a label without a name, also ends the pass."""
    before = state_of(meddler)
    wrong = labels.clone()
    wrong[4 * batches - 1] = 9
    with pytest.raises(InputError, match=f"Label 9 of example {4 * batches - 1}"):
        resque.profile(meddler, batches_of(inputs, wrong), class_names=["a", "b", "c"])
    assert_same_state(before, meddler)


def test_a_pass_that_is_left_in_the_middle_leaves_the_model_as_it_was(
    meddler: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """So does one whose reader simply stops reading."""
    before = state_of(meddler)
    for _ in Stream(meddler, as_source(batches_of(inputs, labels))):
        break
    assert_same_state(before, meddler)


def test_a_buffer_that_the_model_fills_is_empty_again(inputs: Tensor, labels: Tensor) -> None:
    """A cache that starts as None is part of the state dict once it is filled."""

    class Caching(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.register_buffer("cache", None)

        def forward(self, x: Tensor) -> Tensor:
            self.cache = x.mean(0)
            return super().forward(x)

    model = Caching()
    before = state_of(model)
    stream_of(model, (inputs, labels))
    assert_same_state(before, model)


def test_a_pass_does_not_break_a_graph_that_waits_for_its_backward(
    inputs: Tensor, labels: Tensor
) -> None:
    """autograd counts every write to a buffer that it has saved."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    loss = model(inputs).square().sum()
    stream_of(model, (inputs, labels))
    loss.backward()
    assert model[0].weight.grad is not None


def test_a_pass_leaves_nothing_in_inference_mode(
    mlp: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """The model can be trained on afterwards, and no tensor of the pass is of the locked kind."""
    for batch in stream_of(mlp, batches_of(inputs, labels)):
        tensors = (batch.raw, batch.representations, batch.logits, batch.labels)
        assert not any(tensor is not None and tensor.is_inference() for tensor in tensors)
        assert not batch.representations.requires_grad
    mlp(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_a_model_made_in_inference_mode_can_be_profiled(inputs: Tensor, labels: Tensor) -> None:
    """Its buffers may not be written to, so nothing may try."""
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    assert resque.profile(model, (inputs, labels)).examples == 12
    with torch.inference_mode():
        assert resque.profile(model, (inputs, labels)).examples == 12


def test_dropout_and_batch_norm_are_in_eval_mode(inputs: Tensor, labels: Tensor) -> None:
    """Two passes of a model in training mode agree, whatever the size of the batches."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model.train()
    whole = stream_of(model, batches_of(inputs, labels, 12))[0].representations
    parts = [b.representations for b in stream_of(model, batches_of(inputs, labels, 1))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("layer", [None, "0", "output"])
def test_the_model_is_called_once_per_batch(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, layer: str | None
) -> None:
    """Finding the layer costs no call of its own."""
    calls: list[int] = []
    mlp.register_forward_hook(lambda *args: calls.append(len(args[1][0])))
    stream_of(mlp, batches_of(inputs, labels, 5), layer=layer)
    assert calls == [5, 5, 2]


@pytest.mark.parametrize("kind", ["tensors", "arrays", "data set"])
def test_data_are_left_alone_by_a_model_that_writes_to_its_input(
    inputs: Tensor, labels: Tensor, kind: str
) -> None:
    """A first layer that works in place must not change what the user keeps."""
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3))
    kept = inputs.clone()
    data: Any = (inputs, labels)
    if kind == "arrays":
        data = (inputs.numpy(), labels.numpy())
    elif kind == "data set":
        data = TensorDataset(inputs, labels)
    first = resque.profile(model, data)
    assert torch.equal(kept, inputs)
    np.testing.assert_array_equal(first.by_label.sums, resque.profile(model, data).by_label.sums)


def test_users_hooks_still_run(mlp: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """A hook that changes what a layer gives changes the representation."""
    mlp[1].register_forward_hook(lambda *args: 2 * args[2])
    found = stream_of(mlp, [(inputs, labels)])[0].representations
    torch.testing.assert_close(found, 2 * body(mlp, inputs), rtol=RTOL, atol=ATOL)


# ---- what a batch may be ---------------------------------------------------------------------


Pair = namedtuple("Pair", "inputs labels")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        Pair,
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: (x, y.tolist()),
        lambda x, y: (x, tuple(y)),
        lambda x, y: ((x,), y),
        lambda x, y: ([x], y),
        lambda x, y: (x, y.to(torch.uint8)),
        lambda x, y: (x, y.to(torch.int32)),
        lambda x, y: {"input": x, "labels": y},
        lambda x, y: {"input": x, "label": y},
        lambda x, y: {"input": x, "targets": y},
        lambda x, y: {"input": x, "target": y},
        lambda x, y: {"input": x, "y": y},
        lambda x, y: {"input": x, "name": ["text"] * len(x), "labels": y},
        lambda x, y: {"pixels": x, "labels": y},
        lambda x, y: UserDict({"input": x, "labels": y}),
    ],
)
def test_a_labelled_batch_may_be_a_pair_or_a_mapping(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, wrap: Callable[[Tensor, Tensor], Any]
) -> None:
    """Of tensors, arrays or lists; the labels come out as integers, everything in its order."""
    found = stream_of(mlp, [wrap(x, y) for x, y in batches_of(inputs, labels, 5)])
    representations = torch.cat([batch.representations for batch in found])
    torch.testing.assert_close(representations, body(mlp, inputs), rtol=RTOL, atol=ATOL)
    scores = torch.cat([batch.logits for batch in found])
    torch.testing.assert_close(scores, mlp(inputs).detach(), rtol=RTOL, atol=ATOL)
    assert labels.tolist() == torch.cat([batch.labels for batch in found]).tolist()
    assert {torch.int64} == {batch.labels.dtype for batch in found}
    assert [batch.start for batch in found] == [0, 5, 10]
    assert list(range(12)) == np.concatenate([batch.ids for batch in found]).tolist()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: x.numpy(),
        lambda x: (x,),
        lambda x: [x],
        lambda x: (x, None),
        lambda x: {"input": x},
    ],
)
def test_an_unlabelled_batch_may_be_bare_or_wrapped(
    mlp: nn.Module, inputs: Tensor, wrap: Callable[[Tensor], Any]
) -> None:
    """Inputs alone have no labels."""
    found = stream_of(mlp, [wrap(inputs[:8]), wrap(inputs[8:])])
    assert [batch.labels for batch in found] == [None, None]
    representations = torch.cat([batch.representations for batch in found])
    torch.testing.assert_close(representations, body(mlp, inputs), rtol=RTOL, atol=ATOL)


class TwoInputs(nn.Module):
    """A classifier of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(self.left(a) * self.right(b))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b, y: ((a, b), y),
        lambda a, b, y: ([a, b], y),
        lambda a, b, y: {"b": b, "a": a, "y": y},
    ],
    ids=["tuple", "list", "dict"],
)
def test_several_inputs_come_as_a_nested_pair_or_by_name(
    inputs: Tensor, labels: Tensor, wrap: Callable[[Tensor, Tensor, Tensor], Any]
) -> None:
    """((a, b), labels), or a dict with the names of forward's arguments."""
    model, other = TwoInputs(), torch.randn(12, 4)
    (found,) = stream_of(model, [wrap(inputs, other, labels)])
    expected = (model.left(inputs) * model.right(other)).detach()
    torch.testing.assert_close(found.representations, expected, rtol=RTOL, atol=ATOL)
    assert labels.tolist() == found.labels.tolist()


def test_a_model_that_needs_two_inputs_says_so(inputs: Tensor, labels: Tensor) -> None:
    """The message names forward's arguments and how to give them."""
    message = error_of(TwoInputs(), (inputs, labels))
    assert "could not be run on a batch of (12, 6)" in message
    assert "forward takes (a, b)" in message
    assert "((first, second), labels)" in message


class TextEncoder(nn.Module):
    """A bare encoder: tokens in, one vector per token out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.received: set[str] = set()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.embedding(input_ids)
        return {"last_hidden_state": hidden + attention_mask.sum(1)[:, None, None]}


class OpenEncoder(TextEncoder):
    """One that takes whatever comes, and notes it."""

    def forward(self, input_ids: Tensor, **more: Tensor) -> dict[str, Tensor]:
        self.received |= {*more}
        return super().forward(input_ids, more["attention_mask"])


@pytest.mark.parametrize("kind", [TextEncoder, OpenEncoder])
def test_a_dict_of_tokens_is_pooled_with_its_mask(kind: type[TextEncoder]) -> None:
    """Keys that forward does not take are left out, and so is padding."""
    model, tokens, lengths = kind(), torch.randint(0, 50, (6, 5)), [5, 3, 1, 4, 2, 5]
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    batch = {
        "input_ids": tokens,
        "attention_mask": mask,
        "labels": torch.arange(6) % 2,
        "idx": torch.arange(6),
        "text": ["some text"] * 6,
    }
    (found,) = stream_of(model, [batch])
    hidden = model.embedding(tokens).detach()
    expected = torch.stack([hidden[k, :n].mean(0) + n for k, n in enumerate(lengths)])
    torch.testing.assert_close(found.representations, expected, rtol=RTOL, atol=ATOL)
    assert found.logits is None
    assert {"attention_mask", "idx"} == model.received or kind is TextEncoder


class Bag(nn.Module):
    """A text classifier of all tokens in one row and where each text begins."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.EmbeddingBag(50, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        return self.head(self.embedding(tokens, offsets))


class TimeFirst(nn.Module):
    """A recurrent classifier whose inputs are (tokens, batch), as torch has them by default."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(50, 8), nn.LSTM(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[1][0][0])


@pytest.mark.parametrize("labelled", [True, False])
def test_inputs_need_not_have_one_row_per_example(labels: Tensor, labelled: bool) -> None:
    """Text often comes as one long row, or with time first; what counts is what comes out."""
    tokens, offsets = torch.randint(0, 50, (20,)), torch.tensor([0, 5, 12])
    sequences = torch.randint(0, 50, (7, 3))
    told = labels[:3] if labelled else None
    bag, recurrent = Bag(), TimeFirst()
    (found,) = stream_of(bag, [((tokens, offsets), told)])
    expected = bag.embedding(tokens, offsets).detach()
    torch.testing.assert_close(found.representations, expected, rtol=RTOL, atol=ATOL)
    (found,) = stream_of(recurrent, [(sequences, told)])
    expected = recurrent.lstm(recurrent.embedding(sequences))[1][0][0].detach()
    torch.testing.assert_close(found.representations, expected, rtol=RTOL, atol=ATOL)


def test_keys_that_do_not_fit_are_named() -> None:
    """Both what the batch has and what forward takes."""
    message = error_of(TextEncoder(), [{"tokens": torch.zeros(2, 3), "mask": torch.ones(2, 3)}])
    assert "keys 'tokens', 'mask'" in message
    assert "takes 'input_ids', 'attention_mask'" in message


def test_a_batch_of_three_is_ambiguous(mlp: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """Which of them are inputs is not guessed."""
    message = error_of(mlp, [(inputs, inputs, labels)])
    assert "got a tuple of 3" in message
    assert "((first, second), labels)" in message


def test_text_must_be_tokenised_first(mlp: nn.Module) -> None:
    """A batch of what is neither tensor nor array says what to do."""
    message = error_of(mlp, [(["a text", "another"], [0, 1])])
    assert "tokenise text" in message


def test_an_empty_batch_among_others_does_no_harm(
    mlp: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """A loader that drops examples may hand on a batch of none."""
    empty = (inputs[:0], labels[:0])
    parts = batches_of(inputs, labels)
    expected = resque.profile(mlp, parts, class_names="abc")
    found = resque.profile(mlp, [empty, parts[0], empty, *parts[1:]], class_names="abc")
    assert expected.examples == found.examples
    np.testing.assert_array_equal(expected.by_label.sums, found.by_label.sums)


# ---- wrappers, precision, the same result in every batch ---------------------------------------


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compiled", "parallel"])
def test_a_wrapped_model_is_the_model_inside(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, wrap: Callable[[nn.Module], Any]
) -> None:
    """Layers have the same names and the weights the same digest."""
    expected = resque.profile(mlp, (inputs, labels))
    found = resque.profile(wrap(mlp), (inputs, labels))
    assert expected.signature == found.signature
    np.testing.assert_array_equal(expected.by_label.sums, found.by_label.sums)


def test_autocast_is_on_for_the_model_alone(mlp: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """It is named in the signature, and off again when a batch is handed on."""
    stream = Stream(mlp, as_source((inputs, labels)), autocast=torch.bfloat16)
    for batch in stream:
        assert not torch.is_autocast_enabled("cpu")
        assert torch.bfloat16 is batch.representations.dtype
        # bfloat16 keeps 8 bits: one rounding of inputs and weights each, and of the result.
        torch.testing.assert_close(
            batch.representations.float(), body(mlp, inputs), rtol=2**-5, atol=2**-5
        )
    assert stream.signature(("a",), None).dtype == "bfloat16 (autocast bfloat16)"
    plain = Stream(mlp, as_source((inputs, labels)))
    list(plain)
    assert plain.signature(("a",), None).dtype == "float32"


class MaskedTokens(nn.Module):
    """A text classifier with torch's own encoder and its padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        return self.head(hidden[:, 0])


@pytest.mark.parametrize("layer", [None, "encoder", "encoder.layers.0", "encoder.layers.1.norm2"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_every_batch_is_read_like_the_first(layer: str | None) -> None:
    """torch's encoder packs its tokens once it may; the same batch still reads the same."""
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[:, 4:] = 0
    batch = {"input_ids": torch.randint(0, 50, (4, 6)), "attention_mask": mask}
    first, *others = stream_of(MaskedTokens(), [batch] * 3, layer=layer)
    for other in others:
        torch.testing.assert_close(
            other.representations, first.representations, rtol=RTOL, atol=ATOL
        )


# ---- labels that cannot be used ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (torch.tensor([0.0, 1.0, 0.5, 1.0]), r"integers; got float32 such as 0\.0.*labels\.long"),
        (torch.tensor([True, False, True, True]), "integers; got bool such as True"),
        (["cat", "dog", "cat", "dog"], "integers; got text such as 'cat'.*return_inverse"),
        (np.array(["cat", "dog", "cat", "dog"]), "integers; got text such as 'cat'"),
        (torch.tensor([0, 1, -1, 1]), r"0 or more; got -1 for example 6\."),
        (torch.tensor([0, 1, 1]), "3 labels for 4 examples in the batch that starts at example 4"),
        (torch.tensor([0, 1, 1, 0, 1]), "5 labels for 4 examples in the batch that starts"),
        (torch.eye(4), r"got shape \(4, 4\)\. Multi-label.*one-hot.*argmax"),
        (torch.eye(4, dtype=torch.int64), r"got shape \(4, 4\)\. Multi-label"),
        (torch.zeros(4, 1, dtype=torch.int64), r"got shape \(4, 1\)"),
        (torch.tensor(1), r"got shape \(\)"),
        (1, r"got shape \(\)"),
        ([{"boxes": torch.zeros(1, 4), "labels": torch.zeros(1)}] * 4, "detection"),
        ([[0, 1], [0], [], [2]], "[Mm]ulti-label"),
        ([None] * 4, "[Ll]abels"),
    ],
    ids=[
        "float",
        "bool",
        "text",
        "text array",
        "negative",
        "too few",
        "too many",
        "multi-label",
        "one-hot",
        "a column",
        "a scalar",
        "a number",
        "detection",
        "ragged",
        "nothing",
    ],
)
def test_labels_that_are_not_class_numbers_are_refused(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, wrong: Any, expected: str
) -> None:
    """The message says what came, where, and what to do; here in the second batch."""
    data = [(inputs[:4], labels[:4]), (inputs[4:8], wrong)]
    assert re.search(expected, error_of(mlp, data))


def test_labels_must_be_there_always_or_never(
    mlp: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """A batch unlike those before it is named by its first example."""
    with pytest.raises(InputError, match="starts at example 4 has no labels, unlike"):
        resque.profile(mlp, [(inputs[:4], labels[:4]), inputs[4:]])
    with pytest.raises(InputError, match="starts at example 4 has labels, unlike"):
        resque.profile(mlp, [inputs[:4], (inputs[4:], labels[4:])])


# ---- values that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 2, 7, 11])
def test_the_example_that_is_not_finite_is_named(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, value: float, place: int
) -> None:
    """In whichever batch it is, by the profile and by the task index."""
    inputs[place, 3] = value
    data = batches_of(inputs, labels)
    for compute in (resque.profile, resque.task_index):
        with pytest.raises(InputError, match=rf"of example {place} contains NaN or infinity"):
            compute(mlp, data)


def test_the_first_example_that_is_not_finite_is_named(
    mlp: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """Of several, the one that comes first."""
    inputs[[9, 5, 6]] = torch.nan
    with pytest.raises(InputError, match="of example 5 contains NaN"):
        resque.profile(mlp, batches_of(inputs, labels))


def test_an_output_that_is_not_finite_is_found_behind_a_finite_representation(
    mlp: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    """The head may overflow by itself."""

    class Overflowing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return torch.where(torch.arange(len(x))[:, None] == 3, torch.inf, scores)

    model = nn.Sequential(mlp[0], mlp[1], Overflowing(8, 3))
    with pytest.raises(InputError, match="or the output of example 3 contains NaN or infinity"):
        resque.profile(model, (inputs, labels))


def test_a_table_with_a_value_that_is_not_finite_is_refused(inputs: Tensor, labels: Tensor) -> None:
    """Given representations are looked at like computed ones."""
    inputs[7, 0] = torch.nan
    with pytest.raises(InputError, match="of example 7 contains NaN"):
        resque.profile(None, (inputs, labels))


# ---- data and models that do not fit -----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        [],
        [(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))],
        (np.zeros((0, 6)), np.zeros(0, int)),
    ],
    ids=["no batches", "an empty batch", "empty arrays"],
)
def test_empty_data_are_refused(data: Any) -> None:
    """No example, no number."""
    with pytest.raises(InputError, match="hold no examples"):
        resque.profile(nn.Linear(6, 3), data)


def test_widths_that_differ_are_refused() -> None:
    """Flattened maps of images of two sizes are not comparable; the mean over space is."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    data = [torch.randn(2, 1, 6, 6), torch.randn(2, 1, 7, 6)]
    message = error_of(model, data, layer="0", pooling="flatten")
    assert "have 80 values in the batch that starts at example 2, and 64 before it" in message
    assert "pooling='mean'" in message
    assert [b.representations.shape[1] for b in stream_of(model, data, layer="0")] == [4, 4]


def test_tables_of_different_widths_are_refused() -> None:
    """So are rows of different length where no model is given."""
    message = error_of(None, [torch.randn(2, 5), torch.randn(3, 4)])
    assert "have 4 values in the batch that starts at example 2, and 5 before it" in message


def test_a_table_must_be_one_of_numbers_with_two_axes() -> None:
    """Without a model the data are the representations."""
    assert "got shape (2, 3, 4)" in error_of(None, [torch.randn(2, 3, 4)])
    assert "floating point; got torch.int64" in error_of(None, [torch.ones(2, 3).long()])
    assert "their width is 0" in error_of(None, [torch.ones(2, 0)])


def test_grey_images_for_a_colour_model_say_how_to_mend_it() -> None:
    """The option that converts them is named."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    message = error_of(model, [torch.randn(2, 1, 6, 6)])
    assert "could not be run on a batch of (2, 1, 6, 6)" in message
    assert "--channels 3" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_inputs_of_another_type_say_how_to_mend_it(
    mlp: nn.Module, inputs: Tensor, dtype: torch.dtype
) -> None:
    """Bytes and double precision are what arrays often hold."""
    assert "float32" in error_of(mlp, [inputs.to(dtype)])


def test_images_of_another_size_than_the_model_takes_are_refused() -> None:
    """Transformers assert the size that they were made for."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    assert "could not be run on a batch of (2, 3, 32, 32)" in error_of(
        model, [torch.randn(2, 3, 32, 32)]
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_a_layer_that_works_on_parts_of_images_is_refused(labelled: bool) -> None:
    """Swin attends within windows, several per image; such a layer has no row per example."""
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, depths=(1, 1), num_heads=(2, 2), window_size=4
    )
    images = torch.randn(2, 3, 32, 32)
    data = (images, torch.tensor([0, 1])) if labelled else images
    layer = "layers.0.blocks.0.attn"
    with pytest.raises(InputError, match=layer):
        resque.profile(model, data, layer=layer)


def test_a_model_without_values_is_refused(inputs: Tensor, labels: Tensor) -> None:
    """On the meta device there are shapes only; buffers as well as parameters."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).to("meta")
    with pytest.raises(InputError, match="meta device"):
        resque.profile(model, (inputs, labels))


def test_the_model_must_be_a_module(mlp: nn.Module, inputs: Tensor) -> None:
    """A function, a state dict or a name is none."""
    for wrong in (mlp.forward, mlp.state_dict(), "resnet18"):
        assert f"got {type(wrong).__name__}" in error_of(wrong, inputs)


def test_a_layer_needs_a_model(inputs: Tensor) -> None:
    """Given representations come from no layer."""
    for options in ({"layer": "fc"}, {"pooling": "mean"}):
        assert "need a model" in error_of(None, inputs, **options)


# ---- the progress bar --------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What stderr is when somebody looks on."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of these change what counts as a terminal, and some CI services set them.
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_progress_is_shown_on_a_terminal(
    mlp: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On stderr, with the number of examples, and by default."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    resque.profile(mlp, (inputs, labels), batch_size=4)
    assert "examples" in terminal.getvalue()
    assert "12" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_progress_can_be_switched_off(
    mlp: nn.Module, inputs: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    resque.profile(mlp, (inputs, labels), progress=False)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("forced", [False, True], ids=["plain", "FORCE_COLOR"])
def test_progress_is_silent_where_there_is_no_terminal(
    mlp: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forced: bool,
) -> None:
    """A log file gets no bar; FORCE_COLOR asks for colours, not for animation."""
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    resque.profile(mlp, (inputs, labels), progress=True)
    assert capsys.readouterr() == ("", "")
