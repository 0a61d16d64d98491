"""How well a network's features transfer: a probe in the training halves of real data sets.

The test halves are never read.
"""

import copy

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn


def read_training_halves(data, size):
    """Return {set: (uint8 images (n, size, size, 3), labels)} of a folder of data sets."""
    sets = {}
    for file in sorted(data.glob("*/labels.csv")):
        table = pd.read_csv(file, dtype={"CATEGORY": str})
        table = table[table.SPLIT == "train"]
        images = [_read(file.parent / "images" / name, size) for name in table.FILE_NAME]
        sets[file.parent.name] = np.stack(images), table.CATEGORY.to_numpy()
    return sets


def _read(path, size):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def probe(network, sets, reduced=True):
    """Return {set: accuracy} of a logistic regression on the frozen, pooled features.

    4-fold cross-validation; features are the means over conv4_x and over conv5_x, of the
    first blocks only if `reduced`; norm statistics are those of the set's images.
    """
    return {name: _probe(network, *images, reduced) for name, images in sets.items()}


def _probe(network, images, labels, reduced):
    features = _extract(copy.deepcopy(network), images, reduced)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    return cross_val_score(classifier, features, labels, cv=folds).mean()


@torch.no_grad()
def _extract(network, images, reduced):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.mean, network.std))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    x = x.contiguous(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    _run(network.train(), x, reduced)
    return _run(network.eval(), x, reduced).numpy()


def _run(network, x, reduced):
    x, pooled = network.stem(x), []
    for phase in network.phases:
        x = (phase[0] if reduced else phase)(x)
        pooled.append(x.mean((2, 3)))
    return torch.cat(pooled[2:], 1)
