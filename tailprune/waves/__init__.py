"""What should a width cost, and why does latency jump there? An analytic model of tiles and waves, for GPUs not at hand.

It estimates (kind "modelled"), proposes where to measure, explains steps, and stands in for a device in tests; what a device
really does is for a table of measurements to say.
"""

from .calibrate import calibrate, calibration_shapes
from .causes import EdgeCause, cause_lines, edge_causes
from .devices import known_devices, load_device
from .efficiency import Efficiency, default_efficiency, is_recorded
from .explain import KernelGrid, StepExplanation, explain_step
from .hybrid import AnchoredModel
from .model import WaveModel
from .occupancy import blocks_per_sm
from .quantize import WaveProfile, quantize, widest_in_waves
from .simulate import SimulatedTimer
from .stored import save_calibration, wave_model
from .tiles import Tile, tile_menu
from .timings import read_timings

__all__ = [
    "AnchoredModel",
    "EdgeCause",
    "Efficiency",
    "KernelGrid",
    "SimulatedTimer",
    "StepExplanation",
    "Tile",
    "WaveModel",
    "WaveProfile",
    "blocks_per_sm",
    "calibrate",
    "calibration_shapes",
    "cause_lines",
    "default_efficiency",
    "edge_causes",
    "explain_step",
    "is_recorded",
    "known_devices",
    "load_device",
    "quantize",
    "read_timings",
    "save_calibration",
    "tile_menu",
    "wave_model",
    "widest_in_waves",
]
