"""In x out tables proposed from their lines, simulated and on a CPU: a part of `scripts/bench_fill.py`."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from statistics import median, quantiles

import torch
import torchvision

import tailprune
from scripts.record import ROOT, figure
from tailprune.core.protocols import LatencySource
from tailprune.filling import measure_chosen, plan_shapes, propose_cells
from tailprune.tables import import_csv

BATCH = 32
GRANULE = 8  # the granule grid; at step 1 float16 has a riser behind every multiple of 8
CELL_LAYERS = (
    "layer1.0.conv2",
    "layer2.1.conv1",
    "layer2.1.conv2",
    "layer3.1.conv2",
    "layer3.1.conv3",
    "layer4.1.conv2",
)


def resnet50(dtype: str, granule: int = 1) -> tailprune.ModelGraph:
    images = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
    graph = tailprune.trace_model(torchvision.models.resnet50(), images).at_batch(BATCH, dtype=dtype)
    groups = (dataclasses.replace(g, granule=granule, min_width=granule) if g.prunable else g for g in graph.groups)
    return dataclasses.replace(graph, groups=tuple(groups))


class Replay:
    """A layer timer that answers with recorded samples: the first recording's, the next one's when asked again, then nothing more."""

    def __init__(self, *recorded: tailprune.LatencyTable) -> None:
        self.recorded, self.environment = recorded, recorded[0].environment
        self.visits: dict[tailprune.LayerShape, int] = defaultdict(int)

    def time(self, shape: tailprune.LayerShape) -> tailprune.LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Iterable[tailprune.LayerShape]) -> Iterator[tailprune.LatencySample]:
        for shape in dict.fromkeys(shapes):
            if self.visits[shape] < len(self.recorded):
                self.visits[shape] += 1
                yield self.recorded[self.visits[shape] - 1].sample(shape)


def half(recorded: tailprune.LatencyTable) -> tailprune.LatencyTable:
    """Every other reading of each sample."""
    found = tailprune.LatencyTable.in_memory(recorded.environment)
    found.add_many(dataclasses.replace(sample, times_us=sample.times_us[::2]) for sample in recorded.samples())
    return found


def on_cells(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Every in x out cell (multiples of 8) proposed from lines, against its true latency; rank one beside it."""
    errors: list[float] = []
    rank_one: list[float] = []
    timed = cells = 0
    for device in ("H200 SXM", "RTX 3090"):
        timer = tailprune.SimulatedTimer(tailprune.load_device(device))
        true_us = timer.source.latency_us
        layers = {layer.name: layer.shape for layer in resnet50("float16").layers}
        for name in CELL_LAYERS:
            layer, table = layers[name], tailprune.LatencyTable.in_memory(timer.environment)
            ins, outs = (range(GRANULE, n + 1, GRANULE) for n in (layer.in_channels, layer.out_channels))
            found = propose_cells(table, layer, timer, in_widths=ins, out_widths=outs)
            here: list[float] = []
            for i, o in product(ins, outs):
                shape = layer.with_channels(in_channels=i, out_channels=o)
                if shape not in table:
                    here.append(abs(found.latency_us(shape) / true_us(shape) - 1))
                    line_product = true_us(layer.with_channels(in_channels=i)) * true_us(
                        layer.with_channels(out_channels=o)
                    )
                    rank_one.append(abs(line_product / true_us(layer) / true_us(shape) - 1))
            rows.append({"what": "proposed cells", "device": device, "dtype": "float16", "granule": GRANULE, "line": name, "timed": len(table),
                         "grid_cells": len(ins) * len(outs), "median_error": round(median(here), 5), "largest_error": round(max(here), 5),
                         "largest_error_checked": round(found.max_error, 5)})  # fmt: skip
            errors += here
            timed, cells = timed + len(table), cells + len(ins) * len(outs)
    return {
        "proposed cells: median error": figure(median(errors), 0.01),
        "proposed cells: 95 in 100 are within": figure(quantiles(errors, n=20)[-1]),
        "proposed cells: largest error": figure(max(errors)),
        "proposed cells: largest error of rank one": figure(max(rank_one)),
        "proposed cells: share of the cells timed": figure(timed / cells),
    }


def on_cpu_cells(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """The same on a real CPU: the measured in x out tables of the planner's benchmark, replayed."""
    seen = import_csv(ROOT / "benchmarks/planner-cpu-latency.csv.gz")
    tables: dict[tailprune.LayerShape, set[tuple[int, int]]] = defaultdict(set)
    for shape in (sample.shape for sample in seen.samples()):
        if shape.op in ("conv", "linear") and not shape.depthwise:
            cell = (shape.in_channels, shape.out_channels)
            tables[shape.with_channels(in_channels=shape.conv_groups, out_channels=shape.conv_groups)].add(cell)
    errors: list[float] = []
    timed = cells = 0
    for layer, known in tables.items():
        ins, outs = {i for i, _ in known}, {o for _, o in known}
        if min(len(ins), len(outs)) < 4 or len(known) < len(ins) * len(outs):
            continue
        table = tailprune.LatencyTable.in_memory(seen.environment)
        found = propose_cells(table, layer, Replay(seen), in_widths=ins, out_widths=outs)
        rest = [shape for cell in known if (shape := found.cell(*cell)) not in table]
        here = [abs(found.latency_us(shape) / seen.latency_us(shape) - 1) for shape in rest]
        rows.append({"what": "proposed cells", "device": seen.environment.device, "dtype": layer.dtype, "line": str(layer), "timed": len(table),
                     "grid_cells": len(known), "median_error": round(median(here), 5) if here else "",
                     "largest_error": round(max(here), 5) if here else "", "largest_error_checked": round(found.max_error, 5)})  # fmt: skip
        errors += here
        timed, cells = timed + len(table), cells + len(known)
    return {
        "CPU, proposed cells: median error": figure(median(errors)),
        "CPU, proposed cells: 95 in 100 are within": figure(quantiles(errors, n=20)[-1]),
        "CPU, proposed cells: share of the cells timed": figure(timed / cells),
    }


def on_plan(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """ResNet-18 planned over every multiple of 8: what that measures beyond its lines, and whether proposals change the plan."""
    network = torchvision.models.resnet18()
    traced = tailprune.trace_model(network, torch.randn(1, 3, 224, 224))
    scores = tailprune.choose_host(tailprune.score_channels(network, traced), 0.45, scope="global")
    graph, spec = traced.at_batch(BATCH, dtype="float16"), tailprune.load_device("H200 SXM")

    def decide(source: LatencySource) -> tailprune.WidthPlan:
        return tailprune.plan_widths(graph, scores, latency=source, every=GRANULE)

    measured, true_us = {}, {}
    for name in ("measured", "proposed"):
        timer = tailprune.SimulatedTimer(spec, noise=0.005)
        table = tailprune.LatencyTable.in_memory(timer.environment)
        tailprune.fill_table(table, graph, timer)
        before = len(table)
        if name == "measured":
            plan = tailprune.measure_while(table, timer, lambda table=table: decide(table))  # type: ignore[misc]
        else:
            plan = measure_chosen(table, timer, decide, partial(plan_shapes, graph))
        measured[name] = len(table) - before
        true_us[name] = sum(
            layer.calls * timer.source.latency_us(shape) for layer, shape in graph.shapes_at(plan.widths)
        )
        rows.append({"what": f"a plan over every multiple, cells {name}", "device": spec.name, "dtype": "float16", "granule": GRANULE,
                     "timed": measured[name]})  # fmt: skip
    return {
        "a plan over every multiple of 8: cells measured for it": figure(measured["measured"], unit="shapes"),
        "a plan over every multiple of 8: share of them saved by proposals": figure(
            1 - measured["proposed"] / measured["measured"]
        ),
        "a plan over every multiple of 8: true latency of the plan by proposals, against the other": figure(
            true_us["proposed"] / true_us["measured"], 1.005
        ),
    }
