"""Small networks and latency sources whose best moves can be found by hand or by brute force."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from tailprune.core.errors import MissingLatency
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape


class FormulaSource:
    """A latency source from a function of the shape."""

    def __init__(
        self,
        formula: Callable[[LayerShape], float],
        *,
        knows: Callable[[LayerShape], bool] = lambda shape: True,
        kind: Callable[[LayerShape], str] = lambda shape: "measured",
        noise_us: float | None = None,
    ) -> None:
        self.origin = "a formula"
        self.formula, self.knows, self._kind = formula, knows, kind
        if noise_us is not None:
            self.noise_us = lambda shape: noise_us

    def latency_us(self, shape: LayerShape) -> float:
        if not self.knows(shape):
            raise MissingLatency(f"no {shape}", (shape,))
        return self.formula(shape)

    def kind(self, shape: LayerShape) -> str:
        return self._kind(shape)


def steps_of(tile: int, riser: float = 10.0, floor: float = 5.0) -> Callable[[LayerShape], float]:
    """Flat steps of `tile` output channels; the input costs nothing."""
    return lambda shape: floor + riser * math.ceil(shape.out_channels / tile)


def ragged(seed: int) -> Callable[[LayerShape], float]:
    """Steps in both widths, odd widths slow, and a random jitter per step that makes curves fall here and there."""

    def formula(shape: LayerShape) -> float:
        across, down = math.ceil(shape.out_channels / 8), math.ceil(shape.in_channels / 4)
        jitter = random.Random(f"{seed}/{across}/{down}/{shape.in_hw}").uniform(0.8, 1.2)
        return 4 + across * (1 + 0.5 * down) * jitter * (1.3 if shape.out_channels % 2 else 1.0)

    return formula


def expr(group: str | None, constant: int = 0) -> WidthExpr:
    return WidthExpr(terms=((group, 1),) if group else (), constant=constant)


def chain(*widths: int, batch: int = 1, granule: int = 1, dtype: str = "float32") -> ModelGraph:
    """Convolutions one after the other: layer c0 writes group g0, and so on; the last, of 10 channels, writes none."""
    layers = []
    sizes = (*widths, 10)
    for i, out in enumerate(sizes):
        ins = expr(f"g{i - 1}") if i else expr(None, 3)
        outs = expr(f"g{i}") if i < len(widths) else expr(None, 10)
        shape = LayerShape(
            op="conv",
            batch=batch,
            in_channels=sizes[i - 1] if i else 3,
            out_channels=out,
            in_hw=(14 + i, 14),
            dtype=dtype,
        )
        layers.append(Layer(name=f"c{i}", shape=shape, in_expr=ins, out_expr=outs))
    groups = tuple(ChannelGroup(id=f"g{i}", width=w, granule=granule) for i, w in enumerate(widths))
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(batch, 3, 14, 14), dtype=dtype)
