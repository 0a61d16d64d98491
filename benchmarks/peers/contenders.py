"""Estimators that fit and predict from paths; the networks start from the same weights.

What others do is written as their documentation does it, in plain torch, skorch or fastai.
"""

import io

import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from torch import nn

from sklearn_rrr import RRRNetClassifier, load_backbone

BACKBONE, SIZE, BATCH = "efficientnet_lite0", 224, 32


def load_network(n_classes=None):
    """Return the network, with a new head for `n_classes`, or without a head."""
    network, _ = load_backbone(BACKBONE)
    head = nn.Identity() if n_classes is None else nn.Linear(network.n_features, n_classes)
    network.fc = head
    return network


def open_image(path):
    return Image.open(path).convert("RGB")


class HogFeatures(TransformerMixin, BaseEstimator):
    """Histograms of oriented gradients, and a small colour image, by scikit-image and Pillow."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        from skimage.feature import hog

        rows = []
        for path in X:
            image = open_image(path).resize((64, 64), Image.BILINEAR)
            colours = np.asarray(image.resize((8, 8), Image.BOX)).ravel() / 255
            rows.append(np.concatenate([hog(np.asarray(image), channel_axis=2), colours]))
        return np.array(rows)


class FrozenFeatures(TransformerMixin, BaseEstimator):
    """Pooled outputs of the frozen network's last layer, in batches, in plain torch."""

    def fit(self, X, y=None):
        self.network_ = load_network().eval()
        return self

    @torch.inference_mode()
    def transform(self, X):
        network = self.network_
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.mean, network.std))
        features = []
        for start in range(0, len(X), BATCH):
            images = [
                np.asarray(open_image(path).resize((SIZE, SIZE), Image.BILINEAR))
                for path in X[start : start + BATCH]
            ]
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
            features.append(network((pixels - mean) / std))
        return torch.cat(features).numpy()


class Crops(torch.utils.data.Dataset):
    """Images of paths, transformed, with their labels."""

    def __init__(self, paths, labels, transform):
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return self.transform(open_image(self.paths[i])), self.labels[i]


class SkorchFineTuning(ClassifierMixin, BaseEstimator):
    """Fine-tuning as in PyTorch's tutorial on transfer learning, with skorch.

    Random crops and flips at 224 pixels; SGD with momentum 0.9 at a rate of 0.001, divided by ten
    every 7 epochs; 25 epochs.
    """

    def __init__(self, max_epochs=25, random_state=0):
        self.max_epochs = max_epochs
        self.random_state = random_state

    def fit(self, X, y):
        from skorch import NeuralNetClassifier
        from skorch.callbacks import LRScheduler
        from torch.optim.lr_scheduler import StepLR
        from torchvision.transforms import v2

        torch.manual_seed(self.random_state)
        self.encoder_ = LabelEncoder().fit(y)
        self.classes_ = self.encoder_.classes_
        network = load_network(len(self.classes_))
        end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        end += [v2.Normalize(network.mean, network.std)]
        crop = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()]
        self.view_ = v2.Compose([v2.Resize(256), v2.CenterCrop(SIZE), *end])
        self.net_ = NeuralNetClassifier(
            network,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=0.9,
            lr=0.001,
            batch_size=BATCH,
            max_epochs=self.max_epochs,
            iterator_train__shuffle=True,
            train_split=None,
            callbacks=[LRScheduler(StepLR, step_size=7, gamma=0.1)],
            verbose=0,
        )
        self.net_.fit(Crops(X, self.encoder_.transform(y), v2.Compose([*crop, *end])), None)
        return self

    def predict(self, X):
        found = self.net_.predict(Crops(X, [0] * len(X), self.view_))
        return self.encoder_.inverse_transform(found)


class FastaiFineTuning(ClassifierMixin, BaseEstimator):
    """``vision_learner(...).fine_tune(5)`` of fastai, with its defaults, at 224 pixels."""

    def __init__(self, epochs=5, random_state=0):
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X, y):
        from fastai.vision import all as fastai

        fastai.set_seed(self.random_state)
        self.classes_ = np.unique(y)
        network = load_network()
        mean, std = network.mean, network.std
        labels = dict(zip(map(str, X), y, strict=True))
        data = fastai.DataBlock(
            blocks=(fastai.ImageBlock, fastai.CategoryBlock(vocab=list(self.classes_))),
            get_y=lambda path: labels[str(path)],
            splitter=fastai.IndexSplitter([]),
            item_tfms=fastai.Resize(SIZE),
            batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(mean, std)],
        ).dataloaders(list(X), bs=min(64, len(X)), num_workers=0, device="cpu")
        # fastai replaces the pool and what follows by its own head.
        body = nn.Sequential(*network.stem, *network.phases, nn.AdaptiveAvgPool2d(1))
        self.learner_ = fastai.vision_learner(data, lambda pretrained=True: body, normalize=False)
        with self.learner_.no_bar(), self.learner_.no_logging():
            self.learner_.fine_tune(self.epochs)
        return self

    def predict(self, X):
        data = self.learner_.dls.test_dl(list(X), num_workers=0)
        with self.learner_.no_bar():
            probabilities, _ = self.learner_.get_preds(dl=data)
        return self.classes_[probabilities.numpy().argmax(1)]


def _regress(features):
    """Return features with a logistic regression whose penalty is cross-validated."""
    regression = LogisticRegressionCV(
        Cs=np.logspace(-5, -1, 5),
        l1_ratios=(0,),
        scoring="accuracy",
        use_legacy_attributes=False,
        max_iter=300,
    )
    return make_pipeline(features, StandardScaler(), regression)


REDUCED = {"blocks": (1, 1, 1, 1), "n_branches": 8}

# How each set is fitted; functions of a seed.
CONTENDERS = {
    "HOG + LogisticRegression": lambda seed: make_pipeline(
        HogFeatures(), StandardScaler(), LogisticRegression(C=0.01, max_iter=300)
    ),
    "frozen last layer + LogisticRegressionCV": lambda seed: _regress(FrozenFeatures()),
    "fastai fine_tune(5)": lambda seed: FastaiFineTuning(random_state=seed),
    "fine-tuning with skorch, 25 epochs": lambda seed: SkorchFineTuning(random_state=seed),
    "sklearn_rrr, one pass": lambda seed: RRRNetClassifier(
        fine_tuning="one_pass", random_state=seed
    ),
    "sklearn_rrr, default": lambda seed: RRRNetClassifier(random_state=seed),
    "sklearn_rrr, 1_1_1_1": lambda seed: RRRNetClassifier(blocks=(1, 1, 1, 1), random_state=seed),
    "sklearn_rrr, 1_1_1_1, 8 branches": lambda seed: RRRNetClassifier(**REDUCED, random_state=seed),
}


def count_bytes(estimator):
    """Return the size of a fitted estimator in bytes: its weights, or what joblib writes."""
    if isinstance(estimator, FastaiFineTuning):
        module = estimator.learner_.model
    elif isinstance(estimator, SkorchFineTuning):
        module = estimator.net_.module_
    else:
        buffer = io.BytesIO()
        joblib.dump(estimator, buffer)
        return buffer.tell()
    return sum(tensor.nbytes for tensor in module.state_dict().values())
