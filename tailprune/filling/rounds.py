"""Rounds over many lines at once: what all of them ask for is timed together, so that drift hits them alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..core.protocols import LayerTimer
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from ..steps import Staircase, detect_steps
from ..tables import LatencyTable
from .alignment import aligned_widths, ladders, learn_alignment
from .lacking import Progress, time_shapes
from .lines import Line
from .propose import SHORT, Expectation, Proposal, propose_places, propose_widths


class Rounds:
    """Times what lines ask for until they ask for nothing more; counts what that took.

    `search` and `place` time widths as they are asked for, in different minutes and beside other shapes: good to find out where
    to look. `settle` then times all widths of a line together, afresh: only these visits count.

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
        self.look({line: (line.grid[-1], *(w for ladder in ladders(line.grid) for w in ladder)) for line in long})
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
        self.look(seeds)
        while self.look({line: self._steps_of(line, lattices, expected).widths for line in lattices}):
            pass
        return {line: found for line, lattice in lattices.items() if (found := self._staircase(line, lattice))}

    def place(self, lattices: Mapping[Line, range]) -> None:
        """Bring each step between two widths of its lattice to its exact channel."""
        while self.look({line: self._places_of(line, lattices).widths for line in lattices}):
            pass

    def settle(
        self, lattices: Mapping[Line, range], expected: Mapping[Line, Expectation] | None = None
    ) -> dict[Line, Staircase]:
        """Staircases over all measured widths, each line's timed together afresh, and once more where that leaves doubt.

        Widths of short lines are all timed, and only here. Of others none is added any more: it would have been timed in another
        minute. (A shape on two lines one of which is in doubt has visits that the other line's rest has not.)
        """
        together = {line: self._known_widths(line) for line in lattices}
        self._pass(together, afresh=True)
        # Over 28 lines of a shared CPU, at multiples of 8 and at every channel, one visit found 97 and 89 % of the risers that two sweeps agree
        # on, two 99 and 91, three 98 and 90 (trials).
        self._pass(
            {line: together[line] for line in lattices if self._in_doubt(line, lattices, expected)}, afresh=False
        )
        return {line: found for line in lattices if (found := self._staircase(line, line.grid))}

    def look(self, asked: Mapping[Line, Iterable[int]]) -> int:
        """Time the widths not seen yet; how many visits came."""
        names = {shape: line.name for line, widths in asked.items() for w in widths for shape in line.shapes(w)}
        unseen = [shape for shape in names if shape not in self.seen]
        ahead = len(self.seen) + len(unseen)  # all of them will be visited once more, beside their lines
        self._time([shape for shape in unseen if shape not in self.table], names, afresh=False, ahead=ahead)
        return self._see(visit for shape in unseen for visit in self.table.visits(shape)[:1])

    def _known_widths(self, line: Line) -> Sequence[int]:
        return line.grid if len(line.grid) <= SHORT else tuple(filter(line.is_visited, line.grid))

    def _pass(self, asked: Mapping[Line, Sequence[int]], *, afresh: bool) -> None:
        """Visit all these widths once more, each layer's along one line in a row."""
        names = {shape: line.name for line, widths in asked.items() for run in line.runs(widths) for shape in run}
        able = [shape for shape in names if shape not in self.seen or self.seen.sample(shape).usable]
        self._time([shape for shape in able if not self._news(shape, afresh)], names, afresh=afresh)
        self._see(visit for shape in able for visit in self._news(shape, afresh))

    def _news(self, shape: LayerShape, afresh: bool) -> tuple[LatencySample, ...]:
        """Of what the table has and was not seen, up to the first visit, or the first afresh; nothing where there is none."""
        news = self.table.visits(shape)[len(self.seen.visits(shape)) :]
        ends = (n for n, visit in enumerate(news, 1) if not afresh or "afresh" in visit.flags or not visit.usable)
        return news[: next(ends, 0)]

    def _see(self, news: Iterable[LatencySample]) -> int:
        visits = tuple(news)
        self.seen.add_many(visits)
        return len(visits)

    def _time(
        self, shapes: Sequence[LayerShape], names: Mapping[LayerShape, str], *, afresh: bool, ahead: int = 0
    ) -> None:
        before = self.timed + self.retimed
        new = {shape for shape in shapes if shape not in self.table}

        def report(done: int, shape: LayerShape) -> None:
            self.timed += shape in new
            self.retimed += shape not in new
            if self.progress:
                self.progress(before + done, before + len(shapes) + ahead, f"{names[shape]}: {shape}")

        time_shapes(self.table, shapes, self.timer, report, afresh=afresh)

    def _steps_of(
        self, line: Line, lattices: Mapping[Line, range], expected: Mapping[Line, Expectation] | None
    ) -> Proposal:
        aligned = self._staircase(line, lattices[line])
        return propose_widths(aligned, lattices[line].step, (expected or {}).get(line)) if aligned else Proposal()

    def _places_of(self, line: Line, lattices: Mapping[Line, range]) -> Proposal:
        aligned, found = self._staircase(line, lattices[line]), self._staircase(line, line.grid)
        return propose_places(aligned, found, line.grid) if aligned and found else Proposal()

    def _in_doubt(
        self, line: Line, lattices: Mapping[Line, range], expected: Mapping[Line, Expectation] | None
    ) -> bool:
        steps, places = self._steps_of(line, lattices, expected), self._places_of(line, lattices)
        return bool(steps.widths or steps.again or places.widths or places.again)

    def _staircase(self, line: Line, widths: Iterable[int]) -> Staircase | None:
        curve = line.curve(widths)
        return None if curve is None else detect_steps(curve, min_riser=self.min_riser)
