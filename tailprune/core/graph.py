"""What a network looks like to a planner: layers whose latency depends on the widths of channel groups."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .errors import InvalidShape
from .shapes import LayerShape


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthExpr:
    """A channel count as a linear form in group widths: sum of times x width, plus a constant.

    One term with times 1 is the common case; concatenation has a term per source, flatten multiplies by the pixels,
    an image is the constant 3.
    """

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    def at(self, widths: Mapping[str, int]) -> int:
        return self.constant + sum(times * widths[group] for group, times in self.terms)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(group for group, _ in self.terms)

    def __str__(self) -> str:
        parts = [group if times == 1 else f"{times} x {group}" for group, times in self.terms]
        return " + ".join(parts + ([str(self.constant)] if self.constant or not parts else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One deployed block of a network. `shape` is at the traced widths; `norm` names the batch norm folded into it."""

    name: str
    shape: LayerShape
    in_expr: WidthExpr
    out_expr: WidthExpr
    norm: str | None = None
    calls: int = 1  # a module run twice in one forward costs twice

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups this layer's latency depends on, each once."""
        return tuple(dict.fromkeys(self.in_expr.groups + self.out_expr.groups))

    def shape_at(self, widths: Mapping[str, int]) -> LayerShape:
        return self.shape.with_channels(in_channels=self.in_expr.at(widths), out_channels=self.out_expr.at(widths))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that must be removed together: one width, shared by every producer and consumer named here."""

    id: str
    width: int
    granule: int = 1
    min_width: int = 1
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    prunable: bool = True
    reason: str = ""  # why it is not prunable

    def __post_init__(self) -> None:
        if self.width < 1 or self.granule < 1 or self.width % self.granule:
            raise InvalidShape(
                f"Group {self.id}: width {self.width} must be a positive multiple of its granule {self.granule}."
            )
        if not 0 < self.min_width <= self.width:
            raise InvalidShape(f"Group {self.id}: min_width {self.min_width} must lie in 1..{self.width}.")

    @property
    def grid(self) -> range:
        """Every width this group may take when pruned: multiples of the granule from min_width to width."""
        return range(-(-self.min_width // self.granule) * self.granule, self.width + 1, self.granule)


@dataclass(frozen=True, kw_only=True)
class ModelGraph:
    """Layers, channel groups and how they hang together; all a planner ever sees of a model."""

    model: str
    layers: tuple[Layer, ...]
    groups: tuple[ChannelGroup, ...]
    input_shape: tuple[int, ...]
    dtype: str = "float32"
    memory_format: str = "channels_last"
    untraced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        known = {group.id for group in self.groups}
        if len(known) != len(self.groups) or len({layer.name for layer in self.layers}) != len(self.layers):
            raise InvalidShape(f"{self.model}: group ids and layer names must be unique.")
        for layer in self.layers:
            missing = [g for g in layer.groups if g not in known]
            if missing:
                raise InvalidShape(f"{self.model}: layer {layer.name} refers to the unknown group {missing[0]!r}.")
            if layer.shape_at(self.widths) != layer.shape:
                raise InvalidShape(
                    f"{self.model}: layer {layer.name} is {layer.shape} but its widths give {layer.shape_at(self.widths)}."
                )

    @cached_property
    def widths(self) -> dict[str, int]:
        return {group.id: group.width for group in self.groups}

    @cached_property
    def _by_id(self) -> dict[str, ChannelGroup]:
        return {group.id: group for group in self.groups}

    @cached_property
    def _layers_by_group(self) -> dict[str, tuple[Layer, ...]]:
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for group_id in layer.groups:
                found.setdefault(group_id, []).append(layer)
        return {group_id: tuple(layers) for group_id, layers in found.items()}

    def group(self, group_id: str) -> ChannelGroup:
        if group_id not in self._by_id:
            raise InvalidShape(
                f"{self.model} has no channel group {group_id!r}; it has {', '.join(sorted(self._by_id)[:5])} and others."
            )
        return self._by_id[group_id]

    @property
    def prunable_groups(self) -> tuple[ChannelGroup, ...]:
        return tuple(group for group in self.groups if group.prunable)

    def at_batch(self, batch: int, *, dtype: str | None = None, memory_format: str | None = None) -> ModelGraph:
        """The same network run at another batch size, dtype or layout: tracing once, cheaply, serves them all."""
        traced = self.input_shape[0]
        layers = []
        for layer in self.layers:
            if layer.shape.batch * batch % traced:
                raise InvalidShape(
                    f"{self.model}: {layer.name} ran at batch {layer.shape.batch}, which does not scale from "
                    f"{traced} to {batch}. Trace the model at batch {batch} instead."
                )
            changes: dict[str, object] = {"batch": layer.shape.batch * batch // traced}
            changes |= {"dtype": dtype} if dtype else {}
            changes |= {"memory_format": memory_format} if memory_format else {}
            layers.append(dataclasses.replace(layer, shape=dataclasses.replace(layer.shape, **changes)))  # type: ignore[arg-type]
        return dataclasses.replace(
            self,
            layers=tuple(layers),
            input_shape=(batch, *self.input_shape[1:]),
            dtype=dtype or self.dtype,
            memory_format=memory_format or self.memory_format,
        )

    def layers_of(self, group_id: str) -> tuple[Layer, ...]:
        """Layers whose latency depends on this group's width."""
        return self._layers_by_group.get(group_id, ())

    def check_widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """All widths, the given ones replaced; refuses unknown groups and widths off the granule."""
        for group_id, width in widths.items():
            group = self.group(group_id)
            if width < 1 or width % group.granule:
                raise InvalidShape(
                    f"Group {group_id} cannot have width {width}: it must be a positive multiple of its granule {group.granule}."
                )
        return {**self.widths, **widths}

    def shapes_at(self, widths: Mapping[str, int] | None = None) -> Iterator[tuple[Layer, LayerShape]]:
        """Each layer with its shape at these widths (default: as traced)."""
        full = self.widths if widths is None else {**self.widths, **widths}
        for layer in self.layers:
            yield layer, layer.shape_at(full)

    def macs_at(self, widths: Mapping[str, int] | None = None) -> int:
        return sum(layer.calls * shape.macs for layer, shape in self.shapes_at(widths))

    def num_parameters_at(self, widths: Mapping[str, int] | None = None) -> int:
        return sum(shape.num_parameters for _, shape in self.shapes_at(widths))

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of structure and widths: equal for equal networks, whatever their weights and batch size."""
        layers = [
            [
                la.name,
                la.shape.op,
                la.shape.in_channels,
                la.shape.out_channels,
                la.shape.kernel_hw,
                la.shape.conv_groups,
                str(la.in_expr),
                str(la.out_expr),
            ]
            for la in self.layers
        ]
        groups = [[g.id, g.width, g.granule] for g in self.groups]
        return hashlib.sha256(json.dumps([layers, groups]).encode()).hexdigest()[:16]
