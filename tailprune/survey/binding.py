"""What binds a layer: launching it, moving its bytes, filling its waves, or computing? Only where there is evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import InvalidShape
from ..core.protocols import FirstOf, LatencyKind, LatencySource
from ..core.shapes import LayerShape
from ..waves import WaveModel

Bound = Literal["launch", "memory", "wave", "compute", "unknown"]
BOUNDS: tuple[Bound, ...] = ("launch", "memory", "wave", "compute", "unknown")

#: A compute-bound kernel counts as wave bound where its tiles and waves leave a fifth of the device idle. Convention:
#: above it, quantization costs less than what libraries differ by on one shape.
FULL_ENOUGH = 0.8
#: A layer narrower on both sides, whose arithmetic and bytes both fell by a quarter and whose latency moved by less than
#: this, is bound by neither. 2 % is the least riser that `detect_steps` counts.
LESS_WORK, FLAT = 0.75, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What limits a layer, the evidence for it, and whether that was measured or modelled ("" where unknown)."""

    bound: Bound
    evidence: str
    kind: LatencyKind | Literal[""] = ""


def wave_model_of(source: LatencySource) -> WaveModel | None:
    """The wave model among the sources that answer, if there is one."""
    if isinstance(source, FirstOf):
        return next((model for inner in source.sources if (model := wave_model_of(inner))), None)
    return source if isinstance(source, WaveModel) else None


def bound_by_measurement(dense: LayerShape, pruned: LayerShape, *, dense_us: float, pruned_us: float) -> Binding | None:
    """Launch bound, if two measured latencies show it: much less arithmetic and traffic, and no less time."""
    narrower = pruned.in_channels < dense.in_channels and pruned.out_channels < dense.out_channels
    less = pruned.macs <= LESS_WORK * dense.macs and pruned.num_bytes <= LESS_WORK * dense.num_bytes
    if not (dense.macs and narrower and less and abs(pruned_us / dense_us - 1) <= FLAT):
        return None
    return Binding(
        bound="launch",
        evidence=f"{1 - pruned.macs / dense.macs:.0%} fewer MACs, {1 - pruned.num_bytes / dense.num_bytes:.0%} fewer bytes, "
        f"latency {pruned_us / dense_us - 1:+.1%}",
        kind="measured",
    )


def bound_by_model(model: WaveModel, shape: LayerShape) -> Binding:
    """What the wave model holds for the limit, with its grid."""
    try:
        profile = model.profile(shape)
    except InvalidShape as error:  # a dtype whose rate on this device is not stated
        return Binding(bound="unknown", evidence=str(error))
    if profile.bound == "overhead":
        return Binding(bound="launch", evidence="its work takes less than a launch", kind="modelled")
    if profile.bound == "memory":
        return Binding(bound="memory", evidence=f"{shape.num_bytes / 1e6:,.2f} MB moved", kind="modelled")
    waves = "wave" if profile.num_waves == 1 else "waves"
    grid = (
        f"{profile.num_waves} {waves} of {profile.wave_size} tiles, the last {profile.tail_fill:.0%} full, "
        f"tiles {profile.tile_efficiency:.0%} used"
    )
    full = profile.wave_efficiency * profile.tile_efficiency >= FULL_ENOUGH
    return Binding(bound="compute" if full else "wave", evidence=grid, kind="modelled")
