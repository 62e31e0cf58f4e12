"""Widths that no plan needs: another keeps no less and costs no more, whatever the neighbours' widths."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .structure import Integers


def worthwhile(
    parts: Mapping[tuple[int, ...], Integers],
    losses: Sequence[Integers],
    *,
    fixed: Collection[int] = (),
    slack: float = 0.0,
) -> list[NDArray[np.intp]]:
    """The positions of every variable that some best plan may need.

    Position p of a variable goes if a position q that stays loses no more importance and

        sum over tables t of  max over the other axes x of  (t(q, x) - (1 + slack) t(p, x))   <=   0,

    for then, without slack, q takes the place of p in any plan; with slack, at that share more of the group's time. Of
    equals the last stays. Dropping one variable's positions leaves fewer x for the next, which only lets more go.
    """
    kept = [np.arange(len(loss)) for loss in losses]
    touching: list[list[tuple[int, ...]]] = [[] for _ in losses]
    for variables in parts:
        for v in variables:
            touching[v].append(variables)
    for v in sorted(range(len(losses)), key=lambda v: len(losses[v])):
        if len(kept[v]) < 2 or v in fixed:
            continue
        rows = []
        for variables in touching[v]:
            values = parts[variables][np.ix_(*(kept[w] for w in variables))]
            rows.append(np.moveaxis(values, variables.index(v), 0).reshape(len(kept[v]), -1))
        loss = losses[v][kept[v]]
        # what is no worse everywhere is no worse on average: few pairs are left to be compared in full
        average = sum(row.mean(axis=1) for row in rows) if rows else np.zeros(len(loss))
        maybe = (average[None, :] <= average[:, None] * (1 + slack + 1e-12)) & (loss[None, :] <= loss[:, None])
        stays = np.zeros(len(loss), dtype=bool)
        for p in np.lexsort((-kept[v], average, loss)):  # whatever can take its place has been decided before it
            rivals = np.flatnonzero(maybe[p] & stays)
            excess = sum(((row[rivals] - (1 + slack) * row[p]).max(axis=1) for row in rows), np.zeros(len(rivals)))
            stays[p] = not (excess <= 0).any()
        kept[v] = kept[v][stays]
    return kept
