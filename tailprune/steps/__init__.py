"""Staircases from curves: which widths are step edges of a latency curve, how certain is each, and which widths does
a larger width make pointless?"""

from __future__ import annotations

from .agreement import EdgeAgreement, edge_agreement
from .curve import LatencyCurve
from .detect import detect_steps
from .dominance import dominated_widths, undominated_widths
from .groups import group_curve, summed_curve
from .noise import point_noise_us
from .staircase import EdgeVerdict, Plateau, Staircase

__all__ = [
    "EdgeAgreement",
    "EdgeVerdict",
    "LatencyCurve",
    "Plateau",
    "Staircase",
    "detect_steps",
    "dominated_widths",
    "edge_agreement",
    "group_curve",
    "point_noise_us",
    "summed_curve",
    "undominated_widths",
]
