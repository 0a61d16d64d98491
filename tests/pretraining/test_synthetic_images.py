"""SyntheticImages: labels in turn, images that depend on seed and index alone."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from torch.utils.data import DataLoader

import pretraining.synthesis
from pretraining.synthesis import SOURCES, SyntheticImages

PARAMETRIC = [name for name in SOURCES if name != "glyphs"]


def draw(dataset, indices=None):
    """Return the images of a dataset (n, 3, S, S) as an array."""
    indices = range(len(dataset)) if indices is None else indices
    return np.stack([dataset[i][0].numpy() for i in indices])


@pytest.fixture(scope="module")
def all_sources(few_fonts):
    """Two classes of each source, three images a class."""
    return SyntheticImages(dict.fromkeys(SOURCES, 2), per_class=3, size=32, fonts=few_fonts)


@pytest.fixture(scope="module")
def all_images(all_sources):
    return draw(all_sources)


def test_public_names():
    assert pretraining.synthesis.__all__ == ["SOURCES", "SyntheticImages", "find_fonts"]
    assert list(SOURCES) == ["contours", "fractals", "glyphs", "leaves", "programs", "spectra"]


# ---------------------------------------------------------------------------- what it holds


def test_lengths_and_labels(all_sources):
    assert all_sources.n_classes == 12
    assert len(all_sources) == 36
    assert [all_sources[i][1] for i in range(36)] == 3 * list(range(12))


def test_class_names(all_sources):
    names = all_sources.class_names
    assert len(names) == len(set(names)) == 12
    assert names[:4] == ["contours 0", "contours 1", "fractals 0", "fractals 1"]
    assert [name.split(" ")[0] for name in names] == sorted(2 * list(SOURCES))
    glyphs = all_sources._sources[2]
    assert names[4:6] == ["glyphs " + "".join(group) for group in glyphs.characters]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("source", SOURCES)
def test_images_of_every_source(source, size, few_fonts):
    dataset = SyntheticImages({source: 3}, per_class=2, size=size, fonts=few_fonts)
    for i in range(6):
        image, label = dataset[i]
        assert image.dtype == torch.uint8
        assert image.shape == (3, size, size)
        assert type(label) is int
        assert label == i % 3
    images = draw(dataset)
    assert images.std() > 10  # of 255
    assert len({image.tobytes() for image in images}) == 6  # also within a class


@pytest.mark.parametrize("source", PARAMETRIC)
def test_a_source_draws_its_own_classes_wherever_it_stands(source, all_sources):
    alone = SyntheticImages({source: 2}, size=32)
    k = list(SOURCES).index(source)
    assert repr(alone._sources[0]._parameters) == repr(all_sources._sources[k]._parameters)
    label = 2 * k + 1
    expected = alone._sources[0].draw(1, np.random.default_rng((0, 12 + label)))
    np.testing.assert_array_equal(all_sources[12 + label][0].permute(1, 2, 0), expected)


def test_order_of_classes_is_the_one_given():
    dataset = SyntheticImages({"spectra": 1, "leaves": 2}, per_class=1, size=16)
    assert dataset.class_names == ["spectra 0", "leaves 0", "leaves 1"]


def test_most_images_are_in_colour(few_fonts):
    dataset = SyntheticImages(dict.fromkeys(SOURCES, 8), per_class=3, size=16, fonts=few_fonts)
    spread = np.ptp(draw(dataset).astype(int), axis=1).mean((1, 2))  # of the three channels
    assert (spread > 10).mean() > 0.6


@pytest.mark.parametrize("source", SOURCES)
def test_classes_can_be_learned(source, few_fonts):
    """Linear discriminants of spectra and contrasts find 4 classes better than chance."""
    dataset = SyntheticImages({source: 4}, per_class=60, size=32, seed=2, fonts=few_fonts)
    gray = draw(dataset).mean(1)  # (n, 32, 32)
    gray -= gray.mean((1, 2), keepdims=True)
    gray /= gray.std((1, 2), keepdims=True) + 1
    n, spectrum = len(gray), np.abs(np.fft.fft2(gray))
    low = np.concatenate([spectrum[:, :9, :9], spectrum[:, -8:, :9]], 1)
    contrast = np.abs(gray).reshape(n, 8, 4, 8, 4).mean((2, 4))
    features = np.hstack([np.log1p(low).reshape(n, -1), contrast.reshape(n, -1)])
    discriminants = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    assert cross_val_score(discriminants, features, np.arange(n) % 4, cv=4).mean() > 0.31


# ------------------------------------------------------------------------------ determinism


def test_same_images_in_any_order(all_sources, all_images):
    order = np.random.default_rng(0).permutation(36)
    np.testing.assert_array_equal(draw(all_sources, order), all_images[order])
    np.testing.assert_array_equal(draw(all_sources, [5, 5]), all_images[[5, 5]])


def test_same_images_whatever_the_global_seeds(all_sources, all_images):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        state = torch.get_rng_state()
        np.testing.assert_array_equal(draw(all_sources, range(12)), all_images[:12])
        assert torch.equal(torch.get_rng_state(), state)


def test_same_images_after_construction_and_pickling(all_sources, all_images, few_fonts):
    again = SyntheticImages(dict.fromkeys(SOURCES, 2), per_class=3, size=32, fonts=few_fonts)
    assert again.class_names == all_sources.class_names
    for copy in (again, pickle.loads(pickle.dumps(all_sources))):
        np.testing.assert_array_equal(draw(copy, range(0, 36, 2)), all_images[::2])


# Python 3.12 and 3.13 warn of forks in a process with threads, torch on machines of one core.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_same_images_in_a_dataloader(n_workers, all_sources, all_images):
    loader = DataLoader(all_sources, batch_size=5, num_workers=n_workers)
    images, labels = map(torch.cat, zip(*loader, strict=True))
    np.testing.assert_array_equal(images, all_images)
    assert labels.tolist() == 3 * list(range(12))


def test_more_images_leave_the_first_as_they_are(all_images, few_fonts):
    more = SyntheticImages(dict.fromkeys(SOURCES, 2), per_class=9, size=32, fonts=few_fonts)
    np.testing.assert_array_equal(draw(more, range(12)), all_images[:12])


def test_other_seeds_draw_other_images(all_images, few_fonts):
    classes = dict.fromkeys(SOURCES, 2)
    other = SyntheticImages(classes, per_class=3, size=32, seed=1, fonts=few_fonts)
    assert (draw(other) != all_images).any((1, 2, 3)).all()


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {"classes": {"photos": 3}},
            ValueError,
            "`classes` must be one of 'contours', .*'photos'. They are",
        ),
        ({"classes": {"leaves": 0}}, ValueError, r"`classes\['leaves'\]` must be .* 1; got 0"),
        ({"classes": {"leaves": 1.5}}, TypeError, r"`classes\['leaves'\]` must be an int"),
        ({"classes": {"glyphs": None}}, TypeError, r"`classes\['glyphs'\]` must be an int"),
        ({"classes": {}}, ValueError, "`classes` names no source; use"),
        ({"classes": ["leaves"]}, TypeError, r"`classes` must be a dict .*; got \['leaves'\]"),
        ({"per_class": 0}, ValueError, "`per_class` must be an int of at least 1; got 0"),
        ({"size": 15}, ValueError, "`size` must be an int of at least 16; got 15"),
        ({"size": 32.0}, TypeError, "`size` must be an int"),
        ({"seed": -1}, ValueError, "`seed` must be an int of at least 0; got -1"),
    ],
)
def test_wrong_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        SyntheticImages(**{"classes": {"leaves": 1}} | parameters)


def test_glyphs_need_fonts(tmp_path):
    with pytest.raises(ValueError, match="No fonts"):
        SyntheticImages({"glyphs": 2}, fonts=tmp_path)
    assert len(SyntheticImages({"leaves": 2}, fonts=tmp_path)) == 200  # others need none


@pytest.mark.parametrize("index", [-1, 6, np.int64(6), torch.tensor(7)])
def test_index_out_of_range(index):
    dataset = SyntheticImages({"spectra": 3}, per_class=2, size=16)
    with pytest.raises(IndexError, match=r"`index` must be in \[0, 5\]; got"):
        dataset[index]
    assert len(list(dataset)) == 6  # a loop ends


def test_index_is_an_integer():
    dataset = SyntheticImages({"spectra": 3}, per_class=2, size=16)
    for index in (np.int64(4), torch.tensor(4)):
        assert torch.equal(dataset[index][0], dataset[4][0])
    with pytest.raises(TypeError, match="float"):
        dataset[1.5]
