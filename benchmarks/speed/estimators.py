"""Parts that time fit and predict of classifiers from end to end."""

import copy
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np

from benchmarks.speed.contenders import (
    REDUCED,
    SIZE,
    as_floats,
    build,
    cut_photos,
    in_plain_torch,
    interleave,
    prepare_forward,
    prepare_training,
    write_files,
)
from sklearn_rrr import FineTuning, RRRNetClassifier
from sklearn_rrr.networks.stacked_net import StackedNet

WHOLE, EPOCHS = 192, 5  # pixels of the whole network; epochs of training


def one_pass(rounds, n=256):
    """One pass: fit (frozen network, closed form) and predict, beside the bare forward pass.

    Arrays are uint8 of 160x160, files JPEG of 128 to 256 pixels; the network sees 192x192.
    """
    with tempfile.TemporaryDirectory() as folder:
        pieces, labels = cut_photos(n, (128, 256))
        forms = {"JPEG files": write_files(pieces, folder)}
        forms["uint8 arrays"] = (as_floats(pieces, 160).permute(0, 2, 3, 1) * 255).byte().numpy()
        images, clf = as_floats(pieces, WHOLE), RRRNetClassifier(fine_tuning="one_pass")
        contenders = in_plain_torch(build(head_features="all"), images, prepare_forward)
        for form, X in forms.items():
            fitted = copy.deepcopy(clf).fit(X, labels)
            contenders[f"fit, {form}"] = partial(clf.fit, X, labels)
            contenders[f"predict, {form}"] = partial(fitted.predict, X)
        yield from rate(interleave(contenders, rounds), n)


def default(rounds, n=128):
    """Default fit, which tries a companion, beside the bare forward pass of both networks."""
    pieces, labels = cut_photos(n, (160, 160))
    networks = build(head_features="all"), build("synth50", blocks=REDUCED, head_features="all")
    pair = StackedNet(*networks, WHOLE, networks[1].image_size)
    contenders = in_plain_torch(pair, as_floats(pieces, WHOLE), prepare_forward)
    contenders["fit, uint8 arrays"] = partial(RRRNetClassifier().fit, np.stack(pieces), labels)
    yield from rate(interleave(contenders, rounds), n)


def training(rounds, n=256):
    """Training of 1_1_1_1 at 128x128, without augmentation or caches, beside the bare steps.

    The frozen stump runs with gradients off in both. The time of a fit includes its start: weights,
    adapted norms, and heads in closed form; it is divided by the number of epochs.
    """
    parameters = {"blocks": REDUCED, "max_epochs": EPOCHS, "random_state": 0}
    plain = {"fine_tuning__augmentation": "none", "fine_tuning__cache_features": False}
    with tempfile.TemporaryDirectory() as folder:
        pieces, labels = cut_photos(n, (SIZE, SIZE))
        arrays, files = np.stack(pieces), write_files(pieces, folder)
        network = build(blocks=REDUCED, head_features="all").freeze("branches")
        contenders = in_plain_torch(network, as_floats(pieces, SIZE), prepare_training)
        for name, X, options in [
            ("uint8 arrays", arrays, plain),
            ("JPEG files", files, plain),
            ("uint8 arrays, augmentation", arrays, {}),
        ]:
            clf = RRRNetClassifier(fine_tuning=FineTuning(), **parameters).set_params(**options)
            contenders[f"fit, {name}"] = partial(_time_epoch, clf, X, labels)
        yield from rate(interleave(contenders, rounds), n)


def _time_epoch(clf, X, labels):
    start = time.perf_counter()
    clf.fit(X, labels)
    return (time.perf_counter() - start) / EPOCHS


def rate(seconds, n_images, prefix="bare"):
    """Yield a row for each contender, compared with the fastest whose name begins with `prefix`."""
    best = min(value for name, value in seconds.items() if name.startswith(prefix))
    for name, value in seconds.items():
        ms = 1e3 * value / n_images
        yield {"contender": name, "ms an image": ms, f"% of {prefix}": 100 * best / value}


def importing(rounds):
    """Seconds of imports, each in a new process."""
    codes = {
        "torch and torchvision": "import torch, torchvision",
        "torch, skorch, scikit-learn, pandas": "import torch, skorch, sklearn, pandas",
        "RRRNetClassifier": "from sklearn_rrr import RRRNetClassifier",
    }
    seconds = interleave(
        {name: partial(_time_import, code) for name, code in codes.items()}, rounds
    )
    for name, value in seconds.items():
        ratio = value / seconds["torch and torchvision"]
        yield {"contender": name, "seconds": value, "times torch and torchvision": ratio}


def _time_import(code):
    clock = f"import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)"
    run = subprocess.run([sys.executable, "-c", clock], check=True, capture_output=True, text=True)
    return float(run.stdout)
