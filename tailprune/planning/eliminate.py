"""Exact planning by variable elimination: the price with the best bound first, then every plan near that bound."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from .fronts import OutOfRoom, Plans, plans_near
from .messages import DOUBT, Priced, price
from .problem import Objective, Positions, Problem, Solution
from .tree import Tree, build_tree

#: Prices tried at most. Each step lands on a vertex of the lower hull; a dozen usually suffice.
MAX_PRICES = 60
#: Windows above the bound, as shares of what separates it from the best vertex: the nearer the optimum lies, the less
#: there is to look at, so each is tried before the next.
WINDOWS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


class Infeasible(Exception):
    """Elimination has proved that no plan keeps the limit: nobody else need look."""


def solve_by_elimination(
    problem: Problem,
    objective: Objective,
    *,
    starts: Sequence[Positions] = (),
    time_limit_s: float = 10.0,
    listed: list[Plans] | None = None,
) -> Solution | None:
    """The best widths with proof, where the groups' interaction graph has a small treewidth; None where it has not.
    Raises Infeasible where nothing keeps the limit.

    With f the minimised quantity, h the other and H its limit, elimination gives for a price y >= 0

        bound(y) = min over k of  f(k) + y (h(k) - H)  <=  optimum.

    The best price comes from the two points that bracket H on the lower hull of (h, f). A plan with f(k) <= U and
    h(k) <= H costs at most U - bound(y) more than the cheapest at that price: all undominated plans within such a
    window are listed, U rising from the bound. Where one of them fits H it is optimal, ties included; where none
    does, U is a new bound. All plans met go to `listed`, where one is given. If the fronts outgrow memory or time, the best known plan is returned with its bound.
    """
    deadline = time.monotonic() + time_limit_s
    tree = build_tree(problem)
    if tree is None:
        return None
    priced, bound, known = _best_price(tree, problem, objective, deadline)
    best = min((*known, *starts), key=lambda p: (objective.key(problem.time(p), problem.loss(p)), p))
    reached = objective.key(problem.time(best), problem.loss(best))[1]
    base, room = bound, reached - bound
    for share in WINDOWS:
        upper = min(base + int(share * room), reached)
        try:
            plans = plans_near(priced, upper - base, deadline=deadline)
        except OutOfRoom:
            break
        if listed is not None:
            listed.append(plans)
        found = _first_within(plans, problem, objective)
        if found is not None:
            value = objective.key(problem.time(found), problem.loss(found))[1]
            if value <= upper:
                return problem.solution(found, solver="elimination", bound=value)
            if value < reached:
                best, reached = found, value
        bound = max(bound, min(upper, reached))  # nothing is as good as that
    return problem.solution(best, solver="elimination", bound=min(bound, reached))


def _first_within(plans: Plans, problem: Problem, objective: Objective) -> Positions | None:
    """The best of these plans that keeps the limit."""
    if objective.minimise == "time":
        fits = np.flatnonzero(plans.loss <= objective.limit)[:1]
    else:
        fits = np.flatnonzero(plans.time + problem.fixed_time <= objective.limit)[-1:]
    return tuple(int(p) for p in plans.positions[fits[0]]) if len(fits) else None


def _best_price(
    tree: Tree, problem: Problem, objective: Objective, deadline: float
) -> tuple[Priced, int, list[Positions]]:
    """The tree at the price of the tightest bound, that bound, and the feasible plans met on the way."""
    by_time = objective.minimise == "time"
    fixed, fixed_other = (problem.fixed_time, 0) if by_time else (0, problem.fixed_time)

    def at(tree: Tree, weight: float, other_weight: float) -> tuple[int, int, Priced, Positions]:
        priced = price(tree, *((weight, other_weight) if by_time else (other_weight, weight)))
        positions = priced.cheapest()
        first, second = problem.time(positions), problem.loss(positions)
        return (first, second, priced, positions) if by_time else (second, first, priced, positions)

    cheap = at(tree, 1.0, 0.0)
    safe = at(tree, 0.0, 1.0)
    if cheap[1] <= objective.limit:
        return cheap[2], cheap[0], [cheap[3]]
    if safe[1] > objective.limit:
        raise Infeasible
    bound, best, known = float(cheap[0]), cheap[2], [safe[3]]
    for _ in range(MAX_PRICES):
        if safe[0] <= cheap[0] or time.monotonic() > deadline:
            break
        price_now = (safe[0] - cheap[0]) / (cheap[1] - safe[1])
        middle = at(tree, 1.0, price_now)
        value = middle[2].least + fixed + price_now * (fixed_other - objective.limit)
        if value > bound:
            bound, best = value, middle[2]
        if middle[1] <= objective.limit:
            known.append(middle[3])
        if middle[0] + price_now * middle[1] >= (safe[0] + price_now * safe[1]) * (1 - DOUBT) - 1.0:
            break
        if middle[1] <= objective.limit:
            safe = middle
        else:
            cheap = middle
        # what lies further above the bound than the best plan known beats nothing: each step has less to look at
        tree = middle[2].narrowed(safe[0] - value)
    doubt = DOUBT * (abs(best.least) + abs(best.weights[1 if by_time else 0] * objective.limit)) + 1.0
    return best, int(np.floor(bound - doubt)), known
