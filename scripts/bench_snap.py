"""Is a pruned network faster once it is snapped, at the same accuracy? The quickstart's network over 13 ratios.

    python -m scripts.bench_snap [--device cpu] [--finetune 0.25 0.45 0.6]

At each ratio: Torch-Pruning alone (magnitude, global), fixed multiples of 8, 16 and 32 that keep no less importance, and
tailprune `faster`. All networks are measured interleaved in one run. At the ratios of --finetune host, tailprune and the
multiples are fine-tuned alike and tested. Writes benchmarks/snap.csv (every raw time) and benchmarks/snap.json.
"""

from __future__ import annotations

import argparse
import copy
from statistics import median

import torch

import tailprune
from recipes.configs import FINETUNE_DIGITS, TRAIN_DIGITS
from recipes.contest import Arena
from recipes.data import load_images
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.models import slim_resnet
from recipes.sweep import OURS, measure_sweep, sweep_networks
from scripts.record import figure, record

RATIOS = tuple(round(0.1 + 0.05 * i, 2) for i in range(13))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--finetune", type=float, nargs="*", default=[0.25, 0.45, 0.6])
    args = parser.parse_args()

    images = load_images("digits").to(args.device)
    torch.manual_seed(0)
    dense = slim_resnet(1).to(args.device, memory_format=torch.channels_last)
    finetune(dense, images, TRAIN_DIGITS)
    example = images.example(args.batch).to(args.device)
    timer = tailprune.DeviceTimer(args.device)
    table = tailprune.LatencyTable.in_memory(timer.environment)
    arena = Arena(dense=dense, example=example, table=table, timer=timer, ignored=lambda model: [model.linear])
    networks = sweep_networks(
        arena, RATIOS, progress=lambda done, total, what: print(f"{done}/{total} {what}", flush=True)
    )
    timings = measure_sweep(arena, networks, rounds=args.rounds)

    accuracy: dict[tuple[float, str], float] = {}
    for (ratio, name), model in networks.items():
        if ratio in args.finetune:
            trained = copy.deepcopy(model)
            finetune(trained, images, FINETUNE_DIGITS)
            found = evaluate(trained, images)
            accuracy[ratio, name] = found.share
            print(f"ratio {ratio} {name}: accuracy {found}", flush=True)

    rows = [
        {"ratio": ratio, "method": name, "round": i, "us": us, "accuracy": accuracy.get((ratio, name), "")}
        for ratio, name in networks
        for i, us in enumerate(timings.times_us[f"{ratio} {name}"])
    ]
    us = {key: timings.median_us(f"{key[0]} {key[1]}") for key in networks}
    against_host = [1 - us[r, OURS] / us[r, "host"] for r in RATIOS]
    rivals = {r: min(us[r, n] for q, n in networks if q == r and n.startswith("multiple")) for r in RATIOS}
    against_rivals = [1 - us[r, OURS] / rivals[r] for r in RATIOS]
    lost = [accuracy[r, "host"] - accuracy[r, OURS] for r in args.finetune]
    figures = {
        "median saving against the unrounded host": figure(median(against_host), 0.15, at_most=False),
        "least saving against the unrounded host": figure(min(against_host), 0.0, at_most=False),
        "median saving against the best fixed multiple at no less importance": figure(
            median(against_rivals), 0.05, at_most=False
        ),
        "most accuracy lost against the host after the same fine-tune": figure(max(lost), 0.015),
    }
    record(
        "snap",
        figures=figures,
        rows=rows,
        environment={
            **timer.environment.as_dict(),
            "batch": args.batch,
            "dtype": "float32",
            "memory_format": "channels_last",
        },
        notes=[
            "accuracy on 360 test digits: one image is 0.28 points; two standard errors at 97.5 % are 1.6 points",
            *timings.notes,
        ],
    )


if __name__ == "__main__":
    main()
