"""The decision: which width every group gets, and what that is expected to buy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NoReturn, get_args

from ..core.errors import InvalidShape, NoPlan
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from .candidates import Candidates, Policy, candidate_widths
from .costs import TICKS_PER_US, LayerCosts
from .describe import write_plan
from .limits import Limit, Resource, least_of, set_limits, solve_within
from .problem import UNITS_OF_IMPORTANCE, Objective, Problem, Solution, build_problem
from .solve import Solver, solve

Goal = Literal["faster", "better"]
#: Solving has at least this share of the time limit, whatever looking latencies up has taken of it.
SOLVING = 0.1
#: Policies that leave one width a group, so that nothing is left to optimise.
PLAIN = ("shrink", "nearest")


def plan_widths(
    graph: ModelGraph,
    scores: ChannelScores,
    *,
    latency: LatencySource,
    policy: Policy | None = None,
    goal: Goal | None = None,
    reach: int = 1,
    budget: Budget | None = None,
    limits: Mapping[Resource, int] | None = None,
    min_widths: Mapping[str, int] | None = None,
    max_widths: Mapping[str, int] | None = None,
    frozen: Collection[str] = (),
    every: int | None = None,
    floor: float | None = None,
    solver: Solver = "auto",
    time_limit_s: float = 10.0,
) -> WidthPlan:
    """Which width should each channel group have?

    With h the host's widths, T the sum of layer latencies and V the importance kept:

        faster   minimise T(k)  with V(k) >= V(h)
        better   maximise V(k)  with T(k) <= T(h), or at most the budget's latency where one is given

    over the widths the policy allows (`candidate_widths`). Equal T prefers the higher V, equal V the lower T. The
    host's own widths are always allowed, so the plan is never slower than the host and never scores less; where no
    widths are better, the plan is the host (`status="host"`) and says so. `shrink` and `nearest` follow their rule
    without optimising, and promise neither.

    `every`, `floor`, `reach`, `min_widths`, `max_widths` and `frozen` shape the choice as `candidate_widths` says.
    `limits` are counts that the plan may not exceed, of "macs" (of the traced batch) or "parameters" (norms folded).

    `policy` is `snap` by default; for scores without a host, and a budget, it is `reallocate`. `goal` is `faster` by
    default, `better` with a budget and when growing; `faster` with a budget must reach it at the host's score. `optimality_gap` is the
    share by which a better plan could still undercut this one's latency, or exceed its importance; None: not known.

    >>> from tailprune.core.graph import ChannelGroup, Layer, WidthExpr
    >>> from tailprune.core.scores import GroupScores
    >>> from tailprune.core.shapes import LayerShape
    >>> class Steps:
    ...     origin = "10 us for every 16 channels"
    ...     def latency_us(self, shape): return 10.0 * -(-shape.out_channels // 16)
    ...     def kind(self, shape): return "modelled"
    >>> conv = Layer(name="conv", shape=LayerShape(op="conv", batch=1, in_channels=3, out_channels=64),
    ...              in_expr=WidthExpr(constant=3), out_expr=WidthExpr(terms=(("conv", 1),)))
    >>> graph = ModelGraph(model="one", layers=(conv,), groups=(ChannelGroup(id="conv", width=64),), input_shape=(1, 3, 1, 1))
    >>> host = ChannelScores(groups=(GroupScores(group="conv", scores=(1.0,) * 64, host_kept=tuple(range(35))),))
    >>> plan_widths(graph, host, latency=Steps(), goal="better").widths      # 36..48 cost no more than 35
    {'conv': 48}

    `time_limit_s` is for all of it. Looking latencies up cannot stop half-way, though: where that leaves less than a tenth,
    solving has that tenth, and the plan's warnings say so. `plan_frontier` answers several budgets at once.

    Raises NoPlan below the floor, MissingLatency with all shapes that the source lacks, TableError for a latency that
    is no time.
    """
    if goal is not None and goal not in get_args(Goal):
        raise InvalidShape(f"Unknown goal {goal!r}; allowed: {', '.join(get_args(Goal))}.")
    if not time_limit_s > 0:
        raise InvalidShape(f"time_limit_s must be positive, got {time_limit_s!r}.")
    if budget is not None and not isinstance(budget, Budget):
        raise InvalidShape(
            f"plan_widths takes one Budget, such as Budget.fraction(0.6), got {budget!r}. For several, call plan_frontier "
            "once and read a plan off for each: frontier.plan(budget)."
        )
    started = time.monotonic()
    hostless = all(g.host_kept is None for g in scores.groups)
    chosen_policy: Policy = policy or ("reallocate" if hostless and budget is not None else "snap")
    chosen_goal: Goal = goal or ("faster" if budget is None and chosen_policy != "grow" else "better")
    costs = LayerCosts.over(latency)
    candidates = candidate_widths(
        graph, scores, costs, policy=chosen_policy, reach=reach,
        min_widths=min_widths, max_widths=max_widths, frozen=frozen, every=every, floor=floor,
    )  # fmt: skip
    problem = build_problem(graph, scores, costs, candidates.widths)
    looked_up_s = time.monotonic() - started
    solving_s = max(time_limit_s - looked_up_s, SOLVING * time_limit_s)
    if looked_up_s > (1 - SOLVING) * time_limit_s:
        note = (
            f"looking latencies up took {looked_up_s:.1f} s of the {time_limit_s:g} s allowed, and cannot stop half-way: "
            f"solving had {solving_s:.1f} s; raise time_limit_s, or give a LayerCosts to several plans"
        )
        candidates = dataclasses.replace(candidates, warnings=(*candidates.warnings, note))
    host_widths = {**graph.widths, **scores.host_widths}
    host_time, host_loss = problem.measure(host_widths)
    original_us = costs.total(graph, graph.widths) / TICKS_PER_US
    budget_us = None if budget is None else budget.resolve(original_us=original_us, host_us=host_time / TICKS_PER_US)
    limit = host_time if budget_us is None or (budget and budget.of_host) else int(budget_us * TICKS_PER_US)

    start = problem.positions(host_widths)
    if limits and chosen_policy in PLAIN:
        raise InvalidShape(
            f"Policy {chosen_policy} follows its rule and keeps no limits; use snap, grow or reallocate."
        )
    if chosen_policy in PLAIN:
        found = problem.solution((), solver="rule")
        objective = Objective(minimise="time", limit=found.loss)
    else:
        faster = chosen_goal == "faster"
        objective = Objective(minimise="time" if faster else "loss", limit=host_loss + problem.tie if faster else limit)
        starts = [] if start is None else [start]
        if limits:
            bound = set_limits(problem, limits)
            answer = solve_within(problem, objective, bound, starts=starts, time_limit_s=solving_s)
            found = answer or _refuse_limits(problem, objective, bound)
        else:
            answer = solve(problem, objective, starts=starts, solver=solver, time_limit_s=solving_s)
            found = answer or _cheapest(problem, objective, candidates, solver, solving_s)
    if budget_us is not None and found.time > limit:
        _refuse_budget(problem, found, budget_us, candidates, chosen_policy, chosen_goal)
    if start is not None and found.time == host_time and host_loss <= found.loss <= host_loss + problem.tie:
        found = problem.solution(start, solver=found.solver, bound=found.bound)  # of equals, the one that moves nothing
    return write_plan(
        problem, found, objective, candidates=candidates, policy=chosen_policy,
        goal="rule" if chosen_policy in PLAIN else chosen_goal, reach=reach if chosen_policy == "snap" else None,
        original_us=original_us, host_widths=host_widths, budget_us=budget_us, frozen=frozen,
    )  # fmt: skip


def _cheapest(
    problem: Problem, objective: Objective, candidates: Candidates, solver: Solver, time_limit_s: float
) -> Solution:
    """The floor, where the objective's limit could not be met: the plan if it meets the limit after all."""
    if objective.minimise == "time":
        lost = min(int(loss.min()) for loss in problem.losses) if problem.losses else 0
        reachable = (problem.best_value - lost) / UNITS_OF_IMPORTANCE
        raise NoPlan(
            f"No allowed widths keep the host's importance of {(problem.best_value - objective.limit) / UNITS_OF_IMPORTANCE:.2%}; "
            f"at most {reachable:.2%} can be kept. Raise max_widths."
        )
    floor = Objective(minimise="time", limit=sum(int(loss.max()) for loss in problem.losses))
    found = solve(problem, floor, solver=solver, time_limit_s=time_limit_s)
    if found is None:
        raise NoPlan(f"No plan was found within {time_limit_s:g} s. Raise time_limit_s, or lower reach.")
    if found.time > objective.limit:
        _refuse_budget(problem, found, objective.limit / TICKS_PER_US, candidates, "", "better")
    return problem.solution(found.positions, solver=found.solver)


def _refuse_limits(problem: Problem, objective: Objective, limits: Sequence[Limit]) -> NoReturn:
    """Nothing was found within all limits: what each of them alone needs at least."""
    if objective.minimise == "loss":
        asked = f"{objective.limit / TICKS_PER_US:,.1f} us"
    else:
        asked = f"the host's importance of {(problem.best_value - objective.limit) / UNITS_OF_IMPORTANCE:.2%}"
    each = "; ".join(
        f"{limit.resource} {limit.most:,}, of which {least_of(problem, limit):,} at least" for limit in limits
    )
    raise NoPlan(f"No plan was found within {asked} and {each}. Raise one of them, or lower floor or min_widths.")


def _refuse_budget(
    problem: Problem, floor: Solution, budget_us: float, candidates: Candidates, policy: str, goal: str
) -> NoReturn:
    floor_us = floor.time / TICKS_PER_US
    if policy in PLAIN:
        what = f"the only plan of policy {policy}"
    elif goal == "faster":
        what = "the cheapest plan at the host's importance"
    else:
        what = "the cheapest plan"
    widths = problem.widths(floor.positions)
    held = [f"{g.id} at {widths[g.id]}" for g in problem.graph.groups if widths[g.id] == candidates.widths[g.id][0]]
    shown = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
    raise NoPlan(
        f"Budget {budget_us:,.1f} us is below {what}, {floor_us:,.1f} us (held up by groups at their narrowest allowed "
        f"width: {shown or 'none'}). Raise the budget, raise reach or use policy reallocate, or lower min_widths."
    )
