"""A fit that is killed goes on where it was, and ends in the same model."""

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_rrr import (
    BasisScalingPruner,
    BlockSelector,
    ChannelPruner,
    ElementPruner,
    FineTuning,
    FineTuningClassifier,
    LastLayerClassifier,
    NetTailorClassifier,
    ProgressiveKernelPruner,
)
from sklearn_rrr.training.branch_net import BranchNet


@pytest.fixture
def makers(small, weights):
    common = {"weights": weights, "image_size": 16, "max_epochs": 3, "random_state": 0}
    plain = {"n_branches": 2, "max_epochs": 3, "augmentation": "geometric"}
    tailor = {"n_removed": [1, 2], "epochs_per_step": 1, "tolerance": 1.0}
    return {
        **{
            f"frozen {name}": lambda t=name, **k: small(
                **plain, trainable=t, norm_warmup_epochs=1, **k
            )
            for name in ("branches", "head")
        },
        "cached": lambda **k: small(
            **plain | {"augmentation": "none"}, trainable="branches", head_init="ridge", **k
        ),
        "published": lambda **k: small(
            fine_tuning=FineTuning(trainable="branches", sampling="independent", ema_epochs=2),
            n_branches=2,
            max_epochs=3,
            **k,
        ),
        "snapshot of branches": lambda **k: small(
            **plain | {"max_epochs": 4}, ensemble="snapshot", trainable="branches", **k
        ),
        "averaged": lambda **k: small(**plain, ema_epochs=2, dropout=0.2, **k),
        "unseeded": lambda **k: small(**plain, **k).set_params(random_state=None),
        "schedule": lambda **k: small(**plain, lr_schedule="cosine", optimizer="sgd", **k),
        "early": lambda **k: small(
            **plain, early_stopping=True, validation_fraction=0.3, patience=1, **k
        ),
        "snapshot": lambda **k: small(**plain | {"max_epochs": 4}, ensemble="snapshot", **k),
        "fge": lambda **k: small(**plain | {"max_epochs": 4}, ensemble="fge", trainable="all", **k),
        "bagging": lambda **k: small(**plain, ensemble="bagging", sampling="independent", **k),
        "last layer": lambda **k: LastLayerClassifier("tiny", **common, **k),
        "fine-tuning": lambda **k: FineTuningClassifier("tiny", **common, **k),
        "tailor": lambda **k: NetTailorClassifier(
            "tiny", **common | {"max_epochs": 2}, **tailor, **k
        ),
        "channels": lambda **k: ChannelPruner(
            small(**plain | {"max_epochs": 2}), epochs_per_step=1, n_steps=2, **k
        ),
        "elements": lambda **k: ElementPruner(
            small(**plain | {"max_epochs": 1}), epochs_per_step=1, n_steps=2, **k
        ),
        "kernels": lambda **k: ProgressiveKernelPruner(
            small(**plain | {"max_epochs": 1}), epochs_per_step=1, **k
        ),
        "chain": lambda **k: BasisScalingPruner(
            small(**plain | {"max_epochs": 1}),
            epochs_per_step=1,
            then=ChannelPruner(epochs_per_step=1, n_steps=1),
            **k,
        ),
    }


FAST = ("frozen branches", "averaged", "early", "fge", "channels")
SLOW = (
    *("frozen head", "cached", "published", "snapshot of branches", "unseeded", "schedule"),
    *("snapshot", "bagging", "last layer", "fine-tuning", "tailor", "elements", "kernels", "chain"),
)
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


class Killed(BaseException):
    """What ends a process at once; no code of the package catches it."""


def kill_at(monkeypatch, step):
    """Let the training die in a step. Counted are all steps since the call."""
    original, steps = BranchNet.train_step_single, []

    def count(net, batch, **fit_params):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return original(net, batch, **fit_params)

    monkeypatch.setattr(BranchNet, "train_step_single", count)
    return steps


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_repeated_is_the_same(makers, digits, tmp_path, monkeypatch, name):
    X, y = digits
    journal = tmp_path / "journal"
    if name != "unseeded":
        expected = makers[name]().fit(X, y).predict_proba(X)
    with monkeypatch.context() as patch:
        steps = kill_at(patch, None)
        makers[name](checkpoint_dir=tmp_path / "whole").fit(X, y)
    assert not (tmp_path / "whole" / "fit" / "record.json").exists()
    total, killed = len(steps), 0
    for share in (0.1, 0.45, 0.6, 0.95):  # of what is left; then it goes on
        with monkeypatch.context() as patch:
            kill_at(patch, max(1, int(share * total)))
            try:
                clf = makers[name](checkpoint_dir=journal).fit(X, y)
            except Killed:
                killed += 1
                assert (journal / "fit" / "record.json").exists()
            else:
                break
    clf = makers[name](checkpoint_dir=journal).fit(X, y)
    assert killed
    assert [path.name for path in (journal / "fit").iterdir()] in ([], ["lock"])
    if name != "unseeded":
        np.testing.assert_array_equal(clf.predict_proba(X), expected)


@pytest.fixture
def interrupted(small, digits, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        clf = small(max_epochs=9, batch_size=60, checkpoint_dir=tmp_path)
        with pytest.raises(Killed):
            clf.fit(*digits)
    return clf


def test_another_fit_is_refused_by_name(interrupted, digits):  # fault 44
    X, y = digits
    other = y.copy()
    other[0] = (y[0] + 1) % 4
    for name, fit in {
        "learning_rate": lambda: clone(interrupted).set_params(fine_tuning__learning_rate=0.5),
        "batch_size": lambda: clone(interrupted).set_params(batch_size=31),
        "random_state": lambda: clone(interrupted).set_params(random_state=77),
    }.items():
        pattern = "fine_tuning" if name == "learning_rate" else name
        with pytest.raises(ValueError, match=f"unfinished fit with another .*{pattern}"):
            fit().fit(X, y)
    with pytest.raises(ValueError, match="unfinished fit with another y"):
        interrupted.fit(X, other)
    with pytest.raises(ValueError, match="unfinished fit with another X"):
        interrupted.fit(255 - X, y)
    interrupted.set_params(verbose=0, device="cpu").fit(X, y)


def test_the_users_own_files_stay(small, digits, tmp_path):
    for name in ("thesis.tex", "record.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "folder").mkdir()
    small(checkpoint_dir=tmp_path).fit(*digits)
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.tex", "record.json", "folder", "fit"}
    assert (tmp_path / "record.json").read_text() == "mine"


def test_another_class_is_refused(digits, weights, tmp_path, monkeypatch):
    form = {"weights": weights, "image_size": 16, "max_epochs": 9, "batch_size": 60}
    form |= {"checkpoint_dir": tmp_path, "random_state": 0}
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            LastLayerClassifier("tiny", **form).fit(*digits)
    with pytest.raises(ValueError, match="unfinished fit with another class"):
        FineTuningClassifier("tiny", **form).fit(*digits)


def test_killed_while_cleaning_up(interrupted, digits, tmp_path, monkeypatch):
    unlink = Path.unlink

    def kill(path, **options):
        unlink(path, **options)
        if path.name == "record.json":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(Killed):
            interrupted.fit(*digits)
    interrupted.fit(*digits)


@pytest.mark.slow
@pytest.mark.parametrize("cv", [None, 2])
def test_a_selector_inside_a_pruner_leaves_checkpoints_to_it(
    small, digits, tmp_path, monkeypatch, cv
):
    def make(n_jobs=None):
        own = {"checkpoint_dir": tmp_path / "own", "cv": cv, "n_jobs": n_jobs}
        selector = BlockSelector(small(n_branches=2), epochs_per_step=1, max_blocks=5, **own)
        form = {"epochs_per_step": 1, "n_steps": 1, "random_state": 0}
        return ChannelPruner(selector, checkpoint_dir=tmp_path / "outer", **form)

    expected = make().fit(*digits).predict_proba(digits[0])
    assert not (tmp_path / "own").exists()
    with monkeypatch.context() as patch:
        kill_at(patch, 14)
        with pytest.raises(Killed):
            make(n_jobs=2).fit(*digits)
    steps = kill_at(monkeypatch, math.inf)
    np.testing.assert_array_equal(make().fit(*digits).predict_proba(digits[0]), expected)
    n_resumed = len(steps)
    make().fit(*digits)
    assert n_resumed < len(steps) - n_resumed  # a fit that starts anew has more


@pytest.mark.parametrize("value", [5, __file__])
def test_what_is_no_folder_is_refused(small, digits, value):
    for estimator in (small(checkpoint_dir=value), ChannelPruner(small(), checkpoint_dir=value)):
        with pytest.raises((TypeError, ValueError), match="`checkpoint_dir` must be a"):
            estimator.fit(*digits)


@pytest.mark.parametrize("spoil", ["edit", "swap", "truncate", "delete"])
def test_spoilt_journals_are_refused(interrupted, digits, tmp_path, spoil):  # fault 81
    (file,) = tmp_path.glob("fit/*.joblib")
    if spoil == "edit":
        record = tmp_path / "fit" / "record.json"
        record.write_text(record.read_text().replace('"ended": 0', '"ended": 1'))
    elif spoil == "delete":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[:-9] if spoil == "truncate" else content[::-1])
    with pytest.raises(ValueError, match="is damaged or missing"):
        interrupted.fit(*digits)
