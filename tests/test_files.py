"""Files are whole or not there, and are what was written."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_rrr import (
    MultiTaskStore,
    NetTailorClassifier,
    OnnxClassifier,
    RRRNetClassifier,
    export_onnx,
    load,
    load_task,
    save,
    save_task,
)
from sklearn_rrr._files import write_atomically


@pytest.fixture(scope="module")
def written(tmp_path_factory, digits):
    """Return {format: (path, function that loads it and predicts, its predictions)}."""
    X, y = digits
    folder = tmp_path_factory.mktemp("written")
    form = {"backbone": "tiny", "image_size": 16, "max_epochs": 1, "random_state": 0}
    clf = RRRNetClassifier(**form, weights=None, n_branches=2).fit(X, y)
    save(clf, folder / "model.safetensors")
    export_onnx(clf, folder / "model.onnx")
    readers = {
        "model.safetensors": lambda path: load(path).predict_proba(X[:4]),
        "model.onnx": lambda path: OnnxClassifier(path).predict_proba(X[:4]),
    }
    return {name: (folder / name, read, read(folder / name)) for name, read in readers.items()}


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_changed_byte_is_never_a_changed_prediction(written, tmp_path, name):  # fault 76
    path, read, expected = written[name]
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    places = [*rng.integers(len(content), size=30), *rng.integers(2000, size=10)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        target = tmp_path / f"{place}-{name}"
        target.write_bytes(damaged)
        try:
            found = read(target)
        except ValueError:
            refused += 1
        else:  # spaces after the header mean nothing
            np.testing.assert_array_equal(found, expected)
    assert refused > 0.9 * len(places)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(written, tmp_path, name, share):  # fault 77
    path, read, _ = written[name]
    content = path.read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=name):
        read(tmp_path / name)


def test_impossible_sizes_are_refused(written, tmp_path):  # fault 76
    clf = load(written["model.safetensors"][0])
    for size in (-5, 100_000, 3.5, None):
        clf.image_size_ = size
        save(clf, tmp_path / "a")
        with pytest.raises(ValueError, match=f"image size {size} is not in"):
            load(tmp_path / "a")


def test_negative_variances_are_refused(written, tmp_path):  # fault 76
    clf = load(written["model.safetensors"][0])
    clf.module_.stump[1].running_var[0] = -1.0
    save(clf, tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"'stump.1.running_var' has values that are .* impossible"
    ):
        load(tmp_path / "a")


def test_only_regular_files_are_replaced(tmp_path):  # fault 78
    os.mkfifo(tmp_path / "fifo")
    for special in (tmp_path / "fifo", "/dev/null"):
        with pytest.raises(OSError, match="is not a regular file and was not replaced"):
            write_atomically(special, b"new")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_links_and_modes_stay(tmp_path):  # fault 78
    (tmp_path / "file").write_bytes(b"old")
    os.chmod(tmp_path / "file", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


class OfBytes(os.PathLike):
    def __fspath__(self):
        return b"model"


NO_PATHS = (None, 3, b"model", pytest.param(OfBytes(), id="bytes of a path"), "", "a\0b")


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_what_is_no_path_is_refused_by_name(written, path):
    clf = load(written["model.safetensors"][0])
    for use in (
        lambda: save(clf, path),
        lambda: export_onnx(clf, path),
        lambda: load(path),
        lambda: OnnxClassifier(path).predict([[[0.0]]]),
    ):
        with pytest.raises((TypeError, ValueError), match="`path` must be a"):
            use()
    with pytest.raises((TypeError, ValueError), match="`folder` must be a"):
        MultiTaskStore(path, "tiny", None)


NO_FILES = {
    "loop": "Too many levels of symbolic links",
    "dangling": "The folder '.*nowhere' does not exist",
    "x" * 300: "File name too long",
    "file/model": "Not a directory",
    "no/model": "The folder '.*no' does not exist",
    "/dev/zero": "is not a regular file",
    "/proc/model": "No such file or directory|Permission",
    "fifo": "is not a regular file",
    ".": "is a folder; give the path of a file",
}


@pytest.mark.parametrize("path", NO_FILES)
def test_impossible_targets_are_refused_before_the_work(written, tmp_path, monkeypatch, path):
    clf = load(written["model.safetensors"][0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.onnx, "export", None)
    monkeypatch.setattr("sklearn_rrr.deployment.model_files.serialize", None)
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere/model")
    Path("file").write_text("")
    os.mkfifo("fifo")
    before = sorted(Path().iterdir())
    for write in (save, export_onnx):
        with pytest.raises(OSError, match=f"`path`='{path}': .*({NO_FILES[path]})"):
            write(clf, path)
    for read in (load, lambda path: OnnxClassifier(path).fit()):
        with pytest.raises(ValueError, match=f"`path`='{path}' is not a file that can be read"):
            read(path)
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):  # faults 43 and 83
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)  # a disk that is really full needs a mount
    with pytest.raises(OSError, match=r"cannot be written \(No space .*Free space.*/file"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_existing_store_needs_no_write_permission(tmp_path, weights, monkeypatch):
    MultiTaskStore(tmp_path, "tiny", weights)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert MultiTaskStore(tmp_path, "tiny").tasks == []
    with pytest.raises(ValueError, match=r"`folder` must be .* cannot be used: Permission denied"):
        MultiTaskStore(tmp_path / "new", "tiny", weights)


def test_stores_ignore_what_others_leave_in_them(tmp_path, weights, digits):  # fault 79
    X, y = digits
    store = MultiTaskStore(tmp_path, "tiny", weights)
    form = {"weights": weights, "max_epochs": 1, "n_removed": 1, "image_size": 16}
    clf = NetTailorClassifier("tiny", **form).fit(X, y)
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nothing")
    assert store.add("task", clf).tasks == ["task"]
    assert store.sizes().index.tolist() == ["backbone", "task"]
    save_task(clf, tmp_path / "b")
    expected = load_task(tmp_path / "b", weights).predict(X)
    np.testing.assert_array_equal(store.load("task").predict(X), expected)


FULL = """
import resource, sys, warnings
from pathlib import Path
import numpy as np, torch
from sklearn.datasets import load_digits
from sklearn_rrr import *
warnings.simplefilter("ignore")
X, y = load_digits(n_class=2, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:20] / 16, y[:20]
form = {"image_size": 32, "max_epochs": 1, "random_state": 0}
clf = RRRNetClassifier("synth50", **form, blocks=(1, 1, 1, 1)).fit(X, y)
tailored = NetTailorClassifier("synth50", **form, n_removed=8).fit(X, y)
folder = Path(sys.argv[1])
store = MultiTaskStore(folder / "store", "synth50").add("task", tailored)
writers = {
    "model": lambda: save(clf, folder / "model"),
    "onnx": lambda: export_onnx(clf, folder / "onnx"),
    "task": lambda: save_task(tailored, folder / "task"),
    "store/task.safetensors": lambda: store.add("task", tailored),
}
for write in writers.values():
    write()
before = {name: (folder / name).read_bytes() for name in writers}
files = sorted(map(str, folder.rglob("*")))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))  # as a disk with 100 bytes left
clf.classes_ = clf.classes_[::-1]
for name, write in writers.items():
    try:
        write()
    except OSError as error:
        assert "cannot be written" in str(error) and "Free space" in str(error), error
    else:
        raise AssertionError(name)
    assert (folder / name).read_bytes() == before[name]
assert sorted(map(str, folder.rglob("*"))) == files
long = RRRNetClassifier("synth50", **form | {"max_epochs": 2}, checkpoint_dir=folder / "fit")
for estimator in (long, BlockSelector(RRRNetClassifier("synth50", **form), max_blocks=5,
                                      checkpoint_dir=folder / "search")):
    try:
        estimator.fit(X, y)
    except OSError as error:
        assert "cannot be written" in str(error), error
    else:
        raise AssertionError(estimator)
"""


@pytest.mark.slow
def test_a_full_disk_at_every_write(tmp_path):  # fault 43
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True)
