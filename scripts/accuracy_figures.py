"""Who is ahead at one measured latency, and by how much: figures from the plans, times and rows of `bench_accuracy`."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np

import tailprune
from recipes.evaluate import Accuracy
from scripts.record import ROOT, figure, record

#: Shares of the dense network's measured latency, and the points asked for over the unrounded host there.
TARGETS = {0.50: 0.5, 0.35: 1.5, 0.25: 2.5}
OURS = ("tailprune better", "tailprune faster", "tailprune reallocate")
MULTIPLES = ("multiple of 8", "multiple of 16")
#: Hosts that ours and the multiples start from: a network's name ends with its start, "tailprune better l1 local".
STARTS = ("taylor global", "l1 local")
#: In the order they are trained.
NETWORKS = (
    *(f"{method} {start}" for start in STARTS for method in ("host", *OURS, *MULTIPLES)), "host l1 global", "host fpgm global",
)  # fmt: skip

#: (share of the dense latency, name)
Key = tuple[float, str]
#: (measured share of the dense time, accuracy in points), ascending
Curve = Sequence[tuple[float, float]]


def publish(
    net: str,
    graph: tailprune.ModelGraph,
    dense: Accuracy,
    plans: Mapping[Key, tailprune.WidthPlan],
    folder: Path,
    *,
    notes: Sequence[str],
) -> None:
    """Everything that ran, and how far each of ours lies from its own host and from the best multiple."""
    times: dict[str, list[float]] = {}
    for row in read_rows(folder / "times.csv"):
        times.setdefault(row["network"], []).append(float(row["us"]))
    us = {name: median(values) for name, values in times.items()}
    rows, scores = [], dict[Key, list[float]]()
    for row in read_rows(folder / "accuracy.csv"):
        share, name = float(row["share"]), row["network"]
        plan, taken = plans[share, name], us[f"{share} {name}"]
        scores.setdefault((share, name), []).append(100 * float(row["accuracy"]))
        rows.append(
            {
                "share": share, "network": name, "seed": row["seed"], "accuracy": row["accuracy"],
                "measured_us": round(taken, 1), "measured_share": round(taken / us["dense"], 4),
                "macs_share": round(graph.macs_at(plan.widths) / graph.macs_at(), 4),
                "parameters": graph.num_parameters_at(plan.widths), "importance": round(plan.importance, 4),
                "widths": " ".join(map(str, plan.widths.values())), "training_cpu_s": row["cpu_s"],
            }
        )  # fmt: skip
    reached = {
        (share, name): Reached(share=us[f"{share} {name}"] / us["dense"], accuracy=mean(values))
        for (share, name), values in scores.items()
    }
    curves = host_curves(reached, 100 * dense.share)
    figures = {
        "seeds of the row with fewest": figure(min(map(len, scores.values())), 3, at_most=False),
        "most time that one of ours takes beyond its host": figure(most_time_beyond_host(reached), 0.02),
    }
    for share in TARGETS:
        figures |= leads(share, {name: value for (s, name), value in reached.items() if s == share}, curves)
    for (share, name), values in sorted(scores.items(), reverse=True):
        spread = stdev(values) if len(values) > 1 else 0.0
        taken = us[f"{share} {name}"] / us["dense"]
        print(
            f"{share:.0%} {name}: {mean(values):.2f} % +- {spread:.2f} ({len(values)} seeds), {taken:.1%} of the dense time"
        )
    record(
        f"accuracy-{net}", figures=figures, rows=rows,
        environment={"device": "cpu, 1 thread", "dtype": "float32", "memory_format": "channels_last"},
        notes=[
            f"{net} on CIFAR-10, dense {dense} in {us['dense']:,.0f} us",
            *notes,
            "so short a schedule shows which networks recover first, not what is left after a full one",
            f"no plan reaches the latency, or none was made: {_listed(((s, n) for s in TARGETS for n in NETWORKS), but=plans)}",
            f"planned and measured, not trained: {_listed(plans, but=scores)}",
            f"measured_us: medians of {len(times['dense'])} rounds in which all networks ran interleaved, in accuracy-{net}.times.csv",
        ],
    )  # fmt: skip
    shutil.copy(folder / "times.csv", ROOT / "benchmarks" / f"accuracy-{net}.times.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One network after the fine-tune: its measured share of the dense time, and its accuracy in points."""

    share: float
    accuracy: float

    def above(self, curve: Curve) -> float:
        """Points above the host that takes exactly this long, as its curve says."""
        shares, accuracies = np.array(curve).T
        return self.accuracy - float(np.interp(self.share, shares, accuracies))


def host_curves(reached: Mapping[Key, Reached], dense_accuracy: float) -> dict[str, Curve]:
    """The curve of every host that was trained: one through the dense network alone would beat everybody."""
    trained = {name for _, name in reached}
    return {
        name: host_curve(reached, name, dense_accuracy)
        for name in NETWORKS
        if name.startswith("host") and name in trained
    }


def host_curve(reached: Mapping[Key, Reached], name: str, dense_accuracy: float) -> Curve:
    """A host's accuracy against its measured share of the dense time, up to the dense network's own."""
    points = [(found.share, found.accuracy) for (_, network), found in reached.items() if network == name]
    return sorted([*points, (1.0, dense_accuracy)])


def most_time_beyond_host(reached: Mapping[Key, Reached]) -> float:
    """The largest share by which one of ours, as measured, is slower than the host it starts from."""
    return max(
        reached[share, f"{ours} {start}"].share / reached[share, f"host {start}"].share - 1
        for share in TARGETS
        for ours in OURS
        for start in STARTS
        if (share, f"{ours} {start}") in reached and (share, f"host {start}") in reached
    )


def leads(share: float, at: Mapping[str, Reached], curves: Mapping[str, Curve]) -> dict[str, dict[str, object]]:
    """Points of ours over the hosts and over the best multiple around one share, all at the very time each was measured at.

    No two plans take quite the same time, and where accuracy falls by two points for each percent of it that decides. So a
    host is read off its curve (`Reached.above`), and of ours and a multiple the leads over that curve are compared.
    """
    found = {}
    ours_at = [value for name, value in at.items() if name.startswith("tailprune")]
    if ours_at:
        over = max(min(value.above(curve) for curve in curves.values()) for value in ours_at)
        found[f"best of ours over the strongest host at {share:.0%}"] = _points(over, TARGETS[share])
    for start in STARTS:
        curve = curves[f"host {start}"]
        rivals = [at[f"{rule} {start}"].above(curve) for rule in MULTIPLES if f"{rule} {start}" in at]
        for ours in [o for o in OURS if f"{o} {start}" in at]:
            mine, where = at[f"{ours} {start}"].above(curve), f"{start} at {share:.0%}"
            found[f"{ours} over the host, {where}"] = _points(mine, TARGETS[share])
            if rivals:
                found[f"{ours} over the best multiple, {where}"] = _points(mine - max(rivals), 0.0)
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _points(value: float, target: float) -> dict[str, object]:
    return figure(value, target, at_most=False, unit="points")


def _listed(keys: Iterable[Key], *, but: Container[Key]) -> str:
    return "; ".join(f"{name} at {share:.0%}" for share, name in keys if (share, name) not in but) or "none"
