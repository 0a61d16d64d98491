"""Displays: what they hold, worked out by hand, and what they draw of it."""

import runpy
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from sklearn_rrr import (
    BlockSelector,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    cost_report,
    plotting,
)
from sklearn_rrr.plotting import (
    BlockSelectionDisplay,
    BranchAgreementDisplay,
    CostRadarDisplay,
    KernelMosaicDisplay,
    ReliabilityDisplay,
    TrainingCurveDisplay,
)

STEPS = [(1, 1, 1, 1), (2, 1, 1, 1), (2, 1, 2, 1)]


@pytest.fixture(autouse=True)
def figures():
    """Draw into memory."""
    plt.switch_backend("Agg")


@pytest.fixture
def results():
    """A search of three networks, scored by folds, with its control."""
    return pd.DataFrame(
        {
            "blocks": [*STEPS, STEPS[0], STEPS[0]],
            "score": [0.5, 0.7, 0.6, 0.52, 0.55],
            "score_std": [0.0, 0.1, 0.05, 0.0, 0.0],
            "parameters": [1_000_000, 1_200_000, 2_100_000, 1_000_000, 1_000_000],
            "macs": [4e6, 5e6, 6e6, 4e6, 4e6],
            "latency_ms": [3.0, 2.9, 4.0, 3.0, 3.0],
            "epochs": [2, 4, 6, 4, 6],
            "control": [False, False, False, True, True],
        }
    )


@pytest.fixture
def report():
    return pd.DataFrame(
        {
            "n_parameters": [2_100_000, 1_050_000],
            "macs": [400, 100],
            "megabytes": [8.4, 4.2],
            "latency_1_ms": [8.0, 4.0],
            "latency_1_low": [7.0, 3.0],
            "latency_32_ms": [80.0, 100.0],
        },
        index=["whole", "reduced"],
    )


def one_hot(votes, n_classes=3):
    return np.eye(n_classes)[np.asarray(votes)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def xy(line):
    return line.get_xydata().round(6).tolist()


# -------------------------------------------------------------------------- the training


def test_losses_left_and_accuracy_right(small, digits):
    clf = small(max_epochs=3, validation_fraction=0.25).fit(*digits)
    display = TrainingCurveDisplay.from_estimator(clf)
    history = clf.history_
    train, valid = display.ax_.get_lines()
    np.testing.assert_array_equal(train.get_xydata(), history[["epoch", "train_loss"]])
    np.testing.assert_array_equal(valid.get_xydata(), history[["epoch", "valid_loss"]])
    (accuracy,) = display.accuracy_ax_.get_lines()
    np.testing.assert_array_equal(accuracy.get_xydata(), history[["epoch", "valid_acc"]])
    assert display.ax_.get_ylabel() == "loss"
    assert display.accuracy_ax_.get_ylabel() == "accuracy"
    assert display.accuracy_ax_.yaxis.get_label_position() == "right"
    assert legend(display.accuracy_ax_) == ["train loss", "valid loss", "valid acc"]
    assert display.figure_ is display.ax_.figure


def test_without_validation_there_is_one_axis():
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.5]})
    display = TrainingCurveDisplay(history).plot(linewidth=3)
    assert display.accuracy_ax_ is None
    assert len(display.figure_.axes) == 1
    (line,) = display.ax_.get_lines()
    assert xy(line) == [[1, 2.0], [2, 1.5]]
    assert line.get_linewidth() == 3
    assert legend(display.ax_) == ["train loss"]
    display.figure_.canvas.draw()
    ticks = display.ax_.get_xticks()
    assert (ticks == ticks.astype(int)).all()


# ---------------------------------------------------------------------------- the search


def test_a_search_its_choice_and_its_control(results):
    display = BlockSelectionDisplay.from_results(results, blocks=[2, 1, 1, 1])
    line, _, (bars,) = display.scores_
    assert xy(line) == [[4, 0.5], [5, 0.7], [6, 0.6]]
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments() if len(segment)]
    np.testing.assert_allclose(heights, [0.2, 0.1])  # none at the first, of no deviation
    assert xy(display.chosen_) == [[5, 0.7]]
    assert display.control_.get_ydata() == [0.55, 0.55]
    assert display.control_.get_linestyle() == "--"
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == ["1, 1, 1, 1", "2, 1, 1, 1", "2, 1, 2, 1"]
    known = {"networks tried", "chosen: 2, 1, 1, 1", "1, 1, 1, 1 trained as long"}
    assert set(legend(display.ax_)) == known


def test_nothing_is_marked_that_is_not_there(results):
    plain = results[~results.control].assign(score_std=0.0)
    display = BlockSelectionDisplay.from_results(plain)
    assert display.chosen_ is display.control_ is None
    assert display.scores_.lines[2] == ()
    assert legend(display.ax_) == ["networks tried"]


@pytest.mark.parametrize(
    ("x", "label"),
    [
        ("epochs", "epochs since the start"),
        ("parameters", "parameters"),
        ("macs", "multiply-adds"),
        ("latency_ms", "latency of one image in ms"),
    ],
)
def test_scores_against_costs(results, x, label):
    display = BlockSelectionDisplay.from_results(results, STEPS[2], x=x)
    assert display.scores_[0].get_xdata().tolist() == results[x][:3].tolist()
    assert display.chosen_.get_xdata().tolist() == [results[x][2]]
    assert display.ax_.get_xlabel() == label


def test_large_numbers_are_abbreviated(results):
    ax = BlockSelectionDisplay.from_results(results, x="parameters").ax_
    write = ax.xaxis.get_major_formatter()
    numbers = [0, 950, 999_999, 1_250_000, 3e9]
    assert [write(number) for number in numbers] == ["0", "950", "1 M", "1.25 M", "3 G"]


def test_labels_of_a_long_search_do_not_overlap():
    blocks = [(3, 8, n, 1) for n in range(1, 37)]
    table = {"blocks": blocks, "score": np.linspace(0.5, 0.9, 36), "score_std": 0.0}
    display = BlockSelectionDisplay.from_results(pd.DataFrame({**table, "control": False}))
    display.figure_.canvas.draw()
    labels = display.ax_.get_xticklabels()
    assert [label.get_text() for label in labels][:2] == ["3, 8, 1, 1", "3, 8, 4, 1"]
    assert len(labels) == 12
    assert {label.get_rotation() for label in labels} == {45.0}


def test_a_fitted_selector(small, digits):
    clf = small(max_epochs=1, n_branches=1, trainable="all")
    selector = BlockSelector(clf, tolerance=None, control=True).fit(*digits)
    display = BlockSelectionDisplay.from_estimator(selector, x="epochs")
    table = selector.results_
    steps = table[~table.control]
    np.testing.assert_array_equal(display.scores_[0].get_xydata(), steps[["epochs", "score"]])
    (chosen,) = steps[steps.blocks == selector.blocks_].score
    assert display.chosen_.get_ydata() == [chosen]
    assert display.control_.get_ydata()[0] == table.score.iloc[-1]


def test_wrong_searches(results):
    with pytest.raises(ValueError, match=r"`x` must be one of 'blocks', .*; got 'seconds'"):
        BlockSelectionDisplay.from_results(results, x="seconds")
    with pytest.raises(ValueError, match=r"`blocks` must be one of \(1, 1, 1, 1\), .* marks no"):
        BlockSelectionDisplay.from_results(results, (3, 3, 3, 3))
    with pytest.raises(ValueError, match=r"`results` must have .*\['score_std'\] are not among"):
        BlockSelectionDisplay.from_results(results.drop(columns="score_std"))


# --------------------------------------------------------------------------------- costs


def test_shares_of_the_largest(report):
    display = CostRadarDisplay.from_report(report, errors={"reduced": 0.04, "whole": 0.03})
    assert display.shares.loc["whole"].tolist() == [0.75, 1, 1, 1, 0.8]
    assert display.shares.loc["reduced"].tolist() == [1, 0.5, 0.25, 0.5, 1]
    assert display.largest["macs"] == 400
    whole, reduced = display.ax_.get_lines()
    angles = 2 * np.pi * np.arange(6) / 5
    np.testing.assert_allclose(whole.get_xdata(), angles)
    assert whole.get_ydata().tolist() == [0.75, 1, 1, 1, 0.8, 0.75]
    assert reduced.get_ydata().tolist() == [1, 0.5, 0.25, 0.5, 1, 1]
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == [
        "error\n0.04",
        "parameters\n2.1 M",
        "multiply-adds\n400",
        "latency of\n1 image\n8 ms",
        "latency of\n32 images\n100 ms",
    ]
    assert legend(display.ax_) == ["whole", "reduced"]
    assert display.ax_.name == "polar"


def test_chosen_columns(report):
    columns = ["megabytes", "macs", "n_parameters"]
    display = CostRadarDisplay.from_report(report.assign(macs=0), columns=columns)
    assert display.shares.loc["reduced"].tolist() == [0.5, 0, 0.5]
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == ["megabytes\n8.4", "multiply-adds\n0", "parameters\n2.1 M"]


def test_costs_of_fitted_classifiers(small, digits):
    names = {"two": small(max_epochs=1), "one": small(max_epochs=1, n_branches=1)}
    fitted = {name: clf.fit(*digits) for name, clf in names.items()}
    ax = plt.subplot(projection="polar")
    display = CostRadarDisplay.from_estimators(fitted, ax=ax, repeats=2)
    assert display.ax_ is ax
    columns = ["n_parameters", "macs"]
    report = cost_report(fitted, batch_sizes=(), repeats=1)
    assert display.largest[columns].tolist() == report[columns].max().tolist()
    assert list(display.shares) == [*columns, "latency_1_ms", "latency_32_ms"]
    assert display.shares.index.tolist() == ["two", "one"]
    assert (display.shares.max() == 1).all()


def test_wrong_costs(report):
    with pytest.raises(ValueError, match=r"`ax` must be polar axes; got rectilinear .*subplot_kw"):
        CostRadarDisplay.from_report(report, ax=plt.subplots()[1])
    with pytest.raises(TypeError, match=r"`estimators` must be a dict .*; got a list"):
        CostRadarDisplay.from_estimators([RRRNetClassifier()])
    with pytest.raises(NotFittedError):
        CostRadarDisplay.from_estimators({"clf": RRRNetClassifier()})
    with pytest.raises(ValueError, match="`models` must contain at least one model"):
        CostRadarDisplay.from_estimators({})
    with pytest.raises(ValueError, match=r"`errors` must be .*\['whole', 'reduced'\]; got"):
        CostRadarDisplay.from_report(report, errors={"whole": 0.1})
    with pytest.raises(ValueError, match=r"three axes or more; got \['macs', 'megabytes'\]"):
        CostRadarDisplay.from_report(report, columns=["macs", "megabytes"])
    with pytest.raises(ValueError, match=r"\['watts'\] are not among its \['n_parameters'"):
        CostRadarDisplay.from_report(report, columns=["macs", "megabytes", "watts"])
    with pytest.raises(ValueError, match=r"numbers in \[0, inf\); got .*nan"):
        CostRadarDisplay.from_report(report, errors={"whole": 0.1, "reduced": np.nan})


# -------------------------------------------------------------------------- the branches


def test_agreement_by_hand():
    votes = [[0, 0, 1], [1, 1, 1], [2, 0, 2], [0, 0, 1]]  # 4 images, 3 branches
    display = BranchAgreementDisplay.from_predictions(one_hot(votes))
    expected = [[1, 0.75, 0.5], [0.75, 1, 0.25], [0.5, 0.25, 1]]
    assert display.agreement.tolist() == expected
    image, *_ = display.ax_.images
    np.testing.assert_array_equal(image.get_array(), expected)
    cells = {text.get_position(): text.get_text() for text in display.ax_.texts}
    assert cells[0, 2] == cells[2, 0] == "0.50"
    assert cells[1, 1] == "1.00"
    assert len(cells) == 9
    assert display.ax_.get_xticks().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("n_branches", "n_numbers"), [(1, 1), (16, 256), (17, 0)])
def test_numbers_where_they_can_be_read(n_branches, n_numbers):
    votes = np.random.default_rng(0).integers(3, size=(10, n_branches))
    display = BranchAgreementDisplay.from_predictions(one_hot(votes), cmap="gray")
    assert len(display.ax_.texts) == n_numbers
    assert display.ax_.images[0].get_cmap().name == "gray"
    assert {text.get_color() for text in display.ax_.texts} <= {"w", "k"}


def test_agreement_of_a_fitted_classifier(small, digits):
    X, y = digits
    clf = small(n_branches=3).fit(X, y)
    display = BranchAgreementDisplay.from_estimator(clf, X)
    votes = clf.predict_branches(X).argmax(2)
    assert display.agreement.shape == (3, 3)
    assert display.agreement[0, 2] == np.mean(votes[:, 0] == votes[:, 2])


# --------------------------------------------------------------------------- reliability


def test_calibration_error_by_hand():
    """Five bins: two images at 0.6, one right; three at 0.9, all right."""
    probabilities = [[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    y = ["a", "a", "a", "b", "b"]
    display = ReliabilityDisplay.from_predictions(y, probabilities, n_bins=5)
    assert display.counts.tolist() == [0, 0, 2, 0, 3]  # 0.6 is the end of its bin
    np.testing.assert_allclose(display.confidence, [np.nan, np.nan, 0.6, np.nan, 0.9])
    np.testing.assert_allclose(display.accuracy, [np.nan, np.nan, 0.5, np.nan, 1])
    assert display.expected_calibration_error == pytest.approx((2 * 0.1 + 3 * 0.1) / 5)
    assert display.branch_expected_calibration_error is None
    diagonal, curve = display.ax_.get_lines()
    assert xy(diagonal) == [[0, 0], [1, 1]]
    assert xy(curve) == [[0.6, 0.5], [0.9, 1]]
    assert legend(display.ax_) == ["perfectly calibrated", "classifier (ECE 0.100)"]


def test_ensemble_and_single_branches_by_hand():
    """Branches err by 0.2 and 0.1; pooled it would be 0.05, and the ensemble's is larger."""
    first, second = [[0.8, 0.2], [0.8, 0.2]], [[0.6, 0.4], [0.4, 0.6]]
    probabilities = np.stack([first, second], axis=1)  # (2 images, 2 branches, 2 classes)
    display = ReliabilityDisplay.from_predictions(
        [0, 0], probabilities, classes=[0, 1], n_bins=1, linewidth=3
    )
    assert display.confidence == pytest.approx([0.65])  # of 0.7 and 0.6
    assert display.accuracy.tolist() == [1]
    assert display.counts.tolist() == [2]
    assert display.expected_calibration_error == pytest.approx(0.35)
    assert display.branch_expected_calibration_error == pytest.approx((0.2 + 0.1) / 2)
    _, ensemble, branches = display.ax_.get_lines()
    assert xy(ensemble) == [[0.65, 1]]
    assert xy(branches) == [[0.7, 0.75]]
    assert (ensemble.get_linewidth(), branches.get_linewidth()) == (3, 1.5)
    assert legend(display.ax_)[1:] == ["ensemble (ECE 0.350)", "single branches (mean ECE 0.150)"]


def test_perfect_and_certain_predictions_have_no_error():
    display = ReliabilityDisplay.from_predictions([2, 0, 1], one_hot([2, 0, 1]))
    assert display.expected_calibration_error == 0
    assert display.counts.tolist() == [0] * 9 + [3]


def test_classes_name_the_columns():
    probabilities = one_hot([0, 0, 2])
    display = ReliabilityDisplay.from_predictions(
        ["b", "b", "a"], probabilities, classes=["b", "c", "a"]
    )
    assert display.accuracy[-1] == 1


def test_reliability_of_a_fitted_classifier(small, digits):
    X, y = digits
    names = np.array(["zero", "one", "two", "three"])[y]
    clf = small(n_branches=3).fit(X, names)
    display = ReliabilityDisplay.from_estimator(clf, X[:50], names[:50], n_bins=4)
    total = np.nansum(display.accuracy * display.counts)
    assert total == pytest.approx(50 * clf.score(X[:50], names[:50]))
    sums = np.nansum(display.confidence * display.counts)
    assert sums == pytest.approx(clf.predict_proba(X[:50]).max(1).sum())
    assert 0 <= display.branch_expected_calibration_error <= 1


def test_wrong_predictions():
    good = one_hot([[0, 1], [2, 2]])
    with pytest.raises(ValueError, match=r"the shape \(n, M, K\); got \(2, 3\).*predict_branches"):
        BranchAgreementDisplay.from_predictions(good[:, 0])
    with pytest.raises(ValueError, match=r"the shape \(n, K\) or \(n, M, K\); got \(3,\)"):
        ReliabilityDisplay.from_predictions([0], good[0, 0])
    with pytest.raises(ValueError, match=r"sums in \[2, 2\]\. Apply a softmax"):
        BranchAgreementDisplay.from_predictions(2 * good)
    with pytest.raises(ValueError, match=r"smallest of -1 and sums in \[1, 1\]"):
        ReliabilityDisplay.from_predictions([0, 1], [[2.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="smallest of nan"):
        ReliabilityDisplay.from_predictions([0, 1], [[np.nan, 1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="got 3 labels of 2 images"):
        ReliabilityDisplay.from_predictions([0, 1, 2], good)
    with pytest.raises(ValueError, match=r"the 3 columns .* got \[0, 2\]\. Pass for example"):
        ReliabilityDisplay.from_predictions([0, 2], good)
    with pytest.raises(ValueError, match=r"labels \[9\], which are not in `classes`"):
        ReliabilityDisplay.from_predictions([0, 9], good, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="`n_bins` must be an int of at least 1; got 0"):
        ReliabilityDisplay.from_predictions([0, 1], good, n_bins=0)


# --------------------------------------------------------------------------- the kernels


def test_mosaics_by_hand():
    activations = np.array([1.0, 2.0, 4.0])[:, None, None, None] * np.ones((3, 3, 1, 2))
    activations[1, 2] = 1  # half of its kernel's largest
    activations[2] = 0  # a kernel that responds to nothing
    display = KernelMosaicDisplay.from_activations(activations, scores=[0.5, 0.25, -1], layer="l1")
    assert display.order_.tolist() == [2, 1, 0]
    drawn = display.mosaic_.get_array()
    x = np.nan  # gaps, and no fourth image, no fourth kernel
    zero, one, half = [[0, 0], [1, 1], [0.5, 0.5]]
    expected = [
        [*zero, x, *zero, x, x, *one, x, *one],
        [x] * 12,
        [*zero, x, x, x, x, x, *half, x, x, x],
        [x] * 12,
        [x] * 12,
        [*one, x, *one, x, x, x, x, x, x, x],
        [x] * 12,
        [*one, x, x, x, x, x, x, x, x, x, x],
    ]
    np.testing.assert_array_equal(np.ma.filled(drawn, x), expected)
    names = [text.get_text() for text in display.ax_.texts]
    assert names == ["2: -1", "1: 0.25", "0: 0.5"]
    assert display.ax_.get_title() == "l1"
    assert display.pictures_ is None


def test_images_are_the_first_mosaic():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[1, ..., 0] = 255
    display = KernelMosaicDisplay.from_activations(
        np.ones((5, 2, 4, 4)), images=images, cmap="gray"
    )
    assert display.order_.tolist() == list(range(5))
    assert [text.get_text() for text in display.ax_.texts] == ["images", *"01234"]
    pictures = display.pictures_.get_array()
    assert pictures.shape == (8, 18, 3)  # two of 8, and a gap as wide as that of the maps
    np.testing.assert_array_equal(pictures[:, 10:], np.broadcast_to([1.0, 0, 0], (8, 8, 3)))
    assert display.pictures_.get_extent() == [-0.5, 8.5, 3.5, -0.5]
    assert np.isnan(np.ma.filled(display.mosaic_.get_array()[:4, :9], np.nan)).all()
    assert display.mosaic_.get_cmap().name == "gray"


def test_kernels_of_fitted_estimators(small, digits):
    X, y = digits
    clf = small(max_epochs=1).fit(X, y)
    frozen = FrozenEstimator(clf)
    pruner = ProgressiveKernelPruner(frozen, criterion="l1", amount=0.5, epochs_per_step=0).fit(
        X, y
    )
    of_clf, of_pruner = (
        KernelMosaicDisplay.from_estimator(e, X[:5], "stump.4.0.conv1") for e in (clf, pruner)
    )
    kept = pruner.results_.remaining[1]
    assert of_clf.activations.shape[:2] == (4, 5)
    np.testing.assert_allclose(of_pruner.activations, of_clf.activations[kept], atol=1e-6)
    assert of_clf.images.shape == (5, 16, 16, 3)
    assert of_clf.ax_.get_title() == "stump.4.0.conv1"


@pytest.mark.parametrize("layer", ["stump.1", "stump.4.1.conv1", "stump.4.1.conv3"])
def test_kernels_of_inverted_residuals(small, digits, layer):
    """Outputs of blocks, which have no activation function, are drawn by their absolute values."""
    clf = small(backbone="tiny_mobile", max_epochs=1, head_features="all").fit(*digits)
    display = KernelMosaicDisplay.from_estimator(clf, digits[0][:3], layer)
    conv = clf.module_.get_submodule(layer)
    assert display.activations.shape[:2] == (conv.out_channels, 3)
    assert display.activations.max() > 0


def test_wrong_kernels(small, digits):
    good = np.ones((3, 2, 4, 4))
    with pytest.raises(ValueError, match=r"the shape \(C, n_images, h, w\); got \(3, 2, 4\)"):
        KernelMosaicDisplay.from_activations(good[..., 0])
    with pytest.raises(ValueError, match=r"at least 0, as after a ReLU; got a smallest of -1"):
        KernelMosaicDisplay.from_activations(-good)
    with pytest.raises(ValueError, match=r"`scores` must have the shape \(3,\); got \(2,\)"):
        KernelMosaicDisplay.from_activations(good, scores=[1, 2])
    with pytest.raises(
        ValueError, match=r"`images` must have the shape \(2, S, S, 3\); got \(2, 3"
    ):
        KernelMosaicDisplay.from_activations(good, images=np.ones((2, 3, 8, 8)))
    clf = small(max_epochs=1).fit(*digits)
    with pytest.raises(ValueError, match=r"`layer` must be one of 'stump.0', 'stump.4.0.conv1', "):
        KernelMosaicDisplay.from_estimator(clf, digits[0][:2], "conv1")


# ---------------------------------------------------------------------------- all of them

OF_ESTIMATORS = {
    TrainingCurveDisplay: (),
    BranchAgreementDisplay: (np.zeros((2, 8, 8)),),
    ReliabilityDisplay: (np.zeros((2, 8, 8)), [0, 1]),
    KernelMosaicDisplay: (np.zeros((2, 8, 8)), "stump.0"),
}


@pytest.mark.parametrize(("display", "data"), OF_ESTIMATORS.items())
def test_only_fitted_image_classifiers(display, data):
    with pytest.raises(NotFittedError):
        display.from_estimator(RRRNetClassifier(), *data)
    other = LinearSVC().fit([[0], [1]], [0, 1])
    with pytest.raises(TypeError, match=r"`estimator` must be .*; got a LinearSVC\."):
        display.from_estimator(other, *data)


def test_reliability_of_any_classifier():
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    clf = LogisticRegression().fit(X, y)
    display = ReliabilityDisplay.from_estimator(clf, X, y)
    expected = ReliabilityDisplay.from_predictions(y, clf.predict_proba(X))
    assert display.expected_calibration_error == expected.expected_calibration_error
    assert display.branch_expected_calibration_error is None


def test_only_fitted_selectors(small, digits):
    with pytest.raises(NotFittedError):
        BlockSelectionDisplay.from_estimator(BlockSelector())
    clf = small(max_epochs=1).fit(*digits)
    with pytest.raises(TypeError, match=r"`selector` must be a BlockSelector .*; got a RRRNet"):
        BlockSelectionDisplay.from_estimator(clf)


@pytest.fixture
def displays(results, report):
    """One of each, not drawn yet."""
    history = pd.DataFrame({"epoch": [1], "train_loss": [2.0], "valid_acc": [0.5]})
    half = np.array([0.5])
    return [
        TrainingCurveDisplay(history),
        BlockSelectionDisplay(results),
        CostRadarDisplay(report / report.max(), report.max()),
        BranchAgreementDisplay(np.eye(2)),
        ReliabilityDisplay(half, half, np.array([1]), 0.0),
        KernelMosaicDisplay(np.ones((2, 3, 4, 4))),
    ]


def test_plot_returns_the_display_and_keeps_the_axes_given(displays):
    for display in displays:
        projection = "polar" if isinstance(display, CostRadarDisplay) else None
        figure = plt.figure()
        ax = figure.add_subplot(projection=projection)
        assert display.plot(ax) is display
        assert (display.ax_, display.figure_) == (ax, figure)
        figure.canvas.draw()
        assert display.plot().figure_ is not figure


def test_wrong_axes(displays):
    wrong = {"polar": plt.subplots()[1], "rectilinear": plt.subplot(projection="polar")}
    pair = plt.subplots(2)[1]
    for display in displays:
        kind = "polar" if isinstance(display, CostRadarDisplay) else "rectilinear"
        with pytest.raises(ValueError, match=rf"`ax` must be {kind} .* Use plt.subplots\("):
            display.plot(wrong[kind])
        with pytest.raises(TypeError, match=r"must be one matplotlib Axes; got a ndarray"):
            display.plot(pair)


def test_without_matplotlib(displays, monkeypatch, small, digits):
    clf = small(max_epochs=1).fit(*digits)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = r"^Drawing needs matplotlib: pip install 'sklearn_rrr\[plot\]'$"
    for display in displays:
        with pytest.raises(ImportError, match=message):
            display.plot()
    monkeypatch.setattr(clf, "predict_branches", None)  # not even called
    with pytest.raises(ImportError, match=message):
        ReliabilityDisplay.from_estimator(clf, *digits)
    with pytest.raises(ImportError, match=message):
        KernelMosaicDisplay.from_estimator(clf, digits[0], "no layer")
    with pytest.raises(ImportError, match=message):
        CostRadarDisplay.from_estimators({"clf": clf})


def test_the_module_needs_no_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert "ReliabilityDisplay" in runpy.run_path(plotting.__file__)
