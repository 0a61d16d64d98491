"""Reuse of freed memory while a network runs, instead of returning it to the system."""

import ctypes
import os
import platform
from functools import cache

from sklearn_rrr._shared_blocks import SharedBlock

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Upper limits of glibc's dynamic thresholds, which grow with the size of freed blocks.
_LARGEST_MMAP, _LARGEST_TRIM = 2**25, 2**26


def keeping_memory():
    """Reuse freed memory inside the block, in all threads; the last block to end returns it.

    Each step allocates its activations and gradients anew. By default, glibc returns large
    blocks to the system and requests them again in the next step, and the system clears every
    page: a large part of a step's time on the CPU. After the block, glibc's thresholds stay at
    the upper limits of their dynamic range. Nothing happens without glibc, or if environment
    variables configure its allocator (``MALLOC_…_``, ``GLIBC_TUNABLES``).
    """
    return _block.entered()


def _begin():
    _keep()
    return _return


_block = SharedBlock(_begin)


def _keep():
    libc = _libc()
    # glibc before 2.35 rejects mmap thresholds above its own limit. If it rejects both values,
    # leave the trim threshold alone: setting either threshold stops the growth of both.
    if libc and any(libc.mallopt(_MMAP_THRESHOLD, size) for size in (2**30, _LARGEST_MMAP)):
        libc.mallopt(_TRIM_THRESHOLD, -1)


def _return():
    libc = _libc()
    if libc and libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP):
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM)
        libc.malloc_trim(0)


@cache
def _libc():
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    return None if chosen or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
