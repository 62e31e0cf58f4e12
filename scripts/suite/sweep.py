"""How fast is each way of pruning at one ratio? Plans from the table, then whole networks measured interleaved."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import tailprune
from tailprune import ChannelScores, LayerShape, WidthPlan
from tailprune.core.protocols import LatencyKind

from .bench import Bench, Network, Setting, load_network

MULTIPLES = (8, 16, 32, 64)
ROUNDS = 15


class MultiplyAdds:
    """Stands in for latencies where fixed multiples aim at an importance: no device has to be asked for their widths."""

    origin = "multiply-adds"

    def latency_us(self, shape: LayerShape) -> float:
        return 1.0 + shape.macs / 1e6

    def kind(self, shape: LayerShape) -> LatencyKind:
        return "modelled"


def channel_scores(network: Network, importance: str, side: int) -> ChannelScores:
    """Taylor needs gradients: of one small batch of noise, as good as any where weights are random."""
    if importance == "taylor":
        draw = torch.Generator().manual_seed(0)
        images, labels = torch.randn(4, 3, side, side, generator=draw), torch.arange(4)
        F.cross_entropy(network.dense(images), labels).backward()
    return tailprune.score_channels(network.dense, network.graph, importance)


def sweep_ratio(bench: Bench, setting: Setting, *, ratio: float, scope: str, importance: str = "magnitude",
                goals: tuple[str, ...] = ("faster", "better"), multiples: tuple[int, ...] = MULTIPLES) -> dict[str, Any]:  # fmt: skip
    """Dense, host, fixed multiples at no less importance than the host's, and tailprune."""
    network = load_network(setting)
    table, timer, graph = bench.table(setting.runtime), bench.timer(setting.runtime), network.graph
    scores = tailprune.choose_host(channel_scores(network, importance, setting.side), ratio, scope=scope)  # type: ignore[arg-type]
    plans: dict[str, WidthPlan] = {}
    for goal in goals:
        plans[f"tailprune {goal}"] = tailprune.measure_while(
            table, timer, lambda goal=goal: tailprune.plan_widths(graph, scores, latency=table, goal=goal),
            progress=bench.watch,
        )  # fmt: skip
    host = plans["host"] = tailprune.measure_while(
        table, timer, lambda: tailprune.host_plan(graph, scores, table), progress=bench.watch
    )
    notes = []
    for multiple in multiples:
        try:
            plans[f"multiple of {multiple}"] = tailprune.fixed_multiple(
                graph, scores, MultiplyAdds(), multiple, target_importance=host.importance, scope=scope  # type: ignore[arg-type]
            )  # fmt: skip
        except tailprune.NoPlan as error:
            notes.append(str(error))
    models: dict[str, nn.Module] = {"dense": network.folded}
    models |= {name: tailprune.apply_plan(network.folded, plan) for name, plan in plans.items()}
    timings = bench.compare(models, setting, ROUNDS)
    contestants = [{"name": "dense", "predicted_us": host.original_us, "importance": 1.0}]
    contestants += [
        {
            "name": name,
            "predicted_us": None if name.startswith("multiple") else plan.predicted_us,
            "importance": plan.importance,
            "widths": plan.widths,
        }
        for name, plan in plans.items()
    ]
    for contestant in contestants:
        name = contestant["name"]
        contestant["measured_us"] = timings.undisturbed_us(name)
        contestant["passes_us"] = timings.median_us(name)
        contestant["parts_us"] = [[round(us, 1) for us in parts] for parts in timings.parts_us.get(name, ())]
        contestant["times_us"] = [round(us, 3) for us in timings.times_us[name]]
        contestant["crowded"] = list(timings.crowded.get(name, ()))
    return {"ratio": ratio, "scope": scope, "importance": importance, "contestants": contestants,
            "notes": [*notes, *timings.notes]}  # fmt: skip
