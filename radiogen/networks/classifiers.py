"""The classifiers of the pruning papers: ResNet18 and VGG19 for CIFAR, and a small ResNet for digits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from radiogen.errors import ConfigError
from radiogen.networks.raseg import initialise

OUTPUT_LAYER = "linear"  # never pruned


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut, projected where shapes differ (He et al. 2016)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            projection = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:  # (B, before, H, W)
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))  # (B, width, H/stride, W/stride)
        return relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet for small images: a 3x3 stem without pooling, stages that double the width, a linear layer."""

    def __init__(self, channels: int, classes: int, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers, before = [], width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(BasicBlock(before, width << stage, stride))
                before = width << stage
        self.blocks = nn.Sequential(*layers)
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, H, W)
        x = self.blocks(relu(self.bn1(self.conv1(x))))  # (B, 8 width, H/8, W/8) with four stages
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits  # (B, classes)


class VGG(nn.Module):
    """VGG with BatchNorm and one linear layer; a stage is some 3x3 convolutions and a pooling by 2."""

    def __init__(self, channels: int, classes: int, stages: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for stage in stages:
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.smallest_side = 2 ** len(stages)
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, H, W)
        if min(x.shape[2:]) < self.smallest_side:
            size = " x ".join(str(n) for n in x.shape[2:])
            least = f"give images of at least {self.smallest_side} pixels a side"
            raise ConfigError(f"images of {size} pixels", "are too small for vgg19", f"{least}, or a ResNet")
        x = self.features(x)  # (B, 8 width, H/32, W/32)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits  # (B, classes)


def _vgg19(channels: int, classes: int, width: int) -> nn.Module:
    w = width
    return VGG(channels, classes, ((w,) * 2, (2 * w,) * 2, (4 * w,) * 4, (8 * w,) * 4, (8 * w,) * 4))


CLASSIFIERS: dict[str, tuple[int, Callable[[int, int, int], nn.Module]]] = {
    "resnet18": (64, lambda channels, classes, w: ResNet(channels, classes, w, (2, 2, 2, 2))),
    "vgg19": (64, _vgg19),
    "resnet8": (16, lambda channels, classes, w: ResNet(channels, classes, w, (1, 1, 1))),
}
"""By name: the width of the first stage, and how it is built from (channels, classes, width)."""


def build_classifier(
    name: str, channels: int, classes: int, seed: int, width: int | None = None
) -> nn.Module:
    """A classifier at its start; the same arguments give the same weights.

    Args:
        name: `resnet18` (11,173,962 weights for three channels and ten classes), `vgg19` (20,040,522) or
            `resnet8` (77,754 for one channel and ten classes).
        channels: Of an image.
        classes: Of the answer.
        seed: Of the weights.
        width: Of the first stage, if not the published one; the others follow.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"network {name}", "is unknown", f"there are {', '.join(CLASSIFIERS)}")
    published, build = CLASSIFIERS[name]
    network = build(channels, classes, width or published)
    initialise(network, torch.Generator().manual_seed(seed))
    return network
