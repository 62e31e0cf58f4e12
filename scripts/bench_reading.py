"""What does a reading on this CPU depend on besides the shape: who shares the core, and where the output lies?

    python -m scripts.bench_reading [--seconds 15]      # nothing else should run

Real layers are read in turn, each between two times of the canary, in turn where the allocator puts their output and in another
place at each reading. Writes benchmarks/reading.csv (every reading) and benchmarks/reading.json.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median, stdev

import numpy as np

from scripts.fill_cells import GRANULE
from scripts.fill_lines import lines
from scripts.record import figure, record
from tailprune.core.sample import SLOW, USUAL
from tailprune.filling import group_line
from tailprune.timing.blocks import build_block
from tailprune.timing.canary import Canary
from tailprune.timing.heap import keep_freed_memory
from tailprune.timing.machine import cpu_name, pinned, preemptions
from tailprune.timing.places import Places
from tailprune.timing.random_data import RandomBank

SHAPES, LONGEST_US = 40, 1000.0


@dataclass(frozen=True, slots=True)
class Reading:
    shape: str
    elsewhere: bool
    us: float
    before_us: float
    after_us: float
    preempted: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    readings = read(parser.parse_args().seconds)
    figures = judge(readings)
    record(
        "reading",
        figures=figures,
        rows=[
            {"shape": r.shape, "elsewhere": int(r.elsewhere), "us": round(r.us, 1), "canary_before_us": round(r.before_us, 2),
             "canary_after_us": round(r.after_us, 2), "preempted": int(r.preempted)}
            for r in readings
        ],
        environment={"cpu": cpu_name(), "threads": 1},
        notes=[
            f"slow: the canary before or behind the reading took more than {SLOW:g} times its {USUAL:.0%} quantile over the run",
            "excess: a reading against the lower quartile of its shape",
            "none of our own programs ran beside it; other virtual machines may share the core",
        ],
    )  # fmt: skip


def read(seconds: float) -> list[Reading]:
    keep_freed_memory()
    bank, canary = RandomBank("cpu"), Canary()
    graph = lines(GRANULE)
    every = [shape for group in graph.groups for width in group.grid for _, shape in group_line(graph, group.id, width)]
    random.Random(0).shuffle(every)
    readings: list[Reading] = []
    with pinned(threads=1):
        blocks = {}
        for shape in every:
            block = build_block(shape, bank)
            block()
            if _timed(block) < LONGEST_US:
                blocks[str(shape)] = (block, Places(block()))
            if len(blocks) == SHAPES:
                break
        start, turn = time.monotonic(), 0
        while time.monotonic() - start < seconds or turn % 2:
            for name, (block, places) in blocks.items():
                elsewhere = bool(turn % 2)
                before_us, taken = canary.sing(), preemptions()
                with places.another() if elsewhere else nullcontext():
                    block()
                    us = _timed(block)
                readings.append(Reading(name, elsewhere, us, before_us, canary.sing(), preemptions() > taken))
            turn += 1
    return readings


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def judge(readings: Sequence[Reading]) -> dict[str, dict[str, object]]:
    own = [reading for reading in readings if not reading.preempted]
    usual_us = float(np.quantile([us for r in own for us in (r.before_us, r.after_us)], USUAL))
    by_shape: dict[str, list[Reading]] = defaultdict(list)
    for reading in own:
        by_shape[reading.shape].append(reading)
    base = {shape: float(np.quantile([r.us for r in found], 0.25)) for shape, found in by_shape.items()}

    def slow(reading: Reading) -> bool:
        return max(reading.before_us, reading.after_us) > SLOW * usual_us

    def excess(found: Iterable[Reading]) -> list[float]:
        return [r.us / base[r.shape] - 1 for r in found]

    calm, disturbed = [r for r in own if not slow(r)], [r for r in own if slow(r)]
    figures: dict[str, dict[str, object]] = {
        "readings": figure(len(readings)),
        "share that the system interrupted": figure(1 - len(own) / len(readings)),
        "share with a slow canary, of the others": figure(len(disturbed) / len(own)),
        "correlation of a reading with the canary behind it": figure(
            float(np.corrcoef(np.clip(excess(own), -0.2, 0.6), np.clip([r.after_us / usual_us - 1 for r in own], -0.2, 0.6))[0, 1])
        ),
    }  # fmt: skip
    for name, found in (("all", own), ("calm", calm), ("slow", disturbed)):
        for share in (0.5, 0.75, 0.9):
            figures[f"{name}: {share:.0%} of the readings lie within an excess of"] = figure(
                float(np.quantile(excess(found), share)) if found else float("nan")
            )
    stays, moves, control = [], [], []
    for shape in by_shape:
        here = [r.us for r in calm if r.shape == shape and not r.elsewhere]
        there = [r.us for r in calm if r.shape == shape and r.elsewhere]
        if min(len(here), len(there)) < 10:
            continue
        stays.append(median(here) / median(there) - 1)
        moves.append(stdev(np.log(there)) / stdev(np.log(here)))
        control.append(median(there[::2]) / median(there[1::2]) - 1)
    figures["shapes judged by place"] = figure(len(stays))
    figures["median where the allocator puts it against that over places: standard deviation over shapes"] = figure(
        stdev(stays)
    )
    figures["the same, largest"] = figure(max(map(abs, stays)))
    figures["two halves of the readings over places against each other: standard deviation over shapes"] = figure(
        stdev(control)
    )
    figures["spread of readings over places against that in one place, median"] = figure(median(moves))
    return figures


if __name__ == "__main__":
    main()
