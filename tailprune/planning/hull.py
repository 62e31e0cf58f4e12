"""The whole trade-off at once: undominated plans from the fastest to the best, and what no plan can beat in between."""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .fronts import MAX_POINTS, OutOfRoom, Plans, plans_near
from .messages import DOUBT, Priced, price
from .problem import Problem
from .structure import Integers
from .sums import NEVER
from .tree import Tree

#: The first window above a price's bound, as a share of the gap asked for, and by how much each next one is wider: a
#: few dozen plans bridge a stretch, and those within the whole gap are thousands.
FIRST_WINDOW, WIDER = 1 / 16, 3.0
#: A vertex that lies below a stretch by less than this share of the gap asked for does not split it: listing the plans
#: near the stretch finds it anyway, and a third of all prices is saved.
SHALLOW = 1 / 32
#: Prices at which the plans of some candidates are held against all candidates.
PROVING_PRICES = 32
#: Partial plans of one elimination for one stretch: at first, and when all other stretches are done.
MOST_POINTS = (200_000, MAX_POINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """loss >= level - price x time, for every plan not listed that fits a time from `low` to `high`."""

    price: float
    level: float
    low: float = -math.inf
    high: float = math.inf


@dataclass(kw_only=True, eq=False)
class _Stretch:
    """What lies between two plans: where, how good a plan could still be there, over which positions, by which lines."""

    low: int
    high: int
    tree: Tree
    lines: list[Line]
    attempt: int = 0
    gap: float = 0.0

    def __lt__(self, other: _Stretch) -> bool:
        return (self.attempt, -self.gap, self.low) < (other.attempt, -other.gap, other.low)


class TradeOff:
    """Plans by rising time and falling loss, and the lines below which no other plan lies."""

    def __init__(self, problem: Problem, fastest: Plans) -> None:
        self.problem = problem
        self.time, self.loss = fastest.time, fastest.loss
        self.lines: list[Line] = []
        self._positions = [fastest.positions]  # of every plan ever added, in blocks
        self._row = np.arange(len(fastest))  # where among those each plan's are

    def add(self, plans: Plans) -> None:
        """Keep what no plan known beats, and drop what it beats."""
        rank = np.searchsorted(self.time, plans.time, side="right") - 1
        new = np.flatnonzero((rank < 0) | (plans.loss < self.loss[rank]))
        if not len(new):
            return
        rows = sum(map(len, self._positions)) + np.arange(len(new))
        self._positions.append(plans.positions[new])
        at = np.searchsorted(self.time, plans.time[new], side="left")
        ticks, loss = np.insert(self.time, at, plans.time[new]), np.insert(self.loss, at, plans.loss[new])
        keep = np.ones(len(loss), dtype=bool)
        keep[1:] = loss[1:] < np.minimum.accumulate(loss)[:-1]
        self.time, self.loss, self._row = ticks[keep], loss[keep], np.insert(self._row, at, rows)[keep]

    @property
    def plans(self) -> Plans:
        return Plans(time=self.time, loss=self.loss, positions=np.concatenate(self._positions)[self._row])

    def best_loss(self, ticks: Integers) -> Integers:
        """The least loss known within each time, which must not lie below the fastest plan's."""
        return self.loss[np.searchsorted(self.time, ticks, side="right") - 1]

    def bound(self, ticks: Integers) -> NDArray[np.float64]:
        """Proved lower bounds on the loss within each time."""
        return np.minimum(_highest(self.lines, ticks), self.best_loss(ticks))

    def gap(self, low: int, high: int, lines: list[Line]) -> float:
        """The largest gap from `low` to `high`, by these lines alone: a share of all the importance there is."""
        ends, lost = self._steps(low, high)
        return float((lost - _highest(lines, ends)).max(initial=0.0)) / max(self.problem.best_value, 1)

    def above(self, line: Line) -> float:
        """How far above a line the plans known lie at most, over its range."""
        ends, lost = self._steps(int(line.low), int(line.high))
        return float((lost - (line.level - line.price * ends)).max(initial=0.0))

    def _steps(self, low: int, high: int) -> tuple[Integers, Integers]:
        """The loss known just before each next plan from `low` to `high`: gaps are largest there."""
        first, last = np.searchsorted(self.time, [low, high])
        return self.time[first + 1 : last + 1] - 1, self.loss[first:last]


def trace_trade_off(tree: Tree, problem: Problem, *, gap: float, deadline: float) -> TradeOff:
    """Plans at every time, as near to the bound as `gap` (a share of all the importance) where time allows.

    The stretch between two plans with the largest gap comes next. At the price of its slope either a new vertex of the
    lower hull splits it, or nothing lies below it and the plans near it are listed until the gap is closed. Positions that no plan takes which would beat those known between the ends of a
    stretch are dropped for it and all that it is split into: most tables are small most of the time.
    """
    fastest, best = _ends(tree, problem)
    trade_off = TradeOff(problem, fastest)
    trade_off.add(best)
    trade_off.lines.append(Line(price=0.0, level=float(best.loss[0])))
    waiting: list[_Stretch] = []

    def consider(stretch: _Stretch) -> None:
        stretch.gap = trade_off.gap(stretch.low, stretch.high, stretch.lines)
        if stretch.gap > gap:
            heapq.heappush(waiting, stretch)

    consider(_Stretch(low=int(fastest.time[0]), high=int(best.time[0]), tree=tree, lines=trade_off.lines[:]))
    while waiting and time.monotonic() < deadline:
        stretch = heapq.heappop(waiting)
        low, high = stretch.low, stretch.high
        if trade_off.gap(low, high, stretch.lines) <= gap:  # a neighbour's plans have closed it meanwhile
            continue
        loss_low, loss_high = trade_off.best_loss(np.array([low, high])).tolist()
        slope = (loss_low - loss_high) / (high - low)
        priced, vertex, line = _at_slope(stretch.tree, problem, slope, low, high)
        trade_off.add(vertex)
        new, on_line = int(vertex.time[0]), loss_low + slope * low
        shallow = SHALLOW * gap * problem.best_value + DOUBT * on_line + 1.0
        if low < new < high and vertex.loss[0] + slope * new < on_line - shallow:
            tree = priced.narrowed(trade_off.above(line))
            for left, right in ((low, new), (new, high)):
                consider(_Stretch(low=left, high=right, tree=tree, lines=[*stretch.lines, line]))
        else:
            line = _list_near(trade_off, line, stretch, priced, gap=gap, deadline=deadline)
            if stretch.attempt < len(MOST_POINTS) - 1:
                consider(replace(stretch, attempt=stretch.attempt + 1, lines=[*stretch.lines, line]))
        trade_off.lines.append(line)
    return trade_off


def hold_against(trade_off: TradeOff, tree: Tree, deadline: float) -> None:
    """Bound the plans of a smaller tree by all of this one: its own lines take the place of those that hold only there.

    At prices spread over those met, the larger tree's vertices join the plans, and the lines under them prove how much
    any other plan could be better. A few prices do: between them the hull bends little.
    """
    problem = trade_off.problem
    met = np.unique([line.price for line in trade_off.lines if line.price > 0])
    trade_off.lines = [Line(price=0.0, level=0.0)]  # no plan loses less than nothing
    for vertex in _ends(tree, problem):
        trade_off.add(vertex)
    low, high = int(trade_off.time[0]), int(trade_off.time[-1])
    for place in np.unique(np.linspace(0, len(met) - 1, min(PROVING_PRICES, len(met))).round().astype(np.intp)):
        if time.monotonic() > deadline:
            break
        _, vertex, line = _at_slope(tree, problem, float(met[place]), low, high)
        trade_off.add(vertex)
        trade_off.lines.append(line)


def _ends(tree: Tree, problem: Problem) -> tuple[Plans, Plans]:
    """The fastest plan and the best one; of equals the best and the fastest."""
    spread_loss = 1.0 + sum(int(loss.max()) for loss in problem.losses)
    times = [factor.time for bucket in tree.buckets for factor in bucket.factors]
    spread_time = 1.0 + float(sum(time.max() for time in times if time.max() < NEVER))
    fastest, best = price(tree, 1.0, 0.5 / spread_loss), price(tree, 0.5 / spread_time, 1.0)
    return _vertex(problem, fastest), _vertex(problem, best)


def _at_slope(tree: Tree, problem: Problem, slope: float, low: int, high: int) -> tuple[Priced, Plans, Line]:
    """The tree at the price of a slope, its cheapest plan there, and the line that no plan lies below."""
    priced = price(tree, slope, 1.0)
    level = priced.least + slope * problem.fixed_time
    level -= DOUBT * (abs(level) + slope * high) + 1.0
    return priced, _vertex(problem, priced), Line(price=slope, level=level, low=low, high=high)


def _list_near(
    trade_off: TradeOff, line: Line, stretch: _Stretch, priced: Priced, *, gap: float, deadline: float
) -> Line:
    """All plans near a line that is tight, further up until the gap is closed; the line raised to where all are listed."""
    low, high, fixed = int(line.low), int(line.high), trade_off.problem.fixed_time
    window, raised = FIRST_WINDOW * gap * trade_off.problem.best_value, line
    while trade_off.gap(low, high, [*stretch.lines, raised]) > gap:
        window = min(window, trade_off.above(line))
        try:
            plans = plans_near(priced, window, deadline=deadline, most=MOST_POINTS[stretch.attempt])
        except OutOfRoom:
            break
        trade_off.add(Plans(time=plans.time + fixed, loss=plans.loss, positions=plans.positions))
        raised = replace(line, level=line.level + window)
        window *= WIDER
    return raised


def _highest(lines: list[Line], ticks: Integers) -> NDArray[np.float64]:
    """The highest of these lines at each of the ascending times."""
    highest = np.full(len(ticks), -np.inf)
    for line in lines:
        first = np.searchsorted(ticks, line.low, side="left")
        last = np.searchsorted(ticks, line.high, side="right")
        np.maximum(highest[first:last], line.level - line.price * ticks[first:last], out=highest[first:last])
    return highest


def _vertex(problem: Problem, priced: Priced) -> Plans:
    positions = priced.cheapest()
    return Plans(
        time=np.array([problem.time(positions)]),
        loss=np.array([problem.loss(positions)]),
        positions=np.array([positions], dtype=np.intp).reshape(1, -1),
    )
