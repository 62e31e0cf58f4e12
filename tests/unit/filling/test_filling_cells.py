"""Cells of an in x out table proposed from lines: exact where the device is simple, checked where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.protocols import FirstOf, LatencySource
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape, ceil_div
from tailprune.filling import measure_missing, propose_cells
from tailprune.filling.cells import same_layer
from tailprune.tables import LatencyTable

LAYER = LayerShape(op="conv", batch=8, in_channels=256, out_channels=256, in_hw=(14, 14))
WIDTHS = range(8, 257, 8)


class Exact:
    """Times shapes by a formula without noise; refuses some."""

    environment = Environment(device="an exact formula", runtime="simulated")

    def __init__(
        self, latency: Callable[[int, int], float], refuses: Callable[[LayerShape], bool] = lambda shape: False
    ):
        self.latency, self.refuses = latency, refuses
        self.asked: list[LayerShape] = []

    def time(self, shape: LayerShape) -> LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        for shape in shapes:
            self.asked.append(shape)
            if self.refuses(shape):
                yield LatencySample(shape=shape, times_us=(), flags=("refused",))
            else:
                yield LatencySample(shape=shape, times_us=(self.latency(shape.in_channels, shape.out_channels),))


def waves(i: int, o: int) -> float:
    """Whole waves of tiles of 64 columns, each as long as k: no rank-one table, yet two lines tell all."""
    return 5 + ceil_div(o, 64) * (2 + 0.05 * ceil_div(i, 32) * 32) + 0.01 * o


def table_of(timer: Exact) -> LatencyTable:
    return LatencyTable.in_memory(timer.environment)


def propose(timer: Exact, table: LatencyTable, **options: float):
    return propose_cells(table, LAYER, timer, in_widths=WIDTHS, out_widths=WIDTHS, **options)


def cells(skip: LatencyTable) -> list[LayerShape]:
    every = (LAYER.with_channels(in_channels=i, out_channels=o) for i in WIDTHS for o in WIDTHS)
    return [shape for shape in every if shape not in skip]


def test_three_lines_tell_the_rest_and_every_answer_says_so() -> None:
    timer = Exact(waves)
    table = table_of(timer)
    found = propose(timer, table)
    assert isinstance(found, LatencySource)
    rest = cells(table)
    assert len(table) <= 3 * len(WIDTHS) + 6 < len(rest) / 7
    for shape in rest:
        assert found.latency_us(shape) == pytest.approx(waves(shape.in_channels, shape.out_channels), rel=1e-6)
        assert found.kind(shape) == "modelled"
        with pytest.raises(MissingLatency):
            table.latency_us(shape)  # a proposal never enters the table
    assert found.max_error < 1e-9


def test_a_failed_check_measures_more() -> None:
    """Behind 100 channels another kernel takes over, with other steps along out."""

    def switched(i: int, o: int) -> float:
        return waves(i, o) if i <= 100 else 3 + ceil_div(o, 96) * (1 + 0.09 * i)

    timer = Exact(switched)
    table = table_of(timer)
    found = propose(timer, table, tolerance=0.02)
    assert len(found.segments) >= 2
    assert len(table) < 0.6 * len(WIDTHS) ** 2
    errors = []
    for shape in cells(table):
        try:
            errors.append(abs(found.latency_us(shape) / switched(shape.in_channels, shape.out_channels) - 1))
        except MissingLatency:
            continue
    assert errors
    assert sum(error <= 0.02 for error in errors) >= 0.9 * len(errors)


def test_off_the_lines_nothing_is_proposed() -> None:
    timer = Exact(waves)
    found = propose(timer, table_of(timer))
    for wrong in (
        LAYER.with_channels(in_channels=100),
        LAYER.with_channels(out_channels=100),
        LAYER.with_channels(out_channels=512),
        LAYER.with_channels(in_channels=512),
        LayerShape(op="conv", batch=4, in_channels=64, out_channels=64, in_hw=(14, 14)),
    ):
        with pytest.raises(MissingLatency, match="measure it"):
            found.latency_us(wrong)


def test_a_refused_line_leaves_its_segment_without_proposals() -> None:
    timer = Exact(waves, refuses=lambda shape: shape.in_channels == 8)
    found = propose(timer, table_of(timer))
    assert not found.segments
    with pytest.raises(MissingLatency):
        found.latency_us(LAYER.with_channels(in_channels=64, out_channels=64))


def test_the_measured_comes_before_the_proposed_and_a_second_call_times_nothing() -> None:
    timer = Exact(waves)
    table = table_of(timer)
    found = propose(timer, table)
    source, count = FirstOf(table, found), len(timer.asked)
    assert source.kind(LAYER) == "measured"
    assert source.kind(LAYER.with_channels(in_channels=64, out_channels=72)) in ("measured", "modelled")
    propose(timer, table)
    assert len(timer.asked) == count == len(set(timer.asked))


def test_lines_that_are_measured_frame_the_cells_and_are_not_measured_again() -> None:
    """A plan asks for inner widths only; the dense lines around them are in the table already."""
    timer = Exact(waves)
    table = table_of(timer)
    inner = range(96, 193, 8)
    dense = [LAYER.with_channels(out_channels=o) for o in (*inner, 256)]
    across = [LAYER.with_channels(in_channels=i) for i in (*inner, 256)]
    measure_missing(table, [*dense, *across], timer)
    before = len(table)
    found = propose_cells(table, LAYER, timer, in_widths=inner, out_widths=inner)
    assert (found.in_widths[0], found.in_widths[-1], found.full) == (96, 256, 256)
    assert len(table) == before + len(inner) + 6  # one out-line, at 96, and the checks


def test_what_was_measured_since_checks_the_proposals_too() -> None:
    timer = Exact(lambda i, o: waves(i, o) * (3 if (i, o) == (64, 72) else 1))
    table = table_of(timer)
    first = propose(timer, table)
    assert first.segments == {(8, 256): first.max_error}
    measure_missing(table, [LAYER.with_channels(in_channels=64, out_channels=72)], timer)
    assert (8, 256) not in propose(timer, table).segments


def test_grouped_convolutions_and_other_layers_do_not_mix() -> None:
    grouped = LayerShape(op="conv", batch=1, in_channels=64, out_channels=64, in_hw=(6, 6), conv_groups=4)
    plain = LayerShape(op="conv", batch=1, in_channels=64, out_channels=64, in_hw=(6, 6))
    linear = LayerShape(op="linear", batch=1, in_channels=64, out_channels=64)
    assert same_layer(grouped.with_channels(in_channels=8), grouped)
    assert not any(same_layer(a, b) for a, b in permutations((grouped, plain, linear), 2))


def test_layers_without_a_table_and_no_widths_are_refused() -> None:
    timer = Exact(waves)
    depthwise = LayerShape(op="conv", batch=1, in_channels=8, out_channels=8, in_hw=(6, 6), conv_groups=8)
    with pytest.raises(InvalidShape, match="no in x out table"):
        propose_cells(table_of(timer), depthwise, timer, in_widths=[8], out_widths=[8])
    with pytest.raises(InvalidShape, match="at least one width each way, got 0 in and 1 out"):
        propose_cells(table_of(timer), LAYER, timer, in_widths=[], out_widths=[256])


@settings(max_examples=25)
@given(
    tile=st.sampled_from([16, 48, 64, 128]),
    fixed=st.floats(0.5, 20),
    per_k=st.floats(0.001, 0.2),
    slice_k=st.sampled_from([1, 8, 32]),
)
def test_any_device_of_fixed_tiles_is_proposed_exactly(tile: int, fixed: float, per_k: float, slice_k: int) -> None:
    timer = Exact(lambda i, o: 3 + ceil_div(o, tile) * (fixed + per_k * ceil_div(i, slice_k) * slice_k))
    table = table_of(timer)
    found = propose(timer, table)
    assert len(found.segments) == 1
    shape = cells(table)[17]
    assert found.latency_us(shape) == pytest.approx(timer.latency(shape.in_channels, shape.out_channels), rel=1e-6)
