"""Does growing find the most that a budget allows, on undominated edges only, and stay within it?"""

from __future__ import annotations

import doctest
import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_worlds import FormulaSource, densenet, expr, layer, ragged, resnet50, staircase

from tailprune.core.errors import InvalidShape, NoPlan
from tailprune.core.graph import ChannelGroup, ModelGraph
from tailprune.core.plan import Budget
from tailprune.planning import candidate_widths, growth, growth_scores, plan_growth, widest_graph
from tailprune.steps import dominated_widths, group_curve


def chain(*sizes: int, granule: int = 1) -> ModelGraph:
    widths = {f"g{i}": size for i, size in enumerate(sizes)}
    layers, reads = [], expr(constant=3)
    for group in widths:
        layers.append(layer(f"c{group}", widths, reads, expr(group)))
        reads = expr(group)
    layers.append(layer("head", widths, reads, expr(constant=10)))
    groups = tuple(ChannelGroup(id=g, width=w, granule=granule) for g, w in widths.items())
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(1, 3, 14, 14))


def cost(graph, source, widths) -> float:
    return math.fsum(la.calls * source.latency_us(shape) for la, shape in graph.shapes_at(widths))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(3, 24), min_size=1, max_size=3),
    st.sampled_from(["smooth", "staircase", "zigzag", "random"]),
    st.integers(0, 99),
    st.floats(1.0, 1.6),
    st.floats(1.0, 1.8),
)
def test_growing_equals_brute_force_within_any_budget(sizes, kind, seed, share, widest):
    graph, source = chain(*sizes), FormulaSource(ragged(kind, seed))
    budget = share * cost(graph, source, {}) + 1e-4  # rounding of the sum must not decide
    plan = plan_growth(graph, source, budget=Budget.microseconds(budget), widest=widest)
    scores, wide = growth_scores(graph), widest_graph(graph, widest=widest)
    allowed = candidate_widths(
        graph, scores, source, policy="grow", reach=99, max_widths=wide.widths, frozen=[g for g, w in graph.widths.items() if wide.widths[g] == w]
    ).widths  # fmt: skip
    for group, choices in allowed.items():
        assert choices[0] == graph.widths[group] and choices[-1] <= widest * graph.widths[group]
        if len(choices) > 1:
            grid = range(graph.widths[group], wide.widths[group] + 1)
            below = set(dominated_widths(group_curve(graph, group, source, widths=grid)))
            assert not below & set(choices[1:]), "what some larger width undercuts is never grown to"
    networks = [dict(zip(allowed, combination, strict=True)) for combination in product(*allowed.values())]
    best = max(scores.importance_kept(w) for w in networks if cost(graph, source, w) <= budget)
    assert plan.importance == pytest.approx(best) and plan.optimality_gap == pytest.approx(0)
    assert cost(graph, source, plan.widths) <= budget
    assert all(choice.kept == tuple(range(choice.original)) for choice in plan.choices)


def test_what_a_channel_is_worth_is_what_it_computes():
    graph = chain(8, 6)
    scores = growth_scores(graph)
    for g in scores.groups:
        more = graph.macs_at({g.group: graph.widths[g.group] + 1}) - graph.macs_at()
        assert set(g.scores) == {more} and g.scope == "network"
    grouped = chain(8, 8, granule=4)
    assert growth_scores(grouped).groups[0].scores[0] == pytest.approx(
        (grouped.macs_at({"g0": 12}) - grouped.macs_at()) / 4
    )


def test_large_networks_grow_in_time_and_within_their_latency():
    for graph in (resnet50(), densenet((3, 4), growth=12)):
        plan = plan_growth(graph, FormulaSource(staircase(24, 24)), widest=1.25)
        assert plan.predicted_us <= plan.original_us and plan.grown


def test_wider_networks_may_be_faster_than_the_original():
    graph = chain(15, 15)
    source = FormulaSource(lambda s: 10.0 * (2 if s.out_channels % 2 else 1))
    plan = plan_growth(graph, source, budget=Budget.fraction(0.8))
    assert plan.predicted_us <= 0.8 * plan.original_us and len(plan.grown) >= 1


def test_every_multiple_may_be_asked_for():
    graph, source = chain(20), FormulaSource(lambda s: float(s.out_channels))
    assert plan_growth(graph, source, budget=Budget.fraction(1.3), every=4).widths == {"g0": 28}


def test_only_what_may_grow_grows_and_the_widest_graph_is_its_lines():
    graph, source = chain(20, 20), FormulaSource(staircase(16, 16))
    wide = widest_graph(graph, growable=["g1"], widest=1.5)
    assert wide.widths == {"g0": 20, "g1": 30} and wide.group("g1").min_width == 20
    assert [la.shape.out_channels for la in wide.layers] == [20, 30, 10]
    plan = plan_growth(graph, source, growable=["g1"])
    assert plan.widths["g0"] == 20 < plan.widths["g1"]
    assert plan.by_group["g0"].reason == "frozen"
    assert widest_graph(chain(10, granule=4 - 2), widest=1.3).widths == {"g0": 12}, "whole granules"


def test_latencies_below_the_original_are_not_asked_for():
    graph = chain(20, 20)
    source = FormulaSource(staircase(16, 16), lacking=lambda s: s.out_channels not in (10,) and s.out_channels < 20)
    plan = plan_growth(graph, source)
    assert plan.grown and not any("no latency" in warning for warning in plan.warnings)


def test_what_cannot_be_is_refused():
    graph, source = chain(20, 20), FormulaSource(staircase())
    with pytest.raises(NoPlan, match="as wide as chain was found within the budget, and growing only widens it"):
        plan_growth(graph, source, budget=Budget.fraction(0.9))
    for widest in (0.99, math.nan, math.inf):
        with pytest.raises(InvalidShape, match="widest must be a finite multiple"):
            plan_growth(graph, source, widest=widest)
    with pytest.raises(InvalidShape, match="no channel group 'nowhere'"):
        widest_graph(graph, growable=["nowhere"])


def test_docstring_examples_run():
    result = doctest.testmod(growth)
    assert result.attempted > 3 and result.failed == 0
