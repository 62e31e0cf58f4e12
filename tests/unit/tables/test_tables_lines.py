"""Lines of a table, and which of their edges moved between two tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from tables_strategies import CONV, ENVIRONMENT, out

from tailprune.cli.moved_edges import compare_edges
from tailprune.core.sample import LatencySample
from tailprune.tables import LatencyTable, measured_lines


def stairs(edge: int, widths: Iterable[int]) -> LatencyTable:
    """10 us up to an edge, 15 us behind it."""
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many(
        LatencySample(shape=out(w), times_us=tuple((10.0 if w <= edge else 15.0) + d for d in (-0.01, 0.0, 0.01)))
        for w in widths
    )
    return table


def test_a_line_holds_every_width_of_one_axis_in_order() -> None:
    table = stairs(32, (64, 16, 32))
    (line,) = measured_lines(table).values()
    assert (line.axis, line.widths, line.latency_us) == ("out", (16, 32, 64), (10.0, 10.0, 15.0))
    assert line.shape == out(64)
    assert measured_lines(table, fewest=4) == {}


def test_depthwise_channels_are_one_axis_and_failures_no_point() -> None:
    depthwise = replace(CONV, in_channels=8, out_channels=8, conv_groups=8)
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many(
        LatencySample(shape=depthwise.with_channels(in_channels=w, out_channels=w), times_us=(1.0,))
        for w in (8, 16, 24)
    )
    table.add(
        LatencySample(shape=depthwise.with_channels(in_channels=32, out_channels=32), times_us=(), flags=("refused",))
    )
    (line,) = measured_lines(table).values()
    assert (line.axis, line.widths) == ("both", (8, 16, 24))
    assert str(line).endswith("along its channels")


def edges(a: LatencyTable, b: LatencyTable, of: Callable[[object], object] = lambda found: found) -> list[object]:
    return [of(found) for found in compare_edges(a, b)]


def test_an_edge_that_moved_is_named_on_both_sides() -> None:
    (found,) = compare_edges(stairs(32, range(16, 65, 4)), stairs(48, range(16, 65, 4)))
    assert (found.both, found.only_a, found.only_b, found.unknown, found.moved) == ((), (32,), (48,), (), True)


def test_an_edge_that_stayed_did_not_move() -> None:
    (found,) = compare_edges(stairs(32, range(16, 65, 4)), stairs(32, range(16, 65, 8)))
    assert not found.moved


def test_where_the_other_table_measured_too_little_nothing_is_claimed() -> None:
    """Only 16, 20 and 64 there: an edge lies somewhere between 20 and 64, and that may well be 32."""
    (found,) = compare_edges(stairs(32, range(16, 65, 4)), stairs(32, (16, 20, 64)))
    assert not found.moved
    assert (*found.unknown, *found.both) == (32,)


def test_flat_lines_and_lines_of_one_table_are_passed_over() -> None:
    assert edges(stairs(640, range(16, 65, 4)), stairs(640, range(16, 65, 4))) == []
    assert edges(stairs(32, range(16, 65, 4)), stairs(32, (16, 20))) == []
