"""Small folders of easy pictures, and a model that knows them."""

import numpy as np
import pytest
from PIL import Image

from sklearn_rrr.__main__ import main

NETWORK = ["--backbone", "synth50", "--fine-tuning", "one_pass", "--image-size", "64"]
COLOURS = {"blue": (40, 60, 200), "red": (200, 60, 40)}


def draw(path, colour, seed):
    """Save a noisy picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 56, (24, 24, 3))
    Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def draw_folder(root, n, seed=0):
    """Save n pictures of each class."""
    for i, colour in enumerate(COLOURS):
        for j in range(n):
            draw(root / colour / f"{j:02}.png", colour, [seed, i, j])
    return root


@pytest.fixture(scope="session")
def network():
    """Options of a network that is fitted in a second."""
    return NETWORK


@pytest.fixture
def photos(tmp_path):
    """Eight pictures of each of two classes."""
    return draw_folder(tmp_path / "photos", 8)


@pytest.fixture
def split_photos(tmp_path):
    """Splits "train" and "test" of two classes."""
    draw_folder(tmp_path / "splits/train", 6)
    draw_folder(tmp_path / "splits/test", 3, seed=1)
    return tmp_path / "splits"


@pytest.fixture(scope="session")
def picture():
    """Return the function that saves a picture."""
    return draw


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model file that tells blue from red."""
    folder = tmp_path_factory.mktemp("model")
    file = folder / "model.safetensors"
    assert main(["fit", str(draw_folder(folder / "photos", 8)), "--out", str(file), *NETWORK]) == 0
    return file
