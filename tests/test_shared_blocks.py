"""Blocks that the threads of a process share."""

import os
import threading
import warnings

import pytest

from sklearn_rrr._shared_blocks import fix_settings


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("own", "expected"), [(False, "before"), (True, "inside")])
def test_a_fork_leaves_other_threads_behind(own, expected):
    setting = ["before"]
    block = fix_settings(
        ("inside", lambda: setting[0], lambda value: setting.__setitem__(0, value))
    )
    inside, go_on = threading.Event(), threading.Event()

    def stay():
        with block.entered():
            inside.set()
            go_on.wait(10)

    def fork():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, about forks and threads
            pid = os.fork()
        if pid == 0:
            os._exit(0 if setting == [expected] else 1)
        return os.waitpid(pid, 0)[1]

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(10)
    if own:
        with block.entered():
            assert fork() == 0
    else:
        assert fork() == 0
    assert setting == ["inside"]
    go_on.set()
    thread.join()
    assert setting == ["before"]
