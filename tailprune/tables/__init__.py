"""What does a layer cost on this device, and is that still true? Latency tables: kept on disk, transactional, one
environment each, every raw time kept; never a guess between two measurements."""

from .held import HeldPlateau
from .table import LatencyTable

__all__ = ["HeldPlateau", "LatencyTable"]
