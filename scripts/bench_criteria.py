"""Which criterion's kept importance tells how accurate a network is after a fine-tune? Networks at widths drawn around a host's.

    python -m scripts.bench_criteria train  --data packed:cifar10.safetensors --work FOLDER   # half a minute a network
    python -m scripts.bench_criteria record --data packed:cifar10.safetensors --work FOLDER

Around the widths of two hosts (magnitude and taylor, global, 40 %) widths are drawn log-normally and scaled until the host's
own criterion is kept to 1 %: what that criterion calls equal. All get the fine-tune of `scripts/bench_snap.py`. `record` says how
much of the differences in accuracy the importance kept by each criterion explains (R squared; each host's networks have a
level of their own), with the sum of the logarithms of the widths beside it, which knows no weights at all. `train` appends a
line a network and goes on where it was stopped. Writes benchmarks/criteria.csv and benchmarks/criteria.json.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tailprune
from recipes.data import load_images
from recipes.distill import RememberedTeacher
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.hosts import HOSTS, add_gradients, build_host
from recipes.images import ImageSet
from scripts.bench_snap import CIFAR_IMAGES, FINETUNE_CIFAR, TRAIN_CIFAR, slim
from scripts.record import figure, record
from tailprune import ChannelScores
from tailprune.waves import WaveModel, load_device

RATIO, DRAWS = 0.4, 18
AROUND = ("magnitude", "taylor")
CRITERIA = tuple(name for name in HOSTS if name != "bn_scale")
#: Standard deviations of the logarithm of a width: from a step to half the channels.
SPREADS = (0.15, 0.3, 0.45)
EQUAL = 0.01


def scores_of(dense: nn.Module, images: ImageSet, criterion: str, ratio: float) -> ChannelScores:
    """As the host's own rehearsal sees them, with the channels that it would keep."""
    twin = copy.deepcopy(dense)
    if criterion == "taylor":
        add_gradients(twin, images, batches=16, batch=128)
    pruner = tailprune.TailAwarePruner(
        build_host(criterion, twin, images.example(8), ratio), latency=WaveModel(load_device("h200"))
    )
    pruner.step()
    assert pruner.scores is not None
    return pruner.scores


def kept(scores: ChannelScores, widths: Mapping[str, int]) -> float:
    return sum(scores.by_group[group].kept_score(width) for group, width in widths.items())


def drawn_widths(graph: tailprune.ModelGraph, scores: ChannelScores, count: int) -> list[dict[str, int]]:
    """The host's own widths first; then drawn ones that keep as much by these scores, to within EQUAL."""
    draw = random.Random(1)
    host = {group.id: scores.host_widths[group.id] for group in graph.prunable_groups}
    goal = kept(scores, host)
    found = [host]
    while len(found) <= count:
        spread = draw.choice(SPREADS)
        moved = {group: draw.gauss(0, spread) for group in host}

        def scaled(by: float, moved: Mapping[str, float] = moved) -> dict[str, int]:
            return {
                group: max(2, min(scores.by_group[group].width, round(host[group] * math.exp(moved[group] + by))))
                for group in host
            }

        low, high = -2.0, 2.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(scores, scaled(middle)) < goal else (low, middle)
        if abs(kept(scores, scaled(high)) / goal - 1) < EQUAL:
            found.append(scaled(high))
    return found


def train(dense: nn.Module, images: ImageSet, work: Path) -> None:
    teacher, part = RememberedTeacher(dense), images.part(CIFAR_IMAGES)
    graph = tailprune.trace_model(dense, images.example(8))
    for criterion in AROUND:
        scores = scores_of(dense, images, criterion, RATIO)
        path = work / f"{criterion}.jsonl"
        done = len(path.read_text().splitlines()) if path.exists() else 0
        for widths in drawn_widths(graph, scores, DRAWS)[done:]:
            plan = tailprune.plan_widths(
                graph, scores, latency=WaveModel(load_device("h200")), policy="reallocate", floor=0.0,
                min_widths=widths, max_widths=widths,
            )  # fmt: skip
            model = tailprune.apply_plan(dense, plan)
            finetune(model, part, dataclasses.replace(FINETUNE_CIFAR, seed=0), teacher=teacher)
            correct = evaluate(model, images)
            with path.open("a") as file:
                file.write(json.dumps({"w": widths, "correct": correct.correct, "total": correct.total}) + "\n")
            print(f"{criterion} {widths}: {correct}", flush=True)


def explained(accuracy: np.ndarray, around: np.ndarray, kept_: np.ndarray) -> tuple[float, float]:
    """R squared of a line beyond one level for each host, and the sign of its slope."""
    level = np.stack([np.ones_like(accuracy), around], axis=1)
    line = np.column_stack([level, kept_])
    without, found = (design @ np.linalg.lstsq(design, accuracy, rcond=None)[0] for design in (level, line))
    slope = np.linalg.lstsq(line, accuracy, rcond=None)[0][2]
    return float(1 - ((accuracy - found) ** 2).sum() / ((accuracy - without) ** 2).sum()), float(np.sign(slope))


def write(dense: nn.Module, images: ImageSet, work: Path) -> None:
    rows = [
        {"around": criterion, **json.loads(line)}
        for criterion in AROUND
        for line in (work / f"{criterion}.jsonl").read_text().splitlines()
    ]
    accuracy = np.array([row["correct"] / row["total"] for row in rows])
    around = np.array([float(row["around"] == AROUND[0]) for row in rows])
    values = {}
    for criterion in CRITERIA:
        scores = scores_of(dense, images, criterion, 0.01)
        values[f"{criterion} kept"] = np.array([kept(scores, row["w"]) for row in rows])
    values["sum of the logarithms of the widths"] = np.array([sum(map(math.log, row["w"].values())) for row in rows])
    figures: dict[str, dict[str, object]] = {"networks": figure(len(rows))}
    for level, criterion in enumerate(AROUND):
        spread = float(np.std(accuracy[around == 1 - level], ddof=1))
        figures[f"standard deviation of accuracy at equal {criterion} kept"] = figure(spread)
    for name, value in values.items():
        share, sign = explained(accuracy, around, value)
        figures[f"{name}: share of the differences in accuracy explained"] = figure(share)
        figures[f"{name}: sign"] = figure(sign)
    record(
        "criteria",
        figures=figures,
        rows=[
            {
                "around": row["around"],
                **row["w"],
                "correct": row["correct"],
                "total": row["total"],
                **{name: round(float(value[i]), 4) for name, value in values.items()},
            }
            for i, row in enumerate(rows)
        ],
        environment={"torch": torch.__version__},
        notes=[
            f"the quickstart's network trained on CIFAR-10; {DRAWS} draws around each of the hosts {', '.join(AROUND)} at {RATIO:.0%}, "
            f"and the hosts; one seed of {FINETUNE_CIFAR}, {CIFAR_IMAGES:,} training images",
            f"every network keeps as much as its host by that host's criterion, to {EQUAL:.0%}: by construction that criterion explains "
            "nothing around that host, and at most the other half",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "record"))
    parser.add_argument("--data", required=True, help="packed CIFAR-10")
    parser.add_argument("--work", type=Path, required=True, help="folder for the dense network and what was fine-tuned")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images = load_images(args.data)
    dense = slim(args.work, images, TRAIN_CIFAR, "cpu")
    (train if args.what == "train" else write)(dense, images, args.work)


if __name__ == "__main__":
    main()
