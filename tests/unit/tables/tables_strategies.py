"""Hypothesis strategies and small builders for latency tables."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import DTYPES, EPILOGUE_OPS, MEMORY_FORMATS, OPS, LayerShape

ENVIRONMENT = Environment(device="NVIDIA H200", num_sms=132, runtime="cuda-graph", driver="550.1", torch="2.6.0")
CONV = LayerShape(
    op="conv", batch=4, in_channels=64, out_channels=64, in_hw=(14, 14), kernel_hw=(3, 3), padding_hw=(1, 1)
)
DEPTHWISE = dataclasses.replace(CONV, conv_groups=64)
POOL = LayerShape(op="max_pool", batch=4, in_channels=64, out_channels=64, in_hw=(14, 14), kernel_hw=(2, 2))


def out(width: int, shape: LayerShape = CONV) -> LayerShape:
    return shape.with_channels(out_channels=width)


def sample(shape: LayerShape, *times_us: float, **fields: object) -> LatencySample:
    return LatencySample(shape=shape, times_us=times_us or (10.0,), **fields)  # type: ignore[arg-type]


channels = st.integers(1, 4096)
pairs = st.tuples(st.integers(1, 9), st.integers(1, 9))
times = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)


@st.composite
def shapes(draw: st.DrawFn) -> LayerShape:
    op = draw(st.sampled_from(OPS))
    in_channels = draw(channels)
    keeps = op not in ("conv", "linear", "attention") or draw(st.booleans())
    try:
        return LayerShape(
            op=op,
            batch=draw(channels),
            in_channels=in_channels,
            out_channels=in_channels if keeps else draw(channels),
            in_hw=draw(st.tuples(st.integers(9, 300), st.integers(9, 300))),
            kernel_hw=draw(pairs),
            stride_hw=draw(pairs),
            padding_hw=draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
            conv_groups=in_channels if op == "conv" and keeps and draw(st.booleans()) else 1,
            dtype=draw(st.sampled_from(DTYPES)),
            memory_format=draw(st.sampled_from(MEMORY_FORMATS)),
            epilogue=tuple(draw(st.lists(st.sampled_from(EPILOGUE_OPS), max_size=4))),
        )
    except InvalidShape as error:  # a strategy that makes invalid shapes would test nothing
        raise AssertionError(error) from error


notes = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=30)


@st.composite
def samples(draw: st.DrawFn, shape: st.SearchStrategy[LayerShape] | None = None) -> LatencySample:
    failed = draw(st.sampled_from(((), (), (), ("out_of_memory",), ("refused",))))
    doubts = draw(st.lists(st.sampled_from(("unstable", "throttled", "noisy")), unique=True, max_size=2))
    return LatencySample(
        shape=draw(shapes() if shape is None else shape),
        times_us=() if failed else tuple(draw(st.lists(times, min_size=1, max_size=6))),
        warmups=draw(st.integers(0, 99)),
        utc=draw(st.sampled_from(("", "2025-01-02T03:04:05+00:00", "2025-06-07T08:09:10+00:00"))),
        flags=(*failed, *doubts),
        note=draw(notes),
    )
