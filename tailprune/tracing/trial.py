"""The proof of a trace: cut a twin unevenly, run it, and see whether every layer has the channels that were foretold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..core.graph import Layer
from .coupling import CoupledChannels
from .dependency import cut
from .layers import Style, describe
from .record import Interrupted, record
from .twin import Inputs, duplicate, one_line


def unfollowed(
    twin: nn.Module, inputs: Inputs, groups: Sequence[CoupledChannels], layers: Sequence[Layer | None],
    widths: Mapping[str, int], out_shapes: tuple[tuple[int, ...], ...], style: Style,
) -> dict[str, str]:  # fmt: skip
    """Group id -> why removing its channels fails, for those groups where it does.

    All groups are cut together, by one to seven offsets of each block, so that widths which must stay equal do not; only when that fails, those of them that touch the module where it failed, and where
    they are innocent halves of all, until each culprit stands alone.
    """

    lost = {group.id: _some_of(group, 1 + 5 * place % 7) for place, group in enumerate(groups)}

    def failure(chosen: Sequence[CoupledChannels]) -> tuple[str, str]:
        """(why, in which module) the twin without some channels of each of these groups is not as foretold."""
        smaller = {**widths, **{group.id: group.width - len(lost[group.id]) for group in chosen}}
        other, other_inputs = duplicate(twin, inputs)
        try:
            cut(other, [(group, lost[group.id]) for group in chosen])
            recording = record(other, other_inputs)
        except Interrupted as stop:
            return f"without some of its channels the model does not run ({one_line(stop.error)})", stop.module
        except Exception as error:  # whatever cutting raises on layers it was not written for
            return f"its channels cannot be taken out ({one_line(error)})", ""
        found = describe(recording, style)
        if [layer and layer.name for layer in layers] != [None if isinstance(s, str) else b.label for b, s in found]:
            return "what runs changes with its width", ""
        for layer, (block, shape) in zip(layers, found, strict=True):
            if layer is not None and shape != (foretold := layer.shape_at(smaller)):
                why = f"the width of {block.label} does not follow it ({shape}, expected {foretold})"
                return why, block.operation.module
        return "" if recording.out_shapes == out_shapes else "the network's output changes with it", ""

    def culprits(suspects: Sequence[CoupledChannels]) -> dict[str, str]:
        why, module = failure(suspects) if suspects else ("", "")
        if not why:
            return {}
        if len(suspects) == 1:
            return {suspects[0].id: why}
        near = [group for group in suspects if module and _touches(group, module)]
        if len(near) < len(suspects) and (guilty := culprits(near)):
            return {**guilty, **culprits([group for group in suspects if group.id not in guilty])}
        half = len(suspects) // 2
        return {**culprits(suspects[:half]), **culprits(suspects[half:])} or {group.id: why for group in suspects}

    found = culprits(groups)
    if found:  # those that pass in parts must pass together
        found |= culprits([group for group in groups if group.id not in found])
    return found


def _some_of(group: CoupledChannels, offsets: int) -> list[int]:
    """The first channels of each block: so many offsets, or as many as may leave."""
    block = group.width // group.granule
    offsets = min(offsets, (group.width - group.min_width) // group.granule)
    return [channel for i, channel in enumerate(group.channels) if i % block < offsets]


def _touches(group: CoupledChannels, module: str) -> bool:
    return any(member.module == module or member.module.startswith(f"{module}.") for member in group.members)
