"""Removing channels by their original numbers, and finding a host's groups again."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailprune.core.errors import TraceError
from tailprune.tracing import ChannelDependency

IMAGES = torch.zeros(1, 3, 6, 6)


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.a, self.norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))
        return self.head(x.mean((2, 3)))


def test_groups_are_named_after_their_first_producer():
    dependency = ChannelDependency(Bottleneck(), IMAGES)
    assert [(g.id, g.root, g.width, g.granule, g.reason) for g in dependency.groups] == [
        ("stem", "stem", 6, 1, ""), ("a", "a", 8, 1, ""), ("head", "head", 4, 1, "it is the network's output")]  # fmt: skip
    stem = dependency.group("stem")
    assert set(stem.producers) == {"stem", "b"} and set(stem.consumers) == {"a", "head"}
    assert dependency.group("a").producers == ("a", "norm")


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(8)), cuts=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.integers(0, 99)
)
def test_piecewise_removal_keeps_exactly_the_rows_that_stay(order, cuts, seed):
    """However the channels are dealt out over calls, the weights left are the original rows, in their order."""
    torch.manual_seed(seed)
    model = Bottleneck()
    before = copy.deepcopy(model)
    dependency = ChannelDependency(model, IMAGES)
    gone: list[int] = []
    for size in cuts:
        piece = order[len(gone) : min(len(gone) + size, 7)]
        dependency.remove("a", piece)
        gone += piece
    kept = [channel for channel in range(8) if channel not in gone]
    assert list(dependency.remaining("a")) == kept
    assert torch.equal(model.a.weight, before.a.weight[kept]) and torch.equal(model.norm.bias, before.norm.bias[kept])
    assert torch.equal(model.b.weight, before.b.weight[:, kept])
    assert model(IMAGES).shape == (1, 4)


@pytest.mark.parametrize(
    ("group", "channels", "words"),
    [
        ("nope", [0], "There is no channel group 'nope'"),
        ("head", [0], "Group head cannot be pruned: it is the network's output"),
        ("a", [8], "Group a has no channels [8]"),
        ("a", range(8), "Group a would lose all its 8 channels; keep at least 1"),
    ],
)
def test_a_refused_removal_changes_nothing(group, channels, words):
    model = Bottleneck()
    dependency = ChannelDependency(model, IMAGES)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(TraceError, match=r"^[^\n]*$") as caught:
        dependency.remove(group, channels)
    assert words in str(caught.value)
    assert all(torch.equal(state[name], now) for name, now in model.state_dict().items())


def test_a_channel_cannot_leave_twice():
    dependency = ChannelDependency(Bottleneck(), IMAGES)
    dependency.remove("a", [2])
    with pytest.raises(TraceError, match=r"Group a has no channels \[2\] \(any more\); it has 7"):
        dependency.remove("a", [2])


def test_blocks_of_a_grouped_convolution_lose_the_same_offsets():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    before = copy.deepcopy(model)
    dependency = ChannelDependency(model, IMAGES)
    with pytest.raises(TraceError, match="granule 2"):
        dependency.remove("0", [1, 2])
    dependency.remove("0", [1, 5])
    dependency.remove("0", [2, 6])
    assert torch.equal(model[0].weight, before[0].weight[[0, 3, 4, 7]])
    images = torch.randn(1, 3, 6, 6)
    for i in (1, 5, 2, 6):
        before[0].weight.data[i], before[0].bias.data[i] = 0, 0
    torch.testing.assert_close(model(images), before(images))


def test_the_same_ids_over_a_host_pruners_graph_and_its_groups_are_found_again():
    model = Bottleneck()
    own = ChannelDependency(copy.deepcopy(model), IMAGES)
    host = tp.DependencyGraph().build_dependency(model, IMAGES, verbose=False)
    dependency = ChannelDependency(model, graph=host)
    assert [(g.id, g.width, g.members) for g in dependency.groups] == [(g.id, g.width, g.members) for g in own.groups]
    for root, width, name in ((model.b, 6, "stem"), (model.a, 8, "a"), (model.head, 4, "head")):
        handler = host.get_pruner_of_module(root).prune_out_channels
        for chosen in itertools.combinations(range(width), 2):
            assert dependency.locate(host.get_pruning_group(root, handler, list(chosen))) == {name: chosen}
    dependency.remove("stem", [0, 3])
    group = host.get_pruning_group(model.b, tp.prune_conv_out_channels, [0, 3])  # today's 0 and 3 were 1 and 5
    assert dependency.locate(group) == {"stem": (1, 5)}


def test_a_hosts_group_over_a_wide_producer_is_several_of_ours():
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)
            self.head = nn.Conv2d(5, 2, 1)

        def forward(self, x):
            return self.head(self.wide(x) + torch.cat([self.a(x), self.b(x)], 1))

    model = Split()
    dependency = ChannelDependency(model, graph=tp.DependencyGraph().build_dependency(model, IMAGES, verbose=False))
    assert [group.id for group in dependency.groups] == ["a", "b", "head"]
    group = dependency._graph.get_pruning_group(model.wide, tp.prune_conv_out_channels, [1, 2, 4])
    assert dependency.locate(group) == {"a": (1,), "b": (0, 2)}
    dependency.remove("a", [1])
    dependency.remove("b", [0, 2])
    assert (model.wide.out_channels, model.a.out_channels, model.b.out_channels, model.head.in_channels) == (2, 1, 1, 2)
    assert model(IMAGES).shape == (1, 2, 6, 6)


def test_building_it_runs_nothing_on_the_model_itself():
    model = Bottleneck().train()
    model.a.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    with torch.no_grad():
        dependency = ChannelDependency(model, IMAGES)
    assert model.training and dependency.model is model
