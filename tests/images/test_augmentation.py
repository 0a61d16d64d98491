"""The random transformations: values in range, the same rules for batches and images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sklearn_rrr.images.augmentation import (
    GEOMETRIC,
    TRANSFORMATIONS,
    PaperAugmentation,
    PerImage,
    _jpeg_compression,
    transform,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(n=1, size=32):
    """Smooth colourful pictures (n, 3, size, size) in [0, 1]."""
    axis = torch.linspace(0, 1, size)
    waves = torch.stack([torch.sin(5 * axis[:, None] + k * axis) for k in (1, 3, 6)])
    return (0.5 + 0.5 * waves).repeat(n, 1, 1, 1)


def test_the_papers_list():
    assert len(TRANSFORMATIONS) == len(set(TRANSFORMATIONS)) == 14


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_each_changes_images_within_range(name):
    images = picture(8)
    result = transform(images, [[name] * 8], generator())
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(images, picture(8))  # the input is left alone
    assert (result != images).flatten(1).any(1).all()


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_parameters_differ_from_image_to_image(name):
    result = transform(picture(8), [[name] * 8], generator())
    alike = torch.equal(result[0], result[1]) and torch.equal(result[1], result[2])
    assert alike == (name in ("inversion", "equalisation"))  # these have none


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_batches_have_the_distribution_of_single_images(name):
    """Mean and spread of the change, drawn in one batch and one image at a time."""
    n, image = 300, picture(1, 16)
    rng = generator(1)
    single = torch.cat([transform(image, [[name]], rng) for _ in range(n)])
    batch = transform(image.repeat(n, 1, 1, 1), [[name] * n], generator(2))
    change = [(result - image).abs().mean((1, 2, 3)).tolist() for result in (single, batch)]
    change = np.array(change)  # (2, n)
    spread = change.std() + 1e-6
    assert change[0].mean() == pytest.approx(change[1].mean(), abs=0.3 * spread)
    assert change[0].std() == pytest.approx(change[1].std(), rel=0.25, abs=1e-6)


def test_only_the_named_images_change():
    images = picture(4)
    names = ["inversion", "rotation", "inversion", "solarisation"]
    result = transform(images, [names], generator())
    torch.testing.assert_close(result[0], 1 - images[0])
    torch.testing.assert_close(result[2], 1 - images[2])
    assert not torch.equal(result[1], images[1])


def test_translation_shifts_by_at_most_a_tenth():
    image = torch.zeros(1, 3, 40, 40)
    image[..., 20, 20] = 1
    for seed in range(20):
        moved = transform(image, [["translation"]], generator(seed))[0, 0]
        row, column = divmod(int(moved.argmax()), 40)
        assert max(abs(row - 20), abs(column - 20)) <= 5


@pytest.mark.parametrize("second", [*GEOMETRIC, "inversion", "equalisation"])
def test_two_draws_in_sequence_are_one_after_the_other(second):
    """Maps of the plane are joined; the inner part shows little but one interpolation less."""
    images = picture(6, 64)
    both = transform(images, [["rotation"] * 6, [second] * 6], generator(5))
    rng = generator(5)  # draws alike: names are given, and parameters drawn draw by draw
    rotated = transform(images, [["rotation"] * 6], rng)
    expected = transform(rotated, [[second] * 6], rng)
    inner = (..., slice(16, 48), slice(16, 48))
    assert (both - expected)[inner].abs().max() < 0.02
    assert (both - rotated)[inner].abs().max() > 0.05


def test_jpeg_loss_is_that_of_a_jpeg_file():
    """Close to Pillow's encoder without chroma subsampling, at the same quality."""
    image = picture(1, 32)
    quality = 30 + 65 * torch.rand((1, 1, 1, 1), generator=generator(3)).item()
    ours = _jpeg_compression(image, generator(3))[0]
    file = io.BytesIO()
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=round(quality), subsampling=0)
    theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert (ours - theirs).abs().mean() < 0.4 * (image[0] - theirs).abs().mean() + 2 / 255


def test_two_draws_uniform_with_replacement(monkeypatch):
    drawn = []

    def record(images, draws, rng):
        drawn.extend(draws)
        return images

    monkeypatch.setattr("sklearn_rrr.images.augmentation.transform", record)
    PaperAugmentation()(torch.zeros(2800, 3, 1, 1), generator())
    assert len(drawn) == 2
    counts = [names.count(name) for names in drawn for name in TRANSFORMATIONS]
    assert min(counts) > 140  # 200 expected, standard deviation 13.6
    assert max(counts) < 260
    same = np.mean([a == b for a, b in zip(*drawn, strict=True)])
    assert same == pytest.approx(1 / 14, abs=0.02)


def test_repeats_with_the_generator():
    images = picture(16)
    first, second = (PaperAugmentation()(images, generator(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, PaperAugmentation()(images, generator(8)))


def test_own_transformation_sees_one_image_at_a_time(small, digits):
    shapes = set()

    def flip(image):
        shapes.add(tuple(image.shape))
        assert image.min() >= 0
        assert image.max() <= 1
        return image.flip(2)

    small(augmentation=flip, max_epochs=1).fit(*digits)
    assert shapes == {(3, 16, 16)}


def test_torchvision_transformations_are_accepted_and_seeded(small, digits):
    X, y = digits
    clf = small(augmentation=v2.RandomRotation(20))
    first, second = (clf.fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_own_transformation_must_keep_the_shape():
    with pytest.raises(ValueError, match=r"`augmentation` must return.*\(3, 8, 8\); got.*3, 4, 8"):
        PerImage(lambda image: image[:, ::2])(torch.rand(2, 3, 8, 8), torch.Generator())


def test_own_transformation_must_return_floats():
    with pytest.raises(ValueError, match=r"must return a float tensor.*got Tensor of torch.uint8"):
        PerImage(lambda image: (255 * image).to(torch.uint8))(
            torch.rand(2, 3, 8, 8), torch.Generator()
        )
    doubles = PerImage(lambda image: image.double())(torch.rand(2, 3, 8, 8), torch.Generator())
    assert doubles.dtype == torch.float32


def test_auto_leaves_vectors_alone(small):
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0, 1, (20, 49)), np.arange(20) % 2
    assert small(fine_tuning=None).fit(X, y)._settings_used.augmentation is None
    X = rng.uniform(0, 1, (20, 64))
    fitted = small(fine_tuning=None).fit(X, y)
    assert isinstance(fitted._settings_used.augmentation, PaperAugmentation)
