"""Refuse truncated files, even if the process lets Pillow fill what is missing with gray."""

import os
import threading
from contextlib import contextmanager
from types import SimpleNamespace

from PIL import ImageFile

_setting = SimpleNamespace(lock=threading.Lock(), n_users=0, before=False)


@contextmanager
def refusing_truncated():
    """Set ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` to False, until the last thread has left."""
    with _setting.lock:
        if not _setting.n_users:
            _setting.before = ImageFile.LOAD_TRUNCATED_IMAGES
            if _setting.before:
                ImageFile.LOAD_TRUNCATED_IMAGES = False
        _setting.n_users += 1
    try:
        yield
    finally:
        with _setting.lock:
            _setting.n_users = max(0, _setting.n_users - 1)  # 0 after a fork inside
            if not _setting.n_users and _setting.before:
                ImageFile.LOAD_TRUNCATED_IMAGES = _setting.before


def _renew():
    """Forget the threads of the parent, which do not exist in a forked process."""
    if _setting.n_users and _setting.before:
        ImageFile.LOAD_TRUNCATED_IMAGES = _setting.before
    _setting.lock, _setting.n_users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
