"""What has to run between two calls of a layer, so that the sum of layers is the network? Every variant that was tried.

    python -m scripts.bench_between FOLDER [--minutes 20] [--name between]

For each network, dense and pruned by 40 % (magnitude, global, not rounded): the sum of the medians of its blocks, timed in
turn with each variant between two calls of a block, against the whole network, read once before each variant. All are read in calm
moments (`canary`, `interludes`). And the company a block is timed in: a dozen blocks alone, by fours and all together, over the same among
hundreds. FOLDER keeps one result per network, so that a run that was stopped goes on. The protocol's constants
(`tailprune.timing.between`) were chosen on such networks; scripts/bench_whole.py tests them on other ones, too. Writes
benchmarks/NAME.csv and benchmarks/NAME.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, geometric_mean, median

import torch
import torchvision
from torch import Tensor, nn

import tailprune
from recipes.contest import deployed
from recipes.hosts import build_host
from recipes.models import slim_resnet
from scripts.bench_whole import classifier
from scripts.record import figure, record
from tailprune.core.sample import calm_times
from tailprune.core.shapes import LayerShape
from tailprune.timing import build_block
from tailprune.timing.between import FORGOTTEN_MIB, RING_MIB
from tailprune.timing.blocks import Block
from tailprune.timing.canary import Canary
from tailprune.timing.heap import holes_plugged
from tailprune.timing.machine import pinned, preemptions
from tailprune.timing.places import Places
from tailprune.timing.random_data import RandomBank
from tailprune.timing.readings import Reading
from tailprune.timing.runtimes import choose_runtime

ROUNDS, RATIO, TARGET = 9, 0.4, 0.05
#: Of a shape's readings so many undisturbed ones make a median.
FEWEST = 4
#: (name, batch, side)
NETWORKS = (("slim", 8, 8), ("slim", 1, 32), ("slim", 8, 32), ("resnet18", 1, 128), ("resnet18", 8, 64), ("mobilenet_v2", 1, 160),
            ("mobilenet_v2", 8, 96), ("resnet34", 1, 96), ("mnasnet1_0", 2, 128), ("regnet_x_400mf", 1, 128), ("resnet50", 1, 128),
            ("squeezenet1_1", 4, 96), ("mobilenet_v3_small", 4, 128), ("densenet121", 1, 96))  # fmt: skip
#: Four small blocks of unlike kernels, which ran between the calls until it was seen what they cost small layers.
NEIGHBOURS = tuple(
    LayerShape(op="conv", batch=1, in_channels=inputs, out_channels=outputs, in_hw=(side, side), kernel_hw=(kernel, kernel),
               padding_hw=(kernel // 2, kernel // 2), epilogue=("bias", "add", "relu"))
    for inputs, outputs, side, kernel in ((64, 64, 16, 3), (40, 72, 16, 1), (128, 128, 8, 3), (24, 96, 32, 1))
)  # fmt: skip
#: Blocks whose company is changed, how many of them are timed in turn, and how often the order of companies is gone through.
DOZEN, COMPANIES, TURNS = 12, (1, 2, 4, 12), 5


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What comes between two calls: of a ring of numbers what was not read since the block was last called; the block itself (else it was last
    called a whole turn of all variants and blocks ago); so many MiB read; a spare; something written where the output will lie;
    the neighbours; the block's inputs read."""

    ring: bool = False
    own: bool = False
    mib: int = 0
    spare: bool = True
    touched: bool = False
    neighbours: bool = False
    inputs: bool = True

    def __str__(self) -> str:
        parts = ["ring"] * self.ring + ["itself"] * self.own
        parts += [f"{self.mib} MiB"] * bool(self.mib) + ["spare"] * self.spare
        parts += ["output's place"] * self.touched + ["neighbours"] * self.neighbours + ["inputs"] * self.inputs
        return " + ".join(parts)


CHOSEN = Variant(own=True, mib=FORGOTTEN_MIB, touched=True)
VARIANTS = (
    Variant(own=True, spare=False, inputs=False),
    Variant(),
    Variant(touched=True),
    Variant(mib=4, touched=True),
    Variant(mib=16, touched=True),
    Variant(mib=16, spare=False),
    Variant(mib=16, touched=True, neighbours=True),
    CHOSEN,
    Variant(own=True, mib=16),
    Variant(own=True, mib=16, touched=True),
    Variant(own=True, mib=64, touched=True),
    Variant(own=True, mib=128, touched=True),
)
#: Those whose company is changed. Networks' blocks come round after more than a ring anyway.
IN_COMPANY = (Variant(touched=True), CHOSEN, dataclasses.replace(CHOSEN, ring=True))


class Lab:
    """Blocks with their spares and places, and whatever can be put between two calls of one."""

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        bank = RandomBank("cpu")
        self.canary = Canary()
        self.blocks = {shape: build_block(shape, bank) for shape in shapes}
        self.spares = {shape: build_block(shape, bank) for shape in shapes}
        outputs = {shape: block() for shape, block in self.blocks.items()}
        self.places = {shape: Places(output) for shape, output in outputs.items()}
        self.neighbours = [build_block(shape, bank) for shape in NEIGHBOURS]
        self.ring: Iterator[Tensor] = itertools.cycle(bank.scratch(2 * RING_MIB * 2**20).split(2**18))
        self.read_mib = 0
        self.used_at_mib = dict.fromkeys(self.blocks, 0)

    def read(self, variant: Variant, shape: LayerShape) -> Reading:
        block, places = self.blocks[shape], self.places[shape]
        self._forget(self.used_at_mib[shape] + RING_MIB - self.read_mib if variant.ring else 0)
        if variant.own:
            block()
        self._forget(variant.mib)
        self.used_at_mib[shape] = self.read_mib
        if variant.spare:
            with places.another(written=variant.touched):
                self.spares[shape]()
        self.canary.wait()
        with places.another(written=variant.touched):
            for other in self.neighbours if variant.neighbours else ():
                other()
            for tensor in block.inputs if variant.inputs else ():
                tensor.sum()
            return self._timed(block)

    def _forget(self, mib: int) -> None:
        for part in itertools.islice(self.ring, max(mib, 0)):
            part.sum()
            self.read_mib += 1

    def _timed(self, block: Block) -> Reading:
        taken = preemptions()
        start = time.perf_counter_ns()
        block()
        us = (time.perf_counter_ns() - start) / 1e3
        return Reading(us, disturbed=preemptions() > taken or self.canary.is_slow())


def settled(readings: Sequence[Reading]) -> float:
    """The median of the calm times, of all of them where too few are undisturbed."""
    alone = [one.us for one in readings if not one.disturbed]
    return median(calm_times(alone if len(alone) >= FEWEST else [one.us for one in readings]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0, help="start nothing after this long")
    parser.add_argument("--name", default="between", help="of the results: one for each device that is compared")
    parser.add_argument("--note", action="append", default=[], help="written beside the figures")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    start, found = time.monotonic(), {}
    work: dict[str, Callable[[], dict]] = {"company": company}
    for name, batch, side in NETWORKS:
        for pruned in (False, True):
            slug = f"{name}-{batch}-{side}-{'pruned' if pruned else 'dense'}"
            work[slug] = partial(compare, name, batch, side, pruned)
    for slug, measure in work.items():
        kept = args.folder / f"{slug}.json"
        if not kept.exists() and time.monotonic() - start < 60 * args.minutes:
            kept.write_text(json.dumps(measure()))
            print(slug, flush=True)
        if kept.exists():
            found[slug] = json.loads(kept.read_text())
    publish(args.name, found.pop("company"), list(found.values()), args.note)


def network(name: str, batch: int, side: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = slim_resnet(1) if name == "slim" else torchvision.models.get_model(name, weights=None)
    example = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    return model.eval().to(memory_format=torch.channels_last), example


def compare(name: str, batch: int, side: int, pruned: bool) -> dict:
    environment = tailprune.DeviceTimer("cpu").environment  # keeps freed memory from here on: network and blocks alike
    model, example = network(name, batch, side)
    if pruned:
        host = build_host("magnitude", model, example, RATIO, ignored=classifier)
        host.step()
        model = host.model
    graph = tailprune.trace_model(model, example, name=name)
    whole = deployed(model, example).to(memory_format=torch.channels_last)
    with pinned(threads=1):
        clock = choose_runtime(torch.device("cpu"), None, "warm").prepare(whole, (example,), whole=True)
        lab = Lab(list(dict.fromkeys(shape for _, shape in graph.shapes_at())))
        times: dict[tuple[Variant, LayerShape], list[Reading]] = {
            (variant, shape): [] for variant in VARIANTS for shape in lab.blocks
        }
        passes = []
        for turn in range(ROUNDS + 1):
            for variant in VARIANTS:
                with holes_plugged():
                    passes.append(clock.read())
                    for shape in lab.blocks:
                        reading = lab.read(variant, shape)
                        if turn:  # the first round warms everything up
                            times[variant, shape].append(reading)
    taken = {key: settled(readings) for key, readings in times.items()}
    return {
        "network": f"{name} batch {batch} at {side}x{side}, {'pruned' if pruned else 'dense'}",
        "whole_us": [one.us for one in passes if not one.disturbed] or [one.us for one in passes],
        "parts_us": sum(median(calm_times(part)) for part in zip(*(one.parts_us for one in passes), strict=True)),
        "calm": fmean(not one.disturbed for one in passes),
        "sums_us": {
            str(variant): sum(layer.calls * taken[variant, shape] for layer, shape in graph.shapes_at())
            for variant in VARIANTS
        },
        "environment": environment.as_dict(),
    }


def company() -> dict:
    """Per variant, medians of a dozen blocks timed in turn, so many of them at once, over those among all blocks of four networks."""
    tailprune.DeviceTimer("cpu")  # keeps freed memory
    shapes: dict[LayerShape, None] = {}
    for name, batch, side in (("mobilenet_v2", 1, 160), ("resnet18", 1, 128), ("regnet_x_400mf", 1, 128), ("densenet121", 1, 96)):  # fmt: skip
        graph = tailprune.trace_model(*network(name, batch, side))
        shapes |= dict.fromkeys(shape for _, shape in graph.shapes_at())
    every = list(shapes)
    dozen = every[:: len(every) // DOZEN][:DOZEN]
    with pinned(threads=1):
        lab = Lab(every)
        times: dict[tuple[Variant, int, LayerShape], list[Reading]] = {}

        def visit(variant: Variant, many: int, some: Sequence[LayerShape], rounds: int) -> None:
            with holes_plugged():
                for turn in range(rounds + 1):
                    for shape in some:
                        reading = lab.read(variant, shape)
                        if turn and shape in dozen:
                            times.setdefault((variant, many, shape), []).append(reading)

        for _, variant in itertools.product(range(TURNS), IN_COMPANY):
            for many in COMPANIES:
                for first in range(0, DOZEN, many):
                    visit(variant, many, dozen[first : first + many], 3)
            visit(variant, len(every), every, 2)
    taken = {key: settled(readings) for key, readings in times.items()}
    return {
        "shapes": len(every),
        "ratios": {
            str(variant): {
                many: [taken[variant, many, shape] / taken[variant, len(every), shape] for shape in dozen]
                for many in COMPANIES
            }
            for variant in IN_COMPANY
        },
    }


def publish(title: str, alone: dict, found: list[dict], notes: list[str]) -> None:
    rows, figures = [], {}
    for one in found:
        for variant, us in one["sums_us"].items():
            rows.append({"network": one["network"], "variant": variant, "sum_us": us, "parts_us": one["parts_us"],
                         "whole_us": median(one["whole_us"]), "whole_low_us": min(one["whole_us"]), "whole_high_us": max(one["whole_us"]),
                         "calm": one["calm"], "gap": us / one["parts_us"] - 1})  # fmt: skip
        figures[f"{one['network']}: sum off whole by"] = figure(abs(one["sums_us"][str(CHOSEN)] / one["parts_us"] - 1), TARGET)  # fmt: skip
    for variant in map(str, VARIANTS):
        gaps = [row["gap"] for row in rows if row["variant"] == variant]
        figures |= {
            f"{variant}: share within 5 %": figure(fmean(abs(gap) <= TARGET for gap in gaps)),
            f"{variant}: median size of the gap": figure(median(map(abs, gaps))),
            f"{variant}: mean gap": figure(fmean(gaps)),
            f"{variant}: largest size": figure(max(map(abs, gaps))),
        }
    for variant, companies in alone["ratios"].items():
        for many, ratios in companies.items():
            figures[f"company: {many} timed in turn over {alone['shapes']}, {variant}"] = figure(geometric_mean(ratios))
    record(title, figures=figures, rows=rows, environment={**found[0]["environment"], "l2": "per row", "dtype": "float32",
           "memory_format": "channels_last", "pruning_ratio": RATIO}, notes=["the whole is put together from its undisturbed parts; "
           "the protocol was chosen on these networks, scripts/bench_whole.py has others", *notes])  # fmt: skip


if __name__ == "__main__":
    main()
