"""The in x out table of a layer from a few of its lines: proposed, checked on points held back, marked as modelled."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

from ..core.errors import InvalidShape, MissingLatency
from ..core.protocols import LatencyKind, LayerTimer
from ..core.shapes import LayerShape
from ..tables import LatencyTable
from .lacking import Progress, measure_missing

#: Cells that check a segment between two lines, at least, and the largest relative error of any for it to pass.
CHECKS = 6
TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class CellProposals:
    """Latencies of unmeasured (in, out) cells of one layer; a `core.protocols.LatencySource` whose every answer is `modelled`.

    Between two measured out-lines, at in-widths a < b, a cell takes its place along in from the in-line at out-width `full`:

        T(i, o) = T(a, o) + (T(b, o) - T(a, o)) (T(i, full) - T(a, full)) / (T(b, full) - T(a, full))

    so steps along out are those of both lines, and steps along in those of the in-line: nothing is read between two
    measured widths. `segments` are the pairs (a, b) whose check passed, with the largest error seen there; elsewhere, and
    at widths off the lines, it raises MissingLatency.
    """

    layer: LayerShape
    table: LatencyTable
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    full: int
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
        here = self.cell(shape.in_channels, shape.out_channels)
        if shape == here and shape.in_channels in self.in_widths and shape.out_channels in self.out_widths:
            for low, high in self.segments:
                if low <= shape.in_channels <= high:
                    return self.between(low, high, shape.in_channels, shape.out_channels)
        raise MissingLatency(f"No line proposes a latency of {shape}; measure it.", (shape,))

    def noise_us(self, shape: LayerShape) -> float:
        """What a proposal may be off by: the largest error that a check saw."""
        return self.max_error * self.latency_us(shape)

    def between(self, low: int, high: int, ins: int, outs: int) -> float:
        """The formula above, whether or not the segment passed."""
        start, end, here = (self._at(i, self.full) for i in (low, high, ins))
        share = (here - start) / (end - start) if end != start else (ins - low) / (high - low)
        return self._at(low, outs) + (self._at(high, outs) - self._at(low, outs)) * share

    def cell(self, ins: int, outs: int) -> LayerShape:
        return self.layer.with_channels(in_channels=ins, out_channels=outs)

    def line(self, ins: int) -> list[LayerShape]:
        """The out-line at an in-width."""
        return [self.cell(ins, outs) for outs in self.out_widths]

    @property
    def cross(self) -> list[LayerShape]:
        """The three lines that the first proposals rest on."""
        along_in = [self.cell(ins, self.full) for ins in self.in_widths]
        return [*along_in, *self.line(self.in_widths[0]), *self.line(self.in_widths[-1])]

    def _at(self, ins: int, outs: int) -> float:
        return self.table.latency_us(self.cell(ins, outs))


def frame_cells(
    table: LatencyTable, layer: LayerShape, *, in_widths: Iterable[int], out_widths: Iterable[int]
) -> CellProposals:
    """The cross of lines around these widths, nothing proposed yet: lines that the table has are used where they lie at
    the ends of the widths or beyond them."""
    if layer.op not in ("conv", "linear") or layer.depthwise:
        raise InvalidShape(
            f"A {layer.op} layer whose channel counts move together has a line, no in x out table: {layer}."
        )
    ins, outs = sorted(set(in_widths)), sorted(set(out_widths))
    if not ins or not outs:
        raise InvalidShape(f"In x out cells need at least one width each way, got {len(ins)} in and {len(outs)} out.")
    known = {(s.in_channels, s.out_channels) for visit in table.visits() if same_layer(s := visit.shape, layer)}
    lines = [i for i in {i for i, _ in known} if all((i, o) in known for o in outs)]
    rows = sorted(
        {*ins, max((i for i in lines if i <= ins[0]), default=ins[0]), min((i for i in lines if i >= ins[-1]), default=ins[-1])}
    )  # fmt: skip
    across = [o for o in {o for _, o in known} if o >= outs[-1] and all((i, o) in known for i in rows)]
    full = min(across, default=outs[-1])
    return CellProposals(
        layer=layer, table=table, in_widths=tuple(rows), out_widths=tuple(sorted({*outs, full})), full=full
    )


def propose_cells(
    table: LatencyTable,
    layer: LayerShape,
    timer: LayerTimer,
    *,
    in_widths: Iterable[int],
    out_widths: Iterable[int],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Progress | None = None,
) -> CellProposals:
    """What does every cell of this layer's in x out table cost, from as few of them as will do?

    A cross of three lines is measured first: along in at the largest out-width, along out at the largest and at the
    smallest in-width. Cells that are measured, and others drawn at random, check what the lines propose in between; where
    one is off by more than `tolerance` the segment is divided near its middle by another out-line, down to neighbouring
    in-widths, which need no proposal. What the table knows is not measured again, so a second call times nothing.
    """
    found = frame_cells(table, layer, in_widths=in_widths, out_widths=out_widths)
    measure_missing(table, found.cross, timer, progress=progress)
    draw = random.Random(seed)
    waiting = [(found.in_widths[0], found.in_widths[-1])]
    while waiting:
        low, high = waiting.pop()
        inner = [i for i in found.in_widths if low < i < high]
        held_back = [cell for cell in product(inner, found.out_widths) if cell[1] != found.full]
        if not held_back:
            continue
        measure_missing(table, _drawn(found, held_back, draw), timer, progress=progress)
        try:
            error = max(_errors(found, low, high, held_back))
        except MissingLatency:
            continue  # a shape on these lines cannot be run
        if error <= tolerance:
            found.segments[low, high] = error
            continue
        middle = _middle(found, inner)
        measure_missing(table, found.line(middle), timer, progress=progress)
        waiting += pairwise((low, middle, high))
    return found


def _drawn(found: CellProposals, held_back: Sequence[tuple[int, int]], draw: random.Random) -> list[LayerShape]:
    """What is to be measured so that CHECKS of these cells are known."""
    unknown = [shape for cell in held_back if (shape := found.cell(*cell)) not in found.table]
    short = CHECKS - (len(held_back) - len(unknown))
    return draw.sample(unknown, min(max(short, 0), len(unknown)))


def _errors(found: CellProposals, low: int, high: int, held_back: Iterable[tuple[int, int]]) -> list[float]:
    known = [(cell, shape) for cell in held_back if (shape := found.cell(*cell)) in found.table]
    return [abs(found.between(low, high, *cell) / found.table.latency_us(shape) - 1) for cell, shape in known]


def _middle(found: CellProposals, inner: Sequence[int]) -> int:
    """The in-width to divide a segment at: one whose line is measured if there is any, the most central of those."""
    lines = [i for i in inner if all(shape in found.table for shape in found.line(i))]
    centre = inner[len(inner) // 2]
    return min(lines, key=lambda i: abs(i - centre), default=centre)


def same_layer(one: LayerShape, other: LayerShape) -> bool:
    """Whether two shapes differ in nothing but channel counts."""
    return one.op == other.op and one.conv_groups == other.conv_groups and one == other.with_channels(
        in_channels=one.in_channels, out_channels=one.out_channels
    )  # fmt: skip
