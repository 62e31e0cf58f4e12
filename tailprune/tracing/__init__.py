"""What is in this model: its layers with their geometry, its channel groups, and what depends on which width."""

from .coupling import CoupledChannels, Member
from .dependency import ChannelDependency
from .fold import fold_norms
from .trace import trace_model

__all__ = ["ChannelDependency", "CoupledChannels", "Member", "fold_norms", "trace_model"]
