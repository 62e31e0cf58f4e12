"""The order in which groups are eliminated, and what each elimination sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .problem import Integers, Positions, Problem, Table

#: Cells of the largest elimination table, and of a sum table spread over its groups: 16 MB of integers each.
MAX_CELLS = 2_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """One elimination. `scope` is the variable and then its separator, in order of elimination; `time` has an axis
    for each, `loss` is the variable's own. `children` are the buckets whose separators lie in this scope."""

    variable: int
    scope: tuple[int, ...]
    time: Integers
    loss: Integers
    children: tuple[int, ...]

    @property
    def separator(self) -> tuple[int, ...]:
        return self.scope[1:]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Buckets in order of elimination: children come before their parent, a root's separator is empty."""

    buckets: tuple[Bucket, ...]
    parents: tuple[int, ...]  # -1 for a root

    def messages(self, time_weight: float, loss_weight: float) -> tuple[list[NDArray], list[NDArray]]:
        """Upward, per bucket: its whole table (children included) of `time_weight x time + loss_weight x loss`, and
        its minimum over the bucket's variable, by separator."""
        tables: list[NDArray] = []
        minima: list[NDArray] = []
        for bucket in self.buckets:
            loss = bucket.loss.reshape(-1, *[1] * len(bucket.separator))
            table = time_weight * bucket.time + loss_weight * loss
            for child in bucket.children:
                table = table + spread(minima[child], self.buckets[child].separator, bucket.scope)
            tables.append(table)
            minima.append(table.min(axis=0))
        return tables, minima

    def cheapest(self, time_weight: float, loss_weight: float) -> Positions:
        """The positions that minimise the weighted sum."""
        tables, _ = self.messages(time_weight, loss_weight)
        positions = [0] * len(self.buckets)
        for bucket, table in zip(reversed(self.buckets), reversed(tables), strict=True):
            row = table[(slice(None), *(positions[v] for v in bucket.separator))]
            positions[bucket.variable] = int(row.argmin())
        return tuple(positions)

    def outside(self, tables: list[NDArray], minima: list[NDArray]) -> list[NDArray]:
        """Downward, per bucket and by separator: the least that everything outside its subtree adds."""
        roots = sum(float(minimum) for minimum, parent in zip(minima, self.parents, strict=True) if parent < 0)
        outside: list[NDArray] = [np.zeros(())] * len(self.buckets)
        for i in reversed(range(len(self.buckets))):
            parent = self.parents[i]
            if parent < 0:
                outside[i] = np.array(roots - float(minima[i]))
                continue
            above, separator = self.buckets[parent], self.buckets[i].separator
            rest = tables[parent] + spread(outside[parent], above.separator, above.scope)
            rest = rest - spread(minima[i], separator, above.scope)
            outside[i] = rest.min(axis=tuple(a for a, v in enumerate(above.scope) if v not in separator))
        return outside

    def restricted(self, allowed: list[NDArray[np.int64]]) -> Tree:
        """The same tree over fewer positions of every variable."""
        return Tree(
            buckets=tuple(
                Bucket(
                    variable=bucket.variable,
                    scope=bucket.scope,
                    time=bucket.time[np.ix_(*(allowed[v] for v in bucket.scope))],
                    loss=bucket.loss[allowed[bucket.variable]],
                    children=bucket.children,
                )
                for bucket in self.buckets
            ),
            parents=self.parents,
        )


def spread(values: NDArray, axes: tuple[int, ...], scope: tuple[int, ...]) -> NDArray:
    """Values over some variables of a scope, shaped to be added to a table over all of it."""
    sizes = dict(zip(axes, values.shape, strict=True))
    return values.reshape([sizes.get(v, 1) for v in scope])


def build_tree(problem: Problem) -> Tree | None:
    """Eliminate in min-fill order; None where a table would exceed MAX_CELLS."""
    if not problem.complete:
        return None
    sizes = [len(allowed) for allowed in problem.structure.candidates]
    parts: list[tuple[tuple[int, ...], Integers]] = []
    for table in problem.tables:
        part = _over_variables(problem, table, sizes)
        if part is None:
            return None
        parts.append(part)
    neighbours: dict[int, set[int]] = {v: set() for v in range(len(sizes))}
    for variables, _ in parts:
        for v, w in combinations(variables, 2):
            neighbours[v].add(w)
            neighbours[w].add(v)
    order, separators = _eliminate(neighbours)
    place = {v: i for i, v in enumerate(order)}
    scopes = [(v, *sorted(separators[v], key=place.__getitem__)) for v in order]
    if any(np.prod([float(sizes[v]) for v in scope]) > MAX_CELLS for scope in scopes):
        return None
    parents = tuple(place[scope[1]] if len(scope) > 1 else -1 for scope in scopes)
    times = [np.zeros([sizes[v] for v in scope], dtype=np.int64) for scope in scopes]
    for variables, ticks in parts:
        home = min(place[v] for v in variables)
        by_order = sorted(range(len(variables)), key=lambda i: place[variables[i]])
        axes = tuple(variables[i] for i in by_order)
        times[home] += spread(ticks.transpose(by_order), axes, scopes[home])
    return Tree(
        buckets=tuple(
            Bucket(
                variable=scope[0],
                scope=scope,
                time=times[i],
                loss=problem.losses[scope[0]],
                children=tuple(child for child, parent in enumerate(parents) if parent == i),
            )
            for i, scope in enumerate(scopes)
        ),
        parents=parents,
    )


def _over_variables(problem: Problem, table: Table, sizes: list[int]) -> tuple[tuple[int, ...], Integers] | None:
    """A table over groups alone: sum axes are spread over the groups they add up."""
    axes = problem.structure.axes
    variables = tuple(sorted({v for axis in table.axes for v, _ in axes[axis].terms}))
    shape = [sizes[v] for v in variables]
    if np.prod([float(size) for size in shape]) > MAX_CELLS:
        return None
    ticks = np.empty([len(axes[axis].values) for axis in table.axes], dtype=np.int64)
    for cell in np.ndindex(ticks.shape):
        ticks[cell] = table.at(cell)
    where = []
    for axis in table.axes:
        widths = np.zeros([1] * len(shape), dtype=np.int64)
        for v, times in axes[axis].terms:
            choices = np.array(problem.structure.candidates[v], dtype=np.int64)
            widths = widths + times * spread(choices, (v,), variables)
        where.append(np.searchsorted(np.array(axes[axis].values), widths))
    return variables, np.broadcast_to(ticks[tuple(where)], shape)


def _eliminate(neighbours: dict[int, set[int]]) -> tuple[list[int], dict[int, set[int]]]:
    """Variables in elimination order, each with its separator: its neighbours when it goes."""
    # networkx takes a third of a second to load: not before a plan is asked for
    from networkx.algorithms.approximation.treewidth import min_fill_in_heuristic

    graph = {v: set(others) for v, others in neighbours.items()}
    order: list[int] = []
    separators: dict[int, set[int]] = {}
    while graph:
        chosen = min_fill_in_heuristic(graph)
        v = next(iter(graph)) if chosen is None else chosen  # None: all that is left is connected to all
        others = graph.pop(v)
        for w in others:
            graph[w] |= others - {w}
            graph[w].discard(v)
        order.append(v)
        separators[v] = others
    return order, separators
