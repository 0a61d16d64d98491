"""The sweep over students of NetTailorClassifier: training, scores and choice."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_rrr import (
    NetTailorClassifier,
)
from sklearn_rrr.nettailor import sweep
from sklearn_rrr.nettailor.penalty import TailoringPenalty, residual_blocks


def test_scores_are_of_the_images_held_out(make, digits, monkeypatch):
    seen = []
    score = NetTailorClassifier._score

    def spy(self, network, images):
        seen.append((network, images.labels.tolist(), score(self, network, images)))
        return seen[-1][-1]

    monkeypatch.setattr(NetTailorClassifier, "_score", spy)
    clf = make(validation_fraction=0.3).fit(*digits)
    assert [value for *_, value in seen] == [clf.teacher_score_, *clf.results_.score]
    assert {len(labels) for _, labels, _ in seen} == {36}
    assert clf.teacher_.module_ is seen[0][0]
    # The network votes as the classifier predicts, image by image.
    training, held = clf._hold_out(
        clf._read_set(*digits, None, None, clf.classes_), clf._split_seed
    )
    assert len(training) == 84
    indices = [
        np.flatnonzero((digits[0] == image).all((1, 2)))[0] for image in originals(held, digits)
    ]
    assert clf.score(digits[0][indices], digits[1][indices]) == pytest.approx(seen[-1][-1])


def originals(held, digits):
    """Return the digits that images held out were made from."""
    whole = torch.from_numpy(digits[0])[:, None]
    resized = torch.nn.functional.interpolate(whole, (16, 16), mode="bilinear", antialias=True)
    pixels = held.__getitems__(np.arange(len(held)))[0][:, 0]
    for image in pixels:
        yield digits[0][(resized[:, 0].int() - image.int()).abs().sum((1, 2)).argmin()]


def test_the_leanest_within_the_tolerance_is_taken(make, digits, monkeypatch):
    scores = {6: 0.9, 5: 0.9, 4: 0.896, 3: 0.894, 2: 0.8, 1: 0.7, 0: 0.6}

    def pretend(self, network, images):
        return scores[len(residual_blocks(network))]

    monkeypatch.setattr(NetTailorClassifier, "_score", pretend)
    clf = make(n_removed=None, attention_threshold=0.0, tolerance=0.005, progressive=False).fit(
        *digits
    )
    kept = clf.results_[clf.results_.kept]
    assert kept.removed.tolist() == [2]
    assert clf.results_.asked.tolist() == [1, 2, 3, 4]  # the second failure ends it
    assert clf.results_.within.tolist() == [True, True, False, False]
    scores[6] = 1.0
    with pytest.warns(UserWarning, match=r"is within `tolerance`=0\.005 .* with 0\.9, is") as seen:
        clf.fit(*digits)
    assert seen[0].filename == __file__
    assert clf.results_.kept.tolist() == [True, False]
    scores |= {6: 0.9, 1: 0.9}
    assert clf.set_params(progressive=True).fit(*digits).results_.asked.tolist() == [1, 2, 3, 4, 5]
    assert clf.results_.kept.tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("n_blocks", "asked"),
    [
        (6, [1, 2, 3, 4, 5]),
        (16, [1, 2, 3, 4, 6, 8, 10, 12, 14]),
        (50, [3, 6, 9, 12, 18, 24, 30, 36, 42, 48]),
    ],
)
def test_the_sweep_begins_in_smaller_steps(n_blocks, asked):
    assert NetTailorClassifier()._resolve_sweep(n_blocks) == asked


def test_a_progressive_sweep_goes_on_from_the_student_before(make, digits):
    """Without a learning rate the students of either sweep are the same; with one they are not."""
    settings = {"n_removed": [1, 3], "attention_threshold": 0.0}
    for factor, same in ((1e-12, True), (1.0, False)):
        first, second = (
            make(**settings, retrain_lr_factor=factor, progressive=way).fit(*digits).module_
            for way in (True, False)
        )
        assert first.paths == second.paths
        pairs = zip(first.head.parameters(), second.head.parameters(), strict=True)
        assert all(torch.allclose(*pair, atol=1e-6) for pair in pairs) == same


@pytest.mark.slow
def test_students_in_processes_are_the_same(make, digits, one_thread, monkeypatch, capsys):
    settings = {"n_removed": [1, 2, 3], "attention_threshold": 0.0, "progressive": False}
    here = make(**settings).fit(*digits)
    trained = []
    monkeypatch.setattr(sweep.Tailoring, "train", spy(sweep.Tailoring.train, trained))
    there = make(**settings, n_jobs=2, verbose=1).fit(*digits)
    assert len(trained) == 1  # the student before pruning; the others were trained elsewhere
    assert re.search(r"NetTailor: 100%.* 3/3 ", capsys.readouterr().err)
    pd.testing.assert_frame_equal(there.results_, here.results_)
    pd.testing.assert_frame_equal(there.alphas_, here.alphas_)
    assert there.history_.train_loss.tolist() == here.history_.train_loss.tolist()
    for key, value in here.module_.state_dict().items():
        assert torch.equal(there.module_.state_dict()[key], value), key


def spy(function, calls):
    """Return a function that also counts its calls."""

    def counted(*arguments, **others):
        calls.append(arguments)
        return function(*arguments, **others)

    return counted


def test_a_journal_keeps_students_in_this_process(make, digits, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(sweep.Tailoring, "train", spy(sweep.Tailoring.train, trained))
    settings = {"n_removed": [1, 3], "attention_threshold": 0.0, "progressive": False}
    make(**settings, n_jobs=2, checkpoint_dir=tmp_path).fit(*digits)
    assert len(trained) == 1 + 2


def test_processes_stop_after_two_failures(make, digits, one_thread, monkeypatch):
    """... and the student that was trained ahead is not listed."""
    score = {6: 1.0, 5: 1.0}
    monkeypatch.setattr(
        NetTailorClassifier,
        "_score",
        lambda self, network, images: score.get(len(residual_blocks(network)), 0.5),
    )
    settings = {"n_removed": None, "attention_threshold": 0.0, "tolerance": 0.005}
    clf = make(**settings, progressive=False, n_jobs=2).fit(*digits)
    assert clf.results_.asked.tolist() == [1, 2, 3]
    assert clf.results_.kept.tolist() == [True, False, False]


def test_without_images_held_out_a_number_is_enough(make, digits):
    clf = make(validation_fraction=None).fit(*digits)
    assert np.isnan(clf.teacher_score_)
    assert clf.results_.kept.all()


def test_complexity_and_teacher_pull(make, digits):
    """A large weight of the complexity moves the attention off the dear blocks."""
    free, dear = (
        make(complexity_weight=weight, teacher_weight=0.0, attention_lr_factor=300.0)
        .fit(*digits)
        .alphas_
        for weight in (0.0, 100.0)
    )
    blocks = dear.kind == "block"
    assert dear.alpha[blocks].sum() < free.alpha[blocks].sum() - 0.5
    with pytest.raises(ValueError, match="`cost` must be one of 'macs', 'parameters'"):
        make(cost="seconds").fit(*digits)
    by_macs = make(cost="macs").fit(*digits).alphas_.cost
    assert not np.allclose(by_macs, free.cost)


def test_weights_of_the_loss(make, digits, monkeypatch):
    """γ1 and γ2 of the soft student; no complexity where a pruned one learns on."""
    seen = []

    class Spy(TailoringPenalty):
        def __init__(self, student, teacher, costs, *weights):
            seen.append(weights[:2])
            super().__init__(student, teacher, costs, *weights)

    monkeypatch.setattr(sweep, "TailoringPenalty", Spy)
    make(complexity_weight=0.7, teacher_weight=3.0).fit(*digits)
    assert seen == [(0.7, 3.0), (0.0, 3.0)]


def test_one_image_leaves_none_to_choose_by(make, digits):
    with pytest.raises(ValueError, match="leaves none of 1 sample"):
        make().fit(digits[0][:1], digits[1][:1])


def test_all_blocks_may_go(make, digits):
    clf = make(n_removed=6).fit(*digits)
    assert not residual_blocks(clf.module_)
    assert clf.predict_proba(digits[0]).shape == (120, 4)
