"""What a filling cost, and what it left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from ..core.graph import Layer, ModelGraph, WidthExpr
from ..core.shapes import LayerShape


@dataclass(frozen=True, slots=True, kw_only=True)
class FillReport:
    """Counts of one call of `fill_table`.

    `timed` shapes were new, `retimed` visits went to edges in doubt. `line_cells` is what the same lines measured at
    every width would take, `grid_cells` every pair of in- and out-width of every distinct layer. `unstable` samples
    did not settle; `failed` shapes the device could not run. `period` is what the device's steps were multiples of.
    """

    lines: int
    timed: int
    retimed: int
    held: int
    line_cells: int
    grid_cells: int
    unstable: int
    failed: tuple[str, ...]
    period: int
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        parts = [
            f"{self.timed:,} shapes timed on {self.lines} lines in {self.seconds:.0f} s",
            f"{self.retimed:,} timed again",
            f"{self.line_cells:,} lie on these lines, {self.grid_cells:,} in the whole grid",
            f"{self.held:,} plateaus held",
        ]
        if self.unstable:
            parts.append(f"{self.unstable:,} did not settle")
        if self.failed:
            parts.append(f"{len(self.failed):,} could not be run, first {self.failed[0]}")
        return "; ".join(parts) + "."


def count_grid_cells(graph: ModelGraph) -> int:
    """Pairs of in- and out-width over all distinct layers that pruning can change."""
    prunable = {group.id: group.grid for group in graph.prunable_groups}
    cells = {_family(layer, prunable): _cells(layer, prunable) for layer in graph.layers}
    return sum(cells.values())


def _family(layer: Layer, grids: Mapping[str, range]) -> tuple[LayerShape, int, int]:
    return layer.shape, _span(layer.in_expr, grids), _span(layer.out_expr, grids)


def _cells(layer: Layer, grids: Mapping[str, range]) -> int:
    ins, outs = _span(layer.in_expr, grids), _span(layer.out_expr, grids)
    if ins == outs == 1:
        return 0
    coupled = layer.in_expr == layer.out_expr
    return outs if coupled else ins * outs


def _span(expr: WidthExpr, grids: Mapping[str, range]) -> int:
    """How many values a width expression takes, counted as the multiples of its finest step between its ends."""
    terms = [(times, grids[group]) for group, times in expr.terms if group in grids]
    step = gcd(*(times * grid.step for times, grid in terms))
    reach = sum(times * (grid[-1] - grid[0]) for times, grid in terms)
    return reach // step + 1 if step else 1
