"""What the tests share: a tiny backbone, small settings, small real images."""

import shutil
from dataclasses import fields
from pathlib import Path

import joblib
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

from sklearn_rrr import FineTuning, RRRNetClassifier, register_backbone
from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.mobilenet import make_mobilenet
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import make_resnet


@register_backbone("tiny")
def tiny():
    return make_resnet("tiny", Bottleneck, (2, 1, 2, 1), (4, 8, 8, 16), image_size=16, n_classes=7)


@register_backbone("tiny_basic")
def tiny_basic():
    return make_resnet("tiny_basic", BasicBlock, (1, 2, 1, 1), (4, 8, 16, 16), image_size=16)


@register_backbone("tiny_next")
def tiny_next():
    form = {"groups": 4, "width_per_group": 32, "image_size": 16}
    return make_resnet("tiny_next", Bottleneck, (2, 1, 2, 1), (8, 8, 16, 16), **form)


@register_backbone("tiny_wide")
def tiny_wide():
    form = {"width_per_group": 128, "image_size": 16}
    return make_resnet("tiny_wide", Bottleneck, (1, 1, 2, 1), (4, 8, 8, 16), **form)


@register_backbone("tiny_mobile")
def tiny_mobile():
    rows = [
        (1, 3, 1, 1, 8),
        (2, 3, 2, 3, 8),
        (2, 5, 2, 3, 12),
        (2, 3, 2, 3, 16),
        (1, 5, 1, 3, 16),
        (2, 5, 2, 3, 20),
        (1, 3, 1, 3, 24),
    ]
    form = {"stem": 8, "last": 32, "turned": True, "eps": 1e-3, "image_size": 32, "n_classes": 7}
    return make_mobilenet("tiny_mobile", rows, **form)


@pytest.fixture
def small(nest):
    """Return a maker of estimators that fit in a fraction of a second.

    It takes their parameters, and the fields of their `fine_tuning`.
    """

    def make(**parameters):
        settings = {
            "backbone": "tiny",
            "weights": None,
            "blocks": (1, 1, 1, 1),
            "n_branches": 2,
            "max_epochs": 2,
            "batch_size": 16,
            "augmentation": "none",
            "precision": "fp32",
            "random_state": 0,
        }
        return RRRNetClassifier(**nest(settings | parameters))

    return make


@pytest.fixture
def nest():
    """Return a function that moves the fields of `fine_tuning` among parameters into one."""
    return _nest


def _nest(parameters, kind=FineTuning):
    names = [field.name for field in fields(kind)]
    tuning = kind(**{name: parameters[name] for name in names if name in parameters})
    others = {name: value for name, value in parameters.items() if name not in names}
    return {"fine_tuning": tuning} | others


@pytest.fixture
def weights():
    """Weights for the backbone "tiny", as if they were trained."""
    torch.manual_seed(0)
    return make_backbone("tiny").state_dict()


@pytest.fixture
def shake():
    """Return a function that gives norms statistics and weights that are not the initial ones."""

    def change(network):
        numbers = torch.Generator().manual_seed(0)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.running_mean, norm.bias.data):
                    tensor.copy_(torch.randn(tensor.shape, generator=numbers) / 5)
                for tensor in (norm.running_var, norm.weight.data):
                    tensor.copy_(torch.rand(tensor.shape, generator=numbers) + 0.5)
        return network.eval()

    return change


@pytest.fixture
def one_thread():
    """One thread in this process and in those of joblib, so that sums are rounded alike."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def digits():
    """120 digits of 4 classes as uint8 images (n, 8, 8), and their labels."""
    data = load_digits(n_class=4)
    return (data.images[:120] * 15.9).astype(np.uint8), data.target[:120]


@pytest.fixture
def digit_paths(digits, tmp_path):
    """The first 40 digits as PNG files, and their labels."""
    images, labels = digits
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image).save(path)
    return paths, labels[:40]


class Pictures(Dataset):
    """A Dataset of (PIL image, label)."""

    def __init__(self, images, labels, broken=()):
        self.images, self.labels, self.broken = images, labels, broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("cannot identify image file")
        return Image.fromarray(self.images[i]), self.labels[i]


@pytest.fixture
def picture_dataset():
    """The class of a Dataset of pictures."""
    return Pictures


@pytest.fixture(scope="session")
def bundled_fonts():
    """The folder of the fonts that matplotlib brings."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="session")
def few_fonts(bundled_fonts, tmp_path_factory):
    """A folder of three fonts: all that are installed would take seconds to search."""
    folder = tmp_path_factory.mktemp("fonts")
    for name in ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif"):
        shutil.copy(bundled_fonts / f"{name}.ttf", folder)
    return folder
