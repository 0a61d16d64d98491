"""Teachers of NetTailorClassifier, fitted and unfitted."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    FineTuning,
    NetTailorClassifier,
    RRRNetClassifier,
    load,
    save,
)
from sklearn_rrr.classifiers import ensembles
from sklearn_rrr.nettailor import sweep
from sklearn_rrr.networks.stacked_net import StackedNet
from tests.nettailor.small_settings import PLAIN, SMALL


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
