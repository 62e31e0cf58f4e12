"""The exact judge: the joint problem as a mixed-integer linear program."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from .problem import Objective, Problem, Solution
from .structure import cells_of

#: HiGHS judges rows and gaps to this, absolute; both quantities are scaled so that their largest coefficient is SCALE.
TOLERANCE = 1e-6
SCALE = 1e5
#: What a bound of HiGHS may miss by, as a share: a plan this near to it counts as proved.
RESOLUTION = 1e-8
#: A plan that breaks the limit by less than HiGHS sees is excluded and the program solved again, this often.
ATTEMPTS = 20


def solve_milp(problem: Problem, objective: Objective, *, time_limit_s: float = 10.0) -> Solution | None:
    """The best widths and a proved bound; None if nothing was found in time, or nothing is feasible.

    Binary x[v, p] chooses position p of variable v, binary z[a, s] the value s of a sum axis a, and continuous
    y[t, cell] >= 0 picks one cell of each table over two axes:

        sum_p x[v, p] = 1        sum_s s z[a, s] = sum over terms of times x width x x        sum over row of y = x or z

    A second solve settles ties: the least of the other quantity at the objective's optimum.
    """
    if not problem.complete:
        return None
    started = time.monotonic()
    program = _Program(problem)
    first = program.solve(objective, time_limit_s)
    if first is None:
        return None
    left = time_limit_s - (time.monotonic() - started)
    if not first.is_optimal(objective) or left <= 0:
        return first
    other: Objective
    if objective.minimise == "time":
        other = Objective(minimise="loss", limit=first.time)
    else:
        other = Objective(minimise="time", limit=first.loss)
    second = program.solve(other, left)
    if second is None or objective.key(second.time, second.loss) >= objective.key(first.time, first.loss):
        return first
    return problem.solution(second.positions, solver="milp", bound=first.bound)


class _Program:
    """Columns and rows of the program, built once and solved under several objectives."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.rows: list[tuple[list[int], list[float], float]] = []
        self.time: list[int] = []
        self.loss: list[int] = []
        self.binary: list[bool] = []
        self.axis_columns = [self._choice(len(axis.values)) for axis in problem.structure.axes]
        count = problem.num_variables
        for v, losses in enumerate(problem.losses):
            for column, loss in zip(self.axis_columns[v], losses, strict=True):
                self.loss[column] = int(loss)
        for axis, columns in zip(problem.structure.axes[count:], self.axis_columns[count:], strict=True):
            entries = [(column, float(value)) for column, value in zip(columns, axis.values, strict=True)]
            for v, times in axis.terms:
                entries += [
                    (column, -float(times * width))
                    for column, width in zip(self.axis_columns[v], problem.structure.candidates[v], strict=True)
                ]
            self._equal(entries, 0.0)
        for table in problem.tables:
            if len(table.axes) == 1:
                for position, column in enumerate(self.axis_columns[table.axes[0]]):
                    self.time[column] += table.at((position,))
            else:
                self._pairs(table.axes, {cell: table.at(cell) for cell in cells_of(problem.structure, table.axes)})

    def _column(self, *, binary: bool, time: int = 0) -> int:
        self.time.append(time)
        self.loss.append(0)
        self.binary.append(binary)
        return len(self.time) - 1

    def _choice(self, size: int) -> list[int]:
        columns = [self._column(binary=True) for _ in range(size)]
        self._equal([(column, 1.0) for column in columns], 1.0)
        return columns

    def _pairs(self, axes: tuple[int, ...], cells: dict[tuple[int, ...], int]) -> None:
        columns = {cell: self._column(binary=False, time=ticks) for cell, ticks in cells.items()}
        for end, axis in enumerate(axes):
            for position, chosen in enumerate(self.axis_columns[axis]):
                entries = [(column, 1.0) for cell, column in columns.items() if cell[end] == position]
                self._equal([*entries, (chosen, -1.0)], 0.0)

    def _equal(self, entries: Iterable[tuple[int, float]], value: float) -> None:
        columns, weights = zip(*entries, strict=True)
        self.rows.append((list(columns), list(weights), value))

    def solve(self, objective: Objective, time_limit_s: float) -> Solution | None:
        """One objective; plans that the integers find over the limit are excluded."""
        by_time = objective.minimise == "time"
        first, second = (self.time, self.loss) if by_time else (self.loss, self.time)
        fixed_first, fixed_second = (self.problem.fixed_time, 0) if by_time else (0, self.problem.fixed_time)
        goal, weight = _scaled(first)
        row, row_weight = _scaled(second)
        matrix, right = self._matrix()
        # two tolerances above the limit, so that what lies exactly on it is not cut off; the integers decide
        limit = (objective.limit - fixed_second) * row_weight + 2 * TOLERANCE
        constraints = [LinearConstraint(matrix, right, right), LinearConstraint(row[None, :], -np.inf, limit)]
        for _ in range(ATTEMPTS):
            result = milp(
                goal,
                integrality=np.array(self.binary, dtype=np.int64),
                bounds=Bounds(0, 1),
                constraints=constraints,
                options={"time_limit": max(time_limit_s, 0.01), "mip_rel_gap": 0.0},
            )
            if result.x is None:
                return None
            positions = tuple(int(np.argmax(result.x[self.axis_columns[v]])) for v in range(self.problem.num_variables))
            found = self.problem.solution(positions, solver="milp")
            over, achieved, _ = objective.key(found.time, found.loss)
            if not over:
                bound = -np.inf if result.mip_dual_bound is None else fixed_first + result.mip_dual_bound / weight
                doubt = max(2 * TOLERANCE / weight + 1, RESOLUTION * achieved)
                proved = achieved if bound >= achieved - doubt else int(max(bound, 0.0))
                return self.problem.solution(positions, solver="milp", bound=proved)
            chosen = np.zeros((1, len(self.time)))
            chosen[0, [self.axis_columns[v][p] for v, p in enumerate(positions)]] = 1.0
            constraints.append(LinearConstraint(chosen, -np.inf, len(positions) - 1.0))
        return None

    def _matrix(self) -> tuple[coo_array, NDArray[np.float64]]:
        row = np.concatenate([np.full(len(columns), i) for i, (columns, _, _) in enumerate(self.rows)])
        column = np.concatenate([np.array(columns) for columns, _, _ in self.rows])
        weight = np.concatenate([np.array(weights) for _, weights, _ in self.rows])
        matrix = coo_array((weight, (row, column)), shape=(len(self.rows), len(self.time)))
        return matrix.tocsr(), np.array([value for _, _, value in self.rows])


def _scaled(quantity: list[int]) -> tuple[NDArray[np.float64], float]:
    values = np.array(quantity, dtype=np.float64)
    weight = SCALE / max(float(values.max(initial=0.0)), 1.0)
    return values * weight, weight
