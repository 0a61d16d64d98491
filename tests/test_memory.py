"""Memory that is kept while a network runs."""

import platform
import subprocess
import sys
import threading

import pytest

from sklearn_rrr import memory
from sklearn_rrr.memory import keeping_memory


def test_thresholds_change_with_the_first_and_the_last_user(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_set", calls.append)
    inside, go_on = threading.Event(), threading.Event()

    def use():
        with keeping_memory():
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=use)
    with keeping_memory():
        thread.start()
        inside.wait(10)
        with keeping_memory():
            pass
    assert calls == [memory._KEEP]
    go_on.set()
    thread.join()
    assert calls == [memory._KEEP, memory._USUAL]


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr(memory, "_libc", lambda: None)
    with keeping_memory():
        pass


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_returned_afterwards():
    code = """
import ctypes, resource
from pathlib import Path
from sklearn_rrr.memory import keeping_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before, size = resident(), 200 * 2**20
with keeping_memory():
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(ctypes.c_void_p(block))
    assert resident() - before > 0.9 * size, "kept"
assert resident() - before < 0.2 * size, "returned"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
