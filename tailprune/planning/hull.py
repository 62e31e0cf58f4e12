"""The whole trade-off at once: undominated plans from the fastest to the best, and what no plan can beat in between."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .fronts import OutOfRoom, Plans, plans_near
from .messages import DOUBT, Priced, price
from .problem import Integers, Problem
from .tree import Tree

#: The first window above a price's bound, as a share of the gap asked for, and by how much the next one is wider.
FIRST_WINDOW, WIDER = 0.25, 4.0


@dataclass(kw_only=True, eq=False)
class TradeOff:
    """Plans by rising time and falling loss, and lines that no plan lies below:

        loss >= level - price x time        for every (price, level),

    except for the plans listed: near a price whose neighbourhood was listed in full, the line is raised by its width.
    """

    problem: Problem
    plans: Plans
    prices: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)

    def best_loss(self, ticks: Integers) -> Integers:
        """The least loss known within each time, which must not lie below the fastest plan's."""
        return self.plans.loss[np.searchsorted(self.plans.time, ticks, side="right") - 1]

    def bound(self, ticks: Integers) -> NDArray[np.float64]:
        """Proved lower bounds on the loss within each time."""
        lines = np.array(self.levels)[:, None] - np.array(self.prices)[:, None] * np.asarray(ticks, dtype=float)
        return np.minimum(lines.max(axis=0), self.best_loss(ticks))

    def gaps(self, low: int, high: int) -> NDArray[np.float64]:
        """The gap just before each next plan from `low` to `high`, as a share of the importance kept there."""
        first, last = np.searchsorted(self.plans.time, [low, high])
        ends = self.plans.time[first + 1 : last + 1] - 1
        lost = self.plans.loss[first:last]
        return (lost - self.bound(ends)) / np.maximum(self.problem.best_value - lost, 1)

    def add(self, plans: Plans) -> None:
        joined = Plans(
            time=np.concatenate([self.plans.time, plans.time]),
            loss=np.concatenate([self.plans.loss, plans.loss]),
            positions=np.concatenate([self.plans.positions, plans.positions]),
        )
        order = np.lexsort((joined.loss, joined.time))
        lost = joined.loss[order]
        keep = np.ones(len(order), dtype=bool)
        keep[1:] = lost[1:] < np.minimum.accumulate(lost)[:-1]
        best = order[keep]
        self.plans = Plans(time=joined.time[best], loss=joined.loss[best], positions=joined.positions[best])


def trace_trade_off(tree: Tree, problem: Problem, *, gap: float, deadline: float) -> TradeOff:
    """Plans at every time, as near to the bound as `gap` (a share of the importance) where time allows.

    The stretch between two neighbouring plans of the lower hull with the largest gap comes next: at the price of its
    slope either a new vertex splits it, or nothing lies below it and all plans near it are listed.
    """
    spread_loss = 1.0 + sum(int(loss.max()) for loss in problem.losses)
    spread_time = 1.0 + float(sum(factor.time.max() for bucket in tree.buckets for factor in bucket.factors))
    fastest = _vertex(problem, price(tree, 1.0, 0.5 / spread_loss))
    kept_most = price(tree, 0.5 / spread_time, 1.0)
    best = _vertex(problem, kept_most)
    trade_off = TradeOff(problem=problem, plans=fastest, prices=[0.0], levels=[float(best.loss[0])])
    trade_off.add(best)
    stretches: list[tuple[float, int, int]] = []

    def consider(low: int, high: int) -> None:
        worst = float(trade_off.gaps(low, high).max(initial=0.0))
        if worst > gap:
            heapq.heappush(stretches, (-worst, low, high))

    consider(int(fastest.time[0]), int(best.time[0]))
    while stretches and time.monotonic() < deadline:
        _, low, high = heapq.heappop(stretches)
        loss_low, loss_high = trade_off.best_loss(np.array([low, high]))
        slope = float(loss_low - loss_high) / (high - low)
        priced = price(tree, slope, 1.0)
        vertex = _vertex(problem, priced)
        level = priced.least + slope * problem.fixed_time
        level -= DOUBT * (abs(level) + slope * high) + 1.0
        trade_off.prices.append(slope)
        trade_off.levels.append(level)
        new, on_line = int(vertex.time[0]), loss_low + slope * low
        if low < new < high and vertex.loss[0] + slope * new < on_line - DOUBT * on_line - 1.0:
            trade_off.add(vertex)
            consider(low, new)
            consider(new, high)
        else:
            _list_near(trade_off, priced, low, high, gap=gap, deadline=deadline)
    return trade_off


def _list_near(trade_off: TradeOff, priced: Priced, low: int, high: int, *, gap: float, deadline: float) -> None:
    """All plans near a stretch whose line is tight, further up until the gap is closed."""
    kept = trade_off.problem.best_value - int(trade_off.best_loss(np.array([high]))[0])
    level = trade_off.levels[-1]
    fixed = trade_off.problem.fixed_time
    window = FIRST_WINDOW * gap * max(kept, 1)
    while trade_off.gaps(low, high).max(initial=0.0) > gap:
        try:
            plans = plans_near(priced, window, deadline=deadline)
        except OutOfRoom:
            return
        trade_off.add(Plans(time=plans.time + fixed, loss=plans.loss, positions=plans.positions))
        trade_off.levels[-1] = level + window
        window *= WIDER


def _vertex(problem: Problem, priced: Priced) -> Plans:
    positions = priced.cheapest()
    return Plans(
        time=np.array([problem.time(positions)]),
        loss=np.array([problem.loss(positions)]),
        positions=np.array([positions], dtype=np.intp).reshape(1, -1),
    )
