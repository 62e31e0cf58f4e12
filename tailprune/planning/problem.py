"""The joint problem: one width for every group, true costs at both ends of every layer.

    minimise  time(k) = sum over layers l of  calls_l x T_l(in_l(k), out_l(k))
    against   loss(k) = sum over groups g of  V_g(widest candidate) - V_g(k_g),        k_g in candidates of g

Two integers describe a choice of widths: its time (picoseconds) and its loss (importance in units of 1e-12). An
objective minimises one under a limit on the other, and among equals takes the lower other. Every group's loss is
rounded, so losses nearer to one another than a unit a group (`tie`) are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import MissingLatency
from ..core.graph import ModelGraph
from ..core.scores import ChannelScores
from ..core.shapes import LayerShape
from .costs import TICKS_PER_US, LayerCosts, missing_latencies
from .structure import Integers, Seen, Structure, channels_at, channels_over, find_structure

#: Importance kept lies in 0..1; a double carries about 1e-16 of it and sums over a few hundred groups 1e-13.
UNITS_OF_IMPORTANCE = 10**12

Positions = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Minimise `minimise` with the other quantity at most `limit`; ties go to the lower other."""

    minimise: Literal["time", "loss"]
    limit: int

    def key(self, time: int, loss: int) -> tuple[int, int, int]:
        """Smaller is better: feasible before infeasible, then the objective, then the other quantity."""
        first, second = (time, loss) if self.minimise == "time" else (loss, time)
        return max(0, second - self.limit), first, second


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A choice of widths. `bound` is a proved lower bound on the minimised quantity, None where none is known."""

    positions: Positions
    time: int
    loss: int
    solver: str
    bound: int | None = None

    def is_optimal(self, objective: Objective) -> bool:
        return self.bound is not None and objective.key(self.time, self.loss)[1] <= self.bound


class Table:
    """The summed cost of all layers that depend on the same one or two axes, by position.

    Filled at once where all of it is needed; cell by cell, as asked, where concatenation reaches too many sums.
    """

    def __init__(
        self, axes: tuple[int, ...], layers: tuple[Seen, ...], structure: Structure, costs: LayerCosts
    ) -> None:
        self.axes, self.layers, self.structure, self.costs = axes, layers, structure, costs
        self.ticks: Integers | None = None
        self.cells: dict[tuple[int, ...], int] = {}

    def fill(self) -> list[LayerShape]:
        """Look up every cell; the shapes that the source lacks."""
        total: Integers = np.zeros([len(self.structure.axes[axis].values) for axis in self.axes], dtype=np.int64)
        lacking: list[LayerShape] = []
        for seen in self.layers:
            ins, outs = channels_over(seen, self.axes, total.shape)
            us = self.costs.latencies_us(seen.layer.shape, ins, outs)
            lacking += [
                seen.layer.shape.with_channels(in_channels=int(ins[at]), out_channels=int(outs[at]))
                for at in map(tuple, np.argwhere(np.isnan(us)))
            ]
            total += seen.layer.calls * np.rint(np.nan_to_num(us) * TICKS_PER_US).astype(np.int64)
        self.ticks = total
        return lacking

    def at(self, cell: tuple[int, ...]) -> int:
        if self.ticks is not None:
            return int(self.ticks[cell])
        known = self.cells.get(cell)
        if known is None:
            known = sum(self.costs.ticks(seen.layer, *channels_at(seen, self.axes, cell)) for seen in self.layers)
            self.cells[cell] = known
        return known


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What solvers see: variables with positions, tables of time over one or two axes, a loss per variable.

    `complete` says whether every table is filled; where concatenation reaches too many sums they fill as asked.
    """

    graph: ModelGraph
    scores: ChannelScores
    costs: LayerCosts
    structure: Structure
    fixed_widths: Mapping[str, int]
    fixed_time: int
    tables: tuple[Table, ...]
    losses: tuple[Integers, ...]
    best_value: int
    complete: bool
    _place: tuple[Mapping[int, int], ...] = field(repr=False)

    @property
    def num_variables(self) -> int:
        return len(self.structure.variables)

    @property
    def tie(self) -> int:
        return tie(self.scores)

    def cell(self, axes: tuple[int, ...], positions: Sequence[int]) -> tuple[int, ...]:
        """Where a table is read at these positions of the variables."""
        count = self.num_variables
        return tuple(positions[axis] if axis < count else self._sum_place(axis, positions) for axis in axes)

    def _sum_place(self, axis: int, positions: Sequence[int]) -> int:
        candidates = self.structure.candidates
        total = sum(times * candidates[v][positions[v]] for v, times in self.structure.axes[axis].terms)
        return self._place[axis - self.num_variables][total]

    def cells(self, axes: tuple[int, ...], rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
        """`cell` for many rows of positions at once."""
        places = []
        for axis in axes:
            if axis < self.num_variables:
                places.append(rows[:, axis])
                continue
            spanned = self.structure.axes[axis]
            total = sum(times * np.array(self.structure.candidates[v])[rows[:, v]] for v, times in spanned.terms)
            places.append(np.searchsorted(spanned.values, total))
        return tuple(places)

    def totals(self, rows: NDArray[np.intp], tables: Sequence[Integers], fixed: int) -> Integers:
        """What every row of positions takes, by quantities given like `tables`: one array for each of them."""
        taken = np.full(len(rows), fixed, dtype=np.int64)
        for table, quantity in zip(self.tables, tables, strict=True):
            taken += quantity[self.cells(table.axes, rows)]
        return taken

    def time(self, positions: Sequence[int]) -> int:
        return self.fixed_time + sum(table.at(self.cell(table.axes, positions)) for table in self.tables)

    def loss(self, positions: Sequence[int]) -> int:
        return sum(int(loss[p]) for loss, p in zip(self.losses, positions, strict=True))

    def widths(self, positions: Sequence[int]) -> dict[str, int]:
        chosen = zip(self.structure.variables, self.structure.candidates, positions, strict=True)
        return {**self.fixed_widths, **{group: allowed[p] for group, allowed, p in chosen}}

    def positions(self, widths: Mapping[str, int]) -> Positions | None:
        """The position of every variable at these widths (of all groups), None if one of them is no candidate."""
        pairs = list(zip(self.structure.variables, self.structure.candidates, strict=True))
        if any(widths[group] not in allowed for group, allowed in pairs):
            return None
        if any(widths[group] != width for group, width in self.fixed_widths.items()):
            return None
        return tuple(allowed.index(widths[group]) for group, allowed in pairs)

    def measure(self, widths: Mapping[str, int]) -> tuple[int, int]:
        """(time, loss) of any widths, candidates or not, on the scale the solvers use."""
        return self.costs.total(self.graph, widths), self.best_value - importance_units(self.scores, widths)

    def solution(self, positions: Positions, *, solver: str, bound: int | None = None) -> Solution:
        return Solution(
            positions=positions,
            time=self.time(positions),
            loss=self.loss(positions),
            solver=solver,
            bound=bound,
        )

    def evaluate(self, widths: Mapping[str, int]) -> tuple[float, float]:
        """(latency in us, importance kept) of any widths."""
        time, loss = self.measure(widths)
        return time / TICKS_PER_US, (self.best_value - loss) / UNITS_OF_IMPORTANCE


def importance_units(scores: ChannelScores, widths: Mapping[str, int]) -> int:
    return sum(value_units(scores, g.group, widths.get(g.group, g.width)) for g in scores.groups)


def tie(scores: ChannelScores) -> int:
    """Equal importances differ by no more than this in units: half a unit a group on either side."""
    return len(scores.groups)


def value_units(scores: ChannelScores, group: str, width: int) -> int:
    """V_group(width) as an integer."""
    return round(scores.value(group, width) * UNITS_OF_IMPORTANCE)


def build_problem(
    graph: ModelGraph, scores: ChannelScores, costs: LayerCosts, candidates: Mapping[str, tuple[int, ...]]
) -> Problem:
    """Look up all that is needed, the original and the host included; MissingLatency lists all that is missing at once."""
    structure = find_structure(graph, candidates)
    fixed = Table((), structure.fixed, structure, costs)
    tables = [Table(axes, layers, structure, costs) for axes, layers in structure.tables.items()]
    lacking = fixed.fill()
    complete = structure.sums_are_few(at_once=costs.at_once)
    for widths in (graph.widths, scores.host_widths):
        try:
            costs.total(graph, widths)
        except MissingLatency as error:
            lacking += error.shapes
    for table in tables:
        if complete or not structure.has_sum(table.axes):
            lacking += table.fill()
    if lacking:
        raise missing_latencies(lacking, costs.origin)

    scored = set(scores.by_group)
    values = [
        np.array([value_units(scores, group, width) if group in scored else 0 for width in allowed], dtype=np.int64)
        for group, allowed in zip(structure.variables, structure.candidates, strict=True)
    ]
    fixed_widths = {g.id: candidates.get(g.id, (g.width,))[0] for g in graph.groups if g.id not in structure.variables}
    best = {**fixed_widths}
    for group, allowed, value in zip(structure.variables, structure.candidates, values, strict=True):
        best[group] = allowed[int(value.argmax())]
    return Problem(
        graph=graph,
        scores=scores,
        costs=costs,
        structure=structure,
        fixed_widths=fixed_widths,
        fixed_time=fixed.at(()),
        tables=tuple(tables),
        losses=tuple(value.max() - value for value in values),
        best_value=importance_units(scores, best),
        complete=complete,
        _place=tuple({v: i for i, v in enumerate(axis.values)} for axis in structure.axes[len(structure.variables) :]),
    )
