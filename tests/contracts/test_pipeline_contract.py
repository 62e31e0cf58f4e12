"""Whatever kind of pipeline chose the channels: its widths are exact, the plan is never slower and never scores less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_host_contract import IMAGES, Linear, Stairs, make_net
from torch import nn
from torch.nn.utils import prune

from tailprune import (
    ChannelScores,
    ModelGraph,
    WaveModel,
    WidthPlan,
    apply_plan,
    choose_host,
    host_from_masks,
    host_from_scores,
    host_from_widths,
    host_from_zeros,
    load_device,
    load_pruned,
    plan_widths,
    prune_model,
    save_pruned,
    score_channels,
    trace_model,
    verify_pruned,
)

NETS = ("residual", "grouped", "mobile")
EXAMPLE = torch.zeros(IMAGES)


class OddIsSlow(Linear):
    """Not monotone: odd channel counts cost twice as much, as on devices that align."""

    origin = "odd is slow"

    def latency_us(self, shape) -> float:
        return super().latency_us(shape) * (1 + shape.out_channels % 2) * (1 + shape.in_channels % 2)


SOURCES = {"stairs": Stairs(), "odd is slow": OddIsSlow(), "wave model": WaveModel(load_device("h200"))}


def rows_of(graph: ModelGraph, group_id: str) -> list[int]:
    """A ragged third of a group's channels, the same place of every block."""
    group = graph.group(group_id)
    block = group.width // group.granule
    gone = list(range(block))[1::3][: block - 1]
    return [offset + block * i for offset in gone for i in range(group.granule)]


def switch_off(net: nn.Module, graph: ModelGraph, how: Callable[[nn.Module, list[int]], None]) -> None:
    """Every convolution of every group, at the same channels; norms pass zero on as zero."""
    modules = dict(net.named_modules())
    for module in modules.values():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
            nn.init.zeros_(module.running_mean)
    for group in graph.prunable_groups:
        for name in group.producers:
            how(modules[name], rows_of(graph, group.id))


def by_widths(net: nn.Module, graph: ModelGraph) -> ChannelScores:
    return host_from_widths(net, graph, {g.id: g.width - len(rows_of(graph, g.id)) for g in graph.prunable_groups})


def by_ratios(net: nn.Module, graph: ModelGraph) -> ChannelScores:
    return host_from_widths(net, graph, {g.producers[-1]: 0.37 for g in graph.prunable_groups}, importance="l1")


def by_masks(net: nn.Module, graph: ModelGraph) -> ChannelScores:
    def mask(module: nn.Module, rows: list[int]) -> None:
        keep = torch.ones_like(module.weight)
        keep[rows] = 0
        prune.custom_from_mask(module, "weight", keep)

    switch_off(net, graph, mask)
    return host_from_masks(net, graph)


def by_zeros(net: nn.Module, graph: ModelGraph) -> ChannelScores:
    def zero(module: nn.Module, rows: list[int]) -> None:
        with torch.no_grad():
            module.weight[rows] = 0

    switch_off(net, graph, zero)
    return host_from_zeros(net, graph)


def by_scores(scope: str) -> Callable[[nn.Module, ModelGraph], ChannelScores]:
    def host(net: nn.Module, graph: ModelGraph) -> ChannelScores:
        scores = {name: torch.arange(g.width) * 7 % 11 for g in graph.prunable_groups for name in g.producers}
        return host_from_scores(graph, scores, 0.35, scope)

    return host


def built_in(net: nn.Module, graph: ModelGraph) -> ChannelScores:
    return choose_host(score_channels(net, graph), 0.45)


HOSTS = {
    "widths": by_widths, "ratios": by_ratios, "masks": by_masks, "zeros": by_zeros, "scores, global": by_scores("global"),
    "scores, local": by_scores("local"), "built in": built_in,
}  # fmt: skip
#: Hosts that removed what adds nothing: no plan may change what the network computes.
LOSSLESS = ("masks", "zeros")


@pytest.fixture(scope="module", params=[(net, kind) for net in NETS for kind in HOSTS], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request) -> tuple[str, str, nn.Module, ModelGraph, ChannelScores]:
    name, kind = request.param
    net = make_net(name)
    host = HOSTS[kind](net, trace_model(net, EXAMPLE))
    return name, kind, net, trace_model(net, EXAMPLE), host


def outputs(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net(torch.randn(IMAGES, generator=torch.Generator().manual_seed(5)))


def test_the_hosts_widths_and_channels_are_exact(case) -> None:
    _, kind, net, graph, host = case
    plan = plan_widths(graph, host, latency=Linear(), policy="snap")
    assert plan.widths == plan.host_widths == host.host_widths
    assert {choice.group: choice.kept for choice in plan.choices} == {g.group: g.host_kept for g in host.groups}
    assert sum(choice.width < choice.original for choice in plan.choices) >= 2, (
        "a host that removes nothing proves nothing"
    )
    pruned = apply_plan(net, plan)
    assert verify_pruned(net, pruned, plan, EXAMPLE).ok
    if kind in LOSSLESS:
        assert host.warnings == ()
        torch.testing.assert_close(outputs(pruned), outputs(net), rtol=0, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_never_slower_and_never_less_score(case, source: str) -> None:
    _, kind, net, graph, host = case
    for goal in ("faster", "better"):
        plan = plan_widths(graph, host, latency=SOURCES[source], goal=goal)
        assert plan.host_widths == host.host_widths
        assert plan.predicted_us <= plan.host_us
        assert plan.importance >= plan.host_importance - 1e-12
        if kind in LOSSLESS:
            torch.testing.assert_close(outputs(apply_plan(net, plan)), outputs(net), rtol=0, atol=1e-5)


def test_the_plan_is_saved_loaded_and_replayed(case, tmp_path) -> None:
    name, _, net, _, host = case
    small, plan = prune_model(net, EXAMPLE, latency=Stairs(), host=host)
    assert plan.host_widths == host.host_widths
    plan.save(tmp_path / "plan.json")
    again = WidthPlan.load(tmp_path / "plan.json")
    assert again == plan
    assert torch.equal(outputs(apply_plan(net, again)), outputs(small))
    save_pruned(small, plan, tmp_path / "small.safetensors")
    assert torch.equal(outputs(load_pruned(make_net(name), tmp_path / "small.safetensors").eval()), outputs(small))


def test_the_policies_are_the_same_for_every_kind(case) -> None:
    _, _, net, graph, host = case
    for policy in ("shrink", "grow", "nearest", "reallocate"):
        plan = plan_widths(graph, host, latency=Stairs(), policy=policy)
        assert verify_pruned(net, apply_plan(net, plan), plan, EXAMPLE).ok


def test_stairs_move_the_hosts_that_may_trade() -> None:
    """The suite can fail: a plan that always were the host would pass all of the above."""
    for kind in HOSTS.keys() - set(LOSSLESS):
        net = make_net("residual")
        graph = trace_model(net, EXAMPLE)
        plan = plan_widths(graph, HOSTS[kind](net, graph), latency=Stairs(), goal="better")
        assert plan.moved, kind


def test_dead_channels_come_back_where_that_is_faster() -> None:
    """A lossless host moves too, but only for time: here to the next even width."""
    net = make_net("residual")
    graph = trace_model(net, EXAMPLE)
    host = by_zeros(net, graph)
    odd = [group for group, width in host.host_widths.items() if width % 2]
    plan = plan_widths(graph, host, latency=OddIsSlow())
    assert odd
    assert all(plan.widths[group] == host.host_widths[group] + 1 for group in odd)
    assert plan.predicted_us < 0.8 * plan.host_us
    torch.testing.assert_close(outputs(apply_plan(net, plan)), outputs(net), rtol=0, atol=1e-5)
