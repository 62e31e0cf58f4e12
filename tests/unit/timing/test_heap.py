"""The heap: freed memory is kept, and holes are plugged while something is timed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tailprune.timing import heap
from tailprune.timing.heap import holes_plugged, keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")

PAGE_FAULTS = """
import resource, torch
from tailprune.timing.heap import keep_freed_memory

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

#: Every other one of many blocks is freed, and one piece of 32 MiB: where do new blocks of the same sizes lie, without plugs, with them, and after?
HOLES = """
import torch
from tailprune.timing.heap import _glibc, holes_plugged, keep_freed_memory

keep_freed_memory()
SIZES = [2**k for k in range(13, 21)]  # eight, so that every other block is of the first, third, ... size
blocks = [torch.empty(size, dtype=torch.uint8) for _ in range(20) for size in SIZES]
piece = torch.empty(2**25, dtype=torch.uint8)
blocks += [torch.empty(size, dtype=torch.uint8) for _ in range(20) for size in SIZES]
start = piece.data_ptr()
del blocks[::2], piece

def in_one_piece() -> int:
    held = [torch.empty(size, dtype=torch.uint8) for size in SIZES[::2]]
    return sum(start - 2**20 <= block.data_ptr() < start + 2**25 for block in held)

def in_holes() -> int:
    info = _glibc().mallinfo2()
    return info.fordblks - info.keepcost

free, end = in_holes(), _glibc().sbrk(0)
before = in_one_piece()
with holes_plugged() as plugs:
    inside = in_one_piece()
print(before, plugs, inside, in_one_piece(), len(SIZES[::2]), in_holes() / free, _glibc().sbrk(0) - end)
"""

#: Blocks come and go while others are timed, as when a table is filled.
GROWTH = """
import torch
from tailprune.timing.heap import _glibc, holes_plugged, keep_freed_memory

keep_freed_memory()
alive = []
for turn in range(300):
    alive = [*alive[-5:], torch.empty(2**20 + 4096 * (turn * 7919 % 101), dtype=torch.uint8)]
    with holes_plugged():
        torch.empty(2**21, dtype=torch.uint8)
    if turn == 20:
        early = _glibc().sbrk(0)
print(_glibc().sbrk(0) - early)
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"}
    )
    return done.stdout.replace(";", "\n").strip().splitlines()


@glibc
def test_freed_memory_is_kept_at_once_even_for_large_blocks() -> None:
    """Five activations of 40 MB: about 50,000 page faults by default, none when freed memory is kept."""
    before, said, after = run(PAGE_FAULTS)
    assert int(before) > 2000
    assert said == "glibc, freed memory kept"
    assert int(after) < 500


@glibc
def test_memory_comes_from_one_piece_while_holes_are_plugged() -> None:
    before, plugs, inside, after, sizes, restored, grown = run(HOLES)[0].split()
    assert int(before) == int(after) == 0, "without plugs smaller holes fit better"
    assert int(plugs) >= 100
    assert int(inside) == int(sizes)
    assert float(restored) == pytest.approx(1, abs=0.1), "all plugs are given back"
    assert int(grown) <= 2 * 2**20, "what finds out where the top is may be larger than it"


@glibc
def test_the_heap_does_not_grow_with_every_block_that_is_timed() -> None:
    (grown,) = run(GROWTH)
    assert int(grown) < 64 * 2**20, "three hundred blocks take 350 MiB, six of them 7 MiB"


def test_plugs_are_given_back_though_the_measurement_fails() -> None:
    with pytest.raises(RuntimeError, match="boom"), holes_plugged():
        raise RuntimeError("boom")
    with holes_plugged() as plugs:
        assert plugs >= 0


def test_another_allocator_is_named_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert keep_freed_memory.__wrapped__() == "libjemalloc.so.2"
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: "libjemalloc.so.2")
    monkeypatch.setattr(heap, "_glibc", heap._glibc.__wrapped__)
    with holes_plugged() as plugs:
        assert plugs == 0
