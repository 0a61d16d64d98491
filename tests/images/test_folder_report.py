"""The summary of image files: its line, sizes, bad files and duplicates."""

import io
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.utils import Bunch

from sklearn_rrr import load_image_folder, report_images
from sklearn_rrr.images.decoding import decode_file, read_size

RNG = np.random.default_rng(0)


def draw(path, width=8, height=6, seed=None, **options):
    """Save an image of noise; the same seed gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = RNG if seed is None else np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two splits of two classes with one bad file and three groups of duplicates."""
    draw(tmp_path / "train/cat/1.png", 8, 6, seed=1)
    draw(tmp_path / "train/cat/2.png", 8, 6, seed=2)
    draw(tmp_path / "train/cat/3.jpg", 30, 40)
    draw(tmp_path / "train/dog/1.png", 8, 6, seed=1)  # another label
    draw(tmp_path / "test/cat/2.png", 8, 6, seed=2)  # another split
    draw(tmp_path / "test/dog/4.png", 8, 6, seed=4)
    draw(tmp_path / "test/dog/5.png", 8, 6, seed=4)
    draw(tmp_path / "test/dog/6.bmp", 4, 4)
    draw(tmp_path / "test/dog/7.bmp", 4, 4)  # the same length, another content
    (tmp_path / "test/cat/bad.png").write_bytes(b"")
    return tmp_path


def test_report_of_a_bunch(folder):
    bunch = load_image_folder(folder, splits=True)
    report = report_images(bunch)
    assert str(report) == (
        "10 images of 2 classes (5 each), 4x4 to 30x40 pixels, 1 bad file, 3 groups of "
        "duplicates, 1 of them across splits, 1 of them across labels"
    )
    assert repr(report) == f"<ImageReport: {report}>"
    assert report.n_images == 10
    assert report.counts == {"cat": 5, "dog": 5}
    assert report.bad == [(str(folder / "test/cat/bad.png"), "is empty")]
    twins = [("test/cat/2.png", "train/cat/2.png"), ("test/dog/4.png", "test/dog/5.png")]
    twins += [("train/cat/1.png", "train/dog/1.png")]
    twins = [[str(folder / name) for name in names] for names in twins]
    assert report.duplicates == twins
    assert report.across_splits == twins[:1]
    assert report.across_labels == twins[2:]


def test_sizes_are_those_of_the_readable_files_in_order(folder):
    bunch = load_image_folder(folder, splits=True)
    report = report_images(bunch)
    bad = [path for path, _ in report.bad]
    shapes = [decode_file(path)[0].shape for path in bunch.paths if path not in bad]
    assert report.sizes.dtype == int
    assert report.sizes.tolist() == [[width, height] for height, width, _ in shapes]


@pytest.mark.parametrize("form", [list, np.array, pd.Series, tuple])
def test_separate_arrays(folder, form):
    bunch = load_image_folder(folder, splits=True)
    report = report_images(form(bunch.paths), form(bunch.target), form(bunch.split))
    assert str(report) == str(report_images(bunch))
    assert report.across_labels == report_images(bunch).across_labels


def test_arguments_replace_those_of_the_bunch(folder):
    bunch = load_image_folder(folder, splits=True)
    n = len(bunch.paths)
    report = report_images(bunch, target=np.arange(n), split=["one"] * n)
    assert len(report.counts) == n
    assert report.across_splits == []
    assert report.across_labels == report.duplicates != []


def test_without_labels_and_splits(folder):
    bunch = load_image_folder(folder, splits=True)
    report = report_images(bunch.paths)
    assert str(report) == "10 images, 4x4 to 30x40 pixels, 1 bad file, 3 groups of duplicates"
    assert report.counts == {}
    assert report.across_splits == report.across_labels == []


@pytest.mark.parametrize(
    ("sizes", "labels", "line"),
    [
        ([(8, 6)], ["a"], "1 image of 1 class (1 each), 8x6 pixels, no bad files, no duplicates"),
        (
            [(8, 6), (9, 9), (6, 8)],
            [3, 3, 5],
            "3 images of 2 classes (1 to 2 each), 8x6 to 9x9 pixels, no bad files, no duplicates",
        ),
    ],
)
def test_line(tmp_path, sizes, labels, line):
    paths = [draw(tmp_path / f"{i}.png", *size) for i, size in enumerate(sizes)]
    assert str(report_images(paths, labels)) == line


def test_no_images():
    report = report_images([], [], [])
    assert str(report) == "no images, no bad files, no duplicates"
    assert report.sizes.shape == (0, 2)


def test_most_frequent_label_comes_first(tmp_path):
    path = draw(tmp_path / "1.png")
    report = report_images([path] * 6, ["b", "c", "a", "c", "a", "c"])
    assert list(report.counts.items()) == [("c", 3), ("a", 2), ("b", 1)]
    assert report.duplicates == [[str(path)] * 6]


def test_bad_files_are_no_duplicates(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_text("<html>404</html>")
    paths = [tmp_path / "1.png", tmp_path / "2.png", tmp_path / "missing.png", tmp_path]
    report = report_images(paths)
    assert report.duplicates == []
    assert [path for path, _ in report.bad] == [str(path) for path in paths]
    reasons = [reason for _, reason in report.bad]
    assert reasons[0].startswith("is not an image of a known format")
    assert reasons[2] == "no such file"
    assert reasons[3].startswith("is a directory or device")


def test_large_equal_files_differ_late(tmp_path):
    """Files of more than one block of the hash."""
    image = Image.new("RGB", (800, 600))
    paths = [tmp_path / f"{i}.bmp" for i in range(3)]
    image.save(paths[0])
    shutil.copy(paths[0], paths[1])
    image.putpixel((799, 0), (1, 2, 3))  # BMP files end with the first row
    image.save(paths[2])
    assert report_images(paths).duplicates == [[str(path) for path in paths[:2]]]


def test_without_decoding(tmp_path):
    path = draw(tmp_path / "1.jpg", 64, 48)
    path.write_bytes(path.read_bytes()[:-100])
    ((_, reason),) = report_images([path]).bad
    assert reason.startswith("is damaged (")
    report = report_images([path], decode=False)
    assert report.bad == []
    assert report.sizes.tolist() == [[64, 48]]


def test_report_cannot_be_changed(folder):
    report = report_images([folder / "train/cat/1.png"])
    with pytest.raises(FrozenInstanceError):
        report.n_images = 3


def test_needs_no_torch(folder):
    code = f"""
import sys
import sklearn_rrr
bunch = sklearn_rrr.load_image_folder({str(folder)!r}, splits=True)
assert len(sklearn_rrr.report_images(bunch).bad) == 1
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("photos",), TypeError, "must be a sequence of paths .*; got 'photos'. List a folder by"),
        ((3,), TypeError, "must be a sequence of paths .*; got a int"),
        ((Bunch(data=[]),), TypeError, "must be a sequence of paths .*; got a NoneType"),
        (([np.zeros((2, 2))],), TypeError, "must be a sequence of paths .*; got a list"),
        ((pd.DataFrame({"path": ["a"]}),), TypeError, r'got a DataFrame. .*frame\["path"\]'),
        ((["a"], ["x", "y"]), ValueError, "`target` must have one entry for .* 1 paths; got 2"),
        ((["a"], None, []), ValueError, "`split` must have one entry for .* 1 paths; got 0"),
    ],
)
def test_invalid_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        report_images(*arguments)


def test_decode_is_a_bool():
    with pytest.raises(TypeError, match="`decode` must be True or False; got 'header'"):
        report_images([], decode="header")


# ------------------------------------------------------------------------------ read_size


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_size_is_that_of_the_upright_image(tmp_path, suffix, orientation, decode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = draw(tmp_path / f"1.{suffix}", 40, 24, exif=exif)
    height, width = decode_file(path)[0].shape[:2]
    assert {width, height} == {40, 24}
    assert read_size(path, decode) == (width, height)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 100), (100, 3)])
def test_size_of_small_files(tmp_path, size, decode):
    assert read_size(draw(tmp_path / "1.jpg", *size), decode) == size


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    "exif",
    [
        b"no tiff header",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\0\0\0\0\0\0\0",  # orientation as text
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_broken_exif_block_does_not_make_a_file_bad(tmp_path, suffix, exif, decode):
    path = draw(tmp_path / f"1.{suffix}", 40, 24, exif=b"Exif\0\0" + exif)
    assert read_size(path, decode) == (40, 24)


@pytest.mark.parametrize("decode", [False, True])
def test_limit_of_pixels(tmp_path, decode):
    path = draw(tmp_path / "1.png", 40, 24)
    assert read_size(path, decode, max_pixels=960) == (40, 24)
    with pytest.raises(ValueError, match=r"1.png': has 960 pixels.*`max_image_pixels`=959"):
        read_size(path, decode, max_pixels=959)


def test_checksums_of_png_files_are_checked_without_decoding(tmp_path):
    path = draw(tmp_path / "1.png", 40, 24)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1.png': is damaged"):
        read_size(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_reduced_jpeg_files_show_the_same_damage(tmp_path, mode, options):
    """Decoding an eighth of the size refuses the files that decoding all of it refuses."""
    buffer, path, refused = io.BytesIO(), tmp_path / "1.jpg", []
    pixels = Image.fromarray(RNG.integers(0, 256, (60, 90, 3), np.uint8)).convert(mode)
    pixels.save(buffer, format="JPEG", **options)
    data = buffer.getvalue()
    cut = [data[:-n] for n in (1, 2, 3, 50, 500)] + [data[: len(data) // 2]]
    changed = [bytearray(data) for _ in range(30)]
    for damaged in changed:
        for place in RNG.integers(len(data), size=6):
            damaged[place] = RNG.integers(256)
    for damaged in [data, *cut, *changed]:
        path.write_bytes(damaged)
        refused.append((is_refused(decode_file, path), is_refused(read_size, path, True)))
    assert set(refused) == {(False, False), (True, True)}
    assert refused[0] == (False, False)
    assert refused[1 : 1 + len(cut)] == [(True, True)] * len(cut)


def is_refused(read, *arguments):
    try:
        read(*arguments)
    except ValueError:
        return True
    return False
