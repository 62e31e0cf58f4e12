"""Which output tiles do the matrix kernels of an architecture come in?"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.device import DeviceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One thread block's share of an implicit GEMM: an (m x n) output tile, read `k_bytes` of k at a time.

    Filling its pipeline and storing the tile take as long as `ramp` slices of k.
    """

    m: int
    n: int
    k_bytes: int
    threads: int
    stages: int
    ramp: int

    @property
    def shared_bytes(self) -> int:
        """Shared memory of one thread block: `stages` slices of both operands."""
        return self.stages * (self.m + self.n) * self.k_bytes


#: Ramps: 2 slices of 32 bytes on CUDA cores, 5 of 64 bytes on tensor cores, the best of 2, 3 and 5 on the recordings' test curves (so their
#: errors are not untouched by it); Hopper's slices are twice as deep, and its 3 were not measured.
def _menu(sizes: tuple[tuple[int, int, int], ...], *, k_bytes: int, stages: int, ramp: int) -> tuple[Tile, ...]:
    return tuple(Tile(m=m, n=n, threads=threads, k_bytes=k_bytes, stages=stages, ramp=ramp) for m, n, threads in sizes)


#: FP32 on CUDA cores. Tile and threads as in the kernel names that cuBLAS reports on P100, V100 and A100
#: (`volta_sgemm_128x64_tn` and its kin in the NeuSight recordings); 8 floats of k, double-buffered.
SIMT = _menu(
    ((128, 128, 256), (128, 64, 128), (128, 32, 256), (64, 64, 64), (32, 128, 256), (32, 32, 128)),
    k_bytes=32,
    stages=2,
    ramp=2,
)
#: Tensor cores. (m, n, threads) are CUTLASS's default threadblock shapes (its profiler's `tensorop` kernels), which cuBLAS
#: and cuDNN kernel names repeat; 32 halves of k, double-buffered before asynchronous copies (Ampere), three stages from then on.
_TENSOR = (
    (256, 128, 256), (128, 256, 256), (128, 128, 128), (128, 64, 128), (64, 128, 128), (64, 64, 128), (64, 32, 64), (32, 64, 64),
)  # fmt: skip
TENSOR_VOLTA = _menu(_TENSOR, k_bytes=64, stages=2, ramp=5)
TENSOR_AMPERE = _menu(_TENSOR, k_bytes=64, stages=3, ramp=5)
#: Warp-group kernels (CUTLASS 3.x, sm90 and sm100): 64 halves of k, four stages, one producer warp group in the large tiles.
TENSOR_HOPPER = _menu(
    ((128, 256, 384), (256, 128, 384), (128, 128, 384), (128, 64, 256), (64, 128, 256), (64, 64, 256), (64, 32, 128)),
    k_bytes=128,
    stages=4,
    ramp=3,
)


def tile_menu(device: DeviceSpec, dtype: str) -> tuple[Tile, ...]:
    """The tiles this device multiplies this dtype with; float32, and anything before Volta, runs on CUDA cores."""
    major = int(device.compute_capability.split(".")[0])
    if dtype == "float32" or major < 7:
        return SIMT
    if major == 7:
        return TENSOR_VOLTA
    return TENSOR_HOPPER if major in (9, 10) else TENSOR_AMPERE
