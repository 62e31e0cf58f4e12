"""Concatenation as running sums: each sum is a variable of its own, one addition away from another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .structure import Axis, Integers, Structure

#: What a combination costs that does not add up: more than any network in both quantities, and exact in a double.
NEVER = 2**50
#: Cells of all additions together, 8 bytes each.
MAX_ADDITION_CELLS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Addition:
    """value of `total` = times x value of `left` + times x value of `right`; all three are variables of the tree."""

    total: int
    left: tuple[int, int]
    right: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """`values` of every variable: the groups, the sums that layers see, then partial sums on the way to those."""

    values: tuple[Integers, ...]
    additions: tuple[Addition, ...]

    def table(self, addition: Addition) -> tuple[tuple[int, ...], Integers]:
        """The variables of an addition, ascending, and NEVER wherever it does not hold."""
        variables = (addition.total, addition.left[0], addition.right[0])
        (left, times), (right, more) = addition.left, addition.right
        added = times * self.values[left][:, None] + more * self.values[right]
        table = np.where(self.values[addition.total][:, None, None] == added, 0, NEVER)
        order = sorted(range(3), key=variables.__getitem__)
        return tuple(variables[i] for i in order), table.transpose(order)


def running_sums(structure: Structure) -> Sums | None:
    """Each sum as the longest known one among its terms plus the rest, one term at a time; None if too large.

    DenseNet's sums are nested, so each is the one before plus one group, and the interaction graph stays a chain.
    """
    groups = len(structure.variables)
    axes: list[Axis] = list(structure.axes)
    additions: list[Addition] = []
    known: dict[frozenset[tuple[int, int]], int] = {}
    for number in sorted(range(groups, len(axes)), key=lambda number: len(axes[number].terms)):
        terms = axes[number].terms
        whole = frozenset(terms)
        inner = max((part for part in known if part < whole), key=len, default=frozenset())
        rest = [term for term in terms if term not in inner]
        left = (known[inner], 1) if inner else rest.pop(0)
        done = inner or frozenset((left,))
        for term in rest:
            done |= {term}
            if done == whole:
                total = number
            else:
                reached = {left[1] * a + term[1] * b for a in axes[left[0]].values for b in axes[term[0]].values}
                total = len(axes)
                axes.append(Axis(terms=tuple(sorted(done)), values=tuple(sorted(reached))))
            additions.append(Addition(total=total, left=left, right=term))
            known[done] = total
            left = (total, 1)
    sizes = [len(axis.values) for axis in axes]
    cells = sum(sizes[a.total] * sizes[a.left[0]] * sizes[a.right[0]] for a in additions)
    if cells > MAX_ADDITION_CELLS:
        return None
    return Sums(values=tuple(np.array(axis.values, dtype=np.int64) for axis in axes), additions=tuple(additions))
