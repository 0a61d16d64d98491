"""Many tasks on one backbone: small files, and the same predictions."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_rrr import FineTuning, MultiTaskStore, NetTailorClassifier, load, save
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.deployment.model_files import make_metadata, read
from sklearn_rrr.deployment.task_files import load_task, save_task

SMALL = {"backbone": "tiny", "max_epochs": 1, "batch_size": 16}
SMALL |= {"fine_tuning": FineTuning(augmentation="none")}
SMALL |= {"precision": "fp32", "tolerance": 1.0, "validation_fraction": 0.2}


def fit(digits, weights, seed=0, **parameters):
    settings = {**SMALL, "n_removed": seed % 3 + 1, "weights": weights, "random_state": seed}
    return NetTailorClassifier(**settings | parameters).fit(*digits)


@pytest.fixture(scope="module")
def fitted(digits):
    torch.manual_seed(0)
    return fit(digits, make_backbone("tiny").state_dict())


@pytest.mark.slow
def test_ten_tasks_share_one_backbone(digits, weights, tmp_path):
    X, y = digits
    store, expected = MultiTaskStore(tmp_path / "store", "tiny", weights), {}
    for seed in range(10):
        clf = fit(
            (X, (y + seed) % 4 % (seed % 3 + 2)), weights, seed, teacher_weight=0.0, n_skips=1
        )
        expected[f"task-{seed}"] = clf.predict_proba(X)
        assert store.add(f"task-{seed}", clf) is store
    again = MultiTaskStore(tmp_path / "store", "tiny")  # the folder has the weights
    assert again.tasks == store.tasks == sorted(expected)
    for name, proba in expected.items():
        np.testing.assert_array_equal(again.load(name).predict_proba(X), proba)
    sizes = again.sizes()
    assert sizes.index.tolist() == ["backbone", *sorted(expected)]
    files = list((tmp_path / "store").iterdir())
    assert len(files) == 11
    (tmp_path / "store" / ".half.safetensors").touch()  # left by what stopped the writing
    assert again.tasks == store.tasks
    assert sizes.sum() == pytest.approx(sum(f.stat().st_size for f in files) / 1e6)
    assert sizes["backbone"] * 1e6 > 4 * sum(w.numel() for w in weights.values())
    # Much of so small a task is the file's header; tensors alone tell what is shared.
    n_whole = sum(w.numel() for w in weights.values())
    for name in expected:
        n_task = sum(
            t.numel() for t in load_file(tmp_path / "store" / f"{name}.safetensors").values()
        )
        assert n_task < 0.25 * n_whole


def test_task_of_inverted_residuals(digits, tmp_path):
    torch.manual_seed(0)
    weights = make_backbone("tiny_mobile").state_dict()
    clf = fit(digits, weights, backbone="tiny_mobile", n_removed=4)
    store = MultiTaskStore(tmp_path, "tiny_mobile", weights).add("digits", clf)
    again = store.load("digits")
    np.testing.assert_array_equal(again.predict_proba(digits[0]), clf.predict_proba(digits[0]))


def test_the_delta_is_what_is_not_shared(fitted, weights, tmp_path):
    save_task(fitted, tmp_path / "task")
    saved, delta = load_file(tmp_path / "task"), fitted.task_delta_
    assert saved.keys() == delta.keys()
    assert all(torch.equal(saved[key], delta[key]) for key in delta)
    state, shared = fitted.module_.state_dict(), fitted.module_.shared_keys()
    assert state.keys() == {*delta, *shared, "normalize.mean", "normalize.std"}
    originals = {tuple(w.flatten().tolist()) for w in weights.values()}
    assert all(tuple(state[key].flatten().tolist()) in originals for key in shared)
    delta["head.bias"].zero_()  # a copy
    assert fitted.module_.head.bias.abs().max() > 0


def test_a_task_needs_its_own_backbone(fitted, digits, weights, tmp_path):
    save_task(fitted, tmp_path / "task")
    again = load_task(tmp_path / "task", weights)
    np.testing.assert_array_equal(again.predict(digits[0]), fitted.predict(digits[0]))
    other = {key: value + 0.1 if "conv" in key else value for key, value in weights.items()}
    with pytest.raises(ValueError, match="was trained on other weights of the backbone 'tiny'"):
        load_task(tmp_path / "task", other)
    store = MultiTaskStore(tmp_path / "store", "tiny", other)
    with pytest.raises(ValueError, match=r"trained on other weights than the 'tiny' of this store"):
        store.add("mine", fitted)
    assert store.tasks == []
    assert [path.name for path in store.folder.iterdir()] == ["backbone.safetensors"]


def test_a_loaded_task_is_fitted_anew_from_its_backbone(fitted, digits, weights, tmp_path):
    store = MultiTaskStore(tmp_path / "store", "tiny", weights).add("mine", fitted)
    loaded = store.load("mine")
    assert loaded.weights == str(store.folder / "backbone.safetensors")
    again = clone(loaded).fit(*digits)
    for key, value in again.module_.stump.named_parameters():
        assert torch.equal(value, fitted.module_.stump.get_parameter(key))
    store.add("again", again)  # which refuses other weights
    save(loaded, tmp_path / "whole")
    assert load(tmp_path / "whole").weights == loaded.weights


def test_kinds_of_files_are_told_apart(fitted, weights, tmp_path):
    save_task(fitted, tmp_path / "task")
    save(copy.copy(fitted).set_params(weights=None), tmp_path / "whole")
    with pytest.raises(
        ValueError, match=r"contains a task without its backbone; use sklearn_rrr\.load_task"
    ):
        load(tmp_path / "task")
    with pytest.raises(ValueError, match=r"contains a whole classifier; use sklearn_rrr\.load"):
        load_task(tmp_path / "whole", weights)
    with pytest.raises(ValueError, match="is not a file"):
        load_task(tmp_path / "nothing", weights)


def test_damaged_tasks_are_refused(fitted, weights, tmp_path):
    path = tmp_path / "task"
    save_task(fitted, path)
    content, delta = *read(path)[:1], load_file(path)
    key = next(key for key in delta if "running_mean" in key)
    for wrong, match in [
        ({k: v for k, v in delta.items() if k != key}, "missing, or does not belong to the task"),
        (delta | {"stump.0.weight": torch.zeros(4, 3, 7, 7)}, "'stump.0.weight' is missing, or"),
        (delta | {key: torch.zeros(99)}, r"has the shape \(99,\)"),
        (delta | {key: delta[key] * torch.nan}, "NaN or infinite"),
    ]:
        save_file(wrong, path, make_metadata(json.dumps(content), wrong))
        with pytest.raises(ValueError, match=match):
            load_task(path, weights)


def test_wrong_stores(fitted, small, digits, weights, tmp_path):
    store = MultiTaskStore(tmp_path, "tiny", weights)
    assert repr(store).endswith("backbone='tiny')")
    for name in (
        "",
        "../x",
        "a/b",
        ".hidden",
        "backbone",
        "BACKBONE",
        "con",
        "COM1.x",
        "x" * 101,
        3,
    ):
        with pytest.raises(ValueError, match="`name` must be at most 100 letters"):
            store.add(name, fitted)
    with pytest.raises(ValueError, match=r"`name` must be one of \[\]; got 'x'"):
        store.load("x")
    with pytest.raises(
        TypeError, match=r"must be a NetTailorClassifier, .* got a RRRNetClassifier"
    ):
        store.add("x", small(max_epochs=1).fit(*digits))
    with pytest.raises(NotFittedError):
        store.add("x", NetTailorClassifier())
    with pytest.raises(ValueError, match="does not fit 'tiny_basic'"):
        MultiTaskStore(tmp_path, "tiny_basic")
    with pytest.raises(ValueError, match="are random for the backbone 'tiny'"):
        MultiTaskStore(tmp_path / "other", "tiny", None)
