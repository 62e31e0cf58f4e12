"""What has to run between two calls of a layer, so that the sum of layers is the network? Every variant that was tried.

    python -m scripts.bench_between FOLDER [--minutes 9]

For each network, dense and pruned by 40 % (magnitude, global, not rounded): the sum of the medians of its blocks, timed in
turn with nothing, neighbours, or so many MiB read between two calls of a block, against the whole network measured in the
same rounds. FOLDER keeps one result per network, so that a run that was stopped goes on. The protocol's constant
(`tailprune.timing.between.FORGOTTEN_MIB`) was chosen from a run of this; scripts/bench_whole.py tests it on other networks, too.
Writes benchmarks/between.csv and benchmarks/between.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch_pruning as tp
import torchvision
from torch import nn

import tailprune
from recipes.contest import deployed
from recipes.models import slim_resnet
from scripts.record import figure, record
from tailprune.timing import build_block, l2_for
from tailprune.timing.between import NEIGHBOURS, RING_MIB
from tailprune.timing.blocks import Block
from tailprune.timing.machine import pinned, preemptions
from tailprune.timing.random_data import RandomBank

ROUNDS, RATIO, TAKES = 10, 0.4, 3
#: (name, batch, side)
NETWORKS = (("slim", 8, 8), ("slim", 1, 32), ("slim", 8, 32), ("resnet18", 1, 112), ("mobilenet_v2", 1, 128), ("vgg11_bn", 1, 64))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Read `mib`, run the neighbours, read the block's inputs: each or none. `in_order`: the network's own blocks in turn.

    The untimed call comes first; with `spare` it is one of a copy of the block, and comes behind the reading.
    """

    mib: int = 0
    neighbours: bool = False
    inputs: bool = False
    spare: bool = False
    in_order: bool = False

    def __str__(self) -> str:
        if self.in_order:
            return "the network's other blocks, in order"
        parts = [f"{self.mib} MiB"] * bool(self.mib) + ["spare"] * self.spare
        parts += ["neighbours"] * self.neighbours + ["inputs"] * self.inputs
        return " + ".join(parts) or "nothing"


VARIANTS = (
    Variant(),
    Variant(neighbours=True),
    Variant(neighbours=True, inputs=True),
    *(Variant(mib=mib, neighbours=True, inputs=True) for mib in (4, 8, 12, 16, 24, 32, 64)),
    *(Variant(mib=mib, spare=True, neighbours=True, inputs=True) for mib in (4, 8, 12, 16, 24, 32, 64)),
    Variant(mib=16, inputs=True),
    Variant(mib=16, spare=True, inputs=True),
    Variant(mib=16, spare=True, neighbours=True),
    Variant(mib=64),
    Variant(mib=64, spare=True),
    Variant(in_order=True),
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
    bank = RandomBank("cpu")
    with pinned(threads=1):
        blocks = {shape: build_block(shape, bank) for _, shape in graph.shapes_at()}
        spares = {id(block): build_block(shape, bank) for shape, block in blocks.items()}
        order = [blocks[shape] for layer, shape in graph.shapes_at() for _ in range(layer.calls)]
        neighbours = [build_block(shape, bank) for shape in NEIGHBOURS]
        ring = bank.scratch(RING_MIB * 2**20)
        rings = {variant.mib: itertools.cycle(ring.split(variant.mib * 2**18)) for variant in VARIANTS if variant.mib}
        per_block: dict[Variant, dict[int, list[float]]] = {variant: {id(b): [] for b in order} for variant in VARIANTS}
        whole_us = []
        for turn in range(ROUNDS + 1):
            whole(example)
            us = timed(lambda: whole(example), lambda: None)
            for variant in VARIANTS:
                if variant.in_order:
                    for block in order:
                        block()
                for block in order if variant.in_order else blocks.values():
                    one = timed(block, lambda v=variant, b=block: between(v, b, spares[id(b)], rings, neighbours))
                    if turn:  # the first round warms everything up
                        per_block[variant][id(block)].append(one)
            if turn:
                whole_us.append(us)
    return {
        "network": f"{name} batch {batch} at {side}x{side}, {'pruned' if pruned else 'dense'}",
        "pruned": pruned,
        "dense": [name, batch, side],
        "weights_mib": sum(4 * shape.num_parameters for _, shape in graph.shapes_at()) / 2**20,
        "whole_us": whole_us,
        "sums_us": {
            str(variant): sum(median(per_block[variant][id(block)]) for block in order) for variant in VARIANTS
        },
        "environment": environment.as_dict(),
    }


def between(
    variant: Variant, block: Block, spare: Block, rings: dict[int, Iterator[torch.Tensor]], neighbours: list[Block]
) -> None:
    if variant.in_order:
        return
    if not variant.spare:
        block()
    if variant.mib:
        next(rings[variant.mib]).sum()
    if variant.spare:
        spare()
    if variant.neighbours:
        for other in neighbours:
            other()
    if variant.inputs:
        for tensor in block.inputs:
            tensor.sum()


def timed(call: Callable[[], object], before_it: Callable[[], None]) -> float:
    us = 0.0
    for _ in range(TAKES):
        before_it()
        taken = preemptions()
        start = time.perf_counter_ns()
        call()
        us = (time.perf_counter_ns() - start) / 1e3
        if preemptions() == taken:
            break
    return us


def publish(found: list[dict], notes: list[str]) -> None:
    rows, figures = [], {}
    for one in found:
        middle = median(one["whole_us"])
        for variant, us in one["sums_us"].items():
            rows.append({"network": one["network"], "weights_mib": round(one["weights_mib"], 1), "variant": variant, "sum_us": us,
                         "whole_us": middle, "whole_low_us": min(one["whole_us"]), "whole_high_us": max(one["whole_us"]),
                         "gap": us / middle - 1})  # fmt: skip
        state = protocol(*one["dense"])
        mib = int(state.split()[0])
        chosen = one["sums_us"][str(Variant(mib=mib, spare=mib > 0, neighbours=True, inputs=True))] / middle - 1
        figures[f"{one['network']}, {state}: sum off whole by"] = figure(abs(chosen), 0.05)
    for variant in map(str, VARIANTS):
        gaps = [abs(row["gap"]) for row in rows if row["variant"] == variant]
        figures[f"worst of all networks with {variant}"] = figure(max(gaps))
    record("between", figures=figures, rows=rows, environment={**found[0]["environment"], "l2": "per row", "dtype": "float32",
           "memory_format": "channels_last", "pruning_ratio": RATIO}, notes=["the protocol's constants were chosen on these networks; "
           "scripts/bench_whole.py has others", *notes])  # fmt: skip


if __name__ == "__main__":
    main()
