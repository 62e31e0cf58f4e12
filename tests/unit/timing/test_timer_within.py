"""A timer in the cache state of a network: as much other work between two calls as its layers have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tailprune.core.graph import ModelGraph
from tailprune.timing import DeviceTimer, l2_for
from tailprune.tracing import trace_model


def graph(width: int) -> ModelGraph:
    return trace_model(nn.Linear(width, 1024), torch.zeros(1, width))


def test_within_a_network_the_environment_is_the_networks_and_the_rest_stays() -> None:
    timer = DeviceTimer("cpu", threads=2, precision=0.03, max_visits=7, max_seconds=1.0, runtime="eager", most_alive=9)
    small, large = timer.within(graph(16)), timer.within(graph(4096))
    assert small is timer, "a small network needs nothing else"
    assert large.environment.l2 == l2_for(graph(4096)) != timer.environment.l2
    assert (large.rule, large.most_alive, large.environment.threads) == (timer.rule, 9, 2)
    assert large.within(graph(4096)) is large
    assert set(large.environment.differences(timer.environment)[0]) == {"l2"}


@pytest.mark.parametrize("l2", ["warm", "0 MiB", "3 MiB"])
def test_a_state_that_was_asked_for_stays(l2: str) -> None:
    timer = DeviceTimer("cpu", l2=l2)
    assert timer.within(graph(4096)) is timer
