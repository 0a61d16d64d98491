"""Algorithm 1 on made-up scores; Pareto fronts and their knees."""

from itertools import pairwise

import numpy as np
import pytest

from sklearn_rrr.search.forward_selection import find_knee, next_phase, pareto_front, select_forward

RESNET152 = (3, 8, 36, 3)
SYNTH50 = (3, 4, 6, 3)


def run(scores, depths=SYNTH50, **parameters):
    """Run on scores in the order in which networks are tried; return the steps and the calls."""
    calls = []

    def evaluate(blocks):
        calls.append(blocks)
        return scores[len(calls) - 1] if isinstance(scores, list) else scores(blocks)

    return list(select_forward(evaluate, depths, **parameters)), calls


def test_sequential_path_stop_and_block_taken_back():
    steps, calls = run([0.5, 0.6, 0.7, 0.701, 0.9], tolerance=0.01)
    assert calls == [(1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1), (3, 2, 1, 1)]  # no fifth
    assert [kept for *_, kept in steps] == [True, True, True, False]
    assert [b for b, _, kept in steps if kept][-1] == (3, 1, 1, 1)


def test_cyclic_path():
    steps, calls = run(lambda blocks: float(sum(blocks)), order="cyclic", tolerance=0.01)
    assert calls[:6] == [
        (1, 1, 1, 1),
        (2, 1, 1, 1),
        (2, 2, 1, 1),
        (2, 2, 2, 1),
        (2, 2, 2, 2),
        (3, 2, 2, 2),
    ]
    assert calls[-1] == SYNTH50
    assert all(kept for *_, kept in steps)


@pytest.mark.parametrize("order", ["sequential", "cyclic"])
@pytest.mark.parametrize(
    ("depths", "n"), [(RESNET152, 47), (SYNTH50, 13), ((2, 2, 2, 2), 5), ((1, 1, 1, 1), 1)]
)
def test_all_steps_without_the_stop(order, depths, n):
    """47 trainings, the start and 46 additions, for 3_8_36_3."""
    steps, calls = run(lambda blocks: 1 / sum(blocks), depths, order=order, tolerance=None)
    assert len(calls) == len(set(calls)) == len(steps) == n
    assert calls[-1] == depths
    assert all(np.subtract(b, a).sum() == 1 for a, b in pairwise(calls))


def test_sequential_order_is_phase_by_phase():
    _, calls = run(lambda blocks: 0.0, RESNET152, tolerance=None)
    assert calls[2] == (3, 1, 1, 1)
    assert calls[9] == (3, 8, 1, 1)
    assert calls[44] == (3, 8, 36, 1)


@pytest.mark.parametrize(
    ("old", "new", "tolerance", "kept"),
    [
        (0.5, 0.5, 0.0, True),
        (0.5, 0.5, 0.001, False),
        (0.5, 0.505, 0.0099, True),  # relative to the new score: 0.005 / 0.505 = .0099
        (0.5, 0.505, 0.01, False),
        (-1.0, -0.9, 0.1, True),  # a loss
        (-0.9, -1.0, 0.0, False),
        (-0.5, 0.0, 0.5, True),
        (0.5, 0.0, 0.0, False),
        (0.0, 0.0, 0.0, True),
    ],
)
def test_improvement_is_relative_to_the_new_score(old, new, tolerance, kept):
    steps, _ = run([old, new, -9.0], tolerance=tolerance)
    assert steps[1][2] == kept


def test_phases_that_cannot_be_afforded_are_passed_over():
    _, calls = run(
        lambda blocks: 0.0,
        tolerance=None,
        affordable=lambda blocks: blocks[0] < 3 and blocks[2] < 2,
    )
    assert calls[-1] == (2, 4, 1, 3)
    assert max(b[0] for b in calls) == 2


def test_next_phase():
    assert next_phase((3, 1, 1, 1), SYNTH50, "sequential") == 1
    assert next_phase((3, 1, 1, 1), SYNTH50, "cyclic") == 1
    assert next_phase((1, 1, 1, 1), SYNTH50, "cyclic", closed={0}) == 1
    assert next_phase(SYNTH50, SYNTH50, "cyclic") is None


def test_pareto_front():
    costs, scores = [1, 2, 3, 4, 5, 5], [0.5, 0.7, 0.6, 0.7, 0.8, 0.8]
    assert pareto_front(costs, scores).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize(
    ("costs", "scores", "knee"),
    [
        ([1, 2, 3, 4], [0.1, 0.8, 0.85, 0.9], 1),
        ([4, 3, 2, 1], [0.9, 0.85, 0.8, 0.1], 2),
        ([1, 2, 3], [0.9, 0.8, 0.7], 0),  # the first beats all
        ([1, 2], [0.5, 0.9], 1),  # two ends: the better one
        ([1], [0.5], 0),
        ([1, 2, 3, 4], [0.1, 0.2, 0.85, 0.9], 2),
    ],
)
def test_knee(costs, scores, knee):
    assert find_knee(costs, scores) == knee
