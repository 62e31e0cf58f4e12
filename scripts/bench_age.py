"""Is a network as fast in a process that has done much as in a fresh one, with holes in the heap plugged and without?

    python -m scripts.bench_age [--passes 4]

One process per age: fresh, twice; after a training; after many shapes were timed and a training. Old ones live side by side; fresh ones start anew for
each turn, since measuring ages them, too. Each measures the same networks, then their layers: with the heap as it is, with its large holes plugged
and with all of them (`tailprune.timing.heap`). Turns shift by one each pass, so that what changes on the machine changes all. Every figure
is a ratio within one pass: to the fresh process, or of sums of layers to networks. Writes benchmarks/age.csv and benchmarks/age.json.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import multiprocessing
import random
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from statistics import fmean, median
from unittest import mock

import torch
import torchvision

import tailprune
from recipes.contest import deployed
from recipes.hosts import build_host
from recipes.models import slim_resnet
from scripts.bench_whole import classifier
from scripts.record import figure, record
from tailprune.timing import heap

#: The second fresh one is the control: what two processes differ by that differ in nothing.
AGES = ("fresh", "fresh, too", "trained", "shapes timed, trained")
HEAPS = ("as it is", "holes from 4 KiB plugged", "holes plugged")
#: Two medians of one network differ by so much (`recipes.race.TOLERANCE` allows as much).
TARGET = 0.01
RATIO, ROUNDS, VISITS = 0.4, 6, 6
#: What ages a process: about what the quickstart does before it measures.
SHAPES, TRAINING_STEPS = 800, 40
#: (name, batch, side)
NETWORKS = (("slim", 8, 32), ("mobilenet_v2", 8, 96), ("resnet18", 1, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--name", default="age", help="of the results: one for each device that is compared")
    args = parser.parse_args()
    old = {age: start(age) for age in AGES if not age.startswith("fresh")}
    rows, environment = [], {}
    turns = [(age, state) for age in AGES for state in HEAPS]
    for number in range(args.passes):
        for age, state in turns[number % len(turns) :] + turns[: number % len(turns)]:
            line = old.get(age) or start(age)  # only one of them ever works
            line.send(state)
            environment, measured = line.recv()
            for network, (network_us, layers_us) in measured.items():
                rows.append({"pass": number, "age": age, "heap": state, "network": network, "network_us": round(network_us, 1), "layers_us": round(layers_us, 1)})  # fmt: skip
            if age not in old:
                line.send(None)
        print(f"pass {number + 1} of {args.passes}", flush=True)
    for line in old.values():
        line.send(None)
    record(args.name, figures=judge(rows), rows=rows, environment={**environment, "pruning_ratio": RATIO})


def start(age: str) -> Connection:
    """A process of this age, ready."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    spawn.Process(target=live, args=(age, theirs), daemon=True).start()
    mine.recv()
    return mine


def live(age: str, line: Connection) -> None:
    """Grow old, then measure whenever asked to."""
    torch.set_num_threads(1)
    # the same number of readings for each shape
    timer = tailprune.DeviceTimer("cpu", precision=1e-9, max_visits=VISITS)
    if "shapes timed" in age:
        time_shapes()
    if "trained" in age:
        train()
    subjects = {}
    torch.manual_seed(0)  # the same networks whatever came before
    for name, batch, side in NETWORKS:
        example = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
        dense = (slim_resnet(1) if name == "slim" else torchvision.models.get_model(name, weights=None)).eval()
        host = build_host("magnitude", copy.deepcopy(dense), example, RATIO, ignored=classifier)
        host.step()
        for kind, model in (("dense", dense), ("host", host.model)):
            ready = deployed(model, example)
            subjects[f"{name} {batch}@{side} {kind}"] = (ready, example, tailprune.trace_model(model, example))
    line.send("ready")
    while state := line.recv():
        with plugging(state):
            networks_us = [
                tailprune.measure_model({"it": model}, example, rounds=ROUNDS).undisturbed_us("it")
                for model, example, _ in subjects.values()
            ]
            layers_us = [sum_of_layers(graph, timer) for *_, graph in subjects.values()]
        both = zip(networks_us, layers_us, strict=True)
        line.send((timer.environment.as_dict(), dict(zip(subjects, both, strict=True))))


def plugging(state: str) -> AbstractContextManager[object]:
    if state == "as it is":
        return mock.patch.object(heap, "_glibc", return_value=None)
    return mock.patch.object(heap, "SMALLEST_PLUG", 2**12) if "4 KiB" in state else nullcontext()


def time_shapes() -> None:
    """Widths of a small network's convolutions, as filling a table times them."""
    graph = tailprune.trace_model(slim_resnet(1).eval(), torch.randn(8, 3, 32, 32))
    convolutions = [shape for _, shape in graph.shapes_at() if shape.op == "conv" and shape.in_channels > 3]
    draw = random.Random(0)
    shapes = {dataclasses.replace(draw.choice(convolutions), out_channels=draw.randrange(8, 128)) for _ in range(SHAPES)}  # fmt: skip
    list(tailprune.DeviceTimer("cpu", precision=0.05, max_visits=VISITS).time_many(sorted(shapes, key=str)))


def train() -> None:
    model = slim_resnet(1).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(TRAINING_STEPS):
        optimizer.zero_grad()
        model(torch.randn(64, 3, 32, 32)).sum().backward()
        optimizer.step()


def sum_of_layers(graph: tailprune.ModelGraph, timer: tailprune.DeviceTimer) -> float:
    samples = {sample.shape: sample for sample in timer.time_many([shape for _, shape in graph.shapes_at()])}
    return sum(layer.calls * samples[shape].median_us for layer, shape in graph.shapes_at())


def judge(rows: list[dict]) -> dict[str, dict]:
    """Per heap: each age's network over the fresh one's of the same pass; and how far ages are off from each other, network by network."""
    of = {(row["pass"], row["age"], row["heap"], row["network"]): row for row in rows}
    networks, passes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "pass"))

    def older(what: str, age: str, state: str, network: str) -> float:
        return median(of[p, age, state, network][what] / of[p, "fresh", state, network][what] for p in passes) - 1

    figures = {}
    for what, target in (("network_us", TARGET), ("layers_us", None)):
        title = "networks" if what == "network_us" else "sums of layers"
        for state in HEAPS:
            gaps = {age: [older(what, age, state, network) for network in networks] for age in AGES[1:]}
            wanted = target if state == "holes plugged" else None
            for age, some in gaps.items():
                off = fmean(some)
                figures[f"{title}, {state}: {age} over fresh, less 1, mean"] = figure(off)
                if wanted:
                    figures[f"{title}, {state}: {age} off fresh"] = figure(abs(off), wanted)
            figures[f"{title}, {state}: largest gap"] = figure(max(abs(gap) for some in gaps.values() for gap in some))
    fresh = [
        median(of[p, "fresh", "holes plugged", network]["network_us"] / of[p, "fresh", "as it is", network]["network_us"] for p in passes) - 1
        for network in networks
    ]  # fmt: skip
    figures["networks, fresh: holes plugged over as it is, less 1, mean"] = figure(fmean(fresh))
    for state in HEAPS:
        gaps = [
            median(of[p, age, state, network]["layers_us"] / of[p, age, state, network]["network_us"] for p in passes)
            - 1
            for network in networks
            for age in AGES
        ]
        figures[f"{state}: sum of layers over network, less 1, mean"] = figure(fmean(gaps))
        figures[f"{state}: sum of layers over network, less 1, largest"] = figure(max(gaps, key=abs))
    return figures


if __name__ == "__main__":
    main()
