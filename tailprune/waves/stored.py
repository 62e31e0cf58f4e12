"""A calibrated device on disk: which shares of its datasheet a card sustains, per dtype, and from which timings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from ..core.artifact import read_artifact, write_artifact
from ..core.errors import FormatError, InvalidShape
from .devices import load_device
from .efficiency import Efficiency
from .model import WaveModel

FORMAT, VERSION = "tailprune-calibration", 1


def save_calibration(
    path: str | os.PathLike[str], device: str, efficiency: Mapping[str, Efficiency], *, source: str
) -> None:
    """Write what `calibrate` found for a known device; `source` says where the timings came from."""
    shares = {dtype: dataclasses.asdict(found) for dtype, found in efficiency.items()}
    body = {"device": load_device(device).name, "source": source, "efficiency": shares}
    write_artifact(path, format=FORMAT, version=VERSION, body=body)


def wave_model(device: str | os.PathLike[str], *, fused: bool = True) -> WaveModel:
    """The wave model of a known GPU, or of the one that a calibration file was written for.

    >>> from tailprune.waves import wave_model
    >>> wave_model("h200").device.name
    'H200 SXM'
    """
    if not str(device).endswith(".json"):
        return WaveModel(load_device(str(device)), fused=fused)
    body = read_artifact(Path(device), format=FORMAT, version=VERSION)
    try:
        efficiency = {dtype: Efficiency(**shares) for dtype, shares in body["efficiency"].items()}
        spec = load_device(body["device"])
    except (KeyError, TypeError, AttributeError, InvalidShape) as error:
        raise FormatError(f"{device} is a damaged calibration ({error}); run `tailprune calibrate` again.") from error
    return WaveModel(spec, efficiency=efficiency, fused=fused)
