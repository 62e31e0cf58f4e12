"""The curve of a channel group: coupled layers share one width, so their latencies add and their edges unite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..core.errors import MissingLatency
from ..core.graph import ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from ..core.shapes import LayerShape
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
    calls_at = {}
    for width in graph.group(group_id).grid if widths is None else widths:
        fixed[group_id] = width
        calls_at[width] = tuple((layer.shape_at(fixed), layer.calls) for layer in layers)
    return summed_curve(calls_at, source, name=f"group {group_id} of {graph.model}")


def summed_curve(
    calls_at: Mapping[int, Iterable[tuple[LayerShape, int]]], source: LatencySource, *, name: str
) -> LatencyCurve:
    """The sum of calls x latency over the shapes of each width; `group_curve` says the rest."""
    noise_of = getattr(source, "noise_us", None)
    known: list[tuple[int, float, float]] = []
    kinds: set[LatencyKind] = set()
    missing: list[LayerShape] = []
    noise_known = True
    for width, calls in sorted(calls_at.items()):
        total = variance = 0.0
        here: set[LatencyKind] = set()
        try:
            for shape, count in calls:
                total += count * source.latency_us(shape)
                kind = source.kind(shape)
                here.add(kind)
                if noise_of is not None:
                    variance += (count * noise_of(shape)) ** 2
                elif kind != "modelled":
                    noise_known = False
        except MissingLatency as error:
            missing.extend(error.shapes)
            continue
        if here:
            kinds |= here
            known.append((width, total, math.sqrt(variance)))
    if not known:
        raise MissingLatency(
            f"{source.origin} knows no width of {name}; measure it with `tailprune measure`.",
            tuple(dict.fromkeys(missing)),
        )
    return LatencyCurve(
        widths=tuple(width for width, _, _ in known),
        latency_us=tuple(us for _, us, _ in known),
        noise_us=tuple(noise for _, _, noise in known) if noise_known else (),
        kind=max(kinds, key=_WEAKNESS.index),
    )
