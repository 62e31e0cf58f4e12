"""Does the planner keep more importance than its rivals within a latency, and how long does that take?

    python -m scripts.bench_planner rows.jsonl

Seven networks on the wave model of three GPUs, and a ResNet-18 on a measured CPU table; five seeds of log-normal scores;
budgets of 90 to 30 % of the original's latency. Contestants: the unrounded host and fixed multiples of 8, 16, 32 and 64
(its ratio brought to the budget), a step-aware greedy, and the whole frontier at once; for the first seed also local
ranking, rivals free of the floors, the planner budget by budget and, on three networks, our own MILP. All others obey
the same floors, and all price with the same filled table. Two larger problems show how the planner scales: ResNet-50
without a floor, also thinned, and ResNet-152. `rows.jsonl` keeps finished pairs of network and device: the same command
goes on. benchmarks/planner.csv and .json hold what is there, and name what is not.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scripts.measure_planner_table import CSV, cpu_graph
from scripts.planner_figures import Row, find_figures
from scripts.record import record
from tailprune.core.errors import InvalidShape, NoPlan
from tailprune.core.graph import ModelGraph
from tailprune.core.plan import Budget, WidthPlan
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.planning import (
    Candidates,
    Frontier,
    LayerCosts,
    Scope,
    build_problem,
    candidate_widths,
    fixed_multiple,
    greedy_plan,
    plan_frontier,
    plan_widths,
)
from tailprune.tables import import_csv
from tailprune.waves import WaveModel, load_device

NETWORKS = ("resnet18", "resnet50", "resnet101", "vgg16", "mobilenet_v2", "efficientnet_b0", "densenet121")
GPUS = ("v100", "rtx-4090", "h200")
CPU = "cpu table"
BUDGETS = (0.9, 0.8, 0.7, 0.55, 0.4, 0.3)
SEEDS = range(5)
#: HALP's batch size (arXiv 2210.06659), and what it runs in.
BATCH, DTYPE = 256, "float16"
#: Candidates are all multiples of this from the floor up (in the CPU's graph, of its blocks): the rivals' are among them.
EVERY = 8
#: No width falls below this share of the original: all groups at one half still cost about half of it on these GPUs, and
#: budgets of 40 and 30 % would be out of everyone's reach. The CPU's table was measured from one half up.
FLOOR, CPU_FLOOR = 0.25, 0.5
#: Problems that only the planner is timed on, without rivals: (network, floor). Without a floor ResNet-50 has every
#: multiple of 8 as a candidate. `thinned` frontiers leave out what costs at most this share more.
LARGE = {"resnet50 all": ("resnet50", 0.0), "resnet152": ("resnet152", 0.0)}
THIN = 0.1
#: The MILP is asked on these networks, the first GPU, the first seed, for as long at most.
MILP_NETWORKS, MILP_BUDGETS, MILP_SECONDS = ("resnet18", "resnet50", "mobilenet_v2"), (0.7, 0.4), 20.0


@dataclass(frozen=True, kw_only=True)
class World:
    """A network on a device: its graph, its filled table, and which widths all contestants may choose from."""

    network: str
    device: str
    graph: ModelGraph
    costs: LayerCosts
    candidates: Candidates
    floor: float
    floors: dict[str, int]
    original_us: float


def build_world(network: str, device: str) -> World:
    if device == CPU:
        graph, costs, floor = cpu_graph(), LayerCosts(import_csv(CSV)), CPU_FLOOR
    else:
        name, floor = LARGE.get(network, (network, FLOOR))
        graph, costs = _traced(name), LayerCosts(WaveModel(load_device(device)))
    scores = draw_scores(graph, 0)
    candidates = candidate_widths(graph, scores, costs, policy="reallocate", every=EVERY, floor=floor)
    build_problem(graph, scores, costs, candidates.widths)  # every latency that planning asks for is known from here on
    return World(
        network=network,
        device=device,
        graph=graph,
        costs=costs,
        candidates=candidates,
        floor=floor,
        floors={g.id: math.ceil(floor * g.width) for g in graph.prunable_groups},
        original_us=costs.total(graph, graph.widths) / 1e6,
    )


def _traced(network: str) -> ModelGraph:
    import torch
    import torchvision

    import tailprune

    torch.set_num_threads(1)
    model = torchvision.models.get_model(network, weights=None, init_weights=False) if network == "vgg16" else (
        torchvision.models.get_model(network, weights=None)
    )  # fmt: skip
    return tailprune.trace_model(model, torch.randn(1, 3, 224, 224), name=network).at_batch(BATCH, dtype=DTYPE)


def draw_scores(graph: ModelGraph, seed: int) -> ChannelScores:
    """Log-normal scores, a draw for each channel or block of them, compared across the whole network."""
    random = np.random.default_rng(seed)
    return ChannelScores(groups=tuple(
        GroupScores(group=g.id, scores=tuple(random.lognormal(0, 1, g.width // g.granule).tolist()) * g.granule,
                    scope="all", granule=g.granule)
        for g in graph.prunable_groups
    ), method=f"log-normal, seed {seed}")  # fmt: skip


def contestants(world: World, scores: ChannelScores, seed: int) -> Iterator[tuple[str, Callable[[float], WidthPlan]]]:
    """Name, and what plans for a latency. `no floor` multiples may go below what the others are held to."""

    def multiple(size: int, scope: Scope, floors: dict[str, int] | None) -> Callable[[float], WidthPlan]:
        return lambda us: fixed_multiple(
            world.graph, scores, world.costs, size, target_us=us, scope=scope, min_widths=floors
        )

    def ours(us: float, **more: object) -> WidthPlan:
        return plan_widths(
            world.graph, scores, latency=world.costs, policy="reallocate", goal="better",
            budget=Budget.microseconds(us), every=EVERY, floor=world.floor, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    if world.network in LARGE:
        yield "planner", ours
        return
    scopes: tuple[Scope, ...] = ("global", "local") if seed == 0 else ("global",)
    for size in (1, 8, 16, 32, 64):
        for scope in scopes:
            yield f"{'host' if size == 1 else f'multiple {size}'} {scope}", multiple(size, scope, world.floors)
        if seed == 0 and world.device != CPU:
            yield f"{'host' if size == 1 else f'multiple {size}'} no floor", multiple(size, "global", None)
    greedy = functools.partial(greedy_plan, world.graph, scores, world.costs, candidates=world.candidates)
    yield "greedy", lambda us: greedy(target_us=us)
    if seed == 0:
        yield "planner", ours
        if world.network in MILP_NETWORKS and world.device == GPUS[0]:
            yield "milp", lambda us: ours(us, solver="milp", time_limit_s=MILP_SECONDS)


def run_pair(network: str, device: str) -> list[Row]:
    """Every contestant at every budget, and the frontier read at each."""
    world = build_world(network, device)
    gc.freeze()  # the meter collects often; what lives as long as the world need not be looked at
    rows = []
    for seed in SEEDS:
        scores = draw_scores(world.graph, seed)
        for name, plan in contestants(world, scores, seed):
            for share in MILP_BUDGETS if name == "milp" else BUDGETS:
                with Meter() as meter:
                    found = _answer(plan, share * world.original_us)
                rows.append(_row(world, scores, seed, name, share, found and found.widths, meter))
                rows[-1]["gap"] = found and found.optimality_gap
        for name, thin in (("frontier", 0.0), ("frontier thinned", THIN)):
            if not thin or network in LARGE:
                with Meter() as meter:
                    frontier = _frontier(world, scores, thin)
                rows += _read_off(world, scores, seed, name, frontier, meter)
    return rows


def _frontier(world: World, scores: ChannelScores, thin: float) -> Frontier | None:
    """The whole curve at once, None where the network has none."""
    try:
        return plan_frontier(
            world.graph, scores, latency=world.costs, policy="reallocate", every=EVERY, floor=world.floor, thin=thin
        )
    except InvalidShape:
        return None


def _read_off(
    world: World, scores: ChannelScores, seed: int, name: str, frontier: Frontier | None, meter: Meter
) -> Iterator[Row]:
    """The curve at every budget, as it stands, and its largest gap at any. (`Frontier.plan` would solve the budget.)"""
    for share in BUDGETS:
        us = share * world.original_us
        within = [] if frontier is None else [point for point in frontier.points if point.latency_us <= us]
        row = _row(world, scores, seed, name, share, within[-1].widths if within else None, meter)
        if frontier is not None:
            row |= {"worst_gap": frontier.worst_gap, "tried": frontier.num_tried}
        yield row | {"gap": frontier.gap(us)} if frontier is not None and within else row


def _answer(plan: Callable[[float], WidthPlan], us: float) -> WidthPlan | None:
    try:
        return plan(us)
    except NoPlan:
        return None


def _row(
    world: World, scores: ChannelScores, seed: int, name: str, share: float, widths: dict[str, int] | None, meter: Meter
) -> Row:
    row: Row = {
        "network": world.network, "device": world.device, "seed": seed, "budget": share, "method": name,
        "groups": len(world.candidates.widths), "candidates": sum(map(len, world.candidates.widths.values())),
        "importance": None, "share_of_original": None, "over_budget": False, "gap": None, "worst_gap": None, "tried": None,
        "seconds": round(meter.seconds, 4), "peak_mb": round(meter.peak_mb, 1),
    }  # fmt: skip
    if widths is not None:
        us = world.costs.total(world.graph, widths) / 1e6
        row |= {
            "importance": round(scores.importance_kept(widths), 9),
            "share_of_original": round(us / world.original_us, 6),
            "over_budget": us > share * world.original_us + 1e-6,
        }
    return row


class Meter:
    """Seconds, and by how much resident memory peaked above where it stood (Linux, glibc)."""

    def __enter__(self) -> Meter:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is needed now
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status_mb("VmRSS")
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.peak_mb = _status_mb("VmHWM") - self._before


def _status_mb(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start nothing new after so many seconds")
    args = parser.parse_args()
    started = time.monotonic()
    rows: list[Row] = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    done = {(row["network"], row["device"]) for row in rows}
    pairs = [("resnet18", CPU), *((network, device) for network in (*LARGE, *NETWORKS) for device in GPUS)]
    waiting = [pair for pair in pairs if pair not in done]
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns) as bar, args.rows.open("a") as file:
        task = bar.add_task("", total=len(pairs), completed=len(done))
        while waiting and time.monotonic() - started < args.seconds:
            network, device = waiting.pop(0)
            bar.update(task, description=f"{network} on {device}")
            new = run_pair(network, device)
            file.writelines(json.dumps(row) + "\n" for row in new)
            file.flush()
            rows += new
            bar.advance(task)
    left = [f"not run yet, the same command goes on: {', '.join(map(' on '.join, waiting))}"] if waiting else []
    record(
        "planner",
        figures=find_figures(rows),
        rows=rows,
        environment={"cpus": os.cpu_count(), "batch": BATCH, "dtype": DTYPE},
        notes=[
            *left,
            f"wave model of {', '.join(GPUS)} (modelled latencies), batch {BATCH}, {DTYPE}; {CPU}: {CSV.name}, measured",
            "floors: a quarter of the original width on GPUs, half on the CPU; `no floor` rivals are free of them",
            "`resnet50 all` has no floor: every multiple of 8 is a candidate; neither it nor resnet152 has rivals",
            "seconds: from a filled table; one thread; `frontier` rows carry the time of the whole curve",
            "milp: a lower bound of the ratio where its time ended before it had the planner's gap",
            "published, not run here: HALP (arXiv 2210.06659) solves 30 steps of 1 to 3 s on ResNet-50",
        ],
    )


if __name__ == "__main__":
    main()
