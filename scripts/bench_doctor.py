"""Does the doctor name time that snapping really saves? ResNet-50, dense and pruned by Torch-Pruning, on a measured table.

    python -m scripts.bench_doctor [--side 64] [--ratio 0.45]

Random weights (latency depends on widths alone), one image of side x side pixels. The table is filled along the pruned
network's groups; the doctor reads the unrounded host's widths; then host, snapped, and host with the doctor's own three
changes are measured interleaved, norms folded. Writes benchmarks/doctor.csv (raw times) and benchmarks/doctor.json.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
import torch_pruning as tp
import torchvision

import tailprune
from scripts.record import figure, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--ratio", type=float, default=0.45)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--table", default="runs/doctor.db")
    args = parser.parse_args()

    torch.manual_seed(0)
    dense = torchvision.models.resnet50().eval()
    images = torch.randn(1, 3, args.side, args.side).to(memory_format=torch.channels_last)
    graph = tailprune.trace_model(dense, images, name=f"ResNet-50 at {args.side}x{args.side}")
    timer = tailprune.DeviceTimer("cpu", precision=0.03, max_visits=12)
    Path(args.table).parent.mkdir(parents=True, exist_ok=True)
    table = tailprune.LatencyTable.open(args.table, environment=timer.environment)

    def host() -> tp.pruner.BasePruner:
        model = copy.deepcopy(dense)
        return tp.pruner.MagnitudePruner(
            model, images, importance=tp.importance.GroupMagnitudeImportance(), pruning_ratio=args.ratio,
            global_pruning=True, ignored_layers=[model.fc], in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
        )  # fmt: skip

    plain = host()
    plain.step()
    print(tailprune.fill_table(table, graph, timer, progress=_progress()).summary(), flush=True)
    wrapped = tailprune.TailAwarePruner(host(), latency=table, timer=timer)
    wrapped.step()
    widths = tailprune.read_widths(graph, plain.model)
    start = time.perf_counter()
    found = tailprune.measure_while(table, timer, lambda: tailprune.diagnose(graph, widths, table))
    seconds = time.perf_counter() - start
    print(found.summary(), flush=True)

    scores = wrapped.scores
    advised = {**widths, **{change.group: change.to for change in found.changes}}
    choices = {group: width for group, width in advised.items() if group in scores.by_group}
    followed = copy.deepcopy(dense)
    hand = tailprune.host_from_widths(followed, graph, choices)
    plan = tailprune.measure_while(table, timer, lambda: tailprune.host_plan(graph, hand, table))
    followed = tailprune.apply_plan(followed, plan)
    networks = {"host": plain.model, "snapped": wrapped.host.model, "host with the doctor's three changes": followed}
    ready = {
        name: tailprune.fold_norms(model, tailprune.trace_model(model, images)) for name, model in networks.items()
    }
    timings = tailprune.measure_model(ready, images, rounds=args.rounds)
    us = {name: timings.median_us(name) for name in networks}
    saved = us["host"] - us["snapped"]
    record(
        "doctor",
        figures={
            "time the doctor calls wasted in the host's network": figure(found.wasted_us, unit="us"),
            "time that snapping saves, measured": figure(saved, 0.0, at_most=False, unit="us"),
            "share of the host's latency that snapping saves": figure(saved / us["host"], 0.0, at_most=False),
            "saved over called wasted": figure(saved / found.wasted_us if found.wasted_us else 0.0, 0.5, at_most=False),
            "saved by the three changes, measured over promised": figure(
                (us["host"] - us["host with the doctor's three changes"]) / (found.latency_us - found.together_us),
                0.5,
                at_most=False,
            ),
            "predicted over measured, host": figure(found.latency_us / us["host"]),
            "seconds to diagnose, shapes it lacked included": figure(seconds, 10.0, unit="s"),
        },
        rows=[
            {"network": name, "round": i, "us": time_us}
            for name in networks
            for i, time_us in enumerate(timings.times_us[name])
        ],
        environment={
            **timer.environment.as_dict(),
            "batch": 1,
            "side": args.side,
            "ratio": args.ratio,
            "dtype": "float32",
        },
        notes=[f"{change.group}: {change.width} -> {change.to}" for change in found.changes],
    )


def _progress():
    last = [0.0]

    def report(done: int, total: int, what: str) -> None:
        if time.time() - last[0] > 20:
            last[0] = time.time()
            print(f"{done}/{total} {what}", flush=True)

    return report


if __name__ == "__main__":
    main()
