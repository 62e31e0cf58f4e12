"""Which measurements of a table lie on one line: equal shapes but for one channel count, as steps are read from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from ..core.shapes import LayerShape
from .held import Axis, coupled, line_of, width_along
from .table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLine:
    """Every measured width of one layer along one channel axis, ascending; `shape` is the widest."""

    axis: Axis
    shape: LayerShape
    widths: tuple[int, ...]
    latency_us: tuple[float, ...]
    noise_us: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.shape}, along {'its channels' if self.axis == 'both' else self.axis}"


def measured_lines(table: LatencyTable, *, fewest: int = 3) -> Mapping[Hashable, MeasuredLine]:
    """Lines on which at least `fewest` widths were measured. Equal keys of two tables mean the same line."""
    on_line: dict[Hashable, list[LayerShape]] = defaultdict(list)
    axis_of: dict[Hashable, Axis] = {}
    for sample in table.samples():
        axes: tuple[Axis, ...] = ("both",) if coupled(sample.shape) else ("out", "in")
        for axis in axes if sample.usable else ():
            key = line_of(sample.shape, axis)
            on_line[key].append(sample.shape)
            axis_of[key] = axis
    lines = {}
    for key, shapes in on_line.items():
        if len(shapes) >= fewest:
            axis = axis_of[key]
            ordered = sorted(shapes, key=lambda shape: width_along(shape, axis))
            lines[key] = MeasuredLine(
                axis=axis,
                shape=ordered[-1],
                widths=tuple(width_along(shape, axis) for shape in ordered),
                latency_us=tuple(table.latency_us(shape) for shape in ordered),
                noise_us=tuple(table.noise_us(shape) for shape in ordered),
            )
    return lines
