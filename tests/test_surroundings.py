"""What surrounds a fit in its process changes no result, and is not changed by it."""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklearn_rrr import (
    BackboneFeatures,
    BlockSelector,
    ChannelPruner,
    NetTailorClassifier,
    RRRNetClassifier,
    load,
    save,
)
from sklearn_rrr._surroundings import drawing

SCRIPT = """
import contextlib, sys
import numpy as np, torch
from sklearn.datasets import load_digits
from sklearn_rrr import RRRNetClassifier, load, save
X, y = load_digits(n_class=3, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:30] / 16, y[:30]

@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64

@contextlib.contextmanager
def two_threads():
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2

@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield

SETTINGS = {
    "nothing": contextlib.nullcontext,
    "two threads": two_threads,
    "float64": float64,
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
}
torch.set_num_threads(1)
path = sys.argv[2]
small = {"image_size": 64, "random_state": 0}
trained = {"blocks": (1, 1, 1, 1), "n_branches": 2, "max_epochs": 1}
with SETTINGS[sys.argv[1]]():
    clf = RRRNetClassifier(**small).fit(X, y)
    probabilities = clf.predict_proba(X)
    save(clf, path)
    again = load(path).predict_proba(X)
    trained = RRRNetClassifier(**small, **trained).fit(X, y)
    trained.partial_fit(X, y)
    more = trained.predict_proba(X)
outside = load(path).predict_proba(X), trained.partial_fit(X, y).predict_proba(X)
np.savez(path + ".npz", probabilities, again, more, *outside)
"""


def run(setting, folder):
    path = str(folder / "model")
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", SCRIPT, setting, path]
    subprocess.run(command, check=True, timeout=300)
    with np.load(path + ".npz") as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return run("nothing", tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "setting",
    [
        "two threads",  # fault 68
        "float64",  # fault 69
        "autocast",
        *(
            pytest.param(setting, marks=pytest.mark.slow)
            for setting in ("device", "inference mode", "no gradients", "deterministic")
        ),
    ],
)
def test_settings_of_torch_change_no_result(expected, setting, tmp_path):
    found = run(setting, tmp_path)
    np.testing.assert_array_equal(found[0], found[1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-2)
        if setting != "two threads":  # which round differently
            np.testing.assert_array_equal(one, other)


FORK = """
import warnings
import numpy as np, torch
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn_rrr import RRRNetClassifier
torch.set_num_threads(2)
X, y = load_digits(n_class=3, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:30] / 16, y[:30]
clf = RRRNetClassifier(image_size=64, random_state=0, fine_tuning="one_pass")
expected = clf.fit(X, y).predict_proba(X)
warnings.simplefilter("ignore")  # Python's own, about forks and threads
work = lambda: clf.fit(X, y).predict_proba(X)
found = Parallel(2, backend="multiprocessing")(delayed(work)() for _ in range(2))
for probabilities in found:
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-4)
"""


def test_fits_in_forked_processes_do_not_hang():  # fault 73
    code = FORK.replace("work = lambda: ", "def work():\n    return ")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


COPIES = """
import copy, io, os, pickle, signal, sys, warnings
import joblib, numpy as np, torch
from sklearn.datasets import load_digits
from sklearn_rrr import *
torch.set_num_threads(2)
X, y = load_digits(n_class=3, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:30] / 16, y[:30]
warnings.simplefilter("ignore")
form = {"image_size": 32, "max_epochs": 1, "random_state": 0}
clf = RRRNetClassifier("synth50", **form, blocks=(1, 1, 1, 2), n_branches=1)
makers = [
    lambda: clf.fit(X, y),
    lambda: BackboneFeatures("synth50", image_size=32).fit(X),
    lambda: BlockPruner(clf, target=0.05, n_steps=1, epochs_per_step=1).fit(X, y),
    lambda: BlockSelector(clf, max_blocks=4).fit(X, y),
    lambda: NetTailorClassifier("synth50", **form, n_removed=8).fit(X, y),
]

def work(name, estimator):
    if name == "joblib":
        joblib.dump(estimator, io.BytesIO())
    else:
        {"pickle": pickle.dumps, "deepcopy": copy.deepcopy}[name](estimator)

for make in makers[: int(sys.argv[1])]:
    estimator = make()
    estimator.transform(X)
    for name in ("pickle", "deepcopy", "joblib"):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            work(name, estimator)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, (estimator, name)
assert torch.get_num_threads() == 2
"""


@pytest.mark.parametrize("n", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_copies_in_forked_processes_do_not_hang(n):  # fault 73
    subprocess.run([sys.executable, "-c", COPIES, str(n)], check=True, timeout=300)


COPIERS = {
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("copied", COPIERS.values(), ids=COPIERS)
def test_copies_made_in_inference_mode_can_be_trained(make, digits, weights, copied):  # fault 69
    X, y = digits[0][:40], digits[1][:40]
    clf = make(0).fit(X, y)
    tailored = {"weights": weights, "n_removed": 1, "max_epochs": 1, "image_size": 16}
    for estimator in (
        clf,
        FrozenEstimator(clf),
        ChannelPruner(make(0), n_steps=1, epochs_per_step=1).fit(X, y),
        BlockSelector(make(0), max_blocks=4).fit(X, y),
        NetTailorClassifier("tiny", **tailored, random_state=0).fit(X, y),
    ):
        with torch.inference_mode():
            again = copied(estimator)
        np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))
        names = ("estimator", "estimator_", "teacher_")
        for each in (again, *(getattr(again, name, None) for name in names)):
            if hasattr(each, "module_"):
                tensors = each.module_.state_dict().values()
                assert not any(tensor.is_inference() for tensor in tensors)
            if hasattr(each, "module_") and hasattr(each, "partial_fit"):
                each.partial_fit(X, y)
    features = BackboneFeatures("tiny", weights=weights, image_size=16).fit(X)
    with torch.inference_mode():
        again = copied(features)
    np.testing.assert_array_equal(again.transform(X), features.transform(X))


def test_weights_made_in_inference_mode_can_be_trained(digits, weights):  # fault 69
    with torch.inference_mode():
        given = {name: tensor.clone() for name, tensor in weights.items()}
    form = {"max_epochs": 1, "random_state": 0, "image_size": 16}
    one, other = (
        RRRNetClassifier("tiny", weights=w, **form).fit(*digits) for w in (weights, given)
    )
    np.testing.assert_array_equal(one.predict_proba(digits[0]), other.predict_proba(digits[0]))


@pytest.fixture
def make(small):
    def make(seed, **changes):
        form = {"n_branches": 2, "dropout": 0.3, "max_epochs": 2, "random_state": seed}
        return small(**form | changes)

    return make


def test_fits_in_threads_are_as_alone(make, digits):  # fault 70
    X, y = digits
    augmentation = nn.Dropout(0.1)  # code of a user that draws from the global generator
    changes = [{"augmentation": augmentation} if seed % 2 else {} for seed in range(8)]
    expected = [make(i, **c).fit(X, y).predict_proba(X) for i, c in enumerate(changes)]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(make(i, **c).fit, X, y) for i, c in enumerate(changes)]
        found = [job.result().predict_proba(X) for job in jobs]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_predictions_in_threads_beside_fits_are_exact(make, digits, tmp_path):
    X, y = digits
    clf = make(0).fit(X, y)
    save(clf, tmp_path / "model")
    expected, done = clf.predict_proba(X), threading.Event()

    def disturb():
        while not done.is_set():
            make(1, max_epochs=1).fit(X, y)
            load(tmp_path / "model").predict(X)

    with ThreadPoolExecutor(9) as pool:
        other = pool.submit(disturb)
        jobs = [pool.submit(clf.predict_proba, X) for _ in range(40)]
        found = [job.result() for job in jobs]
        done.set()
        other.result()
    for probabilities in found:
        np.testing.assert_array_equal(probabilities, expected)


def test_nothing_draws_from_the_global_generators(make, digits, tmp_path):  # fault 70
    X, y = digits
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    clf = make(0).fit(X, y)
    clf.partial_fit(X, y)
    clf.predict_uncertainty(X)
    save(clf, tmp_path / "model")
    load(tmp_path / "model").predict(X)
    RRRNetClassifier(image_size=64, fine_tuning="one_pass", random_state=0).fit(X[:20], y[:20])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_drawing_repeats_every_initial_weight():
    def build():
        layers = [nn.Linear(3, 4), nn.Conv2d(3, 4, 1), nn.Embedding(3, 4), nn.LSTM(2, 2)]
        return [p.detach().clone() for layer in layers for p in layer.parameters()]

    with drawing(1):
        first = build()
    with drawing(1):
        second = build()
    with drawing(2):
        third = build()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, third, strict=True))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_exhausted_memory_names_the_cure(make, digits, error):  # fault 74
    def exhaust(image):
        raise error

    with pytest.raises(ValueError, match=r"out of memory with `batch_size`=.*smaller `image_size`"):
        make(0, augmentation=exhaust).fit(*digits)
