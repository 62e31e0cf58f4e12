"""A filling that was stopped, at any sample, ends with the table of one that was not."""

from __future__ import annotations

import random

import pytest

from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.filling import fill_table
from tailprune.tables import LatencyTable
from tailprune.waves import SimulatedTimer, load_device


class Stopped(Exception):
    pass


def network() -> ModelGraph:
    """Two convolutions in a row: the group between them and the one behind them can be pruned."""
    first = LayerShape(
        op="conv", batch=16, in_channels=64, out_channels=320, in_hw=(14, 14), kernel_hw=(3, 3), dtype="float16"
    )
    second = LayerShape(op="conv", batch=16, in_channels=320, out_channels=192, in_hw=(12, 12), dtype="float16")
    width = {"a": WidthExpr(terms=(("a", 1),)), "b": WidthExpr(terms=(("b", 1),))}
    return ModelGraph(
        model="two layers", input_shape=(16, 64, 14, 14),
        layers=(Layer(name="first", shape=first, in_expr=WidthExpr(constant=64), out_expr=width["a"]),
                Layer(name="second", shape=second, in_expr=width["a"], out_expr=width["b"])),
        groups=(ChannelGroup(id="a", width=320, producers=("first",), consumers=("second",)),
                ChannelGroup(id="b", width=192, producers=("second",))),
    )  # fmt: skip


def fill(table: LatencyTable, most: int | None = None) -> None:
    """In a process of its own: a new timer, which knows nothing of the visits before. Stopped after `most` samples."""
    taken = 0

    def count(done: int, total: int, what: str) -> None:
        nonlocal taken
        taken += 1
        if taken == most:
            raise Stopped

    fill_table(table, network(), SimulatedTimer(load_device("h200"), noise=0.02, seed=5), progress=count)


@pytest.fixture(scope="module")
def undisturbed() -> LatencyTable:
    table = LatencyTable.in_memory(SimulatedTimer(load_device("h200")).environment)
    fill(table)
    assert any(len(table.visits(sample.shape)) > 1 for sample in table.samples()), "nothing was timed twice: too easy"
    return table


@pytest.mark.parametrize("seed", range(6))
def test_stopped_again_and_again_it_ends_with_the_same_visits(undisturbed: LatencyTable, seed: int) -> None:
    draw, table = random.Random(seed), LatencyTable.in_memory(undisturbed.environment)
    stops = 0
    while True:
        try:
            fill(table, most=draw.randint(1, 25))
            break
        except Stopped:
            stops += 1
    assert stops
    assert table.visits() == undisturbed.visits()
    assert table.held == undisturbed.held


def test_what_else_the_table_holds_changes_nothing(undisturbed: LatencyTable) -> None:
    table = LatencyTable.in_memory(undisturbed.environment)
    timer = SimulatedTimer(load_device("h200"), noise=0.02, seed=5)
    layer = network().layers[0].shape
    others = [layer.with_channels(out_channels=width) for width in range(1, 320, 7)]
    table.add_many(timer.resume_many(others, table))
    fill(table)
    assert {visit for visit in table.visits() if visit.shape not in others} == {
        visit for visit in undisturbed.visits() if visit.shape not in others
    }


def test_a_full_table_is_asked_nothing(undisturbed: LatencyTable) -> None:
    before = undisturbed.visits()
    fill(undisturbed, most=1)
    assert undisturbed.visits() == before
