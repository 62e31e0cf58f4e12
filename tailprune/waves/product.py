"""What does one matrix product cost, over the tiles that a library may choose from?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.shapes import DTYPE_BYTES
from .efficiency import Efficiency
from .occupancy import blocks_per_sm
from .tiles import Tile

#: Multiply-adds per loaded element at which a lone thread block reaches half of its SM's rate.
HALF_RATE_INTENSITY = 12.0
#: Filling the pipeline and storing the tile, in slices of k.
RAMP_SLICES = 2
#: Sharpness of the soft minimum over kernels: libraries choose well, not perfectly, and differ among each other.
CHOICE_SHARPNESS = 12.0
#: How many ways k may be split, and the least k that a part keeps.
SPLITS = (4, 16)
LEAST_SPLIT_K = 128
#: Partial sums of a split product are written and read once in fp32.
PARTIAL_SUM_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Kernel:
    tile: Tile
    tile_m: int
    tile_n: int
    tile_k: int
    wave_size: int
    fill_cost: float  # what a wave adds to its rounds: HALF_RATE_INTENSITY / tile intensity
    us_per_slice: float  # one tile, one slice of k, on an SM at its sustained rate


class ProductCost:
    """Time of products on one device in one dtype, from a menu of tiles.

    Kernel with tile (m, n), split s: B blocks, R = ceil(B / SMs) rounds (resident blocks share their SM's rate), W = ceil(B / V) waves.

        compute = (R + a / AI x W) x (slices of k / s + ramp) x slice work / sustained rate per SM
        busy    = (compute^2 + memory^2)^(1/2),   soft minimum over kernels: (sum of busy^-p)^(-1/p)

    Arguments may be integers or broadcastable integer arrays.
    """

    def __init__(self, device: DeviceSpec, dtype: str, efficiency: Efficiency, tiles: tuple[Tile, ...]) -> None:
        flops_per_sm_us = device.peak(dtype) * efficiency.compute / device.num_sms / 1e6
        width = DTYPE_BYTES[dtype]
        self.num_sms = device.num_sms
        self.efficiency = efficiency
        self._bytes_per_us = device.dram_bytes_per_s * efficiency.bandwidth / 1e6
        self._l2_bytes = device.l2_bytes
        self._kernels = tuple(
            _Kernel(tile, tile.m, tile.n, tile.k_bytes // width, device.num_sms * resident,
                    HALF_RATE_INTENSITY / tile.intensity, 2 * tile.m * tile.n * (tile.k_bytes // width) / flops_per_sm_us)
            for tile in tiles
            if (resident := blocks_per_sm(device, tile)) > 0
        )  # fmt: skip
        if not self._kernels:
            raise InvalidShape(
                f"None of the {len(tiles)} tiles fits on an SM of {device.name}; check its shared memory."
            )

    def memory_us(self, num_bytes: Any) -> Any:
        """Moving these bytes once; what fits in L2 moves faster where the card has shown so."""
        gain = self.efficiency.l2_speedup - 1.0
        time = num_bytes / self._bytes_per_us
        return time / (1.0 + gain / (1.0 + (num_bytes / self._l2_bytes) ** 4)) if gain else time

    def busy_us(self, m: Any, n: Any, k: Any, count: Any, num_bytes: Any, *, split_k: bool, slowdown: Any = 1.0) -> Any:
        """Time on the device, launch excluded; `slowdown` stretches the arithmetic (alignment)."""
        memory = self.memory_us(num_bytes)
        total = 0.0
        for kernel in self._kernels:
            blocks = -(-m // kernel.tile_m) * -(-n // kernel.tile_n) * count
            compute = self._compute_us(kernel, blocks, k) * slowdown
            total += (compute * compute + memory * memory) ** (-CHOICE_SHARPNESS / 2)
            if split_k:
                for split in SPLITS:
                    fits = (blocks * split <= kernel.wave_size) & (k >= split * LEAST_SPLIT_K)
                    if fits is False:
                        break
                    time = self._split_us(kernel, blocks, m, n, k, count, memory, split, slowdown)
                    total += fits * time**-CHOICE_SHARPNESS
        return total ** (-1 / CHOICE_SHARPNESS)

    def likeliest(
        self, m: int, n: int, k: int, count: int, num_bytes: int, *, split_k: bool
    ) -> tuple[Tile, int, int, bool]:
        """(tile, split, wave size, bound by arithmetic?) of the kernel with the least time."""
        memory = float(self.memory_us(num_bytes))

        def options() -> Iterator[tuple[float, Tile, int, int, bool]]:
            for kernel in self._kernels:
                blocks = -(-m // kernel.tile_m) * -(-n // kernel.tile_n) * count
                compute = float(self._compute_us(kernel, blocks, k))
                yield (compute**2 + memory**2) ** 0.5, kernel.tile, 1, kernel.wave_size, compute > memory
                for split in SPLITS if split_k else ():
                    if blocks * split <= kernel.wave_size and k >= split * LEAST_SPLIT_K:
                        time = float(self._split_us(kernel, blocks, m, n, k, count, memory, split, 1.0))
                        yield time, kernel.tile, split, kernel.wave_size, time > 1.4143 * memory

        _, tile, split, wave_size, by_arithmetic = min(options(), key=lambda option: option[0])
        return tile, split, wave_size, by_arithmetic

    def _compute_us(self, kernel: _Kernel, blocks: Any, k: Any) -> Any:
        rounds = -(-blocks // self.num_sms) + kernel.fill_cost * -(-blocks // kernel.wave_size)
        return rounds * (-(-k // kernel.tile_k) + RAMP_SLICES) * kernel.us_per_slice

    def _split_us(
        self, kernel: _Kernel, blocks: Any, m: Any, n: Any, k: Any, count: Any, memory: Any, split: int, slowdown: Any
    ) -> Any:
        compute = self._compute_us(kernel, blocks * split, -(-k // split)) * slowdown
        moved = memory + split * m * n * count * PARTIAL_SUM_BYTES / self._bytes_per_us
        return (compute * compute + moved * moved) ** 0.5 + self.efficiency.split_us
