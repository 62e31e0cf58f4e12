"""`tailprune measure`: fill a latency table for a network, resumably."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InvalidShape, UnstableMeasurement
from ..filling import fill_table, launched_shard, shard_of
from ..tables import LatencyTable
from ..waves import SimulatedTimer, load_device
from .console import OutputOptions, note, print_json, progress, resumable, warn
from .grouped import grouped
from .host import Seed
from .latency import Runtime, Threads, environment_of, make_timer
from .models import NetworkOptions, load_model
from .whole import compare_whole, print_whole, whole_json


@grouped
def measure(
    *,
    network: NetworkOptions,
    table: Annotated[
        Path,
        typer.Option(
            "--table",
            "-t",
            help="Table to fill; created if new, gone on with otherwise. {shard} in it becomes i-of-n.",
            show_default=False,
        ),
    ],
    device: Annotated[str, typer.Option("--device", "-d", help="cpu or cuda.")] = "cpu",
    simulate: Annotated[str | None, typer.Option(help="A GPU's name: simulate it with the wave model instead.")] = None,
    threads: Threads = 1,
    runtime: Runtime = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/n: measure every n-th channel group only, for many devices; then `tailprune table merge`. "
            "auto: as torchrun or a Slurm job array says."
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Then lay the sum of the layers beside the whole network, measured.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if any shape did not settle.")] = False,
    seed: Seed = 0,
    output: OutputOptions,
) -> None:
    """Time every layer of a network against its channel counts, on this device.

    Only what the table lacks is measured. Ctrl-C or a kill loses the reading in flight; the same command goes on.

    Example: tailprune measure -m torchvision:resnet18 -d cpu -b 8 -t resnet18.db
    """
    if shard == "auto":
        shard, device = launched_shard(os.environ), _own_device(device)
    table = Path(str(table).replace("{shard}", (shard or "1/1").replace("/", "-of-")))
    if whole and simulate is not None:
        raise InvalidShape("A simulated GPU runs no whole network; drop --whole, or measure a device that is here.")
    model = load_model(network)
    graph = model.trace()
    timer = (
        SimulatedTimer(load_device(simulate), seed=seed)
        if simulate is not None
        else make_timer(device, threads=threads, runtime=runtime, like=environment_of(table))
    )
    note(
        f"{graph.model}: {len(graph.layers)} layers, {len(graph.prunable_groups)} prunable channel groups; {timer.environment}",
        quiet=output.quiet,
    )
    with (
        LatencyTable.open(table, environment=timer.environment) as opened,
        progress("measuring", quiet=output.quiet) as report,
        resumable(),
    ):
        for warning in opened.warnings:
            warn(warning, quiet=output.quiet)
        filled = fill_table(opened, graph, timer, groups=_groups(graph.prunable_groups, shard), progress=report)
        checked = compare_whole(opened, timer, model, graph, device, progress=report) if whole else None
        shapes, unstable = len(opened), len(opened.unstable_shapes)
    if output.json:
        print_json(
            {
                "table": str(table),
                "environment": timer.environment.as_dict(),
                "shapes": shapes,
                "unstable": unstable,
                **dataclasses.asdict(filled),
                **({"whole": whole_json(checked)} if checked else {}),
            }
        )
    else:
        print(filled.summary())
        if checked:
            print_whole(checked)
    if unstable and strict:
        raise UnstableMeasurement(
            f"{unstable} of {shapes} shapes did not settle; close other programs and measure again, or drop --strict."
        )


def _own_device(device: str) -> str:
    """The GPU that torchrun means for this process; two processes on one would measure each other."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def _groups(groups: tuple, shard: str | None) -> tuple[str, ...] | None:
    return None if shard is None else shard_of([group.id for group in groups], shard)
