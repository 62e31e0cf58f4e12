"""What shares of its datasheet does this device sustain, by a handful of timings?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.shapes import LayerShape
from .efficiency import Efficiency, is_recorded
from .model import WaveModel

#: Fewer timings than this cannot tell the seven shares apart, even with the architecture's defaults to lean on.
LEAST_POINTS = 8
#: How far, as a factor, a share may plausibly lie from the architecture's default: a prior that 24 timings can outvote where
#: they know better. Overhead differs most between runtimes (2 us bare, 15 us in TensorRT), peak least.
PRIOR_FACTOR = {"compute": 1.3, "bandwidth": 1.3, "overhead_us": 3.0, "slice_us": 1.6, "split_us": 1.6, "l2_speedup": 1.4, "l2_share": 2.0}  # fmt: skip
#: On an architecture with recordings the defaults of the card itself are worth more: their factors shrink to this power. Overhead
#: belongs to the runtime, not to the card, and keeps its own.
RECORDED = 0.5
#: What a share of one timing is worth: the model misses by about this much where its shares are right.
MODEL_ERROR = 0.12
#: Timings of one shape that differ by more than this factor contradict each other.
CONTRADICTION = 2.0
#: A timing this many times off what all the others agree on is a mistake; off by this much in general, the unit is.
OUTLIER, WRONG_UNIT = 8.0, 30.0
ROUNDS = 30

#: Widths, tokens and depth between them meet every term of the model: overhead, slice latency, split-K, bandwidth, L2, peak.
_PRODUCTS = ((1, 1024, 1024), (1, 8192, 8192), (8, 256, 8192), (16, 4096, 512), (64, 64, 64), (64, 2048, 2048), (64, 8192, 1024),
             (256, 128, 4096), (256, 1024, 256), (512, 3072, 768), (1024, 1024, 1024), (2048, 512, 4096), (4096, 4096, 4096),
             (8192, 256, 256), (8192, 2048, 8192), (16384, 1024, 64))  # fmt: skip
_CONVOLUTIONS = ((1, 256, 256, 14, 3), (8, 64, 64, 56, 3), (8, 512, 512, 7, 3), (8, 256, 1024, 14, 1), (32, 128, 128, 28, 3),
                 (32, 256, 64, 56, 1), (32, 3, 64, 112, 7), (64, 256, 256, 14, 3))  # fmt: skip


def calibration_shapes(dtype: str) -> tuple[LayerShape, ...]:
    """The 24 layers worth timing: 16 linear layers and 8 convolutions, from one launch to a full device.

    >>> len(calibration_shapes("float16"))
    24
    """
    linear = (LayerShape(op="linear", batch=m, in_channels=k, out_channels=n, dtype=dtype) for m, n, k in _PRODUCTS)
    conv = (
        LayerShape(op="conv", batch=batch, in_channels=ins, out_channels=outs, in_hw=(side, side), kernel_hw=(kernel, kernel),
                   padding_hw=(kernel // 2, kernel // 2), dtype=dtype, epilogue=("bias", "relu"))
        for batch, ins, outs, side, kernel in _CONVOLUTIONS
    )  # fmt: skip
    return (*linear, *conv)


def calibrate(
    device: DeviceSpec, timings: Iterable[tuple[LayerShape, float]], *, fused: bool = True, origin: str = ""
) -> dict[str, Efficiency]:
    """Shares of the datasheet per dtype, from (layer, microseconds) pairs measured on the device.

    For each dtype the shares s minimise, by damped Gauss-Newton steps in log s,

        sum over timings of rho(log(modelled / measured) / e)  +  sum over shares of (log(s / default) / log f)^2

    with rho Huber's loss (a timing that is off pulls no more than one that misses by e), e the model's own error and f the prior factor of
    each share, so few timings correct the defaults and many replace them. Raises InvalidShape for fewer than 8 timings of a dtype, for
    timings of one shape that contradict each other, for one that nothing explains, and for a wrong unit; each names the shape.
    """
    by_dtype: dict[str, list[tuple[LayerShape, float]]] = {}
    for shape, us in timings:
        if not (math.isfinite(us) and us > 0):
            raise InvalidShape(f"A timing must be positive and finite, got {us!r} us for {shape}.")
        by_dtype.setdefault(shape.dtype, []).append((shape, us))
    if not by_dtype:
        raise InvalidShape(
            f"A calibration needs at least {LEAST_POINTS} timings of a dtype, got none; time `calibration_shapes`."
        )
    return {dtype: _fit(device, dtype, points, fused, origin) for dtype, points in by_dtype.items()}


def _fit(
    device: DeviceSpec, dtype: str, points: Sequence[tuple[LayerShape, float]], fused: bool, origin: str
) -> Efficiency:
    start = WaveModel(device, fused=fused).efficiency(dtype)
    shapes, measured = _united(points, device, dtype)
    names = tuple(PRIOR_FACTOR)
    prior = np.array([getattr(start, name) for name in names])
    trust = RECORDED if is_recorded(device) else 1.0
    width = np.log([PRIOR_FACTOR[name] for name in names]) * [1.0 if name == "overhead_us" else trust for name in names]

    def shares(x: np.ndarray) -> Efficiency:
        found = dict(zip(names, (prior * np.exp(x * width)).tolist(), strict=True))
        found["l2_speedup"] = max(found["l2_speedup"], 1.0)
        return dataclasses.replace(start, origin=origin or f"calibrated on {len(shapes)} timings", **found)

    def misses(x: np.ndarray) -> np.ndarray:
        model = WaveModel(device, efficiency=shares(x), fused=fused)
        return np.log(np.array([model.latency_us(shape) for shape in shapes]) / measured)

    x = np.zeros(len(names))
    first = misses(x)
    off = math.exp(float(np.median(np.abs(first))))
    if off > WRONG_UNIT:
        raise InvalidShape(
            f"The {dtype} timings are off what {device.name} can do by a factor of {off:,.0f} in the median; check their "
            "unit (microseconds) and the device's name."
        )
    x = _minimise(misses, x, first)
    last = misses(x)
    worst = int(np.argmax(np.abs(last)))
    if abs(last[worst]) > math.log(OUTLIER):
        raise InvalidShape(
            f"The timing of {shapes[worst]}, {measured[worst]:,.1f} us, contradicts the other {len(shapes) - 1}, by which it takes "
            f"{measured[worst] * math.exp(last[worst]):,.1f} us; time it again or leave it out."
        )
    # The shares were fitted to these very timings, so others fit less well: by sqrt((n + p) / (n - p)) for p parameters (Akaike 1969).
    optimism = math.sqrt((len(shapes) + len(names)) / (len(shapes) - len(names)))
    spread = math.exp(optimism * float(np.quantile(np.abs(last), 0.8)))
    return dataclasses.replace(shares(x), spread=spread)


def _united(
    points: Sequence[tuple[LayerShape, float]], device: DeviceSpec, dtype: str
) -> tuple[list[LayerShape], np.ndarray]:
    """Each shape once, at the geometric mean of its timings."""
    by_shape: dict[LayerShape, list[float]] = {}
    for shape, us in points:
        by_shape.setdefault(shape, []).append(us)
    if len(by_shape) < LEAST_POINTS:
        raise InvalidShape(
            f"A calibration of {dtype} on {device.name} needs at least {LEAST_POINTS} different shapes, got {len(by_shape)}; "
            "time `calibration_shapes`."
        )
    for shape, times in by_shape.items():
        if max(times) > CONTRADICTION * min(times):
            raise InvalidShape(
                f"The timings of {shape} contradict each other: {min(times):,.1f} and {max(times):,.1f} us; keep one of them."
            )
    return list(by_shape), np.array([math.exp(float(np.mean(np.log(times)))) for times in by_shape.values()])


def _minimise(misses, x: np.ndarray, residual: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Damped Gauss-Newton on the Huber loss of the misses plus the squares of x."""

    def loss(residual: np.ndarray, x: np.ndarray) -> float:
        z = np.abs(residual) / MODEL_ERROR
        return float(np.where(z < 1, z * z, 2 * z - 1).sum() + x @ x)

    damping, best = 0.1, loss(residual, x)
    for _ in range(ROUNDS):
        slope = np.stack([(misses(x + step) - residual) / step.max() for step in np.eye(len(x)) * 0.02], axis=1)
        weight = 1 / np.maximum(np.abs(residual), MODEL_ERROR) / MODEL_ERROR
        matrix = slope.T @ (weight[:, None] * slope) + np.eye(len(x))
        gradient = slope.T @ (weight * residual) + x
        while damping < 1e6:
            moved = x - np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), gradient)
            there = misses(moved)
            if (reached := loss(there, moved)) < best:
                break
            damping *= 4
        else:
            return x
        gained, x, residual, best, damping = best - reached, moved, there, reached, damping / 4
        if gained < 1e-4 * best:
            return x
    return x
