"""Filling tables on simulated devices whose steps are known."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from tailprune.core.environment import Environment
from tailprune.core.errors import EnvironmentMismatch, InvalidShape, MissingLatency
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape, ceil_div
from tailprune.filling import fill_table, group_line, measure_missing, shard_of
from tailprune.steps import Staircase, detect_steps, group_curve
from tailprune.tables import LatencyTable

Latency = Callable[[LayerShape], float]


class Device:
    """Times shapes by a formula, with normal noise; refuses some; dies on request."""

    def __init__(self, latency: Latency, *, noise: float = 0.0, refuses: Callable[[LayerShape], bool] | None = None):
        self.latency, self.noise = latency, noise
        self.refuses = refuses or (lambda shape: False)
        self.dies_after: int | None = None
        self.calls: Counter[LayerShape] = Counter()
        self._random = np.random.default_rng(7)

    @property
    def environment(self) -> Environment:
        return Environment(device="a formula", runtime="simulated")

    def time(self, shape: LayerShape) -> LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        for shape in dict.fromkeys(shapes):
            if self.dies_after is not None and sum(self.calls.values()) >= self.dies_after:
                raise KeyboardInterrupt
            self.calls[shape] += 1
            if self.refuses(shape):
                yield LatencySample(shape=shape, times_us=(), flags=("refused",), note="no kernel")
                continue
            noise = 1 + self.noise * self._random.standard_normal(9)
            yield LatencySample(shape=shape, times_us=tuple(float(t) for t in self.latency(shape) * noise))


class Formula:
    """The same formula as an exact latency source."""

    origin = "a formula"

    def __init__(self, latency: Latency) -> None:
        self.latency_us = latency

    def kind(self, shape: LayerShape) -> str:
        return "modelled"


def tiles(period: int) -> Latency:
    """A GPU with output tiles of this many columns."""
    return lambda s: 5 + 0.002 * ceil_div(s.out_channels, period) * period * (s.in_channels + 16)


def vectors(period: int) -> Latency:
    """A CPU: steps of the vector width over a slope, linear along in."""
    return lambda s: (
        20 + 0.01 * (0.8 * ceil_div(s.out_channels, period) * period + 0.2 * s.out_channels) * (s.in_channels + 8)
    )


def network(widths: Sequence[int], *, granule: int = 1) -> ModelGraph:
    """A chain of 3x3 convolutions and a classifier."""
    layers, groups = [], []
    previous, channels = WidthExpr(constant=3), 3
    for index, width in enumerate(widths):
        shape = LayerShape(
            op="conv",
            batch=8,
            in_channels=channels,
            out_channels=width,
            in_hw=(14, 14),
            kernel_hw=(3, 3),
            padding_hw=(1, 1),
        )
        out = WidthExpr(terms=((f"g{index}", 1),))
        layers.append(Layer(name=f"conv{index}", shape=shape, in_expr=previous, out_expr=out))
        groups.append(ChannelGroup(id=f"g{index}", width=width, granule=granule, min_width=granule))
        previous, channels = out, width
    classifier = LayerShape(op="linear", batch=8, in_channels=channels, out_channels=10)
    layers.append(Layer(name="fc", shape=classifier, in_expr=previous, out_expr=WidthExpr(constant=10)))
    return ModelGraph(model="chain", layers=tuple(layers), groups=tuple(groups), input_shape=(8, 3, 14, 14))


def fresh(device: Device) -> LatencyTable:
    return LatencyTable.in_memory(device.environment)


def staircases(graph: ModelGraph, source: object, min_riser: float = 0.02) -> dict[str, Staircase]:
    return {
        group.id: detect_steps(group_curve(graph, group.id, source), min_riser=min_riser)  # type: ignore[arg-type]
        for group in graph.prunable_groups
    }


def test_measure_missing_times_each_distinct_shape_once() -> None:
    device = Device(tiles(64))
    table = fresh(device)
    shapes = [LayerShape(op="linear", batch=1, in_channels=8, out_channels=n) for n in (8, 16, 8, 24)]
    seen: list[tuple[int, int, str]] = []
    assert measure_missing(table, shapes, device, progress=lambda *state: seen.append(state)) == 3
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert measure_missing(table, shapes, device) == 0
    assert set(device.calls.values()) == {1}


def test_a_kill_loses_nothing_that_was_yielded_and_the_next_run_goes_on() -> None:
    graph, device = network([64, 96]), Device(tiles(32))
    table = fresh(device)
    device.dies_after = 25
    with pytest.raises(KeyboardInterrupt):
        fill_table(table, graph, device)
    assert len(table) == 25
    device.dies_after = None
    fill_table(table, graph, device)
    assert set(device.calls.values()) == {2}  # to find out where to look, and together
    straight = fresh(device)
    assert fill_table(straight, graph, Device(tiles(32))).timed == len(table)


@pytest.mark.parametrize(
    ("latency", "noise", "riser"),
    [
        (tiles(64), 0.0, 0.03),
        (tiles(64), 0.005, 0.03),
        (tiles(24), 0.005, 0.03),
        (vectors(16), 0.0, 0.03),
        (vectors(16), 0.005, 0.03),
        (tiles(64), 0.02, 0.08),
        (vectors(16), 0.02, 0.08),
    ],
)
def test_known_risers_are_found_at_the_exact_width(latency: Latency, noise: float, riser: float) -> None:
    graph, device = network([64, 128, 256, 512]), Device(latency, noise=noise)
    table = fresh(device)
    report = fill_table(table, graph, device)
    true = staircases(graph, Formula(latency), min_riser=riser)
    any_true = staircases(graph, Formula(latency), min_riser=0.01)
    found = staircases(graph, table)
    expected = {(g, edge.high) for g, s in true.items() for edge in s.edges}
    confirmed = {(g, width) for g, s in found.items() for width in s.confirmed_edges}
    assert len(expected) >= 5
    assert expected <= confirmed
    false = confirmed - {(g, edge.high) for g, s in any_true.items() for edge in s.edges}
    assert len(false) <= (1 if noise > 0.01 else 0)  # one curve in a hundred at 99 % confidence
    assert report.timed <= 0.5 * report.line_cells
    assert report.timed <= 0.01 * report.grid_cells


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_second_fill_times_nothing(noise: float) -> None:
    graph, device = network([64, 128, 256]), Device(vectors(16), noise=noise)
    table = fresh(device)
    first = fill_table(table, graph, device)
    assert first.timed == len(table)
    again = fill_table(table, graph, device)
    assert (again.timed, again.retimed) == (0, 0)


def test_the_device_teaches_its_period_once() -> None:
    graph = network([512, 384, 256, 256, 512])
    device = Device(tiles(64))
    assert fill_table(fresh(device), graph, device).period == 64
    device = Device(lambda shape: 50.0)
    flat = fill_table(fresh(device), graph, device)
    assert flat.period == 64  # no edges at all: still looked for
    device = Device(tiles(24))
    assert fill_table(fresh(device), graph, device).period == 8


def test_held_answers_are_right_and_never_cross_an_edge() -> None:
    graph, latency = network([128, 256]), tiles(64)
    device = Device(latency)
    table = fresh(device)
    assert fill_table(table, graph, device).held > 0
    held = missing = 0
    for group in graph.prunable_groups:
        for width in group.grid:
            for _, shape in group_line(graph, group.id, width):
                try:
                    assert table.latency_us(shape) == pytest.approx(latency(shape), rel=1e-9)
                    held += table.kind(shape) == "held"
                except MissingLatency:
                    missing += 1
    assert held > 100
    assert missing > 0  # along in the latency slopes, and a slope is not a plateau


def test_downward_steps_hidden_from_the_seeds_are_bisected() -> None:
    """A kernel switch at a width no period explains."""

    def latency(shape: LayerShape) -> float:
        return tiles(64)(shape) * (0.7 if shape.out_channels >= 301 else 1.0)

    graph, device = network([512]), Device(latency)
    table = fresh(device)
    fill_table(table, graph, device)
    steps, true = (
        {edge.high: edge for edge in staircases(graph, source)["g0"].edges} for source in (table, Formula(latency))
    )
    assert set(steps) == set(true)
    assert true[300].riser < -0.05
    assert steps[300].riser == pytest.approx(true[300].riser, abs=0.005)
    assert steps[300].verdict == "confirmed"


def test_a_refused_shape_is_skipped_reported_and_not_tried_again() -> None:
    graph = network([64, 128])
    device = Device(tiles(64), refuses=lambda shape: shape.out_channels == 65)
    table = fresh(device)
    report = fill_table(table, graph, device)
    assert len(report.failed) == 1
    assert "3x3 64->65" in report.failed[0]
    assert "1 could not be run" in report.summary()
    fill_table(table, graph, device)
    assert [calls for shape, calls in device.calls.items() if shape.out_channels == 65] == [1]
    steps = detect_steps(group_curve(graph, "g1", table))
    edge = next(edge for edge in steps.edges if edge.high == 64)
    assert edge.verdict == "ambiguous"  # its other side cannot be known here
    with pytest.raises(MissingLatency):
        table.latency_us(next(shape for shape in device.calls if shape.out_channels == 65))


def test_a_group_the_device_always_refuses_leaves_no_staircase_and_no_error() -> None:
    graph, device = network([64]), Device(tiles(64), refuses=lambda shape: True)
    report = fill_table(fresh(device), graph, device)
    assert report.held == 0
    assert len(report.failed) == report.timed > 0


def test_short_lines_are_measured_in_full_and_repeated_blocks_once() -> None:
    graph = network([128, 128, 128], granule=8)
    device = Device(tiles(64))
    table = fresh(device)
    report = fill_table(table, graph, device)
    assert report.timed == report.line_cells
    assert all(group_curve(graph, g.id, table).widths == tuple(g.grid) for g in graph.prunable_groups)
    assert set(device.calls.values()) == {1}


def test_edges_in_doubt_are_timed_again_and_counted_apart() -> None:
    graph, device = network([256, 512]), Device(tiles(64), noise=0.04)
    table = fresh(device)
    report = fill_table(table, graph, device)
    assert report.retimed > 0
    assert sum(device.calls.values()) == report.timed + report.retimed
    assert max(device.calls.values()) == 3  # to find out where to look, beside the line, and once more in doubt


class Wobbling(Device):
    """A device whose speed differs from one batch of shapes to the next, by up to 4 %."""

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        level = 1 + 0.04 * self._random.random()
        for sample in super().time_many(shapes):
            yield dataclasses.replace(sample, times_us=tuple(level * us for us in sample.times_us))


@pytest.mark.parametrize("latency", [tiles(64), vectors(16)])
def test_a_machine_that_is_faster_in_one_minute_than_in_the_next_makes_no_steps_and_hides_none(
    latency: Latency,
) -> None:
    graph, device = network([64, 128, 256, 512]), Wobbling(latency, noise=0.002)
    table = fresh(device)
    fill_table(table, graph, device)
    true = {(g, edge.high) for g, s in staircases(graph, Formula(latency), 0.04).items() for edge in s.edges}
    any_true = {(g, edge.high) for g, s in staircases(graph, Formula(latency), 0.01).items() for edge in s.edges}
    shared = {
        (group.id, group.width - 1) for group in graph.groups
    }  # the dense width lies on the next group's line, too
    found = {(g, width) for g, s in staircases(graph, table).items() for width in s.confirmed_edges}
    assert len(true) >= 5
    assert true <= found <= any_true | shared


def test_what_is_timed_on_the_way_is_outranked_as_every_shape_is_then_visited_beside_its_line() -> None:
    graph, device = network([64, 96]), Device(tiles(32))
    table = fresh(device)
    report = fill_table(table, graph, device)
    assert {tuple("afresh" in visit.flags for visit in table.visits(s.shape)) for s in table.samples()} == {
        (False, True)
    }
    assert report.retimed == report.timed


def test_a_shape_on_a_long_and_a_short_line_gets_a_visit_that_counts_whichever_is_filled_first() -> None:
    """Two layers share the shape 64 -> 64: one line runs along out, searched; the other has 8 widths."""
    graph = network([64, 64], granule=1)
    short = ModelGraph(
        model="short", layers=graph.layers, input_shape=graph.input_shape,
        groups=tuple(ChannelGroup(id=g.id, width=g.width, granule=8, min_width=8) for g in graph.groups),
    )  # fmt: skip
    for order in ((graph, short), (short, graph)):
        device = Device(tiles(32))
        table = fresh(device)
        for each in order:
            fill_table(table, each, device)
        assert all("afresh" in sample.flags for sample in table.samples())
        again = [fill_table(table, each, device) for each in order]
        assert [(report.timed, report.retimed) for report in again] == [(0, 0), (0, 0)]


def test_a_riser_before_the_first_aligned_width_is_found() -> None:
    def latency(shape: LayerShape) -> float:
        return tiles(32)(shape) * (0.6 if shape.out_channels <= 2 else 1.0)

    graph, device = network([256]), Device(latency)
    table = fresh(device)
    fill_table(table, graph, device)
    assert 2 in staircases(graph, table)["g0"].confirmed_edges


def test_groups_and_fixed_widths_choose_the_lines() -> None:
    graph, device = network([64, 64, 64]), Device(tiles(32))
    table = fresh(device)
    fill_table(table, graph, device, groups=["g1"], widths={"g0": 40, "g2": 24})
    assert {shape.in_channels for shape in device.calls if shape.out_channels == 24} <= set(range(1, 65))
    assert {shape.in_channels for shape in device.calls if shape.out_channels != 24} == {40}
    assert group_curve(graph, "g1", table, at={"g0": 40, "g2": 24})
    with pytest.raises(InvalidShape, match="no channel group 'g9'"):
        fill_table(table, graph, device, groups=["g9"])


def test_a_frozen_group_has_no_line() -> None:
    graph = network([64])
    frozen = ModelGraph(
        model="frozen",
        layers=graph.layers,
        groups=(ChannelGroup(id="g0", width=64, prunable=False, reason="it is the output"),),
        input_shape=graph.input_shape,
    )
    device = Device(tiles(32))
    assert fill_table(fresh(device), frozen, device).lines == 0
    with pytest.raises(InvalidShape, match="it is the output"):
        fill_table(fresh(device), frozen, device, groups=["g0"])


def test_a_table_of_another_environment_is_refused() -> None:
    table = LatencyTable.in_memory(Environment(device="another machine", runtime="simulated"))
    with pytest.raises(EnvironmentMismatch, match="device is 'another machine' in the table and 'a formula' here"):
        fill_table(table, network([16]), Device(tiles(8)))
    with pytest.raises(EnvironmentMismatch, match="another table"):
        measure_missing(table, [], Device(tiles(8)))


def test_progress_counts_up_and_ends_at_its_estimate() -> None:
    seen: list[tuple[int, int, str]] = []
    device = Device(tiles(64))
    report = fill_table(fresh(device), network([64, 128]), device, progress=lambda *state: seen.append(state))
    assert [done for done, _, _ in seen] == list(range(1, report.timed + report.retimed + 1))
    assert all(done <= total for done, total, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    halfway = [total for done, total, _ in seen if done == report.timed]
    assert halfway == [report.timed + report.retimed]  # once it knows all shapes it knows that each comes round again
    assert "group g" in seen[0][2]


def test_grid_cells_count_every_pair_of_widths() -> None:
    device = Device(tiles(8))
    report = fill_table(fresh(device), network([4, 6]), device)
    assert report.grid_cells == 4 + 4 * 6 + 6


def test_shards_share_the_work() -> None:
    items = list(range(10))
    shards = [shard_of(items, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(item for shard in shards for item in shard) == items
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(InvalidShape, match="i/n"):
            shard_of(items, wrong)
