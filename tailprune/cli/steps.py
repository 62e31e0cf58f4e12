"""`tailprune steps`: where latency jumps with width, group by group."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..core.errors import InvalidShape, MissingLatency
from ..steps import Staircase, detect_steps, group_curve
from . import options as o
from .console import note, out, print_json
from .latency import open_latency
from .models import load_model


def steps(
    model: o.Model,
    device: o.Device = None,
    table: o.Table = None,
    group: Annotated[str | None, typer.Option("--group", "-g", help="One channel group only.")] = None,
    min_riser: Annotated[float, typer.Option(help="Smallest jump that counts, as a share of the latency.")] = 0.02,
    weights: o.Weights = None,
    input_shape: o.InputShape = None,
    batch: o.Batch = 1,
    dtype: o.Dtype = "float32",
    memory_format: o.MemoryFormat = "channels_last",
    threads: o.Threads = 1,
    plot: o.Plot = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Show the staircase of every channel group: plateaus, edges, noise floor.

    Example: tailprune steps -m torchvision:resnet18 -t resnet18.db -b 8 --group layer2.0.conv1 --plot stairs.png
    """
    from ..reports import plot_staircase, save_figure, staircase_table

    latency = open_latency(device=None if table else device, table=table, threads=threads, quiet=quiet)
    loaded = load_model(
        model, weights=weights, input_shape=input_shape, batch=batch, dtype=dtype, memory_format=memory_format
    )
    graph = loaded.trace()
    wanted = [graph.group(group)] if group else list(graph.prunable_groups)
    found: dict[str, Staircase] = {}
    unknown: dict[str, str] = {}
    for one in wanted:
        try:
            found[one.id] = detect_steps(group_curve(graph, one.id, latency.source), min_riser=min_riser)
        except MissingLatency as error:
            unknown[one.id] = str(error)
    if not found:
        raise MissingLatency(f"No group of {graph.model} is in {table or device}: {next(iter(unknown.values()))}")
    if plot is not None:
        if len(found) > 1:
            raise InvalidShape(f"--plot draws one group; name it with --group, one of {', '.join(list(found)[:4])} ...")
        ((group_id, staircase),) = found.items()
        save_figure(plot_staircase(staircase, title=f"{graph.model} {group_id}, batch {batch}, {dtype}"), plot)
        note(f"plot written to {plot}", quiet=quiet)
    if json:
        print_json(
            {
                "model": graph.model,
                "latency_origin": latency.source.origin,
                "groups": {group_id: staircase_body(staircase) for group_id, staircase in found.items()},
                "without_latency": unknown,
            }
        )
        return
    for group_id, staircase in found.items():
        out.print(staircase_table(staircase, title=group_id))
    if unknown:
        note(f"{len(unknown)} groups have no latency here: {', '.join(list(unknown)[:5])}", quiet=quiet)


def staircase_body(staircase: Staircase) -> dict[str, Any]:
    return {
        "kind": staircase.curve.kind,
        "noise_floor": staircase.noise_floor,
        "usable": staircase.usable,
        "edges": list(staircase.edge_widths),
        "plateaus": [
            {
                "low": p.low,
                "high": p.high,
                "low_us": p.low_us,
                "high_us": p.high_us,
                "verdict": p.verdict,
                "riser": p.riser,
            }
            for p in staircase.plateaus
        ],
    }
