"""The frontier against brute force: every point real, every bound true, every gap honest."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import numpy as np
import pytest
from planning_worlds import (
    CURVES,
    FormulaSource,
    brute_force,
    chain,
    densenet,
    ragged,
    random_scores,
    resnet50,
    staircase,
    tiny_graph,
)  # fmt: skip

from tailprune.core.errors import InvalidShape, NoPlan
from tailprune.core.plan import Budget
from tailprune.planning import (
    Frontier,
    LayerCosts,
    Objective,
    build_problem,
    candidate_widths,
    plan_frontier,
    plan_widths,
    solve,
)
from tailprune.planning.frontier import FRONTIER_GAP
from tailprune.planning.tree import build_tree

SEEDS = [seed for seed in range(240) if tiny_graph(seed).prunable_groups]


def curve(frontier: Frontier, us: float) -> float:
    """The importance of the best point within a latency."""
    return max(point.importance for point in frontier.points if point.latency_us <= us)


@pytest.mark.parametrize("block", range(8))
def test_the_frontier_holds_what_brute_force_finds(block: int) -> None:
    for seed in SEEDS[block::8]:
        graph = tiny_graph(seed)
        source = FormulaSource(ragged(CURVES[seed % 4], seed))
        scores = random_scores(graph, seed, coarse=seed % 3 == 0)
        frontier = plan_frontier(graph, scores, latency=source)
        everything = brute_force(graph, scores, source, frontier.candidates.widths)
        for point in frontier.points:
            us, kept = frontier.problem.evaluate(point.widths)
            assert (us, kept) == pytest.approx((point.latency_us, point.importance), abs=1e-9)
        for us, _, _ in random.Random(seed).sample(everything, min(len(everything), 8)):
            best = max(kept for other, kept, _ in everything if other <= us + 1e-7)
            known, gap = curve(frontier, us + 1e-6), frontier.gap(us + 1e-6)
            assert known <= best + 1e-9 <= frontier.bound(us + 1e-6) + 2e-9, seed
            assert best / max(known, 1e-12) - 1 <= gap + 1e-6
            assert gap * known <= 1.01 * FRONTIER_GAP
            plan = frontier.plan(Budget.microseconds(us + 1e-6))
            assert plan.predicted_us <= us + 1e-6
            assert (plan.importance, plan.optimality_gap) == pytest.approx((best, 0.0), abs=1e-9)
        with pytest.raises(NoPlan, match="below the cheapest plan"):
            frontier.plan(Budget.microseconds(0.5 * frontier.points[0].latency_us))


@pytest.mark.parametrize("thin", [0.1, 0.3])
def test_a_thinned_frontier_is_held_against_all_candidates(thin: float) -> None:
    fewer, lost = 0, 0
    for seed in SEEDS[:60]:
        graph = tiny_graph(seed)
        source = FormulaSource(ragged(CURVES[seed % 4], seed))
        scores = random_scores(graph, seed)
        frontier = plan_frontier(graph, scores, latency=source, thin=thin)
        whole = plan_frontier(graph, scores, latency=source)
        everything = brute_force(graph, scores, source, frontier.candidates.widths)
        fewer += frontier.num_tried < whole.num_tried
        assert frontier.num_tried <= whole.num_tried
        assert frontier.points[0].latency_us == whole.points[0].latency_us
        for us, _, _ in random.Random(seed).sample(everything, min(len(everything), 8)):
            best = max(kept for other, kept, _ in everything if other <= us + 1e-7)
            known, gap = curve(frontier, us + 1e-6), frontier.gap(us + 1e-6)
            assert known <= best + 1e-9 <= frontier.bound(us + 1e-6) + 2e-9, seed
            assert best / max(known, 1e-12) - 1 <= gap + 1e-6 <= frontier.worst_gap + 2e-6
            plan = frontier.plan(Budget.microseconds(us + 1e-6))
            assert (plan.importance, plan.optimality_gap) == pytest.approx((best, 0.0), abs=1e-9)
            said = [w for w in plan.warnings if re.search(r"thinned by .* were tried; .* loses more than \d", w)]
            assert len(said) == 1
            lost += best > known + 1e-9
    assert fewer > 0
    assert lost > 0 or thin < 0.3


def test_the_worst_gap_is_the_largest_at_any_latency() -> None:
    graph = chain(*[64] * 8)
    scores = random_scores(graph, 1, lognormal=True)
    frontier = plan_frontier(graph, scores, latency=FormulaSource(staircase(8, 2)), every=4, time_limit_s=600)
    low, high = frontier.points[0].latency_us, frontier.points[-1].latency_us
    gaps = [frontier.gap(us) for us in np.linspace(low, high, 500)]
    assert max(gaps) <= frontier.worst_gap + 1e-12
    just_before = [frontier.gap(after.latency_us - 2e-6) for after in frontier.points[1:]]
    assert max(just_before) == pytest.approx(frontier.worst_gap, abs=1e-6)
    assert frontier.worst_gap * frontier.points[0].importance <= 1.01 * FRONTIER_GAP
    assert not any("thinned" in w for w in frontier.candidates.warnings)


def test_what_has_no_frontier_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailprune.planning.structure.MAX_SUM_CELLS", 100)
    graph = densenet((4, 6, 5), growth=16)
    scores = random_scores(graph, 2, lognormal=True)
    with pytest.raises(
        InvalidShape, match=r"concatenations of densenet-like .* or plan single budgets with plan_widths"
    ):
        plan_frontier(graph, scores, latency=FormulaSource(staircase(8, 4)))
    for thin in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidShape, match=r"thin must lie in 0\.\.1, a share"):
            plan_frontier(graph, scores, latency=FormulaSource(staircase(8, 4)), thin=thin)


def test_points_rise_in_both() -> None:
    graph = tiny_graph(5)
    points = plan_frontier(graph, random_scores(graph, 5), latency=FormulaSource(ragged("random", 5))).points
    assert len(points) > 3
    for before, after in pairwise(points):
        assert before.latency_us < after.latency_us
        assert before.importance < after.importance


class AtOnce(FormulaSource):
    """A formula that fills whole tables, as the wave model does."""

    def curve_us(self, shape, *, in_channels, out_channels):
        pairs = np.broadcast(in_channels, out_channels)
        us = [self.formula(shape.with_channels(in_channels=int(i), out_channels=int(o))) for i, o in pairs]
        return np.array(us).reshape(pairs.shape)


def test_nested_concatenations_are_a_chain_of_running_sums() -> None:
    graph = densenet((4, 6, 5), growth=16)
    scores = random_scores(graph, 2, lognormal=True)
    source = AtOnce(staircase(16, 8))
    allowed = candidate_widths(graph, scores, source, policy="reallocate", every=8).widths
    problem = build_problem(graph, scores, LayerCosts(source), allowed)
    tree = build_tree(problem)
    assert tree is not None
    assert max(len(bucket.scope) for bucket in tree.buckets) <= 3
    limit = round(0.7 * problem.costs.total(graph, graph.widths))
    objective = Objective(minimise="loss", limit=limit)
    exact = solve(problem, objective, solver="elimination")
    judge = solve(problem, objective, solver="milp", time_limit_s=20)
    assert exact is not None
    assert judge is not None
    assert exact.is_optimal(objective)
    assert judge.bound is not None
    assert judge.bound <= exact.loss <= judge.loss


def test_a_source_that_computes_at_once_plans_the_same() -> None:
    graph = resnet50()
    scores = random_scores(graph, 3, lognormal=True)
    budget = Budget.fraction(0.7)
    one_by_one = plan_widths(graph, scores, latency=FormulaSource(staircase(16, 2)), budget=budget)
    at_once = plan_widths(graph, scores, latency=AtOnce(staircase(16, 2)), budget=budget)
    assert one_by_one == at_once
