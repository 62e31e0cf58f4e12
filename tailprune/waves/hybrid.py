"""What does a shape cost, given timings of some others? The model, corrected by what was measured around it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ..core.errors import InvalidShape
from ..core.protocols import LatencyKind
from ..core.shapes import LayerShape
from .model import WaveModel

#: An anchor's say falls with this power of its distance. Distance counts log sizes, and what the model holds for the change between both:
#: an anchor behind an edge is far away, however near its width. Power 3 and the least distance (a third of a percent: noise) were the best
#: of a few tried on both kinds of recording.
FADE = 3
LEAST_DISTANCE = 0.003
#: How far a correction carries at all: the routine that serves a layer, and with it the model's miss, changes over such distances.
CARRY = 1.0
#: Anchors that are asked for one shape, the nearest first.
ANCHORS = 8
#: A fraction of one anchor's say that the uncorrected model keeps.
PRIOR = 0.02


class AnchoredModel:
    """A latency source between a sparse table and a model: measured where measured, else the model times a local correction.

        estimate(s) = model(s) exp(sum_i w_i r_i / (sum_i w_i + w_0)),   r_i = log(measured / modelled) of the nearest anchors i
        d_i = |log model(s) - log model(i)| + sum |log size(s) - log size(i)|,   w_i = (d_1 / d_i)^3,   w_0 ~ exp(d_1 / carry)

    Latencies are never interpolated: every jump comes from the model or a measurement, a correction only shifts the model's curve, and it
    fades across a modelled edge. Kind: measured for an anchor, modelled elsewhere.

    >>> from tailprune.waves import AnchoredModel, WaveModel, load_device
    >>> layer = LayerShape(op="linear", batch=512, in_channels=512, out_channels=512)
    >>> source = AnchoredModel(WaveModel(load_device("v100")), [(layer, 50.0)])
    >>> source.latency_us(layer), source.kind(layer.with_channels(out_channels=500))
    (50.0, 'modelled')
    """

    def __init__(self, model: WaveModel, anchors: Iterable[tuple[LayerShape, float]]) -> None:
        self.model = model
        self._measured = dict(anchors)
        if not self._measured:
            raise InvalidShape("A hybrid source needs at least one measured shape, got none; use the model alone.")
        groups: dict[tuple[object, ...], list[tuple[list[float], float]]] = defaultdict(list)
        for shape, us in self._measured.items():
            if not (math.isfinite(us) and us > 0):
                raise InvalidShape(f"An anchor must be positive and finite, got {us!r} us for {shape}.")
            modelled = model.latency_us(shape)
            groups[_family(shape)].append((_place(shape, modelled), math.log(us / modelled)))
        self._anchors = {
            family: (np.array([place for place, _ in found]), np.array([miss for _, miss in found]))
            for family, found in groups.items()
        }
        self._known: dict[LayerShape, float] = {}

    @property
    def origin(self) -> str:
        return f"{self.model.origin}, corrected by {len(self._measured):,} measured shapes"

    def kind(self, shape: LayerShape) -> LatencyKind:
        return "measured" if shape in self._measured else "modelled"

    def latency_us(self, shape: LayerShape) -> float:
        if shape in self._measured:
            return self._measured[shape]
        known = self._known.get(shape)
        if known is None:
            known = self._known[shape] = self._estimate_us(shape)
        return known

    def _estimate_us(self, shape: LayerShape) -> float:
        modelled = self.model.latency_us(shape)
        if _family(shape) not in self._anchors:
            return modelled
        places, misses = self._anchors[_family(shape)]
        distance = np.abs(places - _place(shape, modelled)).sum(axis=1)
        nearest = np.argpartition(distance, ANCHORS)[:ANCHORS] if len(distance) > ANCHORS else np.arange(len(distance))
        least = float(distance[nearest].min())
        say = ((least + LEAST_DISTANCE) / (distance[nearest] + LEAST_DISTANCE)) ** FADE
        own = PRIOR * math.exp(min(least / CARRY, 50.0))
        return modelled * math.exp(float(say @ misses[nearest]) / (float(say.sum()) + own))


def _family(shape: LayerShape) -> tuple[object, ...]:
    """Layers that one library routine serves: only they correct each other."""
    return shape.op, shape.depthwise, shape.dtype, shape.memory_format, shape.kernel_hw, shape.stride_hw, shape.epilogue


def _place(shape: LayerShape, modelled_us: float) -> list[float]:
    sizes = (shape.in_channels, shape.out_channels, shape.batch, shape.in_hw[0] * shape.in_hw[1])
    return [math.log(modelled_us), *(math.log(size) for size in sizes)]
