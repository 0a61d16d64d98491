"""A fit that is killed goes on where it was, and ends in the same model."""

import copy
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

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
from sklearn_rrr._files import digest_bytes
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


def test_only_the_outermost_parameter_is_named(interrupted, digits):
    for changes, text in (
        ({"n_branches": 3}, r"n_branches \(2, now 3\)"),
        ({"fine_tuning": None}, r"fine_tuning \(FineTuning, now None\)"),
        ({"fine_tuning__learning_rate": 0.5}, r"fine_tuning__learning_rate \(None, now 0.5\)"),
        (
            {"precision": None, "n_branches": 1},
            r"n_branches \(2, now 1\), precision \('fp32', now None\)",
        ),
    ):
        with pytest.raises(ValueError, match=f"unfinished fit with another {text}.*Repeat"):
            clone(interrupted).set_params(**changes).fit(*digits)


def test_equal_values_of_another_type_are_the_same_fit(small, digits, tmp_path, monkeypatch):
    form = {"max_epochs": 3, "class_weight": {0: 1, 1: 2, 2: 1, 3: 1}, "learning_rate": 1}
    expected = small(**form).fit(*digits).predict_proba(digits[0])
    with monkeypatch.context() as patch:
        kill_at(patch, 12)
        with pytest.raises(Killed):
            small(**form, checkpoint_dir=tmp_path).fit(*digits)
    steps = kill_at(monkeypatch, None)
    again = small(
        max_epochs=np.int64(3),
        class_weight={np.int64(k): float(v) for k, v in form["class_weight"].items()},
        learning_rate=1.0,
        blocks=[1, 1, 1, 1],
        n_branches=np.array([2])[0],
        random_state=np.int64(0),
        precision=np.str_("fp32"),
        checkpoint_dir=str(tmp_path),
    ).fit(*digits)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), expected)
    assert len(steps) == 16  # of 24


@pytest.mark.parametrize("seed", [1, np.random.RandomState(0)])
@pytest.mark.parametrize("kind", ["pruner", "NetTailor", "frozen"])
def test_another_seed_of_a_nested_estimator_is_refused(
    small, digits, weights, tmp_path, monkeypatch, kind, seed
):
    def make(seed):
        own = {"random_state": seed}
        if kind == "NetTailor":
            teacher = FineTuningClassifier("tiny", weights=None, **own)
            form = {"weights": weights, "random_state": 0, "checkpoint_dir": tmp_path}
            return NetTailorClassifier("tiny", teacher=teacher, **form)
        if kind == "frozen":
            fitted = small(max_epochs=1).fit(*digits).set_params(**own)
            return ChannelPruner(FrozenEstimator(fitted), checkpoint_dir=tmp_path)
        return ChannelPruner(small(max_epochs=1, **own), checkpoint_dir=tmp_path)

    for same in (seed, copy.deepcopy(seed)):  # the second one goes on
        estimator = make(same)
        with monkeypatch.context() as patch:
            kill_at(patch, 1)
            with pytest.raises(Killed):
                estimator.fit(*digits)
    name = {"pruner": "estimator", "NetTailor": "teacher", "frozen": "estimator__estimator"}[kind]
    with pytest.raises(ValueError, match=f"unfinished fit with another {name}__random_state"):
        make(0).fit(*digits)


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


def test_killed_while_writing(interrupted, digits, tmp_path, monkeypatch):
    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        patch.setattr(Path, "unlink", kill)  # as a dead process deletes nothing
        with pytest.raises(Killed):
            clone(interrupted).fit(*digits)
    assert [path for path in (tmp_path / "fit").iterdir() if path.name.startswith(".")]
    interrupted.fit(*digits)
    assert [path.name for path in (tmp_path / "fit").iterdir()] in ([], ["lock"])


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


class OfBytes(os.PathLike):
    def __fspath__(self):
        return b"folder"


@pytest.fixture
def in_strange_folder(tmp_path, monkeypatch):
    """A folder, now the current one, with a link to nothing, a link to itself and a file."""
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("nothing")
    Path("loop").symlink_to("loop")
    Path("file").write_text("")
    Path("taken").mkdir()
    Path("taken", "fit").write_text("")
    Path("lock", "fit", "lock").mkdir(parents=True)


IMPOSSIBLE = (
    *(5, b"folder", OfBytes(), "", "~", "~/folder", Path("~/folder"), "a\0b", "x" * 300),
    *("file", "file/sub", "dangling", "dangling/sub", "loop", "/proc/folder", "/dev/null"),
)


@pytest.mark.parametrize("value", IMPOSSIBLE)
def test_what_is_no_folder_is_refused_before_images_are_read(small, in_strange_folder, value):
    before = sorted(Path().iterdir())
    for estimator in (
        small(checkpoint_dir=value),
        ChannelPruner(small(), checkpoint_dir=value),
        BlockSelector(small(), checkpoint_dir=value),
    ):
        with pytest.raises((TypeError, ValueError), match="`checkpoint_dir` must be a"):
            estimator.fit(["missing.png"] * 4, [0, 1, 0, 1])
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("value", ["taken", "lock"])
def test_a_folder_whose_parts_are_taken_is_refused(small, in_strange_folder, value):
    for estimator in (small(checkpoint_dir=value), ChannelPruner(small(), checkpoint_dir=value)):
        with pytest.raises(ValueError, match=rf"`checkpoint_dir`: the folder '{value}.fit' cannot"):
            estimator.fit(["missing.png"] * 4, [0, 1, 0, 1])


def test_two_fits_at_once_need_two_folders(small, digits, tmp_path, monkeypatch):
    def fit_another(*_, **__):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(small(checkpoint_dir=tmp_path).fit, *digits).result()

    monkeypatch.setattr(BranchNet, "train_step_single", fit_another)
    with pytest.raises(ValueError, match=r"Another process or thread .* belongs to one fit at a"):
        small(checkpoint_dir=tmp_path).fit(*digits)


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


@pytest.mark.parametrize("kind", ["FIFO", "folder", "other record", "list"])
def test_what_is_no_record_is_refused(interrupted, digits, tmp_path, kind):
    """A FIFO would wait for ever."""
    record = tmp_path / "fit" / "record.json"
    record.unlink()
    if kind == "FIFO":
        os.mkfifo(record)
    elif kind == "folder":
        record.mkdir()
    else:
        content = {} if kind == "other record" else []
        digest = digest_bytes(json.dumps(content).encode())
        record.write_text(json.dumps({"record": content, "sha256": digest}))
    with pytest.raises(ValueError, match=r"record\.json is damaged or missing"):
        interrupted.fit(*digits)
