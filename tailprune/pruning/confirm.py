"""A sum of layers is not the network: is the plan faster than the host as measured, end to end, on this device?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..core.errors import NoPlan
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..timing import DeviceTimer, measure_model
from ..tracing import fold_norms
from .apply import pruned_copy

#: How often a plan that measures slower than the host is solved again with less latency allowed, before the host stands.
MOST_TIGHTENINGS = 3


def confirm_plan(
    model: nn.Module,
    graph: ModelGraph,
    plan: WidthPlan,
    host: WidthPlan,
    replan: Callable[[Budget], WidthPlan],
    timer: DeviceTimer,
    example_inputs: Any,
) -> tuple[WidthPlan, list[str]]:
    """The plan if it is not measurably slower than the host, a tighter one that is not, or the host's own widths.

    Host and plan run interleaved on copies of `model`, norms folded as when deployed, under the timer's settings. Slower means that the whole 95 % interval of the time ratio lies above 1; then the latency allowed shrinks
    by the measured ratio. Every measurement is one line of the second result.
    """
    lines: list[str] = []
    settings = timer.environment
    for attempt in range(1 + MOST_TIGHTENINGS):
        if not plan.moved:
            return plan, [*lines, "the plan is the host, nothing to measure end to end"]
        timings = measure_model(
            {
                name: fold_norms(pruned_copy(model, widths, example_inputs), graph)
                for name, widths in (("host", host), ("plan", plan))
            },
            example_inputs, device=timer.device, threads=settings.threads, runtime=settings.runtime, l2=settings.l2,
            tf32=settings.tf32, autotuning=settings.autotuning, memory_format=plan.memory_format,
        )  # fmt: skip
        host_us, plan_us, verdict = (
            timings.median_us("host"),
            timings.median_us("plan"),
            timings.verdict("plan", "host"),
        )
        lines.append(
            f"measured end to end: host {host_us:,.0f} us (predicted {plan.host_us:,.0f}), "
            f"plan {plan_us:,.0f} us (predicted {plan.predicted_us:,.0f}); {verdict}"
        )
        if verdict.outcome != "slower":
            return plan, lines
        if attempt < MOST_TIGHTENINGS:
            allowed_us = min(plan.predicted_us, plan.host_us) * host_us / plan_us
            try:
                plan = replan(Budget.microseconds(allowed_us))
            except NoPlan:
                lines.append(f"no plan keeps the score within {allowed_us:,.0f} us")
                break
    return host, [*lines, "no plan holds as measured: the host's own widths are used"]
