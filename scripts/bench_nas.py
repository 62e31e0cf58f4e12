"""Does knowing utilization find a better network with fewer evaluations? Four ways to search, five seeds, real training on digits.

    python -m scripts.bench_nas [--resume FOLDER]

Widths of a small network for 8x8 digits are searched under 70 % of its latency by the wave model of a T4 (batch 2048, fp16). An
evaluation trains the network from random weights for a few epochs and returns its accuracy on a fifth of the training images;
the best network of each search is scored once more on the test images, which no search has seen. Ways:

    all widths         every width of every group, as regularised evolution proposes them
    edges              widths on undominated step edges only
    edges, skip        and a candidate gives way to a larger one that costs no more
    edges, skip, order and of four candidates the one that uses most of the device within the budget is evaluated

Writes benchmarks/nas.csv (every evaluation), benchmarks/nas.json and docs/figures/nas-*.png. With --resume, searches that were
interrupted go on from their logs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn

import tailprune
from recipes.configs import FinetuneConfig
from recipes.data import ImageSet, load_images
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from scripts.record import ROOT, figure, record
from tailprune.core.graph import ModelGraph
from tailprune.planning import SearchResult, WidthSpace, edge_space, full_space, search_widths
from tailprune.reports import plot_search, plot_search_pace, save_figure

DEVICE, BATCH, DTYPE = "t4", 2048, "float16"
WIDTHS, STRIDES = (24, 24, 40, 40, 64), (1, 1, 2, 1, 2)
SHARE = 0.7  # of the widest network's latency
SEEDS, EVALUATIONS = range(5), 20
WAYS = ("all widths", "edges", "edges, skip", "edges, skip, order")
TRAINING = FinetuneConfig(epochs=3, batch=64, learning_rate=0.05, warmup_epochs=0.5, shift=0)


def network(widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """Five 3x3 convolutions, each with a norm and a ReLU."""
    made: list[nn.Module] = []
    for before, after, stride in zip((3, *widths), widths, STRIDES, strict=False):
        made += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def trained(widths: tuple[int, ...], images: ImageSet, *, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network(widths)
    finetune(model, images, dataclasses.replace(TRAINING, seed=seed))
    return model


def held_out(images: ImageSet) -> ImageSet:
    """The training images alone, a fifth of them to be scored on."""
    count = len(images.train_images) * 4 // 5
    return dataclasses.replace(
        images,
        train_images=images.train_images[:count], train_labels=images.train_labels[:count],
        test_images=images.train_images[count:], test_labels=images.train_labels[count:],
    )  # fmt: skip


def spaces(graph: ModelGraph, model: tailprune.WaveModel) -> dict[str, WidthSpace]:
    edges = edge_space(graph, model)
    return {way: full_space(graph) if way == "all widths" else edges for way in WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", type=Path, help="folder of the logs (default: a fresh one)")
    args = parser.parse_args()
    folder = args.resume or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)

    images = load_images("digits", side=8)
    searched = held_out(images)
    graph = tailprune.trace_model(network().eval(), images.example(1), name="five convolutions")
    graph = graph.at_batch(BATCH, dtype=DTYPE, memory_format="channels_last")
    model = tailprune.WaveModel(tailprune.load_device(DEVICE))
    widest_us = sum(layer.calls * model.latency_us(shape) for layer, shape in graph.shapes_at())
    searches = spaces(graph, model)
    scores: dict[tuple[int, tuple[int, ...]], float] = {}  # one network is trained once a seed, whoever asks

    found: dict[tuple[str, int], SearchResult] = {}
    for seed in SEEDS:
        for way, space in searches.items():

            def score(widths: Mapping[str, int], seed: int = seed) -> float:
                key = seed, tuple(widths.values())
                if key not in scores:
                    scores[key] = evaluate(trained(key[1], searched, seed=seed), searched).share
                return scores[key]

            found[way, seed] = search_widths(
                space, score, model, budget_us=SHARE * widest_us, evaluations=EVALUATIONS, seed=seed,
                utilization="order" if "order" in way else "skip" if "skip" in way else "off",
                log=folder / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}.jsonl",
            )  # fmt: skip
            best = found[way, seed].best
            assert best is not None
            print(f"seed {seed}, {way}: {best.score:.4f} at {best.latency_us:.1f} us", flush=True)

    tested: dict[tuple[str, int], float] = {}
    for (way, seed), result in found.items():
        assert result.best is not None
        tested[way, seed] = evaluate(trained(tuple(result.best.widths.values()), images, seed=seed), images).share

    edges = searches["edges"]
    figures = {
        "networks in the space, all widths (log10)": figure(log10(edges.num_before)),
        "networks in the space, edges (log10)": figure(log10(edges.num_networks)),
        "orders of magnitude less": figure(edges.reduction),
        "most latency of any trial over the budget": figure(
            max(trial.latency_us / result.budget_us for result in found.values() for trial in result.trials), 1.0
        ),
    }
    for way in WAYS:
        finals = [found[way, seed].best_after[-1] for seed in SEEDS]
        figures[f"{way}: best validation accuracy, mean of 5 seeds"] = figure(mean(finals))
        figures[f"{way}: its standard deviation"] = figure(stdev(finals))
        figures[f"{way}: test accuracy of the best, mean of 5 seeds"] = figure(
            mean(tested[way, seed] for seed in SEEDS)
        )
        goal = [found["all widths", seed].best_after[-1] for seed in SEEDS]
        needed = [_needed(found[way, seed], goal[seed]) for seed in SEEDS]
        figures[f"{way}: evaluations until as good as all widths after {EVALUATIONS}, mean (never counts {EVALUATIONS + 1})"] = figure(
            mean(needed)
        )  # fmt: skip
    figures["best found with utilization minus without, mean of 5 seeds (validation)"] = figure(
        mean(found[WAYS[3], seed].best_after[-1] - found[WAYS[1], seed].best_after[-1] for seed in SEEDS),
        0.0,
        at_most=False,
    )
    rows = [
        {
            "way": way, "seed": seed, "evaluation": trial.number + 1, "widths": " ".join(map(str, trial.widths.values())),
            "latency_us": round(trial.latency_us, 4), "accuracy": trial.score, "best": result.best_after[trial.number],
            "test_accuracy_of_best": tested[way, seed], "skipped": result.skipped,
        }
        for (way, seed), result in found.items() for trial in result.trials
    ]  # fmt: skip
    record(
        "nas", figures=figures, rows=rows,
        environment={"latency": model.origin, "batch": BATCH, "dtype": DTYPE, "budget_share": SHARE, "training": str(TRAINING)},
        notes=[
            f"latencies are modelled, accuracies are measured on {len(searched.test_images)} validation and "
            f"{len(images.test_images)} test digits of {images.name}: one image is "
            f"{1 / len(searched.test_images):.2%} and {1 / len(images.test_images):.2%}",
            "a validation score is the best of many on the same images, so it flatters; the test accuracy does not",
        ],
    )  # fmt: skip
    draw(rows, budget_us=SHARE * widest_us, origin=model.origin)


def draw(rows: Sequence[Mapping[str, object]], *, budget_us: float, origin: str) -> None:
    """The figures, from the rows of benchmarks/nas.csv."""

    def of(way: str, seed: int, column: str) -> list[float]:
        return [float(str(row[column])) for row in rows if row["way"] == way and int(str(row["seed"])) == seed]

    pace = {way: [of(way, seed, "best") for seed in SEEDS] for way in WAYS}
    save_figure(plot_search_pace(pace, score="validation accuracy"), ROOT / "docs/figures/nas-pace.png")
    points = list(zip(of(WAYS[3], 0, "latency_us"), of(WAYS[3], 0, "accuracy"), strict=True))
    title = f"{WAYS[3]}, seed 0; {origin.partition(';')[0]}"  # its caveats stand in the page
    drawn = plot_search(points, budget_us=budget_us, score="validation accuracy", title=title)
    save_figure(drawn, ROOT / "docs/figures/nas-pareto.png")


def _needed(result: SearchResult, goal: float) -> int:
    return next((i for i, best in enumerate(result.best_after, start=1) if best >= goal), EVALUATIONS + 1)


if __name__ == "__main__":
    main()
