"""Let a table answer inside plateaus whose two ends were measured and confirmed."""

from __future__ import annotations

from statistics import fmean

from ..core.shapes import LayerShape
from ..steps import Staircase
from ..tables import LatencyTable
from .lines import Line
from .propose import RISE_SIGMAS

#: Fewest measured widths on a plateau that is held: both ends and one between them.
FEWEST = 3


def hold_plateaus(table: LatencyTable, line: Line, staircase: Staircase) -> int:
    """Hold each layer of the line over each plateau that is bounded by confirmed edges and on which this layer is level;
    returns how many holds. A sloped plateau is never held, nor one that no width inside was measured on."""
    count = 0
    below = "confirmed"  # the line's own first width is measured, and nothing lies before it
    for plateau in staircase.plateaus:
        widths = [w for w in staircase.curve.widths if plateau.low <= w <= plateau.high]
        bounded = below == "confirmed" and plateau.verdict in ("confirmed", "end")
        below = plateau.verdict
        complete = len(widths) == len(range(plateau.low, plateau.high + 1, line.grid.step))
        if not bounded or complete or len(widths) < FEWEST:
            continue
        for shapes in line.runs(widths):
            if _one_axis(shapes[0], shapes[-1]) and (level := _level(table, shapes, staircase.min_riser)):
                table.hold(shapes[0], shapes[-1], level)
                count += 1
    return count


def _one_axis(low: LayerShape, high: LayerShape) -> bool:
    """Whether the two differ in one channel count, or in both alike as depthwise and elementwise layers do."""
    coupled = low.depthwise or low.op not in ("conv", "linear", "attention")
    return low != high and (coupled or low.in_channels == high.in_channels or low.out_channels == high.out_channels)


def _level(table: LatencyTable, shapes: tuple[LayerShape, ...], min_riser: float) -> float | None:
    """The common latency of shapes none of which can be told from it, None where one can."""
    level = fmean(table.latency_us(shape) for shape in shapes)

    def is_near(shape: LayerShape) -> bool:
        doubt = RISE_SIGMAS * 2**0.5 * table.noise_us(shape)
        return abs(table.latency_us(shape) - level) <= max(min_riser / 2 * level, doubt)

    return level if all(map(is_near, shapes)) else None
