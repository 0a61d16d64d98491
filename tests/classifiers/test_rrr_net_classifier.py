"""RRRNetClassifier: settings, attributes, labels and weights, persistence."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split

from sklearn_rrr import (
    FineTuning,
    RRRNetClassifier,
    count_parameters,
    load_backbone,
    register_backbone,
)
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.fine_tuning import DEFAULTS
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import TORCHVISION, make_resnet
from sklearn_rrr.classifiers import base


def test_attributes(small, digits):
    X, y = digits
    clf = small(blocks=(2, 1, 1, 1)).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2, 3]
    assert clf.image_shape_in_ == (8, 8)
    assert not hasattr(clf, "n_features_in_")
    assert clf.image_size_ == 16
    assert clf.blocks_ == (2, 1, 1, 1)
    assert clf.branch_planes_ == tuple(int(p / 2**0.5) - clf.width_offset_ for p in (8, 16))
    assert clf.n_parameters_ == count_parameters(clf.module_)
    assert clf.history_.epoch.tolist() == [1, 2]
    assert clf.net_.module_ is clf.module_
    assert clf.trainable_ == "all"
    assert clf.skipped_ == []


def test_probabilities_are_the_mean_of_the_branches(small, digits):
    X, y = digits
    clf = small(n_branches=3).fit(X, y)
    probabilities = clf.predict_proba(X)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)
    source = clf._read(X, reset=False)
    with torch.no_grad():
        logits = clf.module_(source.load(np.arange(len(X)), 16))  # (B, M, K)
    expected = np.mean([logits[:, m].softmax(1).numpy() for m in range(3)], axis=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (clf.predict(X) == clf.classes_[probabilities.argmax(1)]).all()


def test_same_seed_same_probabilities(small, digits):
    X, y = digits
    settings = {"augmentation": "paper", "dropout": 0.1, "validation_fraction": 0.2}
    first, second = (small(**settings).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = small(**settings, random_state=1).fit(X, y).predict_proba(X)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(
    ("backbone", "n_branches"), [("synth50", 1), ("synth50", 8), ("tiny_basic", 4)]
)
def test_learns_on_every_kind_of_block(small, digits, backbone, n_branches):
    X, y = digits
    clf = small(backbone=backbone, n_branches=n_branches, image_size=32, max_epochs=12)
    assert clf.fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize(
    ("settings", "frozen", "fresh"),
    [
        ({"blocks": None, "n_branches": 1, "trainable": "head"}, ["stump", "branches"], False),
        ({"blocks": None, "n_branches": 1, "trainable": "all"}, [], False),
        ({"n_branches": 1, "trainable": "branches"}, ["stump"], True),
        ({"n_branches": 1, "trainable": "branches", "dropout": 0.05}, ["stump"], True),
        ({"n_branches": 2, "trainable": "branches"}, ["stump"], True),
    ],
    ids=list("ABCDE"),
)
def test_the_papers_models_are_settings(small, digits, settings, frozen, fresh, monkeypatch):
    torch.manual_seed(0)
    backbone, _ = load_backbone("tiny", None)
    for norm in backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.uniform_(0.1, 0.2)
    started = []
    train = "sklearn_rrr.classifiers.ensembles.train"
    from sklearn_rrr.training.loop import train as original

    def record(module, *args):
        started.append(copy.deepcopy(module))
        return original(module, *args)

    monkeypatch.setattr(train, record)
    clf = small(**{"weights": backbone.state_dict(), "blocks": (1, 1, 1, 1)} | settings)
    clf.fit(*digits)
    module = started[0]
    names = [n for n in ("stump", "branches", "head")
             if not any(p.requires_grad for p in getattr(module, n).parameters())]  # fmt: skip
    assert names == frozen
    assert clf.blocks_ == ((2, 1, 2, 1) if settings.get("blocks", 1) is None else (1, 1, 1, 1))
    norm = module.branches[0][0].bn1
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean)) == fresh
    dropouts = [m for m in module.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(dropouts) == (2 if "dropout" in settings else 0)
    if settings["n_branches"] == 1:
        kernel = backbone.layer3[0].conv2.weight
        assert torch.equal(module.branches[0][0].conv2.weight, kernel)


def test_auto_trains_branches_of_pretrained_and_all_of_random_networks(small, digits):
    backbone, _ = load_backbone("tiny", None)
    pretrained = small(weights=backbone.state_dict()).fit(*digits)
    assert pretrained.trainable_ == "branches"
    assert pretrained.fine_tuning_.norm_warmup_epochs == 1
    assert small().fit(*digits).trainable_ == "all"


NO_WARM_UP = {"norm_warmup_epochs": 0}  # where everything learns


@register_backbone("tiny_tuned")
def tiny_tuned():
    tuning = FineTuning(
        trainable="all",
        split="aligned",
        head_init="ridge",
        augmentation="geometric",
        steps=30,
        learning_rate=0.004,
        stump_lr_factor=0.25,
        lr_schedule="linear",
    )
    sizes = {"planes": (4, 8, 8, 16), "image_size": 16}
    return make_resnet("tiny_tuned", Bottleneck, (1, 1, 1, 1), **sizes, fine_tuning=tuning)


@pytest.mark.filterwarnings("ignore:The training loss was still falling")
def test_auto_is_what_the_backbone_recommends(small, digits):
    weights = tiny_tuned().state_dict()
    settings = {"fine_tuning": None, "max_epochs": None, "weights": weights}
    clf = small(backbone="tiny_tuned", **settings).fit(*digits)
    assert clf.fine_tuning_ == tiny_tuned().fine_tuning.fill(DEFAULTS, FineTuning(**NO_WARM_UP))
    assert clf.trainable_ == "all"
    assert len(clf.history_) == 5  # the fewest
    used = clf.net_.settings
    assert (used.learning_rate, used.stump_lr_factor, used.lr_schedule) == (0.004, 0.25, "linear")
    assert used.head_init == "ridge"
    assert set(used.augmentation.transformations) == {
        "rotation",
        "translation",
        "scaling",
        "shear",
    }
    scratch = small(backbone="tiny_tuned", **settings | {"weights": None})
    expected = FineTuning(trainable="all", augmentation="geometric", steps=30, **NO_WARM_UP)
    assert scratch.fit(*digits).fine_tuning_ == expected.fill(DEFAULTS)
    own = clf.set_params(
        fine_tuning__trainable="branches", fine_tuning__learning_rate=0.01, max_epochs=2
    ).fit(*digits)
    assert own.trainable_ == "branches"
    assert own.history_.learning_rate.tolist() == pytest.approx([0.01, 0.005])


def test_nested_settings_of_any_start(small):
    """A field is set on what takes the place of None or a name; both may be given at once."""
    for given, sampling in ((None, None), ("published", "independent")):
        clf = RRRNetClassifier(fine_tuning=given).set_params(fine_tuning__learning_rate=0.1)
        assert (clf.fine_tuning.learning_rate, clf.fine_tuning.sampling) == (0.1, sampling)
        clf = small().set_params(fine_tuning=given, fine_tuning__learning_rate=0.1)
        assert clf.fine_tuning.sampling == sampling
    clf = RRRNetClassifier(fine_tuning="published")
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        clf.set_params(fine_tuning__rate=0.1)
    assert clf.fine_tuning == "published"
    with pytest.raises(ValueError, match="`fine_tuning` must be one of None, 'published'"):
        RRRNetClassifier(fine_tuning={}).set_params(fine_tuning__learning_rate=0.1)


def test_what_made_the_network_stays_until_the_next_fit(small, digits):
    clf = small(trainable="head").partial_fit(*digits, classes=[0, 1, 2, 3])
    later = {"fine_tuning__trainable": "all", "fine_tuning__learning_rate": 0.1}
    clf.set_params(**later).partial_fit(*digits)
    assert clf.fine_tuning_.trainable == clf.trainable_ == "head"
    assert clf.fine_tuning_.learning_rate == 0.1


def test_balanced_weights_count_the_images_used(small, digits):
    X, y = digits
    clf = small(class_weight="balanced")
    weights = np.where(np.arange(120) < 50, 0.0, 1.0)
    weighted = clone(clf).fit(X, y, sample_weight=weights).predict_proba(X)
    np.testing.assert_array_equal(clone(clf).fit(X[50:], y[50:]).predict_proba(X), weighted)


@pytest.mark.slow
def test_papers_settings_are_the_default_of_resnet152():
    paper = {"trainable": "branches", "split": "paper", "head_init": "random", "steps": 3750}
    paper |= {"augmentation": "paper", "learning_rate": 1e-3, "lr_schedule": "constant"}
    paper |= {"stump_lr_factor": 1.0, "optimizer": "adamw", "weight_decay": 0.01, "dropout": 0.0}
    for name in TORCHVISION:
        settings = make_backbone(name).fine_tuning.fill(DEFAULTS).get_params()
        assert settings.items() >= paper.items()


def test_stump_learns_at_its_own_rate(small, digits):
    clf = small(trainable="all", stump_lr_factor=0.125, learning_rate=0.01).fit(*digits)
    stump, others = clf.net_.optimizer_.param_groups
    assert (stump["lr"], others["lr"]) == (0.00125, 0.01)
    assert {id(p) for p in stump["params"]} == {id(p) for p in clf.module_.stump.parameters()}
    assert clf.history_.learning_rate.tolist() == [0.01, 0.01]
    schedule = clf.set_params(fine_tuning__lr_schedule="linear", max_epochs=4).fit(*digits).history_
    assert schedule.learning_rate.tolist() == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_pretrained_synth50_starts_from_the_bundled_weights(small, digits):
    backbone, _ = load_backbone("synth50")
    clf = small(backbone="synth50", weights="pretrained", image_size=16, max_epochs=1)
    assert clf.fit(*digits).trainable_ == "all"
    assert not torch.equal(clf.module_.stump[0].weight, backbone.conv1.weight)
    clf.set_params(fine_tuning__trainable="branches").fit(*digits)
    assert torch.equal(clf.module_.stump[0].weight, backbone.conv1.weight)


def test_backbone_without_weights_says_that_it_is_random(small, digits):
    with pytest.warns(UserWarning, match="'tiny' has no pre-trained weights and starts from ran"):
        clf = small(weights="pretrained", max_epochs=1).fit(*digits)
    assert clf.trainable_ == "all"


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("n_branches", 0, r"`n_branches` must be an int in \[1, 256\]; got 0. Use 1"),
        ("n_branches", 1.5, r"`n_branches` must be an int in \[1, 256\]; got 1.5"),
        ("n_branches", "8", r"`n_branches` must be an int in \[1, 256\]; got '8'"),
        ("n_branches", 200, "`n_branches`=200 .*without channels.*largest possible is 18"),
        ("blocks", (0, 1, 1, 1), r"`blocks` must be .* to \(2, 1, 2, 1\).*got \(0, 1, 1, 1\)"),
        ("blocks", (4, 1, 1, 1), r"`blocks` must be .* to \(2, 1, 2, 1\).*got \(4, 1, 1, 1\)"),
        ("blocks", 3, "`blocks` must be 4 ints .*got 3"),
        ("split_at", "conv6_x", "`split_at` must be one of 'conv2_x', .*got 'conv6_x'"),
        ("split", "random", "`split` must be one of 'paper', 'aligned'; got 'random'"),
        ("ensemble", "boosting", "`ensemble` must be one of 'naive', 'bagging'"),
        ("sampling", "own", "`sampling` must be one of 'shared', 'independent'; got 'own'"),
        ("trainable", "stump", "`trainable` must be one of 'head', 'branches', 'all'"),
        ("width_offset", 100, "`width_offset`=100 would leave the branches of 'tiny' without"),
        ("dropout", 1.0, r"`dropout` must be a number in \[0, 0.99\]; got 1.0"),
        ("max_epochs", -1, "`max_epochs` must be an int of at least 0; got -1"),
        ("batch_size", 1, "`batch_size` must be an int of at least 2; got 1. Batch norm"),
        ("learning_rate", 0, r"`learning_rate` must be a number in \(0, inf\); got 0"),
        ("lr_schedule", "step", "`lr_schedule` must be one of 'constant', 'linear', 'c"),
        ("learning_rate", "fast", r"`learning_rate` must be .*; got 'fast'. None uses the"),
        ("stump_lr_factor", 2.0, r"`stump_lr_factor` must be a number in \(0, 1\]; got 2.0"),
        ("ema_epochs", 1.5, r"`ema_epochs` must be a number in \[0, 1\]; got 1.5"),
        (
            "augmentation",
            "mixup",
            "`augmentation` must be one of 'paper', 'geometric', 'none'; got",
        ),
        ("validation_fraction", 1, "`validation_fraction` must be a number in"),
        ("early_stopping", True, "`early_stopping`=True needs validation data"),  # fault 49
        ("image_size", 4, r"`image_size` must be an int in \[8, 4096\]; got 4"),
        ("on_bad_file", "ignore", "`on_bad_file` must be one of 'raise', 'skip'; got 'ignore'"),
        ("precision", "fp16", "`precision` must be one of None, 'fp32', 'bf16'; got 'fp16'"),
        ("backbone", "resnet20", "`backbone` must be one of .*resnet152.*got 'resnet20'"),
        ("device", "tpu9", "`device` must be"),
        ("random_state", np.random, "`random_state` must be None, an int .*; got <module"),
        ("random_state", -1, r"`random_state` must be None, an int in \[0, .*; got -1"),
        ("random_state", "0", "`random_state` must be None, an int .*; got '0'"),
    ],
)
def test_wrong_parameters_say_what_is_right(small, digits, parameter, value, message):  # 51, 52
    with pytest.raises((ValueError, TypeError), match=message):
        small(**{parameter: value}).fit(*digits)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "ä b", "x"]),
        np.array([-5, 0, 7, 1000]),
        np.array([0.0, 1.0, 2.0, 5.0]),
        np.array([True, False, True, False]),
        np.array(["a", "b", "c", "d"], dtype=object),
    ],
    ids=["str", "gapped", "float", "bool", "object"],
)
def test_labels_round_trip(small, digits, labels):  # fault 21
    X, y = digits
    clf = small(max_epochs=15, learning_rate=0.01).fit(X, labels[y])
    predicted = clf.predict(X)
    assert predicted.dtype == labels.dtype
    assert clf.classes_.tolist() == np.unique(labels).tolist()
    assert (predicted == labels[y]).mean() > 0.8


def test_weight_zero_leaves_an_image_out(small, digits):
    X, y = digits
    weights = np.where(np.arange(len(y)) < 60, 2.0, 0)
    weighted = small().fit(X, y, sample_weight=weights)
    shorter = small().fit(X[:60], y[:60])
    np.testing.assert_array_equal(weighted.predict_proba(X), shorter.predict_proba(X))


def test_class_weights_are_sample_weights(small, digits):
    X, y = digits
    by_class = small(class_weight={0: 1, 1: 5, 2: 1, 3: 1}).fit(X, y)
    by_sample = small().fit(X, y, sample_weight=np.where(y == 1, 5, 1))
    np.testing.assert_allclose(by_class.predict_proba(X), by_sample.predict_proba(X), atol=1e-6)
    assert by_class.predict_proba(X)[:, 1].mean() > small().fit(X, y).predict_proba(X)[:, 1].mean()


def test_balanced_class_weights(small, digits):
    X, y = digits
    keep = (y != 0) | (np.arange(len(y)) < 30)
    X, y = X[keep], y[keep]
    weights = len(y) / (4 * np.bincount(y))
    balanced = small(class_weight="balanced").fit(X, y)
    by_sample = small().fit(X, y, sample_weight=weights[y])
    np.testing.assert_allclose(balanced.predict_proba(X), by_sample.predict_proba(X), atol=1e-6)


def test_validation_is_stratified(small, digits, monkeypatch):
    parts = []
    original = RRRNetClassifier._hold_out

    def record(self, images, seed):
        parts.extend(original(self, images, seed))
        return parts

    monkeypatch.setattr(RRRNetClassifier, "_hold_out", record)
    X, y = digits
    small(validation_fraction=0.25).fit(X, y)
    shares = [np.bincount(part.labels) / len(part) for part in parts]
    assert [len(part) for part in parts] == [90, 30]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.03)


def test_partial_fit_goes_on(small, digits):
    X, y = digits
    clf = small(learning_rate=0.01)
    losses = []
    for _ in range(12):
        clf.partial_fit(X[:100], y[:100], classes=range(5))
        losses.append(clf.history_.train_loss.iloc[-1])
    assert clf.classes_.tolist() == [0, 1, 2, 3, 4]
    assert len(clf.history_) == 12
    assert losses[-1] < 0.5 * losses[0]
    assert clf.score(X[100:], y[100:]) > 0.6


def test_partial_fit_needs_the_classes_first(small, digits):
    X, y = digits
    with pytest.raises(ValueError, match="`classes` must be passed at the first call"):
        small().partial_fit(X, y)
    clf = small().partial_fit(X, y, classes=[0, 1, 2, 3])
    with pytest.raises(
        ValueError, match=r"labels \[9\], which are not in `classes` \[0, 1, 2, 3\]"
    ):
        clf.partial_fit(X, np.where(y == 0, 9, y))
    with pytest.raises(ValueError, match=r"differs from the classes of the earlier calls, \[0"):
        clf.partial_fit(X, y, classes=[0, 1])


def test_partial_fit_after_fit_and_after_pickling(small, digits):
    X, y = digits
    clf = small(max_epochs=3).fit(X, y)
    loaded = pickle.loads(pickle.dumps(clf))
    before = clf.predict_proba(X)
    for each in (clf, loaded):
        each.partial_fit(X, y)
        assert np.abs(each.predict_proba(X) - before).max() > 1e-4
    assert len(clf.history_) == 4
    np.testing.assert_array_equal(clf.predict_proba(X), loaded.predict_proba(X))


def _joblib(clf):
    file = io.BytesIO()
    joblib.dump(clf, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf)), _joblib],
    ids=["deepcopy", "pickle", "joblib"],
)  # fmt: skip
def test_copies_predict_the_same(small, digits, copied):  # fault 62
    X, y = digits
    clf = small(augmentation="paper").fit(X, y)
    again = copied(clf)
    np.testing.assert_array_equal(clf.predict_proba(X), again.predict_proba(X))
    assert again.net_.module_ is again.module_
    assert again.history_.equals(clf.history_)


def test_clone_forgets_the_fit(small, digits):
    clf = clone(small(n_branches=3).fit(*digits))
    assert clf.n_branches == 3
    with pytest.raises(NotFittedError):  # fault 61
        clf.predict(digits[0])


def test_pickle_holds_little_more_than_the_parameters(digits):
    X, y = digits
    clf = RRRNetClassifier(weights=None, max_epochs=1, image_size=16, random_state=0).fit(X, y)
    assert len(pickle.dumps(clf)) <= 1.1 * 4 * clf.n_parameters_


def test_device_that_is_gone_falls_back_to_the_cpu(small, digits):  # fault 59
    clf = small().fit(*digits)
    expected = clf.predict_proba(digits[0])
    clf.device = "cuda:99"
    with pytest.warns(UserWarning, match="CUDA device.*The CPU is used"):
        np.testing.assert_array_equal(clf.predict_proba(digits[0]), expected)


@pytest.mark.parametrize("name", ["sklearn_rrr", "torch", "scikit-learn"])
def test_other_versions_warn(small, digits, monkeypatch, name):  # faults 60 and 84
    saved = pickle.dumps(small().fit(*digits))
    monkeypatch.setitem(base.VERSIONS, name, "99.0")
    with pytest.warns(UserWarning, match=rf"saved with {name} \d.* \(now 99.0\); it may fail"):
        assert pickle.loads(saved).predict(digits[0]).shape == (120,)


def test_numpy_scalars_are_parameters(digits, weights):  # fault 71
    """As grids and cv_results_ contain them."""
    clf = RRRNetClassifier(
        np.str_("tiny"),
        weights=weights,
        blocks=np.array([1, 1, 1, 1]),
        n_branches=np.int64(2),
        split_at=np.str_("conv4_x"),
        ensemble=np.str_("naive"),
        fine_tuning=np.str_("one_pass"),
        early_stopping=np.False_,
        image_size=np.int32(16),
        batch_size=np.int64(16),
        precision=np.str_("fp32"),
        on_bad_file=np.str_("raise"),
        validation_fraction=np.float64(0.2),
        verbose=np.bool_(False),
        random_state=np.int64(0),
    )
    assert clf.fit(*digits).blocks_ == (1, 1, 1, 1)
    tuning = FineTuning(dropout=np.float32(0.1), cache_features=np.True_, split=np.str_("aligned"))
    clf.set_params(fine_tuning=tuning, max_epochs=np.int64(1)).fit(*digits)
    grid = {"n_branches": np.array([1, 2]), "early_stopping": np.array([False])}
    GridSearchCV(clf, grid, cv=2).fit(*digits)


def test_balanced_weights_need_all_images(small, digits):
    with pytest.raises(ValueError, match="`class_weight`='balanced' is not supported"):
        small(class_weight="balanced").partial_fit(*digits, classes=range(4))


def test_fits_with_metadata_routing(small, digits):
    with config_context(enable_metadata_routing=True):
        clf = small(validation_fraction=0.2).fit(*digits)
    assert clf.history_.valid_acc.notna().all()


def test_aligned_split_and_width_offset(small, digits):
    clf = small(split="aligned", width_offset=2, n_branches=2).fit(*digits)
    assert clf.width_offset_ == 2
    assert clf.branch_planes_ == (3, 9)


@pytest.mark.slow
def test_default_settings_read_digits():
    data = load_digits()
    split = train_test_split(
        data.images / 16, data.target, test_size=0.5, stratify=data.target, random_state=0
    )
    clf = RRRNetClassifier(random_state=0).fit(split[0], split[2])
    assert clf.score(split[1], split[3]) >= 0.985
