"""A second network, the companion: when it is used, and everything that a fitted pair can do."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    ChannelPruner,
    OnnxClassifier,
    RRRNetClassifier,
    cost_report,
    count_parameters,
    export_onnx,
    load,
    save,
)
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
    return lambda **parameters: small(**HEAD | {"weights": weights, "max_epochs": 0} | parameters)


@pytest.fixture(scope="module")
def pair(request):
    return {}


@pytest.fixture
def fitted(pair, make, digits):
    """Fit once for the module."""
    if "clf" not in pair:
        pair["clf"] = make().fit(*digits)
    return pair["clf"]


def test_resizing_is_an_antialiased_bilinear_filter():
    images = torch.rand(2, 3, 48, 48)
    wanted = torch.nn.functional.interpolate(images, 32, mode="bilinear", antialias=True)
    torch.testing.assert_close(Resize(48, 32)(images), wanted, atol=1e-5, rtol=1e-5)
    assert Resize(48, 48)(images) is images
    pixels = (images * 255).round().to(torch.uint8)
    torch.testing.assert_close(Resize(48, 32)(pixels), Resize(48, 32)(pixels.float() / 255))


def test_the_head_reads_both_networks(fitted, digits):
    X, y = digits
    network = fitted.module_
    assert isinstance(network, StackedNet)
    assert fitted.companion_ == "synth50"
    assert fitted.n_parameters_ == count_parameters(network)
    assert len(fitted.history_) == 0
    assert fitted.score(X, y) > 0.9
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        parts = [
            net.pool_branches(*net.forward_stump(images))
            for net in (network.main, network.companion)
        ]
        assert parts[0].shape[2] == network.n_main
        torch.testing.assert_close(network(images), network.head(torch.cat(parts, 2)))
    kinds = network.feature_kinds()
    assert len(kinds) == network.head.weight.shape[2]
    assert not {*kinds[: network.n_main]} & {*kinds[network.n_main :]}


def test_the_companion_of_a_network_that_knows_as_much_is_dropped(digits):
    """Two equal networks: the second one cannot help."""
    X, y = digits
    options = {"fine_tuning__trainable": "head", "fine_tuning__head_features": "all"}
    clf = RRRNetClassifier("synth50", max_epochs=0, image_size=48, random_state=0)
    clf.set_params(**options, fine_tuning__companion="synth50").fit(X, y)
    assert clf.companion_ is None
    assert isinstance(clf.module_, RRRNet)
    alone = clone(clf).set_params(fine_tuning__companion="none").fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), alone.predict_proba(X), atol=1e-5)
    assert clf.n_parameters_ == alone.n_parameters_
    clf.partial_fit(X, y)
    assert clf.net_.module_ is clf.module_
    assert clf.module_.is_frozen("stump")


def test_persistence_and_export(fitted, digits, tmp_path):
    X, _ = digits
    wanted = fitted.predict_proba(X[:8])
    joblib.dump(fitted, tmp_path / "clf.joblib")
    pickled = joblib.load(tmp_path / "clf.joblib")
    save(pickled.set_params(weights=None), tmp_path / "clf.safetensors")
    for again in (pickled, load(tmp_path / "clf.safetensors")):
        np.testing.assert_allclose(again.predict_proba(X[:8]), wanted, atol=1e-6)
        assert again.companion_ == "synth50"
    export_onnx(fitted, tmp_path / "clf.onnx")
    exported = OnnxClassifier(tmp_path / "clf.onnx").predict_proba(X[:8])
    np.testing.assert_allclose(exported, wanted, atol=1e-4)
    assert cost_report(fitted, (1,), repeats=3).n_parameters.item() == fitted.n_parameters_


def test_fits_repeat(fitted, make, digits):
    again = clone(fitted).fit(*digits)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


def test_partial_fit_needs_a_single_network(fitted, digits):
    with pytest.raises(ValueError, match=r"FineTuning\(companion=\"none\"\)"):
        fitted.partial_fit(*digits)


def test_a_validation_set_without_an_epoch(make, digits):
    clf = make(validation_fraction=0.2, early_stopping=True).fit(*digits)
    assert clf.score(*digits) > 0.9


def test_pruners_need_a_single_network(fitted, make, digits):
    with pytest.raises(ValueError, match="fitted with a companion"):
        ChannelPruner(FrozenEstimator(fitted), target=0.2).fit(*digits)
    pruner = ChannelPruner(make(max_epochs=1), target=0.2, n_steps=1).fit(*digits)
    assert isinstance(pruner.estimator_.module_, RRRNet)


@pytest.mark.parametrize(
    "parameters",
    [{"trainable": "branches"}, {"n_branches": 2}, {"max_epochs": 1}, {"head_init": "random"}],
)
def test_networks_that_cannot_have_a_companion(make, digits, parameters):
    with pytest.raises(ValueError, match=r"The companion 'synth50' needs .*companion='none'"):
        make(**parameters).fit(*digits)


def test_a_companion_that_is_not_asked_for_gives_way_to_epochs(digits):
    X, y = (part[:40] for part in digits)
    clf = RRRNetClassifier(max_epochs=1, image_size=32, random_state=0).fit(X, y)
    assert clf.companion_ is None
    assert clf.fine_tuning_.companion == "none"
    assert len(clf.history_) == 1


def test_a_companion_needs_pretrained_weights(make, digits):
    with pytest.raises(ValueError, match="The companion 'tiny' has no pre-trained weights"):
        make(companion="tiny").fit(*digits)


def test_norms_of_both_networks_are_adapted(make, digits):
    """Only where the user asks for it, or reduces the network."""
    before, after = (
        make(norm_warmup_epochs=n, head_features="last").fit(*digits).module_.state_dict()
        for n in (0, 1)
    )
    for part in ("stump.main.", "stump.companion."):
        keys = [k for k in before if k.startswith(part) and k.endswith("running_mean")]
        assert keys
        assert all(not torch.equal(before[k], after[k]) for k in keys)


def test_no_companion(make, digits):
    clf = make(companion="none").fit(*digits)
    assert clf.companion_ is None
    assert isinstance(clf.module_, RRRNet)


def test_an_unknown_companion_is_refused(make, digits):
    with pytest.raises(ValueError, match=r"`companion` must be one of 'none', .*'synth50'"):
        make(companion="resnet1").fit(*digits)
