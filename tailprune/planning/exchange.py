"""Local exchange: good widths where an exact answer is out of reach."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .problem import Objective, Positions, Problem, Solution, Table

#: Prices of a unit of the limited quantity at which a descent starts, spread around the ratio of the two ranges.
PRICE_STEPS = tuple(4.0**exponent for exponent in range(-4, 5))
#: Pairs are ranked by the sum of their single moves; this many of the best are priced jointly before a sweep gives up.
JOINT_PAIRS = 64


def solve_by_exchange(
    problem: Problem, objective: Objective, *, starts: Sequence[Positions] = (), time_limit_s: float = 10.0
) -> Solution | None:
    """The best widths that single and paired moves reach from several starts; no bound. None if none was feasible.

    From every start (those given, then one descent per price), groups move alone or in pairs, with true joint costs,
    as long as (violation, objective, other) falls. Deterministic.
    """
    deadline = time.monotonic() + time_limit_s
    walker = _Walker(problem)
    best: tuple[tuple[int, int, int], Positions] | None = None
    for start in [*starts, *walker.descents(objective, starts, deadline)]:
        here = walker.improve(start, objective, deadline)
        key = objective.key(problem.time(here), problem.loss(here))
        if best is None or (key, here) < best:
            best = key, here
        if time.monotonic() > deadline:
            break
    if best is None or best[0][0] > 0:
        return None
    return problem.solution(best[1], solver="exchange")


def improve_locally(problem: Problem, objective: Objective, start: Positions, *, deadline: float) -> Positions:
    """Where single and paired moves lead from one start."""
    return _Walker(problem).improve(start, objective, deadline)


class _Walker:
    """Knows which tables a move touches."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.touched: list[list[Table]] = [[] for _ in range(problem.num_variables)]
        for table in problem.tables:
            for variable in {v for axis in table.axes for v, _ in problem.structure.axes[axis].terms}:
                self.touched[variable].append(table)
        self.moves = [(v, p) for v, allowed in enumerate(problem.structure.candidates) for p in range(len(allowed))]

    def _time_of(self, tables: Sequence[Table], positions: Sequence[int]) -> int:
        return sum(table.at(self.problem.cell(table.axes, positions)) for table in tables)

    def single_moves(self, positions: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What every move (variable, position) adds to time and loss, staying put included."""
        times, losses, trial = [], [], list(positions)
        before = [self._time_of(tables, positions) for tables in self.touched]
        for v, p in self.moves:
            trial[v] = p
            times.append(self._time_of(self.touched[v], trial) - before[v] if p != positions[v] else 0)
            losses.append(int(self.problem.losses[v][p] - self.problem.losses[v][positions[v]]))
            trial[v] = positions[v]
        return np.array(times, dtype=np.int64), np.array(losses, dtype=np.int64)

    def descents(self, objective: Objective, starts: Sequence[Positions], deadline: float) -> list[Positions]:
        """Where coordinate descent on `objective + price x other` ends, for each price."""
        problem = self.problem
        start = starts[0] if starts else tuple(len(allowed) - 1 for allowed in problem.structure.candidates)
        times, losses = self.single_moves(start)
        ratio = (float(np.abs(times).sum()) + 1.0) / (float(np.abs(losses).sum()) + 1.0)
        ends: list[Positions] = []
        for step in PRICE_STEPS:
            here = list(start)
            for _ in range(len(here) + 1):
                if time.monotonic() > deadline:
                    return ends
                changed = False
                for v, tables in enumerate(self.touched):
                    costs = []
                    for p in range(len(problem.losses[v])):
                        trial = [*here[:v], p, *here[v + 1 :]]
                        costs.append(self._time_of(tables, trial) + step * ratio * float(problem.losses[v][p]))
                    chosen = int(np.argmin(costs))
                    changed |= costs[chosen] < costs[here[v]]
                    here[v] = chosen if costs[chosen] < costs[here[v]] else here[v]
                if not changed:
                    break
            ends.append(tuple(here))
        return list(dict.fromkeys(ends))

    def improve(self, start: Positions, objective: Objective, deadline: float) -> Positions:
        """Moves alone, and in pairs where no single move helps, until neither does."""
        problem, here = self.problem, list(start)
        now_time, now_loss = problem.time(here), problem.loss(here)
        while time.monotonic() <= deadline:
            times, losses = self.single_moves(here)
            moved = self._best_move(here, now_time, now_loss, times, losses, objective)
            if moved is None:
                break
            here, now_time, now_loss = moved
        return tuple(here)

    def _best_move(
        self,
        here: list[int],
        now_time: int,
        now_loss: int,
        times: NDArray[np.int64],
        losses: NDArray[np.int64],
        objective: Objective,
    ) -> tuple[list[int], int, int] | None:
        now = objective.key(now_time, now_loss)
        best, chosen = now, None
        for i, (v, p) in enumerate(self.moves):
            key = objective.key(now_time + int(times[i]), now_loss + int(losses[i]))
            if key < best:
                best, chosen = (
                    key,
                    ([*here[:v], p, *here[v + 1 :]], now_time + int(times[i]), now_loss + int(losses[i])),
                )
        if chosen is not None:
            return chosen
        for i, j in self._promising_pairs(here, now_time, now_loss, times, losses, objective):
            (v, p), (w, q) = self.moves[i], self.moves[j]
            trial = list(here)
            trial[v], trial[w] = p, q
            new_time, new_loss = self.problem.time(trial), now_loss + int(losses[i] + losses[j])
            key = objective.key(new_time, new_loss)
            if key < best:
                best, chosen = key, (trial, new_time, new_loss)
        return chosen

    def _promising_pairs(
        self,
        here: list[int],
        now_time: int,
        now_loss: int,
        times: NDArray[np.int64],
        losses: NDArray[np.int64],
        objective: Objective,
    ) -> list[tuple[int, int]]:
        """Pairs of moves of two variables, by what the sum of the single moves promises."""
        moving = [i for i, (v, p) in enumerate(self.moves) if p != here[v]]
        owner = [self.moves[i][0] for i in moving]
        times, losses = times[moving], losses[moving]
        time_sum, loss_sum = now_time + times[:, None] + times, now_loss + losses[:, None] + losses
        first, second = (time_sum, loss_sum) if objective.minimise == "time" else (loss_sum, time_sum)
        order = np.lexsort((second.ravel(), first.ravel(), np.maximum(0, second - objective.limit).ravel()))
        pairs = []
        for flat in order:
            i, j = divmod(int(flat), len(owner))
            if owner[i] < owner[j]:
                pairs.append((moving[i], moving[j]))
                if len(pairs) == JOINT_PAIRS:
                    break
        return pairs
