"""What does growing to the edges add at no more latency, and does it help? Five networks by the wave model, one measured and trained here.

    python -m scripts.bench_grow WORK [--stage measured|modelled|trained|written] [--shared]

MobileNetV2, MobileNetV3, EfficientNet-B0, MNASNet and ResNet-50 are grown on the wave model of an H200 (batch 32, fp16), at no
more latency and within 1 % and 5 % more; the widened network's outputs are compared with the original's. A small network for digits
with ragged widths is grown on latencies measured on this CPU, in a closed loop: original and plan run end to end against each
other, and a plan that does not keep its limit is tightened. Both are then measured once more, apart from the loop, and trained
alike over five seeds: from random weights, and on from the same trained weights.

Each stage keeps what it found in the folder WORK and is not repeated; `written`, the last, writes benchmarks/grow.csv and
benchmarks/grow.json. Give `measured` a machine of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import tailprune
from recipes.data import ImageSet, load_images
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from scripts.bench_nas import TRAINING, network
from scripts.record import figure, record
from tailprune.core.graph import ModelGraph
from tailprune.planning import plan_growth
from tailprune.pruning import confirmed_growth

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "mnasnet1_0", "resnet50")
DEVICE, BATCH, DTYPE = "h200", 32, "float16"
EXTRAS = (0.0, 0.01, 0.05)
RAGGED, SMALL_BATCH, SMALL_WIDEST, SMALL_EVERY, SMALL_EXTRAS = (6, 9, 11, 18, 20), 64, 2.0, 4, (0.0, 0.05)
SEEDS, ROUNDS = range(5), 100
#: Latency differences that two measurements of one network on a shared machine show.
RESOLVED = 0.02
STAGES = ("measured", "modelled", "trained", "written")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of what the stages found")
    parser.add_argument("--stage", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    parser.add_argument("--shared", action="store_true", help="others used this machine meanwhile: say so in the notes")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images = load_images("digits", side=8)
    stages = STAGES[: STAGES.index(args.stage) + 1]
    if not (args.work / "measured.json").exists():
        grow_here(images, args.work)
    if "modelled" in stages:
        for name in NETWORKS:
            if not (args.work / f"{name}.json").exists():
                keep(args.work / f"{name}.json", grow_by_model(name))
    if "trained" in stages:
        for seed in SEEDS:
            if not (args.work / f"trained-{seed}.json").exists():
                keep(args.work / f"trained-{seed}.json", train_both(args.work, images, seed))
    if "written" in stages:
        write(args.work, images, shared=args.shared)


def grow_here(images: ImageSet, work: Path) -> None:
    """The ragged network grown on latencies of this CPU, as measured end to end."""
    torch.manual_seed(0)
    net, example = network(RAGGED).eval(), example_of(images)
    graph = tailprune.trace_model(net, example, name="ragged").at_batch(SMALL_BATCH, memory_format="channels_last")
    timer = tailprune.DeviceTimer("cpu")
    rows, notes = [], []
    for extra in SMALL_EXTRAS:
        start = time.perf_counter()
        with tailprune.LatencyTable.open(work / "cpu.db", environment=timer.environment) as table:
            plan, lines = confirmed_growth(
                net, graph, example, table, timer, budget=allowing(extra), widest=SMALL_WIDEST, every=SMALL_EVERY
            )
        seconds = time.perf_counter() - start
        wide = tailprune.widen_model(net, plan, example)
        folded = {name: tailprune.fold_norms(model, graph) for name, model in (("ragged", net), ("grown", wide))}
        verdict = tailprune.measure_model(folded, example, rounds=ROUNDS).verdict("grown", "ragged")
        row = row_of(
            f"five convolutions {RAGGED}",
            graph,
            plan,
            net,
            wide,
            example,
            kind="measured",
            extra=extra,
            seconds=seconds,
        )
        between = {
            "measured_change": verdict.ratio - 1,
            "measured_low": verdict.low - 1,
            "measured_high": verdict.high - 1,
        }
        rows.append({**row, **between})
        notes += [f"grown within {extra:.0%} to {tuple(plan.widths.values())}: {line}" for line in lines]
        if extra == SMALL_EXTRAS[0]:
            plan.save(work / "plan.json")
        print(*notes, rows[-1], sep="\n", flush=True)
    keep(work / "measured.json", {"rows": rows, "notes": notes, "environment": timer.environment.as_dict()})


def grow_by_model(name: str) -> list[Row]:
    torch.manual_seed(0)
    net = stirred(torchvision.models.get_model(name, weights=None)).eval()
    images = torch.randn(1, 3, 224, 224)
    graph = tailprune.trace_model(net, images, name=name).at_batch(BATCH, dtype=DTYPE, memory_format="channels_last")
    growable, rows = tailprune.growable_groups(net, images), []
    for extra in EXTRAS:
        start = time.perf_counter()
        plan = plan_growth(graph, wave_model(), growable=growable, budget=allowing(extra))
        seconds = time.perf_counter() - start
        wide = tailprune.widen_model(net, plan, images)
        row = row_of(name, graph, plan, net, wide, images, kind="modelled", extra=extra, seconds=seconds)
        rows.append({**row, "measured_change": "", "measured_low": "", "measured_high": ""})
        print(rows[-1], flush=True)
    return rows


def wave_model() -> tailprune.WaveModel:
    return tailprune.WaveModel(tailprune.load_device(DEVICE))


def allowing(extra: float) -> tailprune.Budget | None:
    return tailprune.Budget.fraction(1 + extra) if extra else None


def example_of(images: ImageSet) -> Tensor:
    return images.example(SMALL_BATCH).contiguous(memory_format=torch.channels_last)


def row_of(
    name: str, graph: ModelGraph, plan: tailprune.WidthPlan, net: nn.Module, wide: nn.Module, example: Tensor, *,
    kind: str, seconds: float, extra: float = 0.0,
) -> Row:  # fmt: skip
    with torch.no_grad():
        expected, got = net(example), wide(example)
    return {
        "network": name, "latency": kind, "extra": extra, "groups_grown": len(plan.grown), "groups": len(plan.choices),
        "parameters_gained": graph.num_parameters_at(plan.widths) / graph.num_parameters_at() - 1,
        "macs_gained": graph.macs_at(plan.widths) / graph.macs_at() - 1,
        "predicted_change": plan.predicted_us / plan.original_us - 1, "optimality_gap": plan.optimality_gap,
        "plan_s": seconds, "output_error": float((expected - got).abs().max() / expected.abs().max()),
    }  # fmt: skip


def stirred(net: nn.Module) -> nn.Module:
    """Norms as after training: fresh ones are all alike, and would hide a channel in the wrong place."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def train_both(work: Path, images: ImageSet, seed: int) -> dict[str, float]:
    """Test accuracy by way; both widths get the same epochs."""
    plan, found = tailprune.WidthPlan.load(work / "plan.json"), {}
    wide_widths = tuple(plan.widths[choice.group] for choice in plan.choices[: len(RAGGED)])
    nets: dict[str, nn.Module] = {}
    for name, widths in (("ragged", RAGGED), ("grown", wide_widths)):
        torch.manual_seed(seed)
        nets[name] = network(widths)
        finetune(nets[name], images, TRAINING)
        found[f"{name}, scratch"] = evaluate(nets[name], images).share
    on = {
        "ragged": copy.deepcopy(nets["ragged"]),
        "grown": tailprune.widen_model(nets["ragged"], plan, example_of(images), seed=seed),
    }
    for name, net in on.items():
        finetune(net, images, TRAINING)
        found[f"{name}, continued"] = evaluate(net, images).share
    print(seed, found, flush=True)
    return found


def keep(path: Path, found: object) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


def write(work: Path, images: ImageSet, *, shared: bool) -> None:
    measured = json.loads((work / "measured.json").read_text())
    rows: list[Row] = [
        *measured["rows"],
        *(row for name in NETWORKS for row in json.loads((work / f"{name}.json").read_text())),
    ]
    trained = [json.loads((work / f"trained-{seed}.json").read_text()) for seed in SEEDS]
    figures = {
        "largest difference of outputs over the largest output, of all widened": figure(
            1e6 * max(row["output_error"] for row in rows), 10.0, unit="millionths"
        ),
        "plan ResNet-50's growth": figure(
            max(row["plan_s"] for row in rows if row["network"] == "resnet50"), 5.0, unit="s"
        ),
    }
    for row in rows:
        name = f"{row['network']} ({row['latency']})" + (f", within {row['extra']:.0%}" if row["extra"] else "")
        figures[f"{name}: parameters gained"] = figure(row["parameters_gained"])
        figures[f"{name}: multiply-adds gained"] = figure(row["macs_gained"])
        figures[f"{name}: predicted latency change"] = figure(row["predicted_change"], row["extra"])
        if row["latency"] == "measured":
            figures[f"{name}: measured latency change"] = figure(row["measured_change"], row["extra"] + RESOLVED)
    for way in trained[0]:
        shares = [found[way] for found in trained]
        figures[f"{way}: test accuracy, mean of {len(SEEDS)} seeds"] = figure(mean(shares))
        figures[f"{way}: its standard deviation"] = figure(stdev(shares))
    for way in ("scratch", "continued"):
        gained = mean(found[f"grown, {way}"] - found[f"ragged, {way}"] for found in trained)
        figures[f"accuracy gained by growing, {way}"] = figure(gained, 0.0, at_most=False)
    record(
        "grow", figures=figures, rows=rows,
        environment={**measured["environment"], "modelled": f"{wave_model().origin}; batch {BATCH}, {DTYPE}", "training": str(TRAINING)},
        notes=[*measured["notes"], *(["timed while others used the machine, original and grown interleaved"] if shared else []),
               *(f"measured again apart from the loop, {ROUNDS} rounds, within {row['extra']:.0%}: {row['measured_low']:+.1%} to {row['measured_high']:+.1%}"
                 for row in measured["rows"]),
               f"accuracy on {len(images.test_images)} test digits: one image is {1 / len(images.test_images):.2%}",
               "the torchvision networks have random weights and stirred norms; their latencies are modelled, never measured"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
