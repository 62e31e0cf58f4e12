"""Which step edges differ between two tables: other GPUs, other cuDNN versions, yesterday and today?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..steps import LatencyCurve, Staircase, detect_steps
from ..tables import LatencyTable, MeasuredLine, measured_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeDifference:
    """Confirmed edges of one line. `only_a` are edges where the other table knows that there is none, and so is `only_b`;
    `unknown` are edges of either where the other measured too little to tell."""

    line: str
    both: tuple[int, ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    unknown: tuple[int, ...]

    @property
    def moved(self) -> bool:
        return bool(self.only_a or self.only_b)


def compare_edges(a: LatencyTable, b: LatencyTable) -> Iterator[EdgeDifference]:
    """Line by line, where both tables measured the line and either has a confirmed edge on it."""
    lines_a, lines_b = measured_lines(a), measured_lines(b)
    for key, line in lines_a.items():
        if key in lines_b:
            one, two = _staircase(line), _staircase(lines_b[key])
            edges_a, edges_b = set(one.confirmed_edges), set(two.confirmed_edges)
            found = {edge: _beside(edge, two) for edge in edges_a} | {
                edge: _beside(edge, one) for edge in edges_b - edges_a
            }
            if found:
                yield EdgeDifference(
                    line=str(line),
                    both=tuple(sorted(edge for edge, said in found.items() if said == "edge")),
                    only_a=tuple(sorted(edge for edge in edges_a if found[edge] == "none")),
                    only_b=tuple(sorted(edge for edge in edges_b - edges_a if found[edge] == "none")),
                    unknown=tuple(sorted(edge for edge, said in found.items() if said == "unknown")),
                )


def _staircase(line: MeasuredLine) -> Staircase:
    return detect_steps(LatencyCurve(widths=line.widths, latency_us=line.latency_us, noise_us=line.noise_us))


def _beside(edge: int, other: Staircase) -> str:
    """What the other table says of an edge's place: an edge as well (confirmed or in doubt), none, or unknown."""
    if edge in other.edge_widths[:-1]:
        return "edge"
    return "none" if other.covers(edge) and other.covers(edge + 1) else "unknown"
