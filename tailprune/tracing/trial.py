"""The proof of a trace: cut a twin, run it, and see whether every layer has the channels that were foretold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..core.graph import Layer
from .coupling import CoupledChannels
from .dependency import cut
from .layers import Style, describe
from .record import record
from .twin import Inputs, duplicate, one_line


def unfollowed(
    twin: nn.Module, inputs: Inputs, groups: Sequence[CoupledChannels], layers: Sequence[Layer | None],
    widths: Mapping[str, int], out_shapes: tuple[tuple[int, ...], ...], style: Style,
) -> dict[str, str]:  # fmt: skip
    """Group id -> why removing its channels fails, for those groups where it does.

    All groups are cut together; only when that fails, halves of them, until each culprit stands alone.
    """

    def failure(chosen: Sequence[CoupledChannels]) -> str:
        """Empty if the twin without the first channel of each block of these groups is as foretold."""
        smaller = {**widths, **{group.id: group.width - group.granule for group in chosen}}
        other, other_inputs = duplicate(twin, inputs)
        try:
            cut(other, [(group, group.channels[:: group.width // group.granule]) for group in chosen])
            recording = record(other, other_inputs)
        except Exception as error:  # whatever the model's own forward raises at widths it was not written for
            return f"without some of its channels the model does not run ({one_line(error)})"
        found = describe(recording, style)
        if [layer and layer.name for layer in layers] != [None if isinstance(s, str) else b.label for b, s in found]:
            return "what runs changes with its width"
        for layer, (block, shape) in zip(layers, found, strict=True):
            if layer is not None and shape != (foretold := layer.shape_at(smaller)):
                return f"the width of {block.label} does not follow it ({shape}, expected {foretold})"
        return "" if recording.out_shapes == out_shapes else "the network's output changes with it"

    def culprits(suspects: Sequence[CoupledChannels]) -> dict[str, str]:
        why = failure(suspects) if suspects else ""
        if not why:
            return {}
        if len(suspects) == 1:
            return {suspects[0].id: why}
        half = len(suspects) // 2
        return {**culprits(suspects[:half]), **culprits(suspects[half:])} or {group.id: why for group in suspects}

    found = culprits(groups)
    if found:  # those that pass in parts must pass together
        found |= culprits([group for group in groups if group.id not in found])
    return found
