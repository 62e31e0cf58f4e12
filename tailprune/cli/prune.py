"""`tailprune prune`: apply a plan, verify it, keep the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InvalidShape, TailpruneError
from ..core.plan import WidthPlan
from . import options as o
from .console import note, print_json, warn
from .latency import open_latency
from .models import load_model
from .plan import plan_body
from .planned import make_plan


def prune(
    model: o.Model,
    save_to: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Checkpoint to write (.safetensors, with the plan inside).", show_default=False
        ),
    ],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", "-p", help="A plan that `tailprune plan` saved; planned here otherwise.")
    ] = None,
    device: o.Device = None,
    table: o.Table = None,
    ratio: o.Ratio = None,
    widths: o.Widths = None,
    from_zeros: o.FromZeros = None,
    scope: o.Scope = "global",
    importance: o.Importance = "magnitude",
    goal: o.Goal = "faster",
    reach: o.Reach = 1,
    policy: o.Policy = "snap",
    budget: o.BudgetText = None,
    weights: o.Weights = None,
    input_shape: o.InputShape = None,
    batch: o.Batch = 1,
    dtype: o.Dtype = "float32",
    memory_format: o.MemoryFormat = "channels_last",
    threads: o.Threads = 1,
    seed: o.Seed = 0,
    onnx: Annotated[
        Path | None, typer.Option("--export", help="Also write an ONNX file here, checked with onnxruntime.")
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Remove the channels a plan leaves out, check the result against the original, and write a checkpoint.

    Example: tailprune prune -m torchvision:resnet18 --weights resnet18.pt -p plan.json -o small.safetensors
    """
    from ..pruning import apply_plan, export_onnx, save_pruned, verify_pruned

    loaded = load_model(
        model,
        weights=weights,
        input_shape=input_shape,
        batch=batch,
        dtype=dtype,
        memory_format=memory_format,
        seed=seed,
    )
    if plan_file is not None:
        if device is not None or table is not None:
            raise InvalidShape("--plan already decides the widths; drop --device and --table, or drop --plan.")
        plan, body = WidthPlan.load(plan_file), {"plan": str(plan_file), "weights": loaded.weights}
        if loaded.weights == "random":
            warn("weights are random; give --weights FILE", quiet=quiet)
    else:
        latency = open_latency(device=device, table=table, threads=threads, quiet=quiet)
        planned = make_plan(
            loaded, latency, importance=importance, ratio=ratio, widths=widths, from_zeros=from_zeros, scope=scope, seed=seed, policy=policy, goal=goal, reach=reach, budget=budget, quiet=quiet
        )  # fmt: skip
        plan, body = planned.plan, plan_body(planned, loaded.weights)
    small = apply_plan(loaded.module, plan)
    verified = verify_pruned(loaded.module, small, plan, loaded.example())
    if not verified.ok:
        raise TailpruneError(f"The pruned network is not what the plan says, nothing was written: {verified}.")
    save_pruned(small, plan, save_to)
    note(
        f"checkpoint written to {save_to}; load it with tailprune.load_pruned(your_model, {save_to.name!r})",
        quiet=quiet,
    )
    if onnx is not None:
        export_onnx(small, loaded.example(), onnx)
        note(f"ONNX written to {onnx}", quiet=quiet)
    if json:
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
