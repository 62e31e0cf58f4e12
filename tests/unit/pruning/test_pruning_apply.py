from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_nets import IMAGES, Smooth, Stairs, shaken, small_net
from torch import nn

from tailprune.core.errors import PlanMismatch
from tailprune.core.plan import GroupChoice, WidthPlan
from tailprune.planning import choose_host, plan_widths
from tailprune.pruning import apply_plan, score_channels, verify_pruned
from tailprune.tracing import ChannelDependency, trace_model


def make_plan(net: nn.Module, kept: dict[str, tuple[int, ...]], images: torch.Tensor = IMAGES) -> WidthPlan:
    graph = trace_model(net, images)
    choices = tuple(
        GroupChoice(group=g, original=graph.group(g).width, host=len(k), width=len(k), kept=k) for g, k in kept.items()
    )
    return WidthPlan(
        model=graph.model, fingerprint=graph.fingerprint, input_shape=graph.input_shape, choices=choices,
        policy="test", goal="test", original_us=1.0, host_us=1.0, predicted_us=1.0,
    )  # fmt: skip


def planned(net: nn.Module, ratio: float = 0.45, images: torch.Tensor = IMAGES, source=None) -> WidthPlan:
    graph = trace_model(net, images)
    scores = choose_host(score_channels(net, graph), ratio)
    return plan_widths(graph, scores, latency=source or Stairs(), policy="snap")


def test_a_plan_is_applied_to_a_copy_and_verified() -> None:
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    plan = planned(net)
    pruned = apply_plan(net, plan)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in net.parameters())
    verification = verify_pruned(net, pruned, plan, IMAGES)
    assert verification.ok, str(verification)
    assert verification.error is not None
    assert verification.error < 1e-9


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_kept_channels_equal_the_zeroed_dense_network(data: st.DataObject) -> None:
    net = small_net(1)
    kept = {}
    for group in trace_model(net, IMAGES).prunable_groups:
        block = group.width // group.granule
        offsets = data.draw(st.sets(st.integers(0, block - 1), min_size=1), label=group.id)
        kept[group.id] = tuple(sorted(o + block * i for o in offsets for i in range(group.granule)))
    plan = make_plan(net, kept)
    verification = verify_pruned(net, apply_plan(net, plan), plan, IMAGES)
    assert verification.ok, str(verification)


def test_verification_notices_swapped_channels_and_wrong_widths() -> None:
    """The counter-test: same widths with other channels, and other widths, must both fail."""
    net = small_net()
    groups = {g.id: g for g in trace_model(net, IMAGES).prunable_groups}
    width = groups["inner.0"].width
    plan = make_plan(net, {"inner.0": tuple(range(width - 4))})
    other = make_plan(net, {"inner.0": tuple(range(4, width))})
    wrong = verify_pruned(net, apply_plan(net, other), plan, IMAGES)
    assert not wrong.ok
    assert "DIFFERS" in str(wrong)
    wrong = verify_pruned(net, net, plan, IMAGES)
    assert not wrong.ok
    assert "inner.0 has 24 out channels instead of 20" in str(wrong)


def test_a_tampered_norm_is_noticed() -> None:
    net = small_net()
    plan = make_plan(net, {"inner.0": tuple(range(0, 24, 2))})
    pruned = apply_plan(net, plan)
    pruned.inner[1].running_mean.data = pruned.inner[1].running_mean.flip(0)
    assert not verify_pruned(net, pruned, plan, IMAGES).ok


def test_layer_norms_are_said_to_be_incomparable() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    images = torch.zeros(2, 8)
    plan = make_plan(net, {"0": tuple(range(12))}, images)
    verification = verify_pruned(net, apply_plan(net, plan), plan, images)
    assert verification.ok
    assert verification.error is None
    assert "normalises over the channels" in str(verification)


def test_a_foreign_plan_is_refused() -> None:
    plan = planned(small_net())
    with pytest.raises(PlanMismatch, match="This plan"):
        apply_plan(small_net(width=24), plan)
    with pytest.raises(PlanMismatch, match="names the channel group"):
        apply_plan(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), plan)
    with pytest.raises(PlanMismatch, match="Apply it to the unpruned network"):
        apply_plan(apply_plan(small_net(), plan), plan)


def test_a_widening_plan_is_refused_before_anything_changes() -> None:
    net = small_net()
    plan = make_plan(net, {"inner.0": tuple(range(24))})
    wider = dataclasses.replace(plan, choices=(dataclasses.replace(plan.choices[0], width=32),))
    with pytest.raises(PlanMismatch, match=r"widens inner.0 from 24 to 32"):
        apply_plan(net, wider)


def test_training_mode_and_frozen_parameters_stay() -> None:
    net = small_net().train()
    net.stem[0].weight.requires_grad_(False)
    plan = planned(net)
    pruned = apply_plan(net, plan)
    assert pruned.training
    assert net.training
    assert {n for n, p in pruned.named_parameters() if not p.requires_grad} == {"stem.0.weight"}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision_networks_equal_their_zeroed_dense_form(name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    net = shaken(getattr(torchvision.models, name)(num_classes=10))
    images = torch.zeros(1, 3, 64, 64)
    graph = trace_model(net, images)
    scores = choose_host(score_channels(net, graph), 0.4)
    kept = {g.group: g.kept_channels(g.host_width) for g in scores.groups}
    plan = make_plan(net, kept, images)
    verification = verify_pruned(net, apply_plan(net, plan), plan, images)
    assert verification.ok, str(verification)


def test_a_smooth_source_leaves_the_host_where_it_is_or_faster() -> None:
    net = small_net()
    plan = planned(net, source=Smooth())
    assert plan.predicted_us <= plan.host_us
    assert plan.importance >= plan.host_importance
    assert ChannelDependency(net, IMAGES).by_id.keys() >= plan.widths.keys()
