"""Folders with one sub-folder per class, and what lies about in them."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from sklearn_rrr import load_image_folder


@pytest.fixture
def root(tmp_path):
    """A folder of the classes cat (2 images) and dog (1 image)."""
    for name in ("cat/1.png", "cat/deeper/2.JPG", "dog/1.tiff"):
        add(tmp_path / "data" / name)
    return tmp_path / "data"


def add(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {".jpg": "JPEG", ".tiff": "TIFF"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, format=format)


def assert_lists(root, *names):
    """Assert that exactly these are found, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bunch = load_image_folder(root)
    assert [os.path.relpath(path, root) for path in bunch.paths] == list(names)
    classes = [name.split("/")[0] for name in names]
    assert [bunch.target_names[k] for k in bunch.target] == classes


PLAIN = ("cat/1.png", "cat/deeper/2.JPG", "dog/1.tiff")


@pytest.mark.parametrize("kind", [str, os.path.abspath, lambda path: path])
def test_classes(root, kind):
    assert_lists(kind(root), *PLAIN)
    bunch = load_image_folder(root)
    assert bunch.target_names == ["cat", "dog"]
    assert bunch.target.tolist() == [0, 0, 1]


def test_unicode_and_spaces(root):  # fault 34
    names = ("Ünï cödé/图 像.png", "Ünï cödé/" + "x" * 251 + ".png")
    for name in names:
        add(root / name)
    assert_lists(root, *PLAIN, *sorted(names))


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "cat/.DS_Store",
        "cat/._1.png",
        "cat/Thumbs.db",
        "dog/.ipynb_checkpoints/1.png",
        ".git/1.png",
        "__MACOSX/cat/1.png",
    ],
)
def test_hidden(root, name):  # fault 35
    add(root / name)
    assert_lists(root, *PLAIN)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/loop", "cat"),
        ("cat/loop", "."),
        ("cat/loop", ".."),
        ("cat/deeper/loop", "cat"),
        ("loop", "."),
        ("loop", ".."),
    ],
)
def test_link_loop(root, link, target):  # fault 35
    (root / link).symlink_to(root / target, target_is_directory=True)
    assert_lists(root, *PLAIN)


def test_link_loop_through_another_folder(root, tmp_path):  # fault 35
    add(tmp_path / "else" / "3.png")
    (root / "cat" / "out").symlink_to(tmp_path / "else", target_is_directory=True)
    (tmp_path / "else" / "back").symlink_to(root, target_is_directory=True)
    assert_lists(root, "cat/1.png", "cat/deeper/2.JPG", "cat/out/3.png", "dog/1.tiff")


def test_linked_class(root, tmp_path):
    add(tmp_path / "else" / "3.png")
    (root / "eel").symlink_to(tmp_path / "else", target_is_directory=True)
    assert_lists(root, *PLAIN, "eel/3.png")


def test_root_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert_lists(tmp_path / "link", *PLAIN)


@pytest.mark.parametrize("name", ["cat/notes.txt", "cat/3", "dog/a.heic", "beside.png"])
def test_what_is_left_out_is_said(root, name):
    add(root / name)
    with pytest.warns(UserWarning, match=rf"1 file.s. were skipped, such as .*{name}"):
        bunch = load_image_folder(root)
    assert len(bunch.paths) == 3


@pytest.mark.parametrize("junk", [None, ".DS_Store", "deeper/.DS_Store"])
def test_empty_class(root, junk):  # fault 36
    (root / "eel" / "deeper").mkdir(parents=True)
    if junk:
        (root / "eel" / junk).write_text("")
    with pytest.raises(
        ValueError, match=r"class folder .*eel' contains no images. Add .* remove it"
    ):
        load_image_folder(root)


def test_no_classes(root):
    with pytest.raises(ValueError, match=r"deeper' has no sub-folder; each class needs one"):
        load_image_folder(root / "cat" / "deeper")


@pytest.mark.parametrize("name", ["missing", "cat/1.png"])
def test_no_folder(root, name):  # fault 25
    with pytest.raises(ValueError, match=f"`path` must be a folder .*; got '.*{name}'"):
        load_image_folder(root / name)


@pytest.mark.parametrize("name", [".", "cat", "cat/deeper"])
def test_no_permission(root, name):  # fault 25
    (root / name).chmod(0)
    try:
        if os.access(root / name, os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(ValueError, match=r"cannot be read .Permission denied"):
            load_image_folder(root)
    finally:
        (root / name).chmod(0o700)
