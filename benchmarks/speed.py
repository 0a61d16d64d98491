"""Speed compared with the published procedure, and with the processor's rate of products.

    python -m benchmarks.speed [--parts training,fit] [--rounds 5]

Parts: training, branches, layouts, fit, inference, bundled, predicting. Each part runs its
contenders in interleaved rounds and reports medians; ratios compare contenders of the same rounds.
Weights and images are random, because costs do not depend on them. Results are written to
benchmarks/results: speed.csv (a row for each contender), speed.md and speed.png.
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from benchmarks.published import PublishedProcedure
from benchmarks.settings import nest
from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx, load_backbone
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.training.loop import make_net
from sklearn_rrr.training.memory import keeping_memory
from sklearn_rrr.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
BLOCKS, SIZE, N_CLASSES, BATCH, BRANCHES = (1, 1, 1, 1), 128, 20, 32, 8
SYNTH50 = {"backbone": "synth50", "blocks": BLOCKS, "n_branches": BRANCHES}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


# --------------------------------------------------------------------------- contenders


def timed(function, repeats=3, context=nullcontext):
    """Return a contender: a function that runs `function` and returns the seconds per call."""

    def run():
        with context():
            function()
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            return (time.perf_counter() - start) / repeats

    return run


def interleave(contenders, rounds):
    """Return the median seconds of each contender, after one warm-up round."""
    table = pd.DataFrame([{k: run() for k, run in contenders.items()} for _ in range(rounds + 1)])
    return table.iloc[1:].median()


def products(n=2048):
    """Return the reference contenders: a square product, as matrix product and as convolution.

    The convolution is fast even where MKL is slow, as in float32 on non-Intel processors.
    """
    contenders = {}
    for name, dtype in DTYPES.items():
        left, right, out = (torch.rand(n, n).to(dtype) for _ in range(3))
        image = left.view(1, n, n // 64, 64).contiguous(memory_format=torch.channels_last)
        kernels = right.view(n, n, 1, 1)
        contenders[f"matmul {name}"] = timed(partial(torch.mm, left, right, out=out), 5)
        contenders[f"convolution {name}"] = timed(partial(F.conv2d, image, kernels), 5)
    return contenders


def product_rates(seconds, n=2048):
    """Return the multiply-adds per second of each precision, by the faster of the two ways."""
    ways = ("matmul", "convolution")
    return {name: n**3 / min(seconds[f"{way} {name}"] for way in ways) for name in DTYPES}


def draw_images(n, size):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8), np.arange(n) % N_CLASSES


def batch():
    images, labels = draw_images(BATCH, SIZE)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)


def make_ours(n_branches, precision, form="auto"):
    """Return a contender that runs training steps as `fit` does, and its network."""
    backbone, _ = load_backbone("resnet152", weights=None)
    network = RRRNet(backbone, N_CLASSES, blocks=BLOCKS, n_branches=n_branches)
    network.freeze("branches").set_branch_form(form)
    net = make_net(network, Settings(max_epochs=1, bf16=precision == "bf16"))
    images, labels = batch()
    targets = labels, torch.ones(len(labels))

    def steps():
        with keeping_memory(), net.folded_stump():
            return timed(lambda: net.train_step((images, targets)))()

    return steps, network


def make_published(channels_last, context=nullcontext):
    backbone, _ = load_backbone("resnet152", weights=None)
    procedure = PublishedProcedure(backbone, N_CLASSES, BRANCHES, BLOCKS, channels_last)
    images, labels = batch()
    return timed(lambda: procedure.step(images, labels), 1, context)


def count_products(network, images):
    """Return the multiply-adds of a step in the stump, the branches and their first layers."""
    counts = {"stump": 0, "branches": 0, "first": 0}

    def count(part):
        def hook(layer, inputs, output):
            macs = output.numel() * layer.weight[0].numel()
            counts[part] += macs
            if part == "branches" and inputs[0].shape[1] == layer.weight.shape[1]:
                counts["first"] += macs  # the gradient of its input is not computed

        return hook

    hooks = [
        layer.register_forward_hook(count(part))
        for part in ("stump", "branches")
        for layer in getattr(network, part).modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return counts


# -------------------------------------------------------------------------------- parts


def training(rounds):
    """Images per second through all branches, and the share of the product rate."""
    contenders = {
        "published procedure, channels first": make_published(channels_last=False),
        "published procedure, channels last": make_published(channels_last=True),
        "published procedure, channels last, memory kept": make_published(
            channels_last=True, context=keeping_memory
        ),
    }
    for precision in DTYPES:
        contenders[f"ours, {precision}"], network = make_ours(BRANCHES, precision)
    seconds = interleave(contenders | products(), rounds)
    counts = count_products(network, batch()[0])
    macs = counts["stump"] + 3 * counts["branches"] - counts["first"]
    reference = seconds["published procedure, channels first"]
    for name in contenders:
        precision = "bf16" if "bf16" in name else "fp32"
        yield {
            "contender": name,
            "images/s": BATCH / seconds[name],
            "times the published": reference / seconds[name],
            "% of product rate": 100 * macs / seconds[name] / product_rates(seconds)[precision],
        }


def branches(rounds):
    """Step time against the number of branches, at equal total size."""
    numbers = (1, 2, 4, 8, 16, 32, 64)
    contenders = {(b, p): make_ours(b, p)[0] for p in DTYPES for b in numbers}
    seconds = interleave(contenders, rounds)
    for (n_branches, precision), value in seconds.items():
        yield {
            "contender": f"{n_branches} branches, {precision}",
            "ms a step": 1e3 * value,
            "times one branch": value / seconds[1, precision],
        }


def layouts(rounds):
    """Step time by the form of the branches' convolutions; `fit` uses "auto"."""
    cases = [(1, "bf16"), (8, "bf16"), (32, "bf16"), (8, "fp32")]
    forms = {"bf16": ("auto", "grouped", "matrix", "looped"), "fp32": ("auto", "looped")}
    names = [(*case, form) for case in cases for form in forms[case[1]]]
    contenders = {name: make_ours(*name)[0] for name in names}
    seconds = interleave(contenders, rounds)
    for (n_branches, precision, form), value in seconds.items():
        yield {
            "contender": f"{n_branches} branches, {precision}, {form}",
            "ms a step": 1e3 * value,
            "times auto": value / seconds[n_branches, precision, "auto"],
        }


def fit(rounds, n_images=256, epochs=6):
    """End-to-end `fit`, by default with the paper's augmentation, beside the bare step."""
    images, labels = draw_images(n_images, SIZE)
    settings = {"weights": None, "trainable": "branches", "augmentation": "paper"}
    settings |= {"max_epochs": epochs, "norm_warmup_epochs": 0}
    settings |= {"blocks": BLOCKS, "n_branches": BRANCHES}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(n_images)]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)

        def whole(X, **parameters):
            def run():
                clf = RRRNetClassifier("resnet152").set_params(**nest(settings | parameters))
                start = time.perf_counter()
                clf.fit(X, labels)
                return (time.perf_counter() - start) * BATCH / n_images / epochs

            return run

        contenders = {
            "bare step": make_ours(BRANCHES, "bf16")[0],
            "fit, uint8 arrays, features kept": whole(images, augmentation="none"),
            "fit, uint8 arrays, no augmentation": whole(
                images, augmentation="none", cache_features=False
            ),
            "fit, uint8 arrays": whole(images),
            "fit, JPEG files": whole(paths),
        }
        seconds = interleave(contenders, rounds)
    for name in contenders:
        yield {
            "contender": name,
            "images/s": BATCH / seconds[name],
            "% of the bare step rate": 100 * seconds["bare step"] / seconds[name],
        }


def inference(rounds):
    """End-to-end prediction of 1 and of 32 uint8 images in every engine."""
    images, labels = draw_images(2 * N_CLASSES, SIZE)
    settings = {"weights": None, "trainable": "head", "max_epochs": 1, "norm_warmup_epochs": 0}
    with tempfile.TemporaryDirectory() as folder:
        contenders, macs = {}, {}
        for name, form in {
            "ResNet152": {"blocks": None, "n_branches": 1},
            "RRR-Net": {"blocks": BLOCKS, "n_branches": BRANCHES},
        }.items():
            clf = RRRNetClassifier("resnet152").set_params(**nest(settings | form))
            clf.fit(images, labels)
            counts = count_products(clf.module_, batch()[0])
            macs[name] = (counts["stump"] + counts["branches"]) / BATCH
            path = Path(folder) / f"{name}.onnx"
            export_onnx(clf, path)
            engines = {
                "torch, forward only": None,
                "torch": clf,
                "ONNX Runtime": OnnxClassifier(path),
                "OpenVINO": OnnxClassifier(path, engine="openvino"),
                "OpenVINO, bf16": OnnxClassifier(path, engine="openvino", precision="bf16"),
            }
            for engine, estimator in engines.items():
                for n in (1, BATCH):
                    if estimator is None:
                        run = _bare_forward(clf, n)
                    else:
                        run = timed(lambda e=estimator, n=n: e.predict(images[:n]), 5)
                    contenders[name, engine, n] = run
        seconds = interleave(contenders | products(), rounds)
    rates = product_rates(seconds)
    for name, engine, n in contenders:
        value = seconds[name, engine, n]
        rate = rates["bf16" if "bf16" in engine else "fp32"]
        yield {
            "contender": f"{name}, {engine}",
            "images": n,
            "ms": 1e3 * value,
            "times faster than ResNet152": seconds["ResNet152", engine, n] / value,
            "% of product rate": 100 * n * macs[name] / value / rate,
        }


def _bare_forward(clf, n):
    """Return a contender: the forward pass alone, of floats in the best memory format."""
    network = clf._fold(torch.device("cpu"))
    images = torch.rand(n, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            return network(images)

    return timed(run, 5, keeping_memory)


def bundled(rounds):
    """Default settings: fit on 400 images of 64x64 in 20 classes."""
    images, labels = draw_images(400, 64)

    def fit_time(**parameters):
        def run():
            clf = RRRNetClassifier(random_state=0).set_params(**nest(parameters))
            start = time.perf_counter()
            clf.fit(images, labels)
            return time.perf_counter() - start

        return run

    contenders = {
        "default": fit_time(),
        "one pass": fit_time(fine_tuning="one_pass"),
        "synth50, 8 branches": fit_time(**SYNTH50),
        "synth50, 8 branches, no augmentation": fit_time(augmentation="none", **SYNTH50),
    }
    seconds = interleave(contenders, min(rounds, 3))
    for name in contenders:
        yield {"contender": name, "seconds": seconds[name]}


def predicting(rounds, n_images=4000):
    """Default settings: end-to-end prediction of images of 64x64."""
    images, labels = draw_images(n_images, 64)
    contenders = {}
    for name, parameters in {
        "default": {},
        "one pass": {"fine_tuning": "one_pass", "max_epochs": None},
        "synth50, 8 branches": SYNTH50,
        "synth50, 8 branches, bf16": {"precision": "bf16", **SYNTH50},
    }.items():
        clf = RRRNetClassifier(max_epochs=1).set_params(**parameters)
        clf.fit(images[:400], labels[:400])
        contenders[name] = timed(partial(clf.predict, images), 1)
    seconds = interleave(contenders, rounds)
    for name in contenders:
        yield {"contender": name, "images/s": n_images / seconds[name]}


PARTS = {
    part.__name__: part
    for part in (training, branches, layouts, fit, inference, bundled, predicting)
}


# ------------------------------------------------------------------------------ results


def write(table):
    """Write all parts measured so far as Markdown."""
    lines = []
    for name, rows in table.groupby("part", sort=False):
        rows = rows.drop(columns="part").dropna(axis=1, how="all")
        lines += ["", f"## {name}", "", PARTS[name].__doc__, ""]
        lines += [f"| {' | '.join(rows.columns)} |", "|---" * rows.shape[1] + "|"]
        for row in rows.itertuples(index=False):
            lines.append(f"| {' | '.join(map(_cell, row))} |")
    head = (
        f"# Speed\n\nresnet152 as 1_1_1_1 with {BRANCHES} branches, {N_CLASSES} classes, "
        f"{SIZE}x{SIZE} pixels, batch {BATCH}, where nothing else is said; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. Medians of interleaved "
        "rounds; written by `make bench-speed`.\n"
    )
    (RESULTS / "speed.md").write_text(head + "\n".join(lines) + "\n")


def _cell(value):
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def draw(table):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4), layout="constrained")
    rows = table[table.part == "training"]
    axes[0].barh(rows.contender, rows["images/s"], color="tab:blue")
    axes[0].set(xlabel="images/s, all 8 branches", title="Training")
    axes[0].invert_yaxis()
    rows = table[table.part == "branches"]
    numbers = rows.contender.str.split().str[0].astype(int)
    for precision in DTYPES:
        one = rows.contender.str.endswith(precision)
        axes[1].plot(numbers[one], rows["ms a step"][one], "o-", label=precision)
    axes[1].set(xscale="log", xlabel="branches", ylabel="ms a step", title="Cost of branches")
    axes[1].set_xticks(numbers.unique(), numbers.unique())
    axes[1].minorticks_off()
    axes[1].set_ylim(bottom=0)
    axes[1].legend()
    rows = table[(table.part == "inference") & (table.images == 1)]
    colours = np.where(rows.contender.str.startswith("RRR"), "tab:orange", "tab:gray")
    bars = axes[2].barh(rows.contender, rows.ms, color=colours)
    axes[2].bar_label(bars, fmt="%.1f", padding=2)
    axes[2].set(xlim=(0, 1.15 * rows.ms.max()), xlabel="ms for one image", title="Latency")
    axes[2].invert_yaxis()
    figure.savefig(RESULTS / "speed.png", dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    file = RESULTS / "speed.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame({"part": []})
    for name in options.parts.split(","):
        rows = pd.DataFrame(PARTS[name](options.rounds))
        rows.insert(0, "part", name)
        print(rows.dropna(axis=1, how="all").to_string(index=False), flush=True)
        table = pd.concat([table[table.part != name], rows], ignore_index=True)
        table.to_csv(file, index=False, float_format="%.4g")
        write(table)
    if set(PARTS) <= set(table.part):
        matplotlib.use("agg")
        draw(table)


if __name__ == "__main__":
    main()
