"""What to measure next: which shapes of a network tell where its steps are, so that a table of a small part of the
grid is enough to plan with."""

from __future__ import annotations

from .cells import CellProposals, propose_cells
from .chosen import measure_chosen, plan_shapes
from .fill import fill_table
from .lacking import Progress, measure_missing, measure_while
from .lines import group_line
from .modelled import ModelledEdges
from .report import FillReport
from .shards import launched_shard, shard_of

__all__ = [
    "CellProposals",
    "FillReport",
    "ModelledEdges",
    "Progress",
    "fill_table",
    "group_line",
    "launched_shard",
    "measure_chosen",
    "measure_missing",
    "measure_while",
    "plan_shapes",
    "propose_cells",
    "shard_of",
]
