"""Six known architectures fitted to small images, at full size and narrow enough for a CPU."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal, get_args

import torch
from torch import nn

from resque.errors import InputError, missing_extra, nearest

Size = Literal["full", "narrow"]
NETWORKS = ("vgg16", "resnet18", "densenet", "googlenet", "mobilenet_v2", "vit")

# Channels of the convolutions of VGG16, "M" for a pooling. The narrow one is not the full one
# divided: that would leave nearly all weights in the last layers and too few in the first.
_VGG16 = {
    "full": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "narrow": "16 16 M 32 32 M 48 48 48 M 64 64 64 M 64 64 64 M",
}
# Szegedy et al., arXiv:1409.4842, table 1: channels into a block, of the 1 x 1, of the 3 x 3 and
# what reduces to it, of the 5 x 5 and likewise, of the pooling; a row of none is a pooling.
_INCEPTIONS: tuple[tuple[int, ...], ...] = (
    (192, 64, 96, 128, 16, 32, 32),
    (256, 128, 128, 192, 32, 96, 64),
    (),
    (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64),
    (512, 128, 128, 256, 24, 64, 64),
    (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128),
    (),
    (832, 256, 160, 320, 32, 128, 128),
    (832, 384, 192, 384, 48, 128, 128),
)


def network(
    name: str,
    classes: int,
    *,
    size: Size = "full",
    seed: int = 0,
    image_size: int = 32,
    channels: int = 3,
) -> nn.Module:
    """Return an untrained network for images (batch, channels, image_size, image_size).

    Each has the layers of its paper but for what would shrink a small image early: the first
    convolution is 3 x 3 with stride 1, nothing is pooled right after it, MobileNetV2 halves the
    image three times instead of five, the ViT reads patches of 4 px. "narrow" has fewer channels
    (DenseNet fewer layers too), 8 to 20 million multiply-adds per image of 32 px and 30 to 400
    thousand weights; MobileNetV2 halves the image once more there and has 2 to 3 million, because
    its layers of one channel each take a CPU several times as long as their number says. None has
    dropout, also where its paper has: the two sizes then differ in size alone, and an update in
    nothing but its data.

    The weights are drawn by the libraries' constructors. For a retraining with start="scratch"
    give `untrained=lambda: network(...)`: without it, layers draw by PyTorch's defaults, which are
    not those of every constructor.

    Args:
        name: "vgg16" (with batch norm, arXiv:1409.1556), "resnet18" (arXiv:1512.03385),
            "densenet" (DenseNet-121, arXiv:1608.06993), "googlenet" (without auxiliary heads;
            its 5 x 5 convolutions are torchvision's 3 x 3; arXiv:1409.4842), "mobilenet_v2"
            (arXiv:1801.04381) or "vit" (6 layers, mean of the tokens; arXiv:2010.11929).
        classes: number of classes, 2 or more.
        size: "full" or "narrow".
        seed: of the weights; the caller's random state is left as it was.
        image_size: pixels per side, a multiple of 4 and at least 32; only the ViT is tied to it.
        channels: of the images.

    Raises:
        InputError: there is no such network or size, or a number is out of range.
        MissingExtraError: torchvision or timm is not installed.

    Example:
        >>> model = network("resnet18", 10, size="narrow")
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if name not in NETWORKS:
        raise InputError(
            f"There is no network {name!r}.{nearest(name, NETWORKS)} Expected one of "
            f"{', '.join(NETWORKS)}."
        )
    if size not in get_args(Size):
        raise InputError(f"size must be 'full' or 'narrow'; got {size!r}.")
    if classes < 2:
        raise InputError(f"A classifier needs at least two classes; got {classes}.")
    if channels < 1:
        raise InputError(f"channels must be 1 or more; got {channels}.")
    if image_size < 32 or image_size % 4:
        raise InputError(
            f"image_size must be a multiple of 4 and at least 32; got {image_size}. Pad or resize "
            "the images."
        )
    builders = {
        "vgg16": _vgg16,
        "resnet18": _resnet18,
        "densenet": _densenet,
        "googlenet": _googlenet,
        "mobilenet_v2": _mobilenet_v2,
    }
    with torch.random.fork_rng([]):  # networks are built on the CPU
        torch.manual_seed(seed)
        if name == "vit":
            return _vit(classes, size, channels, image_size)
        try:
            return builders[name](classes, size, channels)
        except ModuleNotFoundError as error:
            raise missing_extra("torchvision", "vision") from error


def _vgg16(classes: int, size: Size, channels: int) -> nn.Module:
    from torchvision.models.vgg import make_layers

    config = [part if part == "M" else int(part) for part in _VGG16[size].split()]
    features = make_layers(config, batch_norm=True)
    width = int(config[-2])
    features[0] = nn.Conv2d(channels, int(config[0]), 3, padding=1)
    # The published layers of 4096 values are for images of 224 px.
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, classes),
            ),
        )
    )


def _resnet18(classes: int, size: Size, channels: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock

    width = 64 if size == "full" else 12

    def stage(before: int, after: int, stride: int) -> nn.Module:
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        return nn.Sequential(
            BasicBlock(before, after, stride, downsample=shortcut), BasicBlock(after, after)
        )

    # torchvision's ResNet takes no number of channels; its blocks do.
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            layer1=stage(width, width, 1),
            layer2=stage(width, 2 * width, 2),
            layer3=stage(2 * width, 4 * width, 2),
            layer4=stage(4 * width, 8 * width, 2),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(8 * width, classes),
        )
    )


def _densenet(classes: int, size: Size, channels: int) -> nn.Module:
    from torchvision.models import DenseNet

    growth, layers = (32, (6, 12, 24, 16)) if size == "full" else (8, (2, 4, 8, 5))
    model: nn.Module = DenseNet(growth, layers, 2 * growth, num_classes=classes)
    features: Any = model.features
    features.conv0 = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
    features.pool0 = nn.Identity()
    return model


def _googlenet(classes: int, size: Size, channels: int) -> nn.Module:
    from torchvision.models.googlenet import BasicConv2d, Inception

    width = 1 if size == "full" else 0.1

    def scaled(values: int) -> int:
        return max(4, round(values * width))

    stem = scaled(64)
    blocks: list[nn.Module] = [
        BasicConv2d(channels, stem, kernel_size=3, padding=1),
        BasicConv2d(stem, stem, kernel_size=1),
        BasicConv2d(stem, scaled(192), kernel_size=3, padding=1),
    ]
    given = scaled(192)
    for row in _INCEPTIONS:
        if not row:
            blocks.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            continue
        one, to_three, three, to_five, five, pool = map(scaled, row[1:])
        blocks.append(Inception(given, one, to_three, three, to_five, five, pool))
        given = one + three + five + pool
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*blocks),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(given, classes),
        )
    )


def _mobilenet_v2(classes: int, size: Size, channels: int) -> nn.Module:
    from torchvision.models import MobileNetV2

    # Sandler et al., table 2: expansion, channels, blocks, stride; the second row's stride is 2
    # there, and that of the first convolution too.
    rows = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    model: nn.Module = MobileNetV2(
        num_classes=classes,
        width_mult=1.0 if size == "full" else 0.25,
        inverted_residual_setting=rows,
        dropout=0.0,
    )
    features: Any = model.features
    first = features[0][0].out_channels
    stride = 1 if size == "full" else 2
    features[0][0] = nn.Conv2d(channels, first, 3, stride, padding=1, bias=False)
    return model


def _vit(classes: int, size: Size, channels: int, image_size: int) -> nn.Module:
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ModuleNotFoundError as error:
        raise missing_extra("timm", "vision") from error

    width, heads = (384, 6) if size == "full" else (48, 3)
    model: nn.Module = VisionTransformer(
        img_size=image_size,
        patch_size=4,
        in_chans=channels,
        num_classes=classes,
        embed_dim=width,
        depth=6,
        num_heads=heads,
        global_pool="avg",
        class_token=False,
    )
    return model
