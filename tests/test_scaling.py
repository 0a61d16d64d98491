"""Searches and predictions on a cluster of two worker processes: the results of one process."""

import importlib

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from sklearn_rrr import (
    BlockSelector,
    ChannelPruner,
    NetTailorClassifier,
    RRRNetClassifier,
    list_backbones,
    save,
)
from tests.scoring import count_loads, predict

dask_bag = pytest.importorskip("dask.bag")
distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

X, Y = load_digits(n_class=3, return_X_y=True)
X, Y = X.reshape(-1, 8, 8)[:90] / 16, Y[:90]
SMALL = {"image_size": 32, "random_state": 0}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BACKBONE = """
from sklearn_rrr import make_resnet, register_backbone
from sklearn_rrr.backbones.basic_block import BasicBlock

@register_backbone("uploaded")
def build():
    return make_resnet("uploaded", BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), image_size=16)
"""


@pytest.fixture(scope="module")
def cluster():
    form = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "env": ONE_THREAD}
    with (
        distributed.LocalCluster(**form, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def fit_both(estimator):
    """Fit an estimator here, and a clone on the cluster; return both."""
    here, there = estimator.fit(X, Y), clone(estimator)
    with joblib.parallel_config(backend="dask"):
        return here, there.fit(X, Y)


def compare_searches(here, there):
    """Check that two grid searches have equal scores: losses, which depend on every probability."""
    assert there.best_params_ == here.best_params_
    for name in ("split0_test_score", "split1_test_score"):
        found, expected = (search.cv_results_[name] for search in (there, here))
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_workers_have_one_thread(cluster):
    assert list(cluster.run(torch.get_num_threads).values()) == [1, 1]


def test_grid_search(cluster):
    clf = RRRNetClassifier("synth50", max_epochs=1, **SMALL)
    grid = {"blocks": [(1, 1, 1, 1), (2, 1, 1, 1)], "n_branches": [1, 2]}
    compare_searches(*fit_both(GridSearchCV(clf, grid, cv=2, scoring="neg_log_loss")))


def test_block_selector(cluster):
    clf = RRRNetClassifier("synth50", max_epochs=1, **SMALL)
    form = {"max_blocks": 5, "tolerance": None, "scoring": "neg_log_loss"}
    here, there = fit_both(BlockSelector(clf, cv=2, **form))
    timed = ["seconds", "latency_ms"]
    tables = (selector.results_.drop(columns=timed) for selector in (there, here))
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6)
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-6)


def test_grid_of_a_pruner(cluster):
    clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), max_epochs=1, **SMALL)
    pruner = ChannelPruner(clf, n_steps=1, epochs_per_step=1, random_state=0)
    grid = {"target": [0.2, 0.4]}
    compare_searches(*fit_both(GridSearchCV(pruner, grid, cv=2, scoring="neg_log_loss")))


def test_students_of_nettailor(cluster):
    form = {"max_epochs": 1, "n_removed": [1, 3], "tolerance": 1.0, "progressive": False}
    form |= {"weights": None, "random_state": 0}
    here, there = fit_both(NetTailorClassifier("tiny", **form))
    pd.testing.assert_frame_equal(there.results_, here.results_)
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-6)


def test_a_folder_by_partitions(cluster, tmp_path):
    clf = RRRNetClassifier("synth50", fine_tuning="one_pass", **SMALL).fit(X, Y)
    model, paths = str(tmp_path / "model.safetensors"), []
    save(clf, model)
    for i, image in enumerate(X[:40]):
        paths.append(str(tmp_path / f"{i:02}.png"))
        Image.fromarray((image * 255).astype(np.uint8)).save(paths[-1])
    parts = dask_bag.from_sequence(paths, npartitions=4)
    found = parts.map_partitions(predict, model).compute()
    np.testing.assert_allclose(found, clf.predict_proba(paths), atol=1e-6)
    counts = cluster.run(count_loads).values()  # of four partitions
    assert max(counts) == 1


def test_a_module_with_a_backbone_can_be_uploaded(cluster, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "uploaded_backbones.py").write_text(BACKBONE)
    importlib.import_module("uploaded_backbones")
    cluster.upload_file(str(tmp_path / "uploaded_backbones.py"))  # imports it again
    for names in cluster.run(list_backbones).values():
        assert "uploaded" in names
    clf = RRRNetClassifier("uploaded", weights=None, max_epochs=1, random_state=0)
    grid = {"n_branches": [1, 2]}
    compare_searches(*fit_both(GridSearchCV(clf, grid, cv=2, scoring="neg_log_loss")))


def test_an_error_of_a_worker_names_the_file(cluster, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    clf = RRRNetClassifier("synth50", fine_tuning="one_pass", **SMALL)
    search = GridSearchCV(clf, {"n_branches": [1]}, cv=2, error_score="raise")
    with (
        joblib.parallel_config(backend="dask"),
        pytest.raises(ValueError, match=r"bad\.png"),
    ):
        search.fit([*X[:20], bad], [*Y[:20], 0])
