"""Why does latency step between two widths, by the model's arithmetic?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..core.shapes import LayerShape
from .model import WaveModel
from .quantize import WaveProfile

StepCause = Literal["wave", "tile", "alignment", "kernel switch", "memory", "unexplained"]
#: A modelled change below this is no step: nothing to explain.
LEAST_STEP = 0.01


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


def explain_step(model: WaveModel, below: LayerShape, above: LayerShape) -> StepExplanation:
    """The cause of the step from one width to the next, with its numbers.

    Only by evidence: where the model itself sees no step of at least 1 %, or nothing in its arithmetic changed, the answer is
    "unexplained". A wave or tile step names both grids, an alignment step both tiers, a kernel switch both tiles.
    """
    first, second = model.latency_us(below), model.latency_us(above)

    def because(cause: StepCause, detail: str) -> StepExplanation:
        return StepExplanation(cause=cause, detail=detail, below_us=first, above_us=second)

    if abs(math.log(second / first)) < LEAST_STEP:
        return because("unexplained", "the model sees no step here")
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
    return because("unexplained", f"the grid stays the same: {_grid(one)}")


def _grid(profile: WaveProfile) -> str:
    split = f" split {profile.split_k} ways" if profile.split_k > 1 else ""
    waves = "wave" if profile.num_waves == 1 else "waves"
    return (
        f"{profile.num_tiles} tiles of {profile.tile[0]}x{profile.tile[1]}{split} in {profile.num_waves} {waves} of "
        f"{profile.wave_size}, the last {profile.tail_fill:.0%} full"
    )
