"""Local exchange: good widths where an exact answer is out of reach."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .problem import Objective, Positions, Problem, Solution, Table
from .structure import Integers

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

    def single_moves(self, positions: Sequence[int]) -> tuple[Integers, Integers]:
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
                before = tuple(here)
                for v, tables in enumerate(self.touched):
                    if time.monotonic() > deadline:
                        return ends
                    costs = []
                    for p in range(len(problem.losses[v])):
                        trial = [*here[:v], p, *here[v + 1 :]]
                        costs.append(self._time_of(tables, trial) + step * ratio * float(problem.losses[v][p]))
                    chosen = int(np.argmin(costs))
                    here[v] = chosen if costs[chosen] < costs[here[v]] else here[v]
                if tuple(here) == before:
                    break
            ends.append(tuple(here))
        return list(dict.fromkeys(ends))

    def improve(self, start: Positions, objective: Objective, deadline: float) -> Positions:
        """Moves alone, and in pairs where no single move helps, until neither does."""
        here, now = start, (self.problem.time(start), self.problem.loss(start))
        while time.monotonic() <= deadline:
            times, losses = self.single_moves(here)
            after_time, after_loss = now[0] + times, now[1] + losses
            best = int(_ranked(objective, after_time, after_loss)[0])
            trials = [(self._moved(here, best), (int(after_time[best]), int(after_loss[best])))]
            if objective.key(*trials[0][1]) >= objective.key(*now):
                trials = [
                    (trial, (self.problem.time(trial), self.problem.loss(trial)))
                    for trial in (self._moved(here, i, j) for i, j in self._pairs(here, now, times, losses, objective))
                ]
            better = min(trials, key=lambda trial: objective.key(*trial[1]), default=(here, now))
            if objective.key(*better[1]) >= objective.key(*now):
                break
            here, now = better
        return here

    def _moved(self, here: Positions, *moves: int) -> Positions:
        changed = dict(self.moves[i] for i in moves)
        return tuple(changed.get(v, p) for v, p in enumerate(here))

    def _pairs(
        self, here: Positions, now: tuple[int, int], times: Integers, losses: Integers, objective: Objective
    ) -> list[tuple[int, int]]:
        """Pairs of moves of two variables, by what the sum of the single moves promises."""
        moving = np.array([i for i, (v, p) in enumerate(self.moves) if p != here[v]], dtype=np.intp)
        owner = np.array([self.moves[i][0] for i in moving])
        left, right = np.nonzero(owner[:, None] < owner)
        one, other = moving[left], moving[right]
        order = _ranked(objective, now[0] + times[one] + times[other], now[1] + losses[one] + losses[other])
        return [(int(one[k]), int(other[k])) for k in order[:JOINT_PAIRS]]


def _ranked(objective: Objective, times: Integers, losses: Integers) -> NDArray[np.intp]:
    """Best first, by (violation, objective, other)."""
    first, second = (times, losses) if objective.minimise == "time" else (losses, times)
    return np.lexsort((second, first, np.maximum(0, second - objective.limit)))
