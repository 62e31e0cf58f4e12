"""Draw the figures of README and docs from committed measurements: nothing here is measured, nothing made up.

    python -m scripts.make_figures

Reads benchmarks/cpu/quickstart-latency.csv.gz (the quickstart's latency table, `tailprune table export`),
benchmarks/cpu/quickstart.plan.json (its plan) and benchmarks/snap-slim-cifar10-second-cpu.parts.csv.gz; writes docs/figures/.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch

import tailprune
from recipes.models import slim_resnet
from tailprune import reports
from tailprune.core.sample import calm_times
from tailprune.tables import import_csv

ROOT = Path(__file__).resolve().parents[1]
BATCH = 8


def staircase(group: str) -> None:
    table = import_csv(ROOT / "benchmarks/cpu/quickstart-latency.csv.gz")
    plan = tailprune.WidthPlan.load(ROOT / "benchmarks/cpu/quickstart.plan.json")
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    graph = tailprune.trace_model(slim_resnet(1), images)
    found = tailprune.detect_steps(tailprune.group_curve(graph, group, table))
    choice = plan.by_group[group]
    title = f"{group} on {table.environment.device}, batch {BATCH}"
    figure = reports.plot_staircase(found, marks={"host": choice.host, "tailprune": choice.width}, title=title)
    reports.save_figure(figure, ROOT / "docs/figures/staircase.png", alt=title)


def sweep() -> None:
    parts: dict[tuple[float, str], list[list[float]]] = defaultdict(list)
    with gzip.open(ROOT / "benchmarks/snap-slim-cifar10-second-cpu.parts.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["method"] != "dense":  # one network for all ratios: no line
                parts[float(row["ratio"]), row["method"]].append([float(us) for us in row["parts_us"].split()])
    # as `ModelTimings.undisturbed_us` puts a pass together
    latency = {key: sum(median(calm_times(part)) for part in zip(*turns, strict=True)) for key, turns in parts.items()}
    roles = {"host": "host", "tailprune faster": "ours"}
    points = [
        reports.SweepPoint(ratio=ratio, method=name, measured_us=us, role=roles.get(name, "rival"))
        for (ratio, name), us in latency.items()
    ]
    title = "at no less importance than the host"
    figure = reports.plot_ratio_sweep(points, title=title)
    reports.save_figure(figure, ROOT / "docs/figures/sweep.png", alt=title)


if __name__ == "__main__":
    (ROOT / "docs/figures").mkdir(parents=True, exist_ok=True)
    staircase("layer2.0.conv2")
    sweep()
