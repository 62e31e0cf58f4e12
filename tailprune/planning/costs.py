"""What layers cost, looked up once and counted exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import MissingLatency, TableError
from ..core.graph import ChannelGroup, Layer, ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from ..core.shapes import LayerShape
from ..steps import LatencyCurve, group_curve

#: Latencies are planned in picoseconds: integer sums are exact, so equal plans compare equal whatever the order of adding.
TICKS_PER_US = 1_000_000


class LayerCosts:
    """A latency source that remembers every answer and refuses a latency that is no time.

    It is a `LatencySource` itself. `ticks` prices a layer at a pair of channel counts, its calls included;
    `total` prices a whole network. What the source does not know is listed in full, in one MissingLatency.
    """

    def __init__(self, source: LatencySource) -> None:
        self.source = source
        #: the source's standard error of a latency, where it knows one: curves are judged by it
        self.noise_us: Callable[[LayerShape], float] | None = getattr(source, "noise_us", None)
        #: the source's latencies at many channel counts at once, where it computes them so (the wave model does)
        self._curve_us = getattr(source, "curve_us", None)
        self._arrays: dict[tuple[LayerShape, bytes], NDArray[np.float64]] = {}
        self._kinds: dict[LayerShape, LatencyKind] = {}
        self._us: dict[LayerShape, float] = {}
        self._ticks: dict[tuple[LayerShape, int, int], int] = {}

    @classmethod
    def over(cls, source: LatencySource) -> LayerCosts:
        """The source itself where it remembers already: give one to several plans, and each shape is asked for once."""
        return source if isinstance(source, LayerCosts) else cls(source)

    @property
    def origin(self) -> str:
        return self.source.origin

    @property
    def at_once(self) -> bool:
        """Whether the source computes whole tables, instead of looking shapes up one by one."""
        return self._curve_us is not None

    def curve(self, graph: ModelGraph, group: ChannelGroup, widths: Sequence[int]) -> LatencyCurve:
        """`steps.group_curve` over these widths; in a few array operations where the source computes at once."""
        if not self.at_once:
            return group_curve(graph, group.id, self, widths=widths)
        at = {**graph.widths, group.id: np.array(widths, dtype=np.int64)}
        total = np.zeros(len(widths))
        for layer in graph.layers_of(group.id):
            ins, outs = np.broadcast_arrays(layer.in_expr.at(at), layer.out_expr.at(at))  # type: ignore[arg-type]
            total += layer.calls * self.latencies_us(layer.shape, ins, outs)
        return LatencyCurve(
            widths=tuple(widths), latency_us=tuple(total.tolist()), noise_us=(0.0,) * len(widths), kind="modelled"
        )

    def kind(self, shape: LayerShape) -> LatencyKind:
        if shape not in self._kinds:
            self._kinds[shape] = self.source.kind(shape)
        return self._kinds[shape]

    def latency_us(self, shape: LayerShape) -> float:
        known = self._us.get(shape)
        if known is not None:
            return known
        us = float(self.source.latency_us(shape))
        if not (math.isfinite(us) and us >= 0):
            raise TableError(
                f"The latency of {shape} is {us!r} us in {self.origin}; latencies must be finite and at least 0. "
                "Measure that shape again."
            )
        self._us[shape] = us
        return us

    def latencies_us(self, shape: LayerShape, ins: NDArray[np.int64], outs: NDArray[np.int64]) -> NDArray[np.float64]:
        """`latency_us` of a shape at every pair of channel counts (two arrays of one form); NaN where it is missing."""
        key = (shape, hashlib.blake2b(ins.tobytes() + outs.tobytes()).digest())
        known = self._arrays.get(key)
        if known is not None:
            return known
        if self._curve_us is not None:
            us = np.asarray(self._curve_us(shape, in_channels=ins, out_channels=outs))
            if not (np.isfinite(us) & (us >= 0)).all():
                at = int(np.flatnonzero(~(np.isfinite(us) & (us >= 0)))[0])
                self.latency_us(shape.with_channels(in_channels=int(ins.flat[at]), out_channels=int(outs.flat[at])))
        else:
            pairs = zip(ins.ravel().tolist(), outs.ravel().tolist(), strict=True)
            us = np.array([self._or_nan(shape, in_channels, out_channels) for in_channels, out_channels in pairs])
        self._arrays[key] = us.reshape(ins.shape)
        return self._arrays[key]

    def _or_nan(self, shape: LayerShape, in_channels: int, out_channels: int) -> float:
        try:
            return self.latency_us(shape.with_channels(in_channels=in_channels, out_channels=out_channels))
        except MissingLatency:
            return math.nan

    def ticks(self, layer: Layer, in_channels: int, out_channels: int) -> int:
        key = (layer.shape, in_channels, out_channels)
        once = self._ticks.get(key)
        if once is None:
            shape = layer.shape.with_channels(in_channels=in_channels, out_channels=out_channels)
            once = self._ticks[key] = round(self.latency_us(shape) * TICKS_PER_US)
        return layer.calls * once

    def total(self, graph: ModelGraph, widths: Mapping[str, int]) -> int:
        """Picoseconds of one forward pass at these widths: the sum over layers."""
        full = {**graph.widths, **widths}
        total, missing = 0, []
        for layer in graph.layers:
            try:
                total += self.ticks(layer, layer.in_expr.at(full), layer.out_expr.at(full))
            except MissingLatency:
                missing.append(layer.shape_at(full))
        if missing:
            raise missing_latencies(missing, self.origin)
        return total

    def worst_kind(self, graph: ModelGraph, *all_widths: Mapping[str, int]) -> LatencyKind:
        """How the least certain of these networks' latencies is known."""
        kinds = {self.kind(shape) for widths in all_widths for _, shape in graph.shapes_at(widths)}
        return "modelled" if "modelled" in kinds else "held" if "held" in kinds else "measured"


def missing_latencies(shapes: Iterable[LayerShape], origin: str) -> MissingLatency:
    """One error that names everything a source lacks; `shapes` carries the whole list."""
    lacking = tuple(dict.fromkeys(shapes))
    shown = "; ".join(str(shape) for shape in lacking[:3]) + ("; ..." if len(lacking) > 3 else "")
    return MissingLatency(
        f"{len(lacking)} shapes are missing from {origin}: {shown}. Measure them with `tailprune measure` or `fill_table`.",
        lacking,
    )
