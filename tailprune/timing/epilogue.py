"""What runs behind a layer inside its timed block, as the modules that eager models use for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.errors import InvalidShape

#: Activations, in place where the common model zoos do so (torchvision: relu, relu6, silu, hardswish).
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}
IN_PLACE = ("relu", "relu6", "silu", "mish", "hardswish", "leaky_relu", "elu")
#: Epilogue ops with a second operand, which comes from elsewhere in the network.
BINARY = ("add", "mul")
LOCAL_RESPONSE_SIZE = 5  # AlexNet and GoogLeNet
MOST_NORM_GROUPS = 32  # Wu & He 2018, group normalization


class Add(nn.Module):
    """A residual connection. In place on the branch (`out += identity`), out of place where the input must survive."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, y: Tensor, operand: Tensor) -> Tensor:
        return y.add_(operand) if self.in_place else y + operand


class Gate(nn.Module):
    """Squeeze-and-excitation: one factor per image and channel."""

    def forward(self, y: Tensor, operand: Tensor) -> Tensor:
        return operand * y


class PerChannel(nn.Module):
    """One factor (layer scale) or one summand (a bias that no layer took in) per channel."""

    def __init__(self, channels: int, channel_dim: int, op: str) -> None:
        super().__init__()
        size = (channels,) if channel_dim == -1 else (channels, 1, 1)
        self.value = nn.Parameter(torch.empty(size))
        self.op = op

    def forward(self, y: Tensor) -> Tensor:
        return y * self.value if self.op == "scale" else y + self.value


class ChannelsLast(nn.Module):
    """A norm over the last dimension, applied to maps (batch, channels, rows, columns)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, y: Tensor) -> Tensor:
        return self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OverTokens(nn.Module):
    """A norm over (batch, channels), applied to tokens (batch, tokens, channels)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, y: Tensor) -> Tensor:
        return self.norm(y.flatten(0, 1)).view_as(y)


class Concatenate(nn.Module):
    """A concatenation written out: its parts are read, every channel of the result is written."""

    def forward(self, y: Tensor) -> Tensor:
        return torch.cat((y,), dim=1)


class Copy(nn.Module):
    """A layout change or shuffle: everything is read and written once."""

    def forward(self, y: Tensor) -> Tensor:
        return y.clone()


def epilogue_module(op: str, channels: int, *, rank: int, in_place: bool) -> nn.Module:
    """The module for one epilogue op over `channels`; `rank` is 4 for maps, 3 for tokens, 2 for vectors."""
    channel_dim = 1 if rank == 4 else -1
    if op == "add":
        return Add(in_place)
    if op == "mul":
        return Gate()
    if op in ACTIVATIONS:
        return ACTIVATIONS[op](inplace=True) if in_place and op in IN_PLACE else ACTIVATIONS[op]()
    if op == "softmax":
        return nn.Softmax(dim=channel_dim)
    if op == "batch_norm":
        if rank == 4:
            return nn.BatchNorm2d(channels)
        return OverTokens(nn.BatchNorm1d(channels)) if rank == 3 else nn.BatchNorm1d(channels)
    if op == "layer_norm":
        return ChannelsLast(nn.LayerNorm(channels)) if rank == 4 else nn.LayerNorm(channels)
    if op == "group_norm":
        norm = nn.GroupNorm(math.gcd(MOST_NORM_GROUPS, channels), channels)
        return OverTokens(norm) if rank == 3 else norm
    if op == "local_response_norm":
        if rank != 4:
            raise InvalidShape(
                "A local_response_norm is over the channels of maps; it cannot follow vectors or tokens."
            )
        return nn.LocalResponseNorm(LOCAL_RESPONSE_SIZE)
    if op in ("scale", "bias"):
        return PerChannel(channels, channel_dim, op)
    return Concatenate() if op == "cat" else Copy()
