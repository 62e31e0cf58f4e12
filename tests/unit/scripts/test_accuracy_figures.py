"""Leads at unequal times, worked out by hand."""

from __future__ import annotations

import pytest

from scripts.accuracy_figures import Reached, host_curve, host_curves, leads, most_time_beyond_host

HOST, OURS, MULTIPLE = "host l1 local", "tailprune better l1 local", "multiple of 8 l1 local"
REACHED = {
    (0.5, HOST): Reached(share=0.50, accuracy=76.0),
    (0.35, HOST): Reached(share=0.36, accuracy=60.0),
    (0.5, OURS): Reached(share=0.55, accuracy=79.0),
    (0.35, OURS): Reached(share=0.43, accuracy=70.0),
    (0.5, MULTIPLE): Reached(share=0.36, accuracy=63.0),
}
CURVE = host_curve(REACHED, HOST, 92.0)


def test_a_host_is_read_off_its_curve_at_our_own_time() -> None:
    assert CURVE == [(0.36, 60.0), (0.5, 76.0), (1.0, 92.0)]
    assert REACHED[0.5, OURS].above(CURVE) == pytest.approx(79.0 - (76.0 + 16.0 * 0.1))
    assert REACHED[0.35, OURS].above(CURVE) == pytest.approx(70.0 - 68.0)


def test_a_host_that_was_not_trained_has_no_curve() -> None:
    assert host_curves(REACHED, 92.0) == {HOST: CURVE}


def test_multiples_and_ours_are_compared_by_their_leads_over_the_host() -> None:
    at = {name: found for (share, name), found in REACHED.items() if share == 0.5}
    curves = {HOST: CURVE, "host taylor global": [(0.3, 78.0), (1.0, 78.0)]}
    found = leads(0.5, at, curves)
    assert found["tailprune better over the host, l1 local at 50%"]["value"] == pytest.approx(1.4)
    assert found["tailprune better over the best multiple, l1 local at 50%"]["value"] == pytest.approx(1.4 - 3.0)
    assert found["best of ours over the strongest host at 50%"]["value"] == pytest.approx(1.0)
    assert found["best of ours over the strongest host at 50%"]["ok"] is True


def test_time_beyond_the_host_is_said() -> None:
    assert most_time_beyond_host(REACHED) == pytest.approx(0.43 / 0.36 - 1)
