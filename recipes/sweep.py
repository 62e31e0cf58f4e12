"""Latency against the host's pruning ratio: the host falls slope by slope, the device answers step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tailprune
from recipes.contest import MULTIPLES, Arena, deployed
from tailprune.reports import SweepPoint

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def sweep_ratios(
    arena: Arena, *, ratios: Sequence[float] = RATIOS, rounds: int = 15, progress: Callable[[int, int, str], None]
) -> tuple[SweepPoint, ...]:
    """Host, tailprune `faster` and fixed multiples at every ratio, each keeping no less importance than the host there.

    All networks of the sweep are measured interleaved in one run, as deployed. No fine-tuning: latency depends on
    widths alone.
    """
    models: dict[tuple[float, str], object] = {}
    roles: dict[str, str] = {"host": "host", "tailprune faster": "ours"}
    for index, ratio in enumerate(ratios):
        progress(index, len(ratios) + 1, f"ratio {ratio:.0%}")
        host = arena.host(ratio)
        host.step()
        faster, pruner = arena.tailored(ratio, "faster")
        models[ratio, "host"] = host.model
        models[ratio, "tailprune faster"] = faster
        for multiple in MULTIPLES:
            name = f"multiple of {multiple}"
            roles[name] = "rival"
            try:
                models[ratio, name], _ = arena.multiple(pruner, multiple, target_importance=pruner.plan.host_importance)
            except tailprune.NoPlan:  # widths this coarse cannot keep that much: no point in the plot
                continue
    progress(len(ratios), len(ratios) + 1, "measuring all of them interleaved")
    deployed_models = {f"{ratio} {name}": deployed(model, arena.example) for (ratio, name), model in models.items()}
    timings = tailprune.measure_model(deployed_models, arena.example, device=arena.timer.device, rounds=rounds)
    points = []
    for ratio, name in models:
        low, high = timings.interval_us(f"{ratio} {name}")
        points.append(
            SweepPoint(
                ratio=ratio,
                method=name,
                measured_us=timings.median_us(f"{ratio} {name}"),
                spread_us=(high - low) / 2,
                role=roles[name],
            )
        )
    return tuple(points)
