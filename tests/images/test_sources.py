"""Sources: the same picture in every form gives the same batch (B, 3, S, S)."""

import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from sklearn_rrr.images.decoding import BadImages
from sklearn_rrr.images.forms import DatasetImages, sort_input
from sklearn_rrr.images.image_format import ImageFormat
from sklearn_rrr.images.sources import as_unit_float, make_source

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 9, 12, 3), dtype=np.uint8)
RGB[0, 0, 0], RGB[0, 0, 1] = 0, 255  # the range does not depend on the draw
GRAY = RGB[..., 0].copy()
UNIT = (RGB / 255).astype(np.float32)


def load(X, size=8, *, fitted=None, **options):
    """Return all images of X, as unit floats."""
    source = make_source(*sort_input(X), fitted=fitted, **options)
    return as_unit_float(source.load(np.arange(len(source)), size))


def assert_same(X, expected, atol=0.0, **options):
    torch.testing.assert_close(load(X, **options), load(expected), rtol=0, atol=atol)


class Items(Dataset):
    """A Dataset that notes the threads that ask it."""

    def __init__(self, items):
        self.items, self.threads = items, set()

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.threads.add(threading.get_ident())
        return self.items[i]


def with_alpha(images, alpha=255):
    return np.concatenate([images, np.full_like(images[..., :1], alpha)], axis=-1)


def memory_map(X, path):
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


# ---------------------------------------------------------------------------------- arrays


def test_unit_scale():
    images = load(RGB[:, :, :9], 9)
    np.testing.assert_array_equal(images, UNIT[:, :, :9].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "X",
    [
        RGB.transpose(0, 3, 1, 2),  # fault 8
        with_alpha(RGB),  # fault 9
        with_alpha(RGB).transpose(0, 3, 1, 2),
        torch.tensor(RGB),  # fault 14
        torch.tensor(RGB).permute(0, 3, 1, 2),
        RGB.tolist(),
        list(RGB),  # fault 7
        [image.transpose(2, 0, 1) for image in RGB],
        [Image.fromarray(image) for image in RGB],
        [torch.tensor(image).permute(2, 0, 1) for image in RGB],
        Items([(Image.fromarray(image), 0) for image in RGB]),
        Items([image.astype(int) for image in RGB]),
        RGB.astype(np.int64),
        RGB.astype(">i4"),
        np.asfortranarray(RGB),  # fault 12
        np.repeat(RGB, 2, axis=0)[::2],
        RGB[:, ::-1].copy()[:, ::-1],
        read_only(RGB),
    ],
)
def test_one_picture_in_many_forms(X):
    assert_same(X, RGB)


@pytest.mark.parametrize("make", [np.asarray, list], ids=["array", "list"])
@pytest.mark.parametrize(
    ("dtype", "atol"), [("f4", 0), ("f8", 1e-7), (">f8", 1e-7), ("f2", 5e-3), ("longdouble", 1e-7)]
)
def test_unit_floats(make, dtype, atol):  # fault 5
    assert_same(make(UNIT.astype(dtype)), RGB, atol=5e-3)  # 8 bits are rounded
    assert_same(make(UNIT.astype(dtype)), UNIT, atol=atol)


@pytest.mark.parametrize("make", [np.asarray, list, Items], ids=["array", "list", "dataset"])
def test_bool(make):  # fault 5
    assert_same(make(GRAY > 99), (GRAY > 99).astype(np.float32))


@pytest.mark.parametrize("make", [np.asarray, list], ids=["array", "list"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_uint16(make, dtype):  # fault 6
    with pytest.warns(UserWarning, match="16-bit pixels are divided by 65535"):
        assert_same(make((GRAY * np.uint16(257)).astype(dtype)), GRAY / 255, atol=1e-6)


@pytest.mark.parametrize("make", [np.asarray, list], ids=["array", "list"])
def test_floats_of_8_bits(make):  # fault 4
    with pytest.warns(UserWarning, match=r"assumed to lie in \[0, 255\] and are divided by 255"):
        assert_same(make(RGB.astype(np.float32)), UNIT, atol=1e-6)


def test_memory_map(tmp_path):  # fault 12
    assert_same(memory_map(RGB, tmp_path / "X.npy"), RGB)


@pytest.mark.parametrize(
    "X", [GRAY[:, None], GRAY[..., None], list(GRAY), np.stack([GRAY] * 3, -1)]
)
def test_gray_is_repeated(X):  # fault 9
    assert_same(X, GRAY)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 1.0), (255, 0.0), (51, 0.8)])
def test_alpha_on_white(alpha, expected):  # fault 9
    black = with_alpha(np.zeros((1, 9, 9, 3), np.uint8), alpha)
    torch.testing.assert_close(load(black), torch.full((1, 3, 8, 8), expected))
    torch.testing.assert_close(load(black / 255), torch.full((1, 3, 8, 8), expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (3, 700)])
@pytest.mark.parametrize("make", [np.asarray, Image.fromarray], ids=["array", "pil"])
def test_extreme_shapes(make, shape):  # fault 33
    images = load([make(np.full(shape, 51, np.uint8))])
    torch.testing.assert_close(images, torch.full((1, 3, 8, 8), 0.2))


def test_rows():
    rows = GRAY.reshape(4, -1)
    assert_same(rows, GRAY, image_shape=(9, 12))
    flat = RGB.transpose(0, 3, 1, 2).reshape(4, -1)
    assert_same(flat, RGB, image_shape=(3, 9, 12))


@pytest.mark.parametrize("dtype", ["f8", "u1", "u2", "i8", "f4"])
def test_rows_that_are_no_pixels_keep_their_scale(dtype):
    table = np.array([[10, 20, 30, 40, 50, 210]])
    fitted = make_source("rows", table - 0.0, image_shape=(1, -1)).format
    assert (fitted.black, fitted.scale) == (10, 200)
    source = make_source("rows", table.astype(dtype), fitted=fitted)
    np.testing.assert_allclose(source.load([0], 6)[0, 0, 0], (table[0] - 10) / 200, rtol=1e-6)


@pytest.mark.parametrize(
    ("X", "cure"),
    [(GRAY.reshape(4, -1), "Reshape the rows to images"), (GRAY[0], ".* needs the batch axis")],
)
def test_rows_after_images(X, cure):  # fault 10
    with pytest.raises(ValueError, match=rf"is 2-D.*fitted on images. {cure}"):
        make_source("rows", X, fitted=ImageFormat("array", (9, 12)))


def test_bool_after_floats_of_8_bits():
    assert_same(GRAY > 99, (GRAY > 99) / 1.0, fitted=ImageFormat("array", (9, 12), scale=255))


# ---------------------------------------------------------------------------------- items


def test_files_in_many_threads_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, RGB, strict=True):
        Image.fromarray(image).save(path)
    assert_same([*paths, RGB[0], *paths[::-1]], RGB[[0, 1, 2, 3, 0, 3, 2, 1, 0]])


def test_mixed_kinds_and_modes(tmp_path):  # faults 7 and 31
    path = tmp_path / "a.png"
    Image.fromarray(RGB[0]).save(path)
    deep = Image.fromarray(GRAY[0] * np.uint16(257))
    mixed = [path, str(path), UNIT[0], torch.tensor(GRAY[0]), deep, Image.fromarray(GRAY[0] > 99)]
    with pytest.warns(UserWarning, match="16-bit pixels are divided by 65535"):
        images = load(mixed)
    assert images.shape == (6, 3, 8, 8)
    for i, expected in enumerate([RGB[0], RGB[0], UNIT[0], GRAY[0], GRAY[0], GRAY[0] > 99]):
        torch.testing.assert_close(
            as_unit_float(images[i : i + 1]), as_unit_float(load([expected]))
        )


def test_mixed_sizes():  # fault 7
    crops = [RGB[0], RGB[1, :6], RGB[2, :, :5], RGB[3, 2:8, :10]]
    expected = torch.cat([load(crop[np.newaxis]) for crop in crops])
    torch.testing.assert_close(load(crops), expected)


def test_unlike_scales_are_refused():
    with pytest.raises(ValueError, match="Some images of X are floats and some are integers"):
        load([UNIT[0], RGB[1].astype(int)])


def test_dark_image_has_the_scale_of_its_list():
    with pytest.warns(UserWarning, match="divided by 255"):
        images = load([np.full((9, 9), 255.0), np.full((9, 9), 1.0)])
    torch.testing.assert_close(images[1, 0, 0, 0], torch.tensor(1 / 255))


def test_lazy_image_many_times(tmp_path, monkeypatch):
    """Pillow's lazy images are not to be decoded by two threads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    big = RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / "a.png")
    for _ in range(5):
        with Image.open(tmp_path / "a.png") as image:
            assert_same([image] * 6, big[np.newaxis].repeat(6, 0))


def test_dataset_is_asked_in_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    items = Items(list(RGB))
    assert_same(items, RGB)
    assert items.threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.full((4, 4), np.nan), "it contains NaN"),  # fault 2
        (np.full((4, 4), np.inf), "it contains infinity"),
        (np.full((4, 4), 300.0), r"it has the range \[300, 300\]"),  # fault 3
        (np.full((4, 4), -1), "Negative values"),
        (np.zeros((4, 0)), r"must be a path, a PIL image or numbers.*\(4, 0\)"),
        (np.zeros((6, 6, 2)), "must have 1, 3 or 4 channels"),  # fault 9
        (np.zeros((3, 9, 3)), "channels first or last"),  # fault 8
        (np.zeros((4, 4), complex), "got a ndarray of dtype complex128"),  # fault 11
        (np.zeros(4), "must be a path, a PIL image"),
        (None, r"is missing \(None\)"),
        ({}, "must be a path, a PIL image or numbers.*; got a dict"),
        (Image.new("LAB", (2, 2)), "mode 'LAB'"),
    ],
)
def test_bad_items_are_named(item, message):
    X = [RGB[0], item, RGB[1], item]
    with pytest.raises(BadImages, match="image 1: .*" + message) as info:
        load(X)
    assert [i for i, _ in info.value.bad] == [1, 3]


def test_bad_lazy_image_is_named(tmp_path):  # fault 26
    path = tmp_path / "a.png"
    Image.fromarray(RGB[0]).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with Image.open(path) as image, pytest.raises(BadImages, match=r"image 0: .*truncated"):
        load([image])


def test_selected_items_keep_their_numbers():
    source = make_source("items", [RGB[0], RGB[1], np.zeros(3)]).select(np.array([1, 2]))
    with pytest.raises(BadImages, match="image 2: must be") as info:
        source.load(np.arange(2), 8)
    assert info.value.bad[0][0] == 1  # its place in the selection


@pytest.mark.parametrize(
    ("item", "message"),
    [(RGB[0] * 2.0, r"\[0, 510\], but pixels"), (RGB[0] * 257.0, r"\[0, 65535\], but pixels")],
)
def test_dataset_of_unlike_scale(item, message):  # fault 3
    with pytest.raises(BadImages, match=f"image 1: .*{message}"):
        load(Items([UNIT[0], item]))


def test_dataset_is_measured_as_a_list_is():  # fault 64
    items = [UNIT[0], UNIT[1] * 255]
    with pytest.warns(UserWarning, match=r"assumed to lie in \[0, 255\]"):
        expected = load(items)
    with pytest.warns(UserWarning, match=r"assumed to lie in \[0, 255\]"):
        torch.testing.assert_close(load(Items(items)), expected)


def test_dataset_reads_like_fit():
    fitted = make_source("items", [UNIT[0]]).format
    assert fitted.scale == 1
    with pytest.raises(BadImages, match=r"values up to \d+, expected \[0, 1\]"):
        load(Items([RGB[0].astype(int)]), fitted=fitted)


def test_select_from_dataset_is_lazy():
    items = Items(list(RGB))
    fitted = ImageFormat("items")
    source = make_source("items", DatasetImages(items), fitted=fitted).select(np.array([3, 1]))
    assert items.threads == set()
    torch.testing.assert_close(as_unit_float(source.load([0], 8)), load(RGB[3:]))


@pytest.mark.parametrize("X", [[], np.zeros((0, 8, 8)), Items([])])
def test_empty(X):  # fault 1
    with pytest.raises(ValueError, match=r"0 sample\(s\)|at least 1 sample"):
        load(X)


def test_no_warning_for_8_bits_and_unit_floats():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for X in (RGB, UNIT, list(RGB), list(UNIT)):
            assert load(X).shape == (4, 3, 8, 8)
    assert caught == []
