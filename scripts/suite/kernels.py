"""Which kernel ran below and above a step, and what that says about the step's cause. Evidence only, no model."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tailprune import LayerShape
from tailprune.timing import build_block
from tailprune.timing.random_data import RandomBank

#: Resident blocks are limited to this many on every SM since Maxwell (CUDA C++ Programming Guide, technical specifications).
MAX_BLOCKS_PER_SM = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One kernel of a call. On a CPU: one oneDNN primitive, named with the layout it packs weights into; its grid is the number of
    channel blocks, out and in, that the layout cuts them into (`ABcd16b16a`: blocks of 16 of both)."""

    name: str
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    registers: int = 0
    shared_bytes: int = 0
    us: float = 0.0

    @property
    def num_blocks(self) -> int:
        return math.prod(self.grid)


def launches(shape: LayerShape, device: torch.device) -> tuple[Launch, ...]:
    """The kernels of one warm call of the deployed block, in order."""
    block = build_block(shape, RandomBank(device))

    def run() -> None:
        block.module(*block.inputs)

    with torch.inference_mode():
        for _ in range(3):
            run()
        return _cuda_launches(run) if device.type == "cuda" else _onednn_primitives(run)


def _cuda_launches(run: Callable[[], None]) -> tuple[Launch, ...]:
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        return launches_of_trace(json.loads(path.read_text()))


def launches_of_trace(trace: dict[str, Any]) -> tuple[Launch, ...]:
    """Kernels in a Chrome trace as PyTorch's profiler writes it."""
    kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
    return tuple(
        Launch(
            name=kernel["name"],
            grid=tuple(kernel["args"].get("grid", ())),
            block=tuple(kernel["args"].get("block", ())),
            registers=int(kernel["args"].get("registers per thread", 0)),
            shared_bytes=int(kernel["args"].get("shared memory", 0)),
            us=float(kernel.get("dur", 0.0)),
        )
        for kernel in sorted(kernels, key=lambda event: event["ts"])
    )


def _onednn_primitives(run: Callable[[], None]) -> tuple[Launch, ...]:
    """oneDNN tells on the process's standard output what it runs; it is caught in a file."""
    with tempfile.TemporaryFile() as file:
        standard_output = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                run()
        finally:
            os.dup2(standard_output, 1)
            os.close(standard_output)
        file.seek(0)
        return primitives_of_log(file.read().decode())


def primitives_of_log(text: str) -> tuple[Launch, ...]:
    """`onednn_verbose,v1,primitive,exec,cpu,KIND,IMPLEMENTATION,...,wei:f32:a:blocked:LAYOUT::f0 ...,milliseconds`."""
    found = []
    for line in text.splitlines():
        fields = line.split(",")
        if fields[:4] == ["onednn_verbose", "v1", "primitive", "exec"] and fields[5] != "reorder":
            layout = next((part.split(":")[4] for part in fields[8].split() if part.startswith("wei:")), "")
            name = " ".join((*fields[5:7], layout)).strip()
            found.append(Launch(name=name, grid=channel_blocks(layout, text=line), us=float(fields[-1]) * 1e3))
    return tuple(found)


def channel_blocks(layout: str, text: str) -> tuple[int, ...]:
    """Blocks of output and of input channels of a convolution; an axis the layout does not cut is one block."""
    channels = re.search(r"ic(\d+)oc(\d+)", text)
    if channels is None:
        return ()
    blocks = {axis: math.prod(int(size) for size in re.findall(rf"(\d+){axis}", layout)) for axis in "ab"}
    ins, outs = int(channels[1]), int(channels[2])
    return tuple(-(-count // blocks[axis]) if blocks[axis] > 1 else 1 for axis, count in (("a", outs), ("b", ins)))


def resident_blocks(launch: Launch, properties: Any) -> int:
    """Blocks that one SM holds at a time: the scarcest of threads, registers, shared memory and block slots."""
    threads = max(math.prod(launch.block), 1)
    limits = [MAX_BLOCKS_PER_SM, properties.max_threads_per_multi_processor // threads]
    if launch.registers:
        limits.append(properties.regs_per_multiprocessor // (launch.registers * threads))
    if launch.shared_bytes:
        limits.append(properties.shared_memory_per_multiprocessor // launch.shared_bytes)
    return max(min(limits), 1)


def cause(
    below: Sequence[Launch], above: Sequence[Launch], alignment: tuple[int, int], properties: Any = None
) -> tuple[str, str]:
    """(wave | tile | alignment | kernel switch | unexplained, the numbers behind it), from each side's longest kernel.

    On a GPU waves = ceil(blocks / (SMs x resident blocks)); a CPU, without `properties`, has no waves. `alignment` is
    the largest power of two up to 8 that divides the width on each side; it is the cause only where the grid stayed.
    """
    if not below or not above:
        return "unexplained", "no kernel was seen"
    one, two = (max(side, key=lambda launch: launch.us) for side in (below, above))
    if one.name != two.name:
        return "kernel switch", f"{one.name} before, {two.name} after"
    if one.grid != two.grid and properties is None:
        return "tile", f"{one.name}: {one.num_blocks} channel blocks before, {two.num_blocks} after"
    if one.grid != two.grid:
        waves = [
            -(-launch.num_blocks // (properties.multi_processor_count * resident_blocks(launch, properties)))
            for launch in (one, two)
        ]
        said = f"{one.num_blocks} blocks in {waves[0]} waves before, {two.num_blocks} in {waves[1]} after"
        return ("wave" if waves[0] != waves[1] else "tile"), said
    same = f"{one.name} on both sides" + (", the same grid" if one.grid else "")
    if one.grid and alignment[0] != alignment[1]:
        return "alignment", f"{same}, widths divisible by {alignment[0]} before, {alignment[1]} after"
    return "unexplained", same
