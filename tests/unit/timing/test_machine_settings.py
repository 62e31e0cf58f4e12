"""Settings are pinned inside and restored outside, whatever happens."""

from __future__ import annotations

import gc

import pytest
import torch

from tailprune.timing.machine import available_bytes, cpu_name, pinned, preemptions


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
