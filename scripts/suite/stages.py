"""What is measured, in the order of its value. Each stage is a name and a function that returns what goes into the journal."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import tailprune
from tailprune import LatencyCurve, LatencyTable, LayerShape, Staircase

from .bench import Bench, PartIsOver, Setting, load_network
from .journal import Journal
from .kernels import cause, launches
from .sweep import sweep_ratio

RATIOS = tuple(round(0.10 + 0.05 * i, 2) for i in range(13))
#: The published curve's ratios (Torch-Pruning, ResNet-50, batch 64, uniform ratios in twenty steps).
PUBLISHED_RATIOS = tuple(round(0.05 * i, 2) for i in range(1, 20))
MOST_EDGES = 20
#: Of the minutes left a filling takes no more: what is pruned is the point, and plans measure what they choose in any case.
FILL_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a device is asked: sizes that keep it busy and settings that people deploy on it."""

    main: Setting
    layers: tuple[str, str]  # of the main network: their staircases are measured at step 1
    others: tuple[Setting, ...]  # tier B
    published: Setting
    variants: tuple[Setting, ...]  # tier C
    precision: float  # of a layer's median; on a CPU that others share hardly any settles to within 1 %
    min_riser: float  # that filling looks for: what lies within the noise costs thousands of timings and is not found


#: Float16 and batch 32 at ImageNet's size for GPUs; on a CPU, sizes whose whole run takes minutes.
FORMS = {
    "cuda": Form(
        main=Setting(network="resnet50", batch=32, side=224, dtype="float16"),
        layers=("layer3.1.conv2", "layer3.1.conv3"),
        others=(
            Setting(network="mobilenet_v2", batch=32, side=224, dtype="float16"),
            Setting(network="resnet18", batch=32, side=224, dtype="float16"),
            Setting(network="vgg16_bn", batch=32, side=224, dtype="float16"),
            Setting(network="resnet50", batch=1, side=224, dtype="float16"),
            Setting(network="resnet50", batch=128, side=224, dtype="float16"),
        ),
        published=Setting(network="resnet50", batch=64, side=224, dtype="tf32"),
        variants=(
            Setting(network="resnet50", batch=32, side=224, dtype="bfloat16"),
            Setting(network="resnet50", batch=32, side=224, dtype="tf32"),
            Setting(network="resnet50", batch=32, side=224, dtype="float16", runtime="compile"),
        ),
        precision=0.01,
        min_riser=0.02,
    ),
    "cpu": Form(
        main=Setting(network="resnet18", batch=8, side=64, dtype="float32"),
        layers=("layer2.1.conv2", "layer3.1.conv2"),
        others=(
            Setting(network="mobilenet_v2", batch=8, side=64, dtype="float32"),
            Setting(network="resnet18", batch=1, side=64, dtype="float32"),
        ),
        published=Setting(network="resnet50", batch=8, side=64, dtype="float32"),
        variants=(Setting(network="resnet18", batch=8, side=64, dtype="bfloat16"),),
        precision=0.02,
        min_riser=0.05,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The first word of a name is its kind: stages of one kind take about equally long."""

    name: str
    run: Callable[[Bench, Journal], dict[str, Any]]


def stages(form: Form, tiers: str) -> Iterator[Stage]:
    """Most valuable first."""
    if "A" in tiers:
        yield fill_stage(form.main, form.min_riser)
        for layer in form.layers:
            for axis in ("out", "in"):
                yield staircase_stage(form.main, layer, axis)
        yield Stage(name="kernels", run=explain_edges)
        for scope in ("global", "local"):
            yield from sweep_stages(form.main, coarse_first(RATIOS), scope=scope)
        yield utilization_stage(form.main)
    if "B" in tiers:
        for setting in form.others:
            yield fill_stage(setting, form.min_riser)
            yield from sweep_stages(setting, coarse_first(RATIOS), scope="global", multiples=(8, 16))
        yield from sweep_stages(form.main, (0.25, 0.45, 0.60), scope="global", importance="taylor")
        yield fill_stage(form.published, form.min_riser)
        yield from sweep_stages(
            form.published, PUBLISHED_RATIOS, scope="local", goals=("faster",), multiples=(8,)
        )  # fmt: skip
    if "C" in tiers:
        for setting in form.variants:
            yield fill_stage(setting, form.min_riser)
            yield from sweep_stages(setting, (0.45, 0.25, 0.60), scope="global", goals=("faster",), multiples=(8, 16))
            yield utilization_stage(setting)


def coarse_first(ratios: tuple[float, ...]) -> tuple[float, ...]:
    """Every third, then the rest: a run that is stopped early still shows the whole range."""
    return (*ratios[::3], *(ratio for i, ratio in enumerate(ratios) if i % 3))


def fill_stage(setting: Setting, min_riser: float) -> Stage:
    def run(bench: Bench, journal: Journal) -> dict[str, Any]:
        table, timer = bench.table(setting.runtime), bench.timer(setting.runtime)
        start = time.monotonic()
        until = start + FILL_SHARE * (bench.deadline - start)
        try:
            report = tailprune.fill_table(
                table, load_network(setting).graph, timer, min_riser=min_riser, progress=bench.watch_until(until)
            )
            found, summary = dataclasses.asdict(report), report.summary()
        except PartIsOver:
            found, summary = (
                {},
                f"stopped after {time.monotonic() - start:.0f} s; steps may lie where nothing was timed.",
            )
        # a filling that went on where an earlier run was stopped counts its own timings only: the table has them all
        counts = {"table_shapes": len(table), "table_visits": len(table.visits())}
        return {"setting": dataclasses.asdict(setting), **found, **counts, "summary": summary}

    return Stage(name=f"fill {setting}", run=run)


def sweep_stages(setting: Setting, ratios: tuple[float, ...], *, scope: str, **options: Any) -> Iterator[Stage]:
    for ratio in ratios:

        def run(bench: Bench, journal: Journal, ratio: float = ratio) -> dict[str, Any]:
            found = sweep_ratio(bench, setting, ratio=ratio, scope=scope, **options)
            return {"setting": dataclasses.asdict(setting), **found}

        importance = options.get("importance", "magnitude")
        yield Stage(name=f"sweep {setting}, {importance} {scope} {ratio:.2f}", run=run)


def staircase_stage(setting: Setting, layer: str, axis: str) -> Stage:
    def run(bench: Bench, journal: Journal) -> dict[str, Any]:
        shape = next(la.shape for la in load_network(setting).graph.layers if la.name == layer)
        bench.measure(line(shape, axis), setting.runtime)
        staircase = line_staircase(bench.table(setting.runtime), shape, axis)
        return {
            "setting": dataclasses.asdict(setting), "layer": layer, "axis": axis, "shape": dataclasses.asdict(shape),
            "noise_floor": staircase.noise_floor,
            "edges": [{"width": e.high, "riser": e.riser, "verdict": e.verdict} for e in staircase.edges],
        }  # fmt: skip

    return Stage(name=f"staircase {setting}, {layer} along {axis}", run=run)


def line(shape: LayerShape, axis: str) -> list[LayerShape]:
    """Every width of a layer along one axis, the other as it is."""
    name = f"{axis}_channels"
    return [shape.with_channels(**{name: width}) for width in range(1, getattr(shape, name) + 1)]


def line_staircase(table: LatencyTable, shape: LayerShape, axis: str) -> Staircase:
    known = [s for s in line(shape, axis) if s in table and table.sample(s).usable]
    return tailprune.detect_steps(
        LatencyCurve(
            widths=tuple(getattr(s, f"{axis}_channels") for s in known),
            latency_us=tuple(table.latency_us(s) for s in known),
            noise_us=tuple(table.noise_us(s) for s in known),
        )
    )


def explain_edges(bench: Bench, journal: Journal) -> dict[str, Any]:
    """Kernels on both sides of the largest confirmed risers of the staircases at step 1."""
    device = bench.timer().device
    properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    edges = [
        (edge, stage) for stage in journal.of("staircase") for edge in stage["edges"] if edge["verdict"] == "confirmed"
    ]
    edges.sort(key=lambda found: -abs(found[0]["riser"]))
    explained = []
    for edge, stage in edges[:MOST_EDGES]:
        shape, axis, width = shape_from(stage["shape"]), stage["axis"], edge["width"]
        sides = [launches(shape.with_channels(**{f"{axis}_channels": w}), device) for w in (width, width + 1)]
        why, detail = cause(*sides, (math.gcd(width, 8), math.gcd(width + 1, 8)), properties)
        explained.append(
            {
                "layer": stage["layer"], "axis": axis, **edge, "cause": why, "detail": detail,
                "below": [dataclasses.asdict(launch) for launch in sides[0]],
                "above": [dataclasses.asdict(launch) for launch in sides[1]],
            }
        )  # fmt: skip
        bench.watch()
    return {"edges": explained, "confirmed_edges": len(edges)}


def shape_from(body: dict[str, Any]) -> LayerShape:
    """A shape that went through JSON, where tuples become lists."""
    return LayerShape(**{name: tuple(value) if isinstance(value, list) else value for name, value in body.items()})


def utilization_stage(setting: Setting) -> Stage:
    def run(bench: Bench, journal: Journal) -> dict[str, Any]:
        graph = load_network(setting).graph
        bench.measure((layer.shape for layer in graph.layers), setting.runtime)
        table = bench.table(setting.runtime)
        try:
            spec = tailprune.load_device(table.environment.device)
        except tailprune.InvalidShape:
            spec = None  # a CPU, or a card whose datasheet is not known: achieved rates alone
        survey = tailprune.survey_utilization(graph, table, device=spec, place=False)
        layers = [
            {"name": use.name, "us": use.latency_us, "flops_per_s": use.flops_per_s, "utilization": use.utilization}
            for use in survey.layers
            if use.flop
        ]
        return {"setting": dataclasses.asdict(setting), "layers": layers, "peak_origin": survey.peak_origin}

    return Stage(name=f"utilization {setting}", run=run)
