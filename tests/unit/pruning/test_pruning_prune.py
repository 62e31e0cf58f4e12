from __future__ import annotations

import pytest
import torch
from pruning_nets import IMAGES, Stairs, small_net
from test_pruning_wrap import StairsTimer

from tailprune.core.errors import InvalidShape
from tailprune.core.plan import Budget
from tailprune.pruning import prune_model, verify_pruned


def test_one_call_prunes_a_copy_onto_the_stairs() -> None:
    net = small_net()
    small, plan = prune_model(net, IMAGES, latency=Stairs(), ratio=0.45)
    assert net.inner[0].out_channels == 24
    assert small.inner[0].out_channels == plan.widths["inner.0"]
    assert plan.predicted_us <= plan.host_us
    assert verify_pruned(net, small, plan, IMAGES).ok
    assert not small.training


def test_a_timer_alone_measures_and_a_budget_is_kept() -> None:
    timer = StairsTimer()
    _, plan = prune_model(
        small_net(), IMAGES, timer=timer, ratio=0.45, policy="reallocate", budget=Budget.fraction(0.5)
    )
    assert timer.asked
    assert plan.predicted_us <= 0.5 * plan.original_us


def test_neither_source_nor_timer_is_refused() -> None:
    with pytest.raises(InvalidShape, match="A latency source or a timer is needed"):
        prune_model(small_net(), torch.zeros(1, 3, 16, 16))
