"""Freed memory is kept while a network runs, instead of being returned and asked for again."""

import ctypes
import os
import platform
import threading
from contextlib import contextmanager
from functools import cache

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Where glibc's own thresholds end that grow with what is freed.
_LARGEST_MMAP, _LARGEST_TRIM = 2**25, 2**26

_lock, _users = threading.Lock(), 0


@contextmanager
def keeping_memory():
    """Keep freed memory inside the block, in all threads, and return it after the last one.

    Every activation and gradient of a step is allocated anew. glibc gives large blocks back
    to the system and asks for them again at the next step, and the system clears each page
    anew: on the CPU a large part of a step's time. After the block glibc's thresholds stay at
    the upper end of the range in which it moves them itself. Nothing happens on systems without
    glibc, nor where the environment sets its allocator (``MALLOC_…_``, ``GLIBC_TUNABLES``).
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _keep()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _return()


def _keep():
    libc = _libc()
    # glibc before 2.35 refuses more than its own largest threshold. Without one, the other
    # would do harm: setting either ends their growth.
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
