"""Contenders: timed functions, images, and passes of networks in plain torch."""

import copy
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images

from sklearn_rrr import load_backbone
from sklearn_rrr.networks.rrr_net import RRRNet

BACKBONE, N_CLASSES, BATCH, SIZE = "efficientnet_lite0", 20, 32, 128
REDUCED = (1, 1, 1, 1)


def interleave(contenders, rounds):
    """Return the median seconds of each contender, after one warm-up round.

    A contender is a function; if it returns a number, these are its seconds.
    """
    table = pd.DataFrame(
        [{key: _time(run) for key, run in contenders.items()} for _ in range(rounds + 1)]
    )
    return table.iloc[1:].median()


def _time(run):
    start = time.perf_counter()
    given = run()
    return given if isinstance(given, float) else time.perf_counter() - start


def repeated(run, n_times):
    """Return a contender: a function that returns the seconds of one of several warm calls."""

    def measure_seconds():
        run()
        start = time.perf_counter()
        for _ in range(n_times):
            run()
        return (time.perf_counter() - start) / n_times

    return measure_seconds


def cut_photos(n, sizes):
    """Return pieces of photographs, uint8 (h, w, 3) of random size, and labels."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    pieces = []
    for i, size in enumerate(rng.integers(*sizes, n, endpoint=True)):
        photo = photos[i % len(photos)]
        y, x = (rng.integers(length - size + 1) for length in photo.shape[:2])
        pieces.append(photo[y : y + size, x : x + size])
    return pieces, np.arange(n) % N_CLASSES


def write_files(pieces, folder):
    """Write JPEG files; return their paths."""
    paths = [Path(folder) / f"{i:04}.jpg" for i in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        Image.fromarray(piece).save(path, quality=90)
    return paths


def as_floats(pieces, size):
    """Return pieces resized to (n, 3, size, size), between 0 and 1."""
    images = [np.asarray(Image.fromarray(piece).resize((size, size))) for piece in pieces]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def build(backbone=BACKBONE, **form):
    """Return a network with random weights."""
    return RRRNet(load_backbone(backbone, weights=None)[0], N_CLASSES, **form)


def in_plain_torch(network, images, prepare):
    """Return {name: contender} that pass over images as users of torch would.

    `prepare` turns a network into a function of a batch. The compiled form is left out where torch
    cannot compile.
    """
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(last))
    forms = {"channels first": network, "channels last": last, "compiled": compiled}
    contenders = {}
    for name, module in forms.items():
        layout = torch.contiguous_format if name == "channels first" else torch.channels_last
        batches = [batch.contiguous(memory_format=layout) for batch in images.split(BATCH)]
        contenders[f"bare, {name}"] = partial(_pass_over, prepare(module), batches)
    try:
        contenders["bare, compiled"]()
    except Exception as error:  # of many types
        print("torch.compile fails:", str(error).splitlines()[0])
        del contenders["bare, compiled"]
    return contenders


def _pass_over(function, batches):
    for batch in batches:
        function(batch)


def prepare_forward(network):
    return torch.inference_mode()(network.eval())


def prepare_training(network):
    """Return a function that trains a network on a batch, without augmentation."""
    network.train()
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)

    def step(images):
        logits = network(images)[:, 0]
        loss = F.cross_entropy(logits, torch.arange(len(images)) % N_CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
