"""Scores by hand."""

import numpy as np
import pytest

from sklearn_rrr.command_line.scores import Scores, describe_accuracy


@pytest.fixture
def scores():
    target = np.array(["a", "a", "a", "b", "b", "c"])
    probabilities = np.array([
        [0.9, 0.1, 0.0],
        [0.2, 0.8, 0.0],
        [0.3, 0.6, 0.1],
        [0.1, 0.55, 0.35],
        [0.96, 0.04, 0.0],
        [0.0, 0.5, 0.5],  # a tie: the first class
    ])  # fmt: skip
    return Scores(np.array(list("uvwxyz")), target, probabilities, np.array(["a", "b", "c"]), "x")


def test_predictions(scores):
    assert scores.predicted.tolist() == ["a", "b", "b", "b", "a", "b"]
    assert scores.is_right.tolist() == [True, False, False, True, False, False]
    assert scores.balanced_accuracy == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert scores.chance == 0.5


def test_confusions(scores):
    assert scores.confusion.tolist() == [[1, 2, 0], [1, 1, 0], [0, 1, 0]]
    assert scores.confused_pairs() == [("a", "b", 2), ("b", "a", 1), ("c", "b", 1)]


def test_classes(scores):
    (a, b, c) = scores.by_class()
    assert a == ("a", 3, 1 / 2, 1 / 3, 0.4)
    assert b == ("b", 2, 1 / 4, 1 / 2, pytest.approx(1 / 3))
    assert c == ("c", 1, 0, 0, 0)


def test_thresholds(scores):
    rows = {threshold: (share, accuracy) for threshold, share, accuracy in scores.by_threshold()}
    assert rows[0.5] == (1, pytest.approx(2 / 6))
    assert rows[0.8] == (0.5, pytest.approx(1 / 3))
    assert rows[0.95] == (pytest.approx(1 / 6), 0)
    assert rows[0.99] == (0, None)


def test_worst_errors_come_first(scores):
    assert scores.worst_errors().tolist() == [4, 1, 2, 5]
    assert scores.probability_of(4, "b") == 0.04


def test_interval_of_an_accuracy():
    """Wilson's interval of 8 of 10, as in textbooks."""
    assert describe_accuracy(8, 10) == "0.800 (8 of 10; 95% interval 0.490 to 0.943)"
