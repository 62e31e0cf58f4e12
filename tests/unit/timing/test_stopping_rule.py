"""The stopping rule on series whose median is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.timing import StoppingRule, median_interval
from tailprune.timing.stopping import interval_rank

positive = st.floats(1e-3, 1e6, allow_nan=False)


def brute_rank(count: int, confidence: float) -> int:
    def coverage(rank: int) -> float:
        return sum(math.comb(count, k) for k in range(rank, count - rank + 1)) / 2**count

    return max((rank for rank in range(1, count // 2 + 1) if coverage(rank) >= confidence), default=0)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", range(1, 40))
def test_rank_is_the_largest_with_the_coverage(count: int, confidence: float) -> None:
    assert interval_rank(count, confidence) == brute_rank(count, confidence)


def test_six_times_are_the_fewest_for_95_percent() -> None:
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert median_interval([1.0] * 6) == (1.0, 1.0)


@given(st.lists(positive, min_size=6, max_size=60))
def test_interval_holds_the_sample_median_and_ignores_order(times: list[float]) -> None:
    low, high = median_interval(times)
    ordered = sorted(times)
    assert low <= ordered[(len(times) - 1) // 2]
    assert ordered[len(times) // 2] <= high
    assert median_interval(times[::-1]) == (low, high)


def test_interval_covers_the_true_median_of_a_skewed_source() -> None:
    source = random.Random(7)
    true_median = 100 * math.exp(0.0)
    hits = 0
    for _ in range(2000):
        low, high = median_interval([100 * math.exp(source.gauss(0, 0.3)) for _ in range(15)])
        hits += low <= true_median <= high
    assert hits / 2000 >= 0.94


@given(positive, st.integers(6, 25))
def test_a_constant_series_settles_at_the_first_chance(value: float, visits: int) -> None:
    rule = StoppingRule()
    assert rule.verdict([value] * visits, visits=visits, seconds=0.1) == "settled"
    assert rule.verdict([value] * 5, visits=5, seconds=0.1) == "go on"


@given(st.lists(positive, min_size=1, max_size=30), st.floats(0, 10))
def test_every_series_ends_at_the_visit_limit(times: list[float], seconds: float) -> None:
    assert StoppingRule(max_visits=6).verdict(times, visits=max(6, len(times)), seconds=seconds) != "go on"


@given(st.lists(positive, min_size=6, max_size=24))
def test_what_settles_at_a_fine_precision_settles_at_a_coarse_one(times: list[float]) -> None:
    fine, coarse = StoppingRule(precision=0.01), StoppingRule(precision=0.2)
    if fine.verdict(times, visits=len(times), seconds=0) == "settled":
        assert coarse.verdict(times, visits=len(times), seconds=0) == "settled"


def test_two_clusters_are_unstable_and_one_outlier_is_not() -> None:
    rule = StoppingRule(precision=0.01, max_visits=25)
    assert rule.verdict([100.0, 110.0] * 12 + [100.0], visits=25, seconds=0) == "unstable"
    assert rule.verdict([100.0] * 8 + [900.0], visits=9, seconds=0) == "settled"


def test_the_time_limit_waits_for_the_fewest_visits() -> None:
    rule = StoppingRule(max_seconds=1.0)
    spread = [100.0, 150.0, 100.0, 150.0, 100.0, 150.0]
    assert rule.verdict(spread[:5], visits=5, seconds=9.0) == "go on"
    assert rule.verdict(spread, visits=6, seconds=9.0) == "unstable"
    assert rule.verdict(spread, visits=6, seconds=0.5) == "go on"


def test_thrown_away_readings_count_as_visits() -> None:
    assert StoppingRule(max_visits=8).verdict([], visits=8, seconds=0.0) == "unstable"


@pytest.mark.parametrize(
    "fields", [{"precision": 0.0}, {"precision": 1.0}, {"confidence": 1.0}, {"min_visits": 0}, {"max_visits": 3}, {"max_seconds": 0.0}]
)  # fmt: skip
def test_impossible_rules_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidShape):
        StoppingRule(**fields)
