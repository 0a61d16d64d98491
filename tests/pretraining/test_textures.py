"""Spectra, dead leaves, programs and contours: their rules, and what a class fixes."""

import numpy as np
import pytest

from pretraining.synthesis import canvas
from pretraining.synthesis.contours import Contours
from pretraining.synthesis.fractals import Fractals
from pretraining.synthesis.textures import (
    BINARY,
    UNARY,
    DeadLeaves,
    Programs,
    Spectra,
    _power_law,
    fold,
    outline_shapes,
)

TEXTURES = [Contours, DeadLeaves, Fractals, Programs, Spectra]


def rng(seed=0):
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("size", [16, 32])
def test_paints_in_range(texture, size):
    source = texture(12, size, seed=0)
    for label, parameters in enumerate(source._parameters):
        image = source.paint(parameters, rng(label))
        assert image.shape == (size, size, 3)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() < 1.5  # solids may shine; the finish clips


@pytest.mark.parametrize("texture", TEXTURES)
def test_classes_are_those_of_the_seed(texture):
    def parameters(n_classes, seed):
        return [repr(p) for p in texture(n_classes, 32, seed)._parameters]

    five = parameters(5, 0)
    assert len(set(five)) == 5
    assert parameters(3, 0) == five[:3]  # more classes leave the first as they are
    assert not set(parameters(5, 1)) & set(five)


@pytest.mark.parametrize("texture", TEXTURES)
def test_painting_leaves_the_class_alone(texture):
    source = texture(1, 16, seed=0)
    before = repr(source._parameters)
    first = source.draw(0, rng(1))
    source.draw(0, rng(2))
    assert repr(source._parameters) == before
    np.testing.assert_array_equal(source.draw(0, rng(1)), first)


# -------------------------------------------------------------------------------- spectra


def test_fold():
    field = canvas.power_noise(32, 1, rng())
    assert fold(field, 0) is field
    np.testing.assert_allclose(fold(field, 1), fold(-field, 1), atol=1e-5)
    assert len(np.unique(fold(field, 2))) < len(np.unique(field))  # a plain with blobs
    assert np.abs(fold(field, 3)).max() <= 1.4
    np.testing.assert_array_equal(fold(field, 4), np.round(fold(field, 4)))
    assert all(np.isfinite(fold(np.zeros((8, 8)), kind)).all() for kind in range(5))


def test_band_of_a_spectrum():
    parameters = {"band": 0.2, "band_width": 0.3, "stretch": 1.0}
    gain = Spectra(1, 64, seed=0)._gain(parameters, angle=0.7, zoom=1)
    f = np.hypot(*canvas.frequencies(64))
    assert f[np.unravel_index(gain.argmax(), gain.shape)] == pytest.approx(0.2, abs=0.01)
    assert gain[f < 0.1].max() < 0.1
    assert gain[f > 0.4].max() < 0.1


def test_stretched_spectrum_has_a_direction():
    parameters = {"band": None, "band_width": 0.3, "stretch": 5.0}
    gain = Spectra(1, 64, seed=0)._gain(parameters, angle=0, zoom=1)
    fx, fy = canvas.frequencies(64)
    across, along = gain[(fx > 0.2) & (fy == 0)], gain[(fx == 0) & (np.abs(fy) > 0.2)]
    assert along.min() > across.max()


# ----------------------------------------------------------------------------- dead leaves


@pytest.mark.parametrize("exponent", [0.5, 1, 1.0005, 2, 3.5])
def test_sizes_follow_a_power_law(exponent):
    sizes = _power_law(rng(), 200_000, 0.05, 0.8, exponent)
    assert sizes.min() >= 0.05
    assert sizes.max() <= 0.8
    edges = np.geomspace(0.05, 0.8, 9)
    density = np.histogram(sizes, edges)[0] / np.diff(edges)
    centres = np.sqrt(edges[1:] * edges[:-1])
    slope = np.polyfit(np.log(centres), np.log(density), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)


def shapes(corners, star=False, aspect=1.0, sizes=(2.0,), turns=(0.0,)):
    parameters = {"corners": corners, "star": star, "aspect": aspect}
    return outline_shapes(parameters, np.array(sizes), np.array(turns))


def area(outline):
    x, y = outline.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@pytest.mark.parametrize("corners", [3, 4, 5, 6])
def test_polygons_are_regular(corners):
    (outline,) = shapes(corners)
    assert outline.shape == (corners, 2)
    np.testing.assert_allclose(np.hypot(*outline.T), 1)
    sides = np.linalg.norm(outline - np.roll(outline, 1, 0), axis=1)
    np.testing.assert_allclose(sides, 2 * np.sin(np.pi / corners))


def test_no_corners_are_a_circle():
    (outline,) = shapes(0)
    np.testing.assert_allclose(np.hypot(*outline.T), 1)
    assert area(outline) == pytest.approx(np.pi, rel=0.05)


@pytest.mark.parametrize("corners", [0, 3, 5])
def test_stars_have_every_second_corner_inside(corners):
    (plain,), (star,) = shapes(corners), shapes(corners, star=True)
    assert len(star) == 2 * len(plain)
    np.testing.assert_allclose(star[::2], plain, atol=1e-12)
    assert np.hypot(*star[1::2].T).max() < 0.9
    assert area(star) < np.pi


def test_size_aspect_and_turn_of_outlines():
    long, turned, large = shapes(4, False, 4.0, (2, 2, 6), (0, np.pi / 2, 0))
    np.testing.assert_allclose(np.ptp(long, axis=0), [4, 1])
    np.testing.assert_allclose(np.ptp(turned, axis=0), [1, 4])
    np.testing.assert_allclose(large, 3 * long)
    assert area(long) == pytest.approx(area(shapes(4)[0]))


def test_leaves_of_many_sizes_and_no_gaps():
    source = DeadLeaves(1, 64, seed=0)
    parameters = source._parameters[0] | {"outline": True, "star": False, "largest": 0.5}
    image = source.paint(parameters, rng())
    assert (image.max(-1) > 0).mean() > 0.3  # not the black of the canvas
    lone = parameters | {"outline": False, "smallest": 1e-3, "largest": 2e-3}
    ground = source.paint(lone, rng())
    assert len(np.unique(ground.reshape(-1, 3), axis=0)) < len(
        np.unique(image.reshape(-1, 3), axis=0)
    )


# -------------------------------------------------------------------------------- programs

VALUES = np.array([-4, -1, -0.0, 0, 1e-9, 0.5, 4])


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_operations_are_finite(name, constant):
    a, b = np.meshgrid(VALUES, VALUES)
    result = UNARY[name](a, constant) if name in UNARY else BINARY[name](a, b, constant)
    assert result.shape == a.shape
    assert np.isfinite(result).all()
    assert len(np.unique(result)) > 1


def test_programs_use_all_operations_on_what_is_there():
    programs = Programs(100, 16, seed=0)._parameters
    assert not set(UNARY) & set(BINARY)
    assert {step[0] for p in programs for step in p["steps"]} == {*UNARY, *BINARY}
    for program in programs:
        assert len(program["steps"]) == Programs.n_steps
        for k, (_, first, second, constant) in enumerate(program["steps"]):
            assert min(first, second) >= 0
            assert max(first, second) < 4 + k  # x, y, noise, radius, and k results
            assert 0 <= constant <= 1


# -------------------------------------------------------------------------------- contours


@pytest.fixture
def disc():
    """The class of a plain disc without holes."""
    plain = {"cos": np.zeros(8), "sin": np.zeros(8), "aspect": 1.0, "hole": 0.0, "hue": None}
    return plain | {"roundness": 0.5, "pattern": 0, "frequency": 3.0, "fold": 0}


def solid(parameters, seed=0, size=64):
    """Return the mask (S, S) of a solid's pixels."""
    black = np.zeros((size, size, 3), np.float32)
    return Contours(1, size, seed=0)._add_solid(black, parameters, rng(seed)).max(-1) > 0


def test_a_disc_is_convex_with_one_outline(disc):
    for seed in range(5):
        rows = solid(disc, seed)
        assert 0.02 < rows.mean() < 0.9
        for lines in (rows, rows.T):
            assert np.abs(np.diff(lines.astype(int), axis=1)).sum(1).max() <= 2


def test_a_hole_takes_pixels_away(disc):
    whole, pierced = solid(disc), solid(disc | {"hole": 0.5})
    assert not (pierced & ~whole).any()
    assert pierced.sum() < 0.9 * whole.sum()


def test_waves_bend_the_outline(disc):
    waves = disc | {"cos": np.eye(8)[2] * 0.8}
    assert (solid(disc) != solid(waves)).mean() > 0.02


@pytest.mark.parametrize("pattern", range(5))
def test_patterns_are_shades(pattern, disc):
    x, y = canvas.coordinates(32)
    source = Contours(1, 32, seed=0)
    field = source._pattern(x, y, np.hypot(x, y), disc | {"pattern": pattern}, rng())
    assert field.shape == (32, 32)
    assert field.min() >= 0
    assert field.max() <= 1
    assert (np.ptp(field) == 0) == (pattern == 0)
