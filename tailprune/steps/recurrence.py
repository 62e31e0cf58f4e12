"""Steps that recur at every multiple of a period show together where each alone is lost in the slope."""

from __future__ import annotations

import math

import numpy as np

from .segment import Floats

#: Granules to a period that are looked for; the steps of longer ones show by themselves.
PERIODS = (2, 4, 8, 16)
#: Fewest multiples of a period that tell, and how unlikely chance must be, for each period.
FEWEST, CHANCE = 4, 1e-3


def recurring_gaps(x: Floats, y: Floats, granule: int, least_us: float) -> frozenset[int]:
    """Behind which points does latency step because it steps behind every multiple of one period?

    Indices i of gaps between points i - 1 and i; empty where no period is found. The model: over a granule latency rises by
    more (or less) across a multiple of the period than on either side of it,

        excess_m = rise across multiple m - mean rise over the granules of both adjoining treads,

    and the mean of excess_m is not zero (t-test over m, so no noise need be known). A line through a staircase of two-point
    treads with risers r misses its points by r / 4 only: each riser must be ten times the noise to be worth a break. Together a
    dozen of them show from half the noise on.
    """
    from scipy.special import stdtr  # loaded late: it takes longer than the rest of the package

    for granules in PERIODS:
        period = granules * granule
        at, excess = _excesses(x, y, granule, period)
        if len(at) < FEWEST:
            break
        weight = at**-2.0  # noise grows with latency
        mean = float(weight @ excess / weight.sum())
        spread = math.sqrt(float(weight @ (excess - mean) ** 2) / (len(at) - 1) / weight.sum())
        chance = float(stdtr(len(at) - 1, -mean / spread)) if spread > 0 else float(mean <= 0)
        odd = at // period % 2 == 1  # where only every other multiple has a step, the period is twice as long
        if mean > least_us and chance < CHANCE and odd.any() and float(weight[odd] @ excess[odd] / weight[odd].sum()) / mean > 0.5:
            return frozenset(int(i) + 1 for i in np.flatnonzero(np.diff(np.ceil(x / period))))
    return frozenset()


def _excesses(x: Floats, y: Floats, granule: int, period: int) -> tuple[Floats, Floats]:
    """Multiples of the period measured with the next granule, and by how much more latency rises there than beside them."""
    rises, near = np.diff(y), np.diff(x) == granule
    across = near & (x[:-1] % period == 0)
    tread = np.ceil(x[1:] / period)  # of the gap's right point; a gap within a tread has its left point there, too
    at, excess = [], []
    for i in np.flatnonzero(across):
        sides = [rises[near & ~across & (tread == number)] for number in (tread[i] - 1, tread[i])]
        if all(len(side) for side in sides):
            at.append(x[i])
            excess.append(rises[i] - (sides[0].mean() + sides[1].mean()) / 2)
    return np.array(at), np.array(excess)
