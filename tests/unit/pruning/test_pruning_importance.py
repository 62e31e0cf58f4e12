from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from pruning_nets import IMAGES, small_net
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.pruning import score_channels
from tailprune.pruning.importance import METHODS
from tailprune.tracing import trace_model

THEIRS = {
    "magnitude": tp.importance.GroupMagnitudeImportance(),
    "l1": tp.importance.GroupMagnitudeImportance(p=1),
    "bn_scale": tp.importance.BNScaleImportance(),
    "lamp": tp.importance.LAMPImportance(),
    "fpgm": tp.importance.FPGMImportance(),
    "taylor": tp.importance.GroupTaylorImportance(),
}


def their_scores(net: nn.Module, importance) -> dict[str, torch.Tensor]:
    graph = tp.DependencyGraph().build_dependency(net, IMAGES)
    found = {}
    for group in graph.get_all_groups():
        scores = importance(group)
        if scores is not None:
            for item in group:
                name = graph._module2name.get(item.dep.target.module, "")
                if graph.is_out_channel_pruning_fn(item.dep.handler) and sorted(item.idxs) == sorted(item.root_idxs):
                    found[name] = scores
    return found


@pytest.mark.parametrize("method", THEIRS)
def test_scores_are_torch_prunings(method: str) -> None:
    net = small_net()
    if method == "fpgm":  # Torch-Pruning's fails on grouped convolutions
        net.grouped[0] = nn.Conv2d(32, 24, 3, padding=1)
    net(torch.randn(4, 3, 16, 16)).square().mean().backward()
    ours = score_channels(net, trace_model(net, IMAGES), method)
    theirs = their_scores(net, THEIRS[method])
    assert len(ours.groups) >= 5
    for group in ours.groups:
        expected = theirs[group.group].double()
        if group.granule > 1:
            expected = expected.view(group.granule, -1).mean(0).repeat(group.granule)
        assert torch.tensor(group.scores).double() == pytest.approx(expected, rel=1e-4)


def test_random_scores_follow_the_seed() -> None:
    net, graph = small_net(), trace_model(small_net(), IMAGES)
    first, again, other = (score_channels(net, graph, "random", seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_every_prunable_group_finitely(method: str) -> None:
    net = small_net()
    net(torch.randn(4, 3, 16, 16)).square().mean().backward()
    graph = trace_model(net, IMAGES)
    scores = score_channels(net, graph, method)
    assert {g.group for g in scores.groups} == {g.id for g in graph.prunable_groups}
    for group in scores.groups:
        block = group.width // group.granule
        assert len({tuple(group.scores[o::block]) for o in range(block)}) <= block
        assert all(len(set(group.scores[o::block])) == 1 for o in range(block)), "a block's offsets leave together"


def test_a_group_without_norms_is_said_under_bn_scale() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    scores = score_channels(net, trace_model(net, IMAGES), "bn_scale")
    assert scores.groups == ()
    assert scores.warnings == ("0: bn_scale finds nothing to score in its layers; the group keeps all its channels",)


def test_bad_requests_are_one_sentence() -> None:
    net = small_net()
    graph = trace_model(net, IMAGES)
    with pytest.raises(InvalidShape, match="Unknown importance 'l3'; allowed: magnitude, l1"):
        score_channels(net, graph, "l3")
    with pytest.raises(InvalidShape, match=r"needs gradients; call loss.backward"):
        score_channels(net, graph, "taylor")
    with pytest.raises(InvalidShape, match=r"this model has not. Trace it again"):
        score_channels(small_net(width=24), graph)
    net.inner[0].weight.data.fill_(float("nan"))
    with pytest.raises(InvalidShape, match=r"of layer stem.0 is not finite|of layer inner.0 is not finite"):
        score_channels(net, graph)
