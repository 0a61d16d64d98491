"""Features of backbones and of fitted networks."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_rrr import (
    BackboneFeatures,
    BlockSelector,
    NetTailorClassifier,
    RRRNetClassifier,
)

SMALL = {"backbone": "synth50", "image_size": 32}
FAST = {**SMALL, "max_epochs": 1, "random_state": 0}
X, Y = load_digits(n_class=3, return_X_y=True)
IMAGES, Y = X.reshape(-1, 8, 8)[:90] / 16, Y[:90]


def test_values_are_statistics_of_the_blocks():
    features = BackboneFeatures(**SMALL).set_output(transform="pandas")
    table = features.fit_transform(IMAGES[:5])
    assert len(table) == 5
    assert (table.dtypes == np.float32).all()
    last = BackboneFeatures(**SMALL, levels="last").fit(IMAGES).transform(IMAGES[:5])
    ends = table.filter(regex=r"^conv5_x_3_mean")
    np.testing.assert_array_equal(ends, last)
    assert (table.filter(like="_std_") >= 0).all(axis=None)
    quadrants = [
        table.filter(regex=f"^conv4_x_6_{name}_") for name in ("upper_left", "lower_right")
    ]
    assert quadrants[0].shape[1] == table.filter(regex="^conv4_x_6_mean").shape[1]


@pytest.mark.parametrize("backbone", ["synth50", "efficientnet_lite0"])
def test_quadrants_are_where_their_names_say(backbone):
    features = BackboneFeatures(backbone, image_size=64).set_output(transform="pandas")
    blank = np.full((1, 64, 64, 3), 128, np.uint8)
    marked = blank.copy()
    marked[0, :24, :24] = np.random.default_rng(0).integers(0, 256, (24, 24, 3))
    changes = (features.fit_transform(marked) - features.transform(blank)).abs()
    names = ("upper_left", "upper_right", "lower_left", "lower_right")
    largest = max(names, key=lambda name: changes.filter(like=name).to_numpy().mean())
    assert largest == "upper_left"


def test_any_form_of_images_gives_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), np.uint8)
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    features = BackboneFeatures(**SMALL).fit(pixels)
    expected = features.transform(pixels)
    for other in (pixels / 255, list(map(Image.fromarray, pixels)), pd.Series(paths)):
        found = clone(features).fit(other).transform(other)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_works_with_scikit_learn():
    model = make_pipeline(BackboneFeatures(**SMALL), StandardScaler(), LogisticRegression())
    grid = {"backbonefeatures__levels": ["all", "last"]}
    search = GridSearchCV(model, grid, cv=2).fit(IMAGES, Y)
    assert search.best_score_ > 0.9
    groups = make_pipeline(BackboneFeatures(**SMALL), StandardScaler(), KMeans(3, random_state=0))
    assert set(groups.fit_predict(IMAGES)) == {0, 1, 2}


def test_pickles_give_the_same():
    features = BackboneFeatures(**SMALL).fit(IMAGES)
    copy = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(copy.transform(IMAGES), features.transform(IMAGES))


def test_random_weights_repeat():
    features = [BackboneFeatures(**SMALL, weights=None).fit_transform(IMAGES) for _ in range(2)]
    np.testing.assert_array_equal(*features)
    assert not np.allclose(features[0], BackboneFeatures(**SMALL).fit_transform(IMAGES))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"levels": "first"}, "`levels` must be one of"),
        ({"backbone": "resnet5"}, "resnet50"),
        ({"image_size": 2}, "`image_size` must be an int in"),
        ({"precision": "fp16"}, "`precision` must be one of"),
    ],
)
def test_invalid_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        BackboneFeatures(**parameters).fit(IMAGES)


def test_the_classifiers_head_reads_its_features():
    clf = RRRNetClassifier(image_size=64, random_state=0).fit(IMAGES, Y)
    features = clf.transform(IMAGES[:7])
    assert features.shape == (7, len(clf.get_feature_names_out()))
    head = clf.module_.head
    z = (features - head.center[0].numpy()) * head.factor[0].numpy()
    logits = z @ head.weight[0].detach().numpy().T + head.bias[0].detach().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(IMAGES[:7]), expected, atol=1e-5)
    frozen = BackboneFeatures(image_size=64).fit_transform(IMAGES[:7])
    np.testing.assert_allclose(features[:, : frozen.shape[1]], frozen, atol=1e-5)


def test_features_of_branches_are_named():
    clf = RRRNetClassifier(**FAST, blocks=(1, 1, 1, 1), n_branches=3).fit(IMAGES, Y)
    table = clf.set_output(transform="pandas").transform(IMAGES)
    widths = [table.filter(like=f"branch_{i}_").shape[1] for i in (1, 2, 3)]
    assert widths[0] == widths[1] == widths[2]
    assert sum(widths) == table.shape[1]


def test_meta_estimators_and_tailored_networks_have_features():
    tailored = NetTailorClassifier(**FAST, tolerance=1.0).fit(IMAGES, Y)
    selector = BlockSelector(RRRNetClassifier(**FAST), epochs_per_step=1, max_blocks=5)
    for model in (tailored, selector.fit(IMAGES, Y)):
        assert model.transform(IMAGES[:2]).shape == (2, len(model.get_feature_names_out()))
