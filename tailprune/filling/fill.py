"""Fill a latency table: measure what tells where the steps are, and nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..core.errors import EnvironmentMismatch, InvalidShape
from ..core.graph import ModelGraph
from ..core.protocols import LayerTimer
from ..core.shapes import LayerShape
from ..steps import Staircase, detect_steps
from ..tables import LatencyTable
from .hold import hold_plateaus
from .lines import Line
from .propose import PERIODS, learn_period, propose_widths, seed_widths
from .report import FillReport, count_grid_cells

#: Called as progress(done, estimate of the total, what is being timed).
Progress = Callable[[int, int, str], None]
#: Visits a shape beside a doubtful edge gets before the doubt is left standing.
MOST_VISITS = 2


def measure_missing(
    table: LatencyTable, shapes: Iterable[LayerShape], timer: LayerTimer, *, progress: Progress | None = None
) -> int:
    """Time the shapes that the table neither measured nor knows to fail, each once; returns how many.

    Every sample is in the table before the next is taken, so a kill loses the samples in flight and no more. A held
    shape is measured: a plan is made of measurements. Refuses a timer of another environment than the table's.
    """
    check_environment(table, timer)
    lacking = [shape for shape in dict.fromkeys(shapes) if shape not in table]
    return _time(table, lacking, timer, lambda done, shape: progress and progress(done, len(lacking), str(shape)))


def fill_table(
    table: LatencyTable,
    graph: ModelGraph,
    timer: LayerTimer,
    *,
    widths: Mapping[str, int] | None = None,
    groups: Sequence[str] | None = None,
    min_riser: float = 0.02,
    progress: Progress | None = None,
) -> FillReport:
    """Find the steps of every prunable channel group with few measurements.

    A group's line is the latency of all layers that depend on it, along its width, the other groups at `widths`
    (default: dense). On each line pairs (c, c + granule) are timed at the multiples of a period, intervals whose ends
    differ are halved until the edge lies between neighbours or a straight slope is confirmed, and each edge is
    confirmed by three points; edges in doubt are timed again. The first lines of each kind of layer are searched at
    multiples of 8; what their edges are multiples of is the period for the rest. Lines of 16 widths or fewer are
    measured in full. Confirmed flat plateaus are then held (`LatencyTable.hold`), layer by layer.

    Only what the table lacks is timed, so a second call times nothing and a killed one goes on. A shape that fails is
    recorded, reported and not tried again. `groups` restricts the lines to these.
    """
    check_environment(table, timer)
    started = time.monotonic()
    at = graph.check_widths(widths or {})
    chosen = graph.prunable_groups if groups is None else tuple(graph.group(group) for group in groups)
    for group in chosen:
        if not group.prunable:
            raise InvalidShape(f"Group {group.id} cannot be pruned ({group.reason}), so it has no line; leave it out.")
    every = [Line(graph, group, table, at) for group in chosen if graph.layers_of(group.id)]
    lines = list({line.key: line for line in every}.values())
    scouts = _scouts(lines)
    filling = _Filling(table, timer, progress, min_riser)
    staircases = filling.fill(scouts, PERIODS[-1])
    period = _period(staircases, scouts)
    while True:
        staircases = filling.fill(lines, period)
        finer = min(period, _period(staircases, scouts))
        if finer == period:
            break
        period = finer
    held = sum(hold_plateaus(table, line, staircase) for line, staircase in staircases.items())
    shapes = dict.fromkeys(shape for line in lines for width in line.grid for shape in line.shapes(width))
    samples = [table.sample(shape) for shape in shapes if shape in table]
    return FillReport(
        lines=len(lines),
        timed=filling.timed,
        retimed=filling.retimed,
        held=held,
        line_cells=len(shapes),
        grid_cells=count_grid_cells(graph),
        unstable=sum("unstable" in sample.flags for sample in samples if sample.usable),
        failed=tuple(str(sample.shape) for sample in samples if not sample.usable),
        period=period,
        seconds=time.monotonic() - started,
    )


class _Filling:
    """Rounds over many lines at once: what all of them ask for is timed together, so that drift hits them alike."""

    def __init__(self, table: LatencyTable, timer: LayerTimer, progress: Progress | None, min_riser: float) -> None:
        self.table, self.timer, self.progress, self.min_riser = table, timer, progress, min_riser
        self.timed = self.retimed = 0

    def fill(self, lines: Sequence[Line], period: int) -> dict[Line, Staircase]:
        asked = {shape: line.name for line in lines for w in seed_widths(line.grid, period) for shape in line.shapes(w)}
        again: dict[LayerShape, str] = {}
        staircases: dict[Line, Staircase] = {}
        while asked or again:
            self.timed += self._round([shape for shape in asked if shape not in self.table], asked)
            self.retimed += self._round(list(again), again)
            asked, again = {}, {}
            for line in lines:
                curve = line.curve()
                if curve is None:
                    continue
                staircase = staircases[line] = detect_steps(curve, min_riser=self.min_riser)
                proposal = propose_widths(staircase, line.grid.step)
                for width in proposal.widths:
                    asked |= {shape: line.name for shape in line.shapes(width) if shape not in self.table}
                for width in proposal.again:
                    again |= {shape: line.name for shape in line.shapes(width) if self._may_repeat(shape)}
        return staircases

    def _may_repeat(self, shape: LayerShape) -> bool:
        visits = self.table.visits(shape)
        return len(visits) < MOST_VISITS and any(visit.usable for visit in visits)

    def _round(self, shapes: list[LayerShape], names: Mapping[LayerShape, str]) -> int:
        before = self.timed + self.retimed

        def report(done: int, shape: LayerShape) -> None:
            if self.progress:
                self.progress(before + done, before + len(shapes), f"{names[shape]}: {shape}")

        return _time(self.table, shapes, self.timer, report)


def _time(
    table: LatencyTable, shapes: Sequence[LayerShape], timer: LayerTimer, report: Callable[[int, LayerShape], object]
) -> int:
    done = 0
    for sample in timer.time_many(shapes) if shapes else ():
        table.add(sample)
        done += 1
        report(done, sample.shape)
    return done


def _scouts(lines: Sequence[Line]) -> list[Line]:
    """The longest line of each kind of layer."""
    seen: set[object] = set()
    scouts: list[Line] = []
    for line in sorted(lines, key=lambda line: -len(line.grid)):
        if not line.kinds <= seen:
            scouts.append(line)
            seen |= line.kinds
    return scouts


def _period(staircases: Mapping[Line, Staircase], scouts: Sequence[Line]) -> int:
    edges = [edge for line in scouts if line in staircases for edge in staircases[line].confirmed_edges]
    return learn_period(edges, max((line.grid.step for line in scouts), default=1))


def check_environment(table: LatencyTable, timer: LayerTimer) -> None:
    """EnvironmentMismatch where the timer's latencies do not belong into this table."""
    refused, _ = table.environment.differences(timer.environment)
    if refused:
        fields = "; ".join(
            f"{name} is {mine!r} in the table and {theirs!r} here" for name, (mine, theirs) in refused.items()
        )
        raise EnvironmentMismatch(f"This timer cannot fill that table: {fields}. Open another table for it.")
