"""Which widths of a line are worth a measurement, given those already measured?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from ..core.protocols import WidthProposer
from ..core.shapes import LayerShape
from ..steps import LatencyCurve, Plateau, Staircase

#: Where devices put their steps: vector width (8 and 16 floats), tensor-core and GEMM tiles (16 to 128 columns).
PERIODS = (128, 64, 32, 16, 8)
FINEST = PERIODS[-1]
#: Lines up to this many widths are measured in full: a search would visit most of them anyway, and what it finds is then timed once more.
#: Simulated GPUs and real CPU lines take fewer visits in all with 32 than with 16.
SHORT = 32
#: A sloped plateau is believed to be straight when this many points lie on its line.
SUPPORT = 5
#: A rise between the ends of an interval this many standard errors of it above flat is looked into.
RISE_SIGMAS = 1.5


def seed_widths(lattice: range, edges: Iterable[int]) -> list[int]:
    """The first and last width, and for each likely edge the pair that it would divide."""
    if len(lattice) <= SHORT:
        return list(lattice)
    lows = {edge // lattice.step * lattice.step for edge in edges}
    return sorted(({lattice[0], lattice[-1]} | lows | {low + lattice.step for low in lows}).intersection(lattice))


def learn_period(edges: Iterable[int], granule_of: int = 1) -> int:
    """The largest period all these edges are multiples of (to within a granule); 8 where they have none in common,
    64 where there are no edges at all: something has to be looked at."""
    places = list(edges)
    if not places:
        return 64
    for period in PERIODS:
        if all(edge % period == 0 or period - edge % period < granule_of for edge in places):
            return period
    return FINEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a proposer says of a line: latencies, right but for a factor, and its edges."""

    us: Mapping[int, float] = field(default_factory=dict)
    edges: Collection[int] = ()

    @classmethod
    def of(
        cls, proposer: WidthProposer, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> Expectation:
        us = dict(zip(widths, proposer.expected_us(calls_at, widths), strict=False))
        return cls(us=us, edges=proposer.edge_widths(calls_at, widths))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Widths to measure, and those in doubt, to measure once more."""

    widths: tuple[int, ...] = ()
    again: tuple[int, ...] = ()


def propose_widths(staircase: Staircase, granule: int, expected: Expectation | None = None) -> Proposal:
    """Where could an edge still hide, and which edges are in doubt?

    Between two measured widths more than a granule apart an interval is settled when it lies inside one plateau and
    is flat, or on a plateau whose slope `SUPPORT` points confirm. Otherwise it is halved, at the width that is a
    multiple of the largest power of two granules, because steps sit there, by a pair that would divide an edge.
    Each edge is confirmed by three points: the two it lies between, and the one before them. Neighbours that differ
    by a riser which the noise could explain as well are measured again, and so is a width known no better than to a riser: its
    noise would hide an edge, and with it the doubt.

    What is `expected` saves what would only confirm it: an interval is settled as well if it rises as expected and no edge
    is expected inside, and an expected edge is confirmed by two points.
    """
    curve, expected = staircase.curve, expected or Expectation()
    known = set(curve.widths)
    widths: set[int] = set()
    again: set[int] = set()
    for plateau in staircase.edges:
        widths |= {plateau.high, plateau.high + granule}
        if plateau.high - granule >= plateau.low and plateau.high not in expected.edges:
            widths.add(plateau.high - granule)
        if plateau.verdict == "ambiguous" and plateau.high + granule in known:
            again |= {plateau.high, plateau.high + granule}
    for low, high in zip(curve.widths, curve.widths[1:], strict=False):
        if high - low > granule and not (
            _is_settled(staircase, low, high) or _is_expected(staircase, low, high, expected)
        ):
            middle = most_even_between(low, high, granule)
            widths |= {middle, middle + granule}
        elif high - low == granule and _might_jump(staircase, low, high):
            again |= {low, high}
    for width, us, noise in zip(curve.widths, curve.latency_us, curve.noise_us or (), strict=False):
        if noise >= staircase.min_riser * us:
            again.add(width)
    first, last = curve.widths[0], curve.widths[-1]
    return Proposal(
        widths=tuple(sorted(w for w in widths - known if first <= w <= last)),
        again=tuple(sorted(again)),
    )


def most_even_between(low: int, high: int, granule: int) -> int:
    """The width strictly between two others that is a multiple of the largest power of two granules.

    >>> most_even_between(65, 127, 1), most_even_between(64, 128, 8)
    (96, 96)
    """
    first, last = low // granule, high // granule - 1
    shift = (first ^ last).bit_length() - 1
    return (last >> shift << shift) * granule


def propose_places(aligned: Staircase, found: Staircase, grid: range) -> Proposal:
    """Where exactly are the edges that were found between `aligned` widths?

    `found` are the steps over all widths measured on the `grid`. The first width of the grid is measured, too:
    a line may rise between it and the first aligned one. A line that only rises by a riser from one aligned width to the next
    may be a slope: there one timing must do. Where a step is placed and not certain, the widths on both sides of it are in doubt.
    """
    curve, granule = found.curve, grid.step
    edges, certain = set(aligned.edge_widths), found.confirmed_edges
    if grid[0] not in curve:
        return Proposal(widths=(grid[0],))
    widths: set[int] = set()
    again: set[int] = set()
    for low, high in pairwise(dict.fromkeys((grid[0], *aligned.curve.widths))):
        rises = abs(curve.at(high) - curve.at(low)) >= found.min_riser * curve.at(low)
        if low in edges or (low < aligned.curve.widths[0] and rises):
            place = place_edge(curve, low, high, granule)
            if place is not None:
                widths.add(place)
            elif low in edges and not any(low <= edge < high for edge in certain):
                again |= {low, low + granule}
        elif granule < high - low == aligned.curve.granule and rises:
            widths.add(low + granule)
    return Proposal(widths=tuple(sorted(widths.difference(curve.widths))), again=tuple(sorted(again)))


def place_edge(curve: LatencyCurve, low: int, high: int, granule: int) -> int | None:
    """The next width to time so that a step between two aligned widths gets its exact place; None where it has.

    The first width behind `low` is asked for first: there the step is where alignment was read rightly. Else the gap is
    halved between the last width on the near side of the step's middle and the first one beyond it.
    """
    middle = (curve.at(low) + curve.at(high)) / 2
    upward = curve.at(high) > curve.at(low)
    inner = [width for width in curve.widths if low < width <= high]
    beyond = next((width for width in inner if (curve.at(width) > middle) == upward), high)
    near = max([low, *(width for width in inner if width < beyond)])
    if beyond - near <= granule:
        return None
    return low + granule if near == low else (near + beyond) // 2 // granule * granule


def _might_jump(staircase: Staircase, low: int, high: int) -> bool:
    """Neighbours on one plateau, as far off its slope as a riser would put them."""
    curve, plateau = staircase.curve, staircase.plateau_at(low)
    rise = abs(curve.at(high) - curve.at(low) - plateau.slope_us * (high - low))
    return plateau.high >= high and rise >= max(staircase.min_riser * curve.at(low), flat_within(staircase, low, high))


def _is_settled(staircase: Staircase, low: int, high: int) -> bool:
    plateau = staircase.plateau_at(low)
    if plateau.high < high:
        return False
    rise = abs(staircase.curve.at(high) - staircase.curve.at(low))
    return rise <= flat_within(staircase, low, high) or _is_slope(staircase, plateau, low, high)


def _is_expected(staircase: Staircase, low: int, high: int, expected: Expectation) -> bool:
    """Whether latency rises over an interval as was expected, with no edge expected inside."""
    if low not in expected.us or any(low <= edge < high for edge in expected.edges):
        return False
    curve = staircase.curve
    hidden = abs(curve.at(high) - curve.at(low) * expected.us[high] / expected.us[low])
    return hidden <= flat_within(staircase, low, high)


def _is_slope(staircase: Staircase, plateau: Plateau, low: int, high: int) -> bool:
    """Whether enough points lie on this plateau, and neighbours on it rise as steeply as this interval does: one width per
    step of a staircase also lies on a straight line."""
    curve = staircase.curve
    on = [width for width in curve.widths if plateau.low <= width <= plateau.high]
    pairs = [(a, b) for a, b in pairwise(on) if b - a == curve.granule]
    if len(on) < SUPPORT or not pairs:
        return False
    slopes = [(curve.at(b) - curve.at(a)) / curve.granule for a, b in pairs]
    noise = dict(zip(curve.widths, curve.noise_us or (0.0,) * len(curve), strict=True))
    error = sum(noise[a] ** 2 + noise[b] ** 2 for a, b in pairs) ** 0.5 / len(pairs) / curve.granule
    hidden = abs(curve.at(high) - curve.at(low) - fmean(slopes) * (high - low))
    return hidden <= max(staircase.min_riser * curve.at(low), RISE_SIGMAS * error * (high - low))


def flat_within(staircase: Staircase, low: int, high: int) -> float:
    """The rise in microseconds below which two widths of a curve count as level: half a riser, or the noise."""
    curve = staircase.curve
    level = min(curve.at(low), curve.at(high))
    error = 0.0
    if curve.noise_us:
        noise = dict(zip(curve.widths, curve.noise_us, strict=True))
        error = (noise[low] ** 2 + noise[high] ** 2) ** 0.5
    return max(staircase.min_riser / 2 * level, RISE_SIGMAS * error)
