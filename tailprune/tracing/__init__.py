"""What is in this model: its layers with their geometry, its channel groups, and what depends on which width."""

from .coupling import CoupledChannels, Member
from .dependency import ChannelDependency
from .fold import fold_norms
from .masks import copy_without_masks, masks_of
from .trace import trace_model
from .widths import read_widths

__all__ = [
    "ChannelDependency",
    "CoupledChannels",
    "Member",
    "copy_without_masks",
    "fold_norms",
    "masks_of",
    "read_widths",
    "trace_model",
]
