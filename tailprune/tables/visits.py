"""Several visits of one shape: which of them count, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from statistics import median

from ..core.sample import MEDIAN_TO_MEAN, LatencySample

#: Flags of a visit that was not taken under normal conditions: kept, but outranked by one without them.
DOUBTFUL = frozenset(("throttled", "noisy"))


def counted_visits(visits: Iterable[LatencySample]) -> list[LatencySample]:
    """The visits a latency is made of: those with times from the last one on that was taken afresh, and of these the ones without
    a doubt, if there are any."""
    timed: list[LatencySample] = []
    for visit in visits:
        if visit.usable:
            timed = [visit] if "afresh" in visit.flags else [*timed, visit]
    return [visit for visit in timed if not DOUBTFUL & set(visit.flags)] or timed


def merge_visits(visits: Iterable[LatencySample]) -> LatencySample:
    """The raw times of those visits that count in one sample; the last one's date, and unstable where each of them is."""
    visits = list(visits)
    counted = counted_visits(visits) or visits[-1:]
    if len(counted) == 1:
        return counted[0]
    settled = not all("unstable" in visit.flags for visit in counted)
    return LatencySample(
        shape=counted[0].shape,
        times_us=tuple(chain.from_iterable(visit.times_us for visit in counted)),
        warmups=max(visit.warmups for visit in counted),
        utc=max(visit.utc for visit in counted),
        flags=tuple(
            flag
            for flag in dict.fromkeys(chain.from_iterable(visit.flags for visit in counted))
            if not (settled and flag == "unstable")
        ),
        note="; ".join(dict.fromkeys(visit.note for visit in counted if visit.note)),
    )


def latency_of(visits: Iterable[LatencySample]) -> float:
    """Median over the visits that count of each one's own median, in microseconds.

    Not of all their times: a machine's speed differs from one visit to the next for all shapes alike, and what is calm at one
    speed is slow at the other. Shapes that were visited together then still compare.
    """
    return median(visit.median_us for visit in counted_visits(visits))


def noise_of(visits: Iterable[LatencySample]) -> float:
    """One standard error of `latency_of` by what the times of each visit scatter; how visits differ is not in it."""
    counted = counted_visits(visits)
    mean = math.hypot(*(visit.noise_us for visit in counted)) / len(counted)
    return mean if len(counted) < 3 else MEDIAN_TO_MEAN * mean
