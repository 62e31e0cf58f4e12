"""A line: one channel group's width runs, every other width stands still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..core.errors import MissingLatency
from ..core.graph import ChannelGroup, Layer, ModelGraph
from ..core.protocols import LatencyKind
from ..core.shapes import LayerShape
from ..steps import LatencyCurve, summed_curve
from ..tables import LatencyTable


def group_line(
    graph: ModelGraph, group_id: str, width: int, *, at: Mapping[str, int] | None = None
) -> tuple[tuple[Layer, LayerShape], ...]:
    """Every layer that depends on the group, with its shape when the group has this width.

    `at` fixes widths of other groups (default: dense).
    """
    widths = graph.check_widths({**(at or {}), group_id: width})
    return tuple((layer, layer.shape_at(widths)) for layer in graph.layers_of(group_id))


class MeasuredOnly:
    """A table without its held answers: where to measure next is decided on measurements alone."""

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self.origin = table.origin

    def latency_us(self, shape: LayerShape) -> float:
        if shape not in self.table:
            raise MissingLatency(f"{shape} was not measured.", (shape,))
        return self.table.latency_us(shape)

    def kind(self, shape: LayerShape) -> LatencyKind:
        return self.table.kind(shape)

    def noise_us(self, shape: LayerShape) -> float:
        return self.table.noise_us(shape)


class Line:
    """The shapes along one group's grid, and what a table knows of them."""

    def __init__(self, graph: ModelGraph, group: ChannelGroup, table: LatencyTable, at: Mapping[str, int]) -> None:
        self.group = group
        self.grid = group.grid
        self.name = f"group {group.id} of {graph.model}"
        self.table = table
        self._layers, self._widths = graph.layers_of(group.id), graph.check_widths(at)
        self._calls: dict[int, tuple[tuple[LayerShape, int], ...]] = {}

    def calls(self, width: int) -> tuple[tuple[LayerShape, int], ...]:
        """Each shape of the group's layers at this width, with its calls."""
        if width not in self._calls:
            self._widths[self.group.id] = width
            self._calls[width] = tuple((layer.shape_at(self._widths), layer.calls) for layer in self._layers)
        return self._calls[width]

    def shapes(self, width: int) -> Iterator[LayerShape]:
        return (shape for shape, _ in self.calls(width))

    def runs(self, widths: Iterable[int]) -> Iterator[tuple[LayerShape, ...]]:
        """For each layer, its shapes at these widths."""
        return zip(*(tuple(self.shapes(width)) for width in widths), strict=True)

    def is_visited(self, width: int) -> bool:
        """Nothing is left to measure here: each shape was timed, or is known to fail."""
        return all(shape in self.table for shape in self.shapes(width))

    def curve(self, widths: Iterable[int]) -> LatencyCurve | None:
        """The group's latency at those of these widths that were measured in full; None where there is none."""
        visited = {width: self.calls(width) for width in widths if self.is_visited(width)}
        try:
            return summed_curve(visited, MeasuredOnly(self.table), name=self.name)
        except MissingLatency:
            return None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for lines of equal shapes: networks repeat their blocks."""
        return (
            self.grid,
            tuple(sorted(map(repr, self.calls(self.grid[0])))),
            tuple(sorted(map(repr, self.calls(self.grid[-1])))),
        )

    @property
    def kinds(self) -> frozenset[tuple[object, ...]]:
        """The kinds of layer on this line: devices step alike for layers of one kind."""
        shapes = self.shapes(self.grid[-1])
        return frozenset((shape.op, shape.kernel_hw, shape.depthwise, shape.dtype) for shape in shapes)
