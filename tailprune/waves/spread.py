"""How far off may an estimate be?"""

from __future__ import annotations

from typing import Literal

from ..core.shapes import LayerShape

Known = Literal["calibrated", "recorded", "borrowed"]

#: 80th percentile of |log(modelled / measured)| as a factor, worst of the cards in `benchmarks/waves.csv`, test rows only: calibrated on 24
#: rows; with the shipped shares; with the shares of another architecture. Shipped shares know no runtime: TensorRT's 14 us a launch and a
#: framework's 40 us are why recorded convolutions miss by so much. Ops without a recording stand as convolutions.
_FACTOR: dict[Known, dict[str, float]] = {
    "calibrated": {"product": 1.35, "conv": 1.45},
    "recorded": {"product": 1.60, "conv": 1.80},
    "borrowed": {"product": 2.00, "conv": 2.30},
}


def estimate_spread(shape: LayerShape, known: Known) -> float:
    """The factor for a shape, given what stands behind the device's shares."""
    return _FACTOR[known]["product" if shape.op in ("linear", "attention") else "conv"]
