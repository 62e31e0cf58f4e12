"""What is timed: one layer with its epilogue, at one pair of channel counts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from .errors import InvalidShape

#: The kinds of layer a network is a sum of. `elementwise` is a chain without a matrix product (its epilogue says which).
OPS = ("conv", "linear", "attention", "max_pool", "avg_pool", "elementwise")
DTYPES = ("float32", "tf32", "float16", "bfloat16", "int8")
DTYPE_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
MEMORY_FORMATS = ("channels_last", "contiguous")
#: What may follow a layer inside its timed block, in the order it runs. Batch norms behind a layer are folded into it
#: for inference and leave only a `bias`; `batch_norm` stands where it cannot be folded (before a convolution).
EPILOGUE_OPS = (
    "bias", "add", "mul", "relu", "relu6", "silu", "gelu", "mish", "hardswish", "hardsigmoid", "sigmoid", "leaky_relu",
    "tanh", "elu", "softmax", "batch_norm", "layer_norm", "group_norm", "local_response_norm", "scale", "cat", "copy",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """The implicit-GEMM view of a layer: `count` independent products of (m x k) by (k x n)."""

    m: int
    n: int
    k: int
    count: int = 1

    @property
    def macs(self) -> int:
        return self.m * self.n * self.k * self.count


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One timed unit, the **deployed block**: a layer and its epilogue, run as one warm chain.

    Two layers with equal shapes are one measurement, so this is also the key of a latency table.
    `in_hw` is the spatial size of the input, (rows, columns); a linear layer over tokens has (tokens, 1).
    `conv_groups` equal to both channel counts is a depthwise convolution. For `attention`, `conv_groups` is the
    number of heads and `in_hw` (tokens, 1).

    >>> shape = LayerShape(op="conv", batch=32, in_channels=256, out_channels=256, in_hw=(14, 14), kernel_hw=(3, 3), padding_hw=(1, 1))
    >>> shape.gemm
    Gemm(m=6272, n=256, k=2304, count=1)
    >>> shape.with_channels(out_channels=128).macs / shape.macs
    0.5
    """

    op: str
    batch: int
    in_channels: int
    out_channels: int
    in_hw: tuple[int, int] = (1, 1)
    kernel_hw: tuple[int, int] = (1, 1)
    stride_hw: tuple[int, int] = (1, 1)
    padding_hw: tuple[int, int] = (0, 0)
    dilation_hw: tuple[int, int] = (1, 1)
    conv_groups: int = 1
    dtype: str = "float32"
    memory_format: str = "channels_last"
    epilogue: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in (("op", OPS), ("dtype", DTYPES), ("memory_format", MEMORY_FORMATS)):
            if getattr(self, name) not in allowed:
                raise InvalidShape(f"Unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}.")
        for name in ("batch", "in_channels", "out_channels", "conv_groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidShape(f"A layer's {name} must be a positive integer, got {value!r}.")
        for name, floor in (("in_hw", 1), ("kernel_hw", 1), ("stride_hw", 1), ("padding_hw", 0), ("dilation_hw", 1)):
            value = getattr(self, name)
            if len(value) != 2 or not all(isinstance(v, int) and v >= floor for v in value):
                raise InvalidShape(f"A layer's {name} must be two integers of at least {floor}, got {value!r}.")
        unknown = [e for e in self.epilogue if e not in EPILOGUE_OPS]
        if unknown:
            raise InvalidShape(f"Unknown epilogue {unknown[0]!r}; allowed: {', '.join(EPILOGUE_OPS)}.")
        if self.op == "conv" and (self.in_channels % self.conv_groups or self.out_channels % self.conv_groups):
            raise InvalidShape(
                f"A convolution of {self.in_channels} to {self.out_channels} channels cannot have "
                f"{self.conv_groups} conv groups; both counts must be multiples of it."
            )
        if self.op not in ("conv", "linear", "attention") and self.in_channels != self.out_channels:
            raise InvalidShape(
                f"A {self.op} layer keeps its channels, got {self.in_channels} in and {self.out_channels} out."
            )
        if min(self.out_hw) < 1:
            raise InvalidShape(
                f"A kernel of {self.kernel_hw} does not fit into an input of {self.in_hw} padded by {self.padding_hw}."
            )

    def with_channels(self, *, in_channels: int | None = None, out_channels: int | None = None) -> LayerShape:
        """A changed copy; a depthwise layer stays depthwise."""
        new_in = self.in_channels if in_channels is None else in_channels
        new_out = self.out_channels if out_channels is None else out_channels
        conv_groups = new_out if self.depthwise else self.conv_groups
        return dataclasses.replace(self, in_channels=new_in, out_channels=new_out, conv_groups=conv_groups)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # tables and planners look shapes up by the hundred thousand
        return hash(tuple(getattr(self, f.name) for f in dataclasses.fields(self)))

    @property
    def depthwise(self) -> bool:
        return self.op == "conv" and self.conv_groups > 1 and self.conv_groups == self.in_channels == self.out_channels

    @cached_property
    def out_hw(self) -> tuple[int, int]:
        """Rows and columns of the output (pools round down; the shapes of a traced model are exact)."""
        if self.op not in ("conv", "max_pool", "avg_pool"):
            return self.in_hw
        sides = zip(self.in_hw, self.kernel_hw, self.stride_hw, self.padding_hw, self.dilation_hw, strict=True)
        rows, columns = (
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, kernel, stride, pad, dilation in sides
        )
        return rows, columns

    @property
    def gemm(self) -> Gemm:
        """m = batch x output pixels, n = out channels per conv group, k = in channels per conv group x kernel."""
        pixels = self.out_hw[0] * self.out_hw[1]
        if self.op == "conv":
            kernel = self.kernel_hw[0] * self.kernel_hw[1]
            return Gemm(m=self.batch * pixels, n=self.out_channels // self.conv_groups,
                        k=self.in_channels // self.conv_groups * kernel, count=self.conv_groups)  # fmt: skip
        if self.op == "linear":
            return Gemm(m=self.batch * pixels, n=self.out_channels, k=self.in_channels)
        raise InvalidShape(f"A {self.op} layer is no single matrix product; only conv and linear layers are.")

    @property
    def macs(self) -> int:
        """One per multiply-add. Attention: four projections and two products per head."""
        if self.op in ("conv", "linear"):
            return self.gemm.macs
        if self.op == "attention":
            tokens, inner = self.in_hw[0] * self.in_hw[1], self.out_channels
            return self.batch * tokens * (4 * self.in_channels * inner + 2 * tokens * inner)
        return 0

    @property
    def num_parameters(self) -> int:
        """Weights and biases of the deployed block (norms folded)."""
        bias = self.out_channels if "bias" in self.epilogue else 0
        if self.op in ("conv", "linear"):
            return self.gemm.n * self.gemm.k * self.gemm.count + bias
        return 4 * self.in_channels * self.out_channels + bias if self.op == "attention" else bias

    @property
    def num_bytes(self) -> int:
        """Bytes read and written once: input, weights, output, and a second operand for an `add` or `mul`."""
        pixels_in, pixels_out = self.in_hw[0] * self.in_hw[1], self.out_hw[0] * self.out_hw[1]
        operands = 1 + sum(e in ("add", "mul") for e in self.epilogue)
        values = (
            self.batch * (pixels_in * self.in_channels + operands * pixels_out * self.out_channels)
            + self.num_parameters
        )
        return values * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        if self.op == "conv":
            kind = "depthwise" if self.depthwise else f"conv/{self.conv_groups}" if self.conv_groups > 1 else "conv"
            what = f"{kind} {self.kernel_hw[0]}x{self.kernel_hw[1]}" + (
                f" stride {self.stride_hw[0]}" if max(self.stride_hw) > 1 else ""
            )
        else:
            what = self.op
        tail = "".join(f"+{e}" for e in self.epilogue)
        return f"{what}{tail} {self.in_channels}->{self.out_channels} at {self.in_hw[0]}x{self.in_hw[1]}, batch {self.batch}, {self.dtype}"


def ceil_div(a: int, b: int) -> int:
    """Blocks of size `b` needed to cover `a`: the one formula behind every quantization."""
    return -(-a // b)
