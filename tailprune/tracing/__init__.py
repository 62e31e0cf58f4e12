"""What is in this model: its layers with their geometry, its channel groups, and what depends on which width."""

from .dependency import ChannelDependency, CoupledChannels, Member
from .trace import trace_model

__all__ = ["ChannelDependency", "CoupledChannels", "Member", "trace_model"]
