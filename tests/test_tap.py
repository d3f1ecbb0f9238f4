"""The layer that is read, how it is pooled, and the digest of what it depends on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resque import InputError
from resque.representation.tap import Tap, logits_of, pooled

# Two ways through the same float32 layers may round differently in the last bits.
RTOL, ATOL = 1e-5, 1e-6

IMAGES = (2, 3, 32, 32)


def assert_reads(
    model: nn.Module,
    expected: Tensor,
    *inputs: Tensor,
    layer: str | None = None,
    found: str | None = None,
    pooling: str = "auto",
    mask: Tensor | None = None,
    **named: Tensor,
) -> None:
    """The tap gives `expected` in a first call and, with its hooks moved, in a second."""
    model.eval()
    with torch.no_grad(), Tap(model, layer, pooling) as tap:
        for _ in range(2):
            _, representations = tap.read(model(*inputs, **named), mask)
            torch.testing.assert_close(representations, expected, rtol=RTOL, atol=ATOL)
    if found is not None:
        assert found == tap.layer


def headless(model: nn.Module, name: str) -> nn.Module:
    """A copy of a model whose output is what went into the layer `name`."""
    copied = copy.deepcopy(model).eval()
    copied.set_submodule(name, nn.Identity())
    return copied


def read_error(model: nn.Module, *inputs: Any, layer: str | None = None) -> str:
    """The message of the InputError that reading the layer must raise."""
    model.eval()
    with torch.no_grad(), pytest.raises(InputError) as caught, Tap(model, layer) as tap:
        tap.read(model(*inputs))
    return str(caught.value)


def digest(model: nn.Module, *inputs: Tensor, layer: str | None = None) -> str:
    model.eval()
    with torch.no_grad(), Tap(model, layer) as tap:
        tap.read(model(*inputs))
    return tap.weights_digest()


class Tokens(nn.Module):
    """A text classifier with a TransformerEncoder of torch's own; it reads the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens))[:, 0])


class Attentive(nn.Module):
    """Attention over tokens, then a mean and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


# ---- the default layer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("resnet18", {}, "input:fc"),
        ("vgg11", {"mlp_ratio": 0.05}, "input:head.fc"),
        ("densenet121", {}, "input:classifier"),
        ("mobilenetv2_050", {}, "input:classifier"),
        ("convnext_atto", {}, "input:head.fc"),
        ("vit_tiny_patch16_224", {"img_size": 32}, "input:head"),
        ("vit_tiny_patch16_224", {"img_size": 32, "global_pool": "avg"}, "input:head"),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "global_pool": "avg", "class_token": False},
            "input:head",
        ),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
            "input:head.fc",
        ),
        ("resnet18", {"num_classes": 0}, "output"),
        ("vgg11", {"mlp_ratio": 0.05, "num_classes": 0}, "output"),
        ("vit_tiny_patch16_224", {"img_size": 32, "num_classes": 0}, "output"),
        ("convnext_atto", {"num_classes": 0}, "output"),
    ],
)
def test_the_default_of_timm_models_is_what_their_classifier_reads(
    name: str, options: dict[str, Any], found: str
) -> None:
    """It equals timm's own features, sent through timm's own head up to the classifier."""
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, **options).eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    assert_reads(model, expected, images, found=found)


def test_the_default_of_a_distilled_transformer_is_its_class_token() -> None:
    """Of its two heads the first counts; it reads the class token."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, img_size=32)
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = model.eval().forward_features(images)[:, 0]
    assert_reads(model, expected, images, found="input:head")


def test_features_without_a_pool_are_averaged() -> None:
    """A timm model without head and pool gives maps or tokens; their mean is read."""
    timm = pytest.importorskip("timm")
    images = torch.randn(IMAGES)
    for name, options, axes in (
        ("resnet18", {}, (2, 3)),
        ("vit_tiny_patch16_224", {"img_size": 32}, (1,)),
    ):
        model = timm.create_model(name, num_classes=0, global_pool="", **options).eval()
        with torch.no_grad():
            expected = model.forward_features(images).mean(axes)
        assert_reads(model, expected, images, found="output")


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("resnet18", {}, "fc"),
        ("mobilenet_v3_small", {}, "classifier.3"),
        ("densenet121", {}, "classifier"),
        ("googlenet", {"init_weights": False}, "fc"),
    ],
)
def test_the_default_of_torchvision_models_is_what_their_last_layer_reads(
    name: str, options: dict[str, Any], head: str
) -> None:
    """It equals the output of a copy whose last layer was taken out."""
    models = pytest.importorskip("torchvision.models")
    model = models.get_model(name, weights=None, **options)
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = headless(model, head)(images)
    assert_reads(model, expected, images, found=f"input:{head}")


def test_the_default_of_a_torchvision_transformer_is_its_class_token() -> None:
    """The head of torchvision's ViT reads the class token after the last norm."""
    models = pytest.importorskip("torchvision.models")
    model = models.VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32)
    # torchvision starts the head at zero; any head must do.
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = headless(model, "heads")(images)
    assert_reads(model, expected, images, found="input:heads.head")


def test_the_default_of_a_convolutional_head_is_the_mean_of_its_map() -> None:
    """SqueezeNet classifies with a 1x1 convolution; the map that goes in is averaged."""
    models = pytest.importorskip("torchvision.models")
    model = models.squeezenet1_1(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.features(images).mean((2, 3))
    assert_reads(model, expected, images, found="input:classifier.1")


TEXT = {
    "vocab_size": 99,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


@pytest.fixture
def tokens() -> dict[str, Tensor]:
    """Two sentences of 7 and 4 tokens."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(5, 90, (2, 7)), "attention_mask": mask}


def test_the_default_of_bert_is_its_pooled_output(tokens: dict[str, Tensor]) -> None:
    """BertForSequenceClassification classifies what its pooler gives."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**TEXT, num_labels=3)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        expected = model.bert(**tokens).pooler_output
    assert_reads(model, expected, found="input:classifier", mask=tokens["attention_mask"], **tokens)


def test_the_default_of_roberta_is_inside_its_head(tokens: dict[str, Tensor]) -> None:
    """RobertaForSequenceClassification has a hidden layer in its head; the last layer counts."""
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(**TEXT, num_labels=3)
    model = transformers.RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        first = model.roberta(**tokens).last_hidden_state[:, 0]
        expected = torch.tanh(model.classifier.dense(first))
    mask = tokens["attention_mask"]
    assert_reads(model, expected, found="input:classifier.out_proj", mask=mask, **tokens)


def test_the_default_of_distilbert_is_after_its_pre_classifier(tokens: dict[str, Tensor]) -> None:
    """DistilBertForSequenceClassification classifies relu(pre_classifier(first token))."""
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=99, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=3
    )
    model = transformers.DistilBertForSequenceClassification(config).eval()
    with torch.no_grad():
        first = model.distilbert(**tokens).last_hidden_state[:, 0]
        expected = torch.relu(model.pre_classifier(first))
    assert_reads(model, expected, found="input:classifier", mask=tokens["attention_mask"], **tokens)


def test_the_default_of_an_image_transformer_is_its_class_token() -> None:
    """ViTForImageClassification classifies the first token after the last norm."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        num_labels=3,
    )
    model = transformers.ViTForImageClassification(config).eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = model.vit(pixel_values=images).last_hidden_state[:, 0]
    assert_reads(model, expected, found="input:classifier", pixel_values=images)


def test_the_default_of_a_bare_encoder_is_the_mean_over_real_tokens(
    tokens: dict[str, Tensor],
) -> None:
    """A model that gives last_hidden_state is read there, and padding is left out of the mean."""
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel(transformers.BertConfig(**TEXT)).eval()
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    expected = torch.stack([hidden[0, :7].mean(0), hidden[1, :4].mean(0)])
    assert_reads(model, expected, found="output", mask=tokens["attention_mask"], **tokens)


def test_the_default_of_a_sequential_is_its_last_linear_layer(mlp: nn.Module) -> None:
    """The input of the last layer with weights is read."""
    inputs = torch.randn(5, 6)
    expected = torch.relu(mlp[0](inputs)).detach()
    assert_reads(mlp, expected, inputs, found="input:2")


@pytest.mark.parametrize(
    "after",
    [
        nn.Softmax(1),
        nn.LogSoftmax(1),
        nn.Dropout(0.9),
        nn.Sequential(nn.Dropout(0.5), nn.Softmax(1)),
    ],
    ids=["softmax", "log-softmax", "dropout", "both"],
)
def test_layers_without_weights_after_the_head_do_not_matter(after: nn.Module) -> None:
    """A head that is followed by a softmax or a dropout is still the final classifier."""
    first, head = nn.Linear(6, 8), nn.Linear(8, 3)
    inputs = torch.randn(5, 6)
    model = nn.Sequential(first, nn.Dropout(0.5), head, after)
    assert_reads(model, first(inputs).detach(), inputs, found="input:2")


def test_a_model_of_ones_own_may_work_on_its_logits() -> None:
    """What forward computes after its head with functions is of no concern."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Deliberately not in the order in which they are called.
            self.head = nn.Linear(8, 3)
            self.body = nn.Conv2d(1, 8, 3)
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            pooled_map = nn.functional.adaptive_avg_pool2d(torch.relu(self.body(x)), 1).flatten(1)
            return nn.functional.log_softmax(self.head(pooled_map) / self.temperature, dim=1)

    model = Own()
    inputs = torch.randn(4, 1, 6, 6)
    expected = torch.relu(model.body(inputs)).mean((2, 3)).detach()
    assert_reads(model, expected, inputs, found="input:head")


def test_the_default_of_a_transformer_encoder_is_what_its_head_reads() -> None:
    """torch's own encoder takes a faster path once no hook is on it; the values stay the same."""
    model, inputs = Tokens().eval(), torch.randint(0, 50, (3, 5))
    with torch.no_grad():
        expected = model.encoder(model.embedding(inputs))[:, 0]
    assert_reads(model, expected, inputs, found="input:head")


@pytest.mark.parametrize(
    "wrap",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
    ids=["weight norm", "spectral norm"],
)
def test_a_head_with_normed_weights_is_still_the_final_classifier(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    """A parametrisation keeps its weights in a module of its own, inside the head."""
    first, inputs = nn.Linear(6, 8), torch.randn(5, 6)
    model = nn.Sequential(first, wrap(nn.Linear(8, 3))).eval()
    assert_reads(model, first(inputs).detach(), inputs, found="input:1")


def test_a_default_that_is_called_twice_is_refused_in_the_first_batch_already() -> None:
    """A head applied to two views gives two representations per example, in whatever batch."""

    class TwoViews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)) + self.head(self.body(-x))

    message = read_error(TwoViews(), torch.randn(4, 6))
    assert "'input:head' is called 2 times" in message


def test_the_default_layer_is_unknown_before_the_model_ran(mlp: nn.Module) -> None:
    """Asking too early is an error of the program, not of the user."""
    with pytest.raises(RuntimeError, match="found by the first call"):
        _ = Tap(mlp).layer


# ---- named layers ----------------------------------------------------------------------------


def test_a_named_layer_is_read_at_its_output_or_its_input(mlp: nn.Module) -> None:
    """NAME is what comes out, input:NAME what goes in, output what the model returns."""
    inputs = torch.randn(5, 6)
    with torch.no_grad():
        before = mlp[0](inputs)
        after = mlp[1](before)
        output = mlp[2](after)
    assert_reads(mlp, before, inputs, layer="0", found="0")
    assert_reads(mlp, before, inputs, layer="input:1", found="input:1")
    assert_reads(mlp, after, inputs, layer="1", found="1")
    assert_reads(mlp, inputs, inputs, layer="input:0", found="input:0")
    assert_reads(mlp, output, inputs, layer="output", found="output")
    assert_reads(mlp, output, inputs, layer="2", found="2")


def test_output_is_what_the_model_returns_even_where_a_layer_has_that_name() -> None:
    """A layer called output can be read at its input."""
    body, output = nn.Linear(6, 8), nn.Linear(8, 3)
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("output", output)
    model.add_module("softmax", nn.Softmax(1))
    inputs = torch.randn(4, 6)
    assert_reads(model, model(inputs).detach(), inputs, layer="output")
    assert_reads(model, body(inputs).detach(), inputs, layer="input:output")


def test_a_layer_that_the_next_one_overwrites_is_read_as_it_was() -> None:
    """ReLU(inplace=True) writes over what came out of the layer before it."""
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    model, inputs = nn.Sequential(first, nn.ReLU(inplace=True), last), torch.randn(5, 6)
    expected = first(inputs).detach()
    assert (expected < 0).any()
    assert_reads(model, expected, inputs, layer="0")
    assert_reads(model, expected, inputs, layer="input:1")
    assert_reads(model, expected.relu(), inputs, found="input:2")


def test_an_input_given_by_name_is_read(mlp: nn.Module) -> None:
    """A layer that is called with keyword arguments gives the first of them."""

    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.body(input=x))

    model, inputs = ByName(), torch.randn(4, 6)
    expected = model.body(inputs).detach()
    assert_reads(model, expected, inputs, found="input:head")
    assert_reads(model, expected, inputs, layer="input:head")


def test_the_last_convolution_gives_the_spatial_mean() -> None:
    """A named convolution reproduces the published tap: values before norm and ReLU."""
    timm = pytest.importorskip("timm")
    model, images = timm.create_model("resnet18", pretrained=False).eval(), torch.randn(IMAGES)
    maps: list[Tensor] = []
    handle = model.layer4[1].conv2.register_forward_hook(lambda *args: maps.append(args[2]))
    with torch.no_grad():
        model(images)
    handle.remove()
    # One pixel per channel would be its own mean; two tell them apart.
    assert maps[0].shape == (2, 512, 1, 1)
    assert_reads(model, maps[0][:, :, 0, 0], images, layer="layer4.1.conv2")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.layer4(model.layer3(model.layer2(model.layer1(
            model.maxpool(model.act1(model.bn1(model.conv1(images))))
        )))).mean((2, 3))  # fmt: skip
    assert_reads(model, expected, images, layer="layer4")


# ---- pooling ---------------------------------------------------------------------------------


def test_vectors_are_left_alone_by_auto_mean_and_none() -> None:
    """There is nothing to average in (batch, values)."""
    vectors = torch.randn(4, 5)
    for pooling in ("auto", "mean", "none", "flatten"):
        torch.testing.assert_close(pooled(vectors, pooling), vectors, rtol=0, atol=0)


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_maps_are_averaged_over_all_their_spatial_axes(pooling: Any) -> None:
    """Two and three spatial axes; the channels come second."""
    for shape in ((4, 5, 3, 2), (4, 5, 3, 2, 6)):
        maps = torch.randn(shape)
        expected = torch.stack([maps[:, c].flatten(1).mean(1) for c in range(5)], 1)
        torch.testing.assert_close(pooled(maps, pooling), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_tokens_are_averaged(pooling: Any) -> None:
    """The tokens come second, the values last."""
    tokens = torch.randn(4, 3, 5)
    expected = (tokens[:, 0] + tokens[:, 1] + tokens[:, 2]) / 3
    torch.testing.assert_close(pooled(tokens, pooling), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_padding_is_left_out_of_the_mean(dtype: torch.dtype) -> None:
    """Only tokens with a nonzero mask count, of whatever type the mask is."""
    tokens = torch.randn(2, 3, 5)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).to(dtype)
    tokens[0, 2] = tokens[1, 1:] = 1e6
    expected = torch.stack([(tokens[0, 0] + tokens[0, 1]) / 2, tokens[1, 0]])
    torch.testing.assert_close(pooled(tokens, mask=mask), expected, rtol=RTOL, atol=ATOL)


def test_a_mask_does_not_touch_vectors_maps_or_the_class_token() -> None:
    """It says which tokens are real, and there are none in these."""
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
    vectors, tokens = torch.randn(2, 5), torch.randn(2, 3, 5)
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pooled(vectors, mask=mask), vectors, rtol=0, atol=0)
    torch.testing.assert_close(
        pooled(tokens, "class_token", mask=mask), tokens[:, 0], rtol=0, atol=0
    )
    torch.testing.assert_close(pooled(maps, mask=mask), maps.mean((2, 3)), rtol=RTOL, atol=ATOL)


def test_a_mask_of_another_length_is_refused() -> None:
    """Both shapes are named, and what can be done."""
    with pytest.raises(InputError, match=r"mask has shape \(2, 4\).*gave \(2, 3, 5\).*class_token"):
        pooled(torch.randn(2, 3, 5), mask=torch.ones(2, 4))


def test_the_class_token_is_the_first() -> None:
    """Anything but tokens has none."""
    tokens = torch.randn(2, 3, 5)
    torch.testing.assert_close(pooled(tokens, "class_token"), tokens[:, 0], rtol=0, atol=0)
    with pytest.raises(InputError, match=r"class_token.*gave \(2, 3, 4, 5\).*pooling='mean'"):
        pooled(torch.randn(2, 3, 4, 5), "class_token")


def test_flatten_keeps_every_value() -> None:
    """The published variant: channels, then rows, then columns."""
    maps = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    expected = torch.arange(24.0).reshape(2, 12)
    torch.testing.assert_close(pooled(maps, "flatten"), expected, rtol=0, atol=0)


def test_none_insists_on_vectors() -> None:
    """Anything else is refused with its shape."""
    with pytest.raises(InputError, match=r"pooling='none'.*gave \(2, 3, 5\)"):
        pooled(torch.randn(2, 3, 5), "none")


def test_an_output_without_a_batch_axis_is_refused() -> None:
    """A layer that sums over the batch gives no representation."""
    with pytest.raises(InputError, match=r"gave shape \(5,\)"):
        pooled(torch.randn(5))


def test_an_unknown_pooling_lists_the_known_ones(mlp: nn.Module) -> None:
    """The message says what was given and what is possible."""
    with pytest.raises(InputError, match=r"'max' is unknown.*auto, mean, class_token"):
        Tap(mlp, pooling="max")


def test_a_one_dimensional_convolution_gives_channels_first() -> None:
    """(batch, channels, length) of a Conv1d or BatchNorm1d is not (batch, tokens, values)."""
    conv, norm = nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5)
    model = nn.Sequential(conv, norm, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    inputs = torch.randn(4, 2, 9)
    with torch.no_grad():
        expected = conv(inputs).mean(2)
        expected_norm = norm(conv(inputs)).mean(2)
    assert_reads(model, expected, inputs, layer="0")
    assert_reads(model, expected, inputs, layer="input:1")
    assert_reads(model, expected_norm, inputs, layer="1")


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    timm = pytest.importorskip("timm")
    model: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, depths=(1, 1), num_heads=(2, 2), window_size=4
    )
    return model.eval()


def test_a_stage_of_swin_has_its_channels_last(swin: nn.Module) -> None:
    """timm's Swin gives (batch, height, width, channels); the mean is over the middle axes."""
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = swin.forward_features(images).mean((1, 2))
    assert expected.shape == (2, 192)
    assert_reads(swin, expected, images, layer="norm")
    with torch.no_grad():
        stage = swin.layers(swin.patch_embed(images))
    assert_reads(swin, stage.mean((1, 2)), images, layer="layers.1")


def test_a_convolution_has_its_channels_first_in_swin_too(swin: nn.Module) -> None:
    """The patch embedding is a Conv2d, whose output nobody has permuted yet."""
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = swin.patch_embed.proj(images).mean((2, 3))
    assert_reads(swin, expected, images, layer="patch_embed.proj")


def test_a_stage_of_torchvisions_swin_has_its_channels_last() -> None:
    """torchvision's Swin gives (batch, height, width, channels) as well, and says it nowhere."""
    models = pytest.importorskip("torchvision.models")
    model = models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4]).eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = model.norm(model.features(images)).mean((1, 2))
    assert expected.shape == (2, 16)
    assert_reads(model, expected, images, layer="norm")
    with torch.no_grad():
        expected = model.features(images).mean((1, 2))
    assert_reads(model, expected, images, layer="features.3")


def test_a_linear_layer_on_maps_has_its_values_last() -> None:
    """A Linear acts on the last axis, whatever comes before it."""
    model = nn.Sequential(nn.Linear(3, 7), nn.Flatten(), nn.Linear(7 * 20, 2))
    inputs = torch.randn(2, 4, 5, 3)
    expected = model[0](inputs).mean((1, 2)).detach()
    assert_reads(model, expected, inputs, layer="0")


def test_what_was_done_is_remembered(mlp: nn.Module) -> None:
    """A mean over nothing is none, so that auto and none are comparable on vectors."""
    inputs = torch.randn(2, 6)
    maps = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    for model, data, layer, pooling, done in (
        (mlp, inputs, None, "auto", "none"),
        (mlp, inputs, None, "mean", "none"),
        (mlp, inputs, None, "none", "none"),
        (maps, torch.randn(2, 1, 6, 6), "0", "auto", "mean"),
        (maps, torch.randn(2, 1, 6, 6), "0", "flatten", "flatten"),
    ):
        with torch.no_grad(), Tap(model, layer, pooling) as tap:
            tap.read(model(data))
        assert done == tap.pooling_done


# ---- what cannot be read ---------------------------------------------------------------------


def test_a_misspelt_layer_gets_the_nearest_names() -> None:
    """The names that come closest are offered, and the last layers listed."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", pretrained=False)
    with pytest.raises(InputError, match=r"no layer 'layer4\.1\.cnv2'.*'layer4\.1\.conv2'.*'fc'"):
        Tap(model, "layer4.1.cnv2")
    with pytest.raises(InputError, match=r"no layer 'fcc'.*'fc'"):
        Tap(model, "input:fcc")


@pytest.mark.parametrize("layer", ["", "input:", "input:output"])
def test_an_empty_layer_is_refused(mlp: nn.Module, layer: str) -> None:
    """The model itself is no layer; "output" says what it returns."""
    with pytest.raises(InputError, match="has no layer"):
        Tap(mlp, layer)


def test_a_layer_that_is_never_called_is_refused() -> None:
    """GoogLeNet calls its auxiliary heads in training only."""
    models = pytest.importorskip("torchvision.models")
    model = models.googlenet(weights=None, init_weights=False)
    message = read_error(model, torch.randn(IMAGES), layer="aux1.fc1")
    assert "'aux1.fc1' is never called" in message
    assert "Layers to choose from" in message
    assert "'fc'" in message


def test_a_layer_that_is_called_twice_is_refused() -> None:
    """A block of torchvision's ResNet shares one ReLU; layers called once are offered."""
    models = pytest.importorskip("torchvision.models")
    model = models.resnet18(weights=None)
    message = read_error(model, torch.randn(IMAGES), layer="layer1.0.relu")
    assert "'layer1.0.relu' is called 2 times" in message
    offered = message.partition("Layers to choose from")[2]
    assert "'layer4.1.conv2'" in offered
    assert "relu" not in offered


def test_a_layer_that_returns_a_tuple_is_refused() -> None:
    """LSTMs and attention return more than one tensor; the message says what."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    tokens = torch.randn(2, 4, 6)
    message = read_error(Recurrent(), tokens, layer="lstm")
    assert "'lstm' gives a tuple of (Tensor, tuple), not one tensor" in message
    message = read_error(Attentive(), tokens, layer="attention")
    assert "'attention' gives a tuple of (Tensor, Tensor), not one tensor" in message
    model = Recurrent()
    assert_reads(model, model.lstm(tokens)[0][:, -1].detach(), tokens, found="input:head")


def test_a_model_without_a_final_classifier_gets_a_list_of_layers() -> None:
    """Where the last layer with weights does not give the output, nothing is guessed."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4))
    message = read_error(model, torch.randn(2, 6))
    assert "No final classifier was found" in message
    assert "shape (2, 4)" in message
    assert "last ones first: '3', '2', '1', '0'" in message


def test_a_get_classifier_that_is_not_timms_does_no_harm() -> None:
    """A method of that name may want arguments; the last layer is found all the same."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def get_classifier(self, name: str) -> nn.Module:
            return self.get_submodule(name)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    model, inputs = Own(), torch.randn(2, 6)
    assert_reads(model, model.body(inputs).detach(), inputs, found="input:head")


def test_a_head_of_ones_own_is_not_guessed_at() -> None:
    """A class of one's own with weights may be anything; the layer must be named."""

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.normalize(x) @ nn.functional.normalize(self.weight).T

    model = nn.Sequential(nn.Linear(6, 8), Cosine())
    inputs = torch.randn(2, 6)
    assert "No final classifier was found" in read_error(model, inputs)
    assert_reads(model, model[0](inputs).detach(), inputs, layer="input:1")


def test_a_model_that_returns_a_dict_must_have_its_layer_named() -> None:
    """Its keys are listed; a named layer can be read all the same."""

    class Dict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.head(self.body(x)), "aux": x}

    model, inputs = Dict(), torch.randn(2, 6)
    for layer in (None, "output"):
        message = read_error(model, inputs, layer=layer)
        assert "a dict with the keys 'scores', 'aux'" in message
        assert "'body'" in message
    assert_reads(model, model.body(inputs).detach(), inputs, layer="input:head")


def test_a_model_that_returns_a_dict_with_logits_is_understood() -> None:
    """The key that transformers and many others use for class scores."""

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(self.body(x))}

    model, inputs = Logits(), torch.randn(2, 6)
    assert_reads(model, model.body(inputs).detach(), inputs, found="input:head")
    torch.testing.assert_close(
        logits_of(model(inputs)), model.head(model.body(inputs)), rtol=0, atol=0
    )


def test_class_scores_are_a_table_or_nothing() -> None:
    """Tuples, maps and dicts without logits hold no class scores that can be read."""
    scores = torch.randn(2, 3)
    assert logits_of(scores) is scores
    assert logits_of((scores, scores)) is None
    assert logits_of({"scores": scores}) is None
    assert logits_of(torch.randn(2, 3, 4)) is None


def test_torchscript_is_refused(mlp: nn.Module) -> None:
    """A scripted module calls no hooks; the module it came from must be given."""
    with warnings.catch_warnings():
        # torch.jit is on its way out; modules made with it are still about.
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(mlp, torch.randn(2, 6))
    with pytest.raises(InputError, match=r"TorchScript.*nn\.Module that it was made from"):
        Tap(scripted)


def test_no_hook_stays_when_reading_fails(mlp: nn.Module) -> None:
    """The hooks go when the block ends, however it ends."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), Tap(mlp, "1"):
        mlp(torch.randn(2, 7))
    for module in mlp.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# ---- the digest of the weights ---------------------------------------------------------------


@pytest.fixture
def varied() -> nn.Module:
    """A network with a buffer, a shared container and a head after the tap."""
    body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def test_a_fresh_head_leaves_the_digest_alone(varied: nn.Module) -> None:
    """Another head, also for other classes, changes no representation."""
    inputs = torch.randn(4, 6)
    expected = digest(varied, inputs)
    varied[3] = nn.Linear(5, 7)
    assert expected == digest(varied, inputs)
    assert expected == digest(copy.deepcopy(varied), inputs)


def test_counters_of_batches_leave_the_digest_alone(varied: nn.Module) -> None:
    """num_batches_tracked does nothing in eval mode."""
    inputs = torch.randn(4, 6)
    expected = digest(varied, inputs)
    varied[0][1].num_batches_tracked += 5
    assert expected == digest(varied, inputs)


def test_the_tap_named_or_found_has_the_same_digest(varied: nn.Module) -> None:
    """The digest says what the representation depends on, not how the layer was asked for."""
    inputs = torch.randn(4, 6)
    assert digest(varied, inputs) == digest(varied, inputs, layer="input:3")


BEFORE_THE_HEAD = [
    "0.0.weight",
    "0.0.bias",
    "0.1.weight",
    "0.1.bias",
    "0.1.running_mean",
    "0.1.running_var",
    "1.weight",
    "1.bias",
]


def test_the_weights_before_the_head_are_all_listed_here(varied: nn.Module) -> None:
    """The next test goes through every one of them."""
    known = {name for name in varied.state_dict() if not name.startswith("3.")}
    assert {*BEFORE_THE_HEAD, "0.1.num_batches_tracked"} == known


@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
def test_every_weight_before_the_tap_changes_the_digest(varied: nn.Module, name: str) -> None:
    """The smallest change of one value is enough."""
    inputs = torch.randn(4, 6)
    before = digest(varied, inputs)
    values = varied.state_dict()[name].view(-1)
    values[-1] = torch.nextafter(values[-1], torch.tensor(torch.inf))
    assert before != digest(varied, inputs)


def test_a_named_layer_depends_on_what_runs_before_it_only(varied: nn.Module) -> None:
    """Its own weights count where its output is read, and not where its input is."""
    inputs = torch.randn(4, 6)
    at_output, at_input = (digest(varied, inputs, layer=name) for name in ("1", "input:1"))
    assert at_output != at_input
    with torch.no_grad():
        varied[1].weight.add_(1)
    assert at_output != digest(varied, inputs, layer="1")
    assert at_input == digest(varied, inputs, layer="input:1")
    with torch.no_grad():
        varied[0][0].weight.add_(1)
    assert at_input != digest(varied, inputs, layer="input:1")


def test_equal_values_under_other_names_have_another_digest() -> None:
    """Two layers that swap their weights are another network."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs = torch.randn(3, 4)
    before = digest(model, inputs)
    model[0], model[2] = model[2], model[0]
    assert before != digest(model, inputs)


@pytest.mark.parametrize("name", ["in_proj_weight", "in_proj_bias", "out_proj.weight"])
def test_weights_that_attention_uses_without_calling_a_module_count(name: str) -> None:
    """MultiheadAttention never calls its output projection; its weights matter all the same."""
    model, inputs = Attentive(), torch.randn(2, 4, 6)
    before = digest(model, inputs)
    with torch.no_grad():
        model.attention.get_parameter(name).view(-1)[0] += 1
    assert before != digest(model, inputs)


def test_weights_of_torchs_transformer_count() -> None:
    """All of the encoder's weights do, also where its layers run as one fused call."""
    model, inputs = Tokens(), torch.randint(0, 50, (2, 5))
    before = digest(model, inputs)
    for name, parameter in model.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1
            changed = digest(model, inputs)
            parameter.copy_(kept)
        assert name.startswith("head.") == (before == changed), name


def test_the_digest_is_short_and_hexadecimal(mlp: nn.Module) -> None:
    """Sixteen digits, so that it fits a line and collides once in 2^32 models at random."""
    found = digest(mlp, torch.randn(2, 6))
    assert len(found) == 16
    assert int(found, 16) >= 0


@pytest.mark.parametrize("shared", [False, True])
def test_a_sum_of_two_heads_is_not_guessed_at(shared: bool) -> None:
    """The head that ran last gives only part of the output; reading it would hide the other."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x[:, :3]) + self.other(x[:, :3] if shared else x[:, 3:])

    assert "No final classifier was found" in read_error(Fused(), torch.randn(32, 6))


@pytest.mark.parametrize("after", [nn.Softmax(1), nn.LogSoftmax(1), nn.Identity()])
def test_what_keeps_the_order_of_the_classes_may_follow_the_head(after: nn.Module) -> None:
    """Probabilities and scaled scores come from the same head as the scores."""
    body, inputs = nn.Linear(6, 8), torch.randn(5, 6)
    model = nn.Sequential(body, nn.Linear(8, 3), after)
    assert_reads(model, body(inputs).detach(), inputs, found="input:1")
