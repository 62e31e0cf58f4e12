"""Which solver answers: exact first, local exchange where exact is out of reach."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, get_args

from ..core.errors import InvalidShape
from .eliminate import Infeasible, solve_by_elimination
from .exchange import solve_by_exchange
from .problem import Objective, Positions, Problem, Solution

Solver = Literal["auto", "elimination", "milp", "exchange"]


def solve(
    problem: Problem,
    objective: Objective,
    *,
    starts: Sequence[Positions] = (),
    solver: Solver = "auto",
    time_limit_s: float = 10.0,
) -> Solution | None:
    """The best widths found; None where no feasible ones were.

    `auto` eliminates; where the treewidth forbids that or the time ends before the proof, the rest of the time goes
    to the MILP, and where neither has an answer to exchange. The best answer is returned with the best bound.
    """
    if solver not in get_args(Solver):
        raise InvalidShape(f"Unknown solver {solver!r}; allowed: {', '.join(get_args(Solver))}.")
    if not problem.num_variables:
        only = problem.solution((), solver="only choice")
        over, reached, _ = objective.key(only.time, only.loss)
        return None if over else problem.solution((), solver="only choice", bound=reached)
    deadline = time.monotonic() + time_limit_s
    answers: list[Solution] = []

    if solver in ("auto", "elimination"):
        share = time_limit_s / 2 if solver == "auto" else time_limit_s
        try:
            answers += _given(solve_by_elimination(problem, objective, starts=starts, time_limit_s=share))
        except Infeasible:
            return None
    proved = any(answer.is_optimal(objective) for answer in answers)
    if solver in ("auto", "exchange") and not proved:
        share = time_limit_s / 4 if solver == "auto" else time_limit_s
        known = [*(answer.positions for answer in answers), *starts]
        answers += _given(solve_by_exchange(problem, objective, starts=known, time_limit_s=share))
    left = deadline - time.monotonic()
    if solver == "milp" or (solver == "auto" and not proved and left > 0):
        from .milp import solve_milp  # scipy takes half a second to load, and most problems are proved without it

        answers += _given(solve_milp(problem, objective, time_limit_s=left))
    feasible = [a for a in answers if objective.key(a.time, a.loss)[0] == 0]
    if not feasible:
        return None
    best = min(feasible, key=lambda a: objective.key(a.time, a.loss))
    bounds = [answer.bound for answer in answers if answer.bound is not None]
    return problem.solution(best.positions, solver=best.solver, bound=max(bounds, default=None))


def _given(answer: Solution | None) -> list[Solution]:
    return [] if answer is None else [answer]
