"""What does it cost that a pruner loses the memory format of the weights?

    python -m scripts.bench_layout

Torch-Pruning's magnitude pruner cuts 40 % of the channels of networks that run channels last (random weights: latency depends
on widths alone). The network as the pruner leaves it is measured against the same one laid out channels last again, and
against the dense one, interleaved, norms folded. Writes benchmarks/layout.csv and benchmarks/layout.json.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch_pruning as tp
import torchvision
from torch import nn

import tailprune
from scripts.record import figure, record
from tailprune.timing.heap import holes_plugged
from tailprune.timing.machine import pinned
from tailprune.timing.memory_format import stray_weights
from tailprune.timing.runtimes import choose_runtime

RATIO, ROUNDS = 0.4, 40
CASES = (("resnet18", 1, 224), ("resnet18", 8, 64), ("resnet50", 1, 224), ("mobilenet_v2", 1, 224), ("vgg11_bn", 1, 96))
#: What a note about it is worth: more than two measurements of one network differ by.
TARGET = 0.02


def main() -> None:
    torch.manual_seed(0)
    rows, figures, notes = [], {}, []
    for name, batch, side in CASES:
        case = f"{name} batch {batch} at {side}x{side}"
        images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
        dense = torchvision.models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
        left = pruned_by_torch_pruning(dense, images)
        stray = stray_weights(left, (images,))
        networks = {"dense": dense, "as the pruner leaves it": left}
        networks = {key: deployed(net, images) for key, net in networks.items()}
        networks["channels last again"] = copy.deepcopy(networks["as the pruner leaves it"]).to(
            memory_format=torch.channels_last
        )
        times = interleaved({key: partial(net, images) for key, net in networks.items()})
        pairs = zip(times["as the pruner leaves it"], times["channels last again"], strict=True)
        extra = median(left_us / again_us - 1 for left_us, again_us in pairs)
        us = {key: median(values) for key, values in times.items()}
        figures[f"{case}: slower with contiguous weights by"] = figure(extra, TARGET, at_most=False)
        notes.append(
            f"{case}: {len(stray)} weights contiguous; " + ", ".join(f"{k} {v:,.0f} us" for k, v in us.items())
        )
        print(notes[-1], f"-> {extra:+.1%}", flush=True)
        rows += [
            {"model": name, "batch": batch, "side": side, "network": key, "round": i, "us": t}
            for key, values in times.items()
            for i, t in enumerate(values)
        ]
    environment = tailprune.DeviceTimer("cpu").environment.as_dict()
    record("layout", figures=figures, rows=rows, notes=notes,
           environment={**environment, "dtype": "float32", "memory_format": "channels_last", "pruning_ratio": RATIO})  # fmt: skip


def pruned_by_torch_pruning(dense: nn.Module, images: torch.Tensor) -> nn.Module:
    model = copy.deepcopy(dense)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    tp.pruner.MagnitudePruner(
        model, images, importance=tp.importance.GroupMagnitudeImportance(), global_pruning=True, pruning_ratio=RATIO,
        ignored_layers=last, in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
    ).step()  # fmt: skip
    return model.eval()


def deployed(model: nn.Module, images: torch.Tensor) -> nn.Module:
    return tailprune.fold_norms(model, tailprune.trace_model(model, images))


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """`measure_model` would lay the networks out alike, which is what is in question here."""
    runtime = choose_runtime(torch.device("cpu"), None, "warm")
    times: dict[str, list[float]] = {key: [] for key in calls}
    with pinned(threads=1), holes_plugged():
        ready = {key: runtime.clock.prepare(call, ()) for key, call in calls.items()}
        for _ in range(ROUNDS):
            for key, prepared in ready.items():
                times[key].append(prepared.read().us)
    return times


if __name__ == "__main__":
    main()
