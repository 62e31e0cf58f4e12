"""Latency against the host's pruning ratio: the host falls slope by slope, the device answers step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

import tailprune
from recipes.contest import MULTIPLES, Arena, Role, deployed
from tailprune.reports import SweepPoint

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
OURS = "tailprune faster"


def sweep_networks(
    arena: Arena, ratios: Sequence[float], *, progress: Callable[[int, int, str], None]
) -> dict[tuple[float, str], nn.Module]:
    """(ratio, method) -> network: host, tailprune `faster`, and fixed multiples that keep no less importance than the host.

    A multiple that cannot keep that much at any ratio is left out.
    """
    networks: dict[tuple[float, str], nn.Module] = {}
    for index, ratio in enumerate(ratios):
        progress(index, len(ratios) + 1, f"ratio {ratio:.0%}")
        host = arena.host(ratio)
        host.step()
        networks[ratio, "host"] = host.model
        ours = arena.tailored(ratio, "faster")
        networks[ratio, OURS] = ours.model
        for multiple in MULTIPLES:
            try:
                rival = arena.multiple(ours, multiple, target_importance=ours.plan.host_importance)
            except tailprune.NoPlan:
                continue
            networks[ratio, f"multiple of {multiple}"], _ = rival
    return networks


def measure_sweep(
    arena: Arena, networks: Mapping[tuple[float, str], nn.Module], *, rounds: int
) -> tailprune.ModelTimings:
    """All networks interleaved in one run, as deployed; named "ratio method". Latency depends on widths alone, so no fine-tuning."""
    models = {f"{ratio} {name}": deployed(model, arena.example) for (ratio, name), model in networks.items()}
    return tailprune.measure_model(models, arena.example, device=arena.timer.device, rounds=rounds)


def sweep_points(
    networks: Mapping[tuple[float, str], nn.Module], timings: tailprune.ModelTimings
) -> tuple[SweepPoint, ...]:
    points = []
    for ratio, name in networks:
        low, high = timings.interval_us(f"{ratio} {name}")
        role: Role = "host" if name == "host" else "ours" if name == OURS else "rival"
        us = timings.median_us(f"{ratio} {name}")
        points.append(SweepPoint(ratio=ratio, method=name, measured_us=us, spread_us=(high - low) / 2, role=role))
    return tuple(points)


def sweep_ratios(
    arena: Arena, *, progress: Callable[[int, int, str], None], rounds: int = 15
) -> tuple[SweepPoint, ...]:
    """The quickstart's sweep."""
    networks = sweep_networks(arena, RATIOS, progress=progress)
    progress(len(RATIOS), len(RATIOS) + 1, "measuring all of them interleaved")
    return sweep_points(networks, measure_sweep(arena, networks, rounds=rounds))
