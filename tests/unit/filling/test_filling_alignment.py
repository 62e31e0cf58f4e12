"""What multiples a device likes, read from a few ladders."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.filling.alignment import WIDEST, aligned_widths, ladders, learn_alignment
from tailprune.steps import LatencyCurve, dominated_widths


def curve_of(us: Callable[[int], float], grid: range, noise: float = 0.0) -> LatencyCurve:
    widths = sorted({grid[0], grid[-1], *(width for ladder in ladders(grid) for width in ladder)})
    values = tuple(us(width) for width in widths)
    return LatencyCurve(widths=tuple(widths), latency_us=values, noise_us=tuple(noise * v for v in values))


def learned(us: Callable[[int], float], grid: range = range(1, 513), noise: float = 0.0) -> int:
    return learn_alignment(curve_of(us, grid, noise), grid, min_riser=0.02)


@pytest.mark.parametrize("tier", [2, 4, 8, 16])
def test_a_tier_is_learned(tier: int) -> None:
    """The smaller tiers tell because a step follows each of them."""
    assert learned(lambda w: 10.0 * (-(-w // tier)) + (0 if w % tier == 0 else 200), range(1, 65)) == tier


def test_flat_plateaus_need_no_width_between_the_widest_tier() -> None:
    assert learned(lambda w: 10.0 * (-(-w // 64))) == WIDEST


def test_a_slope_keeps_every_channel() -> None:
    """As far as a multiple costs more than 2 % above the width before it."""
    assert learned(lambda w: 0.1 * w, range(1, 65)) == 1
    assert learned(lambda w: 0.1 * w, range(1, 513)) == 2


def test_a_step_at_eight_keeps_eight() -> None:
    assert learned(lambda w: 10.0 * (-(-w // 8))) == 8


def test_noise_does_not_pass_for_a_faster_width() -> None:
    assert learned(lambda w: 100.0 - (3.0 if w == 17 or w == 113 else 0.0), noise=0.03) == WIDEST
    assert learned(lambda w: 100.0 - (30.0 if w % 2 else 0.0), noise=0.03) == 1


def test_granules_leave_fewer_tiers() -> None:
    assert [len(ladder) for ladder in ladders(range(8, 513, 8))] == [3, 3, 3]
    assert ladders(range(16, 513, 16)) == ()
    assert learned(lambda w: 10.0, range(16, 513, 16)) == 16
    assert learned(lambda w: 10.0 if w % 16 == 0 else 12.0, range(8, 513, 8)) == 16
    assert learned(lambda w: 10.0 * w, range(8, 257, 8)) == 8


def test_an_unmeasured_ladder_teaches_nothing() -> None:
    curve = LatencyCurve(widths=(1, 512), latency_us=(10.0, 10.0))
    assert learn_alignment(curve, range(1, 513), min_riser=0.02) == 1


@given(first=st.integers(1, 40), count=st.integers(17, 400), granule=st.sampled_from([1, 2, 3, 4, 6, 8, 12]))
def test_ladders_lie_on_the_grid(first: int, count: int, granule: int) -> None:
    grid = range(first * granule, (first + count) * granule, granule)
    assert all(width in grid for ladder in ladders(grid) for width in ladder)


@given(tier=st.sampled_from([1, 2, 4, 8, 16]), penalty=st.floats(0.5, 5.0), tile=st.sampled_from([32, 64, 128]))
def test_what_is_left_out_is_dominated(tier: int, penalty: float, tile: int) -> None:
    """On a device of one tier and one tile, no width between two aligned ones is worth choosing."""
    grid = range(1, 257)
    us = {w: 10.0 * (-(-w // tile)) + (0.0 if w % tier == 0 else penalty) for w in grid}
    alignment = learned(us.__getitem__, grid)
    dominated = set(dominated_widths(LatencyCurve(widths=tuple(us), latency_us=tuple(us.values()), kind="modelled")))
    assert alignment >= tier
    assert set(grid) - set(aligned_widths(grid, alignment)) <= dominated
