"""`tailprune prune`: apply a plan, verify it, keep the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InvalidShape, TailpruneError
from ..core.plan import WidthPlan
from .console import OutputOptions, note, print_json, warn
from .grouped import grouped
from .host import HostOptions
from .latency import LatencyOptions, open_latency
from .models import NetworkOptions, load_model
from .plan import plan_body
from .planned import GoalOptions, make_plan


@grouped
def prune(
    *,
    network: NetworkOptions,
    save_to: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Checkpoint to write (.safetensors, with the plan inside).", show_default=False
        ),
    ],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", "-p", help="A plan that `tailprune plan` saved; planned here otherwise.")
    ] = None,
    latency: LatencyOptions,
    host: HostOptions,
    goal: GoalOptions,
    onnx: Annotated[
        Path | None, typer.Option("--export", help="Also write an ONNX file here, checked with onnxruntime.")
    ] = None,
    output: OutputOptions,
) -> None:
    """Remove the channels a plan leaves out, or add those it grows, check the result against the original, and write a checkpoint.

    Example: tailprune prune -m torchvision:resnet18 --weights resnet18.pt -p plan.json -o small.safetensors
    """
    from ..pruning import apply_plan, export_onnx, save_pruned, verify_pruned, widen_model

    loaded = load_model(network, seed=host.seed)
    if plan_file is not None:
        if latency.device is not None or latency.table is not None:
            raise InvalidShape("--plan already decides the widths; drop --device and --table, or drop --plan.")
        plan, body = WidthPlan.load(plan_file), {"plan": str(plan_file), "weights": loaded.weights}
        if loaded.weights == "random":
            warn("weights are random; give --weights FILE", quiet=output.quiet)
    else:
        opened = open_latency(latency, quiet=output.quiet)
        planned = make_plan(loaded, opened, host, goal, quiet=output.quiet)
        plan, body = planned.plan, plan_body(planned, loaded.weights)
    small = (widen_model if plan.grown else apply_plan)(loaded.module, plan)
    verified = verify_pruned(loaded.module, small, plan, loaded.example())
    if not verified.ok:
        raise TailpruneError(f"The network is not what the plan says, nothing was written: {verified}.")
    save_pruned(small, plan, save_to)
    note(
        f"checkpoint written to {save_to}; load it with tailprune.load_pruned(your_model, {save_to.name!r})",
        quiet=output.quiet,
    )
    if onnx is not None:
        export_onnx(small, loaded.example(), onnx)
        note(f"ONNX written to {onnx}", quiet=output.quiet)
    if output.json:
        print_json(
            {
                **body,
                "checkpoint": str(save_to),
                "onnx": str(onnx) if onnx else None,
                "verified": str(verified),
                "relative_error": verified.error,
            }
        )
    else:
        print(plan.summary())
        print(f"  verified: {verified}")
