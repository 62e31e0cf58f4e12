"""The curve of a channel group: coupled layers share one width, so their latencies add and their edges unite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..core.errors import MissingLatency
from ..core.graph import ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from .curve import LatencyCurve

_WEAKNESS: tuple[LatencyKind, ...] = ("measured", "held", "modelled")


def group_curve(
    graph: ModelGraph,
    group_id: str,
    source: LatencySource,
    *,
    at: Mapping[str, int] | None = None,
    widths: Iterable[int] | None = None,
) -> LatencyCurve:
    """What does each width of this group cost, over all layers that depend on it?

        latency(w) = sum over layers l of the group:  calls_l x source.latency_us(shape of l at w)

    `at` fixes widths of other groups (default: dense). Widths for which the source lacks a layer are left out.
    Independent errors add in squares; a source without `noise_us(shape)` leaves the noise unknown, a modelled one
    has none. Raises MissingLatency, naming the shapes, where no width at all is known.
    """
    layers = graph.layers_of(group_id)
    fixed = graph.check_widths(at or {})
    noise_of = getattr(source, "noise_us", None)
    known: list[tuple[int, float, float]] = []
    noisy, weakest = True, 0
    missing: list[object] = []
    for width in sorted(set(graph.group(group_id).grid if widths is None else widths)):
        fixed[group_id] = width
        total = variance = 0.0
        kinds: set[LatencyKind] = set()
        try:
            for layer in layers:
                shape = layer.shape_at(fixed)
                total += layer.calls * source.latency_us(shape)
                kind = source.kind(shape)
                kinds.add(kind)
                if noise_of is not None:
                    variance += (layer.calls * noise_of(shape)) ** 2
                elif kind != "modelled":
                    noisy = False
        except MissingLatency as error:
            missing.extend(error.shapes)
            continue
        weakest = max(weakest, *(_WEAKNESS.index(kind) for kind in kinds)) if kinds else weakest
        known.append((width, total, math.sqrt(variance)))
    if not known or not layers:
        raise MissingLatency(
            f"{source.origin} knows no width of group {group_id} of {graph.model}; measure it with `tailprune measure`.",
            tuple(dict.fromkeys(missing)),
        )
    return LatencyCurve(
        widths=tuple(width for width, _, _ in known),
        latency_us=tuple(us for _, us, _ in known),
        noise_us=tuple(noise for _, _, noise in known) if noisy else (),
        kind=_WEAKNESS[weakest],
    )
