"""Latency at equal accuracy: pooled curves, and what is read from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.equal_accuracy import Trained, latency_at, pooled, resampled, savings


def net(us: float, correct: int, total: int = 100) -> Trained:
    return Trained(us=us, correct=correct, total=total)


networks = st.lists(
    st.builds(net, us=st.floats(1, 1e4), correct=st.integers(0, 100)), min_size=1, max_size=12
)  # fmt: skip


@given(networks)
def test_pooling_never_falls_and_keeps_the_count(found: list[Trained]) -> None:
    curve = pooled(found)
    shares = [share for _, share in curve]
    assert shares == sorted(shares)
    assert [us for us, _ in curve] == sorted(n.us for n in found)
    assert sum(shares) == pytest.approx(sum(n.correct / n.total for n in found))


def test_pooling_leaves_a_rising_curve_alone() -> None:
    assert pooled([net(1, 80), net(2, 90), net(3, 95)]) == [(1, 0.8), (2, 0.9), (3, 0.95)]


def test_latency_is_read_between_networks_and_nowhere_above() -> None:
    curve = [(10.0, 0.8), (20.0, 0.9), (30.0, 0.9)]
    assert latency_at(curve, 0.7) == 10.0
    assert latency_at(curve, 0.85) == pytest.approx(15.0)
    assert latency_at(curve, 0.9) == pytest.approx(20.0)
    assert latency_at(curve, 0.91) is None


def test_a_method_that_is_a_fifth_faster_everywhere_saves_a_fifth() -> None:
    host = [net(us, share) for us, share in ((10, 80), (20, 90), (30, 96))]
    methods = {"host": host, "ours": [Trained(us=0.8 * n.us, correct=n.correct, total=n.total) for n in host]}
    assert savings(methods, "ours", [0.8, 0.85, 0.96], ["host"]) == pytest.approx([0.2] * 3)


def test_a_faster_network_that_is_less_accurate_saves_nothing() -> None:
    """The same curve, only further down it: what a comparison at equal ratios would call a gain."""
    host = [net(10, 80), net(20, 90), net(30, 96)]
    ours = [net(10, 80), net(15, 85), net(25, 93)]
    assert max(savings({"host": host, "ours": ours}, "ours", [0.82, 0.90], ["host"])) < 1e-9


def test_the_fastest_rival_that_reaches_the_level_counts() -> None:
    methods = {"ours": [net(8, 90)], "a": [net(10, 90)], "b": [net(5, 80)]}
    assert savings(methods, "ours", [0.9, 0.99], ["a", "b"]) == pytest.approx([0.2])


def test_redrawn_counts_stay_near_what_was_seen() -> None:
    drawn = resampled({"host": [net(1, 9700, 10000)]}, np.random.default_rng(0))["host"][0]
    assert drawn.us == 1 and abs(drawn.correct - 9700) < 100
