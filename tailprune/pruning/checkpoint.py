"""Keeping a pruned network: its weights, and the plans that turn the user's own model class into its shape."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..core.artifact import parse_artifact, write_bytes_atomically
from ..core.errors import FormatError, InvalidShape, PlanMismatch
from ..core.plan import PLAN_FORMAT, PLAN_VERSION, WidthPlan
from .apply import prune_in_place
from .widen import widen_model

PRUNED_FORMAT, PRUNED_VERSION = "tailprune-pruned", 1
#: What torch.save writes starts with a zip header or with a pickle protocol mark; both may run code when read.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def save_pruned(model: nn.Module, plan: WidthPlan | Sequence[WidthPlan], path: str | os.PathLike[str]) -> None:
    """Write a pruned or widened network as one safetensors file with its plan inside; whole, or not at all.

    `plan` is the plan, or for iterative pruning the plans in order (`TailAwarePruner.plans`), that led from the dense
    network to `model`. Raises FormatError where the file cannot be written.
    """
    plans = (plan,) if isinstance(plan, WidthPlan) else tuple(plan)
    if not plans:
        raise InvalidShape(
            "A pruned network is saved with the plan that made it, got none; pass the plan that was applied."
        )
    body = {
        "format": PRUNED_FORMAT,
        "version": PRUNED_VERSION,
        "plans": [{"format": PLAN_FORMAT, "version": PLAN_VERSION, **p.to_dict()} for p in plans],
    }
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_bytes_atomically(path, save(tensors, metadata={PRUNED_FORMAT: json.dumps(body, allow_nan=False)}))


def load_pruned(model: nn.Module | Callable[[], nn.Module], path: str | os.PathLike[str]) -> nn.Module:
    """A saved pruned or widened network in the user's own model class.

    `model` is the dense network, or a function that builds it; its weights do not matter, and it is left untouched. The
    file's plans are replayed into a copy, then every weight is loaded, none missing and none left over.

    Raises FormatError for a file that is missing, truncated, corrupt, foreign, newer or a pickle, and PlanMismatch for
    one made from another model.
    """
    plans, tensors = read_pruned(path)
    pruned = copy.deepcopy(model) if isinstance(model, nn.Module) else model()
    for plan in plans:
        if plan.grown:
            pruned = widen_model(pruned, plan)
        else:
            prune_in_place(pruned, plan)
    expected = {name: tuple(value.shape) for name, value in pruned.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != got:
        name = sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n))[0]
        raise PlanMismatch(
            f"{path} does not fit {type(pruned).__name__}: {name} is {got.get(name, 'missing')} in the file and "
            f"{expected.get(name, 'missing')} in the model. Pass the model class the file was saved from."
        )
    pruned.load_state_dict(tensors, strict=True)
    return pruned


def read_pruned(path: str | os.PathLike[str]) -> tuple[tuple[WidthPlan, ...], dict[str, torch.Tensor]]:
    """The plans and the weights in a file of `save_pruned`, checked but not applied."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}.") from error
    if start.startswith(PICKLE_STARTS):
        raise FormatError(
            f"{path} is a PyTorch pickle, which is never read here because it can run code; give a file that save_pruned wrote."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(PRUNED_FORMAT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safetensors has no iterator)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated. Save it again."
        ) from error
    if text is None:
        raise FormatError(f"{path} holds weights but no pruning plan; give a file that save_pruned wrote.")
    body = parse_artifact(text, format=PRUNED_FORMAT, version=PRUNED_VERSION, origin=str(path))
    if not isinstance(body.get("plans"), list) or not body["plans"]:
        raise FormatError(f"{path} holds no pruning plan; save it again with save_pruned.")
    return tuple(_plan(item, str(path)) for item in body["plans"]), tensors


def _plan(item: object, origin: str) -> WidthPlan:
    body = parse_artifact(json.dumps(item), format=PLAN_FORMAT, version=PLAN_VERSION, origin=f"the plan in {origin}")
    return WidthPlan.from_dict(body, origin=f"the plan in {origin}")
