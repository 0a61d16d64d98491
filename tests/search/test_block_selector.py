"""BlockSelector: growth from where it was, budgets, resuming, as a scikit-learn estimator."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    PredefinedSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from sklearn_rrr import (
    BaggingEnsemble,
    BlockPruner,
    BlockSelector,
    ChannelPruner,
    LastLayerClassifier,
    RRRNetClassifier,
)
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import TORCHVISION
from sklearn_rrr.classifiers import base
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.search import block_search
from tests.search.made_up_scores import Scores

COLUMNS = ["blocks", "score", "score_std", "parameters", "macs", "latency_ms", "seconds"]
COLUMNS += ["epochs", "kept", "control", "pareto"]


RISING = {(1, 1, 1, 1): 0.5, (2, 1, 1, 1): 0.6, (2, 1, 2, 1): 0.7}


# ------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("split", ["paper", "aligned"])
@pytest.mark.parametrize("n_branches", [1, 2])
def test_a_new_block_is_pretrained_and_the_rest_goes_on(small, digits, split, n_branches):
    torch.manual_seed(3)
    weights = make_backbone("tiny").state_dict()
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1, "split": split}
    clf = small(weights=weights, n_branches=n_branches, trainable="all", **still).fit(*digits)
    images = clf._read_set(*digits, None, None, clf.classes_)
    grown = clf._grow((2, 1, 2, 1), images, random_state=5)
    before, after = clf.module_.state_dict(), grown.module_.state_dict()
    backbone = make_backbone("tiny")
    backbone.load_state_dict(weights)
    fresh = RRRNet(
        backbone,
        4,
        blocks=(2, 1, 2, 1),
        n_branches=n_branches,
        split=split,
        width_offset=clf.width_offset_,
        generator=torch.Generator().manual_seed(clf._split_seed),
    ).state_dict()
    new = [name for name in after if name not in before]
    assert any("branches.0.1." in name for name in new)
    assert any("stump" in name for name in new)
    for name, tensor in after.items():
        if "running" in name or "num_batches" in name:
            continue
        expected = fresh[name] if name in new else before[name]
        torch.testing.assert_close(tensor, expected, atol=1e-7, rtol=0, msg=name)


def test_search_on_made_up_scores(one_epoch, digits):
    selector = BlockSelector(one_epoch, scoring=Scores(RISING)).fit(*digits)
    assert selector.blocks_ == selector.estimator_.blocks_ == (2, 1, 2, 1)
    table = selector.results_
    assert list(table) == COLUMNS
    assert table.blocks.tolist() == list(RISING)
    assert table.score.tolist() == list(RISING.values())
    assert table.epochs.tolist() == [1, 2, 3]
    assert table.parameters.iloc[-1] == selector.estimator_.n_parameters_
    assert (table[["macs", "latency_ms", "seconds"]] > 0).all(axis=None)


def test_the_network_without_the_last_block_is_returned(one_epoch, digits):
    X, y = digits
    scores = RISING | {(2, 1, 2, 1): 0.6}
    stopped = BlockSelector(one_epoch, scoring=Scores(scores)).fit(X, y)
    assert stopped.blocks_ == (2, 1, 1, 1)
    assert stopped.results_.kept.tolist() == [True, True, False]
    whole = BlockSelector(one_epoch, scoring=Scores(RISING), max_blocks=5).fit(X, y)
    np.testing.assert_array_equal(stopped.predict_proba(X), whole.predict_proba(X))


def test_without_the_stop_the_best_is_taken(one_epoch, digits):
    scores = {(1, 1, 1, 1): 0.5, (2, 1, 1, 1): 0.8, (2, 1, 2, 1): 0.8}
    selector = BlockSelector(one_epoch, scoring=Scores(scores), tolerance=None).fit(*digits)
    assert selector.blocks_ == (2, 1, 1, 1)
    assert len(selector.results_) == 3


def test_pareto_takes_the_knee(one_epoch, digits):
    scores = {(1, 1, 1, 1): 0.1, (2, 1, 1, 1): 0.79, (2, 1, 2, 1): 0.8}
    selector = BlockSelector(one_epoch, scoring=Scores(scores), select_by="pareto").fit(*digits)
    assert selector.blocks_ == (2, 1, 1, 1)
    assert selector.results_.pareto.all()


def test_the_control_is_trained_as_long(one_epoch, digits):
    selector = BlockSelector(one_epoch, tolerance=None, control=True, epochs_per_step=2).fit(
        *digits
    )
    table = selector.results_
    control = table[table.control]
    assert control.blocks.tolist() == [(1, 1, 1, 1)] * 2
    assert table[~table.control].epochs.tolist() == [2, 4, 6]
    assert control.epochs.tolist() == [4, 6]
    assert not control.kept.any()
    assert not control.pareto.any()


@pytest.mark.parametrize("head_features", ["last", "all"])
@pytest.mark.parametrize("form", [("tiny", "cyclic"), ("tiny_mobile", "sequential")])
def test_grown_heads_read_the_new_blocks(small, digits, form, head_features):
    """Heads of equal shape go on; others start anew, as the weights of new blocks do."""
    backbone, order = form
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1, "trainable": "all"}
    clf = small(backbone=backbone, head_features=head_features, head_init="ridge", **still)
    clf.fit(*digits)
    images = clf._read_set(*digits, None, None, clf.classes_)
    grown = clf._grow((2, 1, 2, 1), images, random_state=5)
    before, after = clf.module_.state_dict(), grown.module_.state_dict()
    same = {key for key in before if "head" not in key or head_features == "last"}
    for key in same - {key for key in before if "running" in key or "num_batches" in key}:
        torch.testing.assert_close(after[key], before[key], atol=1e-7, rtol=0, msg=key)
    wider = after["head.weight"].shape[2] > before["head.weight"].shape[2]
    assert wider == (head_features == "all")
    selector = BlockSelector(clf, order=order, tolerance=None, scoring=lambda *_: 0.5, max_blocks=6)
    table = selector.fit(*digits).results_
    first = clone(clf).set_params(random_state=0).fit(*digits)
    assert table.parameters[0] == first.n_parameters_
    assert table.parameters.is_monotonic_increasing


@pytest.mark.parametrize("backbone", ["tiny", "tiny_basic", "tiny_mobile"])
@pytest.mark.parametrize("order", ["sequential", "cyclic"])
def test_any_backbone_with_branches(small, digits, backbone, order):
    form = {"head_features": "all"} if order == "cyclic" else {}
    clf = small(backbone=backbone, max_epochs=1, ensemble="bagging", dropout=0.1, **form)
    selector = BlockSelector(clf, order=order, tolerance=None, random_state=1).fit(*digits)
    largest = selector.results_.blocks.iloc[-1]
    assert largest == make_backbone(backbone).depths
    assert selector.results_.parameters.iloc[-1] == selector.estimator_.n_parameters_ or (
        selector.blocks_ != largest
    )
    assert selector.estimator_.ensemble == "bagging"
    assert selector.estimator_.n_branches == 2


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted({*TORCHVISION, "synth50"}))
def test_every_backbone_of_the_registry(small, digits, backbone):
    """One block is added in each phase that has two, to branches and to the stump."""
    X, y = digits
    clf = small(backbone=backbone, max_epochs=1, image_size=32)
    selector = BlockSelector(clf, order="cyclic", tolerance=None, max_blocks=8).fit(X[:40], y[:40])
    assert selector.results_.blocks.iloc[-1] == (2, 2, 2, 2)
    assert selector.predict(X[:5]).shape == (5,)


# ------------------------------------------------------------------------------- budgets


def test_budgets(one_epoch, digits):
    free = BlockSelector(one_epoch, tolerance=None, scoring=Scores(RISING)).fit(*digits).results_
    for name, column in [("max_parameters", "parameters"), ("max_macs", "macs")]:
        limit = int(free[column].iloc[1])
        selector = BlockSelector(one_epoch, tolerance=None, scoring=Scores(RISING), **{name: limit})
        assert selector.fit(*digits).blocks_ == (2, 1, 1, 1)
    cheap = BlockSelector(one_epoch, tolerance=None, scoring=Scores(RISING), max_blocks=4)
    assert cheap.fit(*digits).blocks_ == (1, 1, 1, 1)


def test_latency_is_measured(one_epoch, digits):
    selector = BlockSelector(one_epoch, tolerance=None, max_latency_ms=1000.0).fit(*digits)
    assert len(selector.results_) == 3
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 1\) is beyond .'max_latency_ms': 1e-06."):
        selector.set_params(max_latency_ms=1e-6).fit(*digits)


# ----------------------------------------------------------------------------- as users


class Recorder:
    """Sees which images are trained on and scored on; images are told apart by a pixel."""

    def __init__(self, monkeypatch):
        self.trained, self.scored, self.weights = [], [], []
        fit = RRRNetClassifier._fit_set

        def record(clf, images, earlier=None):
            self.trained.append(self.marks(images))
            self.weights.append(images.sample_weight)
            return fit(clf, images, earlier)

        monkeypatch.setattr(RRRNetClassifier, "_fit_set", record)

    def marks(self, images):
        return {int(image[0, 0, 0]) for image, _ in images}

    def score(self, estimator, X, y):
        self.scored.append(self.marks(X))
        return sum(estimator.blocks_)


@pytest.fixture
def marked(digits):
    X, y = digits
    X = X.copy()
    X[:, 0, 0] = np.arange(len(X))
    return X, y


def test_scores_are_of_images_held_out(one_epoch, marked, monkeypatch):
    recorder, everything = Recorder(monkeypatch), set(range(120))
    selector = BlockSelector(one_epoch, tolerance=None, scoring=recorder.score).fit(*marked)
    assert selector.blocks_ == (2, 1, 2, 1)
    assert len(recorder.trained) == len(recorder.scored) == 3
    for trained, scored in zip(recorder.trained, recorder.scored, strict=True):
        assert trained == recorder.trained[0]
        assert len(scored) == 24
        assert trained == everything - scored


@pytest.mark.slow
def test_cross_validation_refits_on_all_images(one_epoch, marked, monkeypatch):
    recorder, everything = Recorder(monkeypatch), set(range(120))
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    selector = BlockSelector(one_epoch, cv=folds, tolerance=None, scoring=recorder.score).fit(
        *marked
    )
    assert len(selector.results_) == 3
    assert len(recorder.trained) == 3 * 2 + 3
    for trained, scored in zip(recorder.trained[:6], recorder.scored, strict=True):
        assert trained == everything - scored
    assert recorder.trained[6:] == [everything] * 3
    again = BlockSelector(one_epoch, cv=folds, tolerance=None).fit(*marked)
    assert (again.results_.score_std > 0).any()


@pytest.mark.slow
def test_folds_in_processes_give_the_same(marked):
    clf = RRRNetClassifier("synth50", image_size=32, max_epochs=1, random_state=0)
    selector = BlockSelector(clf, cv=3, max_blocks=5, tolerance=None).fit(*marked)
    parallel = clone(selector).set_params(n_jobs=2).fit(*marked)
    assert parallel.blocks_ == selector.blocks_
    np.testing.assert_allclose(parallel.results_.score, selector.results_.score, atol=0.05)
    found, expected = (s.predict_proba(marked[0]) for s in (parallel, selector))
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_weights_reach_every_training(one_epoch, marked, monkeypatch):
    X, y = marked
    recorder, weights = Recorder(monkeypatch), np.arange(120.0) + 1
    BlockSelector(one_epoch, tolerance=None, scoring=recorder.score).fit(
        X, y, sample_weight=weights
    )
    for trained, given in zip(recorder.trained, recorder.weights, strict=True):
        assert sorted(given) == sorted(np.array(list(trained)) + 1.0)


def test_what_belongs_to_the_whole_search_is_drawn_once(small, digits, monkeypatch):
    """Bootstrap samples, and the images that watch the training."""
    drawn, held = [], []
    weigh, hold = BaggingEnsemble.weigh, base.hold_out
    monkeypatch.setattr(
        BaggingEnsemble, "weigh", lambda *args: drawn.append(weigh(*args)) or drawn[-1]
    )
    monkeypatch.setattr(base, "hold_out", lambda *args: held.append(hold(*args)) or held[-1])
    clf = small(ensemble="bagging", validation_fraction=0.2, max_epochs=1)
    BlockSelector(clf, tolerance=None).fit(*digits)
    assert len(drawn) == len(held) == 3
    for later in drawn[1:]:
        np.testing.assert_array_equal(later, drawn[0])
    for later in held[1:]:
        np.testing.assert_array_equal(later[0], held[0][0])


def test_cycles_go_on_from_the_last_branch(small, digits):
    still = {"weight_decay": 0.0, "max_epochs": 4}
    clf = small(ensemble="snapshot", n_branches=3, learning_rate=0.05, **still).fit(*digits)
    last = clf.module_.head.weight[2].clone()
    images = clf._read_set(*digits, None, None, clf.classes_)
    clf.set_params(fine_tuning__learning_rate=1e-12)
    grown = clf._grow((2, 1, 2, 1), images, random_state=0)
    torch.testing.assert_close(grown.module_.head.weight[0], last)


def test_bad_files_are_found_before_the_first_training(one_epoch, digit_paths, monkeypatch):
    paths, y = digit_paths
    paths[7].write_text("no picture")
    monkeypatch.setattr(block_search, "_train_and_score", None)
    with pytest.raises(ValueError, match=r"7\.png"):
        BlockSelector(one_epoch).fit(paths, y)


@pytest.mark.filterwarnings("ignore:1 image.s. were skipped")
@pytest.mark.parametrize("seed", range(3))
def test_bad_files_are_skipped(one_epoch, digit_paths, seed):
    paths, y = digit_paths
    paths[7].write_text("no picture")
    selector = BlockSelector(one_epoch, max_blocks=4, random_state=seed)
    selector.set_params(estimator__on_bad_file="skip").fit(paths, y)
    assert selector.skipped_ == [paths[7]]


@pytest.mark.filterwarnings("ignore:The validation split is not stratified")
def test_a_class_that_was_held_out_as_a_whole(one_epoch, digits):
    X, y = digits
    y = y.copy()
    y[0] = 9
    for seed in range(4):
        selector = BlockSelector(one_epoch, max_blocks=4, random_state=seed).fit(X, y)
        assert selector.classes_.tolist() == [0, 1, 2, 3, 9]
        assert selector.results_.parameters[0] == selector.estimator_.n_parameters_


def test_a_failed_fit_leaves_nothing(one_epoch, digits):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=4).fit(X.reshape(120, -1) / 255, y)
    with pytest.raises(ValueError, match="inconsistent"):
        selector.fit(X, y[:-1])
    assert not [name for name in vars(selector) if name.endswith("_")]
    with pytest.raises(ValueError, match="inconsistent"):
        selector.fit(X.reshape(120, -1) / 255, y[:-1])
    with pytest.raises(NotFittedError):
        selector.predict(X)


def test_folds_are_of_the_images_as_they_were_given(one_epoch, marked, monkeypatch):
    """Images without weight are in no fold; the others keep their places."""
    X, y = marked
    weights = np.ones(120)
    weights[:10] = 0
    halves = np.arange(60), np.arange(60, 120)
    for cv in ([halves], PredefinedSplit(np.repeat([-1, 0], 60))):
        with monkeypatch.context() as patch:
            recorder = Recorder(patch)
            selector = BlockSelector(one_epoch, max_blocks=4, cv=cv, scoring=recorder.score)
            selector.fit(X, y, sample_weight=weights)
        assert recorder.trained == [set(range(10, 60)), set(range(10, 120))]
        assert recorder.scored == [set(range(60, 120))]
    selector.set_params(cv=[(halves[1], np.arange(10))])
    with pytest.raises(ValueError, match="`cv` gave a fold with a part of which no"):
        selector.fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("splitter", [GroupKFold(2), StratifiedGroupKFold(2)])
def test_groups_reach_the_splitter(one_epoch, marked, monkeypatch, splitter):
    X, y = marked
    groups, recorder = np.arange(120) // 4, Recorder(monkeypatch)
    weights = np.where(np.arange(120) == 5, 0.0, 1.0)
    selector = BlockSelector(one_epoch, max_blocks=4, cv=splitter, scoring=recorder.score)
    selector.fit(X, y, sample_weight=weights, groups=pd.Series(groups))
    assert len(recorder.scored) == 2
    for trained, scored in zip(recorder.trained[:2], recorder.scored, strict=True):
        assert trained | scored == set(range(120)) - {5}
        assert not {i // 4 for i in trained} & {i // 4 for i in scored}


def test_groups_that_are_missing_or_unused(one_epoch, digits):
    X, y = digits
    grouped = BlockSelector(one_epoch, max_blocks=4, cv=GroupKFold(2))
    with pytest.raises(ValueError, match="The 'groups' parameter should not be None"):
        grouped.fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        grouped.fit(X, y, groups=np.zeros(7))
    with pytest.raises(ValueError, match=r"`groups` are passed to the splitter.*cv=GroupKFold"):
        grouped.set_params(cv=None).fit(X, y, groups=np.arange(120))
    with pytest.warns(UserWarning, match="groups parameter is ignored by StratifiedKFold"):
        grouped.set_params(cv=2).fit(X, y, groups=np.arange(120))


def test_other_groups_are_another_search(one_epoch, digits, tmp_path):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=4, cv=GroupKFold(2), checkpoint_dir=tmp_path)
    for groups in (np.arange(120), np.arange(120) // 4, np.arange(120)):
        selector.fit(X, y, groups=groups)
    assert len(list(tmp_path.iterdir())) == 2


def test_metadata_reaches_the_selector_through_a_search(one_epoch, marked, monkeypatch):
    """Groups and weights are routed through a pipeline, and cut to each fold."""
    X, y = marked
    groups, recorder = np.arange(120) // 4, Recorder(monkeypatch)
    with config_context(enable_metadata_routing=True):
        selector = BlockSelector(one_epoch, cv=GroupKFold(2), scoring=recorder.score)
        selector.set_fit_request(groups=True, sample_weight=True)
        pipeline = Pipeline([("pass", "passthrough"), ("selector", selector)])
        unweighted = get_scorer("accuracy").set_score_request(sample_weight=False)
        options = {"cv": 2, "scoring": unweighted, "error_score": "raise"}
        search = GridSearchCV(pipeline, {"selector__max_blocks": [4]}, **options)
        search.fit(X, y, groups=groups, sample_weight=np.arange(120.0) + 1)
    assert len(recorder.trained) == 3 * 3
    for trained, weights in zip(recorder.trained, recorder.weights, strict=True):
        assert sorted(weights) == sorted(np.array(list(trained)) + 1.0)
    for first, second in zip(recorder.trained[::3], recorder.trained[1::3], strict=True):
        assert not {i // 4 for i in first} & {i // 4 for i in second}


def test_a_fitted_estimator_makes_no_difference(one_epoch, digits):
    X, y = digits
    fresh = BlockSelector(one_epoch, max_blocks=5).fit(X, y)
    fitted = BlockSelector(clone(one_epoch).fit(X, y), max_blocks=5).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), fresh.predict_proba(X))


@pytest.mark.parametrize(
    "estimator", [None, "none", RRRNetClassifier, LogisticRegression(), FrozenEstimator("x")]
)
def test_tags_never_raise(estimator):
    for kind in (BlockSelector, ChannelPruner, BlockPruner):
        assert get_tags(kind(estimator)).estimator_type == "classifier"
    frozen = FrozenEstimator(RRRNetClassifier())
    assert get_tags(ChannelPruner(frozen)).input_tags.three_d_array
    assert not get_tags(BlockSelector(frozen)).input_tags.three_d_array


def test_torchs_generator_is_left_alone(one_epoch, digits):
    before = torch.get_rng_state()
    BlockSelector(one_epoch, max_blocks=5, tolerance=None).fit(*digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_scoring_and_score(one_epoch, digits):
    X, y = digits
    selector = BlockSelector(one_epoch, scoring="neg_log_loss", tolerance=None).fit(X, y)
    assert (selector.results_.score < 0).all()
    expected = get_scorer("neg_log_loss")(selector.estimator_, X, y)
    assert selector.score(X, y) == pytest.approx(expected)
    pd.testing.assert_frame_equal(
        selector.predict_uncertainty(X), selector.estimator_.predict_uncertainty(X)
    )


@pytest.mark.slow
def test_in_a_search_and_by_default(one_epoch, digits):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=5)
    grid = {"order": ["sequential", "cyclic"], "estimator__n_branches": [1, 2]}
    search = GridSearchCV(selector, grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_estimator_
    assert best.order == search.best_params_["order"]
    assert best.estimator_.n_branches == search.best_params_["estimator__n_branches"]
    tags = BlockSelector().__sklearn_tags__()
    assert tags.input_tags.three_d_array
    assert BlockSelector()._make_estimator().get_params()["n_branches"] == 1


def test_images_of_other_forms(one_epoch, digits, digit_paths, picture_dataset):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=4)
    paths, labels = digit_paths
    assert selector.fit(paths, labels).predict(paths).shape == (40,)
    dataset = picture_dataset(X, y)
    assert selector.fit(dataset).predict(X[:5]).shape == (5,)
    names = np.array(["zero", "one", "two", "three"])[y]
    rows = X.reshape(len(X), -1) / 255
    selector.fit(rows, names, sample_weight=np.ones(len(y)))
    assert selector.n_features_in_ == 64
    assert set(selector.classes_) == set(names)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"order": "random"}, ValueError, "`order` must be one of 'sequential', 'cyclic'"),
        ({"select_by": "best"}, ValueError, "`select_by` must be one of 'score', 'pareto'"),
        ({"tolerance": -0.1}, ValueError, r"`tolerance` must be a number.*None disables the stop"),
        ({"epochs_per_step": 0}, ValueError, "`epochs_per_step` must be an int of at least 1"),
        ({"max_blocks": 3}, ValueError, "`max_blocks` must be an int of at least 4"),
        ({"max_parameters": 10}, ValueError, r"\(1, 1, 1, 1\) is beyond .'max_parameters': 10."),
        ({"validation_fraction": 1.0}, ValueError, "`validation_fraction` must be"),
        ({"scoring": "nonsense"}, ValueError, "nonsense"),
        ({"scoring": Scores({(1, 1, 1, 1): np.nan})}, ValueError, "`scoring` returned nan"),
        ({"estimator": LogisticRegression()}, TypeError, "must be an RRRNetClassifier; got Log"),
        ({"estimator": LastLayerClassifier()}, TypeError, "must be an RRRNetClassifier"),
        ({"estimator": RRRNetClassifier}, TypeError, "must be an RRRNetClassifier; got <class"),
        ({"checkpoint_dir": 3}, TypeError, "`checkpoint_dir` must be a str or a path; got 3"),
        ({"checkpoint_dir": __file__}, ValueError, "must be a folder or None; .* Not a directory"),
        ({"scoring": ["accuracy"]}, TypeError, "`scoring` must be one scorer, its name or None"),
        ({"cv": iter(())}, ValueError, "`cv` gave no split"),
        ({"n_jobs": 0}, ValueError, "`n_jobs` must be None or an int other than 0; got 0"),
        ({"verbose": -1}, ValueError, "`verbose` must be an int"),
        ({"control": 1}, TypeError, "`control` must be True or False"),
    ],
)
def test_wrong_parameters(one_epoch, digits, parameters, error, words):
    with pytest.raises(error, match=words):
        BlockSelector(**{"estimator": one_epoch} | parameters).fit(*digits)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_branches", 0), ("n_branches", "8"), ("split_at", "conv9"), ("image_size", -5)],
)
def test_wrong_parameters_of_the_estimator(one_epoch, digits, name, value):
    with pytest.raises((ValueError, TypeError), match=f"`{name}` must be"):
        BlockSelector(one_epoch.set_params(**{name: value})).fit(*digits)


def test_wrong_data(one_epoch, digits):
    X, y = digits
    with pytest.raises(ValueError, match="requires y to be passed"):
        BlockSelector(one_epoch).fit(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        BlockSelector(one_epoch).fit(X, y[:-1])
    with pytest.raises(NotFittedError):
        BlockSelector(one_epoch).predict(X)
