"""Step detection and filling on recorded curves of a real GPU: a part of `scripts/bench_fill.py`."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import tailprune
from scripts.record import figure
from tailprune.filling import ModelledEdges
from tailprune.filling.propose import Expectation, seed_widths
from tailprune.filling.rounds import Rounds
from tailprune.steps import Staircase, detect_steps, dominated_widths, edge_agreement

#: Standard error of a recorded latency as a share of it: one number per width was recorded, replicates differ by this much.
NOISE = 0.003
Key = tuple[str, ...]
Curves = Mapping[Key, Mapping[int, float]]


def on_recorded(path: Path, rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Edges of one replicate looked for in the other: curves of one GPU, model, split and shape, at every m."""
    times: dict[Key, dict[int, float]] = defaultdict(dict)
    with gzip.open(path, "rt", newline="") as file:
        for r in csv.DictReader(file):
            times[r["gpu"], r["model"], r["tp"], r["n"], r["k"], r["layer"]][int(r["m"])] = float(r["latency_us"])
    stairs: dict[Key, Staircase] = {}
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
    figures = {
        f"recorded curves, {len(scores)} replicates: least F1 at tolerance 2": figure(min(scores), 0.95, at_most=False),
        "recorded curves: least F1 where both must be confirmed": figure(min(strict), 0.95, at_most=False),
        "recorded curves: mean F1 where both must be confirmed": figure(sum(strict) / len(strict), 0.95, at_most=False),
        "recorded curves: confirmed edges that go down": figure(down),
    }
    return {**figures, **_filled(times, stairs, rows)}


class RecordedLine:
    """A recorded curve as filling sees a line: one shape per width, the width being the rows of a matrix product."""

    def __init__(self, key: Key, us: Mapping[int, float], table: tailprune.LatencyTable) -> None:
        self.name, self.grid, self.table = " ".join(key), range(min(us), max(us) + 1), table
        self._ins, self._outs = int(key[4]), int(key[3])

    def calls(self, width: int) -> tuple[tuple[tailprune.LayerShape, int], ...]:
        shape = tailprune.LayerShape(
            op="linear", batch=width, in_channels=self._ins, out_channels=self._outs, dtype="float16"
        )
        return ((shape, 1),)

    def shapes(self, width: int) -> Iterator[tailprune.LayerShape]:
        return (shape for shape, _ in self.calls(width))

    def curve(self, widths: Iterable[int]) -> tailprune.LatencyCurve | None:
        known = [(w, self.table.latency_us(s)) for w in widths for s in self.shapes(w) if s in self.table]
        widths, us = zip(*sorted(dict(known).items()), strict=True)
        return tailprune.LatencyCurve(widths=widths, latency_us=us, noise_us=tuple(NOISE * t for t in us))


class Playback:
    """A layer timer that answers from one recorded curve."""

    environment = tailprune.Environment(device="recorded", runtime="imported")

    def __init__(self, us: Mapping[int, float]) -> None:
        self.us = us

    def time_many(self, shapes: Sequence[tailprune.LayerShape]) -> Iterator[tailprune.LatencySample]:
        return (tailprune.LatencySample(shape=shape, times_us=(self.us[shape.batch],)) for shape in shapes)


def _filled(
    times: dict[Key, dict[int, float]], stairs: Mapping[Key, Staircase], rows: list[dict[str, object]]
) -> dict[str, dict[str, object]]:
    """Risers of 5 % confirmed on both replicates, at widths that no larger one dominates, looked for with few points."""
    total: dict[str, int] = defaultdict(int)
    proposer = ModelledEdges(tailprune.WaveModel(tailprune.load_device("RTX 3090")))
    for a, b in combinations(stairs, 2):
        if a[:-1] != b[:-1]:
            continue
        dominated = set(dominated_widths(stairs[a].curve))
        one, two = ({e.high for e in stairs[k].edges if e.riser >= 0.05 and e.verdict == "confirmed"} for k in (a, b))
        risers = (one & two) - dominated
        for name in ("period", "model"):
            table = tailprune.LatencyTable.in_memory(Playback.environment)
            line = RecordedLine(a, times[a], table)
            rounds = Rounds(table, Playback(times[a]), None, 0.02)  # type: ignore[arg-type]
            lattices = rounds.lattices([line])  # type: ignore[list-item]
            lattice = lattices[line]  # type: ignore[index]
            expected = (
                Expectation.of(proposer, line.calls, lattice)
                if name == "model"
                else Expectation(edges=range(64, lattice[-1] + 1, 64))
            )
            seeds = seed_widths(lattice, expected.edges)
            told = {line: expected} if name == "model" else None
            rounds.search(lattices, {line: seeds}, told)  # type: ignore[dict-item,arg-type]
            rounds.place(lattices)
            placed = detect_steps(line.curve(line.grid))  # type: ignore[arg-type]
            found = len(risers & set(placed.edge_widths))
            total["risers"] += len(risers) * (name == "model")
            total[name] += len(table)
            total[f"{name} found"] += found
            rows.append({"what": f"recorded curve filled by {name}", "device": a[0], "dtype": "float16", "line": line.name,
                         "timed": len(table), "line_cells": len(line.grid), "risers": len(risers), "confirmed": found})  # fmt: skip
            total["cells"] += len(line.grid) * (name == "model")
    return {
        f"recorded curves filled: share of {total['risers']} risers of 5 % found": figure(
            total["period found"] / total["risers"], 0.98, at_most=False
        ),
        "recorded curves filled: share of the widths timed": figure(total["period"] / total["cells"]),
        "recorded curves, the wave model proposes: timings saved": figure(
            1 - total["model"] / total["period"], 0.3, at_most=False
        ),
        "recorded curves, the wave model proposes: risers found": figure(
            total["model found"] / total["risers"], 0.98, at_most=False
        ),
    }
