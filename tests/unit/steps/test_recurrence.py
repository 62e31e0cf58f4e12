"""Steps behind every multiple of a period are found together, though each alone would pass for a slope."""

from __future__ import annotations

import numpy as np
import pytest

from tailprune.steps import LatencyCurve, detect_steps
from tailprune.steps.recurrence import recurring_gaps

WIDTHS = np.arange(8, 257, 8.0)


def stairs(widths: np.ndarray, period: float, riser: float = 20.0, slope: float = 0.3) -> np.ndarray:
    return 30 + slope * widths + riser * np.ceil(widths / period)


def noisy(us: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return us * (1 + share * np.random.default_rng(seed).standard_normal(len(us)))


def gaps_of(widths: np.ndarray, us: np.ndarray, granule: int, least_us: float, sigma: float = 0.02) -> frozenset[int]:
    return recurring_gaps(widths, us, sigma * us, granule, least_us)


def behind(widths: np.ndarray, gaps: frozenset[int]) -> list[float]:
    return [float(widths[gap - 1]) for gap in sorted(gaps)]


@pytest.mark.parametrize("period", [16, 32, 64])
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_the_period_is_that_of_the_stairs_and_no_part_of_it(period: int, share: float) -> None:
    found = gaps_of(WIDTHS, noisy(stairs(WIDTHS, period), share), 8, 0.1)
    expected = [float(w) for w in range(period, 256, period)]
    assert behind(WIDTHS, found) == (expected if len(expected) >= 4 else [])


def test_widths_that_are_missing_do_not_hide_it() -> None:
    some = np.delete(WIDTHS, [4, 9, 16, 17])
    found = gaps_of(some, noisy(stairs(some, 16), 0.005), 8, 0.1)
    assert {48.0, 96.0, 128.0, 240.0} <= set(behind(some, found))


def test_stairs_are_found_though_their_multiples_themselves_are_missing() -> None:
    some = WIDTHS[WIDTHS % 32 != 0]  # of every tread of 32 its last width
    found = recurring_gaps(some, stairs(some, 32), 0.001 * stairs(some, 32), 8, 0.1)
    assert behind(some, found) == [24.0, 56.0, 88.0, 120.0, 152.0, 184.0, 216.0]


@pytest.mark.parametrize(
    "us",
    [stairs(WIDTHS, 16, riser=0.0), stairs(WIDTHS, 16, riser=-5.0, slope=2.0), np.full(len(WIDTHS), 7.0), WIDTHS**1.5],
    ids=["slope", "steps down", "flat", "bent"],
)
def test_no_stairs_no_period(us: np.ndarray) -> None:
    assert gaps_of(WIDTHS, us, 8, 0.0025 * float(np.median(us))) == frozenset()


def stairs_that_stop(widths: np.ndarray, at: float, rise: float = 4.0) -> np.ndarray:
    """MobileNetV2's eighth expansion on a CPU: stairs of 16 up to 96 channels; another kernel behind them, whose stairs lie 8 further."""
    later = 17 + rise * (np.ceil((widths - 8) / 16) + 0.5)
    return np.where(widths <= at, 17 + rise * np.ceil(widths / 16), later)


@pytest.mark.parametrize("seed", range(10))
def test_stairs_that_stop_count_up_to_there(seed: int) -> None:
    widths = np.arange(8, 641, 8.0)  # so many that the mean over all of them is lost
    us = noisy(stairs_that_stop(widths, 96), 0.003, seed)
    found = recurring_gaps(widths, us, 0.004 * us, 8, 0.0025 * float(np.median(us)))
    assert behind(widths, found) in ([16.0, 32.0, 48.0, 64.0, 80.0], [16.0, 32.0, 48.0, 64.0, 80.0, 96.0])
    curve = LatencyCurve(
        widths=tuple(widths.astype(int).tolist()), latency_us=tuple(us), noise_us=tuple(0.003 * us), kind="measured"
    )
    assert {16, 32, 48, 64, 80, 120, 136} <= {edge.high for edge in detect_steps(curve).edges}


def test_a_row_of_neighbours_is_no_chance_though_the_noise_is_twice_what_is_believed() -> None:
    sloped = 30 + 2 * WIDTHS
    found = sum(bool(gaps_of(WIDTHS, noisy(sloped, 0.02, seed), 8, 0.0, sigma=0.01)) for seed in range(1000))
    assert found <= 10  # as below: the t-test alone finds 3.3


def test_noise_has_a_period_once_in_three_hundred() -> None:
    found = sum(bool(gaps_of(WIDTHS, noisy(30 + 2 * WIDTHS, 0.02, seed), 8, 0.0)) for seed in range(1000))
    assert found <= 10  # 3.3 are expected; more than 10 would be chance once in a thousand


def test_a_kernel_switch_behind_the_first_width_hides_no_period() -> None:
    """MobileNetV2's second 1x1 convolution on a CPU: 8 channels take twice what 16 take, and then it is stairs of 16."""
    widths = np.arange(8, 97, 8.0)
    us = stairs(widths, 16, riser=40.0, slope=1.5)
    us[0] = 2 * us[1]
    found = gaps_of(widths, noisy(us, 0.005), 8, 0.1)
    assert behind(widths, found) == [16.0, 32.0, 48.0, 64.0, 80.0]


def test_risers_below_what_is_asked_for_are_none() -> None:
    assert gaps_of(WIDTHS, stairs(WIDTHS, 16, riser=1.0), 8, 0.9)
    assert not gaps_of(WIDTHS, stairs(WIDTHS, 16, riser=1.0), 8, 1.1)


def test_a_curve_too_short_tells_nothing() -> None:
    few = WIDTHS[:8]
    assert gaps_of(few, stairs(few, 16), 8, 0.1) == frozenset()


def test_risers_of_four_times_the_noise_are_found_though_treads_have_two_points() -> None:
    """An AVX-512 line at multiples of 8: vectors of 16 floats, risers from 65 % down to 5 %."""
    us = 10 + 0.5 * WIDTHS + 26.0 * np.ceil(WIDTHS / 16)
    true = [w for w in range(16, 256, 16) if 26 / us[w // 8 - 1] >= 0.05]
    found = total = 0
    for seed in range(50):
        curve = LatencyCurve(
            widths=tuple(int(w) for w in WIDTHS),
            latency_us=tuple(noisy(us, 0.012, seed)),
            noise_us=tuple(0.012 * us),
        )
        edges = set(detect_steps(curve).edge_widths)
        found += sum(w in edges for w in true)
        total += len(true)
        assert not {w for w in edges if w % 16} - {256}, "no edge inside a tread"
    assert found >= 0.98 * total
