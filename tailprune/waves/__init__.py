"""What should a width cost, and why does latency jump there? An analytic model of tiles and waves, for GPUs not at hand.

It estimates (kind "modelled"), proposes where to measure, explains steps, and stands in for a device in tests; what a device
really does is for a table of measurements to say.
"""

from .devices import known_devices, load_device
from .efficiency import Efficiency, default_efficiency
from .explain import StepExplanation, explain_step
from .model import WaveModel
from .occupancy import blocks_per_sm
from .quantize import WaveProfile, quantize, widest_in_waves
from .simulate import SimulatedTimer
from .tiles import Tile, tile_menu

__all__ = [
    "Efficiency",
    "SimulatedTimer",
    "StepExplanation",
    "Tile",
    "WaveModel",
    "WaveProfile",
    "blocks_per_sm",
    "default_efficiency",
    "explain_step",
    "known_devices",
    "load_device",
    "quantize",
    "tile_menu",
    "widest_in_waves",
]
