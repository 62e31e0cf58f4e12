"""How fast is each way of pruning at the same accuracy? Read from curves of latency and accuracy after a fine-tune.

A test set of a few hundred images counts noisily: one network at one accuracy would be chosen by luck. So each method's
networks are first pooled: accuracy may only rise with latency (isotonic regression, pool adjacent violators; Barlow et
al. 1972), which averages neighbours wherever the counts contradict that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: (latency in microseconds, share of right answers) in ascending order of both
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One network after the fine-tune: what it costs, and its right answers over all seeds."""

    us: float
    correct: int
    total: int

    @property
    def share(self) -> float:
        return self.correct / self.total


def pooled(networks: Sequence[Trained]) -> Curve:
    """Isotonic regression of accuracy on latency, weighted by images.

    >>> pooled([Trained(us=10, correct=90, total=100), Trained(us=20, correct=96, total=100), Trained(us=30, correct=94, total=100)])
    [(10, 0.9), (20, 0.95), (30, 0.95)]
    """
    blocks: list[list[Trained]] = []
    for network in sorted(networks, key=lambda n: n.us):
        blocks.append([network])
        while len(blocks) > 1 and _share(blocks[-2]) >= _share(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [(network.us, _share(block)) for block in blocks for network in block]


def latency_at(curve: Curve, accuracy: float) -> float | None:
    """The least latency at which the curve reaches an accuracy, linear between its networks; None where it never does."""
    if accuracy > curve[-1][1]:
        return None
    for (us, share), (next_us, next_share) in pairwise(curve):
        if accuracy <= share:
            return us
        if accuracy <= next_share:
            return us + (next_us - us) * (accuracy - share) / (next_share - share)
    return curve[-1][0]


def savings(
    methods: Mapping[str, Sequence[Trained]], ours: str, levels: Sequence[float], rivals: Sequence[str]
) -> list[float]:
    """At each accuracy that ours and a rival reach: the share of the fastest rival's latency that ours saves."""
    curves = {name: pooled(methods[name]) for name in (ours, *rivals)}
    found = []
    for level in levels:
        mine = latency_at(curves[ours], level)
        theirs = [us for name in rivals if (us := latency_at(curves[name], level)) is not None]
        if mine is not None and theirs:
            found.append(1 - mine / min(theirs))
    return found


def resampled(methods: Mapping[str, Sequence[Trained]], draw: np.random.Generator) -> dict[str, list[Trained]]:
    """The same networks with counts drawn anew from what was seen: binomial, one success and one failure added."""
    return {
        name: [
            Trained(us=n.us, correct=int(draw.binomial(n.total, (n.correct + 1) / (n.total + 2))), total=n.total)
            for n in networks
        ]
        for name, networks in methods.items()
    }


def _share(networks: Sequence[Trained]) -> float:
    return sum(n.correct for n in networks) / sum(n.total for n in networks)
