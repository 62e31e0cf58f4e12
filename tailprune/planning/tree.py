"""The order in which groups are eliminated, and what each elimination sees."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

from .dominance import worthwhile
from .problem import Problem
from .structure import Integers
from .sums import running_sums

#: Cells of the largest elimination: its variable and its separator.
MAX_CELLS = 4_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """Time and loss that depend on some variables of a bucket's scope; one axis each, of size 1 where it does not."""

    time: Integers
    loss: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """One elimination. `scope` is the variable and then its separator, in order of elimination; the factors are all
    that is first seen here. `children` are the buckets whose separators lie in this scope."""

    variable: int
    scope: tuple[int, ...]
    shape: tuple[int, ...]
    factors: tuple[Factor, ...]
    children: tuple[int, ...]

    @property
    def separator(self) -> tuple[int, ...]:
        return self.scope[1:]

    def restricted(self, allowed: list[NDArray[np.intp]]) -> Bucket:
        """The same elimination over fewer positions of every variable."""
        return replace(
            self,
            shape=tuple(len(allowed[v]) for v in self.scope),
            factors=tuple(
                Factor(time=self._picked(factor.time, allowed), loss=self._picked(factor.loss, allowed))
                for factor in self.factors
            ),
        )

    def _picked(self, values: Integers, allowed: list[NDArray[np.intp]]) -> Integers:
        for axis, v in enumerate(self.scope):
            if values.shape[axis] > len(allowed[v]):
                values = values.take(allowed[v], axis=axis) if values.shape[axis] > 1 else values
        return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Buckets in order of elimination: children come before their parent, a root's separator is empty.

    Variables are those of the problem, and sums of them. `kept` are the positions of every variable that the tree's own
    stand for.
    """

    buckets: tuple[Bucket, ...]
    parents: tuple[int, ...]  # -1 for a root
    kept: tuple[NDArray[np.intp], ...]
    num_groups: int  # the first so many variables are the problem's

    @property
    def roots(self) -> tuple[int, ...]:
        return tuple(i for i, parent in enumerate(self.parents) if parent < 0)

    def restricted(self, allowed: list[NDArray[np.intp]]) -> Tree:
        """The same tree over fewer positions of every variable."""
        whole = [len(positions) == len(before) for positions, before in zip(allowed, self.kept, strict=True)]
        return Tree(
            buckets=tuple(b if all(whole[v] for v in b.scope) else b.restricted(allowed) for b in self.buckets),
            parents=self.parents,
            kept=tuple(before[positions] for before, positions in zip(self.kept, allowed, strict=True)),
            num_groups=self.num_groups,
        )


def spread(values: NDArray, axes: tuple[int, ...], scope: tuple[int, ...]) -> NDArray:
    """Values over some variables of a scope (in its order), shaped to be added to a table over all of it."""
    sizes = dict(zip(axes, values.shape, strict=True))
    return values.reshape([sizes.get(v, 1) for v in scope])


def build_tree(problem: Problem, *, slack: float = 0.0) -> Tree | None:
    """Drop widths that no plan needs, then eliminate in min-fill order; None where that would exceed MAX_CELLS.

    With `slack`, widths go that another nearly replaces (`worthwhile`), and with them perhaps the best plans.
    """
    sums = running_sums(problem.structure) if problem.complete else None
    if sums is None:
        return None
    parts = {table.axes: table.ticks for table in problem.tables if table.ticks is not None}
    nothing = [np.zeros(len(values), dtype=np.int64) for values in sums.values[problem.num_variables :]]
    losses = [*problem.losses, *nothing]
    added = dict(sums.table(addition) for addition in sums.additions)
    kept = worthwhile(parts, losses, fixed={v for variables in added for v in variables}, slack=slack)
    parts = {variables: ticks[np.ix_(*(kept[v] for v in variables))] for variables, ticks in parts.items()}
    sizes = [len(positions) for positions in kept]
    order, separators = elimination_order(sizes, (*parts, *added))
    place = {v: i for i, v in enumerate(order)}
    scopes = [(v, *sorted(separators[v], key=place.__getitem__)) for v in order]
    if any(prod(sizes[v] for v in scope) > MAX_CELLS for scope in scopes):
        return None
    factors: list[dict[tuple[int, ...], Factor]] = [{} for _ in order]
    for variables, ticks in (*parts.items(), *added.items()):
        by_order = sorted(range(len(variables)), key=lambda i: place[variables[i]])
        axes = tuple(variables[i] for i in by_order)
        home = place[axes[0]]
        time = spread(ticks.transpose(by_order), axes, scopes[home])
        loss = time if variables in added else np.zeros([1] * time.ndim, dtype=np.int64)
        factors[home][axes] = Factor(time=time, loss=loss)
    for v, loss in enumerate(losses):
        home = place[v]
        alone = factors[home].get((v,))
        shaped = spread(loss[kept[v]], (v,), scopes[home])
        factors[home][v,] = Factor(time=np.zeros_like(shaped) if alone is None else alone.time, loss=shaped)
    parents = tuple(place[scope[1]] if len(scope) > 1 else -1 for scope in scopes)
    children: list[list[int]] = [[] for _ in order]
    for child, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(child)
    return Tree(
        buckets=tuple(
            Bucket(
                variable=scope[0],
                scope=scope,
                shape=tuple(sizes[v] for v in scope),
                factors=tuple(factors[i].values()),
                children=tuple(children[i]),
            )
            for i, scope in enumerate(scopes)
        ),
        parents=parents,
        kept=tuple(kept),
        num_groups=problem.num_variables,
    )


def elimination_order(sizes: list[int], parts: Iterable[tuple[int, ...]]) -> tuple[list[int], dict[int, set[int]]]:
    """Variables in min-fill order (fewest new neighbours first, then fewest cells), each with its separator: its
    neighbours when it goes. A heap of estimates, corrected as they come up, so that ten thousand groups take a second."""
    neighbours: dict[int, set[int]] = {v: set() for v in range(len(sizes))}
    for variables in parts:
        for v, w in combinations(variables, 2):
            neighbours[v].add(w)
            neighbours[w].add(v)

    def cost(v: int) -> tuple[int, int, int]:
        fill = sum(w not in neighbours[u] for u, w in combinations(neighbours[v], 2))
        return fill, sizes[v] * prod(sizes[w] for w in neighbours[v]), v

    order: list[int] = []
    separators: dict[int, set[int]] = {}
    waiting = [cost(v) for v in neighbours]
    heapq.heapify(waiting)
    while waiting:
        entry = heapq.heappop(waiting)
        v = entry[2]
        if v in separators:
            continue
        now = cost(v)
        if now > entry:
            heapq.heappush(waiting, now)
            continue
        others = neighbours.pop(v)
        order.append(v)
        separators[v] = others
        for w in others:
            neighbours[w] |= others - {w}
            neighbours[w].discard(v)
        for w in others:
            heapq.heappush(waiting, cost(w))
    return order, separators
