"""Staircases from curves: which widths are step edges of a latency curve, how certain is each, and which widths does
a larger width make pointless?"""

from __future__ import annotations

from .curve import LatencyCurve
from .detect import detect_steps
from .groups import group_curve
from .staircase import EdgeVerdict, Plateau, Staircase

__all__ = ["EdgeVerdict", "LatencyCurve", "Plateau", "Staircase", "detect_steps", "group_curve"]
