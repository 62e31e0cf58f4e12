"""Budgets beside the latency: parameters and multiply-adds, counted exactly, priced into the time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidShape
from ..core.shapes import LayerShape
from .eliminate import Infeasible, solve_by_elimination
from .fronts import Plans
from .problem import Objective, Positions, Problem, Solution, Table
from .structure import Integers, Seen, channels_over

Resource = Literal["macs", "parameters"]
#: Prices tried for each limit. Every one halves the interval of its logarithm; what is left of the gap is reported.
ROUNDS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit:
    """At most so much of a resource. `counts` are what each of the problem's tables takes of it, by position."""

    resource: Resource
    most: int
    fixed: int
    counts: tuple[Integers, ...]


def set_limits(problem: Problem, limits: Mapping[Resource, int]) -> tuple[Limit, ...]:
    """The limits with all that has to be counted for them."""
    for resource, most in limits.items():
        if resource not in get_args(Resource):
            raise InvalidShape(f"Unknown resource {resource!r}; allowed: {', '.join(get_args(Resource))}.")
        if not (math.isfinite(most) and most > 0):
            raise InvalidShape(f"The limit on {resource} must be positive and finite, got {most!r}.")
    if limits and not problem.complete:
        raise InvalidShape(
            f"Limits on {', '.join(limits)} need every table filled, and the concatenations of {problem.graph.model} "
            "reach too many sums. Use a latency budget alone, or a coarser `every`."
        )
    return tuple(
        Limit(
            resource=resource,
            most=int(most),
            fixed=int(sum(_counted(seen, resource, (), ()) for seen in problem.structure.fixed)),
            counts=tuple(
                sum(
                    (_counted(seen, resource, t.axes, t.ticks.shape) for seen in t.layers if t.ticks is not None),
                    np.zeros(1, dtype=np.int64),
                )
                for t in problem.tables
            ),
        )
        for resource, most in limits.items()
    )


def solve_within(
    problem: Problem,
    objective: Objective,
    limits: Sequence[Limit],
    *,
    starts: Sequence[Positions] = (),
    time_limit_s: float,
) -> Solution | None:
    """The best widths within the limits, and a bound; None where none were found.

    With C_j the counts, m_j their limits and prices y_j >= 0, any plan within all limits also satisfies

        T(k) + sum_j y_j C_j(k)  <=  B + sum_j y_j m_j,

    one constraint in place of several: the best plan under it bounds the best within all, and where it keeps all of
    them it is that (a surrogate; Glover, Operations Research 16, 1968). For the goal of least time the priced time
    itself is minimised, and sum_j y_j m_j subtracted. The prices are bisected, up where a limit is broken; every plan
    listed on the way that keeps all limits counts.
    """
    deadline = time.monotonic() + time_limit_s
    best: Solution | None = None
    bound = -math.inf
    low, high = [0.0] * len(limits), [math.inf] * len(limits)
    prices = [0.0] * len(limits)
    for _ in range(1 + ROUNDS * len(limits)):
        listed: list[Plans] = []
        priced, allowance = _priced(problem, limits, prices)
        loss_first = objective.minimise == "loss"
        changed = dataclasses.replace(objective, limit=objective.limit + allowance) if loss_first else objective
        left = max(deadline - time.monotonic(), 0.05)
        try:
            answer = solve_by_elimination(priced, changed, starts=starts, time_limit_s=left, listed=listed)
        except Infeasible:
            return None
        if answer is None:
            return None
        bound = max(bound, (answer.bound if answer.bound is not None else -math.inf) - (0 if loss_first else allowance))
        here = np.array([answer.positions], dtype=np.intp)
        rows = np.concatenate([here, *(np.array([s], dtype=np.intp) for s in starts), *(p.positions for p in listed)])
        best = _better(problem, objective, limits, rows, best)
        taken = [int(problem.totals(here, limit.counts, limit.fixed)[0]) for limit in limits]
        done = best is not None and objective.key(best.time, best.loss)[1] <= bound
        if done or time.monotonic() > deadline:
            break
        for j, limit in enumerate(limits):
            if taken[j] > limit.most:
                low[j] = prices[j]
                prices[j] = math.sqrt(low[j] * high[j]) if math.isfinite(high[j]) and low[j] else 4 * prices[j]
                prices[j] = prices[j] or max(problem.time(answer.positions), 1) / limit.most / 16
            elif prices[j]:
                high[j] = prices[j]
                prices[j] = math.sqrt(low[j] * high[j]) if low[j] else prices[j] / 4
    if best is None:
        return None
    return dataclasses.replace(
        best, bound=None if bound == -math.inf else int(min(bound, objective.key(best.time, best.loss)[1]))
    )


def least_of(problem: Problem, limit: Limit) -> int:
    """The least of its resource that any widths take."""
    tables = tuple(_table(t, counts) for t, counts in zip(problem.tables, limit.counts, strict=True))
    only = dataclasses.replace(problem, tables=tables, fixed_time=limit.fixed)
    everything = Objective(minimise="time", limit=sum(int(loss.max()) for loss in problem.losses))
    found = solve_by_elimination(only, everything)
    return limit.fixed if found is None else found.time


def _better(
    problem: Problem, objective: Objective, limits: Sequence[Limit], rows: NDArray[np.intp], best: Solution | None
) -> Solution | None:
    """The best of `best` and those of the rows of positions that keep every limit."""
    for limit in limits:
        rows = rows[problem.totals(rows, limit.counts, limit.fixed) <= limit.most]
    ticks = problem.totals(rows, [t.ticks for t in problem.tables if t.ticks is not None], problem.fixed_time)
    loss = sum((lost[rows[:, v]] for v, lost in enumerate(problem.losses)), np.zeros(len(rows), dtype=np.int64))
    first, second = (ticks, loss) if objective.minimise == "time" else (loss, ticks)
    order = np.lexsort((second, first, np.maximum(0, second - objective.limit)))
    if not len(order) or second[order[0]] > objective.limit:
        return best
    found = problem.solution(tuple(int(p) for p in rows[order[0]]), solver="elimination")
    if best is not None and objective.key(best.time, best.loss) <= objective.key(found.time, found.loss):
        return best
    return found


def _priced(problem: Problem, limits: Sequence[Limit], prices: Sequence[float]) -> tuple[Problem, int]:
    """The problem with counts added to its time, rounded down, and what the limits add to its budget, rounded up."""
    tables = []
    for i, table in enumerate(problem.tables):
        ticks = np.zeros(1, dtype=np.int64) if table.ticks is None else table.ticks
        for price, limit in zip(prices, limits, strict=True):
            ticks = ticks + np.floor(price * limit.counts[i]).astype(np.int64)
        tables.append(_table(table, ticks))
    fixed = problem.fixed_time + sum(math.floor(p * limit.fixed) for p, limit in zip(prices, limits, strict=True))
    allowance = sum(math.ceil(p * limit.most) for p, limit in zip(prices, limits, strict=True))
    return dataclasses.replace(problem, tables=tuple(tables), fixed_time=fixed), allowance


def _table(table: Table, ticks: Integers) -> Table:
    other = Table(table.axes, table.layers, table.structure, table.costs)
    other.ticks = np.broadcast_to(ticks, table.ticks.shape)  # type: ignore[union-attr]
    return other


def _counted(seen: Seen, resource: Resource, axes: tuple[int, ...], shape: tuple[int, ...]) -> Integers:
    """What a layer takes at every cell: counts are bilinear in the two channel counts, so four corners give all."""
    layer = seen.layer
    ins, outs = channels_over(seen, axes, shape)

    def at(in_channels: int, out_channels: int) -> int:
        sized = layer.shape.with_channels(in_channels=int(in_channels), out_channels=int(out_channels))
        return layer.calls * sized.macs if resource == "macs" else sized.num_parameters

    low_in, high_in, low_out, high_out = ins.min(), ins.max(), outs.min(), outs.max()
    if _one_count(layer.shape):
        slope = at(high_in, high_out) - at(low_in, low_out)
        return at(low_in, low_out) + (ins - low_in) * slope // max(high_in - low_in, 1)
    base, wider_in, wider_out = at(low_in, low_out), at(high_in, low_out), at(low_in, high_out)
    both = at(high_in, high_out) - wider_in - wider_out + base
    more_in, more_out = ins - low_in, outs - low_out
    span_in, span_out = max(high_in - low_in, 1), max(high_out - low_out, 1)
    return (
        base
        + more_in * (wider_in - base) // span_in
        + more_out * (wider_out - base) // span_out
        + more_in * more_out * both // (span_in * span_out)
    )


def _one_count(shape: LayerShape) -> bool:
    return shape.depthwise or shape.op not in ("conv", "linear", "attention")
