"""Do two staircases tell the same story? Edges of one looked for in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InvalidShape
from .staircase import Staircase


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeAgreement:
    """`found` of `expected` edges were found, and `true` of `claimed` claims are edges."""

    expected: int
    found: int
    claimed: int
    true: int

    @property
    def precision(self) -> float:
        return self.true / self.claimed if self.claimed else 1.0

    @property
    def recall(self) -> float:
        return self.found / self.expected if self.expected else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where neither side has an edge."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def edge_agreement(
    reference: Staircase, claim: Staircase, *, tolerance: int = 2, confirmed_only: bool = False
) -> EdgeAgreement:
    """Are the confirmed edges of one staircase edges of the other, in the same direction and at the same width?

    Edges are matched one to one, upward with upward, at most `tolerance` channels apart. A confirmed edge also counts
    as found where the other side calls it ambiguous, unless `confirmed_only`.
    """
    if tolerance < 0:
        raise InvalidShape(f"tolerance is a number of channels and must be at least 0, got {tolerance}.")
    expected = claimed = found = true = 0
    for up in (True, False):
        sure_a, sure_b = _edges(reference, up, True), _edges(claim, up, True)
        any_a, any_b = _edges(reference, up, confirmed_only), _edges(claim, up, confirmed_only)
        expected, claimed = expected + len(sure_a), claimed + len(sure_b)
        found += _matches(sure_a, any_b, tolerance)
        true += _matches(sure_b, any_a, tolerance)
    return EdgeAgreement(expected=expected, found=found, claimed=claimed, true=true)


def _edges(staircase: Staircase, up: bool, confirmed_only: bool) -> list[int]:
    return [
        edge.high
        for edge in staircase.edges
        if (edge.riser > 0) == up and (edge.verdict == "confirmed" or not confirmed_only)
    ]


def _matches(edges: Sequence[int], others: Sequence[int], tolerance: int) -> int:
    """Largest one-to-one matching of two ascending lists within the tolerance: first come, first served."""
    i = j = count = 0
    while i < len(edges) and j < len(others):
        if abs(edges[i] - others[j]) <= tolerance:
            i, j, count = i + 1, j + 1, count + 1
        elif edges[i] < others[j]:
            i += 1
        else:
            j += 1
    return count
