"""Searches that go on from the folder `checkpoint_dir`."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_rrr import BaggingEnsemble, BlockSelector
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.search import block_search
from sklearn_rrr.training.checkpoints import CheckpointFolder
from tests.search.made_up_scores import Scores


def half(estimator, X, y):
    return 0.5


def most(estimator, X, y):
    return 0.9


def score_as(score, estimator, X, y):
    return score


def same_image(image):
    return image


def same_values(image):
    return image * 1.0


def without_times(results):
    return results.drop(columns=["seconds", "latency_ms"])


@pytest.mark.parametrize("step", range(5))
def test_a_search_killed_at_any_step_resumes(one_epoch, digits, tmp_path, step, monkeypatch):
    X, y = digits
    selector = BlockSelector(one_epoch, tolerance=None, control=True, checkpoint_dir=tmp_path)
    expected = clone(selector).set_params(checkpoint_dir=None).fit(X, y)
    train, done = block_search._train_and_score, []

    def interrupted(*args):
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(args)
        return train(*args)

    with monkeypatch.context() as patch:
        patch.setattr(block_search, "_train_and_score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            selector.fit(X, y)
    assert not hasattr(selector, "results_")

    counted = []
    monkeypatch.setattr(
        block_search, "_train_and_score", lambda *args: counted.append(args) or train(*args)
    )
    resumed = clone(selector).fit(X, y)
    assert len(counted) == 5 - step
    assert without_times(resumed.results_).equals(without_times(expected.results_))
    np.testing.assert_array_equal(resumed.predict_proba(X), expected.predict_proba(X))


def test_a_kill_while_a_step_is_written(one_epoch, digits, tmp_path, monkeypatch):
    """The networks are there, the index is not: the step is trained again."""
    X, y = digits
    selector = BlockSelector(one_epoch, tolerance=None, checkpoint_dir=tmp_path)
    expected = clone(selector).set_params(checkpoint_dir=None).fit(X, y)
    write = CheckpointFolder.write_record

    def failing(self):
        if len(self.record["steps"]) == 2:
            raise OSError("No space left on device")
        write(self)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "write_record", failing)
        with pytest.raises(OSError, match="No space left"):
            selector.fit(X, y)
    resumed = selector.fit(X, y)
    np.testing.assert_array_equal(resumed.predict_proba(X), expected.predict_proba(X))


@pytest.mark.slow
def test_searches_in_one_folder_do_not_meet(one_epoch, digits, picture_dataset, tmp_path):
    """Whatever differs is another search; what does not matter is not."""
    X, y = digits
    same = BlockSelector(one_epoch, max_blocks=4, checkpoint_dir=tmp_path)
    same.fit(X, y)
    for again in (clone(same).set_params(verbose=1), clone(same).set_params(estimator__verbose=1)):
        again.fit(X, y)
    same.fit(list(X), y)  # the same pixels in another form
    clone(same).set_params(max_blocks=np.int64(4), estimator__random_state=np.int64(0)).fit(X, y)
    assert again.estimator_.verbose == 1
    assert len(list(tmp_path.iterdir())) == 1
    others = [
        {"epochs_per_step": 2},
        {"random_state": 1},
        {"estimator__random_state": 2},
        {"validation_fraction": 0.5},
        {"estimator__validation_fraction": 0.5},
        {"estimator__fine_tuning__learning_rate": 0.1},
        {"scoring": Scores({(1, 1, 1, 1): 0.5})},
        {"scoring": Scores({(1, 1, 1, 1): 0.6})},
        {"estimator__fine_tuning__augmentation": same_image},
        {"estimator__fine_tuning__augmentation": same_values},
        {"scoring": half},
        {"scoring": most},
        {"scoring": partial(score_as, 0.5)},
        {"scoring": partial(score_as, 0.6)},
        {"scoring": Scores({(1, 1, 1, 1): 0.5}).__call__},
        {"scoring": Scores({(1, 1, 1, 1): 0.6}).__call__},
        {"cv": [(np.arange(60), np.arange(60, 120))]},
        {"cv": [(np.arange(60, 120), np.arange(60))]},
        {"estimator__weights": make_backbone("tiny").state_dict()},
        {"estimator__ensemble": BaggingEnsemble()},
        {"estimator__ensemble": BaggingEnsemble(0.5)},
    ]
    for parameters in others:
        clone(same).set_params(**parameters).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 1 + len(others)
    same.fit(picture_dataset(X, y))  # the same pixels again
    same.fit(picture_dataset(255 - X, y))
    assert len(list(tmp_path.iterdir())) == 2 + len(others)


@pytest.mark.parametrize("name", ["scoring", "estimator__fine_tuning__augmentation"])
def test_checkpoints_need_parameters_that_can_be_pickled(one_epoch, digits, tmp_path, name):
    selector = BlockSelector(one_epoch, max_blocks=4).set_params(**{name: lambda *_: 0.5})
    selector.set_params(checkpoint_dir=tmp_path)
    match = f"`{name}` must be picklable.*Use a function or class defined at"
    with pytest.raises(TypeError, match=match):
        selector.fit(*digits)
    assert list(tmp_path.iterdir()) == []


def test_without_checkpoints_an_augmentation_may_be_a_lambda(one_epoch, digits):
    same = lambda image: image  # noqa: E731
    selector = BlockSelector(one_epoch, max_blocks=5, tolerance=None)
    selector.set_params(estimator__fine_tuning__augmentation=same).fit(*digits)
    assert selector.estimator_.fine_tuning_.augmentation is same


def test_without_checkpoints_parameters_may_be_lambdas(one_epoch, digits):
    scoring = lambda estimator, X, y: 0.7  # noqa: E731
    selector = BlockSelector(one_epoch, max_blocks=4, scoring=scoring).fit(*digits)
    assert selector.results_.score.tolist() == [0.7]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import conftest
import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn_rrr import BlockSelector, FineTuning, RRRNetClassifier
from sklearn_rrr.search import block_search

def scorer(estimator, X, y):
    return (estimator.predict(X) == y).mean()

def flip(image):
    return image.flip(2)

train, calls = block_search._train_and_score, []

def counted(*arguments):
    if len(calls) == int(sys.argv[1]):
        raise SystemExit
    calls.append(1)
    return train(*arguments)

block_search._train_and_score = counted
X = np.load({images!r})
clf = RRRNetClassifier("tiny", weights=None, n_branches=1, max_epochs=1, precision="fp32",
                       fine_tuning=FineTuning(augmentation=flip),
                       random_state=np.random.RandomState(3))
selector = BlockSelector(clf, tolerance=None, scoring=scorer, cv=StratifiedKFold(2, shuffle=True),
                         checkpoint_dir={folder!r})
selector.fit(X, np.arange(len(X)) % 2)
print(len(calls), selector.results_.score.tolist(), selector.predict_proba(X[:6]).sum(0))
"""


@pytest.mark.slow
def test_resumes_in_another_process(digits, tmp_path):  # fault 50
    """Functions, a shuffling splitter without a seed, a RandomState; the refit counts, too."""
    np.save(tmp_path / "images.npy", digits[0][:40])
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]),
        images=str(tmp_path / "images.npy"),
        folder=str(tmp_path / "searches"),
    )
    (tmp_path / "script.py").write_text(script)
    outputs = [
        subprocess.run(
            [sys.executable, tmp_path / "script.py", str(n)],
            capture_output=True, text=True, check=True,
        ).stdout
        for n in (3, 99, 99)
    ]  # fmt: skip
    assert outputs[0] == ""  # of steps of two trainings, one was whole
    assert 5 <= int(outputs[1].split()[0]) <= 7  # the other two, and the refit of up to three
    assert len(list((tmp_path / "searches").iterdir())) == 1
    assert outputs[1].split(" ", 1)[1] == outputs[2].split(" ", 1)[1]
    assert outputs[2].startswith("0 ")


def test_two_processes_on_one_search(one_epoch, digits, tmp_path, monkeypatch):
    X, y = digits
    selector = BlockSelector(one_epoch, max_blocks=4, checkpoint_dir=tmp_path)

    def second(*_):
        clone(selector).fit(X, y)

    monkeypatch.setattr(block_search, "_train_and_score", second)
    with pytest.raises(ValueError, match="belongs to one fit at a time"):
        selector.fit(X, y)


def test_only_what_is_needed_stays_on_the_disk(one_epoch, digits, tmp_path):
    scores = {(1, 1, 1, 1): 0.5, (2, 1, 1, 1): 0.4, (2, 1, 2, 1): 0.3}
    selector = BlockSelector(
        one_epoch, tolerance=None, control=True, scoring=Scores(scores), checkpoint_dir=tmp_path
    )
    selector.fit(*digits)
    assert {path.stem for path in tmp_path.glob("*/*.joblib")} == {"step_0", "step_2", "control_2"}
