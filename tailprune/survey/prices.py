"""A latency source that remembers what it lacked, so that a diagnosis is refused once, with the whole list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..core.errors import MissingLatency
from ..core.graph import Layer, ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from ..core.shapes import LayerShape


class Prices:
    """What do layers cost at these widths? NaN where the source does not know; `refuse_gaps` raises for all of them."""

    def __init__(self, source: LatencySource) -> None:
        self.source = source
        self._us: dict[LayerShape, float] = {}
        self._kinds: dict[LayerShape, LatencyKind] = {}
        self._noise_of = getattr(source, "noise_us", None)

    def shape_us(self, shape: LayerShape) -> float:
        """Microseconds of one call."""
        if shape not in self._us:
            try:
                self._us[shape] = self.source.latency_us(shape)
                self._kinds[shape] = self.source.kind(shape)
            except MissingLatency:
                self._us[shape] = math.nan
        return self._us[shape]

    def layers_us(self, layers: Iterable[Layer], widths: Mapping[str, int]) -> float:
        """Microseconds of these layers, calls included."""
        return math.fsum(layer.calls * self.shape_us(layer.shape_at(widths)) for layer in layers)

    def noise_us(self, layers: Iterable[Layer], widths: Mapping[str, int]) -> float:
        """Standard error of `layers_us`; 0 where the source states none (a model has none)."""
        if self._noise_of is None:
            return 0.0
        return math.sqrt(math.fsum((layer.calls * self._noise_of(layer.shape_at(widths))) ** 2 for layer in layers))

    def kinds(self, layers: Iterable[Layer], *all_widths: Mapping[str, int]) -> set[LatencyKind]:
        """How the latencies of these layers are known, of those that are."""
        shapes = [layer.shape_at(widths) for layer in layers for widths in all_widths]
        return {self._kinds[shape] for shape in shapes if not math.isnan(self.shape_us(shape))}

    def comparable(self, layers: Iterable[Layer], one: Mapping[str, int], other: Mapping[str, int]) -> bool:
        """Whether no layer is measured at one of these widths and modelled at the other: their difference is no saving."""
        return all(
            (self._kinds.get(layer.shape_at(one)) == "modelled")
            == (self._kinds.get(layer.shape_at(other)) == "modelled")
            for layer in layers
        )

    def refuse_gaps(self, graph: ModelGraph) -> None:
        """MissingLatency, naming the command that measures them, if anything asked for so far was unknown."""
        lacking = tuple(shape for shape, us in self._us.items() if math.isnan(us))
        if lacking:
            shown = "; ".join(map(str, lacking[:3])) + ("; ..." if len(lacking) > 3 else "")
            raise MissingLatency(
                f"{len(lacking)} shapes of {graph.model} are missing from {self.source.origin}: {shown}. Run `tailprune "
                "doctor` with --table and the --device it was measured on, which times them, or use `measure_while`.",
                lacking,
            )


def weakest(kinds: set[LatencyKind]) -> LatencyKind:
    """How a sum is known whose parts are known in these ways."""
    return "modelled" if "modelled" in kinds else "held" if "held" in kinds else "measured"
