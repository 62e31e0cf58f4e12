"""Elimination = MILP = brute force on a thousand little problems; exchange is feasible and never claims a proof."""

from __future__ import annotations

import importlib
import random

import pytest
from planning_worlds import CURVES, FormulaSource, brute_force, ragged, random_scores, tiny_graph

from tailprune.planning import LayerCosts, Objective, build_problem, choose_host, solve

EXACT = ("elimination", "milp")


def random_problem(seed: int):
    r = random.Random(seed)
    graph = tiny_graph(seed)
    source = FormulaSource(ragged(CURVES[seed % 4], seed))
    scores = choose_host(random_scores(graph, seed, coarse=seed % 3 == 0), r.choice((0.2, 0.45, 0.7)))
    candidates = {}
    for group in graph.groups:
        grid = list(group.grid)
        chosen = sorted(r.sample(grid, min(len(grid), r.randint(1, 4)))) if group.prunable else [group.width]
        candidates[group.id] = tuple(chosen)
    return graph, source, scores, candidates, build_problem(graph, scores, LayerCosts(source), candidates)


def scored(seed: int) -> bool:
    return bool(tiny_graph(seed).prunable_groups)


SEEDS = [seed for seed in range(540) if scored(seed)]  # two problems each: more than a thousand


@pytest.mark.parametrize("block", range(10))
def test_exact_solvers_equal_brute_force(block: int) -> None:
    for seed in SEEDS[block::10]:
        graph, source, scores, candidates, problem = random_problem(seed)
        everything = brute_force(graph, scores, source, candidates)
        r = random.Random(seed)
        anchor_us, _, _ = r.choice(everything)
        time_limit = round(anchor_us * 1e6)
        loss_limit = problem.measure(r.choice(everything)[2])[1]
        for objective in (Objective(minimise="loss", limit=time_limit), Objective(minimise="time", limit=loss_limit)):
            keys = []
            for _, _, widths in everything:
                time, loss = problem.measure(widths)
                keys.append(objective.key(time, loss))
            expected = min(keys)
            assert expected[0] == 0
            for solver in EXACT:
                found = solve(problem, objective, solver=solver)
                assert found is not None, (seed, solver)
                reached = objective.key(found.time, found.loss)
                if solver == "milp":  # HiGHS works in doubles with a tolerance
                    assert reached[0] == 0
                    assert reached[1] == pytest.approx(expected[1], rel=1e-9, abs=10), (seed, objective)
                else:
                    assert reached == expected, (seed, objective)
                if solver == "elimination" or seed % 3:  # ties in the scores differ by less than HiGHS resolves
                    assert found.is_optimal(objective), (seed, solver)
            if seed % 4:
                continue
            local = solve(problem, objective, solver="exchange")
            assert local is None or objective.key(local.time, local.loss) >= expected
            assert local is None or local.bound is None or local.solver == "only choice"


@pytest.mark.parametrize("seed", SEEDS[:40])
def test_evaluate_is_the_definition(seed: int) -> None:
    graph, source, scores, candidates, problem = random_problem(seed)
    for us, importance, widths in brute_force(graph, scores, source, candidates)[:50]:
        assert problem.evaluate(widths) == pytest.approx((us, importance), rel=1e-9, abs=1e-9)
        positions = problem.positions(widths)
        assert positions is not None
        assert problem.widths(positions) == widths
        assert (problem.time(positions), problem.loss(positions)) == problem.measure(widths)


@pytest.mark.parametrize("solver", EXACT)
def test_infeasible_is_no_answer(solver: str) -> None:
    *_, problem = random_problem(SEEDS[3])
    assert solve(problem, Objective(minimise="loss", limit=0), solver=solver) is None


def test_what_elimination_proves_impossible_nobody_else_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("elimination has proved that there is nothing to find")

    monkeypatch.setattr("tailprune.planning.milp.solve_milp", asked)
    monkeypatch.setattr(importlib.import_module("tailprune.planning.solve"), "solve_by_exchange", asked)
    for seed in SEEDS[:40]:
        *_, problem = random_problem(seed)
        if problem.num_variables:
            least = solve(problem, Objective(minimise="time", limit=10**15))
            assert least is not None
            assert solve(problem, Objective(minimise="loss", limit=least.time - 1)) is None
            assert solve(problem, Objective(minimise="loss", limit=least.time)) is not None
