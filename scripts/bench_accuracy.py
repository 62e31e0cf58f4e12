"""Which pruned network is best at one measured latency, after the same fine-tune? ResNet-20 on CIFAR-10.

    python -m recipes.data cifar10:DIR cifar10.safetensors
    python -m scripts.bench_accuracy plan   --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER
    python -m scripts.bench_accuracy train  --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER
    python -m scripts.bench_accuracy record --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER

`plan` measures (it needs the machine to itself): at each share of the dense network's measured latency every method is
brought to that latency as measured, then all are timed interleaved. `train` fine-tunes plan by plan, one seed after the
other, and appends a row for each: it can be stopped and called again. `record` writes benchmarks/accuracy.csv and .json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shutil
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev

import torch
from torch import nn
from torch.nn import functional as F

import tailprune
from recipes.configs import FinetuneConfig
from recipes.data import load_images
from recipes.distill import RememberedTeacher
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.images import ImageSet
from recipes.models import resnet_from_weights, spell_out_shortcuts
from recipes.race import Course, Planner, Scope, better, bring_to, faster, host, multiple
from scripts.record import ROOT, figure, record

#: Shares of the dense network's measured latency, and the points asked for over the unrounded host there.
TARGETS = {0.50: 0.5, 0.35: 1.5, 0.25: 2.5}
BATCH = 32
#: Images of the short fine-tune, seen once: 200 steps. Two shared cores allow no more for so many networks.
IMAGES = 6_400
#: Test images looked at, the same for every network: 0.7 points of standard error at 50 %.
TEST = 5_000
CONFIG = FinetuneConfig(
    epochs=1, batch=32, learning_rate=0.02, warmup_epochs=0.1, label_smoothing=0.0, distill_weight=0.5,
    recalibrate_batches=8, precision="bfloat16",
)  # fmt: skip
OURS = ("tailprune better", "tailprune faster", "tailprune reallocate")
MULTIPLES = ("multiple of 8", "multiple of 16")
#: Hosts that ours and the multiples start from: a network's name ends with its start, "tailprune better l1 local".
STARTS = ("taylor global", "l1 local")
#: In the order they are trained.
NETWORKS = (
    *(f"{method} {start}" for start in STARTS for method in ("host", *OURS, *MULTIPLES)), "host l1 global", "host fpgm global",
)  # fmt: skip


def planners(course: Course, images: ImageSet) -> dict[str, Planner]:
    """Everyone who competes: unrounded hosts, and rivals and tailprune from two of them."""
    scores = taylor_scores(course.dense, course.graph, images)
    l1, fpgm = (tailprune.score_channels(course.dense, course.graph, method) for method in ("l1", "fpgm"))
    found = {"host l1 global": host(course, l1), "host fpgm global": host(course, fpgm)}
    starts: dict[str, tuple[tailprune.ChannelScores, Scope]] = {
        "taylor global": (scores, "global"),
        "l1 local": (l1, "local"),
    }
    for name, (given, scope) in starts.items():
        found |= {
            f"host {name}": host(course, given, scope),
            f"multiple of 8 {name}": multiple(course, given, 8, scope),
            f"multiple of 16 {name}": multiple(course, given, 16, scope),
            f"tailprune better {name}": better(course, given, scope),
            f"tailprune faster {name}": faster(course, given, scope),
            f"tailprune reallocate {name}": better(course, given, scope, policy="reallocate"),
        }
    return found


def taylor_scores(
    model: nn.Module, graph: tailprune.ModelGraph, images: ImageSet, *, batches: int = 16
) -> tailprune.ChannelScores:
    """|w dw| with gradients summed over some training batches, in eval mode so that the network stays as it is."""
    model.zero_grad()
    seen = images.training_pass(batch=128, shift=0, seed=0)
    for _, (pixels, labels) in zip(range(batches), seen, strict=False):
        F.cross_entropy(model(pixels), labels).backward()
    scores = tailprune.score_channels(model, graph, "taylor")
    model.zero_grad()
    return scores


def plan(course: Course, images: ImageSet, folder: Path, rounds: int) -> None:
    """Plan files and one interleaved measurement of all of them; what is there already is not made again."""
    there = {name for _, name in saved_plans(folder)}
    missing = {name: make for name, make in planners(course, images).items() if name not in there}
    found = bring_to(course, missing, list(TARGETS), say=lambda line: print(line, flush=True)) if missing else {}
    for (share, name), one in found.items():
        one.save(_plan_file(folder, share, name))
    plans = saved_plans(folder)
    timings = course.measure({f"{share} {name}": p for (share, name), p in plans.items()}, rounds=rounds)
    with (folder / "times.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "round", "us"])
        writer.writerows([name, i, us] for name, times in timings.times_us.items() for i, us in enumerate(times))


def train(dense: nn.Module, images: ImageSet, folder: Path, seeds: Sequence[int]) -> None:
    """One row for every plan and seed that has none yet; seeds outermost, so that any part of it is balanced."""
    part = images.part(IMAGES).tested_on(TEST)
    path = folder / "accuracy.csv"
    done = {(float(row["share"]), row["network"], int(row["seed"])) for row in read_rows(path)}
    teacher, plans = RememberedTeacher(dense), saved_plans(folder)
    jobs = [(seed, share, name) for seed in seeds for name in NETWORKS for share in TARGETS if (share, name) in plans]
    for seed, share, name in jobs:
        if (share, name, seed) in done:
            continue
        began = time.process_time()
        model = tailprune.apply_plan(dense, plans[share, name])
        finetune(model, part, dataclasses.replace(CONFIG, seed=seed), teacher=teacher)
        row = {
            "share": share, "network": name, "seed": seed, "accuracy": evaluate(model, part).share,
            "cpu_s": round(time.process_time() - began, 1),
        }  # fmt: skip
        append_row(path, row)
        print(row, flush=True)


def _plan_file(folder: Path, share: float, name: str) -> Path:
    return folder / f"{share:.2f} {name}.plan.json"


def saved_plans(folder: Path) -> dict[tuple[float, str], tailprune.WidthPlan]:
    found = {}
    for path in sorted(folder.glob("*.plan.json")):
        share, _, name = path.name.removesuffix(".plan.json").partition(" ")
        found[float(share), name] = tailprune.WidthPlan.load(path)
    return found


def publish(graph: tailprune.ModelGraph, folder: Path) -> None:
    """Everything that ran, and how far each of ours lies from its own host and from the best multiple."""
    times: dict[str, list[float]] = {}
    for row in read_rows(folder / "times.csv"):
        times.setdefault(row["network"], []).append(float(row["us"]))
    us = {name: median(values) for name, values in times.items()}
    plans, found = saved_plans(folder), read_rows(folder / "accuracy.csv")
    rows, scores = [], dict[tuple[float, str], list[float]]()
    for row in found:
        share, name = float(row["share"]), row["network"]
        widths = plans[share, name].widths
        scores.setdefault((share, name), []).append(100 * float(row["accuracy"]))
        rows.append(
            {
                "share": share, "network": name, "seed": row["seed"], "accuracy": row["accuracy"],
                "measured_us": round(us[f"{share} {name}"], 1),
                "measured_share": round(us[f"{share} {name}"] / us["dense"], 4),
                "macs_share": round(graph.macs_at(widths) / graph.macs_at(), 4),
                "parameters": graph.num_parameters_at(widths), "importance": round(plans[share, name].importance, 4),
                "widths": " ".join(map(str, widths.values())), "training_cpu_s": row["cpu_s"],
            }
        )  # fmt: skip
    figures: dict[str, dict[str, object]] = {
        "seeds of the row with fewest": figure(min(map(len, scores.values())), 3, at_most=False),
        "most time that one of ours takes beyond its host": figure(
            max(
                us[f"{share} {ours} {start}"] / us[f"{share} host {start}"] - 1
                for share in TARGETS
                for ours in OURS
                for start in STARTS
                if (share, f"{ours} {start}") in scores
            ),
            0.02,
        ),
    }
    for share, points in TARGETS.items():
        at = {name: mean(values) for (s, name), values in scores.items() if s == share}
        hosts = [value for name, value in at.items() if name.startswith("host")]
        ours_at = [value for name, value in at.items() if name.startswith("tailprune")]
        if hosts and ours_at:
            figures[f"best of ours over the strongest host at {share:.0%}"] = figure(
                max(ours_at) - max(hosts), points, at_most=False, unit="points"
            )
        for start in STARTS:
            rivals = [at[f"{rule} {start}"] for rule in MULTIPLES if f"{rule} {start}" in at]
            for ours in [o for o in OURS if f"{o} {start}" in at and f"host {start}" in at]:
                mine, where = at[f"{ours} {start}"], f"{start} at {share:.0%}"
                over = mine - at[f"host {start}"]
                figures[f"{ours} over the host, {where}"] = figure(over, points, at_most=False, unit="points")
                if rivals:
                    over = mine - max(rivals)
                    figures[f"{ours} over the best multiple, {where}"] = figure(over, 0.0, at_most=False, unit="points")
    for (share, name), values in sorted(scores.items(), reverse=True):
        spread = stdev(values) if len(values) > 1 else 0.0
        taken = us[f"{share} {name}"] / us["dense"]
        print(
            f"{share:.0%} {name}: {mean(values):.2f} % +- {spread:.2f} ({len(values)} seeds), {taken:.1%} of the dense time"
        )
    record(
        "accuracy", figures=figures, rows=rows,
        environment={"device": "cpu, 1 thread", "batch": BATCH, "dtype": "float32", "memory_format": "channels_last"},
        notes=[
            f"ResNet-20 on CIFAR-10 from trained weights (91.73 %), dense {us['dense']:,.0f} us; shortcuts spelled out as 1x1 convolutions",
            f"fine-tune: {IMAGES:,} training images seen once, with {CONFIG}",
            "so short a schedule shows which networks recover first, not what is left after a full one",
            f"no plan reaches the latency, or none was made: {_listed(((s, n) for s in TARGETS for n in NETWORKS), but=plans)}",
            f"planned and measured, not trained: {_listed(plans, but=scores)}",
            f"measured_us: medians of {len(times['dense'])} rounds in which all networks ran interleaved, in accuracy.times.csv",
            f"accuracy on {TEST:,} test images: standard error 0.7 points at 50 %, the same images for every network",
        ],
    )  # fmt: skip
    shutil.copy(folder / "times.csv", ROOT / "benchmarks" / "accuracy.times.csv")


def _listed(keys: Iterable[tuple[float, str]], *, but: Container[tuple[float, str]]) -> str:
    return "; ".join(f"{name} at {share:.0%}" for share, name in keys if (share, name) not in but) or "none"


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def dense_and_images(weights: Path, data: str, device: str) -> tuple[nn.Module, ImageSet]:
    """The trained network with its shortcuts spelled out, so that every channel group can be pruned."""
    return spell_out_shortcuts(resnet_from_weights(weights)).to(device).eval(), load_images(data).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["plan", "train", "record"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dense, images = dense_and_images(args.weights, args.data, args.device)
    graph = tailprune.trace_model(dense, images.example(BATCH), name="ResNet-20")
    if args.verb == "record":
        publish(graph, args.work)
    if args.verb == "train":
        train(dense, images, args.work, args.seeds)
    if args.verb == "plan":
        example = images.example(BATCH)
        timer = tailprune.DeviceTimer(args.device)
        table = tailprune.LatencyTable.open(args.work / "latency.db", environment=timer.environment)
        print(tailprune.fill_table(table, graph, timer).summary(), flush=True)
        plan(
            Course(dense=dense, example=example, graph=graph, table=table, timer=timer), images, args.work, args.rounds
        )


if __name__ == "__main__":
    main()
