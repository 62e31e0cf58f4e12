"""Does a plan that grows stay within its limit, become a network that computes the same, and survive being kept?"""

from __future__ import annotations

import dataclasses
import doctest
import math

import pytest
import torch
from pruning_nets import IMAGES, small_net
from test_pruning_confirm import TIMER, pretend

from tailprune.core.errors import InvalidShape, PlanMismatch
from tailprune.core.plan import Budget, WidthPlan
from tailprune.planning import growth_scores, host_plan, plan_growth
from tailprune.pruning import (
    apply_plan,
    confirm,
    confirmed_growth,
    grow,
    grow_model,
    growable_groups,
    load_pruned,
    save_pruned,
    verify_pruned,
    widen_model,
)
from tailprune.tables import LatencyTable
from tailprune.tracing import read_widths, trace_model
from tailprune.waves import SimulatedTimer, load_device


class Steps:
    """Whole tiles of ten channels at both ends, so that 16, 24, 20 and 32 all lie below an edge."""

    origin = "tiles of ten"

    def latency_us(self, shape) -> float:
        ins, outs = (math.ceil(n / 10) for n in (shape.in_channels, shape.out_channels))
        return 1.0 + (outs if shape.depthwise else ins * outs)

    def kind(self, shape) -> str:
        return "modelled"


def outputs_differ(one, other) -> float:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, got = one(images), other(images)
    return float((expected - got).abs().max() / expected.abs().max())


def test_growing_fills_every_step_and_computes_the_same():
    net = small_net()
    wide, plan = grow_model(net, IMAGES, latency=Steps())
    assert plan.policy == "grow" and plan.predicted_us <= plan.original_us and plan.optimality_gap == 0
    grown = {choice.group: choice.width for choice in plan.grown}
    assert grown["stem.0"] == 20 and grown["inner.0"] == 30, "16 and 24 up to the edges of their tiles"
    assert "head" not in grown, "the network's output"
    assert read_widths(trace_model(net, IMAGES), wide) == {**trace_model(net, IMAGES).widths, **plan.widths}
    assert outputs_differ(net, wide) < 1e-5
    assert net.inner[0].out_channels == 24, "a copy"


def test_a_budget_above_the_original_buys_more():
    net = small_net()
    graph, growable = trace_model(net, IMAGES), growable_groups(net, IMAGES)
    free, more = (plan_growth(graph, Steps(), growable=growable, budget=b) for b in (None, Budget.fraction(1.2)))
    assert more.predicted_us <= 1.2 * more.original_us
    assert graph.macs_at(more.widths) > graph.macs_at(free.widths) > graph.macs_at()


def test_a_kept_network_loads_in_the_users_own_class(tmp_path):
    net = small_net()
    wide, plan = grow_model(net, IMAGES, latency=Steps())
    save_pruned(wide, plan, tmp_path / "wide.safetensors")
    loaded = load_pruned(small_net(seed=5), tmp_path / "wide.safetensors")
    assert outputs_differ(wide, loaded) == 0
    plan.save(tmp_path / "plan.json")
    again = widen_model(net, WidthPlan.load(tmp_path / "plan.json"), IMAGES)
    assert outputs_differ(net, again) < 1e-5


def test_what_only_removes_channels_points_to_what_adds_them():
    net = small_net()
    _, plan = grow_model(net, IMAGES, latency=Steps())
    with pytest.raises(PlanMismatch, match=r"widens stem.0 from 16 to 20 .* Use tailprune.widen_model\(model, plan\)"):
        apply_plan(net, plan, IMAGES)


def test_verification_sees_a_wide_network_that_computes_something_else():
    net = small_net()
    wide, plan = grow_model(net, IMAGES, latency=Steps())
    found = verify_pruned(net, wide, plan, IMAGES)
    assert found.ok and "equals the original network" in str(found)
    with torch.no_grad():
        wide.inner[0].weight[-1] *= 2
    assert "DIFFERS" in str(verify_pruned(net, wide, plan, IMAGES))
    assert "has 24 out channels instead of 30" in str(verify_pruned(net, net, plan, IMAGES))


def test_what_a_table_lacks_above_the_original_is_measured():
    net, timer = small_net(), SimulatedTimer(load_device("h200"))
    table = LatencyTable.in_memory(timer.environment)
    _, plan = grow_model(net, IMAGES, latency=table, timer=timer, widest=1.25)
    assert plan.latency_kind in ("measured", "held")
    assert {s.shape.out_channels for s in table.samples() if s.shape.in_channels == 3} >= {16, 20}


class DisturbedOnce:
    """A simulated timer that other work disturbs on its first visit of one layer of the original network."""

    def __init__(self, timer: SimulatedTimer, victim: str) -> None:
        self.timer, self.victim, self.environment, self.visits = timer, victim, timer.environment, 0

    def time(self, shape):
        return next(iter(self.time_many([shape])))

    def time_many(self, shapes):
        for sample in self.timer.time_many(shapes):
            if str(sample.shape) == self.victim:
                self.visits += 1
                if self.visits == 1:
                    sample = dataclasses.replace(sample, times_us=tuple(3 * us for us in sample.times_us))
            yield sample


def test_a_layer_timed_too_slow_in_the_original_buys_no_growth():
    net = small_net()
    graph, timer = trace_model(net, IMAGES), SimulatedTimer(load_device("h200"))
    victim = max(graph.layers, key=lambda la: la.shape.macs).shape
    disturbed = DisturbedOnce(timer, str(victim))
    table = LatencyTable.in_memory(timer.environment)
    plan, _ = confirmed_growth(net, graph, IMAGES, table, disturbed, widest=1.25)
    true = {shape: timer.time(shape).median_us for w in ({}, plan.widths) for _, shape in graph.shapes_at(w)}
    before, after = (sum(true[shape] for _, shape in graph.shapes_at(w)) for w in ({}, plan.widths))
    assert disturbed.visits == grow.VISITS and len(table.visits(victim)) == grow.VISITS
    assert after <= 1.02 * before, "the disturbed layer's phantom saving was not spent"


def test_a_plan_that_measures_slower_is_tightened_and_given_up_at_last(monkeypatch: pytest.MonkeyPatch):
    net = small_net()
    graph = trace_model(net, IMAGES)

    def decide(budget):
        return plan_growth(graph, Steps(), growable=growable_groups(net, IMAGES), budget=budget)

    original = host_plan(graph, growth_scores(graph), Steps())
    given = pretend(monkeypatch, 1.2, 0.9)
    kept, lines = confirm.confirm_plan(net, graph, decide(Budget.fraction(1.5)), original, decide, TIMER, IMAGES)
    assert given[0]["plan"].stem[0].out_channels > 16, "the wide network was measured, not the original twice"
    assert kept.grown and len(lines) >= 1
    pretend(monkeypatch, *[9.0] * 9)
    kept, lines = confirm.confirm_plan(net, graph, decide(None), original, decide, TIMER, IMAGES)
    assert not kept.grown


def test_strange_arguments_are_refused():
    net = small_net()
    for widest in (0.9, math.nan, math.inf):
        with pytest.raises(InvalidShape, match="widest must be a finite multiple of the original widths, at least 1"):
            grow_model(net, IMAGES, latency=Steps(), widest=widest)
    with pytest.raises(InvalidShape, match="A latency source or a timer is needed"):
        grow_model(net, IMAGES)
    with pytest.raises(InvalidShape, match="no channel group 'nowhere'"):
        plan_growth(trace_model(net, IMAGES), Steps(), growable=["nowhere"])


def test_docstring_examples_run():
    result = doctest.testmod(grow)
    assert result.attempted > 3 and result.failed == 0
