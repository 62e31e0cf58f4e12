"""Which widths are asked for next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.filling.propose import (
    Expectation,
    Proposal,
    learn_period,
    most_even_between,
    place_edge,
    propose_places,
    propose_widths,
    seed_widths,
)
from tailprune.steps import LatencyCurve, detect_steps


def proposals(pairs: dict[int, float], granule: int = 1) -> tuple[int, ...]:
    curve = LatencyCurve(widths=tuple(pairs), latency_us=tuple(pairs.values()), kind="modelled")
    return propose_widths(detect_steps(curve), granule).widths


def test_seeds_divide_the_likely_edges() -> None:
    assert seed_widths(range(1, 129), [64, 128]) == [1, 64, 65, 128]
    assert seed_widths(range(8, 513, 8), range(64, 257, 64)) == [8, 64, 72, 128, 136, 192, 200, 256, 264, 512]
    assert seed_widths(range(12, 421, 12), [64, 131]) == [12, 60, 72, 120, 132, 420]
    assert seed_widths(range(8, 257, 8), [64]) == list(range(8, 257, 8))
    assert seed_widths(range(1, 101), [5000]) == [1, 100]


def test_a_width_known_no_better_than_to_a_riser_is_timed_again() -> None:
    """Between 16 and 24 lies a step of 40 % that the noise at 16 hides, and with it the doubt."""
    curve = LatencyCurve(
        widths=(8, 16, 24, 32), latency_us=(66.0, 68.0, 94.0, 93.0), noise_us=(0.2, 27.0, 0.2, 0.2), kind="measured"
    )
    assert 16 in propose_widths(detect_steps(curve), 8).again
    calm = LatencyCurve(widths=curve.widths, latency_us=curve.latency_us, noise_us=(0.2,) * 4, kind="measured")
    assert propose_widths(detect_steps(calm), 8).again == ()


@given(edge=st.integers(16, 31), upward=st.booleans())
def test_an_edge_between_aligned_widths_is_placed_within_five_timings(edge: int, upward: bool) -> None:
    us = {w: 10.0 if (w <= edge) == upward else 13.0 for w in range(16, 33)}
    known = {16: us[16], 32: us[32]}
    for _ in range(6):
        curve = LatencyCurve(widths=tuple(sorted(known)), latency_us=tuple(us[w] for w in sorted(known)))
        width = place_edge(curve, 16, 32, 1)
        if width is None:
            break
        assert width not in known
        known[width] = us[width]
    assert edge in known
    assert edge + 1 in known
    assert len(known) <= 7


def test_an_edge_right_behind_an_aligned_width_takes_one_timing() -> None:
    at = lambda *pairs: LatencyCurve(widths=tuple(w for w, _ in pairs), latency_us=tuple(us for _, us in pairs))  # noqa: E731
    assert place_edge(at((64, 10.0), (72, 14.0)), 64, 72, 1) == 65
    assert place_edge(at((64, 10.0), (65, 16.0), (72, 14.0)), 64, 72, 1) is None


@pytest.mark.parametrize(
    ("edges", "granule", "period"),
    [
        ([64, 192], 1, 64),
        ([128, 256], 1, 128),
        ([16, 48], 1, 16),
        ([24, 64], 1, 8),
        ([100], 1, 8),
        ([], 1, 64),
        ([60, 120], 12, 64),
    ],
)
def test_the_period_is_the_largest_that_explains_every_edge(edges: list[int], granule: int, period: int) -> None:
    assert learn_period(edges, granule) == period


@given(low=st.integers(1, 500), gap=st.integers(2, 500), granule=st.integers(1, 16))
def test_the_middle_lies_inside_and_is_the_most_even(low: int, gap: int, granule: int) -> None:
    middle = most_even_between(low * granule, (low + gap) * granule, granule)
    assert low * granule < middle < (low + gap) * granule
    assert middle % granule == 0
    evenness = lambda units: units & -units  # noqa: E731
    assert evenness(middle // granule) == max(evenness(units) for units in range(low + 1, low + gap))


def test_a_flat_interval_asks_for_nothing_and_a_rise_for_a_pair_in_the_middle() -> None:
    assert proposals({1: 10.0, 64: 10.0}) == ()
    assert proposals({65: 10.0, 127: 20.0}) == (96, 97)


def test_an_edge_asks_for_its_third_point() -> None:
    assert proposals({1: 10.0, 2: 10.0, 64: 10.0, 65: 20.0, 66: 20.0, 128: 20.0}) == (63,)


def test_a_confirmed_slope_asks_for_nothing() -> None:
    assert proposals({w: 10.0 + w for w in (1, 2, 16, 17, 32, 33, 64)}) == ()


@given(edge=st.integers(1, 127), riser=st.floats(0.05, 3.0), sign=st.sampled_from([1, -1]))
def test_asking_on_always_ends_with_the_exact_edge(edge: int, riser: float, sign: int) -> None:
    """Bisection closes in on any single riser, in any direction, and stops."""

    def us(width: int) -> float:
        return 10.0 * (1 + riser) if (width > edge) == (sign > 0) else 10.0

    known = {w: us(w) for w in seed_widths(range(1, 129), [64])}
    for _ in range(30):
        wanted = proposals(dict(sorted(known.items())))
        if not wanted:
            break
        known |= {w: us(w) for w in wanted}
    else:
        pytest.fail("it never stopped asking")
    curve = LatencyCurve(widths=tuple(sorted(known)), latency_us=tuple(us(w) for w in sorted(known)), kind="modelled")
    assert detect_steps(curve).confirmed_edges == (edge,)
    assert len(known) <= 30


def slope_with_a_step(width: int, riser: float = 0.0) -> float:
    return 10 + 0.5 * width + (riser * 42 if width > 64 else 0)


def asked(pairs: dict[int, float], expected: Expectation) -> tuple[int, ...]:
    curve = LatencyCurve(widths=tuple(pairs), latency_us=tuple(pairs.values()), noise_us=(0.01,) * len(pairs))
    return propose_widths(detect_steps(curve), 8, expected).widths


def test_a_rise_that_was_expected_is_not_looked_into_and_one_beyond_it_is() -> None:
    ends = (8, 16, 120, 128)
    expected = Expectation(us={width: 3 * slope_with_a_step(width) for width in range(8, 129, 8)})
    plain = {width: slope_with_a_step(width) for width in ends}
    assert asked(plain, Expectation())
    assert not asked(plain, expected)
    assert asked({width: slope_with_a_step(width, riser=0.1) for width in ends}, expected)


def test_an_interval_with_an_expected_edge_inside_is_never_settled_by_its_ends() -> None:
    us = {width: slope_with_a_step(width) for width in range(8, 129, 8)}
    ends = {width: us[width] for width in (8, 16, 120, 128)}
    assert asked(ends, Expectation(us=us, edges=(64,)))
    assert not asked(ends, Expectation(us=us))


def test_an_expected_edge_is_confirmed_by_two_points() -> None:
    us = {8: 10.0, 16: 10.0, 64: 10.0, 72: 14.0, 128: 14.0}
    assert 56 in asked(us, Expectation())
    assert 56 not in asked(us, Expectation(edges=(64,)))


def places(us: Callable[[int], float], known: set[int], alignment: int = 8) -> Proposal:
    """What is asked for over a grid of 1 to 64, these widths known."""
    curve = LatencyCurve(widths=tuple(sorted(known)), latency_us=tuple(map(us, sorted(known))), kind="modelled")
    aligned = tuple(width for width in curve.widths if width % alignment == 0)
    lattice = LatencyCurve(widths=aligned, latency_us=tuple(map(us, aligned)), kind="modelled")
    return propose_places(detect_steps(lattice), detect_steps(curve), range(1, 65))


@given(edge=st.integers(1, 63))
def test_a_step_between_aligned_widths_or_before_the_first_is_brought_to_its_channel(edge: int) -> None:
    known = set(range(8, 65, 8))
    for _ in range(8):
        asked = places(lambda width: 10.0 if width <= edge else 15.0, known).widths
        if not asked:
            break
        assert not known & set(asked)
        known |= set(asked)
    assert {edge, edge + 1} <= known
    assert len(known) <= 8 + 1 + 4


def test_the_first_width_of_a_line_is_asked_for_first() -> None:
    assert places(lambda width: 10.0, set(range(8, 65, 8))) == Proposal(widths=(1,))
    assert places(lambda width: 10.0, {1, *range(8, 65, 8)}) == Proposal()


def test_a_slope_before_the_first_aligned_width_leaves_no_doubt() -> None:
    assert places(lambda width: 10.0 + width, {1, 2, *range(8, 65, 8)}).again == ()
