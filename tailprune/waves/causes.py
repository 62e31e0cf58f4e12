"""Why does a group's staircase jump? Each edge by the layer that jumps most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..core.graph import ModelGraph
from ..core.protocols import LatencySource
from .explain import StepExplanation, explain_step
from .model import WaveModel


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCause:
    """One edge of a group: behind `width` its layers jump from `below_us` to `above_us`; `layer` has the largest part in it."""

    width: int
    below_us: float
    above_us: float
    layer: str
    explanation: StepExplanation

    def __str__(self) -> str:
        return f"behind {self.width}: {self.above_us / self.below_us - 1:+.1%}, {self.layer}: {self.explanation}"


def edge_causes(
    model: WaveModel,
    graph: ModelGraph,
    group_id: str,
    edges: Iterable[tuple[int, int]],
    source: LatencySource,
    *,
    at: Mapping[str, int] | None = None,
) -> list[EdgeCause]:
    """The cause of each (last width of a plateau, first width behind it), as `explain_step` sees it.

    `source` says what the layers cost on both sides; `at` fixes widths of other groups (default: dense).
    """
    widths = graph.check_widths(at or {})
    found = []
    for below, above in edges:
        jumps = []
        for layer in graph.layers_of(group_id):
            shapes = [layer.shape_at(widths | {group_id: width}) for width in (below, above)]
            us = [layer.calls * source.latency_us(shape) for shape in shapes]
            jumps.append((us[1] - us[0], us, layer.name, shapes))
        total = [sum(us[side] for _, us, _, _ in jumps) for side in (0, 1)]
        direction = 1 if total[1] >= total[0] else -1
        _, us, name, shapes = max(jumps, key=lambda jump: direction * jump[0])
        explanation = explain_step(model, *shapes, measured_us=None if source is model else (us[0], us[1]))
        found.append(EdgeCause(width=below, below_us=total[0], above_us=total[1], layer=name, explanation=explanation))
    return found


def cause_lines(causes: Iterable[EdgeCause]) -> list[str]:
    """One line an edge; edges of alignment, which come by the dozen, share one."""
    lines, aligned = [], []
    for cause in causes:
        if cause.explanation.cause == "alignment":
            aligned.append(cause)
        else:
            lines.append(str(cause))
    if len(aligned) <= 2:
        return lines + [str(cause) for cause in aligned]
    sizes = sorted(abs(cause.above_us / cause.below_us - 1) for cause in aligned)
    widths = f"{aligned[0].width} to {aligned[-1].width}"
    return [*lines, f"alignment: {len(aligned)} edges behind widths {widths}, of {sizes[0]:.1%} to {sizes[-1]:.1%}"]
