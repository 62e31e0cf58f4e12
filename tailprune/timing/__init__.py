"""How long does it take? Deployed blocks and whole models, timed on the device at hand, under one protocol.

Every reading is kept, every setting that matters is part of the environment, and what did not settle says so.
"""

from .blocks import Block, build_block
from .device_timer import DeviceTimer
from .residuals import LayerResidual, ModelCheck, check_model
from .stopping import StoppingRule, median_interval
from .whole_model import ModelTimings, Verdict, measure_model

__all__ = [
    "Block",
    "DeviceTimer",
    "LayerResidual",
    "ModelCheck",
    "ModelTimings",
    "StoppingRule",
    "Verdict",
    "build_block",
    "check_model",
    "measure_model",
    "median_interval",
]
