"""`tailprune steps`: where latency jumps with width, group by group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import InvalidShape, MissingLatency
from ..steps import Staircase, detect_steps, group_curve
from .console import PANEL, OutputOptions, note, out, print_json
from .grouped import grouped
from .latency import LatencyOptions, open_latency
from .models import NetworkOptions, load_model


@grouped
def steps(
    *,
    network: NetworkOptions,
    latency: LatencyOptions,
    group: Annotated[str | None, typer.Option("--group", "-g", help="One channel group only.")] = None,
    min_riser: Annotated[float, typer.Option(help="Smallest jump that counts, as a share of the latency.")] = 0.02,
    plot: Annotated[Path | None, typer.Option(help="Write a plot here (.png or .svg).", rich_help_panel=PANEL)] = None,
    output: OutputOptions,
) -> None:
    """Show the staircase of every channel group: plateaus, edges, noise floor.

    Example: tailprune steps -m torchvision:resnet18 -t resnet18.db -b 8 --group layer2.0.conv1 --plot stairs.png
    """
    from ..reports import plot_staircase, save_figure, staircase_table

    # with a table nothing is timed here, whatever the device
    opened = open_latency(replace(latency, device=None) if latency.table else latency, quiet=output.quiet)
    loaded = load_model(network)
    graph = loaded.trace()
    wanted = [graph.group(group)] if group else list(graph.prunable_groups)
    found: dict[str, Staircase] = {}
    unknown: dict[str, str] = {}
    for one in wanted:
        try:
            found[one.id] = detect_steps(group_curve(graph, one.id, opened.source), min_riser=min_riser)
        except MissingLatency as error:
            unknown[one.id] = str(error)
    if not found:
        raise MissingLatency(
            f"No group of {graph.model} is in {latency.table or latency.device}: {next(iter(unknown.values()))}"
        )
    if plot is not None:
        if len(found) > 1:
            raise InvalidShape(f"--plot draws one group; name it with --group, one of {', '.join(list(found)[:4])} ...")
        ((group_id, staircase),) = found.items()
        save_figure(
            plot_staircase(staircase, title=f"{graph.model} {group_id}, batch {network.batch}, {network.dtype}"), plot
        )
        note(f"plot written to {plot}", quiet=output.quiet)
    if output.json:
        print_json(
            {
                "model": graph.model,
                "latency_origin": opened.source.origin,
                "groups": {group_id: staircase_body(staircase) for group_id, staircase in found.items()},
                "without_latency": unknown,
            }
        )
        return
    for group_id, staircase in found.items():
        out.print(staircase_table(staircase, title=group_id))
    if unknown:
        note(f"{len(unknown)} groups have no latency here: {', '.join(list(unknown)[:5])}", quiet=output.quiet)


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
