"""The deployed block of a shape, built to run exactly as eager PyTorch would run it inside a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidShape
from ..core.shapes import LayerShape
from .epilogue import BINARY, epilogue_module
from .random_data import RandomBank

#: `tf32` is float32 in memory; the timer switches the tensor cores' TF32 path on for it.
TORCH_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A module and the inputs it runs on: all that any runtime needs (eager, graph, compiler, exporter)."""

    module: nn.Module
    inputs: tuple[Tensor, ...]

    def __call__(self) -> Tensor:
        return self.module(*self.inputs)


class Attention(nn.Module):
    """Self-attention over (batch, tokens, channels): three projections to `inner`, the product, one projection back."""

    def __init__(self, channels: int, inner: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(channels, 3 * inner, bias=bias)
        self.project_out = nn.Linear(inner, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.project_in(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.project_out(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class DeployedBlock(nn.Module):
    """A layer, then its epilogue; the operands of adds and gates are inputs, as in the network."""

    def __init__(self, layer: nn.Module, epilogue: list[tuple[nn.Module, bool]]) -> None:
        super().__init__()
        self.layer = layer
        self.epilogue = nn.ModuleList(module for module, _ in epilogue)
        self._steps = tuple(epilogue)

    def forward(self, x: Tensor, *operands: Tensor) -> Tensor:
        y = self.layer(x)
        waiting = iter(operands)
        for module, binary in self._steps:
            y = module(y, next(waiting)) if binary else module(y)
        return y


def build_block(shape: LayerShape, bank: RandomBank) -> Block:
    """The block of `shape` on the bank's device: weights ~ N(0, 1/fan_in), inputs ~ N(0, 1), eval mode.

    InvalidShape names what eager PyTorch cannot run. Memory: inputs are views into the bank, weights are the block's own.

    >>> shape = LayerShape(op="conv", batch=2, in_channels=3, out_channels=8, in_hw=(9, 9), kernel_hw=(3, 3), epilogue=("bias", "relu"))
    >>> tuple(build_block(shape, RandomBank("cpu"))().shape)
    (2, 8, 7, 7)
    """
    if shape.dtype not in TORCH_DTYPES:
        raise InvalidShape(
            f"Eager PyTorch runs no {shape.dtype} {shape.op} layer; import its times from TensorRT instead."
        )
    dtype = TORCH_DTYPES[shape.dtype]
    maps = shape.op in ("conv", "max_pool", "avg_pool") or (shape.op == "elementwise")
    channels_last = maps and shape.memory_format == "channels_last"
    layer_bias = shape.op in ("conv", "linear", "attention") and "bias" in shape.epilogue[:1]
    in_size = _input_size(shape)
    rank = len(in_size)
    out_channels = shape.in_channels if shape.op == "attention" else shape.out_channels

    with torch.device("meta"):
        layer = _layer(shape, bias=layer_bias)
        ops = shape.epilogue[1:] if layer_bias else shape.epilogue
        epilogue = []
        for index, op in enumerate(ops):
            fresh = shape.op != "elementwise" or index > 0  # the bank's numbers must survive
            epilogue.append((epilogue_module(op, out_channels, rank=rank, in_place=fresh), op in BINARY))
        module = DeployedBlock(layer, epilogue)
    module = module.to(dtype).to_empty(device=bank.device)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    _fill(module, bank)

    inputs = [bank.view(in_size, dtype, channels_last=channels_last)]
    out_size = (shape.batch, out_channels, *shape.out_hw) if maps else (*in_size[:-1], out_channels)
    for op in ops:
        if op in BINARY:
            size = (*out_size[:2], 1, 1) if op == "mul" and maps else out_size
            inputs.append(bank.view(size, dtype, channels_last=channels_last, place=len(inputs)))
    return Block(module=module.eval(), inputs=tuple(inputs))


def _input_size(shape: LayerShape) -> tuple[int, ...]:
    pixels = shape.in_hw[0] * shape.in_hw[1]
    if shape.op == "linear" and pixels == 1:
        return (shape.batch, shape.in_channels)
    if shape.op in ("linear", "attention"):
        return (shape.batch, pixels, shape.in_channels)
    return (shape.batch, shape.in_channels, *shape.in_hw)


def _layer(shape: LayerShape, *, bias: bool) -> nn.Module:
    if shape.op == "conv":
        return nn.Conv2d(shape.in_channels, shape.out_channels, shape.kernel_hw, stride=shape.stride_hw,
                         padding=shape.padding_hw, dilation=shape.dilation_hw, groups=shape.conv_groups, bias=bias)  # fmt: skip
    if shape.op == "linear":
        return nn.Linear(shape.in_channels, shape.out_channels, bias=bias)
    if shape.op == "attention":
        if shape.out_channels % shape.conv_groups:
            raise InvalidShape(
                f"Attention of {shape.out_channels} channels cannot have {shape.conv_groups} heads; "
                "the channels must be a multiple of the heads."
            )
        return Attention(shape.in_channels, shape.out_channels, shape.conv_groups, bias)
    if shape.op == "max_pool":
        return nn.MaxPool2d(shape.kernel_hw, shape.stride_hw, shape.padding_hw, shape.dilation_hw)
    if shape.op == "avg_pool":
        if shape.dilation_hw != (1, 1):
            raise InvalidShape(f"PyTorch has no average pool with dilation {shape.dilation_hw}; use (1, 1).")
        if shape.kernel_hw == shape.in_hw and shape.padding_hw == (0, 0):
            return nn.AdaptiveAvgPool2d(1)  # what models call for a global pool; it runs another kernel
        return nn.AvgPool2d(shape.kernel_hw, shape.stride_hw, shape.padding_hw)
    return nn.Identity()


def _fill(module: nn.Module, bank: RandomBank) -> None:
    """Random weights everywhere; the running variance of a norm is one, so that nothing overflows or divides by zero."""
    with torch.no_grad():
        for part in module.modules():
            for name, held in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                if name == "running_var":
                    held.fill_(1.0)
                elif held.is_floating_point():
                    fan_in = math.prod(held.shape[1:]) if held.dim() > 1 else 1
                    bank.fill(held, 1 / math.sqrt(fan_in))
