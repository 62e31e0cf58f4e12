"""MobileNetV2 (Sandler et al. 2018) for 32x32 images: torchvision's, with two strides of 2 taken out."""

from __future__ import annotations

from torch import nn
from torchvision.models import MobileNetV2

#: Expansion, channels, blocks, stride of each stage: the paper's table 2, with the stride of its second stage taken out.
STAGES_32 = [
    [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1],
]  # fmt: skip


def mobilenet_v2_32(num_classes: int = 10) -> MobileNetV2:
    """2.24 M parameters; 32x32 images leave the last stage as 4x4, where the original would leave 1x1."""
    model = MobileNetV2(num_classes=num_classes, inverted_residual_setting=STAGES_32)
    stem = model.features[0][0]
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (1, 1)
    return model
