"""Where a timer comes alone, layers are timed as their network leaves a CPU's caches."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.pruning import TailAwarePruner
from tailprune.pruning.prune import source_for
from tailprune.tables import LatencyTable
from tailprune.timing import DeviceTimer, l2_for
from tailprune.tracing import trace_model
from tailprune.waves import SimulatedTimer, load_device


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 10))


def test_a_device_timer_alone_times_within_the_network() -> None:
    graph = trace_model(wide(), torch.zeros(1, 1024))
    table, timer = source_for(None, DeviceTimer("cpu"), lambda: graph)
    assert isinstance(table, LatencyTable) and timer is not None
    assert table.environment == timer.environment
    assert table.environment.l2 == l2_for(graph) != DeviceTimer("cpu").environment.l2


def test_what_was_given_stays() -> None:
    def never() -> None:
        raise AssertionError("nothing has to be traced")

    timer = DeviceTimer("cpu")
    table = LatencyTable.in_memory(timer.environment)
    assert source_for(table, timer, never) == (table, timer)  # type: ignore[arg-type]
    assert source_for(table, None, never) == (table, None)  # type: ignore[arg-type]
    simulated = SimulatedTimer(load_device("h200"))
    assert source_for(None, simulated, never)[1] is simulated  # type: ignore[arg-type]
    with pytest.raises(InvalidShape, match="A latency source or a timer is needed"):
        source_for(None, None, never)  # type: ignore[arg-type]


def test_the_wrapped_pruner_asks_for_it() -> None:
    model, images = wide(), torch.zeros(1, 1024)
    host = tp.pruner.MagnitudePruner(model, images, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.5,
                                     ignored_layers=[model[2]])  # fmt: skip
    pruner = TailAwarePruner(host, timer=DeviceTimer("cpu"), example_inputs=images)
    assert isinstance(pruner.timer, DeviceTimer)
    assert pruner.timer.environment.l2 == l2_for(trace_model(model, images))
