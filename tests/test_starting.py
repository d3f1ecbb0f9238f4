"""Fresh heads and fresh weights, on the models that people have."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resque import InputError
from resque.measure.starting import (
    final_classifier,
    scores_of,
    with_fresh_head,
    with_fresh_weights,
)

IMAGES = torch.rand(2, 3, 64, 64)
TOKENS = {
    "input_ids": torch.randint(1, 50, (2, 7)),
    "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
}


def timm_model(name: str, **chosen: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, **chosen)

    return make


def torchvision_model(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return pytest.importorskip("torchvision").models.get_model(name)

    return make


def text_model(kind: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
        return getattr(transformers, kind)(config)

    return make


def vision_transformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
    )
    return transformers.ViTForImageClassification(config)


class Own(nn.Module):
    """A module as users write them, with a child that is a transformer of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 16, 16)
        self.blocks = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.classify = nn.Linear(16, 7)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.classify(self.norm(self.blocks(tokens).mean(1)))


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


def encoder() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())


slow = pytest.mark.slow
MODELS = [
    pytest.param(timm_model("resnet18"), IMAGES, id="timm-resnet18"),
    pytest.param(timm_model("vit_tiny_patch16_224", img_size=64, depth=2), IMAGES, id="timm-vit"),
    pytest.param(timm_model("mobilenetv3_small_050"), IMAGES, id="timm-mobilenetv3"),
    pytest.param(timm_model("test_convnext"), IMAGES, id="timm-convnext"),
    pytest.param(torchvision_model("resnet18"), IMAGES, id="torchvision-resnet18"),
    pytest.param(torchvision_model("squeezenet1_1"), IMAGES, id="torchvision-squeezenet"),
    pytest.param(torchvision_model("mobilenet_v2"), IMAGES, id="torchvision-mobilenet", marks=slow),
    pytest.param(torchvision_model("densenet121"), IMAGES, id="torchvision-densenet", marks=slow),
    pytest.param(torchvision_model("googlenet"), IMAGES, id="torchvision-googlenet", marks=slow),
    pytest.param(torchvision_model("vgg11"), IMAGES, id="torchvision-vgg", marks=slow),
    pytest.param(torchvision_model("swin_t"), IMAGES, id="torchvision-swin", marks=slow),
    pytest.param(text_model("BertForSequenceClassification"), TOKENS, id="transformers-classifier"),
    pytest.param(text_model("BertModel"), TOKENS, id="transformers-encoder"),
    pytest.param(vision_transformer, IMAGES, id="transformers-vit"),
    pytest.param(sequential, IMAGES, id="sequential"),
    pytest.param(Own, IMAGES, id="own-module"),
    pytest.param(encoder, IMAGES, id="encoder-of-maps"),
]


def made(make: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about how GoogLeNet will draw one day
        return make()


def called(model: nn.Module, inputs: Any) -> Tensor:
    return scores_of(model(**inputs) if isinstance(inputs, dict) else model(inputs))


def trained_looking(model: nn.Module) -> nn.Module:
    """Move every value, as training does, so that constants are told from what was drawn."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1 + torch.rand_like(parameter))
        for buffer in model.buffers():
            if buffer.is_floating_point() and buffer.numel() > 1:
                buffer.add_(torch.rand_like(buffer))
    return model


@pytest.mark.parametrize(("make", "inputs"), MODELS)
def test_a_fresh_head_has_the_classes_asked_for_and_keeps_the_body(
    make: Callable[[], nn.Module], inputs: Any
) -> None:
    """It also trains: gradients reach the new head and the body in training mode."""
    model = made(make)
    before = copy.deepcopy(model.state_dict())
    fresh = with_fresh_head(model, 5, inputs, seed=3)
    scores = called(fresh.train(), inputs)
    assert (2, 5) == scores.shape
    scores.square().mean().backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in fresh.parameters()) > 2
    kept = [n for n, p in model.named_parameters() if any(p is q for q in fresh.parameters())]
    assert [] == kept
    changed = [
        name for name, tensor in before.items() if not torch.equal(tensor, model.state_dict()[name])
    ]
    assert [] == changed
    body = {
        name.removeprefix("body."): p
        for name, p in with_fresh_head(model, 5, inputs, seed=3).named_parameters()
    }
    other = [
        name
        for name, parameter in model.named_parameters()
        if name not in body or not torch.equal(body[name], parameter)
    ]
    assert len(other) <= 2


@pytest.mark.parametrize(("make", "inputs"), MODELS)
def test_fresh_weights_are_as_if_newly_built_and_nothing_of_the_old_is_left(
    make: Callable[[], nn.Module], inputs: Any
) -> None:
    """Mean and spread of each tensor are those of a new model, and no value is the old one."""
    model = trained_looking(made(make))
    fresh = with_fresh_weights(model, seed=3)
    new = made(make).state_dict()
    old = model.state_dict()
    for name, tensor in fresh.state_dict().items():
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        ours, theirs = (t.float() for t in (tensor, new[name]))
        spread = theirs.std().item()
        # Four standard errors of a spread and of a mean; those of a uniform law are smaller.
        error = 4 * spread / tensor.numel() ** 0.5 + 1e-6
        assert ours.std().item() == pytest.approx(spread, abs=error), name
        assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=1.5 * error), name
        assert not torch.equal(tensor, old[name]) or torch.equal(tensor, new[name]), name


def test_the_seed_decides_and_the_random_state_and_the_model_stay() -> None:
    """Same seed, same weights; another seed, others."""
    model, state = Own(), torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    a, b, c = (with_fresh_weights(model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.classify.weight, b.classify.weight)  # type: ignore[union-attr]
    assert not torch.equal(a.classify.weight, c.classify.weight)  # type: ignore[union-attr]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_batch_statistics_start_anew() -> None:
    """Running means and the count of batches are of the old training too."""
    model = sequential()
    model(IMAGES)
    fresh = with_fresh_weights(model)
    assert torch.equal(torch.zeros(16), fresh[1].running_mean)  # type: ignore[index]
    assert 0 == fresh[1].num_batches_tracked  # type: ignore[index]


def test_a_library_model_inside_a_module_of_ones_own_is_built_again_too() -> None:
    """The embeddings of a transformers encoder get its own spread, 0.02, not torch's, 1."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = text_model("BertModel")()
            self.head = nn.Linear(32, 3)

    fresh = with_fresh_weights(Wrapped())
    weight = fresh.encoder.embeddings.word_embeddings.weight  # type: ignore[union-attr]
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", ["init_weights", "_init_weights"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_models_own_way_to_draw_is_used(name: str, whole: bool) -> None:
    """Whether it draws for the whole model or is applied to each part."""

    def of_part(self: nn.Module, part: nn.Module) -> None:
        if isinstance(part, nn.Linear):
            nn.init.constant_(part.weight, 0.25)

    def of_whole(self: nn.Module) -> None:
        self.apply(lambda part: of_part(self, part))

    kind = type("Drawn", (nn.Sequential,), {name: of_whole if whole else of_part})
    fresh = with_fresh_weights(kind(nn.Linear(2, 2)))
    assert torch.equal(torch.full((2, 2), 0.25), fresh[0].weight)  # type: ignore[index]


class Bare(nn.Module):
    """A weight that no method draws."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_weights_that_nothing_draws_are_named_and_a_factory_helps() -> None:
    """Silence would leave trained weights in what is called training from scratch."""
    model = nn.Sequential(nn.Linear(3, 3), Bare())
    with pytest.raises(InputError, match=r"The weights '1\.scale' have no reset_parameters"):
        with_fresh_weights(model)
    made = with_fresh_weights(model, untrained=lambda: nn.Sequential(nn.Linear(3, 3), Bare()))
    assert torch.equal(torch.ones(3), made[1].scale)  # type: ignore[index]


def test_one_class_is_refused() -> None:
    """A classifier tells at least two classes apart."""
    with pytest.raises(InputError, match="at least two classes; got 1"):
        with_fresh_head(sequential(), 1, IMAGES)


def test_a_model_whose_classifier_is_not_found_says_what_to_do() -> None:
    """Vectors that no classifier gave may be scores or features, so nothing is guessed."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.BatchNorm1d(6))
    with pytest.raises(InputError, match=r"nn\.Linear\(6, classes\)\), and use start='weights'"):
        final_classifier(model, torch.randn(4, 2, 2))


def test_an_encoder_that_ends_in_a_relu_gets_a_head_behind_it() -> None:
    """Its last layer ranks values as its output does, and is no classifier all the same."""
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
    fresh = with_fresh_head(model, 3, torch.randn(8, 4))
    assert bool((fresh(torch.randn(50, 4)) < 0).any())
    classifier = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    assert ("0", 4) == final_classifier(classifier, 1e3 * torch.randn(8, 4))


def test_inputs_that_the_model_does_not_take_are_told() -> None:
    """The search for the classifier is the first call of the model that a user sees fail."""
    with pytest.raises(InputError, match=r"could not be run on a batch of \(2, 9\)"):
        final_classifier(nn.Linear(4, 2), torch.zeros(2, 9))


def test_a_head_on_an_encoder_passes_on_only_what_the_encoder_takes() -> None:
    """Batches of the transformers world bring keys that no model reads."""
    model = with_fresh_head(text_model("BertModel")(), 3, TOKENS)
    inputs = TOKENS | {"idx": torch.arange(2)}
    with torch.no_grad():
        assert torch.equal(model.eval()(**TOKENS), model(**inputs))


def test_a_convolution_as_head_is_replaced_by_a_convolution() -> None:
    """SqueezeNet classifies by a convolution of size 1 and a pool behind it."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    fresh = with_fresh_head(model, 6, IMAGES)
    assert (6, 8, 1, 1) == fresh[1].weight.shape  # type: ignore[index]


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4), [torch.zeros(2, 3)], None, {}])
def test_what_is_no_class_scores_is_named(output: Any) -> None:
    """Maps, lists and nothing at all."""
    with pytest.raises(InputError, match=f"The model returned a {type(output).__name__}"):
        scores_of(output)


def test_the_first_of_several_heads_is_the_main_one() -> None:
    """GoogLeNet and distilled transformers return a tuple while they train."""
    main = torch.randn(2, 3)
    assert scores_of((main, torch.zeros(2, 3))) is main
