"""How does a matrix product divide into tiles and waves, and how much of the last wave is work?"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import InvalidShape
from ..core.shapes import Gemm, ceil_div


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveProfile:
    """One kernel as a grid of thread blocks on one device.

    With B = num_tiles and V = wave_size: waves W = ceil(B / V), wave efficiency u = B / (W V). `tile_efficiency` is the share
    of the tiles' area that is output. `tile`, `split_k`, `slices` (of k, in each tile) and `bound` say which kernel was assumed and what limits it.

    >>> profile = quantize(Gemm(m=12544, n=512, k=4608), tile_m=128, tile_n=128, wave_size=132)
    >>> profile.num_tiles, profile.num_waves, round(profile.tail_fill, 2)
    (392, 3, 0.97)
    """

    num_tiles: int
    wave_size: int
    tile_efficiency: float
    tile: tuple[int, int] = (0, 0)
    split_k: int = 1
    slices: int = 0
    bound: str = ""  # compute | memory | overhead

    def __post_init__(self) -> None:
        if self.num_tiles < 1 or self.wave_size < 1:
            raise InvalidShape(
                f"A wave profile needs at least one tile and one place for it, got {self.num_tiles} tiles, waves of {self.wave_size}."
            )
        if not 0 < self.tile_efficiency <= 1:
            raise InvalidShape(f"A tile efficiency lies in (0, 1], got {self.tile_efficiency!r}.")

    @property
    def num_waves(self) -> int:
        return ceil_div(self.num_tiles, self.wave_size)

    @property
    def tail_tiles(self) -> int:
        """Tiles in the last wave, 1 to wave_size."""
        return self.num_tiles - (self.num_waves - 1) * self.wave_size

    @property
    def tail_fill(self) -> float:
        """How full the last wave is, in (0, 1]."""
        return self.tail_tiles / self.wave_size

    @property
    def wave_efficiency(self) -> float:
        return self.num_tiles / (self.num_waves * self.wave_size)


def quantize(
    gemm: Gemm, *, tile_m: int, tile_n: int, wave_size: int, split_k: int = 1, slices: int = 0, bound: str = ""
) -> WaveProfile:
    """The grid of one product: B = count x ceil(m / tile_m) x ceil(n / tile_n) x split_k thread blocks."""
    rows, columns = ceil_div(gemm.m, tile_m), ceil_div(gemm.n, tile_n)
    return WaveProfile(
        num_tiles=rows * columns * gemm.count * split_k,
        wave_size=wave_size,
        tile_efficiency=gemm.m * gemm.n / (rows * tile_m * columns * tile_n),
        tile=(tile_m, tile_n),
        split_k=split_k,
        slices=slices,
        bound=bound,
    )


def widest_in_waves(waves: int, *, m: int, tile_m: int, tile_n: int, wave_size: int) -> int:
    """C_max(w) = tile_n floor(w V / ceil(m / tile_m)): the last width that still fits into w waves, the tile being fixed.

    0 where even one tile column takes more than w waves.

    >>> widest_in_waves(2, m=12544, tile_m=128, tile_n=128, wave_size=132)
    256
    """
    return tile_n * (waves * wave_size // ceil_div(m, tile_m))
