"""The in x out table of a layer from a few of its lines: proposed, checked on points held back, marked as modelled."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from ..core.errors import InvalidShape, MissingLatency
from ..core.protocols import FirstOf, LatencyKind, LatencySource, LayerTimer
from ..core.shapes import LayerShape
from ..tables import LatencyTable
from .lacking import measure_missing, measure_while

#: Cells measured to check a segment between two lines, and the largest relative error of any for it to pass.
CHECKS = 6
TOLERANCE = 0.05
Plan = TypeVar("Plan")


@dataclass(frozen=True, kw_only=True)
class CellProposals:
    """Latencies of unmeasured (in, out) cells of one layer; a `core.protocols.LatencySource` whose every answer is `modelled`.

    Between two measured out-lines, at in-widths a < b, a cell takes its place along in from the in-line at the full out-width:

        T(i, o) = T(a, o) + (T(b, o) - T(a, o)) (T(i, full) - T(a, full)) / (T(b, full) - T(a, full))

    so steps along out are those of both lines, and steps along in those of the in-line: nothing is read between two
    measured widths. `segments` are the pairs (a, b) whose check passed, with the largest error seen there; elsewhere, and
    at widths off the lines, it raises MissingLatency.
    """

    layer: LayerShape
    table: LatencyTable
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    segments: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"proposed from lines of {self.table.origin}"

    @property
    def max_error(self) -> float:
        """The largest relative error that any passed check saw."""
        return max(self.segments.values(), default=0.0)

    def kind(self, shape: LayerShape) -> LatencyKind:
        return "modelled"

    def latency_us(self, shape: LayerShape) -> float:
        here = self.layer.with_channels(in_channels=shape.in_channels, out_channels=shape.out_channels)
        if shape == here and shape.in_channels in self.in_widths and shape.out_channels in self.out_widths:
            for low, high in self.segments:
                if low <= shape.in_channels <= high:
                    return self.between(low, high, shape.in_channels, shape.out_channels)
        raise MissingLatency(f"No line proposes a latency of {shape}; measure it.", (shape,))

    def between(self, low: int, high: int, ins: int, outs: int) -> float:
        """The formula above, whether or not the segment passed."""
        full = self.layer.out_channels
        start, end, here = (self._at(i, full) for i in (low, high, ins))
        share = (here - start) / (end - start) if end != start else (ins - low) / (high - low)
        return self._at(low, outs) + (self._at(high, outs) - self._at(low, outs)) * share

    def _at(self, ins: int, outs: int) -> float:
        return self.table.latency_us(self.layer.with_channels(in_channels=ins, out_channels=outs))


def propose_cells(
    table: LatencyTable,
    layer: LayerShape,
    timer: LayerTimer,
    *,
    in_widths: Sequence[int],
    out_widths: Sequence[int],
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> CellProposals:
    """What does every cell of this layer's in x out table cost, from as few of them as will do?

    A cross of three lines is measured first: along in at the full out-width, along out at the full and at the smallest
    in-width. Cells drawn at random check what they propose in between; where one is off by more than `tolerance` the
    segment is divided at its middle by another out-line, down to neighbouring in-widths, which need no proposal. Both sets
    of widths, the ones that `fill_table` measured for example, must end with the layer's own.
    """
    ins, outs = tuple(sorted(set(in_widths))), tuple(sorted(set(out_widths)))
    if layer.op not in ("conv", "linear") or layer.depthwise:
        raise InvalidShape(
            f"A {layer.op} layer whose channel counts move together has a line, no in x out table: {layer}."
        )
    if (ins[-1:], outs[-1:]) != ((layer.in_channels,), (layer.out_channels,)):
        raise InvalidShape(
            f"The widths must end with the layer's own, {layer.in_channels} in and {layer.out_channels} out; got "
            f"{ins[-1:]} and {outs[-1:]}."
        )
    cell: Callable[[int, int], LayerShape] = lambda i, o: layer.with_channels(in_channels=i, out_channels=o)  # noqa: E731
    measure_missing(
        table, [cell(i, outs[-1]) for i in ins] + [cell(i, o) for i in (ins[0], ins[-1]) for o in outs], timer
    )
    found = CellProposals(layer=layer, table=table, in_widths=ins, out_widths=outs)
    draw = random.Random(seed)
    waiting = [(ins[0], ins[-1])]
    while waiting:
        low, high = waiting.pop()
        inner = ins[bisect_left(ins, low) + 1 : bisect_left(ins, high)]
        if not inner or len(outs) < 2:
            continue
        checks = {(draw.choice(inner), draw.choice(outs[:-1])) for _ in range(CHECKS)}
        measure_missing(table, [cell(i, o) for i, o in checks], timer)
        try:
            errors = [abs(found.between(low, high, i, o) / table.latency_us(cell(i, o)) - 1) for i, o in checks]
        except MissingLatency:
            continue  # a shape on these lines cannot be run
        if max(errors) <= tolerance:
            found.segments[low, high] = max(errors)
            continue
        middle = inner[len(inner) // 2]
        measure_missing(table, [cell(middle, o) for o in outs], timer)
        waiting += pairwise((low, middle, high))
    return found


def measure_chosen(
    table: LatencyTable,
    proposals: Iterable[LatencySource],
    timer: LayerTimer,
    decide: Callable[[LatencySource], Plan],
    shapes_of: Callable[[Plan], Iterable[LayerShape]],
) -> Plan:
    """Decide over measured and proposed latencies until all that the decision chose is measured.

    Cells that neither knows are measured, as in `measure_while`; so are the shapes of every choice, after which it is made
    again. What is returned rests on no proposal for what it chose; what it passed over may.
    """
    source = FirstOf(table, *proposals)
    while True:
        plan = measure_while(table, timer, lambda: decide(source))
        if not measure_missing(table, shapes_of(plan), timer):
            return plan
