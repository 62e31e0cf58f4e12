"""How does the network become what the plan says, and is it that? Taking over an existing pipeline's choice, scoring
channels, applying a plan, proving the result equal to the dense network without those channels, keeping it, and handing it on."""

from .apply import apply_plan
from .checkpoint import load_pruned, save_pruned
from .export import export_onnx, export_pt2
from .grow import confirmed_growth, grow_model
from .importance import score_channels
from .pipelines import check_ratio, host_from_scores, host_from_widths
from .prune import prune_model
from .verify import Verification, verify_pruned
from .widen import growable_groups, widen_model
from .wrap import TailAwarePruner
from .zeros import host_from_masks, host_from_zeros

__all__ = [
    "TailAwarePruner",
    "Verification",
    "apply_plan",
    "check_ratio",
    "confirmed_growth",
    "export_onnx",
    "export_pt2",
    "grow_model",
    "growable_groups",
    "host_from_masks",
    "host_from_scores",
    "host_from_widths",
    "host_from_zeros",
    "load_pruned",
    "prune_model",
    "save_pruned",
    "score_channels",
    "verify_pruned",
    "widen_model",
]
