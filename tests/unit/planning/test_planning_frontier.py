"""The frontier against brute force: every point real, every bound true, every gap honest."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from planning_worlds import CURVES, FormulaSource, brute_force, ragged, random_scores, tiny_graph

from tailprune.core.errors import NoPlan
from tailprune.core.plan import Budget
from tailprune.planning import plan_frontier
from tailprune.planning.frontier import FRONTIER_GAP

SEEDS = [seed for seed in range(240) if tiny_graph(seed).prunable_groups]


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
            plan = frontier.plan(Budget.microseconds(us + 1e-6))
            assert plan.predicted_us <= us + 1e-6
            assert plan.importance <= best + 1e-9 <= frontier.bound(us + 1e-6) + 2e-9, seed
            assert plan.optimality_gap == pytest.approx(frontier.gap(us + 1e-6), abs=1e-9)
            assert max(0.0, best / max(plan.importance, 1e-12) - 1) <= plan.optimality_gap + 1e-6
            assert (plan.optimality_gap or 0.0) * plan.importance <= 1.01 * FRONTIER_GAP
        with pytest.raises(NoPlan, match="below the cheapest plan"):
            frontier.plan(Budget.microseconds(0.5 * frontier.points[0].latency_us))


def test_points_rise_in_both() -> None:
    graph = tiny_graph(5)
    points = plan_frontier(graph, random_scores(graph, 5), latency=FormulaSource(ragged("random", 5))).points
    assert len(points) > 3
    for before, after in pairwise(points):
        assert before.latency_us < after.latency_us
        assert before.importance < after.importance
