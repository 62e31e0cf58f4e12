"""How many timings does it take to find the steps, and are they the right ones?

    python -m scripts.bench_fill --linear LINEAR_FP16_RTX3090_STEP1.csv.gz

ResNet-50 on simulated devices (their true latencies are known), out-lines of real layers on the CPU whose raw times are
in benchmarks/cpu/fill_*.csv.gz (`scripts/fill_lines.py` takes them), and recorded curves of a real GPU (m = 1 to 2048 at
every m; CSV columns gpu, model, tp, layer, m, n, k, latency_us). Writes benchmarks/fill.csv and benchmarks/fill.json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import torch
import torchvision

import tailprune
from scripts.fill_lines import lines
from scripts.record import ROOT, figure, record
from tailprune.filling import FillReport, ModelledEdges
from tailprune.steps import Staircase, dominated_widths, edge_agreement
from tailprune.tables import import_csv

BATCH = 32
GRANULE = 8  # the granule grid; at step 1 float16 has a riser behind every multiple of 8
DEVICES = (
    ("H200 SXM", "float16"),
    ("A100 80GB SXM", "float16"),
    ("RTX 3090", "float16"),
    ("T4", "float16"),
    ("V100 SXM2", "float32"),
)
#: What a shape takes on the GPU (`timing.protocol`): one untimed and about ten timed graphs of 0.3 ms, three warm-up calls.
GRAPHS, GRAPH_US, WARMUPS = 11, 300.0, 3


def resnet50(dtype: str, granule: int = 1) -> tailprune.ModelGraph:
    images = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
    graph = tailprune.trace_model(torchvision.models.resnet50(), images).at_batch(BATCH, dtype=dtype)
    groups = (dataclasses.replace(g, granule=granule, min_width=granule) if g.prunable else g for g in graph.groups)
    return dataclasses.replace(graph, groups=tuple(groups))


def simulated_fill(
    graph: tailprune.ModelGraph, device: str, noise: float, *, model: str | None = None
) -> tuple[tailprune.LatencyTable, FillReport, tailprune.SimulatedTimer]:
    timer = tailprune.SimulatedTimer(tailprune.load_device(device), noise=noise)
    table = tailprune.LatencyTable.in_memory(timer.environment)
    proposer = ModelledEdges(tailprune.WaveModel(tailprune.load_device(model))) if model else None
    return table, tailprune.fill_table(table, graph, timer, proposer=proposer), timer


def judge(
    graph: tailprune.ModelGraph, table: tailprune.LatencyTable, truth: tailprune.LatencyTable, riser: float
) -> dict[str, int]:
    """Risers of the noiseless curves against the edges of the filled table, over distinct lines."""
    counts: dict[str, int] = defaultdict(int)
    seen = set()
    for group in graph.prunable_groups:
        curve = tailprune.group_curve(graph, group.id, truth)
        if curve.latency_us in seen:
            continue
        seen.add(curve.latency_us)
        found = {e.high: e for e in tailprune.detect_steps(tailprune.group_curve(graph, group.id, table)).edges}
        for edge in tailprune.detect_steps(curve, min_riser=0.01).edges:
            if edge.riser >= riser:
                verdict = found[edge.high].verdict if edge.high in found else "missed"
                counts["risers"] += 1
                counts[verdict] += 1
        for width, edge in found.items():
            if edge.verdict == "confirmed":
                counts["claimed"] += 1
                counts["false"] += abs(curve.at(width + group.granule) / curve.at(width) - 1) < 0.01
    return counts


def gpu_seconds(table: tailprune.LatencyTable) -> float:
    """An estimate: every visit takes GRAPHS graphs of GRAPH_US or one call, whichever is longer, and the warm-ups."""
    visits = [us for sample in table.visits() if (us := sample.median_us)]
    return sum(GRAPHS * max(GRAPH_US, us) + WARMUPS * us for us in visits) / 1e6


def simulations(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    figures: dict[str, dict[str, object]] = {}

    def row(
        what: str, device: str, dtype: str, granule: int, noise: float, report: FillReport, counts: Mapping[str, int]
    ) -> None:
        rows.append({"what": what, "device": device, "dtype": dtype, "granule": granule, "noise": noise, "timed": report.timed,
                     "retimed": report.retimed, "line_cells": report.line_cells, "grid_cells": report.grid_cells, "period": report.period,
                     **{key: counts.get(key, 0) for key in ("risers", "confirmed", "ambiguous", "missed", "claimed", "false")}})  # fmt: skip
        print(rows[-1], flush=True)

    graph = resnet50("float16")
    table, report, timer = simulated_fill(graph, "H200 SXM", 0.005)
    row("ResNet-50 at every channel", "H200 SXM", "float16", 1, 0.005, report, {})
    figures["ResNet-50, H200, float16: distinct shapes timed"] = figure(report.timed, 4000, unit="shapes")
    figures["ResNet-50, H200, float16: timed again"] = figure(report.retimed, unit="visits")
    figures["ResNet-50, H200, float16: share of the in x out cells"] = figure(report.timed / report.grid_cells, 0.01)
    figures["ResNet-50, H200, float16: GPU time, an estimate"] = figure(gpu_seconds(table), 180, unit="s")

    total: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("plain", "noisy", "helped")}
    for device, dtype in DEVICES:
        graph = resnet50(dtype, GRANULE)
        for name, noise, riser, model in (
            ("plain", 0.005, 0.03, None),
            ("noisy", 0.02, 0.08, None),
            ("helped", 0.005, 0.03, device),
        ):
            table, report, timer = simulated_fill(graph, device, noise, model=model)
            counts = judge(graph, table, timer.source, riser)
            row(
                f"risers of {riser:.0%}" + (", the model proposes" if model else ""),
                device,
                dtype,
                GRANULE,
                noise,
                report,
                counts,
            )
            for key, value in {**counts, "timed": report.timed}.items():
                total[name][key] += value
    low, high, helped = total["plain"], total["noisy"], total["helped"]
    figures["noise 0.5 %: risers of 3 % at the exact channel"] = figure(
        low["confirmed"] / low["risers"], 0.99, at_most=False
    )
    figures["noise 0.5 %: false edges (true jump below 1 %)"] = figure(low["false"], 0)
    figures["noise 2 %: risers of 8 % at the exact channel"] = figure(
        high["confirmed"] / high["risers"], 0.9, at_most=False
    )
    figures["noise 2 %: the rest marked ambiguous"] = figure(high["missed"], 0, unit="missed")
    figures["noise 2 %: false edges (true jump below 1 %)"] = figure(high["false"], unit=f"of {high['claimed']}")
    figures["timings saved by the device's own wave model, simulated"] = figure(
        1 - helped["timed"] / low["timed"], 0.3, at_most=False
    )
    figures["risers found with its proposals against without"] = figure(
        helped["confirmed"] / low["confirmed"], 1.0, at_most=False
    )
    return figures


class Replay:
    """A layer timer that answers with recorded samples."""

    def __init__(self, recorded: tailprune.LatencyTable) -> None:
        self.recorded, self.environment = recorded, recorded.environment

    def time(self, shape: tailprune.LayerShape) -> tailprune.LatencySample:
        return self.recorded.sample(shape)

    def time_many(self, shapes: Iterable[tailprune.LayerShape]) -> Iterator[tailprune.LatencySample]:
        return (self.time(shape) for shape in dict.fromkeys(shapes))


def on_cpu(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Risers of 5 % that both sweeps agree on, looked for in the fillings: at every swept channel as measured live, and on
    the granule grid as replayed from the second sweep."""
    first, second, live = (
        import_csv(ROOT / f"benchmarks/cpu/fill_{n}.csv.gz") for n in ("first", "second", "adaptive")
    )
    replayed = tailprune.LatencyTable.in_memory(second.environment)
    tailprune.fill_table(replayed, lines(GRANULE), Replay(second))
    figures: dict[str, dict[str, object]] = {}
    for grid, graph, filled in (("granule grid", lines(GRANULE), replayed), ("every swept channel", lines(), live)):
        agreed = found = worth = worth_found = swept = 0
        for group in graph.prunable_groups:
            curves = [tailprune.group_curve(graph, group.id, t, widths=group.grid) for t in (first, second)]
            one, two = (
                {e.high: e for e in tailprune.detect_steps(c).edges if e.riser >= 0.05 and e.verdict == "confirmed"}
                for c in curves
            )
            dominated = set(dominated_widths(curves[0])) | set(dominated_widths(curves[1]))
            stairs = tailprune.detect_steps(tailprune.group_curve(graph, group.id, filled))
            has = {edge.high: edge for edge in stairs.edges if edge.riser > 0}
            swept += len(curves[0])
            for width in sorted(set(one) & set(two)):
                agreed, found = agreed + 1, found + (width in has)
                worth, worth_found = (
                    worth + (width not in dominated),
                    worth_found + (width not in dominated and width in has),
                )
                rows.append({"what": f"CPU riser, {grid}", "device": first.environment.device, "dtype": "float32", "granule": group.granule,
                             "line": group.id, "width": width, "riser": round(one[width].riser, 4), "riser_again": round(two[width].riser, 4),
                             "noise_floor": round(stairs.noise_floor, 5), "dominated": width in dominated,
                             "found": has[width].verdict if width in has else "missed"})  # fmt: skip
        timed, visits = len(filled), len(filled.visits())
        figures[f"CPU, {grid}: share of {agreed} agreed risers of 5 % found"] = figure(
            found / agreed, 0.98, at_most=False
        )
        figures[f"CPU, {grid}: of {worth} of them at widths no larger one dominates"] = figure(
            worth_found / worth, 0.98, at_most=False
        )
        figures[f"CPU, {grid}: share of the sweep timed"] = figure(timed / swept)
        figures[f"CPU, {grid}: visits a second time"] = figure(visits - timed)
    return figures


def on_recorded(path: Path, rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Edges of one replicate looked for in the other: curves of one GPU, model, split and shape, at every m."""
    times: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    with gzip.open(path, "rt", newline="") as file:
        for r in csv.DictReader(file):
            times[r["gpu"], r["model"], r["tp"], r["n"], r["k"], r["layer"]][int(r["m"])] = float(r["latency_us"])
    stairs: dict[tuple[str, ...], Staircase] = {}
    for key, us in times.items():
        widths = tuple(sorted(us))
        stairs[key] = tailprune.detect_steps(
            tailprune.LatencyCurve(widths=widths, latency_us=tuple(us[w] for w in widths))
        )
    scores, strict, down = [], [], 0
    for a, b in combinations(stairs, 2):
        if a[:-1] != b[:-1]:
            continue
        scores.append(edge_agreement(stairs[a], stairs[b], tolerance=2).f1)
        strict.append(edge_agreement(stairs[a], stairs[b], tolerance=2, confirmed_only=True).f1)
        falling = sum(edge.riser < 0 and edge.verdict == "confirmed" for edge in stairs[a].edges)
        down += falling
        rows.append({"what": "replicates", "device": a[0], "dtype": "float16", "line": " ".join((*a[1:5], a[5], b[5])), "f1": round(scores[-1], 4),
                     "f1_confirmed": round(strict[-1], 4), "confirmed": len(stairs[a].confirmed_edges), "downward": falling})  # fmt: skip
    return {
        f"recorded curves, {len(scores)} replicates: least F1 at tolerance 2": figure(min(scores), 0.95, at_most=False),
        "recorded curves: least F1 where both must be confirmed": figure(min(strict), 0.95, at_most=False),
        "recorded curves: mean F1 where both must be confirmed": figure(sum(strict) / len(strict), 0.95, at_most=False),
        "recorded curves: confirmed edges that go down": figure(down),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linear", type=Path, required=True, help="recorded curves, CSV, gzipped")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    figures = {**simulations(rows), **on_cpu(rows), **on_recorded(arguments.linear, rows)}
    fields = dict.fromkeys(key for row in rows for key in row)
    record(
        "fill",
        figures=figures,
        rows=[{field: row.get(field, "") for field in fields} for row in rows],
        environment={"cpu of the lines": import_csv(ROOT / "benchmarks/cpu/fill_first.csv.gz").environment.device},
        notes=[
            "GPU time is an estimate from simulated latencies and the protocol's graphs; no GPU was used",
            "simulated risers are judged on multiples of 8: at every channel float16 has one behind each of them, which filling leaves out",
            "the model's proposals come from the very model that the device is simulated with: the best case",
            "no model of a CPU exists, so nothing proposes there",
        ],
    )


if __name__ == "__main__":
    main()
