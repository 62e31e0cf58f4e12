"""What does a layer cost on a GPU that is not at hand?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.protocols import LatencyKind
from ..core.shapes import DTYPE_BYTES, DTYPES, Gemm, LayerShape
from .efficiency import Efficiency, default_efficiency, is_recorded
from .product import ProductCost
from .quantize import WaveProfile, quantize
from .tiles import SIMT, tile_menu

#: Tensor-core loads are 16 bytes: channels below that granularity cost (granularity / alignment)^0.126, which is 30 % for odd
#: counts in fp16, the figure of the A100 study arXiv 2604.09595 for GEMM k or n off multiples of 8.
ALIGNMENT_BYTES = 16
ALIGNMENT_EXPONENT = 0.126
#: Winograd F(2x2, 3x3) needs 16 multiplications for 36 (Lavin & Gray, arXiv 1509.09308); transforms eat part of the 2.25. Fitted on
#: V100 TensorRT recordings as a k that is shorter by this factor.
WINOGRAD_GAIN = 1.5
#: Share of the sustained CUDA-core rate that depthwise kernels reach (fitted to V100 TensorRT recordings, fp32, kernels 1 to 7), and the
#: channels that a warp takes side by side in NHWC (DEPrune, NeurIPS 2024, finds this step of 32).
DEPTHWISE_SHARE = 0.08
WARP_CHANNELS = 32
#: 8 in 10 of the V100's TensorRT convolutions and depthwise convolutions lie within this factor of the shipped estimate: it does not know
#: the runtime's overhead per launch.
OTHER_LAYERS_SPREAD = 2.2
#: A bandwidth-bound kernel: 256 threads, each moving 16 bytes (the usual vectorised elementwise kernel).
ELEMENTWISE_THREADS = 256
#: Epilogue ops that no library fuses into a product: each is a pass over the output of its own.
NEVER_FUSED = frozenset(
    ("softmax", "batch_norm", "layer_norm", "group_norm", "local_response_norm", "cat", "copy")
)  # fmt: skip


class WaveModel:
    """A latency source that computes: tiles, waves, a roofline and launch overhead of one device. Kind: modelled.

    `fused` says whether the runtime fuses bias, activation and add into the product (TensorRT, cuDNN graphs, Inductor) or runs
    each as a pass of its own (eager). `efficiency` replaces the architecture's default shares of the datasheet, for every
    dtype or per dtype (what `calibrate` found).
    Raises InvalidShape for a dtype whose rate on this device is not stated.

    >>> from tailprune.waves import WaveModel, load_device
    >>> from tailprune.core.shapes import LayerShape
    >>> model = WaveModel(load_device("h200"))
    >>> layer = LayerShape(op="conv", batch=64, in_channels=512, out_channels=512, in_hw=(14, 14), kernel_hw=(3, 3), padding_hw=(1, 1), dtype="float16")
    >>> model.kind(layer), model.profile(layer).num_waves
    ('modelled', 3)
    """

    def __init__(
        self,
        device: DeviceSpec,
        *,
        efficiency: Efficiency | Mapping[str, Efficiency] | None = None,
        fused: bool = True,
    ) -> None:
        self.device = device
        self.fused = fused
        self._given = (
            dict.fromkeys(DTYPES, efficiency) if isinstance(efficiency, Efficiency) else dict(efficiency or {})
        )
        self._products: dict[str, ProductCost] = {}
        self._known: dict[LayerShape, float] = {}

    @property
    def origin(self) -> str:
        where = f" ({self.device.partition})" if self.device.partition else ""
        doubt = (
            ""
            if self._given or is_recorded(self.device)
            else f"; no recordings of {self.device.architecture}: measure its edges"
        )
        return f"wave model of {self.device.name}{where}, {self.device.num_sms} SMs, estimated{doubt}"

    def spread(self, shape: LayerShape) -> float:
        """How far off an estimate may be, as a factor f >= 1: 8 in 10 lie between estimate / f and estimate x f.

        Learned from test rows per architecture, from its own timings where calibrated, and wide where shares are borrowed. Shipped shares
        stand on matrix products: other layers get at least what they missed convolutions by.
        """
        spread = self.efficiency(shape.dtype).spread
        return spread if shape.op == "linear" or shape.dtype in self._given else max(spread, OTHER_LAYERS_SPREAD)

    def kind(self, shape: LayerShape) -> LatencyKind:
        return "modelled"

    def latency_us(self, shape: LayerShape) -> float:
        """Estimated microseconds of one call of a deployed block; finite and positive for every legal shape."""
        known = self._known.get(shape)
        if known is None:
            known = self._known[shape] = float(self._estimate_us(shape, shape.in_channels, shape.out_channels))
        return known

    def curve_us(self, shape: LayerShape, *, in_channels: Any = None, out_channels: Any = None) -> np.ndarray:
        """`latency_us` at many channel counts at once; the counts broadcast, so a column and a row give the whole table.

        A depthwise layer, a pool or an elementwise chain has one count: give either. Equal to `latency_us` entry by entry.

        >>> from tailprune.waves import WaveModel, load_device
        >>> layer = LayerShape(op="linear", batch=128, in_channels=512, out_channels=512)
        >>> WaveModel(load_device("v100")).curve_us(layer, out_channels=range(1, 513)).shape
        (512,)
        """
        one_count = shape.depthwise or shape.op in ("max_pool", "avg_pool", "elementwise")
        if one_count:
            in_channels = out_channels = out_channels if in_channels is None else in_channels
        ins = np.asarray(shape.in_channels if in_channels is None else in_channels, np.int64)
        outs = np.asarray(shape.out_channels if out_channels is None else out_channels, np.int64)
        if np.any(ins < 1) or np.any(outs < 1):
            raise InvalidShape("Channel counts of a curve must be positive integers; start the range at 1.")
        groups = shape.conv_groups if shape.op == "conv" and not one_count else 1
        if np.any(ins % groups) or np.any(outs % groups):
            raise InvalidShape(f"Channel counts of a curve must be multiples of the {groups} conv groups.")
        ins, outs = np.broadcast_arrays(ins, outs)
        curve = np.array(np.broadcast_to(self._estimate_us(shape, ins, outs), outs.shape), dtype=float)
        if shape.op == "conv" and shape.conv_groups > 1:
            # One channel of a depthwise layer is an ordinary convolution; one channel per conv group is a depthwise one.
            turns = outs == 1 if shape.depthwise else (ins == groups) & (outs == groups)
            for at in map(tuple, np.argwhere(turns)):
                changed = shape.with_channels(in_channels=int(ins[at]), out_channels=int(outs[at]))
                curve[at] = self.latency_us(changed)
        return curve

    def profile(self, shape: LayerShape) -> WaveProfile:
        """The grid that the model holds likeliest for this shape; of attention, the largest of its products."""
        product = self._product(shape.dtype)
        if shape.op in ("conv", "linear") and not shape.depthwise:
            gemm, in_bytes = shape.gemm, shape.num_bytes
        elif shape.op == "attention":
            tokens = shape.in_hw[0] * shape.in_hw[1]
            gemm = Gemm(m=shape.batch * tokens, n=3 * shape.out_channels, k=shape.in_channels)
            in_bytes = (gemm.m * (gemm.n + gemm.k) + gemm.n * gemm.k) * DTYPE_BYTES[shape.dtype]
        else:
            return self._elementwise_profile(shape)
        dims = (gemm.m, gemm.n, self._effective_k(shape, gemm.k), gemm.count, in_bytes)
        choice = product.likeliest(*dims, split_k=shape.op != "conv")
        by_arithmetic = choice.compute_us > choice.memory_us
        overhead = product.efficiency.overhead_us
        tile = choice.tile
        return quantize(
            gemm,
            tile_m=tile.m,
            tile_n=tile.n,
            wave_size=choice.wave_size,
            split_k=choice.split,
            slices=int(-(-dims[2] // choice.split) * DTYPE_BYTES[shape.dtype] - 1) // tile.k_bytes + 1,
            bound="overhead" if choice.busy_us < overhead else "compute" if by_arithmetic else "memory",
        )

    def alignment_slowdown(self, shape: LayerShape, in_channels: Any, out_channels: Any) -> Any:
        """What odd channel counts cost a tensor-core product, as a factor of its arithmetic; 1 when both are aligned."""
        granularity = self._granularity(shape.dtype)
        bits = in_channels | out_channels | granularity
        if shape.op == "conv":
            bits = out_channels // shape.conv_groups | granularity  # in-channels are padded instead
        return (granularity / (bits & -bits)) ** ALIGNMENT_EXPONENT

    def efficiency(self, dtype: str) -> Efficiency:
        """The shares of the datasheet that this model reckons with in a dtype; `origin` says where they come from."""
        tensor_cores = tile_menu(self.device, dtype) is not SIMT
        return self._given.get(dtype) or default_efficiency(self.device, tensor_cores=tensor_cores)

    def _granularity(self, dtype: str) -> int:
        """Channels in one 16-byte load of the tensor cores; 1 on CUDA cores, which load single values."""
        return 1 if tile_menu(self.device, dtype) is SIMT else ALIGNMENT_BYTES // DTYPE_BYTES[dtype]

    def _product(self, dtype: str) -> ProductCost:
        if dtype not in self._products:
            tiles = tile_menu(self.device, dtype)
            self._products[dtype] = ProductCost(self.device, dtype, self.efficiency(dtype), tiles)
        return self._products[dtype]

    def _effective_k(self, shape: LayerShape, k: Any) -> Any:
        """What a kernel runs through: a convolution's in-channels padded to whole loads, or shortened by Winograd in fp32."""
        if shape.op != "conv":
            return k
        kernel = shape.kernel_hw[0] * shape.kernel_hw[1]
        granularity = self._granularity(shape.dtype)
        padded = -(-(k // kernel) // granularity) * granularity * kernel
        unit = shape.stride_hw == shape.dilation_hw == (1, 1) and shape.conv_groups == 1
        winograd = unit and shape.kernel_hw == (3, 3) and shape.dtype == "float32"
        return -(-padded // WINOGRAD_GAIN) if winograd else padded

    def _estimate_us(self, shape: LayerShape, ins: Any, outs: Any) -> Any:
        """Integers or arrays in, a number or an array out: one arithmetic for both."""
        product = self._product(shape.dtype)
        width = DTYPE_BYTES[shape.dtype]
        pixels_in, (rows, columns) = shape.batch * shape.in_hw[0] * shape.in_hw[1], shape.out_hw
        pixels_out = shape.batch * rows * columns
        overhead = product.efficiency.overhead_us
        out_bytes = pixels_out * outs * width
        if shape.op == "conv" and not shape.depthwise:
            busy = self._conv_us(product, shape, ins, outs, pixels_in, pixels_out)
        elif shape.op == "linear":
            num_bytes = (pixels_in * (ins + outs) + ins * outs) * width
            slowdown = self.alignment_slowdown(shape, ins, outs)
            busy = product.busy_us(pixels_in, outs, ins, 1, num_bytes, split_k=True, slowdown=slowdown)
        elif shape.op == "attention":
            busy = self._attention_us(product, shape, ins, outs, pixels_in) + 2 * overhead
        else:
            busy = product.memory_us(pixels_in * ins * width + out_bytes)
            if shape.depthwise:
                busy = (busy * busy + self._depthwise_us(product, shape, outs, pixels_out) ** 2) ** 0.5
        return overhead + busy + self._epilogue_us(product, shape, out_bytes)

    def _conv_us(
        self, product: ProductCost, shape: LayerShape, ins: Any, outs: Any, pixels_in: int, pixels_out: int
    ) -> Any:
        kernel, groups = shape.kernel_hw[0] * shape.kernel_hw[1], shape.conv_groups
        granularity = self._granularity(shape.dtype)
        per_group = -(-(ins // groups) // granularity) * granularity
        values = pixels_in * groups * per_group + pixels_out * outs + per_group * outs * kernel
        if (
            granularity > 1 and shape.memory_format == "contiguous"
        ):  # tensor cores want NHWC: transposed on the way in and out
            values = values + 2 * (pixels_in * ins + pixels_out * outs)
        slowdown = self.alignment_slowdown(shape, ins, outs)
        num_bytes = values * DTYPE_BYTES[shape.dtype]
        k = self._effective_k(shape, ins // groups * kernel)
        return product.busy_us(pixels_out, outs // groups, k, groups, num_bytes, split_k=False, slowdown=slowdown)

    def _attention_us(self, product: ProductCost, shape: LayerShape, ins: Any, outs: Any, tokens: int) -> Any:
        """Projections to q, k and v as one product, two products per head that stay on chip, and the projection back."""
        width, sequence, heads = DTYPE_BYTES[shape.dtype], shape.in_hw[0] * shape.in_hw[1], shape.conv_groups
        head = -(-outs // heads)
        slowdown = self.alignment_slowdown(shape, ins, outs)
        project = product.busy_us(
            tokens,
            3 * outs,
            ins,
            1,
            (tokens * (ins + 3 * outs) + 3 * ins * outs) * width,
            split_k=True,
            slowdown=slowdown,
        )
        count = shape.batch * heads
        scores = product.busy_us(sequence, sequence, head, count, 2 * tokens * outs * width, split_k=False)
        mix = product.busy_us(sequence, head, sequence, count, 2 * tokens * outs * width, split_k=False)
        back = product.busy_us(
            tokens, ins, outs, 1, (tokens * (ins + outs) + ins * outs) * width, split_k=True, slowdown=slowdown
        )
        return project + scores + mix + back

    def _depthwise_us(self, product: ProductCost, shape: LayerShape, channels: Any, pixels_out: int) -> Any:
        """A depthwise convolution multiplies on CUDA cores; in NHWC its channels round up to whole warps."""
        side_by_side = WARP_CHANNELS if shape.memory_format == "channels_last" else 1
        work = 2 * pixels_out * shape.kernel_hw[0] * shape.kernel_hw[1] * (-(-channels // side_by_side) * side_by_side)
        share = product.efficiency.compute * DEPTHWISE_SHARE
        return work / (self.device.peak("float32") * share / 1e6)

    def _epilogue_us(self, product: ProductCost, shape: LayerShape, out_bytes: Any) -> Any:
        """Fused ops cost the bytes of their second operand; others read and write the output once more, in a kernel of their own."""
        operands = sum(op in ("add", "mul") for op in shape.epilogue)
        passes = sum(not self.fused or op in NEVER_FUSED for op in shape.epilogue)
        if shape.op == "elementwise" and passes:
            passes -= 1  # the layer itself is its first pass
        return product.memory_us(out_bytes * (operands + 2 * passes)) + passes * product.efficiency.overhead_us

    def _elementwise_profile(self, shape: LayerShape) -> WaveProfile:
        values = shape.batch * shape.out_hw[0] * shape.out_hw[1] * shape.out_channels
        per_block = ELEMENTWISE_THREADS * ALIGNMENT_BYTES // DTYPE_BYTES[shape.dtype]
        blocks = -(-values // per_block)
        overhead = self._product(shape.dtype).efficiency.overhead_us
        bound = "overhead" if self.latency_us(shape) < 2 * overhead else "memory"
        return WaveProfile(
            num_tiles=blocks,
            wave_size=self.device.num_sms * (self.device.max_threads_per_sm // ELEMENTWISE_THREADS),
            tile_efficiency=values / (blocks * per_block),
            tile=(per_block, 1),
            bound=bound,
        )
