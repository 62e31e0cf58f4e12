"""Decide over measured and proposed latencies, until all that was chosen is measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from ..core.errors import MissingLatency
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..core.protocols import LatencyKind, LatencySource, LayerTimer
from ..core.shapes import LayerShape
from ..tables import LatencyTable
from .cells import CHECKS, CellProposals, frame_cells, propose_cells
from .lacking import Progress, measure_missing

#: Lines and checks must replace this many times as many cells as they take, else the cells are measured.
PAYS = 2.0
Decision = TypeVar("Decision")


class MeasuredElseProposed:
    """A table, and proposals for in x out cells that it lacks: a `core.protocols.LatencySource` that says which is which."""

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self._proposals: dict[LayerShape, CellProposals] = {}

    @property
    def origin(self) -> str:
        errors = [found.max_error for found in self._proposals.values() if found.segments]
        if not errors:
            return self.table.origin
        return (
            f"{self.table.origin}; in {len(errors)} layers widths that were not chosen had latencies proposed from lines, off "
            f"by {max(errors):.1%} at most where checked"
        )

    def latency_us(self, shape: LayerShape) -> float:
        return self._source_of(shape).latency_us(shape)

    def kind(self, shape: LayerShape) -> LatencyKind:
        return self._source_of(shape).kind(shape)

    def noise_us(self, shape: LayerShape) -> float:
        return self._source_of(shape).noise_us(shape)

    def learn(self, lacking: Iterable[LayerShape], timer: LayerTimer, progress: Progress | None = None) -> bool:
        """Propose cells where far fewer timings than cells will do, measure the others; False where neither is possible."""
        cells: dict[LayerShape, list[LayerShape]] = defaultdict(list)
        for shape in lacking:
            cells[_layer(shape)].append(shape)
        proposed, rest = 0, list[LayerShape]()
        for layer, shapes in cells.items():
            if layer in self._proposals or not _pays(self.table, shapes):
                rest += shapes
                continue
            ins, outs = {s.in_channels for s in shapes}, {s.out_channels for s in shapes}
            found = propose_cells(self.table, shapes[0], timer, in_widths=ins, out_widths=outs, progress=progress)
            self._proposals[layer] = found
            proposed += 1
        return measure_missing(self.table, rest, timer, progress=progress) + proposed > 0

    def _source_of(self, shape: LayerShape) -> LatencyTable | CellProposals:
        if shape in self.table or not self._proposals:
            return self.table
        return self._proposals.get(_layer(shape), self.table)


def measure_chosen(
    table: LatencyTable,
    timer: LayerTimer,
    decide: Callable[[LatencySource], Decision],
    chosen: Callable[[Decision], Iterable[LayerShape]],
    *,
    progress: Progress | None = None,
) -> Decision:
    """What does `decide` answer when all that it chose is measured, whatever it passed over?

    `decide` is given a latency source and raises MissingLatency with the shapes that it lacks. Where those are a large
    part of a layer's in x out table a cross of lines proposes them (`propose_cells`), else they are measured. Then the
    shapes of what was `chosen` are measured, and it is decided again, until nothing chosen is proposed. What was passed
    over may have been: the source's `origin` says so. Raises MissingLatency where nothing can be measured any more.

    >>> from tailprune import LatencyTable, LayerShape, SimulatedTimer, load_device
    >>> timer = SimulatedTimer(load_device("h200"))
    >>> table, widths = LatencyTable.in_memory(timer.environment), range(64, 513, 16)
    >>> layer = LayerShape(op="linear", batch=4096, in_channels=512, out_channels=512, dtype="float16")
    >>> cells = [layer.with_channels(in_channels=i, out_channels=o) for i in widths for o in widths]
    >>> def largest(source):
    ...     if len(table) == 0:
    ...         raise MissingLatency("No cell is known yet.", cells)
    ...     return max((c for c in cells if source.latency_us(c) <= 9), key=lambda c: c.in_channels * c.out_channels)
    >>> choice = measure_chosen(table, timer, largest, lambda cell: [cell])
    >>> table.kind(choice), len(cells), len(table) < 150
    ('measured', 841, True)
    """
    source = MeasuredElseProposed(table)
    while True:
        try:
            decision = decide(source)
        except MissingLatency as error:
            if not source.learn(error.shapes, timer, progress):
                raise
            continue
        if not measure_missing(table, chosen(decision), timer, progress=progress):
            return decision


def plan_shapes(graph: ModelGraph, plan: WidthPlan) -> Iterator[LayerShape]:
    """What a plan states latencies of: the network as it was, at the host's widths, and at the planned ones."""
    return (shape for widths in ({}, plan.host_widths, plan.widths) for _, shape in graph.shapes_at(widths))


def _layer(shape: LayerShape) -> LayerShape:
    """One value for all cells of an in x out table."""
    if shape.depthwise or shape.op not in ("conv", "linear"):
        return shape
    return shape.with_channels(in_channels=shape.conv_groups, out_channels=shape.conv_groups)


def _pays(table: LatencyTable, cells: Sequence[LayerShape]) -> bool:
    """Whether the lines around these cells and their checks take far fewer timings than the cells themselves."""
    if len(cells) < PAYS * CHECKS:
        return False
    frame = frame_cells(
        table, cells[0], in_widths=[s.in_channels for s in cells], out_widths=[s.out_channels for s in cells]
    )
    lines = {shape for shape in frame.cross if shape not in table}
    return len(cells) >= PAYS * (len(lines) + CHECKS)
