"""Exact planning by variable elimination: a Lagrangian bound first, then Pareto fronts that it prunes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from .exchange import improve_locally
from .fronts import OutOfRoom, best_under_bound
from .problem import Objective, Positions, Problem, Solution
from .tree import Tree, build_tree

#: Prices tried at most. Each step lands on a vertex of the lower hull; a dozen usually suffice.
MAX_PRICES = 60
#: Share of the time for improving the best point of the hull by exchange: a better plan prunes more.
LOCAL_SHARE = 0.2
#: The optimum usually lies this near above the bound (as shares of it). Each is tried as if it were the best known plan:
#: what is found at or below it is optimal, and the nearer it is the more is pruned.
NARROW = (1e-4, 1e-3, 1e-2, 2e-2, 4e-2, 8e-2)


def solve_by_elimination(
    problem: Problem, objective: Objective, *, starts: Sequence[Positions] = (), time_limit_s: float = 10.0
) -> Solution | None:
    """The best widths with proof, where the groups' interaction graph has a small treewidth; None where it has not,
    or where nothing is feasible.

    With f the minimised quantity, h the other and H its limit, elimination gives for a price y >= 0

        bound(y) = min over k of  f(k) + y (h(k) - H)  <=  optimum.

    The best price comes from the two points that bracket H on the lower hull of (h, f). With it, everything that
    provably cannot beat the best known plan is dropped: first single candidates, then partial plans, kept as Pareto
    fronts of (f, h) per state of a separator. If the fronts outgrow memory or time, the best known plan is returned
    with its proved bound.
    """
    deadline = time.monotonic() + time_limit_s
    tree = build_tree(problem)
    if tree is None:
        return None
    price, bound, hull = _best_price(tree, problem, objective, deadline)
    starts = sorted({*starts, *hull}, key=lambda p: (objective.key(problem.time(p), problem.loss(p)), p))
    if not starts or objective.key(problem.time(starts[0]), problem.loss(starts[0]))[0]:
        return None
    best = improve_locally(problem, objective, starts[0], deadline=time.monotonic() + LOCAL_SHARE * time_limit_s)
    reached = objective.key(problem.time(best), problem.loss(best))[1]
    for upper in (*(bound + int(share * max(abs(bound), 1)) for share in NARROW), reached):
        try:
            found = best_under_bound(
                tree, problem, objective, price=price, upper=min(upper, reached), deadline=deadline
            )
        except OutOfRoom:
            break
        if found is not None:
            value = objective.key(problem.time(found), problem.loss(found))[1]
            if value <= min(upper, reached):
                return problem.solution(found, solver="elimination", bound=value)
            best, reached = (found, value) if value < reached else (best, reached)
        bound = max(bound, min(upper, reached))  # nothing is as good as that
    return problem.solution(best, solver="elimination", bound=min(bound, reached))


def _best_price(
    tree: Tree, problem: Problem, objective: Objective, deadline: float
) -> tuple[float, int, list[Positions]]:
    """The price of the tightest bound, that bound, and the feasible plans met on the way."""
    by_time = objective.minimise == "time"

    def at(first_weight: float, second_weight: float) -> tuple[int, int, Positions]:
        weights = (first_weight, second_weight) if by_time else (second_weight, first_weight)
        positions = tree.cheapest(*weights)
        first, second = problem.time(positions), problem.loss(positions)
        return (first, second, positions) if by_time else (second, first, positions)

    cheap = at(1.0, 0.0)
    if cheap[1] <= objective.limit:
        return 0.0, cheap[0], [cheap[2]]
    safe = at(0.0, 1.0)
    if safe[1] > objective.limit:
        return 0.0, cheap[0], []
    bound, price, hull = float(cheap[0]), 0.0, [safe[2]]
    for _ in range(MAX_PRICES):
        if safe[0] <= cheap[0] or time.monotonic() > deadline:
            break
        price_now = (safe[0] - cheap[0]) / (cheap[1] - safe[1])
        middle = at(1.0, price_now)
        value = middle[0] + price_now * (middle[1] - objective.limit)
        if value > bound:
            bound, price = value, price_now
        on_line = safe[0] + price_now * (safe[1] - objective.limit)
        if middle[1] <= objective.limit:
            hull.append(middle[2])
        if value >= on_line - 1e-9 * abs(on_line) - 1.0:
            break
        if middle[1] <= objective.limit:
            safe = middle
        else:
            cheap = middle
    # doubles carry 53 bits: what a sum of them may be off by is taken from the bound
    return price, int(np.floor(bound - 1e-9 * abs(bound) - 1.0)), hull
