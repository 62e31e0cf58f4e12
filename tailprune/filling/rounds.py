"""Rounds over many lines at once: what all of them ask for is timed together, so that drift hits them alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ..core.protocols import LayerTimer
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from ..steps import LatencyCurve, Staircase, detect_steps
from ..tables import LatencyTable
from .alignment import aligned_widths, ladders, learn_alignment
from .lacking import Progress, time_shapes
from .lines import Line
from .propose import SHORT, Expectation, place_edge, propose_widths

#: Visits a shape beside a doubtful edge gets before the doubt is left standing.
MOST_VISITS = 4


class Rounds:
    """Times what lines ask for until they ask for nothing more; counts what that took.

    `seen` holds the visits asked for so far, all that lines may look at. What the table already has is handed over
    when it is asked for, in the order in which it was measured: a filling that was stopped takes the same way again.
    """

    def __init__(self, table: LatencyTable, timer: LayerTimer, progress: Progress | None, min_riser: float) -> None:
        self.seen = LatencyTable.in_memory(table.environment)
        self.table, self.timer, self.progress, self.min_riser = table, timer, progress, min_riser
        self.timed = self.retimed = 0

    def lattices(self, lines: Iterable[Line]) -> dict[Line, range]:
        """The widths of each line worth looking at: all of a short one, the aligned ones of others."""
        long = [line for line in lines if len(line.grid) > SHORT]
        self.visit({line: (line.grid[-1], *(w for ladder in ladders(line.grid) for w in ladder)) for line in long})
        found = {line: line.grid for line in lines}
        for line in long:
            curve = line.curve(width for ladder in ladders(line.grid) for width in ladder)
            if curve is not None:
                found[line] = aligned_widths(line.grid, learn_alignment(curve, line.grid, min_riser=self.min_riser))
        return found

    def search(
        self,
        lattices: Mapping[Line, range],
        seeds: Mapping[Line, Iterable[int]],
        expected: Mapping[Line, Expectation] | None = None,
    ) -> dict[Line, Staircase]:
        """Staircases over the lattices, once nothing between two measured widths can hide a step any more that is not
        `expected` there."""
        self.visit(seeds)
        staircases: dict[Line, Staircase] = {}
        while True:
            asked: dict[Line, Iterable[int]] = {}
            again: dict[Line, Iterable[int]] = {}
            for line, lattice in lattices.items():
                curve = line.curve(lattice)
                if curve is None:
                    continue
                staircase = staircases[line] = detect_steps(curve, min_riser=self.min_riser)
                proposal = propose_widths(staircase, lattice.step, (expected or {}).get(line))
                asked[line], again[line] = proposal.widths, proposal.again
            if not self.visit(asked, again):
                return staircases

    def place(self, staircases: Mapping[Line, Staircase]) -> dict[Line, Staircase]:
        """The same over all measured widths, each step between two aligned ones brought to its exact channel.

        A line that only rises by a riser from one aligned width to the next may be a slope: there one timing must do. Where
        a step is placed and not certain, the widths on both sides of it are timed again.
        """
        while True:
            curves = {line: curve for line in staircases if (curve := line.curve(line.grid))}
            found = {line: detect_steps(curve, min_riser=self.min_riser) for line, curve in curves.items()}
            asked: dict[Line, list[int]] = {}
            again: dict[Line, list[int]] = {}
            for line, curve in curves.items():
                aligned, granule = staircases[line], line.grid.step
                edges, certain = set(aligned.edge_widths), found[line].confirmed_edges
                asked[line], again[line] = [], []
                for low, high in pairwise(aligned.curve.widths):
                    if low in edges:
                        place = place_edge(curve, low, high, granule)
                        asked[line] += [] if place is None else [place]
                        if place is None and not any(low <= edge < high for edge in certain):
                            again[line] += [low, low + granule]
                    elif granule < high - low == aligned.curve.granule and _rises(curve, low, high, self.min_riser):
                        asked[line] += (low + granule,)
            if not self.visit(asked, again):
                return found

    def visit(self, asked: Mapping[Line, Iterable[int]], again: Mapping[Line, Iterable[int]] | None = None) -> int:
        """See what is asked for, and once more what is in doubt, timing what the table lacks; how many visits came."""
        new = {s: line.name for line, widths in asked.items() for w in widths for s in line.shapes(w)}
        doubtful = {s: line.name for line, widths in (again or {}).items() for w in widths for s in line.shapes(w)}
        unseen = [shape for shape in new if shape not in self.seen]
        self.timed += self._time([shape for shape in unseen if shape not in self.table], new)
        repeated = [shape for shape in doubtful if self._may_repeat(shape)]
        once = [shape for shape in repeated if len(self.table.visits(shape)) == len(self.seen.visits(shape))]
        self.retimed += self._time(once, doubtful)
        news = [visit for shape in (*unseen, *repeated) for visit in self._next_visit(shape)]
        self.seen.add_many(news)
        return len(news)

    def _next_visit(self, shape: LayerShape) -> tuple[LatencySample, ...]:
        seen = len(self.seen.visits(shape))
        return self.table.visits(shape)[seen : seen + 1]

    def _may_repeat(self, shape: LayerShape) -> bool:
        visits = self.seen.visits(shape)
        return len(visits) < MOST_VISITS and any(visit.usable for visit in visits)

    def _time(self, shapes: Sequence[LayerShape], names: Mapping[LayerShape, str]) -> int:
        before = self.timed + self.retimed

        def report(done: int, shape: LayerShape) -> None:
            if self.progress:
                self.progress(before + done, before + len(shapes), f"{names[shape]}: {shape}")

        return time_shapes(self.table, shapes, self.timer, report)


def _rises(curve: LatencyCurve, low: int, high: int, min_riser: float) -> bool:
    return abs(curve.at(high) - curve.at(low)) >= min_riser * curve.at(low)
