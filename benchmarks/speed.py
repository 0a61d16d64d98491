"""Speed as ratios, each measured in one interleaved run: training, fit, prediction.

    python -m benchmarks.speed [--rounds 5] [--only training inference ...]

The network is ResNet_1_1_1_1 of full width, 8 branches, 20 classes, 128x128 pixels, 32 images
a step. The reference is the procedure as published, made again here: branch after branch, each
with its own pass through the stump, its own optimiser, its own pass over the data; fp32. The
ceiling is what large square products reach in the same run. Weights and images are random.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, count_macs, export_onnx, load_backbone
from sklearn_rrr.network import RRRNet
from sklearn_rrr.training import Settings, make_net

RESULTS = Path(__file__).parent / "results"
BLOCKS, N_CLASSES, BATCH, SIZE = (1, 1, 1, 1), 20, 32, 128


def interleave(contenders, rounds):
    """Time each contender once a round, in turn; return the median seconds of each.

    A contender is called once before the first round, to warm up.
    """
    for run in contenders.values():
        run()
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


# ------------------------------------------------------------------------------ ceiling


def make_products(n=2048):
    """Return, for each dtype, a large square product; 2 n³ operations."""
    contenders = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
        contenders[f"product, {name}"] = lambda a=a, b=b: torch.mm(a, b)
    return contenders, n**3


# ----------------------------------------------------------------------------- training


class PublishedProcedure:
    """The reference: each branch trains alone, on top of a stump pass of its own."""

    def __init__(self, backbone, n_branches, memory_format):
        planes = RRRNet(backbone, N_CLASSES, blocks=BLOCKS, n_branches=n_branches).branch_planes
        self.stump = nn.Sequential(*backbone.stem, *(p[:1] for p in backbone.phases[:2]))
        self.stump.requires_grad_(False).eval().to(memory_format=memory_format)
        self.members = []
        for _ in range(n_branches):
            branch = self._make_branch(backbone, planes).to(memory_format=memory_format)
            self.members.append((branch, torch.optim.AdamW(branch.parameters())))
        self.x = torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=memory_format)
        self.y = torch.randint(N_CLASSES, (BATCH,))

    @staticmethod
    def _make_branch(backbone, planes):
        channels, phases = backbone.in_channels(2), []
        for i, width in enumerate(planes, 2):
            phases.append(backbone.make_phase(i, channels, width, 1))
            channels = width * backbone.block.expansion
        return nn.Sequential(
            *phases, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, N_CLASSES)
        )

    def __call__(self):
        """Train every branch for one step."""
        for branch, optimizer in self.members:
            optimizer.zero_grad()
            F.cross_entropy(branch(self.stump(self.x)), self.y).backward()
            optimizer.step()


def make_step(backbone, n_branches, bf16, trainable="branches", size=SIZE):
    """Return our training step: skorch's, on one batch that stays."""
    net = RRRNet(backbone, N_CLASSES, blocks=BLOCKS, n_branches=n_branches).freeze(trainable)
    run = make_net(net, Settings(max_epochs=1, bf16=bf16))
    images = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(N_CLASSES, (BATCH,)), torch.ones(BATCH)

    def step():
        run.optimizer_.zero_grad()
        run.train_step_single((images, targets))
        run.optimizer_.step()

    return step, net


def bench_training(rounds):
    backbone, _ = load_backbone("resnet152", weights=None)
    contenders, product_macs = make_products()
    contenders["published, channels first"] = PublishedProcedure(
        backbone, 8, torch.contiguous_format
    )
    contenders["published, channels last"] = PublishedProcedure(backbone, 8, torch.channels_last)
    for name, bf16 in (("fp32", False), ("bf16", True)):
        contenders[f"ours, {name}"], net = make_step(backbone, 8, bf16)
    seconds = interleave(contenders, rounds)
    # Forward through all; backward twice through what learns, but not into the stump.
    total = count_macs(net, SIZE)
    stump = count_macs(nn.Sequential(net.stump), SIZE)
    macs = BATCH * (stump + 3 * (total - stump))
    published = seconds["published, channels first"]
    rows = []
    for name, s in seconds.items():
        if name.startswith("product"):
            continue
        dtype = "bf16" if "bf16" in name else "fp32"
        ceiling = product_macs / seconds[f"product, {dtype}"]
        work = macs if name.startswith("ours") else macs + BATCH * 7 * stump
        rows.append(
            {
                "training, 8 branches": name,
                "images/s": BATCH / s,
                "times the published": published / s,
                "share of the product rate": work / s / ceiling,
            }
        )
    return pd.DataFrame(rows)


def bench_branches(rounds):
    backbone, _ = load_backbone("resnet152", weights=None)
    numbers = (1, 2, 4, 8, 16, 32, 64)
    contenders = {b: make_step(backbone, b, bf16=True)[0] for b in numbers}
    seconds = interleave(contenders, rounds)
    return pd.DataFrame(
        {
            "branches": list(numbers),
            "ms a step": [1e3 * seconds[b] for b in numbers],
            "times one branch": [seconds[b] / seconds[1] for b in numbers],
        }
    )


# ---------------------------------------------------------------------------------- fit


def bench_fit(rounds, n_images=320):
    """fit end to end, from arrays and from files, against the bare step."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    y = np.arange(n_images) % N_CLASSES
    backbone, _ = load_backbone("resnet152", weights=None)
    step, _ = make_step(backbone, 8, bf16=True)
    epochs = 3
    n_steps = epochs * n_images // BATCH

    def fit(X):
        clf = RRRNetClassifier(
            "resnet152", weights=None, trainable="branches", max_epochs=epochs, random_state=0,
            norm_warmup_epochs=0, precision="bf16",
        )  # fmt: skip
        clf.fit(X, y)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(n_images)]
        for path, image in zip(paths, X, strict=True):
            Image.fromarray(image).save(path, quality=90)
        seconds = interleave(
            {
                "bare steps": lambda: [step() for _ in range(n_steps)],
                "fit, arrays": lambda: fit(X),
                "fit, JPEG files": lambda: fit(paths),
            },
            rounds,
        )
    return pd.DataFrame(
        {
            f"{n_steps} steps": list(seconds),
            "seconds": list(seconds.values()),
            "share of the bare rate": [seconds["bare steps"] / s for s in seconds.values()],
        }
    )


def bench_bundled(rounds):
    """The default classifier on 400 images of 64x64, 20 classes."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
    y = np.arange(400) % N_CLASSES
    many = np.repeat(X, 10, axis=0)
    start = time.perf_counter()
    clf = RRRNetClassifier(random_state=0).fit(X, y)
    fitted = time.perf_counter() - start
    seconds = interleave({"predict": lambda: clf.predict(many)}, rounds)["predict"]
    row = {"default": "synth50", "fit, 400 images, s": fitted}
    return pd.DataFrame([row | {"predict, images/s": len(many) / seconds}])


# ---------------------------------------------------------------------------- inference


def fit_quickly(**parameters):
    """A classifier of random weights; one step of training makes it fitted."""
    X = np.random.default_rng(0).integers(0, 256, (N_CLASSES, SIZE, SIZE, 3), dtype=np.uint8)
    clf = RRRNetClassifier(
        "resnet152", weights=None, trainable="head", max_epochs=1, image_size=SIZE, random_state=0,
        norm_warmup_epochs=1, augmentation=None, **parameters,
    )  # fmt: skip
    return clf.fit(X, np.arange(N_CLASSES))


def bench_inference(rounds):
    networks = {
        "resnet152": fit_quickly(blocks=None, n_branches=1),
        "8 branches": fit_quickly(n_branches=8),
    }
    contenders, product_macs = make_products()
    images = {n: np.zeros((n, SIZE, SIZE, 3), dtype=np.uint8) for n in (1, 32)}
    with tempfile.TemporaryDirectory() as folder:
        for name, clf in networks.items():
            path = Path(folder) / f"{name}.onnx"
            export_onnx(clf, path)
            engines = {
                "torch, predict": clf,
                "ONNX Runtime": OnnxClassifier(path),
                "OpenVINO, fp32": OnnxClassifier(path, engine="openvino"),
                "OpenVINO, bf16": OnnxClassifier(path, engine="openvino", precision="bf16"),
            }
            for engine, predictor in engines.items():
                for n, X in images.items():
                    contenders[name, engine, n] = lambda p=predictor, X=X: p.predict_proba(X)
        seconds = interleave(contenders, rounds)
    rows = []
    for engine in engines:
        row = {"engine": engine}
        for n in images:
            ours, whole = seconds["8 branches", engine, n], seconds["resnet152", engine, n]
            row |= {f"{n}: ms": 1e3 * ours, f"{n}: resnet152, ms": 1e3 * whole}
            row[f"{n}: times faster"] = whole / ours
        dtype = "bf16" if "bf16" in engine else "fp32"
        macs = 32 * count_macs(networks["8 branches"].module_, SIZE)
        ceiling = product_macs / seconds[f"product, {dtype}"]
        row["32: share of the product rate"] = macs / seconds["8 branches", engine, 32] / ceiling
        rows.append(row)
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------- table

PARTS = {
    "training": bench_training,
    "branches": bench_branches,
    "fit": bench_fit,
    "inference": bench_inference,
    "bundled": bench_bundled,
}


def as_markdown(table):
    def show(value):
        return value if isinstance(value, str) else f"{value:.4g}"

    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(map(show, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    note = f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of "
    note += f"{options.rounds} interleaved rounds."
    for name in options.only:
        text = as_markdown(PARTS[name](options.rounds))
        print(text, "\n", flush=True)
        (RESULTS / f"speed_{name}.md").write_text(f"{text}\n\n{note}\n")


if __name__ == "__main__":
    main()
