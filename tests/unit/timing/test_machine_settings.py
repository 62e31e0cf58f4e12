"""Settings are pinned inside and restored outside, whatever happens; the allocator keeps what it was given."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest
import torch

from tailprune.timing.machine import available_bytes, cpu_name, keep_freed_memory, pinned, preemptions


def state() -> tuple[object, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return (torch.get_num_threads(), cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, gc.isenabled(),
            torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_default_dtype())  # fmt: skip


def test_pins_inside_and_restores_after_an_error() -> None:
    before = state()
    other = before[0] + 1

    def fail_inside() -> None:
        with pinned(threads=other, tf32=True, autotuning=True):
            assert state()[:6] == (other, True, True, True, False, True)
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_inside()
    assert state() == before


def test_disabled_collection_stays_disabled() -> None:
    gc.disable()
    try:
        with pinned(threads=1):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_cpu_has_a_name_with_its_vectors() -> None:
    assert cpu_name().endswith(f"({torch.backends.cpu.get_cpu_capability()})")
    assert available_bytes(torch.device("cpu")) > 2**20
    assert preemptions() >= 0


PAGE_FAULTS = """
import resource, torch
from tailprune.timing.machine import keep_freed_memory

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        y = x * 2
        del y
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

x = torch.ones(10_000_000)
faults()
print(faults(), keep_freed_memory(), min(faults() for _ in range(6)), sep=";")  # the first ones grow the heap
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_kept_at_once_even_for_large_blocks() -> None:
    """Five activations of 40 MB: about 50,000 page faults by default, none when freed memory is kept."""
    command = [sys.executable, "-c", PAGE_FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
    before, said, after = done.stdout.strip().split(";")
    assert int(before) > 2000
    assert said == "glibc, freed memory kept"
    assert int(after) < 500


def test_another_allocator_is_named_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert keep_freed_memory.__wrapped__() == "libjemalloc.so.2"
