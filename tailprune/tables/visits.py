"""Several visits of one shape as one sample: which of them count, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from ..core.sample import LatencySample

#: Flags of a visit that did not settle, or not under normal conditions: kept, but outranked by one without them.
DOUBTFUL = frozenset(("unstable", "throttled", "noisy"))


def counted_visits(visits: Iterable[LatencySample]) -> list[LatencySample]:
    """The visits a latency is made of: those with times and without a doubt, else those with times."""
    timed = [visit for visit in visits if visit.usable]
    return [visit for visit in timed if not DOUBTFUL & set(visit.flags)] or timed


def merge_visits(visits: Iterable[LatencySample]) -> LatencySample:
    """One sample of several visits of one shape: the times of those that count, in order; the last one's date."""
    visits = list(visits)
    counted = counted_visits(visits) or visits[-1:]
    if len(counted) == 1:
        return counted[0]
    return LatencySample(
        shape=counted[0].shape,
        times_us=tuple(chain.from_iterable(visit.times_us for visit in counted)),
        warmups=max(visit.warmups for visit in counted),
        utc=max(visit.utc for visit in counted),
        flags=tuple(dict.fromkeys(chain.from_iterable(visit.flags for visit in counted))),
        note="; ".join(dict.fromkeys(visit.note for visit in counted if visit.note)),
    )
