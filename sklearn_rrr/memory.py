"""Freed memory is kept while a network runs, instead of being returned and asked for again."""

import ctypes
import platform
import threading
from contextlib import contextmanager
from functools import cache

# Of glibc's malloc.h, and of its dynamic thresholds' upper end.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = {_TRIM_THRESHOLD: -1, _MMAP_THRESHOLD: 2**30}
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}

_lock, _users = threading.Lock(), 0


@contextmanager
def keeping_memory():
    """Keep freed memory inside the block, in all threads, and return it after the last one.

    Every activation and gradient of a step is allocated anew. glibc gives large blocks back
    to the system and asks for them again at the next step, and the system clears each page
    anew: on the CPU up to half of a step's time. After the block glibc has the thresholds
    that it would itself arrive at. On systems without glibc nothing happens.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_USUAL)
                if libc := _libc():
                    libc.malloc_trim(0)


def _set(thresholds):
    if libc := _libc():
        for name, value in thresholds.items():
            libc.mallopt(name, value)


@cache
def _libc():
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
