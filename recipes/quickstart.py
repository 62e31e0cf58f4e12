"""The main job, on this device: train or load, measure the staircase, prune, snap, fine-tune, measure, show.

    python -m recipes.quickstart                                  # scikit-learn's digits, no download
    python -m recipes.quickstart --data cifar10:DIR --weights resnet20.pt
    python -m recipes.quickstart --data imagefolder:DIR --epochs 20

Everything measured or trained is kept under --out; a second run goes on from there.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import nn

import tailprune
from recipes.configs import FINETUNE_CIFAR10, FINETUNE_DIGITS, TRAIN_CIFAR10, TRAIN_DIGITS, FinetuneConfig
from recipes.contest import Arena, Contestant, assemble, deployed, kept_weights
from recipes.data import ImageSet, load_images
from recipes.errors import RecipeError
from recipes.evaluate import Accuracy, evaluate
from recipes.finetune import finetune
from recipes.models import CifarResNet, load_weights, resnet_from_weights, save_weights, slim_resnet
from recipes.stages import Stages
from recipes.sweep import sweep_ratios
from tailprune import reports

err = Console(stderr=True)
#: Half-width of a median at which a shape has settled: steps here are tens of percent, and the demo has minutes.
PRECISION = 0.02
#: Columns that the comparison needs; a narrower terminal wraps lines rather than numbers.
TABLE_WIDTH = 150
DIGITS_BANNER = (
    "Accuracy on the digits is a smoke test: they saturate near 100 %, so it can show damage, not merit. "
    "Latencies are real measurements of this device."
)


def main(
    data: Annotated[str, typer.Option(help="digits, cifar10:DIR or imagefolder:DIR.")] = "digits",
    weights: Annotated[Path | None, typer.Option(help="A trained CIFAR ResNet instead of training one.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    batch: Annotated[int, typer.Option(help="Images per call in every latency.")] = 8,
    ratio: Annotated[float, typer.Option(help="Share of channels the host removes.")] = 0.45,
    blocks: Annotated[int, typer.Option(help="Residual blocks per stage of the network trained here.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training from random weights.")] = None,
    finetune_epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning, the same for everyone.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results and for what a second run reuses.")] = Path(
        "runs/quickstart"
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
    sweep: Annotated[bool, typer.Option(help="Also sweep the pruning ratio from 0.1 to 0.7.")] = True,
) -> None:
    """Measure this device's staircase, prune a network onto it, and compare with everything else one could do."""
    began = time.time()
    out.mkdir(parents=True, exist_ok=True)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    stages = Stages(err, total=9 if sweep else 8)

    with stages.step("data") as step:
        images = load_images(data).to(where)
        step.say(f"{images.name}: {len(images.train_images)} training and {len(images.test_images)} test images")
    train, tune = _configs(images, epochs, finetune_epochs, seed)

    with stages.step("network") as step:
        dense = _dense_network(images, weights, out / f"dense-{blocks}.safetensors", train, blocks, where, step)
        dense_accuracy = evaluate(dense, images)
        step.say(f"dense network: accuracy {dense_accuracy}")

    example = images.example(batch).to(where)
    with stages.step("trace") as step:
        graph = tailprune.trace_model(dense, example, name=f"{type(dense).__name__} on {images.name}")
        step.say(
            f"{len(graph.layers)} layers, {len(graph.prunable_groups)} channel groups, {graph.macs_at() / 1e6:,.0f} M MACs at batch {batch}"
        )

    timer = tailprune.DeviceTimer(where, precision=PRECISION)
    table = tailprune.LatencyTable.open(out / f"latency-{where}.db", environment=timer.environment)
    with stages.step("measure") as step:
        filled = tailprune.fill_table(table, graph, timer, progress=step.progress)
        step.say(f"{timer.environment}: {filled.summary()}")

    with stages.step("steps") as step:
        staircases = {
            g.id: tailprune.detect_steps(tailprune.group_curve(graph, g.id, table)) for g in graph.prunable_groups
        }
        step.say(
            "; ".join(
                f"{g}: edges {', '.join(map(str, s.confirmed_edges[-4:])) or 'none'}"
                for g, s in list(staircases.items())[:3]
            )
        )

    arena = Arena(dense=dense, example=example, table=table, timer=timer, ignored=_ignored)
    with stages.step("prune and snap") as step:
        contestants, ours = assemble(arena, ratio)
        step.say(ours.plan.summary().splitlines()[1].strip())

    with stages.step("fine-tune") as step:
        before = {c.name: evaluate(c.model, images) for c in contestants}
        after = {
            c.name: before[c.name]
            if c.plan is None
            else _finetuned(c, images, tune, dense, out, step, i, len(contestants))
            for i, c in enumerate(contestants)
        }
        step.say(f"{tune.epochs} epochs each; host {after['host']}, tailprune faster {after['tailprune faster']}")

    with stages.step("compare") as step:
        timings = tailprune.measure_model(
            {c.name: deployed(c.model, example) for c in contestants}, example, device=where, rounds=40
        )
        comparison = reports.Comparison(
            rows=tuple(_row(c, graph, ours.plan, timings, before, after) for c in contestants)
        )
        step.say(comparison.sentence)

    points: tuple[reports.SweepPoint, ...] = ()
    if sweep:
        with stages.step("sweep") as step:
            points = sweep_ratios(arena, progress=step.progress)
            step.say(_sweep_line(points))

    page = reports.ReportPage(
        title="tailprune quickstart",
        comparison=comparison,
        plan=ours.plan,
        staircases=_views(staircases, ours.plan),
        sweep=points,
        layers=_layer_times(graph, ours.plan, table),
        environment=timer.environment.as_dict(),
        provenance={
            "network": graph.model,
            "data": images.name,
            "batch": batch,
            "pruning ratio": ratio,
            "seed": seed,
            "fine-tuning": dataclasses.asdict(tune),
            "tailprune": tailprune.__version__,
            "command": " ".join(["python -m recipes.quickstart", *sys.argv[1:]]),
        },
        warnings=(*ours.plan.warnings, *timings.notes),
        banner=DIGITS_BANNER if images.name.startswith("digits") else images.note,
    )
    ours.plan.save(out / "faster.plan.json")
    reports.write_page(page, out / "report.html")
    wide = max(Console().width, TABLE_WIDTH)
    Console(width=wide).print(reports.comparison_table(comparison))
    err.print(f"[bold]{out / 'report.html'}[/bold] written; {time.time() - began:,.0f} s in all")


def _configs(
    images: ImageSet, epochs: int | None, finetune_epochs: int | None, seed: int
) -> tuple[FinetuneConfig, FinetuneConfig]:
    train, tune = (
        (TRAIN_DIGITS, FINETUNE_DIGITS) if images.name.startswith("digits") else (TRAIN_CIFAR10, FINETUNE_CIFAR10)
    )
    return (
        dataclasses.replace(train, seed=seed, epochs=epochs or train.epochs),
        dataclasses.replace(tune, seed=seed, epochs=finetune_epochs or tune.epochs),
    )


def _dense_network(
    images: ImageSet,
    weights: Path | None,
    cache: Path,
    train: FinetuneConfig,
    blocks: int,
    where: str,
    step: Stages.Step,
) -> nn.Module:
    if weights is not None:
        return resnet_from_weights(weights).to(where).eval()
    torch.manual_seed(train.seed)
    model = slim_resnet(blocks, images.num_classes).to(where).to(memory_format=torch.channels_last)
    if cache.exists():
        load_weights(model, cache)
        return model.eval()
    finetune(
        model,
        images,
        train,
        on_epoch=lambda r: step.progress(r.epoch, r.epochs, f"training, accuracy {r.accuracy.share:.1%}"),
    )
    save_weights(model, cache)
    return model.eval()


def _finetuned(
    contestant: Contestant,
    images: ImageSet,
    config: FinetuneConfig,
    teacher: nn.Module,
    out: Path,
    step: Stages.Step,
    index: int,
    count: int,
) -> Accuracy:
    kept = kept_weights(out, contestant)
    if kept.exists():
        load_weights(contestant.model, kept)
    else:
        share = index / count
        finetune(
            contestant.model, images, config, teacher=teacher if config.distill_weight else None,
            on_epoch=lambda r: step.progress(round(100 * (share + r.epoch / r.epochs / count)), 100, contestant.name),
        )  # fmt: skip
        save_weights(contestant.model, kept)
    return evaluate(contestant.model, images)


def _ignored(model: nn.Module) -> list[nn.Module]:
    """The classifier's outputs are the classes; padded shortcuts pin the residual stream."""
    assert isinstance(model, CifarResNet)
    return [model.linear, *model.unprunable_layers()]


def _row(
    contestant: Contestant,
    graph: tailprune.ModelGraph,
    plan: tailprune.WidthPlan,
    timings: tailprune.ModelTimings,
    before: Mapping[str, Accuracy],
    after: Mapping[str, Accuracy],
) -> reports.ComparisonRow:
    mine = contestant.plan
    widths = mine.widths if mine else {}
    low, high = timings.interval_us(contestant.name)
    return reports.ComparisonRow(
        method=contestant.name,
        role=contestant.role,
        groups_changed=sum(mine.widths[g] != width for g, width in plan.host_widths.items()) if mine else 0,
        groups_total=len(plan.choices),
        macs=graph.macs_at(widths),
        params=graph.num_parameters_at(widths),
        predicted_us=mine.predicted_us if mine else plan.original_us,
        latency_kind=mine.latency_kind if mine else plan.latency_kind,
        measured_us=timings.median_us(contestant.name),
        spread_us=(high - low) / 2,
        importance=mine.importance if mine else 1.0,
        accuracy_before=before[contestant.name].share,
        accuracy_after=after[contestant.name].share,
        accuracy_noise=after[contestant.name].noise,
        note="; ".join(
            [contestant.note] * bool(contestant.note) + [w for w in (mine.warnings if mine else ()) if "left out" in w]
        ),
    )


def _views(staircases: dict, plan: tailprune.WidthPlan, most: int = 6) -> tuple[reports.StaircaseView, ...]:
    """The groups that moved farthest first."""
    order = sorted(plan.choices, key=lambda c: -abs(c.width - c.host) / c.original)
    return tuple(
        reports.StaircaseView(
            name=c.group, staircase=staircases[c.group], marks={"host": c.host, "tailprune": c.width}, note=c.reason
        )
        for c in order[:most]
        if c.group in staircases
    )


def _layer_times(
    graph: tailprune.ModelGraph, plan: tailprune.WidthPlan, table: tailprune.LatencyTable
) -> tuple[reports.LayerTime, ...]:
    host, ours = dict(graph.shapes_at(plan.host_widths)), dict(graph.shapes_at(plan.widths))
    return tuple(
        reports.LayerTime(
            name=la.name, host_us=la.calls * table.latency_us(host[la]), ours_us=la.calls * table.latency_us(ours[la])
        )
        for la in graph.layers
    )


def _sweep_line(points: tuple[reports.SweepPoint, ...]) -> str:
    at = {(p.ratio, p.method): p.measured_us for p in points}
    gains = sorted(1 - at[r, "tailprune faster"] / us for (r, m), us in at.items() if m == "host")
    return f"tailprune faster against the host over {len(gains)} ratios: median {gains[len(gains) // 2]:+.1%} less time, from {gains[0]:+.1%} to {gains[-1]:+.1%}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except (RecipeError, tailprune.TailpruneError) as error:
        err.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
