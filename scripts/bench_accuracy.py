"""Which pruned network is best at one measured latency, after the same fine-tune? ResNet-20 and MobileNetV2 on CIFAR-10.

    python -m recipes.data cifar10:DIR cifar10.safetensors
    python -m scripts.bench_accuracy dense  mobilenetv2 --data packed:cifar10.safetensors --weights mobilenetv2.safetensors
    python -m scripts.bench_accuracy plan   resnet20 --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER
    python -m scripts.bench_accuracy train  resnet20 --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER
    python -m scripts.bench_accuracy record resnet20 --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER

`dense` trains the dense network where no weights are given, resumable epoch by epoch. `plan` measures (it needs the
machine to itself): at each share of the dense network's measured latency every method is brought to that latency as
measured, then all are timed interleaved. `train` fine-tunes plan by plan, one seed after the other, and appends a row
for each: it can be stopped and called again. `record` writes benchmarks/accuracy-NET.csv and .json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import tailprune
from recipes.configs import MOBILENETV2_CIFAR10, RESNET20_CIFAR10, FinetuneConfig
from recipes.data import load_images
from recipes.distill import RememberedTeacher
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.images import ImageSet
from recipes.models import build_model, save_weights
from recipes.progress import EpochReport
from recipes.race import Course, Planner, Scope, better, bring_to, faster, host, multiple
from scripts.accuracy_figures import NETWORKS, TARGETS, Key, publish, read_rows

BATCH = 32
#: Of one width among thousands: aims are corrected by whole networks as measured.
PRECISION, MOST_VISITS = 0.05, 6
#: Who is pruned, by the name of its model in recipes.models.
MODELS = {"resnet20": RESNET20_CIFAR10.model, "mobilenetv2": MOBILENETV2_CIFAR10.model}
#: Images of the short fine-tune, seen once: 400 steps. Two shared cores allow no more for so many networks.
IMAGES = 12_800
#: Test images looked at, the same for every network: 0.7 points of standard error at 50 %.
TEST = 5_000
CONFIG = FinetuneConfig(
    epochs=1, batch=32, learning_rate=0.02, warmup_epochs=0.1, label_smoothing=0.0, distill_weight=0.5,
    recalibrate_batches=8, precision="bfloat16",
)  # fmt: skip
#: From random weights, all 50,000 images: as far as an hour of one core goes.
DENSE = FinetuneConfig(
    epochs=3, batch=64, learning_rate=0.05, warmup_epochs=0.3, weight_decay=1e-4, label_smoothing=0.0, precision="bfloat16"
)  # fmt: skip

#: What a reader must know of dense networks that were trained here.
DENSE_NOTES = {"mobilenetv2": (f"dense network from random weights: {DENSE}",)}


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


def plan(
    course: Course, images: ImageSet, folder: Path, rounds: int, shares: Sequence[float], methods: Sequence[str]
) -> None:
    """Plan files and one interleaved measurement of all of them; what is there already is not made again."""
    there = saved_plans(folder)
    every = {name: make for name, make in planners(course, images).items() if name.startswith(tuple(methods))}
    for share in shares:
        missing = {name: make for name, make in every.items() if (share, name) not in there}
        found = bring_to(course, missing, [share], say=lambda line: print(line, flush=True))
        for (_, name), one in found.items():
            one.save(_plan_file(folder, share, name))
    plans = saved_plans(folder)
    timings = course.measure({f"{share} {name}": p for (share, name), p in plans.items()}, rounds=rounds)
    with (folder / "times.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "round", "us"])
        writer.writerows([name, i, us] for name, times in timings.times_us.items() for i, us in enumerate(times))


def train(dense: nn.Module, images: ImageSet, folder: Path, seeds: Sequence[int], shares: Sequence[float]) -> None:
    """One row for every plan and seed that has none yet; seeds outermost, so that any part of it is balanced.

    Two processes may share the work by shares of the latency.
    """
    part = images.part(IMAGES).tested_on(TEST)
    path = folder / "accuracy.csv"
    done = {(float(row["share"]), row["network"], int(row["seed"])) for row in read_rows(path)}
    teacher, plans = RememberedTeacher(dense), saved_plans(folder)
    jobs = [(seed, share, name) for seed in seeds for name in NETWORKS for share in shares if (share, name) in plans]
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


def saved_plans(folder: Path) -> dict[Key, tailprune.WidthPlan]:
    found = {}
    for path in sorted(folder.glob("*.plan.json")):
        share, _, name = path.name.removesuffix(".plan.json").partition(" ")
        found[float(share), name] = tailprune.WidthPlan.load(path)
    return found


def append_row(path: Path, row: Mapping[str, object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def dense_network(net: str, weights: Path, device: str) -> nn.Module:
    """The trained network, a ResNet's shortcuts spelled out, so that every channel group can be pruned."""
    return build_model(MODELS[net], num_classes=10, weights=weights).to(device).eval()


def train_dense(net: str, images: ImageSet, weights: Path, device: str) -> None:
    torch.manual_seed(DENSE.seed)
    model = build_model(MODELS[net], num_classes=10).to(device)

    def say(report: EpochReport) -> None:
        print(
            f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.3f}, accuracy {report.accuracy}", flush=True
        )

    finetune(model, images, DENSE, on_epoch=say, checkpoint=weights.with_suffix(".progress"))
    save_weights(model, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["dense", "plan", "train", "record"])
    parser.add_argument("net", choices=[*MODELS])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="*", default=[*TARGETS])
    parser.add_argument("--methods", nargs="*", default=["host", "multiple", "tailprune"], help="how their names start")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = load_images(args.data).to(args.device)
    if args.verb == "dense":
        train_dense(args.net, images, args.weights, args.device)
        return
    if args.work is None:
        parser.error(f"{args.verb} needs --work FOLDER")
    args.work.mkdir(parents=True, exist_ok=True)
    dense = dense_network(args.net, args.weights, args.device)
    if args.verb == "train":
        train(dense, images, args.work, args.seeds, args.shares)
        return
    graph = tailprune.trace_model(dense, images.example(BATCH), name=args.net)
    if args.verb == "record":
        notes = (
            f"fine-tune: {IMAGES:,} training images seen once, with {CONFIG}",
            f"accuracy on {TEST:,} test images: standard error 0.7 points at 50 %, the same images for every network",
            f"measured at batch {BATCH}",
            *DENSE_NOTES.get(args.net, ()),
        )
        publish(args.net, graph, evaluate(dense, images), saved_plans(args.work), args.work, notes=notes)
        return
    example = images.example(BATCH)
    timer = tailprune.DeviceTimer(args.device, precision=PRECISION, max_visits=MOST_VISITS)
    table = tailprune.LatencyTable.open(args.work / "latency.db", environment=timer.environment)
    print(tailprune.fill_table(table, graph, timer).summary(), flush=True)
    plan(
        Course(dense=dense, example=example, graph=graph, table=table, timer=timer),
        images,
        args.work,
        args.rounds,
        args.shares,
        args.methods,
    )


if __name__ == "__main__":
    main()
