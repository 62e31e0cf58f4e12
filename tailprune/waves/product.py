"""What does a matrix product cost, over the tiles that a library may choose from?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.shapes import DTYPE_BYTES
from .efficiency import Efficiency
from .occupancy import blocks_per_sm
from .tiles import Tile

# Set by hand within what joint fits to several cards found (docs/waves.md), with test errors in view: none of them is a card's own.
#: Tiles read their operands from L2: its bandwidth in units of the sustained DRAM bandwidth.
TILE_BANDWIDTH = 10.0
#: Sharpness of the soft minimum over kernels: libraries choose well, not perfectly, and differ among each other.
CHOICE_SHARPNESS = 16
#: How many ways k may be split, and the least k that a part keeps.
SPLITS = (2, 4, 8, 16, 32)
LEAST_SPLIT_K = 128
#: Partial sums of a split product are written and read once in fp32.
PARTIAL_SUM_BYTES = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """One kernel that a library may pick for a product, and what it would take there, launch excluded."""

    tile: Tile
    split: int
    wave_size: int
    compute_us: float
    memory_us: float

    @property
    def busy_us(self) -> float:
        return max(self.compute_us, self.memory_us)


@dataclass(frozen=True, slots=True)
class _Kernel:
    tile: Tile
    tile_k: int
    wave_size: int
    us_per_slice: float  # one tile, one slice of k, on an SM at its sustained rate
    bytes_per_k: int  # both operands of one tile, for one step of k


class ProductCost:
    """Time of products on one device in one dtype, from a menu of tiles.

    Kernel with tile (m, n), split s: B blocks, R = ceil(B / SMs) rounds (resident blocks share their SM's rate), W = ceil(B / V) waves.

        compute = (slices of k / s + ramp) x (R x slice work / sustained rate per SM + W x slice latency)
        memory  = bytes / bandwidth + tile reads / L2 bandwidth
        busy    = max(compute, memory),   soft minimum over kernels: (sum of busy^-p)^(-1/p)

    Arguments may be integers or broadcastable integer arrays.
    """

    def __init__(self, device: DeviceSpec, dtype: str, efficiency: Efficiency, tiles: tuple[Tile, ...]) -> None:
        flops_per_sm_us = device.peak(dtype) * efficiency.compute / device.num_sms / 1e6
        width = DTYPE_BYTES[dtype]
        self.num_sms = device.num_sms
        self.efficiency = efficiency
        self._bytes_per_us = device.dram_bytes_per_s * efficiency.bandwidth / 1e6
        self._warm_bytes = device.l2_bytes * efficiency.l2_share
        self._kernels = tuple(
            _Kernel(tile, tile.k_bytes // width, device.num_sms * resident,
                    2 * tile.m * tile.n * (tile.k_bytes // width) / flops_per_sm_us, (tile.m + tile.n) * width)
            for tile in tiles
            if (resident := blocks_per_sm(device, tile)) > 0
        )  # fmt: skip
        if not self._kernels:
            raise InvalidShape(
                f"None of the {len(tiles)} tiles fits on an SM of {device.name}; check its shared memory."
            )

    def memory_us(self, num_bytes: Any) -> Any:
        """Moving these bytes once; what is found in L2 moves faster where the card has shown so."""
        gain = self.efficiency.l2_speedup - 1.0
        time = num_bytes / self._bytes_per_us
        return time / (1.0 + gain / (1.0 + (num_bytes / self._warm_bytes) ** 3)) if gain > 0 else time

    def busy_us(self, m: Any, n: Any, k: Any, count: Any, num_bytes: Any, *, split_k: bool, slowdown: Any = 1.0) -> Any:
        """Time on the device, launch excluded; `slowdown` stretches the arithmetic (alignment)."""
        total = 0.0
        for _, _, compute, memory, fits in self._options(m, n, k, count, num_bytes, split_k, slowdown):
            total = total + fits * _larger(compute, memory) ** -CHOICE_SHARPNESS
        return total ** (-1 / CHOICE_SHARPNESS)

    def likeliest(
        self, m: int, n: int, k: int, count: int, num_bytes: int, *, split_k: bool, slowdown: float = 1.0
    ) -> Choice:
        """The kernel with the least time."""
        options = (
            Choice(kernel.tile, split, kernel.wave_size, float(compute), float(memory))
            for kernel, split, compute, memory, fits in self._options(m, n, k, count, num_bytes, split_k, slowdown)
            if fits
        )
        return min(options, key=lambda choice: choice.busy_us)

    def _options(
        self, m: Any, n: Any, k: Any, count: Any, num_bytes: Any, split_k: bool, slowdown: Any
    ) -> Iterator[tuple[_Kernel, int, Any, Any, Any]]:
        """(kernel, split, compute, memory, may it be chosen?) of every kernel on the menu."""
        moved = self.memory_us(num_bytes)
        for kernel in self._kernels:
            blocks = -(-m // kernel.tile.m) * -(-n // kernel.tile.n) * count
            yield kernel, 1, *self._times(kernel, blocks, k, moved, slowdown), True
            for split in SPLITS if split_k else ():
                fits = (blocks * split <= kernel.wave_size) & (k >= split * LEAST_SPLIT_K)
                if fits is False:
                    break
                sums = split * m * n * count * PARTIAL_SUM_BYTES / (self._bytes_per_us * self.efficiency.l2_speedup)
                compute, memory = self._times(kernel, blocks * split, -(-k // split), moved + sums, slowdown)
                yield kernel, split, compute + self.efficiency.split_us, memory + self.efficiency.split_us, fits

    def _times(self, kernel: _Kernel, blocks: Any, k: Any, moved: Any, slowdown: Any) -> tuple[Any, Any]:
        rounds, waves = -(-blocks // self.num_sms), -(-blocks // kernel.wave_size)
        per_slice = rounds * kernel.us_per_slice * slowdown + waves * self.efficiency.slice_us
        reads = blocks * k * kernel.bytes_per_k / (self._bytes_per_us * TILE_BANDWIDTH)
        return per_slice * (-(-k // kernel.tile_k) + kernel.tile.ramp), moved + reads


def _larger(a: Any, b: Any) -> Any:
    """max of numbers, np.maximum of arrays: the latter alone would make single numbers ten times as slow."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)
