"""Find the steps of a latency curve, and say how sure that is."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from ..core.errors import InvalidShape
from .curve import LatencyCurve
from .noise import point_noise_us
from .recurrence import recurring_gaps
from .segment import FALLING, STEEPEST, Floats, PieceCosts, best_partition
from .staircase import EdgeVerdict, Plateau, Staircase

#: A jump below this many standard errors is not even ambiguous.
DOUBT_SIGMAS = 3.0
#: Where a step recurs at every multiple of a period, one is expected: fewer standard errors leave it in doubt, and a break costs
#: no search for its place. Settled on halves of CPU sweeps (benchmarks/fill.csv); a curve of noise has a period at most once in 200.
EXPECTED_SIGMAS = 2.0
#: What a break costs in log-likelihood ratio x 2: its place has to be sought, and it has a level of its own.
PLACE, LEVEL = DOUBT_SIGMAS**2, 3.0
#: What a piece pays for a slope as steep as proportional latency, about as much as for a break: with two points to a tread, pieces from
#: riser to riser and pieces across the risers fit equally well, and the flat ones are the treads.
FLAT = 10.0
#: Points on either side of an edge that its size is judged by: local, because a plateau need not be one straight line.
NEIGHBOURHOOD = 24
#: Model error of a plateau as a share of `min_riser`: wiggles this small are no reason for a break.
WIGGLE = 1 / 8
#: An edge's place is in doubt where moving it by one point costs less than this in log-likelihood ratio x 2.
PLACE_DOUBT = 2.0
#: Where the noise is that of the raw times, a single width that leaves its plateau and comes back must stand out this many
#: times more than an edge: one disturbed visit looks just like it, and its own times do not tell. Noise estimated from the
#: curve has such visits in it.
LONE = 2.0
#: Fewest points on both sides for a width to be lonely; zig-zags from alignment are not.
COMPANY = 3


def detect_steps(curve: LatencyCurve, *, min_riser: float = 0.02, confidence: float = 0.99) -> Staircase:
    """Which widths are step edges of this curve, and which of them are certain?

    The curve is modelled as sloped pieces with jumps between them, in both directions:

        latency(w) = level_p + slope_p x (w - low_p) + noise(w)    for w on plateau p

    Pieces come from an exact penalised partition. A jump is what the latency rises from one plateau's line to the next
    in excess of the local slope. It is kept when it is at least `min_riser` of the latency, and **confirmed** when it
    also exceeds k standard errors, k so that a curve of normal noise without steps gives a false edge with probability
    1 - `confidence` at most (Bonferroni over its gaps), and its place is known: neighbouring widths one granule apart,
    each clearly on its side. Otherwise it is **ambiguous**: measure again, or measure between. The two edges around a
    single width that leaves its plateau and comes back need twice the standard errors where those are of raw times.

    Where latency steps behind every multiple of a period, or behind a row of them (`recurring_gaps`), the slope is that of the treads between them,
    and a step is expected there: it is ambiguous from two standard errors on, not three.

    >>> curve = LatencyCurve(widths=tuple(range(1, 65)), latency_us=tuple(10.0 + 4 * ((w - 1) // 16) for w in range(1, 65)),
    ...                      kind="modelled")
    >>> detect_steps(curve).edge_widths
    (16, 32, 48, 64)
    """
    if not (math.isfinite(min_riser) and 0 < min_riser < 1):
        raise InvalidShape(f"min_riser must be a fraction between 0 and 1, got {min_riser!r}; 0.02 is usual.")
    if not 0.5 <= confidence < 1:
        raise InvalidShape(f"confidence must lie in [0.5, 1), got {confidence!r}; 0.99 is usual.")
    y = np.asarray(curve.latency_us)
    x = np.asarray(curve.widths, dtype=np.float64)
    noise = point_noise_us(curve)
    sigma = np.maximum(noise, WIGGLE * min_riser * y)
    floor = float(np.median(noise / y))
    costs = PieceCosts(x, y, sigma)
    gaps = max(len(curve) - 1, 1)
    k = max(NormalDist().inv_cdf(1 - (1 - confidence) / (2 * gaps)), DOUBT_SIGMAS)
    pieces, prior, recurring = _pieces(
        costs, recurring_gaps(x, y, sigma, curve.granule, WIGGLE * min_riser * float(np.median(y)))
    )
    sizes = _Jumps(costs, prior, pieces)
    starts = _joined(pieces, sizes, len(curve), recurring)
    stops = [*starts[1:], len(curve)]
    jumps = [sizes.at(*bounds) for bounds in zip(starts, stops, stops[1:], strict=False)]
    plateaus = []
    start = 0
    for index, stop in enumerate(stops):
        jump = jumps[index] if stop < len(curve) else None
        if jump and (abs(jump.fraction) < min_riser or jump.is_kink):
            continue  # the plateau goes on
        verdict: EdgeVerdict = "end"
        if jump:
            near = curve.widths[stop] - curve.widths[stop - 1] <= curve.granule
            lone = bool(curve.noise_us) and any(_is_lone(jumps, starts, stops, i) for i in (index, index + 1))
            sure = jump.sigmas >= (LONE * k if lone else k) and near and _placed(jump, y, sigma, x, stop)
            verdict = "confirmed" if sure else "ambiguous"
        plateaus.append(
            Plateau(
                low=curve.widths[start],
                high=curve.widths[stop - 1],
                low_us=curve.latency_us[start],
                high_us=curve.latency_us[stop - 1],
                verdict=verdict,
                riser=jump.fraction if jump else 0.0,
                sigmas=jump.sigmas if jump else 0.0,
            )
        )
        start = stop
    return Staircase(curve=curve, plateaus=tuple(plateaus), noise_floor=floor, min_riser=min_riser)


@dataclass(frozen=True, slots=True)
class _Jump:
    """Lines on both sides of an edge, read at the last width before it and the first behind it."""

    left_us: float
    right_us: float
    slope: float
    excess_us: float
    error_us: float
    bare_sigmas: float

    @property
    def fraction(self) -> float:
        return self.excess_us / self.left_us

    @property
    def sigmas(self) -> float:
        return max(abs(self.excess_us) / self.error_us, self.bare_sigmas)

    @property
    def is_kink(self) -> bool:
        """Whether latency moves the other way: where a flat piece lies before a slope it falls short of that, and rises."""
        return self.excess_us * (self.right_us - self.left_us) < 0


@dataclass(frozen=True, slots=True)
class _SlopePrior:
    """How plateaus of this curve slope in general: mean in microseconds per channel, and its precision for one plateau."""

    mean: float
    precision: float

    @classmethod
    def of(cls, costs: PieceCosts, bounds: list[int], fewest: int) -> _SlopePrior:
        """Random-effects mean over the pieces between `bounds` of `fewest` points or more (DerSimonian & Laird 1986): short
        plateaus borrow from the long ones."""
        fits = [costs.fit(a, b) for a, b in pairwise(bounds) if b - a >= fewest]
        slope = np.array([fit[2] for fit in fits])
        spread = np.array([fit[4] for fit in fits])
        total = float(spread.sum())
        if total <= 0:
            return cls(0.0, 0.0)
        mean = float(spread @ slope) / total
        freedom = total - float(spread @ spread) / total
        between = (float(spread @ (slope - mean) ** 2) - (len(fits) - 1)) / freedom if freedom > 0 else 0.0
        return cls(mean, 1.0 / (max(between, 0.0) + 1.0 / total))


def _pieces(costs: PieceCosts, recurring: frozenset[int]) -> tuple[list[int], _SlopePrior, frozenset[int]]:
    """Starts of the pieces, how they slope, and the recurring gaps where the curve is best explained by those.

    Found together, the recurring steps need no penalty. But where a free partition explains the curve better even though it
    pays for each break, there are other steps on the treads, and a slope taken from whole treads would hide them.
    """
    free, cost = best_partition(costs, PLACE + LEVEL, flat=FLAT)
    if recurring:
        penalty = np.full(len(costs.x), PLACE + LEVEL)
        penalty[list(recurring)] = LEVEL
        prior = _SlopePrior.of(costs, sorted(recurring), 2)
        pieces, together = best_partition(costs, penalty, slope=prior.mean, precision=prior.precision)
        if together - LEVEL * len(recurring.intersection(pieces)) <= cost:
            return pieces, prior, recurring
    prior = _SlopePrior.of(costs, [*free, len(costs.x)], 3)
    pieces, _ = best_partition(costs, PLACE + LEVEL, slope=prior.mean, precision=prior.precision)
    return pieces, prior, frozenset()


class _Jumps:
    """Sizes of jumps on one curve, judged by what lies around them.

    Levels are means of up to `NEIGHBOURHOOD` points on both sides. Both sides are read with one slope, pooled within
    the pieces there and the curve's prior: a slope fitted across pieces would pass small risers for a slope and hide
    the next riser in it, and one from two noisy points would be mere noise.
    """

    def __init__(self, costs: PieceCosts, prior: _SlopePrior, pieces: list[int]) -> None:
        self.costs, self.prior, self.pieces = costs, prior, pieces

    def at(self, start: int, edge: int, stop: int) -> _Jump:
        """The jump between points start..edge-1 and edge..stop-1."""
        costs = self.costs
        first, last = max(start, edge - NEIGHBOURHOOD), min(stop, edge + NEIGHBOURHOOD)
        lx, ly, _, lw, _ = costs.fit(first, edge)
        rx, ry, _, rw, _ = costs.fit(edge, last)
        inner = self.pieces[bisect_right(self.pieces, first) : bisect_left(self.pieces, last)]
        fits = [costs.fit(a, b) for a, b in zip([first, *inner], [*inner, last], strict=True)]
        precision = self.prior.precision + sum(fit[4] for fit in fits)
        pooled = self.prior.mean * self.prior.precision + sum(fit[2] * fit[4] for fit in fits)
        slope = pooled / precision if precision > 0 else 0.0
        before, behind = float(costs.x[edge - 1]), float(costs.x[edge])
        left, right = ly + slope * (before - lx), ry + slope * (behind - rx)
        variance = 1 / lw + 1 / rw + ((rx - lx) ** 2 / precision if precision > 0 else 0.0)
        excess = right - left - slope * (behind - before)
        return _Jump(left, right, slope, excess, math.sqrt(variance), self._bare_sigmas(edge))

    def _bare_sigmas(self, edge: int) -> float:
        """Standard errors of the jump between the two points alone, whatever slope a plateau can have.

        Where plateaus are single points their slope is hardly known, and jumps by a factor would pass for one. Half of them
        count, as one disturbed visit looks just like a jump.
        """
        x, y = self.costs.x, self.costs.y
        rise, sloped = y[edge] - y[edge - 1], y[edge - 1] * (x[edge] / x[edge - 1] - 1)
        beyond = max(rise - STEEPEST * sloped, FALLING * sloped - rise, 0.0)
        return float(beyond / (LONE * math.hypot(self.costs.sigma[edge - 1], self.costs.sigma[edge])))


def _is_lone(jumps: list[_Jump], starts: list[int], stops: list[int], index: int) -> bool:
    """Whether a plateau is one point in the middle of a longer one."""
    if not 0 < index < len(starts) - 1:
        return False
    before, own, behind = (stops[i] - starts[i] for i in (index - 1, index, index + 1))
    if own > 1 or min(before, behind) < COMPANY:
        return False
    there, back = jumps[index - 1].excess_us, jumps[index].excess_us
    return abs(there + back) < 0.5 * min(abs(there), abs(back))


def _joined(pieces: list[int], sizes: _Jumps, count: int, recurring: Collection[int]) -> list[int]:
    """The pieces with those joined between which nothing jumps that noise could not do, weakest first."""
    starts = list(pieces)

    def strength(i: int) -> float:
        """Standard errors of the jump, in units of those that it must have."""
        stop = starts[i + 1] if i + 1 < len(starts) else count
        needed = EXPECTED_SIGMAS if starts[i] in recurring else DOUBT_SIGMAS
        return sizes.at(starts[i - 1], starts[i], stop).sigmas / needed

    strengths = [math.inf] + [strength(i) for i in range(1, len(starts))]
    while len(starts) > 1:
        weakest = min(range(len(starts)), key=strengths.__getitem__)
        if strengths[weakest] >= 1:
            break
        del starts[weakest], strengths[weakest]
        for i in (weakest - 1, weakest):
            if 0 < i < len(starts):
                strengths[i] = strength(i)
    return starts


def _placed(jump: _Jump, y: Floats, sigma: Floats, x: Floats, edge: int) -> bool:
    """Whether the points beside the edge are clearly on their own side: moving the edge past one would cost."""
    gap = float(x[edge] - x[edge - 1])
    before, behind = float(y[edge - 1]), float(y[edge])
    right_at_before, left_at_behind = jump.right_us - jump.slope * gap, jump.left_us + jump.slope * gap
    cost_left = ((before - right_at_before) ** 2 - (before - jump.left_us) ** 2) / float(sigma[edge - 1]) ** 2
    cost_right = ((behind - left_at_behind) ** 2 - (behind - jump.right_us) ** 2) / float(sigma[edge]) ** 2
    return min(cost_left, cost_right) >= PLACE_DOUBT
