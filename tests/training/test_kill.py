"""Fits that are killed by the system at random moments."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, random, signal, sys, time, warnings
import numpy as np, torch
from pathlib import Path
from sklearn.datasets import load_digits
from sklearn_rrr import *
torch.set_num_threads(1)
warnings.simplefilter("ignore")
X, y = load_digits(n_class=3, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:120] / 16, y[:120]
kind, folder, n_kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
form = {"image_size": 32, "random_state": 0, "batch_size": 8}
branches = {"blocks": (1, 1, 1, 1), "n_branches": 2}

def make(journal):
    if kind == "NetTailor":
        return NetTailorClassifier("synth50", **form, max_epochs=2, epochs_per_step=1,
                                   n_removed=[4, 8], tolerance=1.0, checkpoint_dir=journal)
    if kind == "pruner":
        clf = RRRNetClassifier("synth50", **form, **branches, max_epochs=2)
        return ChannelPruner(clf, n_steps=3, epochs_per_step=1, checkpoint_dir=journal)
    if kind == "baseline":
        return FineTuningClassifier("synth50", **form, max_epochs=3, checkpoint_dir=journal)
    ensemble = "fge" if kind == "fge" else "naive"
    return RRRNetClassifier("synth50", **form, **branches, ensemble=ensemble, max_epochs=8,
                            checkpoint_dir=journal)

def start(journal, result):
    pid = os.fork()
    if pid == 0:
        try:
            probabilities = make(journal).fit(X, y).predict_proba(X)
            np.save(folder / "new.npy", probabilities)
            os.replace(folder / "new.npy", result)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return pid

result, random = folder / "result.npy", random.Random(0)
began = time.perf_counter()
assert os.waitpid(start(None, result), 0)[1] == 0
seconds, expected = time.perf_counter() - began, np.load(result)
killed = 0
for i in range(n_kills):
    journal = folder / str(i)
    pid = start(journal, result)
    time.sleep(random.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
    result.unlink(missing_ok=True)
    assert os.waitpid(start(journal, result), 0)[1] == 0
    np.testing.assert_array_equal(np.load(result), expected)
print(f"{kind}: {killed} of {n_kills} killed, {seconds:.1f} s each, all equal", flush=True)
assert killed > n_kills / 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["branches", "fge", "baseline", "NetTailor", "pruner"])
def test_killed_at_any_moment_is_the_same(tmp_path, kind):  # faults 41, 42 and 82
    command = [sys.executable, "-c", SCRIPT, kind, str(tmp_path), "20"]
    subprocess.run(command, check=True)
