"""From blocks to layers: which channel groups decide the two widths of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..core.graph import Layer, WidthExpr
from ..core.shapes import LayerShape
from .blocks import Block, form_blocks
from .dependency import ChannelDependency
from .geometry import shape_of
from .record import Recording

#: Modules that keep their channels: the group they belong to says how many.
_NORMS = ("batch_norm", "layer_norm", "group_norm")


@dataclass(frozen=True, kw_only=True)
class Style:
    """What all layers of one call share."""

    dtype: str
    memory_format: str


@dataclass(frozen=True, kw_only=True)
class Calls:
    """One entry per deployed block in running order: its layer, or None and a gap that says why it has no shape."""

    layers: tuple[Layer | None, ...]
    gaps: dict[str, str]


def describe(recording: Recording, style: Style) -> list[tuple[Block, LayerShape | str]]:
    blocks = form_blocks(recording)
    return [(block, shape_of(block, dtype=style.dtype, memory_format=style.memory_format)) for block in blocks]


def layers_of(recording: Recording, dependency: ChannelDependency, style: Style) -> Calls:
    """Every block with its width expressions.

    For weights they come from the coupled channels: a group whose channels each have t indices in a module counts t
    times there, and what no group accounts for is constant. Pools and elementwise blocks have the widths of their sources.
    """
    times: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for group in dependency.groups:
        for member in group.members:
            times.setdefault((member.module, member.side), []).append((group.id, len(member.indices) // group.width))

    def linear_form(module: str, side: str, channels: int) -> WidthExpr:
        terms = tuple((g, t) for g, t in times.get((module, side), ()) if t)
        sound = tuple((g, t) for g, t in terms if not dependency.group(g).reason)
        for told in (
            terms,
            sound,
        ):  # groups that cannot be followed may claim channels of others; they are constant anyway
            rest = channels - sum(t * dependency.group(g).width for g, t in told)
            if rest >= 0:
                return WidthExpr(terms=told, constant=rest)
        return WidthExpr(constant=channels)

    layers: list[Layer | None] = []
    outs: list[WidthExpr] = []
    gaps: dict[str, str] = {}
    for block, shape in describe(recording, style):
        module = block.operation.module
        if block.kind in ("conv", "conv_transpose", "linear", "attention"):
            out_expr = in_expr = linear_form(module, "out", block.channels)
            followed = any((module, side) in times for side in ("in", "out"))
            if isinstance(shape, LayerShape) and not shape.depthwise and block.kind != "attention":
                in_expr = linear_form(module, "in", shape.in_channels)
            if not followed:
                gaps[module] = "its channels cannot be followed; it is timed at its present widths"
        elif block.kind in _NORMS and (module, "out") in times:
            out_expr = in_expr = linear_form(module, "out", block.channels)
        else:
            out_expr = in_expr = _sum((outs[source] for source in block.sources), block.extra, block.channels)
        outs.append(out_expr)
        if isinstance(shape, str):
            gaps[block.label] = shape
            layers.append(None)
        else:
            layers.append(Layer(name=block.label, shape=shape, in_expr=in_expr, out_expr=out_expr, norm=block.norm))
    return Calls(layers=tuple(layers), gaps=gaps)


def merge_calls(layers: Sequence[Layer | None]) -> tuple[Layer, ...]:
    """Layers under unique names; what runs several times in one shape is one layer with as many calls."""
    merged: dict[Layer, int] = {}
    for layer in layers:
        if layer is not None:
            merged[layer] = merged.get(layer, 0) + 1
    names: dict[str, int] = {}
    unique = []
    for layer, calls in merged.items():
        seen = names[layer.name] = names.get(layer.name, 0) + 1
        unique.append(replace(layer, calls=calls, name=layer.name if seen == 1 else f"{layer.name}:{seen}"))
    return tuple(unique)


def _sum(expressions: Iterable[WidthExpr], extra: int, channels: int) -> WidthExpr:
    terms: dict[str, int] = {}
    constant = extra
    for expression in expressions:
        constant += expression.constant
        for group, times in expression.terms:
            terms[group] = terms.get(group, 0) + times
    return WidthExpr(terms=tuple(terms.items()), constant=constant) if terms else WidthExpr(constant=channels)
