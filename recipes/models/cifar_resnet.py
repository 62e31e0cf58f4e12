"""ResNets for 32x32 images (He et al. 2016, section 4.2), with the paper's shortcuts or with projections."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.errors import RecipeError


class PaddedShortcut(nn.Module):
    """The paper's option A, without parameters: every second pixel, zero channels in equal parts on both sides.

    The count of zeros is fixed by construction: channel i of the input meets channel i + zeros of the block, so the
    two sides of the addition are coupled with an offset, and neither may be pruned (`CifarResNet.unprunable_layers`).
    """

    def __init__(self, zeros: int) -> None:
        super().__init__()
        self.zeros = zeros

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.zeros, self.zeros))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; only `conv1`'s outputs live inside the block."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Stages of basic blocks, each stage after the first halving the image.

    `shortcut="pad"` is the paper's network (no parameters in shortcuts; each block's inner width is prunable, the
    residual stream is not). `shortcut="projection"` has a 1x1 convolution and a norm where the width changes; there
    every channel group is prunable.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        widths: tuple[int, ...] = (16, 32, 64),
        *,
        shortcut: str = "pad",
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        if shortcut not in ("pad", "projection") or len(blocks) != len(widths) or min(*blocks, *widths) < 1:
            raise RecipeError(
                f"A CifarResNet needs one block count and one width per stage and shortcut 'pad' or 'projection', "
                f"got blocks {blocks}, widths {widths}, shortcut {shortcut!r}."
            )
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.num_stages = len(blocks)
        in_channels = widths[0]
        for index, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stride = 1 if index == 0 else 2
            stage = [BasicBlock(in_channels, width, stride, _shortcut(in_channels, width, stride, shortcut))]
            stage += [BasicBlock(width, width, 1, nn.Identity()) for _ in range(count - 1)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
            in_channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in self.stages():
            x = stage(x)
        return self.linear(torch.flatten(self.pool(x), 1))

    def stages(self) -> Iterator[nn.Module]:
        for index in range(self.num_stages):
            yield getattr(self, f"layer{index + 1}")

    def unprunable_layers(self) -> list[nn.Module]:
        """Layers to hand to a pruner as `ignored_layers`: all that write to a stream which padded shortcuts cross."""
        if not any(isinstance(module, PaddedShortcut) for module in self.modules()):
            return []
        return [self.conv1, *(module.conv2 for module in self.modules() if isinstance(module, BasicBlock))]


class EverySecondPixel(nn.Module):
    """What a stride of 2 does to a 1x1 convolution, done before it: strided ones crash on CPUs (`finetune.training_layout`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


def spell_out_shortcuts(model: CifarResNet) -> CifarResNet:
    """The same function with every padded shortcut written as a 1x1 convolution of zeros and ones, in place.

    Outputs are equal to the last bit, and every channel group becomes prunable; without this a padded ResNet-20 cannot
    fall below half of its latency, because the residual stream keeps its width.
    """
    for block in [module for module in model.modules() if isinstance(module, BasicBlock)]:
        if isinstance(block.shortcut, PaddedShortcut):
            ins, outs = block.conv1.in_channels, block.conv2.out_channels
            convolution = nn.Conv2d(ins, outs, 1, bias=False).to(block.conv1.weight.device)
            with torch.no_grad():
                convolution.weight.zero_()
                convolution.weight[torch.arange(ins) + block.shortcut.zeros, torch.arange(ins)] = 1.0
            block.shortcut = nn.Sequential(EverySecondPixel(), convolution)
    return model


def _shortcut(in_channels: int, channels: int, stride: int, kind: str) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    if kind == "pad":
        if channels < in_channels or (channels - in_channels) % 2:
            raise RecipeError(
                f"A padded shortcut cannot turn {in_channels} channels into {channels}: the difference must be even "
                "and not negative. Use shortcut='projection'."
            )
        return PaddedShortcut((channels - in_channels) // 2)
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))


def resnet20(num_classes: int = 10) -> CifarResNet:
    return CifarResNet((3, 3, 3), num_classes=num_classes)


def resnet32(num_classes: int = 10) -> CifarResNet:
    return CifarResNet((5, 5, 5), num_classes=num_classes)


def resnet44(num_classes: int = 10) -> CifarResNet:
    return CifarResNet((7, 7, 7), num_classes=num_classes)


def resnet110(num_classes: int = 10) -> CifarResNet:
    return CifarResNet((18, 18, 18), num_classes=num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    return CifarResNet((9, 9, 9), num_classes=num_classes)


def slim_resnet(blocks_per_stage: int = 1, num_classes: int = 10) -> CifarResNet:
    """The quickstart's network: stages of 32, 64 and 128 channels, every channel group prunable."""
    return CifarResNet((blocks_per_stage,) * 3, (32, 64, 128), shortcut="projection", num_classes=num_classes)
