"""`tailprune measure`: fill a latency table for a network, resumably."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UnstableMeasurement
from ..filling import fill_table, shard_of
from ..tables import LatencyTable
from .console import OutputOptions, note, print_json, progress, resumable, warn
from .grouped import grouped
from .host import Seed
from .latency import Threads, make_timer
from .models import NetworkOptions, load_model


@grouped
def measure(
    *,
    network: NetworkOptions,
    table: Annotated[
        Path,
        typer.Option(
            "--table", "-t", help="Table to fill; created if new, gone on with otherwise.", show_default=False
        ),
    ],
    device: Annotated[str, typer.Option("--device", "-d", help="cpu or cuda.")] = "cpu",
    simulate: Annotated[str | None, typer.Option(help="A GPU's name: simulate it with the wave model instead.")] = None,
    threads: Threads = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/n: measure every n-th channel group only, for many devices; then `tailprune table merge`."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if any shape did not settle.")] = False,
    seed: Seed = 0,
    output: OutputOptions,
) -> None:
    """Time every layer of a network against its channel counts, on this device.

    Only what the table lacks is measured. Ctrl-C or a kill loses the sample in flight; the same command goes on.

    Example: tailprune measure -m torchvision:resnet18 -d cpu -b 8 -t resnet18.db
    """
    timer = make_timer(device, threads=threads, simulate=simulate, seed=seed)
    graph = load_model(network).trace()
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
        shapes, unstable = len(opened), len(opened.unstable_shapes)
    if output.json:
        print_json(
            {
                "table": str(table),
                "environment": timer.environment.as_dict(),
                "shapes": shapes,
                "unstable": unstable,
                **dataclasses.asdict(filled),
            }
        )
    else:
        print(filled.summary())
    if unstable and strict:
        raise UnstableMeasurement(
            f"{unstable} of {shapes} shapes did not settle; close other programs and measure again, or drop --strict."
        )


def _groups(groups: tuple, shard: str | None) -> tuple[str, ...] | None:
    return None if shard is None else shard_of([group.id for group in groups], shard)
