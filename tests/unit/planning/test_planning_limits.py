"""Budgets beside latency against brute force: kept always, bounds true, the best mostly found."""

from __future__ import annotations

import random

import pytest
from planning_worlds import (
    CURVES,
    FormulaSource,
    brute_force,
    ragged,
    random_scores,
    resnet50,
    staircase,
    tiny_graph,
)  # fmt: skip

from tailprune.core.errors import InvalidShape, NoPlan
from tailprune.core.plan import Budget
from tailprune.planning import LayerCosts, build_problem, candidate_widths, choose_host, plan_widths
from tailprune.planning.limits import set_limits

SEEDS = [seed for seed in range(160) if tiny_graph(seed).prunable_groups]
COUNT = {"macs": "macs_at", "parameters": "num_parameters_at"}


@pytest.mark.parametrize("seed", SEEDS[:60])
def test_counts_are_those_of_the_graph(seed: int) -> None:
    graph = tiny_graph(seed)
    scores = random_scores(graph, seed)
    source = FormulaSource(ragged(CURVES[seed % 4], seed))
    allowed = {g.id: tuple(g.grid)[-4:] if g.prunable else (g.width,) for g in graph.groups}
    problem = build_problem(graph, scores, LayerCosts(source), allowed)
    for limit in set_limits(problem, {"macs": 10**12, "parameters": 10**12}):
        for _, _, widths in random.Random(seed).sample(brute_force(graph, scores, source, allowed), 1):
            rows = problem.positions(widths)
            assert rows is not None
            cells = [problem.cell(table.axes, rows) for table in problem.tables]
            counted = limit.fixed + sum(int(c[cell]) for c, cell in zip(limit.counts, cells, strict=True))
            assert counted == getattr(graph, COUNT[limit.resource])(widths)


@pytest.mark.parametrize("block", range(4))
def test_limits_are_kept_and_their_bounds_are_true(block: int) -> None:
    found, best_found = 0, 0
    for seed in SEEDS[block::4]:
        graph = tiny_graph(seed)
        r = random.Random(seed)
        scores = choose_host(random_scores(graph, seed, coarse=seed % 3 == 0), 0.3)
        source = FormulaSource(ragged(CURVES[seed % 4], seed))
        everything = brute_force(
            graph, scores, source, candidate_widths(graph, scores, source, policy="reallocate").widths
        )
        us, _, anchor = r.choice(everything)
        limits = {name: getattr(graph, COUNT[name])(anchor) for name in r.choice((("macs",), ("macs", "parameters")))}
        inside = [
            (other, kept)
            for other, kept, widths in everything
            if all(getattr(graph, COUNT[name])(widths) <= most for name, most in limits.items())
        ]
        best = max(kept for other, kept in inside if other <= us + 1e-7)
        try:
            plan = plan_widths(
                graph, scores, latency=source, policy="reallocate", budget=Budget.microseconds(us + 1e-6), limits=limits
            )
        except NoPlan:
            continue
        found += 1
        assert plan.predicted_us <= us + 1e-6
        for name, most in limits.items():
            assert getattr(graph, COUNT[name])(plan.widths) <= most
        assert plan.importance <= best + 1e-9
        assert plan.optimality_gap is not None
        assert plan.importance * (1 + plan.optimality_gap) >= best - 1e-9
        best_found += plan.importance >= best - 1e-9
    assert found >= 0.9 * len(SEEDS[block::4])
    assert best_found >= 0.8 * found


def test_a_network_within_half_its_multiply_adds() -> None:
    graph = resnet50()
    scores = random_scores(graph, 1, lognormal=True)
    source = LayerCosts(FormulaSource(staircase(16, 2)))
    free = plan_widths(graph, scores, latency=source, budget=Budget.fraction(0.8))
    most = {"macs": int(0.9 * graph.macs_at(free.widths))}
    bound = plan_widths(graph, scores, latency=source, budget=Budget.fraction(0.8), limits=most)
    assert graph.macs_at(bound.widths) <= most["macs"]
    assert bound.importance < free.importance
    assert bound.optimality_gap is not None
    assert bound.optimality_gap < 0.005
    faster = plan_widths(
        graph, choose_host(scores, 0.4), latency=source, limits={"parameters": graph.num_parameters_at()}
    )
    assert faster.optimality_gap == 0


def test_limits_that_cannot_be_kept_name_what_is_needed() -> None:
    graph = resnet50()
    scores = random_scores(graph, 1)
    source = LayerCosts(FormulaSource(staircase(16, 2)))
    kwargs = {"latency": source, "budget": Budget.fraction(0.9)}
    with pytest.raises(NoPlan, match=r"No plan was found within .* us and macs 1,000, of which [\d,]+ at least"):
        plan_widths(graph, scores, limits={"macs": 1000}, **kwargs)
    with pytest.raises(InvalidShape, match="Unknown resource 'flops'; allowed: macs, parameters"):
        plan_widths(graph, scores, limits={"flops": 1000}, **kwargs)  # type: ignore[dict-item]
    with pytest.raises(InvalidShape, match="must be positive and finite"):
        plan_widths(graph, scores, limits={"macs": 0}, **kwargs)
    with pytest.raises(InvalidShape, match="follows its rule and keeps no limits"):
        plan_widths(graph, scores, limits={"macs": 1000}, policy="shrink", **kwargs)
