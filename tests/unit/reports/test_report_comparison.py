"""Does the comparison claim only what the measured differences carry?"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.reports import Comparison, ComparisonRow
from tailprune.reports.notation import change, microseconds, percent, quantity

HOST = ComparisonRow(
    method="host", role="host", measured_us=1000.0, spread_us=10.0, accuracy_after=0.97, accuracy_noise=0.01
)
OURS = ComparisonRow(
    method="tailprune", role="ours", measured_us=800.0, spread_us=8.0, accuracy_after=0.96, accuracy_noise=0.01
)
RIVAL = ComparisonRow(
    method="multiples of 8", measured_us=810.0, spread_us=8.0, accuracy_after=0.97, accuracy_noise=0.01
)


def test_a_clear_gain_is_said_with_both_latencies():
    sentence = Comparison(rows=(HOST, OURS)).sentence
    assert "20.0 % below host" in sentence
    assert "800.0 ± 8.0 µs against 1,000 ± 10 µs" in sentence
    assert "difference within the noise" in sentence


def test_a_difference_inside_the_spreads_is_no_gain():
    close = dataclasses.replace(OURS, measured_us=985.0)
    assert "not measurably faster" in Comparison(rows=(HOST, close)).sentence
    assert Comparison(rows=(HOST, close)).unbeaten == (HOST,)


def test_being_slower_is_said():
    slow = dataclasses.replace(OURS, measured_us=1200.0)
    assert "tailprune is slower than host here, by 20.0 %" in Comparison(rows=(HOST, slow)).sentence


def test_a_rival_as_fast_is_admitted_and_a_slower_or_worse_one_is_not():
    assert [row.method for row in Comparison(rows=(HOST, RIVAL, OURS)).unbeaten] == ["multiples of 8"]
    assert "We do not win against multiples of 8" in Comparison(rows=(HOST, RIVAL, OURS)).caveats[0]
    slower = dataclasses.replace(RIVAL, measured_us=900.0)
    worse = dataclasses.replace(RIVAL, accuracy_after=0.80)
    unknown = dataclasses.replace(RIVAL, accuracy_after=None)
    assert Comparison(rows=(HOST, slower, OURS)).caveats == ()
    assert Comparison(rows=(HOST, worse, OURS)).caveats == ()
    assert Comparison(rows=(HOST, unknown, OURS)).caveats != ()


def test_lost_accuracy_is_admitted():
    worse = dataclasses.replace(OURS, accuracy_after=0.90)
    comparison = Comparison(rows=(HOST, worse))
    assert "difference beyond the noise" in comparison.sentence
    assert "less accurate than host" in comparison.caveats[0]


def test_without_a_measurement_nothing_is_claimed():
    guessed = dataclasses.replace(OURS, measured_us=None, predicted_us=500.0)
    comparison = Comparison(rows=(HOST, guessed))
    assert comparison.best is None
    assert "no result to claim" in comparison.sentence
    assert comparison.against_host(guessed) is None
    assert comparison.faster(guessed, HOST) is None
    assert comparison.caveats == ()


def test_the_prediction_error_is_relative_to_what_was_measured():
    assert dataclasses.replace(HOST, predicted_us=950.0).prediction_error == pytest.approx(-0.05)
    assert HOST.prediction_error is None


@pytest.mark.parametrize("rows", [(OURS,), (HOST, dataclasses.replace(HOST, method="host 2")), (HOST, OURS, OURS)])
def test_a_comparison_needs_one_host_and_names_of_its_own(rows):
    with pytest.raises(InvalidShape):
        Comparison(rows=rows)


def test_rows_refuse_impossible_values():
    with pytest.raises(InvalidShape, match="Unknown role 'winner' of tailprune; allowed: dense, host, rival, ours"):
        dataclasses.replace(OURS, role="winner")
    with pytest.raises(InvalidShape, match="measured_us of tailprune must be positive and finite, got nan"):
        dataclasses.replace(OURS, measured_us=float("nan"))


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 1e4), st.floats(0, 1e4))
def test_faster_is_antisymmetric(a, b, spread_a, spread_b):
    one = dataclasses.replace(OURS, measured_us=a, spread_us=spread_a)
    other = dataclasses.replace(RIVAL, measured_us=b, spread_us=spread_b)
    comparison = Comparison(rows=(HOST, one, other))
    there, back = comparison.faster(one, other), comparison.faster(other, one)
    assert (there is None) == (back is None)
    assert there is None or there is (not back)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (microseconds(21_930.4, spread=140.2), "21,930 ± 140 µs"),
        (microseconds(3.14159), "3.14 µs"),
        (microseconds(99.96, kind="held"), "≈100.0 µs"),
        (microseconds(5.0, kind="modelled"), "~5.00 µs"),
        (microseconds(None), "–"),
        (change(0.1), "+10.0 %"),
        (change(-0.0001), "0.0 %"),
        (change(None), "–"),
        (percent(1.0), "100.00 %"),
        (percent(None), "–"),
        (quantity(1_504_000_000), "1.50 G"),
        (quantity(305_000), "305 k"),
        (quantity(41_270), "41.3 k"),
        (quantity(999), "999"),
        (quantity(None), "–"),
    ],
)
def test_numbers_are_written_one_way(written, expected):
    assert written == expected
