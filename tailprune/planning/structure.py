"""Which widths a layer sees: groups, or sums of groups behind a concatenation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..core.graph import Layer, ModelGraph, WidthExpr
from ..core.shapes import LayerShape

Integers = NDArray[np.int64]

#: Cells of all tables with a sum axis, together, up to which they are looked up beforehand: one by one, and where the
#: source computes at once. ResNets and MobileNets have none, a DenseNet-121 with three candidates a group about 21,000;
#: beyond it they are looked up as the search asks.
MAX_SUM_CELLS = 20_000
MAX_SUM_CELLS_AT_ONCE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A channel count that layers depend on: `sum(times x width)` over variables. Position p means `values[p]`."""

    terms: tuple[tuple[int, int], ...]
    values: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A layer as a table sees it: the channel counts at every position of its two ends (-1: a fixed end)."""

    layer: Layer
    in_axis: int
    out_axis: int
    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Variables (groups with a choice), the axes they span (the variables first, then the sums), and who sees which.

    `tables` maps one or two axes to the layers that depend on exactly those; layers that depend on none are `fixed`.
    """

    variables: tuple[str, ...]
    candidates: tuple[tuple[int, ...], ...]
    axes: tuple[Axis, ...]
    tables: Mapping[tuple[int, ...], tuple[Seen, ...]]
    fixed: tuple[Seen, ...]

    def cells(self, axes: tuple[int, ...]) -> int:
        size = 1
        for axis in axes:
            size *= len(self.axes[axis].values)
        return size

    def has_sum(self, axes: tuple[int, ...]) -> bool:
        return any(axis >= len(self.variables) for axis in axes)

    def sums_are_few(self, *, at_once: bool = False) -> bool:
        most = MAX_SUM_CELLS_AT_ONCE if at_once else MAX_SUM_CELLS
        return sum(self.cells(axes) for axes in self.tables if self.has_sum(axes)) <= most


def find_structure(graph: ModelGraph, candidates: Mapping[str, tuple[int, ...]]) -> Structure:
    """The graph seen from the groups that have more than one candidate."""
    variables = tuple(g.id for g in graph.groups if len(candidates.get(g.id, ())) > 1)
    index = {group: i for i, group in enumerate(variables)}
    widths = {**graph.widths, **{group: allowed[0] for group, allowed in candidates.items() if len(allowed) == 1}}
    axes = [Axis(terms=((i, 1),), values=tuple(candidates[group])) for i, group in enumerate(variables)]
    sums: dict[tuple[tuple[int, int], ...], int] = {}

    def end(expr: WidthExpr) -> tuple[int, tuple[int, ...]]:
        collected: dict[int, int] = {}
        fixed = expr.constant
        for group, times in expr.terms:
            if group in index:
                collected[index[group]] = collected.get(index[group], 0) + times
            else:
                fixed += times * widths[group]
        terms = tuple(sorted(collected.items()))
        if not terms:
            return -1, (fixed,)
        if len(terms) == 1:
            variable, times = terms[0]
            return variable, tuple(fixed + times * width for width in axes[variable].values)
        if terms not in sums:
            reachable = {0}
            for variable, times in terms:
                reachable = {total + times * width for total in reachable for width in axes[variable].values}
            sums[terms] = len(axes)
            axes.append(Axis(terms=terms, values=tuple(sorted(reachable))))
        return sums[terms], tuple(fixed + total for total in axes[sums[terms]].values)

    tables: dict[tuple[int, ...], list[Seen]] = {}
    for layer in graph.layers:
        (in_axis, ins), (out_axis, outs) = end(layer.in_expr), end(layer.out_expr)
        seen = Seen(layer=layer, in_axis=in_axis, out_axis=out_axis, in_channels=ins, out_channels=outs)
        tables.setdefault(tuple(sorted({in_axis, out_axis} - {-1})), []).append(seen)
    fixed_layers = tuple(tables.pop((), ()))
    return Structure(
        variables=variables,
        candidates=tuple(tuple(candidates[group]) for group in variables),
        axes=tuple(axes),
        tables={key: tuple(seen) for key, seen in sorted(tables.items())},
        fixed=fixed_layers,
    )


def channels_at(seen: Seen, axes: tuple[int, ...], cell: tuple[int, ...]) -> tuple[int, int]:
    """The layer's (in, out) channels in one cell of its table."""
    place = dict(zip(axes, cell, strict=True))
    return seen.in_channels[place.get(seen.in_axis, 0)], seen.out_channels[place.get(seen.out_axis, 0)]


def channels_over(seen: Seen, axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Integers, Integers]:
    """The layer's in and out channels at every cell of its table."""

    def end(axis: int, channels: tuple[int, ...]) -> Integers:
        along = [len(channels) if axis == other else 1 for other in axes] if axis >= 0 else [1] * len(axes)
        return np.broadcast_to(np.array(channels, dtype=np.int64).reshape(along), shape)

    return end(seen.in_axis, seen.in_channels), end(seen.out_axis, seen.out_channels)


def cells_of(structure: Structure, axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(range(len(structure.axes[axis].values)) for axis in axes))


def required_shapes(graph: ModelGraph, candidates: Mapping[str, tuple[int, ...]]) -> set[LayerShape]:
    """Every shape that planning over these candidates looks up, the original network's included.

    Measure what a table lacks of them before planning. Where concatenations reach more than MAX_SUM_CELLS sums, the
    layers behind them are left out here: planning asks for those one by one, as its search needs them.
    """
    structure = find_structure(graph, candidates)
    shapes = {shape for _, shape in graph.shapes_at()}
    tables = {(): structure.fixed, **structure.tables}
    for axes, layers in tables.items():
        if structure.has_sum(axes) and not structure.sums_are_few():
            continue
        for cell in cells_of(structure, axes):
            for seen in layers:
                ins, outs = channels_at(seen, axes, cell)
                shapes.add(seen.layer.shape.with_channels(in_channels=ins, out_channels=outs))
    return shapes
