"""The closed loop: a sum of layers is not the network, so plans are measured end to end and solved again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..core.errors import NoPlan
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..timing import DeviceTimer, measure_model
from ..timing.whole_model import Verdict
from ..tracing import fold_norms
from .widen import copy_at

#: How often a plan is solved again with what was measured, before the best that held, or the host, stands.
MOST_ROUNDS = 3
#: By how much a sum of layers must overestimate the network before its room is planned again: less is noise.
LOOSENED = 0.02


def confirm_plan(
    model: nn.Module,
    graph: ModelGraph,
    plan: WidthPlan,
    host: WidthPlan,
    replan: Callable[[Budget], WidthPlan],
    timer: DeviceTimer,
    example_inputs: Any,
) -> tuple[WidthPlan, list[str]]:
    """The best plan that keeps its limit as measured, or the host's own widths; what was measured, line by line.

    Host and plan run interleaved on copies of `model`, norms folded as when deployed, under the timer's settings. The
    limit is the host's latency, or the budget's share of it. With r the measured and p the predicted ratio of plan to
    host, the sum of layers is off by a factor r / p, and the limit that it is given is divided by that:

        broken   the whole 95 % interval of r lies above the limit: planned again with less
        kept     the plan stands; under the goal `better`, where r / p leaves room, a better one is tried once

    Every measurement is one line, predicted beside measured.
    """
    lines: list[str] = []
    limit = (plan.budget_us or plan.host_us) / plan.host_us
    held: WidthPlan | None = None
    for attempt in range(1 + MOST_ROUNDS):
        if not plan.moved:
            lines.append("the plan is the host, nothing to measure end to end")
            return held or plan, lines
        verdict, line = _measured(model, graph, plan, host, timer, example_inputs)
        lines.append(line)
        if verdict.low <= limit:
            if held is None or plan.importance > held.importance:
                held = plan
            room = plan.predicted_us / plan.host_us / verdict.ratio
            if plan.goal != "better" or held is not plan or attempt or room < 1 + LOOSENED:
                break
            allowed_us = limit * plan.host_us * room
        elif held is not None or attempt == MOST_ROUNDS:
            break
        else:
            allowed_us = min(plan.predicted_us, limit * plan.host_us) * limit / verdict.ratio
        try:
            plan = replan(Budget.microseconds(allowed_us))
        except NoPlan:
            lines.append(f"no plan keeps the score within {allowed_us:,.0f} us")
            break
    if held is None:
        return host, [*lines, "no plan holds as measured: the host's own widths are used"]
    return held, lines


def _measured(
    model: nn.Module, graph: ModelGraph, plan: WidthPlan, host: WidthPlan, timer: DeviceTimer, example_inputs: Any
) -> tuple[Verdict, str]:
    settings = timer.environment
    timings = measure_model(
        {
            name: fold_norms(copy_at(model, widths, example_inputs), graph)
            for name, widths in (("host", host), ("plan", plan))
        },
        example_inputs, device=timer.device, threads=settings.threads, runtime=settings.runtime, l2=settings.l2,
        tf32=settings.tf32, autotuning=settings.autotuning, memory_format=plan.memory_format, dtype=plan.dtype,
    )  # fmt: skip
    host_us, plan_us, verdict = timings.median_us("host"), timings.median_us("plan"), timings.verdict("plan", "host")
    return verdict, (
        f"measured end to end: host {host_us:,.0f} us (predicted {plan.host_us:,.0f}), "
        f"plan {plan_us:,.0f} us (predicted {plan.predicted_us:,.0f}, ratio off by "
        f"{verdict.ratio * plan.host_us / plan.predicted_us - 1:+.1%}); {verdict}"
    )
