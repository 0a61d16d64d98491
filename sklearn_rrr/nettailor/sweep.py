"""Sweep over students: prune, retrain and rank them; NetTailor (CVPR 2019), section 3.5."""

from dataclasses import dataclass, replace
from itertools import islice

import pandas as pd
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from sklearn_rrr._surroundings import shielded
from sklearn_rrr.images.labelled_set import LabelledSet
from sklearn_rrr.nettailor.paths import BLOCK, prune, source
from sklearn_rrr.nettailor.penalty import TailoringPenalty
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.training.journal import is_journaled
from sklearn_rrr.training.loop import train


@dataclass(frozen=True)
class Tailoring:
    """Inputs that the trainings of all students share.

    Parameters
    ----------
    teacher : RRRNet
        Network of the teacher.
    images : LabelledSet
        Training images.
    costs : dict of path to float
        Result of :func:`~sklearn_rrr.nettailor.penalty.path_costs`.
    teacher_weight : float
        γ2.
    """

    teacher: RRRNet
    images: LabelledSet
    costs: dict
    teacher_weight: float

    def train(self, student, settings, complexity_weight=0.0):
        """Train a soft student in place, and return the records of its epochs."""
        weights = complexity_weight, self.teacher_weight, settings.device
        with TailoringPenalty(student, self.teacher, self.costs, *weights) as penalty:
            return train(student, self.images, None, settings, penalty=penalty).history


def plan_students(soft, numbers, threshold):
    """Return the numbers of blocks to remove that give different students, and their paths.

    Parameters
    ----------
    soft : TailoredNet
        Trained soft student.
    numbers : iterable of int
        Numbers of blocks to remove.
    threshold : float
        Proxies with a smaller attention are removed.

    Returns
    -------
    plans : dict of tuple to int
        Number of blocks asked to be removed, by the remaining paths.
    """
    alphas = {path: alpha.item() for path, alpha in soft.alphas().items()}
    plans = {}
    for number in numbers:
        plans.setdefault(prune(alphas, soft.n_nodes, number, threshold), number)
    return plans


def retrain_students(soft, plans, tailoring, settings, progressive, n_jobs=None):
    """Yield each student, retrained and with constant attention, and the records of its epochs.

    Parameters
    ----------
    soft : TailoredNet
        Trained soft student.
    plans : iterable of tuple
        Paths of each student.
    tailoring : Tailoring
    settings : Settings
        Settings of the retraining.
    progressive : bool
        Whether each student starts from the weights of the previous one, instead of those of
        `soft`.
    n_jobs : int or None, default=None
        Number of processes, unless `progressive`. As many students are trained ahead.
    """
    if progressive:
        last = soft
        for paths in plans:
            student = soft.restrict(paths)
            student.adopt(last)
            yield _retrain(student, tailoring, settings)
            last = student
        return
    # The journal of a fit does not reach other processes.
    n_jobs = 1 if is_journaled() else n_jobs
    size, students = effective_n_jobs(n_jobs), map(soft.restrict, plans)
    quiet = size == 1 or not settings.verbose  # processes cannot share a terminal
    settings = settings if size == 1 else replace(settings, verbose=0)
    with tqdm(total=len(plans), unit="student", desc="NetTailor", disable=quiet) as bar:
        while batch := list(islice(students, size)):
            jobs = (delayed(_retrain)(student, tailoring, settings) for student in batch)
            for result in Parallel(n_jobs)(jobs):
                bar.update()
                yield result


@shielded()
def _retrain(student, tailoring, settings):
    history = tailoring.train(student, settings)
    return student.make_static(), history


def rank(row):
    """Return the rank of a student, given its row of the results; a larger one is better.

    The leanest student within the tolerance is the best; without one, that with the best score.
    """
    lean = -row["parameters"]
    return (1, lean) if row["within"] else (0, row["score"], lean)


def describe_paths(soft, costs, static):
    """Return a table with a row for each path of a soft student; ``kept`` if `static` has it."""
    rows = [
        {
            "node": path[0],
            "source": source(path),
            "kind": "block" if path[1] == BLOCK else "proxy",
            "cost": costs[path],
            "alpha": alpha.item(),
            "kept": path in static.paths,
        }
        for path, alpha in soft.alphas().items()
    ]
    return pd.DataFrame(rows)
