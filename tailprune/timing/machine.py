"""The machine's settings: what it is called, what it has left, and the state that is pinned while something is timed."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@cache
def cpu_name() -> str:
    """The CPU's model and the widest vectors that PyTorch uses on it, which decide where its steps are."""
    vectors = torch.backends.cpu.get_cpu_capability()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({vectors})"
    except OSError:
        pass  # no Linux: the standard library's name has to do
    return f"{platform.processor() or platform.machine()} ({vectors})"


def available_bytes(device: torch.device) -> int:
    """Memory that a block may still take on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    return (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    )  # half of what is built in: a guess on the safe side


def preemptions() -> int:
    """How often the system has taken the core from this thread so far; always 0 where it does not say."""
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


@contextlib.contextmanager
def pinned(*, threads: int, tf32: bool = False, autotuning: bool = False) -> Iterator[None]:
    """Threads, TF32, autotuning, garbage collection and grad mode as a measurement needs them; restored on leaving."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (torch.get_num_threads(), cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, gc.isenabled())
    if threads != before[0]:
        torch.set_num_threads(threads)
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = tf32, tf32, autotuning
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if threads != before[0]:
            torch.set_num_threads(before[0])
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before[1:4]
        if before[4]:
            gc.enable()
