"""Elimination at a price: the cheapest plan, and by how much every other choice costs more at least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from .problem import Positions
from .tree import Bucket, Tree, spread

Floats = NDArray[np.float64]
#: Cells up to which an elimination is one array operation; larger ones go position by position, through the cache.
AT_ONCE = 20_000
#: Sums of doubles are off by less than this share; bounds are lowered and windows widened by it, so that nothing good is lost.
DOUBT = 1e-11


@dataclass(frozen=True, kw_only=True, eq=False)
class Priced:
    """A tree at one pair of weights: every choice costs `time_weight x time + loss_weight x loss`.

    `parts` are, per bucket, the weighted factors and the minima of its children, shaped for its scope; `minima` is
    their least sum over the bucket's variable, by separator.
    """

    tree: Tree
    weights: tuple[float, float]
    parts: tuple[tuple[Floats, ...], ...]
    minima: tuple[Floats, ...]

    @property
    def least(self) -> float:
        """The cost of the cheapest plan, fixed layers aside."""
        return float(sum(float(self.minima[root]) for root in self.tree.roots))

    def cheapest(self) -> Positions:
        """The plan that costs `least`, in the problem's positions."""
        positions = [0] * len(self.tree.buckets)
        for bucket, parts in zip(reversed(self.tree.buckets), reversed(self.parts), strict=True):
            place = [positions[v] for v in bucket.separator]
            row: Floats = np.zeros(bucket.shape[0])
            for part in parts:
                seen = (p if n > 1 else 0 for p, n in zip(place, part.shape[1:], strict=True))
                cell: tuple[slice | int, ...] = (slice(None), *seen)
                row += part[cell]
            positions[bucket.variable] = int(row.argmin())
        groups = zip(self.tree.kept, positions[: self.tree.num_groups], strict=False)
        return tuple(int(kept[p]) for kept, p in groups)

    @cached_property
    def outside(self) -> tuple[list[Floats], list[Floats]]:
        """What everything else adds at least: (per bucket, outside its subtree, by separator), and the cost of the
        cheapest plan at every position (per variable)."""
        buckets = self.tree.buckets
        outside: list[Floats] = [np.zeros(())] * len(buckets)
        through: list[Floats] = [np.zeros(0)] * len(buckets)
        least = self.least
        for i in reversed(range(len(buckets))):
            bucket = buckets[i]
            if self.tree.parents[i] < 0:
                outside[i] = np.array(least - float(self.minima[i]))
            beliefs = [np.full(self._separator_shape(child), np.inf) for child in bucket.children]
            axes = [_axes_without(bucket, buckets[child]) for child in bucket.children]
            here = np.empty(bucket.shape[0])
            for start, slab in slabs(bucket.shape, (*self.parts[i], outside[i][None])):
                stop = start + slab.shape[0]
                here[start:stop] = slab.reshape(stop - start, -1).min(axis=1)
                for belief, axis in zip(beliefs, axes, strict=True):
                    belief[start:stop] = slab.min(axis=axis)
            through[bucket.variable] = here
            for child, belief in zip(bucket.children, beliefs, strict=True):
                outside[child] = belief - self.minima[child]
        return outside, through

    def narrowed(self, window: float) -> Tree:
        """The tree without the positions that no plan within `least + window` takes; the cheapest plan stays."""
        ceiling = self.least + max(window, 0.0)
        ceiling += DOUBT * (abs(self.least) + abs(ceiling)) + 1e-3
        _, through = self.outside
        return self.tree.restricted([np.flatnonzero(cost <= ceiling) for cost in through])

    def _separator_shape(self, i: int) -> tuple[int, ...]:
        return self.tree.buckets[i].shape[1:]


def price(tree: Tree, time_weight: float, loss_weight: float) -> Priced:
    """Eliminate every group, in order, at these weights."""
    all_parts: list[tuple[Floats, ...]] = []
    minima: list[Floats] = []
    for bucket in tree.buckets:
        pieces: list[Floats] = [time_weight * f.time + loss_weight * f.loss for f in bucket.factors]
        pieces += [spread(minima[child], tree.buckets[child].separator, bucket.scope) for child in bucket.children]
        by_shape: dict[tuple[int, ...], Floats] = {}
        for piece in sorted(pieces, key=lambda piece: piece.size):
            by_shape[piece.shape] = by_shape[piece.shape] + piece if piece.shape in by_shape else piece
        parts = tuple(by_shape.values())
        least: Floats = np.full(bucket.shape[1:], np.inf)
        for _, slab in slabs(bucket.shape, parts):
            np.minimum(least, slab.min(axis=0) if slab.shape[0] > 1 else slab[0], out=least)
        all_parts.append(parts)
        minima.append(least)
    return Priced(tree=tree, weights=(time_weight, loss_weight), parts=tuple(all_parts), minima=tuple(minima))


def slabs(shape: tuple[int, ...], parts: Sequence[Floats]) -> Iterator[tuple[int, Floats]]:
    """The sum of parts over a whole scope, in runs of positions of its first axis: (first position, values)."""
    rest = prod(shape[1:])
    step = max(1, AT_ONCE // max(rest, 1))
    ordered = sorted(parts, key=lambda part: part.size)
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        total: Floats = np.empty((stop - start, *shape[1:]))
        pieces = [part[start:stop] if part.shape[0] > 1 else part for part in ordered]
        if len(pieces) == 1:
            total[:] = pieces[0]
        else:
            small = pieces[0]
            for piece in pieces[1:-1]:
                small = small + piece
            np.add(small, pieces[-1], out=total)
        yield start, total


def _axes_without(bucket: Bucket, child: Bucket) -> tuple[int, ...]:
    return tuple(axis for axis, v in enumerate(bucket.scope) if v not in child.separator)
