"""Is a network as fast in a process that has done much as in a fresh one, with holes in the heap plugged and without?

    python -m scripts.bench_age [--passes 6]

One process per age: fresh, twice; after a training; after many shapes were timed and a training. They live side by side, and each measures the same
networks and their layers when it is its turn, as the heap is and with holes plugged (`tailprune.timing.heap`), so that what changes on
the machine changes all. Every figure is a ratio within one pass: to the fresh process, or of sums of layers to networks.
Writes benchmarks/age.csv and benchmarks/age.json.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import multiprocessing
import random
from collections.abc import Iterator
from multiprocessing.connection import Connection
from statistics import fmean, median
from unittest import mock

import torch
import torchvision
from torch import nn

import tailprune
from recipes.contest import deployed
from recipes.hosts import build_host
from recipes.models import slim_resnet
from scripts.bench_whole import classifier
from scripts.record import figure, record

#: The second fresh one is the control: what two processes differ by that differ in nothing.
AGES = ("fresh", "fresh, too", "trained", "shapes timed, trained")
HEAPS = ("as it is", "holes plugged")
#: Two medians of one network differ by so much (`recipes.race.TOLERANCE` allows as much).
TARGET = 0.01
RATIO, ROUNDS, VISITS = 0.4, 6, 6
#: What ages a process: about what the quickstart does before it measures.
SHAPES, TRAINING_STEPS = 800, 40
#: (name, batch, side)
NETWORKS = (("slim", 8, 32), ("mobilenet_v2", 8, 96), ("resnet18", 1, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("--name", default="age", help="of the results: one for each device that is compared")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    for age in AGES:
        lines[age], theirs = spawn.Pipe()
        spawn.Process(target=live, args=(age, theirs), daemon=True).start()
        environment = lines[age].recv()  # it is ready: only one of them ever works
        print(age, flush=True)
    rows = []
    turns = [(age, heap) for age in AGES for heap in HEAPS]
    for number in range(args.passes):
        for age, heap in turns[number % len(turns) :] + turns[: number % len(turns)]:
            lines[age].send(heap)
            for network, (network_us, layers_us) in lines[age].recv().items():
                rows.append({"pass": number, "age": age, "heap": heap, "network": network, "network_us": round(network_us, 1), "layers_us": round(layers_us, 1)})  # fmt: skip
        print(f"pass {number + 1} of {args.passes}", flush=True)
    for line in lines.values():
        line.send(None)
    record(args.name, figures=judge(rows), rows=rows, environment={**environment, "pruning_ratio": RATIO})


def live(age: str, line: Connection) -> None:
    """Grow old, then measure whenever asked to."""
    torch.set_num_threads(1)
    timer = tailprune.DeviceTimer(
        "cpu", precision=1e-9, max_visits=VISITS
    )  # the same number of readings for each shape
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
    line.send(timer.environment.as_dict())
    while heap := line.recv():
        with as_it_is() if heap == "as it is" else contextlib.nullcontext():
            line.send({name: measured(*subject, timer) for name, subject in subjects.items()})


@contextlib.contextmanager
def as_it_is() -> Iterator[None]:
    """Measure without plugs."""
    with mock.patch("tailprune.timing.machine.holes_plugged", contextlib.nullcontext):
        yield


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


def measured(
    model: nn.Module, example: torch.Tensor, graph: tailprune.ModelGraph, timer: tailprune.DeviceTimer
) -> tuple[float, float]:
    """The network's own time, and its layers' sum."""
    timings = tailprune.measure_model({"it": model}, example, rounds=ROUNDS)
    samples = {sample.shape: sample for sample in timer.time_many([shape for _, shape in graph.shapes_at()])}
    return timings.undisturbed_us("it"), sum(
        layer.calls * samples[shape].median_us for layer, shape in graph.shapes_at()
    )


def judge(rows: list[dict]) -> dict[str, dict]:
    """Per heap: each age's network over the fresh one's of the same pass; and how far ages are off from each other, network by network."""
    of = {(row["pass"], row["age"], row["heap"], row["network"]): row for row in rows}
    networks, passes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "pass"))

    def older(what: str, age: str, heap: str, network: str) -> float:
        return median(of[p, age, heap, network][what] / of[p, "fresh", heap, network][what] for p in passes) - 1

    figures = {}
    for what, target in (("network_us", TARGET), ("layers_us", None)):
        title = "networks" if what == "network_us" else "sums of layers"
        for heap in HEAPS:
            gaps = {age: [older(what, age, heap, network) for network in networks] for age in AGES[1:]}
            wanted = target if heap == "holes plugged" else None
            for age, some in gaps.items():
                figures[f"{title}, {heap}: {age} over fresh, less 1, mean"] = figure(fmean(some), wanted)
            figures[f"{title}, {heap}: largest gap"] = figure(max(abs(gap) for some in gaps.values() for gap in some))
    fresh = [
        median(of[p, "fresh", "holes plugged", network]["network_us"] / of[p, "fresh", "as it is", network]["network_us"] for p in passes) - 1
        for network in networks
    ]  # fmt: skip
    figures["networks, fresh: holes plugged over as it is, less 1, mean"] = figure(fmean(fresh))
    for heap in HEAPS:
        gaps = [
            median(of[p, age, heap, network]["layers_us"] / of[p, age, heap, network]["network_us"] for p in passes) - 1
            for network in networks
            for age in AGES
        ]
        figures[f"{heap}: sum of layers over network, less 1, mean"] = figure(fmean(gaps))
        figures[f"{heap}: sum of layers over network, less 1, largest"] = figure(max(gaps, key=abs))
    return figures


if __name__ == "__main__":
    main()
