"""LabelledSet: read once, taken apart, weighed."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    BasisScalingPruner,
    BlockPruner,
    BlockSelector,
    ChannelPruner,
    ElementPruner,
    FineTuning,
    FineTuningClassifier,
    LastLayerClassifier,
    NetTailorClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
)
from sklearn_rrr.images.forms import sort_input
from sklearn_rrr.images.labelled_set import LabelledSet
from sklearn_rrr.images.sources import make_source

SMALL = {"backbone": "tiny", "weights": None, "max_epochs": 1, "batch_size": 16}
SMALL |= {"fine_tuning": FineTuning(augmentation="none"), "random_state": 0}
PRUNE = {"n_steps": 2, "epochs_per_step": 1}


def classifier(**parameters):
    return RRRNetClassifier(**SMALL | {"n_branches": 2} | parameters)


def search(**parameters):
    return BlockSelector(classifier(), max_blocks=5, tolerance=None, **parameters)


ESTIMATORS = {
    "classifier": classifier,
    "with validation": lambda: classifier(validation_fraction=0.2),
    "last layer": lambda: LastLayerClassifier(**SMALL),
    "fine-tuning": lambda: FineTuningClassifier(**SMALL),
    "NetTailor": lambda: NetTailorClassifier(**SMALL, n_removed=[1, 2], tolerance=1.0),
    "selector": search,
    "selector, cv=3": lambda: search(cv=3),
    "channels": lambda: ChannelPruner(classifier(), target=0.3, **PRUNE),
    "basis, channels": lambda: BasisScalingPruner(
        classifier(), target=0.2, **PRUNE, then=ChannelPruner(target=0.1, **PRUNE)
    ),
    "blocks": lambda: BlockPruner(classifier(blocks=None), target=0.05, **PRUNE),
    "elements": lambda: ElementPruner(classifier(), target=0.3, **PRUNE),
    "kernels": lambda: ProgressiveKernelPruner(classifier(), amount=0.2, epochs_per_step=1),
    "channels of a selector": lambda: ChannelPruner(search(), target=0.1, **PRUNE),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_image_is_decoded_twice_at_most(name, digits, picture_dataset):
    """And a frozen estimator's images, too."""
    reads = Counter()

    class Counted(picture_dataset):
        def __getitem__(self, i):
            reads[i] += 1
            return super().__getitem__(i)

    images, labels = digits[0][:60], digits[1][:60]
    fitted = ESTIMATORS[name]().fit(Counted(images, labels), labels)
    assert set(reads.values()) <= {1, 2}
    assert len(reads) == 60
    if isinstance(fitted, ChannelPruner):
        reads.clear()
        fitted.set_params(estimator=FrozenEstimator(fitted.estimator_), target=0.0)
        fitted.fit(Counted(images, labels), labels)
        assert set(reads.values()) <= {1, 2}


@pytest.fixture
def images(digits):
    """120 digits, with a weight for each."""
    kind, form = sort_input(digits[0])
    classes = np.array(["a", "b", "c", "d"])
    weights = np.arange(120) % 3
    return LabelledSet(make_source(kind, form), digits[1], classes, 16, weights)


def test_a_subset_has_its_own_images_labels_and_weights(images, digits):
    index = np.array([5, 0, 119])
    part = images.subset(index).subset([2, 0])
    assert part.y.tolist() == [images.y[119], images.y[5]]
    assert part.sample_weight.tolist() == [2, 2]
    whole, (labels, weights) = images.__getitems__([119, 5])
    pixels, targets = part.__getitems__([0, 1])
    assert torch.equal(pixels, whole)
    assert torch.equal(targets[0], labels)
    assert torch.equal(targets[1], weights)
    assert torch.equal(part[1][0], whole[1])


def test_it_is_indexed_as_an_array_of_images(images):
    """A scorer of the user's may look at X."""
    assert images.shape == (120, 3, 16, 16)
    for index in (slice(5, 9), [5, 6, 7, 8], np.isin(np.arange(120), [5, 6, 7, 8])):
        assert images[index].y.tolist() == images.y[5:9].tolist()
    assert images[5][1] == images.y[5]


def test_class_weights_are_those_of_the_subset(images):
    part = images.subset(np.flatnonzero(images.y != "a")[:50])
    balanced = part.weigh_classes("balanced")
    assert 0 not in balanced.sample_weight  # images without weight are left out
    counts = {c: (part.y == c).sum() for c in "bcd"}
    expected = balanced.sample_weight / np.array([counts[c] for c in balanced.y])
    np.testing.assert_allclose(balanced.weights, expected / expected.mean(), rtol=1e-6)


def test_weights_of_branches(images):
    factors = np.arange(240).reshape(120, 2) % 5
    weights = images.weigh_branches(factors).weights
    np.testing.assert_allclose(weights.mean(0), 1, rtol=1e-5)
    product = images.weights.numpy()[:, None] * factors
    np.testing.assert_allclose(weights, product / product.mean(0), rtol=1e-5)


def test_fingerprint_is_of_the_content(images, digits):
    same = images.subset(np.arange(120))
    assert same.fingerprint() == images.fingerprint()
    assert images.subset(np.arange(119)).fingerprint() != images.fingerprint()
    assert images.with_weights(np.ones(120)).fingerprint() == images.fingerprint()
    others = LabelledSet(images.source, digits[1], images.classes[::-1], 16, images.sample_weight)
    assert others.fingerprint() != images.fingerprint()
