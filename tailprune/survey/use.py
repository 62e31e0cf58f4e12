"""What a survey says: each layer's use of the device, and the network's sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from ..core.protocols import LatencyKind
from ..core.shapes import LayerShape
from ..waves import WaveProfile
from .conditions import Conditions
from .losses import PARTS, TimeSplit
from .places import Place

#: FLOP/s and peak are quotients of doubles: a layer exactly at the peak is not beyond it.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUse:
    """One layer at its widths, calls included.

    `peak_flops_per_s`, and with it `utilization`, is None where nobody states it. `grid`, `occupancy` and `split` are the wave
    model's opinion, whatever `kind` the latency is; None without a device. `wasted_us` and `place` are the latency source's own:
    the layer's share of what its groups pay for channels that are not there, and its output's place on its staircase.
    """

    name: str
    shape: LayerShape
    calls: int
    latency_us: float
    kind: LatencyKind
    peak_flops_per_s: float | None
    grid: WaveProfile | None = None
    occupancy: float | None = None
    split: TimeSplit | None = None
    wasted_us: float = 0.0
    place: Place | None = None

    @property
    def flop(self) -> int:
        """Two for each multiply-add of a direct product."""
        return 2 * self.shape.macs * self.calls

    @property
    def flops_per_s(self) -> float:
        return self.flop / self.latency_us * 1e6

    @property
    def useful_us(self) -> float | None:
        """The time of its arithmetic at the stated peak, at most all of its time."""
        return None if self.peak_flops_per_s is None else min(1e6 * self.flop / self.peak_flops_per_s, self.latency_us)

    @property
    def utilization(self) -> float | None:
        """Useful FLOP/s over the stated peak of this dtype, in [0, 1]: 0 without arithmetic, 1 where `beyond_peak`."""
        return None if self.useful_us is None else self.useful_us / self.latency_us

    @property
    def beyond_peak(self) -> bool:
        """Whether a direct product would need more than the stated peak: then fewer multiplications were made, or the clock,
        the peak or the latency is not what was stated."""
        return self.peak_flops_per_s is not None and self.flops_per_s > self.peak_flops_per_s * (1 + ROUNDING)

    @property
    def fewer_multiplications(self) -> bool:
        """Whether an algorithm with fewer multiplications than the direct product is known for this layer (Winograd's)."""
        shape = self.shape
        plain = shape.stride_hw == shape.dilation_hw == (1, 1) and not shape.depthwise
        return shape.op == "conv" and plain and max(shape.kernel_hw) > 1

    @property
    def intensity(self) -> float:
        """FLOP for each byte of input, weights and output, moved once."""
        return 2 * self.shape.macs / self.shape.num_bytes

    @property
    def free_headroom(self) -> int | None:
        """Channels up to the edge where they cost nothing beyond noise, else 0; None where the staircase is not known."""
        if self.place is None:
            return None
        return self.place.headroom if self.place.fill_us <= 2 * self.place.noise_us else 0


@dataclass(frozen=True, kw_only=True)
class Survey(Conditions):
    """What share of the device's peak a network achieves, layer by layer. Latencies are sums over layers from one source, `origin`.

    `peak_origin` names the source of the stated peak, or says why there is none. `unplaced` names groups whose staircase
    the source does not know, with the reason.
    """

    device: str | None
    peak_flops_per_s: float | None
    peak_origin: str
    layers: tuple[LayerUse, ...]
    unplaced: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @cached_property
    def latency_us(self) -> float:
        return math.fsum(layer.latency_us for layer in self.layers)

    @property
    def flop(self) -> int:
        return sum(layer.flop for layer in self.layers)

    @property
    def flops_per_s(self) -> float:
        return self.flop / self.latency_us * 1e6

    @property
    def utilization(self) -> float | None:
        """The layers' useful time over all time, in (0, 1]."""
        useful = [layer.useful_us for layer in self.layers if layer.useful_us is not None]
        return None if self.peak_flops_per_s is None else math.fsum(useful) / self.latency_us

    @property
    def images_per_s(self) -> float:
        return self.batch / self.latency_us * 1e6

    @property
    def intensity(self) -> float:
        return self.flop / sum(layer.shape.num_bytes * layer.calls for layer in self.layers)

    @property
    def wasted_us(self) -> float:
        return math.fsum(layer.wasted_us for layer in self.layers)

    @cached_property
    def split(self) -> TimeSplit | None:
        """Where the network's time goes; None without a device."""
        parts = [layer.split for layer in self.layers if layer.split is not None]
        return reduce(TimeSplit.__add__, parts, TimeSplit()) if len(parts) == len(self.layers) else None

    @property
    def by_wasted(self) -> tuple[LayerUse, ...]:
        """Layers that pay most for channels that are not there first; equals by latency."""
        return tuple(sorted(self.layers, key=lambda layer: (-layer.wasted_us, -layer.latency_us)))

    def summary(self) -> str:
        """A few lines for people."""
        about = "about " if self.kind == "modelled" else ""
        said = f"unknown: {self.peak_origin}" if self.utilization is None else f"{about}{self.utilization:.1%} of peak"
        lines = [
            f"{self.model}: {about}{self.latency_us:,.0f} µs, {self.images_per_s:,.0f} images/s, "
            f"{self.flops_per_s / 1e12:,.2f} TFLOP/s; utilization {said}"
        ]
        if self.peak_flops_per_s is not None:
            lines.append(f"  peak: {self.peak_flops_per_s / 1e12:,.1f} TFLOP/s of {self.dtype}, {self.peak_origin}")
        if self.split is not None:
            shares = ", ".join(
                f"{part.removesuffix('_us')} {getattr(self.split, part) / self.latency_us:.0%}" for part in PARTS
            )
            lines.append(f"  where the time goes (by the wave model): {shares}")
        free = sum(bool(layer.free_headroom) for layer in self.layers)
        if free:
            lines.append(f"  {free} layers could be wider at no cost; `tailprune plan --grow` uses that")
        lines.append(f"  {self.conditions}")
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            **self.conditions_body(),
            "device": self.device,
            "peak_flops_per_s": self.peak_flops_per_s,
            "peak_origin": self.peak_origin,
            "latency_us": self.latency_us,
            "images_per_s": self.images_per_s,
            "flops_per_s": self.flops_per_s,
            "utilization": self.utilization,
            "intensity": self.intensity,
            "split_us": _split_body(self.split),
            "wasted_us": self.wasted_us,
            "layers": [_layer_body(layer) for layer in self.by_wasted],
            "unplaced": dict(self.unplaced),
            "warnings": list(self.warnings),
        }


def _split_body(split: TimeSplit | None) -> dict[str, float] | None:
    return None if split is None else {part.removesuffix("_us"): getattr(split, part) for part in PARTS}


def _layer_body(layer: LayerUse) -> dict[str, Any]:
    grid = layer.grid
    return {
        "name": layer.name,
        "shape": str(layer.shape),
        "calls": layer.calls,
        "latency_us": layer.latency_us,
        "kind": layer.kind,
        "flops_per_s": layer.flops_per_s,
        "utilization": layer.utilization,
        "beyond_peak": layer.beyond_peak,
        "intensity": layer.intensity,
        "waves": grid.num_waves if grid else None,
        "tail_fill": grid.tail_fill if grid else None,
        "wave_efficiency": grid.wave_efficiency if grid else None,
        "tile_efficiency": grid.tile_efficiency if grid else None,
        "occupancy": layer.occupancy,
        "split_us": _split_body(layer.split),
        "wasted_us": layer.wasted_us,
        "headroom": layer.place.headroom if layer.place else None,
        "free_headroom": layer.free_headroom,
    }
