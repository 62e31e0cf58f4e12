"""Why does latency step between two widths, by the model's arithmetic?"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ..core.errors import InvalidShape
from ..core.shapes import LayerShape, ceil_div
from .model import WaveModel
from .occupancy import blocks_per_sm
from .quantize import WaveProfile
from .tiles import tile_menu

StepCause = Literal["wave", "tile", "alignment", "kernel switch", "memory", "unexplained"]
#: A modelled change below this is no step: nothing to explain.
LEAST_STEP = 0.01
#: A measured step is the model's step only where the model's is at least this share of it, in the same direction.
SAME_STEP = 1 / 3
#: The tile in a library's kernel name: `volta_sgemm_128x64_tn`, `ampere_fp16_s16816gemm_fp16_128x256_ldg8_f2f_stages_64x3_tn`.
_TILE_IN_NAME = re.compile(r"_(\d+)x(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelGrid:
    """What a profiler saw of one launch: the kernel's name and its thread blocks, all three dimensions multiplied."""

    kernel: str
    num_blocks: int

    def __post_init__(self) -> None:
        if not self.kernel or self.num_blocks < 1:
            raise InvalidShape(
                f"A profiled grid needs a kernel name and at least one thread block, got {self.kernel!r}, {self.num_blocks}."
            )

    def wave_size(self, model: WaveModel, dtype: str) -> int:
        """SMs x blocks per SM of the tile in the kernel's name; one block per SM where the name has none that is known."""
        found = _TILE_IN_NAME.search(self.kernel)
        size = tuple(map(int, found.groups())) if found else ()
        tile = next((t for t in tile_menu(model.device, dtype) if (t.m, t.n) == size or (t.n, t.m) == size), None)
        return model.device.num_sms * max(blocks_per_sm(model.device, tile) if tile else 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExplanation:
    """The model's reason for a step: a cause, the numbers behind it, and the two modelled latencies. Never a measurement."""

    cause: StepCause
    detail: str
    below_us: float
    above_us: float

    @property
    def ratio(self) -> float:
        return self.above_us / self.below_us

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail} (modelled {self.below_us:.1f} to {self.above_us:.1f} us)"


def explain_step(
    model: WaveModel,
    below: LayerShape,
    above: LayerShape,
    *,
    measured_us: tuple[float, float] | None = None,
    grids: tuple[KernelGrid, KernelGrid] | None = None,
) -> StepExplanation:
    """The cause of the step from one width to the next, with its numbers.

    Only by evidence. `grids`, what a profiler saw on both sides, decides where it is given: another kernel is a kernel switch, another
    number of waves a wave step, another grid a tile step. Otherwise the model's arithmetic speaks: where it sees no step of at least 1 %,
    less than a third of the measured one (`measured_us`: before, after), or nothing changed in it, the answer is "unexplained". A wave or
    tile step names both grids, an alignment step both tiers, a kernel switch both kernels.

    >>> from tailprune.waves import WaveModel, load_device
    >>> layer = LayerShape(op="linear", batch=4096, in_channels=2048, out_channels=2048, dtype="float16")
    >>> explain_step(WaveModel(load_device("a100")), layer.with_channels(out_channels=2047), layer).cause
    'alignment'
    """
    first, second = model.latency_us(below), model.latency_us(above)

    def because(cause: StepCause, detail: str) -> StepExplanation:
        return StepExplanation(cause=cause, detail=detail, below_us=first, above_us=second)

    if grids is not None and (seen := _by_grids(model, below.dtype, *grids)) is not None:
        return because(*seen)
    modelled = math.log(second / first)
    if abs(modelled) < LEAST_STEP:
        return because("unexplained", "the model sees no step here")
    if measured_us is not None and modelled / (math.log(measured_us[1] / measured_us[0]) or math.inf) < SAME_STEP:
        measured = measured_us[1] / measured_us[0] - 1
        return because("unexplained", f"the model sees {second / first - 1:+.1%}, measured were {measured:+.1%}")
    tiers = [model.alignment_slowdown(s, s.in_channels, s.out_channels) for s in (below, above)]
    tiered = below.op in ("conv", "linear", "attention") and not below.depthwise
    # Alignment is the cause where the change of tier alone could make at least half of the jump, in its direction.
    if tiered and math.log(tiers[1] / tiers[0]) / math.log(second / first) >= 0.5:
        detail = f"channel alignment slows the arithmetic {tiers[0]:.2f}x before, {tiers[1]:.2f}x after"
        return because("alignment", detail)
    one, two = model.profile(below), model.profile(above)
    if one.bound == two.bound == "memory":
        return because("memory", f"bytes moved: {below.num_bytes:,} before, {above.num_bytes:,} after")
    if (one.tile, one.split_k) != (two.tile, two.split_k):
        return because("kernel switch", f"{_grid(one)} before, {_grid(two)} after")
    if one.num_waves != two.num_waves:
        return because("wave", f"{_grid(one)} before, {_grid(two)} after")
    if one.num_tiles != two.num_tiles:
        return because("tile", f"{_grid(one)} before, {_grid(two)} after")
    if one.slices != two.slices:
        return because("tile", f"{one.slices} slices of k before, {two.slices} after, in {_grid(two)}")
    return because("unexplained", f"the grid stays the same: {_grid(one)}")


def _by_grids(model: WaveModel, dtype: str, one: KernelGrid, two: KernelGrid) -> tuple[StepCause, str] | None:
    if one.kernel != two.kernel:
        return "kernel switch", f"{one.kernel} before, {two.kernel} after (profiled)"
    size = one.wave_size(model, dtype)
    waves = [ceil_div(grid.num_blocks, size) for grid in (one, two)]
    detail = f"{one.num_blocks} blocks of {one.kernel} before, {two.num_blocks} after (profiled), waves of {size}"
    if waves[0] != waves[1]:
        return "wave", f"{detail}: {waves[0]} and {waves[1]}"
    return ("tile", detail) if one.num_blocks != two.num_blocks else None


def _grid(profile: WaveProfile) -> str:
    split = f" split {profile.split_k} ways" if profile.split_k > 1 else ""
    waves = "wave" if profile.num_waves == 1 else "waves"
    return (
        f"{profile.num_tiles} tiles of {profile.tile[0]}x{profile.tile[1]}{split} in {profile.num_waves} {waves} of "
        f"{profile.wave_size}, the last {profile.tail_fill:.0%} full"
    )
