"""Fill a latency table: measure what tells where the steps are, and nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.protocols import LayerTimer, WidthProposer
from ..steps import Staircase
from ..tables import LatencyTable
from .hold import hold_plateaus
from .lacking import Progress, check_environment
from .lines import Line
from .propose import FINEST, SHORT, Expectation, learn_period, seed_widths
from .report import FillReport, count_grid_cells
from .rounds import Rounds


def fill_table(
    table: LatencyTable,
    graph: ModelGraph,
    timer: LayerTimer,
    *,
    widths: Mapping[str, int] | None = None,
    groups: Sequence[str] | None = None,
    min_riser: float = 0.02,
    proposer: WidthProposer | None = None,
    progress: Progress | None = None,
) -> FillReport:
    """Find the steps of every prunable channel group with few measurements.

    A group's line is the latency of all layers that depend on it, along its width, the other groups at `widths`
    (default: dense). Lines of 32 widths or fewer are measured in full. On each other line

    1. three **ladders** tell its alignment: widths that are no multiple of it are no faster than the next multiple, and
       are left out;
    2. pairs (c, c + alignment) are timed at the multiples of a **period**, learned once on the first lines of each kind
       of layer, or where a `proposer` expects an edge; intervals whose ends differ are halved until the edge lies
       between neighbours or a straight slope is confirmed;
    3. each edge is brought to its exact channel.

    What was timed on that way was timed in different minutes, at different speeds of the machine. So last

    4. all measured widths of a line are **timed together**, a second time where an edge is still in doubt, and only these visits
       count.

    Confirmed flat plateaus are then held (`LatencyTable.hold`), layer by layer.

    Only what the table lacks is timed, so a second call times nothing, and one that was killed goes on: what is asked for
    follows from what was asked for before, never from what else the table holds, so it ends with the same shapes.
    A shape that fails is recorded, reported and not tried again. `groups` restricts the lines to these.
    """
    check_environment(table, timer)
    started = time.monotonic()
    at = graph.check_widths(widths or {})
    chosen = graph.prunable_groups if groups is None else tuple(graph.group(group) for group in groups)
    for group in chosen:
        if not group.prunable:
            raise InvalidShape(f"Group {group.id} cannot be pruned ({group.reason}), so it has no line; leave it out.")
    rounds = Rounds(table, timer, progress, min_riser)
    every = [Line(graph, group, rounds.seen, at) for group in chosen if graph.layers_of(group.id)]
    lines = list({line.key: line for line in every}.values())
    lattices = rounds.lattices(lines)
    long = {line: lattice for line, lattice in lattices.items() if len(line.grid) > SHORT}
    expected: dict[Line, Expectation] = {}
    period = 0
    if proposer is None:
        period = _search_by_period(rounds, long)
    else:
        expected = {line: Expectation.of(proposer, line.calls, lattice) for line, lattice in lattices.items()}
        rounds.search(
            long, {line: seed_widths(lattice, expected[line].edges) for line, lattice in long.items()}, expected
        )
    rounds.place(long)
    staircases = rounds.settle(lattices, expected)
    held = sum(hold_plateaus(table, line, staircase) for line, staircase in staircases.items())
    shapes = dict.fromkeys(shape for line in lines for width in line.grid for shape in line.shapes(width))
    samples = [table.sample(shape) for shape in shapes if shape in table]
    return FillReport(
        lines=len(lines),
        timed=rounds.timed,
        retimed=rounds.retimed,
        held=held,
        line_cells=len(shapes),
        grid_cells=count_grid_cells(graph),
        unstable=sum("unstable" in sample.flags for sample in samples if sample.usable),
        failed=tuple(str(sample.shape) for sample in samples if not sample.usable),
        period=period,
        seconds=time.monotonic() - started,
    )


def _search_by_period(rounds: Rounds, lattices: Mapping[Line, range]) -> int:
    """The period. Scouts are searched at the finest period; what their edges are multiples of is the period for the rest."""
    scouts = {line: lattices[line] for line in _scouts(lattices)}

    def search(lines: Mapping[Line, range], period: int) -> dict[Line, Staircase]:
        seeds = {line: seed_widths(lat, range(period, lat[-1] + 1, period)) for line, lat in lines.items()}
        return rounds.search(lines, seeds)

    def period_of(staircases: Mapping[Line, Staircase]) -> int:
        edges = [edge for line in scouts if line in staircases for edge in staircases[line].confirmed_edges]
        return learn_period(edges, max((lattice.step for lattice in scouts.values()), default=1))

    period = period_of(search(scouts, FINEST))
    while True:
        staircases = search(lattices, period)
        finer = min(period, period_of(staircases))
        if finer == period:
            return period
        period = finer


def _scouts(lines: Iterable[Line]) -> list[Line]:
    """The longest line of each kind of layer."""
    seen: set[object] = set()
    scouts: list[Line] = []
    for line in sorted(lines, key=lambda line: -len(line.grid)):
        if not line.kinds <= seen:
            scouts.append(line)
            seen |= line.kinds
    return scouts
