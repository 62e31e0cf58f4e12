"""Where a timer comes alone, layers are timed into a table of this process."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.pruning import TailAwarePruner
from tailprune.pruning.prune import source_for
from tailprune.tables import LatencyTable
from tailprune.timing import DeviceTimer
from tailprune.waves import SimulatedTimer, load_device


def test_a_timer_alone_gets_an_empty_table_of_its_environment() -> None:
    for asked in (DeviceTimer("cpu"), SimulatedTimer(load_device("h200"))):
        table, timer = source_for(None, asked)
        assert isinstance(table, LatencyTable)
        assert timer is asked
        assert table.environment == asked.environment
        assert len(table) == 0


def test_what_was_given_stays() -> None:
    timer = DeviceTimer("cpu")
    table = LatencyTable.in_memory(timer.environment)
    assert source_for(table, timer) == (table, timer)
    assert source_for(table, None) == (table, None)
    with pytest.raises(InvalidShape, match="A latency source or a timer is needed"):
        source_for(None, None)


def test_the_wrapped_pruner_asks_for_it() -> None:
    model, images = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10)), torch.zeros(1, 16)
    host = tp.pruner.MagnitudePruner(model, images, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.5,
                                     ignored_layers=[model[2]])  # fmt: skip
    timer = DeviceTimer("cpu")
    pruner = TailAwarePruner(host, timer=timer, example_inputs=images)
    assert pruner.timer is timer
    assert isinstance(pruner.latency, LatencyTable)
    assert pruner.latency.environment == timer.environment
