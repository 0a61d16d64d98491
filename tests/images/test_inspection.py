"""The pass before epoch 1: every bad file at once, doubtful labels, a bounded cache."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from sklearn_rrr.images import inspection
from sklearn_rrr.images.decoding import BadImages
from sklearn_rrr.images.forms import sort_input
from sklearn_rrr.images.inspection import TensorImages, inspect_images
from sklearn_rrr.images.sources import make_source

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Broken(Dataset):
    """A Dataset of arrays, two of which cannot be read."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        if i in (1, 3):
            raise RuntimeError("decode failed")
        return IMAGES[i], LABELS[i]


@pytest.fixture
def paths(tmp_path):
    """Six images, of which number 1 is text and number 3 is truncated."""
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    tmp_path.joinpath("1.png").write_text("no image")
    data = tmp_path.joinpath("3.png").read_bytes()
    tmp_path.joinpath("3.png").write_bytes(data[: len(data) // 2])
    return paths


def inspect(X, labels=LABELS, on_bad_file="raise", size=8):
    source = make_source(*sort_input(X))
    return inspect_images(source, np.asarray(labels), size, on_bad_file)


def load_all(source):
    return source.load(np.arange(len(source)), 8).numpy().transpose(0, 2, 3, 1)


def test_all_good():
    found = inspect(IMAGES)
    assert found.skipped == []
    assert found.kept.tolist() == list(range(6))
    assert isinstance(found.source, TensorImages)
    np.testing.assert_array_equal(load_all(found.source), IMAGES)
    np.testing.assert_array_equal(load_all(found.source.select(np.array([4, 2]))), IMAGES[[4, 2]])


@pytest.mark.parametrize(
    ("X", "n_bytes", "cached"),
    [
        (IMAGES, 6 * 3 * 64, True),
        (IMAGES, 6 * 3 * 64 - 1, False),
        (IMAGES / 300, 4 * 6 * 3 * 64, True),
        (IMAGES / 300, 4 * 6 * 3 * 64 - 1, False),  # floats take four bytes
    ],
)
def test_cache_is_bounded(monkeypatch, X, n_bytes, cached):
    monkeypatch.setattr(inspection, "CACHE_BYTES", n_bytes)
    assert isinstance(inspect(X).source, TensorImages) is cached


def test_cache_of_bytes_and_floats(monkeypatch):
    monkeypatch.setattr(inspection, "CHUNK", 2)
    found = inspect([*IMAGES[:3], *(IMAGES[3:] / 300)])
    images = load_all(found.source)
    np.testing.assert_allclose(images[:3], IMAGES[:3] / 255, atol=1e-6)
    np.testing.assert_allclose(images[3:], IMAGES[3:] / 300, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_every_bad_file_is_listed(paths, monkeypatch, chunk):  # faults 26 and 39
    monkeypatch.setattr(inspection, "CHUNK", chunk)
    with pytest.raises(BadImages) as info:
        inspect(paths)
    assert [i for i, _ in info.value.bad] == [1, 3]
    lines = str(info.value).splitlines()
    assert lines[0] == "2 of 6 image(s) cannot be used:"
    assert [paths[1] in lines[1], paths[3] in lines[2]] == [True, True]


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_skip(paths, monkeypatch, chunk):  # fault 26
    monkeypatch.setattr(inspection, "CHUNK", chunk)
    with pytest.warns(UserWarning, match=r"2 image.s. were skipped, see skipped_") as caught:
        found = inspect(paths, on_bad_file="skip")
    assert len(caught) == 1
    assert paths[1] in str(caught[0].message)
    assert paths[3] in str(caught[0].message)
    assert found.skipped == [paths[1], paths[3]]
    assert found.kept.tolist() == [0, 2, 4, 5]
    np.testing.assert_array_equal(load_all(found.source), IMAGES[[0, 2, 4, 5]])


def test_skip_in_a_list_of_arrays():  # fault 2
    X = [*(IMAGES[:2] / 255), np.full((4, 4), np.nan), IMAGES[2] / 255]
    with pytest.warns(UserWarning, match="image 2: it contains NaN"):
        found = inspect(X, LABELS[:4], "skip")
    assert found.skipped == [X[2]]
    np.testing.assert_array_equal(load_all(found.source), IMAGES[:3])  # 8 bits, as floats or bytes


def test_skip_in_a_dataset():
    with pytest.warns(UserWarning, match="image 1: the Dataset raised RuntimeError: decode failed"):
        found = inspect(Broken(), on_bad_file="skip")
    assert found.skipped == [1, 3]
    np.testing.assert_array_equal(load_all(found.source), IMAGES[[0, 2, 4, 5]])


def test_nothing_is_left(paths):
    with pytest.raises(BadImages, match="2 of 2"):
        inspect([paths[1], paths[3]], LABELS[:2], "skip")


@pytest.mark.parametrize("on_bad_file", ["raise", "skip"])
@pytest.mark.parametrize("cached", [True, False])
def test_one_image_under_two_labels(paths, monkeypatch, on_bad_file, cached):  # fault 37
    monkeypatch.setattr(inspection, "CACHE_BYTES", 2**20 if cached else 0)
    X, labels = [paths[0], paths[2], paths[0], paths[2], paths[0]], [0, 1, 1, 1, 0]
    if on_bad_file == "skip":
        X, labels = [*X, paths[1]], [*labels, 0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inspect(X, labels, on_bad_file)
    texts = [str(w.message) for w in caught]
    assert (
        sum("1 image(s) repeat an earlier image with another label" in text for text in texts) == 1
    )
    assert len(texts) == (2 if on_bad_file == "skip" else 1)


def test_one_image_twice_under_one_label(paths):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = inspect([paths[0], paths[0], paths[2]], [0, 0, 1])
    assert caught == []
    np.testing.assert_array_equal(load_all(found.source), IMAGES[[0, 0, 2]])


@pytest.mark.parametrize("opened", [False, True], ids=["path", "pil"])
def test_animated(tmp_path, opened):  # fault 32
    frames = [Image.new("L", (8, 8), value) for value in (50, 200)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    item, name = (Image.open(path), "image 1") if opened else (path, path)
    with pytest.warns(UserWarning, match=rf"several frames, such as {name}; only one"):
        found = inspect([frames[1], item], LABELS[:2])
    assert load_all(found.source)[:, 0, 0, 0].tolist() == [200, 50]
    if opened:
        item.close()


def test_damage_after_the_check(paths, monkeypatch):  # fault 38
    monkeypatch.setattr(inspection, "CACHE_BYTES", 0)
    source = inspect([paths[0], paths[2]], [0, 1]).source
    assert torch.equal(source.load([0], 8)[0], torch.tensor(IMAGES[0]).permute(2, 0, 1))
    with open(paths[2], "w") as file:
        file.write("")
    with pytest.raises(BadImages, match=r"2.png': is empty"):
        source.load([1], 8)
