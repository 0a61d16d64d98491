"""Bad files and Datasets, end to end: what is refused is named, nothing is left out in silence."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV

from sklearn_rrr.images import inspection
from sklearn_rrr.images.decoding import BadImages

RNG = np.random.default_rng(0)


def assert_refused(estimator, X, y, message, kind=ValueError):
    """Assert that fit refuses, before any epoch."""
    with pytest.raises(kind, match=message):
        estimator.fit(X, y)
    assert not hasattr(estimator, "module_")


@pytest.fixture
def damage():
    """Return functions that make each kind of bad file of a good one."""

    def truncate(path):
        Image.fromarray(RNG.integers(0, 256, (32, 32, 3), np.uint8)).save(path, format="JPEG")
        path.write_bytes(path.read_bytes()[:-500])

    return {
        "missing": lambda path: path.unlink(),
        "directory": lambda path: (path.unlink(), path.mkdir()),
        "zero bytes": lambda path: path.write_bytes(b""),
        "html": lambda path: path.write_text("<html>404</html>"),
        "truncated": truncate,
        "eps": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"),
    }


def test_every_bad_file_is_named(small, digit_paths, damage):  # faults 25, 26, 28 and 39
    paths, y = digit_paths
    fitted = small(max_epochs=1).fit(paths, y)
    bad = paths[3:33:5]
    for path, spoil in zip(bad, damage.values(), strict=True):
        spoil(path)
    seen = []
    refused = small(augmentation=seen.append)
    for call in (lambda: refused.fit(paths, y), lambda: fitted.predict(paths)):
        with pytest.raises(BadImages, match=r"6 of 40 image\(s\) cannot be used") as info:
            call()
        lines = [line for line in str(info.value).splitlines() if line.startswith("  ")]
        assert [line.split(":")[0].strip() for line in lines] == [repr(str(path)) for path in bad]
    assert seen == []  # no epoch was begun
    assert not hasattr(refused, "module_")


def test_skipped_files(small, digit_paths, damage):  # fault 26
    paths, y = digit_paths
    bad = [paths[2], paths[30]]
    for path in bad:
        damage["truncated"](path)
    with pytest.warns(UserWarning, match=r"2 image.s. were skipped, see skipped_"):
        fitted = small(on_bad_file="skip").fit(paths, y)
    assert fitted.skipped_ == bad
    good = [path for path in paths if path not in bad]
    expected = small().fit(good, y[[path not in bad for path in paths]])
    np.testing.assert_array_equal(fitted.predict_proba(good), expected.predict_proba(good))
    with pytest.raises(BadImages, match="2 of 40"):  # predict always raises
        fitted.predict(paths)


def test_one_of_many_is_corrupt(small, digit_paths, tmp_path):  # fault 39
    paths, y = digit_paths
    many, labels = paths * 50, np.tile(y, 50)
    many[1234] = tmp_path / "gone.png"
    with pytest.raises(
        BadImages, match=r"1 of 2000 image\(s\).*\n.*gone.png': no such file\n.*skip"
    ):
        small(augmentation=pytest.fail).fit(many, labels)


@pytest.mark.parametrize("kind", ["missing", "truncated", "zero bytes"])
def test_damage_between_check_and_use(small, digit_paths, damage, monkeypatch, kind):  # fault 38
    paths, y = digit_paths
    monkeypatch.setattr(inspection, "CACHE_BYTES", 0)

    def spoil(image):
        if paths[5].exists() and kind != "done":
            damage[kind](paths[5])
        return image

    with pytest.raises(BadImages, match=r"1 image.s. cannot be used:\s+.*5.png': (no such|is )"):
        small(augmentation=spoil, max_epochs=3).fit(paths, y)


def test_forms_of_paths(small, digits, digit_paths):  # faults 27 and 34
    paths, y = digit_paths
    odd = [path.with_name(f"Ünï cödé {path.stem} 图.jpg") for path in paths]  # PNG named .jpg
    for path, name in zip(paths, odd, strict=True):
        path.rename(name)
    names = list(map(str, odd))
    expected = small(max_epochs=1).fit(digits[0][:40], y).predict_proba(digits[0][:40])
    for form in (
        odd,
        names,
        np.array(names),
        np.array(odd, dtype=object),
        np.array(names)[:, None],
        pd.Series(names, index=range(40, 0, -1)),
        pd.DataFrame({"path": names}),
    ):
        fitted = small(max_epochs=1).fit(form, y)
        np.testing.assert_array_equal(fitted.predict_proba(form), expected)
        assert not hasattr(fitted, "n_features_in_")


def test_bomb(small, digit_paths):  # fault 29
    paths, y = digit_paths
    Image.new("1", (400, 400)).save(paths[4])
    assert_refused(small(max_image_pixels=10_000), paths, y, "4.png': has 160000 pixels, more than")
    assert small(max_epochs=1).fit(paths, y).predict(paths).shape == (40,)


def test_orientation(small, digits, digit_paths):  # fault 30
    paths, y = digit_paths
    exif = Image.Exif()
    exif[0x0112] = 6
    expected = small().fit(digits[0][:40], y)
    for path, image in zip(paths, digits[0], strict=False):
        Image.fromarray(np.rot90(image)).save(path, exif=exif)
    np.testing.assert_array_equal(
        expected.predict_proba(paths), expected.predict_proba(digits[0][:40])
    )


def test_modes(small, digits):  # fault 31
    X, y = digits
    fitted = small().fit(X, y)
    image = Image.fromarray(X[0])
    deep = Image.fromarray(X[0] * np.uint16(257))
    unit = Image.fromarray((X[0] / 255).astype(np.float32))
    modes = [image, image.convert("RGB"), image.convert("RGBA"), image.convert("P"), deep, unit]
    with pytest.warns(UserWarning, match="16-bit pixels are divided by 65535"):
        probabilities = fitted.predict_proba(modes)
    np.testing.assert_allclose(probabilities, probabilities[:1].repeat(6, 0), atol=2e-2)


def test_animated(small, digit_paths):  # fault 32
    paths, y = digit_paths
    frames = [Image.open(path).convert("L") for path in paths[:2]]
    frames[0].save(paths[0], format="GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"several frames, such as .*0.png; only one"):
        fitted = small(max_epochs=1).fit(paths, y)
    expected = fitted.predict_proba(frames[:1])
    with pytest.warns(UserWarning, match="several frames"):
        np.testing.assert_allclose(fitted.predict_proba(paths[:1]), expected, atol=1e-6)


def test_one_image_under_two_labels(small, digits):  # fault 37
    X, y = digits
    with pytest.warns(UserWarning, match=r"1 image.s. repeat an earlier image with another"):
        fitted = small(max_epochs=1).fit(np.concatenate([X, X[:1]]), [*y, (y[0] + 1) % 4])
    assert fitted.predict(X).shape == (120,)


# -------------------------------------------------------------------------------- Datasets


def test_bad_items_of_a_dataset(small, digits, picture_dataset):  # faults 26 and 39
    X, y = digits
    broken = picture_dataset(X, y, broken=(3, 70))
    for target in (y, None):
        assert_refused(small(), broken, target, r"2 of 120 .*\n.*image 3: the Dataset raised OSErr")
    with pytest.warns(UserWarning, match="image 70: the Dataset raised OSError"):
        fitted = small(on_bad_file="skip").fit(broken, y)
    assert fitted.skipped_ == [3, 70]
    keep = np.setdiff1d(np.arange(120), [3, 70])
    expected = small().fit(X[keep], y[keep]).predict_proba(X)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    with pytest.raises(BadImages, match="2 of 120"):
        fitted.predict(broken)


def test_search_over_a_dataset(small, digits, picture_dataset):
    X, y = digits
    grid = {"n_branches": [1, 2]}
    searches = [
        GridSearchCV(small(max_epochs=1), grid, cv=2, error_score="raise").fit(form, y)
        for form in (X, picture_dataset(X, y))
    ]
    scores = [search.cv_results_["mean_test_score"] for search in searches]
    np.testing.assert_array_equal(scores[0], scores[1])


def test_weightless_images_do_not_renumber_the_rest(small, digits):
    X, y = digits
    items = [*X[:9], np.zeros((2, 2, 2)), *X[10:]]
    with pytest.raises(BadImages, match="image 9: Images must have"):
        small().fit(items, y, sample_weight=np.arange(120) > 5)


def test_error_comes_home_from_a_worker(small, tmp_path):
    with pytest.raises(BadImages) as info:
        small().fit([tmp_path / "gone.png"] * 2, [0, 1])
    assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)
