"""What the C allocator hands out while something is timed: memory that is there already, from one place rather than from everywhere."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: glibc's <malloc.h>: what `mallopt` calls the limits.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
#: Every hole counts, down to the smallest that glibc makes (16 bytes and its own 16): a convolution makes many small objects, and glibc hands small
#: holes out in turn, the one that was freed longest ago first, so that with thousands of them each is out of the caches. Plugs
#: halve in size, so that what one leaves of a hole takes the next smaller ones. The first are half of the heap's top, so that it need not grow to say
#: that no hole fits; or a MiB.
SMALLEST_PLUG, FIRST_PLUG = 2**4, 2**20
#: Blocks up to this size come from a list of freed ones first, wherever those lie, and it holds so many of a size (glibc's thread cache).
LARGEST_LISTED, MOST_LISTED = 1032, 7
#: Bytes of holes that keep their memory, and of the top when others lose theirs: more than the activations and scratch of most layers.
MOST_IN_HOLES, KEPT_TOP = 2**30, 2**28
KEPT = "glibc, freed memory kept"


@cache
def keep_freed_memory() -> str:
    """Stop glibc from giving large freed blocks back to the system; says which allocator holds from now on.

    By default glibc maps every large activation anew and unmaps it on free, so each call pays a page fault per 4 KiB:
    about three times the cost of an elementwise operation on 40 MB in a trial. `M_MMAP_MAX` = 0 switches mapping off for
    blocks of any size (a threshold would leave those above it), a trim threshold of -1 keeps the heap's top.
    Both act at once, on every later allocation of this process, and stay: measuring and deploying should share them.
    """
    preloaded = os.environ.get("LD_PRELOAD", "")
    if preloaded:
        return " ".join(sorted(Path(part).name for part in preloaded.replace(":", " ").split()))
    if platform.libc_ver()[0] != "glibc":
        return f"{platform.system()} default"
    libc = ctypes.CDLL(None)
    kept = libc.mallopt(M_MMAP_MAX, 0) == 1 and libc.mallopt(M_TRIM_THRESHOLD, -1) == 1
    return KEPT if kept else "glibc default"


@contextlib.contextmanager
def holes_plugged() -> Iterator[int]:
    """Meanwhile memory comes from the heap's top, as in a process that has done nothing else; yields how many plugs that took.

    A process that has trained a network or filled a table leaves a heap full of holes. glibc hands out the hole that fits best, so each
    activation of a network lies in another one, where in a fresh process they share the same warm memory; and each of the small objects that a
    convolution makes is a miss of the caches. Networks took up to a third longer there, and not all alike (`benchmarks/age.json`). So every hole is
    held until the end. Holes that come meanwhile are not: plugged too, they would move activations to memory that nobody has touched yet.

    What is made meanwhile lies at the top, and some of it stays: the heap grows with each use. So beyond a GiB of holes their memory goes back to the
    system, and addresses are all that is used up. Changes nothing where the allocator is another one or glibc is older than 2.33, and hardly
    anything in a thread other than the main one, which has a heap of its own.
    """
    libc = _glibc()
    if libc is None:
        yield 0
        return
    plugs = count = 0
    try:
        info = libc.mallinfo2()
        if info.fordblks - info.keepcost > MOST_IN_HOLES:
            libc.malloc_trim(KEPT_TOP)
            info = libc.mallinfo2()
        top = libc.sbrk(0) - info.keepcost
        size = max(info.keepcost // 2, FIRST_PLUG)
        while size >= SMALLEST_PLUG:
            above, misses = 0, 0
            while misses <= (MOST_LISTED if size <= LARGEST_LISTED else 0):
                block = libc.malloc(size)
                if block and block < top:
                    plugs, count = _linked(block, plugs), count + 1
                else:
                    above, misses = _linked(block, above) if block else above, misses + 1
            _free_all(libc, above)
            size //= 2
        yield count
    finally:
        _free_all(libc, plugs)


def _linked(block: int, following: int) -> int:
    """The block, its first word the address of the one to free after it: a list of them would leave holes as it grows."""
    ctypes.c_size_t.from_address(block).value = following
    return block


def _free_all(libc: ctypes.CDLL, block: int) -> None:
    while block:
        following = ctypes.c_size_t.from_address(block).value
        libc.free(block)
        block = following


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`; `fordblks` is all free memory, `keepcost` the part of it that is the heap's top."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )  # fmt: skip


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is one whose heap can be looked at and that keeps large blocks in it."""
    if keep_freed_memory() != KEPT or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return None
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.malloc_trim.restype, libc.malloc_trim.argtypes = ctypes.c_int, [ctypes.c_size_t]
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    return libc
