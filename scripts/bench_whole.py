"""Is the sum of a table's layers the network? Predicted beside measured, dense, pruned and snapped, on this CPU.

    python -m scripts.bench_whole FOLDER [--minutes 9]

FOLDER keeps one result per case, and a table and a plan where there is one, so that a run that was stopped goes on. Each case runs in a process of its own, and prunes 40 % of a network's
channels (random weights: latency depends on widths alone) by magnitude with global ranking; for ResNet-18 it also fills a
table and snaps the pruned network with tailprune `faster`. The sums of single layers are laid beside the networks, measured
interleaved.
Writes, with NAME = whole unless `--name` is given, benchmarks/NAME.csv (every raw time of every network), benchmarks/NAME.parts.csv.gz (the same in parts, between two songs of the
canary), benchmarks/NAME.layers.csv (every layer as its table says and inside its network) and benchmarks/NAME.json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch
import torchvision
from torch import nn

import tailprune
from recipes.contest import Arena, deployed
from scripts.record import ROOT, figure, record
from tailprune.timing.residuals import inside_us

RATIO, TARGET = 0.4, 0.05
#: The networks' own layers and the networks are timed in turn, so that what changes on the machine changes both: on a
#: virtual machine speed changes by 10 % within seconds.
PASSES, ROUNDS = 6, 6
#: A layer inside its network is read once a pass, and a reading is not taken again.
INSIDE_ROUNDS = 24
#: Of the widths among which the snapped ones are chosen: thousands.
PRECISION, MOST_VISITS = 0.05, 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network at one batch and image size.

    `snapped`: also as tailprune plans it, for which thousands of widths are timed. `chosen_on`: the protocol was designed, or its
    constants chosen, with this network's gaps in sight; only the others are held out.
    """

    model: str
    batch: int
    side: int
    snapped: bool = False
    chosen_on: bool = False

    def __str__(self) -> str:
        return f"{self.model} batch {self.batch} at {self.side}x{self.side}"

    @property
    def slug(self) -> str:
        return f"{self.model}-{self.batch}-{self.side}"


CASES = (
    Case(model="resnet18", batch=1, side=128, snapped=True, chosen_on=True),
    Case(model="resnet18", batch=8, side=64, snapped=True, chosen_on=True),
    Case(model="mobilenet_v2", batch=1, side=160, chosen_on=True),
    Case(model="mobilenet_v2", batch=8, side=96, chosen_on=True),
    Case(model="vgg11_bn", batch=1, side=96, chosen_on=True),
    Case(model="resnet34", batch=1, side=96, chosen_on=True),
    Case(model="mnasnet1_0", batch=2, side=128, chosen_on=True),
    Case(model="regnet_x_400mf", batch=1, side=128, chosen_on=True),
    Case(model="googlenet", batch=1, side=128, chosen_on=True),
    Case(model="squeezenet1_1", batch=4, side=96, chosen_on=True),
    Case(model="resnet50", batch=1, side=128, chosen_on=True),
    Case(model="mobilenet_v3_small", batch=4, side=128, chosen_on=True),
    Case(model="densenet121", batch=1, side=96, chosen_on=True),
    Case(model="efficientnet_b0", batch=1, side=128),
    Case(model="regnet_y_400mf", batch=2, side=96),
    Case(model="resnext50_32x4d", batch=1, side=96),
    Case(model="vgg13_bn", batch=2, side=64),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="start no case after this long")
    parser.add_argument("--name", default="whole", help="of the results: one for each device that is compared")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for case in CASES:
        kept = args.folder / f"{case.slug}.json"
        if kept.exists():
            continue
        if time.monotonic() - start > 60 * args.minutes:
            break
        if case.snapped and not plan_of(case, args.folder).exists():
            in_a_process_of_its_own(plan, case, args.folder)
        in_a_process_of_its_own(run, case, args.folder)
        for name, found in json.loads(kept.read_text())["networks"].items():
            print(f"{case} {name}: {gap(found):+.1%}", flush=True)
    publish(
        args.name,
        {case: json.loads(kept.read_text()) for case in CASES if (kept := args.folder / f"{case.slug}.json").exists()},
    )


def in_a_process_of_its_own(step: Callable[[Case, Path], None], case: Case, folder: Path) -> None:
    """So that no case depends on those before it; what is left of that with the heap's holes plugged is in benchmarks/age.json."""
    process = multiprocessing.get_context("spawn").Process(target=step, args=(case, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{step.__name__} of {case} failed with exit code {process.exitcode}; see above.")


def plan_of(case: Case, folder: Path) -> Path:
    return folder / f"{case.slug}.plan.json"


def dense_and_host(case: Case, table: tailprune.LatencyTable, timer: tailprune.DeviceTimer) -> tuple[Arena, nn.Module]:
    torch.manual_seed(0)
    extra = {"init_weights": True, "aux_logits": False} if case.model == "googlenet" else {}
    dense = torchvision.models.get_model(case.model, weights=None, **extra).eval()
    dense = dense.to(memory_format=torch.channels_last)
    example = torch.randn(case.batch, 3, case.side, case.side).to(memory_format=torch.channels_last)
    arena = Arena(dense=dense, example=example, table=table, timer=timer, ignored=classifier)
    host = arena.host(RATIO)
    host.step()
    return arena, host.model


def plan(case: Case, folder: Path) -> None:
    """The snapped widths, on a table filled for them."""
    timer = tailprune.DeviceTimer("cpu", precision=PRECISION, max_visits=MOST_VISITS)
    with tailprune.LatencyTable.open(folder / f"{case.slug}.db", environment=timer.environment) as table:
        arena, _ = dense_and_host(case, table, timer)
        arena.tailored(RATIO, "faster").plan.save(plan_of(case, folder))


def run(case: Case, folder: Path) -> None:
    """Layers and networks in turn."""
    # Every time of every pass counts, as every round of the networks does: in a table a visit that settled, in a calm
    # moment, would outrank the others. So none may settle.
    timer = tailprune.DeviceTimer("cpu", precision=1e-9, max_visits=ROUNDS)
    visits = tailprune.LatencyTable.in_memory(timer.environment)
    arena, host = dense_and_host(case, visits, timer)
    networks, example = {"dense": arena.dense, "host": host}, arena.example
    if case.snapped:
        networks["tailprune"] = tailprune.apply_plan(
            arena.dense, tailprune.WidthPlan.load(plan_of(case, folder)), example
        )
    graphs = {name: tailprune.trace_model(model, example) for name, model in networks.items()}
    ready = {name: deployed(model, example) for name, model in networks.items()}
    own = list(dict.fromkeys(shape for traced in graphs.values() for _, shape in traced.shapes_at()))
    passes = []
    for _ in range(PASSES):
        visits.add_many(timer.time_many(own))
        passes.append(tailprune.measure_model(ready, example, rounds=ROUNDS))
    timings = joined(passes)
    taken = {shape: visits.latency_us(shape) for shape in own}
    predicted = {
        name: sum(layer.calls * taken[shape] for layer, shape in traced.shapes_at()) for name, traced in graphs.items()
    }
    inside = {
        name: inside_us(model, example, graphs[name], timer.device, threads=1, rounds=INSIDE_ROUNDS)
        for name, model in ready.items()
    }
    layers = {
        name: [
            {"layer": layer.name, "shape": str(shape), "parameters": shape.num_parameters, "table_us": layer.calls * taken[shape],
             "inside_us": inside[name].get(layer.name)}
            for layer, shape in traced.shapes_at()
        ]
        for name, traced in graphs.items()
    }  # fmt: skip
    result = {
        "environment": timer.environment.as_dict(),
        "notes": list(timings.notes),
        "crowded": {name: list(turns) for name, turns in timings.crowded.items()},
        "networks": {
            name: {
                "predicted_us": predicted[name],
                "measured_us": median(one.undisturbed_us(name) for one in passes),
                "passes_us": timings.median_us(name),
                "parts_us": [[[round(us, 1) for us in turn] for turn in one.parts_us.get(name, ())] for one in passes],
                "times_us": list(timings.times_us[name]),
                "layers": layers[name],
            }
            for name in networks
        },
    }
    (folder / f"{case.slug}.json").write_text(json.dumps(result))


def joined(passes: list[tailprune.ModelTimings]) -> tailprune.ModelTimings:
    """The rounds of several measurements of the same networks as those of one."""
    starts = [sum(len(next(iter(one.times_us.values()))) for one in passes[:i]) for i in range(len(passes))]
    return dataclasses.replace(
        passes[0],
        times_us={name: sum((one.times_us[name] for one in passes), ()) for name in passes[0].times_us},
        crowded={
            name: tuple(
                start + turn for start, one in zip(starts, passes, strict=True) for turn in one.crowded.get(name, ())
            )
            for name in passes[0].times_us
        },
        notes=tuple(dict.fromkeys(note for one in passes for note in one.notes)),
    )


def keep_layers(title: str, results: dict[Case, dict]) -> None:
    """Every layer as its table says and inside its network, until the next layer starts (empty: no module of its own)."""
    with (ROOT / "benchmarks" / f"{title}.layers.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "batch", "side", "network", "layer", "shape", "table_us", "inside_us"])
        for case, result in results.items():
            for name, found in result["networks"].items():
                for one in found["layers"]:
                    inside = "" if one["inside_us"] is None else round(one["inside_us"], 1)
                    writer.writerow([case.model, case.batch, case.side, name, one["layer"], one["shape"],
                                     round(one["table_us"], 1), inside])  # fmt: skip


def keep_parts(title: str, results: dict[Case, dict]) -> None:
    """A network's latency is put together from its parts within each pass; the median over passes is what counts."""
    with gzip.open(ROOT / "benchmarks" / f"{title}.parts.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "batch", "side", "network", "pass", "round", "parts_us"])
        for case, result in results.items():
            for name, found in result["networks"].items():
                for number, turns in enumerate(found["parts_us"]):
                    for i, turn in enumerate(turns):
                        writer.writerow([case.model, case.batch, case.side, name, number, i, " ".join(map(str, turn))])


def classifier(model: nn.Module) -> list[nn.Module]:
    """The last layer, whose outputs are the classes."""
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1:]


def by_place(results: dict[Case, dict]) -> dict[str, dict]:
    """How far convolutions' entries are off inside their networks: those with the largest weights so far, and all others.

    oneDNN copies a convolution's weights into another order in each call. The copy lies where the last one was freed, in warm memory,
    unless it is larger than any before.
    """
    ratios: dict[str, list[float]] = {"with the largest weights so far": [], "behind larger ones": []}
    for result in results.values():
        for found in result["networks"].values():
            largest = 0
            for layer in found["layers"]:
                if layer["inside_us"] and layer["shape"].startswith("conv"):
                    first = layer["parameters"] > largest
                    ratios[list(ratios)[0 if first else 1]].append(layer["table_us"] / layer["inside_us"] - 1)
                    largest = max(largest, layer["parameters"])
    return {f"convolutions {place}, {len(gaps)}: median of entry over time inside, less 1": figure(median(gaps))
            for place, gaps in ratios.items() if gaps}  # fmt: skip


def gap(found: dict) -> float:
    return found["predicted_us"] / found["measured_us"] - 1


def publish(title: str, results: dict[Case, dict]) -> None:
    keep_layers(title, results)
    keep_parts(title, results)
    figures, rows, notes = {}, [], []
    for case, result in results.items():
        for name, found in result["networks"].items():
            figures[f"{case}, {name}: predicted off measured by"] = figure(abs(gap(found)), TARGET)
            rows += [
                {"model": case.model, "batch": case.batch, "side": case.side, "network": name, "round": i, "us": us,
                 "crowded": i in result["crowded"][name], "predicted_us": found["predicted_us"], "l2": result["environment"]["l2"], "chosen_on": case.chosen_on}
                for i, us in enumerate(found["times_us"])
            ]  # fmt: skip
        signs = ", ".join(f"{name} {gap(found):+.1%}" for name, found in result["networks"].items())
        notes.append(
            f"{case} ({result['environment']['l2']} between calls): {signs}"
            + "".join(f"; {note}" for note in result["notes"])
        )
    every = [
        found["predicted_us"] / median(found["times_us"]) - 1
        for result in results.values()
        for found in result["networks"].values()
    ]
    calm = [
        found["predicted_us"] / found["passes_us"] - 1
        for result in results.values()
        for found in result["networks"].values()
    ]
    for name, some in (("all passes, disturbed ones, too", every), ("calm passes", calm)):
        figures[f"against {name}: share within 5 %"] = figure(fmean(abs(one) <= TARGET for one in some))
        figures[f"against {name}: median gap"] = figure(median(map(abs, some)))
    gaps = {case: [gap(found) for found in result["networks"].values()] for case, result in results.items()}
    for name, some in (("all", list(gaps)), ("held out", [case for case in gaps if not case.chosen_on])):
        signed = [one for case in some for one in gaps[case]]
        if signed:
            figures |= {
                f"{name}, {len(signed)} networks: share within 5 %": figure(fmean(abs(one) <= TARGET for one in signed), 1.0, at_most=False),
                f"{name}: median gap": figure(median(map(abs, signed))),
                f"{name}: largest gap": figure(max(map(abs, signed))),
                f"{name}: mean of predicted over measured, less 1": figure(fmean(signed)),
            }  # fmt: skip
    figures |= by_place(results)
    notes.append("chosen on: " + ", ".join(sorted({case.model for case in results if case.chosen_on})) + "; held out: "
                 + ", ".join(sorted({case.model for case in results if not case.chosen_on})))  # fmt: skip
    first = next(iter(results.values()))
    record(title, figures=figures, rows=rows, environment={**first["environment"], "l2": "per case", "dtype": "float32",
           "memory_format": "channels_last", "pruning_ratio": RATIO}, notes=notes)  # fmt: skip


if __name__ == "__main__":
    main()
