"""Steps that recur behind every multiple of a period show together where each alone is lost in the slope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .segment import STEEPEST, Floats

#: Granules to a period that are looked for: the steps of longer ones show by themselves.
PERIODS = (2, 4, 8, 16)
#: Fewest multiples of a period that can tell, and the chance at which one is believed: of curves of noise at most once in 200 in all
#: (tests/unit/steps/test_recurrence.py).
FEWEST, CHANCE = 4, 1e-3
#: Neighbouring excesses share a tread. With two points to each their correlation is 0.3 for independent noise, and the variance of
#: their mean 1 + 2 x 0.3 times what it would be without; longer treads share less.
SHARED = 1.6
#: A tread on which latency changes by more than this share, and faster than a plateau can (`segment.STEEPEST`), has a step of its own:
#: a kernel switch, often behind the narrowest widths. Its slope is none, and would hide the steps at both its ends.
BROKEN = 0.2
#: A curve may change its regime: stairs up to some width, a slope beyond. So many standard errors at each of `FEWEST` neighbouring
#: multiples make stairs of those alone; by chance that happens once in 10^11, once in 10^4 were the noise twice what is believed.
CLEAR = 3.0


def recurring_gaps(x: Floats, y: Floats, sigma: Floats, granule: int, least_us: float) -> frozenset[int]:
    """Behind which points does latency step because it steps behind every multiple of one period?

    Answers with i for each gap between points i - 1 and i that such a step lies in; nothing where no period is found. The
    treads are the widths between neighbouring multiples, t, and

        excess_m = rise across multiple m - (mean slope of the treads on both sides) x width of that gap,

    a period is believed where the mean of excess_m is positive (one-sided t-test over m, so that no noise need be known), is
    `least_us` or more, and holds for odd multiples, too: else twice the period does. The finest one counts. Where no period holds
    for the whole curve, neighbouring multiples all of whose excesses are beyond the noise `sigma` of their points count for themselves.

    Why together: a line through a staircase with two points to a tread and risers r misses its points by r / 4 only, so that a
    single riser must be ten times the noise to be worth a break. A dozen of them show from half the noise on.
    """
    from scipy.special import stdtr  # loaded late: it takes longer than the rest of the package

    stretches: list[frozenset[int]] = []
    for granules in PERIODS:
        period = granules * granule
        at, excess, error, level = _excesses(x, y, sigma, period)
        if len(at) < FEWEST:
            continue
        tread = np.ceil(x / period).astype(int)
        behind = {int(tread[i]): int(i) + 1 for i in np.flatnonzero(np.diff(tread))}
        stretches.append(frozenset(behind[m] for m in _run(at // period, excess > np.maximum(CLEAR * error, least_us))))
        weight = level**-2.0  # noise grows with latency
        mean = float(weight @ excess / weight.sum())
        spread = math.sqrt(SHARED * float(weight @ (excess - mean) ** 2) / (len(at) - 1) / weight.sum())
        odd = at // period % 2 == 1
        if mean <= least_us or not odd.any() or weight[odd] @ excess[odd] / weight[odd].sum() < mean / 2:
            continue
        if spread == 0 or stdtr(len(at) - 1, -mean / spread) < CHANCE:
            return frozenset(behind.values())
    return next(filter(None, stretches), frozenset())


def _run(multiples: Floats, clear: NDArray[np.bool_]) -> list[int]:
    """The longest row of neighbouring multiples that are all clear, if it is long enough."""
    best: list[int] = []
    row: list[int] = []
    for multiple, is_clear in zip(multiples.astype(int).tolist(), clear, strict=True):
        row = [*(row if row and row[-1] == multiple - 1 else []), multiple] if is_clear else []
        best = row if len(row) > len(best) else best
    return best if len(best) >= FEWEST else []


def _excesses(x: Floats, y: Floats, sigma: Floats, period: int) -> tuple[Floats, Floats, Floats, Floats]:
    """The multiples m with points on both sides and two in both treads, excess_m, its standard error, and the latency there."""
    tread = np.ceil(x / period).astype(int)
    rises, gaps, within = np.diff(y), np.diff(x), np.diff(tread) == 0
    size = int(tread[-1]) + 1
    risen = np.bincount(tread[1:][within], rises[within], size)
    wide = np.bincount(tread[1:][within], gaps[within], size)
    slope = np.divide(risen, wide, out=np.full(size, np.nan), where=wide > 0)
    first, last = (np.searchsorted(tread, np.arange(size), side=side) for side in ("left", "right"))
    last = last - 1
    steepest = np.maximum(STEEPEST * y[last] / x[last], BROKEN * y[last] / np.maximum(wide, 1.0))
    slope[np.abs(slope) > steepest] = np.nan
    across = np.flatnonzero(np.diff(tread) == 1)
    before, behind = tread[across], tread[across + 1]
    excess = rises[across] - gaps[across] * (slope[before] + slope[behind]) / 2
    # excess = (1 + a) y(first behind) - a y(last behind) - (1 + b) y(last before) + b y(first before), a and b of both treads:
    b, a = (gaps[across] / 2 / np.maximum(wide[side], 1.0) for side in (before, behind))
    ends = np.stack([sigma[across + 1], sigma[last[behind]], sigma[across], sigma[np.minimum(first[before], across)]])
    error = np.sqrt((np.stack([1 + a, a, 1 + b, b]) ** 2 * ends**2).sum(axis=0))
    known = np.isfinite(excess)
    return (before * float(period))[known], excess[known], error[known], y[across][known]
