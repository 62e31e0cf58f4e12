"""The measured table that the planner's benchmark plans with: every pair of widths of a ResNet-18 on a CPU.

    python -m scripts.measure_planner_table resnet18-cpu.db

Resumable: what the database holds is not timed again. When nothing is missing, the table goes to
benchmarks/planner-cpu-latency.csv.gz, medians with few digits and without the raw times' tail.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
import torchvision

import tailprune
from scripts.record import ROOT
from tailprune.core.graph import ModelGraph
from tailprune.filling import measure_missing
from tailprune.planning import required_shapes
from tailprune.tables import export_csv

CSV = ROOT / "benchmarks" / "planner-cpu-latency.csv.gz"
BATCH, SIDE = 8, 64
#: Channels come in blocks, so that all pairs of a layer's two ends can be measured in minutes: 8 floats fill a vector
#: register of AVX2, 16 one of AVX-512.
GRANULE, WIDE_GRANULE, WIDE = 8, 16, 512


def cpu_graph() -> ModelGraph:
    """ResNet-18 at 64 x 64 pixels, batch 8, float32, channels in blocks of 8 (16 in the last stage)."""
    images = torch.randn(1, 3, SIDE, SIDE)
    graph = tailprune.trace_model(torchvision.models.resnet18(), images, name="resnet18").at_batch(BATCH)
    groups = tuple(
        dataclasses.replace(g, granule=WIDE_GRANULE if g.width >= WIDE else GRANULE) if g.prunable else g
        for g in graph.groups
    )
    return dataclasses.replace(graph, groups=groups)


def candidates(graph: ModelGraph) -> dict[str, tuple[int, ...]]:
    """Every block from half of the original width up."""
    return {g.id: tuple(w for w in g.grid if 2 * w >= g.width) for g in graph.groups if g.prunable}


def report(done: int, total: int, what: str) -> None:
    if done % 100 == 0:
        print(f"{done}/{total} {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--stop-after", type=int, default=None, help="shapes to time in this call")
    args = parser.parse_args()
    graph = cpu_graph()
    timer = tailprune.DeviceTimer("cpu", max_visits=9, precision=0.02)
    table = tailprune.LatencyTable.open(args.table, environment=timer.environment)
    wanted = sorted(required_shapes(graph, candidates(graph)), key=str)
    lacking = [shape for shape in wanted if shape not in table]
    now = lacking[: args.stop_after]
    print(f"{len(wanted)} shapes, {len(lacking)} missing, {len(now)} now", flush=True)
    measure_missing(table, now, timer, progress=report)
    if len(now) == len(lacking):
        export_csv(table, CSV, digits=4)
        print(f"{CSV.relative_to(ROOT)}: {CSV.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
