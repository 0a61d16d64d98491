"""NetTailorClassifier: teacher, student, pruning, sweep, and what estimators must do."""

import copy
import json
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sklearn_rrr import (
    FineTuning,
    FineTuningClassifier,
    NetTailorClassifier,
    OnnxClassifier,
    RRRNetClassifier,
    TailoringFineTuning,
    cost_report,
    export_onnx,
    load,
    save,
)
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers import ensembles
from sklearn_rrr.deployment.model_files import make_metadata, read
from sklearn_rrr.nettailor import sweep
from sklearn_rrr.nettailor.nettailor_classifier import PUBLISHED
from sklearn_rrr.nettailor.paths import BLOCK
from sklearn_rrr.nettailor.penalty import TailoringPenalty, residual_blocks
from sklearn_rrr.networks.stacked_net import StackedNet

SMALL = {"backbone": "tiny", "max_epochs": 1, "batch_size": 16}
SMALL |= {"precision": "fp32", "random_state": 0, "tolerance": 1.0}
PLAIN = FineTuning(augmentation="none")


@pytest.fixture
def make(weights, nest):
    """Return a maker of estimators that fit in a second."""

    def maker(**parameters):
        settings = SMALL | {"weights": weights, "n_removed": 2, "augmentation": "none"}
        return NetTailorClassifier(**nest(settings | parameters, TailoringFineTuning))

    return maker


@pytest.fixture(scope="module")
def fitted(digits):
    """A fitted classifier whose parameters are plain, and its images."""
    torch.manual_seed(0)
    settings = {**SMALL, "weights": make_backbone("tiny").state_dict(), "n_removed": [1, 3]}
    clf = NetTailorClassifier(**settings, fine_tuning=PLAIN).fit(*digits)
    return clf.set_params(weights=None)


@pytest.fixture(scope="module")
def teacher(digits):
    torch.manual_seed(0)
    settings = {k: v for k, v in SMALL.items() if k != "tolerance"}
    settings["weights"] = make_backbone("tiny").state_dict()
    return FineTuningClassifier(**settings).fit(*digits)


def test_universal_blocks_are_those_of_the_backbone(fitted, weights):
    """... and not the teacher's, who learned; stem and blocks keep every bit."""
    backbone = make_backbone("tiny")
    backbone.load_state_dict(weights)
    originals = dict(enumerate((b for phase in backbone.phases for b in phase), 1))
    blocks = {path[0] for path in fitted.module_.paths if path[1] == BLOCK}
    assert blocks
    for number in blocks:
        block = fitted.module_.branches.nodes[str(number)].block
        for name, weight in block.named_parameters():
            assert torch.equal(weight, originals[number].get_parameter(name)), name
        assert not torch.equal(block.bn1.running_mean, originals[number].bn1.running_mean)
    assert torch.equal(fitted.module_.stump[0].weight, backbone.conv1.weight)
    assert not torch.equal(fitted.teacher_.module_.stump[0].weight, backbone.conv1.weight)


def test_the_network_is_static_and_smaller(fitted):
    module = fitted.module_
    assert module.arguments["static"] is True
    assert not [name for name, _ in module.named_parameters() if "logits" in name]
    row = fitted.results_[fitted.results_.kept].iloc[0]
    assert row.removed == 6 - len(residual_blocks(module))
    assert row.parameters == fitted.n_parameters_ < fitted.teacher_.n_parameters_
    report = cost_report({"teacher": fitted.teacher_, "student": fitted}, repeats=1)
    assert report.n_parameters.student == row.parameters
    assert report.macs.student == row.macs < report.macs.teacher
    assert report.megabytes.student < report.megabytes.teacher


def test_results_hold_a_row_for_each_student(fitted):
    results = fitted.results_
    columns = ["asked", "removed", "proxies", "parameters", "macs", "score", "within", "kept"]
    assert results.columns.tolist() == columns
    assert results.asked.tolist() == [1, 3]
    assert (results.removed >= results.asked).all()
    assert results.parameters.is_monotonic_decreasing
    assert results.within.all()
    assert results.kept.tolist() == [False, True]  # the leanest


def test_alphas_describe_every_path(fitted):
    alphas = fitted.alphas_
    assert len(alphas) == 6 + 1 + 2 + 4 * 3
    np.testing.assert_allclose(alphas.groupby("node").alpha.sum(), 1, rtol=1e-6)
    blocks = alphas[alphas.kind == "block"]
    assert (blocks.source == blocks.node - 1).all()
    assert alphas.cost.sum() > 0
    assert alphas.kept.sum() == len(fitted.module_.paths)


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


def test_published_settings():
    clf = NetTailorClassifier(**PUBLISHED)
    settings = clf._check_parameters() or clf.get_params()
    assert (settings["complexity_weight"], settings["teacher_weight"]) == (0.3, 10.0)
    tuning = TailoringFineTuning.published()
    assert (tuning.optimizer, tuning.learning_rate) == ("sgd", 0.1)


def test_published_settings_fit(make, digits):
    clf = make(**PUBLISHED | {"max_epochs": 5, "epochs_per_step": 1, "tolerance": 1.0}).fit(*digits)
    used = clf._settings_used
    assert (used.optimizer, used.learning_rate, used.max_epochs) == ("sgd", pytest.approx(0.01), 1)
    assert used.undecayed == ("*.logits",)
    assert clf.teacher_.fine_tuning.learning_rate is None


# ------------------------------------------------------------------------------ teachers


def test_a_frozen_teacher_is_used_as_it_is(make, digits, teacher, tmp_path):
    before = copy.deepcopy(teacher.module_.state_dict())
    clf = make(teacher=FrozenEstimator(teacher)).fit(*digits)
    assert clf.teacher_ is teacher
    save(clf.set_params(weights=None), tmp_path / "a")
    assert load(tmp_path / "a").teacher is None  # it does not predict
    assert all(torch.equal(v, before[k]) for k, v in teacher.module_.state_dict().items())
    frozen = make(teacher=FrozenEstimator(teacher))
    assert clone(frozen).fit(*digits).teacher_ is teacher


def test_frozen_teachers_set_the_image_size(make, digits, small):
    """... unless the student has one; the network of the teacher is its own at any size."""
    teacher = small(blocks=None, n_branches=1, image_size=24, max_epochs=1).fit(*digits)
    clf = make(teacher=FrozenEstimator(teacher)).fit(*digits)
    assert clf.image_size_ == 24
    assert clf.image_size is None
    assert clf.net_.module_ is clf.module_
    assert make().fit(*digits).image_size_ == 16


@pytest.fixture
def unfitted(weights):
    return RRRNetClassifier(
        "tiny",
        weights=weights,
        blocks=None,
        n_branches=1,
        max_epochs=2,
        fine_tuning=FineTuning(trainable="all"),
    )


def test_nobody_learns_from_the_images_held_out(make, digits, unfitted, monkeypatch):
    """Neither a teacher, by default or given, nor a student."""
    pixels, learned, scored = [], [], []

    def keys(images):
        return {image.tobytes() for image in images.__getitems__(range(len(images)))[0].numpy()}

    def spy_on(module):
        train = module.train

        def watched(network, images, *arguments, **hooks):
            learned.append(keys(images))
            return train(network, images, *arguments, **hooks)

        monkeypatch.setattr(module, "train", watched)

    score = NetTailorClassifier._score
    monkeypatch.setattr(
        NetTailorClassifier,
        "_score",
        lambda self, network, images: scored.append(keys(images)) or score(self, network, images),
    )
    spy_on(sweep)
    spy_on(ensembles)
    for teacher in (None, unfitted):
        learned.clear(), scored.clear()
        clf = make(teacher=teacher, validation_fraction=0.3).fit(*digits)
        assert len(learned) == 1 + 1 + len(clf.results_)  # teacher, soft student, students
        assert len(scored) == 1 + len(clf.results_)
        assert all(part == learned[0] for part in learned)
        assert all(part == scored[0] for part in scored)
        assert not learned[0] & scored[0]
        pixels.append(len(learned[0]) + len(scored[0]))
    assert pixels[0] == pixels[1] > 110  # some digits may be equal


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


def test_a_fitted_teacher_is_fitted_anew(make, digits, unfitted):
    unfitted.set_params(random_state=0)
    fresh = make(teacher=unfitted).fit(*digits).predict_proba(digits[0])
    fitted = make(teacher=clone(unfitted).fit(*digits)).fit(*digits)
    assert fitted.teacher_ is not fitted.teacher
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), fresh)


def test_an_unfitted_teacher_is_cloned(make, digits, unfitted):
    clf = make(teacher=unfitted).fit(*digits)
    assert not hasattr(unfitted, "module_")
    assert len(clf.teacher_.history_) == 2
    clf.set_params(teacher__max_epochs=1)
    first = clf.fit(*digits).teacher_
    assert len(first.history_) == 1
    second = clf.set_params(teacher__random_state=5).fit(*digits).teacher_
    assert not np.allclose(first.predict_proba(digits[0]), second.predict_proba(digits[0]))


@pytest.mark.parametrize(
    "parameters", [{"image_size": 48}, {"class_weight": "balanced"}, {"class_weight": {0: 1.0}}]
)
def test_an_unfitted_teacher_may_not_see_other_images_or_weights(
    make, digits, unfitted, parameters
):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"with `{name}`=.*; got a teacher with"):
        make(teacher=unfitted.set_params(**parameters)).fit(*digits)


def test_a_frozen_teacher_is_not_fitted(make, digits, unfitted):
    with pytest.raises(NotFittedError):
        make(teacher=FrozenEstimator(unfitted)).fit(*digits)


def test_other_teachers_are_refused(make, digits, teacher, small):
    X, y = digits
    for other, match in {
        small(
            n_branches=1
        ): r"with all its blocks \(2, 1, 2, 1\), unsplit and not pruned; got 'tiny' with",
        small(n_branches=2, blocks=None): r"and 2 branch\(es\)",
        small(backbone="tiny_basic", n_branches=1, blocks=None): "got 'tiny_basic' with the blocks",
        small(n_branches=1, blocks=None, width_offset=1): r"of \(7, 15\) planes",
    }.items():
        for form in (other, FrozenEstimator(clone(other).fit(*digits))):
            with pytest.raises(ValueError, match=match):
                make(teacher=form).fit(X, y)
    with pytest.raises(ValueError, match=r"classes of y, \[0, 1, 2\]; .* fitted on \[0, 1"):
        make(teacher=FrozenEstimator(teacher)).fit(X[y < 3], y[y < 3])
    with pytest.raises(ValueError, match=r"same size; got 16, not 24. Use image_size=16"):
        make(teacher=FrozenEstimator(teacher), image_size=24).fit(X, y)
    with pytest.raises(TypeError, match="`teacher` must be an RRRNetClassifier"):
        make(teacher="resnet").fit(X, y)


# -------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_skips": 0}, "`n_skips` must be an int of at least 1; got 0"),
        ({"complexity_weight": -1}, "`complexity_weight` must be a number"),
        ({"teacher_weight": -1}, "`teacher_weight` must be a number"),
        ({"attention_threshold": 2}, r"`attention_threshold` must be a number in \[0, 1\]"),
        ({"tolerance": -0.1}, "`tolerance` must be"),
        ({"optimizer": "adam"}, "`optimizer` must be one of 'adamw', 'sgd'"),
        ({"epochs_per_step": 0}, "`epochs_per_step` must be an int"),
        ({"n_jobs": 0}, "`n_jobs` must be None or an int other than 0; got 0"),
        ({"attention_lr_factor": 0}, "`attention_lr_factor` must be"),
        ({"retrain_lr_factor": 0}, "`retrain_lr_factor` must be"),
        ({"n_removed": 7}, r"`n_removed` must be an int in \[0, 6\]; got 7. The backbone 'tiny'"),
        ({"n_removed": [1, -1]}, "`n_removed` must be an int"),
        ({"n_removed": []}, "`n_removed` must be an int or a non-empty list"),
        ({"n_removed": "all"}, "`n_removed` must be an int"),
        ({"n_removed": None, "validation_fraction": None}, "leaves no images to choose"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_read(make, parameters, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make(**parameters).fit("no images", None)


def test_one_image_leaves_none_to_choose_by(make, digits):
    with pytest.raises(ValueError, match="leaves none of 1 sample"):
        make().fit(digits[0][:1], digits[1][:1])


def test_a_failed_fit_leaves_nothing(fitted, digits):
    clf = copy.deepcopy(fitted)
    with pytest.raises(ValueError, match="`n_skips`"):
        clf.set_params(n_skips=0).fit(*digits)
    clf.set_params(n_skips=3, teacher_weight=1e38)
    with pytest.raises(ValueError, match="The training loss became"):
        clf.fit(*digits)
    assert not hasattr(clf, "module_")
    assert not hasattr(clf, "results_")


# --------------------------------------------------------------- estimators, files, ONNX


def test_all_blocks_may_go(make, digits):
    clf = make(n_removed=6).fit(*digits)
    assert not residual_blocks(clf.module_)
    assert clf.predict_proba(digits[0]).shape == (120, 4)


@pytest.mark.parametrize("n_removed", [pytest.param(3, marks=pytest.mark.slow), 12])
def test_inverted_residuals_and_files(digits, tmp_path, n_removed):
    """The default teacher has the head of the student, whatever a classifier's would read."""
    X, y = digits
    settings = SMALL | {"backbone": "tiny_mobile", "weights": None, "n_removed": n_removed}
    tuning = TailoringFineTuning(augmentation="none", head_features="all", head_init="ridge")
    clf = NetTailorClassifier(**settings, fine_tuning=tuning).fit(X, y)
    assert clf.teacher_.module_.head_features == clf.module_.head_features == "last"
    assert len(residual_blocks(clf.module_)) <= 12 - n_removed
    save(clf, tmp_path / "a")
    np.testing.assert_array_equal(load(tmp_path / "a").predict_proba(X), clf.predict_proba(X))
    export_onnx(clf, tmp_path / "a.onnx")
    light = OnnxClassifier(tmp_path / "a.onnx")
    np.testing.assert_allclose(light.predict_proba(X), clf.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_mobile"])
def test_teacher_may_read_all_blocks(digits, small, backbone):
    tuning = {"head_features": "all", "head_init": "ridge"}
    teacher = small(backbone=backbone, blocks=None, n_branches=1, max_epochs=1, **tuning)
    teacher.fit(*digits)
    settings = SMALL | {"backbone": backbone, "weights": None, "n_removed": 2}
    clf = NetTailorClassifier(**settings, teacher=FrozenEstimator(teacher), fine_tuning=PLAIN)
    clf.fit(*digits)
    assert clf.teacher_ is teacher
    assert clf.module_.head.center is None


def test_teacher_with_a_companion_is_refused(small, digits):
    teacher = small(blocks=None, n_branches=1, max_epochs=1).fit(*digits)
    module = teacher.module_
    teacher.module_ = StackedNet(module, module, 16, 16)
    settings = SMALL | {"weights": None, "n_removed": 2}
    clf = NetTailorClassifier(**settings, teacher=FrozenEstimator(teacher), fine_tuning=PLAIN)
    with pytest.raises(ValueError, match=r"`teacher` must have a single network; got a .*comp"):
        clf.fit(*digits)


def test_basic_blocks_and_strings(digits):
    X, y = digits
    names = np.array(["zero", "one", "two", "three"])[y]
    settings = SMALL | {"backbone": "tiny_basic", "weights": None, "n_removed": 2}
    clf = NetTailorClassifier(**settings, fine_tuning=PLAIN)
    assert set(clf.fit(X, names).predict(X)) <= set(names)
    assert clf.predict_branches(X).shape == (120, 1, 4)


def test_it_learns(digits):
    tuning = FineTuning(learning_rate=0.01, augmentation="none")
    settings = {"weights": None, "max_epochs": 8, "fine_tuning": tuning, "n_removed": 2}
    clf = NetTailorClassifier(**SMALL | settings).fit(*digits)
    assert clf.score(*digits) > 0.8


def test_fits_are_repeated(make, digits):
    first, second = (make().fit(*digits).predict_proba(digits[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_clone_and_search(make, digits):
    grid = {"n_removed": [1, 3], "n_skips": [2]}
    search = GridSearchCV(make(), grid, cv=2, error_score="raise").fit(*digits)
    assert search.best_estimator_.n_skips == 2
    assert search.predict(digits[0]).shape == (120,)
    assert not hasattr(make(), "partial_fit")
    with pytest.raises(AttributeError, match="has no partial_fit"):
        _ = make().partial_fit


def test_pickles_and_joblib(fitted, digits, tmp_path):
    expected = fitted.predict_proba(digits[0])
    joblib.dump(fitted, tmp_path / "a")
    for again in (joblib.load(tmp_path / "a"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(again.predict_proba(digits[0]), expected)
    assert again.net_.module_ is again.module_


def test_saves_without_pickle(fitted, digits, tmp_path):
    save(fitted, tmp_path / "a")
    again = load(tmp_path / "a")
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
    assert again.get_params() == fitted.get_params()
    assert again.module_.arguments == fitted.module_.arguments
    pd.testing.assert_frame_equal(again.results_, fitted.results_)
    pd.testing.assert_frame_equal(again.alphas_, fitted.alphas_)
    public = {name for name in vars(fitted) if not name.startswith("_")}
    assert public - vars(again).keys() == {"teacher_"}
    assert again.task_delta_.keys() == fitted.task_delta_.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"paths": [{"tuple": [1, "block"]}]},
        {"paths": [{"tuple": [1, 10**9]}]},
        {"paths": None},
        {"static": False},
        {"n_classes": 10**12},
        {"n_skips": 10**12},
        {"unknown": 1},
    ],
)
def test_damaged_files_are_refused(fitted, tmp_path, change):
    path = tmp_path / "a.safetensors"
    save(fitted, path)
    content, _ = read(path)
    pairs = dict(content["network"]["arguments"]["dict"]) | change
    content["network"]["arguments"] = {"dict": list(pairs.items())}
    tensors = load_file(path)
    save_file(tensors, path, make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be loaded"):
        load(path)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exports_to_onnx(fitted, digits, tmp_path, engine):
    export_onnx(fitted, tmp_path / "a.onnx")
    proba = OnnxClassifier(tmp_path / "a.onnx", engine=engine).predict_proba(digits[0])
    np.testing.assert_allclose(proba, fitted.predict_proba(digits[0]), atol=1e-4)
