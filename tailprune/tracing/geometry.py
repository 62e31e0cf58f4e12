"""The shape of a deployed block, from what it read and wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.errors import InvalidShape
from ..core.shapes import LayerShape
from .blocks import Block

Pair = tuple[int, int]


def shape_of(block: Block, *, dtype: str, memory_format: str) -> LayerShape | str:
    """The block's shape, or why it has none: a product that a `LayerShape` cannot describe."""
    common: dict[str, Any] = {"dtype": dtype, "memory_format": memory_format, "epilogue": tuple(block.epilogue)}
    build = {"conv": _conv, "linear": _linear, "attention": _attention, "max_pool": _pool, "avg_pool": _pool}
    if block.kind == "product":
        return f"a product of two activations ({block.operation.function}) has no shape here"
    if block.kind == "conv_transpose":
        return "a transposed convolution has no shape here"
    try:
        found = build.get(block.kind, _elementwise)(block)
        return found if isinstance(found, str) else LayerShape(**found, **common)
    except InvalidShape as error:
        return str(error).rstrip(".")


def _conv(block: Block) -> dict[str, Any] | str:
    given, weight = block.operation.arguments, block.operation.operands[1].shape
    image = block.operation.operands[0].shape
    spatial = len(weight) - 2
    if spatial > 2:
        return "a three-dimensional convolution has no shape here"
    batch = image[0] if len(image) == len(weight) else 1
    in_hw, kernel_hw, dilation_hw = _pair(image[-spatial:]), _pair(weight[2:]), _pair(given.get("dilation", 1), spatial)
    padding = given.get("padding", 0)
    if padding == "same":
        padding_hw = _two(-(-d * (k - 1) // 2) for d, k in zip(dilation_hw, kernel_hw, strict=True))
    else:
        padding_hw = (0, 0) if padding == "valid" else _pair(padding, spatial, fill=0)
    return {
        "op": "conv", "batch": batch, "in_channels": image[-spatial - 1], "out_channels": weight[0], "in_hw": in_hw,
        "kernel_hw": kernel_hw, "stride_hw": _pair(given.get("stride", 1), spatial), "padding_hw": padding_hw,
        "dilation_hw": dilation_hw, "conv_groups": given.get("groups", 1),
    }  # fmt: skip


def _linear(block: Block) -> dict[str, Any]:
    read, out = block.operation.operands[0].shape, block.operation.out_shape
    return {
        "op": "linear", "batch": read[0] if len(read) > 1 else 1, "in_channels": read[-1], "out_channels": out[-1],
        "in_hw": (math.prod(read[1:-1]), 1),
    }  # fmt: skip


def _attention(block: Block) -> dict[str, Any] | str:
    """The function takes (tokens, batch, channels), whatever the module was given."""
    query, key = (operand.shape for operand in block.operation.operands[:2])
    if query != key:
        return f"attention from {query[0]} to {key[0]} tokens has no shape here"
    tokens, batch, channels = query if len(query) == 3 else (query[0], 1, query[1])
    return {
        "op": "attention", "batch": batch, "in_channels": channels, "out_channels": channels, "in_hw": (tokens, 1),
        "conv_groups": block.operation.arguments.get("num_heads", 1),
    }  # fmt: skip


def _pool(block: Block) -> dict[str, Any]:
    read, out, given = block.operation.operands[0].shape, block.operation.out_shape, block.operation.arguments
    spatial = _pooled_sides(block)
    if not spatial or any(o > i for i, o in zip(read[-spatial:], out[-spatial:], strict=False)):
        return _elementwise(block)
    if "kernel_size" not in given:
        in_hw = _pair(read[-spatial:]) if "dim" not in given or spatial == 2 else (math.prod(read[1:-1]), 1)
        out_hw = (1, 1) if "dim" in given else _pair(out[-spatial:])
        stride_hw = _two(i // o for i, o in zip(in_hw, out_hw, strict=True))
        kernel_hw = _two(i - (o - 1) * s for i, o, s in zip(in_hw, out_hw, stride_hw, strict=True))
        padding_hw = dilation_hw = None
    else:
        in_hw, out_hw = _pair(read[-spatial:]), _pair(out[-spatial:])
        kernel_hw = _pair(given["kernel_size"], spatial)
        stride_hw = _pair(given.get("stride") or given["kernel_size"], spatial)
        padding_hw = _ceiled(
            _pair(given.get("padding", 0), spatial, fill=0), in_hw, kernel_hw, stride_hw, out_hw, given
        )
        dilation_hw = _pair(given.get("dilation", 1), spatial)
    return {
        "op": block.kind, "batch": read[0], "in_channels": block.channels, "out_channels": block.channels, "in_hw": in_hw,
        "kernel_hw": kernel_hw, "stride_hw": stride_hw, "padding_hw": padding_hw or (0, 0), "dilation_hw": dilation_hw or (1, 1),
    }  # fmt: skip


def _pooled_sides(block: Block) -> int:
    """How many trailing axes are pooled; 0 for a mean over anything but all pixels or all tokens."""
    read, given = block.operation.operands[0].shape, block.operation.arguments
    if block.operation.function != "mean":
        return 1 if "1d" in block.operation.function else 2
    dim = given.get("dim", ())
    axes = {axis % len(read) for axis in (dim if isinstance(dim, list | tuple) else (dim,))}
    if len(read) == 4 and axes == {2, 3}:
        return 2
    return 1 if len(read) > 2 and axes == set(range(1, len(read) - 1)) else 0


def _ceiled(padding: Pair, in_hw: Pair, kernel: Pair, stride: Pair, out_hw: Pair, given: Mapping[str, Any]) -> Pair:
    """A pool that rounds up reads one more row at the edge: as padding, the output has its true size."""
    if not given.get("ceil_mode"):
        return padding
    sides = zip(padding, in_hw, kernel, stride, out_hw, strict=True)
    return _two(pad + ((side + 2 * pad - k) // s + 1 < out) for pad, side, k, s, out in sides)


def _elementwise(block: Block) -> dict[str, Any]:
    out, channels = block.operation.out_shape or (1,), block.channels
    batch = out[0] if len(out) > 1 else 1
    if len(out) == 4 and out[1] == channels:
        in_hw: Pair = (out[2], out[3])
    else:
        in_hw = (max(1, math.prod(out) // (batch * channels)), 1)
    return {"op": "elementwise", "batch": batch, "in_channels": channels, "out_channels": channels, "in_hw": in_hw}


def _pair(value: Any, spatial: int = 2, *, fill: int = 1) -> Pair:
    """Two numbers from one, or from a tuple of one (a one-dimensional layer is one column wide)."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,) * spatial
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (int(numbers[0]), fill)


def _two(numbers: Any) -> Pair:
    first, second = numbers
    return int(first), int(second)
