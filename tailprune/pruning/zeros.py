"""Networks pruned by zeros: masks of `torch.nn.utils.prune`, and checkpoints of sparse training. Their hosts' choices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.scores import ChannelScores
from ..tracing import copy_without_masks, masks_of
from .importance import BatchNorm, Convolution, by_channel
from .influence import SAME
from .switched_off import Constants, few, host_of_switches


def host_from_masks(
    model: nn.Module,
    graph: ModelGraph,
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    constants: Constants = "remove",
    importance: str = "magnitude",
    example_inputs: Any = None,
) -> ChannelScores:
    """Which channels have the masks of `torch.nn.utils.prune` already removed?

    A channel is removed where masks cut it off: no layer of its group that is not masked at this channel reaches the
    layers that read it, or all those have its column masked. So one masked layer is enough where the group's layers
    follow one another (expansion and depthwise), and all branches of a residual sum must agree; a channel that only some
    of them mask is kept, and `warnings` says so. Masks within channels that stay save no time, and are named too.

    A masked filter may still pass on a constant: its bias, or the shift of its norm. It is removed with the channel
    (`constants="remove"`: a mask is an order) and the warning says how large it is, since then the pruned network is not the
    masked one; `constants="keep"` keeps such channels. Without that warning both compute the same.

    Removed channels score zero, which is what they are worth in a network whose masks are settled; the others by
    `importance`. So the plan grows a group only where that costs no time. `masks` (parameter name, or its name in a
    state dict with `_mask`, to tensor) are used for a model that does not carry them, and leave it as it is.

    Raises InvalidShape for masks of another model, without a whole channel, or over all channels of a group.

    >>> from torch.nn.utils import prune
    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> _ = prune.ln_structured(net[0], "weight", amount=3, n=2, dim=0)
    >>> host_from_masks(net, trace_model(net, torch.zeros(1, 3, 8, 8))).host_widths
    {'0': 5}
    """
    net = copy_without_masks(model).eval()
    switched = {**dict(masks_of(model)), **_named(masks or {}, net)}
    if not switched:
        raise InvalidShape(
            f"{type(model).__name__} carries no masks of torch.nn.utils.prune; mask channels with prune.ln_structured(..., "
            "dim=0), pass masks=, or use host_from_zeros where masks were removed already."
        )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in switched:
                parameter.mul_(switched[name].to(parameter))

    def is_off(name: str, side: str, module: Any) -> torch.Tensor | None:
        mask = switched.get(f"{name}.weight" if name else "weight")
        rows = None if mask is None else _rows(module, side, mask)
        return None if rows is None else rows.eq(0).all(1).cpu()

    host = host_of_switches(
        net, graph, is_off, word="masked", constants=constants, tolerance=SAME, importance=importance,
        example_inputs=example_inputs,
    )  # fmt: skip
    if host is None:
        raise InvalidShape(
            f"The masks of {type(model).__name__} switch off single weights but no whole channel, which makes no layer narrower; "
            "mask channels with prune.ln_structured(..., dim=0)."
        )
    finer = [name for name, mask in switched.items() if _within_channels(net, name, mask)]
    if finer:
        note = f"single weights are masked in {few(finer)}: within channels that stay they save no time"
        host = dataclasses.replace(host, warnings=(*host.warnings, note))
    return dataclasses.replace(host, method=f"masks, {host.method}")


def host_from_zeros(
    model: nn.Module,
    graph: ModelGraph,
    threshold: float = 0.0,
    *,
    constants: Constants = "keep",
    importance: str = "magnitude",
    example_inputs: Any = None,
) -> ChannelScores:
    """Which channels has sparse training already brought to zero?

    A filter (or column) is zero where its L2 norm is at most `threshold`, a norm's channel where its scale is. A channel
    is removed where zeros cut it off, as masks do in `host_from_masks`, and where nothing larger than `threshold` (1e-6 at
    least, for rounding) is passed on: behind a filter of zeros the norm's shift must be gone as well. Zero channels that
    still pass on a constant are kept, and `warnings` says how large it is (`constants="keep"`: a zero is an observation);
    with `constants="remove"` they go, constant and all.

    At threshold 0 and the host's widths the pruned network computes what this one computes. Removed channels score zero, the
    others by `importance`.

    Raises InvalidShape where nothing is zero (and names the smallest filter), or all channels of a group are.

    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> with torch.no_grad(): net[0].weight[[1, 5]] = 0
    >>> host_from_zeros(net, trace_model(net, torch.zeros(1, 3, 8, 8))).by_group["0"].host_kept
    (0, 2, 3, 4, 6, 7)
    """
    if not (math.isfinite(threshold) and threshold >= 0):
        raise InvalidShape(f"The threshold of zero must be finite and at least 0, got {threshold!r}.")
    net = copy_without_masks(model).eval()
    smallest: list[tuple[float, str]] = []

    def is_off(name: str, side: str, module: Any) -> torch.Tensor | None:
        rows = _rows(module, side, module.weight.detach()) if getattr(module, "weight", None) is not None else None
        if rows is None:
            return None
        norms = rows.double().norm(dim=1)
        smallest.append((float(norms.min()), name))
        return norms.le(threshold).cpu()

    host = host_of_switches(
        net, graph, is_off, word="zeroed", constants=constants, tolerance=max(threshold, SAME), importance=importance,
        example_inputs=example_inputs,
    )  # fmt: skip
    if host is None:
        value, layer = min(smallest)
        raise InvalidShape(
            f"No channel of {graph.model} is zero at threshold {threshold:g}: the smallest norm is {value:.3g}, in {layer}. "
            "Raise the threshold, or use a host that takes widths or scores."
        )
    return dataclasses.replace(host, method=f"zeros at {threshold:g}, {host.method}")


def _rows(module: Any, side: str, weight: torch.Tensor) -> torch.Tensor | None:
    """Weights as a row per channel of one side of a layer, depthwise filters and the scales of batch norms among them."""
    if isinstance(module, BatchNorm):
        return weight.reshape(-1, 1)
    if isinstance(module, Convolution) and 1 < module.groups == module.out_channels:
        return weight.flatten(1) if side == "out" else None
    return by_channel(module, side, weight) if isinstance(module, (Convolution, nn.Linear)) else None


def _within_channels(net: nn.Module, name: str, mask: torch.Tensor) -> bool:
    """Whether a mask switches off more than whole filters and whole columns."""
    module = net.get_submodule(name.rpartition(".")[0])
    off = torch.zeros_like(mask, dtype=torch.bool)
    for axis in range(min(2, mask.dim())) if isinstance(module, (Convolution, nn.Linear)) else (0,):
        whole = mask.movedim(axis, 0).flatten(1).eq(0).all(1) if mask.dim() > 1 else mask.eq(0)
        off |= whole.view([-1 if d == axis else 1 for d in range(mask.dim())])
    return bool((mask.eq(0) & ~off).any())


def _named(masks: Mapping[str, torch.Tensor], net: nn.Module) -> dict[str, torch.Tensor]:
    """Masks by parameter name, for a model that has these parameters in these shapes."""
    parameters = dict(net.named_parameters())
    found = {}
    for given, mask in masks.items():
        name = given.removesuffix("_mask")
        name = name if name in parameters else f"{name}.weight"
        if name not in parameters:
            close = get_close_matches(given.removesuffix("_mask"), parameters, 2)
            raise InvalidShape(
                f"These masks are of another model: {type(net).__name__} has no parameter {given.removesuffix('_mask')!r}; "
                + (f"did you mean {' or '.join(close)}?" if close else f"it has {few(list(parameters))}.")
            )
        if not isinstance(mask, torch.Tensor) or mask.shape != parameters[name].shape:
            got = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise InvalidShape(
                f"These masks are of another model: {given} is {got}, but {name} of {type(net).__name__} is {tuple(parameters[name].shape)}."
            )
        found[name] = mask
    return found
