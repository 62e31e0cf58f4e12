"""Why these widths: prices against brute force, neighbours against the frontier."""

from __future__ import annotations

import pytest
from planning_worlds import FormulaSource, chain, random_scores, staircase

from tailprune.core.plan import Budget
from tailprune.planning import explain_plan, plan_frontier, plan_widths

GRAPH = chain(24, 40, 33)
SOURCE = FormulaSource(staircase(8, 4))


@pytest.fixture(params=[0.9, 0.75, 0.6])
def explained(request):
    scores = random_scores(GRAPH, 2, lognormal=True)
    frontier = plan_frontier(GRAPH, scores, latency=SOURCE, policy="reallocate")
    plan = plan_widths(GRAPH, scores, latency=SOURCE, policy="reallocate", budget=Budget.fraction(request.param))
    return scores, frontier, plan, explain_plan(plan, frontier)


def us_of(widths):
    return sum(la.calls * SOURCE.latency_us(shape) for la, shape in GRAPH.shapes_at(widths))


def test_prices_are_those_of_the_best_single_step(explained) -> None:
    scores, frontier, plan, explanation = explained
    for group in explanation.groups:
        name, now = group.choice.group, group.choice.width
        saving, cost, free = [], [], [now]
        for width in frontier.candidates.widths[name]:
            there = {**plan.widths, name: width}
            us = us_of(there) - us_of(plan.widths)
            kept = 100 * (scores.importance_kept(there) - scores.importance_kept(plan.widths))
            if width < now and us < -1e-9 and kept < 0:
                saving.append(us / kept)
            if width > now and kept > 0:
                cost.append(max(us, 0.0) / kept)
                free += [width] if us <= 1e-9 else []
        assert group.saving_us == (pytest.approx(max(saving)) if saving else None)
        assert group.cost_us == (pytest.approx(min(cost)) if cost else None)
        assert group.headroom == max(free) - now
        assert group.on_edge == (now in frontier.candidates.edges[name])


def test_the_neighbours_lie_beside_the_plan(explained) -> None:
    scores, frontier, plan, explanation = explained
    for other, cheaper in ((explanation.cheaper, True), (explanation.better, False)):
        if other is None:
            continue
        there = {**plan.widths, **{group: then for group, (_, then) in other.changes.items()}}
        assert us_of(there) == pytest.approx(other.latency_us)
        assert scores.importance_kept(there) == pytest.approx(other.importance)
        assert all(plan.widths[group] == now != then for group, (now, then) in other.changes.items())
        assert (other.latency_us < plan.predicted_us) == (other.importance < plan.importance) == cheaper
        low, high = sorted((other.latency_us, plan.predicted_us))
        assert not any(low < p.latency_us < high and p.importance != plan.importance for p in frontier.points)


def test_the_ends_have_one_neighbour() -> None:
    scores = random_scores(GRAPH, 2, lognormal=True)
    frontier = plan_frontier(GRAPH, scores, latency=SOURCE, policy="reallocate")
    best = frontier.plan(Budget.fraction(1.0))
    assert explain_plan(best, frontier).better is None
    fastest = frontier.plan(Budget.microseconds(frontier.points[0].latency_us + 1e-3))
    assert explain_plan(fastest, frontier).cheaper is None
    assert explain_plan(fastest, frontier).better is not None
