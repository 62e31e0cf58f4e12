"""One contract for whatever expects steps before they are measured."""

from __future__ import annotations

import pytest

from tailprune.core.protocols import WidthProposer
from tailprune.core.shapes import LayerShape
from tailprune.filling import ModelledEdges
from tailprune.tables import LatencyTable
from tailprune.waves import SimulatedTimer, WaveModel, load_device

LAYER = LayerShape(op="linear", batch=4096, in_channels=512, out_channels=512, dtype="float16")
GRID = range(8, 513, 8)


def calls_at(width: int) -> list[tuple[LayerShape, int]]:
    return [(LAYER.with_channels(out_channels=width), 2)]


def of_a_wave_model() -> ModelledEdges:
    return ModelledEdges(WaveModel(load_device("h200")))


def of_an_empty_table() -> ModelledEdges:
    return ModelledEdges(LatencyTable.in_memory(SimulatedTimer(load_device("h200")).environment))


@pytest.fixture(params=[of_a_wave_model, of_an_empty_table], ids=["wave model", "empty table"])
def proposer(request: pytest.FixtureRequest) -> WidthProposer:
    return request.param()


def test_is_a_width_proposer(proposer: WidthProposer) -> None:
    assert isinstance(proposer, WidthProposer)


def test_proposes_widths_of_the_grid_ascending_and_the_same_again(proposer: WidthProposer) -> None:
    widths = list(proposer.edge_widths(calls_at, GRID))
    assert widths == sorted(set(widths))
    assert set(widths) <= set(GRID)
    assert widths == list(proposer.edge_widths(calls_at, GRID))


def test_knowing_nothing_is_proposing_nothing() -> None:
    assert list(of_an_empty_table().edge_widths(calls_at, GRID)) == []
    assert len(of_a_wave_model().edge_widths(calls_at, GRID)) >= 2


def test_expects_one_positive_latency_for_each_width_or_nothing_at_all(proposer: WidthProposer) -> None:
    us = list(proposer.expected_us(calls_at, GRID))
    assert len(us) in (0, len(GRID))
    assert all(value > 0 for value in us)
    assert us == list(proposer.expected_us(calls_at, GRID))


def test_a_source_that_lacks_one_width_expects_nothing() -> None:
    timer = SimulatedTimer(load_device("h200"))
    table = LatencyTable.in_memory(timer.environment)
    table.add_many(timer.time_many([LAYER.with_channels(out_channels=width) for width in GRID[:-1]]))
    assert list(ModelledEdges(table).expected_us(calls_at, GRID)) == []
    assert len(ModelledEdges(table).expected_us(calls_at, GRID[:-1])) == len(GRID) - 1
