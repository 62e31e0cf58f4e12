"""Small networks with random norms, and latency sources with and without steps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tailprune.core.shapes import LayerShape

IMAGES = torch.zeros(2, 3, 16, 16)


def conv_norm(channels: int, width: int, *, kernel: int = 3, conv_groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, 1, kernel // 2, groups=conv_groups, bias=conv_groups > 1)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


class SmallNet(nn.Module):
    """A residual pair, a depthwise layer, a concatenation, a grouped convolution and a flattened head."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(3, width)
        self.inner, self.outer = conv_norm(width, 24), conv_norm(24, width)
        self.expand, self.depth = conv_norm(width, 20, kernel=1), conv_norm(20, 20, conv_groups=20)
        self.merge = conv_norm(width + 20, 32)
        self.grouped = conv_norm(32, 24, conv_groups=4)
        self.head = nn.Linear(24 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        y = F.relu6(self.depth(F.relu6(self.expand(x))))
        x = F.relu(self.merge(torch.cat([x, y], 1)))
        x = F.adaptive_avg_pool2d(F.relu(self.grouped(x)), 2)
        return self.head(x.flatten(1))


def small_net(seed: int = 0, **options: int) -> nn.Module:
    torch.manual_seed(seed)
    return shaken(SmallNet(**options))


def shaken(net: nn.Module) -> nn.Module:
    """Norms as after training: nothing is 1 or 0."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


class Smooth:
    """No steps at all: a microsecond per thousand multiply-adds, and one."""

    origin = "smooth"

    def latency_us(self, shape: LayerShape) -> float:
        return 1.0 + shape.macs / 1000

    def kind(self, shape: LayerShape) -> str:
        return "modelled"


class Stairs(Smooth):
    """Both channel counts cost as much as the next multiple of 8."""

    origin = "stairs of 8"

    def latency_us(self, shape: LayerShape) -> float:
        if shape.op not in ("conv", "linear"):
            return 1.0
        ins, outs = (8 * math.ceil(n / 8) for n in (shape.in_channels, shape.out_channels))
        pixels = shape.out_hw[0] * shape.out_hw[1] * shape.kernel_hw[0] * shape.kernel_hw[1]
        return 1.0 + shape.batch * pixels * ins * outs / shape.conv_groups / 1000
