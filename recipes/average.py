"""The running average of the weights: smoother than the last step, and nearly free (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(model: nn.Module) -> nn.Module:
    """Where the average is kept."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, *, seen: int) -> None:
    """One step of the exponential average, quicker in the beginning; buffers are copied."""
    decay = min(decay, (1 + seen) / (10 + seen))  # TensorFlow's ExponentialMovingAverage(num_updates)
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for mine, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(buffer)
