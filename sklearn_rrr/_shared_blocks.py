"""Changes of the process that last while any of its threads needs them."""

import os
import threading
from contextlib import contextmanager


class SharedBlock:
    """Block that the first thread to enter begins, and the last one to leave ends.

    In a forked process, only the thread that forked is still inside.

    Parameters
    ----------
    begin : callable
        Function without arguments that makes the changes and returns the function that undoes them.

    Examples
    --------
    >>> from sklearn_rrr._shared_blocks import SharedBlock
    >>> calls = []
    >>> block = SharedBlock(lambda: calls.append("begin") or (lambda: calls.append("end")))
    >>> with block.entered(), block.entered():
    ...     calls.append("inside")
    >>> calls
    ['begin', 'inside', 'end']
    """

    def __init__(self, begin):
        self.begin, self.end = begin, None
        self.lock, self.users = threading.Lock(), {}  # users: thread by entry
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_other_threads)

    @contextmanager
    def entered(self):
        """Be inside the block."""
        entry = object()
        with self.lock:
            if not self.users:
                self.end = self.begin()
            self.users[entry] = threading.get_ident()
        try:
            yield
        finally:
            with self.lock:
                del self.users[entry]
                if not self.users:
                    self.end()

    def _forget_other_threads(self):
        self.lock, own = threading.Lock(), threading.get_ident()
        kept = {entry: thread for entry, thread in self.users.items() if thread == own}
        was_begun, self.users = bool(self.users), kept
        if was_begun and not kept:
            self.end()


def fix_settings(*settings):
    """Return a SharedBlock in which settings of the process have given values.

    Parameters
    ----------
    *settings : tuple of (object, callable, callable)
        Value, and the functions that return and set the setting.
    """

    def begin():
        changed = []
        for value, get, change in settings:
            if (before := get()) != value:
                change(value)
                changed.append((change, before))

        def end():
            for change, before in changed:
                change(before)

        return end

    return SharedBlock(begin)
