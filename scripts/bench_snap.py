"""Is a pruned network faster once it is snapped, at the same accuracy? A small network over 13 ratios.

    python -m scripts.bench_snap --work DIR --until latency      # needs the device to itself, about 4 minutes
    python -m scripts.bench_snap --work DIR                      # fine-tunes what is left, then writes the figures
    python -m scripts.bench_snap --work DIR --data packed:cifar10.safetensors
    python -m scripts.bench_snap --work DIR --data packed:cifar10.safetensors --criterion lamp
    python -m scripts.bench_snap --work DIR --data packed:cifar10.safetensors --weights resnet20.pt

The quickstart's network on the digits or, given data, trained on CIFAR-10, where accuracy falls with every channel and so
tells networks apart; given weights as well, a published ResNet-20.
At each ratio: Torch-Pruning alone (global ranking by magnitude or by LAMP), fixed multiples of 8, 16 and 32 that keep no less importance, and
tailprune `faster`. All networks are measured interleaved in one run. The dense network, and at each ratio the host, tailprune
and the fastest of the multiples, get the same fine-tune with each seed.
"At equal accuracy" means: for the accuracy that the host reaches at each of the 13 ratios, the fastest network of each
method that reaches it too (`scripts/equal_accuracy.py`). A killed run goes on in DIR. Writes benchmarks/snap.csv (every raw
time), benchmarks/snap.parts.csv.gz (the same in parts, from which latencies are put together), benchmarks/snap-accuracy.csv (every
fine-tune) and benchmarks/snap.json; snap-slim-cifar10, snap-slim-cifar10-lamp and snap-cifar10 of the others.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

import tailprune
from recipes.configs import FINETUNE_DIGITS, TRAIN_DIGITS, FinetuneConfig
from recipes.contest import MULTIPLES, Arena, deployed
from recipes.data import ImageSet, load_images
from recipes.distill import RememberedTeacher
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.models import build_model, load_weights, save_weights, slim_resnet
from recipes.models.catalog import output_layers
from scripts.equal_accuracy import Trained, pooled, resampled, savings
from scripts.record import ROOT, figure, record

RATIOS = tuple(round(0.1 + 0.05 * i, 2) for i in range(13))
OURS = "tailprune faster"
RIVALS = tuple(f"multiple of {multiple}" for multiple in MULTIPLES)
BEST = "best multiple"
#: Draws behind each interval; its ends are then known to about a tenth of its width.
DRAWS = 400
Key = tuple[float, str]
#: From random weights: eight passes over CIFAR-10.
TRAIN_CIFAR = FinetuneConfig(epochs=8, batch=128, learning_rate=0.1, label_smoothing=0.0, precision="bfloat16")
#: 200 steps on CIFAR-10, and the test images counted: two cores allow no more steps for 40 networks and two seeds.
CIFAR_IMAGES, CIFAR_TEST = 6_400, 10_000
FINETUNE_CIFAR = FinetuneConfig(
    epochs=1, batch=32, learning_rate=0.02, warmup_epochs=0.1, label_smoothing=0.0, distill_weight=0.5,
    recalibrate_batches=8, precision="bfloat16",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is pruned, and how all that comes of it is fine-tuned."""

    name: str
    dense: nn.Module
    images: ImageSet
    tune: FinetuneConfig
    teacher: nn.Module | None = None


def digits(work: Path, device: str) -> Task:
    images = load_images("digits").to(device)
    return Task(name="snap", dense=slim(work, images, TRAIN_DIGITS, device), images=images, tune=FINETUNE_DIGITS)


def slim_cifar10(work: Path, data: str, device: str) -> Task:
    images = load_images(data).tested_on(CIFAR_TEST).to(device)
    dense = slim(work, images, TRAIN_CIFAR, device)
    part = images.part(CIFAR_IMAGES)
    return Task(
        name="snap-slim-cifar10", dense=dense, images=part, tune=FINETUNE_CIFAR, teacher=RememberedTeacher(dense)
    )


def slim(work: Path, images: ImageSet, train: FinetuneConfig, device: str) -> nn.Module:
    """The quickstart's network, trained here once."""
    torch.manual_seed(0)
    dense = slim_resnet(1).to(device)
    if (work / "dense.safetensors").exists():
        load_weights(dense, work / "dense.safetensors")
    else:
        finetune(
            dense,
            images,
            train,
            on_epoch=lambda report: print(report, flush=True),
            checkpoint=work / "training.safetensors",
        )
        save_weights(dense, work / "dense.safetensors")
    return _ready(dense)


def resnet20_cifar10(data: str, weights: Path, device: str) -> Task:
    dense = _ready(build_model("resnet20-cifar", num_classes=10, weights=weights).to(device))
    images = load_images(data).part(CIFAR_IMAGES).tested_on(CIFAR_TEST).to(device)
    return Task(name="snap-cifar10", dense=dense, images=images, tune=FINETUNE_CIFAR, teacher=RememberedTeacher(dense))


def _ready(dense: nn.Module) -> nn.Module:
    return dense.to(memory_format=torch.channels_last).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what a second run reuses")
    parser.add_argument("--until", choices=("latency", "accuracy"), default="accuracy")
    parser.add_argument("--data", help="packed CIFAR-10; the digits where none is given")
    parser.add_argument("--weights", type=Path, help="of a ResNet-20 for --data")
    parser.add_argument("--criterion", choices=("magnitude", "lamp"), default="magnitude", help="of the host")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    if args.weights and not args.data:
        parser.error("--weights needs --data")
    if args.weights:
        task = resnet20_cifar10(args.data, args.weights, args.device)
    elif args.data:
        task = slim_cifar10(args.work, args.data, args.device)
    else:
        task = digits(args.work, args.device)
    if args.criterion != "magnitude":
        task = dataclasses.replace(task, name=f"{task.name}-{args.criterion}")
    dense, example = task.dense, task.images.example(args.batch).to(args.device)
    plans = kept_plans(args.work / "plans")
    if not (args.work / "latency.json").exists():
        timer = tailprune.DeviceTimer(args.device)
        table = tailprune.LatencyTable.open(args.work / "latency.db", environment=timer.environment)
        arena = Arena(
            dense=dense, example=example, table=table, timer=timer, ignored=output_layers, criterion=args.criterion
        )
        for ratio in RATIOS:
            if (ratio, OURS) not in plans:
                keep_plans(args.work / "plans", made := make_plans(arena, ratio))
                plans |= made
        measure(dense, plans, example, args.device, args.rounds, args.work / "latency.json")
    if args.until == "accuracy":
        us = read_latency(args.work)["us"]
        train(task, {key: plans.get(key) for key in contenders(us)}, args.seeds, args.work / "accuracy.csv")
        write(args.work, task)


def make_plans(arena: Arena, ratio: float) -> dict[Key, tailprune.WidthPlan]:
    """Every contestant's plan at one ratio; a multiple that cannot keep the host's importance at any ratio is left out."""
    ours = arena.tailored(ratio, "faster")
    plans = {
        (ratio, "host"): tailprune.host_plan(ours.graph, ours.scores, arena.table),
        (ratio, OURS): ours.plan,
    }
    for multiple, name in zip(MULTIPLES, RIVALS, strict=True):
        try:
            _, plans[ratio, name] = arena.multiple(ours, multiple, target_importance=ours.plan.host_importance)
        except tailprune.NoPlan as error:
            print(f"ratio {ratio}: {error}", flush=True)
    print(f"ratio {ratio}: {len(plans)} plans", flush=True)
    return plans


def keep_plans(folder: Path, plans: dict[Key, tailprune.WidthPlan]) -> None:
    folder.mkdir(exist_ok=True)
    for (ratio, name), plan in plans.items():
        plan.save(folder / f"{ratio}-{name}.json")


def kept_plans(folder: Path) -> dict[Key, tailprune.WidthPlan]:
    named = [(path, path.stem.partition("-")) for path in sorted(folder.glob("*.json"))]
    return {(float(ratio), name): tailprune.WidthPlan.load(path) for path, (ratio, _, name) in named}


def measure(
    dense: nn.Module, plans: dict[Key, tailprune.WidthPlan], example: torch.Tensor, device: str, rounds: int, path: Path
) -> None:
    """All networks and the dense one interleaved, as deployed. Latency depends on widths alone, so before any fine-tune."""
    models = {f"{ratio} {name}": tailprune.apply_plan(dense, plan) for (ratio, name), plan in plans.items()}
    timings = tailprune.measure_model(
        {name: deployed(model, example) for name, model in {"0.0 dense": dense, **models}.items()},
        example,
        device=device,
        rounds=rounds,
    )
    body = {"environment": timings.environment.as_dict(), "batch": len(example), "notes": timings.notes}
    medians = {name: timings.undisturbed_us(name) for name in timings.times_us}
    crowded = {name: list(timings.crowded.get(name, ())) for name in timings.times_us}
    parts = {name: [[round(us, 1) for us in turn] for turn in timings.parts_us.get(name, ())] for name in medians}
    path.write_text(
        json.dumps({**body, "times_us": timings.times_us, "us": medians, "crowded": crowded, "parts_us": parts})
    )


def read_latency(work: Path) -> dict[str, Any]:
    kept = json.loads((work / "latency.json").read_text())
    named = {name: name.partition(" ") for name in kept["times_us"]}
    by_key = {
        field: {(float(ratio), method): kept[field][name] for name, (ratio, _, method) in named.items()}
        for field in ("times_us", "us", "crowded", "parts_us")
    }
    return {**kept, **by_key}


def contenders(us: Mapping[Key, float]) -> dict[Key, str]:
    """Who is fine-tuned, and as whom: the dense network, and at each ratio the host, tailprune and the fastest multiple."""
    chosen = {(0.0, "dense"): "dense"}
    for ratio in RATIOS:
        best = min((key for key in us if key[0] == ratio and key[1] in RIVALS), key=lambda key: us[key])
        chosen |= {(ratio, "host"): "host", (ratio, OURS): OURS, best: BEST}
    return chosen


def train(task: Task, plans: Mapping[Key, tailprune.WidthPlan | None], seeds: int, path: Path) -> None:
    """The same fine-tune for every network, the dense one included; one line of the file each, and none twice."""
    done = {(float(row["ratio"]), row["method"], int(row["seed"])) for row in read_rows(path)}
    for seed in range(seeds):
        for (ratio, name), plan in plans.items():
            if (ratio, name, seed) in done:
                continue
            model = tailprune.apply_plan(task.dense, plan) if plan else copy.deepcopy(task.dense)
            finetune(model, task.images, dataclasses.replace(task.tune, seed=seed), teacher=task.teacher)
            found = evaluate(model, task.images)
            with path.open("a") as file:
                file.write(f"{ratio},{name},{seed},{found.correct},{found.total}\n")
            print(f"seed {seed} ratio {ratio} {name}: {found}", flush=True)


def read_rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return list(csv.DictReader(lines, fieldnames=("ratio", "method", "seed", "correct", "total")))


def write(work: Path, task: Task) -> None:
    """Figures from what DIR holds; nothing is measured here."""
    kept = read_latency(work)
    times_us, us = kept["times_us"], kept["us"]
    role = contenders(us)
    rows = [row for row in read_rows(work / "accuracy.csv") if (float(row["ratio"]), row["method"]) in role]
    runs: dict[Key, list[int]] = defaultdict(list)
    for row in rows:
        runs[float(row["ratio"]), row["method"]].append(int(row["correct"]))
    with (ROOT / f"benchmarks/{task.name}-accuracy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    with gzip.open(ROOT / f"benchmarks/{task.name}.parts.csv.gz", "wt", newline="") as file:
        parts = csv.writer(file, lineterminator="\n")
        parts.writerow(["ratio", "method", "round", "parts_us"])
        for (ratio, name), turns in kept["parts_us"].items():
            parts.writerows([ratio, name, i, " ".join(map(str, turn))] for i, turn in enumerate(turns))

    count = len(task.images.test_images)
    trained = {key: Trained(us=us[key], correct=sum(runs[key]), total=count * len(runs[key])) for key in role}
    # The dense network is every method's at ratio 0.
    methods = {
        name: [trained[0.0, "dense"], *(trained[key] for key in role if role[key] == name)]
        for name in ("host", OURS, BEST)
    }
    draw = np.random.default_rng(0)
    draws = [at_host_levels(resampled(methods, draw)) for _ in range(DRAWS)]
    at_host, at_rivals = at_host_levels(methods)
    against_host = [1 - us[r, OURS] / us[r, "host"] for r in RATIOS]
    rivals_us = {r: min(us[q, n] for q, n in us if q == r and n in RIVALS) for r in RATIOS}
    against_rivals = [1 - us[r, OURS] / rivals_us[r] for r in RATIOS]
    lost = {
        rival: [trained[key].share - trained[key[0], OURS].share for key in role if role[key] == rival]
        for rival in ("host", BEST)
    }
    record(
        task.name,
        figures={
            "median saving against the unrounded host at equal accuracy": figure(median(at_host), 0.15, at_most=False),
            "median saving against the best fixed multiple at equal accuracy": figure(
                median(at_rivals), 0.05, at_most=False
            ),
            "least saving against the unrounded host at equal accuracy": figure(min(at_host)),
            "least saving against the best fixed multiple at equal accuracy": figure(min(at_rivals)),
            "levels of accuracy compared": figure(len(at_rivals), 13, at_most=False),
            "median saving against the unrounded host at its ratio": figure(median(against_host), 0.15, at_most=False),
            "least saving against the unrounded host at its ratio": figure(min(against_host), 0.0, at_most=False),
            "median saving against the best fixed multiple at no less importance": figure(
                median(against_rivals), 0.05, at_most=False
            ),
            "mean accuracy lost against the host at its ratio": figure(mean(lost["host"]), 0.005),
            "standard error of that mean, host": figure(stdev(lost["host"]) / len(RATIOS) ** 0.5),
            "mean accuracy lost against the best fixed multiple at its ratio": figure(mean(lost[BEST]), 0.005),
            "standard error of that mean, best multiple": figure(stdev(lost[BEST]) / len(RATIOS) ** 0.5),
        },
        rows=[
            {"ratio": ratio, "method": name, "round": i, "us": time, "crowded": i in kept["crowded"][ratio, name]}
            for (ratio, name), times in times_us.items()
            for i, time in enumerate(times)
        ],
        environment={
            **kept["environment"], "batch": kept["batch"], "dtype": "float32", "memory_format": "channels_last",
        },
        notes=[
            f"{len(runs[0.0, 'dense'])} seeds of the same fine-tune for each of {len(runs)} networks, {count} test images each; "
            f"{task.name}-accuracy.csv holds every run",
            f"{task.name}: {len(task.images.train_images):,} training images, {task.tune}",
            "equal accuracy: for the accuracy the host reaches at each ratio, the fastest network of each method that "
            "reaches it; accuracies pooled by isotonic regression, linear between networks",
            f"90 % of {DRAWS} redrawn test counts give a median saving at equal accuracy of {_span(d[0] for d in draws)} "
            f"against the host, {_span(d[1] for d in draws)} against the best multiple",
            *kept["notes"],
        ],
    )  # fmt: skip


def at_host_levels(methods: dict[str, list[Trained]]) -> tuple[list[float], list[float]]:
    """Savings against the host and against the best multiple, one for the accuracy of each of the host's networks."""
    levels = [share for _, share in pooled(methods["host"])][: len(RATIOS)]
    return savings(methods, OURS, levels, ["host"]), savings(methods, OURS, levels, [BEST])


def _span(found: Iterable[list[float]]) -> str:
    low, high = np.quantile([median(values) for values in found], (0.05, 0.95))
    return f"{low:.1%} to {high:.1%}"


if __name__ == "__main__":
    main()
