"""What a pruner without rounding would keep: the starting point that planning moves from."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from ..core.errors import InvalidShape
from ..core.scores import ChannelScores, GroupScores

Scope = Literal["global", "local"]


def choose_host(
    scores: ChannelScores, ratio: float, *, scope: Scope = "global", keep_one: bool = False
) -> ChannelScores:
    """Which channels would an unrounded host pruner keep at this pruning ratio?

    A unit is an offset: the channels at one place of each of a group's granule blocks, ranked by the mean of their
    scores, as Torch-Pruning ranks them. Of the N units of a scope

        pruned = N - int(N x (1 - ratio))

    go, lowest first. Under the global scope every unit at or below the last one's score goes with it (ties may prune
    more), under the local scope exactly that many do. A group that would lose all its units stays whole, as in
    Torch-Pruning, and is named in `warnings`; with `keep_one` it keeps its best unit instead.

    >>> scores = ChannelScores(groups=(GroupScores(group="a", scores=(4.0, 1.0, 3.0, 2.0)),))
    >>> choose_host(scores, 0.5).by_group["a"].host_kept
    (0, 2)
    """
    if not (math.isfinite(ratio) and 0 <= ratio <= 1):
        raise InvalidShape(f"A pruning ratio must lie in 0..1, got {ratio!r}.")
    if scope not in ("global", "local"):
        raise InvalidShape(f"Unknown ranking scope {scope!r}; allowed: global, local.")
    if not scores.groups:
        raise InvalidShape(
            "There are no scored groups, so there is nothing a host could prune. Score the channels first."
        )
    units = [np.array(g.scores).reshape(g.granule, -1).mean(axis=0) for g in scores.groups]
    if scope == "global":
        everything = np.sort(np.concatenate(units))
        pruned = _num_pruned(len(everything), ratio)
        threshold = everything[pruned - 1] if pruned else -math.inf
        kept = [np.flatnonzero(unit > threshold) for unit in units]
    else:
        kept = [np.sort(np.argsort(unit, kind="stable")[_num_pruned(len(unit), ratio) :]) for unit in units]

    chosen, emptied = [], []
    for group, unit, offsets in zip(scores.groups, units, kept, strict=True):
        if not len(offsets):
            emptied.append(group.group)
            offsets = np.array([unit.argmax()]) if keep_one else np.arange(len(unit))
        chosen.append(_with_host(group, offsets, block=len(unit), scope="global" if scope == "global" else ""))
    notes = (
        ()
        if keep_one
        else tuple(f"{group}: all channels fell below the threshold, so it stays whole" for group in emptied)
    )
    return dataclasses.replace(scores, groups=tuple(chosen), warnings=scores.warnings + notes)


def _num_pruned(units: int, ratio: float) -> int:
    return units - int(units * (1 - ratio))


def _with_host(group: GroupScores, offsets: np.ndarray, *, block: int, scope: str) -> GroupScores:
    kept = sorted(int(offset) + block * i for offset in offsets for i in range(group.granule))
    return dataclasses.replace(group, host_kept=tuple(kept), scope=scope)
