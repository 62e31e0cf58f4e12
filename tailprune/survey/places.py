"""Where does a group's width lie on its step, and what of that step is paid for but not used?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..core.errors import MissingLatency
from ..core.graph import ChannelGroup, ModelGraph
from ..steps import LatencyCurve, Staircase, detect_steps, dominated_widths, group_curve
from ..steps.noise import FEWEST_POINTS
from .prices import Prices

#: How far above its width an edge is looked for where nothing bounds a group from above: no tile of cuDNN, cuBLAS or
#: CUTLASS, and none in `waves.tiles`, is wider than 256 channels.
WIDEST_TILE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One channel group's width on its staircase.

    With f(w) the latency of all layers that depend on the group, every other group at its present width, and
    e < w <= h the step edges around w (edges that a larger width undercuts do not count):

        wasted   = max(0, f(w) - (f(e) + (f(h) - f(e)) (w - e) / (h - e)))     paid for the unused part of the step
                 = max(0, f(w) - f(h))   below the first edge, where no narrower width is cheaper
        headroom = h - w         channels up to the edge
        fill     = f(h) - f(w)   what using the headroom costs; 0 or less is free

    On a flat step, wasted is the riser times the share of the step's channels that are not there. `seen_at` says at
    which widths of the other groups the edges were found: "pruned", or "dense" where the source knows only those curves;
    latencies are always those at the present widths.
    """

    group: str
    width: int
    original: int
    edge_below: int | None
    edge_above: int
    latency_us: float
    below_us: float | None
    above_us: float
    noise_us: float = 0.0  # standard error of a difference between two of these latencies
    seen_at: Literal["pruned", "dense"] = "pruned"
    staircase: Staircase = field(repr=False, compare=False)

    @property
    def on_edge(self) -> bool:
        return self.width == self.edge_above

    @property
    def headroom(self) -> int:
        return self.edge_above - self.width

    @property
    def fill_us(self) -> float:
        return self.above_us - self.latency_us

    @property
    def used(self) -> float:
        """Share of the step's channels that the width uses, in (0, 1]."""
        below = self.edge_below or 0
        return (self.width - below) / (self.edge_above - below)

    @property
    def wasted_us(self) -> float:
        return _excess(self, self.below_us, self.latency_us, self.above_us)


def _excess(place: Place, below_us: float | None, us: float, above_us: float) -> float:
    base = above_us if below_us is None else below_us + (above_us - below_us) * place.used
    return max(0.0, us - base)


def place_group(
    graph: ModelGraph, group: ChannelGroup, widths: Mapping[str, int], prices: Prices, *, bounded: bool
) -> Place | str:
    """The group's place, or why its staircase is unknown. `bounded` says that no width above the original counts."""
    width = widths[group.id]
    bounded = bounded and width <= group.width
    top = group.width if bounded else width + WIDEST_TILE
    wanted = sorted({*range(group.grid.start, top + 1, group.granule), width})
    found = _best_known_curve(graph, group.id, widths, prices, wanted)
    if found is None or len(found[0]) < min(FEWEST_POINTS, len(wanted)):
        return f"{prices.source.origin} knows {len(found[0]) if found else 0} of its {len(wanted)} widths"
    curve, seen_at = found
    staircase = detect_steps(curve)
    edges = set(staircase.edge_widths) - set(dominated_widths(curve))
    edges = edges | {group.width} if bounded else edges - {curve.widths[-1]}  # elsewhere the last width is no edge
    above = min((edge for edge in edges if edge >= width), default=None)
    if above is None:
        return f"no edge is known at or above {width}"
    below = max((edge for edge in edges if edge < width), default=None)
    layers = graph.layers_of(group.id)

    def at(edge: int) -> float:
        return prices.layers_us(layers, {**widths, group.id: edge})

    latency_us, above_us, below_us = at(width), at(above), None if below is None else at(below)
    known = not math.isnan(latency_us + above_us)
    noise = math.sqrt(2) * prices.noise_us(layers, widths) if known else 0.0
    return Place(
        group=group.id,
        width=width,
        original=group.width,
        edge_below=below,
        edge_above=above,
        latency_us=latency_us,
        below_us=below_us,
        above_us=above_us,
        noise_us=noise,
        seen_at=seen_at,
        staircase=staircase,
    )


def _best_known_curve(
    graph: ModelGraph, group_id: str, widths: Mapping[str, int], prices: Prices, wanted: list[int]
) -> tuple[LatencyCurve, Literal["pruned", "dense"]] | None:
    """The curve at the present widths of the other groups; at their dense ones where the source knows more of that."""
    best: tuple[LatencyCurve, Literal["pruned", "dense"]] | None = None
    contexts: tuple[tuple[Literal["pruned", "dense"], Mapping[str, int]], ...] = (("pruned", widths), ("dense", {}))
    for seen_at, at in contexts:
        if best is not None and len(best[0]) == len(wanted):
            break
        try:
            curve = group_curve(graph, group_id, prices.source, at=at, widths=wanted)
        except MissingLatency:
            continue
        if best is None or len(curve) > len(best[0]):
            best = curve, seen_at
    return best


def wasted_by_layer(graph: ModelGraph, place: Place, widths: Mapping[str, int], prices: Prices) -> dict[str, float]:
    """The group's wasted time, shared among the layers that depend on it as their own excess over the step's chord."""
    excess = {}
    for layer in graph.layers_of(place.group):
        below, us, above = (
            None if edge is None else prices.layers_us((layer,), {**widths, place.group: edge})
            for edge in (place.edge_below, place.width, place.edge_above)
        )
        assert us is not None and above is not None  # only the edge below can be absent
        excess[layer.name] = _excess(place, below, us, above)
    total = math.fsum(excess.values())
    return {name: place.wasted_us * share / total for name, share in excess.items() if share > 0} if total else {}
