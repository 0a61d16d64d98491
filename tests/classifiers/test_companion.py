"""A second network, the companion: its weight, and everything that a fitted pair can do."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    ChannelPruner,
    OnnxClassifier,
    cost_report,
    count_parameters,
    export_onnx,
    load,
    save,
)
from sklearn_rrr.classifiers.companion import stack
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.networks.stacked_net import Resize, StackedNet

HEAD = {
    "trainable": "head",
    "head_init": "ridge",
    "n_branches": 1,
    "blocks": None,
    "image_size": 48,
    "companion": "synth50",
}


@pytest.fixture
def make(small, weights):
    """Return a maker of classifiers whose main network knows nothing, with a companion."""
    return lambda **parameters: small(**HEAD | {"weights": weights, "max_epochs": 8} | parameters)


@pytest.fixture(scope="module")
def pair(request):
    return {}


@pytest.fixture
def fitted(pair, make, digits):
    """Fit once for the module."""
    if "clf" not in pair:
        pair["clf"] = make().fit(*digits)
    return pair["clf"]


# ------------------------------------------------------------------------------- weights


def draw_logits(n=200, n_classes=3, noise=(1.0, 1.0)):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % n_classes
    signal = 3.0 * torch.eye(n_classes)[labels]
    parts = [signal + s * 3 * torch.randn(n, n_classes, generator=generator) for s in noise]
    return *(part[:, None] for part in parts), labels


def test_two_equally_good_networks_get_equal_weights():
    first, second, labels = draw_logits()
    weights = stack(first, second, labels, torch.ones(len(labels)))
    assert weights[0] == pytest.approx(weights[1], rel=0.3)
    mixed = weights[0] * first + weights[1] * second
    hits = [(z[:, 0].argmax(1) == labels).float().mean() for z in (first, second, mixed)]
    assert hits[2] > max(hits[:2])


def test_a_better_companion_gets_more_weight():
    first, second, labels = draw_logits(noise=(2.0, 0.5))
    weights = stack(first, second, labels, torch.ones(len(labels)))
    assert weights[1] > 2 * weights[0]


def test_a_companion_that_guesses_is_left_out():
    first, _, labels = draw_logits(noise=(0.5, 0.5))
    guess = torch.randn(len(labels), 1, 3, generator=torch.Generator().manual_seed(1))
    assert stack(first, guess, labels, torch.ones(len(labels))) is None


def test_images_count_by_their_weights():
    first, second, labels = draw_logits(noise=(0.5, 3.0))
    bad, good = torch.arange(200) < 100, torch.arange(200) >= 100
    first[bad], second[bad] = second[bad].clone(), first[bad].clone()
    weights = stack(first, second, labels, 1e-6 + good.float())
    assert weights is None or weights[0] > weights[1]
    weights = stack(first, second, labels, 1e-6 + bad.float())
    assert weights[1] > weights[0]


def test_resizing_is_an_antialiased_bilinear_filter():
    images = torch.rand(2, 3, 48, 48)
    wanted = torch.nn.functional.interpolate(images, 32, mode="bilinear", antialias=True)
    torch.testing.assert_close(Resize(48, 32)(images), wanted, atol=1e-5, rtol=1e-5)
    assert Resize(48, 48)(images) is images
    pixels = (images * 255).round().to(torch.uint8)
    torch.testing.assert_close(Resize(48, 32)(pixels), Resize(48, 32)(pixels.float() / 255))


# --------------------------------------------------------------------------- fitted pairs


def test_both_networks_decide(fitted, digits):
    X, y = digits
    assert isinstance(fitted.module_, StackedNet)
    assert fitted.stacking_weights_[1] > 0
    assert fitted.n_parameters_ == count_parameters(fitted.module_)
    assert set(fitted.history_.network) == {"network", "companion"}
    assert fitted.score(X, y) > 0.9
    images = torch.rand(2, 3, 48, 48)
    network = fitted.module_
    with torch.inference_mode():
        parts = network.main(images), network.companion(Resize(48, 48)(images))
        wanted = sum(w * z for w, z in zip(fitted.stacking_weights_, parts, strict=True))
        torch.testing.assert_close(network(images), wanted)


def test_persistence_and_export(fitted, digits, tmp_path):
    X, _ = digits
    wanted = fitted.predict_proba(X[:8])
    joblib.dump(fitted, tmp_path / "clf.joblib")
    pickled = joblib.load(tmp_path / "clf.joblib")
    save(pickled.set_params(weights=None), tmp_path / "clf.safetensors")
    for again in (pickled, load(tmp_path / "clf.safetensors")):
        np.testing.assert_allclose(again.predict_proba(X[:8]), wanted, atol=1e-6)
        assert again.stacking_weights_ == fitted.stacking_weights_
    export_onnx(fitted, tmp_path / "clf.onnx")
    exported = OnnxClassifier(tmp_path / "clf.onnx").predict_proba(X[:8])
    np.testing.assert_allclose(exported, wanted, atol=1e-3)
    assert cost_report(fitted, (1,), repeats=3).n_parameters.item() == fitted.n_parameters_


def test_fits_repeat(fitted, make, digits):
    again = clone(fitted).fit(*digits)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


def test_training_cannot_go_on(fitted, digits):
    with pytest.raises(ValueError, match=r"FineTuning\(companion=\"none\"\)"):
        fitted.partial_fit(*digits)


def test_pruners_need_a_single_network(fitted, make, digits):
    with pytest.raises(ValueError, match="fitted with a companion"):
        ChannelPruner(FrozenEstimator(fitted), target=0.2).fit(*digits)
    pruner = ChannelPruner(make(max_epochs=1), target=0.2, n_steps=1).fit(*digits)
    assert isinstance(pruner.estimator_.module_, RRRNet)


@pytest.mark.parametrize(
    ("images", "parameters"), [(60, {}), (120, {"max_epochs": 0}), (120, {"companion": "none"})]
)
def test_no_companion(make, digits, images, parameters):
    """For few images, without an epoch, or if none is wanted."""
    X, y = digits
    clf = make(**parameters).fit(X[:images], y[:images])
    assert isinstance(clf.module_, RRRNet)
    assert clf.stacking_weights_ == (1.0, 0.0)


def test_an_unknown_companion_is_refused(make, digits):
    with pytest.raises(ValueError, match=r"`companion` must be one of 'none', .*'synth50'"):
        make(companion="resnet1").fit(*digits)
