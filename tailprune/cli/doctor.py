"""`tailprune doctor`: why is my pruned model not faster?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..survey import diagnose
from ..waves import load_device
from .console import PANEL, OutputOptions, note, out, print_json, warn
from .grouped import grouped
from .host import HostOptions, choose
from .latency import LatencyOptions, here, open_latency
from .models import NetworkOptions, load_model
from .weights import read_state

#: Layers shown on the terminal; `--all`, `--json` and the page have the others.
SHOWN = 15
_PRUNED = "Pruned widths (one of these, or what a host pruner keeps; none: the network as it stands)"


@grouped
def doctor(
    *,
    network: NetworkOptions,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", "-p", help="A plan that `tailprune plan` saved.", rich_help_panel=_PRUNED),
    ] = None,
    pruned_weights: Annotated[
        Path | None,
        typer.Option(help="A checkpoint of the pruned network, whoever pruned it.", rich_help_panel=_PRUNED),
    ] = None,
    host: HostOptions,
    latency: LatencyOptions,
    every: Annotated[bool, typer.Option("--all", help="Show every layer, not only the first.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page here.", rich_help_panel=PANEL)] = None,
    output: OutputOptions,
) -> None:
    """Say why a pruned network is not faster, and which three changes of width would help most.

    The dense network is --model; what pruning left of it comes from --plan, --pruned-weights, or a host pruner's --ratio,
    --widths or --from-zeros. Without any of these the network is judged as it stands. With --table and the cpu or cuda
    device it was measured on, what the table lacks is measured; with --table and a GPU's name, that GPU's wave model
    says what binds each layer.

    Example: tailprune doctor -m torchvision:resnet50 --pruned-weights small.pt -d h200 -b 32 --dtype float16 --html why.html
    """
    from ..reports import diagnosis_table, write_doctor_page

    files = {"--plan": plan_file, "--pruned-weights": pruned_weights}
    given = [*(option for option, value in files.items() if value is not None), *host.given]
    if len(given) > 1:
        raise InvalidShape(f"The pruned widths come from one place, got {' and '.join(given)}; give one of them.")
    loaded = load_model(network, seed=host.seed)
    graph = loaded.trace()
    opened = open_latency(latency, quiet=output.quiet)
    notes = list(opened.notes)
    if host.ratio is not None and loaded.weights == "random":
        notes.append("weights are random, so which channels the host keeps means nothing; give --weights FILE")
        warn(notes[-1], quiet=output.quiet)
    widths, came_from = None, "the network as it stands"
    if plan_file is not None:
        widths, came_from = _planned_widths(graph, plan_file), f"plan {plan_file.name}"
    elif pruned_weights is not None:
        widths, came_from = _read_widths(graph, pruned_weights), f"checkpoint {pruned_weights.name}"
    elif host.given:
        widths, came_from = choose(loaded, graph, host).host_widths, f"{_say(host)}, weights {loaded.weights}"
    device = _known_device(latency)
    found = opened.answer(lambda: diagnose(graph, widths, opened.source, device=device), quiet=output.quiet)
    for warning in found.warnings:
        warn(warning, quiet=output.quiet)
    if html is not None:
        write_doctor_page(
            found, html, provenance={"widths": came_from, "model": network.model, "dense weights": loaded.weights}
        )
        note(f"page written to {html}", quiet=output.quiet)
    if output.json:
        body: dict[str, Any] = {**found.to_dict(), "weights": loaded.weights, "widths_from": came_from}
        print_json({**body, "warnings": [*notes, *body["warnings"]]})
    else:
        out.print(diagnosis_table(found, most=None if every else SHOWN))
        print(found.summary())


def _known_device(latency: LatencyOptions) -> DeviceSpec | None:
    """The GPU whose wave model has opinions on what a table measured; without a table the model is the source itself."""
    if latency.table is None or latency.device is None or here(latency.device):
        return None
    return load_device(latency.device)


def _planned_widths(graph: ModelGraph, path: Path) -> dict[str, int]:
    plan = WidthPlan.load(path)
    plan.check(graph)
    return plan.widths


def _read_widths(graph: ModelGraph, path: Path) -> dict[str, int]:
    from ..tracing import read_widths

    return read_widths(graph, read_state(path))


def _say(host: HostOptions) -> str:
    if host.widths is not None:
        return f"host's widths in {host.widths.name}"
    if host.from_zeros is not None:
        return f"zeros in the weights, at threshold {host.from_zeros:g}"
    return f"host at ratio {host.ratio}, {host.scope}, {host.importance}"
