"""Several visits of one shape as one sample: which of them count, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import inf

from ..core.sample import LatencySample

#: Flags of a visit that did not settle, or not under normal conditions: kept, but outranked by one without them.
DOUBTFUL = frozenset(("unstable", "throttled", "noisy"))


#: Of visits that are all in doubt those count whose median is at most so many times as uncertain as the surest one's: a visit in a
#: bad time (another machine in the L3, say) scatters several times as much as one in a good time.
SURER = 2.0


def counted_visits(visits: Iterable[LatencySample]) -> list[LatencySample]:
    """The visits a latency is made of: those with times and without a doubt, else the surer ones of those with times."""
    timed = [visit for visit in visits if visit.usable]
    sure = [visit for visit in timed if not DOUBTFUL & set(visit.flags)]
    if sure or len(timed) < 2:
        return sure or timed
    least = min(map(_uncertainty, timed))
    return [visit for visit in timed if _uncertainty(visit) <= SURER * least]


def _uncertainty(visit: LatencySample) -> float:
    """One standard error of the median, as a share of it; of fewer than three times nothing is known."""
    return visit.noise_us / visit.median_us if len(visit.times_us) > 2 else inf


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
