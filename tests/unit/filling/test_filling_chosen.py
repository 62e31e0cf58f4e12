"""Decisions over measured and proposed latencies: whatever is chosen is measured, and few of the others are."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest

import tailprune
from tailprune.core.environment import Environment
from tailprune.core.errors import MissingLatency
from tailprune.core.graph import ChannelGroup, Layer, WidthExpr
from tailprune.core.protocols import LatencySource
from tailprune.core.sample import LatencySample
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.core.shapes import LayerShape, ceil_div
from tailprune.filling import measure_chosen, measure_while, plan_shapes
from tailprune.filling.chosen import MeasuredElseProposed
from tailprune.tables import LatencyTable

LAYER = LayerShape(op="conv", batch=8, in_channels=256, out_channels=256, in_hw=(14, 14))
WIDTHS = range(8, 257, 8)
CELLS = [LAYER.with_channels(in_channels=i, out_channels=o) for i in WIDTHS for o in WIDTHS]


class Formula:
    """Times shapes by a formula without noise; refuses some."""

    environment = Environment(device="a formula", runtime="simulated")

    def __init__(self, latency: Callable[[int, int], float], refused: frozenset[LayerShape] = frozenset()) -> None:
        self.latency, self.refused, self.asked = latency, refused, list[LayerShape]()

    def time(self, shape: LayerShape) -> LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        for shape in shapes:
            self.asked.append(shape)
            if shape in self.refused:
                yield LatencySample(shape=shape, times_us=(), flags=("refused",))
            else:
                yield LatencySample(shape=shape, times_us=(self.latency(shape.in_channels, shape.out_channels),))


def waves(i: int, o: int) -> float:
    return 5 + ceil_div(o, 64) * (2 + 0.05 * ceil_div(i, 32) * 32) + 0.01 * o


def priced(source: LatencySource, shapes: Sequence[LayerShape]) -> dict[LayerShape, float]:
    """What a planner does: every price, or all that is missing at once."""
    prices, lacking = dict[LayerShape, float](), list[LayerShape]()
    for shape in shapes:
        try:
            prices[shape] = source.latency_us(shape)
        except MissingLatency as error:
            lacking += error.shapes
    if lacking:
        raise MissingLatency("These are missing.", tuple(lacking))
    return prices


def largest(source: LatencySource, limit_us: float = 20) -> LayerShape:
    prices = priced(source, CELLS)
    return max((s for s in CELLS if prices[s] <= limit_us), key=lambda s: (s.in_channels * s.out_channels, -prices[s]))


def test_a_large_table_is_proposed_and_the_choice_is_measured_and_right() -> None:
    timer = Formula(waves)
    table = LatencyTable.in_memory(timer.environment)
    choice = measure_chosen(table, timer, largest, lambda shape: [shape])
    assert table.kind(choice) == "measured"
    assert len(table) < len(CELLS) / 7
    exact = Formula(waves)
    full = LatencyTable.in_memory(exact.environment)
    assert choice == measure_while(full, exact, lambda: largest(full))
    assert len(full) == len(CELLS)


def test_a_second_decision_over_the_same_table_times_nothing() -> None:
    timer = Formula(waves)
    table = LatencyTable.in_memory(timer.environment)
    first = measure_chosen(table, timer, largest, lambda shape: [shape])
    count = len(timer.asked)
    assert measure_chosen(table, timer, largest, lambda shape: [shape]) == first
    assert len(timer.asked) == count == len(set(timer.asked))


def test_a_few_cells_are_measured_not_proposed() -> None:
    timer = Formula(waves)
    table = LatencyTable.in_memory(timer.environment)
    few = [LAYER.with_channels(in_channels=i, out_channels=o) for i in (64, 128, 192) for o in (64, 128, 192, 256)]
    source = MeasuredElseProposed(table)
    assert source.learn(few, timer)
    assert set(timer.asked) == set(few)
    assert source.origin == table.origin


def test_every_answer_says_what_it_is() -> None:
    timer = Formula(waves)
    table = LatencyTable.in_memory(timer.environment)
    source = MeasuredElseProposed(table)
    assert isinstance(source, LatencySource)
    assert source.learn(CELLS, timer)
    kinds = {shape: source.kind(shape) for shape in CELLS}
    assert {shape for shape, kind in kinds.items() if kind == "measured"} == {s.shape for s in table.samples()}
    assert set(kinds.values()) == {"measured", "modelled"}
    assert (
        "in 1 layers widths that were not chosen had latencies proposed from lines, off by 0.0% at most"
        in source.origin
    )
    assert all(source.noise_us(shape) == pytest.approx(0, abs=1e-9) for shape in CELLS)


def test_a_proposal_that_is_too_fast_loses_its_choice_once_measured() -> None:
    """One cell in a thousand is slow; the checks do not meet it, the decision does."""
    slow = largest(MeasuredElseProposed(_all_measured()))
    trap = Formula(lambda i, o: waves(i, o) * (4 if (i, o) == (slow.in_channels, slow.out_channels) else 1))
    table = LatencyTable.in_memory(trap.environment)
    choice = measure_chosen(table, trap, largest, lambda shape: [shape])
    assert slow in table
    assert choice != slow
    assert table.latency_us(choice) <= 20


def test_where_no_proposal_holds_all_is_measured_and_nothing_is_said_of_proposals() -> None:
    wild = Formula(lambda i, o: 10.0 + zlib.crc32(f"{i} {o}".encode()) % 20)
    table = LatencyTable.in_memory(wild.environment)
    source = MeasuredElseProposed(table)
    assert source.learn(CELLS, wild)
    rest = [shape for shape in CELLS if shape not in table]
    assert source.learn(rest, wild) or not rest
    assert all(source.kind(shape) == "measured" for shape in CELLS)
    assert source.origin == table.origin


def test_what_cannot_be_measured_is_an_error() -> None:
    timer = Formula(waves, refused=frozenset(CELLS))
    table = LatencyTable.in_memory(timer.environment)
    with pytest.raises(MissingLatency):
        measure_chosen(table, timer, largest, lambda shape: [shape])
    assert len(timer.asked) == len(set(timer.asked))


def test_a_plan_over_every_multiple_is_the_one_of_the_full_table() -> None:
    """Two convolutions that share three groups of widths; every latency that the plan states is measured."""
    graph = _chain(256, 256, 256)
    scores = ChannelScores(
        method="by hand",
        groups=tuple(
            GroupScores(
                group=g.id,
                scores=tuple(float(v) for v in range(g.width, 0, -1)),
                scope="net",
                host_kept=tuple(range(128)),
            )
            for g in graph.groups
        ),
    )

    def decide(source: LatencySource) -> tailprune.WidthPlan:
        return tailprune.plan_widths(graph, scores, latency=source, policy="reallocate", every=8)

    timers = Formula(waves), Formula(waves)
    complete, lean = (LatencyTable.in_memory(timer.environment) for timer in timers)
    for table, timer in zip((complete, lean), timers, strict=True):
        tailprune.fill_table(table, graph, timer)
    full = measure_while(complete, timers[0], lambda: decide(complete))
    proposed = measure_chosen(lean, timers[1], decide, lambda plan: plan_shapes(graph, plan))
    assert all(lean.kind(shape) == "measured" for shape in plan_shapes(graph, proposed))
    assert len(lean) < len(complete) / 3
    assert proposed.latency_kind == "measured"
    assert "proposed" in proposed.latency_origin and "proposed" not in full.latency_origin
    assert proposed.widths == full.widths


def _all_measured() -> LatencyTable:
    timer = Formula(waves)
    table = LatencyTable.in_memory(timer.environment)
    table.add_many(timer.time_many(CELLS))
    return table


def _chain(*widths: int) -> tailprune.ModelGraph:
    """Convolutions in a row; the last width stands still."""
    names = [f"w{index}" for index in range(len(widths))]
    layers = tuple(
        Layer(
            name=f"conv{index}",
            shape=LAYER.with_channels(in_channels=ins, out_channels=outs),
            in_expr=WidthExpr(terms=((names[index], 1),)),
            out_expr=WidthExpr(terms=((names[index + 1], 1),)),
        )
        for index, (ins, outs) in enumerate(pairwise(widths))
    )
    groups = tuple(ChannelGroup(id=n, width=w, granule=8, min_width=8) for n, w in zip(names, widths, strict=True))
    return tailprune.ModelGraph(model="a chain", layers=layers, groups=groups, input_shape=(8, 256, 14, 14))
