"""Pareto fronts over an elimination tree, pruned by a Lagrangian bound: the exact optimum, and ties settled."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .problem import Integers, Objective, Positions, Problem
from .tree import Tree

#: Points on all fronts of one elimination together (or one product of two), 64 MB, and states that are looped over,
#: beyond which proof is given up.
MAX_POINTS = 2_000_000
MAX_STATES = 100_000


class OutOfRoom(Exception):
    """The fronts outgrew memory or time; the caller falls back to the best plan it knows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """Partial plans of a subtree in one state of its separator: (first, second) quantities, the bucket's own position,
    and which point of each child's front they are made of."""

    first: Integers
    second: Integers
    position: Integers
    parts: tuple[Integers, ...]

    def take(self, index: NDArray) -> Front:
        return Front(
            first=self.first[index],
            second=self.second[index],
            position=self.position[index],
            parts=tuple(part[index] for part in self.parts),
        )


def best_under_bound(
    tree: Tree, problem: Problem, objective: Objective, *, price: float, upper: int, deadline: float
) -> Positions | None:
    """The best plan, ties settled, if it is no worse than `upper`; else some worse plan, or None.

    A partial plan is dropped when  first + price x second + (the least that all else adds at that price)
    exceeds  upper + price x limit:  no completion within the limit is then as good as `upper`.
    Raises OutOfRoom where memory or time does not suffice.
    """
    by_time = objective.minimise == "time"
    weights = (1.0, price) if by_time else (price, 1.0)
    fixed_first, fixed_second = (problem.fixed_time, 0) if by_time else (0, problem.fixed_time)
    ceiling = upper - fixed_first + price * (objective.limit - fixed_second)
    # float sums of integers below 2**53: what they may be off by widens the ceiling, so that nothing good is dropped
    ceiling += 1e-9 * abs(ceiling) + 1e-9 * price * (abs(objective.limit) + abs(fixed_second)) + 1.0

    tables, minima = tree.messages(*weights)
    outside = tree.outside(tables, minima)
    allowed: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(tree.buckets)
    for bucket, table, rest in zip(tree.buckets, tables, outside, strict=True):
        least = (table + rest[None]).reshape(len(bucket.loss), -1).min(axis=1)
        allowed[bucket.variable] = np.flatnonzero(least <= ceiling)
        if not len(allowed[bucket.variable]):
            return None
    tree = tree.restricted(allowed)
    tables, minima = tree.messages(*weights)
    outside = tree.outside(tables, minima)

    fronts: list[dict[tuple[int, ...], Front]] = []
    for bucket, rest in zip(tree.buckets, outside, strict=True):
        if bucket.time.size > MAX_STATES:
            raise OutOfRoom
        loss = np.broadcast_to(bucket.loss.reshape(-1, *[1] * len(bucket.separator)), bucket.time.shape)
        first, second = (bucket.time, loss) if by_time else (loss, bucket.time)
        here: dict[tuple[int, ...], Front] = {}
        points = 0
        for state in np.ndindex(rest.shape):
            place = dict(zip(bucket.separator, state, strict=True))
            pieces = []
            for position in range(len(bucket.loss)):
                place[bucket.variable] = position
                cell = (position, *state)
                front = Front(
                    first=first[cell].reshape(1),
                    second=second[cell].reshape(1),
                    position=np.array([position]),
                    parts=(),
                )
                keys = [tuple(place[v] for v in tree.buckets[child].separator) for child in bucket.children]
                waiting = sum(float(minima[child][key]) for child, key in zip(bucket.children, keys, strict=True))
                for child, key in zip(bucket.children, keys, strict=True):
                    waiting -= float(minima[child][key])
                    if len(front.first) * len(fronts[child][key].first) > MAX_POINTS or time.monotonic() > deadline:
                        raise OutOfRoom
                    room = ceiling - float(rest[state]) - waiting
                    front = _joined(front, fronts[child][key], price=price, room=room)
                pieces.append(front)
            merged = Front(
                first=np.concatenate([piece.first for piece in pieces]),
                second=np.concatenate([piece.second for piece in pieces]),
                position=np.concatenate([piece.position for piece in pieces]),
                parts=tuple(
                    np.concatenate(columns) for columns in zip(*(piece.parts for piece in pieces), strict=True)
                ),
            )
            here[state] = _undominated(merged, price=price, room=ceiling - float(rest[state]))
            points += len(here[state].first)
            if points > MAX_POINTS:
                raise OutOfRoom
        fronts.append(here)
    return _read_off(tree, fronts, objective.limit - fixed_second, allowed)


def _joined(front: Front, other: Front, *, price: float, room: float) -> Front:
    """Every sum of a point here and a point there that still fits the bound, undominated."""
    size = len(other.first)
    pair = np.arange(len(front.first) * size)
    left, right = pair // max(size, 1), pair % max(size, 1)
    first, second = front.first[left] + other.first[right], front.second[left] + other.second[right]
    keep = first + price * second <= room
    left, right = left[keep], right[keep]
    joined = Front(
        first=first[keep],
        second=second[keep],
        position=front.position[left],
        parts=(*(part[left] for part in front.parts), right),
    )
    return _undominated(joined, price=price, room=room)


def _undominated(front: Front, *, price: float, room: float) -> Front:
    """Points within the bound that no other beats in both quantities, by rising first and falling second."""
    order = np.lexsort((front.second, front.first))
    second = front.second[order]
    lowest = np.minimum.accumulate(second)
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = second[1:] < lowest[:-1]
    keep &= front.first[order] + price * second <= room
    return front.take(order[keep])


def _read_off(
    tree: Tree, fronts: list[dict[tuple[int, ...], Front]], limit: int, allowed: list[NDArray[np.int64]]
) -> Positions | None:
    """Join the roots, take the first point within the limit, and follow it down."""
    roots = [i for i, parent in enumerate(tree.parents) if parent < 0]
    total = Front(
        first=np.zeros(1, dtype=np.int64),
        second=np.zeros(1, dtype=np.int64),
        position=np.zeros(1, dtype=np.int64),
        parts=(),
    )
    for root in roots:
        if len(total.first) * len(fronts[root][()].first) > MAX_POINTS:
            raise OutOfRoom
        total = _joined(total, fronts[root][()], price=0.0, room=np.inf)
    within = np.flatnonzero(total.second <= limit)
    if not len(within):
        return None
    chosen: dict[int, int] = {root: int(part[within[0]]) for root, part in zip(roots, total.parts, strict=True)}
    positions = [0] * len(tree.buckets)
    for i in reversed(range(len(tree.buckets))):
        bucket = tree.buckets[i]
        front = fronts[i][tuple(positions[v] for v in bucket.separator)]
        point = chosen[i]
        positions[bucket.variable] = int(front.position[point])
        for child, part in zip(bucket.children, front.parts, strict=True):
            chosen[child] = int(part[point])
    return tuple(int(allowed[v][p]) for v, p in enumerate(positions))
