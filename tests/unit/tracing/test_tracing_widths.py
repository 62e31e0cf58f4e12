"""Are the widths of a pruned network read from its weights exactly, and a foreign network refused by name?"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tailprune
from tailprune.core.errors import PlanMismatch

IMAGE = torch.zeros(1, 3, 64, 64)


def pruned_pair(name, ratio, **more):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    dense = torchvision.models.get_model(name, weights=None, **more).eval()
    graph = tailprune.trace_model(dense, IMAGE)
    scores = tailprune.choose_host(tailprune.score_channels(dense, graph, "magnitude"), ratio, scope="local")
    plan = tailprune.host_plan(graph, scores, latency=tailprune.WaveModel(tailprune.load_device("v100")))
    return graph, plan, tailprune.apply_plan(dense, plan, IMAGE)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "regnet_y_400mf"])
def test_what_a_plan_cut_is_what_is_read(name):
    graph, plan, small = pruned_pair(name, 0.4)
    widths = tailprune.read_widths(graph, small)
    assert {group: widths[group] for group in plan.widths} == plan.widths
    assert tailprune.read_widths(graph, small.state_dict()) == widths
    assert any(widths[g.id] != g.width for g in graph.groups)


class Joined(nn.Module):
    """Two branches into one convolution: the second branch's width is only told by the joint input."""

    def __init__(self, a=6, b=5, out=4):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, a, 3), nn.Conv2d(3, b, 3), nn.Conv2d(a + b, out, 1)

    def forward(self, x):
        return self.out(torch.cat([self.a(x), self.b(x)], 1))


class Flat(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width * 36, 10)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


class Grouped(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, width, 3), nn.Conv2d(width, 8, 3, groups=2)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(self.grouped(self.first(x)))


def read(build, *dense, **pruned):
    return tailprune.read_widths(tailprune.trace_model(build(*dense), torch.zeros(1, 3, 8, 8)), build(**pruned))


def test_concatenation_flatten_and_conv_groups():
    assert read(Joined, a=3, b=2) == {"a": 3, "b": 2, "out": 4}
    assert read(Flat, width=4)["conv"] == 4
    assert read(Grouped, width=8)["first"] == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("out.weight"), "has no out.weight, so it is not Joined"),
        (lambda s: s.update({"out.weight": torch.zeros(4, 10, 1, 1)}), "Layer out has 10 input channels"),
        (lambda s: s.update({"a.weight": torch.zeros(0, 3, 3, 3)}), "Layer a has 0 output channels"),
        (lambda s: s.update({"b.weight": torch.zeros(5, 4, 3, 3)}), "Layer b has 4 input channels .* make that 3"),
        (lambda s: s.update({"b.weight": torch.zeros(5)}), "b.weight has 1 dimension"),
    ],
)
def test_a_foreign_network_is_refused_by_layer(change, said):
    graph = tailprune.trace_model(Joined(), torch.zeros(1, 3, 8, 8))
    state = copy.copy(dict(Joined().state_dict()))
    change(state)
    with pytest.raises(PlanMismatch, match=said):
        tailprune.read_widths(graph, state)


def test_a_width_off_the_granule_is_refused():
    graph = tailprune.trace_model(Grouped(), torch.zeros(1, 3, 8, 8))
    granule = graph.group("first").granule
    assert granule == 2
    state = dict(Grouped().state_dict())
    state["first.weight"] = torch.zeros(7, 3, 3, 3)
    with pytest.raises(PlanMismatch, match=r"Layer first has 7 output channels .* multiple of 2"):
        tailprune.read_widths(graph, state)
