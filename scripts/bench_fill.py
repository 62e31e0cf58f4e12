"""How many timings does it take to find the steps, and are they the right ones?

    python -m scripts.bench_fill --linear LINEAR_FP16_RTX3090_STEP1.csv.gz

ResNet-50 on simulated devices (their true latencies are known), out-lines of real layers on the CPU whose raw times are
in benchmarks/cpu/fill_*.csv.gz (`scripts/fill_lines.py` takes them), and recorded curves of a real GPU (m = 1 to 2048 at
every m; CSV columns gpu, model, tp, layer, m, n, k, latency_us). Writes benchmarks/fill.csv and benchmarks/fill.json.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

import tailprune
from scripts.fill_cells import GRANULE, Replay, half, on_cells, on_cpu_cells, on_plan, resnet50
from scripts.fill_lines import NAMES, lines
from scripts.fill_recorded import on_recorded
from scripts.record import ROOT, figure, record
from tailprune.core.graph import ChannelGroup
from tailprune.filling import FillReport, ModelledEdges
from tailprune.steps import dominated_widths
from tailprune.tables import import_csv

DEVICES = (
    ("H200 SXM", "float16"),
    ("A100 80GB SXM", "float16"),
    ("RTX 3090", "float16"),
    ("T4", "float16"),
    ("V100 SXM2", "float32"),
)
PROPOSED = ", the other sweep proposes"
#: What a shape takes on the GPU (`timing.protocol`): one untimed and about ten timed graphs of 0.3 ms, three warm-up calls.
GRAPHS, GRAPH_US, WARMUPS = 11, 300.0, 3


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


def on_cpu(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Risers of 5 % that both sweeps agree on, looked for by fillings replayed from either sweep, and by live ones."""
    first, second, live, *live_coarse = (import_csv(ROOT / f"benchmarks/cpu/fill_{name}.csv.gz") for name in NAMES)

    def replay(
        graph: tailprune.ModelGraph,
        seen: tailprune.LatencyTable,
        other: tailprune.LatencyTable,
        *,
        proposes: bool = False,
    ) -> tailprune.LatencyTable:
        filled = tailprune.LatencyTable.in_memory(seen.environment)
        proposer = ModelledEdges(other) if proposes else None
        tailprune.fill_table(filled, graph, Replay(half(seen), seen), proposer=proposer)
        return filled

    figures: dict[str, dict[str, object]] = {}
    coarse, fine, turns = lines(GRANULE), lines(), ((first, second), (second, first))
    timed: dict[str, int] = {}
    for name, graph, filled in (
        ("granule grid", coarse, [replay(coarse, *turn) for turn in turns]),
        ("granule grid, live", coarse, live_coarse),
        ("granule grid, the other sweep proposes", coarse, [replay(coarse, *turn, proposes=True) for turn in turns]),
        ("every swept channel", fine, [replay(fine, *turn) for turn in turns]),
        ("every swept channel, the other sweep proposes", fine, [replay(fine, *turn, proposes=True) for turn in turns]),
        ("every swept channel, live", fine, [live]),
    ):
        count: dict[str, int] = defaultdict(int)
        for table in filled:
            count["timed"] += len(table)
            count["again"] += len(table.visits()) - len(table)
            for group in graph.prunable_groups:
                find_agreed(name, graph, group, (first, second), table, count, rows)
        for kind, label in (
            ("agreed", "agreed risers of 5 %"),
            ("worth", "those at widths that no larger one dominates"),
        ):
            share = count[f"{kind} found"] / count[kind]
            total = count[kind] // len(filled)
            figures[f"CPU, {name}: found of {total} {label}"] = figure(share, 0.98, at_most=False)
        timed[name] = count["timed"]
        if (alone := name.removesuffix(PROPOSED)) != name:
            saved = 1 - timed[name] / timed[alone]
            figures[f"CPU, {alone}: timings saved where the other sweep proposes"] = figure(saved, 0.3, at_most=False)
        figures[f"CPU, {name}: share of the sweep timed"] = figure(count["timed"] / count["swept"])
        figures[f"CPU, {name}: timed again, per filling"] = figure(count["again"] / len(filled))
    return figures | {
        f"CPU, two sweeps: medians of {which} times differ by, {at}": figure(value)
        for which, every in (("calm", False), ("all", True))
        for at, value in disagreement(first, second, every=every).items()
    }


def disagreement(one: tailprune.LatencyTable, two: tailprune.LatencyTable, *, every: bool) -> dict[str, float]:
    """By what share the latencies of the same shapes differ, were they medians of every undisturbed time or of the calm ones."""

    def latency(sample: tailprune.LatencySample) -> float:
        return median(sample.times_us) if every else sample.median_us

    others = {sample.shape: latency(sample) for sample in two.samples() if sample.usable}
    gaps = [
        abs(math.log(latency(sample) / others[sample.shape]))
        for sample in one.samples()
        if sample.usable and sample.shape in others
    ]
    return {"median": float(np.median(gaps)), "nine in ten below": float(np.quantile(gaps, 0.9))}


def find_agreed(
    name: str,
    graph: tailprune.ModelGraph,
    group: ChannelGroup,
    sweeps: Sequence[tailprune.LatencyTable],
    filled: tailprune.LatencyTable,
    count: dict[str, int],
    rows: list[dict[str, object]],
) -> None:
    """Count one line's risers that both sweeps confirm, and those of them that the filled table shows."""
    curves = [tailprune.group_curve(graph, group.id, sweep, widths=group.grid) for sweep in sweeps]
    one, two = (
        {e.high: e for e in tailprune.detect_steps(c).edges if e.riser >= 0.05 and e.verdict == "confirmed"}
        for c in curves
    )
    dominated = set(dominated_widths(curves[0])) | set(dominated_widths(curves[1]))
    stairs = tailprune.detect_steps(tailprune.group_curve(graph, group.id, filled))
    has = {edge.high: edge for edge in stairs.edges if edge.riser > 0}
    count["swept"] += len(curves[0])
    for width in sorted(set(one) & set(two)):
        for kind in ("agreed", *(() if width in dominated else ("worth",))):
            count[kind] += 1
            count[f"{kind} found"] += width in has
        rows.append({"what": f"CPU riser, {name}", "device": filled.environment.device, "dtype": "float32", "granule": group.granule,
                     "line": group.id, "width": width, "riser": round(one[width].riser, 4), "riser_again": round(two[width].riser, 4),
                     "noise_floor": round(stairs.noise_floor, 5), "dominated": width in dominated,
                     "found": has[width].verdict if width in has else "missed"})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linear", type=Path, required=True, help="recorded curves, CSV, gzipped")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    figures = {
        **simulations(rows),
        **on_cpu(rows),
        **on_cells(rows),
        **on_cpu_cells(rows),
        **on_plan(rows),
        **on_recorded(arguments.linear, rows),
    }
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
            "a replayed filling of one sweep searches with every other reading of a width and decides with all of them: it tells what the search "
            "loses, the live ones tell all; speeds of the two sweeps differ and are never mixed",
            "no model of a CPU exists: one sweep's curves propose to the filling of the other, the best case again",
            "sweeps and live fillings of the CPU lines had the machine to themselves, within an hour or hours apart (their dates are in the raw files)",
        ],
    )


if __name__ == "__main__":
    main()
