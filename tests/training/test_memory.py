"""Memory that is kept while a network runs."""

import platform
import subprocess
import sys
import threading

import pytest

from sklearn_rrr.training import memory
from sklearn_rrr.training.memory import keeping_memory


def test_thresholds_change_with_the_first_and_the_last_user(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_keep", lambda: calls.append("keep"))
    monkeypatch.setattr(memory, "_return", lambda: calls.append("return"))
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
    assert calls == ["keep"]
    go_on.set()
    thread.join()
    assert calls == ["keep", "return"]


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr(memory, "_libc", lambda: None)
    with keeping_memory():
        pass


class Glibc:
    """One that refuses thresholds for blocks above a size."""

    def __init__(self, largest):
        self.largest, self.set = largest, {}

    def mallopt(self, name, value):
        accepted = name != memory._MMAP_THRESHOLD or value <= self.largest
        if accepted:
            self.set[name] = value
        return int(accepted)

    def malloc_trim(self, _):
        self.set["trimmed"] = True


@pytest.mark.parametrize(
    ("largest", "kept"), [(2**40, {-3: 2**30, -1: -1}), (2**25, {-3: 2**25, -1: -1}), (0, {})]
)
def test_what_glibc_refuses(monkeypatch, largest, kept):
    libc = Glibc(largest)
    monkeypatch.setattr(memory, "_libc", lambda: libc)
    with keeping_memory():
        assert libc.set == kept
    assert libc.set == ({-3: 2**25, -1: 2**26, "trimmed": True} if kept else {})


def test_the_choice_of_the_environment_stands(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert memory._libc.__wrapped__() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_returned_afterwards():
    code = """
import ctypes, resource
from pathlib import Path
from sklearn_rrr.training.memory import keeping_memory
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
