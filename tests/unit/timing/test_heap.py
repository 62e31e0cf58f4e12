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

#: Every other one of many blocks is freed: where do a few new ones of the same sizes lie, without plugs, with them, and after?
HOLES = """
import torch
from tailprune.timing.heap import _glibc, holes_plugged, keep_freed_memory

keep_freed_memory()
SIZES = [2**k for k in range(13, 21)]  # eight, so that every other block is of the first, third, ... size
blocks = [torch.empty(size, dtype=torch.uint8) for _ in range(40) for size in SIZES]
last = max(block.data_ptr() for block in blocks)
del blocks[::2]

def above() -> int:
    held = [torch.empty(size, dtype=torch.uint8) for size in SIZES[::2]]
    return sum(block.data_ptr() > last for block in held)

def in_holes() -> int:
    info = _glibc().mallinfo2()
    return info.fordblks - info.keepcost

free = in_holes()
before = above()
with holes_plugged() as plugs:
    inside = above()
print(before, plugs, inside, above(), len(SIZES[::2]), in_holes() / free)
"""

#: The same with small blocks, which come from lists of freed ones first.
SMALL_HOLES = """
from tailprune.timing.heap import _glibc, holes_plugged, keep_freed_memory

keep_freed_memory()
libc = _glibc()
SIZES = [24, 40, 120, 200, 500, 1000, 2000]
blocks = [libc.malloc(size) for _ in range(400) for size in SIZES for _ in "ab"]
last = max(blocks)
for block in blocks[::2]:
    libc.free(block)

def below() -> int:
    held = [libc.malloc(size) for size in SIZES for _ in range(100)]
    for block in held:
        libc.free(block)
    return sum(block < last for block in held)

print(below())
with holes_plugged():
    print(below())
print(below())
"""

#: Blocks come and go while others are timed, and each time a small one stays behind the activations: the heap must grow, the memory in use need not.
GROWTH = """
import torch
from tailprune.timing import heap
from tailprune.timing.heap import holes_plugged, keep_freed_memory

def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_freed_memory()
heap.MOST_IN_HOLES, heap.KEPT_TOP = 2**25, 2**23
stay = []
for turn in range(200):
    with holes_plugged():
        activations = torch.ones(2**21)
        stay.append(torch.ones(2**12))
        del activations
    if turn == 20:
        early = resident()
print(resident() - early)
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
def test_memory_comes_from_the_top_while_holes_are_plugged() -> None:
    before, plugs, inside, after, sizes, restored = run(HOLES)[0].split()
    assert int(before) == int(after) == 0, "without plugs all of them fit into holes"
    assert int(plugs) >= 100
    assert int(inside) == int(sizes)
    assert float(restored) == pytest.approx(1, abs=0.1), "all plugs are given back"


@glibc
def test_small_holes_are_plugged_too() -> None:
    before, inside, after = (int(count) for count in run(SMALL_HOLES))
    assert before > 600
    assert inside <= 7 * 7, "what the thread cache holds is freed last"
    assert after > 600


@glibc
def test_no_memory_is_used_up_by_what_stays_behind_the_activations() -> None:
    (grown,) = run(GROWTH)
    assert int(grown) < 100 * 2**20, "179 times 8 MiB would be 1432"


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
