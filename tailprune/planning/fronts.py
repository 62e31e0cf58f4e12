"""Every plan near the bound: Pareto fronts over an elimination tree, all states of a separator in one array."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .messages import DOUBT, Priced, price
from .structure import Integers
from .tree import Tree

#: Partial plans held by one elimination, about 60 bytes each: beyond it the caller narrows the window, or gives up.
MAX_POINTS = 3_000_000

Index = NDArray[np.intp]


class OutOfRoom(Exception):
    """The fronts outgrew memory or time; the caller keeps the best plan it knows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plans:
    """Plans of a whole network, by rising time and falling loss; a row of positions each."""

    time: Integers
    loss: Integers
    positions: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Front:
    """Partial plans of a subtree: their position of the bucket's variable, and which point of each child's front they
    are made of. `first[s]` is where those of state s of the separator begin; within a state they are ordered by their
    excess over its cheapest, and `key` is  s x (more than the window) + excess,  ascending throughout."""

    time: Integers
    loss: Integers
    position: Index
    parts: tuple[Index, ...]
    key: NDArray[np.floating]
    first: Index


def plans_near(priced: Priced, window: float, *, deadline: float, most: int = MAX_POINTS) -> Plans:
    """All undominated plans that cost at most `priced.least + window`, fixed layers aside.

    At weights (a, b) a partial plan is dropped when  a time + b loss + (the least that all else adds)  exceeds the
    ceiling, and when another of the same state of its separator is no worse in both. Both keep every plan that is
    undominated and below the ceiling, up to equals in (time, loss). Raises OutOfRoom for more than `most` partial
    plans at once, or when the time is up.
    """
    ceiling = priced.least + window
    ceiling += DOUBT * (abs(priced.least) + abs(ceiling)) + 1e-3
    tree = priced.narrowed(window)
    small = price(tree, *priced.weights)
    outside, _ = small.outside
    fronts: list[_Front] = []
    for i in range(len(tree.buckets)):
        if time.monotonic() > deadline:
            raise OutOfRoom
        fronts.append(_front(small, i, fronts, outside[i], ceiling, most))
    return _read_off(tree, fronts)


def _front(small: Priced, i: int, fronts: list[_Front], outside: NDArray, ceiling: float, most: int) -> _Front:
    tree, (time_weight, loss_weight) = small.tree, small.weights
    bucket = tree.buckets[i]
    cells = int(np.prod([float(size) for size in bucket.shape]))
    if cells > MAX_POINTS:
        raise OutOfRoom
    # with everything else at its cheapest, which cells of the scope are worth a look?
    belief = np.zeros(bucket.shape) + outside[None]
    for part in small.parts[i]:
        belief = belief + part
    cell = np.flatnonzero(belief.ravel() <= ceiling)
    ticks, losses = np.zeros(bucket.shape, dtype=np.int64), np.zeros(bucket.shape, dtype=np.int64)
    for factor in bucket.factors:
        ticks, losses = ticks + factor.time, losses + factor.loss
    spent, lost = ticks.ravel()[cell], losses.ravel()[cell]
    slack = ceiling - belief.ravel()[cell]  # what each may cost beyond its cheapest completion
    span = 1.0 + 2.0 * (ceiling - small.least)
    coordinates = dict(zip(bucket.scope, np.unravel_index(cell, bucket.shape), strict=True))
    origin = np.arange(len(cell))
    parts: tuple[Index, ...] = ()
    for child in bucket.children:
        front, below = fronts[child], tree.buckets[child]
        state = np.ravel_multi_index([coordinates[v] for v in below.separator], below.shape[1:])[origin]
        first = front.first[state]
        # of a child's points in order of excess, just those that the slack allows
        counts = np.searchsorted(front.key, state * span + slack, side="right") - first
        total = int(counts.sum())
        if total > most:
            raise OutOfRoom
        left = np.repeat(np.arange(len(state)), counts)
        right = np.arange(total) - np.repeat(np.cumsum(counts) - counts - first, counts)
        slack = slack[left] - (front.key[right] - state[left] * span)
        spent, lost, origin = spent[left] + front.time[right], lost[left] + front.loss[right], origin[left]
        keep = _undominated(origin, spent, lost)
        spent, lost, origin, slack = spent[keep], lost[keep], origin[keep], slack[keep]
        parts = (*(part[left[keep]] for part in parts), right[keep])
    states = outside.size
    state = cell[origin] % states  # the bucket's own variable is the first axis of its scope
    best = _undominated(state, spent, lost)
    state = state[best]
    excess = time_weight * spent[best] + loss_weight * lost[best] - small.minima[i].ravel()[state]
    key = state * span + np.maximum(excess, 0.0)
    order = np.argsort(key, kind="stable")
    best, state = best[order], state[order]
    return _Front(
        time=spent[best],
        loss=lost[best],
        position=cell[origin[best]] // states,
        parts=tuple(part[best] for part in parts),
        key=key[order],
        first=np.searchsorted(state, np.arange(states + 1)),
    )


def _undominated(state: Index, spent: Integers, lost: Integers) -> Index:
    """The points of every state that no other of it beats, by state, rising time and falling loss."""
    order = np.lexsort((lost, spent, state))
    state, lost = state[order], lost[order]
    # one running minimum for all states: a later state starts below everything an earlier one holds
    span = int(lost.max(initial=0)) + 1
    level = lost - state * span
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = level[1:] < np.minimum.accumulate(level)[:-1]
    return order[keep]


def _read_off(tree: Tree, fronts: list[_Front]) -> Plans:
    """Join the roots, and follow every plan down to the positions it is made of."""
    spent, lost = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    chosen: dict[int, Index] = {}
    for root in tree.roots:
        front = fronts[root]
        if len(spent) * len(front.time) > MAX_POINTS:
            raise OutOfRoom
        left, right = np.divmod(np.arange(len(spent) * len(front.time)), max(len(front.time), 1))
        spent, lost = spent[left] + front.time[right], lost[left] + front.loss[right]
        best = _undominated(np.zeros(len(spent), dtype=np.intp), spent, lost)
        spent, lost = spent[best], lost[best]
        chosen = {other: points[left[best]] for other, points in chosen.items()}
        chosen[root] = right[best]
    positions = np.zeros((len(spent), len(tree.buckets)), dtype=np.intp)
    for i in reversed(range(len(tree.buckets))):
        bucket, front, point = tree.buckets[i], fronts[i], chosen[i]
        positions[:, bucket.variable] = front.position[point]
        for child, part in zip(bucket.children, front.parts, strict=True):
            chosen[child] = part[point]
    for v, places in enumerate(tree.kept):
        positions[:, v] = places[positions[:, v]]
    return Plans(time=spent, loss=lost, positions=positions[:, : tree.num_groups])
