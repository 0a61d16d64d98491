"""Searches and predictions on a cluster of two worker processes."""

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from sklearn_rrr import BlockSelector, ChannelPruner, RRRNetClassifier, load, save

dask_bag = pytest.importorskip("dask.bag")
distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

X, Y = load_digits(n_class=3, return_X_y=True)
X, Y = X.reshape(-1, 8, 8)[:90] / 16, Y[:90]
SMALL = {"image_size": 32, "random_state": 0}


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_grid_search(cluster):
    clf = RRRNetClassifier("synth50", max_epochs=1, **SMALL)
    grid = {"blocks": [(1, 1, 1, 1), (2, 1, 1, 1)], "n_branches": [1, 2]}
    local = GridSearchCV(clf, grid, cv=2).fit(X, Y)
    with joblib.parallel_config(backend="dask"):
        remote = GridSearchCV(clf, grid, cv=2).fit(X, Y)
    assert remote.best_params_ == local.best_params_
    means = (search.cv_results_["mean_test_score"] for search in (remote, local))
    np.testing.assert_allclose(*means, atol=0.03)


def test_block_selector(cluster):
    clf = RRRNetClassifier("synth50", max_epochs=1, **SMALL)
    selector = BlockSelector(clf, cv=2, max_blocks=5, tolerance=None)
    local = selector.fit(X, Y).results_
    with joblib.parallel_config(backend="dask"):
        remote = selector.fit(X, Y).results_
    assert remote.blocks.tolist() == local.blocks.tolist()
    np.testing.assert_allclose(remote.score, local.score, atol=0.03)


def test_grid_of_a_pruner(cluster):
    clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), max_epochs=1, **SMALL)
    pruner = ChannelPruner(clf, n_steps=1, epochs_per_step=1, random_state=0)
    grid = {"target": [0.2, 0.4]}
    local = GridSearchCV(pruner, grid, cv=2).fit(X, Y)
    with joblib.parallel_config(backend="dask"):
        remote = GridSearchCV(pruner, grid, cv=2).fit(X, Y)
    means = (search.cv_results_["mean_test_score"] for search in (remote, local))
    np.testing.assert_allclose(*means, atol=0.03)


def test_a_folder_by_partitions(cluster, tmp_path):
    clf = RRRNetClassifier("synth50", fine_tuning="one_pass", **SMALL).fit(X, Y)
    save(clf, tmp_path / "model.safetensors")
    paths = []
    for i, image in enumerate(X[:40]):
        paths.append(str(tmp_path / f"{i:02}.png"))
        Image.fromarray((image * 255).astype(np.uint8)).save(paths[-1])

    def predict(part, model=str(tmp_path / "model.safetensors")):
        worker = distributed.get_worker()
        if not hasattr(worker, "classifier"):
            worker.classifier = load(model)
        return worker.classifier.predict_proba(list(part)).tolist()

    found = dask_bag.from_sequence(paths, npartitions=4).map_partitions(predict).compute()
    np.testing.assert_allclose(found, clf.predict_proba(paths), atol=1e-6)


def test_an_error_of_a_worker_names_the_file(cluster, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    clf = RRRNetClassifier("synth50", fine_tuning="one_pass", **SMALL)
    with (
        joblib.parallel_config(backend="dask"),
        pytest.raises(ValueError, match=r"bad\.png"),
    ):
        GridSearchCV(clf, {"n_branches": [1]}, cv=2, error_score="raise").fit(
            [*X[:20], bad], [*Y[:20], 0]
        )
