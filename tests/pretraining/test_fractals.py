"""Iterated function systems: maps that contract, points that lie on the attractor."""

import numpy as np
import pytest

from pretraining.synthesis import fractals
from pretraining.synthesis.fractals import (
    PARTICLES,
    STEPS,
    Fractals,
    _chances,
    _draw_maps,
    _fit_frame,
    _pixels,
    _run,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def systems():
    return Fractals(12, 32, seed=0)


@pytest.fixture
def sierpinski():
    """Half the plane towards each corner of a triangle: (3, 2, 3)."""
    corners = np.array([[0, 0], [1, 0], [0, 1]])
    return np.stack([np.column_stack([np.eye(2) / 2, corner / 2]) for corner in corners])


def test_maps_contract():
    drawn = [_draw_maps(rng(seed)) for seed in range(200)]
    assert {len(maps) for maps in drawn} == {2, 3, 4, 5}
    norms = np.linalg.norm(np.concatenate(drawn)[:, :, :2], ord=2, axis=(1, 2))
    assert norms.max() < 1
    assert norms.min() > 0.1
    mirrored = np.linalg.det(np.concatenate(drawn)[:, :, :2]) < 0
    assert 0.3 < mirrored.mean() < 0.7


def test_maps_contract_after_the_jitter_of_an_image(systems, monkeypatch):
    seen = []

    def record(maps, chances, generator):
        seen.append(maps)
        return _run(maps, chances, generator)

    monkeypatch.setattr(fractals, "_run", record)
    for label, parameters in enumerate(systems._parameters):
        systems.paint(parameters, rng(label))
    norms = np.linalg.norm(np.concatenate(seen)[:, :, :2], ord=2, axis=(1, 2))
    assert norms.max() < 1
    assert not np.allclose(seen[0], systems._parameters[0], rtol=1e-3)


def test_chances_follow_the_areas(sierpinski):
    assert _chances(sierpinski) == pytest.approx([1 / 3] * 3)
    sierpinski[0, :, :2] *= 1.5
    chances = _chances(sierpinski)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] > chances[1] == chances[2]


def test_points_lie_on_the_attractor(sierpinski):
    points, last = _run(sierpinski, _chances(sierpinski), rng())
    assert points.shape == (STEPS * PARTICLES, 2)
    assert last.shape == (STEPS * PARTICLES,)
    assert points.min() >= 0
    assert points.sum(1).max() <= 1
    # The last map tells the corner: each has a third of its own.
    x, y = points.T
    np.testing.assert_array_equal(last == 1, x >= 0.5)
    np.testing.assert_array_equal(last == 2, y >= 0.5)
    # Three times each of 4 squares keeps 3: of 64 squares 27 hold points.
    assert len(np.unique(_pixels(2 * points - 1, 8))) == 27


def test_points_stay_in_the_frame(systems):
    for label, maps in enumerate(systems._parameters):
        points = _fit_frame(_run(maps, _chances(maps), rng(label))[0])
        assert np.isfinite(points).all()
        assert (np.abs(points) < 1).all(1).mean() > 0.9
        assert np.ptp(points, axis=0).max() > 1.5


def test_frame_of_a_dot():
    assert np.abs(_fit_frame(np.full((100, 2), 3.0))).max() == 0


def test_pixels_of_the_corners():
    points = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1], [7, -7], [0.01, 0.01]])
    assert _pixels(points, 32).tolist() == [0, 31, 32 * 31, 1023, 31, 16 * 33]


def test_systems_fill_a_part_of_the_plane(systems):
    for maps in systems._parameters:
        points = _fit_frame(_run(maps, _chances(maps), rng(1))[0])
        assert len(np.unique(_pixels(points, 32))) > 40


def test_image_of_points_outside_is_the_background(monkeypatch):
    source = Fractals(1, 16, seed=0)
    monkeypatch.setattr(fractals, "_fit_frame", lambda points: np.full_like(points, 9))
    monkeypatch.setattr(
        fractals.canvas, "background", lambda size, _: np.full((size, size, 3), 0.25, np.float32)
    )
    assert (source.paint(source._parameters[0], rng()) == 0.25).all()
