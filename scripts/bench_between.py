"""What has to run between two calls of a layer, so that the sum of layers is the network? Every variant that was tried.

    python -m scripts.bench_between FOLDER [--minutes 9]

For each network, dense and pruned by 40 % (magnitude, global, not rounded): the sum of the medians of its blocks, timed in
turn with nothing, neighbours, a spare, or so many MiB read between two calls of a block, against the whole network measured in the
same rounds, and that against itself with songs inside. All are read in calm moments (`canary`, `interludes`). FOLDER keeps one result per network, so that a run that was
stopped goes on. The protocol's constants (`tailprune.timing.between`) were chosen on such networks; scripts/bench_whole.py tests
them on other ones, too. Writes benchmarks/between.csv and benchmarks/between.json.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch
import torch_pruning as tp
import torchvision
from torch import nn

import tailprune
from recipes.contest import deployed
from recipes.models import slim_resnet
from scripts.record import figure, record
from tailprune.timing import build_block, l2_for
from tailprune.timing.between import FORGOTTEN_MIB, NEIGHBOURS, RING_MIB
from tailprune.timing.blocks import Block
from tailprune.timing.canary import Canary
from tailprune.timing.host_clock import TAKES
from tailprune.timing.machine import pinned, preemptions
from tailprune.timing.places import Places
from tailprune.timing.random_data import RandomBank
from tailprune.timing.runtimes import choose_runtime

ROUNDS, RATIO = 10, 0.4
#: Of a shape's readings so many calm ones make a median; else all count.
FEWEST = 4
#: (name, batch, side)
NETWORKS = (("slim", 8, 8), ("slim", 1, 32), ("slim", 8, 32), ("resnet18", 1, 128), ("resnet18", 8, 64), ("mobilenet_v2", 1, 160),
            ("mnasnet1_0", 2, 128), ("resnet50", 1, 128), ("vgg11_bn", 1, 64))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What comes between two calls: read `mib`, call a `spare`, read `behind` MiB, run the neighbours, read the block's inputs.

    `spare`: "no" (the untimed call is the block's own, first of all), "same" (its output lies where the block's will), or
    "elsewhere".
    """

    mib: int = 0
    spare: str = "no"
    behind: int = 0
    neighbours: bool = True
    inputs: bool = True

    def __str__(self) -> str:
        parts = [f"{self.mib} MiB"] * bool(self.mib)
        parts += {"no": [], "same": ["spare in the same place"], "elsewhere": ["spare elsewhere"]}[self.spare]
        parts += [f"{self.behind} MiB"] * bool(self.behind)
        parts += ["neighbours"] * self.neighbours + ["inputs"] * self.inputs
        return " + ".join(parts) or "nothing"


SMALL = Variant()
LARGE = Variant(mib=FORGOTTEN_MIB, spare="elsewhere")
VARIANTS = (
    Variant(neighbours=False, inputs=False),
    SMALL,
    Variant(mib=16),
    Variant(mib=64),
    Variant(mib=16, spare="same"),
    LARGE,
    Variant(mib=16, spare="elsewhere", neighbours=False),
    Variant(mib=14, spare="elsewhere", behind=2),
    Variant(mib=12, spare="elsewhere", behind=4),
    Variant(mib=8, spare="elsewhere", behind=8),
    Variant(mib=60, spare="elsewhere", behind=4),
    Variant(mib=12, spare="elsewhere", behind=4, neighbours=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="start no network after this long")
    parser.add_argument("--note", action="append", default=[], help="written beside the figures")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    start, found = time.monotonic(), []
    for name, batch, side in NETWORKS:
        for pruned in (False, True):
            kept = args.folder / f"{name}-{batch}-{side}-{'pruned' if pruned else 'dense'}.json"
            if not kept.exists() and time.monotonic() - start < 60 * args.minutes:
                kept.write_text(json.dumps(compare(name, batch, side, pruned)))
                print(kept.read_text()[:400], flush=True)
            if kept.exists():
                found.append(json.loads(kept.read_text()))
    publish(found, args.note)


def network(name: str, batch: int, side: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = slim_resnet(1) if name == "slim" else torchvision.models.get_model(name, weights=None)
    example = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    return model.eval().to(memory_format=torch.channels_last), example


def protocol(name: str, batch: int, side: int) -> str:
    """The cache state that the protocol chooses: by the dense network, for the pruned one, too."""
    return l2_for(tailprune.trace_model(*network(name, batch, side)))


def compare(name: str, batch: int, side: int, pruned: bool) -> dict:
    environment = tailprune.DeviceTimer("cpu").environment  # keeps freed memory from here on: network and blocks alike
    model, example = network(name, batch, side)
    if pruned:
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
        host = tp.pruner.MagnitudePruner(
            model, example, importance=tp.importance.GroupMagnitudeImportance(), global_pruning=True, pruning_ratio=RATIO,
            ignored_layers=last, in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
        )  # fmt: skip
        host.step()
        model = host.model
    graph = tailprune.trace_model(model, example, name=name)
    whole = deployed(model, example).to(memory_format=torch.channels_last)
    bank, canary = RandomBank("cpu"), Canary()
    with pinned(threads=1):
        runtime = choose_runtime(torch.device("cpu"), None, "warm")
        unheard = runtime.prepare(copy.deepcopy(whole), (example,))
        clock = runtime.prepare(whole, (example,), whole=True)
        blocks = {shape: build_block(shape, bank) for _, shape in graph.shapes_at()}
        spares = {shape: build_block(shape, bank) for shape in blocks}
        places = {shape: Places(block()) for shape, block in blocks.items()}
        neighbours = [build_block(shape, bank) for shape in NEIGHBOURS]
        ring = bank.scratch(RING_MIB * 2**20)
        sizes = {mib for variant in VARIANTS for mib in (variant.mib, variant.behind) if mib}
        rings = {mib: itertools.cycle(ring.split(mib * 2**18)) for mib in sizes}
        calm = {(variant, shape): [] for variant in VARIANTS for shape in blocks}
        every = {(variant, shape): [] for variant in VARIANTS for shape in blocks}
        whole_us, unheard_us = [], []
        for turn in range(ROUNDS + 1):
            for variant in VARIANTS:
                heard, plain = (clock.read(), unheard.read()) if turn % 2 else (unheard.read(), clock.read())[::-1]
                for shape, block in blocks.items():  # shapes inside: each one's own weights were used a whole turn ago
                    for _ in range(TAKES):
                        us, disturbed = one_reading(
                            variant, block, spares[shape], places[shape], rings, neighbours, canary
                        )
                        if not disturbed:
                            break
                    if turn:  # the first round warms everything up
                        every[variant, shape].append(us)
                        calm[variant, shape] += [] if disturbed else [us]
                if turn and not heard.disturbed:
                    whole_us.append(heard.us)
                    unheard_us += [] if plain.disturbed else [plain.us]
    taken = {key: median(calm[key] if len(calm[key]) >= FEWEST else every[key]) for key in every}
    return {
        "network": f"{name} batch {batch} at {side}x{side}, {'pruned' if pruned else 'dense'}",
        "pruned": pruned,
        "dense": [name, batch, side],
        "weights_mib": sum(4 * shape.num_parameters for _, shape in graph.shapes_at()) / 2**20,
        "whole_us": whole_us,
        "unheard_us": unheard_us,
        "calm": sum(map(len, calm.values())) / sum(map(len, every.values())),
        "sums_us": {
            str(variant): sum(layer.calls * taken[variant, shape] for layer, shape in graph.shapes_at())
            for variant in VARIANTS
        },
        "environment": environment.as_dict(),
    }


def one_reading(
    variant: Variant, block: Block, spare: Block, places: Places, rings: dict[int, Iterator[torch.Tensor]], neighbours: list[Block],
    canary: Canary,
) -> tuple[float, bool]:  # fmt: skip
    if variant.spare == "no":
        block()
    if variant.mib:
        next(rings[variant.mib]).sum()
    if variant.spare == "elsewhere":
        with places.another():
            spare()
    if variant.behind:
        next(rings[variant.behind]).sum()
    canary.wait()
    with places.another():
        if variant.spare == "same":
            spare()
        if variant.neighbours:
            for other in neighbours:
                other()
        if variant.inputs:
            for tensor in block.inputs:
                tensor.sum()
        taken = preemptions()
        start = time.perf_counter_ns()
        block()
        us = (time.perf_counter_ns() - start) / 1e3
        return us, preemptions() > taken or canary.is_slow()


def publish(found: list[dict], notes: list[str]) -> None:
    rows, figures = [], {}
    for one in found:
        middle = median(one["unheard_us"])
        state = protocol(*one["dense"])
        for variant, us in one["sums_us"].items():
            rows.append({"network": one["network"], "weights_mib": round(one["weights_mib"], 1), "state": state, "variant": variant,
                         "sum_us": us, "whole_us": middle, "whole_low_us": min(one["unheard_us"]), "whole_high_us": max(one["unheard_us"]),
                         "calm": one["calm"], "gap": us / middle - 1})  # fmt: skip
        chosen = one["sums_us"][str(SMALL if state == "0 MiB" else LARGE)] / middle - 1
        figures[f"{one['network']}: a pass with songs, less them, over one without, less 1"] = figure(
            median(one["whole_us"]) / middle - 1
        )
        figures[f"{one['network']}, {state}: sum off whole by"] = figure(abs(chosen), 0.05)
    for state in sorted({row["state"] for row in rows}):
        for variant in map(str, VARIANTS):
            gaps = [row["gap"] for row in rows if row["variant"] == variant and row["state"] == state]
            figures |= {
                f"{state}: mean gap with {variant}": figure(fmean(gaps)),
                f"{state}: mean size of the gap with {variant}": figure(fmean(map(abs, gaps))),
                f"{state}: largest with {variant}": figure(max(map(abs, gaps))),
            }
    record("between", figures=figures, rows=rows, environment={**found[0]["environment"], "l2": "per row", "dtype": "float32",
           "memory_format": "channels_last", "pruning_ratio": RATIO}, notes=["the protocol's constants were chosen on these networks; "
           "scripts/bench_whole.py has others", *notes])  # fmt: skip


if __name__ == "__main__":
    main()
