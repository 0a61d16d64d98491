"""Colours, fields, backgrounds and the finish that all sources of drawn images share."""

import colorsys

import numpy as np
import pytest

from pretraining.synthesis import canvas


def rng(seed=0):
    return np.random.default_rng(seed)


# --------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize("size", [16, 33])
def test_coordinates_are_the_pixel_centres(size):
    x, y = canvas.coordinates(size)
    assert x.shape == y.shape == (size, size)
    np.testing.assert_allclose(x[0], (2 * np.arange(size) + 1) / size - 1, atol=1e-6)
    np.testing.assert_array_equal(x, y.T)


@pytest.mark.parametrize("shared", [canvas.coordinates, canvas.frequencies])
def test_what_is_shared_between_calls_cannot_be_written(shared):
    for array in shared(16):
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_place_without_chance_is_the_plane():
    u, v = canvas.place(16, rng(), turn=0, scale=(1, 1), shift=0, shear=0)
    np.testing.assert_allclose([u, v], canvas.coordinates(16), atol=1e-6)


def test_place_turns_about_the_origin_and_zooms():
    x, y = canvas.coordinates(16)
    u, v = canvas.place(16, rng(), scale=(2, 2), shift=0, shear=0)
    np.testing.assert_allclose(np.hypot(u, v), np.hypot(x, y) / 2, rtol=1e-5)
    assert not np.allclose(u, x / 2)


# ------------------------------------------------------------------------------- colours


def test_hsv_is_that_of_the_standard_library():
    triples = np.vstack([rng().random((200, 3)), np.indices((2, 2, 2)).reshape(3, -1).T])
    expected = [colorsys.hsv_to_rgb(*triple) for triple in triples]
    np.testing.assert_allclose(canvas.hsv(*triples.T), expected, atol=1e-5)


def test_hsv_takes_numbers_and_fields():
    assert canvas.hsv(0.5, 1, 1).tolist() == [0, 1, 1]
    assert canvas.hsv(np.zeros((4, 5)), 1, 1).shape == (4, 5, 3)


def test_colours_are_within_range_and_some_palettes_are_gray():
    palettes = np.stack([canvas.colours(rng(seed), 4) for seed in range(300)])
    assert palettes.shape == (300, 4, 3)
    assert palettes.min() >= 0
    assert palettes.max() <= 1
    gray = np.ptp(palettes, -1).max(-1) < 1e-6
    assert 0.05 < gray.mean() < 0.5


def test_colours_around_a_hue():
    palette = canvas.colours(rng(), 300, hue=0.98, spread=0.02)
    hues = np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in palette.tolist()])
    distance = np.abs((hues - 0.98 + 0.5) % 1 - 0.5)
    assert distance.max() < 0.1  # also across the end of the circle of hues
    assert (hues < 0.5).any()


def test_contrasting_colours_differ_in_lightness():
    pairs = np.stack([canvas.contrasting(rng(seed)) for seed in range(200)])  # (200, 2, 3)
    difference = canvas.lightness(pairs[:, 0]) - canvas.lightness(pairs[:, 1])
    assert np.abs(difference).min() > 0.25
    assert 0.3 < (difference > 0).mean() < 0.7  # either may be the lighter one


def test_lightness():
    np.testing.assert_allclose(canvas.lightness(np.eye(3, dtype=np.float32)), [0.299, 0.587, 0.114])
    assert canvas.lightness(np.ones((4, 5, 3), np.float32)) == pytest.approx(np.ones((4, 5)))


@pytest.mark.parametrize("n_stops", [2, 3, 5])
def test_shade_is_a_stop_at_each_stop_and_linear_between(n_stops):
    stops = rng().random((n_stops, 3), dtype=np.float32)
    field = np.linspace(0, 1, n_stops, dtype=np.float32)
    np.testing.assert_allclose(canvas.shade(field[None], stops)[0], stops, atol=1e-5)
    middle = (field[:-1] + field[1:]) / 2
    expected = (stops[:-1] + stops[1:]) / 2
    np.testing.assert_allclose(canvas.shade(middle[None], stops)[0], expected, atol=1e-5)


def test_shade_clips():
    stops = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]], np.float32)
    shaded = canvas.shade(np.array([[-3.0, 4.0]]), stops)
    assert shaded.tolist() == [[[0, 0, 0], [1, 1, 1]]]


def test_mix():
    below, above = rng().random((2, 3, 4, 3))
    mask = np.array([[0, 1, 0.5, 0.25]] * 3)
    mixed = canvas.mix(below, above, mask)
    np.testing.assert_allclose(mixed[:, 0], below[:, 0])
    np.testing.assert_allclose(mixed[:, 1], above[:, 1])
    np.testing.assert_allclose(mixed[:, 2], (below + above)[:, 2] / 2)
    np.testing.assert_allclose(mixed[:, 3], 0.75 * below[:, 3] + 0.25 * above[:, 3])


# -------------------------------------------------------------------------------- fields


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 2])
def test_spectrum_of_power_noise(exponent):
    size = 128
    field = canvas.power_noise(size, exponent, rng())
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)
    f = np.hypot(*canvas.frequencies(size))
    band = (f > 0.03) & (f < 0.5)
    amplitude = np.abs(np.fft.rfft2(field))
    slope = np.polyfit(np.log(f[band]), np.log(amplitude[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.08)


def test_gain_shapes_the_spectrum():
    f = np.hypot(*canvas.frequencies(64))
    field = canvas.power_noise(64, 1, rng(), gain=f < 0.2)
    amplitude = np.abs(np.fft.rfft2(field))
    assert amplitude[f > 0.2].max() < 1e-3 * amplitude[f < 0.2].max()


def test_standardise():
    field = canvas.standardise(rng().uniform(3, 9, (32, 32)))
    assert field.mean() == pytest.approx(0, abs=1e-6)
    assert field.std() == pytest.approx(1, abs=1e-5)
    assert not canvas.standardise(np.full((4, 4), 0.5, np.float32)).any()


@pytest.mark.parametrize("gain", [0.5, 1.0, 4.0])
def test_squash(gain):
    field = np.array([-1e6, -1, 0, 1, 1e6], np.float32)
    squashed = canvas.squash(field, np.float64(gain))
    assert squashed[2] == 0.5
    assert (np.diff(squashed) > 0).all()
    assert squashed.min() >= 0
    assert squashed.max() <= 1


@pytest.mark.parametrize("cells", [2, 8])
def test_smooth_noise(cells):
    field = canvas.smooth_noise(64, cells, rng())
    assert field.shape == (64, 64)
    assert -0.3 < field.min() < 0.4
    assert 0.6 < field.max() < 1.3
    # From pixel to pixel it changes by a small part of what it changes from cell to cell.
    assert np.abs(np.diff(field)).max() < 2 * cells / 64


def test_channels_of_smooth_noise_differ():
    field = canvas.smooth_noise(16, 4, rng(), channels=3)
    assert field.shape == (16, 16, 3)
    assert not np.allclose(field[..., 0], field[..., 1])


def test_backgrounds():
    images = np.stack([canvas.background(16, rng(seed)) for seed in range(100)])
    assert images.shape == (100, 16, 16, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    flat = (images == images[:, :1, :1]).all((1, 2, 3))
    assert 0 < flat.mean() < 0.6
    images[:] = 0  # a background of its own, to be painted over
    assert canvas.background(16, rng(0)).any()


# -------------------------------------------------------------------------------- finish


@pytest.mark.parametrize("size", [16, 33, 64])
def test_finish(size):
    image = rng().uniform(-0.5, 1.5, (size, size, 3)).astype(np.float32)
    before = image.copy()
    finished = [canvas.finish(image, rng(seed)) for seed in range(40)]
    assert {(f.dtype, f.shape) for f in finished} == {(np.dtype(np.uint8), (size, size, 3))}
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(finished[7], canvas.finish(image, rng(7)))
    assert len({f.tobytes() for f in finished}) > 10


def test_finish_leaves_some_images_as_they_are():
    image = np.full((16, 16, 3), 0.6, np.float32)
    finished = np.stack([canvas.finish(image, rng(seed)) for seed in range(100)])
    assert 0.05 < (finished == 153).all((1, 2, 3)).mean() < 0.8
