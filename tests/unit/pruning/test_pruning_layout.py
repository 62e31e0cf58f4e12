"""Weights that lie channels last still do after every kind of surgery; contiguous ones stay contiguous."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

import tailprune
from tailprune.timing.memory_format import lies_channels_last
from tailprune.waves import WaveModel, load_device

H200 = WaveModel(load_device("h200"))
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def network(layout: torch.memory_format) -> nn.Sequential:
    """A 3x3, a depthwise, a strided 1x1 and a last convolution: kernels whose strides say the format, and one that cannot."""
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.ReLU(),
        nn.Conv2d(48, 32, 1), nn.ReLU(), nn.Conv2d(32, 5, 3, padding=1),
    ).eval().to(memory_format=layout)  # fmt: skip


def images(layout: torch.memory_format) -> torch.Tensor:
    return torch.randn(2, 3, 12, 12).to(memory_format=layout)


def host_of(net: nn.Sequential, x: torch.Tensor) -> tp.pruner.BasePruner:
    return tp.pruner.MagnitudePruner(
        net, x, importance=tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.4, ignored_layers=[net[7]],
        in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
    )  # fmt: skip


def formats(net: nn.Module) -> list[bool]:
    return [lies_channels_last(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("how", ["apply_plan", "step", "interactive", "widen_model", "prune_model"])
def test_surgery_keeps_the_memory_format(how: str, layout: torch.memory_format) -> None:
    net, x = network(layout), images(layout)
    before = formats(net)
    assert before == [layout is torch.channels_last] * 4
    if how == "prune_model":
        cut, _ = tailprune.prune_model(net, x, latency=H200, ratio=0.4)
    elif how in ("step", "interactive"):
        pruner = tailprune.TailAwarePruner(host_of(net, x), latency=H200)
        if how == "step":
            pruner.step()
        else:
            for group in pruner.step(interactive=True):
                group.prune()
        cut = net
    else:
        graph = tailprune.trace_model(net, x)
        scores = tailprune.score_channels(net, graph)
        if how == "apply_plan":
            plan = tailprune.plan_widths(graph, tailprune.choose_host(scores, 0.4), latency=H200)
            cut = tailprune.apply_plan(net, plan)
        else:
            cut, _ = tailprune.grow_model(net, x, latency=H200, budget=tailprune.Budget.fraction(1.5))
    assert [m.out_channels for m in cut if isinstance(m, nn.Conv2d)] != [48, 48, 32, 5]
    assert formats(cut) == before
    assert cut(x).shape == (2, 5, 12, 12)


def test_torch_pruning_alone_loses_it() -> None:
    """The reason for `layouts_kept`; once this fails the context manager can go."""
    net, x = network(torch.channels_last), images(torch.channels_last)
    host_of(net, x).step()
    assert not all(formats(net))
