"""Who competes at one measured latency: unrounded hosts, fixed multiples and tailprune, each brought to the same microseconds.

The aim of every planner is moved until its network *measures* what was asked for: predictions rank widths, they do not
compare methods.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

import tailprune
from tailprune import Budget, ChannelScores, LatencyTable, ModelGraph, WidthPlan

#: A network counts as being at its latency up to this share above it: what two medians of one network differ by.
TOLERANCE = 0.01
#: Halvings of the ratio whose host, snapped by the goal `faster`, ends at the asked latency: to one channel in 250.
HALVINGS = 8
#: How often aims are corrected by what was measured, and by how much at most: sums of layers lie within 15 % of networks.
CORRECTIONS, LARGEST_CORRECTION = 6, 1.15
#: Who uses this much of the latency is there: the rest is less than most single channels take.
USED = 0.98

Planner = Callable[[float], WidthPlan]
Scope = Literal["global", "local"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """One dense network on one device."""

    dense: nn.Module
    example: torch.Tensor
    graph: ModelGraph
    table: LatencyTable
    timer: tailprune.DeviceTimer

    def deployed(self, plan: WidthPlan | None) -> nn.Module:
        """The network as it would be served: pruned, norms folded."""
        model = self.dense if plan is None else tailprune.apply_plan(self.dense, plan)
        return tailprune.fold_norms(model, tailprune.trace_model(model, self.example))

    def measure(self, plans: Mapping[str, WidthPlan], *, rounds: int) -> tailprune.ModelTimings:
        """All plans and the dense network, interleaved in one run."""
        models = {"dense": self.deployed(None), **{name: self.deployed(plan) for name, plan in plans.items()}}
        return tailprune.measure_model(models, self.example, device=self.timer.device, rounds=rounds)


def host(course: Course, scores: ChannelScores, scope: Scope = "global") -> Planner:
    """The unrounded host whose ratio gives this latency."""
    return lambda us: _measured(course, lambda: _multiple(course, scores, 1, us, scope))


def multiple(course: Course, scores: ChannelScores, of: int, scope: Scope = "global") -> Planner:
    """The fair fixed multiple at this latency."""
    return lambda us: _measured(course, lambda: _multiple(course, scores, of, us, scope))


def better(
    course: Course, scores: ChannelScores, scope: Scope = "global", *, policy: Literal["snap", "reallocate"] = "snap"
) -> Planner:
    """tailprune from the host at this latency: most importance kept in the same time."""

    def at(us: float) -> WidthPlan:
        start = _as_host(scores, _multiple(course, scores, 1, us, scope), scope)
        budget = Budget.microseconds(us)
        return tailprune.plan_widths(
            course.graph, start, latency=course.table, policy=policy, goal="better", budget=budget
        )

    return lambda us: _measured(course, lambda: at(us))


def faster(course: Course, scores: ChannelScores, scope: Scope = "global") -> Planner:
    """tailprune from a slower host, made faster at that host's importance until it takes this latency."""

    def at(us: float) -> WidthPlan:
        few, many = 0.0, 1.0  # ratios; the more the host prunes, the faster the snapped network, nearly always
        best = None
        for _ in range(HALVINGS):
            ratio = (few + many) / 2
            start = tailprune.choose_host(scores, ratio, scope=scope, keep_one=True)
            plan = tailprune.plan_widths(course.graph, start, latency=course.table, goal="faster")
            if plan.predicted_us > us:
                few = ratio
                continue
            many = ratio
            if best is None or plan.importance > best.importance:
                best = plan
        if best is None:
            raise tailprune.NoPlan(f"No host ends at {us:,.0f} us after snapping; raise the latency.")
        return best

    return lambda us: _measured(course, lambda: at(us))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A plan, what it was aimed at, and the share of the dense network's time it took."""

    share: float
    name: str
    aim_us: float
    plan: WidthPlan
    taken: float

    @property
    def fits(self) -> bool:
        return self.taken <= self.share * (1 + TOLERANCE)

    @property
    def there(self) -> bool:
        return self.fits and self.taken >= USED * self.share


def bring_to(
    course: Course,
    planners: Mapping[str, Planner],
    shares: Sequence[float],
    *,
    corrections: int = CORRECTIONS,
    rounds: int = 20,
    say: Callable[[str], None] = print,
) -> dict[tuple[float, str], WidthPlan]:
    """For each share and planner, the plan that measures at most that share of the dense time and keeps most importance.

    Every round of corrections measures all plans that are not there yet, interleaved: aims follow what was measured, and are
    halved between one that fits and one that does not. A planner that cannot get to a share is left out there, with a
    line saying so.
    """
    dense_us = tailprune.host_plan(
        course.graph, tailprune.score_channels(course.dense, course.graph), course.table
    ).predicted_us
    tried: dict[tuple[float, str], list[Attempt]] = {(share, name): [] for share in shares for name in planners}
    for turn in range(1 + corrections):
        aims, plans = {}, dict[tuple[float, str], WidthPlan]()
        for (share, name), attempts in tried.items():
            if any(attempt.there for attempt in attempts):
                continue
            aim = next_aim(attempts) if attempts else share * dense_us
            try:
                plans[share, name] = planners[name](aim)
            except tailprune.NoPlan as error:
                say(f"{name} at {share:.0%}: {error}")
            else:
                aims[share, name] = aim
        if not plans:
            break
        timings = course.measure({f"{share} {name}": plan for (share, name), plan in plans.items()}, rounds=rounds)
        for (share, name), plan in plans.items():
            taken = timings.verdict(f"{share} {name}", "dense").ratio
            say(
                f"round {turn}: {name} at {share:.0%}: {taken:.1%} measured, {plan.predicted_us / dense_us:.1%} predicted"
            )
            tried[share, name].append(Attempt(share=share, name=name, aim_us=aims[share, name], plan=plan, taken=taken))
    fitting = {key: [a for a in attempts if a.fits] for key, attempts in tried.items()}
    return {key: max(those, key=lambda a: a.plan.importance).plan for key, those in fitting.items() if those}


def next_aim(attempts: Sequence[Attempt]) -> float:
    """In microseconds: between the largest that fitted and the smallest that did not, else as the last one was off."""
    last = attempts[-1]
    fitted = max((a.aim_us for a in attempts if a.fits), default=None)
    over = min((a.aim_us for a in attempts if not a.fits), default=None)
    if fitted is not None and over is not None and fitted < over:
        return math.sqrt(fitted * over)
    return last.aim_us * min(max(last.share / last.taken, 1 / LARGEST_CORRECTION), LARGEST_CORRECTION)


def _multiple(course: Course, scores: ChannelScores, of: int, us: float, scope: Scope) -> WidthPlan:
    return tailprune.fixed_multiple(course.graph, scores, course.table, of, target_us=us, scope=scope)


def _as_host(scores: ChannelScores, plan: WidthPlan, scope: Scope) -> ChannelScores:
    """These scores, with the channels that `plan` keeps as the host's choice, ranked in this scope."""
    ranked_in = "global" if scope == "global" else ""
    groups = (dataclasses.replace(g, host_kept=plan.by_group[g.group].kept, scope=ranked_in) for g in scores.groups)
    return dataclasses.replace(scores, groups=tuple(groups))


def _measured(course: Course, decide: Callable[[], WidthPlan]) -> WidthPlan:
    """What the table lacks for it is measured as it is asked for."""
    return tailprune.measure_while(course.table, course.timer, decide)
