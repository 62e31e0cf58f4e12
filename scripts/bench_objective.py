"""Does kept score predict accuracy? Thirty-two plans of one network at one cost, each criterion against what training brings.

    python -m scripts.bench_objective train  --data packed:cifar10.safetensors --weights resnet20.pt --work FOLDER
    python -m scripts.bench_objective record --work FOLDER

Widths are drawn at random and scaled to 50 % of the dense network's multiply-adds, so that kept score cannot win by mere
size. Each plan keeps the best channels by one criterion (the first: taylor), norms are recalibrated, and the network is tested;
some are fine-tuned for a short while besides. Spearman's rank correlation says whether a higher kept score is a better
network, for every criterion at the same widths; `random` scores are the control, and so is the distance from the host's widths.
`train` appends a row a network: it can be stopped and called again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from scipy.stats import spearmanr
from torch import nn

import tailprune
from recipes.configs import FinetuneConfig
from recipes.data import load_images
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.images import ImageSet
from recipes.norms import recalibrate_norms
from scripts.accuracy_figures import read_rows
from scripts.bench_accuracy import append_row, dense_network, taylor_scores
from scripts.record import figure, record
from tailprune import ChannelScores, ModelGraph

CRITERIA = ("taylor", "l1", "random", "fpgm", "magnitude", "bn_scale", "lamp")
PLANS, MACS_SHARE = 32, 0.5
#: Plans that are fine-tuned besides: each takes a minute of a shared core.
FINETUNED = 12
#: 100 steps of 32 images; the order and the augmentation are the same for every plan.
IMAGES = 3_200
#: Test images looked at: a point of standard error, well below what the plans differ by.
TEST = 2_500
CONFIG = FinetuneConfig(
    epochs=1,
    batch=32,
    learning_rate=0.02,
    warmup_epochs=0.1,
    label_smoothing=0.0,
    recalibrate_batches=8,
    precision="bfloat16",
)


def random_widths(graph: ModelGraph, seed: int) -> dict[str, int]:
    """Each group between a sixth and all of its channels, log-uniformly, then all scaled to one share of the dense MACs."""
    draw = random.Random(seed)
    raw = {g.id: g.width * math.exp(draw.uniform(math.log(1 / 6), 0.0)) for g in graph.prunable_groups}

    def scaled(factor: float) -> dict[str, int]:
        return {g.id: min(max(round(raw[g.id] * factor), 1), g.width) for g in graph.prunable_groups}

    low, high = 0.01, 6.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if graph.macs_at(scaled(middle)) < MACS_SHARE * graph.macs_at() else (low, middle)
    return scaled(low)


def keeping(scores: ChannelScores, widths: dict[str, int]) -> ChannelScores:
    """A host that keeps each group's best channels by these scores, at these widths."""
    groups = (dataclasses.replace(g, host_kept=g.kept_channels(widths[g.group]), scope="all") for g in scores.groups)
    return dataclasses.replace(scores, groups=tuple(groups))


def host_widths(graph: ModelGraph, scores: ChannelScores) -> dict[str, int]:
    """What global ranking keeps at the plans' cost."""
    ratios = (i / 200 for i in range(200))
    hosts = (tailprune.choose_host(scores, ratio, keep_one=True).host_widths for ratio in ratios)
    return next(widths for widths in hosts if graph.macs_at(widths) <= MACS_SHARE * graph.macs_at())


def train(dense: nn.Module, images: ImageSet, path: Path, criteria: Sequence[str]) -> None:
    graph = tailprune.trace_model(dense, images.example(8), name="ResNet-20")
    scores = {c: tailprune.score_channels(dense, graph, c) for c in CRITERIA if c != "taylor"}
    scores["taylor"] = taylor_scores(dense, graph, images)
    part = images.part(IMAGES).tested_on(TEST)
    latency = tailprune.WaveModel(tailprune.load_device("h200"))  # plans carry one; nothing here depends on it
    host = host_widths(graph, scores["taylor"])
    everyone = [random_widths(graph, seed) for seed in range(PLANS)]
    done = {(int(row["plan"]), row["kept_by"]) for row in read_rows(path)}
    for criterion in criteria:
        for seed in [seed for seed in range(PLANS) if (seed, criterion) not in done]:
            widths = everyone[seed]
            kept = keeping(scores[criterion], widths)
            model = tailprune.apply_plan(dense, tailprune.host_plan(graph, kept, latency))
            recalibrate_norms(model, part, batches=8)
            row = {
                "plan": seed, "kept_by": criterion, "recalibrated": evaluate(model, part).share, "finetuned": "",
                "macs_share": round(graph.macs_at(widths) / graph.macs_at(), 4),
                "distance": round(sum(abs(math.log(widths[g] / host[g])) for g in widths) / len(widths), 4),
                **{f"{c} kept": round(keeping(scores[c], widths).importance_kept(widths), 6) for c in CRITERIA},
            }  # fmt: skip
            if criterion == CRITERIA[0] and seed < FINETUNED:
                finetune(model, part, CONFIG)
                row["finetuned"] = evaluate(model, part).share
            append_row(path, row)
            print(row, flush=True)


def publish(rows: list[dict[str, str]]) -> None:
    """Rank correlations over plans: what each criterion keeps at a plan's widths, against what its network achieves."""
    tested = [row for row in rows if row["kept_by"] == CRITERIA[0]]
    trained = [row for row in tested if row["finetuned"]]
    figures: dict[str, dict[str, object]] = {"plans": figure(len(tested), 30, at_most=False)}
    for what, some in (("recalibrated", tested), ("finetuned", trained)):
        accuracy = [float(row[what]) for row in some]
        for criterion in CRITERIA:
            kept = [float(row[f"{criterion} kept"]) for row in some]
            figures[f"{criterion} kept against accuracy {what}"] = figure(correlation(kept, accuracy))
        distance = [float(row["distance"]) for row in some]
        figures[f"distance from the host's widths against accuracy {what}"] = figure(correlation(distance, accuracy))
    before, after = ([float(row[what]) for row in trained] for what in ("recalibrated", "finetuned"))
    figures["accuracy recalibrated against accuracy finetuned"] = figure(correlation(before, after))
    for criterion in CRITERIA:
        own = [float(row["recalibrated"]) for row in rows if row["kept_by"] == criterion]
        if len(own) == len(tested):
            figures[f"mean accuracy recalibrated of channels kept by {criterion}"] = figure(mean(own))
    record(
        "objective", figures=figures, rows=rows, environment={"device": "cpu, 1 thread"},
        notes=[
            f"ResNet-20 on CIFAR-10, random widths at {MACS_SHARE:.0%} of the dense multiply-adds, {TEST:,} test images, channels kept by {CRITERIA[0]}",
            f"{len(trained)} of {len(tested)} plans were fine-tuned: {IMAGES:,} images seen once, with {CONFIG}",
            *(f"without any relation, Spearman's correlation of {n} plans lies within +-{1.96 / math.sqrt(n - 1):.2f} at 95 %"
              for n in (len(tested), len(trained))),
        ],
    )  # fmt: skip


def correlation(a: list[float], b: list[float]) -> float:
    """Spearman's."""
    return float(spearmanr(a, b).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "record"])
    parser.add_argument("--data")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--criteria", nargs="*", default=CRITERIA, help="Whose own networks are made.")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = args.work / "objective.csv"
    if args.verb == "train":
        torch.set_num_threads(1)
        dense, images = dense_network("resnet20", args.weights, args.device), load_images(args.data).to(args.device)
        train(
            dense,
            images,
            rows,
            args.criteria,
        )
    else:
        publish(read_rows(rows))


if __name__ == "__main__":
    main()
