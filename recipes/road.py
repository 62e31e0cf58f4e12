"""The whole road, from a dense network to a pruned and fine-tuned one, in one command; stopped, it goes on from there.

    python -m recipes.road resnet20-cifar10 --data cifar10:DIR --weights resnet20.pt --out runs/resnet20
    python -m recipes.road mobilenetv2-cifar10 --data packed:cifar10.safetensors --out runs/mobilenetv2 --short
    torchrun --nproc_per_node 8 -m recipes.road resnet50-imagenet --data imagenet:DIR --weights torchvision \
        --device cuda --out runs/resnet50

Every file it needs again lies in --out: the dense weights, the latency table, a plan and a checkpoint for each step.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import nn

import tailprune
from recipes.configs import RUNS, RunConfig
from recipes.data import open_images
from recipes.distributed import Workers, workers_of_torchrun
from recipes.errors import RecipeError
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.hosts import add_gradients, build_host
from recipes.images import Images, ImageSet
from recipes.journal import Journal
from recipes.models import build_model, load_weights, save_weights
from recipes.progress import EpochReport
from recipes.provenance import about_run
from recipes.stages import Stages
from tailprune import WidthPlan

err = Console(stderr=True)
#: Images of the short form: 100 steps of 32.
SHORT_IMAGES = 3_200


def main(
    run: Annotated[str, typer.Argument(help=f"One of {', '.join(RUNS)}.")],
    data: Annotated[str, typer.Option(help="cifar10:DIR, packed:FILE, imagefolder:DIR or imagenet:DIR.")],
    out: Annotated[Path, typer.Option(help="Folder for results, and for what a second call goes on from.")],
    weights: Annotated[str | None, typer.Option(help="Trained dense weights: a file, or torchvision.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    ratio: Annotated[float | None, typer.Option(help="Share of channels the host removes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Pruning steps, each fine-tuned.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each fine-tune.")] = None,
    short: Annotated[bool, typer.Option(help="Minutes on a CPU: a few images, one epoch.")] = False,
    loaders: Annotated[int, typer.Option(help="Processes that decode images of an ImageNet tree.")] = 8,
    skip_corrupt: Annotated[bool, typer.Option(help="Leave unreadable images out.")] = False,
    export: Annotated[str | None, typer.Option(help="onnx or pt2, beside the checkpoint.")] = None,
) -> None:
    """Prune a trained network onto this device's step edges, fine-tune it with its dense self as teacher, and save it."""
    config = _configured(run, seed, ratio, steps, epochs, short)
    with workers_of_torchrun(device) as (workers, where):
        travel(config, data, weights, out, workers, where, skip_corrupt=skip_corrupt, export=export, loaders=loaders)


def travel(
    config: RunConfig,
    data: str,
    weights: str | None,
    out: Path,
    workers: Workers,
    device: torch.device,
    *,
    skip_corrupt: bool = False,
    export: str | None = None,
    loaders: int = 8,
) -> nn.Module:
    """Dense network, pruning step by step, fine-tuning, checkpoint; the pruned network."""
    images = open_images(data, side=config.side, skip_corrupt=skip_corrupt, loaders=loaders)
    if config.only_images and isinstance(images, ImageSet):
        images = images.part(config.only_images).tested_on(config.only_images)
    images = images.to(device)
    journal = Journal(out, about_run(config)) if workers.first else None
    workers.wait()
    stages = Stages(err if workers.first else Console(quiet=True), total=2 + 2 * config.steps)

    with stages.step("dense network") as step:
        dense = _dense(config, images, weights, out, workers, device, journal, step)
        before = evaluate(dense, images, workers=workers)
        step.say(f"{config.model}, accuracy {before}")

    model, plans = copy.deepcopy(dense), list[WidthPlan]()
    for index in range(config.steps):
        with stages.step(f"prune {index + 1}") as step:
            plan_file, cut = out / f"{index + 1}.plan.json", out / f"{index + 1}.pruned.safetensors"
            if plan_file.exists() and cut.exists():
                plans.append(WidthPlan.load(plan_file))
                model = tailprune.load_pruned(dense, cut)
            else:
                found = _plan(config, model, images, out, device) if workers.first else None
                plans.append(workers.broadcast_plan(found, device))
                model = tailprune.apply_plan(model, plans[-1])
                if workers.first:  # the checkpoint last: with it, the step is done
                    plans[-1].save(plan_file)
                    tailprune.save_pruned(model, plans, cut)
            step.say(plans[-1].summary().splitlines()[1].strip())
        with stages.step(f"fine-tune {index + 1}") as step:
            reports = finetune(
                model, images, config.tune, teacher=dense if config.tune.distill_weight else None,
                on_epoch=_told(journal, f"finetune {index + 1}", step), checkpoint=out / f"{index + 1}.progress",
                workers=workers,
            )  # fmt: skip
            step.say(f"accuracy {reports[-1].accuracy}")

    with stages.step("ship") as step:
        if workers.first:
            tailprune.save_pruned(model, plans, out / "pruned.safetensors")
            step.say(_ship(config, dense, model, images, out, device, export))
    return model


def _configured(
    run: str, seed: int, ratio: float | None, steps: int | None, epochs: int | None, short: bool
) -> RunConfig:
    if run not in RUNS:
        raise RecipeError(f"Unknown run {run!r}; allowed: {', '.join(RUNS)}.")
    config = RUNS[run].shortened(images=SHORT_IMAGES) if short else RUNS[run]
    return dataclasses.replace(
        config,
        ratio=config.ratio if ratio is None else ratio,
        steps=config.steps if steps is None else steps,
        dense=config.dense and dataclasses.replace(config.dense, seed=seed),
        sparse=config.sparse and dataclasses.replace(config.sparse, seed=seed),
        tune=dataclasses.replace(config.tune, seed=seed, epochs=config.tune.epochs if epochs is None else epochs),
    )


def _dense(
    config: RunConfig, images: Images, weights: str | None, out: Path, workers: Workers, device: torch.device,
    journal: Journal | None, step: Stages.Step,
) -> nn.Module:  # fmt: skip
    """The trained dense network: given, trained before, or trained now; then sparsely, where the config says so."""
    torch.manual_seed(config.tune.seed)
    done = out / "dense.safetensors"
    model = build_model(config.model, num_classes=len(images.classes), weights=None if done.exists() else weights)
    model.to(device)
    if done.exists():
        load_weights(model, done)
        return model.eval()
    if weights is None:
        if config.dense is None:
            raise RecipeError(
                f"{config.name} starts from trained weights; pass --weights FILE, or --weights torchvision."
            )
        finetune(
            model, images, config.dense, on_epoch=_told(journal, "dense", step), checkpoint=out / "dense.progress", workers=workers
        )  # fmt: skip
    if config.sparse is not None:
        host = build_host(config.importance, model, images.example(2).to(device), config.ratio)
        host.update_regularizer()
        finetune(
            model, images, config.sparse, regularize=host.regularize, on_epoch=_told(journal, "sparse", step),
            checkpoint=out / "sparse.progress", workers=workers,
        )  # fmt: skip
    if workers.first:
        save_weights(model, done)
    return model.eval()


def _plan(config: RunConfig, model: nn.Module, images: Images, out: Path, device: torch.device) -> WidthPlan:
    """The host pruner with one line more, on a copy."""
    twin = copy.deepcopy(model)
    example = images.example(config.latency_batch).to(device)
    if config.importance == "taylor":
        add_gradients(twin, images, batches=config.score_batches, batch=config.tune.batch)
    host = build_host(config.importance, twin, example, config.ratio_of_step(), global_ranking=config.global_ranking)
    dtype = config.deployed_dtype(device.type)
    timer = tailprune.DeviceTimer(device, precision=config.precision, max_visits=config.most_visits)
    table = tailprune.LatencyTable.open(out / f"latency-{device.type}.db", environment=timer.environment)
    pruner = tailprune.TailAwarePruner(
        host, latency=table, timer=timer, goal=config.goal, reach=config.reach, dtype=dtype
    )
    pruner.step()
    if pruner.plan is None:
        raise RecipeError(f"At ratio {config.ratio} the host prunes nothing of {config.model}; raise the ratio.")
    return pruner.plan


def _ship(
    config: RunConfig,
    dense: nn.Module,
    model: nn.Module,
    images: Images,
    out: Path,
    device: torch.device,
    export: str | None,
) -> str:
    """The networks measured against each other as deployed, and the export asked for."""
    example = images.example(config.latency_batch).to(device)
    deployed = {
        name: tailprune.fold_norms(net, tailprune.trace_model(net, example))
        for name, net in (("dense", dense), ("pruned", model))
    }
    dtype = config.deployed_dtype(device.type)
    verdict = tailprune.measure_model(deployed, example, device=device, dtype=dtype).verdict("pruned", "dense")
    if export == "onnx":
        tailprune.export_onnx(model, example, out / "pruned.onnx")
    elif export == "pt2":
        tailprune.export_pt2(model, example, out / "pruned.pt2")
    elif export is not None:
        raise RecipeError(f"Unknown export {export!r}; allowed: onnx, pt2.")
    return f"{out / 'pruned.safetensors'}; pruned is {verdict}"


def _told(journal: Journal | None, stage: str, step: Stages.Step) -> Callable[[EpochReport], None] | None:
    """What happens after each epoch; nothing on ranks other than 0."""
    if journal is None:
        return None
    return journal.stage(
        stage, lambda r: step.progress(r.epoch, r.epochs, f"loss {r.loss:.3f}, accuracy {r.accuracy.share:.1%}")
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except tailprune.TailpruneError as error:
        err.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
