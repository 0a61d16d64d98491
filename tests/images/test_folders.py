"""Lists of nested folders: labels, splits, groups, links, and the files that are skipped."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GroupKFold

from sklearn_rrr import load_image_folder

PLAIN = ("cat/1.png", "cat/deeper/2.JPG", "dog/1.tiff")
PLACES = ("north/cat/1.png", "north/dog/old/2.png", "south/cat/3.png")
SPLIT = ("test/cat/1.png", "train/cat/2.png", "train/dog/3.png", "val/dog/4.png")


def add(root, *names):
    """Create empty files; nothing is decoded here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def root(tmp_path):
    """A folder of the classes cat (2 images) and dog (1 image)."""
    return add(tmp_path / "data", *PLAIN)


@pytest.fixture
def places(tmp_path):
    """A folder of two places with classes below them."""
    return add(tmp_path / "places", *PLACES)


@pytest.fixture
def split(tmp_path):
    """A folder with three splits, of which two lack a class."""
    return add(tmp_path / "split", *SPLIT)


def relative(bunch, root):
    return [Path(os.path.relpath(path, root)).as_posix() for path in bunch.paths]


def assert_lists(root, *names):
    """Assert that exactly these are found, without a warning, with labels of level 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bunch = load_image_folder(root)
    assert relative(bunch, root) == list(names)
    assert bunch.target.tolist() == [name.split("/")[0] for name in names]


# ---------------------------------------------------------------------------- labels


@pytest.mark.parametrize("kind", [str, os.path.abspath, lambda path: path])
def test_classes(root, kind):
    assert_lists(kind(root), *PLAIN)
    bunch = load_image_folder(kind(root))
    assert bunch.target.dtype.kind == "U"
    assert bunch.target_names == ["cat", "dog"]
    assert bunch.paths.dtype == object
    assert all(type(path) is str for path in bunch.paths)
    assert bunch.split is None
    assert bunch.groups is None
    assert "frame" not in bunch


def test_relative_path_of_the_working_folder(root, monkeypatch):
    monkeypatch.chdir(root)
    assert load_image_folder(".").paths.tolist() == [str(Path(name)) for name in PLAIN]


@pytest.mark.parametrize(
    ("level", "labels"),
    [
        (1, ["north", "north", "south"]),
        (np.int64(1), ["north", "north", "south"]),
        ("leaf", ["cat", "old", "cat"]),
        (2, ["cat", "dog", "cat"]),  # of two places, merged
        (lambda path: path.stem, ["1", "2", "3"]),
        (lambda path: path.parent.parent.name, ["north", "dog", "south"]),
    ],
)
def test_level(places, level, labels):
    bunch = load_image_folder(places, level=level)
    assert relative(bunch, places) == list(PLACES)
    assert bunch.target.tolist() == labels
    assert bunch.target_names == sorted(set(labels))


def test_images_above_the_level_are_skipped(places):
    with pytest.warns(
        UserWarning, match=r"^2 file.s. or link.s. were skipped:\n  2 outside the"
    ) as w:
        bunch = load_image_folder(places, level=3, groups=lambda path: path.parts[0])
    assert bunch.target.tolist() == ["old"]
    assert bunch.groups.tolist() == ["north"]
    assert str(places / "north" / "cat" / "1.png") in str(w[0].message)
    assert w[0].filename == __file__


def test_leaf_of_images_beside_folders(root):
    bunch = load_image_folder(root, level="leaf")
    assert bunch.target.tolist() == ["cat", "deeper", "dog"]
    add(root, "beside.png")
    with pytest.warns(UserWarning, match="1 outside the class folders, such as .*beside.png"):
        assert load_image_folder(root, level="leaf").target.tolist() == ["cat", "deeper", "dog"]


def test_callable_receives_relative_pure_paths(places):
    seen = []
    load_image_folder(places, level=lambda path: seen.append(path) or "x")
    assert seen == [PurePath(name) for name in PLACES]


def test_callable_reads_labels_from_names_of_files(tmp_path):
    add(tmp_path, "cat_1.png", "cat_2.png", "dog_1.png")
    bunch = load_image_folder(tmp_path, level=lambda path: path.name.split("_")[0])
    assert bunch.target.tolist() == ["cat", "cat", "dog"]


def test_none_skips_an_image(places):
    with pytest.warns(UserWarning, match=r"1 whose label is None, such as .*3\.png"):
        bunch = load_image_folder(
            places, level=lambda path: path.parts[1] if path.parts[0] == "north" else None
        )
    assert relative(bunch, places) == list(PLACES[:2])


@pytest.mark.parametrize(
    ("convert", "dtype", "labels"),
    [
        (int, "int64", [1, 2, 3]),
        (np.float32, "float32", [1, 2, 3]),
        (lambda stem: (stem, int(stem)), "object", [("1", 1), ("2", 2), ("3", 3)]),
        (lambda stem: stem.encode(), "object", [b"1", b"2", b"3"]),
        (np.str_, "<U1", ["1", "2", "3"]),
    ],
)
def test_callable_may_return_other_types(places, convert, dtype, labels):
    bunch = load_image_folder(places, level=lambda path: convert(path.stem))
    assert bunch.target.dtype == dtype
    assert bunch.target.tolist() == labels
    assert bunch.target_names == labels


@pytest.mark.parametrize("label", [["a"], {"a": 1}])
def test_labels_must_be_hashable(places, label):
    with pytest.raises(TypeError, match="`level` must return labels that can be hashed"):
        load_image_folder(places, level=lambda path: label)


def test_labels_must_be_of_one_type(places):
    with pytest.raises(TypeError, match=r"hashed and sorted; got .* Return strings\."):
        load_image_folder(places, level=lambda path: 3 if path.stem == "1" else "three")


def test_order_is_that_of_the_relative_paths(tmp_path):
    names = ["a b/1.png", "a-b/1.png", "a/1.png", "a/10.png", "a/2.png", "a/B/1.png"]
    bunch = load_image_folder(add(tmp_path, *reversed(names)))
    assert relative(bunch, tmp_path) == sorted(names)


def test_unicode_and_spaces(root):  # fault 34
    names = ("Ünï cödé/图 像.png", "Ünï cödé/" + "x" * 251 + ".png")
    assert_lists(add(root, *names), *PLAIN, *sorted(names))


# ---------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("level", "labels"),
    [
        (1, ["cat", "cat", "dog", "dog"]),
        ("leaf", ["cat", "cat", "dog", "dog"]),
        (lambda path: "/".join(path.parts[:2]), ["test/cat", "train/cat", "train/dog", "val/dog"]),
    ],
)
def test_splits(split, level, labels):
    bunch = load_image_folder(split, splits=True, level=level)
    assert relative(bunch, split) == list(SPLIT)
    assert bunch.target.tolist() == labels
    assert bunch.split.tolist() == ["test", "train", "train", "val"]


def test_splits_of_any_name_with_deeper_levels(tmp_path):
    add(tmp_path, "2023/north/cat/1.png", "2023/south/dog/2.png", "2024/north/cat/3.png")
    bunch = load_image_folder(tmp_path, splits=True, level=2)
    assert bunch.target.tolist() == ["cat", "dog", "cat"]
    assert bunch.split.tolist() == ["2023", "2023", "2024"]


def test_split_without_classes_is_skipped(split):
    add(split, "unlabelled/1.png", "beside.png")
    with pytest.warns(UserWarning, match=r"^2 file") as caught:
        bunch = load_image_folder(split, splits=True)
    (warning,) = caught  # one for all files
    lines = str(warning.message).splitlines()[1:]
    assert lines == [
        f"  1 outside the splits, such as {split / 'beside.png'}",
        f"  1 outside the class folders, such as {split / 'unlabelled' / '1.png'}",
    ]
    assert relative(bunch, split) == list(SPLIT)


@pytest.mark.parametrize("level", [1, "leaf"])
def test_class_that_is_empty_in_one_split(split, level):
    (split / "test" / "dog").mkdir()
    assert load_image_folder(split, splits=True, level=level).target_names == ["cat", "dog"]


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Training", "VAL", "testing"), ("dev", "holdout", "validation")]
)
@pytest.mark.parametrize("level", [1, 2])
def test_hint_at_splits(tmp_path, names, level):
    add(tmp_path, *(f"{name}/cat/{name}.png" for name in names))
    with pytest.warns(UserWarning, match=r"look like splits of the data.* Pass splits=True") as w:
        bunch = load_image_folder(tmp_path, level=level)
    assert bunch.target_names == (sorted(names) if level == 1 else ["cat"])
    assert w[0].filename == __file__
    assert load_image_folder(tmp_path, splits=True).split.tolist() == sorted(names)  # no warning


@pytest.mark.parametrize("names", [("train",), ("train", "test", "extra"), ("bus", "train")])
def test_no_hint_at_splits(tmp_path, names):
    assert_lists(add(tmp_path, *(f"{name}/1.png" for name in names)), *sorted(
        f"{name}/1.png" for name in names
    ))  # fmt: skip


# ------------------------------------------------------------------ groups and the frame


def test_groups(places):
    bunch = load_image_folder(places, level=2, groups=lambda path: path.parts[0])
    assert bunch.groups.tolist() == ["north", "north", "south"]
    folds = list(GroupKFold(2).split(bunch.paths, bunch.target, bunch.groups))
    assert sorted(test.tolist() for _, test in folds) == [[0, 1], [2]]
    assert load_image_folder(places, groups=lambda path: int(path.stem)).groups.tolist() == [
        1,
        2,
        3,
    ]


def test_every_image_needs_a_group(places):
    with pytest.raises(ValueError, match=r"`groups` must return a group .* got None for north"):
        load_image_folder(places, groups=lambda path: None)


def test_frame(split):
    bunch = load_image_folder(split, splits=True, as_frame=True, groups=lambda path: path.stem)
    assert bunch.frame.columns.tolist() == ["path", "label", "split", "group"]
    for column, name in zip(bunch.frame, ("paths", "target", "split", "groups"), strict=True):
        assert bunch.frame[column].tolist() == bunch[name].tolist()


def test_frame_has_only_columns_with_content(root):
    assert load_image_folder(root, as_frame=True).frame.columns.tolist() == ["path", "label"]


def test_paths_and_names_are_what_estimators_take(small, tmp_path, digits):
    for i, (image, label) in enumerate(zip(*digits, strict=True)):
        (tmp_path / f"digit {label}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"digit {label}" / f"{i}.png")
    bunch = load_image_folder(tmp_path, as_frame=True)
    clf = small().fit(bunch.paths, bunch.target)
    assert clf.classes_.tolist() == bunch.target_names == [f"digit {k}" for k in range(4)]
    framed = small().fit(bunch.frame["path"], bunch.frame["label"])
    np.testing.assert_array_equal(framed.predict(bunch.paths), clf.predict(bunch.frame["path"]))


def test_needs_no_torch(split):
    code = f"""
import sys
import sklearn_rrr
bunch = sklearn_rrr.load_image_folder({str(split)!r}, splits=True, groups=lambda path: path.stem)
assert bunch.target.tolist() == ["cat", "cat", "dog", "dog"]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------- hidden files, links, others


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
    assert_lists(add(root, name), *PLAIN)


def link(place, target):
    place.symlink_to(target, target_is_directory=True)


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("cat/loop", "cat"),
        ("cat/loop", "."),
        ("cat/loop", ".."),
        ("cat/deeper/loop", "cat"),
        ("loop", "."),
        ("loop", ".."),
    ],
)
def test_link_loop(root, place, target):  # fault 35
    link(root / place, root / target)
    assert_lists(root, *PLAIN)


def test_link_loop_through_another_folder(root, tmp_path):  # fault 35
    add(tmp_path, "else/3.png")
    link(root / "cat" / "out", tmp_path / "else")
    link(tmp_path / "else" / "back", root)
    assert_lists(root, "cat/1.png", "cat/deeper/2.JPG", "cat/out/3.png", "dog/1.tiff")


def test_linked_class(root, tmp_path):
    add(tmp_path, "else/3.png")
    link(root / "eel", tmp_path / "else")
    assert_lists(root, *PLAIN, "eel/3.png")


@pytest.mark.parametrize("place", ["ant", "cat/a", "eel", "dog/z"])
def test_link_to_a_listed_folder(root, place):
    link(root / place, root / "cat" / "deeper")
    message = f"1 that are links to folders listed already, such as {re.escape(str(root / place))}"
    with pytest.warns(UserWarning, match=message):
        assert relative(load_image_folder(root), root) == list(PLAIN)


def test_two_links_to_one_folder_outside(root, tmp_path):
    add(tmp_path, "else/sub/3.png")
    link(root / "dog" / "a", tmp_path / "else" / "sub")
    link(root / "dog" / "b", tmp_path / "else")
    with pytest.warns(UserWarning, match=r"1 that are links .*dog.b.sub"):
        assert relative(load_image_folder(root), root) == [*PLAIN[:2], "dog/1.tiff", "dog/a/3.png"]


def test_link_from_split_to_split(split):
    link(split / "holdout", split / "test")
    bunch = load_image_folder(split, splits=True)
    assert relative(bunch, split) == ["holdout/cat/1.png", *SPLIT]
    assert bunch.split.tolist() == ["holdout", "test", "train", "train", "val"]


def test_root_may_be_a_link(root, tmp_path):
    link(tmp_path / "link", root)
    assert_lists(tmp_path / "link", *PLAIN)


def test_linked_files_are_listed(root):
    (root / "cat" / "3.png").symlink_to(root / "cat" / "1.png")
    (root / "cat" / "4.png").symlink_to(root / "gone.png")  # an error of the decoder, not silence
    assert_lists(root, "cat/1.png", "cat/3.png", "cat/4.png", *PLAIN[1:])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat/notes.txt", "without an image extension"),
        ("cat/3", "without an image extension"),
        ("dog/a.heic", "without an image extension"),
        ("labels.csv", "without an image extension"),
        ("beside.png", "outside the class folders"),
    ],
)
def test_skipped_files_are_reported(root, name, reason):
    add(root, name)
    with pytest.warns(UserWarning, match=rf"1 file.*skipped:\n  1 {reason}, such as .*{name}"):
        assert relative(load_image_folder(root), root) == list(PLAIN)


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize("junk", [None, ".DS_Store", "deeper/.DS_Store", "notes.txt"])
@pytest.mark.parametrize("level", [1, "leaf"])
def test_empty_class(root, junk, level):  # fault 36
    (root / "eel" / "deeper").mkdir(parents=True)
    if junk:
        (root / "eel" / junk).write_text("")
    name = "deeper" if level == "leaf" else "eel"
    if level == "leaf":  # another leaf of this name would be the same class
        (root / "cat" / "deeper" / "2.JPG").rename(root / "cat" / "2.JPG")
        (root / "cat" / "deeper").rmdir()
    message = rf"class folder .*{name}' contains no images. Add some or remove it"
    with pytest.raises(ValueError, match=message):
        load_image_folder(root, level=level)


def test_empty_class_with_a_namesake(places):
    (places / "south" / "dog").mkdir()
    (places / "west").mkdir()  # no class folder
    assert load_image_folder(places, level=2).target.tolist() == ["cat", "dog", "cat"]
    (places / "south" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"eel' contains no images"):
        load_image_folder(places, level=2)


@pytest.mark.parametrize("level", [1, 2, "leaf"])
def test_no_classes(root, level):
    with pytest.raises(ValueError, match=r"deeper' has no sub-folder; each class needs one"):
        load_image_folder(root / "cat" / "deeper", level=level)


def test_no_splits(root):
    with pytest.raises(ValueError, match=r"has no sub-folder; with splits=True, each split needs"):
        load_image_folder(root / "dog", splits=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 3}, r"no folders at level 3, .* Change `level`"),
        ({"splits": True, "level": 2}, r"no folders at level 2 below the splits"),
    ],
)
def test_level_too_deep(root, options, message):
    with pytest.raises(ValueError, match=message):
        load_image_folder(root, **options)


@pytest.mark.parametrize("level", [1, "leaf"])
def test_classes_are_taken_for_splits(tmp_path, level):
    add(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(ValueError, match="below the splits, so that no image has a label"):
        load_image_folder(tmp_path, splits=True, level=level)


def test_no_label_at_all(root):
    with pytest.raises(ValueError, match=r"contains no image with a label. Supported .*\.jpeg"):
        load_image_folder(root, level=lambda path: None)


@pytest.mark.parametrize("name", ["missing", "cat/1.png"])
def test_no_folder(root, name):  # fault 25
    with pytest.raises(ValueError, match=f"`path` must be a folder .*; got '.*{name}'"):
        load_image_folder(root / name)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": None}, TypeError, "`path` must be a str or a path; got None"),
        ({"level": 0}, ValueError, "`level` must be an int of at least 1, .*; got 0"),
        ({"level": -1}, ValueError, "`level` must be .*; got -1"),
        ({"level": "leaves"}, ValueError, "`level` must be .*; got 'leaves'"),
        ({"level": True}, TypeError, "`level` must be .*; got True"),
        ({"level": 1.0}, TypeError, "`level` must be .*; got 1.0"),
        ({"level": None}, TypeError, "`level` must be .*; got None"),
        ({"splits": "train"}, TypeError, "`splits` must be True or False; got 'train'"),
        ({"as_frame": 1}, TypeError, "`as_frame` must be True or False; got 1"),
        ({"groups": "place"}, TypeError, "`groups` must be None or a callable .*; got 'place'"),
    ],
)
def test_invalid_parameters(root, options, error, message):
    with pytest.raises(error, match=message):
        load_image_folder(**{"path": root} | options)


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
