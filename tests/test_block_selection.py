"""BlockSelector: growth from where it was, budgets, resuming, as a scikit-learn estimator."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_rrr import BlockSelector, LastLayerClassifier, save
from sklearn_rrr.backbones import make_backbone
from sklearn_rrr.block_search import BlockSearch, SearchStore
from sklearn_rrr.network import RRRNet

COLUMNS = ["blocks", "score", "score_std", "parameters", "macs", "latency_ms", "seconds"]
COLUMNS += ["epochs", "kept", "control", "pareto"]


class Scores:
    """A scorer that knows networks by their blocks."""

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, estimator, X, y):
        return self.scores[estimator.blocks_]


RISING = {(1, 1, 1, 1): 0.5, (2, 1, 1, 1): 0.6, (2, 1, 2, 1): 0.7}


@pytest.fixture
def one_epoch(small):
    return small(max_epochs=1, n_branches=1, trainable="all")


def without_times(results):
    return results.drop(columns=["seconds", "latency_ms"])


# ------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("split", ["paper", "aligned"])
@pytest.mark.parametrize("n_branches", [1, 2])
def test_a_new_block_is_pretrained_and_the_rest_goes_on(small, digits, split, n_branches):
    torch.manual_seed(3)
    weights = make_backbone("tiny").state_dict()
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1, "split": split}
    clf = small(weights=weights, n_branches=n_branches, trainable="all", **still).fit(*digits)
    grown = clf._grow((2, 1, 2, 1), *digits, random_state=5)
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
    selector = BlockSelector(one_epoch, scoring=Scores(scores), tol=None).fit(*digits)
    assert selector.blocks_ == (2, 1, 1, 1)
    assert len(selector.results_) == 3


def test_pareto_takes_the_knee(one_epoch, digits):
    scores = {(1, 1, 1, 1): 0.1, (2, 1, 1, 1): 0.79, (2, 1, 2, 1): 0.8}
    selector = BlockSelector(one_epoch, scoring=Scores(scores), criterion="pareto").fit(*digits)
    assert selector.blocks_ == (2, 1, 1, 1)
    assert selector.results_.pareto.all()


def test_the_control_is_trained_as_long(one_epoch, digits):
    selector = BlockSelector(one_epoch, tol=None, control=True, epochs_per_step=2).fit(*digits)
    table = selector.results_
    control = table[table.control]
    assert control.blocks.tolist() == [(1, 1, 1, 1)] * 2
    assert table[~table.control].epochs.tolist() == [2, 4, 6]
    assert control.epochs.tolist() == [4, 6]
    assert not control.kept.any()
    assert not control.pareto.any()


@pytest.mark.parametrize("backbone", ["tiny", "tiny_basic"])
@pytest.mark.parametrize("order", ["sequential", "cyclic"])
def test_any_backbone_with_branches(small, digits, backbone, order):
    clf = small(backbone=backbone, max_epochs=1, ensemble="bagging", dropout=0.1)
    selector = BlockSelector(clf, order=order, tol=None, random_state=1).fit(*digits)
    largest = selector.results_.blocks.iloc[-1]
    assert largest == make_backbone(backbone).depths
    assert selector.estimator_.ensemble == "bagging"
    assert selector.estimator_.n_branches == 2


# ------------------------------------------------------------------------------- budgets


def test_budgets(one_epoch, digits):
    free = BlockSelector(one_epoch, tol=None, scoring=Scores(RISING)).fit(*digits).results_
    for name, column in [("max_parameters", "parameters"), ("max_macs", "macs")]:
        limit = int(free[column].iloc[1])
        selector = BlockSelector(one_epoch, tol=None, scoring=Scores(RISING), **{name: limit})
        assert selector.fit(*digits).blocks_ == (2, 1, 1, 1)
    cheap = BlockSelector(one_epoch, tol=None, scoring=Scores(RISING), max_blocks=4)
    assert cheap.fit(*digits).blocks_ == (1, 1, 1, 1)


def test_latency_is_measured(one_epoch, digits, monkeypatch):
    selector = BlockSelector(one_epoch, tol=None, max_latency_ms=1000.0).fit(*digits)
    assert len(selector.results_) == 3
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 1\) is beyond a budget; .*'latency_ms'"):
        selector.set_params(max_latency_ms=1e-6).fit(*digits)


# ------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("step", range(5))
def test_a_search_killed_at_any_step_resumes(one_epoch, digits, tmp_path, step, monkeypatch):
    X, y = digits
    selector = BlockSelector(one_epoch, tol=None, control=True, checkpoint_dir=tmp_path)
    expected = clone(selector).set_params(checkpoint_dir=None).fit(X, y)
    train, done = BlockSearch._train_one, []

    def interrupted(self, *args):
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(args)
        return train(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(BlockSearch, "_train_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            selector.fit(X, y)
    assert not hasattr(selector, "results_")

    counted = []
    monkeypatch.setattr(
        BlockSearch, "_train_one", lambda *args: counted.append(args) or train(*args)
    )
    resumed = clone(selector).fit(X, y)
    assert len(counted) == 5 - step
    assert without_times(resumed.results_).equals(without_times(expected.results_))
    np.testing.assert_array_equal(resumed.predict_proba(X), expected.predict_proba(X))


def test_a_kill_while_a_step_is_written(one_epoch, digits, tmp_path, monkeypatch):
    """The networks are there, the index is not: the step is trained again."""
    X, y = digits
    selector = BlockSelector(one_epoch, tol=None, checkpoint_dir=tmp_path)
    expected = clone(selector).set_params(checkpoint_dir=None).fit(X, y)
    write, calls = SearchStore.write_index, []

    def failing(self):
        calls.append(1)
        if len(self.record["steps"]) == 2:
            raise OSError("No space left on device")
        write(self)

    with monkeypatch.context() as patch:
        patch.setattr(SearchStore, "write_index", failing)
        with pytest.raises(OSError, match="No space left"):
            selector.fit(X, y)
    resumed = selector.fit(X, y)
    np.testing.assert_array_equal(resumed.predict_proba(X), expected.predict_proba(X))


def test_searches_in_one_folder_do_not_meet(one_epoch, digits, tmp_path):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=4, checkpoint_dir=tmp_path).fit(X, y)
    selector.fit(X, y)
    assert len(list(tmp_path.iterdir())) == 1
    selector.set_params(epochs_per_step=2).fit(X, y)
    selector.fit(X[:100], y[:100])
    selector.set_params(estimator__learning_rate=0.1).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 4


# ----------------------------------------------------------------------------- as users


def test_cross_validation_refits_on_all_images(one_epoch, digits):
    X, y = digits
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    selector = BlockSelector(one_epoch, cv=folds, tol=None).fit(X, y)
    assert (selector.results_.score_std > 0).any()
    assert selector.blocks_ in selector.results_.blocks.tolist()
    again = BlockSelector(one_epoch, cv=folds, tol=None).fit(X, y)
    np.testing.assert_array_equal(selector.predict(X), again.predict(X))


def test_scoring_and_score(one_epoch, digits):
    X, y = digits
    selector = BlockSelector(one_epoch, scoring="neg_log_loss", tol=None).fit(X, y)
    assert (selector.results_.score < 0).all()
    expected = get_scorer("neg_log_loss")(selector.estimator_, X, y)
    assert selector.score(X, y) == pytest.approx(expected)


def test_in_a_search_and_by_default(one_epoch, digits):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=5)
    grid = {"order": ["sequential", "cyclic"], "estimator__n_branches": [1, 2]}
    search = GridSearchCV(selector, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.blocks_
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


def test_what_it_leaves_is_saved(one_epoch, digits, tmp_path):
    selector = BlockSelector(one_epoch, max_blocks=4).fit(*digits)
    save(selector.estimator_, tmp_path / "model")
    with pytest.raises(TypeError, match="pass the classifier inside"):
        save(selector, tmp_path / "model")


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"order": "random"}, ValueError, "`order` must be one of 'sequential', 'cyclic'"),
        ({"criterion": "best"}, ValueError, "`criterion` must be one of 'score', 'pareto'"),
        ({"tol": -0.1}, ValueError, r"`tol` must be a number.*None switches the stop off"),
        ({"epochs_per_step": 0}, ValueError, "`epochs_per_step` must be an int of at least 1"),
        ({"max_blocks": 3}, ValueError, "`max_blocks` must be an int of at least 4"),
        ({"max_parameters": 10}, ValueError, r"\(1, 1, 1, 1\) is beyond a budget"),
        ({"validation_fraction": 1.0}, ValueError, "`validation_fraction` must be"),
        ({"scoring": "nonsense"}, ValueError, "nonsense"),
        ({"scoring": Scores({(1, 1, 1, 1): np.nan})}, ValueError, "`scoring` gave nan"),
        ({"estimator": LogisticRegression()}, TypeError, "must be an RRRNetClassifier; got Log"),
        ({"estimator": LastLayerClassifier()}, TypeError, "must be an RRRNetClassifier"),
        ({"control": 1}, TypeError, "`control` must be True or False"),
    ],
)
def test_wrong_parameters(one_epoch, digits, parameters, error, words):
    with pytest.raises(error, match=words):
        BlockSelector(**{"estimator": one_epoch} | parameters).fit(*digits)


def test_wrong_data(one_epoch, digits):
    X, y = digits
    with pytest.raises(ValueError, match="requires y to be passed"):
        BlockSelector(one_epoch).fit(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        BlockSelector(one_epoch).fit(X, y[:-1])
    with pytest.raises(NotFittedError):
        BlockSelector(one_epoch).predict(X)
