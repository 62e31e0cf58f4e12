"""`tailprune steps`: where latency jumps with width, group by group."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import InvalidShape, MissingLatency
from ..steps import Staircase, detect_steps, group_curve
from ..waves import EdgeCause, WaveModel, cause_lines, edge_causes, wave_model
from .console import PANEL, OutputOptions, note, out, print_json
from .grouped import grouped
from .latency import Latency, LatencyOptions, here, open_latency
from .models import NetworkOptions, load_model


@grouped
def steps(
    *,
    network: NetworkOptions,
    latency: LatencyOptions,
    group: Annotated[str | None, typer.Option("--group", "-g", help="One channel group only.")] = None,
    min_riser: Annotated[float, typer.Option(help="Smallest jump that counts, as a share of the latency.")] = 0.02,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say of each edge whether a tile, a wave or something else is behind it.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot here (.png or .svg).", rich_help_panel=PANEL)] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with every staircase here.", rich_help_panel=PANEL)
    ] = None,
    output: OutputOptions,
) -> None:
    """Show the staircase of every channel group: plateaus, edges, noise floor, and the cause of each edge.

    Example: tailprune steps -m torchvision:resnet18 -t resnet18.db -b 8 --group layer2.0.conv1 --plot stairs.png
    """
    from ..reports import StaircaseView, plot_staircase, save_figure, staircase_table, write_staircase_page

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
    causes: dict[str, list[EdgeCause]] = {}
    if explain or html is not None:
        model = _explaining_model(latency, opened)
        if isinstance(model, str):
            note(model, quiet=output.quiet)
        else:
            causes = {name: edge_causes(model, graph, name, _gaps(one), opened.source) for name, one in found.items()}
    if plot is not None:
        if len(found) > 1:
            raise InvalidShape(f"--plot draws one group; name it with --group, one of {', '.join(list(found)[:4])} ...")
        ((group_id, staircase),) = found.items()
        save_figure(
            plot_staircase(staircase, title=f"{graph.model} {group_id}, batch {network.batch}, {network.dtype}"), plot
        )
        note(f"plot written to {plot}", quiet=output.quiet)
    if html is not None:
        views = [
            StaircaseView(name=name, staircase=one, causes=tuple(cause_lines(causes.get(name, ()))))
            for name, one in found.items()
        ]
        facts = {"latencies": opened.source.origin, "batch": network.batch, "dtype": network.dtype}
        write_staircase_page(graph.model, views, html, facts=facts)
        note(f"page written to {html}", quiet=output.quiet)
    if output.json:
        print_json(
            {
                "model": graph.model,
                "latency_origin": opened.source.origin,
                "groups": {
                    name: staircase_body(one) | {"causes": [cause_body(cause) for cause in causes.get(name, ())]}
                    for name, one in found.items()
                },
                "without_latency": unknown,
            }
        )
        return
    for group_id, staircase in found.items():
        out.print(staircase_table(staircase, title=group_id))
        for line in cause_lines(causes.get(group_id, ())):
            out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if unknown:
        note(f"{len(unknown)} groups have no latency here: {', '.join(list(unknown)[:5])}", quiet=output.quiet)


def _explaining_model(latency: LatencyOptions, opened: Latency) -> WaveModel | str:
    """The wave model of the device that the latencies are of, or a sentence why there is none."""
    if latency.device is not None and not here(latency.device):
        return wave_model(latency.device)
    assert opened.table is not None
    name = opened.table.environment.device
    try:
        return wave_model(name)
    except InvalidShape:
        return f"no causes: the wave model does not know {name}; name the GPU with --device if it is one"


def _gaps(staircase: Staircase) -> list[tuple[int, int]]:
    """(last width of a plateau, first width behind it) of each edge."""
    return [(one.high, two.low) for one, two in pairwise(staircase.plateaus)]


def cause_body(cause: EdgeCause) -> dict[str, Any]:
    return {
        "width": cause.width,
        "layer": cause.layer,
        "cause": cause.explanation.cause,
        "detail": cause.explanation.detail,
        "change": cause.above_us / cause.below_us - 1,
        "modelled_us": [cause.explanation.below_us, cause.explanation.above_us],
    }


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
