"""What does growing to the edges add at no more latency, and does it help? Five networks by the wave model, one measured and trained here.

    python -m scripts.bench_grow [--shared]

MobileNetV2, MobileNetV3, EfficientNet-B0, MNASNet and ResNet-50 are grown on the wave model of an H200 (batch 32, fp16), at no
more latency and within 1 % more; the widened network's outputs are compared with the original's. A small network for digits with
ragged widths is grown on latencies measured on this CPU, both are measured end to end, and both are trained alike over five seeds:
from random weights, and on from the same trained weights. Writes benchmarks/grow.csv and benchmarks/grow.json.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping
from statistics import mean, stdev

import torch
import torchvision
from torch import nn

import tailprune
from recipes.data import ImageSet, load_images
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from scripts.bench_nas import TRAINING, network
from scripts.record import figure, record
from tailprune.core.graph import ModelGraph
from tailprune.core.plan import GroupChoice
from tailprune.core.protocols import LatencySource
from tailprune.planning import LayerCosts, WidthSpace, edge_space
from tailprune.timing import l2_for

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "mnasnet1_0", "resnet50")
DEVICE, BATCH, DTYPE = "h200", 32, "float16"
#: Channels beyond the original, as a share of it: what one may want of a network that stays itself.
WIDEST = 1.5
RAGGED, SMALL_BATCH = (6, 9, 11, 18, 20), 64
SEEDS = range(5)


def grown(space: WidthSpace, latency: LatencySource, *, extra: float = 0.0) -> tailprune.WidthPlan:
    """Groups widened edge by edge, each time the one that adds most multiply-adds, while the network takes no longer."""
    graph, costs = space.graph, LayerCosts.over(latency)
    original = costs.total(graph, {})
    limit = int(original * (1 + extra))
    widths = {group: graph.widths[group] for group in space.choices}
    while free := [wider for wider in space.wider(widths) if costs.total(graph, wider) <= limit]:
        widths = max(free, key=graph.macs_at)
    return write_plan(graph, widths, original / 1e6, costs.total(graph, widths) / 1e6, latency)


def write_plan(
    graph: ModelGraph, widths: Mapping[str, int], original_us: float, predicted_us: float, latency: LatencySource
) -> tailprune.WidthPlan:
    choices = tuple(
        GroupChoice(
            group=g.id, original=g.width, host=g.width, width=widths.get(g.id, g.width), kept=tuple(range(g.width)),
            reason="grown to edge" if widths.get(g.id, g.width) > g.width else "",
        )
        for g in graph.groups
    )  # fmt: skip
    return tailprune.WidthPlan(
        model=graph.model, fingerprint=graph.fingerprint, input_shape=graph.input_shape, choices=choices, policy="grow",
        goal="better", original_us=original_us, host_us=original_us, predicted_us=predicted_us, latency_origin=latency.origin,
        latency_kind=latency.kind(graph.layers[0].shape), dtype=graph.dtype, memory_format=graph.memory_format,
    )  # fmt: skip


def upward(graph: ModelGraph, latency: LatencySource, growable: tuple[str, ...]) -> WidthSpace:
    """The original widths, and the edges above them."""
    frozen = [g.id for g in graph.groups if g.id not in growable]
    edges = edge_space(graph, latency, narrowest=1.0, widest=WIDEST, frozen=frozen)
    choices = {
        g: (graph.widths[g], *(w for w in allowed if w > graph.widths[g])) for g, allowed in edges.choices.items()
    }
    return WidthSpace(graph=graph, choices=choices, widths_before=edges.widths_before)


def grow_by_model(name: str, model: tailprune.WaveModel) -> list[dict[str, object]]:
    torch.manual_seed(0)
    net = stirred(torchvision.models.get_model(name, weights=None)).eval()
    images = torch.randn(1, 3, 224, 224)
    graph = tailprune.trace_model(net, images, name=name).at_batch(BATCH, dtype=DTYPE, memory_format="channels_last")
    start = time.perf_counter()
    space = upward(graph, model, tailprune.growable_groups(net, images))
    rows = []
    for extra in (0.0, 0.01):
        plan = grown(space, model, extra=extra)
        seconds = time.perf_counter() - start
        wide = tailprune.widen_model(net, plan, images)
        with torch.no_grad():
            expected, got = net(images), wide(images)
        rows.append({
            "network": name, "latency": "modelled", "extra": extra, "groups_grown": len(plan.moved), "groups": len(plan.choices),
            "parameters_gained": graph.num_parameters_at(plan.widths) / graph.num_parameters_at() - 1,
            "macs_gained": graph.macs_at(plan.widths) / graph.macs_at() - 1,
            "predicted_change": plan.predicted_us / plan.original_us - 1, "measured_change": "", "plan_s": seconds,
            "output_error": float((expected - got).abs().max() / expected.abs().max()),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def stirred(net: nn.Module) -> nn.Module:
    """Norms as after training: fresh ones are all alike, and would hide a channel in the wrong place."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def grow_here(images: ImageSet) -> tuple[nn.Module, tailprune.WidthPlan, dict[str, object], tailprune.Environment]:
    """The ragged network grown on latencies of this CPU, and both measured end to end."""
    torch.manual_seed(0)
    net, example = network(RAGGED).eval(), images.example(SMALL_BATCH)
    example = example.contiguous(memory_format=torch.channels_last)
    graph = tailprune.trace_model(net, example, name="ragged")
    graph = graph.at_batch(SMALL_BATCH, memory_format="channels_last")
    timer = tailprune.DeviceTimer("cpu", l2=l2_for(graph))
    table = tailprune.LatencyTable.in_memory(timer.environment)
    growable = tailprune.growable_groups(net, example)
    start = time.perf_counter()
    choices = {g: (graph.widths[g], *range(graph.widths[g] // 4 * 4 + 4, 2 * graph.widths[g] + 1, 4)) for g in growable}
    space = WidthSpace(graph=graph, choices=choices, widths_before={g: len(widths) for g, widths in choices.items()})
    plan = tailprune.measure_while(table, timer, lambda: grown(space, table))
    seconds = time.perf_counter() - start
    wide = tailprune.widen_model(net, plan, example)
    folded = {
        name: tailprune.fold_norms(model, tailprune.trace_model(model, example))
        for name, model in (("ragged", net), ("grown", wide))
    }
    timings = tailprune.measure_model(folded, example, rounds=60)
    with torch.no_grad():
        expected, got = net(example), wide(example)
    row: dict[str, object] = {
        "network": f"five convolutions {RAGGED}", "latency": "measured", "extra": 0.0, "groups_grown": len(plan.moved),
        "groups": len(plan.choices), "parameters_gained": graph.num_parameters_at(plan.widths) / graph.num_parameters_at() - 1,
        "macs_gained": graph.macs_at(plan.widths) / graph.macs_at() - 1,
        "predicted_change": plan.predicted_us / plan.original_us - 1,
        "measured_change": timings.median_us("grown") / timings.median_us("ragged") - 1, "plan_s": seconds,
        "output_error": float((expected - got).abs().max() / expected.abs().max()),
    }  # fmt: skip
    print(row, timings.verdict("grown", "ragged"), plan.widths, flush=True)
    return net, plan, row, timer.environment


def train_both(plan: tailprune.WidthPlan, images: ImageSet) -> dict[str, list[float]]:
    """Test accuracy by way and seed; both widths get the same epochs."""
    found: dict[str, list[float]] = {
        "ragged, scratch": [],
        "grown, scratch": [],
        "ragged, continued": [],
        "grown, continued": [],
    }
    wide_widths = tuple(plan.widths[c.group] for c in plan.choices[: len(RAGGED)])
    for seed in SEEDS:
        nets: dict[str, nn.Module] = {}
        for name, widths in (("ragged", RAGGED), ("grown", wide_widths)):
            torch.manual_seed(seed)
            nets[name] = network(widths)
            finetune(nets[name], images, TRAINING)
            found[f"{name}, scratch"].append(evaluate(nets[name], images).share)
        example = images.example(SMALL_BATCH).contiguous(memory_format=torch.channels_last)
        on = {
            "ragged": copy.deepcopy(nets["ragged"]),
            "grown": tailprune.widen_model(nets["ragged"], plan, example, seed=seed),
        }
        for name, net in on.items():
            finetune(net, images, TRAINING)
            found[f"{name}, continued"].append(evaluate(net, images).share)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", action="store_true", help="others use this machine meanwhile: say so in the notes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = load_images("digits", side=8)
    _, plan, here, environment = grow_here(images)
    model = tailprune.WaveModel(tailprune.load_device(DEVICE))
    rows = [here, *(row for name in NETWORKS for row in grow_by_model(name, model))]
    accuracy = train_both(plan, images)

    free = [row for row in rows if row["extra"] == 0.0]
    error = max(float(str(row["output_error"])) for row in rows)
    figures = {
        "largest difference of outputs over the largest output, of all widened": figure(
            1e6 * error, 10.0, unit="millionths"
        )
    }
    for row in free:
        name = f"{row['network']} ({row['latency']})"
        figures[f"{name}: parameters gained"] = figure(float(str(row["parameters_gained"])))
        figures[f"{name}: multiply-adds gained"] = figure(float(str(row["macs_gained"])))
        figures[f"{name}: predicted latency change"] = figure(float(str(row["predicted_change"])), 0.0)
    for row in rows:
        if row["extra"]:
            name = f"{row['network']} ({row['latency']}), within {row['extra']:.0%} more latency"
            figures[f"{name}: multiply-adds gained"] = figure(float(str(row["macs_gained"])))
    figures["measured latency change of the network grown here"] = figure(float(str(here["measured_change"])), 0.02)
    figures["plan ResNet-50's growth"] = figure(
        next(float(str(r["plan_s"])) for r in free if r["network"] == "resnet50"), 5.0, unit="s"
    )
    for name, shares in accuracy.items():
        figures[f"{name}: test accuracy, mean of 5 seeds"] = figure(mean(shares))
        figures[f"{name}: its standard deviation"] = figure(stdev(shares))
    for way in ("scratch", "continued"):
        gained = mean(accuracy[f"grown, {way}"]) - mean(accuracy[f"ragged, {way}"])
        figures[f"accuracy gained by growing, {way}"] = figure(gained, 0.0, at_most=False)
    record(
        "grow", figures=figures, rows=rows,
        environment={**environment.as_dict(), "modelled": f"{model.origin}; batch {BATCH}, {DTYPE}", "training": str(TRAINING)},
        notes=[f"accuracy on {len(images.test_images)} test digits: one image is {1 / len(images.test_images):.2%}",
               *(["timed while others used the machine: both networks interleaved, layers not"] if args.shared else []),
            "the torchvision networks have random weights and stirred norms; their latencies are modelled, never measured"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
